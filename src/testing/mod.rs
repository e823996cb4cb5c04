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

mod clean;
mod network;
mod pod;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use podstead_runtime::{CgroupDriver, PullProgress, Runtime};
use thiserror::Error;
use tokio::sync::watch;

pub use pod::PodHandle;

use crate::agent::{self, Agent};
use crate::backend::Backend;
use crate::config::{Config, Limits, RuntimeChoice, RuntimeFlags, Sources, own_labels};
use crate::credentials::{self, Places};
use crate::images;
use crate::manifest::{self, FileReport};
use crate::node::capacity::Reservations;
use crate::node::{facts, image_gc, log_rotation};
use crate::pod::dns;
use crate::pod::sysctl::Allowed;
use crate::reconcile::View;

/// How long a wait lasts unless said otherwise: generous, for loaded machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

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

/// How a node is made.
#[derive(Clone, Debug)]
pub struct Builder {
    runtime: RuntimeChoice,
    endpoint: String,
    binary: Option<PathBuf>,
    insecure_registries: Vec<String>,
    cni_conf_dir: Option<PathBuf>,
    seccomp_default: bool,
    allowed_unsafe_sysctls: Allowed,
    cgroup_driver: Option<CgroupDriver>,
    patience: Duration,
    changes: Vec<Change>,
}

/// A change of the agent's configuration.
#[derive(Clone)]
struct Change(Arc<dyn Fn(&mut Config) + Send + Sync>);

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Change")
    }
}

impl Builder {
    /// The podstead binary from which shims are started.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// A registry (`host:port`) that is spoken to in plain http.
    #[must_use]
    pub fn insecure_registry(mut self, host: impl Into<String>) -> Self {
        self.insecure_registries.push(host.into());
        self
    }

