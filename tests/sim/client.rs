//! Simulated clients: what they ask, how they behave when connections break, and what they remember.

use std::collections::{BTreeSet, VecDeque};

use ringkeeper::client::{Conversation, WatchType};
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::{CreateMode, EventType, OpCode, XID_AUTH, XID_PING};
use ringkeeper::request::Database;
use ringkeeper::stdx::rng::Rng;
use ringkeeper::types::{SessionId, Zxid};

use super::model::Watches;
use super::ops::{List, Op, USERS, Users};
use super::shape::Shape;

/// How one client goes about it, for all its life.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub users: Users,
    /// Brings its watches again after a reconnect.
    pub rearms: bool,
    /// Now and then takes a second connection without closing the first.
    pub moves: bool,
    /// Now and then forgets its session and begins another.
    pub abandons: bool,
    /// Keeps to few nodes that all others want too.
    pub contends: bool,
}

pub struct Client {
    pub habits: Habits,
    pub session: SessionId,
    pub zxid_seen: Zxid,
    xid_last: i32,
    /// The connection it speaks through.
    pub stream: Option<u32>,
    /// As it knows them by its replies and events.
    pub watches: Watches,
    /// Of its data watches, those left by an exists that found nothing.
    pub missing: BTreeSet<String>,
    /// The step planned last; earlier ones mean nothing.
    pub generation: u32,
    pub heard: u64,
    pub spoke: u64,
    /// Takes and sends nothing until then.
    pub silent_until: u64,
    /// In the liveness phase: its last write was answered.
    pub is_done: bool,
    pub final_asked: bool,
}

impl Client {
    pub fn new(rng: &mut Rng) -> Client {
        let habits = Habits {
            users: Users(rng.below(1 << USERS) as u8),
            rearms: rng.below(4) > 0,
            moves: rng.below(3) == 0,
            abandons: rng.below(6) == 0,
            contends: rng.below(2) == 0,
        };
        Client {
            habits,
            session: SessionId::NONE,
            zxid_seen: Zxid::ZERO,
            xid_last: 0,
            stream: None,
            watches: Watches::default(),
            missing: BTreeSet::new(),
            generation: 0,
            heard: 0,
            spoke: 0,
            silent_until: 0,
            is_done: false,
            final_asked: false,
        }
    }

    /// The xid of its next request. Ascends as long as the client lives, so that it is unique in each of its sessions.
    pub fn next_xid(&mut self, op: &Op) -> i32 {
        match op {
            Op::Ping => XID_PING,
            Op::Auth { .. } => XID_AUTH,
            _ => {
                self.xid_last += 1;
                self.xid_last
            }
        }
    }

    /// Its session is over.
    pub fn forget_session(&mut self) {
        self.session = SessionId::NONE;
        self.watches = Watches::default();
        self.missing.clear();
    }

    /// What an answered request leaves it to remember.
    pub fn answered(&mut self, op: &Op, err: i32) {
        self.watches.register(op, err);
        match op {
            Op::Exists { path, watch: true } if err == ErrorCode::NoNode.code() => {
                self.missing.insert(path.clone());
            }
            Op::Exists { path, watch: true } | Op::GetData { path, watch: true } if err == 0 => {
                self.missing.remove(path);
            }
            Op::RemoveWatches { path, kind } if err == 0 => {
                self.watches.remove(path, *kind);
            }
            _ => {}
        }
    }

    pub fn told(&mut self, kind: EventType, path: &str) {
        self.watches.heard(kind, path);
        self.missing.remove(path);
    }
}

/// A client's end of one connection.
pub struct End {
    pub client: usize,
    pub conversation: Conversation,
    /// The handshake was answered; of `History::connections`.
    pub connection: Option<usize>,
    /// Requested with the handshake.
    pub session: SessionId,
    pub zxid_seen: Zxid,
    /// Of `History::asked`.
    pub pending: VecDeque<usize>,
}

/// What is asked next. It looks into a server's state, so that conditions often hold and contention often succeeds.
pub fn next_op(shape: &Shape, habits: Habits, state: Option<&Database>, rng: &mut Rng) -> Op {
    let mut next = Next { shape, habits, state, rng };
    next.op()
}

struct Next<'a> {
    shape: &'a Shape,
    habits: Habits,
    state: Option<&'a Database>,
    rng: &'a mut Rng,
}

