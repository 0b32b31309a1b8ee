//! Connections to the other servers of an ensemble, on the pipeline's core: listening, dialling, receiving, sending.
//!
//! The state machines of [`crate::zab`] say what they want as [`PeerWork`] and hear what happened as [`PeerEvent`]; nothing here
//! knows what the bytes mean. Bytes are received in the turn that hands them over, into the core's one buffer: what nobody has taken
//! stays with the kernel, so a flood costs no memory here. A connection has one small task that waits until its socket is readable.
//! Sends are queued as shared pieces and leave together at the end of a turn, in one vectored call as long as the socket takes them.
//!
//! How long a connection may stay silent is the state machines' to say. Bounds here: connections accepted, in all and from one
//! address ([`PeersOptions`]), bytes waiting to be sent on one ([`QUEUE_BYTES_MAX`]), links served in one turn.

mod dial;
mod listen;
mod names;
mod secure;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use hashbrown::HashMap;
use socket2::SockRef;

pub(super) use self::listen::Listening;
pub use self::listen::{ListenPlan, PeerPlace};
use self::names::Names;
pub use self::secure::PeerTls;
use self::stream::Stream;
use super::signal::Signal;
use crate::io::watched::Watched;
use crate::io::{Bell, sys};
use crate::types::ServerId;
use crate::zab::{PeerConn, PeerEvent, PeerPort, PeerWork};

/// Connections one listener takes before others have their turn.
const ACCEPTS_A_TURN_MAX: usize = 16;
/// How long a listener rests when the process has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Links whose events one turn hands over; the rest waits for the next.
const LINKS_A_TURN_MAX: usize = 64;
/// Receives that follow a failed send, so that what came before the end is heard.
const LAST_RECEIVES_MAX: usize = 64;
/// Vectored sends on one link in one turn.
const SENDS_A_TURN_MAX: usize = 16;
/// Bytes that may wait on one link. Far above what any state machine queues (each has its own, smaller bound): a link that reaches it
/// is given up.
const QUEUE_BYTES_MAX: usize = 1 << 30;

/// Bounds and socket options.
#[derive(Clone)]
pub(super) struct PeersOptions {
    /// `tcpKeepAlive`: the kernel asks silent peers whether they are still there.
    pub(super) keep_alive: bool,
    /// Accepted connections in all. Each of at most 255 servers has two, and briefly as many again while they are renewed.
    pub(super) accepted_max: usize,
    /// Accepted connections of one address, so that a stranger does not take every place.
    pub(super) accepted_per_address_max: usize,
    /// There where they speak TLS, or may.
    pub(super) tls: Option<PeerTls>,
}

impl Default for PeersOptions {
    fn default() -> PeersOptions {
        PeersOptions { keep_alive: false, accepted_max: 2048, accepted_per_address_max: 512, tls: None }
    }
}

/// All connections to peers of this server.
pub(super) struct Peers {
    options: PeersOptions,
    /// Wakes the core's turn.
    pump: Rc<Signal>,
    names: Names,
    links: RefCell<HashMap<PeerConn, Rc<Link>>>,
    /// Links with something to tell, each once.
    ready: RefCell<VecDeque<Rc<Link>>>,
    /// Links with something to send.
    dirty: RefCell<Vec<Rc<Link>>>,
    next_accepted: Cell<u32>,
    accepted: RefCell<Accepted>,
    listeners: RefCell<Vec<TcpListener>>,
    /// What was last said of a server that cannot be reached: said once, not with every attempt.
    complaints: RefCell<HashMap<(ServerId, PeerPort), String>>,
    tasks: Cell<usize>,
    ending: Cell<bool>,
}

/// How many accepted connections there are.
#[derive(Default)]
struct Accepted {
    count: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Somebody was turned away since there was last room for everybody.
    said_full: bool,
}

