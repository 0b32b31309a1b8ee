//! Numbers with one writer and any readers.
//!
//! All accesses are relaxed: a reader learns each number alone and concludes nothing about other memory. Writing is
//! a load and a store, which is right only because each value has one writer, its owner; a second one would lose
//! counts, never memory safety.

use std::sync::atomic::{AtomicU64, Ordering};

/// Only grows, until it is reset.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// For the owner.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For the owner.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What is there now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// For the owner.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// For the owner.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// For the owner. Panics below zero: something was counted out that never came in.
    #[inline]
    pub fn sub(&self, count: u64) {
        self.set(self.get().checked_sub(count).expect("a gauge counts out only what it counted in"));
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Count, sum, minimum and maximum of what was recorded.
#[derive(Debug)]
pub struct Tally {
    count: AtomicU64,
    sum: AtomicU64,
    /// `u64::MAX` before the first value.
    min: AtomicU64,
    max: AtomicU64,
    last: AtomicU64,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// For the owner.
    #[inline]
    pub fn record(&self, value: u64) {
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).saturating_add(value), Ordering::Relaxed);
        if value < self.min.load(Ordering::Relaxed) {
            self.min.store(value, Ordering::Relaxed);
        }
        if value > self.max.load(Ordering::Relaxed) {
            self.max.store(value, Ordering::Relaxed);
        }
        self.last.store(value, Ordering::Relaxed);
    }

    /// The value recorded last, 0 before the first.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// For the owner.
    pub fn reset(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.sum.store(0, Ordering::Relaxed);
        self.min.store(u64::MAX, Ordering::Relaxed);
        self.max.store(0, Ordering::Relaxed);
        self.last.store(0, Ordering::Relaxed);
    }
}

/// Tallies of several owners together; all zero when nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TallyTotals {
    pub count: u64,
    pub sum: u64,
    pub min: u64,
    pub max: u64,
}

impl TallyTotals {
    pub fn add(&mut self, tally: &Tally) {
        let count = tally.count.load(Ordering::Relaxed);
        let min = tally.min.load(Ordering::Relaxed);
        if count == 0 || min == u64::MAX {
            return;
        }
        self.min = if self.count == 0 { min } else { self.min.min(min) };
        self.max = self.max.max(tally.max.load(Ordering::Relaxed));
        self.count += count;
        self.sum = self.sum.saturating_add(tally.sum.load(Ordering::Relaxed));
    }

    /// The mean, 0 when nothing was recorded.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_of_nothing_is_zero() {
        let tally = Tally::default();
        let mut totals = TallyTotals::default();
        totals.add(&tally);
        assert_eq!(totals, TallyTotals::default());
        assert_eq!(totals.mean(), 0.0);
        tally.record(4);
        tally.record(8);
        totals.add(&tally);
        assert_eq!((totals, tally.last()), (TallyTotals { count: 2, sum: 12, min: 4, max: 8 }, 8));
        assert_eq!(totals.mean(), 6.0);
        tally.reset();
        let mut again = TallyTotals::default();
        again.add(&tally);
        assert_eq!(again, TallyTotals::default());
    }

    #[test]
    #[should_panic(expected = "counts out only")]
    fn a_gauge_does_not_go_below_zero() {
        Gauge::default().sub(1);
    }
}
