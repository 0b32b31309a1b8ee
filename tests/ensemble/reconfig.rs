//! Members that come and go, and the files that tell of it.

use std::fs;

use ringkeeper::client::{Client, Request, Response};
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::CreateMode;

use crate::cluster::Cluster;
use crate::support::{wait_for, wait_until};

const CONFIG: &str = "/zookeeper/config";

fn changing(voters: usize) -> Cluster {
    let mut cluster = Cluster::new(voters, 0);
    cluster.set("reconfigEnabled", true).set("skipACL", "yes");
    cluster
}

/// Asks again while the servers that are to decide are still on their way; gives the version.
fn change(client: &mut Client, joining: Option<&str>, leaving: Option<&str>) -> i64 {
    let request = Request::Reconfig { joining, leaving, new_members: None, config_id: -1 };
    let reply = wait_for("a quorum of the new members", || {
        Some(client.call(&request).unwrap()).filter(|reply| reply.err != ErrorCode::NewConfigNoQuorum.code())
    });
    assert_eq!(reply.err, ErrorCode::Ok.code());
    assert!(matches!(reply.response, Response::Data { data: Some(_), .. }), "{:?}", reply.response);
    reply.zxid.0
}

fn shown(cluster: &Cluster, index: usize) -> String {
    let (data, _) = cluster.client(index).get_data(CONFIG, false).unwrap();
    String::from_utf8(data.unwrap()).unwrap()
}

/// Waits until a server acts on this version, and has written so.
fn wait_for_version(cluster: &Cluster, index: usize, version: i64) {
    let file = cluster.config_file(index);
    let pointer =
        format!("dynamicConfigFile={}.dynamic.{version:x}", fs::canonicalize(&file).unwrap().display());
    wait_until(&format!("{pointer} of server {}", index + 1), || {
        fs::read_to_string(&file).unwrap().lines().any(|line| line == pointer)
    });
    assert!(shown(cluster, index).ends_with(&format!("version={version:x}")));
}

#[test]
fn members_leave_and_return_and_every_file_says_so() {
    let mut cluster = changing(3);
    let leader = cluster.start_all();
    for index in 0..3 {
        wait_for_version(&cluster, index, 1 << 32);
        let text = fs::read_to_string(cluster.config_file(index)).unwrap();
        assert!(!text.contains("server."), "{text}");
        assert!(text.contains("clientPort="), "{text}");
    }
    let original = fs::read_to_string(format!("{}.bak", cluster.config_file(0).display()));
    assert!(original.unwrap().contains("server.1="));

    // A follower leaves, and still serves.
    let removed = (0..3).find(|&index| index != leader).unwrap();
    let version = change(&mut cluster.client(removed), None, Some(&(removed + 1).to_string()));
    for index in (0..3).filter(|&index| index != removed) {
        wait_for_version(&cluster, index, version);
    }
    cluster.client(removed).create("/after", b"x", CreateMode::Persistent).unwrap();
    assert!(!shown(&cluster, removed).contains(&format!("server.{}=", removed + 1)));

    // It is not needed, and a member that restarts knows that.
    cluster.kill(removed);
    let other = (0..3).find(|&index| index != removed && index != leader).unwrap();
    cluster.kill(other);
    cluster.start_unchanged(other);
    cluster.wait_serving(&[leader, other]);
    assert!(shown(&cluster, other).ends_with(&format!("version={version:x}")));

    // It comes back with what its file said, and follows until it is a member again.
    cluster.start_unchanged(removed);
    let line = cluster.line(removed);
    let leader = cluster.wait_all();
    let version = change(&mut cluster.client(leader), Some(&line), None);
    for index in 0..3 {
        wait_for_version(&cluster, index, version);
    }
    let own = fs::read_to_string(cluster.config_file(removed)).unwrap();
    assert!(!own.contains("clientPort="), "the dynamic file has it now: {own}");
    cluster.terminate(removed);
    cluster.start_unchanged(removed);
    cluster.wait_all();

    // The leader leaves: another leads at once, nothing is lost.
    let leader = cluster.wait_all();
    let version = change(&mut cluster.client(leader), None, Some(&(leader + 1).to_string()));
    let rest: Vec<usize> = (0..3).filter(|&index| index != leader).collect();
    cluster.wait_serving(&rest);
    for &index in &rest {
        wait_for_version(&cluster, index, version);
        let mut client = cluster.client(index);
        client.sync("/").unwrap();
        assert!(client.exists("/after", false).unwrap().is_some());
    }
    cluster.kill(leader);
    cluster.client(rest[0]).create("/by-two", b"x", CreateMode::Persistent).unwrap();
}
