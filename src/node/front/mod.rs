//! A front: the clients of one core.
//!
//! It frames, authorises, answers reads from the published tree, keeps the watches of its connections, and passes writes to the
//! pipeline. Everything a connection gets goes through one output buffer in the order it must arrive: replies in the order asked, an event
//! before any reply that could reveal its change (P8). Before a read looks at a newer publication the front has taken every message
//! that came before it ([`Front::read_exact`]).
//!
//! Memory of a connection is bounded: before the handshake by [`HANDSHAKE_BYTES_MAX`], afterwards by one frame and one receive of input,
//! [`OUTPUT_PAUSE_BYTES`] and one reply of output, and [`OUTPUT_BYTES_MAX`] of events before it is cut off.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::metrics::FrontCounters;
use crate::node::limits::{BytesShare, Shares};
use crate::node::link::{FrontLink, NodeChange, Serving, ToFront, ToPipeline};
use crate::proto::client::{ConnectResponse, EventType, Frame, OpCode, XID_PING, put_notification};
use crate::proto::{Acl, ErrorCode, Perms};
use crate::request::auth::sasl::NonceSecret;
use crate::request::auth::{self, AuthOptions, Identities};
use crate::session;
use crate::tree::{Published, TreeReader};
use crate::types::{Instant, Now, SessionId, Zxid};
use crate::watch::{AclSide, ChangeKind, WatchTable};
use crate::words::WordOptions;

mod conn;
mod frames;
mod lists;
mod report;
mod sasl;
mod serving;
mod watches;

pub use conn::ConnId;
use conn::{Conn, Phase};
pub use lists::LIST_SLICE_MAX;

/// Bytes a frame may have before there is a session. ZooKeeper takes its full frame limit; a handshake needs 49.
pub const HANDSHAKE_BYTES_MAX: u32 = 16 << 10;
/// Unsent output at which a connection is no longer read.
pub const OUTPUT_PAUSE_BYTES: usize = 256 << 10;
/// Unsent output, events among it, at which a connection that does not read is cut off.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Data of this length or more is not copied: it is sent from where it lies, and pinned there until it is. A front has
/// [`PINS_MAX`](crate::tree::PINS_MAX) pins; when they are in use, it copies. Measured on loopback: from here on `writev` of head and data
/// costs less than a copy and a send.
pub const LEND_BYTES_MIN: usize = 128 << 10;
/// Capacity of buffers that go back to the pool; larger ones are freed.
const POOLED_BYTES_MAX: usize = 64 << 10;
/// Buffers the pool keeps.
const POOL_MAX: usize = 256;
/// Turns between a probe and its answer: what waits in the socket has been received by then (O12).
const PROBE_TURNS: u8 = 2;

/// What a front depends on.
#[derive(Debug, Clone)]
pub struct FrontOptions {
    pub auth: AuthOptions,
    /// `jute.maxbuffer`, inclusive.
    pub frame_bytes_max: u32,
    pub session_timeout_ms_min: i32,
    pub session_timeout_ms_max: i32,
    /// `zookeeper.nio.sessionlessCnxnTimeout`.
    pub sessionless_timeout: Duration,
    /// `globalOutstandingLimit`: while all fronts have more requests under way, a connection that has one waits with the next.
    pub outstanding_max: u32,
    /// Handshakes ask the pipeline first (`connection_throttle_tokens`).
    pub connection_throttle: bool,
    /// `largeRequestThreshold`: bytes of a frame beyond which it needs a share of the budget.
    pub large_request_threshold: Option<u32>,
    /// Shared with all other fronts.
    pub shares: Arc<Shares>,
    /// Which of the fronts this is.
    pub index: usize,
    pub words: WordOptions,
    /// Seed of the tables' hashes.
    pub hash_seed: u64,
    /// Nonces of SASL exchanges are made of it; the same for all fronts.
    pub nonce_secret: NonceSecret,
    /// Until the pipeline says otherwise. [`Serving::No`] in an ensemble, whose leader also wants to know who was heard from.
    pub serving: Serving,
}

