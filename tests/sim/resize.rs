//! Sizes of pods and containers in the storm: what resizing does to the host and the world, in parts, and its laws.

use podstead::plan::{Action, ContainerPlan, Desired, FRAME, Observed, Pod, Reason, SIZE, Size, Step};
use podstead_fake::World;
use podstead_runtime::{Container, ContainerId, LinuxResources};

use crate::driver::{Host, OURS};
use crate::laws::Broken;

/// A pod's cgroup.
#[derive(Clone, Default)]
pub struct Cgroup {
    pub size: Size,
    pub class: String,
}

/// A size in the terms of the contract.
pub fn limits(size: Size) -> LinuxResources {
    LinuxResources {
        cpu_shares: size.cpu,
        cpu_quota: size.cpu_limit,
        memory_limit: size.memory_limit,
        ..LinuxResources::default()
    }
}

/// The pod's cgroup is made, or grows.
pub fn prepare(host: &mut Host, pod: &Pod) {
    let uid = &pod.identity.uid;
    let noted = host.sizes.entry(uid.clone()).or_default();
    let size = noted.pod.iter().fold(pod.size, |all, one| all.max(*one));
    noted.pod = vec![size];
    host.cgroups.insert(uid.clone(), Cgroup { size, class: pod.class.clone() });
}

/// As much of a resize as is done before its agent dies: 1 the doubt is noted, 2 the limits are set, 3 it is noted.
pub fn part(host: &mut Host, world: &mut World, action: &Action, parts: u64) {
    let uid = action.uid();
    match action {
        Action::ResizePod { size, .. } => {
            let noted = &mut host.sizes.entry(uid.clone()).or_default().pod;
            if parts >= 1 && !noted.contains(size) {
                noted.push(*size);
            }
            if parts >= 2 {
                host.cgroups.entry(uid.clone()).or_default().size = *size;
            }
            if parts >= 3 {
                *noted = vec![*size];
            }
        }
        Action::UpdateResources { id, size, .. } => {
            let Some(container) = world.snapshot(OURS).containers.into_iter().find(|c| c.id == *id) else {
                return;
            };
            let noted = host
                .sizes
                .entry(uid.clone())
                .or_default()
                .containers
                .entry(id.clone())
                .or_insert_with(|| {
                    container.annotations.get(SIZE).and_then(|text| text.parse().ok()).into_iter().collect()
                });
            if parts >= 1 && !noted.contains(size) {
                noted.push(*size);
            }
            if parts >= 2 {
                let mut limits = limits(*size);
                for limit in [&mut limits.cpu_quota, &mut limits.memory_limit] {
                    *limit = if *limit == 0 { -1 } else { *limit };
                }
                world.update_resources(OURS, id, &limits).expect("it is there");
            }
            if parts >= 3 {
                *noted = vec![*size];
            }
        }
        _ => {}
    }
}

/// Whether the first has room for the second; no limit is the greatest.
fn holds(outer: Size, inner: Size) -> bool {
    let fits = |outer: i64, inner: i64| outer == 0 || (inner != 0 && inner <= outer);
    fits(outer.cpu_limit, inner.cpu_limit) && fits(outer.memory_limit, inner.memory_limit)
}

/// The sizes that an instance may have, as they were read.
fn read(seen: &Observed, container: &Container) -> Vec<Size> {
    let noted = seen.sizes.get(&container.pod_uid()).and_then(|s| s.containers.get(&container.id));
    let written = container.annotations.get(SIZE).and_then(|text| text.parse().ok());
    noted.cloned().unwrap_or_else(|| written.into_iter().collect())
}

/// A step is about to be carried out.
pub fn begins(step: &Step, desired: &Desired, seen: &Observed) -> Result<(), Broken> {
    let uid = step.action.uid();
    let Some(pod) = desired.pods.get(uid) else { return Ok(()) };
    let plan = |name: &str| pod.all().find(|c| c.name == name);
    let instance = |id: &ContainerId| seen.snapshot.containers.iter().find(|c| c.id == *id);
    match &step.action {
        Action::UpdateResources { container, id, size, .. } => {
            let room = seen.sizes.get(uid).map(|s| s.pod.as_slice()).unwrap_or_default();
            if let Some(small) = room.iter().find(|room| !holds(**room, *size)) {
                return Err(format!("{container} of {uid} grows to {size} in a pod of {small}"));
            }
            let (Some(plan), Some(instance)) = (plan(container), instance(id)) else { return Ok(()) };
            if read(seen, instance).iter().any(|before| must_restart(plan, *before)) {
                return Err(format!("{container} of {uid} is resized in place against its policy"));
            }
            Ok(())
        }
        Action::ResizePod { size, .. } => {
            let runs = seen.snapshot.containers.iter().filter(|c| c.pod_uid() == *uid && c.is_running());
            for container in runs {
                if let Some(large) = read(seen, container).iter().find(|one| !holds(*size, **one)) {
                    return Err(format!("pod {uid} shrinks to {size} around {} of {large}", container.name));
                }
            }
            Ok(())
        }
        Action::StopContainer { container, id, .. } => {
            let (Some(plan), Some(instance)) = (plan(container), instance(id)) else { return Ok(()) };
            let same = instance.annotations.get(FRAME) == Some(&plan.frame);
            let policy = read(seen, instance).iter().any(|before| must_restart(plan, *before));
            match step.because {
                Reason::DefinitionChanged if same => {
                    Err(format!("{container} of {uid} is stopped to be resized"))
                }
                Reason::ResizeRestarts if !policy => {
                    Err(format!("{container} of {uid} is restarted without need"))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn must_restart(plan: &ContainerPlan, before: Size) -> bool {
    let cpu = (before.cpu, before.cpu_limit) != (plan.size.cpu, plan.size.cpu_limit);
    let memory = (before.memory, before.memory_limit) != (plan.size.memory, plan.size.memory_limit);
    (cpu && plan.restarts_for_cpu) || (memory && plan.restarts_for_memory)
}

/// Whether what runs, and the pod's cgroup around it, are as large as the manifest says.
pub fn settled(world: &World, host: &Host, pod: &Pod) -> Result<(), Broken> {
    let uid = &pod.identity.uid;
    for container in world.snapshot(OURS).containers.iter().filter(|c| c.pod_uid() == *uid && c.is_running())
    {
        let Some(plan) = pod.all().find(|c| c.name == container.name) else { continue };
        let (has, wanted) = (world.resources(&container.id), limits(plan.size));
        let same = has.cpu_shares == wanted.cpu_shares
            && has.cpu_quota.max(0) == wanted.cpu_quota
            && has.memory_limit.max(0) == wanted.memory_limit;
        if !same {
            return Err(format!("{uid}: {} is not of its size: {has:?}", container.name));
        }
    }
    let Some(cgroup) = host.cgroups.get(uid) else { return Ok(()) };
    if cgroup.size != pod.size || cgroup.class != pod.class {
        return Err(format!("{uid}: its cgroup is of {} and {}", cgroup.size, cgroup.class));
    }
    Ok(())
}
