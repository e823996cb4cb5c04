//! Laws about room: nobody begins where there is none, nobody loses a place to a pod that is not critical, and a critical
//! one takes no more than it needs. They add up for themselves.

use std::collections::{BTreeMap, BTreeSet};

use podstead::plan::{Action, CLAIM, Claim, Desired, Observed, Plan, Pod, Reason, RestartPolicy, Room, Step};
use podstead_fake::World;
use podstead_runtime::{PodUid, SandboxId, SandboxState};

use crate::driver::OURS;
use crate::laws::Broken;

/// Every resource of the storm.
pub const ALL: [&str; 3] = ["pods", "cpu", "memory"];

/// What these laws remember.
#[derive(Default)]
pub struct Rooms {
    /// Pods that have a sandbox, or had one and were neither taken down nor over.
    placed: BTreeSet<PodUid>,
    /// Pods that the last plan gave a place, and the most room there was since: what was given is not taken back.
    given: BTreeMap<PodUid, Room>,
    /// How many pods were refused, and how many preempted.
    pub refused: u32,
    pub preempted: u32,
}

impl Rooms {
    pub fn agent_died(&mut self) {
        self.placed.clear();
        self.given.clear();
    }

    /// A step is about to be carried out.
    pub fn begins(
        &mut self,
        step: &Step,
        others: &[Action],
        desired: &Desired,
        world: &World,
        ghosts: &BTreeSet<SandboxId>,
    ) -> Result<(), Broken> {
        if let Action::CleanPod { uid } = &step.action {
            self.placed.remove(uid);
        }
        let Action::RunSandbox { uid, .. } = &step.action else { return Ok(()) };
        let Some(pod) = desired.pods.get(uid) else { return Ok(()) };
        if pod.refused.is_some() {
            return Err(format!("{uid} begins although the node does not take it"));
        }
        let snapshot = world.snapshot(OURS);
        let had = snapshot.sandboxes.iter().any(|s| s.pod.uid == *uid);
        if !self.placed.insert(uid.clone()) || had {
            return Ok(());
        }
        let mut used: Vec<Claim> = Vec::new();
        for sandbox in &snapshot.sandboxes {
            let runs = |c: &podstead_runtime::Container| c.sandbox == sandbox.id && world.has_process(&c.id);
            let uses = sandbox.state == SandboxState::Ready || snapshot.containers.iter().any(runs);
            if uses && sandbox.pod.uid != *uid && !ghosts.contains(&sandbox.id) {
                used.push(written(&sandbox.annotations));
            }
        }
        let begun = others.iter().filter_map(|action| match action {
            Action::RunSandbox { uid, .. } => desired.pods.get(uid).map(|pod| pod.claim.clone()),
            _ => None,
        });
        used.extend(begun);
        if used.iter().any(|claim| claim.conflicts(&pod.claim)) {
            return Err(format!("{uid} begins although one of its ports is taken"));
        }
        let room = self.given.get(uid).cloned().unwrap_or_default();
        match ALL.iter().find(|r| !enough(&room, r, &used, &pod.claim)) {
            Some(resource) => {
                Err(format!("{uid} begins without room: {resource} of {room:?} beside {used:?}"))
            }
            None => Ok(()),
        }
    }

