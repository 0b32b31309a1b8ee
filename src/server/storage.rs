//! The data directory: who may use it, what is in it, how it is recovered at start.
//!
//! ```text
//! <dataDir>/ringkeeper/     lock                       held by a descriptor as long as the server (and its I/O) lives
//!                           identity                   random, see below; written last when the directory is set up
//!                           snapshot.<zxid>[.gz|.snappy]  ZooKeeper's format, exact at its zxid
//!                           snapshot.<zxid>.manifest   without it the snapshot does not count
//!                           epochs, member             of a server of an ensemble, see `member`
//!                           exported                   up to where the data was last written for a ZooKeeper
//! <dataLogDir>/ringkeeper/  lock, identity             again, where the log has a directory of its own
//!                           log.<segment id>           16 hex digits
//!                           spare.<segment id>         retired, to be recycled
//! <dataDir>/version-2, <dataLogDir>/version-2          a ZooKeeper's: read at first start, never written
//! ```
//!
//! `*.tmp` are files that were being made; they are removed at start. A directory without `identity` was never completely set
//! up: what is in it is begun again. With it, there is always a verified snapshot, so that a directory that lost its
//! files is told from a new one (BUG-24), and a log directory of another server from our own.
//!
//! Recovery is strict: the newest snapshot that verifies, then every transaction after it, contiguous, each digest compared. An
//! older snapshot is taken only where the log still covers everything since. What is damaged is never cut or passed
//! over; the error names file and offset.

mod direct;
mod export;
mod files;
mod import;
mod member;
mod rebuild;
mod snapshots;

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

pub use crate::zab::Standing;
pub use direct::{DirectReader, DirectWriter};
pub use export::{Exported, export};
pub use files::{Files, write_atomic};
pub use rebuild::{RebuildError, WentBack};
pub use snapshots::{Kept, SnapshotFile, SnapshotInfo};

use crate::snapshot::{LoadSink, Packing};
use crate::txnlog::recover::Base;
use crate::txnlog::{self, RecoverError, SegmentId, SegmentSource, Start, Tail};
use crate::types::{ServerId, Zxid};
use crate::zab::Epochs;

/// How long a dying predecessor may keep the lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Segments begun since the newest snapshot above which another is advised.
const SEGMENTS_BEHIND_MAX: usize = 4;
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Where data is and how it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageOptions {
    /// `dataDir`.
    pub data_dir: PathBuf,
    /// `dataLogDir`; the same as `data_dir` if not set.
    pub data_log_dir: PathBuf,
    /// `datadir.autocreate`: make directories that are missing.
    pub autocreate: bool,
    /// `db.autocreate`: begin an empty database where there is no data; if not, only beside a file `initialize` in `data_dir`.
    pub db_autocreate: bool,
    /// `snapshot.trust.empty`: import ZooKeeper logs without any snapshot.
    pub trust_empty_snapshot: bool,
    /// Verified snapshots that stay, at least 1 (`autopurge.snapRetainCount`, default 3).
    pub snapshot_retain: usize,
    /// `snapshot.compression.method`.
    pub packing: Packing,
    /// The number in `myid`; `None` for a server alone.
    pub server_id: Option<ServerId>,
    /// How long to wait for the lock.
    pub lock_wait: Duration,
}

impl StorageOptions {
    pub fn new(data_dir: impl Into<PathBuf>, data_log_dir: Option<PathBuf>) -> StorageOptions {
        let data_dir = data_dir.into();
        StorageOptions {
            data_log_dir: data_log_dir.unwrap_or_else(|| data_dir.clone()),
            data_dir,
            autocreate: true,
            db_autocreate: true,
            trust_empty_snapshot: false,
            snapshot_retain: 3,
            packing: Packing::Plain,
            server_id: None,
            lock_wait: LOCK_WAIT,
        }
    }
}

/// Takes the state as it is recovered: [`LoadSink`] for a snapshot, then every later transaction.
pub trait Restore: LoadSink {
    /// The snapshot of `zxid` is all taken (or there is none: [`LoadSink::reset`] was called and `zxid` is zero).
    ///
    /// With `fuzzy_until` its nodes may already hold changes up to that zxid, which [`Restore::apply`] will bring again:
    /// apply those so that a second time does no harm, and compare no digests before it.
    fn loaded(&mut self, zxid: Zxid, fuzzy_until: Option<Zxid>) -> Result<(), String>;
    /// Applies the next transaction, and compares the tree with the digest the entry carries.
    fn apply(&mut self, zxid: Zxid, entry: &[u8]) -> Result<DigestCheck, String>;
    /// The tree's digest now; `None` where digests are off.
    fn tree_digest(&self) -> Option<u64>;
}

/// What comparing digests gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestCheck {
    /// The entry carries none, or it is not to be compared.
    Skipped,
    Same,
    Differs {
        logged: u64,
        computed: u64,
    },
}

