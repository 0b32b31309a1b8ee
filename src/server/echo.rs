//! A node that only answers back, with the interface of the real one: what the shell's own tests drive, and the
//! machine's limit to measure against.
//!
//! A request is a four-byte length and that many bytes: four bytes of reply length, one of [`Kind`], the rest counts
//! for nothing. A reply is its length and zeros. Replies leave in the order asked, whatever way they took.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use slab::Slab;

use crate::admin::{Answer, Ask, Permission, Told};
use crate::txnlog::{LogWrite, SegmentId, SegmentWork, WriteId};
use crate::types::{Instant, Now};
use crate::zab::{PeerConn, PeerEvent, PeerWork};
use link::{FrontLink, PipelineLink, ToFront, ToPipeline};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u32);

/// What to do before answering.
pub struct Kind;

impl Kind {
    pub const LOCAL: u8 = 0;
    /// Ask the pipeline.
    pub const HOP: u8 = 1;
    /// Ask the pipeline, which writes a block to the log first.
    pub const WRITE: u8 = 2;
    /// Answer and close.
    pub const CLOSE: u8 = 3;
    /// Answer some milliseconds later.
    pub const LATER: u8 = 4;
}

pub mod link {
    use super::ConnId;

    #[derive(Debug)]
    pub struct ToPipeline {
        pub conn: ConnId,
        pub generation: u32,
        pub reply_bytes: u32,
        pub durable: bool,
    }

    #[derive(Debug)]
    pub struct ToFront {
        pub conn: ConnId,
        pub generation: u32,
        pub reply_bytes: u32,
    }

    pub trait FrontLink {
        fn pop(&mut self) -> Option<ToFront>;
        fn push(&mut self, message: ToPipeline);
        fn room(&self) -> usize;
        fn set_interested(&mut self, interested: bool);
    }

    pub trait PipelineLink {
        fn pop(&mut self) -> Option<ToPipeline>;
        fn is_empty(&self) -> bool;
        fn push(&mut self, message: ToFront);
        fn room(&self) -> usize;
        fn is_interested(&self) -> bool;
    }
}

/// Output a connection may pile up before its reading stops.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Requests that may be read ahead; above any single one of the tests.
const INPUT_BYTES_MAX: usize = 8 << 20;
const LATER_MS: u64 = 20;

struct Conn {
    generation: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// Requests on their way through the pipeline.
    away: usize,
    closing: bool,
    dirty: bool,
}

pub struct Front<L> {
    link: L,
    conns: Slab<Conn>,
    generation: u32,
    dirty: Vec<ConnId>,
    later: VecDeque<(Instant, ConnId, u32, u32)>,
    offline: bool,
    /// A turn found the link full.
    stuck: bool,
}

impl<L: FrontLink> Front<L> {
    pub fn new(link: L) -> Front<L> {
        Front {
            link,
            conns: Slab::new(),
            generation: 0,
            dirty: Vec::new(),
            later: VecDeque::new(),
            offline: false,
            stuck: false,
        }
    }

    pub fn accept(&mut self, _now: Now, _peer: SocketAddr) -> ConnId {
        assert!(!self.offline);
        self.generation += 1;
        let conn = Conn {
            generation: self.generation,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            away: 0,
            closing: false,
            dirty: false,
        };
        ConnId(self.conns.insert(conn) as u32)
    }

    pub fn rejected(&mut self) {
        assert!(!self.offline);
    }

    pub fn received(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        assert!(!self.offline);
        self.conns[conn.0 as usize].input.extend_from_slice(bytes);
        self.consume(now, conn);
    }

    fn consume(&mut self, now: Now, id: ConnId) {
        let conn = &mut self.conns[id.0 as usize];
        let mut at = 0;
        while !conn.closing && conn.output.len() < OUTPUT_BYTES_MAX {
            let Some(head) = conn.input.get(at..at + 9) else { break };
            let len = u32::from_be_bytes(head[..4].try_into().expect("four")) as usize;
            if conn.input.len() < at + 4 + len {
                break;
            }
            let reply_bytes = u32::from_be_bytes(head[4..8].try_into().expect("four"));
            match head[8] {
                Kind::LOCAL if conn.away == 0 => reply(conn, reply_bytes),
                Kind::CLOSE if conn.away == 0 => {
                    reply(conn, reply_bytes);
                    conn.closing = true;
                }
                Kind::LATER => {
                    let at = now.instant + std::time::Duration::from_millis(LATER_MS);
                    self.later.push_back((at, id, conn.generation, reply_bytes));
                }
                Kind::HOP | Kind::WRITE if self.link.room() > 0 => {
                    let durable = head[8] == Kind::WRITE;
                    self.link.push(ToPipeline {
                        conn: id,
                        generation: conn.generation,
                        reply_bytes,
                        durable,
                    });
                    conn.away += 1;
                }
                kind => {
                    self.stuck |= matches!(kind, Kind::HOP | Kind::WRITE);
                    break;
                }
            }
            at += 4 + len;
        }
        conn.input.drain(..at);
        mark(conn, id, &mut self.dirty);
    }

