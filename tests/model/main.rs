//! The node against a plain model: every reply, stat, error and event of random operations of several sessions on several
//! fronts, with log writes held back and completed in any order, and with power losses in between (C1-C8, P7, P8, S6).
//!
//! Method: every write's reply carries its zxid and every read's the zxid of the state it shows. So a history is checked by
//! applying its writes to the model in zxid order, with each read compared where it says it belongs. What was written to the log
//! and never answered is found there by session and cxid, and applied to the model too.

#[path = "../support/node.rs"]
#[allow(dead_code)]
mod node;
mod reference;

use std::collections::{BTreeMap, VecDeque};

use reference::*;

use node::{Handle, Recovered, SESSION_TIMEOUT_MS, World, recover_from};
use ringkeeper::client::{Message, Reply, Response};
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::{CreateMode, EventType, OpCode};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::types::{Instant, Now, SessionId, Zxid};

const SESSIONS: usize = 5;
const FRONTS: usize = 2;
const RUNS: u64 = 12;
const BATCHES: usize = 40;

struct Session {
    id: SessionId,
    handle: Handle,
    watches: Watches,
    /// Sent and not answered, with their xids.
    asked: Vec<(i32, Op)>,
    /// Events due by the model and not compared yet.
    due: Vec<(Zxid, EventType, String)>,
    /// addWatch takes effect no later than the zxid of its reply, and maybe since that of the reply before: events of changes
    /// in between may come ahead of it. The watch alone, after, up to.
    early: Vec<(Watches, Zxid, Zxid)>,
    /// Events that came.
    came: Vec<(Zxid, EventType, String)>,
    zxid_seen: Zxid,
    closing: bool,
}

/// A request and its reply.
#[derive(Debug)]
struct Answered {
    session: usize,
    place: usize,
    op: Op,
    reply: Reply,
    /// The zxid of the session's reply before.
    after: Zxid,
}

/// A node, its model, and the sessions between them.
struct Test {
    rng: Rng,
    world: World,
    model: Model,
    sessions: Vec<Session>,
    /// Its connection is gone, and its time runs out.
    expiring: Option<SessionId>,
    counts: BTreeMap<i32, u64>,
    events: u64,
    crashes: u64,
}

