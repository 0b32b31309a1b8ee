//! Snapshots as files: written beside, read back, verified, published; old ones purged only then (O7).

use std::fs;
use std::path::PathBuf;

use crate::proto::{Acl, StatPersisted};
use crate::server::storage::files::{self, read_side_file, remove, sync_dir, temporary};
use crate::server::storage::{DirectReader, DirectWriter, Files, StorageError};
use crate::snapshot::{self, LoadSink, Manifest, Packer, Packing};
use crate::types::{SessionId, Zxid};

/// A snapshot file; whether it has a manifest, and whether that holds, is another question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    pub zxid: Zxid,
    pub packing: Packing,
    pub path: PathBuf,
    pub has_manifest: bool,
    pub file_bytes: u64,
}

/// What stays after a snapshot was finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    pub newest: Zxid,
    /// The log is wanted from here on: [`Writer::retire_before`](crate::txnlog::Writer::retire_before) this.
    pub oldest: Zxid,
    pub count: usize,
}

impl Files {
    /// The snapshots there are, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, StorageError> {
        let dir = self.snapshot_dir();
        let names = files::names(dir)?;
        let mut found = Vec::new();
        for name in &names {
            let Some((zxid, packing)) = parse_name(name) else { continue };
            let path = dir.join(name);
            let file_bytes = fs::metadata(&path).map_err(StorageError::io("look at", &path))?.len();
            let has_manifest = names.contains(&manifest_name(zxid));
            found.push(SnapshotInfo { zxid, packing, path, has_manifest, file_bytes });
        }
        found.sort_by_key(|info| info.zxid);
        Ok(found)
    }

    fn manifest_path(&self, zxid: Zxid) -> PathBuf {
        self.snapshot_dir().join(manifest_name(zxid))
    }

    /// Begins the file of a snapshot, under a temporary name.
    pub fn begin_snapshot(&self, zxid: Zxid) -> Result<SnapshotFile, StorageError> {
        let path = self.snapshot_dir().join(format!("snapshot.{:x}{}", zxid.0, self.packing.extension()));
        let writer = DirectWriter::create(&temporary(&path)).map_err(StorageError::io("make", &path))?;
        Ok(SnapshotFile {
            files: self.clone(),
            zxid,
            path,
            packer: Some(Packer::new(self.packing)),
            writer: Some(writer),
            packed: Vec::new(),
        })
    }

    /// Removes all but the newest verified snapshots, and leftovers older than them.
    fn purge(&self) -> Result<Kept, StorageError> {
        let snapshots = self.snapshots()?;
        let mut kept: Vec<Zxid> =
            snapshots.iter().filter(|info| info.has_manifest).map(|info| info.zxid).collect();
        kept.dedup();
        let kept = &kept[kept.len().saturating_sub(self.retain)..];
        let (oldest, newest) = (kept[0], kept[kept.len() - 1]);
        for info in snapshots.iter().filter(|info| info.zxid < oldest) {
            if info.has_manifest {
                let manifest = self.manifest_path(info.zxid);
                if manifest.exists() {
                    remove(&manifest)?;
                }
            }
            remove(&info.path)?;
        }
        Ok(Kept { newest, oldest, count: kept.len() })
    }
}

/// A snapshot being written. Dropped before it is finished, it leaves nothing.
pub struct SnapshotFile {
    files: Files,
    zxid: Zxid,
    path: PathBuf,
    /// Both `None` once finished.
    packer: Option<Packer>,
    writer: Option<DirectWriter>,
    packed: Vec<u8>,
}

impl SnapshotFile {
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next part of the content. After an error the snapshot is lost: drop it.
    pub fn part(&mut self, part: &[u8]) -> Result<(), StorageError> {
        self.packed.clear();
        self.packer.as_mut().expect("not finished").part(part, &mut self.packed);
        let written = self.writer.as_mut().expect("not finished").write(&self.packed);
        written.map_err(StorageError::io("write", &self.path))
    }

