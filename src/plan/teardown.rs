//! The way out of a pod: containers with their grace, then sandboxes, then what the host has.

use std::time::Duration;

use podstead_runtime::{Container, labels};

use super::action::Action;
use super::draft::{Draft, View};
use super::mutant::{Mutant, planted};
use super::reason::{Reason, WaitReason};
use super::types::Role;

/// Annotation of init containers that are no sidecars: their place among the pod's init containers.
pub(super) const INIT: &str = "podstead.dev/init";
/// Annotation of sidecars: their place among the pod's init containers, for the order of stops without a manifest.
pub(super) const SIDECAR: &str = "podstead.dev/sidecar";

/// Least time between stop signal and kill (`kubelet-static-pods.md 2.11`).
pub const LEAST_GRACE: Duration = Duration::from_secs(2);
/// The API's default, for containers without a readable annotation.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The next steps towards nothing. Grace comes from the containers' annotations, because the manifest is gone
/// (where the kubelet gives such pods 1 s).
pub(super) fn tear_down(draft: &mut Draft<'_>, view: &View<'_>, because: &Reason) {
    let runs = !planted(Mutant::SandboxStoppedFirst) && stop_all(draft, view, None, because);
    if runs || release(draft, view, because) {
        return;
    }
    for container in &view.containers {
        remove(draft, container, because.clone());
    }
    for sandbox in &view.sandboxes {
        let empty = !view.containers.iter().any(|c| c.sandbox == sandbox.id);
        if empty && !planted(Mutant::SandboxNotRemoved) {
            let action = Action::RemoveSandbox { uid: draft.uid.clone(), id: sandbox.id.clone() };
            draft.step(action, because.clone());
        }
    }
    let gone = view.containers.is_empty() && view.sandboxes.is_empty();
    if gone && view.leftover && !planted(Mutant::LeftoversNotCleaned) {
        draft.step(Action::CleanPod { uid: draft.uid.clone() }, because.clone());
    }
}

/// Stops all that may run, with the pod's grace or the one written on each container; whether anything may. Sidecars
/// end after the containers they serve, the last first; their hooks do not wait, and when the grace is over nothing does
/// (`kubelet-static-pods.md 2.11`).
pub(super) fn stop_all(
    draft: &mut Draft<'_>,
    view: &View<'_>,
    grace: Option<Duration>,
    because: &Reason,
) -> bool {
    let alive: Vec<&Container> = view.containers.iter().copied().filter(|c| draft.may_run(c)).collect();
    if alive.is_empty() {
        return false;
    }
    let since = draft.known.ending.get(draft.uid).copied().unwrap_or(draft.now);
    let spent = draft.now.since(since);
    for container in &alive {
        let grace = grace.unwrap_or_else(|| annotated_grace(container));
        let Some(index) = sidecar(container) else {
            stop(draft, container, grace, because.clone());
            continue;
        };
        let earlier = |other: &&Container| sidecar(other).is_none_or(|other| other > index);
        let left = grace.saturating_sub(spent);
        if left.is_zero() || !alive.iter().any(earlier) || planted(Mutant::SidecarsDoNotOutlive) {
            stop(draft, container, Duration::from_secs(left.as_secs()), because.clone());
            continue;
        }
        if hook_due(draft, container) {
            let (uid, name, id) = (draft.uid.clone(), container.name.clone(), container.id.clone());
            draft.step(Action::PreStop { uid, container: name, id, grace: left }, Reason::StopsLater);
        }
        draft.wait(Some(&container.name), WaitReason::OutlivesOthers, Some(since + grace));
    }
    draft.ending = true;
    true
}

/// What a container was made as.
pub fn written_role(container: &Container) -> Role {
    if container.annotations.contains_key(SIDECAR) {
        Role::Sidecar
    } else if container.annotations.contains_key(INIT) {
        Role::Init
    } else {
        Role::Regular
    }
}

/// The place among the init containers that was written on a sidecar.
fn sidecar(container: &Container) -> Option<usize> {
    container.annotations.get(SIDECAR)?.parse().ok()
}

/// Whether the container has a preStop hook that was not carried out.
fn hook_due(draft: &Draft<'_>, container: &Container) -> bool {
    container.is_running()
        && container.annotations.contains_key(labels::PRE_STOP)
        && !draft.known.pre_stopped.contains(&container.id)
        && !planted(Mutant::HookForgotten)
}

/// Stops every sandbox that may hold network; whether there was any. Only once nothing runs: stopping a sandbox kills
/// without grace.
pub(super) fn release(draft: &mut Draft<'_>, view: &View<'_>, because: &Reason) -> bool {
    let mut any = false;
    for sandbox in &view.sandboxes {
        if draft.holds_network(sandbox) {
            any = true;
            let action = Action::StopSandbox { uid: draft.uid.clone(), id: sandbox.id.clone() };
            draft.step(action, because.clone());
        }
    }
    any
}

/// Stops one container.
pub(super) fn stop(draft: &mut Draft<'_>, container: &Container, grace: Duration, because: Reason) {
    let grace = if planted(Mutant::GraceIgnored) { Duration::ZERO } else { grace.max(LEAST_GRACE) };
    let hook = hook_due(draft, container);
    let (uid, name, id) = (draft.uid.clone(), container.name.clone(), container.id.clone());
    draft.step(Action::StopContainer { uid, container: name, id, grace, hook }, because);
}

/// Removes one container.
pub(super) fn remove(draft: &mut Draft<'_>, container: &Container, because: Reason) {
    let (uid, name, id) = (draft.uid.clone(), container.name.clone(), container.id.clone());
    draft.step(Action::RemoveContainer { uid, container: name, id }, because);
}

/// The pod's grace as it was when the container was made.
fn annotated_grace(container: &Container) -> Duration {
    let seconds = container.annotations.get(labels::TERMINATION_GRACE).and_then(|s| s.parse().ok());
    seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
}
