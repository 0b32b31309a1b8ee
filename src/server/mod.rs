//! The shell: cores, connections, disk, shutdown.
//!
//! [`Shell::prepare`] finds out what this machine offers (processors, io_uring, direct I/O), then the caller recovers
//! the data and makes the node's state machines, and [`Shell::run`] opens the ports and drives them until a signal, a
//! [`Stopper`] or a failure that leaves no choice.
//!
//! Threads: one for each core of the [`Plan`], the housekeeper, the log's writer where there is no ring for it, and
//! the calling one, which only waits for signals.

#[cfg(not(test))]
mod admin;
#[cfg(not(test))]
mod assemble;
mod audit;
mod connection;
mod core;
pub mod door;
#[cfg(test)]
mod echo;
#[cfg(not(test))]
mod export;
#[cfg(not(test))]
mod gauges;
mod housekeeper;
mod http;
#[cfg(not(test))]
mod housekeeping;
mod listen;
mod membership_files;
#[cfg(not(test))]
mod metrics;
#[cfg(not(test))]
mod options;
mod peers;
mod plan;
mod ports;
mod questions;
#[cfg(not(test))]
mod restore;
mod runtime;
mod secure;
mod shared;
mod signal;
mod spin;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod tls;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::io::Clock;
use crate::io::disk::{self, WriteMode};
use crate::io::sys::{self, StopSignals};
use crate::io::writer::DurableWriter;
use crate::node::limits::ConnectionLimits;
use crate::types::{ServerId, Zxid};

use self::audit::Audit;
use self::core::{Core, CoreParts, Fatal, PeersSeed, PipelineHalf};
use self::door::{Front, Pipeline};
use self::listen::Listener;
use self::peers::{Listening, PeersOptions};
use self::ports::{FrontRemote, Local, PipelineRemote, RemoteSeed, remote_pair};
use self::questions::{Questioner, Questions};
use self::runtime::CoreRuntime;
use self::secure::Speech;
use self::shared::{Command, Shared};

#[cfg(not(test))]
pub use self::assemble::run;
#[cfg(not(test))]
pub use self::export::export;
pub use self::housekeeper::Housekeeping;
pub use self::peers::{ListenPlan, PeerPlace, PeerTls};
pub use self::plan::{CorePlan, CoresChoice, Plan};
pub use self::ports::{FrontPort, LINK_MESSAGES_MAX, PipelinePort};
pub use self::runtime::{Driver, IoChoice};
use self::tls::{Acceptor, Live};

/// How long an orderly stop may take; what is not finished then is cut off.
pub const STOP_MAX: Duration = Duration::from_millis(900);
/// How long the threads may take to end after that.
const ABORT_MAX: Duration = Duration::from_millis(100);
/// Spinning where cores are given and nothing else is said.
const SPIN_DEFAULT: Duration = Duration::from_micros(50);
/// The longest a core may be told to spin.
pub const SPIN_MAX: Duration = Duration::from_millis(10);

/// What the shell is told.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where clients are served (`clientPort`, `clientPortAddress`).
    pub addresses: Vec<SocketAddr>,
    /// Where they are served in TLS (`secureClientPort`, `secureClientPortAddress`).
    pub secure_addresses: Vec<SocketAddr>,
    /// `client.portUnification`: `addresses` take both.
    pub port_unification: bool,
    /// Needed where anything speaks TLS.
    pub tls: Option<Live<Acceptor>>,
    /// `maxClientCnxns`: connections of one address; zero is no limit.
    pub connections_per_address_max: u32,
    /// `maxCnxns`: connections in all; zero is no limit.
    pub connections_max: u32,
    /// `clientTcpKeepAlive`: the kernel asks silent peers whether they are still there.
    pub keep_alive: bool,
    /// Connections the kernel may keep until they are accepted (`clientPortListenBacklog`).
    pub backlog: u32,
    /// `ringkeeper.cores`.
    pub cores: CoresChoice,
    /// `ringkeeper.io`.
    pub io: IoChoice,
    /// `ringkeeper.spin`: how long a core looks again before it sleeps. `None` is 50 µs where cores are given and off
    /// elsewhere.
    pub spin: Option<Duration>,
    /// Where log segments are (`dataLogDir`).
    pub log_directory: PathBuf,
    /// `forceSync`: false acknowledges what a power failure may take back.
    pub force_sync: bool,
    /// How long an orderly stop may take: [`STOP_MAX`], longer where it leaves a snapshot.
    pub stop_max: Duration,
    /// Whether SIGTERM and SIGINT stop this server. They are taken over for the whole process.
    pub handle_signals: bool,
    /// The clock that what was recovered has been stamped with.
    pub clock: Clock,
    /// Of a member of an ensemble: where other servers come in, and `tcpKeepAlive` for connections to them.
    pub peers: Option<(ListenPlan, bool)>,
    /// How other servers are spoken to where not plainly alone (`sslQuorum`, `portUnification`).
    pub peer_tls: Option<PeerTls>,
}

