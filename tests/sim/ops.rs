//! Requests that own what they name, and the access lists they carry.

use std::borrow::Cow;
use std::sync::OnceLock;

use ringkeeper::client::{ACL_OPEN, ACL_READ, Conversation, Request, SetWatches, WatchMode, WatchType};
use ringkeeper::config::DigestAlgorithm;
use ringkeeper::proto::client::OpCode;
use ringkeeper::proto::{AclEntry, Perms};
use ringkeeper::request::auth::digest_id;
use ringkeeper::types::Zxid;

/// Users that clients authenticate as.
pub const USERS: usize = 2;

/// The access lists in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    Open,
    /// Anyone may read.
    Read,
    /// One user may do anything.
    Owned(usize),
    /// One user may do anything, all others read.
    OwnedRead(usize),
}

/// What a connection has authenticated as: a bit for each user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Users(pub u8);

impl Users {
    pub fn has(self, user: usize) -> bool {
        self.0 & (1 << user) != 0
    }
}

impl List {
    pub fn allows(self, wanted: Perms, users: Users) -> bool {
        match self {
            List::Open => true,
            List::Read => Perms::READ.meets(wanted),
            List::Owned(user) => users.has(user),
            List::OwnedRead(user) => users.has(user) || Perms::READ.meets(wanted),
        }
    }

    pub fn entries(self) -> &'static [AclEntry<'static>] {
        static OWNED: OnceLock<Vec<Vec<AclEntry<'static>>>> = OnceLock::new();
        let lists = OWNED.get_or_init(|| {
            let owner = |user: usize| AclEntry {
                perms: Perms::ALL,
                scheme: Some(Cow::Borrowed("digest")),
                id: Some(Cow::Owned(digest_id(DigestAlgorithm::Sha1, &credentials(user)))),
            };
            (0..USERS).flat_map(|user| [vec![owner(user)], vec![owner(user), ACL_READ[0].clone()]]).collect()
        });
        match self {
            List::Open => ACL_OPEN,
            List::Read => ACL_READ,
            List::Owned(user) => &lists[2 * user],
            List::OwnedRead(user) => &lists[2 * user + 1],
        }
    }

    /// As getACL shows it: hashes only to those who may change the list.
    pub fn shown_to(self, users: Users) -> Vec<AclEntry<'static>> {
        let mut entries = self.entries().to_vec();
        if !self.allows(Perms::ADMIN, users) {
            for entry in entries.iter_mut().filter(|entry| entry.scheme.as_deref() == Some("digest")) {
                let user = entry.id.as_deref().and_then(|id| id.split_once(':')).map(|(user, _)| user);
                entry.id = Some(Cow::Owned(format!("{}:x", user.expect("digest ids have a user"))));
            }
        }
        entries
    }
}

pub fn credentials(user: usize) -> String {
    format!("user{user}:secret{user}")
}

/// Watches a client brings again after a reconnect.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rearm {
    pub zxid_seen: Zxid,
    pub data: Vec<String>,
    pub exist: Vec<String>,
    pub child: Vec<String>,
    pub persistent: Vec<String>,
    pub recursive: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// create, create2, createContainer or createTTL.
    Create {
        op: OpCode,
        path: String,
        data: Option<Vec<u8>>,
        acl: List,
        flags: i32,
        ttl_ms: i64,
    },
    Delete {
        path: String,
        version: Option<i32>,
    },
    SetData {
        path: String,
        data: Option<Vec<u8>>,
        version: Option<i32>,
    },
    SetAcl {
        path: String,
        acl: List,
        version: Option<i32>,
    },
    /// Inside a multi only.
    Check {
        path: String,
        version: Option<i32>,
    },
    Multi(Vec<Op>),
    Exists {
        path: String,
        watch: bool,
    },
    GetData {
        path: String,
        watch: bool,
    },
    GetChildren {
        path: String,
        watch: bool,
    },
    GetChildren2 {
        path: String,
        watch: bool,
    },
    GetAcl {
        path: String,
    },
    Count {
        path: String,
    },
    GetEphemerals,
    AddWatch {
        path: String,
        recursive: bool,
    },
    RemoveWatches {
        path: String,
        kind: WatchType,
    },
    SetWatches(Rearm),
    Sync {
        path: String,
    },
    Ping,
    Auth {
        user: usize,
    },
    Close,
}

