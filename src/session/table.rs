//! The leases, and when they end.
//!
//! A lease ends on a tick: `((heard + timeout) / tick + 1) * tick` in whole milliseconds, so between the timeout and one tick
//! more after the client was last heard from, and never early. Source: ZooKeeper `ExpiryQueue#roundToNextInterval`.
//!
//! Sessions wait in buckets, one for each such instant, chained through their entries. Hearing from a client only notes the
//! time: the entry moves to its new bucket when its old one ends. So a touch costs one lookup, a session one move in each
//! timeout, and [`SessionTable::due`] reports only those whose lease is over by what the table knows.
//!
//! The fronts know better, since most requests never come here. So what is due is not yet expired: the caller asks the front
//! that owns the connection, and passes its answer to [`SessionTable::decide`]. A session is reported once and then waits for that
//! answer, or for [`SessionTable::touch`], outside of all buckets.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::stdx::slab::Slab;
use crate::types::{Instant, SessionId};

/// No entry, in a chain.
const NONE: u32 = u32::MAX;
/// Bucket of a session that is in none. No real bucket ends at zero.
const NO_BUCKET: u64 = 0;

/// The connection that speaks for a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Owner {
    /// Index of the front that holds the connection.
    pub front: u16,
    pub conn: u32,
}

/// A client's lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    pub id: SessionId,
    /// As last negotiated; what expiry goes by.
    pub timeout_ms: i32,
    /// As the createSession transaction has it; what snapshots hold and expiry goes by after a restart.
    pub timeout_ms_stored: i32,
    pub owner: Option<Owner>,
    /// A closeSession is on its way: the session takes no requests and does not expire once more.
    pub closing: bool,
}

/// What becomes of a session that was due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Heard {
    /// The client was heard from in time.
    Alive,
    /// It was not. The caller closes the session.
    Expired,
    /// There is no such session any more, or it is closing already.
    Gone,
}

#[derive(Debug)]
pub struct SessionTable {
    tick_ms: u64,
    hash: FixedState,
    entries: Slab<Entry>,
    index: HashTable<u32>,
    /// By the milliseconds at which they end: first and last of the sessions in them, in the order they came.
    buckets: BTreeMap<u64, Bucket>,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    heard: Instant,
    /// The bucket it stands in. Ends no later than the lease does.
    bucket_ms: u64,
    prev: u32,
    next: u32,
}

const _: () = assert!(size_of::<Entry>() == 56);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    first: u32,
    last: u32,
}

impl SessionTable {
    /// `tick_ms` is `tickTime`. The seed changes no outcome. Panics if a tick is zero.
    pub fn new(tick_ms: u32, hash_seed: u64) -> SessionTable {
        assert!(tick_ms > 0, "tickTime is at least one millisecond");
        SessionTable {
            tick_ms: u64::from(tick_ms),
            hash: FixedState::with_seed(hash_seed),
            entries: Slab::new(),
            index: HashTable::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Adds a session without an owner, heard from at `now`. False, and nothing changed, if the id is known.
    pub fn insert(&mut self, id: SessionId, timeout_ms: i32, now: Instant) -> bool {
        if self.find(id).is_some() {
            return false;
        }
        let session = Session { id, timeout_ms, timeout_ms_stored: timeout_ms, owner: None, closing: false };
        let entry = Entry { session, heard: now, bucket_ms: NO_BUCKET, prev: NONE, next: NONE };
        let n = self.entries.insert(entry);
        let (hash, entries) = (&self.hash, &self.entries);
        self.index.insert_unique(hash.hash_one(id), n, |&n| hash.hash_one(entries[n].session.id));
        self.enqueue(n);
        true
    }

    pub fn get(&self, id: SessionId) -> Option<&Session> {
        Some(&self.entries[self.find(id)?].session)
    }

    pub fn contains(&self, id: SessionId) -> bool {
        self.find(id).is_some()
    }

    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        let n = self.find(id)?;
        self.dequeue(n);
        self.index.find_entry(self.hash.hash_one(id), |&other| other == n).expect("found above").remove();
        Some(self.entries.remove(n).session)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All sessions by id. Sorts their numbers first.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        let mut order: Vec<(SessionId, u32)> =
            self.entries.iter().map(|(n, entry)| (entry.session.id, n)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, n)| &self.entries[n].session)
    }

