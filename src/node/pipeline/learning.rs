//! The role of a server that follows a leader: what the leader says becomes log and tree, and what clients here want goes to the
//! leader and waits for its place in the order of all writes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::ensemble::{Ensemble, EnsembleOptions, Role};
use super::{Item, Origin, Output, Pipeline, is_write};
use crate::jute::put_i32;
use crate::node::ConnId;
use crate::node::link::{PipelineLink, Request, ToFront};
use crate::node::storage_work::{StorageEvent, StorageWork};
use crate::proto::ErrorCode;
use crate::proto::client::OpCode;
use crate::proto::quorum::RequestHeader;
use crate::proto::txn::{DIGEST_VERSION, TxnEntry, TxnHeader, kind};
use crate::request::apply::{Fit, Nobody};
use crate::request::load::Loader;
use crate::types::{Epoch, Instant, ServerId, SessionId, Zxid};
use crate::zab::learner::{self, Learner, LearnerOptions, LearnerStart};
use crate::zab::{Epochs, PeerConn, PeerWork};

/// A follower's reign-long state beside its machine.
pub(super) struct Learning {
    pub machine: Learner,
    pub leader: ServerId,
    conn: PeerConn,
    /// How long the leader is tried again, should it close before it has said anything.
    pub dial_until: Instant,
    /// Takes a snapshot that the leader sends.
    pub loader: Loader,
    pub local: LocalRequests,
    /// The log was cut to there and the cut is being made durable.
    truncating: Option<Zxid>,
    /// Serve once everything up to there is applied.
    serve_from: Option<(Epoch, Zxid)>,
    /// The membership in force there has another leader, or another role for this server: once applied, it goes.
    leaves_at: Option<Zxid>,
    is_serving: bool,
    /// Why the next leader of this epoch is to send a snapshot: what this one sent does not fit.
    pub refetch: Option<Epoch>,
    touches: Option<Collecting>,
    touch_round: u64,
    /// Heard from, and no room in the last answer: one a session at most.
    touches_left: Vec<(SessionId, i32)>,
}

/// A database that came from a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Install {
    pub zxid: Zxid,
    /// Its snapshot is on disk and verified, and no other is left.
    pub is_durable: bool,
}

/// Fronts are telling whom they heard from.
struct Collecting {
    round: u64,
    missing: usize,
    sessions: Vec<(SessionId, i32)>,
}

/// What clients here want and the leader has not decided, in the order asked in each session.
#[derive(Default)]
pub(super) struct LocalRequests {
    sessions: BTreeMap<SessionId, VecDeque<Waiting>>,
    count: usize,
    /// Sessions whose oldest request may be ready.
    ready: VecDeque<SessionId>,
    /// The sessions of forwarded syncs, in the order sent: their answers carry no name.
    syncs: VecDeque<SessionId>,
    /// Syncs the leader has answered, and up to where everything must be applied before they are done.
    synced: VecDeque<(SessionId, Zxid)>,
    /// Clients that want a session back, until the leader has answered.
    renewing: BTreeMap<SessionId, VecDeque<Renewing>>,
    /// Sessions the leader knows and this server does not yet.
    arriving: BTreeMap<SessionId, Vec<Renewing>>,
}

#[derive(Debug, Clone, Copy)]
struct Renewing {
    front: usize,
    conn: ConnId,
    timeout_ms: i32,
}

#[derive(Debug)]
enum Waiting {
    Write(Origin),
    Open {
        front: usize,
        conn: ConnId,
        timeout_ms: i32,
    },
    /// A local session becomes a global one.
    Upgrade,
    Sync {
        origin: Origin,
        path: Bytes,
        is_done: bool,
    },
    Read {
        front: usize,
        request: Box<Request>,
    },
    Refused {
        origin: Origin,
        err: ErrorCode,
    },
}

/// Whose request a committed transaction is.
pub(super) enum Claimed {
    Nobodys,
    Write(Origin),
    Open {
        front: usize,
        conn: ConnId,
        timeout_ms: i32,
    },
    /// The beginning of what was a local session here, or an error in its stead.
    Upgrade,
}

