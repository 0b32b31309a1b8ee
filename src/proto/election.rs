//! What servers say on their election ports. The side that connects opens with an initial message, then both send frames:
//! `int length (1..524288)`, then so many bytes of one notification.
//!
//! Initial message, one of:
//!
//! | bytes                                                                    | sent by                          |
//! |--------------------------------------------------------------------------|----------------------------------|
//! | `long sid`                                                               | 3.4                              |
//! | `long -65536`, `long sid`, `int n`, n bytes `host:port`                  | 3.5 and later (v1)               |
//! | `long -65535`, `long sid`, `int n`, n bytes `host:port` joined with `\|` | 3.6 with several addresses (v2)  |
//!
//! Notification:
//!
//! | offset | bytes | field                                                                   |
//! |-------:|------:|-------------------------------------------------------------------------|
//! |      0 |     4 | state: 0 looking, 1 following, 2 leading, 3 observing                   |
//! |      4 |     8 | the leader voted for                                                    |
//! |     12 |     8 | its last zxid                                                           |
//! |     20 |     8 | round, ZooKeeper's electionEpoch                                        |
//! |     28 |     8 | its epoch, ZooKeeper's peerEpoch; 28 bytes in all end before it         |
//! |     36 |     4 | version: 2; passed over where 40 bytes in all end after it              |
//! |     40 |     4 | length of the text                                                      |
//! |     44 |     n | the sender's membership as text; whatever follows is ignored            |
//!
//! Source: ZooKeeper `QuorumCnxManager.InitialMessage`, `FastLeaderElection#buildMsg`; quorum-protocol §2.1, §2.3, §3.1.

use thiserror::Error;

use crate::jute::{JuteError, Reader, put_i32, put_i64};
use crate::types::Zxid;

/// The first long of an initial message with one address, and with several.
pub const PROTOCOL_V1: i64 = -65536;
pub const PROTOCOL_V2: i64 = -65535;
/// Bytes of the addresses in an initial message. Source: ZooKeeper `QuorumCnxManager.maxBuffer`.
pub const ADDRESSES_BYTES_MAX: usize = 2048;
/// Bytes of the longest initial message.
pub const INITIAL_BYTES_MAX: usize = 20 + ADDRESSES_BYTES_MAX;
/// Addresses taken from one initial message.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of the longest notification. Source: ZooKeeper `QuorumCnxManager.PACKETMAXSIZE`.
pub const NOTIFICATION_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a notification before its text.
pub const NOTIFICATION_HEAD_BYTES: usize = 44;
/// The version of notifications that carry a text. Source: ZooKeeper `Notification.CURRENTVERSION`.
pub const NOTIFICATION_VERSION: i32 = 2;
/// Leader, zxid and epoch in the votes of servers that have no vote.
pub const NO_VOTE: i64 = i64::MIN;

/// What a server is up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    Looking,
    Following,
    Leading,
    Observing,
}

impl ServerState {
    fn of_wire(number: i32) -> Option<ServerState> {
        Some(match number {
            0 => ServerState::Looking,
            1 => ServerState::Following,
            2 => ServerState::Leading,
            3 => ServerState::Observing,
            _ => return None,
        })
    }
}

/// One vote on its way, without the membership's text. Numbers are as on the wire: nothing here has been judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notification {
    pub state: ServerState,
    /// A server id, or [`NO_VOTE`].
    pub leader: i64,
    /// The last zxid of the leader voted for.
    pub zxid: Zxid,
    /// The sender's round; where it is not looking, the round its vote was decided in.
    pub round: i64,
    /// The epoch of the leader voted for.
    pub peer_epoch: i64,
    /// Zero where the layout has none or it is not read.
    pub version: i32,
}

/// Why bytes are no notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotificationError {
    #[error("a notification of {bytes} bytes: expected 28, 40 or at least 44")]
    Length { bytes: usize },
    #[error("state {number}: expected 0 to 3")]
    State { number: i32 },
    #[error("a membership of {length} bytes in a notification of {bytes}")]
    Text { length: i32, bytes: usize },
}

impl Notification {
    /// The frame: length, notification, text.
    pub fn frame(&self, text: &str) -> Vec<u8> {
        let bytes = NOTIFICATION_HEAD_BYTES + text.len();
        assert!(bytes <= NOTIFICATION_BYTES_MAX, "a membership of {} bytes fits no notification", text.len());
        let mut out = Vec::with_capacity(4 + bytes);
        put_i32(&mut out, bytes as i32);
        put_i32(&mut out, self.state as i32);
        put_i64(&mut out, self.leader);
        put_i64(&mut out, self.zxid.0);
        put_i64(&mut out, self.round);
        put_i64(&mut out, self.peer_epoch);
        put_i32(&mut out, NOTIFICATION_VERSION);
        put_i32(&mut out, text.len() as i32);
        out.extend_from_slice(text.as_bytes());
        out
    }

