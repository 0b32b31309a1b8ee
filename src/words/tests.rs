//! Answers as real servers gave them (operations §2), and what may be asked.

use super::*;
use crate::proto::client::OpCode;
use crate::types::SessionId;

fn facts() -> ServerFacts {
    let facts = ServerFacts {
        client_port: 2181,
        secure_client_port: -1,
        data_dir: "/data/version-2".into(),
        data_log_dir: "/log/version-2".into(),
        tick_time_ms: 2000,
        max_client_cnxns: 60,
        min_session_timeout_ms: 4000,
        max_session_timeout_ms: 40000,
        client_backlog: -1,
        environment: vec![("host.name", "h1".into()), ("os.name", "Linux".into())],
        ..ServerFacts::default()
    };
    facts.process.data_dir_bytes.set(67108880);
    facts.process.log_dir_bytes.set(457);
    facts
}

fn say(word: Word, report: &Report) -> String {
    answer(word, &facts(), report)
}

fn connection(port: u16) -> ConnectionReport {
    ConnectionReport { received: 1, ..ConnectionReport::new(([127, 0, 0, 1], port).into()) }
}

#[test]
fn words_are_known_by_their_first_four_bytes() {
    for (word, name) in WORDS {
        assert_eq!(Word::of(name.as_bytes().try_into().unwrap()), Some(word));
        assert_eq!(word.name(), name);
    }
    assert_eq!(Word::of([0xff, 0xf4, 0xff, 0xfd]), Some(Word::TelnetClose));
    for other in [*b"lsnp", *b"abcd", *b"RUOK", *b"ruo\n", [0, 0, 0, 45]] {
        assert_eq!(Word::of(other), None);
    }
}

/// A word is never a length a client could mean: all of them are far above any frame.
#[test]
fn no_word_is_a_frame_length() {
    for (_, name) in WORDS {
        let length = i32::from_be_bytes(name.as_bytes().try_into().unwrap());
        assert!(length > 0x6000_0000, "{name}");
    }
}

#[test]
fn the_whitelist_decides() {
    let list = |words: &[&str], read_only| {
        WordOptions::new(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), read_only)
    };
    let default = list(&["srvr"], false);
    assert!(default.allows(Word::Srvr) && default.allows(Word::TelnetClose));
    assert!(!default.allows(Word::Isro) && !default.allows(Word::Mntr));
    assert_eq!(WordOptions::default(), default);
    let some = list(&["mntr", "nonsense", "RUOK"], true);
    assert!(some.allows(Word::Mntr) && some.allows(Word::Srvr) && some.allows(Word::Isro));
    assert!(!some.allows(Word::Ruok) && !some.allows(Word::Stat));
    let all = list(&["*"], false);
    assert!(WORDS.iter().all(|(word, _)| all.allows(*word)));
    assert_eq!(not_whitelisted(Word::Mntr), "mntr is not executed because it is not in the whitelist.\n");
}

#[test]
fn short_answers_have_no_newline() {
    let report = Report { trace_mask: TRACE_MASK_DEFAULT, ..Report::default() };
    assert_eq!(say(Word::Ruok, &report), "imok");
    assert_eq!(say(Word::Isro, &report), "rw");
    assert_eq!(say(Word::Isro, &Report { mode: Mode::ReadOnly, ..Report::default() }), "ro");
    assert_eq!(say(Word::Isro, &Report { mode: Mode::NotServing, ..Report::default() }), "null");
    assert_eq!(say(Word::Gtmk, &report), "306");
    assert_eq!(say(Word::Stmk, &Report { trace_mask: -1, ..Report::default() }), "-1");
    assert_eq!(say(Word::TelnetClose, &report), "");
    assert_eq!(say(Word::Crst, &report), "Connection stats reset.\n");
    assert_eq!(say(Word::Srst, &report), "Server stats reset.\n");
}

#[test]
fn a_server_that_does_not_serve_says_so_to_most_words() {
    let report = Report { mode: Mode::NotServing, ..Report::default() };
    for (word, name) in WORDS {
        let text = say(word, &report);
        if word.works_always() {
            assert_ne!(text, not_serving(), "{name}");
        } else {
            assert_eq!(text, "This ZooKeeper instance is not currently serving requests\n", "{name}");
        }
    }
}

