//! Recovery against an oracle that knows what was written where.

mod cuts;

use std::collections::BTreeMap;

use super::*;
use crate::txnlog::LogWrite;
use crate::txnlog::testing::{Disk, Memory, entry, options};

type Image = BTreeMap<SegmentId, Vec<u8>>;

const BASE: Base = Base { identity: 1, zxid: Zxid::ZERO, segment_first: SegmentId(0), until: None };

fn run(image: &Image, base: Base) -> (Result<Recovered, RecoverError>, Vec<Vec<u8>>) {
    let mut entries = Vec::new();
    let mut memory = Memory(image);
    let files = memory.files();
    let result = recover(&files, &mut memory, base, &mut |zxid, entry| {
        assert_eq!(format::entry_zxid(entry), Some(zxid));
        entries.push(entry.to_vec());
        Ok(())
    });
    (result, entries)
}

/// What one write put on disk.
struct Written {
    write: LogWrite,
    header_at: usize,
    header: BatchHeader,
}

fn describe(write: &LogWrite) -> Written {
    let header_at = if write.offset_bytes == 0 { BLOCK_BYTES } else { 0 };
    let header = BatchHeader::decode(1, &write.bytes[header_at..]).expect("a batch was written");
    Written { write: write.clone(), header_at, header }
}

/// What must come of one segment that holds `written` from its begin on, in an image that differs from what was written.
#[derive(Debug, PartialEq)]
enum Verdict {
    Ends { zxid: Zxid },
    Damaged { offset_bytes: u64 },
}

fn oracle(image: &[u8], written: &[Written]) -> Verdict {
    let intact = |from: usize, bytes: &[u8]| image[from..].starts_with(bytes);
    let at = |w: &Written| w.write.offset_bytes as usize + w.header_at;
    let header_block = intact(0, &written[0].write.bytes[..BLOCK_BYTES]);
    let sound = |w: &&Written| !intact(at(w), &w.write.bytes[w.header_at..]);
    let bad = if header_block { written.iter().find(sound) } else { Some(&written[0]) };
    let Some(bad) = bad else { return Verdict::Ends { zxid: written.last().unwrap().header.zxid_last } };
    let proof = written.iter().any(|w| {
        w.header.durable_before > bad.header.number
            && intact(at(w), &w.write.bytes[w.header_at..][..format::BATCH_HEADER_BYTES])
    });
    match proof {
        true if !header_block => Verdict::Damaged { offset_bytes: 0 },
        true => Verdict::Damaged { offset_bytes: at(bad) as u64 },
        false => Verdict::Ends { zxid: bad.header.zxid_before },
    }
}

fn verdict(result: &Result<Recovered, RecoverError>) -> Verdict {
    match result {
        Ok(recovered) => Verdict::Ends { zxid: recovered.start.zxid_last },
        Err(RecoverError::Damaged { offset_bytes, .. }) => Verdict::Damaged { offset_bytes: *offset_bytes },
        Err(other) => panic!("unexpected {other}"),
    }
}

/// One segment of 64 KiB, nearly full: batches of several sizes, a seal in the middle and one at the end or not.
fn log_64k(seal_at_end: bool) -> (Image, Vec<Written>) {
    log_with_salt(seal_at_end, options().salt_seed)
}

fn log_with_salt(seal_at_end: bool, salt_seed: u64) -> (Image, Vec<Written>) {
    let mut disk = Disk::new(crate::txnlog::WriterOptions { salt_seed, ..options() });
    let mut writes = Vec::new();
    for (count, bytes) in [(1, 40), (3, 700), (1, 9_000), (2, 40), (40, 100), (1, 5_000), (5, 1)] {
        disk.append(count, bytes);
        writes.extend(disk.run());
        if bytes == 9_000 {
            writes.extend(disk.seal());
        }
    }
    if seal_at_end {
        writes.extend(disk.seal());
    }
    assert!(writes.iter().all(|write| write.segment == SegmentId(1)));
    let mut image = disk.segments;
    image.retain(|&id, _| id == SegmentId(1));
    assert_eq!(image[&SegmentId(1)].len(), 64 << 10);
    (image, writes.iter().map(describe).collect())
}

