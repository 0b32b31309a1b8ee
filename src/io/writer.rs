//! Durable writes at given places of given files, completed in any order: by a ring of its own, or by a plain thread
//! where the ring or direct I/O is not to be had. Either way a completion makes [`DurableWriter::event`] readable.
//!
//! A write is reported only when all of it is durable. The first failure is the last word: what reached the disk is
//! unknown then, a second try proves nothing, and the owner must stop acknowledging.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::buf::BLOCK_BYTES;
use super::disk::WriteMode;
use super::ring::LogRing;
use super::sys::EventFd;

/// Writes that may be under way at once; the log has one or two.
pub const IN_FLIGHT_MAX: usize = 32;
/// Files that are kept open for writing. The log writes to one and has the next ready; older ones are closed first.
pub const FILES_MAX: usize = 8;

/// Names a file given by [`DurableWriter::add_file`]; a later file has a higher key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileKey(pub u64);

/// One write. Offset and length are multiples of [`BLOCK_BYTES`].
#[derive(Debug)]
pub struct Write {
    /// Comes back in [`Written`].
    pub token: u64,
    pub file: FileKey,
    pub offset_bytes: u64,
    pub bytes: Vec<u8>,
}

/// A write that is durable, all of it, with its bytes for reuse.
#[derive(Debug)]
pub struct Written {
    pub token: u64,
    pub spent: Vec<u8>,
}

/// A write that failed; it may be on disk in part, or not.
#[derive(Debug, thiserror::Error)]
#[error("writing {len_bytes} bytes at offset {offset_bytes} of {path} failed: {source}")]
pub struct WriteFailure {
    pub path: PathBuf,
    pub offset_bytes: u64,
    pub len_bytes: usize,
    pub source: io::Error,
}

/// The one who writes.
pub enum DurableWriter {
    Ring(Box<LogRing>),
    Thread(Box<WriterThread>),
}

impl DurableWriter {
    /// `sync` false leaves durability to the operating system's leisure (`forceSync=no`).
    /// Must be made on the thread that will use it.
    pub fn new(mode: WriteMode, sync: bool) -> io::Result<DurableWriter> {
        Ok(match mode {
            WriteMode::RingDirect => DurableWriter::Ring(Box::new(LogRing::new(sync)?)),
            WriteMode::ThreadBuffered => DurableWriter::Thread(Box::new(WriterThread::new(sync)?)),
        })
    }

    /// Makes a file, opened by [`WriteMode::open`], known. May close the file with the lowest key that is not in use.
    ///
    /// # Panics
    /// If the key is in use, or all of [`FILES_MAX`] files are being written to.
    pub fn add_file(&mut self, key: FileKey, file: File, path: PathBuf) -> io::Result<()> {
        match self {
            DurableWriter::Ring(ring) => ring.add_file(key, file, path),
            DurableWriter::Thread(thread) => {
                thread.files.add(key, file, path);
                Ok(())
            }
        }
    }

    /// Closes a file if it is open. Writes to it must have been reported.
    pub fn remove_file(&mut self, key: FileKey) -> io::Result<()> {
        match self {
            DurableWriter::Ring(ring) => ring.remove_file(key),
            DurableWriter::Thread(thread) => {
                thread.files.remove(key);
                Ok(())
            }
        }
    }

    /// Takes a write; the device may see it only after [`DurableWriter::flush`].
    ///
    /// # Panics
    /// If the file is unknown, the place is not aligned, or [`IN_FLIGHT_MAX`] writes are under way.
    pub fn submit(&mut self, write: Write) {
        assert!(
            write.offset_bytes.is_multiple_of(BLOCK_BYTES as u64),
            "offset {} is not aligned",
            write.offset_bytes
        );
        assert!(write.bytes.len().is_multiple_of(BLOCK_BYTES), "length {} is not aligned", write.bytes.len());
        assert!(!write.bytes.is_empty(), "an empty write");
        assert!(self.in_flight() < IN_FLIGHT_MAX, "more than {IN_FLIGHT_MAX} writes under way");
        match self {
            DurableWriter::Ring(ring) => ring.submit(write),
            DurableWriter::Thread(thread) => thread.submit(write),
        }
    }

    /// Hands what was submitted to the device.
    pub fn flush(&mut self) -> Result<(), WriteFailure> {
        match self {
            DurableWriter::Ring(ring) => ring.flush(),
            DurableWriter::Thread(_) => Ok(()),
        }
    }

    /// Collects what is durable by now. Cheap if nothing is under way.
    pub fn reap(&mut self, into: &mut Vec<Written>) -> Result<(), WriteFailure> {
        match self {
            DurableWriter::Ring(ring) => ring.reap(into),
            DurableWriter::Thread(thread) => thread.reap(into),
        }
    }

    /// Writes taken and not yet reported.
    pub fn in_flight(&self) -> usize {
        match self {
            DurableWriter::Ring(ring) => ring.in_flight(),
            DurableWriter::Thread(thread) => thread.in_flight,
        }
    }

