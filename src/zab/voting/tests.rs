//! Elections over simulated connections: delayed, cut into pieces, closed at random, held up by partitions, with servers that
//! start late, die with and without a word, and come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::proto::election::ServerState;
use crate::stdx::rng::Rng;
use crate::zab::PeerPort;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn membership(voters: u8, observers: u8, rest: &str) -> Membership {
    let mut text = String::new();
    for id in 1..=voters + observers {
        let role = if id <= voters { "participant" } else { "observer" };
        text.push_str(&format!("server.{id}=h{id}:1:{}:{role}\n", 100 + u16::from(id)));
    }
    Membership::parse((text + rest).as_bytes()).unwrap()
}

/// One end of a connection: the server, in its which life, and the number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct End {
    server: u8,
    life: u32,
    conn: PeerConn,
}

#[derive(Debug)]
enum Arrival {
    /// A dial gets where it was sent.
    Knock {
        from: End,
        to: u8,
    },
    Connected(End),
    Received(End, Vec<u8>),
    Sent(End, usize),
    Closed(End),
    /// The learner of this server finds that nobody leads, or that its leader is gone.
    LookAgain {
        server: u8,
        life: u32,
        round: i64,
    },
}

struct Server {
    voting: Voting,
    life: u32,
    is_up: bool,
    zxid: i64,
    elected: Option<(ServerId, Instant)>,
    accepted_next: u32,
}

struct World {
    now: Instant,
    rng: Rng,
    membership: Membership,
    servers: BTreeMap<u8, Server>,
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    sequence: u64,
    /// The other end of each standing connection.
    other_end: BTreeMap<End, End>,
    /// When the last thing sent to an end gets there: nothing overtakes.
    last: BTreeMap<End, Instant>,
    /// Nothing passes between these and others.
    cut_off: Vec<u8>,
    /// Whether bytes are cut into pieces.
    cuts: bool,
    messages: u64,
}

impl World {
    fn new(membership: Membership, seed: u64) -> World {
        World {
            now: Instant::from_ms(1),
            rng: Rng::new(seed),
            membership,
            servers: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            sequence: 0,
            other_end: BTreeMap::new(),
            last: BTreeMap::new(),
            cut_off: Vec::new(),
            cuts: true,
            messages: 0,
        }
    }

    fn start(&mut self, id: u8, zxid: i64) {
        let life = self.servers.get(&id).map_or(0, |server| server.life + 1);
        let me = ServerId(id);
        let voting =
            Voting::new(ElectionOptions::new(me), MeshOptions::new(me, 10 * SECOND), &self.membership);
        let server =
            Server { voting, life, is_up: true, zxid, elected: None, accepted_next: PeerConn::ACCEPTED };
        self.servers.insert(id, server);
        self.look(id);
    }

    fn start_all(&mut self) {
        for id in self.membership.members().map(|member| member.id.0).collect::<Vec<_>>() {
            let zxid = self.rng.below(4) as i64;
            self.start(id, zxid);
        }
    }

    fn look(&mut self, id: u8) {
        let now = self.now;
        let server = self.servers.get_mut(&id).unwrap();
        server.elected = None;
        server.voting.look(now, Zxid(server.zxid), Epoch(1));
        self.carry(id);
    }

    /// The process ends; its kernel closes the connections, unless the machine went with it.
    fn kill(&mut self, id: u8, with_power: bool) {
        self.servers.get_mut(&id).unwrap().is_up = false;
        let ends: Vec<End> = self.other_end.keys().filter(|end| end.server == id).copied().collect();
        for end in ends {
            match with_power {
                true => {
                    let other = self.other_end.remove(&end).unwrap();
                    self.other_end.remove(&other);
                }
                false => self.close(end),
            }
        }
    }

    /// Learners of a dead leader look again, each when it has noticed.
    fn notice(&mut self, leader: u8) {
        for (id, server) in &self.servers {
            if server.is_up && server.elected.is_some_and(|(of, _)| of.0 == leader) {
                let again = Arrival::LookAgain {
                    server: *id,
                    life: server.life,
                    round: server.voting.election().round(),
                };
                let at = self.now + Duration::from_micros(100 + self.rng.below(1000));
                self.sequence += 1;
                self.arrivals.insert((at, self.sequence), again);
            }
        }
    }

