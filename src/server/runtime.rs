//! The runtime of a core's thread: io_uring the way it measured best, else plain, else epoll.

use std::future::Future;
use std::io;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

/// Submission slots of a core's ring; completions have twice as many.
const ENTRIES: u32 = 1024;

/// `ringkeeper.io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// io_uring where it is to be had, else epoll.
    #[default]
    Auto,
    /// io_uring or not at all.
    Uring,
    /// epoll, and no ring for the log either.
    Epoll,
}

/// What a core got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Driver {
    Uring,
    /// Without the flags newer kernels offer.
    PlainUring,
    Epoll,
}

impl std::fmt::Display for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Driver::Uring => "io_uring",
            Driver::PlainUring => "io_uring without its newer flags",
            Driver::Epoll => "epoll",
        })
    }
}

pub(super) enum CoreRuntime {
    Uring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

impl CoreRuntime {
    /// Builds the best there is, on the thread that will run it. Also says why it is not better.
    pub(super) fn build(choice: IoChoice) -> io::Result<(CoreRuntime, Driver, Option<io::Error>)> {
        if choice == IoChoice::Epoll {
            return Ok((CoreRuntime::epoll()?, Driver::Epoll, None));
        }
        // Not DEFER_TASKRUN: monoio would not see completions while a core spins.
        let mut flags: uring06::Builder = uring06::IoUring::builder();
        flags.setup_single_issuer().setup_coop_taskrun();
        let refused = match CoreRuntime::uring(flags) {
            Ok(runtime) => return Ok((runtime, Driver::Uring, None)),
            Err(error) => error,
        };
        match CoreRuntime::uring(uring06::IoUring::builder()) {
            Ok(runtime) => Ok((runtime, Driver::PlainUring, Some(refused))),
            Err(error) if choice == IoChoice::Uring => Err(error),
            Err(error) => Ok((CoreRuntime::epoll()?, Driver::Epoll, Some(error))),
        }
    }

    fn uring(flags: uring06::Builder) -> io::Result<CoreRuntime> {
        let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(flags);
        Ok(CoreRuntime::Uring(builder.enable_timer().build()?))
    }

    fn epoll() -> io::Result<CoreRuntime> {
        let builder = RuntimeBuilder::<LegacyDriver>::new().with_entries(ENTRIES);
        Ok(CoreRuntime::Epoll(builder.enable_timer().build()?))
    }

    pub(super) fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        match self {
            CoreRuntime::Uring(runtime) => runtime.block_on(future),
            CoreRuntime::Epoll(runtime) => runtime.block_on(future),
        }
    }
}
