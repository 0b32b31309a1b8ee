//! Leaders that are wrong, silent or mad: the connection ends, with the reason, and nothing panics.

use super::testing::*;
use super::*;
use crate::proto::quorum::PacketError;
use crate::snapshot::StreamError;
use crate::stdx::rng::Rng;

/// A follower at 0x300000005 that has promised epoch 4 and now hears what is to come.
fn syncing(observer: bool) -> Owner {
    let mut owner = Owner::new(observer, start(3, 3, 0x3_0000_0005));
    owner.hear_all(&leader_info(4));
    owner.take_wanted();
    owner
}

fn fault_of(mut owner: Owner, bytes: &[u8]) -> LearnerError {
    owner.hear(bytes);
    assert_eq!(owner.learner.phase(), Phase::Failed);
    owner.failure().clone()
}

#[test]
fn a_leader_info_must_be_one() {
    let fresh = || Owner::new(false, start(3, 3, 0));
    let fault = |bytes: &[u8]| {
        let error = fault_of(fresh(), bytes);
        assert_eq!(error.refetch, None);
        error.fault
    };
    assert_eq!(fault(&leader_info(2)), Fault::EpochOver { epoch: Epoch(2), accepted: Epoch(3) });
    let old = packet(kind::LEADER_INFO, 4 << 32, Some(&[0, 0, 0, 1]));
    assert_eq!(fault(&old), Fault::Protocol { version: 1 });
    for zxid in [0, -1, 1, 4 << 32 | 1, i64::MIN] {
        let bytes = packet(kind::LEADER_INFO, zxid, Some(&PROTOCOL_VERSION.to_be_bytes()));
        assert!(matches!(fault(&bytes), Fault::Malformed { .. }), "{zxid}");
    }
    for data in [None, Some(&[][..]), Some(&[0, 1, 0])] {
        let bytes = packet(kind::LEADER_INFO, 4 << 32, data);
        assert!(matches!(fault(&bytes), Fault::Malformed { .. }), "{data:?}");
    }
    assert!(matches!(fault(&new_leader(4)), Fault::Unexpected { expected: "LEADERINFO", .. }));
    let twice = [leader_info(4), leader_info(4)].concat();
    assert!(matches!(fault(&twice), Fault::Unexpected { expected: "nothing before ACKEPOCH", .. }));
}

/// S3: holes and repetitions, inside an epoch and across. In what levels the histories they call for a snapshot.
#[test]
fn what_does_not_follow_ends_it() {
    let diff = packet(kind::DIFF, 0, None);
    let trunc = packet(kind::TRUNC, 0x3_0000_0003, None);
    let snap = [packet(kind::SNAP, 0x3_0000_0007, None), snapshot()].concat();
    for (sync, zxids, before) in [
        (&diff, &[0x3_0000_0007][..], 0x3_0000_0005),
        (&diff, &[0x4_0000_0002], 0x3_0000_0005),
        (&diff, &[0x3_0000_0006, 0x3_0000_0008], 0x3_0000_0006),
        (&diff, &[0x3_0000_0006, 0x3_0000_0006], 0x3_0000_0006),
        (&diff, &[0x4_0000_0001, 0x3_0000_0006], 0x4_0000_0001),
        (&diff, &[0x4_0000_0000], 0x3_0000_0005),
        (&trunc, &[0x3_0000_0006], 0x3_0000_0003),
        (&trunc, &[0x3_0000_0004, 0x3_0000_0006], 0x3_0000_0004),
        (&snap, &[0x3_0000_0006, 0x3_0000_0009], 0x3_0000_0007),
    ] {
        let entries: Vec<u8> = zxids.iter().flat_map(|&zxid| proposal(zxid)).collect();
        let error = fault_of(syncing(false), &[&sync[..], &entries].concat());
        let zxid = Zxid(zxids[zxids.len() - 1]);
        assert_eq!(error.fault, Fault::Gap { zxid_before: Zxid(before), zxid });
        assert_eq!(error.refetch, Some(Epoch(4)));
    }
    for zxid in [0x1_0000_0002, 0x1_0000_0000, 0, -1, 0x0_0000_0001] {
        let error = fault_of(Owner::serving(false), &proposal(zxid));
        assert!(matches!(error.fault, Fault::Gap { .. } | Fault::Malformed { .. }), "{error:?}");
        assert_eq!(error.refetch, None, "live traffic begins anew by itself");
    }
    let twice = [proposal(0x1_0000_0001), proposal(0x1_0000_0001)].concat();
    assert!(matches!(fault_of(Owner::serving(false), &twice).fault, Fault::Gap { .. }));
    assert!(matches!(fault_of(Owner::serving(true), &inform(0x1_0000_0002)).fault, Fault::Gap { .. }));
    let ahead = fault_of(Owner::serving(false), &proposal(0x2_0000_0001));
    assert!(matches!(ahead.fault, Fault::Malformed { .. }), "{ahead:?}");
}

