//! Ensembles of built servers from outside: real processes, sockets and disks; killed, stopped, wiped and cut off under load.
//!
//! A history check stands behind most of them: see `load`. Nothing here waits for a fixed time.

mod cluster;
mod load;
mod reconfig;
#[path = "../support/mod.rs"]
mod support;
mod wires;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster::Cluster;
use load::Load;
use ringkeeper::client::{Client, ClientError, ConnectOptions, Request, four_letter};
use ringkeeper::proto::client::{CreateMode, EventType};
use ringkeeper::stdx::rng::Rng;
use support::{PATIENCE, chance, pick, seed, shapes, wait_for, wait_until};

/// Writes that show that an ensemble works, between two blows.
const SOME: u64 = 200;

/// The other two of three.
fn others(cluster: &Cluster, one: usize) -> Vec<usize> {
    (0..cluster.len()).filter(|index| *index != one).collect()
}

/// Ends a load and holds every server to what it was told.
fn finish(cluster: &mut Cluster, load: Load) {
    let outcome = load.finish();
    assert!(outcome.acknowledged() > 0, "nothing was acknowledged");
    cluster.wait_all();
    outcome.check(&cluster.running());
}

#[test]
fn three_servers_elect_serve_and_come_back() {
    for &shape in shapes() {
        println!("{shape:?}");
        let mut cluster = Cluster::shaped(shape, 3, 0);
        let leader = cluster.start_all();
        for index in 0..3 {
            let mut client = cluster.client(index);
            client.create(&format!("/through-{index}"), b"x", CreateMode::Persistent).unwrap();
            for other in 0..3 {
                let mut reader = cluster.client(other);
                reader.sync("/").unwrap();
                assert!(reader.exists(&format!("/through-{index}"), false).unwrap().is_some(), "on {other}");
            }
        }
        let metrics = cluster.metrics(leader);
        assert_eq!((metrics["server_state"].as_str(), metrics["quorum_size"].as_str()), ("leader", "3"));
        assert_eq!((metrics["synced_followers"].as_str(), metrics["learners"].as_str()), ("2", "2"));
        assert_eq!(metrics["peer_state"], "leading - broadcast");
        assert_eq!(metrics["looking_count"], "1");
        assert!(metrics["proposal_count"].parse::<u64>().unwrap() >= 6, "{metrics:?}");
        assert_eq!(metrics["cnt_leader_unavailable_time"], "1");
        let follower = others(&cluster, leader)[0];
        assert_eq!(cluster.metrics(follower)["peer_state"], "following - broadcast");
        // All at once, and again.
        for index in 0..3 {
            assert_eq!(cluster.terminate(index).code(), Some(0));
        }
        cluster.start_all();
        for index in 0..3 {
            let mut client = cluster.client(index);
            assert_eq!(
                client.get_children("/", false).unwrap(),
                ["through-0", "through-1", "through-2", "zookeeper"]
            );
        }
    }
}

#[test]
fn an_ensemble_of_one_leads_itself() {
    let mut cluster = Cluster::new(1, 0);
    cluster.set("standaloneEnabled", "false");
    assert_eq!(cluster.start_all(), 0);
    cluster.client(0).create("/a", b"", CreateMode::Persistent).unwrap();
    cluster.kill(0);
    cluster.start_all();
    assert!(cluster.client(0).exists("/a", false).unwrap().is_some());
}

/// Acknowledged writes survive the leader's death, again and again.
#[test]
fn the_leader_may_die() {
    let mut cluster = Cluster::new(3, 0);
    let mut leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 2, seed("the_leader_may_die"));
    for _ in 0..4 {
        load.wait_for_more(SOME);
        cluster.kill(leader);
        let killed = Instant::now();
        load.wait_for_more(1);
        println!(
            "the next write was acknowledged {} ms after the leader's death",
            killed.elapsed().as_millis()
        );
        let rest = others(&cluster, leader);
        cluster.wait_serving(&rest);
        load.wait_for_more(SOME);
        cluster.start(leader);
        leader = cluster.wait_all();
    }
    finish(&mut cluster, load);
}

