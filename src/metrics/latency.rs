//! How long things take: a histogram of its owner, with a copy others may read.
//!
//! The owner records into a plain hdrhistogram (1 µs to 10 s, two digits: a value is off by less than one percent)
//! and from time to time publishes its buckets as atomics. Buckets and not quantiles are published, because
//! quantiles of several cores cannot be combined. Count, sum, minimum and maximum are exact and always current.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::counter::{Tally, TallyTotals};

/// Microseconds a value may have; longer ones count as this in quantiles.
pub const LATENCY_US_MAX: u64 = 10_000_000;
const DIGITS: u8 = 2;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are sound")
}

/// The writing half. One owner.
#[derive(Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    cell: Arc<LatencyCell>,
    /// Something was recorded since the last publication.
    changed: bool,
}

/// The half everyone may read.
#[derive(Debug)]
pub struct LatencyCell {
    exact: Tally,
    /// The lowest value of each bucket, ascending.
    values: Box<[u64]>,
    counts: Box<[AtomicU64]>,
}

impl Default for LatencyCell {
    fn default() -> LatencyCell {
        let template = histogram();
        let values: Box<[u64]> =
            std::iter::successors(Some(0), |value| Some(template.next_non_equivalent(*value)))
                .take_while(|value| *value <= LATENCY_US_MAX)
                .collect();
        let counts = values.iter().map(|_| AtomicU64::new(0)).collect();
        LatencyCell { exact: Tally::default(), values, counts }
    }
}

impl Latency {
    pub fn new(cell: Arc<LatencyCell>) -> Latency {
        Latency { histogram: histogram(), cell, changed: false }
    }

    #[inline]
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.cell.exact.record(us);
        self.histogram.saturating_record(us.min(LATENCY_US_MAX));
        self.changed = true;
    }

    /// Copies the buckets to the cell, if there is anything new: some 2,000 stores, so once a second or before
    /// sleep, not once a turn.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        for (value, count) in self.cell.values.iter().zip(&self.cell.counts) {
            count.store(self.histogram.count_at(*value), Ordering::Relaxed);
        }
    }

    /// Forgets everything, in the cell too.
    pub fn reset(&mut self) {
        self.histogram.reset();
        self.cell.exact.reset();
        self.changed = true;
        self.publish();
    }
}

/// Several cells together.
#[derive(Debug, Clone)]
pub struct LatencyTotals {
    /// Microseconds; exact, unlike the quantiles.
    pub exact: TallyTotals,
    merged: Histogram<u64>,
}

impl Default for LatencyTotals {
    fn default() -> LatencyTotals {
        LatencyTotals { exact: TallyTotals::default(), merged: histogram() }
    }
}

impl LatencyTotals {
    pub fn add(&mut self, cell: &LatencyCell) {
        self.exact.add(&cell.exact);
        for (value, count) in cell.values.iter().zip(&cell.counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                self.merged.saturating_record_n(*value, count);
            }
        }
    }

    /// Microseconds that this part of the values does not exceed, 0 before the first publication. `quantile` is
    /// from 0 to 1.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        if self.merged.is_empty() { 0 } else { self.merged.value_at_quantile(quantile).min(self.exact.max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(cell: &LatencyCell) -> LatencyTotals {
        let mut totals = LatencyTotals::default();
        totals.add(cell);
        totals
    }

    #[test]
    fn quantiles_come_with_publication_and_the_rest_at_once() {
        let cell = Arc::new(LatencyCell::default());
        let mut latency = Latency::new(cell.clone());
        for us in 1..=1000 {
            latency.record(Duration::from_micros(us));
        }
        assert_eq!(totals(&cell).exact, TallyTotals { count: 1000, sum: 500_500, min: 1, max: 1000 });
        assert_eq!(totals(&cell).quantile_us(0.5), 0);
        latency.publish();
        for (quantile, us) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = totals(&cell).quantile_us(quantile) as f64;
            assert!((found / us - 1.0).abs() < 0.01, "{quantile}: {found}");
        }
        latency.reset();
        assert_eq!(totals(&cell).exact.count, 0);
        assert_eq!(totals(&cell).quantile_us(0.5), 0);
    }

    #[test]
    fn very_long_and_very_short_times_are_kept() {
        let cell = Arc::new(LatencyCell::default());
        let mut latency = Latency::new(cell.clone());
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(3600));
        latency.publish();
        let totals = totals(&cell);
        assert_eq!((totals.exact.min, totals.exact.max), (0, 3_600_000_000));
        assert_eq!(totals.quantile_us(0.25), 0);
        assert!(totals.quantile_us(1.0) >= LATENCY_US_MAX);
    }
}
