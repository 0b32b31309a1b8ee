//! The built server's TLS ports from outside, with rustls as the client: one process, real sockets, on each I/O driver and
//! on one and two cores. The stores are those of `tests/golden/tls`.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, Conversation, Incoming, Message, Request, Response};
use ringkeeper::proto::client::{ConnectRequest, CreateMode, OpCode};
use ringkeeper::proto::{AclEntry, Perms};
use ringkeeper::types::{SessionId, Zxid};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};
use support::{PATIENCE, Server, Site, free_port, shapes, wait_until};

const CLIENT_ONE: &str = "CN=client one,OU=Ops,O=Acme\\, Inc,ST=Berlin,C=DE";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls").join(name)
}

fn each(test: impl Fn(&mut Site)) {
    for &shape in shapes() {
        println!("{shape:?}");
        test(&mut Site::new(shape));
    }
}

/// On one driver and core: what is tested does not depend on them.
fn one() -> Site {
    Site::new(shapes()[0])
}

/// Has a site's server speak TLS on a port of its own.
fn secure(site: &mut Site) -> SocketAddr {
    let port = free_port();
    site.set("secureClientPort", port).set("secureClientPortAddress", "127.0.0.1");
    stores(site);
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn stores(site: &mut Site) {
    site.set("ssl.keyStore.location", golden("server.jks").display())
        .set("ssl.keyStore.password", "secret")
        .set("ssl.trustStore.location", golden("trust-keytool.p12").display())
        .set("ssl.trustStore.passwordPath", golden("password").display())
        .set("4lw.commands.whitelist", "*");
}

/// The client's side of TLS, with the certificate and key of this file.
fn settings(identity: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(golden("ca.pem")).expect("a certificate")).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("both versions")
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = CertificateDer::pem_file_iter(golden(name)).expect("a file");
            let chain = chain.map(|certificate| certificate.expect("a certificate")).collect();
            let key = PrivateKeyDer::from_pem_file(golden(name)).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: ClientConfig) -> Stream {
    let socket = TcpStream::connect(address).expect("the port is open");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("settings"), socket)
}

/// All that comes until the server ends TLS; an end without its word is an error.
fn read_out(stream: &mut Stream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an orderly end");
    answer
}

fn word(address: SocketAddr, config: ClientConfig, word: &str) -> String {
    let mut stream = connect(address, config);
    stream.write_all(word.as_bytes()).expect("sent");
    String::from_utf8(read_out(&mut stream)).expect("text")
}

/// A session over TLS.
struct Session {
    stream: Stream,
    conversation: Conversation,
}

