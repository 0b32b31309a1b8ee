//! From bytes to requests: framing, handshake, and who serves what.
//!
//! A read is served here and now unless a request of the same connection is still with the pipeline; then it follows there and is
//! served between the writes. What only this front can do (watches, identities) waits until nothing is under way. Replies therefore
//! leave in the order asked without ever being sorted.

use bytes::Bytes;

use super::conn::{ConnId, Phase};
use super::{Front, HANDSHAKE_BYTES_MAX, LEND_BYTES_MIN, OUTPUT_PAUSE_BYTES};
use crate::jute::{Reader, put_i32, put_string};
use crate::node::limits::{COUNTED_BYTES_MIN, Taken};
use crate::node::link::{FrontLink, Request, Serving, ToPipeline};
use crate::proto::client::{ConnectRequest, ConnectResponse, Frame, OpCode, RequestHeader, XID_PING};
use crate::proto::{ErrorCode, FRAME_BYTES_MAX};
use crate::request::auth::{self, AuthOutcome};
use crate::request::read::{self, Asker};
use crate::session;
use crate::types::{SessionId, Zxid};
use crate::words::{self, Word};

/// Times a read is begun anew because a change was published meanwhile, before the pipeline serves it.
pub(super) const READ_TRIES_MAX: usize = 64;
/// Reads of one connection that may be with the pipeline, behind a write of its own. Each may bring a whole node's data into the
/// output, so this bounds what a client that does not read makes us keep; the next ones wait and are then read here.
const ORDERED_READS_MAX: u32 = 32;
/// Children beyond which a list is not made by the pipeline.
const ORDERED_LIST_MAX: usize = 1024;

/// Requests of one receive whose nodes are fetched together before the first of them is served. Measured with a million nodes
/// and random paths; see `bench/benches/reads.rs`.
const PREFETCH_REQUESTS_MAX: usize = 16;

/// What the first bytes of a buffer are.
enum Piece {
    /// Not yet a whole frame.
    Partial,
    /// The payload's length; it is all there.
    Frame(usize),
    Word(Word),
    /// No valid length.
    Bad,
}

impl<L: FrontLink> Front<L> {
    /// Takes whole frames from the front of `bytes` as long as the connection may go on; gives the bytes taken.
    pub(super) fn frames(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let mut taken = 0;
        let mut prefetched = 0;
        loop {
            let conn = &mut self.conns[id.0 as usize];
            if conn.stalled
                || matches!(
                    conn.phase,
                    Phase::Closing
                        | Phase::Ending
                        | Phase::Gone
                        | Phase::Word
                        | Phase::Admitting
                        | Phase::Opening { .. }
                )
                || conn.unsent_bytes() >= OUTPUT_PAUSE_BYTES
            {
                return taken;
            }
            // Every connection may have one under way; its answer has the connection looked at again.
            // Source: ZooKeeper `ZooKeeperServer#shouldThrottle`.
            let outstanding = self.outstanding + self.outstanding_elsewhere;
            if conn.pending > 0 && outstanding > u64::from(self.options.outstanding_max) {
                return taken;
            }
            if !self.has_room() {
                // The pipeline is behind; the next turn looks again.
                self.resume_later(id);
                return taken;
            }
            let conn = &mut self.conns[id.0 as usize];
            let rest = &bytes[taken..];
            let fresh = conn.phase == Phase::Fresh;
            let frame_bytes_max = if fresh { HANDSHAKE_BYTES_MAX } else { self.options.frame_bytes_max };
            match piece(rest, fresh, frame_bytes_max) {
                Piece::Partial => {
                    if !fresh
                        && let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
                        && self.is_large(length)
                        && !self.options.shares.has_large_room(u64::from(length))
                    {
                        // Before its bytes are gathered.
                        self.refuse_large(id, length);
                    }
                    return taken;
                }
                Piece::Bad => {
                    tracing::debug!(peer = %conn.peer, "closing: {:?} is no length up to {frame_bytes_max}", &rest[..4]);
                    self.close(id);
                    return taken;
                }
                Piece::Word(word) => {
                    taken += 4;
                    if !self.word(id, word, &bytes[taken..]) {
                        return taken - 4;
                    }
                    return bytes.len();
                }
                Piece::Frame(length) => {
                    let payload = &rest[4..4 + length];
                    if taken >= prefetched && rest.len() > 4 + length {
                        prefetched = taken + self.prefetch(rest);
                    }
                    if !fresh && (length >= COUNTED_BYTES_MIN || self.is_large(length as u32)) {
                        match self.options.shares.take(length as u64, self.is_large(length as u32)) {
                            Taken::Share(share) => self.share = Some(share),
                            Taken::NotYet => {
                                self.resume_later(id);
                                return taken;
                            }
                            Taken::Never => {
                                self.refuse_large(id, length as u32);
                                return taken;
                            }
                        }
                    }
                    let done = if fresh { self.handshake(id, payload) } else { self.request(id, payload) };
                    // Gone along with the request, if that is under way.
                    self.share = None;
                    if !done {
                        return taken;
                    }
                    taken += 4 + length;
                    self.conns[id.0 as usize].stats.received += 1;
                    self.counters.requests += u64::from(!fresh);
                }
            }
        }
    }

