//! Transactions: what is proposed, logged and applied.
//!
//! An entry of the log is `TxnHeader{long session, int cxid, long zxid, long time_ms, int type}`, the record of that type, and
//! where digests are on `TxnDigest{int version, long tree_digest}`. Source: ZooKeeper `SerializeUtils`, `zookeeper.jute`.

use std::borrow::Cow;

use thiserror::Error;

use crate::jute::{JuteError, Reader, put_bool, put_buffer, put_i32, put_i64, put_string, put_strings};
use crate::proto::Acl;
use crate::types::{SessionId, Zxid};

/// The version of tree digests this server computes. Source: ZooKeeper `DigestCalculator.DIGEST_VERSION`.
pub const DIGEST_VERSION: i32 = 2;

/// Who asked for a transaction, and its place in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnHeader {
    pub session: SessionId,
    /// The client's xid.
    pub cxid: i32,
    pub zxid: Zxid,
    /// Wall clock of the server that prepared it, ms; becomes `ctime` and `mtime`.
    pub time_ms: i64,
    /// See [`Txn::type_number`].
    pub kind: i32,
}

impl TxnHeader {
    pub const BYTES: usize = 32;

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.session.0);
        put_i32(out, self.cxid);
        put_i64(out, self.zxid.0);
        put_i64(out, self.time_ms);
        put_i32(out, self.kind);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<TxnHeader, JuteError> {
        Ok(TxnHeader {
            session: SessionId(reader.i64()?),
            cxid: reader.i32()?,
            zxid: Zxid(reader.i64()?),
            time_ms: reader.i64()?,
            kind: reader.i32()?,
        })
    }
}

/// Numbers of transaction types.
pub mod kind {
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const SET_DATA: i32 = 5;
    pub const SET_ACL: i32 = 7;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
    pub const CREATE_SESSION: i32 = -10;
    pub const CLOSE_SESSION: i32 = -11;
    pub const ERROR: i32 = -1;
}

/// How a created node is stored, as its transaction says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateKind {
    /// Types 1 and 15; ephemeral nodes belong to the header's session.
    Plain {
        ephemeral: bool,
    },
    Container,
    Ttl {
        ttl_ms: i64,
    },
}

/// One change, borrowed from the bytes of its entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Txn<'a> {
    Create {
        path: Cow<'a, str>,
        data: Option<&'a [u8]>,
        acl: Acl<'a>,
        kind: CreateKind,
        /// The parent's cversion after this, as stored; -1 in very old logs: count up.
        parent_cversion: i32,
    },
    Delete {
        path: Cow<'a, str>,
    },
    SetData {
        path: Cow<'a, str>,
        data: Option<&'a [u8]>,
        version: i32,
    },
    SetAcl {
        path: Cow<'a, str>,
        acl: Acl<'a>,
        version: i32,
    },
    Check {
        path: Cow<'a, str>,
        version: i32,
    },
    Multi(MultiTxn<'a>),
    CreateSession {
        timeout_ms: i32,
    },
    /// `None`: an old server's, which names no paths.
    CloseSession {
        paths: Option<Vec<Cow<'a, str>>>,
    },
    Error {
        err: i32,
    },
}

/// The operations of a multi, checked when taken from bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MultiTxn<'a> {
    /// `vector<Txn{int type, buffer data}>`.
    bytes: &'a [u8],
}

impl<'a> MultiTxn<'a> {
    /// Each operation with its type number.
    pub fn ops(&self) -> impl Iterator<Item = (i32, Txn<'a>)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        let count = reader.count().expect("a checked multi").unwrap_or(0);
        (0..count).map(move |_| {
            let kind = reader.i32().expect("a checked multi");
            let body = reader.buffer().expect("a checked multi").unwrap_or(&[]);
            (kind, Txn::decode(kind, &mut Reader::new(body)).expect("a checked multi"))
        })
    }

