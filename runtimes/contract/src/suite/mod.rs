//! The promises of [`Runtime`] as tests, generic over the runtime. May use the contract and a clock.
//!
//! An implementation gives a [`World`] and calls [`conformance!`](crate::conformance) in a test file; every promise is
//! then a test of its own. A new promise of the trait is a new case here.

pub mod containers;
pub mod images;
pub mod processes;
pub mod sandboxes;
pub mod users;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_core::Stream;

use crate::{
    Container, ContainerId, ContainerSpec, ContainerState, ImageSpec, LinuxResources, NamespaceMode,
    PodIdentity, PodUid, Runtime, Sandbox, SandboxId, SandboxSpec, Snapshot, labels,
};

/// What a case needs: a runtime with an image, in a place of its own.
pub trait World: Send + Sync {
    /// The runtime under test.
    type Runtime: Runtime;
    /// The runtime under test.
    fn runtime(&self) -> &Self::Runtime;
    /// A second client of the same runtime, with another owner; `None` where there is no such thing.
    fn stranger(&self) -> Option<&Self::Runtime>;
    /// An image that is present and has `/bin/sh`, `sleep`, `cat`, `id`, `env`.
    fn image(&self) -> &str;
    /// An existing directory for the pods' logs.
    fn logs(&self) -> PathBuf;
    /// A cgroup parent for a pod of this uid.
    fn cgroup_parent(&self, uid: &PodUid) -> String;
    /// Whether commands really run (a fake's do not).
    fn real(&self) -> bool;
}

/// Makes one test of each promise. `$world` is an expression of type `impl Future<Output = impl World>`.
#[macro_export]
macro_rules! conformance {
    ($world:expr) => {
        $crate::conformance!(@cases $world;
            sandboxes: the_first_hint_is_everything, version_and_status_answer, running_a_sandbox_twice_gives_one,
                a_sandbox_is_seen_as_it_was_asked_for, stopping_a_sandbox_kills_what_runs_in_it,
                removing_a_sandbox_removes_its_containers, absent_objects_are_successes_to_stop_and_remove,
                anothers_objects_are_neither_seen_nor_touched,
                processes_are_seen_across_a_shared_pid_namespace_only;
            containers: creating_twice_gives_one_that_does_not_run, starting_twice_starts_once,
                an_exit_is_seen_with_code_and_times, success_is_called_completed,
                an_exit_gives_a_hint, stop_sends_the_signal_first, stop_kills_after_the_grace,
                removing_a_running_container_kills_it, a_second_attempt_runs_in_the_same_sandbox,
                a_missing_image_is_not_found, a_command_that_does_not_exist_is_a_start_error,
                a_dropped_create_can_be_repeated, running_out_of_memory_is_called_so;
            processes: output_is_logged_line_by_line, long_lines_are_split, a_log_can_be_reopened,
                exec_returns_output_and_code, exec_ends_at_its_timeout, exec_connects_stdin,
                exec_in_a_stopped_container_is_an_error, command_args_env_and_directory_reach_the_process,
                standard_input_and_terminal_are_there_only_when_asked_for, a_user_may_open_the_streams_by_name,
                mounts_arrive_and_read_only_holds, resources_are_changed_in_place, stats_count_what_runs,
                the_default_confinement_holds_also_in_exec;
            images: a_present_image_is_found_by_name_and_id, an_absent_image_is_none,
                a_bad_reference_is_refused_for_ever, the_image_file_system_is_told;
            users: root_inside_is_nobody_on_the_node, users_inside_are_apart_from_those_of_other_pods,
                a_pod_with_users_of_its_own_shares_processes_and_sets_parameters;
        );
    };
    (@cases $world:expr; $($room:ident: $($case:ident),* $(,)?;)*) => {
        $(mod $room {
            #[allow(unused_imports)]
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let world = $world.await;
                $crate::suite::$room::$case(&world).await;
            })*
        })*
    };
}

/// How long a case waits for something that should come at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A pod of a case: made with [`Pod::run`], taken away with [`Pod::end`].
#[derive(Debug)]
pub struct Pod {
    /// Its sandbox's spec.
    pub spec: SandboxSpec,
    /// Its sandbox.
    pub id: SandboxId,
}

/// A pod's spec with a name and uid of its own, on the node's network.
pub fn sandbox_spec<W: World>(w: &W) -> SandboxSpec {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let uid = PodUid(format!("{:08x}{:024x}", std::process::id(), n));
    let name = format!("suite-{}-{n}-node", std::process::id());
    let pod = PodIdentity { name: name.clone(), namespace: "default".into(), uid: uid.clone() };
    let mut spec = SandboxSpec {
        pod,
        log_directory: w.logs().join(format!("default_{name}_{uid}")),
        cgroup_parent: w.cgroup_parent(&uid),
        ..SandboxSpec::default()
    };
    spec.labels = BTreeMap::from([
        (labels::POD_NAME.to_owned(), name),
        (labels::POD_NAMESPACE.to_owned(), "default".to_owned()),
        (labels::POD_UID.to_owned(), uid.0),
        ("role".to_owned(), "suite".to_owned()),
    ]);
    spec.annotations = BTreeMap::from([(labels::CONFIG_SOURCE.to_owned(), "file".to_owned())]);
    spec.security.namespaces.network = NamespaceMode::Node;
    spec.security.namespaces.pid = NamespaceMode::Container;
    spec
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&w| w.to_owned()).collect()
}

