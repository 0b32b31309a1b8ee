//! What fronts and the pipeline say to one another, and the queues they say it through.
//!
//! A queue is bounded and in order. Who pushes looks for room first; a full queue is back-pressure on sockets, never growth.
//! Towards a front the order is the order of publication: the events of a change precede the reply that reports it, and both
//! precede every later change.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::node::ConnId;
use crate::node::limits::BytesShare;
use crate::proto::client::OpCode;
use crate::proto::{ErrorCode, Stat};
use crate::request::auth::Identities;
use crate::tree::TreeReader;
use crate::types::{Instant, SessionId, Zxid};
use crate::watch::{ChangeKind, WatchMode};
use crate::words::Word;

/// Messages a queue between two cores holds.
pub const LINK_MESSAGES_MAX: usize = 4096;

/// From a front to the pipeline.
#[derive(Debug)]
pub enum ToPipeline {
    /// A client's handshake came. Asked only where connections are throttled, before anything else of it is looked at.
    Admit {
        conn: ConnId,
        /// It wants a session back.
        renew: bool,
    },
    /// A client wants a new session; the timeout is negotiated.
    Open {
        conn: ConnId,
        timeout_ms: i32,
    },
    /// A client wants its session back; its password was right.
    Renew {
        conn: ConnId,
        session: SessionId,
        timeout_ms: i32,
    },
    Request(Box<Request>),
    /// The connection is gone; the session stays until its time is up.
    Detach {
        conn: ConnId,
        session: SessionId,
        heard: Instant,
    },
    /// Answers [`ToFront::Probe`].
    Heard {
        session: SessionId,
        conn: ConnId,
        heard: Instant,
    },
    /// A four-letter word that asks about the whole server.
    /// `argument` is the mask behind `stmk`.
    Word {
        conn: ConnId,
        word: Word,
        argument: i64,
    },
    /// Answers [`ToFront::Survey`].
    Surveyed {
        survey: u64,
        report: Box<FrontReport>,
    },
    /// Answers [`ToFront::CollectTouches`]: who was heard from since the last time, with the timeout in milliseconds.
    Touched {
        round: u64,
        sessions: Vec<(SessionId, i32)>,
    },
}

/// Whether clients are served at all. A server of an ensemble serves none while it has no leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Serving {
    /// Those that are here are closed; a handshake is closed without an answer.
    No,
    /// Reads, for clients that said they want no more. Always after [`Serving::No`] and before it.
    ReadOnly,
    #[default]
    Yes,
}

/// A write, or a read that stands behind an unfinished write of its own session.
#[derive(Debug)]
pub struct Request {
    pub conn: ConnId,
    pub session: SessionId,
    pub xid: i32,
    pub op: OpCode,
    /// The record behind the request header.
    pub body: Bytes,
    pub identities: Identities,
    pub received: Instant,
    /// The room it takes up, until it is answered.
    pub share: Option<BytesShare>,
}

/// The body of a reply.
#[derive(Debug, Clone)]
pub enum Body {
    None,
    Stat([u8; Stat::BYTES]),
    Bytes(Bytes),
}

impl Body {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::None => &[],
            Body::Stat(bytes) => bytes,
            Body::Bytes(bytes) => bytes,
        }
    }
}

/// One change of one node. Lists are encoded, `None` where anyone may do anything.
#[derive(Debug, Clone)]
pub struct NodeChange {
    pub zxid: Zxid,
    pub kind: ChangeKind,
    /// UTF-8.
    pub path: Bytes,
    pub acl: Option<Bytes>,
    pub parent_acl: Option<Bytes>,
}

