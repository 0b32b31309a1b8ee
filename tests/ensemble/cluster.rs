//! Several servers of one ensemble, each a process with a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use ringkeeper::client::{Client, four_letter};

use crate::support::{Server, Shape, free_port, shapes, wait_for, wait_until};
use crate::wires::Wires;

/// How long one answer to a four-letter word may take before the server counts as silent.
const WORD_PATIENCE: Duration = Duration::from_secs(2);

/// An ensemble. Servers are counted from 0; their ids are one more.
pub struct Cluster {
    shape: Shape,
    places: Vec<Place>,
    keys: Vec<(String, String)>,
    wires: Option<Wires>,
    runs: u32,
    /// Dropped last: a server that is dropped by a test that fails shows its log.
    directory: tempfile::TempDir,
}

/// One server: where it is, and its process while it runs.
struct Place {
    observer: bool,
    client_port: u16,
    quorum_port: u16,
    election_port: u16,
    server: Option<Server>,
    paused: bool,
}

impl Cluster {
    /// Nothing runs yet. Observers come after the voters.
    pub fn new(voters: usize, observers: usize) -> Cluster {
        Cluster::shaped(shapes()[0], voters, observers)
    }

    pub fn shaped(shape: Shape, voters: usize, observers: usize) -> Cluster {
        let places = (0..voters + observers)
            .map(|index| Place {
                observer: index >= voters,
                client_port: free_port(),
                quorum_port: free_port(),
                election_port: free_port(),
                server: None,
                paused: false,
            })
            .collect();
        let keys = [
            ("tickTime", "500"),
            ("initLimit", "20"),
            ("syncLimit", "4"),
            ("maxClientCnxns", "0"),
            ("preAllocSize", "4096"),
            ("4lw.commands.whitelist", "*"),
            ("clientPortAddress", "127.0.0.1"),
        ];
        Cluster {
            directory: tempfile::Builder::new()
                .prefix("ringkeeper-ensemble-")
                .tempdir()
                .expect("a directory"),
            shape,
            places,
            keys: keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            wires: None,
            runs: 0,
        }
    }

    /// A key of every server's file.
    pub fn set(&mut self, key: &str, value: impl ToString) -> &mut Cluster {
        self.keys.retain(|(its, _)| its != key);
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    /// Lets all that servers say to one another pass through this test, which can cut it.
    pub fn wire(&mut self) -> &mut Cluster {
        let ports =
            self.places.iter().map(|place| (place.quorum_port, place.election_port)).collect::<Vec<_>>();
        self.wires = Some(Wires::new(&ports));
        self
    }

    pub fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("asked for with wire()")
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    fn home(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("server-{}", index + 1))
    }

    pub fn data(&self, index: usize) -> PathBuf {
        self.home(index).join("data")
    }

    pub fn config_file(&self, index: usize) -> PathBuf {
        self.home(index).join("zoo.cfg")
    }

