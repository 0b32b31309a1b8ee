use super::*;
use crate::proto::acl::{OPEN_UNSAFE, READ_UNSAFE};
use crate::snapshot::{ACL_OPEN, Manifest, Packer, Packing, Writer, unpack};

/// Everything taken, in order.
#[derive(Default, PartialEq, Debug)]
struct Taken {
    sessions: Vec<(SessionId, i32)>,
    acls: Vec<(i64, Vec<u8>)>,
    nodes: Vec<(String, Option<Vec<u8>>, i64, StatPersisted)>,
}

impl LoadSink for Taken {
    fn reset(&mut self) {
        *self = Taken::default();
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.sessions.push((session, timeout_ms));
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        self.acls.push((id, acl.ok_or("null")?.bytes().to_vec()));
        Ok(())
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        self.nodes.push((path.into(), data.map(<[u8]>::to_vec), acl, *stat));
        Ok(())
    }
}

fn node(path: &str, data: Option<&[u8]>, acl: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::jute::put_string(&mut bytes, path);
    crate::jute::put_buffer(&mut bytes, data);
    crate::jute::put_i64(&mut bytes, acl);
    StatPersisted { czxid: Zxid(3), version: 4, ..StatPersisted::default() }.encode(&mut bytes);
    bytes
}

/// A snapshot of a few nodes, one of them with `large` bytes; its content and manifest.
fn content(large: usize, digest: Option<u64>) -> (Vec<u8>, Manifest) {
    let sessions = [(SessionId(7), 30_000), (SessionId(-8), 4_000)];
    let acls = [(1, Acl::from_checked(READ_UNSAFE)), (5, Acl::from_checked(OPEN_UNSAFE))];
    let mut writer = Writer::new(Zxid(0x2_0000_0009), 77, sessions.into_iter(), acls);
    writer.nodes(1, &node("", Some(b""), ACL_OPEN));
    writer.nodes(1, &node("/a", None, 1));
    let mut content = writer.take();
    writer.nodes(1, &node("/a/b", Some(&vec![9; large]), 5));
    writer.nodes(1, &node("/\u{4e16}", Some(b"x"), ACL_OPEN));
    let (last, manifest) = writer.finish(digest);
    content.extend(last);
    (content, manifest)
}

fn read(content: &[u8]) -> (Result<Loaded, LoadError>, Taken) {
    let mut taken = Taken::default();
    let result = load(&mut &content[..], &mut taken);
    (result, taken)
}

#[test]
fn what_is_saved_is_loaded() {
    for digest in [None, Some(0xfedc_ba98_7654_3210)] {
        for large in [0, 100, 3_000_000] {
            let (content, manifest) = content(large, digest);
            let (loaded, taken) = read(&content);
            let loaded = loaded.unwrap();
            manifest.check(&loaded).unwrap();
            assert_eq!(loaded.counts, Counts { sessions: 2, acls: 2, nodes: 4 });
            assert_eq!(loaded.zxid_last, Some(Zxid(0x2_0000_0009)));
            assert_eq!(loaded.digest.map(|digest| digest.tree_digest), digest);
            assert_eq!(taken.sessions, [(SessionId(7), 30_000), (SessionId(-8), 4_000)]);
            assert_eq!(taken.acls, [(1, READ_UNSAFE.to_vec()), (5, OPEN_UNSAFE.to_vec())]);
            assert_eq!(taken.nodes[1].1, None);
            assert_eq!(taken.nodes[2].1.as_ref().unwrap().len(), large);
            assert_eq!(taken.nodes[3].0, "/\u{4e16}");
        }
    }
}

/// A stream that gives one byte at a time.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(into.len()).min(1);
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

#[test]
fn the_size_of_reads_does_not_matter() {
    let (content, manifest) = content(5_000, Some(1));
    let mut taken = Taken::default();
    let loaded = load(&mut Drip(&content), &mut taken).unwrap();
    manifest.check(&loaded).unwrap();
    assert_eq!(taken, read(&content).1);
}

