//! A whole node in one thread, without I/O: clients that speak frames, a log on a disk in memory, time a test moves.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper::client::{Conversation, Incoming, Message, Request};
use ringkeeper::node::front::FrontOptions;
use ringkeeper::node::limits::Shares;
use ringkeeper::node::pipeline::{
    ConnectionThrottleOptions, Input, Output, PipelineOptions, RequestThrottleOptions,
};
use ringkeeper::node::{ConnId, Front, LocalLink, Pipeline, Serving};
use ringkeeper::proto::client::{ConnectRequest, ConnectResponse};
use ringkeeper::proto::txn::TxnEntry;
use ringkeeper::request::Database;
use ringkeeper::request::apply::{Fit, Nobody};
use ringkeeper::request::auth::AuthOptions;
use ringkeeper::request::auth::sasl::NonceSecret;
use ringkeeper::request::prepare::PrepareOptions;
use ringkeeper::session::{IdSource, SessionTable};
use ringkeeper::snapshot::{SnapshotEvent, SnapshotWork};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::tree::TreeOptions;
use ringkeeper::txnlog::recover::Base;
use ringkeeper::txnlog::{
    LogWrite, SegmentFile, SegmentId, SegmentSource, SegmentWork, Start, Writer, WriterOptions, recover,
};
use ringkeeper::types::{Now, ServerId, SessionId, Zxid};
use ringkeeper::words::{ServerFacts, WordOptions};

pub const TICK_MS: u64 = 1000;
pub const SESSION_TIMEOUT_MS: i32 = 4000;
const IDENTITY: u64 = 9;
/// Small, so that a run fills several.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Surviving pieces of a torn write.
const SECTOR_BYTES: usize = 512;

/// What a power loss leaves.
pub type Disk = BTreeMap<SegmentId, Vec<u8>>;

/// One pipeline, its fronts, and a client on each connection.
pub struct World {
    pub pipeline: Pipeline<LocalLink>,
    pub fronts: Vec<Front<LocalLink>>,
    pub peers: BTreeMap<Handle, Peer>,
    pub now: Now,
    /// Log writes that are not durable yet.
    pub writes: Vec<LogWrite>,
    pub disk: Disk,
    /// Whether writes become durable only when a test says so.
    pub holding: bool,
}

/// A client's end of a connection.
#[derive(Default)]
pub struct Peer {
    pub conversation: Conversation,
    pub connected: Option<ConnectResponse>,
    pub messages: Vec<Message>,
    pub closed: bool,
    /// What comes is counted and not read: nobody knows what was asked.
    pub is_raw: bool,
    pub received_bytes: usize,
    /// Takes nothing from the server.
    pub is_deaf: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Handle {
    pub front: usize,
    pub conn: ConnId,
}

/// What a node goes on from.
pub struct Recovered {
    pub database: Database,
    pub start: Start,
    /// Of every entry: zxid, session, cxid.
    pub entries: Vec<(Zxid, SessionId, i32)>,
}

impl World {
    pub fn fresh(front_count: usize, now: Now) -> World {
        let sessions = SessionTable::new(TICK_MS as u32, 1);
        let database = Database::new(TreeOptions { hash_seed: 1 }, sessions);
        World::begin(front_count, now, database, Start::fresh(IDENTITY, Zxid::ZERO), Disk::new(), 1)
    }

