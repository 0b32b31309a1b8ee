//! Connections over loopback, driven by a stand-in for the core: what happens is written down, and the test answers.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::config::tls::{ClientAuth, Password, QUORUM_PREFIX, Store, TlsVersion};
use crate::config::{Origin, Secret, Tls};
use crate::server::runtime::{CoreRuntime, IoChoice};
use crate::server::tls::{Live, TlsSettings};
use crate::zab::PeerAddress;

/// Long enough for any machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event that owns its bytes.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Heard {
    Accepted(PeerPort),
    Connected,
    Received(Vec<u8>),
    Sent(usize),
    Closed,
}

/// Several servers on one runtime, with one pump.
struct World {
    pump: Rc<Signal>,
    nodes: Vec<Node>,
}

struct Node {
    peers: Rc<Peers>,
    address: SocketAddr,
    heard: Vec<(PeerConn, Heard)>,
    buffer: Vec<u8>,
}

impl World {
    fn new(count: usize, options: PeersOptions) -> World {
        World::of(vec![options; count])
    }

    /// One node for each of these.
    fn of(options: Vec<PeersOptions>) -> World {
        let pump = Rc::new(Signal::default());
        let bell = Arc::new(Bell::new().expect("a bell"));
        let watched = Watched::new(bell.event().try_clone_fd().expect("a descriptor")).expect("watched");
        let (bell_seen, bell_pump) = (bell.clone(), pump.clone());
        monoio::spawn(async move {
            while watched.readable().await.is_ok() {
                bell_seen.event().clear();
                bell_pump.raise();
            }
        });
        let nodes = options
            .into_iter()
            .map(|options| {
                let peers = Peers::new(options, pump.clone(), bell.clone());
                let place = PeerPlace { port: PeerPort::Quorum, host: Some("127.0.0.1".into()), number: 0 };
                let plan = ListenPlan { places: vec![place], tries_max: Some(1), waits_for_names: false };
                let listening = plan.bind(|_| false).expect("bound").expect("bound");
                let address = listening[0].listener.local_addr().expect("bound");
                peers.listen(listening).expect("listens");
                Node { peers, address, heard: Vec::new(), buffer: vec![0; 64 << 10] }
            })
            .collect();
        World { pump, nodes }
    }

