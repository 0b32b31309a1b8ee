//! The audit log's file. A thread writes it; nothing is lost while the disk takes it, so who tells faster than it is
//! written waits.
//!
//! The file is `zookeeper_audit.log` and its lines begin with time, level and `audit.Slf4jAuditLogger:`, as ZooKeeper's
//! own configuration has them; ten older files of ten megabytes are kept. Source: ZooKeeper `conf/logback.xml`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::io::sys;
use crate::request::audit::AuditLine;
use crate::words::date::Date;

/// Lines on their way to the thread.
const LINES_MAX: usize = 16_384;
/// Bytes of the file after which the next one is begun.
const FILE_BYTES_MAX: u64 = 10 << 20;
/// Older files kept.
const FILES_MAX: u32 = 10;
const NICE: i32 = 5;
/// How long the end of the process waits for the last lines.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Where lines are told. Clones share the file.
#[derive(Clone)]
pub(super) struct Audit(SyncSender<Message>);

enum Message {
    Line {
        line: AuditLine,
        wall_ms: i64,
    },
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl Audit {
    /// Opens the file and begins to write it.
    pub(super) fn start(path: &Path) -> io::Result<Audit> {
        Audit::with_limits(path, FILE_BYTES_MAX, FILES_MAX)
    }

    fn with_limits(path: &Path, bytes_max: u64, files_max: u32) -> io::Result<Audit> {
        let mut log = AuditFile::open(path, bytes_max, files_max)?;
        let (tell, told) = sync_channel(LINES_MAX);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            sys::lower_thread_priority(NICE);
            log.write_all(&told);
        })?;
        Ok(Audit(tell))
    }

    /// Tells a line, in the order of the calls.
    pub(super) fn tell(&self, line: AuditLine) {
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        // The thread ends only with the last of us.
        let _ = self.0.send(Message::Line { line, wall_ms });
    }

    /// Waits until all that was told is written; not forever.
    pub(super) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.0.send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_WAIT);
        }
    }
}

struct AuditFile {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    bytes_max: u64,
    files_max: u32,
    /// A failure was told and nothing has been written since.
    failing: bool,
}

impl AuditFile {
    fn open(path: &Path, bytes_max: u64, files_max: u32) -> io::Result<AuditFile> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        let (path, file) = (path.to_owned(), BufWriter::new(file));
        Ok(AuditFile { path, file, bytes, bytes_max, files_max, failing: false })
    }

    /// Until nobody can tell any more.
    fn write_all(&mut self, told: &Receiver<Message>) {
        while let Ok(first) = told.recv() {
            let mut flushed = Vec::new();
            let mut written = Ok(());
            // What has piled up leaves as one.
            for message in std::iter::once(first).chain(told.try_iter().take(LINES_MAX)) {
                match message {
                    Message::Line { line, wall_ms } => {
                        written = written.and_then(|()| self.write(&line, wall_ms));
                    }
                    Message::Flush(done) => flushed.push(done),
                }
            }
            match written.and_then(|()| self.file.flush()) {
                Ok(()) => self.failing = false,
                Err(error) if !self.failing => {
                    self.failing = true;
                    tracing::error!("the audit log {} loses lines: {error}", self.path.display());
                }
                Err(_) => {}
            }
            for done in flushed {
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, line: &AuditLine, wall_ms: i64) -> io::Result<()> {
        let level = if line.failed { "ERROR" } else { "INFO" };
        let time = Date::of_ms(wall_ms).log();
        let line = format!("{time} {level} audit.Slf4jAuditLogger: {}\n", line.text);
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// `.1` is the newest of the older files.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.files_max).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(1))?;
        let AuditFile { file, .. } = AuditFile::open(&self.path, self.bytes_max, self.files_max)?;
        self.file = file;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: String) -> AuditLine {
        AuditLine { text, failed: false }
    }

    #[test]
    fn lines_are_kept_in_order_and_files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/audit.log");
        let audit = Audit::with_limits(&path, 1000, 3).unwrap();
        for number in 0..200 {
            audit.tell(line(format!("number={number}")));
        }
        audit.tell(AuditLine { text: "last=1".into(), failed: true });
        audit.flush();
        let mut names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]);
        let text: String = ["audit.log.3", "audit.log.2", "audit.log.1", "audit.log"]
            .map(|name| fs::read_to_string(path.with_file_name(name)).unwrap())
            .concat();
        let numbers: Vec<u32> =
            text.lines().filter_map(|line| line.split_once("number=")?.1.parse().ok()).collect();
        assert!(
            numbers.windows(2).all(|two| two[0] + 1 == two[1]) && numbers.last() == Some(&199),
            "{numbers:?}"
        );
        let last = text.lines().last().unwrap();
        assert!(last.ends_with(" ERROR audit.Slf4jAuditLogger: last=1"), "{last}");
        assert!(text.lines().next().unwrap().contains(" INFO audit.Slf4jAuditLogger: number="));
        // It goes on where it was.
        let audit = Audit::start(&path).unwrap();
        audit.tell(line("again=1".into()));
        audit.flush();
        assert!(fs::read_to_string(&path).unwrap().contains("last=1\n"));
    }
}
