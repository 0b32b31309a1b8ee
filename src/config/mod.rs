//! `zoo.cfg`, flags and properties become one checked [`Config`].
//!
//! Text in, `Config` and [`Notice`]s out: nothing here opens a file, resolves a name or asks for the time. What a
//! configuration refers to (the dynamic part, `myid`) is read through a function the caller hands in.
//! A value that cannot be used is a [`ConfigError`] naming place, key, value and what was expected; a key that
//! cannot be obeyed is a notice if that is harmless and an error if it is not.

mod build;
mod cores;
mod error;
pub mod jaas;
pub mod keys;
mod members;
pub mod membership;
pub mod properties;
mod redact;
mod sources;
pub mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::types::ServerId;

pub use build::load;
pub use cores::Cores;
pub use error::{ConfigError, Level, Notice, Origin};
pub use members::{ListenAddress, Member, MemberAddress, Role};
pub use membership::{Membership, MembershipError};
pub use sources::{CONFIG_BYTES_MAX, Sources, Start, flags_of_shell};
pub use tls::Tls;

/// Everything a server is told, checked. Names are ZooKeeper's in our spelling; each field names its key.
#[derive(Debug, Clone)]
pub struct Config {
    /// `clientPort`, `clientPortAddress`, or the client part of the one `server.N` line. `None`: no listener.
    pub client_address: Option<ListenAddress>,
    /// `secureClientPort`, `secureClientPortAddress`, or the second client part of the one `server.N` line: clients in
    /// TLS. `None`: no such listener.
    pub secure_client_address: Option<ListenAddress>,
    /// `client.portUnification`: `client_address` takes clients in TLS, too. Default no.
    pub client_port_unification: bool,
    /// `client.certReload`: changed stores are taken for new connections. Default no.
    pub client_cert_reload: bool,
    /// `ssl.*`; there where a client port speaks TLS.
    pub client_tls: Option<Tls>,
    /// `clientPortListenBacklog`, connections the kernel queues; `None` leaves it to the system. Default none.
    pub client_backlog: Option<u32>,
    /// `dataDir`: snapshots and `myid`.
    pub data_dir: PathBuf,
    /// `dataLogDir`: the transaction log. Default `dataDir`.
    pub data_log_dir: PathBuf,
    /// `tickTime`, default 3000 (2000 when started without a file), at least 1.
    pub tick_time_ms: u32,
    /// `minSessionTimeout`, default two ticks; never above `max_session_timeout_ms`.
    pub min_session_timeout_ms: u32,
    /// `maxSessionTimeout`, default twenty ticks; fits an `i32`.
    pub max_session_timeout_ms: u32,
    /// `maxClientCnxns`, connections of one source address, 0 for no limit. Default 60.
    pub max_client_cnxns: u32,
    /// `maxCnxns`, connections in all, 0 for no limit. Default 0.
    pub max_cnxns: u32,
    /// `jute.maxbuffer`, bytes of the longest frame taken. Default 1048575, at least 1024.
    pub jute_max_buffer_bytes: u32,
    /// `jute.maxbuffer.extrasize`, slack for records read back from disk. Default `jute.maxbuffer`, at least 1024.
    pub jute_extra_bytes: u32,
    /// `clientTcpKeepAlive`: SO_KEEPALIVE on client sockets. Default off.
    pub client_tcp_keep_alive: bool,
    /// `nio.sessionlessCnxnTimeout`: connections that never ask for a session are closed. Default 10000.
    pub sessionless_timeout_ms: u32,
    /// `globalOutstandingLimit`, requests in process above which a busy connection is not read. Default 1000.
    pub global_outstanding_limit: u32,
    pub request_throttle: RequestThrottle,
    pub connection_throttle: ConnectionThrottle,
    /// `throttled_op_wait_time`: a request that waited longer is answered -127. `None` (0) is off, the default.
    pub throttled_op_wait_ms: Option<u32>,
    /// `largeRequestThreshold`: frames above share `large_request_bytes_max`. `None` (-1) is off, the default.
    pub large_request_threshold_bytes: Option<u32>,
    /// `largeRequestMaxBytes`, default 100 MiB.
    pub large_request_bytes_max: u32,
    /// `4lw.commands.whitelist`, as written: words, or `*`. Default `srvr`.
    pub words_whitelist: Vec<String>,