#[test]
fn a_follower_may_die_and_nobody_waits_for_it() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 1, seed("a_follower_may_die"));
    for follower in others(&cluster, leader) {
        load.wait_for_more(SOME);
        cluster.kill(follower);
        load.wait_for_more(SOME);
        cluster.start(follower);
        assert_eq!(cluster.wait_all(), leader, "the leader had a quorum all the time");
    }
    finish(&mut cluster, load);
}

/// A server whose disk was lost fetches everything, and can then be counted on.
#[test]
fn a_wiped_server_comes_back_with_everything() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 1, seed("a_wiped_server"));
    load.wait_for_more(SOME);
    let [wiped, other] = others(&cluster, leader)[..] else { unreachable!("three servers") };
    cluster.kill(wiped);
    cluster.wipe(wiped);
    load.wait_for_more(SOME);
    cluster.start(wiped);
    cluster.wait_all();
    // Now it is half of the quorum.
    cluster.kill(other);
    load.wait_for_more(SOME);
    cluster.kill(leader);
    cluster.start(other);
    cluster.wait_serving(&[wiped, other]);
    load.wait_for_more(SOME);
    cluster.start(leader);
    cluster.wait_all();
    finish(&mut cluster, load);
}

/// More than leaders keep in memory came while it was away, much of it large.
#[test]
fn a_server_far_behind_gets_everything() {
    const NODES: usize = 800;
    const BYTES: usize = 100_000;
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let away = others(&cluster, leader)[0];
    let mut client = cluster.client(leader);
    client.create("/large", b"", CreateMode::Persistent).unwrap();
    cluster.kill(away);
    for index in 0..NODES {
        let path = format!("/large/{index}");
        client.queue(&Request::create(&path, &vec![index as u8; BYTES], CreateMode::Persistent));
        if index % 50 == 49 {
            client.flush().unwrap();
            for _ in 0..50 {
                assert!(client.receive_reply().unwrap().is_ok());
            }
        }
    }
    let load = Load::start(&cluster.addrs(), 2, 0, seed("a_server_far_behind"));
    load.wait_for_more(SOME);
    cluster.start(away);
    cluster.wait_all();
    load.wait_for_more(SOME);
    let mut reader = cluster.client(away);
    reader.sync("/large").unwrap();
    assert_eq!(reader.get_children("/large", false).unwrap().len(), NODES);
    for index in 0..NODES {
        let (data, _) = reader.get_data(&format!("/large/{index}"), false).unwrap();
        assert!(
            data.is_some_and(|data| data.len() == BYTES && data.iter().all(|byte| *byte == index as u8)),
            "{index}"
        );
    }
    finish(&mut cluster, load);
}

/// A server that lost its disk does not make a quorum with one that has only a part: what the third acknowledged would be gone.
#[test]
fn a_wiped_server_does_not_help_to_lose_data() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 0, seed("a_wiped_server_does_not_help"));
    load.wait_for_more(SOME);
    let [behind, wiped] = others(&cluster, leader)[..] else { unreachable!("three servers") };
    cluster.kill(behind);
    load.wait_for_more(SOME);
    cluster.kill(wiped);
    cluster.kill(leader);
    cluster.wipe(wiped);
    cluster.start(behind);
    cluster.start(wiped);
    wait_until("it has given up its vote", || {
        cluster.server(wiped).log().contains("this server has no data and others")
    });
    assert_eq!((cluster.mode(behind), cluster.mode(wiped)), (None, None));
    cluster.start(leader);
    cluster.wait_all();
    load.wait_for_more(SOME);
    finish(&mut cluster, load);
}

