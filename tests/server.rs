//! The built server from outside: one process, real sockets, on each I/O driver and on one and two cores.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringkeeper::client::{
    ACL_OPEN, ACL_READ, Client, ClientError, ConnectOptions, Message, MultiResult, Reply, Request, Response,
    SetWatches, WatchMode, WatchType, four_letter,
};
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::{CreateMode, EventType, OpCode};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::types::{SessionId, Zxid};
use support::{PATIENCE, Server, Shape, Site, chance, pick, shapes, wait_until};

/// `jute.maxbuffer` where nothing is set.
const FRAME_BYTES_MAX: usize = 0xf_ffff;

fn each(test: impl Fn(Shape, &mut Site)) {
    for &shape in shapes() {
        println!("{shape:?}");
        test(shape, &mut Site::new(shape));
    }
}

fn ok(client: &mut Client, request: &Request<'_>) -> Response {
    let reply = client.call(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    assert!(reply.is_ok(), "{request:?}: error {}", reply.err);
    reply.response
}

fn err(client: &mut Client, request: &Request<'_>) -> i32 {
    client.call(request).unwrap_or_else(|error| panic!("{request:?}: {error}")).err
}

fn event(client: &mut Client) -> (EventType, String) {
    let event = client.next_event(PATIENCE).expect("an event");
    (event.kind, event.path)
}

/// A session that times out quickly.
fn short_session(server: &Server, timeout_ms: i32) -> Client {
    server.client_with(&ConnectOptions { timeout_ms, ..ConnectOptions::default() }).expect("a session")
}

#[test]
fn every_call_round_trips() {
    each(|_, site| {
        site.set("extendedTypesEnabled", true);
        let server = site.start();
        let client = &mut server.client();
        assert_eq!(client.create("/a", b"one", CreateMode::Persistent).unwrap(), "/a");
        assert_eq!(
            err(client, &Request::create("/a", b"", CreateMode::Persistent)),
            ErrorCode::NodeExists.code()
        );
        let (data, stat) = client.get_data("/a", false).unwrap();
        assert_eq!((data.as_deref(), stat.version, stat.data_bytes), (Some(&b"one"[..]), 0, 3));
        assert_eq!(client.exists("/a", false).unwrap(), Some(stat));
        assert_eq!(client.exists("/none", false).unwrap(), None);
        let set = client.set_data("/a", b"two!", Some(0)).unwrap();
        assert_eq!((set.version, set.data_bytes, set.czxid), (1, 4, stat.czxid));
        assert!(client.set_data("/a", b"x", Some(0)).unwrap_err().is(ErrorCode::BadVersion));
        let Response::Created { path, stat } = ok(
            client,
            &Request::Create {
                op: OpCode::Create2,
                path: "/a/s-",
                data: None,
                acl: Some(ACL_OPEN),
                flags: CreateMode::EphemeralSequential as i32,
                ttl_ms: 0,
            },
        ) else {
            panic!("create2 answers with path and stat")
        };
        assert_eq!(path, "/a/s-0000000000");
        assert_eq!(stat.ephemeral_owner, client.session().0);
        assert_eq!(client.get_data(&path, false).unwrap().0, None);
        for (op, path, flags, ttl_ms) in
            [(OpCode::CreateContainer, "/c", 4, 0), (OpCode::CreateTtl, "/t", 5, 60_000)]
        {
            let create = Request::Create { op, path, data: Some(b""), acl: Some(ACL_OPEN), flags, ttl_ms };
            assert!(matches!(ok(client, &create), Response::Created { .. }));
        }
        let Response::Acl { acl, .. } = ok(client, &Request::GetAcl { path: "/a" }) else { panic!() };
        assert_eq!(acl, ACL_OPEN);
        let Response::Stat(stat) =
            ok(client, &Request::SetAcl { path: "/t", acl: Some(ACL_READ), version: Some(0) })
        else {
            panic!()
        };
        assert_eq!(stat.aversion, 1);
        assert_eq!(
            err(client, &Request::SetData { path: "/t", data: None, version: None }),
            ErrorCode::NoAuth.code()
        );
        assert_eq!(client.get_children("/", false).unwrap(), ["a", "c", "t", "zookeeper"]);
        let Response::Children { children, stat } =
            ok(client, &Request::GetChildren2 { path: "/a", watch: false })
        else {
            panic!()
        };
        assert_eq!((children, stat.child_count), (vec!["s-0000000000".to_owned()], 1));
        assert_eq!(ok(client, &Request::GetAllChildrenNumber { path: "/a" }), Response::Count(1));
        assert_eq!(
            ok(client, &Request::GetEphemerals { prefix: Some("/a") }),
            Response::Paths(vec![path.clone()])
        );
        assert_eq!(ok(client, &Request::Sync { path: "/a" }), Response::Path(Some("/a".into())));
        client.ping().unwrap();
        ok(client, &Request::Auth { scheme: "digest", auth: Some(b"u:p") });
        let Response::Identities(identities) = ok(client, &Request::WhoAmI) else { panic!() };
        assert_eq!(identities, [("ip".into(), "127.0.0.1".into()), ("digest".into(), "u".into())]);

        let results = client
            .multi(&[
                Request::Check { path: "/a", version: Some(1) },
                Request::create("/m", b"m", CreateMode::Persistent),
                Request::SetData { path: "/m", data: Some(b"n"), version: Some(0) },
                Request::Delete { path: "/m", version: Some(1) },
            ])
            .unwrap();
        assert_eq!(results.len(), 4);
        assert!(results.iter().all(|result| matches!(result, MultiResult::Done { .. })), "{results:?}");
        let Response::Multi(results) = ok(
            client,
            &Request::MultiRead(&[
                Request::GetData { path: "/a", watch: false },
                Request::GetChildren { path: "/none", watch: false },
            ]),
        ) else {
            panic!()
        };
        assert!(
            matches!(&results[0], MultiResult::Done { op: 4, response: Response::Data { data: Some(data), .. } } if data == b"two!")
        );
        assert_eq!(results[1], MultiResult::Failed { err: ErrorCode::NoNode.code() });

        ok(client, &Request::AddWatch { path: "/w", mode: WatchMode::Persistent });
        ok(client, &Request::CheckWatches { path: "/w", watches: WatchType::Persistent });
        ok(client, &Request::RemoveWatches { path: "/w", watches: WatchType::Any });
        assert_eq!(
            err(client, &Request::CheckWatches { path: "/w", watches: WatchType::Any }),
            ErrorCode::NoWatcher.code()
        );
        let seen = client.zxid_seen();
        ok(
            client,
            &Request::SetWatches(SetWatches { zxid_seen: seen, data: &["/a"], ..SetWatches::default() }),
        );
        client.delete(&path, Some(0)).unwrap();
        assert!(client.delete("/a", Some(9)).unwrap_err().is(ErrorCode::BadVersion));
        client.delete("/a", None).unwrap();
        assert_eq!(event(client), (EventType::NodeDeleted, "/a".into()));
        assert_eq!(
            err(
                client,
                &Request::Reconfig { joining: None, leaving: None, new_members: None, config_id: -1 }
            ),
            ErrorCode::ReconfigDisabled.code()
        );
        server.client().close().expect("closed after the reply to closeSession");
    });
}

/// Reads between writes show exactly the state between them, whatever is under way (C5); replies keep the order (P7).
#[test]
fn pipelined_reads_and_writes_show_every_state_in_order() {
    const PER_CLIENT: usize = 600;
    const CLIENTS: usize = 4;
    each(|_, site| {
        let server = &site.start();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                scope.spawn(move || {
                    let mut client = server.client();
                    let path = &format!("/own-{number}");
                    client.create(path, b"", CreateMode::Persistent).unwrap();
                    let mut rng = Rng::new(number as u64 + 1);
                    let mut expected = Vec::new();
                    let mut version = 0;
                    for _ in 0..PER_CLIENT {
                        if chance(&mut rng, 40) {
                            version += 1;
                            let data = version.to_string();
                            client.queue(&Request::SetData {
                                path,
                                data: Some(data.as_bytes()),
                                version: Some(version - 1),
                            });
                            expected.push((true, version));
                        } else {
                            client.queue(&Request::GetData { path, watch: false });
                            expected.push((false, version));
                        }
                        if chance(&mut rng, 10) {
                            client.flush().unwrap();
                        }
                    }
                    client.flush().unwrap();
                    let mut zxid = Zxid::ZERO;
                    for (index, (is_write, version)) in expected.into_iter().enumerate() {
                        let reply = client.receive_reply().unwrap();
                        assert!(reply.is_ok(), "request {index}: {reply:?}");
                        assert!(reply.zxid >= zxid, "request {index}: {} after {zxid}", reply.zxid);
                        zxid = reply.zxid;
                        match reply.response {
                            Response::Stat(stat) if is_write => {
                                assert_eq!((stat.version, stat.mzxid), (version, reply.zxid));
                            }
                            Response::Data { data, stat } if !is_write => {
                                assert_eq!(stat.version, version, "request {index}");
                                assert!(stat.mzxid <= reply.zxid);
                                let text = if version == 0 { String::new() } else { version.to_string() };
                                assert_eq!(data.as_deref(), Some(text.as_bytes()));
                            }
                            other => panic!("request {index}: {other:?}"),
                        }
                    }
                });
            }
        });
    });
}

