//! Fast leader election: each server votes for the most complete history it has heard of until enough vote alike.
//!
//! Rounds number the attempts of all servers; a vote is for (epoch, last zxid, server id), the greatest wins. What is decided
//! here is only who tries: that a leader has every committed transaction rests on the quorum it needs afterwards.
//!
//! Knows servers, not connections: [`Election::connected`] and [`Election::lost`] say who can be spoken to, and what is to be
//! said comes out as values. Speaks as ZooKeeper's `FastLeaderElection` does (quorum-protocol §3), and differs where nobody can tell:
//!
//! - It ends at once when every voter agrees, those left out whose connection broke; else after a wait, as there.
//! - The interval between repeated votes stays below [`ElectionOptions::interval_max`].
//! - Whoever connects is told the vote of now, not one of the past; who was undecided is told the outcome unasked.
//! - A vote heard before this server began to look counts when it does: two that miss their leader at different times need no
//!   repetition.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quorum::{ServerSet, Verifier};
use crate::config::Membership;
use crate::proto::election::{NO_VOTE, NOTIFICATION_VERSION, Notification, ServerState};
use crate::types::{Epoch, Instant, ServerId, Zxid};

#[cfg(test)]
mod tests;

/// Rounds beyond are nonsense: no two servers could count that far.
pub const ROUND_MAX: i64 = i64::MAX / 2;
/// The zxid of a server whose data are not to be trusted: it has no say, and only joins a leader others have.
pub const UNTRUSTED: Zxid = Zxid(-1);
/// How old a vote may be that was heard before this server began to look.
const HEARD_AGE_MAX: Duration = Duration::from_secs(2);
/// The same answer is not given twice to a server without a vote within this time.
const ANSWER_GAP: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct ElectionOptions {
    pub me: ServerId,
    /// Between the first votes of an election; doubles up to `interval_max`.
    /// Source: ZooKeeper `fastleader.minNotificationInterval`, `fastleader.maxNotificationInterval`.
    pub interval_min: Duration,
    pub interval_max: Duration,
    /// For a better vote, once a quorum agrees. Source: ZooKeeper `FastLeaderElection.finalizeWait`.
    pub finalize_wait: Duration,
    pub empty: EmptyVote,
}

/// What the vote of this server counts for while it has no data: no transaction, and no epoch it ever followed (S9). It may be new, or
/// have lost what others rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EmptyVote {
    /// As any other: an operator says so.
    #[default]
    Counts,
    /// Among servers without data alone: once a voter shows some, this one has no say until it was synchronised.
    Founds,
    /// Nothing.
    Never,
}

impl ElectionOptions {
    pub fn new(me: ServerId) -> ElectionOptions {
        ElectionOptions {
            me,
            interval_min: Duration::from_millis(200),
            interval_max: Duration::from_secs(1),
            finalize_wait: Duration::from_millis(200),
            empty: EmptyVote::default(),
        }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    Send {
        to: ServerId,
        notification: Notification,
    },
    /// Connect to every voter that is not connected.
    DialAll,
    /// The election is over; leading begins where `leader` is this server.
    Elected {
        leader: ServerId,
        round: i64,
        /// The leader's last zxid and epoch, as the votes say.
        zxid: Zxid,
        peer_epoch: Epoch,
    },
    /// This server leads, and a voter looks for a leader in a later round: it will not follow.
    /// Source: ZooKeeper `Leader#reportLookingSid`.
    Deserted {
        voter: ServerId,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Never looked.
    Idle,
    Looking,
    Settled(ServerState),
}

/// Whom a vote is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Choice {
    leader: i64,
    zxid: Zxid,
    peer_epoch: i64,
}

impl Choice {
    const NONE: Choice = Choice { leader: NO_VOTE, zxid: Zxid(NO_VOTE), peer_epoch: NO_VOTE };

