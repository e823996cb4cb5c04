//! What can go wrong in a verb, and the one question a caller asks of it: try again, and when.

use thiserror::Error as ThisError;

/// When the same verb is worth trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The reason passes by itself (a server restarting): within about a second.
    Soon,
    /// The reason may pass: with growing pauses.
    Backoff,
    /// Not before something else changes (the manifest, the node).
    Never,
}

/// What a verb's failure was. Each message names the object and what was being done to it.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The runtime does not answer.
    #[error("{doing}: the runtime is not reachable: {cause}")]
    Unavailable {
        /// What was being done, to which object.
        doing: String,
        /// What the transport said.
        cause: String,
    },
    /// The verb's deadline passed; its effect is unknown.
    #[error("{doing}: no answer within {seconds} s")]
    Deadline {
        /// What was being done, to which object.
        doing: String,
        /// The deadline, in seconds.
        seconds: u64,
    },
    /// An object that the verb needs is not there (an image to create from, a container to exec in).
    #[error("{doing}: {what} does not exist")]
    NotFound {
        /// What was being done, to which object.
        doing: String,
        /// What is missing.
        what: String,
    },
    /// The object is not in the state the verb needs (exec in a container that does not run).
    #[error("{doing}: {cause}")]
    State {
        /// What was being done, to which object.
        doing: String,
        /// The state found.
        cause: String,
    },
    /// The spec can never work.
    #[error("{doing}: {cause}")]
    Invalid {
        /// What was being done, to which object.
        doing: String,
        /// What is wrong with it.
        cause: String,
    },
    /// This runtime cannot do it at all.
    #[error("{doing}: not supported by this runtime: {what}")]
    Unsupported {
        /// What was being done, to which object.
        doing: String,
        /// What is not supported.
        what: String,
    },
    /// The object exists but does not bear our mark.
    #[error("{doing}: it does not belong to this agent (label podstead.dev/owner)")]
    NotOurs {
        /// What was being done, to which object.
        doing: String,
    },
    /// The registry or its credentials refused.
    #[error("{doing}: access denied: {cause}")]
    Denied {
        /// What was being done, to which image.
        doing: String,
        /// The registry's words.
        cause: String,
    },
    /// Anything else: worth trying again with growing pauses.
    #[error("{doing}: {cause}")]
    Failed {
        /// What was being done, to which object.
        doing: String,
        /// The runtime's words.
        cause: String,
    },
}

/// A verb's answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::Soon,
            Self::Invalid { .. } | Self::Unsupported { .. } | Self::NotOurs { .. } => Retry::Never,
            _ => Retry::Backoff,
        }
    }

    /// Shorthand for [`Error::Failed`].
    pub fn failed(doing: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Failed { doing: doing.into(), cause: cause.to_string() }
    }

    /// Shorthand for [`Error::Invalid`].
    pub fn invalid(doing: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Invalid { doing: doing.into(), cause: cause.to_string() }
    }

    /// Shorthand for [`Error::NotFound`].
    pub fn not_found(doing: impl Into<String>, what: impl Into<String>) -> Self {
        Self::NotFound { doing: doing.into(), what: what.into() }
    }
}
