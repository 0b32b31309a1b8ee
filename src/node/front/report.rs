//! What a front tells of itself for a four-letter word.

use super::Front;
use super::conn::{Conn, Phase};
use crate::node::link::{FrontLink, FrontReport};
use crate::types::{Now, SessionId};
use crate::words::{ConnectionReport, WatchReport, Word};

impl<L: FrontLink> Front<L> {
    /// Its part of the answer to `word`. Resets what the word resets.
    pub(super) fn report(&mut self, word: Word) -> FrontReport {
        match word {
            Word::Srst => self.counters.reset(),
            Word::Crst => {
                for (_, conn) in &mut self.conns {
                    conn.stats.reset();
                }
            }
            _ => {}
        }
        let mut report = FrontReport {
            connection_count: self.connection_count as u64,
            watch_count: self.watches.watch_count() as u64,
            ..FrontReport::default()
        };
        if word.wants_counters() {
            report.counters = self.counters.clone();
            report.tls_handshakes =
                self.conns.iter().filter(|(_, conn)| conn.in_tls_handshake).count() as u64;
            report.outstanding = self.conns.iter().map(|(_, conn)| u64::from(outstanding(conn))).sum();
        }
        let alive = || self.conns.iter().filter(|(_, conn)| conn.phase != Phase::Gone);
        if word.wants_connections() {
            report.connections = alive().map(|(_, conn)| connection(conn, self.now)).collect();
        }
        if word.wants_watches() {
            let mut watches = WatchReport::default();
            let list = word != Word::Wchs;
            for (id, paths) in self.watches.by_connection() {
                let session = self.conns.get(id as usize).map_or(SessionId::NONE, |conn| conn.session);
                watches.add(session, paths.into_iter(), list);
            }
            report.watches = watches;
        }
        report
    }
}

/// A word's own connection has no request under way.
fn outstanding(conn: &Conn) -> u32 {
    if conn.phase == Phase::Word { 0 } else { conn.pending + u32::from(conn.listing.is_some()) }
}

fn connection(conn: &Conn, now: Now) -> ConnectionReport {
    let stats = &conn.stats;
    let idle_ms = now.instant.since(conn.heard).as_millis() as i64;
    ConnectionReport {
        interest: u32::from(conn.phase != Phase::Word),
        queued: u64::from(outstanding(conn)),
        received: stats.received,
        sent: stats.sent,
        session: conn.session,
        timeout_ms: conn.timeout_ms,
        established_wall_ms: stats.established_wall_ms,
        last_op: stats.last_op,
        last_cxid: stats.last_cxid,
        last_zxid: stats.last_zxid,
        last_response_ms: stats.last_response_ms,
        last_latency_ms: u64::from(stats.last_latency_ms),
        min_latency_ms: u64::from(stats.latency_ms_min),
        avg_latency_ms: stats.latency_ms_total.checked_div(stats.latency_count).unwrap_or(0),
        max_latency_ms: u64::from(stats.latency_ms_max),
        expires_wall_ms: now.wall_ms - idle_ms + i64::from(conn.timeout_ms),
        ..ConnectionReport::new(conn.peer)
    }
}
