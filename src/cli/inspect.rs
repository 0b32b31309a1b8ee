//! `inspect`: tells what a file of a data directory is.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use super::EXIT_FAILED;
use crate::jute::Reader;

/// Bytes at the start of a file that tell what it is.
const HEAD_BYTES: u64 = 16;

pub fn inspect(path: &Path) -> ExitCode {
    match describe(path) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// One line on a file, from its first bytes.
fn describe(path: &Path) -> Result<String, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(|error| error.to_string())?;
    let kind = kind_of(&head).ok_or("neither a log nor a snapshot")?;
    Ok(format!("{}: {kind}, {bytes} bytes", path.display()))
}

/// Source: ZooKeeper `FileTxnLog.TXNLOG_MAGIC`, `FileSnap.SNAP_MAGIC`, `SnapStream.StreamMode`.
fn kind_of(head: &[u8]) -> Option<String> {
    let versioned = |what: &str| {
        let mut reader = Reader::new(head.get(4..)?);
        let (version, dbid) = (reader.i32().ok()?, reader.i64().ok()?);
        Some(format!("{what} of ZooKeeper's format {version}, dbid {dbid}"))
    };
    match head {
        [b'Z', b'K', b'L', b'G', ..] => versioned("transaction log"),
        [b'Z', b'K', b'S', b'N', ..] => versioned("snapshot"),
        [0x1f, 0x8b, ..] => Some("gzip, perhaps a compressed snapshot".into()),
        [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, ..] => {
            Some("snappy, perhaps a compressed snapshot".into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let head = |magic: &[u8; 4]| [&magic[..], &2i32.to_be_bytes(), &(-1i64).to_be_bytes()].concat();
        assert_eq!(kind_of(&head(b"ZKSN")).unwrap(), "snapshot of ZooKeeper's format 2, dbid -1");
        assert_eq!(kind_of(&head(b"ZKLG")).unwrap(), "transaction log of ZooKeeper's format 2, dbid -1");
        assert_eq!(kind_of(b"ZKSN\0\0"), None);
        assert_eq!(kind_of(b""), None);
        assert!(kind_of(&[0x1f, 0x8b, 8]).unwrap().starts_with("gzip"));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(describe(Path::new("/nowhere/log.1")).unwrap_err().contains("No such file"));
    }
}
