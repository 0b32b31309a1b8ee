//! ringkeeper: a drop-in replacement for Apache ZooKeeper.
//!
//! The modules from the ground up; each uses only those listed before it (`tests/layers.rs` keeps it so).
//! Where `forbid(unsafe_code)` is missing, unsafe may be.

#[forbid(unsafe_code)]
pub mod types;
pub mod stdx;
#[forbid(unsafe_code)]
pub mod jute;
#[forbid(unsafe_code)]
pub mod proto;
#[forbid(unsafe_code)]
pub mod metrics;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod words;
#[forbid(unsafe_code)]
pub mod admin;
#[forbid(unsafe_code)]
pub mod client;
pub mod tree;
#[forbid(unsafe_code)]
pub mod watch;
#[forbid(unsafe_code)]
pub mod session;
#[forbid(unsafe_code)]
pub mod txnlog;
#[forbid(unsafe_code)]
pub mod snapshot;
#[forbid(unsafe_code)]
pub mod zab;
#[forbid(unsafe_code)]
pub mod request;
#[forbid(unsafe_code)]
pub mod node;
pub mod io;
pub mod server;
#[forbid(unsafe_code)]
pub mod cli;