    /// CNI configurations instead of a private bridge.
    #[must_use]
    pub fn cni_conf_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cni_conf_dir = Some(dir.into());
        self
    }

    /// Containers get the runtime's seccomp profile unless they say otherwise.
    #[must_use]
    pub fn seccomp_default(mut self) -> Self {
        self.seccomp_default = true;
        self
    }

    /// Kernel parameters that pods may set besides the safe ones.
    #[must_use]
    pub fn allowed_unsafe_sysctls(mut self, allowed: Allowed) -> Self {
        self.allowed_unsafe_sysctls = allowed;
        self
    }

    /// The cgroup driver of a CRI server that does not tell its own.
    #[must_use]
    pub fn cgroup_driver(mut self, driver: CgroupDriver) -> Self {
        self.cgroup_driver = Some(driver);
        self
    }

    /// How long waits last.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Changes the agent's configuration, as flags of `podstead run` would.
    #[must_use]
    pub fn config(mut self, change: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.changes.push(Change(Arc::new(change)));
        self
    }

    /// Makes the node's place and starts its agent.
    pub async fn start(self) -> Result<Node, NodeError> {
        let node = self.prepare().await?;
        node.start_agent()
    }

    /// Makes the node's place without an agent, for tests that run the binary themselves.
    pub async fn prepare(self) -> Result<Node, NodeError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NodeError::NotRoot);
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pst{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("podstead-").tempdir();
        let dir = dir.map_err(|source| NodeError::File { path: std::env::temp_dir(), source })?;
        let network = network::Network::new(&name, dir.path());
        let cni_conf_dir = match self.cni_conf_dir {
            Some(given) => given,
            None => network.write()?,
        };
        let flags = RuntimeFlags {
            runtime: self.runtime,
            container_runtime_endpoint: self.endpoint,
            image_service_endpoint: None,
            runtime_request_timeout: Duration::from_secs(120),
            root_dir: dir.path().join("root"),
            state_dir: dir.path().join("state"),
            owner: name.clone(),
            cni_conf_dir,
            cni_bin_dir: ["/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"].map(PathBuf::from).to_vec(),
            insecure_registry: self.insecure_registries,
            shim: match self.runtime {
                RuntimeChoice::Direct => Some(find_binary(self.binary)?),
                RuntimeChoice::Cri => None,
            },
        };
        let manifests = dir.path().join("manifests");
        let mut config = Config {
            sources: Sources {
                paths: vec![manifests.clone()],
                file_check_frequency: Duration::from_secs(20),
                ..Sources::default()
            },
            node_name: "node".to_owned(),
            node_ips: facts::addresses(),
            labels: own_labels("node"),
            reserved: Reservations::default(),
            root_dir: flags.root_dir.clone(),
            state_dir: flags.state_dir.clone(),
            pod_logs_dir: dir.path().join("logs"),
            container_logs_dir: dir.path().join("links"),
            cgroup_root: format!("/{name}"),
            cgroup_driver: self.cgroup_driver,
            images: images::Settings {
                root_dir: flags.root_dir.clone(),
                credentials: credentials::Sources {
                    places: Places::only(&flags.root_dir),
                    ..credentials::Sources::default()
                },
                ..images::Settings::default()
            },
            image_gc: image_gc::Policy::default(),
            log_rotation: Some(log_rotation::Policy::default()),
            limits: Limits::default(),
            dns: dns::Settings { resolv_conf: Some("/etc/resolv.conf".into()), ..dns::Settings::default() },
            seccomp_default: self.seccomp_default,
            max_restart_period: crate::plan::backoff::MAX,
            allowed_unsafe_sysctls: self.allowed_unsafe_sysctls,
            ids_per_pod: crate::node::userns::IDS,
        };
        for change in &self.changes {
            change.0(&mut config);
        }
        std::fs::create_dir(&manifests)
            .map_err(|source| NodeError::File { path: manifests.clone(), source })?;
        let own = OwnRuntime::new()?;
        let opened = flags.clone();
        let backend = own.get().spawn(async move { Backend::open(&opened).await }).await;
        let backend = backend
            .map_err(anyhow::Error::from)
            .flatten()
            .map_err(|error| NodeError::Open(format!("{error:#}")))?;
        Ok(Node {
            own,
            backend: Some(Arc::new(backend)),
            agent: None,
            manifests,
            config,
            flags,
            network,
            patience: self.patience,
            dir: Some(dir),
        })
    }
}

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
        Self::builder(RuntimeChoice::Direct, "")
    }

    /// Over a CRI server.
    pub fn cri(endpoint: &str) -> Builder {
        Self::builder(RuntimeChoice::Cri, endpoint)
    }

    fn builder(runtime: RuntimeChoice, endpoint: &str) -> Builder {
        Builder {
            runtime,
            endpoint: endpoint.to_owned(),
            binary: None,
            insecure_registries: Vec::new(),
            cni_conf_dir: None,
            seccomp_default: false,
            allowed_unsafe_sysctls: Allowed::default(),
            cgroup_driver: None,
            patience: PATIENCE,
            changes: Vec::new(),
        }
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

/// The threads of a node's agent and backend. Those of the test may be one that is just unwinding: with nobody to go on
/// with it, what the agent is making would be left half-made.
#[derive(Debug)]
struct OwnRuntime(Option<tokio::runtime::Runtime>);

impl OwnRuntime {
    fn new() -> Result<Self, NodeError> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(2).thread_name("podstead-node").enable_all().build();
        Ok(Self(Some(threads.map_err(|error| NodeError::Open(error.to_string()))?)))
    }

    fn get(&self) -> &tokio::runtime::Runtime {
        // Invariant: only `end` takes it out, when the node is dropped.
        self.0.as_ref().unwrap_or_else(|| unreachable!("the node is being dropped"))
    }

    /// Ends the agent with patience for what it is just making, then everything else that goes on.
    fn end(&mut self, agent: Option<Agent>, backend: Option<Arc<Backend>>) {
        let Some(own) = self.0.take() else { return };
        // A thread that runs tasks may not wait for others.
        let end = std::thread::spawn(move || {
            own.block_on(async {
                if let Some(agent) = agent {
                    agent.stop().await;
                }
                drop(backend);
            });
            own.shutdown_timeout(PATIENCE);
        });
        let _ = end.join();
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(own) = self.0.take() {
            own.shutdown_background();
        }
    }
}

/// The binary that is named, or `podstead` in a build directory that holds the running executable, or on the PATH.
fn find_binary(given: Option<PathBuf>) -> Result<PathBuf, NodeError> {
    if let Some(path) = given.or_else(|| std::env::var_os("PODSTEAD_SHIM").map(PathBuf::from)) {
        return match std::fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(source) => Err(NodeError::File { path, source }),
        };
    }
    let own = std::env::current_exe().unwrap_or_default();
    let above = own.ancestors().skip(1).take(4).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = above.chain(std::env::split_paths(&path)).map(|dir| dir.join("podstead"));
    found.find(|path| path.is_file()).ok_or(NodeError::NoBinary)
}
