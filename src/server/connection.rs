//! Client sockets of one core: accepting, receiving, sending what the front owes, and closing without losing the last
//! answer.
//!
//! A connection is one small task that waits until its socket is readable and receives into a buffer the whole core
//! shares; nothing is allocated for a connection that is idle. Sends are the pump's alone (`Core::flush`), one each
//! turn and connection; what the socket does not take waits for a task that only tells when it is writable again, so
//! bytes never overtake each other.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;

use super::core::Core;
use super::door::{ConnId, Front};
use super::ports::FrontPort;
use super::secure::{Layer, Speech};
use super::signal::Signal;
use crate::io::{sys, watched::Watched};
use crate::types::Now;

/// Connections one listener takes before others have their turn.
const ACCEPTS_A_TURN_MAX: usize = 64;
/// How long a listener rests when the process has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long a connection that is being closed may take over its last bytes and the peer's goodbye.
const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// What a peer may still send while its connection is being closed; more is cut off.
const CLOSE_DRAIN_BYTES_MAX: usize = 1 << 20;

/// Pieces of one connection's output that one send takes.
const SEND_SLICES_MAX: usize = 8;

/// One client connection.
pub(super) struct Connection {
    pub(super) socket: Watched,
    pub(super) id: ConnId,
    /// What it counts under among the connections there are.
    address: IpAddr,
    pub(super) state: Cell<State>,
    /// The front does not want to read now.
    pub(super) paused: Cell<bool>,
    /// The socket took less than all; a task waits until it takes more.
    blocked: Cell<bool>,
    /// Came by the port of TLS alone, which has limits of its own.
    by_secure_port: bool,
    /// Plain, or TLS; either until the first byte has come.
    pub(super) speech: Cell<Speech>,
    /// There from the first byte of TLS on.
    pub(super) tls: OnceCell<Box<RefCell<Layer>>>,
    /// Its state or `paused` changed.
    told: Signal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Open,
    /// The front wants it closed, but its last bytes are not sent.
    Closing,
    /// The peer ended or the socket failed; the front will be told after the turn that is due.
    Ended,
    /// All is sent and our direction shut; what the peer still sends is thrown away. The front has forgotten it.
    Draining,
    Dead,
}