    /// `initLimit` and `syncLimit` in ticks, if given: ensembles need them.
    pub init_limit_ticks: Option<u32>,
    pub sync_limit_ticks: Option<u32>,
    /// The `server.N` lines, participants first.
    pub members: Vec<Member>,
    /// `None`: this server is alone, with at most one `server.N` line.
    pub ensemble: Option<Ensemble>,
    /// The number in `myid`, if the file is there. Standalone servers do without.
    pub my_id: Option<u8>,
    /// `reconfigEnabled`, default off.
    pub reconfig_enabled: bool,
    /// `readonlymode.enabled`, default off. Standalone it only adds `isro` to the words.
    pub read_only_mode_enabled: bool,
    /// `localSessionsEnabled`, `localSessionsUpgradingEnabled`, default off. Without effect standalone.
    pub local_sessions_enabled: bool,
    pub local_sessions_upgrading_enabled: bool,

    pub storage: Storage,
    pub nodes: Nodes,
    pub auth: Auth,
    pub admin: Admin,
    pub metrics_provider: MetricsProvider,
    /// Where the audit log goes, with `audit.enable=true`; `None`: there is none, the default.
    /// `ringkeeper.audit.file`, default `zookeeper_audit.log`, in `ZOO_LOG_DIR` or else `dataDir`: [`Config::audit_beside`].
    pub audit_file: Option<PathBuf>,
    /// The file's text, without secrets; empty where there is none.
    pub initial_text: String,
    /// What was written, by the names of ZooKeeper's system properties, without secrets.
    pub properties: Vec<(String, String)>,

    /// `ringkeeper.cores`: a count (`2`), a list (`0,2-3`), or `all`, the default.
    pub cores: Cores,
    /// `ringkeeper.io`: `auto`, `uring` or `epoll`. Default auto.
    pub io: IoDriver,
    /// `ringkeeper.spin`: how long an idle core looks again before it sleeps, 0 for never. `None`: the server chooses
    /// (50 µs where `ringkeeper.cores` is given, else 0).
    pub spin_us: Option<u32>,
    /// `ringkeeper.log.format`: the server's own log as `text` (default) or `json`.
    pub log_format: LogFormat,
    /// `ringkeeper.log.level`: `error`, `warn`, `info` (default), `debug` or `trace`.
    pub log_level: &'static str,
}

impl Config {
    /// Puts the audit log, where there is one, into the directory of the logs: a relative name is meant there.
    pub fn audit_beside(&mut self, log_dir: &Path) {
        self.audit_file = self.audit_file.take().map(|file| log_dir.join(file));
    }
}

