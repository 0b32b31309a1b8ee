//! The tree as a plain map from path to node, changed by requests: what the checker compares every reply with.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringkeeper::client::{MultiResult, Response, WatchType};
use ringkeeper::proto::client::{EventType, OpCode};
use ringkeeper::proto::{ErrorCode, NodeKind, Perms, Stat, StatPersisted};
use ringkeeper::tree::digest;
use ringkeeper::types::{SessionId, Zxid};

use super::ops::{List, Op, Rearm, Users};

/// Nodes that cannot be deleted.
const SPECIAL: [&str; 4] = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];

/// What one operation should be answered.
pub type Expected = Result<Response, ErrorCode>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub data: Option<Rc<[u8]>>,
    pub acl: List,
    pub children: BTreeSet<Rc<str>>,
    /// As stored: its cversion counts creations only.
    pub stat: StatPersisted,
}

/// A change of one node, with the lists that say who may hear of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub kind: EventType,
    pub path: String,
    pub acl: List,
    pub parent_acl: List,
}

/// The state behind a number of transactions.
#[derive(Clone, Default)]
pub struct Model {
    nodes: BTreeMap<String, Node>,
    pub sessions: BTreeSet<SessionId>,
    pub zxid: Zxid,
    digest: u64,
    /// Of the transaction applied last.
    pub changes: Vec<Change>,
    /// Nodes as they were before the transaction under way.
    undo: Vec<(String, Option<Node>)>,
}

impl Model {
    pub fn new() -> Model {
        let mut model = Model::default();
        for path in SPECIAL {
            let is_config = path.ends_with("config");
            let stat = StatPersisted { aversion: -i32::from(is_config), ..StatPersisted::default() };
            let acl = if is_config { List::Read } else { List::Open };
            let node = Node { data: Some(Rc::from(&b""[..])), acl, children: BTreeSet::new(), stat };
            model.put(path, Some(node));
            if path != "/" {
                let (parent, name) = split(path);
                model.change_node(parent, |node| {
                    node.children.insert(name.into());
                });
            }
        }
        model.undo.clear();
        model
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    /// As clients see it.
    pub fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        node.stat.to_wire(node.data.as_ref().map_or(0, |data| data.len()), node.children.len())
    }

    pub fn ephemerals_of(&self, session: SessionId) -> Vec<String> {
        let owned = |node: &Node| node.stat.kind() == NodeKind::Ephemeral(session);
        self.nodes.iter().filter(|(_, node)| owned(node)).map(|(path, _)| path.clone()).collect()
    }

    /// Begins the transaction of `zxid`.
    pub fn begin(&mut self, zxid: Zxid) {
        self.zxid = zxid;
        self.changes.clear();
        self.undo.clear();
    }

    /// A session's write in the transaction begun, at that wall clock. Closing a session that is there is [`Model::end_session`]'s.
    pub fn write(&mut self, session: SessionId, users: Users, op: &Op, wall_ms: i64) -> Expected {
        let by = By { session, users, wall_ms };
        match op {
            Op::Multi(ops) => {
                let mut results = Vec::new();
                for (index, op) in ops.iter().enumerate() {
                    match self.change(by, op) {
                        Ok(response) => results.push(MultiResult::Done { op: op.number(), response }),
                        Err(error) => {
                            self.roll_back();
                            let err_at = |at: usize| match at.cmp(&index) {
                                std::cmp::Ordering::Less => ErrorCode::Ok,
                                std::cmp::Ordering::Equal => error,
                                std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency,
                            };
                            let all = (0..ops.len()).map(|at| MultiResult::Failed { err: err_at(at).code() });
                            return Ok(Response::Multi(all.collect()));
                        }
                    }
                }
                Ok(Response::Multi(results))
            }
            Op::Close => Err(ErrorCode::SessionExpired),
            op => {
                let result = self.change(by, op);
                assert!(result.is_ok() || self.undo.is_empty(), "what fails changes nothing");
                result
            }
        }
    }

    /// The session's ephemerals go with it, in the order of their paths.
    pub fn end_session(&mut self, session: SessionId) -> Vec<String> {
        let own = self.ephemerals_of(session);
        own.iter().for_each(|path| self.remove(path));
        self.sessions.remove(&session);
        own
    }

