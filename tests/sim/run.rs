//! The simulator as a program.
//!
//! ```text
//! cargo run --release --example sim -- --seeds 1000        seeds 1 to 1000
//! cargo run --release --example sim -- --seed 77           one seed, told in full
//! cargo run --release --example sim -- --seed 77 --minimise   what its failure needs
//! ```
//!
//! Exit code 0: all promises kept; 1: a safety promise broken; 2: liveness; 3: a panic.

#[path = "mod.rs"]
mod sim;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use clap::Parser;

use sim::report::{self, Limits, run_seed};
use sim::shape::FAULTS;

/// Simulates whole clusters, each from one seed, and checks what they promise.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Look for the least that a failing seed needs.
    #[arg(long, requires = "seed")]
    minimise: bool,
    /// Run each seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Leave a kind of fault out; may be given several times.
    #[arg(long)]
    without: Vec<String>,
    /// At most this many clients.
    #[arg(long)]
    clients: Option<usize>,
    /// At most this much virtual time with load and faults.
    #[arg(long)]
    duration_ms: Option<u64>,
    /// No ensembles: one server alone.
    #[arg(long)]
    alone: bool,
    /// Threads; as many as there are processors unless given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after a seed that fails.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Default)]
struct Totals {
    events: u64,
    seeds: u64,
    writes: u64,
    reads: u64,
    watch_events: u64,
    codes: BTreeMap<i32, u64>,
    marks: BTreeMap<&'static str, u64>,
    failed: Vec<(u64, i32)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    for name in &arguments.without {
        if !FAULTS.contains(&name.as_str()) {
            eprintln!("--without {name}: expected one of {FAULTS:?}");
            return ExitCode::from(64);
        }
    }
    let limits = Limits {
        without: arguments.without.clone(),
        clients_max: arguments.clients,
        duration_ms_max: arguments.duration_ms,
        alone: arguments.alone,
    };
    if arguments.minimise {
        return minimise(arguments.seed.expect("clap requires it"), limits);
    }
    report::tell_panics();
    let (from, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = Arc::new(AtomicU64::new(from));
    let totals = Arc::new(Mutex::new(Totals::default()));
    let begun = Instant::now();
    let workers: Vec<_> = (0..jobs.clamp(1, 256))
        .map(|_| {
            let (next, totals, limits) = (next.clone(), totals.clone(), limits.clone());
            let (twice, keep_going) = (arguments.twice, arguments.keep_going);
            std::thread::spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let outcome = run_seed(seed, &limits);
                    if twice {
                        let again = run_seed(seed, &limits);
                        assert_eq!(outcome.trace, again.trace, "seed {seed} does not repeat");
                    }
                    let mut totals = totals.lock().expect("no other thread panics: a panic ends the process");
                    totals.events += outcome.events;
                    totals.seeds += 1;
                    for (mark, count) in outcome.marks {
                        *totals.marks.entry(mark).or_default() += count;
                    }
                    match outcome.result {
                        Ok(summary) => {
                            totals.writes += summary.writes;
                            totals.reads += summary.reads;
                            totals.watch_events += summary.events;
                            for (code, count) in summary.codes {
                                *totals.codes.entry(code).or_default() += count;
                            }
                        }
                        Err((failure, text)) => {
                            println!("\n{text}\n");
                            totals.failed.push((seed, report::exit_code(failure.class)));
                            if !keep_going {
                                next.store(u64::MAX >> 1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a panic ends the process");
    }
    let mut totals = totals.lock().expect("all threads have ended");
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} events in {seconds:.1} s: {:.0} events/s; {} writes, {} reads, {} watch events checked",
        totals.seeds,
        totals.events,
        totals.events as f64 / seconds,
        totals.writes,
        totals.reads,
        totals.watch_events
    );
    println!("answers by code: {:?}", totals.codes);
    for (mark, count) in &totals.marks {
        println!("{count:>10}  {mark}");
    }
    totals.failed.sort_unstable();
    match totals.failed.first() {
        None => ExitCode::SUCCESS,
        Some((_, code)) => {
            println!("failed: {:?}", totals.failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>());
            ExitCode::from(*code as u8)
        }
    }
}

/// Takes away faults, clients and time as long as the seed still fails in the same way.
fn minimise(seed: u64, limits: Limits) -> ExitCode {
    let fails = |limits: &Limits| {
        let program = std::env::current_exe().expect("this program has a path");
        let status = Command::new(program)
            .args(["--seed", &seed.to_string()])
            .args(limits.arguments())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("this program can be run");
        status.code().unwrap_or(report::EXIT_CRASH)
    };
    let code = fails(&limits);
    if code == 0 {
        println!("seed {seed} does not fail");
        return ExitCode::SUCCESS;
    }
    let mut least = limits;
    let mut attempt = |change: &dyn Fn(&mut Limits)| {
        let mut tried = least.clone();
        change(&mut tried);
        if tried != least && fails(&tried) == code {
            println!("still fails with {}", tried.arguments().join(" "));
            least = tried;
            return true;
        }
        false
    };
    for name in FAULTS {
        attempt(&|limits| {
            if !limits.without.iter().any(|other| other == name) {
                limits.without.push(name.to_owned());
            }
        });
    }
    let shape = sim::shape::Shape::draw(seed);
    for clients in 1..shape.clients {
        if attempt(&|limits| limits.clients_max = Some(clients)) {
            break;
        }
    }
    let (mut passes, mut fails_at) = (0, shape.duration_ms);
    while fails_at - passes > 10 {
        let middle = (passes + fails_at) / 2;
        if attempt(&|limits| limits.duration_ms_max = Some(middle)) {
            fails_at = middle;
        } else {
            passes = middle;
        }
    }
    println!("least: --seed {seed} {}", least.arguments().join(" "));
    ExitCode::from(code as u8)
}
