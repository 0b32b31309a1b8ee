//! What threads beside the data path know, for whoever reports it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Written beside the data path, the gauges about once a second; read by anyone. Each value stands alone, so relaxed order does.
#[derive(Debug, Default)]
pub struct ProcessGauges {
    pub open_file_descriptors: Shared,
    pub max_file_descriptors: Shared,
    /// Bytes below `dataDir/version-2` and `dataLogDir/version-2`.
    pub data_dir_bytes: Shared,
    pub log_dir_bytes: Shared,
    pub resident_bytes: Shared,
    /// Bytes the process may use: the control group's limit, or the machine's memory.
    pub memory_limit_bytes: Shared,
    /// Counted by the admin server: snapshots refused for coming too soon, connections that are not TLS.
    pub snapshots_rate_limited: Shared,
    pub insecure_admin_connections: Shared,
}

/// One number that threads share.
#[derive(Debug, Default)]
pub struct Shared(AtomicU64);

impl Shared {
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
