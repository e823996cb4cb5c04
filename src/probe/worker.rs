//! One probe of one instance, made over and over. Sleeps until its next time; ends when its result can change no more.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use podstead_runtime::{ContainerId, Runtime, Time};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::check::{self, Answer};
use super::target::Target;
use super::thresholds::{self, Counter};
use super::verdict::Kind;
use super::{Note, Notes, Trouble};

/// A probe has reached a threshold.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) id: ContainerId,
    pub(super) kind: Kind,
    /// `None` when it passed.
    pub(super) failure: Option<String>,
}

/// A worker before it runs.
pub(super) struct Worker<R> {
    pub(super) runtime: Arc<R>,
    pub(super) target: Arc<Target>,
    pub(super) kind: Kind,
    pub(super) probe: Probe,
    pub(super) counter: Counter,
    /// Whether the startup probe has passed; holds the other kinds back.
    pub(super) started: watch::Receiver<bool>,
    pub(super) agent_started: Time,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) notes: Notes,
}

/// Anything from 0 to 1. `RandomState` has keys of its own each time.
fn chance() -> f64 {
    f64::from(u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

impl<R: Runtime> Worker<R> {
    pub(super) async fn run(mut self) {
        let age = Time::now().since(self.agent_started);
        let earliest = Instant::now() + thresholds::jitter(&self.probe, age, chance());
        if self.kind != Kind::Startup && self.started.wait_for(|started| *started).await.is_err() {
            return;
        }
        let rest = thresholds::initial_delay(&self.probe, self.target.started_at, Time::now());
        tokio::time::sleep_until(earliest.max(Instant::now() + rest)).await;
        let mut said = None;
        while !self.counter.over() {
            let begun = Instant::now();
            if let Some(failure) = self.once().await
                && said.as_ref() != Some(&failure)
            {
                let report = Report { id: self.target.id.clone(), kind: self.kind, failure: failure.clone() };
                if self.reports.send(report).is_err() {
                    return;
                }
                said = Some(failure);
            }
            self.rest(begun.elapsed()).await;
        }
    }

    async fn rest(&self, took: Duration) {
        if !self.counter.over() {
            tokio::time::sleep(thresholds::pause(&self.probe, took)).await;
        }
    }

    /// One probe. Answers when it reached a threshold: its failure, or `Some(None)` when it passed.
    async fn once(&mut self) -> Option<Option<String>> {
        let answer = check::check(&*self.runtime, &self.target, &self.probe).await;
        let kind = self.kind;
        let (passed, message) = match answer {
            Answer::Success => (Some(true), None),
            Answer::Warning(text) => {
                (Some(true), Some((Trouble::Warned, format!("{kind} probe warning: {text}"))))
            }
            Answer::Failure(text) => {
                (Some(false), Some((Trouble::Failed, format!("{kind} probe failed: {text}"))))
            }
            Answer::Error(text) => (
                None,
                Some((
                    Trouble::Errored,
                    format!("{kind} probe errored and resulted in unknown state: {text}"),
                )),
            ),
        };
        if let Some((trouble, message)) = &message {
            self.note(*trouble, message);
        }
        let passed = self.counter.count(passed?)?;
        Some(message.filter(|_| !passed).map(|(_, text)| text))
    }

    fn note(&self, trouble: Trouble, message: &str) {
        let target = &self.target;
        tracing::debug!(pod = target.pod_name, container = target.container, "{message}");
        (self.notes)(&Note {
            pod: target.pod.clone(),
            pod_name: target.pod_name.clone(),
            container: target.container.clone(),
            kind: self.kind,
            trouble,
            message: message.to_owned(),
        });
    }
}
