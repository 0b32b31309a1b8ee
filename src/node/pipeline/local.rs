//! What a server does for clients by itself: sessions that only it knows, and reads while there is no leader.
//!
//! A local session (`localSessionsEnabled`) costs no transaction and ends with its time here. What it writes goes the way of all writes.
//! It owns no ephemeral nodes: the first it asks for makes it a global one (`localSessionsUpgradingEnabled`), by a transaction right
//! before that of the request, under the same id. Until that is decided the session is still here, is not ended here, and whatever else
//! it asks follows behind in the same order (BUG-83).
//!
//! A server that looks for a leader for long may serve reads of what it has (`readonlymode.enabled`), to clients that said they want
//! that, in local sessions. It proposes nothing and counts nothing: log, zxids and vote stay as they are (BUG-30, BUG-81).
//!
//! Source: ZooKeeper `UpgradeableSessionTracker`, `QuorumZooKeeperServer#checkUpgradeSession`, `ReadOnlyZooKeeperServer`.

use std::collections::BTreeSet;

use super::ensemble::{Ensemble, Role};
use super::{Item, Origin, Pipeline, ROOM_PER_ITEM, is_write, owner};
use crate::node::ConnId;
use crate::node::link::{PipelineLink, Request, Serving, ToFront, ToPipeline};
use crate::proto::ErrorCode;
use crate::proto::client::OpCode;
use crate::request::multi::makes_ephemeral;
use crate::request::prepare::Lease;
use crate::session::{Heard, SessionTable};
use crate::types::{Instant, SessionId};

/// Sessions of this server's clients that no other server knows.
pub(super) struct LocalSessions {
    table: SessionTable,
    /// Those whose beginning as global ones is proposed and not decided.
    upgrading: BTreeSet<SessionId>,
    /// `localSessionsUpgradingEnabled`.
    upgrades: bool,
    /// Since when nobody could be heard, if that is so.
    unserved_since: Option<Instant>,
}

impl LocalSessions {
    pub fn new(tick_ms: u32, hash_seed: u64, upgrades: bool, now: Instant) -> LocalSessions {
        LocalSessions {
            table: SessionTable::new(tick_ms, hash_seed),
            upgrading: BTreeSet::new(),
            upgrades,
            unserved_since: Some(now),
        }
    }

    pub fn contains(&self, session: SessionId) -> bool {
        self.table.contains(session)
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// When the next may have to end.
    pub fn next_due(&self) -> Option<Instant> {
        self.table.next_due().filter(|_| self.unserved_since.is_none())
    }

    /// The process stood still for so long.
    pub fn forgive(&mut self, gap: std::time::Duration) {
        self.table.forgive(gap);
    }

    /// Clients are served from here on. The time in which they could not be heard counts for none of them (O12).
    pub fn served(&mut self, now: Instant) {
        if let Some(since) = self.unserved_since.take() {
            self.table.forgive(now.since(since));
        }
    }

    /// All connections are being closed. Whether a session became a global one meanwhile is for the ensemble to know.
    pub fn unserved(&mut self, now: Instant) {
        for session in std::mem::take(&mut self.upgrading) {
            self.table.remove(session);
        }
        self.table.forget_owners();
        self.unserved_since.get_or_insert(now);
    }

    /// The session did not become a global one.
    pub fn stays(&mut self, session: SessionId) {
        self.upgrading.remove(&session);
    }
}

impl<L: PipelineLink> Pipeline<L> {
    pub(super) fn is_local(&self, session: SessionId) -> bool {
        self.local.as_deref().is_some_and(|local| local.contains(session))
    }

    /// Begins a session that only this server knows; false where there are none.
    pub(super) fn open_local(&mut self, front: usize, conn: ConnId, timeout_ms: i32) -> bool {
        let Some(local) = self.local.as_deref_mut() else { return false };
        let sessions = &self.database.sessions;
        let session = self.ids.next(|id| sessions.contains(id) || local.contains(id));
        local.table.insert(session, timeout_ms, self.now.instant);
        local.table.attach(session, owner(front, conn)).expect("it has just begun");
        self.links[front].push(ToFront::Opened { conn, session, timeout_ms });
        true
    }

