//! Making a connection to a peer: every address it has, one shortly after the other, and the first that answers is it.
//!
//! How long to try in all is for the state machine to say: it closes the connection that does not come to stand.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::secure::handshake;
use super::stream::Stream;
use super::{Link, Peers, watch};
use crate::io::watched::Watched;
use crate::server::tls::Session;
use crate::types::ServerId;
use crate::zab::PeerAddress;

/// How long one address has before the next is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one server.
const ADDRESSES_MAX: usize = 16;

type Attempt = Pin<Box<dyn Future<Output = Result<Stream, String>>>>;

/// Makes the connection, tells how that went, and watches it.
pub(super) async fn dial(peers: Rc<Peers>, link: Rc<Link>, to: ServerId, addresses: Vec<PeerAddress>) {
    let attempts: Vec<Attempt> = addresses
        .into_iter()
        .take(ADDRESSES_MAX)
        .map(|address| Box::pin(attempt(peers.clone(), address)) as Attempt)
        .collect();
    let Some(outcome) = first(&link, attempts).await else { return };
    match outcome {
        Ok(stream) => {
            peers.reached(to, link.port);
            link.open(stream);
            // What was queued meanwhile may go.
            peers.soil(&link);
            peers.announce(&link);
            peers.pump.raise();
            watch(peers, link).await;
        }
        Err(reason) => {
            peers.complain(to, link.port, reason);
            peers.end(&link);
            peers.pump.raise();
        }
    }
}

/// The first attempt that succeeds, or the failure of the last. `None`: nobody wants it any more.
async fn first(link: &Link, attempts: Vec<Attempt>) -> Option<Result<Stream, String>> {
    let mut waiting = attempts.into_iter();
    let mut running: Vec<Attempt> = waiting.next().into_iter().collect();
    let mut failure = "it has no address".to_owned();
    let mut next = Box::pin(monoio::time::sleep(STAGGER));
    poll_fn(|cx| {
        while link.told.poll_raised(cx).is_ready() {
            if link.gone.get() {
                return Poll::Ready(None);
            }
        }
        loop {
            let mut index = 0;
            while index < running.len() {
                match running[index].as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Some(Ok(stream))),
                    Poll::Ready(Err(reason)) => {
                        failure = reason;
                        drop(running.swap_remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            let due = next.as_mut().poll(cx).is_ready();
            if !due && !running.is_empty() {
                return Poll::Pending;
            }
            match waiting.next() {
                Some(attempt) => {
                    running.push(attempt);
                    next = Box::pin(monoio::time::sleep(STAGGER));
                }
                None if running.is_empty() => return Poll::Ready(Some(Err(std::mem::take(&mut failure)))),
                // Never due again: nothing is left to start.
                None => {
                    next = Box::pin(monoio::time::sleep(Duration::from_secs(3600)));
                    return next.as_mut().poll(cx).map(|()| None);
                }
            }
        }
    })
    .await
}

/// Looks one address up and connects to it; where a name has several, to each in turn.
async fn attempt(peers: Rc<Peers>, address: PeerAddress) -> Result<Stream, String> {
    let PeerAddress { host, port } = address;
    let addresses = peers.names.lookup(&host).await.map_err(|reason| format!("{host}: {reason}"))?;
    let count = addresses.len();
    let mut failure = String::new();
    for (index, ip) in addresses.into_iter().enumerate() {
        let is_last = index + 1 == count;
        let connected = connect(ip, port, is_last).await;
        let stream = connected.and_then(|socket| Stream::of(socket, peers.options.keep_alive));
        let secured = match stream {
            Ok(stream) => secure_dialled(&peers, stream, &host).await,
            Err(error) => Err(error.to_string()),
        };
        match secured {
            Ok(stream) => return Ok(stream),
            Err(reason) => failure = format!("{host}:{port}: {reason}"),
        }
    }
    Err(failure)
}

/// In TLS where servers dial so; the other side's certificate is to name `host`.
async fn secure_dialled(peers: &Peers, stream: Stream, host: &str) -> Result<Stream, String> {
    let Some(tls) = peers.options.tls.as_ref().filter(|tls| tls.dials) else { return Ok(stream) };
    let connector = tls.settings.get().connector;
    let session = Session::connect(&connector, host).map_err(|error| error.to_string())?;
    let shown = handshake(&stream, session, Vec::new()).await?;
    stream.secure(shown.secured);
    Ok(stream)
}

async fn connect(ip: IpAddr, port: u16, is_last: bool) -> io::Result<Watched> {
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let watched = Watched::new(OwnedFd::from(socket))?;
    if is_last {
        watched.writable().await?;
    } else {
        let mut writable = Box::pin(watched.writable());
        let mut patience = Box::pin(monoio::time::sleep(STAGGER));
        poll_fn(|cx| {
            if let Poll::Ready(result) = writable.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            patience.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await?;
    }
    if let Some(error) = SockRef::from(&watched).take_error()? {
        return Err(error);
    }
    // A connection from a port to itself: nobody listens there, and the kernel chose the very port that was dialled.
    if is_to_itself(&watched)? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(watched)
}

fn is_to_itself(socket: &Watched) -> io::Result<bool> {
    let fd = socket.as_fd();
    let socket = SockRef::from(&fd);
    Ok(socket.local_addr()?.as_socket() == socket.peer_addr()?.as_socket())
}
