//! The data directory through its life: first start, crash, restart, damage, loss, other owners.

mod storage_model;
mod storage_server;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use ringkeeper::server::storage::{self, Origin, StorageOptions};
use ringkeeper::snapshot::Packing;
use ringkeeper::txnlog::Tail;
use ringkeeper::types::{Instant, Zxid};
use storage_model::Model;
use storage_server::{Server, next_entry, only, options, refusal};

fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], offset).unwrap();
}

#[test]
fn what_was_durable_is_there_after_every_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut server = Server::start(&options).unwrap();
    assert_eq!(server.opened.origin, Origin::Empty);
    for round in 0..6 {
        server.create(40, 500);
        if round % 2 == 1 {
            server.snapshot();
        }
        server.create(40, 500);
        let before = server.model.clone();
        drop(server);
        server = Server::start(&options).unwrap();
        assert!(matches!(server.opened.origin, Origin::Own { .. }));
        assert_eq!((&server.model.nodes, server.model.zxid), (&before.nodes, before.zxid), "round {round}");
        assert_eq!(server.opened.log_tail, Tail::Clean);
    }
    // Covered segments were recycled, and at most three snapshots stay.
    assert!(only(dir.path(), "log.").len() < 12, "{:?}", only(dir.path(), "log."));
    assert_eq!(server.opened.files.snapshots().unwrap().len(), 3);
}

#[test]
fn a_first_start_that_was_broken_off_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut model = Model::default();
    let opened = storage::open(&options, &mut model).unwrap();
    let (parts, _) = model.snapshot(opened.files.identity(), 100);
    let mut file = opened.files.begin_snapshot(model.zxid).unwrap();
    file.part(&parts[0]).unwrap();
    std::mem::forget(file);
    drop(opened);
    assert!(only(dir.path(), "snapshot.")[0].to_str().unwrap().ends_with(".tmp"));
    let mut server = Server::start(&options).unwrap();
    assert_eq!(server.opened.origin, Origin::Empty);
    server.create(1, 1);
}

#[test]
fn a_second_server_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&options(dir.path())).unwrap();
    let message = refusal(&options(dir.path()));
    assert!(message.contains("in use by another server"), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    // A clone of the lock, held for I/O under way, keeps it.
    let held = server.opened.lock.try_clone().unwrap();
    drop(server);
    assert!(refusal(&options(dir.path())).contains("in use"));
    // Whoever waits gets it when the last hold goes.
    let patient = StorageOptions { lock_wait: Duration::from_secs(30), ..options(dir.path()) };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Server::start(&patient).map(|server| server.opened.zxid));
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap(), Zxid::ZERO);
    });
}

/// BUG-24: snapshots that are gone are not an empty database.
#[test]
fn missing_snapshots_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&options(dir.path())).unwrap();
    server.create(5, 10);
    drop(server);
    for path in only(dir.path(), "snapshot.") {
        fs::remove_file(path).unwrap();
    }
    let message = refusal(&options(dir.path()));
    assert!(message.contains("its snapshots are missing"), "{message}");
}

/// BUG-24: a log directory that is not mounted, or of another server.
#[test]
fn a_wiped_or_foreign_log_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| StorageOptions {
        lock_wait: Duration::ZERO,
        ..StorageOptions::new(dir.path().join(name), Some(dir.path().join(format!("{name}-log"))))
    };
    for name in ["a", "b"] {
        Server::start(&place(name)).unwrap().create(3, 10);
    }
    let crossed = StorageOptions { data_log_dir: place("b").data_log_dir, ..place("a") };
    let message = refusal(&crossed);
    assert!(message.contains("is of another server"), "{message}");
    fs::rename(dir.path().join("a-log"), dir.path().join("away")).unwrap();
    let message = refusal(&place("a"));
    assert!(message.contains("identity: it is missing"), "{message}");
    // And a log without its dataDir.
    fs::rename(dir.path().join("b"), dir.path().join("b-away")).unwrap();
    let message = refusal(&place("b"));
    assert!(message.contains("there is a log in"), "{message}");
}

