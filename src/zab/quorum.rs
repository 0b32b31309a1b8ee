//! Which sets of servers may decide: more than half of the voters, or by weight in more than half of the groups.

use crate::config::Membership;
use crate::types::ServerId;

/// A set of server ids.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerSet([u64; 4]);

impl ServerSet {
    pub const EMPTY: ServerSet = ServerSet([0; 4]);

    fn place(id: ServerId) -> (usize, u64) {
        (usize::from(id.0) / 64, 1 << (id.0 % 64))
    }

    /// Whether it was not there before.
    pub fn insert(&mut self, id: ServerId) -> bool {
        let (word, bit) = ServerSet::place(id);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Whether it was there.
    pub fn remove(&mut self, id: ServerId) -> bool {
        let (word, bit) = ServerSet::place(id);
        let was_there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was_there
    }

    pub fn contains(&self, id: ServerId) -> bool {
        let (word, bit) = ServerSet::place(id);
        self.0[word] & bit != 0
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        *self == ServerSet::EMPTY
    }

    pub fn union(self, other: ServerSet) -> ServerSet {
        ServerSet(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub fn intersection(self, other: ServerSet) -> ServerSet {
        ServerSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Those of `self` that are not in `other`.
    pub fn without(self, other: ServerSet) -> ServerSet {
        ServerSet(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = ServerId> {
        (0..=u8::MAX).map(ServerId).filter(move |id| self.contains(*id))
    }
}

impl FromIterator<ServerId> for ServerSet {
    fn from_iter<T: IntoIterator<Item = ServerId>>(ids: T) -> ServerSet {
        let mut set = ServerSet::EMPTY;
        for id in ids {
            set.insert(id);
        }
        set
    }
}

impl std::fmt::Debug for ServerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|id| id.0)).finish()
    }
}

/// Says of a set of servers whether it is a quorum; any two quorums of one verifier have a voter in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verifier {
    /// More than half of these.
    Majority { voters: ServerSet },
    /// More than half of the weight in more than half of the groups that weigh anything.
    Hierarchical { voters: ServerSet, groups: Vec<Group> },
}

/// The servers of one group that weigh anything, and their weights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    weights: Vec<(ServerId, u32)>,
    /// At least one.
    total: u64,
}

impl Verifier {
    /// Source: ZooKeeper `QuorumHierarchical#computeGroupWeight`.
    pub fn of(membership: &Membership) -> Verifier {
        let voters = membership.voters().collect();
        if membership.groups().is_empty() {
            return Verifier::Majority { voters };
        }
        let groups = membership.groups().values().filter_map(|ids| {
            let weights: Vec<_> = ids
                .iter()
                .map(|id| (*id, membership.weight(*id)))
                .filter(|(_, weight)| *weight > 0)
                .collect();
            let total = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
            (total > 0).then_some(Group { weights, total })
        });
        Verifier::Hierarchical { voters, groups: groups.collect() }
    }

    /// The voters of the membership; others may be in a set and change nothing.
    pub fn voters(&self) -> ServerSet {
        match self {
            Verifier::Majority { voters } | Verifier::Hierarchical { voters, .. } => *voters,
        }
    }

    /// Source: ZooKeeper `QuorumMaj#containsQuorum`, `QuorumHierarchical#containsQuorum`.
    pub fn is_quorum(&self, set: &ServerSet) -> bool {
        let set = set.intersection(self.voters());
        match self {
            Verifier::Majority { voters } => set.len() > voters.len() / 2,
            Verifier::Hierarchical { groups, .. } => {
                let won = groups.iter().filter(|group| {
                    let there = group.weights.iter().filter(|(id, _)| set.contains(*id));
                    there.map(|(_, weight)| u64::from(*weight)).sum::<u64>() > group.total / 2
                });
                won.count() > groups.len() / 2
            }
        }
    }

