//! The stat of a znode: as stored (60 bytes) and as clients see it (68 bytes).
//!
//! Stored, on disk and in digests, big-endian:
//!
//! | offset | bytes | field           | offset | bytes | field           |
//! |-------:|------:|-----------------|-------:|------:|-----------------|
//! |      0 |     8 | czxid           |     32 |     4 | version         |
//! |      8 |     8 | mzxid           |     36 |     4 | cversion        |
//! |     16 |     8 | ctime ms        |     40 |     4 | aversion        |
//! |     24 |     8 | mtime ms        |     44 |     8 | ephemeral owner |
//! |        |       |                 |     52 |     8 | pzxid           |
//!
//! The stored cversion counts children ever created; the wire's is `2 * stored - children`, which counts creations and
//! deletions. Source: ZooKeeper `StatPersisted`, `DataNode#copyStat`.

use crate::jute::{JuteError, Reader, put_i32, put_i64};
use crate::types::{SessionId, Zxid};

/// Stored owner of a container node.
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// High byte of the stored owner of a node with a time to live; the low 40 bits are the milliseconds.
pub const TTL_OWNER: i64 = 0xff << 56;
/// The longest time to live: 2^40 - 1 ms.
pub const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// What the stored owner of a znode says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    Persistent,
    Ephemeral(SessionId),
    Container,
    /// Milliseconds to live after the last `setData`.
    Ttl(i64),
}

impl NodeKind {
    /// The encoding is always understood, whether or not new TTL nodes may be made (client-protocol §14.12).
    pub fn of_owner(owner: i64) -> NodeKind {
        if owner == 0 {
            NodeKind::Persistent
        } else if owner == CONTAINER_OWNER {
            NodeKind::Container
        } else if owner & TTL_OWNER == TTL_OWNER {
            NodeKind::Ttl(owner & TTL_MS_MAX)
        } else {
            NodeKind::Ephemeral(SessionId(owner))
        }
    }

    pub fn owner(self) -> i64 {
        match self {
            NodeKind::Persistent => 0,
            NodeKind::Ephemeral(session) => session.0,
            NodeKind::Container => CONTAINER_OWNER,
            NodeKind::Ttl(ms) => TTL_OWNER | ms,
        }
    }
}

/// A stat as stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatPersisted {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    /// Children ever created here; never falls.
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub pzxid: Zxid,
}

impl StatPersisted {
    pub const BYTES: usize = 60;

    pub fn kind(&self) -> NodeKind {
        NodeKind::of_owner(self.ephemeral_owner)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.czxid.0);
        put_i64(out, self.mzxid.0);
        put_i64(out, self.ctime_ms);
        put_i64(out, self.mtime_ms);
        put_i32(out, self.version);
        put_i32(out, self.cversion);
        put_i32(out, self.aversion);
        put_i64(out, self.ephemeral_owner);
        put_i64(out, self.pzxid.0);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<StatPersisted, JuteError> {
        Ok(StatPersisted {
            czxid: Zxid(reader.i64()?),
            mzxid: Zxid(reader.i64()?),
            ctime_ms: reader.i64()?,
            mtime_ms: reader.i64()?,
            version: reader.i32()?,
            cversion: reader.i32()?,
            aversion: reader.i32()?,
            ephemeral_owner: reader.i64()?,
            pzxid: Zxid(reader.i64()?),
        })
    }

    /// What clients see of it.
    pub fn to_wire(&self, data_bytes: usize, child_count: usize) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(child_count as i32),
            aversion: self.aversion,
            ephemeral_owner: match self.kind() {
                NodeKind::Ephemeral(session) => session.0,
                _ => 0,
            },
            data_bytes: data_bytes as i32,
            child_count: child_count as i32,
            pzxid: self.pzxid,
        }
    }
}

/// A stat as clients see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_bytes: i32,
    pub child_count: i32,
    pub pzxid: Zxid,
}

impl Stat {
    pub const BYTES: usize = 68;

    pub fn to_bytes(&self) -> [u8; Stat::BYTES] {
        let mut bytes = [0; Stat::BYTES];
        bytes[0..8].copy_from_slice(&self.czxid.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.mzxid.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.ctime_ms.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.mtime_ms.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.version.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.cversion.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.aversion.to_be_bytes());
        bytes[44..52].copy_from_slice(&self.ephemeral_owner.to_be_bytes());
        bytes[52..56].copy_from_slice(&self.data_bytes.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.child_count.to_be_bytes());
        bytes[60..68].copy_from_slice(&self.pzxid.0.to_be_bytes());
        bytes
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Stat, JuteError> {
        Ok(Stat {
            czxid: Zxid(reader.i64()?),
            mzxid: Zxid(reader.i64()?),
            ctime_ms: reader.i64()?,
            mtime_ms: reader.i64()?,
            version: reader.i32()?,
            cversion: reader.i32()?,
            aversion: reader.i32()?,
            ephemeral_owner: reader.i64()?,
            data_bytes: reader.i32()?,
            child_count: reader.i32()?,
            pzxid: Zxid(reader.i64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_round_trip() {
        let stored = StatPersisted {
            czxid: Zxid(1),
            mzxid: Zxid(2),
            ctime_ms: 3,
            mtime_ms: 4,
            version: 5,
            cversion: 6,
            aversion: 7,
            ephemeral_owner: 8,
            pzxid: Zxid(9),
        };
        let mut out = Vec::new();
        stored.encode(&mut out);
        assert_eq!(out.len(), StatPersisted::BYTES);
        assert_eq!(StatPersisted::decode(&mut Reader::new(&out)), Ok(stored));
        let wire = stored.to_wire(10, 11);
        assert_eq!(wire.cversion, 2 * 6 - 11);
        assert_eq!(Stat::decode(&mut Reader::new(&wire.to_bytes())), Ok(wire));
    }

    #[test]
    fn owner_tells_the_kind() {
        for kind in [NodeKind::Persistent, NodeKind::Ephemeral(SessionId(7)), NodeKind::Container, NodeKind::Ttl(9)] {
            assert_eq!(NodeKind::of_owner(kind.owner()), kind);
        }
    }
}
