//! What to tell people about a pod: phase and container states as the kubelet's API shows them
//! (`kubelet-static-pods.md 2.5`, `2.16`). Derived from the same inputs as the plan, pure like it.

use std::net::IpAddr;

use podstead_runtime::{Container, ContainerId, ContainerState, PodUid, SandboxState, Time};
use serde::Serialize;

use super::action::{FailureKey, Verb};
use super::backoff;
use super::containers::restarts;
use super::draft::{self, View};
use super::known::{Failure, Known};
use super::types::{ContainerPlan, Observed, Pod, RestartPolicy};

/// A pod's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PodPhase {
    /// Not every container was started yet.
    Pending,
    /// At least one container runs or will run again.
    Running,
    /// All ended with exit code 0, for good.
    Succeeded,
    /// All ended, not all with exit code 0, for good.
    Failed,
}

/// What is told of a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodStatus {
    /// Phase.
    pub phase: PodPhase,
    /// Addresses of the newest sandbox, the primary first.
    pub ips: Vec<IpAddr>,
    /// When the newest sandbox was made; "never" without one.
    pub sandbox_created_at: Time,
    /// Whether every container runs.
    pub ready: bool,
    /// What holds the pod up as a whole; empty for nothing.
    pub message: String,
    /// Containers, in the order of the spec.
    pub containers: Vec<ContainerStatus>,
}

/// What is told of a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContainerStatus {
    /// Name in the pod.
    pub name: String,
    /// What it does now.
    pub state: State,
    /// How the instance before ended; of a waiting container the last instance.
    pub last: Option<Terminated>,
    /// Attempt of the newest instance.
    pub restart_count: u32,
    /// Whether it runs.
    pub ready: bool,
    /// Image as the user wrote it.
    pub image: String,
    /// What it was resolved to; empty when not known.
    pub image_id: String,
    /// Newest instance; empty when there is none.
    pub id: ContainerId,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum State {
    /// It is to be started.
    Waiting {
        /// As the kubelet spells it (`CrashLoopBackOff`).
        reason: String,
        /// For people.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        started_at: Time,
    },
    /// It ended.
    Terminated(Terminated),
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Terminated {
    /// Exit code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Started.
    pub started_at: Time,
    /// Ended.
    pub finished_at: Time,
    /// Which instance.
    pub id: ContainerId,
}

/// What to tell of a pod that is wanted.
pub fn pod_status(pod: &Pod, observed: &Observed, known: &Known, now: Time) -> PodStatus {
    let mut views = draft::views(observed);
    let view = views.remove(&pod.identity.uid).unwrap_or_default();
    let containers: Vec<_> =
        pod.containers.iter().map(|c| container_status(pod, c, &view, known, now)).collect();
    let sandbox = view.sandboxes.first();
    PodStatus {
        phase: phase(pod.restart_policy, &containers),
        ips: sandbox
            .filter(|s| s.state == SandboxState::Ready)
            .and_then(|s| s.ips.clone())
            .unwrap_or_default(),
        sandbox_created_at: sandbox.map_or(Time(0), |s| s.created_at),
        ready: !containers.is_empty() && containers.iter().all(|c| c.ready),
        message: pod_failure(known, &pod.identity.uid),
        containers,
    }
}

/// The kubelet's getPhase for regular containers: a waiting container that ran before counts as stopped.
fn phase(policy: RestartPolicy, containers: &[ContainerStatus]) -> PodPhase {
    let (mut running, mut failed) = (false, false);
    for container in containers {
        match (&container.state, &container.last) {
            (State::Running { .. }, _) => running = true,
            (State::Terminated(end), _) | (State::Waiting { .. }, Some(end)) => failed |= end.code != 0,
            (State::Waiting { .. }, None) => return PodPhase::Pending,
        }
    }
    match policy {
        _ if running => PodPhase::Running,
        RestartPolicy::Always => PodPhase::Running,
        _ if !failed => PodPhase::Succeeded,
        RestartPolicy::OnFailure => PodPhase::Running,
        RestartPolicy::Never => PodPhase::Failed,
    }
}

fn container_status(
    pod: &Pod,
    container: &ContainerPlan,
    view: &View<'_>,
    known: &Known,
    now: Time,
) -> ContainerStatus {
    let mut instances = view.instances(&container.name);
    let newest = instances.next();
    let previous = instances.find_map(terminated);
    let ended = newest.and_then(terminated);
    let running = newest.and_then(|c| match c.state {
        ContainerState::Running { started_at } => Some(started_at),
        _ => None,
    });
    let waiting = || waiting(pod, container, newest, known, now);
    let (state, last) = match (running, ended) {
        (Some(started_at), _) => (State::Running { started_at }, previous),
        (None, Some(end)) if restarts(pod.restart_policy, end.code) => match waiting() {
            Some(state) => (state, Some(end)),
            None => (State::Terminated(end), previous),
        },
        (None, Some(end)) => (State::Terminated(end), previous),
        (None, None) => (waiting().unwrap_or_else(creating), previous),
    };
    ContainerStatus {
        name: container.name.clone(),
        ready: running.is_some(),
        state,
        last,
        restart_count: newest.map_or(0, |c| c.attempt),
        image: container.image.clone(),
        image_id: newest.map(|c| c.image_id.clone()).unwrap_or_default(),
        id: newest.map(|c| c.id.clone()).unwrap_or_default(),
    }
}

fn creating() -> State {
    State::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() }
}

