//! The data directory of a server in an ensemble: what it promised, whose it is, histories that are cut or replaced, the way
//! back to ZooKeeper.

mod storage_model;
mod storage_server;

use std::fs;
use std::path::Path;

use ringkeeper::server::storage::{self, Files, Kept, Origin, RebuildError, Standing, StorageOptions};
use ringkeeper::txnlog::{LogRange, SegmentId, WriterOptions};
use ringkeeper::types::{Epoch, ServerId, Zxid};
use ringkeeper::zab::Epochs;
use storage_model::Model;
use storage_server::{SEGMENT_BYTES, Server, next_entry, only, options, refusal};

fn member(dir: &Path, server: u8) -> StorageOptions {
    StorageOptions { server_id: Some(ServerId(server)), ..options(dir) }
}

fn epochs(accepted: u32, current: u32) -> Epochs {
    Epochs { accepted: Epoch(accepted), current: Epoch(current) }
}

fn begin_epoch(server: &mut Server, epoch: u32) {
    server.model.zxid = Zxid::new(Epoch(epoch), 0);
}

/// The last zxid, and the names of all nodes.
fn state(model: &Model) -> (Zxid, Vec<String>) {
    (model.zxid, model.nodes.keys().cloned().collect())
}

fn writer_options() -> WriterOptions {
    WriterOptions { segment_bytes: SEGMENT_BYTES, ..WriterOptions::new(77) }
}

#[test]
fn epochs_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 3);
    let mut server = Server::start(&options).unwrap();
    assert_eq!(server.opened.epochs, epochs(0, 0));
    for (accepted, current) in [(1, 0), (1, 1), (4, 1), (4, 4)] {
        server.opened.files.write_epochs(epochs(accepted, current)).unwrap();
        drop(server);
        server = Server::start(&options).unwrap();
        assert_eq!(server.opened.epochs, epochs(accepted, current));
    }
}

#[test]
#[should_panic(expected = "epochs do not fall")]
fn epochs_do_not_fall() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&member(dir.path(), 3)).unwrap();
    server.opened.files.write_epochs(epochs(4, 4)).unwrap();
    server.opened.files.write_epochs(epochs(5, 3)).unwrap();
}

/// History comes first, then the epoch: the one that was promised and whose history is there was about to be entered.
#[test]
fn epochs_and_data_that_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 3);
    let mut server = Server::start(&options).unwrap();
    server.opened.files.write_epochs(epochs(5, 2)).unwrap();
    begin_epoch(&mut server, 5);
    // The test's log goes on from epoch 0 at once, as a real one would at its next leader.
    server.create(2, 10);
    drop(server);
    let path = dir.path().join("ringkeeper/epochs");
    let promised = fs::read(&path).unwrap();
    let server = Server::start(&options).unwrap();
    assert_eq!(server.opened.epochs, epochs(5, 5));
    assert!(server.opened.warnings[0].contains("current epoch was 2"), "{:?}", server.opened.warnings);
    drop(server);
    assert!(Server::start(&options).unwrap().opened.warnings.is_empty());

    // A promise from another time.
    let other = tempfile::tempdir().unwrap();
    let mut server = Server::start(&member(other.path(), 3)).unwrap();
    server.opened.files.write_epochs(epochs(4, 4)).unwrap();
    drop(server);
    fs::copy(other.path().join("ringkeeper/epochs"), &path).unwrap();
    let message = refusal(&options);
    assert!(message.contains("accepted epoch is 4") && message.contains("0x500000002"), "{message}");
    for damage in [&b""[..], &promised[..20], b"ringkeeper-epochs 1\naccepted 9\ncurrent 9\n"] {
        fs::write(&path, damage).unwrap();
        assert!(refusal(&options).contains("epochs: it is damaged"));
    }
    fs::remove_file(&path).unwrap();
    assert!(refusal(&options).contains("it is missing, though this server was in an ensemble"));
    // A server alone promises nothing to anybody.
    assert_eq!(Server::start(&storage_server::options(dir.path())).unwrap().opened.epochs, epochs(5, 5));
}

#[test]
fn a_directory_belongs_to_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let alone = options(dir.path());
    let mut server = Server::start(&alone).unwrap();
    server.create(3, 10);
    drop(server);
    // From alone into an ensemble, and out again.
    let server = Server::start(&member(dir.path(), 7)).unwrap();
    assert_eq!((server.opened.epochs, server.opened.standing), (epochs(0, 0), Standing::Full));
    drop(server);
    drop(Server::start(&alone).unwrap());
    let message = refusal(&member(dir.path(), 8));
    assert!(message.contains("that of server 7, but this is server 8"), "{message}");
    assert!(message.contains("myid"), "{message}");
    let path = dir.path().join("ringkeeper/member");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace('7', "8")).unwrap();
    assert!(refusal(&member(dir.path(), 8)).contains("member: it is damaged"));
}

