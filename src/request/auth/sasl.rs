//! The server's side of SASL with DIGEST-MD5 (RFC 2831, quality of protection `auth` alone).
//!
//! ```text
//! client                                     server
//! (empty token)                              realm="zk-sasl-md5",nonce="…",charset=utf-8,algorithm=md5-sess
//! username="…",nonce="…",response=…, …       rspauth=…
//! ```
//!
//! Both sides hash user, realm, password and both nonces; the password itself never travels. Nothing here has a socket,
//! a clock or chance: tokens come in, tokens go out, and nonces are made by whoever owns the connections.
//! Source: RFC 2831; ZooKeeper `ZooKeeperSaslServer`, `SaslServerCallbackHandler`; tokens of 3.9.5.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::Secret;

/// Who speaks with whom: both are part of what is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub protocol: &'static str,
    /// The realm, and the host part of the digest-uri.
    pub realm: &'static str,
}

/// Clients and servers. Source: ZooKeeper `ZooKeeperSaslServer#createSaslServer`.
pub const CLIENTS: Service = Service { protocol: "zookeeper", realm: "zk-sasl-md5" };

impl Service {
    fn uri(&self) -> String {
        format!("{}/{}", self.protocol, self.realm)
    }
}

/// Bytes of a client's token (RFC 2831 §2.1.2).
const TOKEN_BYTES_MAX: usize = 4096;
/// Bytes of chance in a nonce.
const NONCE_BYTES: usize = 24;

/// One exchange.
#[derive(Debug, Default)]
pub enum SaslServer {
    #[default]
    Begun,
    Challenged {
        nonce: String,
    },
    /// Finished, well or not: whatever comes now is wrong.
    Over,
}

/// What the server answers.
#[derive(Debug, PartialEq, Eq)]
pub enum SaslStep {
    Challenge(Vec<u8>),
    /// The client is who it says; `token` proves that the server knows the password, too.
    Done {
        token: Vec<u8>,
        user: String,
    },
}

/// Why an exchange failed. The client is told nothing but that it did.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SaslError {
    #[error("a token of {bytes} bytes")]
    TooLong { bytes: usize },
    #[error("a token that is not a list of directives")]
    Syntax,
    #[error("{directive} is missing")]
    Missing { directive: &'static str },
    #[error("{directive} is not what it has to be")]
    Wrong { directive: &'static str },
    #[error("no such user, or the wrong password")]
    Refused,
    #[error("the exchange is over")]
    Over,
}

impl SaslServer {
    /// Takes a client's token; `nonce` is for the challenge, if this is answered by one.
    pub fn evaluate(
        &mut self,
        service: &Service,
        token: &[u8],
        users: &BTreeMap<String, Secret>,
        nonce: impl FnOnce() -> String,
    ) -> Result<SaslStep, SaslError> {
        match std::mem::replace(self, SaslServer::Over) {
            // Whatever the first token says: the server speaks first.
            SaslServer::Begun => {
                let nonce = nonce();
                let realm = service.realm;
                let challenge =
                    format!("realm=\"{realm}\",nonce=\"{nonce}\",charset=utf-8,algorithm=md5-sess");
                *self = SaslServer::Challenged { nonce };
                Ok(SaslStep::Challenge(challenge.into_bytes()))
            }
            SaslServer::Challenged { nonce } => check(service, token, &nonce, |user| users.get(user)),
            SaslServer::Over => Err(SaslError::Over),
        }
    }
}

/// What nonces are made of that nobody else knows. Drawn by the shell, as the core has no chance of its own.
#[derive(Clone, Default)]
pub struct NonceSecret(pub [u8; 32]);

impl std::fmt::Debug for NonceSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

/// A nonce that nobody else can guess: of a secret, and of numbers that never come together twice.
pub fn nonce(secret: &NonceSecret, front: usize, counter: u64) -> String {
    let hash = Sha256::new()
        .chain_update(secret.0)
        .chain_update((front as u64).to_be_bytes())
        .chain_update(counter.to_be_bytes())
        .finalize();
    STANDARD.encode(&hash[..NONCE_BYTES])
}

/// Checks the client's answer to a challenge.
fn check<'a>(
    service: &Service,
    token: &[u8],
    nonce: &str,
    password_of: impl FnOnce(&str) -> Option<&'a Secret>,
) -> Result<SaslStep, SaslError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(SaslError::TooLong { bytes: token.len() });
    }
    let directives = Directives::parse(token)?;
    let is_utf8 = match directives.get("charset") {
        None => false,
        Some(b"utf-8") => true,
        Some(_) => return Err(SaslError::Wrong { directive: "charset" }),
    };
    let text = |directive: &'static str| -> Result<Option<String>, SaslError> {
        let Some(bytes) = directives.get(directive) else { return Ok(None) };
        if is_utf8 {
            let text = std::str::from_utf8(bytes).map_err(|_| SaslError::Wrong { directive })?;
            return Ok(Some(text.to_owned()));
        }
        // ISO 8859-1: every byte is the character of its number.
        Ok(Some(bytes.iter().map(|byte| char::from(*byte)).collect()))
    };
    let wanted = |directive: &'static str| text(directive)?.ok_or(SaslError::Missing { directive });
    let equal = |directive: &'static str, good: bool| {
        if good { Ok(()) } else { Err(SaslError::Wrong { directive }) }
    };
    let user = wanted("username")?;
    let realm = text("realm")?.unwrap_or_default();
    equal("realm", realm == service.realm)?;
    equal("nonce", wanted("nonce")? == nonce)?;
    // A nonce is good once.
    equal("nc", wanted("nc")? == "00000001")?;
    equal("qop", text("qop")?.is_none_or(|qop| qop == "auth"))?;
    let uri = wanted("digest-uri")?;
    equal("digest-uri", uri.eq_ignore_ascii_case(&service.uri()))?;
    let cnonce = wanted("cnonce")?;
    let authzid = text("authzid")?;
    let response = wanted("response")?;
    equal("response", response.len() == 32)?;

    // Who does not exist is computed for as well, so that the time tells nothing.
    let password = password_of(&user);
    let secret = password.map_or("", |secret| secret.0.as_str());
    let a1 = a1(&user, &realm, secret, nonce, &cnonce, authzid.as_deref());
    let proof = |method: &str| proof(&a1, method, &uri, nonce, &cnonce);
    let expected = proof("AUTHENTICATE");
    if password.is_none() || !same(expected.as_bytes(), response.as_bytes()) {
        return Err(SaslError::Refused);
    }
    // Whatever it asked to act as, it is who it is. Source: ZooKeeper `SaslServerCallbackHandler`.
    Ok(SaslStep::Done { token: format!("rspauth={}", proof("")).into_bytes(), user })
}

