//! Who may come in, and how much is worked on at once.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::node::ConnId;
use crate::node::link::Request;
use crate::stdx::rng::Rng;
use crate::types::{Instant, SessionId};

/// Requests that may wait for room; beyond it the fronts' queues fill. Small, since a connection that goes looks through them.
const WAITING_MAX: usize = 4096;

/// `connection_throttle_*`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionThrottleOptions {
    /// What the bucket holds; zero is off.
    pub tokens_max: u32,
    pub fill_time: Duration,
    /// Tokens added each fill time.
    pub fill_count: u32,
    /// Between changes of the random drop; `None` is no random drop.
    pub freeze_time: Option<Duration>,
    pub drop_increase: f64,
    pub drop_decrease: f64,
    /// The random drop falls while the bucket lacks at most this part.
    pub decrease_ratio: f64,
    /// Tokens a new session costs, and one that is renewed.
    pub open_weight: u32,
    pub renew_weight: u32,
}

impl ConnectionThrottleOptions {
    pub fn is_on(&self) -> bool {
        self.tokens_max > 0
    }
}

impl Default for ConnectionThrottleOptions {
    /// Off.
    fn default() -> ConnectionThrottleOptions {
        ConnectionThrottleOptions {
            tokens_max: 0,
            fill_time: Duration::from_millis(1),
            fill_count: 1,
            freeze_time: None,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
            open_weight: 1,
            renew_weight: 1,
        }
    }
}

/// A bucket of tokens that handshakes draw from, one for the whole server, and a random drop that grows while the bucket is empty.
///
/// Fill times that have passed always count, also when nobody got a token: ZooKeeper forgets them then, and attempts that come
/// faster than the bucket fills keep it empty for ever. Source: ZooKeeper `BlueThrottle`.
#[derive(Debug)]
pub struct ConnectionThrottle {
    options: ConnectionThrottleOptions,
    tokens: u32,
    /// Up to here fill times have been counted.
    filled: Instant,
    frozen: Instant,
    drop_probability: f64,
    rng: Rng,
}

impl ConnectionThrottle {
    /// Starts with a full bucket.
    pub fn new(options: ConnectionThrottleOptions, seed: u64, now: Instant) -> ConnectionThrottle {
        ConnectionThrottle {
            tokens: options.tokens_max,
            filled: now,
            frozen: now,
            drop_probability: 0.0,
            rng: Rng::new(seed),
            options,
        }
    }

    /// Whether a client may go on with its handshake. Takes the tokens if so.
    pub fn admit(&mut self, now: Instant, renew: bool) -> bool {
        if !self.options.is_on() {
            return true;
        }
        self.fill(now);
        if self.drops(now) {
            return false;
        }
        let weight = if renew { self.options.renew_weight } else { self.options.open_weight };
        match self.tokens.checked_sub(weight) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Tokens the bucket lacks (`connection_token_deficit`).
    pub fn deficit(&self) -> u64 {
        u64::from(self.options.tokens_max - self.tokens)
    }

    pub fn drop_probability(&self) -> f64 {
        self.drop_probability
    }

    fn fill(&mut self, now: Instant) {
        let fill_ns = self.options.fill_time.as_nanos().max(1);
        let passed = now.since(self.filled).as_nanos() / fill_ns;
        if passed == 0 {
            return;
        }
        let whole = Duration::from_nanos(u64::try_from(passed * fill_ns).unwrap_or(u64::MAX));
        self.filled = self.filled + whole;
        let more = passed.saturating_mul(u128::from(self.options.fill_count));
        let full = u128::from(self.options.tokens_max);
        self.tokens = more.saturating_add(u128::from(self.tokens)).min(full) as u32;
    }

    fn drops(&mut self, now: Instant) -> bool {
        let Some(freeze_time) = self.options.freeze_time else { return false };
        if now.since(self.frozen) > freeze_time {
            let (lacking, max) = (f64::from(self.options.tokens_max - self.tokens), self.options.tokens_max);
            if self.tokens == 0 {
                self.drop_probability = (self.drop_probability + self.options.drop_increase).min(1.0);
            } else if lacking <= (f64::from(max) * self.options.decrease_ratio).round() {
                self.drop_probability = (self.drop_probability - self.options.drop_decrease).max(0.0);
            }
            self.frozen = now;
        }
        // 53 bits: as even as a double can be.
        let drawn = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        drawn < self.drop_probability
    }
}

/// `request_throttle_*` and `throttled_op_wait_time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestThrottleOptions {
    /// Requests in process; zero is off.
    pub requests_max: usize,
    /// Between looks at whether there is room, should none become known otherwise.
    pub stall_time: Duration,
    /// Requests nobody can be waiting for are dropped while there is no room.
    pub drop_stale: bool,
    /// A request is stale when its connection is gone.
    pub stale_connection_check: bool,
    /// A request is stale when it has waited for longer than its session may be silent.
    pub stale_latency_check: bool,
    /// A request that waited longer is answered [`crate::proto::ErrorCode::ThrottledOp`]; zero is off.
    pub op_wait_max: Duration,
}

