//! Replies and events as a client reads them.

use thiserror::Error;

use crate::jute::{JuteError, Reader};
use crate::proto::client::{EventType, MultiHeader, OpCode};
use crate::proto::{Acl, AclEntry, ErrorCode, Stat};
use crate::types::Zxid;

/// What one frame behind the handshake says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    Reply(Reply),
    Event(Event),
}

/// The answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub xid: i32,
    pub zxid: Zxid,
    /// Zero, or the number of an [`ErrorCode`]; kept as a number to compare servers.
    pub err: i32,
    pub response: Response,
}

impl Reply {
    pub fn is_ok(&self) -> bool {
        self.err == ErrorCode::Ok.code()
    }
}

/// A watch that fired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Of the change; -1 from older servers and for catch-up events.
    pub zxid: Zxid,
    pub kind: EventType,
    /// 3, connected, is all that servers send.
    pub state: i32,
    pub path: String,
}

/// The record of a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// No record: every failure, and the successes that have nothing to say.
    None,
    /// create, sync. A null path comes back from sync only.
    Path(Option<String>),
    /// create2, createContainer, createTTL.
    Created {
        path: String,
        stat: Stat,
    },
    /// exists, setData, setACL.
    Stat(Stat),
    /// getData, reconfig.
    Data {
        data: Option<Vec<u8>>,
        stat: Stat,
    },
    Acl {
        acl: Vec<AclEntry<'static>>,
        stat: Stat,
    },
    /// getChildren, getEphemerals.
    Paths(Vec<String>),
    Children {
        children: Vec<String>,
        stat: Stat,
    },
    /// getAllChildrenNumber.
    Count(i32),
    Multi(Vec<MultiResult>),
    /// sasl.
    Token(Option<Vec<u8>>),
    /// addWatch says its error code twice.
    AddWatch {
        err: i32,
    },
    /// whoAmI: scheme and user of each identity.
    Identities(Vec<(String, String)>),
    /// A record of a request this client has no type for, or one that came with an error.
    Raw(Vec<u8>),
}

/// One operation of a multi.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiResult {
    /// With the operation's type as the server names it.
    Done {
        op: i32,
        response: Response,
    },
    Failed {
        err: i32,
    },
}

/// Why bytes are no reply to what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyError {
    #[error(transparent)]
    Jute(#[from] JuteError),
    #[error("{count} bytes follow the record of a reply to type {op}")]
    Trailing { op: i32, count: usize },
    #[error("a {field} is null in a reply to type {op}")]
    Null { op: i32, field: &'static str },
    #[error("an event of type {kind} is unknown")]
    EventType { kind: i32 },
    #[error("a multi's result is of type {op}, which no multi has")]
    MultiType { op: i32 },
    #[error("xid {xid} answered, where {expected:?} is next")]
    OutOfOrder { xid: i32, expected: Option<i32> },
}

impl Event {
    pub fn decode(zxid: Zxid, body: &[u8]) -> Result<Event, ReplyError> {
        let mut reader = Reader::new(body);
        let kind = match reader.i32()? {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            kind => return Err(ReplyError::EventType { kind }),
        };
        let event = Event { zxid, kind, state: reader.i32()?, path: string(&mut reader, 0, "path")? };
        finish(&reader, 0)?;
        Ok(event)
    }
}

impl Response {
    /// Reads what answers a request of type `op`. Strict: a byte too many is an error.
    pub fn decode(op: i32, err: i32, body: &[u8]) -> Result<Response, ReplyError> {
        if err != 0 {
            return Ok(if body.is_empty() { Response::None } else { Response::Raw(body.to_vec()) });
        }
        let mut reader = Reader::new(body);
        let response = match OpCode::of(op) {
            Some(OpCode::Multi | OpCode::MultiRead) => Response::Multi(multi(&mut reader)?),
            Some(OpCode::CreateSession | OpCode::Error) | None => return Ok(Response::Raw(body.to_vec())),
            Some(code) => record(code, &mut reader)?,
        };
        finish(&reader, op)?;
        Ok(response)
    }
}

fn record(code: OpCode, reader: &mut Reader<'_>) -> Result<Response, ReplyError> {
    let op = code.number();
    Ok(match code {
        OpCode::Create => Response::Path(Some(string(reader, op, "path")?)),
        OpCode::Sync => Response::Path(reader.string()?.map(|path| path.into_owned())),
        OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
            Response::Created { path: string(reader, op, "path")?, stat: Stat::decode(reader)? }
        }
        OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Response::Stat(Stat::decode(reader)?),
        OpCode::GetData | OpCode::Reconfig => {
            Response::Data { data: reader.buffer()?.map(<[u8]>::to_vec), stat: Stat::decode(reader)? }
        }
        OpCode::GetAcl => {
            let acl = Acl::decode(reader)?.ok_or(ReplyError::Null { op, field: "acl" })?;
            Response::Acl {
                acl: acl.entries().map(AclEntry::into_owned).collect(),
                stat: Stat::decode(reader)?,
            }
        }
        OpCode::GetChildren | OpCode::GetEphemerals => Response::Paths(strings(reader, op)?),
        OpCode::GetChildren2 => {
            Response::Children { children: strings(reader, op)?, stat: Stat::decode(reader)? }
        }
        OpCode::GetAllChildrenNumber => Response::Count(reader.i32()?),
        OpCode::Sasl => Response::Token(reader.buffer()?.map(<[u8]>::to_vec)),
        OpCode::AddWatch => Response::AddWatch { err: reader.i32()? },
        OpCode::WhoAmI => {
            let mut identities = Vec::new();
            for _ in 0..reader.count()?.unwrap_or(0) {
                identities.push((string(reader, op, "scheme")?, string(reader, op, "user")?));
            }
            Response::Identities(identities)
        }
        OpCode::Delete
        | OpCode::Ping
        | OpCode::Check
        | OpCode::CheckWatches
        | OpCode::RemoveWatches
        | OpCode::DeleteContainer
        | OpCode::Auth
        | OpCode::SetWatches
        | OpCode::SetWatches2
        | OpCode::CloseSession => Response::None,
        OpCode::Multi | OpCode::MultiRead | OpCode::CreateSession | OpCode::Error => {
            return Err(ReplyError::MultiType { op });
        }
    })
}

