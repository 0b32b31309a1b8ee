//! A whole node in one thread: clients that speak frames, a log whose completions a test holds back, time that a test moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::front::{ConnId, Front, FrontOptions};
use super::limits::Shares;
use super::link::LocalLink;
use super::pipeline::{
    ConnectionThrottleOptions, Input, Output, Pipeline, PipelineOptions, RequestThrottleOptions, Startup,
};
use crate::admin::Told;
use crate::client::{
    ACL_OPEN, Conversation, Event, Incoming, Message, MultiResult, Reply, Request, Response, SetWatches,
    WatchMode,
};
use crate::node::storage_work::{MembershipFiles, StorageEvent, StorageWork};
use crate::proto::ErrorCode;
use crate::proto::client::{ConnectRequest, ConnectResponse, CreateMode, EventType, OpCode};
use crate::request::Database;
use crate::request::audit::AuditLine;
use crate::request::auth::AuthOptions;
use crate::request::auth::sasl::NonceSecret;
use crate::request::prepare::PrepareOptions;
use crate::session::{IdSource, SessionTable};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::tree::TreeOptions;
use crate::txnlog::testing::Memory;
use crate::txnlog::{LogWrite, SegmentId, SegmentWork, Start, Writer, WriterOptions, read_range};
use crate::types::{Instant, Now, ServerId, SessionId, Zxid};
use crate::words::{ServerFacts, WordOptions};
use crate::zab::{Epochs, PeerWork};

mod audit;
mod ensemble;
mod limits;
mod questions;
mod reads;
mod sasl;

const TICK_MS: u64 = 1000;
const LARGE_BYTES_MAX: u64 = 3000;
const SEGMENT_BYTES: u64 = 8 << 20;

fn log_options() -> WriterOptions {
    WriterOptions { segment_bytes: SEGMENT_BYTES, ..WriterOptions::new(7) }
}

/// One pipeline and its fronts, and a client on each connection.
struct World {
    pipeline: Pipeline<LocalLink>,
    fronts: Vec<Front<LocalLink>>,
    clients: BTreeMap<(usize, ConnId), Client>,
    now: Now,
    /// Log writes that are not durable yet.
    writes: Vec<LogWrite>,
    /// Whether writes become durable only when a test says so.
    holding: bool,
    snapshots: Vec<Vec<u8>>,
    told: Vec<Told>,
    audit: Vec<AuditLine>,
    snapshot_zxid: Zxid,
    /// What a disk would hold of the log.
    segments: BTreeMap<SegmentId, Vec<u8>>,
    /// Where the log begins that counts, since a leader's snapshot was installed.
    segment_first: SegmentId,
    /// What the last install makes of that.
    segment_installed: SegmentId,
    /// Snapshots of a leader that were installed.
    installs: usize,
    epochs: Epochs,
    /// What is wanted of connections to peers, for whoever joins several worlds.
    peer_work: Vec<PeerWork>,
    membership_files: Vec<MembershipFiles>,
    stopped: bool,
}

#[derive(Default)]
struct Client {
    conversation: Conversation,
    connected: Option<ConnectResponse>,
    messages: Vec<Message>,
    raw: Vec<u8>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Handle {
    front: usize,
    conn: ConnId,
}

impl World {
    fn new(front_count: usize) -> World {
        World::with(front_count, |_, _| {})
    }

    fn with(front_count: usize, adjust: impl FnOnce(&mut FrontOptions, &mut PipelineOptions)) -> World {
        World::of(ServerId(1), front_count, adjust)
    }

    fn of(
        server: ServerId,
        front_count: usize,
        adjust: impl FnOnce(&mut FrontOptions, &mut PipelineOptions),
    ) -> World {
        let sessions = SessionTable::new(TICK_MS as u32, 1);
        let database = Database::new(TreeOptions { hash_seed: 1 }, sessions);
        World::holding(server, database, Start::fresh(9, Zxid::ZERO), BTreeMap::new(), front_count, adjust)
    }

