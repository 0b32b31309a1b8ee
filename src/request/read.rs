//! Reads: from a request's body and a view of the tree to a reply's body.
//!
//! A view is the writer's own tree or a front's borrowed look at it; which of the two is all the same here. What is appended to `out`
//! is valid for the state the view shows; the caller makes sure that is one state.

use std::borrow::Cow;

use crate::jute::{JuteError, Reader, put_buffer, put_i32, put_string};
use crate::proto::client::{MultiHeader, OpCode, ReadRequest};
use crate::proto::{Acl, ErrorCode, Perms, Stat};
use crate::request::auth::{self, AuthOptions, Identities};
use crate::request::multi::{self, ReadOp};
use crate::tree::{AclId, NodeId, PinnedData, Tree, View};
use crate::watch::WatchMode;

/// What a read needs of a tree.
pub trait ReadView {
    fn find(&self, path: &str) -> Option<NodeId>;
    fn wire_stat(&self, node: NodeId) -> Stat;
    fn data(&self, node: NodeId) -> Option<&[u8]>;
    fn acl(&self, node: NodeId) -> AclId;
    fn acl_list(&self, acl: AclId) -> Acl<'_>;
    fn child_count(&self, node: NodeId) -> usize;
    fn descendant_count(&self, node: NodeId) -> usize;
    fn for_each_child(&self, node: NodeId, each: &mut dyn FnMut(&str));
}

impl ReadView for Tree {
    fn find(&self, path: &str) -> Option<NodeId> {
        Tree::find(self, path)
    }
    fn wire_stat(&self, node: NodeId) -> Stat {
        let data_bytes = Tree::data(self, node).map_or(0, <[u8]>::len);
        self.stat(node).to_wire(data_bytes, Tree::child_count(self, node))
    }
    fn data(&self, node: NodeId) -> Option<&[u8]> {
        Tree::data(self, node)
    }
    fn acl(&self, node: NodeId) -> AclId {
        Tree::acl(self, node)
    }
    fn acl_list(&self, acl: AclId) -> Acl<'_> {
        Tree::acl_list(self, acl)
    }
    fn child_count(&self, node: NodeId) -> usize {
        Tree::child_count(self, node)
    }
    fn descendant_count(&self, node: NodeId) -> usize {
        Tree::descendant_count(self, node)
    }
    fn for_each_child(&self, node: NodeId, each: &mut dyn FnMut(&str)) {
        for child in self.children(node) {
            each(self.name(child));
        }
    }
}

impl ReadView for View<'_> {
    fn find(&self, path: &str) -> Option<NodeId> {
        View::find(self, path)
    }
    fn wire_stat(&self, node: NodeId) -> Stat {
        View::wire_stat(self, node)
    }
    fn data(&self, node: NodeId) -> Option<&[u8]> {
        View::data(self, node)
    }
    fn acl(&self, node: NodeId) -> AclId {
        View::acl(self, node)
    }
    fn acl_list(&self, acl: AclId) -> Acl<'_> {
        View::acl_list(self, acl)
    }
    fn child_count(&self, node: NodeId) -> usize {
        View::child_count(self, node)
    }
    fn descendant_count(&self, node: NodeId) -> usize {
        View::descendant_count(self, node)
    }
    fn for_each_child(&self, node: NodeId, each: &mut dyn FnMut(&str)) {
        View::for_each_child(self, node, each);
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub identities: &'a Identities,
    pub options: &'a AuthOptions,
}

/// A read's end: its reply's error code, and the watch it leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadDone<'a> {
    pub result: Result<(), ErrorCode>,
    pub watch: Option<(Cow<'a, str>, WatchMode)>,
}

impl ReadDone<'_> {
    fn plain(result: Result<(), ErrorCode>) -> Self {
        ReadDone { result, watch: None }
    }
}

/// Whether [`serve`] knows the operation.
pub fn is_tree_read(op: OpCode) -> bool {
    use OpCode::*;
    matches!(op, Exists | GetData | GetAcl | GetChildren | GetChildren2 | GetAllChildrenNumber | MultiRead)
}

