//! What the shell does with a server's files, on a [`Disk`]: log writes, segments, snapshots, and the recovery at start.
//!
//! The names and the order of steps are those of `server::storage`, which does the same on real files; formats, the log's writer
//! and recovery, and loading and checking of snapshots are the server's own code.

use std::collections::VecDeque;
use std::io;

use ringkeeper::proto::txn::TxnEntry;
use ringkeeper::proto::{Acl, StatPersisted};
use ringkeeper::request::Database;
use ringkeeper::request::apply::{Fit, Nobody};
use ringkeeper::session::SessionTable;
use ringkeeper::snapshot::{self, LoadSink, Manifest, SnapshotEvent, SnapshotWork};
use ringkeeper::tree::TreeOptions;
use ringkeeper::txnlog::recover::Base;
use ringkeeper::txnlog::{SegmentFile, SegmentId, SegmentSource, SegmentWork, Start, recover};
use ringkeeper::types::{Instant, SessionId, Zxid};

use super::disk::{Disk, Full};

/// Retired segments kept for recycling.
const SPARES_MAX: usize = 2;
const IDENTITY: &str = "identity";
const TEMPORARY: &str = ".tmp";

/// A state recovered from a disk.
pub struct Opened {
    pub database: Database,
    pub start: Start,
    pub identity: u64,
    pub zxid_snapshot: Zxid,
    /// What the log holds beyond the snapshot.
    pub entries: Vec<(Zxid, Vec<u8>)>,
}

/// What recovery depends on besides the disk.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    pub tick_ms: u64,
    pub now: Instant,
    pub hash_seed: u64,
    /// For a new directory.
    pub identity: u64,
}

/// Recovers what the disk holds, or begins a new directory. Changes the disk only as a start does. The error says what is damaged.
pub fn open(disk: &mut Disk, options: OpenOptions) -> Result<Opened, String> {
    let temporary: Vec<String> =
        disk.names().filter(|name| name.ends_with(TEMPORARY)).map(str::to_owned).collect();
    temporary.iter().for_each(|name| disk.remove(name));
    let Some(identity) = disk.read(IDENTITY) else {
        return begin(disk, options);
    };
    let identity = u64::from_str_radix(std::str::from_utf8(identity).map_err(|error| error.to_string())?, 16)
        .map_err(|error| format!("the identity: {error}"))?;
    let mut restorer = Restorer::new(options);
    let (manifest, known) = load_newest(disk, identity, &mut restorer)?;
    let mut database = restorer.database;
    database.finish_load(manifest.zxid);
    if manifest.tree_digest.is_some_and(|digest| digest != database.tree.digest()) {
        return Err(format!(
            "the tree of snapshot {} has another digest than its manifest says",
            manifest.zxid
        ));
    }
    let mut entries = Vec::new();
    let base = Base { identity, zxid: manifest.zxid };
    let files = segments(disk);
    let recovered = recover(&files, &mut Segments(disk), base, &mut |zxid, bytes| {
        let entry = TxnEntry::decode(bytes).map_err(|error| error.to_string())?;
        database.apply(&entry, Fit::Exact, options.now, &mut Nobody);
        entries.push((zxid, bytes.to_vec()));
        match entry.digest {
            Some(digest) if digest.tree_digest != database.tree.digest() => {
                Err(format!("digest {} logged, {} found", digest.tree_digest, database.tree.digest()))
            }
            _ => Ok(()),
        }
    })
    .map_err(|error| error.to_string())?;
    if recovered.start.zxid_last < known {
        return Err(format!("a snapshot is of {known}, the log reaches to {}", recovered.start.zxid_last));
    }
    // What was read may be in the cache only.
    for segment in &recovered.start.live {
        disk.sync(&segment_name(segment.id));
    }
    assert_eq!(database.end_ephemerals_of_nobody(), 0, "ephemeral nodes of no session in our own data");
    database.sessions.restart_clocks(options.now);
    Ok(Opened { database, start: recovered.start, identity, zxid_snapshot: manifest.zxid, entries })
}