#[test]
fn what_was_written_is_read_over_many_segments() {
    let mut disk = Disk::new(options());
    disk.append(500, 700);
    disk.run();
    let (result, entries) = run(&disk.segments, BASE);
    let recovered = result.unwrap();
    assert_eq!(entries, (1..=500).map(|zxid| entry(zxid, 700)).collect::<Vec<_>>());
    assert_eq!((recovered.start.zxid_last, recovered.tail), (Zxid(500), Tail::Clean));
    assert!(recovered.start.live.len() > 3);
    let (result, entries) = run(&disk.segments, Base { zxid: Zxid(400), ..BASE });
    assert_eq!((result.unwrap().entry_count, entries.len()), (100, 100));
    let ahead = run(&disk.segments, Base { zxid: Zxid(501), ..BASE }).0;
    assert!(matches!(ahead, Err(RecoverError::Damaged { zxid_before: Zxid(500), .. })), "{ahead:?}");
}

/// T-CRASH 1: a log that ends after any number of bytes.
///
/// Method: the rest of the file is zeros (what preallocation leaves), and where the file itself is shorter that is damage.
#[test]
fn every_length_of_a_log_is_classified() {
    for seal_at_end in [false, true] {
        let (image, written) = log_64k(seal_at_end);
        let mut cut = image.clone();
        let bytes = cut.get_mut(&SegmentId(1)).unwrap();
        // The seal makes a difference at the end only.
        let from = if seal_at_end { 40 << 10 } else { 0 };
        for length in (from..bytes.len()).rev() {
            bytes[length] = 0;
            let expected = oracle(bytes, &written);
            let (result, _) = run(&Image::from([(SegmentId(1), std::mem::take(bytes))]), BASE);
            assert_eq!(verdict(&result), expected, "length {length}");
            *bytes = image[&SegmentId(1)].clone();
            bytes[length..].fill(0);
        }
    }
}

/// T-CRASH 1: lengths of a log of 256 KiB, and any byte of one over many segments.
#[test]
fn a_longer_log_is_never_silently_shorter() {
    let mut large = options();
    large.segment_bytes = 256 << 10;
    let mut disk = Disk::new(large);
    let mut writes = Vec::new();
    for round in 0..30 {
        disk.append(1 + round % 4, 300 * round);
        writes.extend(disk.run());
    }
    let written: Vec<_> = writes.iter().map(describe).collect();
    let whole = disk.segments[&SegmentId(1)].clone();
    for length in (0..256 << 10).step_by(211) {
        let mut bytes = whole.clone();
        bytes[length..].fill(0);
        let expected = oracle(&bytes, &written);
        assert_eq!(verdict(&run(&Image::from([(SegmentId(1), bytes)]), BASE).0), expected, "length {length}");
    }

    let mut disk = Disk::new(options());
    let mut used = Vec::new();
    for _ in 0..30 {
        disk.append(12, 700);
        used.extend(disk.run());
        // Another start of the server now and then.
        if used.len() % 4 == 0 {
            let (recovered, _) = run(&disk.segments, BASE);
            disk = Disk::from(options(), recovered.unwrap().start, disk.segments);
        }
    }
    let (last, before) = used.split_last().unwrap();
    let mut random = Random(7);
    for write in before {
        for _ in 0..20 {
            let at = write.offset_bytes as usize + random.below(write.bytes.len() as u64) as usize;
            let mut image = disk.segments.clone();
            image.get_mut(&write.segment).unwrap()[at] ^= 1 << random.below(8);
            let result = run(&image, BASE).0;
            assert!(result.is_err(), "segment {} offset {at}: {result:?}", write.segment);
        }
    }
    let mut image = disk.segments.clone();
    image.get_mut(&last.segment).unwrap()[last.offset_bytes as usize + 5] ^= 1;
    let whole = run(&disk.segments, BASE).0.unwrap();
    let cut = run(&image, BASE).0.unwrap();
    assert_eq!(cut.start.batch_next + 1, whole.start.batch_next);
}

