//! From path to slot: an open-addressed table of `hash (32 bits) | slot (32 bits)`, probed linearly.
//!
//! - The hash decides the home of an entry (`hash * capacity / 2^32`, so entries lie in the order of their hashes) and is all
//!   that moving it needs: growing reads no znode, and walks both tables front to back.
//! - A table grows by a quarter when four fifths are taken, in steps: old and new live side by side, and each creation and each turn moves a few entries.
//!   Entries of the old table stay where they are while it is copied, so a reader that looks in the new table and then in
//!   the old misses nothing.
//! - A hit is verified by the caller, names against path, up to the root.
//!
//! The functions on slices are what readers and the writer share; they know nothing of where tables live.

use std::sync::atomic::{AtomicU64, Ordering};

use super::arena::NO_BLOCK;
use super::store::Store;

const CAPACITY_MIN: usize = 64;
/// Places of the old table copied with each creation. The new table has room for a fifth of the old one's places, so any number
/// above five finishes in time; until it has, every lookup may need both.
const STEP_OF_CREATE: usize = 32;

/// A place whose entry was removed while its table was being copied: probing goes on here, but nothing is found.
const REMOVED: u64 = 1 << 32;

fn entry_of(hash: u32, slot: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(slot)
}

#[inline]
fn home(hash: u32, capacity: usize) -> usize {
    ((u64::from(hash) * capacity as u64) >> 32) as usize
}

#[inline]
fn following(place: usize, capacity: usize) -> usize {
    if place + 1 == capacity { 0 } else { place + 1 }
}

/// The slot under `hash` that `is_it` accepts. Looks at every place once at most, whatever a torn table says.
#[inline]
pub(super) fn find(table: &[AtomicU64], hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
    let mut place = home(hash, table.len());
    for _ in 0..table.len() {
        let entry = table[place].load(Ordering::Acquire);
        if entry == 0 {
            return None;
        }
        let slot = entry as u32;
        if (entry >> 32) as u32 == hash && slot != 0 && is_it(slot) {
            return Some(slot);
        }
        place = following(place, table.len());
    }
    None
}

/// Where the search for `hash` begins, to be prefetched.
#[inline]
pub(super) fn first_place(table: &[AtomicU64], hash: u32) -> *const AtomicU64 {
    &table[home(hash, table.len())]
}

fn insert(table: &[AtomicU64], entry: u64) {
    let mut place = home((entry >> 32) as u32, table.len());
    for _ in 0..table.len() {
        if table[place].load(Ordering::Relaxed) == 0 {
            table[place].store(entry, Ordering::Release);
            return;
        }
        place = following(place, table.len());
    }
    unreachable!("the index keeps a fifth of its places empty");
}

fn place_of(table: &[AtomicU64], entry: u64) -> Option<usize> {
    let mut place = home((entry >> 32) as u32, table.len());
    for _ in 0..table.len() {
        match table[place].load(Ordering::Relaxed) {
            0 => return None,
            found if found == entry => return Some(place),
            _ => place = following(place, table.len()),
        }
    }
    None
}

/// Empties a place and moves later entries up, so that no probe ends too early. Readers may miss an entry meanwhile: only
/// inside a transaction, which they notice.
fn vacate(table: &[AtomicU64], mut empty: usize) {
    let capacity = table.len();
    let distance = |from: usize, to: usize| if from <= to { to - from } else { to + capacity - from };
    let mut place = empty;
    loop {
        place = following(place, capacity);
        let entry = table[place].load(Ordering::Relaxed);
        if entry == 0 {
            break;
        }
        if distance(empty, place) <= distance(home((entry >> 32) as u32, capacity), place) {
            table[empty].store(entry, Ordering::Release);
            empty = place;
        }
    }
    table[empty].store(0, Ordering::Release);
}

/// The writer's side of the index.
pub(super) struct Index {
    count: usize,
    current: u32,
    /// The larger table that `current` is being copied to, or `NO_BLOCK`.
    next: u32,
    /// Places of `current` already copied.
    copied: usize,
}

