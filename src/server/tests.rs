//! The shell over real sockets and files, with the echo as its node.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::door::{Front, Pipeline};
use super::echo::{Kind, PEER_GOODBYE};
use super::*;
use crate::admin::{Answer, What};
use crate::io::Clock;
use crate::node::{StorageEvent, StorageWork};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::txnlog::SegmentId;
use crate::zab::PeerPort;

/// Long enough for any machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    serving: Serving,
    stopper: Stopper,
    questioner: Questioner,
    thread: Option<JoinHandle<i32>>,
    _directory: tempfile::TempDir,
}

#[derive(Clone)]
struct Setup {
    cores: usize,
    io: IoChoice,
    spin: Duration,
    /// In all, and from one address; zero is no limit.
    connections_max: u32,
    connections_per_address_max: u32,
    /// Instead of a file made for the segment.
    segment: Option<PathBuf>,
    /// Listens for other servers.
    peers: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            cores: 1,
            io: IoChoice::Auto,
            spin: Duration::ZERO,
            connections_max: 0,
            connections_per_address_max: 0,
            segment: None,
            peers: false,
        }
    }
}

/// Both ports for other servers, whichever are free.
fn plan() -> ListenPlan {
    let place = |port| PeerPlace { port, host: Some("127.0.0.1".into()), number: 0 };
    let places = vec![place(PeerPort::Election), place(PeerPort::Quorum)];
    ListenPlan { places, tries_max: Some(1), waits_for_names: false }
}

struct Files {
    directory: PathBuf,
    segment: Option<PathBuf>,
}

impl Housekeeping for Files {
    fn prepare(&mut self, segment: SegmentId) -> io::Result<PathBuf> {
        if let Some(path) = &self.segment {
            return Ok(path.clone());
        }
        let path = self.directory.join(format!("segment-{}", segment.0));
        std::fs::write(&path, vec![0; 64 * 4096])?;
        Ok(path)
    }

    fn retire(&mut self, _segment: SegmentId) -> io::Result<()> {
        Ok(())
    }

    fn snapshot(&mut self, _work: SnapshotWork) -> io::Result<Option<SnapshotEvent>> {
        Ok(None)
    }

    fn storage(&mut self, _work: StorageWork) -> io::Result<StorageEvent> {
        Err(io::Error::other("these servers have no data"))
    }
}

impl Server {
    fn start(setup: &Setup) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let options = ServerOptions {
            addresses: vec!["127.0.0.1:0".parse().expect("an address")],
            secure_addresses: Vec::new(),
            port_unification: false,
            tls: None,
            peer_tls: None,
            connections_per_address_max: setup.connections_per_address_max,
            connections_max: setup.connections_max,
            keep_alive: false,
            backlog: 1024,
            cores: CoresChoice::Unpinned(setup.cores),
            io: setup.io,
            spin: Some(setup.spin),
            log_directory: directory.path().to_owned(),
            force_sync: true,
            stop_max: STOP_MAX,
            handle_signals: false,
            clock: Clock::new(),
            peers: setup.peers.then(|| (plan(), false)),
        };
        let mut shell = Shell::prepare(options).expect("prepared");
        let stopper = shell.stopper();
        let questioner = shell.questioner();
        let files = Files { directory: directory.path().to_owned(), segment: setup.segment.clone() };
        let (tx, rx) = mpsc::channel();
        let recovered = Recovered {
            data_directory: directory.path().to_owned(),
            zxid: Zxid::ZERO,
            started: std::time::Instant::now(),
            member: None,
        };
        let thread = std::thread::spawn(move || {
            shell.on_serving(move |serving| tx.send(serving).expect("the test waits"));
            let fronts = (0..shell.front_count()).map(|_| Box::new(Front::new) as FrontMaker).collect();
            let node = NodeParts { pipeline: Box::new(Pipeline::new), fronts, housekeeping: Box::new(files) };
            shell.run(node, recovered)
        });
        let serving = rx.recv_timeout(PATIENCE).expect("serving");
        let address = serving.addresses[0];
        Server { address, serving, stopper, questioner, thread: Some(thread), _directory: directory }
    }

    fn connect(&self) -> Client {
        self.try_connect().expect("connects")
    }

    /// Fails where the server closes so soon that the handshake of TCP itself is reset.
    fn try_connect(&self) -> std::io::Result<Client> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream })
    }

    fn exit_code(mut self) -> i32 {
        self.thread.take().expect("running").join().expect("no panic")
    }

    fn stop(self) {
        self.stopper.stop();
        assert_eq!(self.exit_code(), 0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stopper.stop();
            let _ = thread.join();
        }
    }
}

