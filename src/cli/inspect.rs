//! `inspect`: prints a log or a snapshot, ours or ZooKeeper's, as text.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use super::EXIT_FAILED;
use crate::snapshot::{self, Packing};
use crate::txnlog::format::{BLOCK_BYTES, SegmentHeader};
use crate::txnlog::zookeeper::ReadAt;
use crate::txnlog::{self, print};

pub fn inspect(path: &Path) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = print_file(path, &mut out).and_then(|()| out.flush().map_err(|error| error.to_string()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What came before the trouble is worth seeing.
            let _ = out.flush();
            eprintln!("{}: {error}", path.display());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Segment,
    ZooKeeperLog,
    Snapshot(Packing),
}

/// Source: ZooKeeper `FileTxnLog.TXNLOG_MAGIC`, `FileSnap.SNAP_MAGIC`, `SnapStream.StreamMode`.
fn kind_of(head: &[u8]) -> Option<Kind> {
    match head {
        [b'Z', b'K', b'L', b'G', ..] => Some(Kind::ZooKeeperLog),
        [b'Z', b'K', b'S', b'N', ..] => Some(Kind::Snapshot(Packing::Plain)),
        [0x1f, 0x8b, ..] => Some(Kind::Snapshot(Packing::Gzip)),
        [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, ..] => Some(Kind::Snapshot(Packing::Snappy)),
        head => SegmentHeader::decode(head).map(|_| Kind::Segment),
    }
}

fn print_file(path: &Path, out: &mut impl Write) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut file = File::open(path).map_err(text)?;
    let file_bytes = file.metadata().map_err(text)?.len();
    let mut head = Vec::new();
    (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut head).map_err(text)?;
    file.rewind().map_err(text)?;
    let kind = kind_of(&head).ok_or("neither a log nor a snapshot")?;
    let mut failed = None;
    let mut line = |line: String| {
        if failed.is_none() {
            failed = writeln!(out, "{line}").err();
        }
    };
    match kind {
        Kind::Segment => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(text)?;
            print::segment_lines(&bytes, &mut line);
        }
        Kind::ZooKeeperLog => {
            txnlog::print::zookeeper_lines(&mut Whole(file), file_bytes, &mut line)
                .map_err(|error| error.to_string())?;
        }
        Kind::Snapshot(packing) => {
            let mut stream = snapshot::unpack(packing, BufReader::new(file));
            snapshot::print::snapshot_lines(&mut stream, &mut line).map_err(|error| error.to_string())?;
        }
    }
    failed.map_or(Ok(()), |error| Err(error.to_string()))
}

/// A file to be read anywhere.
struct Whole(File);

impl ReadAt for Whole {
    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        assert_eq!(kind_of(b"ZKSN\0\0\0\x02"), Some(Kind::Snapshot(Packing::Plain)));
        assert_eq!(kind_of(b"ZKLG\0\0\0\x02"), Some(Kind::ZooKeeperLog));
        assert_eq!(kind_of(&[0x1f, 0x8b, 8]), Some(Kind::Snapshot(Packing::Gzip)));
        assert_eq!(kind_of(b""), None);
        assert_eq!(kind_of(&[0; BLOCK_BYTES]), None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(
            print_file(Path::new("/nowhere/log.1"), &mut Vec::new()).unwrap_err().contains("No such file")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"something else").unwrap();
        assert_eq!(print_file(file.path(), &mut Vec::new()).unwrap_err(), "neither a log nor a snapshot");
    }

    #[test]
    fn a_snapshot_of_zookeeper_prints() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut found = 0;
        let mut waiting = vec![golden];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.file_name().unwrap().to_string_lossy().starts_with("snapshot.") {
                let mut out = Vec::new();
                print_file(&path, &mut out).unwrap();
                assert!(String::from_utf8(out).unwrap().contains("/zookeeper/config"), "{}", path.display());
                found += 1;
            }
        }
        assert!(found > 0, "the golden snapshots are in the tree");
    }
}
