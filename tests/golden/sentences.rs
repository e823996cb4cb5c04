//! Rules of the decision that hold over many inputs at once.

use podstead::plan::{self, Action, Jobs, Known, Step, Verb};
use podstead_runtime::Time;

use crate::case::Case;

fn case(text: &str) -> Case {
    serde_yaml::from_str(&format!("shows: x\n{text}")).unwrap()
}

fn steps(case: &Case) -> Vec<Step> {
    case.decide().steps.into_values().flatten().collect()
}

fn verbs(text: &str) -> Vec<Verb> {
    steps(&case(text)).iter().map(|s| s.action.verb()).collect()
}

#[test]
fn pauses_double_from_10_to_300_seconds() {
    let mut pause = 0;
    let mut seen = Vec::new();
    for attempt in 0..9 {
        let text = format!(
            "now: 100000\npods: [{{}}]\nsandboxes: [{{id: s0}}]\n\
             containers: [{{id: c, attempt: {attempt}, backoff: {pause}, created: 4990, state: exited 1 at 5000}}]\n\
             known: {{prepared: [u1], resolved: {{u1/web/{}: i}}}}",
            attempt + 1
        );
        let made = steps(&case(&text)).into_iter().find_map(|s| match s.action {
            Action::CreateContainer { annotations, .. } => Some(annotations),
            _ => None,
        });
        pause = made.expect("an instance is made")[plan::backoff::BACKOFF].parse().unwrap();
        seen.push(pause);
    }
    assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300, 300, 300]);
}

#[test]
fn a_wake_up_is_never_in_the_past_and_time_alone_then_changes_the_plan() {
    for (name, text) in [
        ("back-off", "containers: [{id: c, backoff: 20, state: exited 1 at 95}]\nknown: {prepared: [u1]}"),
        (
            "failure",
            "known: {prepared: [u1], failures: [{verb: get the image, target: 'web:1', count: 1, at: 95, retry: backoff}]}",
        ),
    ] {
        let text = format!("pods: [{{}}]\nsandboxes: [{{id: s0}}]\n{text}");
        let before = case(&text).decide();
        let wake = before.wake_at.unwrap_or_else(|| panic!("{name}: no wake-up"));
        assert!(wake > Time::from_secs(86_500), "{name}");
        let after = {
            let c = case(&text);
            plan::plan(&c.desired(), &c.observed(), &c.known(), wake)
        };
        assert_ne!(before.steps, after.steps, "{name}");
        assert_eq!(after.wake_at, None, "{name}");
    }
}

#[test]
fn nothing_is_removed_while_it_runs_whoever_asks() {
    let removing = [Verb::Remove, Verb::StopSandbox, Verb::RemoveSandbox, Verb::Clean];
    let running = "sandboxes: [{id: s0}]\ncontainers: [{id: c0, state: running}]\nleftovers: {u1: web}\n";
    for (name, rest) in [
        ("gone", ""),
        ("afresh", "pods: [{}]\nknown: {leaving: [u1]}"),
        ("another network mode", "pods: [{hostNetwork: true}]"),
        ("replaced", "pods: [{uid: u2}]"),
    ] {
        let found = verbs(&format!("{running}{rest}"));
        assert!(found.contains(&Verb::Stop), "{name}: {found:?}");
        assert!(!found.iter().any(|v| removing.contains(v)), "{name}: {found:?}");
    }
}

#[test]
fn a_pod_of_another_name_is_not_held_up() {
    let found = verbs(
        "pods: [{uid: u2, name: other}]\nsandboxes: [{id: s0}]\ncontainers: [{id: c0, state: running}]",
    );
    assert_eq!(found, [Verb::Stop, Verb::Prepare]);
}

#[test]
fn a_job_keeps_conflicting_ones_out_until_a_reading_begins_after_its_end() {
    let both =
        case("pods: [{containers: {web: h1, log: h2}}]\nsandboxes: [{id: s0}]\nknown: {prepared: [u1]}");
    let found = steps(&both);
    let [log, web] = &found[..] else { panic!("{found:?}") };
    let mut jobs = Jobs::default();
    let reading = jobs.observing();
    let running = jobs.admit(log, reading).expect("the first is admitted");
    assert!(jobs.admit(web, reading).is_some(), "another container's");
    assert!(jobs.admit(log, reading).is_none(), "the same, while it runs");
    jobs.finish(running);
    assert!(jobs.admit(log, reading).is_none(), "from the reading before its end");
    let next = jobs.observing();
    assert!(jobs.admit(log, reading).is_none(), "from an old reading");
    assert!(jobs.admit(log, next).is_some());
}

#[test]
fn an_image_nobody_wants_any_more_is_dropped_halfway() {
    let wanted = case("pods: [{}]\nsandboxes: [{id: s0}]\nknown: {prepared: [u1]}");
    let mut jobs = Jobs::default();
    let reading = jobs.observing();
    let job = jobs.admit(&steps(&wanted)[0], reading).unwrap();
    assert!(jobs.obsolete(&wanted.decide()).is_empty());
    assert_eq!(jobs.obsolete(&case("sandboxes: [{id: s0}]").decide()), [job]);
}

#[test]
fn memory_is_dropped_with_what_it_is_about_and_losing_it_only_repeats_verbs() {
    let c = case("known: {prepared: [u1], resolved: {u1/web/0: i}, released: [s0], stopped: [c0]}");
    let mut known = c.known();
    known.forget(&c.desired(), &c.observed());
    assert_eq!(known, Known::default());
}
