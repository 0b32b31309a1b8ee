//! The state as a leader sends it to learners that are too far behind: one exact pass over the tree for all that wait.

use bytes::Bytes;

use super::snapshots::Snapshots;
use crate::jute::put_string;
use crate::request::Database;
use crate::snapshot::put_tables;
use crate::types::{Instant, SessionId};
use crate::zab::leader::Leader;
use crate::zab::recent::Recent;

/// Nodes handed out in one turn: a few hundred microseconds.
const NODES_PER_TURN: usize = 1024;

/// The pass under way, and whether another is wanted.
#[derive(Debug, Default)]
pub(super) struct Feed {
    is_wanted: bool,
    is_running: bool,
}

impl Feed {
    /// A learner waits for a snapshot that begins from now on.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// One slice, as far as all who receive have room. Whether the next could be handed out at once.
    pub fn step(
        &mut self,
        database: &mut Database,
        snapshots: &Snapshots,
        leader: &mut Leader,
        recent: &Recent,
        now: Instant,
    ) -> bool {
        if !self.is_running {
            // The tree keeps one image of itself at a time.
            if !self.is_wanted || snapshots.is_running() {
                return false;
            }
            self.is_wanted = false;
            self.is_running = true;
            database.tree.snapshot_begin();
            leader.snapshot_begin(now, database.zxid_applied(), recent);
            let sessions: Vec<(SessionId, i32)> =
                database.sessions.iter().map(|session| (session.id, session.timeout_ms_stored)).collect();
            let acls = database.tree.acls().map(|(id, list)| (i64::from(id.0), list));
            let mut tables = Vec::new();
            put_tables(&mut tables, sessions.into_iter(), acls);
            leader.snapshot_part(&Bytes::from(tables));
        }
        if !leader.snapshot_room() {
            return false;
        }
        let mut slice = Vec::new();
        let is_done = database.tree.snapshot_step(NODES_PER_TURN, &mut slice);
        if is_done {
            put_string(&mut slice, "/");
        }
        leader.snapshot_part(&Bytes::from(slice));
        if is_done {
            leader.snapshot_end(now);
            self.is_running = false;
        }
        !is_done || self.is_wanted
    }

    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// The reign is over.
    pub fn abandon(&mut self, database: &mut Database) {
        if std::mem::take(&mut self.is_running) {
            database.tree.snapshot_abandon();
        }
        self.is_wanted = false;
    }
}
