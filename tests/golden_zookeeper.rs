//! Data directories of a real ZooKeeper (`tests/golden/zookeeper-3.9.5`) are read as it would read them.

mod storage_model;

use std::fs;
use std::path::{Path, PathBuf};

use ringkeeper::proto::{NodeKind, acl};
use ringkeeper::server::storage::{self, Files, Opened, Origin, StorageOptions};
use ringkeeper::snapshot::{self, Packing};
use ringkeeper::types::Zxid;
use storage_model::Model;

fn golden(variant: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/zookeeper-3.9.5").join(variant)
}

/// A copy to be opened, as opening makes our directory beside.
fn copy(variant: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("version-2")).unwrap();
    for file in fs::read_dir(golden(variant).join("version-2")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join("version-2").join(file.file_name())).unwrap();
    }
    dir
}

fn save(files: &Files, model: &Model) {
    let (parts, manifest) = model.snapshot(files.identity(), 1000);
    let mut file = files.begin_snapshot(model.zxid).unwrap();
    parts.iter().for_each(|part| file.part(part).unwrap());
    file.finish(&manifest.encode()).unwrap();
}

fn import(variant: &str) -> (tempfile::TempDir, Opened, Model) {
    let dir = copy(variant);
    let mut model = Model::default();
    let opened = storage::open(&StorageOptions::new(dir.path(), None), &mut model).unwrap();
    (dir, opened, model)
}

#[test]
fn each_directory_is_imported_and_every_digest_holds() {
    for (variant, zxid) in [("plain", 0x3a), ("gzip", 0x56), ("snappy", 0x56)] {
        let (dir, opened, model) = import(variant);
        println!("{variant}: {} {:?} {:?}", opened.zxid, opened.origin, opened.warnings);
        assert!(matches!(opened.origin, Origin::ZooKeeper { snapshot: Some(_) }));
        assert!(opened.first_snapshot_due);
        assert_eq!((opened.zxid, model.zxid), (Zxid(zxid), Zxid(zxid)), "{variant}");
        assert!(!opened.warnings.iter().any(|warning| warning.contains("digest")), "{:?}", opened.warnings);
        assert!(model.digests_compared > 0);

        let node = |path: &str| model.nodes.get(path).unwrap_or_else(|| panic!("{variant} has {path}"));
        assert_eq!(node("/null").data, None);
        assert_eq!(node("/empty").data.as_deref(), Some(&b""[..]));
        assert_eq!(
            node("/\u{fc}ml\u{e4}ut-\u{4e16}").data.as_deref(),
            Some("data of /\u{fc}ml\u{e4}ut-\u{4e16}".as_bytes())
        );
        assert_eq!(node("/big").data.as_ref().unwrap().len(), 3072);
        assert_eq!(node("/cont").stat.kind(), NodeKind::Container);
        assert_eq!(node("/ttl").stat.kind(), NodeKind::Ttl(10_000_000));
        assert_eq!(node("/a").acl, acl::OPEN_UNSAFE);
        assert_ne!(node("/a/b/c").acl, acl::OPEN_UNSAFE);
        assert!(matches!(node("/second-run/e").stat.kind(), NodeKind::Ephemeral(_)));
        assert!(!model.nodes.contains_key("/a/gone0") && !model.nodes.contains_key("/after-delete"));
        assert!(!model.nodes.contains_key("/m2"), "a failed multi leaves nothing");

        // Taken over, and read again from our own files.
        save(&opened.files, &model);
        drop(opened);
        let mut again = Model::default();
        let opened = storage::open(&StorageOptions::new(dir.path(), None), &mut again).unwrap();
        assert_eq!(opened.origin, Origin::Own { snapshot: Zxid(zxid) });
        assert_eq!((&again.nodes, &again.sessions), (&model.nodes, &model.sessions));
    }
}

