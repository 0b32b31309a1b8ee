//! What a set of segments holds, and what its end means.
//!
//! Batches are taken in order as long as they are valid (see [`format`](super::format)). At the first that is not, the question is
//! whether it was ever acknowledged (O10):
//!
//! - **Damage** if anything proves that it was durable once: a sound batch header further on whose durable mark covers it, a
//!   segment of a later run that begins behind it, or a verified snapshot newer than it. Recovery refuses; nothing is cut.
//! - **A torn tail** otherwise: the write was under way when the power went, or one beside it was. It is cut by the next run,
//!   which begins a new segment under the number of the batch that was cut and so voids whatever bytes are left (the reading
//!   itself changes nothing, so recovering twice gives the same).
//!
//! Batches apply all or none: a write was acknowledged as a whole.
//!
//! A segment that begins after a zxid lower than what stands before it is a **cut**: the entries of all earlier segments beyond that zxid
//! are void, though their batches are still checked. It counts from the moment its header is there. The zxid must be one the
//! log went through, as must be that of the snapshot recovery begins from.
//!
//! What is found valid may so far be in a cache only: the caller makes the live segments durable before anything is written.

use std::io;

use thiserror::Error;

use crate::txnlog::format::{self, BLOCK_BYTES, BatchHeader, SegmentHeader, VERSION};
use crate::txnlog::writer::{LiveSegment, Start};
use crate::txnlog::{SegmentId, follows};
use crate::types::Zxid;

/// Bytes read at once, unless one batch is larger.
const READ_BYTES: usize = 1 << 20;
/// A file shorter than this cannot have been a segment.
const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES as u64;
const ZXID_MAX: Zxid = Zxid(i64::MAX);

/// A file that may hold a segment; its name says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    pub id: SegmentId,
    pub bytes: u64,
}

/// Reads segments.
pub trait SegmentSource {
    /// Fills `into` from `offset_bytes` on; never asked for bytes beyond [`SegmentFile::bytes`].
    fn read_at(&mut self, segment: SegmentId, offset_bytes: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Why a log cannot be gone on from.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// What is unsound here was durable once: damage and not a torn tail.
    #[error("log segment {segment} is damaged at offset {offset_bytes} (after zxid {zxid_before}): {why}")]
    Damaged { segment: SegmentId, offset_bytes: u64, zxid_before: Zxid, why: &'static str },
    /// Two neighbours are sound, and something between them is missing.
    #[error("log segment {segment} begins after zxid {zxid_after}, but what is there ends at {zxid_before}")]
    Gap { segment: SegmentId, zxid_before: Zxid, zxid_after: Zxid },
    #[error("log segment {segment} belongs to data directory {found:016x}, not to {expected:016x}")]
    Foreign { segment: SegmentId, expected: u64, found: u64 },
    #[error("log segment {segment} has format version {version}; this server reads version {VERSION}")]
    Version { segment: SegmentId, version: u32 },
    #[error("log segment {segment}: reading at offset {offset_bytes} failed: {error}")]
    Read { segment: SegmentId, offset_bytes: u64, error: io::Error },
    #[error(
        "log segment {segment}: transaction {zxid} in the batch at offset {offset_bytes} cannot be applied: {reason}"
    )]
    Apply { segment: SegmentId, offset_bytes: u64, zxid: Zxid, reason: String },
}

/// How a log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    Clean,
    /// A write that was never acknowledged lay here in part.
    Torn {
        segment: SegmentId,
        offset_bytes: u64,
    },
}

/// What a log held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Where to go on.
    pub start: Start,
    pub tail: Tail,
    /// Entries handed to the closure.
    pub entry_count: u64,
    /// The last entry read, whether it counts or is beyond [`Base::until`] or cut.
    pub zxid_end: Zxid,
}

/// What recovery begins from: the snapshot that was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// Of the data directory.
    pub identity: u64,
    /// Entries up to this one are in the snapshot already, and the log is known to have reached it.
    pub zxid: Zxid,
    /// Segments with lower ids belong to a history the snapshot does not continue: they are not looked at.
    pub segment_first: SegmentId,
    /// Entries beyond this one are treated as if they had been cut off; they must not be written behind before they are.
    pub until: Option<Zxid>,
}

impl Base {
    /// Every segment counts, up to the end.
    pub fn new(identity: u64, zxid: Zxid) -> Base {
        Base { identity, zxid, segment_first: SegmentId(0), until: None }
    }
}

