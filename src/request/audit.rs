//! Lines of the audit log: who changed what, and whether it worked.
//!
//! `key=value` pairs joined by tabs, in the order session, user, ip, operation, znode, znode_type, acl, result; a pair
//! without a value is left out. What a client wrote cannot end a line or a pair: control characters become `\uXXXX`.
//! Source: ZooKeeper `AuditHelper`, `AuditEvent`, `ZKAuditProvider`; transcripts of 3.9.5.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::jute::Reader;
use crate::proto::client::{
    CreateMode, CreateRequest, OpCode, SetAclRequest, SetDataRequest, VersionRequest,
};
use crate::proto::txn::Txn;
use crate::proto::{Acl, Perms};
use crate::request::auth::{AuthOptions, Identities};
use crate::request::multi::{self, WriteOp};
use crate::types::SessionId;

/// Bytes of one value; longer ones are cut.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// One line, without the time in front and the newline at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    pub text: String,
    /// Failures are logged as errors.
    pub failed: bool,
}

/// What is to be told of a request once it is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The pairs every line of it begins with.
    who: String,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// As the client named them; a znode that was made may have got a longer name.
    One {
        operation: &'static str,
        path: String,
        mode: Option<CreateMode>,
        acl: Option<String>,
    },
    /// Modes of the znodes to make, by the paths asked for.
    Multi(BTreeMap<String, CreateMode>),
    Reconfig,
}

impl Audited {
    /// Looks at a write as it came. `None`: of this nothing is told, as its kind is not audited or it does not decode.
    pub fn of(
        session: SessionId,
        op: OpCode,
        body: &[u8],
        identities: &Identities,
        options: &AuthOptions,
    ) -> Option<Audited> {
        let what = What::of(op, body)?;
        let users: Vec<&str> = identities.who_am_i(options).into_iter().map(|(_, user)| user).collect();
        let users: Vec<&str> = users.into_iter().filter(|user| !user.trim().is_empty()).collect();
        let mut who = String::new();
        pair(&mut who, "session", &session.to_string());
        if !users.is_empty() {
            pair(&mut who, "user", &users.join(","));
        }
        pair(&mut who, "ip", &identities.address_text());
        Some(Audited { who, what })
    }

    /// What to tell now that its transaction is applied; `failed`: as an error that only applying found.
    pub fn lines(&self, txn: &Txn<'_>, failed: bool) -> Vec<AuditLine> {
        match (&self.what, txn) {
            (What::One { operation, path, mode, acl }, Txn::Error { .. }) => {
                vec![self.line(operation, Some(path), *mode, acl.as_deref(), true)]
            }
            (What::One { operation, path, mode, acl }, txn) => {
                let path = path_of(txn).unwrap_or(path);
                vec![self.line(operation, Some(path), *mode, acl.as_deref(), failed)]
            }
            (What::Multi(modes), Txn::Multi(multi)) if !failed => {
                let ops: Vec<(i32, Txn<'_>)> = multi.ops().collect();
                if ops.iter().any(|(_, txn)| matches!(txn, Txn::Error { .. })) {
                    return vec![self.line("multiOperation", None, None, None, true)];
                }
                // Checks and changes of lists inside a multi are not told. Source: `AuditHelper#logMultiOperation`.
                let told = ops.iter().filter_map(|(_, txn)| {
                    let operation = match txn {
                        Txn::Create { .. } => "create",
                        Txn::Delete { .. } => "delete",
                        Txn::SetData { .. } => "setData",
                        _ => return None,
                    };
                    let path = path_of(txn)?;
                    let mode = modes.get(path).copied().filter(|_| operation == "create");
                    Some(self.line(operation, Some(path), mode, None, false))
                });
                told.collect()
            }
            (What::Multi(_), _) => vec![self.line("multiOperation", None, None, None, true)],
            (What::Reconfig, txn) => {
                let failed = failed || matches!(txn, Txn::Error { .. });
                vec![self.line("reconfig", path_of(txn), None, None, failed)]
            }
        }
    }

    fn line(
        &self,
        operation: &str,
        path: Option<&str>,
        mode: Option<CreateMode>,
        acl: Option<&str>,
        failed: bool,
    ) -> AuditLine {
        let mut text = self.who.clone();
        pair(&mut text, "operation", operation);
        if let Some(path) = path {
            pair(&mut text, "znode", path);
        }
        if let Some(mode) = mode {
            pair(&mut text, "znode_type", mode_name(mode));
        }
        if let Some(acl) = acl {
            pair(&mut text, "acl", acl);
        }
        finish(text, failed)
    }
}

impl What {
    fn of(op: OpCode, body: &[u8]) -> Option<What> {
        let mut reader = Reader::new(body);
        let one = |operation, path: Option<std::borrow::Cow<'_, str>>, mode, acl| {
            Some(What::One { operation, path: path?.into_owned(), mode, acl })
        };
        match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let request = CreateRequest::decode(&mut reader, op).ok()?;
                // Of flags that mean nothing ZooKeeper tells nothing.
                one("create", request.path, Some(CreateMode::of(request.flags)?), None)
            }
            OpCode::Delete | OpCode::DeleteContainer => {
                one("delete", VersionRequest::decode(&mut reader).ok()?.path, None, None)
            }
            OpCode::SetData => one("setData", SetDataRequest::decode(&mut reader).ok()?.path, None, None),
            OpCode::SetAcl => {
                let request = SetAclRequest::decode(&mut reader).ok()?;
                one("setAcl", request.path, None, Some(acl_text(request.acl?)))
            }
            OpCode::Multi => {
                let ops = multi::decode_writes(&mut reader).ok()?;
                let modes = ops.into_iter().filter_map(|op| match op {
                    WriteOp::Create { op, request } if op != OpCode::CreateTtl => {
                        Some((request.path?.into_owned(), CreateMode::of(request.flags)?))
                    }
                    _ => None,
                });
                Some(What::Multi(modes.collect()))
            }
            OpCode::Reconfig => Some(What::Reconfig),
            _ => None,
        }
    }
}

