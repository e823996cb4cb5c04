//! What should be and what is, as plain data. The decision's inputs; nothing here decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podstead_runtime::{Container, ContainerId, PodIdentity, PodUid, Snapshot, Time};
use serde::{Deserialize, Serialize};

use super::room::{Claim, Rank, Refusal, Room};
use super::size::{Size, Sizes};

/// The one table of what should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Pods by uid.
    pub pods: BTreeMap<PodUid, Pod>,
    /// Whether every source was read at least once. While it is not, nothing is removed.
    pub complete: bool,
    /// What there is for all pods together; `None` for as much as they like.
    pub room: Option<Room>,
}

/// When a container that ended is started anew (`kubelet-static-pods.md 2.5`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Always, also after exit code 0.
    #[default]
    Always,
    /// When its exit code is not 0.
    OnFailure,
    /// Never.
    Never,
}

/// As much of a pod as the decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Name, namespace, uid.
    pub identity: PodIdentity,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Restart policy.
    pub restart_policy: RestartPolicy,
    /// `terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// What its cgroup may use.
    pub size: Size,
    /// Its quality of service, as the API spells it.
    pub class: String,
    /// `activeDeadlineSeconds`: how long after it was first seen the pod is ended for good.
    pub deadline: Option<Duration>,
    /// What it takes of the node.
    pub claim: Claim,
    /// Who goes first when there is not room for all.
    pub rank: Rank,
    /// Why the node does not take it, however much room there is.
    pub refused: Option<Refusal>,
    /// Init containers and sidecars, in the order of the spec.
    pub init: Vec<ContainerPlan>,
    /// Containers, in the order of the spec.
    pub containers: Vec<ContainerPlan>,
}

impl Pod {
    /// Init containers and regular ones, in the order of their starts.
    pub fn all(&self) -> impl Iterator<Item = &ContainerPlan> {
        self.init.iter().chain(&self.containers)
    }
}

/// As much of a container as the decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Name in the pod.
    pub name: String,
    /// Image as the user wrote it.
    pub image: String,
    /// Changes when a running instance must be replaced (`kubelet-static-pods.md 2.5`, container hash).
    pub hash: String,
    /// The same without what can be changed in place: [`size`](Self::size) and its policy.
    pub frame: String,
    /// What it may use.
    pub size: Size,
    /// Whether another size of cpu needs another instance (`resizePolicy`).
    pub restarts_for_cpu: bool,
    /// The same of memory.
    pub restarts_for_memory: bool,
    /// Changes with what the pod as a whole says of its containers; empty for nothing.
    pub context: String,
    /// What it is in the pod's life.
    pub role: Role,
    /// Its own restart policy; the pod's if it has none.
    pub restart_policy: Option<RestartPolicy>,
    /// Exit codes after which it is started anew whatever the policy; the first that matches counts.
    pub restart_rules: Vec<RestartRule>,
    /// Whether a postStart hook belongs to its start.
    pub post_start: bool,
    /// Which probes it has.
    pub probes: Probes,
}

/// What a container is in its pod's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A regular one.
    #[default]
    Regular,
    /// Runs to its end before the next begins.
    Init,
    /// An init container that goes on (`restartPolicy: Always`): once it is started, the next begins.
    Sidecar,
}

/// A rule about exit codes (`kubelet-static-pods.md 2.5`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRule {
    /// Whether the codes are those that match, or those that do not.
    pub within: bool,
    /// Exit codes.
    pub codes: Vec<i32>,
    /// Whether all containers of the pod are started anew, not only this one.
    #[serde(default)]
    pub all: bool,
}

impl RestartRule {
    /// Whether it wants another instance after this exit code.
    pub fn matches(&self, code: i32) -> bool {
        self.codes.contains(&code) == self.within
    }
}

/// Which probes a container has, and what they change about stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// A startup probe: until it passes, the container does not count as started.
    pub startup: bool,
    /// A liveness probe.
    pub liveness: bool,
    /// A readiness probe: until it passes, the container is not ready.
    pub readiness: bool,
    /// `terminationGracePeriodSeconds` of the startup probe, for the stop that it causes.
    pub startup_grace: Option<Duration>,
    /// The same of the liveness probe.
    pub liveness_grace: Option<Duration>,
}

/// What the probes say of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Its startup probe passed.
    pub started: bool,
    /// Neither startup nor liveness probe failed for good.
    pub alive: bool,
    /// Its readiness probe passes.
    pub ready: bool,
}

/// One reading of what is. Read `leftovers` and `attempt_floor` *before* the snapshot: a log file younger than the
/// snapshot would otherwise make a second instance of a container that the snapshot does not show yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// What the runtime has of ours.
    pub snapshot: Snapshot,
    /// Pods of which the host still has something that [`CleanPod`](super::Action::CleanPod) removes: directories,
    /// volumes, cgroup, log links. Those of running pods included. A pod whose name is not known has an empty one;
    /// it then holds up nobody else's start.
    pub leftovers: BTreeMap<PodUid, PodIdentity>,
    /// Highest `N` of `<N>.log` of a container plus one (`kubelet-static-pods.md 2.8`).
    pub attempt_floor: BTreeMap<(PodUid, String), u32>,
    /// When each pod was first seen, as far as its host side was made.
    pub since: BTreeMap<PodUid, Time>,
    /// Instances whose postStart hook is over, well done.
    pub hooked: BTreeSet<ContainerId>,
    /// What instances that are over left as their message.
    pub messages: BTreeMap<ContainerId, String>,
    /// What wanted pods and their containers were resized to, or are being resized to.
    pub sizes: BTreeMap<PodUid, Sizes>,
    /// The quality of service that pods' host sides were made for.
    pub classes: BTreeMap<PodUid, String>,
    /// What probes say; an instance without any verdict has not been probed yet.
    pub probed: BTreeMap<ContainerId, Probed>,
}

impl Observed {
    /// When the pod's `activeDeadlineSeconds` are over; `None` without any, or while it is not known since when it is here.
    pub fn deadline(&self, pod: &Pod) -> Option<Time> {
        let since = self.since.get(&pod.identity.uid).copied()?;
        Some(since + pod.deadline?)
    }

    /// Whether the instance counts as started: it runs, its hook is over, its startup probe passed.
    pub fn started(&self, plan: &ContainerPlan, instance: &Container) -> bool {
        let passed = |p: &Probed| p.started;
        instance.is_running()
            && (!plan.post_start || self.hooked.contains(&instance.id))
            && self.probed.get(&instance.id).map_or(!plan.probes.startup, passed)
    }

    /// Whether the instance is ready: started, and its readiness probe passes.
    pub fn ready(&self, plan: &ContainerPlan, instance: &Container) -> bool {
        self.started(plan, instance)
            && self.probed.get(&instance.id).map_or(!plan.probes.readiness, |p| p.ready)
    }

    /// Whether a probe failed the instance for good.
    pub fn failed_a_probe(&self, instance: &Container) -> bool {
        self.probed.get(&instance.id).is_some_and(|p| !p.alive)
    }
}
