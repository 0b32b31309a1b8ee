//! Session table, expiry, passwords.
