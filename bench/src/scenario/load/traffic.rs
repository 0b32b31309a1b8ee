//! The sessions of a load: what each sends next, and what each answer must be.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringkeeper::client::{Client, Request, Response};
use ringkeeper::jute::Reader;
use ringkeeper::proto::Stat;
use ringkeeper::proto::client::{ConnectResponse, CreateMode};
use ringkeeper::types::Zxid;

use super::pacing::Schedule;
use super::{Children, Keys, LIST_CHILDREN, Load, Pacing, TIMELINE_STEP, Versions};
use crate::fail;
use crate::failure::Result;
use crate::net::{Answer, Driver, Net, Peer};
use crate::scenario::{ensure, pipelined};

/// Latencies beyond this are counted as this.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Unanswered requests of an open loop; what is due beyond them waits in the generator.
const UNANSWERED_MAX: usize = 1 << 16;
/// Requests of an open loop sent between two looks at the answers.
const DUE_MAX: usize = 256;
/// How long to wait where nothing is planned.
const NOTHING_DUE: Duration = Duration::from_secs(1);
/// Of zipfian keys, as YCSB has it.
const ZIPF_EXPONENT: f64 = 0.99;
/// The node that is listed.
const LIST_PATH: &str = "/bench/list";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Get,
    Set,
    Create,
    Delete,
    List,
}

impl Op {
    pub const ALL: [Op; 5] = [Op::Get, Op::Set, Op::Create, Op::Delete, Op::List];

    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "getData",
            Op::Set => "setData",
            Op::Create => "create",
            Op::Delete => "delete",
            Op::List => "getChildren",
        }
    }
}

/// Everything a request or an expected answer is copied from, made once.
#[derive(Debug)]
pub struct Table {
    nodes: usize,
    value_bytes: usize,
    /// getData frames, all of one size.
    gets: Vec<u8>,
    get_bytes: usize,
    /// setData frames, likewise.
    sets: Vec<u8>,
    set_bytes: usize,
    list: Vec<u8>,
    /// The data of each node.
    values: Vec<u8>,
    /// Where nodes are created: a new parent for each run.
    parent: String,
    /// Of each node when the run begins.
    versions: Vec<i32>,
    /// Sums of the weights of zipfian keys up to each node, out of [`u32::MAX`]; empty for uniform ones.
    weights: Vec<u32>,
}

impl Table {
    /// Makes the nodes, or gives those there are their data.
    pub fn set_up(load: &Load, client: &mut Client, echo: bool) -> Result<Table> {
        let nodes = load.nodes.max(load.sessions());
        let mut table = Table {
            nodes,
            value_bytes: load.value_bytes,
            gets: Vec::new(),
            get_bytes: 0,
            sets: Vec::new(),
            set_bytes: 0,
            list: Vec::new(),
            values: Vec::new(),
            parent: String::new(),
            versions: vec![0; nodes],
            weights: if load.keys == Keys::Zipfian { zipf(nodes) } else { Vec::new() },
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
        Request::GetChildren { path: LIST_PATH, watch: false }.encode_frame(0, &mut table.list);

        for path in ["/bench", "/bench/kvs"] {
            ensure(client, path)?;
        }
        table.parent = client.create("/bench/new-", b"", CreateMode::PersistentSequential)?;
        let made = |path: String, err: i32| match err {
            0 | -110 => Ok(()),
            err => fail!("create {path} failed with {err}"),
        };
        pipelined(
            client,
            nodes,
            |client, node| {
                client.queue(&Request::create(&path(node), table.value(node), CreateMode::Persistent));
            },
            |node, err, _| made(path(node), err),
        )?;
        if load.groups.iter().any(|group| group.mix.list > 0) {
            ensure(client, LIST_PATH)?;
            pipelined(
                client,
                LIST_CHILDREN,
                |client, number| {
                    client.queue(&Request::create(&listed(number), b"", CreateMode::Persistent));
                },
                |number, err, _| made(listed(number), err),
            )?;
        }
        let mut versions = vec![0; nodes];
        pipelined(
            client,
            nodes,
            |client, node| {
                let data = Some(table.value(node));
                client.queue(&Request::SetData { path: &path(node), data, version: None });
            },
            |node, err, response| match response {
                Response::Stat(stat) if err == 0 && (echo || stat.data_bytes == load.value_bytes as i32) => {
                    versions[node] = stat.version;
                    Ok(())
                }
                response => fail!("setData {} answered {err} {response:?}", path(node)),
            },
        )?;
        table.versions = versions;
        Ok(table)
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

    fn draw(&self, random: u64) -> usize {
        let high = (random >> 32) as u32;
        if self.weights.is_empty() {
            high as usize % self.nodes
        } else {
            self.weights.partition_point(|sum| *sum < high).min(self.nodes - 1)
        }
    }
}

fn zipf(nodes: usize) -> Vec<u32> {
    let weight = |node: usize| ((node + 1) as f64).powf(-ZIPF_EXPONENT);
    let sum: f64 = (0..nodes).map(weight).sum();
    let mut so_far = 0.0;
    (0..nodes)
        .map(|node| {
            so_far += weight(node);
            (so_far / sum * f64::from(u32::MAX)) as u32
        })
        .collect()
}

/// 23 bytes, so that a getData is a frame of 40.
fn path(node: usize) -> String {
    format!("/bench/kvs/{node:012}")
}

fn listed(number: usize) -> String {
    format!("{LIST_PATH}/child-{number:06}")
}

/// Different for each node, and for each offset.
fn value(node: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|offset| ((node * 31) ^ (offset * 7)) as u8).collect()
}

/// 25 bytes.
fn child(session: usize, number: u32) -> String {
    format!("s{session:06}-{number:017}")
}

/// Cheap, and good enough to spread reads.
pub fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    WarmUp,
    Measure {
        since_ns: u64,
    },
    /// No new requests.
    Drain,
    Close,
}

