//! Who waits on which path, and what fires.
//!
//! [`WatchTable`] holds the watches of the connections of one front. ZooKeeper thinks of two tables, **data** (D) and
//! **child** (C); here they are bits of one entry for each path and connection:
//!
//! | mode                   | D | C | goes when it fires |
//! |------------------------|---|---|--------------------|
//! | data (exists, getData) | x |   | yes                |
//! | child (getChildren)    |   | x | yes                |
//! | persistent             | x | x | no                 |
//! | persistent recursive   | x |   | no; fires for every descendant too |
//!
//! Modes of one path and connection live side by side. Watches belong to a connection and not to its session: a client
//! that reconnects brings them again with setWatches, and [`catch_up`] says what it missed.

mod list;
mod table;

pub use table::WatchTable;

use crate::proto::client::EventType;
use crate::types::Zxid;

/// What one registration waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum WatchMode {
    /// One-shot, of exists and getData.
    Data,
    /// One-shot, of getChildren.
    Child,
    /// addWatch mode 0.
    Persistent,
    /// addWatch mode 1.
    PersistentRecursive,
}

impl WatchMode {
    /// The mode an addWatch request names, `None` if there is no such. Source: ZooKeeper `AddWatchMode`.
    pub fn of_add_watch(mode: i32) -> Option<WatchMode> {
        match mode {
            0 => Some(WatchMode::Persistent),
            1 => Some(WatchMode::PersistentRecursive),
            _ => None,
        }
    }
}

/// An applied change of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ChangeKind {
    Created,
    Deleted,
    DataChanged,
}

/// Whose access list says who may learn of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AclSide {
    /// That of the node that changed; of a deleted one, what it was.
    Node,
    /// That of its parent.
    Parent,
}

/// What checkWatches and removeWatches ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
pub enum WatcherKind {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    PersistentRecursive = 5,
}

impl WatcherKind {
    /// The kind of that number, `None` if there is no such. Source: ZooKeeper `Watcher.WatcherType`.
    pub fn of(number: i32) -> Option<WatcherKind> {
        Some(match number {
            1 => WatcherKind::Children,
            2 => WatcherKind::Data,
            3 => WatcherKind::Any,
            4 => WatcherKind::Persistent,
            5 => WatcherKind::PersistentRecursive,
            _ => return None,
        })
    }
}

/// The lists of a setWatches or setWatches2 request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SetWatchesList {
    Data,
    Exist,
    Child,
    Persistent,
    PersistentRecursive,
}

/// What becomes of one path of a setWatches request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CatchUp {
    /// The client missed this: tell it now, with zxid -1, and register nothing.
    Fire(EventType),
    Register(WatchMode),
}

/// Decides on one path of a setWatches request. `node` is `(mzxid, pzxid)` of the node, `None` if it is missing;
/// `zxid_seen` is the request's relativeZxid.
///
/// An exist watch fires for a node that is there, however old; a persistent one never catches up.
/// Source: ZooKeeper `DataTree#setWatches`.
pub fn catch_up(list: SetWatchesList, node: Option<(Zxid, Zxid)>, zxid_seen: Zxid) -> CatchUp {
    match (list, node) {
        (SetWatchesList::Data | SetWatchesList::Child, None) => CatchUp::Fire(EventType::NodeDeleted),
        (SetWatchesList::Data, Some((mzxid, _))) if mzxid > zxid_seen => {
            CatchUp::Fire(EventType::NodeDataChanged)
        }
        (SetWatchesList::Data, Some(_)) => CatchUp::Register(WatchMode::Data),
        (SetWatchesList::Exist, Some(_)) => CatchUp::Fire(EventType::NodeCreated),
        (SetWatchesList::Exist, None) => CatchUp::Register(WatchMode::Data),
        (SetWatchesList::Child, Some((_, pzxid))) if pzxid > zxid_seen => {
            CatchUp::Fire(EventType::NodeChildrenChanged)
        }
        (SetWatchesList::Child, Some(_)) => CatchUp::Register(WatchMode::Child),
        (SetWatchesList::Persistent, _) => CatchUp::Register(WatchMode::Persistent),
        (SetWatchesList::PersistentRecursive, _) => CatchUp::Register(WatchMode::PersistentRecursive),
    }
}

#[cfg(test)]
mod tests;