    /// Makes `owner` speak for the session, and gives who did before. The caller closes that connection if it is another.
    /// `Err` if there is no such session or it is closing.
    pub fn attach(&mut self, id: SessionId, owner: Owner) -> Result<Option<Owner>, Heard> {
        let n = self.find(id).ok_or(Heard::Gone)?;
        let session = &mut self.entries[n].session;
        if session.closing {
            return Err(Heard::Gone);
        }
        Ok(session.owner.replace(owner))
    }

    /// The connection is gone. False if it does not speak for the session, which may have moved on meanwhile.
    pub fn detach(&mut self, id: SessionId, owner: Owner) -> bool {
        let Some(n) = self.find(id) else { return false };
        let session = &mut self.entries[n].session;
        let owned = session.owner == Some(owner);
        if owned {
            session.owner = None;
        }
        owned
    }

    /// Sets what a reconnecting client has negotiated. What is stored stays. False if there is no such session.
    pub fn set_timeout(&mut self, id: SessionId, timeout_ms: i32) -> bool {
        let Some(n) = self.find(id) else { return false };
        self.entries[n].session.timeout_ms = timeout_ms;
        if self.entries[n].bucket_ms > self.ends_ms(n) {
            self.dequeue(n);
            self.enqueue(n);
        }
        true
    }

    /// The client was heard from at `heard`, which may be older than what is known. False if there is no such session or it is
    /// closing.
    pub fn touch(&mut self, id: SessionId, heard: Instant) -> bool {
        let Some(n) = self.find(id) else { return false };
        let entry = &mut self.entries[n];
        if entry.session.closing {
            return false;
        }
        entry.heard = entry.heard.max(heard);
        if entry.bucket_ms == NO_BUCKET {
            self.enqueue(n);
        }
        true
    }

    /// Settles a session that was due by the last time its front heard from it; `None` if no connection speaks for it.
    ///
    /// After [`Heard::Expired`] it is not due again; [`SessionTable::mark_closing`] is what should follow.
    pub fn decide(&mut self, id: SessionId, heard: Option<Instant>, now: Instant) -> Heard {
        let Some(n) = self.find(id) else { return Heard::Gone };
        let entry = &mut self.entries[n];
        if entry.session.closing {
            return Heard::Gone;
        }
        entry.heard = entry.heard.max(heard.unwrap_or_default());
        if self.ends_ms(n) <= now.as_ms() {
            return Heard::Expired;
        }
        if self.entries[n].bucket_ms == NO_BUCKET {
            self.enqueue(n);
        }
        Heard::Alive
    }

    /// From here on the session takes no requests and is never due. False if there is no such session or it is closing already.
    pub fn mark_closing(&mut self, id: SessionId) -> bool {
        let Some(n) = self.find(id) else { return false };
        self.dequeue(n);
        !std::mem::replace(&mut self.entries[n].session.closing, true)
    }

    /// Appends the sessions whose lease is over at `now` by what is known here, each once; see the module's head.
    pub fn due(&mut self, now: Instant, due: &mut Vec<SessionId>) {
        let now_ms = now.as_ms();
        while let Some(bucket) = self.buckets.first_entry() {
            if *bucket.key() > now_ms {
                break;
            }
            let mut n = bucket.remove().first;
            while n != NONE {
                let entry = &mut self.entries[n];
                let next = entry.next;
                (entry.bucket_ms, entry.prev, entry.next) = (NO_BUCKET, NONE, NONE);
                if self.ends_ms(n) > now_ms {
                    self.enqueue(n);
                } else {
                    due.push(self.entries[n].session.id);
                }
                n = next;
            }
        }
    }

    /// When the lease ends by what is known here.
    pub fn ends(&self, id: SessionId) -> Option<Instant> {
        self.find(id).map(|n| Instant::from_ms(self.ends_ms(n)))
    }

    /// When [`SessionTable::due`] is to be called next. It may then find that all were heard from.
    pub fn next_due(&self) -> Option<Instant> {
        self.buckets.first_key_value().map(|(&ends_ms, _)| Instant::from_ms(ends_ms))
    }

