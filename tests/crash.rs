//! Power loss as far as a process can have it: kill -9 under load, a full disk, damaged files. What was acknowledged is
//! there afterwards, in the versions that were acknowledged; what cannot be trusted is refused.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ringkeeper::client::{Client, ConnectOptions, MultiResult, Request, Response};
use ringkeeper::proto::client::CreateMode;
use ringkeeper::stdx::rng::Rng;
use ringkeeper::types::Zxid;
use support::{Server, Shape, Site, chance, seed, shapes, wait_for};

/// Writers that run at once, each with a session and names of its own.
const WRITERS: usize = 4;
/// Requests a writer has under way.
const WINDOW: usize = 24;
/// Bytes data has at most.
const DATA_BYTES_MAX: u64 = 3000;

/// What a writer knows of one of its nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    version: i32,
    data: Vec<u8>,
    mzxid: Zxid,
    ephemeral: bool,
}

/// What a request not yet answered will do.
#[derive(Clone, Debug)]
enum Pending {
    Create {
        path: String,
        data: Vec<u8>,
        ephemeral: bool,
    },
    Sequential {
        data: Vec<u8>,
    },
    Set {
        path: String,
        data: Vec<u8>,
    },
    Delete {
        path: String,
    },
    /// Sets both nodes to the same, or neither.
    Both {
        data: Vec<u8>,
    },
    Read,
}

/// One writer over all the lives of the server.
struct Writer {
    number: usize,
    rng: Rng,
    session: Option<ConnectOptions>,
    /// Acknowledged; the node's state is this, or what one of `unsure` makes of it.
    known: BTreeMap<String, Known>,
    /// Acknowledged to be gone.
    gone: BTreeSet<String>,
    /// Sent before the server died and not answered, in order.
    unsure: Vec<Pending>,
    /// Every sequential name ever acknowledged.
    sequential: BTreeSet<String>,
    zxid_acknowledged: Zxid,
    next_name: u64,
    next_data: u64,
}

impl Writer {
    fn new(number: usize, seed: u64) -> Writer {
        Writer {
            number,
            rng: Rng::new(seed ^ (number as u64) << 32),
            session: None,
            known: BTreeMap::new(),
            gone: BTreeSet::new(),
            unsure: Vec::new(),
            sequential: BTreeSet::new(),
            zxid_acknowledged: Zxid::ZERO,
            next_name: 0,
            next_data: 0,
        }
    }

    fn base(&self) -> String {
        format!("/w{}", self.number)
    }

    fn data(&mut self) -> Vec<u8> {
        self.next_data += 1;
        let mut data = format!("{}:{}:", self.number, self.next_data).into_bytes();
        let length = data.len() + self.rng.below(DATA_BYTES_MAX) as usize;
        data.resize(length, self.next_data as u8);
        data
    }

    fn connect(&mut self, addr: SocketAddr) -> Client {
        let options = self
            .session
            .clone()
            .unwrap_or(ConnectOptions { timeout_ms: 10_000, ..ConnectOptions::default() });
        let client = wait_for("a session", || match Client::connect(addr, &options) {
            Ok(client) => Some(client),
            Err(ringkeeper::client::ClientError::Refused) => {
                panic!("writer {}: session {} is refused", self.number, options.session)
            }
            Err(_) => None,
        });
        if self.session.is_none() {
            self.session = Some(client.reconnect_options());
        }
        client
    }

    /// Makes what the load needs; all of it acknowledged.
    fn prepare(&mut self, addr: SocketAddr) {
        let mut client = self.connect(addr);
        client.create(&self.base(), b"", CreateMode::Persistent).unwrap();
        for name in ["x", "y"] {
            client.create(&format!("{}/{name}", self.base()), b"", CreateMode::Persistent).unwrap();
        }
        self.zxid_acknowledged = client.zxid_seen();
        self.keep_session(&client);
    }

    fn keep_session(&mut self, client: &Client) {
        let zxid = client.zxid_seen();
        if let Some(session) = &mut self.session {
            session.zxid_seen = session.zxid_seen.max(zxid);
        }
    }

