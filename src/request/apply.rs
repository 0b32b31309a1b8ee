//! The database: tree, sessions and what is derived from them, changed only by applying transactions.
//!
//! [`Database::apply`] is the one way in, for live transactions, for the log at start, and for ZooKeeper's logs behind its fuzzy
//! snapshots. A transaction of our own log fits exactly and [`Fit::Exact`] asserts so; behind a fuzzy snapshot some changes are already
//! there, or their node is already gone again, and [`Fit::Fuzzy`] lets that pass.
//!
//! Changes of one transaction lie between `Tree::begin` and `Tree::publish`, and so do the calls to [`Witness::changed`]: whoever sees the
//! new state finds the events already queued (P8).

use std::borrow::Cow;
use std::collections::BTreeSet;

use hashbrown::HashMap;
use thiserror::Error;

use crate::jute::Reader;
use crate::proto::txn::{CreateKind, MultiTxn, Txn, TxnEntry, TxnHeader};
use crate::proto::{Acl, ErrorCode, NodeKind, Stat, StatPersisted};
use crate::request::path;
use crate::request::quota::{self, Quotas, Track};
use crate::session::{Ephemerals, SessionTable};
use crate::tree::{AclId, NodeId, Tree, TreeOptions};
use crate::types::{Instant, SessionId, Zxid};
use crate::watch::ChangeKind;

/// How well a transaction must fit the state it meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// It was prepared against exactly this state.
    Exact,
    /// It follows a snapshot that was taken while writes went on: it may be in it already, wholly or in part.
    Fuzzy,
}

/// One change of one node, for those who watch. Lists are `None` where anyone may do anything.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub kind: ChangeKind,
    pub path: &'a str,
    pub acl: Option<Acl<'a>>,
    /// The parent's list; `None` also where the parent has no part in it.
    pub parent_acl: Option<Acl<'a>>,
}

/// The end of one operation, as its reply tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<'a> {
    Created { path: &'a str, stat: Stat },
    Deleted,
    DataSet(Stat),
    AclSet(Stat),
    Checked,
    Failed(i32),
    SessionOpened,
    SessionClosed,
}

