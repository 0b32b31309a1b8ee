//! One connection without I/O.
//!
//! Replies come in the order of their requests, which is checked here; ping, auth and sasl are exempt, as they are for
//! ZooKeeper's own clients (client-protocol §6.2).

use std::collections::VecDeque;

use crate::client::reply::{Event, Message, Reply, ReplyError, Response};
use crate::client::request::Request;
use crate::jute::{JuteError, Reader};
use crate::proto::client::{ConnectResponse, OpCode, XID_AUTH, XID_NOTIFICATION, XID_PING};
use crate::types::Zxid;

/// Bytes a frame from a server may hold: servers do not bound theirs, this client does.
pub const REPLY_BYTES_MAX: usize = 1 << 30;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Bytes at the front that frames already taken have used.
    taken: usize,
}

impl FrameBuffer {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The payload of the next whole frame, or `None` until there is one.
    ///
    /// Fails on a negative length or one over [`REPLY_BYTES_MAX`].
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, JuteError> {
        let Some((length, rest)) = self.bytes[self.taken..].split_first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let size = usize::try_from(length).ok().filter(|size| *size <= REPLY_BYTES_MAX);
        let Some(size) = size else { return Err(JuteError::Length { offset: 0, length }) };
        if rest.len() < size {
            return Ok(None);
        }
        let from = self.taken + 4;
        self.taken = from + size;
        Ok(Some(&self.bytes[from..from + size]))
    }

    /// Bytes that no frame has used.
    pub fn unused(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

/// What [`Conversation::next_incoming`] took from the bytes so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// The first frame.
    Connected(ConnectResponse),
    Message(Message),
}

/// The state of one connection: what was asked and not yet answered.
///
/// Requests may be submitted before the handshake is answered. Unanswered ones are not bounded here: their sender does.
#[derive(Debug, Default)]
pub struct Conversation {
    frames: FrameBuffer,
    connected: bool,
    xid_last: i32,
    zxid_seen: Zxid,
    unanswered: VecDeque<Unanswered>,
}

#[derive(Clone, Copy, Debug)]
struct Unanswered {
    xid: i32,
    op: i32,
}

impl Unanswered {
    /// May be overtaken, and overtake.
    fn is_exempt(self) -> bool {
        matches!(OpCode::of(self.op), Some(OpCode::Ping | OpCode::Auth | OpCode::Sasl))
    }
}

impl Conversation {
    pub fn new(zxid_seen: Zxid) -> Conversation {
        Conversation { zxid_seen, ..Conversation::default() }
    }