impl Index {
    pub fn new(store: &mut Store) -> Index {
        let current = store.table(CAPACITY_MIN);
        store.publish_index(current, NO_BLOCK);
        Index { count: 0, current, next: NO_BLOCK, copied: 0 }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds an entry that is not there.
    pub fn insert(&mut self, store: &mut Store, hash: u32, slot: u32) {
        self.step(store, STEP_OF_CREATE);
        let capacity = store.view().table(self.newest()).len();
        if capacity / 5 * 4 <= self.count {
            // The bound on steps says the copy is long over; should it not be, it ends here.
            self.step(store, usize::MAX);
            self.next = store.table(capacity + capacity / 4);
            self.copied = 0;
            store.publish_index(self.current, self.next);
        }
        insert(store.view().table(self.newest()), entry_of(hash, slot));
        self.count += 1;
    }

    /// Removes an entry that is there. Only inside a transaction.
    pub fn remove(&mut self, store: &mut Store, hash: u32, slot: u32) {
        let entry = entry_of(hash, slot);
        let view = store.view();
        let mut found = false;
        if self.next != NO_BLOCK {
            let next = view.table(self.next);
            if let Some(place) = place_of(next, entry) {
                vacate(next, place);
                found = true;
            }
        }
        let current = view.table(self.current);
        if let Some(place) = place_of(current, entry) {
            found = true;
            if self.next == NO_BLOCK {
                vacate(current, place);
            } else {
                // Moving entries up could move them past the copy.
                current[place].store(REMOVED, Ordering::Release);
            }
        }
        assert!(found, "slot {slot} was not in the index under hash {hash:#x}");
        self.count -= 1;
    }

    /// Copies up to `places_max` places of a table that is being replaced.
    pub fn step(&mut self, store: &mut Store, places_max: usize) {
        if self.next == NO_BLOCK {
            return;
        }
        let view = store.view();
        let (current, next) = (view.table(self.current), view.table(self.next));
        let end = self.copied.saturating_add(places_max).min(current.len());
        for place in &current[self.copied..end] {
            let entry = place.load(Ordering::Relaxed);
            if entry as u32 != 0 {
                insert(next, entry);
            }
        }
        self.copied = end;
        if end == current.len() {
            let spent = self.current;
            (self.current, self.next) = (self.next, NO_BLOCK);
            store.publish_index(self.current, NO_BLOCK);
            store.retire_table(spent);
        }
    }

    fn newest(&self) -> u32 {
        if self.next == NO_BLOCK { self.current } else { self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::hash::split_mix;

    /// A small table against a list, with hashes crowded at its end so that probing wraps around.
    #[test]
    fn entries_are_found_until_removed() {
        let table: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
        let mut live: Vec<(u32, u32)> = Vec::new();
        let mut random = 3;
        for slot in 1..if cfg!(miri) { 150 } else { 4000 } {
            if live.len() == 12 || (!live.is_empty() && split_mix(&mut random).is_multiple_of(3)) {
                let (hash, slot) = live.swap_remove(split_mix(&mut random) as usize % live.len());
                vacate(&table, place_of(&table, entry_of(hash, slot)).unwrap());
                assert_eq!(find(&table, hash, |found| found == slot), None);
            } else {
                let hash = u32::MAX - (split_mix(&mut random) as u32 >> 3);
                insert(&table, entry_of(hash, slot));
                live.push((hash, slot));
            }
            for &(hash, slot) in &live {
                assert_eq!(find(&table, hash, |found| found == slot), Some(slot));
            }
            assert_eq!(table.iter().filter(|place| place.load(Ordering::Relaxed) != 0).count(), live.len());
        }
    }

    #[test]
    fn a_full_table_ends_a_search() {
        let table: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(REMOVED)).collect();
        assert_eq!(find(&table, 5, |_| true), None);
        assert_eq!(place_of(&table, entry_of(5, 5)), None);
    }
}
