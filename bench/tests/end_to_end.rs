//! The built generator against its own echo server: a run that works, and runs that must fail.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, ConnectOptions};

const BENCH: &str = env!("CARGO_BIN_EXE_ringkeeper-bench");

/// A port nobody has now, below those the system gives to outgoing connections; tests of one process get different ones.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let spread = (std::process::id() % 1000) as u16 * 10;
        let port = 21_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn run(arguments: &[&str], dir: &Path) -> Output {
    let output = Command::new(BENCH)
        .args(arguments)
        .args(["--repetitions", "1", "--data"])
        .arg(dir)
        .args(["--results"])
        .arg(dir)
        .output()
        .unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

fn scratch(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("ringkeeper-bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// An echo server of our own, killed at the end of the test.
struct Echo {
    child: Child,
    addr: std::net::SocketAddr,
}

impl Echo {
    fn start() -> Echo {
        let port = free_port();
        let child = Command::new(BENCH)
            .args(["echo", "--value-bytes", "100", "--port", &port.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let echo = Echo { child, addr: ([127, 0, 0, 1], port).into() };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Client::connect(echo.addr, &ConnectOptions::default()).is_err() {
            assert!(Instant::now() < deadline, "the echo server does not serve");
            std::thread::yield_now();
        }
        echo
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each scenario that an echo server can take runs to its end and leaves a table, a line, and nothing else.
#[test]
fn scenarios_run_to_their_end() {
    let dir = scratch("runs");
    let port = free_port().to_string();
    let short: &[&str] = &["--duration", "0.1", "--warm-up", "0", "--first-warm-up", "0"];
    let works: [(&[&str], &[&str]); 4] = [
        (&["load", "--operation", "mixed", "--sessions", "4", "--outstanding", "8"], short),
        (&["load", "--operation", "create", "--sessions", "2"], short),
        (&["storm", "--watchers", "50", "--rounds", "3"], &[]),
        (&["sessions", "--sessions", "200", "--connecting", "20"], &[]),
    ];
    for (work, timing) in works {
        let arguments = [work, timing, &["--server", "echo", "--port", &port]].concat();
        let output = run(&arguments, &dir);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("generator busy"));
    }
    let lines = std::fs::read_to_string(dir.join("runs.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 4);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "the servers' directories are gone");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A server whose answers make no sense fails the run. The echo server is one, once it is not known to be one.
#[test]
fn wrong_answers_fail_the_run() {
    let dir = scratch("wrong");
    let echo = Echo::start();
    let server = format!("external:{}", echo.addr);
    let output = run(&["load", "--server", &server, "--duration", "0.1"], &dir);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    let last = message.lines().last().unwrap();
    assert!(last.starts_with("ringkeeper-bench: ") && last.contains("setData"), "{last}");
    assert!(!dir.join("runs.jsonl").exists());
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A server that does not start ends the run with one line that says why.
#[test]
fn a_server_that_ends_at_its_start_is_told() {
    let dir = scratch("ends");
    let port = free_port().to_string();
    let output = run(&["load", "--server", "ringkeeper:/bin/false", "--port", &port], &dir);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("ended at its start"), "{message}");
    std::fs::remove_dir_all(&dir).unwrap();
}
