//! The leader is killed under load: how long until a write is acknowledged again.
//!
//! Each session writes to a node of its own, one write at a time, and when its connection ends takes its session to the next
//! member, as clients do. Time counts from the kill to the first acknowledged write whose zxid is of a later epoch. Then the
//! killed member is started again, and once it serves the next leader is killed. A session that expires, an acknowledged
//! write that is lost or doubled, a version that goes back: each fails the run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, ClientError, ConnectOptions};
use ringkeeper::types::Zxid;
use serde_json::{Value, json};

use super::{PATIENCE, Scenario, ensure};
use crate::fail;
use crate::failure::{Context, Failure, Result};
use crate::report::{Outcome, Series, SeriesKind};
use crate::server::{SESSION_TIMEOUT_MS, Server, Shape};
use crate::sys;

/// Pause of a session between two tries to connect: what a member refuses, it must not be kept busy with.
const RETRY: Duration = Duration::from_millis(2);
/// How long a session waits for a connection or an answer before it takes the next member.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Writing undisturbed before each kill.
const CALM: Duration = Duration::from_millis(500);
/// Of the timeline: its step, and what it shows before and after a kill.
const STEP: Duration = Duration::from_millis(10);
const SHOWN_BEFORE: Duration = Duration::from_millis(200);
const SHOWN_AFTER: Duration = Duration::from_millis(1500);

/// How often the leader is killed, and under how many sessions.
#[derive(Clone, Debug)]
pub struct Failover {
    pub kills: usize,
    pub sessions: usize,
    pub voters: usize,
}

impl Scenario for Failover {
    fn name(&self) -> String {
        format!("leader of {} killed under {} writing sessions", self.voters, self.sessions)
    }

    fn parameters(&self) -> Value {
        json!({
            "kills": self.kills,
            "sessions": self.sessions,
            "voters": self.voters,
            "retry_ms": RETRY.as_millis() as u64,
            "calm_ms": CALM.as_millis() as u64,
        })
    }

    fn wants_fresh_server(&self) -> bool {
        true
    }

    fn shape(&self) -> Option<Shape> {
        Some(Shape { voters: self.voters, observers: 0 })
    }

    fn connections(&self) -> usize {
        self.sessions
    }

    fn run(&mut self, server: &mut Server, _first: bool) -> Result<Outcome> {
        if server.shape.voters < 3 {
            fail!("a leader is killed in an ensemble of 3 or more that was started here");
        }
        let leader = server.leader()?;
        let mut client = Client::open(server.members()[leader].addr).context("cannot set up")?;
        ensure(&mut client, "/bench")?;
        for session in 0..self.sessions {
            ensure(&mut client, &path(session))?;
        }
        client.close()?;
        server.sync()?;

        let addrs: Vec<_> = server.members().iter().map(|member| member.addr).collect();
        let stop = AtomicBool::new(false);
        let writes = Mutex::new(Vec::new());
        let watch = Watch { stop: &stop, writes: &writes };
        let mut kills = Vec::new();
        let counts = thread::scope(|scope| {
            let writers: Vec<_> = (0..self.sessions)
                .map(|session| {
                    let (addrs, watch) = (&addrs, &watch);
                    scope.spawn(move || {
                        let written = write(session, addrs, watch);
                        if written.is_err() {
                            watch.stop.store(true, Ordering::Relaxed);
                        }
                        written
                    })
                })
                .collect();
            let killed = (0..self.kills).try_for_each(|number| {
                kills.push(kill(server, &watch, self.sessions)?);
                eprint!("\r  {} of {} kills", number + 1, self.kills);
                Ok(())
            });
            eprintln!();
            stop.store(true, Ordering::Relaxed);
            // Why a writer ended says more than that the others missed it.
            let counts: Result<Vec<u64>> =
                writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).collect();
            counts.and_then(|counts| killed.map(|()| counts))
        })?;
        self.check_end(server, &counts)?;
        Ok(self.outcome(&kills, writes.into_inner().expect("no writer panicked")))
    }
}

fn path(session: usize) -> String {
    format!("/bench/failover-{session:03}")
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
struct Written {
    at: Instant,
    session: usize,
    zxid: Zxid,
}

/// What writers share.
struct Watch<'a> {
    stop: &'a AtomicBool,
    writes: &'a Mutex<Vec<Written>>,
}

