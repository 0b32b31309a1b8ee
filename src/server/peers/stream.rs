//! The bytes of one connection to a peer, between its socket and the state machines: the one place they all go through, and so the
//! one where they are encrypted, if they are.

use std::cell::{OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use super::secure::Secured;
use crate::io::{sys, watched::Watched};

/// Pieces one send takes: a proposal is three.
const SEND_SLICES_MAX: usize = 96;

/// Bytes taken at once before it is known what they are.
const FIRST_BYTES: usize = 16 << 10;

/// A connected socket. Once it is opened it never waits by itself.
pub(super) struct Stream {
    socket: Watched,
    /// Received before it was known that they are plain.
    first: RefCell<Vec<u8>>,
    tls: OnceCell<Box<RefCell<Secured>>>,
}

impl Stream {
    /// Takes a connected socket over. Inside a runtime only.
    pub(super) fn new(fd: OwnedFd, keep_alive: bool) -> io::Result<Stream> {
        let options = SockRef::from(&fd);
        options.set_nodelay(true)?;
        options.set_keepalive(keep_alive)?;
        Ok(Stream { socket: Watched::new(fd)?, first: RefCell::default(), tls: OnceCell::new() })
    }

    /// Of a socket that is watched already.
    pub(super) fn of(socket: Watched, keep_alive: bool) -> io::Result<Stream> {
        let options = SockRef::from(&socket);
        options.set_nodelay(true)?;
        options.set_keepalive(keep_alive)?;
        Ok(Stream { socket, first: RefCell::default(), tls: OnceCell::new() })
    }

    /// Zero at the end of what the peer sends.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(tls) = self.tls.get() {
            return tls.borrow_mut().receive(self, into);
        }
        let mut first = self.first.borrow_mut();
        if !first.is_empty() {
            let count = first.len().min(into.len());
            into[..count].copy_from_slice(&first[..count]);
            first.drain(..count);
            return Ok(count);
        }
        self.receive_raw(into)
    }

    /// Whether [`Stream::receive`] has something though the socket may not be readable.
    pub(super) fn has_received(&self) -> bool {
        !self.first.borrow().is_empty() || self.tls.get().is_some_and(|tls| tls.borrow().has_plain())
    }

    /// Past TLS.
    pub(super) fn receive_raw(&self, into: &mut [u8]) -> io::Result<usize> {
        sys::recv(self.socket.as_fd(), into)
    }

    /// Past TLS.
    pub(super) fn send_raw(&self, bytes: &[u8]) -> io::Result<usize> {
        sys::send(self.socket.as_fd(), bytes)
    }

    /// What comes next, past TLS; empty at the end.
    pub(super) async fn first_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; FIRST_BYTES];
        loop {
            self.readable().await?;
            match self.receive_raw(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// These were received and are nobody's yet.
    pub(super) fn give_back(&self, bytes: Vec<u8>) {
        *self.first.borrow_mut() = bytes;
    }

    /// From now on all of it is encrypted.
    pub(super) fn secure(&self, secured: Secured) {
        assert!(self.tls.set(Box::new(RefCell::new(secured))).is_ok(), "a stream is secured twice");
    }

    /// How many bytes of these pieces, at least one of which has some, left.
    pub(super) fn send<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        if let Some(tls) = self.tls.get() {
            return tls.borrow_mut().send(self, pieces);
        }
        let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
        let mut count = 0;
        for (place, piece) in slices.iter_mut().zip(pieces) {
            *place = IoSlice::new(piece);
            count += 1;
        }
        sys::send_vectored(self.socket.as_fd(), &slices[..count])
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Ends both directions; what was sent still arrives, unless the peer sent what was not read.
    pub(super) fn shutdown(&self) {
        if let Some(tls) = self.tls.get() {
            tls.borrow_mut().close(self);
        }
        sys::shutdown(self.socket.as_fd(), Shutdown::Both);
    }
}
