//! The table of watches of one front.
//!
//! Every watch is held twice, and each half knows where the other is:
//!
//! ```text
//! paths[p].watchers[w] = (c, r << 4 | modes)      who watches, in the order they came
//! connections[c].paths[r] = (p, w)                what it watches, in no order
//! ```
//!
//! So a watch costs 16 bytes and the slack of two lists (a quarter at most), one that fires or goes is taken out of both
//! in constant time, and a connection that closes pays for its own watches only. A watcher that goes leaves its place
//! dead, to keep the others' order; a list half dead is compacted, which the removals before it have paid for.
//!
//! Looking for one connection at one path walks the shorter of the two lists.
//!
//! Order: a change tells the watchers of the node first, then those of recursive watches from its parent up to the root;
//! at each path in the order connections came to it. Nothing depends on the hash seed.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::list::PairList;
use super::{AclSide, ChangeKind, WatchMode, WatcherKind};
use crate::proto::client::EventType;
use crate::stdx::slab::Slab;

const DATA: u32 = 1;
const CHILD: u32 = 2;
const PERSISTENT: u32 = 4;
const RECURSIVE: u32 = 8;
/// Modes that stand in ZooKeeper's data table and in its child table.
const IN_DATA_TABLE: u32 = DATA | PERSISTENT | RECURSIVE;
const IN_CHILD_TABLE: u32 = CHILD | PERSISTENT;
const MODE_BITS: u32 = 4;
const MODE_MASK: u32 = (1 << MODE_BITS) - 1;

/// Watches of one connection. Each costs at least 16 bytes, so memory ends long before.
const CONNECTION_WATCHES_MAX: usize = 1 << (u32::BITS - MODE_BITS);

/// Places of an index that are kept when the last entry goes; a larger index is given back.
const INDEX_KEPT_MAX: usize = 1024;

/// In place of a connection: the watcher is gone.
const DEAD: u32 = u32::MAX - 1;

/// The watches of the connections of one front. See the module's head for what they are.
#[derive(Debug)]
pub struct WatchTable {
    hash: FixedState,
    paths: Slab<PathEntry>,
    path_index: HashTable<u32>,
    connections: Slab<Connection>,
    connection_index: HashTable<u32>,
    /// Pairs of path and connection in the data table plus those in the child table.
    watch_count: usize,
    /// Pairs of path and connection with the recursive mode.
    recursive_count: usize,
    /// Number of the trigger step; a connection that carries it has been told.
    step: u32,
}

#[derive(Debug)]
struct PathEntry {
    path: Box<str>,
    /// (connection or [`DEAD`], place in the connection's list and modes).
    watchers: PairList,
    dead: u32,
    /// Watchers with a mode of the data table, of the child table, with the recursive mode. Where one is zero, the list
    /// need not be walked.
    in_data_table: u32,
    in_child_table: u32,
    recursive: u32,
}

#[derive(Debug)]
struct Connection {
    id: u32,
    /// The last trigger step that told it.
    told: u32,
    /// (path, place in the path's list).
    paths: PairList,
}

const _: () = assert!(size_of::<PathEntry>() == 56);
const _: () = assert!(size_of::<Connection>() == 32);

/// One step of a change: which table, at which path, what to tell.
#[derive(Clone, Copy)]
struct Step<'a> {
    modes: u32,
    event: EventType,
    path: &'a str,
    side: AclSide,
}

impl WatchTable {
    /// The seed keeps clients from choosing paths that collide; it changes no outcome.
    pub fn new(hash_seed: u64) -> WatchTable {
        WatchTable {
            hash: FixedState::with_seed(hash_seed),
            paths: Slab::new(),
            path_index: HashTable::new(),
            connections: Slab::new(),
            connection_index: HashTable::new(),
            watch_count: 0,
            recursive_count: 0,
            step: 0,
        }
    }