    fn of(notification: &Notification) -> Choice {
        let Notification { leader, zxid, peer_epoch, .. } = *notification;
        Choice { leader, zxid, peer_epoch }
    }
}

/// The election of one server. Every call may owe something: [`Election::drain`].
#[derive(Debug)]
pub struct Election {
    options: ElectionOptions,
    /// One, or two while a reconfiguration is under way: a quorum of each is needed.
    verifiers: Vec<Verifier>,
    /// Of all verifiers.
    voters: ServerSet,
    phase: Phase,
    round: i64,
    /// What this server brings: its last zxid and current epoch.
    own: (Zxid, Epoch),
    /// Some voter has data: see [`EmptyVote::Founds`]. Never forgotten.
    has_seen_data: bool,
    /// What it votes for, and when settled, the vote that won.
    choice: Choice,
    /// The newest vote of each voter in this round, this server's among them.
    votes: BTreeMap<ServerId, Notification>,
    /// The newest vote of each voter that follows or leads.
    outside: BTreeMap<ServerId, Notification>,
    /// The newest notification of each voter since this server settled, and when it came.
    heard: BTreeMap<ServerId, (Instant, Notification)>,
    /// The last answer to each server without a vote, and when it was given.
    answered: BTreeMap<ServerId, (Instant, Notification)>,
    linked: ServerSet,
    /// Voters whose connection broke, or that had none when the last leader was lost: nobody waits for them.
    gone: ServerSet,
    /// Who may not know a leader yet.
    undecided: ServerSet,
    interval: Duration,
    retry_at: Option<Instant>,
    /// When the choice wins; a quorum agrees.
    finalize_at: Option<Instant>,
    outputs: Vec<Output>,
}

impl Election {
    pub fn new(options: ElectionOptions, membership: &Membership) -> Election {
        let mut election = Election {
            interval: options.interval_min,
            options,
            verifiers: Vec::new(),
            voters: ServerSet::EMPTY,
            phase: Phase::Idle,
            round: 0,
            own: (UNTRUSTED, Epoch(0)),
            has_seen_data: false,
            choice: Choice::NONE,
            votes: BTreeMap::new(),
            outside: BTreeMap::new(),
            heard: BTreeMap::new(),
            answered: BTreeMap::new(),
            linked: ServerSet::EMPTY,
            gone: ServerSet::EMPTY,
            undecided: ServerSet::EMPTY,
            retry_at: None,
            finalize_at: None,
            outputs: Vec::new(),
        };
        election.verify_by(membership, None);
        election
    }

    /// Looks for a leader, in a new round. `zxid_last` is that of the last durable log entry, [`UNTRUSTED`] where the data may be
    /// incomplete; `current` the epoch they belong to.
    pub fn look(&mut self, now: Instant, zxid_last: Zxid, current: Epoch) {
        if self.phase != Phase::Idle {
            self.gone = self.gone.union(self.voters.without(self.linked));
            self.gone.remove(self.options.me);
        }
        let is_empty = zxid_last == Zxid::ZERO && current == Epoch(0);
        let counts = match self.options.empty {
            EmptyVote::Counts => true,
            EmptyVote::Founds => !is_empty || !self.has_seen_data,
            EmptyVote::Never => !is_empty,
        };
        self.own = (if counts { zxid_last } else { UNTRUSTED }, current);
        self.begin(now);
    }

    /// A vote shows that there are data, and this server has none: before it could help to elect one that lacks some of them, it gives
    /// up its say.
    fn gives_up_say(&mut self, vote: &Notification) -> bool {
        let is_empty = self.own == (Zxid::ZERO, Epoch(0));
        let shows_data = vote.zxid > Zxid::ZERO || vote.peer_epoch > 0;
        if self.options.empty != EmptyVote::Founds || !is_empty || !shows_data {
            return false;
        }
        tracing::warn!("this server has no data and others do: it has no vote until it is synchronised");
        self.has_seen_data = true;
        self.own.0 = UNTRUSTED;
        self.restart(self.own_choice());
        true
    }

    fn begin(&mut self, now: Instant) {
        self.phase = Phase::Looking;
        self.round += 1;
        self.interval = self.options.interval_min;
        self.retry_at = Some(now + self.interval);
        self.outside.clear();
        self.answered.clear();
        self.undecided = self.undecided.union(self.voters);
        self.undecided.remove(self.options.me);
        self.restart(self.own_choice());
        for (from, (at, notification)) in std::mem::take(&mut self.heard) {
            let is_new = notification.state == ServerState::Looking && now.since(at) <= HEARD_AGE_MAX;
            if is_new && self.linked.contains(from) {
                self.weigh(from, &notification);
            }
        }
        tracing::info!(
            "looking for a leader in round {}, with zxid {} of epoch {}",
            self.round,
            self.own.0,
            self.own.1.0
        );
        self.broadcast();
        self.count(now);
    }

