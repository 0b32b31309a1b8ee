//! Who belongs to an ensemble, and the text that says so on the wire, in `/zookeeper/config` and in dynamic files:
//!
//! ```text
//! server.1=a.example:2888:3888:participant;0.0.0.0:2181
//! server.4=[::1]:2890:3890:observer
//! group.1=1:2:3
//! weight.1=1
//! version=100000000
//! ```
//!
//! `version` is hexadecimal without `0x` and stands last, without a line end; groups and weights only where there are groups.
//! Source: ZooKeeper `QuorumMaj#toString`, `QuorumHierarchical#toString`, `QuorumPeerConfig#parseDynamicConfig`.

use std::collections::BTreeMap;
use std::fmt::Write;

use thiserror::Error;

use super::members::{Member, MemberAddress, Role};
use super::properties;
use crate::types::ServerId;

mod change;

/// Bytes of the longest text: what one notification of an election can carry.
pub const MEMBERSHIP_BYTES_MAX: usize = 512 * 1024 - 44;

/// The servers of an ensemble. Checked: it has a voter, and where there are groups every voter is in exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The zxid of the reconfiguration it came from; zero for one that only configuration files say.
    pub version: i64,
    members: BTreeMap<ServerId, Member>,
    /// Empty for a plain majority.
    groups: BTreeMap<i64, Vec<ServerId>>,
    /// Of every voter, and of others that have one written; empty for a plain majority.
    weights: BTreeMap<ServerId, u32>,
}

/// Why a text or a set of lines is no membership.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MembershipError {
    #[error("{bytes} bytes where at most {MEMBERSHIP_BYTES_MAX} were expected")]
    TooLong { bytes: usize },
    #[error("line {line}: \\u is not followed by four hexadecimal digits")]
    Escape { line: u32 },
    #[error("not UTF-8 from byte {at} on")]
    Text { at: usize },
    #[error("{key}={value}: expected {expected}")]
    Line { key: String, value: String, expected: String },
    #[error("{key}: expected only server.N, group.N, weight.N and version")]
    Key { key: String },
    #[error("server {} is there twice", .id.0)]
    Twice { id: ServerId },
    #[error("no participant among {observers} servers: expected at least one")]
    NoVoter { observers: usize },
    #[error(
        "one participant and {observers} observers: ZooKeeper takes that only with standaloneEnabled=false on every server"
    )]
    Lonely { observers: usize },
    #[error("server {} is in two groups", .id.0)]
    TwoGroups { id: ServerId },
    #[error("participant {} is in no group", .id.0)]
    NoGroup { id: ServerId },
    #[error("server {} is in a group but neither a participant nor given a weight", .id.0)]
    NoWeight { id: ServerId },
    #[error("every weight is zero: no set of servers would be a quorum")]
    Weightless,
}