/// An event comes before the reply that reveals its change (P8), wherever writer and watcher are connected.
#[test]
fn events_come_before_the_replies_that_reveal_them() {
    const ROUNDS: i32 = 50;
    each(|_, site| {
        let server = site.start();
        let mut writer = server.client();
        writer.create("/a", b"", CreateMode::Persistent).unwrap();
        // More connections than fronts, so that each front has some.
        let mut watchers: Vec<Client> = (0..8).map(|_| server.client()).collect();
        for watcher in &mut watchers {
            watcher.get_data("/a", true).unwrap();
        }
        for round in 1..=ROUNDS {
            writer.submit(&Request::SetData { path: "/a", data: Some(b"x"), version: None }).unwrap();
            for watcher in &mut watchers {
                // Asks until the change shows: by then the event has come.
                loop {
                    let (_, stat) = watcher.get_data("/a", false).unwrap();
                    let events = watcher.take_events();
                    if stat.version == round {
                        let [event] = &events[..] else {
                            panic!("version {round} was read, events: {events:?}")
                        };
                        assert_eq!((event.kind, event.zxid), (EventType::NodeDataChanged, stat.mzxid));
                        break;
                    }
                    assert!(
                        events.is_empty(),
                        "an event before its change shows on a later read: {events:?}"
                    );
                }
                watcher.get_data("/a", true).unwrap();
            }
            assert!(writer.receive_reply().unwrap().is_ok());
        }
    });
}

