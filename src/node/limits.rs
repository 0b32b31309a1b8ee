//! Limits that count over all fronts.
//!
//! Connections are counted before a front hears of them, so the shell keeps one [`ConnectionLimits`] behind a lock: accepting is not
//! the data path. What counts on the data path is in [`Shares`]: each front writes only its own line of memory, and large requests,
//! which are rare, one counter.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::stdx::sync::{AtomicU64, Ordering, Padded};
use crate::types::Instant;

/// Refusals told one by one in each [`TELL_EVERY`]; the rest is summed up, so that a flood does not fill the disk.
const TOLD_MAX: u32 = 10;
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Bytes of a request from which on its bytes count; smaller ones are bounded well enough by their number.
pub const COUNTED_BYTES_MIN: usize = 4096;
/// Bytes that requests under way may have together, so that a flood of large writes waits in sockets and not in memory. A lone
/// request always has room.
pub const UNDER_WAY_BYTES_MAX: u64 = 256 << 20;

/// How many connections there are, and from where.
#[derive(Debug)]
pub struct ConnectionLimits {
    /// `maxClientCnxns`; zero is no limit.
    per_address_max: u32,
    /// `maxCnxns`; zero is no limit.
    total_max: u32,
    by_address: HashMap<IpAddr, u32, FixedState>,
    total: u32,
    /// When the present interval of telling began, and what it has told and kept back.
    telling_since: Instant,
    told: u32,
    untold: u64,
}

impl ConnectionLimits {
    /// Zero is no limit. The seed keeps outsiders from choosing addresses that collide.
    pub fn new(per_address_max: u32, total_max: u32, hash_seed: u64) -> ConnectionLimits {
        ConnectionLimits {
            per_address_max,
            total_max,
            by_address: HashMap::with_hasher(FixedState::with_seed(hash_seed)),
            total: 0,
            telling_since: Instant::default(),
            told: 0,
            untold: 0,
        }
    }

    /// Counts a connection that came. False: it is one too many, is not counted, and is to be closed at once, without a byte.
    /// Source: ZooKeeper `NIOServerCnxnFactory.AcceptThread#doAccept`.
    pub fn enter(&mut self, now: Instant, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.total_max > 0 && self.total >= self.total_max {
            if self.may_tell(now) {
                tracing::warn!("Too many connections - max is {}, refusing /{address}", self.total_max);
            }
            return false;
        }
        let from_there = self.by_address.entry(address).or_insert(0);
        if self.per_address_max > 0 && *from_there >= self.per_address_max {
            if self.may_tell(now) {
                // As operators search for it.
                tracing::warn!("Too many connections from /{address} - max is {}", self.per_address_max);
            }
            return false;
        }
        *from_there += 1;
        self.total += 1;
        true
    }

    /// A connection that was counted is no more.
    pub fn leave(&mut self, address: IpAddr) {
        let Entry::Occupied(mut entry) = self.by_address.entry(address.to_canonical()) else {
            panic!("a connection from {address} leaves that never entered");
        };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
        self.total -= 1;
    }

    /// Connections there are.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Whether this refusal is told by itself.
    fn may_tell(&mut self, now: Instant) -> bool {
        if now.since(self.telling_since) >= TELL_EVERY {
            if self.untold > 0 {
                tracing::warn!(
                    "Too many connections: {} more were refused and not told one by one",
                    self.untold
                );
            }
            (self.telling_since, self.told, self.untold) = (now, 0, 0);
        }
        if self.told < TOLD_MAX {
            self.told += 1;
            return true;
        }
        self.untold += 1;
        false
    }
}

/// What fronts know of each other without a message.
#[derive(Debug)]
pub struct Shares {
    /// Requests under way of each front, as of its last turn.
    outstanding: Box<[Padded<AtomicU64>]>,
    /// Bytes of requests under way, those up to [`COUNTED_BYTES_MIN`] left out.
    under_way_bytes: AtomicU64,
    /// Of them, the bytes of large requests.
    large_bytes: AtomicU64,
    /// `largeRequestMaxBytes`.
    large_bytes_max: u64,
}

impl Shares {
    pub fn new(front_count: usize, large_bytes_max: u64) -> Shares {
        Shares {
            outstanding: (0..front_count).map(|_| Padded::default()).collect(),
            under_way_bytes: AtomicU64::new(0),
            large_bytes: AtomicU64::new(0),
            large_bytes_max,
        }
    }

    /// Notes a front's count and gives the sum of all others'. The numbers limit and order nothing: that they may be a turn old
    /// moves the limit by what a turn takes in.
    pub fn exchange_outstanding(&self, front: usize, count: u64) -> u64 {
        self.outstanding[front].0.store(count, Ordering::Relaxed);
        let others = self.outstanding.iter().enumerate().filter(|(index, _)| *index != front);
        others.map(|(_, slot)| slot.0.load(Ordering::Relaxed)).sum()
    }

