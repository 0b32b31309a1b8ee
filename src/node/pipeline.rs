//! The pipeline: every write of the server in one order.
//!
//! A turn takes what the fronts sent, prepares it against the tree and all that is proposed, appends it to the log, and hands out one
//! batch; what is durable is applied and published, and its events and replies go to the fronts. The watermarks never cross:
//! `applied <= durable <= proposed` (S2), and a batch counts as durable only by the completion the shell reports.
//!
//! A read that stands behind an unfinished write of its own session queues here between the writes, so that it shows exactly the state
//! between them (C5).

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::admin::{Ask, Told};
use crate::jute::{put_buffer, put_i32, put_string};
use crate::node::ConnId;
use crate::node::limits::BytesShare;
use crate::node::link::{Body, PipelineLink, Request, Serving, ToFront, ToPipeline};
use crate::node::storage_work::{StorageEvent, StorageWork};
use crate::proto::ErrorCode;
use crate::proto::client::{MultiHeader, OpCode};
use crate::proto::txn::{DIGEST_VERSION, Txn, TxnDigest, TxnEntry, kind};
use crate::request::Database;
use crate::request::apply::Fit;
use crate::request::audit::{AuditLine, Audited};
use crate::request::prepare::{PrepareOptions, Prepared, Preparer, Write};
use crate::request::read::{self, Asker};
use crate::session::{Heard, IdSource, Owner};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::txnlog::{LogWrite, SegmentId, SegmentWork, WriteId, Writer};
use crate::types::{Instant, Now, SessionId, Zxid};
use crate::zab::PeerWork;
use crate::zab::leader::ProofId;

mod audit;
mod diskless;
mod ensemble;
mod feed;
mod leading;
mod learning;
mod local;
mod questions;
mod reconfig;
mod reporter;
mod snapshots;
mod standing;
mod surveys;
mod sweep;
mod throttle;

use ensemble::Ensemble;
pub use ensemble::{EnsembleOptions, Modes};
use learning::{Claimed, Install};
use local::LocalSessions;
use questions::Questions;
use reporter::Reporter;
use snapshots::{Ended, Snapshots};
use surveys::{Asker as SurveyAsker, Surveys};
use sweep::Sweep;
use throttle::{ConnectionThrottle, Next, RequestThrottle};
pub use throttle::{ConnectionThrottleOptions, RequestThrottleOptions};

/// Entries proposed and not yet applied; beyond it the fronts' queues fill and clients wait.
pub const OUTSTANDING_MAX: usize = 65_536;
/// Messages taken from one front in one turn, so that a busy one does not starve the others.
const TURN_MESSAGES_MAX: usize = 1024;
/// Messages to one front that handling one item may cause.
const ROOM_PER_ITEM: usize = 4;
/// Counter of an epoch at which a leader resigns, so that everything under way still has a number.
const RESIGN_AT_COUNTER: u32 = u32::MAX - 4 * OUTSTANDING_MAX as u32;
/// Bytes of the blocks that entries are cut from.
const BLOCK_BYTES: usize = 64 << 10;
/// How late a timer may be before the process counts as having stood still (O12).
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// What the pipeline depends on besides the state.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    pub prepare: PrepareOptions,
    /// `zookeeper.snapCount`: entries between snapshots.
    pub snap_count: u64,
    /// `snapSizeLimitInKb`: bytes between snapshots; `None` is off.
    pub snap_bytes_max: Option<u64>,
    /// `znode.container.checkIntervalMs`.
    pub sweep_interval: Duration,
    /// `znode.container.maxPerMinute`.
    pub sweep_per_minute_max: u64,
    /// `znode.container.maxNeverUsedIntervalMs`; zero keeps containers that never had a child.
    pub sweep_never_used_ms: u64,
    pub connection_throttle: ConnectionThrottleOptions,
    pub request_throttle: RequestThrottleOptions,
    /// What four-letter words say of the configuration.
    pub facts: crate::words::ServerFacts,
    /// Draws when snapshots come.
    pub seed: u64,
    /// Of the data directory; snapshots carry it.
    pub identity: u64,
    /// zxid of the newest verified snapshot at the start.
    pub zxid_snapshot: Zxid,
    pub startup: Startup,
    /// `fsync.warningthresholdms`: a log write that takes longer is told and counted.
    pub slow_write: Duration,
    /// `ringkeeper.snapshotOnStop`: [`Output::Stopped`] comes after a snapshot of everything.
    pub snapshot_on_stop: bool,
    /// Who runs the server, where `audit.enable` is on; `None`: nothing is audited.
    pub audit_user: Option<String>,
}