    /// Fetches what the next reads in `bytes` will touch, so that their cache misses overlap; gives the bytes looked at.
    fn prefetch(&self, bytes: &[u8]) -> usize {
        let mut paths: [&[u8]; PREFETCH_REQUESTS_MAX] = [&[]; PREFETCH_REQUESTS_MAX];
        let mut count = 0;
        let mut at = 0;
        for _ in 0..PREFETCH_REQUESTS_MAX {
            let Some(length) = bytes[at..].first_chunk::<4>() else { break };
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else { break };
            let Some(payload) = bytes[at + 4..].get(..length) else { break };
            at += 4 + length;
            if let Some(path) = path_read(payload) {
                paths[count] = path;
                count += 1;
            }
        }
        if count > 1 {
            self.reader.prefetch_batch(&paths[..count]);
        }
        at
    }

    /// Whether a frame of so many bytes needs a share of the budget.
    fn is_large(&self, length: u32) -> bool {
        self.options.large_request_threshold.is_some_and(|threshold| length > threshold)
    }

    /// Source: ZooKeeper `ZooKeeperServer#checkRequestSizeWhenReceivingMessage`.
    fn refuse_large(&mut self, id: ConnId, length: u32) {
        self.counters.large_requests_rejected += 1;
        let conn = &self.conns[id.0 as usize];
        tracing::debug!(
            session = %conn.session,
            peer = %conn.peer,
            "closing: a request of {length} bytes, and those under way use up largeRequestMaxBytes"
        );
        self.close(id);
    }

    /// `false`: it waits to be admitted; the frame stays where it is.
    fn handshake(&mut self, id: ConnId, payload: &[u8]) -> bool {
        if self.serving == Serving::No {
            // No answer, so that the client tries its other servers. Source: ZooKeeper `NIOServerCnxn#readConnectRequest`.
            self.close(id);
            return true;
        }
        let conn = &mut self.conns[id.0 as usize];
        let Ok(request) = ConnectRequest::decode(payload) else {
            self.close(id);
            return true;
        };
        if self.options.connection_throttle && !conn.admitted {
            conn.phase = Phase::Admitting;
            conn.pending += 1;
            self.link.push(ToPipeline::Admit { conn: id, renew: request.session != SessionId::NONE });
            return false;
        }
        if self.serving == Serving::ReadOnly && request.read_only != Some(true) {
            // It wants a server that can write.
            self.close(id);
            return true;
        }
        self.counters.connect_requests += 1;
        self.open(id, &request);
        true
    }

    /// Source: ZooKeeper `ZooKeeperServer#processConnectRequest`; the password is checked before anything else of the session
    /// is touched (client-protocol §14.7).
    fn open(&mut self, id: ConnId, request: &ConnectRequest<'_>) {
        let zxid_applied = self.catch_up();
        let conn = &mut self.conns[id.0 as usize];
        if request.zxid_seen > zxid_applied {
            tracing::info!(
                peer = %conn.peer,
                "refusing a client that has seen {}, this server's last is {zxid_applied}: it must try another server",
                request.zxid_seen
            );
            return self.close(id);
        }
        let timeout_ms = request
            .timeout_ms
            .clamp(self.options.session_timeout_ms_min, self.options.session_timeout_ms_max);
        let read_only = request.read_only;
        if request.session != SessionId::NONE
            && request.password != Some(&session::password(request.session)[..])
        {
            ConnectResponse::refused(read_only).encode_frame(&mut conn.output);
            return self.close(id);
        }
        conn.phase = Phase::Opening { read_only };
        conn.pending += 1;
        let message = if request.session == SessionId::NONE {
            ToPipeline::Open { conn: id, timeout_ms }
        } else {
            ToPipeline::Renew { conn: id, session: request.session, timeout_ms }
        };
        self.link.push(message);
    }

