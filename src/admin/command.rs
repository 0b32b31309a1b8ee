//! The commands and the JSON each of them answers with.

use std::collections::BTreeMap;

use super::ensemble;
use super::json::Json;
use crate::config::Config;
use crate::metrics::{Latency, Tally};
use crate::types::Zxid;
use crate::words::{
    ConnectionReport, DIGESTS_MAX, MetricKind, MetricSink, Mode, Number, Report, ServerFacts, VERSION, Word,
    environment, four_decimals, java_address, metrics, op_name, summary_parts,
};

/// Version of the tree digests `hash` tells. Source: ZooKeeper `DigestCalculator`.
const DIGEST_VERSION: i64 = 2;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Configuration,
    ConnectionStatReset,
    Connections,
    Dirs,
    Dump,
    Environment,
    GetTraceMask,
    Hash,
    InitialConfiguration,
    IsReadOnly,
    LastSnapshot,
    Leader,
    Monitor,
    ObserverConnectionStatReset,
    Observers,
    Restore,
    Ruok,
    ServerStats,
    SetTraceMask,
    Snapshot,
    StatReset,
    Stats,
    SystemProperties,
    VotingView,
    WatchSummary,
    Watches,
    WatchesByPath,
    ZabState,
}

use Command::*;

/// All commands by their first names, each with its other names. Sorted.
const COMMANDS: [(Command, &str, &[&str]); 28] = [
    (Configuration, "configuration", &["conf", "config"]),
    (ConnectionStatReset, "connection_stat_reset", &["crst"]),
    (Connections, "connections", &["cons"]),
    (Dirs, "dirs", &[]),
    (Dump, "dump", &[]),
    (Environment, "environment", &["env", "envi"]),
    (GetTraceMask, "get_trace_mask", &["gtmk"]),
    (Hash, "hash", &[]),
    (InitialConfiguration, "initial_configuration", &["icfg"]),
    (IsReadOnly, "is_read_only", &["isro"]),
    (LastSnapshot, "last_snapshot", &["lsnp"]),
    (Leader, "leader", &["lead"]),
    (Monitor, "monitor", &["mntr"]),
    (ObserverConnectionStatReset, "observer_connection_stat_reset", &["orst"]),
    (Observers, "observers", &["obsr"]),
    (Restore, "restore", &["rest"]),
    (Ruok, "ruok", &[]),
    (ServerStats, "server_stats", &["srvr"]),
    (SetTraceMask, "set_trace_mask", &["stmk"]),
    (Snapshot, "snapshot", &["snap"]),
    (StatReset, "stat_reset", &["srst"]),
    (Stats, "stats", &["stat"]),
    (SystemProperties, "system_properties", &["sysp"]),
    (VotingView, "voting_view", &[]),
    (WatchSummary, "watch_summary", &["wchs"]),
    (Watches, "watches", &["wchc"]),
    (WatchesByPath, "watches_by_path", &["wchp"]),
    (ZabState, "zabstate", &[]),
];

impl Command {
    pub fn of(name: &str) -> Option<Command> {
        COMMANDS
            .iter()
            .find(|(_, first, others)| *first == name || others.contains(&name))
            .map(|(command, ..)| *command)
    }

    /// Its first name.
    pub fn name(self) -> &'static str {
        COMMANDS.iter().find(|(command, ..)| *command == self).map_or("", |(_, name, _)| name)
    }

    /// Whether it comes by POST; all others come by GET.
    pub fn is_post(self) -> bool {
        self == Restore
    }

    /// Whether it needs all permissions on the root.
    pub fn is_protected(self) -> bool {
        matches!(self, Snapshot | Restore)
    }

    /// Whether a server that serves nobody answers it. ZooKeeper's `monitor` breaks while an election is on; ours says
    /// that nothing is served.
    pub fn works_always(self) -> bool {
        matches!(self, Environment | GetTraceMask | SetTraceMask | SystemProperties | ZabState)
    }

    /// The word whose report holds what the command tells.
    pub fn word(self) -> Word {
        match self {
            ConnectionStatReset => Word::Crst,
            Connections => Word::Cons,
            Dump => Word::Dump,
            GetTraceMask => Word::Gtmk,
            Hash => Word::Hash,
            Monitor => Word::Mntr,
            ServerStats => Word::Srvr,
            SetTraceMask => Word::Stmk,
            StatReset => Word::Srst,
            Stats => Word::Stat,
            WatchSummary => Word::Wchs,
            Watches => Word::Wchc,
            WatchesByPath => Word::Wchp,
            // What these tell is in every report, or in none.
            Configuration
            | Dirs
            | Environment
            | InitialConfiguration
            | IsReadOnly
            | LastSnapshot
            | Leader
            | ObserverConnectionStatReset
            | Observers
            | Restore
            | Ruok
            | Snapshot
            | SystemProperties
            | VotingView
            | ZabState => Word::Ruok,
        }
    }
}