impl Membership {
    /// Puts members together. Groups and weights are given together or not at all; a missing weight is one.
    pub fn new(
        version: i64,
        members: impl IntoIterator<Item = Member>,
        groups: BTreeMap<i64, Vec<ServerId>>,
        mut weights: BTreeMap<ServerId, u32>,
    ) -> Result<Membership, MembershipError> {
        let mut by_id = BTreeMap::new();
        for member in members {
            let id = member.id;
            check_hosts(&member)?;
            if by_id.insert(id, member).is_some() {
                return Err(MembershipError::Twice { id });
            }
        }
        let voters: Vec<ServerId> = by_id
            .values()
            .filter(|member| member.role == Role::Participant)
            .map(|member| member.id)
            .collect();
        if voters.is_empty() {
            return Err(MembershipError::NoVoter { observers: by_id.len() });
        }
        if !groups.is_empty() || !weights.is_empty() {
            let mut grouped: Vec<ServerId> = groups.values().flatten().copied().collect();
            grouped.sort();
            if let Some(pair) = grouped.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(MembershipError::TwoGroups { id: pair[0] });
            }
            if let Some(&id) = voters.iter().find(|id| grouped.binary_search(id).is_err()) {
                return Err(MembershipError::NoGroup { id });
            }
            for &id in &voters {
                weights.entry(id).or_insert(1);
            }
            // Java's verifier cannot be made from such a text.
            if let Some(&id) = grouped.iter().find(|id| !weights.contains_key(id)) {
                return Err(MembershipError::NoWeight { id });
            }
            if voters.iter().all(|id| weights[id] == 0) {
                return Err(MembershipError::Weightless);
            }
        }
        let membership = Membership { version, members: by_id, groups, weights };
        match membership.to_text().len() {
            bytes if bytes > MEMBERSHIP_BYTES_MAX => Err(MembershipError::TooLong { bytes }),
            _ => Ok(membership),
        }
    }

    /// Reads the lines of a text as above, in any order; the last line of a key counts.
    pub fn parse(text: &[u8]) -> Result<Membership, MembershipError> {
        if text.len() > MEMBERSHIP_BYTES_MAX {
            return Err(MembershipError::TooLong { bytes: text.len() });
        }
        let text =
            std::str::from_utf8(text).map_err(|error| MembershipError::Text { at: error.valid_up_to() })?;
        let properties =
            properties::parse(&latin_1(text)).map_err(|bad| MembershipError::Escape { line: bad.line })?;
        let mut lines = BTreeMap::new();
        for property in properties {
            lines.insert(property.key, property.value);
        }
        Membership::of_lines(0, lines.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    /// From `server.N`, `group.N`, `weight.N` and `version` lines, each key once; `version` is used where no line says one.
    pub fn of_lines<'a>(
        version: i64,
        lines: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Membership, MembershipError> {
        let mut version = version;
        let mut members = Vec::new();
        let (mut groups, mut weights) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in lines {
            let wrong = |expected: String| MembershipError::Line {
                key: cut(key).to_owned(),
                value: cut(value).to_owned(),
                expected,
            };
            if key.starts_with("server.") {
                members.push(Member::parse(key, value).map_err(wrong)?);
            } else if key.starts_with("group") {
                let id = number_of(key).ok_or_else(|| wrong("a number after the dot of the key".into()))?;
                let mut ids = Vec::new();
                for part in value.split(':') {
                    ids.push(
                        server_id(part)
                            .ok_or_else(|| wrong("server ids from 1 to 255 with colons between".into()))?,
                    );
                }
                groups.insert(id, ids);
            } else if key.starts_with("weight") {
                let id = key
                    .split_once('.')
                    .and_then(|(_, digits)| server_id(digits))
                    .ok_or_else(|| wrong("a server id from 1 to 255 after the dot of the key".into()))?;
                let weight = value.parse().map_err(|_| wrong("a weight from 0 to 4294967295".to_owned()))?;
                weights.insert(id, weight);
            } else if key == "version" {
                version = i64::from_str_radix(value, 16)
                    .map_err(|_| wrong("a version in hexadecimal digits, up to 7fffffffffffffff".into()))?;
            } else {
                return Err(MembershipError::Key { key: cut(key).to_owned() });
            }
        }
        Membership::new(version, members, groups, weights)
    }

    /// The text as above, members by id. Client addresses are written where the member has them, secure ones never: servers
    /// up to 3.9 refuse such a line, and it would end their elections.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for member in self.members.values() {
            put_member(&mut text, member);
        }
        for (group, ids) in &self.groups {
            let _ = write!(text, "group.{group}=");
            for (index, id) in ids.iter().enumerate() {
                let _ = write!(text, "{}{}", if index == 0 { "" } else { ":" }, id.0);
            }
            text.push('\n');
        }
        for (id, weight) in &self.weights {
            let _ = writeln!(text, "weight.{}={weight}", id.0);
        }
        let _ = write!(text, "version={:x}", self.version);
        text
    }

    /// Whether Java servers can live with this text. One that they refuse ends their election thread for good, so it is never sent.
    /// Source: ZooKeeper `QuorumPeerConfig#parseDynamicConfig`; quorum-protocol §9.2 row 31.
    pub fn check_for_peers(&self, standalone_enabled: bool) -> Result<(), MembershipError> {
        let observers = self.observers().count();
        match self.voters().count() {
            1 if standalone_enabled && observers > 0 => Err(MembershipError::Lonely { observers }),
            _ => Ok(()),
        }
    }

    /// Whether both name the same servers with the same roles, addresses, groups and weights; versions and client addresses aside.
    pub fn same_servers(&self, other: &Membership) -> bool {
        self.members.len() == other.members.len()
            && self.groups_by_server() == other.groups_by_server()
            && self.weights == other.weights
            && self.members.values().all(|member| {
                other.members.get(&member.id).is_some_and(|twin| {
                    member.role == twin.role && sorted(&member.addresses) == sorted(&twin.addresses)
                })
            })
    }

    /// Equality as ZooKeeper has it: the same version says it all, else the servers must be the same.
    /// Source: ZooKeeper `QuorumMaj#equals`.
    pub fn is_equal(&self, other: &Membership) -> bool {
        self.groups.is_empty() == other.groups.is_empty()
            && (self.version == other.version || self.same_servers(other))
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub fn voters(&self) -> impl Iterator<Item = ServerId> {
        self.with_role(Role::Participant)
    }

    pub fn observers(&self) -> impl Iterator<Item = ServerId> {
        self.with_role(Role::Observer)
    }

    fn with_role(&self, role: Role) -> impl Iterator<Item = ServerId> {
        self.members.values().filter(move |member| member.role == role).map(|member| member.id)
    }

    pub fn is_voter(&self, id: ServerId) -> bool {
        self.member(id).is_some_and(|member| member.role == Role::Participant)
    }

    /// Servers by group; empty for a plain majority.
    pub fn groups(&self) -> &BTreeMap<i64, Vec<ServerId>> {
        &self.groups
    }

    /// One where there are no groups; zero for a server that has none.
    pub fn weight(&self, id: ServerId) -> u32 {
        match self.groups.is_empty() {
            true => u32::from(self.is_voter(id)),
            false => self.weights.get(&id).copied().unwrap_or(0),
        }
    }

    fn groups_by_server(&self) -> BTreeMap<ServerId, i64> {
        self.groups.iter().flat_map(|(group, ids)| ids.iter().map(|id| (*id, *group))).collect()
    }
}

