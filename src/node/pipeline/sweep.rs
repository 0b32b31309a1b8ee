//! Containers nobody uses any more and nodes whose time has passed: looked for in slices, removed by transactions of our own.

use super::{Item, OUTSTANDING_MAX, Pipeline};
use crate::node::link::PipelineLink;
use crate::proto::NodeKind;
use crate::tree::NodeId;
use crate::types::Instant;

/// Candidates the sweep looks at in one turn.
const SWEEP_TURN_MAX: usize = 256;

/// Where the sweep for empty containers and outlived nodes stands.
#[derive(Debug, Default)]
pub struct Sweep {
    /// `None`: no pass under way.
    pub after: Option<Option<NodeId>>,
    pub next: Instant,
    /// Deletions this pass may still make.
    pub budget: u64,
}

impl<L: PipelineLink> Pipeline<L> {
    /// Looks for empty containers and nodes whose time has passed. Source: ZooKeeper `ContainerManager`.
    pub(super) fn sweep(&mut self) {
        if self.now.instant >= self.sweep.next && self.sweep.after.is_none() {
            self.sweep.after = Some(None);
            let per_interval = self.options.sweep_interval.as_secs_f64() / 60.0;
            self.sweep.budget = (self.options.sweep_per_minute_max as f64 * per_interval).ceil() as u64;
            self.sweep.next = self.now.instant + self.options.sweep_interval;
        }
        let Some(after) = self.sweep.after else { return };
        let mut last = None;
        let mut outlived = Vec::new();
        let mut looked = 0;
        for node in self.database.sweepable_after(after).take(SWEEP_TURN_MAX) {
            looked += 1;
            last = Some(node);
            if self.has_outlived(node) {
                outlived.push(self.database.tree.path(node));
            }
        }
        for path in outlived {
            if self.sweep.budget == 0 || self.queue.len() >= OUTSTANDING_MAX {
                break;
            }
            self.scratch.clear();
            if let Some(zxid) =
                self.preparer.sweep(&self.database, &path, self.now.wall_ms, &mut self.scratch)
            {
                self.sweep.budget -= 1;
                let entry = self.log_entry(zxid);
                self.queue.push_back(Item::Own { zxid, entry });
            }
        }
        let done = looked < SWEEP_TURN_MAX || self.sweep.budget == 0;
        self.sweep.after = if done { None } else { Some(last) };
        self.has_more |= !done;
    }

    fn has_outlived(&self, node: NodeId) -> bool {
        let tree = &self.database.tree;
        if tree.child_count(node) > 0 {
            return false;
        }
        let stat = tree.stat(node);
        let age_ms = self.now.wall_ms.saturating_sub(stat.mtime_ms);
        match stat.kind() {
            NodeKind::Container if stat.cversion > 0 => true,
            NodeKind::Container => {
                let never_used_ms = self.options.sweep_never_used_ms;
                never_used_ms > 0 && age_ms > never_used_ms as i64
            }
            NodeKind::Ttl(ttl_ms) => age_ms > ttl_ms,
            NodeKind::Persistent | NodeKind::Ephemeral(_) => false,
        }
    }
}
