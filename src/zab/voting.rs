//! Election and its connections as one: what the owner of both has to do with them.

#[cfg(test)]
mod tests;

use super::election::{Election, ElectionOptions, Output};
use super::mesh::{Heard, Mesh, MeshOptions};
use super::{PeerConn, PeerEvent, PeerWork};
use crate::config::Membership;
use crate::types::{Epoch, Instant, ServerId, Zxid};

/// What came of it all, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The election is over; leading begins where `leader` is this server.
    Elected { leader: ServerId, round: i64, zxid: Zxid, peer_epoch: Epoch },
    /// This server leads, and this voter looks for a leader all the same.
    Deserted { voter: ServerId },
    /// A server has a newer membership; of interest only where reconfiguration is enabled.
    Membership(Box<Membership>),
}

/// The election of one server over its connections. Every call may owe something: [`Voting::drain`].
#[derive(Debug)]
pub struct Voting {
    election: Election,
    mesh: Mesh,
    /// A vote has come from a server that has transactions, or has followed a leader.
    others_have_data: bool,
    heard: Vec<Heard>,
    outputs: Vec<Output>,
    work: Vec<PeerWork>,
    outcomes: Vec<Outcome>,
}

impl Voting {
    pub fn new(election: ElectionOptions, mesh: MeshOptions, membership: &Membership) -> Voting {
        assert_eq!(election.me, mesh.me, "election and mesh are of one server");
        Voting {
            election: Election::new(election, membership),
            mesh: Mesh::new(mesh, membership),
            others_have_data: false,
            heard: Vec::new(),
            outputs: Vec::new(),
            work: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    pub fn election(&self) -> &Election {
        &self.election
    }

    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Whether the ensemble is known not to be a new one.
    pub fn others_have_data(&self) -> bool {
        self.others_have_data
    }

    /// See [`Election::look`].
    pub fn look(&mut self, now: Instant, zxid_last: Zxid, current: Epoch) {
        self.election.look(now, zxid_last, current);
        self.run(now);
    }

    /// See [`Election::set_epoch`].
    pub fn set_epoch(&mut self, now: Instant, epoch: Epoch) {
        self.election.set_epoch(epoch);
        self.run(now);
    }

    /// See [`Election::appoint`].
    pub fn appoint(&mut self, now: Instant, leader: ServerId, zxid: Zxid) {
        self.election.appoint(leader, zxid);
        self.run(now);
    }

    pub fn set_membership(&mut self, now: Instant, committed: &Membership, proposed: Option<&Membership>) {
        self.mesh.set_membership(committed, proposed);
        self.run(now);
        self.election.set_membership(now, committed, proposed);
        self.run(now);
    }

    /// See [`Mesh::event`].
    pub fn event(&mut self, now: Instant, conn: PeerConn, event: PeerEvent<'_>) {
        self.mesh.event(now, conn, event);
        self.run(now);
    }

    pub fn on_timer(&mut self, now: Instant) {
        self.mesh.on_timer(now);
        self.run(now);
        self.election.on_timer(now);
        self.run(now);
    }

    pub fn next_timer(&self) -> Option<Instant> {
        self.mesh.next_timer().into_iter().chain(self.election.next_timer()).min()
    }

    pub fn drain(&mut self, work: &mut Vec<PeerWork>, outcomes: &mut Vec<Outcome>) {
        work.append(&mut self.work);
        outcomes.append(&mut self.outcomes);
    }

    /// Tells each what the other said, until nothing is left to tell.
    fn run(&mut self, now: Instant) {
        loop {
            self.mesh.drain(&mut self.work, &mut self.heard);
            for heard in self.heard.drain(..) {
                match heard {
                    Heard::Connected(peer) => self.election.connected(peer),
                    Heard::Lost(peer) => self.election.lost(now, peer),
                    Heard::Notification { from, notification, membership } => {
                        self.outcomes.extend(membership.map(Outcome::Membership));
                        self.others_have_data |=
                            notification.zxid > Zxid::ZERO || notification.peer_epoch > 0;
                        self.election.notification(now, from, &notification);
                    }
                }
            }
            self.election.drain(&mut self.outputs);
            if self.outputs.is_empty() {
                return;
            }
            for output in self.outputs.drain(..) {
                match output {
                    Output::Send { to, notification } => self.mesh.send(now, to, &notification),
                    Output::DialAll => self.mesh.dial_all(now),
                    Output::Elected { leader, round, zxid, peer_epoch } => {
                        self.outcomes.push(Outcome::Elected { leader, round, zxid, peer_epoch });
                    }
                    Output::Deserted { voter } => self.outcomes.push(Outcome::Deserted { voter }),
                }
            }
        }
    }
}