/// Accepts on one listener until the core stops.
pub(super) async fn accept_loop(core: Rc<Core>, listener: TcpListener, speech: Speech) -> io::Result<()> {
    let watched = Watched::new(OwnedFd::from(listener.try_clone()?))?;
    let mut said_exhausted = false;
    while !core.is_stopping() {
        watched.readable().await?;
        for _ in 0..ACCEPTS_A_TURN_MAX {
            if core.is_stopping() {
                break;
            }
            match sys::accept(&listener) {
                Ok((fd, peer)) => {
                    said_exhausted = false;
                    core.accepted(fd, peer, speech);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if sys::is_exhausted(&error) => {
                    // The connection stays in the queue and keeps the listener readable: asking at once would spin.
                    if !std::mem::replace(&mut said_exhausted, true) {
                        tracing::warn!(%error, "no client can be accepted for the moment");
                    }
                    monoio::time::sleep(ACCEPT_REST).await;
                    break;
                }
                // The peer left before it was accepted, or the like: the next may be fine.
                Err(_) => {}
            }
        }
    }
    Ok(())
}

impl Connection {
    pub(super) fn new(socket: Watched, id: ConnId, address: IpAddr, speech: Speech) -> Rc<Connection> {
        Rc::new(Connection {
            socket,
            id,
            address,
            state: Cell::new(State::Open),
            paused: Cell::new(false),
            blocked: Cell::new(false),
            by_secure_port: speech == Speech::Tls,
            speech: Cell::new(speech),
            tls: OnceCell::new(),
            told: Signal::default(),
        })
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether ciphertext waits for the socket.
    fn has_pending(&self) -> bool {
        self.tls.get().is_some_and(|layer| layer.borrow().has_pending())
    }

    /// Whether TLS has ended it, whatever the front has for it.
    fn has_tls_failed(&self) -> bool {
        self.tls.get().is_some_and(|layer| layer.borrow().has_failed())
    }

    /// Ends it at once, whatever it waits for. The peer may miss what was not sent yet.
    pub(super) fn kill(&self) {
        if self.state.replace(State::Dead) != State::Dead {
            sys::shutdown(self.socket.as_fd(), Shutdown::Both);
            self.told.raise();
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    async fn readable_or_told(&self) {
        let mut readable = pin!(self.socket.readable());
        poll_fn(|cx| {
            if self.told.poll_raised(cx).is_ready() {
                return Poll::Ready(());
            }
            // An error of the wait itself shows again in the receive.
            readable.as_mut().poll(cx).map(|_| ())
        })
        .await;
    }
}

/// Receives for one connection until it ends.
pub(super) async fn receive_loop(core: Rc<Core>, connection: Rc<Connection>) {
    let mut drained_bytes = 0;
    loop {
        if connection.paused.get() && matches!(connection.state.get(), State::Open | State::Closing) {
            connection.told.raised().await;
        } else {
            connection.readable_or_told().await;
        }
        match connection.state.get() {
            State::Open | State::Closing if connection.paused.get() => {}
            State::Open | State::Closing => core.receive(&connection),
            State::Draining => match core.discard(&connection) {
                Ok(0) => return,
                Ok(count) => {
                    drained_bytes += count;
                    if drained_bytes > CLOSE_DRAIN_BYTES_MAX {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            },
            State::Ended | State::Dead => return,
        }
        if connection.state.get() == State::Ended {
            return;
        }
    }
}

/// Waits until a connection's socket takes bytes again, then has the pump send them.
async fn writable_again(core: Rc<Core>, connection: Rc<Connection>) {
    // A failed wait means a failed socket: the next send says so.
    let _ = connection.socket.writable().await;
    connection.blocked.set(false);
    if connection.state.get() != State::Dead {
        core.revisit(connection.id);
    }
}

impl Core {
    /// A new connection, or a socket closed at once if there are too many.
    fn accepted(self: &Rc<Self>, fd: OwnedFd, peer: std::net::SocketAddr, speech: Speech) {
        let Some(front) = &self.front else { return };
        self.stir();
        let by_secure_port = speech == Speech::Tls;
        if !self.shared.limits(by_secure_port).enter(self.now().instant, peer.ip()) {
            front.borrow_mut().rejected();
            // With a reset: nothing of it is to linger here.
            if let Err(error) = SockRef::from(&fd).set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%peer, %error, "a refused client's socket closes slowly");
            }
            return;
        }
        let id = front.borrow_mut().accept(self.now(), peer);
        let socket = match Watched::new(fd) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%peer, %error, "a client's socket cannot be watched");
                front.borrow_mut().hung_up(self.now(), id);
                self.shared.limits(by_secure_port).leave(peer.ip());
                return;
            }
        };
        let connection = Connection::new(socket, id, peer.ip(), speech);
        let before = self.connections.borrow_mut().insert(id.0, connection.clone());
        assert!(before.is_none(), "the front gave out {id:?} twice");
        self.spawn(receive_loop(self.clone(), connection));
        self.pump.raise();
    }

    /// Receives once and feeds the front.
    fn receive(&self, connection: &Connection) {
        let Some(front) = &self.front else { return };
        self.stir();
        let mut buffer = self.receive_buffer.borrow_mut();
        match sys::recv(connection.socket.as_fd(), &mut buffer) {
            Ok(0) => self.peer_ended(&front.borrow(), connection),
            Ok(count) => {
                let mut front = front.borrow_mut();
                if connection.speech.get() != Speech::Plain && self.is_secure(connection, &buffer[..count]) {
                    self.receive_secure(&mut front, connection, &mut buffer[..count]);
                } else {
                    front.received(self.now(), connection.id, &buffer[..count]);
                    connection.paused.set(!front.wants_read(connection.id));
                }
                self.saw_input();
                self.pump.raise();
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => {
                connection.state.set(State::Ended);
                self.revisit(connection.id);
            }
        }
    }

    /// The peer sends no more.
    pub(super) fn peer_ended(&self, front: &Front<FrontPort>, connection: &Connection) {
        if front.answers_after_end(connection.id) {
            // An answer is still to go.
            connection.paused.set(true);
        } else {
            connection.state.set(State::Ended);
            self.revisit(connection.id);
        }
    }

    fn discard(&self, connection: &Connection) -> io::Result<usize> {
        sys::recv(connection.socket.as_fd(), &mut self.receive_buffer.borrow_mut())
    }

    /// Has the pump look at a connection the front did not name.
    pub(super) fn revisit(&self, id: ConnId) {
        self.revisits.borrow_mut().push(id);
        self.pump.raise();
    }

    /// Sends what the front owes to one connection and follows its wishes about reading and closing.
    pub(super) fn flush(self: &Rc<Self>, front: &mut Front<FrontPort>, now: Now, id: ConnId) {
        // Named by the front in the turn its peer left, or twice.
        let Some(connection) = self.connections.borrow().get(&id.0).cloned() else { return };
        let mut failed = false;
        if connection.blocked.get() {
            // Nothing may overtake what waits.
        } else if let Some(layer) = connection.tls.get() {
            failed = !self.send_secure(front, &connection, &mut layer.borrow_mut());
        } else {
            let output = front.output(id);
            if !output.is_empty() {
                let (sent, len) = if front.is_output_split(id) {
                    let mut slices = [IoSlice::new(&[]); SEND_SLICES_MAX];
                    let (mut count, mut len) = (0, 0);
                    for (place, slice) in slices.iter_mut().zip(front.output_slices(id)) {
                        *place = IoSlice::new(slice);
                        count += 1;
                        len += slice.len();
                    }
                    (sys::send_vectored(connection.socket.as_fd(), &slices[..count]), len)
                } else {
                    (sys::send(connection.socket.as_fd(), output), output.len())
                };
                match sent {
                    Ok(count) => {
                        front.sent(id, count);
                        if count < len {
                            self.block(&connection);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.block(&connection),
                    Err(_) => failed = true,
                }
            }
        }
        if failed || connection.state.get() == State::Ended {
            front.hung_up(now, id);
            self.forget(&connection);
            connection.kill();
            return;
        }
        if front.wants_close(id) || connection.has_tls_failed() {
            self.close(front, now, &connection);
        } else if connection.paused.get() == front.wants_read(id) {
            connection.paused.set(!connection.paused.get());
            if !connection.paused.get() {
                connection.told.raise();
            }
        } else if !connection.blocked.get() && !front.output(id).is_empty() {
            // The front had more once it knew of the sending.
            self.revisit(id);
        }
    }

    pub(super) fn block(self: &Rc<Self>, connection: &Rc<Connection>) {
        connection.blocked.set(true);
        self.spawn(writable_again(self.clone(), connection.clone()));
    }

    fn close(self: &Rc<Self>, front: &mut Front<FrontPort>, now: Now, connection: &Rc<Connection>) {
        if connection.state.get() == State::Open {
            connection.state.set(State::Closing);
            self.closing.borrow_mut().push_back((now.instant + CLOSE_LINGER, Rc::downgrade(connection)));
        }
        // What TLS has ended gets no more of it, but for the alert that says why.
        let owes = !front.output(connection.id).is_empty() && !connection.has_tls_failed();
        if owes || connection.has_pending() {
            if !connection.blocked.get() {
                self.revisit(connection.id);
            }
            return;
        }
        // Closing with bytes unread would reset the connection and could take the last answer with it: say that no
        // more comes, and let the peer close.
        sys::shutdown(connection.socket.as_fd(), Shutdown::Write);
        connection.state.set(State::Draining);
        front.closed(connection.id);
        self.forget(connection);
        connection.told.raise();
    }

    fn forget(&self, connection: &Connection) {
        if self.connections.borrow_mut().remove(&connection.id.0).is_some() {
            self.shared.limits(connection.by_secure_port).leave(connection.address);
        }
    }

    /// Cuts off those whose time to close is over.
    pub(super) fn cut_off_lingering(self: &Rc<Self>, front: &mut Front<FrontPort>, now: Now) {
        let mut closing = self.closing.borrow_mut();
        while let Some((deadline, connection)) = closing.front()
            && *deadline <= now.instant
        {
            if let Some(connection) = Weak::upgrade(connection) {
                if connection.state.get() == State::Closing {
                    front.closed(connection.id);
                    self.forget(&connection);
                }
                connection.kill();
            }
            closing.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 50,000 idle sessions are to cost little: what the shell keeps for one is this future, and a `Connection`.
    #[test]
    fn an_idle_connection_is_small() {
        fn future_bytes<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let future = future_bytes(receive_loop);
        let connection = size_of::<Connection>();
        assert!(future <= 320, "the receiving task has {future} bytes");
        assert!(connection <= 80, "a connection has {connection} bytes");
    }
}
