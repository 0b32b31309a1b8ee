//! Arguments and configuration, then the server. All of it is in [`ringkeeper::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ringkeeper::cli::main(ringkeeper::cli::serve::serve)
}
