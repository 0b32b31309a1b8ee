//! The load generator: drives any server that speaks ZooKeeper's client protocol, ringkeeper and Apache ZooKeeper alike, and
//! tells what each operation cost the server.
//!
//! It starts the servers it is given on cores of their own, with the same configuration and durability, and measures them in
//! turn: A B A B. Every answer is checked.

mod echo;
mod failure;
mod host;
mod net;
mod process;
mod report;
mod runner;
mod scenario;
mod server;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::failure::{Context, Result};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::scenario::idle::Idle;
use crate::scenario::load::{Load, Operation};
use crate::scenario::nodes::Nodes;
use crate::scenario::sessions::Sessions;
use crate::scenario::storm::Storm;
use crate::server::{ServerOptions, ServerSpec};

#[derive(Parser, Debug)]
#[command(name = "ringkeeper-bench", version, about = "Measures servers of ZooKeeper's client protocol")]
struct Command {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Debug)]
enum Work {
    /// Every figure that concerns one server: reads, writes, latency, watch storm, new sessions, memory, restart
    Numbers {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        timing: Timing,
        /// Nodes for memory and restart
        #[arg(long, default_value_t = 500_000)]
        nodes: usize,
        /// Sessions of the idle scenario, bounded by the limit of open files; 0 leaves it out
        #[arg(long, default_value_t = 10_000)]
        idle_sessions: usize,
    },
    /// Closed loop: sessions that each keep requests outstanding
    Load {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        timing: Timing,
        #[arg(long, value_enum, default_value_t = Kind::Get)]
        operation: Kind,
        /// Of mixed: reads, in percent
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
        read_percent: u8,
        #[arg(long, default_value_t = 64, value_parser = positive)]
        sessions: usize,
        /// Requests each session keeps unanswered
        #[arg(long, default_value_t = 1, value_parser = positive)]
        outstanding: usize,
        #[arg(long, default_value_t = 100)]
        value_bytes: usize,
        /// Nodes that are read, at least one for each session
        #[arg(long, default_value_t = 1024)]
        nodes: usize,
    },
    /// Watch storm: one change, and every session is told
    Storm {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 5000, value_parser = positive)]
        watchers: usize,
        #[arg(long, default_value_t = 21, value_parser = positive)]
        rounds: usize,
    },
    /// New sessions per second, and what one costs
    Sessions {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 5000, value_parser = positive)]
        sessions: usize,
        /// Handshakes at the same time
        #[arg(long, default_value_t = 64, value_parser = positive)]
        connecting: usize,
    },
    /// Many nodes: resident bytes of each, restart to serving
    Nodes {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 500_000, value_parser = positive)]
        nodes: usize,
        #[arg(long, default_value_t = 100)]
        value_bytes: usize,
        /// Children of one parent
        #[arg(long, default_value_t = 1000, value_parser = positive)]
        fan_out: usize,
    },
    /// Idle sessions: resident bytes of each, cost when silent and when pinging
    Idle {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 10_000, value_parser = positive)]
        sessions: usize,
        /// Session timeout in seconds; pings come at a third of it
        #[arg(long, default_value_t = 30.0)]
        timeout: f64,
        /// Seconds of each interval: silent, then pinging
        #[arg(long, default_value_t = 10.0)]
        duration: f64,
    },
    /// The server that only answers: what `--server echo` starts
    #[command(hide = true)]
    Echo {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        value_bytes: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kind {
    Get,
    Set,
    Create,
    Mixed,
}

/// What every measurement takes.
#[derive(Args, Clone, Debug)]
struct Common {
    /// ringkeeper:<binary>, zookeeper:<directory of jars>, echo, or external:host:port[:pid]; several are measured in turn,
    /// and ratios are to the last
    #[arg(long = "server", required = true)]
    servers: Vec<ServerSpec>,
    /// Core of the generator [default: the first this process may use]
    #[arg(long)]
    client_core: Option<usize>,
    /// Core of the servers, or a list with commas [default: the second]
    #[arg(long, value_delimiter = ',')]
    server_core: Vec<usize>,
    /// How often each server is measured
    #[arg(long, default_value_t = 3, value_parser = positive)]
    repetitions: usize,
    /// First port of the servers started here
    #[arg(long, default_value_t = 22810)]
    port: u16,
    /// Directory for the servers' data, on the disk to be measured [default: the system's for temporary files]
    #[arg(long)]
    data: Option<PathBuf>,
    /// A line of zoo.cfg for ringkeeper alone, as key=value; may be given more than once
    #[arg(long = "set")]
    settings: Vec<String>,
    /// An option for ZooKeeper's virtual machine; may be given more than once
    #[arg(long = "java", default_values_t = ["-Xmx4g".to_owned()], allow_hyphen_values = true)]
    java_options: Vec<String>,
    /// Directory for a line of JSON per run; `none` writes none
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// Of scenarios that last as long as they are told, in seconds.
#[derive(Args, Clone, Debug)]
struct Timing {
    /// Measured interval
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Before each measured interval
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Before the first on each server, for virtual machines
    #[arg(long, default_value_t = 8.0)]
    first_warm_up: f64,
}

fn main() -> ExitCode {
    match run(Command::parse().work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ringkeeper-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(work: Work) -> Result<()> {
    let (common, scenarios) = match work {
        Work::Echo { port, value_bytes } => return echo::serve(port, value_bytes),
        Work::Numbers { common, timing, nodes, idle_sessions } => {
            (common, numbers(&timing, nodes, idle_sessions)?)
        }
        Work::Load { common, timing, operation, read_percent, sessions, outstanding, value_bytes, nodes } => {
            let operation = match operation {
                Kind::Get => Operation::Get,
                Kind::Set => Operation::Set,
                Kind::Create => Operation::Create,
                Kind::Mixed => Operation::Mixed { read_percent },
            };
            let load = Load { nodes, value_bytes, ..load(operation, sessions, outstanding, &timing)? };
            (common, boxed(load))
        }
        Work::Storm { common, watchers, rounds } => (common, boxed(Storm { watchers, rounds })),
        Work::Sessions { common, sessions, connecting } => (common, boxed(Sessions { sessions, connecting })),
        Work::Nodes { common, nodes, value_bytes, fan_out } => {
            (common, boxed(Nodes { nodes, value_bytes, fan_out }))
        }
        Work::Idle { common, sessions, timeout, duration } => {
            (common, boxed(Idle { sessions, timeout: seconds(timeout)?, duration: seconds(duration)? }))
        }
    };
    sys::catch_signals().context("cannot catch signals")?;
    measure(&common, scenarios)
}

/// The rows of the table of numbers to reach that concern one server.
fn numbers(timing: &Timing, nodes: usize, idle_sessions: usize) -> Result<Vec<Box<dyn Scenario>>> {
    let mut scenarios: Vec<Box<dyn Scenario>> = Vec::new();
    for (operation, sessions, outstanding) in [
        (Operation::Get, 64, 1),
        (Operation::Get, 64, 32),
        (Operation::Set, 64, 1),
        (Operation::Set, 64, 32),
        (Operation::Set, 1, 1),
    ] {
        scenarios.push(Box::new(load(operation, sessions, outstanding, timing)?));
    }
    scenarios.push(Box::new(Storm { watchers: 5000, rounds: 21 }));
    scenarios.push(Box::new(Sessions { sessions: 5000, connecting: 64 }));
    if nodes > 0 {
        scenarios.push(Box::new(Nodes { nodes, value_bytes: 100, fan_out: 1000 }));
    }
    if idle_sessions > 0 {
        let (timeout, duration) = (Duration::from_secs(30), Duration::from_secs(10));
        scenarios.push(Box::new(Idle { sessions: idle_sessions, timeout, duration }));
    }
    Ok(scenarios)
}

fn load(operation: Operation, sessions: usize, outstanding: usize, timing: &Timing) -> Result<Load> {
    Ok(Load {
        operation,
        sessions,
        outstanding,
        value_bytes: 100,
        nodes: 1024,
        warm_up: seconds(timing.warm_up)?,
        first_warm_up: seconds(timing.first_warm_up)?,
        duration: seconds(timing.duration)?,
    })
}

fn measure(common: &Common, scenarios: Vec<Box<dyn Scenario>>) -> Result<()> {
    let allowed = sys::cores_allowed().context("cannot tell which cores may be used")?;
    let client_core = common.client_core.unwrap_or(allowed[0]);
    let mut server_cores = common.server_core.clone();
    if server_cores.is_empty() {
        server_cores.push(*allowed.iter().find(|core| **core != client_core).unwrap_or(&client_core));
    }
    if server_cores.contains(&client_core) {
        eprintln!(
            "ringkeeper-bench: generator and servers share core {client_core}: figures are not to be trusted"
        );
    }
    sys::pin(&[client_core]).context(format_args!("cannot pin the generator to core {client_core}"))?;

    let data = common.data.clone().unwrap_or_else(std::env::temp_dir);
    let data = data.join(format!("ringkeeper-bench-{}", std::process::id()));
    std::fs::create_dir_all(&data).context(format_args!("cannot make {}", data.display()))?;
    let options = ServerOptions {
        cores: server_cores,
        port: common.port,
        data: data.clone(),
        settings: common.settings.clone(),
        java_options: common.java_options.clone(),
        value_bytes: scenarios.iter().map(|scenario| scenario.value_bytes()).max().unwrap_or(0),
    };
    let mut host = host::fingerprint(&data);
    host["client_core"] = client_core.into();
    host["server_cores"] = options.cores.clone().into();
    let results = (common.results.as_os_str() != "none").then(|| common.results.clone());
    let mut report = Report::new(host, results)?;

    let outcome = runner::run(&common.servers, scenarios, common.repetitions, &options, &mut report);
    // The servers removed theirs; what is left is empty.
    let _ = std::fs::remove_dir(&data);
    if outcome.is_err() && !report.is_empty() {
        println!("\nPartial results: the run did not end");
    }
    print!("{}", report.table());
    outcome
}

fn boxed(scenario: impl Scenario + 'static) -> Vec<Box<dyn Scenario>> {
    vec![Box::new(scenario)]
}

fn seconds(count: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(count).context(format_args!("{count} seconds"))
}

fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a whole number above zero is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }

    #[test]
    fn cores_and_servers_are_lists() {
        let command = Command::parse_from([
            "x",
            "load",
            "--server",
            "echo",
            "--server",
            "echo",
            "--server-core",
            "1,2",
        ]);
        let Work::Load { common, .. } = command.work else { panic!("another work") };
        assert_eq!(common.servers.len(), 2);
        assert_eq!(common.server_core, [1, 2]);
    }
}