/// The sessions at work.
#[derive(Debug)]
pub struct Traffic<'a> {
    load: &'a Load,
    table: Table,
    sessions: Vec<Session>,
    /// One of each group that has a plan, its first session, and the next to send.
    schedules: Vec<Planned>,
    pub phase: Phase,
    /// By [`Op`], of answers in a measured interval.
    latency: Vec<Histogram<u64>>,
    /// Of answers to what was due while `marking`, and else, all operations together.
    pub marked: [Histogram<u64>; 2],
    pub marking: bool,
    /// Answers by [`TIMELINE_STEP`].
    steps: Vec<u32>,
    /// From the planned time to the send.
    late: Histogram<u64>,
    unanswered: usize,
    /// The open loop reached [`UNANSWERED_MAX`].
    held_back: bool,
    random: u64,
    /// Versions and data mean something.
    checks: bool,
}

#[derive(Debug)]
struct Planned {
    schedule: Schedule,
    group: usize,
    first: usize,
    next: usize,
}

#[derive(Debug)]
struct Session {
    group: usize,
    xid: i32,
    unanswered: VecDeque<Sent>,
    /// Of the node this session writes to.
    version: i32,
    zxid: i64,
    /// Asked for, both numbered from zero: a create of the one, a delete of the other.
    creating: u32,
    deleting: u32,
    created: u32,
    deleted: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at_ns: u64,
    op: Op,
    node: u32,
}

