//! What std lacks.
