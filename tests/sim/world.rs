//! The simulated world: virtual time, one queue of events, everything drawn from one seed.
//!
//! The real node runs in it: pipeline, fronts, codec, log writer, recovery, snapshots. Who has a turn when, which bytes arrive
//! when and in what pieces, when the disk is done and what it keeps, is decided here. Network, disk, load and faults draw
//! from streams of their own, so that a change to one does not reshuffle the others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;

use ringkeeper::node::pipeline::{Input, Output};
use ringkeeper::node::{Serving, StorageEvent};
use ringkeeper::proto::txn::{Txn, TxnEntry, kind};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::txnlog::format::{BLOCK_BYTES, BatchHeader};
use ringkeeper::txnlog::{LogWrite, follows};
use ringkeeper::types::{Epoch, Instant, SessionId, Zxid};
use ringkeeper::zab::PeerConn;

use super::client::{Client, End};
use super::history::{History, Logged, Moment, Violation};
use super::net::Stream;
use super::peers::PeerStream;
use super::server::{self, Node, Server};
use super::shape::Shape;
use super::storage::{self, Did, Keeper, OpenOptions, Opened};

/// When time begins, in nanoseconds.
pub const BEGIN: u64 = 1_000_000_000_000;
pub const MS: u64 = 1_000_000;
pub const US: u64 = 1_000;
/// Notes kept for a failure's report.
const NOTES_MAX: usize = 40;
/// Virtual time between two looks at what a power cut would leave, at most.
const SAMPLE_EVERY_MS: u64 = 700;
/// How often what is held up is looked at again.
const LOOK_AGAIN: u64 = 50 * MS;
/// Events of one run, beyond which it does not come to an end.
const EVENTS_MAX: u64 = 20_000_000;

/// What may happen. Ordered only to have an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// The pipeline's (core 0) or a front's.
    Turn {
        server: usize,
        incarnation: u32,
        core: usize,
    },
    Written {
        server: usize,
        incarnation: u32,
        id: u64,
    },
    Keep {
        server: usize,
        incarnation: u32,
    },
    /// Bytes, or the end, have come to one side of a connection.
    ToServer(u32),
    ToClient(u32),
    Client {
        client: usize,
        generation: u32,
    },
    /// A server's attempt to connect to another comes there; that it was taken comes back.
    PeerDial(u32),
    PeerConnected(u32),
    Peer {
        stream: u32,
        end: usize,
    },
    PeerSent {
        stream: u32,
        end: usize,
        count: usize,
    },
    /// By its place in the list of faults.
    Fault(usize),
    Start {
        server: usize,
    },
    DiskHasSpace {
        server: usize,
    },
    Sample,
}

/// What is known of a session's life.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    pub timeout_ms: u64,
    /// When its owner was heard, or it was made; the newest of them.
    times: VecDeque<u64>,
}

impl Lease {
    const TIMES_MAX: usize = 256;

    pub fn hear(&mut self, time: u64) {
        if self.times.len() == Lease::TIMES_MAX {
            self.times.pop_front();
        }
        self.times.push_back(time);
    }

    /// The last time it was heard up to `time`, if that is known.
    fn heard_by(&self, time: u64) -> Option<u64> {
        self.times.iter().rev().find(|heard| **heard <= time).copied()
    }
}

/// How a run failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Safety,
    Liveness,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub class: Class,
    pub violation: Violation,
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure { class: Class::Safety, violation }
    }
}

pub struct World {
    pub shape: Shape,
    pub now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub net: Rng,
    pub disk: Rng,
    pub load: Rng,
    pub chaos: Rng,
    pub servers: Vec<Server>,
    pub clients: Vec<Client>,
    pub streams: BTreeMap<u32, Stream>,
    pub ends: BTreeMap<u32, End>,
    pub stream_next: u32,
    pub peer_streams: BTreeMap<u32, PeerStream>,
    /// Each server's connections: the stream, and which end of it.
    pub peer_conns: BTreeMap<(usize, PeerConn), (u32, usize)>,
    pub peer_next: u32,
    pub peer_accepted: u32,
    /// Nothing gets from one server to another before then.
    pub blocked_until: BTreeMap<(usize, usize), u64>,
    /// Who led in each epoch.
    pub leaders: BTreeMap<Epoch, usize>,
    /// When something last went wrong.
    pub disturbed: u64,
    pub history: History,
    /// What was delivered anywhere, in its one order.
    pub committed: Vec<Logged>,
    /// When each session's owner was heard.
    pub heard: BTreeMap<SessionId, Lease>,
    /// The connection that speaks for a session, as its client knows.
    pub speaker: BTreeMap<SessionId, u32>,
    /// Clients finish what they have, and ask for nothing new.
    pub draining: bool,
    pub steps: u64,
    /// Turns taken.
    pub turns: u64,
    moment: Moment,
    trace: u64,
    notes: VecDeque<String>,
    /// How often each thing worth reaching was reached.
    pub marks: BTreeMap<&'static str, u64>,
}

