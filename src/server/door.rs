//! The state machines the shell drives. In the shell's own unit tests it is the echo: the shell promises things about
//! bytes, sockets and files that are best seen without ZooKeeper in the way.

#[cfg(test)]
pub use super::echo::{ConnId, Front, Pipeline, link, pipeline};
#[cfg(not(test))]
pub use crate::node::{ConnId, Front, Pipeline, link, pipeline};
