//! Closed loop: sessions that each keep a number of requests outstanding.
//!
//! Reads spread over all nodes; a session writes to the node that is its own, so that every version it gets back must be one
//! more than the last. Data of a node is always the same, so that every read can be compared. At the end each node's version
//! must say how many writes were acknowledged, and the parent of created nodes how many there are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringkeeper::client::{Client, Request, Response};
use ringkeeper::jute::Reader;
use ringkeeper::proto::Stat;
use ringkeeper::proto::client::{ConnectResponse, CreateMode, OpCode};
use ringkeeper::types::Zxid;
use serde_json::{Value, json};

use super::{Meter, Metered, PATIENCE, Scenario, close_session, ensure, pipelined};
use crate::fail;
use crate::failure::{Context, Result};
use crate::net::{Answer, Driver, Net, Peer};
use crate::report::Outcome;
use crate::server::{SESSION_TIMEOUT_MS, Server};

/// Latencies beyond this are counted as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Get,
    Set,
    Create,
    /// Reads in percent, the rest sets.
    Mixed {
        read_percent: u8,
    },
}

/// How much, of what, how long.
#[derive(Clone, Debug)]
pub struct Load {
    pub operation: Operation,
    pub sessions: usize,
    /// Requests each session keeps unanswered.
    pub outstanding: usize,
    pub value_bytes: usize,
    /// Nodes that are read, at least as many as sessions.
    pub nodes: usize,
    pub warm_up: Duration,
    /// Before the first interval on a server.
    pub first_warm_up: Duration,
    pub duration: Duration,
}

impl Scenario for Load {
    fn name(&self) -> String {
        let operation = match self.operation {
            Operation::Get => "getData".to_owned(),
            Operation::Set => "setData".to_owned(),
            Operation::Create => "create".to_owned(),
            Operation::Mixed { read_percent } => format!("{read_percent} % getData, rest setData"),
        };
        format!(
            "{operation}, {} B, {} sessions x {} outstanding",
            self.value_bytes, self.sessions, self.outstanding
        )
    }

    fn parameters(&self) -> Value {
        json!({
            "operation": format!("{:?}", self.operation),
            "sessions": self.sessions,
            "outstanding": self.outstanding,
            "value_bytes": self.value_bytes,
            "nodes": self.nodes,
            "warm_up_seconds": self.warm_up.as_secs_f64(),
            "first_warm_up_seconds": self.first_warm_up.as_secs_f64(),
            "duration_seconds": self.duration.as_secs_f64(),
        })
    }

    fn wants_fresh_server(&self) -> bool {
        false
    }

    fn connections(&self) -> usize {
        self.sessions
    }

    fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    fn run(&mut self, server: &mut Server, first: bool) -> Result<Outcome> {
        let mut table = Table::new(self);
        let mut client = Client::open(server.addr).context("cannot set up")?;
        let versions = table.set_up(&mut client, server.is_echo()).context("cannot set up")?;

        let mut traffic = Traffic::new(self, &table, &versions, !server.is_echo());
        let mut net = Net::new(server.addr)?;
        for _ in 0..self.sessions {
            net.connect(SESSION_TIMEOUT_MS)?;
        }
        let sessions = self.sessions;
        net.run(&mut traffic, PATIENCE, "opening sessions", |net, _| net.open() == sessions)?;
        for index in 0..sessions {
            net.write(index, |peer| {
                (0..self.outstanding).for_each(|_| traffic.issue(peer));
                Ok(())
            })?;
        }
        turn_for(&mut net, &mut traffic, if first { self.first_warm_up } else { self.warm_up })?;
        traffic.phase = Phase::Measure;
        let meter = Meter::start(server)?;
        turn_for(&mut net, &mut traffic, self.duration)?;
        let metered = meter.stop(server)?;
        traffic.phase = Phase::Drain;
        net.run(&mut traffic, PATIENCE, "waiting for the last answers", |_, traffic| traffic.is_drained())?;
        traffic.phase = Phase::Close;
        for index in 0..sessions {
            net.write(index, |peer| {
                close_session(0, peer.out);
                Ok(())
            })?;
        }
        net.run(&mut traffic, PATIENCE, "closing sessions", |net, _| net.open() == 0)?;

        if !server.is_echo() {
            traffic.check_end(&mut client)?;
        }
        let outcome = traffic.outcome(&metered);
        // Not the close: the echo server's answer to it is checked with the sessions above.
        drop(client);
        Ok(outcome)
    }
}

