//! Binding the two ports for peers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::{name_of, names};
use crate::zab::PeerPort;

/// Between two attempts to bind. Source: ZooKeeper `QuorumCnxManager.Listener.ListenerHandler`.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// One of this server's own addresses for its peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerPlace {
    pub port: PeerPort,
    /// `None` is every address of the machine (`quorumListenOnAllIPs`).
    pub host: Option<String>,
    pub number: u16,
}

/// Where to listen, and how long to try.
#[derive(Clone, Debug, Default)]
pub struct ListenPlan {
    pub places: Vec<PeerPlace>,
    /// `electionPortBindRetry`: attempts for each place; `None` is as many as it takes.
    pub tries_max: Option<u32>,
    /// A name that is not known yet is waited for however many attempts that takes: where an orchestrator starts servers, a server's
    /// own name may appear after it.
    pub waits_for_names: bool,
}

/// A bound port.
pub(in crate::server) struct Listening {
    pub(in crate::server) port: PeerPort,
    pub(in crate::server) listener: TcpListener,
}

impl ListenPlan {
    /// Binds all of it. `pause` waits between attempts and says whether to go on.
    /// Fails with what could not be had; `Ok(None)` where `pause` had enough.
    pub(in crate::server) fn bind(
        &self,
        mut pause: impl FnMut(Duration) -> bool,
    ) -> Result<Option<Vec<Listening>>, String> {
        let mut bound = Vec::new();
        for place in &self.places {
            let mut tries = 0;
            loop {
                let error = match place.bind() {
                    Ok(listeners) => {
                        let port = place.port;
                        bound.extend(listeners.into_iter().map(|listener| Listening { port, listener }));
                        break;
                    }
                    Err(error) => error,
                };
                let counts = !(self.waits_for_names && matches!(error, BindError::Name(_)));
                tries += u32::from(counts);
                let reason = place.describe(&error);
                if self.tries_max.is_some_and(|max| tries >= max) {
                    return Err(reason);
                }
                tracing::warn!("{reason}; trying again in {} s", RETRY_EVERY.as_secs());
                if !pause(RETRY_EVERY) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(bound))
    }
}

enum BindError {
    Name(String),
    Socket(SocketAddr, io::Error),
}

impl PeerPlace {
    fn describe(&self, error: &BindError) -> String {
        let port = name_of(self.port);
        match error {
            BindError::Name(reason) => {
                let host = self.host.as_deref().unwrap_or_default();
                format!("cannot listen on the {port} port {host}:{}: {reason}", self.number)
            }
            BindError::Socket(address, error) => {
                format!("cannot listen on the {port} port {address}: {error}")
            }
        }
    }

    /// One listener for each address of the host; one for the whole machine.
    fn bind(&self) -> Result<Vec<TcpListener>, BindError> {
        let Some(host) = &self.host else {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.number));
            let listener = match listen(any) {
                Err(error) if is_absent(&error) => {
                    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.number));
                    listen(any).map_err(|error| BindError::Socket(any, error))
                }
                result => result.map_err(|error| BindError::Socket(any, error)),
            };
            return Ok(vec![listener?]);
        };
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => names::resolve(host).map_err(BindError::Name)?,
        };
        let mut listeners = Vec::new();
        let mut absent = None;
        for ip in addresses {
            let address = SocketAddr::new(ip, self.number);
            match listen(address) {
                Ok(listener) => listeners.push(listener),
                // A name may have an address of a family this machine does not use.
                Err(error) if is_absent(&error) => absent = Some(BindError::Socket(address, error)),
                Err(error) => return Err(BindError::Socket(address, error)),
            }
        }
        match absent {
            Some(error) if listeners.is_empty() => Err(error),
            _ => Ok(listeners),
        }
    }
}

/// The address, or its whole family, is not this machine's.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
