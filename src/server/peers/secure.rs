//! TLS between servers (`sslQuorum`, `portUnification`): the handshakes of dialled and accepted connections, before anything
//! else is told of them, and the bytes afterwards.
//!
//! A connection is told only once it is secured. One that is dialled has the time its state machine gives it; one that is
//! accepted has [`HANDSHAKE_MAX`], and counts among the accepted ones meanwhile.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::stream::Stream;
use super::{Link, Peers, name_of, watch};
use crate::server::tls::session::RECORDS_BYTES_MAX;
use crate::server::tls::{Event, HANDSHAKE_RECORD, Live, Session, TlsError, TlsSettings, names_address};

/// How long the handshake of an accepted connection may take, once its first byte is there.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Plaintext encrypted at once: four records.
const PLAIN_BYTES: usize = 64 << 10;

/// How servers speak to each other where not plainly alone.
#[derive(Clone)]
pub struct PeerTls {
    pub settings: Live<TlsSettings>,
    /// `sslQuorum`: we dial in TLS.
    pub dials: bool,
    /// `portUnification`: who dials us may speak plainly.
    pub accepts_plain: bool,
    /// `ssl.quorum.handshakeDetectionTimeoutMillis`: whoever says nothing for so long is taken for plain, where that may be.
    pub detection_timeout: Duration,
}

/// A secured connection's state beside its socket.
pub(super) struct Secured {
    session: Session,
    /// Decrypted, and not taken yet: only what came in one go with the end of the handshake.
    plain: Vec<u8>,
    /// Ciphertext the socket has not taken, and how much of it is sent.
    pending: Vec<u8>,
    pending_sent: usize,
    /// Plaintext that is in `pending`, and not yet owned to be sent.
    absorbed_bytes: usize,
    ended: bool,
}

/// What a handshake has shown.
pub(super) struct Shown {
    pub(super) secured: Secured,
    pub(super) certificate: Option<Vec<u8>>,
}