impl Watch<'_> {
    /// Calls `look` with the writes so far until it finds what it wants.
    fn wait<T>(&self, doing: &str, mut look: impl FnMut(&[Written]) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&self.writes.lock().expect("no writer panics with the lock")) {
                return Ok(found);
            }
            if sys::interrupted() {
                fail!("interrupted");
            }
            if self.stop.load(Ordering::Relaxed) {
                fail!("{doing}: a writer ended");
            }
            if Instant::now() >= deadline {
                fail!("{doing}: not within {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One session: writes its count until told to stop. Returns how many were acknowledged.
fn write(session: usize, addrs: &[std::net::SocketAddr], watch: &Watch<'_>) -> Result<u64> {
    let path = path(session);
    let mut options = ConnectOptions {
        timeout_ms: SESSION_TIMEOUT_MS,
        patience: CONNECT_PATIENCE,
        ..ConnectOptions::default()
    };
    let mut member = session % addrs.len();
    let mut client: Option<Client> = None;
    let mut acknowledged = 0u64;
    let mut version = 0;
    // Sent, and its answer never seen: it may have happened or not.
    let mut in_doubt = 0;
    while !watch.stop.load(Ordering::Relaxed) {
        let Some(open) = &mut client else {
            match Client::connect(addrs[member], &options) {
                Ok(mut opened) => {
                    opened.set_patience(ANSWER_PATIENCE);
                    client = Some(opened);
                }
                Err(ClientError::Refused) => fail!("the session of {path} expired"),
                Err(_) => {
                    member = (member + 1) % addrs.len();
                    thread::sleep(RETRY);
                }
            }
            continue;
        };
        match open.set_data(&path, format!("{}", acknowledged + 1).as_bytes(), None) {
            Ok(stat) => {
                let least = version + 1;
                if !(least..=least + in_doubt).contains(&stat.version) {
                    fail!(
                        "{path} is at version {} after version {version} was acknowledged and {in_doubt} writes had no answer",
                        stat.version
                    );
                }
                acknowledged += 1;
                version = stat.version;
                in_doubt = 0;
                let written = Written { at: Instant::now(), session, zxid: stat.mzxid };
                watch.writes.lock().expect("no writer panics with the lock").push(written);
            }
            Err(
                error @ (ClientError::Protocol(_) | ClientError::Unexpected { .. } | ClientError::Refused),
            ) => {
                fail!("setData {path}: {error}")
            }
            Err(ClientError::Server { err }) if err != CONNECTION_LOSS => {
                fail!("setData {path} failed with {err}")
            }
            Err(_) => {
                in_doubt += 1;
                options = ConnectOptions { patience: CONNECT_PATIENCE, ..open.reconnect_options() };
                client = None;
                member = (member + 1) % addrs.len();
            }
        }
    }
    Ok(acknowledged)
}

/// ZooKeeper's error for a request whose fate is not known.
const CONNECTION_LOSS: i32 = -4;

/// One kill, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Kill {
    at: Instant,
    /// To the first acknowledged write of a new epoch.
    first: Duration,
    /// To the last session's first.
    all: Duration,
    /// From its start to the killed member's first session.
    rejoined: Duration,
}

fn kill(server: &mut Server, watch: &Watch<'_>, sessions: usize) -> Result<Kill> {
    let calm_until = Instant::now() + CALM;
    watch.wait("waiting for calm", |_| (Instant::now() >= calm_until).then_some(()))?;
    let leader = server.leader()?;
    let epoch = watch.wait("waiting for a write", |writes| writes.last().map(|write| write.zxid.epoch()))?;
    let before = watch.writes.lock().expect("no writer panics with the lock").len();
    let at = server.member(leader).kill()?;
    let (first, all) = watch.wait("waiting for writes after the leader's death", |writes| {
        let mut first = vec![None; sessions];
        for write in writes[before..].iter().filter(|write| write.zxid.epoch() > epoch) {
            first[write.session].get_or_insert(write.at.saturating_duration_since(at));
        }
        let all: Option<Vec<Duration>> = first.into_iter().collect();
        let all = all?;
        Some((*all.iter().min()?, *all.iter().max()?))
    })?;
    let started = Instant::now();
    server.member(leader).launch()?;
    server.member(leader).wait_serving()?;
    Ok(Kill { at, first, all, rejoined: started.elapsed() })
}

impl Failover {
    /// Each member holds each session's last acknowledged write, or a later one that had no answer.
    fn check_end(&self, server: &Server, counts: &[u64]) -> Result<()> {
        server.sync()?;
        for member in server.members() {
            let mut client = Client::open(member.addr).context(&member.name)?;
            for (session, acknowledged) in counts.iter().enumerate() {
                let (data, _) = client.get_data(&path(session), false)?;
                let held =
                    data.and_then(|data| String::from_utf8(data).ok()?.parse::<u64>().ok()).unwrap_or(0);
                if held != *acknowledged && held != acknowledged + 1 {
                    return Err(Failure(format!(
                        "{} holds write {held} of {}, and {acknowledged} was acknowledged",
                        member.name,
                        path(session)
                    )));
                }
            }
            client.close()?;
        }
        Ok(())
    }

    fn outcome(&self, kills: &[Kill], writes: Vec<Written>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut tell = |name: &str, of: fn(&Kill) -> Duration| {
            let mut values: Vec<Duration> = kills.iter().map(of).collect();
            values.sort_unstable();
            for (which, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0), ("least", 0.0)] {
                // Of few values the upper one: what is claimed is not passed.
                let index = ((values.len() as f64 * quantile).ceil() as usize).clamp(1, values.len()) - 1;
                outcome.add(format!("{name}, {which}"), "ms", values[index].as_secs_f64() * 1e3);
            }
        };
        tell("leader's death to the next acknowledged write", |kill| kill.first);
        tell("to every session's next", |kill| kill.all);
        tell("the killed member serves again", |kill| kill.rejoined);
        outcome.add("kills", "", kills.len() as f64);
        outcome.add("acknowledged writes", "", writes.len() as f64);

        let steps = ((SHOWN_BEFORE + SHOWN_AFTER).as_millis() / STEP.as_millis()) as usize;
        let mut counts = vec![0u32; steps];
        for write in &writes {
            for kill in kills {
                let from = kill.at - SHOWN_BEFORE;
                let step =
                    write.at.checked_duration_since(from).map(|since| since.as_millis() / STEP.as_millis());
                if let Some(count) = step.and_then(|step| counts.get_mut(step as usize)) {
                    *count += 1;
                }
            }
        }
        let per_second = |count: u32| f64::from(count) / kills.len().max(1) as f64 / STEP.as_secs_f64();
        let second = |step: usize| step as f64 * STEP.as_secs_f64() - SHOWN_BEFORE.as_secs_f64();
        outcome.series.push(Series {
            name: "acknowledged writes around the kill".to_owned(),
            kind: SeriesKind::Timeline,
            points: counts
                .iter()
                .enumerate()
                .map(|(step, count)| (second(step), per_second(*count)))
                .collect(),
        });
        outcome
    }
}