    /// Takes room for a request of so many bytes; of `largeRequestMaxBytes` too, if it `is_large`.
    pub fn take(self: &Arc<Shares>, bytes: u64, is_large: bool) -> Taken {
        let mut share = BytesShare { shares: self.clone(), bytes, is_large: false };
        let under_way = self.under_way_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Dropping what is too much gives it back.
        if under_way > 0 && under_way + bytes > UNDER_WAY_BYTES_MAX {
            return Taken::NotYet;
        }
        if is_large {
            share.is_large = true;
            let large = self.large_bytes.fetch_add(bytes, Ordering::Relaxed);
            if large + bytes > self.large_bytes_max {
                return Taken::Never;
            }
        }
        Taken::Share(share)
    }

    /// Whether a request of so many bytes would have room now.
    pub fn has_large_room(&self, bytes: u64) -> bool {
        self.large_bytes.load(Ordering::Relaxed) + bytes <= self.large_bytes_max
    }
}

/// What asking for room gives.
#[derive(Debug)]
pub enum Taken {
    Share(BytesShare),
    /// There will be room when other requests are answered.
    NotYet,
    /// `largeRequestMaxBytes` would be exceeded, which ends the connection.
    Never,
}

/// A request's bytes, counted as long as it is under way.
#[derive(Debug)]
pub struct BytesShare {
    shares: Arc<Shares>,
    bytes: u64,
    is_large: bool,
}

impl Drop for BytesShare {
    fn drop(&mut self) {
        self.shares.under_way_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.is_large {
            self.shares.large_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn connections_count_by_address_and_in_all_until_they_leave() {
        let now = Instant::from_ms(5000);
        let mut limits = ConnectionLimits::new(2, 3, 1);
        assert!(limits.enter(now, ip(1)) && limits.enter(now, ip(1)));
        assert!(!limits.enter(now, ip(1)), "the address has its two");
        assert!(!limits.enter(now, "::ffff:10.0.0.1".parse().unwrap()), "the same address in other words");
        assert!(limits.enter(now, ip(2)));
        assert!(!limits.enter(now, ip(3)), "three are all");
        limits.leave("::ffff:10.0.0.1".parse().unwrap());
        assert!(limits.enter(now, ip(1)));
        for address in [ip(1), ip(1), ip(2)] {
            limits.leave(address);
        }
        assert_eq!(limits.total(), 0);
        assert!(limits.by_address.values().all(|count| *count == 0));
        let mut unlimited = ConnectionLimits::new(0, 0, 1);
        assert!((0..1000).all(|_| unlimited.enter(now, ip(1))));
    }

    /// A flood from ever new addresses leaves nothing behind, and a bounded number of lines.
    #[test]
    fn a_flood_costs_neither_memory_nor_lines() {
        let mut limits = ConnectionLimits::new(1, 1, 1);
        let now = Instant::from_ms(5000);
        assert!(limits.enter(now, ip(1)));
        for last in 2..=255 {
            assert!(!limits.enter(now, ip(last)));
        }
        assert_eq!(
            (limits.by_address.len(), limits.told, limits.untold),
            (1, TOLD_MAX, 254 - u64::from(TOLD_MAX))
        );
        assert!(!limits.enter(now + TELL_EVERY, ip(2)));
        assert_eq!((limits.told, limits.untold), (1, 0));
    }

    #[test]
    fn what_is_under_way_is_bounded_and_a_lone_request_always_has_room() {
        let shares = Arc::new(Shares::new(1, 0));
        let Taken::Share(huge) = shares.take(UNDER_WAY_BYTES_MAX + 1, false) else {
            panic!("nothing else is there")
        };
        assert!(matches!(shares.take(1, false), Taken::NotYet));
        drop(huge);
        assert!(matches!(shares.take(UNDER_WAY_BYTES_MAX, false), Taken::Share(_)));
        assert!(matches!(shares.take(1, true), Taken::Never));
        assert_eq!(shares.under_way_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn large_bytes_come_back_when_dropped() {
        let shares = Arc::new(Shares::new(2, 100));
        let take = |bytes| match shares.take(bytes, true) {
            Taken::Share(share) => Some(share),
            Taken::Never => None,
            Taken::NotYet => panic!("far below what may be under way"),
        };
        let first = take(60).expect("all is free");
        assert!(!shares.has_large_room(41) && shares.has_large_room(40));
        assert!(take(41).is_none());
        let second = take(40).expect("just fits");
        drop(first);
        assert!(take(60).is_some());
        drop(second);
        assert!(shares.has_large_room(100));
        assert_eq!(shares.exchange_outstanding(0, 3), 0);
        assert_eq!(shares.exchange_outstanding(1, 4), 3);
        assert_eq!(shares.exchange_outstanding(0, 1), 4);
    }
}
