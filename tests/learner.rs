//! The learner with a real database: a leader's snapshot, differences and live entries, taken from the data directory of a real
//! ZooKeeper (`tests/golden/zookeeper-3.9.5`), end in the tree that it had.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ringkeeper::proto::quorum::{PROTOCOL_VERSION, QuorumPacket, SNAPSHOT_SIGNATURE, kind};
use ringkeeper::proto::txn::TxnEntry;
use ringkeeper::proto::{Acl, StatPersisted};
use ringkeeper::request::Database;
use ringkeeper::request::apply::{Fit, Nobody};
use ringkeeper::session::SessionTable;
use ringkeeper::snapshot::{self, LoadSink, SnapshotDigest};
use ringkeeper::stdx::rng::Rng;
use ringkeeper::tree::TreeOptions;
use ringkeeper::txnlog::zookeeper::{Chain, read_file};
use ringkeeper::types::{Epoch, Instant, ServerId, SessionId, Zxid};
use ringkeeper::zab::Epochs;
use ringkeeper::zab::learner::{Learner, LearnerOptions, LearnerStart, Output};

const NOW: Instant = Instant(1_000_000_000);
/// Behind the nodes of the golden snapshots: three seals, digest and last zxid.
const TRAILER_BYTES: usize = 13 + (20 + 13) + (8 + 13);
const HEADER_BYTES: usize = 16;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/zookeeper-3.9.5/plain/version-2").join(name)
}

/// Every transaction the ZooKeeper logged.
fn entries() -> Vec<(Zxid, Bytes)> {
    let mut entries = Vec::new();
    let mut chain = Chain::new(Zxid::ZERO);
    for name in ["log.1", "log.2c"] {
        let bytes = fs::read(golden(name)).expect("a golden file");
        read_file(&mut &bytes[..], bytes.len() as u64, &mut chain, &mut |zxid, entry| {
            entries.push((zxid, Bytes::copy_from_slice(entry)));
            Ok(())
        })
        .expect("a sound log");
    }
    assert!(entries.len() > 0x2c, "{} entries", entries.len());
    entries
}

/// The tree a learner loads a snapshot into.
struct Loading(Database);

fn fresh() -> Database {
    Database::for_loading(TreeOptions { hash_seed: 1 }, SessionTable::new(2000, 1))
}

impl LoadSink for Loading {
    fn reset(&mut self) {
        self.0 = fresh();
    }

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        self.0.load_session(session, timeout_ms, NOW);
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        self.0.load_acl(id, acl.map_or(&[0u8; 4][..], Acl::bytes)).map_err(|error| error.to_string())
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        self.0.load_node(path, data, acl, stat).map_err(|error| error.to_string())
    }
}

/// A server that follows: its disk is quick, its tree applies what is committed.
struct Server {
    learner: Learner,
    loading: Loading,
    database: Database,
    /// Appended and not applied.
    tail: Vec<(Zxid, Bytes)>,
    compared: usize,
    acks: Vec<Zxid>,
}

