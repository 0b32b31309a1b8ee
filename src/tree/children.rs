//! Lists of children: slots, in no order, each child knowing its position.
//!
//! | children   | kept in                                                                  |
//! |------------|--------------------------------------------------------------------------|
//! | 0, 1       | the parent's family (see `header`)                                       |
//! | to 1024    | one chunk of 4, 8, ... 1024 slots                                        |
//! | more       | chunks of 1024, named by a directory of 4, 8, ... chunks                 |
//!
//! Adding the millionth child thus writes one word, or a chunk, or copies a directory of a thousand words. Removing moves the
//! last child into the gap. The word in the family says which form and how large it is, so that a reader which catches the
//! list in the middle of a change still stays inside the block it found.

use std::sync::atomic::Ordering;

use super::store::Store;

/// Slots in a full chunk, as a power of two.
const CHUNK_LOG2_MAX: u8 = if cfg!(any(test, miri)) { 4 } else { 10 };
const CHUNK: usize = 1 << CHUNK_LOG2_MAX;
/// The smallest chunk and directory: 16 bytes.
const LOG2_MIN: u8 = 2;

/// The word in the family: form in bits 40-41, capacity as power of two in bits 32-39, slot or block in the low half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    Empty,
    One(u32),
    Chunk { block: u32, log2: u8 },
    Directory { block: u32, log2: u8 },
}

impl List {
    #[inline]
    pub fn decode(word: u64) -> List {
        let (low, log2) = (word as u32, (word >> 32) as u8);
        match word >> 40 {
            0 => List::Empty,
            1 => List::One(low),
            2 => List::Chunk { block: low, log2 },
            _ => List::Directory { block: low, log2 },
        }
    }

    fn encode(self) -> u64 {
        let word = |form: u64, log2: u8, low: u32| form << 40 | u64::from(log2) << 32 | u64::from(low);
        match self {
            List::Empty => 0,
            List::One(slot) => word(1, 0, slot),
            List::Chunk { block, log2 } => word(2, log2, block),
            List::Directory { block, log2 } => word(3, log2, block),
        }
    }
}

/// Slots a list of this form has room for, in words of its block.
#[inline]
pub(super) fn capacity(log2: u8) -> usize {
    1 << log2
}

/// Which chunk of a directory holds a position, and where in it.
#[inline]
pub(super) fn split(position: usize) -> (usize, usize) {
    (position / CHUNK, position % CHUNK)
}

pub(super) const CHUNK_SLOTS: usize = CHUNK;

/// Appends a child and tells it its position.
pub(super) fn push(store: &mut Store, parent: u32, child: u32) {
    let family = store.make_family(parent);
    let count = family.child_count.load(Ordering::Relaxed) as usize;
    let list = List::decode(family.children());
    let (list, changed) = match list {
        List::Empty => (List::One(child), true),
        List::One(first) => {
            let block = store.words(capacity(LOG2_MIN));
            set_word(store, block, capacity(LOG2_MIN), 0, first);
            set_word(store, block, capacity(LOG2_MIN), 1, child);
            (List::Chunk { block, log2: LOG2_MIN }, true)
        }
        List::Chunk { block, log2 } if count < capacity(log2) => {
            set_word(store, block, capacity(log2), count, child);
            (list, false)
        }
        List::Chunk { block, log2 } if log2 < CHUNK_LOG2_MAX => {
            let larger = resized(store, block, log2, log2 + 1, count);
            set_word(store, larger, capacity(log2 + 1), count, child);
            (List::Chunk { block: larger, log2: log2 + 1 }, true)
        }
        List::Chunk { block, .. } => {
            let (second, directory) = (store.words(CHUNK), store.words(capacity(LOG2_MIN)));
            set_word(store, second, CHUNK, 0, child);
            set_word(store, directory, capacity(LOG2_MIN), 0, block);
            set_word(store, directory, capacity(LOG2_MIN), 1, second);
            (List::Directory { block: directory, log2: LOG2_MIN }, true)
        }
        List::Directory { mut block, mut log2 } => {
            let (chunk_index, within) = split(count);
            let grows = chunk_index == capacity(log2);
            if grows {
                block = resized(store, block, log2, log2 + 1, chunk_index);
                log2 += 1;
            }
            let mut chunk = word(store, block, capacity(log2), chunk_index);
            if chunk == 0 {
                chunk = store.words(CHUNK);
                set_word(store, block, capacity(log2), chunk_index, chunk);
            }
            set_word(store, chunk, CHUNK, within, child);
            (List::Directory { block, log2 }, grows)
        }
    };
    let family = store.make_family(parent);
    if changed {
        family.set_children(list.encode());
    }
    family.child_count.store(count as u32 + 1, Ordering::Relaxed);
    store.header(child).position.store(count as u32, Ordering::Relaxed);
}