    /// A node that begins with what an earlier one has left.
    fn holding(
        server: ServerId,
        mut database: Database,
        start: Start,
        segments: BTreeMap<SegmentId, Vec<u8>>,
        front_count: usize,
        adjust: impl FnOnce(&mut FrontOptions, &mut PipelineOptions),
    ) -> World {
        let auth = AuthOptions::default();
        let mut front_options = FrontOptions {
            auth: auth.clone(),
            frame_bytes_max: crate::proto::FRAME_BYTES_MAX,
            session_timeout_ms_min: 2 * TICK_MS as i32,
            session_timeout_ms_max: 20 * TICK_MS as i32,
            sessionless_timeout: Duration::from_secs(10),
            outstanding_max: 1000,
            connection_throttle: false,
            large_request_threshold: None,
            shares: Arc::new(Shares::new(front_count, LARGE_BYTES_MAX)),
            index: 0,
            words: WordOptions::default(),
            hash_seed: 1,
            nonce_secret: NonceSecret::default(),
            serving: crate::node::Serving::Yes,
        };
        let mut pipeline_options = PipelineOptions {
            prepare: PrepareOptions {
                auth,
                extended_types: true,
                enforce_quota: false,
                digest: true,
                reconfig: false,
                entry_bytes_max: 2 << 20,
            },
            snap_count: 100_000,
            snap_bytes_max: None,
            sweep_interval: Duration::from_secs(60),
            sweep_per_minute_max: 10_000,
            sweep_never_used_ms: 0,
            connection_throttle: ConnectionThrottleOptions::default(),
            request_throttle: RequestThrottleOptions::default(),
            facts: ServerFacts::default(),
            seed: 1,
            identity: 9,
            zxid_snapshot: Zxid::ZERO,
            startup: Startup::default(),
            snapshot_on_stop: false,
            audit_user: None,
            slow_write: Duration::from_secs(1),
        };
        adjust(&mut front_options, &mut pipeline_options);
        let now = Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 };
        let links: Vec<LocalLink> = (0..front_count).map(|_| LocalLink::default()).collect();
        let fronts = links
            .iter()
            .enumerate()
            .map(|(index, link)| {
                let options = FrontOptions { index, ..front_options.clone() };
                Front::new(options, database.tree.reader(), link.clone())
            })
            .collect();
        let log = Writer::new(log_options(), start);
        let ids = IdSource::new(server, now.instant.as_ms());
        World {
            pipeline: Pipeline::new(pipeline_options, database, log, ids, links, now),
            fronts,
            clients: BTreeMap::new(),
            now,
            writes: Vec::new(),
            holding: false,
            snapshots: Vec::new(),
            told: Vec::new(),
            audit: Vec::new(),
            snapshot_zxid: Zxid::ZERO,
            segments,
            segment_first: SegmentId(0),
            segment_installed: SegmentId(0),
            installs: 0,
            epochs: Epochs::default(),
            peer_work: Vec::new(),
            membership_files: Vec::new(),
            stopped: false,
        }
    }

    fn advance_ms(&mut self, ms: u64) {
        self.now.instant = self.now.instant + Duration::from_millis(ms);
        self.now.wall_ms += ms as i64;
    }

