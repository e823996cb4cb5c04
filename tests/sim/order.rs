//! Laws about who goes first: init containers before regular ones, hooks before signals, sidecars after those they serve.
//! They judge each step by the reading it was planned from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podstead::plan::{Action, ContainerPlan, Desired, Observed, Pod, Reason, Role, Step};
use podstead_runtime::{Container, ContainerId, ContainerState, PodUid, SandboxId, Snapshot, Time, labels};

use crate::driver::Host;
use crate::laws::Broken;
use crate::rounds;

/// The annotation of sidecars, written a second time.
pub const SIDECAR: &str = "podstead.dev/sidecar";
/// The grace that probes of the storm have.
pub const PROBE_GRACE: Duration = Duration::from_secs(7);

/// What these laws remember.
#[derive(Default)]
pub struct Order {
    /// Init containers that ended well, and sidecars that were started, by sandbox and round.
    passed: BTreeSet<(SandboxId, u32, String)>,
    /// Instances whose preStop hook was carried out by this agent.
    pre_stopped: BTreeSet<ContainerId>,
    /// Since when this agent stops all of a pod.
    ending: BTreeMap<PodUid, Time>,
}

impl Order {
    pub fn agent_died(&mut self) {
        self.pre_stopped.clear();
        self.ending.clear();
    }

    /// A verb came to its end; a hook that fails holds nothing up.
    pub fn carried_out(&mut self, action: &Action) {
        if let Action::PreStop { id, .. } = action {
            self.pre_stopped.insert(id.clone());
        }
    }

    /// What is there now.
    pub fn saw(&mut self, snapshot: &Snapshot, desired: &Desired, host: &Host) {
        for container in &snapshot.containers {
            let Some(pod) = desired.pods.get(&container.pod_uid()) else { continue };
            let Some(plan) = pod.init.iter().find(|c| c.name == container.name) else { continue };
            let done = match plan.role {
                Role::Sidecar => started(plan, container, &host.hooked, &host.probed),
                _ => matches!(container.state, ContainerState::Exited { code: 0, .. }),
            };
            if done {
                let round = rounds::round(&container.annotations);
                self.passed.insert((container.sandbox.clone(), round, container.name.clone()));
            }
        }
    }

