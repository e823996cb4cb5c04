//! What one pod has, gathered from a reading, and the list its steps are written on.

use std::collections::BTreeMap;

use podstead_runtime::{Container, ContainerState, PodIdentity, PodUid, Sandbox, SandboxState, Time, labels};

use super::action::{Action, Step, Wait};
use super::backoff;
use super::jobs::JobKey;
use super::known::Known;
use super::mutant::{Mutant, planted};
use super::reason::{Reason, WaitReason};
use super::room::Refusal;
use super::types::Observed;

/// What there is of one pod.
#[derive(Default)]
pub(super) struct View<'a> {
    /// `namespace/name`; empty when not known.
    pub full_name: String,
    /// Highest attempt first.
    pub sandboxes: Vec<&'a Sandbox>,
    /// Highest attempt first.
    pub containers: Vec<&'a Container>,
    /// Whether the host has something of it.
    pub leftover: bool,
}

impl View<'_> {
    /// Whether anything of the pod is there.
    pub fn there(&self) -> bool {
        !self.sandboxes.is_empty() || !self.containers.is_empty() || self.leftover
    }

    /// Instances of one container, highest attempt first.
    pub fn instances(&self, name: &str) -> impl Iterator<Item = &Container> {
        self.containers.iter().copied().filter(move |c| c.name == name)
    }
}

/// Sorts a reading by pod.
pub(super) fn views(observed: &Observed) -> BTreeMap<PodUid, View<'_>> {
    let mut views: BTreeMap<PodUid, View<'_>> = BTreeMap::new();
    let mut owner = BTreeMap::new();
    for sandbox in &observed.snapshot.sandboxes {
        owner.insert(&sandbox.id, &sandbox.pod);
        let view = views.entry(sandbox.pod.uid.clone()).or_default();
        view.full_name = sandbox.pod.full_name();
        view.sandboxes.push(sandbox);
    }
    for container in &observed.snapshot.containers {
        let pod = owner.get(&container.sandbox).map_or_else(|| labelled(container), |pod| (*pod).clone());
        let view = views.entry(pod.uid.clone()).or_default();
        view.full_name = pod.full_name();
        view.containers.push(container);
    }
    for (uid, pod) in &observed.leftovers {
        let view = views.entry(uid.clone()).or_default();
        view.leftover = true;
        if view.full_name.is_empty() && !pod.name.is_empty() {
            view.full_name = pod.full_name();
        }
    }
    for view in views.values_mut() {
        view.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        view.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }
    views
}

fn labelled(container: &Container) -> PodIdentity {
    let label = |key| container.labels.get(key).cloned().unwrap_or_default();
    PodIdentity {
        name: label(labels::POD_NAME),
        namespace: label(labels::POD_NAMESPACE),
        uid: container.pod_uid(),
    }
}

/// The steps and waits of one pod, as they are found.
pub(super) struct Draft<'a> {
    pub uid: &'a PodUid,
    pub full_name: &'a str,
    pub observed: &'a Observed,
    pub known: &'a Known,
    pub now: Time,
    pub steps: Vec<Step>,
    pub waits: Vec<Wait>,
    /// When time alone changes the plan, apart from the waits.
    pub look_at: Option<Time>,
    /// Whether all containers are being stopped.
    pub ending: bool,
    /// Why the node does not let it begin.
    pub refusal: Option<Refusal>,
    /// Whether that held it up.
    pub refused: bool,
}

impl<'a> Draft<'a> {
    pub fn new(
        uid: &'a PodUid,
        full_name: &'a str,
        observed: &'a Observed,
        known: &'a Known,
        now: Time,
    ) -> Self {
        let (steps, waits) = (Vec::new(), Vec::new());
        let (refusal, refused) = (None, false);
        Self {
            uid,
            full_name,
            observed,
            known,
            now,
            steps,
            waits,
            look_at: None,
            ending: false,
            refusal,
            refused,
        }
    }

    /// Notes that the plan changes then, whatever is seen.
    pub fn look_at(&mut self, time: Time) {
        self.look_at = Some(self.look_at.map_or(time, |earlier| earlier.min(time)));
    }

    /// Adds a step once, or a wait when the same failed a short while ago.
    pub fn step(&mut self, action: Action, because: Reason) {
        if self.steps.iter().any(|s| s.action.failure_key() == action.failure_key()) {
            return;
        }
        if !self.failed_lately(&action) {
            let job =
                JobKey { uid: self.uid.clone(), full_name: self.full_name.to_owned(), scope: action.scope() };
            self.steps.push(Step { action, because, job });
        }
    }

    /// Whether the action failed and its pause is not over; the wait is noted then.
    pub fn failed_lately(&mut self, action: &Action) -> bool {
        let verb = action.verb();
        let Some(failure) = self.known.failures.get(&action.failure_key()) else { return false };
        let until = backoff::due(failure.at, backoff::pause_after(failure, verb), self.now);
        if until.is_none() && !planted(Mutant::FailureNeverRetried) {
            return false;
        }
        let because = WaitReason::Failed { verb, count: failure.count, message: failure.message.clone() };
        let container = match action.scope() {
            super::jobs::Scope::Pod => None,
            super::jobs::Scope::Container(name) => Some(name),
        };
        let until = if planted(Mutant::NoWakeForFailure) { None } else { until };
        self.waits.push(Wait { container, because, until });
        true
    }

    /// Notes that something waits.
    pub fn wait(&mut self, container: Option<&str>, because: WaitReason, until: Option<Time>) {
        self.waits.push(Wait { container: container.map(str::to_owned), because, until });
    }

    /// Whether the sandbox must still be stopped. "Not ready" alone does not say that its network was given back.
    pub fn holds_network(&self, sandbox: &Sandbox) -> bool {
        sandbox.state == SandboxState::Ready
            || (!self.known.released.contains(&sandbox.id) && !planted(Mutant::SandboxNotReleased))
    }

    /// Whether the container may have a process: it runs, or the runtime cannot tell and nobody stopped it.
    pub fn may_run(&self, container: &Container) -> bool {
        match container.state {
            ContainerState::Running { .. } => true,
            ContainerState::Unknown => {
                !self.known.stopped.contains(&container.id) && !planted(Mutant::UnknownIgnored)
            }
            ContainerState::Created | ContainerState::Exited { .. } => false,
        }
    }
}