/// Text as the bytes of a properties file that mean it.
fn latin_1(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) => bytes.push(byte),
            Err(_) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    bytes.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    bytes
}

/// At most 200 bytes of what a peer wrote, for an error.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(200);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn number_of(key: &str) -> Option<i64> {
    key.split_once('.')?.1.parse().ok()
}

fn server_id(digits: &str) -> Option<ServerId> {
    digits.trim().parse().ok().filter(|id| *id > 0).map(ServerId)
}

/// What a line cannot carry there and back is refused here, so that every membership has a text.
fn check_hosts(member: &Member) -> Result<(), MembershipError> {
    let clients = member.client.iter().filter_map(|client| client.host.as_ref());
    for host in member.addresses.iter().map(|address| &address.host).chain(clients) {
        if host.is_empty() || !host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c)) {
            return Err(MembershipError::Line {
                key: format!("server.{}", member.id.0),
                value: cut(host).to_owned(),
                expected: "hosts of letters, digits and -._:%".into(),
            });
        }
    }
    Ok(())
}

fn sorted(addresses: &[MemberAddress]) -> Vec<&MemberAddress> {
    let mut sorted: Vec<&MemberAddress> = addresses.iter().collect();
    sorted.sort_by(|a, b| {
        (&a.host, a.quorum_port, a.election_port).cmp(&(&b.host, b.quorum_port, b.election_port))
    });
    sorted
}

fn put_host(text: &mut String, host: &str) {
    match host.contains(':') {
        true => write!(text, "[{host}]"),
        false => write!(text, "{host}"),
    }
    .expect("a String takes everything");
}

