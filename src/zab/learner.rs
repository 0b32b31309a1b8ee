//! The learner: a follower or an observer of one leader, from its first packet to the end of the connection.
//!
//! Three phases. *Discovery*: a new leader's epoch is accepted, durably, before it hears of that (O1). *Synchronization*: whatever
//! the leader sends to level the histories is held in memory, or in the sink of a snapshot, until `NEWLEADER`; a connection that
//! breaks off before has changed nothing (O4). At `NEWLEADER` each of these waits for the one before to be durable (O2): the
//! truncation or the installed snapshot, the entries received, the current epoch, the acknowledgement. What comes from then on is
//! held until `UPTODATE`. *Broadcast*: proposals go to the log, and are acknowledged once durable (S4); commits are passed on.
//!
//! Every entry must follow the one before it ([`follows`](crate::txnlog::follows)) and decode, and every commit must be of the
//! oldest open proposal; else the connection ends. A hole at the end of an epoch cannot be seen in zxids, which is why the first
//! entry after each synchronization is marked to have its digest compared ([`Output::Append`]).
//!
//! | File | What |
//! |------|------|
//! | `inbox` | packets out of pieces of a stream |
//! | `level` | discovery and synchronization, in their order |
//! | `history` | the order of proposals and commits |
//! | `output` | what is wanted, and what can be wrong |
//!
//! Source: ZooKeeper `Learner`, `Follower`, `Observer`; quorum-protocol §4.3, §4.5-§4.7, §9.1, §10.1.

mod history;
mod inbox;
mod level;
mod output;

pub use output::{Fault, LearnerError, Output};

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::jute::{Reader, put_i32, put_i64, put_string};
use crate::proto::quorum::{LearnerInfo, NO_ZXID, PROTOCOL_VERSION, QuorumPacket, RequestHeader, kind};
use crate::proto::txn::{self, Txn, TxnEntry};
use crate::snapshot::{BodyReader, LoadSink};
use crate::types::{Epoch, Instant, ServerId, SessionId, Zxid};
use crate::zab::Epochs;

use history::History;
use inbox::Inbox;

/// Sessions one answer to a ping may name; with 12 bytes each it stays below the leader's `jute.maxbuffer`.
pub const TOUCHES_MAX: usize = 64 << 10;
/// Pings that may wait for their answer.
const PINGS_MAX: usize = 1 << 10;
/// Bytes that may wait to be sent before the leader counts as stuck.
const UNSENT_BYTES_MAX: u64 = 256 << 20;
/// What holding an entry costs besides its bytes.
const HELD_EXTRA_BYTES: usize = 128;
/// What a node may have in a snapshot besides its data and path.
const NODE_EXTRA_BYTES: usize = 1 << 10;
/// A server id in front of the entry, in an `INFORMANDACTIVATE`.
const DESIGNATED_BYTES: usize = 8;

#[derive(Clone, Debug)]
pub struct LearnerOptions {
    pub me: ServerId,
    /// Not a voter: gets what is committed, acknowledges nothing but the epoch.
    pub observer: bool,
    pub tick: Duration,
    /// Ticks for which the leader may be silent until `UPTODATE`. ZooKeeper's key `initLimit`.
    pub init_limit: u32,
    /// Ticks for which it may be silent from then on. ZooKeeper's key `syncLimit`.
    pub sync_limit: u32,
    /// Bytes an entry, or the text of a membership, may have. ZooKeeper's property `jute.maxbuffer`, with its extra.
    pub entry_bytes_max: usize,
    /// Bytes that may be held until `UPTODATE`.
    pub staged_bytes_max: usize,
}

/// What the server has as the connection begins.
#[derive(Clone, Copy, Debug)]
pub struct LearnerStart {
    pub epochs: Epochs,
    /// The end of the log, all of it durable.
    pub zxid_last: Zxid,
    /// Of the membership in force.
    pub config_version: i64,
    /// Ask a leader of this epoch for a snapshot, as [`LearnerError::refetch`] said.
    pub snap_wanted: Option<Epoch>,
    /// There is nothing here, and there may have been: what this server says is not to count towards any quorum until it is
    /// synchronised (S9), and it takes nothing but a whole snapshot.
    pub has_no_standing: bool,
}

