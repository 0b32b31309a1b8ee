//! The state of a server as plain maps: slow, obvious, and good enough to compare with.

use std::collections::BTreeMap;

use ringkeeper::proto::txn::{CreateKind, DIGEST_VERSION, Txn, TxnEntry, TxnHeader};
use ringkeeper::proto::{Acl, NodeKind, StatPersisted, acl};
use ringkeeper::server::storage::{DigestCheck, Restore};
use ringkeeper::snapshot::{ACL_OPEN, LoadSink, Manifest, Writer};
use ringkeeper::types::{SessionId, Zxid};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub data: Option<Vec<u8>>,
    pub acl: Vec<u8>,
    pub stat: StatPersisted,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub sessions: BTreeMap<SessionId, i32>,
    /// The root is the empty path; parents sort before their children.
    pub nodes: BTreeMap<String, Node>,
    acls: BTreeMap<i64, Vec<u8>>,
    pub zxid: Zxid,
    fuzzy_until: Option<Zxid>,
    pub digests_compared: u64,
}

impl Model {
    fn begin(&mut self) {
        for path in ["", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            let node = Node {
                data: Some(Vec::new()),
                acl: acl::OPEN_UNSAFE.to_vec(),
                stat: StatPersisted::default(),
            };
            self.nodes.insert(path.into(), node);
        }
    }

    pub fn digest(&self) -> u64 {
        self.nodes.iter().fold(0, |sum, (path, node)| sum.wrapping_add(node_digest(path, node)))
    }

    fn parent(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(&path[..path.rfind('/')?])
    }

    fn create(&mut self, header: &TxnHeader, txn: &Txn<'_>) {
        let Txn::Create { path, data, acl, kind, parent_cversion } = txn else { unreachable!() };
        let zxid = header.zxid;
        let Some(parent) = self.parent(path) else { return };
        let cversion = if *parent_cversion < 0 { parent.stat.cversion + 1 } else { *parent_cversion };
        if cversion > parent.stat.cversion {
            parent.stat.cversion = cversion;
            parent.stat.pzxid = zxid;
        }
        let owner = match kind {
            CreateKind::Plain { ephemeral: true } => NodeKind::Ephemeral(header.session),
            CreateKind::Plain { ephemeral: false } => NodeKind::Persistent,
            CreateKind::Container => NodeKind::Container,
            CreateKind::Ttl { ttl_ms } => NodeKind::Ttl(*ttl_ms),
        };
        let stat = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: header.time_ms,
            mtime_ms: header.time_ms,
            ephemeral_owner: owner.owner(),
            ..StatPersisted::default()
        };
        let node = Node { data: data.map(<[u8]>::to_vec), acl: acl.bytes().to_vec(), stat };
        self.nodes.entry(path.to_string()).or_insert(node);
    }

    fn delete(&mut self, path: &str, zxid: Zxid) {
        self.nodes.remove(path);
        if let Some(parent) = self.parent(path) {
            parent.stat.pzxid = parent.stat.pzxid.max(zxid);
        }
    }

    fn change(&mut self, header: &TxnHeader, txn: &Txn<'_>) {
        match txn {
            Txn::Create { .. } => self.create(header, txn),
            Txn::Delete { path } => self.delete(path, header.zxid),
            Txn::SetData { path, data, version } => {
                if let Some(node) = self.nodes.get_mut(&**path) {
                    node.data = data.map(<[u8]>::to_vec);
                    node.stat.version = *version;
                    node.stat.mzxid = header.zxid;
                    node.stat.mtime_ms = header.time_ms;
                }
            }
            Txn::SetAcl { path, acl, version } => {
                if let Some(node) = self.nodes.get_mut(&**path) {
                    node.acl = acl.bytes().to_vec();
                    node.stat.aversion = *version;
                }
            }
            // A multi that failed has an error in it and does nothing. Source: ZooKeeper `DataTree#processTxn`.
            Txn::Multi(multi) if multi.ops().any(|(_, op)| matches!(op, Txn::Error { .. })) => {}
            Txn::Multi(multi) => multi.ops().for_each(|(_, op)| self.change(header, &op)),
            Txn::CreateSession { timeout_ms } => {
                self.sessions.insert(header.session, *timeout_ms);
            }
            Txn::CloseSession { paths } => {
                self.sessions.remove(&header.session);
                let owner = header.session.0;
                let own = self.nodes.iter().filter(|(_, node)| node.stat.ephemeral_owner == owner);
                let mut gone: Vec<String> = own.map(|(path, _)| path.clone()).collect();
                gone.extend(paths.iter().flatten().map(|path| path.to_string()));
                gone.iter().for_each(|path| self.delete(path, header.zxid));
            }
            Txn::Check { .. } | Txn::Error { .. } => {}
        }
    }

    /// The state as a snapshot: its content in parts of about `part_bytes`, and its manifest.
    pub fn snapshot(&self, identity: u64, part_bytes: usize) -> (Vec<Vec<u8>>, Manifest) {
        let mut ids: BTreeMap<&[u8], i64> = BTreeMap::new();
        for node in self.nodes.values().filter(|node| node.acl != acl::OPEN_UNSAFE) {
            let next = ids.len() as i64 + 1;
            ids.entry(&node.acl).or_insert(next);
        }
        let acls = ids.iter().map(|(bytes, id)| (*id, Acl::from_checked(bytes)));
        let sessions: Vec<_> = self.sessions.iter().map(|(id, ms)| (*id, *ms)).collect();
        let mut writer = Writer::new(self.zxid, identity, sessions.into_iter(), acls);
        let mut parts = Vec::new();
        for (path, node) in &self.nodes {
            let mut bytes = Vec::new();
            ringkeeper::jute::put_string(&mut bytes, path);
            ringkeeper::jute::put_buffer(&mut bytes, node.data.as_deref());
            ringkeeper::jute::put_i64(&mut bytes, ids.get(&node.acl[..]).copied().unwrap_or(ACL_OPEN));
            node.stat.encode(&mut bytes);
            writer.nodes(1, &bytes);
            if writer.ready_bytes() >= part_bytes {
                parts.push(writer.take());
            }
        }
        let (last, manifest) = writer.finish(Some(self.digest()));
        parts.push(last);
        (parts, manifest)
    }
}

