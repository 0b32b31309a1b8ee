//! One server from its configuration: recovery, then cores, then clients.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use super::audit::Audit;
use super::housekeeping::Keeper;
use super::restore::{RestoreOptions, Restorer};
use super::storage::{self, Files, Opened, Origin, StorageError};
use super::{FrontMaker, FrontPort, NodeParts, Recovered, Shell, gauges, options};
use crate::config::Config;
use crate::io::Clock;
use crate::metrics::ProcessGauges;
use crate::node::pipeline::Startup;
use crate::node::{Front, Pipeline};
use crate::request::Database;
use crate::request::audit::{self, ServerEvent};
use crate::request::auth::sasl::NonceSecret;
use crate::session::IdSource;
use crate::snapshot;
use crate::txnlog;
use crate::types::ServerId;

/// Exit code where the data directory cannot be reached. Source: ZooKeeper `ExitCode`.
const EXIT_DATA_DIR: i32 = 3;
/// Exit code where what is in the data directory cannot be used, or anything else fails.
const EXIT_ERROR: i32 = 1;
/// Exit code where the configuration asks for what cannot be.
const EXIT_CONFIG: i32 = 2;
/// Id that session ids of a standalone server carry. Source: ZooKeeper `ZooKeeperServer#createSessionTracker`.
const STANDALONE_ID: ServerId = ServerId(1);
/// Nodes handed out at once while nobody is served yet.
const FIRST_SNAPSHOT_NODES: usize = 4096;

/// Recovers, serves until told to stop, and gives the process's exit code. What went wrong is in the log.
pub fn run(config: &Config, started: StdInstant) -> i32 {
    super::log_panics();
    let audit = match config.audit_file.as_deref().map(Audit::start).transpose() {
        Ok(audit) => audit,
        Err(error) => {
            let path = config.audit_file.as_deref().unwrap_or(Path::new("")).display();
            tracing::error!("the audit log {path} cannot be written: {error}");
            eprintln!("the audit log {path} cannot be written: {error}");
            return EXIT_CONFIG;
        }
    };
    let tell = |event| {
        if let Some(audit) = &audit {
            audit.tell(audit::server_event(event, &gauges::user()));
        }
    };
    let code = match assemble(config, started, audit.clone()) {
        Ok(code) => {
            tell(ServerEvent::Stopping);
            code
        }
        Err(Failure { code, reason }) => {
            tracing::error!("{reason}");
            eprintln!("{reason}");
            tell(ServerEvent::StartFailed);
            code
        }
    };
    if let Some(audit) = &audit {
        audit.flush();
    }
    code
}

struct Failure {
    code: i32,
    reason: String,
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        let code = if error.is_access() { EXIT_DATA_DIR } else { EXIT_ERROR };
        Failure { code, reason: error.to_string() }
    }
}

