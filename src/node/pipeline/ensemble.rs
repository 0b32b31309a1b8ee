//! A server's part in its ensemble: it looks for a leader, learns from one, or leads.
//!
//! | Role | What goes on | Then |
//! |------|--------------|------|
//! | settling | the log finishes what was appended, so that the vote tells what is durable | looking |
//! | looking | votes go round | leading, or dialling the leader |
//! | dialling | the quorum port of the elected is tried | learning, or settling |
//! | learning | [`Learner`]: synchronised, then told what to log and what to apply | settling |
//! | leading | [`Leader`]: synchronises others, counts their acks | settling |
//!
//! Log, tree and the entries between them outlive the roles. What is in the log and not known to be committed stays in the queue,
//! unapplied (S2): the next leader decides about it. Clients are served only by a server whose role has come that far (O3).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::feed::Feed;
use super::leading::LearnerRequest;
use super::learning::Learning;
use super::local::LocalSessions;
use super::reconfig::Memberships;
use super::{Item, Output, Pipeline};
use crate::config::{MemberAddress, Membership};
use crate::node::link::{PipelineLink, Serving, ToFront, ToPipeline};
use crate::node::storage_work::{StorageEvent, StorageWork};
use crate::request::apply::Fit;
use crate::request::prepare::Preparer;
use crate::types::{Epoch, Instant, Now, ServerId, SessionId, Zxid};
use crate::zab::election::ElectionOptions;
use crate::zab::election::UNTRUSTED;
use crate::zab::leader::{Leader, LeaderOptions, LeaderStart};
use crate::zab::learner::Phase;
use crate::zab::mesh::MeshOptions;
use crate::zab::recent::{ENTRIES_MAX, Recent};
use crate::zab::voting::{Outcome, Voting};
use crate::zab::{Epochs, PeerAddress, PeerConn, PeerEvent, PeerPort, PeerWork, Standing, leader};

/// Between two attempts to reach the elected, who may not know of its election yet.
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(25);
/// Servers that are no members and may ask for the leader, where a reconfiguration could make them some.
const STRANGERS_MAX: usize = 32;
/// How long a server whom a reconfiguration has designated is tried before there is an election.
const APPOINTED_WAIT: Duration = Duration::from_secs(1);
/// Connections that wait for the end of an election, and the bytes of one of them: a learner sends 40 before it hears anything.
const PARKED_MAX: usize = 256;
const PARKED_BYTES_MAX: usize = 1024;
/// A server whose roles end before they have come to anything waits for at most so long before it tries again.
const FAILURE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Rounds in which the parts of one turn answer one another before the rest waits for the next.
const ROUNDS_MAX: usize = 64;

/// What a member of an ensemble depends on besides what every server does.
#[derive(Debug, Clone)]
pub struct EnsembleOptions {
    pub me: ServerId,
    /// Learns without a vote.
    pub observer: bool,
    pub membership: Membership,
    pub election: ElectionOptions,
    pub mesh: MeshOptions,
    pub leader: LeaderOptions,
    pub tick: Duration,
    /// In ticks: to reach a leader and be synchronised.
    pub init_limit: u32,
    /// In ticks: how long a peer may be silent.
    pub sync_limit: u32,
    /// `leaderServes`.
    pub leader_serves: bool,
    /// `standaloneEnabled`: reconfigurations leave at least two voters.
    pub standalone_enabled: bool,
    /// As the data directory has them.
    pub epochs: Epochs,
    /// As the data directory has it, before the first synchronisation.
    pub standing: Standing,
    /// Bytes of recent entries kept for learners that come back.
    pub recent_bytes_max: usize,
    pub modes: Modes,
    /// Bytes of a history that may wait for its leader's NEWLEADER.
    pub staged_bytes_max: usize,
    /// Seeds of the tables of a database that is received.
    pub hash_seed: u64,
    /// `tickTime`, which sessions end on.
    pub tick_ms: u32,
}

/// What not every member does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Modes {
    /// `snapshotSizeFactor`: a learner gets a part of the log rather than a snapshot as long as that is no longer than so much of it.
    /// Zero sets no limit; negative is never.
    pub snapshot_size_factor: f64,
    /// `readonlymode.enabled`: reads are served where no leader is to be found for long.
    pub read_only: bool,
    /// `localSessionsEnabled`: sessions of this server's clients are known to it alone.
    pub local_sessions: bool,
    /// `localSessionsUpgradingEnabled`: until they want an ephemeral node.
    pub local_sessions_upgrade: bool,
    /// `syncEnabled=false`: an observer writes nothing to its disk. When it begins anew, it is brought up to date from what was there before.
    pub diskless: bool,
}

impl Default for Modes {
    fn default() -> Modes {
        Modes {
            snapshot_size_factor: 0.33,
            read_only: false,
            local_sessions: false,
            local_sessions_upgrade: false,
            diskless: false,
        }
    }
}

/// How long a server looks for a leader before it serves reads, at least; else a tick.
/// Source: ZooKeeper `QuorumPeer#run`, case LOOKING.
const READ_ONLY_AFTER_MIN: Duration = Duration::from_millis(2000);

