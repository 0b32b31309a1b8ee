//! The way back: the data as a ZooKeeper's `version-2`.
//!
//! The newest verified snapshot is copied as it is (the format is ZooKeeper's), and every transaction behind it goes to one log file. So
//! what a leader may still want cut off is in the log and not in the snapshot, where a ZooKeeper could not cut it. Both epochs
//! are written beside. All of it is made under a temporary name and then put in place; a `version-2` that was there is moved aside.
//!
//! Afterwards the directory of ours stays as it is and can be started again as long as the ZooKeeper has written nothing: a
//! file `exported` says up to where the two agree.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use simd_adler32::Adler32;

use crate::proto::{Acl, StatPersisted};
use crate::server::storage::files::{read_side_file, sync_dir, write_atomic};
use crate::server::storage::{
    DigestCheck, Files, Origin, Restore, StorageError, StorageOptions, import, member, open,
};
use crate::snapshot::LoadSink;
use crate::types::{SessionId, Zxid};

const EXPORTED: &str = "exported";
const UNFINISHED: &str = "version-2.export";
const ASIDE: &str = "version-2.before-export";
/// Directories moved aside by earlier exports that may lie around.
const ASIDE_MAX: u32 = 1000;
/// `ZKLG`, version 2, database 0. Source: ZooKeeper `FileTxnLog`.
const LOG_HEADER: [u8; 16] = *b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";
/// Source: ZooKeeper `FileTxnLog#append`.
const END_OF_RECORD: u8 = b'B';

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// The last transaction in it.
    pub zxid: Zxid,
    pub snapshot: Zxid,
    /// Transactions in the log file.
    pub entry_count: u64,
    /// The `version-2` with the snapshot, and that with the log where it is another.
    pub directories: Vec<PathBuf>,
    /// Where a `version-2` that was in the way is now.
    pub moved: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

/// Writes what the directories of `options` hold as `version-2` into them, or into `target`. The directory must not be in use; what is in
/// it is recovered into `restore`, and so checked, first.
pub fn export(
    options: &StorageOptions,
    target: Option<&Path>,
    restore: &mut dyn Restore,
) -> Result<Exported, StorageError> {
    let mut files = Files::new(options);
    if !files.snapshot_dir().is_dir() || !files.read_identity()? {
        return Err(StorageError::Refused {
            path: files.snapshot_dir().to_owned(),
            reason: "it holds no data of ringkeeper".into(),
            advice: "Check dataDir and dataLogDir; only what ringkeeper has written can be exported",
        });
    }
    let outer = |dir: &Path| target.unwrap_or(dir).to_owned();
    let (snapshot_outer, log_outer) = (outer(&options.data_dir), outer(&options.data_log_dir));
    let mut places = vec![snapshot_outer.clone()];
    places.extend((log_outer != snapshot_outer).then_some(log_outer));
    let result = write(options, &places, target.is_none(), restore);
    if result.is_err() {
        for place in &places {
            let _ = fs::remove_dir_all(place.join(UNFINISHED));
        }
    }
    result
}

/// `places` are the directories for snapshot and log, or one for both.
fn write(
    options: &StorageOptions,
    places: &[PathBuf],
    is_in_place: bool,
    restore: &mut dyn Restore,
) -> Result<Exported, StorageError> {
    let (snapshot_outer, log_outer) = (&places[0], &places[places.len() - 1]);
    for place in places {
        fs::create_dir_all(place).map_err(StorageError::io("make directory", place))?;
        let unfinished = place.join(UNFINISHED);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(StorageError::io("remove", &unfinished))?;
        }
        fs::create_dir(&unfinished).map_err(StorageError::io("make directory", &unfinished))?;
    }
    let mut log = LogSink { restore, directory: log_outer.join(UNFINISHED), file: None, error: None };
    let opened = match open(options, &mut log) {
        Ok(opened) => opened,
        Err(error) => return Err(log.error.take().unwrap_or(error)),
    };
    let entry_count = opened.entry_count;
    log.finish()?;
    let Origin::Own { snapshot } = opened.origin else { unreachable!("the directory has an identity") };
    let into = snapshot_outer.join(UNFINISHED);
    for info in opened.files.snapshots()?.iter().filter(|info| info.zxid == snapshot && info.has_manifest) {
        let path = into.join(info.path.file_name().expect("a snapshot has a name"));
        fs::copy(&info.path, &path)
            .and_then(|_| File::open(&path)?.sync_all())
            .map_err(StorageError::io("write", &path))?;
    }
    member::for_zookeeper(&into, opened.epochs)?;
    let mut moved = Vec::new();
    for place in places {
        let unfinished = place.join(UNFINISHED);
        sync_dir(&unfinished).map_err(StorageError::io("sync directory", &unfinished))?;
    }
    if is_in_place {
        // Before a ZooKeeper can find it.
        opened.files.write_exported(opened.zxid)?;
    }
    for place in places {
        let version_2 = place.join(import::VERSION_2);
        if version_2.exists() {
            let aside = aside(place)?;
            fs::rename(&version_2, &aside).map_err(StorageError::io("move aside", &version_2))?;
            moved.push(aside);
        }
        fs::rename(place.join(UNFINISHED), &version_2).map_err(StorageError::io("make", &version_2))?;
        sync_dir(place).map_err(StorageError::io("sync directory", place))?;
    }
    let directories = places.iter().map(|place| place.join(import::VERSION_2)).collect();
    Ok(Exported { zxid: opened.zxid, snapshot, entry_count, directories, moved, warnings: opened.warnings })
}

