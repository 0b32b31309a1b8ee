//! What is refused, held back or forgiven: limits over all fronts, throttles, pauses of the process.

use super::*;
use crate::proto::txn::{TxnEntry, kind};
use crate::request::auth::Identities;
use crate::request::prepare::{Prepared, Preparer, Write};

impl World {
    fn metric(&mut self, name: &str) -> String {
        let asker = self.accept(0);
        self.send_bytes(asker, b"mntr");
        self.settle();
        let text = String::from_utf8(self.client(asker).raw.clone()).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is not in {text}"))
    }

    fn errors(&mut self, client: Handle) -> Vec<i32> {
        let replies = self.messages(client).into_iter().map(|message| match message {
            Message::Reply(reply) => reply.err,
            Message::Event(event) => panic!("no event is due: {event:?}"),
        });
        replies.collect()
    }

    fn exists(&self, path: &str) -> bool {
        self.pipeline.database().tree.find(path).is_some()
    }
}

fn all_words(front: &mut FrontOptions) {
    front.words = WordOptions::all();
}

/// Beyond the limit over all fronts a connection gets one request through at a time, and none is lost.
#[test]
fn requests_under_way_are_limited_over_all_fronts() {
    let mut world = World::with(2, |front, _| front.outstanding_max = 3);
    let (first, second) = (world.connect(0), world.connect(1));
    world.call(first, create("/a"));
    world.holding = true;
    let before = world.pipeline.zxid_proposed().0;
    let sets = vec![set("/a", b"1"); 10];
    world.send(first, &sets);
    world.settle();
    assert_eq!(world.pipeline.zxid_proposed().0 - before, 4, "the limit is exceeded by the fourth");
    world.send(second, &sets);
    world.settle();
    assert_eq!(world.pipeline.zxid_proposed().0 - before, 5, "each connection may have one");
    world.holding = false;
    world.make_durable();
    world.settle();
    for client in [first, second] {
        assert_eq!(world.errors(client), [0; 10]);
    }
}

#[test]
fn large_requests_share_a_budget_over_all_fronts() {
    let mut world = World::with(2, |front, _| {
        front.large_request_threshold = Some(1000);
        all_words(front);
    });
    let clients: Vec<Handle> = (0..6).map(|n| world.connect(n % 2)).collect();
    world.call(clients[0], create("/a"));
    world.holding = true;
    let (large, small) = ([1; 2000], [1; 900]);
    world.send(clients[0], &[set("/a", &large)]);
    world.send(clients[1], &[set("/a", &large)]);
    world.send(clients[2], &[set("/a", &small)]);
    // Only its length is there, and it is too much already.
    world.send_bytes(clients[3], &1500i32.to_be_bytes());
    world.settle();
    let closed: Vec<bool> =
        clients.iter().map(|client| world.clients[&(client.front, client.conn)].closed).collect();
    assert_eq!(closed, [false, true, false, true, false, false]);
    world.holding = false;
    world.make_durable();
    world.settle();
    assert_eq!((world.errors(clients[0]), world.errors(clients[2])), (vec![0], vec![0]));
    // What was answered has given its bytes back, and so does a read, which is under way for no time at all.
    assert!(world.call(clients[4], set("/a", &large)).is_ok());
    assert!(world.call(clients[5], set("/a", &large)).is_ok());
    assert_eq!(world.metric("large_requests_rejected"), "2");
}

/// Tokens are drawn before anything else of a handshake is looked at, and who gets none hears nothing.
#[test]
fn handshakes_draw_tokens() {
    let mut world = World::with(2, |front, pipeline| {
        front.connection_throttle = true;
        all_words(front);
        pipeline.connection_throttle = ConnectionThrottleOptions {
            tokens_max: 4,
            fill_time: Duration::from_millis(100),
            open_weight: 3,
            renew_weight: 2,
            ..ConnectionThrottleOptions::default()
        };
    });
    let owner = world.connect(0);
    let session = world.client(owner).connected.unwrap();
    let turned_away = |world: &mut World, session, password: &[u8]| {
        let client = world.accept(1);
        world.shake_hands(client, session, password);
        world.settle();
        let client = world.client(client);
        client.closed && client.raw.is_empty()
    };
    assert!(turned_away(&mut world, SessionId::NONE, &[0; 16]));
    // Not even that the password is wrong.
    assert!(turned_away(&mut world, session.session, &[7; 16]));
    world.advance_ms(100);
    assert!(turned_away(&mut world, SessionId::NONE, &[0; 16]), "a new session costs more");
    let again = world.accept(1);
    world.shake_hands(again, session.session, &session.password);
    world.settle();
    assert_eq!(world.client(again).connected.unwrap().session, session.session);
    assert!(world.call(again, create("/a")).is_ok());
    assert_eq!(world.metric("connection_rejected"), "3");
    assert_eq!(world.metric("max_connection_token_deficit"), "4");
    // Two that were admitted count.
    assert_eq!(world.metric("connection_request_count"), "2");
}

