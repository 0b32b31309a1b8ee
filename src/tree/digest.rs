//! The tree digest: one 64-bit number that replicas compare.
//!
//! A node's part is the CRC-32 (IEEE) of its path, its data and 60 bytes of stat; the tree's is their wrapping sum. The
//! path of the root is empty; whatever lies below `/zookeeper` counts zero. Source: ZooKeeper `DigestCalculator`.
//!
//! The stat part is not laid out as on disk (big-endian):
//! `czxid mzxid pzxid ctime mtime` (8 each) `version cversion aversion` (4 each, the stored cversion) `owner` (8).
//!
//! The crc over path and data is kept in the node, so that a changed stat costs 60 bytes however long the data is.

use crate::proto::StatPersisted;

/// What lies below is left out of the digest; `/zookeeper` itself is not.
const OUTSIDE: &str = "/zookeeper/";

/// Whether a node counts zero in the digest.
pub fn is_outside(path: &str) -> bool {
    path.starts_with(OUTSIDE)
}

/// The crc of path and data, to be continued over the stat. The root is `""` or `"/"`.
pub fn content_crc(path: &str, data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if path != "/" {
        crc.update(path.as_bytes());
    }
    crc.update(data.unwrap_or_default());
    crc.finalize()
}

/// A node's part of the tree digest.
pub fn node_digest(path: &str, content_crc: u32, stat: &StatPersisted) -> u64 {
    if is_outside(path) { 0 } else { counted_digest(content_crc, stat) }
}

/// As [`node_digest`], for a node known to be counted.
pub(super) fn counted_digest(content_crc: u32, stat: &StatPersisted) -> u64 {
    let mut bytes = [0; 60];
    bytes[0..8].copy_from_slice(&stat.czxid.0.to_be_bytes());
    bytes[8..16].copy_from_slice(&stat.mzxid.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&stat.pzxid.0.to_be_bytes());
    bytes[24..32].copy_from_slice(&stat.ctime_ms.to_be_bytes());
    bytes[32..40].copy_from_slice(&stat.mtime_ms.to_be_bytes());
    bytes[40..44].copy_from_slice(&stat.version.to_be_bytes());
    bytes[44..48].copy_from_slice(&stat.cversion.to_be_bytes());
    bytes[48..52].copy_from_slice(&stat.aversion.to_be_bytes());
    bytes[52..60].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(content_crc);
    crc.update(&bytes);
    u64::from(crc.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_tree_of_a_fresh_server_has_the_known_digest() {
        let fresh = StatPersisted::default();
        let config = StatPersisted { aversion: -1, ..fresh };
        let nodes =
            [("", fresh), ("/zookeeper", fresh), ("/zookeeper/quota", fresh), ("/zookeeper/config", config)];
        let sum: u64 = nodes
            .iter()
            .map(|(path, stat)| node_digest(path, content_crc(path, Some(b"")), stat))
            .fold(0, u64::wrapping_add);
        assert_eq!(sum, 0x51c6_d660);
    }

    #[test]
    fn content_crc_is_one_crc_over_path_and_data() {
        assert_eq!(content_crc("/a", Some(b"bc")), crc32fast::hash(b"/abc"));
        assert_eq!(content_crc("/", None), crc32fast::hash(b""));
    }
}
