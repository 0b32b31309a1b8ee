//! Elections joined directly: what one sends arrives at the other after a delay, in order.

use std::collections::BTreeMap;

use super::*;
use crate::stdx::rng::Rng;

const MS: Duration = Duration::from_millis(1);

fn membership(voters: u8, observers: u8, rest: &str) -> Membership {
    let mut text = String::new();
    for id in 1..=voters + observers {
        let role = if id <= voters { "participant" } else { "observer" };
        text.push_str(&format!("server.{id}=h{id}:1:2:{role}\n"));
    }
    Membership::parse((text + rest).as_bytes()).unwrap()
}

struct Server {
    election: Election,
    elected: Option<(ServerId, Instant)>,
    deserted: Vec<ServerId>,
}

/// All servers and what is on its way between them.
struct World {
    now: Instant,
    rng: Rng,
    /// One way, in nanoseconds, plus up to as much at random.
    delay: u64,
    membership: Membership,
    servers: BTreeMap<ServerId, Server>,
    on_way: BTreeMap<(Instant, u64), (ServerId, ServerId, Notification)>,
    sequence: u64,
    sent: u64,
}

impl World {
    fn new(membership: Membership, seed: u64) -> World {
        World {
            now: Instant::from_ms(1000),
            rng: Rng::new(seed),
            delay: 100_000,
            membership,
            servers: BTreeMap::new(),
            on_way: BTreeMap::new(),
            sequence: 0,
            sent: 0,
        }
    }

    /// Starts a server; it is connected to all that are there.
    fn start(&mut self, id: u8, zxid: i64, epoch: u32) {
        self.start_with(id, zxid, epoch, EmptyVote::Counts);
    }

    fn start_with(&mut self, id: u8, zxid: i64, epoch: u32, empty: EmptyVote) {
        let id = ServerId(id);
        let options = ElectionOptions { empty, ..ElectionOptions::new(id) };
        let mut election = Election::new(options, &self.membership);
        for (other, server) in &mut self.servers {
            server.election.connected(id);
            election.connected(*other);
        }
        self.servers.insert(id, Server { election, elected: None, deserted: Vec::new() });
        self.look(id.0, zxid, epoch);
    }

    fn look(&mut self, id: u8, zxid: i64, epoch: u32) {
        let now = self.now;
        let server = self.servers.get_mut(&ServerId(id)).unwrap();
        server.elected = None;
        server.election.look(now, Zxid(zxid), Epoch(epoch));
        self.carry();
    }

    fn stop(&mut self, id: u8) {
        self.servers.remove(&ServerId(id));
        self.on_way.retain(|_, (from, ..)| from.0 != id);
        for server in self.servers.values_mut() {
            server.election.lost(self.now, ServerId(id));
        }
        self.carry();
    }

    /// Takes what servers owe.
    fn carry(&mut self) {
        let mut outputs = Vec::new();
        for (&from, server) in &mut self.servers {
            server.election.drain(&mut outputs);
            for output in outputs.drain(..) {
                match output {
                    Output::Send { to, notification } => {
                        assert_ne!(from, to);
                        self.sent += 1;
                        self.sequence += 1;
                        let took = Duration::from_nanos(self.delay + self.rng.below(self.delay));
                        // Not before what was sent before.
                        let of_pair = self.on_way.iter().filter(|(_, (a, b, _))| (*a, *b) == (from, to));
                        let last = of_pair.map(|((at, _), _)| *at).max().unwrap_or_default();
                        let at = last.max(self.now + took);
                        self.on_way.insert((at, self.sequence), (from, to, notification));
                    }
                    Output::Elected { leader, .. } => server.elected = Some((leader, self.now)),
                    Output::Deserted { voter } => server.deserted.push(voter),
                    Output::DialAll => {}
                }
            }
        }
    }

    /// The next thing that happens, unless that is later than `until`.
    fn step(&mut self, until: Instant) -> bool {
        let arrival = self.on_way.first_key_value().map(|((at, _), _)| *at);
        let timer = self.servers.values().filter_map(|server| server.election.next_timer()).min();
        let Some(at) = arrival.into_iter().chain(timer).min().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if arrival == Some(at) {
            let (_, (from, to, notification)) = self.on_way.pop_first().unwrap();
            if let Some(server) = self.servers.get_mut(&to) {
                server.election.notification(self.now, from, &notification);
            }
        } else {
            for server in self.servers.values_mut() {
                if server.election.next_timer().is_some_and(|timer| timer <= self.now) {
                    server.election.on_timer(self.now);
                }
            }
        }
        self.carry();
        true
    }

