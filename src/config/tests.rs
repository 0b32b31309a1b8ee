//! Whole configurations, from text to [`Config`].

use super::*;

pub(super) fn sources(text: &str) -> Sources {
    Sources {
        start: Start::File { name: "conf/zoo.cfg".into(), text: text.as_bytes().to_vec() },
        ..Sources::default()
    }
}

fn no_files(_: &Path) -> Result<Option<Vec<u8>>, String> {
    Ok(None)
}

pub(super) fn load_text(text: &str) -> Result<Loaded, ConfigError> {
    load(&sources(text), &mut no_files)
}

pub(super) fn with(lines: &str) -> Config {
    load_text(&format!("dataDir=/d\nclientPort=2181\n{lines}")).unwrap().config
}

pub(super) fn notices(lines: &str) -> Vec<String> {
    let loaded = load_text(&format!("dataDir=/d\nautopurge.purgeInterval=1\n{lines}")).unwrap();
    loaded.notices.iter().map(|notice| notice.to_string()).collect()
}

pub(super) fn error(lines: &str) -> String {
    load_text(&format!("dataDir=/d\n{lines}")).unwrap_err().to_string()
}

#[test]
fn nothing_given_listens_on_loopback_with_data_beside_it() {
    let Loaded { config, notices } = load(&Sources::default(), &mut no_files).unwrap();
    assert_eq!(config.client_address.as_ref().unwrap().to_string(), "127.0.0.1:2181");
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.data_log_dir, config.data_dir);
    assert_eq!(config.tick_time_ms, 2000);
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (4000, 40000));
    assert_eq!(notices, [Notice::Retention { kept: 3, written: false }]);
    assert_eq!(notices[0].level(), Level::Info);
    let sets = Sources { sets: vec!["clientPort=2999".into(), "dataDir=/x".into()], ..Sources::default() };
    let config = load(&sets, &mut no_files).unwrap().config;
    assert_eq!(config.client_address.unwrap().to_string(), "127.0.0.1:2999");
    assert_eq!(config.data_dir, Path::new("/x"));
}

#[test]
fn the_sample_file_is_taken_without_a_warning() {
    let text = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/tmp/zookeeper\nclientPort=2181\n\
                #maxClientCnxns=60\nautopurge.snapRetainCount=3\nautopurge.purgeInterval=1\n";
    let Loaded { config, notices } = load_text(text).unwrap();
    assert_eq!(notices, []);
    assert_eq!(config.client_address.unwrap(), ListenAddress { host: None, port: 2181 });
    assert_eq!((config.init_limit_ticks, config.sync_limit_ticks), (Some(10), Some(5)));
    assert_eq!(config.storage.purge_interval_ms, Some(3_600_000));
    assert_eq!(config.max_client_cnxns, 60);
}

#[test]
fn defaults_are_zookeepers() {
    let config = with("");
    assert_eq!(config.tick_time_ms, 3000);
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (6000, 60000));
    assert_eq!(config.jute_max_buffer_bytes, 1_048_575);
    assert_eq!(config.jute_extra_bytes, 1_048_575);
    assert_eq!(config.storage.snap_count, 100_000);
    assert_eq!(config.storage.snap_size_limit_bytes, Some(4 << 30));
    assert_eq!(config.storage.txn_log_size_limit_bytes, None);
    assert_eq!(config.storage.pre_alloc_bytes, 64 << 20);
    assert_eq!(config.storage.snap_retain_count, Some(3));
    assert_eq!(config.storage.snapshot_compression, Compression::None);
    assert!(config.storage.force_sync && config.storage.data_dir_autocreate && config.storage.db_autocreate);
    assert!(config.nodes.digest_enabled && config.nodes.close_session_txn_enabled);
    assert!(!config.nodes.skip_acl && !config.nodes.enforce_quota && !config.nodes.extended_types_enabled);
    assert_eq!(config.words_whitelist, ["srvr"]);
    assert_eq!(config.global_outstanding_limit, 1000);
    assert_eq!(config.throttled_op_wait_ms, None);
    assert_eq!(config.large_request_threshold_bytes, None);
    assert_eq!(config.connection_throttle.tokens, 0);
    assert_eq!(config.connection_throttle.global_weight, 1);
    assert_eq!(config.connection_throttle.freeze_time_ms, None);
    assert_eq!(config.sessionless_timeout_ms, 10_000);
    assert_eq!(config.client_backlog, None);
    assert!(config.admin.enabled && !config.admin.snapshot_enabled);
    assert_eq!(config.cores, Cores::All);
    assert_eq!(config.io, IoDriver::Auto);
    assert_eq!(config.spin_us, None);
    assert_eq!(config.storage.log_writes_in_flight, 1);
    assert_eq!(config.log_level, "info");
}

