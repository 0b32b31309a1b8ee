//! Names and small files of the data directory, and the work on log segments.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::server::storage::member::{EPOCHS, MEMBER};
use crate::server::storage::{DirectWriter, StorageError, StorageOptions};
use crate::snapshot::Packing;
use crate::txnlog::{SegmentFile, SegmentId};
use crate::types::Zxid;
use crate::zab::Epochs;

/// The directory of ours in `dataDir` and `dataLogDir`.
const OURS: &str = "ringkeeper";
const IDENTITY: &str = "identity";
/// In `dataDir`: an empty database is meant. Source: ZooKeeper `FileTxnSnapLog#restore`.
pub const INITIALIZE: &str = "initialize";
const TEMPORARY: &str = ".tmp";
/// Besides snapshots, what a first start that was broken off may have left.
const LEFT: [&str; 3] = [IDENTITY, EPOCHS, MEMBER];
/// Retired segments kept for recycling.
const SPARES_MAX: usize = 2;
/// Bytes a side file may have.
const SIDE_FILE_BYTES_MAX: u64 = 64 << 10;

/// The data directory by its paths; cheap to clone and to hand to another thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    data_dir: PathBuf,
    data_log_dir: PathBuf,
    snapshots: PathBuf,
    log: PathBuf,
    identity: u64,
    /// If the data began in a ZooKeeper's directory: the last zxid it had then, or its newest log file was named after.
    pub(super) imported: Option<Zxid>,
    /// Segments before this one, and snapshots that name a lower one, are of a history that was replaced.
    pub(super) segment_first: SegmentId,
    /// As they were last written.
    pub(super) epochs: Option<Epochs>,
    pub(super) retain: usize,
    pub(super) packing: Packing,
}

impl Files {
    pub(super) fn new(options: &StorageOptions) -> Files {
        Files {
            data_dir: options.data_dir.clone(),
            data_log_dir: options.data_log_dir.clone(),
            snapshots: options.data_dir.join(OURS),
            log: options.data_log_dir.join(OURS),
            identity: 0,
            imported: None,
            segment_first: SegmentId(0),
            epochs: None,
            retain: options.snapshot_retain,
            packing: options.packing,
        }
    }

