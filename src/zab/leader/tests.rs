//! Scripted learners against the leader, bytes in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::proto::quorum::{LearnerInfo, QuorumPacket};

mod golden;
mod joins;
mod random;
mod reconfig;
mod reign;

const TICK: Duration = Duration::from_millis(100);
const INIT: u32 = 10;
const SYNC: u32 = 5;

fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn entry(zxid: Zxid) -> Bytes {
    Bytes::from(format!("entry {zxid}"))
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert!(digits.len().is_multiple_of(2), "{text}");
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn packet(kind: i32, zxid: Zxid, data: Option<&[u8]>) -> Vec<u8> {
    QuorumPacket::new(kind, zxid, data).to_vec()
}

/// A packet a learner got.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Got {
    kind: i32,
    zxid: Zxid,
    data: Option<Vec<u8>>,
}

impl Got {
    fn new(kind: i32, zxid: Zxid) -> Got {
        Got { kind, zxid, data: None }
    }

    fn entry(kind: i32, zxid: Zxid) -> Got {
        Got { kind, zxid, data: Some(entry(zxid).to_vec()) }
    }
}

/// A leader, server 1, with its shell: what it sends lies in inboxes until a test looks.
struct World {
    leader: Leader,
    recent: Recent,
    now: Instant,
    inboxes: BTreeMap<PeerConn, Vec<u8>>,
    closed: BTreeSet<PeerConn>,
    /// Connections that take nothing: their bytes are never reported as sent.
    stuck: BTreeSet<PeerConn>,
    /// Everything but bytes and closings.
    said: Vec<Output>,
    /// Epochs are written at once.
    writes_epochs: bool,
    written: Vec<Epochs>,
}

fn options(voters: &[u8]) -> LeaderOptions {
    let voters: ServerSet = voters.iter().copied().map(ServerId).collect();
    LeaderOptions {
        me: ServerId(1),
        tick: TICK,
        init_limit: INIT,
        sync_limit: SYNC,
        verifier: Verifier::Majority { voters },
        voters,
        config_text: Bytes::from_static(b"the configuration\nversion=0"),
        config_version: 0,
        proposed: None,
        raises_version: false,
        packet_bytes_max: 4096,
        learner_queue_bytes_max: 64 << 10,
        snapshot_syncs_max: 2,
        diff_syncs_max: 2,
        epoch_wait_max: None,
    }
}

impl World {
    /// The history is that of the epochs given, with so many entries each.
    fn new(options: LeaderOptions, epochs: Epochs, history: &[(u32, u32)]) -> World {
        let mut recent = Recent::new(1000, 1 << 20);
        for &(epoch, count) in history {
            for counter in 1..=count {
                recent.push(zxid(epoch, counter), entry(zxid(epoch, counter)));
            }
        }
        let now = Instant::from_ms(1_000_000);
        let start = LeaderStart { epochs, zxid_last: recent.last() };
        World {
            leader: Leader::new(options, start, now),
            recent,
            now,
            inboxes: BTreeMap::new(),
            closed: BTreeSet::new(),
            stuck: BTreeSet::new(),
            said: Vec::new(),
            writes_epochs: true,
            written: Vec::new(),
        }
    }

    /// Voters 1, 2, 3 with three entries of epoch 1; epoch 2 is established with server 2 at connection 2.
    fn established() -> World {
        World::established_with(options(&[1, 2, 3]))
    }

    fn established_with(options: LeaderOptions) -> World {
        let mut world = World::new(options, epochs(1, 1), &[(1, 3)]);
        world.join(2, 2, zxid(1, 3));
        assert!(world.leader.is_established());
        world.said.clear();
        world.inboxes.clear();
        world
    }

    fn conn(&self, conn: u32) -> PeerConn {
        PeerConn(conn | PeerConn::ACCEPTED)
    }

    fn event(&mut self, conn: u32, event: PeerEvent<'_>) {
        let conn = self.conn(conn);
        self.leader.event(self.now, conn, event, &self.recent);
        self.turn();
    }

