//! The connections of elections: one to each member, over which notifications go both ways.
//!
//! Any side may connect, but only the one with the larger id keeps what it made: the smaller introduces itself, closes, and is
//! dialled back (quorum-protocol §2.2). What is to be said waits in a slot of one, and a newer message replaces it. A connection
//! is made when something is to be said, not for its own sake, and never twice at once to the same server; failures make the
//! next attempt wait up to [`DIAL_WAIT_MAX`]. Nothing here says anything by itself on a new connection: the owner is told of it
//! and says what is true then.
//!
//! Whatever does not belong closes its connection with a line in the log, not more than one a second: garbage, a length out
//! of range, an unknown server id, this server's own, a membership text that makes none. Held at most: [`PENDING_MAX`] connections that
//! have not said who they are, with [`INITIAL_BYTES_MAX`] bytes each, and for each server one connection with one unfinished
//! message in either direction, and the last membership text it sent that is not ours.
//!
//! Source: ZooKeeper `QuorumCnxManager`.

mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use self::link::Link;
use super::{PeerAddress, PeerConn, PeerEvent, PeerPort, PeerWork};
use crate::config::{Member, Membership};
use crate::proto::election::{INITIAL_BYTES_MAX, InitialMessage, Notification};
use crate::types::{Instant, ServerId};

/// Connections that have not said who they are. One more, and the oldest is closed.
pub const PENDING_MAX: usize = 64;
/// Notifications received and not yet handed over. Beyond, the oldest are forgotten: votes are repeated.
pub const HEARD_MAX: usize = 1024;
/// How soon after a failed attempt the next one follows, doubling.
pub const DIAL_WAIT_MIN: Duration = Duration::from_millis(50);
pub const DIAL_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two attempts in any case.
const DIAL_GAP: Duration = Duration::from_millis(20);
/// How long after something was to be said a connection is still tried for it.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// A connection as young as this cannot belong to an earlier life of the other server: its own attempt crossed ours.
const FRESH_FOR: Duration = Duration::from_millis(200);
/// Where everybody else would have answered, the connection is dead, though the kernel does not know yet.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// Between two complaints in the log.
const COMPLAINT_GAP: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct MeshOptions {
    pub me: ServerId,
    /// Announce every own address, which 3.5 does not understand. Source: ZooKeeper `multiAddress.enabled`.
    pub several_addresses: bool,
    /// For one dial. Source: ZooKeeper `cnxTimeout`.
    pub connect_timeout: Duration,
    /// In which a connection says who it is. Source: ZooKeeper `quorumCnxnTimeoutMs`, else syncLimit ticks.
    pub initial_timeout: Duration,
    /// Servers outside the membership that may connect to ask for the leader, before a reconfiguration makes them members.
    pub strangers_max: usize,
}

impl MeshOptions {
    pub fn new(me: ServerId, initial_timeout: Duration) -> MeshOptions {
        MeshOptions {
            me,
            several_addresses: false,
            connect_timeout: Duration::from_secs(5),
            initial_timeout,
            strangers_max: 0,
        }
    }
}

/// What came of the connections, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    Connected(ServerId),
    Lost(ServerId),
    Notification {
        from: ServerId,
        notification: Notification,
        /// The sender's membership where it is newer than ours; once for each connection and text.
        membership: Option<Box<Membership>>,
    },
}

/// All election connections of one server. Every call may owe something: [`Mesh::drain`].
#[derive(Debug)]
pub struct Mesh {
    options: MeshOptions,
    /// What a dialled server is told first.
    initial: Bytes,
    /// The membership as text, in every notification.
    text: String,
    version: i64,
    peers: BTreeMap<ServerId, Peer>,
    /// Links and dials by their connection.
    owners: BTreeMap<PeerConn, ServerId>,
    pending: BTreeMap<PeerConn, Pending>,
    conn_next: u32,
    /// The last notification sent, framed: a vote goes to everybody.
    framed: Option<(Notification, Bytes)>,
    complaints: Complaints,
    work: Vec<PeerWork>,
    heard: VecDeque<Heard>,
}

/// Another server.
#[derive(Debug, Default)]
struct Peer {
    is_member: bool,
    is_voter: bool,
    /// From the configuration.
    addresses: Vec<PeerAddress>,
    /// From its last initial message, tried after the others.
    claimed: Vec<PeerAddress>,
    link: Option<Link>,
    dial: Option<Dial>,
    /// Said to the owner: connected, and not yet lost.
    is_known_up: bool,
    wanted_until: Option<Instant>,
    /// No dial before.
    dial_after: Instant,
    /// To wait after the next failure.
    dial_wait: Duration,
    /// Since the last connection.
    failures: u32,
}