/// Who a connection to a peer belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// Parked: it came to the quorum port while this server was looking.
    Nobody,
    Mesh,
    Leader,
    Learner,
}

/// What this server does in its ensemble.
pub(super) enum Role {
    Settling,
    Looking,
    Dialling(Dialling),
    Learning(Box<Learning>),
    Leading(Box<Leading>),
}

/// A connection to the quorum port that waits for this server to know whether it leads.
struct Parked {
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// On the way to the elected.
#[derive(Debug)]
pub(super) struct Dialling {
    leader: ServerId,
    conn: Option<PeerConn>,
    next: Instant,
    until: Instant,
}

/// A reign.
pub(super) struct Leading {
    pub machine: Leader,
    pub since: Instant,
    /// A quorum follows; the history is committed and being applied.
    established: Option<Epoch>,
    /// Everything is applied: requests become transactions.
    pub reigns: bool,
    /// Through which learner a session speaks, if not through a front here.
    pub owners: BTreeMap<SessionId, PeerConn>,
    /// Sessions whose beginning is proposed and not applied, and whether their end is proposed, too.
    pub beginning: BTreeMap<SessionId, bool>,
    pub feed: Feed,
    /// Learners' requests that wait for room, in the order they came.
    pub early: VecDeque<LearnerRequest>,
    pub early_bytes: usize,
    /// A part of the log is being read for learners.
    pub reads_log: bool,
    /// The counter of the epoch is nearly used up.
    resigning: bool,
    /// By the membership in force since then another is to lead.
    pub deposed_at: Option<Zxid>,
}

pub(super) struct Ensemble {
    pub options: EnsembleOptions,
    pub voting: Voting,
    pub recent: Recent,
    pub epochs: Epochs,
    /// No longer that of the start once this server was synchronised.
    standing: Standing,
    pub role: Role,
    peers: BTreeMap<PeerConn, Whose>,
    parked: BTreeMap<PeerConn, Parked>,
    dial_next: u32,
    /// Who leads, as far as this server knows.
    pub leader: Option<ServerId>,
    /// A whole snapshot is to be asked for, if the leader is still that of this epoch; until a leader has brought this server up to date.
    pub snap_wanted: Option<Epoch>,
    /// Its vote does not count in this election.
    abstains: bool,
    /// What is known to be committed: no leader may cut that (S5).
    pub decided: Zxid,
    /// Roles in a row that ended before this server served.
    failures: u32,
    /// No role begins before.
    not_before: Option<Instant>,
    /// When reads are to be served if there is no leader by then.
    pub read_only_at: Option<Instant>,
    /// What the last role told its machine to be durable.
    pub durable_told: Zxid,
    /// Answers of the disk that an earlier reign asked for: they come first, and mean nothing any more.
    pub log_reads_void: u32,
    /// Answers that clients of a role that ended are owed.
    pub outbox: VecDeque<(usize, ToFront)>,
    pub memberships: Memberships,
}

impl Ensemble {
    fn new(options: EnsembleOptions, zxid_last: Zxid) -> Ensemble {
        let mut recent = Recent::new(ENTRIES_MAX, options.recent_bytes_max);
        recent.reset(zxid_last);
        Ensemble {
            voting: Voting::new(options.election.clone(), options.mesh.clone(), &options.membership),
            recent,
            epochs: options.epochs,
            standing: options.standing,
            role: Role::Settling,
            peers: BTreeMap::new(),
            parked: BTreeMap::new(),
            dial_next: 1,
            leader: None,
            snap_wanted: None,
            abstains: false,
            decided: Zxid::ZERO,
            failures: 0,
            not_before: None,
            read_only_at: None,
            durable_told: zxid_last,
            log_reads_void: 0,
            outbox: VecDeque::new(),
            memberships: Memberships::default(),
            options,
        }
    }

    /// Whether what this server had may be lost: it is empty, and others are not, or it was told not to found anything.
    fn has_no_standing(&self) -> bool {
        match self.standing {
            Standing::Full => false,
            Standing::Empty { may_found } => !may_found || self.voting.others_have_data(),
        }
    }

    /// Begins to wait for a leader before reads are served without.
    fn await_leader(&mut self, now: Instant) {
        let wait = self.options.tick.max(READ_ONLY_AFTER_MIN);
        self.read_only_at = self.options.modes.read_only.then(|| now + wait);
    }

    /// What is here is known to differ from what a leader has.
    pub fn is_to_be_refetched(&self) -> bool {
        self.snap_wanted.is_some()
    }

    /// Numbers of dials here are odd, those of the mesh even.
    fn next_dial(&mut self) -> PeerConn {
        let conn = PeerConn(self.dial_next);
        self.dial_next = (self.dial_next + 2) & !PeerConn::ACCEPTED;
        conn
    }

