//! What learners ask of the server that leads: their clients' writes, and whose session is whose.

use bytes::Bytes;

use super::ensemble::{Ensemble, Leading, Role};
use super::{Item, OUTSTANDING_MAX, Output, Pipeline, is_write};
use crate::jute::Reader;
use crate::node::ConnId;
use crate::node::link::{PipelineLink, ToFront};
use crate::node::storage_work::StorageWork;
use crate::proto::ErrorCode;
use crate::proto::client::OpCode;
use crate::proto::quorum::RequestHeader;
use crate::proto::txn::kind;
use crate::request::auth::Identities;
use crate::request::prepare::{Lease, Prepared, Write};
use crate::txnlog::LogRange;
use crate::types::{SessionId, Zxid};
use crate::zab::PeerConn;
use crate::zab::leader::ProofId;

/// Bytes of learners' requests that may wait for room; the learner that sends one more is closed.
pub(super) const EARLY_BYTES_MAX: usize = 256 << 20;

/// Bytes read from the log at once for learners that lack more than is in memory; who lacks more still gets a snapshot.
const LOG_READ_BYTES_MAX: usize = 64 << 20;
/// What a node takes up in a snapshot besides its data, about: path and stat.
const NODE_BYTES: u64 = 100;

/// A learner's request.
#[derive(Debug)]
pub(super) struct LearnerRequest {
    pub conn: PeerConn,
    pub header: RequestHeader,
    pub body: Bytes,
    pub auth: Vec<(String, String)>,
}

impl LearnerRequest {
    fn bytes(&self) -> usize {
        size_of::<LearnerRequest>() + self.body.len()
    }
}

impl<L: PipelineLink> Pipeline<L> {
    pub(super) fn leading(&mut self) -> Option<&mut Leading> {
        match self.ensemble.as_deref_mut() {
            Some(Ensemble { role: Role::Leading(leading), .. }) => Some(leading),
            _ => None,
        }
    }

    /// Takes a learner's request, or lets it wait while there is no room or the reign has not begun.
    pub(super) fn learner_request(&mut self, request: LearnerRequest) {
        let has_room = self.makes_transactions() && self.queue.len() < OUTSTANDING_MAX;
        let Some(leading) = self.leading() else { return };
        if has_room && leading.early.is_empty() {
            return self.serve_learner(request);
        }
        leading.early_bytes += request.bytes();
        if leading.early_bytes > EARLY_BYTES_MAX {
            leading.early_bytes -= request.bytes();
            leading.machine.close_learner(request.conn, EARLY_BYTES_MAX);
            return;
        }
        leading.early.push_back(request);
    }

    /// Takes the requests that waited, as far as there is room. Whether there was one.
    pub(super) fn serve_early(&mut self) -> bool {
        let mut is_busy = false;
        while self.makes_transactions() && self.queue.len() < OUTSTANDING_MAX {
            let Some(leading) = self.leading() else { break };
            let Some(request) = leading.early.pop_front() else { break };
            leading.early_bytes -= request.bytes();
            self.serve_learner(request);
            is_busy = true;
        }
        is_busy
    }

    fn serve_learner(&mut self, request: LearnerRequest) {
        let LearnerRequest { conn, header: RequestHeader { session, cxid, op }, body, auth } = request;
        let now = self.now;
        self.surveys.counters.requests += 1;
        self.scratch.clear();
        let zxid = match op {
            kind::CREATE_SESSION => {
                let timeout_ms = Reader::new(&body).i32().unwrap_or(0);
                self.own(session, conn);
                if let Some(leading) = self.leading() {
                    leading.beginning.insert(session, false);
                }
                self.preparer.create_session(session, timeout_ms, now.wall_ms, &mut self.scratch)
            }
            kind::CLOSE_SESSION => {
                if self.mark_closing(session) {
                    let scratch = &mut self.scratch;
                    self.preparer.close_session(&self.database, session, cxid, now.wall_ms, scratch)
                } else {
                    self.refuse_learner(session, cxid, ErrorCode::SessionExpired)
                }
            }
            op => match OpCode::of(op) {
                Some(OpCode::Sync) => {
                    if let Some(leading) = self.leading() {
                        leading.machine.sync(conn);
                    }
                    return;
                }
                Some(op) if is_write(op) => self.write_of_learner(conn, session, cxid, op, &body, &auth),
                _ => self.refuse_learner(session, cxid, ErrorCode::Unimplemented),
            },
        };
        let entry = self.log_entry(zxid);
        self.queue.push_back(Item::Own { zxid, entry });
    }

