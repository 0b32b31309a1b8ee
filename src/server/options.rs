//! What each part is told, from the one checked configuration.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::membership_files::MembershipStore;
use super::storage::StorageOptions;
use super::tls::{Acceptor, Live, StoreError, TlsSettings, reload};
use super::{CoresChoice, IoChoice, ListenPlan, PeerPlace, PeerTls, STOP_MAX, ServerOptions};
use crate::config::{Compression, Config, ConnectionThrottle, Cores, Ensemble, IoDriver, ListenAddress, Tls};
use crate::io::Clock;
use crate::metrics::ProcessGauges;
use crate::node::limits::Shares;
use crate::node::pipeline::{
    ConnectionThrottleOptions, EnsembleOptions, Modes, RequestThrottleOptions, Startup,
};
use crate::node::{FrontOptions, PipelineOptions, Serving};
use crate::request::auth::AuthOptions;
use crate::request::auth::sasl::NonceSecret;
use crate::request::prepare::PrepareOptions;
use crate::snapshot::Packing;
use crate::txnlog::WriterOptions;
use crate::types::Zxid;
use crate::words::{ServerFacts, WordOptions};
use crate::zab::election::{ElectionOptions, EmptyVote};
use crate::zab::leader::LeaderOptions;
use crate::zab::mesh::MeshOptions;
use crate::zab::quorum::Verifier;
use crate::zab::{Epochs, PeerPort, Standing};

/// Connections the kernel keeps for us unless told otherwise: more than any herd that reconnects at once.
const BACKLOG_DEFAULT: u32 = 4096;

/// How long a stop may take that leaves a snapshot: a hundred million nodes' worth.
const STOP_WITH_SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// A vote is sent again at least this often while there is no leader, whatever ZooKeeper's longer maximum says: a server that comes
/// back is not to wait for a minute.
const NOTIFICATION_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Bytes of recent transactions a leader keeps for learners that were away.
pub(super) const RECENT_BYTES_MAX: usize = 64 << 20;
/// Bytes that may wait for one learner to read: all that is recent, and what comes meanwhile.
const LEARNER_QUEUE_BYTES_MAX: usize = 256 << 20;
/// Bytes a learner's answer to a ping may have: 65,536 sessions of 12 bytes.
const LEARNER_PACKET_BYTES_MIN: usize = 1 << 20;
/// How long an elected leader waits for voters that look for a leader all the same. ZooKeeper's is off unless configured
/// (`leader.maxTimeToWaitForEpoch`), and then waits for all of initLimit.
const EPOCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes of a leader's history that a learner takes in before it counts; more comes as a snapshot.
const STAGED_BYTES_MAX: usize = 512 << 20;

/// Bytes an entry of the log may have (O13): a request's frame and what preparing adds to it.
fn entry_bytes_max(config: &Config) -> usize {
    config.jute_max_buffer_bytes as usize + config.jute_extra_bytes as usize
}

pub(super) fn storage(config: &Config) -> StorageOptions {
    StorageOptions {
        autocreate: config.storage.data_dir_autocreate,
        db_autocreate: config.storage.db_autocreate,
        trust_empty_snapshot: config.storage.snapshot_trust_empty,
        snapshot_retain: config.storage.snap_retain_count.map_or(usize::MAX, |count| count as usize),
        packing: match config.storage.snapshot_compression {
            Compression::None => Packing::Plain,
            Compression::Gzip => Packing::Gzip,
            Compression::Snappy => Packing::Snappy,
        },
        server_id: config.ensemble.as_ref().map(|ensemble| ensemble.me),
        ..StorageOptions::new(&config.data_dir, Some(config.data_log_dir.clone()))
    }
}