    /// Time passes as it does for a server that runs.
    fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms / 500 {
            self.advance_ms(500);
            self.settle();
        }
    }

    fn accept(&mut self, front: usize) -> Handle {
        let conn = self.fronts[front].accept(self.now, "127.0.0.1:4000".parse().unwrap());
        self.clients.insert((front, conn), Client::default());
        Handle { front, conn }
    }

    /// A client with a session.
    fn connect(&mut self, front: usize) -> Handle {
        let client = self.accept(front);
        self.shake_hands(client, SessionId::NONE, &[0; 16]);
        self.settle();
        let response = self.client(client).connected.expect("connected");
        assert_ne!(response.session, SessionId::NONE);
        client
    }

    fn shake_hands(&mut self, client: Handle, session: SessionId, password: &[u8]) {
        let mut bytes = Vec::new();
        ConnectRequest {
            protocol_version: 0,
            zxid_seen: Zxid::ZERO,
            timeout_ms: 4000,
            session,
            password: Some(password),
            read_only: Some(false),
        }
        .encode_frame(&mut bytes);
        self.send_bytes(client, &bytes);
    }

    fn client(&mut self, client: Handle) -> &mut Client {
        self.clients.get_mut(&(client.front, client.conn)).unwrap()
    }

    fn send_bytes(&mut self, client: Handle, bytes: &[u8]) {
        let now = self.now;
        self.fronts[client.front].received(now, client.conn, bytes);
    }

    fn send(&mut self, client: Handle, requests: &[Request<'_>]) {
        let mut bytes = Vec::new();
        for request in requests {
            self.client(client).conversation.submit(request, &mut bytes);
        }
        self.send_bytes(client, &bytes);
    }

    /// One request and its reply, with everything run.
    fn call(&mut self, client: Handle, request: Request<'_>) -> Reply {
        self.send(client, &[request]);
        self.settle();
        match self.client(client).messages.pop() {
            Some(Message::Reply(reply)) => reply,
            other => panic!("a reply should be the last message, not {other:?}"),
        }
    }

    /// Lets turns run until nothing moves.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    /// Whether anything happened.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        self.pipeline.turn(self.now);
        let mut owed = Vec::new();
        self.pipeline.drain(&mut owed);
        for output in owed {
            moved = true;
            match output {
                Output::Write(write) => self.writes.push(write),
                Output::Segment(SegmentWork::Prepare(id)) => {
                    self.segments.insert(id, vec![0; SEGMENT_BYTES as usize]);
                    self.pipeline.handle(self.now, Input::SegmentReady(id));
                }
                Output::Segment(SegmentWork::Retire(id)) => {
                    self.segments.remove(&id);
                }
                Output::Snapshot(work) => self.snapshot(work),
                Output::Audit(line) => self.audit.push(line),
                Output::Told(told) => self.told.push(told),
                Output::Storage(StorageWork::WriteEpochs(epochs)) => {
                    self.epochs = epochs;
                    let written = StorageEvent::EpochsWritten(epochs);
                    self.pipeline.handle(self.now, Input::Storage(written));
                }
                Output::Storage(StorageWork::Rebuild { to }) => {
                    let reason = "there is no disk here".to_owned();
                    let event = StorageEvent::CannotRebuild { to, reason };
                    self.pipeline.handle(self.now, Input::Storage(event));
                }
                Output::Storage(StorageWork::WriteMembership(files)) => {
                    self.membership_files.push(*files);
                    self.pipeline.handle(self.now, Input::Storage(StorageEvent::MembershipWritten));
                }
                Output::Storage(StorageWork::ReadLog(range)) => {
                    let mut memory = Memory(&self.segments);
                    let files = memory.files();
                    let event = match read_range(&files, &mut memory, 9, self.segment_first, range) {
                        Ok(read) => StorageEvent::LogRead(read),
                        Err(error) => StorageEvent::CannotReadLog { range, reason: error.to_string() },
                    };
                    self.pipeline.handle(self.now, Input::Storage(event));
                }
                Output::Peer(work) => self.peer_work.push(work),
                Output::Stopped => self.stopped = true,
            }
        }
        if !self.holding {
            moved |= self.make_durable();
        }
        for front in 0..self.fronts.len() {
            self.fronts[front].turn(self.now);
            moved |= self.fronts[front].has_more();
            let mut dirty = Vec::new();
            self.fronts[front].take_dirty(&mut dirty);
            for conn in dirty {
                moved |= self.deliver(Handle { front, conn });
            }
        }
        moved | self.pipeline.has_more()
    }

    fn make_durable(&mut self) -> bool {
        let writes = std::mem::take(&mut self.writes);
        let moved = !writes.is_empty();
        for write in writes {
            let segment = self.segments.get_mut(&write.segment).expect("a prepared segment");
            let at = write.offset_bytes as usize;
            segment[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
            self.pipeline.handle(self.now, Input::Written { id: write.id, spent: write.bytes });
        }
        moved
    }

    fn snapshot(&mut self, work: SnapshotWork) {
        let event = match work {
            SnapshotWork::Begin { .. } | SnapshotWork::Install { .. } => {
                let zxid = match work {
                    SnapshotWork::Install { zxid, segment_first } => {
                        self.segment_installed = segment_first;
                        self.installs += 1;
                        zxid
                    }
                    SnapshotWork::Begin { zxid } => zxid,
                    _ => unreachable!("one of the two"),
                };
                self.snapshot_zxid = zxid;
                self.snapshots.push(Vec::new());
                return;
            }
            SnapshotWork::Part(part) => {
                self.snapshots.last_mut().unwrap().extend_from_slice(&part);
                SnapshotEvent::PartWritten
            }
            SnapshotWork::End { .. } => {
                let zxid = self.snapshot_zxid;
                self.segment_first = self.segment_installed;
                SnapshotEvent::Done { zxid, log_from: zxid }
            }
            SnapshotWork::Abandon => SnapshotEvent::Abandoned,
        };
        self.pipeline.handle(self.now, Input::Snapshot(event));
    }

    fn deliver(&mut self, client: Handle) -> bool {
        let front = &mut self.fronts[client.front];
        let bytes = front.output_slices(client.conn).collect::<Vec<_>>().concat();
        front.sent(client.conn, bytes.len());
        let found = self.clients.get_mut(&(client.front, client.conn)).unwrap();
        found.raw.extend_from_slice(&bytes);
        found.conversation.received(&bytes);
        // The length of a frame begins with a zero, the answer to a word does not.
        if found.raw.first() == Some(&0) {
            while let Some(incoming) = found.conversation.next_incoming().unwrap() {
                match incoming {
                    Incoming::Connected(response) => found.connected = Some(response),
                    Incoming::Message(message) => found.messages.push(message),
                }
            }
        }
        if front.wants_close(client.conn) {
            found.closed = true;
            front.closed(client.conn);
            return true;
        }
        !bytes.is_empty()
    }

    fn hang_up(&mut self, client: Handle) {
        let now = self.now;
        self.fronts[client.front].hung_up(now, client.conn);
    }

    fn messages(&mut self, client: Handle) -> Vec<Message> {
        std::mem::take(&mut self.client(client).messages)
    }
}