    fn close(&mut self, end: End) {
        if let Some(other) = self.other_end.remove(&end) {
            self.other_end.remove(&other);
            self.later(other, Arrival::Closed(other));
        }
    }

    /// Puts something on its way to an end, behind all that is there already.
    fn later(&mut self, to: End, arrival: Arrival) {
        let at = self.now + Duration::from_micros(100 + self.rng.below(400));
        let at = self.last.get(&to).copied().unwrap_or_default().max(at);
        self.last.insert(to, at);
        self.sequence += 1;
        self.arrivals.insert((at, self.sequence), arrival);
    }

    fn carry(&mut self, id: u8) {
        let (mut work, mut outcomes) = (Vec::new(), Vec::new());
        let server = self.servers.get_mut(&id).unwrap();
        server.voting.drain(&mut work, &mut outcomes);
        let life = server.life;
        for outcome in outcomes {
            if let Outcome::Elected { leader, round, .. } = outcome {
                server.elected = Some((leader, self.now));
                // If nothing comes of it, it looks again.
                let again = Arrival::LookAgain { server: id, life, round };
                self.sequence += 1;
                self.arrivals.insert((self.now + SECOND, self.sequence), again);
            }
        }
        for one in work {
            let end = |conn| End { server: id, life, conn };
            match one {
                PeerWork::Dial { conn, port, to, addresses } => {
                    assert!(port == PeerPort::Election && !conn.is_accepted() && to.0 != id);
                    assert_eq!(addresses[0].port, 100 + u16::from(to.0));
                    self.later(end(conn), Arrival::Knock { from: end(conn), to: to.0 });
                }
                PeerWork::Send { conn, bytes } => {
                    let from = end(conn);
                    self.messages += 1;
                    if let Some(&to) = self.other_end.get(&from) {
                        let mut rest = &bytes[..];
                        while !rest.is_empty() {
                            let most = rest.len() as u64;
                            let cut = if self.cuts { 1 + self.rng.below(most) as usize } else { rest.len() };
                            self.later(to, Arrival::Received(to, rest[..cut].to_vec()));
                            rest = &rest[cut..];
                        }
                    }
                    self.later(from, Arrival::Sent(from, bytes.len()));
                }
                PeerWork::Close { conn } => {
                    // A dial under way ends as well.
                    self.arrivals.retain(
                        |_, arrival| !matches!(arrival, Arrival::Knock { from, .. } if *from == end(conn)),
                    );
                    self.close(end(conn));
                }
            }
        }
    }

    fn is_cut(&self, a: u8, b: u8) -> bool {
        self.cut_off.contains(&a) != self.cut_off.contains(&b)
    }