/// Who is told what applying a transaction does, while it does it.
pub trait Witness {
    fn changed(&mut self, change: Change<'_>);
    /// Once an operation, several times for a multi, in order; with the operation's transaction type.
    fn done(&mut self, type_number: i32, outcome: Outcome<'_>);
    /// All is changed and told; the next thing is that readers see it.
    fn publishing(&mut self) {}
}

/// A witness that does not care.
#[derive(Debug)]
pub struct Nobody;

impl Witness for Nobody {
    fn changed(&mut self, _: Change<'_>) {}
    fn done(&mut self, _: i32, _: Outcome<'_>) {}
}

/// Why a snapshot could not become a database.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoadError {
    #[error("znode {path} comes before its parent")]
    NoParent { path: String },
    #[error("znode {path} comes twice")]
    Twice { path: String },
    #[error("znode {path} names access list {acl}, which is not in the snapshot")]
    NoAcl { path: String, acl: i64 },
    #[error("access list {acl} does not decode")]
    BadAcl { acl: i64 },
}

/// Tree, sessions and what is derived from them.
pub struct Database {
    pub tree: Tree,
    pub sessions: SessionTable,
    pub quotas: Quotas,
    ephemerals: Ephemerals,
    /// Containers and nodes with a time to live: what the sweep looks at.
    sweepable: BTreeSet<u32>,
    /// While loading: the snapshot's numbers of access lists. An id that no node uses yet stays valid, as nothing is reclaimed
    /// before the load ends.
    acls_loading: HashMap<i64, AclId>,
    /// While loading: the parent of the last node, which most often is that of the next as well.
    parent_loading: (String, NodeId),
}

impl Database {
    /// The database of a fresh server: the predefined nodes and nothing else (client-protocol §9.1).
    pub fn new(tree_options: TreeOptions, sessions: SessionTable) -> Database {
        let mut database = Database::for_loading(tree_options, sessions);
        database.finish_load(Zxid::ZERO);
        database
    }

    /// A database to load a snapshot into: [`Database::load_session`], [`Database::load_acl`], [`Database::load_node`], parents first,
    /// then [`Database::finish_load`].
    pub fn for_loading(tree_options: TreeOptions, sessions: SessionTable) -> Database {
        let hash_seed = tree_options.hash_seed;
        let mut tree = Tree::new(tree_options);
        tree.begin();
        // As long as a snapshot does not say otherwise: there it may be null, which is not the same.
        let root = tree.root();
        tree.replace_data(root, Some(b""));
        Database {
            tree,
            sessions,
            quotas: Quotas::default(),
            ephemerals: Ephemerals::new(hash_seed),
            sweepable: BTreeSet::new(),
            acls_loading: HashMap::new(),
            parent_loading: (String::new(), NodeId::ROOT),
        }
    }

    pub fn load_session(&mut self, session: SessionId, timeout_ms: i32, now: Instant) {
        self.sessions.insert(session, timeout_ms, now);
    }

    pub fn load_acl(&mut self, number: i64, acl: &[u8]) -> Result<(), LoadError> {
        match Acl::decode(&mut Reader::new(acl)) {
            Ok(Some(acl)) => {
                self.acls_loading.insert(number, self.tree.intern_acl(acl));
                Ok(())
            }
            _ => Err(LoadError::BadAcl { acl: number }),
        }
    }

    pub fn load_node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), LoadError> {
        let acl_id = match acl {
            -1 => AclId::OPEN,
            number => *self
                .acls_loading
                .get(&number)
                .ok_or_else(|| LoadError::NoAcl { path: path.to_owned(), acl: number })?,
        };
        if path.is_empty() || path == "/" {
            let root = self.tree.root();
            self.tree.set_data(root, data, stat.version, stat.mzxid, stat.mtime_ms);
            self.tree.set_acl(root, acl_id, stat.aversion);
            self.tree.set_stat(root, stat);
            return Ok(());
        }
        let (parent, name) =
            path::split(path).ok_or_else(|| LoadError::NoParent { path: path.to_owned() })?;
        if self.parent_loading.0 != parent {
            let found =
                self.tree.find(parent).ok_or_else(|| LoadError::NoParent { path: path.to_owned() })?;
            self.parent_loading = (parent.to_owned(), found);
        }
        let parent = self.parent_loading.1;
        if self.tree.find(path).is_some() {
            return Err(LoadError::Twice { path: path.to_owned() });
        }
        let node = self.tree.create(parent, name, data, acl_id, stat);
        self.index(node, stat);
        Ok(())
    }

    /// Makes predefined nodes that are missing, counts quotas, and publishes the state as that of `zxid`.
    pub fn finish_load(&mut self, zxid: Zxid) {
        self.acls_loading = HashMap::new();
        self.parent_loading = (String::new(), NodeId::ROOT);
        for (path, name) in
            [("/zookeeper", "zookeeper"), ("/zookeeper/quota", "quota"), ("/zookeeper/config", "config")]
        {
            if self.tree.find(path).is_some() {
                continue;
            }
            let (parent, _) = path::split(path).expect("a constant with a slash");
            let parent = self.tree.find(parent).expect("made before its children");
            let mut stat = StatPersisted::default();
            let mut acl = AclId::OPEN;
            if name == "config" {
                stat.aversion = -1;
                acl = self.tree.intern_acl(Acl::from_checked(crate::proto::acl::READ_UNSAFE));
            }
            self.tree.create(parent, name, Some(b""), acl, &stat);
        }
        self.find_quotas();
        self.tree.publish(zxid);
    }

    /// Removes ephemeral nodes whose session is not there, and gives how many, after an import.
    /// Source: ZooKeeper `ZooKeeperServer#loadData`.
    pub fn end_ephemerals_of_nobody(&mut self) -> usize {
        let orphaned: Vec<SessionId> = self
            .ephemerals
            .sessions()
            .into_iter()
            .filter(|&session| !self.sessions.contains(session))
            .collect();
        if orphaned.is_empty() {
            return 0;
        }
        let zxid = self.zxid_applied();
        let mut count = 0;
        self.tree.begin();
        for session in orphaned {
            for node in self.ephemerals_of(session).collect::<Vec<_>>() {
                let path = self.tree.path(node);
                tracing::warn!(%session, "removing {path}, which is ephemeral and whose session does not exist");
                self.unindex(node);
                self.tree.remove(node);
                count += 1;
            }
        }
        self.tree.publish(zxid);
        count
    }

    /// Makes `/zookeeper/config` show the membership in force. Every server does that for itself (client-protocol §9.2): it is no
    /// transaction, and nobody is told.
    pub fn show_membership(&mut self, text: &str, version: i64, wall_ms: i64) {
        let Some(node) = self.tree.find(path::CONFIG) else { return };
        if self.tree.data(node) == Some(text.as_bytes()) && self.tree.stat(node).version == -1 {
            return;
        }
        let zxid = self.zxid_applied();
        self.tree.begin();
        self.tree.set_data(node, Some(text.as_bytes()), -1, Zxid(version), wall_ms);
        self.tree.publish(zxid);
    }

    /// What `/zookeeper/config` holds.
    pub fn membership_text(&self) -> &[u8] {
        self.tree.find(path::CONFIG).and_then(|node| self.tree.data(node)).unwrap_or_default()
    }

    pub fn zxid_applied(&self) -> Zxid {
        self.tree.zxid_applied()
    }

    /// The ephemeral nodes of a session.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = NodeId> + '_ {
        self.ephemerals.of(session).map(NodeId)
    }

    pub fn ephemerals(&self) -> &Ephemerals {
        &self.ephemerals
    }

    /// Containers and nodes with a time to live from `after` on, in no order that means anything.
    pub fn sweepable_after(&self, after: Option<NodeId>) -> impl Iterator<Item = NodeId> + '_ {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |node| Excluded(node.0));
        self.sweepable.range((from, Unbounded)).map(|&node| NodeId(node))
    }

