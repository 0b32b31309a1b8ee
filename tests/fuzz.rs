//! Damaged input: through a whole node, as a client's bytes, and into every decoder as a plain function.
//!
//! A node must answer others as before whatever one connection sends, hold no more than it was sent, and find the same tree again
//! in its log. `RK_SEED` repeats a run; a failing one prints its own.

#[path = "support/node.rs"]
#[allow(dead_code)]
mod node;

use std::hash::{BuildHasher, RandomState};

use node::{Handle, SESSION_TIMEOUT_MS, World, recover_from};
use ringkeeper::client::{
    ACL_OPEN, ACL_READ, Conversation, Event, Message, Request, Response, SetWatches, WatchMode, WatchType,
};
use ringkeeper::config::{self, Membership, Sources, Start};
use ringkeeper::jute::{Reader, put_buffer, put_string};
use ringkeeper::node::front::{HANDSHAKE_BYTES_MAX, OUTPUT_BYTES_MAX};
use ringkeeper::proto::acl::encode_list;
use ringkeeper::proto::client::*;
use ringkeeper::proto::election::{INITIAL_BYTES_MAX, InitialMessage, Notification, ServerState};
use ringkeeper::proto::txn::{CreateKind, Txn, TxnDigest, TxnEntry, TxnHeader, kind, put};
use ringkeeper::proto::{Acl, FRAME_BYTES_MAX};
use ringkeeper::request::multi::{decode_reads, decode_writes};
use ringkeeper::request::{path, quota};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::types::{Instant, Now, SessionId, Zxid};
use ringkeeper::words::Word;

const SEED: u64 = 20_261_120;
const BURSTS: usize = 300;
const CLIENTS: usize = 4;
const DECODER_ROUNDS: usize = 20_000;
/// Less than any operation of a multi that makes a node takes on the wire.
const NODE_WIRE_BYTES_MIN: usize = 16;
const LENGTHS: [i32; 12] = [
    i32::MIN,
    -2,
    -1,
    0,
    1,
    7,
    HANDSHAKE_BYTES_MAX as i32,
    HANDSHAKE_BYTES_MAX as i32 + 1,
    FRAME_BYTES_MAX as i32,
    FRAME_BYTES_MAX as i32 + 1,
    1 << 30,
    i32::MAX,
];

