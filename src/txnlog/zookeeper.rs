//! Reading the logs of Apache ZooKeeper, `log.<hex>`: big-endian.
//!
//! | part | fields |
//! |------|--------|
//! | header | int magic `ZKLG`, int version 2, long database id |
//! | each transaction | long adler32 of the entry, int length, entry, byte `B` |
//! | end | zeros to the end of the file (left by preallocation), or the end of the file |
//!
//! Source: ZooKeeper `FileTxnLog`, `Util#readTxnBytes`.
//!
//! ZooKeeper takes a zero length for the end of the file and goes on with the next file, and does not look whether zxids
//! follow: a hole goes unnoticed. Here, where a record is unsound, the rest of the file is searched: if a sound record
//! comes later, the file is damaged. If none does, it is the tail a crash left (ZooKeeper begins a new file at each
//! start, so it need not be the last file), and the next file must go on exactly where this one ended.

use std::io;

use simd_adler32::adler32;
use thiserror::Error;

use crate::proto::txn::kind;
use crate::txnlog::follows;
use crate::txnlog::format::entry_zxid;
use crate::types::Zxid;

const MAGIC: i32 = i32::from_be_bytes(*b"ZKLG");
const VERSION: i32 = 2;
const HEADER_BYTES: usize = 16;
/// Checksum and length before an entry.
const BEFORE_BYTES: usize = 12;
/// `B` behind an entry.
const END_OF_RECORD: u8 = b'B';
/// A `TxnHeader`; no entry is shorter.
const ENTRY_BYTES_MIN: usize = crate::proto::txn::TxnHeader::BYTES;
/// Bytes read at once, unless one record is larger.
const READ_BYTES: usize = 1 << 20;
/// How far a zxid found in a search may be ahead of the last one and still count as one.
const SEARCH_AHEAD_MAX: i64 = 1 << 40;

/// Reads one file at any place.
pub trait ReadAt {
    /// Fills `into`; never asked for bytes beyond the file's size.
    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self[offset_bytes as usize..][..into.len()]);
        Ok(())
    }
}

/// Why a file is not to be trusted. The caller knows its name.
#[derive(Debug, Error)]
pub enum ZkLogError {
    #[error("reading at offset {offset_bytes} failed: {error}")]
    Read { offset_bytes: u64, error: io::Error },
    #[error("it does not begin as a ZooKeeper log: magic {magic:#010x}, version {version}")]
    Header { magic: i32, version: i32 },
    #[error(
        "it is damaged at offset {offset_bytes}, after zxid {zxid_before}: {why}, yet a sound transaction follows at offset {next_offset_bytes}"
    )]
    Damaged { offset_bytes: u64, zxid_before: Zxid, why: &'static str, next_offset_bytes: u64 },
    #[error("transactions are missing: {zxid_after} at offset {offset_bytes} comes after {zxid_before}")]
    Gap { offset_bytes: u64, zxid_before: Zxid, zxid_after: Zxid },
    #[error("transaction {zxid} at offset {offset_bytes} cannot be applied: {reason}")]
    Apply { offset_bytes: u64, zxid: Zxid, reason: String },
}

/// How a file ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileEnd {
    Clean,
    /// A crash left something unsound from here on, and nothing sound behind it.
    Torn {
        offset_bytes: u64,
    },
}

/// Follows the order of transactions through the files of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chain {
    /// The snapshot's; transactions up to here are in it.
    base: Zxid,
    last: Option<Zxid>,
    /// Error transactions under the zxid of the one before them, passed over. ZooKeeper writes such where the body of a
    /// request does not decode (`PrepRequestProcessor#pRequestHelper`).
    pub duplicate_count: u64,
}

enum Place {
    /// In the snapshot already, or without effect.
    Skip,
    Apply,
    Gap(Zxid),
}

impl Chain {
    pub fn new(base: Zxid) -> Chain {
        Chain { base, last: None, duplicate_count: 0 }
    }

    /// For reading one file by itself: it may begin with any transaction, and all are handed out.
    pub fn anywhere() -> Chain {
        Chain { base: Zxid(i64::MIN), last: None, duplicate_count: 0 }
    }

    /// The last transaction there is, in the log or the snapshot.
    pub fn zxid(&self) -> Zxid {
        self.last.unwrap_or(Zxid(i64::MIN)).max(self.base)
    }