/// What the recovery before the start took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Startup {
    pub took: Duration,
    pub transactions: u64,
    /// The log has grown into many files: a snapshot soon would let most of them go.
    pub snapshot_advised: bool,
}

/// What the shell tells the pipeline.
#[derive(Debug)]
pub enum Input {
    /// A batch is durable; its buffer comes back.
    Written {
        id: WriteId,
        spent: Vec<u8>,
    },
    SegmentReady(SegmentId),
    Snapshot(SnapshotEvent),
    /// The admin server wants to know something, or a snapshot.
    Ask(Ask),
    /// Answers [`Output::Storage`].
    Storage(StorageEvent),
    /// Finish what is proposed and say [`Output::Stopped`].
    Stop,
}

/// What the pipeline wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Make it durable, then say [`Input::Written`].
    Write(LogWrite),
    Segment(SegmentWork),
    Snapshot(SnapshotWork),
    /// Answers [`Input::Ask`].
    Told(Told),
    /// For the audit log.
    Audit(AuditLine),
    /// Other work on the data directory; answered by [`Input::Storage`].
    Storage(StorageWork),
    Peer(PeerWork),
    Stopped,
}

/// Who waits for an item's end.
#[derive(Debug)]
struct Origin {
    front: usize,
    conn: ConnId,
    xid: i32,
    op: OpCode,
    received: Instant,
    /// Where the audit log wants to hear of it.
    audited: Option<Box<Audited>>,
    /// Given back when the request is answered.
    _share: Option<BytesShare>,
}

/// What stands in the queue between proposed and applied.
#[derive(Debug)]
enum Item {
    /// A client's write.
    Write { zxid: Zxid, entry: Bytes, origin: Origin },
    /// A new session's transaction.
    Open { zxid: Zxid, entry: Bytes, front: usize, conn: ConnId, timeout_ms: i32 },
    /// Nobody waits: an expiry or a sweep.
    Own { zxid: Zxid, entry: Bytes },
    /// A request that became no transaction.
    Refused { origin: Origin, err: ErrorCode },
    /// A read behind a write.
    Read { front: usize, request: Box<Request> },
    /// A sync on the leader, which waits for the proof that it still leads (P6).
    Sync { origin: Origin, path: Bytes, proof: ProofId },
}

impl Origin {
    /// For a request nobody will answer.
    fn dropped(self) -> (usize, ToFront) {
        (self.front, ToFront::Dropped { conn: self.conn, op: self.op })
    }
}

/// The ordering half of a server.
pub struct Pipeline<L> {
    links: Vec<L>,
    database: Database,
    preparer: Preparer,
    log: Writer,
    ids: IdSource,
    options: PipelineOptions,
    queue: VecDeque<Item>,
    /// Everything up to here is on stable storage.
    zxid_durable: Zxid,
    /// In an ensemble: everything up to here is decided.
    zxid_committed: Zxid,
    /// This server's part in its ensemble; `None` where it is alone.
    ensemble: Option<Box<Ensemble>>,
    serving: Serving,
    /// Sessions no other server knows, where there may be any.
    local: Option<Box<LocalSessions>>,
    /// Entries of others may meet a state that has them already.
    fit: Fit,
    /// The last transaction's digest was that of the tree, or the tree is fresh from the leader. Where it still is not, fetching it
    /// again would not help.
    digest_trusted: bool,
    /// The newest proof of this reign.
    proved: Option<ProofId>,
    /// A received database on its way to the disk.
    install: Option<Install>,
    /// The disk is going back to an earlier state.
    rebuilding: bool,
    /// The tree is not the leader's: it is to be fetched whole.
    diverged: bool,
    now: Now,
    /// Entries are cut from this.
    block: BytesMut,
    scratch: Vec<u8>,
    due: Vec<SessionId>,
    owed: Vec<Output>,
    /// Entries appended since the last write began, and the writes under way.
    entries_waiting: u64,
    writes_in_flight: VecDeque<(WriteId, Instant)>,
    sweep: Sweep,
    snapshots: Snapshots,
    surveys: Surveys,
    questions: Questions,
    connections: ConnectionThrottle,
    requests: RequestThrottle,
    /// When the last turn was, and when the next one should have come at the latest.
    turned: Instant,
    turn_due: Instant,
    stopping: bool,
    stopped: bool,
    has_more: bool,
    /// Kept alive as long as this is.
    guard: Option<Box<dyn std::any::Any>>,
}