    fn decode(reader: &mut Reader<'a>) -> Result<MultiTxn<'a>, TxnError> {
        let rest = reader.rest();
        let from = reader.offset();
        for _ in 0..reader.count()?.unwrap_or(0) {
            let kind = reader.i32()?;
            if kind == kind::MULTI {
                return Err(TxnError::NestedMulti);
            }
            Txn::decode(kind, &mut Reader::new(reader.buffer()?.unwrap_or(&[])))?;
        }
        Ok(MultiTxn { bytes: &rest[..reader.offset() - from] })
    }
}

/// Why the bytes of an entry are no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TxnError {
    #[error(transparent)]
    Jute(#[from] JuteError),
    #[error("transaction type {kind} is unknown")]
    UnknownType { kind: i32 },
    #[error("a {field} is null in a transaction")]
    Null { field: &'static str },
    #[error("a multi inside a multi")]
    NestedMulti,
}

impl<'a> Txn<'a> {
    pub fn decode(kind: i32, reader: &mut Reader<'a>) -> Result<Txn<'a>, TxnError> {
        Ok(match kind {
            kind::CREATE | kind::CREATE2 | kind::CREATE_CONTAINER | kind::CREATE_TTL => {
                let path = path(reader)?;
                let data = reader.buffer()?;
                let acl = Acl::decode(reader)?.ok_or(TxnError::Null { field: "acl" })?;
                let ephemeral =
                    if matches!(kind, kind::CREATE | kind::CREATE2) { reader.bool()? } else { false };
                // Logs of servers before 3.3 end here. Source: ZooKeeper `CreateTxnV0`.
                let parent_cversion = if reader.is_empty() { -1 } else { reader.i32()? };
                let kind = match kind {
                    kind::CREATE_CONTAINER => CreateKind::Container,
                    kind::CREATE_TTL => CreateKind::Ttl { ttl_ms: reader.i64()? },
                    _ => CreateKind::Plain { ephemeral },
                };
                Txn::Create { path, data, acl, kind, parent_cversion }
            }
            kind::DELETE | kind::DELETE_CONTAINER => Txn::Delete { path: path(reader)? },
            kind::SET_DATA | kind::RECONFIG => {
                Txn::SetData { path: path(reader)?, data: reader.buffer()?, version: reader.i32()? }
            }
            kind::SET_ACL => Txn::SetAcl {
                path: path(reader)?,
                acl: Acl::decode(reader)?.ok_or(TxnError::Null { field: "acl" })?,
                version: reader.i32()?,
            },
            kind::CHECK => Txn::Check { path: path(reader)?, version: reader.i32()? },
            kind::MULTI => Txn::Multi(MultiTxn::decode(reader)?),
            kind::CREATE_SESSION => Txn::CreateSession { timeout_ms: reader.i32()? },
            kind::CLOSE_SESSION => {
                if reader.is_empty() {
                    return Ok(Txn::CloseSession { paths: None });
                }
                let mut paths = Vec::new();
                for _ in 0..reader.count()?.unwrap_or(0) {
                    paths.push(path(reader)?);
                }
                Txn::CloseSession { paths: Some(paths) }
            }
            kind::ERROR => Txn::Error { err: reader.i32()? },
            kind => return Err(TxnError::UnknownType { kind }),
        })
    }
}

fn path<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, str>, TxnError> {
    reader.string()?.ok_or(TxnError::Null { field: "path" })
}

/// Bodies of transactions, as `prepare` writes them.
pub mod put {
    use super::*;

    pub fn create(
        out: &mut Vec<u8>,
        path: &str,
        data: Option<&[u8]>,
        acl: &[u8],
        kind: CreateKind,
        parent_cversion: i32,
    ) {
        put_string(out, path);
        put_buffer(out, data);
        out.extend_from_slice(acl);
        if let CreateKind::Plain { ephemeral } = kind {
            put_bool(out, ephemeral);
        }
        put_i32(out, parent_cversion);
        if let CreateKind::Ttl { ttl_ms } = kind {
            put_i64(out, ttl_ms);
        }
    }

    pub fn delete(out: &mut Vec<u8>, path: &str) {
        put_string(out, path);
    }

    pub fn set_data(out: &mut Vec<u8>, path: &str, data: Option<&[u8]>, version: i32) {
        put_string(out, path);
        put_buffer(out, data);
        put_i32(out, version);
    }

    pub fn set_acl(out: &mut Vec<u8>, path: &str, acl: &[u8], version: i32) {
        put_string(out, path);
        out.extend_from_slice(acl);
        put_i32(out, version);
    }

    pub fn check(out: &mut Vec<u8>, path: &str, version: i32) {
        put_string(out, path);
        put_i32(out, version);
    }

    pub fn create_session(out: &mut Vec<u8>, timeout_ms: i32) {
        put_i32(out, timeout_ms);
    }

    pub fn close_session<'p>(out: &mut Vec<u8>, paths: impl ExactSizeIterator<Item = &'p str>) {
        put_strings(out, paths);
    }

    pub fn error(out: &mut Vec<u8>, err: i32) {
        put_i32(out, err);
    }
}

/// The tree's digest after a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxnDigest {
    pub version: i32,
    pub tree_digest: u64,
}

impl TxnDigest {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.version);
        put_i64(out, self.tree_digest as i64);
    }
}

/// A whole entry: header, transaction, and the digest where there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnEntry<'a> {
    pub header: TxnHeader,
    pub txn: Txn<'a>,
    pub digest: Option<TxnDigest>,
}

impl<'a> TxnEntry<'a> {
    /// Only the header; `None` where not even that is there.
    pub fn header(bytes: &[u8]) -> Option<TxnHeader> {
        TxnHeader::decode(&mut Reader::new(bytes)).ok()
    }

    pub fn decode(bytes: &'a [u8]) -> Result<TxnEntry<'a>, TxnError> {
        let mut reader = Reader::new(bytes);
        let header = TxnHeader::decode(&mut reader)?;
        let txn = Txn::decode(header.kind, &mut reader)?;
        let digest = if reader.is_empty() {
            None
        } else {
            Some(TxnDigest { version: reader.i32()?, tree_digest: reader.i64()? as u64 })
        };
        Ok(TxnEntry { header, txn, digest })
    }
}