/// What a server knows of the ensemble it belongs to. Checked: this server is one of the members, there is a participant, no address
/// is given to two.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// The number in `myid`.
    pub me: ServerId,
    /// The `server.N`, `group.N` and `weight.N` lines. Its version is the hexadecimal suffix of `dynamicConfigFile`, 0 where there is
    /// none.
    pub membership: Membership,
    /// The file all this stands in, which reconfigurations change.
    pub file: Option<PathBuf>,
    /// `dynamicConfigFile`, as the process would open it.
    pub dynamic_file: Option<PathBuf>,
    /// `standaloneEnabled`, default yes.
    pub standalone_enabled: bool,
    /// `initLimit`: how long finding and following a leader may take each.
    pub init_limit_ticks: u32,
    /// `syncLimit`: how long a leader or learner may be silent.
    pub sync_limit_ticks: u32,
    /// `connectToLearnerMasterLimit`: how long connecting to a leader may take. Default `initLimit`.
    pub connect_limit_ticks: u32,
    /// `quorumListenOnAllIPs`, default no: only the addresses of the own line are listened on.
    pub listen_on_all_ips: bool,
    /// `electionPortBindRetry`, attempts a second apart; `None` (0) is without end. Default 3.
    pub bind_tries: Option<u32>,
    /// Whether an own name that does not resolve yet is waited for without end: unless `electionPortBindRetry` says how long.
    pub waits_for_names: bool,
    /// `cnxTimeout`: how long connecting to an election port may take. Default 5000.
    pub connect_timeout_ms: u32,
    /// `quorumCnxnTimeoutMs`: how long the first message of a new election connection may take. Default `syncLimit`.
    pub initial_timeout_ms: u32,
    /// `tcpKeepAlive`, default no.
    pub keep_alive: bool,
    /// `fastleader.minNotificationInterval` and its maximum, default 200 and 60000: how soon a vote is sent again.
    pub notification_min_ms: u32,
    pub notification_max_ms: u32,
    /// `leader.maxConcurrentSnapSyncs`, `leader.maxConcurrentDiffSyncs`: learners brought up to date at once. Default 10, 100.
    pub snap_syncs_max: u32,
    pub diff_syncs_max: u32,
    /// `commitLogCount`: transactions a leader keeps in memory for learners that were away. Default 500.
    pub commit_log_count: u32,
    /// `snapshotSizeFactor`: how much log, against the size of a snapshot, is sent instead of one. Default 0.33; negative is never.
    pub snapshot_size_factor: f64,
    /// `syncEnabled`, default yes: an observer writes to its disk.
    pub observer_sync: bool,
    /// `observerMasterPort`; `None` (0) is off, the default.
    pub observer_master_port: Option<u16>,
    /// `observer.election.DelayMs` and `observer.reconnectDelayMs`: how long an observer that lost its leader waits at most, drawn by
    /// chance. Default 200 and 0.
    pub observer_delay_ms: u32,
    pub observer_reconnect_delay_ms: u32,
    /// `leaderServes`, default yes: a leader has clients.
    pub leader_serves: bool,
    /// `multiAddress.enabled`, default no.
    pub multi_address: bool,
    /// There where servers speak TLS to each other, or may.
    pub tls: Option<PeerKeys>,
}

/// TLS between servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKeys {
    /// `ssl.quorum.*`.
    pub keys: Tls,
    /// `sslQuorum`, default no: this server dials in TLS.
    pub dials: bool,
    /// `portUnification`, default no: whoever dials this server may speak plainly.
    pub accepts_plain: bool,
    /// `sslQuorumReloadCertFiles`, default no: changed stores are taken for new connections.
    pub cert_reload: bool,
}

impl Ensemble {
    /// This server's own line.
    pub fn own(&self) -> &Member {
        self.membership.member(self.me).expect("checked: this server is a member")
    }
}

/// What lies on disk and when it gets there.
#[derive(Debug, Clone)]
pub struct Storage {
    /// `forceSync`: `no` acknowledges writes before they are durable. Default yes.
    pub force_sync: bool,
    /// `fsync.warningthresholdms`: a slower log write is logged and counted. Default 1000.
    pub fsync_warning_threshold_ms: u64,
    /// `snapCount`, transactions between snapshots; the trigger is random in the upper half. Default 100000, at least 2.
    pub snap_count: u32,
    /// `snapSizeLimitInKb`, log bytes between snapshots, likewise. Default 4 GiB; `None` (0 or less) is off.
    pub snap_size_limit_bytes: Option<u64>,
    /// `txnLogSizeLimitInKb`: a log segment ends at this size. `None` (-1) is the default.
    pub txn_log_size_limit_bytes: Option<u64>,
    /// `preAllocSize`, bytes of log made ready ahead of need. Default 64 MiB.
    pub pre_alloc_bytes: u64,
    /// `snapshot.compression.method`: how snapshots are written; every method is read. Default none.
    pub snapshot_compression: Compression,
    /// `snapshot.trust.empty`: accept logs without any snapshot. Default no.
    pub snapshot_trust_empty: bool,
    /// `datadir.autocreate`: make missing directories. Default yes.
    pub data_dir_autocreate: bool,
    /// `db.autocreate`: start empty where nothing is. Default yes.
    pub db_autocreate: bool,
    /// `serializeLastProcessedZxid.enabled`: the zxid trailer of snapshots. Default yes.
    pub serialize_last_processed_zxid: bool,
    /// Verified snapshots kept, with the log they need; older ones go as soon as a newer one is verified, whether
    /// or not `autopurge.purgeInterval` asks for it. `ringkeeper.snapRetainCount`, else `autopurge.snapRetainCount`
    /// (default 3, at least 3). `None` (`ringkeeper.snapRetainCount=0`) keeps all.
    pub snap_retain_count: Option<u32>,
    /// `autopurge.purgeInterval`; `None` (0) is the default. Retention does not wait for it.
    pub purge_interval_ms: Option<u64>,
    /// `ringkeeper.snapshotOnStop`: an orderly stop leaves a snapshot of everything. Default no.
    pub snapshot_on_stop: bool,
    /// `ringkeeper.log.inflight`: log writes on their way to the device at once, 1 (default) or 2.
    pub log_writes_in_flight: u8,
    /// `ringkeeper.log.write`: `auto` (default), `direct` (refuse to run without O_DIRECT) or `buffered`.
    pub log_write: LogWriteMode,
}

