//! The atomics of small protocols between threads: std's, or loom's when a model is checked (`--cfg loom`).

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// A value alone on its cache lines, so that its writer disturbs no neighbour. Two lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);