impl World {
    pub fn new(shape: Shape) -> World {
        let stream = |salt: u64| Rng::new(Rng::new(shape.seed ^ salt).next_u64());
        let mut load = stream(0x6c6f_6164);
        let clients = (0..shape.clients).map(|_| Client::new(&mut load)).collect();
        let servers = (0..shape.servers()).map(|_| Server::new(&shape)).collect();
        let mut world = World {
            now: BEGIN,
            order: 0,
            queue: BinaryHeap::new(),
            net: stream(0x006e_6574),
            disk: stream(0x6469_736b),
            load,
            chaos: stream(0x6368_616f),
            servers,
            clients,
            streams: BTreeMap::new(),
            ends: BTreeMap::new(),
            stream_next: 1,
            peer_streams: BTreeMap::new(),
            peer_conns: BTreeMap::new(),
            peer_next: 1,
            peer_accepted: 0,
            blocked_until: BTreeMap::new(),
            leaders: BTreeMap::new(),
            disturbed: BEGIN,
            history: History::default(),
            committed: Vec::new(),
            heard: BTreeMap::new(),
            speaker: BTreeMap::new(),
            draining: false,
            steps: 0,
            turns: 0,
            moment: 0,
            trace: shape.seed,
            notes: VecDeque::new(),
            marks: BTreeMap::new(),
            shape,
        };
        for server in 0..world.servers.len() {
            world.at(BEGIN, Event::Start { server });
        }
        for client in 0..world.clients.len() {
            let delay = world.load.below(50 * MS);
            world.at(BEGIN + delay, Event::Client { client, generation: 0 });
        }
        for fault in 0..super::shape::FAULTS.len() {
            world.plan_fault(fault);
        }
        world.at(BEGIN + SAMPLE_EVERY_MS * MS, Event::Sample);
        world
    }

    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    /// Something that a report of a failure should tell.
    pub fn note(&mut self, text: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        let ms = (self.now - BEGIN) as f64 / MS as f64;
        self.notes.push_back(format!("{ms:10.3} ms  {text}"));
    }

    pub fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// The next place in the order of everything.
    pub fn moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// Enters a number into what two runs of one seed must agree on.
    pub fn mix(&mut self, value: u64) {
        self.trace = (self.trace.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((time.max(self.now), self.order, event)));
    }

    /// What is held up, until then or until it is let go earlier.
    pub fn later(&mut self, until: u64, event: Event) {
        self.at(until.min(self.now + LOOK_AGAIN), event);
    }

    /// Lets everything happen up to `until`.
    pub fn run_until(&mut self, until: u64) -> Result<(), Failure> {
        while let Some(&Reverse((time, _, event))) = self.queue.peek() {
            if time > until {
                break;
            }
            self.queue.pop();
            self.now = time;
            self.step(event)?;
        }
        self.now = until;
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), Failure> {
        let time = self.now;
        match event {
            Event::Turn { server, incarnation, core } => {
                let Some(node) = self.node(server, incarnation) else { return Ok(()) };
                if node.planned[core] != Some(time) {
                    return Ok(());
                }
                let paused_until = self.servers[server].paused_until;
                let node = self.servers[server].node.as_mut().expect("looked at");
                if paused_until > time {
                    // Looked at again before then: what holds it up may end early.
                    let again = paused_until.min(time + LOOK_AGAIN);
                    node.planned[core] = Some(again);
                    self.at(again, event);
                    return Ok(());
                }
                node.planned[core] = None;
                self.count(event)?;
                self.turns += 1;
                if core == 0 {
                    self.pipeline_turn(server)?
                } else {
                    self.front_turn(server, core - 1)
                }
                return Ok(());
            }
            Event::Written { server, incarnation, id } => {
                if self.node(server, incarnation).is_none() {
                    return Ok(());
                }
                let wait = self.servers[server].paused_until.max(self.servers[server].stalled_until);
                if wait > time {
                    self.later(wait, event);
                    return Ok(());
                }
                self.count(event)?;
                self.written(server, id);
            }
            Event::Keep { server, incarnation } => {
                if self.node(server, incarnation).is_none() {
                    return Ok(());
                }
                let wait = self.servers[server].paused_until.max(self.servers[server].stalled_until);
                if wait > time {
                    self.later(wait, event);
                    return Ok(());
                }
                self.count(event)?;
                self.keep(server)?;
            }
            Event::ToServer(stream) => {
                self.count(event)?;
                self.arrived_at_server(stream);
            }
            Event::ToClient(stream) => {
                self.count(event)?;
                self.arrived_at_client(stream)?;
            }
            Event::Client { client, generation } => {
                if self.clients[client].generation == generation {
                    self.count(event)?;
                    self.client_step(client);
                }
            }
            Event::PeerDial(stream) => {
                self.count(event)?;
                self.peer_dialled(stream);
            }
            Event::PeerConnected(stream) => {
                self.count(event)?;
                self.peer_connected(stream);
            }
            Event::Peer { stream, end } => {
                self.count(event)?;
                self.peer_arrived(stream, end);
            }
            Event::PeerSent { stream, end, count } => {
                self.count(event)?;
                self.peer_sent(stream, end, count);
            }
            Event::Fault(fault) => {
                if !self.draining {
                    self.disturbed = self.now;
                    self.count(event)?;
                    self.fault(fault);
                    self.plan_fault(fault);
                }
            }
            Event::Start { server } => {
                if self.servers[server].node.is_none() {
                    self.count(event)?;
                    self.start(server)?;
                }
            }
            Event::DiskHasSpace { server } => self.servers[server].disk.is_full = false,
            Event::Sample => {
                self.sample()?;
                let delay = 1 + self.chaos.below(SAMPLE_EVERY_MS * MS);
                self.at(time + delay, Event::Sample);
            }
        }
        Ok(())
    }

