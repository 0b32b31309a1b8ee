//! Long lists, read in slices while writes go on, and large data, sent from where it lies.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::node::front::{LEND_BYTES_MIN, LIST_SLICE_MAX};
use crate::stdx::hash::split_mix;
use crate::tree::PINS_MAX;

fn list(path: &str, watch: bool) -> Request<'_> {
    Request::GetChildren2 { path, watch }
}

/// `/list` with this many children; gives their names.
fn make_list(world: &mut World, client: Handle, count: usize) -> BTreeSet<String> {
    assert!(world.call(client, create("/list")).is_ok());
    let names: BTreeSet<String> = (0..count).map(|number| format!("child-{number}")).collect();
    for name in &names {
        world.send(client, &[create(&format!("/list/{name}"))]);
    }
    world.settle();
    assert_eq!(world.messages(client).len(), count);
    names
}

fn names_of(message: &Message) -> (Zxid, BTreeSet<String>) {
    let Message::Reply(Reply { zxid, response: Response::Children { children, stat }, .. }) = message else {
        panic!("a list should have come, not {message:?}");
    };
    let names: BTreeSet<String> = children.iter().cloned().collect();
    assert_eq!(names.len(), children.len(), "a name came twice");
    assert_eq!(stat.child_count as usize, children.len());
    (*zxid, names)
}

/// No turn reads more than a slice, whoever asks for how much, and another connection is answered in each of them.
#[test]
fn a_long_list_takes_a_slice_a_turn_and_others_go_on() {
    let mut world = World::new(1);
    let (writer, other) = (world.connect(0), world.connect(0));
    let askers = [world.connect(0), world.connect(0), world.connect(0)];
    let count = 5 * LIST_SLICE_MAX + 1;
    let names = make_list(&mut world, writer, count);
    for asker in askers {
        world.send(asker, &[list("/list", false), get("/list"), Request::Ping]);
    }
    let mut turns = 1;
    while askers.iter().any(|&asker| world.client(asker).messages.len() < 3) {
        world.send(other, &[get("/list")]);
        world.turn();
        turns += 1;
        assert_eq!(world.messages(other).len(), 1, "in turn {turns}");
    }
    assert!(turns * LIST_SLICE_MAX >= askers.len() * count, "{turns} turns");
    assert!(turns <= 2 * askers.len() * 6, "{turns} turns");
    for asker in askers {
        let messages = world.messages(asker);
        assert_eq!(names_of(&messages[0]).1, names);
        assert!(matches!(&messages[1], Message::Reply(Reply { response: Response::Data { .. }, .. })));
    }
}

/// Whatever is created and deleted while it is read, a list is that of its reply's zxid, and its watch fires for the first change after.
///
/// Method: random creates and deletes, in some rounds rarely, in some in every turn, so that lists are finished, begun anew, and made by
/// the pipeline; the list at every zxid is kept beside.
#[test]
fn a_long_list_is_exact_while_it_changes() {
    let mut random = 7;
    for round in 0..24 {
        let mut world = World::new(2);
        let (writer, asker) = (world.connect(0), world.connect(1));
        let mut names = make_list(&mut world, writer, 4 * LIST_SLICE_MAX);
        let mut states: BTreeMap<Zxid, BTreeSet<String>> = BTreeMap::new();
        states.insert(world.pipeline.database().zxid_applied(), names.clone());
        let turns_between = 1 + round % 8;
        world.send(asker, &[list("/list", true)]);
        for turn in 0..64 {
            if turn % turns_between == 0 {
                let name = format!("child-{}", split_mix(&mut random) % (5 * LIST_SLICE_MAX as u64));
                let path = format!("/list/{name}");
                if names.remove(&name) {
                    world.send(writer, &[Request::Delete { path: &path, version: None }]);
                } else {
                    names.insert(name);
                    world.send(writer, &[create(&path)]);
                }
                while world.client(writer).messages.is_empty() {
                    world.turn();
                }
                let messages = world.messages(writer);
                let Message::Reply(reply) = &messages[0] else { panic!("no event is due") };
                assert!(reply.is_ok());
                states.insert(reply.zxid, names.clone());
            } else {
                world.turn();
            }
        }
        world.settle();
        let messages = world.messages(asker);
        let (zxid, listed) = names_of(&messages[0]);
        let (_, expected) = states.range(..=zxid).next_back().expect("the list was there");
        assert_eq!(&listed, expected, "round {round}, list of {zxid}");
        let first_after = states.range(Zxid(zxid.0 + 1)..).next().expect("changes went on");
        assert_eq!(messages[1..], [event(first_after.0.0, EventType::NodeChildrenChanged, "/list")]);
    }
}

