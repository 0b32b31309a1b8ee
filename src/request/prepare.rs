//! From a request to a transaction, checked against the tree and every change that is proposed but not applied yet.
//!
//! The order of the checks decides which error a client sees and is ZooKeeper's (client-protocol §3.2). A request that fails a check
//! becomes an error transaction with a zxid of its own; one that does not decode becomes nothing at all (§14.1).
//! Source: ZooKeeper `PrepRequestProcessor`.

use std::sync::Arc;

use crate::jute::Reader;
use crate::proto::client::{
    CreateMode, CreateRequest, OpCode, SetAclRequest, SetDataRequest, VersionRequest,
};
use crate::proto::stat::TTL_MS_MAX;
use crate::proto::txn::{self, CreateKind, DIGEST_VERSION, TxnDigest, TxnHeader, kind};
use crate::proto::{Acl, ErrorCode, NodeKind, Perms, StatPersisted};
use crate::request::auth::{self, AuthOptions, Identities};
use crate::request::closing::ClosingBytes;
use crate::request::multi::{self, WriteOp};
use crate::request::outstanding::{Outstanding, Pending, PendingAcl};
use crate::request::quota::{self, Track};
use crate::request::{Database, path};
use crate::tree::{AclId, digest};
use crate::types::{Epoch, SessionId, Zxid};

mod reconfig;

pub use reconfig::ReconfigView;

/// The last counter of an epoch. ZooKeeper never uses the one beyond. Source: ZooKeeper `Leader#propose`.
const ZXID_COUNTER_MAX: u32 = u32::MAX - 1;

/// What preparing depends on besides the state.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    pub auth: AuthOptions,
    /// `zookeeper.extendedTypesEnabled`: nodes with a time to live may be made.
    pub extended_types: bool,
    /// `zookeeper.enforceQuota`: hard limits refuse.
    pub enforce_quota: bool,
    /// `zookeeper.digest.enabled`: transactions carry the tree's digest.
    pub digest: bool,
    /// `reconfigEnabled`.
    pub reconfig: bool,
    /// Bytes an entry may have (O13): what the log and every reader of it must be able to take in again.
    pub entry_bytes_max: usize,
}

/// A write as it came from a client.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub session: SessionId,
    pub cxid: i32,
    pub op: OpCode,
    /// The record behind the request header.
    pub body: &'a [u8],
    pub identities: &'a Identities,
    pub lease: Lease,
}

/// By what right a session writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lease {
    /// It is in the database.
    #[default]
    Global,
    /// Its beginning is proposed.
    Begun,
    /// Only the server of its client knows it: it makes no ephemeral nodes.
    Local,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prepared {
    /// An entry was written; it may be an error.
    Entry { zxid: Zxid },
    /// No transaction: this error, when its turn comes.
    Refused(ErrorCode),
}

/// A request's end before it became a transaction.
enum Refusal {
    /// Logged, with a zxid.
    Error(ErrorCode),
    /// Not even looked at.
    Undecodable,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal::Error(code)
    }
}

impl From<crate::jute::JuteError> for Refusal {
    fn from(_: crate::jute::JuteError) -> Refusal {
        Refusal::Undecodable
    }
}

impl From<multi::MultiError> for Refusal {
    fn from(_: multi::MultiError) -> Refusal {
        Refusal::Undecodable
    }
}

/// Prepares writes in zxid order.
#[derive(Debug)]
pub struct Preparer {
    options: PrepareOptions,
    outstanding: Outstanding,
    closing: ClosingBytes,
    zxid_proposed: Zxid,
    /// The tree's digest once everything proposed is applied.
    digest: u64,
    /// The body being built, kept for its capacity.
    body: Vec<u8>,
}

impl Preparer {
    /// Starts behind what `database` has applied; nothing is outstanding.
    pub fn new(options: PrepareOptions, database: &Database) -> Preparer {
        let mut closing = ClosingBytes::default();
        for session in database.ephemerals().sessions() {
            for node in database.ephemerals_of(session) {
                closing.add(session, &database.tree.path(node));
            }
        }
        closing.settle();
        Preparer {
            options,
            outstanding: Outstanding::default(),
            closing,
            zxid_proposed: database.zxid_applied(),
            digest: database.tree.digest(),
            body: Vec::new(),
        }
    }

