//! What to write next, where it goes, and what is durable by now. No I/O: the owner writes what [`Writer::next_write`]
//! hands out and reports back with [`Writer::written`].
//!
//! Group commit: one batch is in flight, what is appended meanwhile is the next. No timer delays a record; the only timer is
//! the idle seal, which moves the durable mark a few milliseconds after the last batch, so that recovery can tell a
//! rotten last record from one that was never acknowledged.
//!
//! A log can be [cut](Writer::truncate), or [begun anew](Writer::restart_after) behind a snapshot that came from elsewhere.
//!
//! Promises: batches come in order and never overlap; no block is handed out twice; `zxid_durable` moves only over the
//! contiguous prefix of what was reported written; what is appended is contiguous (S3), asserted.

use std::collections::VecDeque;
use std::time::Duration;

use crc32c::crc32c;

use crate::txnlog::format::{
    BATCH_HEADER_BYTES, BLOCK_BYTES, BatchHeader, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader, VERSION,
    blocks_for, body_crc_append, entry_zxid,
};
use crate::txnlog::{LogWrite, SegmentId, SegmentWork, WriteId, follows};
use crate::types::{Instant, Zxid};

/// Segments asked for before they are needed, beyond the one in use.
const SEGMENTS_AHEAD: u64 = 1;
/// Bytes appended and not yet handed out above which something upstream has failed to hold back.
const BACKLOG_BYTES_MAX: usize = 1 << 30;

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterOptions {
    /// Bytes of a segment, a multiple of [`BLOCK_BYTES`]; an entry must fit in one. See [`WriterOptions::segment_bytes_for`].
    pub segment_bytes: u64,
    /// Bytes one write may have, unless a single entry needs more.
    pub batch_bytes_max: usize,
    /// Writes under way at once: 1 or 2.
    pub in_flight_max: usize,
    /// Bytes that must wait before a second write is begun beside the first.
    pub second_write_bytes_min: usize,
    /// Idle time after which a seal is written.
    pub seal_after: Duration,
    /// Randomness for the salts; must differ from start to start.
    pub salt_seed: u64,
}

impl WriterOptions {
    /// The defaults. Source of the figures: measurements of log devices (`reference/io-uring.md` §4).
    pub fn new(salt_seed: u64) -> WriterOptions {
        WriterOptions {
            segment_bytes: 64 << 20,
            batch_bytes_max: 256 << 10,
            in_flight_max: 1,
            second_write_bytes_min: 64 << 10,
            seal_after: Duration::from_millis(5),
            salt_seed,
        }
    }

    /// The segment size for a wish in bytes (`preAllocSize`), large enough for entries of `entry_bytes_max`.
    pub fn segment_bytes_for(wish_bytes: u64, entry_bytes_max: u64) -> u64 {
        let needed = BLOCK_BYTES as u64 + batch_bytes_for(entry_bytes_max);
        blocks_for(wish_bytes.max(needed))
    }
}

/// Bytes a batch of this one entry takes.
fn batch_bytes_for(entry_bytes: u64) -> u64 {
    blocks_for((BATCH_HEADER_BYTES + RECORD_HEADER_BYTES) as u64 + entry_bytes)
}

/// A segment that holds records somebody may still want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveSegment {
    pub id: SegmentId,
    /// The zxid before its first record.
    pub zxid_before: Zxid,
}

/// Where a log begins or goes on: what [`recover`](super::recover) found, or [`Start::fresh`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// Ties segments to their data directory.
    pub identity: u64,
    /// The last zxid the log (or the snapshot it begins after) holds; all of it durable.
    pub zxid_last: Zxid,
    /// The number the next batch gets.
    pub batch_next: u64,
    /// The run that begins now.
    pub run: u64,
    /// The id the next segment gets.
    pub segment_next: SegmentId,
    /// Segments with records, oldest first.
    pub live: Vec<LiveSegment>,
    /// Files with nothing to keep.
    pub unused: Vec<SegmentId>,
}

impl Start {
    /// A log that begins after `zxid_last`, with no segment yet.
    pub fn fresh(identity: u64, zxid_last: Zxid) -> Start {
        Start {
            identity,
            zxid_last,
            batch_next: 1,
            run: 1,
            segment_next: SegmentId(1),
            live: Vec::new(),
            unused: Vec::new(),
        }
    }
}

