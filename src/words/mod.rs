//! Four-letter words: what they are called, who may say them, and what they print, byte for byte as ZooKeeper does.
//!
//! Nothing here knows where numbers come from: whoever answers gathers a [`Report`], and [`answer`] makes the text.
//! Texts are bounded by [`TEXT_BYTES_MAX`]. Source: ZooKeeper `server.command` package, and transcripts of 3.8.0.

mod connections;
pub mod date;
mod ensemble;
mod mntr;
mod number;
mod server;
mod sessions;
mod text;
mod watches;

pub use connections::{ConnectionReport, java_address, op_name};
pub use ensemble::{EnsembleFacts, EnsembleReport, LeaderReport, PeerPhase, PeerRole, SyncMode};
pub use mntr::{MetricKind, MetricSink, NamespaceReport, Number, metrics, summary_parts};
pub use number::{four_decimals, java_double};
pub use server::{Mode, ServerFacts, TreeReport, VERSION, environment};
pub use sessions::SessionReport;
pub use text::TEXT_BYTES_MAX;
pub use watches::WatchReport;

use crate::metrics::{FrontCounters, PipelineCounters};
use crate::types::Zxid;
use text::Text;

/// A word a client may say instead of its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Word {
    Conf,
    Cons,
    Crst,
    Dirs,
    Dump,
    Envi,
    Gtmk,
    Hash,
    Isro,
    Mntr,
    Ruok,
    Srst,
    Srvr,
    Stat,
    /// Eight more bytes follow: the mask, a big-endian i64.
    Stmk,
    Wchc,
    Wchp,
    Wchs,
    /// Not a word: what telnet sends when it is interrupted. The connection closes without an answer.
    TelnetClose,
}

/// All words with their names; `TelnetClose` has none.
const WORDS: [(Word, &str); 18] = [
    (Word::Conf, "conf"),
    (Word::Cons, "cons"),
    (Word::Crst, "crst"),
    (Word::Dirs, "dirs"),
    (Word::Dump, "dump"),
    (Word::Envi, "envi"),
    (Word::Gtmk, "gtmk"),
    (Word::Hash, "hash"),
    (Word::Isro, "isro"),
    (Word::Mntr, "mntr"),
    (Word::Ruok, "ruok"),
    (Word::Srst, "srst"),
    (Word::Srvr, "srvr"),
    (Word::Stat, "stat"),
    (Word::Stmk, "stmk"),
    (Word::Wchc, "wchc"),
    (Word::Wchp, "wchp"),
    (Word::Wchs, "wchs"),
];

const TELNET_CLOSE: [u8; 4] = 0xfff4_fffdu32.to_be_bytes();

impl Word {
    /// The word these first four bytes of a connection are. `None`: they are a frame's length.
    pub fn of(bytes: [u8; 4]) -> Option<Word> {
        if bytes == TELNET_CLOSE {
            return Some(Word::TelnetClose);
        }
        WORDS.iter().find(|(_, name)| name.as_bytes() == bytes).map(|(word, _)| *word)
    }

    pub fn name(self) -> &'static str {
        WORDS.iter().find(|(word, _)| *word == self).map_or("", |(_, name)| name)
    }

    /// Whether its answer lists connections.
    pub fn wants_connections(self) -> bool {
        matches!(self, Word::Cons | Word::Stat | Word::Dump)
    }

    /// Whether its answer counts or lists watches one by one.
    pub fn wants_watches(self) -> bool {
        matches!(self, Word::Wchc | Word::Wchp | Word::Wchs)
    }

    /// Whether its answer needs [`FrontCounters`].
    pub fn wants_counters(self) -> bool {
        matches!(self, Word::Srvr | Word::Stat | Word::Mntr)
    }

    /// Whether it is answered by a server that serves nobody.
    pub fn works_always(self) -> bool {
        matches!(self, Word::Ruok | Word::Isro | Word::Envi | Word::Gtmk | Word::Stmk | Word::TelnetClose)
    }

    fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Which words are answered: `4lw.commands.whitelist`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordOptions {
    allowed: u32,
}

impl Default for WordOptions {
    fn default() -> WordOptions {
        WordOptions::new(&[], false)
    }
}

