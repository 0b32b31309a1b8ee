//! How a learner is brought to the leader's history.
//!
//! A difference only where the learner's last zxid is exactly in our history and everything after it is at hand; a snapshot otherwise,
//! never a truncation: learners of Apache ZooKeeper do not truncate reliably (quorum-protocol 9.1 #2, #3, #17).

use bytes::Bytes;

use crate::types::{Epoch, Zxid};
use crate::zab::recent::Recent;

/// How to bring one learner up to date.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SyncMode {
    /// It holds our history up to `from` and lacks these.
    Diff {
        from: Zxid,
        entries: Vec<(Zxid, Bytes)>,
    },
    Snapshot,
}

/// Decides for a learner whose history ends at `learner`; ours ends at `last`, in the epoch `current`.
///
/// A difference of more than `bytes_max` is a snapshot as well. A learner at zero gets a snapshot even where the difference is at
/// hand: it may be one that distrusts what it holds (quorum-protocol 10.1), and an empty one is no worse off. Below zero it has no
/// history at all.
pub(super) fn decide(
    recent: &Recent,
    learner: Zxid,
    last: Zxid,
    current: Epoch,
    bytes_max: usize,
) -> SyncMode {
    if learner <= Zxid::ZERO && learner != last {
        return SyncMode::Snapshot;
    }
    match entries_after(recent, learner, last, current, bytes_max) {
        Some((from, entries)) => SyncMode::Diff { from, entries },
        None => SyncMode::Snapshot,
    }
}

/// Our history after `zxid`, and where exactly `zxid` lies in it; `None` where it is not in it, or not all at hand, or more than
/// `bytes_max`.
pub(super) fn entries_after(
    recent: &Recent,
    zxid: Zxid,
    last: Zxid,
    current: Epoch,
    bytes_max: usize,
) -> Option<(Zxid, Vec<(Zxid, Bytes)>)> {
    if zxid == last {
        return Some((last, Vec::new()));
    }
    if let Some(entries) = recent.after(zxid) {
        return Some((zxid, collect(entries, last, bytes_max)?));
    }
    if zxid.counter() != 0 || zxid.epoch() > current {
        return None;
    }
    // A snapshot taken when that epoch began, as leaders of Apache ZooKeeper number it.
    let (before, entries) = recent.after_start(zxid.epoch())?;
    Some((before, collect(entries, last, bytes_max)?))
}

/// Our history after `zxid`, from a part of the log, `read` behind `after`, and what is in memory; `None` where `zxid` is not in that part,
/// or it does not reach what is in memory, or all of it is more than `bytes_max`.
pub(super) fn join(
    after: Zxid,
    read: &[(Zxid, Bytes)],
    recent: &Recent,
    zxid: Zxid,
    last: Zxid,
    bytes_max: usize,
) -> Option<Vec<(Zxid, Bytes)>> {
    let (read_last, _) = read.last()?;
    let from = read.partition_point(|&(held, _)| held <= zxid);
    let before = if from == 0 { after } else { read[from - 1].0 };
    let later = recent.after(*read_last)?;
    if before != zxid || *read_last > last {
        return None;
    }
    collect(read[from..].iter().map(|(zxid, entry)| (*zxid, entry)).chain(later), last, bytes_max)
}

/// Entries up to `last`; `None` where they are more than `bytes_max` bytes.
fn collect<'a>(
    entries: impl Iterator<Item = (Zxid, &'a Bytes)>,
    last: Zxid,
    bytes_max: usize,
) -> Option<Vec<(Zxid, Bytes)>> {
    let mut bytes = 0;
    let mut held = Vec::new();
    for (zxid, entry) in entries.take_while(|&(zxid, _)| zxid <= last) {
        bytes += super::held_bytes(entry);
        if bytes > bytes_max {
            return None;
        }
        held.push((zxid, entry.clone()));
    }
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    #[test]
    fn a_difference_only_from_an_exact_place_in_the_history() {
        let mut recent = Recent::new(4, 1 << 20);
        for (epoch, counter) in [(1, 1), (1, 2), (1, 3), (3, 1), (3, 2)] {
            recent.push(zxid(epoch, counter), Bytes::from_static(b"entry"));
        }
        let mode = |learner| match decide(&recent, learner, zxid(3, 2), Epoch(4), 1 << 20) {
            SyncMode::Diff { from, entries } => Some((from, entries.len())),
            SyncMode::Snapshot => None,
        };
        assert_eq!(mode(zxid(3, 2)), Some((zxid(3, 2), 0)));
        assert_eq!(mode(zxid(1, 3)), Some((zxid(1, 3), 2)));
        assert_eq!(mode(zxid(1, 1)), Some((zxid(1, 1), 4)));
        // Starts of epochs.
        assert_eq!(mode(zxid(2, 0)), Some((zxid(1, 3), 2)));
        assert_eq!(mode(zxid(3, 0)), Some((zxid(1, 3), 2)));
        assert_eq!(mode(zxid(4, 0)), Some((zxid(3, 2), 0)));
        // Too old, divergent, ahead, empty, distrusting.
        for other in
            [zxid(1, 0), zxid(1, 4), zxid(2, 1), zxid(3, 3), zxid(5, 0), zxid(9, 9), Zxid(0), Zxid(-1)]
        {
            assert_eq!(mode(other), None, "{other}");
        }
        assert_eq!(decide(&recent, zxid(1, 1), zxid(3, 2), Epoch(4), 200), SyncMode::Snapshot);
    }

    #[test]
    fn the_first_join_of_empty_servers_is_an_empty_difference() {
        let recent = Recent::new(4, 1 << 20);
        let mode = decide(&recent, Zxid(0), Zxid(0), Epoch(1), 100);
        assert_eq!(mode, SyncMode::Diff { from: Zxid(0), entries: Vec::new() });
        assert_eq!(decide(&recent, Zxid(-1), Zxid(0), Epoch(1), 100), SyncMode::Snapshot);
    }
}