fn create(path: &str) -> Request<'_> {
    Request::create(path, b"x", CreateMode::Persistent)
}

fn ephemeral(path: &str) -> Request<'_> {
    Request::create(path, b"", CreateMode::Ephemeral)
}

fn set<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    Request::SetData { path, data: Some(data), version: None }
}

fn get(path: &str) -> Request<'_> {
    Request::GetData { path, watch: false }
}

fn event(zxid: i64, kind: EventType, path: &str) -> Message {
    Message::Event(Event { zxid: Zxid(zxid), kind, state: 3, path: path.to_owned() })
}

#[test]
fn a_write_is_acknowledged_only_when_it_is_durable() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.holding = true;
    world.send(client, &[create("/a")]);
    world.settle();
    assert!(world.messages(client).is_empty());
    assert_eq!(world.pipeline.database().tree.find("/a"), None);
    assert!(world.make_durable());
    world.settle();
    let [Message::Reply(reply)] = &world.messages(client)[..] else { panic!("one reply") };
    assert_eq!((reply.zxid, reply.err), (Zxid(2), 0));
}

/// Replies keep the order of requests, and a read between two writes shows exactly the state between them (C5).
///
/// Method: pipeline writes and reads of one node, with the log held back, then let go all at once.
#[test]
fn a_read_between_two_writes_shows_what_lies_between() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, create("/a"));
    world.holding = true;
    world.send(
        client,
        &[set("/a", b"1"), get("/a"), set("/a", b"2"), get("/a"), Request::Ping, set("/a", b"3")],
    );
    world.settle();
    assert!(world.messages(client).is_empty());
    world.make_durable();
    world.settle();
    let replies: Vec<(i64, Option<Vec<u8>>)> = world
        .messages(client)
        .into_iter()
        .map(|message| match message {
            Message::Reply(Reply { zxid, response: Response::Data { data, .. }, .. }) => (zxid.0, data),
            Message::Reply(reply) => (reply.zxid.0, None),
            Message::Event(event) => panic!("no event is due: {event:?}"),
        })
        .collect();
    let data = |bytes: &[u8]| Some(bytes.to_vec());
    assert_eq!(replies, [(3, None), (3, data(b"1")), (4, None), (4, data(b"2")), (4, None), (5, None)]);
}