    fn tell(&mut self, to: End, event: PeerEvent<'_>) {
        let now = self.now;
        let server = self.servers.get_mut(&to.server).unwrap();
        if server.is_up && server.life == to.life {
            server.voting.event(now, to.conn, event);
            self.carry(to.server);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let held_up = match &arrival {
            Arrival::Knock { from, to } => self.is_cut(from.server, *to),
            Arrival::Received(to, _) | Arrival::Closed(to) => {
                // The other end may be known no more; who sent it does not matter then.
                self.other_end.get(to).is_some_and(|from| self.is_cut(from.server, to.server))
            }
            _ => false,
        };
        if held_up {
            self.sequence += 1;
            // All that follows waits as well, as in a connection.
            let (Arrival::Knock { from: to, .. } | Arrival::Received(to, _) | Arrival::Closed(to)) = &arrival
            else {
                unreachable!("nothing else is held up")
            };
            let (to, at) = (*to, self.now + 200 * MS);
            let behind: Vec<(Instant, u64)> = self
                .arrivals
                .iter()
                .filter(|(_, other)| {
                    matches!(other, Arrival::Received(end, _) | Arrival::Closed(end) if *end == to)
                })
                .map(|(key, _)| *key)
                .collect();
            self.arrivals.insert((at, self.sequence), arrival);
            for key in behind {
                let other = self.arrivals.remove(&key).unwrap();
                self.sequence += 1;
                self.arrivals.insert((at, self.sequence), other);
            }
            self.last.insert(to, at);
            return;
        }
        match arrival {
            Arrival::Knock { from, to } => {
                let Some(server) = self.servers.get_mut(&to).filter(|server| server.is_up) else {
                    self.later(from, Arrival::Closed(from));
                    return;
                };
                let end = End { server: to, life: server.life, conn: PeerConn(server.accepted_next) };
                server.accepted_next += 1;
                self.other_end.insert(from, end);
                self.other_end.insert(end, from);
                let address = SocketAddr::from(([127, 0, 0, from.server], 1000));
                self.later(from, Arrival::Connected(from));
                self.tell(end, PeerEvent::Accepted { port: PeerPort::Election, from: address });
            }
            Arrival::Connected(end) => self.tell(end, PeerEvent::Connected),
            Arrival::Received(end, bytes) => self.tell(end, PeerEvent::Received(&bytes)),
            Arrival::Sent(end, count) => self.tell(end, PeerEvent::Sent(count)),
            Arrival::Closed(end) => self.tell(end, PeerEvent::Closed),
            Arrival::LookAgain { server, life, round } => {
                let of = &self.servers[&server];
                if !of.is_up || of.life != life || of.voting.election().round() != round {
                    return;
                }
                if !self.is_well(server) {
                    self.look(server);
                    return;
                }
                self.sequence += 1;
                let again = Arrival::LookAgain { server, life, round };
                self.arrivals.insert((self.now + SECOND, self.sequence), again);
            }
        }
    }

    /// Whether this server has a leader that leads, with a quorum that can speak to it.
    fn is_well(&self, id: u8) -> bool {
        let Some((leader, _)) = self.servers[&id].elected else { return false };
        let follows = |server: &Server| {
            server.is_up
                && !server.voting.election().is_looking()
                && server.elected.map(|(of, _)| of) == Some(leader)
        };
        let followers = self.servers.iter().filter(|(other, server)| {
            follows(server) && self.membership.is_voter(ServerId(**other)) && !self.is_cut(**other, leader.0)
        });
        let leads = self.servers.get(&leader.0).is_some_and(|server| {
            server.is_up && server.voting.election().current().state == ServerState::Leading
        });
        let followers = followers.map(|(other, _)| ServerId(*other)).collect();
        leads
            && !self.is_cut(id, leader.0)
            && crate::zab::quorum::Verifier::of(&self.membership).is_quorum(&followers)
    }

    fn step(&mut self, until: Instant) -> bool {
        let arrival = self.arrivals.first_key_value().map(|((at, _), _)| *at);
        let up = self.servers.iter().filter(|(_, server)| server.is_up);
        let timer = up.filter_map(|(id, server)| Some((server.voting.next_timer()?, *id))).min();
        let next = arrival.into_iter().chain(timer.map(|(at, _)| at)).min();
        let Some(at) = next.filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        match timer {
            Some((timer_at, id)) if arrival.is_none_or(|arrival| timer_at < arrival) => {
                let now = self.now;
                let server = self.servers.get_mut(&id).unwrap();
                server.voting.on_timer(now);
                assert!(
                    server.voting.next_timer().is_none_or(|next| next > now),
                    "the timer of server {id} does not advance"
                );
                self.carry(id);
            }
            _ => {
                let (_, arrival) = self.arrivals.pop_first().unwrap();
                self.arrive(arrival);
            }
        }
        true
    }

    fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step(until) {}
    }

    /// Runs until all that are up and not cut off have one leader; who, and after how long.
    fn settle(&mut self, within: Duration) -> (u8, Duration) {
        let begun = self.now;
        loop {
            let there: Vec<u8> = self
                .servers
                .iter()
                .filter(|(id, server)| server.is_up && !self.cut_off.contains(id))
                .map(|(id, _)| *id)
                .collect();
            if there.iter().all(|id| self.is_well(*id)) {
                let leaders: Vec<_> = there.iter().map(|id| self.servers[id].elected.unwrap()).collect();
                assert!(
                    leaders.iter().all(|(leader, _)| *leader == leaders[0].0),
                    "two leaders: {leaders:?}"
                );
                return (leaders[0].0.0, self.now.since(begun));
            }
            if !self.step(begun + within) {
                let all: Vec<_> = self
                    .servers
                    .iter()
                    .map(|(id, s)| (id, s.is_up, s.elected, s.voting.election().current()))
                    .collect();
                panic!("not settled after {within:?}: {all:#?}");
            }
        }
    }