    /// Runs until everybody has the same leader, and says who that is and when the last one knew.
    fn settle(&mut self, within: Duration) -> (u8, Duration) {
        let begun = self.now;
        loop {
            let leaders: Vec<_> = self.servers.values().filter_map(|server| server.elected).collect();
            if leaders.len() == self.servers.len() && leaders.iter().all(|(id, _)| *id == leaders[0].0) {
                let last = leaders.iter().map(|(_, at)| *at).max().unwrap();
                return (leaders[0].0.0, last.since(begun));
            }
            if !self.step(begun + within) {
                let votes: Vec<_> =
                    self.servers.iter().map(|(id, s)| (id.0, s.elected, s.election.current())).collect();
                panic!("no leader after {within:?}: {votes:#?}");
            }
        }
    }
}

#[test]
fn the_most_complete_log_wins_in_every_size_and_order() {
    for seed in 0..60 {
        for voters in [1, 2, 3, 5, 7] {
            let mut world = World::new(membership(voters, (seed % 3) as u8, ""), seed);
            let mut best = (0, 0, 0);
            let mut order: Vec<u8> = (1..=voters + (seed % 3) as u8).collect();
            for index in (1..order.len()).rev() {
                order.swap(index, world.rng.below(index as u64 + 1) as usize);
            }
            for id in order {
                let (epoch, zxid) = (world.rng.below(3) as u32, world.rng.below(4) as i64);
                world.start(id, zxid, epoch);
                if id <= voters {
                    best = best.max((epoch, zxid, id));
                }
            }
            let (leader, took) = world.settle(Duration::from_secs(2));
            assert_eq!(leader, best.2, "seed {seed}, {voters} voters");
            // Observers ask again after a fifth of a second at the latest.
            assert!(took < 250 * MS, "seed {seed}: {took:?}");
            for (id, server) in &world.servers {
                assert!(!server.election.is_looking());
                let state = server.election.current().state;
                let expected = match id.0 {
                    id if id == leader => ServerState::Leading,
                    id if id <= voters => ServerState::Following,
                    _ => ServerState::Observing,
                };
                assert_eq!(state, expected);
            }
        }
    }
}

#[test]
fn three_servers_agree_within_the_network_delay_when_the_leader_dies() {
    let mut slowest = Duration::ZERO;
    for seed in 0..200 {
        let mut world = World::new(membership(3, 0, ""), seed);
        for id in 1..=3 {
            world.start(id, 7, 1);
        }
        assert_eq!(world.settle(Duration::from_secs(1)).0, 3);
        world.step(world.now + 500 * MS);
        world.stop(3);
        // Both notice, one after the other, in either order; either may have more.
        let (first, second) = if seed % 2 == 0 { (1, 2) } else { (2, 1) };
        let begun = world.now;
        world.look(first, 7 + world.rng.clone().below(2) as i64, 1);
        let pause = Duration::from_nanos(world.rng.below(1_000_000));
        let until = begun + pause;
        while world.step(until) {}
        world.look(second, 7, 1);
        let (_, took) = world.settle(Duration::from_secs(1));
        slowest = slowest.max(took);
    }
    // Two trips of at most 0.2 ms after the second has noticed.
    assert!(slowest <= Duration::from_micros(400), "{slowest:?}");
}

#[test]
fn a_missing_voter_is_waited_for_once_and_not_again() {
    let mut world = World::new(membership(3, 0, ""), 1);
    world.start(1, 5, 1);
    world.start(2, 5, 1);
    // Server 3 may only be slow.
    let (leader, took) = world.settle(Duration::from_secs(1));
    assert!(leader == 2 && (200 * MS..202 * MS).contains(&took), "{took:?}");
    world.look(1, 5, 1);
    world.look(2, 5, 1);
    let (leader, took) = world.settle(Duration::from_secs(1));
    assert!(leader == 2 && took < MS, "{took:?}");
}

#[test]
fn late_servers_find_the_leader_whatever_they_bring() {
    for (zxid, epoch) in [(0, 0), (9, 9), (UNTRUSTED.0, 0)] {
        for voters in [3, 5] {
            let mut world = World::new(membership(voters, 1, ""), 5);
            for id in 2..=voters {
                world.start(id, 5, 1);
            }
            let (leader, _) = world.settle(Duration::from_secs(1));
            assert_eq!(leader, voters);
            // Some have begun the new epoch, some have not yet.
            for id in 2..=voters {
                world.step(world.now + 10 * MS);
                world.servers.get_mut(&ServerId(id)).unwrap().election.set_epoch(Epoch(2));
                if id == 3 {
                    world.start(1, zxid, epoch);
                }
                world.carry();
            }
            world.start(voters + 1, 0, 0);
            let (leader, took) = world.settle(Duration::from_secs(2));
            assert!(leader == voters && took <= 2 * MS, "{took:?}");
            assert_eq!(world.servers[&ServerId(1)].election.current().peer_epoch, 2);
            // It may itself tell others.
            world.start(1, zxid, epoch);
            assert_eq!(world.settle(Duration::from_secs(1)).0, voters);
        }
    }
}

