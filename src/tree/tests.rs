//! The tree against a naive model, its snapshots against the model at their beginning, and readers against a busy writer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::jute::Reader;
use crate::proto::acl::{OPEN_UNSAFE, READ_UNSAFE};
use crate::proto::{AclEntry, Perms, acl::encode_list};

const OPTIONS: TreeOptions = TreeOptions { hash_seed: 11 };

#[derive(Clone, PartialEq, Debug)]
struct Znode {
    data: Option<Vec<u8>>,
    acl: Vec<u8>,
    stat: StatPersisted,
}

/// Paths (the root's is empty) to nodes.
type Model = BTreeMap<String, Znode>;

/// Lists of different lengths; number 0 is the open one.
fn acl_bytes(number: u8) -> Vec<u8> {
    if number == 0 {
        return OPEN_UNSAFE.to_vec();
    }
    let id = Some("x".repeat(usize::from(number) * 7).into());
    let mut bytes = Vec::new();
    encode_list(
        &[AclEntry { perms: Perms(i32::from(number)), scheme: Some("digest".into()), id }],
        &mut bytes,
    );
    bytes
}

fn decode(bytes: &[u8]) -> Acl<'_> {
    Acl::decode(&mut Reader::new(bytes)).unwrap().unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Create { at: usize, name: u8, data: Option<usize>, acl: u8 },
    Remove { at: usize },
    RemoveBelow { at: usize },
    SetData { at: usize, data: Option<usize> },
    ReplaceData { at: usize, data: Option<usize> },
    SetAcl { at: usize, acl: u8 },
    SetChildStat { at: usize },
    SetStat { at: usize },
    Reclaim,
    SnapshotBegin,
    SnapshotStep { nodes_max: usize },
}

fn data_length() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![1 => Just(None), 6 => (0usize..40).prop_map(Some), 1 => (900usize..1300).prop_map(Some)]
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0usize..10_000;
    prop_oneof![
        12 => (at.clone(), any::<u8>(), data_length(), 0u8..5)
            .prop_map(|(at, name, data, acl)| Op::Create { at, name, data, acl }),
        3 => at.clone().prop_map(|at| Op::Remove { at }),
        1 => at.clone().prop_map(|at| Op::RemoveBelow { at }),
        3 => (at.clone(), data_length()).prop_map(|(at, data)| Op::SetData { at, data }),
        1 => (at.clone(), data_length()).prop_map(|(at, data)| Op::ReplaceData { at, data }),
        2 => (at.clone(), 0u8..5).prop_map(|(at, acl)| Op::SetAcl { at, acl }),
        2 => at.clone().prop_map(|at| Op::SetChildStat { at }),
        1 => at.prop_map(|at| Op::SetStat { at }),
        3 => Just(Op::Reclaim),
        1 => Just(Op::SnapshotBegin),
        3 => (1usize..12).prop_map(|nodes_max| Op::SnapshotStep { nodes_max }),
    ]
}

/// A tree and its model, changed together.
struct Pair {
    tree: Tree,
    model: Model,
    zxid: i64,
    /// The model at the snapshot's beginning, with its ACL lists by number, and the bytes so far.
    snapshot: Option<(Model, BTreeMap<i64, Vec<u8>>, Vec<u8>)>,
    snapshots_checked: usize,
}

impl Pair {
    fn new() -> Pair {
        let root = Znode { data: None, acl: OPEN_UNSAFE.to_vec(), stat: StatPersisted::default() };
        Pair {
            tree: Tree::new(OPTIONS),
            model: BTreeMap::from([(String::new(), root)]),
            zxid: 0,
            snapshot: None,
            snapshots_checked: 0,
        }
    }

    fn path_at(&self, at: usize) -> String {
        self.model.keys().nth(at % self.model.len()).unwrap().clone()
    }

    fn node(&self, path: &str) -> NodeId {
        self.tree.find(path).unwrap_or_else(|| panic!("{path:?} is missing"))
    }

