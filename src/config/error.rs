//! What can be wrong with a configuration, and what is merely worth a line in the log.

use std::fmt;

use thiserror::Error;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line, from 1, of a file.
    Line { file: String, line: u32 },
    /// `--set` on the command line.
    Set,
    /// A word of the start form `port datadir [tickTime] [maxClientCnxns]`.
    Argument,
    /// A `-D` in this environment variable, or in this file of variables.
    Flags { variable: String },
    /// Nobody wrote it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Line { file, line } => write!(f, "{file}:{line}"),
            Origin::Set => f.write_str("--set"),
            Origin::Argument => f.write_str("command line"),
            Origin::Flags { variable } => f.write_str(variable),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// Why a server cannot start from this configuration. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("{origin}: {key}={value}: expected {expected}")]
    Value { origin: Origin, key: String, value: String, expected: String },
    #[error("{origin}: {key}={value}: {reason}")]
    Unsupported { origin: Origin, key: String, value: String, reason: String },
    #[error("{origin}: {key} is missing: {reason}")]
    Missing { origin: Origin, key: &'static str, reason: &'static str },
    #[error("{origin}: {reason}")]
    Contradiction { origin: Origin, reason: String },
    #[error("{origin}: \\u is not followed by four hexadecimal digits")]
    Escape { origin: Origin },
    #[error("{file}: {bytes} bytes; a configuration holds at most {bytes_max}")]
    TooLarge { file: String, bytes: usize, bytes_max: usize },
    #[error("{file}: {reason}")]
    Read { file: String, reason: String },
    #[error("--set {given}: expected key=value")]
    Set { given: String },
    #[error("{given} arguments: expected a configuration file, or: port datadir [tickTime] [maxClientCnxns]")]
    Arguments { given: usize },
}

/// How loudly a [`Notice`] is to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// What an operator should know about a configuration that works. Each kind is given once, naming all it is about.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Notice {
    #[error("unknown keys, ignored: {}", .names.join(", "))]
    Unknown { names: Vec<String> },
    #[error("keys accepted, without effect in ringkeeper: {}", .names.join(", "))]
    NoEffect { names: Vec<String> },
    #[error("keys of ensembles, without effect on a standalone server: {}", .names.join(", "))]
    EnsembleOnly { names: Vec<String> },
    #[error("keys of features this release does not have, ignored: {}", .names.join(", "))]
    NotAvailable { names: Vec<String> },
    #[error(
        "keys of TLS, without effect as no client port speaks it (secureClientPort, client.portUnification): {}",
        .names.join(", ")
    )]
    TlsOff { names: Vec<String> },
    #[error("{origin}: {key}: not offered here, passed over: {}", .names.join(", "))]
    PassedOver { origin: Origin, key: String, names: Vec<String> },
    #[error("options of a Java machine, ignored: {}", .options.join(" "))]
    JavaOptions { options: Vec<String> },
    #[error("{origin}: {alias} is called {key}; taken as that")]
    Alias { origin: Origin, alias: String, key: String },
    #[error("{origin}: {key} is given twice; the value of this line counts, not that of line {line_before}")]
    Duplicate { origin: Origin, key: String, line_before: u32 },
    #[error("{origin}: {key}={value} means {meaning}: {expected}")]
    OddSwitch { origin: Origin, key: String, value: String, meaning: &'static str, expected: String },
    #[error("{origin}: {key}={value} is too small, {used} is used")]
    Raised { origin: Origin, key: &'static str, value: i64, used: i64 },
    #[error("{origin}: dataDir={path} is relative to the directory the server is started in")]
    RelativePath { origin: Origin, path: String },
    #[error(
        "autopurge.purgeInterval is 0, which lets ZooKeeper keep everything; ringkeeper keeps the newest {kept} \
         verified snapshots and the log they need (ringkeeper.snapRetainCount=0 keeps everything)"
    )]
    Retention { kept: u32, written: bool },
    #[error("only one server is configured: it runs standalone")]
    OneServer,
    #[error("{voters} participants tolerate no server's failure: at least three are needed for that")]
    FewServers { voters: usize },
    #[error("{voters} participants tolerate no more failures than {} would", voters - 1)]
    EvenServers { voters: usize },
    #[error("{origin}: peerType={role} contradicts the server list, which counts")]
    PeerType { origin: Origin, role: String },
    #[error("{origin}: {key}={class}: no such class here; {consequence}")]
    UnknownClass { origin: Origin, key: String, class: String, consequence: &'static str },
    #[error("forceSync=no: writes are acknowledged before they are on disk and may be lost with the power")]
    ForceSyncOff,
    #[error("fips-mode=true: DIGEST-MD5 is off, so every SASL exchange with a client fails")]
    FipsMode,
    #[error("skipACL=yes: every client may do everything")]
    AclOff,
}

impl Notice {
    pub fn level(&self) -> Level {
        match self {
            Notice::Retention { written: false, .. } => Level::Info,
            Notice::OneServer => Level::Error,
            _ => Level::Warn,
        }
    }
}