/// A request that waited too long is answered without being done, and takes no zxid; those behind it go on.
#[test]
fn a_request_that_waited_too_long_is_not_done() {
    let mut world = World::with(1, |front, pipeline| {
        all_words(front);
        pipeline.request_throttle.requests_max = 1;
        pipeline.request_throttle.op_wait_max = Duration::from_millis(100);
    });
    let (first, second) = (world.connect(0), world.connect(0));
    world.holding = true;
    world.send(first, &[create("/a")]);
    world.settle();
    world.send(second, &[create("/b"), Request::Ping]);
    world.settle();
    world.advance_ms(101);
    world.send(second, &[create("/c")]);
    world.holding = false;
    world.make_durable();
    world.settle();
    let zxid = world.pipeline.database().zxid_applied();
    assert_eq!(zxid, Zxid(4), "two sessions, /a and /c");
    let messages = world.messages(second);
    let replies: Vec<(i64, i32)> = messages
        .iter()
        .map(|message| match message {
            Message::Reply(reply) => (reply.zxid.0, reply.err),
            Message::Event(event) => panic!("no event is due: {event:?}"),
        })
        .collect();
    assert_eq!(replies, [(3, ErrorCode::ThrottledOp.code()), (3, 0), (4, 0)]);
    assert!(world.exists("/a") && !world.exists("/b") && world.exists("/c"));
    assert_eq!(world.metric("throttled_ops"), "1");
}

/// While there is no room, requests of connections that are gone make none wait.
#[test]
fn requests_of_connections_that_are_gone_are_dropped() {
    let mut world = World::with(2, |front, pipeline| {
        all_words(front);
        pipeline.request_throttle.requests_max = 1;
    });
    let (first, leaver, stayer) = (world.connect(0), world.connect(1), world.connect(1));
    world.holding = true;
    world.send(first, &[create("/a")]);
    world.settle();
    world.send(leaver, &[create("/b"), create("/c")]);
    world.send(stayer, &[create("/d")]);
    world.settle();
    world.hang_up(leaver);
    world.settle();
    // The stall is looked at anew after its time.
    world.advance_ms(101);
    world.settle();
    world.holding = false;
    world.make_durable();
    world.settle();
    assert_eq!(world.errors(stayer), [0]);
    assert!(world.exists("/a") && world.exists("/d") && !world.exists("/b") && !world.exists("/c"));
    assert_eq!(world.metric("stale_requests_dropped"), "2");
    assert_eq!(world.metric("request_throttle_wait_count"), "2");
    assert_eq!(world.metric("outstanding_requests"), "0");
}

/// A connection that lost a request loses all that came after it, and is told so by its end.
#[test]
fn nothing_is_done_behind_a_request_that_was_dropped() {
    let mut world = World::with(1, |_, pipeline| {
        pipeline.request_throttle.requests_max = 1;
        pipeline.request_throttle.stale_latency_check = true;
    });
    let (first, second) = (world.connect(0), world.connect(0));
    world.holding = true;
    world.send(first, &[create("/a")]);
    world.settle();
    world.send(second, &[create("/b")]);
    world.settle();
    world.pass_ms(2000);
    world.send(second, &[create("/c")]);
    // Now the first has waited for longer than its session may be silent, and not the second.
    world.pass_ms(2500);
    world.holding = false;
    world.make_durable();
    world.settle();
    assert!(world.client(second).closed && world.messages(second).is_empty());
    assert!(world.exists("/a") && !world.exists("/b") && !world.exists("/c"));
}

/// After a pause of the process every session has what it had left before, with a connection or without (O12).
#[test]
fn a_pause_ends_no_session() {
    let mut world = World::new(1);
    let (owner, left) = (world.connect(0), world.connect(0));
    let session = world.client(left).connected.unwrap();
    world.call(left, ephemeral("/e"));
    world.hang_up(left);
    world.settle();
    world.pass_ms(3500);
    world.advance_ms(60_000);
    world.settle();
    assert!(!world.client(owner).closed && world.exists("/e"));
    let back = world.accept(0);
    world.shake_hands(back, session.session, &session.password);
    world.settle();
    assert_eq!(world.client(back).connected.unwrap().session, session.session);
    assert!(world.call(owner, Request::Ping).is_ok());
    // In time that passes as it should, silence ends them.
    world.pass_ms(5000);
    assert!(world.client(owner).closed && world.client(back).closed && !world.exists("/e"));
}