/// One connection.
struct Link {
    conn: PeerConn,
    port: PeerPort,
    /// Of an accepted one.
    from: Option<SocketAddr>,
    /// There once it stands.
    stream: OnceCell<Stream>,
    queue: RefCell<VecDeque<Bytes>>,
    queued_bytes: Cell<usize>,

    /// What is to be told, in this order.
    opened: Cell<bool>,
    sent_bytes: Cell<usize>,
    readable: Cell<bool>,
    ended: Cell<bool>,

    /// In `ready`, in `dirty`.
    is_ready: Cell<bool>,
    is_dirty: Cell<bool>,
    /// The socket took less than all; a task waits until it takes more.
    blocked: Cell<bool>,
    /// Nobody wants it any more.
    gone: Cell<bool>,
    /// Wakes its task: what was readable has been read, or it is gone.
    told: Signal,
}

impl Peers {
    /// Nothing is accepted before [`Peers::listen`]. `bell` rings the core when a name was looked up; the turn it causes has to call
    /// [`Peers::take_events`].
    pub(super) fn new(options: PeersOptions, pump: Rc<Signal>, bell: Arc<Bell>) -> Rc<Peers> {
        Rc::new(Peers {
            options,
            pump,
            names: Names::new(bell),
            links: RefCell::default(),
            ready: RefCell::default(),
            dirty: RefCell::default(),
            next_accepted: Cell::new(0),
            accepted: RefCell::default(),
            listeners: RefCell::default(),
            complaints: RefCell::default(),
            tasks: Cell::new(0),
            ending: Cell::new(false),
        })
    }

    /// Accepts on these from now on. Inside the core's runtime only.
    pub(super) fn listen(self: &Rc<Self>, listening: Vec<Listening>) -> io::Result<()> {
        for Listening { port, listener } in listening {
            self.listeners.borrow_mut().push(listener.try_clone()?);
            let watched = Watched::new(OwnedFd::from(listener.try_clone()?))?;
            self.spawn(accept_loop(self.clone(), port, listener, watched));
        }
        Ok(())
    }

