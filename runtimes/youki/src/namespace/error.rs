//! What can go wrong while namespaces are made, pinned or entered. Pure.

use std::{io, path::PathBuf};

use rustix::io::Errno;

/// A failure of [`pin`](super::pin), [`unpin`](super::unpin), [`enter_net`](super::enter_net) or
/// [`addresses`](super::addresses).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec contradicts itself; correct the pod.
    #[error("the sandbox's namespaces cannot be made: {0}")]
    Spec(String),
    /// A sysctl is not one that belongs to a namespace of this pod; correct the pod.
    #[error("sysctl {name:?} is refused: {reason}")]
    SysctlName {
        /// The name as it was given.
        name: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// The kernel has no such sysctl in this namespace, or refused the value.
    #[error("setting sysctl {name} to {value:?} in the pod's namespaces: {source}")]
    Sysctl {
        /// The name as it was given.
        name: String,
        /// The value as it was given.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file or directory of the pins could not be used.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A kernel call that names no file failed.
    #[error("{doing}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path is not a namespace, for example a file left from before a reboot; pin it again.
    #[error("{} is not a pinned network namespace", .0.display())]
    NotNamespace(PathBuf),
    /// The thread that worked inside the namespace panicked.
    #[error("the thread inside {} panicked", .0.display())]
    Panicked(PathBuf),
}

impl Error {
    /// Whether the same call may succeed later although nobody changes the pod or the node's settings.
    pub fn retryable(&self) -> bool {
        let (Self::File { source, .. } | Self::Call { source, .. }) = self else {
            return false;
        };
        // ENOSPC is also what the kernel says when user.max_net_namespaces is reached.
        let passing = [
            Errno::AGAIN,
            Errno::INTR,
            Errno::NOMEM,
            Errno::NOSPC,
            Errno::MFILE,
            Errno::NFILE,
            Errno::BUSY,
            Errno::NOBUFS,
        ];
        source.raw_os_error().is_some_and(|code| passing.iter().any(|e| e.raw_os_error() == code))
    }
}
