//! The next steps of a pod's containers (`kubelet-static-pods.md 2.5`), and which dead instances go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podstead_runtime::{Container, ContainerState, Sandbox, labels};

use super::action::Action;
use super::backoff::{self, BACKOFF, Restart};
use super::draft::{Draft, View};
use super::init;
use super::mutant::{Mutant, planted};
use super::need::{self, Need, need};
use super::reason::{Reason, WaitReason};
use super::room::Refusal;
use super::round::{self, ROUND};
use super::size;
use super::teardown::{self, INIT, SIDECAR};
use super::types::{ContainerPlan, Pod, Role};

/// Why the pod ends for good, if it does.
pub(super) fn ending(
    draft: &mut Draft<'_>,
    pod: &Pod,
    view: &View<'_>,
    sandbox: Option<&Sandbox>,
) -> Option<Reason> {
    if let Some(end) = draft.observed.deadline(pod)
        && !planted(Mutant::DeadlineIgnored)
    {
        if draft.now >= end {
            return Some(Reason::DeadlineExceeded);
        }
        draft.look_at(end);
    }
    let sandbox = sandbox?;
    if init::failed(draft, pod, view, sandbox) {
        return Some(Reason::InitFailed);
    }
    let over = |c| matches!(need(draft, pod, c, view, Some(sandbox)), Need::Over(_));
    pod.containers.iter().all(over).then_some(Reason::Completed)
}

/// The next steps of a pod that keeps its sandbox.
pub(super) fn converge(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>, sandbox: &Sandbox) {
    if let Some(because) = ending(draft, pod, view, Some(sandbox)) {
        if !teardown::stop_all(draft, view, Some(pod.grace), &because)
            && !planted(Mutant::CompletedSandboxKept)
        {
            teardown::release(draft, view, &because);
        }
        return;
    }
    let round = round::current(draft.observed, pod, view);
    if round::clear_the_way(draft, view, &round) || !init::advance(draft, pod, view, sandbox) {
        return;
    }
    // Starts go side by side, but not past a hook (`kubelet-static-pods.md 2.11`): it may prepare what the next needs.
    let mut hook: Option<&str> = None;
    for container in &pod.containers {
        let need = need(draft, pod, container, view, Some(sandbox));
        let starts = matches!(need, Need::Start(_) | Need::New { .. });
        if let Some(first) = hook.filter(|_| starts && !planted(Mutant::HookNotAwaited)) {
            draft.wait(Some(&container.name), WaitReason::Hook(first.to_owned()), None);
            continue;
        }
        let stops = matches!(need, Need::Stop(..));
        let before = draft.steps.len();
        act(draft, pod, container, view, sandbox, need);
        if container.post_start && !stops && draft.steps.len() > before {
            hook = Some(&container.name);
        }
    }
}

/// The next step of one container.
pub(super) fn act(
    draft: &mut Draft<'_>,
    pod: &Pod,
    container: &ContainerPlan,
    view: &View<'_>,
    sandbox: &Sandbox,
    need: Need<'_>,
) {
    match need {
        Need::Over(_) => {}
        Need::Runs(instance) => {
            if container.post_start && !draft.observed.hooked.contains(&instance.id) {
                let (uid, container, id) = (draft.uid.clone(), instance.name.clone(), instance.id.clone());
                draft.step(Action::PostStart { uid, container, id }, Reason::HookDue);
            }
        }
        Need::Stop(instance, because) => {
            let grace = need::grace(draft, pod, container, instance);
            teardown::stop(draft, instance, grace, because);
        }
        // One that should not be there is stopped first, by `collect`.
        Need::Start(_) | Need::New { .. } if view.instances(&container.name).any(Container::is_running) => {}
        Need::Start(instance) => start(draft, instance),
        Need::New { because: Reason::StartBrokenOff, .. } if start_failed_lately(draft, container, view) => {}
        Need::New { attempt, restart, because } => {
            let round = round::current(draft.observed, pod, view).number;
            let next = New { pod, container, sandbox, attempt, restart, round };
            make(draft, &next, view, because);
        }
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
    round: u32,
}

fn make(draft: &mut Draft<'_>, new: &New<'_>, view: &View<'_>, because: Reason) {
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
    // A pod that keeps its sandbox may have been edited to what the node refuses. Room and labels keep nothing that is here
    // from starting again.
    if let Some(refusal) = new.pod.refused.clone().filter(Refusal::protects) {
        return draft.wait(Some(name), WaitReason::Refused(refusal), None);
    }
    if draft.failed_lately(&create) || unprepared(draft) {
        return;
    }
    if image_id.is_some() {
        // Only now: while an image is awaited the pod's cgroup would go up and down.
        if !size::cramped(draft, new.pod, view) {
            draft.step(create, because);
        }
        return;
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
    let mut all = BTreeMap::from([
        (labels::CONTAINER_HASH.to_owned(), new.container.hash.clone()),
        (labels::RESTART_COUNT.to_owned(), new.attempt.to_string()),
        (labels::TERMINATION_GRACE.to_owned(), new.pod.grace.as_secs().to_string()),
        (BACKOFF.to_owned(), pause.as_secs().to_string()),
    ]);
    if !new.container.frame.is_empty() {
        all.insert(size::FRAME.to_owned(), new.container.frame.clone());
        if !new.container.context.is_empty() {
            all.insert(size::CONTEXT.to_owned(), new.container.context.clone());
        }
        all.insert(size::SIZE.to_owned(), new.container.size.to_string());
    }
    if new.round > 0 && !planted(Mutant::RoundForgotten) {
        all.insert(ROUND.to_owned(), new.round.to_string());
    }
    let key = match new.container.role {
        Role::Regular => return all,
        Role::Init => INIT,
        Role::Sidecar => SIDECAR,
    };
    let index = new.pod.init.iter().position(|c| c.name == new.container.name).unwrap_or(0);
    all.insert(key.to_owned(), index.to_string());
    all
}

/// Removes instances nobody asks for any more: all but the newest and the newest dead one of each container
/// (`kubelet-static-pods.md 2.13`), everything of containers that the pod does not have, and a second instance of one
/// attempt, which is none of its history.
pub(super) fn collect(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>) {
    let mut newest: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let mut attempts = BTreeSet::new();
    for instance in &view.containers {
        let in_pod = pod.all().any(|c| c.name == instance.name);
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