    /// Registers a mode beside those the connection has at the path. Having it already changes nothing.
    pub fn add(&mut self, path: &str, conn: u32, mode: WatchMode) {
        let bit = match mode {
            WatchMode::Data => DATA,
            WatchMode::Child => CHILD,
            WatchMode::Persistent => PERSISTENT,
            WatchMode::PersistentRecursive => RECURSIVE,
        };
        let p = self.path_entry(path);
        let c = self.connection_entry(conn);
        if let Some(w) = self.watcher(p, c) {
            let modes = self.paths[p].watchers.as_slice()[w].1 & MODE_MASK;
            self.set_modes(p, w, modes | bit);
            return;
        }
        let r = self.connections[c].paths.len();
        assert!(r < CONNECTION_WATCHES_MAX, "a connection holds at most {CONNECTION_WATCHES_MAX} watches");
        let watchers = &mut self.paths[p].watchers;
        let w = watchers.len();
        watchers.push((c, (r as u32) << MODE_BITS));
        self.connections[c]
            .paths
            .push((p, u32::try_from(w).expect("fewer watchers than connections and dead places")));
        self.set_modes(p, w, bit);
    }

    /// A node was created: tells data watches of it and of its recursive ancestors, then child watches of its parent.
    ///
    /// `fire(connection, event, path, whose acl filters)` is called at most once for a connection and step. One-shot
    /// watches that match are gone afterwards, whatever the caller then does with the event.
    pub fn created(&mut self, path: &str, fire: &mut dyn FnMut(u32, EventType, &str, AclSide)) {
        self.begin_step();
        self.fire_data(EventType::NodeCreated, path, fire);
        self.fire_children_changed(path, fire);
    }

    /// A node was deleted: tells data watches of it and of its recursive ancestors, then child watches of it where the
    /// connection has not been told, then child watches of its parent.
    pub fn deleted(&mut self, path: &str, fire: &mut dyn FnMut(u32, EventType, &str, AclSide)) {
        self.begin_step();
        self.fire_data(EventType::NodeDeleted, path, fire);
        let event = EventType::NodeDeleted;
        self.fire_exact(Step { modes: IN_CHILD_TABLE, event, path, side: AclSide::Node }, fire);
        self.fire_children_changed(path, fire);
    }

    /// A node's data was set: tells data watches of it and of its recursive ancestors.
    pub fn data_changed(&mut self, path: &str, fire: &mut dyn FnMut(u32, EventType, &str, AclSide)) {
        self.begin_step();
        self.fire_data(EventType::NodeDataChanged, path, fire);
    }

    /// One of the three above, by name.
    pub fn changed(
        &mut self,
        kind: ChangeKind,
        path: &str,
        fire: &mut dyn FnMut(u32, EventType, &str, AclSide),
    ) {
        match kind {
            ChangeKind::Created => self.created(path, fire),
            ChangeKind::Deleted => self.deleted(path, fire),
            ChangeKind::DataChanged => self.data_changed(path, fire),
        }
    }

    /// True if the connection has a watch of that kind at exactly that path. Source: ZooKeeper `DataTree#containsWatcher`.
    pub fn check(&self, path: &str, conn: u32, kind: WatcherKind) -> bool {
        let Some((p, w)) = self.find(path, conn) else { return false };
        self.paths[p].watchers.as_slice()[w].1 & modes_of(kind) != 0
    }

    /// Removes the connection's watches of that kind at exactly that path; false if there were none.
    /// Source: ZooKeeper `DataTree#removeWatch`.
    pub fn remove(&mut self, path: &str, conn: u32, kind: WatcherKind) -> bool {
        let Some((p, w)) = self.find(path, conn) else { return false };
        let modes = self.paths[p].watchers.as_slice()[w].1 & MODE_MASK;
        let left = modes & !modes_of(kind);
        if left == modes {
            return false;
        }
        self.set_modes(p, w, left);
        if left == 0 {
            self.unlink(p, w);
            self.tidy(p);
        }
        true
    }

    /// Forgets all watches of a connection that is gone.
    pub fn remove_connection(&mut self, conn: u32) {
        let Some(c) = self.find_connection(conn) else { return };
        let gone = self.remove_connection_entry(c);
        for &(p, w) in gone.paths.as_slice() {
            self.set_modes(p, w as usize, 0);
            self.bury(p, w as usize);
            self.tidy(p);
        }
    }

    /// True if a change of the node could tell anyone: a quick look before the change is described.
    pub fn is_interested(&self, path: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.find_path(path).is_some() {
            return true;
        }
        if parent(path).is_some_and(|parent| self.find_path(parent).is_some()) {
            return true;
        }
        self.recursive_count > 0
            && ancestors(path).any(|above| self.find_path(above).is_some_and(|p| self.paths[p].recursive > 0))
    }

    /// As ZooKeeper counts `zk_watch_count`: data watches plus child watches, a persistent one being both.
    pub fn watch_count(&self) -> usize {
        self.watch_count
    }

