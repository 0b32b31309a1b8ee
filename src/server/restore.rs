//! Recovery into a database: what `storage` reads becomes the tree, the sessions and what follows from them.

use bytes::Bytes;

use super::storage::{DigestCheck, Restore};
use crate::io::Clock;
use crate::proto::txn::{DIGEST_VERSION, TxnEntry};
use crate::proto::{Acl, StatPersisted};
use crate::request::Database;
use crate::request::apply::{Fit, Nobody};
use crate::request::load::Loader;
use crate::snapshot::LoadSink;
use crate::txnlog::follows;
use crate::types::{Instant, SessionId, Zxid};
use crate::zab::recent::{ENTRIES_MAX, Recent};

/// What a recovered database is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestoreOptions {
    pub(super) tick_ms: u32,
    pub(super) hash_seed: u64,
    /// Sessions begin their timeouts when the database is complete.
    pub(super) clock: Clock,
    /// Digests are kept and compared.
    pub(super) compares: bool,
    /// The log may hold what another server prepared. That is not taken at its word: only the digests tell whether it fits.
    pub(super) in_ensemble: bool,
    /// Bytes of the newest entries that are kept for learners; zero keeps none.
    pub(super) recent_bytes_max: usize,
}

/// A database being recovered.
pub(super) struct Restorer {
    loader: Loader,
    options: RestoreOptions,
    now: Instant,
    fuzzy_until: Zxid,
    /// What was applied last.
    recent: Recent,
}

impl Restorer {
    pub(super) fn new(options: RestoreOptions) -> Restorer {
        let now = options.clock.now().instant;
        let loader = Loader::new(options.tick_ms, options.hash_seed, now);
        let recent = Recent::new(ENTRIES_MAX, options.recent_bytes_max);
        Restorer { loader, options, now, fuzzy_until: Zxid::ZERO, recent }
    }

    /// The newest entries, up to the last one applied.
    ///
    /// None of data that is `imported`: nobody knows what is missing between the entries of another server's log (O5).
    pub(super) fn take_recent(&mut self, imported: bool) -> Recent {
        let mut recent =
            std::mem::replace(&mut self.recent, Recent::new(ENTRIES_MAX, self.options.recent_bytes_max));
        if imported {
            recent.reset(self.loader.database().zxid_applied());
        }
        recent
    }

    /// Panics if ephemeral nodes without a session are found in data of a server alone that is not `imported`: our own log has
    /// ended each of them by a transaction, so that its digests hold. In an ensemble the leader ends them (quorum-protocol §9.1, 23).
    pub(super) fn into_database(self, imported: bool) -> Database {
        let mut database = self.loader.into_database();
        if !self.options.in_ensemble {
            let removed = database.end_ephemerals_of_nobody();
            assert!(removed == 0 || imported, "{removed} ephemeral nodes of no session in our own data");
        }
        database.sessions.restart_clocks(self.options.clock.now().instant);
        database
    }
}

impl LoadSink for Restorer {
    fn reset(&mut self) {
        self.loader.reset();
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.loader.session(session, timeout_ms)
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        self.loader.acl(id, acl)
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        self.loader.node(path, data, acl, stat)
    }
}

impl Restore for Restorer {
    fn loaded(&mut self, zxid: Zxid, fuzzy_until: Option<Zxid>) -> Result<(), String> {
        self.loader.database().finish_load(zxid);
        self.fuzzy_until = fuzzy_until.unwrap_or(zxid);
        self.recent.reset(zxid);
        Ok(())
    }

    fn apply(&mut self, zxid: Zxid, entry: &[u8]) -> Result<DigestCheck, String> {
        if self.options.recent_bytes_max > 0 {
            if follows(self.recent.last(), zxid) {
                self.recent.push(zxid, Bytes::copy_from_slice(entry));
            } else {
                // Only an imported log goes on like that.
                self.recent.reset(zxid);
            }
        }
        let entry = TxnEntry::decode(entry).map_err(|error| error.to_string())?;
        let is_fuzzy = zxid <= self.fuzzy_until;
        let fit = if is_fuzzy || self.options.in_ensemble { Fit::Fuzzy } else { Fit::Exact };
        self.loader.database().apply(&entry, fit, self.now, &mut Nobody);
        let computed = self.loader.database().tree.digest();
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
        self.options.compares.then(|| self.loader.tree_digest())
    }
}
