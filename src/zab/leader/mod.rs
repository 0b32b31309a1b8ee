//! A reign: from winning an election to stepping down.
//!
//! 1. *Discovery*: servers connect and say which epoch they accepted. With a quorum of voters the reign's epoch is settled, above all of
//!    theirs, made durable here, and only then told (O1).
//! 2. *Election of the history*: a quorum promises the epoch and shows that none of it holds more than this server (G7).
//! 3. *Synchronisation*: every learner gets our history, as a difference or a snapshot, then NEWLEADER. With a quorum of acks, all of
//!    that history is committed and the reign established (G1).
//! 4. *Broadcast*: what is proposed is committed in order once it is durable here and on a quorum (G3, G4, G8).
//!
//! The leader is told what happens and gives out what it wants done: no I/O, no clock. A learner that breaks the protocol, falls silent
//! or reads too slowly loses its connection, nothing else; it comes back and is synchronised anew. The reign ends, by
//! [`Output::Resign`], when a quorum of connections is gone, when a phase takes longer than `initLimit`, or when the own disk stands still.
//!
//! An ack counts for everything before it: a learner writes in the order it is sent, and a synchronised one holds all that came
//! before (S3, S4). Sources: ZooKeeper `Leader`, `LearnerHandler`; quorum-protocol §4, §5.1, §10.3.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::metrics::Tally;
use crate::proto::quorum::{NO_ZXID, PROTOCOL_VERSION, RequestHeader, kind};
use crate::types::{Epoch, Instant, ServerId, SessionId, Zxid};
use crate::zab::quorum::{ServerSet, Verifier};
use crate::zab::recent::Recent;
use crate::zab::{Epochs, PeerConn, PeerEvent, PeerPort, PeerWork};

mod broadcast;
mod catch_up;
mod conversation;
mod learner_handler;
mod membership;
mod proof;
mod queue;
mod sync;

use conversation::EPOCH_LAST;
use learner_handler::{LearnerError, LearnerHandler, Stage, held_bytes};
pub use membership::NextMembership;
use membership::Proposed;
pub use proof::ProofId;
use proof::Proofs;
use queue::Batch;

/// Connections of learners, before and after they said who they are.
pub const LEARNERS_MAX: usize = 1024;
/// Syncs of learners that wait for their answer; whoever asks for one more is closed.
const SYNCS_MAX: usize = 65_536;
/// The last counter of an epoch that is used. Source: ZooKeeper `Leader#propose` (ZOOKEEPER-1277).
const COUNTER_LAST: u32 = 0xffff_fffe;

/// How a reign is led.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    pub me: ServerId,
    /// `tickTime`.
    pub tick: Duration,
    /// `initLimit`: ticks each phase before the broadcast may take.
    pub init_limit: u32,
    /// `syncLimit`: ticks a learner may be silent, or owe an ack.
    pub sync_limit: u32,
    pub verifier: Verifier,
    /// Learners outside are served and never counted.
    pub voters: ServerSet,
    /// What NEWLEADER carries: the membership proposed last, committed or not.
    pub config_text: Bytes,
    /// Its version. A learner with a higher one is refused.
    pub config_version: i64,
    /// That of `config_text` where it is not known to be committed: until the reign is established, quorums of both are needed.
    pub proposed: Option<Verifier>,
    /// A membership of version 0 gets that of the epoch's begin (`reconfigEnabled`).
    pub raises_version: bool,
    /// Bytes of data in one packet of a learner: the longest request, or the longest list of sessions in the answer to a ping, at 12
    /// bytes each. ZooKeeper: `jute.maxbuffer` and its extra.
    pub packet_bytes_max: usize,
    /// Bytes that may wait for one learner to read; beyond, it is closed and synchronises anew. A difference takes at most half of it, so
    /// it has to be more than twice what may be outstanding.
    pub learner_queue_bytes_max: usize,
    /// `leader.maxConcurrentSnapSyncs`: beyond it observers are sent away.
    pub snapshot_syncs_max: usize,
    /// `leader.maxConcurrentDiffSyncs`: likewise.
    pub diff_syncs_max: usize,
    /// `leader.maxTimeToWaitForEpoch`; `None` is off. See [`Leader::looking`].
    pub epoch_wait_max: Option<Duration>,
}