/// Reads the segments `files` (any order) and hands every entry after `base.zxid` to `apply`, in order.
///
/// Reading begins at the last segment that begins at or below `base.zxid`; older ones are only looked at.
pub fn recover(
    files: &[SegmentFile],
    source: &mut dyn SegmentSource,
    base: Base,
    apply: &mut dyn FnMut(Zxid, &[u8]) -> Result<(), String>,
) -> Result<Recovered, RecoverError> {
    let (mut files, of_before): (Vec<SegmentFile>, Vec<SegmentFile>) =
        files.iter().partition(|file| file.id >= base.segment_first);
    files.sort_by_key(|file| file.id);
    let mut window = Window { source, segment: SegmentId(0), from: 0, bytes: Vec::new() };
    let segments = Segments::survey(&files, &mut window, base)?;
    let mut recovered = Recovered {
        start: Start {
            identity: base.identity,
            zxid_last: base.zxid,
            batch_next: 1,
            run: segments.run_max + 1,
            segment_next: files
                .last()
                .map_or(SegmentId(1), |last| SegmentId(last.id.0 + 1))
                .max(base.segment_first),
            live: Vec::new(),
            unused: of_before.iter().map(|file| file.id).collect(),
        },
        tail: Tail::Clean,
        entry_count: 0,
        zxid_end: base.zxid,
    };
    let mut end = End {
        index: 0,
        segment: SegmentId(0),
        offset_bytes: 0,
        number: 1,
        zxid: base.zxid,
        zxid_kept: base.zxid,
    };
    let sound = &segments.sound;
    if let Some(first) = sound.first() {
        let Some(from) = sound.iter().rposition(|segment| segment.header.zxid_before <= base.zxid) else {
            return Err(RecoverError::Gap {
                segment: first.file.id,
                zxid_before: base.zxid,
                zxid_after: first.header.zxid_before,
            });
        };
        end = End::at(from, &sound[from], sound[from].header.zxid_before);
        loop {
            take_segment(&sound[end.index], &mut end, &mut window, base, apply, &mut recovered.entry_count)?;
            let Some(next) = sound.get(end.index + 1) else { break };
            if next.header.batch_first == end.number {
                let begins = next.header.zxid_before;
                // Where a later cut reaches back even further, nothing of this segment is kept, and what it cut is no matter.
                let is_known = begins == end.zxid_kept || begins > next.zxid_limit;
                if begins > end.zxid || !is_known {
                    return Err(RecoverError::Gap {
                        segment: next.file.id,
                        zxid_before: end.zxid_kept,
                        zxid_after: begins,
                    });
                }
                end = End::at(end.index + 1, next, end.zxid_kept);
            } else if next.header.batch_first < end.number {
                return Err(end.damaged("the next segment begins before this one ends"));
            } else if next.header.run > sound[end.index].header.run {
                return Err(end.damaged("a later start of the server went on from behind this place"));
            } else {
                break;
            }
        }
    }
    recovered.tail = judge_end(&files, &segments, &end, &mut window, base.identity)?;
    if end.zxid_kept < base.zxid {
        return Err(end.damaged("a verified snapshot is newer than the end of the log"));
    }
    recovered.start.zxid_last = end.zxid_kept;
    recovered.zxid_end = end.zxid;
    recovered.start.batch_next = end.number;
    let live = if sound.is_empty() { &[][..] } else { &sound[..=end.index] };
    recovered.start.live = live
        .iter()
        .map(|segment| LiveSegment { id: segment.file.id, zxid_before: segment.header.zxid_before })
        .collect();
    let is_live = |id: SegmentId| live.iter().any(|segment| segment.file.id == id);
    recovered.start.unused.extend(files.iter().map(|file| file.id).filter(|&id| !is_live(id)));
    Ok(recovered)
}

/// A segment whose header is sound.
#[derive(Debug)]
struct Sound {
    file: SegmentFile,
    header: SegmentHeader,
    /// Batches from this number on are void: a later run has gone on from here.
    batch_limit: u64,
    /// Entries beyond this zxid are void: the log was cut.
    zxid_limit: Zxid,
}

#[derive(Debug)]
struct Segments {
    /// Those that are not void, in order.
    sound: Vec<Sound>,
    /// Ids of those that are void.
    void: Vec<SegmentId>,
    run_max: u64,
}