fn begin(disk: &mut Disk, options: OpenOptions) -> Result<Opened, String> {
    let old: Vec<String> =
        disk.names().filter(|name| name.starts_with("snapshot.")).map(str::to_owned).collect();
    old.iter().for_each(|name| disk.remove(name));
    let sessions = SessionTable::new(options.tick_ms as u32, options.hash_seed);
    let mut database = Database::new(TreeOptions { hash_seed: options.hash_seed }, sessions);
    let identity = options.identity;
    let (bytes, manifest) = save(&mut database, identity);
    let full = |_: Full| "no space left on the disk".to_owned();
    for (name, content) in [
        (snapshot_name(Zxid::ZERO), &bytes[..]),
        (manifest_name(Zxid::ZERO), &manifest.encode()[..]),
        (IDENTITY.to_owned(), format!("{identity:x}").as_bytes()),
    ] {
        let temporary = format!("{name}{TEMPORARY}");
        disk.create(&temporary).map_err(full)?;
        disk.append(&temporary, content).map_err(full)?;
        disk.sync(&temporary);
        disk.rename(&temporary, &name);
        disk.sync_names();
    }
    Ok(Opened {
        database,
        start: Start::fresh(identity, Zxid::ZERO),
        identity,
        zxid_snapshot: Zxid::ZERO,
        entries: Vec::new(),
    })
}

/// A whole snapshot of a state nobody changes meanwhile.
pub fn save(database: &mut Database, identity: u64) -> (Vec<u8>, Manifest) {
    let zxid = database.zxid_applied();
    database.tree.snapshot_begin();
    let sessions: Vec<_> =
        database.sessions.iter().map(|session| (session.id, session.timeout_ms_stored)).collect();
    let acls = database.tree.acls().map(|(id, list)| (i64::from(id.0), list));
    let mut writer = snapshot::Writer::new(zxid, identity, sessions.into_iter(), acls);
    writer.nodes(database.tree.node_count() as u64, &[]);
    let digest = database.tree.digest();
    loop {
        let mut slice = Vec::new();
        let done = database.tree.snapshot_step(1024, &mut slice);
        writer.nodes(0, &slice);
        if done {
            break writer.finish(Some(digest));
        }
    }
}

/// Loads the newest snapshot that verifies. Also gives the highest zxid any manifest says was durable.
fn load_newest(disk: &Disk, identity: u64, restorer: &mut Restorer) -> Result<(Manifest, Zxid), String> {
    let mut reasons = Vec::new();
    let mut known = Zxid::ZERO;
    for zxid in snapshots(disk).into_iter().rev() {
        let result = (|| {
            let manifest = disk.read(&manifest_name(zxid)).ok_or("it has no manifest")?;
            let manifest = Manifest::decode(manifest).map_err(|error| error.to_string())?;
            if (manifest.zxid, manifest.identity) != (zxid, identity) {
                return Err("its manifest is of another".to_owned());
            }
            known = known.max(manifest.zxid);
            let mut bytes = disk.read(&snapshot_name(zxid)).expect("listed");
            let loaded = snapshot::load(&mut bytes, restorer).map_err(|error| error.to_string())?;
            manifest.check(&loaded).map_err(|error| error.to_string())?;
            Ok(manifest)
        })();
        match result {
            Ok(manifest) => return Ok((manifest, known)),
            Err(reason) => reasons.push(format!("{zxid}: {reason}")),
        }
    }
    Err(format!("no snapshot can be trusted: {reasons:?}"))
}

fn snapshots(disk: &Disk) -> Vec<Zxid> {
    let mut found: Vec<Zxid> = disk
        .names()
        .filter_map(|name| i64::from_str_radix(name.strip_prefix("snapshot.")?, 16).ok().map(Zxid))
        .collect();
    found.sort_unstable();
    found
}

pub fn segments(disk: &Disk) -> Vec<SegmentFile> {
    disk.names()
        .filter_map(|name| {
            let id = SegmentId(u64::from_str_radix(name.strip_prefix("log.")?, 16).ok()?);
            Some(SegmentFile { id, bytes: disk.read(name)?.len() as u64 })
        })
        .collect()
}

pub fn segment_name(id: SegmentId) -> String {
    format!("log.{id}")
}