    /// What was decided; `victims` are those of the plan before.
    pub fn decided(
        &mut self,
        plan: &Plan,
        victims: &BTreeSet<PodUid>,
        desired: &Desired,
        seen: &Observed,
    ) -> Result<(), Broken> {
        self.refused += u32::try_from(plan.refused.len()).unwrap_or(0);
        let new: Vec<&Pod> =
            plan.preempted.difference(victims).filter_map(|uid| desired.pods.get(uid)).collect();
        self.preempted += u32::try_from(new.len()).unwrap_or(0);
        let staying = || {
            plan.placed.iter().filter(|(uid, _)| {
                !plan.leaving.contains(*uid) && (desired.pods.contains_key(*uid) || !desired.complete)
            })
        };
        let room = desired.room.clone().unwrap_or_default();
        let fits = |used: &[Claim], claim: &Claim| ALL.iter().all(|r| enough(&room, r, used, claim));
        let waits = |uid: &PodUid| {
            let out_of = plan.refused.get(uid).is_some_and(|r| r.reason.starts_with("OutOf"));
            desired.pods.get(uid).filter(|pod| out_of && pod.rank.critical)
        };
        let waiting: Vec<&Pod> = plan.refused.keys().filter_map(waits).collect();
        for victim in &new {
            let uid = &victim.identity.uid;
            if victim.rank.critical {
                return Err(format!("{uid} is critical and preempted"));
            }
            let [critical] = waiting[..] else {
                if waiting.is_empty() {
                    return Err(format!("{uid} is preempted and no critical pod waits"));
                }
                continue;
            };
            let others: Vec<Claim> = staying().map(|(_, claim)| claim.clone()).collect();
            let spared = [others.as_slice(), std::slice::from_ref(&victim.claim)].concat();
            if fits(&spared, &critical.claim) {
                return Err(format!("{uid} is preempted for nothing: {room:?} beside {spared:?}"));
            }
            let lesser = staying().filter(|(uid, _)| {
                let pod = desired.pods.get(*uid);
                pod.is_some_and(|p| !p.rank.critical && p.rank.qos < victim.rank.qos)
            });
            let lesser: BTreeSet<&PodUid> = lesser.map(|(uid, _)| uid).collect();
            let better = staying().filter(|(uid, _)| !lesser.contains(uid)).map(|(_, claim)| claim.clone());
            let better: Vec<Claim> = better.chain([victim.claim.clone()]).collect();
            if fits(&better, &critical.claim) {
                return Err(format!("{uid} is preempted before pods of a lesser class"));
            }
        }
        for (uid, claim) in staying().filter(|(uid, _)| !self.given.contains_key(*uid)) {
            let there = seen.snapshot.sandboxes.iter().any(|s| s.pod.uid == *uid);
            if there || desired.pods.get(uid).is_none_or(|pod| pod.rank.critical) {
                continue;
            }
            let others: Vec<Claim> =
                staying().filter(|(other, _)| *other != uid).map(|(_, claim)| claim.clone()).collect();
            let with = [others.as_slice(), std::slice::from_ref(claim)].concat();
            if let [critical] = waiting[..]
                && fits(&others, &critical.claim)
                && !fits(&with, &critical.claim)
            {
                let whose = &critical.identity.uid;
                return Err(format!("{uid} is given the room that critical {whose} waits for"));
            }
        }
        let most = |uid: &PodUid| {
            let before = self.given.get(uid).cloned().unwrap_or_default();
            let most = |r: &str| (r.to_owned(), room.of(r).max(before.of(r)));
            (uid.clone(), Room(ALL.into_iter().map(most).collect()))
        };
        self.given = plan.placed.keys().map(most).collect();
        let keeps = |uid: &&PodUid| {
            let pod = &desired.pods[*uid];
            let for_ever = pod.restart_policy == RestartPolicy::Always && pod.deadline.is_none();
            for_ever && pod.containers.iter().all(|c| c.restart_policy.is_none()) && pod.init.is_empty()
        };
        let pushed = |uid: &&PodUid| {
            self.placed.contains(*uid) && desired.pods[*uid].refused.is_none() && !plan.leaving.contains(*uid)
        };
        match plan.refused.keys().filter(keeps).find(pushed) {
            Some(uid) => Err(format!("{uid} lost its place: {}", plan.refused[uid])),
            None => Ok(()),
        }
    }

    /// What is taken down whole has no place any more.
    pub fn tears_down(&mut self, step: &Step) {
        if matches!(
            step.because,
            Reason::PodGone | Reason::StartsAfresh | Reason::NameTaken | Reason::Preempted
        ) {
            self.placed.remove(step.action.uid());
        }
    }
}

fn written(annotations: &BTreeMap<String, String>) -> Claim {
    annotations.get(CLAIM).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn enough(room: &Room, resource: &str, used: &[Claim], claim: &Claim) -> bool {
    let wanted = claim.of(resource);
    wanted == 0 || used.iter().map(|c| c.of(resource)).sum::<i64>() + wanted <= room.of(resource)
}

/// Whether the node may refuse the pod as things are: what it may not do is leave out a pod for which there is room.
pub fn may_refuse(world: &World, room: &Room, pod: &Pod, all: &[&Pod]) -> Result<(), Broken> {
    let uid = &pod.identity.uid;
    let snapshot = world.snapshot(OURS);
    if snapshot.sandboxes.iter().any(|s| s.pod.uid == *uid && s.state == SandboxState::Ready) {
        return Err(format!("{uid} is there and not as wanted"));
    }
    if pod.refused.is_some() {
        return Ok(());
    }
    let there = |sandbox: &&podstead_runtime::Sandbox| sandbox.state == SandboxState::Ready;
    let staying = |sandbox: &&podstead_runtime::Sandbox| {
        let other = all.iter().find(|other| other.identity.uid == sandbox.pod.uid);
        !pod.rank.critical || other.is_none_or(|other| other.rank.critical)
    };
    let of = |sandbox: &podstead_runtime::Sandbox| written(&sandbox.annotations);
    let beside: Vec<Claim> = snapshot.sandboxes.iter().filter(there).map(of).collect();
    if beside.iter().any(|claim| claim.conflicts(&pod.claim)) {
        return Ok(());
    }
    let used: Vec<Claim> = snapshot.sandboxes.iter().filter(there).filter(staying).map(of).collect();
    if ALL.iter().all(|r| enough(room, r, &used, &pod.claim)) {
        return Err(format!(
            "{uid} is left out although there is room: {:?} in {room:?} beside {used:?}",
            pod.claim
        ));
    }
    Ok(())
}
