//! One TLS connection without I/O: ciphertext in, plaintext and ciphertext out. What is to be sent is appended to a
//! buffer of the caller's, who sends it in order, also after an error: the alert that says why is in it.
//!
//! Nothing is buffered but what came of a record that is not whole: at most [`HANDSHAKE_BYTES_MAX`] before the
//! handshake is through, [`RECORDS_BYTES_MAX`] after. rustls itself bounds what it keeps: keys, the transcript's hash,
//! the certificates of the other side (not more than came), and the count of messages that ask for an answer.

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

use super::{Acceptor, Connector, TlsError};

/// Type, version and length of a record.
const HEADER_BYTES: usize = 5;
/// The first byte of whatever a TLS client says first.
pub const HANDSHAKE_RECORD: u8 = 0x16;
/// What a handshake may need at once: its largest message may fill one record of 16 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = HEADER_BYTES + (16 << 10) + 256;
/// As much as two records of TLS 1.2 with all their padding.
pub const RECORDS_BYTES_MAX: usize = 2 * (HEADER_BYTES + (16 << 10) + 2048);
/// Plaintext of one record.
const FRAGMENT_BYTES: usize = 16 << 10;
/// What a record has beside its plaintext, and more: header, nonce, tag, kind.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Room to encode a handshake message in; more is made when one needs it.
const MESSAGE_BYTES: usize = 1024;
/// Alerts taken over from rustls after an error.
const LAST_MESSAGES_MAX: usize = 4;

/// Either end of a connection.
pub struct Session {
    connection: Connection,
    /// Received, and part of something longer.
    kept: Vec<u8>,
    established: bool,
    failed: bool,
    closed: bool,
}

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What comes of received bytes, in order.
#[derive(Debug)]
pub enum Event<'a> {
    /// The handshake is through: the first event there is. The other side's own certificate, if it showed one.
    Established(Option<&'a [u8]>),
    Plain(&'a [u8]),
    /// The other side says that it sends no more.
    PeerClosed,
}

/// What to do when data may be sent.
enum Task<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

enum Step {
    /// There may be more.
    Again,
    PeerClosed,
    /// More bytes are needed, or nothing is left to do.
    Rest,
}

impl Session {
    /// The side that was dialled.
    pub fn accept(acceptor: &Acceptor) -> Result<Session, TlsError> {
        let connection = UnbufferedServerConnection::new(acceptor.config.clone())?;
        Ok(Session::new(Connection::Server(connection)))
    }

    /// The side that dials `host`, a name or an address. [`Session::begin`] says the first word.
    pub fn connect(connector: &Connector, host: &str) -> Result<Session, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        let connection = UnbufferedClientConnection::new(connector.config.clone(), name)?;
        Ok(Session::new(Connection::Client(connection)))
    }

    fn new(connection: Connection) -> Session {
        Session { connection, kept: Vec::new(), established: false, failed: false, closed: false }
    }

    /// For the dialling side, once: what opens the handshake.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.drive_kept(Task::Nothing, out)
    }

    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Bytes that came. They are decrypted where they lie. After an error nothing more is taken; what is in `out` is
    /// still to be sent.
    pub fn received(
        &mut self,
        mut bytes: &mut [u8],
        out: &mut Vec<u8>,
        mut take: impl FnMut(Event<'_>),
    ) -> Result<(), TlsError> {
        if self.failed {
            return Ok(());
        }
        // First what completes the record that is kept, so that the rest needs no copy.
        while !self.kept.is_empty() && !bytes.is_empty() {
            let (more, rest) = bytes.split_at_mut(missing_bytes(&self.kept).min(bytes.len()));
            self.kept.extend_from_slice(more);
            bytes = rest;
            let mut kept = std::mem::take(&mut self.kept);
            let taken = self.drive(&mut kept, Task::Nothing, out, &mut take)?;
            if taken < kept.len() {
                kept.drain(..taken);
                self.kept = kept;
            }
            self.check_kept()?;
        }
        if !bytes.is_empty() {
            let taken = self.drive(bytes, Task::Nothing, out, &mut take)?;
            self.kept = bytes[taken..].to_vec();
            self.check_kept()?;
        }
        Ok(())
    }

    /// Encrypts `plain` behind what is in `out`. Only once the handshake is through.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        assert!(self.established, "data before the handshake");
        if self.failed || self.closed {
            return Err(TlsError::Closed);
        }
        self.drive_kept(Task::Encrypt(plain), out)
    }

    /// Says that no more comes. Before the handshake is through there is nobody to say it to.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.established && !self.failed && !std::mem::replace(&mut self.closed, true) {
            // Whoever cannot be told anything more is told nothing.
            let _ = self.drive_kept(Task::Close, out);
        }
    }

    fn check_kept(&mut self) -> Result<(), TlsError> {
        let bytes_max = if self.established { RECORDS_BYTES_MAX } else { HANDSHAKE_BYTES_MAX };
        if self.kept.len() > bytes_max {
            self.failed = true;
            self.kept = Vec::new();
            return Err(TlsError::TooLong { bytes_max });
        }
        Ok(())
    }

    /// Without new bytes. rustls remembers places in those that are kept, so it is always shown them.
    fn drive_kept(&mut self, task: Task<'_>, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut kept = std::mem::take(&mut self.kept);
        let taken = self.drive(&mut kept, task, out, &mut |_| {})?;
        kept.drain(..taken);
        self.kept = kept;
        Ok(())
    }

    /// Lets rustls work until it needs something. Gives how many of the incoming bytes are done with.
    fn drive(
        &mut self,
        incoming: &mut [u8],
        mut task: Task<'_>,
        out: &mut Vec<u8>,
        take: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, TlsError> {
        let Session { connection, established, failed, .. } = self;
        let mut taken = 0;
        // Data that came in one go with the end of the handshake.
        let mut early = Vec::new();
        loop {
            let incoming = &mut incoming[taken..];
            let (discard, step) = match connection {
                Connection::Server(server) => {
                    step(server.process_tls_records(incoming), &mut task, *established, &mut early, out, take)
                }
                Connection::Client(client) => {
                    step(client.process_tls_records(incoming), &mut task, *established, &mut early, out, take)
                }
            };
            taken += discard;
            if !*established && !connection.is_handshaking() {
                *established = true;
                take(Event::Established(connection.peer_certificate().as_deref()));
                if !early.is_empty() {
                    take(Event::Plain(&std::mem::take(&mut early)));
                }
            }
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => take(Event::PeerClosed),
                Ok(Step::Rest) => return Ok(taken),
                Err(error) => {
                    *failed = true;
                    // No more than is there: after an alert rustls is not to be asked for anything else.
                    for _ in 0..LAST_MESSAGES_MAX {
                        if !connection.has_message() {
                            break;
                        }
                        connection.last_message(&mut incoming[discard..], out);
                    }
                    return Err(error);
                }
            }
        }
    }
}