/// Serves one read of the tree: appends the reply's body to `out`, or nothing when it fails.
///
/// Panics for an operation that [`is_tree_read`] does not know.
#[inline]
pub fn serve<'a>(
    view: &impl ReadView,
    op: OpCode,
    body: &'a [u8],
    asker: Asker<'_>,
    out: &mut Vec<u8>,
) -> ReadDone<'a> {
    let from = out.len();
    let mut reader = Reader::new(body);
    let done = match op {
        OpCode::GetData => get_data(view, &mut reader, asker, |node| put_data(view, node, out)),
        OpCode::Exists => exists(view, &mut reader, asker, out),
        OpCode::GetChildren => get_children(view, &mut reader, asker, out, false),
        OpCode::GetChildren2 => get_children(view, &mut reader, asker, out, true),
        OpCode::GetAcl => Ok(ReadDone::plain(get_acl(view, &mut reader, asker, out))),
        OpCode::GetAllChildrenNumber => {
            Ok(ReadDone::plain(get_all_children_number(view, &mut reader, asker, out)))
        }
        OpCode::MultiRead => Ok(ReadDone::plain(multi_read(view, &mut reader, asker, out))),
        op => unreachable!("{op:?} is no read of the tree"),
    };
    let done = done.unwrap_or_else(|_| ReadDone::plain(Err(ErrorCode::MarshallingError)));
    if done.result.is_err() {
        out.truncate(from);
    }
    done
}

/// Serves getData. Data of `lend_bytes_min` bytes or more is not copied, if the tree can pin it, but left in `lent`, with the length
/// of `out` behind which it belongs; the length on the wire before it and the stat after it are in `out`.
#[inline]
pub fn serve_data<'a>(
    view: &View<'_>,
    body: &'a [u8],
    asker: Asker<'_>,
    lend_bytes_min: usize,
    out: &mut Vec<u8>,
    lent: &mut Option<(usize, PinnedData)>,
) -> ReadDone<'a> {
    let put = |node| {
        if View::data(view, node).is_some_and(|data| data.len() >= lend_bytes_min)
            && let Some(data) = view.pin(node)
        {
            put_i32(out, data.len() as i32);
            *lent = Some((out.len(), data));
            View::wire_stat(view, node).encode(out);
        } else {
            put_data(view, node, out);
        }
    };
    get_data(view, &mut Reader::new(body), asker, put)
        .unwrap_or_else(|_| ReadDone::plain(Err(ErrorCode::MarshallingError)))
}

#[inline]
fn get_data<'a>(
    view: &impl ReadView,
    reader: &mut Reader<'a>,
    asker: Asker<'_>,
    put: impl FnOnce(NodeId),
) -> Result<ReadDone<'a>, JuteError> {
    let request = ReadRequest::decode(reader)?;
    let result = readable(view, request.path.as_deref(), asker).map(put);
    Ok(watched(request, result, WatchMode::Data))
}

fn get_children<'a>(
    view: &impl ReadView,
    reader: &mut Reader<'a>,
    asker: Asker<'_>,
    out: &mut Vec<u8>,
    with_stat: bool,
) -> Result<ReadDone<'a>, JuteError> {
    let request = ReadRequest::decode(reader)?;
    let result = readable(view, request.path.as_deref(), asker).map(|node| {
        put_children(view, node, out);
        if with_stat {
            view.wire_stat(node).encode(out);
        }
    });
    Ok(watched(request, result, WatchMode::Child))
}

/// Registers its watch on a missing node too; a node that may not be read is not told of (client-protocol §12 #78).
fn exists<'a>(
    view: &impl ReadView,
    reader: &mut Reader<'a>,
    asker: Asker<'_>,
    out: &mut Vec<u8>,
) -> Result<ReadDone<'a>, JuteError> {
    let request = ReadRequest::decode(reader)?;
    if request.path.as_deref().is_some_and(|path| path.as_bytes().contains(&0)) {
        return Ok(ReadDone::plain(Err(ErrorCode::BadArguments)));
    }
    let result = readable(view, request.path.as_deref(), asker).map(|node| view.wire_stat(node).encode(out));
    let registers = request.watch && matches!(result, Ok(()) | Err(ErrorCode::NoNode));
    let watch = if registers { request.path.map(|path| (path, WatchMode::Data)) } else { None };
    Ok(ReadDone { result, watch })
}