/// S9, and `reference/quorum-protocol.md` §6.3.
#[test]
fn a_server_without_data_stands_apart_until_it_has_followed_a_leader() {
    let dir = tempfile::tempdir().unwrap();
    let careful = StorageOptions { db_autocreate: false, ..member(dir.path(), 1) };
    let standing = |options: &StorageOptions| Server::start(options).unwrap().opened.standing;
    for _ in 0..2 {
        assert_eq!(standing(&careful), Standing::Empty { may_found: false });
        assert_eq!(standing(&member(dir.path(), 1)), Standing::Empty { may_found: true });
    }
    // Told to count: the file is gone, the word is kept.
    fs::write(dir.path().join("initialize"), "").unwrap();
    assert_eq!(standing(&careful), Standing::Full);
    assert!(!dir.path().join("initialize").exists());
    assert_eq!(standing(&careful), Standing::Full);
    // Wiped, it is a new one.
    fs::remove_dir_all(dir.path().join("ringkeeper")).unwrap();
    assert_eq!(standing(&careful), Standing::Empty { may_found: false });
    // It promised an epoch and has not been synchronised; then it was.
    let mut server = Server::start(&careful).unwrap();
    server.opened.files.write_epochs(epochs(1, 0)).unwrap();
    drop(server);
    assert_eq!(standing(&careful), Standing::Empty { may_found: false });
    let mut server = Server::start(&careful).unwrap();
    server.opened.files.write_epochs(epochs(1, 1)).unwrap();
    drop(server);
    assert_eq!(standing(&careful), Standing::Full);
    // At the very first start, too; and alone it does not matter.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("initialize"), "").unwrap();
    assert_eq!(standing(&StorageOptions { db_autocreate: false, ..member(dir.path(), 1) }), Standing::Full);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(standing(&options(dir.path())), Standing::Full);
}

/// The epochs of a ZooKeeper come with its data, also through a start alone.
#[test]
fn the_epochs_of_a_zookeeper_are_taken_over() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/zookeeper-3.9.5/plain/version-2");
    let place = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        let version_2 = dir.path().join("version-2");
        fs::create_dir(&version_2).unwrap();
        for entry in fs::read_dir(&golden).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, version_2.join(path.file_name().unwrap())).unwrap();
        }
        for name in ["acceptedEpoch", "currentEpoch"] {
            let _ = fs::remove_file(version_2.join(name));
        }
        for (name, text) in files {
            fs::write(version_2.join(name), text).unwrap();
        }
        dir
    };
    let dir = place(&[("acceptedEpoch", "12"), ("currentEpoch", "11")]);
    drop(Server::start(&options(dir.path())).unwrap());
    fs::remove_dir_all(dir.path().join("version-2")).unwrap();
    assert_eq!(Server::start(&member(dir.path(), 2)).unwrap().opened.epochs, epochs(12, 11));

    let none = place(&[]);
    let server = Server::start(&member(none.path(), 2)).unwrap();
    let epoch = server.opened.zxid.epoch().0;
    assert_eq!(server.opened.epochs, epochs(epoch, epoch));

    let garbage = place(&[("acceptedEpoch", "twelve"), ("currentEpoch", "11")]);
    let message = refusal(&member(garbage.path(), 2));
    assert!(message.contains("acceptedEpoch: it holds \"twelve\", a decimal number"), "{message}");
    let torn = place(&[("acceptedEpoch", "12"), ("currentEpoch", "")]);
    assert!(refusal(&member(torn.path(), 2)).contains("currentEpoch: it holds \"\""));
    let crossed = place(&[("acceptedEpoch", "3"), ("currentEpoch", "4")]);
    let message = refusal(&member(crossed.path(), 2));
    assert!(message.contains("the current epoch, 4, is above the accepted one, 3"), "{message}");
}

/// Puts the state of `model` in place of the whole history, as far as the files go.
fn install(server: &mut Server, model: &Model) -> (Kept, SegmentId) {
    let first = server.writer.restart_segment();
    let (parts, manifest) = model.snapshot(server.opened.files.identity(), 1000);
    let mut file = server.opened.files.begin_install(model.zxid, first).unwrap();
    parts.iter().for_each(|part| file.part(part).unwrap());
    file.check(&manifest.encode()).unwrap();
    (file.publish().unwrap(), first)
}

