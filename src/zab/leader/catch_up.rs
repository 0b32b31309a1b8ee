//! Bringing learners up to date: differences, passes over the tree, and what follows them up to NEWLEADER.

use bytes::Bytes;

use super::learner_handler::{LearnerError, LearnerHandler, Stage};
use super::sync::{self, SyncMode};
use super::{Leader, Output, Phase};
use crate::proto::quorum::{SNAPSHOT_SIGNATURE, kind};
use crate::txnlog::follows;
use crate::types::{Instant, Zxid};
use crate::zab::PeerConn;
use crate::zab::recent::Recent;

/// Bytes of a snapshot queued for its slowest receiver beyond which the pass over the tree waits.
const SNAPSHOT_QUEUE_BYTES_MAX: usize = 4 << 20;

/// Bytes read from the log that wait for learners, above which it is not read for more of them.
const LOG_HELD_BYTES_MAX: usize = 64 << 20;

impl Leader {
    /// A pass over the tree at `zxid` begins, for all learners that wait for one. What follows `zxid` is taken from `recent`, so all of it
    /// has to be there.
    pub fn snapshot_begin(&mut self, now: Instant, zxid: Zxid, recent: &Recent) {
        assert!(!self.snapshot_runs, "one pass over the tree at a time");
        if self.phase == Phase::Resigned {
            return;
        }
        self.snapshot_runs = true;
        self.snapshot_asked = false;
        let (end, last) = (self.history_end(), self.zxid_proposed);
        for conn in self.at_stage(Stage::WantSnapshot) {
            let after = sync::entries_after(recent, zxid, last, self.epoch, self.diff_bytes_max());
            let Some((from, entries)) = after else {
                self.close(conn, &LearnerError::SnapshotTooOld { zxid });
                continue;
            };
            let learner = self.learners.get_mut(&conn).expect("it waits for a snapshot");
            learner.enter(now, Stage::Snapshot);
            self.joining_count += 1;
            learner.covered = from;
            learner.queue.packet(kind::SNAP, zxid, None);
            for (zxid, entry) in entries {
                if !learner.is_observer || zxid <= end {
                    learner.hold(zxid, entry);
                }
            }
            self.counters.snapshot_syncs += 1;
        }
        self.advance(now);
    }

    /// Whether every receiver of the pass has room for another part.
    pub fn snapshot_room(&self) -> bool {
        // A half is for what followed the tree when the pass began, the rest for what follows meanwhile.
        let bytes_max = SNAPSHOT_QUEUE_BYTES_MAX.min(self.options.learner_queue_bytes_max / 4);
        self.receivers().all(|learner| learner.queue.unsent() < bytes_max)
    }

    /// Whether anybody still receives; without, the pass may end early.
    pub fn snapshot_wanted(&self) -> bool {
        self.receivers().next().is_some()
    }

    /// The next part of the tree; the format is that of the body of a snapshot file (quorum-protocol §4.5).
    pub fn snapshot_part(&mut self, part: &Bytes) {
        assert!(self.snapshot_runs || self.phase == Phase::Resigned, "a part outside of a pass");
        for learner in self.learners.values_mut().filter(|learner| learner.stage == Stage::Snapshot) {
            learner.queue.raw(part.clone());
        }
    }

    /// The pass is complete, with the slash that ends the tree.
    pub fn snapshot_end(&mut self, now: Instant) {
        assert!(self.snapshot_runs || self.phase == Phase::Resigned, "the end of no pass");
        self.snapshot_runs = false;
        let mut signature = Vec::new();
        crate::jute::put_string(&mut signature, SNAPSHOT_SIGNATURE);
        let signature = Bytes::from(signature);
        for conn in self.at_stage(Stage::Snapshot) {
            let learner = self.learners.get_mut(&conn).expect("it receives a snapshot");
            learner.queue.raw(signature.clone());
            self.new_leader(now, conn);
        }
        self.want_snapshot();
        self.advance(now);
    }

    /// Begins to bring a learner up to date.
    pub(super) fn synchronise(&mut self, now: Instant, conn: PeerConn, recent: &Recent) {
        assert!(self.phase >= Phase::Synchronisation, "our history is not chosen");
        let learner = &self.learners[&conn];
        let (zxid, is_observer) = (learner.zxid, learner.is_observer);
        let mode = sync::decide(recent, zxid, self.zxid_proposed, self.epoch, self.diff_bytes_max());
        let from_log = mode == SyncMode::Snapshot && self.is_log_to_be_read(conn, recent);
        let by_snapshot = mode == SyncMode::Snapshot && !from_log;
        let under_way = |learner: &LearnerHandler| {
            (Stage::WantLog..=Stage::NewLeader).contains(&learner.stage) && learner.by_snapshot == by_snapshot
        };
        let count = self.learners.values().filter(|learner| under_way(learner)).count();
        let count_max =
            if by_snapshot { self.options.snapshot_syncs_max } else { self.options.diff_syncs_max };
        if is_observer && count >= count_max {
            return self.close(conn, &LearnerError::TooManyObserverSyncs { count });
        }
        let learner = self.learners.get_mut(&conn).expect("as just seen");
        tracing::info!(sid = learner.sid, %zxid, by_snapshot, "a learner is being synchronised");
        learner.by_snapshot = by_snapshot;
        match mode {
            SyncMode::Snapshot if from_log => {
                learner.enter(now, Stage::WantLog);
                self.want_log(now, recent);
            }
            SyncMode::Snapshot => {
                learner.enter(now, Stage::WantSnapshot);
                self.want_snapshot();
            }
            SyncMode::Diff { from, entries } => self.difference(now, conn, from, entries),
        }
    }