#[derive(Debug)]
struct Dial {
    conn: PeerConn,
    deadline: Instant,
}

/// Accepted, and not yet introduced.
#[derive(Debug)]
struct Pending {
    from: SocketAddr,
    bytes: Vec<u8>,
    deadline: Instant,
}

impl Mesh {
    /// Panics unless `options.me` is an id that a member can have.
    pub fn new(options: MeshOptions, committed: &Membership) -> Mesh {
        assert!(options.me.0 > 0, "server ids begin at 1");
        let mut mesh = Mesh {
            options,
            initial: Bytes::new(),
            text: String::new(),
            version: 0,
            peers: BTreeMap::new(),
            owners: BTreeMap::new(),
            pending: BTreeMap::new(),
            conn_next: 0,
            framed: None,
            complaints: Complaints::default(),
            work: Vec::new(),
            heard: VecDeque::new(),
        };
        mesh.set_membership(committed, None);
        mesh
    }

    /// Other members: connections to those that are none any more close. Where both memberships have a server, both its
    /// addresses are tried.
    pub fn set_membership(&mut self, committed: &Membership, proposed: Option<&Membership>) {
        self.text = committed.to_text();
        self.version = committed.version;
        self.framed = None;
        let me = self.options.me;
        let own = committed.member(me).or_else(|| proposed?.member(me));
        // A server that is no member any more is still found where it was.
        if own.is_some() || self.initial.is_empty() {
            let message = InitialMessage {
                sid: i64::from(me.0),
                // Nobody could dial a wildcard; without an address the other side uses its own configuration.
                addresses: own.map(reachable_addresses).unwrap_or_default(),
            };
            self.initial = message.to_vec(self.options.several_addresses).into();
        }
        for peer in self.peers.values_mut() {
            (peer.is_member, peer.is_voter) = (false, false);
            peer.addresses.clear();
        }
        for membership in [Some(committed), proposed].into_iter().flatten() {
            for member in membership.members().filter(|member| member.id != me) {
                let peer = self.peers.entry(member.id).or_default();
                peer.is_member = true;
                peer.is_voter |= membership.is_voter(member.id);
                for address in election_addresses(member) {
                    if !peer.addresses.contains(&address) {
                        peer.addresses.push(address);
                    }
                }
            }
        }
        let left: Vec<ServerId> =
            self.peers.iter().filter(|(_, peer)| !peer.is_member).map(|(id, _)| *id).collect();
        for id in left {
            self.drop_link(id);
            self.drop_dial(id);
            self.peers.remove(&id);
        }
    }

    /// Whether this connection is one of these: everything that happens on it belongs here.
    pub fn owns(&self, conn: PeerConn) -> bool {
        self.owners.contains_key(&conn) || self.pending.contains_key(&conn)
    }

    /// Takes what happened on an election connection. What is said of one that was closed here is passed over.
    pub fn event(&mut self, now: Instant, conn: PeerConn, event: PeerEvent<'_>) {
        match event {
            PeerEvent::Accepted { port: PeerPort::Quorum, .. } => {
                unreachable!("a quorum connection is not the mesh's")
            }
            PeerEvent::Accepted { port: PeerPort::Election, from } => self.accepted(now, conn, from),
            PeerEvent::Connected => {
                if let Some(&id) = self.owners.get(&conn) {
                    self.dialled(now, id, conn);
                }
            }
            PeerEvent::Received(bytes) => {
                if let Some(&id) = self.owners.get(&conn) {
                    self.received(now, id, conn, bytes);
                } else if self.pending.contains_key(&conn) {
                    self.introduced(now, conn, bytes);
                }
            }
            PeerEvent::Sent(count) => {
                if let Some(link) = self.link_mut(conn) {
                    let next = link.sent(count);
                    self.work.extend(next.map(|bytes| PeerWork::Send { conn, bytes }));
                }
            }
            PeerEvent::Closed => {
                self.pending.remove(&conn);
                if let Some(&id) = self.owners.get(&conn) {
                    self.closed(now, id, conn);
                }
            }
        }
    }

