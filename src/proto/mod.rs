//! Records and opcodes: what the bytes of ZooKeeper's protocols say, and nothing of what they do.
//!
//! Decoders borrow from the frame; encoders append to a `Vec<u8>`. Wire oddities end here: a `-1` for "none"
//! becomes an `Option`.

pub mod acl;
pub mod client;
pub mod election;
pub mod error;
pub mod quorum;
pub mod stat;
pub mod txn;

pub use acl::{Acl, AclEntry, Perms};
pub use error::ErrorCode;
pub use stat::{NodeKind, Stat, StatPersisted};

/// Bytes a frame may hold unless `jute.maxbuffer` says otherwise: one MiB less one.
///
/// A longer prefix is hostile or damaged; we close before any buffer grows to meet it.
/// Source: ZooKeeper `BinaryInputArchive.maxBuffer`.
pub const FRAME_BYTES_MAX: u32 = 0xf_ffff;
