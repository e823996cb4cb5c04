//! What can go wrong with a node for tests. Pure data.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::agent;

/// What can go wrong with a node for tests.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file or directory of the node's.
    #[error("{path}: {source}")]
    File {
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// There is no podstead binary to start shims from.
    #[error(
        "no podstead binary to start container shims from: build it (`cargo build`), or name one with \
         Builder::binary or PODSTEAD_SHIM, or install it (`cargo install`)"
    )]
    NoBinary,
    /// Without root there are no namespaces, mounts and cgroups.
    #[error("a node needs root: run the tests with it (`sudo -E cargo test`)")]
    NotRoot,
    /// The runtime could not be opened.
    #[error("open the runtime: {0}")]
    Open(String),
    /// The agent could not be started.
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    /// A verb of the runtime.
    #[error(transparent)]
    Runtime(#[from] podstead_runtime::Error),
    /// Something did not come in time.
    #[error("{what} did not come within {} s; last seen: {seen}", .patience.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
        /// The state then.
        seen: String,
    },
    /// The pod has no such container.
    #[error("pod {pod} has no container {container}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
}