    fn data(&self, length: Option<usize>) -> Option<Vec<u8>> {
        length.map(|length| (0..length).map(|index| (index as i64 + self.zxid) as u8).collect())
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Reclaim => return self.tree.reclaim(),
            Op::SnapshotBegin => {
                self.tree.snapshot_begin();
                let acls = self.tree.acls().map(|(id, acl)| (i64::from(id.0), acl.bytes().to_vec()));
                let acls = acls.chain([(-1, OPEN_UNSAFE.to_vec())]).collect();
                self.snapshot = Some((self.model.clone(), acls, Vec::new()));
                return;
            }
            Op::SnapshotStep { nodes_max } => return self.snapshot_step(nodes_max),
            _ => {}
        }
        self.zxid += 1;
        self.tree.begin();
        self.change(op);
        self.tree.publish(Zxid(self.zxid));
    }

    fn change(&mut self, op: &Op) {
        let (zxid, now_ms) = (Zxid(self.zxid), self.zxid * 1000);
        match *op {
            Op::Create { at, name, data, acl } => {
                let parent = self.path_at(at);
                let name = format!("n{}", "é".repeat(usize::from(name % 4)) + &name.to_string());
                let path = format!("{parent}/{name}");
                if self.model.contains_key(&path) {
                    return;
                }
                let owner = i64::from(acl) << 40;
                let stat = StatPersisted {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime_ms: now_ms,
                    ephemeral_owner: owner,
                    ..StatPersisted::default()
                };
                let (data, acl) = (self.data(data), acl_bytes(acl));
                let id = self.tree.intern_acl(decode(&acl));
                let n = self.tree.create(self.node(&parent), &name, data.as_deref(), id, &stat);
                assert_eq!(self.tree.path(n), path);
                self.model.insert(path, Znode { data, acl, stat });
            }
            Op::Remove { at } => {
                let path = self.path_at(at);
                if !path.is_empty() && !self.has_children(&path) {
                    self.remove(&path);
                }
            }
            Op::RemoveBelow { at } => {
                let below = format!("{}/", self.path_at(at));
                let paths: Vec<String> =
                    self.model.keys().filter(|path| path.starts_with(&below)).cloned().collect();
                for path in paths.iter().rev() {
                    self.remove(path);
                }
            }
            Op::SetData { at, data } => {
                let (path, data) = (self.path_at(at), self.data(data));
                let n = self.node(&path);
                self.tree.set_data(n, data.as_deref(), self.zxid as i32, zxid, now_ms);
                let znode = self.model.get_mut(&path).unwrap();
                znode.data = data;
                znode.stat =
                    StatPersisted { version: self.zxid as i32, mzxid: zxid, mtime_ms: now_ms, ..znode.stat };
            }
            Op::ReplaceData { at, data } => {
                let (path, data) = (self.path_at(at), self.data(data));
                let n = self.node(&path);
                self.tree.replace_data(n, data.as_deref());
                self.model.get_mut(&path).unwrap().data = data;
            }
            Op::SetAcl { at, acl } => {
                let (path, acl) = (self.path_at(at), acl_bytes(acl));
                let (n, id) = (self.node(&path), self.tree.intern_acl(decode(&acl)));
                self.tree.set_acl(n, id, self.zxid as i32);
                let znode = self.model.get_mut(&path).unwrap();
                znode.acl = acl;
                znode.stat.aversion = self.zxid as i32;
            }
            Op::SetChildStat { at } => {
                let path = self.path_at(at);
                self.tree.set_child_stat(self.node(&path), self.zxid as i32, zxid);
                let stat = &mut self.model.get_mut(&path).unwrap().stat;
                (stat.cversion, stat.pzxid) = (self.zxid as i32, zxid);
            }
            Op::SetStat { at } => {
                let path = self.path_at(at);
                let stat =
                    StatPersisted { mzxid: zxid, version: -1, ctime_ms: 77, ..StatPersisted::default() };
                self.tree.set_stat(self.node(&path), &stat);
                self.model.get_mut(&path).unwrap().stat = stat;
            }
            Op::Reclaim | Op::SnapshotBegin | Op::SnapshotStep { .. } => unreachable!("not a transaction"),
        }
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.model.keys().any(|other| other.starts_with(&below))
    }

    fn remove(&mut self, path: &str) {
        self.tree.remove(self.node(path));
        self.model.remove(path);
        assert_eq!(self.tree.find(path), None);
    }

    fn snapshot_step(&mut self, nodes_max: usize) {
        let Some((model, acls, mut bytes)) = self.snapshot.take() else { return };
        if !self.tree.snapshot_step(nodes_max, &mut bytes) {
            self.snapshot = Some((model, acls, bytes));
            return;
        }
        assert_eq!(decode_snapshot(&bytes, &acls), model);
        self.snapshots_checked += 1;
    }

    /// Every getter against the model.
    fn check(&self) {
        let (tree, model) = (&self.tree, &self.model);
        assert_eq!(tree.node_count(), model.len());
        assert_eq!(tree.zxid_applied(), Zxid(self.zxid));
        let bytes = |(path, znode): (&String, &Znode)| path.len() + znode.data.as_ref().map_or(0, Vec::len);
        assert_eq!(tree.data_bytes(), 1 + model.iter().map(bytes).sum::<usize>() as u64);
        let mut digest = 0u64;
        let mut slots = BTreeSet::new();
        let mut used_acls = BTreeSet::new();
        for (path, znode) in model {
            let n = self.node(path);
            assert!(slots.insert(n));
            assert_eq!(tree.path(n), if path.is_empty() { "/" } else { path });
            assert_eq!(tree.name(n), path.rsplit('/').next().unwrap());
            assert_eq!(tree.parent(n), path.rsplit_once('/').map(|(parent, _)| self.node(parent)));
            assert_eq!(tree.stat(n), znode.stat);
            assert_eq!(tree.data(n), znode.data.as_deref());
            assert_eq!(tree.acl_list(tree.acl(n)).bytes(), znode.acl);
            assert_eq!(tree.acl(n) == AclId::OPEN, znode.acl == OPEN_UNSAFE);
            if znode.acl != OPEN_UNSAFE {
                used_acls.insert(&znode.acl[..]);
            }
            let crc = digest::content_crc(path, znode.data.as_deref());
            assert_eq!(tree.content_crc(n), crc);
            digest = digest.wrapping_add(digest::node_digest(path, crc, &znode.stat));

            let below = format!("{path}/");
            let descendants: Vec<&String> = model.keys().filter(|other| other.starts_with(&below)).collect();
            let children: BTreeSet<&str> = descendants
                .iter()
                .map(|path| &path[below.len()..])
                .filter(|rest| !rest.contains('/'))
                .collect();
            assert_eq!(tree.descendant_count(n), descendants.len());
            assert_eq!(tree.child_count(n), children.len());
            let found: Vec<NodeId> = tree.children(n).collect();
            assert_eq!(found.len(), children.len());
            assert_eq!(found.iter().map(|&child| tree.name(child)).collect::<BTreeSet<&str>>(), children);
            let data_bytes = znode.data.as_ref().map_or(0, Vec::len);
            assert_eq!(tree.view().wire_stat(n), znode.stat.to_wire(data_bytes, children.len()));
            for (from, count_max) in [(0, 5), (3, 20), (found.len(), 1), (1, usize::MAX)] {
                let mut slice = Vec::new();
                let count = tree.view().children_slice(n, from, count_max, |child| slice.push(child));
                let wanted: Vec<NodeId> = found.iter().copied().skip(from).take(count_max).collect();
                assert_eq!((count, slice), (wanted.len(), wanted));
            }
        }
        assert_eq!(tree.digest(), digest);
        assert_eq!(tree.acls().map(|(_, acl)| acl.bytes()).collect::<BTreeSet<&[u8]>>(), used_acls);
        assert_eq!(tree.acls().count(), used_acls.len());
        for path in ["zzz", "//", "/nosuch", "/n1/", "n1"] {
            assert_eq!(tree.find(path), None);
        }
    }
}

