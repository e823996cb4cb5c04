//! A node for tests: a real agent on a real runtime, in a place of its own, gone when dropped.
//!
//! ```no_run
//! # async fn example() -> Result<(), podstead::testing::NodeError> {
//! use podstead::testing::Node;
//!
//! let node = Node::direct().start().await?;
//! node.import("busybox.tar").await?;
//! let pod = node.apply("hello", r#"
//! apiVersion: v1
//! kind: Pod
//! metadata: {name: hello}
//! spec:
//!   hostNetwork: true
//!   containers: [{name: c, image: "localhost/podstead/busybox:1", command: [sh, -c, "echo hello; sleep 1000"]}]
//! "#)?;
//! pod.running().await?;
//! assert!(pod.logs("c").await?.contains("hello"));
//! # Ok(()) }
//! ```
//!
//! Each node has its own root, state, logs, cgroup parent, owner's mark and pod network, so tests run in parallel. It
//! needs root. The shim's binary is the one given with [`Builder::binary`], else `$PODSTEAD_SHIM`, else `podstead` in a
//! build directory above the test's executable, else `podstead` on the `PATH`. `examples/first-test` is a crate to copy.
//!
//! Dropping a node, also by a panic, kills its containers and removes its mounts, cgroups, network and files;
//! `$PODSTEAD_KEEP` keeps the files.

mod builder;
mod clean;
mod error;
mod network;
mod own_runtime;
mod pod;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{PullProgress, Runtime};
use tokio::sync::watch;

pub use builder::Builder;
pub use error::NodeError;
pub use pod::PodHandle;

use own_runtime::OwnRuntime;

use crate::agent::{self, Agent};
use crate::backend::Backend;
use crate::config::{Config, RuntimeChoice, RuntimeFlags};
use crate::manifest::{self, FileReport};
use crate::reconcile::View;

/// How long a wait lasts unless said otherwise: generous, for loaded machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A node: see the [module](self).
#[derive(Debug)]
pub struct Node {
    own: OwnRuntime,
    agent: Option<Agent>,
    backend: Option<Arc<Backend>>,
    manifests: PathBuf,
    config: Config,
    flags: RuntimeFlags,
    network: network::Network,
    patience: Duration,
    dir: Option<tempfile::TempDir>,
}

impl Node {
    /// On libcontainer, with no daemon.
    pub fn direct() -> Builder {
        Builder::new(RuntimeChoice::Direct, "")
    }

    /// Over a CRI server.
    pub fn cri(endpoint: &str) -> Builder {
        Builder::new(RuntimeChoice::Cri, endpoint)
    }

    fn start_agent(mut self) -> Result<Self, NodeError> {
        self.agent = Some(self.new_agent()?);
        Ok(self)
    }

    fn new_agent(&self) -> Result<Agent, NodeError> {
        let _own = self.own.get().enter();
        Ok(agent::start(&self.config, Arc::clone(self.runtime_arc()))?)
    }

    /// The same, to be shared.
    pub fn runtime_arc(&self) -> &Arc<Backend> {
        // Invariant: only `drop` takes it out.
        self.backend.as_ref().unwrap_or_else(|| unreachable!("the node is being dropped"))
    }

    /// The runtime, for looking behind the agent's back.
    pub fn runtime(&self) -> &Backend {
        self.runtime_arc()
    }

    /// The agent's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The node's private directory.
    pub fn dir(&self) -> &Path {
        self.manifests.parent().unwrap_or(Path::new("/"))
    }