/// The whole log, from the empty tree on: every transaction's digest is the tree's.
#[test]
fn a_whole_log_replays_from_nothing() {
    let dir = copy("plain");
    for name in fs::read_dir(dir.path().join("version-2")).unwrap() {
        let path = name.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("snapshot.") {
            fs::remove_file(path).unwrap();
        }
    }
    let mut options = StorageOptions::new(dir.path(), None);
    let refused = storage::open(&options, &mut Model::default()).unwrap_err();
    assert!(refused.to_string().contains("snapshot.trust.empty"), "{refused}");
    options.trust_empty_snapshot = true;
    let mut model = Model::default();
    let opened = storage::open(&options, &mut model).unwrap();
    assert_eq!(opened.origin, Origin::ZooKeeper { snapshot: None });
    assert!(opened.warnings.iter().any(|warning| warning.contains("under the zxid of the one before")));
    assert!(model.digests_compared > 40);
    let (_dir, _, imported) = import("plain");
    let strip = |model: &Model| -> Vec<_> {
        let plain = model.nodes.iter().filter(|(path, _)| !path.starts_with("/zookeeper"));
        plain.map(|(path, node)| (path.clone(), node.clone())).collect()
    };
    for (replayed, imported) in strip(&model).iter().zip(&strip(&imported)) {
        assert_eq!(replayed, imported);
    }
    assert_eq!(strip(&model).len(), strip(&imported).len());
    assert!(!opened.warnings.iter().any(|warning| warning.contains("digest")), "{:?}", opened.warnings);
}

/// Every snapshot of every kind loads, and where it is not fuzzy has the digest it says.
#[test]
fn every_snapshot_loads_with_its_digest() {
    let mut count = 0;
    for (variant, packing) in
        [("plain", Packing::Plain), ("gzip", Packing::Gzip), ("snappy", Packing::Snappy)]
    {
        for file in fs::read_dir(golden(variant).join("version-2")).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(zxid) = name.strip_prefix("snapshot.") else { continue };
            let zxid = i64::from_str_radix(zxid.split('.').next().unwrap(), 16).unwrap();
            let mut model = Model::default();
            let bytes = fs::read(&path).unwrap();
            let loaded = snapshot::load(&mut snapshot::unpack(packing, &bytes[..]), &mut model)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(loaded.counts.nodes as usize, model.nodes.len());
            let digest = loaded.digest.map_or(0, |digest| digest.tree_digest);
            if loaded.zxid_last == Some(Zxid(zxid)) && zxid > 0 {
                assert_eq!(digest, model.digest(), "{}", path.display());
            }
            if zxid == 0 {
                assert_eq!(model.digest(), 0x51c6_d660, "the empty tree");
            }
            count += 1;
        }
    }
    assert_eq!(count, 10);
}

/// `inspect` prints every transaction and every node.
#[test]
fn logs_and_snapshots_print() {
    let bytes = fs::read(golden("plain").join("version-2/log.1")).unwrap();
    let mut lines = Vec::new();
    let file_bytes = bytes.len() as u64;
    ringkeeper::txnlog::print::zookeeper_lines(&mut &bytes[..], file_bytes, &mut |line| lines.push(line))
        .unwrap();
    assert_eq!(lines.len(), 0x2b + 1, "one a transaction, and the end");
    assert!(lines[0].contains("createSession timeout 30000 ms digest 2:1371985504"), "{}", lines[0]);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("create ttl 10000000 ms \"/ttl\" 0 bytes acl [cdrwa world:anyone]"))
    );
    assert!(lines.iter().all(|line| !line.contains("no transaction")));
    let bytes = fs::read(golden("plain").join("version-2/snapshot.2b")).unwrap();
    let mut lines = Vec::new();
    snapshot::print::snapshot_lines(&mut &bytes[..], &mut |line| lines.push(line)).unwrap();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("node \"/cont\" 0 bytes acl 2") && line.ends_with(" container"))
    );
    assert!(lines.contains(&"acl 2 [cdrwa world:anyone]".to_owned()));
    assert_eq!(lines.last().unwrap(), "last zxid 0x2b");
}
