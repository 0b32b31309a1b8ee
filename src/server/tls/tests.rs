//! Whole sessions without sockets: both ends, in memory, with the stores of `tests/golden/tls`.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::tls::{CLIENT_PREFIX, Password};
use crate::config::{Origin, Secret};
use crate::stdx::rng::Rng;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls").join(name)
}

fn store(key: &str, name: &str) -> Store {
    Store {
        key: format!("ssl.{key}.location"),
        origin: Origin::Default,
        location: golden(name),
        kind: None,
        password: Password::Given(Secret("secret".into())),
    }
}

fn settings(key: &str, trust: &str) -> Tls {
    Tls {
        prefix: CLIENT_PREFIX,
        key_store: store("keyStore", key),
        trust_store: Some(store("trustStore", trust)),
        versions: vec![TlsVersion::V1_3, TlsVersion::V1_2],
        cipher_suites: Vec::new(),
        client_auth: ClientAuth::Need,
        verify_server_name: true,
        verify_client_name: false,
        detection_timeout_ms: 5000,
    }
}

/// What one end has seen.
#[derive(Default)]
struct Seen {
    peer: Option<Option<String>>,
    plain: Vec<u8>,
    closed: bool,
    error: Option<String>,
}

struct End {
    session: Session,
    out: Vec<u8>,
    seen: Seen,
}

impl End {
    fn new(session: Session) -> End {
        End { session, out: Vec::new(), seen: Seen::default() }
    }

    fn receive(&mut self, bytes: &mut [u8]) {
        let seen = &mut self.seen;
        let taken = self.session.received(bytes, &mut self.out, |event| match event {
            Event::Established(certificate) => {
                assert!(seen.peer.is_none() && seen.plain.is_empty());
                seen.peer = Some(certificate.map(|certificate| subject(certificate).expect("a subject")));
            }
            Event::Plain(plain) => {
                assert!(seen.peer.is_some() && !seen.closed);
                seen.plain.extend_from_slice(plain);
            }
            Event::PeerClosed => seen.closed = true,
        });
        if let Err(error) = taken {
            seen.error = Some(error.to_string());
        }
    }
}

struct Pair {
    server: End,
    client: End,
}

impl Pair {
    fn new(server: &Tls, client: &Tls) -> Pair {
        Pair::to("localhost", server, client)
    }

    fn to(host: &str, server: &Tls, client: &Tls) -> Pair {
        let acceptor = Acceptor::new(server).expect("the server's stores");
        let connector = Connector::new(client).expect("the client's stores");
        let mut client = End::new(Session::connect(&connector, host).expect("a host"));
        client.session.begin(&mut client.out).expect("a first message");
        Pair { server: End::new(Session::accept(&acceptor).expect("settings")), client }
    }

    /// Carries bytes in pieces of at most this many until none is left.
    fn settle(&mut self, piece: usize) {
        while !self.client.out.is_empty() || !self.server.out.is_empty() {
            for chunk in std::mem::take(&mut self.client.out).chunks_mut(piece) {
                self.server.receive(chunk);
            }
            for chunk in std::mem::take(&mut self.server.out).chunks_mut(piece) {
                self.client.receive(chunk);
            }
        }
    }

    fn errors(&self) -> (String, String) {
        let of = |end: &End| end.seen.error.clone().unwrap_or_default();
        (of(&self.server), of(&self.client))
    }
}

/// Every store form, both versions, every suite, and pieces of any size: the same bytes come out.
#[test]
fn data_goes_both_ways() {
    let mut rng = Rng::new(7);
    let mut cases: Vec<(Tls, usize)> = Vec::new();
    for (key, trust) in [
        ("server.pem", "ca.pem"),
        ("server-keytool.p12", "trust-keytool.p12"),
        ("server.jks", "trust.jks"),
        ("server-rsa.pem", "trust-openssl.p12"),
    ] {
        cases.push((settings(key, trust), usize::MAX));
    }
    for versions in [vec![TlsVersion::V1_2], vec![TlsVersion::V1_3]] {
        for piece in [1, 5, 77, 4096, 20_000] {
            cases.push((Tls { versions: versions.clone(), ..settings("server.pem", "ca.pem") }, piece));
        }
    }
    for suite in crate::config::tls::CIPHER_SUITES {
        let key = if suite.contains("_RSA_") { "server-rsa.pem" } else { "server.pem" };
        cases.push((Tls { cipher_suites: vec![suite], ..settings(key, "ca.pem") }, usize::MAX));
    }
    for (server, piece) in cases {
        let mut pair = Pair::new(&server, &settings("client.pem", "ca.pem"));
        pair.settle(piece);
        assert_eq!(pair.errors(), (String::new(), String::new()), "{server:?}");
        let subject = "CN=client one,OU=Ops,O=Acme\\, Inc,ST=Berlin,C=DE";
        assert_eq!(pair.server.seen.peer, Some(Some(subject.to_owned())));
        assert_eq!(pair.client.seen.peer, Some(Some("CN=localhost".to_owned())));
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        for len in [1, 100, 16_384, 16_385, 200_000] {
            let data: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
            pair.client.session.send(&data, &mut pair.client.out).expect("encrypted");
            pair.server.session.send(&data[..len / 2], &mut pair.server.out).expect("encrypted");
            to_server.extend_from_slice(&data);
            to_client.extend_from_slice(&data[..len / 2]);
            if len % 2 == 0 {
                pair.settle(piece);
            }
        }
        pair.server.session.close(&mut pair.server.out);
        pair.settle(piece);
        assert!(pair.client.seen.closed && !pair.server.seen.closed);
        assert!(pair.server.seen.plain == to_server && pair.client.seen.plain == to_client);
        assert!(pair.server.session.send(b"more", &mut pair.server.out).is_err());
        pair.client.session.close(&mut pair.client.out);
        pair.settle(piece);
        assert!(pair.server.seen.closed);
        assert_eq!(pair.errors(), (String::new(), String::new()));
    }
}

