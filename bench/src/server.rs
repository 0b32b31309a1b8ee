//! Servers under test: what to start, how, and that it ends.
//!
//! Each gets a directory of its own with the same `zoo.cfg`: one listener on 127.0.0.1, no limit of connections, timeouts up
//! to ten minutes so that sessions outlive pauses, and every write flushed before its answer, which is the default of both.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, ConnectOptions};

use crate::fail;
use crate::failure::{Context, Result};
use crate::process::Sample;
use crate::sys;

/// How long a server may take from its start to its first session.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// How long a server may take to end when asked, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long a port may stay taken after its process ended.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two looks at a server that starts or stops.
const LOOK: Duration = Duration::from_millis(1);

/// Session timeout the generator asks for, ms: long enough that nothing but the idle scenario needs pings.
pub const SESSION_TIMEOUT_MS: i32 = 600_000;

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
}

/// A server that serves. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub addr: SocketAddr,
    pub pid: Option<u32>,
    spec: ServerSpec,
    options: ServerOptions,
    child: Option<Child>,
    dir: PathBuf,
}

impl Server {
    /// Starts the server on an empty directory and waits until it serves. `number` keeps ports and names apart.
    pub fn start(spec: &ServerSpec, number: usize, options: &ServerOptions) -> Result<Server> {
        let kind = match spec {
            ServerSpec::Ringkeeper(_) => "ringkeeper",
            ServerSpec::ZooKeeper(_) => "zookeeper",
            ServerSpec::Echo => "echo",
            ServerSpec::External { .. } => "external",
        };
        let number_port = u16::try_from(number).ok().and_then(|number| options.port.checked_add(number));
        let Some(port) = number_port else { fail!("port {} plus {number} is out of range", options.port) };
        let addr = match spec {
            ServerSpec::External { addr, .. } => *addr,
            _ => SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let mut server = Server {
            name: if number == 0 { kind.to_owned() } else { format!("{kind}-{number}") },
            addr,
            pid: None,
            spec: spec.clone(),
            options: options.clone(),
            child: None,
            dir: options.data.join(format!("{kind}-{number}")),
        };
        if let ServerSpec::External { pid, .. } = spec {
            server.pid = *pid;
            server.wait_serving()?;
            return Ok(server);
        }
        if server.dir.exists() {
            fail!("the directory {} exists already", server.dir.display());
        }
        fs::create_dir_all(server.dir.join("data"))
            .context(format_args!("cannot make {}", server.dir.display()))?;
        server.write_config(port)?;
        server.launch()?;
        Ok(server)
    }

    /// Where the bench measures the machine and no server: answers are not checked for sense.
    pub fn is_echo(&self) -> bool {
        self.spec == ServerSpec::Echo
    }

    /// Where the process runs.
    pub fn cores(&self) -> &[usize] {
        &self.options.cores
    }

    pub fn can_restart(&self) -> bool {
        !matches!(self.spec, ServerSpec::External { .. })
    }

    /// A look at the process, where its pid is known.
    pub fn sample(&self) -> Result<Option<Sample>> {
        self.pid.map(|pid| Sample::of(pid).context(format_args!("cannot look at {}", self.name))).transpose()
    }

    /// Starts the process on the directory as it is. Returns the time until it served.
    pub fn launch(&mut self) -> Result<Duration> {
        assert!(self.child.is_none(), "{} is running", self.name);
        // A ring outlives its process by some milliseconds, and with it the listener.
        let asked = Instant::now();
        while std::net::TcpStream::connect(self.addr).is_ok() {
            if asked.elapsed() > PORT_PATIENCE {
                fail!("something listens on {} already", self.addr);
            }
            thread::sleep(LOOK);
        }
        let mut command = self.command()?;
        let program = command.get_program().to_string_lossy().into_owned();
        let log = self.dir.join("server.log");
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).current_dir(&self.dir);
        let started = Instant::now();
        let child = sys::spawn_pinned(&mut command, &self.options.cores)
            .context(format_args!("cannot start {} ({program})", self.name))?;
        self.pid = Some(child.id());
        self.child = Some(child);
        self.wait_serving()?;
        Ok(started.elapsed())
    }

    /// Asks the process to end, and waits for it.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let asked = Instant::now();
        let ended = sys::terminate(child.id()).is_ok()
            && loop {
                match child.try_wait() {
                    Ok(Some(_)) => break true,
                    Ok(None) if asked.elapsed() < STOP_PATIENCE => thread::sleep(LOOK),
                    _ => break false,
                }
            };
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            fail!("{} did not end within {} s of SIGTERM and was killed", self.name, STOP_PATIENCE.as_secs());
        }
        Ok(())
    }

    fn wait_serving(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        let options = ConnectOptions { patience: Duration::from_secs(5), ..ConnectOptions::default() };
        loop {
            if sys::interrupted() {
                fail!("interrupted");
            }
            match Client::connect(self.addr, &options) {
                Ok(client) => {
                    client.close().context(format_args!("{} served its first session badly", self.name))?;
                    return Ok(());
                }
                Err(error) if Instant::now() >= deadline => {
                    fail!("{} does not serve on {}: {error}{}", self.name, self.addr, self.log_tail())
                }
                Err(_) => {}
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                fail!("{} ended at its start with {status}{}", self.name, self.log_tail());
            }
            thread::sleep(LOOK);
        }
    }

    fn command(&self) -> Result<Command> {
        let config = self.dir.join("zoo.cfg");
        Ok(match &self.spec {
            ServerSpec::Ringkeeper(binary) => {
                let binary = absolute(binary)?;
                let mut command = Command::new(binary);
                command.arg("serve").arg(config);
                command
            }
            ServerSpec::ZooKeeper(jars) => {
                let jars = absolute(jars)?;
                let mut command = Command::new("java");
                command.args(&self.options.java_options);
                command.arg("-Dzookeeper.admin.enableServer=false");
                command.arg("-cp").arg(jars.join("*"));
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
                command
            }
            ServerSpec::Echo => {
                let mut command =
                    Command::new(std::env::current_exe().context("cannot find this program itself")?);
                command.arg("echo").arg("--port").arg(self.addr.port().to_string());
                command.arg("--value-bytes").arg(self.options.value_bytes.to_string());
                command
            }
            ServerSpec::External { .. } => unreachable!("an external server is not started"),
        })
    }

    fn write_config(&self, port: u16) -> Result<()> {
        let mut config = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\nmaxClientCnxns=0\n\
             maxSessionTimeout={SESSION_TIMEOUT_MS}\n4lw.commands.whitelist=*\n",
            self.dir.join("data").display()
        );
        if let ServerSpec::Ringkeeper(_) = self.spec {
            for setting in &self.options.settings {
                config.push_str(setting);
                config.push('\n');
            }
        }
        fs::write(self.dir.join("zoo.cfg"), config)
            .context(format_args!("cannot write {}", self.dir.join("zoo.cfg").display()))
    }

    /// The last line of the server's output, for a message of one line.
    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        log.lines()
            .rfind(|line| !line.trim().is_empty())
            .map(|line| format!("; its last line: {line}"))
            .unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.can_restart() {
            // Another run's leftovers would fail it with a clear message; nothing to do about it here.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().context(path.display())
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
    fn the_root_has_a_file_system() {
        assert!(file_system(Path::new("/")).unwrap().contains(" on "));
    }
}
