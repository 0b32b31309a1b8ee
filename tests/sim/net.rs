//! Connections between clients and servers: bytes with delays, cut anywhere, and the shell's part of a front's turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringkeeper::client::{Conversation, Incoming, Message};
use ringkeeper::node::ConnId;
use ringkeeper::proto::client::ConnectRequest;
use ringkeeper::types::{SessionId, Zxid};

use super::client::{End, next_op};
use super::history::{Answer, Asked, Connection, Heard, Violation};
use super::ops::{Op, USERS};
use super::world::{Event, Failure, MS, US, World};

/// Pieces one turn takes from one socket.
const RECEIVES_MAX: usize = 4;

/// One direction of a connection.
#[derive(Default, Debug)]
pub struct Pipe {
    /// With the time each arrives; they stay in order.
    chunks: VecDeque<(u64, Vec<u8>)>,
    /// The end arrives then, behind everything.
    end: Option<u64>,
    bytes: usize,
    last: u64,
    begun: bool,
}

impl Pipe {
    pub fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its reader knows that it stands.
    pub fn begin(&mut self, now: u64) {
        self.begun = true;
        self.last = self.last.max(now);
    }

    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// More on its way; gives when it arrives, not before what was sent before.
    pub fn push(&mut self, arrival: u64, bytes: &[u8]) -> u64 {
        assert!(self.end.is_none(), "nothing follows the end");
        let arrival = arrival.max(self.last);
        self.last = arrival;
        self.bytes += bytes.len();
        self.chunks.push_back((arrival, bytes.to_vec()));
        arrival
    }

    /// The end, behind all that; gives when it arrives, unless it is on its way already.
    pub fn close(&mut self, arrival: u64) -> Option<u64> {
        if self.end.is_some() {
            return None;
        }
        let arrival = arrival.max(self.last);
        self.end = Some(arrival);
        Some(arrival)
    }

    /// What has arrived next by `now`.
    pub fn take(&mut self, now: u64) -> Option<Vec<u8>> {
        let (arrival, _) = self.chunks.front()?;
        if *arrival > now {
            return None;
        }
        let (_, bytes) = self.chunks.pop_front().expect("looked at");
        self.bytes -= bytes.len();
        Some(bytes)
    }

    fn has_arrived(&self, now: u64) -> bool {
        self.chunks.front().is_some_and(|(arrival, _)| *arrival <= now)
    }

    /// Everything has been taken and the end has come.
    pub fn is_over(&self, now: u64) -> bool {
        self.chunks.is_empty() && self.end.is_some_and(|end| end <= now)
    }

    /// Keeps only the first bytes.
    pub fn truncate(&mut self, kept: usize) {
        let mut left = kept;
        self.chunks.retain_mut(|(_, bytes)| {
            bytes.truncate(left);
            left -= bytes.len();
            !bytes.is_empty()
        });
        self.bytes = kept - left;
    }
}

/// A connection between a client and a front.
pub struct Stream {
    pub server: usize,
    pub incarnation: u32,
    pub front: usize,
    /// Once the server has taken it in.
    pub conn: Option<ConnId>,
    pub to_server: Pipe,
    pub to_client: Pipe,
    pub session: SessionId,
    /// Each side has let go of it.
    pub server_gone: bool,
    pub client_gone: bool,
}

/// The sockets of one process, by front.
#[derive(Default)]
pub struct Sockets {
    /// With something to read.
    pub readable: BTreeSet<u32>,
    /// With room again for what is to be sent.
    pub writable: BTreeSet<u32>,
    pub by_conn: BTreeMap<u32, u32>,
}

impl World {
    fn net_delay(&mut self) -> u64 {
        let slow = if self.net.below(100) == 0 { 10 } else { 1 };
        1 + self.net.below(self.shape.net_delay_us * US * slow)
    }

    /// A client connects. Whether there is a server is found out when its first bytes arrive.
    pub fn connect(&mut self, client: usize) {
        let server = self.load.below(self.servers.len() as u64) as usize;
        let front = self.net.below(self.shape.fronts as u64) as usize;
        let id = self.stream_next;
        self.stream_next += 1;
        let (session, zxid_seen) = (self.clients[client].session, self.clients[client].zxid_seen);
        let mut bytes = Vec::new();
        let password = ringkeeper::session::password(session);
        ConnectRequest {
            protocol_version: 0,
            zxid_seen,
            timeout_ms: self.shape.session_timeout_ms,
            session,
            password: Some(&password),
            read_only: Some(false),
        }
        .encode_frame(&mut bytes);
        self.streams.insert(
            id,
            Stream {
                server,
                incarnation: self.servers[server].incarnation,
                front,
                conn: None,
                to_server: Pipe::default(),
                to_client: Pipe::default(),
                session,
                server_gone: false,
                client_gone: false,
            },
        );
        self.ends.insert(
            id,
            End {
                client,
                conversation: Conversation::new(zxid_seen),
                connection: None,
                session,
                zxid_seen,
                pending: VecDeque::new(),
            },
        );
        let now = self.now;
        let client = &mut self.clients[client];
        client.stream = Some(id);
        client.heard = now;
        client.spoke = now;
        self.send(id, true, &bytes);
    }

