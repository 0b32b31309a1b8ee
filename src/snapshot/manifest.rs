//! What a snapshot must turn out to hold, as a small text file beside it.
//!
//! One field a line, `name value`; the last line is the crc32c, in hex, of all bytes before it:
//!
//! ```text
//! ringkeeper-snapshot 1
//! zxid 0x100000005
//! identity 0123456789abcdef
//! sessions 2
//! acls 1
//! nodes 12
//! content-bytes 3456
//! content-crc32c 89abcdef
//! tree-digest 1234567890
//! crc32c 01234567
//! ```
//!
//! Sizes and sums are of the content, unpacked. `tree-digest` is missing where digests are off. Where the history was replaced by
//! a leader's snapshot, that one and those taken since also say `log-segment-first 000000000000002a`: of the log, only
//! segments from this one on belong to them, and of two snapshots only those with the highest such number count.

use thiserror::Error;

use crate::snapshot::{Counts, Loaded};
use crate::txnlog::SegmentId;
use crate::types::Zxid;

const FIRST_LINE: &str = "ringkeeper-snapshot 1";
/// Bytes a manifest may have.
pub const MANIFEST_BYTES_MAX: usize = 4096;

/// The contents of a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The state the snapshot holds, exactly.
    pub zxid: Zxid,
    /// Of the data directory.
    pub identity: u64,
    pub counts: Counts,
    pub content_bytes: u64,
    pub content_crc: u32,
    pub tree_digest: Option<u64>,
    /// The first segment of the log that counts beside it; zero if all do.
    pub segment_first: SegmentId,
}

/// Why a manifest does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("it is not whole: its last line is not the checksum of the others")]
    Checksum,
    #[error("its format is not known: it does not begin with `{FIRST_LINE}`")]
    Format,
    #[error("its field `{field}` is missing or no number")]
    Field { field: &'static str },
    #[error("the snapshot has {field} {found}, the manifest says {expected}")]
    Differs { field: &'static str, found: u64, expected: u64 },
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let Counts { sessions, acls, nodes } = self.counts;
        let mut text = format!(
            "{FIRST_LINE}\nzxid {}\nidentity {:016x}\nsessions {sessions}\nacls {acls}\nnodes {nodes}\n\
             content-bytes {}\ncontent-crc32c {:08x}\n",
            self.zxid, self.identity, self.content_bytes, self.content_crc
        );
        if let Some(digest) = self.tree_digest {
            text.push_str(&format!("tree-digest {digest}\n"));
        }
        if self.segment_first != SegmentId(0) {
            text.push_str(&format!("log-segment-first {}\n", self.segment_first));
        }
        text.push_str(&format!("crc32c {:08x}\n", crc32c::crc32c(text.as_bytes())));
        text.into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Checksum)?;
        let (body, sum) = text
            .rsplit_once("crc32c ")
            .filter(|(body, _)| body.ends_with('\n'))
            .ok_or(ManifestError::Checksum)?;
        if sum != format!("{:08x}\n", crc32c::crc32c(body.as_bytes())) {
            return Err(ManifestError::Checksum);
        }
        let mut lines = body.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(ManifestError::Format);
        }
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(' ')).collect();
        let find = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
        let number = |field: &'static str, radix: u32| {
            find(field)
                .and_then(|value| u64::from_str_radix(value.trim_start_matches("0x"), radix).ok())
                .ok_or(ManifestError::Field { field })
        };
        let crc = number("content-crc32c", 16)?;
        Ok(Manifest {
            zxid: Zxid(number("zxid", 16)? as i64),
            identity: number("identity", 16)?,
            counts: Counts {
                sessions: number("sessions", 10)?,
                acls: number("acls", 10)?,
                nodes: number("nodes", 10)?,
            },
            content_bytes: number("content-bytes", 10)?,
            content_crc: u32::try_from(crc).map_err(|_| ManifestError::Field { field: "content-crc32c" })?,
            tree_digest: match find("tree-digest") {
                Some(_) => Some(number("tree-digest", 10)?),
                None => None,
            },
            segment_first: match find("log-segment-first") {
                Some(_) => SegmentId(number("log-segment-first", 16)?),
                None => SegmentId(0),
            },
        })
    }

    /// Whether what was loaded is what was written.
    pub fn check(&self, loaded: &Loaded) -> Result<(), ManifestError> {
        let same = |field, found: u64, expected: u64| match found == expected {
            true => Ok(()),
            false => Err(ManifestError::Differs { field, found, expected }),
        };
        same("content-bytes", loaded.content_bytes, self.content_bytes)?;
        same("content-crc32c", loaded.content_crc.into(), self.content_crc.into())?;
        same("sessions", loaded.counts.sessions, self.counts.sessions)?;
        same("acls", loaded.counts.acls, self.counts.acls)?;
        same("nodes", loaded.counts.nodes, self.counts.nodes)?;
        same("zxid", loaded.zxid_last.unwrap_or(self.zxid).0 as u64, self.zxid.0 as u64)?;
        let found = loaded.digest.map_or(0, |digest| digest.tree_digest);
        let is_empty = self.zxid == Zxid::ZERO;
        same("tree-digest", found, self.tree_digest.filter(|_| !is_empty).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_round_trip_and_notice_every_flipped_byte() {
        for (tree_digest, segment_first) in [(None, 0), (Some(u64::MAX), 0), (Some(1), 0x2a)] {
            let manifest = Manifest {
                zxid: Zxid(0x1_0000_0005),
                identity: 0xfedc_ba98_7654_3210,
                counts: Counts { sessions: 1, acls: 2, nodes: 3 },
                content_bytes: 4,
                content_crc: 5,
                tree_digest,
                segment_first: SegmentId(segment_first),
            };
            let mut bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
            for at in 0..bytes.len() {
                bytes[at] ^= 1;
                assert!(Manifest::decode(&bytes).is_err(), "offset {at}");
                bytes[at] ^= 1;
                assert!(Manifest::decode(&bytes[..at]).is_err(), "length {at}");
            }
        }
    }
}
