//! The items of a snapshot's body, each decoded and handed to the sink in one step; for both readers.
//!
//! The outer error says that the bytes are no such item, or not all of it; nothing went to the sink then. The inner one is the sink's.

use crate::jute::{JuteError, Reader};
use crate::proto::{Acl, StatPersisted};
use crate::snapshot::LoadSink;
use crate::types::SessionId;

/// Stands where a node's path would, behind the last of them.
const END_OF_NODES: &str = "/";

#[inline]
pub(super) fn session(
    reader: &mut Reader<'_>,
    sink: &mut dyn LoadSink,
) -> Result<Result<(), String>, JuteError> {
    let session = SessionId(reader.i64()?);
    let timeout_ms = reader.i32()?;
    Ok(sink.session(session, timeout_ms))
}

#[inline]
pub(super) fn acl(reader: &mut Reader<'_>, sink: &mut dyn LoadSink) -> Result<Result<(), String>, JuteError> {
    let id = reader.i64()?;
    let acl = Acl::decode(reader)?;
    Ok(sink.acl(id, acl))
}

/// `None` at the end of the nodes.
#[inline]
pub(super) fn node(
    reader: &mut Reader<'_>,
    sink: &mut dyn LoadSink,
) -> Result<Option<Result<(), String>>, JuteError> {
    let path = reader.string()?.unwrap_or_default();
    if path == END_OF_NODES {
        return Ok(None);
    }
    let data = reader.buffer()?;
    let acl = reader.i64()?;
    let stat = StatPersisted::decode(reader)?;
    Ok(Some(sink.node(&path, data, acl, &stat)))
}