/// Client-protocol reference §10.
fn node_digest(path: &str, node: &Node) -> u64 {
    if path.starts_with("/zookeeper/") {
        return 0;
    }
    let stat = &node.stat;
    let mut hash = crc32fast::Hasher::new();
    hash.update(path.as_bytes());
    hash.update(node.data.as_deref().unwrap_or_default());
    for long in [stat.czxid.0, stat.mzxid.0, stat.pzxid.0, stat.ctime_ms, stat.mtime_ms] {
        hash.update(&long.to_be_bytes());
    }
    for int in [stat.version, stat.cversion, stat.aversion] {
        hash.update(&int.to_be_bytes());
    }
    hash.update(&stat.ephemeral_owner.to_be_bytes());
    hash.finalize().into()
}

impl LoadSink for Model {
    fn reset(&mut self) {
        *self = Model::default();
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.sessions.insert(session, timeout_ms);
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        self.acls.insert(id, acl.ok_or("a null ACL list")?.bytes().to_vec());
        Ok(())
    }

    fn node(&mut self, path: &str, data: Option<&[u8]>, id: i64, stat: &StatPersisted) -> Result<(), String> {
        if !path.is_empty() {
            self.parent(path).ok_or_else(|| format!("{path} has no parent"))?;
        }
        let acl = match id {
            ACL_OPEN => acl::OPEN_UNSAFE.to_vec(),
            id => self.acls.get(&id).ok_or_else(|| format!("{path} has unknown ACL {id}"))?.clone(),
        };
        let node = Node { data: data.map(<[u8]>::to_vec), acl, stat: *stat };
        match self.nodes.insert(path.into(), node) {
            Some(_) => Err(format!("{path} comes twice")),
            None => Ok(()),
        }
    }
}

impl Restore for Model {
    fn loaded(&mut self, zxid: Zxid, fuzzy_until: Option<Zxid>) -> Result<(), String> {
        if self.nodes.is_empty() {
            self.begin();
        }
        self.acls.clear();
        (self.zxid, self.fuzzy_until) = (zxid, fuzzy_until);
        Ok(())
    }

    fn apply(&mut self, zxid: Zxid, entry: &[u8]) -> Result<DigestCheck, String> {
        let entry = TxnEntry::decode(entry).map_err(|error| error.to_string())?;
        assert_eq!(entry.header.zxid, zxid);
        self.change(&entry.header, &entry.txn);
        self.zxid = zxid;
        let logged = match entry.digest {
            Some(digest) if digest.version == DIGEST_VERSION => digest.tree_digest,
            _ => return Ok(DigestCheck::Skipped),
        };
        if self.fuzzy_until.is_some_and(|until| zxid < until) {
            return Ok(DigestCheck::Skipped);
        }
        self.digests_compared += 1;
        let computed = self.digest();
        Ok(if logged == computed { DigestCheck::Same } else { DigestCheck::Differs { logged, computed } })
    }

    fn tree_digest(&self) -> Option<u64> {
        Some(self.digest())
    }
}
