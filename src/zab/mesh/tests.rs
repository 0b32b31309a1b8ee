use super::*;
use crate::proto::election::{NOTIFICATION_BYTES_MAX, ServerState};
use crate::stdx::rng::Rng;
use crate::types::Zxid;

const MS: Duration = Duration::from_millis(1);

fn membership() -> Membership {
    let text =
        "server.1=h1:11:12\nserver.2=h2:21:22\nserver.3=h3:31:32|alt3:33:34\nserver.4=h4:41:42:observer";
    Membership::parse(text.as_bytes()).unwrap()
}

fn vote(round: i64) -> Notification {
    Notification { state: ServerState::Looking, leader: 1, zxid: Zxid(7), round, peer_epoch: 1, version: 2 }
}

/// The mesh of server 2, and what it owes.
struct Bench {
    mesh: Mesh,
    now: Instant,
    accepted: u32,
    work: Vec<PeerWork>,
    heard: Vec<Heard>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(MeshOptions::new(ServerId(2), Duration::from_secs(10)))
    }

    fn with(options: MeshOptions) -> Bench {
        Bench {
            mesh: Mesh::new(options, &membership()),
            now: Instant::from_ms(1),
            accepted: PeerConn::ACCEPTED,
            work: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn event(&mut self, conn: PeerConn, event: PeerEvent<'_>) {
        self.mesh.event(self.now, conn, event);
        self.mesh.drain(&mut self.work, &mut self.heard);
    }

    fn send(&mut self, to: u8, round: i64) {
        self.mesh.send(self.now, ServerId(to), &vote(round));
        self.mesh.drain(&mut self.work, &mut self.heard);
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        if self.mesh.next_timer().is_some_and(|at| at <= self.now) {
            self.mesh.on_timer(self.now);
        }
        self.mesh.drain(&mut self.work, &mut self.heard);
    }

    fn accept(&mut self) -> PeerConn {
        let conn = PeerConn(self.accepted);
        self.accepted += 1;
        let from = SocketAddr::from(([127, 0, 0, 1], 40_000));
        self.event(conn, PeerEvent::Accepted { port: PeerPort::Election, from });
        conn
    }

    fn accept_from(&mut self, sid: i64) -> PeerConn {
        let conn = self.accept();
        let message = InitialMessage { sid, addresses: vec![("there".into(), 99)] };
        self.event(conn, PeerEvent::Received(&message.to_vec(false)));
        conn
    }

    fn took(&mut self) -> Vec<PeerWork> {
        std::mem::take(&mut self.work)
    }

    fn heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// The one dial owed.
    fn dialled(&mut self) -> (PeerConn, ServerId, Vec<PeerAddress>) {
        let work = self.took();
        let [PeerWork::Dial { conn, port: PeerPort::Election, to, addresses }] = &work[..] else {
            panic!("{work:?}");
        };
        (*conn, *to, addresses.clone())
    }

    fn connect_to_1(&mut self) -> PeerConn {
        self.send(1, 1);
        let (conn, ..) = self.dialled();
        self.event(conn, PeerEvent::Connected);
        let work = self.took();
        let [PeerWork::Send { bytes, .. }] = &work[..] else { panic!("{work:?}") };
        self.event(conn, PeerEvent::Sent(bytes.len()));
        assert_eq!(self.heard(), [Heard::Connected(ServerId(1))]);
        conn
    }
}

fn address(host: &str, port: u16) -> PeerAddress {
    PeerAddress { host: host.into(), port }
}

fn notified(from: u8, round: i64) -> Heard {
    Heard::Notification { from: ServerId(from), notification: vote(round), membership: None }
}

#[test]
fn the_larger_id_keeps_what_it_dialled() {
    let mut bench = Bench::new();
    bench.send(1, 1);
    let (conn, to, addresses) = bench.dialled();
    assert_eq!((to, addresses), (ServerId(1), vec![address("h1", 12)]));
    assert!(!conn.is_accepted() && conn.0 % 2 == 0);
    // One dial is enough.
    bench.send(1, 2);
    bench.mesh.dial_all(bench.now);
    bench.mesh.drain(&mut bench.work, &mut bench.heard);
    let to_3 = bench.dialled();
    assert_eq!((to_3.1, to_3.2), (ServerId(3), vec![address("h3", 32), address("alt3", 34)]));
    bench.event(conn, PeerEvent::Connected);
    let initial = InitialMessage { sid: 2, addresses: vec![("h2".into(), 22)] }.to_vec(false);
    assert_eq!(bench.took(), [PeerWork::Send { conn, bytes: initial.clone().into() }]);
    assert_eq!(bench.heard(), [Heard::Connected(ServerId(1))]);
    assert!(bench.mesh.is_connected(ServerId(1)));
    // The smaller one introduces itself, closes, and waits.
    bench.event(to_3.0, PeerEvent::Connected);
    let conn = to_3.0;
    assert_eq!(bench.took(), [PeerWork::Send { conn, bytes: initial.into() }, PeerWork::Close { conn }]);
    assert!(bench.heard().is_empty() && !bench.mesh.owns(conn));
    let accepted = bench.accept_from(3);
    assert_eq!(bench.heard(), [Heard::Connected(ServerId(3))]);
    assert!(bench.took().is_empty() && bench.mesh.owns(accepted));
}

#[test]
fn a_smaller_id_is_dialled_back() {
    let mut bench = Bench::new();
    let accepted = bench.accept_from(1);
    let work = bench.took();
    let [PeerWork::Close { conn }, PeerWork::Dial { conn: dial, addresses, .. }] = &work[..] else {
        panic!("{work:?}")
    };
    assert_eq!((*conn, addresses), (accepted, &vec![address("h1", 12), address("there", 99)]));
    bench.event(*dial, PeerEvent::Connected);
    bench.took();
    // Crossed attempts do not break what just began.
    let crossed = bench.accept_from(1);
    assert_eq!(bench.took(), [PeerWork::Close { conn: crossed }]);
    // Later it means that the other side has lost it.
    bench.wait(300 * MS);
    let again = bench.accept_from(1);
    let work = bench.took();
    assert!(
        matches!(&work[..], [PeerWork::Close { conn: a }, PeerWork::Close { conn: b }, PeerWork::Dial { .. }]
            if *a == again && b == dial),
        "{work:?}"
    );
    assert_eq!(bench.heard(), [Heard::Connected(ServerId(1))]);
}

#[test]
fn an_accepted_connection_replaces_the_old_one_and_ends_the_dial() {
    let mut bench = Bench::new();
    bench.send(3, 1);
    let (dial, ..) = bench.dialled();
    let first = bench.accept_from(3);
    assert_eq!(bench.took(), [PeerWork::Close { conn: dial }]);
    let second = bench.accept_from(3);
    assert_eq!(bench.took(), [PeerWork::Close { conn: first }]);
    assert_eq!(bench.heard(), [Heard::Connected(ServerId(3)), Heard::Connected(ServerId(3))]);
    // What still comes of the others means nothing.
    for conn in [dial, first] {
        bench.event(conn, PeerEvent::Connected);
        bench.event(conn, PeerEvent::Received(b"garbage that is long enough to be seen"));
        bench.event(conn, PeerEvent::Sent(9));
        bench.event(conn, PeerEvent::Closed);
    }
    assert!(bench.took().is_empty() && bench.heard().is_empty());
    bench.event(second, PeerEvent::Closed);
    assert_eq!(bench.heard(), [Heard::Lost(ServerId(3))]);
}

#[test]
fn the_newest_message_waits_alone() {
    let mut bench = Bench::new();
    let conn = bench.connect_to_1();
    let frame = |round| Bytes::from(vote(round).frame(&membership().to_text()));
    bench.send(1, 1);
    assert_eq!(bench.took(), [PeerWork::Send { conn, bytes: frame(1) }]);
    for round in 2..=9 {
        bench.send(1, round);
    }
    bench.event(conn, PeerEvent::Sent(frame(1).len() - 1));
    assert!(bench.took().is_empty());
    bench.event(conn, PeerEvent::Sent(1));
    assert_eq!(bench.took(), [PeerWork::Send { conn, bytes: frame(9) }]);
    bench.event(conn, PeerEvent::Sent(frame(9).len()));
    assert!(bench.took().is_empty());
}

#[test]
fn frames_are_read_however_they_are_cut() {
    let mut stream = InitialMessage { sid: 3, addresses: vec![("h3".into(), 32)] }.to_vec(false);
    for round in 1..=5 {
        stream.extend_from_slice(&vote(round).frame(&membership().to_text()));
    }
    for step in [1, 2, 3, 7, 50, 300, stream.len()] {
        let mut bench = Bench::new();
        let conn = bench.accept();
        for part in stream.chunks(step) {
            bench.event(conn, PeerEvent::Received(part));
        }
        let mut expected = vec![Heard::Connected(ServerId(3))];
        expected.extend((1..=5).map(|round| notified(3, round)));
        assert_eq!(bench.heard(), expected, "{step} bytes at a time");
    }
}

#[test]
fn whoever_does_not_belong_is_closed() {
    for sid in [0, 2, 5, 255, 256, i64::MAX] {
        let mut bench = Bench::new();
        let conn = bench.accept_from(sid);
        assert_eq!(bench.took(), [PeerWork::Close { conn }], "{sid}");
        assert!(!bench.mesh.owns(conn) && bench.heard().is_empty());
    }
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 30],
        b"\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x03\0\0\x10\0",
    ] {
        let mut bench = Bench::new();
        let conn = bench.accept();
        bench.event(conn, PeerEvent::Received(garbage));
        assert_eq!(bench.took(), [PeerWork::Close { conn }], "{garbage:?}");
        assert!(!bench.mesh.owns(conn));
    }
}