const fn create(op: OpCode, path: &'static str, flags: i32) -> Request<'static> {
    Request::Create { op, path, data: Some(b"data"), acl: Some(ACL_OPEN), flags, ttl_ms: 1000 }
}

const WATCHES: SetWatches<'static> =
    SetWatches { zxid_seen: Zxid(3), data: &["/a", "/x"], exist: &["/a/b"], child: &["/"] };
const WRITES: &[Request<'static>] = &[
    create(OpCode::Create, "/a/m", 0),
    create(OpCode::Create2, "/a/m-", 2),
    create(OpCode::CreateContainer, "/c", 4),
    create(OpCode::CreateTtl, "/t", 5),
    Request::SetData { path: "/a/m", data: Some(b"1"), version: Some(0) },
    Request::Check { path: "/a", version: None },
    Request::Delete { path: "/a/m", version: None },
];
const READS: &[Request<'static>] =
    &[Request::GetData { path: "/a", watch: false }, Request::GetChildren { path: "/a", watch: false }];

/// One valid request of each kind at least. None touches the root's ACL or what the others rely on.
const REQUESTS: &[Request<'static>] = &[
    create(OpCode::Create, "/a", 0),
    create(OpCode::Create, "/a/b", 0),
    create(OpCode::Create, "/a/e", 1),
    create(OpCode::Create2, "/a/s-", 2),
    create(OpCode::Create2, "/a/es-", 3),
    create(OpCode::CreateContainer, "/c", 4),
    create(OpCode::CreateTtl, "/t", 5),
    create(OpCode::CreateTtl, "/ts-", 6),
    create(OpCode::Create, "/zookeeper/quota/a", 0),
    create(OpCode::Create, "/zookeeper/quota/a/zookeeper_limits", 0),
    Request::SetData {
        path: "/zookeeper/quota/a/zookeeper_limits",
        data: Some(b"count=1,bytes=5"),
        version: None,
    },
    Request::Delete { path: "/a/b", version: None },
    Request::Exists { path: "/a", watch: true },
    Request::GetData { path: "/a/b", watch: true },
    Request::SetData { path: "/a", data: Some(b"other"), version: None },
    Request::SetData { path: "/a/b", data: None, version: Some(0) },
    Request::GetAcl { path: "/a" },
    Request::SetAcl { path: "/a/b", acl: Some(ACL_READ), version: None },
    Request::SetAcl { path: "/a/b", acl: None, version: Some(1) },
    Request::GetChildren { path: "/a", watch: true },
    Request::GetChildren2 { path: "/", watch: true },
    Request::Sync { path: "/a" },
    Request::Ping,
    Request::Check { path: "/a", version: Some(0) },
    Request::Multi(WRITES),
    Request::Multi(&[]),
    Request::Multi(&[create(OpCode::Create, "/a/n", 0), Request::Multi(WRITES)]),
    Request::MultiRead(READS),
    Request::MultiRead(&[Request::MultiRead(READS)]),
    Request::Reconfig {
        joining: Some("server.1=a:1:2;3"),
        leaving: Some("2"),
        new_members: None,
        config_id: -1,
    },
    Request::CheckWatches { path: "/a", watches: WatchType::Any },
    Request::RemoveWatches { path: "/a", watches: WatchType::Data },
    Request::SetWatches(WATCHES),
    Request::SetWatches2 { standard: WATCHES, persistent: &["/a"], recursive: &["/", "/a/b"] },
    Request::AddWatch { path: "/a", mode: WatchMode::Persistent },
    Request::AddWatch { path: "/", mode: WatchMode::PersistentRecursive },
    Request::Auth { scheme: "digest", auth: Some(b"user:secret") },
    Request::Auth { scheme: "ip", auth: None },
    Request::Sasl { token: Some(b"token") },
    Request::GetEphemerals { prefix: Some("/a") },
    Request::GetEphemerals { prefix: None },
    Request::GetAllChildrenNumber { path: "/" },
    Request::WhoAmI,
    Request::CloseSession,
    Request::Raw { op: -10, body: &[0, 0, 16, 0] },
    Request::Raw { op: 20, body: b"\0\0\0\x02/c" },
];

/// Says what repeats a run that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("RK_SEED={} repeats this run", self.0);
        }
    }
}

fn for_each_seed(run: impl Fn(u64)) {
    let seeds = match std::env::var("RK_SEED") {
        Ok(text) => vec![text.parse().expect("RK_SEED is a number")],
        Err(_) => vec![SEED, RandomState::new().hash_one(0) >> 16],
    };
    for seed in seeds {
        println!("RK_SEED={seed}");
        let _guard = Seed(seed);
        run(seed);
    }
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.below(from.len() as u64) as usize]
}

/// Damages bytes in one to four ways; `other` is what is spliced in.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(6) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 => bytes.truncate(at),
            3 => bytes.extend((0..rng.below(40)).map(|_| rng.next_u64() as u8)),
            4 if at + 4 <= bytes.len() => {
                bytes[at..at + 4].copy_from_slice(&pick(rng, &LENGTHS).to_be_bytes())
            }
            5 => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.below(other.len() as u64 + 1) as usize..]);
            }
            _ => {}
        }
    }
}