/// T-CRASH 1: a snapshot that ends after any number of bytes.
///
/// Method: an error, but for the two places where older servers end theirs; the manifest refuses those too.
#[test]
fn every_truncation_is_noticed() {
    let (content, manifest) = content(200, Some(5));
    let mut ends = 0;
    for length in 0..content.len() {
        match read(&content[..length]).0 {
            Ok(loaded) => {
                ends += 1;
                assert!(manifest.check(&loaded).is_err(), "length {length}");
            }
            Err(LoadError::Truncated { offset_bytes, .. }) => assert_eq!(offset_bytes, length as u64),
            // The digest's first bytes alone, taken for a last zxid.
            Err(LoadError::Checksum { .. }) if length > content.len() - 60 => {}
            Err(other) => panic!("length {length}: {other}"),
        }
    }
    assert_eq!(ends, 2);
}

/// T-CRASH 1: any one byte of a snapshot changed, in each packing.
///
/// Method: an error, or the very same content.
#[test]
fn every_flipped_byte_is_noticed() {
    let (content, manifest) = content(200, Some(5));
    for packing in Packing::ALL {
        let mut packer = Packer::new(packing);
        let mut packed = Vec::new();
        packer.part(&content, &mut packed);
        packer.finish(&mut packed);
        for at in 0..packed.len() {
            for mask in [1, 0x80, 0xff] {
                packed[at] ^= mask;
                let mut taken = Taken::default();
                let result = load(&mut unpack(packing, &packed[..]), &mut taken);
                packed[at] ^= mask;
                if let Ok(loaded) = result {
                    assert_ne!(packing, Packing::Plain, "offset {at}");
                    manifest.check(&loaded).unwrap();
                    assert_eq!(taken, read(&content).1, "offset {at}");
                }
            }
        }
    }
}

#[test]
fn snapshots_of_older_servers_end_earlier() {
    let (content, _) = content(10, Some(5));
    // Without the last zxid; without the digest too.
    let (loaded, _) = read(&content[..content.len() - 21]);
    let loaded = loaded.unwrap();
    assert_eq!((loaded.digest.unwrap().tree_digest, loaded.zxid_last), (5, None));
    let (loaded, _) = read(&content[..content.len() - 21 - 33]);
    let loaded = loaded.unwrap();
    assert_eq!((loaded.digest, loaded.zxid_last), (None, None));
}

#[test]
fn a_claimed_length_costs_no_memory() {
    let (content, _) = content(100, None);
    let length_at = content.windows(4).position(|w| w == b"/a/b").unwrap() + 4;
    for length in [RECORD_BYTES_MAX as i32 - 200, i32::MAX] {
        let mut content = content.clone();
        content[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        let stream: &mut dyn Read = &mut &content[..];
        let mut input = Input::new(stream);
        assert!(input.record("a node", |reader| reader.take(length as usize).map(|_| ())).is_err());
        assert!(input.buffer.len() <= 2 * READ_BYTES);
        assert!(matches!(read(&content).0, Err(LoadError::Truncated { .. } | LoadError::Malformed { .. })));
    }
}

#[test]
fn what_the_sink_refuses_is_reported_with_its_place() {
    struct Picky;
    impl LoadSink for Picky {
        fn reset(&mut self) {}
        fn session(&mut self, _: SessionId, _: i32) -> Result<(), String> {
            Ok(())
        }
        fn acl(&mut self, _: i64, _: Option<Acl<'_>>) -> Result<(), String> {
            Ok(())
        }
        fn node(&mut self, path: &str, _: Option<&[u8]>, _: i64, _: &StatPersisted) -> Result<(), String> {
            if path == "/a" { Err("no such luck".into()) } else { Ok(()) }
        }
    }
    let (content, _) = content(10, None);
    let error = load(&mut &content[..], &mut Picky).unwrap_err();
    assert!(error.to_string().starts_with("node ending at offset"), "{error}");
}

/// T-FUZZ: no mutation panics.
#[test]
fn mutated_snapshots_do_not_panic() {
    let (content, _) = content(300, Some(5));
    let mut seed = 4u64;
    let mut random = |bound: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % bound
    };
    for packing in Packing::ALL {
        let mut packer = Packer::new(packing);
        let mut packed = Vec::new();
        packer.part(&content, &mut packed);
        packer.finish(&mut packed);
        for _ in 0..10_000 {
            let mut bytes = packed.clone();
            for _ in 0..=random(5) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] = [0, 0x7f, 0x80, 0xff][random(4)],
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let to = (at + random(40)).min(bytes.len());
                        let copied = bytes[at..to].to_vec();
                        let into = random(bytes.len());
                        bytes.splice(into..into, copied);
                    }
                }
            }
            drop(load(&mut unpack(packing, &bytes[..]), &mut Taken::default()));
        }
    }
}
