//! The shell: cores, connections, disk, shutdown.
pub mod storage;
