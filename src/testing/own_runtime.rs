//! The threads of a node for tests, apart from those of the test.

use std::sync::Arc;

use super::PATIENCE;
use super::error::NodeError;
use crate::agent::Agent;
use crate::backend::Backend;

/// The threads of a node's agent and backend. Those of the test may be one that is just unwinding: with nobody to go on
/// with it, what the agent is making would be left half-made.
#[derive(Debug)]
pub(super) struct OwnRuntime(Option<tokio::runtime::Runtime>);

impl OwnRuntime {
    pub(super) fn new() -> Result<Self, NodeError> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(2).thread_name("podstead-node").enable_all().build();
        Ok(Self(Some(threads.map_err(|error| NodeError::Open(error.to_string()))?)))
    }

    pub(super) fn get(&self) -> &tokio::runtime::Runtime {
        // Invariant: only `end` takes it out, when the node is dropped.
        self.0.as_ref().unwrap_or_else(|| unreachable!("the node is being dropped"))
    }

    /// Ends the agent with patience for what it is just making, then everything else that goes on.
    pub(super) fn end(&mut self, agent: Option<Agent>, backend: Option<Arc<Backend>>) {
        let Some(own) = self.0.take() else { return };
        // A thread that runs tasks may not wait for others.
        let end = std::thread::spawn(move || {
            own.block_on(async {
                if let Some(agent) = agent {
                    agent.stop().await;
                }
                drop(backend);
            });
            own.shutdown_timeout(PATIENCE);
        });
        let _ = end.join();
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(own) = self.0.take() {
            own.shutdown_background();
        }
    }
}
