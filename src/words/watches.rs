//! Who watches what: `wchs`, `wchc`, `wchp`.
//!
//! ZooKeeper counts only data watches here; we count all, which `zk_watch_count` does in both (operations §2.8).

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use super::text::Text;
use crate::types::SessionId;

/// Watches one report lists; beyond it they are counted only.
const LISTED_MAX: usize = 1 << 20;

/// Watches of one front, or after [`WatchReport::merge`] of several.
#[derive(Debug, Clone, Default)]
pub struct WatchReport {
    /// Connections that have a watch.
    pub connections: u64,
    pub watches: u64,
    /// One of each path, so that paths watched from several fronts count once.
    path_hashes: Vec<u64>,
    /// For `wchc` and `wchp`.
    by_session: Vec<(SessionId, Vec<String>)>,
    listed: usize,
}

impl WatchReport {
    /// Adds one connection's watches: the path of each, once per path. `list` keeps the paths themselves, for `wchc`
    /// and `wchp`; without it they are counted (`wchs`).
    pub fn add<'a>(&mut self, session: SessionId, paths: impl Iterator<Item = &'a str>, list: bool) {
        let hasher = foldhash::fast::FixedState::with_seed(0);
        let mut listed = Vec::new();
        let mut count = 0;
        for path in paths {
            count += 1;
            self.path_hashes.push(hasher.hash_one(path));
            if list && self.listed < LISTED_MAX {
                self.listed += 1;
                listed.push(path.to_owned());
            }
        }
        if count > 0 {
            self.connections += 1;
            self.watches += count;
        }
        if !listed.is_empty() {
            self.by_session.push((session, listed));
        }
    }

    /// Adds what another front has.
    pub fn merge(&mut self, other: WatchReport) {
        self.connections += other.connections;
        self.watches += other.watches;
        self.path_hashes.extend(other.path_hashes);
        self.by_session.extend(other.by_session);
        self.listed += other.listed;
    }

    /// Paths by session, where they were listed.
    pub fn by_session(&self) -> &[(SessionId, Vec<String>)] {
        &self.by_session
    }

    /// Sessions by path, where they were listed.
    pub fn by_path(&self) -> BTreeMap<&str, Vec<SessionId>> {
        let mut by_path: BTreeMap<&str, Vec<SessionId>> = BTreeMap::new();
        for (session, paths) in &self.by_session {
            for path in paths {
                by_path.entry(path).or_default().push(*session);
            }
        }
        by_path
    }

    /// Different paths watched.
    pub fn paths(&self) -> usize {
        let mut hashes = self.path_hashes.clone();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.len()
    }
}

pub(super) fn wchs(text: &mut Text, report: &WatchReport) {
    text.line(&format!("{} connections watching {} paths", report.connections, report.paths()));
    text.line(&format!("Total watches:{}", report.watches));
}

pub(super) fn wchc(text: &mut Text, report: &WatchReport) {
    for (session, paths) in &report.by_session {
        if text.is_full() {
            return;
        }
        text.line(&session.to_string());
        for path in paths {
            text.line(&format!("\t{path}"));
        }
    }
    text.line("");
}

pub(super) fn wchp(text: &mut Text, report: &WatchReport) {
    for (path, sessions) in report.by_path() {
        if text.is_full() {
            return;
        }
        text.line(path);
        for session in sessions {
            text.line(&format!("\t{session}"));
        }
    }
    text.line("");
}
