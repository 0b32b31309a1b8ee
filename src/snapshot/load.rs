//! Reading a snapshot from a stream, with memory bounded by its largest record.

use std::io::{self, Read};

use simd_adler32::Adler32;
use thiserror::Error;

use crate::jute::{JuteError, Reader};
use crate::proto::{Acl, StatPersisted};
use crate::snapshot::{MAGIC, VERSION, items};
use crate::types::{SessionId, Zxid};

/// Bytes asked of the stream at once.
const READ_BYTES: usize = 256 << 10;
/// Bytes a record (an ACL list, a node) may have; ZooKeeper's own limit is `jute.maxbuffer`, usually 1 MiB.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// Takes what a snapshot holds, in the order of the file. An `Err` ends the load with that reason.
pub trait LoadSink {
    /// A load begins: throws away everything taken before (of a snapshot that turned out unsound).
    fn reset(&mut self);
    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String>;
    /// `None` where the list is null.
    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String>;
    /// The root's path is empty. `acl` is [`ACL_OPEN`](super::ACL_OPEN) or an id the file should have listed.
    fn node(&mut self, path: &str, data: Option<&[u8]>, acl: i64, stat: &StatPersisted)
    -> Result<(), String>;
}

/// How many of each there were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub sessions: u64,
    pub acls: u64,
    pub nodes: u64,
}

/// The tree digest a snapshot carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotDigest {
    /// The last transaction in the digest; with a fuzzy snapshot later than the one it is named after.
    pub zxid: Zxid,
    pub version: i32,
    pub tree_digest: u64,
}

/// What a load found besides what went to the sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    pub counts: Counts,
    /// `None`: an older server's, or digests were off.
    pub digest: Option<SnapshotDigest>,
    pub zxid_last: Option<Zxid>,
    /// Bytes and crc32c of the content, unpacked.
    pub content_bytes: u64,
    pub content_crc: u32,
}

/// Why a stream is no snapshot. Offsets are into the content, unpacked.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("offset {offset_bytes}: {error}")]
    Read { offset_bytes: u64, error: io::Error },
    #[error("ends early at offset {offset_bytes}, in {part}")]
    Truncated { offset_bytes: u64, part: &'static str },
    #[error("offset {offset_bytes}, {part}: {error}")]
    Malformed { offset_bytes: u64, part: &'static str, error: JuteError },
    #[error("offset {offset_bytes}, {part}: {found} found, {expected} expected")]
    Unexpected { offset_bytes: u64, part: &'static str, found: i64, expected: i64 },
    #[error(
        "the seal at offset {offset_bytes} says adler32 {found:08x}, the bytes before it have {computed:08x}"
    )]
    Checksum { offset_bytes: u64, found: u64, computed: u32 },
    #[error("bytes follow the end of the snapshot at offset {offset_bytes}")]
    Trailing { offset_bytes: u64 },
    #[error("{part} ending at offset {offset_bytes}: {reason}")]
    Refused { offset_bytes: u64, part: &'static str, reason: String },
}

/// Reads a whole snapshot from `stream` (already unpacked) into `sink`, and checks every seal.
///
/// On an error the sink has taken a part, to be thrown away.
pub fn load(stream: &mut dyn Read, sink: &mut dyn LoadSink) -> Result<Loaded, LoadError> {
    let mut input = Input::new(stream);
    sink.reset();
    let mut counts = Counts::default();
    let refused =
        |input: &Input<'_>, part, reason| LoadError::Refused { offset_bytes: input.offset(), part, reason };

    input.record("the file header", |reader| Ok((reader.i32()?, reader.i32()?, reader.i64()?))).and_then(
        |(magic, version, _)| {
            let expect = |found: i32, expected: i32, offset_bytes| match found == expected {
                true => Ok(()),
                false => Err(LoadError::Unexpected {
                    offset_bytes,
                    part: "the file header",
                    found: i64::from(found),
                    expected: i64::from(expected),
                }),
            };
            expect(magic, MAGIC, 0)?;
            expect(version, VERSION, 4)
        },
    )?;

    let session_count = input.record("the session count", |reader| reader.i32())?;
    for _ in 0..session_count.max(0) {
        let taken = input.record("a session", |reader| items::session(reader, sink))?;
        taken.map_err(|reason| refused(&input, "session", reason))?;
        counts.sessions += 1;
    }

    let acl_count = input.record("the ACL count", |reader| reader.i32())?;
    for _ in 0..acl_count.max(0) {
        let taken = input.record("an ACL list", |reader| items::acl(reader, sink))?;
        taken.map_err(|reason| refused(&input, "ACL list", reason))?;
        counts.acls += 1;
    }

    loop {
        let taken = input.record("a node", |reader| items::node(reader, sink))?;
        match taken {
            None => break,
            Some(taken) => taken.map_err(|reason| refused(&input, "node", reason))?,
        }
        counts.nodes += 1;
    }
    input.seal()?;

    let mut digest = None;
    let mut zxid_last = None;
    // Without digests the last zxid comes right behind the first seal; only its 21 bytes are left then.
    if input.left_at_most(LAST_ZXID_BYTES)?.is_none() {
        digest = input.record("the digest", |reader| {
            let zxid = Zxid(reader.i64()?);
            let version = reader.i32()?;
            let tree_digest = if version < 2 {
                u64::from_str_radix(&reader.string()?.unwrap_or_default(), 16).unwrap_or(0)
            } else {
                reader.i64()? as u64
            };
            // No transaction yet: an empty digest.
            Ok((zxid > Zxid::ZERO).then_some(SnapshotDigest { zxid, version, tree_digest }))
        })?;
        input.seal()?;
    }
    if input.left_at_most(0)?.is_none() {
        zxid_last = Some(Zxid(input.record("the last zxid", |reader| reader.i64())?));
        input.seal()?;
    }
    if input.left_at_most(0)?.is_none() {
        return Err(LoadError::Trailing { offset_bytes: input.offset() });
    }
    Ok(Loaded { counts, digest, zxid_last, content_bytes: input.offset(), content_crc: input.crc })
}

/// A long and a seal.
const LAST_ZXID_BYTES: usize = 8 + 8 + 5;

/// The stream with a buffer that holds at least the record being read.
struct Input<'s> {
    stream: &'s mut dyn Read,
    /// Filled to `end`; grows only as bytes arrive.
    buffer: Vec<u8>,
    /// What is taken.
    at: usize,
    end: usize,
    /// Up to where `adler` has gone; never beyond `at`.
    hashed: usize,
    /// Bytes of the stream before the buffer.
    dropped_bytes: u64,
    is_at_end: bool,
    adler: Adler32,
    /// Of everything read.
    crc: u32,
}

