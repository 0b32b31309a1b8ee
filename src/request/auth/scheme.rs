//! The rules of each scheme: which ids are valid, which identity matches which id, what the user is called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::AuthOptions;
use crate::config::DigestAlgorithm;

/// A scheme with rules of its own. `world`, `auth` and `super` have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scheme {
    Ip,
    Digest,
    Sasl,
    X509,
    Ensemble,
}

impl Scheme {
    /// The scheme of that name, if this server has it. Source: ZooKeeper `ProviderRegistry#initialize`.
    pub(super) fn of(name: &str, options: &AuthOptions) -> Option<Scheme> {
        match name {
            "ip" => Some(Scheme::Ip),
            "digest" if options.digest_enabled => Some(Scheme::Digest),
            "sasl" if options.sasl_enabled => Some(Scheme::Sasl),
            "x509" if options.x509_enabled => Some(Scheme::X509),
            "ensemble" if options.ensemble_names.is_some() => Some(Scheme::Ensemble),
            _ => None,
        }
    }

    /// True if an identity of it says who the client is, so that `auth` in a list stands for it.
    pub(super) fn is_authenticated(self) -> bool {
        matches!(self, Scheme::Digest | Scheme::Sasl | Scheme::X509)
    }

    /// True if a list may hold that id. Source: ZooKeeper `AuthenticationProvider#isValid` of each.
    pub(super) fn accepts(self, id: &str) -> bool {
        match self {
            Scheme::Ip => Network::parse(id).is_some(),
            Scheme::Digest => is_digest_id(id),
            Scheme::Sasl => is_kerberos_name(id),
            Scheme::X509 => is_x500_name(id),
            Scheme::Ensemble => false,
        }
    }

    /// True if an identity of a connection from `address` is one that `acl_id` means.
    /// Source: ZooKeeper `AuthenticationProvider#matches` of each.
    pub(super) fn matches(
        self,
        identity: &str,
        address: IpAddr,
        acl_id: &str,
        options: &AuthOptions,
    ) -> bool {
        match self {
            Scheme::Ip => Network::parse(acl_id).is_some_and(|network| network.contains(address)),
            Scheme::Digest => identity == acl_id,
            Scheme::Sasl => {
                identity == "super" || identity == acl_id || options.sasl_any_user.as_deref() == Some(acl_id)
            }
            Scheme::X509 => identity == acl_id || options.x509_super_user.as_deref() == Some(identity),
            Scheme::Ensemble => false,
        }
    }

    /// The user an identity names. Source: ZooKeeper `AuthenticationProvider#getUserName` of each.
    pub(super) fn user(self, identity: &str) -> &str {
        match self {
            Scheme::Digest => identity.split_once(':').map_or(identity, |(user, _)| user),
            _ => identity,
        }
    }
}

/// The identity of `user:password`: the user, a colon, and the hash of the whole text in padded base64.
///
/// Source: ZooKeeper `DigestAuthenticationProvider#generateDigest`.
pub fn digest_id(algorithm: DigestAlgorithm, user_and_password: &str) -> String {
    let text = user_and_password.as_bytes();
    let hash = match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(Sha1::digest(text)),
        DigestAlgorithm::Sha224 => STANDARD.encode(Sha224::digest(text)),
        DigestAlgorithm::Sha256 => STANDARD.encode(Sha256::digest(text)),
        DigestAlgorithm::Sha384 => STANDARD.encode(Sha384::digest(text)),
        DigestAlgorithm::Sha512 => STANDARD.encode(Sha512::digest(text)),
    };
    let user = user_and_password.split_once(':').map_or(user_and_password, |(user, _)| user);
    format!("{user}:{hash}")
}

/// An id of the ip scheme: an address and how many of its leading bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `address[/bits]`. Stricter than Java only in signs inside IPv6 groups.
    /// Source: ZooKeeper `IPAuthenticationProvider#isValid`.
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address = if address.contains(':') {
            IpAddr::V6(parse_v6(address)?)
        } else {
            IpAddr::V4(parse_v4(address)?)
        };
        let bits_max = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let bits = match bits {
            None => bits_max,
            // As Java reads a number: a sign and leading zeros are fine.
            Some(bits) => u32::try_from(bits.parse::<i32>().ok()?).ok().filter(|&bits| bits <= bits_max)?,
        };
        Some(Network { address, bits })
    }

    /// IPv4 and IPv6 never match each other.
    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let apart = ours.to_bits() ^ theirs.to_bits();
                apart.leading_zeros() >= self.bits
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let apart = ours.to_bits() ^ theirs.to_bits();
                apart.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