/// O7: a snapshot that does not verify is passed over as long as an older one and the log cover everything.
#[test]
fn an_unsound_snapshot_falls_back_to_an_older_one_and_the_log() {
    for packing in Packing::ALL {
        let dir = tempfile::tempdir().unwrap();
        let options = StorageOptions { packing, ..options(dir.path()) };
        let mut server = Server::start(&options).unwrap();
        server.create(50, 300);
        server.snapshot();
        server.create(50, 300);
        let kept = server.snapshot();
        assert_eq!((kept.newest, kept.oldest, kept.count), (Zxid(100), Zxid(0), 3));
        server.create(5, 300);
        let model = server.model.clone();
        drop(server);
        let newest = dir.path().join("ringkeeper").join(format!("snapshot.64{}", packing.extension()));
        flip(&newest, 700);
        let server = Server::start(&options).unwrap();
        assert_eq!(server.opened.origin, Origin::Own { snapshot: Zxid(50) });
        assert_eq!(server.model.nodes, model.nodes);
        assert!(server.opened.warnings[0].contains("snapshot.64"), "{:?}", server.opened.warnings);
        drop(server);
        // Without a manifest it does not count either.
        fs::remove_file(dir.path().join("ringkeeper/snapshot.32.manifest")).unwrap();
        assert_eq!(Server::start(&options).unwrap().opened.origin, Origin::Own { snapshot: Zxid(0) });
        // None left.
        let last = dir.path().join(format!("ringkeeper/snapshot.0{}", packing.extension()));
        fs::write(&last, &fs::read(&last).unwrap()[..90]).unwrap();
        let message = refusal(&options);
        assert!(message.contains("none of its snapshots can be trusted"), "{message}");
        assert!(message.contains("offset") || message.contains("content-crc32c"), "{message}");
    }
}

/// P11: damage in the log is refused with file and offset, and nothing is changed.
#[test]
fn a_damaged_log_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&options(dir.path())).unwrap();
    for _ in 0..4 {
        server.create(3, 300);
    }
    drop(server);
    let log = only(dir.path(), "log.").remove(0);
    let sound = fs::read(&log).unwrap();
    flip(&log, 8192 + 200);
    for _ in 0..2 {
        let message = refusal(&options(dir.path()));
        assert!(message.contains("log segment 0000000000000001 is damaged at offset 8192"), "{message}");
        assert!(message.contains("Nothing was changed"), "{message}");
    }
    fs::write(&log, &sound).unwrap();
    assert_eq!(Server::start(&options(dir.path())).unwrap().opened.zxid, Zxid(12));
}

/// O10: a write under way when the power went is cut, once, and what follows goes on from there.
#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&options(dir.path())).unwrap();
    server.create(3, 300);
    let entry = next_entry(&mut server.model, 9000);
    server.writer.append(Zxid(4), &entry);
    let write = server.writer.next_write(Instant(0)).unwrap();
    let log = server.opened.files.segment_path(write.segment);
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.write_all_at(&write.bytes[..8192], write.offset_bytes).unwrap();
    drop(server);
    let mut server = Server::start(&options(dir.path())).unwrap();
    assert_eq!(server.opened.zxid, Zxid(3));
    assert!(matches!(server.opened.log_tail, Tail::Torn { .. }));
    server.create(2, 10);
    let model = server.model.clone();
    drop(server);
    let server = Server::start(&options(dir.path())).unwrap();
    assert_eq!((server.opened.zxid, server.opened.log_tail), (Zxid(5), Tail::Clean));
    assert_eq!(server.model.nodes, model.nodes);
}

/// A log that ends before a snapshot has lost what was acknowledged.
#[test]
fn a_log_shorter_than_a_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&options(dir.path())).unwrap();
    server.create(3, 300);
    server.create(3, 300);
    server.snapshot();
    drop(server);
    let log = only(dir.path(), "log.").remove(0);
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(&[0; 4096], 8192).unwrap();
    let message = refusal(&options(dir.path()));
    assert!(message.contains("damaged at offset 8192"), "{message}");
}

/// BUG-52: a disk that is full neither publishes a snapshot nor costs an old one.
///
/// Method: a part that is missing stands for what was not written; the reading back notices.
#[test]
fn an_incomplete_snapshot_is_not_published_and_nothing_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&options(dir.path())).unwrap();
    for _ in 0..3 {
        server.create(20, 300);
        server.snapshot();
    }
    server.create(20, 300);
    let files = server.opened.files.clone();
    let before = files.snapshots().unwrap();
    let (parts, manifest) = server.model.snapshot(files.identity(), 1000);
    for missing in [0, 1, parts.len() - 1] {
        let mut file = files.begin_snapshot(server.model.zxid).unwrap();
        for (index, part) in parts.iter().enumerate() {
            if index != missing {
                file.part(part).unwrap();
            }
        }
        let error = file.finish(&manifest.encode()).unwrap_err();
        assert!(error.to_string().contains("older ones and the log are kept"), "{error}");
        assert_eq!(files.snapshots().unwrap(), before);
    }
    drop(files.begin_snapshot(server.model.zxid).unwrap());
    assert!(only(dir.path(), "snapshot.").iter().all(|path| path.extension().is_none_or(|ext| ext != "tmp")));
}

