//! Rounds of a pod's containers: by a rule, one container's exit starts all of them anew, from the first init container
//! (`RestartAllContainers`, `kubelet-static-pods.md 2.5`).
//!
//! Each instance has its round written on it, so that neither the agent's death nor a new sandbox mixes them up, and
//! nothing must be removed to tell them apart.

use podstead_runtime::{Container, ContainerState, Time};

use super::action::Action;
use super::backoff;
use super::draft::{Draft, View};
use super::mutant::{Mutant, planted};
use super::need::restarts;
use super::reason::{Reason, WaitReason};
use super::size::{self, Change};
use super::teardown::LEAST_GRACE;
use super::types::{ContainerPlan, Observed, Pod, Role};

/// Annotation of containers: the round they belong to; none for the first.
pub(super) const ROUND: &str = "podstead.dev/round";

/// The round that a pod's next instances belong to.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    /// Counted from 0.
    pub number: u32,
    /// The instance whose exit ended the round before, while nothing of this one is made, and its exit code.
    pub cause: Option<(&'a Container, i32)>,
}

impl Round<'_> {
    /// Whether the instance is of a round that is over.
    pub fn is_past(&self, instance: &Container) -> bool {
        written(instance) < self.number
    }
}

/// The round as it is written on an instance.
fn written(instance: &Container) -> u32 {
    instance.annotations.get(ROUND).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Which round the pod is in.
pub(super) fn current<'a>(observed: &Observed, pod: &Pod, view: &'a View<'_>) -> Round<'a> {
    let latest = view.containers.iter().map(|c| written(c)).max().unwrap_or(0);
    let causes = pod.all().filter_map(|plan| {
        let last = view.instances(&plan.name).next()?;
        let code = asks(observed, plan, last).filter(|_| !planted(Mutant::RoundNeverEnds))?;
        let counts = written(last) == latest && !was_over(pod, view, backoff::ended_at(last));
        counts.then_some((last, code))
    });
    let cause = causes.min_by_key(|(instance, _)| (backoff::ended_at(instance), &instance.name));
    Round { number: latest.saturating_add(u32::from(cause.is_some())), cause }
}

/// The exit code of an instance by which its rule wants all containers started anew.
pub(super) fn asks(observed: &Observed, plan: &ContainerPlan, instance: &Container) -> Option<i32> {
    let ContainerState::Exited { code, .. } = instance.state else { return None };
    let all = plan.restart_rules.iter().find(|rule| rule.matches(code))?.all;
    // An end that the agent brought about is no answer to a rule.
    let replaced = matches!(size::change(observed, plan, instance), Change::Definition | Change::Restart);
    let own = !replaced && !instance.state.start_was_broken_off() && !observed.failed_a_probe(instance);
    (all && own).then_some(code)
}

/// Whether the pod had come to its end before that: its sidecars are stopped afterwards, with whatever exit code.
fn was_over(pod: &Pod, view: &View<'_>, at: Time) -> bool {
    let code = |name: &str| {
        let last = view.instances(name).next()?;
        let ContainerState::Exited { code, .. } = last.state else { return None };
        (backoff::ended_at(last) < at).then_some(code)
    };
    let begun = pod.containers.iter().any(|plan| view.instances(&plan.name).next().is_some());
    let for_good =
        |plan: &ContainerPlan| code(&plan.name).is_some_and(|code| !restarts(pod, plan, code, false));
    let failed = |plan: &&ContainerPlan| {
        plan.role == Role::Init && code(&plan.name).is_some_and(|code| code != 0) && for_good(plan)
    };
    pod.containers.iter().all(for_good) || (!begun && pod.init.iter().any(|plan| failed(&plan)))
}

/// Ends what is left of earlier rounds, at once and without hooks, and waits out the back-off of the container that ended
/// the last one; whether anything is still in the way of this round.
pub(super) fn clear_the_way(draft: &mut Draft<'_>, view: &View<'_>, round: &Round<'_>) -> bool {
    let because = || match round.cause {
        Some((instance, code)) => Reason::AllRestart { container: instance.name.clone(), code },
        None => Reason::Superseded,
    };
    let mut any = false;
    let past = view.containers.iter().copied().filter(|c| draft.may_run(c) && round.is_past(c));
    for old in past.collect::<Vec<_>>() {
        any = true;
        let (uid, container, id) = (draft.uid.clone(), old.name.clone(), old.id.clone());
        let stop = Action::StopContainer { uid, container, id, grace: LEAST_GRACE, hook: false };
        draft.step(stop, because());
    }
    if any && !planted(Mutant::RoundsOverlap) {
        return true;
    }
    let Some((instance, _)) = round.cause else { return false };
    let restart = backoff::restart(instance, draft.now);
    let Some(until) = restart.not_before.filter(|_| !planted(Mutant::RoundNotPaused)) else { return false };
    draft.wait(Some(&instance.name), WaitReason::CrashLoop(restart.pause), Some(until));
    true
}
