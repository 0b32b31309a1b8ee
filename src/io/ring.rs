//! The log's own ring: direct writes from registered buffers into registered files, durable each by itself
//! (`RWF_DSYNC`), which measured better than any use of a ring fsync.
//!
//! Its completions come as task work of the owning thread, run only when that thread asks; an eventfd tells the core's
//! runtime that asking is worth it. A buffer lent to the kernel stays with its write until the completion: dropping
//! the ring waits for all of them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use io_uring::{IoUring, opcode, types};
use slab::Slab;

use super::buf::{AlignedBuf, BLOCK_BYTES};
use super::sys::EventFd;
use super::writer::{FILES_MAX, FileKey, Files, IN_FLIGHT_MAX, Write, WriteFailure, Written};

/// Registered buffers: as large as a batch of the log may be, and more than are ever in flight. 1 MiB of memlock.
const BUFFER_COUNT: usize = 4;
const BUFFER_BYTES: usize = 256 * 1024;
/// Submission slots; completions have twice as many, so that neither can run over.
const ENTRIES: u32 = 64;
const _: () = assert!(IN_FLIGHT_MAX <= ENTRIES as usize);
/// How often the kernel may say "busy" to one submission before it counts as a failure.
const BUSY_RETRIES_MAX: usize = 1000;

/// Writes with io_uring. Belongs to the thread that made it.
pub struct LogRing {
    ring: IoUring,
    /// All lent to the kernel for good if `buffers_registered`.
    buffers: Vec<AlignedBuf>,
    buffers_free: Vec<u16>,
    buffers_registered: bool,
    files: Files<File>,
    files_registered: bool,
    writes: Slab<InFlight>,
    event: EventFd,
    sync: bool,
}

/// A write the kernel has, or had in part.
struct InFlight {
    token: u64,
    file_index: usize,
    offset_bytes: u64,
    /// What is durable so far, a multiple of the block size while the write goes on.
    done_bytes: usize,
    memory: Memory,
    spent: Vec<u8>,
}

enum Memory {
    /// Index into `LogRing::buffers`.
    Shared(u16),
    /// For what does not fit there.
    Own(AlignedBuf),
}

/// Whether a ring of the needed kind can be made here at all.
pub fn available() -> io::Result<()> {
    build(2).map(drop)
}

fn build(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    builder.build(entries)
}