    fn count(&mut self, event: Event) -> Result<(), Failure> {
        self.steps += 1;
        self.mix(self.now);
        let code = match event {
            Event::Turn { server, core, .. } => (1 << 32) | ((server as u64) << 16) | core as u64,
            Event::Written { id, .. } => (2 << 32) | id,
            Event::Keep { .. } => 3 << 32,
            Event::ToServer(stream) => (4 << 32) | u64::from(stream),
            Event::ToClient(stream) => (5 << 32) | u64::from(stream),
            Event::Client { client, .. } => (6 << 32) | client as u64,
            Event::Fault(fault) => (7 << 32) | fault as u64,
            Event::PeerDial(stream) => (9 << 32) | u64::from(stream),
            Event::PeerConnected(stream) => (10 << 32) | u64::from(stream),
            Event::Peer { stream, end } => (11 << 32) | u64::from(stream) << 1 | end as u64,
            Event::PeerSent { stream, end, .. } => (12 << 32) | u64::from(stream) << 1 | end as u64,
            _ => 8 << 32,
        };
        self.mix(code);
        if self.steps > EVENTS_MAX {
            self.describe_restless();
            return Err(Failure {
                class: Class::Liveness,
                violation: Violation::new("L2", format!("{EVENTS_MAX} events, and no end")),
            });
        }
        Ok(())
    }

    /// Who wants turns, for the report of a run that finds no end.
    pub fn describe_restless(&mut self) {
        for server in 0..self.servers.len() {
            let Some(node) = &self.servers[server].node else {
                self.note(format!("server {server} is down"));
                continue;
            };
            let role = node.pipeline.describe();
            let fronts: Vec<_> =
                node.fronts.iter().map(|front| (front.has_more(), front.next_timer())).collect();
            let rooms: Vec<usize> = node.links.iter().map(ringkeeper::node::FrontLink::room).collect();
            let text = format!(
                "server {server}: {role}; pipeline wants more {}, timer {:?}, {} log writes under way; fronts {fronts:?}, room {rooms:?}",
                node.pipeline.has_more(),
                node.pipeline.next_timer(),
                node.writes.len(),
            );
            self.note(text);
        }
    }

    fn node(&self, server: usize, incarnation: u32) -> Option<&Node> {
        let server = &self.servers[server];
        server.node.as_ref().filter(|_| server.incarnation == incarnation)
    }

    /// A turn of that core no later than `time`.
    pub fn plan(&mut self, server: usize, core: usize, time: u64) {
        let incarnation = self.servers[server].incarnation;
        let Some(node) = self.servers[server].node.as_mut() else { return };
        let time = time.max(self.now);
        if node.planned[core].is_none_or(|planned| time < planned) {
            node.planned[core] = Some(time);
            self.at(time, Event::Turn { server, incarnation, core });
        }
    }

    /// A turn soon: as soon as the core gets to it.
    pub fn plan_soon(&mut self, server: usize, core: usize) {
        let is_late = self.net.below(200) == 0;
        let delay = self.net.below(self.shape.turn_delay_us * US * if is_late { 50 } else { 1 }) + 1;
        self.plan(server, core, self.now + delay);
    }

