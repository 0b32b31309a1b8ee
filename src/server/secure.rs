//! TLS on client connections: between the socket and the front, on the core that has both.
//!
//! A connection in TLS has a [`Layer`] from its first byte on; one that has sent nothing costs what any other does.
//! Bytes are decrypted where they were received. Output stays plain in the front until the socket takes it: at most
//! [`PLAIN_BYTES`] at a time are encrypted, into a buffer the whole core shares, and only what the socket did not take
//! of it is kept. Before the handshake is through a connection keeps at most
//! [`HANDSHAKE_BYTES_MAX`](super::tls::session::HANDSHAKE_BYTES_MAX) of what it received and our side of the handshake,
//! which is our certificates and little more; and it has the time a session has to be asked for in, which the front sees
//! to (`nio.sessionlessCnxnTimeout`).

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::Rc;

use super::connection::{Connection, State};
use super::core::Core;
use super::door::Front;
use super::ports::FrontPort;
use super::tls::{self, Acceptor, Event, HANDSHAKE_RECORD, Session, TlsError};
use crate::io::sys;
use crate::types::Now;

/// Plaintext encrypted at once: four records.
const PLAIN_BYTES: usize = 64 << 10;
/// Plaintext sent for one connection in one turn.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Ciphertext that may wait for the socket. More than one piece and all a peer can provoke; beyond is an attack.
const PENDING_BYTES_MAX: usize = 256 << 10;

/// What a listener's connections speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speech {
    Plain,
    Tls,
    /// The first byte tells. Source: ZooKeeper `NettyServerCnxnFactory.DualModeSslHandler`.
    Either,
}

/// A connection's TLS.
pub(super) struct Layer {
    session: Session,
    verify_client_name: bool,
    /// Ciphertext the socket has not taken yet, and how much of it is sent.
    pending: Vec<u8>,
    pending_sent: usize,
    /// Nothing more is taken from the peer, and nothing more but `pending` is sent to it.
    failed: bool,
}

/// Why a connection is closed though TLS itself has nothing against it.
#[derive(Debug)]
enum Refusal {
    Tls(TlsError),
    Subject,
    Address,
    Room,
    Pending,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Tls(error) => error.fmt(f),
            Refusal::Subject => f.write_str("its certificate has a malformed subject"),
            Refusal::Address => f.write_str("its certificate does not name its address"),
            Refusal::Room => f.write_str("its certificate's subject is too long"),
            Refusal::Pending => f.write_str("it asks for answers and does not take them"),
        }
    }
}

impl Layer {
    fn new(acceptor: &Acceptor) -> Result<Layer, TlsError> {
        Ok(Layer {
            session: Session::accept(acceptor)?,
            verify_client_name: acceptor.verify_client_name,
            pending: Vec::new(),
            pending_sent: 0,
            failed: false,
        })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives the front what is in `bytes`. True: the peer has said that no more comes.
    fn received(
        &mut self,
        front: &mut Front<FrontPort>,
        now: Now,
        connection: &Connection,
        bytes: &mut [u8],
    ) -> Result<bool, Refusal> {
        let verify_client_name = self.verify_client_name;
        let mut refused = None;
        let mut ended = false;
        let taken = self.session.received(bytes, &mut self.pending, |event| match event {
            _ if refused.is_some() => {}
            Event::Established(certificate) => {
                refused = introduce(front, connection, certificate, verify_client_name).err();
            }
            Event::Plain(plain) => front.received(now, connection.id, plain),
            Event::PeerClosed => ended = true,
        });
        taken.map_err(Refusal::Tls)?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        if self.pending.len() - self.pending_sent > PENDING_BYTES_MAX {
            return Err(Refusal::Pending);
        }
        Ok(ended)
    }
}

/// Tells the front whom the handshake has shown.
fn introduce(
    front: &mut Front<FrontPort>,
    connection: &Connection,
    certificate: Option<&[u8]>,
    verify_name: bool,
) -> Result<(), Refusal> {
    let Some(certificate) = certificate else {
        front.secured(connection.id, None);
        return Ok(());
    };
    let address: IpAddr = connection.address();
    if verify_name && !tls::names_address(certificate, address) {
        return Err(Refusal::Address);
    }
    let subject = tls::subject(certificate).ok_or(Refusal::Subject)?;
    if !front.secured(connection.id, Some(&subject)) {
        return Err(Refusal::Room);
    }
    Ok(())
}

impl Core {
    /// Whether these first bytes of a connection, or any later ones, are for TLS.
    pub(super) fn is_secure(&self, connection: &Connection, bytes: &[u8]) -> bool {
        if connection.speech.get() == Speech::Either {
            let is_tls = bytes.first() == Some(&HANDSHAKE_RECORD);
            connection.speech.set(if is_tls { Speech::Tls } else { Speech::Plain });
        }
        connection.speech.get() == Speech::Tls
    }