    fn quorum_addresses(&self, of: ServerId) -> Vec<PeerAddress> {
        let address = |a: &MemberAddress| PeerAddress { host: a.host.clone(), port: a.quorum_port };
        let mut addresses: Vec<PeerAddress> = Vec::new();
        for member in self.known_memberships().filter_map(|membership| membership.member(of)) {
            for address in member.addresses.iter().map(address) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        addresses
    }

    fn next_timer(&self) -> Option<Instant> {
        let role = match &self.role {
            Role::Settling => self.not_before,
            Role::Looking => self.read_only_at,
            Role::Dialling(dialling) if dialling.conn.is_none() => Some(dialling.next),
            Role::Dialling(dialling) => Some(dialling.until),
            Role::Learning(learning) => learning.machine.next_timer(),
            Role::Leading(leading) => leading.machine.next_timer(),
        };
        [self.voting.next_timer(), role].into_iter().flatten().min()
    }
}

impl<L: PipelineLink> Pipeline<L> {
    /// Makes this server a member of an ensemble. Before its first turn; its fronts serve nobody yet.
    pub fn in_ensemble(mut self, mut options: EnsembleOptions) -> Pipeline<L> {
        if self.options.prepare.reconfig {
            options.mesh.strangers_max = STRANGERS_MAX;
        }
        let zxid_last = self.log.zxid_appended();
        self.zxid_committed = self.database.zxid_applied();
        self.serving = Serving::No;
        self.fit = Fit::Fuzzy;
        let (now, modes) = (self.now.instant, options.modes);
        self.local = modes.local_sessions.then(|| {
            let upgrades = modes.local_sessions_upgrade;
            Box::new(LocalSessions::new(options.tick_ms, options.hash_seed, upgrades, now))
        });
        if modes.diskless {
            assert!(options.observer, "a server that votes keeps what it promised");
            self.snapshots.only_installs();
        }
        let mut ensemble = Ensemble::new(options, zxid_last);
        ensemble.await_leader(now);
        self.ensemble = Some(Box::new(ensemble));
        self.recall_membership();
        self
    }

    /// What recovery found last in the log, so that learners need no snapshot because this server began anew.
    /// Panics if that is not where the log ends.
    pub fn with_recent(mut self, recent: Recent) -> Pipeline<L> {
        let ensemble = self.ensemble.as_deref_mut().expect("only a member has learners");
        assert!(
            recent.last() == self.log.zxid_appended(),
            "the newest entries end at {}, the log at {}",
            recent.last(),
            self.log.zxid_appended()
        );
        ensemble.recent = recent;
        self
    }

    /// Where this server stands, in a line for whoever looks for a fault.
    pub fn describe(&self) -> String {
        let Some(ensemble) = self.ensemble.as_deref() else { return "alone".to_owned() };
        let role = match &ensemble.role {
            Role::Settling => "settling".to_owned(),
            Role::Looking => format!("looking: {:?}", ensemble.voting.election().current()),
            Role::Dialling(dialling) => format!("{dialling:?}"),
            Role::Learning(learning) => format!("learning: {:?}", learning.machine.phase()),
            Role::Leading(leading) => {
                format!("leading epoch {}, reigns {}", leading.machine.epoch().0, leading.reigns)
            }
        };
        format!(
            "{role}; {:?}; appended {}, durable {}, committed {}, applied {}; {} items, {} local, {} outbox; serving {:?}",
            ensemble.epochs,
            self.log.zxid_appended(),
            self.zxid_durable,
            self.zxid_committed,
            self.database.zxid_applied(),
            self.queue.len(),
            self.local_count(),
            ensemble.outbox.len(),
            self.serving
        )
    }

    /// Whether clients are served here.
    pub fn serving(&self) -> Serving {
        self.serving
    }

    /// Whether this server is the leader of its ensemble and a quorum follows it.
    pub fn leads(&self) -> bool {
        self.ensemble.is_some() && self.makes_transactions()
    }