fn snapshot_name(zxid: Zxid) -> String {
    format!("snapshot.{:x}", zxid.0)
}

fn manifest_name(zxid: Zxid) -> String {
    format!("snapshot.{:x}.manifest", zxid.0)
}

struct Segments<'d>(&'d Disk);

impl SegmentSource for Segments<'_> {
    fn read_at(&mut self, segment: SegmentId, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read(&segment_name(segment)).expect("listed");
        let at = offset_bytes as usize;
        into.copy_from_slice(&bytes[at..at + into.len()]);
        Ok(())
    }
}

struct Restorer {
    database: Database,
    options: OpenOptions,
}

impl Restorer {
    fn new(options: OpenOptions) -> Restorer {
        let sessions = SessionTable::new(options.tick_ms as u32, options.hash_seed);
        Restorer {
            database: Database::for_loading(TreeOptions { hash_seed: options.hash_seed }, sessions),
            options,
        }
    }
}

impl LoadSink for Restorer {
    fn reset(&mut self) {
        *self = Restorer::new(self.options);
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.database.load_session(session, timeout_ms, self.options.now);
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        let bytes = acl.ok_or("a null list")?.bytes().to_vec();
        self.database.load_acl(id, &bytes).map_err(|error| error.to_string())
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        self.database.load_node(path, data, acl, stat).map_err(|error| error.to_string())
    }
}

/// One step of file work; a crash falls between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes or recycles the file of a segment.
    Prepare(SegmentId),
    /// Makes its name durable; the segment is ready then.
    Prepared(SegmentId),
    Retire(SegmentId),
    Begin(Zxid),
    Part(Vec<u8>),
    /// The steps that make a snapshot count.
    SyncContent,
    Manifest(Vec<u8>),
    Publish,
    SyncNames,
    Purge,
    Abandon,
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Did {
    Nothing,
    SegmentReady(SegmentId),
    Snapshot(SnapshotEvent),
    /// Without a segment there is no log.
    Fatal,
}

/// The thread beside the cores that does slow file work, one step after the other.
#[derive(Debug)]
pub struct Keeper {
    steps: VecDeque<Step>,
    snapshot: Option<Zxid>,
    segment_bytes: usize,
    /// Verified snapshots that stay.
    retain: usize,
    /// Whether segments are recycled with what they held.
    recycles: bool,
}

impl Keeper {
    pub fn new(segment_bytes: usize, retain: usize, recycles: bool) -> Keeper {
        Keeper { steps: VecDeque::new(), snapshot: None, segment_bytes, retain, recycles }
    }

    pub fn segment(&mut self, work: SegmentWork) {
        match work {
            SegmentWork::Prepare(id) => self.steps.extend([Step::Prepare(id), Step::Prepared(id)]),
            SegmentWork::Retire(id) => self.steps.push_back(Step::Retire(id)),
        }
    }

    pub fn snapshot(&mut self, work: SnapshotWork) {
        match work {
            SnapshotWork::Begin { zxid } => self.steps.push_back(Step::Begin(zxid)),
            SnapshotWork::Part(part) => self.steps.push_back(Step::Part(part)),
            SnapshotWork::End { manifest } => self.steps.extend([
                Step::SyncContent,
                Step::Manifest(manifest),
                Step::Publish,
                Step::SyncNames,
                Step::Purge,
            ]),
            SnapshotWork::Abandon => self.steps.push_back(Step::Abandon),
        }
    }

    pub fn is_idle(&self) -> bool {
        self.steps.is_empty()
    }