impl WordOptions {
    /// From the words of the list; `*` is all of them, unknown ones are passed over. `srvr` is always allowed, `isro`
    /// where the read-only mode is. Source: ZooKeeper `FourLetterCommands#isEnabled`.
    pub fn new(whitelist: &[String], read_only_mode: bool) -> WordOptions {
        let mut allowed = Word::Srvr.bit() | Word::TelnetClose.bit();
        if read_only_mode {
            allowed |= Word::Isro.bit();
        }
        for (word, name) in WORDS {
            if whitelist.iter().any(|listed| listed == name || listed == "*") {
                allowed |= word.bit();
            }
        }
        WordOptions { allowed }
    }

    /// Every word, as `*` gives.
    pub fn all() -> WordOptions {
        WordOptions::new(&["*".to_owned()], false)
    }

    pub fn of(config: &crate::config::Config) -> WordOptions {
        WordOptions::new(&config.words_whitelist, config.read_only_mode_enabled)
    }

    pub fn allows(&self, word: Word) -> bool {
        self.allowed & word.bit() != 0
    }
}

/// The answer to a word that is not allowed.
pub fn not_whitelisted(word: Word) -> String {
    format!("{} is not executed because it is not in the whitelist.\n", word.name())
}

/// The answer to most words of a server that serves nobody.
pub fn not_serving() -> &'static str {
    "This ZooKeeper instance is not currently serving requests\n"
}

/// What one answer needs to know. Parts a word does not ask for may stay empty; see [`Word::wants_connections`] and
/// its siblings.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub mode: Mode,
    /// The last transaction applied.
    pub zxid: Zxid,
    pub uptime_ms: u64,
    /// What `gtmk` tells and `stmk` has just set.
    pub trace_mask: i64,
    /// Over all fronts.
    pub front: FrontCounters,
    pub pipeline: PipelineCounters,
    pub connection_count: u64,
    /// Requests taken in and not answered.
    pub outstanding: u64,
    pub watch_count: u64,
    /// Connections within their TLS handshake.
    pub tls_handshakes: u64,
    pub connections: Vec<ConnectionReport>,
    pub watches: WatchReport,
    pub tree: TreeReport,
    pub sessions: SessionReport,
    /// For `hash`: zxids and the tree's digests at them, oldest first.
    pub digests: Vec<(Zxid, u64)>,
    /// Quotas and traffic by top-level node, for `mntr`.
    pub namespaces: Vec<NamespaceReport>,
    /// Of a member of an ensemble.
    pub ensemble: Option<Box<EnsembleReport>>,
}

/// The trace mask until `stmk` changes it: sessions, watch delivery, requests... Source: ZooKeeper `ZooTrace`.
pub const TRACE_MASK_DEFAULT: i64 = 306;

/// Digests `hash` prints. Source: ZooKeeper `DataTree.DIGEST_LOG_LIMIT`.
pub const DIGESTS_MAX: usize = 1024;

/// What the server says to an allowed word; empty for `TelnetClose`. A reset (`crst`, `srst`) is the caller's to do.
pub fn answer(word: Word, facts: &ServerFacts, report: &Report) -> String {
    if report.mode == Mode::NotServing && !word.works_always() {
        return not_serving().into();
    }
    let mut text = Text::default();
    match word {
        Word::Conf => server::conf(&mut text, facts, report),
        Word::Cons => connections::cons(&mut text, &report.connections),
        Word::Crst => text.line("Connection stats reset."),
        Word::Dirs => server::dirs(&mut text, facts),
        Word::Dump => sessions::dump(&mut text, &report.sessions, &report.connections),
        Word::Envi => server::envi(&mut text, facts),
        // The next four end without a newline.
        Word::Gtmk | Word::Stmk => text.push(&report.trace_mask.to_string()),
        Word::Isro => text.push(match report.mode {
            Mode::NotServing => "null",
            Mode::ReadOnly => "ro",
            _ => "rw",
        }),
        Word::Ruok => text.push("imok"),
        Word::Hash => {
            for (zxid, digest) in report.digests.iter().take(DIGESTS_MAX) {
                text.line(&format!("{:x}: {}", zxid.0, *digest as i64));
            }
        }
        Word::Mntr => mntr::mntr(&mut text, facts, report),
        Word::Srst => text.line("Server stats reset."),
        Word::Srvr => server::srvr(&mut text, report, None),
        Word::Stat => server::srvr(&mut text, report, Some(&report.connections)),
        Word::Wchc => watches::wchc(&mut text, &report.watches),
        Word::Wchp => watches::wchp(&mut text, &report.watches),
        Word::Wchs => watches::wchs(&mut text, &report.watches),
        Word::TelnetClose => {}
    }
    text.finish()
}

#[cfg(test)]
mod tests;
