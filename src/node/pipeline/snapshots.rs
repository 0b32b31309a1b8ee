//! When snapshots are taken, and how they get out in slices while writes go on.
//!
//! The tree keeps an exact image of the moment a snapshot began; each turn hands out a slice of it. At most [`PARTS_MAX`] parts are
//! on their way to the disk, so a slow disk holds the snapshot up and never the pipeline.

use std::time::Duration;

use super::{Output, PipelineOptions};
use crate::request::Database;
use crate::snapshot::{SnapshotEvent, SnapshotWork, Writer};
use crate::stdx::rng::Rng;
use crate::txnlog::SegmentId;
use crate::types::{Instant, Zxid};

/// Nodes handed out in one turn: some tens of microseconds.
const NODES_PER_TURN: usize = 128;
/// The same while nobody is served.
const NODES_PER_TURN_UNSERVED: usize = 4096;
/// Bytes of one part.
const PART_BYTES: usize = 256 << 10;
/// Parts handed out and not yet written.
const PARTS_MAX: usize = 4;
/// After a failed snapshot the next one waits for this long.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How a snapshot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Verified. The log up to `log_from` is not needed any more, not even by the oldest snapshot kept.
    Done {
        log_from: Zxid,
        took: Duration,
        /// It is the only one that is left.
        is_install: bool,
    },
    Failed,
}

/// The snapshots of a running server.
#[derive(Debug)]
pub struct Snapshots {
    /// `snapCount` and `snapSizeLimitInKb`; each snapshot comes at a random point in the upper half, so that the servers of an
    /// ensemble do not all write theirs at once. Source: ZooKeeper `SyncRequestProcessor#shouldSnapshot`.
    entries_max: u64,
    bytes_max: Option<u64>,
    entries_due: u64,
    bytes_due: Option<u64>,
    entries: u64,
    bytes: u64,
    rng: Rng,
    identity: u64,
    digest: bool,
    /// The newest verified one.
    zxid_last: Zxid,
    not_before: Instant,
    running: Option<Running>,
    /// Snapshots given up whose last word has not come: until then nothing that comes is of the one under way.
    abandoned: u32,
    /// Questions that wait for a snapshot, each with the zxid it has to reach.
    asked: Vec<(u64, Zxid)>,
    /// How they ended.
    told: Vec<(u64, Result<Zxid, String>)>,
}

struct Running {
    zxid: Zxid,
    /// No other snapshot stays beside it, and nobody is served before it is done.
    is_install: bool,
    began: Instant,
    /// `None` once everything is handed out.
    writer: Option<Writer>,
    slice: Vec<u8>,
    tree_digest: Option<u64>,
    parts_in_flight: usize,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("zxid", &self.zxid)
            .field("parts_in_flight", &self.parts_in_flight)
            .finish()
    }
}

impl Snapshots {
    /// `zxid_last` is that of the newest verified snapshot at the start, `entries` what the log holds beyond it.
    pub fn new(options: &PipelineOptions, zxid_last: Zxid, entries: u64) -> Snapshots {
        let mut snapshots = Snapshots {
            entries_max: options.snap_count,
            bytes_max: options.snap_bytes_max,
            entries_due: 0,
            bytes_due: None,
            entries,
            bytes: 0,
            rng: Rng::new(options.seed),
            identity: options.identity,
            digest: options.prepare.digest,
            zxid_last,
            not_before: Instant::default(),
            running: None,
            abandoned: 0,
            asked: Vec::new(),
            told: Vec::new(),
        };
        snapshots.draw();
        if options.startup.snapshot_advised {
            snapshots.entries_due = 1;
        }
        snapshots
    }

    /// Somebody wants a snapshot of the state as it is; [`Snapshots::take_told`] says when there is one.
    pub fn ask(&mut self, number: u64, zxid_applied: Zxid) {
        self.asked.push((number, zxid_applied));
    }

    /// Questions that have an answer: the zxid of a verified snapshot, or why there is none.
    pub fn take_told(&mut self) -> Vec<(u64, Result<Zxid, String>)> {
        std::mem::take(&mut self.told)
    }

    /// Answers whoever is content with the newest snapshot.
    fn tell_content(&mut self) {
        let newest = self.zxid_last;
        let (content, waiting) = self.asked.drain(..).partition(|(_, wanted)| *wanted <= newest);
        self.asked = waiting;
        let content: Vec<(u64, Zxid)> = content;
        self.told.extend(content.into_iter().map(|(number, _)| (number, Ok(newest))));
    }

