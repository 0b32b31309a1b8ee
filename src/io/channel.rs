//! A bounded ring from one core to another: one producer, one consumer, drained in batches.
//!
//! A turn's messages are pushed first and published together, so the other core sees one change of one cache line
//! and not one a message; in the same way the consumer gives slots back when it chooses ([`Receiver::release`]).
//! Full is not an error: [`Sender::room`] says how much fits, and who pushes without room has a bug.
//!
//! Sleeping is the [`Bell`](super::Bell)'s matter, with one addition here: a producer that ran short of room says so
//! before it sleeps ([`Sender::wait_for_room`]), and the consumer's `release` answers whether to wake it.

use std::mem::MaybeUninit;

use super::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence};

/// The most slots a channel may be given; more would be a queue that hides an overload.
pub const CAPACITY_MAX: usize = 1 << 16;

/// Makes a channel of `capacity` slots.
///
/// # Panics
/// If `capacity` is not a power of two between 2 and [`CAPACITY_MAX`].
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        capacity.is_power_of_two() && capacity >= 2,
        "a capacity of {capacity} is not a power of two of at least 2"
    );
    assert!(capacity <= CAPACITY_MAX, "a capacity of {capacity} is above {CAPACITY_MAX}");
    let shared = Arc::new(Shared {
        slots: (0..capacity).map(|_| Slot(UnsafeCell::new(MaybeUninit::uninit()))).collect(),
        tail: Line(AtomicUsize::new(0)),
        head: Line(AtomicUsize::new(0)),
        pinched: Line(AtomicBool::new(false)),
    });
    let sender = Sender { shared: shared.clone(), tail: 0, tail_published: 0, head_seen: 0, scarce: false };
    let receiver = Receiver { shared, head: 0, head_published: 0, tail_seen: 0 };
    (sender, receiver)
}

/// The producing end.
pub struct Sender<T: Send> {
    shared: Arc<Shared<T>>,
    /// The next slot to write. Counts on for ever (wrapping); the slot is its low bits.
    tail: usize,
    /// What the consumer may know of `tail`.
    tail_published: usize,
    /// The consumer's head as last looked up: never ahead of the real one.
    head_seen: usize,
    /// Somebody asked for room since the last sleep and heard that little is left: work may wait for more.
    scarce: bool,
}

/// The consuming end.
pub struct Receiver<T: Send> {
    shared: Arc<Shared<T>>,
    /// The next slot to read.
    head: usize,
    /// What the producer may know of `head`.
    head_published: usize,
    /// The producer's tail as last looked up: never ahead of the real one.
    tail_seen: usize,
}

struct Shared<T> {
    slots: Box<[Slot<T>]>,
    /// Slots before it are written. Moved by the producer only.
    tail: Line<AtomicUsize>,
    /// Slots before it are read and free. Moved by the consumer only.
    head: Line<AtomicUsize>,
    /// The producer wants to be woken when half of the slots are free.
    pinched: Line<AtomicBool>,
}

/// A value on a cache line (pair) of its own.
#[repr(align(128))]
struct Line<T>(T);

