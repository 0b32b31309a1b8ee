//! Sessions, their ephemeral nodes and the connections' own timers: `dump`.

use std::collections::BTreeMap;

use super::connections::{ConnectionReport, java_address};
use super::date::Date;
use super::text::Text;
use crate::types::SessionId;

/// The session table as `dump` and `mntr` tell it.
#[derive(Debug, Clone, Default)]
pub struct SessionReport {
    pub global: u64,
    pub local: u64,
    /// For `dump`: when which sessions expire (wall clock, milliseconds), in any order.
    pub expiries: Vec<(i64, Vec<SessionId>)>,
    /// For `dump` of a learner, which knows the sessions and their timeouts in milliseconds but not when they expire.
    pub timeouts: Option<Vec<(SessionId, i32)>>,
    /// For `dump`: the ephemeral nodes of the sessions that have any, in any order.
    pub ephemerals: Vec<(SessionId, Vec<String>)>,
}

/// Source: ZooKeeper `ExpiryQueue#dump`, `DataTree#dumpEphemerals`, `NIOServerCnxnFactory#dumpConnections`.
pub(super) fn dump(text: &mut Text, sessions: &SessionReport, connections: &[ConnectionReport]) {
    text.line("SessionTracker dump:");
    match &sessions.timeouts {
        Some(timeouts) => learned_sessions(text, timeouts),
        None => {
            let mut sets: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (at, members) in &sessions.expiries {
                sets.entry(*at).or_default().extend(members.iter().map(SessionId::to_string));
            }
            expiry_sets(text, "Session", &sets);
        }
    }

    text.line("ephemeral nodes dump:");
    text.line(&format!("Sessions with Ephemerals ({}):", sessions.ephemerals.len()));
    for (session, paths) in &sessions.ephemerals {
        if text.is_full() {
            return;
        }
        text.line(&format!("{session}:"));
        for path in paths {
            text.line(&format!("\t{path}"));
        }
    }

    text.line("Connections dump:");
    let mut sets: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for connection in connections {
        let line = format!("ip: {} sessionId: {}", java_address(&connection.peer), connection.session);
        sets.entry(connection.expires_wall_ms).or_default().push(line);
    }
    expiry_sets(text, "Connections", &sets);
}

/// Source: ZooKeeper `LearnerSessionTracker#dumpSessions`.
fn learned_sessions(text: &mut Text, timeouts: &[(SessionId, i32)]) {
    text.line(&format!("Global Sessions({}):", timeouts.len()));
    for (session, timeout_ms) in timeouts {
        if text.is_full() {
            return;
        }
        text.line(&format!("{session}\t{timeout_ms}ms"));
    }
}

fn expiry_sets(text: &mut Text, what: &str, sets: &BTreeMap<i64, Vec<String>>) {
    let members: usize = sets.values().map(Vec::len).sum();
    text.line(&format!("{what} Sets ({})/({members}):", sets.len()));
    for (at, members) in sets {
        if text.is_full() {
            return;
        }
        text.line(&format!("{} expire at {}:", members.len(), Date::of_ms(*at).java()));
        for member in members {
            text.line(&format!("\t{member}"));
        }
    }
}