/// Turns for so long.
fn turn_for(net: &mut Net, driver: &mut impl Driver, duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        net.turn(left, driver)?;
    }
}

/// Everything a request or an expected answer is copied from, made once.
struct Table {
    nodes: usize,
    value_bytes: usize,
    /// getData frames, all of one size.
    gets: Vec<u8>,
    get_bytes: usize,
    /// setData frames, likewise.
    sets: Vec<u8>,
    set_bytes: usize,
    /// The data of each node.
    values: Vec<u8>,
    /// Where nodes are created: a new parent for each run.
    parent: String,
}

impl Table {
    fn new(load: &Load) -> Table {
        let nodes = load.nodes.max(load.sessions);
        let mut table = Table {
            nodes,
            value_bytes: load.value_bytes,
            gets: Vec::new(),
            get_bytes: 0,
            sets: Vec::new(),
            set_bytes: 0,
            values: Vec::new(),
            parent: String::new(),
        };
        for node in 0..nodes {
            let value = value(node, load.value_bytes);
            let path = path(node);
            Request::GetData { path: &path, watch: false }.encode_frame(0, &mut table.gets);
            Request::SetData { path: &path, data: Some(&value), version: None }
                .encode_frame(0, &mut table.sets);
            table.values.extend_from_slice(&value);
        }
        table.get_bytes = table.gets.len() / nodes;
        table.set_bytes = table.sets.len() / nodes;
        table
    }

    fn get(&self, node: usize) -> &[u8] {
        &self.gets[node * self.get_bytes..(node + 1) * self.get_bytes]
    }

    fn set(&self, node: usize) -> &[u8] {
        &self.sets[node * self.set_bytes..(node + 1) * self.set_bytes]
    }

    fn value(&self, node: usize) -> &[u8] {
        &self.values[node * self.value_bytes..(node + 1) * self.value_bytes]
    }

    /// Makes the nodes, or gives those there are their data. Returns the version of each.
    fn set_up(&mut self, client: &mut Client, echo: bool) -> Result<Vec<i32>> {
        for path in ["/bench", "/bench/kvs"] {
            ensure(client, path)?;
        }
        self.parent = client.create("/bench/new-", b"", CreateMode::PersistentSequential)?;
        let nodes = self.nodes;
        pipelined(
            client,
            nodes,
            |client, node| {
                client.queue(&Request::create(&path(node), self.value(node), CreateMode::Persistent));
            },
            |node, err, _| match err {
                0 | -110 => Ok(()),
                err => fail!("create {} failed with {err}", path(node)),
            },
        )?;
        let mut versions = vec![0; nodes];
        pipelined(
            client,
            nodes,
            |client, node| {
                client.queue(&Request::SetData {
                    path: &path(node),
                    data: Some(self.value(node)),
                    version: None,
                });
            },
            |node, err, response| match response {
                Response::Stat(stat) if err == 0 && (echo || stat.data_bytes == self.value_bytes as i32) => {
                    versions[node] = stat.version;
                    Ok(())
                }
                response => fail!("setData {} answered {err} {response:?}", path(node)),
            },
        )?;
        Ok(versions)
    }
}

/// 23 bytes, so that a getData is a frame of 40.
fn path(node: usize) -> String {
    format!("/bench/kvs/{node:012}")
}

/// Different for each node, and for each offset.
fn value(node: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|offset| ((node * 31) ^ (offset * 7)) as u8).collect()
}

/// 25 bytes.
fn child(session: usize, number: u32) -> String {
    format!("s{session:06}-{number:017}")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    WarmUp,
    Measure,
    /// No new requests.
    Drain,
    Close,
}

