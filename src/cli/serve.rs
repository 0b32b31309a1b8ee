//! `serve`: makes ready what the configuration names, then runs the server.

use std::process::ExitCode;

use super::{EXIT_INVALID, LogGuard};
use crate::config::Config;

/// Exit code of a data directory that cannot be used. Source: ZooKeeper `ExitCode.UNABLE_TO_ACCESS_DATADIR`.
pub const EXIT_DATA_DIRECTORY: u8 = 3;

/// Runs the server this configuration describes until it is told to stop; the result is the process's exit code.
pub fn serve(config: Config, log: &LogGuard) -> ExitCode {
    let started = std::time::Instant::now();
    log.in_background();
    let code = crate::server::run(&config, started);
    if code == i32::from(EXIT_INVALID) {
        eprintln!("Invalid config, exiting abnormally");
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
