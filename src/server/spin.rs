//! Looking again before sleeping, on a core that is ours alone.
//!
//! Two tasks wake each other while the last input is younger than the window, and the runtime looks for I/O between
//! them (a task that wakes itself would be run again before any I/O). It stops by itself where others want the core:
//! when the kernel says this thread was kept waiting for a processor, spinning rests for a while.

use std::cell::Cell;
use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::io::Clock;
use crate::types::Instant;

/// How often it is asked whether others want this core.
const CROWD_CHECK_EVERY: Duration = Duration::from_millis(100);
/// Share of the time between two checks that the thread may have waited for a processor: one part in this many.
const CROWDED_PART: u32 = 20;
/// How long spinning rests when the core is crowded.
const CROWD_REST: Duration = Duration::from_secs(1);

pub(super) struct Spin {
    window: Duration,
    clock: Clock,
    /// Each task's, while it waits for the other.
    wakers: [Cell<Option<Waker>>; 2],
    last_input: Cell<Instant>,
    active: Cell<bool>,
    ended: Cell<bool>,
    crowd: Crowd,
}

/// Watches how long this thread was runnable and did not run.
struct Crowd {
    /// `/proc/thread-self/schedstat`; `None` where the kernel does not keep it.
    schedstat: Option<File>,
    checked: Cell<Instant>,
    waited_ns: Cell<u64>,
    rest_until: Cell<Instant>,
}

impl Spin {
    /// A window of zero is off. To be made on the thread that spins.
    pub(super) fn new(window: Duration, clock: Clock) -> Spin {
        let schedstat = if window.is_zero() { None } else { File::open("/proc/thread-self/schedstat").ok() };
        let crowd = Crowd {
            schedstat,
            checked: Cell::new(clock.instant()),
            waited_ns: Cell::new(0),
            rest_until: Cell::new(Instant::default()),
        };
        crowd.waited_ns.set(crowd.read_waited_ns().unwrap_or(0));
        Spin {
            window,
            clock,
            wakers: Default::default(),
            last_input: Cell::new(Instant::default()),
            active: Cell::new(false),
            ended: Cell::new(false),
            crowd,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.window.is_zero()
    }

    /// The tasks keep each other awake.
    pub(super) fn is_active(&self) -> bool {
        self.active.get()
    }

    /// Input came: spin from here.
    pub(super) fn touch(&self) {
        if !self.is_on() || self.ended.get() {
            return;
        }
        let now = self.clock.instant();
        if self.crowd.rest_until.get() > now {
            return;
        }
        self.last_input.set(now);
        if !self.active.get()
            && let Some(waker) = self.wakers[0].take()
        {
            self.active.set(true);
            waker.wake();
        }
    }

    /// Lets both tasks run to their end.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.active.set(false);
        for waker in &self.wakers {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// One pass of task `me`: looks (`look`), wakes the other if it is worth going on, and waits for it.
    pub(super) async fn pass(&self, me: usize, look: impl Fn()) {
        let mut waited = false;
        poll_fn(|cx| {
            if waited || self.ended.get() {
                return Poll::Ready(());
            }
            waited = true;
            self.wakers[me].set(Some(cx.waker().clone()));
            if !self.active.get() {
                return Poll::Pending;
            }
            look();
            self.active.set(self.goes_on());
            if self.active.get() {
                if let Some(other) = self.wakers[1 - me].take() {
                    other.wake();
                }
            } else if let Some(waker) = self.wakers[me].take() {
                // The pass that ends the spinning comes back once, to let the core go to sleep.
                waker.wake();
            }
            Poll::Pending
        })
        .await;
    }

    fn goes_on(&self) -> bool {
        let now = self.clock.instant();
        now.since(self.last_input.get()) < self.window && !self.crowd.check(now)
    }
}

impl Crowd {
    /// True, and resting from then on, if others want the core.
    fn check(&self, now: Instant) -> bool {
        let elapsed = now.since(self.checked.get());
        if elapsed < CROWD_CHECK_EVERY {
            return false;
        }
        let Some(waited_ns) = self.read_waited_ns() else { return false };
        let waited = Duration::from_nanos(waited_ns.saturating_sub(self.waited_ns.replace(waited_ns)));
        self.checked.set(now);
        let crowded = waited > elapsed / CROWDED_PART;
        if crowded {
            self.rest_until.set(now + CROWD_REST);
        }
        crowded
    }

    /// The second field: nanoseconds spent waiting on a run queue.
    fn read_waited_ns(&self) -> Option<u64> {
        let mut text = [0; 96];
        let count = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..count]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}