#[test]
fn every_group_of_keys_reaches_the_config() {
    let config = with(
        "dataLogDir=/l\nminSessionTimeout=1\nmaxSessionTimeout=0x100\nmaxClientCnxns=0\nmaxCnxns=7\njute.maxbuffer=0x9fffff\n\
         clientPortAddress=10.0.0.1\nclientPortListenBacklog=9\nforceSync=no\nskipACL=YES\nsnapCount=1\n\
         snapSizeLimitInKb=-1\nsnapshot.compression.method=GZ\nthrottled_op_wait_time=5\nlargeRequestThreshold=10\n\
         connection_throttle_tokens=4\nconnection_throttle_weight_enabled=true\nconnection_throttle_freeze_time=2\n\
         DigestAuthenticationProvider.superDigest=super:x\nDigestAuthenticationProvider.digestAlg=sha-256\n\
         superUser=a\nsuperUser.2=b\nauthProvider.1=org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider\n\
         ensembleAuthName=x, y\nenforce.auth.enabled=true\nenforce.auth.schemes=digest,sasl\n4lw.commands.whitelist=stat, ruok\n\
         ringkeeper.cores=0,2-3\nringkeeper.io=epoll\nringkeeper.spin=30\nringkeeper.log.format=json\n\
         ringkeeper.log.inflight=2\nringkeeper.snapRetainCount=0\nautopurge.snapRetainCount=9\ndigest.enabled=FALSE\n\
         ringkeeper.log.write=buffered\nringkeeper.log.level=debug",
    );
    assert_eq!(config.data_log_dir, Path::new("/l"));
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (1, 256));
    assert_eq!((config.max_client_cnxns, config.max_cnxns), (0, 7));
    assert_eq!(config.jute_max_buffer_bytes, 0x9f_ffff);
    assert_eq!(config.client_address.unwrap().to_string(), "10.0.0.1:2181");
    assert_eq!(config.client_backlog, Some(9));
    assert!(!config.storage.force_sync && config.nodes.skip_acl && !config.nodes.digest_enabled);
    assert_eq!((config.storage.snap_count, config.storage.snap_size_limit_bytes), (2, None));
    assert_eq!(config.storage.snapshot_compression, Compression::Gzip);
    assert_eq!((config.throttled_op_wait_ms, config.large_request_threshold_bytes), (Some(5), Some(10)));
    assert_eq!((config.connection_throttle.global_weight, config.connection_throttle.renew_weight), (3, 2));
    assert_eq!(config.connection_throttle.freeze_time_ms, Some(2));
    assert_eq!(config.auth.super_digest, Some(Secret("super:x".into())));
    assert_eq!(config.auth.digest_algorithm, DigestAlgorithm::Sha256);
    assert_eq!(config.auth.super_users, ["a", "b"]);
    assert_eq!(config.auth.ensemble_names.unwrap(), ["x", "y"]);
    assert_eq!(config.auth.enforced_schemes.unwrap(), ["digest", "sasl"]);
    assert_eq!(config.words_whitelist, ["stat", "ruok"]);
    assert_eq!(config.cores, Cores::List(vec![0, 2, 3]));
    assert_eq!((config.io, config.spin_us), (IoDriver::Epoll, Some(30)));
    assert_eq!((config.log_format, config.log_level), (LogFormat::Json, "debug"));
    assert_eq!((config.storage.log_writes_in_flight, config.storage.snap_retain_count), (2, None));
    assert_eq!(config.storage.log_write, LogWriteMode::Buffered);
}

