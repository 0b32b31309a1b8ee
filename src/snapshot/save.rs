//! Writing a snapshot in parts, as the tree yields its nodes in slices.

use simd_adler32::Adler32;

use crate::jute::{put_i32, put_i64, put_string};
use crate::proto::Acl;
use crate::proto::txn::DIGEST_VERSION;
use crate::snapshot::{ACL_OPEN, Counts, MAGIC, Manifest, VERSION};
use crate::txnlog::SegmentId;
use crate::types::{SessionId, Zxid};

/// Builds the content of one snapshot.
///
/// Call [`Writer::new`], [`Writer::nodes`] for every slice, [`Writer::finish`]; whenever [`Writer::ready_bytes`] is enough for a
/// part, [`Writer::take`] it. Packing, files and the reading back are the housekeeper's.
pub struct Writer {
    zxid: Zxid,
    identity: u64,
    out: Vec<u8>,
    /// Up to where in `out` the sums below have gone.
    summed: usize,
    /// Bytes taken before.
    taken_bytes: u64,
    adler: Adler32,
    crc: u32,
    counts: Counts,
}

impl Writer {
    /// Begins the snapshot of the state at exactly `zxid`: header, sessions and ACLs.
    ///
    /// Panics if an ACL has the id [`ACL_OPEN`], which files never list.
    pub fn new<'a>(
        zxid: Zxid,
        identity: u64,
        sessions: impl ExactSizeIterator<Item = (SessionId, i32)>,
        acls: impl IntoIterator<Item = (i64, Acl<'a>)>,
    ) -> Writer {
        let mut out = Vec::new();
        put_i32(&mut out, MAGIC);
        put_i32(&mut out, VERSION);
        put_i64(&mut out, -1);
        let counts = put_tables(&mut out, sessions, acls);
        let adler = Adler32::new();
        Writer { zxid, identity, out, summed: 0, taken_bytes: 0, adler, crc: 0, counts }
    }

    /// Takes `node_count` whole nodes, encoded as in [the format](super): path, data, ACL id, stat. The root comes first,
    /// every parent before its children.
    pub fn nodes(&mut self, node_count: u64, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.counts.nodes += node_count;
    }

    /// Bytes that [`Writer::take`] would give.
    pub fn ready_bytes(&self) -> usize {
        self.out.len()
    }

    /// The next part of the content.
    pub fn take(&mut self) -> Vec<u8> {
        self.sum();
        self.taken_bytes += self.out.len() as u64;
        self.summed = 0;
        std::mem::take(&mut self.out)
    }

    /// Ends the snapshot: the last part, and the manifest to send behind it.
    ///
    /// `tree_digest` is the tree's at the snapshot's zxid, `None` where digests are off.
    pub fn finish(mut self, tree_digest: Option<u64>) -> (Vec<u8>, Manifest) {
        put_string(&mut self.out, "/");
        self.seal();
        if let Some(tree_digest) = tree_digest {
            put_i64(&mut self.out, self.zxid.0);
            put_i32(&mut self.out, DIGEST_VERSION);
            put_i64(&mut self.out, tree_digest as i64);
            self.seal();
        }
        put_i64(&mut self.out, self.zxid.0);
        self.seal();
        let last = self.take();
        let manifest = Manifest {
            zxid: self.zxid,
            identity: self.identity,
            counts: self.counts,
            content_bytes: self.taken_bytes,
            content_crc: self.crc,
            tree_digest,
            // The files' business.
            segment_first: SegmentId(0),
        };
        (last, manifest)
    }

    fn seal(&mut self) {
        self.sum();
        let adler = self.adler.finish();
        put_i64(&mut self.out, i64::from(adler));
        put_string(&mut self.out, "/");
    }

    fn sum(&mut self) {
        let new = &self.out[self.summed..];
        self.adler.write(new);
        self.crc = crc32c::crc32c_append(self.crc, new);
        self.summed = self.out.len();
    }
}

/// Sessions and ACLs as a snapshot begins with them, in a file and on the way to a learner.
///
/// Panics if an ACL has the id [`ACL_OPEN`], which is never listed.
pub fn put_tables<'a>(
    out: &mut Vec<u8>,
    sessions: impl ExactSizeIterator<Item = (SessionId, i32)>,
    acls: impl IntoIterator<Item = (i64, Acl<'a>)>,
) -> Counts {
    let mut counts = Counts { sessions: sessions.len() as u64, ..Counts::default() };
    put_i32(out, i32::try_from(sessions.len()).expect("sessions are fewer than 2^31"));
    for (session, timeout_ms) in sessions {
        put_i64(out, session.0);
        put_i32(out, timeout_ms);
    }
    let count_at = out.len();
    put_i32(out, 0);
    for (id, acl) in acls {
        assert_ne!(id, ACL_OPEN, "the open list has no entry");
        put_i64(out, id);
        out.extend_from_slice(acl.bytes());
        counts.acls += 1;
    }
    let count = i32::try_from(counts.acls).expect("ACL lists are fewer than 2^31");
    out[count_at..count_at + 4].copy_from_slice(&count.to_be_bytes());
    counts
}