    /// Hands over what happened, some links' worth of it; [`Peers::has_events`] tells whether there is more.
    /// `buffer` is what one receive can take.
    pub(super) fn take_events(
        self: &Rc<Self>,
        buffer: &mut [u8],
        mut f: impl FnMut(PeerConn, PeerEvent<'_>),
    ) {
        self.names.collect();
        for _ in 0..LINKS_A_TURN_MAX {
            let Some(link) = self.ready.borrow_mut().pop_front() else { return };
            link.is_ready.set(false);
            if !link.gone.get() {
                self.tell(&link, buffer, &mut f);
            }
        }
    }

    fn tell(&self, link: &Link, buffer: &mut [u8], f: &mut impl FnMut(PeerConn, PeerEvent<'_>)) {
        let conn = link.conn;
        if link.opened.replace(false) {
            match link.from {
                Some(from) => f(conn, PeerEvent::Accepted { port: link.port, from }),
                None => f(conn, PeerEvent::Connected),
            }
        }
        let sent = link.sent_bytes.replace(0);
        if sent > 0 {
            f(conn, PeerEvent::Sent(sent));
        }
        let mut ended = link.ended.get();
        if let Some(stream) = link.stream.get() {
            let receives = match (ended, link.readable.get()) {
                (true, _) => LAST_RECEIVES_MAX,
                (false, true) => 1,
                (false, false) => 0,
            };
            for _ in 0..receives {
                match stream.receive(buffer) {
                    Ok(0) => {
                        ended = true;
                        break;
                    }
                    Ok(count) => f(conn, PeerEvent::Received(&buffer[..count])),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {
                        ended = true;
                        break;
                    }
                }
            }
            if link.readable.replace(false) {
                link.told.raise();
            }
        }
        if ended {
            self.forget(link);
            f(conn, PeerEvent::Closed);
        }
    }

    /// Whether [`Peers::take_events`] has more.
    pub(super) fn has_events(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    /// Takes one wish. What is to be sent leaves with [`Peers::flush`].
    pub(super) fn execute(self: &Rc<Self>, work: PeerWork) {
        match work {
            PeerWork::Dial { conn, port, to, addresses } => {
                assert!(!conn.is_accepted(), "{conn:?} is a number for accepted connections");
                let link = Rc::new(Link::new(conn, port, None));
                let before = self.links.borrow_mut().insert(conn, link.clone());
                assert!(before.is_none(), "{conn:?} is dialled while it stands");
                self.spawn(dial::dial(self.clone(), link, to, addresses));
            }
            PeerWork::Send { conn, bytes } => {
                // Gone since the state machine wrote this: it is told, or was.
                let Some(link) = self.links.borrow().get(&conn).cloned() else { return };
                if link.ended.get() || bytes.is_empty() {
                    return;
                }
                let queued = link.queued_bytes.get() + bytes.len();
                if queued > QUEUE_BYTES_MAX {
                    tracing::warn!(?conn, "{queued} bytes wait for a peer: given up");
                    self.end(&link);
                    return;
                }
                link.queued_bytes.set(queued);
                link.queue.borrow_mut().push_back(bytes);
                self.soil(&link);
            }
            PeerWork::Close { conn } => {
                let Some(link) = self.links.borrow().get(&conn).cloned() else { return };
                if !link.blocked.get() && !link.ended.get() {
                    // An error leaves nothing to be done.
                    let _ = link.send_queued();
                }
                self.forget(&link);
            }
        }
    }

    /// Sends what was queued. To be called at the end of each turn.
    pub(super) fn flush(self: &Rc<Self>) {
        let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for link in dirty {
            link.is_dirty.set(false);
            if link.gone.get() || link.ended.get() || link.blocked.get() || link.stream.get().is_none() {
                continue;
            }
            match link.send_queued() {
                Ok(true) => {}
                Ok(false) => {
                    link.blocked.set(true);
                    self.spawn(writable_again(self.clone(), link.clone()));
                }
                Err(_) => self.end(&link),
            }
            if link.sent_bytes.get() > 0 {
                self.announce(&link);
            }
        }
    }

    /// Ends all tasks soon; nothing is accepted, told or sent any more.
    pub(super) fn stop(&self) {
        self.ending.set(true);
        for listener in self.listeners.borrow_mut().drain(..) {
            // Ends the wait of its accept loop.
            sys::shutdown(listener.as_fd(), Shutdown::Both);
        }
        let links: Vec<Rc<Link>> = self.links.borrow().values().cloned().collect();
        for link in links {
            self.forget(&link);
        }
        self.ready.borrow_mut().clear();
        self.dirty.borrow_mut().clear();
        self.names.stop();
    }

    /// Tasks that have not ended.
    pub(super) fn task_count(&self) -> usize {
        self.tasks.get()
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.tasks.set(self.tasks.get() + 1);
        let counted = Counted(self.clone());
        monoio::spawn(async move {
            // Moved in as a whole; dropped with the task, however that ends.
            let _counted = counted;
            task.await;
        });
    }

    /// There is something to tell of this link. The core looks in its next turn; a task wakes it for that.
    fn announce(&self, link: &Rc<Link>) {
        if !link.gone.get() && !link.is_ready.replace(true) {
            self.ready.borrow_mut().push_back(link.clone());
        }
    }

    /// There is something to send on this link.
    fn soil(&self, link: &Rc<Link>) {
        if !link.is_dirty.replace(true) {
            self.dirty.borrow_mut().push(link.clone());
        }
    }

    /// It failed: told after what came before.
    fn end(&self, link: &Rc<Link>) {
        link.ended.set(true);
        link.drop_queue();
        self.announce(link);
    }

    /// Closes it and lets its number mean nothing.
    fn forget(&self, link: &Link) {
        if link.gone.replace(true) {
            return;
        }
        self.links.borrow_mut().remove(&link.conn);
        if let Some(from) = link.from {
            self.accepted.borrow_mut().leave(from.ip());
        }
        link.drop_queue();
        if let Some(stream) = link.stream.get() {
            stream.shutdown();
        }
        link.told.raise();
    }

    fn accept(self: &Rc<Self>, port: PeerPort, fd: OwnedFd, from: SocketAddr) {
        // The listener may be of both families; a peer is known by the address it was configured with.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let full = self.accepted.borrow_mut().enter(from.ip(), &self.options);
        if let Err(reason) = full {
            if let Some(reason) = reason {
                tracing::warn!(%from, "connections of servers are turned away: {reason}");
            }
            // With a reset: nothing of it is to linger here.
            if let Err(error) = SockRef::from(&fd).set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%from, %error, "a refused server's socket closes slowly");
            }
            return;
        }
        let stream = match Stream::new(fd, self.options.keep_alive) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%from, %error, "a server's socket cannot be watched");
                self.accepted.borrow_mut().leave(from.ip());
                return;
            }
        };
        let conn = self.number_accepted();
        let link = Rc::new(Link::new(conn, port, Some(from)));
        self.links.borrow_mut().insert(conn, link.clone());
        if let Some(tls) = self.options.tls.clone() {
            self.spawn(secure::welcome(self.clone(), link, stream, tls, from));
            return;
        }
        link.open(stream);
        self.announce(&link);
        self.spawn(watch(self.clone(), link));
        self.pump.raise();
    }

    /// A number no connection has. There are far fewer connections than numbers.
    fn number_accepted(&self) -> PeerConn {
        loop {
            let number = self.next_accepted.get();
            self.next_accepted.set((number + 1) & !PeerConn::ACCEPTED);
            let conn = PeerConn(number | PeerConn::ACCEPTED);
            if !self.links.borrow().contains_key(&conn) {
                return conn;
            }
        }
    }

    /// Says once why a server cannot be reached, and again when the reason changes.
    fn complain(&self, to: ServerId, port: PeerPort, reason: String) {
        let mut complaints = self.complaints.borrow_mut();
        if complaints.get(&(to, port)) != Some(&reason) {
            tracing::warn!("cannot reach server {} on its {} port: {reason}; trying on", to.0, name_of(port));
            complaints.insert((to, port), reason);
        }
    }

    fn reached(&self, to: ServerId, port: PeerPort) {
        if self.complaints.borrow_mut().remove(&(to, port)).is_some() {
            tracing::info!("server {} is reached on its {} port again", to.0, name_of(port));
        }
    }
}