#[test]
fn secrets_do_not_show() {
    let config = with("DigestAuthenticationProvider.superDigest=super:hidden");
    assert!(!format!("{config:?}").contains("hidden"));
}

#[test]
fn wrong_values_name_file_line_key_value_and_what_was_expected() {
    for (line, expected) in [
        ("clientPort=abc", "clientPort=abc: expected a whole number from 0 to 65535"),
        ("clientPort=", "clientPort=: expected a whole number from 0 to 65535"),
        ("tickTime=0", "tickTime=0: expected a whole number from 1 to 107374182 (ms)"),
        ("standaloneEnabled=yes", "standaloneEnabled=yes: expected true or false"),
        ("electionAlg=1", "electionAlg=1: expected 3"),
        (
            "snapshot.compression.method=zip",
            "snapshot.compression.method=zip: expected one of nothing, gz, snappy",
        ),
        ("ringkeeper.io=iocp", "ringkeeper.io=iocp: expected one of auto, uring, epoll"),
        (
            "connection_throttle_drop_increase=2",
            "connection_throttle_drop_increase=2: expected a number from 0 to 1",
        ),
        (
            "autopurge.purgeInterval=1w",
            "autopurge.purgeInterval=1w: expected whole hours, or a number with the suffix ms, s, m, h or d",
        ),
        ("server.1=h:1", "server.1=h:1: expected host:quorumPort:electionPort[:participant|observer]"),
        (
            "metricsProvider.className=a.b.C",
            "metricsProvider.className=a.b.C: expected DefaultMetricsProvider, NullMetricsProvider or \
             PrometheusMetricsProvider",
        ),
        (
            "ringkeeper.log.inflight=3",
            "ringkeeper.log.inflight=3: expected a whole number from 1 to 2 (log writes)",
        ),
    ] {
        assert_eq!(error(line), format!("conf/zoo.cfg:2: {expected}"));
    }
    assert!(
        error("ringkeeper.cores=x").starts_with("conf/zoo.cfg:2: ringkeeper.cores=x: expected all, a count")
    );
    assert_eq!(error("a=\\u00g0"), "conf/zoo.cfg:2: \\u is not followed by four hexadecimal digits");
    assert_eq!(
        load_text("clientPort=1").unwrap_err().to_string(),
        "conf/zoo.cfg:1: dataDir is missing: the directory for snapshots and logs has to be given"
    );
}

#[test]
fn what_would_be_unsafe_to_ignore_stops_the_start() {
    for line in [
        "quorum.auth.enableSasl=true",
        "oraclePath=/o",
        "ssl.context.supplier.class=x.Y",
        "ssl.authProvider=mine",
    ] {
        assert!(
            matches!(load_text(&format!("dataDir=/d\n{line}")), Err(ConfigError::Unsupported { .. })),
            "{line}"
        );
    }
    for line in [
        "client.portUnification=false",
        "quorum.auth.enableSasl=FALSE",
        "ssl.authProvider=x509",
        "secureClientPort=0",
    ] {
        assert!(load_text(&format!("dataDir=/d\n{line}")).is_ok(), "{line}");
    }
}

#[test]
fn contradictions_are_named() {
    assert_eq!(
        error("clientPortAddress=h"),
        "conf/zoo.cfg:2: clientPortAddress is given but clientPort is not"
    );
    assert_eq!(
        error("minSessionTimeout=9\nmaxSessionTimeout=8"),
        "conf/zoo.cfg:2: minSessionTimeout (9 ms) is larger than maxSessionTimeout (8 ms)"
    );
    assert_eq!(
        error("clientPort=1\nserver.1=h:1:2;2"),
        "conf/zoo.cfg:2: clientPort says *:1, the server line *:2; give one of them"
    );
    assert!(error("enforce.auth.enabled=true").contains("enforce.auth.schemes is missing"));
    assert!(error("secureClientPortAddress=h").contains("secureClientPort is not"));
}

#[test]
fn one_server_runs_standalone_with_an_error_line() {
    let loaded =
        load_text("dataDir=/d\nautopurge.purgeInterval=1\nserver.1=localhost:2888:3888;2181").unwrap();
    assert_eq!(loaded.notices, [Notice::OneServer]);
    assert_eq!(loaded.notices[0].level(), Level::Error);
    assert_eq!(loaded.config.client_address.unwrap().to_string(), "*:2181");
    assert_eq!(loaded.config.members.len(), 1);
}

