//! The two clocks, read once a turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::{Instant, Now};

/// Counts monotonic time from its making; copies share that start, so all cores speak of the same instants.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now, at one second, so that "a moment ago" is never below zero.
    pub fn new() -> Clock {
        let now = std::time::Instant::now();
        Clock { start: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    pub fn now(&self) -> Now {
        // A wall clock before 1970 is not worth an error; it reads as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { instant: self.instant(), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX) }
    }

    /// The monotonic half alone.
    pub fn instant(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn copies_share_one_time() {
        let clock = Clock::new();
        let copy = clock;
        let (a, b, c) = (clock.instant(), copy.now(), clock.instant());
        assert!(a <= b.instant && b.instant <= c);
        assert!(b.wall_ms > 1_600_000_000_000, "the wall clock counts milliseconds since 1970");
    }
}