impl Connection {
    fn is_handshaking(&self) -> bool {
        match self {
            Connection::Server(server) => server.is_handshaking(),
            Connection::Client(client) => client.is_handshaking(),
        }
    }

    fn peer_certificate(&self) -> Option<Vec<u8>> {
        let chain = match self {
            Connection::Server(server) => server.peer_certificates(),
            Connection::Client(client) => client.peer_certificates(),
        };
        chain?.first().map(|certificate| certificate.to_vec())
    }

    fn has_message(&self) -> bool {
        match self {
            Connection::Server(server) => server.wants_write(),
            Connection::Client(client) => client.wants_write(),
        }
    }

    /// After an error: takes over an alert that is still to be sent.
    fn last_message(&mut self, incoming: &mut [u8], out: &mut Vec<u8>) {
        fn encode<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) {
            if let Ok(ConnectionState::EncodeTlsData(message)) = status.state {
                encode_message(message, out);
            }
        }
        match self {
            Connection::Server(server) => encode(server.process_tls_records(incoming), out),
            Connection::Client(client) => encode(client.process_tls_records(incoming), out),
        }
    }
}

/// One answer of rustls, and what follows from it. Gives how many bytes it is done with.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    task: &mut Task<'_>,
    established: bool,
    early: &mut Vec<u8>,
    out: &mut Vec<u8>,
    take: &mut impl FnMut(Event<'_>),
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus { mut discard, state, .. } = status;
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error.into())),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        if established {
                            take(Event::Plain(record.payload));
                        } else {
                            early.extend_from_slice(record.payload);
                        }
                    }
                    Err(error) => return (discard, Err(error.into())),
                }
            }
            Step::Again
        }
        ConnectionState::EncodeTlsData(message) => {
            encode_message(message, out);
            Step::Again
        }
        ConnectionState::TransmitTlsData(message) => {
            // It is in `out`, whose order is kept.
            message.done();
            Step::Again
        }
        ConnectionState::WriteTraffic(mut traffic) => {
            let written = match std::mem::replace(task, Task::Nothing) {
                Task::Nothing => return (discard, Ok(Step::Rest)),
                Task::Encrypt(plain) => {
                    let records = plain.len().div_ceil(FRAGMENT_BYTES);
                    let room = plain.len() + records * RECORD_OVERHEAD_BYTES;
                    append(out, room, |room| traffic.encrypt(plain, room).map_err(more_room))
                }
                Task::Close => append(out, RECORD_OVERHEAD_BYTES, |room| {
                    traffic.queue_close_notify(room).map_err(more_room)
                }),
            };
            if !written {
                return (discard, Err(TlsError::Exhausted));
            }
            Step::Again
        }
        ConnectionState::PeerClosed => Step::PeerClosed,
        // No early data is accepted; whatever else there may be some day waits for more bytes.
        _ => Step::Rest,
    };
    (discard, Ok(step))
}

fn encode_message<Data>(mut message: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let encoded = append(out, MESSAGE_BYTES, |room| match message.encode(room) {
        Ok(written) => Ok(written),
        Err(EncodeError::InsufficientSize(size)) => Err(Some(size.required_size)),
        Err(EncodeError::AlreadyEncoded) => Err(None),
    });
    assert!(encoded, "a message is encoded once, with the room it asks for");
}

fn more_room(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Has `write` fill room behind `out`, once more where it asks for more. False: it cannot.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let start = out.len();
    let mut room = room;
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return true;
            }
            Err(Some(wanted)) => room = wanted,
            Err(None) => break,
        }
    }
    out.truncate(start);
    false
}

/// How many bytes the last record of these lacks: those of its header first. Never zero.
fn missing_bytes(records: &[u8]) -> usize {
    let mut rest = records;
    loop {
        let Some(&[_, _, _, high, low]) = rest.first_chunk::<HEADER_BYTES>() else {
            return HEADER_BYTES - rest.len();
        };
        let len = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        match rest.split_at_checked(len) {
            Some((_, after)) => rest = after,
            None => return len - rest.len(),
        }
    }
}
