//! How a node for tests is made: its directories, its network, its configuration. Touches a directory of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use podstead_runtime::CgroupDriver;

use super::error::NodeError;
use super::own_runtime::OwnRuntime;
use super::{Node, PATIENCE, network};
use crate::backend::Backend;
use crate::config::{Config, Limits, RuntimeChoice, RuntimeFlags, Sources, own_labels};
use crate::credentials::{self, Places};
use crate::images;
use crate::node::capacity::Reservations;
use crate::node::{facts, image_gc, log_rotation};
use crate::pod::dns;
use crate::pod::sysctl::Allowed;

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
    pub(super) fn new(runtime: RuntimeChoice, endpoint: &str) -> Self {
        Self {
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