    /// Applies one transaction and publishes it. With [`Fit::Exact`] panics where it does not fit: stopping beats diverging (P12).
    pub fn apply(&mut self, entry: &TxnEntry<'_>, fit: Fit, now: Instant, witness: &mut impl Witness) {
        let header = &entry.header;
        if fit == Fit::Exact {
            assert!(
                header.zxid > self.tree.zxid_applied(),
                "{} applied after {}",
                header.zxid,
                self.tree.zxid_applied()
            );
        }
        self.tree.begin();
        let mut apply = Apply { database: self, header, kind: header.kind, fit, now, witness };
        match &entry.txn {
            Txn::Multi(multi) if multi.ops().any(|(_, txn)| matches!(txn, Txn::Error { .. })) => {
                apply.failed_multi(multi);
            }
            Txn::Multi(multi) => {
                for (kind, txn) in multi.ops() {
                    apply.kind = kind;
                    apply.one(&txn);
                }
            }
            txn => apply.one(txn),
        }
        apply.witness.publishing();
        let zxid = header.zxid.max(self.tree.zxid_applied());
        self.tree.publish(zxid);
    }

    /// Enters a new node in the derived tables.
    fn index(&mut self, node: NodeId, stat: &StatPersisted) {
        match stat.kind() {
            NodeKind::Persistent => {}
            NodeKind::Ephemeral(session) => {
                self.ephemerals.add(session, node.0);
            }
            NodeKind::Container | NodeKind::Ttl(_) => {
                self.sweepable.insert(node.0);
            }
        }
    }