#[test]
fn without_a_quorum_nobody_is_served() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let mut client = cluster.client(leader);
    client.create("/a", b"1", CreateMode::Persistent).unwrap();
    let followers = others(&cluster, leader);
    for &follower in &followers {
        cluster.kill(follower);
    }
    cluster.wait_unserving(leader);
    assert!(client.ping().is_err(), "its connection outlived the quorum");
    match Client::connect(
        cluster.addr(leader),
        &ConnectOptions { patience: Duration::from_secs(5), ..ConnectOptions::default() },
    ) {
        Err(ClientError::Closed | ClientError::Timeout(_) | ClientError::Io(_)) => {}
        other => panic!("a session without a quorum: {other:?}"),
    }
    cluster.start(followers[0]);
    cluster.wait_all();
    let again = client.reconnect_options();
    let mut client = wait_for("the session goes on", || Client::connect(cluster.addr(leader), &again).ok());
    assert_eq!(client.session(), again.session);
    assert_eq!(client.get_data("/a", false).unwrap().0.as_deref(), Some(&b"1"[..]));
}

#[test]
fn each_server_in_turn_restarts_under_load() {
    let mut cluster = Cluster::new(3, 1);
    cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 2, seed("rolling_restart"));
    for index in 0..cluster.len() {
        load.wait_for_more(SOME);
        assert_eq!(cluster.terminate(index).code(), Some(0));
        load.wait_for_more(SOME);
        cluster.start(index);
        cluster.wait_all();
    }
    finish(&mut cluster, load);
}

/// A leader that stands still is replaced; when it goes on it has nothing to say any more.
#[test]
fn a_leader_that_stands_still_is_replaced() {
    let mut cluster = Cluster::new(3, 0);
    let mut leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 2, seed("a_leader_that_stands_still"));
    for _ in 0..2 {
        load.wait_for_more(SOME);
        cluster.pause(leader);
        let rest = others(&cluster, leader);
        cluster.wait_serving(&rest);
        load.wait_for_more(SOME);
        cluster.resume(leader);
        leader = cluster.wait_all();
    }
    finish(&mut cluster, load);
}

#[test]
fn a_follower_that_stands_still_holds_nobody_up() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 1, seed("a_follower_that_stands_still"));
    load.wait_for_more(SOME);
    let follower = others(&cluster, leader)[0];
    cluster.pause(follower);
    // The leader gives it up.
    wait_until("the leader lets go of it", || {
        cluster.metrics(leader).get("synced_followers").is_some_and(|count| count == "1")
    });
    load.wait_for_more(SOME);
    cluster.resume(follower);
    cluster.wait_all();
    finish(&mut cluster, load);
}

#[test]
fn observers_follow_and_have_no_vote() {
    let mut cluster = Cluster::new(3, 2);
    let leader = cluster.start_all();
    for observer in [3, 4] {
        assert_eq!(cluster.mode(observer).as_deref(), Some("observer"));
        let mut client = cluster.client(observer);
        client.create(&format!("/through-{observer}"), b"x", CreateMode::Persistent).unwrap();
        assert!(client.exists(&format!("/through-{observer}"), false).unwrap().is_some());
    }
    let metrics = cluster.metrics(leader);
    assert_eq!((metrics["quorum_size"].as_str(), metrics["learners"].as_str()), ("3", "4"));
    assert_eq!((metrics["synced_followers"].as_str(), metrics["synced_observers"].as_str()), ("2", "2"));
    let load = Load::start(&cluster.addrs(), 4, 2, seed("observers"));
    load.wait_for_more(SOME);
    cluster.kill(3);
    load.wait_for_more(SOME);
    cluster.start(3);
    cluster.wait_all();
    // A wiped one fetches everything.
    cluster.kill(4);
    cluster.wipe(4);
    cluster.start(4);
    cluster.wait_all();
    load.wait_for_more(SOME);
    finish(&mut cluster, load);
    // Two voters of three gone: two observers do not make up for them.
    for follower in [0, 1, 2].into_iter().filter(|index| *index != leader) {
        cluster.kill(follower);
    }
    for index in cluster.running() {
        cluster.wait_unserving(index);
    }
}

