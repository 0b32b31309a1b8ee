//! Binding the client ports.
//!
//! Every front has its own listening socket on the same port and the kernel spreads connections over them. That option
//! would also let a second server of the same user share the port unnoticed, so the port is first taken without it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use super::secure::Speech;

/// A killed server's port stays bound for some milliseconds after its process is gone, longer with a busy ring.
pub(super) const BIND_RETRY_MAX: Duration = Duration::from_secs(2);
const BIND_RETRY_EVERY: Duration = Duration::from_millis(5);

/// One front's listening socket on one port.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) speech: Speech,
}

/// For each of `fronts`, one listener on each address, tried again for `retry_max` while the port is taken. Port zero takes a free one, the same for all fronts.
pub(super) fn listeners(
    addresses: &[(SocketAddr, Speech)],
    fronts: usize,
    backlog: u32,
    keep_alive: bool,
    retry_max: Duration,
) -> Result<Vec<Vec<Listener>>, StartError> {
    let mut by_front: Vec<Vec<Listener>> = (0..fronts).map(|_| Vec::new()).collect();
    for &(address, speech) in addresses {
        let bound = listen_all(address, fronts, backlog, keep_alive, retry_max)
            .map_err(|source| StartError::Bind { address, source })?;
        for (front, socket) in by_front.iter_mut().zip(bound) {
            front.push(Listener { socket, speech });
        }
    }
    Ok(by_front)
}

fn listen_all(
    address: SocketAddr,
    fronts: usize,
    backlog: u32,
    keep_alive: bool,
    retry_max: Duration,
) -> io::Result<Vec<TcpListener>> {
    let first = with_retry(retry_max, || bind(address, false, keep_alive))?;
    if fronts == 1 {
        return Ok(vec![listen(first, backlog)?]);
    }
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    drop(first);
    (0..fronts)
        .map(|_| with_retry(retry_max, || bind(address, true, keep_alive)).and_then(|s| listen(s, backlog)))
        .collect()
}

fn bind(address: SocketAddr, shared: bool, keep_alive: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // "::" means every address of either family, as it does in Java.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit both, which saves calls for each.
    socket.set_nodelay(true)?;
    socket.set_keepalive(keep_alive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if !shared {
        // Binding alone does not collide with a listener that also set SO_REUSEADDR; listening does.
        socket.listen(1)?;
    }
    Ok(socket)
}

fn listen(socket: Socket, backlog: u32) -> io::Result<TcpListener> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn with_retry(retry_max: Duration, mut bind: impl FnMut() -> io::Result<Socket>) -> io::Result<Socket> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && start.elapsed() < retry_max => {
                std::thread::sleep(BIND_RETRY_EVERY);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts_share_a_port_and_strangers_do_not() {
        let any = ("127.0.0.1:0".parse().expect("an address"), Speech::Plain);
        let ours = listeners(&[any], 3, 128, false, BIND_RETRY_MAX).expect("a free port");
        let ports: Vec<u16> = ours.iter().map(|l| l[0].socket.local_addr().expect("bound").port()).collect();
        assert!(ports.iter().all(|&p| p == ports[0] && p != 0));
        let taken = (ours[0][0].socket.local_addr().expect("bound"), Speech::Tls);
        let error = listeners(&[taken], 2, 128, false, Duration::ZERO).expect_err("taken");
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{}", ports[0])), "{text}");
        assert_eq!(error.exit_code(), 2);
    }
    #[test]
    fn accepted_sockets_inherit_what_the_listener_has() {
        let any = ("127.0.0.1:0".parse().expect("an address"), Speech::Plain);
        for keep_alive in [false, true] {
            let ours = listeners(&[any], 1, 128, keep_alive, BIND_RETRY_MAX).expect("a free port");
            let listener = &ours[0][0].socket;
            let _client =
                std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            let accepted = loop {
                match listener.accept() {
                    Ok((stream, _)) => break Socket::from(stream),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert!(accepted.nodelay().expect("an option"));
            assert_eq!(accepted.keepalive().expect("an option"), keep_alive);
        }
    }
}