/// The client's side: the answer to a challenge, and what the server then has to say. `cnonce` is chance of the client's.
pub fn respond(
    service: &Service,
    challenge: &[u8],
    user: &str,
    password: &str,
    cnonce: &str,
) -> Result<(Vec<u8>, Vec<u8>), SaslError> {
    let directives = Directives::parse(challenge)?;
    let of = |directive: &'static str| {
        let bytes = directives.get(directive).ok_or(SaslError::Missing { directive })?;
        std::str::from_utf8(bytes).map_err(|_| SaslError::Wrong { directive })
    };
    let (nonce, uri) = (of("nonce")?, service.uri());
    let realm = of("realm").unwrap_or(service.realm);
    let a1 = a1(user, realm, password, nonce, cnonce, None);
    let response = proof(&a1, "AUTHENTICATE", &uri, nonce, cnonce);
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let token = format!(
        "charset=utf-8,username={},realm={},nonce={},nc=00000001,cnonce={},digest-uri=\"{uri}\",maxbuf=65536,\
         response={response},qop=auth",
        quoted(user),
        quoted(realm),
        quoted(nonce),
        quoted(cnonce),
    );
    let expected = format!("rspauth={}", proof(&a1, "", &uri, nonce, cnonce));
    Ok((token.into_bytes(), expected.into_bytes()))
}

/// H(A1) in hexadecimal.
fn a1(user: &str, realm: &str, password: &str, nonce: &str, cnonce: &str, authzid: Option<&str>) -> String {
    let secret_hash = Md5::new()
        .chain_update(octets(user))
        .chain_update(b":")
        .chain_update(octets(realm))
        .chain_update(b":")
        .chain_update(octets(password))
        .finalize();
    let mut a1 = Md5::new().chain_update(secret_hash).chain_update(format!(":{nonce}:{cnonce}"));
    if let Some(authzid) = authzid {
        a1.update(format!(":{authzid}"));
    }
    hex(&a1.finalize())
}

fn proof(a1: &str, method: &str, uri: &str, nonce: &str, cnonce: &str) -> String {
    let a2 = hex(&Md5::digest(format!("{method}:{uri}")));
    hex(&Md5::digest(format!("{a1}:{nonce}:00000001:{cnonce}:auth:{a2}")))
}

/// Text as it is hashed: ISO 8859-1 where that can say it, else UTF-8 (RFC 2831 §2.1.2.1).
fn octets(text: &str) -> Vec<u8> {
    let narrow: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    narrow.unwrap_or_else(|| text.as_bytes().to_vec())
}