impl Test {
    fn new(seed: u64) -> Test {
        let now = Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 };
        Test {
            rng: Rng::new(seed),
            world: World::fresh(FRONTS, now),
            model: Model::new(),
            sessions: Vec::new(),
            expiring: None,
            counts: BTreeMap::new(),
            events: 0,
            crashes: 0,
        }
    }

    /// A session more. Nothing is under way before or after, so it takes the next zxid.
    fn open_session(&mut self) {
        let front = self.rng.below(FRONTS as u64) as usize;
        let (handle, response) = self.world.connect(front, SessionId::NONE);
        assert_ne!(response.session, SessionId::NONE);
        self.model.zxid = self.model.zxid.next();
        self.add(handle, response.session);
    }

    fn add(&mut self, handle: Handle, id: SessionId) {
        self.sessions.push(Session {
            id,
            handle,
            watches: Watches::default(),
            asked: Vec::new(),
            due: Vec::new(),
            early: Vec::new(),
            came: Vec::new(),
            zxid_seen: Zxid::ZERO,
            closing: false,
        });
    }

    fn run(&mut self) {
        for batch in 0..BATCHES {
            while self.sessions.len() < SESSIONS {
                self.open_session();
            }
            self.world.advance_ms(1 + self.rng.below(300));
            self.model.wall_ms = self.world.now.wall_ms;
            self.batch();
            match self.rng.below(10) {
                0..3 => self.crash(),
                3 => {
                    self.finish_batch();
                    self.expire_one();
                }
                4 => {
                    self.finish_batch();
                    self.move_one();
                }
                _ => self.finish_batch(),
            }
            assert_eq!(self.world.pipeline.database().zxid_applied(), self.model.zxid, "batch {batch}");
            self.compare_trees();
        }
    }

    /// Sends requests of all sessions, in pieces, while the log now and then completes a write.
    fn batch(&mut self) {
        self.world.holding = true;
        for _ in 0..20 + self.rng.below(60) {
            let index = self.rng.below(self.sessions.len() as u64) as usize;
            if self.sessions[index].closing {
                continue;
            }
            let mut bytes = Vec::new();
            for _ in 0..1 + self.rng.below(6) {
                let op = self.any_op();
                let session = &mut self.sessions[index];
                let xid = op.submit(&mut self.world, session.handle, &mut bytes);
                session.closing = matches!(op, Op::Close);
                session.asked.push((xid, op));
                if session.closing {
                    break;
                }
            }
            let handle = self.sessions[index].handle;
            self.world.received(handle, &bytes);
            for _ in 0..self.rng.below(3) {
                self.world.turn();
            }
            if !self.world.writes.is_empty() && self.rng.below(3) == 0 {
                let which = self.rng.below(self.world.writes.len() as u64) as usize;
                self.world.make_durable(which);
            }
        }
    }

    fn finish_batch(&mut self) {
        self.world.holding = false;
        self.world.settle();
        self.check_history();
        for session in &self.sessions {
            assert!(session.asked.is_empty(), "{:?} is not answered", session.asked);
        }
        let ended: Vec<Session> = self.sessions.extract_if(.., |session| session.closing).collect();
        for session in ended {
            assert!(self.world.peer(session.handle).closed, "closed behind the answer to closeSession");
            self.world.hang_up(session.handle);
        }
        self.heard_from_all();
    }

    /// Nobody expires but whom the test lets expire.
    fn heard_from_all(&mut self) {
        for index in 0..self.sessions.len() {
            let handle = self.sessions[index].handle;
            let mut bytes = Vec::new();
            let xid = Op::Ping.submit(&mut self.world, handle, &mut bytes);
            self.sessions[index].asked.push((xid, Op::Ping));
            self.world.received(handle, &bytes);
        }
        self.world.settle();
        for session in &self.sessions {
            let is_alive = self.world.pipeline.database().sessions.contains(session.id);
            assert!(is_alive, "session {} has ended, though it was heard from", session.id);
        }
        self.check_history();
    }

    /// Takes all that came: events to their sessions, replies in zxid order with writes before the reads of their state.
    fn collect(&mut self) -> VecDeque<Answered> {
        let mut history = Vec::new();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            let messages = std::mem::take(&mut self.world.peer(session.handle).messages);
            for (place, message) in messages.into_iter().enumerate() {
                match message {
                    Message::Event(event) => {
                        // A reply of this zxid has shown the change already, unless it was of another change in it (P8).
                        assert!(event.zxid > session.zxid_seen, "{event:?} came after a reply of its zxid");
                        session.came.push((event.zxid, event.kind, event.path));
                    }
                    Message::Reply(reply) => {
                        let at = session.asked.iter().position(|(xid, _)| *xid == reply.xid);
                        let (_, op) = session.asked.remove(at.expect("a reply to what was asked"));
                        let seen = session.zxid_seen;
                        assert!(reply.zxid >= seen, "{op:?}: {reply:?} after {seen}");
                        // A read shows the state before the writes asked behind it (C5).
                        assert!(!op.is_write() || reply.zxid > seen, "{op:?}: {reply:?} after {seen}");
                        session.zxid_seen = reply.zxid;
                        history.push(Answered { session: index, place, op, reply, after: seen });
                    }
                }
            }
        }
        history.sort_by_key(|one| (one.reply.zxid, !one.op.is_write(), one.session, one.place));
        history.into()
    }

    /// Compares all that came; nothing is under way.
    fn check_history(&mut self) {
        for one in self.collect() {
            if one.reply.zxid > self.model.zxid && !one.op.is_write() {
                self.end_expiring();
            }
            if one.op.is_write() { self.check_write(&one) } else { self.check_read(&one) }
        }
        if let Some(session) = self.expiring
            && !self.world.pipeline.database().sessions.contains(session)
        {
            self.end_expiring();
        }
        self.compare_events(true);
    }

    fn check_write(&mut self, one: &Answered) {
        let answer = self.model.write(self.sessions[one.session].id, &one.op);
        assert_eq!(one.reply.zxid, self.model.zxid, "{:?}: a zxid is left out or given twice", one.op);
        self.fire();
        if matches!(one.op, Op::Close) {
            self.sessions[one.session].watches = Watches::default();
        }
        self.compare(one, &answer);
    }

    fn check_read(&mut self, one: &Answered) {
        assert_eq!(one.reply.zxid, self.model.zxid, "{:?} shows a state that is not", one.op);
        let answer = self.model.read(&one.op);
        self.compare(one, &answer);
        let session = &mut self.sessions[one.session];
        session.watches.register(&one.op, one.reply.err == 0);
        if matches!(one.op, Op::AddWatch { .. }) {
            let mut alone = Watches::default();
            alone.register(&one.op, true);
            session.early.push((alone, one.after, one.reply.zxid));
        }
    }

    fn compare(&mut self, one: &Answered, answer: &Answer) {
        compare(&one.op, &one.reply, answer, self.model.zxid);
        *self.counts.entry(one.reply.err).or_default() += 1;
    }

    /// The events of the transaction the model has just applied. A session that ends hears of its own end too.
    fn fire(&mut self) {
        for session in &mut self.sessions {
            let mut events = Vec::new();
            for (kind, path) in &self.model.changes {
                session.watches.fire(*kind, path, &mut events);
            }
            session.due.extend(events.into_iter().map(|(kind, path)| (self.model.zxid, kind, path)));
        }
    }

    /// Events came in the order of zxids, all that were due, and nothing else. After a crash (`all` is false) those may be
    /// missing that no reply has made overdue.
    fn compare_events(&mut self, all: bool) {
        let key = |(zxid, kind, path): &(Zxid, EventType, String)| (*zxid, *kind as i32, path.clone());
        for session in &mut self.sessions {
            assert!(session.came.windows(2).all(|two| two[0].0 <= two[1].0), "{:?}", session.came);
            let last = session.came.last().map_or(Zxid::ZERO, |(zxid, ..)| *zxid);
            if !all {
                session.due.retain(|(zxid, ..)| *zxid <= last.max(session.zxid_seen));
            }
            let due = &session.due;
            let early = std::mem::take(&mut session.early);
            session.came.retain(|event| {
                let (zxid, kind, path) = event;
                due.contains(event)
                    || !early
                        .iter()
                        .any(|(watch, after, upto)| zxid > after && zxid <= upto && watch.covers(*kind, path))
            });
            session.came.sort_by_key(key);
            session.due.sort_by_key(key);
            assert_eq!(session.came, session.due, "events of session {}", session.id);
            self.events += session.came.len() as u64;
            session.came.clear();
            session.due.clear();
        }
    }

    fn compare_trees(&self) {
        let database = self.world.pipeline.database();
        compare_tree(&self.model, database);
    }

    /// One session is not heard from until it ends.
    fn expire_one(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let index = self.rng.below(self.sessions.len() as u64) as usize;
        let session = self.sessions.remove(index);
        self.world.hang_up(session.handle);
        self.world.settle();
        self.expiring = Some(session.id);
        let mut waited = 0;
        while self.world.pipeline.database().sessions.contains(session.id) {
            assert!(waited <= 3 * SESSION_TIMEOUT_MS, "session {} does not end", session.id);
            self.world.advance_ms(500);
            waited += 500;
            self.heard_from_all();
        }
        assert!(waited >= SESSION_TIMEOUT_MS - 1000, "session {} ended after {waited} ms", session.id);
        self.end_expiring();
        self.heard_from_all();
    }

    /// The session nobody hears from has ended, under the next zxid.
    fn end_expiring(&mut self) {
        if let Some(session) = self.expiring.take() {
            self.model.write(session, &Op::Close).expect("closing does not fail");
            self.fire();
        }
    }

    /// One session takes a new connection; its watches stay behind.
    fn move_one(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let index = self.rng.below(self.sessions.len() as u64) as usize;
        let old = self.sessions.remove(index);
        if self.rng.below(2) == 0 {
            self.world.hang_up(old.handle);
        }
        let front = self.rng.below(FRONTS as u64) as usize;
        let (handle, response) = self.world.connect(front, old.id);
        assert_eq!(response.session, old.id);
        if self.world.peers.contains_key(&old.handle) && old.handle != handle {
            assert!(
                self.world.peer(old.handle).closed,
                "{:?}: the old connection is closed, now {handle:?}",
                old.handle
            );
            self.world.hang_up(old.handle);
        }
        self.add(handle, old.id);
    }

    /// The power goes, the server comes back from what its disk holds.
    fn crash(&mut self) {
        self.crashes += 1;
        for _ in 0..self.rng.below(4) {
            self.world.turn();
        }
        let mut history = self.collect();
        let acknowledged = history.back().map_or(self.model.zxid, |last| last.reply.zxid);
        let now = self.world.now;
        let empty = World::fresh(1, now);
        let disk = std::mem::replace(&mut self.world, empty).crash(&mut self.rng);
        let Recovered { database, start, entries } = recover_from(&disk, now);
        let zxid = database.zxid_applied();
        assert!(zxid >= acknowledged, "{acknowledged} was acknowledged, {zxid} is there");
        // The log is the witness: what it holds was asked, and what was answered is in it.
        let before = self.model.zxid;
        self.check_reads_here(&mut history);
        for (zxid, id, cxid) in entries.into_iter().filter(|(zxid, ..)| *zxid > before) {
            match history.front().is_some_and(|one| one.reply.zxid == zxid && one.op.is_write()) {
                true => {
                    let one = history.pop_front().expect("looked at");
                    assert_eq!((self.sessions[one.session].id, one.reply.xid), (id, cxid), "{zxid}");
                    self.check_write(&one);
                }
                false => {
                    let session = self.sessions.iter().find(|session| session.id == id);
                    let asked = session.expect("a session of ours").asked.iter();
                    let (_, op) = asked
                        .clone()
                        .find(|(xid, op)| *xid == cxid && op.is_write())
                        .unwrap_or_else(|| panic!("{zxid}: cxid {cxid} was not asked by {id}"));
                    let _ = self.model.write(id, op);
                    assert_eq!(zxid, self.model.zxid);
                    self.fire();
                }
            }
            self.check_reads_here(&mut history);
        }
        assert!(history.is_empty(), "answered, and not in the log: {history:?}");
        self.compare_events(false);
        compare_tree(&self.model, &database);
        // Recovering again gives the same.
        assert_eq!(recover_from(&disk, now).database.tree.digest(), database.tree.digest());
        let in_flight_max = 1 + self.rng.below(2) as usize;
        self.world = World::begin(FRONTS, now, database, start, disk, in_flight_max);
        for old in std::mem::take(&mut self.sessions) {
            if self.world.pipeline.database().sessions.contains(old.id) {
                let front = self.rng.below(FRONTS as u64) as usize;
                let (handle, response) = self.world.connect(front, old.id);
                assert_eq!(response.session, old.id);
                self.add(handle, old.id);
            } else {
                assert!(old.closing, "session {} is lost", old.id);
            }
        }
        self.heard_from_all();
    }

    fn check_reads_here(&mut self, history: &mut VecDeque<Answered>) {
        while history.front().is_some_and(|one| !one.op.is_write() && one.reply.zxid == self.model.zxid) {
            let one = history.pop_front().expect("looked at");
            self.check_read(&one);
        }
    }

    fn any_path(&mut self) -> String {
        const PATHS: &[&str] = &[
            "/a", "/b", "/c", "/a/x", "/a/y", "/a/x/1", "/b/x", "/b/y", "/c/x", "/c/x/1/2", "/a/x/1/2", "/",
            "/a/",
        ];
        PATHS[self.rng.below(PATHS.len() as u64) as usize].to_owned()
    }

    /// Mostly the present one, so that conditions often hold.
    fn any_version(&mut self, path: &str) -> Option<i32> {
        match self.rng.below(10) {
            0..5 => None,
            5..9 => Some(self.model.nodes.get(path).map_or(0, |node| node.stat.version)),
            _ => Some(self.rng.below(5) as i32),
        }
    }

    fn any_data(&mut self) -> Option<Vec<u8>> {
        match self.rng.below(10) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![3; self.rng.below(9000) as usize]),
            _ => Some(vec![self.rng.next_u64() as u8; self.rng.below(60) as usize]),
        }
    }

    fn any_change(&mut self) -> Op {
        let path = self.any_path();
        match self.rng.below(10) {
            0..5 => {
                let (op, flags, ttl_ms) = match self.rng.below(12) {
                    0..4 => (OpCode::Create, CreateMode::Persistent as i32, 0),
                    4 => (OpCode::Create2, CreateMode::Persistent as i32, 0),
                    5 => (OpCode::Create, CreateMode::Ephemeral as i32, 0),
                    6 => (OpCode::Create2, CreateMode::Ephemeral as i32, 0),
                    7 => (OpCode::Create, CreateMode::PersistentSequential as i32, 0),
                    8 | 9 => (OpCode::Create2, CreateMode::EphemeralSequential as i32, 0),
                    10 => (OpCode::CreateContainer, CreateMode::Container as i32, 0),
                    _ => {
                        (OpCode::CreateTtl, CreateMode::PersistentTtl as i32, self.rng.below(4) as i64 * 1000)
                    }
                };
                let open = self.rng.below(12) > 0;
                Op::Create { op, path, data: self.any_data(), open, flags, ttl_ms }
            }
            5..7 => Op::Delete { version: self.any_version(&path), path },
            _ => Op::SetData { version: self.any_version(&path), path, data: self.any_data() },
        }
    }

    fn any_op(&mut self) -> Op {
        let path = self.any_path();
        let watch = self.rng.below(2) == 0;
        match self.rng.below(100) {
            0..40 => self.any_change(),
            40..43 => Op::SetAcl { path, open: self.rng.below(3) > 0, version: None },
            43..53 => {
                let count = 1 + self.rng.below(5);
                let ops = (0..count).map(|_| {
                    loop {
                        if self.rng.below(5) == 0 {
                            let path = self.any_path();
                            break Op::Check { version: self.any_version(&path), path };
                        }
                        let op = self.any_change();
                        // Containers and nodes with a time to live are made one at a time.
                        if !matches!(op, Op::Create { op: OpCode::CreateContainer | OpCode::CreateTtl, .. }) {
                            break op;
                        }
                    }
                });
                Op::Multi(ops.collect())
            }
            53..63 => Op::Exists { path, watch },
            63..73 => Op::GetData { path, watch },
            73..80 => Op::GetChildren { path, watch },
            80..88 => Op::GetChildren2 { path, watch },
            88..91 => Op::GetAcl { path },
            91..94 => Op::Count { path },
            94..97 => Op::AddWatch {
                path: path.trim_end_matches('/').to_owned() + if path == "/" { "/" } else { "" },
                recursive: watch,
            },
            97..99 => Op::Ping,
            _ if self.rng.below(2) == 0 => Op::Close,
            _ => Op::Ping,
        }
    }
}