fn terminated(container: &Container) -> Option<Terminated> {
    let id = container.id.clone();
    match &container.state {
        ContainerState::Exited { code, started_at, finished_at, reason, message } => Some(Terminated {
            code: *code,
            reason: reason.clone(),
            message: message.clone(),
            started_at: *started_at,
            finished_at: *finished_at,
            id,
        }),
        ContainerState::Unknown => Some(Terminated {
            code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The runtime cannot tell the state of this container.".to_owned(),
            started_at: Time(0),
            finished_at: Time(0),
            id,
        }),
        ContainerState::Created | ContainerState::Running { .. } => None,
    }
}

/// Why the container is not started: a failed verb, else the crash back-off.
fn waiting(
    pod: &Pod,
    container: &ContainerPlan,
    newest: Option<&Container>,
    known: &Known,
    now: Time,
) -> Option<State> {
    let uid = &pod.identity.uid;
    let failure = |verb, target: &str| {
        known.failures.get(&FailureKey { uid: uid.clone(), verb, target: target.to_owned() })
    };
    if let Some(f) = failure(Verb::EnsureImage, &container.image) {
        return Some(image_failure(f, &container.image, now));
    }
    for (verb, reason) in [(Verb::Create, "CreateContainerError"), (Verb::Start, "RunContainerError")] {
        if let Some(f) = failure(verb, &container.name) {
            let reason = if f.reason.is_empty() { reason } else { &f.reason };
            return Some(State::Waiting { reason: reason.to_owned(), message: f.message.clone() });
        }
    }
    let last = newest.filter(|c| !matches!(c.state, ContainerState::Created))?;
    let restart = backoff::restart(last, now);
    restart.not_before?;
    let (name, namespace) = (&pod.identity.name, &pod.identity.namespace);
    let message = format!(
        "back-off {} restarting failed container={} pod={name}_{namespace}({uid})",
        go_duration(restart.pause.as_secs()),
        container.name
    );
    Some(State::Waiting { reason: "CrashLoopBackOff".to_owned(), message })
}

/// The first failure is shown as itself, later ones as the pause they cause.
fn image_failure(failure: &Failure, image: &str, now: Time) -> State {
    let pausing =
        failure.count > 1 || now.since(failure.at) >= backoff::pause_after(failure, Verb::EnsureImage);
    let (reason, message) = match failure.reason.as_str() {
        "" | "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed" if pausing => {
            let message = format!("Back-off pulling image \"{image}\": {}", failure.message);
            ("ImagePullBackOff", message)
        }
        "" => ("ErrImagePull", failure.message.clone()),
        other => (other, failure.message.clone()),
    };
    State::Waiting { reason: reason.to_owned(), message }
}

/// Seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

fn pod_failure(known: &Known, uid: &PodUid) -> String {
    let of_pod = |key: &FailureKey| {
        key.uid == *uid
            && matches!(key.verb, Verb::Prepare | Verb::RunSandbox | Verb::StopSandbox | Verb::RemoveSandbox)
    };
    known.failures.iter().find(|(key, _)| of_pod(key)).map(|(_, f)| f.message.clone()).unwrap_or_default()
}
