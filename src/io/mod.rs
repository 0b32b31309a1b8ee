//! Aligned buffers, direct files, the log's ring, mailboxes between cores, clocks; no ZooKeeper in it.