#[test]
fn all_kinds_of_watches_fire_across_connections() {
    each(|_, site| {
        let server = site.start();
        let mut writer = server.client();
        let mut watchers: Vec<Client> = (0..4).map(|_| server.client()).collect();
        for client in &mut watchers {
            ok(client, &Request::AddWatch { path: "/", mode: WatchMode::PersistentRecursive });
            assert_eq!(client.exists("/p", true).unwrap(), None);
        }
        writer.create("/p", b"", CreateMode::Persistent).unwrap();
        for client in &mut watchers {
            assert_eq!(event(client), (EventType::NodeCreated, "/p".into()));
            client.get_children("/p", true).unwrap();
        }
        writer.create("/p/c", b"", CreateMode::Persistent).unwrap();
        for client in &mut watchers {
            let mut two = [event(client), event(client)];
            two.sort_by_key(|(kind, _)| *kind as i32);
            assert_eq!(
                two,
                [(EventType::NodeCreated, "/p/c".into()), (EventType::NodeChildrenChanged, "/p".into())]
            );
        }
        writer.delete("/p/c", None).unwrap();
        for client in &mut watchers {
            assert_eq!(event(client), (EventType::NodeDeleted, "/p/c".into()));
        }
    });
}

#[test]
fn sessions_outlive_connections_and_restarts() {
    each(|_, site| {
        let mut server = site.start();
        let mut owner = short_session(&server, 10_000);
        owner.create("/e", b"mine", CreateMode::Ephemeral).unwrap();
        let mut options = owner.reconnect_options();
        drop(owner);
        let mut owner = server.client_with(&options).expect("taken up after the connection broke");
        assert_eq!(owner.session(), options.session);
        assert!(owner.exists("/e", false).unwrap().is_some());
        options.zxid_seen = owner.zxid_seen();

        let wrong = ConnectOptions { password: [9; 16], ..options.clone() };
        assert!(matches!(server.client_with(&wrong), Err(ClientError::Refused)));
        owner.ping().expect("a wrong password does not disturb the owner");

        assert_eq!(server.terminate().code(), Some(0));
        drop(owner);
        let mut server = site.start();
        let mut owner = server.client_with(&options).expect("taken up after a restart");
        let (data, stat) = owner.get_data("/e", false).unwrap();
        assert_eq!((data.as_deref(), stat.ephemeral_owner), (Some(&b"mine"[..]), options.session.0));
        server.kill();
        let server = site.start();
        let mut owner = server.client_with(&options).expect("taken up after a kill");
        assert!(owner.exists("/e", false).unwrap().is_some());
        owner.close().unwrap();
        assert!(matches!(server.client_with(&options), Err(ClientError::Refused)), "it was closed");
        assert_eq!(server.client().exists("/e", false).unwrap(), None);
    });
}

