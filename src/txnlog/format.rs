//! The bytes of a log: segments of blocks, batches on block boundaries, records inside batches. All little-endian.
//!
//! ```text
//! segment  | header block | batch | batch | ... | blocks that mean nothing: zeros, or what the file held before |
//! batch    | header 88 bytes | record | record | ... | zeros to the end of the block |
//! record   | header 32 bytes | entry: TxnHeader, record, TxnDigest as ZooKeeper encodes them (big-endian) |
//! ```
//!
//! A batch is one write and takes whole blocks, so no block that was acknowledged is ever written again. A batch without
//! records is a seal: it only moves the durable mark. The first write to a segment holds its header block and a batch.
//!
//! Segment header, one block:
//!
//! | offset | bytes | field |
//! |-------:|------:|-------|
//! |      0 |     4 | crc32c of the rest of the block |
//! |      4 |     4 | magic `RKLS` |
//! |      8 |     4 | format version, 1 |
//! |     12 |     4 | zero |
//! |     16 |     8 | identity of the data directory the log belongs to |
//! |     24 |     8 | segment id |
//! |     32 |     8 | salt: random, new for every segment |
//! |     40 |     8 | run: one more than the run that was recovered; a run is one process writing |
//! |     48 |     8 | number of the first batch |
//! |     56 |     8 | zxid before the first record |
//! |     64 |     8 | bytes of the segment |
//!
//! Batch header:
//!
//! | offset | bytes | field |
//! |-------:|------:|-------|
//! |      0 |     4 | crc32c of the rest of the header, begun from the identity (both halves xored) |
//! |      4 |     4 | magic `RKLB` |
//! |      8 |     8 | salt of the segment |
//! |     16 |     8 | segment id |
//! |     24 |     8 | offset in the segment |
//! |     32 |     8 | number of the batch: counts up by one through all segments and runs |
//! |     40 |     8 | durable mark: every batch below this number was durable when this one was written |
//! |     48 |     8 | durable mark: the last zxid of those batches, or what the log was cut to since |
//! |     56 |     8 | zxid before the first record |
//! |     64 |     8 | zxid of the last record (of a seal: the same) |
//! |     72 |     4 | bytes of all records |
//! |     76 |     4 | record count |
//! |     80 |     4 | crc32c of the record headers one after the other, then of the padding |
//! |     84 |     4 | zero |
//!
//! Record header:
//!
//! | offset | bytes | field |
//! |-------:|------:|-------|
//! |      0 |     4 | crc32c of the rest of the header |
//! |      4 |     4 | bytes of the entry |
//! |      8 |     8 | zxid |
//! |     16 |     8 | zxid of the record before, in this segment or an earlier one |
//! |     24 |     4 | crc32c of the entry |
//! |     28 |     4 | low half of the segment's salt |
//!
//! **Valid** is a batch whose checksums match, that names this segment, this salt and the offset it lies at, carries the number
//! and predecessor that are due, and whose records follow one another by the rule of [`follows`](super::follows). Its
//! records count all or none. Salt, id, and offset tell blocks of a recycled file, misdirected writes and data that
//! imitates a batch from real ones; a lost write leaves a hole in the numbers. What an invalid batch means is
//! [`recover`](super::recover)'s to say.
//!
//! **Runs.** Recovery never writes behind the batch it stopped at: the next run begins a new segment, whose header carries a
//! higher run and the first batch number it uses. That voids, for ever, whatever an earlier run holds from that number on.
//!
//! **Cuts.** A log is shortened without a byte being changed: a new segment begins after a zxid that an earlier one holds, and what those
//! before it hold beyond is void. Batch numbers go on as ever.
//!
//! ```text
//! segment 1 | after 0     | 1 2 3 | 4 5 6 |                   what counts:  1 2 3 4
//! segment 2 | after 6     | 7 8 |                                           (nothing)
//! segment 3 | after 4     | seal | seal | 0x100000001 |                     0x100000001
//! ```
//!
//! The first batch of such a segment is written when everything before it is durable; the cut is acknowledged when a second
//! batch, whose durable mark covers the first, is durable too. So there is no moment at which it is acknowledged and
//! one lost block takes it back.
//!
//! **A log begun anew** behind a snapshot from elsewhere keeps nothing of before: that snapshot names the first segment that counts beside it.

use crc32c::{crc32c, crc32c_append};

use crate::txnlog::SegmentId;
use crate::types::Zxid;

/// The unit of writing. What every device and file system in use writes whole or not at all is at most this.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 88;
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// The only format version there is.
pub const VERSION: u32 = 1;

const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"RKLS");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"RKLB");
const SEGMENT_HEADER_BYTES: usize = 72;

const _: () = assert!(BATCH_HEADER_BYTES + RECORD_HEADER_BYTES < BLOCK_BYTES);

/// What the first block of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub version: u32,
    pub identity: u64,
    pub segment: SegmentId,
    pub salt: u64,
    pub run: u64,
    pub batch_first: u64,
    pub zxid_before: Zxid,
    pub segment_bytes: u64,
}