/// One core's share of the clients.
pub struct Front<L> {
    options: FrontOptions,
    reader: TreeReader,
    link: L,
    conns: Slab<Conn>,
    watches: WatchTable,
    /// Nonces made.
    nonces: u64,
    now: Now,
    dirty: Vec<ConnId>,
    /// To go on with in the next turn: input is left over and nothing holds it up any more.
    resume: Vec<ConnId>,
    /// Connections without a session, oldest first, with the time they came.
    sessionless: VecDeque<(Instant, ConnId, SocketAddr)>,
    probes: Vec<(u8, ConnId, SessionId)>,
    /// Connections whose client is gone and whose farewell found no room.
    detaching: VecDeque<ToPipeline>,
    pool: Vec<Vec<u8>>,
    /// Connections that wait for a long list; the next to have a slice is in front.
    listings: VecDeque<ConnId>,
    /// Children that may be read in this turn.
    list_budget: usize,
    /// The publication up to which every message has been taken.
    caught_up: Published,
    /// Requests under way that will leave a watch.
    pending_watches: u32,
    interested: bool,
    /// Requests under way here, and in all other fronts as of the last turn.
    outstanding: u64,
    outstanding_elsewhere: u64,
    /// Of the request being taken in.
    share: Option<BytesShare>,
    counters: FrontCounters,
    serving: Serving,
    /// In an ensemble: connections heard from since sessions were last collected, each once.
    touched: Option<Vec<ConnId>>,
    /// Connections that count: all but those that are gone.
    connection_count: usize,
}

impl<L: FrontLink> Front<L> {
    pub fn new(options: FrontOptions, reader: TreeReader, link: L) -> Front<L> {
        Front {
            watches: WatchTable::new(options.hash_seed),
            serving: options.serving,
            touched: (options.serving == Serving::No).then(Vec::new),
            options,
            link,
            conns: Slab::new(),
            nonces: 0,
            now: Now::default(),
            dirty: Vec::new(),
            resume: Vec::new(),
            sessionless: VecDeque::new(),
            probes: Vec::new(),
            detaching: VecDeque::new(),
            pool: Vec::new(),
            listings: VecDeque::new(),
            list_budget: LIST_SLICE_MAX,
            caught_up: reader.published(),
            reader,
            pending_watches: 0,
            interested: false,
            outstanding: 0,
            outstanding_elsewhere: 0,
            share: None,
            counters: FrontCounters::default(),
            connection_count: 0,
        }
    }

    /// A client came, and there are not too many of them yet.
    pub fn accept(&mut self, now: Now, peer: SocketAddr) -> ConnId {
        self.now = now;
        let identities = Identities::new(peer.ip());
        let id = self.conns.insert(Conn::new(peer, identities, now.instant, now.wall_ms));
        let id = ConnId(u32::try_from(id).expect("fewer than 2^32 connections"));
        self.connection_count += 1;
        self.counters.connections_accepted += 1;
        self.sessionless.push_back((now.instant, id, peer));
        id
    }

    /// It has begun to speak TLS.
    pub fn handshaking(&mut self, id: ConnId) {
        self.conns[id.0 as usize].in_tls_handshake = true;
    }

    /// Its TLS handshake is through, before anything of it is received. `subject` is that of the certificate it has
    /// shown, if it has. False: there is no room for such an identity, and it is to be closed.
    /// Source: ZooKeeper `NettyServerCnxnFactory.CertificateVerifier`.
    pub fn secured(&mut self, id: ConnId, subject: Option<&str>) -> bool {
        let conn = &mut self.conns[id.0 as usize];
        let known = subject.is_none_or(|subject| conn.identities.add_x509(subject, &self.options.auth));
        conn.in_tls_handshake = !known;
        known
    }

    /// A client came that was one too many and was closed at once.
    pub fn rejected(&mut self) {
        self.counters.connections_rejected += 1;
    }

