//! Members of an ensemble joined in one thread: every message arrives at once, unless a test cuts a link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::config::Membership;
use crate::node::Serving;
use crate::node::pipeline::{EnsembleOptions, Modes};
use crate::proto::quorum::{self, QuorumPacket};
use crate::proto::txn::TxnEntry;
use crate::request::apply::{Fit, Nobody};
use crate::txnlog::recover::{Base, recover};
use crate::zab::election::ElectionOptions;
use crate::zab::leader::LeaderOptions;
use crate::zab::mesh::MeshOptions;
use crate::zab::quorum::Verifier;
use crate::zab::recent::{self, Recent};
use crate::zab::{Epochs, PeerConn, PeerEvent, PeerPort};

mod modes;

/// A connection's end.
type End = (usize, PeerConn);

struct Ensemble {
    voters: usize,
    nodes: Vec<World>,
    up: Vec<bool>,
    /// Both ends of each connection.
    links: BTreeMap<End, End>,
    wires: VecDeque<(End, Wire)>,
    accepted: u32,
    cut: BTreeSet<(usize, usize)>,
    /// Ends of servers that stand still and do not know yet that they are gone.
    broken: BTreeSet<End>,
    /// A server that begins with nothing.
    make: Box<dyn Fn(usize) -> World>,
    withheld: Option<Withheld>,
}

/// Lets what a server hears from its leader through, but for the last COMMIT before NEWLEADER.
struct Withheld {
    from_leader: usize,
    bytes: Vec<u8>,
    /// The end it was on its way to, and the packet.
    commit: Option<(End, Vec<u8>)>,
    is_over: bool,
}

impl Withheld {
    fn from(leader: usize) -> Withheld {
        Withheld { from_leader: leader, bytes: Vec::new(), commit: None, is_over: false }
    }

    /// What of the bytes arrives now.
    fn pass(&mut self, end: End, bytes: &[u8]) -> Vec<u8> {
        self.bytes.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some((packet, length)) = QuorumPacket::decode(&self.bytes, 1 << 20).unwrap() {
            let kind = packet.kind;
            let packet: Vec<u8> = self.bytes.drain(..length).collect();
            match kind {
                quorum::kind::COMMIT if !self.is_over => {
                    let before = self.commit.replace((end, packet));
                    out.extend(before.map(|(_, packet)| packet).unwrap_or_default());
                    continue;
                }
                quorum::kind::NEW_LEADER => self.is_over = true,
                _ => {}
            }
            out.extend_from_slice(&packet);
        }
        out
    }
}

enum Wire {
    Accepted(PeerPort),
    Connected,
    Bytes(Vec<u8>),
    Sent(usize),
    Closed,
}

fn membership(voters: usize, observers: usize) -> Membership {
    let mut text = String::new();
    for id in 1..=voters + observers {
        let role = if id > voters { "observer" } else { "participant" };
        text.push_str(&format!("server.{id}=127.0.0.{id}:2888:3888:{role};127.0.0.{id}:2181\n"));
    }
    text.push_str("version=0");
    Membership::parse(text.as_bytes()).unwrap()
}

fn options(me: ServerId, membership: Membership) -> EnsembleOptions {
    let tick = Duration::from_millis(TICK_MS);
    let verifier = Verifier::of(&membership);
    EnsembleOptions {
        me,
        observer: !membership.is_voter(me),
        election: ElectionOptions::new(me),
        mesh: MeshOptions::new(me, tick * 5),
        leader: LeaderOptions {
            me,
            tick,
            init_limit: 10,
            sync_limit: 5,
            voters: verifier.voters(),
            verifier,
            config_text: membership.to_text().into(),
            config_version: membership.version,
            proposed: None,
            raises_version: false,
            packet_bytes_max: 2 << 20,
            learner_queue_bytes_max: 64 << 20,
            snapshot_syncs_max: 10,
            diff_syncs_max: 100,
            epoch_wait_max: None,
        },
        membership,
        tick,
        init_limit: 10,
        sync_limit: 5,
        leader_serves: true,
        standalone_enabled: true,
        epochs: Epochs::default(),
        standing: crate::zab::Standing::Empty { may_found: true },
        recent_bytes_max: 64 << 20,
        modes: Modes::default(),
        staged_bytes_max: 64 << 20,
        hash_seed: 1,
        tick_ms: TICK_MS as u32,
    }
}

