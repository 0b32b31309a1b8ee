//! How servers come into a reign: epochs, differences, snapshots, what is held back.

use super::*;

#[test]
fn the_epoch_is_above_every_accepted_one_and_its_quorum_counts_voters_only() {
    let mut options = options(&[1, 2, 3]);
    options.diff_syncs_max = 10;
    let mut world = World::new(options, epochs(5, 4), &[(4, 2)]);
    world.hello(4, 4, 9, kind::OBSERVER_INFO);
    world.hello(5, 5, 6, kind::FOLLOWER_INFO);
    // A voter that comes as an observer does not count either.
    world.hello(3, 3, 2, kind::OBSERVER_INFO);
    assert_eq!(world.written, []);
    world.hello(2, 2, 7, kind::FOLLOWER_INFO);
    assert_eq!(world.written[0], epochs(10, 4));
    for conn in [2, 3, 4, 5] {
        assert_eq!(world.read(conn)[0].zxid, zxid(10, 0));
    }
    // Nor for the choice of the history.
    world.ack_epoch(4, 4, zxid(4, 2));
    world.ack_epoch(5, 4, zxid(4, 2));
    world.ack_epoch(3, 4, zxid(4, 2));
    assert_eq!(world.written.len(), 1);
    world.ack_epoch(2, 4, zxid(4, 1));
    assert_eq!(world.written[1], epochs(10, 10));
    // Nor for the reign.
    for conn in [3, 4, 5] {
        world.ack(conn, zxid(10, 0));
    }
    assert!(!world.leader.is_established());
    world.ack(2, zxid(10, 0));
    assert!(world.leader.is_established());
    let conns: Vec<_> = world.leader.learners().map(|learner| (learner.sid, learner.is_synced)).collect();
    assert_eq!(conns, [(2, true), (3, true), (4, true), (5, true)]);
    assert_eq!((world.leader.synced_followers(), world.leader.synced_observers()), (2, 2));
    assert_eq!(world.leader.synced_non_voting_followers(), 1);
}

#[test]
fn epochs_are_durable_before_they_are_told() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(5, 4), &[(4, 2)]);
    world.writes_epochs = false;
    world.hello(2, 2, 7, kind::FOLLOWER_INFO);
    assert_eq!(world.read(2), []);
    // Too late for this epoch.
    world.hello(3, 3, 20, kind::FOLLOWER_INFO);
    world.leader.epochs_written(world.now, epochs(8, 4), &world.recent);
    world.turn();
    assert_eq!(world.read(2)[0].zxid, zxid(8, 0));
    assert_eq!(world.read(3)[0].zxid, zxid(8, 0));
    world.ack_epoch(2, 4, zxid(4, 2));
    assert_eq!(world.read(2), []);
    world.leader.epochs_written(world.now, epochs(8, 8), &world.recent);
    world.turn();
    assert_eq!(world.kinds(2), [kind::DIFF, kind::NEW_LEADER]);
}

#[test]
fn a_promise_of_minus_one_or_without_a_history_does_not_count() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(5, 4), &[(4, 2)]);
    world.hello(2, 2, 5, kind::FOLLOWER_INFO);
    world.hello(3, 3, 5, kind::FOLLOWER_INFO);
    world.ack_epoch(2, -1, zxid(4, 2));
    world.ack_epoch(3, 4, NO_ZXID);
    assert_eq!(world.written.len(), 1);
    assert!(!world.is_closed(2) && !world.is_closed(3));
}

