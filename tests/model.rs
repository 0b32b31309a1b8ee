//! The node against a plain model: every reply, stat, error and event of random operations of several sessions on several
//! fronts, with log writes held back and completed in any order, and with power losses in between (C1-C8, P7, P8, S6).
//!
//! Method: every write's reply carries its zxid and every read's the zxid of the state it shows. So a history is checked by
//! applying its writes to the model in zxid order, with each read compared where it says it belongs. What was written to the log
//! and never answered is found there by session and cxid, and applied to the model too.

#[path = "support/node.rs"]
#[allow(dead_code)]
mod node;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use node::{Handle, Recovered, SESSION_TIMEOUT_MS, World, recover_from};
use ringkeeper::client::{ACL_OPEN, ACL_READ, Message, MultiResult, Reply, Request, Response, WatchMode};
use ringkeeper::proto::client::{CreateMode, EventType, OpCode};
use ringkeeper::proto::{ErrorCode, NodeKind, Stat};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::tree::digest;
use ringkeeper::types::{Instant, Now, SessionId, Zxid};

const SESSIONS: usize = 5;
const FRONTS: usize = 2;
const RUNS: u64 = 12;
const BATCHES: usize = 40;

/// A request that owns what it names.
#[derive(Clone, Debug)]
enum Op {
    Create { op: OpCode, path: String, data: Option<Vec<u8>>, open: bool, flags: i32, ttl_ms: i64 },
    Delete { path: String, version: Option<i32> },
    SetData { path: String, data: Option<Vec<u8>>, version: Option<i32> },
    SetAcl { path: String, open: bool, version: Option<i32> },
    Check { path: String, version: Option<i32> },
    Multi(Vec<Op>),
    Exists { path: String, watch: bool },
    GetData { path: String, watch: bool },
    GetChildren { path: String, watch: bool },
    GetChildren2 { path: String, watch: bool },
    GetAcl { path: String },
    Count { path: String },
    AddWatch { path: String, recursive: bool },
    Ping,
    Close,
}

impl Op {
    fn is_write(&self) -> bool {
        use Op::*;
        matches!(self, Create { .. } | Delete { .. } | SetData { .. } | SetAcl { .. } | Multi(_) | Close)
    }