#[test]
fn who_asked_is_told_the_outcome() {
    let mut world = World::new(membership(3, 1, ""), 5);
    for id in 1..=4 {
        world.start(id, 5, 1);
    }
    world.settle(Duration::from_secs(1));
    world.stop(3);
    // The observer misses the leader first, and has had its answers before the voters agree.
    world.look(4, 0, 0);
    let until = world.now + MS;
    while world.step(until) {}
    world.look(1, 5, 1);
    world.look(2, 5, 1);
    let (leader, took) = world.settle(Duration::from_secs(1));
    assert!(leader == 2 && took < MS, "{took:?}");
}

#[test]
fn untrusted_data_elect_nobody() {
    let mut world = World::new(membership(3, 0, ""), 6);
    world.start(1, UNTRUSTED.0, 9);
    world.start(2, 0, 0);
    let until = world.now + Duration::from_secs(20);
    while world.step(until) {}
    assert!(world.servers.values().all(|server| server.elected.is_none()));
    world.start(3, 0, 0);
    assert_eq!(world.settle(Duration::from_secs(2)).0, 3);
}

/// A server that lost its data does not help one that lacks what was acknowledged (S9): 3 has all, and is away.
#[test]
fn an_empty_server_has_no_vote_once_others_show_data() {
    for empty in [EmptyVote::Founds, EmptyVote::Never] {
        for seed in 0..50 {
            let mut world = World::new(membership(3, 0, ""), seed);
            if seed % 2 == 0 {
                world.start(2, 5, 1);
            }
            world.start_with(1, 0, 0, empty);
            if seed % 2 == 1 {
                world.start(2, 5, 1);
            }
            let until = world.now + Duration::from_secs(5);
            while world.step(until) {}
            // Nor after it looked again.
            world.look(1, 0, 0);
            let until = world.now + Duration::from_secs(5);
            while world.step(until) {}
            assert!(world.servers.values().all(|server| server.elected.is_none()), "seed {seed}");
            world.start(3, 9, 1);
            assert_eq!(world.settle(Duration::from_secs(2)).0, 3, "seed {seed}");
            // Synchronised, it counts as any other.
            world.stop(3);
            world.look(1, 9, 2);
            world.look(2, 9, 2);
            assert_eq!(world.settle(Duration::from_secs(2)).0, 2, "seed {seed}");
        }
    }
}

#[test]
fn empty_servers_found_an_ensemble_unless_they_may_not() {
    for (empty, found) in [(EmptyVote::Counts, true), (EmptyVote::Founds, true), (EmptyVote::Never, false)] {
        let mut world = World::new(membership(3, 0, ""), 7);
        for id in 1..=3 {
            world.start_with(id, 0, 0, empty);
        }
        if found {
            assert_eq!(world.settle(Duration::from_secs(2)).0, 3);
        } else {
            let until = world.now + Duration::from_secs(5);
            while world.step(until) {}
            assert!(world.servers.values().all(|server| server.elected.is_none()));
        }
    }
}

#[test]
fn servers_without_weight_vote_but_never_lead() {
    let groups = "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7\nweight.5=0\nweight.6=0\nweight.7=0\n";
    for seed in 0..20 {
        let mut world = World::new(membership(7, 0, groups), seed);
        for id in 1..=7 {
            // Those without weight have the most.
            world.start(id, i64::from(id), u32::from(id > 4));
        }
        assert_eq!(world.settle(Duration::from_secs(3)).0, 4, "seed {seed}");
    }
}

