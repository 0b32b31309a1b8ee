//! What the log's device can do, found out by trying: direct I/O, and what a durable write costs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::buf::{AlignedBuf, BLOCK_BYTES};
use super::ring;

/// Rounds of each kind of write that are timed.
const PROBE_ROUNDS_MAX: usize = 24;
/// A slow device is not asked for longer than this, but at least [`PROBE_ROUNDS_MIN`] times.
const PROBE_TIME_MAX: Duration = Duration::from_millis(150);
const PROBE_ROUNDS_MIN: usize = 3;
/// A device that promises durability faster than this is either very good or not telling the truth.
pub const SUSPICIOUSLY_FAST: Duration = Duration::from_micros(5);
/// Above this every write waits noticeably.
pub const SUSPICIOUSLY_SLOW: Duration = Duration::from_millis(20);

/// How log writes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// O_DIRECT from aligned buffers, through a ring of its own.
    RingDirect,
    /// `pwrite` and `fdatasync` on a helper thread.
    ThreadBuffered,
}

impl WriteMode {
    /// Opens a log file for writing in this mode. The file exists, with all its blocks written.
    pub fn open(self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true);
        if self == WriteMode::RingDirect {
            options.custom_flags(libc::O_DIRECT);
        }
        options.open(path)
    }
}

impl std::fmt::Display for WriteMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WriteMode::RingDirect => "direct, by io_uring",
            WriteMode::ThreadBuffered => "buffered, by pwrite and fdatasync on a thread",
        })
    }
}

/// What [`probe`] found.
#[derive(Debug)]
pub struct Report {
    pub mode: WriteMode,
    /// Why it is not [`WriteMode::RingDirect`], if it is not.
    pub fallback_reason: Option<String>,
    /// Median of a 4 KiB O_DSYNC write over written blocks; `None` if not timed.
    pub write_dsync: Option<Duration>,
    /// Median of a 4 KiB write and an fdatasync.
    pub write_fdatasync: Option<Duration>,
}

/// Tries `directory`'s device. `ring_allowed` is false where the operator forbids io_uring; `timed` is false where
/// nothing will be synced anyway.
///
/// # Errors
/// If not even plain files can be written there.
pub fn probe(directory: &Path, ring_allowed: bool, timed: bool) -> io::Result<Report> {
    let file = ProbeFile::new(directory)?;
    let direct = direct_works(&file.path);
    let fallback_reason = if !ring_allowed {
        Some("io_uring is switched off".to_owned())
    } else if let Err(error) = ring::available() {
        Some(format!("io_uring cannot be used: {error}"))
    } else {
        direct
            .as_ref()
            .err()
            .map(|error| format!("O_DIRECT cannot be used in {}: {error}", directory.display()))
    };
    let mut report = Report {
        mode: if fallback_reason.is_none() { WriteMode::RingDirect } else { WriteMode::ThreadBuffered },
        fallback_reason,
        write_dsync: None,
        write_fdatasync: None,
    };
    if timed {
        let flags = if direct.is_ok() { libc::O_DIRECT } else { 0 };
        let dsync = OpenOptions::new().write(true).custom_flags(flags | libc::O_DSYNC).open(&file.path)?;
        report.write_dsync = Some(median_write(&dsync, |_| Ok(()))?);
        let plain = OpenOptions::new().write(true).custom_flags(flags).open(&file.path)?;
        report.write_fdatasync = Some(median_write(&plain, File::sync_data)?);
    }
    Ok(report)
}

/// A file of written zeros that is gone when dropped.
struct ProbeFile {
    path: PathBuf,
}

impl ProbeFile {
    const LEN_BYTES: usize = 16 * BLOCK_BYTES;

    fn new(directory: &Path) -> io::Result<ProbeFile> {
        let path = directory.join(format!(".probe-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let probe = ProbeFile { path };
        file.write_all_at(&[0; ProbeFile::LEN_BYTES], 0)?;
        file.sync_all()?;
        Ok(probe)
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        // A left-over probe is overwritten by the next start of the same process id; nothing reads it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a block past the cache and reads it back the same way. Some file systems open with O_DIRECT and fail later.
fn direct_works(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut written = AlignedBuf::zeroed(BLOCK_BYTES);
    for (i, byte) in written.iter_mut().enumerate() {
        *byte = (i * 31 + 7) as u8;
    }
    let mut read = AlignedBuf::zeroed(BLOCK_BYTES);
    file.write_all_at(&written, BLOCK_BYTES as u64)?;
    file.read_exact_at(&mut read, BLOCK_BYTES as u64)?;
    if *read != *written {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what was written is not what was read back"));
    }
    Ok(())
}

fn median_write(file: &File, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<Duration> {
    let block = AlignedBuf::zeroed(BLOCK_BYTES);
    let mut times = Vec::with_capacity(PROBE_ROUNDS_MAX);
    let start = Instant::now();
    for round in 0..PROBE_ROUNDS_MAX {
        if round >= PROBE_ROUNDS_MIN && start.elapsed() > PROBE_TIME_MAX {
            break;
        }
        let before = Instant::now();
        let index = round % (ProbeFile::LEN_BYTES / BLOCK_BYTES);
        file.write_all_at(&block, (index * BLOCK_BYTES) as u64)?;
        sync(file)?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn probes_a_directory_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let report = probe(directory.path(), true, true).expect("a writable directory");
        assert!(report.write_dsync.is_some() && report.write_fdatasync.is_some());
        assert_eq!(report.fallback_reason.is_none(), report.mode == WriteMode::RingDirect);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_forbidden_ring_means_the_thread() {
        let directory = tempfile::tempdir().expect("a directory");
        let report = probe(directory.path(), false, false).expect("a writable directory");
        assert_eq!(report.mode, WriteMode::ThreadBuffered);
        assert_eq!(report.fallback_reason.as_deref(), Some("io_uring is switched off"));
        assert_eq!(report.write_dsync, None);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(probe(Path::new("/proc/no-such-place"), true, true).is_err());
    }
}
