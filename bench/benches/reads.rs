//! What a read costs a front, without sockets: frames in, replies out.
//!
//! A pipeline and a front on one thread, 64 sessions, `getData` of 100 bytes, every request of every session in each turn. Tells
//! nanoseconds, and allocations, of one request. Under callgrind it counts instructions, the same on every run:
//!
//! ```sh
//! cargo bench -p ringkeeper-bench --bench reads -- --nodes 1000000 --depth 32
//! valgrind --tool=callgrind --toggle-collect='*serve_turn*' target/release/deps/reads-* --nodes 1000 --depth 32 --turns 20
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use clap::Parser;
use ringkeeper::client::{Conversation, Request};
use ringkeeper::node::limits::Shares;
use ringkeeper::node::pipeline::{ConnectionThrottleOptions, Input, Output, RequestThrottleOptions, Startup};
use ringkeeper::node::{ConnId, Front, FrontOptions, LocalLink, Pipeline, PipelineOptions, Serving};
use ringkeeper::proto::client::ConnectRequest;
use ringkeeper::proto::{FRAME_BYTES_MAX, StatPersisted};
use ringkeeper::request::Database;
use ringkeeper::request::auth::AuthOptions;
use ringkeeper::request::auth::sasl::NonceSecret;
use ringkeeper::request::prepare::PrepareOptions;
use ringkeeper::session::{IdSource, SessionTable};
use ringkeeper::stdx::hash::split_mix;
use ringkeeper::tree::{AclId, TreeOptions};
use ringkeeper::txnlog::{SegmentWork, Start, Writer, WriterOptions};
use ringkeeper::types::{Instant, Now, ServerId, SessionId, Zxid};
use ringkeeper::words::{ServerFacts, WordOptions};

/// Turns before the measured ones: caches, buffers and tables settle.
const WARM_UP_TURNS: usize = 8;
/// Digits that end a path: up to ten million nodes.
const DIGITS: usize = 7;
/// Where a request's path ends, seen from the end of its frame: there is the watch flag.
const WATCH_BYTES: usize = 1;

#[derive(Parser, Debug)]
struct Options {
    /// Nodes of 100 bytes; each request asks for a random one
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    nodes: u32,
    /// Requests of one session in one receive
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    depth: u32,
    #[arg(long, default_value_t = 64)]
    sessions: usize,
    /// Measured turns; the time of the fastest tenth of them is told
    #[arg(long, default_value_t = 1000)]
    turns: usize,
    /// Bytes of a node's data
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// cargo says so; without it, a few turns show that all is well
    #[arg(long, hide = true)]
    bench: bool,
    /// Not used; cargo test may pass it
    #[arg(hide = true)]
    filter: Option<String>,
}

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised; the memory came from `alloc` above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A front, its pipeline, and the sessions' next requests.
struct World {
    front: Front<LocalLink>,
    pipeline: Pipeline<LocalLink>,
    sessions: Vec<(ConnId, Vec<u8>)>,
    dirty: Vec<ConnId>,
    now: Now,
}

fn main() {
    let mut options = Options::parse();
    if !options.bench && std::env::var_os("CARGO").is_some() {
        options.turns = options.turns.min(10);
    }
    let mut world = World::new(&options);
    let mut random = 1;
    let reply_bytes = 4 + 16 + 4 + options.bytes + 68;
    let expected = options.sessions * options.depth as usize * reply_bytes;
    let mut times = Vec::with_capacity(options.turns);
    let mut allocations = 0;
    for turn in 0..WARM_UP_TURNS + options.turns {
        world.choose(&mut random, options.nodes);
        let allocations_before = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Clock::now();
        let bytes = serve_turn(&mut world);
        let took = start.elapsed();
        assert_eq!(bytes, expected, "every request is answered with its node's data");
        if turn >= WARM_UP_TURNS {
            allocations += ALLOCATIONS.load(Ordering::Relaxed) - allocations_before;
            times.push(took);
        }
    }
    times.sort();
    let requests = options.sessions * options.depth as usize;
    let fastest = &times[..times.len().div_ceil(10)];
    let each = |time: Duration| time.as_nanos() as f64 / requests as f64;
    println!(
        "getData of {} bytes, {} nodes, {} sessions, depth {}: {:.1} ns a request (median {:.1}), {:.4} allocations",
        options.bytes,
        options.nodes,
        options.sessions,
        options.depth,
        each(fastest.iter().sum::<Duration>() / fastest.len() as u32),
        each(times[times.len() / 2]),
        allocations as f64 / (requests * options.turns) as f64,
    );
}

/// One turn of the front, with a receive of every session before and a send after it. Gives the bytes sent.
#[inline(never)]
fn serve_turn(world: &mut World) -> usize {
    let World { front, sessions, dirty, now, .. } = world;
    for (conn, frames) in sessions.iter() {
        front.received(*now, *conn, frames);
    }
    front.turn(*now);
    front.take_dirty(dirty);
    let mut bytes = 0;
    for conn in dirty.drain(..) {
        let output = black_box(front.output(conn));
        let count = output.len();
        front.sent(conn, count);
        bytes += count;
    }
    bytes
}

