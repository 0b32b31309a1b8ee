//! From written values to the checked [`Config`].

mod ensemble;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Notice, Origin};
use super::keys::{self, Effect, Key, Kind};
use super::sources::{Merged, Sources, Start, Written};
use super::*;

/// Snapshots ZooKeeper keeps at least. Source: ZooKeeper `DatadirCleanupManager`, `PurgeTxnLog`.
const SNAP_RETAIN_MIN: i64 = 3;
/// Source: ZooKeeper `ZooKeeperServer#getSnapCount`.
const SNAP_COUNT_MIN: i64 = 2;
/// Source: ZooKeeper `BinaryInputArchive`.
const JUTE_EXTRA_MIN: i64 = 1024;

/// Reads all sources into one configuration. Errors name the first thing found wrong.
pub fn load(sources: &Sources, read: &mut ReadFile<'_>) -> Result<Loaded, ConfigError> {
    let Merged { values, mut notices, home, .. } = Merged::of(sources)?;
    let values = Values { values, home: home.unwrap_or(Origin::Default) };
    values.check(&mut notices)?;
    let config = build(&values, sources, read, &mut notices)?;
    Ok(Loaded { config, notices })
}

fn build(
    values: &Values,
    sources: &Sources,
    read: &mut ReadFile<'_>,
    notices: &mut Vec<Notice>,
) -> Result<Config, ConfigError> {
    let data_dir = match values.text("dataDir") {
        Some(path) => PathBuf::from(path),
        None => {
            let reason = "the directory for snapshots and logs has to be given";
            return Err(ConfigError::Missing { origin: values.home.clone(), key: "dataDir", reason });
        }
    };
    if data_dir.is_relative() && !matches!(values.origin("dataDir"), Origin::Default | Origin::Argument) {
        notices.push(Notice::RelativePath {
            origin: values.origin("dataDir"),
            path: data_dir.display().to_string(),
        });
    }
    let data_log_dir = values.text("dataLogDir").map_or_else(|| data_dir.clone(), PathBuf::from);

    let my_id = my_id(&data_dir, read)?;
    let tick_time_ms = values.number::<u32>("tickTime");
    let lines = ensemble::lines(values, sources, read)?;
    let ensemble = ensemble::ensemble(values, &lines, &data_dir, my_id, notices)?;
    let own = match &ensemble {
        Some(ensemble) => lines.members.iter().find(|member| member.id == ensemble.me),
        None => lines.members.first(),
    };
    let client_address = client_address(values, own)?;
    let secure_client_address = secure_client_address(values, own)?;
    let client_port_unification = values.flag("client.portUnification");
    let client_tls = client_tls(values, secure_client_address.is_some(), client_port_unification, notices)?;
    if let Some(ensemble) = &ensemble {
        ensemble::check_own_ports(values, ensemble, client_address.as_ref())?;
    }

    let session_timeout = |name, ticks| match values.number::<i64>(name) {
        ..=-1 => tick_time_ms * ticks,
        given => given as u32,
    };
    let min_session_timeout_ms = session_timeout("minSessionTimeout", 2);
    let max_session_timeout_ms = session_timeout("maxSessionTimeout", 20);
    if min_session_timeout_ms > max_session_timeout_ms {
        let key =
            if values.is_given("minSessionTimeout") { "minSessionTimeout" } else { "maxSessionTimeout" };
        return Err(ConfigError::Contradiction {
            origin: values.origin(key),
            reason: format!(
                "minSessionTimeout ({min_session_timeout_ms} ms) is larger than maxSessionTimeout ({max_session_timeout_ms} ms)"
            ),
        });
    }

    let jute_max_buffer_bytes = values.number::<u32>("jute.maxbuffer");
    let weighted = values.flag("connection_throttle_weight_enabled");
    let weight = |name| if weighted { values.number(name) } else { 1 };
    let skip_acl = values.flag("skipACL");
    if skip_acl {
        notices.push(Notice::AclOff);
    }
    let config = Config {
        client_address,
        secure_client_address,
        client_port_unification,
        client_cert_reload: values.flag("client.certReload"),
        client_tls,
        client_backlog: values.optional("clientPortListenBacklog"),
        storage: storage(values, notices),
        data_dir,
        data_log_dir,
        tick_time_ms,
        min_session_timeout_ms,
        max_session_timeout_ms,
        max_client_cnxns: values.number("maxClientCnxns"),
        max_cnxns: values.number("maxCnxns"),
        jute_max_buffer_bytes,
        jute_extra_bytes: values
            .given_number("jute.maxbuffer.extrasize")
            .unwrap_or(i64::from(jute_max_buffer_bytes))
            .max(JUTE_EXTRA_MIN) as u32,
        client_tcp_keep_alive: values.flag("clientTcpKeepAlive"),
        sessionless_timeout_ms: values.number("nio.sessionlessCnxnTimeout"),
        global_outstanding_limit: values.number("globalOutstandingLimit"),
        request_throttle: RequestThrottle {
            requests_max: values.number("request_throttle_max_requests"),
            stall_time_ms: values.number("request_throttle_stall_time"),
            drop_stale: values.flag("request_throttle_drop_stale"),
            stale_connection_check: values.flag("request_stale_connection_check"),
            stale_latency_check: values.flag("request_stale_latency_check"),
        },
        connection_throttle: ConnectionThrottle {
            tokens: values.number("connection_throttle_tokens"),
            fill_time_ms: values.number("connection_throttle_fill_time"),
            fill_count: values.number("connection_throttle_fill_count"),
            freeze_time_ms: values.optional("connection_throttle_freeze_time"),
            drop_increase: values.real("connection_throttle_drop_increase"),
            drop_decrease: values.real("connection_throttle_drop_decrease"),
            decrease_ratio: values.real("connection_throttle_decrease_ratio"),
            global_weight: weight("connection_throttle_global_session_weight"),
            local_weight: weight("connection_throttle_local_session_weight"),
            renew_weight: weight("connection_throttle_renew_session_weight"),
        },
        throttled_op_wait_ms: Some(values.number("throttled_op_wait_time")).filter(|ms| *ms > 0),
        large_request_threshold_bytes: values.optional("largeRequestThreshold"),
        large_request_bytes_max: values.number("largeRequestMaxBytes"),
        words_whitelist: values.list("4lw.commands.whitelist"),
        init_limit_ticks: values.given_number("initLimit").map(|ticks| ticks as u32),
        sync_limit_ticks: values.given_number("syncLimit").map(|ticks| ticks as u32),
        members: lines.members,
        ensemble,
        my_id,
        reconfig_enabled: values.flag("reconfigEnabled"),
        read_only_mode_enabled: values.flag("readonlymode.enabled"),
        local_sessions_enabled: values.flag("localSessionsEnabled"),
        local_sessions_upgrading_enabled: values.flag("localSessionsUpgradingEnabled"),
        nodes: Nodes {
            digest_enabled: values.flag("digest.enabled"),
            close_session_txn_enabled: values.flag("closeSessionTxn.enabled"),
            extended_types_enabled: values.flag("extendedTypesEnabled"),
            emulate_353_ttl_nodes: values.flag("emulate353TTLNodes"),
            container_check_interval_ms: values.number("znode.container.checkIntervalMs"),
            container_per_minute_max: values.number("znode.container.maxPerMinute"),
            container_never_used_interval_ms: values.number("znode.container.maxNeverUsedIntervalMs"),
            enforce_quota: values.flag("enforceQuota"),
            skip_acl,
        },
        auth: auth(values, read, notices)?,
        admin: Admin {
            enabled: !values.raw("admin.enableServer").eq_ignore_ascii_case("false"),
            address: ListenAddress::new(
                values.text("admin.serverAddress").unwrap_or_default(),
                values.number("admin.serverPort"),
            ),
            command_url: values.text("admin.commandURL").unwrap_or("/commands").to_owned(),
            idle_timeout_ms: values.number("admin.idleTimeout"),
            rate_limiter_interval_ms: values.number("admin.rateLimiterIntervalInMS"),
            snapshot_enabled: values.flag("admin.snapshot.enabled"),
            port_unification: values.flag("admin.portUnification"),
            force_https: values.flag("admin.forceHttps"),
            need_client_auth: values.flag("admin.needClientAuth"),
        },
        metrics_provider: metrics_provider(values)?,
        audit_file: values
            .flag("audit.enable")
            .then(|| PathBuf::from(values.text("ringkeeper.audit.file").unwrap_or_default())),
        initial_text: match &sources.start {
            Start::File { text, .. } => redact::text(text),
            Start::Defaults | Start::Words(_) => String::new(),
        },
        properties: values.properties(),
        cores: match Cores::parse(values.text("ringkeeper.cores").unwrap_or("all")) {
            Ok(cores) => cores,
            Err(expected) => return Err(values.wrong("ringkeeper.cores", expected)),
        },
        io: match values.choice("ringkeeper.io") {
            "uring" => IoDriver::Uring,
            "epoll" => IoDriver::Epoll,
            _ => IoDriver::Auto,
        },
        spin_us: values.given_number("ringkeeper.spin").map(|us| us as u32),
        log_format: if values.choice("ringkeeper.log.format") == "json" {
            LogFormat::Json
        } else {
            LogFormat::Text
        },
        log_level: values.choice("ringkeeper.log.level"),
    };
    Ok(config)
}

