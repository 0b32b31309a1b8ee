//! Sessions at work: groups of them, each with its mix of operations, its pace and its place in the ensemble.
//!
//! Reads spread over all nodes; a session writes to the node that is its own, so that every version it gets back must be one
//! more than the last. Data of a node is always the same, so that every read can be compared. At the end each node's version
//! must say how many writes were acknowledged, on every member, and the parent of created nodes how many there are.

pub mod pacing;
mod traffic;

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

pub use pacing::{Arrivals, Pacing};
use traffic::{Op, Phase, Table, Traffic};

use super::{Meter, Metered, PATIENCE, Scenario, close_session, open_sessions};
use crate::fail;
use crate::failure::{Context, Result};
use crate::member::Role;
use crate::net::Net;
use crate::process::Usage;
use crate::report::{Outcome, Series, SeriesKind};
use crate::server::{SESSION_TIMEOUT_MS, Server, Shape};
use ringkeeper::client::Client;

/// Children of the node that is listed.
pub const LIST_CHILDREN: usize = 100;
/// Answers are counted for a timeline in pieces of this length.
pub const TIMELINE_STEP: Duration = Duration::from_millis(100);
/// How late, at the 99th percentile, the generator may send what an open loop planned, ns.
const LATE_NS_MAX: u64 = 500_000;
/// Quantiles that are told.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// How often what is asked, in parts of the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    pub get: u32,
    pub set: u32,
    pub create: u32,
    /// Of what the session created; a create where nothing is left.
    pub delete: u32,
    /// getChildren of a node with [`LIST_CHILDREN`].
    pub list: u32,
}

impl Mix {
    fn parts(&self) -> [(Op, u32); 5] {
        [
            (Op::Get, self.get),
            (Op::Set, self.set),
            (Op::Create, self.create),
            (Op::Delete, self.delete),
            (Op::List, self.list),
        ]
    }

    /// The sum of the parts.
    pub fn sum(&self) -> u32 {
        self.parts().iter().map(|(_, parts)| parts).sum()
    }

    fn draw(&self, random: u64) -> Op {
        let mut left = (random % u64::from(self.sum().max(1))) as u32;
        for (op, parts) in self.parts() {
            if left < parts {
                return op;
            }
            left -= parts;
        }
        Op::Get
    }

    /// As a title tells it.
    fn title(&self) -> String {
        let named: Vec<_> = self.parts().into_iter().filter(|(_, parts)| *parts > 0).collect();
        match named[..] {
            [(op, _)] => op.name().to_owned(),
            _ => {
                let percent = |parts: u32| f64::from(parts) * 100.0 / f64::from(self.sum());
                let parts: Vec<_> = named
                    .iter()
                    .map(|(op, parts)| format!("{:.0} % {}", percent(*parts), op.name()))
                    .collect();
                parts.join(" ")
            }
        }
    }
}

/// Which members sessions connect to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// All in turn.
    #[default]
    All,
    Leader,
    /// Observers in turn; followers where there is none.
    Observers,
}

/// How keys of reads are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    #[default]
    Uniform,
    /// With the exponent 0.99.
    Zipfian,
}

/// What each member must hold at the end, beside the data of every node, which is always checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expect {
    pub versions: Versions,
    pub children: Children,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Versions {
    /// One more for each acknowledged set.
    Acknowledged,
    /// Nobody wrote.
    Unchanged,
}

/// Of the node that creates are made under.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Children {
    Exactly(u32),
    Rule(ChildRule),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildRule {
    CreatedLessDeleted,
}

impl Expect {
    /// What was acknowledged.
    pub const ACKNOWLEDGED: Expect =
        Expect { versions: Versions::Acknowledged, children: Children::Rule(ChildRule::CreatedLessDeleted) };
}

/// Sessions that do alike.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub mix: Mix,
    pub sessions: usize,
    pub pacing: Pacing,
    pub place: Place,
}

/// How much, of what, how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// `None` is made of the rest.
    pub title: Option<String>,
    pub groups: Vec<Group>,
    pub keys: Keys,
    pub value_bytes: usize,
    /// Nodes that are read, at least as many as sessions.
    pub nodes: usize,
    pub warm_up: Duration,
    /// Before the first interval on a server.
    pub first_warm_up: Duration,
    pub duration: Duration,
    pub shape: Option<Shape>,
    pub expect: Expect,
}

impl Load {
    pub fn sessions(&self) -> usize {
        self.groups.iter().map(|group| group.sessions).sum()
    }

    /// The members a session of the group connects to, in turn.
    fn members(server: &Server, leader: usize, place: Place) -> Vec<usize> {
        let all = 0..server.members().len();
        match place {
            Place::All => all.collect(),
            Place::Leader => vec![leader],
            Place::Observers => {
                let observers: Vec<usize> =
                    all.clone().filter(|index| server.members()[*index].role == Role::Observer).collect();
                let followers = || all.clone().filter(|index| *index != leader).collect::<Vec<_>>();
                match (observers.is_empty(), server.shape.is_alone()) {
                    (false, _) => observers,
                    (true, true) => vec![leader],
                    (true, false) => followers(),
                }
            }
        }
    }
}