/// Where the state came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    Own { snapshot: Zxid },
    ZooKeeper { snapshot: Option<Zxid> },
    Empty,
}

/// A data directory that is ours, with what it held.
#[derive(Debug)]
pub struct Opened {
    pub files: Files,
    /// To be held until the last I/O on the directory has landed (O11).
    pub lock: DirectoryLock,
    /// The last transaction in the state.
    pub zxid: Zxid,
    pub origin: Origin,
    /// Where the log goes on.
    pub log_start: Start,
    pub log_tail: Tail,
    /// Transactions applied after the snapshot.
    pub entry_count: u64,
    /// Of a server of an ensemble: written down, and not below what the data shows.
    pub epochs: Epochs,
    /// How far it may take part in elections.
    pub standing: Standing,
    /// Restarts have left so many segments behind that a snapshot is worth taking soon, however few transactions they
    /// hold: each start begins a new one.
    pub snapshot_advised: bool,
    /// The directory is not set up yet: a snapshot of this state must be [finished](SnapshotFile::finish) before the log is
    /// begun or a client served.
    pub first_snapshot_due: bool,
    /// For the operator, one line each.
    pub warnings: Vec<String>,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum StorageError {
    #[error("cannot {what} {path}: {error}", path = path.display())]
    Io { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{path} is in use by another server{owner}: stop it, or give this one a dataDir of its own", path = path.display())]
    Locked { path: PathBuf, owner: String },
    #[error("the log in {path} cannot be used: {error}. {ADVICE_DAMAGED}", path = dir.display())]
    Log { dir: PathBuf, error: RecoverError },
    #[error("{path}: {reason}. {advice}", path = path.display())]
    Refused { path: PathBuf, reason: String, advice: &'static str },
}

const ADVICE_DAMAGED: &str = "Nothing was changed. Restore the data directory from a backup or, in an ensemble, \
                              move it away so that this server is synchronised by the others";

impl StorageError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.to_owned();
        move |error| StorageError::Io { what, path, error }
    }

    /// Whether the directory could not be reached at all (exit code 3, `reference/operations.md` §1.2).
    pub fn is_access(&self) -> bool {
        matches!(self, StorageError::Io { .. } | StorageError::Locked { .. })
    }
}

/// Locks the directory, and recovers into `restore` what it holds.
pub fn open(options: &StorageOptions, restore: &mut dyn Restore) -> Result<Opened, StorageError> {
    assert!(options.snapshot_retain > 0, "a snapshot is always kept");
    let mut files = Files::new(options);
    files.make_directories(options.autocreate)?;
    let lock = DirectoryLock::take(&files, options.lock_wait)?;
    files.remove_temporary()?;
    if files.read_identity()? {
        return open_own(options, files, lock, restore);
    }
    files.begin_anew()?;
    let imported = import::import(options, restore)?;
    let (zxid, origin, entry_count, mut warnings, epochs) = match imported {
        Some(imported) => {
            files.imported = Some(imported.zxid.max(imported.newest));
            let origin = Origin::ZooKeeper { snapshot: imported.snapshot };
            (imported.zxid, origin, imported.entry_count, imported.warnings, imported.epochs)
        }
        None => {
            let marker = options.data_dir.join(files::INITIALIZE);
            // In an ensemble the others have the data.
            if !options.db_autocreate && !marker.exists() && options.server_id.is_none() {
                return Err(StorageError::Refused {
                    path: options.data_dir.clone(),
                    reason: "it holds no data, and db.autocreate is off".into(),
                    advice: "If this is meant to be a new server, make an empty file `initialize` in dataDir",
                });
            }
            restore.reset();
            restore.loaded(Zxid::ZERO, None).map_err(|reason| StorageError::Refused {
                path: options.data_dir.clone(),
                reason,
                advice: "This is a fault of the server",
            })?;
            (Zxid::ZERO, Origin::Empty, 0, Vec::new(), None)
        }
    };
    let (epochs, standing) = files.settle_member(options, None, epochs, zxid, &mut warnings)?;
    let log_start = Start::fresh(files.identity(), zxid);
    Ok(Opened {
        files,
        lock,
        zxid,
        origin,
        log_start,
        log_tail: Tail::Clean,
        entry_count,
        epochs,
        standing,
        snapshot_advised: false,
        first_snapshot_due: true,
        warnings,
    })
}

fn open_own(
    options: &StorageOptions,
    mut files: Files,
    lock: DirectoryLock,
    restore: &mut dyn Restore,
) -> Result<Opened, StorageError> {
    let member = files.read_member(options.server_id)?;
    files.read_exported()?;
    let promised = files.read_epochs()?;
    import::refuse_if_newer(options, &files, promised)?;
    let mut warnings = Vec::new();
    let (manifest, known) = files.load_newest(restore, None, &mut warnings)?;
    files.segment_first = manifest.segment_first;
    let log_error = |error| StorageError::Log { dir: files.log_dir().to_owned(), error };
    let refused = |reason| StorageError::Refused {
        path: files.snapshot_dir().to_owned(),
        reason,
        advice: ADVICE_DAMAGED,
    };
    restore.loaded(manifest.zxid, None).map_err(refused)?;
    if let (Some(expected), Some(found)) = (manifest.tree_digest, restore.tree_digest())
        && expected != found
    {
        let zxid = manifest.zxid;
        return Err(refused(format!(
            "the tree of snapshot {zxid} has digest {found}, its manifest says {expected}"
        )));
    }
    let mut source = SegmentReader::new(&files);
    let base = Base { segment_first: files.segment_first, ..Base::new(files.identity(), manifest.zxid) };
    let segments = files.segments()?;
    let recovered =
        txnlog::recover(&segments, &mut source, base, &mut |zxid, entry| match restore.apply(zxid, entry)? {
            DigestCheck::Differs { logged, computed } => {
                Err(format!("the tree has digest {computed} after it, the log says {logged}"))
            }
            DigestCheck::Skipped | DigestCheck::Same => Ok(()),
        })
        .map_err(log_error)?;
    let zxid = recovered.start.zxid_last;
    if zxid < known {
        return Err(refused(format!(
            "there is a snapshot of {known}, but snapshot {} and the log reach only to {zxid}",
            manifest.zxid
        )));
    }
    // What was read may be in a cache only (the process died, the machine did not).
    for segment in &recovered.start.live {
        files.sync_segment(segment.id)?;
    }
    if let Tail::Torn { segment, offset_bytes } = recovered.tail {
        warnings.push(format!(
            "log segment {segment} ends at offset {offset_bytes} with a write that was under way when the server stopped; \
             it was never acknowledged and is cut"
        ));
    }
    let (epochs, standing) = files.settle_member(options, member, None, zxid, &mut warnings)?;
    files.take_marker()?;
    files.remove_replaced()?;
    let after_snapshot =
        recovered.start.live.iter().filter(|segment| segment.zxid_before >= manifest.zxid).count();
    Ok(Opened {
        files,
        lock,
        zxid,
        origin: Origin::Own { snapshot: manifest.zxid },
        log_start: recovered.start,
        log_tail: recovered.tail,
        entry_count: recovered.entry_count,
        epochs,
        standing,
        snapshot_advised: after_snapshot >= SEGMENTS_BEHIND_MAX,
        first_snapshot_due: false,
        warnings,
    })
}

/// Reads segments from the medium, past the page cache where that can be done.
struct SegmentReader<'f> {
    files: &'f Files,
    open: Option<(SegmentId, DirectReader)>,
}

