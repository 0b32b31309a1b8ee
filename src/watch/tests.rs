use std::collections::BTreeSet;

use proptest::prelude::*;

use super::table::parent;
use super::*;

type Event = (u32, EventType, String, AclSide);

use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};

fn fired(table: &mut WatchTable, kind: ChangeKind, path: &str) -> Vec<Event> {
    let mut events = Vec::new();
    table.changed(kind, path, &mut |conn, event, path, side| {
        events.push((conn, event, path.to_owned(), side))
    });
    table.assert_sound();
    events
}

fn node(conn: u32, event: EventType, path: &str) -> Event {
    (conn, event, path.to_owned(), AclSide::Node)
}

fn children(conn: u32, path: &str) -> Event {
    (conn, NodeChildrenChanged, path.to_owned(), AclSide::Parent)
}

#[test]
fn a_data_watch_fires_once() {
    let mut table = WatchTable::new(1);
    table.add("/a", 7, WatchMode::Data);
    table.add("/a", 7, WatchMode::Data);
    assert_eq!(table.watch_count(), 1);
    assert!(table.is_interested("/a") && table.is_interested("/a/b") && !table.is_interested("/b"));
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/a"), [node(7, NodeDataChanged, "/a")]);
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/a"), []);
    assert!(table.is_empty() && !table.is_interested("/a"));
    assert_eq!((table.path_count(), table.connection_count(), table.watch_count()), (0, 0, 0));
}

#[test]
fn creation_tells_the_node_then_the_children_of_its_parent() {
    let mut table = WatchTable::new(1);
    table.add("/", 3, WatchMode::Child);
    table.add("/a", 3, WatchMode::Data);
    table.add("/a", 2, WatchMode::Child);
    table.add("/", 1, WatchMode::Data);
    assert_eq!(fired(&mut table, ChangeKind::Created, "/a"), [node(3, NodeCreated, "/a"), children(3, "/")]);
    // What waits for children of /a, or for data of the root, has not fired.
    assert_eq!(fired(&mut table, ChangeKind::Created, "/a/b"), [children(2, "/a")]);
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/"), [node(1, NodeDataChanged, "/")]);
    assert!(table.is_empty());
}

#[test]
fn deletion_reaches_a_connection_with_both_watches_once() {
    let mut table = WatchTable::new(1);
    table.add("/a", 1, WatchMode::Data);
    table.add("/a", 1, WatchMode::Child);
    table.add("/a", 2, WatchMode::Child);
    table.add("/", 1, WatchMode::Child);
    assert_eq!(
        fired(&mut table, ChangeKind::Deleted, "/a"),
        [node(1, NodeDeleted, "/a"), node(2, NodeDeleted, "/a"), children(1, "/")]
    );
    // The child watch of connection 1 was consumed all the same.
    assert!(table.is_empty());
}

#[test]
fn a_recursive_ancestor_silences_the_child_step_of_a_deletion() {
    let mut table = WatchTable::new(1);
    table.add("/", 1, WatchMode::PersistentRecursive);
    table.add("/a/b", 1, WatchMode::Child);
    assert_eq!(fired(&mut table, ChangeKind::Deleted, "/a/b"), [node(1, NodeDeleted, "/a/b")]);
    assert_eq!((table.watch_count(), table.recursive_count()), (1, 1));
}

#[test]
fn recursive_watches_see_every_descendant_and_never_children_changed() {
    let mut table = WatchTable::new(1);
    table.add("/a", 1, WatchMode::PersistentRecursive);
    table.add("/", 2, WatchMode::PersistentRecursive);
    table.add("/ab", 3, WatchMode::PersistentRecursive);
    for (kind, event) in [
        (ChangeKind::Created, NodeCreated),
        (ChangeKind::DataChanged, NodeDataChanged),
        (ChangeKind::Deleted, NodeDeleted),
    ] {
        for path in ["/a", "/a/b", "/a/b/c"] {
            assert_eq!(fired(&mut table, kind, path), [node(1, event, path), node(2, event, path)]);
        }
    }
    assert_eq!(fired(&mut table, ChangeKind::Created, "/b"), [node(2, NodeCreated, "/b")]);
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/"), [node(2, NodeDataChanged, "/")]);
}

