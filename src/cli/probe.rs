//! Asks a server for its mode, as `zkServer.sh status` does: with `srvr`, in TLS where there is no other way in.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::{Config, ListenAddress};
use crate::server::tls::{Connector, Event, Session};

/// Bytes of an answer that are looked at; the mode comes early.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Where a server of this configuration is asked.
pub struct Door<'a> {
    pub address: &'a ListenAddress,
    pub secure: bool,
    /// What to speak TLS by; `None` where it is not needed, or where the stores cannot be used.
    connector: Option<Connector>,
}

impl<'a> Door<'a> {
    /// The plain port, else the secure one. `None`: no port at all.
    /// Source: ZooKeeper `zkServer.sh`.
    pub fn of(config: &'a Config) -> Option<Door<'a>> {
        if let Some(address) = &config.client_address {
            return Some(Door { address, secure: false, connector: None });
        }
        let address = config.secure_client_address.as_ref()?;
        let tls = config.client_tls.as_ref()?;
        // The server itself says what is wrong with its stores.
        Some(Door { address, secure: true, connector: Connector::to_ourselves(tls).ok() })
    }

    /// Whether anything accepts connections there within `patience`.
    pub fn accepts(&self, patience: Duration) -> bool {
        connect(self.address, patience).is_some()
    }

    /// What follows `Mode: ` in the answer to `srvr`. `None`: nobody answers, or not so.
    pub fn mode(&self, patience: Duration) -> Option<String> {
        let stream = connect(self.address, patience)?;
        stream.set_read_timeout(Some(patience)).ok()?;
        stream.set_write_timeout(Some(patience)).ok()?;
        let mut answer = Vec::new();
        // What came before an error still counts.
        let _ = match (&self.connector, self.secure) {
            (Some(connector), true) => ask_secure(stream, connector, &mut answer),
            (None, true) => return None,
            (_, false) => ask(stream, &mut answer),
        };
        let answer = String::from_utf8_lossy(&answer);
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(|mode| mode.trim().to_owned())
    }
}

fn ask(mut stream: TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(b"srvr")?;
    stream.take(ANSWER_BYTES_MAX).read_to_end(answer).map(drop)
}

fn ask_secure(mut stream: TcpStream, connector: &Connector, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut session = Session::connect(connector, "localhost").map_err(io::Error::other)?;
    let (mut out, mut asked, mut ended) = (Vec::new(), false, false);
    session.begin(&mut out).map_err(io::Error::other)?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX as usize];
    loop {
        if session.is_established() && !std::mem::replace(&mut asked, true) {
            session.send(b"srvr", &mut out).map_err(io::Error::other)?;
        }
        stream.write_all(&out)?;
        out.clear();
        if ended || answer.len() as u64 > ANSWER_BYTES_MAX {
            return Ok(());
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let taken = session.received(&mut buffer[..count], &mut out, |event| match event {
            Event::Plain(plain) => answer.extend_from_slice(plain),
            Event::PeerClosed => ended = true,
            Event::Established(_) => {}
        });
        taken.map_err(io::Error::other)?;
    }
}

/// The host to reach a listener by: its own, or `localhost` for the wildcard.
pub fn host_of(address: &ListenAddress) -> &str {
    address.host.as_deref().unwrap_or("localhost")
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

    fn plain(address: &ListenAddress) -> Door<'_> {
        Door { address, secure: false, connector: None }
    }

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
        assert_eq!(plain(&address).mode(PATIENCE).as_deref(), Some("standalone"));
        thread.join().unwrap();
        let (address, thread) = answering(b"This ZooKeeper instance is not currently serving requests\n");
        assert_eq!(plain(&address).mode(PATIENCE), None);
        thread.join().unwrap();
    }

    #[test]
    fn nobody_there_is_no_mode() {
        // Bound and not listening: the port is ours, and connections to it are refused.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let address = ListenAddress::new("127.0.0.1", port);
        assert!(!plain(&address).accepts(PATIENCE));
        assert_eq!(plain(&address).mode(PATIENCE), None);
        socket.listen(1).unwrap();
        assert!(plain(&address).accepts(PATIENCE));
    }
}