/// Exactly four decimal parts, each as Java reads a number.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(parts.next()?.parse::<i32>().ok()?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// Eight groups of one to four hexadecimal digits, or fewer around one `::`. No embedded IPv4, no zone.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    const GROUPS: usize = 8;
    fn groups(text: &str) -> Option<Vec<u16>> {
        let group = |group: &str| {
            let digits = group.len() <= 4 && group.bytes().all(|byte| byte.is_ascii_hexdigit());
            // An empty group is no number.
            if digits { u16::from_str_radix(group, 16).ok() } else { None }
        };
        text.split(':').take(GROUPS + 1).map(group).collect()
    }
    let groups = match text.split_once("::") {
        None => groups(text)?,
        Some((_, tail)) if tail.contains("::") => return None,
        Some((head, tail)) => {
            let mut head = if head.is_empty() { Vec::new() } else { groups(head)? };
            let tail = if tail.is_empty() { Vec::new() } else { groups(tail)? };
            if head.len() + tail.len() >= GROUPS {
                return None;
            }
            head.resize(GROUPS - tail.len(), 0);
            head.extend(tail);
            head
        }
    };
    Some(<[u16; GROUPS]>::try_from(groups).ok()?.into())
}

/// An address as Java writes it: IPv6 in eight groups, none left out.
pub(super) fn address_text(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:x}")).join(":"),
    }
}

/// Two parts around a colon, the second not empty; colons at the end do not count.
/// Source: ZooKeeper `DigestAuthenticationProvider#isValid`, Java `String#split`.
fn is_digest_id(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}

/// A name without `@`, or `primary[/host]@realm`. Source: ZooKeeper `KerberosName` constructor.
fn is_kerberos_name(id: &str) -> bool {
    match id.split_once('@') {
        None => true,
        Some((name, realm)) => !realm.contains(['@', '/']) && name.matches('/').count() <= 1,
    }
}

/// Keywords of attribute types that Java reads. Source: Java `X500Principal`, `AVAKeyword`.
const X500_KEYWORDS: [&str; 22] = [
    "CN",
    "C",
    "L",
    "S",
    "ST",
    "O",
    "OU",
    "T",
    "IP",
    "STREET",
    "DC",
    "DNQUALIFIER",
    "DNQ",
    "SURNAME",
    "GIVENNAME",
    "INITIALS",
    "GENERATION",
    "EMAIL",
    "EMAILADDRESS",
    "UID",
    "SERIALNUMBER",
    "TITLE",
];

/// A distinguished name as Java reads it: `type=value` joined by `,`, `;` or `+`; values plain with escapes, quoted, or `#` and
/// hexadecimal. The empty name is one.
fn is_x500_name(name: &str) -> bool {
    let mut rest = name.trim();
    if rest.is_empty() {
        return true;
    }
    loop {
        let Some((key, value)) = rest.split_once('=') else { return false };
        if !is_attribute_type(key.trim()) {
            return false;
        }
        match skip_attribute_value(value.trim_start_matches(' ')) {
            None => return false,
            Some("") => return true,
            // One separator; another attribute has to follow.
            Some(after) => rest = &after[1..],
        }
    }
}

fn is_attribute_type(key: &str) -> bool {
    if X500_KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(key)) {
        return true;
    }
    let oid = match key.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("OID.") => &key[4..],
        _ => key,
    };
    let mut arcs = oid.split('.');
    let first = arcs.next().unwrap_or_default();
    let rest_fine = |arc: &str| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
    matches!(first, "0" | "1" | "2") && oid.contains('.') && arcs.all(rest_fine)
}