impl LogRing {
    pub(super) fn new(sync: bool) -> io::Result<LogRing> {
        let ring = build(ENTRIES)?;
        let event = EventFd::new()?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let mut buffers: Vec<AlignedBuf> =
            (0..BUFFER_COUNT).map(|_| AlignedBuf::zeroed(BUFFER_BYTES)).collect();
        let vectors: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() })
            .collect();
        // SAFETY: each vector is the whole of one buffer. The buffers live in `self.buffers`, which never changes,
        // and `Drop` waits for the kernel before they are freed.
        let registered = unsafe { ring.submitter().register_buffers(&vectors) };
        let buffers_registered = match registered {
            Ok(()) => true,
            // A small memlock limit; the same writes go through unregistered memory, a few µs dearer.
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => false,
            Err(e) => return Err(e),
        };
        let files_registered = ring.submitter().register_files_sparse(FILES_MAX as u32).is_ok();
        Ok(LogRing {
            ring,
            buffers,
            buffers_free: (0..BUFFER_COUNT as u16).rev().collect(),
            buffers_registered,
            files: Files::new(),
            files_registered,
            writes: Slab::with_capacity(IN_FLIGHT_MAX),
            event,
            sync,
        })
    }

    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    pub(super) fn in_flight(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn add_file(&mut self, key: FileKey, file: File, path: PathBuf) -> io::Result<()> {
        let fd = file.as_raw_fd();
        let index = self.files.add(key, file, path);
        if self.files_registered {
            self.ring.submitter().register_files_update(index as u32, &[fd])?;
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, key: FileKey) -> io::Result<()> {
        if let Some(index) = self.files.remove(key)
            && self.files_registered
        {
            self.ring.submitter().register_files_update(index as u32, &[-1])?;
        }
        Ok(())
    }

    pub(super) fn submit(&mut self, write: Write) {
        let file_index =
            self.files.index(write.file).unwrap_or_else(|| panic!("{:?} is not open", write.file));
        self.files.get(file_index).writes += 1;
        let small = write.bytes.len() <= BUFFER_BYTES;
        let memory = match self.buffers_free.pop_if(|_| small) {
            Some(index) => {
                self.buffers[usize::from(index)][..write.bytes.len()].copy_from_slice(&write.bytes);
                Memory::Shared(index)
            }
            None => {
                let mut own = AlignedBuf::zeroed(write.bytes.len());
                own.copy_from_slice(&write.bytes);
                Memory::Own(own)
            }
        };
        let key = self.writes.insert(InFlight {
            token: write.token,
            file_index,
            offset_bytes: write.offset_bytes,
            done_bytes: 0,
            memory,
            spent: write.bytes,
        });
        self.push(key);
    }

    /// Queues what is left of a write.
    fn push(&mut self, key: usize) {
        let write = &self.writes[key];
        let (start, left_bytes) = (write.done_bytes, write.spent.len() - write.done_bytes);
        let offset = write.offset_bytes + start as u64;
        let flags = if self.sync { libc::RWF_DSYNC } else { 0 };
        let (bytes, buffer_index) = match &write.memory {
            Memory::Shared(index) => (
                &self.buffers[usize::from(*index)][start..start + left_bytes],
                self.buffers_registered.then_some(*index),
            ),
            Memory::Own(own) => (&own[start..start + left_bytes], None),
        };
        let (pointer, len) = (bytes.as_ptr(), u32::try_from(left_bytes).expect("a log write is below 4 GiB"));
        let fixed = types::Fixed(write.file_index as u32);
        let plain = types::Fd(self.files.get(write.file_index).file.as_raw_fd());
        let entry = match (buffer_index, self.files_registered) {
            (Some(b), true) => {
                opcode::WriteFixed::new(fixed, pointer, len, b).offset(offset).rw_flags(flags).build()
            }
            (Some(b), false) => {
                opcode::WriteFixed::new(plain, pointer, len, b).offset(offset).rw_flags(flags).build()
            }
            (None, true) => opcode::Write::new(fixed, pointer, len).offset(offset).rw_flags(flags).build(),
            (None, false) => opcode::Write::new(plain, pointer, len).offset(offset).rw_flags(flags).build(),
        };
        let entry = entry.user_data(key as u64);
        // SAFETY: the bytes are part of a shared buffer that is not in `buffers_free`, or of memory this write owns;
        // `self.writes` keeps either until `complete` sees the completion, and neither is written to before that.
        // The file stays open as long as its `writes` count is not zero.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("fewer writes are under way than the ring has slots");
    }

    pub(super) fn flush(&mut self) -> Result<(), WriteFailure> {
        self.enter().map_err(|source| self.failure_of_all(source))
    }

    fn enter(&mut self) -> io::Result<()> {
        let mut busy = 0;
        loop {
            match self.ring.submit() {
                Ok(_) if self.ring.submission().is_empty() => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if !matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => return Err(e),
                Err(e) if busy == BUSY_RETRIES_MAX => return Err(e),
                Err(_) => std::thread::yield_now(),
            }
            busy += 1;
            assert!(busy <= 2 * BUSY_RETRIES_MAX, "the kernel takes no submissions and gives no reason");
        }
    }

    pub(super) fn reap(&mut self, into: &mut Vec<Written>) -> Result<(), WriteFailure> {
        if self.writes.is_empty() {
            return Ok(());
        }
        if self.ring.submission().taskrun() {
            self.flush()?;
        }
        let mut resubmitted = false;
        while let Some((key, result)) = self.next_completion() {
            resubmitted |= self.complete(key, result, into)?;
        }
        if resubmitted { self.flush() } else { Ok(()) }
    }

    /// The write and the result of the next completion.
    fn next_completion(&mut self) -> Option<(usize, i32)> {
        let entry = self.ring.completion().next()?;
        Some((usize::try_from(entry.user_data()).expect("our own key"), entry.result()))
    }

    /// True if a rest had to be queued again.
    fn complete(&mut self, key: usize, result: i32, into: &mut Vec<Written>) -> Result<bool, WriteFailure> {
        let write = &mut self.writes[key];
        let Ok(count) = usize::try_from(result) else {
            return Err(self.finish_failed(key, io::Error::from_raw_os_error(-result)));
        };
        let left_bytes = write.spent.len() - write.done_bytes;
        assert!(count <= left_bytes, "the kernel wrote {count} bytes of {left_bytes}");
        if count == left_bytes {
            into.push(self.finish(key));
            return Ok(false);
        }
        if count < BLOCK_BYTES {
            let reason = format!("the device takes only {count} of {left_bytes} bytes");
            return Err(self.finish_failed(key, io::Error::new(io::ErrorKind::WriteZero, reason)));
        }
        // The rest must start on a block again; what the kernel wrote beyond that is written twice.
        write.done_bytes += count / BLOCK_BYTES * BLOCK_BYTES;
        self.push(key);
        Ok(true)
    }

    fn finish(&mut self, key: usize) -> Written {
        let write = self.writes.remove(key);
        self.files.get(write.file_index).writes -= 1;
        if let Memory::Shared(index) = write.memory {
            self.buffers_free.push(index);
        }
        Written { token: write.token, spent: write.spent }
    }

    fn finish_failed(&mut self, key: usize, source: io::Error) -> WriteFailure {
        let write = &self.writes[key];
        let (offset_bytes, len_bytes) = (write.offset_bytes, write.spent.len());
        let path = self.files.get(write.file_index).path.to_path_buf();
        self.finish(key);
        WriteFailure { path, offset_bytes, len_bytes, source }
    }

    /// The ring itself failed: told as the failure of the oldest write under way.
    fn failure_of_all(&mut self, source: io::Error) -> WriteFailure {
        let first = self.writes.iter().next().map(|(_, w)| (w.file_index, w.offset_bytes, w.spent.len()));
        let (index, offset_bytes, len_bytes) = first.expect("only called with writes under way");
        WriteFailure { path: self.files.get(index).path.to_path_buf(), offset_bytes, len_bytes, source }
    }
}

impl Drop for LogRing {
    fn drop(&mut self) {
        // Entries that were never handed over are handed over now: they hold no one's memory hostage then.
        while !self.writes.is_empty() {
            let waited = self.ring.submit_and_wait(1);
            if waited.is_err_and(|e| e.kind() != io::ErrorKind::Interrupted) {
                // The kernel may still read the buffers, so they are never freed.
                std::mem::forget(std::mem::take(&mut self.buffers));
                std::mem::forget(std::mem::take(&mut self.writes));
                return;
            }
            while let Some((key, _)) = self.next_completion() {
                self.finish(key);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_is_finished_before_it_is_reported() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("segment");
        std::fs::write(&path, vec![0; 1 << 16]).expect("a file");
        let Ok(mut ring) = LogRing::new(true) else { return };
        let file = File::options().write(true).open(&path).expect("opens");
        ring.add_file(FileKey(1), file, path.clone()).expect("added");
        ring.submit(Write {
            token: 9,
            file: FileKey(1),
            offset_bytes: 4096,
            bytes: vec![3; 3 * BLOCK_BYTES],
        });
        ring.flush().expect("handed over");
        ring.ring.submit_and_wait(1).expect("completes");
        let (key, result) = ring.next_completion().expect("a completion");
        assert_eq!(result, 3 * 4096);
        // As if the kernel had stopped in the second block.
        let mut done = Vec::new();
        assert!(ring.complete(key, 5000, &mut done).expect("goes on"), "the rest is queued");
        assert_eq!(ring.writes[key].done_bytes, 4096);
        assert!(done.is_empty());
        ring.flush().expect("handed over");
        ring.ring.submit_and_wait(1).expect("completes");
        ring.reap(&mut done).expect("durable");
        assert_eq!((done.len(), done[0].token), (1, 9));
        let content = std::fs::read(&path).expect("readable");
        assert!(content[4096..4 * 4096].iter().all(|&b| b == 3));
        assert_eq!(ring.buffers_free.len(), BUFFER_COUNT);
    }

    #[test]
    fn a_write_that_makes_no_progress_fails() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("segment");
        std::fs::write(&path, vec![0; 1 << 16]).expect("a file");
        let Ok(mut ring) = LogRing::new(true) else { return };
        let file = File::options().write(true).open(&path).expect("opens");
        ring.add_file(FileKey(1), file, path).expect("added");
        ring.submit(Write { token: 9, file: FileKey(1), offset_bytes: 0, bytes: vec![3; 4096] });
        ring.flush().expect("handed over");
        ring.ring.submit_and_wait(1).expect("completes");
        let (key, _) = ring.next_completion().expect("a completion");
        let failure = ring.complete(key, 0, &mut Vec::new()).expect_err("no progress");
        assert_eq!(failure.source.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn dropping_the_ring_waits_for_its_writes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("segment");
        std::fs::write(&path, vec![0; 1 << 20]).expect("a file");
        let Ok(mut ring) = LogRing::new(true) else { return };
        let file = File::options().write(true).open(&path).expect("opens");
        ring.add_file(FileKey(1), file, path.clone()).expect("added");
        for i in 0..6 {
            ring.submit(Write { token: i, file: FileKey(1), offset_bytes: i * 4096, bytes: vec![5; 4096] });
        }
        drop(ring);
        assert!(std::fs::read(&path).expect("readable")[..6 * 4096].iter().all(|&b| b == 5));
    }
}
