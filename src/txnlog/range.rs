//! Reading back a part of our own log, for a learner that lacks it (O5). What is given is proven: contiguous, and behind an entry that this
//! log holds and has not cut. The log may be written to meanwhile.

use bytes::Bytes;
use thiserror::Error;

use crate::txnlog::recover::{Base, RecoverError, SegmentFile, SegmentSource, recover};
use crate::txnlog::{SegmentId, follows};
use crate::types::Zxid;

/// Which entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRange {
    /// Those after this one, which the log must hold or begin after.
    pub after: Zxid,
    /// Up to this one, which is durable; greater than `after`.
    pub through: Zxid,
    /// About so many bytes of them; one entry comes in any case.
    pub bytes_max: usize,
}

/// Entries in order, at least one; the first follows [`LogRange::after`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRead {
    pub range: LogRange,
    pub entries: Vec<(Zxid, Bytes)>,
}

impl LogRead {
    /// Where to ask for more from; [`LogRange::through`] if that was all.
    pub fn last(&self) -> Zxid {
        self.entries.last().map_or(self.range.after, |(zxid, _)| *zxid)
    }
}

/// Why a part of the log cannot be given. The learner is to get a snapshot then.
#[derive(Debug, Error)]
pub enum RangeError {
    #[error("the log cannot be read from {after}: {error}")]
    Unreadable { after: Zxid, error: RecoverError },
    #[error("the log read from {after} ends at {last}, before {through}")]
    Short { after: Zxid, last: Zxid, through: Zxid },
}

/// Reads from the segments `files` of the directory `identity`, those before `segment_first` left out.
pub fn read_range(
    files: &[SegmentFile],
    source: &mut dyn SegmentSource,
    identity: u64,
    segment_first: SegmentId,
    range: LogRange,
) -> Result<LogRead, RangeError> {
    assert!(range.after < range.through, "there is something between {} and {}", range.after, range.through);
    let base = Base { identity, zxid: range.after, segment_first, until: Some(range.through) };
    let mut entries: Vec<(Zxid, Bytes)> = Vec::new();
    let mut bytes = 0;
    let mut is_enough = false;
    let result = recover(files, source, base, &mut |zxid, entry| {
        let before = entries.last().map_or(range.after, |(zxid, _)| *zxid);
        assert!(follows(before, zxid), "{zxid} was read after {before}");
        if !entries.is_empty() && bytes + entry.len() > range.bytes_max {
            is_enough = true;
            return Err(String::new());
        }
        bytes += entry.len();
        entries.push((zxid, Bytes::copy_from_slice(entry)));
        // What lies beyond is not looked at: it may be being written.
        is_enough = zxid == range.through;
        if is_enough { Err(String::new()) } else { Ok(()) }
    });
    match result {
        _ if is_enough => Ok(LogRead { range, entries }),
        Err(error) => Err(RangeError::Unreadable { after: range.after, error }),
        Ok(recovered) => {
            let last = recovered.start.zxid_last;
            Err(RangeError::Short { after: range.after, last, through: range.through })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txnlog::testing::{Disk, Memory, entry, options};
    use crate::types::Epoch;

    fn read(disk: &Disk, after: i64, through: i64, bytes_max: usize) -> Result<LogRead, String> {
        let mut memory = Memory(&disk.segments);
        let files = memory.files();
        let range = LogRange { after: Zxid(after), through: Zxid(through), bytes_max };
        read_range(&files, &mut memory, 1, SegmentId(0), range).map_err(|error| error.to_string())
    }

    #[test]
    fn a_log_is_read_in_parts_that_fit_together() {
        let mut disk = Disk::new(options());
        disk.append(300, 700);
        disk.run();
        let mut at = 17;
        let mut parts = 0;
        while at < 280 {
            let part = read(&disk, at, 280, 10_000).unwrap();
            assert!(part.entries.iter().map(|(_, entry)| entry.len()).sum::<usize>() <= 10_000);
            for (zxid, found) in &part.entries {
                at += 1;
                assert_eq!((zxid.0, &found[..]), (at, &entry(at, 700)[..]));
            }
            assert_eq!(part.last(), Zxid(at));
            parts += 1;
        }
        assert_eq!((at, parts), (280, 19));
        assert_eq!(read(&disk, 5, 280, 0).unwrap().entries.len(), 1);
    }

    #[test]
    fn what_is_not_held_is_not_given() {
        let mut disk = Disk::new(options());
        disk.append(300, 700);
        disk.run();
        let first = disk.writer.live().nth(2).unwrap();
        disk.writer.retire_before(first.zxid_before);
        disk.prepare();
        assert!(read(&disk, first.zxid_before.0, 300, 1 << 20).is_ok());
        let error = read(&disk, first.zxid_before.0 - 1, 300, 1 << 20).unwrap_err();
        assert!(error.contains("begins after zxid"), "{error}");
        let error = read(&disk, 290, 301, 1 << 20).unwrap_err();
        assert!(error.contains("ends at 0x12c, before 0x12d"), "{error}");
        // A segment that was given up while it was read.
        let mut holed = Disk::new(options());
        holed.append(300, 700);
        holed.run();
        holed.segments.remove(&SegmentId(2));
        assert!(read(&holed, 10, 300, 1 << 20).is_err());
    }

    /// A learner that holds what was cut here gets nothing from the log.
    #[test]
    fn nothing_is_given_behind_what_was_cut() {
        let mut disk = Disk::new(options());
        disk.append(6, 100);
        disk.run();
        disk.writer.truncate(Zxid(4));
        disk.zxid = Zxid::new(Epoch(1), 0).0;
        disk.append(2, 100);
        disk.run();
        let end = disk.zxid;
        let zxids = |read: LogRead| read.entries.iter().map(|(zxid, _)| zxid.0).collect::<Vec<_>>();
        assert_eq!(zxids(read(&disk, 3, end, 1 << 20).unwrap()), [4, end - 1, end]);
        assert_eq!(zxids(read(&disk, 4, end, 1 << 20).unwrap()), [end - 1, end]);
        assert!(read(&disk, 5, end, 1 << 20).is_err());
        assert!(read(&disk, 6, end, 1 << 20).is_err());
        // What was never there, though what follows would fit behind it.
        assert!(read(&disk, 7, end, 1 << 20).is_err());
    }
}
