//! The loop: woken -> observe -> plan -> execute. Why it was woken is dropped before the plan.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use podstead_runtime::{Hint, PodUid, Retry, Runtime, RuntimeStatus, SandboxState, Snapshot, Time};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::events::from_steps;
use crate::execute::{Context, Executor, Failed};
use crate::node::capacity::Amounts;
use crate::plan::{self, Action, JobId, Known, Observed, Plan};
use crate::probe::Verdicts;
use crate::{desired, observe};

/// Without any hint the world is read again after this long.
const RELIST: Duration = Duration::from_secs(60);
/// After a reading failed.
const RETRY: Duration = Duration::from_secs(1);
/// How many hints one round answers at most: a stream that never pauses must not keep the loop from its work.
const MANY: u32 = 1024;
/// How long a stopping agent waits for what is being made.
const FAREWELL: Duration = Duration::from_secs(5);

/// The pods that should run, with their manifests.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Manifests, defaulted and with an identity.
    pub pods: Vec<Arc<Pod>>,
    /// Whether every source was read at least once.
    pub complete: bool,
}

/// What the loop thinks after each round, for whoever wants to show it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What should be.
    pub wanted: Arc<Wanted>,
    /// The same, as planned with.
    pub desired: Arc<plan::Desired>,
    /// What is.
    pub observed: Arc<Observed>,
    /// What is done about it.
    pub plan: Arc<Plan>,
    /// Own memory.
    pub known: Arc<Known>,
    /// What the node has.
    pub capacity: Arc<Amounts>,
    /// When it was read.
    pub at: Time,
    /// Why the runtime could not be read; the rest is then of an earlier round.
    pub error: Option<String>,
}

struct Done {
    id: JobId,
    /// The manifest it was carried out with.
    pod: Option<Arc<Pod>>,
    outcome: Result<Option<String>, Failed>,
}

/// The loop's state between rounds.
struct Reconciler<R> {
    executor: Arc<Executor<R>>,
    jobs: plan::Jobs,
    running: HashMap<JobId, Running>,
    known: Known,
    messages: observe::Messages,
    /// The manifests of the last round.
    manifests: HashMap<PodUid, Arc<Pod>>,
    done: mpsc::UnboundedSender<Done>,
    view: watch::Sender<View>,
    complained: Option<String>,
}

/// A job in flight.
struct Running {
    handle: AbortHandle,
    /// Makes or starts something, which takes moments.
    brief: bool,
}

/// Runs until `stop` changes or its sender is gone. Containers go on. What is being made is waited for a moment, because
/// a CRI server breaks a start off with its caller; everything else in flight is dropped, which is as safe as a kill.
pub async fn run<R: Runtime>(
    executor: Arc<Executor<R>>,
    mut wanted: watch::Receiver<Arc<Wanted>>,
    mut status: watch::Receiver<RuntimeStatus>,
    mut verdicts: watch::Receiver<Arc<Verdicts>>,
    view: watch::Sender<View>,
    mut stop: watch::Receiver<bool>,
) {
    let mut hints = executor.runtime.hints();
    let (done, mut finished) = mpsc::unbounded_channel();
    let mut state = Reconciler {
        executor,
        jobs: plan::Jobs::default(),
        running: HashMap::new(),
        known: Known::default(),
        messages: observe::Messages::default(),
        manifests: HashMap::new(),
        done,
        view,
        complained: None,
    };
    loop {
        let now_wanted = Arc::clone(&wanted.borrow_and_update());
        state.take_status(&status.borrow_and_update().clone());
        let said = Arc::clone(&verdicts.borrow_and_update());
        let wake = state.round(now_wanted, &said).await;
        let sleep = tokio::time::sleep(wake.min(RELIST));
        let ended = tokio::select! {
            _ = stop.changed() => break,
            hint = hints.next() => hint.is_none(),
            changed = wanted.changed() => if changed.is_err() { break } else { false },
            changed = status.changed() => if changed.is_err() { break } else { false },
            changed = verdicts.changed() => if changed.is_err() { break } else { false },
            Some(done) = finished.recv() => { state.finish(done); false },
            () = sleep => false,
        };
        if ended || hints_ended(&mut hints) {
            tracing::warn!("the runtime's hints ended; going on with slow readings");
            hints = state.executor.runtime.hints();
            tokio::time::sleep(RETRY).await;
        }
        while let Ok(done) = finished.try_recv() {
            state.finish(done);
        }
    }
    state.running.retain(|_, job| {
        if !job.brief {
            job.handle.abort();
        }
        job.brief
    });
    let last = async {
        while !state.running.is_empty() {
            let Some(done) = finished.recv().await else { break };
            state.finish(done);
        }
    };
    // What is not done then is dropped with the state.
    let _ = tokio::time::timeout(FAREWELL, last).await;
}