/// A leader's state: epoch 2, with `count` nodes of its own.
fn of_leader(count: usize) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&options(dir.path())).unwrap();
    begin_epoch(&mut server, 2);
    server.create(count, 30);
    server.model.clone()
}

/// 9.1 #4: nothing of what a leader's snapshot replaced is ever seen again, whenever the power goes.
#[test]
fn a_history_is_replaced_by_the_snapshot_of_a_leader() {
    let model = of_leader(5);
    for begin_again in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = member(dir.path(), 1);
        let mut server = Server::start(&options).unwrap();
        // Ahead of the leader, with snapshots, in an epoch that is lost.
        begin_epoch(&mut server, 3);
        server.opened.files.write_epochs(epochs(3, 3)).unwrap();
        server.create(300, 300);
        server.snapshot();
        server.create(200, 300);
        server.snapshot();
        server.create(20, 300);
        let snapshots_before = only(dir.path(), "snapshot.");
        let saved: Vec<_> = snapshots_before.iter().map(|path| (path, fs::read(path).unwrap())).collect();
        let (kept, first) = install(&mut server, &model);
        assert_eq!((kept.newest, kept.oldest, kept.count), (model.zxid, model.zxid, 1));
        if begin_again {
            server.opened.files.history_replaced(first);
            server.writer.restart_after(model.zxid);
            server.model = model.clone();
            server.create(4, 30);
        }
        let expected = state(if begin_again { &server.model } else { &model });
        drop(server);
        // Its deletion of the older snapshots had not reached the disk.
        saved.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        for _ in 0..2 {
            let server = Server::start(&options).unwrap();
            assert_eq!(server.opened.origin, Origin::Own { snapshot: model.zxid });
            assert_eq!(state(&server.model), expected, "log begun: {begin_again}");
            assert_eq!(only(dir.path(), "snapshot.").len(), 2, "the snapshot and its manifest");
        }
        // It goes on as any other; what is snapshot now counts beside the installed one.
        let mut server = Server::start(&options).unwrap();
        server.create(40, 300);
        server.snapshot();
        server.create(2, 300);
        let expected = state(&server.model);
        drop(server);
        let server = Server::start(&options).unwrap();
        assert_eq!(state(&server.model), expected);
        assert!(matches!(server.opened.origin, Origin::Own { snapshot } if snapshot > model.zxid));
        drop(server);
        let contents = || {
            let all = only(dir.path(), "snapshot.");
            all.into_iter().filter(|path| path.extension().is_some_and(|extension| extension != "manifest"))
        };
        fs::write(contents().next_back().unwrap(), "gone").unwrap();
        let server = Server::start(&options).unwrap();
        assert_eq!(state(&server.model), expected, "from the installed one and the log since");
        drop(server);
        // Without any of the new history the old one does not come back.
        contents().for_each(|path| fs::write(path, "gone").unwrap());
        saved.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        assert!(refusal(&options).contains("none of its snapshots can be trusted"));
    }
}

/// Until it is published nothing has changed.
#[test]
fn a_snapshot_of_a_leader_that_is_not_whole_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 1);
    let mut server = Server::start(&options).unwrap();
    server.create(20, 300);
    let model = of_leader(5);
    let first = server.writer.restart_segment();
    let (parts, manifest) = model.snapshot(server.opened.files.identity(), 100);
    let mut file = server.opened.files.begin_install(model.zxid, first).unwrap();
    parts[1..].iter().for_each(|part| file.part(part).unwrap());
    assert!(file.check(&manifest.encode()).is_err());
    drop(file);
    let mut file = server.opened.files.begin_install(model.zxid, first).unwrap();
    parts.iter().for_each(|part| file.part(part).unwrap());
    file.check(&manifest.encode()).unwrap();
    drop(file);
    server.create(3, 10);
    let expected = state(&server.model);
    drop(server);
    assert_eq!(state(&Server::start(&options).unwrap().model), expected);
    assert_eq!(only(dir.path(), "snapshot.").len(), 2);
}

