//! What a server of an ensemble wants of its data directory beyond log and snapshots, as values; the shell's housekeeper does it.

use crate::config::Membership;
use crate::request::Database;
use crate::txnlog::{LogRange, LogRead, Start};
use crate::types::Zxid;
use crate::zab::Epochs;

/// Done one after the other, in this order and in that of [`SegmentWork`](crate::txnlog::SegmentWork) and
/// [`SnapshotWork`](crate::snapshot::SnapshotWork); each is answered by one [`StorageEvent`]. A disk that fails ends the server (O9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StorageWork {
    /// Remember these epochs, durably (O1). Neither may be lower than what is there.
    WriteEpochs(Epochs),
    /// Go back to `to`: the state from a snapshot not newer and the log up to it (O6), the log cut there and newer snapshots gone,
    /// all durable.
    ///
    /// The log's writer must be idle, and is of no use from here on: a new one begins with [`Rebuilt::log_start`]. No snapshot may be under way.
    Rebuild { to: Zxid },
    /// Read a part of the log that is durable.
    ReadLog(LogRange),
    /// Write the files beside the configuration that tell who belongs to the ensemble. They are not what safety rests on: a failure
    /// is told in the log of the server, and it goes on.
    WriteMembership(Box<MembershipFiles>),
}

/// What the files beside the configuration are to say (quorum-protocol §1.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembershipFiles {
    /// Text of a membership that is proposed, for `<configuration>.dynamic.next`; `None` takes the file away.
    pub next: Option<String>,
    /// In force from now on: gets a dynamic file of its version, which the configuration then names.
    pub activated: Option<Membership>,
}

/// What became of [`StorageWork`].
#[derive(Debug)]
pub enum StorageEvent {
    EpochsWritten(Epochs),
    /// Done, or tried.
    MembershipWritten,
    Rebuilt(Box<Rebuilt>),
    /// Nothing was changed; a snapshot from the leader is needed.
    CannotRebuild {
        to: Zxid,
        reason: String,
    },
    LogRead(LogRead),
    /// The log does not hold that range, or not any more.
    CannotReadLog {
        range: LogRange,
        reason: String,
    },
}

/// A server's state as it was at an earlier zxid.
pub struct Rebuilt {
    /// Its [`zxid_applied`](Database::zxid_applied) is the zxid asked for. Its sessions begin a whole timeout anew.
    pub database: Database,
    pub log_start: Start,
    /// That of the snapshot it was built from.
    pub zxid_snapshot: Zxid,
    /// Entries the log holds beyond that snapshot.
    pub entry_count: u64,
}

impl std::fmt::Debug for Rebuilt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuilt")
            .field("zxid", &self.database.zxid_applied())
            .field("log_start", &self.log_start)
            .field("zxid_snapshot", &self.zxid_snapshot)
            .field("entry_count", &self.entry_count)
            .finish()
    }
}