/// Where a learner is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Discovery,
    Synchronization,
    Broadcast,
    Failed,
}

/// A follower or observer; see the [module](self). Dropped as its connection ends.
#[derive(Debug)]
pub struct Learner {
    options: LearnerOptions,
    start: LearnerStart,
    state: State,
    epochs: Epochs,
    /// The leader's; zero until it has told.
    epoch: Epoch,
    inbox: Inbox,
    /// From the answer to `ACKEPOCH` on, in force.
    history: History,
    /// Entries before `NEWLEADER`.
    staged: VecDeque<Entry>,
    /// What is not to be done before `UPTODATE`, in order, and an estimate of the bytes of this and `staged`.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The last entry given to the log.
    appended: Zxid,
    /// Never beyond `appended`.
    durable: Zxid,
    /// Appended, and owed an acknowledgement. Ascending; not more than were ever open.
    unacked: VecDeque<Zxid>,
    /// The next entry appended is the first one since the synchronization.
    compare: bool,
    pings: VecDeque<Zxid>,
    heard: Instant,
    has_told_of_strange: bool,
    /// The end of `out`: packets that leave together.
    sending: Vec<u8>,
    unsent_bytes: u64,
    out: Vec<Output>,
}

/// What is waited for.
#[derive(Debug)]
enum State {
    LeaderInfo,
    /// The accepted epoch being durable.
    AcceptedEpoch,
    /// `DIFF`, `TRUNC` or `SNAP`.
    SyncKind,
    /// The rest of a snapshot.
    Snapshot {
        zxid: Zxid,
        body: BodyReader,
    },
    /// The rest of the text behind a snapshot, of which so many bytes have come.
    Signature {
        zxid: Zxid,
        matched: usize,
    },
    /// `NEWLEADER`, and entries before it.
    NewLeader {
        sync: Sync,
    },
    /// The truncation or installation being durable.
    Replaced {
        sync: Sync,
        text: Option<Bytes>,
    },
    /// The staged entries being durable.
    StagedDurable {
        text: Option<Bytes>,
    },
    /// The current epoch being durable.
    CurrentEpoch,
    UpToDate,
    Broadcast,
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sync {
    Diff,
    Trunc {
        to: Zxid,
    },
    /// As of this zxid; once it is to be installed, with the entries that were committed behind it.
    Snap {
        zxid: Zxid,
    },
}

#[derive(Debug)]
struct Entry {
    zxid: Zxid,
    bytes: Bytes,
    /// The membership it proposes.
    text: Option<Bytes>,
}

#[derive(Debug)]
enum Held {
    Append(Entry),
    Commit(Zxid),
    Activate {
        zxid: Zxid,
        designated: i64,
    },
    /// What was said before `NEWLEADER` ends here.
    Serve,
}

impl Learner {
    /// The connection stands; the first packet is queued.
    ///
    /// Panics if the current epoch is beyond the accepted one.
    pub fn new(options: LearnerOptions, start: LearnerStart, now: Instant) -> Learner {
        let LearnerStart { epochs, zxid_last, config_version, .. } = start;
        assert!(epochs.current <= epochs.accepted, "S1: {epochs:?}");
        let mut learner = Learner {
            start,
            state: State::LeaderInfo,
            epochs,
            epoch: Epoch(0),
            inbox: Inbox::default(),
            history: History::after(zxid_last),
            staged: VecDeque::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            appended: zxid_last,
            durable: zxid_last,
            unacked: VecDeque::new(),
            compare: false,
            pings: VecDeque::new(),
            heard: now,
            has_told_of_strange: false,
            sending: Vec::new(),
            unsent_bytes: 0,
            out: Vec::new(),
            options,
        };
        let info = LearnerInfo {
            sid: i64::from(learner.options.me.0),
            protocol_version: PROTOCOL_VERSION,
            config_version,
        };
        let kind = if learner.options.observer { kind::OBSERVER_INFO } else { kind::FOLLOWER_INFO };
        learner.send(&QuorumPacket::new(kind, Zxid::new(epochs.accepted, 0), Some(&info.encode())));
        learner
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::LeaderInfo | State::AcceptedEpoch => Phase::Discovery,
            State::Broadcast => Phase::Broadcast,
            State::Failed => Phase::Failed,
            _ => Phase::Synchronization,
        }
    }

