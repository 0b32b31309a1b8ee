//! One simulated machine: a disk that outlives its processes, and at most one process, which is the real node.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper::node::front::FrontOptions;
use ringkeeper::node::limits::Shares;
use ringkeeper::node::pipeline::{
    ConnectionThrottleOptions, PipelineOptions, RequestThrottleOptions, Startup,
};
use ringkeeper::node::{Front, FrontLink, Pipeline, PipelineLink, Serving, ToFront, ToPipeline};
use ringkeeper::request::auth::AuthOptions;
use ringkeeper::request::prepare::PrepareOptions;
use ringkeeper::session::IdSource;
use ringkeeper::txnlog::format::{self, BATCH_HEADER_BYTES, BLOCK_BYTES, BatchHeader};
use ringkeeper::txnlog::{LogWrite, Writer, WriterOptions};
use ringkeeper::types::{Instant, Now, ServerId, Zxid};
use ringkeeper::words::{ServerFacts, WordOptions};

use super::disk::Disk;
use super::net::Sockets;
use super::shape::Shape;
use super::storage::{Keeper, Opened};

/// Milliseconds since 1970 at the beginning of time.
pub const WALL_MS: i64 = 1_700_000_000_000;

#[derive(Debug, Default)]
struct Queues {
    to_pipeline: VecDeque<ToPipeline>,
    to_front: VecDeque<ToFront>,
    interested: bool,
}

/// The queues between one front and the pipeline; how much they hold is part of the shape. When they deliver is decided by who
/// has a turn when.
#[derive(Debug, Clone, Default)]
pub struct SimLink {
    queues: Rc<RefCell<Queues>>,
    messages_max: usize,
}

impl SimLink {
    pub fn waits_for_pipeline(&self) -> bool {
        !self.queues.borrow().to_pipeline.is_empty()
    }

    pub fn waits_for_front(&self) -> bool {
        !self.queues.borrow().to_front.is_empty()
    }
}

impl FrontLink for SimLink {
    fn pop(&mut self) -> Option<ToFront> {
        self.queues.borrow_mut().to_front.pop_front()
    }

    fn push(&mut self, message: ToPipeline) {
        assert!(FrontLink::room(self) > 0, "R1: the queue to the pipeline is full");
        self.queues.borrow_mut().to_pipeline.push_back(message);
    }

    fn room(&self) -> usize {
        self.messages_max - self.queues.borrow().to_pipeline.len()
    }

    fn set_interested(&mut self, interested: bool) {
        self.queues.borrow_mut().interested = interested;
    }
}

impl PipelineLink for SimLink {
    fn pop(&mut self) -> Option<ToPipeline> {
        self.queues.borrow_mut().to_pipeline.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.queues.borrow().to_pipeline.is_empty()
    }

    fn push(&mut self, message: ToFront) {
        assert!(PipelineLink::room(self) > 0, "R1: the queue to the front is full");
        self.queues.borrow_mut().to_front.push_back(message);
    }

    fn room(&self) -> usize {
        self.messages_max - self.queues.borrow().to_front.len()
    }

    fn is_interested(&self) -> bool {
        self.queues.borrow().interested
    }
}

/// A process: the node, and what its shell keeps for it.
pub struct Node {
    pub pipeline: Pipeline<SimLink>,
    pub fronts: Vec<Front<SimLink>>,
    pub links: Vec<SimLink>,
    pub keeper: Keeper,
    /// Log writes under way.
    pub writes: Vec<LogWrite>,
    /// When the pipeline, then each front, has its next turn.
    pub planned: Vec<Option<u64>>,
    /// Fronts that have told that they sleep.
    pub asleep: Vec<bool>,
    /// Of each front.
    pub sockets: Vec<Sockets>,
}

pub struct Server {
    pub disk: Disk,
    pub node: Option<Node>,
    /// Counts processes; what was meant for an earlier one is dropped.
    pub incarnation: u32,
    /// The process stands still until then.
    pub paused_until: u64,
    /// Log writes complete no earlier.
    pub stalled_until: u64,
    /// The next log write fails.
    pub write_fails: bool,
    /// Its wall clock is off by this.
    pub wall_off_ms: i64,
    /// Every entry it has handed out to be written, from the first on.
    pub shadow: BTreeMap<Zxid, Rc<[u8]>>,
    /// By the completions of its disk.
    pub zxid_durable: Zxid,
    /// Seen after the last step.
    pub zxid_applied: Zxid,
    /// Completed log writes: batch number, segment name, offset, length.
    pub written: Vec<(u64, String, usize, usize)>,
    /// The disk as it was before bytes on it were changed, until a start has refused them.
    pub sound: Option<Disk>,
}

