//! Two memberships at once.

use super::*;
use crate::zab::leader::NextMembership;

fn next(voters: &[u8], keeps_leader: bool) -> NextMembership {
    let voters: ServerSet = voters.iter().copied().map(ServerId).collect();
    let text = Bytes::from_static(b"the next\nversion=200000002");
    NextMembership { verifier: Verifier::Majority { voters }, text, keeps_leader }
}

/// Voters 1, 2, 3 with server 2 and the strangers 4 and 5 following, as connections of these numbers, and 6 observing.
fn world() -> World {
    let mut world = World::established();
    for sid in [4, 5] {
        world.join(sid, i64::from(sid), zxid(1, 3));
    }
    world.join_as(6, 6, zxid(1, 3), kind::OBSERVER_INFO);
    world.said.clear();
    world.inboxes.clear();
    world
}

fn committed(world: &mut World) -> Vec<Output> {
    std::mem::take(&mut world.said)
}

#[test]
fn both_quorums_are_needed_from_the_proposal_to_its_commit() {
    let mut world = world();
    let before = world.propose(1);
    let change = world.propose(1);
    world.leader.propose_membership(next(&[1, 4, 5], true));
    let after = world.propose(2);
    world.durable(after);
    world.ack(2, after);
    // What was proposed before needs the old one alone.
    assert_eq!(committed(&mut world), [Output::Committed(before)]);
    world.ack(4, change);
    let designated = ServerId(1);
    assert_eq!(
        committed(&mut world),
        [Output::Committed(change), Output::Activated { zxid: change, designated }]
    );
    // From here on the new one alone decides.
    world.ack(2, after);
    assert_eq!(committed(&mut world), []);
    world.ack(5, after);
    assert_eq!(committed(&mut world), [Output::Committed(after)]);

    let got = world.read(4).into_iter().filter(|got| got.kind != kind::PROPOSAL).collect::<Vec<_>>();
    assert_eq!(got[0], Got::new(kind::COMMIT, before));
    let data = Some(1i64.to_be_bytes().to_vec());
    assert_eq!(got[1], Got { kind: kind::COMMIT_AND_ACTIVATE, zxid: change, data });
    assert_eq!(got[2], Got::new(kind::COMMIT, change.next()));
    let got = world.read(6);
    let mut data = 1i64.to_be_bytes().to_vec();
    data.extend_from_slice(&entry(change));
    assert_eq!(got[1], Got { kind: kind::INFORM_AND_ACTIVATE, zxid: change, data: Some(data) });
    // Who comes now is told the new one.
    world.join(7, 7, zxid(1, 3));
    let got = world.read(7);
    let new_leader = got.iter().find(|got| got.kind == kind::NEW_LEADER).unwrap();
    assert_eq!(new_leader.data.as_deref(), Some(&b"the next\nversion=200000002"[..]));
}

#[test]
fn the_new_quorum_alone_is_not_enough() {
    let mut world = world();
    let change = world.propose(1);
    world.leader.propose_membership(next(&[1, 4, 5], true));
    world.durable(change);
    world.ack(4, change);
    world.ack(5, change);
    assert_eq!(committed(&mut world), []);
    world.ack(2, change);
    assert_eq!(committed(&mut world).len(), 2);
}

#[test]
fn what_new_voters_hold_already_counts() {
    let mut world = world();
    let change = world.propose(1);
    world.leader.propose_membership(next(&[2, 4, 5], true));
    let last = world.propose(1);
    world.durable(last);
    for conn in [2, 4] {
        world.ack(conn, last);
    }
    // Server 1 has no vote in it, and leads on as it was told that it may.
    assert_eq!(committed(&mut world)[0], Output::Committed(change));
}

#[test]
fn a_leader_that_is_not_to_lead_names_who_holds_most_and_commits_nothing_more() {
    let mut world = world();
    let change = world.propose(1);
    world.leader.propose_membership(next(&[2, 4, 5], false));
    let last = world.propose(1);
    world.durable(last);
    world.ack(5, last);
    world.ack(2, change);
    let designated = ServerId(5);
    assert_eq!(
        committed(&mut world),
        [Output::Committed(change), Output::Activated { zxid: change, designated }]
    );
    for conn in [2, 4] {
        world.ack(conn, last);
    }
    assert_eq!(committed(&mut world), []);
    assert_eq!(world.leader.zxid_committed(), change);
}

#[test]
fn a_learner_that_joins_meanwhile_is_told_behind_its_uptodate() {
    let mut world = world();
    world.hello(7, 7, 1, kind::FOLLOWER_INFO);
    world.ack_epoch(7, 1, zxid(1, 3));
    let change = world.propose(1);
    world.leader.propose_membership(next(&[1, 2, 4], true));
    world.durable(change);
    world.ack(2, change);
    world.ack(4, change);
    world.ack(7, zxid(2, 0));
    let kinds = world.kinds(7);
    let tail = &kinds[kinds.len() - 3..];
    assert_eq!(tail, [kind::UP_TO_DATE, kind::PROPOSAL, kind::COMMIT_AND_ACTIVATE]);
}

#[test]
fn a_reign_begins_with_quorums_of_what_was_seen_last_and_raises_version_zero() {
    let voters: ServerSet = [1, 4, 5].into_iter().map(ServerId).collect();
    let proposed = Some(Verifier::Majority { voters });
    let options = LeaderOptions { proposed, raises_version: true, ..options(&[1, 2, 3]) };
    let mut world = World::new(options, epochs(1, 1), &[(1, 3)]);
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    assert_eq!(world.written, []);
    world.hello(4, 4, 1, kind::FOLLOWER_INFO);
    for conn in [2, 4] {
        world.ack_epoch(conn, 1, zxid(1, 3));
    }
    world.ack(2, zxid(2, 0));
    assert!(!world.leader.is_established());
    world.ack(4, zxid(2, 0));
    assert!(world.leader.is_established());
    let got = world.read(4);
    let new_leader = got.iter().find(|got| got.kind == kind::NEW_LEADER).unwrap();
    assert_eq!(new_leader.data.as_deref(), Some(&b"the configuration\nversion=200000000"[..]));
}