    /// Sends until the connection breaks, and notes what is acknowledged.
    fn run(&mut self, mut client: Client, acknowledged: &AtomicU64) {
        let mut pending = std::collections::VecDeque::new();
        loop {
            while pending.len() < WINDOW {
                let next = self.next(&pending);
                self.queue(&mut client, &next);
                pending.push_back(next);
            }
            if client.flush().is_err() {
                break;
            }
            let Ok(reply) = client.receive_reply() else { break };
            let asked = pending.pop_front().expect("a reply has a request");
            self.acknowledge(asked, reply.zxid, reply.err, reply.response);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        // What was on its way when the server died was acknowledged too.
        while let Ok(reply) = client.receive_reply() {
            let asked = pending.pop_front().expect("a reply has a request");
            self.acknowledge(asked, reply.zxid, reply.err, reply.response);
        }
        self.keep_session(&client);
        self.unsure = pending.into();
    }

    /// A request whose outcome is known if those before it succeed: no node has two under way.
    fn next(&mut self, pending: &std::collections::VecDeque<Pending>) -> Pending {
        let busy = |path: &str| {
            pending.iter().any(|request| match request {
                Pending::Create { path: other, .. }
                | Pending::Set { path: other, .. }
                | Pending::Delete { path: other } => other == path,
                _ => false,
            })
        };
        let roll = self.rng.below(100);
        // Any version but those of x and y, which change together.
        let single = |path: &&String| path.contains("/n") || path.contains("/s-");
        let free: Vec<String> =
            self.known.keys().filter(single).filter(|path| !busy(path)).take(50).cloned().collect();
        match roll {
            0..25 => {
                self.next_name += 1;
                let path = format!("{}/n{}", self.base(), self.next_name);
                Pending::Create { path, data: self.data(), ephemeral: chance(&mut self.rng, 20) }
            }
            25..40 => Pending::Sequential { data: self.data() },
            40..50 => Pending::Both { data: self.data() },
            50..80 if !free.is_empty() => {
                let path = support::pick(&mut self.rng, &free).clone();
                Pending::Set { path, data: self.data() }
            }
            80..95 if free.len() > 10 => {
                Pending::Delete { path: support::pick(&mut self.rng, &free).clone() }
            }
            _ => Pending::Read,
        }
    }

    fn queue(&self, client: &mut Client, request: &Pending) {
        let base = self.base();
        match request {
            Pending::Create { path, data, ephemeral } => {
                let mode = if *ephemeral { CreateMode::Ephemeral } else { CreateMode::Persistent };
                client.queue(&Request::create(path, data, mode))
            }
            Pending::Sequential { data } => {
                let path = format!("{base}/s-");
                client.queue(&Request::create(&path, data, CreateMode::PersistentSequential))
            }
            Pending::Set { path, data } => {
                let version = Some(self.known[path].version);
                client.queue(&Request::SetData { path, data: Some(data), version })
            }
            Pending::Delete { path } => {
                client.queue(&Request::Delete { path, version: Some(self.known[path].version) })
            }
            Pending::Both { data } => {
                let (x, y) = (format!("{base}/x"), format!("{base}/y"));
                client.queue(&Request::Multi(&[
                    Request::SetData { path: &x, data: Some(data), version: None },
                    Request::SetData { path: &y, data: Some(data), version: None },
                ]))
            }
            Pending::Read => client.queue(&Request::GetChildren { path: &base, watch: false }),
        };
    }

    fn acknowledge(&mut self, asked: Pending, zxid: Zxid, err: i32, response: Response) {
        assert_eq!(err, 0, "writer {}: {asked:?} failed", self.number);
        assert!(zxid >= self.zxid_acknowledged, "{zxid} after {}", self.zxid_acknowledged);
        self.zxid_acknowledged = zxid;
        let fresh = |data, ephemeral| Known { version: 0, data, mzxid: zxid, ephemeral };
        match asked {
            Pending::Create { path, data, ephemeral } => {
                self.known.insert(path, fresh(data, ephemeral));
            }
            Pending::Sequential { data } => {
                let Response::Path(Some(path)) = response else { panic!("{response:?}") };
                assert!(self.sequential.insert(path.clone()), "{path} was given twice");
                self.known.insert(path, fresh(data, false));
            }
            Pending::Set { path, data } => {
                let Response::Stat(stat) = response else { panic!("{response:?}") };
                let known = self.known.get_mut(&path).expect("set, hence known");
                assert_eq!(stat.version, known.version + 1, "{path}");
                assert_eq!(stat.mzxid, zxid);
                *known = Known { version: stat.version, data, mzxid: zxid, ephemeral: known.ephemeral };
            }
            Pending::Delete { path } => {
                self.known.remove(&path);
                self.gone.insert(path);
            }
            Pending::Both { data } => {
                let Response::Multi(results) = response else { panic!("{response:?}") };
                for (name, result) in ["x", "y"].iter().zip(results) {
                    let MultiResult::Done { response: Response::Stat(stat), .. } = result else { panic!() };
                    let known =
                        Known { version: stat.version, data: data.clone(), mzxid: zxid, ephemeral: false };
                    self.known.insert(format!("{}/{name}", self.base()), known);
                }
            }
            Pending::Read => {}
        }
    }

    /// After a restart: all that was acknowledged is there. Requests of a session apply in order, so of the unanswered ones
    /// a prefix has been done and no more; takes that over as known.
    fn check(&mut self, addr: SocketAddr) {
        let mut client = self.connect(addr);
        assert!(client.sync("/").is_ok());
        let base = self.base();
        let mut found = BTreeMap::new();
        for name in client.get_children(&base, false).unwrap() {
            let path = format!("{base}/{name}");
            let (data, stat) = client.get_data(&path, false).unwrap();
            let known = Known {
                version: stat.version,
                data: data.unwrap_or_default(),
                mzxid: stat.mzxid,
                ephemeral: stat.ephemeral_owner != 0,
            };
            found.insert(path, known);
        }
        // The initial x and y are not in `known` until first set.
        let mut expected = self.known.clone();
        for name in ["x", "y"] {
            let path = format!("{base}/{name}");
            let made = Known { version: 0, data: Vec::new(), mzxid: Zxid::ZERO, ephemeral: false };
            expected.entry(path).or_insert(made);
        }
        let unsure = std::mem::take(&mut self.unsure);
        let mut done = 0;
        while !same(&expected, &found) {
            let Some(request) = unsure.get(done) else {
                let lost: Vec<_> =
                    expected.iter().filter(|(path, known)| !agrees(found.get(*path), known)).collect();
                let extra: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
                let lost: Vec<_> =
                    lost.iter().map(|(path, known)| (path, known.version, known.mzxid)).collect();
                panic!(
                    "writer {number}: no prefix of what was unanswered explains it; differs {lost:?}, extra {extra:?}",
                    number = self.number
                );
            };
            apply(&mut expected, request, &found, &base, &self.sequential);
            done += 1;
        }
        for path in found.keys() {
            if path.contains("/s-") && !self.known.contains_key(path) {
                assert!(self.sequential.insert(path.clone()), "{path}: a sequential number came again");
            }
        }
        for path in &self.gone {
            assert!(!found.contains_key(path), "{path} is back");
        }
        assert!(
            client.zxid_seen() >= self.zxid_acknowledged,
            "the server is at {}, {} was acknowledged",
            client.zxid_seen(),
            self.zxid_acknowledged
        );
        for request in &unsure[..done] {
            if let Pending::Delete { path } = request {
                self.gone.insert(path.clone());
            }
        }
        self.known = found.into_iter().filter(|(path, known)| !is_initial(path, known, &base)).collect();
        self.keep_session(&client);
    }
}

/// `x` and `y` as [`Writer::prepare`] made them are handled apart: their zxid is not known.
fn is_initial(path: &str, known: &Known, base: &str) -> bool {
    known.version == 0 && (path == format!("{base}/x") || path == format!("{base}/y"))
}

/// Zxid zero stands for one that is not known: the change was not acknowledged.
fn agrees(found: Option<&Known>, expected: &Known) -> bool {
    found.is_some_and(|found| {
        (found.version, &found.data, found.ephemeral)
            == (expected.version, &expected.data, expected.ephemeral)
            && (expected.mzxid == Zxid::ZERO || found.mzxid == expected.mzxid)
    })
}

fn same(expected: &BTreeMap<String, Known>, found: &BTreeMap<String, Known>) -> bool {
    expected.len() == found.len() && expected.iter().all(|(path, known)| agrees(found.get(path), known))
}

/// Does to `state` what an unanswered request would have done.
fn apply(
    state: &mut BTreeMap<String, Known>,
    request: &Pending,
    found: &BTreeMap<String, Known>,
    base: &str,
    acknowledged: &BTreeSet<String>,
) {
    match request {
        Pending::Create { path, data, ephemeral } => {
            let made = Known { version: 0, data: data.clone(), mzxid: Zxid::ZERO, ephemeral: *ephemeral };
            state.insert(path.clone(), made);
        }
        Pending::Sequential { data } => {
            // Its name is whatever the server gave it; the data tells which.
            let name = found.iter().find(|(path, known)| {
                path.contains("/s-") && known.data == *data && !acknowledged.contains(*path)
            });
            let path = name.map_or_else(|| format!("{base}/s-missing"), |(path, _)| path.clone());
            state.insert(path, Known { version: 0, data: data.clone(), mzxid: Zxid::ZERO, ephemeral: false });
        }
        Pending::Set { path, data } => set(state, path, data),
        Pending::Delete { path } => {
            state.remove(path);
        }
        Pending::Both { data } => {
            for name in ["x", "y"] {
                set(state, &format!("{base}/{name}"), data);
            }
        }
        Pending::Read => {}
    }
}

fn set(state: &mut BTreeMap<String, Known>, path: &str, data: &[u8]) {
    let known = state.get_mut(path).expect("set, hence there");
    known.version += 1;
    known.data = data.to_vec();
    known.mzxid = Zxid::ZERO;
}

/// Runs the load until `writes` requests are acknowledged or every connection has ended, then ends the server with `end`.
fn load(server: &mut Server, writers: &mut [Writer], writes: u64, end: impl FnOnce(&mut Server)) {
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let running: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                let (client, acknowledged) = (writer.connect(server.addr), &acknowledged);
                scope.spawn(move || writer.run(client, acknowledged))
            })
            .collect();
        wait_for("the load makes progress", || {
            let enough = acknowledged.load(Ordering::Relaxed) >= writes;
            (enough || running.iter().all(|one| one.is_finished())).then_some(())
        });
        end(server);
    });
}

