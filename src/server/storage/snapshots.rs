//! Snapshots as files: written beside, read back, verified, published; old ones purged only then (O7).

use std::fs;
use std::path::PathBuf;

use crate::proto::{Acl, StatPersisted};
use crate::server::storage::files::{self, read_side_file, remove, sync_dir, temporary};
use crate::server::storage::{ADVICE_DAMAGED, DirectReader, DirectWriter, Files, Restore, StorageError};
use crate::snapshot::{self, LoadSink, Manifest, Packer, Packing};
use crate::txnlog::SegmentId;
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

    /// What the manifest of a snapshot of ours says.
    fn manifest(&self, zxid: Zxid) -> Result<Manifest, String> {
        let bytes = read_side_file(&self.manifest_path(zxid)).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or("it has no manifest")?;
        let manifest = Manifest::decode(&bytes).map_err(|error| format!("its manifest: {error}"))?;
        if (manifest.zxid, manifest.identity) != (zxid, self.identity()) {
            return Err("its manifest is of another snapshot or another server".into());
        }
        Ok(manifest)
    }

    /// Loads the newest snapshot that verifies, and is not newer than `until`. Also gives the highest zxid any manifest says was
    /// durable. Snapshots of a history that was replaced do not count.
    pub(super) fn load_newest(
        &self,
        restore: &mut dyn Restore,
        until: Option<Zxid>,
        warnings: &mut Vec<String>,
    ) -> Result<(Manifest, Zxid), StorageError> {
        let found: Vec<_> =
            self.snapshots()?.into_iter().map(|info| (self.manifest(info.zxid), info)).collect();
        let sound = || found.iter().filter_map(|(manifest, _)| manifest.as_ref().ok());
        let history = sound().map(|manifest| manifest.segment_first).max().unwrap_or_default();
        let of_now = |manifest: &Manifest| manifest.segment_first == history;
        let known = sound().filter(|manifest| of_now(manifest)).map(|manifest| manifest.zxid).max();
        let mut reasons = Vec::new();
        for (manifest, info) in
            found.iter().rev().filter(|(_, info)| until.is_none_or(|until| info.zxid <= until))
        {
            let loaded = match manifest {
                Ok(manifest) if !of_now(manifest) => continue,
                Ok(manifest) => load_verified(info, manifest, restore).map(|()| *manifest),
                Err(reason) => Err(reason.clone()),
            };
            match loaded {
                Ok(manifest) => {
                    warnings.extend(reasons);
                    return Ok((manifest, known.unwrap_or_default()));
                }
                Err(reason) => {
                    reasons.push(format!("{}: {reason}; trying an older one", info.path.display()))
                }
            }
        }
        let reason = match (reasons.is_empty(), until) {
            (true, None) => "its snapshots are missing, though it was set up with one".to_owned(),
            (true, Some(until)) => format!("it has no snapshot that is not newer than {until}"),
            (false, _) => format!("none of its snapshots can be trusted ({})", reasons.join("; ")),
        };
        Err(StorageError::Refused { path: self.snapshot_dir().to_owned(), reason, advice: ADVICE_DAMAGED })
    }

    /// Removes the snapshots of which `is_old` holds; each stops counting before its content goes.
    pub(super) fn remove_snapshots(
        &self,
        is_old: impl Fn(&SnapshotInfo) -> bool,
    ) -> Result<(), StorageError> {
        for info in self.snapshots()?.iter().filter(|info| is_old(info)) {
            let manifest = self.manifest_path(info.zxid);
            if manifest.exists() {
                remove(&manifest)?;
            }
            remove(&info.path)?;
        }
        Ok(())
    }

    /// A snapshot that replaces the history was published.
    pub fn history_replaced(&mut self, segment_first: SegmentId) {
        assert!(segment_first > self.segment_first, "a history begins behind the one it replaces");
        self.segment_first = segment_first;
    }

    /// Removes the snapshots of a history that was replaced.
    pub(super) fn remove_replaced(&self) -> Result<(), StorageError> {
        self.remove_snapshots(|info| {
            self.manifest(info.zxid).is_ok_and(|manifest| manifest.segment_first < self.segment_first)
        })
    }

    /// Begins the file of a snapshot that replaces the history: once published it is the only one, and of the log only segments from
    /// `segment_first` on count.
    pub fn begin_install(&self, zxid: Zxid, segment_first: SegmentId) -> Result<SnapshotFile, StorageError> {
        assert!(segment_first > self.segment_first, "a history begins behind the one it replaces");
        let mut file = self.begin_snapshot(zxid)?;
        file.segment_first = segment_first;
        Ok(file)
    }

    /// Begins the file of a snapshot, under a temporary name.
    pub fn begin_snapshot(&self, zxid: Zxid) -> Result<SnapshotFile, StorageError> {
        let path = self.snapshot_dir().join(format!("snapshot.{:x}{}", zxid.0, self.packing.extension()));
        let writer = DirectWriter::create(&temporary(&path)).map_err(StorageError::io("make", &path))?;
        Ok(SnapshotFile {
            files: self.clone(),
            zxid,
            segment_first: self.segment_first,
            manifest: None,
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
        self.remove_snapshots(|info| info.zxid < oldest)?;
        Ok(Kept { newest, oldest, count: kept.len() })
    }
}

/// A snapshot being written. Dropped before it is finished, it leaves nothing.
pub struct SnapshotFile {
    files: Files,
    zxid: Zxid,
    /// Higher than that of `files` if it replaces the history.
    segment_first: SegmentId,
    /// What it was found to hold; it can be published.
    manifest: Option<Manifest>,
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
        self.check(manifest)?;
        self.publish()
    }

    /// Completes the file, reads it back from the medium, and compares it with the manifest. On an error nothing has changed.
    pub fn check(&mut self, manifest: &[u8]) -> Result<(), StorageError> {
        let path = &self.path;
        let refused = |reason: String| StorageError::Refused {
            path: path.clone(),
            reason,
            advice: "The snapshot was not published; older ones and the log are kept",
        };
        let manifest = Manifest::decode(manifest).map_err(|error| refused(error.to_string()))?;
        assert_eq!((manifest.zxid, manifest.identity), (self.zxid, self.files.identity()));
        self.packed.clear();
        self.packer.take().expect("finished once").finish(&mut self.packed);
        let mut writer = self.writer.take().expect("finished once");
        let temporary = temporary(path);
        let io = |what| StorageError::io(what, path);
        let checked = (|| {
            writer.write(&self.packed).map_err(io("write"))?;
            writer.finish().map_err(io("sync"))?;
            let reader = DirectReader::open(&temporary).map_err(io("read back"))?;
            let loaded = snapshot::load(&mut snapshot::unpack(self.files.packing, reader), &mut Nobody)
                .map_err(|error| refused(format!("reading it back: {error}")))?;
            manifest.check(&loaded).map_err(|error| refused(format!("reading it back: {error}")))
        })();
        if checked.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        checked?;
        self.manifest = Some(Manifest { segment_first: self.segment_first, ..manifest });
        Ok(())
    }

    /// Makes a [checked](SnapshotFile::check) snapshot count, durably, and purges what is too old. After an error it may count or not.
    pub fn publish(mut self) -> Result<Kept, StorageError> {
        let manifest = self.manifest.take().expect("it was checked");
        let temporary = temporary(&self.path);
        let replaces = self.segment_first > self.files.segment_first;
        let published = (|| {
            let io = |what| StorageError::io(what, &self.path);
            let manifest_path = self.files.manifest_path(self.zxid);
            let write_manifest = |manifest: &Manifest| {
                files::write_atomic(&manifest_path, &manifest.encode())
                    .map_err(StorageError::io("write", &manifest_path))
            };
            let there = self.same_state(&manifest)?;
            if there.is_some() || (manifest_path.exists() && !replaces) {
                // There is a verified one of this very state; a crash between two renames could cost both.
                remove(&temporary)?;
                if let Some(there) = there.filter(|_| replaces) {
                    write_manifest(&Manifest { segment_first: self.segment_first, ..there })?;
                }
            } else {
                fs::rename(&temporary, &self.path).map_err(io("rename"))?;
                let dir = self.files.snapshot_dir();
                sync_dir(dir).map_err(StorageError::io("sync directory", dir))?;
                write_manifest(&manifest)?;
            }
            self.files.commit_identity()
        })();
        if let Err(error) = published {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        if !replaces {
            return self.files.purge();
        }
        self.files.remove_snapshots(|info| info.zxid != self.zxid)?;
        Ok(Kept { newest: self.zxid, oldest: self.zxid, count: 1 })
    }

    /// The manifest of a snapshot that is there already, verifies, and is of the same state as `manifest`. Only asked for where the
    /// history is replaced, as it takes a whole reading.
    fn same_state(&self, manifest: &Manifest) -> Result<Option<Manifest>, StorageError> {
        let replaces = self.segment_first > self.files.segment_first;
        let Some(there) = self.files.manifest(self.zxid).ok().filter(|_| replaces) else { return Ok(None) };
        let state =
            |manifest: &Manifest| (manifest.tree_digest, manifest.counts.nodes, manifest.counts.sessions);
        if manifest.tree_digest.is_none() || state(&there) != state(manifest) {
            return Ok(None);
        }
        let snapshots = self.files.snapshots()?;
        let mut same = snapshots.iter().filter(|info| info.zxid == self.zxid);
        Ok(same.any(|info| load_verified(info, &there, &mut Nobody).is_ok()).then_some(there))
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() || self.manifest.take().is_some() {
            let _ = fs::remove_file(temporary(&self.path));
        }
    }
}

/// Loads a snapshot of ours into `sink` if it is what its manifest says.
fn load_verified(info: &SnapshotInfo, manifest: &Manifest, sink: &mut dyn LoadSink) -> Result<(), String> {
    let reader = DirectReader::open(&info.path).map_err(|error| error.to_string())?;
    let loaded = snapshot::load(&mut snapshot::unpack(info.packing, reader), sink)
        .map_err(|error| error.to_string())?;
    manifest.check(&loaded).map_err(|error| error.to_string())
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