    /// A client comes back with a session that only this server knows; false if there is none of that id.
    pub(super) fn renew_local(
        &mut self,
        front: usize,
        conn: ConnId,
        session: SessionId,
        timeout_ms: i32,
    ) -> bool {
        let Some(local) = self.local.as_deref_mut() else { return false };
        let Ok(before) = local.table.attach(session, owner(front, conn)) else { return false };
        local.table.set_timeout(session, timeout_ms);
        local.table.touch(session, self.now.instant);
        if let Some(before) = before {
            self.tell(usize::from(before.front), ToFront::Close { conn: ConnId(before.conn), session });
        }
        self.links[front].push(ToFront::Opened { conn, session, timeout_ms });
        true
    }

    /// A connection is gone.
    pub(super) fn detach_local(&mut self, front: usize, conn: ConnId, session: SessionId, heard: Instant) {
        if let Some(local) = self.local.as_deref_mut()
            && local.table.detach(session, owner(front, conn))
        {
            local.table.touch(session, heard);
        }
    }

    /// A front tells when it last heard from a session's client.
    pub(super) fn heard_local(&mut self, front: usize, conn: ConnId, session: SessionId, heard: Instant) {
        let found = self.local.as_deref().and_then(|local| local.table.get(session));
        if found.is_some_and(|found| found.owner == Some(owner(front, conn))) {
            self.decide_local(session, Some(heard));
        }
    }

    /// Ends local sessions whose time is up, after a question to the front where there is a connection (O12).
    pub(super) fn local_timers(&mut self) {
        let now = self.now.instant;
        let Some(local) = self.local.as_deref_mut() else { return };
        if local.unserved_since.is_some() {
            return;
        }
        let mut due = std::mem::take(&mut self.due);
        local.table.due(now, &mut due);
        for session in due.drain(..) {
            let Some(local) = self.local.as_deref_mut() else { break };
            let Some(found) = local.table.get(session) else { continue };
            match found.owner {
                Some(owner) if self.links[usize::from(owner.front)].room() > ROOM_PER_ITEM => {
                    self.links[usize::from(owner.front)]
                        .push(ToFront::Probe { conn: ConnId(owner.conn), session });
                }
                Some(_) => {
                    local.table.touch(session, now);
                }
                None => self.decide_local(session, None),
            }
        }
        self.due = due;
    }

    fn decide_local(&mut self, session: SessionId, heard: Option<Instant>) {
        let now = self.now.instant;
        let Some(local) = self.local.as_deref_mut() else { return };
        if local.table.decide(session, heard, now) != Heard::Expired {
            return;
        }
        if local.upgrading.contains(&session) {
            // Its end is the leader's to decide in a moment.
            local.table.touch(session, now);
            return;
        }
        let Some(ended) = local.table.remove(session) else { return };
        tracing::info!(%session, "expiring local session {session}, timeout of {}ms exceeded", ended.timeout_ms);
        self.surveys.counters.sessions_expired += 1;
        if let Some(owner) = ended.owner {
            self.tell(usize::from(owner.front), ToFront::Close { conn: ConnId(owner.conn), session });
        }
    }

    /// Does what is different for a local session before its request goes the way of all. `None`: it is answered.
    pub(super) fn local_request(&mut self, request: &Request, origin: Origin) -> Option<Origin> {
        let session = request.session;
        let Some(local) = self.local.as_deref_mut() else { return Some(origin) };
        if !local.contains(session) || local.upgrading.contains(&session) {
            return Some(origin);
        }
        match request.op {
            OpCode::CloseSession => {
                local.table.remove(session);
                self.answer_in_turn(session, origin, ErrorCode::Ok);
                None
            }
            op if makes_ephemeral(op, &request.body) => {
                if local.upgrades {
                    self.upgrade(session);
                } else if self.is_learning() {
                    self.answer_in_turn(session, origin, ErrorCode::EphemeralOnLocalSession);
                    return None;
                }
                // A leader says so as the request is prepared, in a multi by operation.
                Some(origin)
            }
            _ => Some(origin),
        }
    }

    /// Answers a request that becomes no transaction, behind what its session asked before.
    fn answer_in_turn(&mut self, session: SessionId, origin: Origin, err: ErrorCode) {
        if self.serving == Serving::ReadOnly {
            return self.reply_refused(origin, err);
        }
        match self.ensemble.as_deref_mut() {
            Some(Ensemble { role: Role::Learning(learning), .. }) => {
                learning.local.push_refused(session, origin, err);
                self.serve_ready();
            }
            _ => self.queue.push_back(Item::Refused { origin, err }),
        }
    }