/// From the pipeline to a front.
#[derive(Debug)]
pub enum ToFront {
    /// Answers [`ToPipeline::Admit`].
    Admitted {
        conn: ConnId,
    },
    /// Answers [`ToPipeline::Admit`]: close it without a byte.
    TurnedAway {
        conn: ConnId,
    },
    /// A request that nobody will answer; its connection is to end, so that nothing asked later is done.
    Dropped {
        conn: ConnId,
        op: OpCode,
    },
    Opened {
        conn: ConnId,
        session: SessionId,
        timeout_ms: i32,
    },
    /// The session asked for is not there, or is ending.
    Refused {
        conn: ConnId,
    },
    Reply {
        conn: ConnId,
        xid: i32,
        op: OpCode,
        zxid: Zxid,
        err: ErrorCode,
        body: Body,
        received: Instant,
        watch: Option<Box<(String, WatchMode)>>,
    },
    Change(NodeChange),
    /// Changes of one transaction.
    Changes(Arc<[NodeChange]>),
    /// The session was closed or moved: so is its connection, if it still has that session.
    Close {
        conn: ConnId,
        session: SessionId,
    },
    /// When did you last hear from it? Its time seems to be up.
    Probe {
        conn: ConnId,
        session: SessionId,
    },
    Survey {
        survey: u64,
        word: Word,
    },
    Serving(Serving),
    /// The state is another one from here on. Only sent while nobody is served.
    Tree(Box<TreeReader>),
    /// The leader wants to know which sessions were heard from.
    CollectTouches {
        round: u64,
    },
    Text {
        conn: ConnId,
        text: Bytes,
    },
}

/// A front's part of the answer to a four-letter word.
#[derive(Debug, Default, Clone)]
pub struct FrontReport {
    pub counters: crate::metrics::FrontCounters,
    pub connection_count: u64,
    /// Requests taken in and not answered.
    pub outstanding: u64,
    pub watch_count: u64,
    /// Connections within their TLS handshake.
    pub tls_handshakes: u64,
    /// Filled for words that list connections.
    pub connections: Vec<crate::words::ConnectionReport>,
    /// Filled for words about watches.
    pub watches: crate::words::WatchReport,
}

/// A front's end of its two queues.
pub trait FrontLink {
    fn pop(&mut self) -> Option<ToFront>;
    /// Panics without room.
    fn push(&mut self, message: ToPipeline);
    fn room(&self) -> usize;
    /// Says whether changes are to be sent here. See [`PipelineLink::is_interested`].
    fn set_interested(&mut self, interested: bool);
}

/// The pipeline's end of the two queues of one front.
pub trait PipelineLink {
    fn pop(&mut self) -> Option<ToPipeline>;
    /// Whether [`PipelineLink::pop`] would give nothing.
    fn is_empty(&self) -> bool;
    /// Panics without room.
    fn push(&mut self, message: ToFront);
    fn room(&self) -> usize;
    /// Whether the front has any watch, or is about to leave one. Asked while a change is being made: a front that counts a
    /// watch and then finds the publication unmoved has been seen here (both sides fence between their store and their load).
    fn is_interested(&self) -> bool;
}

#[derive(Debug, Default)]
struct Queues {
    to_pipeline: VecDeque<ToPipeline>,
    to_front: VecDeque<ToFront>,
    interested: bool,
}

/// Both queues between a front and a pipeline on one thread; each holds a clone.
#[derive(Debug, Clone, Default)]
pub struct LocalLink {
    queues: Rc<RefCell<Queues>>,
}

impl FrontLink for LocalLink {
    fn pop(&mut self) -> Option<ToFront> {
        self.queues.borrow_mut().to_front.pop_front()
    }

    fn push(&mut self, message: ToPipeline) {
        assert!(FrontLink::room(self) > 0, "the queue to the pipeline is full");
        self.queues.borrow_mut().to_pipeline.push_back(message);
    }

    fn room(&self) -> usize {
        LINK_MESSAGES_MAX - self.queues.borrow().to_pipeline.len()
    }

    fn set_interested(&mut self, interested: bool) {
        self.queues.borrow_mut().interested = interested;
    }
}

impl PipelineLink for LocalLink {
    fn pop(&mut self) -> Option<ToPipeline> {
        self.queues.borrow_mut().to_pipeline.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.queues.borrow().to_pipeline.is_empty()
    }

    fn push(&mut self, message: ToFront) {
        assert!(PipelineLink::room(self) > 0, "the queue to the front is full");
        self.queues.borrow_mut().to_front.push_back(message);
    }

    fn room(&self) -> usize {
        LINK_MESSAGES_MAX - self.queues.borrow().to_front.len()
    }

    fn is_interested(&self) -> bool {
        self.queues.borrow().interested
    }
}