/// Mostly with the length that fits, so that damage gets past the framing.
fn mutated_frame(rng: &mut Rng, mut frame: Vec<u8>, other: &[u8]) -> Vec<u8> {
    mutate(rng, &mut frame, other);
    if rng.below(12) > 0 && frame.len() >= 4 {
        let length = frame.len() as i32 - 4;
        frame[..4].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

fn any_request(rng: &mut Rng) -> Vec<u8> {
    let (mut frame, mut other) = (Vec::new(), Vec::new());
    pick(rng, REQUESTS).encode_frame(rng.below(100) as i32, &mut frame);
    pick(rng, REQUESTS).encode_frame(1, &mut other);
    match rng.below(10) {
        // The valid ones make what the damaged ones meet.
        0..4 => frame,
        4 => {
            frame[8..12].copy_from_slice(&(rng.below(130) as i32 - 12).to_be_bytes());
            frame
        }
        _ => mutated_frame(rng, frame, &other),
    }
}

fn any_handshake(rng: &mut Rng, session: SessionId) -> Vec<u8> {
    let password = ringkeeper::session::password(session);
    let request = ConnectRequest {
        protocol_version: 0,
        zxid_seen: Zxid(*pick(rng, &[0, 0, 1, i64::MAX, i64::MIN])),
        timeout_ms: *pick(rng, &[SESSION_TIMEOUT_MS, 0, i32::MAX, i32::MIN]),
        session: *pick(rng, &[SessionId::NONE, session, SessionId(i64::MIN)]),
        password: *pick(rng, &[None, Some(&[][..]), Some(&password[..]), Some(&[7; 16])]),
        read_only: *pick(rng, &[None, Some(false), Some(true)]),
    };
    let mut frame = Vec::new();
    request.encode_frame(&mut frame);
    match rng.below(8) {
        0 => frame,
        1 => {
            let length = *pick(rng, &LENGTHS);
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.resize(4 + rng.below(2 * u64::from(HANDSHAKE_BYTES_MAX)) as usize, rng.below(2) as u8);
            bytes
        }
        2..5 => {
            const WORDS: &[&[u8]] = &[
                b"conf",
                b"cons",
                b"crst",
                b"dirs",
                b"dump",
                b"envi",
                b"gtmk",
                b"hash",
                b"isro",
                b"mntr",
                b"ruok",
                b"srst",
                b"srvr",
                b"stat",
                b"stmk",
                b"wchc",
                b"wchp",
                b"wchs",
                b"\xff\xf4\xff\xfd",
                b"RUOK",
            ];
            let mut bytes = pick(rng, WORDS).to_vec();
            bytes.extend((0..rng.below(20)).map(|_| rng.next_u64() as u8));
            bytes
        }
        _ => {
            let other = any_request(rng);
            mutated_frame(rng, frame, &other)
        }
    }
}

/// Parent of the nodes that those who behave make; no valid request of the others names it.
const GOOD: &str = "/those-who-behave";

struct Fuzz {
    rng: Rng,
    world: World,
    /// One on each front, that does as it should.
    good: Vec<Handle>,
    clients: Vec<Handle>,
    session_last: SessionId,
    sent_bytes: usize,
    made: usize,
}

impl Fuzz {
    fn new(seed: u64, front_count: usize) -> Fuzz {
        let now = Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 };
        let mut world = World::fresh(front_count, now);
        let good = (0..front_count).map(|front| world.connect(front, SessionId::NONE).0).collect();
        let rng = Rng::new(seed ^ front_count as u64);
        let clients = Vec::new();
        Fuzz { rng, world, good, clients, session_last: SessionId::NONE, sent_bytes: 0, made: 0 }
    }

    fn run(mut self) {
        for _ in 0..BURSTS {
            self.replace_clients();
            self.world.holding = self.rng.below(2) == 0;
            for _ in 0..1 + self.rng.below(2 * CLIENTS as u64) {
                self.send();
            }
            self.rest();
            for index in 0..self.good.len() {
                self.probe(self.good[index]);
            }
            let ms = self.rng.below(1500);
            self.world.advance_ms(ms);
        }
        self.rest();
        let live = self.world.pipeline.database();
        let found = recover_from(&self.world.disk, self.world.now).database;
        assert_eq!(found.zxid_applied(), live.zxid_applied());
        assert_eq!(found.tree.digest(), live.tree.digest());
        assert_eq!(found.tree.node_count(), live.tree.node_count());
        assert_eq!(found.sessions.len(), live.sessions.len());
        println!(
            "{} fronts, {} bytes sent, {} nodes",
            self.good.len(),
            self.sent_bytes,
            live.tree.node_count()
        );
    }

    /// A connection that was closed, or is stuck in a frame that never ends, makes room for a new one.
    fn replace_clients(&mut self) {
        for index in (0..self.clients.len()).rev() {
            if self.world.peer(self.clients[index]).closed || self.rng.below(8) == 0 {
                let handle = self.clients.swap_remove(index);
                self.world.hang_up(handle);
            }
        }
        for _ in self.clients.len()..CLIENTS {
            // An id is used again only by the next to come, so what closes meanwhile goes first.
            let world = &mut self.world;
            self.clients.retain(|&handle| {
                let is_closed = world.peer(handle).closed;
                if is_closed {
                    world.hang_up(handle);
                }
                !is_closed
            });
            let front = self.rng.below(self.good.len() as u64) as usize;
            let handle = match self.rng.below(3) {
                0 => self.world.accept(front),
                _ => {
                    let (handle, response) = self.world.connect(front, SessionId::NONE);
                    self.session_last = response.session;
                    handle
                }
            };
            self.world.peer(handle).is_raw = true;
            self.clients.push(handle);
        }
    }

    /// Some requests on one connection, in pieces.
    fn send(&mut self) {
        let handle = *pick(&mut self.rng, &self.clients);
        let mut bytes = Vec::new();
        if self.world.peer(handle).connected.is_none() && self.world.peer(handle).received_bytes == 0 {
            bytes = any_handshake(&mut self.rng, self.session_last);
        }
        for _ in 0..self.rng.below(12) {
            bytes.append(&mut any_request(&mut self.rng));
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = if self.rng.below(3) == 0 { 6 } else { bytes.len() as u64 };
            let (piece, after) = rest.split_at(rest.len().min(1 + self.rng.below(most) as usize));
            if self.rng.below(3) == 0 {
                self.world.turn();
            }
            if self.rng.below(4) == 0 && !self.world.writes.is_empty() {
                self.world.make_durable(0);
            }
            if !self.world.fronts[handle.front].wants_read(handle.conn) {
                self.rest();
            }
            // Whoever is not read after that never will be again.
            let front = &self.world.fronts[handle.front];
            if !front.wants_read(handle.conn) || self.world.peers[&handle].closed {
                return;
            }
            self.world.received(handle, piece);
            self.sent_bytes += piece.len();
            self.check_output();
            rest = after;
        }
    }

    /// Everything sent is dealt with, and nothing is left of it but what the tree holds.
    fn rest(&mut self) {
        self.world.settle();
        self.check_output();
        let was_holding = std::mem::take(&mut self.world.holding);
        self.world.settle();
        self.world.holding = was_holding;
        for (&handle, peer) in &self.world.peers {
            let front = &self.world.fronts[handle.front];
            assert!(peer.closed || front.output(handle.conn).is_empty(), "{handle:?}: output is left");
        }
        let tree = &self.world.pipeline.database().tree;
        let nodes_max = 10 + self.made + self.sent_bytes / NODE_WIRE_BYTES_MIN;
        assert!(tree.node_count() <= nodes_max, "{} nodes of {} bytes", tree.node_count(), self.sent_bytes);
        let data_bytes_max = 4096 + 100 * self.made + 4 * self.sent_bytes;
        assert!(tree.data_bytes() <= data_bytes_max as u64, "{} of {}", tree.data_bytes(), self.sent_bytes);
    }

    fn check_output(&self) {
        for &handle in self.world.peers.keys() {
            let waits = self.world.fronts[handle.front].output(handle.conn).len();
            assert!(waits <= OUTPUT_BYTES_MAX + FRAME_BYTES_MAX as usize, "{handle:?}: {waits} bytes wait");
        }
    }

    /// Whoever behaves gets right answers.
    fn probe(&mut self, handle: Handle) {
        self.world.holding = false;
        self.made += 1;
        // Below a node of their own: damage can make a valid change of the root's access list.
        let path = if self.made == 1 { GOOD.to_owned() } else { format!("{GOOD}/{}", self.made) };
        let requests = [
            Request::create(&path, b"one", CreateMode::Persistent),
            Request::GetData { path: &path, watch: false },
            Request::SetData { path: &path, data: Some(b"two"), version: Some(0) },
            Request::GetData { path: &path, watch: false },
        ];
        let mut bytes = Vec::new();
        for request in &requests {
            self.world.submit(handle, request, &mut bytes);
        }
        self.world.received(handle, &bytes);
        self.world.settle();
        let messages = std::mem::take(&mut self.world.peer(handle).messages);
        let responses: Vec<Response> = messages
            .into_iter()
            .map(|message| match message {
                Message::Reply(reply) if reply.is_ok() => reply.response,
                other => panic!("{path}: {other:?}"),
            })
            .collect();
        let [
            Response::Path(made),
            Response::Data { data: one, .. },
            Response::Stat(stat),
            Response::Data { data: two, .. },
        ] = &responses[..]
        else {
            panic!("{path}: {responses:?}")
        };
        assert_eq!((made.as_deref(), stat.version), (Some(&path[..]), 1));
        assert_eq!((one.as_deref(), two.as_deref()), (Some(&b"one"[..]), Some(&b"two"[..])));
    }
}

#[test]
fn a_node_outlives_damaged_requests_and_handshakes() {
    for_each_seed(|seed| (1..=2).for_each(|front_count| Fuzz::new(seed, front_count).run()));
}

/// A body of every kind of transaction, each as a whole entry.
fn entries() -> Vec<Vec<u8>> {
    let mut acl = Vec::new();
    encode_list(ACL_OPEN, &mut acl);
    let bodies: [(i32, Body<'_>); 9] = [
        (kind::CREATE, &|out| put::create(out, "/a", None, &acl, CreateKind::Plain { ephemeral: true }, 1)),
        (kind::CREATE_TTL, &|out| put::create(out, "/t", Some(b"x"), &acl, CreateKind::Ttl { ttl_ms: 5 }, 2)),
        (kind::CREATE_CONTAINER, &|out| put::create(out, "/c", None, &acl, CreateKind::Container, 3)),
        (kind::DELETE, &|out| put::delete(out, "/a")),
        (kind::SET_DATA, &|out| put::set_data(out, "/a", Some(b"data"), 4)),
        (kind::SET_ACL, &|out| put::set_acl(out, "/a", &acl, 5)),
        (kind::CREATE_SESSION, &|out| put::create_session(out, 4000)),
        (kind::CLOSE_SESSION, &|out| put::close_session(out, ["/a", "/b"].into_iter())),
        (kind::ERROR, &|out| put::error(out, -101)),
    ];
    let mut all: Vec<(i32, Vec<u8>)> = Vec::new();
    for (kind, body) in bodies {
        let mut bytes = Vec::new();
        body(&mut bytes);
        all.push((kind, bytes));
    }
    let mut multi = (all.len() as i32).to_be_bytes().to_vec();
    for (kind, body) in &all {
        multi.extend(kind.to_be_bytes());
        put_buffer(&mut multi, Some(body));
    }
    all.push((kind::MULTI, multi));
    let entry = |(kind, body): (i32, Vec<u8>)| {
        let mut bytes = Vec::new();
        TxnHeader { session: SessionId(7), cxid: 1, zxid: Zxid(2), time_ms: 3, kind }.encode(&mut bytes);
        bytes.extend(body);
        TxnDigest { version: 2, tree_digest: 9 }.encode(&mut bytes);
        TxnEntry::decode(&bytes).expect("a sound entry");
        bytes
    };
    all.into_iter().map(entry).collect()
}

/// Every decoder of bytes that come from outside; what has an encoder comes back the same.
fn decode_all(rng: &mut Rng, bytes: &[u8]) {
    for op in [OpCode::Create, OpCode::CreateTtl] {
        let _ = CreateRequest::decode(&mut Reader::new(bytes), op);
    }
    let _ = VersionRequest::decode(&mut Reader::new(bytes));
    let _ = SetDataRequest::decode(&mut Reader::new(bytes));
    let _ =
        SetAclRequest::decode(&mut Reader::new(bytes)).map(|request| request.acl.map(|acl| acl.is_empty()));
    let _ = ReadRequest::decode(&mut Reader::new(bytes));
    let _ = RequestHeader::decode(&mut Reader::new(bytes));
    let _ = decode_writes(&mut Reader::new(bytes));
    let _ = decode_reads(&mut Reader::new(bytes));
    if let Ok(header) = MultiHeader::decode(&mut Reader::new(bytes)) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(MultiHeader::decode(&mut Reader::new(&again)), Ok(header));
    }
    if let Ok(request) = ConnectRequest::decode(bytes) {
        let mut again = Vec::new();
        request.encode_frame(&mut again);
        assert_eq!(ConnectRequest::decode(&again[4..]), Ok(request));
    }
    if let Ok(response) = ConnectResponse::decode(bytes) {
        let mut again = Vec::new();
        response.encode_frame(&mut again);
        assert_eq!(ConnectResponse::decode(&again[4..]), Ok(response));
    }
    if let Ok(Some(acl)) = Acl::decode(&mut Reader::new(bytes)) {
        let entries: Vec<_> = acl.entries().collect();
        let mut again = Vec::new();
        encode_list(&entries, &mut again);
        let acl = Acl::decode(&mut Reader::new(&again)).unwrap().unwrap();
        assert_eq!(acl.entries().collect::<Vec<_>>(), entries);
    }
    if let Ok(Some(text)) = Reader::new(bytes).string() {
        let mut again = Vec::new();
        put_string(&mut again, &text);
        assert_eq!(Reader::new(&again).string(), Ok(Some(text.clone())));
        decode_path(&text);
    }
    if let Ok(TxnEntry { header, txn, .. }) = TxnEntry::decode(bytes) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(again, bytes[..TxnHeader::BYTES]);
        if let Txn::Multi(multi) = txn {
            assert!(multi.ops().all(|(kind, _)| kind != kind::MULTI));
        }
    }
    let _ = Event::decode(Zxid(1), bytes);
    for op in -12..110 {
        let _ = Response::decode(op, if rng.below(8) == 0 { -101 } else { 0 }, bytes);
    }
    let mut conversation = Conversation::default();
    let mut asked = Vec::new();
    pick(rng, REQUESTS).encode_frame(1, &mut asked);
    conversation.submit(pick(rng, REQUESTS), &mut asked);
    for piece in bytes.chunks(1 + rng.below(20) as usize) {
        conversation.received(piece);
        while let Ok(Some(_)) = conversation.next_incoming() {}
    }
    if let Some(word) = bytes.first_chunk::<4>().and_then(|first| Word::of(*first)) {
        assert!(word == Word::TelnetClose || word.name().as_bytes() == &bytes[..4]);
    }
    decode_path(&String::from_utf8_lossy(bytes));
    decode_election(bytes);
    if let Some(track) = quota::Track::parse(bytes) {
        assert_eq!(quota::Track::parse(track.text().as_bytes()), Some(track));
    }
}