/// Takes the hints that are there already: the next reading answers them all. Whether the stream is over.
fn hints_ended(hints: &mut (impl Stream<Item = Hint> + Unpin)) -> bool {
    for _ in 0..MANY {
        match hints.next().now_or_never() {
            Some(Some(_)) => {}
            Some(None) => return true,
            None => return false,
        }
    }
    false
}

/// An agent that is dropped leaves no job behind that goes on without it.
impl<R> Drop for Reconciler<R> {
    fn drop(&mut self) {
        for job in self.running.values() {
            job.handle.abort();
        }
    }
}

impl<R: Runtime> Reconciler<R> {
    fn take_status(&mut self, status: &RuntimeStatus) {
        self.known.runtime_problem.clone_from(&status.runtime_problem);
        self.known.network_problem.clone_from(&status.network_problem);
    }

    /// A `metadata.uid` of the manifest's own outlives an edit; the host's side that was made for the old text does not.
    fn take_manifests(&mut self, pods: &HashMap<PodUid, Arc<Pod>>) {
        for (uid, pod) in &self.manifests {
            if pods.get(uid).is_some_and(|now| now != pod) {
                self.known.prepared.remove(uid);
            }
        }
        self.manifests.clone_from(pods);
    }

    /// One round; answers how long the loop may sleep.
    async fn round(&mut self, wanted: Arc<Wanted>, verdicts: &Verdicts) -> Duration {
        let pods: HashMap<PodUid, Arc<Pod>> = wanted
            .pods
            .iter()
            .map(|pod| (PodUid(pod.metadata.uid.clone().unwrap_or_default()), Arc::clone(pod)))
            .collect();
        let node = &self.executor.node;
        let capacity = Arc::new(observe::capacity(node).await);
        let room = plan::Room(node.reserved.allocatable(&capacity));
        let table = desired::table(node, pods.values(), wanted.complete, room);
        self.take_manifests(&pods);
        let reading = self.jobs.observing();
        let mut observed =
            match observe::observe(&*self.executor.runtime, &self.executor.node, &table, verdicts).await {
                Ok(observed) => observed,
                Err(error) => return self.blind(&error, capacity),
            };
        if self.complained.take().is_some() {
            tracing::info!("the runtime answers again");
        }
        observed.messages = self.messages.read(&self.executor.node, &observed.snapshot).await;
        self.known.forget(&table, &observed);
        let now = Time::now();
        let plan = plan::plan(&table, &observed, &self.known, now);
        self.tell_of_refusals(&table, &plan);
        self.known.planned(&plan);
        let obsolete = self.jobs.obsolete(&plan);
        for id in &obsolete {
            if let Some(job) = self.running.remove(id) {
                job.handle.abort();
            }
            self.jobs.finish(*id);
        }
        for step in plan.steps.values().flatten() {
            if let Some(id) = self.jobs.admit(step, reading) {
                tracing::info!(pod = step.job.full_name, "{step}");
                self.known.begun(&step.action, &plan, now);
                let manifest = pods.get(&step.job.uid).map(Arc::as_ref);
                from_steps::begun(&self.executor.events, step, manifest, &observed);
                self.spawn(id, step.action.clone(), context(&pods, &observed.snapshot, &step.action));
            }
        }
        from_steps::round(&self.executor.events, &table, &observed, &plan);
        // What takes the place of a dropped job waits for a reading after it, and a dropped job wakes nobody.
        let again = (!obsolete.is_empty()).then_some(Duration::ZERO);
        let wake = again.unwrap_or_else(|| plan.wake_at.map_or(RELIST, |at| at.since(Time::now())));
        self.view.send_replace(View {
            wanted,
            desired: Arc::new(table),
            observed: Arc::new(observed),
            plan: Arc::new(plan),
            known: Arc::new(self.known.clone()),
            capacity,
            at: now,
            error: None,
        });
        wake
    }