fn start_all(site: &mut Site, seed: u64) -> (Server, Vec<Writer>) {
    let server = site.start();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
    writers.iter_mut().for_each(|writer| writer.prepare(server.addr));
    (server, writers)
}

fn check_all(server: &Server, writers: &mut [Writer]) {
    writers.iter_mut().for_each(|writer| writer.check(server.addr));
}

/// One core of each driver: how the log is written depends on nothing else.
fn log_modes() -> Vec<Shape> {
    shapes().iter().copied().filter(|shape| shape.cores == 1).collect()
}

/// Files in our directory whose names begin so, in order.
fn files(site: &Site, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(site.files())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    found.sort();
    found
}

/// Kill -9 at random moments of a load, again and again, while snapshots, retention and recycling go on.
#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    const LIVES: usize = 6;
    let seed = seed("nothing_acknowledged_is_lost_by_kills");
    for &shape in shapes() {
        println!("{shape:?}");
        let mut rng = Rng::new(seed);
        let mut site = Site::new(shape);
        // Segments of the least size there is, and a snapshot every few hundred writes.
        site.set("preAllocSize", 64).set("snapCount", 300).set("ringkeeper.snapRetainCount", 2);
        let (mut server, mut writers) = start_all(&mut site, seed);
        for life in 0..LIVES {
            let writes = 100 + rng.below(1500);
            load(&mut server, &mut writers, writes, Server::kill);
            server = site.start();
            check_all(&server, &mut writers);
            println!("life {life}: {writes} writes, then up to {}", writers[0].zxid_acknowledged);
        }
        load(&mut server, &mut writers, 200, |server| {
            assert_eq!(server.terminate().code(), Some(0));
        });
        server = site.start();
        check_all(&server, &mut writers);
        let (snapshots, logs) = (files(&site, "snapshot."), files(&site, "log."));
        assert!(
            !snapshots.iter().any(|path| path.ends_with("snapshot.0")),
            "older ones are purged: {snapshots:?}"
        );
        assert!(snapshots.len() <= 2 * 3, "{snapshots:?}");
        assert!(logs.len() < 20, "segments are recycled: {logs:?}");
        // Whoever lives keeps its ephemerals; whoever ends takes them along.
        let owner = writers.pop().unwrap();
        let ephemerals: Vec<String> =
            owner.known.iter().filter(|(_, known)| known.ephemeral).map(|(path, _)| path.clone()).collect();
        let client = Client::connect(server.addr, &owner.session.unwrap()).expect("a live session");
        client.close().unwrap();
        let mut other = server.client();
        for path in ephemerals {
            assert_eq!(other.exists(&path, false).unwrap(), None, "{path}");
        }
    }
}