#[test]
fn reads_of_others_do_not_wait() {
    let mut world = World::new(1);
    let (writer, reader) = (world.connect(0), world.connect(0));
    world.call(writer, create("/a"));
    world.holding = true;
    world.send(writer, &[set("/a", b"1")]);
    world.settle();
    let reply = world.call(reader, get("/a"));
    assert!(matches!(reply.response, Response::Data { data: Some(data), .. } if data == b"x"));
}

/// The event of a change reaches a client before any reply that shows the change (P8), its own write's included.
#[test]
fn events_precede_what_would_reveal_them() {
    let mut world = World::new(2);
    let (watcher, writer) = (world.connect(0), world.connect(1));
    world.call(writer, create("/a"));
    world.call(watcher, Request::GetData { path: "/a", watch: true });
    world.send(writer, &[set("/a", b"1")]);
    world.settle();
    assert_eq!(world.messages(watcher), [event(4, EventType::NodeDataChanged, "/a")]);
    world.call(watcher, Request::Exists { path: "/b", watch: true });
    world.send(watcher, &[create("/b")]);
    world.settle();
    let messages = world.messages(watcher);
    assert_eq!(messages[0], event(5, EventType::NodeCreated, "/b"));
    assert!(matches!(&messages[1], Message::Reply(reply) if reply.zxid == Zxid(5)));
}

#[test]
fn a_session_ends_with_its_ephemerals_when_its_time_is_up() {
    let mut world = World::new(1);
    let (owner, other) = (world.connect(0), world.connect(0));
    world.call(owner, ephemeral("/e"));
    world.call(other, Request::Exists { path: "/e", watch: true });
    world.hang_up(owner);
    world.settle();
    world.pass_ms(3000);
    world.call(other, Request::Ping);
    assert!(world.messages(other).is_empty());
    world.pass_ms(3000);
    let messages = world.messages(other);
    assert_eq!(messages, [event(4, EventType::NodeDeleted, "/e")]);
}

#[test]
fn a_client_that_is_heard_keeps_its_session() {
    let mut world = World::new(1);
    let client = world.connect(0);
    for _ in 0..20 {
        world.advance_ms(1500);
        assert!(world.call(client, Request::Ping).is_ok());
    }
    assert!(world.call(client, create("/a")).is_ok());
    world.pass_ms(6000);
    assert!(world.client(client).closed);
}

/// After a pause of the process no session expires for what waits in its socket (O12).
#[test]
fn what_waits_in_the_socket_counts_before_a_session_expires() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.advance_ms(60_000);
    // The timer fires first; the ping that came meanwhile is received one turn later.
    world.turn();
    world.send(client, &[Request::Ping]);
    world.settle();
    assert!(!world.client(client).closed);
    assert!(world.call(client, create("/a")).is_ok());
}