impl<L: PipelineLink> Pipeline<L> {
    /// Takes over a recovered database and a log that continues behind it. One link a front.
    pub fn new(
        options: PipelineOptions,
        database: Database,
        log: Writer,
        ids: IdSource,
        links: Vec<L>,
        now: Now,
    ) -> Pipeline<L> {
        let zxid = database.zxid_applied();
        Pipeline {
            preparer: Preparer::new(options.prepare.clone(), &database),
            snapshots: Snapshots::new(&options, options.zxid_snapshot, options.startup.transactions),
            surveys: Surveys::new(links.len(), now.instant, options.startup),
            questions: Questions::default(),
            connections: ConnectionThrottle::new(
                options.connection_throttle.clone(),
                options.seed.rotate_left(32),
                now.instant,
            ),
            requests: RequestThrottle::new(options.request_throttle.clone()),
            turned: now.instant,
            turn_due: now.instant + options.sweep_interval,
            sweep: Sweep { next: now.instant + options.sweep_interval, ..Sweep::default() },
            links,
            database,
            log,
            ids,
            options,
            queue: VecDeque::new(),
            zxid_durable: zxid,
            zxid_committed: zxid,
            ensemble: None,
            serving: Serving::Yes,
            local: None,
            fit: Fit::Exact,
            digest_trusted: true,
            proved: None,
            install: None,
            rebuilding: false,
            diverged: false,
            now,
            block: BytesMut::new(),
            scratch: Vec::new(),
            due: Vec::new(),
            owed: Vec::new(),
            entries_waiting: 0,
            writes_in_flight: VecDeque::new(),
            stopping: false,
            stopped: false,
            has_more: false,
            guard: None,
        }
    }

