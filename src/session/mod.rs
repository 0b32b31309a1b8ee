//! Sessions: who holds a lease, when it ends, and which nodes go with it.
//!
//! - [`SessionTable`]: the leases and their expiry in buckets of one tick.
//! - [`Ephemerals`]: the nodes each session owns.
//! - [`IdSource`], [`password`], [`clamp_timeout`]: what a handshake needs.
//!
//! Nothing here reads a clock or decides that a session dies: the table says which leases have run out by what it has heard,
//! the caller asks the front that owns the connection when it last heard from the client, and proposes a closeSession.

mod ephemerals;
mod table;

pub use ephemerals::Ephemerals;
pub use table::{Heard, Owner, Session, SessionTable};

use crate::proto::client::PASSWORD_BYTES;
use crate::types::{ServerId, SessionId};

/// `ephemeralOwner` of containers, hence no session's id. Source: ZooKeeper `EphemeralType.CONTAINER_EPHEMERAL_OWNER`.
const CONTAINER_OWNER: i64 = i64::MIN;
/// High byte of the `ephemeralOwner` of TTL nodes, hence of no session's id. Source: ZooKeeper `EphemeralType.EXTENDED_MASK`.
const EXTENDED_OWNER_BYTE: u8 = 0xff;
/// Bits of an id below the server's byte.
const ID_COUNTER_MASK: u64 = (1 << 56) - 1;

/// Gives new session ids: the server's id in the high byte, then 40 bits of milliseconds, then a counter from zero, as
/// ZooKeeper does, so that servers of both kinds never give the same.
///
/// Source: ZooKeeper `SessionTrackerImpl#initializeNextSessionId`.
#[derive(Debug)]
pub struct IdSource {
    server_bits: u64,
    /// What the next id carries below the server's byte; wraps there and never into that byte.
    next: u64,
}

impl IdSource {
    /// `elapsed_ms` is that of a clock which does not repeat over restarts of this process. ZooKeeper takes time since boot.
    ///
    /// Panics for server 255, whose ids would be owners of TTL nodes. Source: ZooKeeper `EphemeralType#validateServerId`.
    pub fn new(server: ServerId, elapsed_ms: u64) -> IdSource {
        assert!(
            server.0 != EXTENDED_OWNER_BYTE,
            "server id 255 marks TTL nodes; a server's id is at most 254"
        );
        IdSource { server_bits: u64::from(server.0) << 56, next: (elapsed_ms << 16) & ID_COUNTER_MASK }
    }

    /// The next id that is not `taken`. Ids that mean something else, zero and the owner of containers, are never given.
    ///
    /// Ids of an earlier boot may still be alive, since time since boot starts over: `taken` has to know all live sessions.
    pub fn next(&mut self, taken: impl Fn(SessionId) -> bool) -> SessionId {
        loop {
            let id = SessionId((self.server_bits | self.next) as i64);
            self.next = (self.next + 1) & ID_COUNTER_MASK;
            if id != SessionId::NONE && id.0 != CONTAINER_OWNER && !taken(id) {
                return id;
            }
        }
    }
}

/// The password of a session: a fixed function of its id, the same on every server, so a checksum and no secret.
///
/// It is the first 16 bytes of `java.util.Random` seeded with the id under a mask.
/// Source: ZooKeeper `ZooKeeperServer#generatePasswd`.
pub fn password(session: SessionId) -> [u8; PASSWORD_BYTES] {
    const SUPER_SECRET: u64 = 0xb341_5c00;
    const MULTIPLIER: u64 = 0x5_deec_e66d;
    const STATE_MASK: u64 = (1 << 48) - 1;
    let mut state = (session.0 as u64 ^ SUPER_SECRET ^ MULTIPLIER) & STATE_MASK;
    let mut bytes = [0; PASSWORD_BYTES];
    for word in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & STATE_MASK;
        word.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

/// The timeout a client gets: what it asks for, within the server's limits. Source: ZooKeeper `ZooKeeperServer#processConnectRequest`.
pub fn clamp_timeout(requested_ms: i32, min_ms: i32, max_ms: i32) -> i32 {
    // The lower limit wins if they cross, which a checked configuration rules out.
    requested_ms.min(max_ms).max(min_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_that_of_zookeeper() {
        let expected = 0xb8d0_2c5a_e55f_cf6e_565e_9023_36b7_23fa_u128.to_be_bytes();
        assert_eq!(password(SessionId(0x100_0014_eb66_0000)), expected);
        assert_ne!(password(SessionId(0x100_0014_eb66_0001)), expected);
    }

    #[test]
    fn timeouts_are_clamped_silently() {
        for (requested, given) in [
            (10_000, 10_000),
            (0, 6000),
            (-5, 6000),
            (6000, 6000),
            (60_001, 60_000),
            (i32::MAX, 60_000),
            (i32::MIN, 6000),
        ] {
            assert_eq!(clamp_timeout(requested, 6000, 60_000), given);
        }
    }

    #[test]
    fn ids_carry_server_time_and_counter() {
        // The example of the reference: (ms << 24) >>> 8 | server << 56.
        let elapsed_ms = 0x14_eb66;
        let mut source = IdSource::new(ServerId(1), elapsed_ms);
        assert_eq!(source.next(|_| false), SessionId(0x100_0014_eb66_0000));
        assert_eq!(source.next(|_| false), SessionId(0x100_0014_eb66_0001));
        let taken = |id: SessionId| id.0 & 0xf < 5;
        assert_eq!(source.next(taken), SessionId(0x100_0014_eb66_0005));
        // Milliseconds beyond 40 bits fall off, as in ZooKeeper.
        let mut later = IdSource::new(ServerId(1), elapsed_ms | 1 << 40 | 1 << 63);
        assert_eq!(later.next(|_| false), SessionId(0x100_0014_eb66_0000));
    }

    #[test]
    fn ids_that_mean_something_else_are_skipped() {
        assert_eq!(IdSource::new(ServerId(0), 0).next(|_| false), SessionId(1));
        assert_eq!(IdSource::new(ServerId(0x80), 0).next(|_| false).0, CONTAINER_OWNER + 1);
    }

    #[test]
    fn the_counter_never_runs_into_the_server_byte() {
        let mut source = IdSource::new(ServerId(254), (1 << 40) - 1);
        let ids: Vec<SessionId> = (0..=0x1_0000).map(|_| source.next(|_| false)).collect();
        assert_eq!(ids[0xffff].0 as u64, 0xfeff_ffff_ffff_ffff);
        assert_eq!(ids[0x1_0000].0 as u64, 0xfe00_0000_0000_0000);
    }

    #[test]
    #[should_panic(expected = "at most 254")]
    fn server_255_has_no_ids() {
        IdSource::new(ServerId(255), 0);
    }
}