struct Client {
    stream: TcpStream,
}

fn request(kind: u8, reply_bytes: u32, padding_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(9 + padding_bytes);
    out.extend_from_slice(&(5 + padding_bytes as u32).to_be_bytes());
    out.extend_from_slice(&reply_bytes.to_be_bytes());
    out.push(kind);
    out.resize(9 + padding_bytes, 0xee);
    out
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    fn expect_reply(&mut self, reply_bytes: u32) {
        let mut reply = vec![1; 4 + reply_bytes as usize];
        self.stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[..4], reply_bytes.to_be_bytes());
        assert!(reply[4..].iter().all(|&b| b == 0));
    }

    fn expect_end(&mut self) {
        assert_eq!(self.stream.read(&mut [0]).expect("an orderly end"), 0);
    }

    fn ask(&mut self, kind: u8, reply_bytes: u32) {
        self.send(&request(kind, reply_bytes, 10));
        self.expect_reply(reply_bytes);
    }
}

fn everywhere(test: impl Fn(&Setup)) {
    for io in [IoChoice::Auto, IoChoice::Epoll] {
        for cores in [1, 2, 4] {
            test(&Setup { cores, io, ..Setup::default() });
        }
    }
    test(&Setup { cores: 2, spin: Duration::from_micros(50), ..Setup::default() });
}

#[test]
fn every_way_through_the_server_answers_in_order() {
    everywhere(|setup| {
        let server = Server::start(setup);
        assert_eq!(setup.io == IoChoice::Epoll, server.serving.driver == Driver::Epoll);
        let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients {
            for kind in [Kind::LOCAL, Kind::HOP, Kind::WRITE, Kind::LATER] {
                client.ask(kind, 192);
            }
        }
        // All at once, of changing sizes, each kind waiting for those before it.
        for client in &mut clients {
            let mut all = Vec::new();
            for i in 0..300 {
                let kind = [Kind::LOCAL, Kind::HOP, Kind::WRITE, Kind::HOP][i as usize % 4];
                all.extend_from_slice(&request(kind, i, i as usize % 50));
            }
            client.send(&all);
        }
        for client in &mut clients {
            for i in 0..300 {
                client.expect_reply(i);
            }
        }
        server.stop();
    });
}

/// More through one link than it holds: the front must wait for room, and be told of it.
#[test]
fn a_full_link_holds_back_and_goes_on() {
    for cores in [1, 2] {
        let server = Server::start(&Setup { cores, ..Setup::default() });
        let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
        const EACH: usize = 3 * LINK_MESSAGES_MAX / 4;
        for client in &mut clients {
            let all: Vec<u8> = (0..EACH).flat_map(|_| request(Kind::WRITE, 8, 0)).collect();
            client.send(&all);
        }
        for client in &mut clients {
            for _ in 0..EACH {
                client.expect_reply(8);
            }
        }
        server.stop();
    }
}

/// Who asks and never reads stops nobody else, and loses nothing when it reads at last.
#[test]
fn a_slow_reader_only_slows_itself() {
    everywhere(|setup| {
        const REPLIES: usize = 200;
        const REPLY_BYTES: u32 = 100_000;
        let server = Server::start(setup);
        let mut slow = server.connect();
        let all: Vec<u8> = (0..REPLIES).flat_map(|_| request(Kind::LOCAL, REPLY_BYTES, 0)).collect();
        slow.send(&all);
        let mut others: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        for _ in 0..20 {
            for other in &mut others {
                other.ask(Kind::LOCAL, 100);
                other.ask(Kind::WRITE, 100);
            }
        }
        for _ in 0..REPLIES {
            slow.expect_reply(REPLY_BYTES);
        }
        slow.ask(Kind::HOP, 5);
        server.stop();
    });
}

