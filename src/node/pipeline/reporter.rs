//! What applying a transaction does, as messages: events for the fronts, a body for the reply.

use std::sync::Arc;

use bytes::Bytes;

use crate::jute::{put_i32, put_string};
use crate::node::link::{Body, NodeChange, PipelineLink, ToFront};
use crate::proto::client::{MultiHeader, OpCode};
use crate::proto::txn::kind;
use crate::proto::{ErrorCode, Stat};
use crate::request::apply::{Change, Outcome, Witness};
use crate::types::Zxid;

/// Turns what applying does into messages to the fronts.
pub struct Reporter<'p, L> {
    pub links: &'p mut [L],
    pub bytes: &'p Bytes,
    pub zxid: Zxid,
    pub changes: Vec<NodeChange>,
    /// The results of a multi so far.
    pub multi: Option<Vec<u8>>,
    pub op: OpCode,
    pub failed: Option<ErrorCode>,
    pub body: Body,
}

impl<L> Reporter<'_, L> {
    /// A path of the entry, shared and not copied wherever it stands in the entry's own bytes.
    fn shared(&self, path: &str) -> Bytes {
        let (from, to) = (self.bytes.as_ptr() as usize, self.bytes.as_ptr() as usize + self.bytes.len());
        let at = path.as_ptr() as usize;
        if at >= from && at + path.len() <= to {
            self.bytes.slice(at - from..at - from + path.len())
        } else {
            Bytes::copy_from_slice(path.as_bytes())
        }
    }
}

impl<L: PipelineLink> Witness for Reporter<'_, L> {
    fn changed(&mut self, change: Change<'_>) {
        if !self.links.iter().any(|link| link.is_interested()) {
            return;
        }
        let copied = |acl: crate::proto::Acl<'_>| Bytes::copy_from_slice(acl.bytes());
        self.changes.push(NodeChange {
            zxid: self.zxid,
            kind: change.kind,
            path: self.shared(change.path),
            acl: change.acl.map(copied),
            parent_acl: change.parent_acl.map(copied),
        });
    }

    fn done(&mut self, type_number: i32, outcome: Outcome<'_>) {
        if let Some(multi) = &mut self.multi {
            put_result(multi, type_number, outcome);
            return;
        }
        self.body = match outcome {
            Outcome::Created { path, stat } => {
                let mut body = Vec::with_capacity(4 + path.len() + Stat::BYTES);
                put_string(&mut body, path);
                if self.op != OpCode::Create {
                    stat.encode(&mut body);
                }
                Body::Bytes(body.into())
            }
            Outcome::DataSet(stat) | Outcome::AclSet(stat) => Body::Stat(stat.to_bytes()),
            Outcome::Failed(code) => {
                self.failed = Some(ErrorCode::of(code).unwrap_or(ErrorCode::SystemError));
                Body::None
            }
            Outcome::Deleted | Outcome::Checked | Outcome::SessionOpened | Outcome::SessionClosed => {
                Body::None
            }
        };
    }

    fn publishing(&mut self) {
        match self.changes.len() {
            0 => {}
            1 => {
                let change = self.changes.pop().expect("there is one");
                for link in self.links.iter_mut().filter(|link| link.is_interested()) {
                    link.push(ToFront::Change(change.clone()));
                }
            }
            _ => {
                let changes: Arc<[NodeChange]> = std::mem::take(&mut self.changes).into();
                for link in self.links.iter_mut().filter(|link| link.is_interested()) {
                    link.push(ToFront::Changes(changes.clone()));
                }
            }
        }
    }
}

/// One result of a multi (client-protocol §5.3).
fn put_result(out: &mut Vec<u8>, type_number: i32, outcome: Outcome<'_>) {
    let header = |op: i32, err: i32| MultiHeader { op, done: false, err };
    match outcome {
        Outcome::Created { path, stat } => {
            let plain = type_number == kind::CREATE;
            header(if plain { kind::CREATE } else { kind::CREATE2 }, 0).encode(out);
            put_string(out, path);
            if !plain {
                stat.encode(out);
            }
        }
        Outcome::DataSet(stat) | Outcome::AclSet(stat) => {
            header(type_number, 0).encode(out);
            stat.encode(out);
        }
        Outcome::Failed(code) => {
            header(kind::ERROR, code).encode(out);
            put_i32(out, code);
        }
        Outcome::Deleted | Outcome::Checked | Outcome::SessionOpened | Outcome::SessionClosed => {
            header(type_number, 0).encode(out);
        }
    }
}
