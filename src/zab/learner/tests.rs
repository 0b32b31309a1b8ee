//! Whole conversations, most of them byte for byte as real servers have them (quorum-protocol A.2 to A.5), and their order.

use super::testing::*;
use super::*;
use crate::stdx::rng::Rng;

const ACK_1: &str = "00000003 0000000100000000 ffffffff ffffffff";
const ACK_2: &str = "00000003 0000000200000000 ffffffff ffffffff";

fn ack(zxid: i64) -> Vec<u8> {
    packet(kind::ACK, zxid, None)
}

/// A.2: both sides empty, until the third ping.
#[test]
fn a_first_join_reads_as_captured() {
    let mut owner = Owner::new(false, start(0, 0, 0));
    let info = "0000000b 0000000000000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff";
    assert_eq!(owner.take_sent(), hex(info));
    owner.hear(&hex("00000011 0000000100000000 00000004 00010000 ffffffff"));
    assert_eq!(owner.take_wanted(), [epochs(1, 0)]);
    assert_eq!(owner.take_sent(), b"");
    owner.finish_all();
    assert_eq!(owner.take_sent(), hex("00000012 0000000000000000 00000004 00000000 ffffffff"));
    owner.hear(&hex("0000000d 0000000000000000 ffffffff ffffffff"));
    assert_eq!(owner.learner.phase(), Phase::Synchronization);
    owner.hear(&new_leader(1));
    assert_eq!(owner.take_wanted(), [config(), epochs(1, 1)]);
    assert_eq!(owner.take_sent(), b"");
    owner.finish_all();
    assert_eq!(owner.take_sent(), hex(ACK_1));
    assert_eq!(owner.take_wanted(), [Output::NewLeader { epoch: Epoch(1) }]);
    assert!(!owner.learner.is_serving());
    owner.hear(&hex("0000000c ffffffffffffffff ffffffff ffffffff"));
    assert_eq!(owner.take_sent(), hex(ACK_1));
    assert_eq!(owner.take_wanted(), [Output::Serve { epoch: Epoch(1) }]);
    assert!(owner.learner.is_serving());
    owner.hear(&hex("00000005 0000000100000000 ffffffff ffffffff"));
    assert_eq!(owner.take_sent(), hex("00000005 0000000100000000 00000000 ffffffff"));
    owner.touches = vec![(SessionId(0x0100_000e_fe82_0001), 10_000)];
    owner.hear(&hex("00000005 0000000100000008 ffffffff ffffffff"));
    assert_eq!(
        owner.take_sent(),
        hex("00000005 0000000100000008 0000000c 0100000efe820001 00002710 ffffffff")
    );
    assert_eq!(owner.take_wanted(), [Output::Ping, Output::Ping]);
}

/// A.3: a follower at 0x10000000c gets one entry more, and does not acknowledge it by itself.
#[test]
fn a_difference_is_appended_at_new_leader_and_applied_at_up_to_date() {
    let mut owner = Owner::new(false, start(1, 1, 0x1_0000_000c));
    owner.take_sent();
    owner.hear_all(&leader_info(2));
    assert_eq!(owner.take_wanted(), [epochs(2, 1)]);
    assert_eq!(owner.take_sent(), packet(kind::ACK_EPOCH, 0x1_0000_000c, Some(&[0, 0, 0, 1])));
    owner.hear(
        &[packet(kind::DIFF, 0x1_0000_000d, None), proposal(0x1_0000_000d), commit(0x1_0000_000d)].concat(),
    );
    assert_eq!(owner.take_wanted(), []);
    owner.hear(&new_leader(2));
    assert_eq!(owner.take_wanted(), [append(0x1_0000_000d, true)]);
    owner.finish();
    assert_eq!(owner.take_wanted(), [config(), epochs(2, 2)]);
    owner.finish();
    assert_eq!(owner.take_sent(), hex(ACK_2));
    owner.hear(&up_to_date());
    assert_eq!(owner.take_sent(), hex(ACK_2));
    assert_eq!(
        owner.take_wanted(),
        [
            Output::NewLeader { epoch: Epoch(2) },
            Output::Commit(Zxid(0x1_0000_000d)),
            Output::Serve { epoch: Epoch(2) }
        ]
    );
    owner.hear(&proposal(0x2_0000_0001));
    assert_eq!(owner.take_wanted(), [append(0x2_0000_0001, false)]);
}

