//! A conversation over a blocking socket, with deadlines; the only file of this module that opens sockets.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::client::conversation::{Conversation, Incoming};
use crate::client::reply::{Event, Message, MultiResult, Reply, ReplyError, Response};
use crate::client::request::Request;
use crate::proto::client::{ConnectRequest, CreateMode, PASSWORD_BYTES};
use crate::proto::{ErrorCode, Stat};
use crate::types::{SessionId, Zxid};

/// How long a call waits for its reply unless [`Client::set_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// How a session is opened or taken up again.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Asked for; the server clamps it.
    pub timeout_ms: i32,
    /// [`SessionId::NONE`] opens a new session.
    pub session: SessionId,
    pub password: [u8; PASSWORD_BYTES],
    pub zxid_seen: Zxid,
    /// `None` leaves the byte out, as clients before 3.4 do.
    pub read_only: Option<bool>,
    /// For the connection and the handshake together.
    pub patience: Duration,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            timeout_ms: 30_000,
            session: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            zxid_seen: Zxid::ZERO,
            read_only: Some(false),
            patience: PATIENCE,
        }
    }
}

/// Why a call has no answer, or not the one asked for.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server refused the session: expired, unknown, or its password is wrong")]
    Refused,
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] ReplyError),
    #[error("the server answered with error {err}")]
    Server { err: i32 },
    #[error("the server answered {response:?}, which does not fit the request")]
    Unexpected { response: Response },
}

impl ClientError {
    /// The server's error number, where it is one.
    pub fn code(&self) -> Option<i32> {
        match self {
            ClientError::Server { err } => Some(*err),
            _ => None,
        }
    }

    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code.code())
    }
}

/// A session over one connection. Dropping it drops the connection; the session then lives until its timeout.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    conversation: Conversation,
    /// Encoded and not yet sent.
    out: Vec<u8>,
    read_buffer: Vec<u8>,
    /// Events that came while a call waited for its reply.
    events: VecDeque<Event>,
    session: SessionId,
    password: [u8; PASSWORD_BYTES],
    timeout_ms: i32,
    read_only: Option<bool>,
    patience: Duration,
}

