//! What an agent with these manifests would do about what there is, pod by pod. Pure: the agent's own decision, read as a
//! whole instead of step by step.

use std::collections::{BTreeMap, BTreeSet};

use podstead_runtime::{PodUid, Time};
use serde::Serialize;

use crate::plan::{self, Action, Desired, Known, Observed, Step};

/// What happens to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Something about it changes, it stays.
    Change,
    /// It is new.
    Start,
    /// It is new, and the node does not take it now.
    Wait,
    /// Another of its name is ended first.
    Replace,
    /// It is ended.
    Stop,
}

/// The outlook of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// `namespace/name`.
    pub pod: String,
    /// What happens.
    pub verdict: Verdict,
    /// Uid of the pod to come, or that goes.
    pub uid: String,
    /// Uid of the one it takes the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Why, in the agent's words.
    pub why: Vec<String>,
}

/// The outlook of every pod that is wanted or there, in the order of their names.
pub fn outlook(desired: &Desired, observed: &Observed, now: Time) -> Vec<Outlook> {
    let there = there(observed);
    let known = Known { prepared: there.keys().cloned().collect(), ..Known::default() };
    let plan = plan::plan(desired, observed, &known, now);
    let mut replaced = BTreeSet::new();
    let mut all: Vec<Outlook> = Vec::new();
    for (uid, pod) in &desired.pods {
        let name = pod.identity.full_name();
        let before =
            there.iter().find(|(other, full)| *other != uid && **full == name).map(|(other, _)| other);
        let steps = plan.steps.get(uid).map_or(&[][..], Vec::as_slice);
        let (verdict, why) = match (there.contains_key(uid), before) {
            (true, _) if plan.preempted.contains(uid) => (
                Verdict::Stop,
                vec!["a critical pod needs its place; it comes back when there is room".to_owned()],
            ),
            (true, _) => kept(steps),
            (false, Some(_)) => {
                (Verdict::Replace, vec!["its manifest changed, or moved to another file".to_owned()])
            }
            (false, None) if plan.refused.contains_key(uid) => (Verdict::Wait, refusal(&plan, uid)),
            (false, None) => (Verdict::Start, vec!["a manifest asks for it".to_owned()]),
        };
        let instead_of = before.filter(|_| verdict == Verdict::Replace).map(|uid| {
            replaced.insert(uid.clone());
            uid.0.clone()
        });
        all.push(Outlook { pod: name, verdict, uid: uid.0.clone(), instead_of, why });
    }
    for (uid, name) in &there {
        if desired.pods.contains_key(uid) || replaced.contains(uid) {
            continue;
        }
        let (verdict, why) = if desired.complete {
            (Verdict::Stop, "no manifest asks for it")
        } else {
            (Verdict::Keep, "not every manifest can be read, and one of those may ask for it")
        };
        let why = vec![why.to_owned()];
        all.push(Outlook { pod: name.clone(), verdict, uid: uid.0.clone(), instead_of: None, why });
    }
    all.sort_by(|a, b| (&a.pod, a.verdict).cmp(&(&b.pod, b.verdict)));
    all
}

/// Why the node does not take the pod.
fn refusal(plan: &plan::Plan, uid: &PodUid) -> Vec<String> {
    plan.refused.get(uid).map(|refusal| refusal.message.clone()).into_iter().collect()
}

/// Pods of which the runtime has something, with their names.
fn there(observed: &Observed) -> BTreeMap<PodUid, String> {
    let sandboxes = observed.snapshot.sandboxes.iter();
    sandboxes.map(|s| (s.pod.uid.clone(), s.pod.full_name())).collect()
}

/// Of a pod that stays: what is done about it, apart from tidying up.
fn kept(steps: &[Step]) -> (Verdict, Vec<String>) {
    let tidies = |action: &Action| {
        matches!(
            action,
            Action::RemoveContainer { .. } | Action::RemoveSandbox { .. } | Action::PreparePod { .. }
        )
    };
    let why: Vec<String> =
        steps.iter().filter(|step| !tidies(&step.action)).map(ToString::to_string).collect();
    (if why.is_empty() { Verdict::Keep } else { Verdict::Change }, why)
}

#[cfg(test)]
mod tests {
    use podstead_runtime::{Container, ContainerState, PodIdentity, Sandbox, SandboxState, Snapshot, labels};

