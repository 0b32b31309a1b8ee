//! One learner as the leader sees it: how far the conversation is, what it holds, and when it was last heard.
//!
//! ```text
//! Hello --FOLLOWERINFO--> WaitEpoch --LEADERINFO--> AckEpoch --ACKEPOCH--> WaitElected --+--DIFF---------------> NewLeader
//!                                                                                       +--> WantLog --DIFF--> NewLeader, or
//!                                                                                       +--> WantSnapshot
//!                                                                                            --SNAP--> Snapshot --> NewLeader
//! NewLeader --ACK e--> Acked --UPTODATE--> Broadcast
//! ```
//!
//! What the reign goes on with while a learner joins is held back until its UPTODATE, in [`LearnerHandler::hold`]: learners of Apache
//! ZooKeeper fail on an uncommitted proposal before NEWLEADER and on a commit between NEWLEADER and UPTODATE (quorum-protocol 4.6).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::queue::Queue;
use crate::proto::quorum::PacketError;
use crate::types::{Epoch, Instant, ServerId, Zxid};

/// Pings sent and not answered that are kept apart; a learner that leaves so many unanswered is lost anyway.
const PINGS_MAX: usize = 1024;
/// What an entry held back costs besides its bytes.
const HELD_OVERHEAD_BYTES: usize = 64;

/// Bytes an entry counts for while it waits for one learner.
pub(super) fn held_bytes(entry: &Bytes) -> usize {
    entry.len() + HELD_OVERHEAD_BYTES
}

/// How far the conversation with a learner is. The order is that of the conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// It has said nothing yet.
    Hello,
    /// It has said which epoch it accepted; ours is not settled yet.
    WaitEpoch,
    /// LEADERINFO is queued.
    AckEpoch,
    /// It has promised the epoch; our history is not chosen yet.
    WaitElected,
    /// A part of the log is being read for it.
    WantLog,
    /// It needs a snapshot, and the next pass over the tree has not begun.
    WantSnapshot,
    /// It receives a snapshot.
    Snapshot,
    /// NEWLEADER is queued.
    NewLeader,
    /// It holds our history durably; UPTODATE is not queued yet.
    Acked,
    /// It takes part in the broadcast.
    Broadcast,
}

/// Why the leader closes the connection of a learner.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum LearnerError {
    #[error("its bytes are no packet: {0}")]
    Packet(#[from] PacketError),
    #[error("its requests wait for room in more than {bytes_max} bytes")]
    TooManyRequests { bytes_max: usize },
    #[error("a packet of more than {bytes_max} bytes")]
    PacketTooLong { bytes_max: usize },
    #[error("a packet of type {kind} while at stage {stage:?}")]
    Unexpected { kind: i32, stage: Stage },
    #[error("a packet of type {kind} whose data of {length} bytes is no {expected}")]
    Malformed { kind: i32, length: usize, expected: &'static str },
    #[error("protocol version {version:#x} where at least 0x10000 was expected")]
    Protocol { version: i32 },
    #[error("it claims to be server {sid}, which is this one")]
    OwnId { sid: u8 },
    #[error("its configuration version {theirs:#x} is ahead of ours, {ours:#x}")]
    ConfigAhead { theirs: i64, ours: i64 },
    #[error("{zxid} as the accepted epoch, which is none")]
    Epoch { zxid: Zxid },
    #[error(
        "its history is ahead of ours: epoch {} at {their_zxid}, ours is {} at {our_zxid}",
        .their_epoch.0,
        .our_epoch.0
    )]
    HistoryAhead { their_epoch: Epoch, their_zxid: Zxid, our_epoch: Epoch, our_zxid: Zxid },
    #[error("current epoch {current} before the promise of epoch {}", .epoch.0)]
    CurrentEpoch { current: i32, epoch: Epoch },
    #[error("an ack of {zxid}, beyond {sent}, the last it was sent")]
    AckOfFuture { zxid: Zxid, sent: Zxid },
    #[error("an ack of {zxid}, which was never proposed")]
    AckOfNothing { zxid: Zxid },
    #[error("an ack of {zxid} after one of {before}")]
    AckOutOfOrder { zxid: Zxid, before: Zxid },
    #[error("nothing was heard of it for {ms} ms at stage {stage:?}")]
    Silent { stage: Stage, ms: u64 },
    #[error("{zxid} has waited {ms} ms for its ack")]
    AckOverdue { zxid: Zxid, ms: u64 },
    #[error("{bytes} bytes wait for it where at most {bytes_max} may; it is to synchronise anew")]
    QueueFull { bytes: usize, bytes_max: usize },
    #[error("{count} syncs wait for an answer to it")]
    TooManySyncs { count: usize },
    #[error("{count} connections of learners are open already")]
    TooManyLearners { count: usize },
    #[error("{count} observers are being synchronised that way already")]
    TooManyObserverSyncs { count: usize },
    #[error("the server has connected anew")]
    Replaced,
    #[error("what follows the snapshot at {zxid} is no longer in memory")]
    SnapshotTooOld { zxid: Zxid },
}

