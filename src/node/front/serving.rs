//! What a front does as its server finds and loses a leader: whether it serves, from which tree, and whom it has heard from.

use super::conn::{ConnId, Phase};
use super::{Front, FrontLink};
use crate::node::link::{Serving, ToPipeline};
use crate::tree::TreeReader;
use crate::types::SessionId;

impl<L: FrontLink> Front<L> {
    /// Without a leader every client has to go; the answers under way come back as refusals.
    pub(super) fn set_serving(&mut self, serving: Serving) {
        self.serving = serving;
        if serving != Serving::No {
            return;
        }
        let served: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| !matches!(conn.phase, Phase::Word | Phase::Closing | Phase::Gone))
            .map(|(id, _)| ConnId(id as u32))
            .collect();
        for id in served {
            self.close(id);
        }
    }

    /// Reads go to another tree. Data that is being sent from the old one keeps that alive.
    pub(super) fn set_tree(&mut self, reader: TreeReader) {
        assert!(self.serving == Serving::No, "a tree changes hands only while nobody reads it");
        self.caught_up = reader.published();
        self.reader = reader;
    }

    /// Tells who was heard from since the last time.
    pub(super) fn collect_touches(&mut self, round: u64) {
        let touched = self.touched.as_mut().map(std::mem::take).unwrap_or_default();
        let mut sessions = Vec::with_capacity(touched.len());
        for id in touched {
            // The number may be another connection's by now, which is then named for having come.
            let Some(conn) = self.conns.get_mut(id.0 as usize) else { continue };
            conn.touched = false;
            if conn.session != SessionId::NONE && conn.phase != Phase::Gone {
                sessions.push((conn.session, conn.timeout_ms));
            }
        }
        self.detaching.push_back(ToPipeline::Touched { round, sessions });
    }
}