    /// Keeps `guard`, the lock of the data directory, until the pipeline is no more.
    pub fn with_guard(mut self, guard: Box<dyn std::any::Any>) -> Pipeline<L> {
        self.guard = Some(guard);
        self
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn zxid_proposed(&self) -> Zxid {
        self.preparer.zxid_proposed()
    }

    /// Takes one event of the shell.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Written { id, spent } => {
                self.time_write(id);
                let durable = self.log.written(id, spent);
                assert!(
                    durable >= self.zxid_durable,
                    "durable went back from {} to {durable}",
                    self.zxid_durable
                );
                assert!(durable <= self.log.zxid_appended(), "{durable} is durable but was never appended");
                self.zxid_durable = durable;
            }
            Input::SegmentReady(segment) => self.log.segment_ready(segment),
            Input::Snapshot(event) => match self.snapshots.event(event, &mut self.database, now.instant) {
                Some(Ended::Done { log_from, took, is_install }) => {
                    self.surveys.counters.snapshot_time.record(took);
                    match &mut self.install {
                        Some(install) if is_install => install.is_durable = true,
                        _ => self.log.retire_before(log_from),
                    }
                }
                Some(Ended::Failed) => self.surveys.counters.snapshot_errors += 1,
                None => {}
            },
            Input::Ask(ask) => self.questions.push(ask),
            Input::Storage(event) => self.storage_event(event),
            Input::Stop => {
                self.stopping = true;
                self.look("this server stops");
            }
        }
    }

    /// One pass: take what came, propose it, apply what is durable, see to the timers.
    pub fn turn(&mut self, now: Now) {
        self.now = now;
        self.has_more = false;
        let mut taken_total = 0;
        self.forgive_pause();
        self.ensemble_turn();
        for front in 0..self.links.len() {
            for taken in 0.. {
                if !self.takes_more() || taken == TURN_MESSAGES_MAX {
                    self.has_more |= taken == TURN_MESSAGES_MAX;
                    break;
                }
                let Some(message) = self.links[front].pop() else { break };
                taken_total += 1;
                self.take(front, message);
            }
        }
        if taken_total > 0 {
            self.surveys.counters.queue_size.record(taken_total);
        }
        self.timers();
        self.apply_durable();
        // What was applied made room for requests, and what they became may be due at once.
        while self.serve_waiting() {
            self.apply_durable();
        }
        self.serve_ready();
        self.ensemble_turn();
        self.ask_waiting();
        if !self.is_feeding() {
            self.snapshots.step(&mut self.database, &mut self.owed, now.instant);
        }
        self.tell_snapshots();
        self.has_more |= self.snapshots.has_more();
        // What arrived in this turn leaves as one batch.
        while let Some(write) = self.log.next_write(now.instant) {
            self.surveys.counters.batch_size.record(std::mem::take(&mut self.entries_waiting));
            self.writes_in_flight.push_back((write.id, now.instant));
            self.owed.push(Output::Write(write));
        }
        let mut work = Vec::new();
        self.log.drain_work(&mut work);
        self.owed.extend(work.into_iter().map(Output::Segment));
        self.database.tree.reclaim();
        // What a quorum has not decided stays in the log and waits there.
        let is_decided = self.queue.is_empty() || self.ensemble.is_some();
        if self.stopping
            && !self.stopped
            && is_decided
            && !self.has_outbox()
            && self.requests.is_empty()
            && self.zxid_durable == self.log.zxid_appended()
            && self.has_parted()
        {
            self.stopped = true;
            self.owed.push(Output::Stopped);
        }
        self.do_without_disk();
        self.turned = now.instant;
        let timer = self.next_timer().filter(|_| !self.has_more()).unwrap_or(now.instant);
        self.turn_due = timer.max(now.instant);
    }

    /// Hands over everything owed since the last call.
    pub fn drain(&mut self, owed: &mut Vec<Output>) {
        self.do_without_disk();
        owed.append(&mut self.owed);
    }

    /// When another turn is wanted, should nothing else happen first.
    pub fn next_timer(&self) -> Option<Instant> {
        [
            self.database.sessions.next_due().filter(|_| self.makes_transactions()),
            self.local.as_deref().and_then(LocalSessions::next_due),
            self.log.next_timer(),
            // Others wait for the leader's.
            Some(self.sweep.next).filter(|_| self.makes_transactions()),
            self.requests.next_timer(),
            self.ensemble_timer(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether another turn is wanted at once.
    pub fn has_more(&self) -> bool {
        self.has_more || (self.takes_more() && self.links.iter().any(|link| !link.is_empty()))
    }

    fn takes_more(&self) -> bool {
        !self.questions.is_parting()
            && self.queue.len() + self.local_count() < OUTSTANDING_MAX
            && !self.requests.is_full()
            && !self.has_outbox()
            && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.links.iter().all(|link| link.room() >= ROOM_PER_ITEM)
    }

    /// How long a batch took from its handing out to the word that it is durable.
    fn time_write(&mut self, id: WriteId) {
        let Some(place) = self.writes_in_flight.iter().position(|(write, _)| *write == id) else { return };
        let (_, begun) = self.writes_in_flight.remove(place).expect("found above");
        let took = self.now.instant.since(begun);
        self.surveys.counters.fsync_time.record(took);
        if took > self.options.slow_write {
            self.surveys.counters.fsync_threshold_exceeded += 1;
            tracing::warn!(
                "fsync-ing the write ahead log took {}ms which will adversely effect operation latency",
                took.as_millis()
            );
        }
    }

    fn take(&mut self, front: usize, message: ToPipeline) {
        let Some(message) = self.unless_unserved(front, message) else { return };
        match message {
            ToPipeline::Request(request) => {
                self.requests.push(front, request);
                self.serve_waiting();
            }
            ToPipeline::Admit { conn, renew } => {
                let admitted = self.connections.admit(self.now.instant, renew);
                let counters = &mut self.surveys.counters;
                counters.connection_drop_probability = self.connections.drop_probability();
                if admitted {
                    counters.connection_token_deficit.record(self.connections.deficit());
                }
                let answer = if admitted { ToFront::Admitted { conn } } else { ToFront::TurnedAway { conn } };
                self.links[front].push(answer);
            }
            ToPipeline::Open { conn, timeout_ms } if self.local.is_some() => {
                self.open_local(front, conn, timeout_ms);
            }
            ToPipeline::Renew { conn, session, timeout_ms } if self.is_local(session) => {
                self.renew_local(front, conn, session, timeout_ms);
            }
            ToPipeline::Open { conn, timeout_ms } if self.is_learning() => {
                self.forward_open(front, conn, timeout_ms);
            }
            ToPipeline::Renew { conn, session, timeout_ms } if self.is_learning() => {
                self.forward_renew(front, conn, session, timeout_ms);
            }
            ToPipeline::Open { conn, timeout_ms } => {
                let session = self.ids.next(|id| self.database.sessions.contains(id));
                self.scratch.clear();
                let zxid =
                    self.preparer.create_session(session, timeout_ms, self.now.wall_ms, &mut self.scratch);
                let entry = self.log_entry(zxid);
                self.queue.push_back(Item::Open { zxid, entry, front, conn, timeout_ms });
            }
            ToPipeline::Renew { conn, session, timeout_ms } => self.renew(front, conn, session, timeout_ms),
            ToPipeline::Detach { conn, session, heard } => {
                self.requests.detached(front, conn);
                if self.database.sessions.detach(session, owner(front, conn)) {
                    self.database.sessions.touch(session, heard);
                }
                self.detach_local(front, conn, session, heard);
            }
            ToPipeline::Heard { session, conn, heard } => {
                let owned = self
                    .database
                    .sessions
                    .get(session)
                    .is_some_and(|found| found.owner == Some(owner(front, conn)));
                if owned {
                    self.decide(session, Some(heard));
                }
                self.heard_local(front, conn, session, heard);
            }
            ToPipeline::Word { conn, word, argument } => {
                self.begin_survey(SurveyAsker::Client { front, conn }, word, argument);
            }
            ToPipeline::Surveyed { survey, report } => {
                if let Some(survey) = self.surveys.add(survey, *report) {
                    self.end_survey(survey);
                }
            }
            ToPipeline::Touched { round, sessions } => self.touched(round, sessions),
        }
    }

    /// Takes requests as long as the throttle has room for them. Whether it took any.
    fn serve_waiting(&mut self) -> bool {
        let mut served = false;
        while self.queue.len() + self.local_count() < OUTSTANDING_MAX {
            if !self.has_room() {
                self.has_more |= !self.requests.is_empty();
                break;
            }
            let local_count = self.local_count();
            let sessions = &self.database.sessions;
            let timeout_ms = |session| sessions.get(session).map_or(0, |found| found.timeout_ms);
            match self.requests.next(self.now.instant, self.queue.len() + local_count, timeout_ms) {
                Next::Serve { front, request, stale } => {
                    self.surveys.counters.stale_requests += u64::from(stale);
                    self.request(front, request);
                    served = true;
                }
                Next::Drop { front, request } => {
                    self.surveys.counters.stale_requests_dropped += 1;
                    self.links[front].push(ToFront::Dropped { conn: request.conn, op: request.op });
                }
                Next::Wait { stalled } => {
                    self.surveys.counters.request_throttle_waits += u64::from(stalled);
                    break;
                }
            }
        }
        served
    }

    fn request(&mut self, front: usize, mut request: Box<Request>) {
        self.surveys.counters.requests += 1;
        let waited = self.now.instant.since(request.received);
        self.surveys.counters.request_throttle_queue_time.record(waited);
        let throttled = self.requests.is_throttled(waited)
            // Source: ZooKeeper `ZooKeeperServer#shouldThrottleOp`.
            && !matches!(request.op, OpCode::Ping | OpCode::CloseSession);
        let origin = Origin {
            front,
            conn: request.conn,
            xid: request.xid,
            op: request.op,
            received: request.received,
            audited: if throttled || !is_write(request.op) { None } else { self.audited(&request) },
            // A read keeps its own.
            _share: if throttled || is_write(request.op) || request.op == OpCode::Sync {
                request.share.take()
            } else {
                None
            },
        };
        if self.serving == Serving::ReadOnly {
            return self.request_read_only(front, &request, origin);
        }
        if throttled && !self.is_learning() {
            self.queue.push_back(Item::Refused { origin, err: ErrorCode::ThrottledOp });
            return;
        }
        let origin = if throttled { Some(origin) } else { self.local_request(&request, origin) };
        let Some(origin) = origin else { return };
        if self.is_learning() {
            return self.forward(front, request, origin, throttled);
        }
        if request.op == OpCode::Sync
            && let Some(proof) = self.prove()
        {
            self.queue.push_back(Item::Sync { origin, path: request.body, proof });
            return;
        }
        if self.has_moved(request.session) && (is_write(request.op) || request.op == OpCode::Sync) {
            self.queue.push_back(Item::Refused { origin, err: ErrorCode::SessionMoved });
            return;
        }
        if !is_write(request.op) {
            self.queue.push_back(Item::Read { front, request });
            return;
        }
        self.scratch.clear();
        if request.op == OpCode::CloseSession {
            if !self.mark_closing(request.session) {
                self.queue.push_back(Item::Refused { origin, err: ErrorCode::SessionExpired });
                return;
            }
            let zxid = self.preparer.close_session(
                &self.database,
                request.session,
                request.xid,
                self.now.wall_ms,
                &mut self.scratch,
            );
            let entry = self.log_entry(zxid);
            self.queue.push_back(Item::Write { zxid, entry, origin });
            return;
        }
        let write = Write {
            session: request.session,
            cxid: request.xid,
            op: request.op,
            body: &request.body,
            identities: &request.identities,
            lease: self.lease(request.session),
        };
        match self.prepare(&write) {
            Prepared::Entry { zxid } => {
                let entry = self.log_entry(zxid);
                self.queue.push_back(Item::Write { zxid, entry, origin });
            }
            Prepared::Refused(err) => self.queue.push_back(Item::Refused { origin, err }),
        }
    }

    /// Appends the entry in `scratch` to the log and keeps it until it is applied.
    fn log_entry(&mut self, zxid: Zxid) -> Bytes {
        self.log.append(zxid, &self.scratch);
        self.surveys.counters.proposed += 1;
        self.entries_waiting += 1;
        self.surveys.counters.log_bytes += self.scratch.len() as u64;
        self.snapshots.logged(self.scratch.len());
        if self.block.capacity() - self.block.len() < self.scratch.len() {
            self.block.reserve(BLOCK_BYTES.max(self.scratch.len()));
        }
        self.block.extend_from_slice(&self.scratch);
        let entry = self.block.split().freeze();
        self.proposed(zxid, &entry);
        entry
    }

    /// Source: ZooKeeper `ZooKeeperServer#reopenSession`. The password was checked before (client-protocol §14.7).
    fn renew(&mut self, front: usize, conn: ConnId, session: SessionId, timeout_ms: i32) {
        let Ok(before) = self.database.sessions.attach(session, owner(front, conn)) else {
            self.tell(front, ToFront::Refused { conn });
            return;
        };
        self.database.sessions.set_timeout(session, timeout_ms);
        self.database.sessions.touch(session, self.now.instant);
        if let Some(leading) = self.leading() {
            leading.owners.remove(&session);
        }
        if let Some(before) = before {
            self.tell(usize::from(before.front), ToFront::Close { conn: ConnId(before.conn), session });
        }
        self.tell(front, ToFront::Opened { conn, session, timeout_ms });
    }

    fn apply_durable(&mut self) {
        if self.install.is_some() || self.rebuilding || !self.serve_ready() {
            return;
        }
        let applicable = self.zxid_applicable();
        while let Some(item) = self.queue.front() {
            let waits = match item {
                Item::Write { zxid, .. } | Item::Open { zxid, .. } | Item::Own { zxid, .. } => {
                    *zxid > applicable
                }
                Item::Sync { proof, .. } => self.proved.is_none_or(|proved| proved < *proof),
                Item::Refused { .. } | Item::Read { .. } => false,
            };
            if waits {
                return;
            }
            if !self.has_room() {
                self.has_more = true;
                return;
            }
            match self.queue.pop_front().expect("there is a front") {
                Item::Write { zxid, entry, origin } => self.apply(zxid, &entry, Some(&origin)),
                Item::Own { zxid, entry } => match self.claim(&entry) {
                    Claimed::Nobodys | Claimed::Upgrade => self.apply(zxid, &entry, None),
                    Claimed::Write(origin) => self.apply(zxid, &entry, Some(&origin)),
                    Claimed::Open { front, conn, timeout_ms } => {
                        self.open(zxid, &entry, front, conn, timeout_ms);
                    }
                },
                Item::Open { zxid, entry, front, conn, timeout_ms } => {
                    self.open(zxid, &entry, front, conn, timeout_ms);
                }
                Item::Refused { origin, err } => self.reply_refused(origin, err),
                Item::Read { front, request } => self.read(front, &request),
                Item::Sync { origin, path, .. } => self.reply_synced(origin, path),
            }
            // What waited behind this in its session sees exactly this state (C5).
            if !self.serve_ready() {
                return;
            }
        }
    }

    /// Applies the beginning of a session for the client that waits for it.
    fn open(&mut self, zxid: Zxid, entry: &Bytes, front: usize, conn: ConnId, timeout_ms: i32) {
        let session = TxnEntry::header(entry).expect("an entry we encoded or checked").session;
        self.apply(zxid, entry, None);
        match self.database.sessions.attach(session, owner(front, conn)) {
            Ok(_) => self.links[front].push(ToFront::Opened { conn, session, timeout_ms }),
            // Another server's answer to the request was an error.
            Err(_) => self.links[front].push(ToFront::Refused { conn }),
        }
    }

    fn reply_refused(&mut self, origin: Origin, err: ErrorCode) {
        self.links[origin.front].push(ToFront::Reply {
            conn: origin.conn,
            xid: origin.xid,
            op: origin.op,
            zxid: self.database.zxid_applied(),
            err,
            body: Body::None,
            received: origin.received,
            watch: None,
        });
    }

    /// `body` is the request's: a path, which is the answer too.
    fn reply_synced(&mut self, origin: Origin, body: Bytes) {
        let is_sound = crate::jute::Reader::new(&body).string().is_ok();
        self.links[origin.front].push(ToFront::Reply {
            conn: origin.conn,
            xid: origin.xid,
            op: origin.op,
            zxid: self.database.zxid_applied(),
            err: if is_sound { ErrorCode::Ok } else { ErrorCode::MarshallingError },
            body: if is_sound { Body::Bytes(body) } else { Body::None },
            received: origin.received,
            watch: None,
        });
    }

    fn apply(&mut self, zxid: Zxid, bytes: &Bytes, origin: Option<&Origin>) {
        assert!(zxid <= self.zxid_durable, "{zxid} would be applied before it is durable");
        assert!(
            self.ensemble.is_none() || zxid <= self.zxid_committed,
            "{zxid} would be applied before it is committed"
        );
        let entry = TxnEntry::decode(bytes).expect("an entry we encoded");
        if entry.header.kind == kind::CLOSE_SESSION
            && let Some(leading) = self.leading()
        {
            leading.owners.remove(&entry.header.session);
        }
        // Whose connection ends with the session, if nobody waits for the reply.
        let closes = (entry.header.kind == kind::CLOSE_SESSION).then_some(entry.header.session);
        let owner = closes.and_then(|session| self.database.sessions.get(session)?.owner);
        self.audit_closing(&entry);
        let mut reporter = Reporter {
            links: &mut self.links,
            bytes,
            zxid,
            changes: Vec::new(),
            multi: (entry.header.kind == kind::MULTI).then(Vec::new),
            op: origin.map_or(OpCode::Error, |origin| origin.op),
            failed: None,
            body: Body::None,
        };
        self.database.apply(&entry, self.fit, self.now.instant, &mut reporter);
        let Reporter { body, failed, multi, .. } = reporter;
        self.surveys.counters.quota_exceeded += u64::from(failed == Some(ErrorCode::QuotaExceeded));
        self.preparer.applied(zxid);
        self.compare_digest(zxid, entry.digest);
        self.surveys.applied(zxid, self.database.tree.digest());
        self.audit_applied(origin, &entry, failed.is_some());
        if let Some(origin) = origin {
            let body = match (&entry.txn, body) {
                // Source: ZooKeeper `FinalRequestProcessor`, case reconfig.
                (Txn::SetData { data, .. }, Body::Stat(stat)) if entry.header.kind == kind::RECONFIG => {
                    let mut bytes = Vec::new();
                    put_buffer(&mut bytes, *data);
                    bytes.extend_from_slice(&stat);
                    Body::Bytes(bytes.into())
                }
                (_, body) => body,
            };
            let body = match multi {
                Some(mut bytes) => {
                    MultiHeader::END.encode(&mut bytes);
                    Body::Bytes(bytes.into())
                }
                None => body,
            };
            self.links[origin.front].push(ToFront::Reply {
                conn: origin.conn,
                xid: origin.xid,
                op: origin.op,
                zxid,
                err: failed.unwrap_or(ErrorCode::Ok),
                body,
                received: origin.received,
                watch: None,
            });
        }
        if let (Some(session), Some(leading)) = (closes, self.leading()) {
            leading.owners.remove(&session);
        }
        if entry.header.kind == kind::CREATE_SESSION {
            self.session_began(entry.header.session);
        }
        // The connection that asked closes behind its reply; any other the session has closes now.
        if let (Some(session), Some(owner)) = (closes, owner)
            && origin.is_none_or(|origin| {
                (origin.front, origin.conn) != (usize::from(owner.front), ConnId(owner.conn))
            })
        {
            self.links[usize::from(owner.front)].push(ToFront::Close { conn: ConnId(owner.conn), session });
        }
    }

    /// Compares the tree with what the maker of a transaction had after it.
    fn compare_digest(&mut self, zxid: Zxid, digest: Option<TxnDigest>) {
        let Some(digest) = digest else { return };
        if digest.version != DIGEST_VERSION || !self.options.prepare.digest {
            return;
        }
        let here = self.database.tree.digest();
        if digest.tree_digest == here {
            self.digest_trusted = true;
            return;
        }
        self.surveys.counters.digest_mismatches += 1;
        debug_assert!(
            self.fit == Fit::Fuzzy,
            "after {zxid} the tree has digest {here}, {} was expected",
            digest.tree_digest
        );
        if self.is_learning() && std::mem::take(&mut self.digest_trusted) {
            tracing::error!(
                "after {zxid} the tree has digest {here}, its leader's is {}: this server takes the leader's state",
                digest.tree_digest
            );
            self.diverged = true;
        }
    }

    /// A read whose turn has come, between two writes.
    fn read(&mut self, front: usize, request: &Request) {
        let zxid = self.database.zxid_applied();
        let mut out = Vec::new();
        let asker = Asker { identities: &request.identities, options: &self.options.prepare.auth };
        let (err, watch) = match request.op {
            OpCode::Ping => (ErrorCode::Ok, None),
            OpCode::Sync => match crate::jute::Reader::new(&request.body).string() {
                Ok(path) => {
                    put_buffer(&mut out, path.as_deref().map(str::as_bytes));
                    (ErrorCode::Ok, None)
                }
                Err(_) => (ErrorCode::MarshallingError, None),
            },
            OpCode::GetEphemerals => (self.get_ephemerals(request, &mut out), None),
            op => {
                let done = read::serve(&self.database.tree, op, &request.body, asker, &mut out);
                let watch = done.watch.map(|(path, mode)| Box::new((path.into_owned(), mode)));
                (done.result.err().unwrap_or(ErrorCode::Ok), watch)
            }
        };
        self.links[front].push(ToFront::Reply {
            conn: request.conn,
            xid: request.xid,
            op: request.op,
            zxid,
            err,
            body: if out.is_empty() { Body::None } else { Body::Bytes(out.into()) },
            received: request.received,
            watch,
        });
    }

    /// Source: ZooKeeper `FinalRequestProcessor`, case getEphemerals.
    fn get_ephemerals(&self, request: &Request, out: &mut Vec<u8>) -> ErrorCode {
        let Ok(prefix) = crate::jute::Reader::new(&request.body).string() else {
            return ErrorCode::MarshallingError;
        };
        let prefix = prefix.as_deref().filter(|prefix| !matches!(java_trim(prefix), "" | "/")).unwrap_or("");
        let mut count = 0;
        put_i32(out, 0);
        for node in self.database.ephemerals_of(request.session) {
            let path = self.database.tree.path(node);
            if path.starts_with(prefix) {
                put_string(out, &path);
                count += 1;
            }
        }
        out[..4].copy_from_slice(&i32::to_be_bytes(count));
        ErrorCode::Ok
    }

    /// Time in which this process stood still counts for no session: whoever wanted to be heard could not be (O12). All of it
    /// since the last turn is given back, as nobody knows when in it the pause began; that a session ends later than it might
    /// is allowed (P9).
    fn forgive_pause(&mut self) {
        let now = self.now.instant;
        if now.since(self.turn_due) <= PAUSE_MIN {
            return;
        }
        let gap = now.since(self.turned);
        tracing::warn!("stood still for up to {} ms; no session ends for that", gap.as_millis());
        self.database.sessions.forgive(gap);
        if let Some(local) = &mut self.local {
            local.forgive(gap);
        }
        // Not for every turn that is late for the same reason.
        (self.turned, self.turn_due) = (now, now);
    }

    fn timers(&mut self) {
        if self.questions.is_parting() {
            return;
        }
        let now = self.now.instant;
        self.log.on_timer(now);
        self.local_timers();
        if !self.makes_transactions() {
            return;
        }
        self.database.sessions.due(now, &mut self.due);
        let mut due = std::mem::take(&mut self.due);
        for session in due.drain(..) {
            let Some(found) = self.database.sessions.get(session) else { continue };
            match found.owner {
                // Its front knows when it last spoke; what waits in the socket counts too (O12).
                Some(owner) if self.links[usize::from(owner.front)].room() > ROOM_PER_ITEM => {
                    self.links[usize::from(owner.front)]
                        .push(ToFront::Probe { conn: ConnId(owner.conn), session });
                }
                // Asked again when the front has caught up: late is allowed, early is not (P9).
                Some(_) => {
                    self.database.sessions.touch(session, now);
                }
                None => self.decide(session, None),
            }
        }
        self.due = due;
        self.sweep();
    }

    /// Ends a session whose time is up by all that is known.
    fn decide(&mut self, session: SessionId, heard: Option<Instant>) {
        if self.database.sessions.decide(session, heard, self.now.instant) == Heard::Expired {
            self.expire(session);
        }
    }

    fn expire(&mut self, session: SessionId) {
        if !self.database.sessions.mark_closing(session) {
            return;
        }
        let timeout_ms = self.database.sessions.get(session).map_or(0, |found| found.timeout_ms);
        tracing::info!(%session, timeout_ms, "expiring session {session}, timeout of {timeout_ms}ms exceeded");
        self.surveys.counters.sessions_expired += 1;
        self.scratch.clear();
        let zxid =
            self.preparer.close_session(&self.database, session, 0, self.now.wall_ms, &mut self.scratch);
        let entry = self.log_entry(zxid);
        self.queue.push_back(Item::Own { zxid, entry });
    }
}

/// Without the characters up to the blank at both ends, other white space left. Source: JDK `String#trim`.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

fn owner(front: usize, conn: ConnId) -> Owner {
    Owner { front: u16::try_from(front).expect("fewer than 65,536 fronts"), conn: conn.0 }
}

fn is_write(op: OpCode) -> bool {
    use OpCode::*;
    matches!(
        op,
        Create
            | Create2
            | CreateContainer
            | CreateTtl
            | Delete
            | SetData
            | SetAcl
            | Multi
            | Reconfig
            | CloseSession
    )
}