fn storage(values: &Values, notices: &mut Vec<Notice>) -> Storage {
    let kilobytes = |name| Some(values.number::<i64>(name)).filter(|kb| *kb > 0).map(|kb| kb as u64 * 1024);
    let force_sync = values.flag("forceSync");
    if !force_sync {
        notices.push(Notice::ForceSyncOff);
    }
    let snap_count = values.at_least("snapCount", SNAP_COUNT_MIN, notices);
    let kept_by_autopurge = values.at_least("autopurge.snapRetainCount", SNAP_RETAIN_MIN, notices);
    let snap_retain_count = match values.given_number("ringkeeper.snapRetainCount") {
        Some(0) => None,
        Some(count) => Some(count as u32),
        None => Some(kept_by_autopurge),
    };
    let purge_interval_ms = Some(values.hours_ms("autopurge.purgeInterval")).filter(|ms| *ms > 0);
    if let (None, Some(kept), false) =
        (purge_interval_ms, snap_retain_count, values.is_given("ringkeeper.snapRetainCount"))
    {
        notices.push(Notice::Retention { kept, written: values.is_given("autopurge.purgeInterval") });
    }
    Storage {
        force_sync,
        fsync_warning_threshold_ms: values.number("fsync.warningthresholdms"),
        snap_count,
        snap_size_limit_bytes: kilobytes("snapSizeLimitInKb"),
        txn_log_size_limit_bytes: kilobytes("txnLogSizeLimitInKb"),
        pre_alloc_bytes: values.number::<u64>("preAllocSize") * 1024,
        snapshot_compression: match values.choice("snapshot.compression.method") {
            "gz" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            _ => Compression::None,
        },
        snapshot_trust_empty: values.flag("snapshot.trust.empty"),
        data_dir_autocreate: values.flag("datadir.autocreate"),
        db_autocreate: values.flag("db.autocreate"),
        serialize_last_processed_zxid: values.flag("serializeLastProcessedZxid.enabled"),
        snap_retain_count,
        purge_interval_ms,
        snapshot_on_stop: values.flag("ringkeeper.snapshotOnStop"),
        log_writes_in_flight: values.number("ringkeeper.log.inflight"),
        log_write: match values.choice("ringkeeper.log.write") {
            "direct" => LogWriteMode::Direct,
            "buffered" => LogWriteMode::Buffered,
            _ => LogWriteMode::Auto,
        },
    }
}

