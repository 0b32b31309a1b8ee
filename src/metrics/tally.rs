//! Count, sum, minimum, maximum.

/// Of the values recorded so far; all zero before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub count: u64,
    pub sum: u64,
    pub min: u64,
    pub max: u64,
    pub last: u64,
}

impl Tally {
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.last = value;
    }

    /// Adds another owner's values; `last` stays mine unless I have none.
    pub fn merge(&mut self, other: &Tally) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Zero when nothing was recorded.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_nothing_changes_nothing() {
        let mut tally = Tally::default();
        assert_eq!(tally.mean(), 0.0);
        tally.record(4);
        tally.record(8);
        let before = tally;
        tally.merge(&Tally::default());
        assert_eq!(tally, before);
        let mut empty = Tally::default();
        empty.merge(&tally);
        assert_eq!(empty, Tally { count: 2, sum: 12, min: 4, max: 8, last: 8 });
        empty.merge(&Tally { count: 1, sum: 1, min: 1, max: 1, last: 1 });
        assert_eq!(empty, Tally { count: 3, sum: 13, min: 1, max: 8, last: 8 });
    }
}