/// Cut off from everybody, a leader loses its reign though it runs; what it took and nobody else has is gone.
#[test]
fn a_leader_cut_off_is_replaced() {
    let mut cluster = Cluster::new(3, 0);
    cluster.wire();
    let mut leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 2, seed("a_leader_cut_off"));
    for _ in 0..2 {
        load.wait_for_more(SOME);
        cluster.wires().isolate(leader);
        let rest = others(&cluster, leader);
        cluster.wait_serving(&rest);
        cluster.wait_unserving(leader);
        load.wait_for_more(SOME);
        cluster.wires().heal();
        leader = cluster.wait_all();
    }
    finish(&mut cluster, load);
}

#[test]
fn a_follower_cut_off_comes_back() {
    let mut cluster = Cluster::new(3, 0);
    cluster.wire();
    let leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 1, seed("a_follower_cut_off"));
    load.wait_for_more(SOME);
    let [follower, other] = others(&cluster, leader)[..] else { unreachable!("three servers") };
    cluster.wires().isolate(follower);
    cluster.wait_unserving(follower);
    load.wait_for_more(SOME);
    cluster.wires().heal();
    cluster.wait_all();
    // Only its link to the leader: it can still vote, but follow nobody.
    cluster.wires().cut(follower, leader);
    cluster.wait_unserving(follower);
    cluster.wait_serving(&[leader, other]);
    load.wait_for_more(SOME);
    cluster.wires().heal();
    cluster.wait_all();
    finish(&mut cluster, load);
}

#[test]
fn five_servers_survive_two() {
    let mut cluster = Cluster::new(5, 0);
    let mut leader = cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 2, seed("five_servers"));
    for _ in 0..2 {
        load.wait_for_more(SOME);
        let second = others(&cluster, leader)[0];
        cluster.kill(leader);
        cluster.kill(second);
        let rest = cluster.running();
        cluster.wait_serving(&rest);
        load.wait_for_more(SOME);
        cluster.start(leader);
        cluster.start(second);
        leader = cluster.wait_all();
    }
    finish(&mut cluster, load);
}

/// All of them at once, as when the power fails: nothing acknowledged is lost.
#[test]
fn all_die_at_once() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 1, seed("all_die_at_once"));
    for _ in 0..3 {
        load.wait_for_more(SOME);
        for index in 0..3 {
            cluster.kill(index);
        }
        cluster.start_all();
    }
    load.wait_for_more(SOME);
    finish(&mut cluster, load);
}

/// Sessions, their ephemeral nodes and their watches outlive the leader, and a client may go to another server.
#[test]
fn sessions_outlive_the_leader() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let rest = others(&cluster, leader);
    let mut on_follower = cluster.client(rest[0]);
    let mut on_leader = cluster.client(leader);
    on_follower.create("/e-follower", b"", CreateMode::Ephemeral).unwrap();
    on_leader.create("/e-leader", b"", CreateMode::Ephemeral).unwrap();
    let mut watcher = cluster.client(rest[1]);
    watcher.sync("/").unwrap();
    assert!(watcher.exists("/e-leader", true).unwrap().is_some());
    cluster.kill(leader);
    let leader_now = cluster.wait_serving(&rest);
    // Its server is gone: elsewhere, under the same number.
    let again = on_leader.reconnect_options();
    let mut moved = wait_for("the session moves", || Client::connect(cluster.addr(rest[0]), &again).ok());
    assert_eq!(moved.session(), again.session);
    for index in &rest {
        let mut reader = cluster.client(*index);
        reader.sync("/").unwrap();
        assert!(reader.exists("/e-leader", false).unwrap().is_some(), "on {}", index + 1);
        assert!(reader.exists("/e-follower", false).unwrap().is_some(), "on {}", index + 1);
    }
    // The watcher's server looked for a leader meanwhile: its connection ended, the session goes on.
    let again = watcher.reconnect_options();
    drop(watcher);
    let mut watcher =
        wait_for("the watcher comes back", || Client::connect(cluster.addr(leader_now), &again).ok());
    watcher.sync("/").unwrap();
    assert!(watcher.exists("/e-leader", true).unwrap().is_some());
    // Closing a session on one server is seen on the other.
    moved.sync("/").unwrap();
    moved.close().unwrap();
    let event = watcher.next_event(PATIENCE).unwrap();
    assert_eq!((event.kind, event.path.as_str()), (EventType::NodeDeleted, "/e-leader"));
}