    /// Zero for who can never be elected.
    pub fn weight(&self, id: ServerId) -> u32 {
        match self {
            Verifier::Majority { voters } => u32::from(voters.contains(id)),
            Verifier::Hierarchical { voters, groups } if voters.contains(id) => groups
                .iter()
                .flat_map(|group| &group.weights)
                .find(|(of, _)| *of == id)
                .map_or(0, |(_, weight)| *weight),
            Verifier::Hierarchical { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u8]) -> ServerSet {
        ids.iter().map(|id| ServerId(*id)).collect()
    }

    fn verifier(servers: &[u8], observers: &[u8], rest: &str) -> Verifier {
        let mut text = String::new();
        for (ids, role) in [(servers, "participant"), (observers, "observer")] {
            for id in ids {
                text.push_str(&format!("server.{id}=h:1:2:{role}\n"));
            }
        }
        Verifier::of(&Membership::parse((text + rest).as_bytes()).unwrap())
    }

    #[test]
    fn sets_hold_every_id() {
        let mut all = ServerSet::EMPTY;
        for id in 0..=255 {
            assert!(!all.contains(ServerId(id)) && all.insert(ServerId(id)) && !all.insert(ServerId(id)));
        }
        assert_eq!((all.len(), all.iter().count()), (256, 256));
        assert!(all.remove(ServerId(64)) && !all.remove(ServerId(64)));
        assert_eq!(set(&[1, 64, 255]).without(all), set(&[64]));
        assert_eq!(set(&[1, 2]).intersection(set(&[2, 3])).union(set(&[9])), set(&[2, 9]));
        assert_eq!(format!("{:?}", set(&[3, 1])), "{1, 3}");
    }

    #[test]
    fn a_majority_is_of_voters_alone() {
        let of_four = verifier(&[1, 2, 3, 4], &[5, 6, 7], "");
        assert!(!of_four.is_quorum(&set(&[1, 2])) && of_four.is_quorum(&set(&[1, 2, 4])));
        assert!(!of_four.is_quorum(&set(&[1, 2, 5, 6, 7])));
        assert_eq!((of_four.weight(ServerId(4)), of_four.weight(ServerId(5))), (1, 0));
        assert!(verifier(&[9], &[], "").is_quorum(&set(&[9])));
        assert!(!verifier(&[9], &[], "").is_quorum(&set(&[8])));
    }

    #[test]
    fn groups_count_by_weight() {
        let three = "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9\n";
        let servers = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let even = verifier(&servers, &[], three);
        assert!(even.is_quorum(&set(&[1, 2, 4, 5])));
        assert!(!even.is_quorum(&set(&[1, 2, 3, 4, 7])));
        // A group that weighs nothing counts for nothing; in the first only server 1 matters.
        let uneven = format!("{three}weight.1=5\nweight.7=0\nweight.8=0\nweight.9=0\n");
        let uneven = verifier(&servers, &[], &uneven);
        assert!(!uneven.is_quorum(&set(&[1, 7, 8, 9])) && uneven.is_quorum(&set(&[1, 4, 6])));
        assert!(!uneven.is_quorum(&set(&[2, 3, 4, 5, 6])));
        assert_eq!((uneven.weight(ServerId(1)), uneven.weight(ServerId(7))), (5, 0));
        // Two groups: both are needed.
        let two = verifier(&[1, 2, 3, 4], &[], "group.1=1:2\ngroup.2=3:4\nweight.1=2");
        assert!(two.is_quorum(&set(&[1, 3, 4])) && !two.is_quorum(&set(&[1, 2, 3])));
    }

    #[test]
    fn quorums_meet() {
        for rest in
            ["", "group.1=1:2:3\ngroup.2=4:5\nweight.2=3", "group.1=1:2\ngroup.2=3\ngroup.3=4:5\nweight.3=0"]
        {
            let verifier = verifier(&[1, 2, 3, 4, 5], &[], rest);
            let sets =
                (0u8..32).map(|bits| (1..=5).filter(move |id| bits >> (id - 1) & 1 == 1).map(ServerId));
            let quorums: Vec<ServerSet> =
                sets.map(ServerSet::from_iter).filter(|set| verifier.is_quorum(set)).collect();
            assert!(!quorums.is_empty(), "{rest}");
            for one in &quorums {
                assert!(quorums.iter().all(|other| !one.intersection(*other).is_empty()), "{rest} {one:?}");
            }
        }
    }
}