impl LocalRequests {
    fn push(&mut self, session: SessionId, waiting: Waiting) {
        self.sessions.entry(session).or_default().push_back(waiting);
        self.count += 1;
    }

    /// An answer that needs nothing of the leader, behind what the session waits for.
    pub fn push_refused(&mut self, session: SessionId, origin: Origin, err: ErrorCode) {
        self.push(session, Waiting::Refused { origin, err });
        self.ready.push_back(session);
    }

    fn is_waiting(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Takes the request that `header` decides, if it is the oldest of its session here. Types are compared as well: what a
    /// server asks for itself has no number (quorum-protocol §9.3, 59).
    fn claim(&mut self, header: &TxnHeader) -> Claimed {
        let Some(queue) = self.sessions.get_mut(&header.session) else { return Claimed::Nobodys };
        let is_mine = match queue.front() {
            Some(Waiting::Write(origin)) => {
                let fits = match header.kind {
                    kind::CREATE_SESSION => false,
                    kind::CLOSE_SESSION => origin.op == OpCode::CloseSession,
                    _ => true,
                };
                fits && origin.xid == header.cxid
            }
            Some(Waiting::Open { .. } | Waiting::Upgrade) => {
                matches!(header.kind, kind::CREATE_SESSION | kind::ERROR)
            }
            _ => false,
        };
        if !is_mine {
            return Claimed::Nobodys;
        }
        let claimed = queue.pop_front().expect("there is an oldest");
        self.popped(header.session);
        match claimed {
            Waiting::Write(origin) => Claimed::Write(origin),
            Waiting::Open { front, conn, timeout_ms } => Claimed::Open { front, conn, timeout_ms },
            Waiting::Upgrade => Claimed::Upgrade,
            _ => unreachable!("looked at above"),
        }
    }

    /// The oldest request of a session is gone; the next may be ready.
    fn popped(&mut self, session: SessionId) {
        self.count -= 1;
        if self.sessions.get(&session).is_some_and(VecDeque::is_empty) {
            self.sessions.remove(&session);
        } else {
            self.ready.push_back(session);
        }
    }

    /// The oldest request of a session, if nothing of the leader's is wanted for it any more.
    fn take_ready(&mut self) -> Option<Waiting> {
        while let Some(session) = self.ready.pop_front() {
            let Some(queue) = self.sessions.get_mut(&session) else { continue };
            let is_ready = match queue.front() {
                Some(Waiting::Read { .. } | Waiting::Refused { .. }) => true,
                Some(Waiting::Sync { is_done, .. }) => *is_done,
                Some(Waiting::Write(_) | Waiting::Open { .. } | Waiting::Upgrade) | None => false,
            };
            if is_ready {
                let waiting = queue.pop_front().expect("there is an oldest");
                self.popped(session);
                return Some(waiting);
            }
        }
        None
    }

    /// Everything up to `zxid` is applied: syncs the leader answered before that are done.
    fn applied(&mut self, zxid: Zxid) {
        while let Some(&(session, until)) = self.synced.front() {
            if until > zxid {
                return;
            }
            self.synced.pop_front();
            let oldest = self.sessions.get_mut(&session).and_then(|queue| {
                queue.iter_mut().find_map(|waiting| match waiting {
                    Waiting::Sync { is_done, .. } if !*is_done => Some(is_done),
                    _ => None,
                })
            });
            if let Some(is_done) = oldest {
                *is_done = true;
                self.ready.push_back(session);
            }
        }
    }

    /// The role ends: what its clients are owed.
    pub fn drain(&mut self, outbox: &mut VecDeque<(usize, ToFront)>) {
        for (_, queue) in std::mem::take(&mut self.sessions) {
            for waiting in queue {
                outbox.push_back(match waiting {
                    Waiting::Upgrade => continue,
                    Waiting::Write(origin)
                    | Waiting::Sync { origin, .. }
                    | Waiting::Refused { origin, .. } => origin.dropped(),
                    Waiting::Open { front, conn, .. } => (front, ToFront::Refused { conn }),
                    Waiting::Read { front, request } => {
                        (front, ToFront::Dropped { conn: request.conn, op: request.op })
                    }
                });
            }
        }
        let renewing = std::mem::take(&mut self.renewing).into_values().flatten();
        let arriving = std::mem::take(&mut self.arriving).into_values().flatten();
        for Renewing { front, conn, .. } in renewing.chain(arriving) {
            outbox.push_back((front, ToFront::Refused { conn }));
        }
    }
}

impl Learning {
    pub fn new(
        options: &EnsembleOptions,
        (leader, conn, dial_until): (ServerId, PeerConn, Instant),
        epochs: Epochs,
        zxid_last: Zxid,
        snap_wanted: Option<Epoch>,
        has_no_standing: bool,
        entry_bytes_max: usize,
        now: Instant,
    ) -> Learning {
        let learner_options = LearnerOptions {
            me: options.me,
            observer: options.observer,
            tick: options.tick,
            init_limit: options.init_limit,
            sync_limit: options.sync_limit,
            entry_bytes_max,
            staged_bytes_max: options.staged_bytes_max,
        };
        let start = LearnerStart {
            epochs,
            zxid_last,
            config_version: options.membership.version,
            snap_wanted,
            has_no_standing,
        };
        Learning {
            machine: Learner::new(learner_options, start, now),
            leader,
            conn,
            dial_until,
            loader: Loader::new(options.tick_ms, options.hash_seed, now),
            local: LocalRequests::default(),
            truncating: None,
            serve_from: None,
            leaves_at: None,
            is_serving: false,
            refetch: None,
            touches: None,
            touch_round: 0,
            touches_left: Vec::new(),
        }
    }
}

impl Learning {
    /// Asks for the beginning of a session that is a local one so far.
    pub fn upgrade(&mut self, session: SessionId, timeout_ms: i32) {
        self.local.push(session, Waiting::Upgrade);
        self.machine.request(
            RequestHeader { session, cxid: 0, op: kind::CREATE_SESSION },
            &timeout_ms.to_be_bytes(),
            None,
        );
    }
}

impl<L: PipelineLink> Pipeline<L> {
    pub(super) fn learning(&mut self) -> Option<&mut Learning> {
        match self.ensemble.as_deref_mut() {
            Some(Ensemble { role: Role::Learning(learning), .. }) => Some(learning),
            _ => None,
        }
    }

