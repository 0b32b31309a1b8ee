//! Asks a server for its mode, as `zkServer.sh status` does: with `srvr`.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::ListenAddress;

/// Bytes of an answer that are looked at; the mode comes early.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// The host to reach a listener by: its own, or `localhost` for the wildcard.
pub fn host_of(address: &ListenAddress) -> &str {
    address.host.as_deref().unwrap_or("localhost")
}

/// Whether anything accepts connections there within `patience`.
pub fn accepts(address: &ListenAddress, patience: Duration) -> bool {
    connect(address, patience).is_some()
}

/// What follows `Mode: ` in the answer to `srvr`. `None`: nobody answers, or not so.
pub fn mode(address: &ListenAddress, patience: Duration) -> Option<String> {
    let mut stream = connect(address, patience)?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut answer = Vec::new();
    // What came before an error still counts.
    let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(|mode| mode.trim().to_owned())
}

fn connect(address: &ListenAddress, patience: Duration) -> Option<TcpStream> {
    let candidates = (host_of(address), address.port).to_socket_addrs().ok()?;
    candidates.into_iter().find_map(|candidate| TcpStream::connect_timeout(&candidate, patience).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn answering(answer: &'static [u8]) -> (ListenAddress, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::new("127.0.0.1", listener.local_addr().unwrap().port());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"srvr");
            stream.write_all(answer).unwrap();
        });
        (address, thread)
    }

    #[test]
    fn the_mode_is_found_in_the_answer() {
        let (address, thread) = answering(b"Zookeeper version: 3.9.5\nMode: standalone\nNode count: 5\n");
        assert_eq!(mode(&address, PATIENCE).as_deref(), Some("standalone"));
        thread.join().unwrap();
        let (address, thread) = answering(b"This ZooKeeper instance is not currently serving requests\n");
        assert_eq!(mode(&address, PATIENCE), None);
        thread.join().unwrap();
    }

    #[test]
    fn nobody_there_is_no_mode() {
        // Bound and not listening: the port is ours, and connections to it are refused.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let address = ListenAddress::new("127.0.0.1", port);
        assert!(!accepts(&address, PATIENCE));
        assert_eq!(mode(&address, PATIENCE), None);
        socket.listen(1).unwrap();
        assert!(accepts(&address, PATIENCE));
    }
}
