//! Snapshots in ZooKeeper's format, as byte streams; files are `server::storage`'s.
//!
//! Big-endian, jute encoding (see [`jute`](crate::jute)):
//!
//! | part | fields |
//! |------|--------|
//! | header | int magic `ZKSN`, int version 2, long database id -1 |
//! | sessions | int count, then each: long session, int timeout in ms |
//! | ACLs | int count, then each: long id, vector of ACL; id -1 (world:anyone, all) is never listed, though that list may also have an id of its own |
//! | nodes | each: ustring path (the root's is empty), buffer data, long ACL id, 60 bytes of stat; a parent before its children |
//! | end of nodes | ustring `/` |
//! | seal | long adler32 of everything before it, ustring `/` |
//! | digest | long zxid, int version 2, long tree digest; version 1 has a ustring in hex |
//! | seal | again of everything before it, seals included |
//! | last zxid | long |
//! | seal | |
//!
//! Servers before 3.6 end after the first seal, before 3.9 after the second; either trailer can be configured away. A
//! file may be packed as a whole: `.gz` is gzip, `.snappy` the framing of snappy-java; checksums are of what is inside.
//! ZooKeeper's snapshots are fuzzy: writes went on meanwhile, so nodes may be newer than the zxid in the file's
//! name; ours are exact. Source: ZooKeeper `FileSnap`, `SnapStream`, `SerializeUtils`, `DataTree#serialize`, `DataNode`.
//!
//! Beside each of our snapshots lies a [`Manifest`], without which it does not count as verified.

mod items;
mod load;
mod manifest;
mod packing;
pub mod print;
mod save;
mod stream;

pub use load::{Counts, LoadError, LoadSink, Loaded, SnapshotDigest, load};
pub use manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError};
pub use packing::{Packer, Packing, unpack};
pub use save::{Writer, put_tables};
pub use stream::{BodyReader, StreamError, Taken};

use crate::txnlog::SegmentId;
use crate::types::Zxid;

/// `ZKSN`.
pub const MAGIC: i32 = i32::from_be_bytes(*b"ZKSN");
/// The version every ZooKeeper since 3.0 writes.
pub const VERSION: i32 = 2;
/// An ACL id for world:anyone with all permissions that is not in the list of ACLs. Source: ZooKeeper `ReferenceCountedACLCache`.
pub const ACL_OPEN: i64 = -1;

/// Work on a snapshot's file, in this order: `Begin` or `Install`, every `Part`, then `End` or `Abandon`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotWork {
    Begin {
        zxid: Zxid,
    },
    /// In place of `Begin`: a leader's snapshot, which replaces the history. Once it is durable it is the only one, and of the log
    /// nothing before `segment_first` counts: the log's writer names it beforehand
    /// ([`restart_segment`](crate::txnlog::Writer::restart_segment)), and is restarted when this is done, before anything is appended.
    Install {
        zxid: Zxid,
        segment_first: SegmentId,
    },
    /// The next bytes of the content, unpacked.
    Part(Vec<u8>),
    End {
        manifest: Vec<u8>,
    },
    Abandon,
}

/// What became of [`SnapshotWork`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotEvent {
    PartWritten,
    /// Verified and durable under its name. Of the log, what follows `log_from` is still wanted: that is the oldest
    /// snapshot kept.
    Done {
        zxid: Zxid,
        log_from: Zxid,
    },
    Failed {
        zxid: Zxid,
        reason: String,
    },
    /// Answers [`SnapshotWork::Abandon`]: what was told before it was of the snapshot given up, which may have come to count.
    Abandoned,
}