/// What a server brings to its reign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderStart {
    pub epochs: Epochs,
    /// Where its log ends, durably; zero for none.
    pub zxid_last: Zxid,
}

/// What the leader wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Peer(PeerWork),
    /// Make them durable, then say [`Leader::epochs_written`].
    WriteEpochs(Epochs),
    /// All of our history is committed; proposals begin with counter 1 of this epoch.
    Established {
        epoch: Epoch,
    },
    /// Everything up to here is committed, and durable here.
    Committed(Zxid),
    /// The membership proposed as `zxid`, which was just committed, is in force, and that server is to lead. Where it is another,
    /// nothing is committed here any more.
    Activated {
        zxid: Zxid,
        designated: ServerId,
    },
    /// A client of a learner asks. A `sync` is answered with [`Leader::sync`], everything else by what is proposed.
    Request {
        conn: PeerConn,
        header: RequestHeader,
        body: Bytes,
        auth: Vec<(String, String)>,
    },
    /// To be answered with [`Leader::revalidated`].
    Revalidate {
        conn: PeerConn,
        session: SessionId,
        timeout_ms: i32,
    },
    /// A session was heard of by a learner.
    Touch {
        session: SessionId,
        timeout_ms: i32,
    },
    /// A learner that took part in the broadcast is gone; what it asked for goes on.
    LearnerGone {
        conn: PeerConn,
    },
    /// A quorum followed us after [`Leader::prove`] was called.
    Proved(ProofId),
    /// Learners wait for a pass over the tree: [`Leader::snapshot_begin`].
    WantSnapshot,
    /// Learners lack more than is in memory: read our log behind `after`, which is before what `recent` holds, at least to `through`, which
    /// is durable; answered by [`Leader::log_read`].
    ReadLog {
        after: Zxid,
        through: Zxid,
    },
    /// The reign is over, every connection closed. Nothing follows but the closing of connections that come later.
    Resign {
        reason: String,
    },
}

/// What a reign counts.
#[derive(Clone, Debug, Default)]
pub struct LeaderCounters {
    pub proposals: u64,
    pub commits: u64,
    /// Bytes of proposals.
    pub proposal_bytes: Tally,
    /// Microseconds from a proposal to its commit.
    pub commit_latency_us: Tally,
    pub diff_syncs: u64,
    pub snapshot_syncs: u64,
    /// Connections closed for what a learner did, or failed to do.
    pub learners_closed: u64,
    /// Rounds that proved a quorum.
    pub proofs: u64,
}

/// A learner that takes part, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerReport {
    pub conn: PeerConn,
    /// As on the wire; negative for anonymous observers.
    pub sid: i64,
    pub from: std::net::SocketAddr,
    pub is_observer: bool,
    /// UPTODATE was sent.
    pub is_synced: bool,
    /// Bytes that wait for it.
    pub waiting_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Discovery,
    /// The epoch is settled and being made durable.
    WriteAccepted,
    AckEpoch,
    /// Our history is chosen; its epoch is being made durable.
    WriteCurrent,
    Synchronisation,
    Broadcast,
    Resigned,
}

/// A proposal that is not committed.
#[derive(Debug)]
struct Proposal {
    zxid: Zxid,
    entry: Bytes,
    at: Instant,
}

/// How far a voter is.
#[derive(Clone, Copy, Debug)]
struct Ack {
    zxid: Zxid,
    server: ServerId,
    conn: PeerConn,
}