fn auth(values: &Values, read: &mut ReadFile<'_>, notices: &mut Vec<Notice>) -> Result<Auth, ConfigError> {
    let mut providers = Vec::new();
    for (key, written) in values.family("authProvider.") {
        let class = written.value.rsplit('.').next().unwrap_or_default();
        providers.push(match class {
            "DigestAuthenticationProvider" => AuthProvider::Digest,
            "IPAuthenticationProvider" => AuthProvider::Ip,
            "EnsembleAuthenticationProvider" => AuthProvider::Ensemble,
            "SASLAuthenticationProvider" => AuthProvider::Sasl,
            "X509AuthenticationProvider" => AuthProvider::X509,
            _ => {
                notices.push(Notice::UnknownClass {
                    origin: written.origin.clone(),
                    key: key.to_owned(),
                    class: written.value.clone(),
                    consequence: "authentication with its scheme fails",
                });
                continue;
            }
        });
    }
    let enforced_schemes = values.flag("enforce.auth.enabled").then(|| values.list("enforce.auth.schemes"));
    if enforced_schemes.as_ref().is_some_and(Vec::is_empty) {
        return Err(ConfigError::Missing {
            origin: values.origin("enforce.auth.enabled"),
            key: "enforce.auth.schemes",
            reason: "enforce.auth.enabled=true needs the schemes one of which clients have to use",
        });
    }
    let mut super_users: Vec<String> = values.text("superUser").map(str::to_owned).into_iter().collect();
    super_users.extend(values.family("superUser.").map(|(_, written)| written.value.clone()));
    Ok(Auth {
        digest_enabled: values.flag("DigestAuthenticationProvider.enabled"),
        digest_algorithm: match values.choice("DigestAuthenticationProvider.digestAlg") {
            "SHA-224" => DigestAlgorithm::Sha224,
            "SHA-256" => DigestAlgorithm::Sha256,
            "SHA-384" => DigestAlgorithm::Sha384,
            "SHA-512" => DigestAlgorithm::Sha512,
            _ => DigestAlgorithm::Sha1,
        },
        super_digest: values
            .text("DigestAuthenticationProvider.superDigest")
            .map(|digest| Secret(digest.to_owned())),
        super_users,
        x509_super_user: values.text("X509AuthenticationProvider.superUser").map(str::to_owned),
        ensemble_names: providers.contains(&AuthProvider::Ensemble).then(|| values.list("ensembleAuthName")),
        enforced_schemes,
        session_require_client_sasl_auth: values.flag("sessionRequireClientSASLAuth"),
        sasl_users: sasl_users(values, read, notices)?,
        allow_sasl_failed_clients: values.flag("allowSaslFailedClients"),
        let_any_sasl_user_do_x: values.text("letAnySaslUserDoX").map(str::to_owned),
        providers,
    })
}