#[test]
fn no_client_port_is_no_listener() {
    assert_eq!(load_text("dataDir=/d").unwrap().config.client_address, None);
    assert_eq!(load_text("dataDir=/d\nclientPort=0").unwrap().config.client_address, None);
}

#[test]
fn each_kind_of_useless_key_is_one_notice() {
    let all = notices(
        "foo=1\nbar.baz=2\nnio.numWorkerThreads=1\ncnxTimeout=3\ntcpKeepAlive=true\naudit.enable=true\n\
         admin.restore.enabled=true\nadmin.serverPort=8080",
    );
    assert_eq!(
        all,
        [
            "unknown keys, ignored: foo, bar.baz",
            "keys accepted, without effect in ringkeeper: nio.numWorkerThreads",
            "keys of ensembles, without effect on a standalone server: cnxTimeout, tcpKeepAlive",
            "keys of features this release does not have, ignored: admin.restore.enabled",
        ]
    );
    assert!(notices("admin.enableServer=false\naudit.enable=false").is_empty());
}

#[test]
fn odd_values_that_zookeeper_takes_are_told() {
    assert_eq!(
        notices("forceSync=false"),
        ["conf/zoo.cfg:3: forceSync=false means yes: no, or anything else for the default"]
    );
    assert_eq!(
        notices("enforceQuota=yes"),
        ["conf/zoo.cfg:3: enforceQuota=yes means false: true, or anything else for false"]
    );
    assert_eq!(notices("snapCount=1"), ["conf/zoo.cfg:3: snapCount=1 is too small, 2 is used"]);
    assert_eq!(
        notices("autopurge.snapRetainCount=1"),
        ["conf/zoo.cfg:3: autopurge.snapRetainCount=1 is too small, 3 is used"]
    );
    assert!(notices("authProvider.key=com.example.Mine")[0].contains("authentication with its scheme fails"));
    assert!(notices("metricsProvider.className=a.PrometheusMetricsProvider").is_empty());
}

#[test]
fn retention_is_on_even_where_autopurge_is_off() {
    let loaded = load_text("dataDir=/d\nautopurge.purgeInterval=0").unwrap();
    assert_eq!(loaded.notices, [Notice::Retention { kept: 3, written: true }]);
    assert_eq!(loaded.notices[0].level(), Level::Warn);
    let loaded = load_text("dataDir=/d\nringkeeper.snapRetainCount=1").unwrap();
    assert_eq!((loaded.config.storage.snap_retain_count, loaded.notices.len()), (Some(1), 0));
}

#[test]
fn myid_is_read_where_it_is() {
    let mut read = |path: &Path| -> Result<Option<Vec<u8>>, String> {
        assert_eq!(path, Path::new("/d/myid"));
        Ok(Some(b"7\nrest".to_vec()))
    };
    assert_eq!(load(&sources("dataDir=/d"), &mut read).unwrap().config.my_id, Some(7));
    for bad in [&b"x"[..], b"", b"0", b"256", b"-1"] {
        let error =
            load(&sources("dataDir=/d"), &mut |_: &Path| Ok(Some(bad.to_vec()))).unwrap_err().to_string();
        assert!(
            error.starts_with("/d/myid:1: myid=") && error.ends_with("expected a server id from 1 to 255"),
            "{error}"
        );
    }
    let error = load(&sources("dataDir=/d"), &mut |_: &Path| Err("no permission".into())).unwrap_err();
    assert_eq!(error.to_string(), "/d/myid: no permission");
}