/// The sessions at work.
struct Traffic<'a> {
    load: &'a Load,
    table: &'a Table,
    sessions: Vec<Session>,
    phase: Phase,
    /// Answers in a measured interval.
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    random: u64,
    /// Versions and data mean something.
    checks: bool,
}

struct Session {
    xid: i32,
    unanswered: VecDeque<Sent>,
    /// Of the node this session writes to.
    version: i32,
    zxid: i64,
    created: u32,
}

#[derive(Clone, Copy)]
struct Sent {
    at_ns: u64,
    op: OpCode,
    node: u32,
}

impl<'a> Traffic<'a> {
    fn new(load: &'a Load, table: &'a Table, versions: &[i32], checks: bool) -> Traffic<'a> {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds and digits are in range");
        let session = |version: &i32| Session {
            xid: 0,
            unanswered: VecDeque::with_capacity(load.outstanding),
            version: *version,
            zxid: 0,
            created: 0,
        };
        Traffic {
            load,
            table,
            sessions: versions[..load.sessions].iter().map(session).collect(),
            phase: Phase::WarmUp,
            reads: histogram(),
            writes: histogram(),
            random: 0x9e37_79b9_7f4a_7c15,
            checks,
        }
    }

    /// Sends the session's next request.
    fn issue(&mut self, peer: &mut Peer<'_>) {
        // xorshift64: cheap, and good enough to spread reads.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let op = match self.load.operation {
            Operation::Get => OpCode::GetData,
            Operation::Set => OpCode::SetData,
            Operation::Create => OpCode::Create,
            Operation::Mixed { read_percent } if self.random % 100 < u64::from(read_percent) => {
                OpCode::GetData
            }
            Operation::Mixed { .. } => OpCode::SetData,
        };
        let session = &mut self.sessions[peer.index];
        session.xid = if session.xid == i32::MAX { 1 } else { session.xid + 1 };
        let at = peer.out.len();
        let node = match op {
            OpCode::GetData => {
                let node = (self.random >> 32) as usize % self.table.nodes;
                peer.out.extend_from_slice(self.table.get(node));
                node as u32
            }
            OpCode::SetData => {
                peer.out.extend_from_slice(self.table.set(peer.index));
                peer.index as u32
            }
            _ => {
                let number = session.created + session.unanswered.len() as u32;
                let path = format!("{}/{}", self.table.parent, child(peer.index, number));
                let data = self.table.value(peer.index);
                Request::create(&path, data, CreateMode::Persistent).encode_frame(0, peer.out);
                number
            }
        };
        // Behind the length.
        peer.out[at + 4..at + 8].copy_from_slice(&session.xid.to_be_bytes());
        session.unanswered.push_back(Sent { at_ns: peer.now_ns, op, node });
    }

    fn is_drained(&self) -> bool {
        self.sessions.iter().all(|session| session.unanswered.is_empty())
    }

    fn check(&mut self, index: usize, sent: Sent, body: &[u8]) -> Result<()> {
        let session = &mut self.sessions[index];
        let mut reader = Reader::new(body);
        match sent.op {
            OpCode::GetData => {
                let expected = self.table.value(sent.node as usize);
                let right = reader.buffer()? == Some(expected) || !self.checks;
                let length = Stat::BYTES + 4 + expected.len();
                if !right || body.len() != length {
                    fail!("getData {} answered other data than was set", path(sent.node as usize));
                }
            }
            OpCode::SetData => {
                let stat = Stat::decode(&mut reader)?;
                if self.checks && stat.version != session.version.wrapping_add(1) {
                    fail!(
                        "setData {} answered version {} after version {}",
                        path(sent.node as usize),
                        stat.version,
                        session.version
                    );
                }
                session.version = stat.version;
            }
            _ => {
                session.created += 1;
                let expected = format!("{}/{}", self.table.parent, child(index, sent.node));
                if reader.string()?.as_deref() != Some(expected.as_str()) {
                    fail!("create {expected} answered another path");
                }
            }
        }
        Ok(())
    }

    /// What the server holds now is what it acknowledged.
    fn check_end(&self, client: &mut Client) -> Result<()> {
        for (index, session) in self.sessions.iter().enumerate() {
            let stat = client.exists(&path(index), false)?;
            let version = stat.map(|stat| stat.version);
            if version != Some(session.version) {
                fail!("{} is at version {version:?}, and {} was acknowledged", path(index), session.version);
            }
        }
        let created: u32 = self.sessions.iter().map(|session| session.created).sum();
        let children = client.exists(&self.table.parent, false)?.map(|stat| stat.child_count);
        if children != Some(created as i32) {
            fail!("{} has {children:?} children, and {created} were acknowledged", self.table.parent);
        }
        Ok(())
    }

    fn outcome(&self, metered: &Metered) -> Outcome {
        let mut outcome = Outcome::default();
        let count = self.reads.len() + self.writes.len();
        let per_op = |value: u64, unit: f64| value as f64 / unit / count.max(1) as f64;
        outcome.add("operations per second", "", count as f64 / metered.generator.elapsed_seconds);
        let mixed = !self.reads.is_empty() && !self.writes.is_empty();
        for (kind, histogram) in [("read ", &self.reads), ("write ", &self.writes)] {
            if histogram.is_empty() {
                continue;
            }
            let kind = if mixed { kind } else { "" };
            for (name, quantile) in
                [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)]
            {
                let latency = histogram.value_at_quantile(quantile);
                outcome.add(format!("{kind}{name}"), "us", latency as f64 / 1000.0);
            }
            outcome.add(format!("{kind}max"), "us", histogram.max() as f64 / 1000.0);
        }
        if let Some(server) = metered.server {
            outcome.add("server time per operation", "us", per_op(server.cpu_ns, 1000.0));
            outcome.add("of it user", "us", per_op(server.user_ns, 1000.0));
            outcome.add("context switches per operation", "", per_op(server.switches(), 1.0));
            outcome.add("written per operation", "B", per_op(server.written_bytes, 1.0));
            outcome.add("server resident", "MB", server.resident_bytes as f64 / 1e6);
        }
        metered.judge(&mut outcome);
        outcome
    }
}

