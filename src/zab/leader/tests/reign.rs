//! The broadcast, its proofs and its ends.

use super::*;
use crate::zab::leader::queue::SHARE_BYTES_MIN;

#[test]
fn a_commit_waits_for_a_durable_quorum_with_the_leader_in_it() {
    let mut world = World::established_with(options(&[1, 2, 3]));
    world.join(3, 3, zxid(1, 3));
    world.join(5, 5, zxid(1, 3));
    world.join_as(4, 4, zxid(1, 3), kind::OBSERVER_INFO);
    let last = world.propose(3);
    // A follower that does not vote, and an observer.
    world.ack(5, last);
    world.ack(4, last);
    world.durable(last);
    assert_eq!(world.leader.zxid_committed(), zxid(1, 3));
    world.ack(3, zxid(2, 1));
    assert_eq!(world.leader.zxid_committed(), zxid(2, 1));
    // An ack stands for all before it.
    world.ack(2, zxid(2, 3));
    assert_eq!(world.leader.zxid_committed(), zxid(2, 3));
    // The followers alone are a quorum, and still it waits for the leader's own log.
    let last = world.propose(2);
    world.ack(2, last);
    world.ack(3, last);
    assert_eq!(world.leader.zxid_committed(), zxid(2, 3));
    world.durable(zxid(2, 4));
    assert_eq!(world.leader.zxid_committed(), zxid(2, 4));
    world.durable(last);
    let committed = world.said.iter().filter_map(|output| match output {
        Output::Committed(zxid) => Some(zxid.counter()),
        _ => None,
    });
    assert_eq!(committed.collect::<Vec<_>>(), [1, 3, 4, 5]);
    assert_eq!((world.leader.outstanding(), world.leader.counters().commits), (0, 5));
}

#[test]
fn a_reign_of_one_needs_nobody() {
    let mut world = World::new(options(&[1]), epochs(3, 3), &[(1, 3)]);
    world.turn();
    assert_eq!(world.written, [epochs(4, 3), epochs(4, 4)]);
    assert!(world.leader.is_established());
    let id = world.leader.prove();
    world.turn();
    assert!(world.said.contains(&Output::Proved(id)));
    let last = world.propose(2);
    assert_eq!(world.leader.zxid_committed(), zxid(1, 3));
    world.durable(last);
    assert_eq!(world.leader.zxid_committed(), last);
    world.pass(100, &[]);
    assert_eq!(world.resigned(), None);
}

#[test]
fn a_large_entry_is_shared_by_log_and_learners() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    let entry = Bytes::from(vec![1; SHARE_BYTES_MIN]);
    world.leader.propose(world.now, zxid(2, 1), &entry);
    let mut owed = Vec::new();
    world.leader.drain(&mut owed);
    let shared = owed.iter().filter(
        |output| matches!(output, Output::Peer(PeerWork::Send { bytes, .. }) if bytes.as_ptr() == entry.as_ptr()),
    );
    assert_eq!(shared.count(), 2);
}

#[test]
fn acks_that_cannot_be_close_that_connection_only() {
    let bad: [(&str, Vec<u8>); 12] = [
        ("future", packet(kind::ACK, zxid(2, 4), None)),
        ("other epoch", packet(kind::ACK, zxid(1, 4), None)),
        ("far future", packet(kind::ACK, zxid(9, 1), None)),
        ("negative", packet(kind::ACK, Zxid(-1), None)),
        ("zero", packet(kind::ACK, Zxid(0), None)),
        ("epoch of another", packet(kind::ACK, zxid(3, 0), None)),
        ("descending", [packet(kind::ACK, zxid(2, 2), None), packet(kind::ACK, zxid(2, 1), None)].concat()),
        ("a leader's packet", packet(kind::COMMIT, zxid(2, 1), None)),
        ("unknown", packet(77, zxid(2, 1), None)),
        ("touches cut short", packet(kind::PING, zxid(2, 3), Some(&[0; 13]))),
        ("request without header", packet(kind::REQUEST, NO_ZXID, Some(&[0; 15]))),
        ("oversized", packet(kind::REQUEST, NO_ZXID, Some(&[0; 5000]))),
    ];
    for (what, bytes) in bad {
        let mut world = World::established();
        world.join(3, 3, zxid(1, 3));
        world.join(5, 5, zxid(1, 3));
        world.propose(3);
        world.send(5, &bytes);
        assert!(world.is_closed(5), "{what}");
        assert!(world.said.contains(&Output::LearnerGone { conn: world.conn(5) }), "{what}");
        assert!(!world.is_closed(2) && !world.is_closed(3) && world.resigned().is_none(), "{what}");
        // What comes late on it changes nothing.
        world.send(5, &packet(kind::ACK, zxid(2, 3), None));
        world.durable(zxid(2, 3));
        world.ack(2, zxid(2, 3));
        assert_eq!(world.leader.zxid_committed(), zxid(2, 3), "{what}");
    }
}

