//! The plain model: a sorted map from path to node, and sets of watched paths.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::{Handle, World};
use ringkeeper::client::{ACL_OPEN, ACL_READ, MultiResult, Request, Response, WatchMode};
use ringkeeper::proto::client::{EventType, OpCode};
use ringkeeper::proto::{ErrorCode, NodeKind, Stat};
use ringkeeper::tree::digest;
use ringkeeper::types::{SessionId, Zxid};

/// A request that owns what it names.
#[derive(Clone, Debug)]
pub enum Op {
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
    pub fn is_write(&self) -> bool {
        use Op::*;
        matches!(self, Create { .. } | Delete { .. } | SetData { .. } | SetAcl { .. } | Multi(_) | Close)
    }

    pub fn request(&self) -> Request<'_> {
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

    pub fn submit(&self, world: &mut World, handle: Handle, out: &mut Vec<u8>) -> i32 {
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
pub struct Node {
    pub data: Option<Vec<u8>>,
    pub open: bool,
    /// Counts creates of children only.
    pub made: i32,
    pub stat: Stat,
}

/// The tree as a sorted map from path to node; the root is "/".
#[derive(Clone, Default)]
pub struct Model {
    pub nodes: BTreeMap<String, Node>,
    pub zxid: Zxid,
    pub wall_ms: i64,
    /// Of the transaction being applied.
    pub changes: Vec<(EventType, String)>,
}

/// One operation's answer: what a reply holds, or an error.
pub type Answer = Result<Response, ErrorCode>;

impl Model {
    pub fn new() -> Model {
        let mut model = Model::default();
        for path in ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            let is_config = path.ends_with("config");
            let stat = Stat { aversion: -i32::from(is_config), ..Stat::default() };
            let node = Node { data: Some(Vec::new()), open: !is_config, made: 0, stat };
            model.nodes.insert(path.into(), node);
        }
        model
    }

    pub fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        self.nodes
            .keys()
            .filter_map(|other| other.strip_prefix(&prefix))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// As clients see it: a listing's version counts creates and deletes.
    pub fn stat(&self, path: &str) -> Stat {
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
    pub fn write(&mut self, session: SessionId, op: &Op) -> Answer {
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

    pub fn end_session(&mut self, session: SessionId) {
        let own: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.stat.ephemeral_owner == session.0)
            .map(|(path, _)| path.clone())
            .collect();
        own.iter().for_each(|path| self.remove(path));
    }

    pub fn change(&mut self, session: SessionId, op: &Op) -> Answer {
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

    pub fn writable(&mut self, path: &str) -> Result<&mut Node, ErrorCode> {
        if path.len() > 1 && path.ends_with('/') {
            return Err(ErrorCode::BadArguments);
        }
        let node = self.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
        if node.open { Ok(node) } else { Err(ErrorCode::NoAuth) }
    }

    pub fn remove(&mut self, path: &str) {
        self.nodes.remove(path).expect("the caller has looked");
        let (parent, _) = parent_of(path);
        self.nodes.get_mut(parent).expect("a node has a parent").stat.pzxid = self.zxid;
        self.changes.push((EventType::NodeDeleted, path.to_owned()));
    }

    pub fn read(&self, op: &Op) -> Answer {
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

    pub fn digest(&self) -> u64 {
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

pub fn check(expected: Option<i32>, version: i32) -> Result<(), ErrorCode> {
    match expected {
        Some(expected) if expected != version => Err(ErrorCode::BadVersion),
        _ => Ok(()),
    }
}

/// Parent and name; the parent of `/a` is `/`.
pub fn parent_of(path: &str) -> (&str, &str) {
    let (parent, name) = path.rsplit_once('/').expect("a path has a slash");
    (if parent.is_empty() { "/" } else { parent }, name)
}

/// What one connection watches.
#[derive(Default)]
pub struct Watches {
    pub data: BTreeSet<String>,
    pub child: BTreeSet<String>,
    pub persistent: BTreeSet<String>,
    pub recursive: BTreeSet<String>,
}

impl Watches {
    /// The events of one change, each once for the connection however many watches it meets.
    pub fn fire(&mut self, kind: EventType, path: &str, events: &mut Vec<(EventType, String)>) {
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
    pub fn covers(&self, kind: EventType, path: &str) -> bool {
        let mut above = std::iter::successors(Some(path), |path| (*path != "/").then(|| parent_of(path).0));
        self.persistent.contains(path)
            || kind != EventType::NodeChildrenChanged && above.any(|path| self.recursive.contains(path))
    }

    /// What a read or addWatch that succeeded, or an exists that found nothing, leaves.
    pub fn register(&mut self, op: &Op, is_ok: bool) {
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
