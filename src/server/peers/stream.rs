//! The bytes of one connection to a peer, between its socket and the state machines: the one place they all go through, and so the
//! one where they would be encrypted.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use crate::io::{sys, watched::Watched};

/// Pieces one send takes: a proposal is three.
const SEND_SLICES_MAX: usize = 96;

/// A connected socket. It never waits by itself.
pub(super) struct Stream {
    socket: Watched,
}

impl Stream {
    /// Takes a connected socket over. Inside a runtime only.
    pub(super) fn new(fd: OwnedFd, keep_alive: bool) -> io::Result<Stream> {
        let options = SockRef::from(&fd);
        options.set_nodelay(true)?;
        options.set_keepalive(keep_alive)?;
        Ok(Stream { socket: Watched::new(fd)? })
    }

    /// Of a socket that is watched already.
    pub(super) fn of(socket: Watched, keep_alive: bool) -> io::Result<Stream> {
        let options = SockRef::from(&socket);
        options.set_nodelay(true)?;
        options.set_keepalive(keep_alive)?;
        Ok(Stream { socket })
    }

    /// Zero at the end of what the peer sends.
    pub(super) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        sys::recv(self.socket.as_fd(), into)
    }

    /// How many bytes of these pieces, at least one of which has some, left.
    pub(super) fn send<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
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
        sys::shutdown(self.socket.as_fd(), Shutdown::Both);
    }
}
