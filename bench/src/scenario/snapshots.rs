//! Latency while a snapshot is written, beside latency while none is.
//!
//! An open loop of reads and writes runs on a server that holds many nodes and takes a snapshot every few thousand writes. What
//! was being answered while a snapshot file grew counts apart from the rest. A snapshot is seen from outside: its file grows.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Scenario;
use super::load::{Load, QUANTILES, Running};
use super::nodes::Nodes;
use crate::fail;
use crate::failure::{Context, Result};
use crate::report::Outcome;
use crate::server::Server;
use ringkeeper::client::Client;

/// Between two looks at the directory.
const LOOK: Duration = Duration::from_millis(5);
/// A file that has not grown for so long is written.
const STILL: Duration = Duration::from_millis(50);
/// How long a piece of the measurement runs between two checks of what the looks found.
const SLICE: Duration = Duration::from_millis(2);

/// The load, what the server holds besides, and how often it takes a snapshot.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub load: Load,
    pub nodes: Nodes,
    /// `snapCount`: a snapshot comes after half of it to all of it.
    pub snap_count: u32,
}

impl Scenario for Snapshots {
    fn name(&self) -> String {
        format!(
            "{} beside {} nodes, a snapshot every {} writes",
            self.load.name(),
            self.nodes.nodes,
            self.snap_count
        )
    }

    fn parameters(&self) -> Value {
        let mut parameters = self.load.parameters();
        parameters["held"] = json!(self.nodes.nodes);
        parameters["snap_count"] = json!(self.snap_count);
        parameters
    }

    fn wants_fresh_server(&self) -> bool {
        true
    }

    fn lines(&self) -> Vec<String> {
        vec![format!("snapCount={}", self.snap_count)]
    }

    fn connections(&self) -> usize {
        self.load.sessions()
    }

    fn run(&mut self, server: &mut Server, _first: bool) -> Result<Outcome> {
        if !server.can_restart() {
            fail!("snapshots of an external server cannot be seen from here");
        }
        let mut client = Client::open(server.addr).context("cannot set up")?;
        self.nodes.fill(&mut client)?;
        client.close()?;

        let dir = server.members()[0].data_dir();
        let (stop, growing, seen) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
        let (outcome, marked) = thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&dir, &stop, &growing, &seen));
            let measured = (|| {
                let mut run = Running::begin(&self.load, server)?;
                // Each server is a new one here, so each warms up.
                run.turn_for(self.load.first_warm_up)?;
                run.measure_with(server, self.load.duration, SLICE, |traffic| {
                    traffic.marking = growing.load(Ordering::Relaxed);
                })?;
                let marked = run.traffic.marked.clone();
                run.end(server).map(|outcome| (outcome, marked))
            })();
            stop.store(true, Ordering::Relaxed);
            watcher.join().expect("a watcher of files does not panic");
            measured
        })?;
        let mut outcome = outcome;
        let [without, with] = &marked;
        outcome.add("snapshots seen", "", seen.load(Ordering::Relaxed) as f64);
        outcome.add(
            "answers during one",
            "%",
            with.len() as f64 * 100.0 / (with.len() + without.len()).max(1) as f64,
        );
        if with.is_empty() || without.is_empty() {
            outcome
                .note("not both were seen, answers with and without a snapshot: there is nothing to compare");
            return Ok(outcome);
        }
        for (name, quantile) in QUANTILES {
            let of = |histogram: &hdrhistogram::Histogram<u64>| histogram.value_at_quantile(quantile) as f64;
            outcome.add(format!("{name} without a snapshot"), "us", of(without) / 1e3);
            outcome.add(format!("{name} with a snapshot"), "us", of(with) / 1e3);
            outcome.add(format!("{name} with : without"), "", of(with) / of(without).max(1.0));
        }
        Ok(outcome)
    }
}

/// Tells whether a snapshot file grows, until stopped.
fn watch(dir: &Path, stop: &AtomicBool, growing: &AtomicBool, seen: &AtomicUsize) {
    let mut files: HashMap<PathBuf, u64> = sizes(dir);
    let mut grew_at: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let now = sizes(dir);
        let grew = now.iter().any(|(path, bytes)| match files.get(path) {
            Some(before) => before != bytes,
            // A file that only got its final name did not grow.
            None => !files.values().any(|before| before == bytes),
        });
        files = now;
        if grew {
            if grew_at.is_none() {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            grew_at = Some(Instant::now());
        } else if grew_at.is_some_and(|at| at.elapsed() > STILL) {
            grew_at = None;
        }
        growing.store(grew_at.is_some(), Ordering::Relaxed);
        thread::sleep(LOOK);
    }
}

/// Of all files below `dir` that are named for snapshots.
fn sizes(dir: &Path) -> HashMap<PathBuf, u64> {
    let mut found = HashMap::new();
    // A file may go between the listing and the look; that is no failure.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(sizes(&entry.path()));
        } else if entry.file_name().to_string_lossy().contains("snapshot")
            && let Ok(metadata) = entry.metadata()
        {
            found.insert(entry.path(), metadata.len());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_found_wherever_they_are() {
        let dir = std::env::temp_dir().join(format!("ringkeeper-bench-sizes-{}", std::process::id()));
        fs::create_dir_all(dir.join("version-2")).unwrap();
        fs::write(dir.join("version-2/snapshot.1f"), b"abc").unwrap();
        fs::write(dir.join("version-2/log.1"), b"abcdef").unwrap();
        let found = sizes(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found.values().copied().collect::<Vec<_>>(), [3]);
    }
}
