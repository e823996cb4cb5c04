//! Lifecycle hooks of containers (`kubelet-static-pods.md 2.11`): a command in the container, an HTTP request to it, or a
//! pause. Effects only; when a hook is due is decided elsewhere.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use podstead_runtime::{ContainerId, Runtime};

/// What a hook is carried out on.
#[derive(Clone, Debug)]
pub struct Target {
    /// The instance.
    pub id: ContainerId,
}

/// Carries out a hook; the error says what it was and what happened.
pub async fn run<R: Runtime>(runtime: &R, hook: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        // No time-out of its own: whoever waits gives it up.
        return match runtime.exec_sync(&target.id, &command, Duration::ZERO).await {
            Ok(output) if output.code == 0 => Ok(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(if output.stderr.is_empty() {
                    &output.stdout
                } else {
                    &output.stderr
                });
                let text: String = text.trim().chars().take(1024).collect();
                Err(format!("command '{shown}' exited with {}: {text}", output.code))
            }
            Err(error) => Err(format!("command '{shown}': {error}")),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("this version knows hooks of exec and sleep".to_owned())
}
