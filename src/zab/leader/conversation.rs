//! What learners say, and what it leads to. Every packet that does not fit the stage of its conversation ends it.

use bytes::Bytes;

use super::learner_handler::{LearnerError, LearnerHandler, Stage};
use super::{Leader, Output, Phase};
use crate::jute::Reader;
use crate::proto::quorum::{LearnerInfo, NO_ZXID, PROTOCOL_VERSION, QuorumPacket, RequestHeader, kind};
use crate::types::{Epoch, Instant, ServerId, SessionId, Zxid};
use crate::zab::PeerConn;
use crate::zab::recent::Recent;

/// Bytes of data in a packet of a learner that is not brought up to date yet.
const HANDSHAKE_BYTES_MAX: usize = 1024;
/// Bytes of a packet besides its data: authinfo, mostly.
const PACKET_EXTRA_BYTES_MAX: usize = 64 << 10;
/// Epochs are positive on the wire.
pub(super) const EPOCH_LAST: Epoch = Epoch(0x7fff_ffff);

impl Leader {
    pub(super) fn received(&mut self, now: Instant, conn: PeerConn, bytes: &[u8], recent: &Recent) {
        let Some(learner) = self.learners.get_mut(&conn) else { return };
        let mut kept = std::mem::take(&mut learner.received);
        let input = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let mut taken = 0;
        loop {
            let Some(learner) = self.learners.get_mut(&conn) else { return };
            let bytes_max = match learner.stage {
                Stage::NewLeader | Stage::Acked | Stage::Broadcast => self.options.packet_bytes_max,
                _ => HANDSHAKE_BYTES_MAX,
            };
            let result = match QuorumPacket::decode(&input[taken..], bytes_max) {
                Ok(None) if input.len() - taken > bytes_max + PACKET_EXTRA_BYTES_MAX => {
                    Err(LearnerError::PacketTooLong { bytes_max })
                }
                Ok(None) => break,
                Ok(Some((packet, length))) => {
                    taken += length;
                    learner.heard(now);
                    self.packet(now, conn, &packet, recent)
                }
                Err(error) => Err(LearnerError::Packet(error)),
            };
            if let Err(error) = result {
                return self.close(conn, &error);
            }
        }
        let learner = self.learners.get_mut(&conn).expect("it is there, as just seen");
        if kept.is_empty() {
            learner.received = bytes[taken..].to_vec();
        } else {
            kept.drain(..taken);
            learner.received = kept;
        }
    }

    fn packet(
        &mut self,
        now: Instant,
        conn: PeerConn,
        packet: &QuorumPacket<'_>,
        recent: &Recent,
    ) -> Result<(), LearnerError> {
        let learner = self.learners.get_mut(&conn).expect("the packet came from it");
        let data = packet.data.unwrap_or_default();
        match (packet.kind, learner.stage) {
            (kind::FOLLOWER_INFO | kind::OBSERVER_INFO, Stage::Hello) => self.hello(now, conn, packet),
            (kind::ACK_EPOCH, Stage::AckEpoch) => self.epoch_acked(now, conn, packet.zxid, data, recent),
            (kind::ACK, Stage::NewLeader | Stage::Acked | Stage::Broadcast) => {
                self.acked(now, conn, packet.zxid)
            }
            (kind::PING, Stage::NewLeader | Stage::Acked | Stage::Broadcast) => {
                touches(data, &mut self.out)?;
                let begun_at = self.proofs.begun_at();
                let is_fit = learner.pong(packet.zxid);
                if is_fit && !learner.is_observer && begun_at.is_some_and(|begun| learner.answered > begun) {
                    self.confirm_round();
                }
                Ok(())
            }
            (kind::REQUEST, Stage::Broadcast) => {
                let mut reader = Reader::new(data);
                let header = RequestHeader::decode(&mut reader).map_err(|_| LearnerError::Malformed {
                    kind: packet.kind,
                    length: data.len(),
                    expected: "request",
                })?;
                let auth = packet.auth.iter().flatten();
                let auth = auth.map(|(scheme, id)| (scheme.to_string(), id.to_string())).collect();
                let body = Bytes::copy_from_slice(reader.rest());
                self.out.push(Output::Request { conn, header, body, auth });
                Ok(())
            }
            (kind::REVALIDATE, Stage::Broadcast) => {
                let (session, timeout_ms) =
                    session(data).filter(|_| data.len() == SESSION_BYTES).ok_or(LearnerError::Malformed {
                        kind: packet.kind,
                        length: data.len(),
                        expected: "session and timeout",
                    })?;
                self.out.push(Output::Revalidate { conn, session, timeout_ms });
                Ok(())
            }
            (kind, stage) => Err(LearnerError::Unexpected { kind, stage }),
        }
    }