    fn place(&mut self, zxid: Zxid, kind: i32) -> Place {
        if self.last == Some(zxid) && kind == kind::ERROR {
            self.duplicate_count += 1;
            return Place::Skip;
        }
        let before = self.last.unwrap_or(Zxid(i64::MIN));
        if zxid <= before {
            return Place::Gap(before);
        }
        let is_first_anywhere = self.last.is_none() && self.base == Zxid(i64::MIN);
        if zxid > self.base && !is_first_anywhere && !follows(self.zxid(), zxid) {
            return Place::Gap(self.zxid());
        }
        self.last = Some(zxid);
        if zxid > self.base { Place::Apply } else { Place::Skip }
    }
}

/// Reads a file of `file_bytes`, handing every entry after the chain's base to `apply`.
pub fn read_file(
    source: &mut dyn ReadAt,
    file_bytes: u64,
    chain: &mut Chain,
    apply: &mut dyn FnMut(Zxid, &[u8]) -> Result<(), String>,
) -> Result<FileEnd, ZkLogError> {
    let mut window = Window { source, file_bytes, from: 0, bytes: Vec::new() };
    let header = window.get(0, HEADER_BYTES)?;
    if header.len() < HEADER_BYTES || header.iter().all(|&byte| byte == 0) {
        // The server died before the header was written. Bytes behind zeros would be a header that was lost.
        return match window.first_written(0)? {
            Some(_) if file_bytes >= HEADER_BYTES as u64 => Err(ZkLogError::Header { magic: 0, version: 0 }),
            Some(_) => Ok(FileEnd::Torn { offset_bytes: 0 }),
            None => Ok(FileEnd::Clean),
        };
    }
    let (magic, version) = (get_i32(header, 0), get_i32(header, 4));
    if (magic, version) != (MAGIC, VERSION) {
        return Err(ZkLogError::Header { magic, version });
    }
    let mut offset_bytes = HEADER_BYTES as u64;
    loop {
        let why = match window.record(offset_bytes)? {
            Found::Entry(entry) => {
                let zxid = entry_zxid(entry).expect("an entry has a header");
                match chain.place(zxid, get_i32(entry, 28)) {
                    Place::Skip => {}
                    Place::Apply => apply(zxid, entry).map_err(|reason| ZkLogError::Apply {
                        offset_bytes,
                        zxid,
                        reason,
                    })?,
                    Place::Gap(zxid_before) => {
                        return Err(ZkLogError::Gap { offset_bytes, zxid_before, zxid_after: zxid });
                    }
                }
                offset_bytes += (BEFORE_BYTES + entry.len() + 1) as u64;
                continue;
            }
            Found::Nothing => "no transaction is here",
            Found::Unsound(why) => why,
        };
        let Some(written) = window.first_written(offset_bytes)? else { return Ok(FileEnd::Clean) };
        // A record begins at most its checksum and length before its first byte that is not zero.
        let from = written.saturating_sub(BEFORE_BYTES as u64).max(offset_bytes + 1);
        return match window.search(from, chain.zxid())? {
            Some(next_offset_bytes) => {
                Err(ZkLogError::Damaged { offset_bytes, zxid_before: chain.zxid(), why, next_offset_bytes })
            }
            None => Ok(FileEnd::Torn { offset_bytes }),
        };
    }
}

