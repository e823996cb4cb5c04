//! What each container of a pod needs next (`kubelet-static-pods.md 2.5`), and which dead instances go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podstead_runtime::{Container, ContainerState, Sandbox, labels};

use super::action::Action;
use super::backoff::{self, BACKOFF, Restart};
use super::draft::{Draft, View};
use super::mutant::{Mutant, planted};
use super::reason::{Reason, WaitReason};
use super::teardown;
use super::types::{ContainerPlan, Observed, Pod, RestartPolicy};

/// What a container needs.
pub(super) enum Need<'a> {
    /// It runs as it should.
    Runs,
    /// It ended for good.
    Over,
    /// It must be stopped first.
    Stop(&'a Container, Reason),
    /// It is made and waits to be started.
    Start(&'a Container),
    /// It needs a new instance.
    New { attempt: u32, restart: Option<Restart>, because: Reason },
}

/// What the container needs, given the sandbox it belongs in (`None` while that is replaced).
pub(super) fn need<'a>(
    draft: &Draft<'_>,
    pod: &Pod,
    container: &ContainerPlan,
    view: &'a View<'_>,
    observed: &Observed,
    sandbox: Option<&Sandbox>,
) -> Need<'a> {
    let floor =
        observed.attempt_floor.get(&(draft.uid.clone(), container.name.clone())).copied().unwrap_or(0);
    let floor = if planted(Mutant::FloorIgnored) { 0 } else { floor };
    let Some(last) = view.instances(&container.name).next() else {
        return Need::New { attempt: floor, restart: None, because: Reason::NoInstance };
    };
    let attempt =
        if planted(Mutant::AttemptReused) { last.attempt } else { last.attempt.saturating_add(1).max(floor) };
    let changed = last.annotations.get(labels::CONTAINER_HASH).is_some_and(|hash| *hash != container.hash);
    let misplaced = sandbox.is_none_or(|s| s.id != last.sandbox);
    let again = |because| Need::New { attempt, restart: Some(backoff::restart(last, draft.now)), because };
    match &last.state {
        ContainerState::Running { .. } if changed => Need::Stop(last, Reason::DefinitionChanged),
        ContainerState::Running { .. } if misplaced => Need::Stop(last, Reason::SandboxReplaced),
        ContainerState::Running { .. } => Need::Runs,
        ContainerState::Created | ContainerState::Exited { .. } if changed => {
            Need::New { attempt, restart: None, because: Reason::DefinitionChanged }
        }
        ContainerState::Created if misplaced => {
            Need::New { attempt, restart: Some(backoff::instead(last)), because: Reason::NeverRan }
        }
        ContainerState::Created => Need::Start(last),
        ContainerState::Unknown if draft.may_run(last) => Need::Stop(last, Reason::StateUnknown),
        ContainerState::Unknown => again(Reason::StateUnknown),
        // No fault of its own: at once, and whatever the policy if nothing ran. It then keeps its number, which its
        // empty log has taken, unless it is in another sandbox.
        state if state.start_was_broken_off() && (state.never_ran() || retried(pod)) => {
            let same = state.never_ran() && !misplaced && floor <= last.attempt.saturating_add(1);
            let attempt = if same { last.attempt } else { attempt };
            Need::New { attempt, restart: Some(backoff::instead(last)), because: Reason::StartBrokenOff }
        }
        ContainerState::Exited { code, .. } if restarts(pod.restart_policy, *code) => {
            again(Reason::Ended { code: *code, policy: pod.restart_policy })
        }
        ContainerState::Exited { .. } => Need::Over,
    }
}