/// A leader without changes sends the state that is there already.
#[test]
fn the_same_state_is_installed_again_and_again() {
    let model = of_leader(5);
    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 1);
    let mut server = Server::start(&options).unwrap();
    server.create(9, 30);
    server.opened.files.write_epochs(epochs(2, 2)).unwrap();
    let mut last = SegmentId(0);
    for _ in 0..3 {
        let (_, first) = install(&mut server, &model);
        assert!(first > last);
        last = first;
        server.opened.files.history_replaced(first);
        server.writer.restart_after(model.zxid);
        server.flush();
        server.model = model.clone();
        server.create(3, 10);
        drop(server);
        server = Server::start(&options).unwrap();
        assert_eq!(state(&server.model).0, Zxid(model.zxid.0 + 3));
        assert_eq!(only(dir.path(), "snapshot.").len(), 2);
    }
}

fn rebuild(files: &Files, to: Zxid) -> Result<(Model, storage::WentBack), RebuildError> {
    let mut model = Model::default();
    let went = files.rebuild(to, writer_options(), &mut model)?;
    Ok((model, went))
}

/// O6: a snapshot not newer, the log up to there, newer snapshots gone, the log cut, all of it durable.
#[test]
fn a_server_goes_back_to_an_earlier_state() {
    for to in [0, 1, 39, 40, 41, 95, 99, 100] {
        let dir = tempfile::tempdir().unwrap();
        let options = member(dir.path(), 1);
        let mut server = Server::start(&options).unwrap();
        let mut states = vec![state(&server.model)];
        for zxid in 1..=100 {
            server.create(1, 700);
            states.push(state(&server.model));
            if zxid == 40 || zxid == 90 {
                server.snapshot();
            }
        }
        let (model, went) = rebuild(&server.opened.files, Zxid(to)).unwrap();
        assert_eq!(state(&model), states[to as usize]);
        let snapshot = [90, 40, 0].into_iter().find(|&zxid| zxid <= to).unwrap();
        assert_eq!((went.snapshot, went.log_start.zxid_last), (Zxid(snapshot), Zxid(to)));
        assert_eq!(went.entry_count, (to - snapshot) as u64);
        drop(server);
        let server = Server::start(&options).unwrap();
        assert_eq!(state(&server.model), states[to as usize], "to {to}");
        // Again from where it is, and on in another epoch.
        let mut server = server;
        let (model, went) = rebuild(&server.opened.files, Zxid(to)).unwrap();
        server.model = model;
        server.writer = ringkeeper::txnlog::Writer::new(writer_options(), went.log_start);
        begin_epoch(&mut server, 1);
        server.opened.files.write_epochs(epochs(1, 1)).unwrap();
        server.create(3, 20);
        let expected = state(&server.model);
        drop(server);
        assert_eq!(state(&Server::start(&options).unwrap().model), expected);
    }
}

#[test]
fn what_cannot_be_gone_back_to_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 1);
    let mut server = Server::start(&options).unwrap();
    server.create(50, 700);
    begin_epoch(&mut server, 2);
    server.opened.files.write_epochs(epochs(2, 2)).unwrap();
    server.create(5, 700);
    for _ in 0..3 {
        server.create(5, 700);
        server.snapshot();
    }
    let cannot = |to: Zxid| match rebuild(&server.opened.files, to) {
        Err(RebuildError::Cannot(reason)) => reason,
        other => panic!("{to}: {other:?}"),
    };
    // Between two epochs, beyond the end, before the oldest snapshot.
    let oldest = Zxid::new(Epoch(2), 10);
    assert!(cannot(Zxid::new(Epoch(1), 3)).contains("no snapshot that is not newer"));
    assert!(cannot(Zxid(oldest.0 - 1)).contains("no snapshot that is not newer"));
    assert!(cannot(Zxid::new(Epoch(2), 99)).contains("does not hold 0x200000063"));
    assert_eq!(server.opened.files.snapshots().unwrap()[0].zxid, oldest);
    rebuild(&server.opened.files, oldest).unwrap();
    drop(server);
    assert_eq!(Server::start(&options).unwrap().opened.zxid, oldest);

    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 1);
    let mut server = Server::start(&options).unwrap();
    server.create(5, 10);
    begin_epoch(&mut server, 2);
    server.opened.files.write_epochs(epochs(2, 2)).unwrap();
    server.create(5, 10);
    let expected = state(&server.model);
    let result = rebuild(&server.opened.files, Zxid::new(Epoch(1), 3));
    assert!(
        matches!(&result, Err(RebuildError::Cannot(reason)) if reason.contains("only 0x5")),
        "{result:?}"
    );
    drop(server);
    assert_eq!(state(&Server::start(&options).unwrap().model), expected);
}