impl Default for RequestThrottleOptions {
    /// Off.
    fn default() -> RequestThrottleOptions {
        RequestThrottleOptions {
            requests_max: 0,
            stall_time: Duration::from_millis(100),
            drop_stale: true,
            stale_connection_check: true,
            stale_latency_check: false,
            op_wait_max: Duration::ZERO,
        }
    }
}

/// A request that waits for room.
#[derive(Debug)]
struct Waiting {
    front: usize,
    request: Box<Request>,
    /// Its connection is gone.
    detached: bool,
}

/// The requests that wait until fewer are in process. Source: ZooKeeper `RequestThrottler`.
///
/// Where ZooKeeper leaves a client without an answer after dropping its request, the connection is closed here.
#[derive(Debug)]
pub struct RequestThrottle {
    options: RequestThrottleOptions,
    waiting: VecDeque<Waiting>,
    /// Connections that lost a request: nothing they asked later may be done (C5). Until their farewell, and until nothing of
    /// them waits any more.
    invalid: BTreeSet<(usize, ConnId)>,
    /// When the stall that is on is looked at again.
    look_again: Option<Instant>,
}

/// What is to be done with the oldest request that waits.
#[derive(Debug)]
pub enum Next {
    /// Nothing waits, or there is no room.
    Wait {
        /// There is no room, and a stall begins or has lasted for another stall time.
        stalled: bool,
    },
    Serve {
        front: usize,
        request: Box<Request>,
        stale: bool,
    },
    Drop {
        front: usize,
        request: Box<Request>,
    },
}

impl RequestThrottle {
    pub fn new(options: RequestThrottleOptions) -> RequestThrottle {
        RequestThrottle { options, waiting: VecDeque::new(), invalid: BTreeSet::new(), look_again: None }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no more may be pushed.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    pub fn push(&mut self, front: usize, request: Box<Request>) {
        self.waiting.push_back(Waiting { front, request, detached: false });
    }

    /// Everything that waits, from its clients' point of view for nothing: there is nobody to serve it.
    pub fn drain(&mut self) -> impl Iterator<Item = (usize, Box<Request>)> {
        self.invalid.clear();
        self.look_again = None;
        std::mem::take(&mut self.waiting).into_iter().map(|waiting| (waiting.front, waiting.request))
    }

    /// The connection is gone; what it asked may still wait here. It sends nothing any more.
    pub fn detached(&mut self, front: usize, conn: ConnId) {
        let mut waits = false;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.is_of(front, conn)) {
            waiting.detached = true;
            waits = true;
        }
        if !waits {
            self.invalid.remove(&(front, conn));
        }
    }