    /// Proposes the beginning of a local session as a global one.
    fn upgrade(&mut self, session: SessionId) {
        let Some(local) = self.local.as_deref_mut() else { return };
        let Some(timeout_ms) = local.table.get(session).map(|found| found.timeout_ms) else { return };
        local.upgrading.insert(session);
        tracing::debug!(%session, "a local session becomes a global one");
        if let Some(learning) = self.learning() {
            return learning.upgrade(session, timeout_ms);
        }
        let Some(leading) = self.leading() else { return };
        leading.beginning.insert(session, false);
        self.scratch.clear();
        let wall_ms = self.now.wall_ms;
        let zxid = self.preparer.create_session(session, timeout_ms, wall_ms, &mut self.scratch);
        let entry = self.log_entry(zxid);
        self.queue.push_back(Item::Own { zxid, entry });
    }

    /// A session began: if it was a local one here, its client goes on with the global one.
    pub(super) fn upgraded(&mut self, session: SessionId) {
        let Some(local) = self.local.as_deref_mut() else { return };
        local.upgrading.remove(&session);
        let Some(before) = local.table.remove(session) else { return };
        self.database.sessions.set_timeout(session, before.timeout_ms);
        if let Some(owner) = before.owner {
            let attached = self.database.sessions.attach(session, owner);
            assert!(attached == Ok(None), "{session} has just begun, and has {attached:?}");
        }
    }

    /// By what right a session of a client here writes.
    pub(super) fn lease(&mut self, session: SessionId) -> Lease {
        if self.database.sessions.contains(session) {
            return Lease::Global;
        }
        let begun = self.leading().and_then(|leading| leading.beginning.get(&session).copied());
        match begun {
            Some(is_closing) => {
                if is_closing {
                    Lease::Global
                } else {
                    Lease::Begun
                }
            }
            None if self.is_local(session) => Lease::Local,
            None => Lease::Global,
        }
    }

    /// The same for a session that speaks through a learner. One that is not known may be a local one there; the byte of the server
    /// that made it tells. Source: ZooKeeper `LeaderSessionTracker#checkSession`.
    pub(super) fn lease_elsewhere(&mut self, session: SessionId) -> Lease {
        let is_ours = |me: u8| (session.0 >> 56) as u8 == me;
        match (self.lease(session), self.ensemble.as_deref()) {
            // Ours do not speak through others.
            (Lease::Local, _) => Lease::Global,
            (Lease::Global, Some(Ensemble { options, role: Role::Leading(leading), .. }))
                if options.modes.local_sessions
                    && !is_ours(options.me.0)
                    && !self.database.sessions.contains(session)
                    && !leading.beginning.contains_key(&session) =>
            {
                Lease::Local
            }
            (lease, _) => lease,
        }
    }

    /// From here on the session takes no requests. False if there is none, or it is closing already.
    pub(super) fn mark_closing(&mut self, session: SessionId) -> bool {
        if let Some(is_closing) = self.leading().and_then(|leading| leading.beginning.get_mut(&session)) {
            return !std::mem::replace(is_closing, true);
        }
        self.database.sessions.mark_closing(session)
    }

    /// Serves reads without a leader, unless what is here is known to be no state the ensemble had.
    pub(super) fn serve_read_only(&mut self) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        ensemble.read_only_at = None;
        if self.stopping || ensemble.is_to_be_refetched() {
            return;
        }
        tracing::warn!(
            "no leader is to be found: serving reads of what is here to clients that ask for that"
        );
        self.begin_to_serve(Serving::ReadOnly);
    }

    /// What a client wants of a server that serves reads only. `None`: done.
    pub(super) fn take_read_only(&mut self, front: usize, message: ToPipeline) -> Option<ToPipeline> {
        match message {
            ToPipeline::Open { conn, timeout_ms } => {
                if !self.open_local(front, conn, timeout_ms) {
                    // A new session would be a transaction (client-protocol §14.10).
                    self.links[front].push(ToFront::TurnedAway { conn });
                }
            }
            ToPipeline::Renew { conn, session, timeout_ms } => {
                if !self.renew_local(front, conn, session, timeout_ms) {
                    // Its client is to look for a server that knows.
                    self.links[front].push(ToFront::TurnedAway { conn });
                }
            }
            message => return Some(message),
        }
        None
    }

    /// A request of a client of a server that serves reads only.
    pub(super) fn request_read_only(&mut self, front: usize, request: &Request, origin: Origin) {
        let Some(origin) = self.local_request(request, origin) else { return };
        match request.op {
            OpCode::CloseSession => self.reply_refused(origin, ErrorCode::SessionExpired),
            op if is_write(op) || op == OpCode::Sync => self.reply_refused(origin, ErrorCode::NotReadOnly),
            _ => self.read(front, request),
        }
    }
}
