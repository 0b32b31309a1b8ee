//! How the one writer and its readers agree: which state a read saw, and when memory may be used again.
//!
//! Publication is a sequence lock. [`Publication::begin`] makes the number odd, [`Publication::publish`] makes it even
//! again; a reader notes an even number, reads, and keeps the result only if the number has not moved.
//!
//! Reclamation is by quiescence. What the writer unlinks is stamped with the epoch, and used again once every reader that
//! is not asleep has declared a quiet point in a later epoch. A reader declares once a turn: one load and one store.
//!
//! The atomics come from `stdx::sync`, so that loom can run both protocols through every interleaving (tests below).

use std::sync::atomic::AtomicUsize;

use crate::stdx::sync::{AtomicI64, AtomicU32, AtomicU64, Ordering, Padded, fence};
use crate::types::Zxid;

/// Readers a tree can have: one a front core, and some to spare.
pub const READERS_MAX: usize = 128;
/// Values one reader can keep alive across turns.
pub const PINS_MAX: usize = 64;

/// Looks at number and zxid, should the writer publish between the two each time.
const LOOKS_MAX: usize = if cfg!(loom) { 1 } else { 4 };

/// A moment in the life of the tree. The number moves with every begin and every publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    pub number: u64,
    /// The newest published state; of no use if the number is odd.
    pub zxid: Zxid,
}

impl Published {
    /// False in the middle of a transaction, where nothing can be read.
    pub fn is_stable(self) -> bool {
        self.number.is_multiple_of(2)
    }
}

pub(super) struct Publication {
    number: AtomicU64,
    zxid: AtomicI64,
}

impl Publication {
    pub fn new() -> Publication {
        Publication { number: AtomicU64::new(0), zxid: AtomicI64::new(0) }
    }

    /// The writer is about to change what readers see.
    pub fn begin(&self) {
        let number = self.number.load(Ordering::Relaxed);
        assert!(number.is_multiple_of(2), "a transaction began inside another");
        self.number.store(number + 1, Ordering::Relaxed);
        // A reader that sees any later store of ours, and then fences, sees the odd number too.
        fence(Ordering::Release);
    }

    /// The writer is done; what it wrote is the state at `zxid`.
    pub fn publish(&self, zxid: Zxid) {
        let number = self.number.load(Ordering::Relaxed);
        assert!(!number.is_multiple_of(2), "a publish without a begin");
        self.zxid.store(zxid.0, Ordering::Relaxed);
        self.number.store(number + 1, Ordering::Release);
    }

    /// Whether the writer is between begin and publish. For the writer itself.
    pub fn is_open(&self) -> bool {
        !self.number.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// The number and the zxid that belongs to it.
    #[inline]
    pub fn published(&self) -> Published {
        let mut published = Published { number: 1, zxid: Zxid::ZERO };
        for _ in 0..LOOKS_MAX {
            published.number = self.number.load(Ordering::Acquire);
            published.zxid = Zxid(self.zxid.load(Ordering::Relaxed));
            if !published.is_stable() || self.holds(published) {
                return published;
            }
        }
        // The number moved under every look: as good as being in the middle of a transaction.
        published.number |= 1;
        published
    }

    /// Whether everything read since `published` belongs to that one state.
    #[inline]
    pub fn holds(&self, published: Published) -> bool {
        fence(Ordering::Acquire);
        self.number.load(Ordering::Relaxed) == published.number && published.is_stable()
    }
}

/// A reader's place holds the last epoch it declared, or one of these.
const ASLEEP: u64 = u64::MAX;
const VACANT: u64 = u64::MAX - 1;

pub(super) struct Quiescence {
    epoch: Padded<AtomicU64>,
    places: Vec<Padded<AtomicU64>>,
    /// Places below this were claimed at some time. Only the writer looks: nothing for loom to explore.
    claimed: AtomicUsize,
}

impl Quiescence {
    pub fn new(readers_max: usize) -> Quiescence {
        Quiescence {
            epoch: Padded(AtomicU64::new(1)),
            places: (0..readers_max).map(|_| Padded(AtomicU64::new(VACANT))).collect(),
            claimed: AtomicUsize::new(0),
        }
    }

