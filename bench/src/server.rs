//! Servers under test: one, or an ensemble of voters and observers that is measured as one.
//!
//! Every member gets a directory of its own with the same `zoo.cfg`: one listener on 127.0.0.1, no limit of connections,
//! timeouts up to ten minutes so that sessions outlive pauses, and every write flushed before its answer, which is the
//! default of both. Members of an ensemble have the same `server.N` lines; all members run on the same cores.

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use ringkeeper::client::Client;

use crate::fail;
use crate::failure::{Context, Result};
use crate::member::{Member, Role};
use crate::process::Sample;

/// Session timeout the generator asks for, ms: long enough that nothing but the idle scenario needs pings.
pub const SESSION_TIMEOUT_MS: i32 = 600_000;
/// Members an ensemble may have here: ports are kept apart by it.
pub const MEMBERS_MAX: usize = 9;
/// Ports of one member: clients, quorum, election.
const PORTS_PER_MEMBER: usize = 3;
/// How long members may take to agree on a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(60);

/// What `--server` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerSpec {
    /// A ringkeeper binary.
    Ringkeeper(PathBuf),
    /// A directory with the jars of Apache ZooKeeper.
    ZooKeeper(PathBuf),
    /// The built-in server that answers in the right sizes and does nothing: the machine's limit.
    Echo,
    /// One that runs already; its processor time is measured where the pid is given.
    External { addr: SocketAddr, pid: Option<u32> },
}

impl ServerSpec {
    /// Its name in reports, unless there are several.
    fn kind(&self) -> &'static str {
        match self {
            ServerSpec::Ringkeeper(_) => "ringkeeper",
            ServerSpec::ZooKeeper(_) => "zookeeper",
            ServerSpec::Echo => "echo",
            ServerSpec::External { .. } => "external",
        }
    }
}

/// A name for each, with a number from the second of a kind on.
pub fn names(specs: &[ServerSpec]) -> Vec<String> {
    let kinds: Vec<&str> = specs.iter().map(ServerSpec::kind).collect();
    let name = |(place, kind): (usize, &&str)| {
        let before = kinds[..place].iter().filter(|other| *other == kind).count();
        if before == 0 { (*kind).to_owned() } else { format!("{kind}-{}", before + 1) }
    };
    kinds.iter().enumerate().map(name).collect()
}

impl FromStr for ServerSpec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<ServerSpec, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "ringkeeper" if !rest.is_empty() => Ok(ServerSpec::Ringkeeper(rest.into())),
            "zookeeper" if !rest.is_empty() => Ok(ServerSpec::ZooKeeper(rest.into())),
            "echo" if rest.is_empty() => Ok(ServerSpec::Echo),
            "external" => {
                let parts: Vec<&str> = rest.rsplitn(2, ':').collect();
                // host:port, or host:port:pid
                let (host_port, pid) = match parts[..] {
                    [last, before] if before.contains(':') && !before.ends_with(']') => {
                        (before, Some(last.parse().map_err(|_| format!("the pid {last:?} is not a number"))?))
                    }
                    _ => (rest, None),
                };
                let addr = host_port
                    .to_socket_addrs()
                    .ok()
                    .and_then(|mut addrs| addrs.next())
                    .ok_or_else(|| format!("{host_port:?} is no host:port"))?;
                Ok(ServerSpec::External { addr, pid })
            }
            _ => Err(format!(
                "{text:?} is none of ringkeeper:<binary>, zookeeper:<directory of jars>, echo, external:host:port[:pid]"
            )),
        }
    }
}

/// How many servers make up the one that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub voters: usize,
    pub observers: usize,
}

impl Shape {
    /// No ensemble at all: a `zoo.cfg` without `server.N` lines.
    pub const ALONE: Shape = Shape { voters: 1, observers: 0 };

    pub fn is_alone(self) -> bool {
        self == Shape::ALONE
    }

    pub fn members(self) -> usize {
        self.voters + self.observers
    }
}

