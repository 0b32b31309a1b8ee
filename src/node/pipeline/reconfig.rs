//! Who belongs to the ensemble, and how that changes.
//!
//! A membership is *proposed* by an entry of the log or by a leader's NEWLEADER, and *in force* once that is committed: on a learner with
//! UPTODATE or the packet that commits and activates it, on a leader when it begins to reign or when a quorum of both memberships has
//! acknowledged the entry. Between the two, elections need quorums of both.
//!
//! What is proposed is remembered by what is durable anyway: the entry is in the log, so `/zookeeper/config` of a recovered tree tells of
//! it. The files beside the configuration are written behind that, in ZooKeeper's forms; a server that could not write them is told the
//! membership again by its leader. A server that is no member any more leaves its files alone: with them it can still be started.
//!
//! Without `reconfigEnabled` every server has the membership of its own file, and all that is received is passed over (quorum-protocol
//! §9.2, 32). Sources: ZooKeeper `QuorumPeer#processReconfig`, `#setLastSeenQuorumVerifier`, `Leader#startZkServer`; quorum-protocol §4.11.

use bytes::Bytes;

use super::ensemble::{Ensemble, Leading, Role};
use super::{Output, Pipeline};
use crate::config::{Membership, Role as MemberRole};
use crate::node::link::PipelineLink;
use crate::node::storage_work::{MembershipFiles, StorageWork};
use crate::proto::client::OpCode;
use crate::request::prepare::{Prepared, ReconfigView, Write};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::leader::{LeaderOptions, NextMembership};
use crate::zab::quorum::Verifier;

/// Memberships besides the one in force, which stands in the options.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// Proposed, and not known to be committed.
    proposed: Option<Membership>,
    /// Prepared, about to be proposed here.
    prepared: Option<Membership>,
    /// The newest that votes told of. Adopted when this server looks for a leader: somebody has seen it committed.
    heard: Option<Membership>,
    /// What NEWLEADER carried: in force from UPTODATE on.
    at_serve: Option<Membership>,
    /// Who is to lead next, by the reconfiguration of that zxid.
    pub designated: Option<(ServerId, Zxid)>,
}

impl Ensemble {
    /// For a reign that begins now.
    pub fn leader_options(&self, raises_version: bool) -> LeaderOptions {
        let proposed = self.memberships.proposed.as_ref();
        let seen = proposed.unwrap_or(&self.options.membership);
        let verifier = Verifier::of(&self.options.membership);
        LeaderOptions {
            voters: verifier.voters(),
            verifier,
            config_text: seen.to_text().into(),
            config_version: seen.version,
            proposed: proposed.map(Verifier::of),
            raises_version,
            ..self.options.leader.clone()
        }
    }

    /// The memberships in which a server may be found, the one in force first.
    pub fn known_memberships(&self) -> impl Iterator<Item = &Membership> {
        [Some(&self.options.membership), self.memberships.proposed.as_ref()].into_iter().flatten()
    }
}

impl<L: PipelineLink> Pipeline<L> {
    fn reconfigures(&self) -> bool {
        self.options.prepare.reconfig
    }

    /// The database is new here: it may know of a membership that this server's files do not have; else it is to show theirs.
    pub(super) fn recall_membership(&mut self) {
        let reconfigures = self.reconfigures();
        let now = self.now;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let committed = &ensemble.options.membership;
        let recalled = Membership::parse(self.database.membership_text())
            .ok()
            .filter(|recalled| reconfigures && recalled.version > committed.version);
        let Some(recalled) = recalled else {
            let (text, version) = (committed.to_text(), committed.version);
            return self.database.show_membership(&text, version, now.wall_ms);
        };
        if !recalled.same_servers(committed) {
            tracing::warn!(
                "the transactions here know of configuration version {:x}, the files of {:x}: until a leader tells, this server \
                 needs quorums of both (reconfigEnabled=false takes the files alone)",
                recalled.version,
                committed.version
            );
        }
        if ensemble.memberships.proposed.as_ref().is_none_or(|proposed| proposed.version < recalled.version) {
            self.set_proposed(Some(recalled));
        }
    }

    fn set_proposed(&mut self, proposed: Option<Membership>) {
        let now = self.now.instant;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        if ensemble.memberships.proposed == proposed {
            return;
        }
        ensemble.memberships.proposed = proposed;
        let proposed = ensemble.memberships.proposed.as_ref();
        ensemble.voting.set_membership(now, &ensemble.options.membership, proposed);
        let files = MembershipFiles { next: proposed.map(Membership::to_text), activated: None };
        self.owed.push(Output::Storage(StorageWork::WriteMembership(Box::new(files))));
    }