/// What Java's leaders send before NEWLEADER without a COMMIT is on disk before the ACK, and waits for its own commit.
#[test]
fn open_proposals_before_new_leader_are_durable_but_not_committed() {
    let mut owner = Owner::new(false, start(2, 2, 0x2_0000_0003));
    owner.take_sent();
    owner.hear_all(&leader_info(2));
    assert_eq!(owner.take_sent(), packet(kind::ACK_EPOCH, 0x2_0000_0003, Some(&[0xff; 4])));
    let stream = [
        packet(kind::DIFF, 0x2_0000_0003, None),
        proposal(0x2_0000_0004),
        proposal(0x2_0000_0005),
        commit(0x2_0000_0004),
        proposal(0x2_0000_0006),
        new_leader(2),
    ];
    owner.hear(&stream.concat());
    owner.finish();
    owner.finish();
    assert_eq!(owner.take_sent(), b"", "two of three entries are durable");
    owner.finish();
    assert_eq!(owner.take_sent(), hex(ACK_2));
    let new_leader = Output::NewLeader { epoch: Epoch(2) };
    let appends = [append(0x2_0000_0004, true), append(0x2_0000_0005, false), append(0x2_0000_0006, false)];
    // The epoch is current already.
    assert_eq!(owner.take_wanted(), [&appends[..], &[config(), new_leader]].concat());
    owner.hear(&[commit(0x2_0000_0005), up_to_date()].concat());
    let commits = [0x2_0000_0004, 0x2_0000_0005].map(|zxid| Output::Commit(Zxid(zxid)));
    let [before, behind] = commits;
    assert_eq!(owner.take_wanted(), [before, Output::Serve { epoch: Epoch(2) }, behind]);
    let acks = [ack(0x2_0000_0000), ack(0x2_0000_0005), ack(0x2_0000_0006)];
    assert_eq!(owner.take_sent(), acks.concat());
    owner.hear(&commit(0x2_0000_0006));
    assert_eq!(owner.take_wanted(), [Output::Commit(Zxid(0x2_0000_0006))]);
}

/// A.3: an old leader returns with one entry that never was committed.
#[test]
fn a_truncation_is_durable_before_anything_behind_it() {
    let mut owner = Owner::new(false, start(2, 2, 0x2_0000_0005));
    owner.take_sent();
    owner.hear_all(&leader_info(3));
    owner.take_wanted();
    owner.hear(&hex("0000000e 0000000200000004 ffffffff ffffffff"));
    owner.hear(&[proposal(0x3_0000_0001), commit(0x3_0000_0001)].concat());
    assert_eq!(owner.take_wanted(), [], "nothing is touched before NEWLEADER");
    owner.hear(&new_leader(3));
    assert_eq!(owner.take_wanted(), [Output::Truncate(Zxid(0x2_0000_0004))]);
    owner.finish();
    assert_eq!(owner.take_wanted(), [append(0x3_0000_0001, true)]);
    owner.finish();
    assert_eq!(owner.take_wanted(), [config(), epochs(3, 3)]);
    owner.finish();
    assert_eq!(owner.take_wanted(), [Output::NewLeader { epoch: Epoch(3) }]);
}

/// A zxid that begins an epoch is no entry: the log ends with the last one before it. Any other must be there.
#[test]
fn a_truncation_may_end_before_the_begin_of_an_epoch_only() {
    for (to, reached, is_right) in [
        (0x3_0000_0000, 0x2_0000_0009, true),
        (0x3_0000_0000, 0x3_0000_0000, true),
        (0x3_0000_0002, 0x3_0000_0002, true),
        (0x3_0000_0002, 0x3_0000_0001, false),
        (0x3_0000_0000, 0x3_0000_0001, false),
    ] {
        let mut owner = Owner::new(false, start(4, 4, 0x3_0000_0004));
        owner.hear_all(&leader_info(5));
        owner.hear(&[packet(kind::TRUNC, to, None), new_leader(5)].concat());
        owner.open.clear();
        owner.learner.truncated(owner.now, Zxid(reached));
        owner.drain();
        if is_right {
            assert_eq!(owner.take_wanted().last(), Some(&epochs(5, 5)));
        } else {
            assert!(matches!(owner.failure().fault, Fault::CannotTruncate { .. }));
            assert_eq!(owner.failure().refetch, Some(Epoch(5)));
        }
    }
    let mut owner = Owner::new(false, start(4, 4, 0x3_0000_0004));
    owner.hear_all(&leader_info(5));
    owner.hear(&[packet(kind::TRUNC, 0x3_0000_0002, None), new_leader(5)].concat());
    owner.learner.cannot_truncate("no snapshot is that old".into());
    owner.drain();
    assert_eq!(owner.failure().refetch, Some(Epoch(5)));
    assert_eq!(
        owner.failure().to_string(),
        "the log cannot be made to end at 0x300000002: no snapshot is that old"
    );
}