/// Fails with the address that does not resolve. `tls` is what client ports speak it by.
pub(super) fn shell(
    config: &Config,
    tls: Option<Live<Acceptor>>,
    peer_tls: Option<PeerTls>,
    log_directory: &std::path::Path,
    clock: Clock,
) -> Result<ServerOptions, String> {
    Ok(ServerOptions {
        addresses: match &config.client_address {
            Some(address) => resolve("clientPortAddress", address)?,
            None => Vec::new(),
        },
        secure_addresses: match &config.secure_client_address {
            Some(address) => resolve("secureClientPortAddress", address)?,
            None => Vec::new(),
        },
        port_unification: config.client_port_unification,
        tls,
        connections_per_address_max: config.max_client_cnxns,
        connections_max: config.max_cnxns,
        keep_alive: config.client_tcp_keep_alive,
        backlog: config.client_backlog.unwrap_or(BACKLOG_DEFAULT),
        cores: match &config.cores {
            Cores::All => CoresChoice::Auto,
            Cores::Count(count) => CoresChoice::Count(*count),
            Cores::List(list) => CoresChoice::List(list.clone()),
        },
        io: match config.io {
            IoDriver::Auto => IoChoice::Auto,
            IoDriver::Uring => IoChoice::Uring,
            IoDriver::Epoll => IoChoice::Epoll,
        },
        spin: config.spin_us.map(|us| Duration::from_micros(u64::from(us))),
        log_directory: log_directory.to_owned(),
        force_sync: config.storage.force_sync,
        stop_max: if config.storage.snapshot_on_stop { STOP_WITH_SNAPSHOT_MAX } else { STOP_MAX },
        handle_signals: true,
        clock,
        peers: config.ensemble.as_ref().map(|ensemble| (listen_plan(ensemble), ensemble.keep_alive)),
        peer_tls,
    })
}

/// Both ports at every own address, or at all the machine has.
fn listen_plan(ensemble: &Ensemble) -> ListenPlan {
    let places = ensemble.own().addresses.iter().flat_map(|address| {
        // "0.0.0.0" in the own line is the wildcard.
        let host = ListenAddress::new(&address.host, 0).host.filter(|_| !ensemble.listen_on_all_ips);
        let place = move |port, number| PeerPlace { port, host: host.clone(), number };
        [(PeerPort::Election, address.election_port), (PeerPort::Quorum, address.quorum_port)]
            .map(|(port, number)| place(port, number))
    });
    ListenPlan {
        places: places.collect(),
        tries_max: ensemble.bind_tries,
        waits_for_names: ensemble.waits_for_names,
    }
}

/// How other servers are spoken to, likewise.
pub(super) fn peer_tls(config: &Config) -> Result<Option<PeerTls>, StoreError> {
    let Some(of_peers) = config.ensemble.as_ref().and_then(|ensemble| ensemble.tls.as_ref()) else {
        return Ok(None);
    };
    let settings = live(&of_peers.keys, of_peers.cert_reload, TlsSettings::new)?;
    Ok(Some(PeerTls {
        settings,
        dials: of_peers.dials,
        accepts_plain: of_peers.accepts_plain,
        detection_timeout: Duration::from_millis(u64::from(of_peers.keys.detection_timeout_ms)),
    }))
}

/// Settings from their stores, read again when these change where that is wanted.
fn live<T: Clone + Send + 'static>(
    keys: &Tls,
    reload: bool,
    load: fn(&Tls) -> Result<T, StoreError>,
) -> Result<Live<T>, StoreError> {
    let loaded = reload::stamps(keys);
    let live = Live::new(load(keys)?);
    if reload && let Err(error) = live.keep_fresh(keys.clone(), loaded, load) {
        tracing::warn!(%error, "changed key stores will not be noticed: no thread");
    }
    Ok(live)
}

/// What client ports speak TLS by, kept fresh where that is wanted. `None` where none does.
pub(super) fn client_tls(config: &Config) -> Result<Option<Live<Acceptor>>, StoreError> {
    let Some(tls) = &config.client_tls else { return Ok(None) };
    live(tls, config.client_cert_reload, Acceptor::new).map(Some)
}

/// Where a key of that name makes us listen. The wildcard is one socket for both families where the machine has both.
pub(super) fn resolve(key: &str, address: &ListenAddress) -> Result<Vec<SocketAddr>, String> {
    let Some(host) = &address.host else {
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port);
        let has_ipv6 = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
        return Ok(vec![if has_ipv6 { both } else { SocketAddr::from(([0, 0, 0, 0], address.port)) }]);
    };
    let mut found: Vec<SocketAddr> = (host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| format!("{key} {host} does not resolve: {error}"))?
        .collect();
    found.dedup();
    if found.is_empty() {
        return Err(format!("{key} {host} has no address"));
    }
    Ok(found)
}