    /// Something happened on a connection to a peer.
    pub fn peer(&mut self, now: Now, conn: PeerConn, event: PeerEvent<'_>) {
        self.now = now;
        let Some(ensemble) = self.ensemble.as_deref_mut() else {
            if matches!(event, PeerEvent::Accepted { .. }) {
                self.owed.push(Output::Peer(PeerWork::Close { conn }));
            }
            return;
        };
        if let PeerEvent::Accepted { port, from } = event {
            match (port, &mut ensemble.role) {
                (PeerPort::Election, _) => {
                    ensemble.peers.insert(conn, Whose::Mesh);
                    ensemble.voting.event(now.instant, conn, event);
                }
                (PeerPort::Quorum, Role::Leading(leading)) => {
                    ensemble.peers.insert(conn, Whose::Leader);
                    leading.machine.event(now.instant, conn, event, &ensemble.recent);
                }
                // Others may know before this server that it is elected.
                (PeerPort::Quorum, Role::Settling | Role::Looking) if ensemble.parked.len() < PARKED_MAX => {
                    ensemble.peers.insert(conn, Whose::Nobody);
                    ensemble.parked.insert(conn, Parked { from, bytes: Vec::new() });
                }
                // Only a leader is to be found there; whoever came tries again or elsewhere.
                (PeerPort::Quorum, _) => {
                    tracing::debug!(%from, "closing a learner's connection: this server does not lead");
                    self.owed.push(Output::Peer(PeerWork::Close { conn }));
                }
            }
            return;
        }
        let Some(&whose) = ensemble.peers.get(&conn) else { return };
        if event == PeerEvent::Closed {
            ensemble.peers.remove(&conn);
        }
        match (whose, &mut ensemble.role) {
            (Whose::Mesh, _) => ensemble.voting.event(now.instant, conn, event),
            (Whose::Leader, Role::Leading(leading)) => {
                leading.machine.event(now.instant, conn, event, &ensemble.recent);
            }
            (Whose::Learner, Role::Dialling(dialling)) => match event {
                PeerEvent::Connected => self.begin_learning(conn),
                PeerEvent::Closed => dialling.conn = None,
                _ => {}
            },
            (Whose::Learner, Role::Learning(learning)) => match event {
                PeerEvent::Received(bytes) => {
                    learning.machine.received(now.instant, bytes, &mut learning.loader)
                }
                PeerEvent::Sent(count) => learning.machine.sent(count),
                PeerEvent::Closed if learning.machine.phase() == Phase::Discovery => self.dial_again(),
                PeerEvent::Closed => {
                    self.hear_out();
                    if self.is_learning() {
                        self.look("the leader's connection is closed");
                    }
                }
                PeerEvent::Connected | PeerEvent::Accepted { .. } => {}
            },
            (Whose::Nobody, _) => {
                let Some(parked) = ensemble.parked.get_mut(&conn) else { return };
                match event {
                    PeerEvent::Received(bytes) if parked.bytes.len() + bytes.len() <= PARKED_BYTES_MAX => {
                        parked.bytes.extend_from_slice(bytes);
                    }
                    PeerEvent::Received(_) => {
                        ensemble.parked.remove(&conn);
                        ensemble.peers.remove(&conn);
                        self.owed.push(Output::Peer(PeerWork::Close { conn }));
                    }
                    PeerEvent::Closed => {
                        ensemble.parked.remove(&conn);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// The leader is gone: what it said before still counts, and who waits for that is answered.
    fn hear_out(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.is_learning() || !self.role_step() {
                break;
            }
        }
        if self.is_learning() {
            self.apply_durable();
        }
    }

    /// The elected has not begun to lead, or has seen reason to close: it is tried again for a while.
    fn dial_again(&mut self) {
        let now = self.now.instant;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        if let Role::Learning(learning) = &ensemble.role {
            let (leader, until) = (learning.leader, learning.dial_until);
            ensemble.role =
                Role::Dialling(Dialling { leader, conn: None, next: now + DIAL_AGAIN_AFTER, until });
        }
    }

    /// What the disk has done for the ensemble.
    pub(super) fn storage_event(&mut self, event: StorageEvent) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let now = self.now.instant;
        match event {
            StorageEvent::EpochsWritten(epochs) => {
                assert!(
                    epochs.accepted >= ensemble.epochs.accepted && epochs.current >= ensemble.epochs.current,
                    "epochs went back from {:?} to {epochs:?}",
                    ensemble.epochs
                );
                ensemble.epochs = epochs;
                if epochs.current.0 > 0 {
                    // Synchronised, or the first leader of a new ensemble.
                    ensemble.standing = Standing::Full;
                }
                match &mut ensemble.role {
                    Role::Learning(learning) => learning.machine.epochs_written(now, epochs),
                    Role::Leading(leading) => {
                        leading.machine.epochs_written(now, epochs, &ensemble.recent);
                    }
                    _ => {}
                }
            }
            StorageEvent::MembershipWritten => {}
            StorageEvent::LogRead(read) => self.log_read(read.range, Some(read.entries)),
            StorageEvent::CannotReadLog { range, reason } => {
                tracing::info!("no difference from the log: {reason}");
                self.log_read(range, None);
            }
            StorageEvent::Rebuilt(_) | StorageEvent::CannotRebuild { .. } => self.rebuilt(event),
        }
    }

    /// Moves everything on that has to do with the ensemble.
    pub(super) fn ensemble_turn(&mut self) {
        if self.ensemble.is_none() {
            return;
        }
        self.send_outbox();
        self.finish_install();
        if std::mem::take(&mut self.diverged)
            && let Some(learning) = self.learning()
        {
            learning.refetch = learning.machine.epoch();
            self.look("the tree differs from the leader's");
        }
        self.ensemble_timers();
        for _ in 0..ROUNDS_MAX {
            let mut is_busy = self.votes();
            is_busy |= self.role_step();
            if !is_busy {
                return;
            }
        }
        self.has_more = true;
    }

    pub(super) fn ensemble_timer(&self) -> Option<Instant> {
        self.ensemble.as_ref().and_then(|ensemble| ensemble.next_timer())
    }

    /// Whether this server makes transactions: alone, or as a leader that has come so far.
    pub(super) fn makes_transactions(&self) -> bool {
        match self.ensemble.as_deref() {
            None => true,
            Some(Ensemble { role: Role::Leading(leading), .. }) => {
                leading.reigns && !leading.resigning && leading.deposed_at.is_none()
            }
            Some(_) => false,
        }
    }

    /// Up to where entries may be applied: committed, and durable here (S2).
    pub(super) fn zxid_applicable(&self) -> Zxid {
        match &self.ensemble {
            None => self.zxid_durable,
            Some(_) => self.zxid_durable.min(self.zxid_committed),
        }
    }

    /// An entry this server made is in its log: it goes to the learners.
    pub(super) fn proposed(&mut self, zxid: Zxid, entry: &bytes::Bytes) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        ensemble.recent.push(zxid, entry.clone());
        match &mut ensemble.role {
            Role::Leading(leading) => {
                leading.machine.propose(self.now.instant, zxid, entry);
                leading.resigning |=
                    leading.machine.counter_used_up() || zxid.counter() >= super::RESIGN_AT_COUNTER;
            }
            _ => unreachable!("only a leader makes transactions"),
        }
        self.propose_prepared(zxid);
    }

    fn ensemble_timers(&mut self) {
        let now = self.now.instant;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        ensemble.voting.on_timer(now);
        match &mut ensemble.role {
            Role::Settling => {}
            Role::Looking => {
                if ensemble.read_only_at.is_some_and(|at| at <= now) {
                    self.serve_read_only();
                }
            }
            Role::Learning(learning) => learning.machine.on_timer(now),
            Role::Leading(leading) => leading.machine.on_timer(now),
            Role::Dialling(dialling) => {
                if now >= dialling.until {
                    self.look("the elected leader cannot be reached");
                } else if dialling.conn.is_none() && now >= dialling.next {
                    dialling.next = now + DIAL_AGAIN_AFTER;
                    let to = dialling.leader;
                    let conn = ensemble.next_dial();
                    if let Role::Dialling(dialling) = &mut ensemble.role {
                        dialling.conn = Some(conn);
                    }
                    ensemble.peers.insert(conn, Whose::Learner);
                    let addresses = ensemble.quorum_addresses(to);
                    let work = PeerWork::Dial { conn, port: PeerPort::Quorum, to, addresses };
                    self.owed.push(Output::Peer(work));
                }
            }
        }
    }

    /// What the election did. Whether there was anything.
    fn votes(&mut self) -> bool {
        let now = self.now.instant;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return false };
        let (mut work, mut outcomes) = (Vec::new(), Vec::new());
        ensemble.voting.drain(&mut work, &mut outcomes);
        for work in work {
            match &work {
                PeerWork::Dial { conn, .. } => {
                    ensemble.peers.insert(*conn, Whose::Mesh);
                }
                PeerWork::Close { conn } => {
                    ensemble.peers.remove(conn);
                }
                PeerWork::Send { .. } => {}
            }
            self.owed.push(Output::Peer(work));
        }
        let is_busy = !outcomes.is_empty();
        for outcome in outcomes {
            match outcome {
                Outcome::Elected { leader, .. } => self.elected(leader),
                Outcome::Deserted { voter } => {
                    if let Some(leading) = self.leading() {
                        leading.machine.looking(now, voter);
                    }
                }
                Outcome::Membership(membership) => self.heard_membership(*membership),
            }
        }
        is_busy
    }

    fn elected(&mut self, leader: ServerId) {
        let now = self.now.instant;
        let zxid_last = self.log.zxid_appended();
        let raises_version = self.options.prepare.reconfig;
        let ensemble = self.ensemble.as_deref_mut().expect("an election is held in an ensemble");
        if !matches!(ensemble.role, Role::Looking) {
            return;
        }
        self.surveys.chronicle.elected(now);
        ensemble.read_only_at = None;
        self.stop_serving();
        let ensemble = self.ensemble.as_deref_mut().expect("as just seen");
        ensemble.leader = Some(leader);
        ensemble.durable_told = zxid_last;
        let me = ensemble.options.me;
        if leader == me {
            let start = LeaderStart { epochs: ensemble.epochs, zxid_last };
            let machine = Leader::new(ensemble.leader_options(raises_version), start, now);
            ensemble.role = Role::Leading(Box::new(Leading {
                machine,
                since: now,
                established: None,
                reigns: false,
                owners: BTreeMap::new(),
                beginning: BTreeMap::new(),
                feed: Feed::default(),
                early: VecDeque::new(),
                early_bytes: 0,
                reads_log: false,
                resigning: false,
                deposed_at: None,
            }));
            self.unpark(true);
        } else {
            let until = now + ensemble.options.tick * ensemble.options.init_limit;
            ensemble.role = Role::Dialling(Dialling { leader, conn: None, next: now, until });
            self.unpark(false);
            self.ensemble_timers();
        }
    }

    /// A reconfiguration has said who leads. Where that one is not to be found in a moment, an election decides after all.
    fn appointed(&mut self, leader: ServerId, zxid: Zxid) {
        let now = self.now.instant;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        ensemble.voting.appoint(now, leader, zxid);
        self.votes();
        if let Some(Ensemble { role: Role::Dialling(dialling), .. }) = self.ensemble.as_deref_mut() {
            dialling.until = dialling.until.min(now + APPOINTED_WAIT);
        }
    }

    /// Those who came during the election are learners of this server's, or wrong here.
    fn unpark(&mut self, leads: bool) {
        let now = self.now;
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        for (conn, Parked { from, bytes }) in std::mem::take(&mut ensemble.parked) {
            match &mut ensemble.role {
                Role::Leading(leading) if leads => {
                    ensemble.peers.insert(conn, Whose::Leader);
                    let accepted = PeerEvent::Accepted { port: PeerPort::Quorum, from };
                    leading.machine.event(now.instant, conn, accepted, &ensemble.recent);
                    leading.machine.event(now.instant, conn, PeerEvent::Received(&bytes), &ensemble.recent);
                }
                _ => {
                    ensemble.peers.remove(&conn);
                    self.owed.push(Output::Peer(PeerWork::Close { conn }));
                }
            }
        }
    }

    fn begin_learning(&mut self, conn: PeerConn) {
        let zxid_last = self.log.zxid_appended();
        let ensemble = self.ensemble.as_deref_mut().expect("a leader was dialled in an ensemble");
        let Role::Dialling(Dialling { leader, until, .. }) = ensemble.role else { return };
        let learning = Learning::new(
            &ensemble.options,
            (leader, conn, until),
            ensemble.epochs,
            zxid_last,
            ensemble.snap_wanted,
            ensemble.has_no_standing(),
            self.options.prepare.entry_bytes_max,
            self.now.instant,
        );
        ensemble.role = Role::Learning(Box::new(learning));
    }

    /// One step of the role there is. Whether anything was done.
    fn role_step(&mut self) -> bool {
        let now = self.now.instant;
        let (durable, is_idle) = (self.zxid_durable, self.log.is_idle());
        let zxid_last = self.log.zxid_appended();
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return false };
        let has_no_standing = ensemble.has_no_standing();
        match &mut ensemble.role {
            Role::Settling => {
                // The vote tells what is durable; what is being written is so in a moment.
                let is_changing = self.install.is_some() || self.rebuilding || self.log.is_cutting();
                if !is_idle || durable != zxid_last || is_changing || self.stopping {
                    return false;
                }
                if ensemble.not_before.is_some_and(|not_before| now < not_before) {
                    return false;
                }
                ensemble.not_before = None;
                if !ensemble.outbox.is_empty() {
                    return false;
                }
                let (modes, me) = (ensemble.options.modes, ensemble.options.me);
                assert!(
                    !modes.diskless || !ensemble.options.membership.is_voter(me),
                    "this server was made a voter and has syncEnabled=false: it has to begin anew, with a disk"
                );
                tracing::debug!("the log is settled at {zxid_last}");
                self.surveys.chronicle.looks(now);
                ensemble.role = Role::Looking;
                ensemble.leader = None;
                if let Some((leader, zxid)) = ensemble.memberships.designated.take() {
                    self.appointed(leader, zxid);
                    return true;
                }
                ensemble.abstains = has_no_standing;
                let zxid = if ensemble.abstains { UNTRUSTED } else { zxid_last };
                ensemble.voting.look(now, zxid, ensemble.epochs.current);
                self.adopt_heard();
                true
            }
            // An empty server has seen that this is not a new ensemble: its vote is void (S9).
            Role::Looking if !ensemble.abstains && has_no_standing => {
                tracing::warn!(
                    "this server has no data and others have: it does not vote before it is synchronised"
                );
                ensemble.abstains = true;
                ensemble.voting.look(now, UNTRUSTED, ensemble.epochs.current);
                true
            }
            Role::Looking | Role::Dialling(_) => false,
            Role::Learning(learning) => {
                if durable > ensemble.durable_told {
                    ensemble.durable_told = durable;
                    learning.machine.durable(now, durable);
                }
                let mut outputs = Vec::new();
                learning.machine.drain(&mut outputs);
                let is_busy = !outputs.is_empty();
                for output in outputs {
                    self.learner_output(output);
                }
                self.learning_step() || is_busy
            }
            Role::Leading(leading) => {
                if durable > ensemble.durable_told {
                    ensemble.durable_told = durable;
                    leading.machine.durable(now, durable);
                }
                let mut outputs = Vec::new();
                leading.machine.drain(&mut outputs);
                let is_busy = !outputs.is_empty();
                for output in outputs {
                    self.leader_output(output);
                }
                self.leading_step() || is_busy
            }
        }
    }

