//! A short list of number pairs: two in place, more on the heap.
//!
//! Most watched paths have one or two watchers and most connections watch a path or two, so the usual list costs
//! nothing beyond its 24 bytes. Longer ones grow by a quarter, not by double: slack is at most a quarter plus four.

/// First number of a place that holds nothing. Never to be stored as one.
const VACANT: u32 = u32::MAX;
const VACANT_PAIR: (u32, u32) = (VACANT, 0);
/// Pairs that fit in place.
const INLINE_LEN: usize = 2;

#[derive(Debug)]
pub(super) enum PairList {
    /// Filled from the front; the rest is vacant.
    Inline([(u32, u32); INLINE_LEN]),
    Heap(Vec<(u32, u32)>),
}

const _: () = assert!(size_of::<PairList>() == 24, "the pairs in place share their bytes with the vector");

impl Default for PairList {
    fn default() -> PairList {
        PairList::Inline([VACANT_PAIR; INLINE_LEN])
    }
}

impl PairList {
    #[inline]
    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        match self {
            PairList::Inline(pairs) => &pairs[..inline_len(pairs)],
            PairList::Heap(pairs) => pairs,
        }
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [(u32, u32)] {
        match self {
            PairList::Inline(pairs) => {
                let len = inline_len(pairs);
                &mut pairs[..len]
            }
            PairList::Heap(pairs) => pairs,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn push(&mut self, pair: (u32, u32)) {
        debug_assert!(pair.0 != VACANT);
        match self {
            PairList::Inline(pairs) => {
                let len = inline_len(pairs);
                if len < INLINE_LEN {
                    pairs[len] = pair;
                    return;
                }
                let mut heap = Vec::with_capacity(INLINE_LEN * 2);
                heap.extend_from_slice(pairs);
                heap.push(pair);
                *self = PairList::Heap(heap);
            }
            PairList::Heap(pairs) => {
                if pairs.len() == pairs.capacity() {
                    pairs.reserve_exact(pairs.len() / 4 + INLINE_LEN * 2);
                }
                pairs.push(pair);
            }
        }
    }

    /// Takes the pair at `index` out, moves the last one there and gives it, if there was another.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<(u32, u32)> {
        let pairs = self.as_mut_slice();
        let last = pairs.len() - 1;
        pairs[index] = pairs[last];
        let moved = (index < last).then_some(pairs[last]);
        self.truncate(last);
        moved
    }

    /// Forgets the pairs from `len` on and gives up memory that became too much.
    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            PairList::Inline(pairs) => pairs[len..].fill(VACANT_PAIR),
            PairList::Heap(pairs) if len <= INLINE_LEN => {
                let mut inline = [VACANT_PAIR; INLINE_LEN];
                inline[..len].copy_from_slice(&pairs[..len]);
                *self = PairList::Inline(inline);
            }
            PairList::Heap(pairs) => {
                pairs.truncate(len);
                // Half empty: shrinking to a quarter of slack is paid by the removals before it.
                if pairs.capacity() > 2 * len + INLINE_LEN * 2 {
                    pairs.shrink_to(len + len / 4);
                }
            }
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            PairList::Inline(_) => 0,
            PairList::Heap(pairs) => pairs.capacity() * size_of::<(u32, u32)>(),
        }
    }
}

#[inline]
fn inline_len(pairs: &[(u32, u32); INLINE_LEN]) -> usize {
    pairs.iter().take_while(|pair| pair.0 != VACANT).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_heap_and_comes_back() {
        let mut list = PairList::default();
        for number in 0..1000 {
            assert_eq!(list.len(), number as usize);
            list.push((number, number * 2));
        }
        assert!(list.heap_bytes() >= 8000 && list.heap_bytes() <= 8000 * 5 / 4 + 64);
        assert_eq!(list.swap_remove(10), Some((999, 1998)));
        assert_eq!(list.swap_remove(998), None);
        assert_eq!(list.as_slice()[10], (999, 1998));
        while list.len() > 2 {
            list.swap_remove(0);
            assert!(list.heap_bytes() <= 16 * list.len() + 64);
        }
        assert_eq!(list.heap_bytes(), 0);
        list.as_mut_slice()[1].1 = 5;
        assert_eq!(list.swap_remove(0).map(|pair| pair.1), Some(5));
        assert_eq!(list.swap_remove(0), None);
        assert_eq!(list.len(), 0);
    }
}