/// A container's spec that runs a shell command.
pub fn container_spec<W: World>(w: &W, sandbox: &SandboxSpec, name: &str, script: &str) -> ContainerSpec {
    let mut spec = ContainerSpec {
        name: name.to_owned(),
        image: ImageSpec::from(w.image()),
        command: vec!["/bin/sh".into(), "-c".into(), script.to_owned()],
        log_path: PathBuf::from(format!("{name}/0.log")),
        resources: LinuxResources { cpu_shares: 2, oom_score_adj: 1000, ..LinuxResources::default() },
        ..ContainerSpec::default()
    };
    spec.labels = BTreeMap::from([
        (labels::POD_NAME.to_owned(), sandbox.pod.name.clone()),
        (labels::POD_NAMESPACE.to_owned(), sandbox.pod.namespace.clone()),
        (labels::POD_UID.to_owned(), sandbox.pod.uid.0.clone()),
        (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
    ]);
    spec.annotations = BTreeMap::from([(labels::RESTART_COUNT.to_owned(), "0".to_owned())]);
    spec.security.namespaces = sandbox.security.namespaces.clone();
    spec
}

impl Pod {
    /// Runs a sandbox.
    pub async fn run<W: World>(w: &W) -> Self {
        let spec = sandbox_spec(w);
        let id = w.runtime().run_sandbox(&spec).await.expect("run_sandbox");
        Self { spec, id }
    }

    /// Makes and starts a container with a shell command.
    pub async fn start<W: World>(&self, w: &W, name: &str, script: &str) -> ContainerId {
        self.start_spec(w, &container_spec(w, &self.spec, name, script)).await
    }

    /// Makes and starts a container.
    pub async fn start_spec<W: World>(&self, w: &W, spec: &ContainerSpec) -> ContainerId {
        let id = w.runtime().create_container(&self.id, spec, &self.spec).await.expect("create_container");
        w.runtime().start_container(&id).await.expect("start_container");
        id
    }

    /// Stops and removes everything of the pod.
    pub async fn end<W: World>(self, w: &W) {
        w.runtime().stop_sandbox(&self.id).await.expect("stop_sandbox");
        w.runtime().remove_sandbox(&self.id).await.expect("remove_sandbox");
    }

    /// What is left of the pod in the runtime.
    pub async fn left<W: World>(&self, w: &W) -> (Vec<Sandbox>, Vec<Container>) {
        let Snapshot { sandboxes, containers } = w.runtime().observe().await.expect("observe");
        let uid = &self.spec.pod.uid;
        (
            sandboxes.into_iter().filter(|s| s.pod.uid == *uid).collect(),
            containers.into_iter().filter(|c| c.pod_uid() == *uid).collect(),
        )
    }
}

/// The container as observed now.
pub async fn see<W: World>(w: &W, id: &ContainerId) -> Option<Container> {
    w.runtime().observe().await.expect("observe").containers.into_iter().find(|c| c.id == *id)
}

/// Waits until a container's state satisfies `wanted`.
pub async fn until<W: World>(w: &W, id: &ContainerId, wanted: impl Fn(&ContainerState) -> bool) -> Container {
    let waiting = async {
        loop {
            if let Some(found) = see(w, id).await.filter(|c| wanted(&c.state)) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let Ok(found) = tokio::time::timeout(PATIENCE, waiting).await else {
        panic!("container {id} never got there: {:?}", see(w, id).await.map(|c| c.state));
    };
    found
}

/// Waits until a container is over.
pub async fn until_exited<W: World>(w: &W, id: &ContainerId) -> Container {
    until(w, id, |s| matches!(s, ContainerState::Exited { .. })).await
}

/// Waits until a file holds what is wanted, and returns its text.
pub async fn until_file(path: &std::path::Path, wanted: impl Fn(&str) -> bool) -> String {
    let read = || std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    for _ in 0..3000 {
        let text = read();
        if wanted(&text) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}: never got there: {:?}", path.display(), read());
}

/// The next item of a stream, within [`PATIENCE`].
pub async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    let item = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx));
    tokio::time::timeout(PATIENCE, item).await.expect("an item within the case's patience")
}

/// Polls a future a few times and drops it.
pub async fn dropped_early<F: Future>(future: F, after: Duration) {
    let _ = tokio::time::timeout(after, future).await;
}