#[test]
fn who_is_not_trusted_does_not_get_in() {
    let server = settings("server.pem", "ca.pem");
    for (client, reason) in [
        (settings("stranger.pem", "ca.pem"), "invalid peer certificate: UnknownIssuer"),
        (settings("expired.pem", "ca.pem"), "invalid peer certificate: certificate expired"),
        (settings("alone.pem", "ca.pem"), "invalid peer certificate: "),
    ] {
        for versions in [vec![TlsVersion::V1_2], vec![TlsVersion::V1_3]] {
            let mut pair = Pair::new(&Tls { versions, ..server.clone() }, &client);
            pair.settle(usize::MAX);
            let (of_server, of_client) = pair.errors();
            assert!(of_server.starts_with(reason), "{of_server}");
            assert!(of_client.contains("received fatal alert"), "{of_client}");
            assert_eq!(pair.server.seen.peer, None);
        }
    }
    // The other way round, and the name.
    let client = settings("client.pem", "ca.pem");
    let mut pair = Pair::new(&settings("stranger.pem", "ca.pem"), &client);
    pair.settle(usize::MAX);
    assert!(pair.errors().1.contains("UnknownIssuer"), "{:?}", pair.errors());
    let mut pair = Pair::to("elsewhere", &server, &client);
    pair.settle(usize::MAX);
    assert!(pair.errors().1.contains("not valid for name"), "{:?}", pair.errors());
    let mut pair = Pair::to("elsewhere", &server, &Tls { verify_server_name: false, ..client.clone() });
    pair.settle(usize::MAX);
    assert!(pair.client.seen.peer.is_some());
    // A name in the subject counts where no alternative name is one.
    let alone = settings("super.pem", "ca.pem");
    for (host, good) in [("super", true), ("SUPER", true), ("localhost", false)] {
        let mut pair = Pair::to(host, &alone, &client);
        pair.settle(usize::MAX);
        assert_eq!(pair.client.seen.peer.is_some(), good, "{host}");
    }
    let mut pair = Pair::to("127.0.0.1", &server, &client);
    pair.settle(usize::MAX);
    assert!(pair.client.seen.peer.is_some());
}

/// A certificate that is in the trust store itself is good, whoever signed it, even where it calls itself an authority.
#[test]
fn a_listed_certificate_is_good_by_itself() {
    let server = settings("server.pem", "trust-both.pem");
    let mut pair = Pair::new(&server, &settings("alone.pem", "ca.pem"));
    pair.settle(usize::MAX);
    assert_eq!(pair.server.seen.peer, Some(Some("CN=alone".to_owned())));
    // A key store trusts its own certificate and nothing above it.
    let mut pair = Pair::new(&settings("server.pem", "client.jks"), &settings("client.pem", "ca.pem"));
    pair.settle(usize::MAX);
    assert!(pair.server.seen.peer.is_some());
    let mut pair = Pair::new(&settings("server.pem", "client.jks"), &settings("super.pem", "ca.pem"));
    pair.settle(usize::MAX);
    assert_eq!(pair.server.seen.peer, None);
    let expired = settings("server.pem", "expired.pem");
    let mut pair = Pair::new(&expired, &settings("expired.pem", "ca.pem"));
    pair.settle(usize::MAX);
    assert!(pair.errors().0.ends_with("Expired"), "{:?}", pair.errors());
}

#[test]
fn addresses_are_found_in_certificates() {
    let contents = store::read(&store("keyStore", "server.pem")).unwrap();
    let certificate = &contents.keys[0].chain[0];
    assert!(names_address(certificate, "127.0.0.1".parse().unwrap()));
    assert!(names_address(certificate, "::ffff:127.0.0.1".parse().unwrap()));
    assert!(!names_address(certificate, "127.0.0.2".parse().unwrap()));
    assert!(!names_address(b"nonsense", "127.0.0.1".parse().unwrap()));
    // What Java says this subject is.
    let odd = store::read(&store("keyStore", "odd.pem")).unwrap();
    assert_eq!(
        subject(&odd.keys[0].chain[0]).unwrap(),
        "CN=\\ \\#ü\\,\\\"\\\\\\;\\<\\>\\=\\+\\ ,O=a+OU=b,1.2.840.113549.1.9.1=#1603614062,DC=org"
    );
}