fn put_member(text: &mut String, member: &Member) {
    let _ = write!(text, "server.{}=", member.id.0);
    for (index, address) in sorted(&member.addresses).into_iter().enumerate() {
        if index > 0 {
            text.push('|');
        }
        put_host(text, &address.host);
        let _ = write!(text, ":{}:{}", address.quorum_port, address.election_port);
    }
    text.push_str(match member.role {
        Role::Participant => ":participant",
        Role::Observer => ":observer",
    });
    if let Some(client) = &member.client {
        text.push(';');
        put_host(text, client.host.as_deref().unwrap_or("0.0.0.0"));
        let _ = write!(text, ":{}", client.port);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Membership, MembershipError> {
        Membership::parse(text.as_bytes())
    }

    const CAPTURED: &str = "server.1=127.0.0.1:32801:32811:participant\nserver.2=127.0.0.1:32802:32812:participant\n\
                            server.3=127.0.0.1:32803:32813:participant\nserver.4=127.0.0.1:32804:32814:observer\nversion=0";

    #[test]
    fn the_text_of_a_java_server_goes_both_ways() {
        let membership = parse(CAPTURED).unwrap();
        assert_eq!(membership.voters().collect::<Vec<_>>(), [ServerId(1), ServerId(2), ServerId(3)]);
        assert_eq!(membership.observers().collect::<Vec<_>>(), [ServerId(4)]);
        assert_eq!((membership.version, membership.weight(ServerId(4))), (0, 0));
        assert_eq!(membership.to_text(), CAPTURED);
    }

    #[test]
    fn every_part_of_a_line_is_written_back() {
        let text = "server.1=a:1:2|b:1:2:participant;0.0.0.0:2181\nserver.2=[::1]:3:4:participant;[fe80::1]:2181\n\
                    server.255=c:1:2:observer\ngroup.1=1:2\nweight.1=2\nweight.2=1\nversion=100000002";
        let membership = parse(text).unwrap();
        assert_eq!(membership.to_text(), text);
        assert_eq!(membership.version, 0x1_0000_0002);
        // Any order, missing weights, a secure port, other spellings: the same servers.
        let other = parse(
            "version=7\r\nweight.1=2\n# c\ngroup.1=2:1\nserver.255:c:1:2:OBSERVER\nserver.2=[::1]:3:4;;2281\n\
             server.1 b:1:2|a:1:2:participant",
        );
        // `;;2281` has an empty client part, which is one too.
        let other = other.unwrap();
        assert!(other.same_servers(&membership) && other.is_equal(&membership));
        assert!(!other.to_text().contains("2281"));
    }

    #[test]
    fn versions_alone_make_equal() {
        let one = parse("server.1=a:1:2\nversion=5").unwrap();
        let same = parse("server.2=b:1:2\nversion=5").unwrap();
        let moved = parse("server.1=b:1:2\nversion=6").unwrap();
        assert!(one.is_equal(&same) && !one.is_equal(&moved) && !one.same_servers(&same));
    }

    #[test]
    fn wrong_texts_say_what_was_expected() {
        for (text, expected) in [
            ("", "no participant among 0 servers: expected at least one"),
            ("server.1=a:1:2:observer\nversion=0", "no participant among 1 servers: expected at least one"),
            (
                "server.300=a:1:2",
                "server.300=a:1:2: expected a server id from 1 to 255 after the dot of the key",
            ),
            ("server.1=a:1", "server.1=a:1: expected host:quorumPort:electionPort[:participant|observer]"),
            ("server.1=a b:1:2", "server.1=a b: expected hosts of letters, digits and -._:%"),
            (
                "server.1=a:1:2\nversion=0xg",
                "version=0xg: expected a version in hexadecimal digits, up to 7fffffffffffffff",
            ),
            ("server.1=a:1:2\nfoo=1", "foo: expected only server.N, group.N, weight.N and version"),
            ("server.1=a:1:2\nserver.01=a:1:2", "server 1 is there twice"),
            ("server.1=a:1:2\nserver.2=b:1:2\ngroup.1=1", "participant 2 is in no group"),
            ("server.1=a:1:2\ngroup.1=1\ngroup.2=1", "server 1 is in two groups"),
            (
                "server.1=a:1:2\ngroup.1=1:x",
                "group.1=1:x: expected server ids from 1 to 255 with colons between",
            ),
            (
                "server.1=a:1:2\ngroup.1=1:2",
                "server 2 is in a group but neither a participant nor given a weight",
            ),
            ("server.1=a:1:2\ngroup.1=1\nweight.1=-1", "weight.1=-1: expected a weight from 0 to 4294967295"),
            (
                "server.1=a:1:2\ngroup.1=1\nweight.1=0",
                "every weight is zero: no set of servers would be a quorum",
            ),
            ("a=\\u12", "line 1: \\u is not followed by four hexadecimal digits"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        assert_eq!(Membership::parse(b"a=\xff"), Err(MembershipError::Text { at: 2 }));
        let long = vec![b'#'; MEMBERSHIP_BYTES_MAX + 1];
        assert_eq!(Membership::parse(&long), Err(MembershipError::TooLong { bytes: long.len() }));
    }

    #[test]
    fn what_java_servers_cannot_take_is_known() {
        let lonely = parse("server.1=a:1:2\nserver.2=b:1:2:observer").unwrap();
        assert_eq!(lonely.check_for_peers(true), Err(MembershipError::Lonely { observers: 1 }));
        assert_eq!(lonely.check_for_peers(false), Ok(()));
        assert_eq!(parse("server.1=a:1:2").unwrap().check_for_peers(true), Ok(()));
    }

    #[test]
    fn text_beyond_latin_1_survives() {
        let membership = parse("server.1=zookeeper-\u{e9}\u{4e2d}.example:1:2\nversion=0").unwrap();
        assert_eq!(
            membership.member(ServerId(1)).unwrap().addresses[0].host,
            "zookeeper-\u{e9}\u{4e2d}.example"
        );
        assert_eq!(Membership::parse(membership.to_text().as_bytes()), Ok(membership));
    }
}
