//! Recovery into a database: what `storage` reads becomes the tree, the sessions and what follows from them.

use super::storage::{DigestCheck, Restore};
use crate::io::Clock;
use crate::proto::txn::{DIGEST_VERSION, TxnEntry};
use crate::proto::{Acl, StatPersisted};
use crate::request::Database;
use crate::request::apply::{Fit, Nobody};
use crate::session::SessionTable;
use crate::snapshot::LoadSink;
use crate::tree::TreeOptions;
use crate::types::{Instant, SessionId, Zxid};

/// What a recovered database is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestoreOptions {
    pub(super) tick_ms: u32,
    pub(super) hash_seed: u64,
    /// Sessions begin their timeouts when the database is complete.
    pub(super) clock: Clock,
    /// Digests are kept and compared.
    pub(super) compares: bool,
}

/// A database being recovered.
pub(super) struct Restorer {
    database: Database,
    options: RestoreOptions,
    now: Instant,
    fuzzy_until: Zxid,
}

impl Restorer {
    pub(super) fn new(options: RestoreOptions) -> Restorer {
        let now = options.clock.now().instant;
        Restorer { database: fresh(&options), options, now, fuzzy_until: Zxid::ZERO }
    }

    /// Panics if ephemeral nodes without a session are found in data that is not `imported`: our own log has ended each of
    /// them by a transaction, so that its digests hold.
    pub(super) fn into_database(mut self, imported: bool) -> Database {
        let removed = self.database.end_ephemerals_of_nobody();
        assert!(removed == 0 || imported, "{removed} ephemeral nodes of no session in our own data");
        self.database.sessions.restart_clocks(self.options.clock.now().instant);
        self.database
    }
}

fn fresh(options: &RestoreOptions) -> Database {
    let RestoreOptions { tick_ms, hash_seed, .. } = *options;
    Database::for_loading(TreeOptions { hash_seed }, SessionTable::new(tick_ms, hash_seed))
}

impl LoadSink for Restorer {
    fn reset(&mut self) {
        self.database = fresh(&self.options);
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
            Some(digest) if self.options.compares && !is_fuzzy && digest.version == DIGEST_VERSION => {
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
        self.options.compares.then(|| self.database.tree.digest())
    }
}
