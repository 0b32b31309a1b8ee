//! Znodes: one writer, many readers without locks.
//!
//! | File       | What it is                                                                        |
//! |------------|-----------------------------------------------------------------------------------|
//! | `mod`      | [`Tree`], the one writer: changes, counts, digest                                 |
//! | `view`     | [`View`] and [`TreeReader`]: reading without copies                               |
//! | `publish`  | the two protocols between writer and readers: which state was read, what is free  |
//! | `store`    | the writer's memory: what is taken, given back, and when it is used again         |
//! | `arena`    | pages, headers, blocks (unsafe)                                                   |
//! | `header`, `children`, `index`, `acl` | what lies in them                                       |
//! | `digest`   | the number replicas compare                                                       |
//! | `snapshot` | the tree at one zxid, written in slices                                           |
//!
//! A znode takes 64 bytes of header, 10 to 12.5 in the index, 4 to 8 in its parent's list, and a block of name, data and 8 bytes
//! of lengths, rounded up to 16. With children, or an owner, it takes 48 more.
//!
//! The writer changes the tree only between [`Tree::begin`] and [`Tree::publish`], once a transaction. A reader learns from
//! the publication number whether a transaction got in its way, and reads again.

mod acl;
mod arena;
mod children;
pub mod digest;
mod header;
mod index;
mod publish;
mod snapshot;
mod store;
#[cfg(all(test, not(loom)))]
mod tests;
mod view;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::proto::{Acl, StatPersisted};
use crate::types::Zxid;
use acl::Acls;
use arena::NO_BLOCK;
use index::Index;
use snapshot::Snapshot;
use store::Store;

pub use publish::{PINS_MAX, Published, READERS_MAX};
pub use view::{Contended, PinnedData, TreeReader, View};

/// Places of a growing index that are copied in one turn, beside those that creations copy.
const INDEX_STEP: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeOptions {
    /// Secret of the process, so that clients cannot choose paths that collide; a simulation passes a fixed one.
    pub hash_seed: u64,
}

/// A znode, by its slot in the arena, a small number. Once the node is removed the number may come to mean another; a number
/// without a node reads as one with an empty name, no data and no children.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

impl NodeId {
    pub const ROOT: NodeId = NodeId(1);

    #[inline]
    fn slot(self) -> u32 {
        self.0
    }

    #[inline]
    fn from_slot(slot: u32) -> Option<NodeId> {
        if slot == 0 { None } else { Some(NodeId(slot)) }
    }
}

/// An interned ACL list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AclId(pub u32);

impl AclId {
    /// `world:anyone` with every permission.
    pub const OPEN: AclId = AclId(0);
}

/// The tree, in the hands of its one writer.
pub struct Tree {
    store: Store,
    index: Index,
    acls: Acls,
    snapshot: Option<Snapshot>,
    digest: u64,
    data_bytes: u64,
    /// Scratch.
    path: String,
}

impl Tree {
    /// A tree of the root alone: all-zero stat, no data, open to all.
    pub fn new(options: TreeOptions) -> Tree {
        let mut store = Store::new(options.hash_seed);
        let index = Index::new(&mut store);
        let root = store.slot();
        assert_eq!(root, NodeId::ROOT.slot());
        let payload = store.payload("", None);
        let header = store.header(root);
        header.content_crc.store(digest::content_crc("", None), Ordering::Relaxed);
        header.set_payload(payload);
        let mut tree = Tree {
            store,
            index,
            acls: Acls::new(),
            snapshot: None,
            digest: 0,
            data_bytes: 0,
            path: String::new(),
        };
        tree.digest = tree.part_of_digest(NodeId::ROOT);
        tree.data_bytes = 1; // The root's path counts as "/".
        tree
    }

    /// A reader for another thread, awake. Panics beyond `READERS_MAX` at a time.
    pub fn reader(&mut self) -> TreeReader {
        let place = self.store.shared().quiescence.claim();
        let place = place.unwrap_or_else(|| panic!("a tree has {READERS_MAX} readers at most"));
        TreeReader::new(Arc::clone(self.store.shared()), place)
    }