    /// The voter with the best log among those that are up.
    fn best(&self) -> u8 {
        let voters = self
            .servers
            .iter()
            .filter(|(id, server)| server.is_up && self.membership.is_voter(ServerId(**id)));
        voters.max_by_key(|(id, server)| (server.zxid, **id)).map(|(id, _)| *id).unwrap()
    }
}

#[test]
fn every_size_settles_on_the_most_complete_log() {
    for seed in 0..25 {
        for voters in [1, 3, 5, 7] {
            let observers = (seed % 3) as u8;
            let mut world = World::new(membership(voters, if voters == 1 { 0 } else { observers }, ""), seed);
            world.start_all();
            let best = world.best();
            let (leader, took) = world.settle(SECOND);
            assert_eq!(leader, best, "seed {seed}, {voters} voters");
            assert!(took < 500 * MS, "seed {seed}, {voters} voters: {took:?}");
        }
    }
}

#[test]
fn the_death_of_a_leader_costs_a_few_trips() {
    let mut slowest = Duration::ZERO;
    for seed in 0..100 {
        for voters in [3, 5] {
            let mut world = World::new(membership(voters, 1, ""), seed);
            world.cuts = seed % 2 == 0;
            world.start_all();
            let (leader, _) = world.settle(SECOND);
            world.run(3 * SECOND);
            world.kill(leader, false);
            world.notice(leader);
            let best = world.best();
            // Observers may have to ask twice.
            let observer = voters + 1;
            world.kill(observer, false);
            let (next, took) = world.settle(SECOND);
            assert_eq!(next, best, "seed {seed}");
            slowest = slowest.max(took);
        }
    }
    // Noticed within 1.1 ms, then two trips of up to half a millisecond, in pieces that queue.
    assert!(slowest < 5 * MS, "{slowest:?}");
}

#[test]
fn late_and_restarted_servers_join_the_leader_there_is() {
    for seed in 0..30 {
        let mut world = World::new(membership(5, 2, ""), seed);
        for id in [2, 3, 4, 6] {
            world.start(id, i64::from(id));
        }
        let (leader, _) = world.settle(SECOND);
        assert_eq!(leader, 4);
        for id in [1, 2, 3, 5, 7, 3, 6] {
            if world.servers.get(&id).is_some_and(|server| server.is_up) {
                world.kill(id, seed % 2 == 1);
            }
            let pause = Duration::from_micros(world.rng.below(3_000_000));
            world.run(pause);
            // Even one with more than all others does not disturb.
            world.start(id, 9);
            let (leader, took) = world.settle(2 * SECOND);
            assert_eq!(leader, 4, "seed {seed}");
            assert!(took < 300 * MS, "seed {seed}: server {id} took {took:?}");
        }
    }
}

#[test]
fn everybody_restarts_at_once() {
    for seed in 0..20 {
        let mut world = World::new(membership(5, 1, ""), seed);
        world.start_all();
        world.settle(SECOND);
        for id in 1..=6 {
            world.kill(id, seed % 2 == 0);
        }
        world.run(100 * MS);
        world.start_all();
        let best = world.best();
        assert_eq!(world.settle(SECOND).0, best, "seed {seed}");
    }
}

#[test]
fn weights_and_groups_decide() {
    let groups = "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7\nweight.3=4\nweight.5=0\nweight.6=0\nweight.7=0\n";
    for seed in 0..15 {
        let mut world = World::new(membership(7, 1, groups), seed);
        for id in 1..=8 {
            world.start(id, i64::from(id));
        }
        assert_eq!(world.settle(2 * SECOND).0, 4, "seed {seed}");
        // Group 1 hangs on server 3, group 2 on server 4.
        for id in [1, 2, 5, 6, 7] {
            world.kill(id, false);
        }
        world.run(2 * SECOND);
        assert_eq!(world.settle(SECOND).0, 4);
    }
}

