//! What std lacks.

pub mod hash;
pub mod slab;
pub mod sync;
