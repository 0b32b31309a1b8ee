//! A leader that follows a script, and an owner whose disk answers when told.

use std::collections::VecDeque;

use super::*;
use crate::jute::{put_buffer, put_string};
use crate::proto::quorum::SNAPSHOT_SIGNATURE;
use crate::proto::txn::{TxnDigest, TxnHeader};
use crate::proto::{Acl, StatPersisted};
use crate::snapshot::ACL_OPEN;

pub(super) const TICK_MS: u64 = 2000;
pub(super) const STAGED_BYTES_MAX: usize = 16 << 10;
pub(super) const ENTRY_BYTES_MAX: usize = 4 << 10;

pub(super) fn options(observer: bool) -> LearnerOptions {
    LearnerOptions {
        me: ServerId(1),
        observer,
        tick: Duration::from_millis(TICK_MS),
        init_limit: 10,
        sync_limit: 5,
        entry_bytes_max: ENTRY_BYTES_MAX,
        staged_bytes_max: STAGED_BYTES_MAX,
    }
}

pub(super) fn start(accepted: u32, current: u32, zxid_last: i64) -> LearnerStart {
    LearnerStart {
        epochs: Epochs { accepted: Epoch(accepted), current: Epoch(current) },
        zxid_last: Zxid(zxid_last),
        config_version: 0,
        snap_wanted: None,
        has_no_standing: false,
    }
}

/// Bytes written as in the reference: hexadecimal, blanks anywhere.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub(super) fn packet(kind: i32, zxid: i64, data: Option<&[u8]>) -> Vec<u8> {
    QuorumPacket::new(kind, Zxid(zxid), data).to_vec()
}

pub(super) fn leader_info(epoch: u32) -> Vec<u8> {
    packet(kind::LEADER_INFO, i64::from(epoch) << 32, Some(&PROTOCOL_VERSION.to_be_bytes()))
}

pub(super) const CONFIG: &str = "server.1=127.0.0.1:32801:32811:participant\nversion=0";

pub(super) fn new_leader(epoch: u32) -> Vec<u8> {
    packet(kind::NEW_LEADER, i64::from(epoch) << 32, Some(CONFIG.as_bytes()))
}

pub(super) fn up_to_date() -> Vec<u8> {
    packet(kind::UP_TO_DATE, -1, None)
}

/// An entry as in log and packets: `setData("/a")`.
pub(super) fn entry(zxid: i64) -> Vec<u8> {
    set_data(zxid, "/a", b"data", txn::kind::SET_DATA)
}

pub(super) fn set_data(zxid: i64, path: &str, data: &[u8], kind: i32) -> Vec<u8> {
    let mut out = Vec::new();
    let header = TxnHeader { session: SessionId(7), cxid: 3, zxid: Zxid(zxid), time_ms: 1_000, kind };
    header.encode(&mut out);
    put_string(&mut out, path);
    put_buffer(&mut out, Some(data));
    put_i32(&mut out, -1);
    TxnDigest { version: 2, tree_digest: 5 }.encode(&mut out);
    out
}

pub(super) fn proposal(zxid: i64) -> Vec<u8> {
    packet(kind::PROPOSAL, zxid, Some(&entry(zxid)))
}

pub(super) fn commit(zxid: i64) -> Vec<u8> {
    packet(kind::COMMIT, zxid, None)
}

pub(super) fn inform(zxid: i64) -> Vec<u8> {
    packet(kind::INFORM, zxid, Some(&entry(zxid)))
}

/// A snapshot of two sessions and three nodes with its signature, as it stands behind a `SNAP` packet.
pub(super) fn snapshot() -> Vec<u8> {
    let mut out = Vec::new();
    put_i32(&mut out, 2);
    for session in [0x0100_000e_fe82_0000i64, -4] {
        put_i64(&mut out, session);
        put_i32(&mut out, 6_000);
    }
    put_i32(&mut out, 1);
    put_i64(&mut out, 1);
    out.extend_from_slice(crate::proto::acl::READ_UNSAFE);
    for (path, acl) in [("", ACL_OPEN), ("/zookeeper", ACL_OPEN), ("/zookeeper/config", 1)] {
        put_string(&mut out, path);
        put_buffer(&mut out, Some(b"x"));
        put_i64(&mut out, acl);
        StatPersisted::default().encode(&mut out);
    }
    put_string(&mut out, "/");
    put_string(&mut out, SNAPSHOT_SIGNATURE);
    out
}

/// A line for everything taken.
#[derive(Default, Debug, Clone, PartialEq)]
pub(super) struct Sink {
    pub(super) lines: Vec<String>,
    pub(super) resets: usize,
}

