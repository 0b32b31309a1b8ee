//! A server that answers in the right sizes and does nothing: what the machine and the runtime alone cost.
//!
//! One thread of monoio, as ringkeeper's cores are. A connection's requests are answered in one send per receive. It keeps no
//! state but who watches: a setData sends an event to every connection that read with a watch since.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use ringkeeper::jute::{JuteError, Reader, put_buffer, put_i32, put_string, put_strings};
use ringkeeper::proto::client::{
    ConnectRequest, ConnectResponse, EventType, Frame, OpCode, RequestHeader, XID_PING, put_notification,
};
use ringkeeper::proto::{ErrorCode, Stat};
use ringkeeper::types::{SessionId, Zxid};

use crate::failure::{Context, Result};
use crate::scenario::load::LIST_CHILDREN;
use crate::sys;

/// Bytes taken from a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes a request may have.
const REQUEST_BYTES_MAX: usize = 2 << 20;
const RING_ENTRIES: u32 = 1024;

/// Serves until killed: on a ring, or on epoll where rings are refused.
pub fn serve(port: u16, value_bytes: usize) -> Result<()> {
    let mut ring = uring06::IoUring::builder();
    ring.setup_single_issuer().setup_coop_taskrun();
    let flagged = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(ring)
        .build();
    match flagged {
        Ok(mut runtime) => runtime.block_on(accept(port, value_bytes)),
        Err(error) => {
            eprintln!("the echo server runs on epoll: a ring is refused: {error}");
            monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
                .build()
                .context("cannot make an epoll runtime")?
                .block_on(accept(port, value_bytes))
        }
    }
}

async fn accept(port: u16, value_bytes: usize) -> Result<()> {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(addr).context(format_args!("cannot listen on {addr}"))?;
    let watchers = Rc::new(RefCell::new(Vec::new()));
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept")?;
        stream.set_nodelay(true)?;
        monoio::spawn(connection(stream, vec![b'e'; value_bytes], watchers.clone()));
    }
}

/// Connections that are owed an event.
type Watchers = Rc<RefCell<Vec<RawFd>>>;

async fn connection(mut stream: TcpStream, value: Vec<u8>, watchers: Watchers) {
    let fd = stream.as_raw_fd();
    // Whatever ends a connection here ends it for the client too, which tells what it missed.
    let _ = talk(&mut stream, &value, &watchers).await;
    watchers.borrow_mut().retain(|watcher| *watcher != fd);
}

async fn talk(stream: &mut TcpStream, value: &[u8], watchers: &Watchers) -> std::io::Result<()> {
    let fd = stream.as_raw_fd();
    let mut buffer = vec![0; READ_BYTES];
    let mut partial = Vec::new();
    let mut out = Vec::new();
    let mut conversation = Echo { value, connected: false, closing: false, watches: false, changed: false };
    while !conversation.closing {
        let (count, returned) = stream.read(buffer).await;
        buffer = returned;
        let count = count?;
        if count == 0 {
            return Ok(());
        }
        if partial.is_empty() {
            let used = conversation.answer(&buffer[..count], &mut out).map_err(std::io::Error::other)?;
            partial.extend_from_slice(&buffer[used..count]);
        } else {
            partial.extend_from_slice(&buffer[..count]);
            let used = conversation.answer(&partial, &mut out).map_err(std::io::Error::other)?;
            partial.drain(..used);
        }
        if std::mem::take(&mut conversation.watches) {
            watchers.borrow_mut().push(fd);
        }
        if std::mem::take(&mut conversation.changed) {
            let mut event = Vec::new();
            put_notification(&mut event, Zxid(1), EventType::NodeDataChanged, "/bench/storm");
            for watcher in watchers.borrow_mut().drain(..) {
                // A watcher whose socket is full is not waited for: the generator misses its event and says so.
                let _ = sys::send_now(watcher, &event);
            }
        }
        let sent = match sys::send_now(fd, &out) {
            Ok(sent) => sent,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent < out.len() {
            let (written, _) = stream.write_all(out.split_off(sent)).await;
            written?;
        }
        out.clear();
    }
    Ok(())
}

struct Echo<'a> {
    value: &'a [u8],
    connected: bool,
    closing: bool,
    /// A read asked for a watch.
    watches: bool,
    /// A write would have fired watches.
    changed: bool,
}

