//! The command line: `serve`, and the verbs of `zkServer.sh`.
//!
//! Exit codes are ZooKeeper's: 0 for a normal end, 1 for a verb that failed, 2 for arguments or a configuration that
//! cannot be used (said on standard error, with `Invalid config, exiting abnormally` for whoever greps it). What the
//! server itself returns is passed on.

mod control;
// Like `serve`, it works with the real state machines.
#[cfg(not(test))]
mod export;
mod gather;
mod inspect;
mod logging;
mod probe;
mod process;
// It runs the server with its real state machines, which the shell's own unit tests do without.
#[cfg(not(test))]
pub mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Level, Notice};
use crate::server::tls::Acceptor;
use crate::words::VERSION;
pub use logging::LogGuard;

/// Exit code of a verb that did not do what was asked.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of bad arguments or a bad configuration.
pub const EXIT_INVALID: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "ringkeeper", version = VERSION, about = "A drop-in replacement for Apache ZooKeeper")]
struct Arguments {
    /// Directory configuration files are looked for in, as ZOOCFGDIR.
    #[arg(long = "config", global = true, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve in the foreground. Without arguments: 127.0.0.1:2181, data in ./data.
    #[command(visible_alias = "start-foreground")]
    Serve(ServerArguments),
    /// Start in the background and wait until clients are served.
    Start(ServerArguments),
    /// Stop what `start` started.
    Stop(ServerArguments),
    /// Stop, then start.
    Restart(ServerArguments),
    /// Ask the server for its mode.
    Status(ServerArguments),
    /// Print the command `start` runs.
    PrintCmd(ServerArguments),
    /// Check a configuration and say what is to be said about it.
    Check(ServerArguments),
    /// Tell what is in a log or snapshot file.
    Inspect {
        /// The file.
        file: PathBuf,
    },
    /// Write the data of a stopped server as a version-2 directory, for Apache ZooKeeper.
    Export {
        /// The configuration file of the server.
        #[arg(value_name = "ZOO.CFG")]
        config: String,
        /// Where to make version-2; by default where the configuration has its data. One that is there is moved aside.
        directory: Option<PathBuf>,
        /// Any key of the configuration; wins over the file. May be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
    },
    /// Print the version.
    Version,
}

/// What a server is started from.
#[derive(Debug, Clone, Default, Args)]
struct ServerArguments {
    /// A configuration file, or: PORT DATADIR [TICKTIME] [MAXCLIENTCNXNS].
    #[arg(value_name = "ZOO.CFG", num_args = 0..=4)]
    words: Vec<String>,
    /// Any key of the configuration; wins over the file. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Cores to run on: a count (2), a list (0,2-3), or all. The same as --set ringkeeper.cores=...
    #[arg(long)]
    cores: Option<String>,
    /// Leave the terminal: how `start` runs the server.
    #[arg(long, hide = true)]
    detached: bool,
}

/// Runs a server until it is told to stop. Called on the main thread, with logging set up and with absolute directories in
/// the configuration; it calls [`LogGuard::in_background`] once it has taken over the stop signals.
pub type Server = fn(Config, &LogGuard) -> ExitCode;