    fn request(&self) -> Request<'_> {
        let acl = |open| Some(if open { ACL_OPEN } else { ACL_READ });
        match self {
            Op::Create { op, path, data, open, flags, ttl_ms } => Request::Create {
                op: *op,
                path,
                data: data.as_deref(),
                acl: acl(*open),
                flags: *flags,
                ttl_ms: *ttl_ms,
            },
            Op::Delete { path, version } => Request::Delete { path, version: *version },
            Op::SetData { path, data, version } => {
                Request::SetData { path, data: data.as_deref(), version: *version }
            }
            Op::SetAcl { path, open, version } => {
                Request::SetAcl { path, acl: acl(*open), version: *version }
            }
            Op::Check { path, version } => Request::Check { path, version: *version },
            Op::Multi(_) => unreachable!("its elements must live: see `submit`"),
            Op::Exists { path, watch } => Request::Exists { path, watch: *watch },
            Op::GetData { path, watch } => Request::GetData { path, watch: *watch },
            Op::GetChildren { path, watch } => Request::GetChildren { path, watch: *watch },
            Op::GetChildren2 { path, watch } => Request::GetChildren2 { path, watch: *watch },
            Op::GetAcl { path } => Request::GetAcl { path },
            Op::Count { path } => Request::GetAllChildrenNumber { path },
            Op::AddWatch { path, recursive } => {
                let mode = if *recursive { WatchMode::PersistentRecursive } else { WatchMode::Persistent };
                Request::AddWatch { path, mode }
            }
            Op::Ping => Request::Ping,
            Op::Close => Request::CloseSession,
        }
    }

    fn submit(&self, world: &mut World, handle: Handle, out: &mut Vec<u8>) -> i32 {
        match self {
            Op::Multi(ops) => {
                let requests: Vec<Request<'_>> = ops.iter().map(Op::request).collect();
                world.submit(handle, &Request::Multi(&requests), out)
            }
            op => world.submit(handle, &op.request(), out),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Node {
    data: Option<Vec<u8>>,
    open: bool,
    /// Counts creates of children only.
    made: i32,
    stat: Stat,
}

/// The tree as a sorted map from path to node; the root is "/".
#[derive(Clone, Default)]
struct Model {
    nodes: BTreeMap<String, Node>,
    zxid: Zxid,
    wall_ms: i64,
    /// Of the transaction being applied.
    changes: Vec<(EventType, String)>,
}

/// One operation's answer: what a reply holds, or an error.
type Answer = Result<Response, ErrorCode>;

impl Model {
    fn new() -> Model {
        let mut model = Model::default();
        for path in ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            let is_config = path.ends_with("config");
            let stat = Stat { aversion: -i32::from(is_config), ..Stat::default() };
            let node = Node { data: Some(Vec::new()), open: !is_config, made: 0, stat };
            model.nodes.insert(path.into(), node);
        }
        model
    }

    fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        self.nodes
            .keys()
            .filter_map(|other| other.strip_prefix(&prefix))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// As clients see it: a listing's version counts creates and deletes.
    fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let child_count = self.children(path).len() as i32;
        Stat {
            data_bytes: node.data.as_ref().map_or(0, Vec::len) as i32,
            child_count,
            cversion: node.made * 2 - child_count,
            ephemeral_owner: match NodeKind::of_owner(node.stat.ephemeral_owner) {
                NodeKind::Ephemeral(session) => session.0,
                _ => 0,
            },
            ..node.stat
        }
    }

    /// One write of a session under the next zxid.
    fn write(&mut self, session: SessionId, op: &Op) -> Answer {
        self.zxid = self.zxid.next();
        self.changes.clear();
        match op {
            Op::Multi(ops) => {
                let before = self.nodes.clone();
                let mut results = Vec::new();
                for (index, op) in ops.iter().enumerate() {
                    match self.change(session, op) {
                        Ok(response) => results.push(MultiResult::Done { op: op.request().op(), response }),
                        Err(error) => {
                            self.nodes = before;
                            self.changes.clear();
                            let failed = |position: usize| match position.cmp(&index) {
                                std::cmp::Ordering::Less => ErrorCode::Ok,
                                std::cmp::Ordering::Equal => error,
                                std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency,
                            };
                            let all = (0..ops.len()).map(|at| MultiResult::Failed { err: failed(at).code() });
                            return Ok(Response::Multi(all.collect()));
                        }
                    }
                }
                Ok(Response::Multi(results))
            }
            Op::Close => {
                self.end_session(session);
                Ok(Response::None)
            }
            op => self.change(session, op),
        }
    }

    fn end_session(&mut self, session: SessionId) {
        let own: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.stat.ephemeral_owner == session.0)
            .map(|(path, _)| path.clone())
            .collect();
        own.iter().for_each(|path| self.remove(path));
    }

    fn change(&mut self, session: SessionId, op: &Op) -> Answer {
        let zxid = self.zxid;
        match op {
            Op::Create { op, path, data, open, flags, ttl_ms } => {
                if *op == OpCode::CreateTtl && *ttl_ms <= 0 {
                    return Err(ErrorCode::BadArguments);
                }
                let (parent_path, _) = parent_of(path);
                let parent = self.nodes.get(parent_path).ok_or(ErrorCode::NoNode)?;
                if !parent.open {
                    return Err(ErrorCode::NoAuth);
                }
                let is_sequential = [2, 3, 6].contains(flags);
                let path = match is_sequential {
                    true => format!("{path}{:010}", parent.made),
                    false => path.clone(),
                };
                if path.len() > 1 && path.ends_with('/') {
                    return Err(ErrorCode::BadArguments);
                }
                if self.nodes.contains_key(&path) {
                    return Err(ErrorCode::NodeExists);
                }
                if matches!(NodeKind::of_owner(parent.stat.ephemeral_owner), NodeKind::Ephemeral(_)) {
                    return Err(ErrorCode::NoChildrenForEphemerals);
                }
                let parent = self.nodes.get_mut(parent_path).expect("found above");
                parent.made += 1;
                parent.stat.pzxid = zxid;
                let ephemeral_owner = match op {
                    OpCode::CreateContainer => NodeKind::Container.owner(),
                    OpCode::CreateTtl => NodeKind::Ttl(*ttl_ms).owner(),
                    _ if [1, 3].contains(flags) => session.0,
                    _ => 0,
                };
                let stat = Stat {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime_ms: self.wall_ms,
                    mtime_ms: self.wall_ms,
                    ephemeral_owner,
                    ..Stat::default()
                };
                self.nodes.insert(path.clone(), Node { data: data.clone(), open: *open, made: 0, stat });
                self.changes.push((EventType::NodeCreated, path.clone()));
                Ok(match op {
                    OpCode::Create => Response::Path(Some(path)),
                    _ => Response::Created { stat: self.stat(&path), path },
                })
            }
            Op::Delete { path, version } => {
                let (parent_path, _) = parent_of(path);
                if ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"].contains(&path.as_str()) {
                    return Err(ErrorCode::BadArguments);
                }
                if !self.nodes.get(parent_path).ok_or(ErrorCode::NoNode)?.open {
                    return Err(ErrorCode::NoAuth);
                }
                let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
                check(*version, node.stat.version)?;
                if !self.children(path).is_empty() {
                    return Err(ErrorCode::NotEmpty);
                }
                self.remove(path);
                Ok(Response::None)
            }
            Op::SetData { path, data, version } => {
                let wall_ms = self.wall_ms;
                let node = self.writable(path)?;
                check(*version, node.stat.version)?;
                node.data = data.clone();
                node.stat.version += 1;
                node.stat.mzxid = zxid;
                node.stat.mtime_ms = wall_ms;
                self.changes.push((EventType::NodeDataChanged, path.clone()));
                Ok(Response::Stat(self.stat(path)))
            }
            Op::SetAcl { path, open, version } => {
                let node = self.writable(path)?;
                check(*version, node.stat.aversion)?;
                node.open = *open;
                node.stat.aversion += 1;
                Ok(Response::Stat(self.stat(path)))
            }
            Op::Check { path, version } => {
                if path.len() > 1 && path.ends_with('/') {
                    return Err(ErrorCode::BadArguments);
                }
                let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
                check(*version, node.stat.version)?;
                Ok(Response::None)
            }
            other => unreachable!("{other:?} changes nothing"),
        }
    }

    fn writable(&mut self, path: &str) -> Result<&mut Node, ErrorCode> {
        if path.len() > 1 && path.ends_with('/') {
            return Err(ErrorCode::BadArguments);
        }
        let node = self.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
        if node.open { Ok(node) } else { Err(ErrorCode::NoAuth) }
    }

    fn remove(&mut self, path: &str) {
        self.nodes.remove(path).expect("the caller has looked");
        let (parent, _) = parent_of(path);
        self.nodes.get_mut(parent).expect("a node has a parent").stat.pzxid = self.zxid;
        self.changes.push((EventType::NodeDeleted, path.to_owned()));
    }

    fn read(&self, op: &Op) -> Answer {
        let find = |path: &String| {
            if self.nodes.contains_key(path) { Ok(self.stat(path)) } else { Err(ErrorCode::NoNode) }
        };
        Ok(match op {
            Op::Exists { path, .. } => Response::Stat(find(path)?),
            Op::GetData { path, .. } => {
                let stat = find(path)?;
                Response::Data { data: self.nodes[path].data.clone(), stat }
            }
            Op::GetChildren { path, .. } => {
                find(path)?;
                Response::Paths(self.children(path))
            }
            Op::GetChildren2 { path, .. } => {
                Response::Children { stat: find(path)?, children: self.children(path) }
            }
            Op::GetAcl { path } => {
                let stat = find(path)?;
                let acl = if self.nodes[path].open { ACL_OPEN } else { ACL_READ };
                Response::Acl { acl: acl.to_vec(), stat }
            }
            Op::Count { path } => {
                find(path)?;
                let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
                let below = self.nodes.keys().filter(|other| other.starts_with(&prefix) && *other != "/");
                Response::Count(below.count() as i32)
            }
            Op::AddWatch { .. } => Response::AddWatch { err: 0 },
            Op::Ping => Response::None,
            other => unreachable!("{other:?} is no read"),
        })
    }

    fn digest(&self) -> u64 {
        self.nodes.iter().fold(0, |sum, (path, node)| {
            let path = if path == "/" { "" } else { path };
            let stat = ringkeeper::proto::StatPersisted {
                czxid: node.stat.czxid,
                mzxid: node.stat.mzxid,
                ctime_ms: node.stat.ctime_ms,
                mtime_ms: node.stat.mtime_ms,
                version: node.stat.version,
                cversion: node.made,
                aversion: node.stat.aversion,
                ephemeral_owner: node.stat.ephemeral_owner,
                pzxid: node.stat.pzxid,
            };
            let crc = digest::content_crc(path, node.data.as_deref());
            sum.wrapping_add(digest::node_digest(path, crc, &stat))
        })
    }
}

