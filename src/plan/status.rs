//! What to tell people about a pod: phase and container states as the kubelet's API shows them
//! (`kubelet-static-pods.md 2.5`, `2.16`). Derived from the same inputs as the plan, pure like it.

use std::net::IpAddr;

use podstead_runtime::{Container, ContainerId, ContainerState, PodUid, SandboxState, Time};
use serde::Serialize;

use super::action::{FailureKey, Verb};
use super::backoff;
use super::draft::{self, View};
use super::init;
use super::known::{Failure, Known};
use super::need::restarts;
use super::round::{self, Round};
use super::types::{ContainerPlan, Observed, Pod, Role};

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
    /// When it was first seen on this node; "never" when that is not known.
    pub since: Time,
    /// Whether the newest sandbox is ready.
    pub sandbox_ready: bool,
    /// Whether every container and sidecar is ready.
    pub ready: bool,
    /// Whether all init containers are over and all sidecars were started.
    pub initialized: bool,
    /// Why the pod as a whole failed, as the kubelet spells it (`DeadlineExceeded`); empty for nothing.
    pub reason: String,
    /// How many times a rule had all containers started anew.
    pub rounds: u32,
    /// Why all containers are to be started anew just now; empty for nothing.
    pub restarting: String,
    /// What holds the pod up as a whole; empty for nothing.
    pub message: String,
    /// Init containers and sidecars, in the order of the spec.
    pub init: Vec<ContainerStatus>,
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
    /// Whether it serves: it is started and its readiness probe passes; of an init container, whether it is done.
    pub ready: bool,
    /// Whether it runs, its postStart hook is over and its startup probe passed.
    pub started: bool,
    /// Whether another instance follows the one that is over.
    #[serde(skip)]
    again: bool,
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
    let sandbox = view.sandboxes.first();
    let round = round::current(observed, pod, &view);
    let told = Told { pod, observed, known, now, view: &view, round };
    let over = sandbox.is_some_and(|s| init::is_over(observed, pod, &view, s));
    let init: Vec<_> = pod.init.iter().map(|c| told.container(c, over)).collect();
    let passed = |(c, plan): (&ContainerStatus, &ContainerPlan)| match plan.role {
        Role::Sidecar => c.started,
        _ => matches!(&c.state, State::Terminated(end) if end.code == 0),
    };
    let initialized = over || init.iter().zip(&pod.init).all(passed);
    let containers: Vec<_> = pod.containers.iter().map(|c| told.container(c, initialized)).collect();
    let late = observed.deadline(pod).is_some_and(|end| now >= end);
    let failure = pod_failure(known, &pod.identity.uid);
    let sidecars = init.iter().zip(&pod.init).filter(|(_, plan)| plan.role == Role::Sidecar);
    let serves = |c: &ContainerStatus| c.ready;
    PodStatus {
        phase: match round.cause {
            _ if late => PodPhase::Failed,
            Some(_) => PodPhase::Pending,
            None => phase(pod, &init, initialized, &containers),
        },
        rounds: round.number,
        restarting: round.cause.map(|(c, code)| restarting(c, code)).unwrap_or_default(),
        ips: sandbox
            .filter(|s| s.state == SandboxState::Ready)
            .and_then(|s| s.ips.clone())
            .unwrap_or_default(),
        since: observed.since.get(&pod.identity.uid).copied().unwrap_or(Time(0)),
        sandbox_ready: sandbox.is_some_and(|s| s.state == SandboxState::Ready),
        sandbox_created_at: sandbox.map_or(Time(0), |s| s.created_at),
        ready: !containers.is_empty()
            && containers.iter().all(serves)
            && sidecars.map(|(c, _)| c).all(serves),
        initialized,
        reason: if late {
            "DeadlineExceeded".to_owned()
        } else {
            failure.map(|f| f.reason.clone()).unwrap_or_default()
        },
        message: if late {
            "Pod was active on the node longer than the specified deadline".to_owned()
        } else {
            failure
                .map(|f| f.message.clone())
                .or_else(|| predecessors_failure(pod, observed, known))
                .unwrap_or_default()
        },
        init,
        containers,
    }
}

fn restarting(container: &Container, code: i32) -> String {
    format!("Container {} exited with code {code}, triggering pod restart", container.name)
}

/// The kubelet's getPhase: a waiting container that ran before counts as stopped.
fn phase(pod: &Pod, init: &[ContainerStatus], initialized: bool, containers: &[ContainerStatus]) -> PodPhase {
    let gave_up = |(c, plan): &(&ContainerStatus, &ContainerPlan)| {
        plan.role == Role::Init && !c.again && matches!(&c.state, State::Terminated(end) if end.code != 0)
    };
    if !initialized {
        let failed = init.iter().zip(&pod.init).any(|both| gave_up(&both));
        return if failed { PodPhase::Failed } else { PodPhase::Pending };
    }
    let (mut failed, mut again) = (false, false);
    for container in containers {
        match (&container.state, &container.last) {
            (State::Running { .. }, _) => return running(containers),
            (State::Terminated(end), _) | (State::Waiting { .. }, Some(end)) => failed |= end.code != 0,
            (State::Waiting { .. }, None) => return PodPhase::Pending,
        }
        again |= container.again;
    }
    match (again, failed) {
        (true, _) => PodPhase::Running,
        (false, false) => PodPhase::Succeeded,
        (false, true) => PodPhase::Failed,
    }
}