fn multi(reader: &mut Reader<'_>) -> Result<Vec<MultiResult>, ReplyError> {
    let mut results = Vec::new();
    loop {
        let header = MultiHeader::decode(reader)?;
        if header.done {
            return Ok(results);
        }
        results.push(match header.op {
            -1 => MultiResult::Failed { err: reader.i32()? },
            op => {
                let code = OpCode::of(op).ok_or(ReplyError::MultiType { op })?;
                MultiResult::Done { op, response: record(code, reader)? }
            }
        });
    }
}

fn string(reader: &mut Reader<'_>, op: i32, field: &'static str) -> Result<String, ReplyError> {
    Ok(reader.string()?.ok_or(ReplyError::Null { op, field })?.into_owned())
}

fn strings(reader: &mut Reader<'_>, op: i32) -> Result<Vec<String>, ReplyError> {
    let mut strings = Vec::new();
    for _ in 0..reader.count()?.unwrap_or(0) {
        strings.push(string(reader, op, "path")?);
    }
    Ok(strings)
}

fn finish(reader: &Reader<'_>, op: i32) -> Result<(), ReplyError> {
    match reader.rest().len() {
        0 => Ok(()),
        count => Err(ReplyError::Trailing { op, count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::{put_i32, put_string, put_strings};

    #[test]
    fn a_byte_too_many_is_noticed() {
        let mut body = Vec::new();
        put_string(&mut body, "/a");
        body.push(0);
        let op = OpCode::Create.number();
        assert_eq!(Response::decode(op, 0, &body), Err(ReplyError::Trailing { op, count: 1 }));
    }

    #[test]
    fn a_failure_has_no_record_and_an_odd_one_is_kept() {
        assert_eq!(Response::decode(4, -101, &[]), Ok(Response::None));
        assert_eq!(Response::decode(22, -5, &[1]), Ok(Response::Raw(vec![1])));
    }

    #[test]
    fn results_of_a_read_multi_fail_alone() {
        let mut body = Vec::new();
        MultiHeader { op: 8, done: false, err: 0 }.encode(&mut body);
        put_strings(&mut body, ["a", "b"].into_iter());
        MultiHeader { op: -1, done: false, err: -101 }.encode(&mut body);
        put_i32(&mut body, -101);
        MultiHeader::END.encode(&mut body);
        let paths = Response::Paths(vec!["a".into(), "b".into()]);
        assert_eq!(
            Response::decode(22, 0, &body),
            Ok(Response::Multi(vec![
                MultiResult::Done { op: 8, response: paths },
                MultiResult::Failed { err: -101 }
            ]))
        );
    }

    #[test]
    fn every_prefix_of_an_answer_is_an_error_and_no_panic() {
        let mut body = Vec::new();
        put_strings(&mut body, ["one", "two"].into_iter());
        body.extend_from_slice(&Stat::default().to_bytes());
        let op = OpCode::GetChildren2.number();
        assert!(Response::decode(op, 0, &body).is_ok());
        for length in 0..body.len() {
            assert!(Response::decode(op, 0, &body[..length]).is_err(), "{length} bytes");
        }
    }
}
