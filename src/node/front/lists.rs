//! Long lists of children, read in slices over several turns.
//!
//! A list is exact though turns go by while it is read. Its members and their order stay as long as the parent's `czxid` and `pzxid`
//! do: every create and delete below moves the latter, a parent made anew has another of the former, and a name never changes. So a
//! slice is put between two looks at the parent; when both find what the first slice began with, the slice belongs to the same list,
//! and when the last look is done, the whole list is that of the publication it looked at. Only the looks need a tree that does not
//! move: writes elsewhere may go on during a slice.
//!
//! The connection waits meanwhile, the others go on.

use super::Front;
use super::conn::ConnId;
use super::frames::READ_TRIES_MAX;
use crate::jute::{Reader, put_string};
use crate::node::link::FrontLink;
use crate::proto::client::{Frame, OpCode, ReadRequest};
use crate::proto::{ErrorCode, Stat};
use crate::request::read::{self, Asker};
use crate::tree::{NodeId, Published};
use crate::types::{Instant, Zxid};
use crate::watch::WatchMode;

/// Children a front reads in one turn, for all its long lists together.
pub const LIST_SLICE_MAX: usize = if cfg!(test) { 64 } else { 4096 };
/// Children up to which a list is read at once, like any node.
const LIST_DIRECT_MAX: usize = if cfg!(test) { 16 } else { 512 };
/// Times a list is begun anew because it changed meanwhile, before the pipeline makes it between two writes.
const LIST_RESTARTS_MAX: u8 = 3;
/// Length, header and count.
const HEAD_BYTES: usize = 4 + 16 + 4;

/// A list that is being read.
#[derive(Debug)]
pub struct Listing {
    xid: i32,
    op: OpCode,
    /// The request behind its header.
    body: Vec<u8>,
    watch: bool,
    received: Instant,
    /// The list that `reply` holds the beginning of.
    state: Option<State>,
    /// Children in `reply`.
    count: usize,
    restarts: u8,
    /// The reply's frame; its head is filled in at the end.
    reply: Vec<u8>,
}

/// As long as it is the same, so is the list of children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    node: NodeId,
    czxid: Zxid,
    pzxid: Zxid,
}

/// What became of a slice.
enum Slice {
    /// The next turn goes on.
    Unfinished(Box<Listing>),
    /// The connection is closing.
    Unwanted(Box<Listing>),
    /// Answered, or handed to the pipeline.
    Done,
}

/// What the parent looks like at a publication whose changes are all taken; `None` while it cannot be told.
type Look = Option<(Published, Result<(NodeId, Stat), ErrorCode>)>;

impl<L: FrontLink> Front<L> {
    /// Begins to answer a request for a list too long to be read at once. `false`: it is not.
    pub(super) fn begin_list(&mut self, id: ConnId, xid: i32, op: OpCode, body: &[u8]) -> bool {
        if !self.is_longer_list(body, LIST_DIRECT_MAX) {
            return false;
        }
        let watch = body.last().is_some_and(|&watch| watch != 0);
        if watch {
            // Counted before the tree is looked at, and until the list is done: no change goes unnoticed.
            self.pending_watches += 1;
            self.settle_interest();
        }
        let conn = &mut self.conns[id.0 as usize];
        conn.stalled = true;
        conn.listing = Some(Box::new(Listing {
            xid,
            op,
            body: body.to_vec(),
            watch,
            received: self.now.instant,
            state: None,
            count: 0,
            restarts: 0,
            reply: vec![0; HEAD_BYTES],
        }));
        self.listings.push_back(id);
        // What this turn may still read; usually all of it.
        self.go_on_with_lists();
        true
    }

    /// Once a turn.
    pub(super) fn turn_lists(&mut self) {
        self.list_budget = LIST_SLICE_MAX;
        self.go_on_with_lists();
    }

    /// Reads what may be read in this turn. Each list has a slice before the first has another.
    fn go_on_with_lists(&mut self) {
        for _ in 0..self.listings.len() {
            if self.list_budget == 0 {
                return;
            }
            let Some(id) = self.listings.pop_front() else { return };
            let Some(listing) = self.conns[id.0 as usize].listing.take() else { continue };
            match self.slice(id, listing) {
                Slice::Unfinished(listing) => {
                    self.conns[id.0 as usize].listing = Some(listing);
                    self.listings.push_back(id);
                }
                Slice::Unwanted(listing) => self.end_list(&listing),
                Slice::Done => {}
            }
        }
    }

    /// Gives up a connection's list.
    pub(super) fn drop_list(&mut self, id: ConnId) {
        if let Some(listing) = self.conns[id.0 as usize].listing.take() {
            self.listings.retain(|&other| other != id);
            self.end_list(&listing);
        }
    }

    fn end_list(&mut self, listing: &Listing) {
        self.pending_watches -= u32::from(listing.watch);
        self.settle_interest();
    }