    pub(super) fn is_learning(&self) -> bool {
        matches!(self.ensemble.as_deref(), Some(Ensemble { role: Role::Learning(_), .. }))
    }

    pub(super) fn learner_output(&mut self, output: learner::Output) {
        let now = self.now.instant;
        let Some(Ensemble { role: Role::Learning(learning), recent, voting, decided, snap_wanted, .. }) =
            self.ensemble.as_deref_mut()
        else {
            return;
        };
        match output {
            learner::Output::Send(bytes) => {
                self.owed.push(Output::Peer(PeerWork::Send { conn: learning.conn, bytes }));
            }
            learner::Output::WriteEpochs(epochs) => {
                self.owed.push(Output::Storage(StorageWork::WriteEpochs(epochs)));
            }
            learner::Output::Truncate(zxid) => self.truncate(zxid),
            learner::Output::Install { zxid, zxid_snapshot, entries } => {
                self.install(zxid, zxid_snapshot, &entries);
            }
            learner::Output::Append { zxid, entry, .. } => {
                self.log.append(zxid, &entry);
                self.snapshots.logged(entry.len());
                self.surveys.counters.log_bytes += entry.len() as u64;
                self.surveys.chronicle.counters.proposals_received += 1;
                self.entries_waiting += 1;
                recent.push(zxid, entry.clone());
                self.queue.push_back(Item::Own { zxid, entry });
            }
            learner::Output::Commit(zxid) => {
                assert!(
                    zxid >= self.zxid_committed && zxid <= self.log.zxid_appended(),
                    "{zxid} is committed out of order"
                );
                self.surveys.chronicle.counters.commits_received += 1;
                self.zxid_committed = zxid;
                *decided = zxid.max(*decided);
            }
            learner::Output::NewLeader { epoch } => {
                tracing::debug!("the history of epoch {} is here and durable", epoch.0);
            }
            learner::Output::Serve { epoch } => {
                // Not all that was appended: a ZooKeeper's leader proposes before NEWLEADER what may never be committed.
                learning.serve_from = Some((epoch, self.zxid_committed));
                voting.set_epoch(now, epoch);
                *snap_wanted = None;
                let leader = learning.leader;
                if self.activate_at_serve(leader) {
                    self.look("the configuration in force changes this server's role or its leader");
                }
            }
            learner::Output::Ping => self.collect_touches(),
            learner::Output::Revalidated { session, valid } => self.revalidated(session, valid),
            learner::Output::Synced => {
                if let Some(session) = learning.local.syncs.pop_front() {
                    learning.local.synced.push_back((session, self.zxid_committed));
                    learning.local.applied(self.database.zxid_applied());
                }
            }
            learner::Output::Membership { text, proposed } => self.learned_membership(&text, proposed),
            learner::Output::Activate { zxid, designated } => {
                let leader = learning.leader;
                let leaves_at = self.learned_activation(zxid, designated, leader);
                if let Some(learning) = self.learning() {
                    learning.leaves_at = leaves_at.or(learning.leaves_at);
                }
            }
            learner::Output::Failed(error) => {
                learning.refetch = error.refetch;
                self.look(&error.to_string());
            }
        }
    }

