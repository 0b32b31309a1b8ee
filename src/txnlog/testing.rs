//! For the tests of this module: entries of any size, and a writer on a disk in memory.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::jute::put_i32;
use crate::proto::txn::{TxnHeader, kind};
use crate::txnlog::{
    LogWrite, SegmentFile, SegmentId, SegmentSource, SegmentWork, Start, Writer, WriterOptions,
};
use crate::types::{Instant, SessionId, Zxid};

/// Small segments and batches, so that a few entries fill several.
pub fn options() -> WriterOptions {
    WriterOptions {
        segment_bytes: 64 << 10,
        batch_bytes_max: 16 << 10,
        in_flight_max: 1,
        second_write_bytes_min: 0,
        seal_after: Duration::from_millis(5),
        salt_seed: 7,
    }
}

/// An entry of this zxid and about this many bytes.
pub fn entry(zxid: i64, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    TxnHeader { session: SessionId(1), cxid: 2, zxid: Zxid(zxid), time_ms: 3, kind: kind::ERROR }
        .encode(&mut out);
    put_i32(&mut out, -101);
    let len = out.len().max(bytes);
    out.resize(len, zxid as u8);
    out
}

/// A writer and the segments it has written.
pub struct Disk {
    pub writer: Writer,
    pub segments: BTreeMap<SegmentId, Vec<u8>>,
    pub segment_bytes: u64,
    pub zxid: i64,
}

impl Disk {
    pub fn new(options: WriterOptions) -> Disk {
        Disk::from(options, Start::fresh(1, Zxid::ZERO), BTreeMap::new())
    }

    pub fn from(options: WriterOptions, start: Start, segments: BTreeMap<SegmentId, Vec<u8>>) -> Disk {
        let zxid = start.zxid_last.0;
        let writer = Writer::new(options, start);
        Disk { writer, segments, segment_bytes: options.segment_bytes, zxid }
    }

    pub fn append(&mut self, count: usize, bytes: usize) {
        for _ in 0..count {
            self.zxid += 1;
            self.writer.append(Zxid(self.zxid), &entry(self.zxid, bytes));
        }
    }

    /// Writes all there is to write; returns the writes.
    pub fn run(&mut self) -> Vec<LogWrite> {
        let mut writes = Vec::new();
        loop {
            self.prepare();
            let Some(write) = self.writer.next_write(Instant(0)) else { return writes };
            self.put(&write);
            self.writer.written(write.id, Vec::new());
            writes.push(write);
        }
    }

    /// Writes the idle seal.
    pub fn seal(&mut self) -> Vec<LogWrite> {
        let at = self.writer.next_timer().expect("a seal is due");
        self.writer.on_timer(at);
        self.run()
    }

    pub fn prepare(&mut self) {
        let mut work = Vec::new();
        self.writer.drain_work(&mut work);
        for work in work {
            match work {
                SegmentWork::Prepare(id) => {
                    self.segments.insert(id, vec![0; self.segment_bytes as usize]);
                    self.writer.segment_ready(id);
                }
                SegmentWork::Retire(id) => {
                    self.segments.remove(&id);
                }
            }
        }
    }

    pub fn put(&mut self, write: &LogWrite) {
        let segment = self.segments.get_mut(&write.segment).expect("a prepared segment");
        let at = write.offset_bytes as usize;
        segment[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
}

/// Segments in memory.
pub struct Memory<'a>(pub &'a BTreeMap<SegmentId, Vec<u8>>);

impl Memory<'_> {
    pub fn files(&self) -> Vec<SegmentFile> {
        self.0.iter().map(|(&id, bytes)| SegmentFile { id, bytes: bytes.len() as u64 }).collect()
    }
}

impl SegmentSource for Memory<'_> {
    fn read_at(&mut self, segment: SegmentId, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        let at = offset_bytes as usize;
        into.copy_from_slice(&self.0[&segment][at..at + into.len()]);
        Ok(())
    }
}
