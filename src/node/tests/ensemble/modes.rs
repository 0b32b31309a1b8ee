//! Reads without a leader, sessions of one server, observers without a disk.

use super::*;
use crate::proto::client::OpCode;

const OK: i32 = 0;

fn started_with(
    voters: usize,
    observers: usize,
    adjust: impl Fn(&mut EnsembleOptions) + 'static,
) -> Ensemble {
    let mut ensemble = Ensemble::with(voters, observers, adjust);
    ensemble.pass_until("an ensemble that serves", |e| e.serving().len() == voters + observers);
    ensemble
}

fn local(upgrades: bool) -> impl Fn(&mut EnsembleOptions) + use<> {
    move |options| {
        options.modes.local_sessions = true;
        options.modes.local_sessions_upgrade = upgrades;
        options.modes.read_only = true;
    }
}

impl Ensemble {
    fn come(&mut self, index: usize, session: SessionId, read_only: Option<bool>) -> Handle {
        let client = self.nodes[index].accept(0);
        let mut bytes = Vec::new();
        ConnectRequest {
            protocol_version: 0,
            zxid_seen: Zxid::ZERO,
            timeout_ms: 4000,
            session,
            password: Some(&crate::session::password(session)),
            read_only,
        }
        .encode_frame(&mut bytes);
        self.nodes[index].send_bytes(client, &bytes);
        self.pass_until("an answer or an end", |e| {
            let client = e.nodes[index].client(client);
            client.connected.is_some() || client.closed
        });
        client
    }

    fn session(&mut self, index: usize, client: Handle) -> SessionId {
        self.nodes[index].client(client).connected.expect("connected").session
    }