/// What a command's answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    pub facts: &'a ServerFacts,
    pub config: &'a Config,
    pub report: &'a Report,
    /// The newest verified snapshot and when it was written, in seconds since 1970; asked for by `last_snapshot`.
    pub last_snapshot: Option<(Zxid, i64)>,
}

/// The answer to a command that is answered by numbers: not to `snapshot` and `restore`, which are deeds.
pub fn body(command: Command, findings: &Findings<'_>) -> Json {
    let Findings { facts, config, report, last_snapshot } = *findings;
    if report.mode == Mode::NotServing && !command.works_always() {
        return error_body(command.name(), crate::words::not_serving().trim_end());
    }
    let mut members = Members::default();
    match command {
        Configuration => configuration(&mut members, facts),
        Connections => connections(&mut members, &report.connections, false),
        Dirs => {
            members.add("datadir_size", facts.process.data_dir_bytes.get());
            members.add("logdir_size", facts.process.log_dir_bytes.get());
        }
        Dump => dump(&mut members, report),
        Environment => environment(facts).for_each(|(key, value)| members.add(key, value)),
        GetTraceMask | SetTraceMask => members.add("tracemask", report.trace_mask),
        Hash => {
            let digest = |(zxid, digest): &(Zxid, u64)| {
                Json::object([
                    ("zxid", Json::from(zxid.0)),
                    ("digest", Json::from(*digest as i64)),
                    ("digest_version", Json::from(DIGEST_VERSION)),
                ])
            };
            members.add("digests", report.digests.iter().take(DIGESTS_MAX).map(digest).collect::<Json>());
        }
        InitialConfiguration => members.add("initial_configuration", config.initial_text.as_str()),
        IsReadOnly => members.add("read_only", report.mode == Mode::ReadOnly),
        LastSnapshot => {
            let (zxid, seconds) = last_snapshot.unwrap_or((Zxid(-1), -1));
            members.add("zxid", format!("{:x}", zxid.0));
            members.add("timestamp", seconds);
        }
        Leader => match (&report.ensemble, &config.ensemble) {
            (Some(member), Some(ensemble)) => ensemble::leader(&mut members, report.mode, member, ensemble),
            _ => return failure(command, "server is not initialized"),
        },
        Monitor => {
            members.add("version", VERSION);
            members.add("server_state", report.mode.name());
            for (name, value) in report.ensemble.iter().flat_map(|member| member.head()) {
                members.add(name, value);
            }
            metrics(&mut members, facts, report);
        }
        Observers => {
            let leader = report.ensemble.as_ref().and_then(|member| member.leader);
            members.add("synced_observers", leader.map_or(0, |leader| leader.synced_observers));
            // Which ones they are only their connections know.
            members.add("observers", Json::Array(Vec::new()));
        }
        ServerStats => server_stats(&mut members, facts, report),
        Stats => {
            server_stats(&mut members, facts, report);
            connections(&mut members, &report.connections, true);
        }
        SystemProperties => system_properties(&mut members, facts, config),
        VotingView => members.add("current_config", ensemble::voting_view(config.ensemble.as_ref())),
        WatchSummary => {
            members.add("num_connections", report.watches.connections);
            members.add("num_paths", report.watches.paths() as u64);
            members.add("num_total_watches", report.watches.watches);
        }
        Watches => {
            let mut sessions = Members::default();
            for (session, paths) in report.watches.by_session() {
                sessions.add(&session.0.to_string(), paths.iter().map(String::as_str).collect::<Json>());
            }
            members.add("session_id_to_watched_paths", Json::Object(sessions.0));
        }
        WatchesByPath => {
            let mut paths = Members::default();
            for (path, sessions) in report.watches.by_path() {
                paths.add(path, sessions.iter().map(|session| session.0).collect::<Json>());
            }
            members.add("path_to_session_ids", Json::Object(paths.0));
        }
        ZabState => match (&report.ensemble, &config.ensemble) {
            (Some(member), Some(ensemble)) => ensemble::zab_state(&mut members, report, member, ensemble),
            _ => {
                members.add("voting", false);
                members.add("zabstate", "");
            }
        },
        ConnectionStatReset | ObserverConnectionStatReset | Restore | Ruok | Snapshot | StatReset => {}
    }
    members.add("command", command.name());
    members.add("error", Json::Null);
    Json::Object(members.0)
}