/// An ephemeral znode went with its session. `user` is who runs the server.
/// Source: ZooKeeper `DataTree#deleteNodes`.
pub fn ephemeral_deleted(session: SessionId, user: &str, path: &str) -> AuditLine {
    let mut text = String::new();
    pair(&mut text, "session", &session.to_string());
    pair(&mut text, "user", user);
    pair(&mut text, "operation", "ephemeralZNodeDeletionOnSessionCloseOrExpire");
    pair(&mut text, "znode", path);
    finish(text, false)
}

/// What the server itself does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    Started,
    StartFailed,
    Stopping,
}

/// Source: ZooKeeper `ZKAuditProvider#addZKStartStopAuditLog`.
pub fn server_event(event: ServerEvent, user: &str) -> AuditLine {
    let (operation, result) = match event {
        ServerEvent::Started => ("serverStart", "success"),
        ServerEvent::StartFailed => ("serverStart", "failure"),
        ServerEvent::Stopping => ("serverStop", "invoked"),
    };
    let mut text = String::new();
    pair(&mut text, "user", user);
    pair(&mut text, "operation", operation);
    pair(&mut text, "result", result);
    AuditLine { text, failed: event == ServerEvent::StartFailed }
}

fn finish(mut text: String, failed: bool) -> AuditLine {
    pair(&mut text, "result", if failed { "failure" } else { "success" });
    AuditLine { text, failed }
}

fn pair(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push('\t');
    }
    out.push_str(key);
    out.push('=');
    let end = out.len() + VALUE_BYTES_MAX;
    for c in value.chars() {
        if out.len() + 8 > end {
            out.push_str("...");
            return;
        }
        if c.is_control() {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
}

fn path_of<'a>(txn: &'a Txn<'_>) -> Option<&'a str> {
    match txn {
        Txn::Create { path, .. }
        | Txn::Delete { path }
        | Txn::SetData { path, .. }
        | Txn::SetAcl { path, .. }
        | Txn::Check { path, .. } => Some(path),
        Txn::Multi(_) | Txn::CreateSession { .. } | Txn::CloseSession { .. } | Txn::Error { .. } => None,
    }
}

/// Source: ZooKeeper `CreateMode`, in small letters.
fn mode_name(mode: CreateMode) -> &'static str {
    match mode {
        CreateMode::Persistent => "persistent",
        CreateMode::Ephemeral => "ephemeral",
        CreateMode::PersistentSequential => "persistent_sequential",
        CreateMode::EphemeralSequential => "ephemeral_sequential",
        CreateMode::Container => "container",
        CreateMode::PersistentTtl => "persistent_with_ttl",
        CreateMode::PersistentSequentialTtl => "persistent_sequential_with_ttl",
    }
}