    /// Says something to a server, in place of what has not left yet. Connects first where need be; what it then says is what
    /// the owner wants to say when it hears of the connection.
    pub fn send(&mut self, now: Instant, to: ServerId, notification: &Notification) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let Some(link) = &mut peer.link else {
            peer.wanted_until = Some(now + WANTED_FOR);
            self.dial_if_due(now, to);
            return;
        };
        let bytes = match &self.framed {
            Some((last, bytes)) if last == notification => bytes.clone(),
            _ => Bytes::from(notification.frame(&self.text)),
        };
        self.framed = Some((*notification, bytes.clone()));
        let conn = link.conn;
        let next = link.say(now, bytes);
        self.work.extend(next.map(|bytes| PeerWork::Send { conn, bytes }));
    }

    /// Connects to every voter, and anew to those that have been silent for too long while they were spoken to.
    pub fn dial_all(&mut self, now: Instant) {
        let voters: Vec<ServerId> =
            self.peers.iter().filter(|(_, peer)| peer.is_voter).map(|(id, _)| *id).collect();
        for id in voters {
            let peer = self.peers.get_mut(&id).expect("it was just there");
            if let Some(link) = &peer.link {
                if !link.is_silent(now, SILENT_MAX) {
                    continue;
                }
                tracing::info!("election connection to server {} is silent, it is made anew", id.0);
                self.drop_link(id);
                self.say_lost(id);
            }
            self.want(now, id);
        }
    }

    pub fn on_timer(&mut self, now: Instant) {
        while let Some((&conn, pending)) = self.pending.iter().find(|(_, pending)| pending.deadline <= now) {
            let reason =
                format!("did not say who it is within {} ms", self.options.initial_timeout.as_millis());
            let from = pending.from;
            self.pending.remove(&conn);
            self.refuse(now, conn, from, &reason);
        }
        let ids: Vec<ServerId> = self.peers.keys().copied().collect();
        for id in ids {
            if self.peers[&id].dial.as_ref().is_some_and(|dial| dial.deadline <= now) {
                self.drop_dial(id);
                self.dial_failed(now, id);
            }
            if self.peers.contains_key(&id) {
                self.dial_if_due(now, id);
            }
        }
    }

    pub fn next_timer(&self) -> Option<Instant> {
        let of_pending = self.pending.values().map(|pending| pending.deadline).min();
        self.peers.values().filter_map(Peer::next_timer).chain(of_pending).min()
    }

    pub fn drain(&mut self, work: &mut Vec<PeerWork>, heard: &mut Vec<Heard>) {
        work.append(&mut self.work);
        heard.extend(self.heard.drain(..));
    }

    pub fn is_connected(&self, id: ServerId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.link.is_some())
    }

    /// Members that cannot be reached, and how often that was tried since they could.
    pub fn unreachable(&self) -> impl Iterator<Item = (ServerId, u32)> {
        let all = self.peers.iter().filter(|(_, peer)| peer.link.is_none() && peer.failures > 0);
        all.map(|(id, peer)| (*id, peer.failures))
    }

    fn link_mut(&mut self, conn: PeerConn) -> Option<&mut Link> {
        let peer = self.peers.get_mut(self.owners.get(&conn)?)?;
        peer.link.as_mut().filter(|link| link.conn == conn)
    }

    fn accepted(&mut self, now: Instant, conn: PeerConn, from: SocketAddr) {
        if self.pending.len() >= PENDING_MAX {
            let oldest = self.pending.iter().min_by_key(|(_, pending)| pending.deadline);
            let (&conn, pending) = oldest.expect("there are some");
            let from = pending.from;
            self.pending.remove(&conn);
            self.refuse(now, conn, from, "makes room: too many connections have not said who they are");
        }
        let deadline = now + self.options.initial_timeout;
        self.pending.insert(conn, Pending { from, bytes: Vec::new(), deadline });
    }

    /// Bytes of a connection that may now say who it is.
    fn introduced(&mut self, now: Instant, conn: PeerConn, bytes: &[u8]) {
        let pending = self.pending.get_mut(&conn).expect("the caller looked");
        let wanted = INITIAL_BYTES_MAX - pending.bytes.len();
        let (first, later) = bytes.split_at(bytes.len().min(wanted));
        pending.bytes.extend_from_slice(first);
        let from = pending.from;
        let (message, used) = match InitialMessage::decode(&pending.bytes) {
            Ok(Some(read)) => read,
            Ok(None) => {
                assert!(pending.bytes.len() < INITIAL_BYTES_MAX, "an initial message ends by then");
                return;
            }
            Err(error) => {
                self.pending.remove(&conn);
                self.refuse(now, conn, from, &error.to_string());
                return;
            }
        };
        let mut rest = self.pending.remove(&conn).expect("it was just there").bytes.split_off(used);
        rest.extend_from_slice(later);
        if let Err(reason) = self.welcome(now, conn, &message) {
            self.refuse(now, conn, from, &reason);
        } else if let Some(&id) = self.owners.get(&conn) {
            self.received(now, id, conn, &rest);
        }
    }

    /// Decides what becomes of a connection that said who it is.
    fn welcome(&mut self, now: Instant, conn: PeerConn, message: &InitialMessage) -> Result<(), String> {
        let me = self.options.me;
        let id = match u8::try_from(message.sid) {
            Ok(id) if id == me.0 => {
                return Err(format!("says it is server {id}, which is this one: is an id used twice?"));
            }
            Ok(id) if id > 0 => ServerId(id),
            _ => return Err(format!("says it is server {}: expected 1 to 255", message.sid)),
        };
        if !self.peers.contains_key(&id) {
            let strangers = self.peers.values().filter(|peer| !peer.is_member).count();
            let is_dialable = id > me || message.addresses.iter().any(|(host, _)| !is_wildcard(host));
            if strangers >= self.options.strangers_max || !is_dialable {
                return Err(format!("says it is server {}, which is no member of this ensemble", id.0));
            }
            self.peers.insert(id, Peer::default());
        }
        let peer = self.peers.get_mut(&id).expect("it is there now");
        let claimed = message.addresses.iter().filter(|(host, _)| !is_wildcard(host));
        peer.claimed = claimed.map(|(host, port)| PeerAddress { host: host.clone(), port: *port }).collect();
        if id > me {
            self.drop_dial(id);
            self.establish(now, id, conn);
            return Ok(());
        }
        self.work.push(PeerWork::Close { conn });
        if peer.link.as_ref().is_some_and(|link| now.since(link.since) < FRESH_FOR) {
            return Ok(());
        }
        // It is there, whatever the attempts before it was have taught.
        peer.dial_wait = DIAL_WAIT_MIN;
        peer.dial_after = peer.dial_after.min(now + DIAL_GAP);
        self.drop_link(id);
        self.want(now, id);
        Ok(())
    }

    fn establish(&mut self, now: Instant, id: ServerId, conn: PeerConn) {
        self.drop_link(id);
        self.owners.insert(conn, id);
        let peer = self.peers.get_mut(&id).expect("the caller knows it");
        peer.link = Some(Link::new(conn, now));
        peer.wanted_until = None;
        peer.failures = 0;
        peer.is_known_up = true;
        self.push_heard(Heard::Connected(id));
    }

    fn dialled(&mut self, now: Instant, id: ServerId, conn: PeerConn) {
        let peer = self.peers.get_mut(&id).expect("owners are peers");
        if peer.dial.as_ref().is_none_or(|dial| dial.conn != conn) {
            return;
        }
        peer.dial = None;
        let bytes = self.initial.clone();
        let length = bytes.len();
        self.work.push(PeerWork::Send { conn, bytes });
        if id < self.options.me {
            self.establish(now, id, conn);
            self.link_mut(conn).expect("it was just made").unsent = length;
            return;
        }
        // The larger id dials; if it does not, it is reminded.
        self.work.push(PeerWork::Close { conn });
        self.owners.remove(&conn);
        peer.back_off(now);
    }

    fn received(&mut self, now: Instant, id: ServerId, conn: PeerConn, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(link) = peer.link.as_mut().filter(|link| link.conn == conn) else { return };
        let mut fresh = Vec::new();
        let result = link.receive(bytes, &self.text, self.version, &mut fresh);
        if !fresh.is_empty() {
            peer.dial_wait = DIAL_WAIT_MIN;
        }
        for (notification, membership) in fresh {
            self.push_heard(Heard::Notification { from: id, notification, membership });
        }
        if let Err(reason) = result {
            self.complain(now, format_args!("election connection of server {}: {reason}", id.0));
            self.drop_link(id);
            self.say_lost(id);
            self.forget_or_back_off(now, id);
        }
    }

    fn closed(&mut self, now: Instant, id: ServerId, conn: PeerConn) {
        self.owners.remove(&conn);
        let peer = self.peers.get_mut(&id).expect("owners are peers");
        if peer.dial.as_ref().is_some_and(|dial| dial.conn == conn) {
            peer.dial = None;
            self.dial_failed(now, id);
        } else {
            let link = peer.link.take().expect("a connection of a peer is its link or its dial");
            if link.is_unanswered() {
                peer.wanted_until = Some(now + WANTED_FOR);
            }
            self.say_lost(id);
            self.forget_or_back_off(now, id);
        }
    }

    fn dial_failed(&mut self, now: Instant, id: ServerId) {
        let peer = self.peers.get_mut(&id).expect("the caller knows it");
        peer.failures = peer.failures.saturating_add(1);
        if peer.failures == 1 {
            tracing::warn!("cannot connect to the election port of server {}", id.0);
        }
        if peer.link.is_none() {
            self.say_lost(id);
            self.forget_or_back_off(now, id);
        }
    }

    /// Strangers are forgotten with their connection.
    fn forget_or_back_off(&mut self, now: Instant, id: ServerId) {
        let peer = self.peers.get_mut(&id).expect("the caller knows it");
        if peer.is_member {
            peer.back_off(now);
        } else {
            self.drop_dial(id);
            self.peers.remove(&id);
        }
    }

    fn want(&mut self, now: Instant, id: ServerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.wanted_until = Some(now + WANTED_FOR);
            self.dial_if_due(now, id);
        }
    }

    fn dial_if_due(&mut self, now: Instant, id: ServerId) {
        let peer = self.peers.get_mut(&id).expect("the caller knows it");
        let is_wanted = peer.wanted_until.is_some_and(|until| until > now);
        if !is_wanted {
            peer.wanted_until = None;
        }
        if !is_wanted || peer.link.is_some() || peer.dial.is_some() || peer.dial_after > now {
            return;
        }
        let mut addresses = peer.addresses.clone();
        addresses.extend(peer.claimed.iter().filter(|claimed| !peer.addresses.contains(claimed)).cloned());
        while self.owners.contains_key(&PeerConn(self.conn_next)) {
            self.conn_next = next_conn(self.conn_next);
        }
        let conn = PeerConn(self.conn_next);
        self.conn_next = next_conn(self.conn_next);
        peer.dial = Some(Dial { conn, deadline: now + self.options.connect_timeout });
        peer.dial_after = now + DIAL_GAP;
        self.owners.insert(conn, id);
        self.work.push(PeerWork::Dial { conn, port: PeerPort::Election, to: id, addresses });
    }

    fn drop_link(&mut self, id: ServerId) {
        if let Some(link) = self.peers.get_mut(&id).and_then(|peer| peer.link.take()) {
            self.owners.remove(&link.conn);
            self.work.push(PeerWork::Close { conn: link.conn });
        }
    }

    fn drop_dial(&mut self, id: ServerId) {
        if let Some(dial) = self.peers.get_mut(&id).and_then(|peer| peer.dial.take()) {
            self.owners.remove(&dial.conn);
            self.work.push(PeerWork::Close { conn: dial.conn });
        }
    }

    fn say_lost(&mut self, id: ServerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && std::mem::take(&mut peer.is_known_up)
        {
            self.push_heard(Heard::Lost(id));
        }
    }

    /// Comings and goings are never forgotten; there are no more of them than connections in a turn.
    fn push_heard(&mut self, heard: Heard) {
        if self.heard.len() >= HEARD_MAX
            && let Some(oldest) = self.heard.iter().position(|one| matches!(one, Heard::Notification { .. }))
        {
            self.heard.remove(oldest);
        }
        self.heard.push_back(heard);
    }

    fn refuse(&mut self, now: Instant, conn: PeerConn, from: SocketAddr, reason: &str) {
        self.work.push(PeerWork::Close { conn });
        self.complain(now, format_args!("election connection from {from} closed: {reason}"));
    }

    fn complain(&mut self, now: Instant, complaint: std::fmt::Arguments<'_>) {
        if let Some(more) = self.complaints.may_say(now) {
            match more {
                0 => tracing::warn!("{complaint}"),
                _ => tracing::warn!("{complaint} ({more} like it were not logged)"),
            }
        }
    }
}