/// What follows a value: nothing, or text that begins with a separator. `None` if the value is malformed.
fn skip_attribute_value(value: &str) -> Option<&str> {
    let at_end = |rest: &str| rest.is_empty() || rest.starts_with([',', ';', '+']);
    if let Some(hex) = value.strip_prefix('#') {
        let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        let rest = hex[digits..].trim_start_matches(' ');
        return (digits > 0 && digits % 2 == 0 && at_end(rest)).then_some(rest);
    }
    let quoted = value.starts_with('"');
    let mut rest = if quoted { &value[1..] } else { value };
    loop {
        let Some(next) = rest.chars().next() else { return if quoted { None } else { Some("") } };
        match next {
            '\\' => {
                let escaped = &rest[1..];
                let hex_pair = escaped.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
                if !hex_pair
                    && !escaped.starts_with([',', '=', '\n', '+', '<', '>', '#', ';', '\\', '"', ' '])
                {
                    return None;
                }
                rest = &escaped[if hex_pair { 2 } else { 1 }..];
            }
            '"' if quoted => {
                let rest = rest[1..].trim_start_matches(' ');
                return at_end(rest).then_some(rest);
            }
            ',' | ';' | '+' if !quoted => return Some(rest),
            '"' | '<' | '>' if !quoted => return None,
            other => rest = &rest[other.len_utf8()..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_ids() {
        for valid in [
            "1.2.3.4",
            "001.002.003.004",
            "0.0.0.0/0",
            "10.0.0.0/8",
            "255.255.255.255/32",
            "10.0.0.0/08",
            "::",
            "::1",
            "1::",
            "::/0",
            "2001:db8::/32",
            "1:2:3:4:5:6:7:8/128",
            "1:2:3:4:5:6:7::",
            "FE80::abCD",
        ] {
            assert!(Scheme::Ip.accepts(valid), "{valid}");
        }
        for invalid in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.-1",
            "1.2.3.x",
            "1.2.3.",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/",
            "1.2.3.4/8/8",
            "localhost",
            ":",
            ":::",
            "1::2::3",
            "::::",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7::8",
            "12345::",
            "::g",
            "::1.2.3.4",
            "fe80::1%eth0",
            "::/129",
            "1:::2",
        ] {
            assert!(!Scheme::Ip.accepts(invalid), "{invalid}");
        }
        for (id, address, expected) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "10.255.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.255/25", "10.1.2.128", true),
            ("10.1.2.255/25", "10.1.2.127", false),
            ("1.2.3.4/0", "200.1.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "127.0.0.1", false),
            ("::/0", "fe80::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1", "::1", true),
            ("nonsense", "127.0.0.1", false),
        ] {
            let matches = Scheme::Ip.matches("", address.parse().unwrap(), id, &AuthOptions::default());
            assert_eq!(matches, expected, "{id} {address}");
        }
        assert_eq!(address_text("::1".parse().unwrap()), "0:0:0:0:0:0:0:1");
        assert_eq!(address_text("fe80::a:1".parse().unwrap()), "fe80:0:0:0:0:0:a:1");
    }

    #[test]
    fn digest_ids() {
        for (id, valid) in [
            ("a:b", true),
            (":b", true),
            ("a:b:", true),
            ("a:", false),
            ("a", false),
            ("", false),
            (":", false),
            ("a:b:c", false),
            ("a::b", false),
        ] {
            assert_eq!(Scheme::Digest.accepts(id), valid, "{id}");
        }
        let sha1 = |text| digest_id(DigestAlgorithm::Sha1, text);
        assert_eq!(sha1("super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        // Only the text up to the first colon is the user, the whole of it is hashed.
        assert_eq!(sha1("abc"), "abc:qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
        assert!(sha1("a:b:c").starts_with("a:") && sha1(":b").starts_with(':'));
        for (algorithm, bytes) in [
            (DigestAlgorithm::Sha1, 20),
            (DigestAlgorithm::Sha224, 28),
            (DigestAlgorithm::Sha256, 32),
            (DigestAlgorithm::Sha384, 48),
            (DigestAlgorithm::Sha512, 64),
        ] {
            let id = digest_id(algorithm, "u:p");
            assert_eq!(STANDARD.decode(id.strip_prefix("u:").unwrap()).unwrap().len(), bytes);
        }
        let abc = digest_id(DigestAlgorithm::Sha256, "abc");
        assert_eq!(abc, "abc:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }

    #[test]
    fn sasl_and_x509_ids() {
        for (id, valid) in [
            ("bob", true),
            ("", true),
            ("a/b/c", true),
            ("bob@REALM", true),
            ("zk/host@REALM", true),
            ("a/b/c@REALM", false),
            ("a@b@c", false),
            ("a@b/c", false),
        ] {
            assert_eq!(Scheme::Sasl.accepts(id), valid, "{id}");
        }
        for (id, valid) in [
            ("", true),
            ("CN=bob", true),
            ("cn = bob , O = x", true),
            ("CN=bob,OU=a+L=b;C=DE", true),
            ("CN=", true),
            ("CN=a\\,b\\C3\\A4", true),
            ("CN=\"a,b\",C=DE", true),
            ("1.2.840.113549=#0c01", true),
            ("OID.2.5.4.3=x", true),
            ("bob", false),
            ("CN=bob,", false),
            ("XY=bob", false),
            ("=bob", false),
            ("CN=a\\zb", false),
            ("CN=\"a", false),
            ("CN=\"a\"b", false),
            ("CN=a<b", false),
            ("CN=#0", false),
            ("CN=ä\\", false),
            ("3.1=x", false),
            ("CN=bob O", true),
        ] {
            assert_eq!(Scheme::X509.accepts(id), valid, "{id}");
        }
    }
}
