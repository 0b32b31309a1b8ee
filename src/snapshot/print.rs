//! Snapshots as text.
