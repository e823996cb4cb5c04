//! The `exec` probe and hook: a command in the container, through the runtime.

use std::time::Duration;

use podstead_runtime::{ContainerId, Error, Runtime};

use super::check::{Answer, MAX_TEXT};

/// Runs the command; exit code 0 is a success, a command that takes too long a failure.
pub(super) async fn check<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Answer {
    match runtime.exec_sync(id, command, timeout).await {
        Ok(output) if output.code == 0 => Answer::Success,
        Ok(output) => {
            let mut bytes = output.stdout;
            bytes.extend(output.stderr);
            bytes.truncate(MAX_TEXT);
            Answer::Failure(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(Error::Deadline { .. }) => Answer::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(error) => Answer::Error(error.to_string()),
    }
}
