//! What the admin server asks, and the snapshot of a stop.

use super::*;
use crate::admin::{Answer, Ask, Credentials, Permission, What};
use crate::proto::{AclEntry, Perms};
use crate::words::Word;

impl World {
    fn ask(&mut self, number: u64, what: What) {
        self.pipeline.handle(self.now, Input::Ask(Ask { number, what }));
    }

    fn answer(&mut self, what: What) -> Answer {
        self.ask(7, what);
        self.settle();
        let Told { number, answer } = self.told.pop().expect("an answer");
        assert_eq!((number, self.told.len()), (7, 0));
        answer
    }

    fn permission(&mut self, header: &str) -> Permission {
        let credentials = Credentials::parse(header, [127, 0, 0, 1].into()).unwrap();
        match self.answer(What::Permission(credentials)) {
            Answer::Permission(permission) => permission,
            other => panic!("{other:?}"),
        }
    }

    fn set_root_acl(&mut self, client: Handle, acl: &[(i32, &str, &str)]) {
        let entry = |(perms, scheme, id): &(i32, &str, &str)| AclEntry {
            perms: Perms(*perms),
            scheme: Some((*scheme).to_owned().into()),
            id: Some((*id).to_owned().into()),
        };
        let list: Vec<AclEntry<'_>> = acl.iter().map(entry).collect();
        let reply = self.call(client, Request::SetAcl { path: "/", acl: Some(&list), version: None });
        assert_eq!(reply.err, 0);
    }
}

#[test]
fn a_report_is_gathered_from_all_fronts() {
    let mut world = World::new(2);
    let (one, two) = (world.connect(0), world.connect(1));
    world.call(one, create("/a"));
    world.call(two, ephemeral("/a/e"));
    let Answer::Report(report) = world.answer(What::Report { word: Word::Cons, argument: 0 }) else {
        panic!("a report")
    };
    assert_eq!((report.connection_count, report.connections.len()), (2, 2));
    assert_eq!((report.tree.ephemerals_count, report.sessions.global), (1, 2));
    let Answer::Report(report) = world.answer(What::Report { word: Word::Stmk, argument: 5 }) else {
        panic!("a report")
    };
    assert_eq!(report.trace_mask, 5);
}

/// Whoever lacks one permission of five on the root may not take everything away.
#[test]
fn every_permission_on_the_root_is_wanted() {
    let mut world = World::new(1);
    let client = world.connect(0);
    for nobody in ["world anyone", "super x", "auth", "digest", "x509", "nonsense"] {
        assert_eq!(world.permission(nobody), Permission::NotAuthenticated, "{nobody}");
    }
    assert_eq!(world.permission("ip"), Permission::Granted);
    let bob = crate::request::auth::digest_id(crate::config::DigestAlgorithm::Sha1, "bob:pw");
    // The list has to stay changeable for the next round.
    for (perms, expected) in [(31, Permission::Granted), (30, Permission::NotAuthorized)] {
        world.set_root_acl(client, &[(perms, "digest", &bob), (16, "world", "anyone")]);
        assert_eq!(world.permission("digest bob:pw"), expected, "{perms}");
        assert_eq!(world.permission("digest bob:other"), Permission::NotAuthorized);
        assert_eq!(world.permission("ip"), Permission::NotAuthorized);
    }
    // Entries of different kinds add up.
    world.set_root_acl(client, &[(30, "digest", &bob), (1, "ip", "127.0.0.0/8"), (16, "world", "anyone")]);
    assert_eq!(world.permission("digest bob:pw"), Permission::Granted);
    world.set_root_acl(client, &[(15, "digest", &bob)]);
    assert_eq!(world.permission("digest bob:pw"), Permission::NotAuthorized);
}

#[test]
fn a_snapshot_is_made_when_asked_for_and_holds_what_was_there() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, create("/a"));
    let zxid = world.pipeline.database().zxid_applied();
    assert!(matches!(world.answer(What::Snapshot), Answer::Snapshot(Ok(of)) if of == zxid));
    assert_eq!(world.snapshots.len(), 1);
    // Nothing has changed: that one will do.
    assert!(matches!(world.answer(What::Snapshot), Answer::Snapshot(Ok(of)) if of == zxid));
    assert_eq!(world.snapshots.len(), 1);
    world.call(client, create("/b"));
    assert!(matches!(world.answer(What::Snapshot), Answer::Snapshot(Ok(of)) if of > zxid));
    assert_eq!(world.snapshots.len(), 2);
}

#[test]
fn who_asked_for_a_snapshot_is_told_that_it_failed() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.call(client, create("/a"));
    world.ask(1, What::Snapshot);
    world.pipeline.turn(world.now);
    let zxid = world.pipeline.database().zxid_applied();
    let failed = SnapshotEvent::Failed { zxid, reason: "no room".into() };
    world.pipeline.handle(world.now, Input::Snapshot(failed));
    let mut owed = Vec::new();
    world.pipeline.drain(&mut owed);
    world.settle();
    assert!(
        matches!(&world.told[..], [Told { number: 1, answer: Answer::Snapshot(Err(reason)) }] if reason == "no room")
    );
    world.told.clear();
    // Asked again, it is tried at once.
    assert!(matches!(world.answer(What::Snapshot), Answer::Snapshot(Ok(of)) if of == zxid));
}

/// The snapshot of a stop holds every write that was acknowledged.
#[test]
fn a_stop_leaves_a_snapshot_of_everything_when_told_to() {
    let mut world = World::with(1, |_, pipeline| pipeline.snapshot_on_stop = true);
    let client = world.connect(0);
    world.holding = true;
    world.send(client, &[create("/a")]);
    world.settle();
    world.pipeline.handle(world.now, Input::Stop);
    world.settle();
    assert!(!world.stopped && world.snapshots.is_empty());
    world.holding = false;
    world.make_durable();
    world.settle();
    let zxid = world.pipeline.database().zxid_applied();
    assert!(world.stopped);
    assert_eq!((world.snapshots.len(), world.snapshot_zxid), (1, zxid));
    // What comes now is not taken any more.
    world.send(client, &[create("/late")]);
    world.pass_ms(60_000);
    assert_eq!(world.pipeline.database().zxid_applied(), zxid);
    assert_eq!(world.pipeline.database().tree.find("/late"), None);
}
