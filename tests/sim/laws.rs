//! The laws, checked after every step against the world itself. They know nothing of how the planner decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podstead::plan::{Action, ContainerPlan, Desired, FailureKey, Observed, Pod, Reason, Step, Verb};
use podstead_fake::{End, Event, World};
use podstead_runtime::{
    Container, ContainerId, ContainerState, PodUid, Retry, SandboxId, SandboxState, Time, labels,
};

use crate::driver::{Host, OURS};
use crate::order::{Order, PROBE_GRACE, SIDECAR};
use crate::rounds::{asks, round};

/// A broken law, in words.
pub type Broken = String;

type Key = (PodUid, String);

/// What the laws remember.
#[derive(Default)]
pub struct Laws {
    /// Sandboxes and containers whose making this agent was told of, with their attempts.
    made: BTreeSet<(PodUid, Option<String>, u32)>,
    /// Per container: attempt, pause after it (`None`: not known), hash, when made.
    instances: BTreeMap<Key, Instance>,
    owners: BTreeMap<ContainerId, Key>,
    ghosts: Ghosts,
    leaving: BTreeSet<PodUid>,
    failed: BTreeMap<FailureKey, (Time, Duration)>,
    sandbox_made: BTreeMap<PodUid, Time>,
    pub order: Order,
    pub seen: Counts,
}

#[derive(Default)]
struct Ghosts {
    sandboxes: BTreeSet<SandboxId>,
    containers: BTreeSet<ContainerId>,
}

struct Instance {
    attempt: u32,
    pause: Option<Duration>,
    hash: String,
}

/// How often things happened, to see that the storm blows.
#[derive(Default, Debug, Clone, Copy)]
pub struct Counts {
    pub sandboxes: u32,
    pub containers: u32,
    pub restarts: u32,
    pub stops: u32,
    pub forced: u32,
}

/// Who did what the events tell of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Agent,
    /// A verb of an agent that is dead.
    Ghost,
    /// Not us: a crash, a reboot, somebody's hand.
    Outside,
}

impl Laws {
    /// A step is about to be carried out.
    pub fn begins(
        &mut self,
        step: &Step,
        others: &[Action],
        desired: &Desired,
        host: &Host,
        world: &World,
        seen: &Observed,
    ) -> Result<(), Broken> {
        let now = world.now;
        self.order.begins(step, desired, seen, now)?;
        let (action, uid) = (&step.action, step.action.uid());
        if let Some(other) = others.iter().find(|other| clash(action, other)) {
            return Err(format!("two jobs at once: {action} and {other}"));
        }
        let removes = matches!(
            action.verb(),
            Verb::Stop | Verb::Remove | Verb::StopSandbox | Verb::RemoveSandbox | Verb::Clean
        );
        if removes && !desired.complete && !desired.pods.contains_key(uid) {
            return Err(format!("removed before all sources were read: {action}"));
        }
        if makes_again(action, world) && making(action).is_some_and(|made| self.made.contains(&made)) {
            return Err(format!("made before: {action}"));
        }
        let failed = self.failed.get(&action.failure_key());
        if failed.is_some_and(|(at, pause)| now < *at + *pause) {
            return Err(format!("tried again too early after a failure: {action}"));
        }
        let makes = matches!(action.verb(), Verb::RunSandbox | Verb::Create);
        if makes && !host.dirs.contains_key(uid) {
            return Err(format!("not prepared: {action}"));
        }
        let name = desired.pods.get(uid).map(|pod| pod.identity.full_name());
        let forerunner = host.dirs.values().find(|p| p.uid != *uid && Some(p.full_name()) == name);
        if let Some(other) = forerunner.filter(|_| makes || action.verb() == Verb::Prepare) {
            return Err(format!("{action} of {uid} while {} is not fully gone", other.uid));
        }
        if makes && self.leaving.contains(uid) {
            return Err(format!("a pod on its way out was half used again: {action}"));
        }
        if matches!(action, Action::StopContainer { grace, .. } if *grace < Duration::from_secs(2)) {
            return Err(format!("no grace: {action}"));
        }
        if removes && matches!(step.because, Reason::PodGone | Reason::StartsAfresh) {
            self.leaving.insert(uid.clone());
        }
        Ok(())
    }

