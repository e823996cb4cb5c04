//! Faults on demand.

use std::time::Duration;

use podstead_runtime::Error;

/// A verb of the runtime, to say which call a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the trait's method of the same name")]
pub enum Verb {
    Status,
    Observe,
    RunSandbox,
    StopSandbox,
    RemoveSandbox,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    UpdateResources,
    PullImage,
    Image,
    Exec,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    Before(Error),
    /// It has its effect, and the answer is lost: an error comes back.
    After(Error),
    /// It takes this long, then goes on.
    Slow(Duration),
    /// It panics.
    Panic,
}