impl<'s> Input<'s> {
    fn new(stream: &'s mut dyn Read) -> Input<'s> {
        Input {
            stream,
            buffer: vec![0; READ_BYTES],
            at: 0,
            end: 0,
            hashed: 0,
            dropped_bytes: 0,
            is_at_end: false,
            adler: Adler32::new(),
            crc: 0,
        }
    }

    fn offset(&self) -> u64 {
        self.dropped_bytes + self.at as u64
    }

    /// Decodes one record at the front, reading more as long as it ends early.
    #[inline]
    fn record<T>(
        &mut self,
        part: &'static str,
        mut decode: impl FnMut(&mut Reader<'_>) -> Result<T, JuteError>,
    ) -> Result<T, LoadError> {
        loop {
            let mut reader = Reader::new(&self.buffer[self.at..self.end]);
            match decode(&mut reader) {
                Ok(value) => {
                    self.at += reader.offset();
                    return Ok(value);
                }
                Err(JuteError::Truncated { offset, wanted, .. }) => {
                    let record_bytes = offset.saturating_add(wanted);
                    if record_bytes > RECORD_BYTES_MAX {
                        let offset_bytes = self.offset();
                        let length = i32::try_from(wanted).unwrap_or(i32::MAX);
                        return Err(LoadError::Malformed {
                            offset_bytes,
                            part,
                            error: JuteError::Length { offset, length },
                        });
                    }
                    self.fill(record_bytes)?;
                    if self.end - self.at < record_bytes {
                        let offset_bytes = self.dropped_bytes + self.end as u64;
                        return Err(LoadError::Truncated { offset_bytes, part });
                    }
                }
                Err(error) => {
                    return Err(LoadError::Malformed { offset_bytes: self.offset(), part, error });
                }
            }
        }
    }

    /// Reads until `wanted` bytes are there or the stream ends, and as much more as comes along.
    fn fill(&mut self, wanted: usize) -> Result<(), LoadError> {
        self.hash();
        self.buffer.copy_within(self.at..self.end, 0);
        self.dropped_bytes += self.at as u64;
        self.end -= self.at;
        (self.at, self.hashed) = (0, 0);
        while !self.is_at_end && (self.end < wanted || self.end < self.buffer.len()) {
            if self.end == self.buffer.len() {
                // Only as far again as bytes have really come, whatever a length claims.
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => {
                    self.crc = crc32c::crc32c_append(self.crc, &self.buffer[self.end..self.end + count]);
                    self.end += count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(LoadError::Read {
                        offset_bytes: self.dropped_bytes + self.end as u64,
                        error,
                    });
                }
            }
        }
        Ok(())
    }

    fn hash(&mut self) {
        self.adler.write(&self.buffer[self.hashed..self.at]);
        self.hashed = self.at;
    }

    /// Takes a seal and compares it with what came before.
    fn seal(&mut self) -> Result<(), LoadError> {
        self.hash();
        let computed = self.adler.finish();
        let offset_bytes = self.offset();
        let (found, path_bytes) = self.record("a seal", |reader| {
            let found = reader.i64()? as u64;
            Ok((
                found,
                reader.buffer()?.map_or(-1, |path| if path == b"/" { 1 } else { path.len() as i64 + 2 }),
            ))
        })?;
        if found != u64::from(computed) {
            return Err(LoadError::Checksum { offset_bytes, found, computed });
        }
        if path_bytes != 1 {
            let part = "the end of a seal";
            return Err(LoadError::Unexpected { offset_bytes, part, found: path_bytes, expected: 1 });
        }
        Ok(())
    }

    /// How many bytes are left, if that is no more than `count`.
    fn left_at_most(&mut self, count: usize) -> Result<Option<usize>, LoadError> {
        if self.end - self.at <= count {
            self.fill(count + 1)?;
        }
        Ok((self.end - self.at <= count).then_some(self.end - self.at))
    }
}

#[cfg(test)]
mod tests;