impl Ensemble {
    fn new(voters: usize, observers: usize) -> Ensemble {
        Ensemble::with(voters, observers, |_| {})
    }

    fn with(voters: usize, observers: usize, adjust: impl Fn(&mut EnsembleOptions) + 'static) -> Ensemble {
        let all = vec![membership(voters, observers); voters + observers];
        Ensemble::of(all, |_, _| {}, adjust)
    }

    /// One server for each membership, which is what its own configuration says.
    fn of(
        memberships: Vec<Membership>,
        adjust_node: impl Fn(&mut FrontOptions, &mut PipelineOptions) + 'static,
        adjust: impl Fn(&mut EnsembleOptions) + 'static,
    ) -> Ensemble {
        let (count, voters) = (memberships.len(), memberships[0].voters().count());
        let make = move |id: usize| {
            let id = ServerId(id as u8);
            let mut world = World::of(id, 1, |front, pipeline| {
                front.serving = Serving::No;
                adjust_node(front, pipeline);
            });
            let mut options = options(id, memberships[usize::from(id.0) - 1].clone());
            adjust(&mut options);
            world.pipeline = world.pipeline.in_ensemble(options);
            world
        };
        let nodes: Vec<World> = (1..=count).map(&make).collect();
        Ensemble {
            voters,
            up: vec![true; nodes.len()],
            nodes,
            links: BTreeMap::new(),
            wires: VecDeque::new(),
            accepted: 0,
            cut: BTreeSet::new(),
            broken: BTreeSet::new(),
            make: Box::new(make),
            withheld: None,
        }
    }