/// Reads an image back, and checks that parents come first and no node twice.
fn decode_snapshot(bytes: &[u8], acls: &BTreeMap<i64, Vec<u8>>) -> Model {
    let mut model = Model::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let path = reader.string().unwrap().unwrap().into_owned();
        let data = reader.buffer().unwrap().map(<[u8]>::to_vec);
        let acl = acls[&reader.i64().unwrap()].clone();
        let stat = StatPersisted::decode(&mut reader).unwrap();
        if let Some((parent, _)) = path.rsplit_once('/') {
            assert!(model.contains_key(parent), "{path} comes before its parent");
        }
        assert!(model.insert(path.clone(), Znode { data, acl, stat }).is_none(), "{path} comes twice");
    }
    model
}

const CASES: u32 = if cfg!(miri) { 2 } else { 64 };
const OPS_MAX: usize = if cfg!(miri) { 60 } else { 500 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// The tree is what a map from paths to nodes says.
    #[test]
    fn tree_agrees_with_model(ops in prop::collection::vec(op(), 1..OPS_MAX)) {
        let mut pair = Pair::new();
        for (number, op) in ops.iter().enumerate() {
            pair.apply(op);
            if number % 64 == 0 {
                pair.check();
            }
        }
        pair.check();
        while pair.snapshot.is_some() {
            pair.snapshot_step(5);
        }
    }
}