    fn unindex(&mut self, node: NodeId) {
        match self.tree.stat(node).kind() {
            NodeKind::Persistent => {}
            NodeKind::Ephemeral(session) => {
                self.ephemerals.remove(session, node.0);
            }
            NodeKind::Container | NodeKind::Ttl(_) => {
                self.sweepable.remove(&node.0);
            }
        }
    }

    fn list(&self, acl: AclId) -> Option<Acl<'_>> {
        (acl != AclId::OPEN).then(|| self.tree.acl_list(acl))
    }

    /// Adds to the usage of the deepest quota that holds `path`.
    fn charge(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(subject) = self.quotas.charged(path) else { return };
        let Some(stats) = self.tree.find(&quota::stats_path(subject)) else { return };
        match self.tree.data(stats).and_then(Track::parse) {
            Some(mut track) => {
                track.count += count;
                track.bytes += bytes;
                self.tree.replace_data(stats, Some(track.text().as_bytes()));
            }
            None => self.count_quota(subject),
        }
    }

    /// Counts a subtree afresh and writes the result into its stats node.
    fn count_quota(&mut self, subject: &str) {
        let Some(stats) = self.tree.find(&quota::stats_path(subject)) else { return };
        let (mut count, mut bytes) = (0, 0);
        let mut waiting: Vec<NodeId> = self.tree.find(subject).into_iter().collect();
        while let Some(node) = waiting.pop() {
            count += 1;
            bytes += self.tree.data(node).map_or(0, <[u8]>::len) as i64;
            waiting.extend(self.tree.children(node));
        }
        self.tree.replace_data(stats, Some(Track::new(count, bytes).text().as_bytes()));
    }

    fn find_quotas(&mut self) {
        let mut waiting: Vec<NodeId> = self.tree.find(quota::QUOTA_ROOT).into_iter().collect();
        let mut subjects = Vec::new();
        while let Some(node) = waiting.pop() {
            if self.tree.name(node) == quota::LIMITS
                && let Some(subject) = quota::subject(&self.tree.path(node), quota::LIMITS)
            {
                subjects.push(subject.to_owned());
            }
            waiting.extend(self.tree.children(node));
        }
        for subject in subjects {
            self.quotas.insert(&subject);
            self.count_quota(&subject);
        }
    }
}

/// One transaction being applied.
struct Apply<'d, 'h, W> {
    database: &'d mut Database,
    header: &'h TxnHeader,
    /// Type of the operation at hand.
    kind: i32,
    fit: Fit,
    now: Instant,
    witness: &'d mut W,
}

impl<W: Witness> Apply<'_, '_, W> {
    fn one(&mut self, txn: &Txn<'_>) {
        match txn {
            Txn::Create { path, data, acl, kind, parent_cversion } => {
                self.create(path, *data, *acl, *kind, *parent_cversion);
            }
            Txn::Delete { path } => {
                if self.delete(path) {
                    self.witness.done(self.kind, Outcome::Deleted);
                } else {
                    self.missing(path);
                }
            }
            Txn::SetData { path, data, version } => self.set_data(path, *data, *version),
            Txn::SetAcl { path, acl, version } => self.set_acl(path, *acl, *version),
            Txn::Check { .. } => self.witness.done(self.kind, Outcome::Checked),
            Txn::CreateSession { timeout_ms } => {
                self.database.sessions.insert(self.header.session, *timeout_ms, self.now);
                self.witness.done(self.kind, Outcome::SessionOpened);
            }
            Txn::CloseSession { paths } => self.close_session(paths.as_deref().unwrap_or(&[])),
            Txn::Error { err } => self.witness.done(self.kind, Outcome::Failed(*err)),
            Txn::Multi(_) => unreachable!("a decoded multi holds no multi"),
        }
    }