fn any_of_election(rng: &mut Rng) -> Vec<u8> {
    let text = "server.1=a:1:2|b:1:2:participant;0.0.0.0:3\nserver.2=[::1]:1:2:observer\ngroup.1=1\nweight.1=2\nversion=1f";
    match rng.below(3) {
        0 => text.as_bytes().to_vec(),
        1 => {
            let addresses = vec![("a".to_owned(), 1), ("::1".to_owned(), 2)];
            InitialMessage { sid: 3, addresses }.to_vec(rng.below(2) == 0)
        }
        _ => {
            let (state, version) = (ServerState::Looking, 2);
            let vote = Notification { state, leader: 3, zxid: Zxid(9), round: 2, peer_epoch: 1, version };
            vote.frame(text).split_off(4)
        }
    }
}

fn decode_election(bytes: &[u8]) {
    if let Ok(Some((message, used))) = InitialMessage::decode(bytes) {
        assert!(used <= INITIAL_BYTES_MAX);
        let again = message.to_vec(true);
        assert_eq!(InitialMessage::decode(&again), Ok(Some((message, again.len()))));
    }
    if let Ok((notification, text)) = Notification::decode(bytes) {
        let _ = Membership::parse(text);
        if let Ok(text) = std::str::from_utf8(text) {
            let (again, text_again) = (notification.frame(text), text.as_bytes());
            let read = Notification::decode(&again[4..]).map(|(read, text)| (read.round, text));
            assert_eq!(read, Ok((notification.round, text_again)));
        }
    }
    if let Ok(membership) = Membership::parse(bytes) {
        let text = membership.to_text();
        assert_eq!(Membership::parse(text.as_bytes()).map(|again| again.to_text()), Ok(text));
    }
}

