//! A pod's conditions and since when each holds (`kubelet-static-pods.md 5.3`). Pure.

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;

use crate::plan::status::{ContainerStatus, PodPhase, PodStatus};

/// The conditions that follow from a status, without the times.
pub fn of(status: &PodStatus, sidecars: impl Fn(&str) -> bool) -> Vec<PodCondition> {
    let completed = status.phase == PodPhase::Succeeded;
    let serving = status.init.iter().filter(|c| sidecars(&c.name)).chain(&status.containers);
    let unready = names(serving.filter(|c| !c.ready));
    let incomplete =
        names(status.init.iter().filter(|c| !if sidecars(&c.name) { c.started } else { c.ready }));
    let ready = if completed {
        condition("Ready", false, "PodCompleted", String::new())
    } else {
        let text = format!("containers with unready status: [{unready}]");
        condition("Ready", status.ready, "ContainersNotReady", text)
    };
    let initialized = {
        let text = format!("containers with incomplete status: [{incomplete}]");
        condition("Initialized", status.initialized, "ContainersNotInitialized", text)
    };
    let containers_ready = PodCondition { type_: "ContainersReady".to_owned(), ..ready.clone() };
    let mut all = vec![
        condition("PodReadyToStartContainers", status.sandbox_ready, "", String::new()),
        initialized,
        ready,
        containers_ready,
        condition("PodScheduled", true, "", String::new()),
    ];
    all.extend((status.rounds > 0).then(|| restarting(&status.restarting)));
    all
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

    use super::*;

    fn at(second: i64) -> ApiTime {
        ApiTime(Timestamp::from_second(second).unwrap())
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
}