    /// The server's own removal of an empty container or a node whose time has passed. False: it must not go.
    pub fn sweep(&mut self, path: &str) -> bool {
        let may = self.nodes.get(path).is_some_and(|node| {
            node.children.is_empty() && matches!(node.stat.kind(), NodeKind::Container | NodeKind::Ttl(_))
        });
        if may {
            self.remove(path);
        }
        may
    }

    fn change(&mut self, by: By, op: &Op) -> Expected {
        if !self.sessions.contains(&by.session) {
            return Err(ErrorCode::SessionExpired);
        }
        match op {
            Op::Create { .. } => self.create(by, op),
            Op::Delete { path, version } => {
                if SPECIAL.contains(&path.as_str()) {
                    return Err(ErrorCode::BadArguments);
                }
                let parent = self.nodes.get(split(path).0).ok_or(ErrorCode::NoNode)?;
                allowed(parent, Perms::DELETE, by.users)?;
                let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
                check(*version, node.stat.version)?;
                if !node.children.is_empty() {
                    return Err(ErrorCode::NotEmpty);
                }
                self.remove(path);
                Ok(Response::None)
            }
            Op::SetData { path, data, version } => {
                let node = self.target(path)?;
                allowed(node, Perms::WRITE, by.users)?;
                check(*version, node.stat.version)?;
                let zxid = self.zxid;
                self.change_node(path, |node| {
                    node.data = data.as_deref().map(Rc::from);
                    node.stat.version += 1;
                    node.stat.mzxid = zxid;
                    node.stat.mtime_ms = by.wall_ms;
                });
                self.tell(EventType::NodeDataChanged, path, None);
                Ok(Response::Stat(self.stat(path)))
            }
            Op::SetAcl { path, acl, version } => {
                let node = self.target(path)?;
                allowed(node, Perms::ADMIN, by.users)?;
                check(*version, node.stat.aversion)?;
                self.change_node(path, |node| {
                    node.acl = *acl;
                    node.stat.aversion += 1;
                });
                Ok(Response::Stat(self.stat(path)))
            }
            Op::Check { path, version } => {
                let node = self.target(path)?;
                allowed(node, Perms::READ, by.users)?;
                check(*version, node.stat.version)?;
                Ok(Response::None)
            }
            other => unreachable!("{other:?} changes nothing"),
        }
    }

