//! One thread beside the cores for slow file work: making segments ahead of need, writing snapshots, purging, epochs, going back to
//! an earlier state, reading the log. It is not pinned and runs at low priority, so that the data path never waits for it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use crate::io::disk::WriteMode;
use crate::io::{Bell, sys};
use crate::node::{StorageEvent, StorageWork};
use crate::snapshot::{SnapshotEvent, SnapshotWork};
use crate::txnlog::{SegmentId, SegmentWork};

/// Jobs and reports that may wait between the pipeline's core and the thread.
const QUEUE_MAX: usize = 64;
/// Jobs that may wait on the pipeline's side when the queue is full. The pipeline sends a snapshot's parts only as
/// they are written, so this is never reached by a pipeline that keeps to that.
const BACKLOG_MAX: usize = 4096;
/// How polite the thread is (`nice`).
const NICE: i32 = 10;

/// The file work itself, done on the housekeeper's thread.
pub trait Housekeeping: Send {
    /// Makes the file of a segment, or recycles one: all its blocks really written, file and directory synced.
    /// Returns its path; the shell opens it the way the log is written.
    fn prepare(&mut self, segment: SegmentId) -> io::Result<PathBuf>;
    /// The segment is not needed any more; its file may be recycled or removed.
    fn retire(&mut self, segment: SegmentId) -> io::Result<()>;
    /// The next piece of a snapshot. Failures are events, too, but for one that ends the server: it is not known whether a
    /// snapshot that replaces the history counts.
    fn snapshot(&mut self, work: SnapshotWork) -> io::Result<Option<SnapshotEvent>>;
    /// Epochs, going back, reading the log. An error ends the server.
    fn storage(&mut self, work: StorageWork) -> io::Result<StorageEvent>;
}

/// What comes back.
pub(super) enum Report {
    SegmentReady {
        segment: SegmentId,
        file: File,
        path: PathBuf,
    },
    Snapshot(SnapshotEvent),
    Storage(StorageEvent),
    /// Without a segment to write to there is no log, and what cannot be made durable cannot be promised.
    Fatal(String),
}

enum Job {
    Segment(SegmentWork),
    Snapshot(SnapshotWork),
    Storage(StorageWork),
}

/// The pipeline core's end.
pub(super) struct Housekeeper {
    jobs: SyncSender<Job>,
    backlog: VecDeque<Job>,
    reports: Receiver<Report>,
}

impl Housekeeper {
    /// Starts the thread. It ends when this is dropped, after the job it has.
    pub(super) fn start(
        mut work: Box<dyn Housekeeping>,
        mode: WriteMode,
        bell: Arc<Bell>,
    ) -> io::Result<Housekeeper> {
        let (jobs, inbox) = sync_channel::<Job>(QUEUE_MAX);
        let (outbox, reports) = sync_channel::<Report>(QUEUE_MAX);
        std::thread::Builder::new().name("housekeeper".to_owned()).spawn(move || {
            sys::lower_thread_priority(NICE);
            for job in inbox {
                let Some(report) = run(&mut *work, mode, job) else { continue };
                if outbox.send(report).is_err() {
                    return;
                }
                bell.ring_always();
            }
        })?;
        Ok(Housekeeper { jobs, backlog: VecDeque::new(), reports })
    }

    pub(super) fn segment(&mut self, work: SegmentWork) {
        self.send(Job::Segment(work));
    }

    pub(super) fn snapshot(&mut self, work: SnapshotWork) {
        self.send(Job::Snapshot(work));
    }

    pub(super) fn storage(&mut self, work: StorageWork) {
        self.send(Job::Storage(work));
    }

    fn send(&mut self, job: Job) {
        self.backlog.push_back(job);
        assert!(self.backlog.len() <= BACKLOG_MAX, "more than {BACKLOG_MAX} jobs wait for the housekeeper");
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(job) = self.backlog.pop_front() {
            match self.jobs.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    self.backlog.push_front(job);
                    return;
                }
                // `report` tells that it is gone.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    /// The next report, if one is there. Each report means that a place in the queue became free.
    pub(super) fn report(&mut self) -> Option<Report> {
        self.hand_over();
        match self.reports.try_recv() {
            Ok(report) => Some(report),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Report::Fatal("the housekeeper thread is gone".to_owned()))
            }
        }
    }
}

fn run(work: &mut dyn Housekeeping, mode: WriteMode, job: Job) -> Option<Report> {
    match job {
        Job::Segment(SegmentWork::Prepare(segment)) => {
            let prepared = work.prepare(segment).and_then(|path| Ok((mode.open(&path)?, path)));
            Some(match prepared {
                Ok((file, path)) => Report::SegmentReady { segment, file, path },
                Err(error) => Report::Fatal(format!("log segment {} cannot be prepared: {error}", segment.0)),
            })
        }
        Job::Segment(SegmentWork::Retire(segment)) => {
            if let Err(error) = work.retire(segment) {
                // An old segment left lying costs space, not safety.
                tracing::warn!(segment = segment.0, %error, "log segment cannot be retired");
            }
            None
        }
        Job::Snapshot(part) => match work.snapshot(part) {
            Ok(event) => event.map(Report::Snapshot),
            Err(error) => {
                Some(Report::Fatal(format!("a snapshot of the leader cannot be installed: {error}")))
            }
        },
        Job::Storage(job) => Some(match work.storage(job) {
            Ok(event) => Report::Storage(event),
            Err(error) => Report::Fatal(format!("the data directory failed: {error}")),
        }),
    }
}
