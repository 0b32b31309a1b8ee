//! Idle sessions: what each holds in the server's memory, and what they cost when silent and when they ping.

use std::time::{Duration, Instant};

use ringkeeper::client::Request;
use ringkeeper::proto::client::{ConnectResponse, XID_PING};
use serde_json::{Value, json};

use super::{Meter, PATIENCE, Scenario, close_session, open_sessions};
use crate::fail;
use crate::failure::Result;
use crate::net::{Answer, Driver, Net, Peer};
use crate::report::Outcome;
use crate::server::Server;

/// Pause between pings that are due.
const PING_LOOK: Duration = Duration::from_millis(5);

/// How many sessions, for how long.
#[derive(Clone, Debug)]
pub struct Idle {
    pub sessions: usize,
    /// Of the sessions; they ping at a third of it, as ZooKeeper's clients do.
    pub timeout: Duration,
    /// Of each interval: silent, then pinging.
    pub duration: Duration,
}

impl Scenario for Idle {
    fn name(&self) -> String {
        format!("{} idle sessions", self.sessions)
    }

    fn parameters(&self) -> Value {
        json!({
            "sessions": self.sessions,
            "timeout_seconds": self.timeout.as_secs_f64(),
            "duration_seconds": self.duration.as_secs_f64(),
        })
    }

    fn wants_fresh_server(&self) -> bool {
        true
    }

    fn connections(&self) -> usize {
        self.sessions
    }

    fn run(&mut self, server: &mut Server, _first: bool) -> Result<Outcome> {
        if self.duration >= self.timeout {
            fail!(
                "silent for {:?}, sessions with a timeout of {:?} would expire",
                self.duration,
                self.timeout
            );
        }
        let resident = |server: &Server| -> Result<Option<u64>> { server.resident_bytes() };
        let before = resident(server)?;
        let mut net = Net::new(server.addr)?;
        let mut idle = Idling { pongs: 0, closing: false };
        open_sessions(&mut net, &mut idle, self.sessions, |net| {
            net.connect(self.timeout.as_millis() as i32)
        })?;
        let after = resident(server)?;

        let meter = Meter::start(server)?;
        let silent_until = Instant::now() + self.duration;
        while Instant::now() < silent_until {
            net.turn(silent_until.saturating_duration_since(Instant::now()), &mut idle)?;
        }
        let silent = meter.stop(server)?.server;

        let meter = Meter::start(server)?;
        let interval = self.timeout / 3;
        let started = Instant::now();
        let mut pings = 0;
        while started.elapsed() < self.duration {
            // Spread evenly: so many are due by now.
            let due =
                (self.sessions as f64 * started.elapsed().as_secs_f64() / interval.as_secs_f64()) as usize;
            while pings < due {
                net.write(pings % self.sessions, |peer| {
                    peer.send(XID_PING, &Request::Ping);
                    Ok(())
                })?;
                pings += 1;
            }
            net.turn(PING_LOOK, &mut idle)?;
        }
        net.run(&mut idle, PATIENCE, "waiting for the last pongs", |_, idle| idle.pongs == pings)?;
        let pinging = meter.stop(server)?.server;
        if net.open() != self.sessions {
            fail!("{} of {} sessions are left", net.open(), self.sessions);
        }
        idle.closing = true;
        for index in 0..self.sessions {
            net.write(index, |peer| {
                close_session(1, peer.out);
                Ok(())
            })?;
            if index % 64 == 0 {
                net.turn(Duration::ZERO, &mut idle)?;
            }
        }
        net.run(&mut idle, PATIENCE, "closing sessions", |net, _| net.open() == 0)?;

        let mut outcome = Outcome::default();
        if let (Some(before), Some(after)) = (before, after) {
            outcome.add(
                "resident per session",
                "B",
                after.saturating_sub(before) as f64 / self.sessions as f64,
            );
        }
        if let (Some(silent), Some(pinging)) = (silent, pinging) {
            outcome.add("server busy, silent", "% of a core", silent.busy() * 100.0);
            outcome.add("server busy, pinging", "% of a core", pinging.busy() * 100.0);
            outcome.add("server time per ping", "us", pinging.cpu_ns as f64 / 1000.0 / pings.max(1) as f64);
        }
        outcome.add("pings per second", "", pings as f64 / self.duration.as_secs_f64());
        Ok(outcome)
    }
}

struct Idling {
    pongs: usize,
    closing: bool,
}

impl Driver for Idling {
    fn opened(&mut self, _: &mut Peer<'_>, _: &ConnectResponse) -> Result<()> {
        Ok(())
    }

    fn answered(&mut self, peer: &mut Peer<'_>, answer: &Answer<'_>) -> Result<()> {
        if answer.err != 0 || (!self.closing && answer.xid != XID_PING) {
            fail!("session {} got xid {} with error {}", peer.index, answer.xid, answer.err);
        }
        self.pongs += usize::from(answer.xid == XID_PING);
        Ok(())
    }

    fn closed(&mut self, index: usize) -> Result<()> {
        if self.closing { Ok(()) } else { fail!("the server closed the connection of session {index}") }
    }
}
