//! What a member of an ensemble tells beyond what every server does, in `srvr`, `conf` and `mntr`.

use super::mntr::{MetricKind, MetricSink, Number};
use super::text::Text;
use crate::config::{Ensemble, Role};
use crate::metrics::QuorumCounters;

/// What `conf` tells of the ensemble's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnsembleFacts {
    pub init_limit_ticks: u32,
    pub sync_limit_ticks: u32,
    /// One for each address of this server.
    pub election_ports: Vec<u16>,
    pub quorum_ports: Vec<u16>,
    pub is_observer: bool,
}

impl EnsembleFacts {
    pub fn of(ensemble: &Ensemble) -> EnsembleFacts {
        let own = ensemble.own();
        EnsembleFacts {
            init_limit_ticks: ensemble.init_limit_ticks,
            sync_limit_ticks: ensemble.sync_limit_ticks,
            election_ports: own.addresses.iter().map(|address| address.election_port).collect(),
            quorum_ports: own.addresses.iter().map(|address| address.quorum_port).collect(),
            is_observer: own.role == Role::Observer,
        }
    }
}

/// What a server is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerRole {
    #[default]
    Looking,
    Leading,
    Following,
    Observing,
}

/// How far it has come in that. Source: ZooKeeper `QuorumPeer.ZabState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeerPhase {
    #[default]
    Election,
    Discovery,
    /// With the way it is brought up to date, once that is known.
    Synchronization(Option<SyncMode>),
    Broadcast,
}

/// Source: ZooKeeper `QuorumPeer.SyncMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    Diff,
    Snap,
    Trunc,
}

/// A member's part of a report.
#[derive(Debug, Clone, Default)]
pub struct EnsembleReport {
    pub role: PeerRole,
    pub phase: PeerPhase,
    /// Participants of the configuration in force.
    pub voters: u32,
    /// The configuration in force, in its canonical text.
    pub membership: String,
    /// Of a leader.
    pub leader: Option<LeaderReport>,
    /// The leader, while one is known: this server or another.
    pub leader_id: Option<i64>,
    /// Of an observer: the server it follows. Source: ZooKeeper `ObserverZooKeeperServer#getState`.
    pub observer_master_id: Option<i64>,
    pub counters: QuorumCounters,
}

/// What only a leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderReport {
    /// Servers that follow, voting or not, brought up to date or not.
    pub learners: u64,
    /// Up to date: voters (without the leader), servers that neither vote nor are observers, observers.
    pub synced_followers: u64,
    pub synced_non_voting_followers: u64,
    pub synced_observers: u64,
    /// `sync` requests that wait.
    pub pending_syncs: u64,
    /// Since it began to lead.
    pub uptime_ms: u64,
    /// Bytes of proposals; -1 before the first. Source: ZooKeeper `BufferStats`.
    pub proposal_bytes_last: i64,
    pub proposal_bytes_min: i64,
    pub proposal_bytes_max: i64,
}

impl Default for LeaderReport {
    fn default() -> LeaderReport {
        LeaderReport {
            learners: 0,
            synced_followers: 0,
            synced_non_voting_followers: 0,
            synced_observers: 0,
            pending_syncs: 0,
            uptime_ms: 0,
            proposal_bytes_last: -1,
            proposal_bytes_min: -1,
            proposal_bytes_max: -1,
        }
    }
}

impl EnsembleReport {
    /// As in `following - synchronization - diff`. Source: ZooKeeper `QuorumPeer#getDetailedPeerState`.
    pub fn state(&self) -> String {
        let role = match self.role {
            PeerRole::Looking => return "looking".to_owned(),
            PeerRole::Leading => "leading",
            PeerRole::Following => "following",
            PeerRole::Observing => "observing",
        };
        let phase = match self.phase {
            PeerPhase::Election => "election",
            PeerPhase::Discovery => "discovery",
            PeerPhase::Synchronization(None) => "synchronization",
            PeerPhase::Synchronization(Some(SyncMode::Diff)) => "synchronization - diff",
            PeerPhase::Synchronization(Some(SyncMode::Snap)) => "synchronization - snap",
            PeerPhase::Synchronization(Some(SyncMode::Trunc)) => "synchronization - trunc",
            PeerPhase::Broadcast => "broadcast",
        };
        format!("{role} - {phase}")
    }

