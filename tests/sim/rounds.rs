//! Laws about rules that have all containers started anew: one container's exit ends the round of all.

use std::time::Duration;

use podstead::plan::backoff::BACKOFF;
use podstead::plan::{Action, ContainerPlan, Observed, Pod};
use podstead_runtime::{Container, ContainerState, Time, labels};

use crate::laws::Broken;

/// The annotation of rounds, written a second time.
const ROUND: &str = "podstead.dev/round";

/// The round written on an instance.
pub fn round(annotations: &std::collections::BTreeMap<String, String>) -> u32 {
    annotations.get(ROUND).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Whether the instance ended by itself as a rule of its container has all started anew.
pub fn asks(plan: &ContainerPlan, instance: &Container, killed: bool) -> bool {
    let ContainerState::Exited { code, .. } = instance.state else { return false };
    let same = instance.annotations.get(labels::CONTAINER_HASH) == Some(&plan.hash);
    let first = plan.restart_rules.iter().find(|rule| rule.codes.contains(&code) == rule.within);
    same && !killed && !instance.state.start_was_broken_off() && first.is_some_and(|rule| rule.all)
}

/// A container is about to be made.
pub fn begins(action: &Action, pod: &Pod, seen: &Observed, now: Time) -> Result<(), Broken> {
    let Action::CreateContainer { uid, annotations, .. } = action else { return Ok(()) };
    let mine: Vec<&Container> = seen.snapshot.containers.iter().filter(|c| c.pod_uid() == *uid).collect();
    let (next, latest) = (round(annotations), mine.iter().map(|c| round(&c.annotations)).max().unwrap_or(0));
    if let Some(old) = mine.iter().find(|c| c.is_running() && round(&c.annotations) < next) {
        return Err(format!("{action} while {} of an earlier round runs", old.name));
    }
    let killed = |c: &Container| seen.probed.get(&c.id).is_some_and(|p| !p.alive);
    let ended = |c: &Container| match c.state {
        ContainerState::Exited { finished_at, .. } => finished_at,
        _ => Time(0),
    };
    let newest =
        |plan: &ContainerPlan| mine.iter().copied().filter(|c| c.name == plan.name).max_by_key(|c| c.attempt);
    let asking = pod.all().filter_map(|plan| newest(plan).filter(|c| asks(plan, c, killed(c))));
    let asking = asking.filter(|c| round(&c.annotations) == latest);
    let Some(cause) = asking.min_by_key(|c| (ended(c), c.name.clone())) else { return Ok(()) };
    if next <= latest {
        return Err(format!("{action} in the round that {} ended", cause.name));
    }
    let pause = cause
        .annotations
        .get(BACKOFF)
        .and_then(|s| s.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    let calm = ended(cause).since(cause.created_at) > Duration::from_secs(600);
    if now < ended(cause) + pause && !calm {
        return Err(format!("{action} within the back-off of {}", cause.name));
    }
    Ok(())
}