#[test]
fn a_learner_that_is_ahead_is_refused_until_the_history_is_chosen() {
    let mut world = World::new(options(&[1, 2, 3, 4, 5]), epochs(5, 4), &[(4, 2)]);
    for conn in [2, 3, 4, 5] {
        world.hello(conn, i64::from(conn), 5, kind::FOLLOWER_INFO);
    }
    world.ack_epoch(2, 4, zxid(4, 3));
    world.ack_epoch(3, 5, zxid(4, 1));
    assert!(world.is_closed(2) && world.is_closed(3));
    world.ack_epoch(4, 4, zxid(4, 2));
    world.ack_epoch(5, 3, zxid(3, 900));
    assert_eq!(world.written.len(), 2);
    // Now what is beyond our history was never committed, and a snapshot replaces it.
    world.hello(2, 2, 5, kind::FOLLOWER_INFO);
    world.ack_epoch(2, 4, zxid(4, 3));
    assert!(!world.is_closed(2));
    assert_eq!(world.kinds(2), [kind::LEADER_INFO]);
    assert!(world.said.contains(&Output::WantSnapshot));
}

#[test]
fn hellos_that_do_not_fit_are_refused_alone() {
    let mut world = World::established();
    let hello = |sid: i64, protocol_version: i32, config_version: i64| {
        LearnerInfo { sid, protocol_version, config_version }.encode()
    };
    let bad: [(Zxid, &[u8]); 8] = [
        (zxid(1, 0), &hello(1, PROTOCOL_VERSION, 0)),
        (zxid(1, 0), &hello(3, PROTOCOL_VERSION, 7)),
        (zxid(1, 0), &hello(3, 1, 0)),
        (zxid(1, 0), &hello(3, PROTOCOL_VERSION, 0)[..8]),
        (zxid(1, 0), b""),
        (zxid(1, 1), &hello(3, PROTOCOL_VERSION, 0)),
        (Zxid(-1), &hello(3, PROTOCOL_VERSION, 0)),
        (Zxid(0x7fff_ffff << 32), &hello(3, PROTOCOL_VERSION, 0)),
    ];
    for (index, (zxid, data)) in bad.into_iter().enumerate() {
        let conn = 10 + index as u32;
        world.connect(conn);
        world.say(conn, kind::FOLLOWER_INFO, zxid, Some(data));
        assert!(world.is_closed(conn), "hello {index}");
    }
    // 12 bytes, as 3.4 sends, are enough.
    world.connect(30);
    world.say(30, kind::FOLLOWER_INFO, zxid(1, 0), Some(&hello(3, PROTOCOL_VERSION, 0)[..12]));
    assert_eq!(world.kinds(30), [kind::LEADER_INFO]);
    assert!(!world.is_closed(2) && world.resigned().is_none());
}

#[test]
fn who_connects_anew_replaces_itself_without_ending_the_reign() {
    let mut world = World::established();
    let (old, gone) = (world.conn(2), world.conn(2));
    world.hello(7, 2, 2, kind::FOLLOWER_INFO);
    assert!(world.is_closed(2) && world.resigned().is_none());
    assert!(world.said.contains(&Output::LearnerGone { conn: gone }));
    world.ack_epoch(7, -1, zxid(1, 3));
    world.ack(7, zxid(2, 0));
    assert_eq!(world.kinds(7), [kind::LEADER_INFO, kind::DIFF, kind::NEW_LEADER, kind::UP_TO_DATE]);
    // What the old connection still delivers carries no authority.
    let last = world.propose(1);
    world.durable(last);
    world.leader.event(world.now, old, PeerEvent::Received(&packet(kind::ACK, last, None)), &world.recent);
    assert_eq!(world.leader.zxid_committed(), zxid(1, 3));
}

#[test]
fn snapshots_for_whoever_is_not_exactly_in_our_history_and_truncation_for_nobody() {
    for (end, wants_snapshot) in [
        (zxid(1, 3), false),
        (zxid(1, 1), false),
        (zxid(2, 0), false),
        (zxid(0, 0), true),
        (zxid(1, 4), true),
        (zxid(2, 1), true),
        (zxid(1, 0), false),
    ] {
        let mut world = World::established();
        world.join(3, 3, end);
        let got = world.kinds(3);
        assert!(!got.contains(&kind::TRUNC) && !got.contains(&kind::SNAP));
        assert_eq!(got.contains(&kind::DIFF), !wants_snapshot, "{end}");
        assert_eq!(world.said.contains(&Output::WantSnapshot), wants_snapshot, "{end}");
    }
}

