//! Packets out of a byte stream that is cut anywhere.

use crate::proto::quorum::{PacketError, QuorumPacket};

/// What a packet may have besides its data; that of a leader has 20 bytes.
const PACKET_EXTRA_BYTES_MAX: usize = 4 << 10;
/// Bytes by which a started packet grows at the least, before it is looked at again.
const GROW_BYTES_MIN: usize = 64;

/// The front of a packet whose rest has not come yet: no more than a packet may have, and one piece.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    cut: Vec<u8>,
}

impl Inbox {
    /// The first packet of what is held and `piece`, and how many bytes of `piece` it took. `None`: there is none, and all of
    /// `piece` is held now.
    ///
    /// After a packet was given, [`Inbox::clear`] comes before the next call.
    pub(super) fn take<'a>(
        &'a mut self,
        piece: &'a [u8],
        data_bytes_max: usize,
    ) -> Result<Option<(QuorumPacket<'a>, usize)>, PacketError> {
        if self.cut.is_empty() {
            let found = QuorumPacket::decode(piece, data_bytes_max)?;
            if found.is_none() {
                self.cut.extend_from_slice(piece);
                self.check(data_bytes_max)?;
            }
            return Ok(found);
        }
        let bytes_before = self.cut.len();
        let mut at = 0;
        while at < piece.len() {
            let grow = self.cut.len().max(GROW_BYTES_MIN).min(piece.len() - at);
            self.cut.extend_from_slice(&piece[at..at + grow]);
            at += grow;
            if QuorumPacket::decode(&self.cut, data_bytes_max)?.is_some() {
                let found = QuorumPacket::decode(&self.cut, data_bytes_max)?;
                return Ok(found.map(|(packet, bytes)| (packet, bytes - bytes_before)));
            }
            self.check(data_bytes_max)?;
        }
        Ok(None)
    }

    pub(super) fn clear(&mut self) {
        self.cut.clear();
    }

    /// That what is held can still become a packet.
    fn check(&self, data_bytes_max: usize) -> Result<(), PacketError> {
        let bytes_max = data_bytes_max.saturating_add(PACKET_EXTRA_BYTES_MAX);
        if self.cut.len() <= bytes_max {
            return Ok(());
        }
        Err(PacketError::TooLong { length: i32::try_from(self.cut.len()).unwrap_or(i32::MAX), bytes_max })
    }
}