/// Slots start on their own cache lines, so that neighbours do not share one between cores.
#[repr(align(64))]
struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: a slot is written by the producer only while `head <= index + capacity` frees it and before `tail` is
// published past it, and read by the consumer only after that publication (release/acquire on `tail`, and on `head`
// for the way back), so no slot is ever touched by two threads at once. Values cross threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; dropping the shared part on another thread drops values of `T`, which is `Send`.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Send> Sender<T> {
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// How many messages can be pushed now. At least what is said: the consumer may free more meanwhile.
    pub fn room(&mut self) -> usize {
        let capacity = self.capacity();
        let free = capacity - self.tail.wrapping_sub(self.head_seen);
        // Only a producer that is half way to trouble looks at the consumer's line.
        if free > capacity / 2 {
            return free;
        }
        let free = self.room_now();
        self.scarce |= free <= capacity / 2;
        free
    }

    fn room_now(&mut self) -> usize {
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head_seen)
    }

    /// Adds a message; the consumer sees it after [`Sender::publish`].
    ///
    /// # Panics
    /// Without room.
    pub fn push(&mut self, message: T) {
        assert!(self.room() > 0, "pushed into a full channel of {} slots", self.capacity());
        let slot = &self.shared.slots[self.tail & (self.capacity() - 1)];
        slot.0.with_mut(|p| {
            // SAFETY: `room` saw the consumer's head (acquire) less than a whole ring behind `tail`, so this slot's
            // former value was moved out, and the consumer does not look at it before `tail` is published.
            unsafe { (*p).write(message) };
        });
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the consumer all that was pushed. True if there was anything new: its bell is due then.
    pub fn publish(&mut self) -> bool {
        if self.tail == self.tail_published {
            return false;
        }
        self.shared.tail.0.store(self.tail, Ordering::Release);
        self.tail_published = self.tail;
        true
    }

    /// To be asked before the producer's core sleeps: true if it may, false if there is room again for work that may
    /// have been put off for want of it.
    ///
    /// A producer that never heard of scarce room has nothing to wait for. One that did leaves word, and
    /// [`Receiver::release`] tells the consumer to wake it once more than half of the slots are free.
    pub fn wait_for_room(&mut self) -> bool {
        if !std::mem::take(&mut self.scarce) {
            return true;
        }
        self.shared.pinched.0.store(true, Ordering::Relaxed);
        // Pairs with the fence in `release`: either we see its head here, or it sees our word.
        fence(Ordering::SeqCst);
        if self.room_now() > self.capacity() / 2 {
            self.shared.pinched.0.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let slot = &self.shared.slots[self.head & (self.shared.slots.len() - 1)];
        let message = slot.0.with(|p| {
            // SAFETY: `head` is before a tail the producer published (acquire), so the slot is written; it is read
            // once, because `head` moves past it now, and not written before that head is published back.
            unsafe { (*p).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        Some(message)
    }

    /// Nothing to pop right now.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail_seen && self.head == self.shared.tail.0.load(Ordering::Acquire)
    }

    /// Gives the slots of what was popped back to the producer, once a turn. True if the producer sleeps for want of
    /// room and there is enough now: ring its bell.
    pub fn release(&mut self) -> bool {
        if self.head == self.head_published {
            return false;
        }
        self.shared.head.0.store(self.head, Ordering::Release);
        self.head_published = self.head;
        // Pairs with the fence in `wait_for_room`.
        fence(Ordering::SeqCst);
        if !self.shared.pinched.0.load(Ordering::Relaxed) {
            return false;
        }
        let queued = self.shared.tail.0.load(Ordering::Acquire).wrapping_sub(self.head);
        if queued >= self.shared.slots.len() / 2 {
            return false;
        }
        self.shared.pinched.0.store(false, Ordering::Relaxed);
        true
    }
}

impl<T: Send> Drop for Sender<T> {
    fn drop(&mut self) {
        self.publish();
    }
}

impl<T: Send> Drop for Receiver<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
        self.release();
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone and have published. What came after the receiver's last look is still here.
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            self.slots[head & (self.slots.len() - 1)].0.with_mut(|p| {
                // SAFETY: slots between the published head and the published tail are written and not yet read;
                // `&mut self` says nobody else is here.
                unsafe { (*p).assume_init_drop() };
            });
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_across_many_rounds_of_the_ring() {
        let (mut tx, mut rx) = channel::<u64>(8);
        let mut next = 0;
        for round in 0..1000u64 {
            for i in 0..=(round % 8) {
                assert!(tx.room() > 0);
                tx.push(round * 8 + i);
            }
            assert!(rx.is_empty());
            assert!(tx.publish());
            assert!(!tx.publish());
            let mut seen = 0;
            while let Some(value) = rx.pop() {
                assert_eq!(value, round * 8 + seen);
                seen += 1;
                next += 1;
            }
            assert_eq!(seen, round % 8 + 1);
            rx.release();
        }
        assert_eq!(next, 4500);
    }

    #[test]
    fn room_is_exact_when_it_is_scarce() {
        let (mut tx, mut rx) = channel::<u8>(4);
        for left in (0..4).rev() {
            tx.push(0);
            assert_eq!(tx.room(), left);
        }
        tx.publish();
        assert!(tx.wait_for_room());
        assert_eq!(rx.pop(), Some(0));
        assert_eq!(tx.room(), 0, "popped but not released");
        assert!(!rx.release(), "three of four are still taken");
        assert_eq!(tx.room(), 1);
        rx.pop();
        rx.pop();
        assert!(rx.release(), "the producer asked to be woken");
        assert_eq!(tx.room(), 3);
        rx.pop();
        assert!(!rx.release(), "it was told once");
        assert!(!tx.wait_for_room(), "it asked while room was scarce");
        assert!(tx.wait_for_room(), "it may sleep");
        for _ in 0..3 {
            tx.push(1);
        }
        tx.publish();
        assert_eq!(tx.room(), 1);
        while rx.pop().is_some() {}
        rx.release();
        assert!(!tx.wait_for_room(), "work was put off, and there is room by now");
        assert!(tx.wait_for_room());
    }

    #[test]
    #[should_panic(expected = "full channel")]
    fn pushing_without_room_is_a_bug() {
        let (mut tx, _rx) = channel::<u8>(2);
        for _ in 0..3 {
            tx.push(1);
        }
    }

    #[test]
    fn what_was_never_popped_is_dropped_once() {
        use std::sync::Arc;
        let value = Arc::new(());
        let (mut tx, mut rx) = channel::<Arc<()>>(8);
        for _ in 0..6 {
            tx.push(value.clone());
        }
        tx.publish();
        drop(rx.pop());
        tx.push(value.clone());
        drop(rx);
        assert_eq!(Arc::strong_count(&value), 2, "one is unpublished in the sender's ring");
        drop(tx);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_million_messages_cross_threads() {
        const COUNT: u64 = 1_000_000;
        let (mut tx, mut rx) = channel::<u64>(256);
        let producer = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < COUNT {
                let batch = (tx.room() as u64).min(COUNT - sent).min(17);
                for _ in 0..batch {
                    tx.push(sent);
                    sent += 1;
                }
                if !tx.publish() {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            match rx.pop() {
                Some(value) => {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
            rx.release();
        }
        producer.join().expect("the producer ends");
        assert!(rx.is_empty());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn pushes_and_pops_keep_order_and_room() {
        loom::model(|| {
            let (mut tx, mut rx) = channel::<usize>(2);
            let producer = loom::thread::spawn(move || {
                let mut sent = 0;
                while sent < 3 {
                    if tx.room() > 0 {
                        tx.push(sent);
                        tx.publish();
                        sent += 1;
                    } else {
                        loom::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                match rx.pop() {
                    Some(value) => {
                        assert_eq!(value, expected);
                        expected += 1;
                        rx.release();
                    }
                    None => loom::thread::yield_now(),
                }
            }
            producer.join().unwrap();
        });
    }

    /// A producer without room that may sleep is always told of room later.
    #[test]
    fn a_pinched_producer_is_never_forgotten() {
        loom::model(|| {
            let (mut tx, mut rx) = channel::<usize>(2);
            tx.push(0);
            tx.push(1);
            tx.publish();
            let consumer = loom::thread::spawn(move || {
                let mut told = false;
                while rx.pop().is_some() {
                    told |= rx.release();
                }
                (told, rx)
            });
            let scarce = tx.room() <= 1;
            let sleeps = tx.wait_for_room();
            let (told, _rx) = consumer.join().unwrap();
            assert!(!scarce || !sleeps || told, "asleep with work put off, and nobody rings");
        });
    }
}
