//! Requests: authorise, prepare, apply, read.
//!
//! A write is *prepared* against the tree and the changes that are proposed but not applied yet ([`prepare`]); what comes out is a
//! transaction, or an error that is a transaction too. Once durable and committed it is *applied* ([`apply`]), which cannot fail.
//! Reads ([`read`]) look only at what is applied.

pub mod apply;
pub mod audit;
pub mod auth;
pub mod closing;
pub mod load;
pub mod multi;
pub mod outstanding;
pub mod path;
pub mod prepare;
pub mod quota;
pub mod read;

pub use apply::Database;