#[test]
fn wrong_frames_close_the_connection() {
    let mut bad =
        vec![vec![0, 0, 0, 0], vec![0xff; 4], (NOTIFICATION_BYTES_MAX as i32 + 1).to_be_bytes().to_vec()];
    bad.push(vote(1).frame("server.1=h:1:2:observer\nversion=0"));
    bad.push(vote(1).frame("nonsense"));
    bad.push([&36i32.to_be_bytes()[..], &[0; 36]].concat());
    let mut wrong_state = vote(1).frame("");
    wrong_state[7] = 9;
    bad.push(wrong_state);
    for bytes in bad {
        let mut bench = Bench::new();
        let conn = bench.accept_from(3);
        bench.heard();
        // What stood before it counts.
        let good = vote(1).frame("");
        bench.event(conn, PeerEvent::Received(&[&good[..], &bytes].concat()));
        assert_eq!(bench.took(), [PeerWork::Close { conn }], "{bytes:?}");
        assert_eq!(bench.heard(), [notified(3, 1), Heard::Lost(ServerId(3))]);
        assert!(!bench.mesh.owns(conn));
    }
}

#[test]
fn a_newer_membership_is_handed_over_once() {
    let mut bench = Bench::new();
    let conn = bench.accept_from(3);
    bench.heard();
    let newer = format!("{}5", membership().to_text());
    for expected in [true, false] {
        bench.event(conn, PeerEvent::Received(&vote(1).frame(&newer)));
        let heard = bench.heard();
        let [Heard::Notification { membership, .. }] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(membership.is_some(), expected);
    }
    bench.event(conn, PeerEvent::Received(&vote(1).frame(&membership().to_text())));
    assert_eq!(bench.heard(), [notified(3, 1)]);
}

