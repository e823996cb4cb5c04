//! The decision: what to do next so that what is becomes what should be. Pure: no clock, log, async, I/O or randomness
//! in this folder; the same inputs always give the same plan.
//!
//! A plan holds only steps whose preconditions are already *seen*. Carry out what [`Jobs`] admits, look again, plan
//! again. What must outlive the agent is in labels and annotations of the runtime's objects; [`Known`] may be lost.

mod action;
pub mod backoff;
mod containers;
mod draft;
mod init;
mod jobs;
mod known;
#[doc(hidden)]
pub mod mutant;
mod need;
mod reason;
mod round;
mod sandbox;
pub mod status;
mod teardown;
mod types;

use std::collections::BTreeMap;

use podstead_runtime::{PodUid, Time};

pub use action::{Action, FailureKey, Plan, Step, Verb, Wait};
pub use jobs::{JobId, JobKey, Jobs, Reading, Scope};
pub use known::{Failure, Known};
pub use reason::{Reason, WaitReason};
pub use teardown::{LEAST_GRACE, written_role};
pub use types::{ContainerPlan, Desired, Observed, Pod, Probed, Probes, RestartPolicy, RestartRule, Role};

use draft::{Draft, View};
use mutant::{Mutant, planted};

/// What to do next. `now` must be read after `observed`, so that nothing seen lies in the future.
pub fn plan(desired: &Desired, observed: &Observed, known: &Known, now: Time) -> Plan {
    let mut views = draft::views(observed);
    for uid in desired.pods.keys() {
        views.entry(uid.clone()).or_default();
    }
    let holders = holders(desired, &views);
    let mut plan = Plan::default();
    for (uid, view) in &views {
        let pod = desired.pods.get(uid);
        let full_name = pod.map_or_else(|| view.full_name.clone(), |pod| pod.identity.full_name());
        let mut draft = Draft::new(uid, &full_name, observed, known, now);
        let there = !view.sandboxes.is_empty() || !view.containers.is_empty() || view.leftover;
        let leaving = known.leaving.contains(uid) && !planted(Mutant::LeavingForgotten);
        let out = match pod {
            None => Some(Reason::PodGone),
            Some(_) if leaving => Some(Reason::StartsAfresh),
            Some(pod) if holders.get(&pod.identity.full_name()) != Some(&uid) => Some(Reason::NameTaken),
            Some(_) => None,
        };
        match (out, pod) {
            (Some(because), _) if there => {
                if desired.complete || planted(Mutant::RemovesWhileIncomplete) {
                    plan.leaving.insert(uid.clone());
                    teardown::tear_down(&mut draft, view, &because);
                } else {
                    draft.wait(None, WaitReason::SourcesNotRead, None);
                }
            }
            (Some(Reason::NameTaken), _) => {
                let holder = holders.get(&full_name).map(|uid| (*uid).clone()).unwrap_or_default();
                draft.wait(None, WaitReason::NameTaken(holder), None);
            }
            (_, Some(pod)) => match name_held(uid, &full_name, &views) {
                Some(other) => draft.wait(None, WaitReason::NameTaken(other), None),
                None => keep(&mut draft, pod, view),
            },
            (_, None) => {}
        }
        add(&mut plan, draft);
    }
    plan
}

fn add(plan: &mut Plan, draft: Draft<'_>) {
    let uid = draft.uid;
    let soonest = draft.waits.iter().filter_map(|w| w.until).min();
    plan.wake_at = plan.wake_at.into_iter().chain(soonest).chain(draft.look_at).min();
    if draft.ending {
        plan.ending.insert(uid.clone());
    }
    if !draft.steps.is_empty() {
        plan.steps.insert(uid.clone(), draft.steps);
    }
    if !draft.waits.is_empty() {
        plan.waits.insert(uid.clone(), draft.waits);
    }
}

/// The next steps of a pod that is wanted and may have its name.
fn keep(draft: &mut Draft<'_>, pod: &Pod, view: &View<'_>) {
    match sandbox::decide(pod, view) {
        Ok(current) => containers::converge(draft, pod, view, current),
        Err(because) => sandbox::replace(draft, pod, view, because),
    }
    containers::collect(draft, pod, view);
    sandbox::collect(draft, view);
}

/// Which of the wanted pods may have a name: the one that is there, else the first. The sources should not let two ask
/// for one name; if they do, the second waits instead of fighting.
fn holders<'a>(desired: &'a Desired, views: &BTreeMap<PodUid, View<'_>>) -> BTreeMap<String, &'a PodUid> {
    let there = |uid: &PodUid| views.get(uid).is_some_and(|v| !v.sandboxes.is_empty());
    let mut holders: BTreeMap<String, &PodUid> = BTreeMap::new();
    for (uid, pod) in &desired.pods {
        let holder = holders.entry(pod.identity.full_name()).or_insert(uid);
        if there(uid) && !there(holder) {
            *holder = uid;
        }
    }
    holders
}

/// Another pod that still has the name: while anything of it is left, nothing of this one is made.
fn name_held(uid: &PodUid, full_name: &str, views: &BTreeMap<PodUid, View<'_>>) -> Option<PodUid> {
    let holds = |view: &View<'_>| {
        (view.leftover && !planted(Mutant::LeftoversDoNotHoldName))
            || !view.sandboxes.is_empty()
            || !view.containers.is_empty()
    };
    let mut others = views.iter().filter(|(other, v)| *other != uid && v.full_name == full_name && holds(v));
    others.next().map(|(other, _)| other.clone()).filter(|_| !planted(Mutant::NameNotHeld))
}
