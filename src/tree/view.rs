//! Reading the tree: [`View`] for a moment, [`TreeReader`] for a thread.
//!
//! A view is the proof that no block it can reach is reused while it lives: the writer's view borrows the store, which reuses
//! memory only when borrowed mutably, and a reader's view borrows a reader that is awake and cannot declare a quiet point
//! meanwhile. Hence the unsafe functions of the arena are called here, and what they give lives as long as the view's borrow.
//!
//! A reader may meet a tree in the middle of a transaction. All it finds then is sound memory (a slot, a block, a list that
//! was or will be right), every walk is bounded, and the publication number tells afterwards that the result must be dropped.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use thiserror::Error;

use super::arena::{self, NO_BLOCK, Payload};
use super::children::{self, List};
use super::header::{Family, Header};
use super::publish::Published;
use super::store::{Shared, Store};
use super::{AclId, NodeId, index};
use crate::proto::acl::OPEN_UNSAFE;
use crate::proto::{Acl, Stat, StatPersisted};
use crate::types::Zxid;

/// Reads tried before the reader gives up and the pipeline has to answer.
const READ_TRIES: usize = 8;
/// Looks at the publication number while a transaction is being applied, which takes about a microsecond, in each try.
const SPINS_MAX: usize = 64;
/// Paths whose lookups one round of [`View::prefetch_batch`] overlaps.
const PREFETCH_BATCH: usize = 32;
/// Cache lines of a payload worth fetching ahead: a name and 100 bytes of data.
const PREFETCH_LINES: usize = 3;
/// Children fetched ahead of the one that is visited.
const PREFETCH_CHILDREN: usize = 8;

/// A list without entries: nobody may do anything. What a list that does not exist reads as.
const NOBODY: &[u8] = &[0; 4];

/// The tree kept moving; nothing was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the tree changed during each of {READ_TRIES} reads")]
pub struct Contended;

/// The tree at one moment, for reading. What it gives out may be torn until the publication was checked, for which see
/// [`TreeReader::read`]; a [`NodeId`] is good for as long as the view.
#[derive(Clone, Copy)]
pub struct View<'a> {
    shared: &'a Shared,
    /// `None` for the writer.
    reader: Option<&'a TreeReader>,
}

impl Store {
    /// The writer's own view.
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        View { shared: self.shared(), reader: None }
    }
}

impl<'a> View<'a> {
    /// For the writer, where it cannot borrow the whole store: nothing may be given back while the view lives.
    pub(super) fn of_shared(shared: &'a Shared) -> View<'a> {
        View { shared, reader: None }
    }

    /// `""` and `"/"` are the root; any other path must be as the node was made.
    pub fn find(&self, path: &str) -> Option<NodeId> {
        if path.is_empty() || path == "/" {
            return Some(NodeId::ROOT);
        }
        self.find_hashed(path, self.hash(path))
    }

    #[inline]
    pub(super) fn hash(&self, path: &str) -> u32 {
        self.hash_bytes(path.as_bytes())
    }

    #[inline]
    fn hash_bytes(&self, path: &[u8]) -> u32 {
        (self.shared.hash.hash(path) >> 32) as u32
    }

    #[inline]
    pub(super) fn find_hashed(&self, path: &str, hash: u32) -> Option<NodeId> {
        self.find_in_index(hash, |slot| self.is_path(slot, path)).and_then(NodeId::from_slot)
    }

    #[inline]
    fn find_in_index(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (next, current) = self.shared.index();
        if next != NO_BLOCK
            && let Some(slot) = index::find(self.table(next), hash, &mut is_it)
        {
            return Some(slot);
        }
        index::find(self.table(current), hash, &mut is_it)
    }

    /// Whether the names from `slot` up to the root spell `path`. Each step takes two bytes off the path at least.
    #[inline]
    fn is_path(&self, mut slot: u32, path: &str) -> bool {
        let mut rest = path.as_bytes();
        while slot != NodeId::ROOT.slot() {
            let header = self.shared.arena.header(slot);
            let payload = header.payload();
            if rest.len() == path.len() {
                // The data is likely wanted next; it can come while names are compared.
                self.shared.arena.prefetch_block(payload, PREFETCH_LINES);
            }
            let name = self.payload(payload).name.as_bytes();
            let Some(before) = rest.strip_suffix(name) else { return false };
            let Some((b'/', before)) = before.split_last() else { return false };
            if name.is_empty() {
                return false;
            }
            rest = before;
            slot = header.parent.load(Ordering::Relaxed);
        }
        rest.is_empty()
    }

    #[inline]
    pub fn stat(&self, n: NodeId) -> StatPersisted {
        let header = self.header(n);
        header.stat(self.family(header))
    }

    /// The stat as clients see it.
    #[inline]
    pub fn wire_stat(&self, n: NodeId) -> Stat {
        let header = self.header(n);
        let family = self.family(header);
        let data_bytes = self.payload(header.payload()).data_bytes();
        let child_count = family.map_or(0, |family| family.child_count.load(Ordering::Relaxed));
        header.stat(family).to_wire(data_bytes, child_count as usize)
    }

    #[inline]
    pub fn data(&self, n: NodeId) -> Option<&'a [u8]> {
        self.payload(self.header(n).payload()).data()
    }