impl Session {
    fn open(stream: Stream) -> Session {
        let mut session = Session { stream, conversation: Conversation::default() };
        let mut out = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            zxid_seen: Zxid::ZERO,
            timeout_ms: 30_000,
            session: SessionId::NONE,
            password: Some(&[0; 16]),
            read_only: Some(false),
        };
        request.encode_frame(&mut out);
        session.stream.write_all(&out).expect("sent");
        match session.incoming() {
            Incoming::Connected(response) => assert!(response.timeout_ms > 0),
            Incoming::Message(message) => panic!("before the handshake's answer: {message:?}"),
        }
        session
    }

    fn incoming(&mut self) -> Incoming {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(incoming) = self.conversation.next_incoming().expect("frames") {
                return incoming;
            }
            let count = self.stream.read(&mut buffer).expect("received");
            assert!(count > 0, "the server closed");
            self.conversation.received(&buffer[..count]);
        }
    }

    fn submit(&mut self, requests: &[Request<'_>]) {
        let mut out = Vec::new();
        for request in requests {
            self.conversation.submit(request, &mut out);
        }
        self.stream.write_all(&out).expect("sent");
    }

    fn reply(&mut self) -> Result<Response, i32> {
        loop {
            match self.incoming() {
                Incoming::Message(Message::Reply(reply)) if reply.err == 0 => return Ok(reply.response),
                Incoming::Message(Message::Reply(reply)) => return Err(reply.err),
                _ => {}
            }
        }
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Response, i32> {
        self.submit(std::slice::from_ref(request));
        self.reply()
    }
}

fn log_has(server: &Server, text: &str) {
    wait_until(text, || server.log().contains(text));
}

#[test]
fn sessions_and_words_go_through_tls() {
    each(|site| {
        let address = secure(site);
        let server = site.start();
        assert!(server.log().contains(&format!("{address} (TLS)")));
        let mut session = Session::open(connect(address, settings(Some("client.pem"))));
        session.ask(&Request::create("/a", b"one", CreateMode::Persistent)).expect("created");
        let Response::Identities(known) = session.ask(&Request::WhoAmI).expect("answered") else { panic!() };
        assert_eq!(known, [("ip".into(), "127.0.0.1".into()), ("x509".into(), CLIENT_ONE.into())]);
        // The same tree by the plain port.
        let mut plain = server.client();
        assert_eq!(plain.get_data("/a", false).expect("there").0.as_deref(), Some(&b"one"[..]));
        // More than a record, more than a turn, and many requests at once.
        let large: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        session.ask(&Request::SetData { path: "/a", data: Some(&large), version: None }).expect("set");
        let reads = vec![Request::GetData { path: "/a", watch: false }; 20];
        session.submit(&reads);
        for _ in &reads {
            let Response::Data { data, .. } = session.reply().expect("there") else { panic!() };
            assert!(data.as_deref() == Some(&large[..]));
        }
        let exists = vec![Request::Exists { path: "/a", watch: false }; 5000];
        session.submit(&exists);
        for _ in &exists {
            session.reply().expect("there");
        }
        // The answer to the end, the end of TLS, then that of the connection.
        session.submit(&[Request::CloseSession]);
        session.reply().expect("closed");
        assert_eq!(read_out(&mut session.stream), b"");
        let config = settings(Some("client.pem"));
        assert_eq!(word(address, config.clone(), "ruok"), "imok");
        assert!(word(address, config.clone(), "srvr").contains("Mode: standalone"));
        assert!(
            word(address, config.clone(), "conf")
                .contains(&format!("\nsecureClientPort={}\n", address.port()))
        );
        let mntr = word(address, config, "mntr");
        assert!(mntr.contains("zk_unsuccessful_handshake\t0\n"), "{mntr}");
        assert!(mntr.contains("zk_num_alive_connections\t2\n"), "{mntr}");
    });
}

/// A list for the subject of a certificate lets its owner in and nobody else; the super user gets in anyway.
#[test]
fn the_certificate_is_an_identity() {
    let mut site = one();
    let address = secure(&mut site);
    site.set("X509AuthenticationProvider.superUser", "CN=super");
    let server = site.start();
    let mut owner = Session::open(connect(address, settings(Some("client.pem"))));
    let acl = [AclEntry { perms: Perms::ALL, scheme: Some("auth".into()), id: Some("".into()) }];
    let create = Request::Create {
        op: OpCode::Create,
        path: "/mine",
        data: Some(b"x"),
        acl: Some(&acl),
        flags: 0,
        ttl_ms: 0,
    };
    owner.ask(&create).expect("created");
    let get = Request::GetData { path: "/mine", watch: false };
    owner.ask(&get).expect("its owner may");
    let Response::Acl { acl, .. } = owner.ask(&Request::GetAcl { path: "/mine" }).expect("a list") else {
        panic!()
    };
    assert_eq!(
        (acl[0].scheme.as_deref(), acl[0].id.as_deref(), acl.len()),
        (Some("x509"), Some(CLIENT_ONE), 1)
    );
    let mut other = Session::open(connect(address, settings(Some("odd.pem"))));
    assert_eq!(other.ask(&get).unwrap_err(), -102);
    let mut plain = server.client();
    assert_eq!(plain.call(&get).expect("an answer").err, -102);
    let mut superuser = Session::open(connect(address, settings(Some("super.pem"))));
    superuser.ask(&get).expect("the super user may");
}

#[test]
fn who_shows_no_good_certificate_is_refused() {
    let mut site = one();
    let address = secure(&mut site);
    site.set("ringkeeper.log.level", "debug");
    let server = site.start();
    for (identity, alert, logged) in [
        (None, "CertificateRequired", "peer sent no certificates"),
        (Some("stranger.pem"), "UnknownCA", "UnknownIssuer"),
        (Some("expired.pem"), "CertificateExpired", "certificate expired"),
    ] {
        let mut stream = connect(address, settings(identity));
        // The client is through with its part before the server has looked at its certificate.
        let error = stream.write_all(b"ruok").and_then(|()| stream.read(&mut [0; 16])).expect_err("refused");
        assert!(error.to_string().contains(alert), "{identity:?}: {error}");
        log_has(&server, logged);
    }
    // A server of another authority is the client's to refuse.
    let other = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("both versions");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(golden("other-ca.pem")).expect("a certificate")).expect("a root");
    let mut stream = connect(address, other.with_root_certificates(roots).with_no_client_auth());
    assert!(stream.write_all(b"ruok").is_err());
    log_has(&server, "received fatal alert: UnknownCA");
    let good = settings(Some("client.pem"));
    wait_until("all four are counted", || {
        word(address, good.clone(), "mntr").contains("zk_unsuccessful_handshake\t4\n")
    });
}