#[test]
fn one_vote_for_a_leader_is_not_enough() {
    let mut world = World::new(membership(3, 0, ""), 7);
    world.start(1, 5, 1);
    let mut hearsay = Notification {
        state: ServerState::Following,
        leader: 3,
        zxid: Zxid(5),
        round: 1,
        peer_epoch: 1,
        version: 2,
    };
    let now = world.now;
    let election = &mut world.servers.get_mut(&ServerId(1)).unwrap().election;
    // Server 2 still follows 3, which is dead or looks itself.
    election.notification(now, ServerId(2), &hearsay);
    hearsay.state = ServerState::Looking;
    hearsay.round = 0;
    election.notification(now, ServerId(3), &hearsay);
    assert!(election.is_looking());
    // That it follows is not enough either: it has to lead.
    let following = Notification { state: ServerState::Following, round: 7, ..hearsay };
    election.notification(now, ServerId(2), &following);
    election.notification(now, ServerId(3), &following);
    assert!(election.is_looking());
    // That 1 leads it believes nobody in another round than its own.
    for state in [ServerState::Following, ServerState::Following] {
        let vote = Notification { state, leader: 1, round: 4, ..hearsay };
        election.notification(now, ServerId(2), &vote);
        election.notification(now, ServerId(3), &vote);
    }
    assert!(election.is_looking());
}

#[test]
fn nonsense_changes_nothing() {
    let mut world = World::new(membership(3, 1, ""), 8);
    world.start(1, 5, 1);
    world.carry();
    let good = Notification {
        state: ServerState::Looking,
        leader: 3,
        zxid: Zxid(9),
        round: 1,
        peer_epoch: 1,
        version: 2,
    };
    let now = world.now;
    let election = &mut world.servers.get_mut(&ServerId(1)).unwrap().election;
    let before = election.current();
    for vote in [
        Notification { leader: 4, ..good },
        Notification { leader: 0, ..good },
        Notification { leader: 256, ..good },
        Notification { leader: -1, ..good },
        Notification { leader: NO_VOTE, ..good },
        Notification { round: i64::MAX, ..good },
        Notification { round: i64::MIN, ..good },
        Notification { round: -1, ..good },
        Notification { peer_epoch: -1, ..good },
        Notification { peer_epoch: i64::MAX, ..good },
        Notification { zxid: Zxid(-2), ..good },
    ] {
        for from in 0..=255 {
            election.notification(now, ServerId(from), &vote);
            election.notification(now, ServerId(from), &Notification { state: ServerState::Leading, ..vote });
        }
        assert_eq!(election.current(), before, "{vote:?}");
    }
    election.notification(now, ServerId(2), &Notification { state: ServerState::Observing, ..good });
    assert_eq!(election.current(), before);
    // Nobody is answered for ever.
    let mut outputs = Vec::new();
    election.drain(&mut outputs);
    outputs.clear();
    for _ in 0..1000 {
        election.notification(now, ServerId(9), &good);
    }
    election.drain(&mut outputs);
    assert!(outputs.len() <= 1, "{}", outputs.len());
}

#[test]
fn a_leader_hears_of_voters_that_look_again() {
    let mut world = World::new(membership(3, 0, ""), 9);
    for id in 1..=3 {
        world.start(id, 5, 1);
    }
    world.settle(Duration::from_secs(1));
    world.look(1, 5, 1);
    assert_eq!(world.settle(Duration::from_secs(1)).0, 3);
    assert_eq!(world.servers[&ServerId(3)].deserted, [ServerId(1)]);
}

#[test]
fn two_memberships_need_a_quorum_of_both() {
    let (old, new) = (membership(3, 0, ""), membership(5, 0, "version=5"));
    let mut world = World::new(old.clone(), 10);
    for id in 1..=3 {
        world.start(id, 5, 1);
    }
    let now = world.now;
    for server in world.servers.values_mut() {
        server.election.set_membership(now, &old, Some(&new));
    }
    world.carry();
    assert_eq!(world.settle(Duration::from_secs(1)).0, 3);
    world.stop(3);
    world.look(1, 5, 1);
    world.look(2, 5, 1);
    let until = world.now + Duration::from_secs(5);
    while world.step(until) {}
    assert!(world.servers.values().all(|server| server.elected.is_none()));
}

#[test]
fn votes_of_servers_up_to_3_4_are_compared_by_leader_alone() {
    let vote = |version, peer_epoch| Notification {
        state: ServerState::Following,
        leader: 3,
        zxid: Zxid(version),
        round: version,
        peer_epoch,
        version: version as i32,
    };
    assert!(agree(&vote(0, 1), &vote(2, 9)) && agree(&vote(2, 4), &vote(1, 4)));
    assert!(!agree(&vote(2, 1), &vote(2, 9)) && !agree(&vote(0, 1), &vote(0, 9)));
    let looking = Notification { state: ServerState::Looking, ..vote(2, 4) };
    assert!(!agree(&looking, &vote(1, 4)) && agree(&looking, &vote(2, 4)));
}