/// A ping that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Ping {
    number: u64,
    zxid: Zxid,
}

#[derive(Debug)]
pub(super) struct LearnerHandler {
    pub from: SocketAddr,
    pub stage: Stage,
    /// When this stage began.
    since: Instant,
    /// As it said; negative for those without one.
    pub sid: i64,
    /// The id, where it is one a member could have.
    pub server: Option<ServerId>,
    pub is_observer: bool,
    /// The beginning of a packet.
    pub received: Vec<u8>,
    pub queue: Queue,
    /// What is to be sent after UPTODATE: proposals, or for an observer what was committed. Follows `covered` without a gap.
    held: VecDeque<(Zxid, Bytes)>,
    held_bytes: usize,
    /// Where its history ends, as it said.
    pub zxid: Zxid,
    /// Its promise counts for the choice of our history.
    pub elects: bool,
    /// It is or was brought up to date by a snapshot.
    pub by_snapshot: bool,
    /// What it lacks was read from the log.
    pub by_log: bool,
    /// With its ack of NEWLEADER it holds our history up to here.
    pub covered: Zxid,
    /// It holds our history up to here durably.
    pub acked: Zxid,
    /// The last proposal it acknowledged by name.
    ack_last: Option<Zxid>,
    heard: Instant,
    /// When bytes last left for it.
    progressed: Instant,
    pings: VecDeque<Ping>,
    /// The latest ping it answered.
    pub answered: u64,
    /// A proposal whose ack is awaited, and the latest one: sampled, as every proposal would cost too much.
    ack_awaited: Option<(Zxid, Instant)>,
    ack_newest: Option<(Zxid, Instant)>,
}

impl LearnerHandler {
    pub fn new(from: SocketAddr, now: Instant) -> LearnerHandler {
        LearnerHandler {
            from,
            stage: Stage::Hello,
            since: now,
            sid: -1,
            server: None,
            is_observer: false,
            received: Vec::new(),
            queue: Queue::default(),
            held: VecDeque::new(),
            held_bytes: 0,
            zxid: Zxid::ZERO,
            elects: false,
            by_snapshot: false,
            by_log: false,
            covered: Zxid::ZERO,
            acked: Zxid::ZERO,
            ack_last: None,
            heard: now,
            progressed: now,
            pings: VecDeque::new(),
            answered: 0,
            ack_awaited: None,
            ack_newest: None,
        }
    }

    pub fn enter(&mut self, now: Instant, stage: Stage) {
        assert!(self.stage < stage, "from {:?} to {stage:?}", self.stage);
        self.stage = stage;
        self.since = now;
    }

    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub fn sent(&mut self, now: Instant, count: usize) {
        self.progressed = now;
        self.queue.sent(count);
    }

    /// What goes on meanwhile is kept for it from here on.
    pub fn is_joining(&self) -> bool {
        (Stage::Snapshot..=Stage::Acked).contains(&self.stage)
    }

    /// Keeps an entry until UPTODATE.
    pub fn hold(&mut self, zxid: Zxid, entry: Bytes) {
        let last = self.held.back().map(|&(last, _)| last);
        assert!(last.is_none_or(|last| last < zxid), "{zxid} is held after {last:?}");
        self.held_bytes += held_bytes(&entry);
        self.held.push_back((zxid, entry));
    }

