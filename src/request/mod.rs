//! Requests: authorise, prepare, apply, read.