    pub fn failed(&mut self, action: &Action, retry: Retry, now: Time) {
        let least = match (retry, action.verb()) {
            (Retry::Never, _) => 300,
            (Retry::Backoff, Verb::EnsureImage) => 10,
            _ => 1,
        };
        self.failed.insert(action.failure_key(), (now, Duration::from_secs(least)));
        self.order.carried_out(action);
    }

    pub fn succeeded(&mut self, action: &Action) {
        self.failed.remove(&action.failure_key());
        self.made.extend(making(action));
        self.order.carried_out(action);
    }

    /// A pod that is neither wanted nor there may be tried at once when it is wanted again.
    pub fn looked(&mut self, desired: &Desired, observed: &Observed) {
        let there = |uid: &PodUid| {
            desired.pods.contains_key(uid)
                || observed.leftovers.contains_key(uid)
                || observed.snapshot.sandboxes.iter().any(|s| s.pod.uid == *uid)
                || observed.snapshot.containers.iter().any(|c| c.pod_uid() == *uid)
        };
        self.failed.retain(|key, _| there(&key.uid));
    }

    /// A sandbox that comes back may stand beside its successor until the agent has seen it.
    pub fn revived(&mut self, id: &SandboxId) {
        self.ghosts.sandboxes.insert(id.clone());
    }

    pub fn agent_died(&mut self) {
        self.leaving.clear();
        self.order.agent_died();
        self.made.clear();
        self.failed.clear();
    }

