//! The client: what it holds, and the contract's verbs, each handed to the file of its subject.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::Stream;
use podstead_runtime::{
    Auth, CgroupDriver, ContainerId, ContainerSpec, ContainerStats, ExecOutput, ExecSpec, ExecStreams, Hint,
    Image, ImageFs, ImageSpec, LinuxResources, PullProgress, Result, Runtime, RuntimeInfo, RuntimeStatus,
    SandboxId, SandboxSpec, SandboxStats, Snapshot,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::channel::{self, EndpointError};
use crate::observe::Details;
use crate::once::Flights;
use crate::proto::image_service_client::ImageServiceClient;
use crate::proto::runtime_service_client::RuntimeServiceClient;
use crate::{Options, call, convert, hints, node, proto, stream};

/// Largest answer taken: what CRI servers send at most (16 MiB), twice, for a command that fills both outputs.
const MAX_MESSAGE: usize = 33 << 20;

/// A CRI server as a runtime. Cheap to clone; clones share one connection and one memory of what was seen.
#[derive(Clone, Debug)]
pub struct Cri {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    channel: Channel,
    /// The same, unless another server keeps the images.
    image_channel: Channel,
    pub(crate) options: Options,
    pub(crate) hugepage_sizes: BTreeSet<String>,
    /// Ids known to bear our mark. Labels never change and ids are never used again.
    ours: Mutex<HashSet<String>>,
    /// What the last [`Runtime::observe`] learned beyond the listings.
    pub(crate) details: Mutex<Details>,
    /// Sandboxes and containers that are being made or started now.
    pub(crate) flights: Flights,
    /// Counts the verbs that make things run, so that hints look more often from then on.
    pub(crate) activity: watch::Sender<u64>,
}

impl Cri {
    /// A client of the server at `endpoint` (`unix:///path`). Nothing is connected before the first call; calls
    /// made while the server is away fail with [`podstead_runtime::Error::Unavailable`].
    pub fn connect(endpoint: &str, options: Options) -> Result<Self, EndpointError> {
        let channel = channel::lazy(channel::socket_path(endpoint)?);
        let image_channel = match &options.image_endpoint {
            Some(other) => channel::lazy(channel::socket_path(other)?),
            None => channel.clone(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                channel,
                image_channel,
                options,
                hugepage_sizes: node::hugepage_sizes(),
                ours: Mutex::default(),
                details: Mutex::default(),
                flights: Flights::default(),
                activity: watch::Sender::new(0),
            }),
        })
    }

    /// The cgroup driver the server wants followed; `None` from one too old to say (before CRI 0.28).
    pub async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.inner.cgroup_driver().await
    }

    /// Connects `streams` to a running container's main process until it ends or the streams do.
    pub async fn attach(&self, id: &ContainerId, tty: bool, streams: ExecStreams) -> Result<()> {
        stream::attach(&self.inner, id, tty, streams).await
    }
}