#[test]
fn those_that_stay_silent_are_closed_in_time_and_bounded_in_number() {
    let mut bench = Bench::new();
    let first = bench.accept();
    bench.wait(MS);
    for _ in 1..PENDING_MAX {
        bench.accept();
    }
    assert!(bench.took().is_empty());
    bench.accept();
    assert_eq!(bench.took(), [PeerWork::Close { conn: first }]);
    assert_eq!(bench.mesh.pending.len(), PENDING_MAX);
    assert_eq!(bench.mesh.next_timer(), Some(bench.now + Duration::from_secs(10)));
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.took().len(), PENDING_MAX);
    assert!(bench.mesh.pending.is_empty() && bench.mesh.next_timer().is_none());
}

#[test]
fn failed_dials_wait_longer_each_time_and_end() {
    let mut bench = Bench::new();
    bench.send(1, 1);
    let begun = bench.now;
    let mut attempts = 0;
    loop {
        if let [PeerWork::Dial { conn, .. }] = bench.took()[..] {
            attempts += 1;
            bench.event(conn, PeerEvent::Closed);
        }
        match bench.mesh.next_timer() {
            Some(at) => bench.wait(at.since(bench.now)),
            None => break,
        }
    }
    // 50, 100, 200, 400, 800 ms, then each second until ten are over.
    assert!((12..=16).contains(&attempts), "{attempts}");
    assert!(bench.now.since(begun) <= Duration::from_secs(12));
    assert_eq!(bench.mesh.unreachable().collect::<Vec<_>>(), [(ServerId(1), attempts)]);
    assert!(bench.heard().is_empty());
    // It introduces itself: no waiting any more.
    bench.accept_from(1);
    assert!(matches!(bench.took()[..], [PeerWork::Close { .. }, PeerWork::Dial { .. }]));
}