impl Client {
    pub fn connect(addr: SocketAddr, options: &ConnectOptions) -> Result<Client, ClientError> {
        let deadline = Instant::now() + options.patience;
        let stream = TcpStream::connect_timeout(&addr, options.patience)?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            conversation: Conversation::new(options.zxid_seen),
            out: Vec::new(),
            read_buffer: vec![0; READ_BYTES],
            events: VecDeque::new(),
            session: SessionId::NONE,
            password: [0; PASSWORD_BYTES],
            timeout_ms: 0,
            read_only: None,
            patience: options.patience,
        };
        let request = ConnectRequest {
            protocol_version: 0,
            zxid_seen: options.zxid_seen,
            timeout_ms: options.timeout_ms,
            session: options.session,
            password: Some(&options.password),
            read_only: options.read_only,
        };
        request.encode_frame(&mut client.out);
        client.flush()?;
        match client.incoming(deadline, options.patience)? {
            Incoming::Connected(response) if response.timeout_ms <= 0 => Err(ClientError::Refused),
            Incoming::Connected(response) => {
                client.session = response.session;
                client.password = response.password;
                client.timeout_ms = response.timeout_ms;
                client.read_only = response.read_only;
                client.patience = PATIENCE;
                Ok(client)
            }
            Incoming::Message(_) => unreachable!("the first frame is the handshake's"),
        }
    }

    /// A new session with a timeout of 30 s asked for.
    pub fn open(addr: SocketAddr) -> Result<Client, ClientError> {
        Client::connect(addr, &ConnectOptions::default())
    }

    pub fn session(&self) -> SessionId {
        self.session
    }

    pub fn password(&self) -> [u8; PASSWORD_BYTES] {
        self.password
    }

    /// As the server granted it.
    pub fn timeout_ms(&self) -> i32 {
        self.timeout_ms
    }

    /// `None`: the answer had no such byte.
    pub fn read_only(&self) -> Option<bool> {
        self.read_only
    }

    pub fn zxid_seen(&self) -> Zxid {
        self.conversation.zxid_seen()
    }

    /// What takes this session up again on another connection.
    pub fn reconnect_options(&self) -> ConnectOptions {
        ConnectOptions {
            timeout_ms: self.timeout_ms,
            session: self.session,
            password: self.password,
            zxid_seen: self.zxid_seen(),
            ..ConnectOptions::default()
        }
    }

    /// How long the calls below wait.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Encodes a request behind those queued and sends nothing. Returns its xid.
    pub fn queue(&mut self, request: &Request<'_>) -> i32 {
        self.conversation.submit(request, &mut self.out)
    }

    /// As [`Client::queue`], under any xid.
    pub fn queue_as(&mut self, xid: i32, request: &Request<'_>) {
        self.conversation.submit_as(xid, request, &mut self.out);
    }

    /// Queues bytes as they are, frame or not; no reply is expected for them.
    pub fn queue_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends all that is queued, in one write where the socket takes it.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent.map_err(connection_error)
    }

    /// Sends a request without waiting for its reply. Returns its xid.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<i32, ClientError> {
        let xid = self.queue(request);
        self.flush()?;
        Ok(xid)
    }

    /// The next frame, in the order the server sent them, events kept by earlier calls first.
    pub fn receive(&mut self, wait: Duration) -> Result<Message, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Message::Event(event));
        }
        self.receive_frame(Instant::now() + wait, wait)
    }

    /// The next reply; events before it are kept for [`Client::next_event`].
    pub fn receive_reply(&mut self) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.receive_frame(deadline, self.patience)? {
                Message::Reply(reply) => return Ok(reply),
                Message::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// The next event. A reply that comes first is an error: there is nobody to give it to.
    pub fn next_event(&mut self, wait: Duration) -> Result<Event, ClientError> {
        match self.receive(wait)? {
            Message::Event(event) => Ok(event),
            Message::Reply(reply) => Err(ClientError::Unexpected { response: reply.response }),
        }
    }

    /// The events that calls met so far.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    /// Sends a request and waits for its reply, whatever its error code. Replies to earlier requests must be taken first.
    pub fn call(&mut self, request: &Request<'_>) -> Result<Reply, ClientError> {
        let xid = self.submit(request)?;
        let reply = self.receive_reply()?;
        if reply.xid != xid {
            return Err(ReplyError::OutOfOrder { xid: reply.xid, expected: Some(xid) }.into());
        }
        Ok(reply)
    }

    /// Waits until the server has closed the connection. Anything it sends before is an error.
    pub fn wait_closed(&mut self, wait: Duration) -> Result<(), ClientError> {
        match self.receive(wait) {
            Err(ClientError::Closed) => Ok(()),
            Err(error) => Err(error),
            Ok(Message::Reply(reply)) => Err(ClientError::Unexpected { response: reply.response }),
            Ok(Message::Event(event)) => {
                Err(ClientError::Unexpected { response: Response::Path(Some(event.path)) })
            }
        }
    }

    fn receive_frame(&mut self, deadline: Instant, wait: Duration) -> Result<Message, ClientError> {
        match self.incoming(deadline, wait)? {
            Incoming::Message(message) => Ok(message),
            Incoming::Connected(_) => unreachable!("the handshake was answered"),
        }
    }

    fn incoming(&mut self, deadline: Instant, wait: Duration) -> Result<Incoming, ClientError> {
        loop {
            if let Some(incoming) = self.conversation.next_incoming()? {
                return Ok(incoming);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // What has already come is read even when the deadline has passed; a zero timeout would mean none.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut self.read_buffer) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.conversation.received(&self.read_buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    if Instant::now() >= deadline {
                        return Err(ClientError::Timeout(wait));
                    }
                }
                Err(error) => return Err(connection_error(error)),
            }
        }
    }
}

/// One call, one answer; an error code becomes [`ClientError::Server`].
impl Client {
    fn ask(&mut self, request: &Request<'_>) -> Result<Response, ClientError> {
        let reply = self.call(request)?;
        if reply.is_ok() { Ok(reply.response) } else { Err(ClientError::Server { err: reply.err }) }
    }

    /// Makes a node with an open ACL and returns its path.
    pub fn create(&mut self, path: &str, data: &[u8], mode: CreateMode) -> Result<String, ClientError> {
        match self.ask(&Request::create(path, data, mode))? {
            Response::Path(Some(path)) | Response::Created { path, .. } => Ok(path),
            response => Err(ClientError::Unexpected { response }),
        }
    }

    pub fn delete(&mut self, path: &str, version: Option<i32>) -> Result<(), ClientError> {
        self.ask(&Request::Delete { path, version }).map(drop)
    }

    /// `None`: no such node.
    pub fn exists(&mut self, path: &str, watch: bool) -> Result<Option<Stat>, ClientError> {
        match self.ask(&Request::Exists { path, watch }) {
            Err(error) if error.is(ErrorCode::NoNode) => Ok(None),
            answer => stat(answer?).map(Some),
        }
    }

    pub fn get_data(&mut self, path: &str, watch: bool) -> Result<(Option<Vec<u8>>, Stat), ClientError> {
        match self.ask(&Request::GetData { path, watch })? {
            Response::Data { data, stat } => Ok((data, stat)),
            response => Err(ClientError::Unexpected { response }),
        }
    }

    pub fn set_data(&mut self, path: &str, data: &[u8], version: Option<i32>) -> Result<Stat, ClientError> {
        stat(self.ask(&Request::SetData { path, data: Some(data), version })?)
    }