/// What is no longer in memory is read from the log, once for all that wait; whose end is not in it gets a snapshot.
#[test]
fn what_is_not_in_memory_comes_from_the_log() {
    let mut world = World::established_with(LeaderOptions { diff_syncs_max: 9, ..options(&[1, 2, 3]) });
    world.recent = Recent::new(2, 1 << 20);
    world.recent.reset(zxid(1, 3));
    let last = world.propose(4);
    world.durable(last);
    world.ack(2, last);
    let comes = |world: &mut World, conn: u32, end: Zxid| {
        world.hello(conn, i64::from(conn), 1, kind::OBSERVER_INFO);
        world.ack_epoch(conn, 1, end);
        world.inboxes.remove(&world.conn(conn));
    };
    for (conn, end) in [(3, zxid(1, 2)), (4, zxid(2, 1)), (5, zxid(1, 9))] {
        comes(&mut world, conn, end);
    }
    let asked = Output::ReadLog { after: zxid(1, 2), through: zxid(2, 3) };
    assert_eq!(world.said, [Output::Committed(last), asked]);
    // Not far enough back for this one: it waits for the next.
    comes(&mut world, 6, zxid(1, 1));
    assert_eq!(world.said.len(), 2);
    let read = [zxid(1, 3), zxid(2, 1), zxid(2, 2), zxid(2, 3)].map(|zxid| (zxid, entry(zxid)));
    world.leader.log_read(world.now, zxid(1, 2), Some(read.to_vec()), &world.recent);
    world.turn();
    let asked = Output::ReadLog { after: zxid(1, 1), through: zxid(2, 3) };
    assert_eq!(world.said.split_off(2), [asked, Output::WantSnapshot]);
    world.leader.log_read(world.now, zxid(1, 1), None, &world.recent);
    world.turn();
    let sent = |after: &[Zxid]| {
        let mut kinds = vec![Got::new(kind::DIFF, last)];
        for &zxid in after {
            kinds.extend([Got::entry(kind::PROPOSAL, zxid), Got::new(kind::COMMIT, zxid)]);
        }
        kinds
    };
    let mut got = world.read(3);
    assert_eq!(got.pop().map(|got| got.kind), Some(kind::NEW_LEADER));
    assert_eq!(got, sent(&[zxid(1, 3), zxid(2, 1), zxid(2, 2), zxid(2, 3), zxid(2, 4)]));
    let mut got = world.read(4);
    assert_eq!(got.pop().map(|got| got.kind), Some(kind::NEW_LEADER));
    assert_eq!(got, sent(&[zxid(2, 2), zxid(2, 3), zxid(2, 4)]));
    assert_eq!(world.read(5), []);
    world.snapshot(last, &[b"the tree"]);
    for conn in [5, 6] {
        let bytes = world.inboxes.remove(&world.conn(conn)).unwrap();
        assert!(bytes.starts_with(&packet(kind::SNAP, last, None)));
    }
    // Nor does it help where memory has moved on, or the disk has it no more.
    for (conn, read) in [(7, None), (8, Some(vec![(zxid(1, 3), entry(zxid(1, 3)))]))] {
        comes(&mut world, conn, zxid(1, 2));
        world.said.clear();
        world.leader.log_read(world.now, zxid(1, 2), read, &world.recent);
        world.turn();
        assert_eq!(world.said, [Output::WantSnapshot], "connection {conn}");
        world.snapshot(last, &[]);
    }
}

#[test]
fn who_distrusts_what_it_holds_gets_a_snapshot_even_of_nothing() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(0, 0), &[]);
    world.hello(2, 2, 0, kind::FOLLOWER_INFO);
    world.ack_epoch(2, 0, Zxid(0));
    world.ack(2, zxid(1, 0));
    world.hello(3, 3, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(3, -1, Zxid(0));
    assert_eq!(world.kinds(3), [kind::LEADER_INFO]);
    world.snapshot(zxid(0, 0), &[]);
    let bytes = world.inboxes.remove(&world.conn(3)).unwrap();
    assert!(bytes.starts_with(&packet(kind::SNAP, Zxid(0), None)));
    world.ack(3, zxid(1, 0));
    assert_eq!(world.kinds(3), [kind::UP_TO_DATE]);
}