    /// A step is about to be carried out.
    pub fn begins(
        &mut self,
        step: &Step,
        desired: &Desired,
        seen: &Observed,
        now: Time,
    ) -> Result<(), Broken> {
        // What was read counts, too: the world may have gone on since.
        let host = Host { hooked: seen.hooked.clone(), probed: seen.probed.clone(), ..Host::default() };
        self.saw(&seen.snapshot, desired, &host);
        match &step.action {
            Action::CreateContainer { uid, sandbox, container, annotations, .. } => {
                self.ending.remove(uid);
                if let Some(pod) = desired.pods.get(uid) {
                    self.inits_first(pod, sandbox, rounds::round(annotations), container, seen)?;
                    rounds::begins(&step.action, pod, seen, now)?;
                    hooks_first(pod, sandbox, container, seen)?;
                }
            }
            Action::StartContainer { uid, container, id } => {
                let of = seen.snapshot.containers.iter().find(|c| c.id == *id);
                if let Some((pod, of)) = desired.pods.get(uid).zip(of) {
                    hooks_first(pod, &of.sandbox, container, seen)?;
                }
            }
            Action::StopContainer { uid, id, hook, .. } => self.stops(step, uid, id, *hook, seen, now)?,
            Action::PreStop { uid, id, .. } => {
                self.ending.entry(uid.clone()).or_insert(now);
                if self.pre_stopped.contains(id) {
                    return Err(format!("a hook is repeated: {}", step.action));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn inits_first(
        &self,
        pod: &Pod,
        sandbox: &SandboxId,
        round: u32,
        name: &str,
        seen: &Observed,
    ) -> Result<(), Broken> {
        let regular = |name: &str| pod.containers.iter().any(|c| c.name == name);
        let mine = |c: &&Container| {
            c.pod_uid() == pod.identity.uid && c.sandbox == *sandbox && rounds::round(&c.annotations) >= round
        };
        let begun = seen.snapshot.containers.iter().filter(mine).any(|c| regular(&c.name));
        let place = pod.init.iter().position(|c| c.name == name).unwrap_or(pod.init.len());
        if begun {
            return match pod.init.get(place) {
                Some(plan) if plan.role == Role::Init => {
                    Err(format!("{name} of {} is repeated beside the regular containers", pod.identity.uid))
                }
                _ => Ok(()),
            };
        }
        let missing = |c: &&ContainerPlan| !self.passed.contains(&(sandbox.clone(), round, c.name.clone()));
        match pod.init[..place].iter().find(missing) {
            Some(missing) => Err(format!("{name} of {} before {}", pod.identity.uid, missing.name)),
            None => Ok(()),
        }
    }

    fn stops(
        &mut self,
        step: &Step,
        uid: &PodUid,
        id: &ContainerId,
        hook: bool,
        seen: &Observed,
        now: Time,
    ) -> Result<(), Broken> {
        let Some(container) = seen.snapshot.containers.iter().find(|c| c.id == *id) else { return Ok(()) };
        // The one end without hooks.
        let hooks = !matches!(step.because, Reason::AllRestart { .. });
        let due = hooks && container.is_running() && container.annotations.contains_key(labels::PRE_STOP);
        if due && !hook && !self.pre_stopped.contains(id) {
            return Err(format!("a signal before the preStop hook: {}", step.action));
        }
        let all = matches!(
            step.because,
            Reason::PodGone
                | Reason::NameTaken
                | Reason::StartsAfresh
                | Reason::Completed
                | Reason::InitFailed
                | Reason::DeadlineExceeded
        );
        if !all {
            return Ok(());
        }
        let since = *self.ending.entry(uid.clone()).or_insert(now);
        let Some(index) = index(container) else { return Ok(()) };
        let served = |c: &&Container| {
            c.pod_uid() == *uid
                && c.id != *id
                && c.is_running()
                && self::index(c).is_none_or(|other| other > index)
        };
        let grace = container.annotations.get(labels::TERMINATION_GRACE).and_then(|g| g.parse().ok());
        let over = now >= since + Duration::from_secs(grace.unwrap_or(30));
        match seen.snapshot.containers.iter().find(served) {
            Some(served) if !over => Err(format!("sidecar {} goes before {}", container.name, served.name)),
            _ => Ok(()),
        }
    }
}

/// Nothing starts past a container that runs and whose postStart hook is not over.
fn hooks_first(pod: &Pod, sandbox: &SandboxId, name: &str, seen: &Observed) -> Result<(), Broken> {
    let before = pod.containers.iter().take_while(|c| c.name != name);
    if pod.containers.iter().all(|c| c.name != name) {
        return Ok(());
    }
    for plan in before.filter(|c| c.post_start) {
        let newest = newest(&seen.snapshot, &pod.identity.uid, &plan.name);
        let open = |c: &&Container| c.is_running() && c.sandbox == *sandbox && !seen.hooked.contains(&c.id);
        let fits = |c: &&Container| {
            c.annotations.get(labels::CONTAINER_HASH) == Some(&plan.hash)
                && seen.probed.get(&c.id).is_none_or(|p| p.alive)
        };
        if newest.filter(open).is_some_and(|c| fits(&c)) {
            return Err(format!("{name} starts before the hook of {} is over", plan.name));
        }
    }
    Ok(())
}

/// Whether a container that runs counts as started.
fn started(
    plan: &ContainerPlan,
    container: &Container,
    hooked: &BTreeSet<ContainerId>,
    probed: &BTreeMap<ContainerId, podstead::plan::Probed>,
) -> bool {
    container.is_running()
        && (!plan.post_start || hooked.contains(&container.id))
        && (!plan.probes.startup || probed.get(&container.id).is_some_and(|p| p.started))
}

fn newest<'a>(snapshot: &'a Snapshot, uid: &PodUid, name: &str) -> Option<&'a Container> {
    let mine = |c: &&Container| c.pod_uid() == *uid && c.name == name;
    snapshot.containers.iter().filter(mine).max_by_key(|c| c.attempt)
}

fn index(container: &Container) -> Option<usize> {
    container.annotations.get(SIDECAR)?.parse().ok()
}