    /// Watched paths.
    pub fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// Connections with a watch.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Recursive watches: with none, no change looks at ancestors.
    pub fn recursive_count(&self) -> usize {
        self.recursive_count
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Watched paths, sorted, and the connections at each, sorted. For `wchp`: walks and copies the whole table.
    pub fn by_path(&self) -> Vec<(&str, Vec<u32>)> {
        let mut paths: Vec<_> = self
            .paths
            .iter()
            .map(|(_, entry)| {
                let alive = entry.watchers.as_slice().iter().filter(|watcher| watcher.0 != DEAD);
                let mut ids: Vec<u32> = alive.map(|&(c, _)| self.connections[c].id).collect();
                ids.sort_unstable();
                (&*entry.path, ids)
            })
            .collect();
        paths.sort_unstable_by_key(|&(path, _)| path);
        paths
    }

    /// Connections with a watch, sorted, and the paths of each, sorted. For `wchc`: walks and copies the whole table.
    pub fn by_connection(&self) -> Vec<(u32, Vec<&str>)> {
        let mut connections: Vec<_> = self
            .connections
            .iter()
            .map(|(_, connection)| {
                let mut paths: Vec<&str> =
                    connection.paths.as_slice().iter().map(|&(p, _)| &*self.paths[p].path).collect();
                paths.sort_unstable();
                (connection.id, paths)
            })
            .collect();
        connections.sort_unstable_by_key(|&(id, _)| id);
        connections
    }

    /// Bytes held, path text included, the allocator's own not. Walks the whole table.
    pub fn memory_bytes(&self) -> usize {
        let of_paths: usize = self.paths.iter().map(|(_, e)| e.path.len() + e.watchers.heap_bytes()).sum();
        let of_connections: usize = self.connections.iter().map(|(_, c)| c.paths.heap_bytes()).sum();
        of_paths
            + of_connections
            + self.paths.memory_bytes()
            + self.connections.memory_bytes()
            + self.path_index.allocation_size()
            + self.connection_index.allocation_size()
    }

    /// From here on every connection may be told once.
    fn begin_step(&mut self) {
        if self.step == u32::MAX {
            for (_, connection) in self.connections.iter_mut() {
                connection.told = 0;
            }
            self.step = 0;
        }
        self.step += 1;
    }

    fn fire_data(
        &mut self,
        event: EventType,
        path: &str,
        fire: &mut dyn FnMut(u32, EventType, &str, AclSide),
    ) {
        let step = Step { modes: IN_DATA_TABLE, event, path, side: AclSide::Node };
        self.fire_exact(step, fire);
        if self.recursive_count == 0 {
            return;
        }
        for above in ancestors(path) {
            let Some(p) = self.find_path(above) else { continue };
            let entry = &self.paths[p];
            if entry.recursive == 0 {
                continue;
            }
            for &(c, packed) in entry.watchers.as_slice() {
                if c == DEAD || packed & RECURSIVE == 0 {
                    continue;
                }
                let connection = &mut self.connections[c];
                if connection.told != self.step {
                    connection.told = self.step;
                    fire(connection.id, event, path, step.side);
                }
            }
        }
    }

    fn fire_children_changed(&mut self, path: &str, fire: &mut dyn FnMut(u32, EventType, &str, AclSide)) {
        let Some(parent) = parent(path) else { return };
        self.begin_step();
        let event = EventType::NodeChildrenChanged;
        self.fire_exact(Step { modes: IN_CHILD_TABLE, event, path: parent, side: AclSide::Parent }, fire);
    }

    /// Tells all watchers of the step's path that have one of its modes, and drops their one-shot watch of that table, also
    /// where the connection had been told before.
    fn fire_exact(&mut self, step: Step<'_>, fire: &mut dyn FnMut(u32, EventType, &str, AclSide)) {
        if self.paths.is_empty() {
            return;
        }
        let Some(p) = self.find_path(step.path) else { return };
        let entry = &self.paths[p];
        let matching = if step.modes == IN_DATA_TABLE { entry.in_data_table } else { entry.in_child_table };
        if matching == 0 {
            return;
        }
        let one_shot = step.modes & (DATA | CHILD);
        // Nothing is compacted in between, so places stay what they are.
        for w in 0..self.paths[p].watchers.len() {
            let (c, packed) = self.paths[p].watchers.as_slice()[w];
            if c == DEAD || packed & step.modes == 0 {
                continue;
            }
            let connection = &mut self.connections[c];
            if connection.told != self.step {
                connection.told = self.step;
                fire(connection.id, step.event, step.path, step.side);
            }
            if packed & one_shot != 0 {
                let left = packed & MODE_MASK & !one_shot;
                self.set_modes(p, w, left);
                if left == 0 {
                    self.unlink(p, w);
                }
            }
        }
        self.tidy(p);
    }

    /// Gives a watcher its modes and keeps all counts of modes.
    fn set_modes(&mut self, p: u32, w: usize, modes: u32) {
        let entry = &mut self.paths[p];
        let packed = &mut entry.watchers.as_mut_slice()[w].1;
        let before = *packed & MODE_MASK;
        *packed = (*packed & !MODE_MASK) | modes;
        let now_in = |table: u32| modes & table != 0;
        let was_in = |table: u32| before & table != 0;
        for (table, count) in [
            (IN_DATA_TABLE, &mut entry.in_data_table),
            (IN_CHILD_TABLE, &mut entry.in_child_table),
            (RECURSIVE, &mut entry.recursive),
        ] {
            let all = if table == RECURSIVE { &mut self.recursive_count } else { &mut self.watch_count };
            match (was_in(table), now_in(table)) {
                (false, true) => {
                    *count += 1;
                    *all += 1;
                }
                (true, false) => {
                    *count -= 1;
                    *all -= 1;
                }
                _ => {}
            }
        }
    }

    /// Takes a watcher without modes out of both lists. The caller tidies the path when it is done with it.
    fn unlink(&mut self, p: u32, w: usize) {
        let (c, packed) = self.paths[p].watchers.as_slice()[w];
        debug_assert!(c != DEAD && packed & MODE_MASK == 0);
        let r = packed >> MODE_BITS;
        let connection = &mut self.connections[c];
        if let Some((moved_p, moved_w)) = connection.paths.swap_remove(r as usize) {
            let moved = &mut self.paths[moved_p].watchers.as_mut_slice()[moved_w as usize].1;
            *moved = (r << MODE_BITS) | (*moved & MODE_MASK);
        } else if connection.paths.len() == 0 {
            self.remove_connection_entry(c);
        }
        self.bury(p, w);
    }

    fn bury(&mut self, p: u32, w: usize) {
        let entry = &mut self.paths[p];
        entry.watchers.as_mut_slice()[w] = (DEAD, 0);
        entry.dead += 1;
    }

    /// Forgets a path without watchers; compacts a list of watchers that is half dead.
    fn tidy(&mut self, p: u32) {
        let entry = &mut self.paths[p];
        let len = entry.watchers.len();
        let dead = entry.dead as usize;
        if dead == len {
            let hash = hash_path(&self.hash, &entry.path);
            let found = self.path_index.find_entry(hash, |&other| other == p);
            found.expect("every path is in the index").remove();
            self.paths.remove(p);
            if self.paths.is_empty() && self.path_index.capacity() > INDEX_KEPT_MAX {
                self.path_index = HashTable::new();
            }
            return;
        }
        if dead * 2 < len {
            return;
        }
        let watchers = entry.watchers.as_mut_slice();
        let mut kept = 0;
        for w in 0..len {
            let (c, packed) = watchers[w];
            if c == DEAD {
                continue;
            }
            watchers[kept] = (c, packed);
            let r = (packed >> MODE_BITS) as usize;
            self.connections[c].paths.as_mut_slice()[r].1 = kept as u32;
            kept += 1;
        }
        entry.watchers.truncate(kept);
        entry.dead = 0;
    }

    fn find(&self, path: &str, conn: u32) -> Option<(u32, usize)> {
        let p = self.find_path(path)?;
        let c = self.find_connection(conn)?;
        Some((p, self.watcher(p, c)?))
    }

    /// Where the connection stands in the path's list.
    fn watcher(&self, p: u32, c: u32) -> Option<usize> {
        let watchers = self.paths[p].watchers.as_slice();
        let paths = self.connections[c].paths.as_slice();
        if watchers.len() < paths.len() {
            watchers.iter().position(|watcher| watcher.0 == c)
        } else {
            paths.iter().find(|path| path.0 == p).map(|path| path.1 as usize)
        }
    }

    fn find_path(&self, path: &str) -> Option<u32> {
        self.path_index.find(hash_path(&self.hash, path), |&p| *self.paths[p].path == *path).copied()
    }

    fn find_connection(&self, conn: u32) -> Option<u32> {
        self.connection_index.find(self.hash.hash_one(conn), |&c| self.connections[c].id == conn).copied()
    }

    fn path_entry(&mut self, path: &str) -> u32 {
        if let Some(p) = self.find_path(path) {
            return p;
        }
        let p = self.paths.insert(PathEntry {
            path: path.into(),
            watchers: PairList::default(),
            dead: 0,
            in_data_table: 0,
            in_child_table: 0,
            recursive: 0,
        });
        let (hash, paths) = (&self.hash, &self.paths);
        self.path_index.insert_unique(hash_path(hash, path), p, |&p| hash_path(hash, &paths[p].path));
        p
    }

    fn connection_entry(&mut self, conn: u32) -> u32 {
        if let Some(c) = self.find_connection(conn) {
            return c;
        }
        let c = self.connections.insert(Connection { id: conn, told: 0, paths: PairList::default() });
        assert!(c < DEAD, "fewer than 2^32 - 2 connections");
        let (hash, connections) = (&self.hash, &self.connections);
        self.connection_index.insert_unique(hash.hash_one(conn), c, |&c| hash.hash_one(connections[c].id));
        c
    }

    fn remove_connection_entry(&mut self, c: u32) -> Connection {
        let connection = self.connections.remove(c);
        let found = self.connection_index.find_entry(self.hash.hash_one(connection.id), |&other| other == c);
        found.expect("every connection is in the index").remove();
        if self.connections.is_empty() && self.connection_index.capacity() > INDEX_KEPT_MAX {
            self.connection_index = HashTable::new();
        }
        connection
    }
}

fn modes_of(kind: WatcherKind) -> u32 {
    match kind {
        WatcherKind::Children => CHILD,
        WatcherKind::Data => DATA,
        WatcherKind::Persistent => PERSISTENT,
        WatcherKind::PersistentRecursive => RECURSIVE,
        WatcherKind::Any => MODE_MASK,
    }
}

fn hash_path(hash: &FixedState, path: &str) -> u64 {
    let mut hasher = hash.build_hasher();
    hasher.write(path.as_bytes());
    hasher.finish()
}

/// The path above, `None` for the root and for what is no path.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        slash => Some(&path[..slash]),
    }
}

