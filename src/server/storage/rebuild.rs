//! Going back to an earlier state, and reading the log beside a running server.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::server::storage::files::sync_dir;
use crate::server::storage::{DigestCheck, Files, Restore, SegmentReader, StorageError};
use crate::txnlog::recover::Base;
use crate::txnlog::{self, LogRange, LogRead, SegmentWork, Start, Writer, WriterOptions};
use crate::types::{Instant, Zxid};

/// A state that was gone back to.
#[derive(Debug)]
pub struct WentBack {
    pub log_start: Start,
    pub snapshot: Zxid,
    pub entry_count: u64,
}

/// Why a state was not gone back to.
#[derive(Debug)]
pub enum RebuildError {
    /// It cannot be had from what is here. Nothing was changed.
    Cannot(String),
    /// A file could not be changed; the directory is as sound as after a crash.
    Failed(StorageError),
}

impl Files {
    /// Brings the state of `to` into `restore` and makes it the last one: snapshots that are newer go, then the log is cut (O6).
    ///
    /// Nothing else may write to the log or to a snapshot meanwhile.
    pub fn rebuild(
        &self,
        to: Zxid,
        writer: WriterOptions,
        restore: &mut dyn Restore,
    ) -> Result<WentBack, RebuildError> {
        let cannot = |error: &dyn std::fmt::Display| RebuildError::Cannot(error.to_string());
        let mut warnings = Vec::new();
        let (manifest, _) =
            self.load_newest(restore, Some(to), &mut warnings).map_err(|error| cannot(&error))?;
        restore.loaded(manifest.zxid, None).map_err(RebuildError::Cannot)?;
        let base = Base {
            segment_first: self.segment_first,
            until: Some(to),
            ..Base::new(self.identity(), manifest.zxid)
        };
        let read = txnlog::recover(
            &self.segments().map_err(RebuildError::Failed)?,
            &mut SegmentReader::new(self),
            base,
            &mut |zxid, entry| match restore.apply(zxid, entry)? {
                DigestCheck::Differs { .. } => {
                    Err("the tree's digest after it is not what the log says".into())
                }
                DigestCheck::Skipped | DigestCheck::Same => Ok(()),
            },
        )
        .map_err(|error| cannot(&error))?;
        if read.start.zxid_last != to {
            return Err(cannot(&format!("the log does not hold {to}, only {}", read.start.zxid_last)));
        }
        let entry_count = read.entry_count;
        let log_start = self.cut(to, writer, read).map_err(RebuildError::Failed)?;
        Ok(WentBack { log_start, snapshot: manifest.zxid, entry_count })
    }

    /// After this, recovery ends at `to`, which it has just read.
    fn cut(&self, to: Zxid, options: WriterOptions, read: txnlog::Recovered) -> Result<Start, StorageError> {
        // First: a snapshot beyond the end of the log would look like a loss.
        self.remove_snapshots(|info| info.zxid > to)?;
        let dir = self.snapshot_dir();
        sync_dir(dir).map_err(StorageError::io("sync directory", dir))?;
        if read.zxid_end > to {
            for segment in &read.start.live {
                self.sync_segment(segment.id)?;
            }
            let mut writer = Writer::new(options, Start { zxid_last: read.zxid_end, ..read.start });
            writer.truncate(to);
            let mut work = Vec::new();
            writer.drain_work(&mut work);
            let segment = work.iter().find_map(|work| match work {
                SegmentWork::Prepare(id) => Some(*id),
                SegmentWork::Retire(_) => None,
            });
            let segment = segment.expect("a writer asks for the segment it begins with");
            self.prepare_segment(segment, options.segment_bytes)?;
            writer.segment_ready(segment);
            let path = self.segment_path(segment);
            let io = |what| StorageError::io(what, &path);
            let file = fs::OpenOptions::new().write(true).open(&path).map_err(io("open"))?;
            while writer.is_cutting() {
                let write = writer.next_write(Instant::default()).expect("a cut is written at once");
                assert_eq!(write.segment, segment);
                file.write_all_at(&write.bytes, write.offset_bytes).map_err(io("write"))?;
                file.sync_all().map_err(io("sync"))?;
                writer.written(write.id, write.bytes);
            }
        }
        // As a start would find it.
        let base = Base { segment_first: self.segment_first, ..Base::new(self.identity(), to) };
        let log_error = |error| StorageError::Log { dir: self.log_dir().to_owned(), error };
        let found =
            txnlog::recover(&self.segments()?, &mut SegmentReader::new(self), base, &mut |zxid, _| {
                Err(format!("it was to be cut off behind {to}, but {zxid} is there"))
            })
            .map_err(log_error)?;
        assert_eq!(found.start.zxid_last, to, "the log was cut");
        Ok(found.start)
    }

    /// Reads a part of the log, also while it is written to.
    pub fn read_log(&self, range: LogRange) -> Result<LogRead, String> {
        let segments = self.segments().map_err(|error| error.to_string())?;
        let mut source = SegmentReader::new(self);
        txnlog::read_range(&segments, &mut source, self.identity(), self.segment_first, range)
            .map_err(|error| error.to_string())
    }
}
