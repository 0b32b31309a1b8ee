//! The files beside the configuration that tell who belongs to the ensemble, as ZooKeeper writes and reads them:
//!
//! | File | Content |
//! |------|---------|
//! | `zoo.cfg.dynamic.<version>` | the members, one a line; the version, in hexadecimal, is that of the name alone |
//! | `zoo.cfg.dynamic.next` | a membership that is proposed, with its version, until it is in force |
//! | `zoo.cfg.bak` | the configuration as it was before this server first changed it |
//! | `zoo.cfg` | as its owner wrote it, but `dynamicConfigFile` in place of what says the same |
//!
//! Each is replaced in one step, and the directory synced, the pointer after what it points to. Comments and the order of lines stay.
//! Source: ZooKeeper `QuorumPeerConfig#writeDynamicConfig`, `#editStaticConfig`; quorum-protocol §1.5.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::storage::write_atomic;
use crate::config::Membership;
use crate::node::MembershipFiles;
use crate::types::ServerId;

/// Where the files of one server are.
#[derive(Debug, Clone)]
pub(super) struct MembershipStore {
    pub configuration: PathBuf,
    pub me: ServerId,
}

impl MembershipStore {
    pub(super) fn write(&self, files: &MembershipFiles) -> io::Result<()> {
        let configuration = fs::canonicalize(&self.configuration)?;
        if let Some(membership) = &files.activated {
            self.activate(&configuration, membership)?;
        }
        let next = beside(&configuration, ".dynamic.next");
        match &files.next {
            Some(text) => write_atomic(&next, text.as_bytes()),
            None => match fs::remove_file(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn activate(&self, configuration: &Path, membership: &Membership) -> io::Result<()> {
        let dynamic = beside(configuration, &format!(".dynamic.{:x}", membership.version));
        write_atomic(&dynamic, membership.lines().as_bytes())?;
        let before = fs::read(configuration)?;
        let has_client = membership.member(self.me).is_some_and(|member| member.client.is_some());
        let after = rewritten(&before, &dynamic.to_string_lossy(), has_client);
        if after == before {
            return Ok(());
        }
        let backup = beside(configuration, ".bak");
        let is_first = !lines_of(&before).iter().any(|line| key_of(line) == b"dynamicConfigFile");
        if is_first {
            write_like(configuration, &backup, &before)?;
        }
        write_like(configuration, configuration, &after)
    }
}

/// As [`write_atomic`], with the permissions of `model`: a configuration may hold secrets.
fn write_like(model: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    let mut file = File::create(&temporary)?;
    file.set_permissions(fs::metadata(model)?.permissions())?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().expect("a file is in a directory"))?.sync_all()
}

fn beside(configuration: &Path, suffix: &str) -> PathBuf {
    let mut name = configuration.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The configuration, with a pointer to `dynamic` in place of what that says.
fn rewritten(text: &[u8], dynamic: &str, has_client: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + dynamic.len());
    for line in lines_of(text) {
        let key = key_of(line);
        let is_client = matches!(key, b"clientPort" | b"clientPortAddress");
        let is_member = [&b"server."[..], b"group.", b"weight."].iter().any(|family| key.starts_with(family));
        let goes =
            is_member || matches!(key, b"peerType" | b"dynamicConfigFile") || (is_client && has_client);
        if !goes {
            out.extend_from_slice(line);
        }
    }
    if out.last().is_some_and(|last| *last != b'\n') {
        out.push(b'\n');
    }
    out.extend_from_slice(b"dynamicConfigFile=");
    for c in dynamic.chars() {
        match c {
            '\\' => out.extend_from_slice(b"\\\\"),
            c if (' '..='~').contains(&c) => out.push(c as u8),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out.push(b'\n');
    out
}

/// Lines with their ends; one that a backslash continues goes on in the next.
fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let (mut begin, mut at) = (0, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        let is_comment = matches!(text[begin..at].trim_ascii_start().first(), Some(b'#' | b'!'));
        let body = line.trim_ascii_end();
        let continues = body.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
        if !continues || is_comment {
            lines.push(&text[begin..at]);
            begin = at;
        }
    }
    if begin < text.len() {
        lines.push(&text[begin..]);
    }
    lines
}

/// The key of a line; empty for comments and blank lines.
fn key_of(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    if matches!(line.first(), Some(b'#' | b'!')) {
        return b"";
    }
    let end = line.iter().position(|byte| matches!(byte, b'=' | b':') || byte.is_ascii_whitespace());
    &line[..end.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(version: i64, client: &str) -> Membership {
        let text = format!(
            "server.1=a:1:2:participant{client}\nserver.2=b:1:2:participant{client}\nversion={version:x}"
        );
        Membership::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn files_are_those_of_zookeeper_and_comments_stay() {
        let directory = tempfile::tempdir().unwrap();
        let configuration = directory.path().join("zoo.cfg");
        let original = "# who\ntickTime=2000\nserver.1=a:1:2\nserver.2 = b:1:\\\n  2\nclientPort=2181\nclientPortListenBacklog=9\npeerType=participant\n# end";
        fs::write(&configuration, original).unwrap();
        let store = MembershipStore { configuration: configuration.clone(), me: ServerId(1) };
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).ok();

        let proposed = membership(0x1_0000_0002, "");
        store.write(&MembershipFiles { next: Some(proposed.to_text()), activated: None }).unwrap();
        assert_eq!(read("zoo.cfg.dynamic.next"), Some(proposed.to_text()));
        assert_eq!(read("zoo.cfg").unwrap(), original);

        store.write(&MembershipFiles { next: None, activated: Some(proposed.clone()) }).unwrap();
        assert_eq!(read("zoo.cfg.dynamic.next"), None);
        assert_eq!(
            read("zoo.cfg.dynamic.100000002").unwrap(),
            "server.1=a:1:2:participant\nserver.2=b:1:2:participant\n"
        );
        assert_eq!(read("zoo.cfg.bak").unwrap(), original);
        let pointer = |version: &str| {
            let directory = fs::canonicalize(directory.path()).unwrap();
            format!("dynamicConfigFile={}/zoo.cfg.dynamic.{version}\n", directory.display())
        };
        assert_eq!(
            read("zoo.cfg").unwrap(),
            format!(
                "# who\ntickTime=2000\nclientPort=2181\nclientPortListenBacklog=9\n# end\n{}",
                pointer("100000002")
            )
        );

        // The next one; its lines hold this server's client port.
        let next = membership(0x1_0000_0003, ";0.0.0.0:2181");
        store.write(&MembershipFiles { next: None, activated: Some(next) }).unwrap();
        assert_eq!(
            read("zoo.cfg").unwrap(),
            format!("# who\ntickTime=2000\nclientPortListenBacklog=9\n# end\n{}", pointer("100000003"))
        );
        assert_eq!(read("zoo.cfg.bak").unwrap(), original);
        assert!(read("zoo.cfg.dynamic.100000002").is_some());
    }

    #[test]
    fn a_configuration_that_cannot_be_written_is_an_error_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let store = MembershipStore { configuration: directory.path().join("none"), me: ServerId(1) };
        assert!(store.write(&MembershipFiles { next: None, activated: Some(membership(3, "")) }).is_err());
    }
}
