//! ZooKeeper logs.