    /// Everything that is on its way arrives, and whoever can do something does it.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut moved = false;
            for index in 0..self.nodes.len() {
                if !self.up[index] {
                    continue;
                }
                moved |= self.nodes[index].turn();
                for work in std::mem::take(&mut self.nodes[index].peer_work) {
                    moved = true;
                    self.execute(index, work);
                }
            }
            while let Some((end, wire)) = self.wires.pop_front() {
                moved = true;
                self.deliver(end, wire);
            }
            if !moved {
                return;
            }
        }
        panic!("the ensemble does not come to rest");
    }

    fn execute(&mut self, from: usize, work: PeerWork) {
        match work {
            PeerWork::Dial { conn, port, to, .. } => {
                let to = usize::from(to.0) - 1;
                let is_cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
                if !self.up[to] || is_cut {
                    self.wires.push_back(((from, conn), Wire::Closed));
                    return;
                }
                self.accepted += 1;
                let far = (to, PeerConn(PeerConn::ACCEPTED | self.accepted));
                self.links.insert((from, conn), far);
                self.links.insert(far, (from, conn));
                self.wires.push_back((far, Wire::Accepted(port)));
                self.wires.push_back(((from, conn), Wire::Connected));
            }
            PeerWork::Send { conn, bytes } => {
                if let Some(&far) = self.links.get(&(from, conn)) {
                    self.wires.push_back((far, Wire::Bytes(bytes.to_vec())));
                    self.wires.push_back(((from, conn), Wire::Sent(bytes.len())));
                }
            }
            PeerWork::Close { conn } => {
                if let Some(far) = self.links.remove(&(from, conn)) {
                    self.wires.push_back((far, Wire::Closed));
                }
            }
        }
    }

    fn deliver(&mut self, end: End, mut wire: Wire) {
        let (index, conn) = end;
        // A pipeline's own dials, to the quorum port of a leader, are odd.
        if let (Wire::Bytes(bytes), Some(withheld)) = (&mut wire, &mut self.withheld)
            && conn.0 & PeerConn::ACCEPTED == 0
            && conn.0 % 2 == 1
            && self.links.get(&end).is_some_and(|far| far.0 == withheld.from_leader)
        {
            *bytes = withheld.pass(end, bytes);
        }
        if !self.up[index] {
            if matches!(wire, Wire::Closed) {
                self.links.remove(&end);
                self.broken.insert(end);
            }
            return;
        }
        let node = &mut self.nodes[index];
        let from = "127.0.0.1:5".parse().unwrap();
        let event = match &wire {
            Wire::Accepted(port) => PeerEvent::Accepted { port: *port, from },
            Wire::Connected => PeerEvent::Connected,
            Wire::Bytes(bytes) => PeerEvent::Received(bytes),
            Wire::Sent(count) => PeerEvent::Sent(*count),
            Wire::Closed => {
                self.links.remove(&end);
                PeerEvent::Closed
            }
        };
        node.pipeline.peer(node.now, conn, event);
    }

    /// Time passes for all of them, in steps of 5 ms.
    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(5) {
            for (index, node) in self.nodes.iter_mut().enumerate() {
                if self.up[index] {
                    node.advance_ms(5);
                }
            }
            self.settle();
        }
    }

    fn pass_until(&mut self, what: &str, mut done: impl FnMut(&mut Ensemble) -> bool) -> u64 {
        for step in 0..20_000 {
            self.settle();
            if done(self) {
                return step * 5;
            }
            self.pass_ms(5);
        }
        for (n, node) in self.nodes.iter().enumerate() {
            eprintln!(
                "server {}: {}",
                n + 1,
                if self.up[n] { node.pipeline.describe() } else { "down".to_owned() }
            );
            for (handle, client) in &node.clients {
                eprintln!(
                    "  client {handle:?}: {:?} {:?} closed {}",
                    client.connected, client.messages, client.closed
                );
            }
        }
        panic!("{what} does not come");
    }

    fn serving(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&n| self.up[n] && self.nodes[n].pipeline.serving() == Serving::Yes)
            .collect()
    }

    fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|&n| self.up[n] && self.nodes[n].pipeline.leads())
    }

    /// A whole ensemble that serves.
    fn started(voters: usize, observers: usize) -> Ensemble {
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().try_init();
        let mut ensemble = Ensemble::new(voters, observers);
        ensemble.pass_until("an ensemble that serves", |e| e.serving().len() == voters + observers);
        ensemble
    }

    fn kill(&mut self, index: usize) {
        self.up[index] = false;
        let ends: Vec<End> = self.links.keys().copied().filter(|end| end.0 == index).collect();
        for end in ends {
            self.broken.insert(end);
            if let Some(far) = self.links.remove(&end) {
                self.wires.push_back((far, Wire::Closed));
            }
        }
    }

    /// A server that is down comes back with nothing.
    fn wipe(&mut self, index: usize) {
        self.broken.retain(|end| end.0 != index);
        self.nodes[index] = (self.make)(index + 1);
    }

    /// A server that stood still goes on; all its connections are broken.
    fn start(&mut self, index: usize) {
        let now = self.nodes.iter().map(|node| node.now).max_by_key(|now| now.instant).unwrap();
        self.nodes[index].now = now;
        self.up[index] = true;
        let conns: Vec<PeerConn> = self.broken.iter().filter(|end| end.0 == index).map(|end| end.1).collect();
        self.broken.retain(|end| end.0 != index);
        for conn in conns {
            self.wires.push_back(((index, conn), Wire::Closed));
        }
    }

    /// The process of a server that is down begins anew, from its log.
    fn restart(&mut self, index: usize, adjust: impl Fn(&mut EnsembleOptions)) {
        let members = self.nodes.len();
        let voters = self.voters;
        let old = &mut self.nodes[index];
        let segments = std::mem::take(&mut old.segments);
        let sessions = SessionTable::new(TICK_MS as u32, 1);
        let mut database = Database::new(TreeOptions { hash_seed: 1 }, sessions);
        let mut options = options(ServerId(index as u8 + 1), membership(voters, members - voters));
        options.epochs = old.epochs;
        options.standing = crate::zab::Standing::Full;
        adjust(&mut options);
        let mut recent = Recent::new(recent::ENTRIES_MAX, options.recent_bytes_max);
        let mut memory = Memory(&segments);
        let files = memory.files();
        let recovered = recover(&files, &mut memory, Base::new(9, Zxid::ZERO), &mut |zxid, bytes| {
            let entry = TxnEntry::decode(bytes).unwrap();
            database.apply(&entry, Fit::Exact, old.now.instant, &mut Nobody);
            recent.push(zxid, bytes.to_vec().into());
            Ok(())
        });
        let start = recovered.unwrap().start;
        let epochs = options.epochs;
        let serving = |front: &mut FrontOptions, _: &mut PipelineOptions| front.serving = Serving::No;
        let id = ServerId(index as u8 + 1);
        let mut world = World::holding(id, database, start, segments, 1, serving);
        world.epochs = epochs;
        world.pipeline = world.pipeline.in_ensemble(options).with_recent(recent);
        self.nodes[index] = world;
        self.broken.retain(|end| end.0 != index);
        self.start(index);
    }

    fn connect(&mut self, index: usize) -> Handle {
        let client = self.nodes[index].accept(0);
        self.nodes[index].shake_hands(client, SessionId::NONE, &[0; 16]);
        self.pass_until("a session", |e| e.nodes[index].client(client).connected.is_some());
        assert_ne!(self.nodes[index].client(client).connected.unwrap().session, SessionId::NONE);
        client
    }

    fn call(&mut self, index: usize, client: Handle, request: Request<'_>) -> Reply {
        self.nodes[index].send(client, &[request]);
        self.pass_until("a reply", |e| !e.nodes[index].client(client).messages.is_empty());
        match self.nodes[index].client(client).messages.remove(0) {
            Message::Reply(reply) => reply,
            other => panic!("a reply should come, not {other:?}"),
        }
    }

    /// All that are up have the same tree.
    fn assert_agree(&mut self) {
        self.pass_until("agreement", |e| {
            let digests: BTreeSet<(Zxid, u64)> = (0..e.nodes.len())
                .filter(|&n| e.up[n])
                .map(|n| e.nodes[n].pipeline.database())
                .map(|database| (database.zxid_applied(), database.tree.digest()))
                .collect();
            digests.len() == 1
        });
    }
}

