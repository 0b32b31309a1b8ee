//! The newest log entries in memory, from which learners that are a little behind are brought up to date.
//!
//! The ring outlives roles: a new leader has at once what its followers may lack, and whoever received a snapshot goes on with what
//! follows it (quorum-protocol 9.1 #25). It is contiguous by construction (O5, S3): [`Recent::push`] takes nothing else, and what is
//! not known to be contiguous begins with [`Recent::reset`].

use std::collections::VecDeque;

use bytes::Bytes;

use crate::txnlog::follows;
use crate::types::{Epoch, Zxid};

/// Entries kept in memory for learners that come back. ZooKeeper keeps 500. Source: ZooKeeper `ZKDatabase.commitLogCount`.
pub const ENTRIES_MAX: usize = 65_536;

/// A ring of log entries, bounded by count and by bytes; the oldest go first.
#[derive(Debug)]
pub struct Recent {
    entries: VecDeque<(Zxid, Bytes)>,
    bytes: usize,
    /// The history before the oldest entry ends here.
    before: Zxid,
    count_max: usize,
    bytes_max: usize,
}

impl Recent {
    /// Empty, in a history that begins at zero until [`Recent::reset`] says otherwise.
    pub fn new(count_max: usize, bytes_max: usize) -> Recent {
        Recent { entries: VecDeque::new(), bytes: 0, before: Zxid::ZERO, count_max, bytes_max }
    }

    /// Takes the entry after [`Recent::last`]. Panics if it does not follow it.
    pub fn push(&mut self, zxid: Zxid, entry: Bytes) {
        assert!(follows(self.last(), zxid), "{zxid} does not follow {}", self.last());
        self.bytes += entry.len();
        self.entries.push_back((zxid, entry));
        while self.entries.len() > self.count_max || self.bytes > self.bytes_max {
            let Some((oldest, entry)) = self.entries.pop_front() else { break };
            self.bytes -= entry.len();
            self.before = oldest;
        }
    }

    /// Forgets what lies beyond `zxid`: the history ends there now.
    pub fn truncate(&mut self, zxid: Zxid) {
        while self.entries.back().is_some_and(|&(last, _)| last > zxid) {
            let (_, entry) = self.entries.pop_back().expect("there is a last entry");
            self.bytes -= entry.len();
        }
        self.before = self.before.min(zxid);
    }

    /// Forgets everything: what is pushed from now on follows `zxid`.
    pub fn reset(&mut self, zxid: Zxid) {
        self.entries.clear();
        self.bytes = 0;
        self.before = zxid;
    }

    /// The zxid before the oldest entry held.
    pub fn first_before(&self) -> Zxid {
        self.before
    }