#[test]
fn big_messages_pass() {
    everywhere(|setup| {
        let server = Server::start(setup);
        let mut client = server.connect();
        let mut reader = Client { stream: client.stream.try_clone().expect("cloned") };
        let writer = std::thread::spawn(move || {
            for _ in 0..3 {
                client.send(&request(Kind::HOP, 6 << 20, 5 << 20));
            }
        });
        for _ in 0..3 {
            reader.expect_reply(6 << 20);
        }
        writer.join().expect("sent");
        server.stop();
    });
}

/// A client that says it is done sending still gets what it asked for.
#[test]
fn a_half_closed_connection_is_answered_and_closed() {
    everywhere(|setup| {
        let server = Server::start(setup);
        let mut client = server.connect();
        let all: Vec<u8> = (0..50).flat_map(|_| request(Kind::LOCAL, 1000, 0)).collect();
        client.send(&all);
        client.stream.shutdown(Shutdown::Write).expect("half closed");
        for _ in 0..50 {
            client.expect_reply(1000);
        }
        client.expect_end();
        server.stop();
    });
}

/// The last answer arrives whole though the client sent more than was ever read: no reset on the way.
#[test]
fn a_connection_closed_by_the_server_delivers_its_last_answer() {
    everywhere(|setup| {
        const LAST_BYTES: u32 = 900_000;
        let server = Server::start(setup);
        for _ in 0..10 {
            let mut client = server.connect();
            client.ask(Kind::LOCAL, 10);
            let mut all = request(Kind::CLOSE, LAST_BYTES, 0);
            all.resize(all.len() + 400_000, 7);
            client.send(&all);
            client.expect_reply(LAST_BYTES);
            client.expect_end();
        }
        server.stop();
    });
}

#[test]
fn many_connections_come_and_go() {
    everywhere(|setup| {
        let server = Server::start(setup);
        for round in 0..3 {
            let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
            for client in &mut clients {
                client.send(&request(Kind::LOCAL, 100, 27));
            }
            for (i, client) in clients.iter_mut().enumerate() {
                client.expect_reply(100);
                if (i + round) % 3 == 0 {
                    // Leaves with something on its way to it.
                    client.send(&request(Kind::WRITE, 100, 27));
                }
            }
        }
        server.connect().ask(Kind::HOP, 1);
        server.stop();
    });
}

/// Limits count over all fronts, however the kernel spreads connections over them.
#[test]
fn one_connection_too_many_is_closed_at_once() {
    let three_in_all = Setup { cores: 2, connections_max: 3, ..Setup::default() };
    let three_from_here = Setup { cores: 2, connections_per_address_max: 3, ..Setup::default() };
    for setup in [three_in_all, three_from_here] {
        expect_three_places(&Server::start(&setup));
    }
}

fn expect_three_places(server: &Server) {
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|c| c.ask(Kind::LOCAL, 1));
    for _ in 0..8 {
        match server.try_connect().and_then(|mut client| client.stream.read(&mut [0; 1])) {
            Ok(count) => assert_eq!(count, 0),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
        }
    }
    clients.pop();
    // The place is free once the server has seen the end of the one that left.
    loop {
        let Ok(mut next) = server.try_connect() else { continue };
        // A server that closes at once may reset what we send.
        if next.stream.write_all(&request(Kind::LOCAL, 1, 0)).is_err() {
            continue;
        }
        match next.stream.read(&mut [0; 5]) {
            Ok(5) => break,
            Ok(count) => assert_eq!(count, 0),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
        }
    }
}