    /// Turns until `done` gives something. It sees all that was heard, and may ask for work.
    async fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Vec<Node>) -> Option<T>) -> T {
        let turns = async {
            loop {
                for node in &mut self.nodes {
                    let Node { peers, heard, buffer, .. } = node;
                    peers.take_events(buffer, |conn, event| heard.push((conn, owned(event))));
                }
                let found = done(&mut self.nodes);
                self.nodes.iter().for_each(|node| node.peers.flush());
                if let Some(found) = found {
                    return found;
                }
                if self.nodes.iter().any(|node| node.peers.has_events()) {
                    // Lets the runtime look after its sockets.
                    monoio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    self.pump.raised().await;
                }
            }
        };
        monoio::time::timeout(PATIENCE, turns)
            .await
            .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
    }

    async fn stop(self) {
        for node in &self.nodes {
            node.peers.stop();
        }
        while self.nodes.iter().any(|node| node.peers.task_count() > 0) {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Node {
    fn dial(&self, conn: u32, addresses: &[SocketAddr]) {
        let addresses = addresses
            .iter()
            .map(|address| PeerAddress { host: address.ip().to_string(), port: address.port() })
            .collect();
        self.dial_names(conn, addresses);
    }

    fn dial_names(&self, conn: u32, addresses: Vec<PeerAddress>) {
        let (conn, port) = (PeerConn(conn), PeerPort::Quorum);
        self.peers.execute(PeerWork::Dial { conn, port, to: ServerId(9), addresses });
    }

    fn send(&self, conn: PeerConn, bytes: &[u8]) {
        self.peers.execute(PeerWork::Send { conn, bytes: Bytes::copy_from_slice(bytes) });
    }

    fn close(&self, conn: PeerConn) {
        self.peers.execute(PeerWork::Close { conn });
    }

    fn accepted(&self) -> Option<PeerConn> {
        self.heard.iter().find(|(_, heard)| matches!(heard, Heard::Accepted(_))).map(|(conn, _)| *conn)
    }

    fn received(&self, conn: PeerConn) -> Vec<u8> {
        let of_conn = self.heard.iter().filter(|(its, _)| *its == conn);
        of_conn
            .filter_map(|(_, heard)| match heard {
                Heard::Received(bytes) => Some(&bytes[..]),
                _ => None,
            })
            .collect::<Vec<_>>()
            .concat()
    }

    fn sent(&self, conn: PeerConn) -> usize {
        let of_conn = self.heard.iter().filter(|(its, _)| *its == conn);
        of_conn.map(|(_, heard)| if let Heard::Sent(count) = heard { *count } else { 0 }).sum()
    }

    fn is_closed(&self, conn: PeerConn) -> bool {
        self.heard.contains(&(conn, Heard::Closed))
    }
}

fn owned(event: PeerEvent<'_>) -> Heard {
    match event {
        PeerEvent::Accepted { port, .. } => Heard::Accepted(port),
        PeerEvent::Connected => Heard::Connected,
        PeerEvent::Received(bytes) => Heard::Received(bytes.to_vec()),
        PeerEvent::Sent(count) => Heard::Sent(count),
        PeerEvent::Closed => Heard::Closed,
    }
}

fn on_each_driver_and_in_both_ways<F: Future<Output = ()>>(test: impl Fn(PeersOptions) -> F) {
    for options in in_both_ways() {
        on_each_driver(|| test(options.clone()));
    }
}

fn on_each_driver<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for choice in [IoChoice::Auto, IoChoice::Epoll] {
        let (mut runtime, driver, _) = CoreRuntime::build(choice).expect("a runtime");
        println!("{driver}");
        runtime.block_on(test());
    }
}

/// Plainly, and in TLS.
fn in_both_ways() -> [PeersOptions; 2] {
    [PeersOptions::default(), secured("server.pem", true, false)]
}

/// With the key in this file of `tests/golden/tls`.
fn secured(key: &str, dials: bool, accepts_plain: bool) -> PeersOptions {
    let stores = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls");
    let store = |key: &str, name: &str| Store {
        key: format!("ssl.quorum.{key}.location"),
        origin: Origin::Default,
        location: stores.join(name),
        kind: None,
        password: Password::Given(Secret("secret".into())),
    };
    let keys = Tls {
        prefix: QUORUM_PREFIX,
        key_store: store("keyStore", key),
        trust_store: Some(store("trustStore", "ca.pem")),
        versions: vec![TlsVersion::V1_3, TlsVersion::V1_2],
        cipher_suites: Vec::new(),
        client_auth: ClientAuth::Need,
        verify_server_name: true,
        verify_client_name: false,
        detection_timeout_ms: 5000,
    };
    let settings = Live::new(TlsSettings::new(&keys).expect("sound stores"));
    let tls = PeerTls { settings, dials, accepts_plain, detection_timeout: PATIENCE };
    PeersOptions { tls: Some(tls), ..PeersOptions::default() }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

#[test]
fn bytes_go_both_ways_in_order_and_the_end_is_told_once() {
    on_each_driver_and_in_both_ways(|options| async move {
        let mut world = World::new(2, options);
        let far = world.nodes[1].address;
        let conn = PeerConn(1);
        world.nodes[0].dial(1, &[far]);
        // Before it stands: kept until it does.
        world.nodes[0].send(conn, b"he");
        world.nodes[0].send(conn, b"llo");
        let there = world
            .until("hello arrives", |nodes| {
                let there = nodes[1].accepted()?;
                (nodes[1].received(there) == b"hello" && nodes[0].sent(conn) == 5).then_some(there)
            })
            .await;
        assert!(there.is_accepted());
        assert_eq!(world.nodes[0].heard[0], (conn, Heard::Connected));
        assert_eq!(world.nodes[1].heard[0], (there, Heard::Accepted(PeerPort::Quorum)));
        world.nodes[1].send(there, b"good");
        world.nodes[1].send(there, b"bye");
        world.nodes[1].close(there);
        world.until("goodbye and the end", |nodes| nodes[0].is_closed(conn).then_some(())).await;
        assert_eq!(world.nodes[0].received(conn), b"goodbye");
        assert_eq!(world.nodes[0].heard.last(), Some(&(conn, Heard::Closed)));
        assert!(!world.nodes[1].is_closed(there), "who closes is not told");
        // A number means nothing any more, and may be used again.
        world.nodes[0].send(conn, b"late");
        world.nodes[0].close(conn);
        world.nodes[0].heard.clear();
        world.nodes[0].dial(1, &[far]);
        world
            .until("dialled again", |nodes| nodes[0].heard.contains(&(conn, Heard::Connected)).then_some(()))
            .await;
        world.stop().await;
    });
}

/// More than sockets hold, in pieces of all sizes, both ways at once.
#[test]
fn large_amounts_pass_while_the_other_side_is_slow() {
    on_each_driver_and_in_both_ways(|options| async move {
        const BYTES: usize = 24 << 20;
        let mut world = World::new(2, options);
        let far = world.nodes[1].address;
        let conn = PeerConn(1);
        world.nodes[0].dial(1, &[far]);
        let there = world.until("accepted", |nodes| nodes[1].accepted()).await;
        let mut expected = Vec::with_capacity(BYTES);
        let mut size = 1;
        while expected.len() < BYTES {
            let start = expected.len();
            expected.extend((0..size).map(|index| (start + index) as u8));
            world.nodes[0].send(conn, &expected[start..]);
            world.nodes[1].send(there, &expected[start..]);
            size = size * 3 % 70_001 + 1;
        }
        let total = expected.len();
        world
            .until("all of it", |nodes| {
                let done = nodes[0].sent(conn) == total && nodes[1].sent(there) == total;
                (done && nodes[0].received(conn).len() == total && nodes[1].received(there).len() == total)
                    .then_some(())
            })
            .await;
        assert!(world.nodes[0].received(conn) == expected && world.nodes[1].received(there) == expected);
        world.stop().await;
    });
}

/// The steps of a roll-out: who dials plainly and who in TLS, against who takes what.
#[test]
fn servers_meet_where_both_allow_it() {
    let plain = PeersOptions::default;
    for (from, to, meet) in [
        (plain(), secured("server.pem", false, true), true),
        (secured("server.pem", false, true), plain(), true),
        (secured("server.pem", true, true), secured("server.pem", false, true), true),
        (secured("server.pem", false, true), secured("server.pem", true, true), true),
        (secured("server.pem", true, false), secured("server.pem", true, true), true),
        (plain(), secured("server.pem", true, false), false),
        (secured("stranger.pem", true, false), secured("server.pem", true, false), false),
        (secured("server.pem", true, false), secured("stranger.pem", true, false), false),
        (secured("server.pem", true, false), secured("expired.pem", true, false), false),
    ] {
        let nodes = vec![from, to];
        on_each_driver(|| async {
            let mut world = World::of(nodes.clone());
            let far = world.nodes[1].address;
            let conn = PeerConn(1);
            world.nodes[0].dial(1, &[far]);
            world.nodes[0].send(conn, b"\x00\x00\x00\x0bhello");
            if meet {
                let there = world
                    .until("hello arrives", |nodes| {
                        let there = nodes[1].accepted()?;
                        (nodes[1].received(there).len() == 9).then_some(there)
                    })
                    .await;
                world.nodes[1].send(there, b"welcome");
                world.until("an answer", |nodes| (nodes[0].received(conn) == b"welcome").then_some(())).await;
            } else {
                world.until("refused", |nodes| nodes[0].is_closed(conn).then_some(())).await;
                assert_eq!(world.nodes[1].accepted(), None);
            }
            world.stop().await;
        });
    }
}

#[test]
fn a_dial_that_fails_is_told_and_one_nobody_wants_is_not() {
    on_each_driver(|| async {
        let mut world = World::new(1, PeersOptions::default());
        world.nodes[0].dial(1, &[nobody()]);
        world.nodes[0].dial(3, &[]);
        // Closed before it came to anything.
        world.nodes[0].dial(5, &[nobody()]);
        world.nodes[0].close(PeerConn(5));
        world
            .until("both closed", |nodes| {
                (nodes[0].is_closed(PeerConn(1)) && nodes[0].is_closed(PeerConn(3))).then_some(())
            })
            .await;
        assert_eq!(world.nodes[0].heard.len(), 2);
        world.stop().await;
    });
}

/// The first address refuses, the second one's host has no name, the third answers.
#[test]
fn every_address_is_tried() {
    on_each_driver(|| async {
        let mut world = World::new(2, PeersOptions::default());
        let far = world.nodes[1].address;
        let address = |host: &str, port| PeerAddress { host: host.into(), port };
        world.nodes[0].dial_names(
            1,
            vec![
                address("127.0.0.1", nobody().port()),
                address("no-such-name.invalid", 1),
                address("localhost", far.port()),
            ],
        );
        world.until("connected", |nodes| nodes[1].accepted()).await;
        world
            .until("told so", |nodes| nodes[0].heard.contains(&(PeerConn(1), Heard::Connected)).then_some(()))
            .await;
        world.stop().await;
    });
}

/// A stranger's connections are bounded, and what it sends waits in the kernel until a turn takes it.
#[test]
fn floods_are_bounded() {
    on_each_driver(|| async {
        let options = PeersOptions { accepted_per_address_max: 3, ..PeersOptions::default() };
        let mut world = World::new(1, options);
        let address = world.nodes[0].address;
        let flood = std::thread::spawn(move || {
            let mut strangers: Vec<TcpStream> = Vec::new();
            let mut refused = 0;
            while refused < 5 {
                let mut stranger = TcpStream::connect(address).expect("the kernel connects");
                stranger.set_read_timeout(Some(PATIENCE)).expect("an option");
                let _ = stranger.write_all(&[0xee; 1000]);
                // One that is kept hears an answer, one that is not is reset.
                match stranger.read(&mut [0; 1]) {
                    Ok(1) => strangers.push(stranger),
                    Ok(_) | Err(_) => refused += 1,
                }
            }
            strangers.len()
        });
        let mut answered = 0;
        world
            .until("the flood is over", |nodes| {
                let accepted: Vec<PeerConn> = nodes[0]
                    .heard
                    .iter()
                    .filter(|(_, h)| matches!(h, Heard::Accepted(_)))
                    .map(|(c, _)| *c)
                    .collect();
                for conn in &accepted[answered..] {
                    nodes[0].send(*conn, b"x");
                }
                answered = accepted.len();
                let closed = nodes[0].heard.iter().filter(|(_, heard)| *heard == Heard::Closed).count();
                (answered == 3 && closed == 3).then_some(())
            })
            .await;
        assert_eq!(flood.join().expect("no panic"), 3);
        // There is room again.
        let again = std::thread::spawn(move || TcpStream::connect(address).expect("connects"));
        let conn = world
            .until("accepted again", |nodes| {
                nodes[0]
                    .heard
                    .iter()
                    .rev()
                    .find(|(_, h)| matches!(h, Heard::Accepted(_)))
                    .map(|(c, _)| *c)
                    .filter(|_| {
                        nodes[0].heard.iter().filter(|(_, h)| matches!(h, Heard::Accepted(_))).count() == 4
                    })
            })
            .await;
        // No number is used for two.
        assert_eq!(
            world.nodes[0]
                .heard
                .iter()
                .filter(|(its, h)| *its == conn && matches!(h, Heard::Accepted(_)))
                .count(),
            1
        );
        drop(again.join());
        world.stop().await;
    });
}

/// A peer that resets while much is queued for it: told once, nothing left behind.
#[test]
fn a_reset_ends_a_link_with_a_full_queue() {
    on_each_driver(|| async {
        let mut world = World::new(1, PeersOptions::default());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        world.nodes[0].dial(1, &[listener.local_addr().expect("bound")]);
        world
            .until("connected", |nodes| {
                nodes[0].heard.contains(&(PeerConn(1), Heard::Connected)).then_some(())
            })
            .await;
        world.nodes[0].send(PeerConn(1), &vec![1; 16 << 20]);
        world.until("some left", |nodes| (nodes[0].sent(PeerConn(1)) > 0).then_some(())).await;
        let (stream, _) = listener.accept().expect("one waits");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(stream);
        world.until("the end", |nodes| nodes[0].is_closed(PeerConn(1)).then_some(())).await;
        assert_eq!(world.nodes[0].heard.iter().filter(|(_, heard)| *heard == Heard::Closed).count(), 1);
        assert!(world.nodes[0].peers.links.borrow().is_empty());
        world.stop().await;
    });
}

#[test]
fn a_taken_port_is_tried_again_and_then_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = taken.local_addr().expect("bound").port();
    let place = PeerPlace { port: PeerPort::Election, host: Some("127.0.0.1".into()), number };
    let plan = ListenPlan { places: vec![place.clone()], tries_max: Some(3), waits_for_names: true };
    let mut pauses = 0;
    let reason = plan
        .bind(|_| {
            pauses += 1;
            true
        })
        .err()
        .expect("taken");
    assert_eq!(pauses, 2);
    assert!(
        reason.starts_with(&format!("cannot listen on the election port 127.0.0.1:{number}: ")),
        "{reason}"
    );
    // Told to stop while it waits.
    let forever = ListenPlan { places: vec![place.clone()], tries_max: None, waits_for_names: true };
    assert!(forever.bind(|_| false).expect("no error").is_none());
    // A name that does not come up counts only where names are not waited for.
    let unknown = PeerPlace { host: Some("no-such-name.invalid".into()), ..place };
    let patient = ListenPlan { places: vec![unknown.clone()], tries_max: Some(1), waits_for_names: true };
    let mut pauses = 0;
    let stopped = patient.bind(|_| {
        pauses += 1;
        pauses < 3
    });
    assert!(stopped.expect("no error").is_none());
    let plan = ListenPlan { places: vec![unknown], tries_max: Some(1), waits_for_names: false };
    let reason = plan.bind(|_| true).err().expect("unknown");
    assert!(reason.contains("no-such-name.invalid"), "{reason}");
    drop(taken);
}