    /// All bytes of one receive.
    pub fn received(&mut self, now: Now, id: ConnId, bytes: &[u8]) {
        self.now = now;
        self.counters.bytes_received += bytes.len() as u64;
        let conn = &mut self.conns[id.0 as usize];
        conn.heard = now.instant;
        if !conn.touched
            && let Some(touched) = &mut self.touched
        {
            conn.touched = true;
            touched.push(id);
        }
        if matches!(conn.phase, Phase::Closing | Phase::Ending | Phase::Word | Phase::Gone) {
            return;
        }
        if conn.input.is_empty() && !conn.stalled {
            let taken = self.frames(id, bytes);
            let conn = &mut self.conns[id.0 as usize];
            if taken < bytes.len() && !matches!(conn.phase, Phase::Closing | Phase::Ending | Phase::Word) {
                if conn.input.capacity() == 0 {
                    conn.input = self.pool.pop().unwrap_or_default();
                }
                conn.input.extend_from_slice(&bytes[taken..]);
            }
        } else {
            conn.input.extend_from_slice(bytes);
            if !conn.stalled {
                self.go_on(id);
            }
        }
    }

    /// End of file or an error: the shell has let go of it.
    pub fn hung_up(&mut self, now: Now, id: ConnId) {
        self.now = now;
        self.let_go(id);
    }

    /// The shell has closed it, as [`Front::wants_close`] asked.
    pub fn closed(&mut self, id: ConnId) {
        self.let_go(id);
    }

    /// Once a turn, after the inputs: what the pipeline says, what was held up, timers.
    pub fn turn(&mut self, now: Now) {
        self.now = now;
        self.reader.quiesce();
        self.take_messages();
        self.exchange_outstanding();
        self.has_room();
        self.turn_lists();
        let mut resume = std::mem::take(&mut self.resume);
        for id in resume.drain(..) {
            if let Some(conn) = self.conns.get_mut(id.0 as usize) {
                conn.resuming = false;
                self.go_on(id);
            }
        }
        if self.resume.is_empty() {
            self.resume = resume;
        }
        self.answer_probes();
        self.drop_sessionless();
    }

    /// Sends the farewells that wait, then says whether there is room for more. No request may overtake a farewell: the next
    /// connection can have the same id and ask for the same session, which the farewell would then take from it.
    fn has_room(&mut self) -> bool {
        while self.link.room() > 0 {
            let Some(message) = self.detaching.pop_front() else { return true };
            self.link.push(message);
        }
        false
    }

