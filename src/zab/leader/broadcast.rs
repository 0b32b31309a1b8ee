//! Proposals, their commits in order, and the rounds that prove a quorum.

use std::cmp::Reverse;

use bytes::Bytes;

use super::learner_handler::Stage;
use super::membership::{self, Proposed};
use super::{Ack, COUNTER_LAST, Leader, Output, Phase, Proposal};
use crate::proto::quorum::kind;
use crate::txnlog::follows;
use crate::types::{Instant, Zxid};
use crate::zab::PeerConn;
use crate::zab::quorum::{ServerSet, Verifier};

impl Leader {
    /// Proposes an entry that the caller has appended to its log and to `recent`. Only in the broadcast; panics unless it follows the
    /// last and is of this epoch (G4), and unless [`Leader::counter_used_up`] was false.
    pub fn propose(&mut self, now: Instant, zxid: Zxid, entry: &Bytes) {
        if self.phase == Phase::Resigned {
            return;
        }
        assert!(self.phase == Phase::Broadcast, "a proposal while in {:?}", self.phase);
        assert!(zxid.epoch() == self.epoch, "{zxid} is not of epoch {}", self.epoch.0);
        assert!(follows(self.zxid_proposed, zxid), "{zxid} does not follow {}", self.zxid_proposed);
        assert!(zxid.counter() <= COUNTER_LAST, "the counter of epoch {} is used up", self.epoch.0);
        self.zxid_proposed = zxid;
        self.outstanding.push_back(Proposal { zxid, entry: entry.clone(), at: now });
        self.counters.proposals += 1;
        self.counters.proposal_bytes.record(entry.len() as u64);
        if self.followers_count > 0 {
            self.to_followers.entry(kind::PROPOSAL, zxid, entry);
        }
        let (first, _, at) = self.uncut.unwrap_or((zxid, zxid, now));
        self.uncut = Some((first, zxid, at));
        if self.joining_count > 0 {
            for learner in self.learners.values_mut().filter(|learner| !learner.is_observer) {
                if learner.is_joining() {
                    learner.hold(zxid, entry.clone());
                }
            }
        }
    }

    /// Our own log is durable up to `zxid`.
    pub fn durable(&mut self, now: Instant, zxid: Zxid) {
        if self.phase == Phase::Resigned {
            return;
        }
        assert!(zxid <= self.zxid_proposed, "{zxid} is durable and {} proposed", self.zxid_proposed);
        self.zxid_durable = self.zxid_durable.max(zxid);
        self.commit(now);
        self.advance(now);
    }

    /// Commits what has become due, in order.
    pub(super) fn commit(&mut self, now: Instant) {
        // What waited for two quorums may need only one of them from then on.
        while self.commit_by_one_rule(now) {}
    }

    /// Commits up to the next change of who decides. Whether that was committed.
    fn commit_by_one_rule(&mut self, now: Instant) -> bool {
        if self.phase != Phase::Broadcast || self.outstanding.is_empty() || self.is_deposed {
            return false;
        }
        let changes_at = self.proposed.as_ref().and_then(|proposed| proposed.zxid);
        let point = changes_at.map_or(Zxid(i64::MAX), |zxid| zxid).min(self.commit_point());
        if point <= self.zxid_committed {
            return false;
        }
        let designated = changes_at.filter(|&zxid| zxid == point).map(|_| self.designated());
        assert!(point <= self.zxid_durable, "{point} is to be committed and not durable here");
        let mut last = self.zxid_committed;
        while self.outstanding.front().is_some_and(|proposal| proposal.zxid <= point) {
            let proposal = self.outstanding.pop_front().expect("there is a first one");
            let zxid = proposal.zxid;
            assert!(follows(last, zxid), "{zxid} is to be committed after {last}");
            last = zxid;
            while let Some(id) = self.proofs.pop_proved_before(zxid) {
                self.out.push(Output::Proved(id));
            }
            while let Some(conn) = self.proofs.pop_sync_before(zxid) {
                self.send_sync(conn);
            }
            let designated = designated.filter(|_| zxid == point);
            if self.followers_count > 0 {
                match designated.map(membership::designated_bytes) {
                    Some(data) => self.to_followers.packet(kind::COMMIT_AND_ACTIVATE, zxid, Some(&data)),
                    None => self.to_followers.packet(kind::COMMIT, zxid, None),
                }
            }
            if self.observers_count > 0 {
                match designated.map(|server| membership::inform_data(server, &proposal.entry)) {
                    Some(data) => self.to_observers.packet(kind::INFORM_AND_ACTIVATE, zxid, Some(&data)),
                    None => self.to_observers.entry(kind::INFORM, zxid, &proposal.entry),
                }
            }
            if self.joining_count > 0 {
                for learner in self.learners.values_mut().filter(|learner| learner.is_observer) {
                    // One that followed before may hold what was proposed then.
                    if learner.is_joining() && zxid > learner.covered {
                        learner.hold(zxid, proposal.entry.clone());
                    }
                }
            }
            self.counters.commits += 1;
            self.counters.commit_latency_us.record(now.since(proposal.at).as_micros() as u64);
        }
        if last == self.zxid_committed {
            return false;
        }
        self.zxid_committed = last;
        self.out.push(Output::Committed(last));
        if let Some(designated) = designated {
            self.activate(last, designated);
        }
        if self.joining_count > 0 {
            for conn in self.at_stage(Stage::Acked) {
                self.release(now, conn);
            }
        }
        self.release_syncs();
        designated.is_some()
    }