impl SegmentHeader {
    /// Writes the header into the first block of `block`, which must be zeros.
    pub fn encode(&self, block: &mut [u8]) {
        let block = &mut block[..BLOCK_BYTES];
        put_u32(block, 4, SEGMENT_MAGIC);
        put_u32(block, 8, self.version);
        put_u64(block, 16, self.identity);
        put_u64(block, 24, self.segment.0);
        put_u64(block, 32, self.salt);
        put_u64(block, 40, self.run);
        put_u64(block, 48, self.batch_first);
        put_u64(block, 56, self.zxid_before.0 as u64);
        put_u64(block, 64, self.segment_bytes);
        let crc = crc32c(&block[4..]);
        put_u32(block, 0, crc);
    }

    /// `None` where the block is no sound header of any segment.
    pub fn decode(block: &[u8]) -> Option<SegmentHeader> {
        let block = block.get(..BLOCK_BYTES)?;
        if get_u32(block, 4) != SEGMENT_MAGIC || get_u32(block, 0) != crc32c(&block[4..]) {
            return None;
        }
        Some(SegmentHeader {
            version: get_u32(block, 8),
            identity: get_u64(block, 16),
            segment: SegmentId(get_u64(block, 24)),
            salt: get_u64(block, 32),
            run: get_u64(block, 40),
            batch_first: get_u64(block, 48),
            zxid_before: Zxid(get_u64(block, 56) as i64),
            segment_bytes: get_u64(block, 64),
        })
    }
}

const _: () = assert!(SEGMENT_HEADER_BYTES <= BLOCK_BYTES);

/// What the first bytes of a batch say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    pub salt: u64,
    pub segment: SegmentId,
    pub offset_bytes: u64,
    pub number: u64,
    pub durable_before: u64,
    pub zxid_durable: Zxid,
    pub zxid_before: Zxid,
    pub zxid_last: Zxid,
    pub body_bytes: u32,
    pub record_count: u32,
    pub body_crc: u32,
}

impl BatchHeader {
    /// `identity` is that of the data directory; see [`header_crc`].
    pub fn encode(&self, identity: u64, bytes: &mut [u8]) {
        let bytes = &mut bytes[..BATCH_HEADER_BYTES];
        put_u32(bytes, 4, BATCH_MAGIC);
        put_u64(bytes, 8, self.salt);
        put_u64(bytes, 16, self.segment.0);
        put_u64(bytes, 24, self.offset_bytes);
        put_u64(bytes, 32, self.number);
        put_u64(bytes, 40, self.durable_before);
        put_u64(bytes, 48, self.zxid_durable.0 as u64);
        put_u64(bytes, 56, self.zxid_before.0 as u64);
        put_u64(bytes, 64, self.zxid_last.0 as u64);
        put_u32(bytes, 72, self.body_bytes);
        put_u32(bytes, 76, self.record_count);
        put_u32(bytes, 80, self.body_crc);
        put_u32(bytes, 84, 0);
        let crc = header_crc(identity, &bytes[4..]);
        put_u32(bytes, 0, crc);
    }

    /// `None` where the bytes are no sound header of any batch of this data directory.
    pub fn decode(identity: u64, bytes: &[u8]) -> Option<BatchHeader> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES)?;
        if get_u32(bytes, 4) != BATCH_MAGIC || get_u32(bytes, 0) != header_crc(identity, &bytes[4..]) {
            return None;
        }
        Some(BatchHeader {
            salt: get_u64(bytes, 8),
            segment: SegmentId(get_u64(bytes, 16)),
            offset_bytes: get_u64(bytes, 24),
            number: get_u64(bytes, 32),
            durable_before: get_u64(bytes, 40),
            zxid_durable: Zxid(get_u64(bytes, 48) as i64),
            zxid_before: Zxid(get_u64(bytes, 56) as i64),
            zxid_last: Zxid(get_u64(bytes, 64) as i64),
            body_bytes: get_u32(bytes, 72),
            record_count: get_u32(bytes, 76),
            body_crc: get_u32(bytes, 80),
        })
    }

    /// Bytes the batch takes in its segment, padding included.
    pub fn batch_bytes(&self) -> u64 {
        blocks_for(BATCH_HEADER_BYTES as u64 + u64::from(self.body_bytes))
    }
}

/// What stands before an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    pub entry_bytes: u32,
    pub zxid: Zxid,
    pub zxid_before: Zxid,
    pub entry_crc: u32,
    pub salt_low: u32,
}