/// A name nothing has yet.
fn aside(place: &Path) -> Result<PathBuf, StorageError> {
    let names = std::iter::once(ASIDE.to_owned()).chain((2..=ASIDE_MAX).map(|n| format!("{ASIDE}-{n}")));
    names.map(|name| place.join(name)).find(|path| !path.exists()).ok_or_else(|| StorageError::Refused {
        path: place.join(ASIDE),
        reason: format!("it and {ASIDE_MAX} like it are there"),
        advice: "Remove those that are not needed any more",
    })
}

impl Files {
    /// Takes over up to where a ZooKeeper was given the data, so that what it writes afterwards is noticed.
    pub(super) fn read_exported(&mut self) -> Result<(), StorageError> {
        let path = self.snapshot_dir().join(EXPORTED);
        let Some(bytes) = read_side_file(&path)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        let zxid = text
            .split_once("\ncrc32c ")
            .filter(|(body, _)| *text == exported_text(body))
            .and_then(|(body, _)| body.strip_prefix("exported 0x"))
            .and_then(|hex| i64::from_str_radix(hex, 16).ok());
        let zxid = zxid.ok_or(StorageError::Refused {
            path,
            reason: "it is damaged".into(),
            advice: "If no ZooKeeper has run on this dataDir since `ringkeeper export`, remove the file",
        })?;
        self.imported = self.imported.max(Some(Zxid(zxid)));
        Ok(())
    }

    fn write_exported(&self, zxid: Zxid) -> Result<(), StorageError> {
        let path = self.snapshot_dir().join(EXPORTED);
        let text = exported_text(&format!("exported {zxid}"));
        write_atomic(&path, text.as_bytes()).map_err(StorageError::io("write", &path))
    }
}

fn exported_text(body: &str) -> String {
    format!("{body}\ncrc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

/// Passes everything on, and writes the transactions to a ZooKeeper's log.
struct LogSink<'r> {
    restore: &'r mut dyn Restore,
    directory: PathBuf,
    file: Option<(PathBuf, BufWriter<File>)>,
    /// What kept it from writing.
    error: Option<StorageError>,
}

impl LogSink<'_> {
    fn write(&mut self, zxid: Zxid, entry: &[u8]) -> Result<(), StorageError> {
        if self.file.is_none() {
            let path = self.directory.join(format!("log.{:x}", zxid.0));
            let mut file = BufWriter::new(File::create_new(&path).map_err(StorageError::io("make", &path))?);
            file.write_all(&LOG_HEADER).map_err(StorageError::io("write", &path))?;
            self.file = Some((path, file));
        }
        let (path, file) = self.file.as_mut().expect("made above");
        let mut adler = Adler32::new();
        adler.write(entry);
        let length = u32::try_from(entry.len()).expect("an entry fits in a segment");
        file.write_all(&u64::from(adler.finish()).to_be_bytes())
            .and_then(|()| file.write_all(&length.to_be_bytes()))
            .and_then(|()| file.write_all(entry))
            .and_then(|()| file.write_all(&[END_OF_RECORD]))
            .map_err(StorageError::io("write", path))
    }

    fn finish(self) -> Result<(), StorageError> {
        let Some((path, mut file)) = self.file else { return Ok(()) };
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(StorageError::io("write", &path))
    }
}

impl LoadSink for LogSink<'_> {
    fn reset(&mut self) {
        self.restore.reset();
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.restore.session(session, timeout_ms)
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        self.restore.acl(id, acl)
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        self.restore.node(path, data, acl, stat)
    }
}

impl Restore for LogSink<'_> {
    fn loaded(&mut self, zxid: Zxid, fuzzy_until: Option<Zxid>) -> Result<(), String> {
        self.restore.loaded(zxid, fuzzy_until)
    }

    fn apply(&mut self, zxid: Zxid, entry: &[u8]) -> Result<DigestCheck, String> {
        let check = self.restore.apply(zxid, entry)?;
        self.write(zxid, entry).map_err(|error| {
            let reason = error.to_string();
            self.error = Some(error);
            reason
        })?;
        Ok(check)
    }

    fn tree_digest(&self) -> Option<u64> {
        self.restore.tree_digest()
    }
}