enum Found<'a> {
    Entry(&'a [u8]),
    /// The end of the file, or a zero length.
    Nothing,
    Unsound(&'static str),
}

/// A part of the file in memory.
struct Window<'s> {
    source: &'s mut dyn ReadAt,
    file_bytes: u64,
    from: u64,
    /// At most [`READ_BYTES`], or one record, which is not larger than its file.
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Up to `count` bytes: fewer at the end of the file.
    fn get(&mut self, offset_bytes: u64, count: usize) -> Result<&[u8], ZkLogError> {
        let left = self.file_bytes.saturating_sub(offset_bytes);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        if offset_bytes < self.from || offset_bytes + count as u64 > self.from + self.bytes.len() as u64 {
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(count.max(READ_BYTES));
            self.bytes.resize(bytes, 0);
            self.from = offset_bytes;
            self.source.read_at(offset_bytes, &mut self.bytes).map_err(|error| {
                self.bytes.clear();
                ZkLogError::Read { offset_bytes, error }
            })?;
        }
        let at = (offset_bytes - self.from) as usize;
        Ok(&self.bytes[at..at + count])
    }

    fn record(&mut self, offset_bytes: u64) -> Result<Found<'_>, ZkLogError> {
        let file_bytes = self.file_bytes;
        let before = self.get(offset_bytes, BEFORE_BYTES)?;
        if before.is_empty() {
            return Ok(Found::Nothing);
        }
        if before.len() < BEFORE_BYTES {
            return Ok(Found::Unsound("the file ends inside a transaction"));
        }
        let crc = i64::from_be_bytes(before[..8].try_into().expect("eight bytes"));
        let length = get_i32(before, 8);
        if length == 0 {
            return Ok(Found::Nothing);
        }
        let Ok(entry_bytes) = usize::try_from(length) else {
            return Ok(Found::Unsound("the length of a transaction is negative"));
        };
        let record_bytes = BEFORE_BYTES + entry_bytes + 1;
        if record_bytes as u64 > file_bytes - offset_bytes {
            return Ok(Found::Unsound("a transaction is longer than its file"));
        }
        if entry_bytes < ENTRY_BYTES_MIN {
            return Ok(Found::Unsound("a transaction is shorter than its header"));
        }
        let record = self.get(offset_bytes, record_bytes)?;
        let entry = &record[BEFORE_BYTES..record_bytes - 1];
        if record[record_bytes - 1] != END_OF_RECORD {
            return Ok(Found::Unsound("a transaction has no end mark"));
        }
        if crc != i64::from(adler32(&entry)) {
            return Ok(Found::Unsound("a transaction does not match its checksum"));
        }
        Ok(Found::Entry(entry))
    }

    /// The first byte from `offset_bytes` on that is not zero.
    fn first_written(&mut self, mut offset_bytes: u64) -> Result<Option<u64>, ZkLogError> {
        while offset_bytes < self.file_bytes {
            let part = self.get(offset_bytes, READ_BYTES)?;
            if let Some(at) = part.iter().position(|&byte| byte != 0) {
                return Ok(Some(offset_bytes + at as u64));
            }
            offset_bytes += part.len() as u64;
        }
        Ok(None)
    }

    /// The first place from `offset_bytes` on where a sound record with a zxid after `zxid` begins.
    fn search(&mut self, mut offset_bytes: u64, zxid: Zxid) -> Result<Option<u64>, ZkLogError> {
        const LOOK_BYTES: usize = BEFORE_BYTES + ENTRY_BYTES_MIN;
        while offset_bytes + LOOK_BYTES as u64 <= self.file_bytes {
            let part = self.get(offset_bytes, READ_BYTES)?;
            // The high half of the checksum is zero and the zxid is near: few other places look like that.
            let found = part.windows(LOOK_BYTES).position(|look| {
                let next = entry_zxid(&look[BEFORE_BYTES..]).expect("a header is looked at");
                look[..4] == [0; 4]
                    && look[8] < 0x80
                    && next > zxid
                    && next.0.wrapping_sub(zxid.0) < SEARCH_AHEAD_MAX
            });
            match found {
                None => offset_bytes += (part.len() - LOOK_BYTES + 1) as u64,
                Some(at) => {
                    let here = offset_bytes + at as u64;
                    if let Found::Entry(_) = self.record(here)? {
                        return Ok(Some(here));
                    }
                    offset_bytes = here + 1;
                }
            }
        }
        Ok(None)
    }
}