impl Server {
    fn new(observer: bool) -> Server {
        let options = LearnerOptions {
            me: ServerId(1),
            observer,
            tick: Duration::from_secs(2),
            init_limit: 10,
            sync_limit: 5,
            entry_bytes_max: 2 << 20,
            staged_bytes_max: 64 << 20,
        };
        let start = LearnerStart {
            epochs: Epochs::default(),
            zxid_last: Zxid::ZERO,
            config_version: 0,
            snap_wanted: None,
            has_no_standing: false,
        };
        Server {
            learner: Learner::new(options, start, NOW),
            loading: Loading(fresh()),
            database: Database::new(TreeOptions { hash_seed: 1 }, SessionTable::new(2000, 1)),
            tail: Vec::new(),
            compared: 0,
            acks: Vec::new(),
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.learner.received(NOW, bytes, &mut self.loading);
        loop {
            let mut out = Vec::new();
            self.learner.drain(&mut out);
            if out.is_empty() {
                return;
            }
            out.into_iter().for_each(|output| self.work(output));
        }
    }

    fn work(&mut self, output: Output) {
        match output {
            Output::Send(bytes) => {
                let mut rest = &bytes[..];
                while let Some((packet, used)) = QuorumPacket::decode(rest, 1 << 20).expect("sound packets") {
                    if packet.kind == kind::ACK {
                        self.acks.push(packet.zxid);
                    }
                    rest = &rest[used..];
                }
            }
            Output::WriteEpochs(epochs) => self.learner.epochs_written(NOW, epochs),
            Output::Install { zxid, zxid_snapshot, entries } => {
                self.database = std::mem::replace(&mut self.loading.0, fresh());
                self.database.finish_load(zxid_snapshot);
                let last = entries.len().saturating_sub(1);
                for (index, (_, entry)) in entries.iter().enumerate() {
                    // Until the last of them the tree may hold what comes later.
                    self.apply(entry, Fit::Fuzzy, index == last);
                }
                self.learner.installed(NOW, zxid);
            }
            Output::Append { zxid, entry, .. } => {
                self.tail.push((zxid, entry));
                self.learner.durable(NOW, zxid);
            }
            Output::Commit(zxid) => {
                let count = self.tail.partition_point(|(tail, _)| *tail <= zxid);
                for (_, entry) in self.tail.drain(..count).collect::<Vec<_>>() {
                    self.apply(&entry, Fit::Exact, true);
                }
            }
            Output::Failed(error) => panic!("{error}"),
            Output::Serve { .. } | Output::NewLeader { .. } | Output::Membership { .. } => {}
            other => panic!("{other:?} was not called for"),
        }
    }

    fn apply(&mut self, entry: &[u8], fit: Fit, compares: bool) {
        let entry = TxnEntry::decode(entry).expect("checked as it came");
        self.database.apply(&entry, fit, NOW, &mut Nobody);
        if let Some(digest) = entry.digest
            && compares
        {
            assert_eq!(digest.tree_digest, self.database.tree.digest(), "behind {}", entry.header.zxid);
            self.compared += 1;
        }
    }
}

fn packet(kind: i32, zxid: i64, data: Option<&[u8]>) -> Vec<u8> {
    QuorumPacket::new(kind, Zxid(zxid), data).to_vec()
}

/// What a leader of epoch 1 sends, in turns that wait for an answer.
fn turns(sync: Vec<u8>, entries: &[(Zxid, Bytes)], observer: bool) -> Vec<Vec<u8>> {
    let mut staged = sync;
    for (zxid, entry) in entries {
        if observer && zxid.0 % 2 == 0 {
            staged.extend(packet(kind::INFORM, zxid.0, Some(entry)));
        } else {
            staged.extend(packet(kind::PROPOSAL, zxid.0, Some(entry)));
            staged.extend(packet(kind::COMMIT, zxid.0, None));
        }
    }
    staged.extend(packet(kind::NEW_LEADER, 1 << 32, None));
    vec![
        packet(kind::LEADER_INFO, 1 << 32, Some(&PROTOCOL_VERSION.to_be_bytes())),
        staged,
        packet(kind::UP_TO_DATE, -1, None),
    ]
}

fn snapshot_stream(zxid: i64) -> (Vec<u8>, SnapshotDigest) {
    let file = fs::read(golden("snapshot.2b")).expect("a golden file");
    let loaded = snapshot::load(&mut &file[..], &mut Loading(fresh())).expect("a sound snapshot");
    let mut stream = packet(kind::SNAP, zxid, None);
    stream.extend_from_slice(&file[HEADER_BYTES..file.len() - TRAILER_BYTES]);
    stream.extend((SNAPSHOT_SIGNATURE.len() as u32).to_be_bytes());
    stream.extend(SNAPSHOT_SIGNATURE.as_bytes());
    (stream, loaded.digest.expect("a server of 3.9 writes it"))
}

fn follow(turns: &[Vec<u8>], observer: bool, mut piece_bytes: impl FnMut() -> usize) -> Server {
    let mut server = Server::new(observer);
    for turn in turns {
        let mut rest = &turn[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(piece_bytes().clamp(1, rest.len()));
            server.hear(piece);
            rest = behind;
        }
    }
    assert!(server.learner.is_serving());
    assert_eq!(server.learner.epoch(), Some(Epoch(1)));
    assert_eq!(server.tail, []);
    assert_eq!(server.acks, [Zxid(1 << 32); 2], "committed entries are covered by these");
    server
}

/// The same tree comes of a difference from nothing, of the snapshot with what follows it, and of a snapshot that claims to be
/// older than it is, as those of a busy ZooKeeper are.
#[test]
fn every_way_to_level_histories_ends_in_the_same_tree() {
    let entries = entries();
    let zxid_last = entries.last().expect("there are some").0;
    for observer in [false, true] {
        let diff = turns(packet(kind::DIFF, 0, None), &entries, observer);
        let server = follow(&diff, observer, || 1 << 20);
        assert_eq!(server.database.zxid_applied(), zxid_last);
        assert!(server.compared > entries.len() / 2, "{} digests", server.compared);
        let digest = server.database.tree.digest();
        let sessions = server.database.sessions.len();

        for zxid_claimed in [0x2b, 0x20, 0x15] {
            let behind: Vec<_> = entries.iter().filter(|(zxid, _)| zxid.0 > zxid_claimed).cloned().collect();
            let (stream, snapshot_digest) = snapshot_stream(zxid_claimed);
            assert_eq!(snapshot_digest.zxid, Zxid(0x2b));
            let snap = turns(stream, &behind, observer);
            let mut rng = Rng::new(9);
            for piece_bytes_max in [1, 7, 300, 1 << 16] {
                let server = follow(&snap, observer, || 1 + rng.below(piece_bytes_max) as usize);
                assert_eq!(server.database.zxid_applied(), zxid_last);
                assert_eq!(server.database.tree.digest(), digest, "from {zxid_claimed:#x}");
                assert_eq!(server.database.sessions.len(), sessions);
            }
        }
    }
}