    /// `in_flight_max`: log writes under way at once, 1 or 2.
    pub fn begin(
        front_count: usize,
        now: Now,
        mut database: Database,
        start: Start,
        disk: Disk,
        in_flight_max: usize,
    ) -> World {
        let auth = AuthOptions::default();
        let front_options = FrontOptions {
            auth: auth.clone(),
            frame_bytes_max: ringkeeper::proto::FRAME_BYTES_MAX,
            session_timeout_ms_min: 2 * TICK_MS as i32,
            session_timeout_ms_max: 20 * TICK_MS as i32,
            sessionless_timeout: Duration::from_secs(10),
            outstanding_max: 1000,
            connection_throttle: false,
            large_request_threshold: None,
            shares: Arc::new(Shares::new(front_count, u64::MAX)),
            index: 0,
            words: WordOptions::new(&["*".to_owned()], false),
            hash_seed: 1,
            nonce_secret: NonceSecret::default(),
            serving: Serving::Yes,
        };
        let zxid = database.zxid_applied();
        let pipeline_options = PipelineOptions {
            prepare: PrepareOptions {
                auth,
                extended_types: true,
                enforce_quota: false,
                digest: true,
                reconfig: false,
                entry_bytes_max: 128 << 10,
            },
            snap_count: u64::MAX >> 1,
            snap_bytes_max: None,
            sweep_interval: Duration::from_secs(1 << 30),
            sweep_per_minute_max: 10_000,
            sweep_never_used_ms: 0,
            facts: ServerFacts::default(),
            seed: 1,
            identity: IDENTITY,
            zxid_snapshot: Zxid::ZERO,
            startup: ringkeeper::node::pipeline::Startup::default(),
            snapshot_on_stop: false,
            audit_user: None,
            slow_write: Duration::from_secs(1),
            connection_throttle: ConnectionThrottleOptions::default(),
            request_throttle: RequestThrottleOptions::default(),
        };
        let links: Vec<LocalLink> = (0..front_count).map(|_| LocalLink::default()).collect();
        let fronts = links
            .iter()
            .enumerate()
            .map(|(index, link)| {
                let options = FrontOptions { index, ..front_options.clone() };
                Front::new(options, database.tree.reader(), link.clone())
            })
            .collect();
        let options = WriterOptions {
            segment_bytes: SEGMENT_BYTES,
            batch_bytes_max: 16 << 10,
            in_flight_max,
            second_write_bytes_min: 0,
            // Differs from start to start.
            ..WriterOptions::new(zxid.0 as u64 ^ now.instant.0)
        };
        let log = Writer::new(options, start);
        let ids = IdSource::new(ServerId(1), now.instant.as_ms());
        World {
            pipeline: Pipeline::new(pipeline_options, database, log, ids, links, now),
            fronts,
            peers: BTreeMap::new(),
            now,
            writes: Vec::new(),
            disk,
            holding: false,
        }
    }

    pub fn advance_ms(&mut self, ms: u64) {
        self.now.instant = self.now.instant + Duration::from_millis(ms);
        self.now.wall_ms += ms as i64;
    }

    pub fn accept(&mut self, front: usize) -> Handle {
        let conn = self.fronts[front].accept(self.now, "127.0.0.1:4000".parse().unwrap());
        let handle = Handle { front, conn };
        self.peers.insert(handle, Peer::default());
        handle
    }

    /// A new session, or the given one again. Everything is settled afterwards.
    pub fn connect(&mut self, front: usize, session: SessionId) -> (Handle, ConnectResponse) {
        let handle = self.accept(front);
        let mut bytes = Vec::new();
        let password = ringkeeper::session::password(session);
        ConnectRequest {
            protocol_version: 0,
            zxid_seen: Zxid::ZERO,
            timeout_ms: SESSION_TIMEOUT_MS,
            session,
            password: Some(&password),
            read_only: Some(false),
        }
        .encode_frame(&mut bytes);
        self.received(handle, &bytes);
        self.settle();
        let response = self.peer(handle).connected.expect("the handshake is answered");
        (handle, response)
    }

    pub fn peer(&mut self, handle: Handle) -> &mut Peer {
        self.peers.get_mut(&handle).expect("a connection the test made")
    }

    pub fn received(&mut self, handle: Handle, bytes: &[u8]) {
        let now = self.now;
        self.fronts[handle.front].received(now, handle.conn, bytes);
    }

    /// Encodes a request; gives its xid.
    pub fn submit(&mut self, handle: Handle, request: &Request<'_>, out: &mut Vec<u8>) -> i32 {
        self.peer(handle).conversation.submit(request, out)
    }

    pub fn hang_up(&mut self, handle: Handle) {
        let now = self.now;
        if !self.peers.remove(&handle).expect("a connection the test made").closed {
            self.fronts[handle.front].hung_up(now, handle.conn);
        }
    }

