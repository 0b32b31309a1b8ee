//! Exchanges captured from real servers (quorum-protocol, appendix A): the leader's side byte for byte.

use super::*;

#[test]
fn first_join_of_empty_servers() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(0, 0), &[]);
    world.connect(2);
    let sent =
        |world: &mut World| world.inboxes.remove(&PeerConn(2 | PeerConn::ACCEPTED)).unwrap_or_default();
    world.send(
        2,
        &hex("0000000b 0000000000000000 00000014 0000000000000002 00010000 0000000000000000 ffffffff"),
    );
    assert_eq!(sent(&mut world), hex("00000011 0000000100000000 00000004 00010000 ffffffff"));
    assert_eq!(world.written, [epochs(1, 0)]);
    world.send(2, &hex("00000012 0000000000000000 00000004 00000000 ffffffff"));
    assert_eq!(world.written, [epochs(1, 0), epochs(1, 1)]);
    let mut expected = hex("0000000d 0000000000000000 ffffffff ffffffff 0000000a 0000000100000000 0000001b");
    expected.extend_from_slice(b"the configuration\nversion=0");
    expected.extend_from_slice(&hex("ffffffff"));
    assert_eq!(sent(&mut world), expected);
    world.send(2, &hex("00000003 0000000100000000 ffffffff ffffffff"));
    assert_eq!(sent(&mut world), hex("0000000c ffffffffffffffff ffffffff ffffffff"));
    assert_eq!(world.said, [Output::Established { epoch: Epoch(1) }]);
    world.said.clear();
    world.send(2, &hex("00000003 0000000100000000 ffffffff ffffffff"));
    world.now = world.leader.next_timer().unwrap();
    world.leader.on_timer(world.now);
    world.turn();
    assert_eq!(sent(&mut world), hex("00000005 0000000100000000 ffffffff ffffffff"));
    world.send(2, &hex("00000005 0000000100000000 00000000 ffffffff"));
    assert_eq!(world.said, []);
    world.send(2, &hex("00000005 0000000100000008 0000000c 0100000efe820001 00002710 ffffffff"));
    let session = SessionId(0x0100_000e_fe82_0001);
    assert_eq!(world.said, [Output::Touch { session, timeout_ms: 10_000 }]);
    assert!(!world.is_closed(2));
}

#[test]
fn later_join_with_a_difference() {
    // Follower at 0x10000000c, leader at 0x10000000d, new epoch 2.
    let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 13)]);
    world.hello(2, 2, 1, kind::FOLLOWER_INFO);
    assert_eq!(world.read(2)[0].zxid, zxid(2, 0));
    world.ack_epoch(2, 1, zxid(1, 12));
    let got = world.read(2);
    let d = zxid(1, 13);
    assert_eq!(got[..3], [Got::new(13, d), Got::entry(2, d), Got::new(4, d)]);
    assert_eq!((got[3].kind, got[3].zxid, got.len()), (kind::NEW_LEADER, zxid(2, 0), 4));
    // ACK of NEWLEADER, then of the proposal, as 3.8.0 does.
    world.ack(2, zxid(2, 0));
    world.ack(2, d);
    assert_eq!(world.kinds(2), [kind::UP_TO_DATE]);
    world.ack(2, zxid(2, 0));
    assert!(!world.is_closed(2) && world.leader.is_established());
    // The same epoch again after a role change: -1 instead of an epoch.
    world.hello(3, 3, 2, kind::FOLLOWER_INFO);
    world.ack_epoch(3, -1, zxid(1, 13));
    assert_eq!(world.kinds(3), [kind::LEADER_INFO, kind::DIFF, kind::NEW_LEADER]);
}

#[test]
fn requests_and_transactions() {
    let mut world = World::new(options(&[1, 2, 3]), epochs(0, 0), &[]);
    world.hello(2, 2, 0, kind::FOLLOWER_INFO);
    world.ack_epoch(2, 0, Zxid(0));
    world.ack(2, zxid(1, 0));
    world.hello(4, 4, 0, kind::OBSERVER_INFO);
    world.ack_epoch(4, 0, Zxid(0));
    world.ack(4, zxid(1, 0));
    world.said.clear();
    world.inboxes.clear();
    let session = SessionId(0x0100_000e_fe82_0000);
    world.send(
        2,
        &hex("00000001 ffffffffffffffff 00000014 0100000efe820000 00000000 fffffff6 00001770 ffffffff"),
    );
    let conn = world.conn(2);
    let header = RequestHeader { session, cxid: 0, op: -10 };
    let body = Bytes::from(hex("00001770"));
    assert_eq!(world.said, [Output::Request { conn, header, body, auth: Vec::new() }]);
    let txn = Bytes::from(hex(
        "0100000efe820000 00000000 0000000100000001 000001a1f9f41b0e fffffff6 00001770 00000002 0000000051c6d660",
    ));
    world.recent.push(zxid(1, 1), txn.clone());
    world.leader.propose(world.now, zxid(1, 1), &txn);
    world.turn();
    let proposal = [hex("00000002 0000000100000001 00000030"), txn.to_vec(), hex("ffffffff")].concat();
    assert_eq!(world.inboxes.remove(&conn), Some(proposal));
    world.durable(zxid(1, 1));
    world.send(2, &hex("00000003 0000000100000001 ffffffff ffffffff"));
    assert_eq!(world.inboxes.remove(&conn), Some(hex("00000004 0000000100000001 ffffffff ffffffff")));
    let inform = [hex("00000008 0000000100000001 00000030"), txn.to_vec(), hex("ffffffff")].concat();
    assert_eq!(world.inboxes.remove(&world.conn(4)), Some(inform));
    world.said.clear();

    world.send(
        2,
        &hex(
            "00000001 ffffffffffffffff 0000003e 0100000efe820000 00000001 00000001 000000022f61 0000000568656c6c6f
             00000001 0000001f 00000005776f726c64 00000006616e796f6e65 00000000
             00000001 000000026970 000000093132372e302e302e31",
        ),
    );
    let [Output::Request { header, body, auth, .. }] = &world.said[..] else { panic!("{:?}", world.said) };
    assert_eq!(*header, RequestHeader { session, cxid: 1, op: 1 });
    assert_eq!((body.len(), &auth[..]), (0x3e - 16, &[("ip".to_owned(), "127.0.0.1".to_owned())][..]));
    world.said.clear();

    world.send(2, &hex("00000006 ffffffffffffffff 0000000c 0400001070bc0000 00001f40 ffffffff"));
    let session = SessionId(0x0400_0010_70bc_0000);
    assert_eq!(world.said, [Output::Revalidate { conn, session, timeout_ms: 8000 }]);
    world.leader.revalidated(conn, session, true);
    world.turn();
    let answer = hex("00000006 ffffffffffffffff 00000009 0400001070bc0000 01 ffffffff");
    assert_eq!(world.inboxes.remove(&conn), Some(answer));

    world.leader.sync(conn);
    world.turn();
    let ping = hex("00000005 0000000100000001 ffffffff ffffffff");
    assert_eq!(world.inboxes.remove(&conn), Some(ping));
    world.send(2, &hex("00000005 0000000100000001 00000000 ffffffff"));
    let sync = hex("00000007 0000000000000000 ffffffff ffffffff");
    assert_eq!(world.inboxes.remove(&conn), Some(sync));
}