/// Many snapshots of one busy tree, each exactly the tree at its beginning.
#[test]
fn snapshots_are_exact_while_the_tree_changes() {
    let mut pair = Pair::new();
    let mut random = 5;
    let mut next = |below: u64| (crate::stdx::hash::split_mix(&mut random) % below) as usize;
    let rounds = if cfg!(miri) { 300 } else { 8000 };
    for _ in 0..rounds {
        let at = next(10_000);
        let op = match next(16) {
            0..=4 => Op::Create { at, name: next(256) as u8, data: Some(next(30)), acl: next(4) as u8 },
            5 => Op::Remove { at },
            6 if next(8) == 0 => Op::RemoveBelow { at },
            6..=8 => Op::SetData { at, data: Some(next(50)) },
            9 => Op::SetAcl { at, acl: next(4) as u8 },
            10 => Op::SetChildStat { at },
            11 => Op::Reclaim,
            _ if pair.snapshot.is_none() => Op::SnapshotBegin,
            _ => Op::SnapshotStep { nodes_max: 1 + next(3) },
        };
        pair.apply(&op);
    }
    pair.check();
    assert!(pair.snapshots_checked > rounds / 1000, "{} snapshots", pair.snapshots_checked);
}

fn fresh() -> StatPersisted {
    StatPersisted::default()
}

/// What ZooKeeper makes at its first start has the digest it shows then, and the size its monitor shows.
#[test]
fn fresh_server_has_the_known_digest_and_size() {
    let mut tree = Tree::new(OPTIONS);
    tree.begin();
    let root = tree.root();
    tree.replace_data(root, Some(b""));
    let zookeeper = tree.create(root, "zookeeper", Some(b""), AclId::OPEN, &fresh());
    tree.create(zookeeper, "quota", Some(b""), AclId::OPEN, &fresh());
    let read = tree.intern_acl(decode(READ_UNSAFE));
    let config = StatPersisted { aversion: -1, ..fresh() };
    let config = tree.create(zookeeper, "config", Some(b""), read, &config);
    tree.publish(Zxid(0));
    assert_eq!(tree.digest(), 0x51c6_d660);
    assert_eq!(tree.data_bytes(), 44);
    assert_eq!(tree.acl_list(tree.acl(config)).bytes(), READ_UNSAFE);
    tree.begin();
    tree.set_data(config, Some(b"version=1"), -1, Zxid(1), 1);
    tree.publish(Zxid(1));
    assert_eq!(tree.digest(), 0x51c6_d660);
}