fn assemble(config: &Config, started: StdInstant, audit: Option<Audit>) -> Result<i32, Failure> {
    let unusable = |reason| Failure { code: EXIT_CONFIG, reason };
    // Before anything is touched: what is wrong with a store is the operator's to mend.
    let tls = options::client_tls(config).map_err(|error| unusable(error.to_string()))?;
    let peer_tls = options::peer_tls(config).map_err(|error| unusable(error.to_string()))?;
    let seed = random();
    let clock = Clock::new();
    let restore = RestoreOptions {
        tick_ms: config.tick_time_ms,
        hash_seed: seed,
        clock,
        compares: config.nodes.digest_enabled,
        in_ensemble: config.ensemble.is_some(),
        recent_bytes_max: config.ensemble.as_ref().map_or(0, |_| options::RECENT_BYTES_MAX),
    };
    let mut restorer = Restorer::new(restore);
    let opened = storage::open(&options::storage(config), &mut restorer)?;
    let imported = matches!(opened.origin, Origin::ZooKeeper { .. });
    let recent = restorer.take_recent(imported);
    let mut database = restorer.into_database(imported);
    for warning in &opened.warnings {
        tracing::warn!("{warning}");
    }
    let Opened {
        files,
        lock,
        zxid,
        origin,
        log_start,
        entry_count,
        first_snapshot_due,
        snapshot_advised,
        epochs,
        standing,
        ..
    } = opened;
    assert!(database.zxid_applied() == zxid, "recovered to {}, storage says {zxid}", database.zxid_applied());
    let zxid_snapshot = match origin {
        Origin::Own { snapshot } => snapshot,
        Origin::ZooKeeper { .. } | Origin::Empty => zxid,
    };
    let recovered_in = started.elapsed();
    tracing::info!(
        "{} znodes, {} sessions, {entry_count} transactions replayed in {} ms",
        database.tree.node_count(),
        database.sessions.len(),
        recovered_in.as_millis()
    );
    if first_snapshot_due {
        write_first_snapshot(&files, &mut database, config.nodes.digest_enabled)?;
    }

    let shell_options = options::shell(config, tls, peer_tls, files.log_dir(), clock).map_err(unusable)?;
    let mut shell = Shell::prepare(shell_options)
        .map_err(|error| Failure { code: error.exit_code(), reason: error.to_string() })?;
    let process = Arc::new(ProcessGauges::default());
    gauges::keep_fresh(process.clone(), files.snapshot_dir().to_owned(), files.log_dir().to_owned())
        .map_err(|error| Failure { code: EXIT_ERROR, reason: format!("cannot start a thread: {error}") })?;

    let fronts = options::fronts(config, shell.front_count(), seed, &nonce_secret()?)
        .into_iter()
        .map(|front_options| {
            let reader = database.tree.reader();
            Box::new(move |port: FrontPort| Front::new(front_options, reader, port)) as FrontMaker
        })
        .collect();
    let startup = Startup { took: recovered_in, transactions: entry_count, snapshot_advised };
    let pipeline_options =
        options::pipeline(config, seed, files.identity(), zxid_snapshot, process.clone(), startup);
    let writer_options = options::writer(config, random());
    let me = config.ensemble.as_ref().map(|ensemble| ensemble.me);
    let ids = IdSource::new(me.unwrap_or(STANDALONE_ID), wall_ms());
    let member =
        config.ensemble.as_ref().map(|ensemble| options::ensemble(config, ensemble, epochs, standing, seed));
    let data_directory = config.data_dir.clone();
    super::admin::start(config, &shell, &files, process.clone())
        .and_then(|()| super::metrics::start(config, &shell, process))
        .map_err(|error| Failure { code: EXIT_ERROR, reason: format!("cannot start a thread: {error}") })?;
    if let Some(audit) = audit {
        let started = audit.clone();
        shell.on_serving(move |_| started.tell(audit::server_event(ServerEvent::Started, &gauges::user())));
        shell.audit_to(audit);
    }
    let node = NodeParts {
        pipeline: Box::new(move |ports| {
            let log = txnlog::Writer::new(writer_options, log_start);
            // Held as long as anything here may still write (O11).
            let lock = lock;
            let pipeline = Pipeline::new(pipeline_options, database, log, ids, ports, clock.now());
            let pipeline = pipeline.with_guard(Box::new(lock));
            match member {
                Some(member) => pipeline.in_ensemble(member).with_recent(recent),
                None => pipeline,
            }
        }),
        fronts,
        housekeeping: Box::new(
            Keeper::new(
                files,
                options::writer(config, random()),
                RestoreOptions { recent_bytes_max: 0, ..restore },
            )
            .with_membership(options::membership_store(config)),
        ),
    };
    Ok(shell.run(node, Recovered { data_directory, zxid, started, member: me }))
}

/// Writes and verifies the snapshot that makes a directory ours: of an empty server, or of what was imported.
fn write_first_snapshot(files: &Files, database: &mut Database, digest: bool) -> Result<(), StorageError> {
    let begun = StdInstant::now();
    let zxid = database.zxid_applied();
    database.tree.snapshot_begin();
    let sessions: Vec<_> =
        database.sessions.iter().map(|session| (session.id, session.timeout_ms_stored)).collect();
    let acls = database.tree.acls().map(|(id, list)| (i64::from(id.0), list));
    let mut writer = snapshot::Writer::new(zxid, files.identity(), sessions.into_iter(), acls);
    writer.nodes(database.tree.node_count() as u64, &[]);
    let tree_digest = digest.then(|| database.tree.digest());
    let mut file = files.begin_snapshot(zxid)?;
    let mut slice = Vec::new();
    loop {
        slice.clear();
        let done = database.tree.snapshot_step(FIRST_SNAPSHOT_NODES, &mut slice);
        writer.nodes(0, &slice);
        file.part(&writer.take())?;
        if done {
            break;
        }
    }
    let (last, manifest) = writer.finish(tree_digest);
    file.part(&last)?;
    file.finish(&manifest.encode())?;
    tracing::info!(%zxid, "first snapshot written in {} ms", begun.elapsed().as_millis());
    Ok(())
}

/// Chance of the system's own.
fn nonce_secret() -> Result<NonceSecret, Failure> {
    let mut secret = NonceSecret::default();
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut secret.0)).map_err(
        |error| Failure { code: EXIT_ERROR, reason: format!("cannot read /dev/urandom: {error}") },
    )?;
    Ok(secret)
}

/// A number nobody can guess from outside.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}
