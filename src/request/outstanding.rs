//! Nodes as they will be once everything proposed is applied.
//!
//! An entry overrides the tree from the moment its change is prepared until that change is applied. Changes of the request being
//! prepared can be rolled back; [`Outstanding::settle`] makes them stay.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::proto::{NodeKind, StatPersisted};
use crate::tree::AclId;
use crate::types::{SessionId, Zxid};

/// Whose access list a pending node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingAcl {
    Applied(AclId),
    /// Encoded.
    Proposed(Arc<[u8]>),
}

impl PendingAcl {
    pub fn of(encoded: &[u8]) -> PendingAcl {
        if encoded == crate::proto::acl::OPEN_UNSAFE {
            PendingAcl::Applied(AclId::OPEN)
        } else {
            PendingAcl::Proposed(encoded.into())
        }
    }
}

/// A node with its proposed changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub stat: StatPersisted,
    pub child_count: u32,
    pub acl: PendingAcl,
    /// See `tree::digest::content_crc`.
    pub content_crc: u32,
    pub data_bytes: u32,
}

impl Pending {
    pub fn is_ephemeral_of(&self, session: SessionId) -> bool {
        self.stat.kind() == NodeKind::Ephemeral(session)
    }
}

#[derive(Debug, Clone)]
struct Slot {
    /// The last change; the slot goes when it is applied.
    zxid: Zxid,
    /// `None`: the node will be gone.
    pending: Option<Pending>,
}

/// The proposed changes, by path; the root is `""`.
#[derive(Debug, Default)]
pub struct Outstanding {
    slots: HashMap<Arc<str>, Slot, foldhash::fast::FixedState>,
    /// Which slots each zxid touched, in order.
    touched: VecDeque<(Zxid, Arc<str>)>,
    /// What this request replaced, newest last.
    undo: Vec<(Arc<str>, Option<Slot>)>,
}

/// A point to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl Outstanding {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// `None`: not outstanding, look in the tree. `Some(None)`: it will be gone.
    pub fn get(&self, path: &str) -> Option<Option<&Pending>> {
        self.slots.get(path).map(|slot| slot.pending.as_ref())
    }

    pub fn put(&mut self, path: &str, zxid: Zxid, pending: Option<Pending>) {
        let slot = Slot { zxid, pending };
        if let Some((key, present)) = self.slots.get_key_value_mut(path) {
            let key = key.clone();
            let before = std::mem::replace(present, slot);
            self.touched.push_back((zxid, key.clone()));
            self.undo.push((key, Some(before)));
        } else {
            let key: Arc<str> = path.into();
            self.slots.insert(key.clone(), slot);
            self.touched.push_back((zxid, key.clone()));
            self.undo.push((key, None));
        }
    }

    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Takes back every change since `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            let (key, before) = self.undo.pop().expect("longer than the mark");
            self.touched.pop_back();
            match before {
                Some(slot) => {
                    self.slots.insert(key, slot);
                }
                None => {
                    self.slots.remove(&key);
                }
            }
        }
    }

    /// The request is proposed: its changes stay.
    pub fn settle(&mut self) {
        self.undo.clear();
    }

    /// `zxid` is applied: what it changed last is in the tree.
    pub fn forget(&mut self, zxid: Zxid) {
        while let Some((touched, _)) = self.touched.front()
            && *touched <= zxid
        {
            let (_, key) = self.touched.pop_front().expect("there is a front");
            if self.slots.get(&key).is_some_and(|slot| slot.zxid <= zxid) {
                self.slots.remove(&key);
            }
        }
    }

    /// Paths of the ephemeral nodes of a session that are proposed.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = Arc<str>> + '_ {
        // In the order they were touched: the map's order shows nowhere.
        self.touched
            .iter()
            .map(|(_, key)| key)
            .filter(move |key| {
                self.slots
                    .get(*key)
                    .and_then(|slot| slot.pending.as_ref())
                    .is_some_and(|pending| pending.is_ephemeral_of(session))
            })
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(version: i32) -> Option<Pending> {
        Some(Pending {
            stat: StatPersisted { version, ..StatPersisted::default() },
            child_count: 0,
            acl: PendingAcl::Applied(AclId::OPEN),
            content_crc: 0,
            data_bytes: 0,
        })
    }

    fn version(outstanding: &Outstanding, path: &str) -> Option<Option<i32>> {
        outstanding.get(path).map(|slot| slot.map(|pending| pending.stat.version))
    }

    #[test]
    fn the_last_change_decides_when_a_slot_goes() {
        let mut outstanding = Outstanding::default();
        outstanding.put("/a", Zxid(1), pending(1));
        outstanding.settle();
        outstanding.put("/a", Zxid(2), None);
        outstanding.settle();
        outstanding.forget(Zxid(1));
        assert_eq!(version(&outstanding, "/a"), Some(None));
        outstanding.forget(Zxid(2));
        assert_eq!(version(&outstanding, "/a"), None);
        assert!(outstanding.is_empty());
    }

    #[test]
    fn rolling_back_restores_what_was_proposed_before() {
        let mut outstanding = Outstanding::default();
        outstanding.put("/a", Zxid(1), pending(1));
        outstanding.settle();
        let mark = outstanding.mark();
        outstanding.put("/a", Zxid(2), pending(2));
        outstanding.put("/b", Zxid(2), pending(2));
        outstanding.put("/a", Zxid(2), None);
        outstanding.roll_back(mark);
        assert_eq!(version(&outstanding, "/a"), Some(Some(1)));
        assert_eq!(version(&outstanding, "/b"), None);
        outstanding.forget(Zxid(1));
        assert!(outstanding.is_empty());
    }
}