/// `scheme:id:perms` of each entry, with nothing between entries. Source: ZooKeeper `ZKUtil#aclToString`.
fn acl_text(acl: Acl<'_>) -> String {
    let mut text = String::new();
    for entry in acl.entries() {
        let part = |part: &Option<std::borrow::Cow<'_, str>>| part.as_deref().unwrap_or("null").to_owned();
        text.push_str(&format!("{}:{}:", part(&entry.scheme), part(&entry.id)));
        let letters = [
            (Perms::CREATE, 'c'),
            (Perms::DELETE, 'd'),
            (Perms::READ, 'r'),
            (Perms::WRITE, 'w'),
            (Perms::ADMIN, 'a'),
        ];
        text.extend(
            letters.into_iter().filter(|(perm, _)| entry.perms.meets(*perm)).map(|(_, letter)| letter),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Request;
    use crate::proto::AclEntry;

    fn audited(request: &Request<'_>) -> Audited {
        let mut body = Vec::new();
        request.encode_body(&mut body);
        let identities = Identities::new([127, 0, 0, 1].into());
        Audited::of(
            SessionId(0x10),
            OpCode::of(request.op()).unwrap(),
            &body,
            &identities,
            &AuthOptions::default(),
        )
        .unwrap()
    }

    fn texts(lines: Vec<AuditLine>) -> Vec<String> {
        lines.into_iter().map(|line| line.text.replace('\t', " ")).collect()
    }

    const WHO: &str = "session=0x10 user=127.0.0.1 ip=127.0.0.1";

    #[test]
    fn one_operation_is_one_line() {
        let create = Request::create("/q", b"", CreateMode::PersistentSequential);
        let made = Txn::SetData { path: "/q0000000001".into(), data: None, version: 0 };
        assert_eq!(
            texts(audited(&create).lines(&made, false)),
            [format!(
                "{WHO} operation=create znode=/q0000000001 znode_type=persistent_sequential result=success"
            )]
        );
        let refused = Txn::Error { err: -101 };
        let lines = audited(&create).lines(&refused, false);
        assert!(lines[0].failed);
        assert_eq!(
            texts(lines),
            [format!("{WHO} operation=create znode=/q znode_type=persistent_sequential result=failure")]
        );
        let acl = [
            AclEntry { perms: Perms(31), scheme: Some("auth".into()), id: Some("".into()) },
            AclEntry { perms: Perms(1), scheme: Some("world".into()), id: Some("anyone".into()) },
        ];
        let set_acl = Request::SetAcl { path: "/q", acl: Some(&acl), version: None };
        assert_eq!(
            texts(audited(&set_acl).lines(&refused, false)),
            [format!("{WHO} operation=setAcl znode=/q acl=auth::cdrwaworld:anyone:r result=failure")]
        );
    }

    #[test]
    fn a_failed_multi_is_one_line() {
        let ops = [Request::create("/a", b"", CreateMode::Persistent)];
        let lines = audited(&Request::Multi(&ops)).lines(&Txn::Error { err: -101 }, false);
        assert_eq!(texts(lines), [format!("{WHO} operation=multiOperation result=failure")]);
    }

    #[test]
    fn nothing_a_client_writes_forges_a_line() {
        let delete = Request::Delete { path: "/a\nb\tresult=success", version: None };
        let lines = audited(&delete).lines(&Txn::Error { err: -8 }, false);
        assert_eq!(
            lines[0].text,
            format!(
                "{}\toperation=delete\tznode=/a\\u000ab\\u0009result=success\tresult=failure",
                WHO.replace(' ', "\t")
            )
        );
        let long = "é".repeat(VALUE_BYTES_MAX);
        let delete = Request::Delete { path: &long, version: None };
        let line = &audited(&delete).lines(&Txn::Error { err: -8 }, false)[0].text;
        assert!(line.len() < VALUE_BYTES_MAX + 200 && line.contains("...\tresult=failure"));
    }

    #[test]
    fn what_is_not_audited_is_not_looked_at() {
        let identities = Identities::new([127, 0, 0, 1].into());
        let options = AuthOptions::default();
        for (op, body) in [
            (OpCode::GetData, &b""[..]),
            (OpCode::CloseSession, b""),
            (OpCode::Create, b"\0"),
            (OpCode::Multi, b"x"),
        ] {
            assert_eq!(Audited::of(SessionId(1), op, body, &identities, &options), None, "{op:?}");
        }
    }

    #[test]
    fn the_servers_own_lines() {
        assert_eq!(
            server_event(ServerEvent::Started, "root").text,
            "user=root\toperation=serverStart\tresult=success"
        );
        assert_eq!(
            server_event(ServerEvent::Stopping, "root").text,
            "user=root\toperation=serverStop\tresult=invoked"
        );
        assert_eq!(
            ephemeral_deleted(SessionId(0x20), "root", "/e").text,
            "session=0x20\tuser=root\toperation=ephemeralZNodeDeletionOnSessionCloseOrExpire\tznode=/e\tresult=success"
        );
    }
}
