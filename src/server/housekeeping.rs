//! The housekeeper's file work, over the data directory.

use std::io;
use std::path::PathBuf;

use super::Housekeeping;
use super::storage::{Files, SnapshotFile};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::txnlog::SegmentId;
use crate::types::Zxid;

/// Segments and snapshots of one server.
pub(super) struct Keeper {
    files: Files,
    segment_bytes: u64,
    snapshot: Option<SnapshotFile>,
}

impl Keeper {
    pub(super) fn new(files: Files, segment_bytes: u64) -> Keeper {
        Keeper { files, segment_bytes, snapshot: None }
    }

    /// A failure is told once; what still comes of that snapshot is passed over.
    fn failed(&mut self, zxid: Zxid, reason: impl ToString) -> Option<SnapshotEvent> {
        self.snapshot = None;
        Some(SnapshotEvent::Failed { zxid, reason: reason.to_string() })
    }
}

impl Housekeeping for Keeper {
    fn prepare(&mut self, segment: SegmentId) -> io::Result<PathBuf> {
        self.files.prepare_segment(segment, self.segment_bytes).map_err(io::Error::other)?;
        Ok(self.files.segment_path(segment))
    }

    fn retire(&mut self, segment: SegmentId) -> io::Result<()> {
        self.files.retire_segment(segment).map_err(io::Error::other)
    }

    fn snapshot(&mut self, work: SnapshotWork) -> Option<SnapshotEvent> {
        match work {
            SnapshotWork::Begin { zxid } => match self.files.begin_snapshot(zxid) {
                Ok(file) => {
                    self.snapshot = Some(file);
                    None
                }
                Err(error) => self.failed(zxid, error),
            },
            SnapshotWork::Part(part) => {
                let file = self.snapshot.as_mut()?;
                let zxid = file.zxid();
                match file.part(&part) {
                    Ok(()) => Some(SnapshotEvent::PartWritten),
                    Err(error) => self.failed(zxid, error),
                }
            }
            SnapshotWork::End { manifest } => {
                let file = self.snapshot.take()?;
                let zxid = file.zxid();
                match file.finish(&manifest) {
                    Ok(kept) => Some(SnapshotEvent::Done { zxid, log_from: kept.oldest }),
                    Err(error) => self.failed(zxid, error),
                }
            }
            SnapshotWork::Abandon => {
                self.snapshot = None;
                None
            }
        }
    }
}