impl Inner {
    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn image_service(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.image_channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The ordinary deadline.
    pub(crate) fn limit(&self) -> Duration {
        self.options.request_timeout
    }

    pub(crate) fn remember(&self, id: &str) {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    }

    pub(crate) fn is_known(&self, id: &str) -> bool {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Forgets all ids but these, which a listing has just shown.
    pub(crate) fn remember_only(&self, ids: HashSet<String>) {
        *self.ours.lock().unwrap_or_else(PoisonError::into_inner) = ids;
    }

    pub(crate) fn mark(&self) -> HashMap<String, String> {
        HashMap::from([(podstead_runtime::labels::OWNER.to_owned(), self.options.owner.clone())])
    }

    pub(crate) fn bears_mark(&self, labels: &HashMap<String, String>) -> bool {
        labels.get(podstead_runtime::labels::OWNER) == Some(&self.options.owner)
    }

    pub(crate) fn something_runs(&self) {
        self.activity.send_modify(|count| *count += 1);
    }

    async fn version(&self) -> Result<RuntimeInfo> {
        let limit = Some(self.limit());
        let mut client = self.runtime();
        let request = call::request(proto::VersionRequest { version: "v1".into() }, limit);
        let answer = call::within(|| "ask for the version".into(), limit, client.version(request)).await?;
        Ok(RuntimeInfo {
            name: answer.runtime_name,
            version: answer.runtime_version,
            api_version: answer.runtime_api_version,
        })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let limit = Some(self.limit());
        let mut client = self.runtime();
        let request = call::request(proto::StatusRequest { verbose: false }, limit);
        let answer = call::within(|| "ask for the status".into(), limit, client.status(request)).await?;
        let conditions = answer.status.unwrap_or_default().conditions;
        let strict_groups = answer.features.unwrap_or_default().supplemental_groups_policy;
        let default_handler = answer
            .runtime_handlers
            .into_iter()
            .find(|handler| handler.name.is_empty())
            .and_then(|handler| handler.features)
            .unwrap_or_default();
        Ok(RuntimeStatus {
            runtime_problem: problem(&conditions, "RuntimeReady"),
            network_problem: problem(&conditions, "NetworkReady"),
            cgroup_driver: self.cgroup_driver().await?,
            recursive_read_only: default_handler.recursive_read_only_mounts,
            user_namespaces: default_handler.user_namespaces,
            strict_groups,
        })
    }

    pub(crate) async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        let limit = Some(self.limit());
        let mut client = self.runtime();
        let request = call::request(proto::RuntimeConfigRequest {}, limit);
        let doing = || "ask for the cgroup driver".into();
        match call::within(doing, limit, client.runtime_config(request)).await {
            Ok(answer) => Ok(answer.linux.map(|linux| match linux.cgroup_driver() {
                proto::CgroupDriver::Systemd => CgroupDriver::Systemd,
                proto::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
            })),
            Err(podstead_runtime::Error::Unsupported { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let limit = Some(self.limit());
        let mut client = self.runtime();
        let filter = proto::ContainerStatsFilter { label_selector: self.mark(), ..Default::default() };
        let request = call::request(proto::ListContainerStatsRequest { filter: Some(filter) }, limit);
        let call = client.list_container_stats(request);
        let answer = call::within(|| "list container stats".into(), limit, call).await?;
        Ok(answer.stats.into_iter().map(convert::container_stats).collect())
    }

    async fn sandbox_stats(&self) -> Result<Vec<SandboxStats>> {
        let limit = Some(self.limit());
        let mut client = self.runtime();
        let filter = proto::PodSandboxStatsFilter { label_selector: self.mark(), ..Default::default() };
        let request = call::request(proto::ListPodSandboxStatsRequest { filter: Some(filter) }, limit);
        let call = client.list_pod_sandbox_stats(request);
        match call::within(|| "list sandbox stats".into(), limit, call).await {
            Ok(answer) => Ok(answer.stats.into_iter().map(convert::sandbox_stats).collect()),
            Err(podstead_runtime::Error::Unsupported { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Why a condition does not hold; `None` when it does. A server that does not report it is not ready.
fn problem(conditions: &[proto::RuntimeCondition], name: &str) -> Option<String> {
    match conditions.iter().find(|condition| condition.r#type == name) {
        Some(condition) if condition.status => None,
        Some(condition) => Some(format!("{}: {}", condition.reason, condition.message)),
        None => Some(format!("the server does not report {name}")),
    }
}

impl Runtime for Cri {
    async fn version(&self) -> Result<RuntimeInfo> {
        self.inner.version().await
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        self.inner.status().await
    }

    async fn observe(&self) -> Result<Snapshot> {
        self.inner.observe().await
    }

    fn hints(&self) -> impl Stream<Item = Hint> + Send + Unpin + 'static + use<> {
        hints::stream(Arc::clone(&self.inner))
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        self.inner.run_sandbox(spec).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.inner.stop_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.inner.remove_sandbox(id).await
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId> {
        self.inner.create_container(sandbox, spec, sandbox_spec).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.inner.start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.inner.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.inner.remove_container(id).await
    }

    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        self.inner.update_resources(id, resources).await
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        self.inner.reopen_log(id).await
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        self.inner.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: ExecStreams) -> Result<i32> {
        stream::exec(&self.inner, id, spec, streams).await
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        self.inner.container_stats().await
    }

    async fn sandbox_stats(&self) -> Result<Vec<SandboxStats>> {
        self.inner.sandbox_stats().await
    }

    async fn pull_image(&self, image: &ImageSpec, auth: &Auth, progress: PullProgress) -> Result<String> {
        self.inner.pull_image(image, auth, &progress).await
    }

    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>> {
        self.inner.image(image).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.inner.images().await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        self.inner.remove_image(image).await
    }

    async fn image_fs(&self) -> Result<Vec<ImageFs>> {
        self.inner.image_fs().await
    }
}