    /// Where the history ends.
    pub fn last(&self) -> Zxid {
        self.entries.back().map_or(self.before, |&(zxid, _)| zxid)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What follows `zxid`; `None` unless `zxid` is an entry held, or the one before the oldest.
    pub fn after(&self, zxid: Zxid) -> Option<impl Iterator<Item = (Zxid, &Bytes)>> {
        let from = self.entries.partition_point(|&(held, _)| held <= zxid);
        (self.before_index(from) == zxid).then(|| self.from(from))
    }

    /// What follows the start of `epoch`, and the zxid before it; `None` where that lies before the oldest entry held.
    ///
    /// A server that took a snapshot when that epoch began, before its first entry, holds exactly the history before it.
    pub fn after_start(&self, epoch: Epoch) -> Option<(Zxid, impl Iterator<Item = (Zxid, &Bytes)>)> {
        let from = self.entries.partition_point(|&(held, _)| held.epoch() < epoch);
        let before = self.before_index(from);
        (before < Zxid::new(epoch, 0)).then(|| (before, self.from(from)))
    }

    /// The zxid in the middle of the ring, or the last one up to `max` before it; `None` where `max` lies before the oldest.
    pub fn middle(&self, max: Zxid) -> Option<Zxid> {
        let held = self.entries.partition_point(|&(held, _)| held <= max);
        let zxid = self.before_index(held.min(self.entries.len() / 2));
        (zxid <= max).then_some(zxid)
    }

    fn before_index(&self, index: usize) -> Zxid {
        if index == 0 { self.before } else { self.entries[index - 1].0 }
    }

    fn from(&self, index: usize) -> impl Iterator<Item = (Zxid, &Bytes)> {
        self.entries.range(index..).map(|(zxid, entry)| (*zxid, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn filled() -> Recent {
        let mut recent = Recent::new(4, 1000);
        for (epoch, counter) in [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1)] {
            recent.push(zxid(epoch, counter), Bytes::from_static(b"0123456789"));
        }
        recent
    }

    fn after(recent: &Recent, zxid: Zxid) -> Option<Vec<Zxid>> {
        recent.after(zxid).map(|entries| entries.map(|(zxid, _)| zxid).collect())
    }

    #[test]
    fn only_exact_members_of_the_history_are_answered() {
        let recent = filled();
        assert_eq!(
            (recent.first_before(), recent.last(), recent.len(), recent.bytes()),
            (zxid(1, 1), zxid(5, 1), 4, 40)
        );
        assert_eq!(after(&recent, zxid(1, 1)), Some(vec![zxid(1, 2), zxid(3, 1), zxid(3, 2), zxid(5, 1)]));
        assert_eq!(after(&recent, zxid(3, 2)), Some(vec![zxid(5, 1)]));
        assert_eq!(after(&recent, zxid(5, 1)), Some(vec![]));
        for not_held in [zxid(0, 0), zxid(1, 0), zxid(1, 3), zxid(2, 1), zxid(3, 0), zxid(5, 2), zxid(6, 0)] {
            assert_eq!(after(&recent, not_held), None, "{not_held}");
        }
    }

    #[test]
    fn the_start_of_an_epoch_is_a_place_in_the_history() {
        let recent = filled();
        let start = |epoch| {
            recent.after_start(Epoch(epoch)).map(|(before, entries)| (before, entries.map(|(z, _)| z).next()))
        };
        assert_eq!(start(1), None);
        assert_eq!(start(2), Some((zxid(1, 2), Some(zxid(3, 1)))));
        assert_eq!(start(3), Some((zxid(1, 2), Some(zxid(3, 1)))));
        assert_eq!(start(6), Some((zxid(5, 1), None)));
    }

    #[test]
    fn bytes_bound_it_and_truncation_and_reset_move_its_ends() {
        let mut recent = Recent::new(100, 25);
        for counter in 1..=5 {
            recent.push(zxid(1, counter), Bytes::from_static(b"0123456789"));
        }
        assert_eq!((recent.len(), recent.first_before()), (2, zxid(1, 3)));
        recent.truncate(zxid(1, 4));
        assert_eq!((recent.last(), recent.bytes()), (zxid(1, 4), 10));
        recent.truncate(zxid(1, 2));
        assert_eq!((recent.first_before(), recent.last(), recent.is_empty()), (zxid(1, 2), zxid(1, 2), true));
        recent.push(zxid(2, 1), Bytes::from_static(b"longer than the bound of the ring"));
        assert_eq!((recent.first_before(), recent.len(), recent.bytes()), (zxid(2, 1), 0, 0));
        recent.reset(zxid(4, 0));
        recent.push(zxid(4, 1), Bytes::new());
        assert_eq!(after(&recent, zxid(4, 0)), Some(vec![zxid(4, 1)]));
    }

    #[test]
    fn the_middle_is_a_place_in_the_history_that_stays_for_a_while() {
        let recent = filled();
        assert_eq!(recent.middle(zxid(5, 1)), Some(zxid(3, 1)));
        assert_eq!(recent.middle(zxid(3, 0)), Some(zxid(1, 2)));
        assert_eq!(recent.middle(zxid(1, 1)), Some(zxid(1, 1)));
        assert_eq!(recent.middle(zxid(1, 0)), None);
    }

    #[test]
    #[should_panic(expected = "does not follow")]
    fn a_gap_is_refused() {
        filled().push(zxid(5, 3), Bytes::new());
    }
}