impl Scenario for Load {
    fn name(&self) -> String {
        if let Some(title) = &self.title {
            return title.clone();
        }
        let groups: Vec<String> = self
            .groups
            .iter()
            .map(|group| {
                format!(
                    "{}, {} B, {}",
                    group.mix.title(),
                    self.value_bytes,
                    group.pacing.title(group.sessions)
                )
            })
            .collect();
        groups.join("; ")
    }

    fn parameters(&self) -> Value {
        json!({
            "groups": self.groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>(),
            "expect": format!("{:?}", self.expect),
            "keys": format!("{:?}", self.keys),
            "value_bytes": self.value_bytes,
            "nodes": self.nodes,
            "warm_up_seconds": self.warm_up.as_secs_f64(),
            "first_warm_up_seconds": self.first_warm_up.as_secs_f64(),
            "duration_seconds": self.duration.as_secs_f64(),
        })
    }

    fn wants_fresh_server(&self) -> bool {
        false
    }

    fn shape(&self) -> Option<Shape> {
        self.shape
    }

    fn connections(&self) -> usize {
        self.sessions()
    }

    fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    fn run(&mut self, server: &mut Server, first: bool) -> Result<Outcome> {
        let mut run = Running::begin(self, server)?;
        run.turn_for(if first { self.first_warm_up } else { self.warm_up })?;
        run.measure(server, self.duration)?;
        run.end(server)
    }
}

/// A load that runs.
pub struct Running<'a> {
    load: &'a Load,
    pub traffic: Traffic<'a>,
    net: Net,
    leader: usize,
    metered: Option<Metered>,
}