#[test]
fn one_connection_with_several_matching_modes_is_told_once_a_step() {
    let mut table = WatchTable::new(1);
    for mode in [WatchMode::Data, WatchMode::Child, WatchMode::Persistent, WatchMode::PersistentRecursive] {
        table.add("/a", 1, mode);
    }
    table.add("/", 1, WatchMode::PersistentRecursive);
    assert_eq!(table.watch_count(), 3);
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/a"), [node(1, NodeDataChanged, "/a")]);
    // Data is gone, the rest stays: a new child is told of itself and, by the child watches, in the parent's step.
    assert!(!table.check("/a", 1, WatcherKind::Data));
    assert_eq!(
        fired(&mut table, ChangeKind::Created, "/a/b"),
        [node(1, NodeCreated, "/a/b"), children(1, "/a")]
    );
    assert!(!table.check("/a", 1, WatcherKind::Children));
    assert_eq!(fired(&mut table, ChangeKind::Deleted, "/a"), [node(1, NodeDeleted, "/a")]);
    assert_eq!(fired(&mut table, ChangeKind::Created, "/a"), [node(1, NodeCreated, "/a")]);
    assert!(
        table.check("/a", 1, WatcherKind::Persistent)
            && table.check("/a", 1, WatcherKind::PersistentRecursive)
    );
}

#[test]
fn kinds_are_checked_and_removed_exactly() {
    let all = [
        (WatchMode::Data, WatcherKind::Data),
        (WatchMode::Child, WatcherKind::Children),
        (WatchMode::Persistent, WatcherKind::Persistent),
        (WatchMode::PersistentRecursive, WatcherKind::PersistentRecursive),
    ];
    for (mode, own_kind) in all {
        let mut table = WatchTable::new(1);
        table.add("/a", 1, mode);
        for (_, kind) in all {
            assert_eq!(table.check("/a", 1, kind), kind == own_kind, "{mode:?} {kind:?}");
            if kind != own_kind {
                assert!(!table.remove("/a", 1, kind));
            }
        }
        assert!(table.check("/a", 1, WatcherKind::Any));
        assert!(!table.check("/a", 2, WatcherKind::Any) && !table.check("/b", 1, WatcherKind::Any));
        assert!(!table.remove("/a", 2, WatcherKind::Any) && !table.remove("/b", 1, WatcherKind::Any));
        assert!(table.remove("/a", 1, own_kind) && !table.remove("/a", 1, own_kind));
        assert!(table.is_empty());
    }
    let mut table = WatchTable::new(1);
    for (mode, _) in all {
        table.add("/a", 1, mode);
    }
    assert!(table.remove("/a", 1, WatcherKind::Persistent));
    assert!(table.remove("/a", 1, WatcherKind::Any));
    assert!(!table.remove("/a", 1, WatcherKind::Any));
    assert!(table.is_empty());
}

#[test]
fn watchers_are_told_in_the_order_they_came_and_gone_ones_leave_no_gap() {
    let mut table = WatchTable::new(1);
    for conn in [5, 1, 9, 3, 7, 2] {
        table.add("/a", conn, WatchMode::Persistent);
    }
    table.remove_connection(9);
    table.remove_connection(5);
    table.add("/a", 5, WatchMode::Persistent);
    let told: Vec<u32> =
        fired(&mut table, ChangeKind::DataChanged, "/a").iter().map(|event| event.0).collect();
    assert_eq!(told, [1, 3, 7, 2, 5]);
}

#[test]
fn paths_that_are_none_are_watched_and_never_fire() {
    let mut table = WatchTable::new(1);
    for path in ["", "zzz", "/a/", "//"] {
        table.add(path, 1, WatchMode::PersistentRecursive);
    }
    assert_eq!(fired(&mut table, ChangeKind::Created, "/a"), []);
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/"), []);
    assert_eq!(table.by_path().len(), 4);
}

#[test]
fn reports_are_sorted() {
    let mut table = WatchTable::new(1);
    for (path, conn) in [("/b", 2), ("/a", 9), ("/a", 2), ("/c", 1)] {
        table.add(path, conn, WatchMode::Data);
    }
    assert_eq!(table.by_path(), [("/a", vec![2, 9]), ("/b", vec![2]), ("/c", vec![1])]);
    assert_eq!(table.by_connection(), [(1, vec!["/c"]), (2, vec!["/a", "/b"]), (9, vec!["/a"])]);
}

#[test]
fn the_count_of_steps_may_wrap() {
    let mut table = WatchTable::new(1);
    table.add("/a", 1, WatchMode::Persistent);
    assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/a").len(), 1);
    table.set_step(u32::MAX);
    for _ in 0..3 {
        assert_eq!(fired(&mut table, ChangeKind::DataChanged, "/a").len(), 1);
    }
}

