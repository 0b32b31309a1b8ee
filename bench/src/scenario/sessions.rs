//! New sessions: connect, handshake, and all of them closed again.

use hdrhistogram::Histogram;
use ringkeeper::proto::client::ConnectResponse;
use serde_json::{Value, json};

use super::{Meter, PATIENCE, Scenario, close_session};
use crate::fail;
use crate::failure::Result;
use crate::net::{Answer, Driver, Net, Peer};
use crate::report::Outcome;
use crate::server::{SESSION_TIMEOUT_MS, Server};

/// Sessions opened and closed on a server before the first that count.
const WARM_UP: usize = 10_000;

/// How many sessions, and how many handshakes at the same time.
#[derive(Clone, Debug)]
pub struct Sessions {
    pub sessions: usize,
    pub connecting: usize,
}

impl Scenario for Sessions {
    fn name(&self) -> String {
        format!("{} new sessions, {} at a time", self.sessions, self.connecting)
    }

    fn parameters(&self) -> Value {
        json!({ "sessions": self.sessions, "connecting": self.connecting })
    }

    fn wants_fresh_server(&self) -> bool {
        false
    }

    fn connections(&self) -> usize {
        self.sessions
    }

    fn run(&mut self, server: &mut Server, first: bool) -> Result<Outcome> {
        if first {
            let mut warm = 0;
            while warm < WARM_UP {
                self.open_and_close(server)?;
                warm += self.sessions;
            }
        }
        self.open_and_close(server)
    }
}

impl Sessions {
    fn open_and_close(&self, server: &Server) -> Result<Outcome> {
        let mut net = Net::new(server.addr)?;
        let mut opening = Opening {
            started_ns: Vec::with_capacity(self.sessions),
            latency: Histogram::new_with_bounds(1, u64::MAX >> 1, 3).expect("bounds and digits are in range"),
            seen: Vec::with_capacity(self.sessions),
            closing: false,
            acknowledged: 0,
        };
        let meter = Meter::start(server)?;
        while net.open() < self.sessions {
            while opening.started_ns.len() < self.sessions
                && opening.started_ns.len() - net.open() < self.connecting
            {
                opening.started_ns.push(net.now_ns());
                net.connect(SESSION_TIMEOUT_MS)?;
            }
            net.turn(PATIENCE, &mut opening)?;
        }
        let opened = meter.stop(server)?;

        let mut ids = std::mem::take(&mut opening.seen);
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.sessions && !server.is_echo() {
            fail!("{} sessions were opened under {} ids", self.sessions, ids.len());
        }

        opening.closing = true;
        let meter = Meter::start(server)?;
        let mut asked = 0;
        while net.open() > 0 {
            while asked < self.sessions && asked - (self.sessions - net.open()) < self.connecting {
                net.write(asked, |peer| {
                    close_session(1, peer.out);
                    Ok(())
                })?;
                asked += 1;
            }
            net.turn(PATIENCE, &mut opening)?;
        }
        let closed = meter.stop(server)?;
        if opening.acknowledged != self.sessions {
            fail!("{} of {} closeSession were acknowledged", opening.acknowledged, self.sessions);
        }

        let mut outcome = Outcome::default();
        let count = self.sessions as f64;
        outcome.add("new sessions per second", "", count / opened.generator.elapsed_seconds);
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            outcome.add(name, "us", opening.latency.value_at_quantile(quantile) as f64 / 1000.0);
        }
        if let (Some(open), Some(close)) = (opened.server, closed.server) {
            outcome.add("server time per new session", "us", open.cpu_ns as f64 / 1000.0 / count);
            outcome.add("server time per closed session", "us", close.cpu_ns as f64 / 1000.0 / count);
        }
        opened.judge(&mut outcome);
        Ok(outcome)
    }
}

struct Opening {
    started_ns: Vec<u64>,
    /// From the connect to the handshake's answer.
    latency: Histogram<u64>,
    /// Session ids.
    seen: Vec<i64>,
    closing: bool,
    acknowledged: usize,
}

impl Driver for Opening {
    fn opened(&mut self, peer: &mut Peer<'_>, response: &ConnectResponse) -> Result<()> {
        self.seen.push(response.session.0);
        let latency_ns = peer.now_ns - self.started_ns[peer.index];
        self.latency.record(latency_ns.max(1)).expect("within the bounds");
        Ok(())
    }

    fn answered(&mut self, peer: &mut Peer<'_>, answer: &Answer<'_>) -> Result<()> {
        if !self.closing || answer.err != 0 {
            fail!("session {} got an answer with error {}", peer.index, answer.err);
        }
        self.acknowledged += 1;
        Ok(())
    }

    fn closed(&mut self, index: usize) -> Result<()> {
        if self.closing { Ok(()) } else { fail!("the server closed the connection of session {index}") }
    }
}
