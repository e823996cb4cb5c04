//! Which steps may run beside which, and which came from a reading that is too old. Shared by the agent's executor and
//! the simulation, so that the rule that is proven is the rule that runs. Bookkeeping only.

use std::collections::BTreeMap;

use podstead_runtime::PodUid;

use super::action::{Action, Plan, Step, Wait};
use super::mutant::{Mutant, planted};
use super::reason::WaitReason;

/// What a job works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// Pod.
    pub uid: PodUid,
    /// `namespace/name`; empty when not known.
    pub full_name: String,
    /// The whole pod or one container.
    pub scope: Scope,
}

/// How much of a pod a job works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// All of it.
    Pod,
    /// One container.
    Container(String),
}

impl JobKey {
    /// Whether the two must not run at the same time: jobs of different containers of one pod may, jobs of different
    /// pods may unless the pods have the same name.
    pub fn conflicts(&self, other: &Self) -> bool {
        if self.uid != other.uid {
            return !self.full_name.is_empty() && self.full_name == other.full_name;
        }
        match (&self.scope, &other.scope) {
            (Scope::Container(a), Scope::Container(b)) => a == b,
            _ => true,
        }
    }
}

/// Names a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(u64);

/// When a reading began, in the order of events that [`Jobs`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading(u64);

/// The jobs of this agent: running, and finished since the current reading began.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    clock: u64,
    reading: u64,
    running: BTreeMap<JobId, (JobKey, Action)>,
    finished: Vec<JobKey>,
}

impl Jobs {
    /// To be called just before a reading ([`Observed`](super::Observed)) begins. One reading at a time: steps of an
    /// earlier one are not admitted any more.
    pub fn observing(&mut self) -> Reading {
        self.clock += 1;
        self.reading = self.clock;
        self.finished.clear();
        Reading(self.reading)
    }

    /// Takes a step planned from `reading` as a running job, or `None`: something conflicting runs, or finished after
    /// the reading began, so that the reading may not show its effect. The step is planned again from the next reading.
    pub fn admit(&mut self, step: &Step, reading: Reading) -> Option<JobId> {
        let busy = self.running.values().any(|(key, _)| key.conflicts(&step.job));
        let outdated = reading.0 != self.reading || self.finished.iter().any(|key| key.conflicts(&step.job));
        if (busy && !planted(Mutant::AdmitBusy)) || (outdated && !planted(Mutant::AdmitOutdated)) {
            return None;
        }
        self.clock += 1;
        let id = JobId(self.clock);
        self.running.insert(id, (step.job.clone(), step.action.clone()));
        Some(id)
    }

    /// A job ended, in whatever way. Look again after it.
    pub fn finish(&mut self, id: JobId) -> Option<Action> {
        let (key, action) = self.running.remove(&id)?;
        self.finished.push(key);
        Some(action)
    }

    /// Jobs that nobody wants any more and that may be dropped halfway: images for pods or attempts not planned now, and
    /// postStart hooks, which may take for ever.
    pub fn obsolete(&self, plan: &Plan) -> Vec<JobId> {
        let held_up = |action: &Action| {
            let container = action.scope();
            let waits = plan.waits.get(action.uid()).into_iter().flatten();
            let later =
                |wait: &Wait| matches!(wait.because, WaitReason::Hook(_) | WaitReason::RuntimeNotReady(_));
            let mine = |wait: &Wait| {
                wait.container.as_ref().is_none_or(|name| container == Scope::Container(name.clone()))
            };
            matches!(action, Action::EnsureImage { .. }) && waits.into_iter().any(|w| later(w) && mine(w))
        };
        let unwanted = |action: &Action| {
            matches!(action, Action::EnsureImage { .. } | Action::PostStart { .. })
                && !held_up(action)
                && !plan
                    .steps
                    .get(action.uid())
                    .is_some_and(|steps| steps.iter().any(|s| s.action == *action))
        };
        self.running.iter().filter(|(_, (_, action))| unwanted(action)).map(|(id, _)| *id).collect()
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}