/// A.3 and §4.4: entries that the snapshot has already, entries committed while it was taken, an open one.
#[test]
fn a_snapshot_is_installed_with_what_was_committed_meanwhile() {
    let mut owner = Owner::new(false, start(0, 0, 0));
    owner.hear_all(&leader_info(1));
    owner.take_wanted();
    let stream = [
        hex("0000000f 0000000100000008 ffffffff ffffffff"),
        snapshot(),
        proposal(0x1_0000_0007),
        commit(0x1_0000_0007),
        proposal(0x1_0000_0008),
        commit(0x1_0000_0008),
        proposal(0x1_0000_0009),
        proposal(0x1_0000_000a),
        commit(0x1_0000_0009),
    ];
    owner.hear(&stream.concat());
    assert_eq!(owner.take_wanted(), []);
    assert_eq!(owner.sink.resets, 1);
    assert_eq!(owner.sink.lines.len(), 6);
    assert_eq!(owner.sink.lines[5], "node \"/zookeeper/config\" Some([120]) 1");
    owner.hear(&new_leader(1));
    let install = Output::Install {
        zxid: Zxid(0x1_0000_0009),
        zxid_snapshot: Zxid(0x1_0000_0008),
        entries: vec![(Zxid(0x1_0000_0009), entry(0x1_0000_0009).into())],
    };
    assert_eq!(owner.take_wanted(), [install]);
    owner.finish();
    assert_eq!(owner.take_wanted(), [append(0x1_0000_000a, true)]);
    owner.take_sent();
    owner.finish();
    assert_eq!(owner.take_wanted(), [config(), epochs(1, 1)]);
    assert_eq!(owner.take_sent(), b"");
    owner.finish();
    assert_eq!(owner.take_sent(), hex(ACK_1));
    owner.hear(&up_to_date());
    assert_eq!(owner.take_sent(), [hex(ACK_1), ack(0x1_0000_000a)].concat());
    assert_eq!(
        owner.take_wanted(),
        [
            Output::NewLeader { epoch: Epoch(1) },
            Output::Commit(Zxid(0x1_0000_0009)),
            Output::Serve { epoch: Epoch(1) }
        ]
    );
}

/// A snapshot whose history goes less far than ours, and its zxid no entry.
#[test]
fn a_snapshot_may_be_older_than_what_it_replaces() {
    let mut owner = Owner::new(false, start(6, 6, 0x6_0000_0042));
    owner.hear_all(&leader_info(7));
    owner.hear(
        &[packet(kind::SNAP, 0x5_0000_0000, None), snapshot(), proposal(0x5_0000_0001), new_leader(7)]
            .concat(),
    );
    owner.learner.durable(owner.now, Zxid(0x6_0000_0042));
    owner.take_wanted();
    owner.finish();
    assert_eq!(owner.take_wanted(), [append(0x5_0000_0001, true)]);
    owner.take_sent();
    owner.finish_all();
    assert_eq!(owner.take_sent(), packet(kind::ACK, 0x7_0000_0000, None));
}

