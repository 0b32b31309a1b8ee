//! The admin server: HTTP in front of [`admin`](crate::admin)'s commands, on threads of its own.
//!
//! Numbers come from the pipeline, which is asked once for each command; snapshots are made by it and read from their
//! files. A port that cannot be had is told once, and the server runs without: nobody's data depends on it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::http::{self, Handler, Request, Response};
use super::questions::Questioner;
use super::storage::Files;
use super::{Shell, options};
use crate::admin::{self, Answer, Command, Credentials, Findings, Json, Permission, What};
use crate::config::{Config, ListenAddress};
use crate::metrics::ProcessGauges;
use crate::types::Zxid;
use crate::words::{Mode, Report, ServerFacts};

const JSON: &str = "application/json";
const HTML: &str = "text/html;charset=utf-8";
/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;

/// Opens the port, if the configuration wants it, and serves once clients are served. Fails if a thread cannot be made.
pub(super) fn start(
    config: &Config,
    shell: &Shell,
    files: &Files,
    process: Arc<ProcessGauges>,
) -> io::Result<()> {
    let admin = &config.admin;
    if !admin.enabled {
        return Ok(());
    }
    if admin.force_https {
        tracing::error!(
            "admin.forceHttps=true: the admin server has no TLS in this release and is not started"
        );
        return Ok(());
    }
    let Some(listener) = listen("AdminServer", "admin.serverAddress", &admin.address) else { return Ok(()) };
    let address = listener.local_addr()?;
    let server = AdminServer {
        facts: ServerFacts::of(config, super::gauges::environment(), process),
        config: config.clone(),
        questioner: shell.questioner(),
        files: files.clone(),
        last_snapshot_at: Mutex::new(None),
    };
    tracing::info!("Started AdminServer on address {address} and command URL {}", admin.command_url);
    let idle = Duration::from_millis(u64::from(admin.idle_timeout_ms));
    http::serve("admin", listener, idle, Arc::new(server))
}

