//! `zoo.cfg`, flags and properties become one checked `Config`.