    /// FOLLOWERINFO, OBSERVERINFO.
    fn hello(&mut self, now: Instant, conn: PeerConn, packet: &QuorumPacket<'_>) -> Result<(), LearnerError> {
        let data = packet.data.unwrap_or_default();
        let info = LearnerInfo::decode(data).ok_or(LearnerError::Malformed {
            kind: packet.kind,
            length: data.len(),
            expected: "learner info",
        })?;
        if info.protocol_version < PROTOCOL_VERSION {
            return Err(LearnerError::Protocol { version: info.protocol_version });
        }
        if info.config_version > self.options.config_version {
            let (theirs, ours) = (info.config_version, self.options.config_version);
            return Err(LearnerError::ConfigAhead { theirs, ours });
        }
        let accepted = packet.zxid.epoch();
        if packet.zxid < Zxid::ZERO || packet.zxid.counter() != 0 || accepted >= EPOCH_LAST {
            return Err(LearnerError::Epoch { zxid: packet.zxid });
        }
        let server = u8::try_from(info.sid).ok().map(ServerId);
        if let Some(sid) = server.filter(|&server| server == self.options.me) {
            return Err(LearnerError::OwnId { sid: sid.0 });
        }
        let same = |learner: &LearnerHandler| learner.stage > Stage::Hello && learner.sid == info.sid;
        let replaced = self.learners.iter().find(|(_, learner)| info.sid >= 0 && same(learner));
        let replaced = replaced.map(|(&conn, _)| conn);
        let learner = self.learners.get_mut(&conn).expect("the packet came from it");
        learner.sid = info.sid;
        learner.server = server;
        learner.is_observer = packet.kind == kind::OBSERVER_INFO;
        learner.enter(now, Stage::WaitEpoch);
        // After the new one counts, so that the quorum of connections has no gap.
        if let Some(replaced) = replaced {
            self.close(replaced, &LearnerError::Replaced);
        }
        match self.phase {
            Phase::Discovery => {
                self.epoch = self.epoch.max(Epoch(accepted.0 + 1));
                self.settle_epoch(now);
            }
            Phase::WriteAccepted => {}
            _ => {
                if accepted > self.epoch {
                    tracing::warn!(
                        sid = info.sid,
                        accepted = accepted.0,
                        epoch = self.epoch.0,
                        "a learner has promised a later epoch: it can join only when another reign begins"
                    );
                }
                self.leader_info(now, conn);
            }
        }
        Ok(())
    }

    /// ACKEPOCH.
    fn epoch_acked(
        &mut self,
        now: Instant,
        conn: PeerConn,
        zxid: Zxid,
        data: &[u8],
        recent: &Recent,
    ) -> Result<(), LearnerError> {
        let current = Reader::new(data).i32().map_err(|_| LearnerError::Malformed {
            kind: kind::ACK_EPOCH,
            length: data.len(),
            expected: "epoch",
        })?;
        // -1 from a server that promised this epoch before: it is synchronised and not counted.
        if current < -1 || i64::from(current) >= i64::from(self.epoch.0) || zxid < NO_ZXID {
            return Err(LearnerError::CurrentEpoch { current, epoch: self.epoch });
        }
        let is_chosen = self.phase > Phase::AckEpoch;
        let learner = self.learners.get_mut(&conn).expect("the packet came from it");
        if let Ok(current) = u32::try_from(current)
            && !is_chosen
        {
            let ours = (self.start.epochs.current, self.start.zxid_last);
            if (Epoch(current), zxid) > ours {
                return Err(LearnerError::HistoryAhead {
                    their_epoch: Epoch(current),
                    their_zxid: zxid,
                    our_epoch: ours.0,
                    our_zxid: ours.1,
                });
            }
            // A server without proof of its history says -1.
            learner.elects = zxid != NO_ZXID;
        }
        // Zero from a server that was here before in this epoch: maybe it distrusts what it holds, and wants it replaced.
        learner.zxid = if current == -1 && zxid == Zxid::ZERO { NO_ZXID } else { zxid };
        learner.enter(now, Stage::WaitElected);
        if self.phase >= Phase::Synchronisation {
            self.synchronise(now, conn, recent);
        }
        Ok(())
    }

    /// ACK: of NEWLEADER (or UPTODATE) where the counter is zero, of a proposal otherwise.
    fn acked(&mut self, now: Instant, conn: PeerConn, zxid: Zxid) -> Result<(), LearnerError> {
        let learner = self.learners.get_mut(&conn).expect("the packet came from it");
        if zxid.counter() == 0 {
            if zxid != Zxid::new(self.epoch, 0) {
                return Err(LearnerError::AckOfNothing { zxid });
            }
            if learner.stage == Stage::NewLeader {
                learner.enter(now, Stage::Acked);
                learner.acked = learner.covered;
                let covered = learner.covered;
                self.count_ack(conn, covered);
                self.commit(now);
                self.release(now, conn);
            }
            return Ok(());
        }
        let sent = if learner.stage == Stage::Broadcast { self.zxid_proposed } else { learner.covered };
        if learner.ack(zxid, sent, self.epoch)? {
            self.count_ack(conn, zxid);
            if zxid > self.zxid_committed {
                self.commit(now);
            }
        }
        Ok(())
    }
}

/// A session id and a timeout.
const SESSION_BYTES: usize = 12;

fn session(bytes: &[u8]) -> Option<(SessionId, i32)> {
    let mut reader = Reader::new(bytes);
    Some((SessionId(reader.i64().ok()?), reader.i32().ok()?))
}

/// The sessions in the answer to a ping.
fn touches(data: &[u8], out: &mut Vec<Output>) -> Result<(), LearnerError> {
    if !data.len().is_multiple_of(SESSION_BYTES) {
        let expected = "list of sessions and timeouts";
        return Err(LearnerError::Malformed { kind: kind::PING, length: data.len(), expected });
    }
    let sessions = data.chunks_exact(SESSION_BYTES).filter_map(session);
    out.extend(sessions.map(|(session, timeout_ms)| Output::Touch { session, timeout_ms }));
    Ok(())
}
