//! The transaction log: format, writer, recovery. Bytes only; files are `server::storage`'s.
//!
//! | File | What |
//! |------|------|
//! | `format` | segments, batches and records as bytes |
//! | `writer` | what to write next, where, and what is durable by now |
//! | `recover` | what a set of segments holds, and whether its end is a torn tail or damage |
//! | `range` | a part of the log read back, for a learner |
//! | `zookeeper` | reading the logs of Apache ZooKeeper |
//! | `print` | both kinds of log as text |

pub mod format;
pub mod print;
mod range;
pub mod recover;
pub mod writer;
pub mod zookeeper;

pub use range::{LogRange, LogRead, RangeError, read_range};
pub use recover::{RecoverError, Recovered, SegmentFile, SegmentSource, Tail, recover};
pub use writer::{Start, Writer, WriterOptions};

use std::fmt;

use crate::types::Zxid;

/// A log file. Ids ascend and are never used twice; a recycled file gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One write under way; the number of its batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

/// Bytes that must be durable at this place before [`Writer::written`] is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogWrite {
    pub id: WriteId,
    pub segment: SegmentId,
    /// A multiple of [`format::BLOCK_BYTES`], as is the length of `bytes`.
    pub offset_bytes: u64,
    pub bytes: Vec<u8>,
}

/// Work on whole files, in the order it must be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentWork {
    /// Make a file of the segment size, or recycle a retired one; all its blocks really written, file and directory synced.
    /// Answered by [`Writer::segment_ready`].
    Prepare(SegmentId),
    /// No record in it is wanted any more: it may be recycled or deleted. Not answered.
    Retire(SegmentId),
}

/// Whether `next` may follow `before` in a log: the next counter of the epoch, or counter 1 of a higher one (S3).
pub fn follows(before: Zxid, next: Zxid) -> bool {
    if next.epoch() == before.epoch() {
        before.counter() < u32::MAX && next.0 == before.0 + 1
    } else {
        next.0 > before.0 && next.counter() == 1
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    #[test]
    fn only_the_next_counter_or_the_first_of_a_higher_epoch_follows() {
        let at = Zxid::new(Epoch(3), 7);
        assert!(follows(at, Zxid::new(Epoch(3), 8)));
        assert!(follows(at, Zxid::new(Epoch(4), 1)));
        assert!(follows(at, Zxid::new(Epoch(9), 1)));
        assert!(follows(Zxid::ZERO, Zxid(1)));
        for not_next in [at, Zxid::new(Epoch(3), 9), Zxid::new(Epoch(4), 0), Zxid::new(Epoch(4), 2)] {
            assert!(!follows(at, not_next));
        }
        assert!(!follows(at, Zxid::new(Epoch(2), 1)));
        assert!(!follows(Zxid::new(Epoch(3), u32::MAX), Zxid::new(Epoch(4), 0)));
    }
}