    fn create(&mut self, by: By, create: &Op) -> Expected {
        let Op::Create { op, path, data, acl, flags, ttl_ms } = create else { unreachable!() };
        if *op == OpCode::CreateTtl && *ttl_ms <= 0 {
            return Err(ErrorCode::BadArguments);
        }
        let (parent_path, _) = split(path);
        let parent = self.nodes.get(parent_path).ok_or(ErrorCode::NoNode)?;
        allowed(parent, Perms::CREATE, by.users)?;
        let path = match [2, 3, 6].contains(flags) {
            true => format!("{path}{:010}", parent.stat.cversion),
            false => path.clone(),
        };
        if path.len() > 1 && path.ends_with('/') {
            return Err(ErrorCode::BadArguments);
        }
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if matches!(parent.stat.kind(), NodeKind::Ephemeral(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let zxid = self.zxid;
        let name = &path[path.rfind('/').expect("a path has a slash") + 1..];
        self.change_node(parent_path, |parent| {
            parent.children.insert(name.into());
            parent.stat.cversion += 1;
            parent.stat.pzxid = zxid;
        });
        let kind = match op {
            OpCode::CreateContainer => NodeKind::Container,
            OpCode::CreateTtl => NodeKind::Ttl(*ttl_ms),
            _ if [1, 3].contains(flags) => NodeKind::Ephemeral(by.session),
            _ => NodeKind::Persistent,
        };
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: by.wall_ms,
            mtime_ms: by.wall_ms,
            ephemeral_owner: kind.owner(),
            ..StatPersisted::default()
        };
        let data = data.as_deref().map(Rc::from);
        self.put(&path, Some(Node { data, acl: *acl, children: BTreeSet::new(), stat }));
        self.tell(EventType::NodeCreated, &path, None);
        Ok(match op {
            OpCode::Create => Response::Path(Some(path)),
            _ => Response::Created { stat: self.stat(&path), path },
        })
    }

    fn target(&self, path: &str) -> Result<&Node, ErrorCode> {
        if path.len() > 1 && path.ends_with('/') {
            return Err(ErrorCode::BadArguments);
        }
        self.nodes.get(path).ok_or(ErrorCode::NoNode)
    }

    fn remove(&mut self, path: &str) {
        let acl = self.nodes[path].acl;
        self.put(path, None);
        let zxid = self.zxid;
        let (parent, name) = split(path);
        self.change_node(parent, |node| {
            node.children.remove(name);
            node.stat.pzxid = zxid;
        });
        self.tell(EventType::NodeDeleted, path, Some(acl));
    }

    fn tell(&mut self, kind: EventType, path: &str, acl: Option<List>) {
        let acl = acl.unwrap_or_else(|| self.nodes[path].acl);
        let parent_acl = self.nodes.get(split(path).0).map_or(List::Open, |node| node.acl);
        self.changes.push(Change { kind, path: path.to_owned(), acl, parent_acl });
    }

    fn change_node(&mut self, path: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.nodes[path].clone();
        change(&mut node);
        self.put(path, Some(node));
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        let after = node.as_ref().map_or(0, |node| node_digest(path, node));
        let before = match node {
            Some(node) => self.nodes.insert(path.to_owned(), node),
            None => self.nodes.remove(path),
        };
        let gone = before.as_ref().map_or(0, |node| node_digest(path, node));
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(after);
        self.undo.push((path.to_owned(), before));
    }

    fn roll_back(&mut self) {
        for (path, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            self.put(&path, before);
        }
        self.undo.clear();
        self.changes.clear();
    }

    /// What a read of this state shows.
    pub fn read(&self, session: SessionId, users: Users, op: &Op) -> Expected {
        let readable = |path: &String| {
            let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
            allowed(node, Perms::READ, users)?;
            Ok(node)
        };
        let names = |node: &Node| node.children.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        Ok(match op {
            Op::Exists { path, .. } => {
                readable(path)?;
                Response::Stat(self.stat(path))
            }
            Op::GetData { path, .. } => {
                let node = readable(path)?;
                Response::Data { data: node.data.as_deref().map(<[u8]>::to_vec), stat: self.stat(path) }
            }
            Op::GetChildren { path, .. } => Response::Paths(names(readable(path)?)),
            Op::GetChildren2 { path, .. } => {
                Response::Children { children: names(readable(path)?), stat: self.stat(path) }
            }
            Op::GetAcl { path } => {
                let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
                allowed(node, Perms::READ | Perms::ADMIN, users)?;
                Response::Acl { acl: node.acl.shown_to(users), stat: self.stat(path) }
            }
            Op::Count { path } => {
                readable(path)?;
                let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
                let below = self
                    .nodes
                    .range(prefix.clone()..)
                    .take_while(|(other, _)| other.starts_with(&prefix))
                    .filter(|(other, _)| *other != "/");
                Response::Count(below.count() as i32)
            }
            Op::GetEphemerals => Response::Paths(self.ephemerals_of(session)),
            Op::AddWatch { .. } => Response::AddWatch { err: 0 },
            Op::Sync { path } => Response::Path(Some(path.clone())),
            Op::RemoveWatches { .. } | Op::SetWatches(_) | Op::Ping | Op::Auth { .. } => Response::None,
            other => unreachable!("{other:?} is no read"),
        })
    }
}

/// Who asks, and when.
#[derive(Clone, Copy)]
struct By {
    session: SessionId,
    users: Users,
    wall_ms: i64,
}

fn node_digest(path: &str, node: &Node) -> u64 {
    let path = if path == "/" { "" } else { path };
    digest::node_digest(path, digest::content_crc(path, node.data.as_deref()), &node.stat)
}

fn allowed(node: &Node, wanted: Perms, users: Users) -> Result<(), ErrorCode> {
    if node.acl.allows(wanted, users) { Ok(()) } else { Err(ErrorCode::NoAuth) }
}

fn check(expected: Option<i32>, version: i32) -> Result<(), ErrorCode> {
    match expected {
        Some(expected) if expected != version => Err(ErrorCode::BadVersion),
        _ => Ok(()),
    }
}

/// Parent and name; the parent of `/a` is `/`.
pub fn split(path: &str) -> (&str, &str) {
    let at = path.rfind('/').expect("a path has a slash");
    (if at == 0 { "/" } else { &path[..at] }, &path[at + 1..])
}

/// The watches of one connection.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    data: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watches {
    pub fn is_empty(&self) -> bool {
        [&self.data, &self.child, &self.persistent, &self.recursive].iter().all(|set| set.is_empty())
    }