#[test]
fn a_file_shorter_than_its_segment_is_damage() {
    let (image, _) = log_64k(false);
    for length in (0..64 << 10).step_by(37) {
        let cut = Image::from([(SegmentId(1), image[&SegmentId(1)][..length].to_vec())]);
        let (result, entries) = run(&cut, BASE);
        assert!(matches!(result, Err(RecoverError::Damaged { .. })), "length {length}: {result:?}");
        assert!(entries.is_empty());
    }
}

/// T-CRASH 1: any one byte of a log of 64 KiB changed.
///
/// Method: damage wherever a later batch proves it, a cut at the very end, nothing where nothing lies; never shorter
/// than the durable mark.
#[test]
fn every_flipped_byte_is_classified() {
    for seal_at_end in [false, true] {
        let (mut image, written) = log_64k(seal_at_end);
        let mark = written.last().unwrap().header.zxid_durable;
        // The seal makes a difference at the end only.
        for at in if seal_at_end { 40 << 10 } else { 0 }..64 << 10 {
            let mask = if seal_at_end { 0xff } else { 1 << (at % 8) };
            image.get_mut(&SegmentId(1)).unwrap()[at] ^= mask;
            let (result, _) = run(&image, BASE);
            assert_eq!(verdict(&result), oracle(&image[&SegmentId(1)], &written), "offset {at}");
            if let Ok(recovered) = result {
                assert!(recovered.start.zxid_last >= mark, "offset {at}");
            }
            image.get_mut(&SegmentId(1)).unwrap()[at] ^= mask;
        }
    }
}

/// A log in a recycled file: behind what is written lie the batches of an older segment, in places that fit.
fn recycled(mut image: Image, written: &[LogWrite]) -> Image {
    let (_, old) = log_with_salt(true, 3);
    for (id, bytes) in &mut image {
        let mut used = vec![false; bytes.len()];
        for write in written.iter().filter(|write| write.segment == *id) {
            used[write.offset_bytes as usize..][..write.bytes.len()].fill(true);
        }
        for written in &old {
            let at = written.write.offset_bytes as usize;
            for (i, byte) in written.write.bytes.iter().enumerate() {
                if !used[at + i] {
                    bytes[at + i] = *byte;
                }
            }
        }
    }
    image
}

/// T-CRASH 2: every subset of the sectors of what is in flight survives.
///
/// Method: some batches are durable, one or two are under way; whatever of them landed, all that was durable is found, of
/// the rest whole batches in order or nothing, never damage, twice the same; and the log goes on from there.
fn every_subset(sector: usize, in_flight: &[usize], is_recycled: bool) {
    let mut options = options();
    options.in_flight_max = 2;
    let mut disk = Disk::new(options);
    disk.append(3, 700);
    let mut durable = disk.run();
    disk.append(1, 5_000);
    durable.extend(disk.run());
    let zxid_durable = disk.writer.zxid_durable();
    let mut under_way = Vec::new();
    for &bytes in in_flight {
        disk.append(1, bytes);
        under_way.push(disk.writer.next_write(crate::types::Instant(0)).expect("room for another"));
    }
    let before = if is_recycled { recycled(disk.segments.clone(), &durable) } else { disk.segments.clone() };
    let sectors: Vec<(usize, usize)> = under_way
        .iter()
        .enumerate()
        .flat_map(|(w, write)| (0..write.bytes.len() / sector).map(move |s| (w, s * sector)))
        .collect();
    assert!(sectors.len() <= 16);
    // All of up to ten sectors, a sample of more.
    let step = if sectors.len() <= 10 { 1 } else { 29 };
    for subset in (0u32..1 << sectors.len()).step_by(step) {
        let mut image = before.clone();
        for (bit, &(w, at)) in sectors.iter().enumerate() {
            if subset & (1 << bit) != 0 {
                let write = &under_way[w];
                image.get_mut(&write.segment).unwrap()[write.offset_bytes as usize + at..][..sector]
                    .copy_from_slice(&write.bytes[at..at + sector]);
            }
        }
        let lands =
            |write: &LogWrite| image[&write.segment][write.offset_bytes as usize..].starts_with(&write.bytes);
        let whole = under_way.iter().take_while(|write| lands(write)).count() as i64;
        let (result, entries) = run(&image, BASE);
        let recovered = result.unwrap_or_else(|error| panic!("subset {subset:b}: {error}"));
        assert_eq!(recovered.start.zxid_last, Zxid(zxid_durable.0 + whole), "subset {subset:b}");
        assert_eq!(entries.len() as i64, recovered.start.zxid_last.0);
        if subset % 61 != 0 {
            continue;
        }
        assert_eq!(run(&image, BASE).0.unwrap(), recovered, "twice the same");
        let kept = recovered.start.zxid_last.0;
        let mut options = options;
        options.salt_seed ^= 99;
        let mut disk = Disk::from(options, recovered.start, image);
        disk.append(4, 600);
        disk.run();
        let (again, entries) = run(&disk.segments, BASE);
        assert_eq!(again.unwrap().start.zxid_last, Zxid(kept + 4), "subset {subset:b}");
        assert_eq!(entries[kept as usize..], [1, 2, 3, 4].map(|n| entry(kept + n, 600)));
    }
}