/// The whole program.
pub fn main(serve: Server) -> ExitCode {
    let Arguments { config_dir, verb } = Arguments::parse();
    let gather = |arguments: &ServerArguments| gather::gather(arguments, config_dir.as_deref(), &environment);
    let with_config =
        |arguments: &ServerArguments, act: &dyn Fn(gather::Gathered) -> ExitCode| match gather(arguments) {
            Ok(gathered) => act(gathered),
            Err(error) => refuse(&error),
        };
    match verb {
        Verb::Serve(arguments) => with_config(&arguments, &|gathered| {
            if arguments.detached {
                process::leave_terminal();
            }
            let log =
                logging::start(gathered.config.log_format, gathered.config.log_level, gathered.config.my_id);
            tell(&gathered.notices);
            serve(gathered.config, &log)
        }),
        Verb::Start(arguments) => with_config(&arguments, &|gathered| control::start(&arguments, &gathered)),
        Verb::Stop(arguments) => with_config(&arguments, &|gathered| control::stop(&gathered)),
        Verb::Restart(arguments) => {
            with_config(&arguments, &|gathered| control::restart(&arguments, &gathered))
        }
        Verb::Status(arguments) => with_config(&arguments, &|gathered| control::status(&gathered)),
        Verb::PrintCmd(arguments) => {
            with_config(&arguments, &|gathered| control::print_command(&arguments, &gathered))
        }
        Verb::Check(arguments) => with_config(&arguments, &|gathered| {
            for notice in &gathered.notices {
                println!("{:?}: {notice}", notice.level());
            }
            // What the configuration names is a part of it.
            if let Some(Err(error)) = gathered.config.client_tls.as_ref().map(Acceptor::new) {
                eprintln!("{error}");
                eprintln!("Invalid config, exiting abnormally");
                return ExitCode::from(EXIT_INVALID);
            }
            println!("the configuration is sound");
            ExitCode::SUCCESS
        }),
        Verb::Inspect { file } => inspect::inspect(&file),
        Verb::Export { config, directory, sets } => {
            let arguments = ServerArguments { words: vec![config], sets, ..ServerArguments::default() };
            with_config(&arguments, &|gathered| exported(&gathered.config, directory.as_deref()))
        }
        Verb::Version => {
            println!("ringkeeper, version {VERSION}");
            ExitCode::SUCCESS
        }
    }
}

#[cfg(not(test))]
use export::export as exported;

/// Without the state machines there is nothing to export.
#[cfg(test)]
fn exported(_: &Config, _: Option<&std::path::Path>) -> ExitCode {
    ExitCode::from(EXIT_FAILED)
}

/// One variable; a value that is not UTF-8 is taken with replacement characters.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

fn refuse(error: &ConfigError) -> ExitCode {
    eprintln!("{error}");
    eprintln!("Invalid config, exiting abnormally");
    ExitCode::from(EXIT_INVALID)
}

fn tell(notices: &[Notice]) {
    for notice in notices {
        match notice.level() {
            Level::Info => tracing::info!("{notice}"),
            Level::Warn => tracing::warn!("{notice}"),
            Level::Error => tracing::error!("{notice}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn verbs_and_their_arguments_parse() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["ringkeeper"], words].concat());
        let Verb::Serve(serve) =
            parse(&["serve", "2181", "/d", "--set", "a=b", "--set", "c=d", "--cores", "0,1"]).unwrap().verb
        else {
            panic!("serve is serve");
        };
        assert_eq!(serve.words, ["2181", "/d"]);
        assert_eq!(serve.sets, ["a=b", "c=d"]);
        assert_eq!(serve.cores.as_deref(), Some("0,1"));
        assert!(matches!(parse(&["start-foreground", "zoo.cfg"]).unwrap().verb, Verb::Serve(_)));
        assert!(matches!(parse(&["print-cmd"]).unwrap().verb, Verb::PrintCmd(_)));
        let status = parse(&["--config", "/etc/zookeeper", "status"]).unwrap();
        assert_eq!(status.config_dir.unwrap(), PathBuf::from("/etc/zookeeper"));
        assert_eq!(parse(&["serve", "1", "2", "3", "4", "5"]).unwrap_err().exit_code(), 2);
        let Verb::Export { config, directory, .. } = parse(&["export", "zoo.cfg", "/away"]).unwrap().verb
        else {
            panic!("export is export");
        };
        assert_eq!((config.as_str(), directory), ("zoo.cfg", Some(PathBuf::from("/away"))));
        assert_eq!(parse(&["export"]).unwrap_err().exit_code(), 2);
        assert_eq!(parse(&["bogus"]).unwrap_err().exit_code(), 2);
    }
}