/// Nobody takes the session up: after its timeout, and not before, it ends with what it owns, over a restart too.
#[test]
fn sessions_end_when_their_time_is_up() {
    const TIMEOUT_MS: i32 = 2000;
    each(|_, site| {
        let mut server = site.start();
        let mut other = server.client();
        let mut owner = short_session(&server, TIMEOUT_MS);
        assert_eq!(owner.timeout_ms(), TIMEOUT_MS);
        for name in ["/e1", "/e2"] {
            owner.create(name, b"", CreateMode::Ephemeral).unwrap();
        }
        other.exists("/e1", true).unwrap();
        let options = owner.reconnect_options();
        let heard = Instant::now();
        owner.ping().unwrap();
        drop(owner);
        assert_eq!(event(&mut other), (EventType::NodeDeleted, "/e1".into()));
        let after = heard.elapsed();
        assert!(after >= Duration::from_millis(TIMEOUT_MS as u64), "ended after {after:?}");
        assert_eq!(other.exists("/e2", false).unwrap(), None, "all it owned goes in one transaction");
        assert!(matches!(server.client_with(&options), Err(ClientError::Refused)));

        let mut owner = short_session(&server, TIMEOUT_MS);
        owner.create("/e3", b"", CreateMode::Ephemeral).unwrap();
        server.kill();
        let server = site.start();
        let mut other = server.client();
        if other.exists("/e3", true).unwrap().is_some() {
            assert_eq!(event(&mut other), (EventType::NodeDeleted, "/e3".into()));
        }
    });
}