    /// The highest zxid that is durable here and on a quorum, and where a membership is proposed and not in force, from its proposal
    /// on a quorum of that.
    fn commit_point(&mut self) -> Zxid {
        self.acks.sort_unstable_by_key(|ack| Reverse(ack.zxid));
        let point = self.quorum_point(&self.options.verifier);
        let Some(Proposed { verifier, zxid: Some(zxid), .. }) = &self.proposed else { return point };
        if point < *zxid {
            return point;
        }
        match self.quorum_point(verifier) {
            next if next >= *zxid => point.min(next),
            _ => Zxid(zxid.0 - 1),
        }
    }

    /// The acks are sorted.
    fn quorum_point(&self, verifier: &Verifier) -> Zxid {
        let mut set: ServerSet = [self.options.me].into_iter().collect();
        if verifier.is_quorum(&set) {
            return self.zxid_durable;
        }
        for ack in &self.acks {
            set.insert(ack.server);
            if verifier.is_quorum(&set) {
                return ack.zxid.min(self.zxid_durable);
            }
        }
        Zxid::ZERO
    }

    /// A learner holds our history durably up to `zxid`. Only voters count.
    pub(super) fn count_ack(&mut self, conn: PeerConn, zxid: Zxid) {
        let learner = &self.learners[&conn];
        let Some(server) = learner.server.filter(|_| self.votes(learner)) else { return };
        match self.acks.iter_mut().find(|ack| ack.conn == conn) {
            Some(ack) => {
                assert!(ack.zxid <= zxid, "{server:?} held {} and now {zxid}", ack.zxid);
                ack.zxid = zxid;
            }
            None => {
                assert!(self.acks.iter().all(|ack| ack.server != server), "{server:?} counts twice");
                self.acks.push(Ack { zxid, server, conn });
            }
        }
    }

    /// Hands what all followers and all observers get alike to each of them. Due before anything that only one of them gets.
    pub(super) fn cut(&mut self) {
        for (is_observer, batch) in [(false, &mut self.to_followers), (true, &mut self.to_observers)] {
            if batch.is_empty() {
                continue;
            }
            for piece in batch.take() {
                for learner in self.learners.values_mut() {
                    if learner.stage == Stage::Broadcast && learner.is_observer == is_observer {
                        learner.queue.raw(piece.clone());
                    }
                }
            }
        }
        let Some((first, last, at)) = self.uncut.take().filter(|_| self.followers_count > 0) else { return };
        for learner in self.learners.values_mut() {
            if learner.stage == Stage::Broadcast && !learner.is_observer {
                learner.await_ack(at, first);
                learner.await_ack(at, last);
            }
        }
    }

    pub(super) fn ping(&mut self, conn: PeerConn) {
        self.cut();
        let Some(learner) = self.learners.get_mut(&conn) else { return };
        // Before UPTODATE learners need not answer. Those pings carry a zxid no later one does, so that no late answer to one of them
        // passes for an answer to a ping that proves something.
        let zxid = match learner.stage {
            Stage::NewLeader | Stage::Acked => self.start.zxid_last,
            Stage::Broadcast => self.zxid_proposed.max(Zxid::new(self.epoch, 0)),
            _ => return,
        };
        if learner.stage == Stage::Broadcast {
            if !learner.may_ping() {
                return;
            }
            self.ping_number += 1;
            learner.pinged(self.ping_number, zxid);
        }
        learner.queue.packet(kind::PING, zxid, None);
    }

    /// Begins the round that somebody waits for. Called once a turn, so that all who ask in one turn share it.
    pub(super) fn begin_round(&mut self) {
        if self.phase != Phase::Broadcast || !self.proofs.is_due() {
            return;
        }
        self.proofs.begin(self.ping_number);
        for conn in self.at_stage(Stage::Broadcast) {
            if self.votes(&self.learners[&conn]) {
                self.ping(conn);
            }
        }
        self.confirm_round();
    }

    pub(super) fn confirm_round(&mut self) {
        let Some(begun_at) = self.proofs.begun_at() else { return };
        if self.is_quorum(|learner| learner.stage == Stage::Broadcast && learner.answered > begun_at) {
            self.proofs.proven();
            self.counters.proofs += 1;
            while let Some(id) = self.proofs.pop_proved() {
                self.out.push(Output::Proved(id));
            }
            self.release_syncs();
        }
    }

    pub(super) fn release_syncs(&mut self) {
        while let Some(conn) = self.proofs.pop_sync(self.zxid_committed) {
            self.send_sync(conn);
        }
    }

    fn send_sync(&mut self, conn: PeerConn) {
        self.cut();
        if let Some(learner) = self.learners.get_mut(&conn) {
            learner.queue.packet(kind::SYNC, Zxid::ZERO, None);
        }
    }
}
