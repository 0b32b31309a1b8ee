//! `serve`: hands the configuration to the server.

use std::process::ExitCode;

use super::{EXIT_INVALID, LogGuard};
use crate::config::Config;
use crate::io::sys::StopSignals;

/// Runs the server this configuration describes until it is told to stop; the result is the process's exit code.
pub fn serve(config: Config, log: &LogGuard) -> ExitCode {
    let started = std::time::Instant::now();
    // Before any other thread is made, so that all of them inherit the mask: a stop signal that found one thread open to
    // it would end the process on the spot. The server makes its own instance and takes the signals from that.
    let _blocked = match StopSignals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!("cannot take over the stop signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    log.in_background();
    let code = crate::server::run(&config, started);
    if code == i32::from(EXIT_INVALID) {
        eprintln!("Invalid config, exiting abnormally");
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