impl<'a> Traffic<'a> {
    pub fn new(load: &'a Load, table: Table, checks: bool) -> Traffic<'a> {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds and digits are in range");
        let groups = load.groups.iter().enumerate().flat_map(|(number, group)| vec![number; group.sessions]);
        let session = |(group, version): (usize, &i32)| Session {
            group,
            xid: 0,
            unanswered: VecDeque::new(),
            version: *version,
            zxid: 0,
            creating: 0,
            deleting: 0,
            created: 0,
            deleted: 0,
        };
        Traffic {
            load,
            sessions: groups.zip(&table.versions).map(session).collect(),
            table,
            schedules: Vec::new(),
            phase: Phase::WarmUp,
            latency: Op::ALL.iter().map(|_| histogram()).collect(),
            marked: [histogram(), histogram()],
            marking: false,
            steps: Vec::new(),
            late: histogram(),
            unanswered: 0,
            held_back: false,
            random: 0x9e37_79b9_7f4a_7c15,
            checks,
        }
    }

    /// Fills closed loops and begins the plans of open ones.
    pub fn start(&mut self, net: &mut Net) -> Result<()> {
        let mut first = 0;
        for (number, group) in self.load.groups.iter().enumerate() {
            match group.pacing {
                Pacing::Closed { outstanding } => {
                    for index in first..first + group.sessions {
                        net.write(index, |peer| {
                            (0..outstanding).for_each(|_| self.issue(peer, peer.now_ns));
                            Ok(())
                        })?;
                    }
                }
                Pacing::Open { rate, arrivals } => {
                    let schedule = Schedule::new(rate, arrivals, net.now_ns(), 0x51ed_2701 + number as u64);
                    self.schedules.push(Planned { schedule, group: number, first, next: 0 });
                }
            }
            first += group.sessions;
        }
        Ok(())
    }

    /// Sends what is due. Returns how long nothing will be.
    pub fn send_due(&mut self, net: &mut Net) -> Result<Duration> {
        let mut wait = NOTHING_DUE;
        for which in 0..self.schedules.len() {
            for _ in 0..DUE_MAX {
                let now_ns = net.now_ns();
                let planned = &mut self.schedules[which];
                let due_ns = planned.schedule.next_ns();
                if due_ns > now_ns {
                    break;
                }
                if self.unanswered >= UNANSWERED_MAX {
                    self.held_back = true;
                    return Ok(Duration::from_millis(1));
                }
                planned.schedule.take();
                let index = planned.first + planned.next;
                planned.next = (planned.next + 1) % self.load.groups[planned.group].sessions;
                if matches!(self.phase, Phase::Measure { .. }) {
                    self.late
                        .record((now_ns - due_ns).clamp(1, LATENCY_NS_MAX))
                        .expect("clamped to the bounds");
                }
                net.write(index, |peer| {
                    self.issue(peer, due_ns);
                    Ok(())
                })?;
            }
            let next_ns = self.schedules[which].schedule.next_ns();
            wait = wait.min(Duration::from_nanos(next_ns.saturating_sub(net.now_ns())));
        }
        Ok(wait)
    }

    /// Sends the session's next request, planned for `at_ns`.
    fn issue(&mut self, peer: &mut Peer<'_>, at_ns: u64) {
        let random = xorshift(&mut self.random);
        let session = &mut self.sessions[peer.index];
        let mut op = self.load.groups[session.group].mix.draw(random >> 8);
        if op == Op::Delete && session.deleting == session.creating {
            op = Op::Create;
        }
        session.xid = if session.xid == i32::MAX { 1 } else { session.xid + 1 };
        let at = peer.out.len();
        let node = match op {
            Op::Get => {
                let node = self.table.draw(random);
                peer.out.extend_from_slice(self.table.get(node));
                node as u32
            }
            Op::Set => {
                peer.out.extend_from_slice(self.table.set(peer.index));
                peer.index as u32
            }
            Op::List => {
                peer.out.extend_from_slice(&self.table.list);
                0
            }
            Op::Create => {
                let number = session.creating;
                session.creating += 1;
                let path = format!("{}/{}", self.table.parent, child(peer.index, number));
                let data = self.table.value(peer.index);
                Request::create(&path, data, CreateMode::Persistent).encode_frame(0, peer.out);
                number
            }
            Op::Delete => {
                let number = session.deleting;
                session.deleting += 1;
                let path = format!("{}/{}", self.table.parent, child(peer.index, number));
                Request::Delete { path: &path, version: None }.encode_frame(0, peer.out);
                number
            }
        };
        // Behind the length.
        peer.out[at + 4..at + 8].copy_from_slice(&session.xid.to_be_bytes());
        session.unanswered.push_back(Sent { at_ns, op, node });
        self.unanswered += 1;
    }

    pub fn is_drained(&self) -> bool {
        self.unanswered == 0
    }

    fn check(&mut self, index: usize, sent: Sent, body: &[u8]) -> Result<()> {
        let session = &mut self.sessions[index];
        let mut reader = Reader::new(body);
        match sent.op {
            Op::Get => {
                let expected = self.table.value(sent.node as usize);
                let right = reader.buffer()? == Some(expected) || !self.checks;
                let length = Stat::BYTES + 4 + expected.len();
                if !right || body.len() != length {
                    fail!("getData {} answered other data than was set", path(sent.node as usize));
                }
            }
            Op::Set => {
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
            Op::List => {
                let count = reader.i32()?;
                if count != LIST_CHILDREN as i32 {
                    fail!("getChildren {LIST_PATH} answered {count} names, and there are {LIST_CHILDREN}");
                }
            }
            Op::Delete => session.deleted += 1,
            Op::Create => {
                session.created += 1;
                let expected = format!("{}/{}", self.table.parent, child(index, sent.node));
                if reader.string()?.as_deref() != Some(expected.as_str()) {
                    fail!("create {expected} answered another path");
                }
            }
        }
        Ok(())
    }

    /// What a member holds now is what was acknowledged.
    pub fn check_end(&self, client: &mut Client) -> Result<()> {
        pipelined(
            client,
            self.sessions.len(),
            |client, index| {
                client.queue(&Request::GetData { path: &path(index), watch: false });
            },
            |index, err, response| match response {
                Response::Data { data, stat } if err == 0 => {
                    let acknowledged = self.sessions[index].version;
                    if stat.version != acknowledged {
                        fail!(
                            "{} is at version {}, and {acknowledged} was acknowledged",
                            path(index),
                            stat.version
                        );
                    }
                    if data.as_deref().unwrap_or_default() != self.table.value(index) {
                        fail!("{} holds other data than was set", path(index));
                    }
                    Ok(())
                }
                response => fail!("getData {} answered {err} {response:?}", path(index)),
            },
        )?;
        let left: u32 = self.sessions.iter().map(|session| session.created - session.deleted).sum();
        let children = client.exists(&self.table.parent, false)?.map(|stat| stat.child_count);
        if children != Some(left as i32) {
            fail!("{} has {children:?} children, and {left} were acknowledged", self.table.parent);
        }
        if let Children::Exactly(expected) = self.load.expect.children
            && children != Some(expected as i32)
        {
            fail!("{} has {children:?} children, and {expected} are expected", self.table.parent);
        }
        if self.load.expect.versions == Versions::Unchanged
            && self
                .sessions
                .iter()
                .zip(&self.table.versions)
                .any(|(session, before)| session.version != *before)
        {
            fail!("versions are expected to be unchanged, and some were written");
        }
        Ok(())
    }

    pub fn latency(&self, op: Op) -> &Histogram<u64> {
        &self.latency[op as usize]
    }

    /// How late requests of open loops were sent; `None` where there is no open loop.
    pub fn late_ns(&self, quantile: f64) -> Option<u64> {
        (!self.late.is_empty()).then(|| self.late.value_at_quantile(quantile))
    }

    pub fn held_back(&self) -> bool {
        self.held_back
    }

    /// Seconds, and answers per second, of whole steps.
    pub fn timeline(&self, duration: Duration) -> Vec<(f64, f64)> {
        let step = TIMELINE_STEP.as_secs_f64();
        let whole = (duration.as_secs_f64() / step) as usize;
        let counts = (0..whole).map(|number| self.steps.get(number).copied().unwrap_or(0));
        counts.enumerate().map(|(number, count)| (number as f64 * step, f64::from(count) / step)).collect()
    }

    fn record(&mut self, peer: &Peer<'_>, sent: Sent, since_ns: u64) {
        let latency_ns = peer.now_ns.saturating_sub(sent.at_ns).clamp(1, LATENCY_NS_MAX);
        self.latency[sent.op as usize].record(latency_ns).expect("clamped to the bounds");
        self.marked[usize::from(self.marking)].record(latency_ns).expect("clamped to the bounds");
        let step = (peer.now_ns.saturating_sub(since_ns) / TIMELINE_STEP.as_nanos() as u64) as usize;
        if step >= self.steps.len() {
            self.steps.resize(step + 1, 0);
        }
        self.steps[step] += 1;
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
        self.unanswered -= 1;
        let expected = session.xid - session.unanswered.len() as i32;
        if answer.xid != expected {
            fail!("session {} got the answer to xid {}, and {expected} is next", peer.index, answer.xid);
        }
        if answer.err != 0 {
            fail!("{} failed with {}", sent.op.name(), answer.err);
        }
        if answer.zxid < session.zxid {
            fail!("zxid {} follows {} in session {}", Zxid(answer.zxid), Zxid(session.zxid), peer.index);
        }
        session.zxid = answer.zxid;
        let closed_loop = matches!(self.load.groups[session.group].pacing, Pacing::Closed { .. });
        self.check(peer.index, sent, answer.body)?;
        match self.phase {
            Phase::WarmUp => {}
            Phase::Measure { since_ns } => self.record(peer, sent, since_ns),
            Phase::Drain | Phase::Close => return Ok(()),
        }
        if closed_loop {
            self.issue(peer, peer.now_ns);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipfian_weights_rise_to_the_whole() {
        let weights = zipf(1000);
        assert!(weights.is_sorted() && *weights.last().unwrap() > u32::MAX - 1000);
        // The first of a thousand is drawn more than a tenth of the time.
        assert!(weights[0] > u32::MAX / 10);
    }
}