    /// Puts bytes on their way, in one piece or several.
    pub fn send(&mut self, id: u32, to_server: bool, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = if self.net.below(10) > 0 {
                rest.len()
            } else {
                1 + self.net.below(rest.len() as u64) as usize
            };
            let (piece, behind) = rest.split_at(count);
            rest = behind;
            let delay = self.net_delay();
            let now = self.now;
            let Some(stream) = self.streams.get_mut(&id) else { return };
            let pipe = if to_server { &mut stream.to_server } else { &mut stream.to_client };
            if pipe.is_ended() || to_server && stream.server_gone {
                return;
            }
            let arrival = pipe.push(now + delay, piece);
            self.at(arrival, if to_server { Event::ToServer(id) } else { Event::ToClient(id) });
        }
    }

    /// That direction ends behind what is on its way.
    pub fn end(&mut self, id: u32, to_server: bool) {
        let delay = self.net_delay();
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let pipe = if to_server { &mut stream.to_server } else { &mut stream.to_client };
        let Some(arrival) = pipe.close(now + delay) else { return };
        self.at(arrival, if to_server { Event::ToServer(id) } else { Event::ToClient(id) });
    }

    /// The connection breaks: what was on its way arrives up to any byte.
    pub fn break_stream(&mut self, id: u32) {
        for to_server in [true, false] {
            let Some(stream) = self.streams.get_mut(&id) else { return };
            let pipe = if to_server { &mut stream.to_server } else { &mut stream.to_client };
            let kept = self.net.below(pipe.bytes as u64 + 1) as usize;
            pipe.truncate(kept);
            self.end(id, to_server);
        }
    }

    /// The process is gone, and its sockets with it. After a power cut some clients are told nothing.
    pub fn break_streams_of(&mut self, server: usize, power: bool) {
        let incarnation = self.servers[server].incarnation;
        let ids: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.server == server && stream.incarnation == incarnation)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let is_silent = power && self.net.below(4) == 0;
            let stream = self.streams.get_mut(&id).expect("listed");
            stream.server_gone = true;
            stream.to_server.truncate(0);
            let kept = self.net.below(stream.to_client.bytes as u64 + 1) as usize;
            stream.to_client.truncate(kept);
            if !is_silent {
                self.end(id, false);
            }
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| stream.server_gone && stream.client_gone) {
            self.streams.remove(&id);
            self.ends.remove(&id);
        }
    }

    pub fn arrived_at_server(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.server_gone {
            return;
        }
        let (server, front) = (stream.server, stream.front);
        let machine = &mut self.servers[server];
        if stream.conn.is_none() && machine.node.is_some() {
            // Whoever is there when it arrives.
            stream.incarnation = machine.incarnation;
        }
        match machine.node.as_mut().filter(|_| machine.incarnation == stream.incarnation) {
            Some(node) => {
                node.sockets[front].readable.insert(id);
                self.plan_soon(server, front + 1);
            }
            None => {
                stream.server_gone = true;
                self.end(id, false);
                self.forget(id);
            }
        }
    }

    /// When by that time something of that session arrived that its front has not looked at, though it would.
    pub fn waits_in_socket(&self, server: usize, session: SessionId, by: u64) -> Option<u64> {
        let node = self.servers[server].node.as_ref()?;
        let id = self.speaker.get(&session)?;
        let stream = self.streams.get(id).filter(|stream| stream.server == server && !stream.server_gone)?;
        let conn = stream.conn?;
        let (arrival, _) = stream.to_server.chunks.iter().rfind(|(arrival, _)| *arrival <= by)?;
        node.fronts[stream.front].wants_read(conn).then_some(*arrival)
    }

    /// What the shell does around a front's turn: receive, let it work, send.
    pub fn front_turn(&mut self, server: usize, front: usize) {
        let time = self.now;
        let now = self.servers[server].now(time);
        let node = self.servers[server].node.as_mut().expect("its turn");
        if std::mem::take(&mut node.asleep[front]) {
            node.fronts[front].after_sleep();
        }
        let mut ids: Vec<u32> = node.sockets[front].readable.iter().copied().collect();
        if ids.len() > 1 {
            let by = self.net.below(ids.len() as u64) as usize;
            ids.rotate_left(by);
        }
        let mut again = false;
        for id in ids {
            again |= self.receive(server, front, id);
        }
        let node = self.servers[server].node.as_mut().expect("its turn");
        node.fronts[front].turn(now);
        let mut dirty = Vec::new();
        node.fronts[front].take_dirty(&mut dirty);
        let mut ids: BTreeSet<u32> = std::mem::take(&mut node.sockets[front].writable);
        ids.extend(dirty.iter().filter_map(|conn| node.sockets[front].by_conn.get(&conn.0)));
        for id in ids {
            self.flush(server, front, id);
            let Some(stream) = self.streams.get(&id) else { continue };
            let node = self.servers[server].node.as_ref().expect("its turn");
            // It may want to be read again.
            again |= !stream.server_gone
                && node.sockets[front].readable.contains(&id)
                && stream.conn.is_some_and(|conn| node.fronts[front].wants_read(conn));
        }
        let node = self.servers[server].node.as_mut().expect("its turn");
        let more = node.fronts[front].has_more();
        let waits = node.links[front].waits_for_pipeline();
        let timer = node.fronts[front].next_timer();
        if !more && !again && !waits {
            node.fronts[front].before_sleep();
            node.asleep[front] = true;
        }
        if waits || node.links[front].waits_for_pipeline() {
            self.plan_soon(server, 0);
        }
        if more || again {
            self.plan_soon(server, front + 1);
        } else if let Some(timer) = timer {
            self.plan(server, front + 1, timer.0 + MS);
        }
    }

    /// One readable socket. Whether more can be read at once.
    fn receive(&mut self, server: usize, front: usize, id: u32) -> bool {
        let time = self.now;
        let now = self.servers[server].now(time);
        let node = self.servers[server].node.as_mut().expect("its turn");
        let sockets = &mut node.sockets[front];
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.server_gone) else {
            sockets.readable.remove(&id);
            return false;
        };
        let conn = match stream.conn {
            Some(conn) => conn,
            None => {
                let conn = node.fronts[front].accept(now, "127.0.0.1:4000".parse().expect("an address"));
                stream.conn = Some(conn);
                sockets.by_conn.insert(conn.0, id);
                conn
            }
        };
        for _ in 0..RECEIVES_MAX {
            if !node.fronts[front].wants_read(conn) {
                return false;
            }
            let Some(bytes) = stream.to_server.take(time) else { break };
            if self.speaker.get(&stream.session) == Some(&id)
                && let Some(lease) = self.heard.get_mut(&stream.session)
            {
                lease.hear(time);
            }
            node.fronts[front].received(now, conn, &bytes);
        }
        if stream.to_server.has_arrived(time) {
            return node.fronts[front].wants_read(conn);
        }
        sockets.readable.remove(&id);
        if stream.to_server.is_over(time) {
            node.fronts[front].hung_up(now, conn);
            sockets.by_conn.remove(&conn.0);
            stream.server_gone = true;
            self.end(id, false);
            self.forget(id);
        }
        false
    }

    /// Sends what the window has room for.
    fn flush(&mut self, server: usize, front: usize, id: u32) {
        let window_bytes = self.shape.window_bytes;
        let Some(stream) = self.streams.get(&id).filter(|stream| !stream.server_gone) else { return };
        let Some(conn) = stream.conn else { return };
        let node = self.servers[server].node.as_mut().expect("its turn");
        let node_front = &mut node.fronts[front];
        let mut room = window_bytes.saturating_sub(stream.to_client.bytes);
        let mut bytes = Vec::new();
        for slice in node_front.output_slices(conn) {
            let count = slice.len().min(room);
            bytes.extend_from_slice(&slice[..count]);
            room -= count;
            if room == 0 {
                break;
            }
        }
        if !bytes.is_empty() {
            node_front.sent(conn, bytes.len());
        }
        let is_done = node_front.output_slices(conn).next().is_none() && node_front.wants_close(conn);
        if is_done {
            node_front.closed(conn);
            node.sockets[front].by_conn.remove(&conn.0);
        }
        self.send(id, false, &bytes);
        if is_done {
            self.streams.get_mut(&id).expect("looked at").server_gone = true;
            self.end(id, false);
            self.forget(id);
        }
    }

    pub fn arrived_at_client(&mut self, id: u32) -> Result<(), Failure> {
        let now = self.now;
        let Some(end) = self.ends.get(&id) else { return Ok(()) };
        let client = end.client;
        let silent_until = self.clients[client].silent_until;
        if silent_until > now {
            self.at(silent_until, Event::ToClient(id));
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.client_gone) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        while let Some(piece) = stream.to_client.take(now) {
            bytes.extend_from_slice(&piece);
        }
        let is_over = stream.to_client.is_over(now);
        if !bytes.is_empty() {
            if !stream.server_gone {
                let (server, front) = (stream.server, stream.front);
                if let Some(node) = self.servers[server].node.as_mut() {
                    node.sockets[front].writable.insert(id);
                    self.plan_soon(server, front + 1);
                }
            }
            self.mix(u64::from(crc32fast::hash(&bytes)));
            self.client_heard(id, &bytes)?;
        }
        if is_over {
            self.leave(id);
        }
        Ok(())
    }

    /// The client lets go of a connection.
    pub fn leave(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::replace(&mut stream.client_gone, true) {
            return;
        }
        let client = self.ends[&id].client;
        if self.clients[client].stream == Some(id) {
            self.clients[client].stream = None;
            // One that has lost its connection does not wait for its next idea.
            let delay = self.load.below(20 * MS) + 1;
            self.plan_client(client, delay);
        }
        self.end(id, true);
        self.forget(id);
    }

    fn client_heard(&mut self, id: u32, bytes: &[u8]) -> Result<(), Failure> {
        let now = self.now;
        let end = self.ends.get_mut(&id).expect("looked at");
        let client = end.client;
        end.conversation.received(bytes);
        self.clients[client].heard = now;
        loop {
            let end = self.ends.get_mut(&id).expect("looked at");
            let incoming = match end.conversation.next_incoming() {
                Ok(None) => return Ok(()),
                Ok(Some(incoming)) => incoming,
                Err(error) => {
                    let text = format!("stream {id} of client {client}: {error}");
                    return Err(Violation::new("C4", text).into());
                }
            };
            match incoming {
                Incoming::Connected(response) => self.greeted(id, response.session),
                Incoming::Message(Message::Event(event)) => {
                    let connection = end.connection.expect("events follow the handshake");
                    let (zxid, kind, path) = (event.zxid, event.kind, event.path);
                    self.mark("an event comes");
                    let client = &mut self.clients[client];
                    client.zxid_seen = client.zxid_seen.max(zxid);
                    client.told(kind, &path);
                    self.history.connections[connection].messages.push(Heard::Event { zxid, kind, path });
                }
                Incoming::Message(Message::Reply(reply)) => {
                    let place = end
                        .pending
                        .iter()
                        .position(|index| self.history.asked[*index].xid == reply.xid)
                        .expect("a conversation answers what was asked");
                    let index = end.pending.remove(place).expect("found");
                    let connection = end.connection.expect("replies follow the handshake");
                    self.history.connections[connection].messages.push(Heard::Reply(index));
                    let ended = self.moment();
                    let asked = &mut self.history.asked[index];
                    asked.answer =
                        Some(Answer { ended, zxid: reply.zxid, err: reply.err, response: reply.response });
                    let is_current = self.clients[client].stream == Some(id);
                    let memory = &mut self.clients[client];
                    memory.zxid_seen = memory.zxid_seen.max(reply.zxid);
                    if is_current {
                        memory.answered(&asked.op, reply.err);
                        if matches!(asked.op, Op::Close) && reply.err == 0 {
                            memory.forget_session();
                        }
                        memory.is_done |= memory.final_asked && matches!(asked.op, Op::SetData { .. });
                    }
                }
            }
        }
    }

    /// The handshake is answered.
    fn greeted(&mut self, id: u32, session: SessionId) {
        let end = self.ends.get_mut(&id).expect("looked at");
        let client = end.client;
        let (requested, zxid_seen) = (end.session, end.zxid_seen);
        let server = self.streams.get(&id).map_or(0, |stream| stream.server);
        let users = self.clients[client].habits.users;
        let connection = Connection { session, server, users, zxid_seen, ..Connection::default() };
        if session == SessionId::NONE {
            self.mark("a session is refused");
            self.history.connections.push(Connection { session: requested, refused: true, ..connection });
            if self.clients[client].session == requested {
                self.clients[client].forget_session();
            }
            return;
        }
        end.connection = Some(self.history.connections.len());
        self.history.connections.push(connection);
        if self.clients[client].stream != Some(id) {
            // It has moved on meanwhile.
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session = session;
        }
        self.speaker.insert(session, id);
        self.mark(if requested == session { "a session is renewed" } else { "a session is opened" });
        let is_renewed = requested == session;
        self.clients[client].session = session;
        let mut ops: Vec<Op> =
            (0..USERS).filter(|user| users.has(*user)).map(|user| Op::Auth { user }).collect();
        let memory = &mut self.clients[client];
        if is_renewed && memory.habits.rearms && !memory.watches.is_empty() {
            ops.push(Op::SetWatches(memory.watches.to_rearm(memory.zxid_seen, &memory.missing)));
        }
        // What it brings again is there again when that is answered, or has fired.
        if !(is_renewed && memory.habits.rearms) {
            memory.watches = Default::default();
            memory.missing.clear();
        }
        self.ask(id, ops);
        let delay = self.load.below(MS) + 1;
        self.plan_client(client, delay);
    }

    /// Sends requests on a connection that stands.
    pub fn ask(&mut self, id: u32, ops: Vec<Op>) {
        let Some(end) = self.ends.get(&id) else { return };
        let (client, Some(connection)) = (end.client, end.connection) else { return };
        let mut bytes = Vec::new();
        for op in ops {
            let xid = self.clients[client].next_xid(&op);
            let begun = self.moment();
            let index = self.history.asked.len();
            let end = self.ends.get_mut(&id).expect("looked at");
            op.submit(xid, &mut end.conversation, &mut bytes);
            end.pending.push_back(index);
            self.history.asked.push(Asked { connection, xid, op, begun, answer: None });
        }
        if !bytes.is_empty() {
            self.clients[client].spoke = self.now;
            self.send(id, true, &bytes);
        }
    }

    pub fn plan_client(&mut self, client: usize, delay: u64) {
        self.clients[client].generation += 1;
        let generation = self.clients[client].generation;
        self.at(self.now + delay, Event::Client { client, generation });
    }

    /// A client has a moment: it connects, asks, or just shows that it is there.
    pub fn client_step(&mut self, number: usize) {
        let now = self.now;
        let timeout = self.shape.session_timeout_ms as u64 * MS;
        let think = self.shape.think_us * US;
        let client = &self.clients[number];
        let habits = client.habits;
        if client.silent_until > now {
            let delay = client.silent_until - now;
            return self.plan_client(number, delay);
        }
        let mut delay = think / 2 + self.load.below(think) + 1;
        let Some(id) = client.stream.filter(|id| self.ends.contains_key(id)) else {
            self.connect(number);
            return self.plan_client(number, delay);
        };
        let end = &self.ends[&id];
        let (pending, is_greeted) = (end.pending.len(), end.connection.is_some());
        let is_waiting = !is_greeted || pending > 0;
        if is_waiting && now - client.heard > timeout {
            // Nobody answers: it looks for another server.
            self.mark("a client gives a connection up");
            self.leave(id);
            return;
        }
        if !is_greeted {
            return self.plan_client(number, delay.max(timeout / 10));
        }
        let is_closing =
            self.ends[&id].pending.iter().any(|index| matches!(self.history.asked[*index].op, Op::Close));
        if is_closing {
            return self.plan_client(number, delay.max(timeout / 10));
        }
        if self.draining {
            if pending == 0 && !self.clients[number].is_done {
                self.clients[number].final_asked = true;
                let last = Op::SetData { path: "/".into(), data: None, version: None };
                self.ask(id, vec![Op::Sync { path: "/".into() }, last]);
            } else if now - self.clients[number].spoke > timeout / 3 {
                self.ask(id, vec![Op::Ping]);
            }
            return self.plan_client(number, timeout / 4 + 1);
        }
        if habits.moves && self.load.below(300) == 0 {
            self.mark("a session moves while its connection stands");
            self.connect(number);
            return self.plan_client(number, delay);
        }
        if habits.abandons && self.load.below(300) == 0 {
            self.mark("a session is abandoned");
            self.clients[number].forget_session();
            self.clients[number].zxid_seen = Zxid::ZERO;
            self.leave(id);
            return;
        }
        let room = self.shape.pipelined.saturating_sub(pending);
        if room == 0 {
            if now - self.clients[number].spoke > timeout / 3 {
                self.ask(id, vec![Op::Ping]);
            }
            delay = delay.max(think);
            return self.plan_client(number, delay);
        }
        let count = 1 + self.load.below(room.min(10) as u64);
        let mut ops = Vec::new();
        for _ in 0..count {
            let peeked = self.load.below(self.servers.len() as u64) as usize;
            let state = self.servers[peeked].node.as_ref().map(|node| node.pipeline.database());
            let op = next_op(&self.shape, habits, state, &mut self.load);
            let is_last = matches!(op, Op::Close);
            ops.push(op);
            if is_last {
                break;
            }
        }
        self.ask(id, ops);
        self.plan_client(number, delay);
    }
}