/// The answer of a deed that is done.
pub fn done(command: Command) -> Json {
    Json::object([("command", command.name().into()), ("error", Json::Null)])
}

/// The answer of a command that ran and found something wrong: the other way around than [`error_body`].
pub fn failure(command: Command, error: &str) -> Json {
    Json::object([("error", error.into()), ("command", command.name().into())])
}

/// The answer where no command ran. `name` is what was asked for.
pub fn error_body(name: &str, error: &str) -> Json {
    Json::object([("command", name.into()), ("error", error.into())])
}

pub fn unknown(name: &str) -> Json {
    error_body(name, &format!("Unknown command: {name}"))
}

/// The page that lists all commands. Source: ZooKeeper `JettyAdminServer.CommandServlet#doGet`.
pub fn links(command_url: &str) -> String {
    let link = |(_, name, _): &(Command, &str, &[&str])| {
        format!("<a href=\"{command_url}/{name}\">{name}</a>\n<br/>\n")
    };
    COMMANDS.iter().map(link).collect()
}

/// An object in the making.
#[derive(Default)]
pub(super) struct Members(pub(super) Vec<(String, Json)>);

impl Members {
    pub(super) fn add(&mut self, name: &str, value: impl Into<Json>) {
        self.0.push((name.to_owned(), value.into()));
    }
}

impl MetricSink for Members {
    fn value(&mut self, _: MetricKind, name: &str, value: Number) {
        self.add(name, value);
    }

    fn set(&mut self, _: MetricKind, _: &str) {}

    fn keyed(&mut self, _: MetricKind, name: &str, key: &str, value: Number) {
        self.add(&format!("{key}_{name}"), value);
    }

    fn basic(&mut self, name: &str, tally: &Tally, _: Option<&Latency>, scale: u64) {
        summary_parts(name, tally, None, scale, |part, value| self.add(part, value));
    }

    fn detailed(&mut self, name: &str, latency: Option<&Latency>, scale: u64) {
        let tally = latency.map(|latency| latency.exact).unwrap_or_default();
        summary_parts(name, &tally, Some(latency), scale, |part, value| self.add(part, value));
    }
}

/// Source: ZooKeeper `ZooKeeperServerConf#toMap`.
fn configuration(members: &mut Members, facts: &ServerFacts) {
    members.add("client_port", facts.client_port);
    members.add("data_dir", facts.data_dir.as_str());
    members.add("data_log_dir", facts.data_log_dir.as_str());
    members.add("tick_time", facts.tick_time_ms);
    members.add("max_client_cnxns", facts.max_client_cnxns);
    members.add("min_session_timeout", facts.min_session_timeout_ms);
    members.add("max_session_timeout", facts.max_session_timeout_ms);
    members.add("server_id", i64::from(facts.server_id));
    members.add("client_port_listen_backlog", facts.client_backlog);
}