    /// Ends the log at `zxid`: what is behind it was never committed.
    fn truncate(&mut self, zxid: Zxid) {
        let applied = self.database.zxid_applied();
        let Some(Ensemble { role: Role::Learning(learning), recent, durable_told, decided, .. }) =
            self.ensemble.as_deref_mut()
        else {
            return;
        };
        tracing::warn!("the leader's history ends at {zxid}, this log at {}", self.log.zxid_appended());
        if zxid < *decided {
            let reason =
                format!("the leader would cut {decided}, which a leader of this ensemble has committed");
            tracing::error!("{reason}");
            return self.look(&reason);
        }
        if zxid < applied {
            // The tree was loaded with it at the start, before anybody could say what was committed.
            self.snapshots.abandon(&mut self.database, &mut self.owed);
            self.owed.push(Output::Storage(StorageWork::Rebuild { to: zxid }));
            self.rebuilding = true;
            return;
        }
        self.queue.retain(|item| !matches!(item, Item::Own { zxid: other, .. } if *other > zxid));
        self.log.truncate(zxid);
        recent.truncate(zxid);
        self.zxid_durable = self.zxid_durable.min(zxid);
        *durable_told = zxid;
        learning.truncating = Some(zxid);
    }

    /// The state is from here on what the leader sent, as soon as it is on disk. `entries` bring the snapshot to `zxid`; they may be
    /// in it already, wholly or in part.
    fn install(&mut self, zxid: Zxid, zxid_snapshot: Zxid, entries: &[(Zxid, Bytes)]) {
        let Some(Ensemble { role: Role::Learning(learning), options, decided, .. }) =
            self.ensemble.as_deref_mut()
        else {
            return;
        };
        if zxid < *decided {
            let reason = format!("the leader's state is of {zxid}, and {decided} is committed");
            tracing::error!("{reason}");
            return self.look(&reason);
        }
        let fresh = Loader::new(options.tick_ms, options.hash_seed, self.now.instant);
        let mut database = std::mem::replace(&mut learning.loader, fresh).into_database();
        database.finish_load(zxid_snapshot);
        let mut digest = None;
        for (_, bytes) in entries {
            let Ok(entry) = TxnEntry::decode(bytes) else {
                return self.refuse_install("an entry behind the leader's snapshot does not decode");
            };
            database.apply(&entry, Fit::Fuzzy, self.now.instant, &mut Nobody);
            digest = entry.digest;
        }
        let is_sound = digest.is_none_or(|digest| {
            digest.version != DIGEST_VERSION
                || !self.options.prepare.digest
                || digest.tree_digest == database.tree.digest()
        });
        if !is_sound {
            return self.refuse_install("the leader's snapshot is not the tree its digest speaks of");
        }
        tracing::info!(
            "the leader's state at {zxid} replaces what was here, at {}",
            self.database.zxid_applied()
        );
        self.install = Some(Install { zxid, is_durable: false });
        self.snapshots.abandon(&mut self.database, &mut self.owed);
        self.replace_database(database);
        self.digest_trusted = true;
        self.write_install();
    }