    /// Sorted: servers give no order.
    pub fn get_children(&mut self, path: &str, watch: bool) -> Result<Vec<String>, ClientError> {
        match self.ask(&Request::GetChildren { path, watch })? {
            Response::Paths(mut children) => {
                children.sort_unstable();
                Ok(children)
            }
            response => Err(ClientError::Unexpected { response }),
        }
    }

    pub fn multi(&mut self, ops: &[Request<'_>]) -> Result<Vec<MultiResult>, ClientError> {
        match self.ask(&Request::Multi(ops))? {
            Response::Multi(results) => Ok(results),
            response => Err(ClientError::Unexpected { response }),
        }
    }

    pub fn sync(&mut self, path: &str) -> Result<(), ClientError> {
        self.ask(&Request::Sync { path }).map(drop)
    }

    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.ask(&Request::Ping).map(drop)
    }

    pub fn auth(&mut self, scheme: &str, auth: &[u8]) -> Result<(), ClientError> {
        self.ask(&Request::Auth { scheme, auth: Some(auth) }).map(drop)
    }

    /// Ends the session, and waits for the server to close the connection.
    pub fn close(mut self) -> Result<(), ClientError> {
        self.ask(&Request::CloseSession)?;
        self.events.clear();
        self.wait_closed(self.patience)
    }
}

fn stat(response: Response) -> Result<Stat, ClientError> {
    match response {
        Response::Stat(stat) => Ok(stat),
        response => Err(ClientError::Unexpected { response }),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A connection the server no longer has looks the same whether its end came as FIN or as RST.
fn connection_error(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ClientError::Closed,
        _ => ClientError::Io(error),
    }
}

/// Asks a four-letter word and returns the answer, which the server ends by closing.
pub fn four_letter(addr: SocketAddr, word: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&addr, patience)?;
    stream.write_all(word.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(answer),
            Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::proto::client::{ConnectResponse, EventType, Frame, OpCode, RequestHeader, put_notification};

    /// A server of one connection: answers the handshake, then each request through `answer` until that says stop.
    fn serve(mut answer: impl FnMut(RequestHeader, &mut Vec<u8>) -> bool + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            let mut first = true;
            loop {
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut payload = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut payload).unwrap();
                let mut out = Vec::new();
                let go_on = if std::mem::take(&mut first) {
                    ConnectResponse {
                        timeout_ms: 4000,
                        session: SessionId(9),
                        password: [5; 16],
                        read_only: Some(false),
                    }
                    .encode_frame(&mut out);
                    true
                } else {
                    let mut reader = crate::jute::Reader::new(&payload);
                    answer(RequestHeader::decode(&mut reader).unwrap(), &mut out)
                };
                stream.write_all(&out).unwrap();
                if !go_on {
                    return;
                }
            }
        });
        addr
    }

    fn ok(xid: i32, out: &mut Vec<u8>) {
        let frame = Frame::begin_reply(out, xid, Zxid(3), ErrorCode::Ok);
        frame.end(out);
    }

    #[test]
    fn events_on_the_way_to_a_reply_are_kept() {
        let addr = serve(|header, out| {
            put_notification(out, Zxid(3), EventType::NodeDeleted, "/a");
            ok(header.xid, out);
            true
        });
        let mut client = Client::open(addr).unwrap();
        assert_eq!((client.session(), client.timeout_ms()), (SessionId(9), 4000));
        client.delete("/a", None).unwrap();
        let event = client.next_event(Duration::ZERO).unwrap();
        assert_eq!((event.kind, event.path.as_str()), (EventType::NodeDeleted, "/a"));
        assert_eq!(client.reconnect_options().zxid_seen, Zxid(3));
    }

    #[test]
    fn pipelined_requests_are_answered_in_turn() {
        let addr = serve(|header, out| {
            ok(header.xid, out);
            true
        });
        let mut client = Client::open(addr).unwrap();
        let xids: Vec<i32> =
            (0..50).map(|_| client.queue(&Request::Delete { path: "/a", version: None })).collect();
        client.flush().unwrap();
        for xid in xids {
            assert_eq!(client.receive_reply().unwrap().xid, xid);
        }
    }

    #[test]
    fn close_waits_for_the_server_to_hang_up() {
        let addr = serve(|header, out| {
            ok(header.xid, out);
            header.op != OpCode::CloseSession.number()
        });
        Client::open(addr).unwrap().close().unwrap();
    }

    #[test]
    fn silence_is_a_timeout() {
        let addr = serve(|_, _| true);
        let mut client = Client::open(addr).unwrap();
        client.set_patience(Duration::from_millis(20));
        assert!(matches!(client.ping(), Err(ClientError::Timeout(_))));
    }
}