#[test]
fn entries_at_or_below_our_own_are_dropped_while_joining() {
    let mut owner = syncing(false);
    let stream = [
        packet(kind::DIFF, 0, None),
        proposal(0x3_0000_0004),
        commit(0x3_0000_0004),
        proposal(0x3_0000_0005),
        commit(0x3_0000_0005),
        proposal(0x3_0000_0006),
        commit(0x3_0000_0006),
        new_leader(4),
    ];
    owner.hear(&stream.concat());
    assert_eq!(owner.take_wanted(), [append(0x3_0000_0006, true)]);
}

/// The oldest open proposal is committed first, and once.
#[test]
fn commits_out_of_order_end_it() {
    let two = [proposal(0x1_0000_0001), proposal(0x1_0000_0002)].concat();
    for (commits, zxid, expected) in [
        (&[0x1_0000_0002][..], 0x1_0000_0002, Some(0x1_0000_0001)),
        (&[0x1_0000_0001, 0x1_0000_0001], 0x1_0000_0001, Some(0x1_0000_0002)),
        (&[0x1_0000_0001, 0x1_0000_0002, 0x1_0000_0003], 0x1_0000_0003, None),
        (&[0x7_0000_0001], 0x7_0000_0001, Some(0x1_0000_0001)),
    ] {
        let bytes: Vec<u8> = commits.iter().flat_map(|&zxid| commit(zxid)).collect();
        let expected = Fault::CommitOrder { zxid: Zxid(zxid), expected: expected.map(Zxid) };
        let error = fault_of(Owner::serving(false), &[&two[..], &bytes].concat());
        assert_eq!(error, LearnerError { fault: expected.clone(), refetch: None });
        // The same while joining.
        let mut owner = Owner::new(false, start(1, 1, 0x1_0000_0000));
        owner.hear_all(&leader_info(1));
        let sync = packet(kind::DIFF, 0, None);
        assert_eq!(fault_of(owner, &[&sync[..], &two, &bytes].concat()).fault, expected);
    }
    // What was here before is committed whether the leader says so or not.
    let mut owner = Owner::serving(false);
    owner.hear(&commit(0));
    assert_eq!(owner.take_wanted(), []);
}

#[test]
fn entries_that_cannot_be_read_back_are_not_logged() {
    let mut longer = entry(0x1_0000_0001);
    longer[28..32].copy_from_slice(&999i32.to_be_bytes());
    for (data, why) in [
        (None, "null"),
        (Some(vec![]), "empty"),
        (Some(entry(0x1_0000_0001)[..40].to_vec()), "cut"),
        (Some(entry(0x1_0000_0002)), "another's zxid"),
        (Some(longer), "unknown type"),
    ] {
        let bytes = packet(kind::PROPOSAL, 0x1_0000_0001, data.as_deref());
        let fault = fault_of(Owner::serving(false), &bytes).fault;
        assert!(matches!(fault, Fault::Malformed { kind: kind::PROPOSAL, .. }), "{why}: {fault}");
    }
    for bytes in [
        packet(kind::REVALIDATE, -1, Some(&[0; 8])),
        packet(kind::REVALIDATE, -1, None),
        packet(kind::COMMIT_AND_ACTIVATE, 0x1_0000_0001, Some(&[0; 7])),
    ] {
        assert!(matches!(fault_of(Owner::serving(false), &bytes).fault, Fault::Malformed { .. }));
    }
    let bytes = packet(kind::INFORM_AND_ACTIVATE, 0x1_0000_0001, Some(&[0; 7]));
    assert!(matches!(fault_of(Owner::serving(true), &bytes).fault, Fault::Malformed { .. }));
}