    fn leader_output(&mut self, output: leader::Output) {
        let Some(Ensemble { role: Role::Leading(leading), peers, decided, .. }) =
            self.ensemble.as_deref_mut()
        else {
            return;
        };
        match output {
            leader::Output::Peer(work) => {
                if let PeerWork::Close { conn } = &work {
                    peers.remove(conn);
                }
                self.owed.push(Output::Peer(work));
            }
            leader::Output::WriteEpochs(epochs) => {
                self.owed.push(Output::Storage(StorageWork::WriteEpochs(epochs)));
            }
            leader::Output::Established { epoch } => {
                leading.established = Some(epoch);
                // A quorum has taken this history for its own: with that, all of it is committed.
                self.zxid_committed = self.log.zxid_appended();
                *decided = self.zxid_committed;
            }
            leader::Output::Committed(zxid) => {
                assert!(zxid >= self.zxid_committed, "committed went back to {zxid}");
                self.zxid_committed = zxid;
                *decided = zxid;
            }
            leader::Output::Activated { zxid, designated } => self.proposed_activated(zxid, designated),
            leader::Output::Request { conn, header, body, auth } => {
                self.learner_request(LearnerRequest { conn, header, body, auth });
            }
            leader::Output::Revalidate { conn, session, timeout_ms } => {
                self.learner_revalidates(conn, session, timeout_ms);
            }
            leader::Output::Touch { session, timeout_ms } => {
                self.database.sessions.set_timeout(session, timeout_ms);
                self.database.sessions.touch(session, self.now.instant);
            }
            // Its sessions stay its own until they ask elsewhere: what it sent before may still wait here, and must not come behind
            // what they ask there (C4).
            leader::Output::LearnerGone { .. } => {}
            leader::Output::Proved(proof) => self.proved = Some(proof),
            leader::Output::WantSnapshot => leading.feed.want(),
            leader::Output::ReadLog { after, through } => self.read_log(after, through),
            leader::Output::Resign { reason } => self.look(&reason),
        }
    }