    /// The next entry held back, if it is not beyond `up_to`.
    pub fn pop_held(&mut self, up_to: Zxid) -> Option<(Zxid, Bytes)> {
        self.held.front().filter(|(zxid, _)| *zxid <= up_to)?;
        let (zxid, entry) = self.held.pop_front()?;
        self.held_bytes -= held_bytes(&entry);
        Some((zxid, entry))
    }

    /// Memory that waits for this learner to read.
    pub fn waiting_bytes(&self) -> usize {
        self.queue.unsent() + self.held_bytes
    }

    /// Looks at an ack of a proposal; whether it moved [`LearnerHandler::acked`].
    pub fn ack(&mut self, zxid: Zxid, sent: Zxid, epoch: Epoch) -> Result<bool, LearnerError> {
        if zxid > sent {
            return Err(LearnerError::AckOfFuture { zxid, sent });
        }
        if zxid > self.covered && zxid.epoch() != epoch || zxid <= Zxid::ZERO {
            return Err(LearnerError::AckOfNothing { zxid });
        }
        if let Some(before) = self.ack_last.filter(|&before| zxid < before) {
            return Err(LearnerError::AckOutOfOrder { zxid, before });
        }
        self.ack_last = Some(zxid);
        // Until NEWLEADER is acknowledged its history is not known to be ours, whatever it has written.
        if self.stage < Stage::Acked || zxid <= self.acked {
            return Ok(false);
        }
        self.acked = zxid;
        if self.ack_awaited.is_some_and(|(awaited, _)| awaited <= zxid) {
            self.ack_awaited = self.ack_newest.take().filter(|&(newest, _)| newest > zxid);
        }
        Ok(true)
    }

    /// A proposal is on its way to it.
    pub fn await_ack(&mut self, now: Instant, zxid: Zxid) {
        if self.ack_awaited.is_none() {
            self.ack_awaited = Some((zxid, now));
        } else {
            self.ack_newest = Some((zxid, now));
        }
    }

    /// A ping was queued; false where too many are unanswered to keep track of another.
    pub fn may_ping(&self) -> bool {
        self.pings.len() < PINGS_MAX
    }

    pub fn pinged(&mut self, number: u64, zxid: Zxid) {
        self.pings.push_back(Ping { number, zxid });
    }

    /// A ping came back. Answers come in the order of the pings and repeat their zxid; where one was left out, the oldest ping that fits
    /// is taken, so that no answer ever counts for more than it proves. Whether it fits any.
    pub fn pong(&mut self, zxid: Zxid) -> bool {
        let Some(index) = self.pings.iter().position(|ping| ping.zxid == zxid) else { return false };
        self.answered = self.pings[index].number;
        self.pings.drain(..=index);
        true
    }

    /// Whether it has kept the leader waiting too long. `init` and `sync` are the limits as times.
    pub fn overdue(&self, now: Instant, init: Duration, sync: Duration) -> Option<LearnerError> {
        let (last, limit) = match self.stage {
            Stage::Hello | Stage::AckEpoch => (self.since, init),
            // It waits for us.
            Stage::WaitEpoch | Stage::WaitElected | Stage::WantLog | Stage::WantSnapshot => return None,
            Stage::Snapshot if self.queue.unsent() == 0 => return None,
            Stage::Snapshot => (self.since.max(self.progressed), init),
            Stage::NewLeader => (self.since.max(self.progressed).max(self.heard), init),
            // Learners of Apache ZooKeeper answer no ping here.
            Stage::Acked => (self.since, init),
            Stage::Broadcast => (self.since.max(self.heard), sync),
        };
        if now.since(last) > limit {
            return Some(LearnerError::Silent { stage: self.stage, ms: now.since(last).as_millis() as u64 });
        }
        let (zxid, awaited) = self.ack_awaited?;
        let waited = now.since(awaited);
        (waited > sync).then_some(LearnerError::AckOverdue { zxid, ms: waited.as_millis() as u64 })
    }
}