    /// Serves one request, or passes it on. `false`: not now; the frame stays where it is.
    fn request(&mut self, id: ConnId, payload: &[u8]) -> bool {
        let mut reader = Reader::new(payload);
        let Ok(header) = RequestHeader::decode(&mut reader) else {
            self.close(id);
            return true;
        };
        let body = reader.rest();
        let op = OpCode::of(header.op);
        let conn = &mut self.conns[id.0 as usize];
        if conn.pending > 0 && op.is_none_or(waits_for_quiet) {
            conn.stalled = true;
            return false;
        }
        if auth::lacks_enforced_auth(&conn.identities, &self.options.auth)
            && !matches!(op, Some(OpCode::Auth | OpCode::Sasl))
        {
            if conn.pending > 0 {
                conn.stalled = true;
                return false;
            }
            self.answer(id, header.xid, op, Zxid::ZERO, ErrorCode::SessionClosedRequireSaslAuth, &[]);
            self.close(id);
            return true;
        }
        let Some(op) = op else {
            self.unknown(id, header.xid);
            return true;
        };
        if self.serving == Serving::ReadOnly && needs_leader(op) {
            let conn = &mut self.conns[id.0 as usize];
            if conn.pending > 0 {
                conn.stalled = true;
                return false;
            }
            let zxid = self.catch_up();
            self.answer(id, header.xid, Some(op), zxid, ErrorCode::NotReadOnly, &[]);
            return true;
        }
        use OpCode::*;
        match op {
            GetData | Exists | GetChildren | GetChildren2 | GetAcl | GetAllChildrenNumber | MultiRead => {
                if conn.pending > 0 {
                    return self.follow(id, header.xid, op, body);
                }
                self.read(id, header.xid, op, body)
            }
            Ping if conn.pending == 0 => {
                let zxid = self.catch_up();
                self.answer(id, XID_PING, Some(op), zxid, ErrorCode::Ok, &[]);
                true
            }
            Ping | Sync | GetEphemerals => self.follow(id, header.xid, op, body),
            Create | Create2 | CreateContainer | CreateTtl | Delete | SetData | SetAcl | Multi | Reconfig => {
                self.follow(id, header.xid, op, body)
            }
            CloseSession => {
                self.follow(id, header.xid, op, body);
                self.conns[id.0 as usize].phase = Phase::Ending;
                true
            }
            Auth => {
                self.auth(id, header.xid, body);
                true
            }
            Sasl => {
                self.sasl(id, header.xid, body);
                true
            }
            WhoAmI => {
                let conn = &self.conns[id.0 as usize];
                let entries = conn.identities.who_am_i(&self.options.auth);
                let mut out = Vec::new();
                put_i32(&mut out, entries.len() as i32);
                for (scheme, user) in &entries {
                    put_string(&mut out, scheme);
                    put_string(&mut out, user);
                }
                let zxid = self.catch_up();
                self.answer(id, header.xid, Some(op), zxid, ErrorCode::Ok, &out);
                true
            }
            SetWatches | SetWatches2 => self.set_watches(id, header.xid, op, body),
            AddWatch | RemoveWatches | CheckWatches => self.change_watches(id, header.xid, op, body),
            // Internal to servers, or no request at all. Source: ZooKeeper `Request#isValid`, client-protocol §14.3, §14.8.
            Check | DeleteContainer | CreateSession | Error => {
                self.unknown(id, header.xid);
                true
            }
        }
    }

    fn unknown(&mut self, id: ConnId, xid: i32) {
        self.answer(id, xid, None, Zxid(-1), ErrorCode::Unimplemented, &[]);
        self.close(id);
    }

    /// Passes a request to the pipeline.
    fn follow(&mut self, id: ConnId, xid: i32, op: OpCode, body: &[u8]) -> bool {
        if matches!(op, OpCode::GetChildren | OpCode::GetChildren2)
            && self.is_longer_list(body, ORDERED_LIST_MAX)
        {
            // The pipeline must not spend its turn on it: here, once nothing is under way.
            let conn = &mut self.conns[id.0 as usize];
            if conn.pending > 0 {
                conn.stalled = true;
            } else {
                self.resume_later(id);
            }
            return false;
        }
        let conn = &mut self.conns[id.0 as usize];
        if answers_at_length(op) && conn.pending_reads >= ORDERED_READS_MAX {
            // Their answers come all at once, whether the client reads them or not.
            conn.stalled = true;
            return false;
        }
        self.pass_on(id, xid, op, body);
        true
    }

