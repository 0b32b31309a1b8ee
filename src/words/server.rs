//! The server itself: `srvr`, `stat`, `conf`, `envi`, `dirs`.

use std::sync::Arc;

use super::Report;
use super::connections::{self, ConnectionReport};
use super::ensemble::{self, EnsembleFacts};
use super::number::average;
use super::text::Text;
use crate::config::Config;
use crate::metrics::ProcessGauges;

/// What `srvr` says first. Monitoring reads the digits in front to tell what a server can do, so they are those of the
/// ZooKeeper whose behaviour this is.
pub const VERSION: &str = concat!(
    "3.9.5-ringkeeper-",
    env!("CARGO_PKG_VERSION"),
    "-",
    env!("RINGKEEPER_GIT"),
    ", built on ",
    env!("RINGKEEPER_BUILT")
);

/// What the server is to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Standalone,
    Leader,
    Follower,
    Observer,
    ReadOnly,
    /// Up, but without a quorum, or on its way up or down.
    NotServing,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Standalone => "standalone",
            Mode::Leader => "leader",
            Mode::Follower => "follower",
            Mode::Observer => "observer",
            Mode::ReadOnly => "read-only",
            Mode::NotServing => "null",
        }
    }
}

/// What does not change while the server runs, and the gauges of the process.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// -1 where there is no listener.
    pub client_port: i32,
    /// -1 where there is none.
    pub secure_client_port: i32,
    /// With `/version-2`.
    pub data_dir: String,
    pub data_log_dir: String,
    pub tick_time_ms: u32,
    pub max_client_cnxns: u32,
    pub min_session_timeout_ms: u32,
    pub max_session_timeout_ms: u32,
    /// -1 where the system decides.
    pub client_backlog: i32,
    /// 0 standalone, whatever `myid` says.
    pub server_id: u8,
    /// Of a member of an ensemble.
    pub ensemble: Option<EnsembleFacts>,
    /// For `envi`: host.name, os.name, os.arch, os.version, user.name, user.home, user.dir; keys in any order.
    pub environment: Vec<(&'static str, String)>,
    pub process: Arc<ProcessGauges>,
}

impl ServerFacts {
    pub fn of(
        config: &Config,
        environment: Vec<(&'static str, String)>,
        process: Arc<ProcessGauges>,
    ) -> ServerFacts {
        let version_2 = |directory: &std::path::Path| directory.join("version-2").display().to_string();
        let port = |address: &Option<crate::config::ListenAddress>| {
            address.as_ref().map_or(-1, |address| i32::from(address.port))
        };
        ServerFacts {
            client_port: port(&config.client_address),
            secure_client_port: port(&config.secure_client_address),
            data_dir: version_2(&config.data_dir),
            data_log_dir: version_2(&config.data_log_dir),
            tick_time_ms: config.tick_time_ms,
            max_client_cnxns: config.max_client_cnxns,
            min_session_timeout_ms: config.min_session_timeout_ms,
            max_session_timeout_ms: config.max_session_timeout_ms,
            client_backlog: config.client_backlog.map_or(-1, |backlog| backlog as i32),
            server_id: config.ensemble.as_ref().map_or(0, |ensemble| ensemble.me.0),
            ensemble: config.ensemble.as_ref().map(EnsembleFacts::of),
            environment,
            process,
        }
    }
}

/// The size of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeReport {
    pub node_count: u64,
    pub ephemerals_count: u64,
    /// Bytes of all paths and data.
    pub data_bytes: u64,
}