    fn connect(&mut self, conn: u32) {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 30_000));
        self.closed.remove(&self.conn(conn));
        self.inboxes.remove(&self.conn(conn));
        self.event(conn, PeerEvent::Accepted { port: PeerPort::Quorum, from });
    }

    fn send(&mut self, conn: u32, bytes: &[u8]) {
        self.event(conn, PeerEvent::Received(bytes));
    }

    fn say(&mut self, conn: u32, kind: i32, zxid: Zxid, data: Option<&[u8]>) {
        self.send(conn, &packet(kind, zxid, data));
    }

    fn ack(&mut self, conn: u32, zxid: Zxid) {
        self.say(conn, kind::ACK, zxid, None);
    }

    fn turn(&mut self) {
        loop {
            let mut owed = Vec::new();
            self.leader.drain(&mut owed);
            if owed.is_empty() {
                return;
            }
            let mut sent = Vec::new();
            for output in owed {
                match output {
                    Output::Peer(PeerWork::Send { conn, bytes }) => {
                        assert!(!self.closed.contains(&conn), "{conn:?} is sent bytes after its end");
                        sent.push((conn, bytes.len()));
                        self.inboxes.entry(conn).or_default().extend_from_slice(&bytes);
                    }
                    Output::Peer(PeerWork::Close { conn }) => {
                        assert!(self.closed.insert(conn), "{conn:?} is closed twice");
                    }
                    Output::WriteEpochs(epochs) => {
                        self.written.push(epochs);
                        if self.writes_epochs {
                            self.leader.epochs_written(self.now, epochs, &self.recent);
                        }
                    }
                    output => self.said.push(output),
                }
            }
            for (conn, count) in sent {
                if !self.stuck.contains(&conn) {
                    self.leader.event(self.now, conn, PeerEvent::Sent(count), &self.recent);
                }
            }
        }
    }

    /// What the connection got since the last look.
    fn read(&mut self, conn: u32) -> Vec<Got> {
        let bytes = self.inboxes.remove(&self.conn(conn)).unwrap_or_default();
        packets(&bytes)
    }

    fn kinds(&mut self, conn: u32) -> Vec<i32> {
        self.read(conn).into_iter().map(|got| got.kind).collect()
    }

    fn is_closed(&self, conn: u32) -> bool {
        self.closed.contains(&self.conn(conn))
    }

    fn hello(&mut self, conn: u32, sid: i64, accepted: u32, kind: i32) {
        self.connect(conn);
        let info = LearnerInfo { sid, protocol_version: PROTOCOL_VERSION, config_version: 0 };
        self.say(conn, kind, zxid(accepted, 0), Some(&info.encode()));
    }

    fn ack_epoch(&mut self, conn: u32, current: i32, zxid: Zxid) {
        self.say(conn, kind::ACK_EPOCH, zxid, Some(&current.to_be_bytes()));
    }

    /// A follower goes through all of it, at connection and id.
    fn join(&mut self, conn: u32, sid: i64, zxid: Zxid) {
        self.join_as(conn, sid, zxid, kind::FOLLOWER_INFO);
    }

    fn join_as(&mut self, conn: u32, sid: i64, end: Zxid, kind: i32) {
        self.hello(conn, sid, 1, kind);
        self.ack_epoch(conn, 1, end);
        let epoch = self.leader.epoch();
        self.ack(conn, Zxid::new(epoch, 0));
    }

    fn propose(&mut self, count: u32) -> Zxid {
        for _ in 0..count {
            let last = self.leader.zxid_proposed();
            let epoch = self.leader.epoch();
            let next = if last.epoch() == epoch { last.next() } else { Zxid::new(epoch, 1) };
            let entry = entry(next);
            self.recent.push(next, entry.clone());
            self.leader.propose(self.now, next, &entry);
        }
        self.turn();
        self.leader.zxid_proposed()
    }

    fn durable(&mut self, zxid: Zxid) {
        self.leader.durable(self.now, zxid);
        self.turn();
    }

    /// Time passes, every timer on time; the connections given answer every ping.
    fn pass(&mut self, ticks: u32, answering: &[u32]) {
        let end = self.now + TICK * ticks;
        while let Some(timer) = self.leader.next_timer().filter(|&timer| timer <= end) {
            self.now = timer;
            self.leader.on_timer(timer);
            self.turn();
            for &conn in answering {
                self.answer(conn);
            }
        }
        self.now = end;
    }

    /// Answers the pings that lie in the inbox, leaving nothing there.
    fn answer(&mut self, conn: u32) {
        for got in self.read(conn).into_iter().filter(|got| got.kind == kind::PING) {
            self.say(conn, kind::PING, got.zxid, Some(b""));
        }
    }

    fn resigned(&self) -> Option<&str> {
        self.said.iter().find_map(|output| match output {
            Output::Resign { reason } => Some(reason.as_str()),
            _ => None,
        })
    }

    fn snapshot(&mut self, zxid: Zxid, parts: &[&'static [u8]]) {
        self.leader.snapshot_begin(self.now, zxid, &self.recent);
        for part in parts {
            assert!(self.leader.snapshot_room());
            self.leader.snapshot_part(&Bytes::from_static(part));
            self.turn();
        }
        self.leader.snapshot_end(self.now);
        self.turn();
    }
}

fn packets(mut bytes: &[u8]) -> Vec<Got> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (packet, length) = QuorumPacket::decode(bytes, 1 << 20).unwrap().expect("whole packets");
        all.push(Got { kind: packet.kind, zxid: packet.zxid, data: packet.data.map(<[u8]>::to_vec) });
        bytes = &bytes[length..];
    }
    all
}

fn epochs(accepted: u32, current: u32) -> Epochs {
    Epochs { accepted: Epoch(accepted), current: Epoch(current) }
}
