//! Failures of the rooms below in the contract's words.

use std::io;

use podstead_runtime::{ContainerId, Error, Result, SandboxId};

use crate::image::{self, ErrorKind};
use crate::launch::LaunchError;

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: impl Into<String>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| Error::failed(doing, error))
}

/// Names a container in what was being done.
pub(crate) fn of(verb: &str, id: &ContainerId) -> String {
    format!("{verb} container {}", short(&id.0))
}

/// Names a sandbox in what was being done.
pub(crate) fn of_sandbox(verb: &str, id: &SandboxId) -> String {
    format!("{verb} sandbox {}", short(&id.0))
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

/// A shim's failure.
pub(crate) fn launch(doing: impl Into<String>, error: &LaunchError) -> Error {
    let doing = doing.into();
    match error {
        LaunchError::Silent(after) => Error::Deadline { doing, seconds: after.as_secs() },
        LaunchError::Gone => Error::State { doing, cause: error.to_string() },
        _ => Error::failed(doing, error),
    }
}

/// The image store's failure.
pub(crate) fn image(doing: impl Into<String>, error: &image::Error) -> Error {
    let doing = doing.into();
    let cause = error.to_string();
    match error.kind() {
        ErrorKind::InvalidName => Error::Invalid { doing, cause },
        ErrorKind::NotFound => match error {
            image::Error::NotFound { what, place } if place.contains("local store") => {
                Error::NotFound { doing, what: what.clone() }
            }
            image::Error::NotFound { what, place } => Error::not_found(doing, format!("{what} {place}")),
            _ => Error::failed(doing, cause),
        },
        ErrorKind::Denied => Error::Denied { doing, cause },
        ErrorKind::InUse => Error::State { doing, cause },
        _ => Error::Failed { doing, cause },
    }
}