#[test]
fn packets_may_come_in_any_pieces() {
    let mut world = World::established();
    let last = world.propose(3);
    world.durable(last);
    let mut bytes = Vec::new();
    for counter in 1..=3 {
        bytes.extend(packet(kind::ACK, zxid(2, counter), None));
        bytes.extend(packet(kind::REQUEST, NO_ZXID, Some(&[7; 300])));
    }
    for piece in bytes.chunks(7) {
        world.send(2, piece);
    }
    assert_eq!(world.leader.zxid_committed(), last);
    assert_eq!(world.said.iter().filter(|output| matches!(output, Output::Request { .. })).count(), 3);
}

#[test]
fn an_endless_packet_is_not_collected() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    // A request with a thousand ids of 4 KiB: each within its bound.
    let ids = (0..1000).map(|_| ("ip".into(), "x".repeat(4000).into())).collect();
    let bytes = QuorumPacket { kind: kind::REQUEST, zxid: NO_ZXID, data: Some(&[0; 16]), auth: Some(ids) };
    for piece in bytes.to_vec().chunks(8192) {
        world.send(3, piece);
    }
    assert!(world.is_closed(3) && !world.is_closed(2));
}

#[test]
fn a_sync_waits_for_the_commits_before_it_and_for_a_proof() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    world.join_as(4, 4, zxid(1, 3), kind::OBSERVER_INFO);
    let last = world.propose(1);
    world.durable(last);
    world.inboxes.clear();
    let conn = world.conn(4);
    world.leader.sync(conn);
    let id = world.leader.prove();
    world.turn();
    // One round for both, to those who vote.
    assert_eq!(
        (world.kinds(2), world.kinds(3), world.kinds(4)),
        (vec![kind::PING], vec![kind::PING], vec![])
    );
    world.say(4, kind::PING, last, Some(b""));
    assert!(!world.said.contains(&Output::Proved(id)));
    world.say(3, kind::PING, last, Some(b""));
    assert!(world.said.contains(&Output::Proved(id)));
    assert_eq!(world.read(4), []);
    world.ack(2, last);
    assert_eq!(world.kinds(4), [kind::INFORM, kind::SYNC]);
    // The other order: commit first, proof second.
    let last = world.propose(1);
    world.durable(last);
    world.leader.sync(conn);
    world.turn();
    world.ack(2, last);
    assert_eq!(world.kinds(4), [kind::INFORM]);
    world.say(2, kind::PING, last, Some(b""));
    assert_eq!(world.kinds(4), [kind::SYNC]);
    assert_eq!(world.leader.counters().proofs, 2);
}

#[test]
fn only_a_ping_after_the_question_proves_anything() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    world.inboxes.clear();
    // Periodic pings are under way.
    world.pass(1, &[]);
    assert_eq!(world.kinds(2), [kind::PING; 2]);
    let id = world.leader.prove();
    world.turn();
    for _ in 0..2 {
        world.say(2, kind::PING, zxid(2, 0), Some(b""));
        assert!(!world.said.contains(&Output::Proved(id)));
    }
    // Answers to nothing prove nothing.
    world.say(2, kind::PING, zxid(2, 9), Some(b""));
    assert!(!world.said.contains(&Output::Proved(id)));
    world.say(2, kind::PING, zxid(2, 0), Some(b""));
    assert!(world.said.contains(&Output::Proved(id)));
}

#[test]
fn a_late_answer_to_a_ping_before_up_to_date_proves_nothing() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(2, 1, zxid(1, 3));
    world.pass(1, &[]);
    let pings: Vec<_> = world.read(2).into_iter().filter(|got| got.kind == kind::PING).collect();
    assert_eq!(pings.len(), 2);
    world.ack(2, zxid(2, 0));
    let id = world.leader.prove();
    world.turn();
    for ping in pings {
        world.say(2, kind::PING, ping.zxid, Some(b""));
    }
    assert!(!world.said.contains(&Output::Proved(id)) && !world.is_closed(2));
    world.say(2, kind::PING, zxid(2, 0), Some(b""));
    assert!(world.said.contains(&Output::Proved(id)));
}

