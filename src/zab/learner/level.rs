//! Discovery and synchronization: which epoch, which history, and what must be durable before what.

use bytes::Bytes;

use super::history::History;
use super::{Fault, Held, Learner, NODE_EXTRA_BYTES, Output, State, Sync, malformed, unexpected};
use crate::jute::Reader;
use crate::proto::quorum::{NO_ZXID, PROTOCOL_VERSION, QuorumPacket, SNAPSHOT_SIGNATURE, kind};
use crate::snapshot::{BodyReader, LoadSink};
use crate::types::{Epoch, Zxid};
use crate::zab::Epochs;

impl Learner {
    pub(super) fn leader_info(&mut self, packet: &QuorumPacket<'_>) -> Result<(), Fault> {
        if packet.kind != kind::LEADER_INFO {
            return Err(unexpected(packet, "LEADERINFO"));
        }
        let version = Reader::new(packet.data.unwrap_or_default()).i32();
        let version = version.map_err(|error| malformed(packet, error))?;
        if version < PROTOCOL_VERSION {
            return Err(Fault::Protocol { version });
        }
        if packet.zxid <= Zxid::ZERO || packet.zxid.counter() != 0 {
            return Err(malformed(packet, "that is not the begin of an epoch"));
        }
        let (epoch, accepted) = (packet.zxid.epoch(), self.epochs.accepted);
        if epoch < accepted {
            return Err(Fault::EpochOver { epoch, accepted });
        }
        self.epoch = epoch;
        if epoch > accepted {
            self.state = State::AcceptedEpoch;
            self.push(Output::WriteEpochs(Epochs { accepted: epoch, ..self.epochs }));
            return Ok(());
        }
        // Promised before, maybe in a quorum that has been counted: not to be counted again. Only then may less be claimed than
        // is here, so that no leader wins by the claim.
        let wants_snapshot = self.start.snap_wanted == Some(epoch);
        self.ack_epoch(if wants_snapshot { Zxid::ZERO } else { self.claim() }, None);
        Ok(())
    }

    /// How far this server says its history goes; -1 is a server without proof of any, which no leader counts.
    pub(super) fn claim(&self) -> Zxid {
        if self.start.has_no_standing { NO_ZXID } else { self.start.zxid_last }
    }

    /// Tells the leader what is here. It answers with what is missing.
    pub(super) fn ack_epoch(&mut self, zxid_claimed: Zxid, current: Option<Epoch>) {
        let current = current.map_or(-1, |epoch| epoch.0 as i32);
        self.send(&QuorumPacket::new(kind::ACK_EPOCH, zxid_claimed, Some(&current.to_be_bytes())));
        self.history = History::after(zxid_claimed);
        self.state = State::SyncKind;
    }

    pub(super) fn sync_kind(
        &mut self,
        packet: &QuorumPacket<'_>,
        sink: &mut dyn LoadSink,
    ) -> Result<(), Fault> {
        let (zxid, zxid_last, claimed) = (packet.zxid, self.start.zxid_last, self.history.base());
        if !matches!(packet.kind, kind::DIFF | kind::TRUNC | kind::SNAP) {
            return Err(unexpected(packet, "DIFF, TRUNC or SNAP"));
        }
        if packet.kind != kind::SNAP && claimed != zxid_last {
            return Err(Fault::NoSnapshot { kind: packet.kind });
        }
        match packet.kind {
            // Its zxid means nothing: what follows may go beyond it, or not as far.
            kind::DIFF => self.state = State::NewLeader { sync: Sync::Diff },
            kind::TRUNC => {
                if zxid < Zxid::ZERO || zxid > zxid_last {
                    return Err(Fault::TruncateAhead { to: zxid, zxid_last });
                }
                self.history = History::after(zxid);
                self.state = State::NewLeader { sync: Sync::Trunc { to: zxid } };
            }
            _ => {
                if zxid < Zxid::ZERO || zxid.epoch() > self.epoch {
                    return Err(malformed(packet, "that is beyond the leader's epoch"));
                }
                sink.reset();
                let node_bytes_max = self.options.entry_bytes_max.saturating_mul(2);
                let body = BodyReader::new(node_bytes_max.saturating_add(NODE_EXTRA_BYTES));
                self.state = State::Snapshot { zxid, body };
            }
        }
        Ok(())
    }

    /// Takes bytes of the text behind a snapshot.
    pub(super) fn signature(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let State::Signature { zxid, matched } = &mut self.state else {
            unreachable!("asked only there");
        };
        let length = (SNAPSHOT_SIGNATURE.len() as u32).to_be_bytes();
        let expected = length.iter().chain(SNAPSHOT_SIGNATURE.as_bytes());
        let mut taken = 0;
        for (expected, &found) in expected.skip(*matched).zip(bytes) {
            if *expected != found {
                return Err(Fault::Signature { found });
            }
            taken += 1;
        }
        *matched += taken;
        if *matched == length.len() + SNAPSHOT_SIGNATURE.len() {
            let zxid = *zxid;
            self.history = History::after(zxid);
            self.state = State::NewLeader { sync: Sync::Snap { zxid } };
        }
        Ok(taken)
    }

    pub(super) fn new_leader(&mut self, packet: &QuorumPacket<'_>, sync: Sync) -> Result<(), Fault> {
        if packet.zxid != Zxid::new(self.epoch, 0) {
            return Err(malformed(packet, format!("LEADERINFO said epoch {}", self.epoch.0)));
        }
        // A leader of 3.4 has no membership to tell. Source: ZooKeeper `Learner#syncWithLeader`.
        let text = packet.data.filter(|text| text.len() > 1).map(Bytes::copy_from_slice);
        self.held.push_back(Held::Serve);
        self.compare = true;
        match sync {
            Sync::Snap { zxid: zxid_snapshot } => {
                let zxid = self.history.committed();
                let count = self.staged.partition_point(|entry| entry.zxid <= zxid);
                let entries = self.staged.drain(..count).map(|entry| (entry.zxid, entry.bytes)).collect();
                self.state = State::Replaced { sync: Sync::Snap { zxid }, text };
                self.push(Output::Install { zxid, zxid_snapshot, entries });
            }
            Sync::Trunc { to } if to < self.start.zxid_last => {
                self.state = State::Replaced { sync, text };
                self.push(Output::Truncate(to));
            }
            Sync::Diff | Sync::Trunc { .. } => self.append_staged(text),
        }
        Ok(())
    }

    /// The log ends where the leader's entries begin.
    pub(super) fn append_staged(&mut self, text: Option<Bytes>) {
        let staged = std::mem::take(&mut self.staged);
        if staged.is_empty() {
            return self.write_current_epoch(text);
        }
        self.state = State::StagedDurable { text };
        for entry in staged {
            self.append(entry);
        }
    }

    pub(super) fn write_current_epoch(&mut self, text: Option<Bytes>) {
        if let Some(text) = text {
            self.push(Output::Membership { text, proposed: None });
        }
        assert!(self.epochs.accepted == self.epoch, "S1: {:?} with epoch {:?}", self.epochs, self.epoch);
        if self.epochs.current == self.epoch {
            return self.ack_new_leader();
        }
        self.state = State::CurrentEpoch;
        self.push(Output::WriteEpochs(Epochs { current: self.epoch, ..self.epochs }));
    }

    pub(super) fn ack_new_leader(&mut self) {
        assert!(self.durable == self.appended, "O2: durable {}, appended {}", self.durable, self.appended);
        self.ack(Zxid::new(self.epoch, 0));
        self.state = State::UpToDate;
        self.push(Output::NewLeader { epoch: self.epoch });
    }
}
