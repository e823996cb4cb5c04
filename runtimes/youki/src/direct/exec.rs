//! Commands in running containers.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use podstead_runtime::{ContainerId, ContainerState, Error, ExecOutput, ExecSpec, ExecStreams, Result};
use tokio::io::AsyncWrite;

use super::Inner;
use super::errors::{self, of};
use super::removal::missing;
use crate::launch::Streams;

/// As much of each stream as is kept of a short command.
const KEPT: usize = 16 << 20;

impl Inner {
    pub(super) async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: ExecStreams) -> Result<i32> {
        let doing = of("exec in", id);
        let record = self.our_container(&doing, id)?.ok_or_else(|| missing(&doing, id))?;
        let (state, _) = self.state(&record).map_err(|e| Error::failed(&doing, e))?;
        if !matches!(state, ContainerState::Running { .. }) {
            return Err(Error::State { doing, cause: "the container is not running".into() });
        }
        let run_dir = self.layout.run(&id.0);
        let ran = self.launcher.exec(&id.0, &run_dir, &spec.command, spec.tty, Streams::from(streams));
        ran.await.map_err(|error| errors::launch(doing, &error))
    }

    pub(super) async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        let streams = ExecStreams {
            stdin: None,
            stdout: Some(Box::new(stdout.clone())),
            stderr: Some(Box::new(stderr.clone())),
            resize: None,
        };
        let spec = ExecSpec { command: command.to_vec(), tty: false };
        let run = self.exec(id, &spec, streams);
        let code = if timeout.is_zero() {
            run.await?
        } else {
            match tokio::time::timeout(timeout, run).await {
                Ok(code) => code?,
                Err(_) => {
                    return Err(Error::Deadline {
                        doing: of("exec in", id),
                        seconds: timeout.as_secs().max(1),
                    });
                }
            }
        };
        Ok(ExecOutput { code, stdout: stdout.take(), stderr: stderr.take() })
    }
}

/// Keeps the beginning of what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