    pub fn zxid_proposed(&self) -> Zxid {
        self.zxid_proposed
    }

    /// From here on transactions are of `epoch`. Nothing may be outstanding, and no later epoch have been seen.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        assert!(self.outstanding.is_empty(), "an epoch begins with everything applied");
        assert!(epoch > self.zxid_proposed.epoch(), "epoch {} begins after {}", epoch.0, self.zxid_proposed);
        self.zxid_proposed = Zxid::new(epoch, 0);
    }

    /// The id of the next transaction. A server alone goes on in the next epoch where the counter is used up; a leader resigns
    /// before that.
    fn zxid_next(&self) -> Zxid {
        let last = self.zxid_proposed;
        if last.counter() < ZXID_COUNTER_MAX { last.next() } else { Zxid::new(Epoch(last.epoch().0 + 1), 1) }
    }

    pub fn outstanding_count(&self) -> usize {
        self.outstanding.len()
    }

    /// What `zxid` changed is in the tree now and need not be remembered here.
    pub fn applied(&mut self, zxid: Zxid) {
        self.outstanding.forget(zxid);
    }

    /// Prepares a client's write and appends its entry to `out`.
    pub fn write(
        &mut self,
        database: &Database,
        write: &Write<'_>,
        wall_ms: i64,
        out: &mut Vec<u8>,
    ) -> Prepared {
        self.make(database, write, wall_ms, out, |task| match write.op {
            OpCode::Multi => task.multi(),
            op => task.single(op),
        })
    }

    /// `build` writes the body and tells its type.
    fn make(
        &mut self,
        database: &Database,
        write: &Write<'_>,
        wall_ms: i64,
        out: &mut Vec<u8>,
        build: impl FnOnce(&mut Task<'_, '_>) -> Result<i32, Refusal>,
    ) -> Prepared {
        let zxid = self.zxid_next();
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let (mark, mark_closing) = (self.outstanding.mark(), self.closing.mark());
        let digest_before = self.digest;
        let mut task = Task { preparer: self, database, zxid, wall_ms, write, body: &mut body };
        let result = build(&mut task).and_then(|kind| {
            let entry_bytes = TxnHeader::BYTES + body.len() + 12;
            if entry_bytes > self.options.entry_bytes_max {
                return Err(Refusal::Error(ErrorCode::MarshallingError));
            }
            Ok(kind)
        });
        let prepared = match result {
            Ok(kind) => {
                self.entry(write.session, write.cxid, zxid, wall_ms, kind, &body, out);
                Prepared::Entry { zxid }
            }
            Err(refusal) => {
                self.outstanding.roll_back(mark);
                self.closing.roll_back(mark_closing);
                self.digest = digest_before;
                match refusal {
                    Refusal::Error(code) => {
                        body.clear();
                        txn::put::error(&mut body, code.code());
                        self.entry(write.session, write.cxid, zxid, wall_ms, kind::ERROR, &body, out);
                        Prepared::Entry { zxid }
                    }
                    Refusal::Undecodable => Prepared::Refused(ErrorCode::MarshallingError),
                }
            }
        };
        self.body = body;
        prepared
    }

    /// A new session's transaction.
    pub fn create_session(
        &mut self,
        session: SessionId,
        timeout_ms: i32,
        wall_ms: i64,
        out: &mut Vec<u8>,
    ) -> Zxid {
        let zxid = self.zxid_next();
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        txn::put::create_session(&mut body, timeout_ms);
        self.entry(session, 0, zxid, wall_ms, kind::CREATE_SESSION, &body, out);
        self.body = body;
        zxid
    }

    /// Logs that a request came to nothing, for a server that waits to see that in the order of all writes.
    pub fn refuse(
        &mut self,
        session: SessionId,
        cxid: i32,
        err: ErrorCode,
        wall_ms: i64,
        out: &mut Vec<u8>,
    ) -> Zxid {
        let zxid = self.zxid_next();
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        txn::put::error(&mut body, err.code());
        self.entry(session, cxid, zxid, wall_ms, kind::ERROR, &body, out);
        self.body = body;
        zxid
    }

    /// Ends a session: its ephemerals go with it, those proposed and not yet applied as well.
    pub fn close_session(
        &mut self,
        database: &Database,
        session: SessionId,
        cxid: i32,
        wall_ms: i64,
        out: &mut Vec<u8>,
    ) -> Zxid {
        let zxid = self.zxid_next();
        let mut paths: Vec<Arc<str>> = Vec::new();
        for node in database.ephemerals_of(session) {
            let path = database.tree.path(node);
            if self.node(database, &path).is_some_and(|node| node.is_ephemeral_of(session)) {
                paths.push(path.into());
            }
        }
        paths.extend(self.outstanding.ephemerals_of(session).filter(|path| {
            // Those in the tree were found above.
            database
                .tree
                .find(path)
                .is_none_or(|node| database.tree.stat(node).kind() != NodeKind::Ephemeral(session))
        }));
        paths.sort();
        paths.dedup();
        for path in &paths {
            self.delete_pending(database, path, zxid);
        }
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        txn::put::close_session(&mut body, paths.iter().map(|path| &**path));
        self.entry(session, cxid, zxid, wall_ms, kind::CLOSE_SESSION, &body, out);
        self.body = body;
        zxid
    }

    /// Removes a container or a node whose time has passed, if it still is one and has no children.
    pub fn sweep(
        &mut self,
        database: &Database,
        path: &str,
        wall_ms: i64,
        out: &mut Vec<u8>,
    ) -> Option<Zxid> {
        let node = self.node(database, path)?;
        if node.child_count > 0 || !matches!(node.stat.kind(), NodeKind::Container | NodeKind::Ttl(_)) {
            return None;
        }
        let zxid = self.zxid_next();
        self.delete_pending(database, path, zxid);
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        txn::put::delete(&mut body, path);
        self.entry(SessionId::NONE, 0, zxid, wall_ms, kind::DELETE_CONTAINER, &body, out);
        self.body = body;
        Some(zxid)
    }

    /// Appends one entry and takes its zxid. A lone error carries no digest. Source: ZooKeeper `PrepRequestProcessor#pRequest2Txn`.
    fn entry(
        &mut self,
        session: SessionId,
        cxid: i32,
        zxid: Zxid,
        time_ms: i64,
        kind: i32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        assert!(zxid == self.zxid_next(), "{zxid} proposed after {}", self.zxid_proposed);
        TxnHeader { session, cxid, zxid, time_ms, kind }.encode(out);
        out.extend_from_slice(body);
        if self.options.digest && kind != kind::ERROR {
            TxnDigest { version: DIGEST_VERSION, tree_digest: self.digest }.encode(out);
        }
        self.zxid_proposed = zxid;
        self.outstanding.settle();
        self.closing.settle();
    }

    /// A node as it will be once everything proposed is applied.
    fn node(&self, database: &Database, path: &str) -> Option<Pending> {
        if !self.outstanding.is_empty() {
            // The root goes by two names.
            let path = if path == "/" { "" } else { path };
            match self.outstanding.get(path) {
                Some(Some(pending)) => return Some(pending.clone()),
                Some(None) => return None,
                None => {}
            }
        }
        let tree = &database.tree;
        let node = tree.find(path)?;
        Some(Pending {
            stat: tree.stat(node),
            child_count: tree.child_count(node) as u32,
            acl: PendingAcl::Applied(tree.acl(node)),
            content_crc: tree.content_crc(node),
            data_bytes: tree.data(node).map_or(0, <[u8]>::len) as u32,
        })
    }

    fn put(&mut self, path: &str, zxid: Zxid, pending: Option<Pending>) {
        let path = if path == "/" { "" } else { path };
        self.outstanding.put(path, zxid, pending);
    }

    fn digest_of(&self, path: &str, node: &Pending) -> u64 {
        if self.options.digest { digest::node_digest(path, node.content_crc, &node.stat) } else { 0 }
    }

    /// Changes a node that exists, keeping the digest right.
    fn change(&mut self, path: &str, zxid: Zxid, before: &Pending, after: Pending) {
        let path = if path == "/" { "" } else { path };
        self.digest =
            self.digest.wrapping_sub(self.digest_of(path, before)).wrapping_add(self.digest_of(path, &after));
        self.put(path, zxid, Some(after));
    }

    /// Takes a node away and tells its parent. The node exists and has no children: the caller has looked.
    fn delete_pending(&mut self, database: &Database, path: &str, zxid: Zxid) {
        let node = self.node(database, path).expect("the caller has looked");
        let (parent_path, _) = path::split(path).expect("a node's path has a slash");
        let parent = self.node(database, parent_path).expect("a node has a parent");
        self.digest = self.digest.wrapping_sub(self.digest_of(path, &node));
        self.put(path, zxid, None);
        if let NodeKind::Ephemeral(owner) = node.stat.kind() {
            self.closing.remove(owner, path);
        }
        let mut parent_after = parent.clone();
        parent_after.child_count -= 1;
        parent_after.stat.pzxid = parent_after.stat.pzxid.max(zxid);
        self.change(parent_path, zxid, &parent, parent_after);
    }
}

