//! Who belongs to the ensemble, shown and changed.

use super::*;
use crate::client::Response;

const CONFIG: &str = "/zookeeper/config";

/// A member's line in a request to join.
fn line(id: usize, role: &str) -> String {
    format!("server.{id}=127.0.0.{id}:2888:3888:{role};127.0.0.{id}:2181")
}

fn reconfig<'a>(joining: &'a str, leaving: &'a str) -> Request<'a> {
    let given = |text: &'a str| (!text.is_empty()).then_some(text);
    Request::Reconfig { joining: given(joining), leaving: given(leaving), new_members: None, config_id: -1 }
}

impl Ensemble {
    /// Of servers that take reconfigurations from anyone; each starts with what its own configuration says.
    fn changing(memberships: Vec<Membership>) -> Ensemble {
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_test_writer().try_init();
        let adjust = |front: &mut FrontOptions, pipeline: &mut PipelineOptions| {
            front.auth.skip_acl = true;
            pipeline.prepare.auth.skip_acl = true;
            pipeline.prepare.reconfig = true;
        };
        Ensemble::of(memberships, adjust, |_| {})
    }

    fn changing_started(voters: usize, observers: usize) -> Ensemble {
        let mut ensemble = Ensemble::changing(vec![membership(voters, observers); voters + observers]);
        ensemble.pass_until("an ensemble that serves", |e| e.serving().len() == voters + observers);
        ensemble
    }

    fn config(&self, index: usize) -> Membership {
        Membership::parse(self.nodes[index].pipeline.database().membership_text()).unwrap()
    }

    fn wait_for_version(&mut self, index: usize, version: i64) {
        self.pass_until("the version", |e| e.up[index] && e.config(index).version == version);
    }

    /// A call that answers with the new membership; gives its version.
    fn change(&mut self, index: usize, joining: &str, leaving: &str) -> i64 {
        let client = self.connect(index);
        let reply = self.call(index, client, reconfig(joining, leaving));
        assert_eq!(reply.err, ErrorCode::Ok.code());
        let Response::Data { data, stat } = reply.response else { panic!("{:?}", reply.response) };
        let membership = Membership::parse(&data.unwrap()).unwrap();
        assert_eq!((membership.version, stat.version), (reply.zxid.0, -1));
        assert_eq!(stat.mzxid, reply.zxid);
        membership.version
    }

    fn refusal(&mut self, index: usize, request: Request<'_>) -> i32 {
        let client = self.connect(index);
        self.call(index, client, request).err
    }

    fn write_somewhere(&mut self, path: &str) {
        let index = self.leader().unwrap();
        let client = self.connect(index);
        assert_eq!(self.call(index, client, create(path)).err, ErrorCode::Ok.code());
    }
}

#[test]
fn every_server_shows_the_membership_of_its_file() {
    let mut ensemble = Ensemble::started(3, 1);
    for index in 0..4 {
        let client = ensemble.connect(index);
        let reply = ensemble.call(index, client, get(CONFIG));
        let Response::Data { data, stat } = reply.response else { panic!("{:?}", reply.response) };
        assert_eq!(data.unwrap(), membership(3, 1).to_text().as_bytes());
        assert_eq!((stat.version, stat.aversion, stat.mzxid), (-1, -1, Zxid::ZERO));
        let err = ensemble.call(index, client, reconfig("", "3")).err;
        assert_eq!(err, ErrorCode::ReconfigDisabled.code());
        assert!(ensemble.nodes[index].membership_files.is_empty());
    }
    ensemble.assert_agree();
}

#[test]
fn the_first_reign_gives_the_membership_a_version() {
    let ensemble = Ensemble::changing_started(3, 1);
    for index in 0..4 {
        assert_eq!(ensemble.config(index), membership(3, 1).with_version(1 << 32));
        let files = ensemble.nodes[index].membership_files.last().unwrap();
        assert_eq!(files.activated, Some(membership(3, 1).with_version(1 << 32)));
        assert_eq!(files.next, None);
    }
}

#[test]
fn a_server_joins_and_votes() {
    let mut memberships = vec![membership(3, 0); 3];
    memberships.push(membership(4, 0));
    let mut ensemble = Ensemble::changing(memberships);
    ensemble.pass_until("four that serve", |e| e.serving().len() == 4);
    let version = ensemble.change(1, &line(4, "participant"), "");
    for index in 0..4 {
        ensemble.wait_for_version(index, version);
        assert!(ensemble.config(index).is_voter(ServerId(4)));
    }
    // Three of four are needed now: with one down the new one decides.
    let leader = ensemble.leader().unwrap();
    let follower = (0..3).find(|&n| n != leader).unwrap();
    ensemble.kill(follower);
    ensemble.write_somewhere("/by-three");
    let other = (0..3).find(|&n| n != leader && n != follower).unwrap();
    ensemble.kill(other);
    ensemble.pass_until("no quorum", |e| e.leader().is_none());
    ensemble.start(other);
    ensemble.pass_until("a quorum", |e| e.serving().len() == 3);
    ensemble.write_somewhere("/again");
    ensemble.assert_agree();
}