mod reconfig;

#[test]
fn three_servers_elect_one_and_all_serve() {
    let mut ensemble = Ensemble::started(3, 0);
    assert!(ensemble.leader().is_some());
    let clients: Vec<Handle> = (0..3).map(|n| ensemble.connect(n)).collect();
    for (n, &client) in clients.iter().enumerate() {
        let path = format!("/from-{n}");
        assert_eq!(ensemble.call(n, client, create(&path)).err, ErrorCode::Ok.code());
        assert_eq!(ensemble.call(n, client, get(&path)).err, ErrorCode::Ok.code());
        assert_eq!(ensemble.call(n, client, create(&path)).err, ErrorCode::NodeExists.code());
    }
    ensemble.assert_agree();
}

#[test]
fn observers_follow_without_a_vote() {
    let mut ensemble = Ensemble::started(3, 2);
    let client = ensemble.connect(4);
    assert_eq!(ensemble.call(4, client, create("/a")).err, ErrorCode::Ok.code());
    ensemble.assert_agree();
}

#[test]
fn a_dead_leader_is_replaced_and_nothing_is_lost() {
    let mut ensemble = Ensemble::started(3, 0);
    let leader = ensemble.leader().unwrap();
    let other = (leader + 1) % 3;
    let client = ensemble.connect(other);
    assert_eq!(ensemble.call(other, client, create("/kept")).err, ErrorCode::Ok.code());
    ensemble.kill(leader);
    let took_ms = ensemble.pass_until("another leader", |e| e.serving().len() == 2 && e.leader().is_some());
    assert!(took_ms <= 200, "another leader took {took_ms} ms");
    let client = ensemble.connect(other);
    assert_eq!(ensemble.call(other, client, get("/kept")).err, ErrorCode::Ok.code());
    assert_eq!(ensemble.call(other, client, create("/after")).err, ErrorCode::Ok.code());
}