/// One runs; another that never ran holds the pod back all the same.
fn running(containers: &[ContainerStatus]) -> PodPhase {
    let never_ran = |c: &ContainerStatus| matches!(c.state, State::Waiting { .. }) && c.last.is_none();
    if containers.iter().any(never_ran) { PodPhase::Pending } else { PodPhase::Running }
}

/// What a pod's statuses are read from.
struct Told<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    known: &'a Known,
    now: Time,
    view: &'a View<'a>,
    round: Round<'a>,
}

impl Told<'_> {
    /// `begun`: the pod got past its init containers.
    fn container(&self, plan: &ContainerPlan, begun: bool) -> ContainerStatus {
        let mut instances = self.view.instances(&plan.name);
        let newest = instances.next();
        let previous = instances.find_map(|c| self.terminated(c));
        let ended = newest.and_then(|c| self.terminated(c));
        let running = newest.and_then(|c| match c.state {
            ContainerState::Running { started_at } => Some(started_at),
            _ => None,
        });
        let by_probe = newest.is_some_and(|c| self.observed.failed_a_probe(c));
        // An init container that is over for good is shown as it ended, whatever came later.
        let settled = plan.role == Role::Init && begun;
        let past = newest.is_some_and(|c| self.round.is_past(c));
        let again = |end: &Terminated| !settled && (past || restarts(self.pod, plan, end.code, by_probe));
        let followed = ended.as_ref().is_some_and(again);
        let (state, last) = match (running, ended) {
            (Some(started_at), _) => (State::Running { started_at }, previous),
            (None, Some(end)) if followed => match self.waiting(plan, newest) {
                Some(state) => (state, Some(end)),
                None => (State::Terminated(end), previous),
            },
            (None, Some(end)) => (State::Terminated(end), previous),
            (None, None) => (self.waiting(plan, newest).unwrap_or_else(|| self.creating(begun)), previous),
        };
        let done = plan.role == Role::Init && matches!(&state, State::Terminated(end) if end.code == 0);
        ContainerStatus {
            name: plan.name.clone(),
            ready: done || (plan.role != Role::Init && newest.is_some_and(|c| self.observed.ready(plan, c))),
            started: newest.is_some_and(|c| self.observed.started(plan, c)),
            again: followed,
            state,
            last,
            restart_count: newest.map_or(0, |c| c.attempt),
            image: plan.image.clone(),
            image_id: newest.map(|c| c.image_id.clone()).unwrap_or_default(),
            id: newest.map(|c| c.id.clone()).unwrap_or_default(),
        }
    }

    /// How an instance ended, with the message that it left.
    fn terminated(&self, container: &Container) -> Option<Terminated> {
        let mut end = terminated(container)?;
        if let Some(message) = self.observed.messages.get(&container.id) {
            end.message.clone_from(message);
        }
        Some(end)
    }

    fn creating(&self, begun: bool) -> State {
        let reason = if self.pod.init.is_empty() || begun { "ContainerCreating" } else { "PodInitializing" };
        State::Waiting { reason: reason.to_owned(), message: String::new() }
    }

    /// Why the container is not started: a failed verb, else the crash back-off.
    fn waiting(&self, plan: &ContainerPlan, newest: Option<&Container>) -> Option<State> {
        let uid = &self.pod.identity.uid;
        let failure = |verb, target: &str| {
            self.known.failures.get(&FailureKey { uid: uid.clone(), verb, target: target.to_owned() })
        };
        if let Some(f) = failure(Verb::EnsureImage, &plan.image) {
            return Some(image_failure(f, &plan.image, self.now));
        }
        let id = newest.map_or("", |c| c.id.as_str());
        for (verb, target, reason) in [
            (Verb::Create, plan.name.as_str(), "CreateContainerError"),
            (Verb::Start, plan.name.as_str(), "RunContainerError"),
            (Verb::PostStart, id, "PostStartHookError"),
        ] {
            if let Some(f) = failure(verb, target) {
                let reason = if f.reason.is_empty() { reason } else { &f.reason };
                return Some(State::Waiting { reason: reason.to_owned(), message: f.message.clone() });
            }
        }
        let last = newest.filter(|c| !matches!(c.state, ContainerState::Created))?;
        let restart = backoff::restart(last, self.now);
        restart.not_before?;
        let (name, namespace) = (&self.pod.identity.name, &self.pod.identity.namespace);
        let message = format!(
            "back-off {} restarting failed container={} pod={name}_{namespace}({uid})",
            go_duration(restart.pause.as_secs()),
            plan.name
        );
        Some(State::Waiting { reason: "CrashLoopBackOff".to_owned(), message })
    }
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

/// Why the pod that had this name before cannot be taken away from the host.
fn predecessors_failure(pod: &Pod, observed: &Observed, known: &Known) -> Option<String> {
    let name = pod.identity.full_name();
    let uids =
        observed.leftovers.iter().filter(|(uid, id)| **uid != pod.identity.uid && id.full_name() == name);
    let failures = uids.filter_map(|(uid, _)| {
        known.failures.get(&FailureKey { uid: uid.clone(), verb: Verb::Clean, target: String::new() })
    });
    failures.map(|f| format!("waiting for the end of the pod before: {}", f.message)).next()
}

fn pod_failure<'a>(known: &'a Known, uid: &PodUid) -> Option<&'a Failure> {
    let of_pod = |key: &FailureKey| {
        key.uid == *uid
            && matches!(key.verb, Verb::Prepare | Verb::RunSandbox | Verb::StopSandbox | Verb::RemoveSandbox)
    };
    known.failures.iter().find(|(key, _)| of_pod(key)).map(|(_, failure)| failure)
}