    /// A notification, without the length before it, and the text it carries.
    pub fn decode(bytes: &[u8]) -> Result<(Notification, &[u8]), NotificationError> {
        let length = NotificationError::Length { bytes: bytes.len() };
        match bytes.len() {
            28 | 40 | NOTIFICATION_HEAD_BYTES.. => {}
            _ => return Err(length),
        }
        read(bytes).map_err(|stop| match stop {
            Stop::Short => length,
            Stop::Wrong(error) => error,
        })
    }
}

enum Stop {
    Short,
    Wrong(NotificationError),
}

impl From<JuteError> for Stop {
    fn from(_: JuteError) -> Stop {
        Stop::Short
    }
}

fn read(bytes: &[u8]) -> Result<(Notification, &[u8]), Stop> {
    let mut reader = Reader::new(bytes);
    let number = reader.i32()?;
    let state = ServerState::of_wire(number).ok_or(Stop::Wrong(NotificationError::State { number }))?;
    let leader = reader.i64()?;
    let zxid = Zxid(reader.i64()?);
    let round = reader.i64()?;
    let mut notification = Notification { state, leader, zxid, round, peer_epoch: zxid.0 >> 32, version: 0 };
    if bytes.len() == 28 {
        return Ok((notification, &[]));
    }
    notification.peer_epoch = reader.i64()?;
    if bytes.len() < NOTIFICATION_HEAD_BYTES {
        return Ok((notification, &[]));
    }
    notification.version = reader.i32()?;
    if notification.version < NOTIFICATION_VERSION {
        return Ok((notification, &[]));
    }
    match reader.i32()? {
        length if length < 0 || length as usize > bytes.len() - NOTIFICATION_HEAD_BYTES => {
            Err(Stop::Wrong(NotificationError::Text { length, bytes: bytes.len() }))
        }
        length => Ok((notification, reader.take(length as usize)?)),
    }
}

/// Who connects, and where it says it listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitialMessage {
    pub sid: i64,
    /// Hosts and ports; none from a 3.4 server.
    pub addresses: Vec<(String, u16)>,
}

/// Why bytes are no initial message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InitialError {
    #[error("protocol version {number}: expected a server id, -65536 or -65535")]
    Protocol { number: i64 },
    #[error("an address of {length} bytes: expected 1 to {ADDRESSES_BYTES_MAX}")]
    Length { length: i32 },
    #[error("address `{text}`: expected host:port, IPv6 in brackets, at most {ADDRESSES_MAX} with | between")]
    Address { text: String },
}

impl InitialMessage {
    /// As v1, or v2 if `several` is set; without an address as a 3.4 server does it, which leaves the other side to its own
    /// configuration.
    pub fn to_vec(&self, several: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if self.addresses.is_empty() {
            put_i64(&mut out, self.sid);
            return out;
        }
        let mut text = String::new();
        for (host, port) in &self.addresses[..if several { self.addresses.len() } else { 1 }] {
            if !text.is_empty() {
                text.push('|');
            }
            let address =
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            text.push_str(&address);
        }
        put_i64(&mut out, if several { PROTOCOL_V2 } else { PROTOCOL_V1 });
        put_i64(&mut out, self.sid);
        put_i32(&mut out, text.len() as i32);
        out.extend_from_slice(text.as_bytes());
        out
    }

    /// The message at the front of `bytes` and how many bytes it takes; `None` where it is not all there yet, which it is at
    /// [`INITIAL_BYTES_MAX`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Option<(InitialMessage, usize)>, InitialError> {
        let mut reader = Reader::new(bytes);
        let Ok(number) = reader.i64() else { return Ok(None) };
        if number >= 0 {
            return Ok(Some((InitialMessage { sid: number, addresses: Vec::new() }, reader.offset())));
        }
        if number != PROTOCOL_V1 && number != PROTOCOL_V2 {
            return Err(InitialError::Protocol { number });
        }
        let (Ok(sid), Ok(length)) = (reader.i64(), reader.i32()) else { return Ok(None) };
        if length <= 0 || length as usize > ADDRESSES_BYTES_MAX {
            return Err(InitialError::Length { length });
        }
        let Ok(text) = reader.take(length as usize) else { return Ok(None) };
        let wrong =
            || InitialError::Address { text: String::from_utf8_lossy(text).chars().take(100).collect() };
        let several = number == PROTOCOL_V2;
        let text_read = std::str::from_utf8(text).map_err(|_| wrong())?;
        let addresses: Option<Vec<_>> = match several {
            true => text_read.split('|').map(address).take(ADDRESSES_MAX + 1).collect(),
            false => address(text_read).map(|address| vec![address]),
        };
        let addresses = addresses.filter(|all| all.len() <= ADDRESSES_MAX).ok_or_else(wrong)?;
        Ok(Some((InitialMessage { sid, addresses }, reader.offset())))
    }
}

fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let plain = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c));
    let port = port.parse().ok().filter(|port| *port > 0)?;
    plain.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    /// quorum-protocol A.1.
    const INITIAL: &str = "ff ff ff ff ff ff 00 00 00 00 00 00 00 00 00 02 00 00 00 0f \
                           31 32 37 2e 30 2e 30 2e 31 3a 33 32 38 31 32";
    const HEAD: &str = "00 00 00 de 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 00 \
                        00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00 b2";
    const TEXT: &str = "server.1=127.0.0.1:32801:32811:participant\nserver.2=127.0.0.1:32802:32812:participant\n\
                        server.3=127.0.0.1:32803:32813:participant\nserver.4=127.0.0.1:32804:32814:observer\nversion=0";

    fn captured() -> Notification {
        Notification {
            state: ServerState::Looking,
            leader: 2,
            zxid: Zxid::ZERO,
            round: 1,
            peer_epoch: 0,
            version: 2,
        }
    }

    #[test]
    fn the_captured_initial_message_goes_both_ways() {
        let bytes = hex(INITIAL);
        let message = InitialMessage { sid: 2, addresses: vec![("127.0.0.1".into(), 32812)] };
        assert_eq!(InitialMessage::decode(&bytes), Ok(Some((message.clone(), bytes.len()))));
        assert_eq!(message.to_vec(false), bytes);
        for end in 0..bytes.len() {
            assert_eq!(InitialMessage::decode(&bytes[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn other_initial_messages_are_read_too() {
        let old = InitialMessage { sid: 3, addresses: Vec::new() };
        assert_eq!(old.to_vec(false), hex("00 00 00 00 00 00 00 03"));
        let mut bytes = old.to_vec(true);
        bytes.push(9);
        assert_eq!(InitialMessage::decode(&bytes), Ok(Some((old, 8))));
        let several = InitialMessage { sid: 3, addresses: vec![("a".into(), 1), ("::1".into(), 65535)] };
        let bytes = several.to_vec(true);
        assert_eq!(bytes[..8], hex("ff ff ff ff ff ff 00 01"));
        assert_eq!(bytes[20..], *b"a:1|[::1]:65535");
        assert_eq!(InitialMessage::decode(&bytes), Ok(Some((several, bytes.len()))));
    }

    #[test]
    fn wrong_initial_messages_are_refused_as_soon_as_seen() {
        assert_eq!(
            InitialMessage::decode(&(-1i64).to_be_bytes()),
            Err(InitialError::Protocol { number: -1 })
        );
        let with = |length: i32, text: &[u8]| {
            let mut bytes = hex(&INITIAL[..16 * 3]);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(text);
            InitialMessage::decode(&bytes)
        };
        for length in [0, -1, 2049, i32::MAX, i32::MIN] {
            assert_eq!(with(length, b""), Err(InitialError::Length { length }));
        }
        for text in
            ["a", "a:", ":1", "a:0", "a:65536", "[::1:1", "::1:1", "a b:1", "a:1|b:2", "a\n:1", "\u{7f}:1"]
        {
            let error = InitialError::Address { text: text.into() };
            assert_eq!(with(text.len() as i32, text.as_bytes()), Err(error), "{text:?}");
        }
        assert!(with(3, b"\xff:1").is_err());
        let many = InitialMessage { sid: 1, addresses: vec![("a".into(), 1); ADDRESSES_MAX + 1] };
        assert!(InitialMessage::decode(&many.to_vec(true)).is_err());
    }

    #[test]
    fn the_captured_notification_goes_both_ways() {
        let mut bytes = hex(HEAD);
        bytes.extend_from_slice(TEXT.as_bytes());
        assert_eq!(captured().frame(TEXT), bytes);
        assert_eq!(Notification::decode(&bytes[4..]), Ok((captured(), TEXT.as_bytes())));
    }

    #[test]
    fn every_length_is_treated_as_java_servers_do() {
        let bytes = captured().frame(TEXT).split_off(4);
        for length in 0..NOTIFICATION_HEAD_BYTES {
            let read = Notification::decode(&bytes[..length]);
            match length {
                28 | 40 => {
                    assert_eq!(read, Ok((Notification { version: 0, ..captured() }, &[][..])), "{length}");
                }
                _ => assert_eq!(read, Err(NotificationError::Length { bytes: length })),
            }
        }
        // The oldest layout has the epoch in the zxid alone.
        let mut old = bytes[..28].to_vec();
        old[12..20].copy_from_slice(&0x7_0000_0009i64.to_be_bytes());
        assert_eq!(Notification::decode(&old).unwrap().0.peer_epoch, 7);
        let mut empty = bytes[..44].to_vec();
        empty[40..].fill(0);
        assert_eq!(Notification::decode(&empty), Ok((captured(), &[][..])));
        for length in [-1i32, i32::MIN, 1, i32::MAX] {
            empty[40..].copy_from_slice(&length.to_be_bytes());
            assert_eq!(Notification::decode(&empty), Err(NotificationError::Text { length, bytes: 44 }));
        }
        empty[..4].copy_from_slice(&4i32.to_be_bytes());
        assert_eq!(Notification::decode(&empty), Err(NotificationError::State { number: 4 }));
    }
}