/// Lists of every form, grown and shrunk, keep every child exactly once and give back what they took.
#[test]
fn long_child_lists_grow_and_shrink() {
    let count = if cfg!(miri) { 100 } else { 3000 };
    let mut tree = Tree::new(OPTIONS);
    let mut first_bytes = 0;
    for round in 0..3 {
        tree.begin();
        let root = tree.root();
        let nodes: Vec<NodeId> = (0..count)
            .map(|number| tree.create(root, &format!("{number:04}"), None, AclId::OPEN, &fresh()))
            .collect();
        assert_eq!(tree.child_count(root), count);
        let listed: BTreeSet<NodeId> = tree.children(root).collect();
        assert_eq!(listed, nodes.iter().copied().collect());
        for (done, &n) in nodes.iter().enumerate() {
            tree.remove(n);
            if done % 97 == 0 {
                let listed: BTreeSet<NodeId> = tree.children(root).collect();
                assert_eq!(listed, nodes[done + 1..].iter().copied().collect());
            }
        }
        tree.publish(Zxid(round + 1));
        assert_eq!(tree.node_count(), 1);
        for _ in 0..50 {
            tree.reclaim();
        }
        assert_eq!(tree.limbo_count(), 0);
        if round == 0 {
            first_bytes = tree.memory_bytes();
        }
        assert!(tree.memory_bytes() <= first_bytes * 5 / 4, "{} then {first_bytes}", tree.memory_bytes());
    }
}

/// Nothing is reused before a reader that is awake has declared a quiet point; one that sleeps holds nothing up.
#[test]
fn memory_waits_for_readers_that_are_awake() {
    let mut tree = Tree::new(OPTIONS);
    let mut reader = tree.reader();
    let mut zxid = 0;
    let mut write = |tree: &mut Tree| {
        zxid += 1;
        tree.begin();
        tree.set_data(NodeId::ROOT, Some(b"data"), 0, Zxid(zxid), 0);
        tree.publish(Zxid(zxid));
        tree.reclaim();
        tree.limbo_count()
    };
    assert_eq!([write(&mut tree), write(&mut tree), write(&mut tree)], [1, 2, 3]);
    reader.quiesce();
    assert_eq!(write(&mut tree), 1);
    reader.offline();
    assert_eq!([write(&mut tree), write(&mut tree)], [0, 0]);
    reader.online();
    assert_eq!([write(&mut tree), write(&mut tree)], [1, 2]);
    drop(reader);
    assert_eq!(write(&mut tree), 0);
}

#[test]
fn pinned_data_stays_until_it_is_dropped() {
    let mut tree = Tree::new(OPTIONS);
    let mut reader = tree.reader();
    let long = vec![7; arena::BLOCK_BYTES_MAX + 1];
    tree.begin();
    tree.set_data(NodeId::ROOT, Some(&long), 0, Zxid(1), 0);
    let small = tree.create(NodeId::ROOT, "small", Some(b"small"), AclId::OPEN, &fresh());
    tree.publish(Zxid(1));
    assert!(tree.view().pin(NodeId::ROOT).is_none());
    let (zxid, pinned) = reader.read(|view| view.pin(view.find("/").unwrap())).unwrap();
    let pinned = pinned.unwrap();
    assert!(reader.read(|view| view.pin(small)).unwrap().1.is_none());
    assert_eq!(zxid, Zxid(1));
    tree.begin();
    tree.set_data(NodeId::ROOT, None, 1, Zxid(2), 0);
    tree.publish(Zxid(2));
    for _ in 0..3 {
        reader.quiesce();
        tree.reclaim();
    }
    assert_eq!(tree.limbo_count(), 1);
    drop(reader);
    assert_eq!(pinned[..], long[..]);
    drop(pinned);
    tree.reclaim();
    assert_eq!(tree.limbo_count(), 0);
}

#[test]
fn readers_and_pins_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Tree>();
    is_send::<TreeReader>();
    is_send::<PinnedData>();
}

#[test]
fn a_reader_sees_published_states_only() {
    let mut tree = Tree::new(OPTIONS);
    let reader = tree.reader();
    let before = reader.published();
    assert_eq!(reader.read_at(before, |view| view.child_count(NodeId::ROOT)), Some((Zxid(0), 0)));
    tree.begin();
    tree.create(NodeId::ROOT, "a", Some(b"1"), AclId::OPEN, &fresh());
    assert_ne!(reader.published(), before);
    assert!(reader.read_at(before, |_| ()).is_none());
    assert!(reader.read_at(reader.published(), |_| ()).is_none());
    assert_eq!(reader.read(|_| ()), Err(Contended));
    tree.publish(Zxid(5));
    reader.prefetch("/a");
    reader.prefetch_batch(&["/a", "", "/b"]);
    let read = reader.read(|view| view.find("/a").and_then(|n| view.data(n)).map(<[u8]>::to_vec));
    assert_eq!(read, Ok((Zxid(5), Some(b"1".to_vec()))));
}

