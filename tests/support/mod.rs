//! The built server as a child process, and clients that check what they get.
//!
//! Nothing here sleeps for a fixed time: [`wait_until`] looks again until a condition holds or a deadline has passed.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use ringkeeper::client::{Client, ClientError, ConnectOptions};
use ringkeeper::stdx::rng::Rng;

/// How long anything may take before a test fails. Far above what is needed, for machines with other work to do.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Looks until `condition` gives something.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// The seed of a random test: `RK_SEED` if set, else a new one. Printed, and shown where the test fails.
pub fn seed(test: &str) -> u64 {
    let seed = match std::env::var("RK_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("RK_SEED={text} is no whole number")),
        Err(_) => {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(test) >> 16
        }
    };
    println!("{test}: RK_SEED={seed} repeats this run");
    seed
}

pub fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.below(from.len() as u64) as usize]
}

pub fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.below(100) < percent
}

/// A port nobody listens on, below those the kernel gives to outgoing connections, so that no client takes it meanwhile.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Programs that run at once begin far apart.
    let start = (std::process::id().wrapping_mul(7919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (u32::from(start) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// How a server talks to the kernel, and on how many cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub io: &'static str,
    pub cores: u32,
}

/// Every shape this machine can run. Where the kernel refuses io_uring, epoll is what is left, and this is said.
pub fn shapes() -> &'static [Shape] {
    static SHAPES: OnceLock<Vec<Shape>> = OnceLock::new();
    SHAPES.get_or_init(|| {
        let cores_max = std::thread::available_parallelism().map_or(1, |count| count.get()).min(2) as u32;
        let mut shapes = Vec::new();
        for io in ["uring", "epoll"] {
            let mut site = Site::new(Shape { io, cores: 1 });
            match site.launch().serving() {
                Ok(_) => shapes.extend((1..=cores_max).map(|cores| Shape { io, cores })),
                Err(log) if io == "uring" => println!("NOT RUN with io_uring, refused here:\n{log}"),
                Err(log) => panic!("the server does not start:\n{log}"),
            }
        }
        shapes
    })
}

/// A directory with a configuration, and the data between runs.
pub struct Site {
    directory: tempfile::TempDir,
    pub port: u16,
    pub shape: Shape,
    sets: Vec<String>,
    /// Keys of the file itself.
    lines: Vec<String>,
    /// In front of the program, as `prlimit`.
    wrapper: Vec<String>,
    runs: u32,
}

impl Site {
    pub fn new(shape: Shape) -> Site {
        Site {
            directory: tempfile::Builder::new().prefix("ringkeeper-e2e-").tempdir().expect("a directory"),
            port: free_port(),
            shape,
            sets: Vec::new(),
            lines: Vec::new(),
            wrapper: Vec::new(),
            runs: 0,
        }
    }

    /// Passes `--set key=value`; the last of a key wins.
    pub fn set(&mut self, key: &str, value: impl ToString) -> &mut Site {
        let prefix = format!("{key}=");
        self.sets.retain(|set| !set.starts_with(&prefix));
        self.sets.push(format!("{prefix}{}", value.to_string()));
        self
    }

    pub fn line(&mut self, line: &str) -> &mut Site {
        self.lines.push(line.to_owned());
        self
    }

    pub fn wrap(&mut self, words: &[&str]) -> &mut Site {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where our files are.
    pub fn files(&self) -> PathBuf {
        self.path("data/ringkeeper")
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts the program and waits for nothing.
    pub fn launch(&mut self) -> Server {
        self.runs += 1;
        let config = self.path("zoo.cfg");
        let text = format!(
            "clientPort={}\nclientPortAddress=127.0.0.1\ndataDir={}\n{}\n",
            self.port,
            self.path("data").display(),
            self.lines.join("\n")
        );
        fs::write(&config, text).unwrap();
        let log_path = self.path(&format!("server-{}.log", self.runs));
        let mut words = self.wrapper.clone();
        words.extend([env!("CARGO_BIN_EXE_ringkeeper").to_owned(), "serve".to_owned()]);
        words.push(config.to_str().unwrap().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // Small where a test says nothing: many servers start in a test run.
        let own = [
            ("tickTime", "500"),
            ("preAllocSize", "4096"),
            ("maxClientCnxns", "0"),
            ("admin.enableServer", "false"),
        ];
        for (key, value) in own {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.args(["--set", &format!("ringkeeper.io={}", self.shape.io)]);
        command.args(["--set", &format!("ringkeeper.cores={}", self.shape.cores)]);
        for set in &self.sets {
            command.args(["--set", set]);
        }
        Server::spawn(command, self.addr(), log_path)
    }

    /// Starts the program and waits until it serves.
    pub fn start(&mut self) -> Server {
        match self.launch().serving() {
            Ok(server) => server,
            Err(log) => panic!("{:?}: the server does not start:\n{log}", self.shape),
        }
    }

    /// Starts the program, which is to refuse; gives exit code and what it said.
    pub fn refused(&mut self) -> (i32, String) {
        let mut server = self.launch();
        let status = server.wait_end();
        (status.code().unwrap_or(-1), server.log())
    }
}

/// A server process; killed when dropped.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
    log_path: PathBuf,
    status: Option<ExitStatus>,
}

impl Server {
    /// Runs a command that is a server. What it says goes to a new file.
    pub fn spawn(mut command: Command, addr: SocketAddr, log_path: PathBuf) -> Server {
        let log = File::create(&log_path).unwrap();
        for name in ["ZOOCFGDIR", "ZOOCFG", "SERVER_JVMFLAGS", "JVMFLAGS", "RUST_LOG"] {
            command.env_remove(name);
        }
        let child = command
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not run: {error}"));
        Server { child, addr, log_path, status: None }
    }

    /// Waits until it serves; the log where it ended instead.
    pub fn serving(mut self) -> Result<Server, String> {
        let serves = wait_for("the server serves", || {
            if self.log().contains("serving on ") {
                return Some(true);
            }
            self.ended().map(|_| false)
        });
        if serves { Ok(self) } else { Err(self.log()) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    pub fn wait_end(&mut self) -> ExitStatus {
        wait_for("the server ends", || self.ended())
    }

    /// As `kill -9`: no last word, no flush.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.status = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    /// SIGTERM, and the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait_end()
    }

    /// SIGSTOP: it does nothing, its sockets stay open.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our child");
    }

    /// Bytes of memory the process has now.
    pub fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib << 10
    }

    pub fn client(&self) -> Client {
        Client::open(self.addr).unwrap_or_else(|error| panic!("no session: {error}\n{}", self.log()))
    }

    pub fn client_with(&self, options: &ConnectOptions) -> Result<Client, ClientError> {
        Client::connect(self.addr, options)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log_path.display(), self.log());
        }
    }
}

/// Copies a directory with all below it.
pub fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