fn decode_path(text: &str) {
    let _ = (path::parent_for_watch(text), path::is_special(text), quota::subject(text, quota::LIMITS));
    let parts = path::split(text);
    assert!(parts.is_some() || !path::is_valid(text), "{text:?}");
    if let Some((parent, name)) = parts {
        assert_eq!(format!("{parent}/{name}"), text);
    }
}

const CONFIG: &[u8] = b"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/d\nclientPort=2181\nmaxClientCnxns=60\n\
    autopurge.snapRetainCount=3\nautopurge.purgeInterval=1\nclientPortAddress=::1\nsecureClientPort=1\n\
    4lw.commands.whitelist=*\nquorumListenOnAllIPs=true\nserver.1=[::1]:2888:3888:observer;2181\ngroup.1=1:2\n\
    weight.1=1\ndynamicConfigFile=/dyn\nmetricsProvider.httpPort=7000\nsnapCount=5\na\\u0041 : b\\\n c\n";
const OTHERS: &[&[u8]] =
    &[b"count=5,bytes=-1=;byteHardLimit=-1;countHardLimit=10", b"/a/b/../c", b"ruok", CONFIG];

#[test]
fn decoders_take_any_bytes() {
    for_each_seed(|seed| {
        let mut rng = Rng::new(seed);
        let entries = entries();
        for _ in 0..DECODER_ROUNDS {
            let (mut frame, mut handshake) = (any_request(&mut rng), any_handshake(&mut rng, SessionId(1)));
            handshake.truncate(500);
            let mut bytes = match rng.below(7) {
                0 => (0..rng.below(80)).map(|_| rng.next_u64() as u8).collect(),
                1 => frame.split_off(frame.len().min(4)),
                2 => frame.split_off(frame.len().min(12)),
                3 => handshake.split_off(handshake.len().min(4)),
                4 => pick(&mut rng, OTHERS).to_vec(),
                5 => any_of_election(&mut rng),
                _ => pick(&mut rng, &entries).clone(),
            };
            let other = pick(&mut rng, &entries).clone();
            if rng.below(4) > 0 {
                mutate(&mut rng, &mut bytes, &other);
            }
            decode_all(&mut rng, &bytes);
        }
    });
}

#[test]
fn configurations_take_any_text() {
    for_each_seed(|seed| {
        let mut rng = Rng::new(seed);
        for _ in 0..DECODER_ROUNDS / 4 {
            let mut text = CONFIG.to_vec();
            mutate(&mut rng, &mut text, CONFIG);
            let mut file = text.clone();
            mutate(&mut rng, &mut file, b"server.2=a:1:2:participant;0.0.0.0:3\n");
            let sources =
                Sources { start: Start::File { name: "zoo.cfg".to_owned(), text }, ..Sources::default() };
            let choice = rng.below(3);
            let loaded = config::load(&sources, &mut |_| match choice {
                0 => Ok(None),
                1 => Err("cannot be read".to_owned()),
                _ => Ok(Some(file.clone())),
            });
            if let Err(error) = loaded {
                assert!(!error.to_string().is_empty());
            }
        }
    });
}

/// Writes the body of a transaction.
type Body<'a> = &'a dyn Fn(&mut Vec<u8>);