/// A ZooKeeper that went on after its data was taken over has what we do not.
#[test]
fn a_version_2_that_went_on_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/zookeeper-3.9.5/plain/version-2");
    let version_2 = dir.path().join("version-2");
    fs::create_dir(&version_2).unwrap();
    for file in fs::read_dir(golden).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), version_2.join(file.file_name())).unwrap();
    }
    let list = || -> Vec<_> {
        let mut files: Vec<_> = fs::read_dir(&version_2)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    let before = list();
    let mut server = Server::start(&options(dir.path())).unwrap();
    server.create(2, 10);
    let zxid = server.model.zxid;
    drop(server);
    assert!(list() == before, "version-2 is left as it was");
    assert_eq!(Server::start(&options(dir.path())).unwrap().opened.zxid, zxid);
    fs::write(version_2.join("log.3b"), b"").unwrap();
    let message = refusal(&options(dir.path()));
    assert!(message.contains("has written here since"), "{message}");
}

/// `datadir.autocreate`, `db.autocreate`.
#[test]
fn an_empty_database_needs_leave_where_it_is_not_automatic() {
    let dir = tempfile::tempdir().unwrap();
    let missing = StorageOptions { autocreate: false, ..options(&dir.path().join("none")) };
    assert!(refusal(&missing).contains("datadir.autocreate"));
    let guarded = StorageOptions { db_autocreate: false, ..options(dir.path()) };
    assert!(refusal(&guarded).contains("db.autocreate"));
    fs::write(dir.path().join("initialize"), b"").unwrap();
    Server::start(&guarded).unwrap();
    assert!(!dir.path().join("initialize").exists());
    Server::start(&guarded).unwrap();
}

/// T-CRASH 1: side files and snapshots of any length, and with any byte changed.
///
/// Method: the server starts with exactly what was durable, from an older snapshot where it must, or not at all.
#[test]
fn side_files_and_snapshots_are_whole_or_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut server = Server::start(&options).unwrap();
    server.create(3, 20);
    server.snapshot();
    server.create(2, 20);
    let nodes = server.model.nodes.clone();
    drop(server);
    for (name, must_refuse) in [("identity", true), ("snapshot.3.manifest", false), ("snapshot.3", false)] {
        let path = dir.path().join("ringkeeper").join(name);
        let whole = fs::read(&path).unwrap();
        let step = whole.len() / 60 + 1;
        for at in (0..whole.len()).step_by(step) {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            for bytes in [&whole[..at], &flipped] {
                fs::write(&path, bytes).unwrap();
                match storage::open(&options, &mut Model::default()) {
                    Err(error) => assert!(must_refuse, "{name} at {at}: {error}"),
                    Ok(opened) => {
                        assert!(!must_refuse, "{name} at {at}");
                        assert_eq!(opened.origin, Origin::Own { snapshot: Zxid(0) }, "{name} at {at}");
                        drop(opened);
                        let mut model = Model::default();
                        assert_eq!(storage::open(&options, &mut model).unwrap().zxid, Zxid(5));
                        assert_eq!(model.nodes, nodes, "{name} at {at}");
                    }
                }
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(Server::start(&options).unwrap().opened.origin, Origin::Own { snapshot: Zxid(3) });
}

/// Each start begins a segment; a server that is restarted again and again says when a snapshot would free them.
#[test]
fn segments_left_by_restarts_lead_to_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let mut advised = Vec::new();
    for _ in 0..12 {
        let mut server = Server::start(&options).unwrap();
        server.create(1, 10);
        advised.push(server.opened.snapshot_advised);
        if server.opened.snapshot_advised {
            server.snapshot();
        }
    }
    assert_eq!(advised.iter().filter(|&&advised| advised).count(), 2, "{advised:?}");
    assert!(only(dir.path(), "log.").len() <= 16);
}
