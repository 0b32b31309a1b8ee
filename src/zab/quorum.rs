//! Which sets of servers may decide.
//!
//! Source: ZooKeeper `QuorumMaj`, `QuorumHierarchical`; quorum-protocol §1.4.

use std::collections::BTreeMap;

use crate::types::ServerId;

/// A set of servers.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerSet([u64; 4]);

impl ServerSet {
    pub const EMPTY: ServerSet = ServerSet([0; 4]);

    /// Whether it was not in the set before.
    pub fn insert(&mut self, server: ServerId) -> bool {
        let (word, bit) = place(server);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    pub fn remove(&mut self, server: ServerId) {
        let (word, bit) = place(server);
        self.0[word] &= !bit;
    }

    pub fn contains(&self, server: ServerId) -> bool {
        let (word, bit) = place(server);
        self.0[word] & bit != 0
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The servers in both.
    pub fn intersection(&self, other: &ServerSet) -> ServerSet {
        ServerSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ServerId> + use<> {
        let set = *self;
        (0..=u8::MAX).map(ServerId).filter(move |&server| set.contains(server))
    }
}

impl FromIterator<ServerId> for ServerSet {
    fn from_iter<T: IntoIterator<Item = ServerId>>(servers: T) -> ServerSet {
        let mut set = ServerSet::EMPTY;
        for server in servers {
            set.insert(server);
        }
        set
    }
}

impl std::fmt::Debug for ServerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|server| server.0)).finish()
    }
}

fn place(server: ServerId) -> (usize, u64) {
    (usize::from(server.0 / 64), 1 << (server.0 % 64))
}

/// Tells quorums from other sets. Servers that do not vote never count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verifier {
    /// More than half of the voters.
    Majority { voters: ServerSet },
    /// More than half of the groups, each by more than half of its weight.
    Hierarchical { groups: Vec<BTreeMap<ServerId, u64>> },
}

impl Verifier {
    pub fn is_quorum(&self, set: &ServerSet) -> bool {
        match self {
            Verifier::Majority { voters } => set.intersection(voters).len() > voters.len() / 2,
            Verifier::Hierarchical { groups } => {
                let weight = |group: &BTreeMap<ServerId, u64>, all: bool| -> u128 {
                    let members = group.iter().filter(|(server, _)| all || set.contains(**server));
                    members.map(|(_, &weight)| u128::from(weight)).sum()
                };
                let counted = groups.iter().filter(|group| weight(group, true) > 0);
                let (mut total, mut won) = (0, 0);
                for group in counted {
                    total += 1;
                    won += usize::from(weight(group, false) > weight(group, true) / 2);
                }
                won > total / 2
            }
        }
    }

    /// A server of weight zero never leads.
    pub fn weight(&self, server: ServerId) -> u64 {
        match self {
            Verifier::Majority { voters } => u64::from(voters.contains(server)),
            Verifier::Hierarchical { groups } => {
                groups.iter().find_map(|group| group.get(&server).copied()).unwrap_or(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(servers: &[u8]) -> ServerSet {
        servers.iter().copied().map(ServerId).collect()
    }

    #[test]
    fn a_majority_counts_voters_only() {
        let verifier = Verifier::Majority { voters: set(&[1, 2, 3, 200]) };
        assert!(!verifier.is_quorum(&set(&[1, 200])));
        assert!(!verifier.is_quorum(&set(&[1, 200, 7, 8])));
        assert!(verifier.is_quorum(&set(&[1, 200, 3])));
        assert_eq!((verifier.weight(ServerId(200)), verifier.weight(ServerId(7))), (1, 0));
    }

    #[test]
    fn a_hierarchy_wants_most_groups_by_most_of_their_weight() {
        let group = |servers: &[(u8, u64)]| servers.iter().map(|&(id, w)| (ServerId(id), w)).collect();
        let groups = vec![
            group(&[(1, 1), (2, 1), (3, 1)]),
            group(&[(4, 1), (5, 1), (6, 1)]),
            group(&[(7, 2), (8, 1)]),
            group(&[(9, 0)]),
        ];
        let verifier = Verifier::Hierarchical { groups };
        assert!(verifier.is_quorum(&set(&[1, 2, 4, 5])));
        assert!(verifier.is_quorum(&set(&[1, 2, 7])));
        assert!(!verifier.is_quorum(&set(&[1, 4, 7, 9])));
        assert!(!verifier.is_quorum(&set(&[1, 2, 3, 4, 8])));
        assert_eq!((verifier.weight(ServerId(7)), verifier.weight(ServerId(9))), (2, 0));
    }
}