    /// Becomes readable when there may be something to reap. Its watcher clears it before reaping.
    pub fn event(&self) -> &EventFd {
        match self {
            DurableWriter::Ring(ring) => ring.event(),
            DurableWriter::Thread(thread) => &thread.event,
        }
    }
}

/// The open files by key. An index stays the same while its file is open.
pub(super) struct Files<F> {
    slots: [Option<OpenFile<F>>; FILES_MAX],
}

pub(super) struct OpenFile<F> {
    pub(super) key: FileKey,
    pub(super) file: F,
    pub(super) path: Arc<Path>,
    /// Writes under way; the file stays open while there are any.
    pub(super) writes: usize,
}

impl<F: From<File>> Files<F> {
    pub(super) fn new() -> Files<F> {
        Files { slots: [const { None }; FILES_MAX] }
    }

    /// Returns the index it got.
    pub(super) fn add(&mut self, key: FileKey, file: File, path: PathBuf) -> usize {
        assert!(self.index(key).is_none(), "file {} added twice as {key:?}", path.display());
        let index = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            let idle = self.slots.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?)));
            let oldest = idle.filter(|(_, s)| s.writes == 0).min_by_key(|(_, s)| s.key);
            oldest.expect("one of the files is not being written to").0
        });
        self.slots[index] = Some(OpenFile { key, file: file.into(), path: path.into(), writes: 0 });
        index
    }

    pub(super) fn remove(&mut self, key: FileKey) -> Option<usize> {
        let index = self.index(key)?;
        let slot = self.slots[index].take().expect("just found");
        assert!(slot.writes == 0, "{} removed while being written to", slot.path.display());
        Some(index)
    }

    pub(super) fn index(&self, key: FileKey) -> Option<usize> {
        self.slots.iter().position(|s| s.as_ref().is_some_and(|s| s.key == key))
    }

    pub(super) fn get(&mut self, index: usize) -> &mut OpenFile<F> {
        self.slots[index].as_mut().expect("an open file")
    }
}

/// The fallback: one thread that writes and syncs.
pub struct WriterThread {
    jobs: Option<SyncSender<Job>>,
    results: Receiver<Result<Written, WriteFailure>>,
    event: Arc<EventFd>,
    files: Files<Arc<File>>,
    /// Which file each write under way is for, oldest first: the thread answers in order.
    under_way: VecDeque<usize>,
    in_flight: usize,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    file: Arc<File>,
    path: Arc<Path>,
    write: Write,
}

