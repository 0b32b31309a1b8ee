//! What the pipeline tells the audit log. Off unless configured, and then it costs a branch a write.

use super::{Origin, Output, Pipeline};
use crate::node::link::{PipelineLink, Request};
use crate::proto::txn::{Txn, TxnEntry};
use crate::request::audit::{self, AuditLine, Audited};

impl<L: PipelineLink> Pipeline<L> {
    /// What to remember of a write until it is decided.
    pub(super) fn audited(&self, request: &Request) -> Option<Box<Audited>> {
        self.options.audit_user.as_ref()?;
        let Request { session, op, body, identities, .. } = request;
        Audited::of(*session, *op, body, identities, &self.options.prepare.auth).map(Box::new)
    }

    /// Before a transaction is applied: the ephemeral nodes it takes along are still there.
    pub(super) fn audit_closing(&mut self, entry: &TxnEntry<'_>) {
        let (Some(user), Txn::CloseSession { .. }) = (&self.options.audit_user, &entry.txn) else { return };
        let session = entry.header.session;
        let lines: Vec<AuditLine> = self
            .database
            .ephemerals_of(session)
            .map(|node| audit::ephemeral_deleted(session, user, &self.database.tree.path(node)))
            .collect();
        self.owed.extend(lines.into_iter().map(Output::Audit));
    }

    /// After it was applied.
    pub(super) fn audit_applied(&mut self, origin: Option<&Origin>, entry: &TxnEntry<'_>, failed: bool) {
        if let Some(audited) = origin.and_then(|origin| origin.audited.as_ref()) {
            self.owed.extend(audited.lines(&entry.txn, failed).into_iter().map(Output::Audit));
        }
    }
}