/// `srvr`, and with connections `stat`. Source: ZooKeeper `StatCommand`, `ServerStats#toString`.
pub(super) fn srvr(text: &mut Text, report: &Report, clients: Option<&[ConnectionReport]>) {
    text.line(&format!("Zookeeper version: {VERSION}"));
    if report.mode == Mode::ReadOnly {
        text.line("READ-ONLY mode; serving only read-only clients");
    }
    if let Some(clients) = clients {
        text.line("Clients:");
        connections::list(text, clients, true);
    }
    let latency = &report.front.request_latency_us;
    text.line(&format!(
        "Latency min/avg/max: {}/{}/{}",
        latency.min / 1000,
        average(latency.mean() / 1000.0),
        latency.max / 1000
    ));
    text.line(&format!("Received: {}", report.front.packets_received()));
    text.line(&format!("Sent: {}", report.front.packets_sent()));
    text.line(&format!("Connections: {}", report.connection_count));
    text.line(&format!("Outstanding: {}", report.outstanding));
    text.line(&format!("Zxid: {}", report.zxid));
    text.line(&format!("Mode: {}", report.mode.name()));
    text.line(&format!("Node count: {}", report.tree.node_count));
    if let Some(member) = &report.ensemble {
        ensemble::srvr(text, member);
    }
}

/// Source: ZooKeeper `ConfCommand`, `ZooKeeperServer#dumpConf`.
pub(super) fn conf(text: &mut Text, facts: &ServerFacts, report: &Report) {
    text.line(&format!("clientPort={}", facts.client_port));
    text.line(&format!("secureClientPort={}", facts.secure_client_port));
    text.line(&format!("dataDir={}", facts.data_dir));
    text.line(&format!("dataDirSize={}", facts.process.data_dir_bytes.get()));
    text.line(&format!("dataLogDir={}", facts.data_log_dir));
    text.line(&format!("dataLogSize={}", facts.process.log_dir_bytes.get()));
    text.line(&format!("tickTime={}", facts.tick_time_ms));
    text.line(&format!("maxClientCnxns={}", facts.max_client_cnxns));
    text.line(&format!("minSessionTimeout={}", facts.min_session_timeout_ms));
    text.line(&format!("maxSessionTimeout={}", facts.max_session_timeout_ms));
    text.line(&format!("clientPortListenBacklog={}", facts.client_backlog));
    text.line(&format!("serverId={}", facts.server_id));
    if let (Some(of_config), Some(member)) = (&facts.ensemble, &report.ensemble) {
        ensemble::conf(text, of_config, member);
    }
}

pub(super) fn dirs(text: &mut Text, facts: &ServerFacts) {
    text.line(&format!("datadir_size: {}", facts.process.data_dir_bytes.get()));
    text.line(&format!("logdir_size: {}", facts.process.log_dir_bytes.get()));
}

/// The keys of `envi` in ZooKeeper's order. Source: ZooKeeper `Environment#list`.
const ENVIRONMENT: [&str; 18] = [
    "zookeeper.version",
    "host.name",
    "java.version",
    "java.vendor",
    "java.home",
    "java.class.path",
    "java.library.path",
    "java.io.tmpdir",
    "java.compiler",
    "os.name",
    "os.arch",
    "os.version",
    "user.name",
    "user.home",
    "user.dir",
    "os.memory.free",
    "os.memory.max",
    "os.memory.total",
];

pub(super) fn envi(text: &mut Text, facts: &ServerFacts) {
    text.line("Environment:");
    for (key, value) in environment(facts) {
        text.line(&format!("{key}={value}"));
    }
}

/// Keys and values of `envi`, in its order.
pub fn environment(facts: &ServerFacts) -> impl Iterator<Item = (&'static str, String)> {
    let resident = facts.process.resident_bytes.get();
    let limit = facts.process.memory_limit_bytes.get();
    let megabytes = |bytes: u64| format!("{}MB", bytes >> 20);
    ENVIRONMENT.into_iter().map(move |key| {
        let value = match key {
            "zookeeper.version" => VERSION.to_owned(),
            "os.memory.free" => megabytes(limit.saturating_sub(resident)),
            "os.memory.max" => megabytes(limit),
            "os.memory.total" => megabytes(resident),
            _ => {
                let known = facts.environment.iter().find(|(name, _)| *name == key);
                known.map_or("<NA>".to_owned(), |(_, value)| value.clone())
            }
        };
        (key, value)
    })
}
