//! What can go wrong in a shim.

use std::io;

use thiserror::Error as ThisError;

/// A shim's failure. Says what was being done.
#[derive(Debug, ThisError)]
pub(crate) enum Error {
    /// A call of the system.
    #[error("{doing}: {source}")]
    System {
        /// What was being done, to what.
        doing: String,
        /// The system's words.
        source: io::Error,
    },
    /// libcontainer, in its own words.
    #[error("{doing}: {cause}")]
    Container {
        /// What was being done.
        doing: &'static str,
        /// The chain of causes.
        cause: String,
    },
    /// The image's user cannot be resolved.
    #[error("find the user in the image: {0}")]
    User(#[from] crate::image::Error),
    /// The agent's words make no sense.
    #[error("{0}")]
    Asked(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Adds what was being done to a failed call.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::System { doing: what(), source: error.into() })
    }
}