/// A client that falls silent loses its session, whatever server it was on.
#[test]
fn sessions_of_silent_clients_end() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let follower = others(&cluster, leader)[0];
    let short = ConnectOptions { timeout_ms: 1_000, ..ConnectOptions::default() };
    for index in [leader, follower] {
        let mut silent = wait_for("a session", || Client::connect(cluster.addr(index), &short).ok());
        let path = format!("/silent-{index}");
        silent.create(&path, b"", CreateMode::Ephemeral).unwrap();
        let mut watcher = cluster.client(others(&cluster, index)[0]);
        watcher.sync("/").unwrap();
        assert!(watcher.exists(&path, true).unwrap().is_some());
        // Its pings would keep it; there are none.
        let event = watcher.next_event(PATIENCE).unwrap();
        assert_eq!((event.kind, event.path), (EventType::NodeDeleted, path));
    }
    // One that speaks through a follower is heard by the leader.
    let mut alive = wait_for("a session", || Client::connect(cluster.addr(follower), &short).ok());
    alive.create("/alive", b"", CreateMode::Ephemeral).unwrap();
    let begun = Instant::now();
    wait_until("three timeouts have passed", || {
        alive.ping().expect("it is there");
        begun.elapsed() > Duration::from_millis(3 * 1_000)
    });
    assert!(alive.exists("/alive", false).unwrap().is_some());
}

/// Whatever strangers send to the ports of peers: the ensemble goes on, and memory stays.
#[test]
fn garbage_on_the_ports_of_peers_harms_nobody() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.start_all();
    let run = seed("garbage");
    let load = Load::start(&cluster.addrs(), 2, 1, run);
    load.wait_for_more(SOME);
    let before: Vec<u64> = (0..3).map(|index| cluster.server(index).memory_bytes()).collect();
    let ports: Vec<SocketAddr> =
        (0..3).flat_map(|index| [cluster.election_addr(index), cluster.quorum_addr(index)]).collect();
    let mut rng = Rng::new(run);
    let mut kept = Vec::new();
    for _ in 0..400 {
        let port = *pick(&mut rng, &ports);
        let Ok(mut stream) = TcpStream::connect_timeout(&port, PATIENCE) else { continue };
        let bytes = garbage(&mut rng);
        let _ = stream.set_write_timeout(Some(PATIENCE));
        // It may be closed in the middle: that is what it is for.
        let _ = stream.write_all(&bytes);
        if chance(&mut rng, 50) {
            kept.push(stream);
        }
    }
    load.wait_for_more(SOME);
    assert_eq!(cluster.wait_all(), leader, "nobody was disturbed");
    for (index, before) in before.into_iter().enumerate() {
        let now = cluster.server(index).memory_bytes();
        assert!(now < before + (64 << 20), "server {}: {before} bytes before, {now} now", index + 1);
    }
    drop(kept);
    finish(&mut cluster, load);
}