#[test]
fn dynamic_files_hold_the_servers_and_nothing_else() {
    let dynamic = |static_lines: &str, text: &'static str| {
        load(&sources(&format!("dataDir=/d\n{static_lines}")), &mut |path: &Path| {
            Ok((path == Path::new("conf/zoo.cfg.dynamic.1")).then(|| text.as_bytes().to_vec()))
        })
    };
    let key = "dynamicConfigFile=zoo.cfg.dynamic.1";
    let loaded = dynamic(key, "server.1=h:1:2:participant;9\n").unwrap();
    assert_eq!(loaded.config.client_address.unwrap().port, 9);
    let error = dynamic(key, "server.1=h:1:2\nversion=1").unwrap_err().to_string();
    assert_eq!(
        error,
        "conf/zoo.cfg.dynamic.1:2: version=1: expected only server.N, group.N and weight.N in a dynamic file"
    );
    let error = dynamic(&format!("{key}\nweight.1=2"), "server.1=h:1:2").unwrap_err().to_string();
    assert!(error.starts_with("conf/zoo.cfg:3: weight.1 has to stand in the file"), "{error}");
    let error = dynamic("dynamicConfigFile=other", "").unwrap_err().to_string();
    assert!(error.contains("there is no conf/other"), "{error}");
    let error = dynamic(key, "server.1=h:1:2\nserver.1=h:3:4").unwrap_err().to_string();
    assert_eq!(
        error,
        "conf/zoo.cfg.dynamic.1:2: server.1 is given twice, otherwise in line 1: expected each server once"
    );
}

/// Every key of the table, given its own default, starts a server; nothing reads a key the table lacks.
#[test]
fn every_key_with_its_default_starts() {
    for key in keys::KEYS.iter().filter(|key| !key.default.is_empty() && !key.name.ends_with('*')) {
        let loaded = load_text(&format!("dataDir=/d\n{}={}", key.name, key.default));
        assert!(loaded.is_ok(), "{}: {:?}", key.name, loaded.err());
    }
}

/// Any text loads or is refused; nothing panics.
#[test]
fn any_mixture_of_keys_and_values_loads_or_is_refused() {
    let values = [
        "",
        "0",
        "1",
        "-1",
        "true",
        "no",
        "x",
        "2147483647",
        "-2147483648",
        "9999999999999999999",
        "1.5",
        "NaN",
        "a:1:2",
        "0x",
        "1-2",
    ];
    let mut state = 42u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    let mut loaded = 0;
    for _ in 0..20_000 {
        let mut text = String::from("dataDir=/d\n");
        for _ in 0..1 + next(2) {
            let name = keys::KEYS[next(keys::KEYS.len())].name.replace('*', "1");
            text.push_str(&format!("{name}={}\n", values[next(values.len())]));
        }
        loaded += u32::from(load_text(&text).is_ok());
    }
    assert!(loaded > 1000);
}

/// Loads a configuration that names this login configuration.
fn with_jaas(lines: &str, jaas: &'static str) -> Result<Loaded, ConfigError> {
    let text = format!("dataDir=/d\njava.security.auth.login.config=/jaas\n{lines}\n");
    load(&sources(&text), &mut |path: &Path| {
        Ok((path == Path::new("/jaas")).then(|| jaas.as_bytes().to_vec()))
    })
}

#[test]
fn users_of_sasl_come_from_the_login_configuration() {
    const JAAS: &str = "QuorumServer { x.DigestLoginModule required user_q=\"q\"; };\n\
                        Server { x.DigestLoginModule required user_super=\"a\" user_bob=\"b\" other=\"c\"; };";
    let users = |lines: &str| {
        let users = with_jaas(lines, JAAS).unwrap().config.auth.sasl_users?;
        Some(users.into_iter().map(|(user, password)| format!("{user}={}", password.0)).collect::<Vec<_>>())
    };
    assert_eq!(users("").unwrap(), ["bob=b", "super=a"]);
    assert_eq!(users("sasl.serverconfig=QuorumServer").unwrap(), ["q=q"]);
    assert_eq!(users("SASLAuthenticationProvider.superPassword=s").unwrap(), ["bob=b", "super=s"]);
    assert_eq!(users("fips-mode=false").unwrap().len(), 2);
    assert!(users("fips-mode=true").unwrap().is_empty());
    // A file that is there for the quorum alone.
    assert_eq!(with_jaas("", "QuorumServer { x.Y required; };").unwrap().config.auth.sasl_users, None);
    assert_eq!(with("").auth.sasl_users, None);
}