    /// Takes a notification that came from this server, which the caller knows to be a member, or a stranger it lets ask.
    pub fn notification(&mut self, now: Instant, from: ServerId, notification: &Notification) {
        if from == self.options.me || notification.round > ROUND_MAX {
            return;
        }
        let is_looking = notification.state == ServerState::Looking;
        let is_voter = self.voters.contains(from);
        match is_looking {
            true => self.undecided.insert(from),
            false => self.undecided.remove(from),
        };
        if !is_voter {
            if is_looking {
                self.answer_stranger(now, from);
            }
            return;
        }
        match self.phase {
            Phase::Looking => self.notified(now, from, notification),
            Phase::Idle => {
                self.heard.insert(from, (now, *notification));
            }
            Phase::Settled(state) => {
                self.heard.insert(from, (now, *notification));
                if is_looking {
                    self.send(from);
                    if state == ServerState::Leading && notification.round > self.round {
                        self.outputs.push(Output::Deserted { voter: from });
                    }
                }
            }
        }
    }

    fn notified(&mut self, now: Instant, from: ServerId, notification: &Notification) {
        match notification.state {
            ServerState::Looking => {
                if notification.round < self.round {
                    self.send(from);
                    return;
                }
                let before = (self.round, self.choice);
                let counts = self.weigh(from, notification);
                if before != (self.round, self.choice) {
                    self.broadcast();
                }
                if counts {
                    self.count(now);
                }
            }
            ServerState::Following | ServerState::Leading => self.join(from, notification),
            ServerState::Observing => {}
        }
    }

    /// Takes the vote of a server that looks as well; false if it does not count.
    fn weigh(&mut self, from: ServerId, vote: &Notification) -> bool {
        // A server without trusted data would take part in no quorum that means something.
        let counts = self.own.0 != UNTRUSTED && vote.zxid != UNTRUSTED;
        if !counts || !self.is_plausible(vote) || self.gives_up_say(vote) || vote.round < self.round {
            return false;
        }
        if vote.round > self.round {
            self.round = vote.round;
            self.restart(self.own_choice());
        }
        if self.beats(Choice::of(vote), self.choice) {
            self.choose(Choice::of(vote));
        }
        self.votes.insert(from, *vote);
        true
    }

    /// Takes the vote of a server that has a leader, and joins if a quorum has the same, which says so itself.
    fn join(&mut self, from: ServerId, vote: &Notification) {
        if !self.is_plausible(vote) {
            return;
        }
        if vote.round == self.round {
            self.votes.insert(from, *vote);
            if self.is_established(&self.votes, vote) {
                self.decide(Choice::of(vote));
                return;
            }
        }
        self.outside.insert(from, *vote);
        if self.is_established(&self.outside, vote) {
            self.round = vote.round;
            self.decide(Choice::of(vote));
        }
    }

    /// Source: ZooKeeper `FastLeaderElection#checkLeader`. This server leads only if it wants to: one that lost its data since
    /// those votes were given does not.
    fn is_established(&self, votes: &BTreeMap<ServerId, Notification>, vote: &Notification) -> bool {
        let says_so = if vote.leader == i64::from(self.options.me.0) {
            vote.round == self.round && self.choice.leader == vote.leader
        } else {
            server_id(vote.leader)
                .and_then(|leader| votes.get(&leader))
                .is_some_and(|own| own.state == ServerState::Leading && own.leader == vote.leader)
        };
        let agreeing = agreeing(votes, vote);
        // Another leads by the membership it knows, and that may be the one in force or the one proposed.
        let is_enough = match vote.leader == i64::from(self.options.me.0) {
            true => self.is_quorum(agreeing),
            false => self.verifiers.iter().any(|verifier| verifier.is_quorum(&agreeing)),
        };
        says_so && is_enough
    }

    /// Looks whether enough voters agree with this server.
    fn count(&mut self, now: Instant) {
        let agreeing = agreeing(&self.votes, &self.current());
        if self.phase != Phase::Looking || !self.is_quorum(agreeing) {
            self.finalize_at = None;
            return;
        }
        let awaited = self.voters.without(agreeing).without(self.gone);
        if awaited.is_empty() && !self.is_leader_gone() {
            self.decide(self.choice);
        } else if self.finalize_at.is_none() {
            self.finalize_at = Some(now + self.options.finalize_wait);
        }
    }