/// Bytes that begin like something a peer sends, or like nothing.
fn garbage(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = match rng.below(7) {
        // An initial message of an unknown server, with an address too long, or of everybody.
        0 => [
            &(-65536i64).to_be_bytes()[..],
            &(1 + rng.below(5) as i64).to_be_bytes(),
            &12i32.to_be_bytes(),
            b"127.0.0.1:99",
        ]
        .concat(),
        1 => [&(-65536i64).to_be_bytes()[..], &2i64.to_be_bytes(), &i32::MAX.to_be_bytes()].concat(),
        2 => (rng.below(300) as i64).to_be_bytes().to_vec(),
        // FOLLOWERINFO of a server that is unknown (who speaks for a real one takes its place: that is what TLS is for); a length that
        // no packet has.
        3 => [
            &11i32.to_be_bytes()[..],
            &0i64.to_be_bytes(),
            &20i32.to_be_bytes(),
            &(4 + rng.below(9) as i64).to_be_bytes(),
            &0x10000i32.to_be_bytes(),
            &0i64.to_be_bytes(),
            &(-1i32).to_be_bytes(),
        ]
        .concat(),
        4 => [&11i32.to_be_bytes()[..], &0i64.to_be_bytes(), &i32::MAX.to_be_bytes()].concat(),
        5 => [
            &3i32.to_be_bytes()[..],
            &(1i64 << 40).to_be_bytes(),
            &(-1i32).to_be_bytes(),
            &(-1i32).to_be_bytes(),
        ]
        .concat(),
        _ => Vec::new(),
    };
    let more = rng.below(3) * rng.below(40_000);
    bytes.extend((0..more).map(|_| rng.next_u64() as u8));
    bytes
}

/// Every kind of blow in any order, one at a time or two.
#[test]
fn mayhem() {
    const BLOWS: u32 = 12;
    let run = seed("mayhem");
    let mut rng = Rng::new(run);
    let mut cluster = Cluster::new(3, 1);
    cluster.wire();
    cluster.start_all();
    let load = Load::start(&cluster.addrs(), 4, 2, run ^ 7);
    for blow in 0..BLOWS {
        load.wait_for_more(SOME / 4);
        let target = rng.below(4) as usize;
        let kind = rng.below(6);
        println!("blow {blow}: {kind} on server {}", target + 1);
        match kind {
            0 => {
                cluster.kill(target);
                cluster.start(target);
            }
            1 => {
                cluster.kill(target);
                let rest = others(&cluster, target);
                cluster.wait_serving(&rest);
                load.wait_for_more(SOME / 4);
                cluster.start(target);
            }
            2 => {
                cluster.pause(target);
                let rest = others(&cluster, target);
                cluster.wait_serving(&rest);
                cluster.resume(target);
            }
            3 => {
                cluster.wires().isolate(target);
                let rest = others(&cluster, target);
                cluster.wait_serving(&rest);
                load.wait_for_more(SOME / 4);
                cluster.wires().heal();
            }
            4 => {
                // A disk may be lost only while the others have everything.
                cluster.wait_all();
                cluster.kill(target);
                cluster.wipe(target);
                cluster.start(target);
                cluster.wait_all();
            }
            _ => {
                for index in 0..cluster.len() {
                    cluster.kill(index);
                }
                cluster.start_all();
            }
        }
        if chance(&mut rng, 50) {
            cluster.wait_all();
        }
    }
    cluster.wait_all();
    finish(&mut cluster, load);
}