impl Accepted {
    /// Takes a place, or says why there is none: with words where that was not said yet.
    fn enter(&mut self, address: IpAddr, options: &PeersOptions) -> Result<(), Option<String>> {
        let here = self.by_address.get(&address).copied().unwrap_or(0);
        let reason = if self.count >= options.accepted_max {
            format!("{} are there already", self.count)
        } else if here >= options.accepted_per_address_max {
            format!("{here} from this address are there already")
        } else {
            self.count += 1;
            self.by_address.insert(address, here + 1);
            return Ok(());
        };
        Err((!std::mem::replace(&mut self.said_full, true)).then_some(reason))
    }

    fn leave(&mut self, address: IpAddr) {
        self.count -= 1;
        self.said_full = false;
        let here = self.by_address.get_mut(&address).expect("it entered");
        *here -= 1;
        if *here == 0 {
            self.by_address.remove(&address);
        }
    }
}

impl Link {
    fn new(conn: PeerConn, port: PeerPort, from: Option<SocketAddr>) -> Link {
        Link {
            conn,
            port,
            from,
            stream: OnceCell::new(),
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            opened: Cell::new(false),
            sent_bytes: Cell::new(0),
            readable: Cell::new(false),
            ended: Cell::new(false),
            is_ready: Cell::new(false),
            is_dirty: Cell::new(false),
            blocked: Cell::new(false),
            gone: Cell::new(false),
            told: Signal::default(),
        }
    }