#[test]
fn a_removed_follower_follows_without_a_vote() {
    let mut ensemble = Ensemble::changing_started(3, 0);
    let leader = ensemble.leader().unwrap();
    let removed = (0..3).find(|&n| n != leader).unwrap();
    let version = ensemble.change(removed, "", &(removed + 1).to_string());
    ensemble.wait_for_version(removed, version);
    assert_eq!(ensemble.serving().len(), 3);
    ensemble.write_somewhere("/seen-by-all");
    ensemble.assert_agree();
    // Both others are needed now.
    let other = (0..3).find(|&n| n != leader && n != removed).unwrap();
    ensemble.kill(other);
    ensemble.pass_until("no quorum", |e| e.leader().is_none());
    ensemble.start(other);
    ensemble.pass_until("all three", |e| e.serving().len() == 3);
    ensemble.kill(removed);
    ensemble.write_somewhere("/without");
}

#[test]
fn a_leader_that_is_removed_hands_over_at_once() {
    let mut ensemble = Ensemble::changing_started(3, 0);
    let leader = ensemble.leader().unwrap();
    let follower = (leader + 1) % 3;
    ensemble.write_somewhere("/before");
    let version = ensemble.change(follower, "", &(leader + 1).to_string());
    let took_ms = ensemble.pass_until("another leader", |e| {
        e.leader().is_some_and(|now| now != leader) && e.serving().len() == 3
    });
    assert!(took_ms <= 100, "the new leader took {took_ms} ms");
    for index in 0..3 {
        ensemble.wait_for_version(index, version);
    }
    ensemble.write_somewhere("/after");
    ensemble.assert_agree();
    ensemble.kill(leader);
    ensemble.write_somewhere("/without");
}

#[test]
fn the_client_of_a_leader_that_is_removed_gets_its_answer() {
    let mut ensemble = Ensemble::changing_started(3, 0);
    let leader = ensemble.leader().unwrap();
    ensemble.change(leader, "", &(leader + 1).to_string());
    ensemble.pass_until("another leader", |e| e.leader().is_some_and(|now| now != leader));
}

#[test]
fn roles_change_there_and_back() {
    let mut ensemble = Ensemble::changing_started(3, 1);
    let leader = ensemble.leader().unwrap();
    let version = ensemble.change(leader, &line(4, "participant"), "");
    ensemble.wait_for_version(3, version);
    ensemble.pass_until("all four", |e| e.serving().len() == 4);
    ensemble.write_somewhere("/four-voters");
    let observer = (0..3).find(|&n| n != leader).unwrap();
    let version = ensemble.change(leader, &line(observer + 1, "observer"), "");
    ensemble.wait_for_version(observer, version);
    ensemble.pass_until("all four", |e| e.serving().len() == 4);
    ensemble.write_somewhere("/three-voters");
    ensemble.assert_agree();
    // The leader itself.
    let version = ensemble.change(leader, &line(leader + 1, "observer"), "");
    ensemble.pass_until("another leader", |e| e.leader().is_some_and(|now| now != leader));
    ensemble.wait_for_version(leader, version);
    ensemble.pass_until("all four", |e| e.serving().len() == 4);
    ensemble.assert_agree();
}

/// The leader dies when others have logged the change and nobody knows it committed: its successor completes it.
#[test]
fn a_change_outlives_the_leader_that_proposed_it() {
    let mut ensemble = Ensemble::changing_started(5, 0);
    let leader = ensemble.leader().unwrap();
    let removed = (leader + 1) % 5;
    let client = ensemble.connect(leader);
    ensemble.nodes[leader].holding = true;
    let leaving = (removed + 1).to_string();
    ensemble.nodes[leader].send(client, &[reconfig("", &leaving)]);
    ensemble.settle();
    assert!(ensemble.nodes[(leader + 2) % 5].membership_files.last().unwrap().next.is_some());
    assert_eq!(ensemble.config((leader + 2) % 5).version, 1 << 32);
    ensemble.kill(leader);
    ensemble.pass_until("a new leader", |e| e.leader().is_some() && e.serving().len() == 4);
    let index = ensemble.leader().unwrap();
    assert!(!ensemble.config(index).is_voter(ServerId(removed as u8 + 1)));
    let version = ensemble.config(index).version;
    for other in (0..5).filter(|&n| n != leader) {
        ensemble.wait_for_version(other, version);
    }
    ensemble.nodes[leader].holding = false;
    ensemble.start(leader);
    ensemble.pass_until("all five", |e| e.serving().len() == 5);
    ensemble.wait_for_version(leader, version);
    ensemble.assert_agree();
}