/// What other servers send is heard by the pipeline while clients are served, and the end of everything does not wait for them.
#[test]
fn peers_are_heard_beside_clients() {
    everywhere(|setup| {
        let server = Server::start(&Setup { peers: true, ..setup.clone() });
        assert_eq!(server.serving.peer_addresses.len(), 2);
        let mut client = server.connect();
        let peers: Vec<TcpStream> = server
            .serving
            .peer_addresses
            .iter()
            .flat_map(|address| (0..4).map(move |_| TcpStream::connect(address).expect("connects")))
            .collect();
        for round in 0..20u8 {
            for (index, mut peer) in peers.iter().enumerate() {
                peer.set_read_timeout(Some(PATIENCE)).expect("an option");
                let said = vec![round; 1 + 3000 * index];
                peer.write_all(&said).expect("sent");
                let mut heard = vec![0; said.len()];
                peer.read_exact(&mut heard).expect("answered");
                assert_eq!(heard, said);
            }
            client.ask(Kind::WRITE, 100);
        }
        let mut leaving = &peers[0];
        leaving.write_all(&[1, PEER_GOODBYE]).expect("sent");
        let mut last = Vec::new();
        leaving.read_to_end(&mut last).expect("closed in good order");
        assert_eq!(last, [1, PEER_GOODBYE]);
        server.stop();
    });
}

/// A log write that fails ends the server with code 1, and the write is never acknowledged.
#[test]
fn a_failed_log_write_is_fatal() {
    for cores in [1, 2] {
        let setup =
            Setup { cores, io: IoChoice::Epoll, segment: Some("/dev/full".into()), ..Setup::default() };
        let server = Server::start(&setup);
        let mut client = server.connect();
        client.ask(Kind::LOCAL, 1);
        client.send(&request(Kind::WRITE, 100, 0));
        match client.stream.read(&mut [0; 100]) {
            Ok(count) => assert_eq!(count, 0, "acknowledged a write that failed"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
        }
        assert_eq!(server.exit_code(), 1);
    }
}

#[test]
fn a_segment_that_cannot_be_made_is_fatal() {
    let setup = Setup { segment: Some("/proc/no/such/place".into()), ..Setup::default() };
    let server = Server::start(&setup);
    let mut client = server.connect();
    client.send(&request(Kind::WRITE, 100, 0));
    assert!(matches!(client.stream.read(&mut [0; 100]), Ok(0) | Err(_)));
    assert_eq!(server.exit_code(), 1);
}

/// Writes that were taken before the stop are answered before the end.
#[test]
fn stopping_finishes_what_was_begun() {
    everywhere(|setup| {
        let server = Server::start(setup);
        let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.ask(Kind::WRITE, 10);
        }
        let start = std::time::Instant::now();
        server.stop();
        assert!(start.elapsed() < Duration::from_secs(5));
        for client in &mut clients {
            // A reset is as good: nothing was owed.
            assert!(matches!(client.stream.read(&mut [0; 100]), Ok(0) | Err(_)));
        }
    });
}

/// The core sleeps; a question wakes it.
#[test]
fn questions_from_beside_reach_the_pipeline() {
    for io in [IoChoice::Auto, IoChoice::Epoll] {
        let server = Server::start(&Setup { io, ..Setup::default() });
        for _ in 0..100 {
            assert!(matches!(server.questioner.ask(What::Snapshot), Some(Answer::Permission(_))));
        }
        let questioner = server.questioner.clone();
        server.stop();
        assert!(questioner.ask(What::Snapshot).is_none());
    }
}

#[test]
fn a_taken_port_is_a_clear_error() {
    let server = Server::start(&Setup::default());
    let error = listen::listeners(&[(server.address, secure::Speech::Plain)], 1, 10, false, Duration::ZERO)
        .expect_err("taken");
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {}: Address already in use (os error 98)", server.address)
    );
    server.stop();
}

#[test]
fn the_log_directory_must_be_there() {
    let options = ServerOptions {
        addresses: Vec::new(),
        secure_addresses: Vec::new(),
        port_unification: false,
        tls: None,
        peer_tls: None,
        connections_per_address_max: 0,
        connections_max: 0,
        keep_alive: false,
        backlog: 1,
        cores: CoresChoice::Unpinned(1),
        io: IoChoice::Auto,
        spin: None,
        log_directory: "/no/such/place".into(),
        force_sync: true,
        stop_max: STOP_MAX,
        handle_signals: false,
        clock: Clock::new(),
        peers: None,
    };
    let Err(error) = Shell::prepare(options) else { panic!("prepared") };
    assert!(error.to_string().starts_with("cannot write in /no/such/place: "), "{error}");
    assert_eq!(error.exit_code(), 2);
}
