//! Recovery into a database: what `storage` reads becomes the tree, the sessions and what follows from them.

use super::storage::{DigestCheck, Restore};
use crate::proto::txn::{DIGEST_VERSION, TxnEntry};
use crate::proto::{Acl, StatPersisted};
use crate::request::Database;
use crate::request::apply::{Fit, Nobody};
use crate::session::SessionTable;
use crate::snapshot::LoadSink;
use crate::tree::TreeOptions;
use crate::types::{Instant, SessionId, Zxid};

/// A database being recovered.
pub(super) struct Restorer {
    database: Database,
    tick_ms: u32,
    hash_seed: u64,
    now: Instant,
    fuzzy_until: Zxid,
    compares: bool,
}

impl Restorer {
    /// `compares`: digests are kept and compared.
    pub(super) fn new(tick_ms: u32, hash_seed: u64, now: Instant, compares: bool) -> Restorer {
        let database = fresh(tick_ms, hash_seed);
        Restorer { database, tick_ms, hash_seed, now, fuzzy_until: Zxid::ZERO, compares }
    }

    /// Panics if ephemeral nodes without a session are found in data that is not `imported`: our own log has ended each of
    /// them by a transaction, so that its digests hold.
    pub(super) fn into_database(mut self, imported: bool) -> Database {
        let removed = self.database.end_ephemerals_of_nobody();
        assert!(removed == 0 || imported, "{removed} ephemeral nodes of no session in our own data");
        self.database.sessions.restart_clocks(self.now);
        self.database
    }
}

fn fresh(tick_ms: u32, hash_seed: u64) -> Database {
    Database::for_loading(TreeOptions { hash_seed }, SessionTable::new(tick_ms, hash_seed))
}

impl LoadSink for Restorer {
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

impl Restore for Restorer {
    fn loaded(&mut self, zxid: Zxid, fuzzy_until: Option<Zxid>) -> Result<(), String> {
        self.database.finish_load(zxid);
        self.fuzzy_until = fuzzy_until.unwrap_or(zxid);
        Ok(())
    }

    fn apply(&mut self, zxid: Zxid, entry: &[u8]) -> Result<DigestCheck, String> {
        let entry = TxnEntry::decode(entry).map_err(|error| error.to_string())?;
        let is_fuzzy = zxid <= self.fuzzy_until;
        let fit = if is_fuzzy { Fit::Fuzzy } else { Fit::Exact };
        self.database.apply(&entry, fit, self.now, &mut Nobody);
        let computed = self.database.tree.digest();
        Ok(match entry.digest {
            Some(digest) if self.compares && !is_fuzzy && digest.version == DIGEST_VERSION => {
                if digest.tree_digest == computed {
                    DigestCheck::Same
                } else {
                    DigestCheck::Differs { logged: digest.tree_digest, computed }
                }
            }
            _ => DigestCheck::Skipped,
        })
    }

    fn tree_digest(&self) -> Option<u64> {
        self.compares.then(|| self.database.tree.digest())
    }
}