    /// What a leader does besides answering: it begins to reign, feeds snapshots, and resigns in time.
    fn leading_step(&mut self) -> bool {
        let now = self.now.instant;
        let is_applied = self.queue.is_empty() && self.database.zxid_applied() == self.log.zxid_appended();
        let Some(Ensemble { role: Role::Leading(leading), recent, .. }) = self.ensemble.as_deref_mut() else {
            return false;
        };
        if leading.feed.step(&mut self.database, &self.snapshots, &mut leading.machine, recent, now) {
            self.has_more = true;
        }
        let early = self.serve_early();
        let Some(Ensemble { role: Role::Leading(leading), options, voting, .. }) =
            self.ensemble.as_deref_mut()
        else {
            return false;
        };
        if leading.deposed_at.is_some() {
            if self.is_deposed() {
                self.look("another server is to lead by the new configuration");
                return true;
            }
            return early;
        }
        if leading.resigning && self.queue.is_empty() {
            self.look("the counter of the epoch is used up: a new one is needed");
            return true;
        }
        let Some(epoch) = leading.established else { return early };
        if leading.reigns || !is_applied {
            return early;
        }
        leading.reigns = true;
        voting.set_epoch(now, epoch);
        let leader_serves = options.leader_serves;
        if !self.activate_at_reign(epoch) {
            self.look("another server is to lead by the configuration in force");
            return true;
        }
        self.preparer = Preparer::new(self.options.prepare.clone(), &self.database);
        self.preparer.begin_epoch(epoch);
        // Nobody knows when they were last heard from: all get their full time.
        self.database.sessions.forget_owners();
        self.database.sessions.restart_clocks(now);
        self.fit = Fit::Exact;
        tracing::info!("leading epoch {} after {}", epoch.0, self.database.zxid_applied());
        self.end_sessions_of_nobody();
        if leader_serves {
            self.serve();
        }
        true
    }