#[test]
fn a_long_list_ends_with_its_node_or_its_connection() {
    let mut world = World::new(1);
    let (writer, asker, leaver) = (world.connect(0), world.connect(0), world.connect(0));
    let names = make_list(&mut world, writer, 12 * LIST_SLICE_MAX);
    world.send(asker, &[list("/list", true), Request::Ping]);
    world.send(leaver, &[list("/list", true)]);
    world.turn();
    world.hang_up(leaver);
    let paths: Vec<String> = names.iter().map(|name| format!("/list/{name}")).collect();
    let mut deletes: Vec<Request<'_>> =
        paths.iter().map(|path| Request::Delete { path, version: None }).collect();
    deletes.push(Request::Delete { path: "/list", version: None });
    world.send(writer, &[Request::Multi(&deletes)]);
    world.settle();
    let messages = world.messages(asker);
    let [Message::Reply(list), Message::Reply(ping)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((list.err, ping.err), (ErrorCode::NoNode.code(), 0));
    assert_eq!(list.zxid, world.pipeline.database().zxid_applied());
}

fn large(seed: u8) -> Vec<u8> {
    (0..LEND_BYTES_MIN + 1000).map(|at| (at / 7) as u8 ^ seed).collect()
}

/// Lets `client` take its output in pieces of `bytes_max`, until no more comes.
fn take_in_pieces(world: &mut World, client: Handle, bytes_max: usize, before_each: impl Fn(&mut World)) {
    loop {
        before_each(world);
        let front = &mut world.fronts[client.front];
        let mut piece = Vec::new();
        for slice in front.output_slices(client.conn) {
            let count = slice.len().min(bytes_max - piece.len());
            piece.extend_from_slice(&slice[..count]);
        }
        if piece.is_empty() {
            front.turn(world.now);
            if front.output(client.conn).is_empty() {
                return;
            }
        }
        front.sent(client.conn, piece.len());
        let found = world.client(client);
        found.raw.extend_from_slice(&piece);
        found.conversation.received(&piece);
        while let Some(incoming) = found.conversation.next_incoming().unwrap() {
            let Incoming::Message(message) = incoming else { panic!("connected before") };
            found.messages.push(message);
        }
    }
}

fn data_of(message: &Message) -> &[u8] {
    match message {
        Message::Reply(Reply { response: Response::Data { data: Some(data), .. }, .. }) => data,
        other => panic!("data should have come, not {other:?}"),
    }
}

/// Slices not sent yet; more than one where data is lent.
fn slice_count(world: &World, client: Handle) -> usize {
    world.fronts[client.front].output_slices(client.conn).count()
}

#[test]
fn large_data_is_byte_exact_in_pieces_of_any_size() {
    let mut world = World::new(1);
    let writer = world.connect(0);
    let (small, large) = (vec![9; LEND_BYTES_MIN - 1], large(1));
    world.call(writer, Request::create("/small", &small, CreateMode::Persistent));
    world.call(writer, Request::create("/large", &large, CreateMode::Persistent));
    let requests = [get("/large"), get("/large"), get("/small"), get("/none"), get("/large"), get("/small")];
    let mut streams = BTreeSet::new();
    for bytes_max in [1, 3, 23, 24, 25, 68, 4096, large.len() - 1, large.len(), large.len() + 1, usize::MAX] {
        let client = world.connect(0);
        world.client(client).raw.clear();
        world.send(client, &requests);
        assert!(slice_count(&world, client) >= 3, "nothing is lent");
        take_in_pieces(&mut world, client, bytes_max, |_| {});
        let messages = world.messages(client);
        assert_eq!(messages.len(), requests.len(), "pieces of {bytes_max}");
        for at in [0, 1, 4] {
            assert_eq!(data_of(&messages[at]), large, "pieces of {bytes_max}");
        }
        assert_eq!(data_of(&messages[5]), small);
        // All but the zxids, which grow with the sessions, is the same.
        let raw = &world.client(client).raw;
        streams.insert((raw.len(), crc32fast::hash(&raw[24..24 + large.len()])));
        world.hang_up(client);
    }
    assert_eq!(streams.len(), 1);
}

#[test]
fn large_data_stays_while_it_is_sent() {
    let mut world = World::new(1);
    let (writer, reader) = (world.connect(0), world.connect(0));
    world.call(writer, Request::create("/a", &large(1), CreateMode::Persistent));
    world.call(writer, Request::create("/b", &large(2), CreateMode::Persistent));
    world.send(reader, &[get("/a"), get("/b")]);
    let writes = std::cell::Cell::new(0u8);

    take_in_pieces(&mut world, reader, 10_000, |world| {
        let number = writes.replace(writes.get().saturating_add(1));
        let reply = match number {
            0 => world.call(writer, Request::Delete { path: "/b", version: None }),
            1..20 => world.call(writer, set("/a", &large(number + 10))),
            _ => return,
        };
        assert!(reply.is_ok());
    });
    let messages = world.messages(reader);
    assert_eq!(data_of(&messages[0]), large(1));
    assert_eq!(data_of(&messages[1]), large(2));
}

/// Slow clients hold all pins of a front: the next ones get copies, and when they are gone the pins are free.
#[test]
fn pins_are_bounded_and_come_back() {
    let mut world = World::new(1);
    let writer = world.connect(0);
    world.call(writer, Request::create("/a", &large(1), CreateMode::Persistent));
    for _ in 0..2 {
        let clients: Vec<Handle> = (0..PINS_MAX + 3).map(|_| world.connect(0)).collect();
        for (number, &client) in clients.iter().enumerate() {
            world.send(client, &[get("/a")]);
            assert_eq!(slice_count(&world, client), if number < PINS_MAX { 3 } else { 1 });
        }
        let (leaving, staying) = clients.split_at(PINS_MAX / 2);
        for &client in leaving {
            world.hang_up(client);
        }
        for &client in staying {
            take_in_pieces(&mut world, client, usize::MAX, |_| {});
            assert_eq!(data_of(&world.messages(client)[0]), large(1));
        }
    }
}

/// What a client that does not read makes the server keep is bounded, also where its reads stand behind a write of its own.
///
/// Method: a write held back, hundreds of reads of large data behind it, then the write let go and nothing sent.
#[test]
fn reads_behind_a_write_do_not_pile_up_for_a_client_that_does_not_read() {
    const READS: usize = 500;
    let mut world = World::new(1);
    let client = world.connect(0);
    let data = large(7);
    world.call(client, create("/a"));
    world.call(client, set("/a", &data));
    world.holding = true;
    let mut requests = vec![set("/a", &data)];
    requests.resize(READS + 1, get("/a"));
    world.send(client, &requests);
    world.settle();
    let writes = std::mem::take(&mut world.writes);
    for write in writes {
        let input = Input::Written { id: write.id, spent: write.bytes };
        world.pipeline.handle(world.now, input);
    }
    let mut unsent_bytes_max = 0;
    for _ in 0..4 * READS {
        world.pipeline.turn(world.now);
        world.fronts[0].turn(world.now);
        let unsent: usize = world.fronts[0].output_slices(client.conn).map(<[u8]>::len).sum();
        unsent_bytes_max = unsent_bytes_max.max(unsent);
    }
    assert!(
        unsent_bytes_max > 0 && unsent_bytes_max < 50 * data.len(),
        "{unsent_bytes_max} bytes wait to be read"
    );
    world.holding = false;
    world.settle();
    let messages = world.messages(client);
    assert_eq!(messages.len(), READS + 1);
    for message in &messages[1..] {
        let Message::Reply(Reply { response: Response::Data { data: Some(found), .. }, .. }) = message else {
            panic!("data should have come, not {message:?}");
        };
        assert!(*found == data);
    }
}