pub(super) fn writer(config: &Config, salt_seed: u64) -> WriterOptions {
    let wish = config.storage.txn_log_size_limit_bytes.unwrap_or(config.storage.pre_alloc_bytes);
    WriterOptions {
        segment_bytes: WriterOptions::segment_bytes_for(wish, entry_bytes_max(config) as u64),
        in_flight_max: usize::from(config.storage.log_writes_in_flight),
        ..WriterOptions::new(salt_seed)
    }
}

/// Those of all fronts.
pub(super) fn fronts(
    config: &Config,
    front_count: usize,
    hash_seed: u64,
    nonce_secret: &NonceSecret,
) -> Vec<FrontOptions> {
    let shares = Arc::new(Shares::new(front_count, u64::from(config.large_request_bytes_max)));
    (0..front_count).map(|index| front(config, index, &shares, hash_seed, nonce_secret)).collect()
}

/// A port of TLS brings scheme `x509` along. Source: ZooKeeper `QuorumPeerConfig#configureSSLAuth`.
fn auth(config: &Config) -> AuthOptions {
    let mut auth = AuthOptions::of_config(&config.auth, config.nodes.skip_acl);
    auth.x509_enabled |= config.client_tls.is_some();
    auth
}

fn front(
    config: &Config,
    index: usize,
    shares: &Arc<Shares>,
    hash_seed: u64,
    nonce_secret: &NonceSecret,
) -> FrontOptions {
    FrontOptions {
        auth: auth(config),
        frame_bytes_max: config.jute_max_buffer_bytes,
        session_timeout_ms_min: config.min_session_timeout_ms as i32,
        session_timeout_ms_max: config.max_session_timeout_ms as i32,
        sessionless_timeout: Duration::from_millis(u64::from(config.sessionless_timeout_ms)),
        outstanding_max: config.global_outstanding_limit,
        connection_throttle: config.connection_throttle.tokens > 0,
        large_request_threshold: config.large_request_threshold_bytes,
        shares: shares.clone(),
        index,
        words: WordOptions::of(config),
        hash_seed,
        nonce_secret: nonce_secret.clone(),
        serving: if config.ensemble.is_some() { Serving::No } else { Serving::Yes },
    }
}

pub(super) fn pipeline(
    config: &Config,
    seed: u64,
    identity: u64,
    zxid_snapshot: Zxid,
    process: Arc<ProcessGauges>,
    startup: Startup,
) -> PipelineOptions {
    let nodes = &config.nodes;
    PipelineOptions {
        prepare: PrepareOptions {
            auth: auth(config),
            extended_types: nodes.extended_types_enabled,
            enforce_quota: nodes.enforce_quota,
            digest: nodes.digest_enabled,
            reconfig: config.reconfig_enabled,
            entry_bytes_max: entry_bytes_max(config),
        },
        snap_count: u64::from(config.storage.snap_count),
        snap_bytes_max: config.storage.snap_size_limit_bytes,
        sweep_interval: Duration::from_millis(u64::from(nodes.container_check_interval_ms)),
        sweep_per_minute_max: u64::from(nodes.container_per_minute_max),
        sweep_never_used_ms: nodes.container_never_used_interval_ms,
        connection_throttle: connection_throttle(
            &config.connection_throttle,
            config.ensemble.is_some() && config.local_sessions_enabled,
        ),
        request_throttle: request_throttle(config),
        facts: ServerFacts::of(config, super::gauges::environment(), process),
        seed,
        identity,
        zxid_snapshot,
        startup,
        audit_user: config.audit_file.as_ref().map(|_| super::gauges::user()),
        snapshot_on_stop: config.storage.snapshot_on_stop,
        slow_write: Duration::from_millis(config.storage.fsync_warning_threshold_ms),
    }
}

/// Where a member keeps who belongs to its ensemble; only where that can change.
pub(super) fn membership_store(config: &Config) -> Option<MembershipStore> {
    let ensemble = config.ensemble.as_ref().filter(|_| config.reconfig_enabled)?;
    Some(MembershipStore { configuration: ensemble.file.clone()?, me: ensemble.me })
}