/// The leader of one epoch.
#[derive(Debug)]
pub struct Leader {
    options: LeaderOptions,
    start: LeaderStart,
    /// What is durable, or being made so.
    epochs: Epochs,
    /// Settled once the phase is past discovery; until then above every epoch heard of.
    epoch: Epoch,
    phase: Phase,
    phase_since: Instant,
    began: Instant,
    /// The last proposal, or the end of the history before the first.
    zxid_proposed: Zxid,
    /// Of our own log.
    zxid_durable: Zxid,
    /// Never ahead of `zxid_durable`. Of the history before the reign, nothing counts as committed until it is established.
    zxid_committed: Zxid,
    /// From the first uncommitted one to `zxid_proposed`, without a gap.
    outstanding: VecDeque<Proposal>,
    learners: BTreeMap<PeerConn, LearnerHandler>,
    /// Since the last [`Leader::cut`], for every follower and every observer in the broadcast.
    to_followers: Batch,
    to_observers: Batch,
    followers_count: usize,
    observers_count: usize,
    proofs: Proofs,
    ping_number: u64,
    /// A pass over the tree is under way.
    snapshot_runs: bool,
    /// [`Output::WantSnapshot`] was said and no pass has begun since.
    snapshot_asked: bool,
    /// [`Output::ReadLog`] was said for who lacks what follows this, and is not answered.
    log_asked: Option<Zxid>,
    /// Pings and deadlines are looked after every half tick.
    timer: Instant,
    /// After this process stood still, what waits in sockets is heard before anybody counts as silent (O12).
    grace_until: Instant,
    out: Vec<Output>,
    /// How far each voter holds our history durably, of those that have acknowledged NEWLEADER.
    acks: Vec<Ack>,
    /// Learners for whom live traffic is held back.
    joining_count: usize,
    /// The first and the last proposal since the last [`Leader::cut`], and when the first was made.
    uncut: Option<(Zxid, Zxid, Instant)>,
    /// A connection has ended since the quorum of connections was last looked at.
    connection_lost: bool,
    /// A membership that is not in force yet.
    proposed: Option<Proposed>,
    /// Memberships that came in force while learners were joining, and who leads by them.
    activated: BTreeMap<Zxid, ServerId>,
    /// Another is to lead by the membership in force.
    is_deposed: bool,
    counters: LeaderCounters,
}

impl Leader {
    /// Begins a reign: with a quorum of one, [`Output::WriteEpochs`] is owed at once.
    pub fn new(options: LeaderOptions, start: LeaderStart, now: Instant) -> Leader {
        assert!(start.epochs.accepted >= start.epochs.current, "{:?}", start.epochs);
        let mut leader = Leader {
            epochs: start.epochs,
            epoch: Epoch(start.epochs.accepted.0.saturating_add(1)),
            phase: Phase::Discovery,
            phase_since: now,
            began: now,
            zxid_proposed: start.zxid_last,
            zxid_durable: start.zxid_last,
            zxid_committed: Zxid::ZERO,
            outstanding: VecDeque::new(),
            learners: BTreeMap::new(),
            to_followers: Batch::default(),
            to_observers: Batch::default(),
            followers_count: 0,
            observers_count: 0,
            proofs: Proofs::default(),
            ping_number: 0,
            snapshot_runs: false,
            snapshot_asked: false,
            log_asked: None,
            timer: now + options.tick / 2,
            grace_until: now,
            out: Vec::new(),
            acks: Vec::new(),
            joining_count: 0,
            uncut: None,
            connection_lost: false,
            proposed: options.proposed.clone().map(Proposed::before_reign),
            activated: BTreeMap::new(),
            is_deposed: false,
            counters: LeaderCounters::default(),
            options,
            start,
        };
        if leader.epoch > EPOCH_LAST {
            leader.resign(format!("the accepted epoch {} is the last there is", start.epochs.accepted.0));
        }
        leader.settle_epoch(now);
        leader
    }

    /// Takes what happened on a connection of the quorum port.
    pub fn event(&mut self, now: Instant, conn: PeerConn, event: PeerEvent<'_>, recent: &Recent) {
        if self.phase == Phase::Resigned {
            if matches!(event, PeerEvent::Accepted { port: PeerPort::Quorum, .. }) {
                self.out.push(Output::Peer(PeerWork::Close { conn }));
            }
            return;
        }
        match event {
            PeerEvent::Accepted { port: PeerPort::Quorum, from } => {
                let count = self.learners.len();
                let replaced = self.learners.insert(conn, LearnerHandler::new(from, now));
                assert!(replaced.is_none(), "{conn:?} was accepted twice");
                if count >= LEARNERS_MAX {
                    self.close(conn, &LearnerError::TooManyLearners { count });
                }
            }
            // Not ours: votes, and connections we did not ask for.
            PeerEvent::Accepted { port: PeerPort::Election, .. } | PeerEvent::Connected => {}
            PeerEvent::Received(bytes) => self.received(now, conn, bytes, recent),
            PeerEvent::Sent(count) => {
                if let Some(learner) = self.learners.get_mut(&conn) {
                    learner.sent(now, count);
                }
            }
            PeerEvent::Closed => {
                if let Some(learner) = self.learners.get(&conn) {
                    tracing::info!(sid = learner.sid, from = %learner.from, "a learner's connection ended");
                    self.remove(conn);
                }
            }
        }
        self.advance(now);
    }