/// No space: nothing more is acknowledged, the process ends and says why; with space again nothing acknowledged is missing.
///
/// Method: a limit on the size of files stands for the full disk, so that the next segment or snapshot cannot be made.
#[test]
fn a_full_disk_ends_the_process_and_loses_nothing() {
    let seed = seed("a_full_disk_ends_the_process_and_loses_nothing");
    for shape in log_modes() {
        println!("{shape:?}");
        let Some((mut site, mount)) = small_disk(shape, 24 << 20) else {
            println!("NOT RUN: no small file system can be mounted here");
            return;
        };
        site.set("preAllocSize", 2048).set("snapCount", 1_000_000);
        let (mut server, mut writers) = start_all(&mut site, seed);
        load(&mut server, &mut writers, u64::MAX, |_| {});
        let status = server.wait_end();
        let log = server.log();
        assert_ne!(status.code(), Some(0), "{log}");
        assert!(log.to_lowercase().contains("space"), "the reason is said: {log}");
        drop(server);
        mount.grow(256 << 20);
        let server = site.start();
        check_all(&server, &mut writers);
        let mut client = server.client();
        client.create("/again", b"", CreateMode::Persistent).expect("writes go on");
        drop(server);
        drop(site);
        drop(mount);
    }
}

/// A file system of its own size, unmounted when dropped.
struct Mount {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mount {
    fn grow(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        assert!(run(&["mount", "-o", &options, self.path.to_str().unwrap()]));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A ring lets go of its files a moment after its process has ended.
        let path = self.path.to_str().unwrap();
        wait_for("the file system is let go", || run(&["umount", path]).then_some(()));
    }
}

fn run(words: &[&str]) -> bool {
    std::process::Command::new(words[0])
        .args(&words[1..])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A site whose data is on a file system of `bytes`; `None` where this user may not mount.
fn small_disk(shape: Shape, bytes: u64) -> Option<(Site, Mount)> {
    let directory = tempfile::Builder::new().prefix("ringkeeper-disk-").tempdir().unwrap();
    let path = directory.path().to_owned();
    let options = format!("size={bytes}");
    if !run(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", path.to_str().unwrap()]) {
        return None;
    }
    let mount = Mount { path, _directory: directory };
    let mut site = Site::new(shape);
    site.set("dataDir", mount.path.join("data").display());
    Some((site, mount))
}

/// A server with some data and a snapshot, killed.
fn killed_after_some_writes(shape: Shape) -> (Site, Writer) {
    let mut site = Site::new(shape);
    site.set("preAllocSize", 4096);
    let mut server = site.start();
    let mut writers = vec![Writer::new(0, 7)];
    writers[0].prepare(server.addr);
    load(&mut server, &mut writers, 300, Server::kill);
    (site, writers.pop().unwrap())
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).unwrap();
}

/// Where the last byte that is not zero is.
fn content_end(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|&byte| byte != 0).expect("something was written") as u64
}