    /// Connections with output to send, to be closed, or to be read again or no longer.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnId>) {
        for &id in &self.dirty {
            if let Some(conn) = self.conns.get_mut(id.0 as usize) {
                conn.dirty = false;
            }
        }
        into.append(&mut self.dirty);
    }

    /// What is to be sent next; all of it, unless [`Front::is_output_split`]. Empty for a connection that is gone.
    #[inline]
    pub fn output(&self, id: ConnId) -> &[u8] {
        match self.conns.get(id.0 as usize) {
            None => &[],
            Some(conn) if conn.lent.is_empty() => &conn.output[conn.output_sent..],
            Some(conn) => conn.output_slices().next().unwrap_or(&[]),
        }
    }

    /// Whether large data that lies where the tree has it is part of the output.
    #[inline]
    pub fn is_output_split(&self, id: ConnId) -> bool {
        self.conns.get(id.0 as usize).is_some_and(|conn| !conn.lent.is_empty())
    }

    /// All that is to be sent, in order. No slice is empty.
    pub fn output_slices(&self, id: ConnId) -> impl Iterator<Item = &[u8]> {
        self.conns.get(id.0 as usize).into_iter().flat_map(Conn::output_slices)
    }

    /// The first `count` bytes of the output are with the kernel.
    pub fn sent(&mut self, id: ConnId, count: usize) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        conn.sent(count);
        let unsent = conn.unsent_bytes();
        if unsent == 0 {
            conn.output_sent = 0;
            let mut buffer = std::mem::take(&mut conn.output);
            buffer.clear();
            self.give_back(buffer);
        } else if conn.output_sent > conn.output.len() - conn.output_sent {
            // Each byte moves at most once for each time it was sent past.
            conn.drop_sent();
        }
        let conn = &self.conns[id.0 as usize];
        if unsent < OUTPUT_PAUSE_BYTES && !conn.input.is_empty() {
            self.resume_later(id);
        }
    }

    /// Whether its socket should be read: no while requests wait for the pipeline or their answers for the client.
    pub fn wants_read(&self, id: ConnId) -> bool {
        self.conns.get(id.0 as usize).is_some_and(|conn| match conn.phase {
            Phase::Closing | Phase::Gone => false,
            Phase::Word => false,
            // An end of file is still to be noticed.
            Phase::Ending => true,
            // Whoever sends more before the answer to its handshake waits for it.
            Phase::Admitting | Phase::Opening { .. } => {
                conn.input_bytes() <= HANDSHAKE_BYTES_MAX as usize + 4
            }
            _ => {
                conn.unsent_bytes() < OUTPUT_PAUSE_BYTES
                    && conn.input_bytes() <= self.options.frame_bytes_max as usize + 4
            }
        })
    }

    /// Whether to close it once its output is sent.
    pub fn wants_close(&self, id: ConnId) -> bool {
        self.conns.get(id.0 as usize).is_some_and(|conn| conn.phase == Phase::Closing)
    }

    /// Whether an answer is on its way that a client gets though it has ended its own direction, as `nc` does behind a
    /// four-letter word. Any other client that ends is gone.
    pub fn answers_after_end(&self, id: ConnId) -> bool {
        self.conns.get(id.0 as usize).is_some_and(|conn| matches!(conn.phase, Phase::Word | Phase::Closing))
    }

    /// When another turn is wanted, should nothing else happen first.
    pub fn next_timer(&self) -> Option<Instant> {
        self.sessionless.front().map(|(came, _, _)| *came + self.options.sessionless_timeout)
    }

    /// Whether another turn is wanted at once, after a look at the sockets.
    pub fn has_more(&self) -> bool {
        !self.resume.is_empty() || !self.probes.is_empty() || !self.listings.is_empty()
    }

    /// The thread is about to sleep: memory need not wait for this reader.
    pub fn before_sleep(&mut self) {
        self.exchange_outstanding();
        self.reader.offline();
    }

    pub fn after_sleep(&mut self) {
        self.reader.online();
    }

    fn exchange_outstanding(&mut self) {
        let shares = &self.options.shares;
        self.outstanding_elsewhere = shares.exchange_outstanding(self.options.index, self.outstanding);
    }

    fn take_messages(&mut self) {
        let published = self.reader.published();
        while let Some(message) = self.link.pop() {
            self.take(message);
        }
        if published.is_stable() {
            self.caught_up = published;
        }
    }

    /// Takes every message up to the newest publication and gives its zxid: what a reply made here may tell its client it has seen.
    fn catch_up(&mut self) -> Zxid {
        if self.reader.published().number != self.caught_up.number {
            self.take_messages();
        }
        self.caught_up.zxid
    }

    fn take(&mut self, message: ToFront) {
        match message {
            ToFront::Reply { conn, xid, op, zxid, err, body, received, watch } => {
                self.reply(conn, xid, op, zxid, err, body.bytes(), received, watch);
            }
            ToFront::Change(change) => self.fire(&change),
            ToFront::Changes(changes) => {
                for change in changes.iter() {
                    self.fire(change);
                }
            }
            ToFront::Opened { conn, session, timeout_ms } => self.opened(conn, session, timeout_ms),
            ToFront::Refused { conn } => self.refused(conn),
            ToFront::Admitted { conn } => self.admitted(conn),
            ToFront::TurnedAway { conn } => {
                self.counters.connections_rejected += 1;
                self.conns[conn.0 as usize].pending -= 1;
                self.end(conn);
            }
            ToFront::Dropped { conn, op } => {
                self.answered(conn, op);
                self.end(conn);
            }
            ToFront::Close { conn, session } => {
                let found = self.conns.get(conn.0 as usize);
                if found.is_some_and(|found| found.session == session && found.phase != Phase::Gone) {
                    self.close(conn);
                }
            }
            ToFront::Probe { conn, session } => self.probes.push((PROBE_TURNS, conn, session)),
            ToFront::Survey { survey, word } => {
                let report = self.report(word);
                self.detaching.push_back(ToPipeline::Surveyed { survey, report: Box::new(report) });
            }
            ToFront::Serving(serving) => self.set_serving(serving),
            ToFront::Tree(reader) => self.set_tree(*reader),
            ToFront::CollectTouches { round } => self.collect_touches(round),
            ToFront::Text { conn, text } => {
                if let Some(found) = self.conns.get_mut(conn.0 as usize) {
                    found.pending -= 1;
                    if found.phase == Phase::Gone {
                        self.forget_if_done(conn);
                    } else {
                        found.output.extend_from_slice(&text);
                        self.close(conn);
                    }
                }
            }
        }
    }

    /// The end of a request the pipeline had.
    fn reply(
        &mut self,
        id: ConnId,
        xid: i32,
        op: OpCode,
        zxid: Zxid,
        err: ErrorCode,
        body: &[u8],
        received: Instant,
        watch: Option<Box<(String, crate::watch::WatchMode)>>,
    ) {
        let now = self.now;
        self.answered(id, op);
        self.counters.throttled_ops += u64::from(err == ErrorCode::ThrottledOp);
        let conn = &mut self.conns[id.0 as usize];
        if matches!(conn.phase, Phase::Closing | Phase::Gone) {
            // Nothing may follow what a closing connection has in its output.
            self.counters.stale_replies += 1;
            self.forget_if_done(id);
            return;
        }
        if let Some(watch) = watch {
            self.watches.add(&watch.0, id.0, watch.1);
        }
        if conn.output.capacity() == 0 {
            conn.output = self.pool.pop().unwrap_or_default();
        }
        let xid = if op == OpCode::Ping { XID_PING } else { xid };
        let frame = Frame::begin_reply(&mut conn.output, xid, zxid, err);
        conn.output.extend_from_slice(body);
        frame.end(&mut conn.output);
        let took = now.instant.since(received);
        conn.stats.sent += 1;
        conn.stats.last_op = op.number();
        conn.stats.last_cxid = xid;
        conn.stats.last_zxid = zxid.0;
        conn.stats.last_response_ms = now.instant.as_ms();
        conn.stats.latency(took.as_millis() as u32);
        self.counters.replied(op, took.as_micros() as u64, body.len() as u64 + 20);
        let idle = conn.pending == 0;
        let waits = !conn.input.is_empty();
        if op == OpCode::CloseSession && err == ErrorCode::Ok {
            self.close(id);
        } else {
            self.mark_dirty(id);
            if waits && (idle || !self.conns[id.0 as usize].stalled) {
                self.conns[id.0 as usize].stalled = false;
                self.resume_later(id);
            } else if idle {
                self.conns[id.0 as usize].stalled = false;
            }
        }
    }

    /// One request less is under way.
    fn answered(&mut self, id: ConnId, op: OpCode) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else {
            unreachable!("a connection stays until its answers have come back");
        };
        conn.pending -= 1;
        conn.pending_reads -= u32::from(frames::answers_at_length(op));
        self.outstanding -= 1;
        if frames::leaves_watch(op) && conn.pending_watches > 0 {
            conn.pending_watches -= 1;
            self.pending_watches -= 1;
        }
    }

    /// Closes a connection, or forgets one that is gone already.
    fn end(&mut self, id: ConnId) {
        if self.conns[id.0 as usize].phase == Phase::Gone {
            self.forget_if_done(id);
        } else {
            self.close(id);
        }
    }

    fn admitted(&mut self, id: ConnId) {
        let conn = &mut self.conns[id.0 as usize];
        conn.pending -= 1;
        match conn.phase {
            Phase::Gone => self.forget_if_done(id),
            Phase::Admitting => {
                conn.admitted = true;
                conn.phase = Phase::Fresh;
                self.resume_later(id);
            }
            _ => {}
        }
    }

    fn opened(&mut self, id: ConnId, session: SessionId, timeout_ms: i32) {
        let conn =
            self.conns.get_mut(id.0 as usize).expect("a connection stays until its answers have come back");
        conn.pending -= 1;
        conn.session = session;
        conn.timeout_ms = timeout_ms;
        if conn.phase == Phase::Gone {
            let heard = conn.heard;
            self.detaching.push_back(ToPipeline::Detach { conn: id, session, heard });
            self.forget_if_done(id);
            return;
        }
        let Phase::Opening { read_only } = conn.phase else {
            return;
        };
        conn.phase = Phase::Open;
        conn.stalled = false;
        ConnectResponse {
            timeout_ms,
            session,
            password: session::password(session),
            read_only: read_only.map(|_| self.serving == Serving::ReadOnly),
        }
        .encode_frame(&mut conn.output);
        self.counters.connect_replies += 1;
        conn.stats.sent += 1;
        conn.stats.last_op = OpCode::CreateSession.number();
        if !conn.input.is_empty() {
            self.resume_later(id);
        }
        self.mark_dirty(id);
    }

    fn refused(&mut self, id: ConnId) {
        let conn =
            self.conns.get_mut(id.0 as usize).expect("a connection stays until its answers have come back");
        conn.pending -= 1;
        match conn.phase {
            Phase::Gone => self.forget_if_done(id),
            Phase::Opening { read_only } => {
                ConnectResponse::refused(read_only).encode_frame(&mut conn.output);
                self.close(id);
            }
            _ => {}
        }
    }

    /// Sends the events of one change to those who watch and may read. Source: client-protocol §6.5.
    fn fire(&mut self, change: &NodeChange) {
        if self.watches.is_empty() {
            return;
        }
        let Ok(path) = std::str::from_utf8(&change.path) else { return };
        let Front { watches, conns, dirty, options, counters, pool, .. } = self;
        let mut overflowing = Vec::new();
        let mut fired = 0;
        let mut fired_children = 0;
        let mut send = |conn_raw: u32, event: EventType, path: &str, side: AclSide| {
            let Some(conn) = conns.get_mut(conn_raw as usize) else { return };
            if conn.phase == Phase::Closing {
                // Its output may end within a frame: nothing may follow.
                return;
            }
            let acl = match side {
                AclSide::Node => &change.acl,
                AclSide::Parent => &change.parent_acl,
            };
            if let Some(acl) = acl
                && !auth::check_acl(Acl::from_checked(acl), Perms::READ, &conn.identities, &options.auth)
            {
                return;
            }
            if conn.output.capacity() == 0 {
                conn.output = pool.pop().unwrap_or_default();
            }
            put_notification(&mut conn.output, change.zxid, event, path);
            conn.stats.sent += 1;
            counters.events_sent += 1;
            match event {
                EventType::NodeChildrenChanged => fired_children += 1,
                _ => fired += 1,
            }
            counters.event_bytes += 32 + path.len() as u64;
            if !conn.dirty {
                conn.dirty = true;
                dirty.push(ConnId(conn_raw));
            }
            if conn.unsent_bytes() > OUTPUT_BYTES_MAX {
                overflowing.push(ConnId(conn_raw));
            }
        };
        match change.kind {
            ChangeKind::Created => watches.created(path, &mut send),
            ChangeKind::Deleted => watches.deleted(path, &mut send),
            ChangeKind::DataChanged => watches.data_changed(path, &mut send),
        }
        let tally = match change.kind {
            ChangeKind::Created => &mut self.counters.node_created_watches,
            ChangeKind::Deleted => &mut self.counters.node_deleted_watches,
            ChangeKind::DataChanged => &mut self.counters.node_changed_watches,
        };
        if fired > 0 {
            tally.record(fired);
        }
        if fired_children > 0 {
            self.counters.node_children_watches.record(fired_children);
        }
        for id in overflowing {
            let conn = &mut self.conns[id.0 as usize];
            if conn.phase != Phase::Closing {
                tracing::warn!(
                    session = %conn.session,
                    peer = %conn.peer,
                    "closing a connection that does not read: {} bytes of output wait, {OUTPUT_BYTES_MAX} may",
                    conn.unsent_bytes()
                );
                conn.drop_output();
                self.close(id);
            }
        }
        self.settle_interest();
    }

    /// Closes a connection behind what is in its output.
    fn close(&mut self, id: ConnId) {
        let conn = &mut self.conns[id.0 as usize];
        if matches!(conn.phase, Phase::Closing | Phase::Gone) {
            return;
        }
        conn.phase = Phase::Closing;
        self.drop_list(id);
        let conn = &mut self.conns[id.0 as usize];
        conn.input_taken = 0;
        let input = std::mem::take(&mut conn.input);
        self.give_back(input);
        // What is in the output is the last it gets: an event behind it would follow the answer to closeSession, or half
        // a frame, and would gather as long as the client does not read.
        self.watches.remove_connection(id.0);
        self.settle_interest();
        self.mark_dirty(id);
    }

    /// The socket is no more.
    fn let_go(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        if conn.phase == Phase::Gone {
            return;
        }
        let (session, heard) = (conn.session, conn.heard);
        // A connection that we close, or that never got to a session, is not lost.
        let ended = matches!(conn.phase, Phase::Closing | Phase::Fresh | Phase::Admitting);
        conn.phase = Phase::Gone;
        conn.input = Vec::new();
        conn.input_taken = 0;
        conn.drop_output();
        conn.dirty = false;
        if std::mem::take(&mut conn.in_tls_handshake) {
            self.counters.tls_handshakes_failed += 1;
            self.counters.auth_failed += 1;
        }
        self.connection_count -= 1;
        self.counters.connections_dropped += u64::from(!ended);
        self.drop_list(id);
        self.watches.remove_connection(id.0);
        self.settle_interest();
        if session != SessionId::NONE {
            self.detaching.push_back(ToPipeline::Detach { conn: id, session, heard });
        }
        self.forget_if_done(id);
    }

    /// Frees the id of a connection that is gone once nothing under way can speak of it.
    fn forget_if_done(&mut self, id: ConnId) {
        let conn = &self.conns[id.0 as usize];
        if conn.phase == Phase::Gone && conn.pending == 0 {
            self.pending_watches -= conn.pending_watches;
            self.conns.remove(id.0 as usize);
        }
    }

    fn mark_dirty(&mut self, id: ConnId) {
        let conn = &mut self.conns[id.0 as usize];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    fn resume_later(&mut self, id: ConnId) {
        let conn = &mut self.conns[id.0 as usize];
        if !conn.resuming {
            conn.resuming = true;
            self.resume.push(id);
        }
    }

    /// Goes on with input that was left over.
    fn go_on(&mut self, id: ConnId) {
        let conn = &mut self.conns[id.0 as usize];
        if conn.input.is_empty() || conn.stalled || matches!(conn.phase, Phase::Closing | Phase::Gone) {
            return;
        }
        let mut input = std::mem::take(&mut conn.input);
        let before = std::mem::take(&mut conn.input_taken);
        let taken = before + self.frames(id, &input[before..]);
        let conn = &mut self.conns[id.0 as usize];
        if taken == input.len() || matches!(conn.phase, Phase::Closing | Phase::Ending | Phase::Word) {
            input.clear();
            self.give_back(input);
        } else {
            // Each byte moves at most once for each time it was passed, however often a connection that must wait goes on.
            if taken > input.len() / 2 {
                input.drain(..taken);
            } else {
                conn.input_taken = taken;
            }
            conn.input = input;
        }
        self.mark_dirty(id);
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= POOLED_BYTES_MAX && self.pool.len() < POOL_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Tells the pipeline whether changes are to be sent here.
    fn settle_interest(&mut self) {
        let interested = !self.watches.is_empty() || self.pending_watches > 0;
        if interested != self.interested {
            self.interested = interested;
            self.link.set_interested(interested);
        }
    }

    fn answer_probes(&mut self) {
        let mut probes = std::mem::take(&mut self.probes);
        probes.retain_mut(|(turns, conn, session)| {
            *turns = turns.saturating_sub(1);
            if *turns > 0 {
                return true;
            }
            // A connection that is gone has sent its farewell, which says the same.
            if let Some(found) = self.conns.get(conn.0 as usize)
                && found.session == *session
                && found.phase != Phase::Gone
            {
                if self.link.room() == 0 {
                    return true;
                }
                self.link.push(ToPipeline::Heard { session: *session, conn: *conn, heard: found.heard });
            }
            false
        });
        self.probes.append(&mut probes);
    }

    /// Closes connections that have had time for a handshake. Source: ZooKeeper `nio.sessionlessCnxnTimeout`.
    fn drop_sessionless(&mut self) {
        while let Some(&(came, id, peer)) = self.sessionless.front() {
            let waiting = self.conns.get(id.0 as usize).is_some_and(|conn| {
                conn.peer == peer && conn.session == SessionId::NONE && matches!(conn.phase, Phase::Fresh)
            });
            if waiting && self.now.instant < came + self.options.sessionless_timeout {
                return;
            }
            self.sessionless.pop_front();
            if waiting {
                self.counters.sessionless_expired += 1;
                self.close(id);
            }
        }
    }
}
