//! What the shell does with a server's files, on a [`Disk`]: log writes, segments, snapshots, and the recovery at start.
//!
//! The names and the order of steps are those of `server::storage`, which does the same on real files; formats, the log's writer
//! and recovery, and loading and checking of snapshots are the server's own code.

use std::collections::VecDeque;
use std::io;

use ringkeeper::node::{Rebuilt, StorageEvent, StorageWork};
use ringkeeper::proto::txn::TxnEntry;
use ringkeeper::request::Database;
use ringkeeper::request::apply::{Fit, Nobody};
use ringkeeper::request::load::Loader;
use ringkeeper::session::SessionTable;
use ringkeeper::snapshot::{self, Manifest, SnapshotEvent, SnapshotWork};
use ringkeeper::tree::TreeOptions;
use ringkeeper::txnlog::recover::Base;
use ringkeeper::txnlog::{
    LogRange, SegmentFile, SegmentId, SegmentSource, SegmentWork, Start, Writer, WriterOptions, read_range,
    recover,
};
use ringkeeper::types::{Epoch, Instant, Zxid};
use ringkeeper::zab::Epochs;

use super::disk::{Disk, Full};

/// Retired segments kept for recycling.
const SPARES_MAX: usize = 2;
const IDENTITY: &str = "identity";
const EPOCHS: &str = "epochs";
const TEMPORARY: &str = ".tmp";

/// A state recovered from a disk.
pub struct Opened {
    pub database: Database,
    pub start: Start,
    pub identity: u64,
    pub zxid_snapshot: Zxid,
    pub epochs: Epochs,
    /// Segments before it are of a history that was replaced.
    pub segment_first: SegmentId,
    /// What the log holds beyond the snapshot.
    pub entries: Vec<(Zxid, Vec<u8>)>,
}

/// What recovery depends on besides the disk.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    pub tick_ms: u64,
    /// Leases begin then.
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
    let (mut database, manifest, known) = load_newest(disk, identity, options, None)?;
    let mut entries = Vec::new();
    let segment_first = manifest.segment_first;
    let base = Base { segment_first, ..Base::new(identity, manifest.zxid) };
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
    let epochs = settle_epochs(disk, recovered.start.zxid_last)?;
    let replaced: Vec<Zxid> = snapshots(disk)
        .into_iter()
        .filter(|zxid| {
            manifest_of(disk, identity, *zxid).is_ok_and(|found| found.segment_first < segment_first)
        })
        .collect();
    replaced.into_iter().for_each(|zxid| remove_snapshot(disk, zxid));
    assert_eq!(database.end_ephemerals_of_nobody(), 0, "ephemeral nodes of no session in our own data");
    database.sessions.restart_clocks(options.now);
    Ok(Opened {
        database,
        start: recovered.start,
        identity,
        zxid_snapshot: manifest.zxid,
        epochs,
        segment_first,
        entries,
    })
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
        epochs: Epochs::default(),
        segment_first: SegmentId(0),
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

/// Loads the newest snapshot that verifies and is not newer than `until`. Also gives the highest zxid any manifest says was durable.
/// Snapshots of a history that was replaced do not count.
fn load_newest(
    disk: &Disk,
    identity: u64,
    options: OpenOptions,
    until: Option<Zxid>,
) -> Result<(Database, Manifest, Zxid), String> {
    let found: Vec<_> =
        snapshots(disk).into_iter().map(|zxid| (zxid, manifest_of(disk, identity, zxid))).collect();
    let sound = || found.iter().filter_map(|(_, manifest)| manifest.as_ref().ok());
    let history = sound().map(|manifest| manifest.segment_first).max().unwrap_or_default();
    let known =
        sound().filter(|manifest| manifest.segment_first == history).map(|manifest| manifest.zxid).max();
    let mut reasons = Vec::new();
    for (zxid, manifest) in found.iter().rev().filter(|(zxid, _)| until.is_none_or(|until| *zxid <= until)) {
        let result = match manifest {
            Ok(manifest) if manifest.segment_first != history => continue,
            Ok(manifest) => {
                load_snapshot(disk, *zxid, manifest, options).map(|database| (database, *manifest))
            }
            Err(reason) => Err(reason.clone()),
        };
        match result {
            Ok((database, manifest)) => return Ok((database, manifest, known.unwrap_or_default())),
            Err(reason) => reasons.push(format!("{zxid}: {reason}")),
        }
    }
    Err(format!("no snapshot can be trusted: {reasons:?}"))
}

