//! The writer's hold on the memory readers share: what it takes, what it gives back, and when that may be used again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::arena::{Arena, Blocks, NO_BLOCK, Spent};
use super::header::{Family, Header, needs_family};
use super::publish::{Pins, Publication, Quiescence, READERS_MAX};
use super::view::View;
use crate::proto::StatPersisted;
use crate::stdx::hash::KeyedHash;
use crate::stdx::sync::Padded;

/// Things taken out of the limbo in one turn at least; a longer limbo is emptied by a sixteenth a turn.
const RECLAIM_STEP: usize = 4096;

/// Room the limbo keeps when it is empty.
const LIMBO_KEPT: usize = 65_536;

/// What the writer and all readers see.
pub(super) struct Shared {
    pub arena: Arena,
    /// The index table, and the one it is being copied to.
    index: AtomicU32,
    index_next: AtomicU32,
    pub hash: KeyedHash,
    pub quiescence: Quiescence,
    pub pins: Pins,
    /// Changes all the time, the fields above hardly ever.
    pub publication: Padded<Publication>,
}

impl Shared {
    /// The tables to look in, in this order: the first may be `NO_BLOCK`.
    ///
    /// The new one is read first. If it was not there yet, every entry then was in the old one, where it stays until that is
    /// dropped, and then the old one read here is already its successor.
    #[inline]
    pub fn index(&self) -> (u32, u32) {
        let next = self.index_next.load(Ordering::Acquire);
        (next, self.index.load(Ordering::Acquire))
    }
}

enum Freed {
    Slot(u32),
    Block(Spent),
    Acl(u32),
}

pub(super) struct Store {
    shared: Arc<Shared>,
    blocks: Blocks,
    /// Unlinked in the epoch beside it, which never falls along the queue. Its length is what readers leave it: one that
    /// neither sleeps nor declares a quiet point keeps everything.
    limbo: VecDeque<(u64, Freed)>,
    /// Out of limbo, but pinned by a reader.
    pinned: Vec<Spent>,
    /// ACL ids to be used again.
    acl_ids: Vec<u32>,
}

