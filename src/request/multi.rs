//! The operations of a multi, taken apart.
//!
//! A request is a run of `MultiHeader{type, done = false, err = -1}` and operation record, ended by a header that says done. The server
//! looks at type and done only. Whatever does not fit makes the whole request undecodable (client-protocol §5.1).

use thiserror::Error;

use crate::jute::{JuteError, Reader};
use crate::proto::client::{
    CreateMode, CreateRequest, MultiHeader, OpCode, ReadRequest, SetDataRequest, VersionRequest,
};

/// Why a multi as a whole is refused with `MarshallingError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MultiError {
    #[error(transparent)]
    Jute(#[from] JuteError),
    #[error("operation type {op} does not belong in this multi")]
    Op { op: i32 },
    #[error("create flags {flags} are not valid in a multi")]
    Flags { flags: i32 },
    #[error("a {field} is null")]
    Null { field: &'static str },
}

/// One operation of a writing multi.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteOp<'a> {
    Create { op: OpCode, request: CreateRequest<'a> },
    Delete(VersionRequest<'a>),
    SetData(SetDataRequest<'a>),
    Check(VersionRequest<'a>),
}

/// One operation of a multiRead; the watch flag is read and ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOp<'a> {
    GetData(ReadRequest<'a>),
    GetChildren(ReadRequest<'a>),
}

/// Takes a writing multi apart.
pub fn decode_writes<'a>(reader: &mut Reader<'a>) -> Result<Vec<WriteOp<'a>>, MultiError> {
    let mut ops = Vec::new();
    loop {
        let header = MultiHeader::decode(reader)?;
        if header.done {
            return Ok(ops);
        }
        ops.push(match OpCode::of(header.op) {
            Some(op @ (OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl)) => {
                let request = CreateRequest::decode(reader, op)?;
                WriteOp::Create { op: stored_op(op, &request)?, request }
            }
            Some(OpCode::Delete) => WriteOp::Delete(VersionRequest::decode(reader)?),
            Some(OpCode::SetData) => WriteOp::SetData(SetDataRequest::decode(reader)?),
            Some(OpCode::Check) => WriteOp::Check(VersionRequest::decode(reader)?),
            _ => return Err(MultiError::Op { op: header.op }),
        });
    }
}

/// Whether a write would make a node that ends with its session; what does not decode makes none.
/// Source: ZooKeeper `QuorumZooKeeperServer#checkUpgradeSession`.
pub fn makes_ephemeral(op: OpCode, body: &[u8]) -> bool {
    let mut reader = Reader::new(body);
    match op {
        OpCode::Create | OpCode::Create2 => {
            CreateRequest::decode(&mut reader, op).is_ok_and(|request| is_ephemeral(op, &request))
        }
        OpCode::Multi => decode_writes(&mut reader).is_ok_and(|ops| {
            let is_one = |op: &WriteOp<'_>| match op {
                WriteOp::Create { op, request } => is_ephemeral(*op, request),
                _ => false,
            };
            ops.iter().any(is_one)
        }),
        _ => false,
    }
}

/// Whether this create makes a node that ends with its session.
pub fn is_ephemeral(op: OpCode, request: &CreateRequest<'_>) -> bool {
    matches!(op, OpCode::Create | OpCode::Create2)
        && CreateMode::of(request.flags).is_some_and(CreateMode::is_ephemeral)
}

/// In a multi the flag takes part in the kind of node. Source: ZooKeeper `MultiOperationRecord#deserialize`, `Op.Create`.
fn stored_op(op: OpCode, request: &CreateRequest<'_>) -> Result<OpCode, MultiError> {
    let flags = request.flags;
    let mode = match CreateMode::of(flags) {
        Some(mode) => mode,
        // Only the others turn flags into a mode while they are being read; this one fails by itself.
        None if op == OpCode::CreateTtl => return Ok(OpCode::CreateTtl),
        None => return Err(MultiError::Flags { flags }),
    };
    if request.acl.is_none() {
        return Err(MultiError::Null { field: "acl" });
    }
    if request.path.is_none() {
        return Err(MultiError::Null { field: "path" });
    }
    match op {
        OpCode::CreateTtl if mode.is_ttl() => Ok(OpCode::CreateTtl),
        _ if mode.is_ttl() => Err(MultiError::Flags { flags }),
        _ if mode == CreateMode::Container => Ok(OpCode::CreateContainer),
        OpCode::CreateTtl => Ok(OpCode::Create),
        op => Ok(op),
    }
}

/// Takes a multiRead apart.
pub fn decode_reads<'a>(reader: &mut Reader<'a>) -> Result<Vec<ReadOp<'a>>, MultiError> {
    let mut ops = Vec::new();
    loop {
        let header = MultiHeader::decode(reader)?;
        if header.done {
            return Ok(ops);
        }
        let request = |reader: &mut Reader<'a>| -> Result<ReadRequest<'a>, MultiError> {
            let request = ReadRequest::decode(reader)?;
            if request.path.is_none() {
                return Err(MultiError::Null { field: "path" });
            }
            Ok(request)
        };
        ops.push(match OpCode::of(header.op) {
            Some(OpCode::GetData) => ReadOp::GetData(request(reader)?),
            Some(OpCode::GetChildren) => ReadOp::GetChildren(request(reader)?),
            _ => return Err(MultiError::Op { op: header.op }),
        });
    }
}