impl Peer {
    fn back_off(&mut self, now: Instant) {
        let wait = self.dial_wait.clamp(DIAL_WAIT_MIN, DIAL_WAIT_MAX);
        self.dial_after = now + wait;
        self.dial_wait = (wait * 2).min(DIAL_WAIT_MAX);
    }

    fn next_timer(&self) -> Option<Instant> {
        match (&self.link, &self.dial) {
            (_, Some(dial)) => Some(dial.deadline),
            (Some(_), None) => None,
            (None, None) => self.wanted_until.map(|_| self.dial_after),
        }
    }
}

#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// How many were kept back before, if this one may be said.
    fn may_say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < COMPLAINT_GAP) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Dials of the mesh have the even numbers below [`PeerConn::ACCEPTED`].
fn next_conn(conn: u32) -> u32 {
    (conn + 2) % PeerConn::ACCEPTED
}

fn is_wildcard(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

fn election_addresses(member: &Member) -> impl Iterator<Item = PeerAddress> {
    member
        .addresses
        .iter()
        .map(|address| PeerAddress { host: address.host.clone(), port: address.election_port })
}

fn reachable_addresses(member: &Member) -> Vec<(String, u16)> {
    let all = member.addresses.iter().filter(|address| !is_wildcard(&address.host));
    all.map(|address| (address.host.clone(), address.election_port)).collect()
}