/// What is the same for all servers of a run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub cores: Vec<usize>,
    pub port: u16,
    /// Where each server's directory is made.
    pub data: PathBuf,
    /// Lines for ringkeeper's `zoo.cfg` alone.
    pub settings: Vec<String>,
    /// For ZooKeeper's virtual machine.
    pub java_options: Vec<String>,
    /// Bytes of data in the echo server's getData answers.
    pub value_bytes: usize,
    /// Of what is started, unless a scenario wants another.
    pub shape: Shape,
    /// Lines for every `zoo.cfg`, which a scenario wants.
    pub lines: Vec<String>,
}

/// What serves: one process or an ensemble. Dropped, its processes are killed and their directories removed.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    /// Of the first member.
    pub addr: SocketAddr,
    pub shape: Shape,
    spec: ServerSpec,
    options: ServerOptions,
    /// Voters first, then observers, by id.
    members: Vec<Member>,
}

impl Server {
    /// Starts all members on empty directories and waits until each serves. `number` keeps ports and names apart.
    pub fn start(
        spec: &ServerSpec,
        number: usize,
        name: &str,
        shape: Shape,
        options: &ServerOptions,
    ) -> Result<Server> {
        if shape.members() > MEMBERS_MAX || shape.voters == 0 {
            fail!("an ensemble has 1 to {MEMBERS_MAX} members and a voter, not {shape:?}");
        }
        let starts_members = matches!(spec, ServerSpec::Ringkeeper(_) | ServerSpec::ZooKeeper(_));
        let shape = if starts_members { shape } else { Shape::ALONE };
        let first = usize::from(options.port) + number * MEMBERS_MAX * PORTS_PER_MEMBER;
        let port = |member: usize, which: usize| {
            u16::try_from(first + member * PORTS_PER_MEMBER + which).map_err(|_| {
                crate::failure::Failure(format!("port {first} and those behind it are out of range"))
            })
        };
        let mut lines = String::new();
        if !shape.is_alone() {
            lines.push_str("initLimit=10\nsyncLimit=5\n");
            for member in 0..shape.members() {
                let role = if member < shape.voters { "participant" } else { "observer" };
                let (quorum, election) = (port(member, 1)?, port(member, 2)?);
                lines.push_str(&format!("server.{}=127.0.0.1:{quorum}:{election}:{role}\n", member + 1));
            }
        }
        let mut members = Vec::new();
        for member in 0..shape.members() {
            let addr = match spec {
                ServerSpec::External { addr, .. } => *addr,
                _ => SocketAddr::from(([127, 0, 0, 1], port(member, 0)?)),
            };
            let (member_name, role) = match (shape.is_alone(), member < shape.voters) {
                (true, _) => (name.to_owned(), Role::Alone),
                (false, true) => (format!("{name} server {}", member + 1), Role::Voter),
                (false, false) => (format!("{name} observer {}", member + 1), Role::Observer),
            };
            let id = (member + 1) as u8;
            let dir = options.data.join(format!("{number}-{}-{id}", spec.kind()));
            members.push(Member::new(member_name, id, role, addr, spec, options, dir, &lines)?);
        }
        let mut server = Server {
            name: name.to_owned(),
            addr: members[0].addr,
            shape,
            spec: spec.clone(),
            options: options.clone(),
            members,
        };
        server.launch()?;
        Ok(server)
    }

    /// Where the bench measures the machine and no server: answers are not checked for sense.
    pub fn is_echo(&self) -> bool {
        self.spec == ServerSpec::Echo
    }

    /// Where the processes run.
    pub fn cores(&self) -> &[usize] {
        &self.options.cores
    }

