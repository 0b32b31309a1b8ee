//! Many sessions on one thread: sockets, framing, the handshake. What is sent and what answers mean is a [`Driver`]'s.
//!
//! One pass takes each ready connection in turn: one receive, all its frames to the driver, one send of all the driver
//! wrote. A quiet connection keeps no buffer. Plain epoll: on loopback it is within 5 % of a hand-written ring, both being
//! the kernel's send and receive.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ringkeeper::client::Request;
use ringkeeper::jute::Reader;
use ringkeeper::proto::client::{ConnectRequest, ConnectResponse};
use ringkeeper::types::{SessionId, Zxid};
use socket2::{Domain, Protocol, Socket, Type};

use crate::fail;
use crate::failure::{Context, Result};
use crate::sys::{self, Epoll, Ready};

/// Bytes taken from one connection at once.
const READ_BYTES: usize = 256 * 1024;
/// Bytes a connection may hold of a frame not yet whole.
const PARTIAL_BYTES_MAX: usize = 16 << 20;
/// Connections made from one source address of the loopback net: fewer than there are ephemeral ports.
const CONNECTIONS_PER_ADDRESS: usize = 20_000;
/// How long a wait may last before signals and the clock are looked at.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Says what the sessions do.
pub trait Driver {
    /// The session of `peer` is open.
    fn opened(&mut self, peer: &mut Peer<'_>, response: &ConnectResponse) -> Result<()>;
    /// A reply or event came.
    fn answered(&mut self, peer: &mut Peer<'_>, answer: &Answer<'_>) -> Result<()>;
    /// The server closed the connection at a frame's end.
    fn closed(&mut self, index: usize) -> Result<()> {
        fail!("the server closed the connection of session {index}")
    }
}

/// One session, as a driver sees it while it is that session's turn.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its number, from zero, in the order of [`Net::connect`].
    pub index: usize,
    /// When the bytes of this turn were there, ns since the start of the net.
    pub now_ns: u64,
    /// What is written here is sent at the end of the turn.
    pub out: &'a mut Vec<u8>,
}

impl Peer<'_> {
    pub fn send(&mut self, xid: i32, request: &Request<'_>) {
        request.encode_frame(xid, self.out);
    }
}

/// A frame behind the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
    pub body: &'a [u8],
}

/// The connections, and what they wait for.
#[derive(Debug)]
pub struct Net {
    epoll: Epoll,
    start: Instant,
    addr: SocketAddr,
    connections: Vec<Connection>,
    open: usize,
    ready: Vec<Ready>,
    read_buffer: Box<[u8]>,
    out: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: Option<TcpStream>,
    addr: SocketAddr,
    state: State,
    timeout_ms: i32,
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// What the socket did not take; the kernel tells when it will.
    unsent: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting,
    Handshake,
    Open,
    Closed,
}

impl Net {
    pub fn new(addr: SocketAddr) -> Result<Net> {
        Ok(Net {
            epoll: Epoll::new().context("cannot make an epoll instance")?,
            start: Instant::now(),
            addr,
            connections: Vec::new(),
            open: 0,
            ready: Vec::new(),
            read_buffer: vec![0; READ_BYTES].into_boxed_slice(),
            out: Vec::new(),
        })
    }

    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Sessions begun so far, whatever became of them.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Sessions whose handshake is done and whose connection stands.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Begins a connection and its session. Returns its index.
    pub fn connect(&mut self, timeout_ms: i32) -> Result<usize> {
        self.connect_to(self.addr, timeout_ms)
    }

