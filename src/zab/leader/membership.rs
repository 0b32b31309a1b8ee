//! Who decides, while that changes.
//!
//! A membership is proposed like any entry. From that proposal on a quorum of the old one *and* of the new one is needed, until it is
//! committed; from then on one of the new alone. With its commit every learner is told to act on it, and who is to lead: this server,
//! if it still votes and is found where it was, else whoever has acknowledged most. A leader that is not designated commits nothing
//! more: what it has proposed is its successor's to decide.
//!
//! Sources: ZooKeeper `Leader#propose`, `#tryToCommit`, `#getDesignatedLeader`, `#isQuorumSynced`; quorum-protocol §4.11.

use bytes::Bytes;

use super::Leader;
use super::Output;
use super::learner_handler::Stage;
use crate::types::{ServerId, Zxid};
use crate::zab::PeerConn;
use crate::zab::quorum::{ServerSet, Verifier};

/// A membership on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextMembership {
    pub verifier: Verifier,
    /// Its text, with the zxid of its entry as the version.
    pub text: Bytes,
    /// This server votes in it, at the address where learners have found it.
    pub keeps_leader: bool,
}

/// A membership that is not in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Proposed {
    pub verifier: Verifier,
    /// `None`: before the reign; it is in force when that is established.
    pub zxid: Option<Zxid>,
    text: Bytes,
    keeps_leader: bool,
}

impl Proposed {
    pub fn before_reign(verifier: Verifier) -> Proposed {
        Proposed { verifier, zxid: None, text: Bytes::new(), keeps_leader: true }
    }
}

impl Leader {
    /// Whether those that follow now and are up to date, with this server, are a quorum by `verifier`.
    pub fn is_synced_quorum(&self, verifier: &Verifier) -> bool {
        let synced = self.learners.values().filter(|l| l.stage == Stage::Broadcast && !l.is_observer);
        let mut set: ServerSet = synced.filter_map(|learner| learner.server).collect();
        set.insert(self.options.me);
        verifier.is_quorum(&set)
    }

    /// The entry proposed last holds this membership. Only one at a time.
    pub fn propose_membership(&mut self, next: NextMembership) {
        if self.phase == super::Phase::Resigned {
            return;
        }
        assert!(self.proposed.is_none(), "one membership at a time");
        let zxid = self.zxid_proposed;
        assert!(zxid > self.zxid_committed, "{zxid} is committed");
        let NextMembership { verifier, text, keeps_leader } = next;
        self.proposed = Some(Proposed { verifier, zxid: Some(zxid), text, keeps_leader });
        // New voters may hold much already.
        let holders: Vec<(PeerConn, Zxid)> = self
            .learners
            .iter()
            .filter(|(_, learner)| learner.stage >= Stage::Acked)
            .map(|(&conn, learner)| (conn, learner.acked))
            .collect();
        for (conn, acked) in holders {
            self.count_ack(conn, acked);
        }
    }

    /// The epoch is settled: a membership without a version gets one. Nothing is told before.
    pub(super) fn raise_version(&mut self) {
        if !self.options.raises_version || self.options.config_version != 0 {
            return;
        }
        let Some(lines) = self.options.config_text.strip_suffix(b"version=0") else { return };
        self.options.config_version = Zxid::new(self.epoch, 0).0;
        let mut text = lines.to_vec();
        text.extend_from_slice(format!("version={:x}", self.options.config_version).as_bytes());
        self.options.config_text = text.into();
    }

    /// Voters of the membership in force and of the one proposed.
    pub(super) fn may_vote(&self, server: ServerId) -> bool {
        let is_next = |proposed: &Proposed| proposed.verifier.voters().contains(server);
        self.options.voters.contains(server) || self.proposed.as_ref().is_some_and(is_next)
    }

    /// Who is to lead by the membership proposed, a quorum of which has acknowledged it. The acks are sorted.
    pub(super) fn designated(&self) -> ServerId {
        let me = self.options.me;
        let Some(proposed) = self.proposed.as_ref().filter(|proposed| !proposed.keeps_leader) else {
            return me;
        };
        let voters = proposed.verifier.voters();
        let able = self.acks.iter().filter(|ack| {
            ack.server != me && voters.contains(ack.server) && proposed.verifier.weight(ack.server) > 0
        });
        // Those in front have acknowledged most.
        able.map(|ack| ack.server).next().unwrap_or(me)
    }

    /// The membership proposed is committed.
    pub(super) fn activate(&mut self, zxid: Zxid, designated: ServerId) {
        let Some(proposed) = self.proposed.take() else { return };
        if self.joining_count == 0 {
            self.activated.clear();
        } else {
            self.activated.insert(zxid, designated);
        }
        self.options.config_text = proposed.text.clone();
        self.options.config_version = zxid.0;
        self.adopt(proposed);
        self.is_deposed = designated != self.options.me;
        // Some connections count no more.
        self.connection_lost = !self.is_deposed;
        self.out.push(Output::Activated { zxid, designated });
    }

    /// From here on this one decides alone.
    pub(super) fn adopt(&mut self, proposed: Proposed) {
        self.options.voters = proposed.verifier.voters();
        self.options.verifier = proposed.verifier;
    }
}

/// Data of COMMITANDACTIVATE.
pub(super) fn designated_bytes(designated: ServerId) -> [u8; 8] {
    i64::from(designated.0).to_be_bytes()
}

/// Data of INFORMANDACTIVATE.
pub(super) fn inform_data(designated: ServerId, entry: &[u8]) -> Vec<u8> {
    let mut data = designated_bytes(designated).to_vec();
    data.extend_from_slice(entry);
    data
}