fn compare(op: &Op, reply: &Reply, answer: &Answer, zxid: Zxid) {
    let sorted = |response: &Response| match response.clone() {
        Response::Paths(mut children) => {
            children.sort();
            Response::Paths(children)
        }
        Response::Children { mut children, stat } => {
            children.sort();
            Response::Children { children, stat }
        }
        other => other,
    };
    match answer {
        Ok(response) => {
            assert_eq!(reply.err, 0, "{zxid}: {op:?}");
            assert_eq!(sorted(&reply.response), sorted(response), "{zxid}: {op:?}");
        }
        Err(error) => assert_eq!(reply.err, error.code(), "{zxid}: {op:?}"),
    }
}

fn compare_tree(model: &Model, database: &ringkeeper::request::Database) {
    let tree = &database.tree;
    assert_eq!(tree.node_count(), model.nodes.len());
    for (path, node) in &model.nodes {
        let found = tree.find(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(tree.data(found), node.data.as_deref(), "{path}");
        let data_bytes = node.data.as_ref().map_or(0, Vec::len);
        assert_eq!(tree.stat(found).to_wire(data_bytes, tree.child_count(found)), model.stat(path), "{path}");
    }
    assert_eq!(tree.digest(), model.digest());
}

#[test]
fn every_reply_event_and_recovery_is_the_models() {
    let given = std::env::var("RK_SEED").ok().map(|text| text.parse::<u64>().expect("RK_SEED is a number"));
    let first = given.unwrap_or_else(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0) >> 16
    });
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    let (mut events, mut crashes) = (0, 0);
    for seed in first..first + if given.is_some() { 1 } else { RUNS } {
        // Shown where the test fails.
        println!("RK_SEED={seed} repeats this run");
        let mut test = Test::new(seed);
        test.run();
        for (err, count) in test.counts {
            *counts.entry(err).or_default() += count;
        }
        events += test.events;
        crashes += test.crashes;
    }
    println!("{counts:?}, {events} events, {crashes} crashes");
    if given.is_none() {
        // A test that meets only one kind of answer tests little.
        for code in [
            ErrorCode::Ok,
            ErrorCode::NoNode,
            ErrorCode::NodeExists,
            ErrorCode::NotEmpty,
            ErrorCode::BadVersion,
        ] {
            assert!(counts.get(&code.code()).is_some_and(|count| *count >= 20), "{code:?}: {counts:?}");
        }
        assert!(events > 100 && crashes > 10);
    }
}