#[test]
fn a_snapshot_is_followed_by_its_signature_the_history_and_new_leader() {
    let mut world = World::established();
    let last = world.propose(2);
    world.durable(last);
    world.ack(2, zxid(2, 1));
    // Committed to (2, 1); (2, 2) is outstanding. Applied to (1, 2) only.
    world.hello(3, 3, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(3, 1, zxid(0, 0));
    world.hello(4, 4, 1, kind::OBSERVER_INFO);
    world.ack_epoch(4, 1, zxid(0, 0));
    assert_eq!(world.said.iter().filter(|&output| *output == Output::WantSnapshot).count(), 1);
    assert!(!world.leader.snapshot_wanted());
    world.snapshot(zxid(1, 2), &[b"the tree, ", b"all of it"]);
    let mut tail = b"the tree, all of it".to_vec();
    tail.extend_from_slice(&hex("0000000a 42656e57617348657265"));
    let history = |kinds: [i32; 2], counters: &[Zxid]| -> Vec<Got> {
        counters.iter().flat_map(|&zxid| [Got::entry(kinds[0], zxid), Got::new(kinds[1], zxid)]).collect()
    };
    let mut expected = history([kind::PROPOSAL, kind::COMMIT], &[zxid(1, 3), zxid(2, 1)]);
    let config = Some(b"the configuration\nversion=0".to_vec());
    expected.push(Got { kind: kind::NEW_LEADER, zxid: zxid(2, 0), data: config });
    for conn in [3, 4] {
        let bytes = world.inboxes.remove(&world.conn(conn)).unwrap();
        let info = packet(kind::LEADER_INFO, zxid(2, 0), Some(&PROTOCOL_VERSION.to_be_bytes()));
        let rest = bytes.strip_prefix(&info[..]).unwrap();
        let rest = rest.strip_prefix(&packet(kind::SNAP, zxid(1, 2), None)[..]).unwrap();
        let rest = rest.strip_prefix(&tail[..]).unwrap();
        assert_eq!(packets(rest), expected);
    }
    // What was outstanding comes after UPTODATE: as a proposal, or not before its commit.
    world.ack(3, zxid(2, 0));
    world.ack(4, zxid(2, 0));
    assert_eq!(world.read(3), [Got::new(kind::UP_TO_DATE, NO_ZXID), Got::entry(kind::PROPOSAL, zxid(2, 2))]);
    assert_eq!(world.read(4), [Got::new(kind::UP_TO_DATE, NO_ZXID)]);
    world.ack(3, zxid(2, 2));
    assert_eq!(world.read(3), [Got::new(kind::COMMIT, zxid(2, 2))]);
    assert_eq!(world.read(4), [Got::entry(kind::INFORM, zxid(2, 2))]);
}

#[test]
fn the_first_quorum_may_come_by_snapshot_of_less_than_the_history() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 5)]);
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(2, 0, Zxid(0));
    assert!(world.said.contains(&Output::WantSnapshot));
    // Nothing of the tail is applied here before the reign is established.
    world.snapshot(zxid(1, 3), &[b"tree"]);
    let bytes = world.inboxes.remove(&world.conn(2)).unwrap();
    let after = bytes.windows(10).position(|window| window == b"BenWasHere").unwrap() + 10;
    let got = packets(&bytes[after..]);
    let zxids: Vec<_> = got.iter().map(|got| (got.kind, got.zxid)).collect();
    let (p, c) = (kind::PROPOSAL, kind::COMMIT);
    assert_eq!(
        zxids,
        [(p, zxid(1, 4)), (c, zxid(1, 4)), (p, zxid(1, 5)), (c, zxid(1, 5)), (kind::NEW_LEADER, zxid(2, 0))]
    );
    world.ack(2, zxid(2, 0));
    assert!(world.leader.is_established());
    assert_eq!(world.leader.zxid_committed(), zxid(1, 5));
}