    /// What comes next while so many requests are in process. `timeout_ms` tells how long a session may be silent.
    pub fn next(&mut self, now: Instant, in_process: usize, timeout_ms: impl Fn(SessionId) -> i32) -> Next {
        let Some(oldest) = self.waiting.front() else {
            self.look_again = None;
            return Next::Wait { stalled: false };
        };
        if self.invalid.contains(&(oldest.front, oldest.request.conn)) {
            return self.drop_oldest();
        }
        let waited = now.since(oldest.request.received);
        let silent_max = |session| Duration::from_millis(timeout_ms(session).max(0) as u64);
        let stale = (self.options.stale_connection_check && oldest.detached)
            || (self.options.stale_latency_check && waited > silent_max(oldest.request.session));
        if self.options.requests_max == 0 || in_process < self.options.requests_max {
            self.look_again = None;
            let Waiting { front, request, .. } = self.waiting.pop_front().expect("there is an oldest");
            return Next::Serve { front, request, stale };
        }
        if stale && self.options.drop_stale {
            return self.drop_oldest();
        }
        let stalled = self.look_again.is_none_or(|look_again| look_again <= now);
        if stalled {
            self.look_again = Some(now + self.options.stall_time);
        }
        Next::Wait { stalled }
    }

    /// When a stall is looked at again: what waits may have become stale.
    pub fn next_timer(&self) -> Option<Instant> {
        self.look_again
    }

    /// Whether a request that waited for so long is answered without being done.
    pub fn is_throttled(&self, waited: Duration) -> bool {
        !self.options.op_wait_max.is_zero() && waited > self.options.op_wait_max
    }

    fn drop_oldest(&mut self) -> Next {
        let Waiting { front, request, detached } = self.waiting.pop_front().expect("there is an oldest");
        let is_last = !self.waiting.iter().any(|waiting| waiting.is_of(front, request.conn));
        if detached && is_last {
            self.invalid.remove(&(front, request.conn));
        } else {
            self.invalid.insert((front, request.conn));
        }
        Next::Drop { front, request }
    }
}

impl Waiting {
    fn is_of(&self, front: usize, conn: ConnId) -> bool {
        self.front == front && self.request.conn == conn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn throttle(options: ConnectionThrottleOptions) -> ConnectionThrottle {
        ConnectionThrottle::new(options, 7, at(1000))
    }

    #[test]
    fn the_bucket_fills_with_time_and_weights_draw_from_it() {
        let mut bucket = throttle(ConnectionThrottleOptions {
            tokens_max: 5,
            fill_time: Duration::from_millis(10),
            fill_count: 2,
            open_weight: 3,
            renew_weight: 2,
            ..ConnectionThrottleOptions::default()
        });
        assert!(bucket.admit(at(1000), false) && bucket.admit(at(1000), true));
        assert_eq!(bucket.deficit(), 5);
        assert!(!bucket.admit(at(1009), true));
        assert!(!bucket.admit(at(1010), false), "two tokens are there, three wanted");
        assert!(bucket.admit(at(1019), true));
        // Attempts that fail do not keep the bucket from filling.
        assert!((1020..1030).all(|ms| !bucket.admit(at(ms), false)));
        assert!(bucket.admit(at(1030), false));
        assert_eq!(bucket.deficit(), 4);
        bucket.fill(at(999_999));
        assert_eq!(bucket.deficit(), 0);
    }

    #[test]
    fn the_random_drop_grows_while_the_bucket_is_empty_and_falls_after() {
        let mut bucket = throttle(ConnectionThrottleOptions {
            tokens_max: 1,
            fill_time: Duration::from_secs(1),
            freeze_time: Some(Duration::from_millis(10)),
            drop_increase: 0.5,
            drop_decrease: 0.25,
            ..ConnectionThrottleOptions::default()
        });
        assert!(bucket.admit(at(1000), false));
        for ms in [1011, 1022, 1033] {
            assert!(!bucket.admit(at(ms), false));
        }
        assert_eq!(bucket.drop_probability(), 1.0);
        // Certain to be dropped, though there is a token again: and so it falls.
        bucket.fill(at(2000));
        assert_eq!(bucket.deficit(), 0);
        bucket.admit(at(2011), false);
        assert_eq!(bucket.drop_probability(), 0.75);
    }

    #[test]
    fn without_tokens_to_hold_all_may_come() {
        let mut bucket = throttle(ConnectionThrottleOptions::default());
        assert!((0..10_000).all(|_| bucket.admit(at(1000), false)));
        assert_eq!(bucket.deficit(), 0);
    }
}
