//! The client protocol: handshake, headers, requests, replies.
//!
//! A frame is `int length` and as many bytes. The first in each direction is a ConnectRequest and a ConnectResponse without a
//! header; later ones begin with a [`RequestHeader`] (8 bytes) or a reply header (16 bytes: xid, zxid, err).

use std::borrow::Cow;

use crate::jute::{JuteError, Reader, put_bool, put_buffer, put_i32, put_i64, put_string};
use crate::proto::{Acl, ErrorCode};
use crate::types::{SessionId, Zxid};

/// xid of a notification.
pub const XID_NOTIFICATION: i32 = -1;
/// xid of every ping's reply, whatever the request's was.
pub const XID_PING: i32 = -2;
/// xid clients give their auth packets.
pub const XID_AUTH: i32 = -4;
/// xid the C client gives its setWatches.
pub const XID_SET_WATCHES: i32 = -8;

/// Bytes in a session's password.
pub const PASSWORD_BYTES: usize = 16;

/// Numbers of the requests. Source: ZooKeeper `ZooDefs.OpCode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum OpCode {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetAcl = 6,
    SetAcl = 7,
    GetChildren = 8,
    Sync = 9,
    Ping = 11,
    GetChildren2 = 12,
    Check = 13,
    Multi = 14,
    Create2 = 15,
    Reconfig = 16,
    CheckWatches = 17,
    RemoveWatches = 18,
    CreateContainer = 19,
    DeleteContainer = 20,
    CreateTtl = 21,
    MultiRead = 22,
    Auth = 100,
    SetWatches = 101,
    Sasl = 102,
    GetEphemerals = 103,
    GetAllChildrenNumber = 104,
    SetWatches2 = 105,
    AddWatch = 106,
    WhoAmI = 107,
    CreateSession = -10,
    CloseSession = -11,
    Error = -1,
}

impl OpCode {
    pub fn of(number: i32) -> Option<OpCode> {
        use OpCode::*;
        Some(match number {
            1 => Create,
            2 => Delete,
            3 => Exists,
            4 => GetData,
            5 => SetData,
            6 => GetAcl,
            7 => SetAcl,
            8 => GetChildren,
            9 => Sync,
            11 => Ping,
            12 => GetChildren2,
            13 => Check,
            14 => Multi,
            15 => Create2,
            16 => Reconfig,
            17 => CheckWatches,
            18 => RemoveWatches,
            19 => CreateContainer,
            20 => DeleteContainer,
            21 => CreateTtl,
            22 => MultiRead,
            100 => Auth,
            101 => SetWatches,
            102 => Sasl,
            103 => GetEphemerals,
            104 => GetAllChildrenNumber,
            105 => SetWatches2,
            106 => AddWatch,
            107 => WhoAmI,
            -10 => CreateSession,
            -11 => CloseSession,
            -1 => Error,
            _ => return None,
        })
    }

    pub fn number(self) -> i32 {
        self as i32
    }
}

/// What a client opens a connection with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectRequest<'a> {
    pub protocol_version: i32,
    pub zxid_seen: Zxid,
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: Option<&'a [u8]>,
    /// `None` from clients before 3.4, whose answer lacks the byte as well.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// Trailing bytes are ignored. Source: ZooKeeper `ProtocolManager#deserializeConnectRequest`.
    pub fn decode(payload: &'a [u8]) -> Result<ConnectRequest<'a>, JuteError> {
        let mut reader = Reader::new(payload);
        Ok(ConnectRequest {
            protocol_version: reader.i32()?,
            zxid_seen: Zxid(reader.i64()?),
            timeout_ms: reader.i32()?,
            session: SessionId(reader.i64()?),
            password: reader.buffer()?,
            read_only: if reader.is_empty() { None } else { Some(reader.bool()?) },
        })
    }

    pub fn encode_frame(&self, out: &mut Vec<u8>) {
        let frame = Frame::begin(out);
        put_i32(out, self.protocol_version);
        put_i64(out, self.zxid_seen.0);
        put_i32(out, self.timeout_ms);
        put_i64(out, self.session.0);
        put_buffer(out, self.password);
        if let Some(read_only) = self.read_only {
            put_bool(out, read_only);
        }
        frame.end(out);
    }
}

