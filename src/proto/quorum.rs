//! What leader and learners say to each other: a bare concatenation of packets, without frames.
//!
//! `QuorumPacket { int type; long zxid; buffer data; vector<Id{ustring scheme; ustring id}> authinfo }`. A `SNAP` packet is followed
//! by the snapshot itself. Source: ZooKeeper `QuorumPacket`, `Leader`, `LearnerHandler`; quorum-protocol §4.1.

use std::borrow::Cow;

use crate::jute::{JuteError, Reader, put_buffer, put_i32, put_i64};
use crate::types::{SessionId, Zxid};

/// Numbers of packet types.
pub mod kind {
    pub const REQUEST: i32 = 1;
    pub const PROPOSAL: i32 = 2;
    pub const ACK: i32 = 3;
    pub const COMMIT: i32 = 4;
    pub const PING: i32 = 5;
    pub const REVALIDATE: i32 = 6;
    pub const SYNC: i32 = 7;
    pub const INFORM: i32 = 8;
    pub const COMMIT_AND_ACTIVATE: i32 = 9;
    pub const NEW_LEADER: i32 = 10;
    pub const FOLLOWER_INFO: i32 = 11;
    pub const UP_TO_DATE: i32 = 12;
    pub const DIFF: i32 = 13;
    pub const TRUNC: i32 = 14;
    pub const SNAP: i32 = 15;
    pub const OBSERVER_INFO: i32 = 16;
    pub const LEADER_INFO: i32 = 17;
    pub const ACK_EPOCH: i32 = 18;
    pub const INFORM_AND_ACTIVATE: i32 = 19;
}

/// The protocol version both sides announce. Source: ZooKeeper `Leader#processAck`, `LearnerInfo.protocolVersion`.
pub const PROTOCOL_VERSION: i32 = 0x10000;
/// Ends the snapshot behind a `SNAP` packet, as a ustring. Source: ZooKeeper `LearnerHandler#syncFollower`.
pub const SNAPSHOT_SIGNATURE: &str = "BenWasHere";
/// Ids a request may carry; a client has one for its address and one for each authentication.
pub const AUTH_IDS_MAX: usize = 1024;
/// The zxid field of packets that have none.
pub const NO_ZXID: Zxid = Zxid(-1);

/// A packet as it stands in a buffer. Only a `REQUEST` has authinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumPacket<'a> {
    pub kind: i32,
    pub zxid: Zxid,
    pub data: Option<&'a [u8]>,
    /// Scheme and id.
    pub auth: Option<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
}

/// Why the bytes of a peer are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("a length of {length} bytes where at most {bytes_max} were expected")]
    TooLong { length: i32, bytes_max: usize },
    #[error("{count} ids where at most {AUTH_IDS_MAX} were expected")]
    TooManyIds { count: i32 },
}

impl<'a> QuorumPacket<'a> {
    /// A packet without authinfo.
    pub fn new(kind: i32, zxid: Zxid, data: Option<&'a [u8]>) -> QuorumPacket<'a> {
        QuorumPacket { kind, zxid, data, auth: None }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.kind);
        put_i64(out, self.zxid.0);
        put_buffer(out, self.data);
        match &self.auth {
            None => put_i32(out, -1),
            Some(ids) => {
                put_i32(out, ids.len() as i32);
                for (scheme, id) in ids {
                    put_buffer(out, Some(scheme.as_bytes()));
                    put_buffer(out, Some(id.as_bytes()));
                }
            }
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.data.map_or(0, <[u8]>::len));
        self.encode(&mut out);
        out
    }

    /// The packet at the front of `bytes` and how many bytes it takes; `None` where it is not all there yet.
    ///
    /// No length beyond `data_bytes_max` is waited for, so that a buffer of that size and a little more always suffices.
    pub fn decode(
        bytes: &'a [u8],
        data_bytes_max: usize,
    ) -> Result<Option<(QuorumPacket<'a>, usize)>, PacketError> {
        let mut reader = Reader::new(bytes);
        match decode(&mut reader, data_bytes_max) {
            Ok(packet) => Ok(Some((packet, reader.offset()))),
            Err(Stop::Jute(JuteError::Truncated { .. })) => Ok(None),
            Err(Stop::Jute(JuteError::Length { length, .. })) => {
                Err(PacketError::TooLong { length, bytes_max: data_bytes_max })
            }
            Err(Stop::Packet(error)) => Err(error),
        }
    }
}

enum Stop {
    Jute(JuteError),
    Packet(PacketError),
}

impl From<JuteError> for Stop {
    fn from(error: JuteError) -> Stop {
        Stop::Jute(error)
    }
}

