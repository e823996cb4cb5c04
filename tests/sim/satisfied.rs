//! Whether a pod is as its manifest wants it, in a world where nothing happens any more.

use podstead::plan::{ContainerPlan, Pod, RestartPolicy, Role};
use podstead_fake::World;
use podstead_runtime::{Container, ContainerState, SandboxState, labels};

use crate::driver::{Host, OURS};
use crate::laws::Broken;
use crate::rounds::round;

/// The policy that holds for a container, written a second time.
fn policy(pod: &Pod, container: &ContainerPlan) -> RestartPolicy {
    match container.role {
        Role::Sidecar => RestartPolicy::Always,
        _ => container.restart_policy.unwrap_or(pod.restart_policy),
    }
}

/// Whether the pod has nothing to do any more, whatever its containers did.
fn ended(world: &World, host: &Host, pod: &Pod) -> bool {
    let since = host.since.get(&pod.identity.uid).copied();
    if since.zip(pod.deadline).is_some_and(|(at, deadline)| world.now >= at + deadline) {
        return true;
    }
    let snapshot = world.snapshot(OURS);
    let mine: Vec<_> = snapshot.containers.iter().filter(|c| c.pod_uid() == pod.identity.uid).collect();
    let latest = mine.iter().map(|c| round(&c.annotations)).max().unwrap_or(0);
    let regular = |name: &str| pod.containers.iter().any(|p| p.name == name);
    let begun = mine.iter().any(|c| regular(&c.name) && round(&c.annotations) == latest);
    let gave_up = |plan: &&ContainerPlan| {
        let newest = mine.iter().filter(|c| c.name == plan.name).max_by_key(|c| c.attempt);
        plan.role == Role::Init
            && policy(pod, plan) == RestartPolicy::Never
            && newest.is_some_and(|c| matches!(c.state, ContainerState::Exited { code, .. } if code != 0))
    };
    !begun && pod.init.iter().any(|plan| gave_up(&plan))
}

/// Whether the pod is as its manifest wants it.
pub fn satisfied(world: &World, host: &Host, pod: &Pod) -> Result<(), Broken> {
    let snapshot = world.snapshot(OURS);
    let uid = &pod.identity.uid;
    let sandboxes: Vec<_> = snapshot.sandboxes.iter().filter(|s| s.pod.uid == *uid).collect();
    let ready: Vec<_> = sandboxes.iter().filter(|s| s.state == SandboxState::Ready).collect();
    let containers: Vec<_> = snapshot.containers.iter().filter(|c| c.pod_uid() == *uid).collect();
    if ended(world, host, pod) {
        let runs = containers.iter().any(|c| world.has_process(&c.id));
        return if runs || !ready.is_empty() { Err(format!("{uid}: over, and not ended")) } else { Ok(()) };
    }
    let mut active = false;
    for wanted in &pod.containers {
        let mut instances: Vec<_> = containers.iter().filter(|c| c.name == wanted.name).collect();
        instances.sort_by_key(|c| std::cmp::Reverse(c.attempt));
        let over =
            |state: &ContainerState| matches!(state, ContainerState::Exited { .. } | ContainerState::Unknown);
        let dead = instances.iter().filter(|c| over(&c.state)).count();
        if dead > 1 {
            return Err(format!("{uid}: {dead} dead instances of {} are kept", wanted.name));
        }
        let hash_fits =
            |c: &Container| c.annotations.get(labels::CONTAINER_HASH).is_some_and(|h| *h == wanted.hash);
        let state = instances.first().map(|c| (&c.state, hash_fits(c), &c.sandbox));
        if let Some(first) = instances.first().filter(|c| c.is_running()) {
            let failed = host.probed.get(&first.id).is_some_and(|p| !p.alive);
            if failed || (wanted.post_start && !host.hooked.contains(&first.id)) {
                return Err(format!("{uid}: {} runs unhealthy or without its hook", wanted.name));
            }
        }
        let killed = instances.first().is_some_and(|c| host.probed.get(&c.id).is_some_and(|p| !p.alive));
        match (state, policy(pod, wanted)) {
            (Some((ContainerState::Running { .. }, true, sandbox)), _) => {
                active = true;
                if ready.first().map(|s| &s.id) != Some(sandbox) {
                    return Err(format!("{uid}: {} runs outside the pod's sandbox", wanted.name));
                }
            }
            (Some((ContainerState::Exited { code: 0, .. }, true, _)), RestartPolicy::OnFailure)
                if !killed => {}
            (Some((ContainerState::Exited { code, .. }, ..)), RestartPolicy::Never)
                if killed || !wanted.restart_rules.iter().any(|r| r.matches(*code)) => {}
            (Some((ContainerState::Unknown, ..)), RestartPolicy::Never) => {}
            // Once a pod that is never restarted lost its sandbox, what was not started is not started.
            (_, RestartPolicy::Never) if !containers.is_empty() && ready.is_empty() && never_again(pod) => {}
            (state, policy) => return Err(format!("{uid}: {} is {state:?} under {policy:?}", wanted.name)),
        }
    }
    for sidecar in pod.init.iter().filter(|c| c.role == Role::Sidecar) {
        let runs = containers.iter().any(|c| c.name == sidecar.name && c.is_running());
        if runs != active {
            return Err(format!("{uid}: sidecar {} runs: {runs}, active: {active}", sidecar.name));
        }
    }
    if containers.iter().any(|c| !pod.all().any(|w| w.name == c.name)) {
        return Err(format!("{uid}: a container that the pod does not have is kept"));
    }
    if ready.len() != usize::from(active) {
        return Err(format!("{uid}: {} sandboxes are ready, active: {active}", ready.len()));
    }
    let newest = sandboxes.iter().map(|s| s.attempt).max();
    for old in sandboxes.iter().filter(|s| Some(s.attempt) != newest) {
        if !containers.iter().any(|c| c.sandbox == old.id) {
            return Err(format!("{uid}: old sandbox {} is kept", old.id));
        }
    }
    if active && ready.iter().any(|s| s.host_network != pod.host_network) {
        return Err(format!("{uid}: wrong network"));
    }
    if active && !host.dirs.contains_key(uid) {
        return Err(format!("{uid}: runs without its directory"));
    }
    Ok(())
}

fn never_again(pod: &Pod) -> bool {
    pod.containers.iter().all(|c| policy(pod, c) == RestartPolicy::Never && c.restart_rules.is_empty())
}