    /// The epochs asked for last are durable.
    pub fn epochs_written(&mut self, now: Instant, epochs: Epochs, recent: &Recent) {
        if self.phase == Phase::Resigned {
            return;
        }
        assert!(epochs == self.epochs, "{epochs:?} written where {:?} were asked for", self.epochs);
        match self.phase {
            Phase::WriteAccepted => {
                self.enter(now, Phase::AckEpoch);
                for conn in self.at_stage(Stage::WaitEpoch) {
                    self.leader_info(now, conn);
                }
            }
            Phase::WriteCurrent => {
                self.enter(now, Phase::Synchronisation);
                for conn in self.at_stage(Stage::WaitElected) {
                    self.synchronise(now, conn, recent);
                }
            }
            phase => panic!("epochs were written while in {phase:?}"),
        }
        self.advance(now);
    }

    /// Whether no zxid is left in this epoch: propose nothing more. The reign ends when what is proposed is committed.
    pub fn counter_used_up(&self) -> bool {
        self.phase == Phase::Broadcast
            && self.zxid_proposed.epoch() == self.epoch
            && self.zxid_proposed.counter() >= COUNTER_LAST
    }

    /// A learner's client asked for `sync`: it is answered after the commit of what is proposed now, and after a proof.
    pub fn sync(&mut self, conn: PeerConn) {
        if self.learners.get(&conn).is_none_or(|learner| learner.stage != Stage::Broadcast) {
            return;
        }
        let count = self.proofs.sync(conn, self.zxid_proposed);
        if count > SYNCS_MAX {
            self.close(conn, &LearnerError::TooManySyncs { count });
        }
    }

    /// Asks for a proof that a quorum follows us now, for a `sync` of our own client; answered by [`Output::Proved`].
    pub fn prove(&mut self) -> ProofId {
        self.proofs.prove(self.zxid_proposed)
    }

    /// Answers [`Output::Revalidate`].
    pub fn revalidated(&mut self, conn: PeerConn, session: SessionId, valid: bool) {
        self.cut();
        if let Some(learner) = self.learners.get_mut(&conn).filter(|l| l.stage == Stage::Broadcast) {
            let mut data = [0; 9];
            data[..8].copy_from_slice(&session.0.to_be_bytes());
            data[8] = u8::from(valid);
            learner.queue.packet(kind::REVALIDATE, NO_ZXID, Some(&data));
        }
    }

    /// A voter that the election had behind us is looking for a leader again. Source: ZooKeeper `Leader#quitLeading`,
    /// `leader.maxTimeToWaitForEpoch`.
    pub fn looking(&mut self, now: Instant, server: ServerId) {
        let waited = now.since(self.began);
        if self.phase == Phase::Discovery
            && self.options.voters.contains(server)
            && self.options.epoch_wait_max.is_some_and(|max| waited >= max)
        {
            self.resign(format!("server {} looks for a leader again before the epoch was settled", server.0));
        }
    }

    /// Pings, deadlines.
    pub fn on_timer(&mut self, now: Instant) {
        if self.phase == Phase::Resigned || now < self.timer {
            return;
        }
        let tick = self.options.tick;
        if now.since(self.timer) > tick {
            tracing::warn!(late_ms = now.since(self.timer).as_millis() as u64, "the leader stood still");
            self.grace_until = now + tick;
        }
        self.timer = now + tick / 2;
        if now >= self.grace_until {
            self.look_after_deadlines(now);
        }
        if self.phase == Phase::Resigned {
            return;
        }
        self.cut();
        for conn in self.learners.keys().copied().collect::<Vec<_>>() {
            self.ping(conn);
        }
        self.advance(now);
    }

