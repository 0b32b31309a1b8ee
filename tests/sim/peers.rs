//! Connections between servers: bytes with delays, broken anywhere, and networks that come apart.

use ringkeeper::types::ServerId;
use ringkeeper::zab::{PeerConn, PeerEvent, PeerPort, PeerWork};

use super::net::Pipe;
use super::world::{Event, MS, US, World};

/// A connection between two servers: its dialler (0) and who accepted it (1).
pub struct PeerStream {
    port: PeerPort,
    servers: [usize; 2],
    incarnations: [u32; 2],
    conns: [Option<PeerConn>; 2],
    /// What is on its way to each.
    pipes: [Pipe; 2],
    /// Each has let go of it, or is no more.
    gone: [bool; 2],
    /// One of them lost its power: nothing says so.
    is_silent: bool,
}

impl World {
    fn peer_delay(&mut self) -> u64 {
        let slow = if self.net.below(100) == 0 { 10 } else { 1 };
        1 + self.net.below(self.shape.net_delay_us * US * slow)
    }

    /// What a server wants of its connections to others.
    pub fn peer_work(&mut self, server: usize, work: PeerWork) {
        let incarnation = self.servers[server].incarnation;
        match work {
            PeerWork::Dial { conn, port, to: ServerId(to), .. } => {
                let id = self.peer_next;
                self.peer_next += 1;
                let stream = PeerStream {
                    port,
                    servers: [server, usize::from(to) - 1],
                    incarnations: [incarnation, 0],
                    conns: [Some(conn), None],
                    pipes: [Pipe::default(), Pipe::default()],
                    gone: [false; 2],
                    is_silent: false,
                };
                self.peer_streams.insert(id, stream);
                self.peer_conns.insert((server, conn), (id, 0));
                let delay = self.peer_delay();
                self.at(self.now + delay, Event::PeerDial(id));
            }
            PeerWork::Send { conn, bytes } => {
                let Some(&(id, end)) = self.peer_conns.get(&(server, conn)) else { return };
                self.peer_send(id, 1 - end, &bytes);
            }
            PeerWork::Close { conn } => {
                let Some((id, end)) = self.peer_conns.remove(&(server, conn)) else { return };
                let stream = self.peer_streams.get_mut(&id).expect("a connection has a stream");
                stream.gone[end] = true;
                self.peer_end(id, 1 - end);
                self.peer_forget(id);
            }
        }
    }