    /// The flags with which the binary's commands reach this node's runtime.
    pub fn runtime_flags(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let (kind, endpoint) = match self.flags.runtime {
            RuntimeChoice::Cri => ("cri", self.flags.container_runtime_endpoint.clone()),
            RuntimeChoice::Direct => ("direct", crate::config::DEFAULT_ENDPOINT.to_owned()),
        };
        [
            ("--runtime", kind.to_owned()),
            ("--container-runtime-endpoint", endpoint),
            ("--root-dir", text(&self.flags.root_dir)),
            ("--state-dir", text(&self.flags.state_dir)),
            ("--owner", self.flags.owner.clone()),
            ("--cni-conf-dir", text(&self.flags.cni_conf_dir)),
        ]
        .into_iter()
        .chain(self.flags.insecure_registry.iter().map(|host| ("--insecure-registry", host.clone())))
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// The further flags of `podstead run` for an agent on this node.
    pub fn run_flags(&self) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        [
            ("--pod-manifest-path", text(&self.manifests)),
            ("--hostname-override", self.config.node_name.clone()),
            ("--pod-logs-dir", text(&self.config.pod_logs_dir)),
            ("--container-logs-dir", text(&self.config.container_logs_dir)),
            ("--cgroup-root", self.config.cgroup_root.clone()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// Imports an archive or layout; on a CRI server images are there already, and this does nothing.
    pub async fn import(&self, path: impl AsRef<Path>) -> Result<Vec<String>, NodeError> {
        match self.flags.runtime {
            RuntimeChoice::Cri => Ok(Vec::new()),
            RuntimeChoice::Direct => {
                Ok(self.runtime().import_image(path.as_ref(), None, PullProgress::none()).await?)
            }
        }
    }

    /// Imports an archive or layout with one image under this name; on a CRI server this does nothing.
    pub async fn import_as(&self, path: impl AsRef<Path>, name: &str) -> Result<(), NodeError> {
        match self.flags.runtime {
            RuntimeChoice::Cri => Ok(()),
            RuntimeChoice::Direct => {
                let all = self.runtime().import_image(path.as_ref(), Some(name), PullProgress::none());
                Ok(all.await.map(drop)?)
            }
        }
    }

    /// Puts a manifest in place, at once and whole. `name` is the pod's `metadata.name`, the file's name follows it.
    pub fn apply(&self, name: &str, manifest: &str) -> Result<PodHandle<'_>, NodeError> {
        let path = self.manifest(name);
        let hidden = self.manifests.join(format!(".{name}.new"));
        let write = std::fs::write(&hidden, manifest).and_then(|()| std::fs::rename(&hidden, &path));
        write.map_err(|source| NodeError::File { path, source })?;
        Ok(self.pod(name))
    }

    /// A pod by the name in its manifest, in namespace `default`.
    pub fn pod(&self, name: &str) -> PodHandle<'_> {
        PodHandle::new(self, format!("{name}-{}", self.config.node_name))
    }

    /// Takes a manifest away.
    pub fn remove(&self, name: &str) -> Result<(), NodeError> {
        let path = self.manifest(name);
        std::fs::remove_file(&path).map_err(|source| NodeError::File { path, source })
    }

    /// The path of a pod's manifest.
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.manifests.join(format!("{name}.yaml"))
    }

    /// What became of each manifest file.
    pub fn files(&self) -> Vec<FileReport> {
        self.agent.as_ref().map(agent::file_reports).unwrap_or_default()
    }

    /// What the agent's loop thinks; `None` without an agent.
    pub fn view(&self) -> Option<watch::Receiver<View>> {
        self.agent.as_ref().map(|agent| agent.view.clone())
    }

    /// The agent's manifests; `None` without an agent.
    pub fn manifests(&self) -> Option<watch::Receiver<Arc<manifest::Desired>>> {
        self.agent.as_ref().map(|agent| agent.manifests.clone())
    }

    /// Ends the agent; containers go on.
    pub async fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop().await;
        }
    }

    /// Starts a new agent, as after an upgrade.
    pub async fn restart_agent(&mut self) -> Result<(), NodeError> {
        self.stop_agent().await;
        self.agent = Some(self.new_agent()?);
        Ok(())
    }

    /// Waits until nothing of any pod is left: sandboxes, containers, directories, log links.
    pub async fn empty(&self) -> Result<(), NodeError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let left = self.left().await?;
            if left.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                let what = "an empty node".to_owned();
                return Err(NodeError::Late { what, patience: self.patience, seen: left.join(", ") });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Names everything that is left of pods on the node: in the runtime, on disk, in mounts and in cgroups.
    pub async fn left(&self) -> Result<Vec<String>, NodeError> {
        let snapshot = self.runtime().observe().await?;
        let sandboxes = snapshot.sandboxes.iter().map(|s| format!("sandbox {} of {}", s.id, s.pod.name));
        let containers = snapshot.containers.iter().map(|c| format!("container {} {}", c.name, c.id));
        let mut left: Vec<String> = sandboxes.chain(containers).collect();
        left.extend(clean::on_disk(&self.config));
        left.extend(self.network.leases());
        Ok(left)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.own.end(self.agent.take(), self.backend.take());
        clean::all(&self.flags, &self.config);
        self.network.remove();
        if std::env::var_os("PODSTEAD_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            let _ = dir.keep();
        }
    }
}
