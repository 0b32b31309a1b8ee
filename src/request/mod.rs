//! Requests: authorise, prepare, apply, read.

pub mod auth;