    fn pipeline_turn(&mut self, server: usize) -> Result<(), Failure> {
        let now = self.servers[server].now(self.now);
        let node = self.servers[server].node.as_mut().expect("its turn");
        node.pipeline.turn(now);
        let mut owed = Vec::new();
        node.pipeline.drain(&mut owed);
        // A crash may fall between any two of them.
        let dies = self.servers[server].dies_after.take();
        if let Some((after, _)) = dies {
            owed.truncate(after);
        }
        for output in owed {
            match output {
                Output::Write(write) => self.write(server, write)?,
                Output::Segment(work) => self.keep_more(server, |keeper| keeper.segment(work)),
                Output::Snapshot(work) => self.keep_more(server, |keeper| keeper.snapshot(work)),
                Output::Storage(work) => self.keep_more(server, |keeper| keeper.storage(work)),
                Output::Peer(work) => self.peer_work(server, work),
                Output::Stopped | Output::Told(_) | Output::Audit(_) => {}
            }
        }
        if let Some((_, power)) = dies {
            self.mark("a process dies between two outputs");
            self.note(format!("server {server} dies in the middle of a turn"));
            self.crash(server, power);
            return Ok(());
        }
        self.observe(server)?;
        let node = self.servers[server].node.as_ref().expect("its turn");
        let has_more = node.pipeline.has_more();
        let timer = node.pipeline.next_timer();
        let waiting: Vec<usize> =
            (0..node.links.len()).filter(|&front| node.links[front].waits_for_front()).collect();
        for front in waiting {
            self.plan_soon(server, front + 1);
        }
        if has_more {
            self.plan_soon(server, 0);
        } else if let Some(Instant(timer)) = timer {
            // A timer is never exact.
            let late = self.net.below(MS) + 1;
            self.plan(server, 0, timer.max(self.now) + late);
        }
        Ok(())
    }

    fn keep_more(&mut self, server: usize, add: impl FnOnce(&mut Keeper)) {
        let node = self.servers[server].node.as_mut().expect("its turn");
        let was_idle = node.keeper.is_idle();
        add(&mut node.keeper);
        self.plan_keep(server, was_idle);
    }

    fn plan_keep(&mut self, server: usize, was_idle: bool) {
        let Some(node) = &self.servers[server].node else { return };
        if was_idle && !node.keeper.is_idle() {
            let incarnation = self.servers[server].incarnation;
            let delay = self.disk_delay();
            self.at(self.now + delay, Event::Keep { server, incarnation });
        }
    }

    fn disk_delay(&mut self) -> u64 {
        let slow = if self.disk.below(100) == 0 { 20 } else { 1 };
        1 + self.disk.below(self.shape.disk_delay_us * US * slow)
    }

    /// A log write begins: it is in the cache, and on the medium when it is reported.
    fn write(&mut self, server: usize, write: LogWrite) -> Result<(), Failure> {
        let identity = self.identity(server);
        let (before, entries) = server::batch_of(identity, &write);
        self.cut_shadow(server, before)?;
        for (zxid, entry) in entries {
            let machine = &mut self.servers[server];
            let last = machine.last();
            if !follows(last, zxid) {
                return Err(
                    Violation::new("S3", format!("server {server}: {zxid} is logged after {last}")).into()
                );
            }
            machine.shadow.insert(zxid, entry.clone());
            let ever = machine.ever.entry(zxid).or_default();
            if !ever.contains(&entry) {
                ever.push(entry.clone());
            }
            self.logged(server, &entry)?;
        }
        let machine = &mut self.servers[server];
        let name = storage::segment_name(write.segment);
        machine
            .disk
            .write(&name, write.offset_bytes as usize, &write.bytes)
            .expect("a segment has room for what is written to it");
        let (incarnation, id) = (machine.incarnation, write.id.0);
        machine.node.as_mut().expect("it writes").writes.push(write);
        let delay = self.disk_delay();
        self.at(self.now + delay, Event::Written { server, incarnation, id });
        Ok(())
    }

    /// A batch that begins before the end of the log cuts it; what comes after a leader's snapshot begins it anew.
    fn cut_shadow(&mut self, server: usize, before: Zxid) -> Result<(), Failure> {
        let machine = &mut self.servers[server];
        let last = machine.last();
        if before == last {
            return Ok(());
        }
        if machine.installed == Some(before) {
            machine.installed = None;
            machine.shadow.clear();
            machine.shadow_base = before;
            return Ok(());
        }
        let machine = &self.servers[server];
        let is_known = before == machine.shadow_base || machine.shadow.contains_key(&before);
        if before > last || !is_known {
            let text = format!("server {server} goes on after {before}, its log ends at {last}");
            return Err(Violation::new("S3", text).into());
        }
        let is_committed = |(zxid, entry): (&Zxid, &Rc<[u8]>)| self.committed_at(*zxid) == Some(entry);
        if machine.shadow.range(Zxid(before.0 + 1)..).any(is_committed) {
            let text = format!("server {server} cuts its log to {before}, and something committed is behind");
            return Err(Violation::new("S5", text).into());
        }
        let machine = &mut self.servers[server];
        machine.shadow.split_off(&Zxid(before.0 + 1));
        machine.zxid_durable = machine.zxid_durable.min(before);
        self.mark("a log is cut");
        Ok(())
    }

    fn committed_at(&self, zxid: Zxid) -> Option<&Rc<[u8]>> {
        let place = self.committed.binary_search_by_key(&zxid, |logged| logged.zxid).ok()?;
        Some(&self.committed[place].entry)
    }