/// The answer to a [`ConnectRequest`]. Refused: timeout and session are both zero, and so is the password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectResponse {
    pub timeout_ms: i32,
    pub session: SessionId,
    pub password: [u8; PASSWORD_BYTES],
    /// As the request had it or not.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    pub fn refused(read_only: Option<bool>) -> ConnectResponse {
        ConnectResponse { timeout_ms: 0, session: SessionId::NONE, password: [0; PASSWORD_BYTES], read_only }
    }

    pub fn encode_frame(&self, out: &mut Vec<u8>) {
        let frame = Frame::begin(out);
        put_i32(out, 0);
        put_i32(out, self.timeout_ms);
        put_i64(out, self.session.0);
        put_buffer(out, Some(&self.password));
        if let Some(read_only) = self.read_only {
            put_bool(out, read_only);
        }
        frame.end(out);
    }

    pub fn decode(payload: &[u8]) -> Result<ConnectResponse, JuteError> {
        let mut reader = Reader::new(payload);
        reader.i32()?;
        let timeout_ms = reader.i32()?;
        let session = SessionId(reader.i64()?);
        let mut password = [0; PASSWORD_BYTES];
        let offset = reader.offset();
        let bytes = reader.buffer()?.unwrap_or(&[]);
        if bytes.len() != PASSWORD_BYTES {
            return Err(JuteError::Length { offset, length: bytes.len() as i32 });
        }
        password.copy_from_slice(bytes);
        let read_only = if reader.is_empty() { None } else { Some(reader.bool()?) };
        Ok(ConnectResponse { timeout_ms, session, password, read_only })
    }
}

/// A frame being written: the length goes in when it ends.
#[derive(Debug)]
#[must_use]
pub struct Frame {
    offset: usize,
}

impl Frame {
    #[inline]
    pub fn begin(out: &mut Vec<u8>) -> Frame {
        let offset = out.len();
        put_i32(out, 0);
        Frame { offset }
    }

    /// Begins a reply: length, then the reply header.
    #[inline]
    pub fn begin_reply(out: &mut Vec<u8>, xid: i32, zxid: Zxid, err: ErrorCode) -> Frame {
        let frame = Frame::begin(out);
        put_i32(out, xid);
        put_i64(out, zxid.0);
        put_i32(out, err.code());
        frame
    }

    /// Begins a request: length, then the request header.
    pub fn begin_request(out: &mut Vec<u8>, xid: i32, op: i32) -> Frame {
        let frame = Frame::begin(out);
        put_i32(out, xid);
        put_i32(out, op);
        frame
    }

    #[inline]
    pub fn end(self, out: &mut [u8]) {
        let length = i32::try_from(out.len() - self.offset - 4).expect("a frame is shorter than 2 GiB");
        out[self.offset..self.offset + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Forgets the frame and all that was written of it.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.offset);
    }
}

/// xid and type of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    pub xid: i32,
    /// Not checked: see [`OpCode::of`].
    pub op: i32,
}

impl RequestHeader {
    pub const BYTES: usize = 8;

    #[inline]
    pub fn decode(reader: &mut Reader<'_>) -> Result<RequestHeader, JuteError> {
        Ok(RequestHeader { xid: reader.i32()?, op: reader.i32()? })
    }
}

/// How a znode is to be made. An enumeration, not bits. Source: ZooKeeper `CreateMode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum CreateMode {
    Persistent = 0,
    Ephemeral = 1,
    PersistentSequential = 2,
    EphemeralSequential = 3,
    Container = 4,
    PersistentTtl = 5,
    PersistentSequentialTtl = 6,
}

impl CreateMode {
    pub fn of(flags: i32) -> Option<CreateMode> {
        use CreateMode::*;
        Some(match flags {
            0 => Persistent,
            1 => Ephemeral,
            2 => PersistentSequential,
            3 => EphemeralSequential,
            4 => Container,
            5 => PersistentTtl,
            6 => PersistentSequentialTtl,
            _ => return None,
        })
    }

    pub fn is_sequential(self) -> bool {
        matches!(
            self,
            CreateMode::PersistentSequential | CreateMode::EphemeralSequential | CreateMode::PersistentSequentialTtl
        )
    }

