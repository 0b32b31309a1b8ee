//! One simulated machine: a disk that outlives its processes, and at most one process, which is the real node.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper::config::Membership;
use ringkeeper::node::front::FrontOptions;
use ringkeeper::node::limits::Shares;
use ringkeeper::node::pipeline::{
    ConnectionThrottleOptions, EnsembleOptions, PipelineOptions, RequestThrottleOptions, Startup,
};
use ringkeeper::node::{Front, FrontLink, Pipeline, PipelineLink, Serving, ToFront, ToPipeline};
use ringkeeper::request::auth::AuthOptions;
use ringkeeper::request::auth::sasl::NonceSecret;
use ringkeeper::request::prepare::PrepareOptions;
use ringkeeper::session::IdSource;
use ringkeeper::txnlog::format::{self, BLOCK_BYTES, BatchHeader};
use ringkeeper::txnlog::{LogWrite, SegmentId, Writer, WriterOptions};
use ringkeeper::types::{Epoch, Instant, Now, ServerId, Zxid};
use ringkeeper::words::{ServerFacts, WordOptions};
use ringkeeper::zab::election::ElectionOptions;
use ringkeeper::zab::leader::LeaderOptions;
use ringkeeper::zab::mesh::MeshOptions;
use ringkeeper::zab::quorum::Verifier;
use ringkeeper::zab::{Epochs, Standing};

use super::disk::Disk;
use super::net::Sockets;
use super::shape::Shape;
use super::storage::{Keeper, OpenOptions, Opened};

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
    /// The entries of its log as it is meant to be: what it has handed out to be written and not cut since.
    pub shadow: BTreeMap<Zxid, Rc<[u8]>>,
    /// The zxid before the first of them.
    pub shadow_base: Zxid,
    /// What it ever handed out under each zxid: a crash before a cut is durable may bring it back.
    pub ever: BTreeMap<Zxid, Vec<Rc<[u8]>>>,
    /// A leader's snapshot has replaced its history, up to this zxid.
    pub installed: Option<Zxid>,
    /// Of its disk, as it was last started from.
    pub segment_first: SegmentId,
    /// It served clients after the last step.
    pub was_serving: bool,
    /// After so many outputs of its next turn it dies: with the power, or alone.
    pub dies_after: Option<(usize, bool)>,
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
            shadow_base: Zxid::ZERO,
            ever: BTreeMap::new(),
            installed: None,
            segment_first: SegmentId(0),
            was_serving: false,
            dies_after: None,
            zxid_durable: Zxid::ZERO,
            zxid_applied: Zxid::ZERO,
            written: Vec::new(),
            sound: None,
        }
    }

    /// The end of its log as it is meant to be.
    pub fn last(&self) -> Zxid {
        self.shadow.last_key_value().map_or(self.shadow_base, |(zxid, _)| *zxid)
    }

    /// Both clocks of this machine.
    pub fn now(&self, time: u64) -> Now {
        Now { instant: Instant(time), wall_ms: WALL_MS + (time / 1_000_000) as i64 + self.wall_off_ms }
    }
}

/// A process that goes on from what was recovered.
pub fn start(
    shape: &Shape,
    id: usize,
    incarnation: u32,
    now: Now,
    open: OpenOptions,
    opened: Opened,
) -> Node {
    let writer_options = WriterOptions {
        segment_bytes: WriterOptions::segment_bytes_for(shape.segment_bytes, shape.entry_bytes_max as u64),
        batch_bytes_max: shape.batch_bytes_max,
        in_flight_max: shape.in_flight_max,
        second_write_bytes_min: 4096,
        // Differs from start to start.
        ..WriterOptions::new(shape.seed ^ (u64::from(incarnation) << 32) ^ id as u64)
    };
    let keeper = Keeper::new(&opened, open, writer_options, shape.snap_retain, shape.recycles);
    let Opened { mut database, start, identity, zxid_snapshot, entries, epochs, .. } = opened;
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
        nonce_secret: NonceSecret::default(),
        serving: if shape.servers() > 1 { Serving::No } else { Serving::Yes },
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
        snapshot_on_stop: false,
        audit_user: None,
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
    let log = Writer::new(writer_options, start);
    let ids = IdSource::new(ServerId(id as u8 + 1), now.wall_ms as u64);
    let mut pipeline = Pipeline::new(pipeline_options, database, log, ids, links.clone(), now);
    if shape.servers() > 1 {
        let is_empty = pipeline.database().zxid_applied() == Zxid::ZERO && epochs.current == Epoch(0);
        pipeline = pipeline.in_ensemble(ensemble_options(shape, id, epochs, is_empty));
    }
    Node {
        pipeline,
        fronts,
        links,
        keeper,
        writes: Vec::new(),
        planned: vec![None; shape.fronts + 1],
        asleep: vec![false; shape.fronts],
        sockets: (0..shape.fronts).map(|_| Sockets::default()).collect(),
    }
}

fn membership(shape: &Shape) -> Membership {
    let mut text = String::new();
    for id in 1..=shape.servers() {
        let role = if id > shape.voters { "observer" } else { "participant" };
        text.push_str(&format!("server.{id}=127.0.0.{id}:2888:3888:{role};127.0.0.{id}:2181\n"));
    }
    text.push_str("version=0");
    Membership::parse(text.as_bytes()).expect("a membership of our own")
}

fn ensemble_options(shape: &Shape, id: usize, epochs: Epochs, is_empty: bool) -> EnsembleOptions {
    let me = ServerId(id as u8 + 1);
    let tick = Duration::from_millis(shape.tick_ms);
    let membership = membership(shape);
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
            epoch_wait_max: shape.epoch_wait_ms.map(Duration::from_millis),
        },
        membership,
        tick,
        init_limit: 10,
        sync_limit: 5,
        leader_serves: shape.leader_serves,
        standalone_enabled: true,
        epochs,
        standing: if is_empty { Standing::Empty { may_found: true } } else { Standing::Full },
        recent_bytes_max: shape.recent_bytes_max,
        modes: Default::default(),
        staged_bytes_max: 64 << 20,
        hash_seed: shape.seed | 1,
        tick_ms: shape.tick_ms as u32,
    }
}

/// A batch on its way to the log: what it follows, and its entries.
pub fn batch_of(identity: u64, write: &LogWrite) -> (Zxid, Vec<(Zxid, Rc<[u8]>)>) {
    let from = if write.offset_bytes == 0 { BLOCK_BYTES } else { 0 };
    let batch = &write.bytes[from..];
    let header = BatchHeader::decode(identity, batch).expect("a batch has a sound header");
    assert_eq!(format::check_body(&header, batch), Ok(()), "a batch is sound when it is handed out");
    let entries = format::entries(&header, batch).map(|(zxid, entry)| (zxid, Rc::from(entry))).collect();
    (header.zxid_before, entries)
}
