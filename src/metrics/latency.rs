//! How long things take: a histogram with exact count, sum, minimum and maximum beside it.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::tally::Tally;

/// Microseconds a value may have; longer ones count as this in quantiles.
pub const LATENCY_US_MAX: u64 = 10_000_000;

/// Digits a quantile is good for: off by less than one percent.
const DIGITS: u8 = 2;

/// Times of one kind, from 1 µs to 10 s; some 18 KB.
#[derive(Debug, Clone)]
pub struct Latency {
    /// Microseconds; exact, unlike the quantiles.
    pub exact: Tally,
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are sound");
        Latency { exact: Tally::default(), histogram }
    }
}

impl Latency {
    pub fn record(&mut self, took: Duration) {
        self.record_us(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    #[inline]
    pub fn record_us(&mut self, us: u64) {
        self.exact.record(us);
        self.histogram.saturating_record(us.min(LATENCY_US_MAX));
    }

    pub fn merge(&mut self, other: &Latency) {
        self.exact.merge(&other.exact);
        self.histogram.add(&other.histogram).expect("all have the same bounds");
    }

    /// Microseconds that this part of the values, from 0 to 1, does not exceed; 0 before the first.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        if self.histogram.is_empty() {
            0
        } else {
            self.histogram.value_at_quantile(quantile).min(self.exact.max)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_percent() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_us(0.5), 0);
        for us in 1..=1000 {
            latency.record_us(us);
        }
        assert_eq!(latency.exact, Tally { count: 1000, sum: 500_500, min: 1, max: 1000, last: 1000 });
        for (quantile, us) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = latency.quantile_us(quantile) as f64;
            assert!((found / us - 1.0).abs() < 0.01, "{quantile}: {found}");
        }
    }

    #[test]
    fn very_long_and_very_short_times_are_kept() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(3600));
        assert_eq!((latency.exact.min, latency.exact.max), (0, 3_600_000_000));
        assert_eq!(latency.quantile_us(0.25), 0);
        assert!(latency.quantile_us(1.0) >= LATENCY_US_MAX);
    }

    #[test]
    fn merged_quantiles_are_over_all_values() {
        let (mut fast, mut slow) = (Latency::default(), Latency::default());
        for _ in 0..100 {
            fast.record_us(100);
            slow.record_us(1000);
        }
        fast.merge(&slow);
        assert!((99..=101).contains(&fast.quantile_us(0.5)));
        assert!((990..=1010).contains(&fast.quantile_us(0.99)));
    }
}