impl Driver for Traffic<'_> {
    fn opened(&mut self, _: &mut Peer<'_>, _: &ConnectResponse) -> Result<()> {
        Ok(())
    }

    fn answered(&mut self, peer: &mut Peer<'_>, answer: &Answer<'_>) -> Result<()> {
        let session = &mut self.sessions[peer.index];
        if self.phase == Phase::Close {
            return if answer.err == 0 { Ok(()) } else { fail!("closeSession failed with {}", answer.err) };
        }
        let Some(sent) = session.unanswered.pop_front() else {
            fail!("session {} got an answer too many, xid {}", peer.index, answer.xid);
        };
        let expected = session.xid - session.unanswered.len() as i32;
        if answer.xid != expected {
            fail!("session {} got the answer to xid {}, and {expected} is next", peer.index, answer.xid);
        }
        if answer.err != 0 {
            fail!("{:?} failed with {}", sent.op, answer.err);
        }
        if answer.zxid < session.zxid {
            fail!("zxid {} follows {} in session {}", Zxid(answer.zxid), Zxid(session.zxid), peer.index);
        }
        session.zxid = answer.zxid;
        self.check(peer.index, sent, answer.body)?;
        match self.phase {
            Phase::WarmUp => {}
            Phase::Measure => {
                let latency_ns = (peer.now_ns - sent.at_ns).clamp(1, LATENCY_NS_MAX);
                let histogram = if sent.op == OpCode::GetData { &mut self.reads } else { &mut self.writes };
                histogram.record(latency_ns).expect("clamped to the bounds");
            }
            Phase::Drain | Phase::Close => return Ok(()),
        }
        self.issue(peer);
        Ok(())
    }

    fn closed(&mut self, index: usize) -> Result<()> {
        if self.phase == Phase::Close {
            Ok(())
        } else {
            fail!("the server closed the connection of session {index}")
        }
    }
}