/// Only where it was not counted in any quorum may a learner claim to have nothing.
#[test]
fn a_snapshot_is_asked_for_only_in_an_epoch_accepted_before() {
    for (epoch, wanted, claimed) in [
        (3, Some(3), 0i64),
        (4, Some(3), 0x3_0000_0001),
        (4, Some(4), 0x3_0000_0001),
        (3, None, 0x3_0000_0001),
        (3, Some(2), 0x3_0000_0001),
    ] {
        let start = LearnerStart { snap_wanted: wanted.map(Epoch), ..start(3, 3, 0x3_0000_0001) };
        let mut owner = Owner::new(false, start);
        owner.take_sent();
        owner.hear_all(&leader_info(epoch));
        let current: i32 = if epoch == 3 { -1 } else { 3 };
        assert_eq!(owner.take_sent(), packet(kind::ACK_EPOCH, claimed, Some(&current.to_be_bytes())));
        owner.hear(&[packet(kind::DIFF, 0, None), new_leader(epoch)].concat());
        if claimed == 0 {
            assert_eq!(owner.failure().fault, Fault::NoSnapshot { kind: kind::DIFF });
            assert_eq!(owner.failure().refetch, None);
        } else {
            assert_ne!(owner.learner.phase(), Phase::Failed);
        }
    }
}

/// A.4: what goes to the leader for a client, and its answers.
#[test]
fn requests_and_answers_read_as_captured() {
    let mut owner = Owner::serving(false);
    let session = SessionId(0x0100_000e_fe82_0000);
    let create_session = RequestHeader { session, cxid: 0, op: -10 };
    owner.learner.request(create_session, &6_000i32.to_be_bytes(), None);
    owner.drain();
    assert_eq!(
        owner.take_sent(),
        hex("00000001 ffffffffffffffff 00000014 0100000efe820000 00000000 fffffff6 00001770 ffffffff")
    );
    let created =
        "00000002 0000000100000001 00000030 0100000efe820000 00000000 0000000100000001 000001a1f9f41b0e
        fffffff6 00001770 00000002 0000000051c6d660 ffffffff";
    owner.hear_all(&hex(created));
    assert_eq!(owner.take_sent(), hex("00000003 0000000100000001 ffffffff ffffffff"));
    owner.hear(&hex("00000004 0000000100000001 ffffffff ffffffff"));
    let wanted = owner.take_wanted();
    let [Output::Append { zxid, entry, compare: true }, Output::Commit(committed)] = &wanted[..] else {
        panic!("{wanted:?}");
    };
    assert_eq!((*zxid, *committed), (Zxid(0x1_0000_0001), Zxid(0x1_0000_0001)));
    assert_eq!(entry[..], hex(created)[16..16 + 0x30]);

    let body =
        "000000022f61 0000000568656c6c6f 00000001 0000001f 00000005776f726c64 00000006616e796f6e65 00000000";
    let auth = [("ip".to_owned(), "127.0.0.1".to_owned())];
    owner.learner.request(RequestHeader { session, cxid: 1, op: 1 }, &hex(body), Some(&auth));
    owner.learner.request(RequestHeader { session, cxid: 2, op: 9 }, &hex("000000022f61"), Some(&[]));
    owner.drain();
    let sent = [
        "00000001 ffffffffffffffff 0000003e 0100000efe820000 00000001 00000001",
        body,
        "00000001 000000026970 000000093132372e302e302e31",
        "00000001 ffffffffffffffff 00000016 0100000efe820000 00000002 00000009 000000022f61 00000000",
    ];
    assert_eq!(owner.take_sent(), hex(&sent.concat()));
    // create "/a", a failed setData without a digest, then the sync.
    let answers =
        "00000002 0000000100000002 0000005b 0100000efe820000 00000001 0000000100000002 000001a1f9f41b0e
        00000001 000000022f61 0000000568656c6c6f 00000001 0000001f 00000005776f726c64 00000006616e796f6e65
        00 00000001 00000002 000000021ebcd4ba ffffffff
        00000002 0000000100000003 00000024 0100000efe820000 00000004 0000000100000003 000001a1f9f41b0e
        ffffffff ffffff9b ffffffff
        00000004 0000000100000002 ffffffff ffffffff
        00000007 0000000000000000 ffffffff ffffffff
        00000004 0000000100000003 ffffffff ffffffff";
    owner.hear_all(&hex(answers));
    let wanted = owner.take_wanted();
    assert_eq!(
        wanted[2..],
        [Output::Commit(Zxid(0x1_0000_0002)), Output::Synced, Output::Commit(Zxid(0x1_0000_0003))]
    );
    assert_eq!(owner.take_sent(), [ack(0x1_0000_0002), ack(0x1_0000_0003)].concat());

    owner.learner.revalidate(SessionId(0x0400_0010_70bc_0000), 8_000);
    owner.drain();
    assert_eq!(
        owner.take_sent(),
        hex("00000006 ffffffffffffffff 0000000c 0400001070bc0000 00001f40 ffffffff")
    );
    owner.hear(&hex("00000006 ffffffffffffffff 00000009 0400001070bc0000 01 ffffffff"));
    let session = SessionId(0x0400_0010_70bc_0000);
    assert_eq!(owner.take_wanted(), [Output::Revalidated { session, valid: true }]);
}

