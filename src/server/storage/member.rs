//! What a server of an ensemble remembers besides data: its two epochs, and that this directory is its own.
//!
//! ```text
//! epochs                           member
//! ringkeeper-epochs 1              ringkeeper-member 1
//! accepted 7                       server 3
//! current 6                        initialized
//! crc32c 01234567                  crc32c 89abcdef
//! ```
//!
//! Decimal; the last line is the crc32c, in hex, of all before it; replaced in one step. Once `member` is there, `epochs` is
//! never missing: a server that forgot what it promised could promise it again to another (S1).
//!
//! **Epochs and data** (`reference/quorum-protocol.md` §6.2, §6.3): epoch of the last transaction <= current <= accepted. History is
//! written before the current epoch, so a crash between leaves the first of these untrue; current then becomes that epoch,
//! provided it was promised. Anything else is a directory put together from parts, and refused.
//!
//! **Servers without data** (S9). A server that lost its data must not help to elect one that lacks what it had acknowledged, and nothing
//! here tells it from a new one. So whoever has neither a transaction nor ever followed a leader is [`Standing::Empty`], and how
//! far it counts is ZooKeeper's rule sharpened:
//!
//! - with a file `initialize` in `dataDir` it counts like any other. The file is taken away, the permission kept here until there is data.
//! - without, and `db.autocreate` on (the default): it votes as long as every vote it sees comes from an empty server, too. So a new
//!   ensemble starts as ever; where one server has data, the empty ones vote only after they have been synchronised.
//! - `db.autocreate` off: it does not vote before it is synchronised.
//!
//! Source: ZooKeeper `FileTxnSnapLog#restore`, `FastLeaderElection#lookForLeader`, `QuorumPeer#loadDataBase`.

use std::path::{Path, PathBuf};

use crate::server::storage::files::{self, Files, INITIALIZE, read_side_file, write_atomic};
use crate::server::storage::{StorageError, StorageOptions};
use crate::types::{Epoch, ServerId, Zxid};
use crate::zab::{Epochs, Standing};

pub(super) const EPOCHS: &str = "epochs";
pub(super) const MEMBER: &str = "member";
/// What ZooKeeper has in `version-2`.
const ACCEPTED_EPOCH: &str = "acceptedEpoch";
const CURRENT_EPOCH: &str = "currentEpoch";

const ADVICE_EPOCHS: &str = "Nothing was changed. Restore the data directory from a backup, or move it away so that this \
                             server is synchronised by the others";

/// What the file `member` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Member {
    server: ServerId,
    initialized: bool,
}

impl Member {
    fn text(&self) -> String {
        let initialized = if self.initialized { "initialized\n" } else { "" };
        sealed(format!("ringkeeper-member 1\nserver {}\n{initialized}", self.server.0))
    }

    fn parse(bytes: &[u8]) -> Option<Member> {
        let text = std::str::from_utf8(bytes).ok()?;
        let server = text.lines().nth(1)?.strip_prefix("server ")?.parse().ok()?;
        let member = Member { server: ServerId(server), initialized: text.contains("\ninitialized\n") };
        (member.text() == text).then_some(member)
    }
}

fn epochs_text(epochs: Epochs) -> String {
    let Epochs { accepted, current } = epochs;
    sealed(format!("ringkeeper-epochs 1\naccepted {}\ncurrent {}\n", accepted.0, current.0))
}

fn parse_epochs(bytes: &[u8]) -> Option<Epochs> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number =
        |line: usize, name: &str| text.lines().nth(line)?.strip_prefix(name)?.parse().ok().map(Epoch);
    let epochs = Epochs { accepted: number(1, "accepted ")?, current: number(2, "current ")? };
    (epochs_text(epochs) == text).then_some(epochs)
}