/// The node whose children a request of getChildren asks for.
pub fn readable_parent(view: &impl ReadView, body: &[u8], asker: Asker<'_>) -> Result<NodeId, ErrorCode> {
    let request = ReadRequest::decode(&mut Reader::new(body)).map_err(|_| ErrorCode::MarshallingError)?;
    readable(view, request.path.as_deref(), asker)
}

fn get_acl(
    view: &impl ReadView,
    reader: &mut Reader<'_>,
    asker: Asker<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let path = reader.string().map_err(|_| ErrorCode::MarshallingError)?;
    let node = find(view, path.as_deref())?;
    let acl = view.acl(node);
    let list = view.acl_list(acl);
    if acl != AclId::OPEN
        && !auth::check_acl(list, Perms::READ | Perms::ADMIN, asker.identities, asker.options)
    {
        return Err(ErrorCode::NoAuth);
    }
    out.extend_from_slice(&auth::redact_for(list, asker.identities, asker.options));
    view.wire_stat(node).encode(out);
    Ok(())
}

fn get_all_children_number(
    view: &impl ReadView,
    reader: &mut Reader<'_>,
    asker: Asker<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let path = reader.string().map_err(|_| ErrorCode::MarshallingError)?;
    let node = readable(view, path.as_deref(), asker)?;
    // ZooKeeper keeps the root under two names and counts one of them below the other.
    let root_twice = usize::from(path.as_deref() == Some(""));
    put_i32(out, (view.descendant_count(node) + root_twice) as i32);
    Ok(())
}

/// Each operation fails alone.
fn multi_read(
    view: &impl ReadView,
    reader: &mut Reader<'_>,
    asker: Asker<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorCode> {
    let ops = multi::decode_reads(reader).map_err(|_| ErrorCode::MarshallingError)?;
    for op in &ops {
        let (number, request) = match op {
            ReadOp::GetData(request) => (OpCode::GetData, request),
            ReadOp::GetChildren(request) => (OpCode::GetChildren, request),
        };
        match readable(view, request.path.as_deref(), asker) {
            Ok(node) => {
                MultiHeader { op: number.number(), done: false, err: 0 }.encode(out);
                match op {
                    ReadOp::GetData(_) => put_data(view, node, out),
                    ReadOp::GetChildren(_) => put_children(view, node, out),
                }
            }
            Err(code) => {
                MultiHeader { op: OpCode::Error.number(), done: false, err: code.code() }.encode(out);
                put_i32(out, code.code());
            }
        }
    }
    MultiHeader::END.encode(out);
    Ok(())
}

fn find(view: &impl ReadView, path: Option<&str>) -> Result<NodeId, ErrorCode> {
    view.find(path.ok_or(ErrorCode::MarshallingError)?).ok_or(ErrorCode::NoNode)
}

#[inline]
fn readable(view: &impl ReadView, path: Option<&str>, asker: Asker<'_>) -> Result<NodeId, ErrorCode> {
    let node = find(view, path)?;
    let acl = view.acl(node);
    if acl != AclId::OPEN
        && !auth::check_acl(view.acl_list(acl), Perms::READ, asker.identities, asker.options)
    {
        return Err(ErrorCode::NoAuth);
    }
    Ok(node)
}

#[inline]
fn put_data(view: &impl ReadView, node: NodeId, out: &mut Vec<u8>) {
    put_buffer(out, view.data(node));
    view.wire_stat(node).encode(out);
}

fn put_children(view: &impl ReadView, node: NodeId, out: &mut Vec<u8>) {
    let at = out.len();
    put_i32(out, 0);
    let mut count = 0i32;
    view.for_each_child(node, &mut |name| {
        put_string(out, name);
        count += 1;
    });
    out[at..at + 4].copy_from_slice(&count.to_be_bytes());
}

/// A watch is left only where the node could be read.
#[inline]
fn watched(request: ReadRequest<'_>, result: Result<(), ErrorCode>, mode: WatchMode) -> ReadDone<'_> {
    let watch = if request.watch && result.is_ok() { request.path.map(|path| (path, mode)) } else { None };
    ReadDone { result, watch }
}