/// What a member of an ensemble is told, with what its directory remembers.
pub(super) fn ensemble(
    config: &Config,
    ensemble: &Ensemble,
    epochs: Epochs,
    standing: Standing,
    hash_seed: u64,
) -> EnsembleOptions {
    let me = ensemble.me;
    let ms = |ms: u32| Duration::from_millis(u64::from(ms));
    let tick = ms(config.tick_time_ms);
    let membership = ensemble.membership.clone();
    let verifier = Verifier::of(&membership);
    EnsembleOptions {
        me,
        observer: !membership.is_voter(me),
        election: ElectionOptions {
            interval_min: ms(ensemble.notification_min_ms).min(NOTIFICATION_INTERVAL_MAX),
            interval_max: ms(ensemble.notification_max_ms).min(NOTIFICATION_INTERVAL_MAX),
            empty: match standing {
                Standing::Full => EmptyVote::Counts,
                Standing::Empty { may_found: true } => EmptyVote::Founds,
                Standing::Empty { may_found: false } => EmptyVote::Never,
            },
            ..ElectionOptions::new(me)
        },
        mesh: MeshOptions {
            several_addresses: ensemble.multi_address,
            connect_timeout: ms(ensemble.connect_timeout_ms),
            ..MeshOptions::new(me, ms(ensemble.initial_timeout_ms))
        },
        leader: LeaderOptions {
            me,
            tick,
            init_limit: ensemble.init_limit_ticks,
            sync_limit: ensemble.sync_limit_ticks,
            voters: verifier.voters(),
            verifier,
            config_text: membership.to_text().into(),
            config_version: membership.version,
            proposed: None,
            raises_version: false,
            packet_bytes_max: entry_bytes_max(config).max(LEARNER_PACKET_BYTES_MIN),
            learner_queue_bytes_max: LEARNER_QUEUE_BYTES_MAX,
            snapshot_syncs_max: ensemble.snap_syncs_max as usize,
            diff_syncs_max: ensemble.diff_syncs_max as usize,
            epoch_wait_max: Some(EPOCH_WAIT_MAX),
        },
        membership,
        tick,
        init_limit: ensemble.init_limit_ticks,
        sync_limit: ensemble.sync_limit_ticks,
        leader_serves: ensemble.leader_serves,
        standalone_enabled: ensemble.standalone_enabled,
        epochs,
        standing,
        recent_bytes_max: RECENT_BYTES_MAX,
        modes: Modes {
            snapshot_size_factor: ensemble.snapshot_size_factor,
            read_only: config.read_only_mode_enabled,
            local_sessions: config.local_sessions_enabled,
            local_sessions_upgrade: config.local_sessions_upgrading_enabled,
            diskless: !ensemble.observer_sync && !ensemble.membership.is_voter(me),
        },
        staged_bytes_max: STAGED_BYTES_MAX,
        hash_seed,
        tick_ms: config.tick_time_ms,
    }
}

/// New sessions of a server are all local ones or all global ones.
fn connection_throttle(config: &ConnectionThrottle, local_sessions: bool) -> ConnectionThrottleOptions {
    let ms = |ms: u32| Duration::from_millis(u64::from(ms));
    ConnectionThrottleOptions {
        tokens_max: config.tokens,
        fill_time: ms(config.fill_time_ms),
        fill_count: config.fill_count,
        freeze_time: config.freeze_time_ms.map(ms),
        drop_increase: config.drop_increase,
        drop_decrease: config.drop_decrease,
        decrease_ratio: config.decrease_ratio,
        open_weight: if local_sessions { config.local_weight } else { config.global_weight },
        renew_weight: config.renew_weight,
    }
}

fn request_throttle(config: &Config) -> RequestThrottleOptions {
    let throttle = &config.request_throttle;
    RequestThrottleOptions {
        requests_max: throttle.requests_max as usize,
        stall_time: Duration::from_millis(u64::from(throttle.stall_time_ms)),
        drop_stale: throttle.drop_stale,
        stale_connection_check: throttle.stale_connection_check,
        stale_latency_check: throttle.stale_latency_check,
        op_wait_max: Duration::from_millis(u64::from(config.throttled_op_wait_ms.unwrap_or(0))),
    }
}