/// A session's end must fit into one transaction, so the ephemeral node that would make it too large is refused (O13).
///
/// Method: fill a session up to the last node that fits, give room back in every way there is, and end it.
#[test]
fn a_session_gets_no_more_nodes_than_its_end_can_name() {
    let entry_bytes_max = 400;
    let mut world = World::with(1, |_, pipeline| pipeline.prepare.entry_bytes_max = entry_bytes_max);
    let (client, other) = (world.connect(0), world.connect(0));
    // Header 32, count 4, digest 12; a path of four bytes takes eight.
    let fits = (entry_bytes_max - 48) / 8;
    let paths: Vec<String> = (0..=fits).map(|n| format!("/e{n:02}")).collect();
    let too_large = ErrorCode::MarshallingError.code();
    // Pipelined: what is proposed and not yet applied counts.
    world.holding = true;
    let creates: Vec<Request<'_>> = paths.iter().map(|path| ephemeral(path)).collect();
    world.send(client, &creates);
    world.settle();
    world.holding = false;
    world.make_durable();
    world.settle();
    let errors = world.errors(client);
    assert!(errors[..fits].iter().all(|err| *err == 0), "{errors:?}");
    assert_eq!(errors[fits..], [too_large]);
    // Another session has room of its own, and a node that outlives its session takes none.
    assert!(world.call(other, ephemeral("/o00")).is_ok());
    assert!(world.call(client, create("/p00")).is_ok());
    // A multi that fails gives back what it took and takes back what it gave.
    let failing = [
        Request::Delete { path: "/e00", version: None },
        ephemeral("/f00"),
        Request::Check { path: "/no", version: None },
    ];
    world.call(client, Request::Multi(&failing));
    assert_eq!(world.call(client, ephemeral("/f00")).err, too_large);
    let trading = [Request::Delete { path: "/e00", version: None }, ephemeral("/f00")];
    let reply = world.call(client, Request::Multi(&trading));
    assert!(
        matches!(&reply.response, Response::Multi(results) if !matches!(results[0], MultiResult::Failed { .. }))
    );
    assert_eq!(world.call(client, ephemeral("/g00")).err, too_large);
    // A node of its own that another deletes makes room, too.
    assert!(world.call(other, Request::Delete { path: "/f00", version: None }).is_ok());
    assert!(world.call(client, ephemeral("/g00")).is_ok());
    // After a restart the nodes there are count again.
    assert_eq!(prepared_after_restart(&world, client, "/h00", entry_bytes_max), kind::ERROR);
    assert_eq!(prepared_after_restart(&world, client, "/h00", entry_bytes_max + 8), kind::CREATE);
    world.send(client, &[Request::CloseSession]);
    world.settle();
    assert!(
        world.client(client).closed && !world.exists("/e01") && !world.exists("/g00") && world.exists("/o00")
    );
    assert!(world.call(other, ephemeral("/o01")).is_ok());
}

/// The kind of transaction that a new preparer makes of an ephemeral create.
fn prepared_after_restart(world: &World, client: Handle, path: &str, entry_bytes_max: usize) -> i32 {
    let options = PrepareOptions {
        auth: AuthOptions::default(),
        extended_types: false,
        enforce_quota: false,
        digest: true,
        reconfig: false,
        entry_bytes_max,
    };
    let database = world.pipeline.database();
    let mut preparer = Preparer::new(options, database);
    let mut frame = Vec::new();
    Conversation::default().submit(&ephemeral(path), &mut frame);
    let write = Write {
        lease: Default::default(),
        session: world.clients[&(client.front, client.conn)].connected.unwrap().session,
        cxid: 1,
        op: OpCode::Create,
        // Behind the length and the request's header.
        body: &frame[12..],
        identities: &Identities::new("127.0.0.1".parse().unwrap()),
    };
    let mut entry = Vec::new();
    let prepared = preparer.write(database, &write, world.now.wall_ms, &mut entry);
    assert!(matches!(prepared, Prepared::Entry { .. }), "{prepared:?}");
    TxnEntry::decode(&entry).unwrap().header.kind
}
