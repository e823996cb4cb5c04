//! The agent: its tasks and the channels between them. May use everything; decides nothing.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{CgroupDriver, Runtime, RuntimeStatus};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, Live};
use crate::events::{Events, from_probes};
use crate::execute::Executor;
use crate::images::Images;
use crate::manifest::{self, FileReport, FileState};
use crate::node::image_gc::{Collector, Policy as ImagePolicy};
use crate::node::levels::{self, Allocatable};
use crate::node::log_rotation::{Policy as LogPolicy, Rotator};
use crate::node::{cgroup::Cgroups, facts, links};
use crate::pod::{NodeFacts, files, identity, security};
use crate::probe::{Input, Supervisor};
pub use crate::publish::{Published, published_path};
use crate::reconcile::{self, View, Wanted};
use crate::{probing, publish, publish_manifests, report, status};

/// The agent could not be started.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A directory or file of its own could not be made.
    #[error("cannot make {path}: {source}")]
    Own {
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Another agent holds the state or the root directory.
    #[error("another agent uses {path}: stop it, or give this one a --state-dir and a --root-dir of its own")]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// The node's cgroups cannot be read.
    #[error("cannot read the cgroup hierarchies: {0}")]
    Cgroups(io::Error),
    /// The manifest source could not be started.
    #[error(transparent)]
    Source(#[from] manifest::SpawnError),
}

/// A running agent. Dropped, its tasks end; containers go on.
#[derive(Debug)]
pub struct Agent {
    /// What the loop thinks, changing with each round.
    pub view: watch::Receiver<View>,
    /// What became of every manifest file.
    pub manifests: watch::Receiver<Arc<manifest::Desired>>,
    /// The node, for statuses.
    pub node: report::Node,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    source: manifest::Sources,
    images: Arc<Images>,
    image_gc: watch::Sender<ImagePolicy>,
    log_rotation: watch::Sender<Option<LogPolicy>>,
    _locks: [File; 2],
}

fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("agent").join("lock")
}

/// Whether an agent runs on this state directory.
pub fn is_running(state_dir: &Path) -> bool {
    File::open(lock_path(state_dir))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// How long a starting agent looks whether a lock is let go: a command that asks holds it for a moment.
const ASKED: Duration = Duration::from_millis(200);

fn own_dir(path: &Path) -> Result<(), AgentError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| AgentError::Own { path: path.to_owned(), source })
}

/// Both directories are one agent's: the state directory with what the command line reads, and the root directory,
/// where a second agent would take the pods of the first for leftovers. Only agents take these locks.
fn take_locks(state_dir: &Path, root_dir: &Path) -> Result<[File; 2], AgentError> {
    own_dir(&state_dir.join("agent"))?;
    own_dir(root_dir)?;
    Ok([take_lock(lock_path(state_dir))?, take_lock(root_dir.join("agent.lock"))?])
}