    fn open(&self, stream: Stream) {
        self.readable.set(stream.has_received());
        assert!(self.stream.set(stream).is_ok(), "{:?} is opened twice", self.conn);
        self.opened.set(true);
    }

    fn is_over(&self) -> bool {
        self.gone.get() || self.ended.get()
    }

    /// Sends as much as the socket takes; false where something is left.
    fn send_queued(&self) -> io::Result<bool> {
        let Some(stream) = self.stream.get() else { return Ok(false) };
        let mut queue = self.queue.borrow_mut();
        for _ in 0..SENDS_A_TURN_MAX {
            if queue.is_empty() {
                return Ok(true);
            }
            let mut count = match stream.send(queue.iter().map(|piece| &piece[..])) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.sent_bytes.set(self.sent_bytes.get() + count);
            self.queued_bytes.set(self.queued_bytes.get() - count);
            while let Some(first) = queue.front_mut() {
                let part = count.min(first.len());
                first.advance(part);
                count -= part;
                if !first.is_empty() {
                    break;
                }
                queue.pop_front();
            }
            assert_eq!(count, 0, "a socket took more than it was given");
        }
        Ok(queue.is_empty())
    }

    fn drop_queue(&self) {
        self.queue.borrow_mut().clear();
        self.queued_bytes.set(0);
    }
}

struct Counted(Rc<Peers>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
    }
}

fn name_of(port: PeerPort) -> &'static str {
    match port {
        PeerPort::Election => "election",
        PeerPort::Quorum => "quorum",
    }
}

/// Accepts on one listener until the core stops.
async fn accept_loop(peers: Rc<Peers>, port: PeerPort, listener: TcpListener, watched: Watched) {
    let mut said_exhausted = false;
    while !peers.ending.get() {
        if let Err(error) = watched.readable().await {
            tracing::error!(%error, "the {} port fails, no more servers are accepted on it", name_of(port));
            return;
        }
        for _ in 0..ACCEPTS_A_TURN_MAX {
            if peers.ending.get() {
                return;
            }
            match sys::accept(&listener) {
                Ok((fd, from)) => {
                    said_exhausted = false;
                    peers.accept(port, fd, from);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if sys::is_exhausted(&error) => {
                    // The connection stays in the queue and keeps the listener readable: asking at once would spin.
                    if !std::mem::replace(&mut said_exhausted, true) {
                        tracing::warn!(%error, "no server can be accepted for the moment");
                    }
                    monoio::time::sleep(ACCEPT_REST).await;
                    break;
                }
                // The peer left before it was accepted, or the like: the next may be fine.
                Err(_) => {}
            }
        }
    }
}

/// Tells the core whenever there is something to receive, until the connection is over.
async fn watch(peers: Rc<Peers>, link: Rc<Link>) {
    let Some(stream) = link.stream.get() else { return };
    while !link.is_over() {
        let mut readable = pin!(stream.readable());
        let ready = poll_fn(|cx| {
            if link.told.poll_raised(cx).is_ready() {
                return Poll::Ready(false);
            }
            // An error of the wait itself shows again in the receive.
            readable.as_mut().poll(cx).map(|_| true)
        })
        .await;
        if !ready || link.is_over() {
            continue;
        }
        link.readable.set(true);
        peers.announce(&link);
        peers.pump.raise();
        while link.readable.get() && !link.is_over() {
            link.told.raised().await;
        }
    }
}

/// Waits until a link's socket takes bytes again, then has the core send them.
async fn writable_again(peers: Rc<Peers>, link: Rc<Link>) {
    if let Some(stream) = link.stream.get() {
        // A failed wait means a failed socket: the next send says so.
        let _ = stream.writable().await;
    }
    link.blocked.set(false);
    if !link.is_over() {
        peers.soil(&link);
        peers.pump.raise();
    }
}
