//! The agent's own memory of what no runtime can tell. Losing all of it is harmless: verbs are repeated, pauses shrink.

use std::collections::{BTreeMap, BTreeSet};

use podstead_runtime::{ContainerId, PodUid, Retry, Sandbox, SandboxId, SandboxState, Time};

use super::action::{Action, FailureKey, Plan, Verb};
use super::room::{Claim, Refusal};
use super::types::{Desired, Observed};

/// What this agent did and failed to do since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Image ids, by pod, container and attempt.
    pub resolved: BTreeMap<(PodUid, String, u32), String>,
    /// Pods whose host side was made.
    pub prepared: BTreeSet<PodUid>,
    /// Sandboxes whose stop succeeded: "not ready" alone does not say that the network was given back.
    pub released: BTreeSet<SandboxId>,
    /// Containers whose stop succeeded, for those whose state stays unknown.
    pub stopped: BTreeSet<ContainerId>,
    /// Containers whose preStop hook was carried out, well or not.
    pub pre_stopped: BTreeSet<ContainerId>,
    /// Pods whose containers are all being stopped ([`Plan::ending`]), and since when: one grace is for all of them.
    pub ending: BTreeMap<PodUid, Time>,
    /// Pods on their way out: the last plan's [`leaving`](super::Plan::leaving).
    pub leaving: BTreeSet<PodUid>,
    /// Those of them that give their place to a critical pod: the last plan's [`preempted`](super::Plan::preempted).
    pub preempted: BTreeSet<PodUid>,
    /// What the node does not take: the last plan's [`refused`](super::Plan::refused), for who tells of it.
    pub refused: BTreeMap<PodUid, Refusal>,
    /// Who has a place on the node: the last plan's [`placed`](super::Plan::placed). What was given is not taken back before
    /// it is seen that nothing came of it.
    pub placed: BTreeMap<PodUid, Claim>,
    /// Failures in a row.
    pub failures: BTreeMap<FailureKey, Failure>,
    /// Why the runtime cannot start pods.
    pub runtime_problem: Option<String>,
    /// Why the runtime cannot give pods a network.
    pub network_problem: Option<String>,
}

/// Failures of one verb in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How many.
    pub count: u32,
    /// When the last one was.
    pub at: Time,
    /// What the last one said about trying again.
    pub retry: Retry,
    /// The last error, for people.
    pub message: String,
    /// A reason as the kubelet spells it (`ErrImageNeverPull`); empty for the verb's usual one.
    pub reason: String,
}

impl Known {
    /// To be called with every new plan, before its steps begin.
    pub fn planned(&mut self, plan: &Plan) {
        self.leaving.clone_from(&plan.leaving);
        self.preempted.clone_from(&plan.preempted);
        self.refused.clone_from(&plan.refused);
        self.placed.clone_from(&plan.placed);
        self.ending.retain(|uid, _| plan.ending.contains(uid));
    }

    /// To be called when a step of `plan` is about to be carried out.
    pub fn begun(&mut self, action: &Action, plan: &Plan, now: Time) {
        match action {
            Action::CleanPod { uid } => {
                self.prepared.remove(uid);
            }
            Action::StopContainer { uid, .. } | Action::PreStop { uid, .. } if plan.ending.contains(uid) => {
                self.ending.entry(uid.clone()).or_insert(now);
            }
            _ => {}
        }
    }

    /// To be called when an action succeeded; `image_id` is the answer of [`Action::EnsureImage`].
    pub fn succeeded(&mut self, action: &Action, image_id: Option<String>) {
        self.failures.remove(&action.failure_key());
        match action {
            Action::PreparePod { uid } => {
                self.prepared.insert(uid.clone());
            }
            Action::EnsureImage { uid, container, attempt, .. } => {
                if let Some(id) = image_id {
                    self.resolved.insert((uid.clone(), container.clone(), *attempt), id);
                }
            }
            Action::CreateContainer { uid, container, attempt, .. } => {
                self.resolved.remove(&(uid.clone(), container.clone(), *attempt));
            }
            Action::PreStop { id, .. } => {
                self.pre_stopped.insert(id.clone());
            }
            Action::StopContainer { id, .. } => {
                self.stopped.insert(id.clone());
            }
            Action::StopSandbox { id, .. } => {
                self.released.insert(id.clone());
            }
            _ => {}
        }
    }

    /// To be called when an action failed at `now`. `reason`: see [`Failure::reason`].
    pub fn failed(&mut self, action: &Action, retry: Retry, reason: &str, message: &str, now: Time) {
        let key = action.failure_key();
        let count = self.failures.get(&key).map_or(0, |f| f.count).saturating_add(1);
        let failure =
            Failure { count, at: now, retry, message: message.to_owned(), reason: reason.to_owned() };
        self.failures.insert(key, failure);
        // Stopping goes on after a hook that failed (`kubelet-static-pods.md 2.11`).
        if let Action::PreStop { id, .. } = action {
            self.pre_stopped.insert(id.clone());
        }
        // The image may be what is missing: ask for it again before the next try.
        if let Action::CreateContainer { uid, container, attempt, .. } = action {
            self.resolved.remove(&(uid.clone(), container.clone(), *attempt));
        }
    }

    /// Drops what is about pods and objects that are neither wanted nor there. To be called now and then.
    pub fn forget(&mut self, desired: &Desired, observed: &Observed) {
        let mut uids: BTreeSet<PodUid> =
            desired.pods.keys().chain(observed.leftovers.keys()).cloned().collect();
        uids.extend(observed.snapshot.sandboxes.iter().map(|s| s.pod.uid.clone()));
        uids.extend(observed.snapshot.containers.iter().map(podstead_runtime::Container::pod_uid));
        self.resolved.retain(|(uid, ..), _| uids.contains(uid));
        self.prepared.retain(|uid| uids.contains(uid));
        let there = |id: &str| observed.snapshot.containers.iter().any(|c| c.id.as_str() == id);
        self.failures.retain(|key, _| {
            let of_an_instance = matches!(
                key.verb,
                Verb::PostStart | Verb::PreStop | Verb::Stop | Verb::Update | Verb::Remove
            );
            uids.contains(&key.uid) && (!of_an_instance || there(&key.target))
        });
        // One that is ready again has its network again.
        let stopped = |s: &Sandbox| s.state == SandboxState::NotReady;
        self.released.retain(|id| observed.snapshot.sandboxes.iter().any(|s| s.id == *id && stopped(s)));
        let there = |id: &ContainerId| observed.snapshot.containers.iter().any(|c| c.id == *id);
        self.stopped.retain(there);
        self.pre_stopped.retain(there);
    }
}
