//! A server reduced to its disk, for the tests of the data directory.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringkeeper::proto::acl;
use ringkeeper::proto::txn::{CreateKind, DIGEST_VERSION, TxnDigest, TxnHeader, kind, put};
use ringkeeper::server::storage::{self, Files, Kept, Opened, Restore, StorageError, StorageOptions};
use ringkeeper::txnlog::{SegmentWork, Writer, WriterOptions};
use ringkeeper::types::{Instant, SessionId};

use crate::storage_model::Model;

pub const SEGMENT_BYTES: u64 = 64 << 10;

/// A server reduced to its disk: a model, a log writer, and the files.
pub struct Server {
    pub opened: Opened,
    pub writer: Writer,
    pub model: Model,
}

impl Server {
    pub fn start(options: &StorageOptions) -> Result<Server, StorageError> {
        let mut model = Model::default();
        let opened = storage::open(options, &mut model)?;
        assert_eq!(model.zxid, opened.zxid);
        if opened.first_snapshot_due {
            save(&opened.files, &model).unwrap();
        }
        let mut writer_options = WriterOptions::new(opened.files.identity() ^ opened.log_start.run);
        writer_options.segment_bytes = SEGMENT_BYTES;
        let writer = Writer::new(writer_options, opened.log_start.clone());
        Ok(Server { opened, writer, model })
    }

    /// Creates `count` nodes and makes them durable, one batch for all.
    pub fn create(&mut self, count: usize, data_bytes: usize) {
        for _ in 0..count {
            let entry = next_entry(&mut self.model, data_bytes);
            self.writer.append(self.model.zxid, &entry);
        }
        self.flush();
        assert_eq!(self.writer.zxid_durable(), self.model.zxid);
    }

    pub fn flush(&mut self) {
        loop {
            let mut work = Vec::new();
            self.writer.drain_work(&mut work);
            for work in work {
                match work {
                    SegmentWork::Prepare(id) => {
                        self.opened.files.prepare_segment(id, SEGMENT_BYTES).unwrap();
                        self.writer.segment_ready(id);
                    }
                    SegmentWork::Retire(id) => self.opened.files.retire_segment(id).unwrap(),
                }
            }
            let Some(write) = self.writer.next_write(Instant(0)) else { break };
            let path = self.opened.files.segment_path(write.segment);
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&write.bytes, write.offset_bytes).unwrap();
            self.writer.written(write.id, write.bytes);
        }
    }

    pub fn snapshot(&mut self) -> Kept {
        let kept = save(&self.opened.files, &self.model).unwrap();
        self.writer.retire_before(kept.oldest);
        self.flush();
        kept
    }
}

pub fn save(files: &Files, model: &Model) -> Result<Kept, StorageError> {
    let (parts, manifest) = model.snapshot(files.identity(), 4000);
    let mut file = files.begin_snapshot(model.zxid)?;
    for part in &parts {
        file.part(part)?;
    }
    file.finish(&manifest.encode())
}

/// The entry of the next transaction, a create, already applied to the model.
pub fn next_entry(model: &mut Model, data_bytes: usize) -> Vec<u8> {
    let zxid = model.zxid.next();
    let header =
        TxnHeader { session: SessionId(7), cxid: 1, zxid, time_ms: 1000 + zxid.0, kind: kind::CREATE };
    let mut entry = Vec::new();
    header.encode(&mut entry);
    let path = format!("/n{:08}", zxid.0);
    let cversion = model.nodes[""].stat.cversion + 1;
    let data = vec![zxid.0 as u8; data_bytes];
    let kind = CreateKind::Plain { ephemeral: false };
    put::create(&mut entry, &path, Some(&data), acl::OPEN_UNSAFE, kind, cversion);
    model.apply(zxid, &entry).unwrap();
    TxnDigest { version: DIGEST_VERSION, tree_digest: model.digest() }.encode(&mut entry);
    entry
}

pub fn options(dir: &Path) -> StorageOptions {
    StorageOptions { lock_wait: Duration::ZERO, ..StorageOptions::new(dir, None) }
}

pub fn refusal(options: &StorageOptions) -> String {
    match Server::start(options) {
        Ok(server) => panic!("it started at {}", server.opened.zxid),
        Err(error) => error.to_string(),
    }
}

pub fn only(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("ringkeeper"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    found.sort();
    found
}