/// What only its leader has logged is forgotten, there too.
#[test]
fn a_change_that_no_quorum_has_comes_to_nothing() {
    let mut ensemble = Ensemble::changing_started(3, 0);
    let leader = ensemble.leader().unwrap();
    let client = ensemble.connect(leader);
    let others: Vec<usize> = (0..3).filter(|&n| n != leader).collect();
    for &other in &others {
        ensemble.kill(other);
    }
    let leaving = (others[0] + 1).to_string();
    ensemble.nodes[leader].send(client, &[reconfig("", &leaving)]);
    ensemble.nodes[leader].turn();
    ensemble.nodes[leader].peer_work.clear();
    ensemble.kill(leader);
    for &other in &others {
        ensemble.start(other);
    }
    ensemble.pass_until("the others", |e| e.serving().len() == 2);
    ensemble.write_somewhere("/kept");
    ensemble.start(leader);
    ensemble.pass_until("all three", |e| e.serving().len() == 3);
    ensemble.assert_agree();
    for index in 0..3 {
        assert_eq!(ensemble.config(index).voters().count(), 3);
    }
    let leading = ensemble.leader().unwrap();
    ensemble.change(leading, "", &(leader + 1).to_string());
}

#[test]
fn one_change_at_a_time() {
    let mut ensemble = Ensemble::changing_started(5, 0);
    let leader = ensemble.leader().unwrap();
    let clients = [ensemble.connect(leader), ensemble.connect(leader)];
    ensemble.nodes[leader].holding = true;
    let leaving = [1, 2].map(|step| ((leader + step) % 5 + 1).to_string());
    for (client, leaving) in clients.iter().zip(&leaving) {
        ensemble.nodes[leader].send(*client, &[reconfig("", leaving)]);
    }
    ensemble.settle();
    ensemble.nodes[leader].holding = false;
    let errs = clients.map(|client| {
        ensemble.pass_until("a reply", |e| !e.nodes[leader].client(client).messages.is_empty());
        match ensemble.nodes[leader].client(client).messages.remove(0) {
            Message::Reply(reply) => reply.err,
            other => panic!("a reply should come, not {other:?}"),
        }
    });
    assert_eq!(errs, [ErrorCode::Ok.code(), ErrorCode::ReconfigInProgress.code()]);
    ensemble.change(leader, "", &leaving[1]);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut ensemble = Ensemble::changing_started(3, 1);
    for index in [ensemble.leader().unwrap(), 3] {
        let stale = Request::Reconfig { joining: None, leaving: Some("2"), new_members: None, config_id: 5 };
        assert_eq!(ensemble.refusal(index, stale), ErrorCode::BadVersion.code());
        for (joining, leaving) in [("", "1,2"), ("", "one"), ("server.9=h:1", ""), ("server.9=h:1:2", "")] {
            let err = ensemble.refusal(index, reconfig(joining, leaving));
            assert_eq!(err, ErrorCode::BadArguments.code(), "{joining} {leaving}");
        }
        let strangers = [line(8, "participant"), line(9, "participant"), line(7, "participant")].join(",");
        assert_eq!(ensemble.refusal(index, reconfig(&strangers, "")), ErrorCode::NewConfigNoQuorum.code());
    }
    // A new server that is not there can be added while the others are a quorum with it.
    let whole =
        [line(1, "participant"), line(2, "participant"), line(3, "participant"), line(5, "participant")]
            .join("\n");
    let request =
        Request::Reconfig { joining: None, leaving: None, new_members: Some(&whole), config_id: 1 << 32 };
    assert_eq!(ensemble.refusal(0, request), ErrorCode::Ok.code());
    ensemble.write_somewhere("/goes-on");
}

/// The list of the node lets nobody write unless it is changed.
#[test]
fn changes_need_permission() {
    let all = vec![membership(3, 0); 3];
    let mut ensemble = Ensemble::of(all, |_, pipeline| pipeline.prepare.reconfig = true, |_| {});
    ensemble.pass_until("an ensemble that serves", |e| e.serving().len() == 3);
    assert_eq!(ensemble.refusal(1, reconfig("", "3")), ErrorCode::NoAuth.code());
}

#[test]
fn watches_of_the_membership_fire() {
    let mut ensemble = Ensemble::changing_started(3, 1);
    let client = ensemble.connect(3);
    ensemble.call(3, client, Request::GetData { path: CONFIG, watch: true });
    let follower = (0..3).find(|&n| n != ensemble.leader().unwrap()).unwrap();
    ensemble.change(0, "", &(follower + 1).to_string());
    ensemble.pass_until("the event", |e| !e.nodes[3].client(client).messages.is_empty());
    match ensemble.nodes[3].client(client).messages.remove(0) {
        Message::Event(event) => {
            assert_eq!((event.kind, event.path.as_str()), (EventType::NodeDataChanged, CONFIG));
        }
        other => panic!("an event should come, not {other:?}"),
    }
}