#[test]
fn a_login_configuration_that_cannot_be_used_is_named() {
    let error = |lines: &str, jaas| with_jaas(lines, jaas).unwrap_err().to_string();
    assert_eq!(
        error("", "Server {\n x.DigestLoginModule user_a=b;\n};"),
        "/jaas:2: expected required, requisite, sufficient or optional"
    );
    assert_eq!(
        error("", "Server {\n com.sun.security.auth.module.Krb5LoginModule required;\n};"),
        "/jaas:2: Server=com.sun.security.auth.module.Krb5LoginModule: Kerberos (GSSAPI) is not available in this \
         release; use DigestLoginModule"
    );
    assert_eq!(
        error("sasl.serverconfig=Other", "Server { x.DigestLoginModule required; };"),
        "conf/zoo.cfg:3: sasl.serverconfig=Other: expected a section of /jaas"
    );
    assert_eq!(
        error("java.security.auth.login.config=/none", ""),
        "conf/zoo.cfg:3: java.security.auth.login.config=/none: expected a file; there is no /none"
    );
}
const THREE: &str =
    "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\ninitLimit=10\nsyncLimit=5\n";

fn load_as(my_id: &str, lines: &str) -> Result<Loaded, ConfigError> {
    load(&sources(&format!("dataDir=/d\nautopurge.purgeInterval=1\n{lines}")), &mut |path: &Path| {
        Ok((path == Path::new("/d/myid") && !my_id.is_empty()).then(|| my_id.as_bytes().to_vec()))
    })
}

fn ensemble_of(my_id: &str, lines: &str) -> Ensemble {
    load_as(my_id, lines).unwrap().config.ensemble.unwrap()
}

#[test]
fn servers_make_an_ensemble_with_zookeepers_defaults() {
    let Loaded { config, notices } = load_as("2\n", &format!("{THREE}clientPort=2181")).unwrap();
    assert_eq!(notices, []);
    let ensemble = config.ensemble.unwrap();
    assert_eq!((ensemble.me, ensemble.own().addresses[0].host.as_str()), (ServerId(2), "b"));
    assert_eq!(ensemble.membership.voters().collect::<Vec<_>>(), [ServerId(1), ServerId(2), ServerId(3)]);
    assert_eq!(
        (ensemble.init_limit_ticks, ensemble.sync_limit_ticks, ensemble.connect_limit_ticks),
        (10, 5, 10)
    );
    assert_eq!((ensemble.connect_timeout_ms, ensemble.initial_timeout_ms), (5000, 15_000));
    assert_eq!((ensemble.notification_min_ms, ensemble.notification_max_ms), (200, 60_000));
    assert_eq!((ensemble.bind_tries, ensemble.waits_for_names), (Some(3), true));
    assert_eq!((ensemble.snap_syncs_max, ensemble.diff_syncs_max, ensemble.commit_log_count), (10, 100, 500));
    assert_eq!((ensemble.membership.version, ensemble.dynamic_file.as_ref()), (0, None));
    assert!(ensemble.observer_sync && ensemble.leader_serves && ensemble.standalone_enabled);
    assert!(!ensemble.listen_on_all_ips && !ensemble.keep_alive && !ensemble.multi_address);
    assert_eq!(ensemble.observer_master_port, None);
    assert_eq!(config.client_address.unwrap().port, 2181);
}

