//! A descriptor whose readiness a core's runtime watches; reading and writing it is the owner's business, with plain
//! calls that do not wait. It works on either driver, unlike operations on files, and costs nothing while idle: no
//! buffer, and no data can be lost when a wait is dropped, because a wait takes none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use monoio::net::UnixStream;

/// Owns the descriptor. Must be made and used on the thread of one runtime.
pub struct Watched {
    /// Which kind of socket it is never matters to a wait, nor whether it is one: an eventfd is as good.
    stream: UnixStream,
}

impl Watched {
    /// Takes the descriptor over. Inside a runtime only.
    pub fn new(fd: impl Into<OwnedFd>) -> io::Result<Watched> {
        Ok(Watched { stream: UnixStream::from_std(StdUnixStream::from(fd.into()))? })
    }

    /// Waits until a read would not block: bytes, end of stream or an error.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    /// Waits until a write would not block.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        super::sys::borrow(&self.stream)
    }
}