/// The node, to be put together on the threads it will run on.
pub struct NodeParts {
    pub pipeline: Box<dyn FnOnce(Vec<PipelinePort>) -> Pipeline<PipelinePort> + Send>,
    /// As many as [`Shell::front_count`].
    pub fronts: Vec<FrontMaker>,
    pub housekeeping: Box<dyn Housekeeping>,
}

/// Makes one front around its link to the pipeline.
pub type FrontMaker = Box<dyn FnOnce(FrontPort) -> Front<FrontPort> + Send>;

/// What only the caller knows of the line that says we are serving.
#[derive(Clone, Debug)]
pub struct Recovered {
    pub data_directory: PathBuf,
    pub zxid: Zxid,
    /// When the process began.
    pub started: std::time::Instant,
    /// Of a member of an ensemble, which serves once it has a leader.
    pub member: Option<ServerId>,
}

/// What is served, once it is.
#[derive(Clone, Debug)]
pub struct Serving {
    pub addresses: Vec<SocketAddr>,
    /// Where other servers come in.
    pub peer_addresses: Vec<SocketAddr>,
    pub secure_addresses: Vec<SocketAddr>,
    pub driver: Driver,
    pub log_mode: WriteMode,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("ringkeeper.cores: {reason}")]
    Cores { reason: String },
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("cannot write in {directory}: {source}")]
    LogDirectory { directory: PathBuf, source: io::Error },
    /// With the port and its address.
    #[error("{reason}")]
    PeerBind { reason: String },
    #[error("ringkeeper.io=uring, but io_uring cannot be used: {source}")]
    NoRing { source: io::Error },
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl StartError {
    fn cores(reason: String) -> StartError {
        StartError::Cores { reason }
    }

    fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
        move |source| StartError::System { what, source }
    }

    /// What the process should exit with: 2 where the configuration asks for what cannot be, 14 where a port for other servers
    /// cannot be had, else 1. Source: ZooKeeper `ExitCode`.
    pub fn exit_code(&self) -> i32 {
        match self {
            StartError::Cores { .. } | StartError::Bind { .. } | StartError::NoRing { .. } => 2,
            StartError::LogDirectory { .. } => 2,
            StartError::PeerBind { .. } => 14,
            StartError::System { .. } => 1,
        }
    }
}

/// Stops a running server from another thread, as a signal would.
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    pub fn stop(&self) {
        self.0.ask_stop();
    }
}

/// A server that is ready to be given its node.
pub struct Shell {
    options: ServerOptions,
    plan: Plan,
    log_mode: WriteMode,
    shared: Arc<Shared>,
    signals: Option<StopSignals>,
    on_serving: Option<Box<dyn FnOnce(Serving) + Send>>,
    questioner: Questioner,
    questions: Option<Questions>,
    audit: Option<Audit>,
}