#[test]
#[should_panic(expected = "128 readers at most")]
fn readers_are_bounded_and_places_used_again() {
    let mut tree = Tree::new(OPTIONS);
    let mut readers: Vec<TreeReader> = (0..READERS_MAX).map(|_| tree.reader()).collect();
    readers.pop();
    readers.push(tree.reader());
    readers.push(tree.reader());
}

#[test]
#[should_panic(expected = "outside a transaction")]
fn changes_want_a_transaction() {
    Tree::new(OPTIONS).set_acl(NodeId::ROOT, AclId::OPEN, 0);
}

#[test]
#[should_panic(expected = "made twice")]
fn a_node_is_made_once() {
    let mut tree = Tree::new(OPTIONS);
    tree.begin();
    tree.create(NodeId::ROOT, "a", None, AclId::OPEN, &fresh());
    tree.create(NodeId::ROOT, "a", None, AclId::OPEN, &fresh());
}

/// A list nobody uses goes with the next reclaim, its number comes back, and stale numbers allow nothing.
#[test]
fn acl_lists_are_counted() {
    let mut tree = Tree::new(OPTIONS);
    let (one, two) = (acl_bytes(1), acl_bytes(2));
    tree.begin();
    let unused = tree.intern_acl(decode(&one));
    assert_eq!(tree.intern_acl(decode(&one)), unused);
    tree.publish(Zxid(1));
    assert_eq!(tree.acls().count(), 0);
    tree.reclaim();
    assert!(tree.acl_list(unused).is_empty());
    tree.begin();
    let used = tree.intern_acl(decode(&two));
    tree.set_acl(NodeId::ROOT, used, 1);
    tree.publish(Zxid(2));
    tree.reclaim();
    assert_eq!(tree.acls().collect::<Vec<_>>(), [(used, decode(&two))]);
    tree.begin();
    let other = tree.intern_acl(decode(&one));
    assert_ne!(other, used);
    tree.set_acl(NodeId::ROOT, AclId::OPEN, 2);
    tree.publish(Zxid(3));
    tree.reclaim();
    assert!(tree.acl_list(used).is_empty());
    assert!(tree.acl_list(AclId(12_345)).is_empty());
}