/// A.5: a membership is told as it is proposed, and again as it is in force.
#[test]
fn a_reconfiguration_is_told_twice() {
    let text = b"server.1=127.0.0.1:32801:32811:participant;127.0.0.1:32181\nversion=100000001";
    let entry = set_data(0x1_0000_0001, "/zookeeper/config", text, txn::kind::RECONFIG);
    let proposal = packet(kind::PROPOSAL, 0x1_0000_0001, Some(&entry));
    let membership =
        Output::Membership { text: Bytes::copy_from_slice(text), proposed: Some(Zxid(0x1_0000_0001)) };
    let mut append = Output::Append { zxid: Zxid(0x1_0000_0001), entry: entry.clone().into(), compare: true };
    let commit = Output::Commit(Zxid(0x1_0000_0001));
    let activate = Output::Activate { zxid: Zxid(0x1_0000_0001), designated: 2 };
    let activation = packet(kind::COMMIT_AND_ACTIVATE, 0x1_0000_0001, Some(&hex("0000000000000002")));

    let mut owner = Owner::serving(false);
    owner.hear(&[&proposal[..], &activation].concat());
    let wanted = [membership.clone(), append.clone(), commit.clone(), activate.clone()];
    assert_eq!(owner.take_wanted(), wanted);

    let mut owner = Owner::serving(true);
    let data = [&hex("0000000000000002")[..], &entry].concat();
    owner.hear_all(&packet(kind::INFORM_AND_ACTIVATE, 0x1_0000_0001, Some(&data)));
    assert_eq!(owner.take_wanted(), wanted);
    assert_eq!(owner.take_sent(), b"");

    // While joining: proposed before NEWLEADER, in force behind it.
    let mut owner = Owner::new(false, start(1, 1, 0x1_0000_0000));
    owner.hear_all(&leader_info(1));
    owner.hear_all(&[packet(kind::DIFF, 0, None), proposal, activation, new_leader(1)].concat());
    owner.hear(&up_to_date());
    let new_leader = Output::NewLeader { epoch: Epoch(1) };
    let serve = Output::Serve { epoch: Epoch(1) };
    if let Output::Append { compare, .. } = &mut append {
        *compare = true;
    }
    assert_eq!(owner.take_wanted(), [membership, append, config(), new_leader, commit, activate, serve]);
}

/// §4.13: what is committed comes whole, and nothing of it is acknowledged.
#[test]
fn an_observer_takes_what_is_committed() {
    let mut owner = Owner::new(true, start(1, 1, 0x1_0000_0004));
    let info = "00000010 0000000100000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff";
    assert_eq!(owner.take_sent(), hex(info));
    owner.hear_all(&leader_info(2));
    owner.take_sent();
    let stream = [
        packet(kind::DIFF, 0x1_0000_0006, None),
        proposal(0x1_0000_0005),
        commit(0x1_0000_0005),
        inform(0x2_0000_0001),
        new_leader(2),
        inform(0x2_0000_0002),
    ];
    owner.take_wanted();
    owner.hear_all(&stream.concat());
    assert_eq!(owner.take_sent(), hex(ACK_2));
    owner.hear_all(&[inform(0x2_0000_0003), up_to_date()].concat());
    assert_eq!(owner.take_sent(), hex(ACK_2));
    assert_eq!(
        owner.take_wanted(),
        [
            append(0x1_0000_0005, true),
            append(0x2_0000_0001, false),
            config(),
            epochs(2, 2),
            Output::NewLeader { epoch: Epoch(2) },
            Output::Commit(Zxid(0x2_0000_0001)),
            Output::Serve { epoch: Epoch(2) },
            append(0x2_0000_0002, false),
            Output::Commit(Zxid(0x2_0000_0002)),
            append(0x2_0000_0003, false),
            Output::Commit(Zxid(0x2_0000_0003)),
        ]
    );
    // A follower's packets mean nothing here.
    owner.hear_all(&[proposal(0x2_0000_0009), commit(0x2_0000_0009), inform(0x2_0000_0004)].concat());
    assert_eq!(owner.take_wanted(), [append(0x2_0000_0004, false), Output::Commit(Zxid(0x2_0000_0004))]);
    assert_eq!(owner.take_sent(), b"");
}