    pub fn hung_up(&mut self, _now: Now, conn: ConnId) {
        assert!(!self.offline);
        self.conns.remove(conn.0 as usize);
    }

    pub fn turn(&mut self, now: Now) {
        assert!(!self.offline);
        while let Some(message) = self.link.pop() {
            if let Some(conn) = self.conns.get_mut(message.conn.0 as usize)
                && conn.generation == message.generation
            {
                conn.away -= 1;
                reply(conn, message.reply_bytes);
                self.consume(now, message.conn);
            }
        }
        while let Some(&(at, id, generation, reply_bytes)) = self.later.front()
            && at <= now.instant
        {
            self.later.pop_front();
            if let Some(conn) = self.conns.get_mut(id.0 as usize)
                && conn.generation == generation
            {
                reply(conn, reply_bytes);
                mark(conn, id, &mut self.dirty);
            }
        }
        if std::mem::take(&mut self.stuck) {
            let ids: Vec<u32> = self.conns.iter().map(|(id, _)| id as u32).collect();
            for id in ids {
                self.consume(now, ConnId(id));
            }
        }
    }

    pub fn take_dirty(&mut self, into: &mut Vec<ConnId>) {
        for id in self.dirty.drain(..) {
            if let Some(conn) = self.conns.get_mut(id.0 as usize) {
                conn.dirty = false;
                into.push(id);
            }
        }
    }

    pub fn output(&self, conn: ConnId) -> &[u8] {
        let conn = &self.conns[conn.0 as usize];
        &conn.output[conn.sent..]
    }

    pub fn is_output_split(&self, _: ConnId) -> bool {
        false
    }

    pub fn output_slices(&self, conn: ConnId) -> impl Iterator<Item = &[u8]> {
        Some(self.output(conn)).into_iter().filter(|output| !output.is_empty())
    }

    pub fn sent(&mut self, id: ConnId, count: usize) {
        let conn = &mut self.conns[id.0 as usize];
        conn.sent += count;
        assert!(conn.sent <= conn.output.len());
        if conn.sent == conn.output.len() {
            conn.output.clear();
            conn.sent = 0;
            if !conn.input.is_empty() {
                self.consume(Now::default(), id);
            }
        }
    }

    pub fn wants_read(&self, conn: ConnId) -> bool {
        let conn = &self.conns[conn.0 as usize];
        !conn.closing && conn.output.len() < OUTPUT_BYTES_MAX && conn.input.len() < INPUT_BYTES_MAX
    }

    pub fn wants_close(&self, conn: ConnId) -> bool {
        self.conns[conn.0 as usize].closing
    }

    pub fn handshaking(&mut self, _: ConnId) {}

    pub fn secured(&mut self, _: ConnId, _: Option<&str>) -> bool {
        true
    }

    pub fn answers_after_end(&self, _: ConnId) -> bool {
        false
    }

    pub fn closed(&mut self, conn: ConnId) {
        self.conns.remove(conn.0 as usize);
    }

    pub fn next_timer(&self) -> Option<Instant> {
        self.later.front().map(|l| l.0)
    }

    pub fn has_more(&self) -> bool {
        false
    }

    pub fn before_sleep(&mut self) {
        assert!(!std::mem::replace(&mut self.offline, true));
    }

    pub fn after_sleep(&mut self) {
        assert!(std::mem::replace(&mut self.offline, false));
    }
}

fn reply(conn: &mut Conn, reply_bytes: u32) {
    conn.output.extend_from_slice(&reply_bytes.to_be_bytes());
    conn.output.resize(conn.output.len() + reply_bytes as usize, 0);
}

fn mark(conn: &mut Conn, id: ConnId, dirty: &mut Vec<ConnId>) {
    if !conn.dirty {
        conn.dirty = true;
        dirty.push(id);
    }
}

pub mod pipeline {
    use crate::admin::{Ask, Told};
    use crate::node::{StorageEvent, StorageWork};
    use crate::request::audit::AuditLine;
    use crate::snapshot::{SnapshotEvent, SnapshotWork};
    use crate::txnlog::{LogWrite, SegmentId, SegmentWork, WriteId};
    use crate::zab::PeerWork;

    #[derive(Debug)]
    pub enum Input {
        Written { id: WriteId, spent: Vec<u8> },
        SegmentReady(SegmentId),
        Snapshot(SnapshotEvent),
        Ask(Ask),
        Storage(StorageEvent),
        Stop,
    }