    /// None is taken but of a state that comes from a leader.
    pub fn only_installs(&mut self) {
        (self.entries_max, self.bytes_max) = (u64::MAX, None);
        self.draw();
    }

    /// Of the one under way.
    pub fn zxid_running(&self) -> Option<Zxid> {
        self.running.as_ref().map(|running| running.zxid)
    }

    /// An entry of so many bytes went to the log.
    pub fn logged(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
    }

    /// Whether another slice could be handed out at once.
    pub fn has_more(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.writer.is_some() && running.parts_in_flight < PARTS_MAX)
    }

    /// One slice of the snapshot under way, or the beginning of one that is due.
    pub fn step(&mut self, database: &mut Database, owed: &mut Vec<Output>, now: Instant) {
        if self.running.is_none() {
            self.tell_content();
            let due = self.entries >= self.entries_due || self.bytes_due.is_some_and(|due| self.bytes >= due);
            // Who asks does so now, whatever failed before.
            let due = !self.asked.is_empty() || (due && now >= self.not_before);
            if !due || database.zxid_applied() <= self.zxid_last {
                return;
            }
            self.begin(database, owed, now, None);
        }
        if !self.has_more() {
            return;
        }
        let running = self.running.as_mut().expect("there is more");
        let writer = running.writer.as_mut().expect("there is more");
        running.slice.clear();
        let nodes_max = if running.is_install { NODES_PER_TURN_UNSERVED } else { NODES_PER_TURN };
        let done = database.tree.snapshot_step(nodes_max, &mut running.slice);
        writer.nodes(0, &running.slice);
        if done {
            let (last, manifest) = running.writer.take().expect("there is more").finish(running.tree_digest);
            running.parts_in_flight += 1;
            owed.push(Output::Snapshot(SnapshotWork::Part(last)));
            owed.push(Output::Snapshot(SnapshotWork::End { manifest: manifest.encode() }));
        } else if writer.ready_bytes() >= PART_BYTES {
            running.parts_in_flight += 1;
            owed.push(Output::Snapshot(SnapshotWork::Part(writer.take())));
        }
    }

    /// What the shell says of the snapshot under way.
    pub fn event(&mut self, event: SnapshotEvent, database: &mut Database, now: Instant) -> Option<Ended> {
        if event == SnapshotEvent::Abandoned {
            self.abandoned = self.abandoned.checked_sub(1).expect("only what was given up is answered so");
            return None;
        }
        if self.abandoned > 0 {
            return None;
        }
        let running = self.running.as_mut()?;
        match event {
            SnapshotEvent::Abandoned => unreachable!("answered above"),
            SnapshotEvent::PartWritten => {
                running.parts_in_flight -= 1;
                None
            }
            SnapshotEvent::Done { zxid, log_from } => {
                assert!(
                    zxid == running.zxid && running.writer.is_none(),
                    "snapshot {zxid} ended before it was handed out"
                );
                let took = now.since(running.began);
                tracing::info!(%zxid, "Snapshot taken in {} ms", took.as_millis());
                let is_install = running.is_install;
                self.running = None;
                self.zxid_last = zxid;
                self.tell_content();
                Some(Ended::Done { log_from, took, is_install })
            }
            SnapshotEvent::Failed { zxid, reason } => {
                tracing::error!(%zxid, "snapshot {zxid} failed, older ones and the log stay: {reason}");
                database.tree.snapshot_abandon();
                self.running = None;
                self.told.extend(self.asked.drain(..).map(|(number, _)| (number, Err(reason.clone()))));
                self.not_before = now + RETRY_AFTER;
                self.entries = self.entries_due;
                Some(Ended::Failed)
            }
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins the snapshot of a database that came from a leader and replaces what was there before.
    /// Of the log nothing before `segment_first` counts from then on.
    pub fn begin_install(
        &mut self,
        database: &mut Database,
        owed: &mut Vec<Output>,
        now: Instant,
        segment_first: SegmentId,
    ) {
        assert!(self.running.is_none(), "the snapshot of another database is given up first");
        self.begin(database, owed, now, Some(segment_first));
    }

    /// When a snapshot that failed may be tried again.
    pub fn not_before(&self) -> Instant {
        self.not_before
    }

    /// The state went back to an earlier one, `entries` behind the snapshot of `zxid_last`.
    pub fn rebuilt(&mut self, zxid_last: Zxid, entries: u64) {
        assert!(self.running.is_none(), "a snapshot of what is gone is given up first");
        (self.zxid_last, self.entries) = (zxid_last, entries);
        let gone = "the state that was asked for is gone";
        self.told.extend(self.asked.drain(..).map(|(number, _)| (number, Err(gone.to_owned()))));
    }

    /// Gives up the snapshot under way, as its database is given up.
    pub fn abandon(&mut self, database: &mut Database, owed: &mut Vec<Output>) {
        if self.running.take().is_some() {
            database.tree.snapshot_abandon();
            owed.push(Output::Snapshot(SnapshotWork::Abandon));
            self.abandoned += 1;
        }
    }

    fn begin(
        &mut self,
        database: &mut Database,
        owed: &mut Vec<Output>,
        now: Instant,
        install: Option<SegmentId>,
    ) {
        self.entries = 0;
        self.bytes = 0;
        self.draw();
        let zxid = database.zxid_applied();
        database.tree.snapshot_begin();
        let sessions: Vec<(crate::types::SessionId, i32)> =
            database.sessions.iter().map(|session| (session.id, session.timeout_ms_stored)).collect();
        let acls = database.tree.acls().map(|(id, list)| (i64::from(id.0), list));
        let mut writer = Writer::new(zxid, self.identity, sessions.into_iter(), acls);
        // Exactly these will come, however the tree changes meanwhile.
        writer.nodes(database.tree.node_count() as u64, &[]);
        owed.push(Output::Snapshot(match install {
            None => SnapshotWork::Begin { zxid },
            Some(segment_first) => SnapshotWork::Install { zxid, segment_first },
        }));
        self.running = Some(Running {
            zxid,
            is_install: install.is_some(),
            began: now,
            writer: Some(writer),
            slice: Vec::new(),
            tree_digest: self.digest.then(|| database.tree.digest()),
            parts_in_flight: 0,
        });
    }

    fn draw(&mut self) {
        self.entries_due = upper_half(self.entries_max, &mut self.rng);
        self.bytes_due = self.bytes_max.map(|max| upper_half(max, &mut self.rng));
    }
}

fn upper_half(max: u64, rng: &mut Rng) -> u64 {
    max / 2 + 1 + rng.below((max - max / 2).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionTable;
    use crate::tree::TreeOptions;

    /// A snapshot that was all handed out is given up for a leader's: its end is not taken for that one's.
    #[test]
    fn what_was_given_up_ends_without_a_word() {
        let mut database = Database::new(TreeOptions { hash_seed: 1 }, SessionTable::new(1000, 1));
        let mut snapshots = Snapshots {
            entries_max: 1,
            bytes_max: None,
            entries_due: 1,
            bytes_due: None,
            entries: 1,
            bytes: 0,
            rng: Rng::new(1),
            identity: 1,
            digest: false,
            zxid_last: Zxid(-1),
            not_before: Instant::default(),
            running: None,
            abandoned: 0,
            asked: Vec::new(),
            told: Vec::new(),
        };
        let now = Instant::from_ms(1);
        let mut owed = Vec::new();
        for fails in [false, true] {
            snapshots.entries = snapshots.entries_due;
            snapshots.step(&mut database, &mut owed, now);
            assert!(snapshots.is_running() && !snapshots.has_more());
            snapshots.abandon(&mut database, &mut owed);
            // Parts of two are on their way at once.
            snapshots.begin_install(&mut database, &mut owed, now, SegmentId(7));
            snapshots.step(&mut database, &mut owed, now);
            let zxid = database.zxid_applied();
            let done = || SnapshotEvent::Done { zxid, log_from: zxid };
            let of_first = match fails {
                false => vec![SnapshotEvent::PartWritten, done()],
                true => vec![SnapshotEvent::Failed { zxid, reason: "no room".into() }],
            };
            for event in of_first.into_iter().chain([SnapshotEvent::Abandoned]) {
                assert_eq!(snapshots.event(event, &mut database, now), None);
                assert!(snapshots.is_running());
            }
            assert_eq!(snapshots.event(SnapshotEvent::PartWritten, &mut database, now), None);
            let ended = snapshots.event(done(), &mut database, now);
            assert!(matches!(ended, Some(Ended::Done { is_install: true, .. })), "{ended:?}");
            assert!(!snapshots.is_running() && snapshots.abandoned == 0);
            snapshots.zxid_last = Zxid(-1);
        }
    }
}
