//! What std lacks.

pub mod hash;
pub mod rng;
pub mod slab;
pub mod sync;