    /// Starts all leases afresh with the stored timeouts: after a restart, or where this server takes over their expiry.
    pub fn restart_clocks(&mut self, now: Instant) {
        self.adjust(|entry| {
            entry.heard = now;
            entry.session.timeout_ms = entry.session.timeout_ms_stored;
        });
    }

    /// No connection speaks for any session, and none is closing: what was proposed and not decided may never be.
    pub fn forget_owners(&mut self) {
        for (_, entry) in self.entries.iter_mut() {
            entry.session.owner = None;
            entry.session.closing = false;
        }
    }

    /// Time in which this server did not run counts for no lease: what clients sent meanwhile could not be heard.
    pub fn forgive(&mut self, gap: Duration) {
        self.adjust(|entry| entry.heard = entry.heard + gap);
    }

    /// Bytes held, the allocator's own not.
    pub fn memory_bytes(&self) -> usize {
        // A bucket costs its key and value and a share of the tree's slack.
        let bucket_bytes = 2 * (size_of::<u64>() + size_of::<Bucket>());
        self.entries.memory_bytes() + self.index.allocation_size() + self.buckets.len() * bucket_bytes
    }

    /// Changes all entries and puts those that may expire into the right buckets, in the order of their ids.
    fn adjust(&mut self, change: impl Fn(&mut Entry)) {
        self.buckets.clear();
        let mut order: Vec<(SessionId, u32)> = Vec::with_capacity(self.entries.len());
        for (n, entry) in self.entries.iter_mut() {
            change(entry);
            (entry.bucket_ms, entry.prev, entry.next) = (NO_BUCKET, NONE, NONE);
            if !entry.session.closing {
                order.push((entry.session.id, n));
            }
        }
        order.sort_unstable();
        for (_, n) in order {
            self.enqueue(n);
        }
    }

    fn find(&self, id: SessionId) -> Option<u32> {
        self.index.find(self.hash.hash_one(id), |&n| self.entries[n].session.id == id).copied()
    }

    /// The milliseconds at which the lease ends.
    fn ends_ms(&self, n: u32) -> u64 {
        let entry = &self.entries[n];
        let timeout_ms = u64::try_from(entry.session.timeout_ms).unwrap_or(0);
        (entry.heard.as_ms().saturating_add(timeout_ms) / self.tick_ms + 1).saturating_mul(self.tick_ms)
    }

    fn enqueue(&mut self, n: u32) {
        let ends_ms = self.ends_ms(n);
        let bucket = self.buckets.entry(ends_ms).or_insert(Bucket { first: n, last: NONE });
        let before = std::mem::replace(&mut bucket.last, n);
        let entry = &mut self.entries[n];
        assert!(entry.bucket_ms == NO_BUCKET, "a session stands in one bucket");
        (entry.bucket_ms, entry.prev, entry.next) = (ends_ms, before, NONE);
        if before != NONE {
            self.entries[before].next = n;
        }
    }