    /// What the node does not take stands in the log once, and again with another reason.
    fn tell_of_refusals(&self, table: &plan::Desired, plan: &Plan) {
        for (uid, refusal) in &plan.refused {
            let before = self.known.refused.get(uid).map(|refusal| &refusal.reason);
            if before != Some(&refusal.reason) {
                let pod = table.pods.get(uid).map(|pod| pod.identity.full_name());
                tracing::warn!(pod, reason = refusal.reason, "{refusal}; it begins when this has passed");
            }
        }
    }

    fn blind(&mut self, error: &podstead_runtime::Error, capacity: Arc<Amounts>) -> Duration {
        let text = error.to_string();
        if self.complained.as_ref() != Some(&text) {
            tracing::error!("cannot read the runtime, everything stays as it is: {text}");
            self.complained = Some(text.clone());
        }
        self.view.send_modify(|view| (view.error, view.capacity) = (Some(text), capacity));
        if error.retry() == Retry::Never { RETRY * 10 } else { RETRY }
    }

    fn spawn(&mut self, id: JobId, action: Action, context: Context) {
        let (executor, done) = (Arc::clone(&self.executor), self.done.clone());
        let brief = matches!(
            action,
            Action::RunSandbox { .. } | Action::CreateContainer { .. } | Action::StartContainer { .. }
        );
        let job = tokio::spawn(async move {
            let outcome = AssertUnwindSafe(executor.execute(&action, &context)).catch_unwind().await;
            // A job that never ends would hold its pod up for ever.
            let outcome = outcome.unwrap_or_else(|panic| Err(Failed::panicked(&*panic)));
            let _ = done.send(Done { id, pod: context.pod, outcome });
        });
        self.running.insert(id, Running { handle: job.abort_handle(), brief });
    }

    fn finish(&mut self, done: Done) {
        self.running.remove(&done.id);
        // An obsolete job that ended in the same moment is not known any more.
        let Some(action) = self.jobs.finish(done.id) else { return };
        let failed = done.outcome.as_ref().err().map(|f| (f.reason, f.message.as_str()));
        from_steps::ended(&self.executor.events, &action, failed);
        match done.outcome {
            Ok(image) => {
                self.known.succeeded(&action, image);
                // Edited meanwhile: what was made is the old text's.
                let prepared = matches!(action, Action::PreparePod { .. });
                if prepared && self.manifests.get(action.uid()) != done.pod.as_ref() {
                    self.known.prepared.remove(action.uid());
                }
            }
            Err(failed) => {
                tracing::warn!(uid = %action.uid(), "could not {action}: {}", failed.message);
                self.known.failed(&action, failed.retry, failed.reason, &failed.message, Time::now());
            }
        }
    }
}

fn context(pods: &HashMap<PodUid, Arc<Pod>>, snapshot: &Snapshot, action: &Action) -> Context {
    let ready = snapshot
        .sandboxes
        .iter()
        .filter(|s| s.pod.uid == *action.uid() && s.state == SandboxState::Ready)
        .max_by_key(|s| s.attempt);
    Context {
        pod: pods.get(action.uid()).cloned(),
        sandbox_attempt: ready.map_or(0, |s| s.attempt),
        ips: ready.and_then(|s| s.ips.clone()).unwrap_or_else(Vec::<IpAddr>::new),
        container: action.instance().and_then(|id| snapshot.containers.iter().find(|c| c.id == *id)).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[test]
    fn all_hints_that_are_there_lead_to_one_reading() {
        let three = || stream::iter([Hint::Everything, Hint::Everything, Hint::Everything]);
        let mut hints = three().chain(stream::pending());
        assert!(!hints_ended(&mut hints));
        assert_eq!(hints.next().now_or_never(), None, "none is left");
        assert!(hints_ended(&mut three()), "the last of them is the end");
        assert!(!hints_ended(&mut stream::repeat(Hint::Everything)));
    }
}
