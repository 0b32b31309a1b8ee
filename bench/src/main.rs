//! The load generator: drives any server that speaks ZooKeeper's client protocol, ringkeeper and Apache ZooKeeper alike, and
//! tells what each operation cost the server.
//!
//! It starts the servers it is given on cores of their own, with the same configuration and durability, and measures them in
//! turn: A B A B. Every answer is checked.

mod compare;
mod echo;
mod failure;
mod host;
mod member;
mod net;
mod page;
mod process;
mod report;
mod runner;
mod scenario;
mod server;
mod sys;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::failure::{Context, Result};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::scenario::failover::Failover;
use crate::scenario::idle::Idle;
use crate::scenario::load::{Arrivals, Expect, Group, Keys, Load, Mix, Pacing, Place};
use crate::scenario::nodes::Nodes;
use crate::scenario::sessions::Sessions;
use crate::scenario::snapshots::Snapshots;
use crate::scenario::storm::Storm;
use crate::server::{MEMBERS_MAX, ServerOptions, ServerSpec, Shape};

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
    /// Apache ZooKeeper and ringkeeper side by side, in turn, with a page of plots
    Compare {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        timing: Timing,
        /// A .toml file, or the name of one that is built in; several run in turn [default: compare, or quick]
        #[arg(long = "scenario")]
        scenarios: Vec<String>,
        /// Under a minute: short intervals, two repetitions
        #[arg(long)]
        quick: bool,
        /// Where the page is written
        #[arg(long, default_value = "target/bench.html")]
        page: PathBuf,
    },
    /// Results again: a page of them, or two commits side by side
    Report {
        /// Directory with lines of JSON
        #[arg(long, default_value = "bench/results")]
        results: PathBuf,
        /// Two commits, or their beginnings
        #[arg(long, num_args = 2, value_names = ["A", "B"], required_unless_present = "page")]
        diff: Vec<String>,
        /// Writes a page of all runs there
        #[arg(long)]
        page: Option<PathBuf>,
        /// For the page: only of this commit, or its beginning
        #[arg(long, default_value = "")]
        commit: String,
    },
    /// Every figure that concerns an ensemble: writes, the leader's death, reads with 0 to 4 observers
    Ensemble {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        timing: Timing,
        /// Of these parts only
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Part>,
        #[arg(long, default_value_t = 50, value_parser = positive)]
        kills: usize,
        /// Of the part with observers: writes a second on the leader at planned times [default: a closed loop of 16 sessions
        /// x 16 outstanding, whose batches are the same however many observers there are]
        #[arg(long, value_parser = rate)]
        write_rate: Option<f64>,
    },
    /// The leader is killed under load: time to the next acknowledged write
    Failover {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 50, value_parser = positive)]
        kills: usize,
        #[arg(long, default_value_t = 6, value_parser = positive)]
        sessions: usize,
    },
    /// Latency with and without a snapshot being written
    Snapshots {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        timing: Timing,
        /// Nodes of 100 bytes that the server holds
        #[arg(long, default_value_t = 200_000, value_parser = positive)]
        nodes: usize,
        /// Requests a second, half of them setData
        #[arg(long, default_value_t = 4000.0, value_parser = rate)]
        rate: f64,
        /// Writes between snapshots, at most
        #[arg(long, default_value_t = 6000)]
        snap_count: u32,
    },
    /// Sessions that each keep requests outstanding, or an open loop of planned times
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
        /// Requests a second at planned times, whatever the answers do; instead of --outstanding
        #[arg(long, value_parser = rate, conflicts_with = "outstanding")]
        rate: Option<f64>,
        /// Distances of the planned times
        #[arg(long, requires = "rate")]
        poisson: bool,
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
enum Part {
    Writes,
    Failover,
    Observers,
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
    /// and ratios are to the last [default: the ringkeeper beside this program, echo, and the ZooKeeper that
    /// bench/get-zookeeper.sh fetches to target/zookeeper]
    #[arg(long = "server")]
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
    /// What a reader must know of the machine and the time, kept with every line of the results
    #[arg(long)]
    remark: Option<String>,
    /// Servers that vote: 1 starts each server alone, 3 or 5 an ensemble
    #[arg(long, default_value_t = 1, value_parser = members)]
    voters: usize,
    /// Servers besides that do not vote
    #[arg(long, default_value_t = 0)]
    observers: usize,
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
    let mut page = None;
    let (common, scenarios) = match work {
        Work::Report { results, diff, page, commit } => {
            return report_again(&results, &diff, page.as_deref(), &commit);
        }
        Work::Compare { mut common, mut timing, mut scenarios, quick, page: to } => {
            if quick {
                timing = Timing { duration: 1.0, warm_up: 0.3, first_warm_up: 1.5 };
                common.repetitions = 2;
            }
            if scenarios.is_empty() {
                scenarios.push(if quick { "quick" } else { "compare" }.to_owned());
            }
            let durations = compare::Durations {
                warm_up: seconds(timing.warm_up)?,
                first_warm_up: seconds(timing.first_warm_up)?,
                duration: seconds(timing.duration)?,
            };
            let mut boxes: Vec<Box<dyn Scenario>> = Vec::new();
            for name in &scenarios {
                boxes.extend(
                    compare::read(name, durations)?
                        .into_iter()
                        .map(|load| Box::new(load) as Box<dyn Scenario>),
                );
            }
            page = Some(to);
            (common, boxes)
        }
        Work::Echo { port, value_bytes } => return echo::serve(port, value_bytes),
        Work::Numbers { common, timing, nodes, idle_sessions } => {
            (common, numbers(&timing, nodes, idle_sessions)?)
        }
        Work::Ensemble { common, timing, only, kills, write_rate } => {
            (common, ensemble(&timing, &only, kills, write_rate)?)
        }
        Work::Failover { common, kills, sessions } => {
            let voters = common.voters.max(3);
            (common, boxed(Failover { kills, sessions, voters }))
        }
        Work::Snapshots { common, timing, nodes, rate, snap_count } => {
            let pacing = Pacing::Open { rate, arrivals: Arrivals::Constant };
            let load = load(Mix { get: 1, set: 1, ..Mix::default() }, 64, pacing, &timing)?;
            let nodes = Nodes { nodes, value_bytes: 100, fan_out: 1000 };
            (common, boxed(Snapshots { load, nodes, snap_count }))
        }
        Work::Load {
            common,
            timing,
            operation,
            read_percent,
            sessions,
            outstanding,
            rate,
            poisson,
            value_bytes,
            nodes,
        } => {
            let reads = u32::from(read_percent);
            let mix = match operation {
                Kind::Get => GET,
                Kind::Set => SET,
                Kind::Create => Mix { create: 1, ..Mix::default() },
                Kind::Mixed => Mix { get: reads, set: 100 - reads, ..Mix::default() },
            };
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
            let pacing = rate.map_or(Pacing::Closed { outstanding }, |rate| Pacing::Open { rate, arrivals });
            let load = Load { nodes, value_bytes, ..load(mix, sessions, pacing, &timing)? };
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
    measure(&common, scenarios, page.as_deref())
}

fn report_again(results: &Path, diff: &[String], page: Option<&Path>, commit: &str) -> Result<()> {
    let runs = report::read(results)?;
    if let [before, after] = diff {
        print!("{}", report::diff(&runs, before, after)?);
    }
    if let Some(page) = page {
        let runs: Vec<_> = runs
            .into_iter()
            .filter(|run| run.host["commit"].as_str().unwrap_or("").starts_with(commit))
            .collect();
        if runs.is_empty() {
            fail!("no run of commit {commit} is in {}", results.display());
        }
        write_page(page, &runs)?;
    }
    Ok(())
}

fn write_page(to: &Path, runs: &[report::Run]) -> Result<()> {
    if let Some(dir) = to.parent() {
        std::fs::create_dir_all(dir).context(format_args!("cannot make {}", dir.display()))?;
    }
    std::fs::write(to, page::page(runs)?).context(format_args!("cannot write {}", to.display()))?;
    println!("\nThe page is {}", to.display());
    Ok(())
}

/// Where none is named: ours beside this program, the machine's limit, and Apache ZooKeeper, which is fetched first if need be.
fn default_servers() -> Result<Vec<ServerSpec>> {
    let own = std::env::current_exe().context("cannot find this program itself")?;
    let beside = own.with_file_name("ringkeeper");
    if !beside.exists() {
        fail!(
            "{} is not there: build it with `cargo build --release`, or name servers with --server",
            beside.display()
        );
    }
    let jars = PathBuf::from("target/zookeeper");
    let fetch = Path::new("bench/get-zookeeper.sh");
    if !jars.exists() {
        if !fetch.exists() {
            fail!(
                "neither target/zookeeper nor {} is here: start this in the repository, or name servers with --server",
                fetch.display()
            );
        }
        eprintln!("fetching Apache ZooKeeper to {}", jars.display());
        let status =
            std::process::Command::new(fetch).arg(&jars).status().context("cannot fetch ZooKeeper")?;
        if !status.success() {
            fail!("{} failed with {status}", fetch.display());
        }
    }
    Ok(vec![ServerSpec::Ringkeeper(beside), ServerSpec::Echo, ServerSpec::ZooKeeper(jars)])
}

/// The rows of the table of numbers to reach that concern one server.
fn numbers(timing: &Timing, nodes: usize, idle_sessions: usize) -> Result<Vec<Box<dyn Scenario>>> {
    let mut scenarios: Vec<Box<dyn Scenario>> = Vec::new();
    for (mix, sessions, outstanding) in
        [(GET, 64, 1), (GET, 64, 32), (SET, 64, 1), (SET, 64, 32), (SET, 1, 1)]
    {
        scenarios.push(Box::new(load(mix, sessions, Pacing::Closed { outstanding }, timing)?));
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

/// The rows that concern three servers, and the observers beside them.
fn ensemble(
    timing: &Timing,
    only: &[Part],
    kills: usize,
    write_rate: Option<f64>,
) -> Result<Vec<Box<dyn Scenario>>> {
    let wanted = |part: Part| only.is_empty() || only.contains(&part);
    let mut scenarios: Vec<Box<dyn Scenario>> = Vec::new();
    let voters = 3;
    if wanted(Part::Writes) {
        for outstanding in [32, 1] {
            let pacing = Pacing::Closed { outstanding };
            let title = Some(format!("{voters} servers, setData, 100 B, {}", pacing.title(63)));
            let shape = Some(Shape { voters, observers: 0 });
            scenarios.push(Box::new(Load { title, shape, ..load(SET, 63, pacing, timing)? }));
        }
    }
    if wanted(Part::Observers) {
        let writing = match write_rate {
            Some(rate) => Pacing::Open { rate, arrivals: Arrivals::Constant },
            None => Pacing::Closed { outstanding: 16 },
        };
        let writers = Group { mix: SET, sessions: 16, pacing: writing, place: Place::Leader };
        let reading = Pacing::Closed { outstanding: 8 };
        let readers = Group { mix: GET, sessions: 32, pacing: reading, place: Place::Observers };
        for observers in [0, 1, 2, 4] {
            let shape = Some(Shape { voters, observers });
            for (groups, what) in
                [(vec![writers], "nobody reads"), (vec![writers, readers], "32 sessions read from observers")]
            {
                let title = Some(format!(
                    "{voters} servers and {observers} observers, setData on the leader, {}, {what}",
                    writing.title(16)
                ));
                scenarios.push(Box::new(Load { title, shape, groups, ..load(SET, 16, writing, timing)? }));
            }
        }
    }
    if wanted(Part::Failover) {
        scenarios.push(Box::new(Failover { kills, sessions: 6, voters }));
    }
    Ok(scenarios)
}

const GET: Mix = Mix { get: 1, set: 0, create: 0, delete: 0, list: 0 };
const SET: Mix = Mix { get: 0, set: 1, create: 0, delete: 0, list: 0 };

fn load(mix: Mix, sessions: usize, pacing: Pacing, timing: &Timing) -> Result<Load> {
    Ok(Load {
        title: None,
        groups: vec![Group { mix, sessions, pacing, place: Place::All }],
        keys: Keys::Uniform,
        shape: None,
        expect: Expect::ACKNOWLEDGED,
        value_bytes: 100,
        nodes: 1024,
        warm_up: seconds(timing.warm_up)?,
        first_warm_up: seconds(timing.first_warm_up)?,
        duration: seconds(timing.duration)?,
    })
}

fn measure(common: &Common, scenarios: Vec<Box<dyn Scenario>>, page: Option<&Path>) -> Result<()> {
    let servers = if common.servers.is_empty() { default_servers()? } else { common.servers.clone() };
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
    sys::wake_in_time().context("cannot set the timer slack")?;
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
        shape: Shape { voters: common.voters, observers: common.observers },
        lines: Vec::new(),
        value_bytes: scenarios.iter().map(|scenario| scenario.value_bytes()).max().unwrap_or(0),
    };
    let mut host = host::fingerprint(&data);
    host["remark"] = common.remark.clone().into();
    host["client_core"] = client_core.into();
    host["server_cores"] = options.cores.clone().into();
    let results = (common.results.as_os_str() != "none").then(|| common.results.clone());
    let mut report = Report::new(host, results)?;

    let outcome = runner::run(&servers, scenarios, common.repetitions, &options, &mut report);
    // The servers removed theirs; what is left is empty.
    let _ = std::fs::remove_dir(&data);
    if outcome.is_err() && !report.is_empty() {
        println!("\nPartial results: the run did not end");
    }
    print!("{}", report.table());
    if let Some(page) = page.filter(|_| !report.is_empty()) {
        write_page(page, report.runs())?;
    }
    outcome
}

fn boxed(scenario: impl Scenario + 'static) -> Vec<Box<dyn Scenario>> {
    vec![Box::new(scenario)]
}

fn seconds(count: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(count).context(format_args!("{count} seconds"))
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1.0..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 1 to 10000000 is expected".to_owned()),
    }
}

fn members(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MEMBERS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("a whole number from 1 to {MEMBERS_MAX} is expected")),
    }
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
