//! One process of a server under test: its directory, its start, and that it ends.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, ConnectOptions, four_letter};

use crate::fail;
use crate::failure::{Context, Result};
use crate::process::Sample;
use crate::server::{SESSION_TIMEOUT_MS, ServerOptions, ServerSpec};
use crate::sys;

/// How long a server may take from its start to its first session.
const START_PATIENCE: Duration = Duration::from_secs(180);
/// How long a server may take to end when asked, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long a port may stay taken after its process ended.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long one try of a first session, or one word, may take.
const WORD_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a server that starts or stops.
pub const LOOK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Of no ensemble.
    Alone,
    Voter,
    Observer,
}

/// A process, or the place of one. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub role: Role,
    pub addr: SocketAddr,
    pub pid: Option<u32>,
    spec: ServerSpec,
    cores: Vec<usize>,
    java_options: Vec<String>,
    value_bytes: usize,
    child: Option<Child>,
    dir: PathBuf,
}

impl Member {
    /// Makes its directory and configuration; `lines` are those of the ensemble.
    pub fn new(
        name: String,
        id: u8,
        role: Role,
        addr: SocketAddr,
        spec: &ServerSpec,
        options: &ServerOptions,
        dir: PathBuf,
        lines: &str,
    ) -> Result<Member> {
        let external = matches!(spec, ServerSpec::External { .. });
        if !external && dir.exists() {
            fail!("the directory {} exists already", dir.display());
        }
        let pid = if let ServerSpec::External { pid, .. } = spec { *pid } else { None };
        let member = Member {
            name,
            role,
            addr,
            pid,
            spec: spec.clone(),
            cores: options.cores.clone(),
            java_options: options.java_options.clone(),
            value_bytes: options.value_bytes,
            child: None,
            dir,
        };
        if !external {
            member.prepare(id, options, lines)?;
        }
        Ok(member)
    }

    fn prepare(&self, id: u8, options: &ServerOptions, lines: &str) -> Result<()> {
        let data = self.data_dir();
        fs::create_dir_all(&data).context(format_args!("cannot make {}", data.display()))?;
        let mut config = format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\ntickTime=2000\nmaxClientCnxns=0\n\
             maxSessionTimeout={SESSION_TIMEOUT_MS}\n4lw.commands.whitelist=*\n{lines}",
            data.display(),
            self.addr.port(),
        );
        if self.role == Role::Observer {
            config.push_str("peerType=observer\n");
        }
        for line in &options.lines {
            config.push_str(&format!("{line}\n"));
        }
        if let ServerSpec::Ringkeeper(_) = self.spec {
            for setting in &options.settings {
                config.push_str(&format!("{setting}\n"));
            }
        }
        let write = |path: PathBuf, text: String| {
            fs::write(&path, text).context(format_args!("cannot write {}", path.display()))
        };
        if self.role != Role::Alone {
            write(data.join("myid"), format!("{id}\n"))?;
        }
        write(self.dir.join("zoo.cfg"), config)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A look at the process, where its pid is known.
    pub fn sample(&self) -> Result<Option<Sample>> {
        self.pid.map(|pid| Sample::of(pid).context(format_args!("cannot look at {}", self.name))).transpose()
    }

    /// What it says it is: `leader`, `follower`, `observer`, `standalone`; or why it says nothing.
    pub fn mode(&self) -> String {
        match four_letter(self.addr, "srvr", WORD_PATIENCE) {
            Ok(answer) => {
                let answer = String::from_utf8_lossy(&answer);
                let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
                mode.unwrap_or("not serving").to_owned()
            }
            Err(error) => error.to_string(),
        }
    }

    /// Starts the process on the directory as it is.
    pub fn launch(&mut self) -> Result<()> {
        assert!(self.child.is_none(), "{} is running", self.name);
        if let ServerSpec::External { .. } = self.spec {
            return Ok(());
        }
        // A ring outlives its process by some milliseconds, and with it the listener.
        let asked = Instant::now();
        while TcpStream::connect(self.addr).is_ok() {
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
        let child = sys::spawn_pinned(&mut command, &self.cores)
            .context(format_args!("cannot start {} ({program})", self.name))?;
        self.pid = Some(child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it opens a session.
    pub fn wait_serving(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        let options = ConnectOptions { patience: WORD_PATIENCE, ..ConnectOptions::default() };
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

    /// Kills the process as a failing machine would, and returns when that was.
    pub fn kill(&mut self) -> Result<Instant> {
        let Some(mut child) = self.child.take() else { fail!("{} is not running", self.name) };
        let at = Instant::now();
        child.kill().context(format_args!("cannot kill {}", self.name))?;
        child.wait().context(format_args!("cannot wait for {}", self.name))?;
        Ok(at)
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
                command.args(&self.java_options);
                command.arg("-Dzookeeper.admin.enableServer=false");
                command.arg("-cp").arg(jars.join("*"));
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
                command
            }
            ServerSpec::Echo => {
                let mut command =
                    Command::new(std::env::current_exe().context("cannot find this program itself")?);
                command.arg("echo").arg("--port").arg(self.addr.port().to_string());
                command.arg("--value-bytes").arg(self.value_bytes.to_string());
                command
            }
            ServerSpec::External { .. } => unreachable!("an external server is not started"),
        })
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

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !matches!(self.spec, ServerSpec::External { .. }) {
            // Another run's leftovers would fail it with a clear message; nothing to do about it here.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().context(path.display())
}
