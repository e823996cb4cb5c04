//! podstead's runtime over any CRI v1 server (CRI-O, containerd): a gRPC client that keeps the promises of
//! [`podstead_runtime::Runtime`]. Touches the server's socket, its streaming address and the pods' log
//! directories; nothing else on the node.
//!
//! What the server does when a caller goes away is not left to it: see `once` for what is being made, and
//! [`convert::start_broken_off`] for what was given up halfway.

mod call;
mod channel;
mod client;
mod containers;
pub mod convert;
mod hints;
mod images;
mod node;
mod observe;
mod once;
pub mod proto;
mod sandboxes;
mod stream;

pub use channel::EndpointError;
pub use client::Cri;

use std::time::Duration;

use podstead_runtime::{CgroupDriver, labels};

/// Where CRI-O listens.
pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/crio/crio.sock";

/// How a client behaves; the default is what the agent wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Value of the label [`labels::OWNER`] on everything made; what lacks it is neither shown nor changed.
    pub owner: String,
    /// Deadline of ordinary calls (`kubelet-static-pods.md 2.8`). Twice that for making sandboxes, that and the
    /// grace for stops, that and the command's own timeout for commands, none for pulls.
    pub request_timeout: Duration,
    /// Endpoint of the image service, if it is another server's.
    pub image_endpoint: Option<String>,
    /// How cgroup parents are spelled where the server does not tell (containerd before 2.0).
    pub cgroup_driver: CgroupDriver,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owner: labels::DEFAULT_OWNER.to_owned(),
            request_timeout: Duration::from_secs(120),
            image_endpoint: None,
            cgroup_driver: CgroupDriver::Cgroupfs,
        }
    }
}