/// What nodes may be and how they are looked after.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// `digest.enabled`: the tree digest in transactions and snapshots. Default yes.
    pub digest_enabled: bool,
    /// `closeSessionTxn.enabled`: closeSession transactions name the ephemeral nodes. Default yes.
    pub close_session_txn_enabled: bool,
    /// `extendedTypesEnabled`: TTL nodes. Default no.
    pub extended_types_enabled: bool,
    /// `emulate353TTLNodes`: their older encoding. Default no.
    pub emulate_353_ttl_nodes: bool,
    /// `znode.container.checkIntervalMs`, default 60000.
    pub container_check_interval_ms: u32,
    /// `znode.container.maxPerMinute`, containers and TTL nodes removed. Default 10000.
    pub container_per_minute_max: u32,
    /// `znode.container.maxNeverUsedIntervalMs`: a container that never had a child goes after this. 0 (default): never.
    pub container_never_used_interval_ms: u64,
    /// `enforceQuota`: hard quotas refuse writes. Default no.
    pub enforce_quota: bool,
    /// `skipACL=yes`: no access checks at all. Default no.
    pub skip_acl: bool,
}

/// `request_throttle_*`. Off (`requests_max` 0) unless configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestThrottle {
    /// `request_throttle_max_requests`: requests in process; 0 is off.
    pub requests_max: u32,
    /// `request_throttle_stall_time`, default 100.
    pub stall_time_ms: u32,
    /// `request_throttle_drop_stale`: requests of closed connections are dropped. Default yes.
    pub drop_stale: bool,
    /// `request_stale_connection_check`, default yes.
    pub stale_connection_check: bool,
    /// `request_stale_latency_check`, default no.
    pub stale_latency_check: bool,
}

/// `connection_throttle_*`: a bucket of tokens new sessions draw from. Off (`tokens` 0) unless configured.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionThrottle {
    /// `connection_throttle_tokens`: what the bucket holds; 0 is off.
    pub tokens: u32,
    /// `connection_throttle_fill_time`, default 1.
    pub fill_time_ms: u32,
    /// `connection_throttle_fill_count`: tokens added each fill time. Default 1.
    pub fill_count: u32,
    /// `connection_throttle_freeze_time`; `None` (-1) turns the random drop off, the default.
    pub freeze_time_ms: Option<u32>,
    /// `connection_throttle_drop_increase`, default 0.02.
    pub drop_increase: f64,
    /// `connection_throttle_drop_decrease`, default 0.002.
    pub drop_decrease: f64,
    /// `connection_throttle_decrease_ratio`, default 0.
    pub decrease_ratio: f64,
    /// Tokens of a new global session, a local one, a renewed one: 1 each, or with
    /// `connection_throttle_weight_enabled` the `_global_`, `_local_` and `_renew_session_weight` (3, 1, 2).
    pub global_weight: u32,
    pub local_weight: u32,
    pub renew_weight: u32,
}

