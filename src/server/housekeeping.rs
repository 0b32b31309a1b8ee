//! The housekeeper's file work, over the data directory.

use std::io;
use std::path::PathBuf;

use super::Housekeeping;
use super::membership_files::MembershipStore;
use super::restore::{RestoreOptions, Restorer};
use super::storage::{Files, RebuildError, SnapshotFile};
use crate::node::{Rebuilt, StorageEvent, StorageWork};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::txnlog::{SegmentId, WriterOptions};
use crate::types::Zxid;

/// Segments, snapshots and epochs of one server.
pub(super) struct Keeper {
    files: Files,
    writer: WriterOptions,
    restore: RestoreOptions,
    snapshot: Option<SnapshotFile>,
    /// What the snapshot under way makes the first segment, if it replaces the history.
    installs: Option<SegmentId>,
    /// `None` for a server alone, and for one that was not started from a file.
    membership: Option<MembershipStore>,
}

impl Keeper {
    /// `writer` is how the log is written, but for another seed of the salts.
    pub(super) fn new(files: Files, writer: WriterOptions, restore: RestoreOptions) -> Keeper {
        Keeper { files, writer, restore, snapshot: None, installs: None, membership: None }
    }

    /// With the files beside the configuration.
    pub(super) fn with_membership(mut self, store: Option<MembershipStore>) -> Keeper {
        self.membership = store;
        self
    }

    /// A failure is told once; what still comes of that snapshot is passed over.
    fn failed(&mut self, zxid: Zxid, reason: impl ToString) -> Option<SnapshotEvent> {
        self.snapshot = None;
        Some(SnapshotEvent::Failed { zxid, reason: reason.to_string() })
    }

    fn begin(&mut self, zxid: Zxid, installs: Option<SegmentId>) -> Option<SnapshotEvent> {
        let begun = match installs {
            None => self.files.begin_snapshot(zxid),
            Some(segment_first) => self.files.begin_install(zxid, segment_first),
        };
        match begun {
            Ok(file) => {
                (self.snapshot, self.installs) = (Some(file), installs);
                None
            }
            Err(error) => self.failed(zxid, error),
        }
    }

    fn end(&mut self, manifest: &[u8]) -> io::Result<Option<SnapshotEvent>> {
        let Some(mut file) = self.snapshot.take() else { return Ok(None) };
        let zxid = file.zxid();
        let done = |log_from| Some(SnapshotEvent::Done { zxid, log_from });
        if let Err(error) = file.check(manifest) {
            return Ok(self.failed(zxid, error));
        }
        match (file.publish(), self.installs) {
            (Ok(kept), None) => Ok(done(kept.oldest)),
            (Err(error), None) => Ok(self.failed(zxid, error)),
            (Ok(kept), Some(segment_first)) => {
                self.files.history_replaced(segment_first);
                Ok(done(kept.oldest))
            }
            (Err(error), Some(_)) => Err(io::Error::other(error)),
        }
    }

    fn rebuild(&mut self, to: Zxid) -> io::Result<StorageEvent> {
        assert!(self.snapshot.is_none(), "no snapshot is under way while the state goes back");
        let mut restorer = Restorer::new(self.restore);
        match self.files.rebuild(to, self.writer, &mut restorer) {
            Ok(went) => Ok(StorageEvent::Rebuilt(Box::new(Rebuilt {
                database: restorer.into_database(false),
                log_start: went.log_start,
                zxid_snapshot: went.snapshot,
                entry_count: went.entry_count,
            }))),
            Err(RebuildError::Cannot(reason)) => Ok(StorageEvent::CannotRebuild { to, reason }),
            Err(RebuildError::Failed(error)) => Err(io::Error::other(error)),
        }
    }
}

impl Housekeeping for Keeper {
    fn prepare(&mut self, segment: SegmentId) -> io::Result<PathBuf> {
        self.files.prepare_segment(segment, self.writer.segment_bytes).map_err(io::Error::other)?;
        Ok(self.files.segment_path(segment))
    }

    fn retire(&mut self, segment: SegmentId) -> io::Result<()> {
        self.files.retire_segment(segment).map_err(io::Error::other)
    }

    fn snapshot(&mut self, work: SnapshotWork) -> io::Result<Option<SnapshotEvent>> {
        match work {
            SnapshotWork::Begin { zxid } => Ok(self.begin(zxid, None)),
            SnapshotWork::Install { zxid, segment_first } => Ok(self.begin(zxid, Some(segment_first))),
            SnapshotWork::Part(part) => {
                let Some(file) = self.snapshot.as_mut() else { return Ok(None) };
                let zxid = file.zxid();
                match file.part(&part) {
                    Ok(()) => Ok(Some(SnapshotEvent::PartWritten)),
                    Err(error) => Ok(self.failed(zxid, error)),
                }
            }
            SnapshotWork::End { manifest } => self.end(&manifest),
            SnapshotWork::Abandon => {
                self.snapshot = None;
                Ok(Some(SnapshotEvent::Abandoned))
            }
        }
    }

    fn storage(&mut self, work: StorageWork) -> io::Result<StorageEvent> {
        match work {
            StorageWork::WriteEpochs(epochs) => {
                self.files.write_epochs(epochs).map_err(io::Error::other)?;
                Ok(StorageEvent::EpochsWritten(epochs))
            }
            StorageWork::WriteMembership(files) => {
                if let Some(store) = &self.membership
                    && let Err(error) = store.write(&files)
                {
                    tracing::error!(
                        "the files beside {} cannot be written: {error}; this server asks the others who is a member when it starts",
                        store.configuration.display()
                    );
                }
                Ok(StorageEvent::MembershipWritten)
            }
            StorageWork::Rebuild { to } => self.rebuild(to),
            StorageWork::ReadLog(range) => Ok(match self.files.read_log(range) {
                Ok(read) => StorageEvent::LogRead(read),
                Err(reason) => StorageEvent::CannotReadLog { range, reason },
            }),
        }
    }
}