/// Carries a handshake to its end. `bytes` came already.
pub(super) async fn handshake(
    stream: &Stream,
    mut session: Session,
    mut bytes: Vec<u8>,
) -> Result<Shown, String> {
    let mut out = Vec::new();
    let (mut certificate, mut plain, mut ended) = (None, Vec::new(), false);
    session.begin(&mut out).map_err(said)?;
    loop {
        let taken = session.received(&mut bytes, &mut out, |event| match event {
            Event::Established(shown) => certificate = shown.map(<[u8]>::to_vec),
            Event::Plain(early) => plain.extend_from_slice(early),
            Event::PeerClosed => ended = true,
        });
        let mut sent = 0;
        while sent < out.len() {
            match stream.send_raw(&out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.writable().await.map_err(|error| error.to_string())?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        out.clear();
        taken.map_err(said)?;
        if session.is_established() {
            let secured =
                Secured { session, plain, pending: Vec::new(), pending_sent: 0, absorbed_bytes: 0, ended };
            return Ok(Shown { secured, certificate });
        }
        bytes = stream.first_bytes().await.map_err(|error| error.to_string())?;
        if bytes.is_empty() {
            return Err("closed within the TLS handshake".to_owned());
        }
    }
}

fn said(error: TlsError) -> String {
    format!("TLS: {error}")
}

/// Secures an accepted connection, or finds it plain where that may be; then it is told and watched.
pub(super) async fn welcome(
    peers: Rc<Peers>,
    link: Rc<Link>,
    stream: Stream,
    tls: PeerTls,
    from: SocketAddr,
) {
    let outcome = unless_gone(&link, greet(stream, &tls, from)).await;
    match outcome {
        Some(Ok(stream)) => {
            link.open(stream);
            peers.announce(&link);
            peers.pump.raise();
            watch(peers, link).await;
        }
        Some(Err(reason)) => {
            tracing::debug!(%from, "closing a server's connection to the {} port: {reason}", name_of(link.port));
            peers.forget(&link);
        }
        None => {}
    }
}

async fn greet(stream: Stream, tls: &PeerTls, from: SocketAddr) -> Result<Stream, String> {
    let first = match monoio::time::timeout(tls.detection_timeout, stream.first_bytes()).await {
        Ok(first) => first.map_err(|error| error.to_string())?,
        // Whoever waits to be spoken to is no TLS client. Source: ZooKeeper `UnifiedServerSocket`.
        Err(_) if tls.accepts_plain => return Ok(stream),
        Err(_) => return Err("it says nothing".to_owned()),
    };
    if first.first() != Some(&HANDSHAKE_RECORD) {
        return match tls.accepts_plain {
            true => {
                stream.give_back(first);
                Ok(stream)
            }
            false => Err("TLS was expected, and its first byte is no handshake".to_owned()),
        };
    }
    let acceptor = tls.settings.get().acceptor;
    let session = Session::accept(&acceptor).map_err(said)?;
    let shown = monoio::time::timeout(HANDSHAKE_MAX, handshake(&stream, session, first))
        .await
        .map_err(|_| format!("no TLS handshake within {} s", HANDSHAKE_MAX.as_secs()))??;
    if acceptor.verify_client_name
        && !shown.certificate.is_some_and(|certificate| names_address(&certificate, from.ip()))
    {
        return Err("its certificate does not name its address".to_owned());
    }
    stream.secure(shown.secured);
    Ok(stream)
}

/// The outcome, or `None` as soon as nobody wants the link any more.
async fn unless_gone<T>(link: &Link, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        while link.told.poll_raised(cx).is_ready() {
            if link.gone.get() {
                return Poll::Ready(None);
            }
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

impl Secured {
    /// Whether something is there though the socket may have nothing.
    pub(super) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// As [`Stream::receive`]. Plaintext is shorter than what it came from, so all of it finds room.
    pub(super) fn receive(&mut self, stream: &Stream, into: &mut [u8]) -> io::Result<usize> {
        assert!(into.len() > RECORDS_BYTES_MAX, "a receive takes more than is ever kept");
        if self.plain.is_empty() && !self.ended {
            let room = into.len() - RECORDS_BYTES_MAX;
            let count = stream.receive_raw(&mut into[..room])?;
            if count == 0 {
                self.ended = true;
                return Ok(0);
            }
            let (plain, ended) = (&mut self.plain, &mut self.ended);
            let taken = self.session.received(&mut into[..count], &mut self.pending, |event| match event {
                Event::Plain(bytes) => plain.extend_from_slice(bytes),
                Event::PeerClosed => *ended = true,
                Event::Established(_) => {}
            });
            // An answer of TLS itself, or the alert that says why it ends.
            self.send_pending(stream)?;
            taken.map_err(io::Error::other)?;
        }
        let count = self.plain.len().min(into.len());
        into[..count].copy_from_slice(&self.plain[..count]);
        self.plain.drain(..count);
        if count == 0 && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    }

    /// As [`Stream::send`]. What the socket did not take of a piece's ciphertext is kept, and the piece counts as sent once
    /// it is gone; until then the caller offers the same bytes again.
    pub(super) fn send<'a>(
        &mut self,
        stream: &Stream,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        if self.absorbed_bytes == 0 {
            let mut plain = Vec::with_capacity(PLAIN_BYTES);
            for piece in pieces {
                let room = PLAIN_BYTES - plain.len();
                plain.extend_from_slice(&piece[..piece.len().min(room)]);
                if plain.len() == PLAIN_BYTES {
                    break;
                }
            }
            self.session.send(&plain, &mut self.pending).map_err(io::Error::other)?;
            self.absorbed_bytes = plain.len();
        }
        if !self.send_pending(stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(std::mem::take(&mut self.absorbed_bytes))
    }

    /// Says that no more comes, as far as the socket takes it.
    pub(super) fn close(&mut self, stream: &Stream) {
        if self.pending.is_empty() {
            self.session.close(&mut self.pending);
            // Whoever does not read misses a courtesy.
            let _ = self.send_pending(stream);
        }
    }

    /// Whether all of it is with the kernel.
    fn send_pending(&mut self, stream: &Stream) -> io::Result<bool> {
        if self.pending.is_empty() {
            return Ok(true);
        }
        match stream.send_raw(&self.pending[self.pending_sent..]) {
            Ok(count) => self.pending_sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if self.pending_sent < self.pending.len() {
            return Ok(false);
        }
        self.pending.clear();
        self.pending_sent = 0;
        Ok(true)
    }
}