    /// This membership is in force from here on. Whether it gives this server another role.
    fn activate(&mut self, next: Membership) -> bool {
        let now = self.now;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return false };
        let (options, memberships) = (&mut ensemble.options, &mut ensemble.memberships);
        let me = options.me;
        let is_member = next.member(me).is_some();
        let observes = next.member(me).is_some_and(|member| member.role == MemberRole::Observer);
        memberships.proposed.take_if(|proposed| proposed.version <= next.version);
        memberships.heard.take_if(|heard| heard.version <= next.version);
        let before = std::mem::replace(&mut options.membership, next);
        let next = &options.membership;
        let changes_role = std::mem::replace(&mut options.observer, observes) != observes;
        ensemble.voting.set_membership(now.instant, next, memberships.proposed.as_ref());
        let text = next.to_text();
        tracing::info!("configuration version {:x} is in force: {}", next.version, text.replace('\n', " "));
        if let (Some(was), Some(is)) = (before.member(me), next.member(me)) {
            if was.addresses != is.addresses {
                tracing::warn!(
                    "the addresses for this server's peers have changed: it listens there once it is restarted"
                );
            }
            if is.client.is_some() && was.client != is.client {
                tracing::warn!(
                    "the address for this server's clients has changed: it listens there once it is restarted"
                );
            }
        }
        if !is_member {
            tracing::warn!("this server is not a member of the ensemble any more: it follows without a vote");
        }
        let next_text = memberships.proposed.as_ref().map(Membership::to_text);
        let activated = is_member.then(|| next.clone());
        let files = MembershipFiles { next: next_text, activated };
        self.owed.push(Output::Storage(StorageWork::WriteMembership(Box::new(files))));
        let version = next.version;
        // A transaction that brought it shows it when it is applied; what no transaction brought is shown here.
        if self.database.zxid_applied().0 >= version || Zxid(version).counter() == 0 {
            self.database.show_membership(&text, version, now.wall_ms);
        }
        changes_role
    }

    /// A vote told of a newer membership.
    pub(super) fn heard_membership(&mut self, heard: Membership) {
        if !self.reconfigures() {
            return;
        }
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let newest = ensemble.memberships.heard.as_ref().map_or(0, |heard| heard.version);
        let standalone_enabled = ensemble.options.standalone_enabled;
        if heard.version <= newest.max(ensemble.options.membership.version) {
            return;
        }
        if let Err(error) = heard.check_for_peers(standalone_enabled) {
            tracing::warn!("a server votes by a configuration that is none: {error}");
            return;
        }
        ensemble.memberships.heard = Some(heard);
        self.adopt_heard();
    }

    /// While looking, what others have in force counts here too.
    pub(super) fn adopt_heard(&mut self) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        if !matches!(ensemble.role, Role::Looking) {
            return;
        }
        if let Some(heard) = ensemble.memberships.heard.take()
            && heard.version > ensemble.options.membership.version
        {
            self.activate(heard);
        }
    }

    // ---- as a learner ----

    /// The leader told of a membership: with NEWLEADER, or by the entry that is appended next.
    pub(super) fn learned_membership(&mut self, text: &Bytes, proposed: Option<Zxid>) {
        if !self.reconfigures() {
            tracing::debug!("the leader's configuration is not taken: reconfigEnabled is off");
            return;
        }
        let membership = match Membership::parse(text) {
            Ok(membership) => membership,
            Err(error) => {
                tracing::error!("the leader's configuration is none: {error}");
                return;
            }
        };
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let committed = ensemble.options.membership.version;
        if membership.version < committed {
            tracing::warn!(
                "the leader's configuration version {:x} is older than {committed:x}, which is in force here",
                membership.version
            );
            return;
        }
        if proposed.is_none() {
            ensemble.memberships.at_serve = Some(membership.clone());
        }
        // What it has seen last replaces what was proposed here and came to nothing.
        self.set_proposed(Some(membership).filter(|membership| membership.version > committed));
    }

    /// UPTODATE: the membership of NEWLEADER is in force. Whether this server must connect anew to go on.
    pub(super) fn activate_at_serve(&mut self, leader: ServerId) -> bool {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return false };
        let before = ensemble.options.membership.clone();
        let Some(next) = ensemble.memberships.at_serve.take() else { return false };
        if next.version <= before.version {
            return false;
        }
        let stays =
            next.is_voter(leader) && (before.same_address(&next, leader) || before.member(leader).is_none());
        let zxid = Zxid(next.version);
        let changes_role = self.activate(next);
        if changes_role && stays {
            self.designate(leader, zxid);
        }
        changes_role || !stays
    }

    /// The membership of an entry is committed, and `designated` is to lead. Where this server has to leave its leader for that, up to
    /// where everything is to be applied before.
    pub(super) fn learned_activation(
        &mut self,
        zxid: Zxid,
        designated: i64,
        leader: ServerId,
    ) -> Option<Zxid> {
        if !self.reconfigures() {
            return None;
        }
        let ensemble = self.ensemble.as_deref_mut()?;
        if ensemble.memberships.proposed.as_ref().is_none_or(|proposed| proposed.version != zxid.0) {
            tracing::debug!("the configuration of {zxid} is not the one last seen here");
            return None;
        }
        let next = ensemble.memberships.proposed.take()?;
        let designated = u8::try_from(designated).ok().map(ServerId).filter(|id| next.is_voter(*id));
        let changes_role = self.activate(next);
        match designated {
            Some(designated) if designated != leader || changes_role => {
                self.designate(designated, zxid);
                Some(zxid)
            }
            Some(_) => None,
            None => Some(zxid),
        }
    }

    fn designate(&mut self, leader: ServerId, zxid: Zxid) {
        if let Some(ensemble) = self.ensemble.as_deref_mut() {
            ensemble.memberships.designated = Some((leader, zxid));
        }
    }

    // ---- as a leader ----

    /// Prepares a client's write. On a leader a reconfiguration depends on more than the tree.
    pub(super) fn prepare(&mut self, write: &Write<'_>) -> Prepared {
        let wall_ms = self.now.wall_ms;
        let Some(Ensemble { role: Role::Leading(leading), options, memberships, .. }) =
            self.ensemble.as_deref_mut().filter(|_| write.op == OpCode::Reconfig)
        else {
            return self.preparer.write(&self.database, write, wall_ms, &mut self.scratch);
        };
        let is_synced = |next: &Membership| leading.machine.is_synced_quorum(&Verifier::of(next));
        let view = ReconfigView {
            membership: &options.membership,
            is_pending: memberships.proposed.is_some() || memberships.prepared.is_some(),
            standalone_enabled: options.standalone_enabled,
            several_addresses: options.mesh.several_addresses,
            is_synced: &is_synced,
        };
        let scratch = &mut self.scratch;
        let (prepared, next) = self.preparer.reconfig(&self.database, write, &view, wall_ms, scratch);
        memberships.prepared = next;
        prepared
    }

    /// The entry just proposed is that of the membership prepared before it.
    pub(super) fn propose_prepared(&mut self, zxid: Zxid) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let Some(next) = ensemble.memberships.prepared.take() else { return };
        assert!(next.version == zxid.0, "{zxid} was proposed where {:x} was prepared", next.version);
        let Role::Leading(leading) = &mut ensemble.role else { return };
        let text = next.to_text();
        tracing::info!("configuration version {:x} is proposed: {}", next.version, text.replace('\n', " "));
        leading.machine.propose_membership(NextMembership {
            verifier: Verifier::of(&next),
            text: text.into(),
            keeps_leader: keeps_leader(ensemble.options.me, &ensemble.options.membership, &next),
        });
        self.set_proposed(Some(next));
    }

    /// The membership proposed as `zxid` is committed here, and `designated` is to lead.
    pub(super) fn proposed_activated(&mut self, zxid: Zxid, designated: ServerId) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let next = ensemble.memberships.proposed.take();
        let next = next.expect("a leader proposes what it has seen last");
        assert!(next.version == zxid.0, "{zxid} is activated where {:x} was proposed", next.version);
        if designated != ensemble.options.me {
            ensemble.memberships.designated = Some((designated, zxid));
            if let Role::Leading(leading) = &mut ensemble.role {
                leading.deposed_at = Some(zxid);
            }
        }
        self.activate(next);
    }

    /// A reign begins: what was seen last is in force with it. Whether this server may lead by it.
    pub(super) fn activate_at_reign(&mut self, epoch: Epoch) -> bool {
        if !self.reconfigures() {
            return true;
        }
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return true };
        let before = ensemble.options.membership.clone();
        let seen = ensemble.memberships.proposed.take().unwrap_or_else(|| before.clone());
        let next = if seen.version == 0 { seen.with_version(Zxid::new(epoch, 0).0) } else { seen };
        if next.version == before.version {
            return true;
        }
        let keeps = keeps_leader(ensemble.options.me, &before, &next);
        self.activate(next);
        keeps
    }

    /// Whether another is to lead by now, and everything up to the change is applied here.
    pub(super) fn is_deposed(&self) -> bool {
        match self.ensemble.as_deref() {
            Some(Ensemble { role: Role::Leading(leading), .. }) => {
                let Leading { deposed_at, .. } = &**leading;
                deposed_at.is_some_and(|zxid| self.database.zxid_applied() >= zxid)
            }
            _ => false,
        }
    }
}

/// Names are compared, not what they resolve to (quorum-protocol §9.2, 34). A server outside of `before` was found somehow.
fn keeps_leader(me: ServerId, before: &Membership, next: &Membership) -> bool {
    next.is_voter(me) && (before.member(me).is_none() || before.same_address(next, me))
}
