//! A snapshot's items become a database of their own.

use super::Database;
use crate::proto::{Acl, StatPersisted};
use crate::session::SessionTable;
use crate::snapshot::LoadSink;
use crate::tree::TreeOptions;
use crate::types::{Instant, SessionId};

/// Takes a snapshot, from a file or from a leader. [`Database::finish_load`] is the owner's to call.
pub struct Loader {
    database: Database,
    tick_ms: u32,
    hash_seed: u64,
    now: Instant,
}

impl Loader {
    /// `tick_ms` is what sessions end on; their leases begin at `now`.
    pub fn new(tick_ms: u32, hash_seed: u64, now: Instant) -> Loader {
        Loader { database: fresh(tick_ms, hash_seed), tick_ms, hash_seed, now }
    }

    pub fn database(&mut self) -> &mut Database {
        &mut self.database
    }

    pub fn tree_digest(&self) -> u64 {
        self.database.tree.digest()
    }

    pub fn into_database(self) -> Database {
        self.database
    }
}

fn fresh(tick_ms: u32, hash_seed: u64) -> Database {
    Database::for_loading(TreeOptions { hash_seed }, SessionTable::new(tick_ms, hash_seed))
}

impl LoadSink for Loader {
    fn reset(&mut self) {
        self.database = fresh(self.tick_ms, self.hash_seed);
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.database.load_session(session, timeout_ms, self.now);
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        // A null list allows what an empty one does.
        let bytes = acl.map_or(&[0u8; 4][..], Acl::bytes);
        self.database.load_acl(id, bytes).map_err(|error| error.to_string())
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        self.database.load_node(path, data, acl, stat).map_err(|error| error.to_string())
    }
}
