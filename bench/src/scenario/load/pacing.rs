//! When requests leave: as soon as the last is answered, or at times planned before.

use serde::Deserialize;

/// How times of an open loop follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    #[default]
    Constant,
    /// As many independent clients make them: exponential distances.
    Poisson,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pacing {
    /// Each session keeps so many requests unanswered.
    Closed { outstanding: usize },
    /// So many requests a second of all sessions together, whatever the answers do. Latency counts from the planned time.
    Open { rate: f64, arrivals: Arrivals },
}

impl Pacing {
    pub fn title(self, sessions: usize) -> String {
        match self {
            Pacing::Closed { outstanding } => format!("{sessions} sessions x {outstanding} outstanding"),
            Pacing::Open { rate, arrivals } => {
                format!("{rate:.0}/s {} over {sessions} sessions", format!("{arrivals:?}").to_lowercase())
            }
        }
    }
}

/// The planned times of an open loop.
#[derive(Clone, Debug)]
pub struct Schedule {
    distance_ns: f64,
    arrivals: Arrivals,
    next_ns: f64,
    random: u64,
}

impl Schedule {
    pub fn new(rate: f64, arrivals: Arrivals, start_ns: u64, seed: u64) -> Schedule {
        assert!(rate > 0.0, "a rate is checked where it is read");
        Schedule { distance_ns: 1e9 / rate, arrivals, next_ns: start_ns as f64, random: seed | 1 }
    }

    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Takes the next time and plans the one behind it.
    pub fn take(&mut self) -> u64 {
        let now_ns = self.next_ns();
        self.next_ns += match self.arrivals {
            Arrivals::Constant => self.distance_ns,
            Arrivals::Poisson => {
                let uniform = (super::traffic::xorshift(&mut self.random) >> 11) as f64 / (1u64 << 53) as f64;
                -(1.0 - uniform).ln() * self.distance_ns
            }
        };
        now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_keep_their_rate() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let mut schedule = Schedule::new(10_000.0, arrivals, 500, 7);
            let times: Vec<u64> = (0..10_000).map(|_| schedule.take()).collect();
            assert_eq!(times[0], 500);
            assert!(times.is_sorted());
            let seconds = *times.last().unwrap() as f64 / 1e9;
            assert!((0.95..1.05).contains(&seconds), "{arrivals:?} took {seconds}");
            let distances: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let even = distances.iter().all(|distance| (99_999..=100_001).contains(distance));
            assert_eq!(even, arrivals == Arrivals::Constant);
        }
    }
}