/// The writing side of a log.
#[derive(Debug)]
pub struct Writer {
    options: WriterOptions,
    identity: u64,
    run: u64,
    /// Where the next batch begins; the open batch, if there is one, begins here.
    place: Place,
    open: Option<Batch>,
    closed: VecDeque<Batch>,
    /// At most `in_flight_max`, oldest first.
    in_flight: VecDeque<InFlight>,
    /// At most `in_flight_max + 1` buffers to use again.
    spare: Vec<Vec<u8>>,
    batch_next: u64,
    zxid_appended: Zxid,
    /// Every batch below this number is durable.
    durable_before: u64,
    zxid_durable: Zxid,
    /// Bytes in `closed` and `open`.
    backlog_bytes: usize,
    seal_at: Option<Instant>,
    seal_due: bool,
    live: VecDeque<LiveSegment>,
    /// The next id to ask for.
    prepare_next: SegmentId,
    /// Segments that were reported ready and are not begun.
    ready: VecDeque<SegmentId>,
    /// The lowest that may still be reported ready.
    ready_next: SegmentId,
    /// The first segment nothing was handed out for.
    begun_next: SegmentId,
    /// The number of the batch that cuts the log, until a batch that proves it durable is durable itself.
    cut: Option<u64>,
    /// What [`Writer::restart_segment`] said, as long as it holds.
    restart: Option<SegmentId>,
    /// Segments to give up once nothing is under way to them any more.
    retiring: Vec<SegmentId>,
    work: Vec<SegmentWork>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    segment: SegmentId,
    salt: u64,
    offset_bytes: u64,
}

/// Records on their way to a place.
#[derive(Debug)]
struct Batch {
    place: Place,
    /// The segment's header block if this begins one, then room for the batch header, then records.
    bytes: Vec<u8>,
    zxid_before: Zxid,
    zxid_last: Zxid,
    /// Records beyond this one were cut after the batch was full.
    zxid_cut: Option<Zxid>,
    record_count: u32,
    body_crc: u32,
}

impl Batch {
    fn begins_segment(&self) -> bool {
        self.place.offset_bytes == 0
    }

    /// Where in `bytes` the batch header is.
    fn header_at(&self) -> usize {
        if self.begins_segment() { BLOCK_BYTES } else { 0 }
    }
}

#[derive(Debug)]
struct InFlight {
    id: WriteId,
    segment: SegmentId,
    zxid_last: Zxid,
    /// The mark it carries.
    durable_before: u64,
    written: bool,
}

impl Writer {
    /// A writer that goes on from `start`. Panics on options out of range.
    pub fn new(options: WriterOptions, start: Start) -> Writer {
        assert!(options.segment_bytes.is_multiple_of(BLOCK_BYTES as u64), "a segment is whole blocks");
        assert!(options.segment_bytes >= 4 * BLOCK_BYTES as u64, "a segment has room for batches");
        assert!((1..=2).contains(&options.in_flight_max), "one or two writes in flight");
        assert!(options.batch_bytes_max >= 2 * BLOCK_BYTES, "a batch has room for records");
        let work = start.unused.iter().map(|&id| SegmentWork::Retire(id)).collect();
        let mut writer = Writer {
            options,
            identity: start.identity,
            run: start.run,
            place: Place {
                segment: start.segment_next,
                salt: salt(options.salt_seed, start.segment_next),
                offset_bytes: 0,
            },
            open: None,
            closed: VecDeque::new(),
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            batch_next: start.batch_next,
            zxid_appended: start.zxid_last,
            durable_before: start.batch_next,
            zxid_durable: start.zxid_last,
            backlog_bytes: 0,
            seal_at: None,
            seal_due: false,
            live: start.live.into(),
            prepare_next: start.segment_next,
            ready: VecDeque::new(),
            ready_next: start.segment_next,
            begun_next: start.segment_next,
            cut: None,
            restart: None,
            retiring: Vec::new(),
            work,
        };
        writer.ask_ahead();
        writer
    }