/// The second connection of a session ends the first, on whichever fronts they are.
#[test]
fn a_session_moves_to_its_newest_connection() {
    each(|_, site| {
        let server = site.start();
        let mut now = server.client();
        now.create("/n", b"", CreateMode::Ephemeral).unwrap();
        for round in 0..20 {
            let mut next = server.client_with(&now.reconnect_options()).expect("moved");
            now.wait_closed(PATIENCE).unwrap_or_else(|error| panic!("round {round}: {error}"));
            next.set_data("/n", round.to_string().as_bytes(), Some(round)).unwrap();
            now = next;
        }
        now.close().unwrap();
        assert_eq!(server.client().exists("/n", false).unwrap(), None);
    });
}

#[test]
fn frames_up_to_the_limit_and_not_one_byte_more() {
    each(|_, site| {
        let server = site.start();
        let mut client = server.client();
        client.create("/big", b"", CreateMode::Persistent).unwrap();
        // Header 8, path 4 + 4, data 4, version 4.
        let data = vec![7; FRAME_BYTES_MAX - 24];
        let stat = client.set_data("/big", &data, None).unwrap();
        assert_eq!(stat.data_bytes as usize, data.len());
        assert_eq!(client.get_data("/big", false).unwrap().0.unwrap(), data);
        let more = vec![8; FRAME_BYTES_MAX - 23];
        match client.set_data("/big", &more, None) {
            Err(ClientError::Closed | ClientError::Io(_)) => {}
            other => panic!("a frame over the limit closes the connection, not {other:?}"),
        }
        let (found, stat) = server.client().get_data("/big", false).unwrap();
        assert_eq!((found.unwrap() == data, stat.version), (true, 1));
    });
}

#[test]
fn connections_of_one_address_are_limited() {
    each(|_, site| {
        site.set("maxClientCnxns", 3);
        let server = site.start();
        let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
        assert!(Client::open(server.addr).is_err(), "the fourth is closed");
        clients.pop().unwrap().close().unwrap();
        let mut again = None;
        wait_until("the place is free again", || {
            again = Client::open(server.addr).ok();
            again.is_some()
        });
        clients.iter_mut().for_each(|client| client.ping().unwrap());
    });
}

#[test]
fn four_letter_words_in_any_pieces() {
    each(|_, site| {
        site.set("4lw.commands.whitelist", "*");
        let server = site.start();
        assert_eq!(four_letter(server.addr, "ruok", PATIENCE).unwrap(), b"imok");
        for cut in 1..4 {
            let mut stream = TcpStream::connect(server.addr).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (first, rest) = b"ruok".split_at(cut);
            stream.write_all(first).unwrap();
            // A round trip elsewhere, so that the pieces arrive apart.
            four_letter(server.addr, "isro", PATIENCE).unwrap();
            stream.write_all(rest).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"imok");
        }
        let mut client = server.client();
        client.create("/a", b"x", CreateMode::Persistent).unwrap();
        client.exists("/a", true).unwrap();
        for word in
            ["srvr", "stat", "mntr", "conf", "cons", "envi", "dump", "wchs", "wchc", "wchp", "dirs", "isro"]
        {
            let answer = four_letter(server.addr, word, PATIENCE).unwrap();
            let text = String::from_utf8(answer).unwrap();
            assert!(!text.is_empty() && !text.contains("not executed"), "{word}: {text:?}");
        }
        let mntr = String::from_utf8(four_letter(server.addr, "mntr", PATIENCE).unwrap()).unwrap();
        // Four are there from the start, and the root counts twice, as ZooKeeper keeps it under two names.
        assert!(mntr.contains("zk_znode_count\t6\n"), "{mntr}");
        assert_eq!(four_letter(server.addr, "xxxx", PATIENCE).unwrap(), b"");
    });
}