    use super::*;

    fn identity(name: &str, uid: &str) -> PodIdentity {
        PodIdentity { name: name.into(), namespace: "default".into(), uid: uid.into() }
    }

    fn wanted(name: &str, uid: &str) -> (PodUid, plan::Pod) {
        let container =
            plan::ContainerPlan { name: "c".into(), hash: "h".into(), ..plan::ContainerPlan::default() };
        let pod =
            plan::Pod { identity: identity(name, uid), containers: vec![container], ..plan::Pod::default() };
        (uid.into(), pod)
    }

    fn running(observed: &mut Observed, name: &str, uid: &str, hash: &str) {
        let at = Time::from_secs(1_000);
        let state = SandboxState::Ready;
        let ips = Some(vec![[10, 0, 0, 1].into()]);
        let sandbox = Sandbox { id: uid.into(), pod: identity(name, uid), state, ips, ..Sandbox::default() };
        let labels = [(labels::POD_UID, uid), (labels::POD_NAME, name), (labels::POD_NAMESPACE, "default")];
        let container = Container {
            id: format!("c-{uid}").as_str().into(),
            sandbox: sandbox.id.clone(),
            name: "c".into(),
            state: ContainerState::Running { started_at: at },
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            annotations: [(labels::CONTAINER_HASH.to_owned(), hash.to_owned())].into(),
            ..Container::default()
        };
        observed.snapshot.sandboxes.push(sandbox);
        observed.snapshot.containers.push(container);
    }

    fn told(desired: &Desired, observed: &Observed) -> Vec<(String, Verdict, String)> {
        let all = outlook(desired, observed, Time::from_secs(2_000));
        all.into_iter().map(|o| (o.pod, o.verdict, o.why.join("; "))).collect()
    }

    #[test]
    fn a_pod_without_room_waits_and_a_critical_one_takes_another_ones_place() {
        let mut observed = Observed { snapshot: Snapshot::default(), ..Observed::default() };
        running(&mut observed, "calm", "u1", "h");
        let room = plan::Room([("pods".to_owned(), 1)].into());
        let mut desired = Desired {
            pods: [wanted("calm", "u1"), wanted("late", "u2")].into(),
            complete: true,
            room: Some(room),
        };
        let all = told(&desired, &observed);
        assert_eq!((all[0].1, all[1].1), (Verdict::Keep, Verdict::Wait), "{all:?}");
        assert!(all[1].2.contains("requested: 1, used: 1, capacity: 1"), "{all:?}");
        if let Some(pod) = desired.pods.get_mut(&PodUid::from("u2")) {
            pod.rank.critical = true;
        }
        let all = told(&desired, &observed);
        assert_eq!(all[0].1, Verdict::Stop, "{all:?}");
        assert!(all[0].2.contains("a critical pod needs its place"), "{all:?}");
    }

    #[test]
    fn each_pod_is_kept_changed_started_replaced_or_stopped() {
        let mut observed = Observed { snapshot: Snapshot::default(), ..Observed::default() };
        running(&mut observed, "calm", "u1", "h");
        running(&mut observed, "edited", "u2", "old");
        running(&mut observed, "other", "u3", "h");
        running(&mut observed, "gone", "u4", "h");
        let pods =
            [wanted("calm", "u1"), wanted("edited", "u2"), wanted("other", "u5"), wanted("fresh", "u6")];
        let mut desired = Desired { pods: pods.into(), complete: true, room: None };
        let all = told(&desired, &observed);
        let short: Vec<(&str, Verdict)> =
            all.iter().map(|(pod, verdict, _)| (pod.as_str(), *verdict)).collect();
        let wanted = [
            ("default/calm", Verdict::Keep),
            ("default/edited", Verdict::Change),
            ("default/fresh", Verdict::Start),
            ("default/gone", Verdict::Stop),
            ("default/other", Verdict::Replace),
        ];
        assert_eq!(short, wanted);
        assert!(all[1].2.contains("stop container c") && all[1].2.contains("the definition"), "{all:?}");
        // While a manifest cannot be read, nothing is called unwanted.
        desired.complete = false;
        assert!(told(&desired, &observed).contains(&(
            "default/gone".to_owned(),
            Verdict::Keep,
            "not every manifest can be read, and one of those may ask for it".to_owned()
        )));
    }
}