impl Shell {
    /// Looks at the machine: open files, processors, rings, the log's device. Call it before other threads are made,
    /// they would get the signals this takes over. The log directory exists.
    pub fn prepare(options: ServerOptions) -> Result<Shell, StartError> {
        let signals = if options.handle_signals {
            Some(StopSignals::new().map_err(StartError::system("take over the stop signals"))?)
        } else {
            None
        };
        if let Err(error) = sys::raise_open_files_limit() {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
        let plan = Plan::new(&options.cores)?;
        if options.io == IoChoice::Uring {
            CoreRuntime::build(IoChoice::Uring).map_err(|source| StartError::NoRing { source })?;
        }
        let log_mode = probe_log(&options)?;
        let seed = RandomState::new().hash_one(std::process::id());
        let limits = [(); 2].map(|()| {
            ConnectionLimits::new(options.connections_per_address_max, options.connections_max, seed)
        });
        let shared = Shared::new(plan.cores.len(), options.clock, limits, options.tls.clone())
            .map_err(StartError::system("make eventfds"))?;
        let (questioner, questions) = Questioner::new(shared.bells[0].clone());
        Ok(Shell {
            options,
            plan,
            log_mode,
            shared: Arc::new(shared),
            signals,
            on_serving: None,
            questioner,
            questions: Some(questions),
            audit: None,
        })
    }

    /// Where the pipeline's lines for the audit log go.
    #[cfg(not(test))]
    fn audit_to(&mut self, audit: Audit) {
        self.audit = Some(audit);
    }

    /// Asks the pipeline, once it runs.
    fn questioner(&self) -> Questioner {
        self.questioner.clone()
    }

    /// How many fronts [`NodeParts`] must have.
    pub fn front_count(&self) -> usize {
        self.plan.front_count()
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn log_mode(&self) -> WriteMode {
        self.log_mode
    }

    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.clone())
    }

    /// Has `call` called by [`Shell::run`] when clients can connect.
    pub fn on_serving(&mut self, call: impl FnOnce(Serving) + Send + 'static) {
        self.on_serving = Some(Box::new(call));
    }

    /// Opens the ports and serves until stopped. Returns the exit code: 0 after an orderly stop, 1 after a failure
    /// (said in the log), and what [`StartError::exit_code`] says, if it could not start.
    pub fn run(self, node: NodeParts, recovered: Recovered) -> i32 {
        match self.serve(node, recovered) {
            Ok(()) => 0,
            Err(RunError::Start(error)) => {
                tracing::error!("{error}");
                error.exit_code()
            }
            // Said where it happened.
            Err(RunError::Failed) => 1,
        }
    }

    fn serve(mut self, node: NodeParts, recovered: Recovered) -> Result<(), RunError> {
        assert_eq!(node.fronts.len(), self.front_count(), "one front for each core that has one");
        let plain = if self.options.port_unification { Speech::Either } else { Speech::Plain };
        let ports: Vec<(SocketAddr, Speech)> =
            (self.options.addresses.iter().map(|address| (*address, plain)))
                .chain(self.options.secure_addresses.iter().map(|address| (*address, Speech::Tls)))
                .collect();
        assert!(
            self.options.tls.is_some() || ports.iter().all(|(_, speech)| *speech == Speech::Plain),
            "a port of TLS has something to speak it by"
        );
        let listeners = listen::listeners(
            &ports,
            self.front_count(),
            self.options.backlog,
            self.options.keep_alive,
            listen::BIND_RETRY_MAX,
        )?;
        let Some(peer_listeners) = self.bind_peer_ports()? else {
            tracing::info!("stopping before all ports were bound");
            return Ok(());
        };
        let bound = |secure: bool| -> Vec<SocketAddr> {
            let of_first = listeners.first().into_iter().flatten();
            let wanted = of_first.filter(|listener| (listener.speech == Speech::Tls) == secure);
            wanted.filter_map(|listener| listener.socket.local_addr().ok()).collect()
        };
        let (addresses, secure_addresses) = (bound(false), bound(true));
        let peer_addresses: Vec<SocketAddr> =
            peer_listeners.iter().filter_map(|l| l.listener.local_addr().ok()).collect();
        let (ready_tx, ready_rx) = mpsc::channel();
        let shared = self.shared.clone();
        let threads = self
            .start_cores(node, listeners, peer_listeners, &ready_tx)
            .inspect_err(|_| shared.order(Command::Abort))?;
        drop(ready_tx);
        let mut driver = Driver::Uring;
        for _ in 0..threads.len() {
            // A core that fails before it is ready drops its sender; the reason is told by `supervise`.
            match ready_rx.recv() {
                Ok(core_driver) => driver = driver.max(core_driver),
                Err(mpsc::RecvError) => break,
            }
        }
        if self.shared.failure().is_none() {
            self.say_serving(&addresses, &secure_addresses, driver, &recovered);
            if let Some(call) = self.on_serving.take() {
                call(Serving {
                    addresses,
                    secure_addresses,
                    peer_addresses,
                    driver,
                    log_mode: self.log_mode,
                });
            }
        }
        self.supervise(threads)
    }

