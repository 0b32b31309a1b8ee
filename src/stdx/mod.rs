//! What std lacks.

pub mod slab;