    /// The greatest zxid any reply or event carried.
    pub fn zxid_seen(&self) -> Zxid {
        self.zxid_seen
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Appends a request's frame under the next xid, or the customary one of pings and auth packets.
    pub fn submit(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> i32 {
        let xid = match request {
            Request::Ping => XID_PING,
            Request::Auth { .. } => XID_AUTH,
            _ => {
                // Positive and never zero, as clients count.
                self.xid_last = if self.xid_last == i32::MAX { 1 } else { self.xid_last + 1 };
                self.xid_last
            }
        };
        self.submit_as(xid, request, out);
        xid
    }

    /// As [`Conversation::submit`], under any xid.
    pub fn submit_as(&mut self, xid: i32, request: &Request<'_>, out: &mut Vec<u8>) {
        request.encode_frame(xid, out);
        let op = request.op();
        // The reply to a ping carries -2 whatever the request did.
        let xid = if op == OpCode::Ping.number() { XID_PING } else { xid };
        self.unanswered.push_back(Unanswered { xid, op });
    }

    pub fn received(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// Bytes that came in and make no whole frame yet.
    pub fn unused(&self) -> &[u8] {
        self.frames.unused()
    }

    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, ReplyError> {
        let Some(frame) = self.frames.next_frame()? else { return Ok(None) };
        if !self.connected {
            self.connected = true;
            return Ok(Some(Incoming::Connected(ConnectResponse::decode(frame)?)));
        }
        let mut reader = Reader::new(frame);
        let xid = reader.i32()?;
        let zxid = Zxid(reader.i64()?);
        let err = reader.i32()?;
        self.zxid_seen = self.zxid_seen.max(zxid);
        if xid == XID_NOTIFICATION {
            return Ok(Some(Incoming::Message(Message::Event(Event::decode(zxid, reader.rest())?))));
        }
        let op = answered(&mut self.unanswered, xid)?;
        let response = Response::decode(op, err, reader.rest())?;
        Ok(Some(Incoming::Message(Message::Reply(Reply { xid, zxid, err, response }))))
    }
}

/// Takes the request that `xid` answers from the queue and returns its type.
fn answered(unanswered: &mut VecDeque<Unanswered>, xid: i32) -> Result<i32, ReplyError> {
    let expected = unanswered.iter().find(|request| !request.is_exempt()).map(|request| request.xid);
    let index = unanswered
        .iter()
        .position(|request| request.xid == xid)
        .filter(|index| {
            unanswered[*index].is_exempt() || unanswered.iter().take(*index).all(|before| before.is_exempt())
        })
        .ok_or(ReplyError::OutOfOrder { xid, expected })?;
    Ok(unanswered.remove(index).expect("found above").op)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ErrorCode;
    use crate::proto::client::Frame;
    use crate::types::SessionId;

    fn connected() -> Conversation {
        let mut bytes = Vec::new();
        let response = ConnectResponse {
            timeout_ms: 1,
            session: SessionId(2),
            password: [3; 16],
            read_only: Some(false),
        };
        response.encode_frame(&mut bytes);
        let mut conversation = Conversation::new(Zxid::ZERO);
        conversation.received(&bytes);
        assert_eq!(conversation.next_incoming(), Ok(Some(Incoming::Connected(response))));
        conversation
    }

    fn header(xid: i32, zxid: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = Frame::begin_reply(&mut bytes, xid, Zxid(zxid), ErrorCode::Ok);
        frame.end(&mut bytes);
        bytes
    }

    fn xid_of(incoming: Result<Option<Incoming>, ReplyError>) -> Result<i32, ReplyError> {
        match incoming? {
            Some(Incoming::Message(Message::Reply(reply))) => Ok(reply.xid),
            other => panic!("a reply was expected, not {other:?}"),
        }
    }

    #[test]
    fn frames_come_out_whatever_the_pieces_they_come_in() {
        let mut conversation = connected();
        let mut out = Vec::new();
        conversation.submit(&Request::Delete { path: "/a", version: None }, &mut out);
        for byte in header(1, 7) {
            assert_eq!(conversation.next_incoming(), Ok(None));
            conversation.received(&[byte]);
        }
        assert_eq!(xid_of(conversation.next_incoming()), Ok(1));
        assert_eq!(conversation.zxid_seen(), Zxid(7));
        assert_eq!(conversation.unanswered(), 0);
    }

    #[test]
    fn pings_and_auth_may_be_answered_out_of_turn() {
        let mut conversation = connected();
        let mut out = Vec::new();
        conversation.submit(&Request::Ping, &mut out);
        conversation.submit(&Request::Delete { path: "/a", version: None }, &mut out);
        conversation.submit(&Request::Auth { scheme: "digest", auth: Some(b"u:p") }, &mut out);
        for xid in [-4, 1, -2] {
            conversation.received(&header(xid, 1));
            assert_eq!(xid_of(conversation.next_incoming()), Ok(xid));
        }
    }

    #[test]
    fn other_replies_keep_their_order() {
        let mut conversation = connected();
        let mut out = Vec::new();
        for path in ["/a", "/b"] {
            conversation.submit(&Request::Delete { path, version: None }, &mut out);
        }
        conversation.received(&header(2, 1));
        assert_eq!(conversation.next_incoming(), Err(ReplyError::OutOfOrder { xid: 2, expected: Some(1) }));
    }

    #[test]
    fn a_negative_length_is_an_error() {
        let mut frames = FrameBuffer::default();
        frames.push(&(-5i32).to_be_bytes());
        assert_eq!(frames.next_frame(), Err(JuteError::Length { offset: 0, length: -5 }));
    }
}