    /// Ends what a directory of ZooKeeper's may hold: ephemeral nodes of sessions that do not exist. By transactions, as every server
    /// has them (quorum-protocol §9.1, 23).
    fn end_sessions_of_nobody(&mut self) {
        for session in self.database.ephemerals().sessions() {
            if self.database.sessions.contains(session) {
                continue;
            }
            tracing::warn!(%session, "ending ephemeral nodes of session {session}, which does not exist");
            self.scratch.clear();
            let wall_ms = self.now.wall_ms;
            let zxid = self.preparer.close_session(&self.database, session, 0, wall_ms, &mut self.scratch);
            let entry = self.log_entry(zxid);
            self.queue.push_back(Item::Own { zxid, entry });
        }
    }

    /// Clients may come.
    pub(super) fn serve(&mut self) {
        if let Some(ensemble) = self.ensemble.as_deref_mut() {
            ensemble.failures = 0;
            let leads = matches!(ensemble.role, Role::Leading(_));
            self.surveys.chronicle.serves(self.now.instant, leads, ensemble.options.observer);
        }
        self.begin_to_serve(Serving::Yes);
    }

    pub(super) fn begin_to_serve(&mut self, serving: Serving) {
        assert!(self.serving == Serving::No, "{serving:?} after {:?}", self.serving);
        self.serving = serving;
        if let Some(local) = &mut self.local {
            local.served(self.now.instant);
        }
        for front in 0..self.links.len() {
            self.tell(front, ToFront::Serving(serving));
        }
    }

    /// All clients have to go; what they asked and is not begun is dropped.
    fn stop_serving(&mut self) {
        if self.serving != Serving::No {
            self.serving = Serving::No;
            for front in 0..self.links.len() {
                self.tell(front, ToFront::Serving(Serving::No));
            }
        }
        for (front, request) in self.requests.drain().collect::<Vec<_>>() {
            self.tell(front, ToFront::Dropped { conn: request.conn, op: request.op });
        }
        if let Some(local) = &mut self.local {
            local.unserved(self.now.instant);
        }
    }