/// Takes out the child at `position`; the last child takes its place.
pub(super) fn remove(store: &mut Store, parent: u32, position: usize) {
    let family = store.make_family(parent);
    let count = (family.child_count.load(Ordering::Relaxed) as usize)
        .checked_sub(1)
        .expect("the parent of a node has children");
    assert!(position <= count, "child {position} of {} is removed", count + 1);
    let list = List::decode(family.children());
    let smaller = match list {
        List::Empty => unreachable!("a list of {} children is empty", count + 1),
        List::One(_) => List::Empty,
        List::Chunk { block, log2 } => {
            move_last(store, (block, capacity(log2), position), (block, capacity(log2), count));
            if count == 1 {
                let first = word(store, block, capacity(log2), 0);
                store.retire_words(block, capacity(log2));
                List::One(first)
            } else if LOG2_MIN < log2 && count <= capacity(log2) / 4 {
                List::Chunk { block: resized(store, block, log2, log2 - 1, count), log2: log2 - 1 }
            } else {
                list
            }
        }
        List::Directory { block, log2 } => {
            let ((to_chunk, to), (from_chunk, from)) = (split(position), split(count));
            let to_block = word(store, block, capacity(log2), to_chunk);
            let from_block = word(store, block, capacity(log2), from_chunk);
            move_last(store, (to_block, CHUNK, to), (from_block, CHUNK, from));
            if count <= CHUNK / 2 {
                let first = word(store, block, capacity(log2), 0);
                for index in 1..capacity(log2) {
                    let chunk = word(store, block, capacity(log2), index);
                    if chunk != 0 {
                        store.retire_words(chunk, CHUNK);
                    }
                }
                store.retire_words(block, capacity(log2));
                List::Chunk { block: first, log2: CHUNK_LOG2_MAX }
            } else {
                // An empty chunk is kept until the one before it is half empty, lest a child that comes and goes makes
                // and frees a chunk each time.
                let spare = split(count).0 + 1;
                if split(count).1 == CHUNK / 2 && spare < capacity(log2) {
                    let chunk = word(store, block, capacity(log2), spare);
                    if chunk != 0 {
                        set_word(store, block, capacity(log2), spare, 0);
                        store.retire_words(chunk, CHUNK);
                    }
                }
                list
            }
        }
    };
    let family = store.make_family(parent);
    if smaller != list {
        family.set_children(smaller.encode());
    }
    family.child_count.store(count as u32, Ordering::Relaxed);
}

/// A place: block, its capacity in words, index in it.
type Place = (u32, usize, usize);

fn move_last(store: &mut Store, to: Place, last: Place) {
    if to != last {
        let moved = word(store, last.0, last.1, last.2);
        let position = store.header(word(store, to.0, to.1, to.2)).position.load(Ordering::Relaxed);
        set_word(store, to.0, to.1, to.2, moved);
        store.header(moved).position.store(position, Ordering::Relaxed);
    }
    set_word(store, last.0, last.1, last.2, 0);
}

/// A copy of the first `count` words in a block of another size; the old block is retired.
fn resized(store: &mut Store, block: u32, log2: u8, log2_new: u8, count: usize) -> u32 {
    let copy = store.words(capacity(log2_new));
    for index in 0..count {
        let value = word(store, block, capacity(log2), index);
        set_word(store, copy, capacity(log2_new), index, value);
    }
    store.retire_words(block, capacity(log2));
    copy
}

fn word(store: &Store, block: u32, capacity: usize, index: usize) -> u32 {
    store.view().words(block, capacity)[index].load(Ordering::Relaxed)
}

fn set_word(store: &Store, block: u32, capacity: usize, index: usize, value: u32) {
    store.view().words(block, capacity)[index].store(value, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_survive_their_encoding() {
        let lists = [
            List::Empty,
            List::One(u32::MAX),
            List::Chunk { block: 7, log2: 10 },
            List::Directory { block: u32::MAX, log2: 31 },
        ];
        for list in lists {
            assert_eq!(List::decode(list.encode()), list);
        }
    }
}
