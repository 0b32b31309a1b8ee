//! Every key an existing `zoo.cfg` may carry, and ours: kind, unit, default, range, and what becomes of it here.
//!
//! The table is the one place that knows a key; `Config` is filled from it, so a key that is missing here cannot be
//! read, and a value outside its range cannot reach the server. A name that ends in `*` stands for a family; an
//! exact name wins over a family, a longer family over a shorter one.
//! Source: ZooKeeper `QuorumPeerConfig#parseProperties` for the keys of [`Given::File`], the system property each
//! class reads for the others.

use Effect::{Ensemble, Later, Nothing, Refused, RefusedUnless, Used};
use Given::{Bare, File, Prefixed};
use Kind::{Any, Choice, Hours, Int, Real, Strict, Switch, Text};

/// One key, or a family of them.
#[derive(Debug)]
pub struct Key {
    /// As written in `zoo.cfg`.
    pub name: &'static str,
    pub kind: Kind,
    /// Of a number; empty where there is none.
    pub unit: &'static str,
    /// In the words of `zoo.cfg`; empty means unset.
    pub default: &'static str,
    pub given: Given,
    pub effect: Effect,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false` in any case; anything else is an error.
    Strict,
    /// `true` in any case is true, anything else false.
    Switch,
    /// Only this word, in any case, differs from the default: `yes` or `no`.
    Only(&'static str),
    /// A whole number in this range, both ends included.
    Int(i64, i64),
    /// A number in this range, both ends included.
    Real(f64, f64),
    /// Whole hours, or a number with one of the suffixes `ms s m h d`.
    Hours,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text that is checked, if at all, where it is used.
    Text,
    /// Not looked at.
    Any,
}

/// Where a value may come from besides `zoo.cfg` and `--set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Nowhere: no system property stands for it.
    File,
    /// `-Dzookeeper.<name>`.
    Prefixed,
    /// `-D<name>`, and with the prefix too.
    Bare,
}