    /// The leader's; `None` until it has told.
    pub fn epoch(&self) -> Option<Epoch> {
        (self.epoch > Epoch(0)).then_some(self.epoch)
    }

    /// [`Output::Serve`] was given.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, State::Broadcast)
    }

    /// Bytes given to be sent that have not left yet.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Takes the next bytes of the leader. What a snapshot holds goes to `sink`, which is [reset](LoadSink::reset) first.
    pub fn received(&mut self, now: Instant, bytes: &[u8], sink: &mut dyn LoadSink) {
        if !bytes.is_empty() {
            self.heard = now;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match &mut self.state {
                State::Failed => return,
                State::Snapshot { zxid, body } => {
                    let zxid = *zxid;
                    match body.take(rest, sink) {
                        Ok(taken) => {
                            if taken.is_done {
                                self.state = State::Signature { zxid, matched: 0 };
                            }
                            Ok(taken.bytes)
                        }
                        Err(error) => Err(Fault::Snapshot(error)),
                    }
                }
                State::Signature { .. } => self.signature(rest),
                _ => self.packets(rest, sink),
            };
            match taken {
                Ok(bytes) => rest = &rest[bytes..],
                Err(fault) => return self.fail(fault),
            }
        }
    }

    /// So many bytes of what was to be sent have left.
    pub fn sent(&mut self, count: usize) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(count as u64);
    }

    /// Answers [`Output::WriteEpochs`].
    pub fn epochs_written(&mut self, now: Instant, epochs: Epochs) {
        match self.state {
            State::AcceptedEpoch => {
                assert!(epochs.accepted == self.epoch, "wrote {epochs:?}, not {:?}", self.epoch);
                self.epochs = epochs;
                self.ack_epoch(self.claim(), Some(epochs.current));
            }
            State::CurrentEpoch => {
                assert!(epochs.current == self.epoch, "wrote {epochs:?}, not {:?}", self.epoch);
                self.epochs = epochs;
                self.ack_new_leader();
            }
            State::Failed => return,
            _ => panic!("no epochs were to be written, and {epochs:?} were"),
        }
        self.heard = now;
    }

    /// Answers [`Output::Install`].
    pub fn installed(&mut self, now: Instant, zxid: Zxid) {
        match &mut self.state {
            State::Replaced { sync: Sync::Snap { zxid: expected }, text } => {
                assert!(zxid == *expected, "installed {zxid}, not {expected}");
                let text = text.take();
                (self.appended, self.durable, self.heard) = (zxid, zxid, now);
                self.append_staged(text);
            }
            State::Failed => {}
            state => panic!("installed {zxid} while waiting for {state:?}"),
        }
    }

    /// Answers [`Output::Truncate`]: the last entry is `zxid` now. That is where it was to end, or before where that is no
    /// entry but the begin of an epoch.
    pub fn truncated(&mut self, now: Instant, zxid: Zxid) {
        match &mut self.state {
            State::Replaced { sync: Sync::Trunc { to }, text } => {
                let to = *to;
                let text = text.take();
                if zxid == to || (zxid < to && to.counter() == 0) {
                    (self.appended, self.durable, self.heard) = (zxid, zxid, now);
                    self.append_staged(text);
                } else {
                    self.fail(Fault::CannotTruncate { to, reason: format!("it ends at {zxid}") });
                }
            }
            State::Failed => {}
            state => panic!("truncated to {zxid} while waiting for {state:?}"),
        }
    }

    /// Answers [`Output::Truncate`] where that zxid is none of the log's, or the tree cannot be brought back there.
    pub fn cannot_truncate(&mut self, reason: String) {
        match self.state {
            State::Replaced { sync: Sync::Trunc { to }, .. } => {
                self.fail(Fault::CannotTruncate { to, reason })
            }
            State::Failed => {}
            ref state => panic!("cannot truncate ({reason}) while waiting for {state:?}"),
        }
    }

    /// The log is durable up to `zxid`, which is never beyond what was given to it.
    pub fn durable(&mut self, now: Instant, zxid: Zxid) {
        if matches!(self.state, State::Replaced { .. } | State::Failed) {
            return;
        }
        assert!(zxid <= self.appended, "durable up to {zxid}, appended up to {}", self.appended);
        self.durable = self.durable.max(zxid);
        match &mut self.state {
            State::StagedDurable { text } if self.durable == self.appended => {
                let text = text.take();
                self.heard = now;
                self.write_current_epoch(text);
            }
            State::Broadcast => self.ack_durable(),
            _ => {}
        }
    }

    /// Answers the oldest [`Output::Ping`], and gives how many of `touches` (session and timeout, ms) went with it: at most
    /// [`TOUCHES_MAX`]. The rest is for the next ping.
    pub fn pong(&mut self, touches: &[(SessionId, i32)]) -> usize {
        let Some(zxid) = self.pings.pop_front() else { return 0 };
        let count = touches.len().min(TOUCHES_MAX);
        let mut data = Vec::with_capacity(12 * count);
        for &(session, timeout_ms) in &touches[..count] {
            put_i64(&mut data, session.0);
            put_i32(&mut data, timeout_ms);
        }
        // Empty, never null: Java's leader reads it unseen.
        self.send(&QuorumPacket::new(kind::PING, zxid, Some(&data)));
        count
    }

    /// Passes a client's request on to the leader; `auth` are scheme and id of all it has.
    ///
    /// Panics unless [serving](Learner::is_serving) or failed.
    pub fn request(&mut self, header: RequestHeader, body: &[u8], auth: Option<&[(String, String)]>) {
        if matches!(self.state, State::Failed) {
            return;
        }
        assert!(self.is_serving(), "a request before UPTODATE");
        let out = &mut self.sending;
        let length_before = out.len();
        put_i32(out, kind::REQUEST);
        put_i64(out, NO_ZXID.0);
        let data_bytes = RequestHeader::BYTES + body.len();
        put_i32(out, i32::try_from(data_bytes).expect("a client's frame is much shorter than 2 GiB"));
        header.encode(out);
        out.extend_from_slice(body);
        match auth {
            None => put_i32(out, -1),
            Some(ids) => {
                put_i32(out, i32::try_from(ids.len()).expect("ids are few"));
                for (scheme, id) in ids {
                    put_string(out, scheme);
                    put_string(out, id);
                }
            }
        }
        self.unsent_bytes += (out.len() - length_before) as u64;
    }

    /// Asks the leader whether a session that came here from elsewhere lives. Answered by [`Output::Revalidated`].
    ///
    /// Panics unless [serving](Learner::is_serving) or failed.
    pub fn revalidate(&mut self, session: SessionId, timeout_ms: i32) {
        if matches!(self.state, State::Failed) {
            return;
        }
        assert!(self.is_serving(), "a session to validate before UPTODATE");
        let mut data = Vec::with_capacity(12);
        put_i64(&mut data, session.0);
        put_i32(&mut data, timeout_ms);
        self.send(&QuorumPacket::new(kind::REVALIDATE, NO_ZXID, Some(&data)));
    }

    pub fn on_timer(&mut self, now: Instant) {
        if self.next_timer().is_some_and(|deadline| deadline <= now) {
            let limit_ms = u64::try_from(self.silence_max().as_millis()).unwrap_or(u64::MAX);
            self.fail(Fault::Silent { limit_ms });
        }
    }

    /// When the leader has been silent for too long. While this server writes, nobody counts: Java's leader has nothing to say then.
    pub fn next_timer(&self) -> Option<Instant> {
        match self.state {
            State::AcceptedEpoch
            | State::Replaced { .. }
            | State::StagedDurable { .. }
            | State::CurrentEpoch
            | State::Failed => None,
            _ => Some(self.heard + self.silence_max()),
        }
    }

    /// Java goes over to `syncLimit` at `NEWLEADER` already. But a leader waits for a quorum there, which may be
    /// taking snapshots, and sends no pings meanwhile.
    fn silence_max(&self) -> Duration {
        let ticks = if self.is_serving() { self.options.sync_limit } else { self.options.init_limit };
        self.options.tick * ticks
    }

    /// Hands over everything wanted since the last call, in the order it must happen.
    pub fn drain(&mut self, out: &mut Vec<Output>) {
        self.flush();
        if self.unsent_bytes > UNSENT_BYTES_MAX {
            self.fail(Fault::Unsent { bytes: self.unsent_bytes });
        }
        out.append(&mut self.out);
    }

    /// Takes one packet off the front of `bytes`, or keeps them all for later.
    fn packets(&mut self, bytes: &[u8], sink: &mut dyn LoadSink) -> Result<usize, Fault> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let taken = match inbox.take(bytes, self.options.entry_bytes_max.saturating_add(DESIGNATED_BYTES)) {
            Ok(Some((packet, taken))) => {
                let done = self.packet(&packet, sink);
                inbox.clear();
                done.map(|()| taken)
            }
            Ok(None) => Ok(bytes.len()),
            Err(error) => Err(Fault::Packet(error)),
        };
        self.inbox = inbox;
        taken
    }

    fn packet(&mut self, packet: &QuorumPacket<'_>, sink: &mut dyn LoadSink) -> Result<(), Fault> {
        match &self.state {
            State::LeaderInfo => self.leader_info(packet),
            State::AcceptedEpoch => Err(unexpected(packet, "nothing before ACKEPOCH")),
            State::SyncKind => self.sync_kind(packet, sink),
            State::NewLeader { sync } => match packet.kind {
                kind::NEW_LEADER => {
                    let sync = *sync;
                    self.new_leader(packet, sync)
                }
                kind::PING => Ok(()),
                _ if self.replicate(packet)? => Ok(()),
                _ => Err(unexpected(packet, "an entry, a commit or NEWLEADER")),
            },
            State::Replaced { .. } | State::StagedDurable { .. } | State::CurrentEpoch => match packet.kind {
                kind::PING => Ok(()),
                _ if self.replicate(packet)? => Ok(()),
                _ => Err(unexpected(packet, "an entry or a commit")),
            },
            State::UpToDate => match packet.kind {
                kind::UP_TO_DATE => {
                    self.up_to_date();
                    Ok(())
                }
                // Java's learner gives no answer either.
                kind::PING => Ok(()),
                _ if self.replicate(packet)? => Ok(()),
                _ => Err(unexpected(packet, "an entry, a commit or UPTODATE")),
            },
            State::Broadcast => self.broadcast(packet),
            State::Snapshot { .. } | State::Signature { .. } | State::Failed => {
                unreachable!("no packets are read there")
            }
        }
    }

    /// Takes entries and commits, in every phase; `false` for other packets.
    fn replicate(&mut self, packet: &QuorumPacket<'_>) -> Result<bool, Fault> {
        let data = packet.data.unwrap_or_default();
        match packet.kind {
            kind::PROPOSAL => self.proposal(packet, data)?,
            kind::COMMIT => self.commit(packet.zxid, None)?,
            kind::INFORM => {
                self.proposal(packet, data)?;
                self.commit(packet.zxid, None)?;
            }
            kind::COMMIT_AND_ACTIVATE => {
                let designated = Reader::new(data).i64().map_err(|error| malformed(packet, error))?;
                self.commit(packet.zxid, Some(designated))?;
            }
            kind::INFORM_AND_ACTIVATE => {
                let mut reader = Reader::new(data);
                let designated = reader.i64().map_err(|error| malformed(packet, error))?;
                self.proposal(packet, reader.rest())?;
                self.commit(packet.zxid, Some(designated))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn proposal(&mut self, packet: &QuorumPacket<'_>, data: &[u8]) -> Result<(), Fault> {
        let zxid = packet.zxid;
        let is_before_new_leader = matches!(self.state, State::NewLeader { .. });
        // A snapshot's zxid may be higher than where the leader begins to send, and what is here is here.
        if zxid <= self.history.base() && is_before_new_leader {
            return Ok(());
        }
        if zxid.epoch() > self.epoch || (zxid.epoch() < self.epoch && !is_before_new_leader) {
            return Err(malformed(packet, format!("the leader's epoch is {}", self.epoch.0)));
        }
        // Not logged unless it can be read back (O13).
        let entry = TxnEntry::decode(data).map_err(|error| malformed(packet, error))?;
        if entry.header.zxid != zxid {
            return Err(malformed(packet, format!("the entry is {}", entry.header.zxid)));
        }
        let bytes = Bytes::copy_from_slice(data);
        let text = match &entry.txn {
            Txn::SetData { data: Some(text), .. } if entry.header.kind == txn::kind::RECONFIG => {
                Some(Bytes::copy_from_slice(text))
            }
            _ => None,
        };
        self.history.propose(zxid)?;
        let entry = Entry { zxid, bytes, text };
        match self.state {
            State::Broadcast => self.append(entry),
            _ => {
                self.held_bytes += HELD_EXTRA_BYTES + entry.bytes.len();
                if self.held_bytes > self.options.staged_bytes_max {
                    return Err(Fault::TooMuch { bytes_max: self.options.staged_bytes_max });
                }
                if is_before_new_leader {
                    self.staged.push_back(entry);
                } else {
                    self.held.push_back(Held::Append(entry));
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, zxid: Zxid, designated: Option<i64>) -> Result<(), Fault> {
        if !self.history.commit(zxid)? {
            return Ok(());
        }
        if self.is_serving() {
            self.push_commit(zxid);
            if let Some(designated) = designated {
                self.push(Output::Activate { zxid, designated });
            }
            return Ok(());
        }
        match self.held.back_mut() {
            Some(Held::Commit(last)) => *last = zxid,
            _ => self.held.push_back(Held::Commit(zxid)),
        }
        if let Some(designated) = designated {
            self.held.push_back(Held::Activate { zxid, designated });
        }
        Ok(())
    }

    fn append(&mut self, entry: Entry) {
        let Entry { zxid, bytes, text } = entry;
        assert!(self.appended < zxid, "{zxid} behind {}", self.appended);
        self.appended = zxid;
        // What was committed on the way here is covered by the acknowledgement of NEWLEADER.
        let is_open = matches!(self.state, State::Broadcast) || zxid > self.history.committed();
        if is_open && !self.options.observer {
            self.unacked.push_back(zxid);
        }
        if let Some(text) = text {
            self.push(Output::Membership { text, proposed: Some(zxid) });
        }
        let compare = std::mem::take(&mut self.compare);
        self.push(Output::Append { zxid, entry: bytes, compare });
    }

    fn up_to_date(&mut self) {
        self.state = State::Broadcast;
        self.ack(Zxid::new(self.epoch, 0));
        // A leader finds what is here in its own history, and gives UPTODATE only once all of that is committed.
        if self.history.base() > Zxid::ZERO {
            self.push_commit(self.history.base());
        }
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Append(entry) => self.append(entry),
                Held::Commit(zxid) => self.push_commit(zxid),
                Held::Activate { zxid, designated } => self.push(Output::Activate { zxid, designated }),
                Held::Serve => self.push(Output::Serve { epoch: self.epoch }),
            }
        }
        self.held_bytes = 0;
        self.ack_durable();
    }

    fn broadcast(&mut self, packet: &QuorumPacket<'_>) -> Result<(), Fault> {
        match packet.kind {
            kind::PROPOSAL | kind::COMMIT | kind::COMMIT_AND_ACTIVATE if !self.options.observer => {
                self.replicate(packet)?;
            }
            kind::INFORM | kind::INFORM_AND_ACTIVATE if self.options.observer => {
                self.replicate(packet)?;
            }
            kind::PING => {
                if self.pings.len() == PINGS_MAX {
                    return Err(Fault::TooManyPings { count: PINGS_MAX });
                }
                self.pings.push_back(packet.zxid);
                self.push(Output::Ping);
            }
            kind::REVALIDATE => {
                let mut reader = Reader::new(packet.data.unwrap_or_default());
                let session = reader.i64().map_err(|error| malformed(packet, error))?;
                let valid = reader.bool().map_err(|error| malformed(packet, error))?;
                self.push(Output::Revalidated { session: SessionId(session), valid });
            }
            kind::SYNC => self.push(Output::Synced),
            kind::REQUEST
            | kind::ACK
            | kind::NEW_LEADER
            | kind::FOLLOWER_INFO
            | kind::UP_TO_DATE
            | kind::DIFF
            | kind::TRUNC
            | kind::SNAP
            | kind::OBSERVER_INFO
            | kind::LEADER_INFO
            | kind::ACK_EPOCH => return Err(unexpected(packet, "a packet of the broadcast phase")),
            // As Java does; a proposal missed by that is noticed at the next one.
            strange => {
                if !self.has_told_of_strange {
                    self.has_told_of_strange = true;
                    tracing::warn!(zxid = %packet.zxid, "ignoring packets of type {strange} from the leader");
                }
            }
        }
        Ok(())
    }

    /// Acknowledges what has become durable; one packet each, since leaders count them.
    fn ack_durable(&mut self) {
        while let Some(&zxid) = self.unacked.front()
            && zxid <= self.durable
        {
            self.unacked.pop_front();
            self.ack(zxid);
        }
    }

    fn ack(&mut self, zxid: Zxid) {
        self.send(&QuorumPacket::new(kind::ACK, zxid, None));
    }

    fn send(&mut self, packet: &QuorumPacket<'_>) {
        let length_before = self.sending.len();
        packet.encode(&mut self.sending);
        self.unsent_bytes += (self.sending.len() - length_before) as u64;
    }

    fn push_commit(&mut self, zxid: Zxid) {
        if self.sending.is_empty()
            && let Some(Output::Commit(last)) = self.out.last_mut()
        {
            *last = zxid;
            return;
        }
        self.push(Output::Commit(zxid));
    }

    fn push(&mut self, output: Output) {
        self.flush();
        self.out.push(output);
    }

    fn flush(&mut self) {
        if !self.sending.is_empty() {
            self.out.push(Output::Send(Bytes::from(std::mem::take(&mut self.sending))));
        }
    }

    /// Ends it. Nothing is wanted any more, and nothing that is reported later matters.
    fn fail(&mut self, fault: Fault) {
        if matches!(self.state, State::Failed) {
            return;
        }
        // Only what a leader sent to level the histories gives way to a snapshot; live traffic begins anew by itself.
        let is_difference = match fault {
            Fault::CannotTruncate { .. } | Fault::TruncateAhead { .. } => true,
            Fault::Gap { .. } | Fault::TooMuch { .. } => matches!(self.state, State::NewLeader { .. }),
            _ => false,
        };
        let refetch = is_difference.then_some(self.epoch);
        self.state = State::Failed;
        self.staged.clear();
        self.held.clear();
        self.push(Output::Failed(LearnerError { fault, refetch }));
    }
}

fn unexpected(packet: &QuorumPacket<'_>, expected: &'static str) -> Fault {
    Fault::Unexpected { kind: packet.kind, zxid: packet.zxid, expected }
}

fn malformed(packet: &QuorumPacket<'_>, reason: impl ToString) -> Fault {
    Fault::Malformed { kind: packet.kind, zxid: packet.zxid, reason: reason.to_string() }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