    /// Random, of this data directory; goes into segments and manifests.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    pub fn snapshot_dir(&self) -> &Path {
        &self.snapshots
    }

    pub fn log_dir(&self) -> &Path {
        &self.log
    }

    /// The directories of ours: one, or two where the log has its own.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        // The log's first: the identity in it is written first.
        let log = (self.log != self.snapshots).then_some(self.log.as_path());
        log.into_iter().chain([self.snapshots.as_path()])
    }

    pub(super) fn make_directories(&self, autocreate: bool) -> Result<(), StorageError> {
        for outer in [&self.data_dir, &self.data_log_dir] {
            if !autocreate && !outer.is_dir() {
                return Err(StorageError::Refused {
                    path: outer.clone(),
                    reason: "the directory is missing, and datadir.autocreate is off".into(),
                    advice: "Make it, or check dataDir and dataLogDir",
                });
            }
        }
        for dir in self.directories() {
            fs::create_dir_all(dir).map_err(StorageError::io("make directory", dir))?;
            for parent in dir.ancestors().skip(1).take(2).filter(|parent| !parent.as_os_str().is_empty()) {
                sync_dir(parent).map_err(StorageError::io("sync directory", parent))?;
            }
        }
        Ok(())
    }

    /// Removes what was being made when a server stopped.
    pub(super) fn remove_temporary(&self) -> Result<(), StorageError> {
        for dir in self.directories() {
            for name in names(dir)?.iter().filter(|name| name.ends_with(TEMPORARY)) {
                remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Reads the identity; false if the directory was never completely set up.
    pub(super) fn read_identity(&mut self) -> Result<bool, StorageError> {
        let log_path = self.log.join(IDENTITY);
        let own_path = self.snapshots.join(IDENTITY);
        let in_log = read_side_file(&log_path)?;
        let Some(own) = read_side_file(&own_path)? else {
            let has_log = names(&self.log)?.iter().any(|name| segment_of(name, "log.").is_some());
            if has_log {
                return Err(StorageError::Refused {
                    path: own_path,
                    reason: format!("it is missing, but there is a log in {}", self.log.display()),
                    advice: "The snapshots of that log are gone: restore dataDir, or move the log away to begin without it",
                });
            }
            return Ok(false);
        };
        let refused = |path: &Path, reason: String| StorageError::Refused {
            path: path.to_owned(),
            reason,
            advice: "Check that dataDir and dataLogDir belong to the same server and are both mounted",
        };
        if in_log.as_ref() != Some(&own) {
            let what = if in_log.is_some() { "is of another server than" } else { "is missing, unlike" };
            return Err(refused(&log_path, format!("it {what} {}", own_path.display())));
        }
        let parsed = Identity::parse(&own);
        let parsed = parsed.ok_or_else(|| refused(&own_path, "it is damaged".into()))?;
        (self.identity, self.imported) = (parsed.id, parsed.imported);
        Ok(true)
    }

    /// Removes what an earlier, uncompleted first start left, and draws an identity.
    pub(super) fn begin_anew(&mut self) -> Result<(), StorageError> {
        for dir in self.directories() {
            for name in names(dir)?
                .iter()
                .filter(|name| name.starts_with("snapshot.") || LEFT.contains(&name.as_str()))
            {
                remove(&dir.join(name))?;
            }
        }
        let path = Path::new("/dev/urandom");
        let mut random = [0; 8];
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut random))
            .map_err(StorageError::io("read", path))?;
        self.identity = u64::from_le_bytes(random);
        Ok(())
    }

    /// The last step of setting up, after the first snapshot; does nothing later.
    pub(super) fn commit_identity(&self) -> Result<(), StorageError> {
        if self.snapshots.join(IDENTITY).exists() {
            return Ok(());
        }
        let text = Identity { id: self.identity, imported: self.imported }.text();
        for dir in self.directories() {
            let path = dir.join(IDENTITY);
            write_atomic(&path, text.as_bytes()).map_err(StorageError::io("write", &path))?;
        }
        self.take_marker()
    }

    /// The file `initialize` is good for one start.
    pub(super) fn take_marker(&self) -> Result<(), StorageError> {
        let marker = self.data_dir.join(INITIALIZE);
        match fs::remove_file(&marker) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::Io { what: "remove", path: marker, error })
            }
            _ => Ok(()),
        }
    }

    pub fn segment_path(&self, id: SegmentId) -> PathBuf {
        self.log.join(format!("log.{id}"))
    }

    /// The segments there are.
    pub fn segments(&self) -> Result<Vec<SegmentFile>, StorageError> {
        let mut segments = Vec::new();
        for name in names(&self.log)? {
            if let Some(id) = segment_of(&name, "log.") {
                let path = self.log.join(&name);
                let bytes = fs::metadata(&path).map_err(StorageError::io("look at", &path))?.len();
                segments.push(SegmentFile { id, bytes });
            }
        }
        segments.sort_by_key(|segment| segment.id);
        Ok(segments)
    }

    /// Makes the file of a segment, `bytes` long, all of it really written: a spare one under a new name, or zeros.
    /// File and directory are durable afterwards (O8). May take long: not for a core.
    pub fn prepare_segment(&self, id: SegmentId, bytes: u64) -> Result<(), StorageError> {
        let path = self.segment_path(id);
        for spare in self.spares()? {
            let is_fit = fs::metadata(&spare).map_err(StorageError::io("look at", &spare))?.len() == bytes;
            if is_fit {
                // Its blocks carry another segment's id and salt, so nothing in it can be taken for ours.
                fs::rename(&spare, &path).map_err(StorageError::io("rename", &spare))?;
                return sync_dir(&self.log).map_err(StorageError::io("sync directory", &self.log));
            }
            remove(&spare)?;
        }
        let temporary = with_suffix(&path, TEMPORARY);
        let made = (|| {
            let mut writer = DirectWriter::create(&temporary)?;
            writer.write_zeros(bytes)?;
            writer.finish()?;
            fs::rename(&temporary, &path)?;
            sync_dir(&self.log)
        })();
        if made.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        made.map_err(StorageError::io("make", &path))
    }

    /// Puts a segment nobody wants any more aside for recycling, or removes it where there are enough.
    ///
    /// Not made durable: a segment that comes back with a crash holds nothing that is wrong.
    pub fn retire_segment(&self, id: SegmentId) -> Result<(), StorageError> {
        let path = self.segment_path(id);
        if self.spares()?.len() >= SPARES_MAX {
            return remove(&path);
        }
        fs::rename(&path, self.log.join(format!("spare.{id}"))).map_err(StorageError::io("rename", &path))
    }

    fn spares(&self) -> Result<Vec<PathBuf>, StorageError> {
        let names = names(&self.log)?;
        Ok(names
            .iter()
            .filter(|name| segment_of(name, "spare.").is_some())
            .map(|name| self.log.join(name))
            .collect())
    }

    pub(super) fn sync_segment(&self, id: SegmentId) -> Result<(), StorageError> {
        let path = self.segment_path(id);
        File::open(&path).and_then(|file| file.sync_all()).map_err(StorageError::io("sync", &path))
    }
}

/// What the file `identity` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    id: u64,
    imported: Option<Zxid>,
}

impl Identity {
    fn text(&self) -> String {
        let imported = self.imported.map_or(String::new(), |zxid| format!("imported {zxid}\n"));
        let body = format!("ringkeeper-data 1\nidentity {:016x}\n{imported}", self.id);
        format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
    }

    fn parse(bytes: &[u8]) -> Option<Identity> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines().skip(1);
        let hex = |line: Option<&str>, name: &str| {
            let value = line?.strip_prefix(name)?.trim_start_matches("0x");
            u64::from_str_radix(value, 16).ok()
        };
        let id = hex(lines.next(), "identity ")?;
        let imported = hex(lines.next(), "imported ").map(|zxid| Zxid(zxid as i64));
        let identity = Identity { id, imported };
        (identity.text() == text).then_some(identity)
    }
}

/// Replaces a small file in one step: after a crash it holds the old bytes or the new, durably.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(path, TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().expect("a file is in a directory"))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn temporary(path: &Path) -> PathBuf {
    with_suffix(path, TEMPORARY)
}

/// A small file's bytes; `None` if there is none.
pub(super) fn read_side_file(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SIDE_FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::Io { what: "read", path: path.to_owned(), error }),
    }
}

/// The names in a directory, sorted; those that are not UTF-8 are none of ours.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, StorageError> {
    let error = |error| StorageError::Io { what: "list", path: dir.to_owned(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(error)? {
        let entry = entry.map_err(error)?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

pub(super) fn remove(path: &Path) -> Result<(), StorageError> {
    fs::remove_file(path).map_err(StorageError::io("remove", path))
}

fn segment_of(name: &str, prefix: &str) -> Option<SegmentId> {
    let hex = name.strip_prefix(prefix).filter(|hex| hex.len() == 16)?;
    u64::from_str_radix(hex, 16).ok().map(SegmentId)
}
