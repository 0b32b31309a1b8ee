//! The tree at its real page sizes: the unit tests run on small ones.

use ringkeeper::proto::StatPersisted;
use ringkeeper::tree::{AclId, NodeId, Tree, TreeOptions, TreeReader};
use ringkeeper::types::Zxid;

/// Crosses two pages of 65,536 headers and many of blocks.
const NODES: usize = 140_000;

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; number % 300]
}

fn turn(tree: &mut Tree, reader: &mut TreeReader) {
    reader.quiesce();
    tree.reclaim();
}

/// A long list of children, removed by thirds, with every node found as it was made and memory used again.
#[test]
fn many_nodes_below_one_parent() {
    let mut tree = Tree::new(TreeOptions { hash_seed: 4 });
    let mut reader = tree.reader();
    let stat = StatPersisted::default();
    let mut bytes = 0;
    for round in 0..2 {
        for number in 0..NODES {
            tree.begin();
            tree.create(NodeId::ROOT, &format!("node-{number}"), Some(&value(number)), AclId::OPEN, &stat);
            tree.publish(Zxid(number as i64));
            if number % 100 == 0 {
                turn(&mut tree, &mut reader);
            }
        }
        assert_eq!((tree.node_count(), tree.child_count(NodeId::ROOT)), (NODES + 1, NODES));
        let mut listed = 0;
        reader.read(|view| view.for_each_child(NodeId::ROOT, |_| listed += 1)).unwrap();
        assert_eq!(listed, NODES);
        if round == 0 {
            bytes = tree.memory_bytes();
        }
        assert!(tree.memory_bytes() <= bytes + bytes / 10, "{} bytes, {bytes} at first", tree.memory_bytes());
        for third in [1, 0, 2] {
            for number in (third..NODES).step_by(3) {
                let n = tree.find(&format!("/node-{number}")).unwrap();
                assert_eq!(tree.data(n).unwrap(), value(number));
                tree.begin();
                tree.remove(n);
                tree.publish(Zxid(number as i64));
            }
            turn(&mut tree, &mut reader);
        }
        assert_eq!((tree.node_count(), tree.data_bytes()), (1, 1));
        while tree.limbo_count() > 0 {
            turn(&mut tree, &mut reader);
        }
    }
}

/// Values on both sides of the border between blocks and allocations of their own, and far beyond it.
#[test]
fn long_values() {
    let mut tree = Tree::new(TreeOptions { hash_seed: 4 });
    let mut reader = tree.reader();
    let lengths = [65_500, 65_522, 65_523, 65_536, 70_000, 1 << 20, (2 << 20) - 80, 5 << 20, 0];
    tree.begin();
    let n = tree.create(NodeId::ROOT, "value", None, AclId::OPEN, &StatPersisted::default());
    tree.publish(Zxid(1));
    let mut bytes = 0;
    for round in 0..20 {
        for length in lengths {
            let long: Vec<u8> = (0..length).map(|index| (index + round) as u8).collect();
            tree.begin();
            tree.set_data(n, Some(&long), round, Zxid(1), 0);
            tree.publish(Zxid(1));
            let read = reader.read(|view| view.data(n).map(<[u8]>::to_vec)).unwrap().1;
            assert!(read == Some(long), "{length} bytes were not read back");
            turn(&mut tree, &mut reader);
        }
        if round == 1 {
            bytes = tree.memory_bytes();
        }
        assert!(round == 0 || tree.memory_bytes() <= bytes);
    }
}
