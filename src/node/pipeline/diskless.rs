//! An observer that writes nothing to its disk (`syncEnabled=false`).
//!
//! Nobody counts on what an observer holds: its word that something is durable moves no commit and no epoch. So log, snapshots and epochs
//! go nowhere, and each write is done as soon as it is wanted; everything else is as on any other server. What lies in the data
//! directory stays as it was, a state the ensemble once had, and is what this server begins with when it begins anew.

use super::{Input, Output, Pipeline};
use crate::node::link::PipelineLink;
use crate::node::storage_work::{StorageEvent, StorageWork};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::txnlog::SegmentWork;

impl<L: PipelineLink> Pipeline<L> {
    fn is_diskless(&self) -> bool {
        self.ensemble.as_deref().is_some_and(|ensemble| ensemble.options.modes.diskless)
    }

    /// Answers what is wanted of a disk, if there is none.
    pub(super) fn do_without_disk(&mut self) {
        if !self.is_diskless() || self.owed.is_empty() {
            return;
        }
        for output in std::mem::take(&mut self.owed) {
            let input = match output {
                Output::Peer(_)
                | Output::Told(_)
                | Output::Audit(_)
                | Output::Stopped
                // Configuration, not data.
                | Output::Storage(StorageWork::WriteMembership(_)) => {
                    self.owed.push(output);
                    continue;
                }
                Output::Write(write) => Input::Written { id: write.id, spent: write.bytes },
                Output::Segment(SegmentWork::Prepare(segment)) => Input::SegmentReady(segment),
                Output::Snapshot(SnapshotWork::Part(_)) => Input::Snapshot(SnapshotEvent::PartWritten),
                Output::Snapshot(SnapshotWork::End { .. }) => match self.snapshots.zxid_running() {
                    Some(zxid) => Input::Snapshot(SnapshotEvent::Done { zxid, log_from: zxid }),
                    None => continue,
                },
                Output::Segment(SegmentWork::Retire(_)) | Output::Snapshot(_) => continue,
                Output::Storage(work) => Input::Storage(answer(work)),
            };
            self.has_more = true;
            self.handle(self.now, input);
        }
    }
}

fn answer(work: StorageWork) -> StorageEvent {
    let reason = "syncEnabled is off".to_owned();
    match work {
        StorageWork::WriteEpochs(epochs) => StorageEvent::EpochsWritten(epochs),
        StorageWork::Rebuild { to } => StorageEvent::CannotRebuild { to, reason },
        StorageWork::ReadLog(range) => StorageEvent::CannotReadLog { range, reason },
        StorageWork::WriteMembership(_) => StorageEvent::MembershipWritten,
    }
}