/// Who may come by SASL. Source: ZooKeeper `ServerCnxnFactory#configureSaslLogin`, `#getDigestMd5Credentials`.
fn sasl_users(
    values: &Values,
    read: &mut ReadFile<'_>,
    notices: &mut Vec<Notice>,
) -> Result<Option<BTreeMap<String, Secret>>, ConfigError> {
    let key = "java.security.auth.login.config";
    let name = values.text("sasl.serverconfig").unwrap_or_default();
    let Some(path) = values.text(key) else {
        if name != "Server" {
            return Err(
                values.wrong("sasl.serverconfig", format!("a file with that section: {key} names none"))
            );
        }
        return Ok(None);
    };
    // A URL is allowed there, too.
    let path = path.strip_prefix("file:").unwrap_or(path);
    let text = match read(Path::new(path)) {
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(None) => return Err(values.wrong(key, format!("a file; there is no {path}"))),
        Err(reason) => return Err(ConfigError::Read { file: path.to_owned(), reason }),
    };
    let at = |line| Origin::Line { file: path.to_owned(), line };
    let sections = jaas::parse(&text).map_err(|bad| ConfigError::Contradiction {
        origin: at(bad.line),
        reason: format!("expected {}", bad.expected),
    })?;
    let Some(section) = sections.into_iter().find(|section| section.name == name) else {
        // It may be there for the quorum alone.
        if name != "Server" {
            return Err(values.wrong("sasl.serverconfig", format!("a section of {path}")));
        }
        return Ok(None);
    };
    let mut users = BTreeMap::new();
    for module in section.modules {
        if module.class.rsplit('.').next() != Some("DigestLoginModule") {
            let kerberos = module.class.ends_with("Krb5LoginModule");
            let why = "Kerberos (GSSAPI) is not available in this release; use DigestLoginModule";
            return Err(ConfigError::Unsupported {
                origin: at(module.line),
                key: section.name,
                value: module.class,
                reason: if kerberos { why } else { "only DigestLoginModule is known" }.to_owned(),
            });
        }
        let user =
            |(name, password): (String, Secret)| Some((name.strip_prefix("user_")?.to_owned(), password));
        users.extend(module.options.into_iter().filter_map(user));
    }
    if let (Some(password), Some(known)) =
        (values.text("SASLAuthenticationProvider.superPassword"), users.get_mut("super"))
    {
        *known = Secret(password.to_owned());
    }
    // ZooKeeper 3.9 has it on unless told otherwise, and DIGEST-MD5 off with it; here it is as it is written.
    if values.flag("fips-mode") {
        notices.push(Notice::FipsMode);
        users.clear();
    }
    Ok(Some(users))
}

