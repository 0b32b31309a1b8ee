//! One whole server with no I/O: fronts and a pipeline.