    /// The tree as it is now, with all a reader can do.
    #[inline]
    pub fn view(&self) -> View<'_> {
        self.store.view()
    }

    pub fn root(&self) -> NodeId {
        NodeId::ROOT
    }

    /// `""` and `"/"` are the root; any other path must be as the node was made.
    pub fn find(&self, path: &str) -> Option<NodeId> {
        self.view().find(path)
    }

    pub fn stat(&self, n: NodeId) -> StatPersisted {
        self.view().stat(n)
    }

    pub fn data(&self, n: NodeId) -> Option<&[u8]> {
        self.view().data(n)
    }

    pub fn acl(&self, n: NodeId) -> AclId {
        self.view().acl(n)
    }

    /// The list of an id; without entries if there is no such id.
    pub fn acl_list(&self, id: AclId) -> Acl<'_> {
        self.view().acl_list(id)
    }

    pub fn child_count(&self, n: NodeId) -> usize {
        self.view().child_count(n)
    }

    /// Nodes below `n` at any depth, without `n`.
    pub fn descendant_count(&self, n: NodeId) -> usize {
        self.view().descendant_count(n)
    }

    pub fn parent(&self, n: NodeId) -> Option<NodeId> {
        self.view().parent(n)
    }

    /// The last part of the path; empty for the root.
    pub fn name(&self, n: NodeId) -> &str {
        self.view().name(n)
    }

    /// The full path; `/` for the root.
    pub fn path(&self, n: NodeId) -> String {
        let mut path = String::new();
        self.path_into(n, &mut path);
        path
    }

    /// Replaces what is in `path`.
    pub fn path_into(&self, n: NodeId, path: &mut String) {
        path.clear();
        self.view().append_path(n, path);
        if path.is_empty() {
            path.push('/');
        }
    }

    /// In no order.
    pub fn children(&self, n: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let view = self.view();
        (0..view.child_count(n))
            .map(move |index| view.child_at(n, index).expect("the writer's lists are whole"))
    }

    /// Crc of path and data, see [`digest::content_crc`].
    pub fn content_crc(&self, n: NodeId) -> u32 {
        self.view().content_crc(n)
    }

    /// Nodes, the root included.
    pub fn node_count(&self) -> usize {
        self.index.count() + 1
    }

    /// Bytes of all paths and all data.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The zxid published last.
    pub fn zxid_applied(&self) -> Zxid {
        self.store.shared().publication.0.published().zxid
    }

    /// The digest of the tree as it is now, also within a transaction.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Bytes mapped for the tree, used or not.
    pub fn memory_bytes(&self) -> usize {
        self.store.mapped_bytes() + self.snapshot.as_ref().map_or(0, Snapshot::memory_bytes)
    }

    /// Blocks and slots that wait for readers to declare a quiet point.
    pub fn limbo_count(&self) -> usize {
        self.store.limbo_count()
    }

    /// A transaction begins: readers see nothing of the tree until [`Tree::publish`]. Panics inside another.
    pub fn begin(&mut self) {
        self.store.shared().publication.0.begin();
    }

    /// The transaction is complete, and the tree is that of `zxid`. Panics without [`Tree::begin`].
    pub fn publish(&mut self, zxid: Zxid) {
        self.store.shared().publication.0.publish(zxid);
    }

    /// Makes a node below `parent`, whose counts change, but not its stat.
    ///
    /// Panics if there is such a node, if the name is empty or holds a slash, if the ACL id is unknown, outside a transaction.
    pub fn create(
        &mut self,
        parent: NodeId,
        name: &str,
        data: Option<&[u8]>,
        acl: AclId,
        stat: &StatPersisted,
    ) -> NodeId {
        self.assert_change(parent);
        assert!(!name.is_empty() && !name.contains('/'), "{name:?} is not a name");
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        self.view().append_path(parent, &mut path);
        path.push('/');
        path.push_str(name);
        let hash = self.view().hash(&path);
        assert!(self.view().find_hashed(&path, hash).is_none(), "{path} is made twice");

        self.acls.retain(acl);
        let slot = self.store.slot();
        let n = NodeId::from_slot(slot).expect("slot 0 is never given out");
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.created(n);
        }
        let payload = self.store.payload(name, data);
        self.store.set_stat(slot, stat);
        let header = self.store.header(slot);
        header.set_acl(acl, digest::is_outside(&path));
        header.content_crc.store(digest::content_crc(&path, data), Ordering::Relaxed);
        header.parent.store(parent.slot(), Ordering::Relaxed);
        header.set_payload(payload);
        children::push(&mut self.store, parent.slot(), slot);
        self.index.insert(&mut self.store, hash, slot);
        self.count_ancestors(n, 1);
        self.digest = self.digest.wrapping_add(self.part_of_digest(n));
        self.data_bytes += (path.len() + data.map_or(0, <[u8]>::len)) as u64;
        self.path = path;
        n
    }

    /// Removes a node. Panics if it has children, is the root or no node, outside a transaction.
    pub fn remove(&mut self, n: NodeId) {
        self.assert_change(n);
        assert!(n != NodeId::ROOT, "the root is removed");
        assert!(
            self.child_count(n) == 0,
            "{} is removed with {} children",
            self.path(n),
            self.child_count(n)
        );
        self.before_change(n);
        self.digest = self.digest.wrapping_sub(self.part_of_digest(n));
        let mut path = std::mem::take(&mut self.path);
        self.path_into(n, &mut path);
        self.data_bytes -= (path.len() + self.data(n).map_or(0, <[u8]>::len)) as u64;
        let hash = self.view().hash(&path);
        self.path = path;
        self.count_ancestors(n, -1);
        self.acls.release(self.acl(n));

        let header = self.store.header(n.slot());
        let (parent, position) =
            (header.parent.load(Ordering::Relaxed), header.position.load(Ordering::Relaxed) as usize);
        let (payload, family) = (header.payload(), header.family());
        self.index.remove(&mut self.store, hash, n.slot());
        children::remove(&mut self.store, parent, position);
        let header = self.store.header(n.slot());
        header.set_payload(NO_BLOCK);
        header.set_family(NO_BLOCK);
        header.parent.store(0, Ordering::Relaxed);
        self.store.retire_payload(payload);
        if family != NO_BLOCK {
            self.store.retire_family(family);
        }
        self.store.retire_slot(n.slot());
    }

    pub fn set_data(&mut self, n: NodeId, data: Option<&[u8]>, version: i32, mzxid: Zxid, mtime_ms: i64) {
        let stat = StatPersisted { version, mzxid, mtime_ms, ..self.stat(n) };
        self.change(n, Some(data), &stat);
    }

    /// New data under the old stat: what the server counts in a quota's statistics.
    pub fn replace_data(&mut self, n: NodeId, data: Option<&[u8]>) {
        let stat = self.stat(n);
        self.change(n, Some(data), &stat);
    }

    pub fn set_acl(&mut self, n: NodeId, acl: AclId, aversion: i32) {
        let stat = StatPersisted { aversion, ..self.stat(n) };
        self.change(n, None, &stat);
        self.acls.retain(acl);
        self.acls.release(self.acl(n));
        let header = self.store.header(n.slot());
        header.set_acl(acl, header.is_outside_digest());
    }

    /// What a created or removed child leaves in its parent's stat.
    pub fn set_child_stat(&mut self, n: NodeId, cversion: i32, pzxid: Zxid) {
        let stat = StatPersisted { cversion, pzxid, ..self.stat(n) };
        self.change(n, None, &stat);
    }

    pub fn set_stat(&mut self, n: NodeId, stat: &StatPersisted) {
        self.change(n, None, stat);
    }

    /// The number of a list, which lives as long as nodes use it, and at least until the next [`Tree::reclaim`].
    pub fn intern_acl(&mut self, acl: Acl<'_>) -> AclId {
        self.acls.intern(&mut self.store, acl)
    }

    /// The lists that nodes use, the open one left out, in ascending order of their numbers.
    pub fn acls(&self) -> impl Iterator<Item = (AclId, Acl<'_>)> {
        self.acls.ids().map(|id| (id, self.acl_list(id)))
    }

    /// Once a turn: makes memory usable again that every reader has passed, and moves the growth of the index on.
    pub fn reclaim(&mut self) {
        self.acls.reclaim(&mut self.store);
        self.index.step(&mut self.store, INDEX_STEP);
        self.store.reclaim();
    }

    /// Begins an exact image of the tree as it is published now; one that was going on is abandoned. Panics inside a transaction.
    pub fn snapshot_begin(&mut self) {
        assert!(!self.store.shared().publication.0.is_open(), "a snapshot begins inside a transaction");
        self.snapshot = Some(Snapshot::new(self.zxid_applied(), self.store.slot_count()));
    }

    /// The zxid of the image being taken.
    pub fn snapshot_zxid(&self) -> Option<Zxid> {
        self.snapshot.as_ref().map(|snapshot| snapshot.zxid)
    }

    /// Appends about `nodes_max` nodes of the image, and what changes have forced out since the last step. True when all
    /// have been handed out; the image is over then. Panics if none was begun.
    pub fn snapshot_step(&mut self, nodes_max: usize, out: &mut Vec<u8>) -> bool {
        let snapshot = self.snapshot.as_mut().expect("a snapshot was begun");
        let done = snapshot.step(self.store.view(), nodes_max, out);
        if done {
            self.snapshot = None;
        }
        done
    }

    pub fn snapshot_abandon(&mut self) {
        self.snapshot = None;
    }

    /// Changes data, if given, and stat of a node, and keeps the digest.
    fn change(&mut self, n: NodeId, data: Option<Option<&[u8]>>, stat: &StatPersisted) {
        self.assert_change(n);
        self.before_change(n);
        self.digest = self.digest.wrapping_sub(self.part_of_digest(n));
        if let Some(data) = data {
            let mut path = std::mem::take(&mut self.path);
            path.clear();
            self.view().append_path(n, &mut path);
            let crc = digest::content_crc(&path, data);
            self.path = path;

            let spent = self.store.header(n.slot()).payload();
            let bytes_before = self.data(n).map_or(0, <[u8]>::len) as u64;
            let payload = self.store.payload_like(spent, data);
            let header = self.store.header(n.slot());
            header.set_payload(payload);
            header.content_crc.store(crc, Ordering::Relaxed);
            self.store.retire_payload(spent);
            self.data_bytes = self.data_bytes - bytes_before + data.map_or(0, <[u8]>::len) as u64;
        }
        self.store.set_stat(n.slot(), stat);
        self.digest = self.digest.wrapping_add(self.part_of_digest(n));
    }

    fn assert_change(&self, n: NodeId) {
        assert!(self.store.shared().publication.0.is_open(), "the tree is changed outside a transaction");
        assert!(self.view().is_live(n), "{n:?} is no node");
    }

    fn before_change(&mut self, n: NodeId) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.before_change(self.store.view(), n);
        }
    }

    fn count_ancestors(&self, n: NodeId, by: i32) {
        let mut next = self.parent(n);
        while let Some(ancestor) = next {
            let family = self.store.family(ancestor.slot()).expect("a parent has a family");
            let count = &family.descendant_count;
            count.store(count.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
            next = self.parent(ancestor);
        }
    }

    fn part_of_digest(&self, n: NodeId) -> u64 {
        let header = self.store.header(n.slot());
        if header.is_outside_digest() {
            return 0;
        }
        digest::counted_digest(header.content_crc.load(Ordering::Relaxed), &self.stat(n))
    }
}