impl Segments {
    fn survey(files: &[SegmentFile], window: &mut Window<'_>, base: Base) -> Result<Segments, RecoverError> {
        let identity = base.identity;
        let mut sound = Vec::new();
        for &file in files {
            let damaged = |why| RecoverError::Damaged {
                segment: file.id,
                offset_bytes: file.bytes,
                zxid_before: Zxid::ZERO,
                why,
            };
            if file.bytes < SEGMENT_BYTES_MIN {
                return Err(damaged("the file is shorter than any segment"));
            }
            // A header with another id is what a recycled file held before.
            let Some(header) = SegmentHeader::decode(window.get(file, 0, BLOCK_BYTES)?)
                .filter(|header| header.segment == file.id)
            else {
                continue;
            };
            if header.identity != identity {
                let found = header.identity;
                return Err(RecoverError::Foreign { segment: file.id, expected: identity, found });
            }
            if header.version != VERSION {
                return Err(RecoverError::Version { segment: file.id, version: header.version });
            }
            if file.bytes < header.segment_bytes {
                return Err(damaged("the file ends before its segment does"));
            }
            sound.push(Sound { file, header, batch_limit: u64::MAX, zxid_limit: ZXID_MAX });
        }
        let run_max = sound.iter().map(|segment| segment.header.run).max().unwrap_or(0);
        let mut limit = u64::MAX;
        let mut limit_of_run = u64::MAX;
        let mut run = u64::MAX;
        for segment in sound.iter_mut().rev() {
            if segment.header.run < run {
                run = segment.header.run;
                limit = limit.min(limit_of_run);
            } else if segment.header.run > run {
                return Err(RecoverError::Damaged {
                    segment: segment.file.id,
                    offset_bytes: 0,
                    zxid_before: segment.header.zxid_before,
                    why: "the segment is of a later start of the server than the one after it",
                });
            }
            segment.batch_limit = limit;
            limit_of_run = limit_of_run.min(segment.header.batch_first);
        }
        let is_void = |segment: &Sound| segment.header.batch_first >= segment.batch_limit;
        let void = sound.iter().filter(|segment| is_void(segment)).map(|segment| segment.file.id).collect();
        sound.retain(|segment| !is_void(segment));
        let mut zxid_limit = base.until.unwrap_or(ZXID_MAX);
        for segment in sound.iter_mut().rev() {
            segment.zxid_limit = zxid_limit;
            zxid_limit = zxid_limit.min(segment.header.zxid_before);
        }
        Ok(Segments { sound, void, run_max })
    }
}

/// Where reading has got to.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Of the segment, in `Segments::sound`.
    index: usize,
    segment: SegmentId,
    offset_bytes: u64,
    /// The batch that is due here.
    number: u64,
    /// The last zxid before it.
    zxid: Zxid,
    /// The last one that is not cut off.
    zxid_kept: Zxid,
}

impl End {
    fn at(index: usize, segment: &Sound, zxid_kept: Zxid) -> End {
        End {
            index,
            segment: segment.file.id,
            offset_bytes: BLOCK_BYTES as u64,
            number: segment.header.batch_first,
            zxid: segment.header.zxid_before,
            zxid_kept,
        }
    }

    fn damaged(&self, why: &'static str) -> RecoverError {
        RecoverError::Damaged {
            segment: self.segment,
            offset_bytes: self.offset_bytes,
            zxid_before: self.zxid,
            why,
        }
    }
}

/// Takes the valid batches of a segment, moving `end` behind the last.
fn take_segment(
    segment: &Sound,
    end: &mut End,
    window: &mut Window<'_>,
    base: Base,
    apply: &mut dyn FnMut(Zxid, &[u8]) -> Result<(), String>,
    entry_count: &mut u64,
) -> Result<(), RecoverError> {
    while end.number < segment.batch_limit && end.offset_bytes + BLOCK_BYTES as u64 <= segment.file.bytes {
        let Some(header) =
            BatchHeader::decode(base.identity, window.get(segment.file, end.offset_bytes, BLOCK_BYTES)?)
        else {
            break;
        };
        if !is_of(&header, segment, end.offset_bytes)
            || header.number != end.number
            || header.zxid_before != end.zxid
            || header.batch_bytes() > segment.file.bytes - end.offset_bytes
        {
            break;
        }
        let batch = window.get(segment.file, end.offset_bytes, header.batch_bytes() as usize)?;
        if format::check_body(&header, batch).is_err() {
            break;
        }
        for (zxid, entry) in format::entries(&header, batch) {
            assert!(follows(end.zxid, zxid), "a checked batch is contiguous");
            end.zxid = zxid;
            if zxid > segment.zxid_limit {
                continue;
            }
            if zxid > base.zxid {
                if !leads_to(end.zxid_kept, base.zxid, zxid) {
                    return Err(end.damaged("the snapshot is of no state that this log went through"));
                }
                apply(zxid, entry).map_err(|reason| RecoverError::Apply {
                    segment: end.segment,
                    offset_bytes: end.offset_bytes,
                    zxid,
                    reason,
                })?;
                *entry_count += 1;
            }
            end.zxid_kept = zxid;
        }
        end.number += 1;
        end.offset_bytes += header.batch_bytes();
    }
    Ok(())
}