    pub fn can_restart(&self) -> bool {
        !matches!(self.spec, ServerSpec::External { .. })
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn member(&mut self, index: usize) -> &mut Member {
        &mut self.members[index]
    }

    /// A look at each process; `None` where a pid is not known.
    pub fn sample(&self) -> Result<Option<Vec<Sample>>> {
        self.members.iter().map(Member::sample).collect()
    }

    /// Resident bytes of all processes together; `None` where a pid is not known.
    pub fn resident_bytes(&self) -> Result<Option<u64>> {
        Ok(self.sample()?.map(|samples| samples.iter().map(|sample| sample.resident_bytes).sum()))
    }

    /// Starts the processes on the directories as they are. Returns the time until all served.
    pub fn launch(&mut self) -> Result<Duration> {
        let started = Instant::now();
        for member in &mut self.members {
            member.launch()?;
        }
        for member in &mut self.members {
            member.wait_serving()?;
        }
        Ok(started.elapsed())
    }

    /// Asks the processes to end, the last first, and waits for them.
    pub fn stop(&mut self) -> Result<()> {
        self.members.iter_mut().rev().try_for_each(Member::stop)
    }

    /// The member that leads.
    pub fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + LEADER_PATIENCE;
        loop {
            let modes: Vec<String> = self.members.iter().map(Member::mode).collect();
            if let [leader] =
                (0..modes.len()).filter(|index| modes[*index] == "leader").collect::<Vec<_>>()[..]
            {
                return Ok(leader);
            }
            if Instant::now() >= deadline {
                fail!("{} has no leader: its members say {}", self.name, modes.join(", "));
            }
            std::thread::sleep(crate::member::LOOK);
        }
    }

    /// Brings every member to what was acknowledged before this call.
    pub fn sync(&self) -> Result<()> {
        for member in self.members.iter().filter(|_| !self.shape.is_alone()) {
            let doing = || format!("cannot sync {}", member.name);
            let mut client = Client::open(member.addr).context(doing())?;
            client.sync("/").context(doing())?;
            client.close().context(doing())?;
        }
        Ok(())
    }
}

/// The file system that holds `path`: its type and device, as the mount table tells.
pub fn file_system(path: &Path) -> io::Result<String> {
    let path = path.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut best = (0, String::from("unknown"));
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [device, mount, kind, flags, ..] = fields[..] else { continue };
        if path.starts_with(mount) && mount.len() >= best.0 {
            best = (mount.len(), format!("{kind} on {device} ({flags})"));
        }
    }
    Ok(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_as_documented() {
        let parse = |text: &str| text.parse::<ServerSpec>();
        assert_eq!(parse("echo"), Ok(ServerSpec::Echo));
        assert_eq!(parse("ringkeeper:target/x"), Ok(ServerSpec::Ringkeeper("target/x".into())));
        assert_eq!(parse("zookeeper:/opt/zk"), Ok(ServerSpec::ZooKeeper("/opt/zk".into())));
        let addr = "127.0.0.1:2181".parse().unwrap();
        assert_eq!(parse("external:127.0.0.1:2181"), Ok(ServerSpec::External { addr, pid: None }));
        assert_eq!(parse("external:127.0.0.1:2181:77"), Ok(ServerSpec::External { addr, pid: Some(77) }));
        let addr = "[::1]:2181".parse().unwrap();
        assert_eq!(parse("external:[::1]:2181"), Ok(ServerSpec::External { addr, pid: None }));
        assert_eq!(parse("external:[::1]:2181:5"), Ok(ServerSpec::External { addr, pid: Some(5) }));
        for wrong in
            ["ringkeeper", "zookeeper:", "echo:1", "etcd:x", "external:nowhere", "external:127.0.0.1:1:x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_of_one_kind_are_told_apart() {
        let specs = ["echo", "ringkeeper:a", "ringkeeper:b"].map(|text| text.parse().unwrap());
        assert_eq!(names(&specs), ["echo", "ringkeeper", "ringkeeper-2"]);
    }

    #[test]
    fn the_root_has_a_file_system() {
        assert!(file_system(Path::new("/")).unwrap().contains(" on "));
    }
}
