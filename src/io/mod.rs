//! What the shell needs of the machine, without any ZooKeeper in it: mailboxes between cores, the clock, aligned
//! buffers, sockets and files watched on a core's runtime, and the log's own ring.
//!
//! | Module | For |
//! | --- | --- |
//! | `channel`, `bell` | bounded single-producer single-consumer rings, and waking a core that sleeps |
//! | `watched` | waits on a core's runtime until a descriptor can be read or written |
//! | `clock`, `sys` | time, and the few system calls std does not offer |
//! | `buf`, `disk`, `ring`, `writer` | aligned memory, the device probe, the log ring and its plain fallback |
//!
//! Unsafe lives in `buf`, `channel`, `ring` and `sys`, nowhere else.

pub mod bell;
pub mod buf;
pub mod channel;
pub mod clock;
pub mod disk;
pub mod ring;
mod sync;
pub mod sys;
pub mod watched;
pub mod writer;

pub use bell::Bell;
pub use channel::{Receiver, Sender, channel};
pub use clock::Clock;