/// No bytes do harm: noise, handshakes cut and turned anywhere, floods without an end.
#[test]
fn damage_ends_a_session_and_nothing_else() {
    let server = settings("server.pem", "ca.pem");
    let acceptor = Acceptor::new(&server).unwrap();
    let connector = Connector::new(&settings("client.pem", "ca.pem")).unwrap();
    let mut rng = Rng::new(11);
    for _ in 0..300 {
        let mut client = End::new(Session::connect(&connector, "localhost").unwrap());
        client.session.begin(&mut client.out).unwrap();
        let mut server = End::new(Session::accept(&acceptor).unwrap());
        for _ in 0..4 {
            let mut bytes = std::mem::take(&mut client.out);
            if rng.below(2) == 0 && !bytes.is_empty() {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            let piece = 1 + rng.below(400) as usize;
            bytes.chunks_mut(piece).for_each(|chunk| server.receive(chunk));
            let mut back = std::mem::take(&mut server.out);
            back.chunks_mut(piece).for_each(|chunk| client.receive(chunk));
        }
        let mut noise: Vec<u8> = (0..rng.below(3000)).map(|_| rng.below(256) as u8).collect();
        server.receive(&mut noise);
        server.session.close(&mut server.out);
    }
    // Handshake messages that never end, in many small records.
    let mut server = End::new(Session::accept(&acceptor).unwrap());
    let mut sent = 0;
    while server.seen.error.is_none() {
        let mut record = vec![0x16, 3, 1, 0, 104, 1, 0, 255, 255];
        record.resize(5 + 104, 0);
        if sent > 0 {
            record[5..9].fill(0);
        }
        server.receive(&mut record);
        sent += record.len();
        assert!(sent < 2 * session::HANDSHAKE_BYTES_MAX, "the server keeps what never ends");
    }
}

#[test]
fn stores_that_do_not_serve_are_refused() {
    let refused = |tls: &Tls| Acceptor::new(tls).err().expect("refused").to_string();
    let text = refused(&settings("ca.pem", "ca.pem"));
    assert!(
        text.contains("ssl.keyStore.location=")
            && text.ends_with("holds no private key; expected one with its certificate")
    );
    let text = refused(&settings("server.pem", "none.pem"));
    assert!(text.contains("ssl.trustStore.location=") && text.contains("cannot be read"), "{text}");
    let tls = Tls {
        versions: vec![TlsVersion::V1_2],
        cipher_suites: vec!["TLS_AES_128_GCM_SHA256"],
        ..settings("server.pem", "ca.pem")
    };
    assert!(!refused(&tls).is_empty());
    // A key beside the certificate of another.
    let directory = tempfile::tempdir().unwrap();
    let mixed = directory.path().join("mixed.pem");
    let read = |name: &str| std::fs::read_to_string(golden(name)).unwrap();
    let (server, client) = (read("server.pem"), read("client.pem"));
    let begin = "-----BEGIN PRIVATE KEY-----";
    let text =
        format!("{}{begin}{}", server.split(begin).next().unwrap(), client.split(begin).nth(1).unwrap());
    std::fs::write(&mixed, text).unwrap();
    let mut tls = settings("server.pem", "ca.pem");
    tls.key_store.location = mixed;
    assert!(refused(&tls).ends_with("its first certificate is not that of its private key"));
}

/// Changed files are taken, damaged ones are not.
#[test]
fn stores_are_read_again_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("key.pem");
    let put = |name: &str| {
        let fresh = directory.path().join("fresh");
        std::fs::copy(golden(name), &fresh).unwrap();
        std::fs::rename(&fresh, &place).unwrap();
    };
    put("server.pem");
    let mut tls = settings("server.pem", "ca.pem");
    tls.key_store.location = place.clone();
    let loaded = reload::stamps(&tls);
    let live = Live::new(Acceptor::new(&tls).unwrap());
    let served = |live: &Live<Acceptor>| {
        let connector = Connector::new(&settings("client.pem", "trust-both.pem")).unwrap();
        let mut client = End::new(Session::connect(&connector, "localhost").unwrap());
        client.session.begin(&mut client.out).unwrap();
        let mut pair = Pair { server: End::new(Session::accept(&live.get()).unwrap()), client };
        pair.settle(usize::MAX);
        pair.client.seen.peer.is_some()
    };
    live.keep_fresh(tls, loaded, Acceptor::new).unwrap();
    assert!(served(&live));
    // Another certificate, which these clients do not accept.
    put("stranger.pem");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while served(&live) {
        assert!(std::time::Instant::now() < deadline, "the new store is not taken");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::fs::write(&place, "nothing").unwrap();
    put("server.pem");
    while !served(&live) {
        assert!(std::time::Instant::now() < deadline, "the last store is not taken");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
