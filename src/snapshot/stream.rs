//! Reading the body of a snapshot as it comes, in pieces cut anywhere: sessions, ACLs and nodes, without header and seals.
//!
//! That is what a leader sends behind its `SNAP` packet. Source: ZooKeeper `SerializeUtils#deserializeSnapshot`; quorum-protocol §4.5.

use thiserror::Error;

use crate::jute::{JuteError, Reader};
use crate::snapshot::{Counts, LoadSink, items};

/// Bytes by which a started item grows at the least, before it is looked at again.
const GROW_BYTES_MIN: usize = 4 << 10;

/// Takes a body piece by piece.
///
/// Items that are whole within a piece are read in place; only one that is cut is copied, so at most twice the item bound is held.
#[derive(Debug)]
pub struct BodyReader {
    part: Part,
    /// The front of an item whose rest has not come yet.
    cut: Vec<u8>,
    item_bytes_max: usize,
    /// Bytes of whole items taken.
    offset_bytes: u64,
    counts: Counts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    SessionCount,
    Sessions { left: u32 },
    AclCount,
    Acls { left: u32 },
    Nodes,
    Done,
}

/// What became of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// How many of its bytes belong to the body: all, unless the body is at its end.
    pub bytes: usize,
    pub is_done: bool,
}

/// Why bytes are no body of a snapshot. Offsets are from its begin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamError {
    #[error("offset {offset_bytes}, {part}: {error}")]
    Malformed { offset_bytes: u64, part: &'static str, error: JuteError },
    #[error(
        "offset {offset_bytes}, {part} has {item_bytes} bytes or more, at most {item_bytes_max} were expected"
    )]
    TooLong { offset_bytes: u64, part: &'static str, item_bytes: usize, item_bytes_max: usize },
    #[error("offset {offset_bytes}, {part}: {reason}")]
    Refused { offset_bytes: u64, part: &'static str, reason: String },
}

impl BodyReader {
    /// `item_bytes_max` is the most that one ACL list or node may have.
    pub fn new(item_bytes_max: usize) -> BodyReader {
        BodyReader {
            part: Part::SessionCount,
            cut: Vec::new(),
            item_bytes_max,
            offset_bytes: 0,
            counts: Counts::default(),
        }
    }

    /// What the sink has taken so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the next piece. On an error the sink has taken a part, to be thrown away, and no more may be given.
    ///
    /// The caller has [reset](LoadSink::reset) the sink before the first piece.
    pub fn take(&mut self, piece: &[u8], sink: &mut dyn LoadSink) -> Result<Taken, StreamError> {
        let mut at = self.finish_cut(piece, sink)?;
        while self.part != Part::Done && self.cut.is_empty() && at < piece.len() {
            match self.item(&piece[at..], sink)? {
                Some(bytes) => at += bytes,
                None => {
                    self.cut.extend_from_slice(&piece[at..]);
                    at = piece.len();
                }
            }
        }
        Ok(Taken { bytes: at, is_done: self.part == Part::Done })
    }

    /// Completes the item that is cut, if there is one, and gives how many bytes of `piece` went to it.
    fn finish_cut(&mut self, piece: &[u8], sink: &mut dyn LoadSink) -> Result<usize, StreamError> {
        if self.cut.is_empty() {
            return Ok(0);
        }
        let mut item = std::mem::take(&mut self.cut);
        let bytes_before = item.len();
        let mut at = 0;
        while at < piece.len() {
            // Doubling, so that an item in many small parts is not decoded once for each.
            let grow = item.len().max(GROW_BYTES_MIN).min(piece.len() - at);
            item.extend_from_slice(&piece[at..at + grow]);
            at += grow;
            if let Some(bytes) = self.item(&item, sink)? {
                // It was not whole before, so what is too much came from this piece.
                assert!(bytes > bytes_before, "an item of {bytes} bytes was whole with {bytes_before}");
                item.clear();
                self.cut = item;
                return Ok(bytes - bytes_before);
            }
        }
        self.cut = item;
        Ok(piece.len())
    }

    /// Takes the item at the front of `input` and gives its length; `None` where it is not all there.
    fn item(&mut self, input: &[u8], sink: &mut dyn LoadSink) -> Result<Option<usize>, StreamError> {
        let mut reader = Reader::new(input);
        let offset_bytes = self.offset_bytes;
        let (part, taken) = match self.part {
            Part::SessionCount => {
                ("the session count", reader.i32().map(|count| Ok(Part::sessions(count.max(0) as u32))))
            }
            Part::Sessions { left } => {
                let taken = items::session(&mut reader, sink);
                ("a session", taken.map(|taken| taken.map(|()| Part::sessions(left - 1))))
            }
            Part::AclCount => {
                ("the ACL count", reader.i32().map(|count| Ok(Part::acls(count.max(0) as u32))))
            }
            Part::Acls { left } => {
                let taken = items::acl(&mut reader, sink);
                ("an ACL list", taken.map(|taken| taken.map(|()| Part::acls(left - 1))))
            }
            Part::Nodes => {
                let taken = items::node(&mut reader, sink);
                let next = |taken: Option<Result<(), String>>| match taken {
                    None => Ok(Part::Done),
                    Some(taken) => taken.map(|()| Part::Nodes),
                };
                ("a node", taken.map(next))
            }
            Part::Done => return Ok(Some(0)),
        };
        match taken {
            Ok(Ok(next)) => {
                match self.part {
                    Part::Sessions { .. } => self.counts.sessions += 1,
                    Part::Acls { .. } => self.counts.acls += 1,
                    Part::Nodes if next == Part::Nodes => self.counts.nodes += 1,
                    _ => {}
                }
                self.part = next;
                self.offset_bytes += reader.offset() as u64;
                Ok(Some(reader.offset()))
            }
            Ok(Err(reason)) => Err(StreamError::Refused { offset_bytes, part, reason }),
            Err(JuteError::Truncated { offset, wanted, .. }) => {
                let item_bytes = offset.saturating_add(wanted);
                let item_bytes_max = self.item_bytes_max;
                if item_bytes > item_bytes_max {
                    return Err(StreamError::TooLong { offset_bytes, part, item_bytes, item_bytes_max });
                }
                Ok(None)
            }
            Err(error) => Err(StreamError::Malformed { offset_bytes, part, error }),
        }
    }
}

impl Part {
    fn sessions(left: u32) -> Part {
        if left == 0 { Part::AclCount } else { Part::Sessions { left } }
    }

    fn acls(left: u32) -> Part {
        if left == 0 { Part::Nodes } else { Part::Acls { left } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::{put_buffer, put_i32, put_i64, put_string};
    use crate::proto::acl::{OPEN_UNSAFE, READ_UNSAFE};
    use crate::proto::{Acl, StatPersisted};
    use crate::snapshot::ACL_OPEN;
    use crate::stdx::rng::Rng;
    use crate::types::{SessionId, Zxid};

    /// A line for everything taken.
    #[derive(Default)]
    struct Lines {
        lines: Vec<String>,
        refuses: Option<&'static str>,
    }

    impl LoadSink for Lines {
        fn reset(&mut self) {
            self.lines.clear();
        }

        fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
            self.lines.push(format!("session {session} {timeout_ms}"));
            Ok(())
        }

        fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
            self.lines.push(format!("acl {id} {:?}", acl.map(|acl| acl.bytes().to_vec())));
            Ok(())
        }

        fn node(
            &mut self,
            path: &str,
            data: Option<&[u8]>,
            acl: i64,
            stat: &StatPersisted,
        ) -> Result<(), String> {
            if self.refuses == Some(path) {
                return Err(format!("no {path} here"));
            }
            self.lines.push(format!("node {path} {data:?} {acl} {stat:?}"));
            Ok(())
        }
    }

    fn put_node(out: &mut Vec<u8>, path: &str, data: Option<&[u8]>, acl: i64) {
        put_string(out, path);
        put_buffer(out, data);
        put_i64(out, acl);
        StatPersisted { czxid: Zxid(3), version: 4, ..StatPersisted::default() }.encode(out);
    }

    fn body(sessions: i32, large_bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        put_i32(&mut out, sessions);
        for session in 0..sessions {
            put_i64(&mut out, i64::from(session));
            put_i32(&mut out, 30_000);
        }
        put_i32(&mut out, 2);
        for (id, list) in [(1, READ_UNSAFE), (5, OPEN_UNSAFE)] {
            put_i64(&mut out, id);
            out.extend_from_slice(list);
        }
        put_node(&mut out, "", Some(b""), ACL_OPEN);
        put_node(&mut out, "/a", None, 1);
        put_node(&mut out, "/a/b", Some(&vec![9; large_bytes]), 5);
        put_node(&mut out, "/\u{4e16}", Some(b"x"), ACL_OPEN);
        put_string(&mut out, "/");
        out
    }

    fn read(body: &[u8], piece_bytes: impl FnMut() -> usize) -> Result<(Vec<String>, Taken), StreamError> {
        let mut piece_bytes = piece_bytes;
        let (mut reader, mut sink) = (BodyReader::new(20_000), Lines::default());
        let mut taken = Taken { bytes: 0, is_done: false };
        let mut at = 0;
        while at < body.len() && !taken.is_done {
            let end = body.len().min(at + piece_bytes());
            taken = reader.take(&body[at..end], &mut sink)?;
            assert!(taken.is_done || taken.bytes == end - at);
            at += taken.bytes;
        }
        Ok((sink.lines, Taken { bytes: at, ..taken }))
    }

    /// However a body is cut, the same items come out of it and the bytes behind it are left.
    #[test]
    fn where_the_pieces_are_cut_does_not_matter() {
        for (sessions, large_bytes) in [(0, 0), (3, 200), (2, 19_000)] {
            let mut bytes = body(sessions, large_bytes);
            let length = bytes.len();
            bytes.extend_from_slice(b"behind");
            let whole = read(&bytes, || usize::MAX / 2).unwrap();
            assert_eq!(whole.1, Taken { bytes: length, is_done: true });
            assert_eq!(whole.0.len(), sessions as usize + 2 + 4);
            for piece_bytes in [1, 2, 3, 7, 100, 4096] {
                assert_eq!(read(&bytes, || piece_bytes).unwrap(), whole, "pieces of {piece_bytes}");
            }
            let mut rng = Rng::new(3);
            for _ in 0..50 {
                assert_eq!(read(&bytes, || 1 + rng.below(60) as usize).unwrap(), whole);
            }
        }
    }

    #[test]
    fn a_body_that_ends_early_is_not_done() {
        let bytes = body(2, 100);
        for length in 0..bytes.len() {
            let (_, taken) = read(&bytes[..length], || 64).unwrap();
            assert_eq!(taken, Taken { bytes: length, is_done: false });
        }
    }

    #[test]
    fn what_is_too_long_or_refused_ends_it() {
        let error = read(&body(0, 30_000), || 10).unwrap_err();
        assert!(matches!(error, StreamError::TooLong { part: "a node", item_bytes: 30_012, .. }), "{error}");
        let mut sink = Lines { refuses: Some("/a"), ..Lines::default() };
        let error = BodyReader::new(1000).take(&body(1, 1), &mut sink).unwrap_err();
        assert!(matches!(error, StreamError::Refused { part: "a node", .. }), "{error}");
        let mut negative = vec![0; 8];
        negative.extend((-7i32).to_be_bytes());
        let error = BodyReader::new(1000).take(&negative, &mut Lines::default()).unwrap_err();
        assert!(matches!(error, StreamError::Malformed { offset_bytes: 8, .. }), "{error}");
    }

    /// Method: seeded damage anywhere; an error, or an end, but no panic and no more held than the bound allows.
    #[test]
    fn damage_never_panics() {
        let sound = body(3, 200);
        let mut rng = Rng::new(11);
        for _ in 0..20_000 {
            let mut bytes = sound.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.next_u64() as u8;
            }
            let _ = read(&bytes, || 1 + rng.below(90) as usize);
        }
    }
}