#[test]
fn srvr_and_stat_look_as_zookeepers() {
    let mut report = Report {
        zxid: Zxid(0x1_0000_0019),
        connection_count: 2,
        connections: vec![ConnectionReport { interest: 0, ..connection(50636) }],
        tree: TreeReport { node_count: 7, ..TreeReport::default() },
        ..Report::default()
    };
    report.front.requests = 12;
    for latency_us in [0, 2_000, 0, 7_000] {
        report.front.replied(OpCode::GetData, latency_us, 20);
    }
    let head = format!("Zookeeper version: {VERSION}\n");
    let tail = "Latency min/avg/max: 0/2.25/7\nReceived: 12\nSent: 4\nConnections: 2\nOutstanding: 0\n\
                Zxid: 0x100000019\nMode: standalone\nNode count: 7\n";
    assert_eq!(say(Word::Srvr, &report), format!("{head}{tail}"));
    let clients = "Clients:\n /127.0.0.1:50636[0](queued=0,recved=1,sent=0)\n\n";
    assert_eq!(say(Word::Stat, &report), format!("{head}{clients}{tail}"));
    report.mode = Mode::ReadOnly;
    let text = say(Word::Srvr, &report);
    assert!(text.contains("\nREAD-ONLY mode; serving only read-only clients\nLatency"));
    assert!(text.contains("\nMode: read-only\n"));
}

#[test]
fn the_version_starts_with_digits_and_says_when() {
    let (version, built) = VERSION.split_once(", built on ").unwrap();
    assert!(version.starts_with("3.9.5-ringkeeper-0."));
    let bytes = built.as_bytes();
    assert_eq!((built.len(), bytes[4], bytes[10], bytes[13]), (20, b'-', b' ', b':'), "{built}");
    assert!(built.ends_with(" UTC"));
}

#[test]
fn conf_and_dirs_look_as_zookeepers() {
    assert_eq!(
        say(Word::Conf, &Report::default()),
        "clientPort=2181\nsecureClientPort=-1\ndataDir=/data/version-2\ndataDirSize=67108880\n\
         dataLogDir=/log/version-2\ndataLogSize=457\ntickTime=2000\nmaxClientCnxns=60\nminSessionTimeout=4000\n\
         maxSessionTimeout=40000\nclientPortListenBacklog=-1\nserverId=0\n"
    );
    assert_eq!(say(Word::Dirs, &Report::default()), "datadir_size: 67108880\nlogdir_size: 457\n");
}

#[test]
fn envi_has_zookeepers_keys_in_order() {
    let text = say(Word::Envi, &Report::default());
    let keys: Vec<&str> = text.lines().skip(1).map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(text.lines().next(), Some("Environment:"));
    assert_eq!(keys.len(), 18);
    assert!(text.contains("\nhost.name=h1\njava.version=<NA>\n"));
    assert!(text.ends_with("os.memory.total=0MB\n"));
}

#[test]
fn cons_tells_of_sessions() {
    let open = ConnectionReport {
        queued: 1,
        sent: 2,
        session: SessionId(0x100000e0e2f0000),
        timeout_ms: 10000,
        established_wall_ms: 1795194828007,
        last_op: 12,
        last_cxid: 5,
        last_zxid: 0x1a,
        last_response_ms: 77,
        last_latency_ms: 1,
        avg_latency_ms: 2,
        max_latency_ms: 3,
        ..connection(50650)
    };
    let report = Report { connections: vec![connection(50636), open.clone()], ..Report::default() };
    assert_eq!(
        say(Word::Cons, &report),
        " /127.0.0.1:50636[1](queued=0,recved=1,sent=0)\n \
         /127.0.0.1:50650[1](queued=1,recved=1,sent=2,sid=0x100000e0e2f0000,lop=GETC,est=1795194828007,to=10000,\
         lcxid=0x5,lzxid=0x1a,lresp=77,llat=1,minlat=0,avglat=2,maxlat=3)\n\n"
    );
    let fresh = ConnectionReport { last_cxid: -1, last_op: 0, last_zxid: -1, ..open };
    assert!(fresh.line(false).contains(",lop=NA,"));
    assert!(!fresh.line(false).contains("lcxid"));
    assert!(fresh.line(false).contains(",lzxid=0xffffffffffffffff,"));
    assert!(!fresh.line(true).contains("sid="));
}

#[test]
fn addresses_look_as_java_prints_them() {
    for (address, text) in [
        ("127.0.0.1:1", "/127.0.0.1:1"),
        ("[::1]:2", "/[0:0:0:0:0:0:0:1]:2"),
        ("[2001:db8::a:b]:3", "/[2001:db8:0:0:0:0:a:b]:3"),
        ("[::ffff:10.0.0.1]:4", "/10.0.0.1:4"),
    ] {
        assert_eq!(connections::java_address(&address.parse().unwrap()), text);
    }
}