    fn decide(&mut self, choice: Choice) {
        let leader = server_id(choice.leader).expect("only voters are voted for");
        let me = self.options.me;
        let state = match () {
            () if leader == me => ServerState::Leading,
            () if self.voters.contains(me) => ServerState::Following,
            () => ServerState::Observing,
        };
        tracing::info!("server {} is elected in round {}; this one is {state:?}", leader.0, self.round);
        self.phase = Phase::Settled(state);
        self.choice = choice;
        self.votes.clear();
        self.outside.clear();
        (self.retry_at, self.finalize_at) = (None, None);
        self.outputs.push(Output::Elected {
            leader,
            round: self.round,
            zxid: choice.zxid,
            peer_epoch: Epoch(choice.peer_epoch as u32),
        });
        self.tell_undecided();
    }

    /// The leader's epoch has begun, here as leader or as learner: from now on votes say so, or late servers would never see a
    /// quorum of equal ones. Source: ZOOKEEPER-1732.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        assert!(matches!(self.phase, Phase::Settled(_)), "an epoch begins under a leader");
        self.choice.peer_epoch = i64::from(epoch.0);
        self.tell_undecided();
    }

    /// A reconfiguration has designated the leader: there is nothing to vote about. Only under a leader; panics while looking.
    /// Source: ZooKeeper `QuorumPeer#updateVote`.
    pub fn appoint(&mut self, leader: ServerId, zxid: Zxid) {
        assert!(matches!(self.phase, Phase::Settled(_)), "a leader is appointed by the one before");
        self.decide(Choice { leader: i64::from(leader.0), zxid, peer_epoch: self.choice.peer_epoch });
    }

    /// Other members, or another role for this server. While looking, it begins again, if others decide now.
    pub fn set_membership(&mut self, now: Instant, committed: &Membership, proposed: Option<&Membership>) {
        let before = self.verifiers.clone();
        self.verify_by(committed, proposed);
        self.heard.retain(|from, _| self.voters.contains(*from));
        if self.phase == Phase::Looking && before != self.verifiers {
            self.begin(now);
        }
    }

    fn verify_by(&mut self, committed: &Membership, proposed: Option<&Membership>) {
        self.verifiers = [Some(committed), proposed].into_iter().flatten().map(Verifier::of).collect();
        self.voters = self.verifiers.iter().fold(ServerSet::EMPTY, |all, one| all.union(one.voters()));
        self.gone = self.gone.intersection(self.voters);
    }

    /// A connection to this server stands.
    pub fn connected(&mut self, peer: ServerId) {
        self.linked.insert(peer);
        self.gone.remove(peer);
        let wants = self.voters.contains(peer) || self.undecided.contains(peer);
        if self.phase != Phase::Idle && wants {
            self.send(peer);
        }
    }

    /// The connection to this server broke. What it said does not count any more.
    pub fn lost(&mut self, now: Instant, peer: ServerId) {
        self.linked.remove(peer);
        self.heard.remove(&peer);
        self.answered.remove(&peer);
        self.outside.remove(&peer);
        if !self.voters.contains(peer) {
            self.undecided.remove(peer);
            return;
        }
        self.gone.insert(peer);
        if self.phase == Phase::Looking {
            self.votes.remove(&peer);
            self.count(now);
        }
    }

