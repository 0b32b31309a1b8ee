//! A minimal pipelined client for tests and the load generator; not a published API.
