//! Requests about watches: re-arming after a reconnect, adding, removing, asking.

use std::borrow::Cow;

use super::Front;
use super::conn::ConnId;
use crate::jute::{JuteError, Reader};
use crate::node::link::FrontLink;
use crate::proto::ErrorCode;
use crate::proto::client::{OpCode, put_notification};
use crate::types::Zxid;
use crate::watch::{CatchUp, SetWatchesList, WatchMode, WatcherKind, catch_up};

/// Times re-arming is begun anew because a change was published meanwhile.
const TRIES_MAX: usize = 64;

/// Stands for a null path, under which ZooKeeper keeps watches like under any other. No node ever has this name.
const NULL_PATH: &str = "\0null";

/// The lists of setWatches and setWatches2.
struct Lists<'a> {
    zxid_seen: Zxid,
    lists: Vec<(SetWatchesList, Vec<Cow<'a, str>>)>,
}

impl<'a> Lists<'a> {
    /// A null vector, or a null path in one, is an error.
    fn decode(reader: &mut Reader<'a>, op: OpCode) -> Result<Option<Lists<'a>>, JuteError> {
        let zxid_seen = Zxid(reader.i64()?);
        let mut kinds = vec![SetWatchesList::Data, SetWatchesList::Exist, SetWatchesList::Child];
        if op == OpCode::SetWatches2 {
            kinds.extend([SetWatchesList::Persistent, SetWatchesList::PersistentRecursive]);
        }
        let mut lists = Vec::new();
        for kind in kinds {
            let Some(count) = reader.count()? else { return Ok(None) };
            let mut paths = Vec::new();
            for _ in 0..count {
                let Some(path) = reader.string()? else { return Ok(None) };
                paths.push(path);
            }
            lists.push((kind, paths));
        }
        Ok(Some(Lists { zxid_seen, lists }))
    }
}

impl<L: FrontLink> Front<L> {
    /// Re-arms a client's watches: what changed meanwhile fires at once, before the reply (client-protocol §6.6).
    /// `false`: not now.
    pub(super) fn set_watches(&mut self, id: ConnId, xid: i32, op: OpCode, body: &[u8]) -> bool {
        let Ok(Some(lists)) = Lists::decode(&mut Reader::new(body), op) else {
            let zxid = self.catch_up();
            self.answer(id, xid, Some(op), zxid, ErrorCode::MarshallingError, &[]);
            return true;
        };
        self.interested = true;
        self.link.set_interested(true);
        for _ in 0..TRIES_MAX {
            let published = self.reader.published();
            if published.number != self.caught_up.number {
                self.take_messages();
                if !self.conns[id.0 as usize].is_serving() {
                    return false;
                }
            }
            let decided = self.reader.read_at(published, |view| {
                let mut decided = Vec::new();
                for (kind, paths) in &lists.lists {
                    for path in paths {
                        let node = view.find(path).map(|node| {
                            let stat = view.wire_stat(node);
                            (stat.mzxid, stat.pzxid)
                        });
                        decided.push((path.as_ref(), catch_up(*kind, node, lists.zxid_seen)));
                    }
                }
                decided
            });
            let Some((_, decided)) = decided else {
                std::hint::spin_loop();
                continue;
            };
            for (path, decision) in decided {
                match decision {
                    CatchUp::Fire(event) => {
                        let conn = &mut self.conns[id.0 as usize];
                        put_notification(&mut conn.output, Zxid(-1), event, path);
                        conn.stats.sent += 1;
                    }
                    CatchUp::Register(mode) => self.watches.add(path, id.0, mode),
                }
            }
            self.settle_interest();
            self.answer(id, xid, Some(op), published.zxid, ErrorCode::Ok, &[]);
            return true;
        }
        // Writes come too thick: after other sockets have had their turn.
        self.resume_later(id);
        false
    }

    /// addWatch, removeWatches, checkWatches. Source: ZooKeeper `FinalRequestProcessor`. `false`: not now.
    pub(super) fn change_watches(&mut self, id: ConnId, xid: i32, op: OpCode, body: &[u8]) -> bool {
        if op == OpCode::AddWatch && !self.interested {
            // Before the publication is looked at: from here on no change goes unnoticed.
            self.interested = true;
            self.link.set_interested(true);
        }
        // A watch tells of every change after the zxid its reply names, and of none before.
        let Some(zxid) = self.stand_still() else {
            // Writes come too thick: after other sockets have had their turn.
            self.resume_later(id);
            return false;
        };
        if !self.conns[id.0 as usize].is_serving() {
            // A message closed it.
            self.settle_interest();
            return false;
        }
        let result = self.changed_watches(id, op, &mut Reader::new(body));
        self.settle_interest();
        match result {
            // An ErrorResponse record that says all is well.
            Ok(()) if op == OpCode::AddWatch => {
                self.answer(id, xid, Some(op), zxid, ErrorCode::Ok, &0i32.to_be_bytes());
            }
            Ok(()) => self.answer(id, xid, Some(op), zxid, ErrorCode::Ok, &[]),
            Err(err) => self.answer(id, xid, Some(op), zxid, err, &[]),
        }
        true
    }

    /// Takes every message up to a publication and none beyond it, and gives its zxid; `None` where writes never pause that long.
    fn stand_still(&mut self) -> Option<Zxid> {
        for _ in 0..TRIES_MAX {
            let published = self.reader.published();
            if !published.is_stable() {
                std::hint::spin_loop();
                continue;
            }
            if published.number != self.caught_up.number {
                self.take_messages();
            }
            // No change began since, so none can have been taken in part.
            if self.reader.published().number == published.number {
                return Some(published.zxid);
            }
        }
        None
    }

    fn changed_watches(&mut self, id: ConnId, op: OpCode, reader: &mut Reader<'_>) -> Result<(), ErrorCode> {
        let undecodable = |_| ErrorCode::MarshallingError;
        let path = reader.string().map_err(undecodable)?.unwrap_or(Cow::Borrowed(NULL_PATH));
        let number = reader.i32().map_err(undecodable)?;
        if op == OpCode::AddWatch {
            let mode = WatchMode::of_add_watch(number).ok_or(ErrorCode::MarshallingError)?;
            self.watches.add(&path, id.0, mode);
            return Ok(());
        }
        let kind = WatcherKind::of(number).ok_or(ErrorCode::MarshallingError)?;
        let found = if op == OpCode::CheckWatches {
            self.watches.check(&path, id.0, kind)
        } else {
            self.watches.remove(&path, id.0, kind)
        };
        if found { Ok(()) } else { Err(ErrorCode::NoWatcher) }
    }
}
