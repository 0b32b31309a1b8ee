//! The fixed part of a znode, as readers and the writer share it.
//!
//! | offset | bytes | field                  | offset | bytes | field                              |
//! |-------:|------:|------------------------|-------:|------:|------------------------------------|
//! |      0 |     4 | payload block          |     32 |    48 | czxid mzxid ctime mtime owner pzxid |
//! |      4 |     4 | parent slot            |     80 |    12 | version cversion aversion          |
//! |      8 |     4 | position in the parent |     92 |     4 | content crc                        |
//! |     12 |     4 | ACL id, digest flag    |        |       |                                    |
//! |     16 |     8 | child list             |        |       |                                    |
//! |     24 |     4 | child count            |        |       |                                    |
//! |     28 |     4 | descendant count       |        |       |                                    |
//!
//! Numbers are stored and loaded relaxed: the publication number tells whether they belong together. References (payload,
//! child list) are stored with release and loaded with acquire, so that what they lead to is complete.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::AclId;
use crate::proto::StatPersisted;
use crate::types::Zxid;

#[derive(Debug)]
#[repr(C, align(32))]
pub(super) struct Header {
    /// Zero in a slot without a node: the block with an empty name and no data.
    payload: AtomicU32,
    /// The slot of the parent; for the root, and a slot without a node, zero.
    pub parent: AtomicU32,
    /// Where the parent's list names this node. In a free slot: the next free slot.
    pub position: AtomicU32,
    acl: AtomicU32,
    children: AtomicU64,
    pub child_count: AtomicU32,
    pub descendant_count: AtomicU32,
    czxid: AtomicI64,
    mzxid: AtomicI64,
    ctime_ms: AtomicI64,
    mtime_ms: AtomicI64,
    owner: AtomicI64,
    pzxid: AtomicI64,
    version: AtomicI32,
    cversion: AtomicI32,
    aversion: AtomicI32,
    pub content_crc: AtomicU32,
}

// Three quarters of two cache lines: at either parity a header lies on exactly two, and 65,536 of them fill three huge pages.
const _: () = assert!(size_of::<Header>() == 96);

/// In the ACL word: the node counts zero in the tree digest.
const OUTSIDE_DIGEST: u32 = 1 << 31;

impl Header {
    #[inline]
    pub fn payload(&self) -> u32 {
        self.payload.load(Ordering::Acquire)
    }

    pub fn set_payload(&self, block: u32) {
        self.payload.store(block, Ordering::Release);
    }

    #[inline]
    pub fn children(&self) -> u64 {
        self.children.load(Ordering::Acquire)
    }

    pub fn set_children(&self, list: u64) {
        self.children.store(list, Ordering::Release);
    }

    #[inline]
    pub fn acl(&self) -> AclId {
        AclId(self.acl.load(Ordering::Relaxed) & !OUTSIDE_DIGEST)
    }

    pub fn is_outside_digest(&self) -> bool {
        self.acl.load(Ordering::Relaxed) & OUTSIDE_DIGEST != 0
    }

    pub fn set_acl(&self, acl: AclId, outside_digest: bool) {
        let flag = if outside_digest { OUTSIDE_DIGEST } else { 0 };
        self.acl.store(acl.0 | flag, Ordering::Relaxed);
    }

    #[inline]
    pub fn stat(&self) -> StatPersisted {
        StatPersisted {
            czxid: Zxid(self.czxid.load(Ordering::Relaxed)),
            mzxid: Zxid(self.mzxid.load(Ordering::Relaxed)),
            ctime_ms: self.ctime_ms.load(Ordering::Relaxed),
            mtime_ms: self.mtime_ms.load(Ordering::Relaxed),
            version: self.version.load(Ordering::Relaxed),
            cversion: self.cversion.load(Ordering::Relaxed),
            aversion: self.aversion.load(Ordering::Relaxed),
            ephemeral_owner: self.owner.load(Ordering::Relaxed),
            pzxid: Zxid(self.pzxid.load(Ordering::Relaxed)),
        }
    }

    pub fn set_stat(&self, stat: &StatPersisted) {
        self.czxid.store(stat.czxid.0, Ordering::Relaxed);
        self.mzxid.store(stat.mzxid.0, Ordering::Relaxed);
        self.ctime_ms.store(stat.ctime_ms, Ordering::Relaxed);
        self.mtime_ms.store(stat.mtime_ms, Ordering::Relaxed);
        self.version.store(stat.version, Ordering::Relaxed);
        self.cversion.store(stat.cversion, Ordering::Relaxed);
        self.aversion.store(stat.aversion, Ordering::Relaxed);
        self.owner.store(stat.ephemeral_owner, Ordering::Relaxed);
        self.pzxid.store(stat.pzxid.0, Ordering::Relaxed);
    }
}