fn decode<'a>(reader: &mut Reader<'a>, data_bytes_max: usize) -> Result<QuorumPacket<'a>, Stop> {
    let kind = reader.i32()?;
    let zxid = Zxid(reader.i64()?);
    let data = bounded(reader, data_bytes_max)?;
    let auth = match reader.i32()? {
        count if count < 0 => None,
        count if count as usize > AUTH_IDS_MAX => {
            return Err(Stop::Packet(PacketError::TooManyIds { count }));
        }
        count => {
            let mut ids = Vec::new();
            for _ in 0..count {
                let mut text = || -> Result<Cow<'a, str>, Stop> {
                    let bytes = bounded(reader, data_bytes_max)?.unwrap_or_default();
                    Ok(String::from_utf8_lossy(bytes))
                };
                ids.push((text()?, text()?));
            }
            Some(ids)
        }
    };
    Ok(QuorumPacket { kind, zxid, data, auth })
}

/// A buffer whose length is looked at before its bytes are waited for.
fn bounded<'a>(reader: &mut Reader<'a>, bytes_max: usize) -> Result<Option<&'a [u8]>, Stop> {
    let mut ahead = *reader;
    let length = ahead.i32()?;
    if length > 0 && length as usize > bytes_max {
        return Err(Stop::Packet(PacketError::TooLong { length, bytes_max }));
    }
    Ok(reader.buffer()?)
}

/// What a learner says of itself in its first packet. Source: ZooKeeper `LearnerInfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LearnerInfo {
    /// As on the wire; negative for an anonymous observer.
    pub sid: i64,
    pub protocol_version: i32,
    pub config_version: i64,
}

impl LearnerInfo {
    pub const BYTES: usize = 20;

    pub fn encode(&self) -> [u8; LearnerInfo::BYTES] {
        let mut out = [0; LearnerInfo::BYTES];
        out[..8].copy_from_slice(&self.sid.to_be_bytes());
        out[8..12].copy_from_slice(&self.protocol_version.to_be_bytes());
        out[12..].copy_from_slice(&self.config_version.to_be_bytes());
        out
    }

    /// Whatever prefix is there: 3.4 sends 12 bytes. `None` where not even the id is.
    pub fn decode(data: &[u8]) -> Option<LearnerInfo> {
        let mut reader = Reader::new(data);
        let sid = reader.i64().ok()?;
        let protocol_version = reader.i32().unwrap_or(0);
        let config_version = reader.i64().unwrap_or(0);
        Some(LearnerInfo { sid, protocol_version, config_version })
    }
}

/// A client's request on its way to the leader, as the data of a `REQUEST`: behind these 16 bytes stands the record as received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    pub session: SessionId,
    /// The client's xid; zero where the server itself asks.
    pub cxid: i32,
    /// As in client requests, and -10 and -11 for the start and end of a session.
    pub op: i32,
}

impl RequestHeader {
    pub const BYTES: usize = 16;

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.session.0);
        put_i32(out, self.cxid);
        put_i32(out, self.op);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<RequestHeader, JuteError> {
        Ok(RequestHeader { session: SessionId(reader.i64()?), cxid: reader.i32()?, op: reader.i32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_packets_decode_and_encode_to_the_same_bytes() {
        // quorum-protocol A.2, A.4.
        let info = [
            0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 255, 255, 255, 255,
        ];
        let (packet, used) = QuorumPacket::decode(&info, 1024).unwrap().unwrap();
        assert_eq!((packet.kind, packet.zxid, used), (kind::FOLLOWER_INFO, Zxid::ZERO, info.len()));
        let learner = LearnerInfo::decode(packet.data.unwrap()).unwrap();
        assert_eq!(learner, LearnerInfo { sid: 1, protocol_version: PROTOCOL_VERSION, config_version: 0 });
        assert_eq!(learner.encode(), packet.data.unwrap());
        assert_eq!(packet.to_vec(), info);
        for end in 0..info.len() {
            assert_eq!(QuorumPacket::decode(&info[..end], 1024), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn authinfo_goes_both_ways() {
        let packet = QuorumPacket {
            kind: kind::REQUEST,
            zxid: NO_ZXID,
            data: Some(b"x"),
            auth: Some(vec![("ip".into(), "127.0.0.1".into()), ("digest".into(), "a:b".into())]),
        };
        let bytes = packet.to_vec();
        assert_eq!(QuorumPacket::decode(&bytes, 64).unwrap(), Some((packet, bytes.len())));
    }

    #[test]
    fn lengths_beyond_the_bound_are_refused_before_their_bytes_come() {
        let mut bytes = QuorumPacket::new(kind::PROPOSAL, Zxid(1), Some(&[0; 65])).to_vec();
        bytes.truncate(16);
        let error = PacketError::TooLong { length: 65, bytes_max: 64 };
        assert_eq!(QuorumPacket::decode(&bytes, 64), Err(error));
        bytes[12..16].copy_from_slice(&(-7i32).to_be_bytes());
        assert!(QuorumPacket::decode(&bytes, 64).is_err());
        let mut bytes = QuorumPacket::new(kind::REQUEST, Zxid(1), None).to_vec();
        bytes[16..20].copy_from_slice(&2000i32.to_be_bytes());
        assert_eq!(QuorumPacket::decode(&bytes, 64), Err(PacketError::TooManyIds { count: 2000 }));
    }
}