#[test]
fn a_session_moves_to_a_new_connection_and_the_old_one_closes() {
    let mut world = World::new(2);
    let old = world.connect(0);
    world.call(old, ephemeral("/e"));
    let response = world.client(old).connected.unwrap();
    // A stranger without the password harms nobody.
    let stranger = world.accept(1);
    world.shake_hands(stranger, response.session, &[7; 16]);
    world.settle();
    assert!(world.client(stranger).closed && !world.client(old).closed);
    assert_eq!(world.client(stranger).connected.unwrap().session, SessionId::NONE);
    let new = world.accept(1);
    world.shake_hands(new, response.session, &response.password);
    world.settle();
    assert!(world.client(old).closed);
    assert_eq!(world.client(new).connected.unwrap().session, response.session);
    let reply = world.call(new, Request::GetEphemerals { prefix: None });
    assert_eq!(reply.response, Response::Paths(vec!["/e".into()]));
}

#[test]
fn closing_takes_the_ephemerals_along_and_answers_last() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, ephemeral("/e"));
    world.call(client, Request::Exists { path: "/e", watch: true });
    world.send(client, &[ephemeral("/f"), Request::CloseSession, create("/never")]);
    world.settle();
    let messages = world.messages(client);
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[1], event(4, EventType::NodeDeleted, "/e"));
    assert!(matches!(&messages[2], Message::Reply(reply) if reply.is_ok()));
    assert!(world.client(client).closed);
    for path in ["/e", "/f", "/never"] {
        assert_eq!(world.pipeline.database().tree.find(path), None);
    }
}

#[test]
fn a_multi_is_all_or_nothing() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, create("/a"));
    let ops = [
        create("/b"),
        Request::Check { path: "/a", version: Some(9) },
        Request::Delete { path: "/a", version: None },
    ];
    let reply = world.call(client, Request::Multi(&ops));
    let failed = |err: ErrorCode| MultiResult::Failed { err: err.code() };
    assert!(reply.is_ok());
    assert_eq!(
        reply.response,
        Response::Multi(vec![
            failed(ErrorCode::Ok),
            failed(ErrorCode::BadVersion),
            failed(ErrorCode::RuntimeInconsistency)
        ])
    );
    assert_eq!(world.pipeline.database().tree.find("/b"), None);
    let ops = [create("/b"), set("/b", b"2"), Request::create("/b/", b"", CreateMode::PersistentSequential)];
    let reply = world.call(client, Request::Multi(&ops));
    let Response::Multi(results) = reply.response else { panic!("a multi's response") };
    assert!(results.iter().all(|result| matches!(result, MultiResult::Done { .. })), "{results:?}");
    assert!(world.pipeline.database().tree.find("/b/0000000000").is_some());
}

#[test]
fn watches_are_armed_again_with_what_was_missed_first() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, create("/a"));
    let seen = world.pipeline.database().zxid_applied();
    world.call(client, set("/a", b"1"));
    let watches = SetWatches { zxid_seen: seen, data: &["/a", "/gone"], exist: &["/new"], child: &["/a"] };
    world.send(client, &[Request::SetWatches(watches)]);
    world.settle();
    let messages = world.messages(client);
    assert_eq!(messages[0], event(-1, EventType::NodeDataChanged, "/a"));
    assert_eq!(messages[1], event(-1, EventType::NodeDeleted, "/gone"));
    assert!(matches!(&messages[2], Message::Reply(reply) if reply.is_ok()));
    world.send(client, &[create("/new"), create("/a/b")]);
    world.settle();
    let kinds: Vec<_> =
        world.messages(client).into_iter().filter(|m| matches!(m, Message::Event(_))).collect();
    assert_eq!(
        kinds,
        [event(4, EventType::NodeCreated, "/new"), event(5, EventType::NodeChildrenChanged, "/a")]
    );
}

#[test]
fn recursive_watches_see_the_subtree_and_no_child_events() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, Request::AddWatch { path: "/", mode: WatchMode::PersistentRecursive });
    world.send(client, &[create("/a"), create("/a/b"), Request::Delete { path: "/a/b", version: None }]);
    world.settle();
    let events: Vec<_> =
        world.messages(client).into_iter().filter(|m| matches!(m, Message::Event(_))).collect();
    assert_eq!(
        events,
        [
            event(2, EventType::NodeCreated, "/a"),
            event(3, EventType::NodeCreated, "/a/b"),
            event(4, EventType::NodeDeleted, "/a/b")
        ]
    );
}

