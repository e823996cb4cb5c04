//! How long to wait: between instances of a container (`kubelet-static-pods.md 2.6`) and after failed verbs.
//! The crash back-off lives in an annotation of each instance, so no restart of the agent forgets it.

use std::collections::BTreeMap;
use std::time::Duration;

use podstead_runtime::{Container, ContainerState, Retry, Time};

use super::action::Verb;
use super::known::Failure;
use super::mutant::{Mutant, planted};

/// Annotation of containers: how long, in seconds, the next instance waits after this one's end; 0 for not at all.
pub const BACKOFF: &str = "podstead.dev/backoff";

/// How often a pod that waits for the runtime or its network is looked at.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause of a crash loop, unless a shorter one is asked for when an instance is made.
pub const MAX: Duration = Duration::from_secs(300);
/// An instance that ended this long after it was made had no part in a crash loop.
const RESET: Duration = Duration::from_secs(600);

/// When the next instance may be made, and what is written on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restart {
    /// Not before; `None` for at once.
    pub not_before: Option<Time>,
    /// The pause that is waited out, for people.
    pub pause: Duration,
    /// The pause after the next instance's end.
    pub next_pause: Duration,
}

/// When the instance is over and another is wanted.
pub(super) fn restart(last: &Container, now: Time) -> Restart {
    let pause = written(last);
    let end = ended_at(last);
    let calm = end.since(last.created_at) > RESET && !planted(Mutant::BackOffNeverResets);
    if pause.is_zero() || calm {
        return Restart { not_before: None, pause: Duration::ZERO, next_pause: FIRST };
    }
    let next_pause = if planted(Mutant::BackOffForgotten) { FIRST } else { (pause * 2).min(MAX) };
    let due = due(end, pause, now);
    let due = if planted(Mutant::NoCrashBackOff) { None } else { due };
    Restart { not_before: due, pause, next_pause }
}

/// When the instance was made and never ran: the next one takes its place at once and inherits its pause, so that a
/// sandbox lost at the wrong moment does not end a crash back-off.
pub(super) fn instead(last: &Container) -> Restart {
    Restart { not_before: None, pause: Duration::ZERO, next_pause: written(last) }
}

/// What is written on a new instance where pauses are to be shorter than [`MAX`]. The pause that is written is the one that
/// is waited out, so the decision needs no word of it.
pub fn capped(annotations: &BTreeMap<String, String>, most: Option<Duration>) -> BTreeMap<String, String> {
    let mut all = annotations.clone();
    if let (Some(pause), Some(most)) = (all.get_mut(BACKOFF), most)
        && pause.parse().is_ok_and(|seconds: u64| seconds > most.as_secs())
    {
        *pause = most.as_secs().to_string();
    }
    all
}

fn written(container: &Container) -> Duration {
    let seconds = container.annotations.get(BACKOFF).and_then(|s| s.parse().ok()).unwrap_or(0);
    Duration::from_secs(seconds).min(MAX)
}

/// When the container ended, as well as can be told.
pub(super) fn ended_at(container: &Container) -> Time {
    match &container.state {
        ContainerState::Exited { started_at, finished_at, .. } => {
            finished_at.known().or(started_at.known()).unwrap_or(container.created_at)
        }
        ContainerState::Running { started_at } => started_at.known().unwrap_or(container.created_at),
        ContainerState::Created | ContainerState::Unknown => container.created_at,
    }
}

/// `start + pause` if that is still to come. A start further ahead than the pause means that the clock was set back:
/// then nothing is waited for, else a pod could be down until the clock catches up.
pub(super) fn due(start: Time, pause: Duration, now: Time) -> Option<Time> {
    let at = start + pause;
    (at > now && start <= now + pause).then_some(at)
}

/// How long to wait after a failed verb. `Never` is "not before something changes"; a slow retry stays, because what
/// changed may be nothing that anyone would tell us.
pub(super) fn pause_after(failure: &Failure, verb: Verb) -> Duration {
    if planted(Mutant::FailureNotPaused) {
        return Duration::ZERO;
    }
    let (first, max) = if verb == Verb::EnsureImage { (FIRST, MAX) } else { (Duration::from_secs(1), FIRST) };
    match failure.retry {
        Retry::Soon => Duration::from_secs(1),
        Retry::Backoff => first.saturating_mul(1 << failure.count.saturating_sub(1).min(20)).min(max),
        Retry::Never => MAX,
    }
}

/// How long a sandbox must have been there before the next one is made: 1 s doubling with the attempt, at most 10 s.
/// A long-lived one is replaced at once, one that dies again and again does not become a busy loop.
pub(super) fn sandbox_pause(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.min(4)).min(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_cut_where_it_is_written() {
        let with = |seconds: u64| BTreeMap::from([(BACKOFF.to_owned(), seconds.to_string())]);
        let most = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(capped(&with(40), most(30)), with(30));
        assert_eq!(capped(&with(20), most(30)), with(20));
        assert_eq!(capped(&with(10), most(3)), with(3), "the first one too");
        assert_eq!(capped(&with(300), None), with(300));
        assert_eq!(capped(&BTreeMap::new(), most(3)), BTreeMap::new());
    }

    #[test]
    fn a_cut_pause_is_waited_out_and_the_next_one_is_cut_again() {
        let ended = ContainerState::Exited {
            code: 1,
            started_at: Time::from_secs(100),
            finished_at: Time::from_secs(101),
            reason: String::new(),
            message: String::new(),
        };
        let annotations = BTreeMap::from([(BACKOFF.to_owned(), "3".to_owned())]);
        let last =
            Container { created_at: Time::from_secs(100), state: ended, annotations, ..Container::default() };
        let restart = restart(&last, Time::from_secs(102));
        assert_eq!(restart.not_before, Some(Time::from_secs(104)));
        assert_eq!(restart.next_pause, Duration::from_secs(6));
    }
}
