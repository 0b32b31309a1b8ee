//! Packets on their way out, as pieces of shared bytes.
//!
//! Small packets are copied into one piece per turn; a large entry is shared with the log and with all other learners, between a piece
//! that ends with its header and one that begins with its trailer. What all followers get alike is encoded once, in a [`Batch`] that
//! every follower's [`Queue`] then shares.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::Zxid;
use crate::zab::{PeerConn, PeerWork};

/// Entries of at least this many bytes are shared rather than copied into the batch; below, one more send costs more than the copy.
pub(super) const SHARE_BYTES_MIN: usize = 4096;
/// Bytes of a packet besides its data.
pub(super) const PACKET_BYTES: usize = 20;
/// Space set aside for a batch when the last block is used up.
const BLOCK_BYTES: usize = 16 << 10;

/// Packets in order, nobody's yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    /// Follows the pieces.
    tail: BytesMut,
}

impl Batch {
    /// A packet whose data, if any, is short.
    pub fn packet(&mut self, kind: i32, zxid: Zxid, data: Option<&[u8]>) {
        let data_bytes = data.map_or(0, <[u8]>::len);
        self.room(PACKET_BYTES + data_bytes);
        self.head(kind, zxid, data.map(<[u8]>::len));
        self.tail.put_slice(data.unwrap_or_default());
        self.tail.put_i32(NO_AUTH);
    }

    /// A packet around a log entry.
    pub fn entry(&mut self, kind: i32, zxid: Zxid, entry: &Bytes) {
        if entry.len() < SHARE_BYTES_MIN {
            return self.packet(kind, zxid, Some(entry));
        }
        self.room(PACKET_BYTES);
        self.head(kind, zxid, Some(entry.len()));
        self.raw(entry.clone());
        self.tail.put_i32(NO_AUTH);
    }

    /// Bytes that are no packet: parts of a snapshot.
    pub fn raw(&mut self, bytes: Bytes) {
        self.freeze();
        self.pieces.push(bytes);
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// All of it, as pieces; afterwards it is empty.
    pub fn take(&mut self) -> std::vec::Drain<'_, Bytes> {
        self.freeze();
        self.pieces.drain(..)
    }

    fn freeze(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    fn room(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes {
            self.tail.reserve(bytes.max(BLOCK_BYTES));
        }
    }

    fn head(&mut self, kind: i32, zxid: Zxid, data_bytes: Option<usize>) {
        self.tail.put_i32(kind);
        self.tail.put_i64(zxid.0);
        let length = data_bytes.map_or(-1, |bytes| i32::try_from(bytes).expect("an entry is below 2 GiB"));
        self.tail.put_i32(length);
    }
}

/// The count of ids that says there is no authinfo.
const NO_AUTH: i32 = -1;

/// What one learner is still to be sent. The order is that of the calls.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batch: Batch,
    /// Bytes queued, here or with the shell, and not yet sent.
    unsent: usize,
}

impl Queue {
    pub fn packet(&mut self, kind: i32, zxid: Zxid, data: Option<&[u8]>) {
        self.unsent += PACKET_BYTES + data.map_or(0, <[u8]>::len);
        self.batch.packet(kind, zxid, data);
    }

    pub fn entry(&mut self, kind: i32, zxid: Zxid, entry: &Bytes) {
        self.unsent += PACKET_BYTES + entry.len();
        self.batch.entry(kind, zxid, entry);
    }

    pub fn raw(&mut self, bytes: Bytes) {
        self.unsent += bytes.len();
        self.batch.raw(bytes);
    }

    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// The shell has sent so many bytes.
    pub fn sent(&mut self, count: usize) {
        debug_assert!(count <= self.unsent, "{count} bytes sent of {}", self.unsent);
        self.unsent = self.unsent.saturating_sub(count);
    }

    /// Hands what was queued to the shell.
    pub fn drain(&mut self, conn: PeerConn, mut send: impl FnMut(PeerWork)) {
        if self.batch.is_empty() {
            return;
        }
        for bytes in self.batch.take() {
            send(PeerWork::Send { conn, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::quorum::{QuorumPacket, kind};

    #[test]
    fn pieces_join_to_the_packets_and_large_entries_are_not_copied() {
        let large = Bytes::from(vec![7; SHARE_BYTES_MIN]);
        let small = Bytes::from_static(b"small");
        let mut queue = Queue::default();
        queue.packet(kind::UP_TO_DATE, Zxid(-1), None);
        queue.entry(kind::PROPOSAL, Zxid(1), &small);
        queue.entry(kind::PROPOSAL, Zxid(2), &large);
        queue.packet(kind::COMMIT, Zxid(1), None);
        let mut pieces = Vec::new();
        queue.drain(PeerConn(1), |work| match work {
            PeerWork::Send { bytes, .. } => pieces.push(bytes),
            other => panic!("{other:?}"),
        });
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        let mut expected = Vec::new();
        for (kind, zxid, data) in [
            (kind::UP_TO_DATE, -1, None),
            (kind::PROPOSAL, 1, Some(&small[..])),
            (kind::PROPOSAL, 2, Some(&large[..])),
            (kind::COMMIT, 1, None),
        ] {
            QuorumPacket::new(kind, Zxid(zxid), data).encode(&mut expected);
        }
        assert_eq!(pieces.concat(), expected);
        assert_eq!(queue.unsent(), expected.len());
        queue.sent(expected.len());
        assert_eq!(queue.unsent(), 0);
        queue.drain(PeerConn(1), |_| panic!("nothing is left"));
    }
}