impl WriterThread {
    fn new(sync: bool) -> io::Result<WriterThread> {
        let (jobs, inbox) = sync_channel::<Job>(IN_FLIGHT_MAX);
        let (outbox, results) = sync_channel(IN_FLIGHT_MAX);
        let event = Arc::new(EventFd::new()?);
        let signal = event.clone();
        let thread = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            for job in inbox {
                let result = write_plainly(job, sync);
                let failed = result.is_err();
                // The owner is gone if nobody listens; after a failure nothing more may be written.
                let heard = outbox.send(result).is_ok();
                signal.signal();
                if failed || !heard {
                    return;
                }
            }
        })?;
        Ok(WriterThread {
            jobs: Some(jobs),
            results,
            event,
            files: Files::new(),
            under_way: VecDeque::new(),
            in_flight: 0,
            thread: Some(thread),
        })
    }

    fn submit(&mut self, write: Write) {
        let index = self.files.index(write.file).unwrap_or_else(|| panic!("{:?} is not open", write.file));
        let open = self.files.get(index);
        open.writes += 1;
        let job = Job { file: open.file.clone(), path: open.path.clone(), write };
        self.under_way.push_back(index);
        self.in_flight += 1;
        // The queue holds as many as may be under way. A thread that ended has left its failure in `results`.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }

    fn reap(&mut self, into: &mut Vec<Written>) -> Result<(), WriteFailure> {
        while self.in_flight > 0 {
            let Ok(result) = self.results.try_recv() else { break };
            let index = self.under_way.pop_front().expect("an answer is to a write");
            self.files.get(index).writes -= 1;
            self.in_flight -= 1;
            into.push(result?);
        }
        Ok(())
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn write_plainly(job: Job, sync: bool) -> Result<Written, WriteFailure> {
    let Job { file, path, write } = job;
    let written = file.write_all_at(&write.bytes, write.offset_bytes);
    let result = if sync { written.and_then(|()| file.sync_data()) } else { written };
    match result {
        Ok(()) => Ok(Written { token: write.token, spent: write.bytes }),
        Err(source) => Err(WriteFailure {
            path: path.to_path_buf(),
            offset_bytes: write.offset_bytes,
            len_bytes: write.bytes.len(),
            source,
        }),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::super::{disk, sys};
    use super::*;

    fn zeros(path: &Path, len_bytes: usize) {
        std::fs::write(path, vec![0; len_bytes]).expect("a file of zeros");
    }

    fn wait_for(writer: &mut DurableWriter, count: usize) -> Result<Vec<Written>, WriteFailure> {
        let mut done = Vec::new();
        while done.len() < count {
            sys::wait_readable(&[writer.event().as_raw_fd()], Some(Duration::from_secs(10))).expect("polls");
            assert!(writer.event().clear() > 0, "no completion within ten seconds");
            writer.reap(&mut done)?;
        }
        Ok(done)
    }

    fn modes(directory: &Path) -> Vec<WriteMode> {
        let mut modes = vec![WriteMode::ThreadBuffered];
        modes.extend(Some(disk::probe(directory, true, false).expect("writable").mode));
        modes.dedup();
        modes
    }

    fn check(directory: &Path, mode: WriteMode, sync: bool) {
        let path = directory.join(format!("segment-{mode:?}"));
        zeros(&path, 1 << 20);
        let mut writer = DurableWriter::new(mode, sync).expect("a writer");
        writer.add_file(FileKey(7), mode.open(&path).expect("opens"), path.clone()).expect("added");
        // One block, one registered buffer full, and one larger than any registered buffer.
        let sizes = [BLOCK_BYTES, 256 * 1024, 300 * 1024];
        let mut offset_bytes = 0;
        for (i, &size) in sizes.iter().enumerate() {
            let bytes = vec![i as u8 + 1; size];
            writer.submit(Write { token: i as u64, file: FileKey(7), offset_bytes, bytes });
            offset_bytes += size as u64;
        }
        assert_eq!(writer.in_flight(), 3);
        writer.flush().expect("handed over");
        let mut done = wait_for(&mut writer, 3).expect("durable");
        done.sort_by_key(|w| w.token);
        assert_eq!(writer.in_flight(), 0);
        let content = std::fs::read(&path).expect("readable");
        let mut at = 0;
        for (i, &size) in sizes.iter().enumerate() {
            assert_eq!((done[i].token, done[i].spent.len()), (i as u64, size));
            assert!(content[at..at + size].iter().all(|&b| b == i as u8 + 1), "{mode:?}, write {i}");
            at += size;
        }
        assert!(content[at..].iter().all(|&b| b == 0));
        writer.remove_file(FileKey(7)).expect("closed");
        writer.remove_file(FileKey(7)).expect("closing twice is nothing");
    }

    #[test]
    fn writes_land_where_they_should_on_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in modes(directory.path()) {
            check(directory.path(), mode, true);
            check(directory.path(), mode, false);
        }
    }

    #[test]
    fn writes_land_where_they_should_in_memory() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        for mode in modes(directory.path()) {
            check(directory.path(), mode, true);
        }
    }

    #[test]
    fn a_failed_write_names_file_and_offset() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in modes(directory.path()) {
            let path = directory.path().join("segment");
            zeros(&path, 1 << 16);
            let mut writer = DurableWriter::new(mode, true).expect("a writer");
            // Opened for reading only: the kernel refuses the write, as a dying disk would.
            let file = OpenOptions::new().read(true).open(&path).expect("opens");
            writer.add_file(FileKey(1), file, path.clone()).expect("added");
            writer.submit(Write { token: 5, file: FileKey(1), offset_bytes: 8192, bytes: vec![1; 4096] });
            let failure = match writer.flush() {
                Ok(()) => wait_for(&mut writer, 1).expect_err("must fail"),
                Err(failure) => failure,
            };
            assert_eq!((failure.offset_bytes, failure.len_bytes), (8192, 4096));
            assert_eq!(failure.path, path);
            let text = failure.to_string();
            assert!(text.contains("4096 bytes at offset 8192 of") && text.contains("segment"), "{text}");
        }
    }

    #[test]
    fn a_full_device_is_a_failure() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in modes(directory.path()) {
            let mut writer = DurableWriter::new(mode, true).expect("a writer");
            let file = OpenOptions::new().write(true).open("/dev/full").expect("opens");
            writer.add_file(FileKey(1), file, "/dev/full".into()).expect("added");
            writer.submit(Write { token: 5, file: FileKey(1), offset_bytes: 0, bytes: vec![1; 4096] });
            writer.flush().expect("handed over");
            wait_for(&mut writer, 1).expect_err("must fail");
        }
    }

    #[test]
    fn many_files_come_and_go() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in modes(directory.path()) {
            let mut writer = DurableWriter::new(mode, true).expect("a writer");
            for key in 0..3 * FILES_MAX as u64 {
                let path = directory.path().join(format!("{key}"));
                zeros(&path, 1 << 16);
                writer.add_file(FileKey(key), mode.open(&path).expect("opens"), path.clone()).expect("added");
                let bytes = vec![key as u8; 4096];
                writer.submit(Write { token: key, file: FileKey(key), offset_bytes: 4096, bytes });
                writer.flush().expect("handed over");
                wait_for(&mut writer, 1).expect("durable");
                assert_eq!(std::fs::read(&path).expect("readable")[4096], key as u8);
            }
        }
    }
}