    /// Likewise, to another address: that of a member of an ensemble.
    pub fn connect_to(&mut self, addr: SocketAddr, timeout_ms: i32) -> Result<usize> {
        let index = self.connections.len();
        let doing = || format!("cannot connect session {index} to {addr}");
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))
            .context(doing())?;
        socket.set_nodelay(true).context(doing())?;
        if addr.ip().is_loopback() && addr.is_ipv4() {
            let host = 1 + index / CONNECTIONS_PER_ADDRESS;
            let source = IpAddr::V4(Ipv4Addr::new(127, 0, (host >> 8) as u8, host as u8));
            if host > 1 {
                socket.bind(&SocketAddr::new(source, 0).into()).context(doing())?;
            }
        }
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => fail!("{}: {error}", doing()),
        }
        let stream = TcpStream::from(socket);
        self.epoll.add(stream.as_fd(), index as u64, true)?;
        self.connections.push(Connection {
            stream: Some(stream),
            addr,
            state: State::Connecting,
            timeout_ms,
            partial: Vec::new(),
            unsent: Vec::new(),
        });
        Ok(index)
    }

    /// Drops the connection without a word.
    pub fn disconnect(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.state == State::Open {
            self.open -= 1;
        }
        connection.state = State::Closed;
        connection.stream = None;
    }

    /// Lets the driver write to one session outside of its turn.
    pub fn write(&mut self, index: usize, write: impl FnOnce(&mut Peer<'_>) -> Result<()>) -> Result<()> {
        self.out.clear();
        let now_ns = self.now_ns();
        write(&mut Peer { index, now_ns, out: &mut self.out })?;
        self.flush(index)
    }

    /// Waits for something to happen, up to `wait`, and handles it. Fails when the run was interrupted.
    pub fn turn(&mut self, wait: Duration, driver: &mut impl Driver) -> Result<()> {
        if sys::interrupted() {
            fail!("interrupted");
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.epoll.wait(&mut ready, wait.min(WAIT_MAX))?;
        for event in &ready {
            let index = event.token as usize;
            if event.writable {
                self.writable(index)?;
            }
            if event.readable {
                self.readable(index, driver)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// Turns until `done`, which is asked after each. Fails after `patience`.
    pub fn run<D: Driver>(
        &mut self,
        driver: &mut D,
        patience: Duration,
        doing: &str,
        mut done: impl FnMut(&Net, &D) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !done(self, driver) {
            if Instant::now() >= deadline {
                fail!("{doing}: not done within {} s", patience.as_secs());
            }
            self.turn(WAIT_MAX, driver)?;
        }
        Ok(())
    }

    fn writable(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let Some(stream) = &connection.stream else { return Ok(()) };
        if connection.state == State::Connecting {
            if let Some(error) = stream.take_error()? {
                fail!("cannot connect session {index} to {}: {error}", connection.addr);
            }
            connection.state = State::Handshake;
            self.epoll.modify(stream.as_fd(), index as u64, false)?;
            self.out.clear();
            ConnectRequest {
                protocol_version: 0,
                zxid_seen: Zxid::ZERO,
                timeout_ms: connection.timeout_ms,
                session: SessionId::NONE,
                password: Some(&[0; 16]),
                read_only: Some(false),
            }
            .encode_frame(&mut self.out);
            return self.flush(index);
        }
        if !connection.unsent.is_empty() {
            self.out.clear();
            let unsent = std::mem::take(&mut connection.unsent);
            self.epoll.modify(stream.as_fd(), index as u64, false)?;
            self.out.extend_from_slice(&unsent);
            return self.flush(index);
        }
        Ok(())
    }

    fn readable(&mut self, index: usize, driver: &mut impl Driver) -> Result<()> {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else { return Ok(()) };
        let count = match stream.read(&mut self.read_buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => fail!("session {index} failed: {error}"),
        };
        if count == 0 {
            if connection.state != State::Open {
                fail!("the server closed the connection of session {index} in its handshake");
            }
            self.disconnect(index);
            return driver.closed(index);
        }
        let now_ns = self.start.elapsed().as_nanos() as u64;
        let mut peer = Peer { index, now_ns, out: &mut self.out };
        peer.out.clear();
        let connection = &mut self.connections[index];
        if connection.partial.is_empty() {
            let bytes = &self.read_buffer[..count];
            let used = frames(bytes, &mut connection.state, &mut self.open, &mut peer, driver)?;
            connection.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut bytes = std::mem::take(&mut connection.partial);
            if bytes.len() + count > PARTIAL_BYTES_MAX {
                fail!("session {index} got a frame of more than {PARTIAL_BYTES_MAX} bytes");
            }
            bytes.extend_from_slice(&self.read_buffer[..count]);
            let used = frames(&bytes, &mut connection.state, &mut self.open, &mut peer, driver)?;
            bytes.drain(..used);
            if !bytes.is_empty() {
                connection.partial = bytes;
            }
        }
        if self.out.is_empty() { Ok(()) } else { self.flush(index) }
    }

    /// Sends what is in `out`; keeps what the socket does not take.
    fn flush(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else {
            fail!("session {index} is closed and was written to");
        };
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(&self.out);
            return Ok(());
        }
        let mut sent = 0;
        while sent < self.out.len() {
            match stream.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.unsent.extend_from_slice(&self.out[sent..]);
                    self.epoll.modify(stream.as_fd(), index as u64, true)?;
                    return Ok(());
                }
                Err(error) => fail!("session {index} failed: {error}"),
            }
        }
        Ok(())
    }
}

/// Hands the whole frames of `bytes` to the driver. Returns the bytes they took.
fn frames(
    bytes: &[u8],
    state: &mut State,
    open: &mut usize,
    peer: &mut Peer<'_>,
    driver: &mut impl Driver,
) -> Result<usize> {
    let mut used = 0;
    while let Some((length, rest)) = bytes[used..].split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > PARTIAL_BYTES_MAX {
            fail!("session {} got a frame of {length} bytes", peer.index);
        }
        let Some(payload) = rest.get(..length) else { break };
        used += 4 + length;
        if *state == State::Open {
            let mut reader = Reader::new(payload);
            let answer =
                Answer { xid: reader.i32()?, zxid: reader.i64()?, err: reader.i32()?, body: reader.rest() };
            driver.answered(peer, &answer)?;
        } else {
            let response = ConnectResponse::decode(payload)?;
            if response.timeout_ms <= 0 {
                fail!("the server refused session {}", peer.index);
            }
            *state = State::Open;
            *open += 1;
            driver.opened(peer, &response)?;
        }
    }
    Ok(used)
}