    /// Tells a front something that was not asked for by a message of its own, for which there need not be room.
    pub(super) fn tell(&mut self, front: usize, message: ToFront) {
        match self.ensemble.as_deref_mut() {
            Some(ensemble) => {
                ensemble.outbox.push_back((front, message));
                self.send_outbox();
            }
            // A server alone speaks only when there is room.
            None => self.links[front].push(message),
        }
    }

    /// Leaves the role, whatever it was, and looks for a leader. Clients go; what they asked and was not done is refused.
    pub(super) fn look(&mut self, reason: &str) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        if self.stopping {
            tracing::info!("leaving the ensemble: {reason}");
        } else {
            tracing::warn!("looking for a leader again: {reason}");
        }
        // The first time at once: somebody has to lead. Who fails again and again waits, up to FAILURE_WAIT_MAX.
        if self.serving == Serving::No && !matches!(ensemble.role, Role::Settling) {
            let wait = DIAL_AGAIN_AFTER * (1 << ensemble.failures.min(16)) / 2;
            ensemble.not_before = Some(self.now.instant + wait.min(FAILURE_WAIT_MAX));
            ensemble.failures += 1;
        }
        let role = std::mem::replace(&mut ensemble.role, Role::Settling);
        self.surveys.chronicle.leaves(self.now.instant, self.serving == Serving::Yes);
        ensemble.leader = None;
        let is_roles = |whose: &Whose| matches!(whose, Whose::Leader | Whose::Learner);
        for (&conn, _) in ensemble.peers.iter().filter(|(_, whose)| is_roles(whose)) {
            self.owed.push(Output::Peer(PeerWork::Close { conn }));
        }
        ensemble.peers.retain(|_, whose| !is_roles(whose));
        ensemble.await_leader(self.now.instant);
        self.stop_serving();
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        let outbox = &mut ensemble.outbox;
        let mut entries = VecDeque::new();
        for item in self.queue.drain(..) {
            match item {
                Item::Write { zxid, entry, origin } => {
                    outbox.push_back(origin.dropped());
                    entries.push_back(Item::Own { zxid, entry });
                }
                Item::Open { zxid, entry, front, conn, .. } => {
                    outbox.push_back((front, ToFront::Refused { conn }));
                    entries.push_back(Item::Own { zxid, entry });
                }
                Item::Own { .. } => entries.push_back(item),
                Item::Refused { origin, .. } | Item::Sync { origin, .. } => {
                    outbox.push_back(origin.dropped())
                }
                Item::Read { front, request } => {
                    outbox.push_back((front, ToFront::Dropped { conn: request.conn, op: request.op }));
                }
            }
        }
        self.queue = entries;
        match role {
            Role::Learning(mut learning) => {
                learning.local.drain(outbox);
                if let Some(epoch) = learning.refetch {
                    ensemble.snap_wanted = Some(epoch);
                }
            }
            Role::Leading(mut leading) => {
                self.surveys.chronicle.reigned(leading.machine.counters());
                leading.feed.abandon(&mut self.database);
                ensemble.log_reads_void += u32::from(leading.reads_log);
            }
            Role::Settling | Role::Looking | Role::Dialling(_) => {}
        }
        self.proved = None;
        self.fit = Fit::Fuzzy;
        self.database.sessions.forget_owners();
        self.send_outbox();
    }

    /// Hands out the answers that clients of an ended role are owed, as far as there is room.
    pub(super) fn send_outbox(&mut self) {
        let Some(ensemble) = self.ensemble.as_deref_mut() else { return };
        while let Some((front, _)) = ensemble.outbox.front() {
            if self.links[*front].room() < super::ROOM_PER_ITEM {
                self.has_more = true;
                return;
            }
            let (front, message) = ensemble.outbox.pop_front().expect("there is a front");
            self.links[front].push(message);
        }
    }

    /// Whether messages of fronts wait until others have their answers.
    pub(super) fn has_outbox(&self) -> bool {
        self.ensemble.as_deref().is_some_and(|ensemble| !ensemble.outbox.is_empty())
    }

    /// Answers what clients want of a server that serves nobody. `None`: done.
    pub(super) fn unless_unserved(&mut self, front: usize, message: ToPipeline) -> Option<ToPipeline> {
        match self.serving {
            Serving::Yes => return Some(message),
            Serving::ReadOnly => return self.take_read_only(front, message),
            Serving::No => {}
        }
        match message {
            ToPipeline::Request(request) => {
                self.links[front].push(ToFront::Dropped { conn: request.conn, op: request.op });
            }
            ToPipeline::Admit { conn, .. } => self.links[front].push(ToFront::TurnedAway { conn }),
            ToPipeline::Open { conn, .. } | ToPipeline::Renew { conn, .. } => {
                self.links[front].push(ToFront::Refused { conn });
            }
            message => return Some(message),
        }
        None
    }
}
