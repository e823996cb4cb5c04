//! Probes: whether containers have started, live and are ready (`kubelet-static-pods.md 3`).
//!
//! The agent itself makes them: `http`, `tcp`, `grpc` connect to the pod's address, `exec` goes through the runtime.
//! `thresholds` and `verdict` are pure and say what follows from the results; `worker` makes one probe of one instance
//! over and over; `supervisor` starts and ends workers and publishes [`Verdicts`]; `memory` keeps these across restarts of
//! the agent, in `<state-dir>/agent/probes.json`. Nothing here decides what becomes of a container.

mod check;
pub mod dial;
mod exec;
mod grpc;
pub mod http;
mod memory;
mod supervisor;
pub mod target;
mod tcp;
pub mod thresholds;
mod tls;
pub mod verdict;
mod worker;

#[cfg(test)]
mod checks_tests;
#[cfg(test)]
mod supervisor_tests;

use std::sync::Arc;

use podstead_runtime::PodUid;

pub use supervisor::Supervisor;
pub use target::{Input, Target};
pub use verdict::{Kind, Probes, Verdict, Verdicts};

/// How a probe that did not simply pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It passed with a warning.
    Warned,
    /// It failed.
    Failed,
    /// It could not be made.
    Errored,
}

/// A probe that did not simply pass, for the pod's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Pod.
    pub pod: PodUid,
    /// `namespace/name`.
    pub pod_name: String,
    /// Container.
    pub container: String,
    /// Which probe.
    pub kind: Kind,
    /// How it ended.
    pub trouble: Trouble,
    /// In the kubelet's words (`Readiness probe failed: HTTP probe failed with statuscode: 503`).
    pub message: String,
}

/// Takes notes; called from within tasks, so it may not wait.
pub type Notes = Arc<dyn Fn(&Note) + Send + Sync>;
