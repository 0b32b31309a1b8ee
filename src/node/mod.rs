//! One whole server with no I/O: fronts that talk to clients, and a pipeline that orders writes.
//!
//! A [`Front`] is one core's share of the clients. It answers reads by itself from the published tree. The one [`Pipeline`] prepares
//! writes, hands out log batches, applies what is durable and publishes it. They are joined by bounded queues ([`link`]), and whoever
//! drives them, the shell or a simulator, decides when a queue delivers, when a write is durable and what time it is.

pub mod front;
pub mod limits;
pub mod link;
pub mod pipeline;
pub mod storage_work;

#[cfg(test)]
mod tests;

pub use front::{ConnId, Front, FrontOptions};
pub use link::{FrontLink, LocalLink, PipelineLink, Serving, ToFront, ToPipeline};
pub use pipeline::{Pipeline, PipelineOptions};
pub use storage_work::{MembershipFiles, Rebuilt, StorageEvent, StorageWork};
