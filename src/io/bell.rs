//! Waking a core that sleeps, and only then.
//!
//! A wake costs the waker 7-9 µs if the other core sleeps and 0.2 µs of a pointless system call if it does not, so a
//! core says when it is about to sleep. The order that loses nothing: the sleeper declares itself asleep, looks into
//! its mailboxes once more, then waits; the producer publishes, then looks whether the other sleeps. One bell serves
//! all mailboxes of a core.

use std::io;

use super::sync::{AtomicBool, Ordering, fence};
use super::sys::EventFd;

/// One core's bell. The core watches [`Bell::event`] on its runtime; everybody else rings.
pub struct Bell {
    doze: Doze,
    event: EventFd,
}

impl Bell {
    /// A bell whose core is awake.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell { doze: Doze::new(), event: EventFd::new()? })
    }

    /// The core is about to sleep. It must look for work once more after this, and call [`Bell::awake`] if it finds any.
    pub fn doze(&self) {
        self.doze.doze();
    }

    /// The core is awake: no need to ring.
    pub fn awake(&self) {
        self.doze.awake();
    }

    /// Something was published for this core: wakes it if it sleeps. Call once a turn, after publishing.
    pub fn ring(&self) {
        if self.doze.wake_wanted() {
            self.event.signal();
        }
    }

    /// Wakes the core whatever it does, for what no mailbox tells.
    pub fn ring_always(&self) {
        self.event.signal();
    }

    /// Readable after a ring; to be cleared by the core before it looks into its mailboxes.
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

/// The promise to sleep, apart from the descriptor so that loom can try every order.
struct Doze {
    asleep: AtomicBool,
}

impl Doze {
    fn new() -> Doze {
        Doze { asleep: AtomicBool::new(false) }
    }

    fn doze(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake_wanted`: either the producer sees `asleep`, or the sleeper's last look sees
        // what it published.
        fence(Ordering::SeqCst);
    }

    fn awake(&self) {
        // Reads what a producer may have swapped in, so that the next `doze` comes after that swap for everybody.
        self.asleep.swap(false, Ordering::AcqRel);
    }

    /// True for exactly one producer after each `doze`.
    fn wake_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load spares the cache line of a core that is awake; the exchange writes only where there is a sleeper.
        self.asleep.load(Ordering::Relaxed)
            && self.asleep.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn rings_only_for_a_sleeper_and_only_once() {
        let bell = Bell::new().expect("an eventfd");
        bell.ring();
        assert_eq!(bell.event().clear(), 0);
        bell.doze();
        bell.ring();
        bell.ring();
        assert_eq!(bell.event().clear(), 1);
        bell.doze();
        bell.awake();
        bell.ring();
        assert_eq!(bell.event().clear(), 0);
        bell.ring_always();
        assert_eq!(bell.event().clear(), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::channel::channel;
    use super::*;
    use loom::sync::{Arc, Condvar, Mutex};

    /// The promise, and a descriptor as the kernel keeps it: readable while its count is not zero.
    struct Model {
        doze: Doze,
        count: Mutex<usize>,
        readable: Condvar,
    }

    impl Model {
        fn signal(&self) {
            *self.count.lock().unwrap() += 1;
            self.readable.notify_one();
        }

        fn wait_and_clear(&self) {
            let mut count = self.count.lock().unwrap();
            while *count == 0 {
                count = self.readable.wait(count).unwrap();
            }
            *count = 0;
        }
    }

    /// A message published while the consumer goes to sleep is seen or rung for: the consumer never waits for ever
    /// (loom reports a deadlock if it does).
    #[test]
    fn no_message_is_slept_through() {
        // All orders with up to three preemptions: seconds instead of minutes, and every known mistake shows.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let model = Arc::new(Model { doze: Doze::new(), count: Mutex::new(0), readable: Condvar::new() });
            let (mut tx, mut rx) = channel::<usize>(2);
            let ringer = model.clone();
            let producer = loom::thread::spawn(move || {
                for value in 0..2 {
                    tx.push(value);
                    tx.publish();
                    if ringer.doze.wake_wanted() {
                        ringer.signal();
                    }
                }
                tx
            });
            let mut expected = 0;
            while expected < 2 {
                if let Some(value) = rx.pop() {
                    assert_eq!(value, expected);
                    expected += 1;
                    continue;
                }
                model.doze.doze();
                if rx.is_empty() {
                    model.wait_and_clear();
                }
                model.doze.awake();
            }
            producer.join().unwrap();
        });
    }
}
