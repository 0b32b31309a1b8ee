//! The admin server's commands: what they are called, what they ask the pipeline, and what they answer as JSON.
//!
//! Nothing here reads a socket or a file. Whoever serves HTTP asks the pipeline [`What`] a command needs, and makes the
//! answer of the [`Report`] that comes back, on its own thread: the data path gathers numbers and formats nothing.
//! Source: ZooKeeper `server.admin.Commands`, and transcripts of 3.9.5.

mod command;
mod ensemble;
mod json;
pub mod prometheus;

use std::net::IpAddr;

pub use command::{Command, Findings, body, done, error_body, failure, links, unknown};
pub use json::Json;

use crate::types::Zxid;
use crate::words::{Report, Word};

/// Questions that may wait for the pipeline at once.
pub const QUESTIONS_MAX: usize = 32;

/// A question to the pipeline.
#[derive(Debug)]
pub struct Ask {
    /// The answer bears it, too.
    pub number: u64,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// What the word tells of; the word's own effect, as a reset, happens. `argument` is `stmk`'s mask.
    Report { word: Word, argument: i64 },
    /// May someone who authenticates like this do all there is on the root?
    Permission(Credentials),
    /// A verified snapshot of the state as it is now, or of a later one.
    Snapshot,
}

/// What an `Authorization` header says, and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub scheme: String,
    pub data: Option<Vec<u8>>,
    pub peer: IpAddr,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("scheme", &self.scheme).field("peer", &self.peer).finish()
    }
}

impl Credentials {
    /// Reads `<scheme> [<data>]`. `None`: neither one nor two words.
    /// Source: ZooKeeper `Commands#handleAuthentication`.
    pub fn parse(header: &str, peer: IpAddr) -> Option<Credentials> {
        let mut words = header.split(' ');
        let scheme = words.next().filter(|scheme| !scheme.is_empty())?.to_owned();
        let data = words.next().map(|data| data.as_bytes().to_vec());
        words.next().is_none().then_some(Credentials { scheme, data, peer })
    }
}

/// An answer of the pipeline.
#[derive(Debug)]
pub struct Told {
    pub number: u64,
    pub answer: Answer,
}

#[derive(Debug)]
pub enum Answer {
    Report(Box<Report>),
    Permission(Permission),
    /// The snapshot, or why there is none.
    Snapshot(Result<Zxid, String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    Granted,
    /// The credentials show nothing.
    NotAuthenticated,
    /// They do, but not enough.
    NotAuthorized,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_one_or_two_words_and_stay_out_of_logs() {
        let peer = IpAddr::from([127, 0, 0, 1]);
        let parse = |header: &str| {
            Credentials::parse(header, peer).map(|credentials| (credentials.scheme, credentials.data))
        };
        assert_eq!(parse("ip"), Some(("ip".to_owned(), None)));
        assert_eq!(parse("digest root:pw"), Some(("digest".to_owned(), Some(b"root:pw".to_vec()))));
        for bad in ["", " ip", "digest a b"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        let shown = format!("{:?}", Credentials::parse("digest root:secret", peer));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