fn manifest_of(disk: &Disk, identity: u64, zxid: Zxid) -> Result<Manifest, String> {
    let bytes = disk.read(&manifest_name(zxid)).ok_or("it has no manifest")?;
    let manifest = Manifest::decode(bytes).map_err(|error| error.to_string())?;
    if (manifest.zxid, manifest.identity) != (zxid, identity) {
        return Err("its manifest is of another".to_owned());
    }
    Ok(manifest)
}

fn load_snapshot(
    disk: &Disk,
    zxid: Zxid,
    manifest: &Manifest,
    options: OpenOptions,
) -> Result<Database, String> {
    let mut bytes = disk.read(&snapshot_name(zxid)).expect("listed");
    let mut loader = Loader::new(options.tick_ms as u32, options.hash_seed, options.now);
    let loaded = snapshot::load(&mut bytes, &mut loader).map_err(|error| error.to_string())?;
    manifest.check(&loaded).map_err(|error| error.to_string())?;
    let mut database = loader.into_database();
    database.finish_load(zxid);
    if manifest.tree_digest.is_some_and(|digest| digest != database.tree.digest()) {
        return Err("its tree has another digest than its manifest says".into());
    }
    Ok(database)
}

fn remove_snapshot(disk: &mut Disk, zxid: Zxid) {
    if disk.exists(&manifest_name(zxid)) {
        disk.remove(&manifest_name(zxid));
    }
    disk.remove(&snapshot_name(zxid));
}

/// As they were written, and not below what the data shows: history is written before the current epoch.
fn settle_epochs(disk: &mut Disk, last: Zxid) -> Result<Epochs, String> {
    let Some(bytes) = disk.read(EPOCHS) else { return Ok(Epochs::default()) };
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let numbers: Vec<u32> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [accepted, current] = numbers[..] else { return Err(format!("the epochs are {text:?}")) };
    let mut epochs = Epochs { accepted: Epoch(accepted), current: Epoch(current) };
    if last.epoch() > epochs.accepted || epochs.current > epochs.accepted {
        return Err(format!("{epochs:?} and a last transaction {last}"));
    }
    if epochs.current < last.epoch() {
        epochs.current = last.epoch();
        if write_epochs_file(disk, epochs).is_err() {
            return Err("no space left on the disk".into());
        }
        disk.rename(&format!("{EPOCHS}{TEMPORARY}"), EPOCHS);
        disk.sync_names();
    }
    Ok(epochs)
}

