//! Four-letter words: the pipeline asks every front, adds what it knows itself, and answers.

use std::collections::{BTreeMap, VecDeque};

use super::Startup;
use super::standing::{Chronicle, Standing};
use crate::metrics::PipelineCounters;
use crate::node::ConnId;
use crate::node::link::FrontReport;
use crate::request::Database;
use crate::request::quota::{self, Track};
use crate::types::{Instant, Now, Zxid};
use crate::words::{self, DIGESTS_MAX, NamespaceReport, Report, SessionReport, TreeReport, Word};

/// zxids between two digests `hash` can tell. Source: ZooKeeper `DataTree.DIGEST_LOG_INTERVAL`.
const DIGEST_INTERVAL: i64 = 128;
/// Namespaces `mntr` tells of.
const NAMESPACES_MAX: usize = 256;

/// Who is told the end of a survey.
#[derive(Debug, Clone, Copy)]
pub enum Asker {
    Client {
        front: usize,
        conn: ConnId,
    },
    /// The admin server, under the number of its question.
    Admin {
        number: u64,
    },
}

/// A word that waits for the fronts' reports.
#[derive(Debug)]
pub struct Survey {
    pub asker: Asker,
    pub word: Word,
    missing: usize,
    merged: FrontReport,
}

/// What the pipeline counts, and the words under way.
#[derive(Debug)]
pub struct Surveys {
    pub counters: PipelineCounters,
    /// Of a member of an ensemble.
    pub chronicle: Chronicle,
    started: Instant,
    trace_mask: i64,
    digests: VecDeque<(Zxid, u64)>,
    surveys: BTreeMap<u64, Survey>,
    next: u64,
    front_count: usize,
}

impl Surveys {
    pub fn new(front_count: usize, now: Instant, startup: Startup) -> Surveys {
        let mut counters = PipelineCounters::default();
        counters.startup_log_load_ms.record(startup.took.as_millis() as u64);
        counters.startup_transactions.record(startup.transactions);
        Surveys {
            counters,
            chronicle: Chronicle::default(),
            started: now,
            trace_mask: words::TRACE_MASK_DEFAULT,
            digests: VecDeque::new(),
            surveys: BTreeMap::new(),
            next: 0,
            front_count,
        }
    }

    /// Begins to answer a word; each front is to be asked under the number this gives.
    pub fn begin(&mut self, asker: Asker, word: Word, argument: i64) -> u64 {
        match word {
            Word::Stmk => self.trace_mask = argument,
            Word::Srst => self.counters.reset(),
            _ => {}
        }
        self.next += 1;
        let survey = Survey { asker, word, missing: self.front_count, merged: FrontReport::default() };
        self.surveys.insert(self.next, survey);
        self.next
    }

    /// Takes one front's report; gives the survey when it was the last.
    pub fn add(&mut self, number: u64, report: FrontReport) -> Option<Survey> {
        let survey = self.surveys.get_mut(&number)?;
        survey.missing -= 1;
        let merged = &mut survey.merged;
        merged.counters.merge(&report.counters);
        merged.connection_count += report.connection_count;
        merged.outstanding += report.outstanding;
        merged.tls_handshakes += report.tls_handshakes;
        merged.watch_count += report.watch_count;
        merged.connections.extend(report.connections);
        merged.watches.merge(report.watches);
        if survey.missing == 0 { self.surveys.remove(&number) } else { None }
    }

    /// A transaction was applied, and this is the tree's digest now.
    pub fn applied(&mut self, zxid: Zxid, digest: u64) {
        self.counters.applied += 1;
        if zxid.0 % DIGEST_INTERVAL == 0 {
            if self.digests.len() == DIGESTS_MAX {
                self.digests.pop_front();
            }
            self.digests.push_back((zxid, digest));
        }
    }

    /// What there is to say to a word, once its reports are complete.
    pub fn report(&self, survey: Survey, standing: Standing, database: &Database, now: Now) -> Report {
        let FrontReport {
            counters,
            connections,
            connection_count,
            watches,
            watch_count,
            outstanding,
            tls_handshakes,
        } = survey.merged;
        let tree = &database.tree;
        Report {
            mode: standing.mode,
            zxid: database.zxid_applied(),
            uptime_ms: now.instant.since(self.started).as_millis() as u64,
            trace_mask: self.trace_mask,
            front: counters,
            pipeline: self.counters.clone(),
            connection_count,
            outstanding,
            tls_handshakes,
            watch_count,
            connections,
            watches,
            tree: TreeReport {
                // ZooKeeper keeps the root under two names and counts both.
                node_count: tree.node_count() as u64 + 1,
                ephemerals_count: database.ephemerals().count() as u64,
                data_bytes: tree.data_bytes(),
            },
            sessions: SessionReport {
                timeouts: standing.timeouts,
                local: standing.local_sessions,
                ..sessions(database, survey.word, now)
            },
            digests: self.digests.iter().copied().collect(),
            namespaces: namespaces(database),
            ensemble: standing.ensemble,
        }
    }
}

fn sessions(database: &Database, word: Word, now: Now) -> SessionReport {
    let mut report = SessionReport { global: database.sessions.len() as u64, ..SessionReport::default() };
    if word == Word::Dump {
        let mut expiries: BTreeMap<i64, Vec<_>> = BTreeMap::new();
        for session in database.sessions.iter() {
            let ends = database.sessions.ends(session.id).unwrap_or(now.instant);
            let in_ms = ends.since(now.instant).as_millis() as i64;
            expiries.entry(now.wall_ms + in_ms).or_default().push(session.id);
        }
        report.expiries = expiries.into_iter().collect();
        for session in database.ephemerals().sessions() {
            let paths = database.ephemerals_of(session).map(|node| database.tree.path(node)).collect();
            report.ephemerals.push((session, paths));
        }
    }
    report
}

/// Quotas of top-level nodes.
fn namespaces(database: &Database) -> Vec<NamespaceReport> {
    let track = |path: String| {
        let node = database.tree.find(&path)?;
        database.tree.data(node).and_then(Track::parse)
    };
    let top_level = database.quotas.iter().filter(|subject| !subject[1..].contains('/'));
    top_level
        .take(NAMESPACES_MAX)
        .filter_map(|subject| {
            let limits = track(quota::limits_path(subject))?;
            let used = track(quota::stats_path(subject))?;
            Some(NamespaceReport {
                name: subject[1..].to_owned(),
                count_limit: limits.count,
                bytes_limit: limits.bytes,
                count_usage: used.count,
                bytes_usage: used.bytes,
                exceeded: 0,
            })
        })
        .collect()
}