/// A client that asks and never reads: it is no longer read itself, and costs no more than the bounds of its buffers.
#[test]
fn a_client_that_never_reads_is_held_back() {
    const NODE_BYTES: usize = 512 << 10;
    each(|_, site| {
        let server = site.start();
        let mut normal = server.client();
        normal.create("/big", &vec![1; NODE_BYTES], CreateMode::Persistent).unwrap();
        let before = server.memory_bytes();
        let mut greedy = short_session(&server, 2000);
        for _ in 0..2000 {
            greedy.queue(&Request::GetData { path: "/big", watch: false });
        }
        greedy.flush().unwrap();
        for round in 0..200 {
            normal.set_data("/big", &vec![round as u8; NODE_BYTES], None).unwrap();
        }
        let grown = server.memory_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{} MB for a gigabyte asked for", grown >> 20);
        drop(greedy);
        normal.ping().unwrap();
    });
}

/// Events cannot be held back, only cut off: a watcher that never reads ends disconnected, and the server stays small.
#[test]
fn a_watcher_that_never_reads_is_cut_off() {
    each(|_, site| {
        let server = site.start();
        let mut writer = server.client();
        let name = "n".repeat(200_000);
        let path = format!("/{name}");
        let mut deaf = server.client();
        ok(&mut deaf, &Request::AddWatch { path: "/", mode: WatchMode::PersistentRecursive });
        writer.create(&path, b"", CreateMode::Persistent).unwrap();
        let before = server.memory_bytes();
        // 100 MB of events, more than what may wait.
        for _ in 0..5 {
            for _ in 0..100 {
                writer.queue(&Request::SetData { path: &path, data: Some(b""), version: None });
            }
            writer.flush().unwrap();
            for _ in 0..100 {
                assert!(writer.receive_reply().unwrap().is_ok());
            }
        }
        let grown = server.memory_bytes().saturating_sub(before);
        assert!(grown < 150 << 20, "{} MB", grown >> 20);
        // It was disconnected; what was on the way may still be read.
        loop {
            match deaf.receive(PATIENCE) {
                Ok(Message::Event(_)) => {}
                Err(ClientError::Closed) => break,
                other => panic!("the connection ends, not {other:?}"),
            }
        }
    });
}

/// Before a session a connection costs little, whatever it sends; meanwhile a normal client is served.
#[test]
fn floods_before_the_handshake_cost_little() {
    const CONNECTIONS: usize = 400;
    const BYTES_EACH: u64 = 16 << 10;
    each(|_, site| {
        site.set("nio.sessionlessCnxnTimeout", 60_000);
        let server = site.start();
        let mut normal = server.client();
        normal.create("/a", b"", CreateMode::Persistent).unwrap();
        let before = server.memory_bytes();
        let mut held = Vec::new();
        for number in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(server.addr).unwrap();
            // A handshake announced as large as may be, and never finished.
            stream.write_all(&(16_000u32 - number as u32).to_be_bytes()).unwrap();
            stream.write_all(&vec![0; 12_000]).unwrap();
            held.push(stream);
            if number % 50 == 0 {
                normal.ping().unwrap();
            }
        }
        normal.set_data("/a", b"1", None).unwrap();
        let grown = server.memory_bytes().saturating_sub(before);
        let allowed = CONNECTIONS as u64 * BYTES_EACH + (4 << 20);
        assert!(grown <= allowed, "{grown} bytes for {CONNECTIONS} connections, {allowed} allowed");
        drop(held);
        normal.set_data("/a", b"2", None).unwrap();
    });
}

