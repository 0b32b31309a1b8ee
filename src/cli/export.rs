//! `export`: writes the data for Apache ZooKeeper, the way back.

use std::path::Path;
use std::process::ExitCode;

use super::EXIT_FAILED;
use crate::config::Config;

/// The server must be stopped. Says where everything is, and up to which transaction.
pub fn export(config: &Config, target: Option<&Path>) -> ExitCode {
    match crate::server::export(config, target) {
        Ok(exported) => {
            for warning in &exported.warnings {
                eprintln!("{warning}");
            }
            for moved in &exported.moved {
                println!("what was there is now {}", moved.display());
            }
            for directory in &exported.directories {
                println!("written: {}", directory.display());
            }
            println!(
                "snapshot {}, {} transactions behind it, up to {}",
                exported.snapshot, exported.entry_count, exported.zxid
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