/// Readers on other threads only ever see whole transactions, of the zxid they are told.
///
/// Method: each transaction writes its zxid into the root's data and version, makes `/n<zxid>` with a long value, and removes
/// the node made eight transactions before; readers check that all of it fits together. It ends by count, not by time.
#[test]
fn readers_see_whole_transactions() {
    let transactions: i64 = if cfg!(miri) { 40 } else { 30_000 };
    let mut tree = Tree::new(OPTIONS);
    let value = |zxid: i64| vec![zxid as u8; 10 + (zxid as usize * 37) % 1500];
    let readers: Vec<TreeReader> = (0..2).map(|_| tree.reader()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = readers
            .into_iter()
            .map(|mut reader| {
                scope.spawn(move || {
                    let (mut reads, mut seen) = (0u64, 0);
                    let mut names = Vec::new();
                    while seen < transactions {
                        if reads % 100 == 99 {
                            reader.offline();
                            reader.online();
                        }
                        reader.quiesce();
                        let read = reader.read(|view| {
                            names.clear();
                            let root = view.find("/")?;
                            let zxid: i64 = std::str::from_utf8(view.data(root)?).ok()?.parse().ok()?;
                            let newest = view.find(&format!("/n{zxid}"))?;
                            view.for_each_child(root, |name| names.push(name.to_owned()));
                            let gone = view.find(&format!("/n{}", zxid - 8)).is_some();
                            let data = view.data(newest)?.to_vec();
                            Some((zxid, view.stat(root), view.wire_stat(newest), data, gone))
                        });
                        let Ok((at, Some((zxid, root, newest, data, gone)))) = read else {
                            assert!(!matches!(read, Ok((Zxid(1..), None))), "a published node is missing");
                            continue;
                        };
                        assert_eq!((at, root.mzxid, root.version), (Zxid(zxid), Zxid(zxid), zxid as i32));
                        assert_eq!((newest.czxid, data.len()), (Zxid(zxid), newest.data_bytes as usize));
                        assert_eq!(data, value(zxid));
                        assert!(!gone);
                        names.sort();
                        let mut wanted: Vec<String> =
                            ((zxid - 7).max(1)..=zxid).map(|number| format!("n{number}")).collect();
                        wanted.sort();
                        assert_eq!(names, wanted);
                        assert!(seen <= zxid);
                        (reads, seen) = (reads + 1, zxid);
                    }
                    reads
                })
            })
            .collect();
        for zxid in 1..=transactions {
            tree.begin();
            tree.set_data(NodeId::ROOT, Some(zxid.to_string().as_bytes()), zxid as i32, Zxid(zxid), 0);
            let stat = StatPersisted { czxid: Zxid(zxid), ..fresh() };
            tree.create(NodeId::ROOT, &format!("n{zxid}"), Some(&value(zxid)), AclId::OPEN, &stat);
            if let Some(n) = tree.find(&format!("/n{}", zxid - 8)) {
                tree.remove(n);
            }
            tree.publish(Zxid(zxid));
            if zxid % 3 == 0 {
                tree.reclaim();
            }
        }
        for thread in threads {
            assert!(thread.join().unwrap() > 0);
        }
    });
    for _ in 0..transactions {
        tree.reclaim();
    }
    assert_eq!(tree.limbo_count(), 0);
}

/// A reader misses no published node while the index is copied from table to table.
///
/// Method: node `n` is made at zxid `n`; a reader looks for nodes up to the zxid it is told, and for one beyond.
#[test]
fn readers_find_every_node_while_the_index_grows() {
    let count: i64 = if cfg!(miri) { 100 } else { 40_000 };
    let mut tree = Tree::new(OPTIONS);
    let mut reader = tree.reader();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let (mut seen, mut random) = (0, 1);
            let mut looked = 0;
            while seen < count {
                reader.quiesce();
                let published = reader.published();
                let newest = published.zxid.0;
                let number = if newest == 0 {
                    0
                } else {
                    1 + (crate::stdx::hash::split_mix(&mut random) % newest as u64) as i64
                };
                let read = reader.read_at(published, |view| {
                    let there = newest == 0 || view.find(&format!("/{number}")).is_some();
                    (there, view.find(&format!("/{}", newest + 1)).is_none())
                });
                if let Some((zxid, found)) = read {
                    assert_eq!((zxid, found), (Zxid(newest), (true, true)), "/{number} at {newest}");
                    seen = newest;
                    looked += 1;
                }
            }
            looked
        });
        for zxid in 1..=count {
            tree.begin();
            tree.create(NodeId::ROOT, &zxid.to_string(), None, AclId::OPEN, &fresh());
            tree.publish(Zxid(zxid));
            if zxid % 100 == 0 {
                tree.reclaim();
            }
        }
        assert!(thread.join().unwrap() > 0);
    });
}

/// While the index grows in steps, every node is found, and nodes removed meanwhile are gone from both tables.
#[test]
fn nodes_are_found_while_the_index_grows() {
    let mut tree = Tree::new(OPTIONS);
    let count = if cfg!(miri) { 80 } else { 2000 };
    for number in 0..count {
        tree.begin();
        tree.create(NodeId::ROOT, &number.to_string(), None, AclId::OPEN, &fresh());
        if number % 5 == 4 {
            let n = tree.find(&format!("/{}", number - 2)).unwrap();
            tree.remove(n);
        }
        tree.publish(Zxid(number));
        if number % 7 == 0 {
            for other in 0..=number {
                let removed = other % 5 == 2 && other + 2 <= number;
                assert_eq!(tree.find(&format!("/{other}")).is_none(), removed, "/{other} at {number}");
            }
        }
    }
}