    /// Sends the learner what follows `from`, where its history ends.
    fn difference(&mut self, now: Instant, conn: PeerConn, from: Zxid, entries: Vec<(Zxid, Bytes)>) {
        let end = self.history_end();
        let learner = self.learners.get_mut(&conn).expect("it is being synchronised");
        learner.covered = from;
        learner.queue.packet(kind::DIFF, learner.zxid.max(end), None);
        for (zxid, entry) in entries {
            if !learner.is_observer || zxid <= end {
                learner.hold(zxid, entry);
            }
        }
        self.counters.diff_syncs += 1;
        self.joining_count += 1;
        self.new_leader(now, conn);
    }

    /// Whether the log is to be read for a learner, whose history may end in it before what is in memory.
    fn is_log_to_be_read(&self, conn: PeerConn, recent: &Recent) -> bool {
        let zxid = self.learners[&conn].zxid;
        zxid > Zxid::ZERO && zxid < recent.first_before() && self.log_end(recent).is_some()
    }

    /// Up to where the log is read, if it may be: what was read and has not left is bounded.
    fn log_end(&self, recent: &Recent) -> Option<Zxid> {
        let held = self.learners.values().filter(|learner| learner.by_log).map(LearnerHandler::waiting_bytes);
        // Not just to where memory begins: that moves on while the disk is read.
        recent.middle(self.zxid_durable).filter(|_| held.sum::<usize>() < LOG_HELD_BYTES_MAX)
    }

    /// Asks for what the one that is furthest back lacks; the others find theirs in it. One read at a time.
    fn want_log(&mut self, now: Instant, recent: &Recent) {
        let waiting = self.at_stage(Stage::WantLog);
        let Some(after) = waiting.iter().map(|conn| self.learners[conn].zxid).min() else { return };
        if self.log_asked.is_some() {
            return;
        }
        match self.log_end(recent).filter(|&end| after < end) {
            Some(through) => {
                self.log_asked = Some(after);
                self.out.push(Output::ReadLog { after, through });
            }
            None => {
                for conn in waiting {
                    self.without_log(now, conn);
                }
                self.want_snapshot();
            }
        }
    }

    /// A learner that was to get a part of the log gets a snapshot.
    fn without_log(&mut self, now: Instant, conn: PeerConn) {
        let learner = self.learners.get_mut(&conn).expect("it waits for the log");
        tracing::info!(sid = learner.sid, zxid = %learner.zxid, "a learner gets a snapshot: the log does not help");
        learner.by_snapshot = true;
        learner.enter(now, Stage::WantSnapshot);
    }

    /// Answers [`Output::ReadLog`]: what follows the entry of `after` in our log, without a gap; `None` where that cannot be had.
    pub fn log_read(
        &mut self,
        now: Instant,
        after: Zxid,
        entries: Option<Vec<(Zxid, Bytes)>>,
        recent: &Recent,
    ) {
        if self.phase == Phase::Resigned {
            return;
        }
        assert!(self.log_asked.take() == Some(after), "the log was not asked for what follows {after}");
        let entries = entries.unwrap_or_default();
        let follow = |pair: &[(Zxid, Bytes)]| follows(pair[0].0, pair[1].0);
        assert!(
            entries.first().is_none_or(|(first, _)| follows(after, *first)) && entries.windows(2).all(follow),
            "what was read behind {after} has a gap"
        );
        for conn in self.at_stage(Stage::WantLog) {
            let zxid = self.learners[&conn].zxid;
            if zxid < after {
                // It came while the disk was read.
                continue;
            }
            match sync::join(after, &entries, recent, zxid, self.zxid_proposed, self.diff_bytes_max()) {
                Some(joined) => {
                    self.learners.get_mut(&conn).expect("it waits for the log").by_log = true;
                    self.difference(now, conn, zxid, joined);
                }
                None => self.without_log(now, conn),
            }
        }
        self.want_log(now, recent);
        self.want_snapshot();
        self.advance(now);
    }

    pub(super) fn want_snapshot(&mut self) {
        if !self.snapshot_runs && !self.snapshot_asked && !self.at_stage(Stage::WantSnapshot).is_empty() {
            self.snapshot_asked = true;
            self.out.push(Output::WantSnapshot);
        }
    }

    /// Sends what of our history is still held back, then NEWLEADER. What is not committed stays held back: see `learner_handler`.
    fn new_leader(&mut self, now: Instant, conn: PeerConn) {
        let end = self.history_end();
        let learner = self.learners.get_mut(&conn).expect("it is being synchronised");
        while let Some((zxid, entry)) = learner.pop_held(end) {
            learner.queue.entry(kind::PROPOSAL, zxid, &entry);
            learner.queue.packet(kind::COMMIT, zxid, None);
            learner.covered = zxid;
        }
        assert!(learner.covered >= self.start.zxid_last, "{} misses history", learner.covered);
        learner.queue.packet(kind::NEW_LEADER, Zxid::new(self.epoch, 0), Some(&self.options.config_text));
        learner.enter(now, Stage::NewLeader);
    }
}