fn sealed(body: String) -> String {
    format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

/// The epochs to go on with, by what was written and the last transaction there is.
fn settle(found: Option<Epochs>, last: Zxid) -> Result<Epochs, String> {
    let epoch = last.epoch();
    let Some(found) = found else { return Ok(Epochs { accepted: epoch, current: epoch }) };
    let Epochs { accepted, current } = found;
    if current > accepted {
        return Err(format!("the current epoch, {}, is above the accepted one, {}", current.0, accepted.0));
    }
    if epoch > accepted {
        return Err(format!(
            "the accepted epoch is {}, but the last transaction, {last}, is of epoch {}",
            accepted.0, epoch.0
        ));
    }
    Ok(Epochs { accepted, current: current.max(epoch) })
}

impl Files {
    /// Replaces the epochs, durably. Panics if one of them falls (S1).
    pub fn write_epochs(&mut self, epochs: Epochs) -> Result<(), StorageError> {
        let known = self.epochs.unwrap_or_default();
        assert!(epochs.accepted >= epochs.current, "{epochs:?} keep their order");
        assert!(
            epochs.accepted >= known.accepted && epochs.current >= known.current,
            "epochs do not fall from {known:?} to {epochs:?}"
        );
        let path = self.snapshot_dir().join(EPOCHS);
        write_atomic(&path, epochs_text(epochs).as_bytes()).map_err(StorageError::io("write", &path))?;
        self.epochs = Some(epochs);
        Ok(())
    }

    /// The epochs as they were written; nothing where they cannot be read, which [`Files::settle_member`] has its say about.
    pub(super) fn read_epochs(&self) -> Result<Option<Epochs>, StorageError> {
        Ok(read_side_file(&self.snapshot_dir().join(EPOCHS))?.as_deref().and_then(parse_epochs))
    }

    /// Whose directory it is, refused if it is another server's. `None` if it was never in an ensemble.
    pub(super) fn read_member(&self, server: Option<ServerId>) -> Result<Option<Member>, StorageError> {
        let path = self.snapshot_dir().join(MEMBER);
        let Some(bytes) = read_side_file(&path)? else { return Ok(None) };
        let refused = |reason: String| StorageError::Refused {
            path: path.clone(),
            reason,
            advice: "Check dataDir and the file myid in it; a server with another number begins with an empty dataDir",
        };
        let Some(server) = server else { return Ok(Member::parse(&bytes)) };
        let member = Member::parse(&bytes).ok_or_else(|| refused("it is damaged".into()))?;
        if member.server != server {
            let (owner, me) = (member.server.0, server.0);
            return Err(refused(format!("the data is that of server {owner}, but this is server {me}")));
        }
        Ok(Some(member))
    }

    /// Settles what an ensemble's server goes on with, and writes what is not written. `found` are the epochs of a
    /// ZooKeeper's directory when that is taken over.
    pub(super) fn settle_member(
        &mut self,
        options: &StorageOptions,
        member: Option<Member>,
        found: Option<Epochs>,
        last: Zxid,
        warnings: &mut Vec<String>,
    ) -> Result<(Epochs, Standing), StorageError> {
        let path = self.snapshot_dir().join(EPOCHS);
        let refused =
            |reason: String| StorageError::Refused { path: path.clone(), reason, advice: ADVICE_EPOCHS };
        let bytes = read_side_file(&path)?;
        let written = bytes.as_deref().map(|bytes| parse_epochs(bytes).ok_or("it is damaged")).transpose();
        let Some(server) = options.server_id else {
            // A server alone has nobody to promise anything. What was promised before is kept for later.
            match written {
                Ok(written) => self.epochs = written,
                Err(reason) => {
                    warnings.push(format!("{}: {reason}; not needed by a server alone", path.display()))
                }
            }
            if let (None, Some(found)) = (self.epochs, found) {
                self.write_epochs(found)?;
            }
            let epochs = settle(self.epochs, last).or_else(|_| settle(None, last));
            return Ok((epochs.expect("without epochs there is nothing to contradict"), Standing::Full));
        };
        self.epochs = written.map_err(|reason| refused(reason.into()))?;
        if self.epochs.is_none() && member.is_some() {
            return Err(refused("it is missing, though this server was in an ensemble".into()));
        }
        let epochs = settle(self.epochs.or(found), last).map_err(refused)?;
        if self.epochs != Some(epochs) {
            if let Some(before) = self.epochs.or(found).filter(|before| before.current < epochs.current) {
                warnings.push(format!(
                    "the current epoch was {}; the last transaction is of epoch {}, which the server was about to enter \
                     when it stopped",
                    before.current.0, epochs.current.0
                ));
            }
            self.write_epochs(epochs)?;
        }
        let is_empty = last == Zxid::ZERO && epochs.current == Epoch(0);
        let marker = options.data_dir.join(INITIALIZE);
        let initialized = is_empty && (marker.exists() || member.is_some_and(|member| member.initialized));
        let wanted = Member { server, initialized };
        if member != Some(wanted) {
            let path = self.snapshot_dir().join(MEMBER);
            write_atomic(&path, wanted.text().as_bytes()).map_err(StorageError::io("write", &path))?;
        }
        let standing = match is_empty && !initialized {
            true => Standing::Empty { may_found: options.db_autocreate },
            false => Standing::Full,
        };
        Ok((epochs, standing))
    }
}

/// The epochs in a ZooKeeper's `version-2`, if it has any; `last` is its last transaction.
///
/// A current epoch below that transaction's is taken from `currentEpoch.tmp`, if that is there.
/// Source: ZooKeeper `QuorumPeer#loadDataBase`.
pub(super) fn of_zookeeper(version_2: &Path, last: Zxid) -> Result<Option<Epochs>, StorageError> {
    let accepted = number(version_2.join(ACCEPTED_EPOCH))?;
    let mut current = number(version_2.join(CURRENT_EPOCH))?;
    if accepted.is_none() && current.is_none() {
        return Ok(None);
    }
    if current.is_some_and(|current| current < last.epoch()) {
        let unfinished = number(files::temporary(&version_2.join(CURRENT_EPOCH)));
        current = current.max(unfinished.unwrap_or_default());
    }
    let epoch = last.epoch();
    Ok(Some(Epochs { accepted: accepted.unwrap_or(epoch), current: current.unwrap_or(epoch) }))
}

fn number(path: PathBuf) -> Result<Option<Epoch>, StorageError> {
    let Some(bytes) = read_side_file(&path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    match text.lines().next().unwrap_or_default().trim().parse() {
        Ok(epoch) => Ok(Some(Epoch(epoch))),
        Err(_) => Err(StorageError::Refused {
            path,
            reason: format!(
                "it holds {:?}, a decimal number was expected",
                text.chars().take(40).collect::<String>()
            ),
            advice: ADVICE_EPOCHS,
        }),
    }
}

/// Writes both files as a ZooKeeper reads them.
pub(super) fn for_zookeeper(version_2: &Path, epochs: Epochs) -> Result<(), StorageError> {
    for (name, epoch) in [(ACCEPTED_EPOCH, epochs.accepted), (CURRENT_EPOCH, epochs.current)] {
        let path = version_2.join(name);
        write_atomic(&path, epoch.0.to_string().as_bytes()).map_err(StorageError::io("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(accepted: u32, current: u32) -> Epochs {
        Epochs { accepted: Epoch(accepted), current: Epoch(current) }
    }

    #[test]
    fn side_files_round_trip_and_notice_every_flipped_byte_and_every_length() {
        for member in [true, false].map(|initialized| Member { server: ServerId(255), initialized }) {
            assert_eq!(Member::parse(member.text().as_bytes()), Some(member));
            every_change(member.text(), |bytes| Member::parse(bytes).is_none());
        }
        let known = epochs(u32::MAX, 6);
        assert_eq!(parse_epochs(epochs_text(known).as_bytes()), Some(known));
        every_change(epochs_text(known), |bytes| parse_epochs(bytes).is_none());
    }

    fn every_change(text: String, is_refused: impl Fn(&[u8]) -> bool) {
        let mut bytes = text.into_bytes();
        for at in 0..bytes.len() {
            assert!(is_refused(&bytes[..at]), "length {at}");
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(is_refused(&bytes), "offset {at} bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn epochs_are_settled_by_the_last_transaction() {
        let last = Zxid::new(Epoch(5), 9);
        assert_eq!(settle(None, last), Ok(epochs(5, 5)));
        assert_eq!(settle(Some(epochs(7, 6)), last), Ok(epochs(7, 6)));
        assert_eq!(settle(Some(epochs(5, 5)), last), Ok(epochs(5, 5)));
        // It stopped between history and epoch.
        assert_eq!(settle(Some(epochs(5, 4)), last), Ok(epochs(5, 5)));
        assert!(settle(Some(epochs(4, 4)), last).unwrap_err().contains("accepted epoch is 4"));
        assert!(settle(Some(epochs(5, 6)), last).unwrap_err().contains("above the accepted one"));
        assert_eq!(settle(Some(epochs(0, 0)), Zxid::ZERO), Ok(epochs(0, 0)));
    }
}
