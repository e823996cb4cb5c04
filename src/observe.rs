//! One reading of what is: the runtime's snapshot and what the host keeps of pods. The only reader of the clock for the
//! decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use podstead_runtime::{Container, ContainerId, PodIdentity, Runtime, Snapshot};

use crate::node::capacity::Amounts;
use crate::plan;
use crate::pod::{NodeFacts, files, resources};
use crate::probe::{Verdict, Verdicts};

/// Reads the host first and the runtime second: a log file younger than the snapshot would look like a lost instance.
pub async fn observe<R: Runtime>(
    runtime: &R,
    node: &Arc<NodeFacts>,
    desired: &plan::Desired,
    verdicts: &Verdicts,
) -> Result<plan::Observed, podstead_runtime::Error> {
    let wanted: Vec<Wanted> = desired.pods.values().map(wanted).collect();
    let facts = Arc::clone(node);
    let host = tokio::task::spawn_blocking(move || read_host(&facts, &wanted));
    let host = match host.await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            let path = node.root_dir.join("pods");
            return Err(podstead_runtime::Error::failed(
                format!("list the pods' directories in {}", path.display()),
                error,
            ));
        }
        Err(error) => return Err(podstead_runtime::Error::failed("read the host", error)),
    };
    let snapshot = runtime.observe().await?;
    Ok(plan::Observed { snapshot, probed: probed(verdicts), ..host })
}

/// What the node has, as it is now.
pub async fn capacity(node: &Arc<NodeFacts>) -> Amounts {
    let node = Arc::clone(node);
    let read = move || node.reserved.capacity(&node.root_dir);
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// What the decision is told of verdicts.
fn probed(verdicts: &Verdicts) -> BTreeMap<ContainerId, plan::Probed> {
    let of = |v: &Verdict| plan::Probed { started: v.started, alive: v.alive, ready: v.ready };
    verdicts.iter().map(|(id, verdict)| (id.clone(), of(verdict))).collect()
}

/// Termination messages of instances that are over (`kubelet-static-pods.md 2.10`); each is read once.
#[derive(Debug, Default)]
pub struct Messages(BTreeMap<ContainerId, String>);

impl Messages {
    /// Those of everything in the snapshot that is over.
    pub async fn read(
        &mut self,
        node: &Arc<NodeFacts>,
        snapshot: &Snapshot,
    ) -> BTreeMap<ContainerId, String> {
        self.0.retain(|id, _| snapshot.containers.iter().any(|c| c.id == *id));
        let new = |c: &&Container| c.state.exit_code().is_some() && !self.0.contains_key(&c.id);
        let new: Vec<Container> = snapshot.containers.iter().filter(new).cloned().collect();
        if !new.is_empty() {
            let mut names: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
            for container in &snapshot.containers {
                names.entry(container.pod_uid()).or_default().insert(container.name.clone());
            }
            let node = Arc::clone(node);
            let read = tokio::task::spawn_blocking(move || {
                let of = |c: &Container| names.get(&c.pod_uid()).map_or(1, BTreeSet::len);
                let message =
                    |c: &Container| files::read_message(&node, c, c.state.exit_code().unwrap_or(0), of(c));
                new.iter().map(|c| (c.id.clone(), message(c))).collect::<Vec<_>>()
            });
            self.0.extend(read.await.unwrap_or_default());
        }
        self.0
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(id, text)| (id.clone(), text.clone()))
            .collect()
    }
}

/// What is looked for of a pod that is wanted.
struct Wanted {
    pod: PodIdentity,
    containers: Vec<String>,
    hooks: bool,
}

fn wanted(pod: &plan::Pod) -> Wanted {
    Wanted {
        pod: pod.identity.clone(),
        containers: pod.all().map(|c| c.name.clone()).collect(),
        hooks: pod.all().any(|c| c.post_start),
    }
}

/// Everything but what the runtime tells.
fn read_host(node: &NodeFacts, wanted: &[Wanted]) -> std::io::Result<plan::Observed> {
    let mut host = plan::Observed::default();
    for (uid, remains) in files::remains(node)? {
        let unknown = || PodIdentity { uid: uid.clone(), ..PodIdentity::default() };
        if let Some(since) = remains.as_ref().and_then(|r| r.since.known()) {
            host.since.insert(uid.clone(), since);
        }
        if let Some(class) = remains.as_ref().and_then(|r| resources::class_of(&r.cgroup)) {
            host.classes.insert(uid.clone(), class.as_str().to_owned());
        }
        host.leftovers.insert(uid.clone(), remains.map_or_else(unknown, |r| r.pod));
    }
    for Wanted { pod, containers, hooks } in wanted {
        for container in containers {
            if let Some(last) = files::last_logged_attempt(node, pod, container) {
                host.attempt_floor.insert((pod.uid.clone(), container.clone()), last + 1);
            }
        }
        let sizes = files::sizes(node, &pod.uid);
        if sizes != plan::Sizes::default() {
            host.sizes.insert(pod.uid.clone(), sizes);
        }
        if *hooks {
            host.hooked.extend(files::hooks_over(node, &pod.uid));
        }
    }
    Ok(host)
}