/// The paths above, nearest first, the root last.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |above| parent(above))
}

#[cfg(test)]
impl WatchTable {
    /// Checks that both halves of every watch agree and all counts are right.
    pub(super) fn assert_sound(&self) {
        let (mut watches, mut recursive, mut alive) = (0, 0, 0);
        for (p, entry) in self.paths.iter() {
            assert_eq!(self.find_path(&entry.path), Some(p));
            let (mut dead, mut data, mut child, mut recursive_here) = (0, 0, 0, 0);
            for (w, &(c, packed)) in entry.watchers.as_slice().iter().enumerate() {
                if c == DEAD {
                    dead += 1;
                    continue;
                }
                assert!(packed & MODE_MASK != 0);
                let back = self.connections[c].paths.as_slice()[(packed >> MODE_BITS) as usize];
                assert_eq!(back, (p, w as u32));
                data += u32::from(packed & IN_DATA_TABLE != 0);
                child += u32::from(packed & IN_CHILD_TABLE != 0);
                recursive_here += u32::from(packed & RECURSIVE != 0);
                alive += 1;
            }
            assert_eq!(
                (entry.dead, entry.in_data_table, entry.in_child_table, entry.recursive),
                (dead, data, child, recursive_here)
            );
            assert!((dead as usize) * 2 < entry.watchers.len());
            watches += (data + child) as usize;
            recursive += recursive_here as usize;
        }
        assert_eq!((self.watch_count, self.recursive_count), (watches, recursive));
        let listed: usize = self.connections.iter().map(|(_, connection)| connection.paths.len()).sum();
        assert_eq!(listed, alive);
        for (c, connection) in self.connections.iter() {
            assert_eq!(self.find_connection(connection.id), Some(c));
            assert!(connection.paths.len() > 0);
        }
        assert_eq!(
            (self.path_index.len(), self.connection_index.len()),
            (self.paths.len(), self.connections.len())
        );
    }

    /// As if that many trigger steps had been.
    pub(super) fn set_step(&mut self, step: u32) {
        self.step = step;
    }
}
