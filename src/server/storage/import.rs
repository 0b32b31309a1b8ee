//! First start on a ZooKeeper's data: its newest snapshot, and its log from there on. Nothing of it is changed.

use std::path::{Path, PathBuf};

use crate::server::storage::snapshots::parse_name;
use crate::server::storage::{
    ADVICE_DAMAGED, DigestCheck, DirectReader, Files, Restore, StorageError, StorageOptions, files, member,
};
use crate::snapshot::{self, Packing};
use crate::txnlog::zookeeper::{Chain, FileEnd, read_file};
use crate::types::Zxid;
use crate::zab::Epochs;

/// Where ZooKeeper keeps its files.
pub(super) const VERSION_2: &str = "version-2";

/// What was taken.
#[derive(Debug)]
pub struct Imported {
    pub zxid: Zxid,
    pub snapshot: Option<Zxid>,
    /// The highest zxid a file is named after; beyond `zxid` if nothing was written to it yet, or it was passed over.
    pub newest: Zxid,
    pub entry_count: u64,
    /// `None` where it was never in an ensemble.
    pub epochs: Option<Epochs>,
    pub warnings: Vec<String>,
}

const ADVICE: &str = "Nothing was changed. Start Apache ZooKeeper once on a copy to see what it makes of the data, restore a \
                      backup, or, in an ensemble, move version-2 away so that this server is synchronised by the others";

/// Takes over what a ZooKeeper left in `version-2`; `None` if there is nothing.
pub(super) fn import(
    options: &StorageOptions,
    restore: &mut dyn Restore,
) -> Result<Option<Imported>, StorageError> {
    let snapshot_dir = options.data_dir.join(VERSION_2);
    let log_dir = options.data_log_dir.join(VERSION_2);
    let snapshots = snapshots_in(&snapshot_dir)?;
    let logs = logs_in(&log_dir)?;
    if snapshots.is_empty() && logs.is_empty() {
        return Ok(None);
    }
    refuse_mixed(options, &snapshot_dir, &log_dir)?;
    let mut warnings = Vec::new();
    let base = load_newest(&snapshots, restore, &mut warnings)?;
    let (snapshot, base, fuzzy_until) = match base {
        Some((zxid, fuzzy_until)) => (Some(zxid), zxid, fuzzy_until),
        None if options.trust_empty_snapshot => {
            restore.reset();
            restore.loaded(Zxid::ZERO, None).map_err(refused(&snapshot_dir))?;
            (None, Zxid::ZERO, None)
        }
        None => {
            return Err(StorageError::Refused {
                path: snapshot_dir,
                reason: format!("it has no snapshot, though there are logs in {}", log_dir.display()),
                advice: "If the logs are complete from the first transaction on, set snapshot.trust.empty=true",
            });
        }
    };
    let mut chain = Chain::new(base);
    let mut differences = Differences::default();
    let mut entry_count = 0;
    // The file that holds the first transaction after the snapshot, and all later ones.
    let first = logs.iter().rposition(|(zxid, _)| *zxid <= base).unwrap_or(0);
    for (_, path) in logs.iter().skip(first) {
        let mut reader = DirectReader::open(path).map_err(StorageError::io("open", path))?;
        let file_bytes = reader.file_bytes().map_err(StorageError::io("look at", path))?;
        let end = read_file(&mut reader, file_bytes, &mut chain, &mut |zxid, entry| {
            entry_count += 1;
            differences.note(zxid, restore.apply(zxid, entry)?);
            Ok(())
        })
        .map_err(|error| refused(path)(error.to_string()))?;
        if let FileEnd::Torn { offset_bytes } = end {
            warnings.push(format!(
                "{}: ends at offset {offset_bytes} with a transaction that was being written when the server stopped; \
                 it is passed over",
                path.display()
            ));
        }
    }
    let zxid = chain.zxid();
    if let Some(until) = fuzzy_until.filter(|until| zxid < *until) {
        return Err(refused(&log_dir)(format!(
            "the log ends at {zxid}, but the snapshot of {base} was written while changes up to {until} went on"
        )));
    }
    if chain.duplicate_count > 0 {
        let count = chain.duplicate_count;
        warnings
            .push(format!("{count} error transactions under the zxid of the one before were passed over"));
    }
    differences.warn(&mut warnings);
    let log_newest = logs.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid);
    let newest = snapshots.last().map_or(log_newest, |(zxid, ..)| log_newest.max(*zxid));
    let epochs = member::of_zookeeper(&snapshot_dir, zxid)?;
    Ok(Some(Imported { zxid, snapshot, newest, entry_count, epochs, warnings }))
}

/// A ZooKeeper that ran on the directory after it was imported, or exported, has changes we do not: transactions, a snapshot that its
/// leader sent, or, found in `ours`, epochs it has promised.
pub(super) fn refuse_if_newer(
    options: &StorageOptions,
    files: &Files,
    ours: Option<Epochs>,
) -> Result<(), StorageError> {
    let Some(imported) = files.imported else { return Ok(()) };
    let snapshot_dir = options.data_dir.join(VERSION_2);
    let log = logs_in(&options.data_log_dir.join(VERSION_2))?.pop();
    let snapshot = snapshots_in(&snapshot_dir)?.pop().map(|(zxid, _, path)| (zxid, path));
    let newer = [log, snapshot].into_iter().flatten().find(|(zxid, _)| *zxid > imported);
    let reason =
        format!("a ZooKeeper has written here since its data and ringkeeper's were the same, at {imported}");
    let refused = |path, reason| StorageError::Refused {
        path,
        reason,
        advice: match options.server_id {
            // What it acknowledged as a member may be on no other server.
            Some(_) => "Move the directories `ringkeeper` away to take the data over again",
            None => {
                "Move `version-2` away to go on with what ringkeeper has, or the directories `ringkeeper` to take the data over again"
            }
        },
    };
    if let Some((_, path)) = newer {
        return Err(refused(path, reason));
    }
    let Some(ours) = ours.filter(|_| options.server_id.is_some()) else { return Ok(()) };
    match member::of_zookeeper(&snapshot_dir, imported)? {
        Some(theirs) if theirs.accepted > ours.accepted || theirs.current > ours.current => {
            let (theirs, ours) = (theirs.accepted.0, ours.accepted.0);
            Err(refused(snapshot_dir, format!("{reason}: it has accepted epoch {theirs}, ringkeeper {ours}")))
        }
        _ => Ok(()),
    }
}