/// What a key does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Used,
    /// Used by ensembles alone: checked, and named once if given to a standalone server.
    Ensemble,
    /// Accepted, without effect: named once in a warning.
    Nothing,
    /// Belongs to a feature that this release does not have: checked, and named once unless it has this value.
    Later(&'static str),
    /// Ignoring it would be unsafe, so any value stops the start.
    Refused(&'static str),
    /// As `Refused`, unless the value is this one in any case.
    RefusedUnless(&'static str, &'static str),
}

const I32_MAX: i64 = i32::MAX as i64;
const ANY_I32: Kind = Int(i32::MIN as i64, I32_MAX);
const COUNT: Kind = Int(0, I32_MAX);
const POSITIVE: Kind = Int(1, I32_MAX);
const OR_OFF: Kind = Int(-1, I32_MAX);
const PORT: Kind = Int(0, 65535);
const RATIO: Kind = Real(0.0, 1.0);
/// Milliseconds of ten years: more is a mistake, and stays far from overflow.
const LONG_MS: Kind = Int(0, 315_360_000_000);
const YES: Kind = Kind::Only("yes");
const NO: Kind = Kind::Only("no");
const STORE_TYPE: Kind = Choice(&["", "JKS", "PKCS12", "PEM", "BCFKS"]);

const NO_QUORUM_SASL: &str = "SASL between servers is not available in this release";
const NO_ORACLE: &str =
    "two-server ensembles with an oracle are not supported; ignoring the file could lose data";
const NO_SUPPLIER: &str = "Java classes cannot be loaded; give key and trust stores instead";

const fn key(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    default: &'static str,
    given: Given,
    effect: Effect,
) -> Key {
    Key { name, kind, unit, default, given, effect }
}

/// All keys, in the order of the operator's manual.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    // Core.
    key("dataDir", Text, "", "", File, Used),
    key("dataLogDir", Text, "", "", File, Used),
    key("clientPort", PORT, "", "", File, Used),
    key("clientPortAddress", Text, "", "", File, Used),
    key("secureClientPort", PORT, "", "", File, Used),
    key("secureClientPortAddress", Text, "", "", File, Used),
    key("clientPortListenBacklog", OR_OFF, "connections", "-1", File, Used),
    key("tickTime", Int(1, I32_MAX / 20), "ms", "3000", File, Used),
    key("initLimit", POSITIVE, "ticks", "", File, Used),
    key("syncLimit", POSITIVE, "ticks", "", File, Used),
    key("connectToLearnerMasterLimit", COUNT, "ticks", "0", File, Ensemble),
    key("minSessionTimeout", OR_OFF, "ms", "-1", File, Used),
    key("maxSessionTimeout", OR_OFF, "ms", "-1", File, Used),
    key("maxClientCnxns", COUNT, "connections", "60", File, Used),
    key("server.*", Text, "", "", File, Used),
    key("group.*", Text, "", "", File, Used),
    key("weight.*", Int(0, I32_MAX), "", "1", File, Used),
    key("peerType", Choice(&["participant", "observer"]), "", "participant", File, Used),
    key("electionAlg", Int(3, 3), "", "3", File, Used),
    key("standaloneEnabled", Strict, "", "true", File, Used),
    key("reconfigEnabled", Strict, "", "false", File, Used),
    key("dynamicConfigFile", Text, "", "", File, Used),
    key("quorumListenOnAllIPs", Strict, "", "false", File, Ensemble),
    key("syncEnabled", Strict, "", "true", File, Ensemble),
    key("observer.syncEnabled", Switch, "", "true", Prefixed, Ensemble),
    key("observerMasterPort", PORT, "", "0", File, Ensemble),
    key("localSessionsEnabled", Strict, "", "false", File, Ensemble),
    key("localSessionsUpgradingEnabled", Strict, "", "false", File, Ensemble),
    key("autopurge.snapRetainCount", COUNT, "snapshots", "3", File, Used),
    key("autopurge.purgeInterval", Hours, "hours", "0", File, Used),
    key("sslQuorum", Strict, "", "false", File, Ensemble),
    key("portUnification", Strict, "", "false", File, Ensemble),
    key("sslQuorumReloadCertFiles", Strict, "", "false", File, Ensemble),
    key("quorum.auth.enableSasl", Strict, "", "false", File, RefusedUnless("false", NO_QUORUM_SASL)),
    key("quorum.auth.learnerRequireSasl", Strict, "", "false", File, RefusedUnless("false", NO_QUORUM_SASL)),
    key("quorum.auth.serverRequireSasl", Strict, "", "false", File, RefusedUnless("false", NO_QUORUM_SASL)),
    key("quorum.auth.*", Text, "", "", File, Ensemble),
    key("quorum.cnxn.threads.size", Any, "", "20", File, Nothing),
    key("multiAddress.enabled", Switch, "", "false", Prefixed, Ensemble),
    key("multiAddress.*", Any, "", "", Prefixed, Nothing),
    key("oraclePath", Text, "", "", File, Refused(NO_ORACLE)),
    key("jvm.pause.*", Any, "", "", File, Nothing),
    key("metricsProvider.className", Text, "", "", File, Used),
    key("metricsProvider.httpHost", Text, "", "0.0.0.0", File, Used),
    key("metricsProvider.httpPort", PORT, "", "7000", File, Used),
    key("metricsProvider.exportJvmInfo", Switch, "", "true", File, Used),
    key("metricsProvider.*", Any, "", "", File, Nothing),
    // Storage and durability.
    key("preAllocSize", Int(1, 4_194_304), "KB", "65536", Prefixed, Used),
    key("snapCount", ANY_I32, "transactions", "100000", Prefixed, Used),
    key("snapSizeLimitInKb", Int(-1, 1 << 40), "KB", "4194304", Prefixed, Used),
    key("txnLogSizeLimitInKb", Int(-1, 1 << 40), "KB", "-1", Prefixed, Used),
    key("commitLogCount", POSITIVE, "transactions", "500", Prefixed, Ensemble),
    key("snapshotSizeFactor", Real(-1.0e6, 1.0e6), "", "0.33", Prefixed, Ensemble),
    key("forceSync", NO, "", "yes", Prefixed, Used),
    key("fsync.warningthresholdms", LONG_MS, "ms", "1000", Bare, Used),
    key("flushDelay", LONG_MS, "ms", "0", Prefixed, Nothing),
    key("maxWriteQueuePollTime", Any, "", "", Prefixed, Nothing),
    key("maxBatchSize", Any, "", "1000", Prefixed, Nothing),
    key("snapshot.compression.method", Choice(&["", "gz", "snappy"]), "", "", Prefixed, Used),
    key("snapshot.trust.empty", Switch, "", "false", Prefixed, Used),
    key("datadir.autocreate", Switch, "", "true", Prefixed, Used),
    key("db.autocreate", Switch, "", "true", Prefixed, Used),
    key("digest.enabled", Switch, "", "true", Prefixed, Used),
    key("serializeLastProcessedZxid.enabled", Switch, "", "true", Prefixed, Used),
    key("closeSessionTxn.enabled", Switch, "", "true", Prefixed, Used),
    key("extendedTypesEnabled", Switch, "", "false", Prefixed, Used),
    key("emulate353TTLNodes", Switch, "", "false", Prefixed, Used),
    key("jute.maxbuffer", Int(1024, I32_MAX / 2), "bytes", "1048575", Bare, Used),
    key("jute.maxbuffer.extrasize", Int(0, I32_MAX / 2), "bytes", "", Prefixed, Used),
    key("znode.container.checkIntervalMs", Int(1, I32_MAX), "ms", "60000", Bare, Used),
    key("znode.container.maxPerMinute", POSITIVE, "nodes", "10000", Bare, Used),
    key("znode.container.maxNeverUsedIntervalMs", LONG_MS, "ms", "0", Bare, Used),
    key("enforceQuota", Switch, "", "false", Prefixed, Used),
    key("skipACL", YES, "", "no", Prefixed, Used),
    // Client request path.
    key("globalOutstandingLimit", POSITIVE, "requests", "1000", Prefixed, Used),
    key("maxCnxns", COUNT, "connections", "0", Prefixed, Used),
    key("maxResponseCacheSize", Any, "", "400", Prefixed, Nothing),
    key("maxGetChildrenResponseCacheSize", Any, "", "400", Prefixed, Nothing),
    key("request_throttle_max_requests", COUNT, "requests", "0", Prefixed, Used),
    key("request_throttle_stall_time", COUNT, "ms", "100", Prefixed, Used),
    key("request_throttle_drop_stale", Switch, "", "true", Prefixed, Used),
    key("request_stale_connection_check", Switch, "", "true", Prefixed, Used),
    key("request_stale_latency_check", Switch, "", "false", Prefixed, Used),
    key("throttled_op_wait_time", COUNT, "ms", "0", Prefixed, Used),
    key("request_throttler.shutdownTimeout", Any, "", "10000", Prefixed, Nothing),
    key("largeRequestThreshold", OR_OFF, "bytes", "-1", Prefixed, Used),
    key("largeRequestMaxBytes", POSITIVE, "bytes", "104857600", Prefixed, Used),
    key("connection_throttle_tokens", COUNT, "connections", "0", Prefixed, Used),
    key("connection_throttle_fill_time", POSITIVE, "ms", "1", Prefixed, Used),
    key("connection_throttle_fill_count", POSITIVE, "connections", "1", Prefixed, Used),
    key("connection_throttle_freeze_time", OR_OFF, "ms", "-1", Prefixed, Used),
    key("connection_throttle_drop_increase", RATIO, "", "0.02", Prefixed, Used),
    key("connection_throttle_drop_decrease", RATIO, "", "0.002", Prefixed, Used),
    key("connection_throttle_decrease_ratio", RATIO, "", "0", Prefixed, Used),
    key("connection_throttle_weight_enabled", Switch, "", "false", Prefixed, Used),
    key("connection_throttle_global_session_weight", POSITIVE, "tokens", "3", Prefixed, Used),
    key("connection_throttle_local_session_weight", POSITIVE, "tokens", "1", Prefixed, Used),
    key("connection_throttle_renew_session_weight", POSITIVE, "tokens", "2", Prefixed, Used),
    key("enableEagerACLCheck", Switch, "", "false", Prefixed, Ensemble),
    key("leaderServes", NO, "", "yes", Prefixed, Ensemble),
    key("readonlymode.enabled", Switch, "", "false", Bare, Used),
    key("clientTcpKeepAlive", Switch, "", "false", Prefixed, Used),
    key("serverCnxnFactory", Text, "", "", Prefixed, Used),
    key("nio.sessionlessCnxnTimeout", POSITIVE, "ms", "10000", Prefixed, Used),
    key("nio.*", Any, "", "", Prefixed, Nothing),
    key("netty.server.outstandingHandshake.limit", Any, "", "-1", Prefixed, Nothing),
    key("netty.server.earlyDropSecureConnectionHandshakes", Any, "", "false", Prefixed, Nothing),
    key("netty.*", Any, "", "", Prefixed, Nothing),
    key("commitProcessor.*", Any, "", "", Prefixed, Nothing),
    key("watchManagerName", Any, "", "", Prefixed, Nothing),
    key("watcherCleanThreadsNum", Any, "", "2", Prefixed, Nothing),
    key("watcherCleanThreshold", Any, "", "1000", Prefixed, Nothing),
    key("watcherCleanIntervalInSeconds", Any, "", "600", Prefixed, Nothing),
    key("maxInProcessingDeadWatchers", Any, "", "-1", Prefixed, Nothing),
    key("bitHashCacheSize", Any, "", "10", Prefixed, Nothing),
    key("intBufferStartingSizeBytes", Any, "", "1024", Prefixed, Nothing),
    key("pathStats.*", Any, "", "", Prefixed, Nothing),
    key("messageTracker.*", Any, "", "", Prefixed, Nothing),
    // Quorum.
    key("cnxTimeout", POSITIVE, "ms", "5000", Prefixed, Ensemble),
    key("quorumCnxnTimeoutMs", OR_OFF, "ms", "-1", Prefixed, Ensemble),
    key("electionPortBindRetry", COUNT, "tries", "3", Prefixed, Ensemble),
    key("tcpKeepAlive", Switch, "", "false", Prefixed, Ensemble),
    key("fastleader.minNotificationInterval", POSITIVE, "ms", "200", Prefixed, Ensemble),
    key("fastleader.maxNotificationInterval", POSITIVE, "ms", "60000", Prefixed, Ensemble),
    key("leader.maxTimeToWaitForEpoch", Any, "", "-1", Prefixed, Nothing),
    key("leader.maxConcurrentSnapSyncs", POSITIVE, "learners", "10", Prefixed, Ensemble),
    key("leader.maxConcurrentDiffSyncs", POSITIVE, "learners", "100", Prefixed, Ensemble),
    key("leader.*", Any, "", "", Bare, Nothing),
    key("follower.*", Any, "", "", Bare, Nothing),
    key("learner.*", Any, "", "", Bare, Nothing),
    key("forceSnapshotSync", Any, "", "false", Prefixed, Nothing),
    key("observer.reconnectDelayMs", COUNT, "ms", "0", Prefixed, Ensemble),
    key("observer.election.DelayMs", COUNT, "ms", "200", Prefixed, Ensemble),
    key("observerMaster.sizeLimit", Any, "", "33554432", Prefixed, Nothing),
    key("forward_learner_requests_to_commit_processor_disabled", Any, "", "false", Prefixed, Nothing),
    key("leaderConnectDelayDuringRetryMs", Any, "", "100", Prefixed, Nothing),
    // Operations and security.
    key("4lw.commands.whitelist", Text, "", "srvr", Prefixed, Used),
    key("admin.enableServer", Text, "", "true", Prefixed, Used),
    key("admin.serverAddress", Text, "", "0.0.0.0", Prefixed, Used),
    key("admin.serverPort", PORT, "", "8080", Prefixed, Used),
    key("admin.commandURL", Text, "", "/commands", Prefixed, Used),
    key("admin.idleTimeout", POSITIVE, "ms", "30000", Prefixed, Used),
    key("admin.httpVersion", Any, "", "11", Prefixed, Nothing),
    key("admin.portUnification", Switch, "", "false", Prefixed, Later("false")),
    key("admin.forceHttps", Switch, "", "false", Prefixed, Used),
    key("admin.needClientAuth", Switch, "", "false", Prefixed, Later("false")),
    key("admin.rateLimiterIntervalInMS", LONG_MS, "ms", "300000", Prefixed, Used),
    key("admin.snapshot.enabled", Switch, "", "false", Prefixed, Used),
    key("admin.restore.enabled", Switch, "", "false", Prefixed, Later("false")),
    key("admin.*", Any, "", "", Prefixed, Nothing),
    key("audit.enable", Switch, "", "false", Prefixed, Used),
    key("audit.impl.class", Any, "", "", Prefixed, Nothing),
    key("authProvider.*", Text, "", "", Prefixed, Used),
    key("ssl.context.supplier.class", Text, "", "", Prefixed, Refused(NO_SUPPLIER)),
    key("ssl.quorum.context.supplier.class", Text, "", "", Prefixed, Refused(NO_SUPPLIER)),
    key("ssl.authProvider", Text, "", "x509", Prefixed, RefusedUnless("x509", "only the x509 provider is known")),
    key("ssl.sslProvider", Any, "", "", Prefixed, Nothing),
    key("ssl.quorum.sslProvider", Any, "", "", Prefixed, Nothing),
    key("ssl.quorum.keyStore.location", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.keyStore.password", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.keyStore.passwordPath", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.keyStore.type", STORE_TYPE, "", "", Prefixed, Ensemble),
    key("ssl.quorum.trustStore.location", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.trustStore.password", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.trustStore.passwordPath", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.trustStore.type", STORE_TYPE, "", "", Prefixed, Ensemble),
    key("ssl.quorum.protocol", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.enabledProtocols", Text, "", "TLSv1.3,TLSv1.2", Prefixed, Ensemble),
    key("ssl.quorum.ciphersuites", Text, "", "", Prefixed, Ensemble),
    key("ssl.quorum.clientAuth", Choice(&["need", "want", "none"]), "", "need", Prefixed, Ensemble),
    key("ssl.quorum.hostnameVerification", Switch, "", "true", Prefixed, Ensemble),
    key("ssl.quorum.clientHostnameVerification", Switch, "", "true", Prefixed, Ensemble),
    key("ssl.quorum.allowReverseDnsLookup", Any, "", "false", Prefixed, Nothing),
    key("ssl.quorum.crl", Switch, "", "false", Prefixed, Ensemble),
    key("ssl.quorum.ocsp", Switch, "", "false", Prefixed, Ensemble),
    key("ssl.quorum.handshakeDetectionTimeoutMillis", POSITIVE, "ms", "5000", Prefixed, Ensemble),
    key("ssl.quorum.*", Any, "", "", Prefixed, Nothing),
    key("ssl.keyStore.location", Text, "", "", Prefixed, Used),
    key("ssl.keyStore.password", Text, "", "", Prefixed, Used),
    key("ssl.keyStore.passwordPath", Text, "", "", Prefixed, Used),
    key("ssl.keyStore.type", STORE_TYPE, "", "", Prefixed, Used),
    key("ssl.trustStore.location", Text, "", "", Prefixed, Used),
    key("ssl.trustStore.password", Text, "", "", Prefixed, Used),
    key("ssl.trustStore.passwordPath", Text, "", "", Prefixed, Used),
    key("ssl.trustStore.type", STORE_TYPE, "", "", Prefixed, Used),
    key("ssl.protocol", Text, "", "", Prefixed, Used),
    key("ssl.enabledProtocols", Text, "", "TLSv1.3,TLSv1.2", Prefixed, Used),
    key("ssl.ciphersuites", Text, "", "", Prefixed, Used),
    key("ssl.clientAuth", Choice(&["need", "want", "none"]), "", "need", Prefixed, Used),
    key("ssl.hostnameVerification", Switch, "", "true", Prefixed, Used),
    key("ssl.clientHostnameVerification", Switch, "", "false", Prefixed, Used),
    key("ssl.allowReverseDnsLookup", Any, "", "false", Prefixed, Nothing),
    key("ssl.crl", Switch, "", "false", Prefixed, Used),
    key("ssl.ocsp", Switch, "", "false", Prefixed, Used),
    key("ssl.handshakeDetectionTimeoutMillis", POSITIVE, "ms", "5000", Prefixed, Used),
    key("ssl.*", Any, "", "", Prefixed, Nothing),
    key("client.portUnification", Switch, "", "false", Prefixed, Used),
    key("client.certReload", Switch, "", "false", Prefixed, Used),
    key("DigestAuthenticationProvider.superDigest", Text, "", "", Prefixed, Used),
    key("DigestAuthenticationProvider.enabled", Switch, "", "true", Prefixed, Used),
    key("DigestAuthenticationProvider.digestAlg", Choice(&["SHA1", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512"]), "", "SHA1", Prefixed, Used),
    key("X509AuthenticationProvider.superUser", Text, "", "", Prefixed, Used),
    key("superUser", Text, "", "", Prefixed, Used),
    key("superUser.*", Text, "", "", Prefixed, Used),
    key("IPAuthenticationProvider.usexforwardedfor", Switch, "", "false", Prefixed, Later("false")),
    key("ensembleAuthName", Text, "", "", Prefixed, Used),
    key("sessionRequireClientSASLAuth", Switch, "", "false", Prefixed, Used),
    key("enforce.auth.enabled", Switch, "", "false", Prefixed, Used),
    key("enforce.auth.schemes", Text, "", "", Prefixed, Used),
    key("allowSaslFailedClients", Switch, "", "false", Prefixed, Used),
    key("letAnySaslUserDoX", Text, "", "", Prefixed, Used),
    key("SASLAuthenticationProvider.superPassword", Text, "", "", Prefixed, Used),
    key("sasl.serverconfig", Text, "", "Server", Prefixed, Used),
    key("java.security.auth.login.config", Text, "", "", Bare, Used),
    key("kerberos.*", Any, "", "", Prefixed, Nothing),
    key("security.auth_to_local", Any, "", "DEFAULT", Prefixed, Nothing),
    key("kinit", Any, "", "", Prefixed, Nothing),
    key("requireKerberosConfig", Any, "", "", Prefixed, Nothing),
    key("server.realm", Any, "", "", Prefixed, Nothing),
    key("fips-mode", Switch, "", "false", Prefixed, Used),
    key("jmx.*", Any, "", "", Prefixed, Nothing),
    key("controllerPort", Any, "", "", Prefixed, Nothing),
    key("test.*", Any, "", "", Prefixed, Nothing),
    key("testingonly.*", Any, "", "", Prefixed, Nothing),
    // Ours.
    key("ringkeeper.audit.file", Text, "", "zookeeper_audit.log", File, Used),
    key("ringkeeper.cores", Text, "", "all", File, Used),
    key("ringkeeper.io", Choice(&["auto", "uring", "epoll"]), "", "auto", File, Used),
    key("ringkeeper.spin", Int(0, 10_000), "µs", "", File, Used),
    key("ringkeeper.snapRetainCount", COUNT, "snapshots", "", File, Used),
    key("ringkeeper.snapshotOnStop", Switch, "", "false", File, Used),
    key("ringkeeper.log.format", Choice(&["text", "json"]), "", "text", File, Used),
    key("ringkeeper.log.level", Choice(&["error", "warn", "info", "debug", "trace"]), "", "info", File, Used),
    key("ringkeeper.log.inflight", Int(1, 2), "log writes", "1", File, Used),
    key("ringkeeper.log.write", Choice(&["auto", "direct", "buffered"]), "", "auto", File, Used),
];

/// Names the manual prints that do nothing upstream, and the keys that are meant.
#[rustfmt::skip]
pub static ALIASES: &[(&str, &str)] = &[
    ("connectionMaxTokens", "connection_throttle_tokens"),
    ("connectionTokenFillTime", "connection_throttle_fill_time"),
    ("connectionTokenFillCount", "connection_throttle_fill_count"),
    ("connectionFreezeTime", "connection_throttle_freeze_time"),
    ("connectionDropIncrease", "connection_throttle_drop_increase"),
    ("connectionDropDecrease", "connection_throttle_drop_decrease"),
    ("connectionDecreaseRatio", "connection_throttle_decrease_ratio"),
    ("requestThrottleLimit", "request_throttle_max_requests"),
    ("requestThrottleStallTime", "request_throttle_stall_time"),
    ("requestThrottleDropStale", "request_throttle_drop_stale"),
    ("requestStaleConnectionCheck", "request_stale_connection_check"),
    ("requestStaleLatencyCheck", "request_stale_latency_check"),
    ("throttledOpWaitTime", "throttled_op_wait_time"),
    ("maxConcurrentSnapSyncs", "leader.maxConcurrentSnapSyncs"),
    ("maxConcurrentDiffSyncs", "leader.maxConcurrentDiffSyncs"),
    ("maxTimeToWaitForEpoch", "leader.maxTimeToWaitForEpoch"),
    ("outstandingHandshake.limit", "netty.server.outstandingHandshake.limit"),
    ("advancedFlowControlEnabled", "netty.advancedFlowControl.enabled"),
];

/// The key of this name, or the family it belongs to.
pub fn find(name: &str) -> Option<&'static Key> {
    if let Some(exact) = KEYS.iter().find(|key| key.name == name) {
        return Some(exact);
    }
    KEYS.iter()
        .filter(|key| key.name.strip_suffix('*').is_some_and(|family| name.starts_with(family)))
        .filter(|key| name.len() >= key.name.len())
        .max_by_key(|key| key.name.len())
}

/// The key someone meant who wrote this name: equal but for the case of its letters.
pub fn near(name: &str) -> Option<&'static str> {
    KEYS.iter().map(|key| key.name).find(|key| key.eq_ignore_ascii_case(name))
}

/// The `zoo.cfg` name a system property stands for, if it is one of ZooKeeper's.
pub fn of_property(property: &str) -> Option<&str> {
    let found = |name: &str, bare: bool| {
        find(name).is_some_and(|key| match key.given {
            File => false,
            Prefixed => !bare,
            Bare => true,
        })
    };
    match property.strip_prefix("zookeeper.") {
        Some(name) if found(name, false) => Some(name),
        None if found(property, true) => Some(property),
        _ => None,
    }
}

impl Key {
    /// What a value has to be, for a person.
    pub fn expected(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" ({})", self.unit) };
        match self.kind {
            Strict => "true or false".into(),
            Switch => "true, or anything else for false".into(),
            Kind::Only(word) => format!("{word}, or anything else for the default"),
            Int(min, max) if min == max => format!("{min}"),
            kind if kind == ANY_I32 => format!("a whole number{unit}"),
            Int(min, max) => format!("a whole number from {min} to {max}{unit}"),
            Real(min, max) => format!("a number from {min} to {max}"),
            Hours => "whole hours, or a number with the suffix ms, s, m, h or d".into(),
            Choice(words) => {
                let words: Vec<&str> =
                    words.iter().map(|word| if word.is_empty() { "nothing" } else { word }).collect();
                format!("one of {}", words.join(", "))
            }
            Text | Any => "text".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_listed_twice_and_aliases_lead_to_keys() {
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]));
        for (alias, effective) in ALIASES {
            assert!(KEYS.iter().all(|key| key.name != *alias), "{alias}");
            assert!(find(effective).is_some(), "{effective}");
        }
    }

    #[test]
    fn exact_names_win_over_families_and_long_families_over_short() {
        assert_eq!(find("ssl.quorum.keyStore.location").unwrap().name, "ssl.quorum.keyStore.location");
        assert_eq!(find("ssl.quorum.other").unwrap().name, "ssl.quorum.*");
        assert_eq!(find("ssl.other").unwrap().name, "ssl.*");
        assert_eq!(find("nio.sessionlessCnxnTimeout").unwrap().name, "nio.sessionlessCnxnTimeout");
        assert_eq!(find("nio.numWorkerThreads").unwrap().name, "nio.*");
        assert_eq!(find("superUser.2").unwrap().name, "superUser.*");
        assert!(find("ssl.").is_none() && find("nonsense").is_none() && find("").is_none());
        assert_eq!(near("ticktime"), Some("tickTime"));
    }

    #[test]
    fn properties_stand_for_keys_as_zookeeper_reads_them() {
        assert_eq!(of_property("zookeeper.snapCount"), Some("snapCount"));
        assert_eq!(of_property("jute.maxbuffer"), Some("jute.maxbuffer"));
        assert_eq!(of_property("zookeeper.jute.maxbuffer.extrasize"), Some("jute.maxbuffer.extrasize"));
        assert_eq!(of_property("fsync.warningthresholdms"), Some("fsync.warningthresholdms"));
        assert_eq!(of_property("zookeeper.fsync.warningthresholdms"), Some("fsync.warningthresholdms"));
        for none in ["snapCount", "zookeeper.clientPort", "clientPort", "java.net.preferIPv4Stack"] {
            assert_eq!(of_property(none), None, "{none}");
        }
    }
}