    pub(super) fn pass_on(&mut self, id: ConnId, xid: i32, op: OpCode, body: &[u8]) {
        if leaves_watch(op) {
            self.conns[id.0 as usize].pending_watches += 1;
            self.pending_watches += 1;
            self.settle_interest();
        }
        let conn = &mut self.conns[id.0 as usize];
        conn.pending += 1;
        conn.pending_reads += u32::from(answers_at_length(op));
        self.outstanding += 1;
        self.link.push(ToPipeline::Request(Box::new(Request {
            conn: id,
            session: conn.session,
            xid,
            op,
            body: Bytes::copy_from_slice(body),
            identities: conn.identities.clone(),
            received: self.now.instant,
            share: self.share.take(),
        })));
    }

    /// Whether the node that a request names has more than this many children.
    pub(super) fn is_longer_list(&self, body: &[u8], count_max: usize) -> bool {
        let Ok(Some(path)) = Reader::new(body).string() else { return false };
        let count = self.reader.read(|view| view.find(&path).map_or(0, |node| view.child_count(node)));
        count.is_ok_and(|(_, count)| count > count_max)
    }

    /// Serves a read from the published tree. `false`: not now.
    fn read(&mut self, id: ConnId, xid: i32, op: OpCode, body: &[u8]) -> bool {
        if matches!(op, OpCode::GetChildren | OpCode::GetChildren2) && self.begin_list(id, xid, op, body) {
            return true;
        }
        let leaves_watch = leaves_watch(op) && body.last().is_some_and(|&watch| watch != 0);
        if leaves_watch && !self.interested {
            // Counted before the tree is looked at: from here on no change goes unnoticed.
            self.interested = true;
            self.link.set_interested(true);
        }
        for _ in 0..READ_TRIES_MAX {
            let published = self.reader.published();
            if published.number != self.caught_up.number {
                self.take_messages();
                if !self.conns[id.0 as usize].is_serving() {
                    // A message closed it.
                    return false;
                }
            }
            let conn = &mut self.conns[id.0 as usize];
            if conn.output.capacity() == 0 {
                conn.output = self.pool.pop().unwrap_or_default();
            }
            let from = conn.output.len();
            let asker = Asker { identities: &conn.identities, options: &self.options.auth };
            let output = &mut conn.output;
            let mut lent = None;
            let done = self.reader.read_at(published, |view| {
                let frame = Frame::begin_reply(output, xid, published.zxid, ErrorCode::Ok);
                let done = if op == OpCode::GetData {
                    read::serve_data(view, body, asker, LEND_BYTES_MIN, output, &mut lent)
                } else {
                    read::serve(view, op, body, asker, output)
                };
                frame.end(output);
                done
            });
            let Some((_, done)) = done else {
                conn.output.truncate(from);
                std::hint::spin_loop();
                continue;
            };
            let mut bytes = conn.output.len() - from;
            if let Some((at, data)) = lent {
                bytes += data.len();
                let length = i32::try_from(bytes - 4).expect("a frame is shorter than 2 GiB");
                conn.output[from..from + 4].copy_from_slice(&length.to_be_bytes());
                conn.lend(at, data);
            }
            if let Err(err) = done.result {
                conn.output[from + 16..from + 20].copy_from_slice(&err.code().to_be_bytes());
            }
            conn.stats.sent += 1;
            conn.stats.last_op = op.number();
            conn.stats.last_cxid = xid;
            conn.stats.last_zxid = published.zxid.0;
            conn.stats.last_response_ms = self.now.instant.as_ms();
            conn.stats.latency(0);
            self.counters.replied(op, 0, bytes as u64);
            if !conn.dirty {
                conn.dirty = true;
                self.dirty.push(id);
            }
            if let Some((path, mode)) = done.watch {
                self.watches.add(&path, id.0, mode);
            }
            if leaves_watch {
                self.settle_interest();
            }
            return true;
        }
        // Written too fast to be read in peace: the pipeline serves it between two writes.
        self.follow(id, xid, op, body)
    }

    /// Appends a reply made here.
    pub(super) fn answer(
        &mut self,
        id: ConnId,
        xid: i32,
        op: Option<OpCode>,
        zxid: Zxid,
        err: ErrorCode,
        body: &[u8],
    ) {
        let conn = &mut self.conns[id.0 as usize];
        if conn.phase == Phase::Closing {
            // A message taken on the way to this reply closed it.
            return;
        }
        if conn.output.capacity() == 0 {
            conn.output = self.pool.pop().unwrap_or_default();
        }
        let frame = Frame::begin_reply(&mut conn.output, xid, zxid, err);
        conn.output.extend_from_slice(body);
        frame.end(&mut conn.output);
        conn.stats.sent += 1;
        conn.stats.last_cxid = xid;
        conn.stats.last_zxid = zxid.0;
        conn.stats.last_response_ms = self.now.instant.as_ms();
        conn.stats.latency(0);
        if let Some(op) = op {
            conn.stats.last_op = op.number();
            self.counters.replied(op, 0, body.len() as u64 + 20);
        }
        self.mark_dirty(id);
    }

