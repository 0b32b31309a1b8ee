//! Znodes: one writer, many readers without locks.