#[test]
fn a_partitioned_server_comes_back_without_disturbing() {
    for seed in 0..30 {
        let mut world = World::new(membership(if seed % 2 == 0 { 3 } else { 5 }, 1, ""), seed);
        world.start_all();
        let (first, _) = world.settle(SECOND);
        // The leader itself, or another.
        let lonely = if seed % 3 == 0 { first } else { 1 + first % 3 };
        world.cut_off = vec![lonely];
        world.run(2 * SECOND);
        world.notice(first);
        world.look(lonely);
        world.run(100 * MS);
        let (leader, _) = world.settle(5 * SECOND);
        assert_ne!(leader, lonely);
        let pause = Duration::from_micros(world.rng.below(60_000_000));
        world.run(pause);
        assert!(world.servers[&lonely].voting.election().is_looking());
        world.cut_off.clear();
        let (again, took) = world.settle(10 * SECOND);
        assert_eq!(again, leader, "seed {seed}");
        assert!(took < 5 * SECOND, "seed {seed}: {took:?}");
    }
}

/// Connections break at random, servers die and return, partitions come and go; when that ends, a leader is found soon.
#[test]
fn after_any_storm_a_leader_is_found() {
    for seed in 0..60 {
        let voters = [3, 5, 7][seed as usize % 3];
        let mut world = World::new(membership(voters, 2, ""), seed);
        world.start_all();
        for _ in 0..120 {
            let id = 1 + world.rng.below(u64::from(voters) + 2) as u8;
            let is_up = world.servers[&id].is_up;
            match world.rng.below(8) {
                0 if is_up => {
                    let with_power = world.rng.below(2) == 0;
                    world.kill(id, with_power);
                    world.notice(id);
                }
                1 | 2 if !is_up => {
                    let zxid = world.servers[&id].zxid + world.rng.below(2) as i64;
                    world.start(id, zxid);
                }
                3 => world.cut_off = vec![id],
                4 => world.cut_off.clear(),
                5 if is_up => world.look(id),
                _ => {
                    let ends: Vec<End> = world.other_end.keys().copied().collect();
                    if !ends.is_empty() {
                        let end = ends[world.rng.below(ends.len() as u64) as usize];
                        // Both sides hear of it.
                        world.close(end);
                        world.later(end, Arrival::Closed(end));
                    }
                }
            }
            let pause = Duration::from_micros(world.rng.below(400_000));
            world.run(pause);
        }
        world.cut_off.clear();
        for id in 1..=voters + 2 {
            if !world.servers[&id].is_up {
                let zxid = world.servers[&id].zxid;
                world.start(id, zxid);
            }
        }
        let (_, took) = world.settle(10 * SECOND);
        assert!(took < 6 * SECOND, "seed {seed}: {took:?}");
        // And then there is quiet.
        world.run(2 * SECOND);
        let before = world.messages;
        world.run(60 * SECOND);
        assert_eq!(world.messages, before, "seed {seed}");
    }
}

/// A connection opens with a vote of long ago, as Java servers do it.
#[test]
fn stale_first_frames_do_not_matter() {
    for seed in 0..20 {
        let mut world = World::new(membership(3, 0, ""), seed);
        world.start(1, 1);
        world.start(2, 1);
        world.settle(SECOND);
        let stale = crate::proto::election::Notification {
            state: ServerState::Looking,
            leader: 3,
            zxid: Zxid(9),
            round: 1,
            peer_epoch: 1,
            version: 2,
        };
        let frame = stale.frame(&world.membership.to_text());
        // To a server that has a leader, and to one that looks.
        world.start(3, 1);
        let ends: Vec<End> = world.other_end.keys().copied().collect();
        for end in ends {
            world.later(end, Arrival::Received(end, frame.clone()));
        }
        assert_eq!(world.settle(SECOND).0, 2, "seed {seed}");
        world.kill(2, false);
        world.notice(2);
        let ends: Vec<End> = world.other_end.keys().copied().collect();
        for end in ends {
            world.later(end, Arrival::Received(end, frame.clone()));
        }
        assert_eq!(world.settle(2 * SECOND).0, 3, "seed {seed}");
    }
}
