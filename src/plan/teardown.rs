//! The way out of a pod: containers with their grace, then sandboxes, then what the host has.

use std::time::Duration;

use podstead_runtime::{Container, labels};

use super::action::Action;
use super::draft::{Draft, View};
use super::mutant::{Mutant, planted};
use super::reason::Reason;

/// Least time between stop signal and kill (`kubelet-static-pods.md 2.11`).
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// The API's default, for containers without a readable annotation.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The next steps towards nothing. Grace comes from the containers' annotations, because the manifest is gone
/// (where the kubelet gives such pods 1 s).
pub(super) fn tear_down(draft: &mut Draft<'_>, view: &View<'_>, because: &Reason) {
    let mut runs = false;
    if !planted(Mutant::SandboxStoppedFirst) {
        for container in &view.containers {
            if draft.may_run(container) {
                runs = true;
                stop(draft, container, annotated_grace(container), because.clone());
            }
        }
    }
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
    let (uid, name, id) = (draft.uid.clone(), container.name.clone(), container.id.clone());
    draft.step(Action::StopContainer { uid, container: name, id, grace }, because);
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