    /// The events of one change, each once for the connection however many watches it meets.
    pub fn fire(&mut self, change: &Change, users: Users, events: &mut Vec<(EventType, String)>) {
        let path = change.path.as_str();
        let mut meets = self.data.remove(path);
        if change.kind == EventType::NodeDeleted {
            meets |= self.child.remove(path);
        }
        meets |= self.persistent.contains(path);
        let mut at = path;
        loop {
            meets |= self.recursive.contains(at);
            if at == "/" {
                break;
            }
            at = split(at).0;
        }
        if meets && change.acl.allows(Perms::READ, users) {
            events.push((change.kind, path.to_owned()));
        }
        if change.kind != EventType::NodeDataChanged {
            let parent = split(path).0;
            if (self.child.remove(parent) | self.persistent.contains(parent))
                && change.parent_acl.allows(Perms::READ, users)
            {
                events.push((EventType::NodeChildrenChanged, parent.to_owned()));
            }
        }
    }

    /// What a request leaves that was answered like this.
    pub fn register(&mut self, op: &Op, err: i32) {
        let is_ok = err == 0;
        match op {
            Op::Exists { path, watch: true } if is_ok || err == ErrorCode::NoNode.code() => {
                self.data.insert(path.clone());
            }
            Op::GetData { path, watch: true } if is_ok => {
                self.data.insert(path.clone());
            }
            Op::GetChildren { path, watch: true } | Op::GetChildren2 { path, watch: true } if is_ok => {
                self.child.insert(path.clone());
            }
            Op::AddWatch { path, recursive: false } => {
                self.persistent.insert(path.clone());
            }
            Op::AddWatch { path, recursive: true } => {
                self.recursive.insert(path.clone());
            }
            _ => {}
        }
    }

    /// Whether there was one.
    pub fn remove(&mut self, path: &str, kind: WatchType) -> bool {
        let any = kind == WatchType::Any;
        let mut found = false;
        for (set, own) in [
            (&mut self.data, WatchType::Data),
            (&mut self.child, WatchType::Children),
            (&mut self.persistent, WatchType::Persistent),
            (&mut self.recursive, WatchType::PersistentRecursive),
        ] {
            found |= (any || kind == own) && set.remove(path);
        }
        found
    }

    /// What setWatches fires at once in this state; the rest is registered.
    pub fn rearm(&mut self, rearm: &Rearm, model: &Model) -> Vec<(EventType, String)> {
        let mut fired = Vec::new();
        for path in &rearm.data {
            match model.node(path) {
                None => fired.push((EventType::NodeDeleted, path.clone())),
                Some(node) if node.stat.mzxid > rearm.zxid_seen => {
                    fired.push((EventType::NodeDataChanged, path.clone()));
                }
                Some(_) => {
                    self.data.insert(path.clone());
                }
            }
        }
        for path in &rearm.exist {
            if model.node(path).is_some() {
                fired.push((EventType::NodeCreated, path.clone()));
            } else {
                self.data.insert(path.clone());
            }
        }
        for path in &rearm.child {
            match model.node(path) {
                None => fired.push((EventType::NodeDeleted, path.clone())),
                Some(node) if node.stat.pzxid > rearm.zxid_seen => {
                    fired.push((EventType::NodeChildrenChanged, path.clone()));
                }
                Some(_) => {
                    self.child.insert(path.clone());
                }
            }
        }
        self.persistent.extend(rearm.persistent.iter().cloned());
        self.recursive.extend(rearm.recursive.iter().cloned());
        fired
    }

    /// As a client knows them after its events: what it would bring again. `exist` are watches on nodes that were missing.
    pub fn to_rearm(&self, zxid_seen: Zxid, missing: &BTreeSet<String>) -> Rearm {
        let (exist, data) = self.data.iter().cloned().partition(|path| missing.contains(path));
        Rearm {
            zxid_seen,
            data,
            exist,
            child: self.child.iter().cloned().collect(),
            persistent: self.persistent.iter().cloned().collect(),
            recursive: self.recursive.iter().cloned().collect(),
        }
    }

    /// An event came: the one-shot watches it stands for are gone. Source: ZooKeeper `ZKWatchManager#materialize`.
    pub fn heard(&mut self, kind: EventType, path: &str) {
        match kind {
            EventType::NodeCreated | EventType::NodeDataChanged => {
                self.data.remove(path);
            }
            EventType::NodeDeleted => {
                self.data.remove(path);
                self.child.remove(path);
            }
            EventType::NodeChildrenChanged => {
                self.child.remove(path);
            }
        }
    }
}