    /// Completes the file, reads it back from the medium, compares it with the manifest, publishes both and purges what
    /// is too old. On an error the older snapshots all stay.
    pub fn finish(mut self, manifest: &[u8]) -> Result<Kept, StorageError> {
        let refused = |path: &PathBuf, reason: String| StorageError::Refused {
            path: path.clone(),
            reason,
            advice: "The snapshot was not published; older ones and the log are kept",
        };
        let decoded = Manifest::decode(manifest).map_err(|error| refused(&self.path, error.to_string()))?;
        assert_eq!((decoded.zxid, decoded.identity), (self.zxid, self.files.identity()));
        self.packed.clear();
        self.packer.take().expect("finished once").finish(&mut self.packed);
        let mut writer = self.writer.take().expect("finished once");
        let temporary = temporary(&self.path);
        let result = (|| {
            let io = |what| StorageError::io(what, &self.path);
            writer.write(&self.packed).map_err(io("write"))?;
            writer.finish().map_err(io("sync"))?;
            let reader = DirectReader::open(&temporary).map_err(io("read back"))?;
            let loaded = snapshot::load(&mut snapshot::unpack(self.files.packing, reader), &mut Nobody)
                .map_err(|error| refused(&self.path, format!("reading it back: {error}")))?;
            decoded
                .check(&loaded)
                .map_err(|error| refused(&self.path, format!("reading it back: {error}")))?;
            if self.files.manifest_path(self.zxid).exists() {
                // There is a verified one of this very state; a crash between two renames could cost both.
                return remove(&temporary);
            }
            fs::rename(&temporary, &self.path).map_err(io("rename"))?;
            let dir = self.files.snapshot_dir();
            sync_dir(dir).map_err(StorageError::io("sync directory", dir))?;
            let manifest_path = self.files.manifest_path(self.zxid);
            files::write_atomic(&manifest_path, manifest)
                .map_err(StorageError::io("write", &manifest_path))?;
            self.files.commit_identity()
        })();
        if let Err(error) = result {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.files.purge()
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = fs::remove_file(temporary(&self.path));
        }
    }
}

/// Loads a snapshot of ours into `sink` if it is what its manifest says. Raises `known` to what a sound manifest proves durable.
pub(super) fn load_verified(
    files: &Files,
    info: &SnapshotInfo,
    sink: &mut dyn LoadSink,
    known: &mut Zxid,
) -> Result<Manifest, String> {
    let bytes = read_side_file(&files.manifest_path(info.zxid)).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("it has no manifest")?;
    let manifest = Manifest::decode(&bytes).map_err(|error| format!("its manifest: {error}"))?;
    if (manifest.zxid, manifest.identity) != (info.zxid, files.identity()) {
        return Err("its manifest is of another snapshot or another server".into());
    }
    *known = (*known).max(manifest.zxid);
    let reader = DirectReader::open(&info.path).map_err(|error| error.to_string())?;
    let loaded = snapshot::load(&mut snapshot::unpack(info.packing, reader), sink)
        .map_err(|error| error.to_string())?;
    manifest.check(&loaded).map_err(|error| error.to_string())?;
    Ok(manifest)
}

/// `snapshot.<hex>` with an extension that names the packing.
pub(super) fn parse_name(name: &str) -> Option<(Zxid, Packing)> {
    let rest = name.strip_prefix("snapshot.")?;
    let (hex, extension) = match rest.split_once('.') {
        Some((hex, _)) => (hex, &rest[hex.len()..]),
        None => (rest, ""),
    };
    let packing = Packing::ALL.into_iter().find(|packing| packing.extension() == extension)?;
    i64::from_str_radix(hex, 16).ok().map(|zxid| (Zxid(zxid), packing))
}

fn manifest_name(zxid: Zxid) -> String {
    format!("snapshot.{:x}.manifest", zxid.0)
}

/// Takes a snapshot that is only to be checked.
struct Nobody;

impl LoadSink for Nobody {
    fn reset(&mut self) {}

    fn session(&mut self, _: SessionId, _: i32) -> Result<(), String> {
        Ok(())
    }

    fn acl(&mut self, _: i64, _: Option<Acl<'_>>) -> Result<(), String> {
        Ok(())
    }

    fn node(&mut self, _: &str, _: Option<&[u8]>, _: i64, _: &StatPersisted) -> Result<(), String> {
        Ok(())
    }
}

impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A manifest as [`read_side_file`] gives it is whole.
const _: () = assert!(snapshot::MANIFEST_BYTES_MAX <= 64 << 10);