    /// Takes one entry: `TxnHeader`, record, `TxnDigest` as ZooKeeper encodes them.
    ///
    /// Panics if it does not follow the last one (S3), is not the zxid its header names, or cannot fit in a segment; sizes are
    /// checked when a transaction is formed (O13).
    pub fn append(&mut self, zxid: Zxid, entry: &[u8]) {
        assert!(follows(self.zxid_appended, zxid), "zxid {zxid} appended after {}", self.zxid_appended);
        assert_eq!(entry_zxid(entry), Some(zxid), "an entry carries its own zxid");
        assert!(self.backlog_bytes < BACKLOG_BYTES_MAX, "the log's backlog is bounded");
        self.restart = None;
        let record_bytes = RECORD_HEADER_BYTES + entry.len();
        if let Some(open) = &self.open
            && !self.has_room(open, record_bytes)
        {
            self.close();
        }
        let mut batch = match self.open.take() {
            Some(open) => open,
            None => self.open_batch(batch_bytes_for(entry.len() as u64)),
        };
        let header = RecordHeader {
            entry_bytes: u32::try_from(entry.len()).expect("an entry fits in a segment"),
            zxid,
            zxid_before: self.zxid_appended,
            entry_crc: crc32c(entry),
            salt_low: batch.place.salt as u32,
        }
        .to_bytes();
        batch.bytes.extend_from_slice(&header);
        batch.bytes.extend_from_slice(entry);
        batch.body_crc = body_crc_append(batch.body_crc, &header);
        batch.record_count += 1;
        batch.zxid_last = zxid;
        self.open = Some(batch);
        self.zxid_appended = zxid;
        self.backlog_bytes += record_bytes;
    }

    /// The next write, if one may start now. Call again until `None`, and again after each [`Writer::written`],
    /// [`Writer::segment_ready`] and [`Writer::on_timer`].
    pub fn next_write(&mut self, now: Instant) -> Option<LogWrite> {
        if self.in_flight.len() >= self.options.in_flight_max {
            return None;
        }
        if self.closed.is_empty() && self.open.is_none() {
            if !self.seal_due || !self.in_flight.is_empty() {
                return None;
            }
            let seal = self.open_batch(BLOCK_BYTES as u64);
            self.open = Some(seal);
        }
        // Whatever the cut stands behind is durable before it, or recovery could not tell a hole from a torn tail.
        if self.cut == Some(self.batch_next) && !self.in_flight.is_empty() {
            return None;
        }
        let next = self.closed.front().or(self.open.as_ref()).expect("something is to be written");
        if !self.in_flight.is_empty() && next.bytes.len() < self.options.second_write_bytes_min {
            return None;
        }
        if next.begins_segment() && self.ready.front() != Some(&next.place.segment) {
            return None;
        }
        if self.closed.is_empty() {
            self.close();
        }
        let batch = self.closed.pop_front().expect("the open batch was closed");
        Some(self.send(batch, now))
    }

    /// The bytes of [`LogWrite`] `id` are durable. Returns the last zxid up to which everything is.
    ///
    /// `spent` is the write's buffer, to be used again. Panics on an id that is not under way.
    pub fn written(&mut self, id: WriteId, spent: Vec<u8>) -> Zxid {
        let done = self.in_flight.iter_mut().find(|write| write.id == id).expect("a write under way");
        assert!(!done.written, "a write is reported once");
        done.written = true;
        while self.in_flight.front().is_some_and(|write| write.written) {
            let write = self.in_flight.pop_front().expect("there is a front");
            assert!(write.id.0 == self.durable_before && write.zxid_last >= self.zxid_durable);
            self.durable_before = write.id.0 + 1;
            self.zxid_durable = write.zxid_last;
            match self.cut {
                // Until something proves it, one lost block could take the cut back.
                Some(cut) if cut == write.id.0 => self.seal_due = true,
                Some(cut) if cut < write.durable_before => self.cut = None,
                _ => {}
            }
        }
        self.give_up_retiring();
        // A buffer that one huge entry made is not worth keeping.
        if self.spare.len() <= self.options.in_flight_max
            && spent.capacity() <= 2 * self.options.batch_bytes_max
        {
            self.spare.push(spent);
        }
        self.zxid_durable
    }