/// S4: in whatever steps the log becomes durable, each proposal is acknowledged once, in order, and not before.
#[test]
fn acknowledgements_wait_for_the_log_and_leave_together() {
    let mut owner = Owner::serving(false);
    owner.hear(&(1..=6).flat_map(|counter| proposal(0x1_0000_0000 + counter)).collect::<Vec<_>>());
    assert_eq!(owner.take_sent(), b"");
    owner.learner.durable(owner.now, Zxid(0x1_0000_0004));
    let mut out = Vec::new();
    owner.learner.drain(&mut out);
    let acks: Vec<u8> = (1..=4).flat_map(|counter| ack(0x1_0000_0000 + counter)).collect();
    assert_eq!(out, [Output::Send(acks.into())]);
    owner.learner.durable(owner.now, Zxid(0x1_0000_0004));
    owner.learner.durable(owner.now, Zxid(0x1_0000_0002));
    owner.drain();
    assert_eq!(owner.take_sent(), b"");
    // A commit does not wait for this server's disk, and the acknowledgement is still owed.
    owner.hear(&(1..=6).flat_map(|counter| commit(0x1_0000_0000 + counter)).collect::<Vec<_>>());
    assert_eq!(owner.wanted.last(), Some(&Output::Commit(Zxid(0x1_0000_0006))));
    owner.learner.durable(owner.now, Zxid(0x1_0000_0006));
    owner.drain();
    assert_eq!(owner.take_sent(), [ack(0x1_0000_0005), ack(0x1_0000_0006)].concat());
}

/// ZOOKEEPER-4394: whatever comes between NEWLEADER and UPTODATE waits, while this server writes and after.
#[test]
fn live_traffic_waits_for_up_to_date() {
    let mut owner = Owner::new(false, start(0, 0, 0));
    owner.hear_all(&leader_info(1));
    owner.hear(&[packet(kind::SNAP, 0x1_0000_0000, None), snapshot(), new_leader(1)].concat());
    owner.take_wanted();
    owner.hear(&[packet(kind::PING, 0, None), proposal(0x1_0000_0001)].concat());
    owner.finish();
    owner.hear(&commit(0x1_0000_0001));
    owner.take_sent();
    owner.finish_all();
    assert_eq!(owner.take_sent(), hex(ACK_1), "no answer to the ping");
    owner.hear(&[proposal(0x1_0000_0002), packet(kind::PING, 0, None)].concat());
    let before = [config(), epochs(1, 1), Output::NewLeader { epoch: Epoch(1) }];
    assert_eq!(owner.take_wanted(), before);
    owner.hear(&[up_to_date(), proposal(0x1_0000_0003)].concat());
    assert_eq!(
        owner.take_wanted(),
        [
            Output::Commit(Zxid(0x1_0000_0000)),
            Output::Serve { epoch: Epoch(1) },
            append(0x1_0000_0001, true),
            Output::Commit(Zxid(0x1_0000_0001)),
            append(0x1_0000_0002, false),
            append(0x1_0000_0003, false),
        ]
    );
    assert_eq!(owner.take_sent(), hex(ACK_1));
    owner.finish_all();
    let acks: Vec<u8> = (1..=3).flat_map(|counter| ack(0x1_0000_0000 + counter)).collect();
    assert_eq!(owner.take_sent(), acks);
}