    /// When [`Leader::on_timer`] is wanted.
    pub fn next_timer(&self) -> Option<Instant> {
        (self.phase != Phase::Resigned).then_some(self.timer)
    }

    /// Hands over what is owed since the last call, in the order it must happen.
    pub fn drain(&mut self, out: &mut Vec<Output>) {
        self.begin_round();
        self.cut();
        self.close_slow();
        out.append(&mut self.out);
        for (&conn, learner) in &mut self.learners {
            learner.queue.drain(conn, |work| out.push(Output::Peer(work)));
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether entries may be proposed.
    pub fn is_established(&self) -> bool {
        self.phase == Phase::Broadcast
    }

    pub fn zxid_committed(&self) -> Zxid {
        self.zxid_committed
    }

    pub fn zxid_proposed(&self) -> Zxid {
        self.zxid_proposed
    }

    /// Proposals that are not committed.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    pub fn counters(&self) -> &LeaderCounters {
        &self.counters
    }

    /// Followers (voting or not) that are in the broadcast.
    pub fn synced_followers(&self) -> usize {
        self.followers_count
    }

    pub fn synced_observers(&self) -> usize {
        self.observers_count
    }

    /// Followers in the broadcast that do not vote.
    pub fn synced_non_voting_followers(&self) -> usize {
        self.learners
            .values()
            .filter(|l| l.stage == Stage::Broadcast && !l.is_observer && !self.votes(l))
            .count()
    }

    /// Connections that have said who they are.
    pub fn learners(&self) -> impl Iterator<Item = LearnerReport> {
        self.learners.iter().filter(|(_, learner)| learner.stage > Stage::Hello).map(|(&conn, learner)| {
            LearnerReport {
                conn,
                sid: learner.sid,
                from: learner.from,
                is_observer: learner.is_observer,
                is_synced: learner.stage == Stage::Broadcast,
                waiting_bytes: learner.waiting_bytes(),
            }
        })
    }

    // ---- phases ----

    fn enter(&mut self, now: Instant, phase: Phase) {
        assert!(self.phase < phase, "from {:?} to {phase:?}", self.phase);
        self.phase = phase;
        self.phase_since = now;
    }

    /// Settles the epoch once a quorum is here.
    fn settle_epoch(&mut self, now: Instant) {
        if self.phase == Phase::Discovery && self.is_quorum(|learner| learner.stage >= Stage::WaitEpoch) {
            self.enter(now, Phase::WriteAccepted);
            self.raise_version();
            self.write_epochs(Epochs { accepted: self.epoch, current: self.epochs.current });
        }
    }

    fn write_epochs(&mut self, epochs: Epochs) {
        assert!(epochs.accepted >= epochs.current, "{epochs:?}");
        assert!(epochs.accepted >= self.epochs.accepted && epochs.current >= self.epochs.current);
        self.epochs = epochs;
        self.out.push(Output::WriteEpochs(epochs));
    }

    /// What the last event made possible.
    fn advance(&mut self, now: Instant) {
        if self.phase == Phase::AckEpoch && self.is_quorum(|learner| learner.elects) {
            self.enter(now, Phase::WriteCurrent);
            self.write_epochs(Epochs { accepted: self.epoch, current: self.epoch });
        }
        if self.phase == Phase::Synchronisation && self.is_quorum(|learner| learner.stage >= Stage::Acked) {
            self.establish(now);
        }
        if self.phase != Phase::Broadcast {
            return;
        }
        if self.is_abandoned() {
            return self.resign("no quorum is connected any more".to_owned());
        }
        if self.counter_used_up() && self.outstanding.is_empty() {
            self.resign(format!("the zxid counter of epoch {} is used up", self.epoch.0));
        }
    }

    /// A quorum holds our history.
    fn establish(&mut self, now: Instant) {
        self.enter(now, Phase::Broadcast);
        self.zxid_committed = self.start.zxid_last;
        if let Some(proposed) = self.proposed.take() {
            self.adopt(proposed);
        }
        tracing::info!(epoch = self.epoch.0, history_to = %self.zxid_committed, "the reign is established");
        self.out.push(Output::Established { epoch: self.epoch });
        for conn in self.at_stage(Stage::Acked) {
            self.release(now, conn);
        }
    }

    /// Up to here our history is sent as committed.
    fn history_end(&self) -> Zxid {
        if self.phase == Phase::Broadcast { self.zxid_committed } else { self.start.zxid_last }
    }

    fn leader_info(&mut self, now: Instant, conn: PeerConn) {
        let learner = self.learners.get_mut(&conn).expect("it has said hello");
        let version = PROTOCOL_VERSION.to_be_bytes();
        learner.queue.packet(kind::LEADER_INFO, Zxid::new(self.epoch, 0), Some(&version));
        learner.enter(now, Stage::AckEpoch);
    }

    /// Lets a learner into the broadcast, once all that it holds is committed: with UPTODATE it serves what it holds.
    fn release(&mut self, now: Instant, conn: PeerConn) {
        let Some(learner) = self.learners.get(&conn) else { return };
        let is_due = learner.stage == Stage::Acked && learner.covered <= self.zxid_committed;
        if self.phase != Phase::Broadcast || !is_due {
            return;
        }
        // What others got so far this one has held back.
        self.cut();
        let learner = self.learners.get_mut(&conn).expect("as just seen");
        learner.queue.packet(kind::UP_TO_DATE, NO_ZXID, None);
        while let Some((zxid, entry)) = learner.pop_held(self.zxid_proposed) {
            if learner.is_observer {
                assert!(zxid <= self.zxid_committed, "an observer is told of {zxid} before its commit");
                match self.activated.get(&zxid) {
                    Some(&designated) => {
                        let data = membership::inform_data(designated, &entry);
                        learner.queue.packet(kind::INFORM_AND_ACTIVATE, zxid, Some(&data));
                    }
                    None => learner.queue.entry(kind::INFORM, zxid, &entry),
                }
                continue;
            }
            learner.queue.entry(kind::PROPOSAL, zxid, &entry);
            learner.await_ack(now, zxid);
            if zxid <= self.zxid_committed {
                match self.activated.get(&zxid) {
                    Some(&designated) => {
                        let data = membership::designated_bytes(designated);
                        learner.queue.packet(kind::COMMIT_AND_ACTIVATE, zxid, Some(&data));
                    }
                    None => learner.queue.packet(kind::COMMIT, zxid, None),
                }
            }
        }
        learner.enter(now, Stage::Broadcast);
        self.joining_count -= 1;
        tracing::info!(sid = learner.sid, observer = learner.is_observer, "a learner is up to date");
        if learner.is_observer {
            self.observers_count += 1;
        } else {
            self.followers_count += 1;
        }
        if self.proofs.begun_at().is_some() {
            self.ping(conn);
        }
    }

    // ---- ends ----

    fn look_after_deadlines(&mut self, now: Instant) {
        let init = self.options.tick * self.options.init_limit;
        let sync = self.options.tick * self.options.sync_limit;
        if self.phase < Phase::Broadcast && now.since(self.phase_since) > init {
            return self.resign(format!(
                "{} took longer than initLimit, {} ms",
                match self.phase {
                    Phase::Discovery => "waiting for a quorum to connect",
                    Phase::AckEpoch => "waiting for a quorum to promise the epoch",
                    Phase::Synchronisation => "waiting for a quorum to take over our history",
                    _ => "making the epoch durable",
                },
                init.as_millis()
            ));
        }
        let first_volatile = self.outstanding.partition_point(|proposal| proposal.zxid <= self.zxid_durable);
        if let Some(proposal) = self.outstanding.get(first_volatile)
            && now.since(proposal.at) > sync
        {
            return self.resign(format!(
                "our own log has not made {} durable for {} ms",
                proposal.zxid,
                now.since(proposal.at).as_millis()
            ));
        }
        let overdue = self.learners.iter().filter_map(|(&conn, l)| Some((conn, l.overdue(now, init, sync)?)));
        for (conn, error) in overdue.collect::<Vec<_>>() {
            self.close(conn, &error);
        }
    }

    /// Closes learners for whom too much waits.
    fn close_slow(&mut self) {
        let bytes_max = self.options.learner_queue_bytes_max;
        let slow = self.learners.iter().map(|(&conn, learner)| (conn, learner.waiting_bytes()));
        let slow = slow.filter(|&(_, bytes)| bytes > bytes_max).collect::<Vec<_>>();
        for (conn, bytes) in slow {
            self.close(conn, &LearnerError::QueueFull { bytes, bytes_max });
        }
        if self.phase == Phase::Broadcast && self.is_abandoned() {
            self.resign("no quorum is connected any more".to_owned());
        }
    }

    /// Closes a learner whose requests wait for room in more than `bytes_max` bytes.
    pub fn close_learner(&mut self, conn: PeerConn, bytes_max: usize) {
        self.close(conn, &LearnerError::TooManyRequests { bytes_max });
    }

    fn close(&mut self, conn: PeerConn, error: &LearnerError) {
        let Some(learner) = self.learners.get(&conn) else { return };
        tracing::warn!(sid = learner.sid, from = %learner.from, %error, "a learner's connection is closed");
        self.counters.learners_closed += 1;
        self.remove(conn);
        self.out.push(Output::Peer(PeerWork::Close { conn }));
    }

    fn remove(&mut self, conn: PeerConn) {
        let Some(learner) = self.learners.remove(&conn) else { return };
        self.connection_lost = true;
        self.proofs.forget(conn);
        self.acks.retain(|ack| ack.conn != conn);
        self.joining_count -= usize::from(learner.is_joining());
        if learner.stage == Stage::Broadcast {
            if learner.is_observer {
                self.observers_count -= 1;
            } else {
                self.followers_count -= 1;
            }
            self.out.push(Output::LearnerGone { conn });
        }
    }

    fn resign(&mut self, reason: String) {
        if self.phase == Phase::Resigned {
            return;
        }
        // What was committed may still reach those who read.
        self.cut();
        self.phase = Phase::Resigned;
        for conn in self.learners.keys().copied().collect::<Vec<_>>() {
            let queue = self.learners.get_mut(&conn).map(|learner| &mut learner.queue);
            if let Some(queue) = queue {
                queue.drain(conn, |work| self.out.push(Output::Peer(work)));
            }
            self.remove(conn);
            self.out.push(Output::Peer(PeerWork::Close { conn }));
        }
        self.outstanding.clear();
        self.out.push(Output::Resign { reason });
    }

    // ---- small questions ----

    fn at_stage(&self, stage: Stage) -> Vec<PeerConn> {
        self.learners.iter().filter(|(_, learner)| learner.stage == stage).map(|(&conn, _)| conn).collect()
    }

    fn receivers(&self) -> impl Iterator<Item = &LearnerHandler> {
        self.learners.values().filter(|learner| learner.stage == Stage::Snapshot)
    }

    /// Whether the connections that ended left no quorum.
    fn is_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.connection_lost)
            && !self.is_quorum(|learner| learner.stage >= Stage::WaitEpoch)
    }

    /// Observers never count, nor do followers outside the voters.
    fn votes(&self, learner: &LearnerHandler) -> bool {
        !learner.is_observer && learner.server.is_some_and(|server| self.may_vote(server))
    }

    /// Whether this server and the voters among the learners that are so make a quorum.
    fn is_quorum(&self, is_so: impl Fn(&LearnerHandler) -> bool) -> bool {
        let so = self.learners.values().filter(|&learner| self.votes(learner) && is_so(learner));
        let mut set: ServerSet = so.filter_map(|learner| learner.server).collect();
        set.insert(self.options.me);
        self.options.verifier.is_quorum(&set)
            && self.proposed.as_ref().is_none_or(|proposed| proposed.verifier.is_quorum(&set))
    }

    /// A longer difference would be closed for its queue before it is read.
    fn diff_bytes_max(&self) -> usize {
        self.options.learner_queue_bytes_max / 2
    }
}

#[cfg(test)]
mod tests;