    /// What just happened in the world, and whether the world is lawful now.
    pub fn check(
        &mut self,
        world: &mut World,
        host: &Host,
        desired: &Desired,
        who: Who,
    ) -> Result<(), Broken> {
        let snapshot = world.snapshot(OURS);
        self.order.saw(&snapshot, desired, host);
        for event in std::mem::take(&mut world.events) {
            self.event(&event, &snapshot.containers, desired, host, world.now, who)?;
        }
        self.leaving.retain(|uid| {
            host.dirs.contains_key(uid)
                || snapshot.sandboxes.iter().any(|s| s.pod.uid == *uid)
                || snapshot.containers.iter().any(|c| c.pod_uid() == *uid)
        });
        let mut names: BTreeMap<String, PodUid> = BTreeMap::new();
        let mut instances = BTreeSet::new();
        for container in snapshot.containers.iter().filter(|c| world.has_process(&c.id)) {
            let name = container.labels.get(labels::POD_NAME).cloned().unwrap_or_default();
            let uid = container.pod_uid();
            if *names.entry(name.clone()).or_insert_with(|| uid.clone()) != uid {
                return Err(format!("two pods named {name} run"));
            }
            if !instances.insert((uid.clone(), container.name.clone())) {
                return Err(format!("two instances of {} in {uid} run", container.name));
            }
        }
        let mut ready: BTreeMap<String, SandboxId> = BTreeMap::new();
        for sandbox in &snapshot.sandboxes {
            if sandbox.state != SandboxState::Ready || self.ghosts.sandboxes.contains(&sandbox.id) {
                continue;
            }
            let name = sandbox.pod.full_name();
            if let Some(other) = ready.insert(name.clone(), sandbox.id.clone()) {
                return Err(format!("two sandboxes of {name}: {other}, {}", sandbox.id));
            }
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: &Event,
        containers: &[Container],
        desired: &Desired,
        host: &Host,
        now: Time,
        who: Who,
    ) -> Result<(), Broken> {
        match event {
            Event::SandboxMade { id, pod, .. } => {
                self.seen.sandboxes += 1;
                if who == Who::Ghost {
                    self.ghosts.sandboxes.insert(id.clone());
                }
                let last = self.sandbox_made.insert(pod.uid.clone(), now);
                if who == Who::Agent && last.is_some_and(|last| now < last + Duration::from_secs(1)) {
                    return Err(format!("sandboxes of {} one after the other", pod.uid));
                }
            }
            Event::SandboxRemoved { id, holding_network } => {
                // One that was ready again and died unseen is nobody's fault.
                let unseen = self.ghosts.sandboxes.contains(id);
                if *holding_network && who == Who::Agent && !unseen {
                    return Err(format!("sandbox {id} was removed with its network"));
                }
            }
            Event::Created { id, uid, name, attempt } => {
                self.seen.containers += 1;
                let key = (uid.clone(), name.clone());
                self.owners.insert(id.clone(), key.clone());
                let plan = desired.pods.get(uid).and_then(|pod| pod.all().find(|c| c.name == *name));
                self.created(key, *attempt, plan, containers, host, now)?;
            }
            Event::Started { id } => {
                if who == Who::Ghost {
                    self.ghosts.containers.insert(id.clone());
                }
            }
            Event::Ended { id, end: End::Forced } => {
                self.seen.forced += 1;
                if who == Who::Agent && !self.ghosts.containers.contains(id) {
                    return Err(format!("{id} was killed without grace"));
                }
            }
            Event::Ended { id, end: End::Stopped(grace) } => {
                self.seen.stops += 1;
                let container = containers.iter().find(|c| c.id == *id);
                if let Some(container) = container {
                    grace_kept(container, *grace, desired)?;
                }
            }
            Event::Ended { .. } => {}
            Event::Removed { id } => {
                let Some(key) = self.owners.remove(id) else { return Ok(()) };
                if let Some(instance) = self.instances.get_mut(&key).filter(|_| who == Who::Outside) {
                    instance.pause = None;
                }
            }
        }
        Ok(())
    }

    /// Counts go up by one and the pause before an instance is the one its forerunner earned.
    fn created(
        &mut self,
        key: Key,
        attempt: u32,
        plan: Option<&ContainerPlan>,
        all: &[Container],
        host: &Host,
        now: Time,
    ) -> Result<(), Broken> {
        let instance =
            |n: u32| all.iter().find(|c| c.pod_uid() == key.0 && c.name == key.1 && c.attempt == n);
        let made = instance(attempt);
        let hash = made.and_then(|c| c.annotations.get(labels::CONTAINER_HASH).cloned()).unwrap_or_default();
        let written = made.and_then(|c| c.annotations.get(podstead::plan::backoff::BACKOFF)?.parse().ok());
        let Some(last) = self.instances.get(&key) else {
            self.instances.insert(key, Instance { attempt, pause: Some(Duration::ZERO), hash });
            return if attempt == 0 { Ok(()) } else { Err("the first attempt is not 0".to_owned()) };
        };
        self.seen.restarts += 1;
        if attempt != last.attempt + 1 {
            return Err(format!("{key:?}: attempt {attempt} after {}", last.attempt));
        }
        let before = instance(last.attempt);
        let pause = match (last.pause, before) {
            (Some(pause), Some(before))
                if last.hash == hash && ended_with_others(plan, made, before, host) =>
            {
                Some(pause)
            }
            (Some(pause), Some(before)) if last.hash == hash => Some(due(pause, before, now)?),
            _ => None,
        };
        let written = written.map(Duration::from_secs);
        if let (Some(pause), Some(written)) = (pause, written)
            && pause != written
        {
            return Err(format!("{key:?}: the pause after attempt {attempt} is {written:?}, not {pause:?}"));
        }
        let pause = pause.or(written);
        self.instances.insert(key, Instance { attempt, pause, hash });
        Ok(())
    }

    /// The pod's directory is gone, and with it its logs and counts.
    pub fn cleaned(&mut self, uid: &PodUid) {
        self.instances.retain(|key, _| key.0 != *uid);
        self.sandbox_made.remove(uid);
    }
}

/// Whether the instance before was ended because another's rule has all containers started anew: that is no crash.
fn ended_with_others(
    plan: Option<&ContainerPlan>,
    made: Option<&Container>,
    before: &Container,
    host: &Host,
) -> bool {
    let later = made.is_some_and(|made| round(&made.annotations) > round(&before.annotations));
    let killed = host.probed.get(&before.id).is_some_and(|p| !p.alive);
    let over = matches!(before.state, ContainerState::Exited { .. });
    later && over && !plan.is_some_and(|plan| asks(plan, before, killed))
}

/// `kubelet-static-pods.md 2.6`, written a second time: checks the pause after `before`, tells the next one.
fn due(pause: Duration, before: &Container, now: Time) -> Result<Duration, Broken> {
    let (first, max) = (Duration::from_secs(10), Duration::from_secs(300));
    match before.state {
        ContainerState::Exited { finished_at, .. } => {
            if pause.is_zero() || finished_at.since(before.created_at) > 2 * max {
                return Ok(first);
            }
            if now < finished_at + pause {
                return Err(format!(
                    "{} {} restarted within its back-off of {pause:?}",
                    before.name, before.id
                ));
            }
            Ok((pause * 2).min(max))
        }
        ContainerState::Created => Ok(pause),
        ContainerState::Unknown if pause.is_zero() => Ok(first),
        ContainerState::Unknown => Ok((pause * 2).min(max)),
        ContainerState::Running { .. } => Err(format!("{} is replaced while it runs", before.id)),
    }
}

fn grace_kept(container: &Container, grace: Duration, desired: &Desired) -> Result<(), Broken> {
    let annotated = container.annotations.get(labels::TERMINATION_GRACE).and_then(|s| s.parse().ok());
    let wanted = desired.pods.get(&container.pod_uid()).map(|pod| pod.grace);
    let least = Duration::from_secs(2);
    // A sidecar has what the others left of the grace, and a probe may have one of its own.
    if container.annotations.contains_key(SIDECAR) || grace == PROBE_GRACE {
        return Ok(());
    }
    let starts_all = |pod: &Pod| pod.all().any(|c| c.restart_rules.iter().any(|rule| rule.all));
    if grace == least && desired.pods.get(&container.pod_uid()).is_none_or(starts_all) {
        return Ok(());
    }
    let allowed = [annotated.map(Duration::from_secs), wanted];
    if allowed.into_iter().flatten().any(|g| g.max(least) == grace) {
        return Ok(());
    }
    // The manifest may have changed while the stop ran: anything but a shorter grace than was written is fine.
    let short = annotated.is_some_and(|a| grace < Duration::from_secs(a).max(least));
    if short { Err(format!("{} was stopped with {grace:?}", container.id)) } else { Ok(()) }
}

/// What an action makes, and may make once.
fn making(action: &Action) -> Option<(PodUid, Option<String>, u32)> {
    match action {
        Action::RunSandbox { uid, attempt } => Some((uid.clone(), None, *attempt)),
        Action::CreateContainer { uid, container, attempt, .. } => {
            Some((uid.clone(), Some(container.clone()), *attempt))
        }
        _ => None,
    }
}

/// Whether what the action makes is there.
fn makes_again(action: &Action, world: &World) -> bool {
    let there = world.snapshot(OURS);
    match action {
        Action::RunSandbox { uid, attempt } => {
            there.sandboxes.iter().any(|s| s.pod.uid == *uid && s.attempt == *attempt)
        }
        Action::CreateContainer { uid, container, attempt, .. } => {
            let same = |c: &&Container| c.pod_uid() == *uid && c.name == *container && c.attempt == *attempt;
            there.containers.iter().any(|c| same(&c))
        }
        _ => false,
    }
}

/// The conflict rule, written a second time.
fn clash(a: &Action, b: &Action) -> bool {
    use podstead::plan::Scope;
    a.uid() == b.uid()
        && match (a.scope(), b.scope()) {
            (Scope::Container(a), Scope::Container(b)) => a == b,
            _ => true,
        }
}