    /// An entry is proposed: was its time right?
    fn logged(&mut self, server: usize, entry: &[u8]) -> Result<(), Failure> {
        let entry =
            TxnEntry::decode(entry).map_err(|error| Violation::new("G2", format!("an entry: {error}")))?;
        let session = entry.header.session;
        match (entry.header.kind, &entry.txn) {
            (kind::CREATE_SESSION, Txn::CreateSession { timeout_ms }) => {
                let mut lease = Lease { timeout_ms: *timeout_ms as u64, ..Lease::default() };
                lease.hear(self.now);
                self.heard.insert(session, lease);
            }
            (kind::CLOSE_SESSION, _) if entry.header.cxid == 0 => {
                self.mark("a session expires");
                self.expired(server, session, entry.header.time_ms)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// P9: not before its time is up. What came while the word that nothing had come was on its way between two cores does not count.
    fn expired(&mut self, server: usize, session: SessionId, wall_ms: i64) -> Result<(), Failure> {
        let Some(lease) = self.heard.get(&session) else { return Ok(()) };
        let wall_off_ms = self.servers[server].wall_off_ms;
        let Ok(since_begin_ms) = u64::try_from(wall_ms - wall_off_ms - server::WALL_MS) else {
            return Ok(());
        };
        let proposed = (since_begin_ms + 1) * MS;
        if self.shape.servers() > 1 {
            // Heartbeats get to the leader with its pings; who was disturbed may not have known whom to tell.
            let settled_ms = lease.timeout_ms + 20 * self.shape.tick_ms;
            if self.disturbed + settled_ms * MS > self.now {
                return Ok(());
            }
        }
        if proposed > self.now + MS || proposed + 60_000 * MS < self.now {
            // The wall clock jumped in between.
            return Ok(());
        }
        let hops = if self.shape.servers() > 1 {
            self.shape.tick_ms * MS + 20 * self.shape.net_delay_us * US
        } else {
            0
        };
        let on_its_way = 250 * self.shape.turn_delay_us * US + hops;
        let looked = proposed.saturating_sub(on_its_way);
        let Some(heard) = lease.heard_by(looked) else { return Ok(()) };
        let waits = self.waits_in_socket(server, session, looked).unwrap_or(0);
        let silent_ms = (proposed - heard.max(waits)) / MS;
        let tolerance_ms = if self.shape.servers() > 1 { self.shape.tick_ms } else { 1 };
        if silent_ms + tolerance_ms < lease.timeout_ms {
            let timeout_ms = lease.timeout_ms;
            return Err(Violation::new(
                "C7",
                format!("session {session} expires {silent_ms} ms after it was heard, its timeout is {timeout_ms} ms"),
            )
            .into());
        }
        Ok(())
    }

    pub fn identity(&self, server: usize) -> u64 {
        Rng::new(self.shape.seed ^ server as u64).next_u64()
    }

    /// A log write ends.
    fn written(&mut self, server: usize, id: u64) {
        let time = self.now;
        let identity = self.identity(server);
        let machine = &mut self.servers[server];
        let node = machine.node.as_mut().expect("looked at");
        let place = node.writes.iter().position(|write| write.id.0 == id).expect("a write under way");
        if machine.write_fails {
            machine.write_fails = false;
            self.note(format!("server {server}: a log write fails, the process ends"));
            self.mark("a log write fails");
            self.crash(server, true);
            return;
        }
        let write = node.writes.remove(place);
        let name = storage::segment_name(write.segment);
        machine.disk.sync_range(&name, write.offset_bytes as usize, write.bytes.len());
        machine.written.push((id, name, write.offset_bytes as usize, write.bytes.len()));
        let now = machine.now(time);
        let node = machine.node.as_mut().expect("looked at");
        node.pipeline.handle(now, Input::Written { id: write.id, spent: write.bytes });
        self.plan_soon(server, 0);
        // What the disk has by now, by its own word: every write before the oldest one under way.
        let machine = &mut self.servers[server];
        let node = machine.node.as_ref().expect("looked at");
        let durable = match node.writes.iter().min_by_key(|write| write.id) {
            None => machine.last(),
            Some(oldest) => zxid_before(identity, oldest).min(machine.last()),
        };
        machine.zxid_durable = machine.zxid_durable.max(durable);
    }

    /// The housekeeper's next step is done.
    fn keep(&mut self, server: usize) -> Result<(), Failure> {
        let time = self.now;
        let machine = &mut self.servers[server];
        let now = machine.now(time);
        let node = machine.node.as_mut().expect("looked at");
        match node.keeper.step(&mut machine.disk) {
            Did::Nothing => {}
            Did::SegmentReady(segment) => {
                node.pipeline.handle(now, Input::SegmentReady(segment));
                self.plan_soon(server, 0);
            }
            Did::Snapshot(event) => {
                let name = match event {
                    ringkeeper::snapshot::SnapshotEvent::Done { .. } => "a snapshot is taken",
                    ringkeeper::snapshot::SnapshotEvent::Failed { .. } => "a snapshot fails",
                    ringkeeper::snapshot::SnapshotEvent::PartWritten => "a part of a snapshot is written",
                    ringkeeper::snapshot::SnapshotEvent::Abandoned => "a snapshot is given up",
                };
                node.pipeline.handle(now, Input::Snapshot(event));
                self.mark(name);
                self.plan_soon(server, 0);
            }
            Did::Installed(event) => {
                let ringkeeper::snapshot::SnapshotEvent::Done { zxid, .. } = event else { unreachable!() };
                node.pipeline.handle(now, Input::Snapshot(event));
                machine.installed = Some(zxid);
                machine.shadow.clear();
                machine.shadow_base = zxid;
                machine.zxid_durable = zxid;
                self.mark("a leader's snapshot is installed");
                self.plan_soon(server, 0);
            }
            Did::Storage(event) => {
                let name = match &event {
                    StorageEvent::EpochsWritten(_) => "epochs are written",
                    StorageEvent::Rebuilt(_) => "a server goes back to an earlier state",
                    StorageEvent::CannotRebuild { .. } => "a server cannot go back",
                    StorageEvent::LogRead(_) | StorageEvent::CannotReadLog { .. } => "a log is read back",
                    StorageEvent::MembershipWritten => "the members are written down",
                };
                let back_to = match &event {
                    StorageEvent::Rebuilt(rebuilt) => Some(rebuilt.log_start.zxid_last),
                    _ => None,
                };
                node.pipeline.handle(now, Input::Storage(event));
                self.mark(name);
                if let Some(zxid) = back_to {
                    self.cut_shadow(server, zxid)?;
                }
                self.plan_soon(server, 0);
            }
            Did::Fatal => {
                self.note(format!("server {server}: no space for a log segment, the process ends"));
                self.mark("no space for a segment");
                self.crash(server, false);
                return Ok(());
            }
        }
        self.plan_keep(server, true);
        Ok(())
    }

    /// The process begins; recovers what its disk holds.
    fn start(&mut self, server: usize) -> Result<(), Failure> {
        let options = OpenOptions {
            tick_ms: self.shape.tick_ms,
            now: Instant(self.now),
            hash_seed: self.shape.seed | 1,
            identity: self.identity(server),
        };
        if let Some(sound) = self.servers[server].sound.take() {
            // Damaged bytes are refused, or they were not needed.
            let mut damaged = std::mem::replace(&mut self.servers[server].disk, sound);
            match storage::open(&mut damaged, options) {
                Ok(opened) => {
                    self.mark("damage did not matter");
                    self.check_recovered(server, &opened, "with damaged bytes")?;
                }
                Err(reason) => {
                    self.mark("damage is refused");
                    self.note(format!("server {server} refuses: {reason}"));
                }
            }
        }
        let mut opened = match storage::open(&mut self.servers[server].disk, options) {
            Ok(opened) => opened,
            Err(_) if self.servers[server].disk.is_full && self.servers[server].shadow.is_empty() => {
                self.at(self.now + 500 * MS, Event::Start { server });
                return Ok(());
            }
            Err(reason) => {
                return Err(Violation::new("S6", format!("server {server} does not start: {reason}")).into());
            }
        };
        self.check_recovered(server, &opened, "at its start")?;
        let zxid = opened.database.zxid_applied();
        self.note(format!(
            "server {server} starts with {zxid}, {} entries from the log, {:?}",
            opened.entries.len(),
            opened.epochs
        ));
        let machine = &mut self.servers[server];
        machine.shadow.split_off(&Zxid(opened.zxid_snapshot.0 + 1));
        if machine.segment_first != opened.segment_first {
            // A leader's snapshot had replaced the history when the process died, and nobody had been told.
            machine.segment_first = opened.segment_first;
            machine.shadow.clear();
            machine.shadow_base = opened.zxid_snapshot;
        }
        if machine.shadow_base > zxid {
            // The snapshot that was installed did not come to count.
            return Err(Violation::new(
                "S6",
                format!("server {server}: recovered to {zxid}, {} was installed", machine.shadow_base),
            )
            .into());
        }
        let entries = std::mem::take(&mut opened.entries);
        machine.shadow.extend(entries.into_iter().map(|(zxid, entry)| (zxid, Rc::from(entry))));
        machine.zxid_durable = machine.last();
        machine.written.clear();
        machine.installed = None;
        machine.was_serving = false;
        machine.zxid_applied = Zxid::ZERO;
        machine.incarnation += 1;
        let (now, incarnation) = (machine.now(self.now), machine.incarnation);
        let node = server::start(&self.shape, server, incarnation, now, options, opened);
        self.servers[server].node = Some(node);
        self.observe(server)?;
        for core in 0..=self.shape.fronts {
            self.plan_soon(server, core);
        }
        self.answer_stale_peers(server);
        Ok(())
    }

    /// S6, P1: what was recovered is what was logged, and all that was durable.
    fn check_recovered(&self, server: usize, opened: &Opened, when: &str) -> Result<(), Violation> {
        let machine = &self.servers[server];
        let fail = |text: String| Err(Violation::new("S6", format!("server {server} {when}: {text}")));
        let zxid = opened.database.zxid_applied();
        // What was applied of an epoch without an entry has its number.
        if zxid < machine.zxid_durable {
            return fail(format!("recovered to {zxid}, {} was durable", machine.zxid_durable));
        }
        for (zxid, entry) in &opened.entries {
            let is_known =
                machine.ever.get(zxid).is_some_and(|ever| ever.iter().any(|one| **one == entry[..]));
            if !is_known {
                return fail(format!("the entry of {zxid} was never logged"));
            }
            let is_right = machine.shadow.get(zxid).is_some_and(|logged| **logged == entry[..]);
            if !is_right && *zxid <= machine.zxid_durable && *zxid > machine.shadow_base {
                return fail(format!("the entry of {zxid} is not the one that was durable"));
            }
        }
        let first = opened.entries.first().map_or(zxid, |(zxid, _)| *zxid);
        if first <= zxid && opened.zxid_snapshot > machine.last() && opened.zxid_snapshot.counter() > 0 {
            return fail(format!("snapshot {} is of nothing that was logged", opened.zxid_snapshot));
        }
        let last_entry = opened.entries.last().map(|(_, entry)| &entry[..]);
        let digest = match last_entry.and_then(|entry| TxnEntry::decode(entry).ok()?.digest) {
            Some(digest) => Some(digest.tree_digest),
            None if opened.entries.is_empty() => self.digest_at(server, zxid),
            None => None,
        };
        if digest.is_some_and(|digest| digest != opened.database.tree.digest()) {
            return fail(format!("the tree at {zxid} has another digest than was logged"));
        }
        Ok(())
    }

    /// The process is gone, with the power or alone. Starts again after a while.
    pub fn crash(&mut self, server: usize, power: bool) {
        let machine = &mut self.servers[server];
        if machine.node.take().is_none() {
            return;
        }
        machine.paused_until = 0;
        machine.stalled_until = 0;
        machine.write_fails = false;
        machine.dies_after = None;
        if power {
            machine.disk.power_cut(&mut self.disk);
        }
        self.mark(if power { "the power is cut" } else { "a process is killed" });
        self.break_streams_of(server, power);
        self.break_peers_of(server, power);
        let wait = match self.chaos.below(4) {
            0 => self.chaos.below(5 * MS),
            1 | 2 => self.chaos.below(500 * MS),
            _ => self.chaos.below(5000 * MS),
        };
        self.at(self.now + wait, Event::Start { server });
    }

    /// Looks at what a step changed: what is applied anywhere is committed everywhere (G3), and durable here (S2).
    fn observe(&mut self, server: usize) -> Result<(), Failure> {
        let machine = &self.servers[server];
        let Some(node) = &machine.node else { return Ok(()) };
        let is_serving = node.pipeline.serving() == Serving::Yes;
        if node.pipeline.leads() {
            let epoch = node.pipeline.zxid_proposed().epoch();
            match self.leaders.insert(epoch, server) {
                None => self.mark("a leader is established"),
                Some(other) if other != server => {
                    let text = format!("servers {other} and {server} both lead epoch {}", epoch.0);
                    return Err(Violation::new("G1", text).into());
                }
                Some(_) => {}
            }
        }
        let machine = &self.servers[server];
        let node = machine.node.as_ref().expect("looked at");
        if !is_serving {
            // What it has may not be decided yet.
            self.servers[server].was_serving = false;
            return Ok(());
        }
        let database = node.pipeline.database();
        let (applied, digest) = (database.zxid_applied(), database.tree.digest());
        let before = if machine.was_serving { machine.zxid_applied } else { machine.shadow_base };
        if applied < before {
            return Err(Violation::new(
                "G3",
                format!("server {server} goes back from {before} to {applied}"),
            )
            .into());
        }
        if applied == before && machine.was_serving {
            return Ok(());
        }
        let delivered: Vec<(Zxid, Rc<[u8]>)> = machine
            .shadow
            .range(Zxid(before.0 + 1)..=Zxid(applied.0.max(before.0 + 1)))
            .filter(|(zxid, _)| **zxid <= applied)
            .map(|(zxid, entry)| (*zxid, entry.clone()))
            .collect();
        let last = delivered.last().map_or(before, |(zxid, _)| *zxid);
        if last > machine.zxid_durable {
            let durable = machine.zxid_durable;
            return Err(Violation::new(
                "S2",
                format!("server {server} has applied {last}, durable is {durable}"),
            )
            .into());
        }
        if last != applied && applied.counter() != 0 {
            return Err(Violation::new(
                "S2",
                format!("server {server} has applied {applied}, its log has {last}"),
            )
            .into());
        }
        for (zxid, entry) in delivered {
            self.deliver(server, zxid, entry)?;
        }
        if self.digest_at(server, applied).is_some_and(|logged| logged != digest) {
            return Err(
                Violation::new("G10", format!("server {server} at {applied}: the digest differs")).into()
            );
        }
        let machine = &mut self.servers[server];
        machine.zxid_applied = applied;
        machine.was_serving = true;
        Ok(())
    }

    /// The digest the tree has at that zxid, by the log of a server or what all agreed on; errors carry none and change none.
    fn digest_at(&self, server: usize, zxid: Zxid) -> Option<u64> {
        let digest = |entry: &Rc<[u8]>| TxnEntry::decode(entry).ok().and_then(|entry| entry.digest);
        let own = self.servers[server].shadow.range(..=zxid).rev().find_map(|(_, entry)| digest(entry));
        let is_agreed = self.committed.last().is_some_and(|last| last.zxid >= zxid);
        let place = if is_agreed { self.committed.partition_point(|logged| logged.zxid <= zxid) } else { 0 };
        own.or_else(|| self.committed[..place].iter().rev().find_map(|logged| digest(&logged.entry)))
            .map(|digest| digest.tree_digest)
    }

    /// G8: on the disks of a quorum.
    fn is_on_a_quorum(&self, zxid: Zxid, entry: &Rc<[u8]>) -> bool {
        let has = |server: &Server| {
            server.zxid_durable >= zxid
                && (server.shadow_base >= zxid || server.shadow.get(&zxid).is_some_and(|own| own == entry))
        };
        let voters = self.shape.voters;
        self.servers[..voters].iter().filter(|server| has(server)).count() > voters / 2
    }

    fn deliver(&mut self, server: usize, zxid: Zxid, entry: Rc<[u8]>) -> Result<(), Violation> {
        let last = self.committed.last().map_or(Zxid::ZERO, |last| last.zxid);
        if zxid > last {
            if !follows(last, zxid) {
                return Err(Violation::new("G4", format!("server {server} delivers {zxid} after {last}")));
            }
            if !self.is_on_a_quorum(zxid, &entry) {
                return Err(Violation::new(
                    "G8",
                    format!("server {server} delivers {zxid}, which no quorum has on disk"),
                ));
            }
            self.mix(u64::from(crc32fast::hash(&entry)));
            self.committed.push(Logged { zxid, entry });
            return Ok(());
        }
        match self.committed.binary_search_by_key(&zxid, |logged| logged.zxid) {
            Ok(place) if self.committed[place].entry == entry => Ok(()),
            Ok(_) => {
                Err(Violation::new("G3", format!("server {server} delivers another {zxid} than before")))
            }
            Err(_) => Err(Violation::new(
                "G3",
                format!("server {server} delivers {zxid}, which others passed over"),
            )),
        }
    }

    /// What a power cut right now would leave, recovered twice; and the derived tables of a running server.
    fn sample(&mut self) -> Result<(), Failure> {
        let server = self.chaos.below(self.servers.len() as u64) as usize;
        let machine = &self.servers[server];
        let is_changing = machine.installed.is_some() || machine.last() == Zxid::ZERO;
        if machine.node.is_none() || machine.sound.is_some() || is_changing {
            return Ok(());
        }
        let mut image = machine.disk.clone();
        let mut rng = Rng::new(self.chaos.next_u64());
        image.power_cut(&mut rng);
        let options = OpenOptions {
            tick_ms: self.shape.tick_ms,
            now: Instant(self.now),
            hash_seed: self.shape.seed | 1,
            identity: self.identity(server),
        };
        let mut zxids = BTreeSet::new();
        for _ in 0..2 {
            match storage::open(&mut image, options) {
                Ok(opened) => {
                    self.check_recovered(server, &opened, "after a power cut here")?;
                    zxids.insert(opened.database.zxid_applied());
                }
                Err(reason) => {
                    return Err(Violation::new("S6", format!("server {server}, cut here: {reason}")).into());
                }
            }
        }
        if zxids.len() > 1 {
            return Err(Violation::new("S6", format!("recovering twice gives {zxids:?}")).into());
        }
        self.mark("a cut image is recovered");
        let node = self.servers[server].node.as_ref().expect("looked at");
        super::finish::derived(node.pipeline.database())?;
        Ok(())
    }
}

/// The last zxid before a write that is under way.
fn zxid_before(identity: u64, write: &LogWrite) -> Zxid {
    let from = if write.offset_bytes == 0 { BLOCK_BYTES } else { 0 };
    BatchHeader::decode(identity, &write.bytes[from..]).expect("looked at when it was handed out").zxid_before
}