    /// Binds the ports for other servers, trying again as long as configured; `None` where the server is to stop meanwhile.
    fn bind_peer_ports(&self) -> Result<Option<Vec<Listening>>, StartError> {
        let Some((plan, _)) = &self.options.peers else { return Ok(Some(Vec::new())) };
        let mut fds = vec![self.shared.event.as_raw_fd()];
        fds.extend(self.signals.as_ref().map(AsRawFd::as_raw_fd));
        let pause = |pause: Duration| {
            if let Err(error) = sys::wait_readable(&fds, Some(pause)) {
                tracing::error!(%error, "cannot wait for signals");
                return false;
            }
            !self.shared.stop_asked() && self.signals.as_ref().and_then(StopSignals::take).is_none()
        };
        plan.bind(pause).map_err(|reason| StartError::PeerBind { reason })
    }

    fn say_serving(
        &self,
        addresses: &[SocketAddr],
        secure_addresses: &[SocketAddr],
        driver: Driver,
        recovered: &Recovered,
    ) {
        let both = if self.options.port_unification { " (TLS and plain)" } else { "" };
        let ports: Vec<String> = (addresses.iter().map(|address| format!("{address}{both}")))
            .chain(secure_addresses.iter().map(|address| format!("{address} (TLS)")))
            .collect();
        let begin = match recovered.member {
            None => "serving on".to_owned(),
            Some(id) => format!("server {} takes part in its ensemble, with clients on", id.0),
        };
        tracing::info!(
            "{begin} {}: cores {}, sockets by {driver}, log {}, data in {}, recovered to zxid {}, after {} ms",
            ports.join(" and "),
            self.plan,
            self.log_mode,
            recovered.data_directory.display(),
            recovered.zxid,
            recovered.started.elapsed().as_millis(),
        );
    }

    fn start_cores(
        &mut self,
        node: NodeParts,
        listeners: Vec<Vec<Listener>>,
        peer_listeners: Vec<Listening>,
        ready: &mpsc::Sender<Driver>,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let mut fronts = node.fronts.into_iter().zip(listeners);
        let mut pipeline_seeds = Vec::new();
        let mut seeds: Vec<CoreSeed> = Vec::new();
        for (i, core) in self.plan.cores.iter().enumerate() {
            let mut seed = CoreSeed {
                index: i,
                cpu: core.cpu,
                spin_window: self.spin_window(),
                io: self.options.io,
                shared: self.shared.clone(),
                front: None,
                pipeline: None,
            };
            if core.front {
                let (make, listeners) = fronts.next().expect("as many as the plan has");
                let remote = (!core.pipeline).then(|| {
                    let (front, pipeline) = remote_pair(&self.shared.bells[i], &self.shared.bells[0]);
                    pipeline_seeds.push(pipeline);
                    front
                });
                seed.front = Some(FrontSeed { make, listeners, remote });
            }
            seeds.push(seed);
        }
        seeds[0].pipeline = Some(PipelineSeed {
            make: node.pipeline,
            remotes: pipeline_seeds,
            housekeeping: node.housekeeping,
            log_mode: self.log_mode,
            force_sync: self.options.force_sync,
            questions: self.questions.take().expect("cores are started once"),
            audit: self.audit.take(),
            peers: self.options.peers.as_ref().map(|(_, keep_alive)| PeersSeed {
                options: PeersOptions {
                    keep_alive: *keep_alive,
                    tls: self.options.peer_tls.clone(),
                    ..PeersOptions::default()
                },
                listening: peer_listeners,
            }),
        });
        let start = |seed: CoreSeed| {
            let ready = ready.clone();
            let name =
                if seed.pipeline.is_some() { "pipeline".to_owned() } else { format!("front-{}", seed.index) };
            let farewell = Farewell::new(seed.shared.clone());
            std::thread::Builder::new()
                .name(name)
                .spawn(move || seed.run(&ready, farewell))
                .map_err(StartError::system("start a thread"))
        };
        seeds.into_iter().map(start).collect()
    }

