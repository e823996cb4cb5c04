//! The runtime the flags ask for, as one type. The only room of the agent that knows which backends exist; it decides
//! nothing and passes every verb on.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use podstead_cri::Cri;
use podstead_runtime::{
    Auth, ContainerId, ContainerSpec, ContainerStats, ExecOutput, ExecSpec, ExecStreams, Hint, Image,
    ImageFs, ImageSpec, LinuxResources, PullProgress, Result, Runtime, RuntimeInfo, RuntimeStatus, SandboxId,
    SandboxSpec, SandboxStats, Snapshot,
};
use podstead_youki::{Direct, DirectOptions};

use crate::config::{ConfigError, RuntimeChoice, RuntimeFlags};

/// A backend.
#[derive(Debug)]
pub enum Backend {
    /// A CRI server.
    Cri(Box<Cri>),
    /// libcontainer.
    Direct(Box<Direct>),
}

macro_rules! pass {
    ($self:ident, $runtime:ident => $call:expr) => {
        match $self {
            Self::Cri($runtime) => $call.await,
            Self::Direct($runtime) => $call.await,
        }
    };
}

impl Runtime for Backend {
    async fn version(&self) -> Result<RuntimeInfo> {
        pass!(self, r => r.version())
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        pass!(self, r => r.status())
    }

    async fn observe(&self) -> Result<Snapshot> {
        pass!(self, r => r.observe())
    }

    fn hints(&self) -> impl Stream<Item = Hint> + Send + Unpin + 'static + use<> {
        let boxed: Pin<Box<dyn Stream<Item = Hint> + Send>> = match self {
            Self::Cri(r) => Box::pin(r.hints()),
            Self::Direct(r) => Box::pin(r.hints()),
        };
        boxed
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        pass!(self, r => r.run_sandbox(spec))
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        pass!(self, r => r.stop_sandbox(id))
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        pass!(self, r => r.remove_sandbox(id))
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId> {
        pass!(self, r => r.create_container(sandbox, spec, sandbox_spec))
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        pass!(self, r => r.start_container(id))
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        pass!(self, r => r.stop_container(id, grace))
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        pass!(self, r => r.remove_container(id))
    }

    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        pass!(self, r => r.update_resources(id, resources))
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        pass!(self, r => r.reopen_log(id))
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        pass!(self, r => r.exec_sync(id, command, timeout))
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: ExecStreams) -> Result<i32> {
        pass!(self, r => r.exec(id, spec, streams))
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        pass!(self, r => r.container_stats())
    }

    async fn sandbox_stats(&self) -> Result<Vec<SandboxStats>> {
        pass!(self, r => r.sandbox_stats())
    }

    async fn pull_image(&self, image: &ImageSpec, auth: &Auth, progress: PullProgress) -> Result<String> {
        pass!(self, r => r.pull_image(image, auth, progress))
    }

    async fn import_image(
        &self,
        path: &Path,
        name: Option<&str>,
        progress: PullProgress,
    ) -> Result<Vec<String>> {
        pass!(self, r => r.import_image(path, name, progress))
    }

    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>> {
        pass!(self, r => r.image(image))
    }

    async fn images(&self) -> Result<Vec<Image>> {
        pass!(self, r => r.images())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        pass!(self, r => r.remove_image(image))
    }

    async fn image_fs(&self) -> Result<Vec<ImageFs>> {
        pass!(self, r => r.image_fs())
    }
}

impl Backend {
    /// What an agent does once on its backend, before or beside its first look.
    pub async fn begin(&self) {
        if let Self::Direct(direct) = self {
            direct.begin().await;
        }
    }

    /// Opens the backend that the flags ask for. A CRI server need not be there yet; directories of the direct runtime are
    /// made.
    pub async fn open(flags: &RuntimeFlags) -> anyhow::Result<Self> {
        Self::open_with(flags, true).await
    }

    /// The same for those who only look: a direct runtime that was never used here is an empty one, and is not made.
    pub async fn look(flags: &RuntimeFlags) -> anyhow::Result<Self> {
        Self::open_with(flags, false).await
    }

    async fn open_with(flags: &RuntimeFlags, make: bool) -> anyhow::Result<Self> {
        match flags.runtime {
            RuntimeChoice::Cri => {
                let options = podstead_cri::Options {
                    owner: flags.owner.clone(),
                    request_timeout: flags.runtime_request_timeout,
                    image_endpoint: flags.image_service_endpoint.clone().filter(|given| !given.is_empty()),
                    ..podstead_cri::Options::default()
                };
                let client = Cri::connect(&flags.container_runtime_endpoint, options)
                    .map_err(|error| ConfigError::Endpoint(error.to_string()))?;
                Ok(Self::Cri(Box::new(client)))
            }
            RuntimeChoice::Direct => {
                Ok(Self::Direct(Box::new(Direct::open(direct_options(flags, make)?).await?)))
            }
        }
    }
}

fn direct_options(flags: &RuntimeFlags, make: bool) -> anyhow::Result<DirectOptions> {
    let shim_exe = match &flags.shim {
        Some(given) => given.clone(),
        // Also after an upgrade has replaced the file: the running one is meant.
        None => PathBuf::from("/proc/self/exe"),
    };
    let absolute = |path: &Path| std::path::absolute(path);
    Ok(DirectOptions {
        make,
        root: absolute(&flags.root_dir)?.join("direct"),
        state_dir: absolute(&flags.state_dir)?.join("direct"),
        cni_conf_dir: flags.cni_conf_dir.clone(),
        cni_bin_dirs: flags.cni_bin_dir.clone(),
        owner: flags.owner.clone(),
        insecure_registries: flags.insecure_registry.clone(),
        shim_exe,
    })
}
