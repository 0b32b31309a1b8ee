//! From one membership to the next, as a client asks for it.

use super::{Membership, MembershipError, cut};
use crate::config::members::Member;
use crate::types::ServerId;

/// The sign between the members of a list.
const SEPARATOR: char = ',';

impl Membership {
    /// Without the servers `leaving` names (ids), and with those `joining` describes (`server.N=` and a line's value, the client
    /// address with it) added or replaced. Leaving comes first. Where there are groups nobody can say which one a server joins.
    /// Source: ZooKeeper `PrepRequestProcessor`, case reconfig.
    pub fn changed(
        &self,
        joining: Option<&str>,
        leaving: Option<&str>,
        version: i64,
    ) -> Result<Membership, MembershipError> {
        let wrong = |key: &str, value: &str, expected: &str| MembershipError::Line {
            key: key.to_owned(),
            value: cut(value).to_owned(),
            expected: expected.to_owned(),
        };
        if !self.groups.is_empty() {
            return Err(wrong("group", "", "a whole new membership where there are groups"));
        }
        let mut members = self.members.clone();
        for id in list(leaving) {
            let number: i64 =
                id.parse().map_err(|_| wrong("leaving", id, "server ids with commas between"))?;
            if let Ok(number) = u8::try_from(number) {
                members.remove(&ServerId(number));
            }
        }
        for line in list(joining) {
            let (key, value) = line
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| wrong("joining", line, "server.N=host:port:port[:role];[host:]port"))?;
            let member =
                Member::parse(key.trim(), value.trim()).map_err(|expected| wrong(key, value, &expected))?;
            if member.client.is_none() {
                return Err(wrong(key, value, "a client port after `;`"));
            }
            members.insert(member.id, member);
        }
        let next =
            Membership::new(version, members.into_values(), self.groups.clone(), self.weights.clone())?;
        next.check_ports()?;
        Ok(next)
    }

    /// The membership that `lines` describe, separated by commas or line ends. Source: ZooKeeper `PrepRequestProcessor`, case reconfig.
    pub fn replaced(lines: &str, version: i64) -> Result<Membership, MembershipError> {
        let mut next = Membership::parse(lines.replace(SEPARATOR, "\n").as_bytes())?;
        next.version = version;
        next.check_ports()?;
        Ok(next)
    }

    /// The same servers under another version.
    pub fn with_version(&self, version: i64) -> Membership {
        Membership { version, ..self.clone() }
    }

    /// The lines of the text, without the version.
    pub fn lines(&self) -> String {
        let text = self.to_text();
        let end = text.rfind("version=").unwrap_or(text.len());
        text[..end].to_owned()
    }

    /// Whether a server is found by the others where `other` has it.
    pub fn same_address(&self, other: &Membership, id: ServerId) -> bool {
        let quorum_ports = |membership: &Membership| {
            membership.member(id).map(|member| {
                let mut ports: Vec<(String, u16)> =
                    member.addresses.iter().map(|a| (a.host.to_ascii_lowercase(), a.quorum_port)).collect();
                ports.sort();
                ports
            })
        };
        quorum_ports(self) == quorum_ports(other)
    }

    /// No port of a peer twice.
    fn check_ports(&self) -> Result<(), MembershipError> {
        let mut seen = std::collections::BTreeMap::new();
        for member in self.members.values() {
            for address in &member.addresses {
                for port in [address.quorum_port, address.election_port] {
                    if let Some(other) = seen.insert((address.host.to_ascii_lowercase(), port), member.id)
                        && other != member.id
                    {
                        return Err(MembershipError::Line {
                            key: format!("server.{}", member.id.0),
                            value: format!("{}:{port}", address.host),
                            expected: format!("another port than server.{}", other.0),
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// The parts of a list, without blanks and empty ones.
fn list(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(SEPARATOR).map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Membership {
        let text = "server.1=a:1:2:participant;0.0.0.0:2181\nserver.2=b:1:2:participant;0.0.0.0:2181\n\
                    server.3=c:1:2:participant;0.0.0.0:2181\nversion=0";
        Membership::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn servers_leave_and_join() {
        let next =
            three().changed(Some("server.4=d:1:2:observer;2181, 1=a:5:6;h:2182"), Some("2, 9"), 7).unwrap();
        assert_eq!(
            next.to_text(),
            "server.1=a:5:6:participant;h:2182\nserver.3=c:1:2:participant;0.0.0.0:2181\n\
             server.4=d:1:2:observer;0.0.0.0:2181\nversion=7"
        );
        assert!(!next.same_address(&three(), ServerId(1)) && next.same_address(&three(), ServerId(3)));
        assert!(next.lines().ends_with("2181\n"));
        assert_eq!(three().with_version(9).version, 9);
        let replaced = Membership::replaced("server.7=x:1:2;5,server.8=y:1:2;5\nversion=3", 12).unwrap();
        assert_eq!((replaced.version, replaced.voters().count()), (12, 2));
    }

    #[test]
    fn what_makes_no_membership_is_refused() {
        for (joining, leaving) in [
            (Some("server.4"), None),
            (Some("server.4=d:1:2"), None),
            (Some("server.4=d:1:2;1=2"), None),
            (Some("server.0=d:1:2;2181"), None),
            (Some("server.4=a:2:9;2181"), None),
            (None, Some("x")),
            (None, Some("1,2,3")),
            (Some("server.4=d:1:2:observer;1"), Some("1,2,3")),
        ] {
            assert!(three().changed(joining, leaving, 7).is_err(), "{joining:?} {leaving:?}");
        }
        let grouped = Membership::replaced("server.1=a:1:2,server.2=b:1:2,group.1=1:2", 1).unwrap();
        assert!(grouped.changed(None, Some("2"), 2).is_err());
        assert!(Membership::replaced("", 1).is_err());
    }
}