impl<'a> Running<'a> {
    /// Makes the nodes, opens the sessions, sends the first requests.
    pub fn begin(load: &'a Load, server: &Server) -> Result<Running<'a>> {
        let leader = if server.shape.is_alone() { 0 } else { server.leader()? };
        let mut client = Client::open(server.members()[leader].addr).context("cannot set up")?;
        let table = Table::set_up(load, &mut client, server.is_echo()).context("cannot set up")?;
        server.sync()?;
        let mut net = Net::new(server.addr)?;
        let mut traffic = Traffic::new(load, table, !server.is_echo());
        for group in &load.groups {
            let members = Load::members(server, leader, group.place);
            let before = net.count();
            let addr = |index: usize| server.members()[members[(index - before) % members.len()]].addr;
            open_sessions(&mut net, &mut traffic, group.sessions, |net| {
                net.connect_to(addr(net.count()), SESSION_TIMEOUT_MS)
            })?;
        }
        // The set-up's session stays out of the measurement.
        drop(client);
        traffic.start(&mut net)?;
        Ok(Running { load, traffic, net, leader, metered: None })
    }

    /// Turns for so long.
    pub fn turn_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let due = self.traffic.send_due(&mut self.net)?;
            self.net.turn(left.min(due), &mut self.traffic)?;
        }
    }

    pub fn measure(&mut self, server: &Server, duration: Duration) -> Result<()> {
        self.measure_with(server, duration, duration, |_| {})
    }

    /// Likewise, and lets `between` look at the traffic before each slice of the time.
    pub fn measure_with(
        &mut self,
        server: &Server,
        duration: Duration,
        slice: Duration,
        mut between: impl FnMut(&mut Traffic<'a>),
    ) -> Result<()> {
        self.traffic.phase = Phase::Measure { since_ns: self.net.now_ns() };
        let meter = Meter::start(server)?;
        let end = Instant::now() + duration;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            between(&mut self.traffic);
            self.turn_for(left.min(slice))?;
        }
        self.metered = Some(meter.stop(server)?);
        Ok(())
    }

    /// Takes the last answers, closes the sessions, checks what the server holds.
    pub fn end(mut self, server: &Server) -> Result<Outcome> {
        let traffic = &mut self.traffic;
        traffic.phase = Phase::Drain;
        self.net.run(traffic, PATIENCE, "waiting for the last answers", |_, traffic| traffic.is_drained())?;
        traffic.phase = Phase::Close;
        for index in 0..self.net.count() {
            self.net.write(index, |peer| {
                close_session(0, peer.out);
                Ok(())
            })?;
        }
        self.net.run(traffic, PATIENCE, "closing sessions", |net, _| net.open() == 0)?;
        if !server.is_echo() {
            server.sync()?;
            for member in server.members() {
                let doing = || format!("end state on {}", member.name);
                let mut client = Client::open(member.addr).context(doing())?;
                traffic.check_end(&mut client).context(doing())?;
                client.close().context(doing())?;
            }
        }
        if !server.shape.is_alone() && server.leader()? != self.leader {
            fail!("another member leads than at the beginning: costs cannot be told apart");
        }
        let metered = self.metered.take().expect("a load is measured before it ends");
        Ok(self.outcome(&metered, server))
    }

    fn outcome(&self, metered: &Metered, server: &Server) -> Outcome {
        let mut outcome = Outcome::default();
        let traffic = &self.traffic;
        let seconds = metered.generator.elapsed_seconds;
        let count = |ops: &[Op]| ops.iter().map(|op| traffic.latency(*op).len()).sum::<u64>();
        let all = count(&Op::ALL);
        let per = |value: u64, unit: f64, count: u64| value as f64 / unit / count.max(1) as f64;
        outcome.add("operations per second", "", all as f64 / seconds);
        let used: Vec<Op> = Op::ALL.into_iter().filter(|op| !traffic.latency(*op).is_empty()).collect();
        for op in &used {
            let histogram = traffic.latency(*op);
            let kind = if used.len() > 1 { format!("{} ", op.name()) } else { String::new() };
            if used.len() > 1 {
                outcome.add(format!("{kind}per second"), "", histogram.len() as f64 / seconds);
            }
            for (name, quantile) in QUANTILES {
                let latency = histogram.value_at_quantile(quantile);
                outcome.add(format!("{kind}{name}"), "us", latency as f64 / 1000.0);
            }
            outcome.add(format!("{kind}max"), "us", histogram.max() as f64 / 1000.0);
            outcome.series.push(Series {
                name: op.name().to_owned(),
                kind: SeriesKind::Latency,
                points: curve(histogram),
            });
        }
        outcome.series.push(Series {
            name: "answers".to_owned(),
            kind: SeriesKind::Timeline,
            points: traffic.timeline(self.load.duration),
        });
        if let Some(usage) = metered.server {
            outcome.add("server time per operation", "us", per(usage.cpu_ns, 1000.0, all));
            outcome.add("of it user", "us", per(usage.user_ns, 1000.0, all));
            outcome.add("of it system", "us", per(usage.cpu_ns - usage.user_ns, 1000.0, all));
            outcome.add("context switches per operation", "", per(usage.switches(), 1.0, all));
            outcome.add("written per operation", "B", per(usage.written_bytes, 1.0, all));
            outcome.add("server resident", "MB", usage.resident_bytes as f64 / 1e6);
        }
        let writes = count(&[Op::Set, Op::Create, Op::Delete]);
        if !server.shape.is_alone()
            && let Some(leader) = metered.members.get(self.leader)
            && writes > 0
        {
            outcome.add("leader time per write", "us", per(leader.cpu_ns, 1000.0, writes));
            let of_role = |role: Role| {
                let usages: Vec<Usage> = (metered.members.iter().zip(server.members()).enumerate())
                    .filter(|(index, (_, member))| *index != self.leader && member.role == role)
                    .map(|(_, (usage, _))| *usage)
                    .collect();
                (usages.len() as u64, Usage::sum(&usages).cpu_ns)
            };
            for (name, role) in [("follower", Role::Voter), ("observer", Role::Observer)] {
                let (members, cpu_ns) = of_role(role);
                if let Some(each_ns) = cpu_ns.checked_div(members) {
                    let name = format!("time of a {name} per write").replace("a o", "an o");
                    outcome.add(name, "us", per(each_ns, 1000.0, writes));
                }
            }
        }
        metered.judge(&mut outcome);
        if let Some(late_ns) = traffic.late_ns(0.99) {
            outcome.add("sent late by the generator, p99", "us", late_ns as f64 / 1000.0);
            if late_ns > LATE_NS_MAX {
                outcome.refuse("the generator did not keep its schedule: latency contains its own delay");
            }
        }
        if traffic.held_back() {
            outcome.note(
                "the server did not keep up: requests waited in the generator, and their latency contains it",
            );
        }
        outcome
    }
}

/// Points of a latency curve: dense towards the end, where it counts.
fn curve(histogram: &hdrhistogram::Histogram<u64>) -> Vec<(f64, f64)> {
    let quantiles = (0..=120).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 24.0));
    quantiles
        .take_while(|quantile| (1.0 - quantile) * histogram.len() as f64 >= 1.0)
        .map(|quantile| (quantile, histogram.value_at_quantile(quantile) as f64 / 1000.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_drawn_in_its_parts() {
        let mix = Mix { get: 45, set: 8, create: 1, delete: 1, list: 45 };
        let mut drawn = [0; 5];
        for random in 0..1000 {
            drawn[mix.draw(random) as usize] += 1;
        }
        assert_eq!(drawn, [450, 80, 10, 10, 450]);
        assert_eq!(Mix { get: 1, ..Mix::default() }.title(), "getData");
        assert!(mix.title().starts_with("45 % getData 8 % setData"));
    }
}