/// One request being prepared.
struct Task<'t, 'w> {
    preparer: &'t mut Preparer,
    database: &'t Database,
    zxid: Zxid,
    wall_ms: i64,
    write: &'t Write<'w>,
    body: &'t mut Vec<u8>,
}

impl Task<'_, '_> {
    /// Any write but a multi; gives the type of the transaction whose body was written.
    fn single(&mut self, op: OpCode) -> Result<i32, Refusal> {
        let mut reader = Reader::new(self.write.body);
        match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let request = CreateRequest::decode(&mut reader, op)?;
                self.create(op, &request)
            }
            OpCode::Delete => self.delete(&VersionRequest::decode(&mut reader)?),
            OpCode::SetData => self.set_data(&SetDataRequest::decode(&mut reader)?),
            OpCode::SetAcl => self.set_acl(&SetAclRequest::decode(&mut reader)?),
            OpCode::Reconfig => {
                // Source: ZooKeeper `PrepRequestProcessor`, case reconfig.
                for _ in 0..3 {
                    reader.string()?;
                }
                reader.i64()?;
                if !self.preparer.options.reconfig {
                    return Err(ErrorCode::ReconfigDisabled.into());
                }
                self.check_session()?;
                Err(ErrorCode::Unimplemented.into())
            }
            op => unreachable!("{op:?} is not prepared here"),
        }
    }

    fn multi(&mut self) -> Result<i32, Refusal> {
        let ops = multi::decode_writes(&mut Reader::new(self.write.body))?;
        let (mark, mark_closing) = (self.preparer.outstanding.mark(), self.preparer.closing.mark());
        let digest_before = self.preparer.digest;
        // The elements are built behind one another; each is a type, a length and the body.
        crate::jute::put_i32(self.body, ops.len() as i32);
        let mut failed = None;
        for (index, op) in ops.iter().enumerate() {
            let element = self.body.len();
            self.body.extend_from_slice(&[0; 8]);
            let result = match op {
                WriteOp::Create { op, request } => self.create(*op, request),
                WriteOp::Delete(request) => self.delete(request),
                WriteOp::SetData(request) => self.set_data(request),
                WriteOp::Check(request) => self.check(request),
            };
            match result {
                Ok(kind) => {
                    let length = (self.body.len() - element - 8) as i32;
                    self.body[element..element + 4].copy_from_slice(&kind.to_be_bytes());
                    self.body[element + 4..element + 8].copy_from_slice(&length.to_be_bytes());
                }
                Err(Refusal::Undecodable) => return Err(Refusal::Undecodable),
                Err(Refusal::Error(code)) => {
                    failed = Some((index, code));
                    break;
                }
            }
        }
        if let Some((index, code)) = failed {
            self.preparer.outstanding.roll_back(mark);
            self.preparer.closing.roll_back(mark_closing);
            self.preparer.digest = digest_before;
            self.body.clear();
            crate::jute::put_i32(self.body, ops.len() as i32);
            for position in 0..ops.len() {
                let err = match position.cmp(&index) {
                    std::cmp::Ordering::Less => ErrorCode::Ok,
                    std::cmp::Ordering::Equal => code,
                    std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency,
                };
                crate::jute::put_i32(self.body, kind::ERROR);
                crate::jute::put_i32(self.body, 4);
                txn::put::error(self.body, err.code());
            }
        }
        Ok(kind::MULTI)
    }

    fn create(&mut self, op: OpCode, request: &CreateRequest<'_>) -> Result<i32, Refusal> {
        let mode = CreateMode::of(request.flags).ok_or(ErrorCode::BadArguments)?;
        if mode.is_ttl() {
            if !self.preparer.options.extended_types {
                return Err(ErrorCode::Unimplemented.into());
            }
            if !request.ttl_ms.is_some_and(|ttl_ms| (1..=TTL_MS_MAX).contains(&ttl_ms)) {
                return Err(ErrorCode::BadArguments.into());
            }
        } else if op == OpCode::CreateTtl {
            // A time to live goes with no other flag.
            return Err(ErrorCode::BadArguments.into());
        }
        if self.write.lease == Lease::Local && multi::is_ephemeral(op, request) {
            return Err(ErrorCode::EphemeralOnLocalSession.into());
        }
        self.check_session()?;
        let path = request.path.as_deref().ok_or(ErrorCode::MarshallingError)?;
        let (parent_path, _) = split_sound(path)?;
        let acl = auth::fix_up_acl(request.acl, self.write.identities, &self.preparer.options.auth)?;
        let parent = self.node(parent_path).ok_or(ErrorCode::NoNode)?;
        self.authorise(&parent, Perms::CREATE)?;
        // There is no next number, and none is handed out twice (P10).
        let cversion = parent.stat.cversion.checked_add(1).ok_or(ErrorCode::BadArguments)?;
        let suffixed;
        let path = if mode.is_sequential() {
            suffixed = format!("{path}{:010}", parent.stat.cversion);
            suffixed.as_str()
        } else {
            path
        };
        if !path::is_valid(path) {
            return Err(ErrorCode::BadArguments.into());
        }
        if self.node(path).is_some() {
            return Err(ErrorCode::NodeExists.into());
        }
        if matches!(parent.stat.kind(), NodeKind::Ephemeral(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals.into());
        }
        let data_bytes = request.data.map_or(0, <[u8]>::len);
        self.check_quota(path, 1, data_bytes as i64)?;
        if path.strip_prefix(quota::QUOTA_ROOT) == Some("/zookeeper_limits") {
            // A quota on the root would have no effect.
            return Err(ErrorCode::BadArguments.into());
        }

        let (create_kind, txn_kind) = match op {
            OpCode::CreateContainer => (CreateKind::Container, kind::CREATE_CONTAINER),
            OpCode::CreateTtl => {
                (CreateKind::Ttl { ttl_ms: request.ttl_ms.expect("checked above") }, kind::CREATE_TTL)
            }
            OpCode::Create2 => (CreateKind::Plain { ephemeral: mode.is_ephemeral() }, kind::CREATE2),
            _ => (CreateKind::Plain { ephemeral: mode.is_ephemeral() }, kind::CREATE),
        };
        let node_kind = match create_kind {
            CreateKind::Plain { ephemeral: true } => NodeKind::Ephemeral(self.write.session),
            CreateKind::Plain { ephemeral: false } => NodeKind::Persistent,
            CreateKind::Container => NodeKind::Container,
            CreateKind::Ttl { ttl_ms } => NodeKind::Ttl(ttl_ms),
        };
        if let NodeKind::Ephemeral(owner) = node_kind {
            self.check_closing(owner, path)?;
            self.preparer.closing.add(owner, path);
        }
        txn::put::create(self.body, path, request.data, &acl, create_kind, cversion);

        let zxid = self.zxid;
        let mut parent_after = parent.clone();
        parent_after.child_count += 1;
        parent_after.stat.cversion = cversion;
        parent_after.stat.pzxid = zxid;
        self.preparer.change(parent_path, zxid, &parent, parent_after);
        let node = Pending {
            stat: StatPersisted {
                czxid: zxid,
                mzxid: zxid,
                ctime_ms: self.wall_ms,
                mtime_ms: self.wall_ms,
                ephemeral_owner: node_kind.owner(),
                pzxid: zxid,
                ..StatPersisted::default()
            },
            child_count: 0,
            acl: PendingAcl::of(&acl),
            content_crc: self.content_crc(path, request.data),
            data_bytes: data_bytes as u32,
        };
        self.preparer.digest = self.preparer.digest.wrapping_add(self.preparer.digest_of(path, &node));
        self.preparer.put(path, zxid, Some(node));
        Ok(txn_kind)
    }

    fn delete(&mut self, request: &VersionRequest<'_>) -> Result<i32, Refusal> {
        self.check_session()?;
        let path = request.path.as_deref().ok_or(ErrorCode::MarshallingError)?;
        let (parent_path, _) = split_sound(path)?;
        if path::is_special(path) {
            return Err(ErrorCode::BadArguments.into());
        }
        let parent = self.node(parent_path).ok_or(ErrorCode::NoNode)?;
        self.authorise(&parent, Perms::DELETE)?;
        let node = self.node(path).ok_or(ErrorCode::NoNode)?;
        check_version(request.version, node.stat.version)?;
        if node.child_count > 0 {
            return Err(ErrorCode::NotEmpty.into());
        }
        txn::put::delete(self.body, path);
        self.preparer.delete_pending(self.database, path, self.zxid);
        Ok(kind::DELETE)
    }

    fn set_data(&mut self, request: &SetDataRequest<'_>) -> Result<i32, Refusal> {
        self.check_session()?;
        let path = request.path.as_deref().ok_or(ErrorCode::BadArguments)?;
        if !path::is_valid(path) {
            return Err(ErrorCode::BadArguments.into());
        }
        let node = self.node(path).ok_or(ErrorCode::NoNode)?;
        self.authorise(&node, Perms::WRITE)?;
        let data_bytes = request.data.map_or(0, <[u8]>::len);
        self.check_quota(path, 0, data_bytes as i64 - i64::from(node.data_bytes))?;
        check_version(request.version, node.stat.version)?;
        let version = version_after(node.stat.version);
        txn::put::set_data(self.body, path, request.data, version);
        let mut after = node.clone();
        after.stat.version = version;
        after.stat.mzxid = self.zxid;
        after.stat.mtime_ms = self.wall_ms;
        after.content_crc = self.content_crc(if path == "/" { "" } else { path }, request.data);
        after.data_bytes = data_bytes as u32;
        self.preparer.change(path, self.zxid, &node, after);
        Ok(kind::SET_DATA)
    }

    fn set_acl(&mut self, request: &SetAclRequest<'_>) -> Result<i32, Refusal> {
        self.check_session()?;
        let path = request.path.as_deref().ok_or(ErrorCode::BadArguments)?;
        if !path::is_valid(path) {
            return Err(ErrorCode::BadArguments.into());
        }
        let acl = auth::fix_up_acl(request.acl, self.write.identities, &self.preparer.options.auth)?;
        let node = self.node(path).ok_or(ErrorCode::NoNode)?;
        self.authorise(&node, Perms::ADMIN)?;
        check_version(request.version, node.stat.aversion)?;
        let version = version_after(node.stat.aversion);
        txn::put::set_acl(self.body, path, &acl, version);
        let mut after = node.clone();
        after.stat.aversion = version;
        after.acl = PendingAcl::of(&acl);
        self.preparer.change(path, self.zxid, &node, after);
        Ok(kind::SET_ACL)
    }

    fn check(&mut self, request: &VersionRequest<'_>) -> Result<i32, Refusal> {
        self.check_session()?;
        let path = request.path.as_deref().ok_or(ErrorCode::BadArguments)?;
        if !path::is_valid(path) {
            return Err(ErrorCode::BadArguments.into());
        }
        let node = self.node(path).ok_or(ErrorCode::NoNode)?;
        self.authorise(&node, Perms::READ)?;
        check_version(request.version, node.stat.version)?;
        txn::put::check(self.body, path, version_after(node.stat.version));
        Ok(kind::CHECK)
    }

    fn node(&self, path: &str) -> Option<Pending> {
        self.preparer.node(self.database, path)
    }

    fn check_session(&self) -> Result<(), Refusal> {
        match self.database.sessions.get(self.write.session) {
            _ if self.write.lease != Lease::Global => Ok(()),
            Some(session) if !session.closing => Ok(()),
            _ => Err(ErrorCode::SessionExpired.into()),
        }
    }

    fn authorise(&self, node: &Pending, wanted: Perms) -> Result<(), Refusal> {
        let options = &self.preparer.options.auth;
        let allowed = match &node.acl {
            PendingAcl::Applied(AclId::OPEN) => return Ok(()),
            PendingAcl::Applied(acl) => {
                auth::check_acl(self.database.tree.acl_list(*acl), wanted, self.write.identities, options)
            }
            PendingAcl::Proposed(list) => {
                auth::check_acl(Acl::from_checked(list), wanted, self.write.identities, options)
            }
        };
        if allowed { Ok(()) } else { Err(ErrorCode::NoAuth.into()) }
    }

    /// Hard limits, against what is applied: requests in flight may overshoot. Source: ZooKeeper `ZooKeeperServer#checkQuota`.
    fn check_quota(&self, path: &str, count: i64, bytes: i64) -> Result<(), Refusal> {
        if !self.preparer.options.enforce_quota || (count == 0 && bytes == 0) {
            return Ok(());
        }
        let Some(subject) = self.database.quotas.charged(path) else { return Ok(()) };
        let track = |path: String| {
            let node = self.database.tree.find(&path)?;
            self.database.tree.data(node).and_then(Track::parse)
        };
        let (Some(limits), Some(used)) =
            (track(quota::limits_path(subject)), track(quota::stats_path(subject)))
        else {
            return Ok(());
        };
        let exceeds = |limit: i64, used: i64, by: i64| limit > -1 && by != 0 && used + by > limit;
        if exceeds(limits.count_hard(), used.count, count) || exceeds(limits.bytes_hard(), used.bytes, bytes)
        {
            return Err(ErrorCode::QuotaExceeded.into());
        }
        Ok(())
    }

    /// The transaction that ends the session must fit too; ZooKeeper's own grows until no server can load it (O13). The error is
    /// the one of any other transaction too large: every client knows it, and none takes it for a lost connection and retries.
    fn check_closing(&self, session: SessionId, path: &str) -> Result<(), Refusal> {
        let entry_bytes_max = self.preparer.options.entry_bytes_max;
        if self.preparer.closing.has_room(session, path, entry_bytes_max) {
            return Ok(());
        }
        tracing::debug!(
            %session,
            "refusing {path}: the end of session {session} would not fit into {entry_bytes_max} bytes with another ephemeral node"
        );
        Err(ErrorCode::MarshallingError.into())
    }

    fn content_crc(&self, path: &str, data: Option<&[u8]>) -> u32 {
        if self.preparer.options.digest { digest::content_crc(path, data) } else { 0 }
    }
}

/// Parent and name of a path with a slash and no NUL. Source: ZooKeeper `PrepRequestProcessor#validatePathForCreate`.
fn split_sound(path: &str) -> Result<(&str, &str), ErrorCode> {
    if path.as_bytes().contains(&0) {
        return Err(ErrorCode::BadArguments);
    }
    path::split(path).ok_or(ErrorCode::BadArguments)
}

/// `None` expects nothing; every other number is taken literally, negatives too.
fn check_version(expected: Option<i32>, present: i32) -> Result<(), ErrorCode> {
    match expected {
        Some(expected) if expected != present => Err(ErrorCode::BadVersion),
        _ => Ok(()),
    }
}

/// The next version, leaving out -1, which would match anything. Source: ZooKeeper `PrepRequestProcessor#checkAndIncVersion`.
fn version_after(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        version => version,
    }
}
