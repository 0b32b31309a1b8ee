//! A deterministic simulator of the whole server (T-SIM), and the checkers of its promises.
//!
//! | File | What |
//! |------|------|
//! | `shape` | what kind of world a seed makes |
//! | `world` | time, events, and the checks after each step |
//! | `server`, `storage`, `disk` | one machine: the real node, its shell, a disk that loses what was not synced |
//! | `net`, `client`, `ops` | connections, what clients ask, and how they behave |
//! | `peers` | connections between servers, and networks that come apart |
//! | `faults`, `finish` | what goes wrong; and the end, where all must come to rest and fit together |
//! | `history`, `check`, `model` | what clients saw, and the checker that compares it with the committed log (T-HIST) |
//! | `bad_histories` | tests of the checker |
//! | `report` | one seed from beginning to end, and how its failure is told |

#[cfg(test)]
mod bad_histories;
pub mod check;
pub mod client;
pub mod disk;
pub mod faults;
pub mod finish;
pub mod history;
pub mod model;
pub mod net;
pub mod ops;
pub mod peers;
pub mod report;
pub mod server;
pub mod shape;
pub mod storage;
pub mod world;