#[test]
fn who_comes_during_a_pass_waits_for_the_next() {
    let mut world = World::established();
    world.hello(3, 3, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(3, 1, zxid(0, 0));
    world.leader.snapshot_begin(world.now, zxid(1, 3), &world.recent);
    world.hello(4, 4, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(4, 1, zxid(0, 0));
    world.said.clear();
    world.leader.snapshot_part(&Bytes::from_static(b"tree"));
    world.leader.snapshot_end(world.now);
    world.turn();
    assert_eq!(world.said, [Output::WantSnapshot]);
    assert_eq!(world.kinds(4), [kind::LEADER_INFO]);
    // The receiver goes: the pass is wanted by nobody, and still ends well.
    world.leader.snapshot_begin(world.now, zxid(1, 3), &world.recent);
    assert!(world.leader.snapshot_wanted());
    world.event(4, PeerEvent::Closed);
    assert!(!world.leader.snapshot_wanted() && world.leader.snapshot_room());
    world.leader.snapshot_end(world.now);
}

#[test]
fn live_traffic_is_held_back_from_a_joining_learner() {
    let mut world = World::established();
    let last = world.propose(1);
    world.durable(last);
    world.ack(2, last);
    world.propose(1);
    world.hello(3, 3, 1, kind::FOLLOWER_INFO);
    world.hello(4, 4, 1, kind::OBSERVER_INFO);
    for conn in [3, 4] {
        world.ack_epoch(conn, 1, zxid(1, 3));
        // No uncommitted proposal before NEWLEADER.
        assert_eq!(
            world.read(conn).into_iter().skip(1).map(|got| (got.kind, got.zxid)).collect::<Vec<_>>(),
            [
                (kind::DIFF, zxid(2, 1)),
                (kind::PROPOSAL, zxid(2, 1)),
                (kind::COMMIT, zxid(2, 1)),
                (kind::NEW_LEADER, zxid(2, 0)),
            ]
        );
    }
    world.propose(1);
    world.durable(zxid(2, 3));
    world.ack(2, zxid(2, 2));
    // Nothing between NEWLEADER and UPTODATE.
    assert_eq!((world.read(3), world.read(4)), (vec![], vec![]));
    world.ack(3, zxid(2, 0));
    world.ack(4, zxid(2, 0));
    let (p, c) = (kind::PROPOSAL, kind::COMMIT);
    assert_eq!(
        world.read(3),
        [
            Got::new(kind::UP_TO_DATE, NO_ZXID),
            Got::entry(p, zxid(2, 2)),
            Got::new(c, zxid(2, 2)),
            Got::entry(p, zxid(2, 3)),
        ]
    );
    assert_eq!(world.read(4), [Got::new(kind::UP_TO_DATE, NO_ZXID), Got::entry(kind::INFORM, zxid(2, 2))]);
    world.propose(1);
    world.durable(zxid(2, 4));
    world.ack(3, zxid(2, 4));
    assert_eq!(world.read(3), [Got::entry(p, zxid(2, 4)), Got::new(c, zxid(2, 3)), Got::new(c, zxid(2, 4))]);
    assert_eq!(world.leader.zxid_committed(), zxid(2, 4));
    assert_eq!(world.read(4), [Got::entry(kind::INFORM, zxid(2, 3)), Got::entry(kind::INFORM, zxid(2, 4))]);
}

#[test]
fn a_follower_that_returns_with_an_uncommitted_proposal_helps_to_commit_it() {
    let mut world = World::established();
    let last = world.propose(2);
    world.durable(last);
    // Server 2 wrote the first, lost its connection before the ack, and comes back as the only follower.
    world.hello(7, 2, 2, kind::FOLLOWER_INFO);
    world.ack_epoch(7, -1, zxid(2, 1));
    assert_eq!(world.kinds(7), [kind::LEADER_INFO, kind::DIFF, kind::NEW_LEADER]);
    assert_eq!(world.leader.zxid_committed(), zxid(1, 3));
    world.ack(7, zxid(2, 0));
    // Its commit stands before UPTODATE, so it is not told again.
    assert_eq!(world.leader.zxid_committed(), zxid(2, 1));
    assert_eq!(world.read(7), [Got::new(kind::UP_TO_DATE, NO_ZXID), Got::entry(kind::PROPOSAL, zxid(2, 2))]);
    world.ack(7, zxid(2, 2));
    assert_eq!(world.read(7), [Got::new(kind::COMMIT, zxid(2, 2))]);
}

#[test]
fn up_to_date_waits_until_what_the_learner_holds_is_committed() {
    let mut world = World::established();
    let last = world.propose(2);
    world.durable(last);
    // One that does not vote, so that its own ack decides nothing.
    world.hello(7, 9, 2, kind::FOLLOWER_INFO);
    world.ack_epoch(7, -1, zxid(2, 2));
    world.ack(7, zxid(2, 0));
    assert_eq!(world.kinds(7), [kind::LEADER_INFO, kind::DIFF, kind::NEW_LEADER]);
    world.ack(2, zxid(2, 1));
    assert_eq!(world.leader.zxid_committed(), zxid(2, 1));
    assert_eq!(world.read(7), []);
    world.ack(2, zxid(2, 2));
    assert_eq!(world.read(7), [Got::new(kind::UP_TO_DATE, NO_ZXID)]);
}

#[test]
fn an_observer_that_holds_an_uncommitted_proposal_is_not_told_of_it_again() {
    let mut world = World::established();
    let last = world.propose(2);
    world.durable(last);
    // It followed when the first was proposed, and observes now.
    world.hello(7, 9, 2, kind::OBSERVER_INFO);
    world.ack_epoch(7, -1, zxid(2, 1));
    world.ack(7, zxid(2, 0));
    assert_eq!(world.kinds(7), [kind::LEADER_INFO, kind::DIFF, kind::NEW_LEADER]);
    world.ack(2, zxid(2, 2));
    assert_eq!(world.read(7), [Got::new(kind::UP_TO_DATE, NO_ZXID), Got::entry(kind::INFORM, zxid(2, 2))]);
}

#[test]
fn acks_of_the_difference_may_overtake_that_of_new_leader() {
    for newleader_first in [false, true] {
        let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
        world.hello(2, 2, 1, kind::FOLLOWER_INFO);
        world.ack_epoch(2, 1, zxid(1, 1));
        let mut acks = vec![zxid(1, 2), zxid(1, 3)];
        acks.insert(if newleader_first { 0 } else { 1 }, zxid(2, 0));
        for (index, zxid) in acks.into_iter().enumerate() {
            assert_eq!(world.leader.is_established(), newleader_first && index > 0 || index > 1);
            world.ack(2, zxid);
        }
        world.ack(2, zxid(2, 0));
        assert!(world.leader.is_established() && !world.is_closed(2));
        let last = world.propose(1);
        world.durable(last);
        world.ack(2, last);
        assert_eq!(world.leader.zxid_committed(), last);
    }
}

#[test]
fn observers_beyond_the_limits_are_sent_away_and_followers_are_not() {
    let mut world = World::established();
    for conn in 10..13 {
        world.hello(conn, i64::from(conn), 1, kind::OBSERVER_INFO);
        world.ack_epoch(conn, 1, zxid(0, 0));
        assert_eq!(world.is_closed(conn), conn == 12);
    }
    for conn in 20..23 {
        world.hello(conn, i64::from(conn), 1, kind::OBSERVER_INFO);
        world.ack_epoch(conn, 1, zxid(1, 3));
        assert_eq!(world.is_closed(conn), conn == 22);
    }
    for (conn, end) in [(30, zxid(0, 0)), (31, zxid(1, 3))] {
        world.hello(conn, i64::from(conn), 1, kind::FOLLOWER_INFO);
        world.ack_epoch(conn, 1, end);
        assert!(!world.is_closed(conn));
    }
}
