//! An exact image of one zxid, taken in slices while writes go on.
//!
//! A bit per slot says whether its node has been written. Steps walk the slots and write what is not; a change to a node
//! that has not been written writes it first, as it still is, into a buffer that the next step hands out. A node made after
//! the beginning counts as written. So what comes out is the tree as it was at the beginning, each node once, and, since every
//! node takes its unwritten ancestors along, parents before their children, as ZooKeeper's loader wants them.
//!
//! A node is `ustring path` (the root's is empty), `buffer data`, `long ACL` (-1: open) and the stored stat.
//! Source: ZooKeeper `DataTree#serializeNode`, `DataNode#serialize`.

use super::view::View;
use super::{AclId, NodeId};
use crate::jute::{put_i64, put_string};
use crate::types::Zxid;

/// Slots looked at for each node that a step may write, lest a sparse tree makes long steps.
const SLOTS_PER_NODE: usize = 16;

pub(super) struct Snapshot {
    pub zxid: Zxid,
    /// A bit for each slot there was at the beginning: its node is written, or was made later.
    written: Vec<u64>,
    /// The slot to look at next.
    next: u32,
    slot_count: u32,
    /// Nodes written because they were about to change.
    pending: Vec<u8>,
    ancestors: Vec<NodeId>,
    path: String,
}

impl Snapshot {
    pub fn new(zxid: Zxid, slot_count: u32) -> Snapshot {
        Snapshot {
            zxid,
            written: vec![0; (slot_count as usize).div_ceil(64)],
            next: NodeId::ROOT.slot(),
            slot_count,
            pending: Vec::new(),
            ancestors: Vec::new(),
            path: String::new(),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.written.len() * 8 + self.pending.capacity()
    }

    /// `n` has been made just now.
    pub fn created(&mut self, n: NodeId) {
        if n.slot() < self.slot_count {
            self.mark(n);
        }
    }

    /// `n` is about to change or to go.
    pub fn before_change(&mut self, view: View<'_>, n: NodeId) {
        let mut pending = std::mem::take(&mut self.pending);
        self.write(view, n, &mut pending);
        self.pending = pending;
    }

    /// Appends what changes have left, and up to about `nodes_max` nodes more. True once all nodes have been handed out.
    pub fn step(&mut self, view: View<'_>, nodes_max: usize, out: &mut Vec<u8>) -> bool {
        out.append(&mut self.pending);
        let (mut nodes, mut slots) = (0, 0);
        while self.next < self.slot_count
            && nodes < nodes_max
            && slots < nodes_max.saturating_mul(SLOTS_PER_NODE)
        {
            let n = NodeId::from_slot(self.next).expect("the walk begins at the root");
            if view.is_live(n) {
                nodes += self.write(view, n, out);
            }
            self.next += 1;
            slots += 1;
        }
        self.next == self.slot_count
    }

    /// Writes a node, unless it was written, behind those of its ancestors that were not. Returns how many those are.
    fn write(&mut self, view: View<'_>, n: NodeId, out: &mut Vec<u8>) -> usize {
        self.ancestors.clear();
        let mut next = Some(n);
        while let Some(n) = next.filter(|&n| !self.is_written(n)) {
            self.ancestors.push(n);
            next = view.parent(n);
        }
        let count = self.ancestors.len();
        while let Some(n) = self.ancestors.pop() {
            self.mark(n);
            self.path.clear();
            view.append_path(n, &mut self.path);
            put_string(out, &self.path);
            out.extend_from_slice(view.data_wire(n));
            let acl = view.acl(n);
            put_i64(out, if acl == AclId::OPEN { -1 } else { i64::from(acl.0) });
            view.stat(n).encode(out);
        }
        count
    }

    fn is_written(&self, n: NodeId) -> bool {
        let slot = n.slot();
        self.slot_count <= slot || self.written[slot as usize / 64] & (1 << (slot % 64)) != 0
    }

    fn mark(&mut self, n: NodeId) {
        self.written[n.slot() as usize / 64] |= 1 << (n.slot() % 64);
    }
}
