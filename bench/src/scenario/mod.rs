//! What can be measured. Each scenario checks the answers it gets and the state it leaves: a wrong one fails the run.

pub mod failover;
pub mod idle;
pub mod load;
pub mod nodes;
pub mod sessions;
pub mod snapshots;
pub mod storm;

use std::time::Duration;

use ringkeeper::client::{Client, Request, Response};
use ringkeeper::proto::ErrorCode;
use ringkeeper::proto::client::CreateMode;
use serde_json::Value;

use crate::fail;
use crate::failure::Result;
use crate::net::{Driver, Net};
use crate::process::{CoreTime, Sample, TICKS_PER_SECOND, Usage};
use crate::report::Outcome;
use crate::server::{Server, Shape};
use crate::sys;

/// How long anything but a measured interval may take.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Requests of a set-up that are unanswered at most.
const SETUP_OUTSTANDING: usize = 512;
/// A share of its core at which the generator holds the server up.
const GENERATOR_BUSY: f64 = 0.95;
/// A share of one core at which the server is at its limit.
const SERVER_BUSY: f64 = 0.90;
/// Work of others on the measured cores, in cores, that figures bear.
const OTHERS_MAX: f64 = 0.05;
/// Connections being made at the same time.
const CONNECTING_MAX: usize = 128;

/// One thing to measure.
pub trait Scenario {
    /// What tells it from others of a report.
    fn name(&self) -> String;
    fn parameters(&self) -> Value;
    /// Wants a server that has held nothing before, in each repetition.
    fn wants_fresh_server(&self) -> bool;
    /// The ensemble it needs; `None` takes what the run was told.
    fn shape(&self) -> Option<Shape> {
        None
    }
    /// Lines of every server's `zoo.cfg` it needs; such a server is its own.
    fn lines(&self) -> Vec<String> {
        Vec::new()
    }
    /// Connections open at the same time.
    fn connections(&self) -> usize;
    /// Bytes of data in the answers that an echo server gives.
    fn value_bytes(&self) -> usize {
        100
    }
    /// Measures once. `first` is the first time on this server, which a virtual machine spends warming up.
    fn run(&mut self, server: &mut Server, first: bool) -> Result<Outcome>;
}

/// What server and generator used over an interval, and who else worked on their cores.
#[derive(Debug)]
pub struct Meter {
    server: Option<Vec<Sample>>,
    generator: Sample,
    cores: Vec<usize>,
    core_time: CoreTime,
}

/// What [`Meter::stop`] tells.
#[derive(Clone, Debug)]
pub struct Metered {
    /// Of all its processes together; `None` where a pid is unknown.
    pub server: Option<Usage>,
    /// Of each process; empty where a pid is unknown.
    pub members: Vec<Usage>,
    pub generator: Usage,
    /// Work of other processes on the cores of server and generator, in cores; `None` without the server's pid.
    pub others: Option<f64>,
    /// Taken from these cores by the hypervisor, in cores.
    pub stolen: f64,
}

impl Meter {
    pub fn start(server: &Server) -> Result<Meter> {
        let mut cores = sys::cores_allowed()?;
        cores.extend(server.cores().iter().filter(|core| !cores.contains(core)).copied().collect::<Vec<_>>());
        let core_time = CoreTime::of(&cores)?;
        Ok(Meter { server: server.sample()?, generator: Sample::of(std::process::id())?, cores, core_time })
    }

    pub fn stop(&self, server: &Server) -> Result<Metered> {
        let generator = Sample::of(std::process::id())?.since(&self.generator);
        let members: Vec<Usage> = match (&self.server, server.sample()?) {
            (Some(before), Some(after)) => {
                after.iter().zip(before).map(|(after, before)| after.since(before)).collect()
            }
            _ => Vec::new(),
        };
        let usage = (!members.is_empty()).then(|| Usage::sum(&members));
        let (busy, stolen) = CoreTime::of(&self.cores)?.since(&self.core_time);
        let seconds = generator.elapsed_seconds.max(1e-9);
        // The kernel tells a core's time in ticks, which at both ends may belong to either side.
        let doubt = self.cores.len() as f64 * 2.0 / TICKS_PER_SECOND as f64 / seconds;
        let others = usage.map(|server| (busy / seconds - generator.busy() - server.busy() - doubt).max(0.0));
        Ok(Metered { server: usage, members, generator, others, stolen: stolen / seconds })
    }
}

impl Metered {
    /// Says how far the figures of this interval can be trusted.
    pub fn judge(&self, outcome: &mut Outcome) {
        outcome.add("generator busy", "cores", self.generator.busy());
        if let Some(server) = self.server {
            outcome.add("server busy", "cores", server.busy());
            if self.generator.busy() > GENERATOR_BUSY && server.busy() < SERVER_BUSY {
                outcome.refuse(
                    "the generator was the bottleneck: throughput and latency are its own, not the server's",
                );
            }
        }
        let taken = self.others.unwrap_or(0.0) + self.stolen;
        outcome.add("taken by others", "cores", taken);
        if taken > OTHERS_MAX {
            outcome.note(
                "other work ran on the measured cores: throughput and latency are too bad, costs a little",
            );
        }
    }
}

/// Makes a node where there is none.
pub fn ensure(client: &mut Client, path: &str) -> Result<()> {
    match client.create(path, b"", CreateMode::Persistent) {
        Err(error) if !error.is(ErrorCode::NodeExists) => fail!("cannot create {path}: {error}"),
        _ => Ok(()),
    }
}

/// Sends `count` requests pipelined, each made by `request` from its number into the closure it is given, and hands each
/// answer to `check`.
pub fn pipelined(
    client: &mut Client,
    count: usize,
    mut queue: impl FnMut(&mut Client, usize),
    mut check: impl FnMut(usize, i32, Response) -> Result<()>,
) -> Result<()> {
    let mut sent = 0;
    let mut answered = 0;
    while answered < count {
        if sent < count && sent - answered <= SETUP_OUTSTANDING / 2 {
            while sent < count && sent - answered < SETUP_OUTSTANDING {
                queue(client, sent);
                sent += 1;
            }
            client.flush()?;
        }
        let reply = client.receive_reply()?;
        check(answered, reply.err, reply.response)?;
        answered += 1;
    }
    Ok(())
}

/// Opens `count` sessions more, some at a time, each begun by `connect`.
pub fn open_sessions(
    net: &mut Net,
    driver: &mut impl Driver,
    count: usize,
    mut connect: impl FnMut(&mut Net) -> Result<usize>,
) -> Result<()> {
    let before = net.open();
    let mut started = 0;
    while net.open() < before + count {
        while started < count && before + started - net.open() < CONNECTING_MAX {
            connect(net)?;
            started += 1;
        }
        net.turn(PATIENCE, driver)?;
    }
    Ok(())
}

/// Appends what ends a session.
pub fn close_session(xid: i32, out: &mut Vec<u8>) {
    Request::CloseSession.encode_frame(xid, out);
}