/// A bound socket for operators, or `None` after one line that says why not.
pub(super) fn listen(what: &str, key: &str, address: &ListenAddress) -> Option<TcpListener> {
    let bound = options::resolve(key, address).and_then(|addresses| {
        let bind = |address: &SocketAddr| bind(*address).map_err(|error| format!("{address}: {error}"));
        let mut reason = String::new();
        for address in &addresses {
            match bind(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    });
    match bound {
        Ok(listener) => Some(listener),
        Err(reason) => {
            tracing::error!("Problem starting {what}, which is left out: cannot listen on {reason}");
            None
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct AdminServer {
    facts: ServerFacts,
    config: Config,
    questioner: Questioner,
    files: Files,
    /// When the last snapshot was asked for that was not refused.
    last_snapshot_at: Mutex<Option<Instant>>,
}

impl Handler for AdminServer {
    fn handle(&self, request: &Request) -> Response {
        let Some(name) = command_of(&request.path, &self.config.admin.command_url) else {
            return Response::plain(404);
        };
        if self.config.admin.port_unification {
            self.facts.process.insecure_admin_connections.add(1);
        }
        if name.is_empty() {
            return Response::new(200, HTML, admin::links(&self.config.admin.command_url));
        }
        let Some(command) = Command::of(name) else { return answer(200, &admin::unknown(name)) };
        // Source: the methods of ZooKeeper's `GetCommand` and `PostCommand`.
        let wanted = if command.is_post() { "POST" } else { "GET" };
        if request.method != wanted && !(request.method == "HEAD" && wanted == "GET") {
            return refuse(405, command, "the command does not come by this method")
                .header("Allow", wanted.into());
        }
        if command.is_protected() {
            return match self.permit(request) {
                Ok(()) => self.act(command, request),
                Err((status, error)) => refuse(status, command, error),
            };
        }
        self.tell(command, request)
    }
}

impl AdminServer {
    fn tell(&self, command: Command, request: &Request) -> Response {
        let mut argument = 0;
        if command == Command::SetTraceMask {
            let error = "setTraceMask requires long traceMask argument";
            let failed = |error: &str| answer(200, &admin::failure(command, error));
            let Some(text) = request.argument("traceMask") else { return failed(error) };
            match text.parse() {
                Ok(mask) => argument = mask,
                Err(_) => return failed(&format!("{error}, got {text}")),
            }
        }
        // What cannot be answered now is not served.
        let report = match self.questioner.ask(What::Report { word: command.word(), argument }) {
            Some(Answer::Report(report)) => report,
            _ => Box::new(Report { mode: Mode::NotServing, ..Report::default() }),
        };
        let last_snapshot = (command == Command::LastSnapshot).then(|| self.last_snapshot()).flatten();
        let findings = Findings { facts: &self.facts, config: &self.config, report: &report, last_snapshot };
        answer(200, &admin::body(command, &findings))
    }

    /// The newest verified snapshot and when its file was written, in seconds.
    fn last_snapshot(&self) -> Option<(Zxid, i64)> {
        let newest = self.files.snapshots().ok()?.into_iter().rev().find(|info| info.has_manifest)?;
        let written = fs::metadata(&newest.path).ok()?.modified().ok()?;
        Some((newest.zxid, written.duration_since(UNIX_EPOCH).ok()?.as_secs() as i64))
    }

    /// Whether the request may do anything on the root. Source: ZooKeeper `Commands#runCommand`.
    fn permit(&self, request: &Request) -> Result<(), (u16, &'static str)> {
        let header = request.authorization.as_deref().ok_or((401, "Auth info is missing for the command"))?;
        let credentials = Credentials::parse(header, request.peer).ok_or((401, "Not authenticated"))?;
        match self.questioner.ask(What::Permission(credentials)) {
            Some(Answer::Permission(Permission::Granted)) => Ok(()),
            Some(Answer::Permission(Permission::NotAuthenticated)) => Err((401, "Not authenticated")),
            Some(Answer::Permission(Permission::NotAuthorized)) => Err((403, "Not authorized")),
            _ => Err((500, "Error occurred during auth")),
        }
    }

    fn act(&self, command: Command, request: &Request) -> Response {
        match command {
            Command::Snapshot => self.snapshot(request),
            _ => refuse(
                503,
                command,
                "a running server is not restored: stop it, put the snapshot into version-2 of an empty dataDir, start it",
            ),
        }
    }

    fn snapshot(&self, request: &Request) -> Response {
        let command = Command::Snapshot;
        if !self.config.admin.snapshot_enabled {
            return refuse(503, command, "the command is disabled (admin.snapshot.enabled)");
        }
        if !self.is_time() {
            self.facts.process.snapshots_rate_limited.add(1);
            return refuse(429, command, "too soon after the last one (admin.rateLimiterIntervalInMS)");
        }
        let taken = match self.questioner.ask(What::Snapshot) {
            Some(Answer::Snapshot(Ok(zxid))) => self.open(zxid).map(|opened| (zxid, opened)),
            Some(Answer::Snapshot(Err(reason))) => Err(reason),
            _ => Err("the server did not answer".to_owned()),
        };
        let (zxid, Opened { file, bytes, name }) = match taken {
            Ok(taken) => taken,
            Err(reason) => {
                tracing::warn!("a snapshot was asked for and not made: {reason}");
                return refuse(500, command, "the snapshot failed; the server's log says why");
            }
        };
        tracing::info!(peer = %request.peer, "snapshot {zxid} taken for an operator");
        // Anything but `true` asks for none. Source: Java `Boolean#parseBoolean`.
        let streaming = request.argument("streaming").is_none_or(|value| value.eq_ignore_ascii_case("true"));
        let response = if streaming {
            // The name ZooKeeper would look for.
            let disposition = format!("attachment; filename=\"{name}\"");
            Response::file(file, bytes).header("Content-Disposition", disposition)
        } else {
            answer(200, &admin::done(command))
        };
        response.header("last_zxid", zxid.to_string()).header("snapshot_size", bytes.to_string())
    }

    /// Source: ZooKeeper `RateLimiter#allow`, with the interval in the unit its key names.
    fn is_time(&self) -> bool {
        let interval = Duration::from_millis(self.config.admin.rate_limiter_interval_ms);
        let mut last = self.last_snapshot_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_time = last.is_none_or(|last| now.duration_since(last) >= interval);
        if is_time {
            *last = Some(now);
        }
        is_time
    }

    /// Held open, it may be purged meanwhile.
    fn open(&self, zxid: Zxid) -> Result<Opened, String> {
        let snapshots = self.files.snapshots().map_err(|error| error.to_string())?;
        let info = snapshots.into_iter().find(|info| info.zxid == zxid && info.has_manifest);
        let path = info.ok_or_else(|| format!("there is no snapshot {zxid}"))?.path;
        let file = fs::File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let bytes = file.metadata().map_err(|error| format!("{}: {error}", path.display()))?.len();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Opened { file, bytes, name })
    }
}

/// A snapshot's file.
struct Opened {
    file: fs::File,
    bytes: u64,
    name: String,
}

/// The command's name, empty for the list of all; `None` where the path leads elsewhere.
fn command_of<'a>(path: &'a str, command_url: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(command_url.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

fn answer(status: u16, json: &Json) -> Response {
    Response::new(status, JSON, json.print())
}

fn refuse(status: u16, command: Command, error: &str) -> Response {
    answer(status, &admin::error_body(command.name(), error))
}
