//! What a learner wants of its owner, and why it may end.

use bytes::Bytes;
use thiserror::Error;

use crate::proto::quorum::{PROTOCOL_VERSION, PacketError, SNAPSHOT_SIGNATURE};
use crate::snapshot::StreamError;
use crate::types::{Epoch, SessionId, Zxid};
use crate::zab::Epochs;

/// What is wanted, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// To the leader.
    Send(Bytes),
    /// Durably; answered by [`Learner::epochs_written`](super::Learner::epochs_written).
    WriteEpochs(Epochs),
    /// Make the log end there, durably, and the tree too where it has gone further (O6). Answered by [`Learner::truncated`](super::Learner::truncated)
    /// or [`Learner::cannot_truncate`](super::Learner::cannot_truncate).
    Truncate(Zxid),
    /// The sink holds the leader's tree as of `zxid_snapshot`, of which parts may be newer. With `entries` applied in order, as
    /// to a fuzzy snapshot, it is exactly that of `zxid`. Make that the state, durably, and begin the log anew behind
    /// `zxid`; answered by [`Learner::installed`](super::Learner::installed).
    ///
    /// The digest of the last entry, where it has one, tells whether the tree is sound. All of `entries` were committed before
    /// the leader's snapshot ended. Source: ZooKeeper `LearnerHandler#run`.
    Install {
        zxid: Zxid,
        zxid_snapshot: Zxid,
        entries: Vec<(Zxid, Bytes)>,
    },
    /// To the log; [`Learner::durable`](super::Learner::durable) follows. With `compare` this is the first entry behind a synchronization: once applied, the
    /// next digest among the entries is to be compared with the tree's, and a difference calls for a snapshot.
    Append {
        zxid: Zxid,
        entry: Bytes,
        compare: bool,
    },
    /// Everything up to it may be applied, once durable. The first one comes with `UPTODATE`, which a leader must not send before
    /// what this server had from the start, as far as the leader kept it, is committed.
    Commit(Zxid),
    /// The leader's history is here, durable, and acknowledged.
    NewLeader {
        epoch: Epoch,
    },
    /// Clients may be served, once what was committed before this is applied. The membership of `NEWLEADER` is in force.
    Serve {
        epoch: Epoch,
    },
    /// Answered by [`Learner::pong`](super::Learner::pong) at once.
    Ping,
    Revalidated {
        session: SessionId,
        valid: bool,
    },
    /// The oldest `sync` passed on is done, behind the commits before this.
    Synced,
    /// The text of a membership that was proposed: by `NEWLEADER`, in force from [`Output::Serve`] on (`proposed` is `None`), or by
    /// the entry `proposed`, which is appended next.
    Membership {
        text: Bytes,
        proposed: Option<Zxid>,
    },
    /// The membership of this entry, just committed, is in force, and that server is to lead (negative: it is not known who).
    Activate {
        zxid: Zxid,
        designated: i64,
    },
    /// Close the connection and look again. The last output.
    Failed(LearnerError),
}

/// Why a learner gave up its leader.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{fault}")]
pub struct LearnerError {
    pub fault: Fault,
    /// A leader of this epoch is to be asked for a snapshot next time, since what it sends as a difference does not fit.
    pub refetch: Option<Epoch>,
}

/// What was wrong.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    #[error("a packet of the leader: {0}")]
    Packet(#[from] PacketError),
    #[error("the leader's snapshot: {0}")]
    Snapshot(#[from] StreamError),
    #[error("the leader's snapshot ends with byte {found:#04x} where {SNAPSHOT_SIGNATURE:?} was expected")]
    Signature { found: u8 },
    #[error("packet type {kind} (zxid {zxid}) came where {expected} was expected")]
    Unexpected { kind: i32, zxid: Zxid, expected: &'static str },
    #[error("packet type {kind} (zxid {zxid}): {reason}")]
    Malformed { kind: i32, zxid: Zxid, reason: String },
    #[error("the leader speaks protocol version {version:#x}, at least {PROTOCOL_VERSION:#x} was expected")]
    Protocol { version: i32 },
    #[error("the leader's epoch {} is over, {} was accepted", .epoch.0, .accepted.0)]
    EpochOver { epoch: Epoch, accepted: Epoch },
    #[error("{zxid} does not follow {zxid_before}")]
    Gap { zxid_before: Zxid, zxid: Zxid },
    #[error("{zxid} is committed where {} was expected", .expected.map_or("nothing".to_owned(), |zxid| zxid.to_string()))]
    CommitOrder { zxid: Zxid, expected: Option<Zxid> },
    #[error("more than {count_max} proposals are open")]
    TooManyOpen { count_max: usize },
    #[error("what the leader sent before UPTODATE takes more than {bytes_max} bytes")]
    TooMuch { bytes_max: usize },
    #[error("the log is to end at {to}, it goes to {zxid_last}")]
    TruncateAhead { to: Zxid, zxid_last: Zxid },
    #[error("the log cannot be made to end at {to}: {reason}")]
    CannotTruncate { to: Zxid, reason: String },
    #[error("a snapshot was asked for, and packet type {kind} came")]
    NoSnapshot { kind: i32 },
    #[error("the leader has been silent for {limit_ms} ms")]
    Silent { limit_ms: u64 },
    #[error("the leader has left {bytes} bytes unread")]
    Unsent { bytes: u64 },
    #[error("the leader sent {count} pings at once")]
    TooManyPings { count: usize },
}