    fn write_of_learner(
        &mut self,
        conn: PeerConn,
        session: SessionId,
        cxid: i32,
        op: OpCode,
        body: &[u8],
        auth: &[(String, String)],
    ) -> Zxid {
        let is_elsewhere = self.database.sessions.get(session).is_some_and(|found| found.owner.is_some());
        let lease = self.lease_elsewhere(session);
        let Some(leading) = self.leading() else { unreachable!("a learner's request is a leader's") };
        let owner = match lease {
            // Nobody would tell of its end.
            Lease::Local => leading.owners.get(&session).copied().unwrap_or(conn),
            Lease::Global | Lease::Begun => *leading.owners.entry(session).or_insert(conn),
        };
        if is_elsewhere || owner != conn {
            return self.refuse_learner(session, cxid, ErrorCode::SessionMoved);
        }
        let shown = auth.iter().map(|(scheme, id)| (scheme.as_str(), id.as_str()));
        let Some(identities) = Identities::of_peer(shown) else {
            return self.refuse_learner(session, cxid, ErrorCode::MarshallingError);
        };
        let write = Write { session, cxid, op, body, identities: &identities, lease };
        match self.prepare(&write) {
            Prepared::Entry { zxid } => zxid,
            Prepared::Refused(err) => self.refuse_learner(session, cxid, err),
        }
    }

    /// The learner waits for a transaction: it is an error.
    fn refuse_learner(&mut self, session: SessionId, cxid: i32, err: ErrorCode) -> Zxid {
        self.scratch.clear();
        self.preparer.refuse(session, cxid, err, self.now.wall_ms, &mut self.scratch)
    }

    /// A session speaks through a learner from here on.
    fn own(&mut self, session: SessionId, conn: PeerConn) {
        if let Some(leading) = self.leading() {
            leading.owners.insert(session, conn);
        }
        let local = self.database.sessions.get(session).and_then(|found| found.owner);
        if let Some(owner) = local {
            self.database.sessions.detach(session, owner);
            self.tell(usize::from(owner.front), ToFront::Close { conn: ConnId(owner.conn), session });
        }
    }

    /// A client has come to a learner with a session.
    pub(super) fn learner_revalidates(&mut self, conn: PeerConn, session: SessionId, timeout_ms: i32) {
        let is_valid = self.database.sessions.get(session).is_some_and(|found| !found.closing);
        if is_valid {
            self.database.sessions.set_timeout(session, timeout_ms);
            self.database.sessions.touch(session, self.now.instant);
            self.own(session, conn);
        }
        if let Some(leading) = self.leading() {
            leading.machine.revalidated(conn, session, is_valid);
        }
    }

    /// Learners lack what follows `after`: it comes from the log, if that is less than a snapshot would be by the factor configured.
    /// Source: ZooKeeper `ZKDatabase#getProposalsFromTxnLog`.
    pub(super) fn read_log(&mut self, after: Zxid, through: Zxid) {
        let tree = &self.database.tree;
        let snapshot_bytes = tree.data_bytes() + tree.node_count() as u64 * NODE_BYTES;
        let zxid_durable = self.zxid_durable;
        let Some(Ensemble { role: Role::Leading(leading), options, recent, .. }) =
            self.ensemble.as_deref_mut()
        else {
            return;
        };
        let factor = options.modes.snapshot_size_factor;
        if factor < 0.0 {
            return leading.machine.log_read(self.now.instant, after, None, recent);
        }
        assert!(through <= zxid_durable, "{through} is not in the log for certain");
        let bytes_max = if factor == 0.0 {
            LOG_READ_BYTES_MAX
        } else {
            ((snapshot_bytes as f64 * factor) as usize).min(LOG_READ_BYTES_MAX)
        };
        leading.reads_log = true;
        self.owed.push(Output::Storage(StorageWork::ReadLog(LogRange { after, through, bytes_max })));
    }

    /// What the disk made of that.
    pub(super) fn log_read(&mut self, range: LogRange, entries: Option<Vec<(Zxid, Bytes)>>) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        if ensemble.log_reads_void > 0 {
            ensemble.log_reads_void -= 1;
            return;
        }
        let Role::Leading(leading) = &mut ensemble.role else { return };
        assert!(std::mem::take(&mut leading.reads_log), "the log was not asked for {range:?}");
        leading.machine.log_read(self.now.instant, range.after, entries, &ensemble.recent);
    }

    /// Begins a proof that this server still leads; `None` where it need not be proved.
    pub(super) fn prove(&mut self) -> Option<ProofId> {
        self.leading().map(|leading| leading.machine.prove())
    }

    /// Whether learners are being sent the tree.
    pub(super) fn is_feeding(&mut self) -> bool {
        self.leading().is_some_and(|leading| leading.feed.is_running())
    }

    /// Whether a session that asks here has moved to a learner.
    pub(super) fn has_moved(&mut self, session: SessionId) -> bool {
        self.leading().is_some_and(|leading| leading.owners.contains_key(&session))
    }
}
