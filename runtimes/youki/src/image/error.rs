//! The errors of the image store, and the few kinds a caller must tell apart.

use std::io;
use std::path::PathBuf;

/// What went wrong with an image, said so that a person knows what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not an image reference.
    #[error("\"{name}\" is not a valid image name: {reason}")]
    InvalidName {
        /// The text as given.
        name: String,
        /// Why it was refused.
        reason: String,
    },
    /// The image, or the thing asked for, does not exist, here or at the registry.
    #[error("{what} was not found {place}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where: "in the local store", "at registry example.org".
        place: String,
    },
    /// The registry did not answer, or answered that it cannot serve now. Trying again may help.
    #[error("registry {registry} is not available for {what}: {reason}")]
    Unavailable {
        /// Host (and port) of the registry.
        registry: String,
        /// What was being fetched.
        what: String,
        /// What the network or the registry said.
        reason: String,
    },
    /// The registry refused the credentials, or wants some.
    #[error(
        "registry {registry} refused access to {what}: {reason}; check the pull credentials and the name"
    )]
    Denied {
        /// Host (and port) of the registry.
        registry: String,
        /// What was being fetched.
        what: String,
        /// What the registry said.
        reason: String,
    },
    /// Content does not match its digest, is malformed, hostile, or beyond a limit. It was not kept.
    #[error("{what} is refused: {reason}")]
    Corrupt {
        /// The layer, manifest, archive or file.
        what: String,
        /// Why it was refused.
        reason: String,
    },
    /// The image is used by a container.
    #[error("image {id} is in use; remove its containers first")]
    InUse {
        /// The image id.
        id: String,
    },
    /// The file system of the store is full (blocks, inodes or quota).
    #[error("no space left while {doing} {}; free some on that file system", path.display())]
    NoSpace {
        /// What was being done.
        doing: String,
        /// To which file.
        path: PathBuf,
    },
    /// Another failure of the file system.
    #[error("{doing} {} failed: {source}", path.display())]
    Io {
        /// What was being done.
        doing: String,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The caller gave up (its future was dropped) or the process is shutting down.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was being done.
        what: String,
    },
}

/// The kinds of [`Error`], for deciding between "never", "later" and "someone must act".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The name can never work (the kubelet's InvalidImageName).
    InvalidName,
    /// Not there.
    NotFound,
    /// Try again later.
    Unavailable,
    /// Credentials are missing or wrong.
    Denied,
    /// The content is not what it claims to be, or is refused for safety.
    Corrupt,
    /// Used by a container.
    InUse,
    /// The disk is full.
    NoSpace,
    /// Another local failure.
    Io,
    /// Given up by the caller.
    Cancelled,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidName { .. } => ErrorKind::InvalidName,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Io { .. } => ErrorKind::Io,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
        }
    }

    /// A failed system call; a full disk becomes [`Error::NoSpace`].
    pub(crate) fn io(
        doing: impl Into<String>,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        let (doing, path, source) = (doing.into(), path.into(), source.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { doing, path },
            _ => Self::Io { doing, path, source },
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn not_here(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into(), place: "in the local store".to_owned() }
    }
}

/// The result of everything in [`crate::image`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
