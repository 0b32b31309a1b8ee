//! Values with stable `u32` numbers, in blocks.
//!
//! Unlike a `Vec` that doubles, growing copies nothing and wastes at most one block, so a table of a million
//! entries has neither a pause nor a half-empty half. Numbers are reused, the latest freed first: the same calls give
//! the same numbers. When the last value goes, all blocks go.

use std::ops::{Index, IndexMut};

/// Values in one block.
const BLOCK_LEN: usize = 256;
/// "No further free slot". Also the bound on the number of values.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub struct Slab<T> {
    /// All but the last are full to [`BLOCK_LEN`]; none ever grows beyond.
    blocks: Vec<Vec<Slot<T>>>,
    /// Head of the list through the free slots.
    free: u32,
    len: usize,
}

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    Free { next: u32 },
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { blocks: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    pub fn new() -> Slab<T> {
        Slab::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Panics when 2^32 - 1 values are held.
    pub fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let number = self.free;
            let slot = self.slot_mut(number).expect("the free list stays inside the slab");
            let Slot::Free { next } = *slot else { panic!("slot {number} is on the free list and used") };
            *slot = Slot::Used(value);
            self.free = next;
            return number;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK_LEN) {
            self.blocks.push(Vec::with_capacity(BLOCK_LEN));
        }
        let block_index = self.blocks.len() - 1;
        let block = &mut self.blocks[block_index];
        let number = u32::try_from(block_index * BLOCK_LEN + block.len()).expect("fewer than 2^32 values");
        assert!(number != NONE, "the slab is full");
        block.push(Slot::Used(value));
        number
    }

    /// Panics if there is no such value.
    pub fn remove(&mut self, number: u32) -> T {
        let next = self.free;
        let slot = self.slot_mut(number).expect("a number the slab gave");
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free { next }) else {
            panic!("slot {number} is free already");
        };
        self.free = number;
        self.len -= 1;
        if self.len == 0 {
            *self = Slab::default();
        }
        value
    }

    pub fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        match self.blocks.get(number / BLOCK_LEN)?.get(number % BLOCK_LEN)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        match self.slot_mut(number)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.blocks.iter().flatten().enumerate().filter_map(|(number, slot)| match slot {
            Slot::Used(value) => Some((number as u32, value)),
            Slot::Free { .. } => None,
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.blocks.iter_mut().flatten().enumerate().filter_map(|(number, slot)| match slot {
            Slot::Used(value) => Some((number as u32, value)),
            Slot::Free { .. } => None,
        })
    }

    /// Bytes of the slab itself, without what the values own.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.len() * BLOCK_LEN * size_of::<Slot<T>>()
            + self.blocks.capacity() * size_of::<Vec<Slot<T>>>()
    }

    #[inline]
    fn slot_mut(&mut self, number: u32) -> Option<&mut Slot<T>> {
        let number = number as usize;
        self.blocks.get_mut(number / BLOCK_LEN)?.get_mut(number % BLOCK_LEN)
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        self.get(number).expect("a number the slab gave")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.get_mut(number).expect("a number the slab gave")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_reused_latest_first() {
        let mut slab = Slab::new();
        let numbers: Vec<u32> = (0..1000).map(|value| slab.insert(value)).collect();
        assert_eq!(numbers, (0..1000).collect::<Vec<u32>>());
        assert_eq!(slab.remove(300), 300);
        assert_eq!(slab.remove(7), 7);
        assert_eq!(slab.get(7), None);
        assert_eq!(slab.get(5000), None);
        assert_eq!(slab.iter().count(), 998);
        assert_eq!(slab.insert(70), 7);
        assert_eq!(slab.insert(71), 300);
        assert_eq!(slab.insert(72), 1000);
        assert_eq!((slab[7], slab[300], slab[999], slab.len()), (70, 71, 999, 1001));
        slab[999] += 1;
        assert_eq!(slab[999], 1000);
    }

    #[test]
    fn an_emptied_slab_holds_no_memory() {
        let mut slab = Slab::new();
        for value in 0..600 {
            slab.insert(value);
        }
        assert!(slab.memory_bytes() >= 600 * size_of::<i32>());
        for number in (0..600).rev() {
            slab.remove(number);
        }
        assert!(slab.is_empty());
        assert_eq!(slab.memory_bytes(), 0);
        assert_eq!(slab.insert(1), 0);
    }
}