    fn write_install(&mut self) {
        let segment_first = self.log.restart_segment();
        self.snapshots.begin_install(&mut self.database, &mut self.owed, self.now.instant, segment_first);
    }

    fn refuse_install(&mut self, reason: &str) {
        if let Some(learning) = self.learning() {
            learning.refetch = learning.machine.epoch();
        }
        self.look(reason);
    }

    /// Everything here speaks of another database from now on.
    fn replace_database(&mut self, mut database: crate::request::Database) {
        for front in 0..self.links.len() {
            let reader = Box::new(database.tree.reader());
            let ensemble = self.ensemble.as_deref_mut().expect("only a member gets another database");
            ensemble.outbox.push_back((front, ToFront::Tree(reader)));
        }
        self.database = database;
        self.queue.clear();
        self.recall_membership();
        self.send_outbox();
    }

    /// The database received is on disk, as the only snapshot: the log goes on after it. This is done to the end even where the
    /// leader is gone meanwhile.
    pub(super) fn finish_install(&mut self) {
        let Some(Install { zxid, is_durable }) = self.install else { return };
        if !is_durable && !self.snapshots.is_running() && self.now.instant >= self.snapshots.not_before() {
            // The disk had no room for it, most likely. Nothing can be done without it.
            self.write_install();
        }
        if !is_durable || !self.log.is_idle() {
            return;
        }
        self.install = None;
        self.log.restart_after(zxid);
        self.zxid_durable = zxid;
        self.zxid_committed = zxid;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        ensemble.recent.reset(zxid);
        ensemble.durable_told = zxid;
        if let Role::Learning(learning) = &mut ensemble.role {
            learning.machine.installed(self.now.instant, zxid);
        }
    }

    /// What the disk made of a request to go back.
    pub(super) fn rebuilt(&mut self, event: StorageEvent) {
        self.rebuilding = false;
        let rebuilt = match event {
            StorageEvent::Rebuilt(rebuilt) => rebuilt,
            StorageEvent::CannotRebuild { reason, .. } => {
                if let Some(learning) = self.learning() {
                    learning.machine.cannot_truncate(reason);
                }
                return;
            }
            event => unreachable!("{event:?} is no answer to that"),
        };
        let zxid = rebuilt.log_start.zxid_last;
        self.log = crate::txnlog::Writer::new(self.log.options(), rebuilt.log_start);
        self.snapshots.rebuilt(rebuilt.zxid_snapshot, rebuilt.entry_count);
        self.replace_database(rebuilt.database);
        self.zxid_durable = zxid;
        self.zxid_committed = zxid;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        ensemble.recent.truncate(zxid);
        if ensemble.recent.last() != zxid {
            ensemble.recent.reset(zxid);
        }
        ensemble.durable_told = zxid;
        if let Role::Learning(learning) = &mut ensemble.role {
            learning.machine.truncated(self.now.instant, zxid);
        }
    }