#[test]
fn set_watches_catches_up_as_documented() {
    let (old, seen, new) = (Zxid(3), Zxid(5), Zxid(7));
    use CatchUp::{Fire, Register};
    use SetWatchesList::{Child, Data, Exist, Persistent, PersistentRecursive};
    for (list, node, expected) in [
        (Data, None, Fire(NodeDeleted)),
        (Data, Some((new, old)), Fire(NodeDataChanged)),
        (Data, Some((seen, new)), Register(WatchMode::Data)),
        (Exist, None, Register(WatchMode::Data)),
        (Exist, Some((old, old)), Fire(NodeCreated)),
        (Child, None, Fire(NodeDeleted)),
        (Child, Some((old, new)), Fire(NodeChildrenChanged)),
        (Child, Some((new, seen)), Register(WatchMode::Child)),
        (Persistent, None, Register(WatchMode::Persistent)),
        (Persistent, Some((new, new)), Register(WatchMode::Persistent)),
        (PersistentRecursive, Some((new, new)), Register(WatchMode::PersistentRecursive)),
    ] {
        assert_eq!(catch_up(list, node, seen), expected, "{list:?} {node:?}");
    }
}

/// A hundred thousand watchers of one path, and as many paths of one connection, cost at most 24 bytes a watch beyond
/// what is kept once for a path or a connection.
#[test]
fn a_watch_costs_at_most_24_bytes() {
    // What a path and a connection may cost by themselves: their entries, and their places in hash tables at most half empty.
    const PATH_BYTES: usize = 56 + 12;
    const CONNECTION_BYTES: usize = 32 + 12;
    for (paths, conns) in [(1, 100_000), (100_000, 1), (1000, 100), (100, 1000)] {
        let mut table = WatchTable::new(1);
        let mut text_bytes = 0;
        for p in 0..paths {
            let path = format!("/service/{p}");
            text_bytes += path.len();
            for conn in 0..conns {
                table.add(&path, conn, WatchMode::Data);
            }
        }
        let watches = table.watch_count();
        let all = table.memory_bytes();
        let once = text_bytes + paths * PATH_BYTES + conns as usize * CONNECTION_BYTES;
        assert_eq!(watches, 100_000);
        assert!(all <= once + 24 * watches, "{paths} paths, {conns} connections: {all} bytes");
        for conn in 0..conns {
            table.remove_connection(conn);
        }
        table.assert_sound();
        assert_eq!(table.watch_count(), 0);
        assert!(table.memory_bytes() < 16 << 10, "{} of {all} bytes left", table.memory_bytes());
    }
}

/// One entry of the naive model, which holds them in the order of registration.
struct Known {
    path: String,
    conn: u32,
    data: BTreeSet<u8>,
    child: BTreeSet<u8>,
}

const STANDARD: u8 = 0;
const PERSISTENT: u8 = 1;
const RECURSIVE: u8 = 2;

/// ZooKeeper's two tables, told as its documents tell them.
#[derive(Default)]
struct Model {
    known: Vec<Known>,
}

impl Model {
    fn add(&mut self, path: &str, conn: u32, mode: WatchMode) {
        let at = self.known.iter().position(|known| known.path == path && known.conn == conn);
        let at = at.unwrap_or_else(|| {
            let (data, child) = Default::default();
            self.known.push(Known { path: path.to_owned(), conn, data, child });
            self.known.len() - 1
        });
        let known = &mut self.known[at];
        match mode {
            WatchMode::Data => known.data.insert(STANDARD),
            WatchMode::Child => known.child.insert(STANDARD),
            WatchMode::Persistent => known.data.insert(PERSISTENT) | known.child.insert(PERSISTENT),
            WatchMode::PersistentRecursive => known.data.insert(RECURSIVE),
        };
    }

    fn remove(&mut self, path: &str, conn: u32, kind: WatcherKind) -> bool {
        let mut removed = false;
        for known in self.known.iter_mut().filter(|known| known.path == path && known.conn == conn) {
            let (data, child) = (&mut known.data, &mut known.child);
            removed |= match kind {
                WatcherKind::Children => child.remove(&STANDARD),
                WatcherKind::Data => data.remove(&STANDARD),
                WatcherKind::Persistent => child.remove(&PERSISTENT) | data.remove(&PERSISTENT),
                WatcherKind::PersistentRecursive => data.remove(&RECURSIVE),
                WatcherKind::Any => {
                    let any = !data.is_empty() || !child.is_empty();
                    data.clear();
                    child.clear();
                    any
                }
            };
        }
        self.sweep();
        removed
    }

    fn sweep(&mut self) {
        self.known.retain(|known| !known.data.is_empty() || !known.child.is_empty());
    }