fn check(expected: Option<i32>, version: i32) -> Result<(), ErrorCode> {
    match expected {
        Some(expected) if expected != version => Err(ErrorCode::BadVersion),
        _ => Ok(()),
    }
}

/// Parent and name; the parent of `/a` is `/`.
fn parent_of(path: &str) -> (&str, &str) {
    let (parent, name) = path.rsplit_once('/').expect("a path has a slash");
    (if parent.is_empty() { "/" } else { parent }, name)
}

/// What one connection watches.
#[derive(Default)]
struct Watches {
    data: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watches {
    /// The events of one change, each once for the connection however many watches it meets.
    fn fire(&mut self, kind: EventType, path: &str, events: &mut Vec<(EventType, String)>) {
        let mut meets = self.data.remove(path);
        if kind == EventType::NodeDeleted {
            meets |= self.child.remove(path);
        }
        let mut at = path;
        meets |= self.persistent.contains(path);
        loop {
            meets |= self.recursive.contains(at);
            if at == "/" {
                break;
            }
            at = parent_of(at).0;
        }
        if meets {
            events.push((kind, path.to_owned()));
        }
        if kind != EventType::NodeDataChanged {
            let parent = parent_of(path).0;
            if self.child.remove(parent) | self.persistent.contains(parent) {
                events.push((EventType::NodeChildrenChanged, parent.to_owned()));
            }
        }
    }

    /// Whether a persistent watch among these may tell of it.
    fn covers(&self, kind: EventType, path: &str) -> bool {
        let mut above = std::iter::successors(Some(path), |path| (*path != "/").then(|| parent_of(path).0));
        self.persistent.contains(path)
            || kind != EventType::NodeChildrenChanged && above.any(|path| self.recursive.contains(path))
    }

    /// What a read or addWatch that succeeded, or an exists that found nothing, leaves.
    fn register(&mut self, op: &Op, is_ok: bool) {
        match op {
            Op::Exists { path, watch: true } => {
                self.data.insert(path.clone());
            }
            Op::GetData { path, watch: true } if is_ok => {
                self.data.insert(path.clone());
            }
            Op::GetChildren { path, watch: true } | Op::GetChildren2 { path, watch: true } if is_ok => {
                self.child.insert(path.clone());
            }
            // One mode a path: the last. Source: client-protocol §8.
            Op::AddWatch { path, recursive: false } => {
                self.persistent.insert(path.clone());
            }
            Op::AddWatch { path, recursive: true } => {
                self.recursive.insert(path.clone());
            }
            _ => {}
        }
    }
}

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
