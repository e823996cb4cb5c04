//! What one container needs next, judged by its newest instance (`kubelet-static-pods.md 2.5`).

use std::time::Duration;

use podstead_runtime::{Container, ContainerState, Sandbox};

use super::action::{FailureKey, Verb};
use super::backoff::{self, Restart};
use super::draft::{Draft, View};
use super::mutant::{Mutant, planted};
use super::reason::Reason;
use super::round;
use super::size::{self, Change};
use super::types::{ContainerPlan, Pod, RestartPolicy, Role};

/// What a container needs.
pub(super) enum Need<'a> {
    /// It runs as it should.
    Runs(&'a Container),
    /// It ended for good, with this code.
    Over(i32),
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
    sandbox: Option<&Sandbox>,
) -> Need<'a> {
    let floor = draft.observed.attempt_floor.get(&(draft.uid.clone(), container.name.clone()));
    let floor = if planted(Mutant::FloorIgnored) { 0 } else { floor.copied().unwrap_or(0) };
    let Some(last) = view.instances(&container.name).next() else {
        return Need::New { attempt: floor, restart: None, because: Reason::NoInstance };
    };
    let attempt =
        if planted(Mutant::AttemptReused) { last.attempt } else { last.attempt.saturating_add(1).max(floor) };
    let change = size::change(draft.observed, container, last);
    let changed = change == Change::Definition;
    let round = round::current(draft.observed, pod, view);
    let past = round.is_past(last);
    let misplaced = past || sandbox.is_none_or(|s| s.id != last.sandbox);
    let again = |because| Need::New { attempt, restart: Some(backoff::restart(last, draft.now)), because };
    match &last.state {
        ContainerState::Running { .. } => match misfit(draft, container, last, change, misplaced) {
            Some(because) => Need::Stop(last, because),
            None => Need::Runs(last),
        },
        ContainerState::Created | ContainerState::Exited { .. } if changed => {
            Need::New { attempt, restart: None, because: Reason::DefinitionChanged }
        }
        ContainerState::Created if change == Change::Restart => {
            Need::New { attempt, restart: None, because: Reason::ResizeRestarts }
        }
        ContainerState::Created if misplaced => {
            Need::New { attempt, restart: Some(backoff::instead(last)), because: Reason::NeverRan }
        }
        ContainerState::Created => Need::Start(last),
        ContainerState::Unknown if draft.may_run(last) => Need::Stop(last, Reason::StateUnknown),
        ContainerState::Unknown => again(Reason::StateUnknown),
        // Whatever it did and whatever its policy, once nothing of its round runs any more.
        ContainerState::Exited { .. } if past => {
            let asked = round::asks(draft.observed, container, last).is_some();
            let restart = if asked { backoff::restart(last, draft.now) } else { backoff::instead(last) };
            Need::New { attempt, restart: Some(restart), because: Reason::NewRound }
        }
        // No fault of its own: at once, and whatever the policy if nothing ran. It then keeps its number, which its
        // empty log has taken, unless it is in another sandbox.
        state
            if state.start_was_broken_off()
                && (state.never_ran() || policy(pod, container) != RestartPolicy::Never) =>
        {
            let same = state.never_ran() && !misplaced && floor <= last.attempt.saturating_add(1);
            let attempt = if same { last.attempt } else { attempt };
            Need::New { attempt, restart: Some(backoff::instead(last)), because: Reason::StartBrokenOff }
        }
        // What an init container did is gone with its sandbox.
        ContainerState::Exited { .. }
            if container.role == Role::Init && misplaced && !planted(Mutant::InitNotRepeated) =>
        {
            again(Reason::SandboxReplaced)
        }
        // The edit is likely the repair: its back-off is over.
        ContainerState::Exited { code, .. }
            if size::edited(container, last)
                && change != Change::None
                && (change == Change::Restart && policy(pod, container) != RestartPolicy::Never
                    || restarts(pod, container, *code, draft.observed.failed_a_probe(last))) =>
        {
            Need::New { attempt, restart: None, because: Reason::Resized }
        }
        ContainerState::Exited { code, .. }
            if restarts(pod, container, *code, draft.observed.failed_a_probe(last)) =>
        {
            again(Reason::Ended { code: *code, policy: policy(pod, container) })
        }
        ContainerState::Exited { code, .. } => Need::Over(*code),
    }
}

/// Why a running instance must go.
fn misfit(
    draft: &Draft<'_>,
    container: &ContainerPlan,
    running: &Container,
    change: Change,
    misplaced: bool,
) -> Option<Reason> {
    let hook =
        FailureKey { uid: draft.uid.clone(), verb: Verb::PostStart, target: running.id.as_str().to_owned() };
    if change == Change::Definition {
        Some(Reason::DefinitionChanged)
    } else if misplaced {
        Some(Reason::SandboxReplaced)
    } else if draft.observed.failed_a_probe(running) && !planted(Mutant::UnhealthyKept) {
        Some(Reason::Unhealthy)
    } else if change == Change::Restart {
        Some(Reason::ResizeRestarts)
    } else if container.post_start && draft.known.failures.contains_key(&hook) {
        Some(Reason::HookFailed)
    } else {
        None
    }
}

/// The grace of a stop: the pod's, or the failed probe's own.
pub(super) fn grace(
    draft: &Draft<'_>,
    pod: &Pod,
    container: &ContainerPlan,
    running: &Container,
) -> Duration {
    let Some(probed) = draft.observed.probed.get(&running.id).filter(|p| !p.alive) else { return pod.grace };
    let probes = &container.probes;
    let own = if probes.startup && !probed.started { probes.startup_grace } else { probes.liveness_grace };
    own.unwrap_or(pod.grace)
}

/// The policy that holds for the container: its own, else its role's, else the pod's.
pub(super) fn policy(pod: &Pod, container: &ContainerPlan) -> RestartPolicy {
    match (container.restart_policy, container.role, pod.restart_policy) {
        (_, Role::Sidecar, _) => RestartPolicy::Always,
        (Some(RestartPolicy::Always), Role::Init, _) | (None, Role::Init, RestartPolicy::Always) => {
            RestartPolicy::OnFailure
        }
        (Some(own), ..) => own,
        (None, _, pods) => pods,
    }
}

/// Whether another instance follows one with this exit code. One that a probe ended is judged by the policy alone,
/// whatever its code.
pub(super) fn restarts(pod: &Pod, container: &ContainerPlan, code: i32, by_probe: bool) -> bool {
    let policy = policy(pod, container);
    if by_probe {
        return policy != RestartPolicy::Never;
    }
    if container.restart_rules.iter().any(|rule| rule.matches(code)) {
        return true;
    }
    match policy {
        RestartPolicy::Always => code != 0 || !planted(Mutant::ExitZeroNotRestarted),
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether the container would be started if there were a sandbox.
pub(super) fn wants_start(draft: &Draft<'_>, pod: &Pod, container: &ContainerPlan, view: &View<'_>) -> bool {
    matches!(need(draft, pod, container, view, None), Need::New { .. })
}