impl SegmentReader<'_> {
    fn new(files: &Files) -> SegmentReader<'_> {
        SegmentReader { files, open: None }
    }
}

impl SegmentSource for SegmentReader<'_> {
    fn read_at(&mut self, segment: SegmentId, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(id, _)| *id != segment) {
            self.open = Some((segment, DirectReader::open(&self.files.segment_path(segment))?));
        }
        let (_, reader) = self.open.as_mut().expect("opened above");
        reader.read_exact_at(offset_bytes, into)
    }
}

/// Keeps other servers out of the directory. Released when the last clone of its descriptors is closed.
#[derive(Debug)]
pub struct DirectoryLock {
    files: Vec<File>,
}

impl DirectoryLock {
    fn take(files: &Files, wait: Duration) -> Result<DirectoryLock, StorageError> {
        let mut locks = Vec::new();
        for dir in files.directories() {
            let path = dir.join("lock");
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(StorageError::io("open", &path))?;
            let mut left = wait;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) if left > Duration::ZERO => {
                        let step = left.min(LOCK_POLL);
                        std::thread::sleep(step);
                        left -= step;
                    }
                    Err(TryLockError::WouldBlock) => {
                        let mut owner = String::new();
                        let _ = (&mut file).take(64).read_to_string(&mut owner);
                        let owner = match owner.trim().parse::<u32>() {
                            Ok(pid) => format!(" (process {pid})"),
                            Err(_) => String::new(),
                        };
                        return Err(StorageError::Locked { path: dir.to_owned(), owner });
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(StorageError::Io { what: "lock", path, error });
                    }
                }
            }
            // Only to name the owner in the message above.
            file.set_len(0)
                .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
                .map_err(StorageError::io("write", &path))?;
            locks.push(file);
        }
        Ok(DirectoryLock { files: locks })
    }

    /// Another hold on the same lock, for whoever has I/O under way.
    pub fn try_clone(&self) -> io::Result<DirectoryLock> {
        let files = self.files.iter().map(File::try_clone).collect::<io::Result<_>>()?;
        Ok(DirectoryLock { files })
    }
}
