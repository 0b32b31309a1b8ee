//! One client connection: its bytes in and out, and where it stands.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::lists::Listing;
use crate::request::auth::Identities;
use crate::request::auth::sasl::SaslServer;
use crate::tree::PinnedData;
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

/// Data in the middle of a connection's output that is not copied into it.
#[derive(Debug)]
pub struct Lent {
    /// How much of `output` comes before it.
    pub at: usize,
    pub data: PinnedData,
    /// Bytes at the start of `data` that are sent.
    pub sent: usize,
}

/// What a connection costs when it is idle is in here; its buffers hold nothing then.
#[derive(Debug)]
pub struct Conn {
    pub peer: SocketAddr,
    pub phase: Phase,
    pub session: SessionId,
    pub timeout_ms: i32,
    pub identities: Identities,
    /// A SASL exchange that has begun.
    pub sasl: Option<Box<SaslServer>>,
    /// Received and not yet understood: part of a frame, or what waits while the connection may not go on.
    pub input: Vec<u8>,
    /// Bytes at the start of `input` that are understood and not yet moved away.
    pub input_taken: usize,
    pub output: Vec<u8>,
    /// Bytes at the start of `output` that are sent.
    pub output_sent: usize,
    /// Data that is sent from where it lies in the tree, in order.
    pub lent: VecDeque<Lent>,
    /// Bytes of it not sent yet.
    pub lent_bytes: usize,
    /// Requests the pipeline has and has not answered.
    pub pending: u32,
    /// Of those, the reads.
    pub pending_reads: u32,
    /// And the ones that will leave a watch.
    pub pending_watches: u32,
    pub heard: Instant,
    /// A long list it waits for; then it is stalled, too.
    pub listing: Option<Box<Listing>>,
    /// Input waits until nothing is pending.
    pub stalled: bool,
    /// Its handshake may be looked at.
    pub admitted: bool,
    /// TLS has begun and is not through.
    pub in_tls_handshake: bool,
    /// In the list of connections the shell is to look at.
    pub dirty: bool,
    /// In the list of connections to go on with in the next turn.
    pub resuming: bool,
    /// In the list of connections heard from, where one is kept.
    pub touched: bool,
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
            sasl: None,
            input: Vec::new(),
            input_taken: 0,
            output: Vec::new(),
            output_sent: 0,
            lent: VecDeque::new(),
            lent_bytes: 0,
            pending: 0,
            pending_reads: 0,
            pending_watches: 0,
            heard,
            listing: None,
            stalled: false,
            admitted: false,
            in_tls_handshake: false,
            dirty: false,
            resuming: false,
            touched: false,
            stats: ConnStats {
                established_wall_ms: wall_ms,
                last_cxid: -1,
                last_zxid: -1,
                ..ConnStats::default()
            },
        }
    }

    /// Bytes received and not yet understood.
    pub fn input_bytes(&self) -> usize {
        self.input.len() - self.input_taken
    }

    #[inline]
    pub fn unsent_bytes(&self) -> usize {
        self.output.len() - self.output_sent + self.lent_bytes
    }

    /// What is to be sent, in order: pieces of `output`, and between them what is lent. No piece is empty.
    pub fn output_slices(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.lent.iter().map(|lent| lent.at).chain([self.output.len()]);
        let starts = [self.output_sent].into_iter().chain(self.lent.iter().map(|lent| lent.at));
        let plain = starts.zip(ends).map(|(start, end)| &self.output[start..end]);
        let lent = self.lent.iter().map(|lent| &lent.data[lent.sent..]).chain([&[][..]]);
        plain.zip(lent).flat_map(|(plain, lent)| [plain, lent]).filter(|piece| !piece.is_empty())
    }

    /// Puts data behind the first `at` bytes of `output`, without copying it.
    pub fn lend(&mut self, at: usize, data: PinnedData) {
        self.lent_bytes += data.len();
        self.lent.push_back(Lent { at, data, sent: 0 });
    }

    /// The first `count` bytes of the output are sent; what was lent is given back as soon as all of it is.
    pub fn sent(&mut self, mut count: usize) {
        while let Some(lent) = self.lent.front_mut() {
            let plain = count.min(lent.at - self.output_sent);
            self.output_sent += plain;
            count -= plain;
            let unsent = lent.data.len() - lent.sent;
            if self.output_sent < lent.at || count < unsent {
                lent.sent += count;
                self.lent_bytes -= count;
                return;
            }
            count -= unsent;
            self.lent_bytes -= unsent;
            self.lent.pop_front();
        }
        self.output_sent += count;
        assert!(self.output_sent <= self.output.len(), "more sent than there was");
    }

    /// Forgets the first part of the output, which is sent.
    pub fn drop_sent(&mut self) {
        self.output.drain(..self.output_sent);
        for lent in &mut self.lent {
            lent.at -= self.output_sent;
        }
        self.output_sent = 0;
    }

    /// Forgets the output, sent or not.
    pub fn drop_output(&mut self) {
        self.output = Vec::new();
        self.output_sent = 0;
        self.lent = VecDeque::new();
        self.lent_bytes = 0;
    }

    /// Whether requests are taken from it.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Open
    }
}
