//! The contract between podstead's agent and a container runtime. Plain data and one trait: no gRPC, no OCI, no I/O.
//!
//! A runtime is whatever keeps the promises of [`Runtime`]; the `suite` feature holds them as tests that run against every
//! implementation. The specs say everything the CRI v1 can say, so that a contract can later be served as CRI.

pub mod container;
pub mod error;
pub mod id;
pub mod image;
pub mod labels;
pub mod resolver;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod snapshot;
pub mod stats;
pub mod status;
pub mod stream;
#[cfg(feature = "suite")]
pub mod suite;
pub mod time;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use futures_core::Stream;

pub use container::{ContainerSpec, Device, EnvVar, ImageVolume, Mount, Propagation};
pub use error::{Error, Result, Retry};
pub use id::{ContainerId, PodUid, SandboxId};
pub use image::{Auth, Image, ImageFs, ImageSpec, PullProgress};
pub use resources::LinuxResources;
pub use sandbox::{DnsConfig, PodIdentity, PortMapping, Protocol, SandboxSpec};
pub use security::{ContainerSecurity, NamespaceMode, Namespaces, Profile, SandboxSecurity, SelinuxOptions};
pub use snapshot::{Container, ContainerState, START_BROKEN_OFF, Sandbox, SandboxState, Snapshot};
pub use stats::{ContainerStats, SandboxStats};
pub use status::{CgroupDriver, RuntimeInfo, RuntimeStatus};
pub use stream::{ExecOutput, ExecSpec, ExecStreams, TerminalSize};
pub use time::Time;

/// "Look again": never a fact, may be lost, may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Something of this pod may have changed.
    Pod(PodUid),
    /// Anything may have changed.
    Everything,
}

/// A container runtime, as the agent uses it.
///
/// Promises, each a case of the suite:
/// - every verb may be called twice with the same arguments and has the effect of once; "already so" and
///   "not there any more" are successes;
/// - no verb decides and no verb retries;
/// - only objects that bear the owner's mark ([`labels::OWNER`]) are ever seen or changed: a verb on another's
///   object is [`Error::NotOurs`];
/// - a dropped future leaves nothing half-made that a later call would believe.
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime.
    fn version(&self) -> impl Future<Output = Result<RuntimeInfo>> + Send;

    /// Whether the runtime and its network can start pods now.
    fn status(&self) -> impl Future<Output = Result<RuntimeStatus>> + Send;

    /// All that is ours, in one reading.
    fn observe(&self) -> impl Future<Output = Result<Snapshot>> + Send;

    /// Wake-ups. The first item is always [`Hint::Everything`]; the stream never ends while the runtime lives.
    fn hints(&self) -> impl Stream<Item = Hint> + Send + Unpin + 'static + use<Self>;

    /// Makes a pod's sandbox; its key is pod uid and attempt. Answers the existing one's id when there is one.
    fn run_sandbox(&self, spec: &SandboxSpec) -> impl Future<Output = Result<SandboxId>> + Send;

    /// Kills every container in the sandbox that still runs (without grace) and gives its network back.
    fn stop_sandbox(&self, id: &SandboxId) -> impl Future<Output = Result<()>> + Send;

    /// Removes the sandbox and all its containers.
    fn remove_sandbox(&self, id: &SandboxId) -> impl Future<Output = Result<()>> + Send;

    /// Makes a container, not yet running; its key is sandbox, name and attempt. The image must be present. One of this
    /// key whose start was [broken off](START_BROKEN_OFF) before anything ran is made anew, with another id.
    fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> impl Future<Output = Result<ContainerId>> + Send;

    /// Starts a created container. One that runs already, or has exited since, is a success.
    fn start_container(&self, id: &ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Sends the stop signal, waits `grace`, kills. Returns when the container is no longer running.
    fn stop_container(&self, id: &ContainerId, grace: Duration) -> impl Future<Output = Result<()>> + Send;

    /// Removes a container; one that runs is killed first. Its log file stays.
    fn remove_container(&self, id: &ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Changes the resources of a created or running container in place.
    fn update_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Opens the log file anew at its path, after the agent has renamed the old one (rotation).
    fn reopen_log(&self, id: &ContainerId) -> impl Future<Output = Result<()>> + Send;

    /// Runs a command in a running container and returns what it printed. `timeout` zero means none.
    fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> impl Future<Output = Result<ExecOutput>> + Send;

    /// Runs a command with its streams connected; resolves to its exit code.
    fn exec(
        &self,
        id: &ContainerId,
        spec: &ExecSpec,
        streams: ExecStreams,
    ) -> impl Future<Output = Result<i32>> + Send;

    /// Use of resources by every container of ours.
    fn container_stats(&self) -> impl Future<Output = Result<Vec<ContainerStats>>> + Send;

    /// Use of resources by every sandbox of ours; empty where the runtime keeps none.
    fn sandbox_stats(&self) -> impl Future<Output = Result<Vec<SandboxStats>>> + Send;

    /// Pulls an image and answers its id. Dropping the future stops the pull.
    fn pull_image(
        &self,
        image: &ImageSpec,
        auth: &Auth,
        progress: PullProgress,
    ) -> impl Future<Output = Result<String>> + Send;

    /// Imports an archive or layout from the node's disk and answers the names it brought. Not every runtime can.
    fn import_image(
        &self,
        path: &Path,
        name: Option<&str>,
        progress: PullProgress,
    ) -> impl Future<Output = Result<Vec<String>>> + Send {
        let _ = (name, progress);
        let doing = format!("import {}", path.display());
        async move {
            Err(Error::Unsupported { doing, what: "images are imported with the runtime's own tool".into() })
        }
    }

    /// The image a reference means, or `None` when it is not present.
    fn image(&self, image: &ImageSpec) -> impl Future<Output = Result<Option<Image>>> + Send;

    /// All images present.
    fn images(&self) -> impl Future<Output = Result<Vec<Image>>> + Send;

    /// Removes an image (by reference: that name; by id: all its names). Absent is a success.
    fn remove_image(&self, image: &ImageSpec) -> impl Future<Output = Result<()>> + Send;

    /// Where images are kept and how full that is.
    fn image_fs(&self) -> impl Future<Output = Result<Vec<ImageFs>>> + Send;
}