#[test]
fn every_key_of_an_ensemble_reaches_it() {
    let ensemble = ensemble_of(
        "4",
        &format!(
            "{THREE}server.4=[::1]:1:2:observer|[::2]:1:2:observer;10.0.0.1:2181\ngroup.1=1:2\ngroup.2=3\nweight.3=2\n\
             connectToLearnerMasterLimit=3\nquorumListenOnAllIPs=true\nelectionPortBindRetry=0\ncnxTimeout=7\n\
             quorumCnxnTimeoutMs=8\ntcpKeepAlive=true\nfastleader.minNotificationInterval=9\n\
             fastleader.maxNotificationInterval=10\nleader.maxConcurrentSnapSyncs=11\nleader.maxConcurrentDiffSyncs=12\n\
             commitLogCount=13\nsnapshotSizeFactor=-1\nsyncEnabled=false\nobserverMasterPort=14\n\
             observer.election.DelayMs=15\nobserver.reconnectDelayMs=16\nleaderServes=no\nmultiAddress.enabled=true\n\
             peerType=observer"
        ),
    );
    assert_eq!((ensemble.own().role, ensemble.own().addresses.len()), (Role::Observer, 2));
    assert_eq!(ensemble.membership.groups()[&1], [ServerId(1), ServerId(2)]);
    assert_eq!(ensemble.membership.weight(ServerId(3)), 2);
    assert_eq!((ensemble.connect_limit_ticks, ensemble.bind_tries), (3, None));
    assert_eq!((ensemble.connect_timeout_ms, ensemble.initial_timeout_ms), (7, 8));
    assert_eq!((ensemble.notification_min_ms, ensemble.notification_max_ms), (9, 10));
    assert_eq!((ensemble.snap_syncs_max, ensemble.diff_syncs_max, ensemble.commit_log_count), (11, 12, 13));
    assert_eq!((ensemble.observer_master_port, ensemble.observer_delay_ms), (Some(14), 15));
    assert_eq!((ensemble.observer_reconnect_delay_ms, ensemble.snapshot_size_factor), (16, -1.0));
    assert!(ensemble.listen_on_all_ips && ensemble.keep_alive && ensemble.multi_address);
    assert!(!ensemble.observer_sync && !ensemble.leader_serves && ensemble.waits_for_names);
    let ensemble = ensemble_of("1", &format!("{THREE}electionPortBindRetry=5\nobserver.syncEnabled=false"));
    assert_eq!(
        (ensemble.bind_tries, ensemble.waits_for_names, ensemble.observer_sync),
        (Some(5), false, false)
    );
}

#[test]
fn what_makes_no_ensemble_is_one_clear_line() {
    let error = |my_id: &str, lines: &str| load_as(my_id, lines).unwrap_err().to_string();
    let two = "server.1=a:1:2\nserver.2=b:1:2\n";
    let limits = "initLimit=10\nsyncLimit=5\n";
    for (my_id, lines, expected) in [
        (
            "",
            THREE.to_owned(),
            "/d/myid: no such file; a member of an ensemble has its own id there, from 1 to 255",
        ),
        (
            "4",
            THREE.to_owned(),
            "conf/zoo.cfg:3: server.4 is missing: /d/myid says that this is server 4, the lines are of 1, 2, 3",
        ),
        (
            "1",
            format!("{two}syncLimit=5"),
            "conf/zoo.cfg:1: initLimit is missing: an ensemble needs it: ticks that finding and following a leader may take",
        ),
        (
            "1",
            format!("{two}initLimit=5"),
            "conf/zoo.cfg:1: syncLimit is missing: an ensemble needs it: ticks that a server may be silent",
        ),
        (
            "1",
            format!("{two}{limits}server.2=c:1:2"),
            "conf/zoo.cfg:7: server.2 is given twice, otherwise in line 4: expected each server once",
        ),
        (
            "1",
            format!("{two}{limits}server.02=c:1:2"),
            "conf/zoo.cfg:4: server 2 is given twice: expected each id once",
        ),
        (
            "1",
            format!("{limits}server.1=h:1:2\nserver.2=H:2:3"),
            "conf/zoo.cfg:5: servers 1 and 2 both have H:2",
        ),
        (
            "1",
            format!("{limits}server.1=h:1:2\nserver.2=h:3:4\nclientPort=2"),
            "conf/zoo.cfg:7: port 2 is for clients and for the servers of server.1",
        ),
        (
            "1",
            "server.1=a:1:2:observer\nserver.2=b:1:2:observer".to_owned(),
            "conf/zoo.cfg:3: 2 observers and no participant: expected at least one participant for them to follow",
        ),
        (
            "1",
            "server.1=a:1:2\nserver.2=b:1:2:observer".to_owned(),
            "conf/zoo.cfg:3: one participant and 1 observers: expected two participants or more, or standaloneEnabled=false on every server",
        ),
        (
            "1",
            "standaloneEnabled=false".to_owned(),
            "conf/zoo.cfg:3: server.N is missing: standaloneEnabled=false makes this a member of an ensemble, which needs at least one participant",
        ),
        (
            "1",
            "peerType=observer".to_owned(),
            "conf/zoo.cfg:3: peerType=observer: expected participant where there is no server.N line to observe",
        ),
        (
            "1",
            format!("{THREE}sslQuorum=true"),
            "conf/zoo.cfg:8: ssl.quorum.keyStore.location is missing: sslQuorum needs a certificate and its key",
        ),
        (
            "1",
            format!("{two}{limits}server.3=a:5:6|b:5:6"),
            "conf/zoo.cfg:3: server 3 has 2 addresses: several need multiAddress.enabled=true",
        ),
        ("1", format!("{THREE}group.1=1:2"), "conf/zoo.cfg:3: participant 3 is in no group"),
        ("1", format!("{THREE}group.1=1:2:3\ngroup.2=3"), "conf/zoo.cfg:3: server 3 is in two groups"),
        (
            "1",
            format!("{THREE}group.1=1:2:3\nweight.1=0\nweight.2=0\nweight.3=0"),
            "conf/zoo.cfg:3: every weight is zero: no set of servers would be a quorum",
        ),
        ("1", format!("{THREE}weight.1=2"), "conf/zoo.cfg:3: participant 1 is in no group"),
        (
            "1",
            format!("{THREE}group.1=1:x"),
            "conf/zoo.cfg:8: group.1=1:x: expected server ids from 1 to 255 with colons between",
        ),
        (
            "255",
            format!("{two}{limits}server.255=c:1:2\nextendedTypesEnabled=true"),
            "conf/zoo.cfg:8: extendedTypesEnabled=true needs server ids below 255",
        ),
    ] {
        assert_eq!(error(my_id, &lines), expected, "{lines}");
    }
}