impl Echo<'_> {
    /// Answers the whole frames of `bytes`. Returns the bytes they took.
    fn answer(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> std::result::Result<usize, JuteError> {
        let mut used = 0;
        while let Some((length, rest)) = bytes[used..].split_first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            if !(0..=REQUEST_BYTES_MAX as i32).contains(&length) {
                return Err(JuteError::Length { offset: used, length });
            }
            let Some(payload) = rest.get(..length as usize) else { break };
            used += 4 + payload.len();
            self.frame(payload, out)?;
        }
        Ok(used)
    }

    fn frame(&mut self, payload: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), JuteError> {
        if !self.connected {
            self.connected = true;
            let request = ConnectRequest::decode(payload)?;
            let response = ConnectResponse {
                timeout_ms: request.timeout_ms.max(1),
                session: SessionId(1),
                password: [0; 16],
                read_only: request.read_only,
            };
            response.encode_frame(out);
            return Ok(());
        }
        let mut reader = Reader::new(payload);
        let header = RequestHeader::decode(&mut reader)?;
        let op = OpCode::of(header.op);
        let xid = if op == Some(OpCode::Ping) { XID_PING } else { header.xid };
        let frame = Frame::begin_reply(out, xid, Zxid(1), ErrorCode::Ok);
        match op {
            Some(OpCode::Create) => put_string(out, &reader.string()?.unwrap_or_default()),
            Some(OpCode::GetData) => {
                reader.buffer()?;
                self.watches |= reader.bool()?;
                put_buffer(out, Some(self.value));
                Stat::default().encode(out);
            }
            Some(OpCode::SetData) => {
                self.changed = true;
                Stat::default().encode(out);
            }
            Some(OpCode::Exists | OpCode::SetAcl) => Stat::default().encode(out),
            Some(OpCode::GetChildren) => put_strings(out, (0..LIST_CHILDREN).map(|_| "child-000000")),
            Some(OpCode::GetAllChildrenNumber) => put_i32(out, 0),
            Some(OpCode::CloseSession) => self.closing = true,
            _ => {}
        }
        frame.end(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringkeeper::client::{Conversation, Incoming, Message, Request, Response};

    #[test]
    fn answers_have_the_shape_of_the_real_ones() {
        let mut sent = Vec::new();
        let connect = ConnectRequest {
            protocol_version: 0,
            zxid_seen: Zxid::ZERO,
            timeout_ms: 10,
            session: SessionId::NONE,
            password: None,
            read_only: Some(false),
        };
        connect.encode_frame(&mut sent);
        let mut client = Conversation::new(Zxid::ZERO);
        client.submit(&Request::GetData { path: "/a", watch: true }, &mut sent);
        client.submit(&Request::CloseSession, &mut sent);
        let value = [7; 3];
        let mut echo =
            Echo { value: &value, connected: false, closing: false, watches: false, changed: false };
        let mut out = Vec::new();
        assert_eq!(echo.answer(&sent, &mut out), Ok(sent.len()));
        assert!(echo.closing && echo.watches && !echo.changed);
        client.received(&out);
        assert!(matches!(client.next_incoming(), Ok(Some(Incoming::Connected(_)))));
        let Ok(Some(Incoming::Message(Message::Reply(reply)))) = client.next_incoming() else {
            panic!("no reply")
        };
        assert_eq!(reply.response, Response::Data { data: Some(value.to_vec()), stat: Stat::default() });
        assert!(matches!(client.next_incoming(), Ok(Some(_))));
    }
}