    pub fn on_timer(&mut self, now: Instant) {
        if self.finalize_at.is_some_and(|at| at <= now) {
            if self.is_leader_gone() {
                // It was there, and is not: voting for it would only end in another election.
                self.begin(now);
            } else {
                self.decide(self.choice);
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.interval = (self.interval * 2).min(self.options.interval_max);
            self.retry_at = Some(now + self.interval);
            self.outputs.push(Output::DialAll);
            self.broadcast();
        }
    }

    pub fn next_timer(&self) -> Option<Instant> {
        [self.retry_at, self.finalize_at].into_iter().flatten().min()
    }

    pub fn drain(&mut self, out: &mut Vec<Output>) {
        out.append(&mut self.outputs);
    }

    pub fn is_looking(&self) -> bool {
        self.phase == Phase::Looking
    }

    pub fn round(&self) -> i64 {
        self.round
    }

    /// The vote of this server as it would say it now.
    pub fn current(&self) -> Notification {
        let state = match self.phase {
            Phase::Idle | Phase::Looking => ServerState::Looking,
            Phase::Settled(state) => state,
        };
        let Choice { leader, zxid, peer_epoch } = self.choice;
        Notification { state, leader, zxid, round: self.round, peer_epoch, version: NOTIFICATION_VERSION }
    }

    fn own_choice(&self) -> Choice {
        let me = self.options.me;
        match self.voters.contains(me) {
            true => Choice { leader: i64::from(me.0), zxid: self.own.0, peer_epoch: i64::from(self.own.1.0) },
            false => Choice::NONE,
        }
    }

    /// An empty table in this round, but for the own vote.
    fn restart(&mut self, choice: Choice) {
        self.votes.clear();
        self.choose(choice);
    }

    fn choose(&mut self, choice: Choice) {
        self.choice = choice;
        self.finalize_at = None;
        if self.voters.contains(self.options.me) && self.own.0 != UNTRUSTED {
            self.votes.insert(self.options.me, self.current());
        }
    }

    /// Source: ZooKeeper `FastLeaderElection#totalOrderPredicate`.
    fn beats(&self, new: Choice, old: Choice) -> bool {
        let weighs = |choice: Choice| {
            server_id(choice.leader).is_some_and(|id| self.verifiers.iter().any(|one| one.weight(id) > 0))
        };
        // A server without weight starts with a vote for itself, which no one may win by.
        let is_greater = (new.peer_epoch, new.zxid, new.leader) > (old.peer_epoch, old.zxid, old.leader);
        weighs(new) && (is_greater || !weighs(old))
    }

    /// Whether a vote is for a voter, with numbers such a one can have.
    fn is_plausible(&self, vote: &Notification) -> bool {
        server_id(vote.leader).is_some_and(|leader| self.voters.contains(leader))
            && u32::try_from(vote.peer_epoch).is_ok()
            && vote.zxid >= UNTRUSTED
            && vote.round >= 0
    }

    fn is_quorum(&self, set: ServerSet) -> bool {
        self.verifiers.iter().all(|verifier| verifier.is_quorum(&set))
    }

    fn is_leader_gone(&self) -> bool {
        server_id(self.choice.leader).is_some_and(|leader| self.gone.contains(leader))
    }

    fn send(&mut self, to: ServerId) {
        self.outputs.push(Output::Send { to, notification: self.current() });
    }

    fn broadcast(&mut self) {
        for to in self.voters.iter().filter(|to| *to != self.options.me) {
            self.outputs.push(Output::Send { to, notification: self.current() });
        }
    }

    fn tell_undecided(&mut self) {
        for to in self.undecided.intersection(self.linked).iter() {
            self.send(to);
        }
    }

    /// Two servers that each take the other for one without a vote would answer each other for ever: hence the gap.
    fn answer_stranger(&mut self, now: Instant, to: ServerId) {
        let answer = self.current();
        let is_repeated =
            self.answered.get(&to).is_some_and(|(at, last)| *last == answer && now.since(*at) < ANSWER_GAP);
        if self.phase != Phase::Idle && !is_repeated {
            self.answered.insert(to, (now, answer));
            self.send(to);
        }
    }
}

fn server_id(sid: i64) -> Option<ServerId> {
    u8::try_from(sid).ok().filter(|id| *id > 0).map(ServerId)
}

fn agreeing(votes: &BTreeMap<ServerId, Notification>, with: &Notification) -> ServerSet {
    votes.iter().filter(|(_, vote)| agree(vote, with)).map(|(from, _)| *from).collect()
}

/// Source: ZooKeeper `Vote#equals`, ZOOKEEPER-1805: outside an election zxid and round may differ for the same leader.
fn agree(one: &Notification, other: &Notification) -> bool {
    if one.state == ServerState::Looking || other.state == ServerState::Looking {
        Choice::of(one) == Choice::of(other) && one.round == other.round
    } else {
        let is_mixed = (one.version > 0) != (other.version > 0);
        one.leader == other.leader && (is_mixed || one.peer_epoch == other.peer_epoch)
    }
}