#[test]
fn replies_keep_their_order_on_a_follower() {
    let mut ensemble = Ensemble::started(3, 0);
    let follower = (ensemble.leader().unwrap() + 1) % 3;
    let client = ensemble.connect(follower);
    let requests = [
        create("/a"),
        get("/a"),
        set("/a", b"1"),
        get("/a"),
        Request::Sync { path: "/a" },
        get("/b"),
        create("/b"),
    ];
    ensemble.nodes[follower].send(client, &requests);
    ensemble.pass_until("all replies", |e| e.nodes[follower].client(client).messages.len() == 7);
    let errs: Vec<i32> = ensemble.nodes[follower]
        .messages(client)
        .into_iter()
        .map(|message| match message {
            Message::Reply(reply) => reply.err,
            other => panic!("a reply should come, not {other:?}"),
        })
        .collect();
    let ok = ErrorCode::Ok.code();
    assert_eq!(errs, [ok, ok, ok, ok, ok, ErrorCode::NoNode.code(), ok]);
}

/// A follower whose log is too far behind for what the leader remembers gets the whole state.
#[test]
fn a_server_that_comes_late_gets_a_snapshot() {
    let mut ensemble = Ensemble::with(3, 0, |options| {
        options.recent_bytes_max = 1;
        options.modes.snapshot_size_factor = -1.0;
    });
    ensemble.up[0] = false;
    ensemble.pass_until("a quorum", |e| e.serving().len() == 2);
    let client = ensemble.connect(1);
    for n in 0..20 {
        assert_eq!(ensemble.call(1, client, create(&format!("/n{n}"))).err, ErrorCode::Ok.code());
    }
    ensemble.start(0);
    ensemble.pass_until("all three", |e| e.serving().len() == 3);
    ensemble.assert_agree();
    let client = ensemble.connect(0);
    assert_eq!(ensemble.call(0, client, get("/n7")).err, ErrorCode::Ok.code());
    assert_eq!(ensemble.call(0, client, create("/more")).err, ErrorCode::Ok.code());
    ensemble.assert_agree();
}

/// A ZooKeeper's leader sends what it has proposed and nobody has committed before NEWLEADER, too; its COMMIT comes behind
/// UPTODATE, or never.
#[test]
fn what_was_proposed_before_new_leader_waits_for_its_commit() {
    let mut ensemble = Ensemble::started(3, 0);
    let leader = ensemble.leader().unwrap();
    let late = (0..3).find(|&n| n != leader).unwrap();
    let client = ensemble.connect(leader);
    ensemble.kill(late);
    for n in 0..3 {
        assert_eq!(ensemble.call(leader, client, create(&format!("/n{n}"))).err, ErrorCode::Ok.code());
    }
    ensemble.withheld = Some(Withheld::from(leader));
    ensemble.start(late);
    ensemble.pass_until("the late one", |e| e.serving().len() == 3);
    let applied = |e: &Ensemble, n: usize| e.nodes[n].pipeline.database().zxid_applied();
    assert_eq!(applied(&ensemble, late).0 + 1, applied(&ensemble, leader).0);
    let (end, commit) = ensemble.withheld.take().unwrap().commit.unwrap();
    ensemble.wires.push_back((end, Wire::Bytes(commit)));
    ensemble.assert_agree();
}

