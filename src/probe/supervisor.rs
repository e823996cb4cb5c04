//! Starts and ends the workers of instances, and keeps and publishes what they find. Touches `probes.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podstead_runtime::{ContainerId, Runtime, Time};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::target::{Input, Target};
use super::thresholds::Counter;
use super::verdict::{Kind, Verdict, Verdicts};
use super::worker::{Report, Worker};
use super::{Notes, memory};

/// What is known, and where it is kept. [`run`](Self::run) does the work.
#[derive(Debug)]
pub struct Supervisor {
    path: PathBuf,
    verdicts: watch::Sender<Arc<Verdicts>>,
    pub(super) agent_started: Time,
}

impl Supervisor {
    /// Reads what an earlier agent knew; the receiver begins with it, so that no instance looks unready because of a new
    /// agent. Verdicts of an instance are there from the first [`Input`] on that has it;
    /// [`Verdict::initial`](super::Verdict::initial) says what to think of one before.
    pub fn open(state_dir: &Path) -> (Self, watch::Receiver<Arc<Verdicts>>) {
        let path = memory::path(state_dir);
        let (verdicts, receiver) = watch::channel(Arc::new(memory::load(&path)));
        (Self { path, verdicts, agent_started: Time::now() }, receiver)
    }

    /// Probes what `input` says until its sender is gone; the value it was made with does not count. What changed is
    /// first written to disk and then published: nobody sees a verdict that a new agent would not know. Dropping the
    /// future ends all workers.
    pub async fn run<R: Runtime>(self, runtime: Arc<R>, mut input: watch::Receiver<Input>, notes: Notes) {
        let (sender, mut reports) = mpsc::unbounded_channel();
        let verdicts = Verdicts::clone(&self.verdicts.borrow());
        let mut state = State {
            spawner: Spawner { runtime, agent_started: self.agent_started, reports: sender, notes },
            entries: BTreeMap::new(),
            verdicts,
        };
        let mut complained = false;
        loop {
            tokio::select! {
                changed = input.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let input = input.borrow_and_update().clone();
                    state.take(input);
                }
                Some(report) = reports.recv() => state.hear(report),
            }
            while let Ok(report) = reports.try_recv() {
                state.hear(report);
            }
            if same(&self.verdicts.borrow(), &state.verdicts) {
                continue;
            }
            let verdicts = Arc::new(state.verdicts.clone());
            let (path, copy) = (self.path.clone(), Arc::clone(&verdicts));
            let saved = tokio::task::spawn_blocking(move || memory::save(&path, &copy)).await;
            if let Ok(Err(error)) = saved
                && !std::mem::replace(&mut complained, true)
            {
                tracing::warn!("cannot keep what probes found in {}: {error}", self.path.display());
            }
            self.verdicts.send_replace(verdicts);
        }
    }
}

/// Whether nothing follows from the difference: another message of the same failure is no news.
fn same(before: &Verdicts, now: &Verdicts) -> bool {
    let told = |v: &Verdict| (v.started, v.alive, v.ready, v.which);
    before.len() == now.len() && now.iter().all(|(id, v)| before.get(id).is_some_and(|b| told(b) == told(v)))
}

/// What runs.
struct State<R> {
    spawner: Spawner<R>,
    entries: BTreeMap<ContainerId, Entry>,
    verdicts: Verdicts,
}

/// An instance that is probed.
struct Entry {
    target: Arc<Target>,
    started: watch::Sender<bool>,
    workers: BTreeMap<Kind, Running>,
}

/// A worker that ends with its handle.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What workers are made with.
struct Spawner<R> {
    runtime: Arc<R>,
    agent_started: Time,
    reports: mpsc::UnboundedSender<Report>,
    notes: Notes,
}

impl<R: Runtime> State<R> {
    fn take(&mut self, input: Input) {
        self.entries.retain(|id, _| input.targets.iter().any(|t| t.id == *id));
        self.verdicts
            .retain(|id, _| input.keep.contains(id) || input.targets.iter().any(|target| target.id == *id));
        for target in input.targets {
            let initial = || Verdict::initial(&target.probes);
            let verdict = self.verdicts.entry(target.id.clone()).or_insert_with(initial);
            let entry = self.entries.entry(target.id.clone()).or_insert_with(|| Entry {
                target: Arc::new(target.clone()),
                started: watch::channel(verdict.started).0,
                workers: BTreeMap::new(),
            });
            self.spawner.update(entry, &Arc::new(target), verdict);
        }
    }

    fn hear(&mut self, report: Report) {
        // One whose instance went away in the same moment says nothing any more.
        let (Some(entry), Some(verdict)) = (self.entries.get(&report.id), self.verdicts.get_mut(&report.id))
        else {
            return;
        };
        verdict.set(&entry.target.probes, report.kind, report.failure);
        entry
            .started
            .send_if_modified(|started| std::mem::replace(started, verdict.started) != verdict.started);
    }
}

impl<R: Runtime> Spawner<R> {
    /// Ends the workers whose probe is gone or another, and starts those that are missing. A worker that has said all
    /// it can is not started again.
    fn update(&self, entry: &mut Entry, target: &Arc<Target>, verdict: &Verdict) {
        let old = std::mem::replace(&mut entry.target, Arc::clone(target));
        let moved = old.host != target.host || old.ports != target.ports;
        for kind in Kind::ALL {
            let probe = target.probes.get(kind);
            if moved || probe != old.probes.get(kind) {
                entry.workers.remove(&kind);
            }
            let Some(probe) = probe.filter(|_| !entry.workers.contains_key(&kind)) else { continue };
            let counter = Counter::new(kind, probe, verdict);
            if counter.over() {
                continue;
            }
            let worker = Worker {
                runtime: Arc::clone(&self.runtime),
                target: Arc::clone(target),
                kind,
                probe: probe.clone(),
                counter,
                started: entry.started.subscribe(),
                agent_started: self.agent_started,
                reports: self.reports.clone(),
                notes: Arc::clone(&self.notes),
            };
            entry.workers.insert(kind, Running(tokio::spawn(worker.run()).abort_handle()));
        }
    }
}