    /// The epoch to stamp on what is unlinked now.
    pub fn epoch(&self) -> u64 {
        self.epoch.0.load(Ordering::Relaxed)
    }

    /// Takes a vacant place and wakes it. Only the writer does, so that no two take the same.
    pub fn claim(&self) -> Option<usize> {
        let place = self.places.iter().position(|place| place.0.load(Ordering::Acquire) == VACANT)?;
        self.places[place].0.store(self.epoch(), Ordering::Relaxed);
        self.claimed.fetch_max(place + 1, Ordering::Relaxed);
        Some(place)
    }

    /// The places that readers have, or had.
    pub fn claimed(&self) -> usize {
        self.claimed.load(Ordering::Relaxed)
    }

    pub fn vacate(&self, place: usize) {
        self.places[place].0.store(VACANT, Ordering::Release);
    }

    /// The reader at `place` holds nothing it read before.
    #[inline]
    pub fn quiet(&self, place: usize) {
        // What was unlinked before this epoch began cannot be met by reads after this load;
        // the store tells that the reads before it are over.
        let epoch = self.epoch.0.load(Ordering::Acquire);
        self.places[place].0.store(epoch, Ordering::Release);
    }

    pub fn sleep(&self, place: usize) {
        self.places[place].0.store(ASLEEP, Ordering::Release);
    }

    pub fn wake(&self, place: usize) {
        self.places[place].0.store(self.epoch.0.load(Ordering::Acquire), Ordering::Relaxed);
        // Either the writer's `advance` sees us awake, or our reads see all it unlinked before it looked.
        fence(Ordering::SeqCst);
    }