/// Source: ZooKeeper `ServerCnxn#getConnectionInfo`.
fn connection(report: &ConnectionReport, brief: bool) -> Json {
    let mut members = Members::default();
    members.add("remote_socket_address", java_address(&report.peer).trim_start_matches('/'));
    members.add("interest_ops", report.interest);
    members.add("outstanding_requests", report.queued);
    members.add("packets_received", report.received);
    members.add("packets_sent", report.sent);
    if !brief {
        members.add("session_id", report.session.0);
        members.add("last_operation", op_name(report.last_op));
        members.add("established", report.established_wall_ms);
        members.add("session_timeout", report.timeout_ms);
        members.add("last_cxid", report.last_cxid);
        members.add("last_zxid", report.last_zxid);
        members.add("last_response_time", report.last_response_ms);
        members.add("last_latency", report.last_latency_ms);
        members.add("min_latency", report.min_latency_ms);
        members.add("avg_latency", report.avg_latency_ms);
        members.add("max_latency", report.max_latency_ms);
    }
    Json::Object(members.0)
}

fn connections(members: &mut Members, reports: &[ConnectionReport], brief: bool) {
    members.add("connections", reports.iter().map(|report| connection(report, brief)).collect::<Json>());
    members.add("secure_connections", Json::Array(Vec::new()));
}

/// Times are those of the wall clock; ZooKeeper's are of a clock that began when the machine did.
fn dump(members: &mut Members, report: &Report) {
    let mut expiries: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (at_ms, sessions) in &report.sessions.expiries {
        expiries.entry(*at_ms).or_default().extend(sessions.iter().map(|session| session.0));
    }
    let mut by_time = Members::default();
    for (at_ms, sessions) in expiries {
        by_time.add(&at_ms.to_string(), sessions.into_iter().collect::<Json>());
    }
    members.add("expiry_time_to_session_ids", Json::Object(by_time.0));
    let mut by_session = Members::default();
    for (session, paths) in &report.sessions.ephemerals {
        by_session.add(&session.0.to_string(), paths.iter().map(String::as_str).collect::<Json>());
    }
    members.add("session_id_to_ephemeral_paths", Json::Object(by_session.0));
}

/// Source: ZooKeeper `Commands.SrvrCommand`, and `ServerStats` as Jackson sees it.
fn server_stats(members: &mut Members, facts: &ServerFacts, report: &Report) {
    let size = &report.front.response_size;
    let or_none = |bytes: u64| if size.count == 0 { Json::from(-1) } else { Json::from(bytes) };
    let sizes = Json::object([
        ("last_buffer_size", or_none(size.last)),
        ("min_buffer_size", or_none(size.min)),
        ("max_buffer_size", or_none(size.max)),
    ]);
    let latency = &report.front.request_latency_us;
    let mut stats = Members::default();
    stats.add("packets_sent", report.front.packets_sent());
    stats.add("packets_received", report.front.packets_received());
    stats.add("fsync_threshold_exceed_count", report.pipeline.fsync_threshold_exceeded);
    stats.add("client_response_stats", sizes.clone());
    stats.add("provider_null", false);
    stats.add("data_dir_size", facts.process.data_dir_bytes.get());
    stats.add("log_dir_size", facts.process.log_dir_bytes.get());
    stats.add("last_processed_zxid", report.zxid.0);
    stats.add("outstanding_requests", report.outstanding);
    stats.add("server_state", report.mode.name());
    stats.add("avg_latency", Number::Real(four_decimals(latency.mean() / 1000.0)));
    stats.add("max_latency", latency.max / 1000);
    stats.add("min_latency", latency.min / 1000);
    stats.add("num_alive_client_connections", report.connection_count);
    stats.add("uptime", report.uptime_ms);
    stats.add("auth_failed_count", report.front.auth_failed);
    // Spelt like this.
    stats.add("non_mtlsremote_conn_count", 0);
    stats.add("non_mtlslocal_conn_count", 0);
    members.add("version", VERSION);
    members.add("read_only", report.mode == Mode::ReadOnly);
    members.add("server_stats", Json::Object(stats.0));
    members.add("client_response", sizes);
    if let Some(leader) = report.ensemble.as_ref().and_then(|member| member.leader) {
        let proposals = Json::object([
            ("last_buffer_size", Json::from(leader.proposal_bytes_last)),
            ("min_buffer_size", Json::from(leader.proposal_bytes_min)),
            ("max_buffer_size", Json::from(leader.proposal_bytes_max)),
        ]);
        members.add("proposal_stats", proposals);
    }
    members.add("node_count", report.tree.node_count);
}

