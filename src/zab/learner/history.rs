//! The order of proposals and commits: each follows the one before, and the oldest open one is committed first.

use std::collections::VecDeque;

use crate::txnlog::follows;
use crate::types::Zxid;
use crate::zab::learner::Fault;

/// Proposals that may be open at once. A leader lets its servers have a thousand or so. Source: ZooKeeper `globalOutstandingLimit`.
const OPEN_MAX: usize = 1 << 20;

/// Watermarks of what one leader has said.
#[derive(Debug)]
pub(super) struct History {
    /// Up to here the history was there before the first proposal.
    base: Zxid,
    proposed: Zxid,
    committed: Zxid,
    /// Proposed and not committed, ascending.
    open: VecDeque<Zxid>,
}

impl History {
    pub(super) fn after(base: Zxid) -> History {
        History { base, proposed: base, committed: base, open: VecDeque::new() }
    }

    pub(super) fn base(&self) -> Zxid {
        self.base
    }

    pub(super) fn committed(&self) -> Zxid {
        self.committed
    }

    pub(super) fn propose(&mut self, zxid: Zxid) -> Result<(), Fault> {
        if !follows(self.proposed, zxid) {
            return Err(Fault::Gap { zxid_before: self.proposed, zxid });
        }
        if self.open.len() == OPEN_MAX {
            return Err(Fault::TooManyOpen { count_max: OPEN_MAX });
        }
        self.proposed = zxid;
        self.open.push_back(zxid);
        Ok(())
    }

    /// Whether that is news; what is up to the base is not.
    pub(super) fn commit(&mut self, zxid: Zxid) -> Result<bool, Fault> {
        if zxid <= self.base {
            return Ok(false);
        }
        let expected = self.open.front().copied();
        if expected != Some(zxid) {
            return Err(Fault::CommitOrder { zxid, expected });
        }
        self.open.pop_front();
        self.committed = zxid;
        Ok(true)
    }
}
