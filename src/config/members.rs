//! The members of an ensemble, as `server.N`, `group.N` and `weight.N` lines give them.
//!
//! `server.<id>=<address>[|<address>...][;<client>][;<secure client>]` with
//! `<address>` = `host:quorumPort:electionPort[:participant|observer]` and `<client>` = `[host:]port`.
//! IPv6 hosts stand in brackets. Source: ZooKeeper `QuorumPeer.QuorumServer`.

use crate::types::ServerId;

/// One `server.N` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: ServerId,
    pub role: Role,
    /// At least one; several are other ways to the same server.
    pub addresses: Vec<MemberAddress>,
    pub client: Option<ListenAddress>,
    pub secure_client: Option<ListenAddress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Participant,
    Observer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberAddress {
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
}

/// Where to listen. The host is a literal or a name; the shell resolves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// `None` is the wildcard: every address of the machine, of both families where it has both.
    pub host: Option<String>,
    pub port: u16,
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            None => write!(f, "*:{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

impl ListenAddress {
    /// From a host as written; names of the wildcard become `None`.
    pub fn new(host: &str, port: u16) -> ListenAddress {
        let host = host.trim().trim_start_matches('[').trim_end_matches(']');
        let wildcard = matches!(host, "" | "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0");
        ListenAddress { host: (!wildcard).then(|| host.to_owned()), port }
    }
}

impl Member {
    /// Reads one line; the error is what was expected.
    pub fn parse(key: &str, value: &str) -> Result<Member, String> {
        let id = id_of(key)?;
        let mut parts = value.split(';').map(str::trim);
        let peers = parts.next().unwrap_or_default();
        let client = parts.next().filter(|part| !part.is_empty()).map(parse_client).transpose()?;
        let secure_client = parts.next().filter(|part| !part.is_empty()).map(parse_client).transpose()?;
        if parts.next().is_some() {
            return Err("at most two client addresses after `;`".into());
        }
        let mut addresses = Vec::new();
        let mut role = None;
        for peer in peers.split('|') {
            let (address, its_role) = parse_peer(peer.trim())?;
            // One address may name it for all, as ZooKeeper itself prints several.
            if role.is_some() && its_role.is_some() && role != its_role {
                return Err("the same role in all addresses of a server".into());
            }
            role = role.or(its_role);
            addresses.push(address);
        }
        Ok(Member { id, role: role.unwrap_or_default(), addresses, client, secure_client })
    }
}

fn id_of(key: &str) -> Result<ServerId, String> {
    let digits = key.rsplit('.').next().unwrap_or_default();
    match digits.parse::<u8>() {
        Ok(id) if id > 0 => Ok(ServerId(id)),
        _ => Err("a server id from 1 to 255 after the dot of the key".into()),
    }
}

/// Splits at colons outside of brackets.
fn colons(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => inside = true,
            b']' => inside = false,
            b':' if !inside => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("a port from 1 to 65535, not `{text}`")),
    }
}

fn parse_client(text: &str) -> Result<ListenAddress, String> {
    match colons(text)[..] {
        [port] => Ok(ListenAddress { host: None, port: parse_port(port)? }),
        [host, port] if !host.is_empty() => Ok(ListenAddress::new(host, parse_port(port)?)),
        _ => Err("a client address [host:]port after `;`".into()),
    }
}

fn parse_peer(text: &str) -> Result<(MemberAddress, Option<Role>), String> {
    let parts = colons(text);
    let (host, quorum, election, role) = match parts[..] {
        [host, quorum, election] => (host, quorum, election, None),
        [host, quorum, election, role] if role.trim().eq_ignore_ascii_case("participant") => {
            (host, quorum, election, Some(Role::Participant))
        }
        [host, quorum, election, role] if role.trim().eq_ignore_ascii_case("observer") => {
            (host, quorum, election, Some(Role::Observer))
        }
        _ => return Err("host:quorumPort:electionPort[:participant|observer]".into()),
    };
    let host = host.trim().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("a host before the ports".into());
    }
    let (quorum_port, election_port) = (parse_port(quorum)?, parse_port(election)?);
    if quorum_port == election_port {
        return Err("different quorum and election ports".into());
    }
    Ok((MemberAddress { host: host.to_owned(), quorum_port, election_port }, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_lines_are_read() {
        let member =
            Member::parse("server.3", "[::1]:2888:3888:Observer|b:1:2:observer;10.0.0.1:2181;2281").unwrap();
        assert_eq!(member.id, ServerId(3));
        assert_eq!(member.role, Role::Observer);
        assert_eq!(member.addresses.len(), 2);
        assert_eq!(member.addresses[0].host, "::1");
        assert_eq!(member.client, Some(ListenAddress::new("10.0.0.1", 2181)));
        assert_eq!(member.secure_client, Some(ListenAddress { host: None, port: 2281 }));
        let member = Member::parse("server.3", "a:1:2|b:1:2:observer").unwrap();
        assert_eq!(member.role, Role::Observer);
        let member = Member::parse("server.1", "localhost:2888:3888;2181").unwrap();
        assert_eq!((member.role, member.client.unwrap().to_string()), (Role::Participant, "*:2181".into()));
    }

    #[test]
    fn wrong_lines_say_what_was_expected() {
        for (key, value, expected) in [
            ("server.0", "h:1:2", "a server id from 1 to 255 after the dot of the key"),
            ("server.x", "h:1:2", "a server id from 1 to 255 after the dot of the key"),
            ("server.256", "h:1:2", "a server id from 1 to 255 after the dot of the key"),
            ("server.1", "h:1", "host:quorumPort:electionPort[:participant|observer]"),
            ("server.1", "h:1:2:leader", "host:quorumPort:electionPort[:participant|observer]"),
            ("server.1", "h:1:1", "different quorum and election ports"),
            ("server.1", "h:1:70000", "a port from 1 to 65535, not `70000`"),
            ("server.1", ":1:2", "a host before the ports"),
            ("server.1", "a:1:2:participant|b:1:2:observer", "the same role in all addresses of a server"),
            ("server.1", "a:1:2;x:y:z", "a client address [host:]port after `;`"),
        ] {
            assert_eq!(Member::parse(key, value), Err(expected.to_owned()), "{key}={value}");
        }
    }
}