impl Next<'_> {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn op(&mut self) -> Op {
        let write = self.chance(self.shape.writes);
        if write {
            return match self.rng.below(100) {
                0..80 => self.change(),
                80..83 => {
                    // Not the root's: nothing could be made any more.
                    let path = self.existing();
                    let acl = if path == "/" { List::Open } else { self.list() };
                    Op::SetAcl { path, acl, version: None }
                }
                83..99 => self.multi(),
                _ if self.chance(20) => Op::Close,
                _ => self.change(),
            };
        }
        let watch = self.chance(40);
        match self.rng.below(100) {
            0..20 => Op::Exists { path: self.path(), watch },
            20..45 => Op::GetData { path: self.existing(), watch },
            45..58 => Op::GetChildren { path: self.existing(), watch },
            58..70 => Op::GetChildren2 { path: self.existing(), watch },
            70..74 => Op::GetAcl { path: self.existing() },
            74..78 => Op::Count { path: self.existing() },
            78..82 => Op::GetEphemerals,
            82..87 => Op::AddWatch { path: self.path_sound(), recursive: watch },
            87..90 => {
                let kinds = [
                    WatchType::Any,
                    WatchType::Data,
                    WatchType::Children,
                    WatchType::Persistent,
                    WatchType::PersistentRecursive,
                ];
                let kind = kinds[self.rng.below(kinds.len() as u64) as usize];
                Op::RemoveWatches { path: self.path_sound(), kind }
            }
            90..97 => Op::Sync { path: "/".into() },
            _ => Op::Ping,
        }
    }

    fn multi(&mut self) -> Op {
        let count = 1 + self.rng.below(5);
        let ops = (0..count).map(|_| {
            loop {
                if self.chance(20) {
                    let path = self.existing();
                    break Op::Check { version: self.version(&path), path };
                }
                let op = self.change();
                // Containers and nodes with a time to live are made one at a time.
                if !matches!(op, Op::Create { op: OpCode::CreateContainer | OpCode::CreateTtl, .. }) {
                    break op;
                }
            }
        });
        Op::Multi(ops.collect())
    }

    fn change(&mut self) -> Op {
        let is_crowded = self.state.is_some_and(|state| state.tree.node_count() > self.shape.nodes_max);
        match self.rng.below(100) {
            0..45 if !is_crowded || self.chance(10) => self.create(),
            0..65 => {
                let path = self.leaf();
                Op::Delete { version: self.version(&path), path }
            }
            _ => {
                let path = self.existing();
                Op::SetData { version: self.version(&path), path, data: self.data() }
            }
        }
    }

    fn create(&mut self) -> Op {
        let (op, mode, ttl_ms) = match self.rng.below(20) {
            0..6 => (OpCode::Create, CreateMode::Persistent, 0),
            6..8 => (OpCode::Create2, CreateMode::Persistent, 0),
            8..10 => (OpCode::Create, CreateMode::Ephemeral, 0),
            10 => (OpCode::Create2, CreateMode::Ephemeral, 0),
            11..14 => (OpCode::Create, CreateMode::PersistentSequential, 0),
            14..18 => (OpCode::Create2, CreateMode::EphemeralSequential, 0),
            18 => (OpCode::CreateContainer, CreateMode::Container, 0),
            _ => (OpCode::CreateTtl, CreateMode::PersistentTtl, self.rng.below(4) as i64 * 1000),
        };
        let acl = if self.chance(90) { List::Open } else { self.list() };
        Op::Create { op, path: self.path(), data: self.data(), acl, flags: mode as i32, ttl_ms }
    }

    fn list(&mut self) -> List {
        let user = self.rng.below(USERS as u64) as usize;
        match self.rng.below(8) {
            0..4 => List::Open,
            4 => List::Read,
            5 => List::Owned(user),
            _ => List::OwnedRead(user),
        }
    }

    fn path(&mut self) -> String {
        if self.chance(2) {
            return "/a/".into();
        }
        self.path_sound()
    }

    fn path_sound(&mut self) -> String {
        if self.habits.contends && self.chance(70) {
            return if self.chance(50) { "/a".into() } else { "/a/x".into() };
        }
        let depth = 1 + self.rng.below(3);
        let mut path = String::new();
        for level in 0..depth {
            let first = if level == 0 { b'a' } else { b'x' - 3 };
            path.push('/');
            path.push(char::from(first + self.rng.below(self.shape.names) as u8));
        }
        if self.chance(2) { "/".into() } else { path }
    }

    /// A node that is there, mostly.
    fn existing(&mut self) -> String {
        let Some(state) = self.state.filter(|_| self.rng.below(100) < 75) else { return self.path_sound() };
        let mut node = state.tree.root();
        for _ in 0..1 + self.rng.below(3) {
            let Some(child) = self.child(state, node) else { break };
            node = child;
        }
        let path = state.tree.path(node);
        if path.starts_with("/zookeeper") || path.is_empty() { self.path_sound() } else { path }
    }

    fn leaf(&mut self) -> String {
        let Some(state) = self.state.filter(|_| self.rng.below(100) < 75) else { return self.path_sound() };
        let mut node = state.tree.root();
        while let Some(child) = self.child(state, node) {
            node = child;
        }
        let path = state.tree.path(node);
        if path.starts_with("/zookeeper") || path.is_empty() { self.path_sound() } else { path }
    }

    fn child(
        &mut self,
        state: &Database,
        node: ringkeeper::tree::NodeId,
    ) -> Option<ringkeeper::tree::NodeId> {
        let count = state.tree.child_count(node) as u64;
        if count == 0 {
            return None;
        }
        // The order of children means nothing, and must not matter.
        let mut children: Vec<_> =
            state.tree.children(node).map(|child| (state.tree.name(child).to_owned(), child)).collect();
        children.sort();
        let place = self.rng.below(count) as usize;
        children.get(place).map(|(_, child)| *child)
    }

    /// Mostly the present one, so that conditions often hold.
    fn version(&mut self, path: &str) -> Option<i32> {
        match self.rng.below(10) {
            0..5 => None,
            5..9 => {
                let tree = &self.state?.tree;
                Some(tree.find(path).map_or(0, |node| tree.stat(node).version))
            }
            _ => Some(self.rng.below(5) as i32),
        }
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let byte = self.rng.next_u64() as u8;
        match self.rng.below(100) {
            0..5 => None,
            5..10 => Some(Vec::new()),
            10..13 => Some(vec![byte; self.rng.below(9000) as usize]),
            _ => Some(vec![byte; self.rng.below(60) as usize]),
        }
    }
}