    pub fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }

    pub fn is_ttl(self) -> bool {
        matches!(self, CreateMode::PersistentTtl | CreateMode::PersistentSequentialTtl)
    }
}

/// create, create2, createContainer, createTTL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateRequest<'a> {
    pub path: Option<Cow<'a, str>>,
    pub data: Option<&'a [u8]>,
    pub acl: Option<Acl<'a>>,
    pub flags: i32,
    /// createTTL only.
    pub ttl_ms: Option<i64>,
}

impl<'a> CreateRequest<'a> {
    pub fn decode(reader: &mut Reader<'a>, op: OpCode) -> Result<CreateRequest<'a>, JuteError> {
        Ok(CreateRequest {
            path: reader.string()?,
            data: reader.buffer()?,
            acl: Acl::decode(reader)?,
            flags: reader.i32()?,
            ttl_ms: if op == OpCode::CreateTtl { Some(reader.i64()?) } else { None },
        })
    }
}

/// delete and check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionRequest<'a> {
    pub path: Option<Cow<'a, str>>,
    /// `None`, -1 on the wire, is any version.
    pub version: Option<i32>,
}

impl<'a> VersionRequest<'a> {
    pub fn decode(reader: &mut Reader<'a>) -> Result<VersionRequest<'a>, JuteError> {
        Ok(VersionRequest { path: reader.string()?, version: version(reader)? })
    }
}

/// setData.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetDataRequest<'a> {
    pub path: Option<Cow<'a, str>>,
    pub data: Option<&'a [u8]>,
    pub version: Option<i32>,
}

impl<'a> SetDataRequest<'a> {
    pub fn decode(reader: &mut Reader<'a>) -> Result<SetDataRequest<'a>, JuteError> {
        Ok(SetDataRequest { path: reader.string()?, data: reader.buffer()?, version: version(reader)? })
    }
}

/// setACL; the version is the aversion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAclRequest<'a> {
    pub path: Option<Cow<'a, str>>,
    pub acl: Option<Acl<'a>>,
    pub version: Option<i32>,
}

impl<'a> SetAclRequest<'a> {
    pub fn decode(reader: &mut Reader<'a>) -> Result<SetAclRequest<'a>, JuteError> {
        Ok(SetAclRequest { path: reader.string()?, acl: Acl::decode(reader)?, version: version(reader)? })
    }
}

/// exists, getData, getChildren, getChildren2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadRequest<'a> {
    pub path: Option<Cow<'a, str>>,
    pub watch: bool,
}

impl<'a> ReadRequest<'a> {
    #[inline]
    pub fn decode(reader: &mut Reader<'a>) -> Result<ReadRequest<'a>, JuteError> {
        Ok(ReadRequest { path: reader.string()?, watch: reader.bool()? })
    }
}

/// One step through a multi: `int type, bool done, int err`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MultiHeader {
    pub op: i32,
    pub done: bool,
    pub err: i32,
}

impl MultiHeader {
    pub const END: MultiHeader = MultiHeader { op: -1, done: true, err: -1 };

    pub fn decode(reader: &mut Reader<'_>) -> Result<MultiHeader, JuteError> {
        Ok(MultiHeader { op: reader.i32()?, done: reader.bool()?, err: reader.i32()? })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.op);
        put_bool(out, self.done);
        put_i32(out, self.err);
    }
}

/// What a watch saw. Source: ZooKeeper `Watcher.Event.EventType`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(i32)]
pub enum EventType {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

/// Appends a notification. `zxid` is that of the change, or -1 for a catch-up event.
pub fn put_notification(out: &mut Vec<u8>, zxid: Zxid, event: EventType, path: &str) {
    let frame = Frame::begin_reply(out, XID_NOTIFICATION, zxid, ErrorCode::Ok);
    put_i32(out, event as i32);
    put_i32(out, 3);
    put_string(out, path);
    frame.end(out);
}

fn version(reader: &mut Reader<'_>) -> Result<Option<i32>, JuteError> {
    Ok(match reader.i32()? {
        -1 => None,
        version => Some(version),
    })
}