#[test]
fn garbage_disturbs_nobody() {
    const CONNECTIONS: usize = 300;
    let seed = support::seed("garbage_disturbs_nobody");
    each(|_, site| {
        let mut server = site.start();
        let mut normal = server.client();
        normal.create("/a", b"", CreateMode::Persistent).unwrap();
        let mut rng = Rng::new(seed);
        let mut version = 0;
        for _ in 0..CONNECTIONS {
            let mut bytes = Vec::new();
            if chance(&mut rng, 50) {
                // Past the handshake, so that what follows is read as requests.
                ringkeeper::proto::client::ConnectRequest {
                    protocol_version: 0,
                    zxid_seen: Zxid::ZERO,
                    timeout_ms: 1000,
                    session: SessionId::NONE,
                    password: None,
                    read_only: None,
                }
                .encode_frame(&mut bytes);
            }
            for _ in 0..1 + rng.below(20) {
                let count = rng.below(200) as usize;
                if chance(&mut rng, 80) {
                    bytes.extend_from_slice(&(count as u32 + 8).to_be_bytes());
                    bytes.extend_from_slice(&(rng.next_u64() as u32).to_be_bytes());
                    let op =
                        *pick(&mut rng, &[1, 2, 3, 4, 5, 7, 8, 12, 14, 15, 21, 22, 101, 105, 106, 107, 4711]);
                    bytes.extend_from_slice(&i32::to_be_bytes(op));
                }
                bytes.extend((0..count).map(|_| if rng.below(2) == 0 { 0 } else { rng.next_u64() as u8 }));
            }
            if let Ok(mut stream) = TcpStream::connect(server.addr) {
                let _ = stream.write_all(&bytes);
                held_or_dropped(&mut rng, stream);
            }
            if chance(&mut rng, 20) {
                normal.set_data("/a", b"x", Some(version)).unwrap();
                version += 1;
            }
        }
        assert_eq!(normal.get_data("/a", false).unwrap().1.version, version);
        assert!(server.ended().is_none());
        assert_eq!(server.terminate().code(), Some(0));
        let server = site.start();
        assert_eq!(server.client().get_data("/a", false).unwrap().1.version, version);
    });
}

/// Half of them wait until the server says something or closes.
fn held_or_dropped(rng: &mut Rng, mut stream: TcpStream) {
    if chance(rng, 50) {
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let _ = stream.read(&mut [0; 64]);
    }
}

#[test]
fn silent_connections_are_dropped() {
    each(|_, site| {
        site.set("nio.sessionlessCnxnTimeout", 300);
        let server = site.start();
        let mut normal = server.client();
        let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
        for mut stream in silent {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            match stream.read(&mut [0; 16]) {
                Ok(0) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                other => panic!("closed without a word, not {other:?}"),
            }
        }
        normal.ping().expect("those with a session stay");
    });
}

/// A listing is exactly the state of the zxid in its reply, while children come and go.
#[test]
fn many_children_are_listed_exactly_while_writes_go_on() {
    const CHILDREN: usize = 20_000;
    const WINDOW: usize = 500;
    each(|_, site| {
        let server = &site.start();
        let mut writer = server.client();
        writer.create("/p", b"", CreateMode::Persistent).unwrap();
        // Created and deleted in one order, so that the children at a cversion are known.
        for first in (0..CHILDREN).step_by(WINDOW) {
            let paths: Vec<String> =
                (first..first + WINDOW).map(|number| format!("/p/{number:08}")).collect();
            paths.iter().for_each(|path| {
                writer.queue(&Request::create(path, b"", CreateMode::Persistent));
            });
            writer.flush().unwrap();
            paths.iter().for_each(|_| assert!(writer.receive_reply().unwrap().is_ok()));
        }
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let done = &done;
            for _ in 0..2 {
                scope.spawn(move || {
                    let mut reader = server.client();
                    let mut lists = 0;
                    while !done.load(std::sync::atomic::Ordering::Acquire) || lists == 0 {
                        let Response::Children { children, stat } =
                            ok(&mut reader, &Request::GetChildren2 { path: "/p", watch: false })
                        else {
                            panic!()
                        };
                        // From CHILDREN on each change makes the next number and removes the oldest, in turns.
                        let changes = stat.cversion as usize - CHILDREN;
                        let (made, gone) = (CHILDREN + changes.div_ceil(2), changes / 2);
                        assert_eq!(stat.child_count as usize, children.len());
                        let found: BTreeSet<usize> =
                            children.iter().map(|name| name.parse().unwrap()).collect();
                        assert_eq!(found.len(), children.len(), "a child is listed twice");
                        assert!(found.iter().copied().eq(gone..made), "after {changes} changes");
                        lists += 1;
                    }
                });
            }
            scope.spawn(move || {
                for number in 0..200 {
                    let (new, old) = (format!("/p/{:08}", CHILDREN + number), format!("/p/{number:08}"));
                    writer.queue(&Request::create(&new, b"", CreateMode::Persistent));
                    writer.queue(&Request::Delete { path: &old, version: None });
                    writer.flush().unwrap();
                    for _ in 0..2 {
                        let reply: Reply = writer.receive_reply().unwrap();
                        assert!(reply.is_ok());
                    }
                }
                done.store(true, std::sync::atomic::Ordering::Release);
            });
        });
    });
}

