//! Why a run failed: one line.

use std::fmt;
use std::io;

use ringkeeper::client::{ClientError, ReplyError};
use ringkeeper::jute::JuteError;

/// What is told to the user, whole.
#[derive(Debug)]
pub struct Failure(pub String);

pub type Result<T> = std::result::Result<T, Failure>;

/// Returns a [`Failure`] from the function around it.
#[macro_export]
macro_rules! fail {
    ($($argument:tt)*) => { return Err($crate::failure::Failure(format!($($argument)*))) };
}

/// Says what was being done when an error came.
pub trait Context<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{doing}: {error}")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<ReplyError> for Failure {
    fn from(error: ReplyError) -> Failure {
        Failure(format!("the server broke the protocol: {error}"))
    }
}

impl From<JuteError> for Failure {
    fn from(error: JuteError) -> Failure {
        Failure(format!("the server broke the protocol: {error}"))
    }
}