#[test]
fn a_round_goes_on_with_who_joins_meanwhile() {
    let mut world = World::established_with(options(&[1, 2, 3]));
    let id = world.leader.prove();
    world.turn();
    world.join(3, 3, zxid(1, 3));
    world.event(2, PeerEvent::Closed);
    assert_eq!(world.resigned(), None);
    world.answer(3);
    assert!(world.said.contains(&Output::Proved(id)));
}

#[test]
fn every_phase_has_its_limit() {
    let limit = INIT + 1;
    // Nobody comes; observers do not help.
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
    world.hello(4, 4, 1, kind::OBSERVER_INFO);
    world.pass(INIT, &[]);
    assert_eq!(world.resigned(), None);
    world.pass(1, &[]);
    assert!(world.resigned().unwrap().contains("connect"));
    assert!(world.is_closed(4) && world.leader.next_timer().is_none());
    // Nobody promises.
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
    world.pass(INIT - 1, &[]);
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    world.pass(INIT, &[]);
    assert_eq!(world.resigned(), None);
    world.pass(1, &[]);
    assert!(world.is_closed(2) && world.resigned().unwrap().contains("promise"));
    // Nobody takes over the history.
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(2, 1, zxid(1, 3));
    world.pass(limit, &[]);
    assert!(world.is_closed(2) && world.resigned().unwrap().contains("history"));
    // The own disk does not write the epoch.
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
    world.writes_epochs = false;
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    world.pass(limit, &[]);
    assert!(world.resigned().unwrap().contains("durable"));
}

#[test]
fn a_connection_that_says_nothing_is_closed_after_init_limit() {
    let mut world = World::established();
    world.connect(9);
    world.hello(8, 8, 1, kind::OBSERVER_INFO);
    world.pass(INIT, &[2]);
    assert!(!world.is_closed(9) && !world.is_closed(8));
    world.pass(1, &[2]);
    assert!(world.is_closed(9) && world.is_closed(8) && world.resigned().is_none());
}

#[test]
fn silence_beyond_sync_limit_closes_and_may_end_the_reign() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    world.pass(SYNC, &[2]);
    assert!(!world.is_closed(3));
    world.pass(1, &[2]);
    assert!(world.is_closed(3) && !world.is_closed(2) && world.resigned().is_none());
    world.pass(SYNC + 1, &[]);
    assert!(world.resigned().unwrap().contains("quorum"));
}

#[test]
fn a_missing_ack_closes_although_pings_are_answered() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    let last = world.propose(2);
    world.durable(last);
    world.ack(2, last);
    world.ack(3, zxid(2, 1));
    world.pass(SYNC, &[2, 3]);
    assert!(!world.is_closed(3));
    world.pass(1, &[2, 3]);
    assert!(world.is_closed(3) && !world.is_closed(2) && world.resigned().is_none());
}

#[test]
fn a_leader_whose_own_log_stands_still_steps_down() {
    let mut world = World::established();
    let last = world.propose(1);
    world.durable(last);
    world.ack(2, last);
    let last = world.propose(1);
    world.ack(2, last);
    world.pass(SYNC, &[2]);
    assert_eq!(world.resigned(), None);
    world.pass(1, &[2]);
    assert!(world.resigned().unwrap().contains("our own log"));
    assert!(world.is_closed(2));
    // The owner may not know yet.
    world.leader.propose(world.now, zxid(2, 3), &entry(zxid(2, 3)));
    world.leader.durable(world.now, zxid(2, 2));
    world.leader.sync(world.conn(2));
    world.connect(9);
    assert!(world.is_closed(9));
    assert_eq!(world.leader.zxid_committed(), zxid(2, 1));
}

#[test]
fn the_reign_ends_at_once_with_the_connections_of_its_quorum() {
    let mut world = World::new(options(&[1, 2, 3, 4, 5]), epochs(1, 1), &[(1, 3)]);
    for conn in [2, 3, 4] {
        world.hello(conn, i64::from(conn), 1, kind::FOLLOWER_INFO);
    }
    for conn in [2, 3, 4] {
        world.ack_epoch(conn, 1, zxid(1, 3));
    }
    for conn in [2, 3, 4] {
        world.ack(conn, zxid(2, 0));
    }
    world.join_as(9, 9, zxid(1, 3), kind::OBSERVER_INFO);
    world.event(2, PeerEvent::Closed);
    assert_eq!(world.resigned(), None);
    world.event(3, PeerEvent::Closed);
    assert!(world.resigned().is_some());
    assert!(world.is_closed(4) && world.is_closed(9) && !world.is_closed(2));
    assert_eq!(world.said.last(), Some(&Output::Resign { reason: world.resigned().unwrap().to_owned() }));
}

