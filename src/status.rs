//! Watches the runtime's health for the loop: often while something is wrong, seldom when all is well.

use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{Runtime, RuntimeStatus};
use tokio::sync::watch;

const WELL: Duration = Duration::from_secs(30);
const UNWELL: Duration = Duration::from_secs(1);

/// Asks the runtime for its status for ever and publishes changes.
pub async fn keep<R: Runtime>(runtime: Arc<R>, publish: watch::Sender<RuntimeStatus>) {
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
        tokio::time::sleep(if well { WELL } else { UNWELL }).await;
    }
}

fn report(status: &RuntimeStatus) {
    if let Some(problem) = &status.runtime_problem {
        tracing::warn!("the runtime is not ready: {problem}");
    }
    if let Some(problem) = &status.network_problem {
        tracing::warn!("pods with a network of their own must wait, host-network pods start: {problem}");
    }
}