#[test]
fn roles_and_numbers_worth_a_line_are_told() {
    let notices = |my_id: &str, lines: &str| -> Vec<String> {
        load_as(my_id, lines).unwrap().notices.iter().map(|notice| notice.to_string()).collect()
    };
    let two = "server.1=a:1:2\nserver.2=b:1:2\ninitLimit=10\nsyncLimit=5\n";
    assert_eq!(
        notices("1", &format!("{two}peerType=observer")),
        [
            "2 participants tolerate no server's failure: at least three are needed for that",
            "conf/zoo.cfg:7: peerType=observer contradicts the server list, which counts",
        ]
    );
    assert_eq!(
        notices("1", &format!("{THREE}server.4=d:1:2\ncnxTimeout=7")),
        ["4 participants tolerate no more failures than 3 would"]
    );
    assert_eq!(
        notices("1", &format!("{THREE}observerMasterPort=9\nsyncEnabled=false\nlocalSessionsEnabled=false")),
        ["keys of features this release does not have, ignored: observerMasterPort"]
    );
    let alone =
        "standaloneEnabled=false\nserver.1=a:1:2\nserver.2=b:1:2:observer\ninitLimit=10\nsyncLimit=5\n";
    assert_eq!(ensemble_of("2", alone).own().role, Role::Observer);
    // The same line twice is only odd.
    assert!(notices("1", &format!("{THREE}server.3=c:2888:3888"))[0].contains("server.3 is given twice"));
}

#[test]
fn a_dynamic_file_says_its_version_in_its_name() {
    let load = |name: &str| {
        let text = format!("dataDir=/d\ninitLimit=1\nsyncLimit=1\ndynamicConfigFile={name}");
        load(&sources(&text), &mut |path: &Path| {
            Ok(Some(match path == Path::new("/d/myid") {
                true => b"2".to_vec(),
                false => b"server.1=a:1:2:participant;2181\nserver.2=b:1:2:participant;2182\nserver.3=c:1:2:observer".to_vec(),
            }))
        })
        .unwrap()
        .config
    };
    let config = load("/e/zoo.cfg.dynamic.10000000a");
    assert_eq!(config.client_address.unwrap().port, 2182);
    let ensemble = config.ensemble.unwrap();
    assert_eq!(
        (ensemble.membership.version, ensemble.dynamic_file.unwrap()),
        (0x1_0000_000a, "/e/zoo.cfg.dynamic.10000000a".into())
    );
    assert_eq!(load("members.txt").ensemble.unwrap().membership.version, 0);
}