impl Server {
    pub fn new(shape: &Shape) -> Server {
        Server {
            disk: Disk::new(shape.sector_bytes),
            node: None,
            incarnation: 0,
            paused_until: 0,
            stalled_until: 0,
            write_fails: false,
            wall_off_ms: 0,
            shadow: BTreeMap::new(),
            zxid_durable: Zxid::ZERO,
            zxid_applied: Zxid::ZERO,
            written: Vec::new(),
            sound: None,
        }
    }

    /// Both clocks of this machine.
    pub fn now(&self, time: u64) -> Now {
        Now { instant: Instant(time), wall_ms: WALL_MS + (time / 1_000_000) as i64 + self.wall_off_ms }
    }
}

/// A process that goes on from what was recovered.
pub fn start(shape: &Shape, id: usize, incarnation: u32, now: Now, opened: Opened) -> Node {
    let Opened { mut database, start, identity, zxid_snapshot, entries, .. } = opened;
    let auth = AuthOptions::default();
    let front_options = FrontOptions {
        auth: auth.clone(),
        frame_bytes_max: ringkeeper::proto::FRAME_BYTES_MAX,
        session_timeout_ms_min: 2 * shape.tick_ms as i32,
        session_timeout_ms_max: 20 * shape.tick_ms as i32,
        sessionless_timeout: Duration::from_secs(10),
        outstanding_max: shape.outstanding_max,
        connection_throttle: false,
        large_request_threshold: None,
        shares: Arc::new(Shares::new(shape.fronts, u64::MAX)),
        index: 0,
        words: WordOptions::new(&["*".to_owned()], false),
        hash_seed: shape.seed,
        serving: if shape.voters + shape.observers > 1 { Serving::No } else { Serving::Yes },
    };
    let pipeline_options = PipelineOptions {
        prepare: PrepareOptions {
            auth,
            extended_types: true,
            enforce_quota: false,
            digest: true,
            reconfig: false,
            entry_bytes_max: shape.entry_bytes_max,
        },
        snap_count: shape.snap_count,
        snap_bytes_max: None,
        sweep_interval: if shape.sweeps { Duration::from_secs(2) } else { Duration::from_secs(1 << 30) },
        sweep_per_minute_max: 10_000,
        sweep_never_used_ms: if shape.sweeps { 3000 } else { 0 },
        facts: ServerFacts::default(),
        seed: shape.seed ^ u64::from(incarnation),
        identity,
        zxid_snapshot,
        startup: Startup {
            took: Duration::ZERO,
            transactions: entries.len() as u64,
            snapshot_advised: start.live.len() >= 4,
        },
        slow_write: Duration::from_secs(1),
        connection_throttle: ConnectionThrottleOptions::default(),
        request_throttle: RequestThrottleOptions::default(),
    };
    let links: Vec<SimLink> = (0..shape.fronts)
        .map(|_| SimLink { queues: Rc::default(), messages_max: shape.link_messages })
        .collect();
    let fronts = links
        .iter()
        .enumerate()
        .map(|(index, link)| {
            let options = FrontOptions { index, ..front_options.clone() };
            Front::new(options, database.tree.reader(), link.clone())
        })
        .collect();
    let writer_options = WriterOptions {
        segment_bytes: WriterOptions::segment_bytes_for(shape.segment_bytes, shape.entry_bytes_max as u64),
        batch_bytes_max: shape.batch_bytes_max,
        in_flight_max: shape.in_flight_max,
        second_write_bytes_min: 4096,
        // Differs from start to start.
        ..WriterOptions::new(shape.seed ^ (u64::from(incarnation) << 32) ^ id as u64)
    };
    let keeper = Keeper::new(writer_options.segment_bytes as usize, shape.snap_retain, shape.recycles);
    let log = Writer::new(writer_options, start);
    let ids = IdSource::new(ServerId(id as u8 + 1), now.wall_ms as u64);
    Node {
        pipeline: Pipeline::new(pipeline_options, database, log, ids, links.clone(), now),
        fronts,
        links,
        keeper,
        writes: Vec::new(),
        planned: vec![None; shape.fronts + 1],
        asleep: vec![false; shape.fronts],
        sockets: (0..shape.fronts).map(|_| Sockets::default()).collect(),
    }
}

/// The entries in a batch on its way to the log.
pub fn entries_of(identity: u64, write: &LogWrite) -> Vec<(Zxid, Rc<[u8]>)> {
    let from = if write.offset_bytes == 0 { BLOCK_BYTES } else { 0 };
    let batch = &write.bytes[from..];
    let header =
        BatchHeader::decode(identity, &batch[..BATCH_HEADER_BYTES]).expect("a batch has a sound header");
    assert_eq!(format::check_body(&header, batch), Ok(()), "a batch is sound when it is handed out");
    format::entries(&header, batch).map(|(zxid, entry)| (zxid, Rc::from(entry))).collect()
}