    fn dequeue(&mut self, n: u32) {
        let entry = &mut self.entries[n];
        let (bucket_ms, prev, next) = (entry.bucket_ms, entry.prev, entry.next);
        if bucket_ms == NO_BUCKET {
            return;
        }
        (entry.bucket_ms, entry.prev, entry.next) = (NO_BUCKET, NONE, NONE);
        if prev == NONE && next == NONE {
            self.buckets.remove(&bucket_ms);
            return;
        }
        let bucket = self.buckets.get_mut(&bucket_ms).expect("the bucket of a session that stands in it");
        match prev {
            NONE => bucket.first = next,
            prev => self.entries[prev].next = next,
        }
        match next {
            NONE => bucket.last = prev,
            next => self.entries[next].prev = prev,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK_MS: u32 = 1000;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn due(table: &mut SessionTable, now_ms: u64) -> Vec<i64> {
        let mut due = Vec::new();
        table.due(at(now_ms), &mut due);
        due.into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_lease_ends_on_the_next_tick_after_the_timeout() {
        // (heard, timeout, end): a whole tick later where the sum is on a tick.
        for (heard_ms, timeout_ms, ends_ms) in [
            (0, 2000, 3000),
            (1, 2000, 3000),
            (999, 2000, 3000),
            (1000, 2000, 4000),
            (500, 2500, 4000),
            (1499, 2500, 4000),
            (1500, 2500, 5000),
        ] {
            let mut table = SessionTable::new(TICK_MS, 1);
            assert!(table.insert(SessionId(1), timeout_ms, at(heard_ms)));
            assert_eq!(table.next_due(), Some(at(ends_ms)), "heard at {heard_ms}, timeout {timeout_ms}");
            assert!(due(&mut table, ends_ms - 1).is_empty());
            assert_eq!(due(&mut table, ends_ms), [1]);
            assert!(due(&mut table, ends_ms + 100_000).is_empty(), "reported once");
            assert_eq!(table.next_due(), None);
        }
    }

    #[test]
    fn part_of_a_millisecond_never_makes_a_lease_end_early() {
        let mut table = SessionTable::new(1, 1);
        table.insert(SessionId(1), 10, Instant(999_999));
        assert_eq!(table.next_due(), Some(Instant(11_000_000)));
    }

    #[test]
    fn what_was_heard_from_moves_on_when_its_bucket_ends() {
        let mut table = SessionTable::new(TICK_MS, 1);
        table.insert(SessionId(1), 2000, at(0));
        table.insert(SessionId(2), 2000, at(0));
        assert!(table.touch(SessionId(1), at(1500)));
        assert!(table.touch(SessionId(1), at(700)), "an older time changes nothing");
        assert_eq!(table.next_due(), Some(at(3000)), "touching moves nothing yet");
        assert_eq!(due(&mut table, 3000), [2]);
        assert_eq!(table.next_due(), Some(at(4000)));
        assert_eq!(due(&mut table, 4000), [1]);
        assert!(!table.touch(SessionId(3), at(4000)));
    }

    #[test]
    fn what_is_due_is_settled_by_what_the_front_has_heard() {
        let mut table = SessionTable::new(TICK_MS, 1);
        for id in 1..=4 {
            table.insert(SessionId(id), 2000, at(0));
        }
        assert_eq!(due(&mut table, 3000), [1, 2, 3, 4]);
        assert_eq!(table.decide(SessionId(1), Some(at(2900)), at(3000)), Heard::Alive);
        assert_eq!(table.decide(SessionId(2), Some(at(999)), at(3000)), Heard::Expired);
        assert_eq!(table.decide(SessionId(3), None, at(3000)), Heard::Expired);
        // The answer comes late, and the client was heard from before its lease was over, and not since.
        assert_eq!(table.decide(SessionId(4), Some(at(1000)), at(3999)), Heard::Alive);
        assert!(table.mark_closing(SessionId(2)) && !table.mark_closing(SessionId(2)));
        assert_eq!(table.decide(SessionId(2), Some(at(3500)), at(3600)), Heard::Gone);
        assert_eq!(table.decide(SessionId(5), Some(at(3500)), at(3600)), Heard::Gone);
        assert!(!table.touch(SessionId(2), at(3500)));
        assert_eq!(due(&mut table, 100_000), [4, 1]);
    }

    #[test]
    fn timeouts_are_negotiated_anew_and_the_stored_one_stays() {
        let mut table = SessionTable::new(TICK_MS, 1);
        table.insert(SessionId(1), 10_000, at(0));
        assert!(table.set_timeout(SessionId(1), 4000) && !table.set_timeout(SessionId(2), 4000));
        assert_eq!(table.next_due(), Some(at(5000)), "a shorter lease ends earlier");
        table.set_timeout(SessionId(1), 20_000);
        assert!(due(&mut table, 5000).is_empty());
        assert_eq!(table.next_due(), Some(at(21_000)));
        let session = table.get(SessionId(1)).unwrap();
        assert_eq!((session.timeout_ms, session.timeout_ms_stored), (20_000, 10_000));
        table.restart_clocks(at(7000));
        assert_eq!(table.get(SessionId(1)).unwrap().timeout_ms, 10_000);
        assert_eq!(table.next_due(), Some(at(18_000)));
    }

    #[test]
    fn a_session_has_one_owner_and_a_late_farewell_of_another_is_ignored() {
        let (old, new) = (Owner { front: 0, conn: 1 }, Owner { front: 1, conn: 1 });
        let mut table = SessionTable::new(TICK_MS, 1);
        table.insert(SessionId(1), 10_000, at(0));
        assert!(!table.insert(SessionId(1), 5000, at(0)));
        assert_eq!(table.attach(SessionId(1), old), Ok(None));
        assert_eq!(table.attach(SessionId(1), new), Ok(Some(old)));
        assert!(!table.detach(SessionId(1), old));
        assert_eq!(table.get(SessionId(1)).unwrap().owner, Some(new));
        assert!(table.detach(SessionId(1), new));
        table.mark_closing(SessionId(1));
        assert_eq!(table.attach(SessionId(1), new), Err(Heard::Gone));
        assert_eq!(table.attach(SessionId(2), new), Err(Heard::Gone));
        assert_eq!(table.remove(SessionId(1)).unwrap().id, SessionId(1));
        assert_eq!(table.remove(SessionId(1)), None);
        assert!(table.is_empty());
    }

    /// A server that stood still expires nobody for it.
    #[test]
    fn a_gap_counts_for_no_lease() {
        let mut table = SessionTable::new(TICK_MS, 1);
        table.insert(SessionId(1), 2000, at(0));
        table.insert(SessionId(2), 2000, at(0));
        table.mark_closing(SessionId(2));
        table.touch(SessionId(1), at(1000));
        table.forgive(Duration::from_secs(60));
        assert!(due(&mut table, 61_500).is_empty());
        assert_eq!(table.next_due(), Some(at(64_000)));
        // What had been reported before the gap is settled by the later time, too.
        assert_eq!(due(&mut table, 64_000), [1]);
        table.forgive(Duration::from_secs(10));
        assert_eq!(table.decide(SessionId(1), Some(at(62_000)), at(73_999)), Heard::Alive);
        assert_eq!(due(&mut table, 74_000), [1]);
    }

    #[test]
    fn fifty_thousand_sessions_cost_little() {
        let mut table = SessionTable::new(TICK_MS, 1);
        let count = 50_000;
        for id in 0..count {
            table.insert(SessionId(0x100_0000_0000_0000 + id), 10_000, at(id as u64 / 10));
        }
        let bytes = table.memory_bytes() / count as usize;
        assert!(bytes <= 72, "{bytes} bytes a session");
        assert!(table.iter().map(|session| session.id).is_sorted());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(i64, i32),
        Touch(i64, u64),
        SetTimeout(i64, i32),
        MarkClosing(i64),
        Remove(i64),
        Decide(i64, Option<u64>),
        Forgive(u64),
        Restart,
        Due,
        Wait(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let id = || 0i64..12;
        let timeout = || -1i32..5000;
        prop_oneof![
            4 => (id(), timeout()).prop_map(|(id, timeout_ms)| Op::Insert(id, timeout_ms)),
            4 => (id(), 0u64..3000).prop_map(|(id, ago_ms)| Op::Touch(id, ago_ms)),
            1 => (id(), timeout()).prop_map(|(id, timeout_ms)| Op::SetTimeout(id, timeout_ms)),
            1 => id().prop_map(Op::MarkClosing),
            1 => id().prop_map(Op::Remove),
            2 => (id(), prop::option::of(0u64..3000)).prop_map(|(id, ago_ms)| Op::Decide(id, ago_ms)),
            1 => (0u64..4000).prop_map(Op::Forgive),
            1 => Just(Op::Restart),
            4 => Just(Op::Due),
            6 => (1u64..1500).prop_map(Op::Wait),
        ]
    }

    /// A session as the naive model has it.
    #[derive(Clone, Debug)]
    struct Lease {
        heard_ms: u64,
        timeout_ms: i32,
        stored_ms: i32,
        closing: bool,
        /// Has been reported and not settled.
        reported: bool,
    }

    impl Lease {
        fn ends_ms(&self, tick_ms: u64) -> u64 {
            ((self.heard_ms + self.timeout_ms.max(0) as u64) / tick_ms + 1) * tick_ms
        }
    }

    proptest! {
        #[test]
        fn expires_exactly_what_was_not_heard_from(ops in prop::collection::vec(op(), 1..300), tick_ms in 1u32..2000) {
            let mut table = SessionTable::new(tick_ms, 7);
            let mut model: BTreeMap<i64, Lease> = BTreeMap::new();
            let mut now_ms = 10_000;
            let tick = u64::from(tick_ms);
            for op in ops {
                match op {
                    Op::Wait(ms) => now_ms += ms,
                    Op::Insert(id, timeout_ms) => {
                        let new = !model.contains_key(&id);
                        if new {
                            let stored_ms = timeout_ms;
                            model.insert(id, Lease { heard_ms: now_ms, timeout_ms, stored_ms, closing: false, reported: false });
                        }
                        prop_assert_eq!(table.insert(SessionId(id), timeout_ms, at(now_ms)), new);
                    }
                    Op::Touch(id, ago_ms) => {
                        let lease = model.get_mut(&id).filter(|lease| !lease.closing);
                        let known = lease.is_some();
                        if let Some(lease) = lease {
                            lease.heard_ms = lease.heard_ms.max(now_ms - ago_ms);
                            lease.reported = false;
                        }
                        prop_assert_eq!(table.touch(SessionId(id), at(now_ms - ago_ms)), known);
                    }
                    Op::SetTimeout(id, timeout_ms) => {
                        let lease = model.get_mut(&id);
                        prop_assert_eq!(table.set_timeout(SessionId(id), timeout_ms), lease.is_some());
                        if let Some(lease) = lease {
                            lease.timeout_ms = timeout_ms;
                        }
                    }
                    Op::MarkClosing(id) => {
                        let lease = model.get_mut(&id);
                        let news = lease.is_some_and(|lease| !std::mem::replace(&mut lease.closing, true));
                        prop_assert_eq!(table.mark_closing(SessionId(id)), news);
                    }
                    Op::Remove(id) => {
                        prop_assert_eq!(table.remove(SessionId(id)).is_some(), model.remove(&id).is_some());
                    }
                    Op::Decide(id, ago_ms) => {
                        let heard_ms = ago_ms.map(|ago_ms| now_ms - ago_ms);
                        let expected = match model.get_mut(&id).filter(|lease| !lease.closing) {
                            None => Heard::Gone,
                            Some(lease) => {
                                lease.heard_ms = lease.heard_ms.max(heard_ms.unwrap_or(0));
                                if lease.ends_ms(tick) <= now_ms {
                                    Heard::Expired
                                } else {
                                    lease.reported = false;
                                    Heard::Alive
                                }
                            }
                        };
                        prop_assert_eq!(table.decide(SessionId(id), heard_ms.map(at), at(now_ms)), expected);
                    }
                    Op::Forgive(gap_ms) => {
                        for lease in model.values_mut() {
                            lease.heard_ms += gap_ms;
                            lease.reported = false;
                        }
                        table.forgive(Duration::from_millis(gap_ms));
                        now_ms += gap_ms;
                    }
                    Op::Restart => {
                        for lease in model.values_mut() {
                            (lease.heard_ms, lease.timeout_ms, lease.reported) = (now_ms, lease.stored_ms, false);
                        }
                        table.restart_clocks(at(now_ms));
                    }
                    Op::Due => {
                        let mut found = due(&mut table, now_ms);
                        found.sort_unstable();
                        let mut expected = Vec::new();
                        for (&id, lease) in &mut model {
                            if !lease.closing && !lease.reported && lease.ends_ms(tick) <= now_ms {
                                lease.reported = true;
                                expected.push(id);
                            }
                        }
                        prop_assert_eq!(found, expected);
                    }
                }
                let ends = model.values().filter(|lease| !lease.closing && !lease.reported).map(|lease| lease.ends_ms(tick));
                // The table may wake early for one that was touched, never late.
                match (table.next_due(), ends.min()) {
                    (next, Some(ends_ms)) => prop_assert!(next.is_some_and(|next| next <= at(ends_ms))),
                    (next, None) => prop_assert_eq!(next, None),
                }
                prop_assert!(table.iter().map(|session| session.id.0).eq(model.keys().copied()));
            }
        }
    }
}
