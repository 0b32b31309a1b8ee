//! Snapshots in ZooKeeper's format, as byte streams.