/// The answer to closeSession is the last thing a client gets, whatever changes behind it in the same turn.
#[test]
fn nothing_follows_the_answer_to_close_session() {
    let mut world = World::fresh(1, Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 });
    let ((watcher, _), (writer, _)) = (world.connect(0, SessionId::NONE), world.connect(0, SessionId::NONE));
    let mut bytes = Vec::new();
    Op::AddWatch { path: "/".into(), recursive: true }.submit(&mut world, watcher, &mut bytes);
    world.received(watcher, &bytes);
    world.settle();
    world.holding = true;
    for (handle, op) in [(watcher, Op::Close), (writer, set_root())] {
        let mut bytes = Vec::new();
        op.submit(&mut world, handle, &mut bytes);
        world.received(handle, &bytes);
    }
    world.settle();
    world.holding = false;
    world.settle();
    let messages = std::mem::take(&mut world.peer(watcher).messages);
    assert!(
        matches!(&messages[..], [Message::Reply(_), Message::Reply(last)] if last.is_ok()),
        "{messages:?}"
    );
}

/// A watcher that does not read is cut off, and nothing gathers for it while its socket closes: neither memory nor bytes that
/// would follow half a frame.
#[test]
fn nothing_gathers_for_a_watcher_that_was_cut_off() {
    const WRITES: usize = 1400;
    let mut world = World::fresh(1, Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 });
    let ((watcher, _), (writer, _)) = (world.connect(0, SessionId::NONE), world.connect(0, SessionId::NONE));
    let path = format!("/{}", "n".repeat(60_000));
    let create =
        Op::Create { op: OpCode::Create, path: path.clone(), data: None, open: true, flags: 0, ttl_ms: 0 };
    for (handle, op) in [(writer, create), (watcher, Op::AddWatch { path: "/".into(), recursive: true })] {
        let mut bytes = Vec::new();
        op.submit(&mut world, handle, &mut bytes);
        world.received(handle, &bytes);
        world.settle();
    }
    world.peer(watcher).is_deaf = true;
    let (mut output_bytes_max, mut was_cut) = (0, false);
    for _ in 0..WRITES {
        let mut bytes = Vec::new();
        Op::SetData { path: path.clone(), data: None, version: None }.submit(&mut world, writer, &mut bytes);
        world.received(writer, &bytes);
        world.settle();
        let front = &world.fronts[watcher.front];
        let waits = front.output(watcher.conn).len();
        output_bytes_max = output_bytes_max.max(waits);
        if front.wants_close(watcher.conn) {
            was_cut = true;
            assert_eq!(waits, 0, "gathered behind the cut");
        }
    }
    assert!(was_cut && output_bytes_max > 32 << 20, "{output_bytes_max} bytes waited at most");
}

/// A client that comes back at once, on the same front and under the connection id its old connection had, keeps its session as
/// long as it is heard from.
#[test]
fn a_session_taken_up_in_the_turn_its_connection_broke_is_kept() {
    let mut world = World::fresh(1, Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 });
    let (old, response) = world.connect(0, SessionId::NONE);
    world.hang_up(old);
    let (client, again) = world.connect(0, response.session);
    assert_eq!(again.session, response.session);
    for _ in 0..30 {
        world.advance_ms(1000);
        let mut bytes = Vec::new();
        Op::Ping.submit(&mut world, client, &mut bytes);
        world.received(client, &bytes);
        world.settle();
    }
    assert!(!world.peer(client).closed && world.pipeline.database().sessions.contains(response.session));
}

fn set_root() -> Op {
    Op::SetData { path: "/".into(), data: None, version: None }
}