    pub fn addr(&self, index: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.places[index].client_port))
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        (0..self.len()).map(|index| self.addr(index)).collect()
    }

    pub fn election_addr(&self, index: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.places[index].election_port))
    }

    pub fn quorum_addr(&self, index: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.places[index].quorum_port))
    }

    /// The `server.N` lines as server `of` has them.
    fn lines(&self, of: usize) -> String {
        let line = |(index, place): (usize, &Place)| {
            let role = if place.observer { "observer" } else { "participant" };
            let (host, quorum, election) = match &self.wires {
                // Without an address of its own that others could dial past the wires.
                Some(_) if index == of => ("0.0.0.0", place.quorum_port, place.election_port),
                Some(wires) => {
                    let (quorum, election) = wires.ports(of, index);
                    ("127.0.0.1", quorum, election)
                }
                None => ("127.0.0.1", place.quorum_port, place.election_port),
            };
            format!("server.{}={host}:{quorum}:{election}:{role}\n", index + 1)
        };
        self.places.iter().enumerate().map(line).collect()
    }

    /// A server as a reconfiguration adds it.
    pub fn line(&self, index: usize) -> String {
        let Place { quorum_port, election_port, client_port, .. } = self.places[index];
        format!("server.{}=127.0.0.1:{quorum_port}:{election_port};127.0.0.1:{client_port}", index + 1)
    }

    /// Writes a server's file and its id.
    pub fn write_config(&self, index: usize) {
        let place = &self.places[index];
        fs::create_dir_all(self.data(index)).unwrap();
        fs::write(self.data(index).join("myid"), format!("{}\n", index + 1)).unwrap();
        let mut text = format!("clientPort={}\ndataDir={}\n", place.client_port, self.data(index).display());
        for (key, value) in &self.keys {
            text.push_str(&format!("{key}={value}\n"));
        }
        if place.observer {
            text.push_str("peerType=observer\n");
        }
        text.push_str(&format!("ringkeeper.io={}\nringkeeper.cores={}\n", self.shape.io, self.shape.cores));
        text.push_str(&self.lines(index));
        fs::write(self.config_file(index), text).unwrap();
    }

    /// Starts a server and waits for nothing.
    pub fn start(&mut self, index: usize) {
        assert!(self.places[index].server.is_none(), "server {} runs", index + 1);
        self.write_config(index);
        self.start_unchanged(index);
    }

    /// As [`Cluster::start`], with the file as it is: as its server left it.
    pub fn start_unchanged(&mut self, index: usize) {
        assert!(self.places[index].server.is_none(), "server {} runs", index + 1);
        self.runs += 1;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
        command.arg("serve").arg(self.config_file(index));
        let log = self.home(index).join(format!("run-{}.log", self.runs));
        self.places[index].server = Some(Server::spawn(command, self.addr(index), log));
    }

    /// Starts all that do not run, and waits until each has its role.
    pub fn start_all(&mut self) -> usize {
        for index in 0..self.len() {
            if self.places[index].server.is_none() {
                self.start(index);
            }
        }
        self.wait_all()
    }

    pub fn server(&self, index: usize) -> &Server {
        self.places[index].server.as_ref().unwrap_or_else(|| panic!("server {} does not run", index + 1))
    }

    pub fn is_running(&self, index: usize) -> bool {
        self.places[index].server.is_some() && !self.places[index].paused
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.len()).filter(|index| self.is_running(*index)).collect()
    }

    /// As `kill -9`.
    pub fn kill(&mut self, index: usize) {
        let place = &mut self.places[index];
        place.server.take().expect("it runs").kill();
        place.paused = false;
    }

    /// An orderly stop.
    pub fn terminate(&mut self, index: usize) -> ExitStatus {
        self.places[index].server.take().expect("it runs").terminate()
    }

    pub fn pause(&mut self, index: usize) {
        self.server(index).pause();
        self.places[index].paused = true;
    }

    pub fn resume(&mut self, index: usize) {
        self.server(index).resume();
        self.places[index].paused = false;
    }

    /// Removes all a server that does not run has on disk.
    pub fn wipe(&mut self, index: usize) {
        assert!(self.places[index].server.is_none(), "server {} runs", index + 1);
        fs::remove_dir_all(self.data(index)).unwrap();
    }

    /// The answer to a word; `None` where nobody answers.
    pub fn word(&self, index: usize, word: &str) -> Option<String> {
        if !self.is_running(index) {
            return None;
        }
        let answer = four_letter(self.addr(index), word, WORD_PATIENCE).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What `srvr` calls its mode; `None` where it does not serve.
    pub fn mode(&self, index: usize) -> Option<String> {
        let answer = self.word(index, "srvr")?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// `mntr`, by name without its `zk_`.
    pub fn metrics(&self, index: usize) -> BTreeMap<String, String> {
        let answer = self.word(index, "mntr").unwrap_or_default();
        let pairs = answer.lines().filter_map(|line| line.strip_prefix("zk_")?.split_once('\t'));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Waits until each server that runs serves in its role, exactly one of them as the leader. Gives the leader.
    pub fn wait_all(&mut self) -> usize {
        let running = self.running();
        self.wait_serving(&running)
    }

    /// As [`Cluster::wait_all`], for some of them.
    pub fn wait_serving(&mut self, indices: &[usize]) -> usize {
        self.fail_if_ended();
        wait_for(&format!("servers {:?} serve, one as the leader", ids(indices)), || {
            let mut leader = None;
            for &index in indices {
                match (self.mode(index)?.as_str(), self.places[index].observer) {
                    ("leader", false) if leader.is_none() => leader = Some(index),
                    ("follower", false) | ("observer", true) => {}
                    _ => return None,
                }
            }
            leader
        })
    }

    /// Waits until this one serves nobody though it runs.
    pub fn wait_unserving(&self, index: usize) {
        wait_until(&format!("server {} serves nobody", index + 1), || {
            self.word(index, "srvr").is_some_and(|answer| answer.contains("not currently serving requests"))
        });
    }

    fn fail_if_ended(&mut self) {
        for (index, place) in self.places.iter_mut().enumerate() {
            if let Some(server) = &mut place.server
                && let Some(status) = server.ended()
            {
                panic!("server {} ended with {status}:\n{}", index + 1, server.log());
            }
        }
    }

    /// A session through this server, waited for.
    pub fn client(&self, index: usize) -> Client {
        wait_for(&format!("a session through server {}", index + 1), || Client::open(self.addr(index)).ok())
    }
}

pub fn ids(indices: &[usize]) -> Vec<usize> {
    indices.iter().map(|index| index + 1).collect()
}