    /// A segment asked for is there. They are reported in the order asked.
    pub fn segment_ready(&mut self, id: SegmentId) {
        assert!(id >= self.ready_next && id < self.prepare_next, "segment {id} was asked for");
        self.ready_next = SegmentId(id.0 + 1);
        if id < self.begun_next {
            // Asked for before the log was begun anew.
            self.work.push(SegmentWork::Retire(id));
        } else {
            self.ready.push_back(id);
        }
    }

    /// The log ends at `zxid` from now on: what was appended beyond it is dropped, and where it has been handed out already, void once
    /// the cut is durable. What is appended next follows `zxid`.
    ///
    /// The cut is a segment of its own that begins after `zxid`; nothing need be appended for it to be written. As long as
    /// [`Writer::is_cutting`], a crash may bring the log back as it was. `zxid` must be one the log holds or its oldest live
    /// segment begins after: an owner that does not know asks for the entries from there first. Panics if it is outside.
    pub fn truncate(&mut self, zxid: Zxid) {
        assert!(zxid <= self.zxid_appended, "the log ends at {}, before {zxid}", self.zxid_appended);
        let oldest = self.live.front().map_or(self.zxid_durable, |segment| segment.zxid_before);
        assert!(oldest <= zxid, "the log begins after {oldest}, it cannot be cut to {zxid}");
        if zxid == self.zxid_appended {
            return;
        }
        self.drop_backlog(zxid);
        // A batch that reaches over the cut stays whole: the cut voids the rest of it.
        if self.open.is_some() {
            self.close();
        }
        for batch in &mut self.closed {
            batch.zxid_cut = Some(batch.zxid_cut.map_or(zxid, |cut| cut.min(zxid)));
        }
        self.move_to_new_segment(zxid);
        self.cut = Some(self.batch_next + self.closed.len() as u64);
        let cut = self.open_batch(BLOCK_BYTES as u64);
        self.open = Some(cut);
    }

    /// Whether a [cut](Writer::truncate) is not durable yet.
    pub fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    /// The segment that the log, [begun anew](Writer::restart_after), will begin with.
    ///
    /// A snapshot that replaces the history is told it, so that no older segment counts beside that snapshot. Nothing may be appended
    /// from here to there; what was appended before may still be written.
    pub fn restart_segment(&mut self) -> SegmentId {
        let last =
            self.open.as_ref().or(self.closed.back()).map_or(SegmentId(0), |batch| batch.place.segment);
        // One is left for a seal that finds no room.
        let segment = SegmentId(self.begun_next.0.max(last.0 + 1) + 1);
        self.restart = Some(segment);
        segment
    }

    /// Begins the log anew after `zxid`, that of a snapshot which is durable and knows [`Writer::restart_segment`]. What was
    /// appended and not handed out is dropped, every segment begun before is given up as soon as nothing is under way to it.
    pub fn restart_after(&mut self, zxid: Zxid) {
        let segment = self
            .restart
            .take()
            .expect("the snapshot names the first segment, and nothing was appended since");
        assert!(self.begun_next <= segment, "segment {} was begun before {segment}", self.begun_next);
        self.closed.clear();
        self.open = None;
        self.backlog_bytes = 0;
        self.zxid_durable = zxid;
        self.in_flight.iter_mut().for_each(|write| write.zxid_last = zxid);
        (self.seal_at, self.seal_due, self.cut) = (None, false, None);
        self.retiring.extend(self.live.drain(..).map(|segment| segment.id));
        while self.ready.front().is_some_and(|ready| *ready < segment) {
            self.retiring.extend(self.ready.pop_front());
        }
        self.begun_next = segment;
        self.prepare_next = self.prepare_next.max(segment);
        self.move_to_new_segment(zxid);
        self.give_up_retiring();
    }

    /// Drops the batches not handed out that begin at `zxid` or later.
    fn drop_backlog(&mut self, zxid: Zxid) {
        for batch in self.closed.iter().chain(&self.open).filter(|batch| batch.zxid_before >= zxid) {
            self.backlog_bytes -= batch.bytes.len() - batch.header_at() - BATCH_HEADER_BYTES;
        }
        self.closed.retain(|batch| batch.zxid_before < zxid);
        self.open.take_if(|batch| batch.zxid_before >= zxid);
    }