impl World {
    fn new(options: &Options) -> World {
        let now = Now { instant: Instant::from_ms(1_000_000), wall_ms: 1_700_000_000_000 };
        let sessions = SessionTable::new(2000, 1);
        let mut database = Database::new(TreeOptions { hash_seed: 1 }, sessions);
        let data = vec![7; options.bytes];
        let tree = &mut database.tree;
        let mut zxid = Zxid::ZERO;
        tree.begin();
        let stat =
            |zxid: Zxid| StatPersisted { czxid: zxid, mzxid: zxid, pzxid: zxid, ..StatPersisted::default() };
        let parent = tree.create(tree.root(), "bench", None, AclId::OPEN, &stat(Zxid(1)));
        for number in 0..options.nodes {
            zxid = Zxid(i64::from(number) + 2);
            tree.create(parent, &name_of(number), Some(&data), AclId::OPEN, &stat(zxid));
        }
        tree.publish(zxid);
        // The index may still be growing.
        for _ in 0..options.nodes / 256 {
            tree.reclaim();
        }
        let link = LocalLink::default();
        let front = Front::new(front_options(), tree.reader(), link.clone());
        let log = Writer::new(WriterOptions::new(7), Start::fresh(9, database.zxid_applied()));
        let ids = IdSource::new(ServerId(1), now.instant.as_ms());
        let zxid = database.zxid_applied();
        let pipeline = Pipeline::new(pipeline_options(zxid), database, log, ids, vec![link], now);
        let mut world = World { front, pipeline, sessions: Vec::new(), dirty: Vec::new(), now };
        let conns: Vec<ConnId> = (0..options.sessions).map(|_| world.connect()).collect();
        world.settle();
        for conn in conns {
            let mut frames = Vec::new();
            let mut conversation = Conversation::default();
            for _ in 0..options.depth {
                let path = format!("/bench/{}", name_of(0));
                conversation.submit(&Request::GetData { path: &path, watch: false }, &mut frames);
            }
            world.sessions.push((conn, frames));
        }
        world
    }

    fn connect(&mut self) -> ConnId {
        let peer = "127.0.0.1:4000".parse().expect("an address");
        let conn = self.front.accept(self.now, peer);
        let mut bytes = Vec::new();
        ConnectRequest {
            protocol_version: 0,
            zxid_seen: Zxid::ZERO,
            timeout_ms: 4000,
            session: SessionId::NONE,
            password: Some(&[0; 16]),
            read_only: Some(false),
        }
        .encode_frame(&mut bytes);
        self.front.received(self.now, conn, &bytes);
        conn
    }

    /// Makes every session open.
    fn settle(&mut self) {
        let mut owed = Vec::new();
        for _ in 0..16 {
            self.pipeline.turn(self.now);
            self.pipeline.drain(&mut owed);
            for output in owed.drain(..) {
                match output {
                    Output::Write(write) => {
                        let input = Input::Written { id: write.id, spent: write.bytes };
                        self.pipeline.handle(self.now, input);
                    }
                    Output::Segment(SegmentWork::Prepare(id)) => {
                        self.pipeline.handle(self.now, Input::SegmentReady(id));
                    }
                    _ => {}
                }
            }
            serve_turn(self);
        }
    }

    /// Gives every request of the next turn a path.
    fn choose(&mut self, random: &mut u64, nodes: u32) {
        for (_, frames) in &mut self.sessions {
            let mut at = 0;
            while at < frames.len() {
                let length = u32::from_be_bytes(frames[at..at + 4].try_into().expect("four bytes")) as usize;
                at += 4 + length;
                let mut number = (u64::from(split_mix(random) as u32) * u64::from(nodes)) >> 32;
                for digit in frames[at - WATCH_BYTES - DIGITS..at - WATCH_BYTES].iter_mut().rev() {
                    *digit = b'0' + (number % 10) as u8;
                    number /= 10;
                }
            }
        }
    }
}

/// As long as ZooKeeper's own sequential names, and a bit.
fn name_of(number: u32) -> String {
    format!("member-of-the-group-{number:0DIGITS$}")
}

fn front_options() -> FrontOptions {
    FrontOptions {
        auth: AuthOptions::default(),
        frame_bytes_max: FRAME_BYTES_MAX,
        session_timeout_ms_min: 4000,
        session_timeout_ms_max: 40_000,
        sessionless_timeout: Duration::from_secs(10),
        outstanding_max: 1000,
        connection_throttle: false,
        large_request_threshold: None,
        shares: Arc::new(Shares::new(1, 1 << 20)),
        index: 0,
        words: WordOptions::default(),
        hash_seed: 1,
        serving: Serving::Yes,
        nonce_secret: NonceSecret::default(),
    }
}

fn pipeline_options(zxid: Zxid) -> PipelineOptions {
    PipelineOptions {
        prepare: PrepareOptions {
            auth: AuthOptions::default(),
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
        facts: ServerFacts::default(),
        seed: 1,
        identity: 9,
        startup: Startup::default(),
        snapshot_on_stop: false,
        audit_user: None,
        slow_write: Duration::from_secs(1),
        connection_throttle: ConnectionThrottleOptions::default(),
        request_throttle: RequestThrottleOptions::default(),
        zxid_snapshot: zxid,
    }
}