#[test]
fn a_stop_signal_ends_it_within_a_second() {
    each(|_, site| {
        let mut server = site.start();
        let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
        clients[0].create("/a", b"", CreateMode::Persistent).unwrap();
        for client in &mut clients {
            for _ in 0..50 {
                client.queue(&Request::SetData { path: "/a", data: Some(b"x"), version: None });
            }
            client.flush().unwrap();
        }
        let begun = Instant::now();
        let status = server.terminate();
        let took = begun.elapsed();
        assert_eq!(status.code(), Some(0), "{}", server.log());
        assert!(took < Duration::from_secs(1), "{took:?}");
        let mut acknowledged = 0;
        for client in &mut clients {
            while let Ok(reply) = client.receive_reply() {
                acknowledged += i32::from(reply.is_ok());
            }
        }
        let server = site.start();
        let version = server.client().get_data("/a", false).unwrap().1.version;
        assert!(version >= acknowledged, "{acknowledged} were acknowledged, {version} are there");
    });
}

/// What cannot start says why in one line and ends with the code `zkServer.sh` users know.
#[test]
fn what_cannot_start_says_so() {
    let shape = shapes()[0];
    let mut site = Site::new(shape);
    let server = site.start();
    let mut second = Site::new(shape);
    second.set("dataDir", site.path("data").display());
    let (code, said) = second.refused();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("in use by another server") && said.contains(&server.pid().to_string()), "{said}");
    server.client().ping().expect("the first is not disturbed");

    let mut port = Site::new(shape);
    port.set("clientPort", site.port);
    let (code, said) = port.refused();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(&site.port.to_string()), "{said}");

    let mut unwritable = Site::new(shape);
    std::fs::write(unwritable.path("file"), b"").unwrap();
    let under = unwritable.path("file/data");
    unwritable.set("dataDir", under.display());
    let (code, said) = unwritable.refused();
    assert!(code == 3 || code == 2, "{code}: {said}");
    assert!(said.contains("file"), "{said}");

    for (key, value) in
        [("tickTime", "soon"), ("snapCount", ""), ("ringkeeper.io", "magic"), ("jute.maxbuffer", "-5")]
    {
        let mut bad = Site::new(shape);
        bad.line(&format!("{key}={value}"));
        bad.set("tickTime", 500);
        if key == "tickTime" {
            bad.set("tickTime", value);
        }
        if key == "ringkeeper.io" {
            bad.set("ringkeeper.io", value);
        }
        let (code, said) = bad.refused();
        assert_eq!(code, 2, "{key}: {said}");
        assert!(said.contains(key), "{key}: {said}");
    }

    let mut member = Site::new(shape);
    for number in 1..=3 {
        let line = format!("server.{number}=127.0.0.1:2888{number}:3888{number}");
        member.line(&line);
    }
    member.line("initLimit=5").line("syncLimit=5");
    std::fs::create_dir_all(member.path("data")).unwrap();
    std::fs::write(member.path("data/myid"), "one\n").unwrap();
    let (code, said) = member.refused();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("myid"), "{said}");
}