    fn errs(&mut self, index: usize, client: Handle, requests: &[Request<'_>]) -> Vec<i32> {
        self.nodes[index].send(client, requests);
        self.pass_until("all replies", |e| e.nodes[index].client(client).messages.len() == requests.len());
        let err = |message| match message {
            Message::Reply(reply) => reply.err,
            other => panic!("a reply should come, not {other:?}"),
        };
        self.nodes[index].messages(client).into_iter().map(err).collect()
    }

    fn global_sessions(&self, index: usize) -> usize {
        self.nodes[index].pipeline.database().sessions.len()
    }
}

/// One server of three finds no leader: after a while it serves reads to those who want no more, and it proposes nothing.
#[test]
fn without_a_leader_reads_are_served_to_who_asks_for_that() {
    let mut ensemble = started_with(3, 0, local(false));
    let client = ensemble.connect(0);
    assert_eq!(ensemble.call(0, client, create("/a")).err, OK);
    ensemble.assert_agree();
    let zxid = ensemble.nodes[0].pipeline.database().zxid_applied();
    ensemble.kill(1);
    ensemble.kill(2);
    let is_lost = |e: &mut Ensemble| e.nodes[0].pipeline.serving() == Serving::No;
    ensemble.pass_until("the loss of the quorum", is_lost);
    ensemble.pass_ms(1900);
    let early = ensemble.come(0, SessionId::NONE, Some(true));
    assert!(ensemble.nodes[0].client(early).connected.is_none());
    ensemble.pass_ms(200);
    assert_eq!(ensemble.nodes[0].pipeline.serving(), Serving::ReadOnly);
    for wants_writes in [None, Some(false)] {
        let client = ensemble.come(0, SessionId::NONE, wants_writes);
        assert!(ensemble.nodes[0].client(client).raw.is_empty());
    }
    // A session the ensemble knows is for a server that can ask it.
    let elsewhere = ensemble.come(0, SessionId(0x0200_0000_0000_0001), Some(true));
    assert!(ensemble.nodes[0].client(elsewhere).raw.is_empty());

    let client = ensemble.come(0, SessionId::NONE, Some(true));
    let connected = ensemble.nodes[0].client(client).connected.unwrap();
    assert_eq!(connected.read_only, Some(true));
    assert!(ensemble.nodes[0].pipeline.describe().contains("ReadOnly"));
    let refused = ErrorCode::NotReadOnly.code();
    let requests = [
        get("/a"),
        create("/b"),
        Request::Ping,
        set("/a", b"1"),
        Request::Sync { path: "/a" },
        Request::Multi(&[create("/b")]),
        Request::Delete { path: "/a", version: None },
        get("/b"),
        Request::GetEphemerals { prefix: None },
    ];
    let errs = ensemble.errs(0, client, &requests);
    let none = ErrorCode::NoNode.code();
    assert_eq!(errs, [OK, refused, OK, refused, refused, refused, refused, none, OK]);
    assert_eq!(ensemble.nodes[0].pipeline.database().zxid_applied(), zxid);

    // It comes back to its session, ends it, and gets it no more.
    let again = ensemble.come(0, connected.session, Some(true));
    assert_eq!(ensemble.session(0, again), connected.session);
    assert!(ensemble.nodes[0].client(client).closed);
    assert_eq!(ensemble.errs(0, again, &[Request::CloseSession]), [OK]);
    let client = ensemble.come(0, connected.session, Some(true));
    assert!(ensemble.nodes[0].client(client).raw.is_empty());

    // Whoever says nothing is gone after its time, and a leader ends it all.
    let silent = ensemble.come(0, SessionId::NONE, Some(true));
    ensemble.pass_until("the end of its time", |e| e.nodes[0].client(silent).closed);
    let client = ensemble.come(0, SessionId::NONE, Some(true));
    let session = ensemble.session(0, client);
    ensemble.start(1);
    ensemble.pass_until("a leader", |e| e.serving() == [0, 1]);
    assert!(ensemble.nodes[0].client(client).closed);
    let client = ensemble.come(0, session, Some(true));
    assert_eq!(ensemble.nodes[0].client(client).connected.unwrap().read_only, Some(false));
    assert_eq!(ensemble.session(0, client), session);
    assert_eq!(ensemble.call(0, client, create("/b")).err, OK);
    ensemble.assert_agree();
}

/// Where every session is one of the ensemble, none begins without a leader.
#[test]
fn without_local_sessions_a_server_that_only_reads_has_none() {
    let mut ensemble = started_with(3, 0, |options| options.modes.read_only = true);
    ensemble.kill(1);
    ensemble.kill(2);
    let reads = |e: &mut Ensemble| e.nodes[0].pipeline.serving() == Serving::ReadOnly;
    ensemble.pass_until("reads", reads);
    let client = ensemble.come(0, SessionId::NONE, Some(true));
    assert!(ensemble.nodes[0].client(client).raw.is_empty());
}

/// A local session writes and costs no transaction; it has no ephemerals, does not move, and ends with its time.
#[test]
fn local_sessions_are_known_to_their_server_alone() {
    let mut ensemble = started_with(3, 1, local(false));
    let leader = ensemble.leader().unwrap();
    let refused = ErrorCode::EphemeralOnLocalSession.code();
    for index in 0..4 {
        let client = ensemble.connect(index);
        let session = ensemble.session(index, client);
        let path = format!("/from-{index}");
        let errs = ensemble.errs(index, client, &[create(&path), ephemeral("/e"), get(&path), get("/e")]);
        assert_eq!(errs, [OK, refused, OK, ErrorCode::NoNode.code()]);
        let multi = [set(&path, b"1"), ephemeral("/e")];
        ensemble.nodes[index].send(client, &[Request::Multi(&multi)]);
        ensemble.pass_until("a reply", |e| !e.nodes[index].client(client).messages.is_empty());
        match ensemble.nodes[index].messages(client).remove(0) {
            Message::Reply(Reply { err, response, .. }) if index == leader => {
                assert_eq!(err, OK);
                let Response::Multi(results) = response else { panic!("{response:?}") };
                assert_eq!(results, [MultiResult::Failed { err: OK }, MultiResult::Failed { err: refused }]);
            }
            Message::Reply(reply) => assert_eq!(reply.err, refused),
            other => panic!("{other:?}"),
        }
        // It stays here.
        let other = (index + 1) % 4;
        let moved = ensemble.come(other, session, None);
        assert_eq!(ensemble.session(other, moved), SessionId::NONE);
        let again = ensemble.come(index, session, None);
        assert_eq!(ensemble.session(index, again), session);
        assert!(ensemble.nodes[index].client(client).closed);
        assert_eq!(ensemble.errs(index, again, &[set(&path, b"2"), Request::CloseSession]), [OK, OK]);
        let gone = ensemble.come(index, session, None);
        assert_eq!(ensemble.session(index, gone), SessionId::NONE);
        // And who says nothing is gone.
        let silent = ensemble.connect(index);
        ensemble.pass_until("the end of its time", |e| e.nodes[index].client(silent).closed);
    }
    ensemble.assert_agree();
    assert!((0..4).all(|n| ensemble.global_sessions(n) == 0));
    let last = ensemble.nodes[leader].pipeline.database().zxid_applied();
    // On the leader the refused ones are errors with zxids of their own.
    assert_eq!(last.counter(), 4 * 2 + 2);
}

/// A session that is alive outlives the loss of a leader on its server, local as it is.
#[test]
fn local_sessions_outlive_a_change_of_leaders() {
    let mut ensemble = started_with(3, 0, local(true));
    let leader = ensemble.leader().unwrap();
    let index = (leader + 1) % 3;
    let client = ensemble.connect(index);
    let session = ensemble.session(index, client);
    ensemble.kill(leader);
    ensemble.pass_until("another leader", |e| e.serving().len() == 2 && e.leader().is_some());
    let client = ensemble.come(index, session, None);
    assert_eq!(ensemble.session(index, client), session);
    assert_eq!(ensemble.errs(index, client, &[create("/a"), ephemeral("/e")]), [OK, OK]);
    assert!(ensemble.nodes[index].pipeline.database().sessions.contains(session));
}

/// The first ephemeral node makes a local session a global one, under the same id, also within a multi, and also where the end of the
/// session follows at once: nothing is left behind.
#[test]
fn a_local_session_is_upgraded_for_its_first_ephemeral() {
    let mut ensemble = started_with(3, 1, local(true));
    let sequential = |path| Request::Create {
        op: OpCode::Create2,
        path,
        data: None,
        acl: Some(ACL_OPEN),
        flags: 3,
        ttl_ms: 0,
    };
    for index in 0..4 {
        let client = ensemble.connect(index);
        let session = ensemble.session(index, client);
        assert_eq!(ensemble.errs(index, client, &[create("/a")]).len(), 1);
        assert_eq!(ensemble.global_sessions(index), 0);
        let multi = [set("/a", b"1"), ephemeral("/e")];
        let requests =
            [get("/e"), Request::Multi(&multi), get("/e"), sequential("/s"), set("/e", b"1"), get("/e")];
        assert_eq!(ensemble.errs(index, client, &requests), [ErrorCode::NoNode.code(), OK, OK, OK, OK, OK]);
        ensemble.assert_agree();
        assert!((0..4).all(|n| ensemble.global_sessions(n) == 1));
        // Now it moves like any other, and lives as long as it speaks there.
        let other = (index + 1) % 4;
        let moved = ensemble.come(other, session, None);
        assert_eq!(ensemble.session(other, moved), session);
        for _ in 0..8 {
            ensemble.pass_ms(1000);
            assert_eq!(ensemble.errs(other, moved, &[get("/e")]), [OK]);
        }
        assert_eq!(ensemble.errs(other, moved, &[Request::CloseSession]), [OK]);

        // Its end right behind.
        let client = ensemble.connect(index);
        let requests = [ephemeral("/e"), get("/e"), Request::CloseSession];
        assert_eq!(ensemble.errs(index, client, &requests), [OK, OK, OK]);
        ensemble.pass_until("its end everywhere", |e| (0..4).all(|n| e.global_sessions(n) == 0));
        // Or its silence.
        let client = ensemble.connect(index);
        assert_eq!(ensemble.errs(index, client, &[ephemeral("/e")]), [OK]);
        ensemble.nodes[index].hang_up(client);
        ensemble.pass_until("the end of its time", |e| (0..4).all(|n| e.global_sessions(n) == 0));
        ensemble.assert_agree();
        assert_eq!(ensemble.nodes[index].pipeline.database().tree.find("/e"), None);
    }
}

/// An observer with `syncEnabled=false` follows and serves as any other, and nothing reaches its disk.
#[test]
fn an_observer_without_a_disk_follows_and_serves() {
    let diskless = |options: &mut EnsembleOptions| {
        options.modes.diskless = options.observer;
        options.modes.snapshot_size_factor = -1.0;
        options.recent_bytes_max = 1000;
    };
    let mut ensemble = started_with(3, 1, diskless);
    let client = ensemble.connect(3);
    assert_eq!(ensemble.errs(3, client, &[create("/a"), ephemeral("/e"), get("/e")]), [OK, OK, OK]);
    ensemble.assert_agree();
    ensemble.kill(3);
    let other = ensemble.connect(0);
    for n in 0..50 {
        assert_eq!(ensemble.call(0, other, create(&format!("/n{n}"))).err, OK);
    }
    // Too far behind: it gets the whole state, and goes on with it.
    ensemble.start(3);
    ensemble.pass_until("the observer", |e| e.serving().len() == 4);
    ensemble.assert_agree();
    // Begun anew, from what is on its disk.
    ensemble.kill(3);
    ensemble.restart(3, diskless);
    assert_eq!(ensemble.nodes[3].pipeline.database().zxid_applied(), Zxid::ZERO);
    ensemble.pass_until("the observer", |e| e.serving().len() == 4);
    let client = ensemble.connect(3);
    assert_eq!(ensemble.errs(3, client, &[get("/n7"), create("/b"), get("/b")]), [OK, OK, OK]);
    ensemble.assert_agree();
    let observer = &ensemble.nodes[3];
    assert!(observer.segments.is_empty() && observer.snapshots.is_empty() && observer.writes.is_empty());
    assert_eq!(observer.epochs, Epochs::default());
}
