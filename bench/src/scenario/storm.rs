//! Watch storm: one change, and every session is told.
//!
//! A round arms a data watch of every session on one node, changes the node from one more session, and ends when the last
//! event is here. Time is counted from the moment the change is sent.

use std::time::Duration;

use ringkeeper::client::{Client, Event, Request};
use ringkeeper::proto::client::{ConnectResponse, EventType, XID_NOTIFICATION};
use ringkeeper::types::Zxid;
use serde_json::{Value, json};

use super::{Meter, PATIENCE, Scenario, close_session, ensure, open_sessions};
use crate::fail;
use crate::failure::{Context, Result};
use crate::net::{Answer, Driver, Net, Peer};
use crate::report::Outcome;
use crate::server::{SESSION_TIMEOUT_MS, Server};

const PATH: &str = "/bench/storm";
/// Rounds before the first that counts on a server: a virtual machine compiles what it runs often.
const ROUNDS_FIRST: usize = 10;
const ROUNDS_WARM_UP: usize = 2;

/// How many watch, and how often.
#[derive(Clone, Debug)]
pub struct Storm {
    pub watchers: usize,
    pub rounds: usize,
}

impl Scenario for Storm {
    fn name(&self) -> String {
        format!("watch storm, one change to {} watchers", self.watchers)
    }

    fn parameters(&self) -> Value {
        json!({ "watchers": self.watchers, "rounds": self.rounds })
    }

    fn wants_fresh_server(&self) -> bool {
        false
    }

    fn connections(&self) -> usize {
        self.watchers + 1
    }

    fn run(&mut self, server: &mut Server, first: bool) -> Result<Outcome> {
        let mut client = Client::open(server.addr).context("cannot set up")?;
        for path in ["/bench", PATH] {
            ensure(&mut client, path)?;
        }
        let mut net = Net::new(server.addr)?;
        let mut watch = Watchers::new(self.watchers);
        open_sessions(&mut net, &mut watch, self.watchers + 1, |net| net.connect(SESSION_TIMEOUT_MS))?;

        let mut last_ns = Vec::new();
        let mut first_ns = Vec::new();
        let mut event_cpu_ns = Vec::new();
        let mut whole = Meter::start(server)?;
        let warm_up = if first { ROUNDS_FIRST } else { ROUNDS_WARM_UP };
        for round in 0..warm_up + self.rounds {
            if round == warm_up {
                whole = Meter::start(server)?;
            }
            watch.armed = 0;
            watch.events = 0;
            watch.changed = false;
            for index in 0..self.watchers {
                net.write(index, |peer| {
                    peer.send(1, &Request::GetData { path: PATH, watch: true });
                    Ok(())
                })?;
                // Answers are taken meanwhile, so that neither side's buffers fill.
                if index % 64 == 0 {
                    net.turn(Duration::ZERO, &mut watch)?;
                }
            }
            let watchers = self.watchers;
            net.run(&mut watch, PATIENCE, "arming the watches", |_, watch| watch.armed == watchers)?;
            let meter = Meter::start(server)?;
            let mut sent_ns = 0;
            net.write(self.watchers, |peer| {
                sent_ns = peer.now_ns;
                peer.send(1, &Request::SetData { path: PATH, data: Some(b"changed"), version: None });
                Ok(())
            })?;
            net.run(&mut watch, PATIENCE, "waiting for the events", |_, watch| {
                watch.events == watchers && watch.changed
            })?;
            let metered = meter.stop(server)?;
            if round >= warm_up {
                last_ns.push(watch.last_ns - sent_ns);
                first_ns.push(watch.first_ns - sent_ns);
                if let Some(server) = metered.server {
                    event_cpu_ns.push(server.cpu_ns / self.watchers as u64);
                }
            }
        }
        let whole = whole.stop(server)?;
        watch.closing = true;
        for index in 0..=self.watchers {
            net.write(index, |peer| {
                close_session(2, peer.out);
                Ok(())
            })?;
            if index % 64 == 0 {
                net.turn(Duration::ZERO, &mut watch)?;
            }
        }
        net.run(&mut watch, PATIENCE, "closing sessions", |net, _| net.open() == 0)?;

        let mut outcome = Outcome::default();
        for (name, values) in [("all events out", &mut last_ns), ("first event out", &mut first_ns)] {
            values.sort_unstable();
            outcome.add(format!("{name}, p50"), "ms", values[values.len() / 2] as f64 / 1e6);
            outcome.add(format!("{name}, least"), "ms", values[0] as f64 / 1e6);
            outcome.add(format!("{name}, most"), "ms", values[values.len() - 1] as f64 / 1e6);
        }
        event_cpu_ns.sort_unstable();
        if let Some(middle) = event_cpu_ns.get(event_cpu_ns.len() / 2) {
            outcome.add("server time per event", "us", *middle as f64 / 1e3);
        }
        // Over all that counts, the arming of watches as well: one round is too short for it.
        whole.judge(&mut outcome);
        Ok(outcome)
    }
}

struct Watchers {
    count: usize,
    armed: usize,
    events: usize,
    /// The change is acknowledged.
    changed: bool,
    closing: bool,
    first_ns: u64,
    last_ns: u64,
}

impl Watchers {
    fn new(count: usize) -> Watchers {
        Watchers { count, armed: 0, events: 0, changed: false, closing: false, first_ns: 0, last_ns: 0 }
    }
}

impl Driver for Watchers {
    fn opened(&mut self, _: &mut Peer<'_>, _: &ConnectResponse) -> Result<()> {
        Ok(())
    }

    fn answered(&mut self, peer: &mut Peer<'_>, answer: &Answer<'_>) -> Result<()> {
        if answer.err != 0 {
            fail!("session {} got error {}", peer.index, answer.err);
        }
        if answer.xid != XID_NOTIFICATION {
            match (self.closing, peer.index == self.count) {
                (true, _) => {}
                (false, true) => self.changed = true,
                (false, false) => self.armed += 1,
            }
            return Ok(());
        }
        let event = Event::decode(Zxid(answer.zxid), answer.body)?;
        if event.kind != EventType::NodeDataChanged || event.path != PATH || peer.index == self.count {
            fail!("session {} got an event it has no watch for: {event:?}", peer.index);
        }
        if self.events == 0 {
            self.first_ns = peer.now_ns;
        }
        self.events += 1;
        self.last_ns = peer.now_ns;
        Ok(())
    }

    fn closed(&mut self, index: usize) -> Result<()> {
        if self.closing { Ok(()) } else { fail!("the server closed the connection of session {index}") }
    }
}
