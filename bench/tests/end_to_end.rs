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

/// A comparison by a scenario of one's own leaves a page, and its lines can be held side by side.
#[test]
fn a_comparison_leaves_a_page() {
    let dir = scratch("page");
    let port = free_port().to_string();
    let scenario = dir.join("own.toml");
    std::fs::write(
        &scenario,
        "about = \"a test\"\nexpect = { versions = \"acknowledged\", children = 0 }\n\
         [[step]]\nsessions = 4\nrate = 500\narrivals = \"poisson\"\nmix = { get = 2, set = 1, list = 1 }\n",
    )
    .unwrap();
    let page = dir.join("page.html");
    let (scenario, page) = (scenario.to_str().unwrap(), page.to_str().unwrap());
    let timing = ["--duration", "0.5", "--warm-up", "0", "--first-warm-up", "0"];
    let compare = ["compare", "--scenario", scenario, "--page", page, "--server", "echo", "--port", &port];
    let output = run(&[&compare[..], &timing[..]].concat(), &dir);
    assert!(output.status.success());
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("<svg") && html.contains("getChildren"));
    let lines = std::fs::read_to_string(dir.join("runs.jsonl")).unwrap();
    assert!(lines.contains("\"sent late by the generator, p99\""));

    let report = |arguments: &[&str]| {
        Command::new(BENCH).args(["report", "--results"]).arg(&dir).args(arguments).output().unwrap()
    };
    // What the lines were made from, in a clone or outside of one.
    let commit =
        if lines.contains("\"commit\":null") { "" } else { lines.split("\"commit\":\"").nth(1).unwrap() };
    let commit = &commit[..commit.len().min(7)];
    let output = report(&["--diff", commit, commit]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("echo: operations per second") && text.contains("1.00"),
        "{text}"
    );
    assert_eq!(report(&["--diff", "nowhere", commit]).status.code(), Some(1));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A scenario with a key nobody knows is refused before anything starts, with file and line.
#[test]
fn a_wrong_scenario_is_told() {
    let dir = scratch("scenario");
    let scenario = dir.join("wrong.toml");
    std::fs::write(&scenario, "about = \"x\"\ncolour = 3\n").unwrap();
    let output = run(&["compare", "--server", "echo", "--scenario", scenario.to_str().unwrap()], &dir);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.lines().count() == 1 && message.contains("wrong.toml:2: unknown field `colour`"),
        "{message}"
    );
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