    fn spin_window(&self) -> Duration {
        let ours = matches!(self.options.cores, CoresChoice::Count(_) | CoresChoice::List(_));
        let default = if ours { SPIN_DEFAULT } else { Duration::ZERO };
        self.options.spin.unwrap_or(default).min(SPIN_MAX)
    }

    /// Waits for the end, whatever brings it.
    fn supervise(self, threads: Vec<JoinHandle<()>>) -> Result<(), RunError> {
        let mut fds = vec![self.shared.event.as_raw_fd()];
        fds.extend(self.signals.as_ref().map(AsRawFd::as_raw_fd));
        let mut deadline = None;
        let clock = self.shared.clock;
        while self.shared.alive.load(Ordering::Acquire) > 0 {
            let left = deadline.map(|d: crate::types::Instant| d.since(clock.instant()));
            if left.is_some_and(|l| l.is_zero()) {
                if self.shared.command() == Command::Abort {
                    tracing::warn!("a core does not end; leaving it behind");
                    break;
                }
                let stop_max = self.options.stop_max;
                tracing::warn!("not everything was finished within {stop_max:?}, cutting it off");
                self.shared.order(Command::Abort);
                deadline = Some(clock.instant() + ABORT_MAX);
                continue;
            }
            sys::wait_readable(&fds, left).map_err(StartError::system("wait for signals"))?;
            self.shared.event.clear();
            let signal = self.signals.as_ref().and_then(StopSignals::take);
            if signal.is_some() || self.shared.stop_asked() {
                if let Some(name) = signal {
                    tracing::info!("{name}: stopping");
                }
                if self.shared.command() == Command::Run {
                    self.shared.order(Command::Stop);
                    deadline = Some(clock.instant() + self.options.stop_max);
                } else if signal.is_some() {
                    // Asked twice: now.
                    self.shared.order(Command::Abort);
                    deadline = Some(clock.instant() + ABORT_MAX);
                }
            }
            if self.shared.command() == Command::Abort && deadline.is_none() {
                deadline = Some(clock.instant() + ABORT_MAX);
            }
        }
        if self.shared.alive.load(Ordering::Acquire) == 0 {
            for thread in threads {
                // A panic has been told by its farewell.
                let _ = thread.join();
            }
        }
        if self.shared.failure().is_some() { Err(RunError::Failed) } else { Ok(()) }
    }
}

enum RunError {
    Start(StartError),
    Failed,
}

impl From<StartError> for RunError {
    fn from(error: StartError) -> RunError {
        RunError::Start(error)
    }
}

/// Logs a panic with its place before it ends the process, for whoever has only the log.
pub fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        tracing::error!("thread {} panicked: {info}", thread.name().unwrap_or("unnamed"));
        before(info);
    }));
}

fn probe_log(options: &ServerOptions) -> Result<WriteMode, StartError> {
    let ring_allowed = options.io != IoChoice::Epoll;
    let report = disk::probe(&options.log_directory, ring_allowed, options.force_sync)
        .map_err(|source| StartError::LogDirectory { directory: options.log_directory.clone(), source })?;
    if let Some(reason) = &report.fallback_reason {
        tracing::warn!("{reason}: the log is written {}, slower and as safe", report.mode);
    }
    if !options.force_sync {
        tracing::warn!("forceSync=no: acknowledged writes are LOST when the machine or its power fails");
    }
    if let (Some(dsync), Some(fdatasync)) = (report.write_dsync, report.write_fdatasync) {
        tracing::info!(
            "log device: a durable 4 KiB write takes {dsync:?} (O_DSYNC), {fdatasync:?} (write, fdatasync)"
        );
        let best = dsync.min(fdatasync);
        if best < disk::SUSPICIOUSLY_FAST {
            tracing::warn!(
                "a durable write in {best:?}: does {} keep anything?",
                options.log_directory.display()
            );
        } else if best > disk::SUSPICIOUSLY_SLOW {
            tracing::warn!("a durable write takes {best:?}: every write request will wait that long");
        }
    }
    Ok(report.mode)
}

/// What a core's thread starts from.
struct CoreSeed {
    index: usize,
    cpu: Option<usize>,
    spin_window: Duration,
    io: IoChoice,
    shared: Arc<Shared>,
    front: Option<FrontSeed>,
    pipeline: Option<PipelineSeed>,
}