fn log_with_content(site: &Site) -> PathBuf {
    files(site, "log.")
        .into_iter()
        .find(|path| fs::read(path).unwrap().iter().any(|&byte| byte != 0))
        .unwrap()
}

#[test]
fn a_damaged_log_is_refused_by_name_and_offset() {
    for shape in log_modes() {
        let (mut site, mut writer) = killed_after_some_writes(shape);
        let log = log_with_content(&site);
        let end = content_end(&log);
        let mut rng = Rng::new(3);
        for offset in [4096 + 5, 4096 + rng.below(end / 2 - 4096), 10] {
            flip(&log, offset);
            let before = fs::read(&log).unwrap();
            let (code, said) = site.refused();
            assert_eq!(code, 1, "byte {offset} of {end}: {said}");
            let name = log.file_name().unwrap().to_str().unwrap().trim_start_matches("log.");
            assert!(said.contains(name) && said.contains("offset"), "byte {offset}: {said}");
            assert!(fs::read(&log).unwrap() == before, "nothing is repaired that cannot be proved");
            flip(&log, offset);
        }
        let server = site.start();
        writer.check(server.addr);
    }
}

#[test]
fn a_damaged_snapshot_is_refused_by_name() {
    for shape in log_modes() {
        let (mut site, mut writer) = killed_after_some_writes(shape);
        let snapshot = site.files().join("snapshot.0");
        let length = fs::metadata(&snapshot).unwrap().len();
        for offset in [0, length / 2, length - 1] {
            flip(&snapshot, offset);
            let (code, said) = site.refused();
            assert_eq!(code, 1, "byte {offset}: {said}");
            assert!(said.contains("snapshot.0"), "byte {offset}: {said}");
            flip(&snapshot, offset);
        }
        let server = site.start();
        writer.check(server.addr);
    }
}