/// Loads the newest snapshot that is sound: its zxid, and up to where it is fuzzy.
#[allow(clippy::type_complexity)]
fn load_newest(
    snapshots: &[(Zxid, Packing, PathBuf)],
    restore: &mut dyn Restore,
    warnings: &mut Vec<String>,
) -> Result<Option<(Zxid, Option<Zxid>)>, StorageError> {
    let mut reasons = Vec::new();
    for (zxid, packing, path) in snapshots.iter().rev() {
        let reader = DirectReader::open(path).map_err(StorageError::io("open", path))?;
        let loaded = match snapshot::load(&mut snapshot::unpack(*packing, reader), restore) {
            Ok(loaded) => loaded,
            Err(error) => {
                reasons.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        // A digest of an earlier zxid is left over from the epoch before. Source: ZooKeeper `DataTree#deserializeZxidDigest`.
        let digest = loaded.digest.filter(|digest| digest.zxid >= *zxid);
        let until = digest.map(|digest| digest.zxid).max(loaded.zxid_last).filter(|until| until > zxid);
        restore.loaded(*zxid, until).map_err(refused(path))?;
        if let (None, Some(digest), Some(computed)) = (until, digest, restore.tree_digest())
            && digest.version == crate::proto::txn::DIGEST_VERSION
            && digest.tree_digest != computed
        {
            let logged = digest.tree_digest;
            warnings
                .push(format!("{}: the tree has digest {computed}, the file says {logged}", path.display()));
        }
        warnings.extend(reasons.into_iter().map(|reason| format!("{reason}; an older snapshot was taken")));
        return Ok(Some((*zxid, until)));
    }
    match snapshots.last() {
        None => Ok(None),
        Some((_, _, path)) => Err(StorageError::Refused {
            path: path.clone(),
            reason: format!("no snapshot in its directory is sound ({})", reasons.join("; ")),
            advice: ADVICE_DAMAGED,
        }),
    }
}

fn refused(path: &Path) -> impl FnOnce(String) -> StorageError + use<> {
    let path = path.to_owned();
    move |reason| StorageError::Refused { path, reason, advice: ADVICE }
}

/// Where the digests of the log and ours part.
#[derive(Default)]
struct Differences {
    first: Option<(Zxid, u64, u64)>,
    count: u64,
}

impl Differences {
    fn note(&mut self, zxid: Zxid, check: DigestCheck) {
        if let DigestCheck::Differs { logged, computed } = check {
            self.first.get_or_insert((zxid, logged, computed));
            self.count += 1;
        }
    }

    /// ZooKeeper counts such, logs, and goes on; so do we with what is its own.
    fn warn(&self, warnings: &mut Vec<String>) {
        if let Some((zxid, logged, computed)) = self.first {
            let count = self.count;
            warnings.push(format!(
                "{count} transactions carry a tree digest that is not the tree's; the first is {zxid}: \
                 the log says {logged}, the tree has {computed}"
            ));
        }
    }
}

fn snapshots_in(dir: &Path) -> Result<Vec<(Zxid, Packing, PathBuf)>, StorageError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found: Vec<_> = files::names(dir)?
        .iter()
        .filter_map(|name| parse_name(name).map(|(zxid, packing)| (zxid, packing, dir.join(name))))
        .collect();
    found.sort();
    Ok(found)
}

fn logs_in(dir: &Path) -> Result<Vec<(Zxid, PathBuf)>, StorageError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let zxid_of = |name: &str| i64::from_str_radix(name.strip_prefix("log.")?, 16).ok().map(Zxid);
    let mut found: Vec<_> = files::names(dir)?
        .iter()
        .filter_map(|name| zxid_of(name).map(|zxid| (zxid, dir.join(name))))
        .collect();
    found.sort();
    Ok(found)
}

/// Snapshots in the log's directory or logs in the snapshots' mean that a setting has changed since they were written.
/// Source: ZooKeeper `FileTxnSnapLog#checkLogDir`, `#checkSnapDir`.
fn refuse_mixed(options: &StorageOptions, snapshot_dir: &Path, log_dir: &Path) -> Result<(), StorageError> {
    if options.data_dir == options.data_log_dir {
        return Ok(());
    }
    let strays = snapshots_in(log_dir)?.into_iter().map(|(_, _, path)| path);
    let stray = strays.chain(logs_in(snapshot_dir)?.into_iter().map(|(_, path)| path)).next();
    match stray {
        None => Ok(()),
        Some(path) => Err(StorageError::Refused {
            path,
            reason: "snapshots belong in dataDir and logs in dataLogDir, which differ".into(),
            advice: "Check whether dataLogDir was changed, and move the files to where they belong",
        }),
    }
}