    /// The data as a jute buffer: length (big-endian, -1 for none) and bytes, one behind the other.
    #[inline]
    pub fn data_wire(&self, n: NodeId) -> &'a [u8] {
        self.payload(self.header(n).payload()).wire
    }

    /// The last part of the path; empty for the root.
    #[inline]
    pub fn name(&self, n: NodeId) -> &'a str {
        self.payload(self.header(n).payload()).name
    }

    #[inline]
    pub fn acl(&self, n: NodeId) -> AclId {
        self.header(n).acl()
    }

    /// The list of an id; without entries if there is no such id.
    pub fn acl_list(&self, id: AclId) -> Acl<'a> {
        if id == AclId::OPEN {
            return Acl::from_checked(OPEN_UNSAFE);
        }
        let block = self.shared.arena.acl_block(id.0);
        Acl::from_checked(self.payload(block).data().unwrap_or(NOBODY))
    }

    #[inline]
    pub fn child_count(&self, n: NodeId) -> usize {
        self.family(self.header(n)).map_or(0, |family| family.child_count.load(Ordering::Relaxed) as usize)
    }

    /// Nodes below, at any depth, without `n` itself.
    #[inline]
    pub fn descendant_count(&self, n: NodeId) -> usize {
        self.family(self.header(n))
            .map_or(0, |family| family.descendant_count.load(Ordering::Relaxed) as usize)
    }

    pub fn content_crc(&self, n: NodeId) -> u32 {
        self.header(n).content_crc.load(Ordering::Relaxed)
    }

    pub fn parent(&self, n: NodeId) -> Option<NodeId> {
        NodeId::from_slot(self.header(n).parent.load(Ordering::Relaxed))
    }

    /// Calls `f` with the name of every child, in no order.
    pub fn for_each_child(&self, n: NodeId, mut f: impl FnMut(&str)) {
        self.children_slice(n, 0, usize::MAX, |child| f(self.name(child)));
    }

    /// Calls `f` with up to `count_max` children, beginning with number `from_index` in the list's present order, and returns
    /// how many those were.
    ///
    /// The order stays while no child is added or removed: whoever slices a list over several reads compares `cversion` and
    /// `pzxid` of the stat, and begins again if they moved.
    pub fn children_slice(
        &self,
        n: NodeId,
        from_index: usize,
        count_max: usize,
        mut f: impl FnMut(NodeId),
    ) -> usize {
        let Some(family) = self.family(self.header(n)) else { return 0 };
        let list = List::decode(family.children());
        let count = family.child_count.load(Ordering::Relaxed) as usize;
        let end = from_index.saturating_add(count_max).min(count);
        let mut visited = 0;
        let mut visit = |words: &[AtomicU32]| {
            for (index, word) in words.iter().enumerate() {
                if let Some(ahead) = words.get(index + 2 * PREFETCH_CHILDREN) {
                    self.shared.arena.prefetch_header(ahead.load(Ordering::Acquire));
                }
                if let Some(ahead) = words.get(index + PREFETCH_CHILDREN) {
                    let header = self.shared.arena.header(ahead.load(Ordering::Acquire));
                    self.shared.arena.prefetch_block(header.payload(), 1);
                }
                if let Some(child) = NodeId::from_slot(word.load(Ordering::Acquire)) {
                    f(child);
                    visited += 1;
                }
            }
        };
        match list {
            List::Empty => {}
            List::One(slot) => {
                if from_index == 0 && 0 < end {
                    visit(&[AtomicU32::new(slot)]);
                }
            }
            List::Chunk { block, log2 } => {
                let words = self.words(block, children::capacity(log2));
                let from = from_index.min(words.len());
                visit(&words[from..end.clamp(from, words.len())]);
            }
            List::Directory { block, log2 } => {
                let directory = self.words(block, children::capacity(log2));
                let mut position = from_index;
                while position < end {
                    let (chunk, within) = children::split(position);
                    let Some(chunk) = directory.get(chunk) else { break };
                    let block = chunk.load(Ordering::Acquire);
                    if block == NO_BLOCK {
                        break;
                    }
                    let until = (within + (end - position)).min(children::CHUNK_SLOTS);
                    visit(&self.words(block, children::CHUNK_SLOTS)[within..until]);
                    position += until - within;
                }
            }
        }
        visited
    }

    /// Keeps the data of `n` alive and in place until the result is dropped, over any number of turns.
    ///
    /// `None` for the writer, for data too small to be worth it (below about 64 KiB), and when the reader has all its pins in
    /// use: then copy.
    pub fn pin(&self, n: NodeId) -> Option<PinnedData> {
        let block = self.header(n).payload();
        if !arena::is_large(block) {
            return None;
        }
        let reader = self.reader?;
        let pin = self.shared.pins.pin(reader.place, block)?;
        Some(PinnedData { shared: Arc::clone(&reader.shared), pin, block })
    }

    /// Fetches what reading this path will touch.
    pub fn prefetch(&self, path: &str) {
        if let Some(slot) = self.find_in_index(self.hash(path), |_| true) {
            self.shared.arena.prefetch_header(slot);
        }
    }

    /// Fetches what reading these paths will touch, with the misses of up to 32 of them overlapping.
    pub fn prefetch_batch(&self, paths: &[impl AsRef<[u8]>]) {
        let (next, current) = self.shared.index();
        for paths in paths.chunks(PREFETCH_BATCH) {
            let mut hashes = [0; PREFETCH_BATCH];
            for (hash, path) in hashes.iter_mut().zip(paths) {
                *hash = self.hash_bytes(path.as_ref());
                arena::prefetch(index::first_place(self.table(current), *hash));
                if next != NO_BLOCK {
                    arena::prefetch(index::first_place(self.table(next), *hash));
                }
            }
            let mut slots = [0; PREFETCH_BATCH];
            for (slot, &hash) in slots.iter_mut().zip(&hashes[..paths.len()]) {
                *slot = self.find_in_index(hash, |_| true).unwrap_or(0);
                self.shared.arena.prefetch_header(*slot);
            }
            for &slot in &slots[..paths.len()] {
                self.shared.arena.prefetch_block(self.shared.arena.header(slot).payload(), PREFETCH_LINES);
            }
        }
    }

    /// Appends the path of `n`; that of the root is empty. For a tree that is not torn: a walk up ends at the root.
    pub(super) fn append_path(&self, n: NodeId, out: &mut String) {
        let mut near = [0; 16];
        let mut far = Vec::new();
        let mut depth = 0;
        let mut slot = n.slot();
        while slot != NodeId::ROOT.slot() && slot != 0 {
            match near.get_mut(depth) {
                Some(place) => *place = slot,
                None => far.push(slot),
            }
            depth += 1;
            slot = self.shared.arena.header(slot).parent.load(Ordering::Relaxed);
        }
        for slot in far.iter().rev().chain(near[..depth.min(near.len())].iter().rev()) {
            out.push('/');
            out.push_str(self.payload(self.shared.arena.header(*slot).payload()).name);
        }
    }

    /// Whether there is a node in this slot.
    pub(super) fn is_live(&self, n: NodeId) -> bool {
        self.header(n).payload() != NO_BLOCK
    }

    /// A child by its position.
    pub(super) fn child_at(&self, n: NodeId, position: usize) -> Option<NodeId> {
        let slot = match List::decode(self.family(self.header(n))?.children()) {
            List::Empty => None,
            List::One(slot) => (position == 0).then_some(slot),
            List::Chunk { block, log2 } => {
                let word = self.words(block, children::capacity(log2)).get(position);
                word.map(|word| word.load(Ordering::Acquire))
            }
            List::Directory { block, log2 } => {
                let (chunk, within) = children::split(position);
                let chunk = self.words(block, children::capacity(log2)).get(chunk)?.load(Ordering::Acquire);
                (chunk != NO_BLOCK)
                    .then(|| self.words(chunk, children::CHUNK_SLOTS)[within].load(Ordering::Acquire))
            }
        };
        slot.and_then(NodeId::from_slot)
    }

    #[inline]
    pub(super) fn header(&self, n: NodeId) -> &'a Header {
        self.shared.arena.header(n.slot())
    }

    #[inline]
    pub(super) fn family(&self, header: &Header) -> Option<&'a Family> {
        let block = header.family();
        (block != NO_BLOCK).then(|| self.family_at(block))
    }

    #[inline]
    pub(super) fn family_at(&self, block: u32) -> &'a Family {
        // SAFETY: block numbers of families come from `Blocks::family`; no block is reused while a view lives.
        unsafe { self.shared.arena.family(block) }
    }

    #[inline]
    pub(super) fn payload(&self, block: u32) -> Payload<'a> {
        // SAFETY: block numbers in headers and ACL entries come from `Blocks::payload`; no block is reused while a view
        // lives (module comment).
        unsafe { self.shared.arena.payload(block) }
    }

    #[inline]
    pub(super) fn words(&self, block: u32, count: usize) -> &'a [AtomicU32] {
        // SAFETY: lists and directories come from `Blocks::words`, and the word that names a block tells the count it was
        // made for; no block is reused while a view lives.
        unsafe { self.shared.arena.words(block, count) }
    }

    #[inline]
    pub(super) fn table(&self, block: u32) -> &'a [AtomicU64] {
        // SAFETY: the index is published only with blocks of `Blocks::table`; no block is reused while a view lives.
        unsafe { self.shared.arena.table(block) }
    }
}