#[test]
fn a_dial_has_a_deadline() {
    let mut bench = Bench::new();
    bench.send(1, 1);
    let (conn, ..) = bench.dialled();
    assert_eq!(bench.mesh.next_timer(), Some(bench.now + Duration::from_secs(5)));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.took(), [PeerWork::Close { conn }]);
    bench.wait(50 * MS);
    let (again, ..) = bench.dialled();
    assert_ne!(again, conn);
}

#[test]
fn a_silent_connection_is_made_anew_while_looking() {
    let mut bench = Bench::new();
    let conn = bench.connect_to_1();
    let mut waited = 0;
    let work = loop {
        bench.send(1, 1);
        let bytes = bench.took().len();
        if bytes > 0 {
            bench.event(conn, PeerEvent::Sent(10_000));
        }
        bench.mesh.dial_all(bench.now);
        bench.mesh.drain(&mut bench.work, &mut bench.heard);
        bench.work.retain(|work| !matches!(work, PeerWork::Dial { to: ServerId(3), .. }));
        if !bench.work.is_empty() {
            break bench.took();
        }
        bench.wait(500 * MS);
        waited += 1;
    };
    assert!(
        matches!(&work[..], [PeerWork::Close { conn: c }, PeerWork::Dial { .. }] if *c == conn),
        "{work:?}"
    );
    assert_eq!(waited, 6);
    assert_eq!(bench.heard(), [Heard::Lost(ServerId(1))]);
    // Silence after the answer of one that has a leader is none.
    let mut bench = Bench::new();
    bench.connect_to_1();
    bench.send(1, 1);
    bench.wait(Duration::from_secs(60));
    bench.send(1, 2);
    bench.took();
    bench.mesh.dial_all(bench.now);
    assert!(bench.mesh.is_connected(ServerId(1)));
}

#[test]
fn members_come_and_go() {
    let mut bench = Bench::new();
    let conn = bench.accept_from(3);
    bench.heard();
    let text = "server.2=h2:21:22\nserver.1=new1:1:2\nserver.7=h7:71:72\nversion=9";
    let next = Membership::parse(text.as_bytes()).unwrap();
    bench.mesh.set_membership(&membership(), Some(&next));
    bench.mesh.drain(&mut bench.work, &mut bench.heard);
    assert!(bench.took().is_empty());
    bench.send(1, 1);
    assert_eq!(bench.dialled().2, [address("h1", 12), address("new1", 2)]);
    bench.mesh.set_membership(&next, None);
    bench.mesh.drain(&mut bench.work, &mut bench.heard);
    assert_eq!(bench.took(), [PeerWork::Close { conn }]);
    let stranger = bench.accept_from(3);
    assert_eq!(bench.took(), [PeerWork::Close { conn: stranger }]);
    bench.accept_from(7);
    assert_eq!(bench.heard(), [Heard::Connected(ServerId(7))]);
}

