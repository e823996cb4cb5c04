//! Init containers in their order, and sidecars, which go on beside the rest (`kubelet-static-pods.md 2.5`).

use podstead_runtime::Sandbox;

use super::containers;
use super::draft::{Draft, View};
use super::mutant::{Mutant, planted};
use super::need::{Need, need};
use super::reason::WaitReason;
use super::round;
use super::types::{Observed, Pod, Role};

/// Whether the pod got as far as its regular containers in this sandbox and round: init containers are then over for good, whatever
/// is left of them.
pub(super) fn is_over(observed: &Observed, pod: &Pod, view: &View<'_>, sandbox: &Sandbox) -> bool {
    let round = round::current(observed, pod, view);
    let regular = |name: &str| pod.containers.iter().any(|c| c.name == name);
    view.containers.iter().any(|c| c.sandbox == sandbox.id && regular(&c.name) && !round.is_past(c))
}

/// The next steps of init containers and sidecars; whether the regular containers may have theirs.
pub(super) fn advance(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>, sandbox: &Sandbox) -> bool {
    let over = is_over(draft.observed, pod, view, sandbox) && !planted(Mutant::InitAlwaysRepeated);
    for container in &pod.init {
        if over && container.role == Role::Init {
            continue;
        }
        let need = need(draft, pod, container, view, Some(sandbox));
        let done = match (container.role, &need) {
            // One that failed for good has ended the pod before it comes to this.
            (Role::Init, Need::Over(_)) => true,
            (Role::Init, Need::Runs(_)) => planted(Mutant::RunningInitPassed),
            (Role::Sidecar, Need::Runs(instance)) => {
                draft.observed.started(container, instance) || planted(Mutant::SidecarNotAwaited)
            }
            _ => false,
        };
        containers::act(draft, pod, container, view, sandbox, need);
        if !done && !over {
            draft.wait(None, WaitReason::Init(container.name.clone()), None);
            return false;
        }
    }
    true
}

/// Whether an init container failed and is not tried again.
pub(super) fn failed(draft: &Draft<'_>, pod: &Pod, view: &View<'_>, sandbox: &Sandbox) -> bool {
    !is_over(draft.observed, pod, view, sandbox)
        && !planted(Mutant::FailedInitPassed)
        && pod
            .init
            .iter()
            .filter(|c| c.role == Role::Init)
            .any(|c| matches!(need(draft, pod, c, view, Some(sandbox)), Need::Over(code) if code != 0))
}

/// The same while the sandbox is replaced: it failed in the newest one, before any regular container was made.
pub(super) fn gave_up(draft: &Draft<'_>, pod: &Pod, view: &View<'_>) -> bool {
    view.sandboxes.first().is_some_and(|newest| failed(draft, pod, view, newest))
}