/// Source: ZooKeeper `MetricsProviderBootstrap#startMetricsProvider`, for which an unknown class is fatal, too.
fn metrics_provider(values: &Values) -> Result<MetricsProvider, ConfigError> {
    let key = "metricsProvider.className";
    let written = values.text(key).unwrap_or("DefaultMetricsProvider");
    let class = match written.rsplit('.').next().unwrap_or_default() {
        "DefaultMetricsProvider" => MetricsClass::Default,
        "NullMetricsProvider" => MetricsClass::Null,
        "PrometheusMetricsProvider" => MetricsClass::Prometheus,
        _ => {
            let expected = "DefaultMetricsProvider, NullMetricsProvider or PrometheusMetricsProvider";
            return Err(values.wrong(key, expected.into()));
        }
    };
    Ok(MetricsProvider {
        class,
        http_address: ListenAddress::new(
            values.text("metricsProvider.httpHost").unwrap_or_default(),
            values.number("metricsProvider.httpPort"),
        ),
        export_jvm_info: values.flag("metricsProvider.exportJvmInfo"),
    })
}

/// The number in `<dataDir>/myid`, where that file is: a first line of decimal digits from 1 to 255.
fn my_id(data_dir: &Path, read: &mut ReadFile<'_>) -> Result<Option<u8>, ConfigError> {
    let path = data_dir.join("myid");
    let file = path.display().to_string();
    let text = match read(&path) {
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(None) => return Ok(None),
        Err(reason) => return Err(ConfigError::Read { file, reason }),
    };
    let first = text.lines().next().unwrap_or_default().trim();
    match first.parse::<u8>() {
        Ok(id) if id > 0 => Ok(Some(id)),
        _ => Err(ConfigError::Value {
            origin: Origin::Line { file, line: 1 },
            key: "myid".into(),
            value: first.chars().take(64).collect(),
            expected: "a server id from 1 to 255".into(),
        }),
    }
}

/// Where clients come in: `clientPort` and `clientPortAddress`, or the client part of the server's own line.
fn client_address(values: &Values, member: Option<&Member>) -> Result<Option<ListenAddress>, ConfigError> {
    let port = values.given_number("clientPort").filter(|port| *port > 0);
    let host = values.text("clientPortAddress");
    let of_file = match (port, host) {
        (Some(port), host) => Some(ListenAddress::new(host.unwrap_or_default(), port as u16)),
        (None, Some(_)) if values.origin("clientPortAddress") != Origin::Default => {
            return Err(ConfigError::Contradiction {
                origin: values.origin("clientPortAddress"),
                reason: "clientPortAddress is given but clientPort is not".into(),
            });
        }
        (None, _) => None,
    };
    let of_member = member.and_then(|member| member.client.clone());
    match (of_file, of_member) {
        (Some(of_file), Some(of_member)) if of_file != of_member => Err(ConfigError::Contradiction {
            origin: values.origin("clientPort"),
            reason: format!("clientPort says {of_file}, the server line {of_member}; give one of them"),
        }),
        (of_file, of_member) => Ok(of_file.or(of_member)),
    }
}

