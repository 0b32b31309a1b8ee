//! The few system calls std does not offer, each behind a safe function.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// A counter in the kernel that can be waited for: readable while it is not zero.
pub struct EventFd(File);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: no memory is passed.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `eventfd` made this descriptor just now and nobody else owns it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Adds one. An overfull counter (2^64 - 2) is as readable as any, so that error means nothing.
    pub fn signal(&self) {
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes the count, zero if there was none.
    pub fn clear(&self) -> u64 {
        let mut count = [0; 8];
        match (&self.0).read(&mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }

    /// Another descriptor of the same counter, to be owned by whoever waits.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Receives what is there, without waiting. Zero means the peer has finished sending.
pub fn recv(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: `into` is writable for its length during the call.
        let count =
            unsafe { libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => retry_if_interrupted()?,
        }
    }
}

/// Sends what fits, without waiting and without a signal for a peer that left. May send less than all.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: `bytes` is readable for its length during the call.
        let count = unsafe {
            libc::send(
                fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => retry_if_interrupted()?,
        }
    }
}

/// As [`send`], of several slices one behind the other.
pub fn send_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a msghdr is plain data, and all zero it has no name, no slices and no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // An IoSlice is laid out as an iovec (std promises it on Unix); the kernel only reads through it.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    loop {
        // SAFETY: `message` names `slices`, which are readable for their lengths during the call.
        let count = unsafe {
            libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) => retry_if_interrupted()?,
        }
    }
}

/// Ends sending (`Write`), or both directions. An error means the connection is gone already.
pub fn shutdown(fd: BorrowedFd<'_>, how: std::net::Shutdown) {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(fd.as_raw_fd(), how) };
}

/// Takes one waiting connection off a listener that does not block.
pub fn accept(listener: &std::net::TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
    // std passes SOCK_CLOEXEC; sends and receives say MSG_DONTWAIT themselves, so O_NONBLOCK is not needed.
    let (stream, peer) = listener.accept()?;
    Ok((stream.into(), peer))
}

/// True if it is this process or the machine that ran out of something, so that trying again at once is no use.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Raises the soft limit of open files to the hard one. Returns what holds now.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit to read from.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    }
    Ok(limit.rlim_cur)
}

/// Makes the calling thread polite: it runs when others leave it the time.
pub fn lower_thread_priority(nice: i32) {
    // SAFETY: no memory is passed; on Linux "process 0" of setpriority is the calling thread. Failure only means
    // that the thread stays as important as the others.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// SIGTERM and SIGINT as a descriptor, instead of as interruptions.
pub struct StopSignals(File);

impl StopSignals {
    /// Blocks both signals for the calling thread and the threads it will make: call it before there are any.
    pub fn new() -> io::Result<StopSignals> {
        // SAFETY: a sigset_t is plain data, and sigemptyset makes it valid.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a valid sigset_t for all four calls; signalfd copies it.
        let fd = unsafe {
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) {
                0 => checked(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?,
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        };
        // SAFETY: `signalfd` made this descriptor just now and nobody else owns it.
        Ok(StopSignals(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The name of a signal that came, if one did.
    pub fn take(&self) -> Option<&'static str> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match (&self.0).read(&mut info) {
            Ok(count) if count == info.len() => {
                // The first field, `ssi_signo`, is a u32.
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                Some(if number == libc::SIGTERM as u32 { "SIGTERM" } else { "SIGINT" })
            }
            _ => None,
        }
    }
}

impl AsRawFd for StopSignals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Blocks until one of `fds` is readable or the time is up.
pub fn wait_readable(fds: &[RawFd], timeout: Option<Duration>) -> io::Result<()> {
    let mut polls: Vec<libc::pollfd> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout_ms = timeout.map_or(-1, |t| i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: `polls` is valid for its length during the call.
    let result = checked(unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) });
    match result {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

/// Processor time of the whole process, user and system together.
pub fn process_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Borrows the descriptor of something that only offers its number.
pub(super) fn borrow<T: AsRawFd + ?Sized>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: `owner` keeps its descriptor open at least as long as it is borrowed; all callers pass owners (monoio's
    // stream types, whose `AsRawFd` hands out the descriptor they close when dropped).
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn retry_if_interrupted() -> io::Result<()> {
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn sockets_never_block_and_say_when_the_peer_is_done() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (server, peer) = accept(&listener).expect("one is waiting");
        assert_eq!(peer, client.local_addr().expect("connected"));
        let mut buf = [0; 16];
        assert_eq!(recv(server.as_fd(), &mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut sent = 0;
        loop {
            match send(server.as_fd(), &[1; 65536]) {
                Ok(count) => sent += count,
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert!(sent > 0);
        client.shutdown(Shutdown::Write).expect("half closes");
        wait_readable(&[server.as_raw_fd()], Some(Duration::from_secs(5))).expect("polls");
        assert_eq!(recv(server.as_fd(), &mut buf).expect("end of stream"), 0);
    }

    #[test]
    fn slices_are_sent_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (server, _) = accept(&listener).expect("one is waiting");
        let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        assert_eq!(send_vectored(server.as_fd(), &slices).expect("there is room"), 7);
        let mut buf = [0; 16];
        wait_readable(&[client.as_raw_fd()], Some(Duration::from_secs(5))).expect("polls");
        assert_eq!(recv(client.as_fd(), &mut buf).expect("received"), 7);
        assert_eq!(&buf[..7], b"one two");
    }

    #[test]
    fn open_files_limit_ends_at_the_hard_one() {
        let now = raise_open_files_limit().expect("raising to the hard limit is always allowed");
        assert_eq!(raise_open_files_limit().expect("again"), now);
    }
}
