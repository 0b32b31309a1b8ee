//! The data of a stopped server, written for a ZooKeeper.

use std::path::Path;

use super::options;
use super::restore::{RestoreOptions, Restorer};
use super::storage::{self, Exported, StorageError};
use crate::config::Config;
use crate::io::Clock;

/// Writes what the server of this configuration holds as `version-2` where that configuration has its data, or into `target`.
pub fn export(config: &Config, target: Option<&Path>) -> Result<Exported, StorageError> {
    let mut restorer = Restorer::new(RestoreOptions {
        tick_ms: config.tick_time_ms,
        hash_seed: 0,
        clock: Clock::new(),
        compares: config.nodes.digest_enabled,
        in_ensemble: config.ensemble.is_some(),
        recent_bytes_max: 0,
    });
    storage::export(&options::storage(config), target, &mut restorer)
}