    /// What is appended from now on follows `zxid` and goes to the first segment no batch belongs to.
    fn move_to_new_segment(&mut self, zxid: Zxid) {
        let after_closed =
            self.closed.back().map_or(SegmentId(0), |batch| SegmentId(batch.place.segment.0 + 1));
        let segment = self.begun_next.max(after_closed);
        self.place = Place { segment, salt: salt(self.options.salt_seed, segment), offset_bytes: 0 };
        self.ask_ahead();
        self.zxid_appended = zxid;
        self.zxid_durable = self.zxid_durable.min(zxid);
        for write in &mut self.in_flight {
            write.zxid_last = write.zxid_last.min(zxid);
        }
    }

    fn give_up_retiring(&mut self) {
        let Writer { retiring, in_flight, work, .. } = self;
        retiring.retain(|id| {
            let is_written_to = in_flight.iter().any(|write| write.segment == *id);
            if !is_written_to {
                work.push(SegmentWork::Retire(*id));
            }
            is_written_to
        });
    }

    /// Moves the work on files that is due to `into`, in order.
    pub fn drain_work(&mut self, into: &mut Vec<SegmentWork>) {
        into.append(&mut self.work);
    }

    /// Gives up the segments all of whose records are at or below `zxid`.
    ///
    /// `zxid` is that of the oldest snapshot that is kept and verified, so that each kept one can be recovered from.
    pub fn retire_before(&mut self, zxid: Zxid) {
        assert!(zxid <= self.zxid_durable, "a snapshot is not ahead of the log");
        while self.live.len() > 1 && self.live[1].zxid_before <= zxid {
            let retired = self.live.pop_front().expect("more than one");
            self.retiring.push(retired.id);
        }
        // A seal may still be on its way to one: its file must not become another segment before that has landed.
        self.give_up_retiring();
    }

    /// When [`Writer::on_timer`] is wanted.
    pub fn next_timer(&self) -> Option<Instant> {
        self.seal_at
    }

    /// The timer: asks for a seal if the log was idle long enough. Then call [`Writer::next_write`].
    pub fn on_timer(&mut self, now: Instant) {
        if self.seal_at.is_none_or(|at| now < at) {
            return;
        }
        if self.in_flight.is_empty() && self.backlog_bytes == 0 {
            self.seal_at = None;
            self.seal_due = true;
        } else {
            self.seal_at = Some(now + self.options.seal_after);
        }
    }

    pub fn options(&self) -> WriterOptions {
        self.options
    }

    /// The last zxid up to which everything is durable.
    pub fn zxid_durable(&self) -> Zxid {
        self.zxid_durable
    }

    pub fn zxid_appended(&self) -> Zxid {
        self.zxid_appended
    }

    /// Bytes appended and not handed out yet. Hold back new work well before they are [many](BACKLOG_BYTES_MAX).
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Whether everything appended is durable.
    pub fn is_idle(&self) -> bool {
        self.backlog_bytes == 0 && self.in_flight.is_empty()
    }

    /// Segments with records, oldest first; the last is the one in use.
    pub fn live(&self) -> impl Iterator<Item = LiveSegment> {
        self.live.iter().copied()
    }