/// There is no Java machine: its properties are left out, and ZooKeeper's are those the configuration gave.
fn system_properties(members: &mut Members, facts: &ServerFacts, config: &Config) {
    let mut properties: BTreeMap<String, String> = config.properties.iter().cloned().collect();
    for (key, value) in &facts.environment {
        if key.starts_with("os.") || key.starts_with("user.") {
            properties.insert((*key).to_owned(), value.clone());
        }
    }
    for (key, value) in [("file.separator", "/"), ("line.separator", "\n"), ("path.separator", ":")] {
        properties.insert(key.to_owned(), value.to_owned());
    }
    for (key, value) in properties {
        members.add(&key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};
    use crate::types::SessionId;
    use crate::words::{SessionReport, WatchReport};

    fn config(text: &str) -> Config {
        let sources = Sources {
            start: crate::config::Start::File { name: "zoo.cfg".into(), text: text.as_bytes().to_vec() },
            ..Sources::default()
        };
        load(&sources, &mut |_| Ok(None)).unwrap().config
    }

    fn say(command: Command, report: &Report) -> Json {
        let (facts, config) = (ServerFacts::default(), config("dataDir=/d\nclientPort=1\n"));
        let last_snapshot = Some((Zxid(0x1a), 1_795_216_343));
        body(command, &Findings { facts: &facts, config: &config, report, last_snapshot })
    }

    fn names(value: &Json) -> Vec<&str> {
        let Json::Object(members) = value else { panic!("{value:?} is an object") };
        members.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn member<'a>(value: &'a Json, name: &str) -> &'a Json {
        let Json::Object(members) = value else { panic!("{value:?} is an object") };
        &members.iter().find(|(member, _)| member == name).unwrap_or_else(|| panic!("{name} is missing")).1
    }

    #[test]
    fn names_are_unique_sorted_and_lead_back() {
        let mut seen = Vec::new();
        for (command, first, others) in COMMANDS {
            for name in others.iter().chain([&first]) {
                assert_eq!(Command::of(name), Some(command), "{name}");
                assert!(!seen.contains(name), "{name}");
                seen.push(name);
            }
            assert_eq!(command.name(), first);
        }
        assert!(COMMANDS.windows(2).all(|two| two[0].1 < two[1].1));
        assert_eq!(Command::of("srvr/x"), None);
    }

    /// Members and their order as a standalone 3.9.5 has them.
    #[test]
    fn members_are_zookeepers() {
        let report = Report::default();
        let of = |command| say(command, &report);
        let own = |expected: &str| {
            expected
                .split(' ')
                .filter(|name| !name.is_empty())
                .chain(["command", "error"])
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (command, expected) in [
            (
                Configuration,
                "client_port data_dir data_log_dir tick_time max_client_cnxns min_session_timeout max_session_timeout server_id client_port_listen_backlog",
            ),
            (Connections, "connections secure_connections"),
            (Dirs, "datadir_size logdir_size"),
            (Dump, "expiry_time_to_session_ids session_id_to_ephemeral_paths"),
            (GetTraceMask, "tracemask"),
            (SetTraceMask, "tracemask"),
            (Hash, "digests"),
            (InitialConfiguration, "initial_configuration"),
            (IsReadOnly, "read_only"),
            (LastSnapshot, "zxid timestamp"),
            (Observers, "synced_observers observers"),
            (Ruok, ""),
            (StatReset, ""),
            (ServerStats, "version read_only server_stats client_response node_count"),
            (
                Stats,
                "version read_only server_stats client_response node_count connections secure_connections",
            ),
            (VotingView, "current_config"),
            (WatchSummary, "num_connections num_paths num_total_watches"),
            (Watches, "session_id_to_watched_paths"),
            (WatchesByPath, "path_to_session_ids"),
            (ZabState, "voting zabstate"),
        ] {
            assert_eq!(names(&of(command)).join(" "), own(expected), "{command:?}");
        }
        assert_eq!(
            names(member(&of(ServerStats), "server_stats")).join(" "),
            "packets_sent packets_received fsync_threshold_exceed_count client_response_stats provider_null \
             data_dir_size log_dir_size last_processed_zxid outstanding_requests server_state avg_latency max_latency \
             min_latency num_alive_client_connections uptime auth_failed_count non_mtlsremote_conn_count \
             non_mtlslocal_conn_count"
        );
        let monitor = of(Monitor);
        for name in
            ["version", "server_state", "znode_count", "cnt_fsynctime", "p999_readlatency", "op_count_total"]
        {
            member(&monitor, name);
        }
        assert_eq!(member(&of(Leader), "error"), &Json::from("server is not initialized"));
        assert_eq!(member(&of(LastSnapshot), "zxid"), &Json::from("1a"));
    }

    #[test]
    fn sessions_and_watches_go_by_decimal_ids() {
        let mut watches = WatchReport::default();
        watches.add(SessionId(0x10), ["/a", "/b"].into_iter(), true);
        watches.add(SessionId(0x20), ["/b"].into_iter(), true);
        let report = Report {
            watches,
            sessions: SessionReport {
                expiries: vec![(1000, vec![SessionId(0x10)]), (1000, vec![SessionId(0x20)])],
                ephemerals: vec![(SessionId(0x20), vec!["/e".into()])],
                ..SessionReport::default()
            },
            ..Report::default()
        };
        assert!(
            say(Watches, &report).print().contains("\"16\" : [ \"/a\", \"/b\" ],\n    \"32\" : [ \"/b\" ]")
        );
        assert!(say(WatchesByPath, &report).print().contains("\"/b\" : [ 16, 32 ]"));
        let dump = say(Dump, &report).print();
        assert!(dump.contains("\"1000\" : [ 16, 32 ]") && dump.contains("\"32\" : [ \"/e\" ]"), "{dump}");
    }

    #[test]
    fn a_connections_address_has_no_slash() {
        let report = Report {
            connections: vec![
                ConnectionReport::new(([127, 0, 0, 1], 5).into()),
                ConnectionReport::new("[::1]:6".parse().unwrap()),
            ],
            ..Report::default()
        };
        let text = say(Stats, &report).print();
        assert!(text.contains("\"remote_socket_address\" : \"127.0.0.1:5\""), "{text}");
        assert!(text.contains("\"remote_socket_address\" : \"[0:0:0:0:0:0:0:1]:6\""), "{text}");
        assert!(!text.contains("session_id"));
        assert!(say(Connections, &report).print().contains("\"last_operation\" : \"NA\""));
    }

    #[test]
    fn a_server_that_does_not_serve_says_so_to_most() {
        let report = Report { mode: Mode::NotServing, ..Report::default() };
        for (command, name, _) in COMMANDS {
            let error = member(&say(command, &report), "error").clone();
            if command.works_always() {
                assert_eq!(error, Json::Null, "{name}");
            } else {
                let expected = Json::from("This ZooKeeper instance is not currently serving requests");
                assert_eq!(error, expected, "{name}");
            }
        }
    }

    #[test]
    fn secrets_are_not_told() {
        let config = config(
            "dataDir=/d\nclientPort=1\nsnapCount=7\nDigestAuthenticationProvider.superDigest=super:hidden1\n\
             ssl.quorum.keyStore.password=hid\\\n  den2\nssl.keyStore.password: hidden3\n",
        );
        let (facts, report) = (ServerFacts::default(), Report::default());
        let findings = Findings { facts: &facts, config: &config, report: &report, last_snapshot: None };
        for command in [InitialConfiguration, SystemProperties] {
            let text = body(command, &findings).print();
            assert!(!text.contains("hidden") && !text.contains("hid\\") && !text.contains("den2"), "{text}");
            assert!(text.contains("superDigest") && text.contains("<redacted>"), "{text}");
        }
        let text = body(SystemProperties, &findings).print();
        assert!(text.contains("\"zookeeper.snapCount\" : \"7\""), "{text}");
    }

    #[test]
    fn the_list_of_commands_links_to_each() {
        let page = links("/commands");
        assert_eq!(page.lines().count(), 2 * COMMANDS.len());
        assert!(page.starts_with("<a href=\"/commands/configuration\">configuration</a>\n<br/>\n"));
    }
}
