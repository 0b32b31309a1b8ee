//! What clients saw, in the order they saw it, and what the servers agreed on: all that the checker looks at.

use std::rc::Rc;

use ringkeeper::client::Response;
use ringkeeper::proto::client::EventType;
use ringkeeper::types::{SessionId, Zxid};

use super::ops::{Op, Users};

/// A place in the order of everything that happens in a run.
pub type Moment = u64;

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Of [`History::connections`].
    pub connection: usize,
    /// Of its session; unique there. Pings and auth packets all have the same.
    pub xid: i32,
    pub op: Op,
    pub begun: Moment,
    pub answer: Option<Answer>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub ended: Moment,
    pub zxid: Zxid,
    pub err: i32,
    pub response: Response,
}

/// One connection that got to a session, or asked for one and was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Connection {
    pub session: SessionId,
    pub server: usize,
    /// What it authenticated as with its first requests.
    pub users: Users,
    /// What its handshake said it has seen.
    pub zxid_seen: Zxid,
    /// Its session was said to be no more.
    pub refused: bool,
    pub messages: Vec<Heard>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The answer to this one of [`History::asked`].
    Reply(usize),
    /// With zxid -1: what a setWatches found to have changed meanwhile.
    Event { zxid: Zxid, kind: EventType, path: String },
}

/// A transaction all servers agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    pub zxid: Zxid,
    pub entry: Rc<[u8]>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// In the order they were asked.
    pub asked: Vec<Asked>,
    pub connections: Vec<Connection>,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its id in the list of promises and invariants.
    pub promise: &'static str,
    pub text: String,
}

impl Violation {
    pub fn new(promise: &'static str, text: impl Into<String>) -> Violation {
        Violation { promise, text: text.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.promise, self.text)
    }
}