/// Equality in a time that does not depend on where they differ. The lengths are no secret.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (x, y)| differences | (x ^ y)) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `name=value` pairs joined by commas; values may be quoted. Each name once.
struct Directives(BTreeMap<String, Vec<u8>>);

impl Directives {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    fn parse(mut rest: &[u8]) -> Result<Directives, SaslError> {
        let mut found = BTreeMap::new();
        loop {
            rest = rest.trim_ascii_start();
            // Empty elements of a list are allowed.
            if let Some(after) = rest.strip_prefix(b",") {
                rest = after;
                continue;
            }
            if rest.is_empty() {
                return Ok(Directives(found));
            }
            let at = rest.iter().position(|byte| *byte == b'=').ok_or(SaslError::Syntax)?;
            let name = std::str::from_utf8(rest[..at].trim_ascii()).map_err(|_| SaslError::Syntax)?;
            let name = name.to_ascii_lowercase();
            rest = rest[at + 1..].trim_ascii_start();
            let value;
            if let Some(quoted) = rest.strip_prefix(b"\"") {
                (value, rest) = unquote(quoted)?;
                rest = rest.trim_ascii_start();
                if !rest.is_empty() && !rest.starts_with(b",") {
                    return Err(SaslError::Syntax);
                }
            } else {
                let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                value = rest[..end].trim_ascii_end().to_vec();
                rest = &rest[end..];
            }
            if name.is_empty() || found.insert(name, value).is_some() {
                return Err(SaslError::Syntax);
            }
        }
    }
}