impl Store {
    pub fn new(hash_seed: u64) -> Store {
        let (arena, blocks) = Blocks::new();
        let shared = Arc::new(Shared {
            arena,
            index: AtomicU32::new(NO_BLOCK),
            index_next: AtomicU32::new(NO_BLOCK),
            publication: Padded(Publication::new()),
            quiescence: Quiescence::new(READERS_MAX),
            pins: Pins::new(READERS_MAX),
            hash: KeyedHash::new(hash_seed),
        });
        Store { shared, blocks, limbo: VecDeque::new(), pinned: Vec::new(), acl_ids: Vec::new() }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn header(&self, slot: u32) -> &Header {
        self.shared.arena.header(slot)
    }

    pub fn family(&self, slot: u32) -> Option<&Family> {
        self.view().family(self.header(slot))
    }

    /// The family of a node, which gets one if it has none.
    pub fn make_family(&mut self, slot: u32) -> &Family {
        if self.header(slot).family() == NO_BLOCK {
            let stat = self.header(slot).stat(None);
            let block = self.blocks.family(&self.shared.arena);
            // First complete, then linked: a reader may be looking.
            self.header(slot).set_stat(Some(self.view().family_at(block)), &stat);
            self.header(slot).set_family(block);
        }
        self.family(slot).expect("it was just made sure")
    }

    pub fn set_stat(&mut self, slot: u32, stat: &StatPersisted) {
        if needs_family(stat) {
            self.make_family(slot);
        }
        self.header(slot).set_stat(self.family(slot), stat);
    }

    pub fn mapped_bytes(&self) -> usize {
        self.blocks.mapped_bytes() + self.limbo.capacity() * size_of::<(u64, Freed)>()
    }

    /// All slots in use lie below.
    pub fn slot_count(&self) -> u32 {
        self.blocks.slot_count()
    }

    pub fn slot(&mut self) -> u32 {
        self.blocks.slot(&self.shared.arena)
    }

    pub fn payload(&mut self, name: &str, data: Option<&[u8]>) -> u32 {
        self.blocks.payload(&self.shared.arena, name, data)
    }

    /// A payload with the name that `block` has.
    pub fn payload_like(&mut self, block: u32, data: Option<&[u8]>) -> u32 {
        let Store { shared, blocks, .. } = self;
        // The name is lent by a view that ends before any block can be given back: only `reclaim` does that.
        let name = View::of_shared(shared).payload(block).name;
        blocks.payload(&shared.arena, name, data)
    }

    pub fn words(&mut self, count: usize) -> u32 {
        self.blocks.words(&self.shared.arena, count)
    }

    pub fn table(&mut self, count: usize) -> u32 {
        self.blocks.table(&self.shared.arena, count)
    }

    pub fn publish_index(&mut self, current: u32, next: u32) {
        // In this order, see `Shared::index`.
        self.shared.index.store(current, Ordering::Release);
        self.shared.index_next.store(next, Ordering::Release);
    }

    /// Takes an ACL id that was used before.
    pub fn used_acl_id(&mut self) -> Option<u32> {
        self.acl_ids.pop()
    }

    pub fn set_acl_block(&mut self, id: u32, block: u32) {
        self.blocks.set_acl_block(&self.shared.arena, id, block);
    }

    /// Gives a slot back, once no reader can be looking at it. Its links are cut already.
    pub fn retire_slot(&mut self, slot: u32) {
        self.retire(Freed::Slot(slot));
    }

    pub fn retire_payload(&mut self, block: u32) {
        let payload = self.view().payload(block);
        let spent = self.blocks.spent_payload(block, payload);
        self.retire(Freed::Block(spent));
    }

    pub fn retire_words(&mut self, block: u32, count: usize) {
        self.retire(Freed::Block(self.blocks.spent_words(block, count)));
    }

    pub fn retire_family(&mut self, block: u32) {
        self.retire(Freed::Block(self.blocks.spent_family(block)));
    }

    pub fn retire_table(&mut self, block: u32) {
        self.retire(Freed::Block(self.blocks.spent_table(block)));
    }

    pub fn retire_acl_id(&mut self, id: u32) {
        self.retire(Freed::Acl(id));
    }

    fn retire(&mut self, freed: Freed) {
        self.limbo.push_back((self.shared.quiescence.epoch(), freed));
    }

    /// Things waiting for readers.
    pub fn limbo_count(&self) -> usize {
        self.limbo.len() + self.pinned.len()
    }

    /// Makes what every reader has passed usable again.
    pub fn reclaim(&mut self) {
        if self.limbo.is_empty() && self.pinned.is_empty() {
            return;
        }
        let Store { shared, blocks, limbo, pinned, acl_ids } = self;
        let passed = shared.quiescence.advance();
        let places = shared.quiescence.claimed();
        let is_pinned = |spent: Spent| spent.is_large() && shared.pins.is_pinned(spent.block, places);
        pinned.retain(|&spent| {
            let stays = is_pinned(spent);
            if !stays {
                blocks.give(&shared.arena, spent);
            }
            stays
        });
        for _ in 0..RECLAIM_STEP.max(limbo.len() / 16) {
            match limbo.front() {
                Some(&(epoch, _)) if epoch < passed => {}
                _ => break,
            }
            match limbo.pop_front().expect("the front was just seen").1 {
                Freed::Slot(slot) => blocks.give_slot(&shared.arena, slot),
                Freed::Block(spent) if is_pinned(spent) => pinned.push(spent),
                Freed::Block(spent) => blocks.give(&shared.arena, spent),
                Freed::Acl(id) => acl_ids.push(id),
            }
        }
        if limbo.is_empty() && LIMBO_KEPT < limbo.capacity() {
            limbo.shrink_to(LIMBO_KEPT);
        }
    }
}