    /// What a learner does besides answering: a cut that became durable, clients once it has come so far, reads whose turn it is.
    pub(super) fn learning_step(&mut self) -> bool {
        let now = self.now.instant;
        let applied = self.database.zxid_applied();
        let is_cut = !self.log.is_cutting();
        let Some(learning) = self.learning() else { return false };
        if learning.leaves_at.is_some_and(|zxid| applied >= zxid) {
            self.look("the new configuration changes this server's role or its leader");
            return true;
        }
        let mut is_busy = false;
        if is_cut && let Some(zxid) = learning.truncating.take() {
            learning.machine.truncated(now, zxid);
            is_busy = true;
        }
        if let Some((epoch, zxid)) = learning.serve_from
            && applied >= zxid
            && !learning.is_serving
        {
            learning.is_serving = true;
            let leader = learning.leader.0;
            tracing::info!("following server {leader} in epoch {}, at {applied}", epoch.0);
            self.serve();
            is_busy = true;
        }
        is_busy
    }

    /// Answers what waited behind writes of its own session. False where there was no room for all of it.
    pub(super) fn serve_ready(&mut self) -> bool {
        let applied = self.database.zxid_applied();
        let Some(learning) = self.learning() else { return true };
        learning.local.applied(applied);
        loop {
            if !self.has_room() {
                self.has_more = true;
                return false;
            }
            let Some(waiting) = self.learning().and_then(|learning| learning.local.take_ready()) else {
                return true;
            };
            match waiting {
                Waiting::Read { front, request } => self.read(front, &request),
                Waiting::Refused { origin, err } => self.reply_refused(origin, err),
                Waiting::Sync { origin, path, .. } => self.reply_synced(origin, path),
                Waiting::Write(_) | Waiting::Open { .. } | Waiting::Upgrade => {
                    unreachable!("the leader decides those")
                }
            }
        }
    }

    /// Whose request a transaction about to be applied is, on a server that only learns of it.
    pub(super) fn claim(&mut self, entry: &[u8]) -> Claimed {
        let Some(learning) = self.learning() else { return Claimed::Nobodys };
        let Some(header) = TxnEntry::header(entry) else { return Claimed::Nobodys };
        match learning.local.claim(&header) {
            Claimed::Upgrade => {
                if header.kind == kind::ERROR
                    && let Some(local) = &mut self.local
                {
                    local.stays(header.session);
                }
                Claimed::Nobodys
            }
            claimed => claimed,
        }
    }

    /// A client here wants a new session.
    pub(super) fn forward_open(&mut self, front: usize, conn: ConnId, timeout_ms: i32) {
        let session = self.ids.next(|id| self.database.sessions.contains(id));
        let Some(learning) = self.learning() else { return };
        learning.local.push(session, Waiting::Open { front, conn, timeout_ms });
        let mut body = Vec::with_capacity(4);
        put_i32(&mut body, timeout_ms);
        let header = RequestHeader { session, cxid: 0, op: kind::CREATE_SESSION };
        learning.machine.request(header, &body, None);
    }

    /// A client here wants its session back: the leader knows whether there still is one.
    pub(super) fn forward_renew(&mut self, front: usize, conn: ConnId, session: SessionId, timeout_ms: i32) {
        let Some(learning) = self.learning() else { return };
        let renewing = Renewing { front, conn, timeout_ms };
        learning.local.renewing.entry(session).or_default().push_back(renewing);
        learning.machine.revalidate(session, timeout_ms);
        self.surveys.chronicle.counters.revalidations_asked += 1;
    }

    fn revalidated(&mut self, session: SessionId, valid: bool) {
        let Some(learning) = self.learning() else { return };
        let Some(queue) = learning.local.renewing.get_mut(&session) else { return };
        let Some(renewing) = queue.pop_front() else { return };
        if queue.is_empty() {
            learning.local.renewing.remove(&session);
        }
        if !valid {
            self.tell(renewing.front, ToFront::Refused { conn: renewing.conn });
        } else if self.database.sessions.contains(session) {
            self.renew(renewing.front, renewing.conn, session, renewing.timeout_ms);
        } else if let Some(learning) = self.learning() {
            // Its beginning is committed and on the way here.
            learning.local.arriving.entry(session).or_default().push(renewing);
        }
    }

