//! Requests as a client writes them.

use std::borrow::Cow;

use crate::jute::{put_bool, put_buffer, put_i32, put_i64, put_string, put_strings};
use crate::proto::acl::encode_list;
use crate::proto::client::{CreateMode, Frame, MultiHeader, OpCode};
use crate::proto::{AclEntry, Perms};
use crate::types::Zxid;

/// `world:anyone` with every permission.
pub const ACL_OPEN: &[AclEntry<'static>] = &[AclEntry {
    perms: Perms::ALL,
    scheme: Some(Cow::Borrowed("world")),
    id: Some(Cow::Borrowed("anyone")),
}];

/// `world:anyone` with READ.
pub const ACL_READ: &[AclEntry<'static>] = &[AclEntry {
    perms: Perms::READ,
    scheme: Some(Cow::Borrowed("world")),
    id: Some(Cow::Borrowed("anyone")),
}];

/// One request, or one operation of a multi. A version of `None` is any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// create, create2, createContainer or createTTL, as `op` says; `ttl_ms` is sent by createTTL only.
    ///
    /// `flags` is a number and not a [`CreateMode`], so that a test can send others.
    Create {
        op: OpCode,
        path: &'a str,
        data: Option<&'a [u8]>,
        acl: Option<&'a [AclEntry<'a>]>,
        flags: i32,
        ttl_ms: i64,
    },
    Delete {
        path: &'a str,
        version: Option<i32>,
    },
    Exists {
        path: &'a str,
        watch: bool,
    },
    GetData {
        path: &'a str,
        watch: bool,
    },
    SetData {
        path: &'a str,
        data: Option<&'a [u8]>,
        version: Option<i32>,
    },
    GetAcl {
        path: &'a str,
    },
    SetAcl {
        path: &'a str,
        acl: Option<&'a [AclEntry<'a>]>,
        version: Option<i32>,
    },
    GetChildren {
        path: &'a str,
        watch: bool,
    },
    GetChildren2 {
        path: &'a str,
        watch: bool,
    },
    Sync {
        path: &'a str,
    },
    Ping,
    /// Only inside a multi do servers accept it.
    Check {
        path: &'a str,
        version: Option<i32>,
    },
    Multi(&'a [Request<'a>]),
    /// Of [`Request::GetData`] and [`Request::GetChildren`]; their watch flag is ignored there.
    MultiRead(&'a [Request<'a>]),
    Reconfig {
        joining: Option<&'a str>,
        leaving: Option<&'a str>,
        new_members: Option<&'a str>,
        config_id: i64,
    },
    CheckWatches {
        path: &'a str,
        watches: WatchType,
    },
    RemoveWatches {
        path: &'a str,
        watches: WatchType,
    },
    SetWatches(SetWatches<'a>),
    /// As [`Request::SetWatches`], with the persistent kinds as well.
    SetWatches2 {
        standard: SetWatches<'a>,
        persistent: &'a [&'a str],
        recursive: &'a [&'a str],
    },
    AddWatch {
        path: &'a str,
        mode: WatchMode,
    },
    Auth {
        scheme: &'a str,
        auth: Option<&'a [u8]>,
    },
    Sasl {
        token: Option<&'a [u8]>,
    },
    GetEphemerals {
        prefix: Option<&'a str>,
    },
    GetAllChildrenNumber {
        path: &'a str,
    },
    WhoAmI,
    CloseSession,
    /// Any type number with any body, for tests of bad input.
    Raw {
        op: i32,
        body: &'a [u8],
    },
}

/// Watches to arm again after a reconnect, and the last zxid their owner has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetWatches<'a> {
    pub zxid_seen: Zxid,
    pub data: &'a [&'a str],
    pub exist: &'a [&'a str],
    pub child: &'a [&'a str],
}

/// Source: ZooKeeper `AddWatchMode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum WatchMode {
    Persistent = 0,
    PersistentRecursive = 1,
}

