//! What the operating system is asked directly: readiness, pinning, limits, signals. All unsafe code of this package is here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Events taken from the kernel at once.
pub const EVENTS_MAX: usize = 1024;

/// Waits shorter than this are kept to the microsecond.
const FINE_WAIT_MAX: Duration = Duration::from_millis(20);

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// What happened to the descriptor registered under `token`.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers; the result is checked before it is owned, and nobody else owns it.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made by the call above and owned by nobody.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Registers interest in reading, and in writing if `writable`. Closing the descriptor ends it.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, writable)
    }

    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, writable)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        let mut interest = libc::EPOLLIN | libc::EPOLLRDHUP;
        if writable {
            interest |= libc::EPOLLOUT;
        }
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: both descriptors are open while borrowed; the kernel only reads `event` during the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) })
    }

    /// Waits until something is ready, or a signal comes.
    fn wait_finely(&self, wait: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time =
            libc::timespec { tv_sec: wait.as_secs() as libc::time_t, tv_nsec: wait.subsec_nanos().into() };
        // SAFETY: one pollfd and one timespec behind valid pointers; no signal mask is given.
        let result = unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) };
        match check(result) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces `ready` by what is ready, waiting up to `wait`. A signal ends the wait early.
    pub fn wait(&self, ready: &mut Vec<Ready>, wait: Duration) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        let mut millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        if !wait.is_zero() && wait < FINE_WAIT_MAX {
            // epoll_wait counts milliseconds; whoever waits for less has a schedule to keep.
            self.wait_finely(wait)?;
            millis = 0;
        }
        // SAFETY: `events` has room for the EVENTS_MAX entries the kernel may write.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as i32, millis) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        let hung_up = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
        ready.extend(events[..count as usize].iter().map(|event| Ready {
            token: event.u64,
            readable: event.events & hung_up != 0,
            writable: event.events & (libc::EPOLLOUT | libc::EPOLLERR) as u32 != 0,
        }));
        Ok(())
    }
}

/// The cpus this thread may run on, in order.
pub fn cores_allowed() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the size given is that of the set behind the pointer.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) })?;
    // SAFETY: CPU_ISSET reads the set within its bounds for every index below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Pins the calling thread.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let set = cpu_set(cores)?;
    // SAFETY: the size given is that of the set behind the pointer, which is only read.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

fn cpu_set(cores: &[usize]) -> io::Result<libc::cpu_set_t> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores {
        if *core >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::other(format!("core {core} is out of range")));
        }
        // SAFETY: the index is below CPU_SETSIZE, checked above.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    Ok(set)
}

/// Lets the calling thread's waits end when they are due: the kernel adds 50 us unless told otherwise.
pub fn wake_in_time() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) })
}

/// Starts `command` pinned to `cores`; it dies with the thread that called this.
pub fn spawn_pinned(command: &mut Command, cores: &[usize]) -> io::Result<Child> {
    let set = cpu_set(cores)?;
    // SAFETY: the closure runs in the child between fork and exec and makes two system calls on its own copy of `set`;
    // it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
        });
    }
    command.spawn()
}

/// Asks a process to end.
pub fn terminate(pid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) })
}

/// Raises the limit of open files to at least `wanted`; says what there is where that is refused.
pub fn open_files_at_least(wanted: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit behind the pointer.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: the kernel reads one rlimit behind the pointer.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) }).map_err(|error| {
        io::Error::other(format!(
            "{wanted} open files are needed and the limit is {}: {error}",
            limit.rlim_max
        ))
    })
}

/// Sends what the socket takes now. Whoever gives `fd` sees to it that it is still the socket meant.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel only reads the slice, during the call; a descriptor that is closed or no socket is an error.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_signal: i32) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on SIGINT, SIGTERM and SIGHUP only set what [`interrupted`] tells, and end waits early.
pub fn catch_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is valid: no flags, an empty mask, the default action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
        // SAFETY: the handler only stores to an atomic; the pointer is valid during the call.
        check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_written_pipe_is_readable_under_its_token() {
        let (reader, writer) = io::pipe().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(reader.as_fd(), 7, false).unwrap();
        let mut ready = Vec::new();
        epoll.wait(&mut ready, Duration::ZERO).unwrap();
        assert!(ready.is_empty());
        io::Write::write_all(&mut &writer, b"x").unwrap();
        epoll.wait(&mut ready, Duration::from_secs(5)).unwrap();
        assert!(matches!(ready[..], [Ready { token: 7, readable: true, .. }]), "{ready:?}");
    }

    #[test]
    fn a_thread_is_pinned_where_it_may_run() {
        let first = cores_allowed().unwrap()[0];
        std::thread::spawn(move || {
            pin(&[first]).unwrap();
            assert_eq!(cores_allowed().unwrap(), [first]);
        })
        .join()
        .unwrap();
    }
}
