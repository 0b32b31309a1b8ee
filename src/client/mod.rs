//! A minimal pipelined client for tests and the load generator; not a published API.
//!
//! [`Request`] encodes every request of the protocol, the raw form also those no honest client sends. [`Conversation`] is
//! one connection without I/O: bytes in, [`Message`]s out, each reply matched to its request and held to the order the
//! protocol promises. [`Client`] is the same over a blocking socket; `transport` is the one file here that opens sockets.
//!
//! It never retries, never reconnects and never pings by itself: a test says what is sent, and when.

mod conversation;
mod reply;
mod request;
mod transport;

pub use conversation::{Conversation, FrameBuffer, Incoming};
pub use reply::{Event, Message, MultiResult, Reply, ReplyError, Response};
pub use request::{ACL_OPEN, ACL_READ, Request, SetWatches, WatchMode, WatchType};
pub use transport::{Client, ClientError, ConnectOptions, four_letter};