/// Who may do what.
#[derive(Debug, Clone)]
pub struct Auth {
    /// `DigestAuthenticationProvider.enabled`, default yes.
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`, default SHA1.
    pub digest_algorithm: DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`: `super:<hash>`.
    pub super_digest: Option<Secret>,
    /// `superUser` and `superUser.<suffix>`: SASL names that may do everything.
    pub super_users: Vec<String>,
    /// `X509AuthenticationProvider.superUser`: such a certificate name.
    pub x509_super_user: Option<String>,
    /// `ensembleAuthName` (comma-separated), where the ensemble provider is configured; `None` where it is not.
    pub ensemble_names: Option<Vec<String>>,
    /// `enforce.auth.schemes` where `enforce.auth.enabled=true`: clients authenticate with one of these first.
    pub enforced_schemes: Option<Vec<String>>,
    /// `sessionRequireClientSASLAuth`, default no: as if `sasl` were enforced.
    pub session_require_client_sasl_auth: bool,
    /// Users of DIGEST-MD5 with their passwords: the `user_<name>` options of the `DigestLoginModule` in section
    /// `sasl.serverconfig` (default `Server`) of the file `java.security.auth.login.config` names. `None`: no SASL.
    /// That of `super`, if it is there, is `SASLAuthenticationProvider.superPassword` where given.
    pub sasl_users: Option<BTreeMap<String, Secret>>,
    /// `allowSaslFailedClients`, default no.
    pub allow_sasl_failed_clients: bool,
    /// `letAnySaslUserDoX`.
    pub let_any_sasl_user_do_x: Option<String>,
    /// `authProvider.<suffix>=<class>`, in the order of their suffixes.
    pub providers: Vec<AuthProvider>,
}

/// A class named by `authProvider.X`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthProvider {
    Digest,
    Ip,
    Ensemble,
    Sasl,
    X509,
}

/// `admin.*`: the HTTP server for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `admin.enableServer`: anything but `false` starts it, as nothing does.
    pub enabled: bool,
    /// `admin.serverAddress` and `admin.serverPort`, default every address, 8080.
    pub address: ListenAddress,
    /// `admin.commandURL`, default `/commands`.
    pub command_url: String,
    /// `admin.idleTimeout`, default 30000.
    pub idle_timeout_ms: u32,
    /// `admin.rateLimiterIntervalInMS`, default 300000.
    pub rate_limiter_interval_ms: u64,
    /// `admin.snapshot.enabled`, default no: whoever passes the root's list takes all data away (ZooKeeper: yes).
    pub snapshot_enabled: bool,
    /// `admin.portUnification`, `admin.forceHttps`, `admin.needClientAuth`, default no.
    pub port_unification: bool,
    pub force_https: bool,
    pub need_client_auth: bool,
}

/// `metricsProvider.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsProvider {
    /// `metricsProvider.className`.
    pub class: MetricsClass,
    /// `metricsProvider.httpHost` and `metricsProvider.httpPort`, default every address, 7000.
    pub http_address: ListenAddress,
    /// `metricsProvider.exportJvmInfo`, default yes.
    pub export_jvm_info: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsClass {
    /// `mntr` alone.
    Default,
    Null,
    Prometheus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestAlgorithm {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring where the kernel lets us, else epoll, said once.
    Auto,
    Uring,
    Epoll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogWriteMode {
    /// O_DIRECT where the file system lets us, else buffered with fdatasync, said once.
    Auto,
    Direct,
    Buffered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Text that does not show up in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A configuration and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub notices: Vec<Notice>,
}

/// Reads a file a configuration refers to: its bytes, `None` where there is no such file, or why it cannot be read.
pub type ReadFile<'a> = dyn FnMut(&Path) -> Result<Option<Vec<u8>>, String> + 'a;

#[cfg(test)]
mod tests;
