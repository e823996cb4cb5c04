//! A pod's conditions and since when each holds (`kubelet-static-pods.md 5.3`). Pure.

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;

use crate::plan::status::{ContainerStatus, PodPhase, PodStatus};

/// The conditions that follow from a status, without the times. `gates` are the pod's readiness gates: conditions that
/// something beside the agent would set, which a static pod never has.
pub fn of(status: &PodStatus, gates: &[&str], sidecars: impl Fn(&str) -> bool) -> Vec<PodCondition> {
    let completed = status.phase == PodPhase::Succeeded;
    let serving = status.init.iter().filter(|c| sidecars(&c.name)).chain(&status.containers);
    let unready = names(serving.filter(|c| !c.ready));
    let incomplete =
        names(status.init.iter().filter(|c| !if sidecars(&c.name) { c.started } else { c.ready }));
    let serve = if completed {
        condition("ContainersReady", false, "PodCompleted", String::new())
    } else {
        let text = format!("containers with unready status: [{unready}]");
        condition("ContainersReady", status.ready, "ContainersNotReady", text)
    };
    let ready = if status.ready && !completed && !gates.is_empty() {
        let missing =
            |gate: &&str| format!("corresponding condition of pod readiness gate {gate:?} does not exist.");
        let text = gates.iter().map(missing).collect::<Vec<_>>().join(", ");
        condition("Ready", false, "ReadinessGatesNotReady", text)
    } else {
        PodCondition { type_: "Ready".to_owned(), ..serve.clone() }
    };
    let initialized = {
        let text = format!("containers with incomplete status: [{incomplete}]");
        condition("Initialized", status.initialized, "ContainersNotInitialized", text)
    };
    let mut all = vec![
        condition("PodReadyToStartContainers", status.sandbox_ready, "", String::new()),
        initialized,
        ready,
        serve,
        condition("PodScheduled", true, "", String::new()),
    ];
    all.extend(status.resizing.as_deref().map(resizing));
    all.extend((status.rounds > 0).then(|| restarting(&status.restarting)));
    all
}

/// A pod on its way to other sizes; of this condition reason and message say what is wrong while it holds.
fn resizing(error: &str) -> PodCondition {
    let told = |text: &str| Some(text.to_owned()).filter(|_| !error.is_empty());
    PodCondition {
        reason: told("Error"),
        message: told(error),
        ..condition("PodResizeInProgress", true, "", String::new())
    }
}

/// Here the reason belongs to the condition that holds.
fn restarting(message: &str) -> PodCondition {
    let told = |text: &str| (!message.is_empty()).then(|| text.to_owned());
    PodCondition {
        reason: told("ContainerExited"),
        message: told(message),
        ..condition("AllContainersRestarting", !message.is_empty(), "", String::new())
    }
}

/// Reason and message belong to a condition that does not hold.
fn condition(kind: &str, holds: bool, reason: &str, message: String) -> PodCondition {
    let told = |text: String| Some(text).filter(|t| !holds && !t.is_empty());
    PodCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: told(reason.to_owned()),
        message: told(message),
        ..PodCondition::default()
    }
}

fn names<'a>(containers: impl Iterator<Item = &'a ContainerStatus>) -> String {
    containers.map(|c| c.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// Gives each condition the time since when it is as it is: what it had before if its status is the same, else `now`.
pub fn date(conditions: &mut [PodCondition], before: &[PodCondition], now: &ApiTime) {
    for condition in conditions {
        let same = before.iter().find(|b| b.type_ == condition.type_ && b.status == condition.status);
        let since = same.and_then(|before| before.last_transition_time.clone());
        condition.last_transition_time = Some(since.unwrap_or_else(|| now.clone()));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use podstead_runtime::Time;

    use super::*;

    fn at(second: i64) -> ApiTime {
        ApiTime(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_resize_under_way_is_a_condition_with_its_error() {
        let of = |error: &str| {
            let c = resizing(error);
            (c.status, c.reason.unwrap_or_default(), c.message.unwrap_or_default())
        };
        assert_eq!(of(""), ("True".into(), String::new(), String::new()));
        assert_eq!(of("no room"), ("True".into(), "Error".into(), "no room".into()));
    }

    #[test]
    fn a_condition_is_dated_anew_only_when_it_changes() {
        let mut first = vec![
            condition("Ready", false, "Why", "m".into()),
            condition("Initialized", true, "", String::new()),
        ];
        date(&mut first, &[], &at(1));
        let mut second = vec![
            condition("Ready", true, "Why", "m".into()),
            condition("Initialized", true, "", String::new()),
        ];
        date(&mut second, &first, &at(2));
        let times: Vec<_> = second.iter().map(|c| c.last_transition_time.clone().unwrap()).collect();
        assert_eq!(times, [at(2), at(1)]);
        assert_eq!((first[0].reason.as_deref(), second[0].reason.as_deref()), (Some("Why"), None));
    }

    #[test]
    fn a_pod_with_readiness_gates_is_never_ready_though_its_containers_are() {
        let told = |ready, gates: &[&str]| {
            let status = PodStatus {
                phase: PodPhase::Running,
                ips: vec![],
                sandbox_created_at: Time(0),
                since: Time(0),
                sandbox_ready: true,
                ready,
                initialized: true,
                reason: String::new(),
                message: String::new(),
                rounds: 0,
                restarting: String::new(),
                resizing: None,
                init: vec![],
                containers: vec![],
            };
            let all = of(&status, gates, |_| false);
            let one = |kind: &str| {
                let found = all.iter().find(|c| c.type_ == kind).unwrap();
                (found.status.clone(), found.reason.clone(), found.message.clone())
            };
            (one("Ready"), one("ContainersReady"))
        };
        let (ready, containers) = told(true, &["example.com/a", "b"]);
        assert_eq!((ready.0.as_str(), containers.0.as_str()), ("False", "True"));
        assert_eq!(ready.1.as_deref(), Some("ReadinessGatesNotReady"));
        assert_eq!(
            ready.2.as_deref(),
            Some(
                "corresponding condition of pod readiness gate \"example.com/a\" does not exist., corresponding condition \
                 of pod readiness gate \"b\" does not exist."
            )
        );
        assert_eq!(told(true, &[]).0.0, "True");
        let (ready, containers) = told(false, &["b"]);
        assert_eq!((ready.1.as_deref(), &ready), (Some("ContainersNotReady"), &containers));
    }
}