    /// Takes what was received by a connection in TLS.
    pub(super) fn receive_secure(
        &self,
        front: &mut Front<FrontPort>,
        connection: &Connection,
        bytes: &mut [u8],
    ) {
        let now = self.now();
        let layer = match connection.tls.get() {
            Some(layer) => layer,
            None => match self.begin_handshake(front, connection, bytes[0]) {
                Ok(layer) => connection.tls.get_or_init(|| layer),
                Err(reason) => {
                    tracing::debug!("closing /{}: {reason}", connection.address());
                    connection.state.set(State::Ended);
                    self.revisit(connection.id);
                    return;
                }
            },
        };
        let mut layer = layer.borrow_mut();
        if layer.failed {
            return;
        }
        match layer.received(front, now, connection, bytes) {
            Ok(true) => self.peer_ended(front, connection),
            Ok(false) => connection.paused.set(!front.wants_read(connection.id)),
            Err(refusal) => {
                tracing::debug!("closing /{}: TLS: {refusal}", connection.address());
                layer.failed = true;
            }
        }
        if layer.failed || layer.has_pending() {
            self.revisit(connection.id);
        }
    }

    /// What begins with anything but a handshake gets no answer and no memory.
    fn begin_handshake(
        &self,
        front: &mut Front<FrontPort>,
        connection: &Connection,
        first: u8,
    ) -> Result<Box<RefCell<Layer>>, String> {
        if first != HANDSHAKE_RECORD {
            return Err("TLS was expected, and its first byte is no handshake".to_owned());
        }
        let acceptor = self.shared.acceptor().ok_or("no port speaks TLS")?;
        let layer = Layer::new(&acceptor).map_err(|error| format!("TLS: {error}"))?;
        front.handshaking(connection.id);
        Ok(Box::new(RefCell::new(layer)))
    }

    /// Sends what waits and what the front owes to a connection in TLS. False: the socket failed.
    pub(super) fn send_secure(
        self: &Rc<Self>,
        front: &mut Front<FrontPort>,
        connection: &Rc<Connection>,
        layer: &mut Layer,
    ) -> bool {
        let id = connection.id;
        let mut buffer = self.cipher_buffer.borrow_mut();
        // A core that stops has no next turn to put anything off to.
        let mut left = if self.is_stopping() { usize::MAX } else { TURN_BYTES_MAX };
        loop {
            if layer.has_pending() {
                match sys::send(connection.socket.as_fd(), &layer.pending[layer.pending_sent..]) {
                    Ok(count) => layer.pending_sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return false,
                }
                if layer.pending_sent < layer.pending.len() {
                    self.block(connection);
                    return true;
                }
                (layer.pending, layer.pending_sent) = (Vec::new(), 0);
            }
            if layer.failed || !layer.session.is_established() {
                return true;
            }
            let output = front.output(id);
            if output.is_empty() {
                if front.wants_close(id) {
                    layer.session.close(&mut layer.pending);
                    if layer.has_pending() {
                        continue;
                    }
                }
                return true;
            }
            let len = output.len().min(PLAIN_BYTES).min(left);
            if len == 0 {
                // The rest is for the next turn.
                return true;
            }
            buffer.clear();
            if let Err(error) = layer.session.send(&output[..len], &mut buffer) {
                tracing::debug!("closing /{}: TLS: {error}", connection.address());
                return false;
            }
            front.sent(id, len);
            left -= len;
            match sys::send(connection.socket.as_fd(), &buffer) {
                Ok(count) if count == buffer.len() => {}
                Ok(count) => layer.pending.extend_from_slice(&buffer[count..]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    layer.pending.extend_from_slice(&buffer);
                }
                Err(_) => return false,
            }
        }
    }
}
