//! The fixed part of a znode, as readers and the writer share it: one cache line.
//!
//! | offset | bytes | header                 | offset | bytes | family                 |
//! |-------:|------:|------------------------|-------:|------:|------------------------|
//! |      0 |     4 | payload block          |      0 |     8 | child list             |
//! |      4 |     4 | parent slot            |      8 |     4 | child count            |
//! |      8 |     4 | position in the parent |     12 |     4 | descendant count       |
//! |     12 |     4 | ACL id, digest flag    |     16 |     8 | pzxid                  |
//! |     16 |    32 | czxid mzxid ctime mtime |    24 |     8 | owner                  |
//! |     48 |     8 | version aversion       |     32 |     4 | cversion               |
//! |     56 |     4 | content crc            |     36 |    12 | unused                 |
//! |     60 |     4 | family block           |        |       |                        |
//!
//! Most nodes never have children or an owner. What only the others need is in a block of its own, the family; a node
//! without one has no children, no owner, cversion 0, and the pzxid of its creation.
//!
//! Numbers are stored and loaded relaxed: the publication number tells whether they belong together. References (payload,
//! family, child list) are stored with release and loaded with acquire, so that what they lead to is complete.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::AclId;
use crate::proto::StatPersisted;
use crate::types::Zxid;

#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Header {
    /// Zero in a slot without a node: the block with an empty name and no data.
    payload: AtomicU32,
    /// The slot of the parent; for the root, and a slot without a node, zero.
    pub parent: AtomicU32,
    /// Where the parent's list names this node. In a free slot: the next free slot.
    pub position: AtomicU32,
    acl: AtomicU32,
    czxid: AtomicI64,
    mzxid: AtomicI64,
    ctime_ms: AtomicI64,
    mtime_ms: AtomicI64,
    version: AtomicI32,
    aversion: AtomicI32,
    pub content_crc: AtomicU32,
    /// Zero for none. Once there it stays until the node goes.
    family: AtomicU32,
}

const _: () = assert!(size_of::<Header>() == 64);

/// What a node has that has, or had, children or an owner.
#[derive(Debug)]
#[repr(C, align(16))]
pub(super) struct Family {
    children: AtomicU64,
    pub child_count: AtomicU32,
    pub descendant_count: AtomicU32,
    pzxid: AtomicI64,
    owner: AtomicI64,
    cversion: AtomicI32,
}

const _: () = assert!(size_of::<Family>() == 48);

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
    pub fn family(&self) -> u32 {
        self.family.load(Ordering::Acquire)
    }

    pub fn set_family(&self, block: u32) {
        self.family.store(block, Ordering::Release);
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
    pub fn stat(&self, family: Option<&Family>) -> StatPersisted {
        let czxid = Zxid(self.czxid.load(Ordering::Relaxed));
        StatPersisted {
            czxid,
            mzxid: Zxid(self.mzxid.load(Ordering::Relaxed)),
            ctime_ms: self.ctime_ms.load(Ordering::Relaxed),
            mtime_ms: self.mtime_ms.load(Ordering::Relaxed),
            version: self.version.load(Ordering::Relaxed),
            cversion: family.map_or(0, |family| family.cversion.load(Ordering::Relaxed)),
            aversion: self.aversion.load(Ordering::Relaxed),
            ephemeral_owner: family.map_or(0, |family| family.owner.load(Ordering::Relaxed)),
            pzxid: family.map_or(czxid, |family| Zxid(family.pzxid.load(Ordering::Relaxed))),
        }
    }

    /// Panics if the stat says what only a family can hold, and there is none: see [`needs_family`].
    pub fn set_stat(&self, family: Option<&Family>, stat: &StatPersisted) {
        assert!(family.is_some() || !needs_family(stat), "{stat:?} wants a family");
        self.czxid.store(stat.czxid.0, Ordering::Relaxed);
        self.mzxid.store(stat.mzxid.0, Ordering::Relaxed);
        self.ctime_ms.store(stat.ctime_ms, Ordering::Relaxed);
        self.mtime_ms.store(stat.mtime_ms, Ordering::Relaxed);
        self.version.store(stat.version, Ordering::Relaxed);
        self.aversion.store(stat.aversion, Ordering::Relaxed);
        if let Some(family) = family {
            family.cversion.store(stat.cversion, Ordering::Relaxed);
            family.owner.store(stat.ephemeral_owner, Ordering::Relaxed);
            family.pzxid.store(stat.pzxid.0, Ordering::Relaxed);
        }
    }
}

/// Whether a stat is not that of a node without children and owner.
pub(super) fn needs_family(stat: &StatPersisted) -> bool {
    stat.cversion != 0 || stat.ephemeral_owner != 0 || stat.pzxid != stat.czxid
}

impl Family {
    #[inline]
    pub fn children(&self) -> u64 {
        self.children.load(Ordering::Acquire)
    }

    pub fn set_children(&self, list: u64) {
        self.children.store(list, Ordering::Release);
    }
}
