//! Whether a pod keeps its sandbox or gets a new one (`kubelet-static-pods.md 2.4`).

use podstead_runtime::{Sandbox, SandboxState};

use super::action::Action;
use super::backoff;
use super::containers;
use super::draft::{Draft, View};
use super::init;
use super::mutant::{Mutant, planted};
use super::need::{self, policy};
use super::reason::{Reason, WaitReason};
use super::teardown;
use super::types::{ContainerPlan, Pod, RestartPolicy};

/// The sandbox to keep, or why there must be another.
pub(super) fn decide<'a>(pod: &Pod, view: &View<'a>) -> Result<&'a Sandbox, Reason> {
    let Some(newest) = view.sandboxes.first().copied() else { return Err(Reason::NoSandbox) };
    if newest.state == SandboxState::NotReady && !planted(Mutant::DeadSandboxKept) {
        return Err(Reason::SandboxNotReady);
    }
    let ready = view.sandboxes.iter().filter(|s| s.state == SandboxState::Ready).count();
    if ready > 1 && !planted(Mutant::SecondSandboxKept) {
        return Err(Reason::SeveralSandboxes);
    }
    if newest.host_network != pod.host_network {
        return Err(Reason::NetworkModeChanged);
    }
    if !pod.host_network && newest.ips.as_ref().is_some_and(Vec::is_empty) {
        return Err(Reason::NoAddress);
    }
    Ok(newest)
}

/// The next steps towards a new sandbox: nothing may run in the old ones, and their network is given back first.
pub(super) fn replace(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>, because: Reason) {
    let runs = !planted(Mutant::ReplacedWithoutStop)
        && teardown::stop_all(draft, view, Some(pod.grace), &Reason::SandboxReplaced);
    if runs || teardown::release(draft, view, &because) || !wanted(draft, pod, view) {
        return;
    }
    if let Some(refusal) = draft.refusal.clone().filter(|_| !planted(Mutant::RefusalIgnored)) {
        draft.refused = true;
        return draft.wait(None, WaitReason::Refused(refusal), None);
    }
    if let Some(problem) = &draft.known.runtime_problem {
        return draft.wait(
            None,
            WaitReason::RuntimeNotReady(problem.clone()),
            Some(draft.now + backoff::LOOK_AGAIN),
        );
    }
    if let Some(problem) = draft.known.network_problem.as_ref().filter(|_| !pod.host_network) {
        return draft.wait(
            None,
            WaitReason::NetworkNotReady(problem.clone()),
            Some(draft.now + backoff::LOOK_AGAIN),
        );
    }
    if let Some(newest) = view.sandboxes.first() {
        let pause = backoff::sandbox_pause(newest.attempt);
        if let Some(until) = backoff::due(newest.created_at, pause, draft.now) {
            return draft.wait(None, WaitReason::SandboxShortLived, Some(until));
        }
    }
    if containers::unprepared(draft) {
        return;
    }
    let attempt = match view.sandboxes.first() {
        Some(newest) if !planted(Mutant::FreshSandboxAttempt) => newest.attempt.saturating_add(1),
        _ => 0,
    };
    draft.step(Action::RunSandbox { uid: draft.uid.clone(), attempt }, because);
}

/// Whether a new sandbox would be of any use: a pod that is never restarted gets no second one once it had containers,
/// and one whose containers all ended for good gets none either.
pub(super) fn wanted(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>) -> bool {
    if containers::ending(draft, pod, view, None).is_some() {
        return false;
    }
    if init::gave_up(draft, pod, view) {
        return false;
    }
    let had = !view.sandboxes.is_empty() && !view.containers.is_empty();
    let never = |c: &ContainerPlan| c.restart_rules.is_empty() && policy(pod, c) == RestartPolicy::Never;
    if had && pod.containers.iter().all(never) {
        return false;
    }
    pod.containers.iter().any(|c| need::wants_start(draft, pod, c, view))
}

/// Stops and removes sandboxes that a newer one took the place of, once their last container is gone
/// (`kubelet-static-pods.md 2.13`).
pub(super) fn collect(draft: &mut Draft<'_>, view: &View<'_>) {
    for sandbox in view.sandboxes.iter().skip(1) {
        if sandbox.state == SandboxState::Ready || view.containers.iter().any(|c| c.sandbox == sandbox.id) {
            continue;
        }
        let (uid, id) = (draft.uid.clone(), sandbox.id.clone());
        let action = if draft.holds_network(sandbox) {
            Action::StopSandbox { uid, id }
        } else {
            Action::RemoveSandbox { uid, id }
        };
        draft.step(action, Reason::OldSandbox);
    }
}