/// Where clients come in by TLS alone: `secureClientPort` and its address, or that part of the server's own line.
fn secure_client_address(
    values: &Values,
    member: Option<&Member>,
) -> Result<Option<ListenAddress>, ConfigError> {
    let port = values.given_number("secureClientPort").filter(|port| *port > 0);
    let host = values.text("secureClientPortAddress");
    if port.is_none() && host.is_some() {
        return Err(ConfigError::Contradiction {
            origin: values.origin("secureClientPortAddress"),
            reason: "secureClientPortAddress is given but secureClientPort is not".into(),
        });
    }
    let of_file = port.map(|port| ListenAddress::new(host.unwrap_or_default(), port as u16));
    match (of_file, member.and_then(|member| member.secure_client.clone())) {
        (Some(of_file), Some(of_member)) if of_file != of_member => Err(ConfigError::Contradiction {
            origin: values.origin("secureClientPort"),
            reason: format!("secureClientPort says {of_file}, the server line {of_member}; give one of them"),
        }),
        (of_file, of_member) => Ok(of_file.or(of_member)),
    }
}

/// The TLS of client ports, if any speaks it.
fn client_tls(
    values: &Values,
    secure: bool,
    unified: bool,
    notices: &mut Vec<Notice>,
) -> Result<Option<Tls>, ConfigError> {
    if secure || unified {
        let what = if secure { "secureClientPort" } else { "client.portUnification" };
        return tls::tls(values, tls::CLIENT_PREFIX, what, notices).map(Some);
    }
    let names = tls::written(values);
    if !names.is_empty() {
        notices.push(Notice::TlsOff { names });
    }
    Ok(None)
}

/// The written values with their keys' defaults behind them. After [`Values::check`] every getter succeeds.
pub(super) struct Values {
    pub(super) values: BTreeMap<String, Written>,
    pub(super) home: Origin,
}