#[test]
fn lengths_beyond_the_bound_are_refused_as_they_come() {
    for length in [ENTRY_BYTES_MAX as i32 + 9, i32::MAX, -2, i32::MIN] {
        let mut bytes = packet(kind::PROPOSAL, 0x1_0000_0001, Some(&[0; 9]));
        bytes[12..16].copy_from_slice(&length.to_be_bytes());
        let fault = fault_of(Owner::serving(false), &bytes[..16]).fault;
        assert!(matches!(fault, Fault::Packet(PacketError::TooLong { .. })), "{fault}");
    }
    // Ids, of which a leader sends none, may not pile up either.
    let mut bytes = packet(kind::PING, 0, None);
    bytes.truncate(16);
    put_i32(&mut bytes, 1000);
    let mut owner = Owner::serving(false);
    for _ in 0..2000 {
        put_string(&mut bytes, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        owner.hear(&bytes);
        bytes.clear();
        if owner.learner.phase() == Phase::Failed {
            break;
        }
    }
    assert!(matches!(owner.failure().fault, Fault::Packet(PacketError::TooLong { .. })));
}

#[test]
fn a_wrong_way_to_level_histories_ends_it() {
    let error = fault_of(syncing(false), &packet(kind::TRUNC, 0x3_0000_0006, None));
    let ahead = Fault::TruncateAhead { to: Zxid(0x3_0000_0006), zxid_last: Zxid(0x3_0000_0005) };
    assert_eq!(error, LearnerError { fault: ahead, refetch: Some(Epoch(4)) });
    let fault = fault_of(syncing(false), &packet(kind::TRUNC, -1, None)).fault;
    assert!(matches!(fault, Fault::TruncateAhead { .. }));
    let fault = fault_of(syncing(false), &packet(kind::SNAP, 0x5_0000_0000, None)).fault;
    assert!(matches!(fault, Fault::Malformed { .. }));
    let snap = packet(kind::SNAP, 0x3_0000_0000, None);
    let mut damaged = snapshot();
    *damaged.last_mut().unwrap() = b'r';
    let fault = fault_of(syncing(false), &[&snap[..], &damaged].concat()).fault;
    assert_eq!(fault, Fault::Signature { found: b'r' });
    let mut damaged = snapshot();
    let root_at = 4 + 2 * 12 + 4 + 8 + crate::proto::acl::READ_UNSAFE.len();
    damaged[root_at..root_at + 4].copy_from_slice(&(-9i32).to_be_bytes());
    let fault = fault_of(syncing(false), &[&snap[..], &damaged].concat()).fault;
    assert!(matches!(fault, Fault::Snapshot(StreamError::Malformed { part: "a node", .. })), "{fault}");
    let other_epoch = [packet(kind::DIFF, 0, None), new_leader(5)].concat();
    assert!(matches!(fault_of(syncing(false), &other_epoch).fault, Fault::Malformed { .. }));
    // UPTODATE and NEWLEADER out of turn.
    let diff = packet(kind::DIFF, 0, None);
    for bytes in [
        [diff.clone(), up_to_date()].concat(),
        [diff.clone(), new_leader(4), up_to_date()].concat(),
        [diff.clone(), new_leader(4), new_leader(4)].concat(),
        [diff.clone(), diff].concat(),
    ] {
        assert!(matches!(fault_of(syncing(false), &bytes).fault, Fault::Unexpected { .. }));
    }
}

/// Every packet type in every phase: it is taken, ignored or ends the connection, as listed.
#[test]
fn every_packet_in_every_phase() {
    type Make = fn() -> Owner;
    let phases: [(&str, Make, &[i32]); 6] = [
        ("discovery", || Owner::new(false, start(3, 3, 0x3_0000_0005)), &[kind::LEADER_INFO]),
        ("sync kind", || syncing(false), &[kind::DIFF, kind::TRUNC, kind::SNAP]),
        (
            "staging",
            || {
                let mut owner = syncing(false);
                owner.hear(&[packet(kind::DIFF, 0, None), proposal(0x3_0000_0006)].concat());
                owner
            },
            &[kind::COMMIT, kind::COMMIT_AND_ACTIVATE, kind::PING, kind::NEW_LEADER],
        ),
        (
            "writing",
            || {
                let mut owner = syncing(false);
                owner.hear(&[packet(kind::DIFF, 0, None), proposal(0x3_0000_0006), new_leader(4)].concat());
                owner
            },
            &[kind::COMMIT, kind::COMMIT_AND_ACTIVATE, kind::PING],
        ),
        (
            "new leader acknowledged",
            || {
                let mut owner = syncing(false);
                let bytes = [packet(kind::DIFF, 0, None), proposal(0x3_0000_0006), new_leader(4)];
                owner.hear_all(&bytes.concat());
                owner
            },
            &[kind::COMMIT, kind::COMMIT_AND_ACTIVATE, kind::PING, kind::UP_TO_DATE],
        ),
        (
            "broadcast",
            || {
                let mut owner = syncing(false);
                let bytes = [packet(kind::DIFF, 0, None), proposal(0x3_0000_0006), new_leader(4)];
                owner.hear_all(&bytes.concat());
                owner.hear_all(&up_to_date());
                owner
            },
            &[
                kind::COMMIT,
                kind::COMMIT_AND_ACTIVATE,
                kind::PING,
                kind::SYNC,
                kind::REVALIDATE,
                // Ignored.
                0,
                -1,
                20,
                kind::INFORM,
                kind::INFORM_AND_ACTIVATE,
            ],
        ),
    ];
    for (phase, make, good) in phases {
        for kind in -1..=20 {
            let mut owner = make();
            let bytes = match kind {
                kind::LEADER_INFO => leader_info(4),
                kind::NEW_LEADER => new_leader(4),
                kind::REVALIDATE => packet(kind, -1, Some(&[0; 9])),
                kind::COMMIT | kind::COMMIT_AND_ACTIVATE => packet(kind, 0x3_0000_0006, Some(&[0; 8])),
                kind::DIFF | kind::TRUNC | kind::SNAP => packet(kind, 0x3_0000_0004, None),
                _ => packet(kind, 0x3_0000_0006, None),
            };
            owner.hear(&bytes);
            let has_failed = owner.learner.phase() == Phase::Failed;
            assert_eq!(
                has_failed,
                !good.contains(&kind),
                "type {kind} in {phase}: {:?}",
                owner.wanted.last()
            );
        }
    }
}

#[test]
fn what_is_held_is_bounded() {
    let entries: Vec<u8> = (6..).take(100).flat_map(|counter| proposal(0x3_0000_0000 + counter)).collect();
    let live: Vec<u8> = (1..=100).flat_map(|counter| proposal(0x4_0000_0000 + counter)).collect();
    let fault = Fault::TooMuch { bytes_max: STAGED_BYTES_MAX };
    let error = fault_of(syncing(false), &[&packet(kind::DIFF, 0, None)[..], &entries].concat());
    assert_eq!(error, LearnerError { fault: fault.clone(), refetch: Some(Epoch(4)) });
    let error = fault_of(syncing(false), &[&packet(kind::DIFF, 0, None)[..], &new_leader(4), &live].concat());
    assert_eq!(error, LearnerError { fault, refetch: None });
    let mut owner = Owner::serving(false);
    owner.learner.received(owner.now, &packet(kind::PING, 0, None).repeat(PINGS_MAX + 1), &mut owner.sink);
    assert_eq!(owner.learner.phase(), Phase::Failed);
    let mut owner = Owner::serving(false);
    owner.learner.unsent_bytes = UNSENT_BYTES_MAX;
    owner.hear_all(&proposal(0x1_0000_0001));
    assert!(matches!(owner.failure().fault, Fault::Unsent { .. }));
}

#[test]
fn after_a_failure_nothing_is_said_or_wanted() {
    let mut owner = syncing(false);
    owner.hear(&[packet(kind::DIFF, 0, None), proposal(0x3_0000_0006), new_leader(4), up_to_date()].concat());
    assert_eq!(owner.learner.phase(), Phase::Failed);
    owner.take_wanted();
    owner.take_sent();
    owner.finish_all();
    owner.hear(&proposal(0x3_0000_0007));
    owner.learner.epochs_written(owner.now, Epochs { accepted: Epoch(4), current: Epoch(4) });
    owner.learner.installed(owner.now, Zxid(9));
    owner.learner.truncated(owner.now, Zxid(9));
    owner.learner.request(RequestHeader { session: SessionId(1), cxid: 1, op: 1 }, b"", None);
    owner.learner.revalidate(SessionId(1), 1);
    owner.learner.on_timer(Instant(u64::MAX));
    owner.drain();
    assert_eq!((owner.take_wanted(), owner.take_sent()), (vec![], vec![]));
    assert_eq!(owner.learner.next_timer(), None);
}

/// Silence is counted from the last byte heard: `initLimit` until UPTODATE, `syncLimit` from then on, and not while this server
/// writes.
#[test]
fn a_silent_leader_is_given_up() {
    let init = Duration::from_millis(10 * TICK_MS);
    let sync = Duration::from_millis(5 * TICK_MS);
    let step = Duration::from_millis(TICK_MS);
    let mut owner = Owner::new(false, start(3, 3, 0x3_0000_0005));
    let steps: [(Vec<u8>, bool, Duration); 5] = [
        (vec![], false, init),
        (leader_info(4), true, init),
        (packet(kind::DIFF, 0, None)[..5].to_vec(), false, init),
        ([&packet(kind::DIFF, 0, None)[5..], &proposal(0x3_0000_0006), &new_leader(4)].concat(), true, init),
        (up_to_date(), false, sync),
    ];
    for (bytes, writes, limit) in steps {
        owner.now = owner.now + step;
        let heard_before = owner.learner.next_timer();
        owner.hear(&bytes);
        if bytes.is_empty() {
            // Nothing was heard; let the first packet come now.
            assert_eq!(owner.learner.next_timer(), heard_before);
            continue;
        }
        if writes {
            assert_eq!(owner.learner.next_timer(), None);
            owner.learner.on_timer(Instant(u64::MAX));
            owner.now = owner.now + Duration::from_secs(3600);
            owner.finish_all();
        }
        assert_eq!(owner.learner.next_timer(), Some(owner.now + limit));
        owner.learner.on_timer(Instant((owner.now + limit).0 - 1));
        assert_ne!(owner.learner.phase(), Phase::Failed);
    }
    owner.learner.on_timer(owner.now + sync);
    owner.drain();
    assert_eq!(owner.failure().fault, Fault::Silent { limit_ms: 5 * TICK_MS });
    let mut owner = Owner::new(false, start(3, 3, 0x3_0000_0005));
    owner.learner.on_timer(owner.now + init);
    owner.drain();
    assert_eq!(owner.failure().fault, Fault::Silent { limit_ms: 10 * TICK_MS });
}

/// Method: a sound conversation with bytes changed, packets dropped, doubled and swapped, in random pieces, and a disk that
/// answers at random. No panic; what is appended follows; nothing is acknowledged that is not durable.
#[test]
fn madness_never_panics() {
    let seed = 20_261_120;
    let mut rng = Rng::new(seed);
    let mut served = 0;
    for round in 0..12_000 {
        let observer = rng.below(4) == 0;
        let mut packets: Vec<Vec<u8>> = vec![leader_info(4)];
        let first = match rng.below(3) {
            0 => {
                packets.push([packet(kind::SNAP, 0x3_0000_0004, None), snapshot()].concat());
                0x3_0000_0005
            }
            1 => {
                packets.push(packet(kind::TRUNC, 0x3_0000_0003, None));
                0x3_0000_0004
            }
            _ => {
                packets.push(packet(kind::DIFF, 0, None));
                0x3_0000_0006
            }
        };
        packets.extend([
            proposal(first),
            commit(first),
            inform(first + 1),
            proposal(first + 2),
            new_leader(4),
        ]);
        packets.extend([proposal(0x4_0000_0001), up_to_date(), commit(first + 2), commit(0x4_0000_0001)]);
        packets.extend([packet(kind::PING, 7, None), packet(kind::SYNC, 0, None)]);
        if observer {
            packets.push(inform(0x4_0000_0002));
        } else {
            packets.push([proposal(0x4_0000_0002), commit(0x4_0000_0002)].concat());
        }
        for _ in 0..rng.below(3) {
            let at = rng.below(packets.len() as u64) as usize;
            match rng.below(5) {
                0 => {
                    packets.remove(at);
                }
                1 => packets.insert(at, packets[at].clone()),
                2 => {
                    let with = rng.below(packets.len() as u64) as usize;
                    packets.swap(at, with);
                }
                3 => {
                    let to = rng.below(packets[at].len() as u64) as usize;
                    packets[at].truncate(to);
                }
                _ => {
                    let byte = rng.below(packets[at].len() as u64) as usize;
                    packets[at][byte] = rng.next_u64() as u8;
                }
            }
        }
        let mut owner = Owner::new(observer, start(3, 3, 0x3_0000_0005));
        owner.take_sent();
        let mut durable = Zxid(0x3_0000_0005);
        for packet in &packets {
            let mut rest = &packet[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((1 + rng.below(200) as usize).min(rest.len()));
                owner.hear(piece);
                rest = behind;
            }
            // Mostly the leader waits for its answers.
            if rng.below(8) > 0 {
                while let Some(work) = owner.finish() {
                    durable = durable_after(&work, durable);
                    check_acks(&owner.take_sent(), durable, round);
                }
            }
        }
        served += u32::from(owner.learner.is_serving());
        check_follows(&owner.wanted, round);
    }
    assert!(served > 2_000, "only {served} conversations came to their end");
}

fn durable_after(work: &Output, durable: Zxid) -> Zxid {
    match work {
        Output::Truncate(zxid) | Output::Install { zxid, .. } => *zxid,
        Output::Append { zxid, .. } => *zxid,
        _ => durable,
    }
}

fn check_acks(sent: &[u8], durable: Zxid, round: u32) {
    let mut rest = sent;
    while let Some((packet, bytes)) = QuorumPacket::decode(rest, 1 << 20).expect("sound packets") {
        if packet.kind == kind::ACK && packet.zxid.counter() != 0 {
            assert!(packet.zxid <= durable, "round {round}: {} acknowledged, {durable} durable", packet.zxid);
        }
        rest = &rest[bytes..];
    }
    assert!(rest.is_empty(), "round {round}: half a packet sent");
}

fn check_follows(wanted: &[Output], round: u32) {
    let mut last = Zxid(0x3_0000_0005);
    for output in wanted {
        match output {
            Output::Truncate(zxid) | Output::Install { zxid, .. } => last = *zxid,
            Output::Append { zxid, .. } => {
                assert!(crate::txnlog::follows(last, *zxid), "round {round}: {zxid} behind {last}");
                last = *zxid;
            }
            Output::Commit(zxid) => assert!(*zxid <= last, "round {round}: {zxid} beyond {last}"),
            _ => {}
        }
    }
}