/// What the leader says in turns, as far as it can go before it needs an answer.
fn conversation(sync: Vec<u8>, first: i64) -> Vec<Vec<u8>> {
    vec![
        leader_info(4),
        [sync, proposal(first), commit(first), proposal(first + 1), new_leader(4)].concat(),
        packet(kind::PING, 4 << 32, None),
        [
            up_to_date(),
            commit(first + 1),
            packet(kind::PING, first + 1, None),
            proposal(0x4_0000_0001),
            proposal(0x4_0000_0002),
            commit(0x4_0000_0001),
            packet(kind::SYNC, 0, None),
            packet(kind::REVALIDATE, -1, Some(&hex("0400001070bc0000 00"))),
            packet(77, 0, Some(b"unheard of")),
            commit(0x4_0000_0002),
        ]
        .concat(),
    ]
}

/// However the bytes are cut, the same is wanted and sent.
///
/// Method: three conversations, each fed whole, byte by byte, cut once at every place, and in random pieces.
#[test]
fn where_the_bytes_are_cut_does_not_matter() {
    let snap = [packet(kind::SNAP, 0x3_0000_0005, None), snapshot()].concat();
    let diff = packet(kind::DIFF, 9, None);
    let trunc = packet(kind::TRUNC, 0x3_0000_0003, None);
    for (sync, first) in [(snap, 0x3_0000_0006), (diff, 0x3_0000_0006), (trunc, 0x3_0000_0004)] {
        let turns = conversation(sync, first);
        let run = |cut: &mut dyn FnMut() -> usize| {
            let mut owner = Owner::new(false, start(3, 3, 0x3_0000_0005));
            for turn in &turns {
                let mut rest = &turn[..];
                while !rest.is_empty() {
                    let (piece, behind) = rest.split_at(cut().clamp(1, rest.len()));
                    owner.hear_all(piece);
                    rest = behind;
                }
            }
            assert!(owner.learner.is_serving(), "{:?}", owner.wanted.last());
            (owner.wanted, owner.sent, owner.sink)
        };
        let whole = run(&mut || usize::MAX);
        assert_eq!(run(&mut || 1), whole);
        for first_cut in 1..turns.iter().map(Vec::len).sum() {
            let mut cuts = 0;
            let mut cut_once = || {
                cuts += 1;
                if cuts == 1 { first_cut } else { usize::MAX }
            };
            assert_eq!(run(&mut cut_once), whole, "first cut after {first_cut}");
        }
        let mut rng = Rng::new(5);
        for _ in 0..200 {
            assert_eq!(run(&mut || 1 + rng.below(40) as usize), whole);
        }
    }
}

/// O4: a connection that ends before NEWLEADER has asked for nothing but to promise the epoch.
///
/// Method: each conversation is broken off after every byte of what comes before NEWLEADER's last.
#[test]
fn nothing_is_asked_of_the_disk_before_new_leader() {
    let snap = [packet(kind::SNAP, 0x3_0000_0005, None), snapshot()].concat();
    for sync in [snap, packet(kind::DIFF, 0, None), packet(kind::TRUNC, 0x3_0000_0003, None)] {
        let first = if sync[3] == kind::TRUNC as u8 { 0x3_0000_0004 } else { 0x3_0000_0006 };
        let turns = conversation(sync, first);
        let sync_turn = &turns[1];
        for end in 0..sync_turn.len() {
            let mut owner = Owner::new(false, start(3, 3, 0x3_0000_0005));
            owner.hear_all(&turns[0]);
            assert_eq!(owner.take_wanted(), [epochs(4, 3)]);
            owner.hear_all(&sync_turn[..end]);
            assert_eq!(owner.take_wanted(), [], "after {end} bytes");
        }
    }
}

#[test]
fn touches_beyond_the_bound_wait_for_the_next_ping() {
    let mut owner = Owner::serving(false);
    let touches = vec![(SessionId(1), 1); TOUCHES_MAX + 2];
    owner.learner.received(owner.now, &packet(kind::PING, 5, None).repeat(2), &mut owner.sink);
    assert_eq!(owner.learner.pong(&touches), TOUCHES_MAX);
    assert_eq!(owner.learner.pong(&touches[TOUCHES_MAX..]), 2);
    assert_eq!(owner.learner.pong(&touches), 0, "nothing was asked");
    let mut out = Vec::new();
    owner.learner.drain(&mut out);
    let sent: usize =
        out.iter().map(|output| if let Output::Send(bytes) = output { bytes.len() } else { 0 }).sum();
    assert_eq!(sent, 2 * 20 + 12 * touches.len());
}
