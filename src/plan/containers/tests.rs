//! What heals when the runtime has more, or less, of a container than there should be.

use std::time::Duration;

use podstead_runtime::{
    Container, ContainerState, PodIdentity, PodUid, Retry, START_BROKEN_OFF, Sandbox, SandboxState, Snapshot,
    Time, labels,
};

use crate::plan::backoff::BACKOFF;
use crate::plan::{Action, ContainerPlan, Desired, Known, Observed, Pod, RestartPolicy, plan};

const NOW: Time = Time(1_000_000_000_000);

fn uid() -> PodUid {
    PodUid::from("u1")
}

fn identity() -> PodIdentity {
    PodIdentity { name: "web-n1".into(), namespace: "default".into(), uid: uid() }
}

fn desired(restart_policy: RestartPolicy) -> Desired {
    let container =
        ContainerPlan { name: "c".into(), image: "i".into(), hash: "h".into(), ..ContainerPlan::default() };
    let pod = Pod {
        identity: identity(),
        host_network: true,
        restart_policy,
        grace: Duration::from_secs(5),
        containers: vec![container],
        ..Pod::default()
    };
    Desired { pods: [(uid(), pod)].into(), complete: true, room: None }
}

fn sandbox(id: &str, attempt: u32, age: u64) -> Sandbox {
    Sandbox {
        id: id.into(),
        pod: identity(),
        attempt,
        state: SandboxState::Ready,
        created_at: before(age),
        host_network: true,
        ..Sandbox::default()
    }
}

fn before(seconds: u64) -> Time {
    Time(NOW.0 - i64::try_from(seconds).unwrap() * 1_000_000_000)
}

fn container(id: &str, attempt: u32, age: u64, state: ContainerState) -> Container {
    Container {
        id: id.into(),
        sandbox: "s".into(),
        name: "c".into(),
        attempt,
        state,
        created_at: before(age),
        labels: [(labels::POD_UID.to_owned(), "u1".to_owned())].into(),
        annotations: [(labels::CONTAINER_HASH.to_owned(), "h".to_owned())].into(),
        ..Container::default()
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: before(50) }
}

fn exited(reason: &str) -> ContainerState {
    let (started_at, finished_at) = (Time(0), before(20));
    ContainerState::Exited {
        code: 128,
        started_at,
        finished_at,
        reason: reason.into(),
        message: String::new(),
    }
}

fn known() -> Known {
    Known { prepared: [uid()].into(), ..Known::default() }
}

/// The plan's steps without their reasons, for a pod with one sandbox and these containers.
fn steps(policy: RestartPolicy, containers: Vec<Container>, known: &Known) -> Vec<String> {
    let snapshot = Snapshot { sandboxes: vec![sandbox("s", 0, 60)], containers };
    planned(policy, snapshot, known)
}

fn planned(policy: RestartPolicy, snapshot: Snapshot, known: &Known) -> Vec<String> {
    // Every instance has left a log file.
    let last = snapshot.containers.iter().map(|c| c.attempt + 1).max();
    let attempt_floor = last.map(|floor| ((uid(), "c".to_owned()), floor)).into_iter().collect();
    let observed = Observed { snapshot, attempt_floor, ..Observed::default() };
    let plan = plan(&desired(policy), &observed, known, NOW);
    plan.steps.values().flatten().map(|step| step.action.to_string()).collect()
}

#[test]
fn a_start_that_was_broken_off_is_made_anew_with_the_same_number_and_at_once() {
    for policy in [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never] {
        let broken = container("a", 2, 50, exited(START_BROKEN_OFF));
        assert_eq!(steps(policy, vec![broken], &known()), ["ensure image i for c #2"], "{policy:?}");
    }
}

#[test]
fn a_start_that_was_broken_off_when_something_may_have_run_counts_but_waits_for_no_back_off() {
    let ContainerState::Exited { code, finished_at, reason, message, .. } = exited(START_BROKEN_OFF) else {
        unreachable!()
    };
    let state = ContainerState::Exited { code, started_at: finished_at, finished_at, reason, message };
    let mut broken = container("a", 2, 50, state);
    broken.annotations.insert(BACKOFF.into(), "300".into());
    let one = vec![broken];
    assert_eq!(steps(RestartPolicy::Always, one.clone(), &known()), ["ensure image i for c #3"]);
    assert_eq!(steps(RestartPolicy::Never, one, &known()), ["stop sandbox s"], "it may have run once");
}

#[test]
fn a_start_error_is_an_instance_that_ended_and_counts() {
    let failed = container("a", 2, 50, exited("StartError"));
    assert_eq!(steps(RestartPolicy::Always, vec![failed.clone()], &known()), ["ensure image i for c #3"]);
    assert_eq!(steps(RestartPolicy::Never, vec![failed], &known()), ["stop sandbox s"], "the pod is over");
}

#[test]
fn a_start_that_was_broken_off_in_another_sandbox_gets_the_next_number() {
    let mut broken = container("a", 2, 50, exited(START_BROKEN_OFF));
    broken.sandbox = "gone".into();
    assert_eq!(steps(RestartPolicy::Always, vec![broken], &known()), ["ensure image i for c #3"]);
}

#[test]
fn a_start_that_this_agent_saw_fail_is_repeated_after_a_pause() {
    let broken = container("a", 0, 50, exited(START_BROKEN_OFF));
    let mut known = known();
    let start = Action::StartContainer { uid: uid(), container: "c".into(), id: "a".into() };
    known.failed(&start, Retry::Backoff, "", "shim killed", before(0));
    assert!(steps(RestartPolicy::Always, vec![broken.clone()], &known).is_empty());
    known.failures.values_mut().for_each(|failure| failure.at = before(30));
    assert_eq!(steps(RestartPolicy::Always, vec![broken], &known), ["ensure image i for c #0"]);
}

#[test]
fn of_two_that_run_under_one_name_the_older_is_stopped_and_then_removed() {
    let both = vec![container("new", 0, 40, running()), container("old", 0, 50, running())];
    assert_eq!(steps(RestartPolicy::Always, both, &known()), ["stop container c (old), grace 5 s"]);
    let after = vec![container("new", 0, 40, running()), container("old", 0, 50, exited("Error"))];
    assert_eq!(steps(RestartPolicy::Always, after, &known()), ["remove container c (old)"]);
}

#[test]
fn nothing_is_started_beside_an_older_one_that_runs() {
    for state in [ContainerState::Created, exited("Error"), exited(START_BROKEN_OFF)] {
        let both = vec![container("new", 1, 40, state.clone()), container("old", 0, 50, running())];
        let steps = steps(RestartPolicy::Always, both, &known());
        assert_eq!(steps, ["stop container c (old), grace 5 s"], "{state:?}");
    }
}

#[test]
fn of_two_ready_sandboxes_none_is_kept_and_what_runs_in_them_is_stopped_first() {
    let mut other = container("b", 0, 40, running());
    other.sandbox = "t".into();
    let sandboxes = vec![sandbox("t", 0, 45), sandbox("s", 0, 60)];
    let containers = vec![other, container("a", 0, 50, running())];
    let snapshot = Snapshot { sandboxes: sandboxes.clone(), containers };
    let first = planned(RestartPolicy::Always, snapshot, &known());
    assert_eq!(first, ["stop container c (b), grace 5 s", "stop container c (a), grace 5 s"]);
    let snapshot = Snapshot { sandboxes, containers: Vec::new() };
    let second = planned(RestartPolicy::Always, snapshot, &known());
    assert_eq!(second, ["stop sandbox t", "stop sandbox s"]);
}