/// What stands before the closing quote, and what follows it.
fn unquote(quoted: &[u8]) -> Result<(Vec<u8>, &[u8]), SaslError> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match quoted.get(at) {
            None => return Err(SaslError::Syntax),
            Some(b'"') => return Ok((value, &quoted[at + 1..])),
            Some(b'\\') => {
                value.push(*quoted.get(at + 1).ok_or(SaslError::Syntax)?);
                at += 2;
            }
            Some(byte) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> BTreeMap<String, Secret> {
        [("bob", "se:cret"), ("zoë", "grün"), ("łódź", "π")]
            .map(|(user, password)| (user.to_owned(), Secret(password.to_owned())))
            .into()
    }

    /// A client's answer that asks to act as another.
    fn respond_as(challenge: &[u8], user: &str, password: &str, authzid: &str) -> Vec<u8> {
        let (token, _) = respond(&CLIENTS, challenge, user, password, "c0").unwrap();
        let a1 = a1(user, CLIENTS.realm, password, "n0", "c0", Some(authzid));
        let response = proof(&a1, "AUTHENTICATE", &CLIENTS.uri(), "n0", "c0");
        let token = String::from_utf8(token).unwrap();
        let (before, after) = token.split_once("response=").unwrap();
        format!("{before}response={response}{},authzid=\"{authzid}\"", &after[32..]).into_bytes()
    }

    fn exchange(user: &str, password: &str, authzid: Option<&str>) -> Result<SaslStep, SaslError> {
        let mut server = SaslServer::default();
        let Ok(SaslStep::Challenge(challenge)) = server.evaluate(&CLIENTS, b"", &users(), || "n0".into())
        else {
            panic!("a challenge")
        };
        assert_eq!(challenge, b"realm=\"zk-sasl-md5\",nonce=\"n0\",charset=utf-8,algorithm=md5-sess");
        let (plain, expected) = respond(&CLIENTS, &challenge, user, password, "c0").unwrap();
        let token = authzid.map_or(plain, |authzid| respond_as(&challenge, user, password, authzid));
        let step = server.evaluate(&CLIENTS, &token, &users(), || panic!("no more"));
        if let (Ok(SaslStep::Done { token, .. }), None) = (&step, authzid) {
            assert_eq!(*token, expected);
        }
        // Nothing follows, however it ended.
        assert_eq!(server.evaluate(&CLIENTS, b"", &users(), || panic!("no more")), Err(SaslError::Over));
        step
    }

    /// The example of RFC 2831 §4.
    #[test]
    fn the_example_of_the_standard_holds() {
        let token =
            b"charset=utf-8,username=\"chris\",realm=\"elwood.innosoft.com\",nonce=\"OA6MG9tEQGm2hh\",\
                      nc=00000001,cnonce=\"OA6MHXh6VqTrRk\",digest-uri=\"imap/elwood.innosoft.com\",\
                      response=d388dad90d4bbd760a152321f2143af7,qop=auth";
        let secret = Secret("secret".into());
        let service = Service { protocol: "imap", realm: "elwood.innosoft.com" };
        let step = check(&service, token, "OA6MG9tEQGm2hh", |user| (user == "chris").then_some(&secret));
        let token = b"rspauth=ea40f60335c427b5527b84dbabcdfffd".to_vec();
        assert_eq!(step, Ok(SaslStep::Done { token, user: "chris".into() }));
    }

    #[test]
    fn who_knows_the_password_is_who_it_says() {
        for (user, password) in [("bob", "se:cret"), ("zoë", "grün"), ("łódź", "π")] {
            let Ok(SaslStep::Done { token, user: found }) = exchange(user, password, None) else {
                panic!("{user} is refused")
            };
            assert!(token.starts_with(b"rspauth=") && token.len() == 40);
            assert_eq!(found, user);
        }
        // Asking to act as another makes nobody another.
        let Ok(SaslStep::Done { user, .. }) = exchange("bob", "se:cret", Some("super")) else {
            panic!("bob is refused")
        };
        assert_eq!(user, "bob");
        assert_eq!(exchange("bob", "secret", None), Err(SaslError::Refused));
        assert_eq!(exchange("eve", "", None), Err(SaslError::Refused));
        assert_eq!(exchange("bob", "", None), Err(SaslError::Refused));
    }

    #[test]
    fn a_changed_answer_is_refused() {
        let mut challenged = SaslServer::default();
        let Ok(SaslStep::Challenge(challenge)) = challenged.evaluate(&CLIENTS, b"", &users(), || "n0".into())
        else {
            panic!("a challenge")
        };
        let good =
            String::from_utf8(respond(&CLIENTS, &challenge, "bob", "se:cret", "c0").unwrap().0).unwrap();
        for (from, to, error) in [
            ("nonce=\"n0\"", "nonce=\"n1\"", SaslError::Wrong { directive: "nonce" }),
            ("nc=00000001", "nc=00000002", SaslError::Wrong { directive: "nc" }),
            ("realm=\"zk-sasl-md5\"", "realm=\"other\"", SaslError::Wrong { directive: "realm" }),
            ("realm=\"zk-sasl-md5\",", "", SaslError::Wrong { directive: "realm" }),
            ("qop=auth", "qop=auth-int", SaslError::Wrong { directive: "qop" }),
            ("\"zookeeper/", "\"imap/", SaslError::Wrong { directive: "digest-uri" }),
            ("charset=utf-8", "charset=x", SaslError::Wrong { directive: "charset" }),
            ("cnonce=\"c0\"", "cnonce=\"c1\"", SaslError::Refused),
            ("cnonce=\"c0\",", "", SaslError::Missing { directive: "cnonce" }),
            ("response=", "response=0", SaslError::Wrong { directive: "response" }),
            ("username=\"bob\"", "username=\"bob", SaslError::Syntax),
            ("qop=auth", "qop=auth,nc=00000001", SaslError::Syntax),
            ("qop=auth", "qop", SaslError::Syntax),
        ] {
            assert!(good.contains(from), "{from}");
            let mut server = SaslServer::Challenged { nonce: "n0".into() };
            let step =
                server.evaluate(&CLIENTS, good.replacen(from, to, 1).as_bytes(), &users(), String::new);
            assert_eq!(step, Err(error), "{from} as {to}");
        }
        let mut server = SaslServer::Challenged { nonce: "n0".into() };
        let long = vec![b','; TOKEN_BYTES_MAX + 1];
        assert_eq!(
            server.evaluate(&CLIENTS, &long, &users(), String::new),
            Err(SaslError::TooLong { bytes: 4097 })
        );
    }

    #[test]
    fn nonces_differ() {
        let secret = NonceSecret([7; 32]);
        let mut seen: Vec<String> =
            (0..16).map(|number| nonce(&secret, number / 4, number as u64 % 4)).collect();
        assert!(seen.iter().all(|nonce| nonce.len() == 32));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 16);
        assert_ne!(nonce(&NonceSecret([8; 32]), 0, 0), nonce(&secret, 0, 0));
    }

    /// Whatever a client sends is an error or an answer, never a panic.
    #[test]
    fn any_bytes_are_taken() {
        let mut rng = crate::stdx::rng::Rng::new(1);
        let good = respond(&CLIENTS, b"nonce=\"n0\"", "bob", "se:cret", "c0").unwrap().0;
        for _ in 0..20_000 {
            let mut token = good.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(token.len() as u64) as usize;
                match rng.below(3) {
                    0 => token[at] = rng.below(256) as u8,
                    1 => token.truncate(at.max(1)),
                    _ => token.insert(at, b"\",\\= "[rng.below(5) as usize]),
                }
            }
            let mut server = SaslServer::Challenged { nonce: "n0".into() };
            let _ = server.evaluate(&CLIENTS, &token, &users(), String::new);
        }
    }
}
