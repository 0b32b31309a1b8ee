//! Clients that write, move from server to server as they must, and remember what they were told; and what has to be true of that.
//!
//! Each writer has one node of its own, whose version counts its writes, and makes sequential nodes below one parent that all share.
//! It sends a few requests at a time. What breaks off unanswered is looked up after a `sync` in the same session, or in a new one
//! once the old session is gone: no request of it can come into force after that.
//!
//! Checked while it runs: a writer finds nothing lost and nothing doubled; a reader finds, after a `sync`, whatever was acknowledged
//! before it, and never goes back. Checked at the end, see [`Outcome::check`]: the same on every server, order and all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, ClientError, ConnectOptions, Request, Response};
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::CreateMode;
use ringkeeper::stdx::rng::Rng;
use ringkeeper::types::{SessionId, Zxid};

use crate::support::{PATIENCE, chance, pick, wait_until};

/// The parent of what all writers make.
const PARENT: &str = "/load";
/// Requests a writer sends before it waits.
const BATCH_MAX: u64 = 8;
/// Asked for; the server may allow less.
const SESSION_TIMEOUT_MS: i32 = 8_000;
/// How long one answer may take before a client tries elsewhere.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);
/// Nodes read with one flush.
const READS_MAX: usize = 500;

/// Writers and readers at work.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Writer>>,
    readers: Vec<JoinHandle<u64>>,
}

struct Shared {
    servers: Vec<SocketAddr>,
    stop: AtomicBool,
    /// Writes acknowledged, by all.
    acknowledged: AtomicU64,
    /// Version of each writer's own node that was acknowledged.
    versions: Vec<AtomicI32>,
}

/// One acknowledged write.
#[derive(Debug, Clone)]
struct Write {
    what: What,
    zxid: Zxid,
    asked: Instant,
    answered: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// The own node got this version.
    Set { version: i32 },
    /// A sequential node with this number of the writer's as its data.
    Create { number: u64, path: String },
}

/// What the history of all writers was.
pub struct Outcome {
    writers: Vec<Writer>,
    servers: Vec<SocketAddr>,
}

