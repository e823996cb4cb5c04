//! Results of single probes -> results that count: thresholds, holds, and when the next probe is due. Pure
//! (`kubelet-static-pods.md 3`).

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use podstead_runtime::Time;

use super::verdict::{Kind, Verdict};

/// Counts the results of one probe of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    kind: Kind,
    success_threshold: u32,
    failure_threshold: u32,
    /// The last result and how often it came in a row.
    last: Option<bool>,
    run: u32,
    over: bool,
}

/// The number, or its default where the manifest has nothing or nonsense.
fn positive(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

impl Counter {
    /// Goes on from what is known of the instance; its runs count anew.
    pub fn new(kind: Kind, probe: &Probe, known: &Verdict) -> Self {
        let mut counter = Self {
            kind,
            success_threshold: positive(probe.success_threshold, 1),
            failure_threshold: positive(probe.failure_threshold, 3),
            last: None,
            run: 0,
            over: false,
        };
        counter.over = counter.ends(known.result(kind));
        counter
    }

    /// Takes one result. Answers it once it has come often enough in a row, and then each time it comes again.
    pub fn count(&mut self, passed: bool) -> Option<bool> {
        if self.over {
            return None;
        }
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        if self.run < if passed { self.success_threshold } else { self.failure_threshold } {
            return None;
        }
        self.over = self.ends(Some(passed));
        Some(passed)
    }

    /// Whether no more is to be probed of this instance: its startup probe has passed, or it is to be replaced.
    pub fn over(&self) -> bool {
        self.over
    }

    fn ends(&self, result: Option<bool>) -> bool {
        match self.kind {
            Kind::Startup => result.is_some(),
            Kind::Liveness => result == Some(false),
            Kind::Readiness => false,
        }
    }
}

/// Time between the beginnings of two probes.
pub fn period(probe: &Probe) -> Duration {
    Duration::from_secs(positive(probe.period_seconds, 10).into())
}

/// How long one probe may take.
pub fn timeout(probe: &Probe) -> Duration {
    Duration::from_secs(positive(probe.timeout_seconds, 1).into())
}

/// How much of `initialDelaySeconds`, which counts from the container's start, is left. A clock that was set back makes
/// it no longer than it is written.
pub fn initial_delay(probe: &Probe, started_at: Time, now: Time) -> Duration {
    let whole = Duration::from_secs(positive(probe.initial_delay_seconds, 0).into());
    whole.saturating_sub(now.since(started_at))
}

/// A share of the first period, so that an agent that comes back does not make all probes at once: only when it began
/// less than a period ago. `chance` is from 0 to 1.
pub fn jitter(probe: &Probe, agent_age: Duration, chance: f64) -> Duration {
    let period = period(probe);
    if agent_age < period { period.mul_f64(chance.clamp(0.0, 1.0)) } else { Duration::ZERO }
}

/// How long after a probe that took `took` the next one begins. One that took longer than the period is followed at
/// once; none are made up for.
pub fn pause(probe: &Probe, took: Duration) -> Duration {
    period(probe).saturating_sub(took)
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Probes;
    use super::*;

    fn probe(success: i32, failure: i32) -> Probe {
        Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() }
    }

    fn fresh(kind: Kind) -> Verdict {
        let probes = Probes {
            startup: (kind == Kind::Startup).then(Probe::default),
            liveness: (kind == Kind::Liveness).then(Probe::default),
            readiness: (kind == Kind::Readiness).then(Probe::default),
        };
        Verdict::initial(&probes)
    }

    /// Results as they come (`+`, `-`) -> what counts after each (`P`, `F`, `.` for nothing).
    fn counted(kind: Kind, probe: &Probe, results: &str) -> String {
        let mut counter = Counter::new(kind, probe, &fresh(kind));
        let mut one = |c: char| match counter.count(c == '+') {
            Some(true) => 'P',
            Some(false) => 'F',
            None => '.',
        };
        results.chars().map(&mut one).collect()
    }

    #[test]
    fn a_result_counts_when_it_has_come_often_enough_in_a_row() {
        use Kind::{Liveness, Readiness, Startup};
        for (kind, success, failure, results, counts) in [
            (Readiness, 1, 3, "+--+---", "P..P..F"),
            (Readiness, 1, 3, "----+-", "..FFP."),
            (Readiness, 3, 1, "++-+++-", "..F..PF"),
            (Readiness, 2, 2, "+-+-++--", ".....P.F"),
            (Readiness, 1, 1, "-+-+", "FPFP"),
            // Held after a failure that counts, whatever comes.
            (Liveness, 1, 3, "+--+---+-", "P..P..F.."),
            (Liveness, 1, 1, "-+", "F."),
            // A startup probe has one result only.
            (Startup, 1, 3, "--+-+", "..P.."),
            (Startup, 1, 3, "---+", "..F."),
        ] {
            assert_eq!(counted(kind, &probe(success, failure), results), counts, "{kind} {results}");
        }
    }

    #[test]
    fn what_the_manifest_leaves_out_is_defaulted() {
        assert_eq!(counted(Kind::Readiness, &Probe::default(), "---+"), "..FP");
        assert_eq!(counted(Kind::Readiness, &probe(0, -1), "---+"), "..FP");
        let probe = Probe::default();
        assert_eq!((period(&probe), timeout(&probe)), (Duration::from_secs(10), Duration::from_secs(1)));
    }

    #[test]
    fn what_is_known_of_an_instance_is_not_probed_again() {
        let known = |started, alive| Verdict { started, alive, ..fresh(Kind::Startup) };
        for (kind, verdict, over) in [
            (Kind::Startup, known(false, true), false),
            (Kind::Startup, known(true, true), true),
            (Kind::Startup, known(false, false), true),
            (Kind::Liveness, known(true, true), false),
            (Kind::Liveness, known(true, false), true),
            (Kind::Readiness, known(true, false), false),
        ] {
            assert_eq!(Counter::new(kind, &Probe::default(), &verdict).over(), over, "{kind} {verdict:?}");
        }
    }

    #[test]
    fn the_initial_delay_counts_from_the_containers_start() {
        let probe = Probe { initial_delay_seconds: Some(30), ..Probe::default() };
        for (started, now, left) in
            [(100, 100, 30), (100, 112, 18), (100, 130, 0), (100, 500, 0), (100, 40, 30)]
        {
            let got = initial_delay(&probe, Time::from_secs(started), Time::from_secs(now));
            assert_eq!(got, Duration::from_secs(left), "{started} {now}");
        }
        assert_eq!(initial_delay(&Probe::default(), Time::from_secs(1), Time::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn only_a_young_agent_scatters_its_first_probes() {
        let probe = Probe { period_seconds: Some(20), ..Probe::default() };
        for (age, chance, expected) in
            [(0, 0.5, 10), (19, 0.25, 5), (20, 0.5, 0), (900, 1.0, 0), (0, 7.0, 20)]
        {
            let got = jitter(&probe, Duration::from_secs(age), chance);
            assert_eq!(got, Duration::from_secs(expected), "{age} {chance}");
        }
    }

    #[test]
    fn a_slow_probe_is_followed_at_once_and_a_quick_one_after_the_rest_of_the_period() {
        let probe = Probe { period_seconds: Some(5), ..Probe::default() };
        assert_eq!(pause(&probe, Duration::from_secs(2)), Duration::from_secs(3));
        assert_eq!(pause(&probe, Duration::from_secs(7)), Duration::ZERO);
    }
}
