//! Golden cases of the decision: `fixtures/plans/<case>.yaml` holds what should be, what is, what the agent remembers and
//! the time; `<case>.expected` the steps with their reasons, the waits and the wake-up. A new case is a new file.
//! `BLESS=1 cargo test -p podstead --test golden` writes the expected texts anew; read the difference then.
#![allow(clippy::unwrap_used)]

mod case;
#[path = "../support/expected.rs"]
mod expected;
mod sentences;

use std::path::PathBuf;

use case::Case;

fn cases() -> Vec<PathBuf> {
    expected::files("fixtures/plans", &["yaml"])
}

fn read(path: &PathBuf) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_case_gives_the_expected_plan() {
    let mut wrong = Vec::new();
    let all = cases();
    assert!(all.len() >= 25, "only {} cases", all.len());
    for path in all {
        let case = read(&path);
        let got = format!("# {}\n{}", case.shows, case::print(&case.decide()));
        expected::expect(&path.with_extension("expected"), &got, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}\nIf this is meant, run the test with BLESS=1.", wrong.join("\n"));
}

#[test]
fn every_case_gives_the_same_plan_whatever_the_order_of_the_reading() {
    for path in cases() {
        let case = read(&path);
        let (desired, known) = (case.desired(), case.known());
        let mut observed = case.observed();
        let now = podstead_runtime::Time::from_secs(86_500);
        let first = podstead::plan::plan(&desired, &observed, &known, now);
        observed.snapshot.sandboxes.reverse();
        observed.snapshot.containers.reverse();
        let mut second = podstead::plan::plan(&desired, &observed, &known, now);
        let mut first = first;
        for plan in [&mut first, &mut second] {
            plan.steps.values_mut().for_each(|steps| steps.sort_by_key(ToString::to_string));
            plan.waits.values_mut().for_each(|waits| waits.sort_by_key(ToString::to_string));
        }
        assert_eq!(first, second, "{}", path.display());
    }
}