#[test]
fn strangers_may_ask_where_that_is_allowed() {
    let mut bench = Bench::with(MeshOptions { strangers_max: 1, ..MeshOptions::new(ServerId(2), 10 * MS) });
    let conn = bench.accept_from(9);
    assert_eq!(bench.heard(), [Heard::Connected(ServerId(9))]);
    let second = bench.accept_from(10);
    assert_eq!(bench.took(), [PeerWork::Close { conn: second }]);
    bench.event(conn, PeerEvent::Received(&vote(1).frame("")));
    bench.send(9, 3);
    assert!(matches!(bench.took()[..], [PeerWork::Send { .. }]));
    bench.event(conn, PeerEvent::Closed);
    bench.accept_from(10);
    bench.heard();
    assert_eq!(bench.mesh.peers.len(), 4);
}

#[test]
fn a_wildcard_is_never_announced() {
    let text = "server.1=h1:11:12\nserver.2=0.0.0.0:21:22";
    let mut bench = Bench::new();
    bench.mesh.set_membership(&Membership::parse(text.as_bytes()).unwrap(), None);
    bench.send(1, 1);
    let (conn, ..) = bench.dialled();
    bench.event(conn, PeerEvent::Connected);
    assert_eq!(bench.took(), [PeerWork::Send { conn, bytes: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 2]) }]);
}

/// Anything at all happens on connections; nothing panics, and what is held stays within its bounds.
#[test]
fn nothing_that_arrives_is_fatal() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut bench =
            Bench::with(MeshOptions { strangers_max: 2, ..MeshOptions::new(ServerId(2), 100 * MS) });
        let mut conns = Vec::new();
        for _ in 0..2000 {
            match rng.below(12) {
                0..=2 => conns.push(bench.accept()),
                3 => {
                    let sid = rng.below(8) as i64 - 1;
                    conns.push(bench.accept_from(sid));
                }
                4 => bench.send(rng.below(6) as u8, rng.below(9) as i64),
                5 => bench.mesh.dial_all(bench.now),
                6 => bench.wait(Duration::from_millis(rng.below(200))),
                _ if conns.is_empty() => {}
                kind => {
                    let index = rng.below(conns.len() as u64) as usize;
                    let conn = conns[index];
                    let mut bytes = match rng.below(4) {
                        0 => vote(rng.below(5) as i64).frame(&membership().to_text()),
                        1 => InitialMessage { sid: rng.below(6) as i64, addresses: vec![("a".into(), 1)] }
                            .to_vec(rng.below(2) == 0),
                        2 => (0..rng.below(100)).map(|_| rng.next_u64() as u8).collect(),
                        _ => [&[0, 8, 0, 0][..], &vec![0; 100_000]].concat(),
                    };
                    if rng.below(3) == 0 && !bytes.is_empty() {
                        let at = rng.below(bytes.len() as u64) as usize;
                        bytes[at] ^= 1 << rng.below(8);
                        bytes.truncate(at + rng.below(20) as usize);
                    }
                    match kind {
                        7 => bench.event(conn, PeerEvent::Closed),
                        8 => bench.event(conn, PeerEvent::Sent(rng.below(2000) as usize)),
                        9 => bench.event(conn, PeerEvent::Connected),
                        _ => bench.event(conn, PeerEvent::Received(&bytes)),
                    }
                }
            }
            for work in bench.took() {
                if let PeerWork::Dial { conn, .. } = work {
                    conns.push(conn);
                }
            }
            let mesh = &bench.mesh;
            assert!(mesh.pending.len() <= PENDING_MAX && mesh.peers.len() <= 3 + 2);
            for (conn, id) in &mesh.owners {
                let peer = &mesh.peers[id];
                let is_link = peer.link.as_ref().is_some_and(|link| link.conn == *conn);
                assert!(is_link != peer.dial.as_ref().is_some_and(|dial| dial.conn == *conn));
            }
            bench.heard();
        }
    }
}