impl Op {
    pub fn is_write(&self) -> bool {
        use Op::*;
        matches!(self, Create { .. } | Delete { .. } | SetData { .. } | SetAcl { .. } | Multi(_) | Close)
    }

    /// Whether its reply tells of no state.
    pub fn is_outside(&self) -> bool {
        matches!(self, Op::Auth { .. })
    }

    /// Appends the request under `xid`, and has the conversation expect its reply.
    pub fn submit(&self, xid: i32, conversation: &mut Conversation, out: &mut Vec<u8>) {
        match self {
            Op::Multi(ops) => {
                let requests: Vec<Request<'_>> = ops.iter().map(Op::request).collect();
                conversation.submit_as(xid, &Request::Multi(&requests), out);
            }
            Op::SetWatches(rearm) => {
                let lists = [&rearm.data, &rearm.exist, &rearm.child, &rearm.persistent, &rearm.recursive];
                let [data, exist, child, persistent, recursive] =
                    lists.map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
                let zxid_seen = rearm.zxid_seen;
                let standard = SetWatches { zxid_seen, data: &data, exist: &exist, child: &child };
                let request =
                    Request::SetWatches2 { standard, persistent: &persistent, recursive: &recursive };
                conversation.submit_as(xid, &request, out);
            }
            Op::Auth { user } => {
                let credentials = credentials(*user);
                let request = Request::Auth { scheme: "digest", auth: Some(credentials.as_bytes()) };
                conversation.submit_as(xid, &request, out);
            }
            op => conversation.submit_as(xid, &op.request(), out),
        }
    }

    fn request(&self) -> Request<'_> {
        match self {
            Op::Create { op, path, data, acl, flags, ttl_ms } => Request::Create {
                op: *op,
                path,
                data: data.as_deref(),
                acl: Some(acl.entries()),
                flags: *flags,
                ttl_ms: *ttl_ms,
            },
            Op::Delete { path, version } => Request::Delete { path, version: *version },
            Op::SetData { path, data, version } => {
                Request::SetData { path, data: data.as_deref(), version: *version }
            }
            Op::SetAcl { path, acl, version } => {
                Request::SetAcl { path, acl: Some(acl.entries()), version: *version }
            }
            Op::Check { path, version } => Request::Check { path, version: *version },
            Op::Exists { path, watch } => Request::Exists { path, watch: *watch },
            Op::GetData { path, watch } => Request::GetData { path, watch: *watch },
            Op::GetChildren { path, watch } => Request::GetChildren { path, watch: *watch },
            Op::GetChildren2 { path, watch } => Request::GetChildren2 { path, watch: *watch },
            Op::GetAcl { path } => Request::GetAcl { path },
            Op::Count { path } => Request::GetAllChildrenNumber { path },
            Op::GetEphemerals => Request::GetEphemerals { prefix: None },
            Op::AddWatch { path, recursive } => {
                let mode = if *recursive { WatchMode::PersistentRecursive } else { WatchMode::Persistent };
                Request::AddWatch { path, mode }
            }
            Op::RemoveWatches { path, kind } => Request::RemoveWatches { path, watches: *kind },
            Op::Sync { path } => Request::Sync { path },
            Op::Ping => Request::Ping,
            Op::Close => Request::CloseSession,
            Op::Multi(_) | Op::SetWatches(_) | Op::Auth { .. } => {
                unreachable!("what they hold must live: see `submit`")
            }
        }
    }

    /// The type number in a multi's result.
    pub fn number(&self) -> i32 {
        self.request().op()
    }
}
