//! The preparing of `reconfig`: who is to belong to the ensemble.

use super::{Prepared, Preparer, Refusal, Task, Write};
use crate::config::Membership;
use crate::jute::Reader;
use crate::proto::txn::{self, kind};
use crate::proto::{ErrorCode, Perms};
use crate::request::Database;
use crate::request::path;

/// What a leader knows that a reconfiguration depends on.
pub struct ReconfigView<'a> {
    /// In force.
    pub membership: &'a Membership,
    /// Another is proposed and not in force.
    pub is_pending: bool,
    /// `standaloneEnabled`: an ensemble has at least two voters.
    pub standalone_enabled: bool,
    /// `multiAddress.enabled`.
    pub several_addresses: bool,
    /// Whether a quorum of it follows, synchronised.
    pub is_synced: &'a dyn Fn(&Membership) -> bool,
}

impl Preparer {
    /// As [`Preparer::write`], of a `reconfig` on a leader; with the membership where one is proposed.
    pub fn reconfig(
        &mut self,
        database: &Database,
        write: &Write<'_>,
        view: &ReconfigView<'_>,
        wall_ms: i64,
        out: &mut Vec<u8>,
    ) -> (Prepared, Option<Membership>) {
        let mut next = None;
        let prepared = self.make(database, write, wall_ms, out, |task| {
            next = Some(task.reconfig(view)?);
            Ok(kind::RECONFIG)
        });
        // A membership whose entry would be too long is an error as well.
        let is_proposed = matches!(prepared, Prepared::Entry { zxid }
            if self.outstanding.get(path::CONFIG).flatten().is_some_and(|node| node.stat.mzxid == zxid));
        (prepared, next.filter(|_| is_proposed))
    }
}

impl Task<'_, '_> {
    /// Source: ZooKeeper `PrepRequestProcessor`, case reconfig.
    fn reconfig(&mut self, view: &ReconfigView<'_>) -> Result<Membership, Refusal> {
        let mut reader = Reader::new(self.write.body);
        let joining = reader.string()?;
        let leaving = reader.string()?;
        let members = reader.string()?;
        let expected_version = reader.i64()?;
        if !self.preparer.options.reconfig {
            return Err(ErrorCode::ReconfigDisabled.into());
        }
        self.check_session()?;
        if view.is_pending {
            return Err(ErrorCode::ReconfigInProgress.into());
        }
        if expected_version != -1 && expected_version != view.membership.version {
            return Err(ErrorCode::BadVersion.into());
        }
        let version = self.zxid.0;
        let next = match &members {
            Some(members) => Membership::replaced(members, version),
            None => view.membership.changed(joining.as_deref(), leaving.as_deref(), version),
        };
        let next = next.map_err(|error| refuse(&error))?;
        let voters = next.voters().count();
        if view.standalone_enabled && voters < 2 {
            return Err(refuse(&format!(
                "{voters} participants: expected at least 2, or standaloneEnabled=false"
            )));
        }
        next.check_for_peers(view.standalone_enabled).map_err(|error| refuse(&error))?;
        if !view.several_addresses && next.members().any(|member| member.addresses.len() > 1) {
            return Err(refuse(&"several addresses of a server: expected multiAddress.enabled=true"));
        }
        if !(view.is_synced)(&next) {
            return Err(ErrorCode::NewConfigNoQuorum.into());
        }
        let node = self.node(path::CONFIG).ok_or(ErrorCode::NoNode)?;
        self.authorise(&node, Perms::WRITE)?;
        let text = next.to_text();
        txn::put::set_data(self.body, path::CONFIG, Some(text.as_bytes()), -1);
        let mut after = node.clone();
        after.stat.version = -1;
        after.stat.mzxid = self.zxid;
        after.stat.mtime_ms = self.wall_ms;
        after.content_crc = self.content_crc(path::CONFIG, Some(text.as_bytes()));
        after.data_bytes = text.len() as u32;
        self.preparer.change(path::CONFIG, self.zxid, &node, after);
        Ok(next)
    }
}

/// Clients are told only that it is wrong; the log says how.
fn refuse(reason: &dyn std::fmt::Display) -> Refusal {
    tracing::info!("refusing a reconfiguration: {reason}");
    ErrorCode::BadArguments.into()
}