    fn slice(&mut self, id: ConnId, mut listing: Box<Listing>) -> Slice {
        let before = self.look(id, &listing.body);
        if !self.conns[id.0 as usize].is_serving() {
            return Slice::Unwanted(listing);
        }
        let Some((published, looked)) = before else { return Slice::Unfinished(listing) };
        let (node, stat) = match looked {
            Ok(found) => found,
            Err(err) => {
                self.answer_list(id, *listing, published, Err(err));
                return Slice::Done;
            }
        };
        let state = State { node, czxid: stat.czxid, pzxid: stat.pzxid };
        if listing.state != Some(state) {
            if listing.state.is_some() {
                if listing.restarts == LIST_RESTARTS_MAX {
                    return self.pass_list_on(id, listing);
                }
                listing.restarts += 1;
            }
            listing.state = Some(state);
            listing.count = 0;
            listing.reply.truncate(HEAD_BYTES);
        }
        let Listing { count, reply, .. } = &mut *listing;
        let mut visited = 0;
        // The result may be torn, and the publication may have moved for a change elsewhere: the next look tells.
        let _ = self.reader.read_at(published, |view| {
            visited = view.children_slice(node, *count, self.list_budget, |child| {
                put_string(reply, view.name(child));
            });
        });
        assert!(visited <= self.list_budget, "{visited} children were read, {} may", self.list_budget);
        *count += visited;
        // A slice without a child has cost something too.
        self.list_budget = self.list_budget.saturating_sub(visited.max(1));
        let after = self.look(id, &listing.body);
        if !self.conns[id.0 as usize].is_serving() {
            return Slice::Unwanted(listing);
        }
        if let Some((published, Ok((node, stat)))) = after
            && listing.state == Some(State { node, czxid: stat.czxid, pzxid: stat.pzxid })
        {
            if listing.count == stat.child_count as usize {
                self.answer_list(id, *listing, published, Ok(stat));
                return Slice::Done;
            }
        } else {
            // Changed, or not to be told: then this slice does not count. The next look decides what to do.
            listing.state = listing.state.map(|state| State { pzxid: Zxid(-1), ..state });
        }
        Slice::Unfinished(listing)
    }

    /// Finds the parent, at a publication whose changes are all taken.
    fn look(&mut self, id: ConnId, body: &[u8]) -> Look {
        for _ in 0..READ_TRIES_MAX {
            let published = self.reader.published();
            if published.number != self.caught_up.number {
                self.take_messages();
            }
            let conn = &self.conns[id.0 as usize];
            let asker = Asker { identities: &conn.identities, options: &self.options.auth };
            let looked = self.reader.read_at(published, |view| {
                let node = read::readable_parent(view, body, asker)?;
                Ok((node, view.wire_stat(node)))
            });
            if let Some((_, looked)) = looked {
                return Some((published, looked));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The list does not stay long enough to be read: the pipeline makes it, in one piece.
    fn pass_list_on(&mut self, id: ConnId, listing: Box<Listing>) -> Slice {
        if self.link.room() == 0 {
            return Slice::Unfinished(listing);
        }
        self.pass_on(id, listing.xid, listing.op, &listing.body);
        self.end_list(&listing);
        Slice::Done
    }

    fn answer_list(
        &mut self,
        id: ConnId,
        mut listing: Listing,
        published: Published,
        result: Result<Stat, ErrorCode>,
    ) {
        let conn = &mut self.conns[id.0 as usize];
        let mut reply = std::mem::take(&mut listing.reply);
        let err = match result {
            Ok(stat) => {
                if listing.op == OpCode::GetChildren2 {
                    stat.encode(&mut reply);
                }
                let count = i32::try_from(listing.count).expect("a list has fewer than 2^31 children");
                reply[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&count.to_be_bytes());
                ErrorCode::Ok
            }
            Err(err) => {
                reply.truncate(HEAD_BYTES - 4);
                err
            }
        };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let frame = Frame::begin_reply(&mut head, listing.xid, published.zxid, err);
        reply[..HEAD_BYTES - 4].copy_from_slice(&head);
        frame.end(&mut reply);
        let bytes = reply.len() as u64;
        let replaced = if conn.unsent_bytes() == 0 {
            // Not copied once more: it may be megabytes.
            conn.output_sent = 0;
            std::mem::replace(&mut conn.output, reply)
        } else {
            conn.output.extend_from_slice(&reply);
            reply
        };
        let took = self.now.instant.since(listing.received);
        conn.stats.sent += 1;
        conn.stats.last_op = listing.op.number();
        conn.stats.last_cxid = listing.xid;
        conn.stats.last_zxid = published.zxid.0;
        conn.stats.last_response_ms = self.now.instant.as_ms();
        conn.stats.latency(took.as_millis() as u32);
        self.counters.replied(listing.op, took.as_micros() as u64, bytes);
        conn.stalled = false;
        let waits = !conn.input.is_empty();
        if listing.watch
            && result.is_ok()
            && let Ok(ReadRequest { path: Some(path), .. }) =
                ReadRequest::decode(&mut Reader::new(&listing.body))
        {
            self.watches.add(&path, id.0, WatchMode::Child);
        }
        self.give_back(replaced);
        self.end_list(&listing);
        self.mark_dirty(id);
        if waits {
            self.resume_later(id);
        }
    }
}