impl Load {
    /// Starts `writers` and `readers` over all servers. The parent is made first.
    pub fn start(servers: &[SocketAddr], writers: usize, readers: usize, seed: u64) -> Load {
        let shared = Arc::new(Shared {
            servers: servers.to_vec(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            versions: (0..writers).map(|_| AtomicI32::new(0)).collect(),
        });
        let mut link = Link::new(shared.clone(), Rng::new(seed));
        link.make(PARENT);
        for writer in 0..writers {
            link.make(&own(writer));
        }
        link.close();
        let mut rng = Rng::new(seed ^ 1);
        let start_writer = |index| {
            let writer = Writer::new(index, shared.clone(), Rng::new(rng.next_u64()));
            std::thread::spawn(move || writer.run())
        };
        let writers = (0..writers).map(start_writer).collect();
        let start_reader = |_| {
            let link = Link::new(shared.clone(), Rng::new(rng.next_u64()));
            std::thread::spawn(move || read(link))
        };
        let readers = (0..readers).map(start_reader).collect();
        Load { shared, writers, readers }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged.
    pub fn wait_for_more(&self, count: u64) {
        let goal = self.acknowledged() + count;
        wait_until(&format!("{count} more writes"), || {
            self.fail_if_ended();
            self.acknowledged() >= goal
        });
    }

    fn fail_if_ended(&self) {
        let ended = self.writers.iter().any(JoinHandle::is_finished)
            || self.readers.iter().any(JoinHandle::is_finished);
        assert!(!ended, "a client of the load has given up, see above");
    }

    /// Ends it. A client that found something wrong fails the test here.
    pub fn finish(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        let join = |result: std::thread::Result<Writer>| {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let writers: Vec<Writer> = self.writers.into_iter().map(|thread| join(thread.join())).collect();
        let mut reads = 0;
        for reader in self.readers {
            reads += reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let moves: u64 = writers.iter().map(|writer| writer.link.moves).sum();
        let sessions: u64 = writers.iter().map(|writer| writer.link.sessions).sum();
        println!(
            "{} writes acknowledged, {} left open, {reads} reads, {moves} moves, {sessions} sessions",
            writers.iter().map(|writer| writer.done.len()).sum::<usize>(),
            writers.iter().map(|writer| writer.open.len()).sum::<usize>(),
        );
        Outcome { writers, servers: self.shared.servers.clone() }
    }
}

fn own(writer: usize) -> String {
    format!("/own-{writer}")
}

/// A session that moves between servers.
struct Link {
    shared: Arc<Shared>,
    rng: Rng,
    client: Option<Client>,
    options: ConnectOptions,
    moves: u64,
    sessions: u64,
}

impl Link {
    fn new(shared: Arc<Shared>, rng: Rng) -> Link {
        let options = ConnectOptions {
            timeout_ms: SESSION_TIMEOUT_MS,
            patience: ANSWER_PATIENCE,
            ..ConnectOptions::default()
        };
        Link { shared, rng, client: None, options, moves: 0, sessions: 0 }
    }

    /// A connection with the session, made wherever it can be had. Gives up only when nobody serves for too long.
    fn client(&mut self) -> &mut Client {
        if self.client.is_none() {
            self.client = Some(self.connect());
        }
        self.client.as_mut().expect("just made")
    }

    fn connect(&mut self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let server = *pick(&mut self.rng, &self.shared.servers);
            match Client::connect(server, &self.options) {
                Ok(mut client) => {
                    assert!(
                        self.options.session == SessionId::NONE || client.session() == self.options.session,
                        "asked for session {}, got {}",
                        self.options.session,
                        client.session()
                    );
                    self.moves += 1;
                    self.sessions += u64::from(self.options.session == SessionId::NONE);
                    self.options = ConnectOptions { patience: ANSWER_PATIENCE, ..client.reconnect_options() };
                    client.set_patience(ANSWER_PATIENCE);
                    return client;
                }
                Err(ClientError::Refused) => {
                    // It is over. What its owner has seen stays seen.
                    self.options.session = SessionId::NONE;
                    self.options.password = Default::default();
                    self.options.timeout_ms = SESSION_TIMEOUT_MS;
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
            assert!(Instant::now() < deadline, "no server takes a session within {PATIENCE:?}");
        }
    }

    /// The connection is of no use any more.
    fn drop_client(&mut self) {
        if let Some(client) = self.client.take() {
            let zxid_seen = client.zxid_seen();
            assert!(zxid_seen >= self.options.zxid_seen, "a session went back to {zxid_seen}");
            self.options.zxid_seen = zxid_seen;
        }
    }

    /// Does something until it has an answer that is one.
    fn until_done<T>(&mut self, mut ask: impl FnMut(&mut Client) -> Result<T, ClientError>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask(self.client()) {
                Ok(answer) => return answer,
                Err(error) => {
                    assert!(is_passing(&error), "an answer nobody should get: {error}");
                    self.drop_client();
                }
            }
            assert!(Instant::now() < deadline, "no answer within {PATIENCE:?}");
        }
    }

    fn make(&mut self, path: &str) {
        self.until_done(|client| match client.create(path, b"0", CreateMode::Persistent) {
            Err(error) if error.is(ErrorCode::NodeExists) => Ok(()),
            result => result.map(drop),
        });
    }

    fn close(mut self) {
        if let Some(client) = self.client.take() {
            // Its session ends by itself where the goodbye does not arrive.
            let _ = client.close();
        }
    }
}

/// The connection or the session is over, which may happen to anybody; all else is a wrong answer.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Io(_) | ClientError::Timeout(_) | ClientError::Closed | ClientError::Refused => true,
        ClientError::Server { err } => is_passing_code(*err),
        ClientError::Protocol(_) | ClientError::Unexpected { .. } => false,
    }
}

fn is_passing_code(err: i32) -> bool {
    [ErrorCode::SessionExpired, ErrorCode::SessionMoved].iter().any(|code| code.code() == err)
}

struct Writer {
    index: usize,
    link: Link,
    rng: Rng,
    /// Of the own node.
    version: i32,
    next_number: u64,
    done: Vec<Write>,
    /// Creates whose outcome nobody was told.
    open: BTreeSet<u64>,
}

impl Writer {
    fn new(index: usize, shared: Arc<Shared>, mut rng: Rng) -> Writer {
        let link = Link::new(shared, Rng::new(rng.next_u64()));
        Writer { index, link, rng, version: 0, next_number: 0, done: Vec::new(), open: BTreeSet::new() }
    }

    fn run(mut self) -> Writer {
        while !self.link.shared.stop.load(Ordering::Relaxed) {
            self.batch();
            if chance(&mut self.rng, 1) {
                // Moves without need, as clients do.
                self.link.drop_client();
            }
        }
        if let Some(client) = self.link.client.take() {
            let _ = client.close();
        }
        self
    }

    /// Sends some writes at once and takes their answers.
    fn batch(&mut self) {
        let mut sent = Vec::new();
        let mut version = self.version;
        for _ in 0..1 + self.rng.below(BATCH_MAX) {
            sent.push(if chance(&mut self.rng, 60) {
                version += 1;
                What::Set { version }
            } else {
                self.next_number += 1;
                What::Create { number: self.next_number, path: String::new() }
            });
        }
        let asked = Instant::now();
        let answered = self.ask(&sent, asked);
        if answered == sent.len() {
            return;
        }
        for what in &sent[answered..] {
            if let What::Create { number, .. } = what {
                self.open.insert(*number);
            }
        }
        self.resolve(&sent[answered..]);
    }

    /// Gives how many were acknowledged.
    fn ask(&mut self, sent: &[What], asked: Instant) -> usize {
        let (own, index) = (own(self.index), self.index);
        let client = self.link.client();
        for what in sent {
            match what {
                What::Set { version } => {
                    let data = version.to_string();
                    client.queue(&Request::SetData {
                        path: &own,
                        data: Some(data.as_bytes()),
                        version: Some(version - 1),
                    });
                }
                What::Create { number, .. } => {
                    let data = format!("{index}:{number}");
                    let path = format!("{PARENT}/n-");
                    client.queue(&Request::create(&path, data.as_bytes(), CreateMode::PersistentSequential));
                }
            }
        }
        if client.flush().is_err() || chance(&mut self.rng, 2) {
            // Or it goes elsewhere without waiting, while the old server still works on what it was told.
            self.link.drop_client();
            return 0;
        }
        for (answered, what) in sent.iter().enumerate() {
            let client = self.link.client.as_mut().expect("in use");
            let reply = match client.receive_reply() {
                Ok(reply) if is_passing_code(reply.err) => {
                    self.link.drop_client();
                    return answered;
                }
                Ok(reply) => reply,
                Err(error) => {
                    assert!(is_passing(&error), "writer {index}: {what:?}: {error}");
                    self.link.drop_client();
                    return answered;
                }
            };
            assert!(
                reply.is_ok(),
                "writer {index} at version {}: {what:?}: error {}",
                self.version,
                reply.err
            );
            let what = match (what, reply.response) {
                (What::Set { version }, Response::Stat(stat)) => {
                    assert_eq!((stat.version, stat.mzxid), (*version, reply.zxid), "writer {index}");
                    self.version = *version;
                    self.link.shared.versions[index].fetch_max(*version, Ordering::SeqCst);
                    What::Set { version: *version }
                }
                (What::Create { number, .. }, Response::Path(Some(path))) => {
                    What::Create { number: *number, path }
                }
                (what, response) => panic!("writer {index}: {what:?}: {response:?}"),
            };
            self.done.push(Write { what, zxid: reply.zxid, asked, answered: Instant::now() });
            self.link.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        sent.len()
    }

    /// Finds out how far unanswered sets came: any number of them from the first on, nothing else.
    fn resolve(&mut self, unanswered: &[What]) {
        let path = own(self.index);
        let sets = unanswered.iter().filter(|what| matches!(what, What::Set { .. })).count() as i32;
        let (data, stat) = self.link.until_done(|client| {
            client.sync(&path)?;
            client.get_data(&path, false)
        });
        let index = self.index;
        assert!(
            stat.version >= self.version,
            "writer {index}: version {} was acknowledged and {} is there: a write is lost",
            self.version,
            stat.version
        );
        assert!(
            stat.version <= self.version + sets,
            "writer {index}: version {} was acknowledged, {sets} more were asked for, {} is there: a write is doubled",
            self.version,
            stat.version
        );
        assert_eq!(data.as_deref(), Some(stat.version.to_string().as_bytes()), "writer {index}");
        self.version = stat.version;
    }
}

/// Reads what others write: never older than what was acknowledged before a `sync`, never older than before.
fn read(mut link: Link) -> u64 {
    let shared = link.shared.clone();
    let mut seen = vec![0; shared.versions.len()];
    let mut count = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let writer = link.rng.below(seen.len() as u64) as usize;
        let path = own(writer);
        let with_sync = chance(&mut link.rng, 30);
        let mut acknowledged = 0;
        let (data, stat) = link.until_done(|client| {
            if with_sync {
                acknowledged = shared.versions[writer].load(Ordering::SeqCst);
                client.sync(&path)?;
            }
            client.get_data(&path, false)
        });
        assert!(
            stat.version >= acknowledged,
            "{path}: {acknowledged} was acknowledged before a sync, {} read",
            stat.version
        );
        assert!(
            stat.version >= seen[writer],
            "{path}: {} was read before, {} now",
            seen[writer],
            stat.version
        );
        assert_eq!(data.as_deref(), Some(stat.version.to_string().as_bytes()), "{path}");
        seen[writer] = stat.version;
        count += 1;
        if chance(&mut link.rng, 2) {
            link.drop_client();
        }
    }
    link.close();
    count
}

/// What one server has: data and zxid of each node, by path.
type Content = BTreeMap<String, (String, Zxid, i32)>;

impl Outcome {
    pub fn acknowledged(&self) -> usize {
        self.writers.iter().map(|writer| writer.done.len()).sum()
    }

    /// Everything acknowledged is on every one of these servers, once, in its order; they all have the same.
    pub fn check(&self, servers: &[usize]) {
        let contents: Vec<Content> = servers.iter().map(|index| self.content(self.servers[*index])).collect();
        let (first, rest) = contents.split_first().expect("at least one server");
        self.check_content(first);
        for (index, other) in servers[1..].iter().zip(rest) {
            let differs = first.iter().find(|(path, node)| other.get(*path) != Some(node));
            assert!(
                differs.is_none(),
                "server {} has {differs:?} otherwise than {}",
                index + 1,
                servers[0] + 1
            );
            assert_eq!(
                first.len(),
                other.len(),
                "server {} has nodes that {} has not",
                index + 1,
                servers[0] + 1
            );
        }
        self.check_order();
    }

    fn content(&self, server: SocketAddr) -> Content {
        let patience = Instant::now() + PATIENCE;
        let mut client = loop {
            match Client::open(server) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < patience, "{server}: {error}"),
            }
        };
        client.sync(PARENT).expect("synced");
        let mut paths: Vec<String> = client
            .get_children(PARENT, false)
            .expect("listed")
            .into_iter()
            .map(|name| format!("{PARENT}/{name}"))
            .collect();
        paths.extend((0..self.writers.len()).map(own));
        let mut content = Content::new();
        for some in paths.chunks(READS_MAX) {
            for path in some {
                client.queue(&Request::GetData { path, watch: false });
            }
            client.flush().expect("sent");
            for path in some {
                let reply = client.receive_reply().expect("answered");
                let Response::Data { data: Some(data), stat } = reply.response else {
                    panic!("{path}: {reply:?}")
                };
                let text = String::from_utf8(data).expect("text");
                content.insert(path.clone(), (text, stat.mzxid, stat.version));
            }
        }
        client.close().expect("closed");
        content
    }

