//! Watches the runtime's health for the loop: often while a pod waits for it; else beside the loop's own rounds, so that at
//! rest it wakes the processor no once more.

use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{Runtime, RuntimeStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::plan::WaitReason;
use crate::reconcile::View;

/// How long not to ask again.
#[derive(Clone, Copy)]
struct Pauses {
    /// When all is well.
    well: Duration,
    /// While nobody waits for it: a node whose pods are all on its own network may never have another.
    idle: Duration,
    /// While somebody waits.
    awaited: Duration,
}

const PAUSES: Pauses =
    Pauses { well: Duration::from_secs(30), idle: Duration::from_secs(10), awaited: Duration::from_secs(1) };

/// Asks the runtime for its status for ever and publishes changes.
pub async fn keep<R: Runtime>(
    runtime: Arc<R>,
    publish: watch::Sender<RuntimeStatus>,
    mut view: watch::Receiver<View>,
) {
    loop {
        let status = runtime.status().await.unwrap_or_else(|error| RuntimeStatus {
            runtime_problem: Some(error.to_string()),
            ..RuntimeStatus::default()
        });
        let well = status.runtime_problem.is_none() && status.network_problem.is_none();
        publish.send_if_modified(|known| {
            let changed = *known != status;
            if changed {
                report(&status);
                *known = status;
            }
            changed
        });
        if publish.is_closed() {
            return;
        }
        rest(PAUSES, well, &mut view).await;
    }
}

/// Waits for the first round of the loop after the pause, which comes within a minute; while somebody waits, for the
/// pause alone.
async fn rest(pauses: Pauses, well: bool, view: &mut watch::Receiver<View>) {
    let asked = Instant::now();
    loop {
        let awaited = is_awaited(&view.borrow_and_update());
        if awaited && !well {
            return tokio::time::sleep_until(asked + pauses.awaited).await;
        }
        // Without a view any more nobody waits, and nobody listens either.
        if view.changed().await.is_err() {
            return tokio::time::sleep(pauses.awaited).await;
        }
        if asked.elapsed() >= if well { pauses.well } else { pauses.idle } {
            return;
        }
    }
}

/// Whether a pod, or the loop itself, waits for the runtime to get well.
fn is_awaited(view: &View) -> bool {
    let mut waits = view.plan.waits.values().flatten();
    view.error.is_some()
        || waits.any(|w| matches!(w.because, WaitReason::RuntimeNotReady(_) | WaitReason::NetworkNotReady(_)))
}

fn report(status: &RuntimeStatus) {
    if let Some(problem) = &status.runtime_problem {
        tracing::warn!("the runtime is not ready: {problem}");
    }
    if let Some(problem) = &status.network_problem {
        tracing::warn!("pods with a network of their own must wait, host-network pods start: {problem}");
    }
}

#[cfg(test)]
mod tests {
    use podstead_fake::Fake;

    use super::*;
    use crate::plan::{Plan, Wait};

    fn ill() -> RuntimeStatus {
        RuntimeStatus { network_problem: Some("no configuration".into()), ..RuntimeStatus::default() }
    }

    fn waiting() -> View {
        let because = WaitReason::NetworkNotReady("no configuration".into());
        let wait = Wait { container: None, because, until: None };
        let plan = Plan { waits: [("u1".into(), vec![wait])].into(), ..Plan::default() };
        View { plan: Arc::new(plan), ..View::default() }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_asked_seldom_and_what_somebody_waits_for_often() {
        let (fake, view) = (Fake::new(), watch::Sender::new(View::default()));
        fake.set_status(ill());
        let (publish, mut seen) = watch::channel(RuntimeStatus::default());
        let keeper = tokio::spawn(keep(Arc::new(fake.clone()), publish, view.subscribe()));
        seen.wait_for(|s| *s == ill()).await.unwrap();
        fake.set_status(RuntimeStatus::default());
        tokio::time::sleep(PAUSES.awaited * 3).await;
        assert_eq!(*seen.borrow(), ill(), "not asked yet");
        view.send_replace(waiting());
        let begun = Instant::now();
        seen.wait_for(|s| *s != ill()).await.unwrap();
        assert!(begun.elapsed() < PAUSES.idle / 2, "asked as soon as somebody waits");
        keeper.abort();
    }

    #[tokio::test]
    async fn at_rest_it_is_asked_with_the_rounds_of_the_loop_only() {
        let view = watch::Sender::new(View::default());
        let mut rounds = view.subscribe();
        let ms = Duration::from_millis;
        for (well, pauses) in [
            (true, Pauses { well: ms(100), idle: ms(60_000), awaited: ms(60_000) }),
            (false, Pauses { well: ms(60_000), idle: ms(100), awaited: ms(60_000) }),
        ] {
            let begun = Instant::now();
            let mut resting = std::pin::pin!(rest(pauses, well, &mut rounds));
            assert!(tokio::time::timeout(ms(20), &mut resting).await.is_err());
            view.send_replace(View::default());
            assert!(
                tokio::time::timeout(ms(300), &mut resting).await.is_err(),
                "a round too early, then none"
            );
            view.send_replace(View::default());
            resting.await;
            assert!(begun.elapsed() < ms(10_000));
        }
    }
}