    /// Does the next step.
    pub fn step(&mut self, disk: &mut Disk) -> Did {
        let Some(step) = self.steps.pop_front() else { return Did::Nothing };
        let temporary = |zxid: Zxid| format!("{}{TEMPORARY}", snapshot_name(zxid));
        match step {
            Step::Prepare(id) => match self.prepare(disk, id) {
                Ok(()) => Did::Nothing,
                Err(Full) => Did::Fatal,
            },
            Step::Prepared(id) => {
                disk.sync_names();
                Did::SegmentReady(id)
            }
            Step::Retire(id) => {
                let spares = disk.names().filter(|name| name.starts_with("spare.")).count();
                if spares < SPARES_MAX && self.recycles {
                    disk.rename(&segment_name(id), &format!("spare.{id}"));
                } else {
                    disk.remove(&segment_name(id));
                }
                Did::Nothing
            }
            Step::Begin(zxid) => {
                self.snapshot = Some(zxid);
                match disk.create(&temporary(zxid)) {
                    Ok(()) => Did::Nothing,
                    Err(Full) => self.failed(disk),
                }
            }
            Step::Part(part) => {
                let Some(zxid) = self.snapshot else { return Did::Nothing };
                match disk.append(&temporary(zxid), &part) {
                    Ok(()) => Did::Snapshot(SnapshotEvent::PartWritten),
                    Err(Full) => self.failed(disk),
                }
            }
            Step::SyncContent => {
                let Some(zxid) = self.snapshot else { return Did::Nothing };
                disk.sync(&temporary(zxid));
                Did::Nothing
            }
            Step::Manifest(manifest) => {
                let Some(zxid) = self.snapshot else { return Did::Nothing };
                let name = format!("{}{TEMPORARY}", manifest_name(zxid));
                let made = disk.create(&name).and_then(|()| disk.append(&name, &manifest));
                if made.is_err() {
                    return self.failed(disk);
                }
                disk.sync(&name);
                Did::Nothing
            }
            Step::Publish => {
                let Some(zxid) = self.snapshot else { return Did::Nothing };
                disk.rename(&temporary(zxid), &snapshot_name(zxid));
                disk.sync_names();
                disk.rename(&format!("{}{TEMPORARY}", manifest_name(zxid)), &manifest_name(zxid));
                Did::Nothing
            }
            Step::SyncNames => {
                disk.sync_names();
                Did::Nothing
            }
            Step::Purge => {
                let Some(zxid) = self.snapshot.take() else { return Did::Nothing };
                let log_from = self.purge(disk);
                Did::Snapshot(SnapshotEvent::Done { zxid, log_from })
            }
            Step::Abandon => {
                if let Some(zxid) = self.snapshot.take() {
                    disk.remove(&temporary(zxid));
                }
                Did::Nothing
            }
        }
    }

    /// A failure is told once; what still comes of that snapshot is passed over.
    fn failed(&mut self, disk: &mut Disk) -> Did {
        let zxid = self.snapshot.take().expect("a snapshot under way");
        for name in [snapshot_name(zxid), manifest_name(zxid)] {
            let temporary = format!("{name}{TEMPORARY}");
            if disk.exists(&temporary) {
                disk.remove(&temporary);
            }
        }
        Did::Snapshot(SnapshotEvent::Failed { zxid, reason: "no space left on the disk".into() })
    }

    fn prepare(&self, disk: &mut Disk, id: SegmentId) -> Result<(), Full> {
        let spare = disk
            .names()
            .find(|name| name.starts_with("spare."))
            .filter(|name| disk.read(name).is_some_and(|bytes| bytes.len() == self.segment_bytes))
            .map(str::to_owned);
        if let Some(spare) = spare {
            disk.rename(&spare, &segment_name(id));
            return Ok(());
        }
        let temporary = format!("{}{TEMPORARY}", segment_name(id));
        disk.create(&temporary)?;
        disk.append(&temporary, &vec![0; self.segment_bytes])?;
        disk.sync(&temporary);
        disk.rename(&temporary, &segment_name(id));
        Ok(())
    }

    /// Removes all but the newest verified snapshots, and gives the zxid of the oldest one kept.
    fn purge(&self, disk: &mut Disk) -> Zxid {
        let all = snapshots(disk);
        let verified: Vec<Zxid> =
            all.iter().copied().filter(|zxid| disk.exists(&manifest_name(*zxid))).collect();
        let oldest = verified[verified.len().saturating_sub(self.retain)];
        for zxid in all.into_iter().filter(|zxid| *zxid < oldest) {
            if disk.exists(&manifest_name(zxid)) {
                disk.remove(&manifest_name(zxid));
            }
            disk.remove(&snapshot_name(zxid));
        }
        oldest
    }
}
