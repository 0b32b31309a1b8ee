//! Rounds that prove that a quorum still follows us, so that `sync` is not answered from the past (P6).
//!
//! A round begins with a ping to every follower; an answer to a ping that left after the round began shows that its sender followed us
//! then. Everything that asks while a round is under way waits for the next, which begins when that one has ended: what asks
//! together shares a round, and there are at most two to keep.
//!
//! The commit of anything proposed after the question proves it as well, since a quorum has acknowledged that. So a `SYNC` never
//! comes behind the commit of a later proposal: learners match both with what their clients asked, in order.

use std::collections::VecDeque;

use crate::types::Zxid;
use crate::zab::PeerConn;

/// What [`Leader::prove`](super::Leader::prove) gave out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProofId(pub u64);

/// A learner's `sync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sync {
    conn: PeerConn,
    /// What was proposed when it came has to be committed first.
    after: Zxid,
    round: u64,
}

#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// What asks now waits for this round.
    next: u64,
    /// All before are proven.
    proven: u64,
    /// The ping number before the first that counts for the round under way, which is `next - 1`.
    begun_at: Option<u64>,
    /// Somebody waits for `next`.
    wanted: bool,
    ids_given: u64,
    /// With the round, and what was proposed when it was asked.
    waiting: VecDeque<(ProofId, u64, Zxid)>,
    syncs: VecDeque<Sync>,
}

impl Proofs {
    /// `after` is the last zxid proposed.
    pub fn prove(&mut self, after: Zxid) -> ProofId {
        self.ids_given += 1;
        let id = ProofId(self.ids_given);
        self.wanted = true;
        self.waiting.push_back((id, self.next, after));
        id
    }

    /// How many syncs wait now.
    pub fn sync(&mut self, conn: PeerConn, after: Zxid) -> usize {
        self.wanted = true;
        self.syncs.push_back(Sync { conn, after, round: self.next });
        self.syncs.len()
    }

    /// Forgets the syncs of a connection that has ended.
    pub fn forget(&mut self, conn: PeerConn) {
        self.syncs.retain(|sync| sync.conn != conn);
    }

    /// Whether a round is to begin.
    pub fn is_due(&self) -> bool {
        self.wanted && self.begun_at.is_none()
    }

    /// A round begins: pings with numbers above `ping` count for it.
    pub fn begin(&mut self, ping: u64) {
        assert!(self.is_due(), "one round at a time");
        self.begun_at = Some(ping);
        self.next += 1;
        self.wanted = false;
    }

    /// Answers to pings above this number confirm the round under way.
    pub fn begun_at(&self) -> Option<u64> {
        self.begun_at
    }

    /// A quorum has confirmed the round under way.
    pub fn proven(&mut self) {
        assert!(self.begun_at.take().is_some(), "a round is under way");
        self.proven = self.next;
    }

    /// The next of those that [`Proofs::prove`] gave and that is proven.
    pub fn pop_proved(&mut self) -> Option<ProofId> {
        let &(id, round, _) = self.waiting.front()?;
        (round < self.proven).then(|| {
            self.waiting.pop_front();
            id
        })
    }

    /// The same, as everything before `zxid` is committed and a quorum has acknowledged `zxid`.
    pub fn pop_proved_before(&mut self, zxid: Zxid) -> Option<ProofId> {
        let &(id, _, after) = self.waiting.front()?;
        (after < zxid).then(|| {
            self.waiting.pop_front();
            id
        })
    }

    /// The next learner to be sent a `SYNC` before the commit of `zxid`, which a quorum has acknowledged.
    pub fn pop_sync_before(&mut self, zxid: Zxid) -> Option<PeerConn> {
        let is_due = self.syncs.front().is_some_and(|sync| sync.after < zxid);
        if is_due { self.syncs.pop_front().map(|sync| sync.conn) } else { None }
    }

    /// The next learner to be sent a `SYNC`.
    pub fn pop_sync(&mut self, committed: Zxid) -> Option<PeerConn> {
        let sync = self.syncs.front()?;
        if sync.round >= self.proven || sync.after > committed {
            return None;
        }
        self.syncs.pop_front().map(|sync| sync.conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_during_a_round_waits_for_the_next() {
        let mut proofs = Proofs::default();
        assert!(!proofs.is_due());
        let first = proofs.prove(Zxid(5));
        proofs.sync(PeerConn(1), Zxid(5));
        proofs.begin(10);
        let late = proofs.prove(Zxid(5));
        assert!(!proofs.is_due());
        assert_eq!(proofs.pop_proved(), None);
        proofs.proven();
        assert_eq!((proofs.pop_proved(), proofs.pop_proved()), (Some(first), None));
        assert_eq!(proofs.pop_sync(Zxid(4)), None);
        assert_eq!((proofs.pop_sync(Zxid(5)), proofs.pop_sync(Zxid(5))), (Some(PeerConn(1)), None));
        assert!(proofs.is_due());
        proofs.begin(11);
        proofs.proven();
        assert_eq!(proofs.pop_proved(), Some(late));
        assert!(!proofs.is_due());
    }

    #[test]
    fn a_quorum_that_acknowledges_a_later_proposal_proves_all_that_was_asked_before() {
        let mut proofs = Proofs::default();
        let id = proofs.prove(Zxid(5));
        proofs.sync(PeerConn(1), Zxid(5));
        proofs.sync(PeerConn(2), Zxid(6));
        assert_eq!((proofs.pop_proved_before(Zxid(5)), proofs.pop_sync_before(Zxid(5))), (None, None));
        assert_eq!(proofs.pop_proved_before(Zxid(6)), Some(id));
        assert_eq!(proofs.pop_sync_before(Zxid(6)), Some(PeerConn(1)));
        assert_eq!(proofs.pop_sync_before(Zxid(6)), None);
    }

    #[test]
    fn syncs_of_a_lost_connection_are_forgotten_and_those_of_others_keep_their_order() {
        let mut proofs = Proofs::default();
        for (conn, after) in [(1, 1), (2, 3), (1, 2)] {
            proofs.sync(PeerConn(conn), Zxid(after));
        }
        proofs.begin(0);
        proofs.proven();
        proofs.forget(PeerConn(2));
        assert_eq!(
            (proofs.pop_sync(Zxid(9)), proofs.pop_sync(Zxid(9))),
            (Some(PeerConn(1)), Some(PeerConn(1)))
        );
        assert_eq!(proofs.pop_sync(Zxid(9)), None);
    }
}
