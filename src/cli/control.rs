//! `start`, `stop`, `restart`, `status`, `print-cmd`: what `zkServer.sh` does, with its words and exit codes.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::gather::Gathered;
use super::probe::{self, Door};
use super::{EXIT_FAILED, ServerArguments, process};

/// How long `start` waits for the server to serve. A start that has much to load goes on in the background.
const START_WAIT: Duration = Duration::from_secs(30);
/// How long `stop` waits: the server drains within a second unless the disk is slow.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// The same for a server that leaves a snapshot when it stops; a little longer than it takes that time itself.
const STOP_WITH_SNAPSHOT_WAIT: Duration = Duration::from_secs(610);
/// Between two looks at a server that starts.
const PROBE_PAUSE: Duration = Duration::from_millis(10);
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Without a client port there is nobody to ask: a server that lives this long has started.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
/// Lines of the server's own words shown when it does not start.
const LAST_LINES: usize = 10;

fn failed() -> ExitCode {
    ExitCode::from(EXIT_FAILED)
}

/// Says a part of a line at once.
fn say(words: &str) {
    print!("{words}");
    let _ = io::stdout().flush();
}

fn say_which(gathered: &Gathered) {
    if let Some(file) = &gathered.file {
        eprintln!("Using config: {}", file.display());
    }
}

pub fn start(arguments: &ServerArguments, gathered: &Gathered) -> ExitCode {
    say_which(gathered);
    say("Starting zookeeper ... ");
    if let Some(pid) = process::read_pid(&gathered.pid_file).filter(|pid| process::is_ours(*pid)) {
        println!("already running as process {}.", pid.as_raw_nonzero());
        return failed();
    }
    if let Some(door) = Door::of(&gathered.config).filter(|door| door.accepts(PROBE_PATIENCE)) {
        println!("FAILED TO START");
        eprintln!("something else is listening on {}", door.address);
        return failed();
    }
    let mut child = match spawn(arguments, gathered) {
        Ok(child) => child,
        Err(error) => {
            println!("FAILED TO START");
            eprintln!("{}: {error}", gathered.log_file.display());
            return failed();
        }
    };
    if let Err(error) = write_pid(&gathered.pid_file, child.id()) {
        println!("FAILED TO WRITE PID");
        eprintln!("{}: {error}", gathered.pid_file.display());
        // A server that `stop` cannot find is worse than none.
        process::terminate(rustix::process::Pid::from_child(&child), STOP_WAIT);
        let _ = child.wait();
        return failed();
    }
    match wait_until_served(&mut child, gathered) {
        Started::Serving => println!("STARTED"),
        Started::NotYet => {
            println!("STARTED");
            eprintln!("process {} is still loading; see {}", child.id(), gathered.log_file.display());
        }
        Started::Ended(how) => {
            println!("FAILED TO START");
            let _ = fs::remove_file(&gathered.pid_file);
            eprintln!("the server ended ({how}); {} ends with:", gathered.log_file.display());
            for line in last_lines(&gathered.log_file) {
                eprintln!("  {line}");
            }
            return failed();
        }
    }
    ExitCode::SUCCESS
}

enum Started {
    Serving,
    NotYet,
    Ended(String),
}

fn wait_until_served(child: &mut Child, gathered: &Gathered) -> Started {
    let door = Door::of(&gathered.config);
    let deadline = Instant::now() + if door.is_some() { START_WAIT } else { SETTLE_WAIT };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Started::Ended(status.to_string()),
            Ok(None) => {}
            Err(error) => return Started::Ended(error.to_string()),
        }
        if door.as_ref().is_some_and(|door| door.mode(PROBE_PATIENCE).is_some()) {
            return Started::Serving;
        }
        if Instant::now() >= deadline {
            return if door.is_some() { Started::NotYet } else { Started::Serving };
        }
        std::thread::sleep(PROBE_PAUSE);
    }
}

/// The words after the program's name that run the server in the background.
fn serve_arguments(arguments: &ServerArguments, gathered: &Gathered) -> Vec<String> {
    let mut words = vec!["serve".to_owned()];
    match &gathered.file {
        Some(file) => words.push(file.display().to_string()),
        None => words.extend(arguments.words.iter().cloned()),
    }
    for set in &arguments.sets {
        words.extend(["--set".to_owned(), set.clone()]);
    }
    if let Some(cores) = &arguments.cores {
        words.extend(["--cores".to_owned(), cores.clone()]);
    }
    words
}

fn spawn(arguments: &ServerArguments, gathered: &Gathered) -> io::Result<Child> {
    if let Some(directory) = gathered.log_file.parent() {
        fs::create_dir_all(directory)?;
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(&gathered.log_file)?;
    Command::new(std::env::current_exe()?)
        .args(serve_arguments(arguments, gathered))
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

fn write_pid(file: &Path, pid: u32) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(file, pid.to_string())
}

fn last_lines(file: &Path) -> Vec<String> {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

pub fn stop(gathered: &Gathered) -> ExitCode {
    say_which(gathered);
    say("Stopping zookeeper ... ");
    let file = &gathered.pid_file;
    if !file.exists() {
        println!("no zookeeper to stop (could not find file {})", file.display());
        return ExitCode::SUCCESS;
    }
    match process::read_pid(file) {
        Some(pid) if process::is_ours(pid) => {
            let leaves_snapshot = gathered.config.storage.snapshot_on_stop;
            let wait = if leaves_snapshot { STOP_WITH_SNAPSHOT_WAIT } else { STOP_WAIT };
            if !process::terminate(pid, wait) {
                println!("FAILED TO STOP");
                eprintln!("process {} still runs after {} s", pid.as_raw_nonzero(), wait.as_secs());
                return failed();
            }
        }
        _ => eprintln!("{} names no running server; it is removed", file.display()),
    }
    if let Err(error) = fs::remove_file(file).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }) {
        eprintln!("{}: {error}", file.display());
    }
    println!("STOPPED");
    ExitCode::SUCCESS
}

pub fn restart(arguments: &ServerArguments, gathered: &Gathered) -> ExitCode {
    let stopped = stop(gathered);
    if stopped != ExitCode::SUCCESS {
        return stopped;
    }
    start(arguments, gathered)
}

pub fn status(gathered: &Gathered) -> ExitCode {
    say_which(gathered);
    let Some(door) = Door::of(&gathered.config) else {
        println!("Client port not found. Terminating.");
        return failed();
    };
    println!(
        "Client port found: {}. Client address: {}. Client SSL: {}.",
        door.address.port,
        probe::host_of(door.address),
        door.secure
    );
    match door.mode(PROBE_PATIENCE) {
        Some(mode) => {
            println!("Mode: {mode}");
            ExitCode::SUCCESS
        }
        None => {
            println!("Error contacting service. It is probably not running.");
            failed()
        }
    }
}

pub fn print_command(arguments: &ServerArguments, gathered: &Gathered) -> ExitCode {
    let program =
        std::env::current_exe().map_or_else(|_| "ringkeeper".into(), |path| path.display().to_string());
    let quoted =
        |word: &str| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"));
    let mut words = vec![quoted(&program)];
    words.extend(serve_arguments(arguments, gathered).iter().map(|word| quoted(word)));
    println!("{} > {} 2>&1 < /dev/null", words.join(" "), quoted(&gathered.log_file.display().to_string()));
    ExitCode::SUCCESS
}
