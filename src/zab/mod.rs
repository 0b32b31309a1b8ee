//! ZAB, the protocol of an ensemble, as state machines without I/O: election, discovery, synchronisation, broadcast.
//!
//! Each is told what happened and gives what it wants done as values, in the order it must happen; what depends on the disk is
//! given only after the owner has reported the write that it depends on (O1, O2, S4).

pub mod election;
pub mod leader;
pub mod learner;
pub mod mesh;
pub mod quorum;
pub mod recent;
pub mod voting;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::types::{Epoch, ServerId};

/// A connection to another server.
///
/// Those that were dialled get their number here, those that were accepted get it from the shell, with [`PeerConn::ACCEPTED`] set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerConn(pub u32);

impl PeerConn {
    /// Set in the numbers of accepted connections.
    pub const ACCEPTED: u32 = 1 << 31;

    pub fn is_accepted(self) -> bool {
        self.0 & PeerConn::ACCEPTED != 0
    }
}

/// Which of a server's two ports for its peers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerPort {
    /// Votes.
    Election,
    /// Leader and learners.
    Quorum,
}

/// Where a peer listens; the host is a literal or a name, looked up for every attempt.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerAddress {
    pub host: String,
    pub port: u16,
}

/// What happened on connections to peers. After [`PeerEvent::Closed`] its number means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerEvent<'a> {
    Accepted {
        port: PeerPort,
        from: SocketAddr,
    },
    /// A dialled connection stands.
    Connected,
    Received(&'a [u8]),
    /// So many bytes of what was to be sent have left.
    Sent(usize),
    /// It ended, from the other side or by an error, or could not be made. Not said after [`PeerWork::Close`].
    Closed,
}

/// What is wanted of connections to peers, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerWork {
    /// Try the addresses in turn; answered by [`PeerEvent::Connected`] or [`PeerEvent::Closed`].
    Dial {
        conn: PeerConn,
        port: PeerPort,
        to: ServerId,
        addresses: Vec<PeerAddress>,
    },
    Send {
        conn: PeerConn,
        bytes: Bytes,
    },
    /// Send what is still to be sent if that goes at once, then close. The number means nothing afterwards.
    Close {
        conn: PeerConn,
    },
}

/// The two epochs a server must remember. `accepted >= current` (S1), and neither ever falls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Epochs {
    /// The highest one promised to a leader.
    pub accepted: Epoch,
    /// That of the leader whose history this server holds.
    pub current: Epoch,
}

/// How far a server may take part in elections, by what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// It holds what it has acknowledged, or is alone, or was told to count with nothing: votes.
    #[default]
    Full,
    /// No transaction, never synchronised. Votes only as long as every vote it sees is of an empty server, and not at all
    /// unless `may_found`, until it was synchronised.
    Empty { may_found: bool },
}