#[test]
fn client_certificates_may_be_left_to_the_client() {
    for (auth, identity, known) in [
        ("want", None, 1),
        ("want", Some("client.pem"), 2),
        ("none", None, 1),
        ("none", Some("client.pem"), 1),
    ] {
        let mut site = one();
        let address = secure(&mut site);
        site.set("ssl.clientAuth", auth).set("ssl.enabledProtocols", "TLSv1.2");
        let _server = site.start();
        let mut session = Session::open(connect(address, settings(identity)));
        assert_eq!(session.stream.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
        let Response::Identities(identities) = session.ask(&Request::WhoAmI).expect("answered") else {
            panic!()
        };
        assert_eq!(identities.len(), known, "{auth} {identity:?}");
    }
}

/// Whoever sends anything but TLS, or nothing, or not to the end, is closed, and others do not notice.
#[test]
fn what_is_no_tls_is_closed() {
    each(|site| {
        let address = secure(site);
        site.set("nio.sessionlessCnxnTimeout", 500).set("ringkeeper.log.level", "debug");
        let server = site.start();
        let closed = |first: &[u8], rest: &[u8]| {
            let mut socket = TcpStream::connect(address).expect("the port is open");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.write_all(first).expect("sent");
            // The server may be through with it before all is sent.
            let _ = socket.write_all(rest);
            let mut answer = Vec::new();
            match socket.read_to_end(&mut answer) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
            answer
        };
        // A plain client, a word, an alert's worth of nonsense after a good start, a record too large.
        assert_eq!(closed(&[0, 0, 0, 44], &[0; 44]), b"");
        assert_eq!(closed(b"ruok", b""), b"");
        log_has(&server, "TLS was expected");
        let is_alert = |answer: Vec<u8>| answer.is_empty() || answer[0] == 0x15;
        assert!(is_alert(closed(&[0x16], b"\x03\x01\x00\x05nonsense")));
        assert!(is_alert(closed(&[0x16, 3, 1], &[0xff; 4000])));
        // Silence, and a handshake that stops after its first bytes: cut off in time.
        let began = Instant::now();
        assert_eq!(closed(b"", b""), b"");
        assert_eq!(closed(&[0x16, 3, 1, 2, 0, 1], b""), b"");
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        // Half a handshake message and then the end.
        let mut socket = TcpStream::connect(address).expect("the port is open");
        socket.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("sent");
        socket.shutdown(Shutdown::Write).expect("ended");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(socket.read(&mut [0; 8]).expect("an orderly end"), 0);
        let mut session = Session::open(connect(address, settings(Some("client.pem"))));
        session.ask(&Request::Exists { path: "/", watch: false }).expect("the server serves");
    });
}

#[test]
fn one_port_may_speak_both() {
    each(|site| {
        stores(site);
        site.set("client.portUnification", true);
        let server = site.start();
        let address = server.addr;
        let mut plain = server.client();
        plain.create("/a", b"one", CreateMode::Persistent).expect("created");
        let mut session = Session::open(connect(address, settings(Some("client.pem"))));
        let Response::Data { data, .. } =
            session.ask(&Request::GetData { path: "/a", watch: false }).expect("there")
        else {
            panic!()
        };
        assert_eq!(data.as_deref(), Some(&b"one"[..]));
        assert_eq!(word(address, settings(Some("client.pem")), "ruok"), "imok");
        assert_eq!(ringkeeper::client::four_letter(address, "ruok", PATIENCE).expect("answered"), b"imok");
        // Certificates are as good as on a secure port.
        let mut stream = connect(address, settings(None));
        assert!(stream.write_all(b"ruok").and_then(|()| stream.read(&mut [0; 16])).is_err());
        plain.ping().expect("others go on");
    });
}

/// Limits count the ports apart, as they do in ZooKeeper.
#[test]
fn each_port_has_its_own_limits() {
    let mut site = one();
    let address = secure(&mut site);
    site.set("maxClientCnxns", 1);
    let server = site.start();
    let mut plain = server.client();
    let mut session = Session::open(connect(address, settings(Some("client.pem"))));
    plain.ping().expect("one by each port");
    session.ask(&Request::Ping).expect("one by each port");
    assert!(Client::open(server.addr).is_err());
    let mut stream = connect(address, settings(Some("client.pem")));
    assert!(stream.write_all(b"ruok").and_then(|()| stream.read(&mut [0; 16])).is_err());
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    each(|site| {
        let address = secure(site);
        let _server = site.start();
        let mut slow = Session::open(connect(address, settings(Some("client.pem"))));
        let data = vec![7; 500_000];
        slow.ask(&Request::create("/a", &data, CreateMode::Persistent)).expect("created");
        let reads = vec![Request::GetData { path: "/a", watch: false }; 100];
        slow.submit(&reads);
        let mut quick = Session::open(connect(address, settings(Some("super.pem"))));
        for _ in 0..20 {
            quick.ask(&Request::Exists { path: "/a", watch: false }).expect("there");
        }
        for _ in &reads {
            let Response::Data { data: got, .. } = slow.reply().expect("there") else { panic!() };
            assert!(got.as_deref() == Some(&data[..]));
        }
    });
}

/// A store that cannot be used stops the start before anything is touched.
#[test]
fn bad_stores_are_refused_with_their_key_and_file() {
    for (key, value, expected) in [
        ("ssl.keyStore.password", "wrong".to_owned(), "the password does not fit, or the file is damaged"),
        ("ssl.keyStore.location", golden("none.jks").display().to_string(), "cannot be read: No such file"),
        (
            "ssl.keyStore.location",
            golden("make.sh").display().to_string(),
            "expected a key store: PEM, PKCS12 or JKS",
        ),
        ("ssl.trustStore.location", "/dev/null".to_owned(), "expected a key store: PEM, PKCS12 or JKS"),
    ] {
        let mut site = one();
        secure(&mut site);
        site.set(key, value);
        let (code, said) = site.refused();
        assert_eq!(code, 2, "{said}");
        let line =
            said.lines().find(|line| line.starts_with("--set: ssl.")).unwrap_or_else(|| panic!("{said}"));
        let store = key.replace(".password", ".location");
        assert!(line.starts_with(&format!("--set: {store}=")) && line.contains(expected), "{line}");
        assert!(!site.path("data").exists());
    }
}

/// Another certificate is served once its file is there, without a restart; sessions go on.
#[test]
fn a_new_certificate_is_taken_without_a_restart() {
    let mut site = one();
    let address = secure(&mut site);
    let place = site.path("server.pem");
    std::fs::copy(golden("server.pem"), &place).expect("copied");
    site.set("ssl.keyStore.location", place.display()).set("client.certReload", true);
    let server = site.start();
    let mut session = Session::open(connect(address, settings(Some("client.pem"))));
    let before = served(address);
    std::fs::write(&place, "half a file").expect("written");
    log_has(&server, "the stores as they were before stay in use");
    assert!(served(address) == before);
    let fresh = site.path("fresh.pem");
    std::fs::copy(golden("server-rsa.pem"), &fresh).expect("copied");
    std::fs::rename(&fresh, &place).expect("renamed");
    wait_until("the new certificate", || served(address) != before);
    session.ask(&Request::Ping).expect("a session goes on");
}

/// The certificate a server shows, to whoever asks.
fn served(address: SocketAddr) -> Vec<u8> {
    let mut config = settings(Some("client.pem"));
    config.dangerous().set_certificate_verifier(Arc::new(Anything));
    let mut stream = connect(address, config);
    stream.write_all(b"ruok").expect("sent");
    read_out(&mut stream);
    stream.conn.peer_certificates().expect("shown")[0].to_vec()
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn the_address_may_have_to_be_in_the_certificate() {
    let mut site = one();
    let address = secure(&mut site);
    site.set("ssl.clientHostnameVerification", true);
    let _server = site.start();
    assert_eq!(word(address, settings(Some("server.pem")), "ruok"), "imok");
    let mut stream = connect(address, settings(Some("client.pem")));
    assert!(matches!(stream.write_all(b"ruok").and_then(|()| stream.read(&mut [0; 16])), Ok(0) | Err(_)));
}

/// Three servers that speak TLS to each other elect, replicate, and take nobody in who does not speak it.
#[test]
fn an_ensemble_keeps_to_itself_in_tls() {
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let mut sites: Vec<Site> = (0..3).map(|_| one()).collect();
    let mut servers = Vec::new();
    for (index, site) in sites.iter_mut().enumerate() {
        for (id, (quorum, election)) in ports.iter().enumerate() {
            site.line(&format!("server.{}=localhost:{quorum}:{election}", id + 1));
        }
        std::fs::create_dir_all(site.path("data")).expect("made");
        std::fs::write(site.path("data/myid"), (index + 1).to_string()).expect("written");
        site.set("initLimit", 20)
            .set("syncLimit", 10)
            .set("sslQuorum", true)
            .set("ssl.quorum.keyStore.location", golden("server.jks").display())
            .set("ssl.quorum.keyStore.password", "secret")
            .set("ssl.quorum.trustStore.location", golden("ca.pem").display());
        servers.push(site.launch());
    }
    let mode = |server: &Server| {
        let answer = ringkeeper::client::four_letter(server.addr, "srvr", PATIENCE).unwrap_or_default();
        String::from_utf8_lossy(&answer).into_owned()
    };
    wait_until("all three serve", || {
        let modes: Vec<String> = servers.iter().map(mode).collect();
        modes.iter().filter(|mode| mode.contains("Mode: leader")).count() == 1
            && modes.iter().filter(|mode| mode.contains("Mode: follower")).count() == 2
    });
    let mut first = servers[0].client();
    first.create("/a", &[7; 300_000], CreateMode::Persistent).expect("created");
    for server in &servers[1..] {
        let mut other = server.client();
        other.sync("/a").expect("synced");
        assert!(other.get_data("/a", false).expect("there").0.as_deref() == Some(&[7; 300_000][..]));
    }
    for (quorum, election) in &ports {
        for port in [quorum, election] {
            let mut stranger = TcpStream::connect(("localhost", *port)).expect("the port is open");
            stranger.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stranger.write_all(&[0, 0, 0, 11, 0, 0, 0, 0]).expect("sent");
            assert!(matches!(stranger.read(&mut [0; 8]), Ok(0) | Err(_)));
        }
    }
    assert!(servers.iter().all(|server| mode(server).contains("Mode: ")));
}