    fn check_content(&self, content: &Content) {
        let mut found: BTreeMap<(usize, u64), (&str, Zxid)> = BTreeMap::new();
        for (path, (data, zxid, _)) in content.iter().filter(|(path, _)| path.starts_with(PARENT)) {
            let (writer, number) = data.split_once(':').expect("a writer and a number");
            let key = (writer.parse().unwrap(), number.parse().unwrap());
            if let Some((other, _)) = found.insert(key, (path, *zxid)) {
                panic!("{data} was made once and is there as {other} and {path}");
            }
        }
        for writer in &self.writers {
            let index = writer.index;
            let mut asked_for = writer.open.clone();
            for write in &writer.done {
                if let What::Create { number, path } = &write.what {
                    asked_for.insert(*number);
                    let there = found.get(&(index, *number));
                    assert_eq!(
                        there,
                        Some(&(path.as_str(), write.zxid)),
                        "writer {index} made {number}: lost or moved"
                    );
                }
            }
            let of_writer = || found.range((index, 0)..=(index, u64::MAX));
            for ((_, number), (path, _)) in of_writer() {
                assert!(asked_for.contains(number), "{path}: nobody asked for {number}");
            }
            let zxids: Vec<Zxid> = of_writer().map(|(_, (_, zxid))| *zxid).collect();
            assert!(zxids.is_sorted_by(|a, b| a < b), "writer {index}'s nodes are out of order");
            let (_, _, version) = &content[&own(index)];
            assert_eq!(*version, writer.version, "writer {index}'s own node");
        }
    }

    /// zxids tell the order of writes: each its own; ascending for one writer; and what was answered before another was asked for is
    /// before it.
    fn check_order(&self) {
        for writer in &self.writers {
            assert!(
                writer.done.is_sorted_by(|a, b| a.zxid < b.zxid),
                "writer {}'s writes came into force in another order",
                writer.index
            );
        }
        let mut by_asked: Vec<&Write> = self.writers.iter().flat_map(|writer| &writer.done).collect();
        let mut by_answered = by_asked.clone();
        by_asked.sort_by_key(|write| write.asked);
        by_answered.sort_by_key(|write| write.answered);
        let zxids: BTreeSet<Zxid> = by_asked.iter().map(|write| write.zxid).collect();
        assert_eq!(zxids.len(), by_asked.len(), "two writes have one zxid");
        let mut before = by_answered.into_iter().peekable();
        let mut newest: Option<&Write> = None;
        for write in by_asked {
            while let Some(earlier) = before.next_if(|earlier| earlier.answered < write.asked) {
                newest = newest.into_iter().chain([earlier]).max_by_key(|write| write.zxid);
            }
            if let Some(newest) = newest {
                assert!(newest.zxid < write.zxid, "{write:?} was asked for after {newest:?} was answered");
            }
        }
    }
}
