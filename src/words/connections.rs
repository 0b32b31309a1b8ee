//! Connections as `stat` and `cons` list them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::text::Text;
use crate::types::SessionId;

/// One open connection.
#[derive(Debug, Clone)]
pub struct ConnectionReport {
    pub peer: SocketAddr,
    /// What the server waits for on the socket: 1 to read, 4 to write. The connection that asks has 0.
    pub interest: u32,
    /// Requests taken in and not answered.
    pub queued: u64,
    pub received: u64,
    pub sent: u64,
    /// `NONE` until the handshake is through.
    pub session: SessionId,
    pub timeout_ms: i32,
    pub established_wall_ms: i64,
    /// Opcode of the last request answered, 0 before the first.
    pub last_op: i32,
    /// Negative before the first.
    pub last_cxid: i32,
    pub last_zxid: i64,
    /// Monotonic.
    pub last_response_ms: u64,
    pub last_latency_ms: u64,
    pub min_latency_ms: u64,
    pub avg_latency_ms: u64,
    pub max_latency_ms: u64,
    /// When the server gives the connection up, unless it hears from it.
    pub expires_wall_ms: i64,
}

impl ConnectionReport {
    /// A connection of which only the address is known.
    pub fn new(peer: SocketAddr) -> ConnectionReport {
        ConnectionReport {
            peer,
            interest: 1,
            queued: 0,
            received: 0,
            sent: 0,
            session: SessionId::NONE,
            timeout_ms: 0,
            established_wall_ms: 0,
            last_op: 0,
            last_cxid: -1,
            last_zxid: 0,
            last_response_ms: 0,
            last_latency_ms: 0,
            min_latency_ms: 0,
            avg_latency_ms: 0,
            max_latency_ms: 0,
            expires_wall_ms: 0,
        }
    }

    /// One line. `brief` is `stat`'s, without the session's part.
    /// Source: ZooKeeper `ServerCnxn#dumpConnectionInfo`.
    pub fn line(&self, brief: bool) -> String {
        let ConnectionReport { queued, received, sent, .. } = self;
        let mut line = format!(
            " {}[{:x}](queued={queued},recved={received},sent={sent}",
            java_address(&self.peer),
            self.interest
        );
        if !brief && self.session != SessionId::NONE {
            // Writing to a string does not fail.
            let _ = write!(
                line,
                ",sid={},lop={},est={},to={}",
                self.session,
                op_name(self.last_op),
                self.established_wall_ms,
                self.timeout_ms
            );
            if self.last_cxid >= 0 {
                let _ = write!(line, ",lcxid=0x{:x}", self.last_cxid);
            }
            let _ = write!(
                line,
                ",lzxid=0x{:x},lresp={},llat={},minlat={},avglat={},maxlat={}",
                self.last_zxid,
                self.last_response_ms,
                self.last_latency_ms,
                self.min_latency_ms,
                self.avg_latency_ms,
                self.max_latency_ms
            );
        }
        line.push(')');
        line
    }
}

/// `InetSocketAddress#toString`: `/127.0.0.1:50636`, and IPv6 in full, `/[0:0:0:0:0:0:0:1]:50636`.
pub fn java_address(address: &SocketAddr) -> String {
    let port = address.port();
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => format!("/{ip}:{port}"),
        IpAddr::V6(ip) => {
            let groups: Vec<String> = ip.segments().iter().map(|group| format!("{group:x}")).collect();
            format!("/[{}]:{port}", groups.join(":"))
        }
    }
}

/// The name of a request in `lop=`. Source: ZooKeeper `FinalRequestProcessor#processRequest`.
pub fn op_name(opcode: i32) -> &'static str {
    match opcode {
        -10 => "SESS",
        -11 => "CLOS",
        1 | 15 | 19 | 21 => "CREA",
        2 | 20 => "DELE",
        3 => "EXIS",
        4 => "GETD",
        5 => "SETD",
        6 => "GETA",
        7 => "SETA",
        8 | 12 => "GETC",
        9 => "SYNC",
        11 => "PING",
        13 => "CHEC",
        14 => "MULT",
        16 => "RECO",
        17 => "CHKW",
        18 => "REMW",
        22 => "MLTR",
        101 => "SETW",
        103 => "GETE",
        104 => "GETACN",
        105 => "STW2",
        106 => "ADDW",
        107 => "HOMI",
        _ => "NA",
    }
}

pub(super) fn list(text: &mut Text, connections: &[ConnectionReport], brief: bool) {
    for connection in connections {
        if text.is_full() {
            return;
        }
        text.line(&connection.line(brief));
    }
    text.line("");
}

pub(super) fn cons(text: &mut Text, connections: &[ConnectionReport]) {
    list(text, connections, false);
}