#[test]
fn dump_looks_as_zookeepers() {
    let at = 1_795_194_828_000;
    let report = Report {
        sessions: SessionReport {
            expiries: vec![(at + 4000, vec![SessionId(0x100000e0e2f0000)]), (at, vec![])],
            ephemerals: vec![(SessionId(0x100000e0e2f0000), vec!["/a/e1".into()])],
            ..SessionReport::default()
        },
        connections: vec![ConnectionReport { expires_wall_ms: at + 1000, ..connection(50660) }],
        ..Report::default()
    };
    assert_eq!(
        say(Word::Dump, &report),
        "SessionTracker dump:\nSession Sets (2)/(1):\n0 expire at Fri Nov 20 17:13:48 UTC 2026:\n\
         1 expire at Fri Nov 20 17:13:52 UTC 2026:\n\t0x100000e0e2f0000\nephemeral nodes dump:\n\
         Sessions with Ephemerals (1):\n0x100000e0e2f0000:\n\t/a/e1\nConnections dump:\nConnections Sets (1)/(1):\n\
         1 expire at Fri Nov 20 17:13:49 UTC 2026:\n\tip: /127.0.0.1:50660 sessionId: 0x0\n"
    );
}

/// As a member of an ensemble of three with two learners.
fn leading() -> EnsembleReport {
    EnsembleReport {
        role: PeerRole::Leading,
        phase: PeerPhase::Broadcast,
        voters: 3,
        membership: "server.1=a:1:2:participant\nversion=100000000".into(),
        leader: Some(LeaderReport {
            learners: 3,
            synced_followers: 2,
            synced_observers: 1,
            uptime_ms: 77,
            proposal_bytes_last: 48,
            proposal_bytes_min: 36,
            proposal_bytes_max: 320,
            ..LeaderReport::default()
        }),
        ..EnsembleReport::default()
    }
}

#[test]
fn members_of_an_ensemble_tell_of_it() {
    let of =
        |mode, member: EnsembleReport| Report { mode, ensemble: Some(member.into()), ..Report::default() };
    let report = of(Mode::Leader, leading());
    let text = say(Word::Srvr, &report);
    assert!(
        text.ends_with("Mode: leader\nNode count: 0\nProposal sizes last/min/max: 48/36/320\n"),
        "{text}"
    );
    let text = say(Word::Mntr, &report);
    assert!(
        text.contains("\nzk_server_state\tleader\nzk_peer_state\tleading - broadcast\nzk_avg_latency\t"),
        "{text}"
    );
    for line in [
        "quorum_size\t3",
        "learners\t3",
        "followers\t3",
        "synced_followers\t2",
        "synced_observers\t1",
        "synced_non_voting_followers\t0",
        "pending_syncs\t0",
        "leader_uptime\t77",
        "last_proposal_size\t48",
        "min_proposal_size\t36",
        "max_proposal_size\t320",
    ] {
        assert!(text.contains(&format!("\nzk_{line}\n")), "{line}");
    }
    // Before the first proposal.
    let fresh = EnsembleReport { leader: Some(LeaderReport::default()), ..leading() };
    assert!(say(Word::Stat, &of(Mode::Leader, fresh)).ends_with("Proposal sizes last/min/max: -1/-1/-1\n"));

    let mut follower = EnsembleReport { role: PeerRole::Following, leader: None, ..leading() };
    follower.counters.proposals_received = 5;
    let text = say(Word::Mntr, &of(Mode::Follower, follower.clone()));
    assert!(text.contains("\nzk_server_state\tfollower\nzk_peer_state\tfollowing - broadcast\n"));
    assert!(text.contains("\nzk_quorum_size\t3\n") && !text.contains("\nzk_learners\t"));
    assert!(text.contains("\nzk_learner_proposal_received_count\t5\n"));
    assert!(say(Word::Srvr, &of(Mode::Follower, follower)).ends_with("Mode: follower\nNode count: 0\n"));
    let observer =
        EnsembleReport { role: PeerRole::Observing, observer_master_id: Some(2), leader: None, ..leading() };
    let text = say(Word::Mntr, &of(Mode::Observer, observer));
    assert!(text.contains(
        "\nzk_server_state\tobserver\nzk_peer_state\tobserving - broadcast\nzk_observer_master_id\t2\n"
    ));
}

#[test]
fn the_state_of_a_member_has_its_phase() {
    let state = |role, phase| EnsembleReport { role, phase, ..EnsembleReport::default() }.state();
    assert_eq!(state(PeerRole::Looking, PeerPhase::Election), "looking");
    assert_eq!(state(PeerRole::Leading, PeerPhase::Discovery), "leading - discovery");
    assert_eq!(state(PeerRole::Following, PeerPhase::Synchronization(None)), "following - synchronization");
    for (mode, name) in [(SyncMode::Diff, "diff"), (SyncMode::Snap, "snap"), (SyncMode::Trunc, "trunc")] {
        let phase = PeerPhase::Synchronization(Some(mode));
        assert_eq!(state(PeerRole::Following, phase), format!("following - synchronization - {name}"));
    }
}