impl LoadSink for Sink {
    fn reset(&mut self) {
        self.resets += 1;
        self.lines.clear();
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.lines.push(format!("session {session} {timeout_ms}"));
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        self.lines.push(format!("acl {id} {}", acl.map_or(0, |acl| acl.bytes().len())));
        Ok(())
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        _stat: &StatPersisted,
    ) -> Result<(), String> {
        self.lines.push(format!("node {path:?} {data:?} {acl}"));
        Ok(())
    }
}

/// A learner with its owner: what it wants is noted, and its disk work waits until [`Owner::finish`].
pub(super) struct Owner {
    pub(super) learner: Learner,
    pub(super) sink: Sink,
    pub(super) now: Instant,
    /// Everything but what was sent, in order, adjacent commits as one.
    pub(super) wanted: Vec<Output>,
    /// What was sent.
    pub(super) sent: Vec<u8>,
    /// Disk work that was asked for.
    pub(super) open: VecDeque<Output>,
    /// Touches for the next pong.
    pub(super) touches: Vec<(SessionId, i32)>,
}

impl Owner {
    pub(super) fn new(observer: bool, start: LearnerStart) -> Owner {
        let now = Instant::from_ms(1_000);
        let mut owner = Owner {
            learner: Learner::new(options(observer), start, now),
            sink: Sink::default(),
            now,
            wanted: Vec::new(),
            sent: Vec::new(),
            open: VecDeque::new(),
            touches: Vec::new(),
        };
        owner.drain();
        owner
    }

    /// The leader says this, and the disk is not done with anything meanwhile.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.learner.received(self.now, bytes, &mut self.sink);
        self.drain();
    }

    /// The leader says this, in whatever pieces, and the disk does everything at once.
    pub(super) fn hear_all(&mut self, bytes: &[u8]) {
        self.hear(bytes);
        self.finish_all();
    }

    pub(super) fn drain(&mut self) {
        let mut out = Vec::new();
        self.learner.drain(&mut out);
        for output in out {
            match &output {
                Output::Send(bytes) => {
                    self.sent.extend_from_slice(bytes);
                    continue;
                }
                Output::WriteEpochs(_)
                | Output::Truncate(_)
                | Output::Install { .. }
                | Output::Append { .. } => self.open.push_back(output.clone()),
                Output::Ping => {
                    let touches = std::mem::take(&mut self.touches);
                    self.learner.pong(&touches);
                }
                _ => {}
            }
            match (self.wanted.last_mut(), &output) {
                (Some(Output::Commit(last)), Output::Commit(zxid)) => *last = *zxid,
                _ => self.wanted.push(output),
            }
        }
        let mut answers = Vec::new();
        self.learner.drain(&mut answers);
        for answer in answers {
            let Output::Send(bytes) = answer else { panic!("{answer:?} for a pong") };
            self.sent.extend_from_slice(&bytes);
        }
    }

    /// The disk is done with the oldest thing asked for; what it was.
    pub(super) fn finish(&mut self) -> Option<Output> {
        let work = self.open.pop_front()?;
        match &work {
            Output::WriteEpochs(epochs) => self.learner.epochs_written(self.now, *epochs),
            Output::Truncate(zxid) => self.learner.truncated(self.now, *zxid),
            Output::Install { zxid, .. } => self.learner.installed(self.now, *zxid),
            Output::Append { zxid, .. } => self.learner.durable(self.now, *zxid),
            other => panic!("{other:?} is no work"),
        }
        self.drain();
        Some(work)
    }

    pub(super) fn finish_all(&mut self) {
        while self.finish().is_some() {}
    }

    pub(super) fn take_wanted(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.wanted)
    }

    pub(super) fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent)
    }

    /// The failure, which is the last thing it said.
    pub(super) fn failure(&self) -> &LearnerError {
        match self.wanted.last() {
            Some(Output::Failed(error)) => error,
            other => panic!("{other:?} where a failure was expected"),
        }
    }

    /// A follower of epoch 1 with nothing of its own, in broadcast.
    pub(super) fn serving(observer: bool) -> Owner {
        let mut owner = Owner::new(observer, start(0, 0, 0));
        owner.hear_all(&leader_info(1));
        owner.hear_all(&[packet(kind::DIFF, 0, None), new_leader(1)].concat());
        owner.hear_all(&up_to_date());
        assert!(owner.learner.is_serving());
        owner.take_wanted();
        owner.take_sent();
        owner
    }
}

pub(super) fn append(zxid: i64, compare: bool) -> Output {
    Output::Append { zxid: Zxid(zxid), entry: entry(zxid).into(), compare }
}

pub(super) fn epochs(accepted: u32, current: u32) -> Output {
    Output::WriteEpochs(Epochs { accepted: Epoch(accepted), current: Epoch(current) })
}

pub(super) fn config() -> Output {
    Output::Membership { text: Bytes::from_static(CONFIG.as_bytes()), proposed: None }
}
