//! What this server tells of its part in the ensemble, for four-letter words.

use super::Pipeline;
use super::ensemble::{Ensemble, Role};
use crate::metrics::QuorumCounters;
use crate::node::link::{PipelineLink, Serving};
use crate::types::{Instant, SessionId};
use crate::words::{EnsembleReport, LeaderReport, Mode, PeerPhase, PeerRole};
use crate::zab::leader::LeaderCounters;
use crate::zab::learner::Phase;

/// What happened to a member so far.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    /// Of all roles, but what a present leader counts itself.
    pub counters: QuorumCounters,
    looking_since: Option<Instant>,
    following_since: Option<Instant>,
    /// Since clients were last served.
    unserving_since: Option<Instant>,
}

impl Chronicle {
    pub(super) fn looks(&mut self, now: Instant) {
        self.counters.lookings += 1;
        self.looking_since = Some(now);
        self.unserving_since.get_or_insert(now);
    }

    /// The election ended. Source: ZooKeeper `FastLeaderElection#leaveInstance`.
    pub(super) fn elected(&mut self, now: Instant) {
        let took_ms = ms_since(self.looking_since.take(), now);
        self.counters.election_ms.record(took_ms);
        self.following_since = Some(now);
    }

    /// Clients are served, by a leader or a learner.
    pub(super) fn serves(&mut self, now: Instant, leads: bool, is_observer: bool) {
        let out_ms = ms_since(self.unserving_since.take(), now);
        self.counters.unavailable_ms.record(out_ms);
        let took_ms = ms_since(self.following_since.take(), now);
        match (leads, is_observer) {
            (true, _) => self.counters.leader_unavailable_ms.record(out_ms),
            (false, false) => self.counters.follower_sync_ms.record(took_ms),
            (false, true) => self.counters.observer_sync_ms.record(took_ms),
        }
    }

    /// A role ended, at which clients may have been served.
    pub(super) fn leaves(&mut self, now: Instant, served: bool) {
        if served {
            self.unserving_since = Some(now);
        }
    }

    /// What a leader counted stays.
    pub(super) fn reigned(&mut self, counters: &LeaderCounters) {
        add(&mut self.counters, counters);
    }
}

fn add(to: &mut QuorumCounters, counters: &LeaderCounters) {
    to.proposals += counters.proposals;
    to.commits += counters.commits;
    to.diffs += counters.diff_syncs;
    to.snaps += counters.snapshot_syncs;
}

fn ms_since(then: Option<Instant>, now: Instant) -> u64 {
    then.map_or(0, |then| now.since(then).as_millis() as u64)
}

/// A server's mode, and what only a member of an ensemble has.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub mode: Mode,
    pub ensemble: Option<Box<EnsembleReport>>,
    /// Of a learner: sessions and their timeouts, whose end only the leader knows.
    pub timeouts: Option<Vec<(SessionId, i32)>>,
    pub local_sessions: u64,
}

impl<L: PipelineLink> Pipeline<L> {
    /// `lists_sessions` where the word asks for them.
    pub(super) fn standing(&self, lists_sessions: bool) -> Standing {
        let Some(ensemble) = self.ensemble.as_deref() else { return Standing::default() };
        let mut report = EnsembleReport {
            voters: ensemble.options.membership.voters().count() as u32,
            membership: ensemble.options.membership.to_text(),
            leader_id: ensemble.leader.map(|leader| i64::from(leader.0)),
            counters: self.surveys.chronicle.counters.clone(),
            ..EnsembleReport::default()
        };
        let mut mode = Mode::NotServing;
        match &ensemble.role {
            Role::Settling | Role::Looking => {
                if self.serving == Serving::ReadOnly {
                    mode = Mode::ReadOnly;
                }
            }
            Role::Dialling(_) => {
                report.role = role_of_learner(ensemble);
                report.phase = PeerPhase::Discovery;
            }
            Role::Learning(learning) => {
                report.role = role_of_learner(ensemble);
                report.phase = match learning.machine.phase() {
                    Phase::Discovery | Phase::Failed => PeerPhase::Discovery,
                    Phase::Synchronization => PeerPhase::Synchronization(None),
                    Phase::Broadcast => PeerPhase::Broadcast,
                };
                if ensemble.options.observer {
                    report.observer_master_id = ensemble.leader.map(|leader| i64::from(leader.0));
                }
                if self.serving == Serving::Yes {
                    mode = if ensemble.options.observer { Mode::Observer } else { Mode::Follower };
                }
            }
            Role::Leading(leading) => {
                report.role = PeerRole::Leading;
                report.phase = match (leading.reigns, leading.machine.is_established()) {
                    (true, _) => PeerPhase::Broadcast,
                    (false, true) => PeerPhase::Synchronization(None),
                    (false, false) => PeerPhase::Discovery,
                };
                let machine = &leading.machine;
                let counters = machine.counters();
                let sizes = &counters.proposal_bytes;
                let or_none = |bytes: u64| if sizes.count == 0 { -1 } else { bytes as i64 };
                report.leader = Some(LeaderReport {
                    learners: machine.learners().count() as u64,
                    synced_followers: machine.synced_followers() as u64,
                    synced_non_voting_followers: machine.synced_non_voting_followers() as u64,
                    synced_observers: machine.synced_observers() as u64,
                    pending_syncs: self.syncs_waiting(),
                    uptime_ms: self.now.instant.since(leading.since).as_millis() as u64,
                    proposal_bytes_last: or_none(sizes.last),
                    proposal_bytes_min: or_none(sizes.min),
                    proposal_bytes_max: or_none(sizes.max),
                });
                add(&mut report.counters, counters);
                // A leader serves, whether or not it has clients of its own.
                if leading.reigns {
                    mode = Mode::Leader;
                }
            }
        }
        let learns = matches!(mode, Mode::Follower | Mode::Observer);
        let timeouts = (lists_sessions && learns).then(|| {
            self.database.sessions.iter().map(|session| (session.id, session.timeout_ms_stored)).collect()
        });
        let local_sessions = self.local.as_deref().map_or(0, |local| local.len() as u64);
        Standing { mode, ensemble: Some(report.into()), timeouts, local_sessions }
    }

    fn syncs_waiting(&self) -> u64 {
        self.queue.iter().filter(|item| matches!(item, super::Item::Sync { .. })).count() as u64
    }
}

fn role_of_learner(ensemble: &Ensemble) -> PeerRole {
    if ensemble.options.observer { PeerRole::Observing } else { PeerRole::Following }
}