fn get_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txnlog::testing::entry;

    fn file(zxids: impl IntoIterator<Item = i64>, zeros: usize) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = [&MAGIC.to_be_bytes()[..], &VERSION.to_be_bytes(), &[0; 8]].concat();
        let mut offsets = Vec::new();
        for zxid in zxids {
            offsets.push(bytes.len());
            let entry = entry(zxid, 40 + zxid as usize % 50);
            bytes.extend_from_slice(&i64::from(adler32(&&entry[..])).to_be_bytes());
            bytes.extend_from_slice(&(entry.len() as i32).to_be_bytes());
            bytes.extend_from_slice(&entry);
            bytes.push(END_OF_RECORD);
        }
        bytes.resize(bytes.len() + zeros, 0);
        (bytes, offsets)
    }

    fn read(bytes: &[u8], base: i64) -> (Result<FileEnd, ZkLogError>, Vec<i64>) {
        let mut zxids = Vec::new();
        let mut source = bytes;
        let mut chain = Chain::new(Zxid(base));
        let end = read_file(&mut source, bytes.len() as u64, &mut chain, &mut |zxid, _| {
            zxids.push(zxid.0);
            Ok(())
        });
        (end, zxids)
    }

    #[test]
    fn a_sound_file_is_read_from_the_snapshot_on() {
        let (bytes, _) = file(1..=20, 500);
        let (end, zxids) = read(&bytes, 7);
        assert_eq!((end.unwrap(), zxids), (FileEnd::Clean, (8..=20).collect()));
    }

    #[test]
    fn every_truncation_is_a_torn_tail() {
        let (bytes, offsets) = file(1..=8, 0);
        for length in HEADER_BYTES..bytes.len() {
            let (end, zxids) = read(&bytes[..length], 0);
            let whole = offsets.iter().skip(1).filter(|&&at| at <= length).count();
            assert_eq!(zxids.len(), whole, "length {length}");
            let expected = match offsets.contains(&length) {
                true => FileEnd::Clean,
                false => FileEnd::Torn { offset_bytes: offsets[whole] as u64 },
            };
            // A partial record of zeros only cannot be told from preallocation.
            let end = end.unwrap();
            assert!(
                end == expected || bytes[offsets[whole]..length].iter().all(|&b| b == 0),
                "length {length}"
            );
        }
    }

    #[test]
    fn every_flipped_byte_before_the_last_record_is_damage() {
        let (bytes, offsets) = file(1..=8, 300);
        let last = *offsets.last().unwrap();
        for at in HEADER_BYTES..last {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            let (end, zxids) = read(&bytes, 0);
            let bad = offsets.iter().rposition(|&offset| offset <= at).unwrap();
            match end {
                Err(ZkLogError::Damaged { offset_bytes, .. }) => {
                    assert_eq!((offset_bytes, zxids.len()), (offsets[bad] as u64, bad), "offset {at}");
                }
                other => panic!("offset {at}: {other:?}"),
            }
        }
        for at in last..bytes.len() - 300 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            let (end, zxids) = read(&bytes, 0);
            assert_eq!(
                (end.unwrap(), zxids.len()),
                (FileEnd::Torn { offset_bytes: last as u64 }, 7),
                "offset {at}"
            );
        }
    }

    /// BUG-59: a zero length in the middle is not the end of the file.
    #[test]
    fn a_hole_of_zeros_is_damage() {
        let (mut bytes, offsets) = file(1..=8, 300);
        bytes[offsets[3]..offsets[5]].fill(0);
        let (end, _) = read(&bytes, 0);
        let Err(ZkLogError::Damaged { offset_bytes, next_offset_bytes, zxid_before, .. }) = end else {
            panic!("{end:?}")
        };
        assert_eq!((offset_bytes, next_offset_bytes), (offsets[3] as u64, offsets[5] as u64));
        assert_eq!(zxid_before, Zxid(3));
    }

    /// BUG-59, BUG-43: zxids must follow, within a file and from one to the next.
    #[test]
    fn a_missing_transaction_is_a_gap() {
        let (bytes, _) = file([1, 2, 4], 0);
        assert!(matches!(read(&bytes, 0).0, Err(ZkLogError::Gap { .. })));
        let (bytes, _) = file([5, 6], 0);
        assert!(matches!(read(&bytes, 3).0, Err(ZkLogError::Gap { zxid_before: Zxid(3), .. })));
        assert_eq!(read(&bytes, 4).1, [5, 6]);
        // What the snapshot has may be missing: a learner that was sent a snapshot has such logs.
        let (bytes, _) = file([1, 2, 9], 0);
        assert_eq!(read(&bytes, 8).1, [9]);
        let (bytes, _) = file([3, 2], 0);
        assert!(matches!(read(&bytes, 0).0, Err(ZkLogError::Gap { .. })));
    }

    /// BUG-49: a file with an empty or half header.
    #[test]
    fn a_file_without_a_header_is_empty() {
        for bytes in [&[][..], &[0; 7], &[0; 16], &[0; 5000]] {
            assert_eq!(read(bytes, 0).0.unwrap(), FileEnd::Clean);
        }
        assert_eq!(read(b"ZKLG\0\0", 0).0.unwrap(), FileEnd::Torn { offset_bytes: 0 });
        let (mut bytes, _) = file(1..=3, 0);
        bytes[..16].fill(0);
        assert!(matches!(read(&bytes, 0).0, Err(ZkLogError::Header { .. })));
    }

    /// T-FUZZ.
    #[test]
    fn mutated_files_do_not_panic() {
        let (bytes, _) = file(1..=40, 200);
        let mut seed = 99u64;
        let mut random = |bound: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % bound
        };
        for _ in 0..20_000 {
            let mut bytes = bytes.clone();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                bytes[at] = [0, 0xff, 0x7f, random(256) as u8][random(4)];
            }
            bytes.truncate(bytes.len() - random(3) * random(1_000));
            drop(read(&bytes, 0));
        }
    }
}