    fn peer_send(&mut self, id: u32, towards: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = if self.net.below(10) > 0 {
                rest.len()
            } else {
                1 + self.net.below(rest.len() as u64) as usize
            };
            let (piece, behind) = rest.split_at(count);
            rest = behind;
            let delay = self.peer_delay();
            let now = self.now;
            let stream = self.peer_streams.get_mut(&id).expect("a connection has a stream");
            let pipe = &mut stream.pipes[towards];
            if pipe.is_ended() {
                return;
            }
            let arrival = pipe.push(now + delay, piece);
            self.at(arrival, Event::Peer { stream: id, end: towards });
        }
    }

    fn peer_end(&mut self, id: u32, towards: usize) {
        let delay = self.peer_delay();
        let now = self.now;
        let Some(stream) = self.peer_streams.get_mut(&id) else { return };
        if let Some(arrival) = stream.pipes[towards].close(now + delay) {
            self.at(arrival, Event::Peer { stream: id, end: towards });
        }
    }

    fn peer_forget(&mut self, id: u32) {
        if self.peer_streams.get(&id).is_some_and(|stream| stream.gone == [true; 2]) {
            self.peer_streams.remove(&id);
        }
    }

    /// Until when nothing gets from one server to another, if that is later than now.
    fn blocked(&self, from: usize, to: usize) -> Option<u64> {
        self.blocked_until.get(&(from, to)).copied().filter(|until| *until > self.now)
    }

    /// Until when that process does nothing, if it is there at all.
    fn stands_still(&self, server: usize) -> Option<u64> {
        Some(self.servers[server].paused_until).filter(|until| *until > self.now)
    }

    pub fn peer_dialled(&mut self, id: u32) {
        let Some(stream) = self.peer_streams.get(&id) else { return };
        let [from, to] = stream.servers;
        if stream.gone[0] {
            self.peer_streams.remove(&id);
            return;
        }
        if let Some(until) = self.blocked(from, to).or(self.blocked(to, from)) {
            return self.later(until, Event::PeerDial(id));
        }
        if self.servers[to].node.is_none() {
            self.peer_streams.get_mut(&id).expect("looked at").gone[1] = true;
            return self.peer_end(id, 0);
        }
        if let Some(until) = self.stands_still(to) {
            return self.later(until, Event::PeerDial(id));
        }
        self.peer_accepted += 1;
        let conn = PeerConn(PeerConn::ACCEPTED | self.peer_accepted);
        let incarnation = self.servers[to].incarnation;
        let stream = self.peer_streams.get_mut(&id).expect("looked at");
        stream.conns[1] = Some(conn);
        stream.incarnations[1] = incarnation;
        let port = stream.port;
        self.peer_conns.insert((to, conn), (id, 1));
        let from = format!("127.0.0.{}:5000", from + 1).parse().expect("an address");
        self.tell_peer(to, conn, PeerEvent::Accepted { port, from });
        let delay = self.peer_delay();
        self.at(self.now + delay, Event::PeerConnected(id));
    }

    pub fn peer_connected(&mut self, id: u32) {
        let Some(stream) = self.peer_streams.get(&id) else { return };
        let [from, to] = stream.servers;
        if stream.gone[0] || self.servers[from].incarnation != stream.incarnations[0] {
            return;
        }
        let conn = stream.conns[0].expect("a dialler has a number for it");
        if let Some(until) = self.blocked(to, from).or(self.stands_still(from)) {
            return self.later(until, Event::PeerConnected(id));
        }
        self.peer_streams.get_mut(&id).expect("looked at").pipes[0].begin(self.now);
        self.tell_peer(from, conn, PeerEvent::Connected);
    }

    /// So many bytes have left, as far as their sender knows.
    pub fn peer_sent(&mut self, id: u32, end: usize, count: usize) {
        let Some(stream) = self.peer_streams.get(&id) else { return };
        let (server, conn) = (stream.servers[end], stream.conns[end]);
        if stream.gone[end] || self.servers[server].incarnation != stream.incarnations[end] {
            return;
        }
        if let Some(until) = self.blocked(stream.servers[1 - end], server).or(self.stands_still(server)) {
            return self.later(until, Event::PeerSent { stream: id, end, count });
        }
        self.tell_peer(server, conn.expect("it has sent"), PeerEvent::Sent(count));
    }

    pub fn peer_arrived(&mut self, id: u32, end: usize) {
        let now = self.now;
        let Some(stream) = self.peer_streams.get(&id) else { return };
        if stream.gone[end] {
            return;
        }
        let (from, to) = (stream.servers[1 - end], stream.servers[end]);
        if let Some(until) = self.blocked(from, to) {
            return self.later(until, Event::Peer { stream: id, end });
        }
        if let Some(until) = self.stands_still(to) {
            return self.later(until, Event::Peer { stream: id, end });
        }
        let Some(conn) = stream.conns[end] else { return };
        if end == 0 && !stream.pipes[0].has_begun() && stream.conns[1].is_some() {
            // Word that the connection stands is still on its way.
            return self.at(now + MS, Event::Peer { stream: id, end });
        }
        let stream = self.peer_streams.get_mut(&id).expect("looked at");
        let mut bytes = Vec::new();
        while let Some(piece) = stream.pipes[end].take(now) {
            bytes.extend_from_slice(&piece);
        }
        let is_over = stream.pipes[end].is_over(now);
        if !bytes.is_empty() {
            self.mix(u64::from(crc32fast::hash(&bytes)));
            self.tell_peer(to, conn, PeerEvent::Received(&bytes));
            let delay = self.peer_delay();
            self.at(now + delay, Event::PeerSent { stream: id, end: 1 - end, count: bytes.len() });
        }
        if is_over {
            let stream = self.peer_streams.get_mut(&id).expect("looked at");
            stream.gone[end] = true;
            self.peer_conns.remove(&(to, conn));
            self.tell_peer(to, conn, PeerEvent::Closed);
            self.peer_end(id, 1 - end);
            self.peer_forget(id);
        }
    }

    fn tell_peer(&mut self, server: usize, conn: PeerConn, event: PeerEvent<'_>) {
        let now = self.servers[server].now(self.now);
        let Some(node) = self.servers[server].node.as_mut() else { return };
        node.pipeline.peer(now, conn, event);
        self.plan_soon(server, 0);
    }

    /// The process is gone, and its connections to others with it.
    pub fn break_peers_of(&mut self, server: usize, power: bool) {
        let ids: Vec<(u32, usize)> = self
            .peer_streams
            .iter()
            .flat_map(|(id, stream)| (0..2).map(move |end| (*id, end, stream)))
            .filter(|(_, end, stream)| stream.servers[*end] == server && !stream.gone[*end])
            .filter(|(_, end, stream)| stream.conns[*end].is_some())
            .map(|(id, end, _)| (id, end))
            .collect();
        for (id, end) in ids {
            let is_silent = power && self.net.below(2) == 0;
            let Some(stream) = self.peer_streams.get_mut(&id) else { continue };
            stream.gone[end] = true;
            stream.is_silent |= is_silent;
            let conn = stream.conns[end].expect("filtered");
            stream.pipes[end].truncate(0);
            let kept = self.net.below(stream.pipes[1 - end].bytes() as u64 + 1) as usize;
            stream.pipes[1 - end].truncate(kept);
            self.peer_conns.remove(&(server, conn));
            if !is_silent {
                self.peer_end(id, 1 - end);
            }
            self.peer_forget(id);
        }
    }

    /// A machine that lost its power is there again: who still speaks to its last life is told so.
    pub fn answer_stale_peers(&mut self, server: usize) {
        let ids: Vec<(u32, usize)> = self
            .peer_streams
            .iter()
            .filter(|(_, stream)| stream.is_silent)
            .flat_map(|(id, stream)| {
                (0..2)
                    .filter(move |end| stream.servers[*end] == server && stream.gone[*end])
                    .map(move |end| (*id, end))
            })
            .collect();
        for (id, end) in ids {
            self.peer_end(id, 1 - end);
        }
    }

    /// One of the connections between servers breaks.
    pub fn cut_a_peer(&mut self) {
        let ids: Vec<u32> = self.peer_streams.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.chaos.below(ids.len() as u64) as usize];
        self.mark("a connection between servers is cut");
        for end in 0..2 {
            let stream = self.peer_streams.get_mut(&id).expect("listed");
            let kept = self.net.below(stream.pipes[end].bytes() as u64 + 1) as usize;
            stream.pipes[end].truncate(kept);
            self.peer_end(id, end);
        }
    }

    /// Some servers cannot reach some others for a while.
    pub fn partition(&mut self) {
        let count = self.servers.len();
        if count < 2 {
            return;
        }
        let longest_ms = [100, 2000, 20_000][self.chaos.below(3) as usize] + self.shape.tick_ms;
        let until = self.now + self.chaos.below(longest_ms * MS);
        let kind = self.chaos.below(4);
        let one = self.chaos.below(count as u64) as usize;
        let sides: Vec<bool> = match kind {
            // One apart, both ways or one.
            0 | 1 => (0..count).map(|server| server == one).collect(),
            _ => (0..count).map(|_| self.chaos.below(2) == 0).collect(),
        };
        let is_one_way = kind % 2 == 1;
        for from in 0..count {
            for to in 0..count {
                if sides[from] != sides[to] && (!is_one_way || sides[from]) {
                    let blocked = self.blocked_until.entry((from, to)).or_default();
                    *blocked = until.max(*blocked);
                }
            }
        }
        let ms = (until - self.now) / MS;
        self.note(format!(
            "servers are parted {sides:?} for {ms} ms{}",
            if is_one_way { ", one way" } else { "" }
        ));
        self.mark(if is_one_way { "servers are parted one way" } else { "servers are parted" });
    }
}