    /// The phase alone. Source: ZooKeeper `QuorumPeer.ZabState`, in small letters.
    pub fn zab_state(&self) -> &'static str {
        match self.phase {
            _ if self.role == PeerRole::Looking => "election",
            PeerPhase::Election => "election",
            PeerPhase::Discovery => "discovery",
            PeerPhase::Synchronization(_) => "synchronization",
            PeerPhase::Broadcast => "broadcast",
        }
    }

    /// What stands behind `server_state`.
    /// Source: ZooKeeper `QuorumZooKeeperServer#dumpMonitorValues`, `ObserverZooKeeperServer`.
    pub fn head(&self) -> Vec<(&'static str, String)> {
        let mut head = vec![("peer_state", self.state())];
        head.extend(self.observer_master_id.map(|id| ("observer_master_id", id.to_string())));
        head
    }
}

/// Source: ZooKeeper `StatCommand`.
pub(super) fn srvr(text: &mut Text, report: &EnsembleReport) {
    if let Some(leader) = &report.leader {
        text.line(&format!(
            "Proposal sizes last/min/max: {}/{}/{}",
            leader.proposal_bytes_last, leader.proposal_bytes_min, leader.proposal_bytes_max
        ));
    }
}

/// Source: ZooKeeper `ZooKeeperServerConf`, `QuorumZooKeeperServer#dumpConf`.
pub(super) fn conf(text: &mut Text, facts: &EnsembleFacts, report: &EnsembleReport) {
    let joined = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join("|");
    text.line(&format!("initLimit={}", facts.init_limit_ticks));
    text.line(&format!("syncLimit={}", facts.sync_limit_ticks));
    text.line("electionAlg=3");
    text.line(&format!("electionPort={}", joined(&facts.election_ports)));
    text.line(&format!("quorumPort={}", joined(&facts.quorum_ports)));
    text.line(&format!("peerType={}", u8::from(facts.is_observer)));
    text.line("membership: ");
    text.push(&report.membership);
}

/// Source: ZooKeeper `QuorumPeer`, `LeaderZooKeeperServer#registerMetrics`.
pub(super) fn gauges(sink: &mut dyn MetricSink, report: &EnsembleReport) {
    let mut gauge = |name: &str, value: i64| sink.value(MetricKind::Gauge, name, Number::Whole(value));
    gauge("quorum_size", i64::from(report.voters));
    let Some(leader) = &report.leader else { return };
    for (name, value) in [
        ("learners", leader.learners),
        // As 3.5 called it; old checks ask for it.
        ("followers", leader.learners),
        ("synced_followers", leader.synced_followers),
        ("synced_non_voting_followers", leader.synced_non_voting_followers),
        ("synced_observers", leader.synced_observers),
        ("pending_syncs", leader.pending_syncs),
        ("leader_uptime", leader.uptime_ms),
    ] {
        gauge(name, i64::try_from(value).unwrap_or(i64::MAX));
    }
    gauge("last_proposal_size", leader.proposal_bytes_last);
    gauge("max_proposal_size", leader.proposal_bytes_max);
    gauge("min_proposal_size", leader.proposal_bytes_min);
}

/// Zeros where there is no ensemble, so that panels show 0 and not "no data".
pub(super) fn counters(sink: &mut dyn MetricSink, counters: &QuorumCounters) {
    for (name, value) in [
        ("looking_count", counters.lookings),
        ("diff_count", counters.diffs),
        ("snap_count", counters.snaps),
        ("proposal_count", counters.proposals),
        ("commit_count", counters.commits),
        ("learner_proposal_received_count", counters.proposals_received),
        ("learner_commit_received_count", counters.commits_received),
        ("revalidate_count", counters.revalidations_asked),
        ("connection_revalidate_count", counters.revalidations),
    ] {
        sink.value(MetricKind::Counter, name, Number::count(value));
    }
}

pub(super) fn summaries(sink: &mut dyn MetricSink, counters: &QuorumCounters) {
    for (name, tally) in [
        ("election_time", &counters.election_ms),
        ("unavailable_time", &counters.unavailable_ms),
        ("leader_unavailable_time", &counters.leader_unavailable_ms),
        ("follower_sync_time", &counters.follower_sync_ms),
        ("observer_sync_time", &counters.observer_sync_ms),
        ("inflight_snap_count", &counters.snaps_in_flight),
        ("inflight_diff_count", &counters.diffs_in_flight),
    ] {
        sink.basic(name, tally, None, 1);
    }
}

pub(super) fn detailed(sink: &mut dyn MetricSink, counters: &QuorumCounters) {
    for (name, latency) in [
        ("propagation_latency", &counters.propagation_latency),
        ("proposal_latency", &counters.proposal_latency),
        ("quorum_ack_latency", &counters.quorum_ack_latency),
        ("commit_propagation_latency", &counters.commit_propagation_latency),
    ] {
        sink.detailed(name, Some(latency), 1000);
    }
}