#[test]
fn any_sectors_of_512_of_a_write_under_way_may_survive() {
    for is_recycled in [false, true] {
        every_subset(512, &[3_000], is_recycled);
        every_subset(512, &[100, 100], is_recycled);
        every_subset(512, &[7_000], is_recycled);
    }
}

#[test]
fn any_sectors_of_4096_of_a_write_under_way_may_survive() {
    for is_recycled in [false, true] {
        every_subset(4096, &[36_000], is_recycled);
        every_subset(4096, &[15_000, 20_000], is_recycled);
        every_subset(4096, &[1, 1], is_recycled);
        // The second begins another segment.
        every_subset(4096, &[20_000, 25_000], is_recycled);
    }
}

/// Crash after crash: whatever part of what was in flight survives, nothing acknowledged is lost, and nothing that was cut comes
/// back (P1, S6).
#[test]
fn a_crash_loop_loses_nothing_acknowledged() {
    let mut random = Random(0x5eed);
    for round in 0..60 {
        let mut options = options();
        options.in_flight_max = 1 + round % 2;
        let mut disk = Disk::new(options);
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for crash in 0..8 {
            options.salt_seed = random.next();
            let mut acknowledged = kept.len();
            let mut appended = kept.clone();
            let mut under_way: Vec<LogWrite> = Vec::new();
            for _ in 0..random.below(40) {
                match random.below(4) {
                    0 | 1 => {
                        let bytes = random.below(6_000) as usize;
                        disk.append(1, bytes);
                        appended.push(entry(disk.zxid, bytes));
                    }
                    2 => {
                        disk.prepare();
                        under_way.extend(disk.writer.next_write(crate::types::Instant(0)));
                    }
                    _ if !under_way.is_empty() => {
                        let done = under_way.swap_remove(random.below(under_way.len() as u64) as usize);
                        disk.put(&done);
                        acknowledged = disk.writer.written(done.id, Vec::new()).0 as usize;
                    }
                    _ => {
                        if let Some(at) = disk.writer.next_timer() {
                            disk.writer.on_timer(at);
                        }
                    }
                }
            }
            for write in &under_way {
                for block in 0..write.bytes.len() / BLOCK_BYTES {
                    if random.below(2) == 0 {
                        let at = block * BLOCK_BYTES;
                        disk.segments.get_mut(&write.segment).unwrap()[write.offset_bytes as usize + at..]
                            [..BLOCK_BYTES]
                            .copy_from_slice(&write.bytes[at..at + BLOCK_BYTES]);
                    }
                }
            }
            let (result, entries) = run(&disk.segments, BASE);
            let recovered = result.unwrap_or_else(|error| panic!("round {round} crash {crash}: {error}"));
            assert!(entries.len() >= acknowledged, "round {round} crash {crash}");
            assert_eq!(entries, appended[..entries.len()], "round {round} crash {crash}");
            kept = entries;
            disk = Disk::from(options, recovered.start, disk.segments);
        }
    }
}

