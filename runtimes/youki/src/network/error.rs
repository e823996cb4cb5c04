//! What can go wrong with the pod network. Pure.

use std::{io, path::PathBuf, time::Duration};

/// A failure of [`Network`](super::Network).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no usable network configuration on the node. The text says what to do.
    #[error("{0}")]
    NoNetwork(String),
    /// Something of the pod cannot be passed on to plugins.
    #[error("the network of sandbox {sandbox:?} cannot be set up: {reason}")]
    Request {
        /// The sandbox's ID as it was given.
        sandbox: String,
        /// What is wrong.
        reason: String,
    },
    /// A file or directory of the client could not be used.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The record of what was set up for a sandbox cannot be read.
    #[error(
        "the record {} of a sandbox's network is broken ({reason}); undo what the plugins did by hand, then remove it",
        path.display()
    )]
    Record {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There was no ADD for this sandbox, or it did not end well.
    #[error("sandbox {0} is not attached to a network")]
    NotAttached(String),
    /// No directory has the plugin's program.
    #[error("CNI plugin {plugin:?} of network {network:?} is in none of {searched}; install it there")]
    PluginMissing {
        /// The plugin's `type`.
        plugin: String,
        /// The network's name.
        network: String,
        /// The directories that were searched.
        searched: String,
    },
    /// Another process has been at this sandbox's network for too long.
    #[error("another process is changing the network of sandbox {0} and does not come to an end; end it")]
    Busy(String),
    /// Plugins of a process that was killed could not be ended.
    #[error("ending CNI plugins that were left running for sandbox {sandbox}: {source}")]
    Orphans {
        /// The sandbox's ID.
        sandbox: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The plugin's program could not be run.
    #[error("running CNI plugin {} for {command}: {source}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// The CNI operation.
        command: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The plugin ran and did not do its work.
    #[error(transparent)]
    Plugin(#[from] Box<PluginError>),
    /// The task that touches files was cancelled, because the process ends.
    #[error("the network client is shutting down")]
    ShuttingDown,
}

/// A plugin that did not do its work.
#[derive(Debug, thiserror::Error)]
#[error("CNI plugin {plugin}, {command}{}: {fault}", of(sandbox))]
pub struct PluginError {
    /// The plugin's `type`.
    pub plugin: String,
    /// The CNI operation.
    pub command: &'static str,
    /// The sandbox's ID; empty when the operation is about no sandbox.
    pub sandbox: String,
    /// What happened.
    pub fault: Fault,
}

/// In which way a plugin failed. What it printed is shortened to one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It said so, by an error result of the specification.
    #[error("{message} (code {code}){}", join(details, stderr))]
    Reported {
        /// The code, of the specification (below 100) or of the plugin.
        code: u64,
        /// The result's `msg`.
        message: String,
        /// The result's `details`; may be empty.
        details: String,
        /// What it wrote to stderr; may be empty.
        stderr: String,
    },
    /// It ended without an error result.
    #[error("it ended with {status}{}", join(output, stderr))]
    Ended {
        /// Its exit status or signal.
        status: String,
        /// Whether a signal ended it.
        signalled: bool,
        /// What it wrote to stdout; may be empty.
        output: String,
        /// What it wrote to stderr; may be empty.
        stderr: String,
    },
    /// It succeeded and printed something that is no result.
    #[error("it printed no usable result: {0}")]
    Result(String),
    /// It wrote more to stdout than any result needs and was killed.
    #[error("it wrote more than {limit} bytes and was killed")]
    TooMuchOutput {
        /// The limit in bytes.
        limit: u64,
    },
    /// It did not end in time and was killed with all it had started.
    #[error("it did not end within {after:?} and was killed{}", join("", stderr))]
    Deadline {
        /// How long it had.
        after: Duration,
        /// What it wrote to stderr; may be empty.
        stderr: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without a change of the pod. Configurations and plugins are often
    /// installed after the agent has started, so that their absence passes.
    pub fn retryable(&self) -> bool {
        match self {
            Self::NoNetwork(_)
            | Self::PluginMissing { .. }
            | Self::File { .. }
            | Self::Spawn { .. }
            | Self::Busy(_)
            | Self::Orphans { .. } => true,
            Self::Plugin(error) => error.fault.retryable(),
            Self::Request { .. } | Self::Record { .. } | Self::NotAttached(_) | Self::ShuttingDown => false,
        }
    }
}

impl Fault {
    /// The specification's codes 5 (I/O), 11 (try again later), 50 and 51 (not available, limited) pass; so may
    /// those of 100 and above, which are the plugin's own and cover for example an address range in full use.
    fn retryable(&self) -> bool {
        match self {
            Self::Reported { code, .. } => matches!(code, 5 | 11 | 50 | 51 | 100..),
            Self::Ended { signalled, .. } => *signalled,
            Self::Deadline { .. } => true,
            Self::Result(_) | Self::TooMuchOutput { .. } => false,
        }
    }
}

/// The parts that say something, each after a colon.
fn join(first: &str, second: &str) -> String {
    [first, second]
        .iter()
        .filter(|part| !part.is_empty())
        .fold(String::new(), |text, part| text + ": " + part)
}

fn of(sandbox: &str) -> String {
    if sandbox.is_empty() { String::new() } else { format!(" of sandbox {sandbox}") }
}