    /// Lets turns run until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    /// Whether anything happened.
    pub fn turn(&mut self) -> bool {
        let mut moved = false;
        self.pipeline.turn(self.now);
        let mut owed = Vec::new();
        self.pipeline.drain(&mut owed);
        for output in owed {
            moved = true;
            match output {
                Output::Write(write) => self.writes.push(write),
                Output::Segment(SegmentWork::Prepare(id)) => {
                    self.disk.insert(id, vec![0; SEGMENT_BYTES as usize]);
                    self.pipeline.handle(self.now, Input::SegmentReady(id));
                }
                Output::Segment(SegmentWork::Retire(id)) => {
                    self.disk.remove(&id);
                }
                Output::Snapshot(SnapshotWork::Part(_)) => {
                    self.pipeline.handle(self.now, Input::Snapshot(SnapshotEvent::PartWritten));
                }
                Output::Snapshot(_) | Output::Told(_) | Output::Audit(_) | Output::Stopped => {}
                Output::Storage(work) => unreachable!("a server alone asks for {work:?}"),
                Output::Peer(work) => unreachable!("a server alone asks for {work:?}"),
            }
        }
        if !self.holding {
            moved |= !self.writes.is_empty();
            while !self.writes.is_empty() {
                self.make_durable(0);
            }
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

    /// One of the writes under way is on the disk.
    pub fn make_durable(&mut self, index: usize) {
        let write = self.writes.remove(index);
        put(&mut self.disk, &write, |_| true);
        self.pipeline.handle(self.now, Input::Written { id: write.id, spent: write.bytes });
    }

    fn deliver(&mut self, handle: Handle) -> bool {
        let front = &mut self.fronts[handle.front];
        let Some(peer) = self.peers.get_mut(&handle) else { return false };
        if peer.closed || peer.is_deaf {
            return false;
        }
        let bytes = front.output(handle.conn).to_vec();
        front.sent(handle.conn, bytes.len());
        peer.received_bytes += bytes.len();
        if !peer.is_raw {
            peer.conversation.received(&bytes);
            while let Some(incoming) = peer.conversation.next_incoming().expect("replies decode, in order") {
                match incoming {
                    Incoming::Connected(response) => peer.connected = Some(response),
                    Incoming::Message(message) => peer.messages.push(message),
                }
            }
        }
        if front.wants_close(handle.conn) {
            peer.closed = true;
            front.closed(handle.conn);
            return true;
        }
        !bytes.is_empty()
    }

    /// The power goes: of what was under way any sectors may have landed, or none, or all.
    pub fn crash(mut self, rng: &mut Rng) -> Disk {
        for write in std::mem::take(&mut self.writes) {
            match rng.below(3) {
                0 => {}
                1 => put(&mut self.disk, &write, |_| true),
                _ => put(&mut self.disk, &write, |_| rng.below(2) == 0),
            }
        }
        self.disk
    }
}

fn put(disk: &mut Disk, write: &LogWrite, mut survives: impl FnMut(usize) -> bool) {
    let segment = disk.get_mut(&write.segment).expect("a prepared segment");
    for (index, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
        if survives(index) {
            let at = write.offset_bytes as usize + index * SECTOR_BYTES;
            segment[at..at + sector.len()].copy_from_slice(sector);
        }
    }
}

struct Segments<'d>(&'d Disk);

impl SegmentSource for Segments<'_> {
    fn read_at(&mut self, segment: SegmentId, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        let at = offset_bytes as usize;
        into.copy_from_slice(&self.0[&segment][at..at + into.len()]);
        Ok(())
    }
}

/// What a server finds on this disk; every digest in the log is compared.
pub fn recover_from(disk: &Disk, now: Now) -> Recovered {
    let sessions = SessionTable::new(TICK_MS as u32, 1);
    let mut database = Database::new(TreeOptions { hash_seed: 1 }, sessions);
    let mut entries = Vec::new();
    let files: Vec<SegmentFile> =
        disk.iter().map(|(&id, bytes)| SegmentFile { id, bytes: bytes.len() as u64 }).collect();
    let base = Base::new(IDENTITY, Zxid::ZERO);
    let recovered = recover(&files, &mut Segments(disk), base, &mut |zxid, bytes| {
        let entry = TxnEntry::decode(bytes).map_err(|error| error.to_string())?;
        database.apply(&entry, Fit::Exact, now.instant, &mut Nobody);
        entries.push((zxid, entry.header.session, entry.header.cxid));
        match entry.digest {
            Some(digest) if digest.tree_digest != database.tree.digest() => {
                Err(format!("digest {} logged, {} found", digest.tree_digest, database.tree.digest()))
            }
            _ => Ok(()),
        }
    })
    .expect("a crash leaves a sound log");
    database.end_ephemerals_of_nobody();
    database.sessions.restart_clocks(now.instant);
    Recovered { database, start: recovered.start, entries }
}