/// Whether an entry `next` behind `kept` can be applied to a snapshot of `base`: it is the very next, or an epoch began between with no
/// entry of its own yet.
fn leads_to(kept: Zxid, base: Zxid, next: Zxid) -> bool {
    kept >= base || (base.counter() == 0 && base.epoch() == next.epoch())
}

fn is_of(header: &BatchHeader, segment: &Sound, offset_bytes: u64) -> bool {
    header.salt == segment.header.salt && is_at(header, segment.file.id, offset_bytes)
}

fn is_at(header: &BatchHeader, segment: SegmentId, offset_bytes: u64) -> bool {
    header.segment == segment && header.offset_bytes == offset_bytes
}

/// Looks through everything behind `end` for proof that the batch due there was durable once.
fn judge_end(
    files: &[SegmentFile],
    segments: &Segments,
    end: &End,
    window: &mut Window<'_>,
    identity: u64,
) -> Result<Tail, RecoverError> {
    let mut tail = Tail::Clean;
    for &file in files.iter().filter(|file| file.id >= end.segment && !segments.void.contains(&file.id)) {
        let sound = segments.sound.iter().find(|segment| segment.file.id == file.id);
        let mut offset_bytes = if file.id == end.segment { end.offset_bytes } else { BLOCK_BYTES as u64 };
        while offset_bytes + BLOCK_BYTES as u64 <= file.bytes {
            let here = offset_bytes;
            offset_bytes += BLOCK_BYTES as u64;
            let Some(header) = BatchHeader::decode(identity, window.get(file, here, BLOCK_BYTES)?) else {
                continue;
            };
            let counts = match sound {
                Some(segment) => is_of(&header, segment, here) && header.number < segment.batch_limit,
                None => is_at(&header, file.id, here),
            };
            if !counts {
                continue;
            }
            if header.durable_before > end.number {
                // Where the lost thing is a segment's header, name that.
                let lost = match sound {
                    None => End { segment: file.id, offset_bytes: 0, ..*end },
                    Some(_) => *end,
                };
                return Err(lost.damaged("what was here is known to have been durable"));
            }
            tail = Tail::Torn { segment: end.segment, offset_bytes: end.offset_bytes };
        }
    }
    Ok(tail)
}

/// A part of a segment in memory; reads ahead.
struct Window<'s> {
    source: &'s mut dyn SegmentSource,
    segment: SegmentId,
    from: u64,
    /// At most [`READ_BYTES`], or one batch, which is not larger than its file.
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn get(&mut self, file: SegmentFile, offset_bytes: u64, count: usize) -> Result<&[u8], RecoverError> {
        assert!(offset_bytes + count as u64 <= file.bytes);
        let is_inside = self.segment == file.id
            && self.from <= offset_bytes
            && offset_bytes + count as u64 <= self.from + self.bytes.len() as u64;
        if !is_inside {
            let left = file.bytes - offset_bytes;
            // A lone header is looked at in passing; only what is read through is read ahead.
            let ahead = if offset_bytes == 0 { count } else { count.max(READ_BYTES) };
            self.bytes.resize(usize::try_from(left).unwrap_or(usize::MAX).min(ahead), 0);
            (self.segment, self.from) = (file.id, offset_bytes);
            self.source.read_at(file.id, offset_bytes, &mut self.bytes).map_err(|error| {
                self.bytes.clear();
                RecoverError::Read { segment: file.id, offset_bytes, error }
            })?;
        }
        let at = (offset_bytes - self.from) as usize;
        Ok(&self.bytes[at..at + count])
    }
}

#[cfg(test)]
mod tests;
