//! The shared types of snapshot writing, until snapshots are merged.

use crate::types::Zxid;

#[derive(Debug)]
pub enum SnapshotWork {
    Begin { zxid: Zxid },
    Part(Vec<u8>),
    End { manifest: Vec<u8> },
    Abandon,
}

#[derive(Debug)]
pub enum SnapshotEvent {
    PartWritten,
    Done { zxid: Zxid },
    Failed { zxid: Zxid, reason: String },
}