/// Under the temporary name, synced.
fn write_epochs_file(disk: &mut Disk, epochs: Epochs) -> Result<(), Full> {
    let temporary = format!("{EPOCHS}{TEMPORARY}");
    disk.create(&temporary)?;
    disk.append(&temporary, format!("{} {}", epochs.accepted.0, epochs.current.0).as_bytes())?;
    disk.sync(&temporary);
    Ok(())
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

/// One step of file work; a crash falls between two.
#[derive(Clone, Debug)]
pub enum Step {
    /// Makes or recycles the file of a segment.
    Prepare(SegmentId),
    /// Makes its name durable; the segment is ready then.
    Prepared(SegmentId),
    Retire(SegmentId),
    Begin(Zxid, Option<SegmentId>),
    Part(Vec<u8>),
    /// The steps that make a snapshot count.
    SyncContent,
    Manifest(Vec<u8>),
    Publish,
    SyncNames,
    Purge,
    Abandon,
    WriteEpochs(Epochs),
    RenameEpochs,
    EpochsWritten(Epochs),
    /// Reads the earlier state, and removes snapshots that are newer.
    Rebuild(Zxid),
    CutPrepare,
    CutWrite,
    CutDone(Zxid),
    ReadLog(LogRange),
}

/// What came of a step.
#[derive(Debug)]
pub enum Did {
    Nothing,
    SegmentReady(SegmentId),
    Snapshot(SnapshotEvent),
    /// The whole history is now this snapshot.
    Installed(SnapshotEvent),
    Storage(StorageEvent),
    /// Without a segment there is no log, without its epochs no member.
    Fatal,
}

/// The thread beside the cores that does slow file work, one step after the other.
pub struct Keeper {
    steps: VecDeque<Step>,
    snapshot: Option<Zxid>,
    /// The snapshot under way replaces the history.
    installs: Option<SegmentId>,
    segment_first: SegmentId,
    identity: u64,
    open: OpenOptions,
    writer: WriterOptions,
    /// Verified snapshots that stay.
    retain: usize,
    /// Whether segments are recycled with what they held.
    recycles: bool,
    rebuild: Option<Rebuild>,
}

/// A state gone back to, until its log is cut.
struct Rebuild {
    database: Database,
    zxid_snapshot: Zxid,
    entry_count: u64,
    /// Of the log as it is, where it is to be cut.
    cutting: Option<Writer>,
    segment: Option<SegmentId>,
}

impl Keeper {
    pub fn new(
        opened: &Opened,
        open: OpenOptions,
        writer: WriterOptions,
        retain: usize,
        recycles: bool,
    ) -> Keeper {
        Keeper {
            steps: VecDeque::new(),
            snapshot: None,
            installs: None,
            segment_first: opened.segment_first,
            identity: opened.identity,
            open,
            writer,
            retain,
            recycles,
            rebuild: None,
        }
    }

    pub fn storage(&mut self, work: StorageWork) {
        match work {
            StorageWork::WriteEpochs(epochs) => self.steps.extend([
                Step::WriteEpochs(epochs),
                Step::RenameEpochs,
                Step::EpochsWritten(epochs),
            ]),
            StorageWork::Rebuild { to } => {
                self.steps.extend([Step::Rebuild(to), Step::CutPrepare, Step::CutWrite, Step::CutDone(to)])
            }
            StorageWork::WriteMembership(files) => unreachable!("nobody reconfigures: {files:?}"),
            StorageWork::ReadLog(range) => self.steps.extend([Step::ReadLog(range)]),
        }
    }

    pub fn segment(&mut self, work: SegmentWork) {
        match work {
            SegmentWork::Prepare(id) => self.steps.extend([Step::Prepare(id), Step::Prepared(id)]),
            SegmentWork::Retire(id) => self.steps.push_back(Step::Retire(id)),
        }
    }

    pub fn snapshot(&mut self, work: SnapshotWork) {
        match work {
            SnapshotWork::Begin { zxid } => self.steps.push_back(Step::Begin(zxid, None)),
            SnapshotWork::Install { zxid, segment_first } => {
                self.steps.push_back(Step::Begin(zxid, Some(segment_first)));
            }
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
            Step::Begin(zxid, installs) => {
                (self.snapshot, self.installs) = (Some(zxid), installs);
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
                let manifest = Manifest::decode(&manifest).expect("the pipeline's own");
                let segment_first = self.installs.unwrap_or(self.segment_first);
                let manifest = Manifest { segment_first, ..manifest }.encode();
                let made = disk.create(&name).and_then(|()| disk.append(&name, &manifest));
                if made.is_err() {
                    // Whether one that replaces the history counts must not be left open.
                    return if self.installs.is_some() { Did::Fatal } else { self.failed(disk) };
                }
                disk.sync(&name);
                Did::Nothing
            }
            Step::Publish => {
                let Some(zxid) = self.snapshot else { return Did::Nothing };
                self.publish(disk, zxid);
                Did::Nothing
            }
            Step::SyncNames => {
                disk.sync_names();
                Did::Nothing
            }
            Step::Purge => {
                let Some(zxid) = self.snapshot.take() else { return Did::Nothing };
                let Some(segment_first) = self.installs.take() else {
                    let log_from = self.purge(disk);
                    return Did::Snapshot(SnapshotEvent::Done { zxid, log_from });
                };
                self.segment_first = segment_first;
                let others: Vec<Zxid> = snapshots(disk).into_iter().filter(|other| *other != zxid).collect();
                others.into_iter().for_each(|other| remove_snapshot(disk, other));
                Did::Installed(SnapshotEvent::Done { zxid, log_from: zxid })
            }
            Step::Abandon => {
                if let Some(zxid) = self.snapshot.take() {
                    disk.remove(&temporary(zxid));
                }
                self.installs = None;
                Did::Snapshot(SnapshotEvent::Abandoned)
            }
            Step::WriteEpochs(epochs) => match write_epochs_file(disk, epochs) {
                Ok(()) => Did::Nothing,
                Err(Full) => Did::Fatal,
            },
            Step::RenameEpochs => {
                disk.rename(&format!("{EPOCHS}{TEMPORARY}"), EPOCHS);
                Did::Nothing
            }
            Step::EpochsWritten(epochs) => {
                disk.sync_names();
                Did::Storage(StorageEvent::EpochsWritten(epochs))
            }
            Step::Rebuild(to) => match self.go_back(disk, to) {
                Ok(()) => Did::Nothing,
                Err(reason) => {
                    self.steps
                        .retain(|step| !matches!(step, Step::CutPrepare | Step::CutWrite | Step::CutDone(_)));
                    Did::Storage(StorageEvent::CannotRebuild { to, reason })
                }
            },
            Step::CutPrepare => {
                let Some(segment) = self.rebuild.as_ref().and_then(|rebuild| rebuild.segment) else {
                    return Did::Nothing;
                };
                if self.prepare(disk, segment).is_err() {
                    return Did::Fatal;
                }
                disk.sync_names();
                Did::Nothing
            }
            Step::CutWrite => {
                self.cut(disk);
                Did::Nothing
            }
            Step::CutDone(to) => self.went_back(disk, to),
            Step::ReadLog(range) => {
                let files = segments(disk);
                let read = read_range(&files, &mut Segments(disk), self.identity, self.segment_first, range);
                Did::Storage(match read {
                    Ok(read) => StorageEvent::LogRead(read),
                    Err(error) => StorageEvent::CannotReadLog { range, reason: error.to_string() },
                })
            }
        }
    }

    /// Reads the state of `to`, and makes it the last one as far as snapshots go (O6).
    fn go_back(&mut self, disk: &mut Disk, to: Zxid) -> Result<(), String> {
        assert!(self.snapshot.is_none(), "no snapshot is under way while the state goes back");
        let (mut database, manifest, _) = load_newest(disk, self.identity, self.open, Some(to))?;
        let base = Base {
            segment_first: self.segment_first,
            until: Some(to),
            ..Base::new(self.identity, manifest.zxid)
        };
        let now = self.open.now;
        let read = recover(&segments(disk), &mut Segments(disk), base, &mut |_, bytes| {
            let entry = TxnEntry::decode(bytes).map_err(|error| error.to_string())?;
            database.apply(&entry, Fit::Exact, now, &mut Nobody);
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        if read.start.zxid_last != to {
            return Err(format!("the log does not hold {to}, only {}", read.start.zxid_last));
        }
        let newer: Vec<Zxid> = snapshots(disk).into_iter().filter(|zxid| *zxid > to).collect();
        newer.into_iter().for_each(|zxid| remove_snapshot(disk, zxid));
        disk.sync_names();
        let mut rebuild = Rebuild {
            database,
            zxid_snapshot: manifest.zxid,
            entry_count: read.entry_count,
            cutting: None,
            segment: None,
        };
        if read.zxid_end > to {
            for segment in &read.start.live {
                disk.sync(&segment_name(segment.id));
            }
            let mut writer = Writer::new(self.writer, Start { zxid_last: read.zxid_end, ..read.start });
            writer.truncate(to);
            let mut work = Vec::new();
            writer.drain_work(&mut work);
            rebuild.segment = work.iter().find_map(|work| match work {
                SegmentWork::Prepare(id) => Some(*id),
                SegmentWork::Retire(_) => None,
            });
            rebuild.cutting = Some(writer);
        }
        self.rebuild = Some(rebuild);
        Ok(())
    }

    fn cut(&mut self, disk: &mut Disk) {
        let rebuild = self.rebuild.as_mut().expect("read before");
        let (Some(writer), Some(segment)) = (&mut rebuild.cutting, rebuild.segment) else { return };
        writer.segment_ready(segment);
        while writer.is_cutting() {
            let write = writer.next_write(Instant::default()).expect("a cut is written at once");
            let name = segment_name(write.segment);
            disk.write(&name, write.offset_bytes as usize, &write.bytes).expect("it was prepared");
            writer.written(write.id, write.bytes);
        }
    }

    fn went_back(&mut self, disk: &mut Disk, to: Zxid) -> Did {
        let rebuild = self.rebuild.take().expect("read before");
        if let Some(segment) = rebuild.segment {
            disk.sync(&segment_name(segment));
        }
        let base = Base { segment_first: self.segment_first, ..Base::new(self.identity, to) };
        let found = recover(&segments(disk), &mut Segments(disk), base, &mut |zxid, _| {
            Err(format!("it was to be cut off behind {to}, but {zxid} is there"))
        })
        .expect("a log that was just cut is sound");
        let mut database = rebuild.database;
        database.sessions.restart_clocks(self.open.now);
        Did::Storage(StorageEvent::Rebuilt(Box::new(Rebuilt {
            database,
            log_start: found.start,
            zxid_snapshot: rebuild.zxid_snapshot,
            entry_count: rebuild.entry_count,
        })))
    }

    /// A failure is told once; what still comes of that snapshot is passed over.
    fn failed(&mut self, disk: &mut Disk) -> Did {
        self.installs = None;
        let zxid = self.snapshot.take().expect("a snapshot under way");
        for name in [snapshot_name(zxid), manifest_name(zxid)] {
            let temporary = format!("{name}{TEMPORARY}");
            if disk.exists(&temporary) {
                disk.remove(&temporary);
            }
        }
        Did::Snapshot(SnapshotEvent::Failed { zxid, reason: "no space left on the disk".into() })
    }

    /// Gives a whole snapshot its name, then its manifest. One that is there already stays: a crash between two renames could cost both.
    fn publish(&self, disk: &mut Disk, zxid: Zxid) {
        let (name, manifest_name) = (snapshot_name(zxid), manifest_name(zxid));
        let (temporary, manifest_temporary) =
            (format!("{name}{TEMPORARY}"), format!("{manifest_name}{TEMPORARY}"));
        if let Ok(there) = manifest_of(disk, self.identity, zxid) {
            if self.installs.is_none() {
                disk.remove(&temporary);
                disk.remove(&manifest_temporary);
                return;
            }
            let new = Manifest::decode(disk.read(&manifest_temporary).expect("just written"))
                .expect("just written");
            let state =
                |manifest: &Manifest| (manifest.tree_digest, manifest.counts.nodes, manifest.counts.sessions);
            if state(&there) == state(&new) && load_snapshot(disk, zxid, &there, self.open).is_ok() {
                disk.remove(&temporary);
                let manifest = Manifest { segment_first: new.segment_first, ..there }.encode();
                disk.create(&manifest_temporary)
                    .and_then(|()| disk.append(&manifest_temporary, &manifest))
                    .ok();
                disk.sync(&manifest_temporary);
                disk.rename(&manifest_temporary, &manifest_name);
                return;
            }
        }
        disk.rename(&temporary, &name);
        disk.sync_names();
        disk.rename(&manifest_temporary, &manifest_name);
    }

    fn prepare(&self, disk: &mut Disk, id: SegmentId) -> Result<(), Full> {
        let spare = disk
            .names()
            .find(|name| name.starts_with("spare."))
            .filter(|name| {
                disk.read(name).is_some_and(|bytes| bytes.len() == self.writer.segment_bytes as usize)
            })
            .map(str::to_owned);
        if let Some(spare) = spare {
            disk.rename(&spare, &segment_name(id));
            return Ok(());
        }
        let temporary = format!("{}{TEMPORARY}", segment_name(id));
        disk.create(&temporary)?;
        disk.append(&temporary, &vec![0; self.writer.segment_bytes as usize])?;
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
        all.into_iter().filter(|zxid| *zxid < oldest).for_each(|zxid| remove_snapshot(disk, zxid));
        oldest
    }
}