#[test]
fn conf_of_a_member_ends_with_its_membership() {
    let facts = ServerFacts {
        ensemble: Some(EnsembleFacts {
            init_limit_ticks: 10,
            sync_limit_ticks: 5,
            election_ports: vec![3888, 3889],
            quorum_ports: vec![2888, 2889],
            is_observer: true,
        }),
        ..facts()
    };
    let report = Report { mode: Mode::Observer, ensemble: Some(leading().into()), ..Report::default() };
    let text = answer(Word::Conf, &facts, &report);
    let tail = "serverId=0\ninitLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3888|3889\nquorumPort=2888|2889\n\
                peerType=1\nmembership: \nserver.1=a:1:2:participant\nversion=100000000";
    assert!(text.ends_with(tail), "{text}");
}

#[test]
fn dump_of_a_learner_lists_timeouts() {
    let sessions = SessionReport {
        timeouts: Some(vec![(SessionId(0x100000e0e2f0000), 4000)]),
        ..SessionReport::default()
    };
    let text = say(Word::Dump, &Report { sessions, ..Report::default() });
    assert!(
        text.starts_with(
            "SessionTracker dump:\nGlobal Sessions(1):\n0x100000e0e2f0000\t4000ms\nephemeral nodes dump:\n"
        ),
        "{text}"
    );
}

#[test]
fn watches_are_told_by_session_and_by_path() {
    let (a, b) = (SessionId(0xa), SessionId(0xb));
    let mut watches = WatchReport::default();
    watches.add(a, ["/x", "/y"].into_iter(), true);
    let mut other = WatchReport::default();
    other.add(b, ["/x"].into_iter(), true);
    other.add(SessionId(0xc), [].into_iter(), true);
    watches.merge(other);
    let report = Report { watches, ..Report::default() };
    assert_eq!(say(Word::Wchs, &report), "2 connections watching 2 paths\nTotal watches:3\n");
    assert_eq!(say(Word::Wchc, &report), "0xa\n\t/x\n\t/y\n0xb\n\t/x\n\n");
    assert_eq!(say(Word::Wchp, &report), "/x\n\t0xa\n\t0xb\n/y\n\t0xa\n\n");
    let mut counted = WatchReport::default();
    counted.add(a, ["/x"].into_iter(), false);
    let report = Report { watches: counted, ..Report::default() };
    assert_eq!(say(Word::Wchs, &report), "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(say(Word::Wchc, &report), "\n");
}

#[test]
fn hash_prints_signed_digests() {
    let report = Report { digests: vec![(Zxid(0x80), u64::MAX), (Zxid(0x100), 5)], ..Report::default() };
    assert_eq!(say(Word::Hash, &report), "80: -1\n100: 5\n");
    assert_eq!(say(Word::Hash, &Report::default()), "");
}

#[test]
fn long_lists_are_cut() {
    let report = Report { connections: vec![connection(1); 400_000], ..Report::default() };
    let text = say(Word::Cons, &report);
    assert!(text.len() <= TEXT_BYTES_MAX && text.len() > TEXT_BYTES_MAX - 200);
    assert!(text.ends_with("(cut here: the answer is too long)\n"));
}

/// Any report gives UTF-8 lines of bounded length; nothing panics.
#[test]
fn any_report_prints() {
    let mut state = 3u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 3
    };
    for _ in 0..300 {
        let mut report = Report {
            zxid: Zxid(next() as i64),
            uptime_ms: next(),
            outstanding: next(),
            trace_mask: next() as i64,
            ..Report::default()
        };
        for _ in 0..next() % 5 {
            report.connections.push(ConnectionReport {
                session: SessionId(next() as i64),
                last_op: next() as i32,
                last_cxid: next() as i32,
                established_wall_ms: next() as i64,
                expires_wall_ms: next() as i64 % 4_000_000_000_000,
                ..connection(next() as u16)
            });
            report
                .sessions
                .expiries
                .push((next() as i64 % 4_000_000_000_000, vec![SessionId(next() as i64)]));
            report.front.replied(OpCode::Ping, next(), next() % 1000);
            report.digests.push((Zxid(next() as i64), next()));
        }
        for (word, name) in WORDS {
            let text = say(word, &report);
            assert!(text.len() < TEXT_BYTES_MAX, "{name}");
            assert!(
                text.ends_with('\n')
                    || matches!(word, Word::Ruok | Word::Isro | Word::Gtmk | Word::Stmk | Word::Hash)
            );
        }
    }
}
