//! The server's own log: lines on standard output, as text like ZooKeeper's or as JSON.
//!
//! Cores do not wait for whoever reads the log: a line goes into a bounded queue, and a thread of its own writes it.
//! When the reader is too slow, lines are dropped and counted, and the count is logged. Errors are different: the
//! process may be about to end, so their line is waited for, at most [`URGENT_WAIT`].
//!
//! The thread begins with [`LogGuard::in_background`], and until then lines are written where they are made: a thread
//! that is there before the stop signals are taken over would get them in the server's stead.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::words::date::Date;

/// Lines on their way to the reader.
const LINES_MAX: usize = 8192;
/// How long an error's line is waited for.
const URGENT_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Keeps the log going; dropping it writes what is left.
#[derive(Debug)]
pub struct LogGuard {
    lines: Lines,
    receiver: Mutex<Option<Receiver<Message>>>,
}

impl LogGuard {
    /// From here on a thread writes the lines. It inherits the signal mask of the caller, who has blocked what the
    /// server waits for. A second call does nothing.
    pub fn in_background(&self) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(receiver) = receiver else { return };
        let dropped = self.lines.dropped.clone();
        let begun = thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&receiver, &dropped, &mut io::stdout()));
        match begun {
            // The subscriber keeps the queue open for as long as the process lives, so nobody joins the thread.
            Ok(_) => self.lines.queued.store(true, Ordering::Release),
            Err(error) => {
                tracing::warn!("no thread for the log ({error}): its lines are written by those who log them")
            }
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.flush();
    }
}

/// Sets up logging for the process. `RUST_LOG` wins over `level`.
pub fn start(format: LogFormat, level: &str, my_id: Option<u8>) -> LogGuard {
    let (lines, receiver) = Lines::new();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(lines.clone());
    let set = match format {
        LogFormat::Text => {
            let format = ZooKeeperFormat { my_id: my_id.map(|id| id.to_string()).unwrap_or_default() };
            tracing::subscriber::set_global_default(builder.event_format(format).finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_thread_names(true).finish(),
        ),
    };
    if set.is_err() {
        eprintln!("a log was set up before; this one is not used");
    }
    LogGuard { lines, receiver: Mutex::new(Some(receiver)) }
}

/// The sending half.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    /// A thread takes from the queue.
    queued: Arc<AtomicBool>,
}

impl Lines {
    fn new() -> (Lines, Receiver<Message>) {
        let (queue, receiver) = sync_channel(LINES_MAX);
        (Lines { queue, dropped: Arc::default(), queued: Arc::default() }, receiver)
    }

    fn send(&self, line: Vec<u8>, urgent: bool) {
        if !self.queued.load(Ordering::Acquire) {
            let mut out = io::stdout().lock();
            // Nobody is left to tell when standard output fails.
            let _ = out.write_all(&line).and_then(|()| out.flush());
        } else if urgent {
            self.send_urgently(line);
        } else if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for room if need be, and until the line is written; not forever.
    fn send_urgently(&self, line: Vec<u8>) {
        let pause = Duration::from_millis(5);
        let mut message = Message::Line(line);
        for _ in 0..URGENT_WAIT.as_millis() / pause.as_millis() {
            match self.queue.try_send(message) {
                Ok(()) => return self.flush(),
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(pause);
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until everything sent before is written; not forever.
    fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queued.load(Ordering::Acquire) && self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(URGENT_WAIT);
        }
    }
}

/// Writes lines until nobody can send any more.
fn write_lines(queue: &Receiver<Message>, dropped: &AtomicU64, out: &mut impl Write) {
    // Nobody is left to tell when standard output fails, so errors here are passed over.
    while let Ok(message) = queue.recv() {
        match message {
            Message::Line(line) => {
                let _ = out.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines were dropped: whoever reads the log is too slow");
        }
    }
    let _ = out.flush();
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, bytes: Vec::new(), urgent: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, bytes: Vec::new(), urgent: *metadata.level() == Level::ERROR }
    }
}

/// One event being written; sent when it is dropped.
struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
    urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.lines.send(bytes, self.urgent);
        }
    }
}

/// `2025-01-31 12:00:00,123 [myid:1] - INFO  [thread:module@line] - message`, the pattern of ZooKeeper's `logback.xml`.
struct ZooKeeperFormat {
    my_id: String,
}

impl<S, N> FormatEvent<S, N> for ZooKeeperFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let module = metadata.target().rsplit("::").next().unwrap_or_default();
        write!(
            out,
            "{} [myid:{}] - {:<5} [{}:{module}@{}] - ",
            Date::of_ms(ms).log(),
            self.my_id,
            metadata.level().as_str(),
            thread::current().name().unwrap_or("-"),
            metadata.line().unwrap_or(0)
        )?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);

    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Collected {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn lines_look_as_zookeepers_and_errors_are_waited_for() {
        let (lines, receiver) = Lines::new();
        lines.queued.store(true, Ordering::Release);
        let dropped = lines.dropped.clone();
        let out = Collected::default();
        let mut sink = out.clone();
        let thread = thread::spawn(move || write_lines(&receiver, &dropped, &mut sink));
        let format = ZooKeeperFormat { my_id: "7".into() };
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(lines).event_format(format).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(port = 2181, "binding to port");
            tracing::error!("the disk is gone");
            // The error's line and all before it are there at once.
            let text = out.text();
            let written: Vec<&str> = text.lines().collect();
            assert_eq!(written.len(), 2);
            assert!(written[0].contains(" [myid:7] - INFO  ["), "{}", written[0]);
            assert!(written[0].ends_with("] - binding to port port=2181"), "{}", written[0]);
            assert!(written[0].contains(":logging") || written[0].contains(":tests@"), "{}", written[0]);
            assert!(written[1].contains("] - ERROR [") && written[1].ends_with("the disk is gone"));
            assert_eq!(written[0].as_bytes()[10], b' ');
            assert_eq!(written[0].as_bytes()[19], b',');
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_slow_reader_costs_lines_and_not_time() {
        let (lines, receiver) = Lines::new();
        lines.queued.store(true, Ordering::Release);
        for index in 0..LINES_MAX + 5 {
            lines.send(format!("{index}\n").into_bytes(), false);
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 5);
        let dropped = lines.dropped.clone();
        drop(lines);
        let mut out = Vec::new();
        write_lines(&receiver, &dropped, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), LINES_MAX + 1);
        assert!(text.contains("5 log lines were dropped"));
    }
}
