//! What an agent does once when it begins on this runtime: says what the node does not allow and what the pods it takes
//! over lack, and takes away what nobody can name any more because a power failure cut its record short.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use podstead_runtime::Result;
use rustix::thread::{CapabilitySet, capabilities};

use super::errors::blocking;
use super::records::{SandboxRecord, ids, is_owned};
use super::{Direct, Inner, pods};

/// Younger things may be in the making.
const SETTLED: Duration = Duration::from_secs(600);

impl Direct {
    /// To be run once, beside its work, by the process that keeps pods here; others need not. Takes some minutes.
    pub async fn begin(&self) {
        let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        if !held.contains(CapabilitySet::SYS_RESOURCE) {
            tracing::warn!(
                "no CAP_SYS_RESOURCE here: container shims cannot be protected when memory runs out, and no container \
                 gets a lower oom score than the agent's"
            );
        }
        self.0.check_networks().await;
        // Twice: what was cut short moments before a quick reboot is still young at first.
        for wait in [Duration::ZERO, SETTLED + Duration::from_secs(60)] {
            tokio::time::sleep(wait).await;
            if let Err(error) = Inner::sweep(&self.0).await {
                tracing::warn!(%error, "what a power failure left is not all taken away; it is tried again later");
            }
        }
    }
}

impl Inner {
    /// Says which of the pods that are taken over no longer have the network that plugins made for them. That alone is no
    /// reason to end a pod.
    async fn check_networks(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        let found = blocking("look for pods with a network", move || inner.sandboxes()).await;
        let own = |record: &SandboxRecord| {
            is_owned(&record.spec.labels, &self.options.owner)
                && record.takes_containers()
                && !pods::is_host_network(&record.spec)
                && pods::is_up(&self.layout, &record.id, &record.spec)
        };
        for (record, _) in found.into_iter().flatten().filter(|(record, whole)| *whole && own(record)) {
            if let Err(error) = self.network.check(&record.id).await {
                let pod = record.spec.pod.full_name();
                tracing::warn!(pod, sandbox = record.id, %error, "the pod's network is not as it was made");
            }
        }
    }

    async fn sweep(this: &Arc<Self>) -> Result<()> {
        let doing = "take away what has no record";
        let inner = Arc::clone(this);
        let (sandboxes, containers) = blocking(doing, move || inner.nameless()).await?;
        for id in containers {
            tracing::warn!(id, "a container without a record is removed");
            this.unmake_container(doing, &id).await?;
        }
        for id in sandboxes {
            tracing::warn!(id, "a sandbox without a record is removed");
            this.unmake_sandbox(doing, &id).await?;
        }
        let attached =
            this.network.attached().await.map_err(|e| podstead_runtime::Error::failed(doing, e))?;
        for id in attached.into_iter().filter(|id| !this.layout.sandbox(id).exists()) {
            this.network.del(&id).await.map_err(|e| podstead_runtime::Error::failed(doing, e))?;
        }
        Ok(())
    }

    /// Directories of sandboxes and containers that say nothing about themselves.
    fn nameless(&self) -> io::Result<(Vec<String>, Vec<String>)> {
        let (mut sandboxes, mut containers) = (Vec::new(), Vec::new());
        for id in ids(&self.layout.sandboxes())? {
            if self.sandbox(&id)?.is_none() && is_settled(&self.layout.sandbox(&id)) {
                sandboxes.push(id);
            }
        }
        for id in ids(&self.layout.containers())? {
            if self.any_container(&id)?.is_none() && is_settled(&self.layout.container(&id)) {
                containers.push(id);
            }
        }
        Ok((sandboxes, containers))
    }
}

fn is_settled(dir: &Path) -> bool {
    let modified = fs::metadata(dir).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > SETTLED))
}
