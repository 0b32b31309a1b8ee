//! A snapshot as text, for `inspect`.

use std::io::Read;

use crate::proto::{Acl, NodeKind, StatPersisted};
use crate::snapshot::{ACL_OPEN, LoadError, LoadSink, Loaded, load};
use crate::txnlog::print::acl_text;
use crate::types::SessionId;

/// Prints an unpacked snapshot line by line: sessions, ACLs, nodes, then what the trailers say.
pub fn snapshot_lines(stream: &mut dyn Read, line: &mut dyn FnMut(String)) -> Result<Loaded, LoadError> {
    let loaded = load(stream, &mut Printer { line })?;
    line(format!(
        "{} sessions, {} ACL lists, {} nodes",
        loaded.counts.sessions, loaded.counts.acls, loaded.counts.nodes
    ));
    match loaded.digest {
        Some(digest) => line(format!("digest {}:{} at {}", digest.version, digest.tree_digest, digest.zxid)),
        None => line("no digest".into()),
    }
    if let Some(zxid) = loaded.zxid_last {
        line(format!("last zxid {zxid}"));
    }
    Ok(loaded)
}

struct Printer<'l> {
    line: &'l mut dyn FnMut(String),
}

impl LoadSink for Printer<'_> {
    fn reset(&mut self) {}

    fn session(&mut self, session: SessionId, timeout_ms: i32) -> Result<(), String> {
        (self.line)(format!("session {session} timeout {timeout_ms} ms"));
        Ok(())
    }

    fn acl(&mut self, id: i64, acl: Option<Acl<'_>>) -> Result<(), String> {
        (self.line)(format!("acl {id} {}", acl.map_or("null".to_owned(), acl_text)));
        Ok(())
    }

    fn node(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: &StatPersisted,
    ) -> Result<(), String> {
        let path = if path.is_empty() { "/" } else { path };
        let data = data.map_or("null".to_owned(), |data| format!("{} bytes", data.len()));
        let acl = if acl == ACL_OPEN { "open".to_owned() } else { acl.to_string() };
        let kind = match stat.kind() {
            NodeKind::Persistent => String::new(),
            NodeKind::Ephemeral(session) => format!(" ephemeral of {session}"),
            NodeKind::Container => " container".into(),
            NodeKind::Ttl(ms) => format!(" ttl {ms} ms"),
        };
        (self.line)(format!(
            "node {path:?} {data} acl {acl} czxid {} mzxid {} pzxid {} ctime {} mtime {} version {} cversion {} \
             aversion {}{kind}",
            stat.czxid,
            stat.mzxid,
            stat.pzxid,
            stat.ctime_ms,
            stat.mtime_ms,
            stat.version,
            stat.cversion,
            stat.aversion
        ));
        Ok(())
    }
}