impl Values {
    /// Checks every value by its key's kind, and tells what becomes of keys that do nothing here.
    fn check(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        let (mut no_effect, mut ensemble, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for (name, written) in &self.values {
            let key = keys::find(name).expect("merging keeps known keys alone");
            if !fits(key.kind, &written.value) {
                return Err(self.wrong(name, key.expected()));
            }
            let is = |off: &str| written.value.eq_ignore_ascii_case(off);
            match key.effect {
                Effect::Used => {}
                Effect::Ensemble => ensemble.push(name.clone()),
                Effect::Nothing => no_effect.push(name.clone()),
                Effect::Later(off) => {
                    if !is(off) {
                        later.push(name.clone());
                    }
                }
                Effect::Refused(reason) => return Err(self.unsupported(name, reason)),
                Effect::RefusedUnless(off, reason) => {
                    if !is(off) {
                        return Err(self.unsupported(name, reason));
                    }
                }
            }
            self.note_odd_switch(name, key, written, notices);
        }
        if !no_effect.is_empty() {
            notices.push(Notice::NoEffect { names: no_effect });
        }
        if !ensemble.is_empty() {
            notices.push(Notice::EnsembleOnly { names: ensemble });
        }
        if !later.is_empty() {
            notices.push(Notice::NotAvailable { names: later });
        }
        Ok(())
    }

    /// `forceSync=false` is taken for `yes`: worth saying.
    fn note_odd_switch(&self, name: &str, key: &Key, written: &Written, notices: &mut Vec<Notice>) {
        let is = |word: &str| written.value.eq_ignore_ascii_case(word);
        let (odd, meaning) = match key.kind {
            Kind::Switch => (!is("true") && !is("false"), "false"),
            Kind::Only(word) => (!is("yes") && !is("no"), if word == "no" { "yes" } else { "no" }),
            _ => (false, ""),
        };
        if odd {
            notices.push(Notice::OddSwitch {
                origin: written.origin.clone(),
                key: name.to_owned(),
                value: written.value.clone(),
                meaning,
                expected: key.expected(),
            });
        }
    }

    /// What was written and ZooKeeper would have as system properties, without secrets.
    fn properties(&self) -> Vec<(String, String)> {
        let named = |(name, written): (&String, &Written)| {
            let property = match keys::find(name)?.given {
                keys::Given::File => return None,
                keys::Given::Prefixed => format!("zookeeper.{name}"),
                keys::Given::Bare => name.clone(),
            };
            let value = if redact::is_secret(name) { redact::REDACTED } else { &written.value };
            Some((property, value.to_owned()))
        };
        self.values.iter().filter_map(named).collect()
    }

    pub(super) fn wrong(&self, name: &str, expected: String) -> ConfigError {
        let value = self.values.get(name).map(|written| written.value.clone()).unwrap_or_default();
        ConfigError::Value { origin: self.origin(name), key: name.to_owned(), value, expected }
    }

    pub(super) fn unsupported(&self, name: &str, reason: &str) -> ConfigError {
        let value = self.values.get(name).map(|written| written.value.clone()).unwrap_or_default();
        ConfigError::Unsupported { origin: self.origin(name), key: name.into(), value, reason: reason.into() }
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(self.home.clone(), |written| written.origin.clone())
    }

    /// The members of a family that were written, by name.
    pub(super) fn family<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Written)> {
        self.values
            .range(prefix.to_owned()..)
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, written)| (name.as_str(), written))
    }

    fn raw(&self, name: &str) -> &str {
        let key = keys::find(name).unwrap_or_else(|| panic!("{name} is in the table of keys"));
        self.values.get(name).map_or(key.default, |written| written.value.as_str())
    }

    /// `None` where the key is unset or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        Some(self.raw(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.raw(name).split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// The word of the table that was written.
    pub(super) fn choice(&self, name: &str) -> &'static str {
        let raw = self.raw(name);
        match keys::find(name).map(|key| key.kind) {
            Some(Kind::Choice(words)) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(raw))
                .unwrap_or_else(|| panic!("{name}={raw} was checked")),
            _ => panic!("{name} is a choice"),
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        let raw = self.raw(name);
        match keys::find(name).map(|key| key.kind) {
            Some(Kind::Strict | Kind::Switch) => raw.eq_ignore_ascii_case("true"),
            // `yes` and `no`: only the one word turns the default around.
            Some(Kind::Only(word)) => raw.eq_ignore_ascii_case(word) == (word == "yes"),
            _ => panic!("{name} is a switch"),
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> T {
        whole(self.raw(name))
            .and_then(|number| T::try_from(number).ok())
            .unwrap_or_else(|| panic!("{name}={} was checked", self.raw(name)))
    }

    fn given_number(&self, name: &str) -> Option<i64> {
        self.text(name).map(|_| self.number(name))
    }

    /// `None` where the number is negative: off.
    fn optional(&self, name: &str) -> Option<u32> {
        u32::try_from(self.number::<i64>(name)).ok()
    }

    fn at_least(&self, name: &'static str, min: i64, notices: &mut Vec<Notice>) -> u32 {
        let value = self.number::<i64>(name);
        if value < min {
            notices.push(Notice::Raised { origin: self.origin(name), key: name, value, used: min });
        }
        value.max(min) as u32
    }

    fn real(&self, name: &str) -> f64 {
        self.raw(name).parse().unwrap_or_else(|_| panic!("{name}={} was checked", self.raw(name)))
    }

    fn hours_ms(&self, name: &str) -> u64 {
        hours_ms(self.raw(name)).unwrap_or_else(|| panic!("{name}={} was checked", self.raw(name)))
    }
}

fn fits(kind: Kind, value: &str) -> bool {
    match kind {
        Kind::Strict => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
        Kind::Int(min, max) => whole(value).is_some_and(|number| (min..=max).contains(&number)),
        Kind::Real(min, max) => value.parse::<f64>().is_ok_and(|number| (min..=max).contains(&number)),
        Kind::Hours => hours_ms(value).is_some(),
        Kind::Choice(words) => words.iter().any(|word| word.eq_ignore_ascii_case(value)),
        Kind::Switch | Kind::Only(_) | Kind::Text | Kind::Any => true,
    }
}

/// Decimal with a sign, or hexadecimal after `0x` as `Integer#getInteger` takes it for properties.
fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => i64::from_str_radix(hex, 16).ok()?,
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    Some(sign * magnitude)
}

/// Hours to milliseconds; with a suffix, that unit instead. At most ten years.
fn hours_ms(text: &str) -> Option<u64> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let unit_ms = match &text[end..] {
        "" | "h" => 3_600_000,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "d" => 86_400_000,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(unit_ms).filter(|ms| *ms <= 315_360_000_000)
}