/// A write that was under way when the power went is cut, wherever it was torn: it was never acknowledged.
#[test]
fn a_torn_tail_starts() {
    for shape in log_modes() {
        let (mut site, mut writer) = killed_after_some_writes(shape);
        // Served once more, so that the next batch begins a segment of its own, and ended in the middle of nothing.
        let mut server = site.start();
        writer.check(server.addr);
        server.kill();
        let logs = files(&site, "log.");
        // The last segment with content: garbage behind its last batch is a write that never completed.
        let last =
            logs.iter().rev().find(|path| fs::read(path).unwrap().iter().any(|&byte| byte != 0)).unwrap();
        let next = (content_end(last) / 4096 + 1) * 4096;
        let torn: Vec<u8> = (0..6000u32).map(|index| (index * 31 % 251) as u8).collect();
        OpenOptions::new().write(true).open(last).unwrap().write_all_at(&torn, next).unwrap();
        for _ in 0..2 {
            let mut server = site.start();
            writer.check(server.addr);
            server.kill();
        }
    }
}

/// Gone files are not an empty server: what was set up and lost its snapshot is refused.
#[test]
fn missing_files_are_no_new_server() {
    for shape in log_modes() {
        let (mut site, _) = killed_after_some_writes(shape);
        let kept = site.path("kept");
        support::copy_directory(&site.files(), &kept);
        for prefix in ["snapshot.", "log."] {
            for path in files(&site, prefix) {
                fs::remove_file(path).unwrap();
            }
            if prefix == "snapshot." {
                let (code, said) = site.refused();
                assert_eq!(code, 1, "{said}");
            }
            fs::remove_dir_all(site.files()).unwrap();
            support::copy_directory(&kept, &site.files());
        }
    }
}