impl RecordHeader {
    pub fn to_bytes(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        put_u32(&mut bytes, 4, self.entry_bytes);
        put_u64(&mut bytes, 8, self.zxid.0 as u64);
        put_u64(&mut bytes, 16, self.zxid_before.0 as u64);
        put_u32(&mut bytes, 24, self.entry_crc);
        put_u32(&mut bytes, 28, self.salt_low);
        let crc = crc32c(&bytes[4..]);
        put_u32(&mut bytes, 0, crc);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        (get_u32(bytes, 0) == crc32c(&bytes[4..])).then(|| RecordHeader {
            entry_bytes: get_u32(bytes, 4),
            zxid: Zxid(get_u64(bytes, 8) as i64),
            zxid_before: Zxid(get_u64(bytes, 16) as i64),
            entry_crc: get_u32(bytes, 24),
            salt_low: get_u32(bytes, 28),
        })
    }
}

/// The checksum of a batch header begins from the identity, which no client knows: data that imitates a header is not taken for
/// one even where the segment's own header, and with it the salt, is lost.
fn header_crc(identity: u64, bytes: &[u8]) -> u32 {
    crc32c_append((identity ^ (identity >> 32)) as u32, bytes)
}

/// Continues the checksum of a batch's body over one record's header, or over the padding.
pub fn body_crc_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c_append(crc, bytes)
}

/// Why a batch whose header is sound cannot be taken.
pub type Unsound = &'static str;

/// Checks the records and the padding of a batch; `batch` is all its bytes, header included.
pub fn check_body(header: &BatchHeader, batch: &[u8]) -> Result<(), Unsound> {
    let body_end = BATCH_HEADER_BYTES + header.body_bytes as usize;
    let mut zxid = header.zxid_before;
    let mut crc = 0;
    let mut count = 0;
    let mut rest = batch.get(BATCH_HEADER_BYTES..body_end).ok_or("the batch ends early")?;
    while !rest.is_empty() {
        let record = RecordHeader::decode(rest).ok_or("a record's header does not match its checksum")?;
        crc = body_crc_append(crc, &rest[..RECORD_HEADER_BYTES]);
        let entry = rest[RECORD_HEADER_BYTES..]
            .get(..record.entry_bytes as usize)
            .ok_or("a record is longer than its batch")?;
        if crc32c(entry) != record.entry_crc {
            return Err("an entry does not match its checksum");
        }
        if record.salt_low != header.salt as u32 {
            return Err("a record carries the salt of another segment");
        }
        if record.zxid_before != zxid || !super::follows(zxid, record.zxid) {
            return Err("a record does not follow the one before it");
        }
        if entry_zxid(entry) != Some(record.zxid) {
            return Err("an entry's own zxid is not its record's");
        }
        zxid = record.zxid;
        count += 1;
        rest = &rest[RECORD_HEADER_BYTES + entry.len()..];
    }
    if body_crc_append(crc, &batch[body_end..]) != header.body_crc {
        return Err("the batch does not match its checksum");
    }
    if count != header.record_count || zxid != header.zxid_last {
        return Err("the batch does not hold the records its header names");
    }
    Ok(())
}

/// The entries of a batch that [`check_body`] accepted.
pub fn entries<'a>(header: &BatchHeader, batch: &'a [u8]) -> impl Iterator<Item = (Zxid, &'a [u8])> {
    let mut rest = &batch[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + header.body_bytes as usize];
    std::iter::from_fn(move || {
        let record = RecordHeader::decode(rest)?;
        let entry = &rest[RECORD_HEADER_BYTES..][..record.entry_bytes as usize];
        rest = &rest[RECORD_HEADER_BYTES + entry.len()..];
        Some((record.zxid, entry))
    })
}

/// The zxid in an entry's `TxnHeader`, behind session (8 bytes) and cxid (4).
pub fn entry_zxid(entry: &[u8]) -> Option<Zxid> {
    Some(Zxid(i64::from_be_bytes(entry.get(12..20)?.try_into().expect("eight bytes"))))
}

/// `bytes` rounded up to whole blocks.
pub fn blocks_for(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_notice_every_flipped_bit() {
        let segment = SegmentHeader {
            version: VERSION,
            identity: 1,
            segment: SegmentId(2),
            salt: 3,
            run: 4,
            batch_first: 5,
            zxid_before: Zxid(6),
            segment_bytes: 7 << 12,
        };
        let mut block = vec![0; BLOCK_BYTES];
        segment.encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Some(segment));
        let batch = BatchHeader {
            salt: 1,
            segment: SegmentId(2),
            offset_bytes: 3,
            number: 4,
            durable_before: 5,
            zxid_durable: Zxid(6),
            zxid_before: Zxid(7),
            zxid_last: Zxid(8),
            body_bytes: 9,
            record_count: 10,
            body_crc: 11,
        };
        let mut header = vec![0; BATCH_HEADER_BYTES];
        batch.encode(9, &mut header);
        assert_eq!(BatchHeader::decode(9, &header), Some(batch));
        assert_eq!(BatchHeader::decode(8, &header), None);
        for bit in 0..BATCH_HEADER_BYTES * 8 {
            header[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(9, &header), None, "bit {bit}");
            header[bit / 8] ^= 1 << (bit % 8);
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(SegmentHeader::decode(&block[..100]), None);
        assert_eq!(BatchHeader::decode(9, &header[..87]), None);
    }
}