    /// A multi with an error in it applies nothing, whatever its other operations say: servers differ in what they log for those.
    /// Source: ZooKeeper `DataTree#processTxn`, case multi.
    fn failed_multi(&mut self, multi: &MultiTxn<'_>) {
        let mut is_behind = false;
        for (kind, txn) in multi.ops() {
            self.kind = kind;
            let err = match txn {
                Txn::Error { err } => err,
                _ if is_behind => ErrorCode::RuntimeInconsistency.code(),
                _ => ErrorCode::Ok.code(),
            };
            is_behind |= !matches!(err, 0 | -2);
            self.witness.done(self.kind, Outcome::Failed(err));
        }
    }

    /// The node a transaction speaks of is not there: told to the witness where that may be.
    fn missing(&mut self, path: &str) {
        assert!(
            self.fit == Fit::Fuzzy,
            "transaction {} speaks of {path}, which does not exist",
            self.header.zxid
        );
        self.witness.done(self.kind, Outcome::Failed(ErrorCode::NoNode.code()));
    }

    fn create(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: Acl<'_>,
        kind: CreateKind,
        parent_cversion: i32,
    ) {
        let database = &mut *self.database;
        let zxid = self.header.zxid;
        let parent = path::split(path).and_then(|(parent, name)| Some((database.tree.find(parent)?, name)));
        let Some((parent, name)) = parent else { return self.missing(path) };
        let exists = database.tree.find(path).is_some();
        assert!(!exists || self.fit == Fit::Fuzzy, "transaction {zxid} creates {path}, which exists");

        // Only ever upwards: behind a fuzzy snapshot the parent may be further on (BUG-53).
        let parent_stat = database.tree.stat(parent);
        let cversion = if parent_cversion == -1 { parent_stat.cversion + 1 } else { parent_cversion };
        if cversion > parent_stat.cversion {
            database.tree.set_child_stat(parent, cversion, zxid);
        }
        if exists {
            return self.witness.done(self.kind, Outcome::Failed(ErrorCode::NodeExists.code()));
        }
        let owner = match kind {
            CreateKind::Plain { ephemeral: false } => NodeKind::Persistent,
            CreateKind::Plain { ephemeral: true } => NodeKind::Ephemeral(self.header.session),
            CreateKind::Container => NodeKind::Container,
            CreateKind::Ttl { ttl_ms } => NodeKind::Ttl(ttl_ms),
        };
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            ctime_ms: self.header.time_ms,
            mtime_ms: self.header.time_ms,
            ephemeral_owner: owner.owner(),
            pzxid: zxid,
            ..StatPersisted::default()
        };
        let acl = database.tree.intern_acl(acl);
        let node = database.tree.create(parent, name, data, acl, &stat);
        database.index(node, &stat);
        let data_bytes = data.map_or(0, <[u8]>::len);
        if let Some(subject) = quota::subject(path, quota::LIMITS) {
            database.quotas.insert(subject);
        } else if let Some(subject) = quota::subject(path, quota::STATS) {
            database.count_quota(subject);
        }
        database.charge(path, 1, data_bytes as i64);
        let change = Change {
            kind: ChangeKind::Created,
            path,
            acl: database.list(acl),
            parent_acl: database.list(database.tree.acl(parent)),
        };
        self.witness.changed(change);
        self.witness.done(self.kind, Outcome::Created { path, stat: stat.to_wire(data_bytes, 0) });
    }

    /// Whether there was such a node.
    fn delete(&mut self, path: &str) -> bool {
        let database = &mut *self.database;
        let Some(node) = database.tree.find(path) else { return false };
        let parent = database.tree.parent(node).expect("the root is never deleted");
        let change = Change {
            kind: ChangeKind::Deleted,
            path,
            acl: database.list(database.tree.acl(node)),
            parent_acl: database.list(database.tree.acl(parent)),
        };
        self.witness.changed(change);
        if self.fit == Fit::Fuzzy {
            // What stands below was made after this deletion and will be made again.
            let children: Vec<String> =
                database.tree.children(node).map(|child| database.tree.path(child)).collect();
            for child in children {
                self.delete(&child);
            }
        }
        let database = &mut *self.database;
        let parent_stat = database.tree.stat(parent);
        if self.header.zxid > parent_stat.pzxid {
            database.tree.set_child_stat(parent, parent_stat.cversion, self.header.zxid);
        }
        let data_bytes = database.tree.data(node).map_or(0, <[u8]>::len);
        database.unindex(node);
        database.tree.remove(node);
        if let Some(subject) = quota::subject(path, quota::LIMITS) {
            database.quotas.remove(subject);
        }
        database.charge(path, -1, -(data_bytes as i64));
        true
    }

    fn set_data(&mut self, path: &str, data: Option<&[u8]>, version: i32) {
        let database = &mut *self.database;
        let Some(node) = database.tree.find(path) else { return self.missing(path) };
        let data_bytes = data.map_or(0, <[u8]>::len);
        if !database.quotas.is_empty() {
            let data_bytes_before = database.tree.data(node).map_or(0, <[u8]>::len);
            database.tree.set_data(node, data, version, self.header.zxid, self.header.time_ms);
            database.charge(path, 0, data_bytes as i64 - data_bytes_before as i64);
        } else {
            database.tree.set_data(node, data, version, self.header.zxid, self.header.time_ms);
        }
        let acl = database.list(database.tree.acl(node));
        self.witness.changed(Change { kind: ChangeKind::DataChanged, path, acl, parent_acl: None });
        let stat = database.tree.stat(node).to_wire(data_bytes, database.tree.child_count(node));
        self.witness.done(self.kind, Outcome::DataSet(stat));
    }

    fn set_acl(&mut self, path: &str, acl: Acl<'_>, version: i32) {
        let database = &mut *self.database;
        let Some(node) = database.tree.find(path) else { return self.missing(path) };
        let acl = database.tree.intern_acl(acl);
        database.tree.set_acl(node, acl, version);
        let data_bytes = database.tree.data(node).map_or(0, <[u8]>::len);
        let stat = database.tree.stat(node).to_wire(data_bytes, database.tree.child_count(node));
        self.witness.done(self.kind, Outcome::AclSet(stat));
    }

    fn close_session(&mut self, paths: &[Cow<'_, str>]) {
        let session = self.header.session;
        for path in paths {
            // Named when it was prepared; on a fuzzy snapshot it may be gone, or be another session's by now.
            let owned = self
                .database
                .tree
                .find(path)
                .is_some_and(|node| self.database.tree.stat(node).kind() == NodeKind::Ephemeral(session));
            if owned {
                self.delete(path);
            } else {
                assert!(self.fit == Fit::Fuzzy, "session {session} closes without owning {path}");
            }
        }
        let rest: Vec<NodeId> = self.database.ephemerals_of(session).collect();
        assert!(
            rest.is_empty() || paths.is_empty() || self.fit == Fit::Fuzzy,
            "session {session} closes and leaves {} ephemeral nodes",
            rest.len()
        );
        for node in rest {
            let path = self.database.tree.path(node);
            self.delete(&path);
        }
        self.database.sessions.remove(session);
        self.witness.done(self.kind, Outcome::SessionClosed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the simulator: a restart made an empty buffer of it, and a read then showed what nobody had written (C5).
    #[test]
    fn null_data_of_the_root_stays_null_in_a_snapshot() {
        let mut database = Database::for_loading(TreeOptions { hash_seed: 1 }, SessionTable::new(1000, 1));
        database.load_node("", None, -1, &StatPersisted::default()).unwrap();
        database.finish_load(Zxid(7));
        assert_eq!(database.tree.data(database.tree.root()), None);
        let fresh = Database::new(TreeOptions { hash_seed: 1 }, SessionTable::new(1000, 1));
        assert_eq!(fresh.tree.data(fresh.tree.root()), Some(&b""[..]));
    }
}
