//! Between the contract's types and the wire's. Pure: no I/O, no clock; what depends on the node comes in as
//! an argument.

mod from_wire;
mod to_wire;
mod words;

pub use from_wire::{
    BrokenOff, attributes, container, container_stats, image, image_fs, sandbox, sandbox_stats,
    start_broken_off, state_of_sandbox,
};
pub use to_wire::{Node, auth, container_config, image_spec, resources, sandbox_config};

/// Private annotation of containers: the image as the user wrote it. Servers answer with a name of their own
/// choice among those of the image, so this is where [`podstead_runtime::Container::image`] comes back from.
/// Never shown.
pub const IMAGE_AS_WRITTEN: &str = "podstead.dev/image";

/// Why a spec cannot be said on the wire. Trying again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A path with bytes that are not UTF-8; protobuf has no place for them.
    #[error("{what} {path:?} is not UTF-8, which the CRI requires")]
    NotUtf8 {
        /// Which path.
        what: &'static str,
        /// The path, as far as it can be shown.
        path: std::path::PathBuf,
    },
    /// A log path that leaves the pod's log directory.
    #[error("log path {0:?} must be relative and stay inside the pod's log directory")]
    LogPath(std::path::PathBuf),
    /// A stop signal that the CRI has no name for.
    #[error("stop signal {0:?} is unknown; use a name such as SIGTERM, SIGUSR1 or SIGRTMIN+3")]
    Signal(String),
    /// A limit for huge pages that the node cannot enforce.
    #[error("huge page size {0} cannot be limited on this node (no such page size or no hugetlb controller)")]
    HugePages(String),
    /// A log path without a directory to be relative to.
    #[error("log path {0:?} is given, but the sandbox has no log directory")]
    NoLogDirectory(std::path::PathBuf),
}