#[test]
fn after_a_pause_what_waits_in_sockets_is_heard_first() {
    let mut world = World::established();
    world.now = world.now + TICK * 1000;
    world.leader.on_timer(world.now);
    world.turn();
    assert_eq!(world.resigned(), None);
    world.answer(2);
    world.pass(SYNC, &[2]);
    assert_eq!(world.resigned(), None);
    world.now = world.now + TICK * 1000;
    world.leader.on_timer(world.now);
    world.pass(SYNC, &[]);
    assert!(world.resigned().is_some());
}

#[test]
fn a_learner_that_does_not_read_costs_a_bounded_amount() {
    let mut world = World::established();
    world.join(3, 3, zxid(1, 3));
    world.stuck.insert(world.conn(3));
    let bytes_max = 64 << 10;
    let mut most = 0;
    for _ in 0..10_000 {
        let last = world.propose(1);
        world.durable(last);
        world.ack(2, last);
        let waiting = world.leader.learners().map(|learner| learner.waiting_bytes).max().unwrap();
        most = most.max(waiting);
        if world.is_closed(3) {
            break;
        }
    }
    assert!(world.is_closed(3) && !world.is_closed(2) && world.resigned().is_none());
    assert!(most <= bytes_max, "{most}");
    // While it joins as well.
    world.hello(7, 3, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(7, 1, zxid(1, 3));
    assert!(matches!(world.said.last(), Some(Output::ReadLog { after, .. }) if *after == zxid(1, 3)));
    world.leader.log_read(world.now, zxid(1, 3), None, &world.recent);
    world.turn();
    assert!(world.said.contains(&Output::WantSnapshot));
    world.leader.snapshot_begin(world.now, world.leader.zxid_committed(), &world.recent);
    for _ in 0..10_000 {
        let last = world.propose(1);
        world.durable(last);
        world.ack(2, last);
    }
    assert!(world.is_closed(7) && world.resigned().is_none());
    world.leader.snapshot_end(world.now);
}

#[test]
fn a_receiver_that_does_not_read_holds_the_snapshot_up_until_init_limit() {
    let mut world = World::established();
    world.hello(3, 3, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(3, 1, zxid(0, 0));
    world.stuck.insert(world.conn(3));
    world.leader.snapshot_begin(world.now, zxid(1, 3), &world.recent);
    while world.leader.snapshot_room() {
        world.leader.snapshot_part(&Bytes::from_static(&[0; 1000]));
        world.turn();
    }
    assert!(!world.is_closed(3));
    world.pass(INIT + 1, &[2]);
    assert!(world.is_closed(3) && world.leader.snapshot_room() && !world.leader.snapshot_wanted());
    world.leader.snapshot_end(world.now);
    assert_eq!(world.resigned(), None);
}

#[test]
fn the_reign_ends_when_its_counter_is_used_up() {
    let mut world = World::established();
    world.leader.zxid_proposed = zxid(2, COUNTER_LAST - 1);
    world.leader.zxid_committed = zxid(2, COUNTER_LAST - 1);
    assert!(!world.leader.counter_used_up());
    world.recent.reset(zxid(2, COUNTER_LAST - 1));
    let last = world.propose(1);
    assert!(world.leader.counter_used_up() && world.resigned().is_none());
    world.durable(last);
    world.ack(2, last);
    assert!(world.resigned().unwrap().contains("used up"));
    // The last commit still reaches those who read.
    assert_eq!(world.read(2), [Got::entry(kind::PROPOSAL, last), Got::new(kind::COMMIT, last)]);
}

#[test]
fn no_epoch_follows_the_last() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(0x7fff_ffff, 1), &[(1, 3)]);
    world.turn();
    assert!(world.resigned().unwrap().contains("epoch"));
}

#[test]
fn a_supporter_that_looks_again_ends_the_discovery_where_configured() {
    let mut options = options(&[1, 2, 3]);
    options.epoch_wait_max = Some(TICK);
    let mut world = World::new(options, epochs(1, 1), &[(1, 3)]);
    world.leader.looking(world.now, ServerId(2));
    world.now = world.now + TICK;
    world.leader.looking(world.now, ServerId(9));
    world.turn();
    assert_eq!(world.resigned(), None);
    world.leader.looking(world.now, ServerId(2));
    world.turn();
    assert!(world.resigned().unwrap().contains("server 2"));
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_proposal_out_of_order_is_our_own_mistake() {
    let mut world = World::established();
    world.leader.propose(world.now, zxid(2, 2), &entry(zxid(2, 2)));
}