/// Newer snapshots go first: a crash right after finds the state as it was before.
#[test]
fn a_crash_while_going_back_finds_one_state_or_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let options = member(dir.path(), 1);
    let mut server = Server::start(&options).unwrap();
    server.create(50, 700);
    server.snapshot();
    let expected = state(&server.model);
    drop(server);
    for path in only(dir.path(), "snapshot.32") {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(state(&Server::start(&options).unwrap().model), expected);
}

/// O5: a part of the log, while it is written to.
#[test]
fn the_log_is_read_back_while_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&member(dir.path(), 1)).unwrap();
    for round in 1..=10 {
        server.create(20, 700);
        let entry = next_entry(&mut server.model, 700);
        server.writer.append(server.model.zxid, &entry);
        let through = server.writer.zxid_durable();
        let mut after = Zxid(7);
        while after < through {
            let read = server.opened.files.read_log(LogRange { after, through, bytes_max: 9000 }).unwrap();
            assert_eq!(read.entries[0].0, after.next());
            after = read.last();
        }
        assert_eq!(after, through, "round {round}");
        server.flush();
    }
    server.snapshot();
    for _ in 0..3 {
        server.create(100, 700);
        server.snapshot();
    }
    let range = LogRange { after: Zxid(7), through: Zxid(20), bytes_max: 9000 };
    let reason = server.opened.files.read_log(range).unwrap_err();
    assert!(reason.contains("begins after zxid"), "{reason}");
}

/// The way back: a `version-2` that holds the same, and what was there is still there.
#[test]
fn an_export_holds_what_the_server_held() {
    for log_apart in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = member(&dir.path().join("data"), 1);
        if log_apart {
            options.data_log_dir = dir.path().join("logs");
        }
        let mut server = Server::start(&options).unwrap();
        server.opened.files.write_epochs(epochs(4, 2)).unwrap();
        begin_epoch(&mut server, 2);
        server.create(30, 300);
        server.snapshot();
        server.create(12, 300);
        let expected = state(&server.model);
        // In use.
        assert!(
            storage::export(&options, None, &mut Model::default())
                .unwrap_err()
                .to_string()
                .contains("in use")
        );
        drop(server);
        fs::create_dir(dir.path().join("data/version-2")).unwrap();
        fs::write(dir.path().join("data/version-2/log.1"), "old").unwrap();
        for again in ["version-2.before-export", "version-2.before-export-2"] {
            let exported = storage::export(&options, None, &mut Model::default()).unwrap();
            assert_eq!((exported.zxid, exported.entry_count), (expected.0, 12));
            assert_eq!(exported.moved[0], dir.path().join("data").join(again));
        }
        assert_eq!(fs::read(dir.path().join("data/version-2.before-export/log.1")).unwrap(), b"old");
        let version_2 = dir.path().join("data/version-2");
        assert_eq!(fs::read_to_string(version_2.join("acceptedEpoch")).unwrap(), "4");
        assert_eq!(fs::read_to_string(version_2.join("currentEpoch")).unwrap(), "2");
        let log = dir.path().join(if log_apart { "logs" } else { "data" }).join("version-2/log.20000001f");
        assert!(log.exists());
        // What was exported imports again, and is the same.
        let other = tempfile::tempdir().unwrap();
        storage::export(&options, Some(other.path()), &mut Model::default()).unwrap();
        let server = Server::start(&member(other.path(), 1)).unwrap();
        assert_eq!((state(&server.model), server.opened.epochs), (expected.clone(), epochs(4, 2)));
        assert_eq!(server.model.nodes, Server::start(&options).unwrap().model.nodes);
        // Once a ZooKeeper has gone on from there, ours is behind: it has promised more, or has got a snapshot, or has logged.
        fs::write(version_2.join("acceptedEpoch"), "5").unwrap();
        let message = refusal(&options);
        assert!(message.contains("it has accepted epoch 5, ringkeeper 4"), "{message}");
        fs::write(version_2.join("acceptedEpoch"), "4").unwrap();
        drop(Server::start(&options).unwrap());
        for newer in [version_2.join("snapshot.20000002b"), log.with_file_name("log.20000002b")] {
            fs::write(&newer, "ZK").unwrap();
            let message = refusal(&options);
            assert!(message.contains("a ZooKeeper has written here"), "{message}");
            fs::remove_file(newer).unwrap();
        }
    }
}

#[test]
fn nothing_is_exported_from_a_directory_without_data() {
    let dir = tempfile::tempdir().unwrap();
    let error = storage::export(&options(dir.path()), None, &mut Model::default()).unwrap_err();
    assert!(error.to_string().contains("holds no data of ringkeeper"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