    #[derive(Debug)]
    pub enum Output {
        Write(LogWrite),
        Segment(SegmentWork),
        Snapshot(SnapshotWork),
        Told(Told),
        Audit(AuditLine),
        Storage(StorageWork),
        Peer(PeerWork),
        Stopped,
    }
}

const SEGMENT_BLOCKS: u64 = 64;
/// Ends a peer's connection.
pub const PEER_GOODBYE: u8 = 0xbb;

pub struct Pipeline<L> {
    links: Vec<L>,
    owed: Vec<pipeline::Output>,
    /// Answers by front that wait: for the disk, or for room.
    waiting: Vec<VecDeque<ToFront>>,
    batch: Vec<(usize, ToFront)>,
    under_way: Option<Vec<(usize, ToFront)>>,
    next_write: u64,
    segment: Option<SegmentId>,
    asked: bool,
    stopping: bool,
}

impl<L: PipelineLink> Pipeline<L> {
    pub fn new(links: Vec<L>) -> Pipeline<L> {
        let waiting = links.iter().map(|_| VecDeque::new()).collect();
        Pipeline {
            links,
            owed: Vec::new(),
            waiting,
            batch: Vec::new(),
            under_way: None,
            next_write: 0,
            segment: None,
            asked: false,
            stopping: false,
        }
    }

    pub fn turn(&mut self, _now: Now) {
        for (i, link) in self.links.iter_mut().enumerate() {
            while let Some(m) = link.pop() {
                let answer = ToFront { conn: m.conn, generation: m.generation, reply_bytes: m.reply_bytes };
                // One front's answers keep their order: what comes behind a write waits for it.
                if m.durable || !self.batch.is_empty() || self.under_way.is_some() {
                    self.batch.push((i, answer));
                } else {
                    self.waiting[i].push_back(answer);
                }
            }
        }
        if !self.batch.is_empty() && self.under_way.is_none() {
            match self.segment {
                Some(segment) => {
                    self.under_way = Some(std::mem::take(&mut self.batch));
                    let offset_bytes = self.next_write % SEGMENT_BLOCKS * 4096;
                    let id = WriteId(self.next_write);
                    self.next_write += 1;
                    let write = LogWrite { id, segment, offset_bytes, bytes: vec![1; 4096] };
                    self.owed.push(pipeline::Output::Write(write));
                }
                None if !self.asked => {
                    self.asked = true;
                    self.owed.push(pipeline::Output::Segment(SegmentWork::Prepare(SegmentId(1))));
                }
                None => {}
            }
        }
        for (link, waiting) in self.links.iter_mut().zip(&mut self.waiting) {
            while link.room() > 0
                && let Some(answer) = waiting.pop_front()
            {
                link.push(answer);
            }
        }
        if self.stopping && self.under_way.is_none() && self.batch.is_empty() {
            self.stopping = false;
            self.owed.push(pipeline::Output::Stopped);
        }
    }

    /// What a peer says, it hears again; one that says [`PEER_GOODBYE`] is sent away.
    pub fn peer(&mut self, _now: Now, conn: PeerConn, event: PeerEvent<'_>) {
        if let PeerEvent::Received(bytes) = event {
            let copy = Bytes::copy_from_slice(bytes);
            self.owed.push(pipeline::Output::Peer(PeerWork::Send { conn, bytes: copy }));
            if bytes.contains(&PEER_GOODBYE) {
                self.owed.push(pipeline::Output::Peer(PeerWork::Close { conn }));
            }
        }
    }

    pub fn handle(&mut self, now: Now, input: pipeline::Input) {
        match input {
            pipeline::Input::Written { id, spent } => {
                assert_eq!(id.0 + 1, self.next_write);
                assert_eq!(spent.len(), 4096);
                for (i, answer) in self.under_way.take().expect("a write was under way") {
                    self.waiting[i].push_back(answer);
                }
            }
            pipeline::Input::SegmentReady(segment) => self.segment = Some(segment),
            pipeline::Input::Snapshot(_) | pipeline::Input::Storage(_) => {}
            pipeline::Input::Ask(Ask { number, .. }) => {
                let answer = Answer::Permission(Permission::Granted);
                self.owed.push(pipeline::Output::Told(Told { number, answer }));
            }
            pipeline::Input::Stop => self.stopping = true,
        }
        let _ = now;
    }

    pub fn drain(&mut self, owed: &mut Vec<pipeline::Output>) {
        owed.append(&mut self.owed);
    }

    pub fn next_timer(&self) -> Option<Instant> {
        None
    }

    pub fn has_more(&self) -> bool {
        false
    }
}