/// The same where the log may be used: it gets what it lacks, and no snapshot.
#[test]
fn a_server_that_comes_late_gets_what_it_lacks_from_the_log() {
    // More than is asked of the disk, and all of it.
    for (factor, is_difference) in [(0.001, false), (0.0, true), (100.0, true)] {
        let mut ensemble = Ensemble::with(3, 1, move |options| {
            options.recent_bytes_max = 2000;
            options.modes.snapshot_size_factor = factor;
        });
        ensemble.pass_until("an ensemble that serves", |e| e.serving().len() == 4);
        let client = ensemble.connect(1);
        assert_eq!(ensemble.call(1, client, create("/early")).err, ErrorCode::Ok.code());
        let late: Vec<usize> = (0..4).filter(|&n| n != 1 && Some(n) != ensemble.leader()).take(2).collect();
        // One of them holds what the other does not.
        ensemble.assert_agree();
        ensemble.kill(late[0]);
        for n in 0..10 {
            assert_eq!(ensemble.call(1, client, create(&format!("/a{n}"))).err, ErrorCode::Ok.code());
        }
        ensemble.pass_ms(20);
        if late[1] >= 3 {
            ensemble.kill(late[1]);
        }
        for n in 0..50 {
            assert_eq!(ensemble.call(1, client, create(&format!("/b{n}"))).err, ErrorCode::Ok.code());
        }
        for &late in &late {
            if !ensemble.up[late] {
                ensemble.start(late);
            }
        }
        ensemble.pass_until("all of them", |e| e.serving().len() == 4);
        ensemble.assert_agree();
        assert_eq!(ensemble.nodes[late[0]].installs == 0, is_difference, "factor {factor}");
        let client = ensemble.connect(late[0]);
        assert_eq!(ensemble.call(late[0], client, get("/b7")).err, ErrorCode::Ok.code());
        assert_eq!(ensemble.call(late[0], client, create("/more")).err, ErrorCode::Ok.code());
        ensemble.assert_agree();
    }
}

/// Servers that all begin anew know what they have logged last: who was away gets a difference.
#[test]
fn recent_history_outlives_a_restart() {
    let mut ensemble = Ensemble::started(3, 0);
    let away = (0..3).find(|&n| Some(n) != ensemble.leader()).unwrap();
    let client_at = (0..3).find(|&n| n != away).unwrap();
    let client = ensemble.connect(client_at);
    assert_eq!(ensemble.call(client_at, client, create("/early")).err, ErrorCode::Ok.code());
    ensemble.assert_agree();
    ensemble.kill(away);
    for n in 0..20 {
        assert_eq!(ensemble.call(client_at, client, create(&format!("/n{n}"))).err, ErrorCode::Ok.code());
    }
    for n in 0..3 {
        if n != away {
            ensemble.kill(n);
        }
    }
    for n in 0..3 {
        if n != away {
            ensemble.restart(n, |options| options.modes.snapshot_size_factor = -1.0);
        }
    }
    ensemble.pass_until("those that restarted", |e| e.serving().len() == 2);
    ensemble.restart(away, |_| {});
    ensemble.pass_until("all", |e| e.serving().len() == 3);
    ensemble.assert_agree();
    assert_eq!(ensemble.nodes[away].installs, 0, "a difference was to be had");
    let client = ensemble.connect(away);
    assert_eq!(ensemble.call(away, client, get("/n19")).err, ErrorCode::Ok.code());
    assert_eq!(ensemble.call(away, client, create("/more")).err, ErrorCode::Ok.code());
    ensemble.assert_agree();
}