    /// Begins a new epoch and tells which stamps are over: those lower than the result.
    pub fn advance(&self) -> u64 {
        let epoch = self.epoch.0.load(Ordering::Relaxed) + 1;
        self.epoch.0.store(epoch, Ordering::Release);
        fence(Ordering::SeqCst);
        let declared = self.places[..self.claimed()].iter().map(|place| place.0.load(Ordering::Acquire));
        declared.filter(|&place| place < VACANT).min().unwrap_or(epoch)
    }
}

/// Blocks that outlive quiescence, because a reader lent them to the kernel.
///
/// A reader pins inside a turn, before it declares the quiet point that would let the block go; so whoever has seen that
/// quiet point sees the pin.
pub(super) struct Pins {
    /// `PINS_MAX` for each reader; 0 is free.
    blocks: Vec<AtomicU32>,
}

impl Pins {
    pub fn new(readers_max: usize) -> Pins {
        Pins { blocks: (0..readers_max * PINS_MAX).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Pins a block for the reader at `place`; `None` if all its pins are in use.
    pub fn pin(&self, place: usize, block: u32) -> Option<usize> {
        let mine = place * PINS_MAX..(place + 1) * PINS_MAX;
        mine.into_iter().find(|&pin| {
            self.blocks[pin].compare_exchange(0, block, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    pub fn unpin(&self, pin: usize) {
        self.blocks[pin].store(0, Ordering::Release);
    }

    /// Whether a reader at one of the first `places` has pinned the block.
    pub fn is_pinned(&self, block: u32, places: usize) -> bool {
        self.blocks.iter().take(places * PINS_MAX).any(|pinned| pinned.load(Ordering::Acquire) == block)
    }
}

/// Every interleaving of the two protocols, explored by loom: `RUSTFLAGS="--cfg loom" cargo test --release --lib loom_`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Two words that every transaction changes together.
    struct Words {
        publication: Publication,
        words: [AtomicU64; 2],
    }

    #[test]
    fn loom_a_read_that_holds_is_of_one_state() {
        loom::model(|| {
            let shared = Arc::new(Words {
                publication: Publication::new(),
                words: [AtomicU64::new(0), AtomicU64::new(0)],
            });
            let reader = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let published = shared.publication.published();
                    let first = shared.words[0].load(Ordering::Relaxed);
                    let second = shared.words[1].load(Ordering::Relaxed);
                    if shared.publication.holds(published) {
                        let zxid = published.zxid.0 as u64;
                        assert_eq!((first, second), (zxid, 10 * zxid));
                    }
                })
            };
            for zxid in 1..=2 {
                shared.publication.begin();
                shared.words[0].store(zxid, Ordering::Relaxed);
                shared.words[1].store(10 * zxid, Ordering::Relaxed);
                shared.publication.publish(Zxid(zxid as i64));
            }
            reader.join().unwrap();
        });
    }

    /// A link to one of a few blocks, which are plain memory: loom fails if one is read while it is written.
    struct Blocks {
        quiescence: Quiescence,
        link: AtomicU64,
        blocks: [UnsafeCell<u64>; 3],
    }

    impl Blocks {
        fn new() -> Arc<Blocks> {
            let blocks = Blocks {
                quiescence: Quiescence::new(1),
                link: AtomicU64::new(0),
                blocks: [UnsafeCell::new(7), UnsafeCell::new(0), UnsafeCell::new(0)],
            };
            Arc::new(blocks)
        }

        fn read(&self) {
            let block = self.link.load(Ordering::Acquire) as usize;
            // SAFETY: loom checks that nobody writes meanwhile.
            self.blocks[block].with(|value| assert!(unsafe { *value } >= 7));
        }

        fn write(&self, block: usize, value: u64) {
            // SAFETY: loom checks that nobody reads meanwhile.
            self.blocks[block].with_mut(|place| unsafe { *place = value });
        }

        /// Links a new block, and makes nonsense of the old one once it may be used again.
        fn replace(&self, old: usize, new: usize) {
            self.write(new, 8);
            self.link.store(new as u64, Ordering::Release);
            let stamp = self.quiescence.epoch();
            for _ in 0..2 {
                if stamp < self.quiescence.advance() {
                    self.write(old, 0);
                    return;
                }
            }
        }
    }

    #[test]
    fn loom_a_block_is_reused_only_behind_a_quiet_reader() {
        loom::model(|| {
            let shared = Blocks::new();
            let place = shared.quiescence.claim().unwrap();
            let reader = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.read();
                    shared.quiescence.quiet(place);
                    shared.read();
                    shared.quiescence.vacate(place);
                })
            };
            shared.replace(0, 1);
            reader.join().unwrap();
        });
    }

    #[test]
    fn loom_a_reader_that_wakes_meets_no_reused_block() {
        loom::model(|| {
            let shared = Blocks::new();
            let place = shared.quiescence.claim().unwrap();
            shared.quiescence.sleep(place);
            let reader = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.quiescence.wake(place);
                    shared.read();
                    shared.quiescence.sleep(place);
                })
            };
            shared.replace(0, 1);
            reader.join().unwrap();
        });
    }

    /// A block pinned before the quiet point is seen to be pinned by whoever has seen the quiet point.
    #[test]
    fn loom_a_pinned_block_is_not_reused() {
        loom::model(|| {
            let shared = Blocks::new();
            let pins = Arc::new(Pins { blocks: vec![AtomicU32::new(0)] });
            let place = shared.quiescence.claim().unwrap();
            let reader = {
                let (shared, pins) = (Arc::clone(&shared), Arc::clone(&pins));
                thread::spawn(move || {
                    let block = shared.link.load(Ordering::Acquire) as usize;
                    pins.blocks[0].store(block as u32 + 1, Ordering::Release);
                    shared.quiescence.quiet(place);
                    // SAFETY: loom checks that nobody writes meanwhile.
                    shared.blocks[block].with(|value| assert!(unsafe { *value } >= 7));
                    pins.unpin(0);
                })
            };
            shared.write(1, 8);
            shared.link.store(1, Ordering::Release);
            let stamp = shared.quiescence.epoch();
            for _ in 0..2 {
                if stamp < shared.quiescence.advance() && !pins.is_pinned(1, 1) {
                    shared.write(0, 0);
                    break;
                }
            }
            reader.join().unwrap();
        });
    }
}
