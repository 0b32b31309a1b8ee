//! ACL lists, each kept once: a znode holds a number.
//!
//! A list lives as long as a node uses it; one that no node has come to use is dropped by the next reclaim. The list of
//! everybody's every right is number 0 and always there. Source: ZooKeeper `ReferenceCountedACLCache`.

use hashbrown::HashTable;

use super::AclId;
use super::arena::{ACLS_MAX, NO_BLOCK};
use super::store::Store;
use crate::proto::Acl;
use crate::proto::acl::OPEN_UNSAFE;

#[derive(Clone, Copy)]
struct Entry {
    block: u32,
    /// Nodes that have this list.
    uses: u32,
    hash: u64,
}

pub(super) struct Acls {
    /// By id. Entry 0 is the open list, which is not counted.
    entries: Vec<Entry>,
    /// Ids by the hash of their lists.
    by_list: HashTable<u32>,
    /// Ids that may be unused, to be looked at in the next reclaim.
    perhaps_unused: Vec<u32>,
}

const NONE: Entry = Entry { block: NO_BLOCK, uses: 0, hash: 0 };

impl Acls {
    pub fn new() -> Acls {
        Acls { entries: vec![NONE], by_list: HashTable::new(), perhaps_unused: Vec::new() }
    }

    pub fn intern(&mut self, store: &mut Store, acl: Acl<'_>) -> AclId {
        if acl.bytes() == OPEN_UNSAFE {
            return AclId::OPEN;
        }
        let hash = store.shared().hash.hash(acl.bytes());
        let view = store.view();
        if let Some(&id) = self.by_list.find(hash, |&id| view.acl_list(AclId(id)) == acl) {
            return AclId(id);
        }
        let block = store.payload("", Some(acl.bytes()));
        let id = store.used_acl_id().unwrap_or_else(|| {
            self.entries.push(NONE);
            u32::try_from(self.entries.len() - 1).expect("fewer ids than ACLS_MAX")
        });
        assert!(id < ACLS_MAX, "the tree is full: {ACLS_MAX} ACL lists");
        self.entries[id as usize] = Entry { block, uses: 0, hash };
        store.set_acl_block(id, block);
        let entries = &self.entries;
        self.by_list.insert_unique(hash, id, |&id| entries[id as usize].hash);
        self.perhaps_unused.push(id);
        AclId(id)
    }

    /// A node uses the list from now on.
    pub fn retain(&mut self, id: AclId) {
        if id != AclId::OPEN {
            let entry = self.entries.get_mut(id.0 as usize).filter(|entry| entry.block != NO_BLOCK);
            entry.unwrap_or_else(|| panic!("no ACL list has number {}", id.0)).uses += 1;
        }
    }

    /// A node uses it no longer.
    pub fn release(&mut self, id: AclId) {
        if id != AclId::OPEN {
            let entry = &mut self.entries[id.0 as usize];
            assert!(0 < entry.uses, "ACL list {} was released more often than used", id.0);
            entry.uses -= 1;
            if entry.uses == 0 {
                self.perhaps_unused.push(id.0);
            }
        }
    }

    /// Drops the lists that no node uses.
    pub fn reclaim(&mut self, store: &mut Store) {
        for id in std::mem::take(&mut self.perhaps_unused) {
            let entry = self.entries[id as usize];
            if entry.uses == 0 && entry.block != NO_BLOCK {
                let found = self.by_list.find_entry(entry.hash, |&other| other == id);
                found.unwrap_or_else(|_| panic!("ACL list {id} is not in the table")).remove();
                self.entries[id as usize] = NONE;
                store.set_acl_block(id, NO_BLOCK);
                store.retire_payload(entry.block);
                store.retire_acl_id(id);
            }
        }
    }

    /// The numbers in use, the open list left out, in ascending order.
    pub fn ids(&self) -> impl Iterator<Item = AclId> {
        let used = self.entries.iter().enumerate().filter(|(_, entry)| 0 < entry.uses);
        used.map(|(id, _)| AclId(id as u32))
    }
}