/// What only a minority has logged is cut from its log when the others have gone on without it.
#[test]
fn what_no_quorum_has_is_dropped() {
    let mut ensemble = Ensemble::started(3, 0);
    let leader = ensemble.leader().unwrap();
    let others: Vec<usize> = (0..3).filter(|&n| n != leader).collect();
    let client = ensemble.connect(leader);
    // The proposal reaches nobody.
    for &other in &others {
        ensemble.kill(other);
    }
    ensemble.nodes[leader].send(client, &[create("/lost")]);
    ensemble.nodes[leader].turn();
    ensemble.nodes[leader].peer_work.clear();
    let logged = ensemble.nodes[leader].pipeline.describe();
    ensemble.kill(leader);
    for &other in &others {
        ensemble.start(other);
    }
    ensemble.pass_until("the others", |e| e.serving().len() == 2);
    let client = ensemble.connect(others[0]);
    assert_eq!(ensemble.call(others[0], client, create("/kept")).err, ErrorCode::Ok.code());
    ensemble.start(leader);
    ensemble.pass_until(&format!("the old leader, which had {logged},"), |e| e.serving().len() == 3);
    ensemble.assert_agree();
    let client = ensemble.connect(leader);
    assert_eq!(ensemble.call(leader, client, get("/lost")).err, ErrorCode::NoNode.code());
}

#[test]
fn a_session_moves_between_servers_and_ends_everywhere() {
    let mut ensemble = Ensemble::started(3, 0);
    let client = ensemble.connect(0);
    assert_eq!(ensemble.call(0, client, ephemeral("/e")).err, ErrorCode::Ok.code());
    let session = ensemble.nodes[0].client(client).connected.unwrap().session;
    for to in [1, 2, 0, 1] {
        let moved = ensemble.nodes[to].accept(0);
        ensemble.nodes[to].shake_hands(moved, session, &crate::session::password(session));
        ensemble.pass_until("the session", |e| e.nodes[to].client(moved).connected.is_some());
        assert_eq!(ensemble.nodes[to].client(moved).connected.unwrap().session, session);
        assert_eq!(ensemble.call(to, moved, set("/e", b"moved")).err, ErrorCode::Ok.code());
    }
    // Nobody speaks for it any more.
    ensemble.pass_ms(10_000);
    let client = ensemble.connect(2);
    assert_eq!(ensemble.call(2, client, get("/e")).err, ErrorCode::NoNode.code());
    ensemble.assert_agree();
}

#[test]
fn a_session_whose_client_only_pings_lives_on_any_server() {
    let mut ensemble = Ensemble::started(3, 0);
    let clients: Vec<Handle> = (0..3).map(|n| ensemble.connect(n)).collect();
    for _ in 0..10 {
        ensemble.pass_ms(1000);
        for (n, &client) in clients.iter().enumerate() {
            assert_eq!(
                ensemble.call(n, client, get("/")).err,
                ErrorCode::Ok.code(),
                "client of server {}",
                n + 1
            );
        }
    }
}

/// A server whose data is gone does not help to elect one that lacks what it had acknowledged (S9).
#[test]
fn a_wiped_server_does_not_vote() {
    let mut ensemble = Ensemble::started(3, 0);
    let leader = ensemble.leader().unwrap();
    let (wiped, behind) = ((leader + 1) % 3, (leader + 2) % 3);
    ensemble.kill(behind);
    ensemble.pass_until("two", |e| e.serving().len() == 2);
    let client = ensemble.connect(leader);
    assert_eq!(ensemble.call(leader, client, create("/acknowledged")).err, ErrorCode::Ok.code());
    ensemble.kill(leader);
    ensemble.kill(wiped);
    ensemble.wipe(wiped);
    ensemble.start(behind);
    ensemble.start(wiped);
    ensemble.pass_ms(30_000);
    assert_eq!(ensemble.serving(), [] as [usize; 0]);
    ensemble.start(leader);
    ensemble.pass_until("all three", |e| e.serving().len() == 3);
    let client = ensemble.connect(wiped);
    assert_eq!(ensemble.call(wiped, client, get("/acknowledged")).err, ErrorCode::Ok.code());
    ensemble.assert_agree();
}
