//! One client connection: its bytes in and out, and where it stands.

use std::net::SocketAddr;

use super::lists::Listing;
use crate::request::auth::Identities;
use crate::types::{Instant, SessionId};

/// A connection of one front. Used again once the shell has let go of it and every answer under way has come back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnId(pub u32);

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing but up to three bytes of a length, or of a four-letter word, has come.
    Fresh,
    /// The handshake waits to be admitted.
    Admitting,
    /// A four-letter word's answer is being gathered.
    Word,
    /// The session is being made or looked up; `read_only` is what the client's request had.
    Opening {
        read_only: Option<bool>,
    },
    Open,
    /// closeSession is under way: nothing more is read.
    Ending,
    /// What is in the output is sent, then the connection closes.
    Closing,
    /// The shell has let go; answers under way still come back.
    Gone,
}

/// What a connection costs when it is idle is in here; its buffers hold nothing then.
#[derive(Debug)]
pub struct Conn {
    pub peer: SocketAddr,
    pub phase: Phase,
    pub session: SessionId,
    pub timeout_ms: i32,
    pub identities: Identities,
    /// Received and not yet understood: part of a frame, or what waits while the connection may not go on.
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// Bytes at the start of `output` that are sent.
    pub output_sent: usize,
    /// Requests the pipeline has and has not answered.
    pub pending: u32,
    /// Of those, the ones that will leave a watch.
    pub pending_watches: u32,
    pub heard: Instant,
    /// A long list it waits for; then it is stalled, too.
    pub listing: Option<Box<Listing>>,
    /// Input waits until nothing is pending.
    pub stalled: bool,
    /// Its handshake may be looked at.
    pub admitted: bool,
    /// In the list of connections the shell is to look at.
    pub dirty: bool,
    /// In the list of connections to go on with in the next turn.
    pub resuming: bool,
    pub stats: ConnStats,
}

/// What `cons` tells of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnStats {
    pub established_wall_ms: i64,
    pub received: u64,
    pub sent: u64,
    pub last_op: i32,
    /// -1 before the first.
    pub last_cxid: i32,
    pub last_zxid: i64,
    pub last_response_ms: u64,
    pub last_latency_ms: u32,
    pub latency_ms_min: u32,
    pub latency_ms_max: u32,
    pub latency_ms_total: u64,
    pub latency_count: u64,
}

impl ConnStats {
    /// Back to nothing (`crst`), as if the connection had just come.
    pub fn reset(&mut self) {
        *self = ConnStats {
            established_wall_ms: self.established_wall_ms,
            last_cxid: -1,
            last_zxid: -1,
            ..ConnStats::default()
        };
    }

    pub fn latency(&mut self, latency_ms: u32) {
        self.last_latency_ms = latency_ms;
        self.latency_ms_min =
            if self.latency_count == 0 { latency_ms } else { self.latency_ms_min.min(latency_ms) };
        self.latency_ms_max = self.latency_ms_max.max(latency_ms);
        self.latency_ms_total += u64::from(latency_ms);
        self.latency_count += 1;
    }
}

impl Conn {
    pub fn new(peer: SocketAddr, identities: Identities, heard: Instant, wall_ms: i64) -> Conn {
        Conn {
            peer,
            phase: Phase::Fresh,
            session: SessionId::NONE,
            timeout_ms: 0,
            identities,
            input: Vec::new(),
            output: Vec::new(),
            output_sent: 0,
            pending: 0,
            pending_watches: 0,
            heard,
            listing: None,
            stalled: false,
            admitted: false,
            dirty: false,
            resuming: false,
            stats: ConnStats {
                established_wall_ms: wall_ms,
                last_cxid: -1,
                last_zxid: -1,
                ..ConnStats::default()
            },
        }
    }

    pub fn unsent_bytes(&self) -> usize {
        self.output.len() - self.output_sent
    }

    /// Whether requests are taken from it.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Open
    }
}