/// A thread's access to the tree. Never waits for the writer, and the writer never waits for it.
///
/// A reader that is awake must call [`TreeReader::quiesce`] again and again, as memory is reused only behind it; one that
/// sleeps goes [offline](TreeReader::offline) first.
pub struct TreeReader {
    shared: Arc<Shared>,
    place: usize,
    awake: bool,
    /// A quiet point speaks for one thread: not `Sync`.
    one_thread: PhantomData<Cell<()>>,
}

impl std::fmt::Debug for TreeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeReader").field("place", &self.place).finish_non_exhaustive()
    }
}

impl TreeReader {
    /// A reader at a place that was claimed for it, and is awake.
    pub(super) fn new(shared: Arc<Shared>, place: usize) -> TreeReader {
        TreeReader { shared, place, awake: true, one_thread: PhantomData }
    }

    /// The publication now.
    #[inline]
    pub fn published(&self) -> Published {
        self.shared.publication.0.published()
    }

    /// Runs `f` until the tree did not move meanwhile, and returns its result with the zxid of the state it read.
    ///
    /// What `f` is shown may be torn: it must keep to itself what it finds until this returns, and expect no two facts to agree.
    /// Fails after a few tries. Panics if the reader is offline.
    pub fn read<T>(&self, mut f: impl FnMut(&View<'_>) -> T) -> Result<(Zxid, T), Contended> {
        for _ in 0..READ_TRIES {
            let published = self.settled();
            if let Some(read) = self.read_at(published, &mut f) {
                return Ok(read);
            }
        }
        Err(Contended)
    }

    /// The publication, after a short wait for the transaction that is being applied.
    fn settled(&self) -> Published {
        for _ in 0..SPINS_MAX {
            let published = self.published();
            if published.is_stable() {
                return published;
            }
            std::hint::spin_loop();
        }
        self.published()
    }

    /// Runs `f` once, on exactly the state `published` tells of. `None` if the tree has moved on or is being changed.
    /// Panics if the reader is offline.
    #[inline]
    pub fn read_at<T>(&self, published: Published, f: impl FnOnce(&View<'_>) -> T) -> Option<(Zxid, T)> {
        if !published.is_stable() {
            return None;
        }
        let result = f(&self.view());
        self.shared.publication.0.holds(published).then_some((published.zxid, result))
    }

    /// See [`View::prefetch`].
    pub fn prefetch(&self, path: &str) {
        self.view().prefetch(path);
    }

    /// See [`View::prefetch_batch`].
    pub fn prefetch_batch(&self, paths: &[impl AsRef<[u8]>]) {
        self.view().prefetch_batch(paths);
    }

    /// Declares that nothing is held that was read before. Once a turn.
    #[inline]
    pub fn quiesce(&mut self) {
        if self.awake {
            self.shared.quiescence.quiet(self.place);
        }
    }

    /// Before the thread sleeps: nobody waits for this reader until it is [online](TreeReader::online) again.
    pub fn offline(&mut self) {
        self.awake = false;
        self.shared.quiescence.sleep(self.place);
    }

    pub fn online(&mut self) {
        self.shared.quiescence.wake(self.place);
        self.awake = true;
    }

    /// A view is lent only while the reader is awake, and both `quiesce` and `offline` want the reader to themselves.
    #[inline]
    fn view(&self) -> View<'_> {
        assert!(self.awake, "a reader that is offline reads the tree");
        View { shared: &self.shared, reader: Some(self) }
    }
}

impl Drop for TreeReader {
    fn drop(&mut self) {
        self.shared.quiescence.vacate(self.place);
    }
}

/// Data that stays alive and in place until this is dropped, wherever the tree has gone meanwhile.
pub struct PinnedData {
    shared: Arc<Shared>,
    pin: usize,
    block: u32,
}

impl Deref for PinnedData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block was a payload when it was pinned, in a view of a reader; the writer gives no pinned block back.
        unsafe { self.shared.arena.payload(self.block) }.data().unwrap_or_default()
    }
}

impl fmt::Debug for PinnedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedData").field("block", &self.block).field("bytes", &self.len()).finish()
    }
}

impl Drop for PinnedData {
    fn drop(&mut self) {
        self.shared.pins.unpin(self.pin);
    }
}