/// Whether the policy wants another instance after this exit code.
pub(super) fn restarts(policy: RestartPolicy, code: i32) -> bool {
    match policy {
        RestartPolicy::Always => code != 0 || !planted(Mutant::ExitZeroNotRestarted),
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether an instance that ended badly is followed by another.
fn retried(pod: &Pod) -> bool {
    pod.restart_policy != RestartPolicy::Never
}

/// Whether the container would be started if there were a sandbox.
pub(super) fn wants_start(
    draft: &Draft<'_>,
    pod: &Pod,
    container: &ContainerPlan,
    view: &View<'_>,
    observed: &Observed,
) -> bool {
    matches!(need(draft, pod, container, view, observed, None), Need::New { .. })
}

/// The next steps of a pod that keeps its sandbox.
pub(super) fn converge(
    draft: &mut Draft<'_>,
    pod: &Pod,
    view: &View<'_>,
    observed: &Observed,
    sandbox: &Sandbox,
) {
    let mut active = false;
    for container in &pod.containers {
        let need = need(draft, pod, container, view, observed, Some(sandbox));
        active |= !matches!(need, Need::Over);
        match need {
            Need::Runs | Need::Over => {}
            Need::Stop(instance, because) => teardown::stop(draft, instance, pod.grace, because),
            // One that should not be there is stopped first, by `collect`.
            Need::Start(_) | Need::New { .. }
                if view.instances(&container.name).any(Container::is_running) => {}
            Need::Start(instance) => start(draft, instance),
            Need::New { because: Reason::StartBrokenOff, .. }
                if start_failed_lately(draft, container, view) => {}
            Need::New { attempt, restart, because } => {
                let next = New { pod, container, sandbox, attempt, restart };
                make(draft, &next, because);
            }
        }
    }
    if !active && !view.containers.iter().any(|c| draft.may_run(c)) && !planted(Mutant::CompletedSandboxKept)
    {
        teardown::release(draft, view, &Reason::Completed);
    }
}

fn start(draft: &mut Draft<'_>, instance: &Container) {
    if let Some(problem) = &draft.known.runtime_problem {
        let because = WaitReason::RuntimeNotReady(problem.clone());
        return draft.wait(Some(&instance.name), because, Some(draft.now + backoff::LOOK_AGAIN));
    }
    if planted(Mutant::CreatedNotStarted) {
        return;
    }
    let (uid, container, id) = (draft.uid.clone(), instance.name.clone(), instance.id.clone());
    draft.step(Action::StartContainer { uid, container, id }, Reason::NotStarted);
}

/// Whether this agent's own start of the newest instance failed: a start that is broken off again and again is no busy
/// loop. The wait is noted then.
fn start_failed_lately(draft: &mut Draft<'_>, container: &ContainerPlan, view: &View<'_>) -> bool {
    let Some(last) = view.instances(&container.name).next() else { return false };
    let (uid, container, id) = (draft.uid.clone(), last.name.clone(), last.id.clone());
    draft.failed_lately(&Action::StartContainer { uid, container, id })
}

/// An instance to be made.
struct New<'a> {
    pod: &'a Pod,
    container: &'a ContainerPlan,
    sandbox: &'a Sandbox,
    attempt: u32,
    restart: Option<Restart>,
}

fn make(draft: &mut Draft<'_>, new: &New<'_>, because: Reason) {
    let name = &new.container.name;
    if let Some((until, pause)) = new.restart.and_then(|r| Some((r.not_before?, r.pause))) {
        let until = (!planted(Mutant::NoWakeForBackOff)).then_some(until);
        return draft.wait(Some(name), WaitReason::CrashLoop(pause), until);
    }
    if let Some(problem) = &draft.known.runtime_problem {
        let because = WaitReason::RuntimeNotReady(problem.clone());
        return draft.wait(Some(name), because, Some(draft.now + backoff::LOOK_AGAIN));
    }
    let key = (draft.uid.clone(), name.clone(), new.attempt);
    let image_id = draft.known.resolved.get(&key).cloned();
    let create = Action::CreateContainer {
        uid: draft.uid.clone(),
        sandbox: new.sandbox.id.clone(),
        container: name.clone(),
        attempt: new.attempt,
        image_id: image_id.clone().unwrap_or_default(),
        annotations: annotations(new),
    };
    if draft.failed_lately(&create) || unprepared(draft) {
        return;
    }
    if image_id.is_some() {
        return draft.step(create, because);
    }
    let image = new.container.image.clone();
    let ensure =
        Action::EnsureImage { uid: draft.uid.clone(), container: name.clone(), attempt: new.attempt, image };
    draft.step(ensure, Reason::ImageNeeded);
}

/// Whether the host side must be made first; the step is added then, once.
pub(super) fn unprepared(draft: &mut Draft<'_>) -> bool {
    if draft.known.prepared.contains(draft.uid) || planted(Mutant::NoPrepare) {
        return false;
    }
    let action = Action::PreparePod { uid: draft.uid.clone() };
    if !draft.steps.iter().any(|s| s.action == action) {
        draft.step(action, Reason::NotPrepared);
    }
    true
}

/// What is written on a new instance: enough to go on after this agent's death, also without the manifest.
fn annotations(new: &New<'_>) -> BTreeMap<String, String> {
    let pause = new.restart.map_or(Duration::ZERO, |r| r.next_pause);
    BTreeMap::from([
        (labels::CONTAINER_HASH.to_owned(), new.container.hash.clone()),
        (labels::RESTART_COUNT.to_owned(), new.attempt.to_string()),
        (labels::TERMINATION_GRACE.to_owned(), new.pod.grace.as_secs().to_string()),
        (BACKOFF.to_owned(), pause.as_secs().to_string()),
    ])
}

/// Removes instances nobody asks for any more: all but the newest and the newest dead one of each container
/// (`kubelet-static-pods.md 2.13`), everything of containers that the pod does not have, and a second instance of one
/// attempt, which is none of its history.
pub(super) fn collect(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>) {
    let mut newest: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let mut attempts = BTreeSet::new();
    for instance in &view.containers {
        let in_pod = pod.containers.iter().any(|c| c.name == instance.name);
        let (newer, newer_dead) = newest.entry(&instance.name).or_default();
        let dead = matches!(instance.state, ContainerState::Exited { .. } | ContainerState::Unknown);
        let first = attempts.insert((&instance.name, instance.attempt));
        let keep = in_pod && first && (!*newer || (dead && !*newer_dead));
        *newer = true;
        *newer_dead |= dead;
        let because = if in_pod { Reason::Superseded } else { Reason::NotInPod };
        if draft.may_run(instance) {
            if !in_pod || !keep {
                teardown::stop(draft, instance, pod.grace, because);
            }
        } else if !keep && !planted(Mutant::DeadNotCollected) {
            teardown::remove(draft, instance, because);
        }
    }
}

#[cfg(test)]
mod tests;