    fn data_step(&mut self, event: EventType, changed: &str, out: &mut Vec<Event>) -> BTreeSet<u32> {
        let mut told = BTreeSet::new();
        let mut path = Some(changed);
        while let Some(at) = path {
            for known in self.known.iter_mut().filter(|known| known.path == at) {
                let matches =
                    if at == changed { !known.data.is_empty() } else { known.data.contains(&RECURSIVE) };
                if matches && told.insert(known.conn) {
                    out.push(node(known.conn, event, changed));
                }
                if at == changed {
                    known.data.remove(&STANDARD);
                }
            }
            path = parent(at);
        }
        self.sweep();
        told
    }

    fn child_step(&mut self, path: &str, told: &BTreeSet<u32>, out: &mut Vec<u32>) {
        for known in self.known.iter_mut().filter(|known| known.path == path) {
            if !known.child.is_empty() && !told.contains(&known.conn) {
                out.push(known.conn);
            }
            known.child.remove(&STANDARD);
        }
        self.sweep();
    }

    fn changed(&mut self, kind: ChangeKind, path: &str) -> Vec<Event> {
        let (mut events, mut conns) = (Vec::new(), Vec::new());
        let event = match kind {
            ChangeKind::Created => NodeCreated,
            ChangeKind::Deleted => NodeDeleted,
            ChangeKind::DataChanged => NodeDataChanged,
        };
        let told = self.data_step(event, path, &mut events);
        if kind == ChangeKind::Deleted {
            self.child_step(path, &told, &mut conns);
            events.extend(conns.drain(..).map(|conn| node(conn, event, path)));
        }
        if let (true, Some(parent)) = (kind != ChangeKind::DataChanged, parent(path)) {
            self.child_step(parent, &BTreeSet::new(), &mut conns);
            events.extend(conns.drain(..).map(|conn| children(conn, parent)));
        }
        events
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(&'static str, u32, WatchMode),
    Change(ChangeKind, &'static str),
    Remove(&'static str, u32, WatcherKind),
    RemoveConnection(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let path = || prop::sample::select(vec!["/", "/a", "/a/b", "/a/b/c", "/a/bb", "/c"]);
    let conn = || 0u32..7;
    let mode = prop::sample::select(vec![
        WatchMode::Data,
        WatchMode::Child,
        WatchMode::Persistent,
        WatchMode::PersistentRecursive,
    ]);
    let kind = prop::sample::select(vec![ChangeKind::Created, ChangeKind::Deleted, ChangeKind::DataChanged]);
    let watcher = (1i32..=5).prop_map(|number| WatcherKind::of(number).expect("1 to 5 are kinds"));
    prop_oneof![
        6 => (path(), conn(), mode).prop_map(|(path, conn, mode)| Op::Add(path, conn, mode)),
        3 => (kind, path()).prop_map(|(kind, path)| Op::Change(kind, path)),
        2 => (path(), conn(), watcher).prop_map(|(path, conn, kind)| Op::Remove(path, conn, kind)),
        1 => conn().prop_map(Op::RemoveConnection),
    ]
}

proptest! {
    #[test]
    fn does_what_the_two_tables_of_zookeeper_do(ops in prop::collection::vec(op(), 1..200), seed in any::<u64>()) {
        let mut table = WatchTable::new(seed);
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Add(path, conn, mode) => {
                    table.add(path, conn, mode);
                    model.add(path, conn, mode);
                }
                Op::Change(kind, path) => {
                    let interested = table.is_interested(path);
                    let expected = model.changed(kind, path);
                    prop_assert!(interested || expected.is_empty());
                    prop_assert_eq!(fired(&mut table, kind, path), expected);
                }
                Op::Remove(path, conn, kind) => {
                    let there = table.check(path, conn, kind);
                    prop_assert_eq!(model.remove(path, conn, kind), there);
                    prop_assert_eq!(table.remove(path, conn, kind), there);
                }
                Op::RemoveConnection(conn) => {
                    table.remove_connection(conn);
                    model.known.retain(|known| known.conn != conn);
                }
            }
            table.assert_sound();
            let count = |known: &Known| usize::from(!known.data.is_empty()) + usize::from(!known.child.is_empty());
            prop_assert_eq!(table.watch_count(), model.known.iter().map(count).sum::<usize>());
        }
        for conn in 0..7 {
            table.remove_connection(conn);
        }
        prop_assert!(table.is_empty());
        prop_assert_eq!((table.watch_count(), table.recursive_count()), (0, 0));
    }
}