#[test]
fn a_missing_segment_is_found() {
    let mut disk = Disk::new(options());
    disk.append(300, 700);
    disk.run();
    let ids: Vec<_> = disk.writer.live().map(|segment| segment.id).collect();
    for (index, id) in ids.iter().enumerate() {
        let mut image = disk.segments.clone();
        image.remove(id);
        let (result, _) = run(&image, BASE);
        match (index, result) {
            (0, Err(RecoverError::Gap { segment, .. })) => assert_eq!(segment, ids[1]),
            (last, Ok(recovered)) if last + 1 == ids.len() => {
                // Nothing in the log can tell; a snapshot or its successor would.
                assert!(recovered.start.zxid_last < Zxid(300));
                let base = Base { zxid: Zxid(300), ..BASE };
                let result = run(&image, base).0;
                assert!(matches!(result, Err(RecoverError::Damaged { .. })), "{result:?}");
            }
            (_, Err(RecoverError::Damaged { segment, .. })) => assert_eq!(segment, ids[index - 1]),
            (_, other) => panic!("segment {index}: {other:?}"),
        }
    }
}

#[test]
fn a_segment_of_another_directory_is_refused() {
    let (image, _) = log_64k(false);
    let (result, _) = run(&image, Base { identity: 2, ..BASE });
    assert!(matches!(result, Err(RecoverError::Foreign { found: 1, expected: 2, .. })), "{result:?}");
}

/// A client cannot make damage by storing what looks like a batch: it does not know the identity or the salt.
#[test]
fn data_that_imitates_a_batch_is_not_taken_for_one() {
    let (image, written) = log_64k(false);
    let mut disk = Disk::new(options());
    disk.append(1, 40);
    disk.run();
    let mut forged = vec![0; BLOCK_BYTES];
    for segment in [1, 2] {
        let bytes = disk.segments.get_mut(&SegmentId(segment)).unwrap();
        for block in 3..10u64 {
            let offset_bytes = block * BLOCK_BYTES as u64;
            let header = BatchHeader {
                segment: SegmentId(segment),
                offset_bytes,
                number: 50,
                durable_before: 50,
                salt: 12345,
                ..written[0].header
            };
            header.encode(777, &mut forged);
            bytes[offset_bytes as usize..][..BLOCK_BYTES].copy_from_slice(&forged);
        }
    }
    let recovered = run(&disk.segments, BASE).0.unwrap();
    assert_eq!((recovered.start.zxid_last, recovered.tail), (Zxid(1), Tail::Clean));
    assert_eq!(image.len(), 1);
}

/// T-FUZZ: no mutation of a log makes recovery panic or ask for more memory than the file has bytes.
#[test]
fn mutated_logs_do_not_panic() {
    let mut random = Random(42);
    for seal_at_end in [false, true] {
        let (image, _) = log_64k(seal_at_end);
        for _ in 0..3_000 {
            let mut image = image.clone();
            let bytes = image.get_mut(&SegmentId(1)).unwrap();
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(4) {
                    0 => bytes[at] = random.next() as u8,
                    1 => {
                        let to = (at + random.below(5_000) as usize).min(bytes.len());
                        bytes[at..to].fill(random.next() as u8);
                    }
                    2 => {
                        let from = random.below(16) as usize * BLOCK_BYTES;
                        bytes.copy_within(from..from + BLOCK_BYTES, random.below(16) as usize * BLOCK_BYTES);
                    }
                    _ => bytes[at / BLOCK_BYTES * BLOCK_BYTES..][72..76].fill(random.next() as u8),
                }
            }
            drop(run(&image, BASE));
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound.max(1)
    }
}