/// Which watches checkWatches and removeWatches speak of. Source: ZooKeeper `Watcher.WatcherType`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum WatchType {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    PersistentRecursive = 5,
}

impl<'a> Request<'a> {
    /// create with an open ACL; containers and TTL nodes have opcodes of their own.
    pub fn create(path: &'a str, data: &'a [u8], mode: CreateMode) -> Request<'a> {
        let op = match mode {
            CreateMode::Container => OpCode::CreateContainer,
            CreateMode::PersistentTtl | CreateMode::PersistentSequentialTtl => OpCode::CreateTtl,
            _ => OpCode::Create,
        };
        Request::Create { op, path, data: Some(data), acl: Some(ACL_OPEN), flags: mode as i32, ttl_ms: 0 }
    }

    /// The type number in the request header.
    pub fn op(&self) -> i32 {
        let op = match self {
            Request::Create { op, .. } => *op,
            Request::Delete { .. } => OpCode::Delete,
            Request::Exists { .. } => OpCode::Exists,
            Request::GetData { .. } => OpCode::GetData,
            Request::SetData { .. } => OpCode::SetData,
            Request::GetAcl { .. } => OpCode::GetAcl,
            Request::SetAcl { .. } => OpCode::SetAcl,
            Request::GetChildren { .. } => OpCode::GetChildren,
            Request::GetChildren2 { .. } => OpCode::GetChildren2,
            Request::Sync { .. } => OpCode::Sync,
            Request::Ping => OpCode::Ping,
            Request::Check { .. } => OpCode::Check,
            Request::Multi(_) => OpCode::Multi,
            Request::MultiRead(_) => OpCode::MultiRead,
            Request::Reconfig { .. } => OpCode::Reconfig,
            Request::CheckWatches { .. } => OpCode::CheckWatches,
            Request::RemoveWatches { .. } => OpCode::RemoveWatches,
            Request::SetWatches(_) => OpCode::SetWatches,
            Request::SetWatches2 { .. } => OpCode::SetWatches2,
            Request::AddWatch { .. } => OpCode::AddWatch,
            Request::Auth { .. } => OpCode::Auth,
            Request::Sasl { .. } => OpCode::Sasl,
            Request::GetEphemerals { .. } => OpCode::GetEphemerals,
            Request::GetAllChildrenNumber { .. } => OpCode::GetAllChildrenNumber,
            Request::WhoAmI => OpCode::WhoAmI,
            Request::CloseSession => OpCode::CloseSession,
            Request::Raw { op, .. } => return *op,
        };
        op.number()
    }

    /// Appends the whole frame: length, xid, type, record.
    pub fn encode_frame(&self, xid: i32, out: &mut Vec<u8>) {
        let frame = Frame::begin_request(out, xid, self.op());
        self.encode_body(out);
        frame.end(out);
    }

    /// Appends the record alone.
    pub fn encode_body(&self, out: &mut Vec<u8>) {
        match *self {
            Request::Create { op, path, data, acl, flags, ttl_ms } => {
                put_string(out, path);
                put_buffer(out, data);
                put_acl(out, acl);
                put_i32(out, flags);
                if op == OpCode::CreateTtl {
                    put_i64(out, ttl_ms);
                }
            }
            Request::Delete { path, version } | Request::Check { path, version } => {
                put_string(out, path);
                put_i32(out, version.unwrap_or(-1));
            }
            Request::Exists { path, watch }
            | Request::GetData { path, watch }
            | Request::GetChildren { path, watch }
            | Request::GetChildren2 { path, watch } => {
                put_string(out, path);
                put_bool(out, watch);
            }
            Request::SetData { path, data, version } => {
                put_string(out, path);
                put_buffer(out, data);
                put_i32(out, version.unwrap_or(-1));
            }
            Request::SetAcl { path, acl, version } => {
                put_string(out, path);
                put_acl(out, acl);
                put_i32(out, version.unwrap_or(-1));
            }
            Request::GetAcl { path } | Request::Sync { path } | Request::GetAllChildrenNumber { path } => {
                put_string(out, path);
            }
            Request::Ping | Request::WhoAmI | Request::CloseSession => {}
            Request::Multi(ops) | Request::MultiRead(ops) => {
                for op in ops {
                    MultiHeader { op: op.op(), done: false, err: -1 }.encode(out);
                    op.encode_body(out);
                }
                MultiHeader::END.encode(out);
            }
            Request::Reconfig { joining, leaving, new_members, config_id } => {
                for list in [joining, leaving, new_members] {
                    put_buffer(out, list.map(str::as_bytes));
                }
                put_i64(out, config_id);
            }
            Request::CheckWatches { path, watches } | Request::RemoveWatches { path, watches } => {
                put_string(out, path);
                put_i32(out, watches as i32);
            }
            Request::SetWatches(standard) => standard.encode(out),
            Request::SetWatches2 { standard, persistent, recursive } => {
                standard.encode(out);
                put_strings(out, persistent.iter().copied());
                put_strings(out, recursive.iter().copied());
            }
            Request::AddWatch { path, mode } => {
                put_string(out, path);
                put_i32(out, mode as i32);
            }
            Request::Auth { scheme, auth } => {
                put_i32(out, 0);
                put_string(out, scheme);
                put_buffer(out, auth);
            }
            Request::Sasl { token } => put_buffer(out, token),
            Request::GetEphemerals { prefix } => put_buffer(out, prefix.map(str::as_bytes)),
            Request::Raw { body, .. } => out.extend_from_slice(body),
        }
    }
}