#[test]
fn status_tells_the_role() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.start_all();
    for index in 0..4 {
        let status = Command::new(env!("CARGO_BIN_EXE_ringkeeper"))
            .arg("status")
            .arg(cluster.config_file(index))
            .env_remove("ZOOCFGDIR")
            .output()
            .unwrap();
        let expected = match index {
            3 => "observer",
            _ if index == leader => "leader",
            _ => "follower",
        };
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && text.contains(&format!("Mode: {expected}\n")), "{text}");
    }
    let srvr = cluster.word(leader, "srvr").unwrap();
    assert!(srvr.lines().last().unwrap().starts_with("Proposal sizes last/min/max: "), "{srvr}");
    let conf = cluster.word(leader, "conf").unwrap();
    assert!(
        conf.contains(&format!("\nserverId={}\ninitLimit=20\nsyncLimit=4\nelectionAlg=3\n", leader + 1)),
        "{conf}"
    );
    assert!(conf.contains("\nmembership: \nserver.1=127.0.0.1:") && !conf.ends_with('\n'), "{conf}");
    let dump = cluster.word(others(&cluster, leader)[0], "dump").unwrap();
    assert!(dump.starts_with("SessionTracker dump:\nGlobal Sessions("), "{dump}");
    assert_eq!(four_letter(cluster.addr(leader), "isro", PATIENCE).unwrap(), b"rw");
}

/// Said in one line, with code 2, before anything is opened.
#[test]
fn what_is_no_member_does_not_start() {
    let cluster = Cluster::new(3, 0);
    let refused = |change: &dyn Fn(&str) -> String, my_id: Option<&str>| {
        cluster.write_config(0);
        let file = cluster.config_file(0);
        let text = change(&std::fs::read_to_string(&file).unwrap());
        std::fs::write(&file, text).unwrap();
        let id_file = cluster.data(0).join("myid");
        match my_id {
            Some(id) => std::fs::write(id_file, id).unwrap(),
            None => std::fs::remove_file(id_file).unwrap(),
        }
        let output = Command::new(env!("CARGO_BIN_EXE_ringkeeper")).arg("serve").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let files: Vec<_> =
            std::fs::read_dir(cluster.data(0)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(files.iter().all(|name| name == "myid"), "{files:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let same = |text: &str| text.to_owned();
    assert!(
        refused(&same, None).contains("myid: no such file; a member of an ensemble has its own id there")
    );
    assert!(refused(&same, Some("9")).contains("server.9 is missing"));
    let without = |key: &'static str| {
        move |text: &str| -> String {
            text.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect()
        }
    };
    assert!(refused(&without("initLimit"), Some("1")).contains("initLimit is missing"));
    assert!(refused(&without("syncLimit"), Some("1")).contains("syncLimit is missing"));
    let observers = |text: &str| text.replace(":participant", ":observer");
    assert!(refused(&observers, Some("1")).contains("3 observers and no participant"));
    let twice = |text: &str| format!("{text}server.2=127.0.0.1:1:2\n");
    assert!(refused(&twice, Some("1")).contains("server.2 is given twice"));
}

/// A member whose ports are taken says so and ends with ZooKeeper's code for that.
#[test]
fn a_taken_election_port_is_said() {
    let mut cluster = Cluster::new(3, 0);
    cluster.set("electionPortBindRetry", "1");
    let _other = std::net::TcpListener::bind(cluster.election_addr(0)).unwrap();
    cluster.write_config(0);
    let output = Command::new(env!("CARGO_BIN_EXE_ringkeeper"))
        .arg("serve")
        .arg(cluster.config_file(0))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(14), "{output:?}");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!("cannot listen on the election port {}", cluster.election_addr(0))),
        "{text}"
    );
}

/// A stranger that connects to a server's client port while it looks for a leader is not left waiting.
#[test]
fn clients_of_a_server_without_a_leader_are_sent_away() {
    let mut cluster = Cluster::new(3, 0);
    cluster.start(0);
    wait_until("it answers", || cluster.word(0, "ruok").as_deref() == Some("imok"));
    cluster.wait_unserving(0);
    let mut stream = TcpStream::connect(cluster.addr(0)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let handshake =
        [&44i32.to_be_bytes()[..], &[0; 12], &4000i32.to_be_bytes(), &[0; 8], &16i32.to_be_bytes(), &[0; 16]]
            .concat();
    stream.write_all(&handshake).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        Ok(count) => panic!("{count} bytes of an answer without a leader"),
    }
}
