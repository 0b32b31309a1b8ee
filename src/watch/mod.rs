//! Who waits on which path, and what fires.
