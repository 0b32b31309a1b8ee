//! The transaction log: format, writer, recovery.