    /// Writes begun and not reported written.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    fn has_room(&self, batch: &Batch, record_bytes: usize) -> bool {
        let after = batch.bytes.len() + record_bytes;
        after <= self.options.batch_bytes_max
            && batch.place.offset_bytes + blocks_for(after as u64) <= self.options.segment_bytes
    }

    /// A batch at the next place that has room for `batch_bytes`.
    fn open_batch(&mut self, batch_bytes: u64) -> Batch {
        let begun_bytes =
            if self.place.offset_bytes == 0 { BLOCK_BYTES as u64 } else { self.place.offset_bytes };
        if begun_bytes + batch_bytes > self.options.segment_bytes {
            assert!(
                BLOCK_BYTES as u64 + batch_bytes <= self.options.segment_bytes,
                "an entry fits in a segment of {} bytes",
                self.options.segment_bytes
            );
            let segment = SegmentId(self.place.segment.0 + 1);
            self.place = Place { segment, salt: salt(self.options.salt_seed, segment), offset_bytes: 0 };
            self.ask_ahead();
        }
        let mut batch = Batch {
            place: self.place,
            bytes: self.spare.pop().unwrap_or_default(),
            zxid_before: self.zxid_appended,
            zxid_last: self.zxid_appended,
            zxid_cut: None,
            record_count: 0,
            body_crc: 0,
        };
        batch.bytes.clear();
        batch.bytes.resize(batch.header_at() + BATCH_HEADER_BYTES, 0);
        batch
    }

    /// Nothing more goes into the open batch.
    fn close(&mut self) {
        let batch = self.open.take().expect("an open batch");
        self.place.offset_bytes += blocks_for(batch.bytes.len() as u64);
        self.closed.push_back(batch);
    }

    /// Completes a batch's headers and counts it as under way.
    fn send(&mut self, mut batch: Batch, now: Instant) -> LogWrite {
        let header_at = batch.header_at();
        let body_at = header_at + BATCH_HEADER_BYTES;
        let body_bytes = batch.bytes.len() - body_at;
        self.backlog_bytes -= body_bytes;
        batch.bytes.resize(blocks_for(batch.bytes.len() as u64) as usize, 0);
        let number = self.batch_next;
        self.batch_next += 1;
        if batch.begins_segment() {
            let begun = self.ready.pop_front();
            assert_eq!(begun, Some(batch.place.segment));
            assert_eq!(batch.place.segment, self.begun_next, "segments are begun in order");
            self.begun_next.0 += 1;
            self.live.push_back(LiveSegment { id: batch.place.segment, zxid_before: batch.zxid_before });
            let header = SegmentHeader {
                version: VERSION,
                identity: self.identity,
                segment: batch.place.segment,
                salt: batch.place.salt,
                run: self.run,
                batch_first: number,
                zxid_before: batch.zxid_before,
                segment_bytes: self.options.segment_bytes,
            };
            header.encode(&mut batch.bytes);
        }
        let header = BatchHeader {
            salt: batch.place.salt,
            segment: batch.place.segment,
            offset_bytes: batch.place.offset_bytes + header_at as u64,
            number,
            durable_before: self.durable_before,
            zxid_durable: self.zxid_durable,
            zxid_before: batch.zxid_before,
            zxid_last: batch.zxid_last,
            body_bytes: u32::try_from(body_bytes).expect("a batch fits in a segment"),
            record_count: batch.record_count,
            body_crc: body_crc_append(batch.body_crc, &batch.bytes[body_at + body_bytes..]),
        };
        header.encode(self.identity, &mut batch.bytes[header_at..]);
        assert!(batch.place.offset_bytes + batch.bytes.len() as u64 <= self.options.segment_bytes);
        let is_seal = batch.record_count == 0;
        self.seal_due = false;
        self.seal_at = (!is_seal).then(|| now + self.options.seal_after);
        let id = WriteId(number);
        self.in_flight.push_back(InFlight {
            id,
            segment: batch.place.segment,
            zxid_last: batch.zxid_cut.map_or(batch.zxid_last, |cut| cut.min(batch.zxid_last)),
            durable_before: self.durable_before,
            written: false,
        });
        LogWrite {
            id,
            segment: batch.place.segment,
            offset_bytes: batch.place.offset_bytes,
            bytes: batch.bytes,
        }
    }

    fn ask_ahead(&mut self) {
        while self.prepare_next.0 <= self.place.segment.0 + SEGMENTS_AHEAD {
            self.work.push(SegmentWork::Prepare(self.prepare_next));
            self.prepare_next.0 += 1;
        }
    }
}