fn take_lock(path: PathBuf) -> Result<File, AgentError> {
    let own = |source| AgentError::Own { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).read(true).mode(0o600).open(&path);
    let file = file.map_err(own)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(own(source)),
            Err(TryLockError::WouldBlock) if begun.elapsed() > ASKED => {
                return Err(AgentError::Taken { path });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Starts an agent on a runtime. Returns as soon as its tasks run; waits for the runtime only in the background.
pub fn start<R: Runtime>(config: &Config, runtime: Arc<R>) -> Result<Agent, AgentError> {
    let locks = take_locks(&config.state_dir, &config.root_dir)?;
    let path = published_path(&config.state_dir);
    let conditions = publish::take_back(&config.state_dir)
        .map_err(|source| AgentError::Own { path: path.clone(), source })?;
    let cgroups = Arc::new(Cgroups::discover().map_err(AgentError::Cgroups)?);
    let (manifests, source) = manifest::spawn(manifest::SourcesConfig {
        paths: config.sources.paths.clone(),
        url: config.sources.url.clone(),
        node: config.node_name.clone(),
        file_check_frequency: config.sources.file_check_frequency,
        waived: config.sources.waived,
        root_dir: config.root_dir.clone(),
    })?;
    let told = publish_manifests::path(&config.state_dir);
    publish_manifests::take_back(&told).map_err(|source| AgentError::Own { path: told.clone(), source })?;
    let (stop, stopped) = watch::channel(false);
    let (view_sender, view) = watch::channel(View::default());
    let node =
        report::Node { name: config.node_name.clone(), ips: config.node_ips.clone(), runtime: String::new() };
    let mut tasks = Vec::new();
    let links = keep_links(config.container_logs_dir.clone(), config.pod_logs_dir.clone(), view.clone());
    tasks.push(tokio::spawn(links));
    let images = Arc::new(Images::open(&config.images));
    let memory = Arc::clone(images.memory());
    let (image_gc, policy) = watch::channel(config.image_gc.clone());
    let collector = Collector::following(Arc::clone(&runtime), memory, policy);
    tasks.push(tokio::spawn(collector.run(view.clone())));
    let (log_rotation, policy) = watch::channel(config.log_rotation.clone());
    let rotator = Rotator::following(Arc::clone(&runtime), config.pod_logs_dir.clone(), policy);
    tasks.push(tokio::spawn(rotator.run(view.clone())));
    let (name, waived) = (config.node_name.clone(), config.sources.waived);
    tasks.push(tokio::spawn(publish_manifests::keep(manifests.clone(), name, waived, told)));
    tasks.push(tokio::spawn(publish::keep(
        Arc::clone(&runtime),
        node.clone(),
        publish::Source::new(config),
        path,
        view.clone(),
        conditions,
    )));
    tasks.push(tokio::spawn(drive(
        config.clone(),
        runtime,
        cgroups,
        Arc::clone(&images),
        manifests.clone(),
        view_sender,
        stopped,
    )));
    Ok(Agent { view, manifests, node, stop, tasks, source, images, image_gc, log_rotation, _locks: locks })
}

impl Agent {
    /// Takes over what of the configuration can change while it runs. No pod is touched.
    pub fn reconfigure(&self, live: &Live) {
        self.source.set_file_check_frequency(live.file_check_frequency);
        self.images.set_rates(live.rates);
        self.image_gc.send_replace(live.image_gc.clone());
        self.log_rotation.send_replace(live.log_rotation.clone());
    }

    /// Ends the agent's tasks and waits for them. Containers go on.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        for mut task in self.tasks.drain(..).rev() {
            if tokio::time::timeout(Duration::from_secs(5), &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Waits for the runtime, then runs the loop. Whether the runtime wants paths or slices must be known before any pod.
async fn drive<R: Runtime>(
    config: Config,
    runtime: Arc<R>,
    cgroups: Arc<Cgroups>,
    images: Arc<Images>,
    manifests: watch::Receiver<Arc<manifest::Desired>>,
    view: watch::Sender<View>,
    mut stop: watch::Receiver<bool>,
) {
    let Some(first) = first_status(&*runtime, &mut stop).await else { return };
    let node = NodeFacts {
        root_dir: config.root_dir.clone(),
        pod_logs_dir: config.pod_logs_dir.clone(),
        cgroup_root: config.cgroup_root.clone(),
        cgroup_driver: cgroup_driver(config.cgroup_driver, first.cgroup_driver),
        node_name: config.node_name.clone(),
        node_ips: config.node_ips.clone(),
        labels: config.labels.clone(),
        reserved: config.reserved.clone(),
        memory_capacity: facts::memory_capacity(),
        cpu_capacity: facts::cpu_capacity(),
        storage_capacity: facts::storage_capacity(&config.root_dir),
        recursive_read_only: first.recursive_read_only,
        seccomp_default: config.seccomp_default,
        max_restart_period: Some(config.max_restart_period),
        dns: config.dns.clone(),
        security: security::Facts {
            sysctls: config.allowed_unsafe_sysctls.clone(),
            apparmor: facts::apparmor(),
            strict_groups: first.strict_groups,
            user_namespaces: first.user_namespaces,
            ids_per_pod: config.ids_per_pod,
            masked_paths: facts::thermal_throttles(),
        },
        resources: facts::resources(&config.limits),
    };
    let (status_sender, health) = watch::channel(first);
    let (wanted_sender, wanted) = watch::channel(Arc::default());
    let thoughts = view.subscribe();
    let node = Arc::new(node);
    let files = keep_files(Arc::clone(&node), view.subscribe());
    let events = Events::open(&config.root_dir);
    let (probes, verdicts) = Supervisor::open(&config.state_dir);
    let (tell_probes, probed) = watch::channel(Input::default());
    let fed = probing::feed(Arc::clone(&node), view.subscribe(), tell_probes);
    let probes = probes.run(Arc::clone(&runtime), probed, from_probes::notes(&events));
    let allocatable = Allocatable::of(&node);
    let levels = levels::keep(Arc::clone(&node), Arc::clone(&cgroups), allocatable, view.subscribe());
    let executor = Executor { runtime: Arc::clone(&runtime), node, cgroups, images, events: events.clone() };
    tokio::select! {
        () = reconcile::run(Arc::new(executor), wanted, health, verdicts, view, stop) => {}
        () = fed => {}
        () = probes => {}
        () = status::keep(runtime, status_sender, thoughts) => {}
        () = follow(manifests, wanted_sender) => {}
        () = files => {}
        () = levels => {}
        () = events.keep() => {}
    }
    if let Err(error) = events.flush().await {
        tracing::warn!("cannot keep the pods' events: {error}");
    }
}

/// The runtime's driver if it tells, else the flag's.
fn cgroup_driver(flag: Option<CgroupDriver>, told: Option<CgroupDriver>) -> CgroupDriver {
    if let (Some(flag), Some(told)) = (flag, told)
        && flag != told
    {
        tracing::warn!("--cgroup-driver {flag:?} is not what the runtime uses: {told:?} is taken");
    }
    told.or(flag).unwrap_or_default()
}

async fn first_status<R: Runtime>(runtime: &R, stop: &mut watch::Receiver<bool>) -> Option<RuntimeStatus> {
    let mut complained = false;
    loop {
        match runtime.status().await {
            Ok(status) => return Some(status),
            Err(error) if !complained => tracing::warn!("waiting for the runtime: {error}"),
            Err(_) => {}
        }
        complained = true;
        tokio::select! {
            _ = stop.changed() => return None,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Turns the manifests into what the loop wants, and says in the log what no single file shows: pods claimed twice, a
/// source that cannot be read.
async fn follow(mut manifests: watch::Receiver<Arc<manifest::Desired>>, wanted: watch::Sender<Arc<Wanted>>) {
    let mut said = Vec::new();
    loop {
        let desired = Arc::clone(&manifests.borrow_and_update());
        let twice = desired.files.iter().filter(|f| matches!(f.state, FileState::Duplicate { .. }));
        let unread = desired.source_error().into_iter().map(ToString::to_string);
        let saying: Vec<String> = unread.chain(twice.map(ToString::to_string)).collect();
        saying.iter().filter(|line| !said.contains(*line)).for_each(|line| tracing::warn!("{line}"));
        said = saying;
        let pods = desired.pods.iter().map(|pod| Arc::new(pod.pod.clone())).collect();
        wanted.send_replace(Arc::new(Wanted { pods, complete: desired.sources_ready }));
        if manifests.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Has the files in volumes follow manifests that change under a fixed uid: what such a pod is told of itself.
async fn keep_files(node: Arc<NodeFacts>, mut view: watch::Receiver<View>) {
    let mut last = Arc::default();
    while view.changed().await.is_ok() {
        let (wanted, observed) = {
            let view = view.borrow_and_update();
            (Arc::clone(&view.wanted), Arc::clone(&view.observed))
        };
        if Arc::ptr_eq(&last, &wanted) {
            continue;
        }
        last = Arc::clone(&wanted);
        let node = Arc::clone(&node);
        let refreshed = tokio::task::spawn_blocking(move || {
            let there = |pod: &Pod| observed.leftovers.contains_key(&identity::identity(pod).uid);
            for pod in wanted.pods.iter().filter(|pod| there(pod)) {
                match files::refresh(&node, pod) {
                    Ok(true) => tracing::info!(pod = pod.metadata.name, "files of its volumes changed"),
                    Ok(false) => {}
                    Err(error) => tracing::warn!("{error}"),
                }
            }
        });
        let _ = refreshed.await;
    }
    std::future::pending::<()>().await;
}

async fn keep_links(links_dir: PathBuf, logs_dir: PathBuf, mut view: watch::Receiver<View>) {
    while view.changed().await.is_ok() {
        let observed = Arc::clone(&view.borrow_and_update().observed);
        let (links_dir, logs_dir) = (links_dir.clone(), logs_dir.clone());
        let tidy =
            tokio::task::spawn_blocking(move || links::tidy(&links_dir, &logs_dir, &observed.snapshot));
        if let Ok(Err(error)) = tidy.await {
            tracing::warn!("links to the containers' logs: {error}");
        }
    }
}

/// The reports of all manifest files at this moment.
pub fn file_reports(agent: &Agent) -> Vec<FileReport> {
    agent.manifests.borrow().files.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_asks_does_not_keep_an_agent_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let asking = File::create(&path).unwrap();
        asking.lock_shared().unwrap();
        let asked = std::thread::spawn(move || {
            std::thread::sleep(ASKED / 4);
            drop(asking);
        });
        let lock = take_lock(path.clone()).unwrap();
        asked.join().unwrap();
        assert!(matches!(take_lock(path), Err(AgentError::Taken { .. })), "an agent holds it");
        drop(lock);
    }

    #[test]
    fn agents_share_neither_their_state_nor_their_root() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        let held = take_locks(&own, &own).unwrap();
        for (state, root, taken) in [(&other, &own, "own/agent.lock"), (&own, &other, "own/agent/lock")] {
            let error = take_locks(state, root).unwrap_err().to_string();
            assert!(error.contains(taken), "{error}");
            assert!(error.contains("--state-dir") && error.contains("--root-dir"), "{error}");
        }
        assert!(is_running(&own) && !is_running(&other));
        drop(held);
        take_locks(&own, &own).unwrap();
        assert!(!is_running(&own));
    }

    #[test]
    fn the_runtimes_cgroup_driver_is_taken_before_the_flags() {
        use CgroupDriver::{Cgroupfs, Systemd};
        for (flag, told, taken) in [
            (None, None, Cgroupfs),
            (Some(Systemd), None, Systemd),
            (None, Some(Systemd), Systemd),
            (Some(Systemd), Some(Cgroupfs), Cgroupfs),
        ] {
            assert_eq!(cgroup_driver(flag, told), taken, "{flag:?} {told:?}");
        }
    }
}
