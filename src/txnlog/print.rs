//! Logs as text.