/// A salt nobody who does not know the seed can guess (splitmix64).
fn salt(seed: u64, segment: SegmentId) -> u64 {
    let mut x = seed.wrapping_add(segment.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txnlog::testing::{Disk, entry, options};

    #[test]
    fn what_arrives_during_a_write_is_the_next_batch() {
        let mut writer = Writer::new(options(), Start::fresh(1, Zxid::ZERO));
        let mut work = Vec::new();
        writer.drain_work(&mut work);
        assert_eq!(work, [SegmentWork::Prepare(SegmentId(1)), SegmentWork::Prepare(SegmentId(2))]);
        writer.append(Zxid(1), &entry(1, 10));
        assert_eq!(writer.next_write(Instant(0)), None, "no segment yet");
        writer.segment_ready(SegmentId(1));
        let first = writer.next_write(Instant(0)).unwrap();
        assert_eq!(
            (first.segment, first.offset_bytes, first.bytes.len()),
            (SegmentId(1), 0, 2 * BLOCK_BYTES)
        );
        writer.append(Zxid(2), &entry(2, 10));
        writer.append(Zxid(3), &entry(3, 10));
        assert_eq!(writer.next_write(Instant(0)), None, "one in flight");
        assert_eq!(writer.zxid_durable(), Zxid::ZERO);
        assert_eq!(writer.written(first.id, first.bytes), Zxid(1));
        let second = writer.next_write(Instant(0)).unwrap();
        assert_eq!((second.offset_bytes, second.bytes.len()), (2 * BLOCK_BYTES as u64, BLOCK_BYTES));
        assert_eq!(BatchHeader::decode(1, &second.bytes).unwrap().record_count, 2);
        assert_eq!(writer.written(second.id, second.bytes), Zxid(3));
        assert!(writer.is_idle());
    }

    #[test]
    fn durable_moves_over_the_contiguous_prefix_only() {
        let mut options = options();
        options.in_flight_max = 2;
        options.second_write_bytes_min = 0;
        let mut writer = Writer::new(options, Start::fresh(1, Zxid::ZERO));
        writer.segment_ready(SegmentId(1));
        writer.append(Zxid(1), &entry(1, 10));
        let first = writer.next_write(Instant(0)).unwrap();
        writer.append(Zxid(2), &entry(2, 10));
        let second = writer.next_write(Instant(0)).unwrap();
        assert_eq!(writer.written(second.id, second.bytes), Zxid::ZERO);
        assert_eq!(writer.written(first.id, first.bytes), Zxid(2));
    }

    #[test]
    fn a_seal_follows_after_idle_time_and_only_once() {
        let mut disk = Disk::new(options());
        disk.append(3, 10);
        disk.run();
        let at = disk.writer.next_timer().expect("a seal is due");
        disk.writer.on_timer(Instant(at.0 - 1));
        assert_eq!(disk.writer.next_write(at), None);
        disk.writer.on_timer(at);
        let seal = disk.writer.next_write(at).expect("the seal");
        let header = BatchHeader::decode(1, &seal.bytes).unwrap();
        assert_eq!((header.record_count, header.durable_before), (0, header.number));
        assert_eq!(header.zxid_durable, Zxid(3));
        disk.writer.written(seal.id, seal.bytes);
        assert_eq!(disk.writer.next_timer(), None);
    }

    #[test]
    fn segments_roll_and_retire_once_a_snapshot_covers_them() {
        let mut disk = Disk::new(options());
        disk.append(200, 900);
        disk.run();
        let live: Vec<_> = disk.writer.live().collect();
        assert!(live.len() > 2, "{live:?}");
        disk.writer.retire_before(Zxid(live[2].zxid_before.0 - 1));
        let mut work = Vec::new();
        disk.writer.drain_work(&mut work);
        assert_eq!(work, [SegmentWork::Retire(live[0].id)]);
        disk.writer.retire_before(Zxid(200));
        assert_eq!(disk.writer.live().count(), 1);
    }

    #[test]
    fn an_entry_larger_than_a_batch_is_written_alone() {
        let mut disk = Disk::new(options());
        disk.append(1, 10);
        disk.append(1, 20_000);
        disk.append(1, 10);
        let sizes: Vec<_> = disk.run().iter().map(|write| write.bytes.len()).collect();
        assert_eq!(sizes, [2 * BLOCK_BYTES, 5 * BLOCK_BYTES, BLOCK_BYTES]);
    }

    #[test]
    #[should_panic(expected = "appended after")]
    fn a_gap_is_not_appended() {
        let mut writer = Writer::new(options(), Start::fresh(1, Zxid::ZERO));
        writer.append(Zxid(2), &entry(2, 10));
    }
}