    /// Source: ZooKeeper `ZooKeeperServer#processPacket`, case auth.
    fn auth(&mut self, id: ConnId, xid: i32, body: &[u8]) {
        let mut reader = Reader::new(body);
        let decoded = reader.i32().and_then(|_| Ok((reader.string()?, reader.buffer()?)));
        let Ok((scheme, bytes)) = decoded else { return self.close(id) };
        let conn = &mut self.conns[id.0 as usize];
        match auth::authenticate(scheme.as_deref(), bytes, &mut conn.identities, &self.options.auth) {
            AuthOutcome::Ok => self.answer(id, xid, Some(OpCode::Auth), Zxid::ZERO, ErrorCode::Ok, &[]),
            AuthOutcome::Failed => {
                self.counters.auth_failed += 1;
                self.answer(id, xid, Some(OpCode::Auth), Zxid::ZERO, ErrorCode::AuthFailed, &[]);
                self.close(id);
            }
            AuthOutcome::CloseConnection => self.close(id),
        }
    }

    /// Answers a four-letter word. `false`: more of it has to come.
    fn word(&mut self, id: ConnId, word: Word, rest: &[u8]) -> bool {
        if word == Word::TelnetClose {
            self.close(id);
            return true;
        }
        if !self.options.words.allows(word) {
            let text = words::not_whitelisted(word);
            self.conns[id.0 as usize].output.extend_from_slice(text.as_bytes());
            self.close(id);
            return true;
        }
        let argument = match (word, rest.first_chunk::<8>()) {
            (Word::Stmk, None) => return false,
            (_, mask) => mask.map_or(0, |mask| i64::from_be_bytes(*mask)),
        };
        let conn = &mut self.conns[id.0 as usize];
        conn.phase = Phase::Word;
        conn.pending += 1;
        conn.stats.received += 1;
        self.counters.words += 1;
        self.link.push(ToPipeline::Word { conn: id, word, argument });
        true
    }
}

/// What the first bytes are; `fresh` connections may say four-letter words.
fn piece(bytes: &[u8], fresh: bool, frame_bytes_max: u32) -> Piece {
    let Some(first) = bytes.first_chunk::<4>() else { return Piece::Partial };
    if fresh && let Some(word) = Word::of(*first) {
        return Piece::Word(word);
    }
    let length = i32::from_be_bytes(*first);
    if length < 0 || length.unsigned_abs() > frame_bytes_max {
        return Piece::Bad;
    }
    let length = length as usize;
    if bytes.len() - 4 < length { Piece::Partial } else { Piece::Frame(length) }
}

/// The path of a request that looks at one node, as it came.
fn path_read(payload: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(payload);
    let header = RequestHeader::decode(&mut reader).ok()?;
    if OpCode::of(header.op).is_some_and(leaves_watch) { reader.buffer().ok()? } else { None }
}

/// Whether its answer may be as long as a node's data, or longer.
pub(super) fn answers_at_length(op: OpCode) -> bool {
    read::is_tree_read(op) || matches!(op, OpCode::Sync | OpCode::GetEphemerals)
}

/// Whether the operation may leave a watch of its connection.
pub(super) fn leaves_watch(op: OpCode) -> bool {
    matches!(op, OpCode::GetData | OpCode::Exists | OpCode::GetChildren | OpCode::GetChildren2)
}

/// What is not to be had of a server without a leader. Source: ZooKeeper `ReadOnlyRequestProcessor`.
fn needs_leader(op: OpCode) -> bool {
    use OpCode::*;
    matches!(
        op,
        Create
            | Create2
            | CreateContainer
            | CreateTtl
            | Delete
            | DeleteContainer
            | SetData
            | SetAcl
            | Multi
            | Reconfig
            | Check
            | Sync
    )
}

/// What is done by the front and must come in its turn.
fn waits_for_quiet(op: OpCode) -> bool {
    use OpCode::*;
    matches!(
        op,
        Auth | Sasl
            | WhoAmI
            | SetWatches
            | SetWatches2
            | AddWatch
            | RemoveWatches
            | CheckWatches
            | Check
            | DeleteContainer
            | CreateSession
            | Error
    )
}

const _: () = assert!(HANDSHAKE_BYTES_MAX < FRAME_BYTES_MAX);