    /// A session began: clients may have moved here before word of it.
    pub(super) fn session_began(&mut self, session: SessionId) {
        self.upgraded(session);
        if self.leading().and_then(|leading| leading.beginning.remove(&session)) == Some(true) {
            self.database.sessions.mark_closing(session);
        }
        let Some(arrived) = self.learning().and_then(|learning| learning.local.arriving.remove(&session))
        else {
            return;
        };
        for Renewing { front, conn, timeout_ms } in arrived {
            self.renew(front, conn, session, timeout_ms);
        }
    }

    /// A request of a client here: to the leader if it writes, else behind what the session waits for.
    pub(super) fn forward(&mut self, front: usize, request: Box<Request>, origin: Origin, throttled: bool) {
        let Some(learning) = self.learning() else { return };
        let (session, op) = (request.session, request.op);
        if throttled {
            learning.local.push_refused(session, origin, ErrorCode::ThrottledOp);
            self.serve_ready();
            return;
        }
        if !is_write(op) && op != OpCode::Sync {
            if learning.local.is_waiting(session) {
                learning.local.push(session, Waiting::Read { front, request });
            } else {
                self.read(front, &request);
            }
            return;
        }
        let number = if op == OpCode::CloseSession { kind::CLOSE_SESSION } else { op.number() };
        let header = RequestHeader { session, cxid: request.xid, op: number };
        let auth: Vec<(String, String)> = request
            .identities
            .iter()
            .map(|identity| (identity.scheme.to_string(), identity.id.to_string()))
            .collect();
        let body: &[u8] = if op == OpCode::CloseSession { &[] } else { &request.body };
        learning.machine.request(header, body, Some(&auth));
        if op == OpCode::Sync {
            learning.local.syncs.push_back(session);
            learning
                .local
                .push(session, Waiting::Sync { origin, path: request.body.clone(), is_done: false });
        } else {
            learning.local.push(session, Waiting::Write(origin));
        }
    }

    /// Requests of clients here that the leader has not decided.
    pub(super) fn local_count(&self) -> usize {
        match self.ensemble.as_deref() {
            Some(Ensemble { role: Role::Learning(learning), .. }) => learning.local.count,
            _ => 0,
        }
    }

    /// The leader asks which sessions are alive.
    fn collect_touches(&mut self) {
        let front_count = self.links.len();
        let Some(learning) = self.learning() else { return };
        if learning.touches.is_some() {
            // The answer under way serves for this one too; a leader counts any packet as a sign of life.
            learning.machine.pong(&[]);
            return;
        }
        learning.touch_round += 1;
        let round = learning.touch_round;
        learning.touches = Some(Collecting { round, missing: front_count, sessions: Vec::new() });
        for front in 0..front_count {
            self.tell(front, ToFront::CollectTouches { round });
        }
    }

    pub(super) fn touched(&mut self, round: u64, sessions: Vec<(SessionId, i32)>) {
        let Some(Ensemble { role: Role::Learning(learning), .. }) = self.ensemble.as_deref_mut() else {
            return;
        };
        let local = self.local.as_deref();
        let is_local = |session| local.is_some_and(|local| local.contains(session));
        let Some(collecting) = &mut learning.touches else { return };
        if collecting.round != round {
            return;
        }
        collecting.missing -= 1;
        // The leader knows nothing of local ones.
        collecting.sessions.extend(sessions.into_iter().filter(|&(session, _)| !is_local(session)));
        if collecting.missing == 0 {
            let mut done = learning.touches.take().expect("it is being collected");
            if !learning.touches_left.is_empty() {
                // Who waited for room is told of first; once, however often it was heard from.
                let mut named = std::mem::take(&mut learning.touches_left);
                let told: std::collections::BTreeSet<SessionId> =
                    named.iter().map(|&(session, _)| session).collect();
                named.extend(done.sessions.into_iter().filter(|(session, _)| !told.contains(session)));
                done.sessions = named;
            }
            let count = learning.machine.pong(&done.sessions);
            learning.touches_left = done.sessions.split_off(count);
        }
    }
}
