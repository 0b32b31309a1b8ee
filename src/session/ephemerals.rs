//! Which nodes go when a session ends.

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::types::SessionId;

/// The ephemeral nodes of each session, by numbers the owner of the tree gives them. Sessions without any cost nothing.
#[derive(Debug)]
pub struct Ephemerals {
    sessions: HashMap<SessionId, BTreeSet<u32>, FixedState>,
    /// Nodes of all sessions.
    count: usize,
}

impl Ephemerals {
    pub fn new(hash_seed: u64) -> Ephemerals {
        Ephemerals { sessions: HashMap::with_hasher(FixedState::with_seed(hash_seed)), count: 0 }
    }

    /// False if the session has that node already.
    pub fn add(&mut self, session: SessionId, node: u32) -> bool {
        let added = self.sessions.entry(session).or_default().insert(node);
        self.count += usize::from(added);
        added
    }

    /// False if the session does not have that node.
    pub fn remove(&mut self, session: SessionId, node: u32) -> bool {
        let Entry::Occupied(mut entry) = self.sessions.entry(session) else { return false };
        let removed = entry.get_mut().remove(&node);
        self.count -= usize::from(removed);
        if entry.get().is_empty() {
            entry.remove();
        }
        removed
    }

    /// Takes all nodes of a session away from it, in the order of their numbers.
    pub fn take(&mut self, session: SessionId) -> Vec<u32> {
        let nodes: Vec<u32> = self.sessions.remove(&session).into_iter().flatten().collect();
        self.count -= nodes.len();
        nodes
    }

    /// Nodes of a session, in the order of their numbers.
    pub fn of(&self, session: SessionId) -> impl Iterator<Item = u32> {
        self.sessions.get(&session).into_iter().flatten().copied()
    }

    pub fn contains(&self, session: SessionId, node: u32) -> bool {
        self.sessions.get(&session).is_some_and(|nodes| nodes.contains(&node))
    }

    pub fn count_of(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, BTreeSet::len)
    }

    /// Nodes of all sessions.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Sessions with a node.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Sessions with a node, sorted. Copies their ids.
    pub fn sessions(&self) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        sessions.sort_unstable();
        sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_and_go_with_their_session() {
        let (one, two) = (SessionId(-1), SessionId(2));
        let mut ephemerals = Ephemerals::new(1);
        assert!(ephemerals.add(two, 9) && ephemerals.add(one, 5) && ephemerals.add(one, 3));
        assert!(!ephemerals.add(one, 3));
        assert_eq!((ephemerals.count(), ephemerals.session_count(), ephemerals.count_of(one)), (3, 2, 2));
        assert_eq!(ephemerals.sessions(), [one, two]);
        assert!(ephemerals.contains(one, 3) && !ephemerals.contains(two, 3));
        assert_eq!(ephemerals.of(one).collect::<Vec<u32>>(), [3, 5]);
        assert!(ephemerals.remove(two, 9) && !ephemerals.remove(two, 9) && !ephemerals.remove(one, 9));
        assert_eq!(ephemerals.take(one), [3, 5]);
        assert!(ephemerals.take(one).is_empty());
        assert_eq!((ephemerals.count(), ephemerals.session_count(), ephemerals.count_of(one)), (0, 0, 0));
    }
}