struct FrontSeed {
    make: FrontMaker,
    listeners: Vec<Listener>,
    /// `None`: the pipeline is on the same thread.
    remote: Option<RemoteSeed<door::link::ToPipeline, door::link::ToFront>>,
}

struct PipelineSeed {
    make: Box<dyn FnOnce(Vec<PipelinePort>) -> Pipeline<PipelinePort> + Send>,
    /// Links to the fronts on other threads, in their order.
    remotes: Vec<RemoteSeed<door::link::ToFront, door::link::ToPipeline>>,
    housekeeping: Box<dyn Housekeeping>,
    log_mode: WriteMode,
    force_sync: bool,
    questions: Questions,
    audit: Option<Audit>,
    /// Of a member of an ensemble.
    peers: Option<PeersSeed>,
}

impl CoreSeed {
    fn run(self, ready: &mpsc::Sender<Driver>, farewell: Farewell) {
        let shared = self.shared.clone();
        if let Err(Fatal(reason)) = self.run_to_the_end(ready) {
            shared.fail(reason);
        }
        drop(farewell);
    }

    fn run_to_the_end(self, ready: &mpsc::Sender<Driver>) -> Result<(), Fatal> {
        if let Some(cpu) = self.cpu
            && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
        {
            tracing::warn!(cpu, "a core could not be pinned");
        }
        let (mut runtime, driver, refused) = CoreRuntime::build(self.io)
            .map_err(|e| Fatal(format!("no runtime for core {}: {e}", self.index)))?;
        if self.index == 0
            && let Some(error) = refused
        {
            tracing::warn!("io_uring was refused ({error}): sockets by {driver}");
        }
        let mut listeners = Vec::new();
        let mut local = None;
        let mut front_remote: Option<std::rc::Rc<FrontRemote>> = None;
        let mut front = None;
        if let Some(seed) = self.front {
            let port = match seed.remote {
                Some(remote) => FrontPort::remote(front_remote.insert(remote.settle_here()).clone()),
                None => FrontPort::local(local.insert(Local::new()).clone()),
            };
            front = Some((seed.make)(port));
            listeners = seed.listeners;
        }
        let mut pipeline_remotes: Vec<std::rc::Rc<PipelineRemote>> = Vec::new();
        let mut pipeline = None;
        let mut peers = None;
        if let Some(seed) = self.pipeline {
            peers = seed.peers;
            let mut ports: Vec<PipelinePort> = local.clone().map(PipelinePort::local).into_iter().collect();
            for remote in seed.remotes {
                let remote = remote.settle_here();
                ports.push(PipelinePort::remote(remote.clone()));
                pipeline_remotes.push(remote);
            }
            let bell = self.shared.bells[self.index].clone();
            let failed = |what: &str, e: io::Error| Fatal(format!("cannot start {what}: {e}"));
            pipeline = Some(PipelineHalf {
                pipeline: (seed.make)(ports),
                writer: DurableWriter::new(seed.log_mode, seed.force_sync)
                    .map_err(|e| failed("the log's writer", e))?,
                housekeeper: housekeeper::Housekeeper::start(seed.housekeeping, seed.log_mode, bell)
                    .map_err(|e| failed("the housekeeper", e))?,
                questions: seed.questions,
                audit: seed.audit,
                written: Vec::new(),
                owed: Vec::new(),
                stopped: false,
            });
        }
        let parts = CoreParts {
            bell: self.shared.bells[self.index].clone(),
            shared: self.shared,
            front,
            pipeline,
            front_remote,
            pipeline_remotes,
            local,
            peers,
            spin_window: self.spin_window,
        };
        runtime.block_on(async move {
            let core = Core::new(parts);
            core.run(listeners, || {
                // The supervisor is waiting for this, or has given up after another core's failure.
                let _ = ready.send(driver);
            })
            .await
        })
    }
}

/// Tells the supervisor that its thread ended, even by a panic where panics do not end the process.
struct Farewell(Arc<Shared>);

impl Farewell {
    fn new(shared: Arc<Shared>) -> Farewell {
        shared.alive.fetch_add(1, Ordering::AcqRel);
        Farewell(shared)
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a core panicked".to_owned());
        }
        self.0.alive.fetch_sub(1, Ordering::AcqRel);
        self.0.event.signal();
    }
}
