//! How large the transaction that ends each session would be (O13).
//!
//! It names every ephemeral node of the session, and its size is nobody's to refuse when the session's time is up. So it is kept
//! in sight while the nodes are made: all that are proposed count, and what is rolled back does not.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::proto::txn::TxnHeader;
use crate::types::SessionId;

/// Bytes of the transaction beside the paths: header, count of the paths, digest and its version.
const FRAME_BYTES: usize = TxnHeader::BYTES + 4 + 12;

/// Bytes of a path in it: its length and itself.
fn path_bytes(path: &str) -> u64 {
    4 + path.len() as u64
}

/// Bytes of the paths of each session's ephemeral nodes. Sessions without any cost nothing.
#[derive(Debug, Default)]
pub struct ClosingBytes {
    sessions: HashMap<SessionId, u64, FixedState>,
    /// What the request being prepared changed, newest last: the path's bytes, negative where the node goes.
    undo: Vec<(SessionId, i64)>,
}

/// A point to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl ClosingBytes {
    /// Whether the session could still be ended by a transaction of `entry_bytes_max` bytes, were `path` its ephemeral node too.
    pub fn has_room(&self, session: SessionId, path: &str, entry_bytes_max: usize) -> bool {
        self.entry_bytes(session) + path_bytes(path) <= entry_bytes_max as u64
    }

    /// Bytes of the entry that would end the session now.
    pub fn entry_bytes(&self, session: SessionId) -> u64 {
        FRAME_BYTES as u64 + self.sessions.get(&session).copied().unwrap_or(0)
    }

    /// The session gets the ephemeral node.
    pub fn add(&mut self, session: SessionId, path: &str) {
        self.change(session, path_bytes(path) as i64);
        self.undo.push((session, path_bytes(path) as i64));
    }

    /// The node goes.
    pub fn remove(&mut self, session: SessionId, path: &str) {
        self.change(session, -(path_bytes(path) as i64));
        self.undo.push((session, -(path_bytes(path) as i64)));
    }

    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Takes back every change since `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            let (session, by) = self.undo.pop().expect("longer than the mark");
            self.change(session, -by);
        }
    }

    /// The request is proposed: its changes stay.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    fn change(&mut self, session: SessionId, by: i64) {
        match self.sessions.entry(session) {
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = entry.get().checked_add_signed(by).expect("no path goes that never came");
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(u64::try_from(by).expect("no path goes that never came"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_entry_leaves() {
        let (one, two) = (SessionId(1), SessionId(2));
        let mut bytes = ClosingBytes::default();
        let max = FRAME_BYTES + 2 * (4 + 2);
        bytes.add(one, "/a");
        bytes.settle();
        assert!(bytes.has_room(one, "/b", max) && !bytes.has_room(one, "/bc", max));
        let mark = bytes.mark();
        bytes.add(one, "/b");
        bytes.remove(one, "/a");
        bytes.add(two, "/c");
        assert_eq!(bytes.entry_bytes(one), bytes.entry_bytes(two));
        assert!(bytes.has_room(one, "/c", max));
        bytes.add(one, "/c");
        assert!(!bytes.has_room(one, "/d", max));
        bytes.roll_back(mark);
        assert!(bytes.has_room(one, "/b", max));
        assert_eq!(bytes.entry_bytes(two), FRAME_BYTES as u64);
        bytes.remove(one, "/a");
        assert!(bytes.sessions.is_empty());
    }
}