impl SetWatches<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.zxid_seen.0);
        for list in [self.data, self.exist, self.child] {
            put_strings(out, list.iter().copied());
        }
    }
}

fn put_acl(out: &mut Vec<u8>, acl: Option<&[AclEntry<'_>]>) {
    match acl {
        None => put_i32(out, -1),
        Some(entries) => encode_list(entries, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::Reader;
    use crate::proto::client::CreateRequest;

    #[test]
    fn server_reads_a_create_as_it_was_meant() {
        let request = Request::Create {
            op: OpCode::CreateTtl,
            path: "/t",
            data: None,
            acl: Some(ACL_READ),
            flags: CreateMode::PersistentTtl as i32,
            ttl_ms: 77,
        };
        let mut body = Vec::new();
        request.encode_body(&mut body);
        let read = CreateRequest::decode(&mut Reader::new(&body), OpCode::CreateTtl).unwrap();
        assert_eq!(read.path.as_deref(), Some("/t"));
        assert_eq!(read.data, None);
        assert_eq!(read.acl.unwrap().entries().collect::<Vec<_>>(), ACL_READ);
        assert_eq!((read.flags, read.ttl_ms), (5, Some(77)));
    }

    #[test]
    fn null_lists_are_minus_one() {
        let mut body = Vec::new();
        Request::SetAcl { path: "/", acl: None, version: None }.encode_body(&mut body);
        assert_eq!(body, b"\0\0\0\x01/\xff\xff\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn watches_are_five_counted_lists() {
        let mut body = Vec::new();
        let standard = SetWatches { zxid_seen: Zxid(3), data: &["/d"], exist: &[], child: &["/c"] };
        Request::SetWatches2 { standard, persistent: &["/p"], recursive: &["/r"] }.encode_body(&mut body);
        let mut reader = Reader::new(&body);
        assert_eq!(reader.i64(), Ok(3));
        for expected in [Some("/d"), None, Some("/c"), Some("/p"), Some("/r")] {
            assert_eq!(reader.count(), Ok(Some(usize::from(expected.is_some()))));
            if expected.is_some() {
                assert_eq!(reader.string().unwrap().as_deref(), expected);
            }
        }
        assert!(reader.is_empty());
    }
}