#[test]
fn what_does_not_decode_is_answered_without_a_transaction() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let reply = world.call(client, Request::Raw { op: OpCode::SetData.number(), body: &[0, 0, 0, 9, b'/'] });
    assert_eq!((reply.err, reply.zxid), (ErrorCode::MarshallingError.code(), Zxid(1)));
    assert_eq!(world.call(client, create("/a")).zxid, Zxid(2));
}

#[test]
fn unknown_and_internal_requests_end_the_connection() {
    for op in [0, -1, 13, 20, -10, 99, 4711] {
        let mut world = World::new(1);
        let client = world.connect(0);
        let reply = world.call(client, Request::Raw { op, body: b"\0\0\0\x02/a\0\0\0\0" });
        assert_eq!((reply.err, reply.zxid), (ErrorCode::Unimplemented.code(), Zxid(-1)), "type {op}");
        assert!(world.client(client).closed, "type {op}");
    }
}

#[test]
fn a_bad_length_closes_at_once() {
    for (fresh, length) in [(true, -1i32), (true, 20_000), (false, 0x10_0000), (false, i32::MIN), (false, 7)]
    {
        let mut world = World::new(1);
        let client = if fresh { world.accept(0) } else { world.connect(0) };
        let before = world.client(client).raw.len();
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 7]);
        world.send_bytes(client, &bytes);
        world.settle();
        assert!(world.client(client).closed, "length {length}");
        assert_eq!(world.client(client).raw.len(), before, "length {length}");
    }
}

/// Every way to cut the bytes of a conversation gives the same replies.
#[test]
fn frames_may_come_in_any_pieces() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let mut bytes = Vec::new();
    for request in [create("/a"), get("/a"), set("/a", b"2"), get("/a")] {
        world.client(client).conversation.submit(&request, &mut bytes);
    }
    for byte in bytes {
        world.send_bytes(client, &[byte]);
        world.settle();
    }
    let replies = world.messages(client);
    assert_eq!(replies.len(), 4);
    assert!(replies.iter().all(|message| matches!(message, Message::Reply(reply) if reply.is_ok())));
}

#[test]
fn containers_go_when_their_last_child_has_gone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let container = Request::Create {
        op: OpCode::CreateContainer,
        path: "/c",
        data: None,
        acl: Some(ACL_OPEN),
        flags: 4,
        ttl_ms: 0,
    };
    assert!(world.call(client, container).is_ok());
    for _ in 0..70 {
        world.advance_ms(1000);
        world.call(client, Request::Ping);
    }
    assert!(world.pipeline.database().tree.find("/c").is_some(), "never used, and kept");
    world.call(client, create("/c/x"));
    world.call(client, Request::Delete { path: "/c/x", version: None });
    for _ in 0..70 {
        world.advance_ms(1000);
        world.call(client, Request::Ping);
    }
    assert_eq!(world.pipeline.database().tree.find("/c"), None);
}

#[test]
fn stopping_finishes_what_was_proposed() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.holding = true;
    world.send(client, &[create("/a")]);
    world.settle();
    world.pipeline.handle(world.now, Input::Stop);
    world.settle();
    assert!(!world.stopped);
    world.make_durable();
    world.settle();
    assert!(world.stopped);
    assert_eq!(world.messages(client).len(), 1);
}

#[test]
fn ruok_is_answered_when_allowed() {
    let mut world = World::with(1, |front, _| front.words = WordOptions::new(&["*".to_owned()], false));
    let client = world.accept(0);
    world.send_bytes(client, b"ru");
    world.send_bytes(client, b"ok\n");
    world.settle();
    assert_eq!(world.client(client).raw, b"imok");
    assert!(world.client(client).closed);
}
