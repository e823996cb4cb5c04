//! The direct runtime: the contract kept with namespaces, overlays, shims and CNI plugins, and no daemon. All of its
//! memory is files: any number of processes may use the same directories, any of them may be killed at any moment.
//!
//! A sandbox or container exists when its record does (`sandbox.json`, `container.json`); before, it is being made or
//! was left half-made. Each key (pod and attempt; sandbox, name and attempt) is made by one task at a time, which goes
//! on when its caller goes away.

mod begin;
mod containers;
mod describe;
mod errors;
mod exec;
mod facts;
mod flights;
mod hints;
mod images;
mod layout;
mod observe;
mod pods;
mod records;
mod removal;
mod sandboxes;
mod stats;
mod stop;
mod trees;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use podstead_runtime::{
    Auth, CgroupDriver, ContainerId, ContainerSpec, ContainerStats, ExecOutput, ExecSpec, ExecStreams, Hint,
    Image, ImageFs, ImageSpec, LinuxResources, PullProgress, Result, Runtime, RuntimeInfo, RuntimeStatus,
    SandboxId, SandboxSpec, SandboxStats, Snapshot,
};

pub use self::describe::{Described, describe};

use self::flights::Flights;
use self::layout::Layout;
use crate::bundle::NodeFacts;
use crate::image::Store;
use crate::launch::Launcher;
use crate::network::{Network, Settings, Status};
use crate::shim::users;

/// Where things are, and whose.
#[derive(Debug, Clone)]
pub struct DirectOptions {
    /// What must survive a reboot: images, records, what containers wrote, the plugins' records. Made 0700.
    pub root: PathBuf,
    /// What must not: namespaces, shims' sockets and states. Made 0700.
    pub state_dir: PathBuf,
    /// CNI configurations.
    pub cni_conf_dir: PathBuf,
    /// CNI plugins; the first directory that has one counts.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// The mark of what is ours ([`podstead_runtime::labels::OWNER`]).
    pub owner: String,
    /// Registries (`host` or `host:port`) that are spoken to in plain http.
    pub insecure_registries: Vec<String>,
    /// Whether directories that are missing are made. Without it a runtime that is not there is seen as an empty one, and
    /// nothing can be made in it.
    pub make: bool,
    /// The binary that becomes a shim: one whose `main` begins with [`crate::shim::dispatch`].
    pub shim_exe: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub options: DirectOptions,
    pub layout: Layout,
    /// `None` where there is no store and none is made.
    pub images: Option<Store>,
    pub network: Network,
    pub launcher: Launcher,
    pub node: NodeFacts,
    pub flights: Flights,
    pub records: records::Cache,
}

/// The runtime. Clones share it.
#[derive(Debug, Clone)]
pub struct Direct(Arc<Inner>);

impl Direct {
    /// Opens the runtime's directories, or makes them. Nothing is started.
    pub async fn open(options: DirectOptions) -> Result<Self> {
        let layout = Layout::new(&options.root, &options.state_dir);
        let (looked, make) = (layout.clone(), options.make);
        let absent = errors::blocking("open the runtime's directories", move || {
            if make { looked.make().map(|()| false) } else { Ok(looked.is_absent()) }
        });
        let images = if absent.await? {
            None
        } else {
            let store = Store::open(&layout.images()).await;
            Some(store.map_err(|e| errors::image("open the image store", &e))?)
        };
        let network = Network::new(Settings {
            conf_dir: options.cni_conf_dir.clone(),
            bin_dirs: options.cni_bin_dirs.clone(),
            ..Settings::new(layout.networks())
        });
        let launcher = Launcher::new(options.shim_exe.clone());
        let node = errors::blocking("read the node's facts", || Ok(facts::read())).await?;
        let (flights, records) = (Flights::default(), records::Cache::default());
        Ok(Self(Arc::new(Inner { options, layout, images, network, launcher, node, flights, records })))
    }
}

impl Runtime for Direct {
    async fn version(&self) -> Result<RuntimeInfo> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(RuntimeInfo { name: "podstead".into(), version, api_version: "libcontainer 0.7.0".into() })
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let network_problem = match self.0.network.status().await {
            Status::Ready { .. } => None,
            Status::NotReady(why) => Some(why),
        };
        Ok(RuntimeStatus {
            runtime_problem: None,
            network_problem,
            cgroup_driver: Some(CgroupDriver::Cgroupfs),
            recursive_read_only: true,
            user_namespaces: users::supported(self.0.node.kernel),
            strict_groups: true,
        })
    }

    async fn observe(&self) -> Result<Snapshot> {
        let inner = Arc::clone(&self.0);
        errors::blocking("observe sandboxes and containers", move || inner.snapshot()).await
    }

    fn hints(&self) -> impl Stream<Item = Hint> + Send + Unpin + 'static + use<> {
        hints::hints(&self.0)
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        Inner::run_sandbox(&self.0, spec).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        Inner::stop_sandbox(&self.0, id).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        Inner::remove_sandbox(&self.0, id).await
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        _sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId> {
        Inner::create_container(&self.0, sandbox, spec).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.0.start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        self.0.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        Inner::remove_container(&self.0, id).await
    }

    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        self.0.update_resources(id, resources).await
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        self.0.reopen_log(id).await
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        self.0.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: ExecStreams) -> Result<i32> {
        self.0.exec(id, spec, streams).await
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let inner = Arc::clone(&self.0);
        errors::blocking("read containers' use of resources", move || inner.container_stats()).await
    }

    async fn sandbox_stats(&self) -> Result<Vec<SandboxStats>> {
        let inner = Arc::clone(&self.0);
        errors::blocking("read pods' use of resources", move || inner.sandbox_stats()).await
    }

    async fn pull_image(&self, image: &ImageSpec, auth: &Auth, progress: PullProgress) -> Result<String> {
        self.0.pull_image(image, auth, progress).await
    }

    async fn import_image(
        &self,
        path: &Path,
        name: Option<&str>,
        progress: PullProgress,
    ) -> Result<Vec<String>> {
        self.0.import_image(path, name, progress).await
    }

    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>> {
        self.0.find_image(image).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.0.list_images().await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        Inner::remove_image(&self.0, image).await
    }

    async fn image_fs(&self) -> Result<Vec<ImageFs>> {
        self.0.image_fs().await
    }
}
