//! One reading of what is: the runtime's snapshot and what the host keeps of pods. The only reader of the clock for the
//! decision.

use std::collections::BTreeMap;
use std::sync::Arc;

use podstead_runtime::{PodIdentity, PodUid, Runtime};

use crate::plan;
use crate::pod::{NodeFacts, files};

/// Reads the host first and the runtime second: a log file younger than the snapshot would look like a lost instance.
pub async fn observe<R: Runtime>(
    runtime: &R,
    node: &Arc<NodeFacts>,
    desired: &plan::Desired,
) -> Result<plan::Observed, podstead_runtime::Error> {
    let wanted: Vec<(PodIdentity, Vec<String>)> = desired
        .pods
        .values()
        .map(|pod| (pod.identity.clone(), pod.containers.iter().map(|c| c.name.clone()).collect()))
        .collect();
    let facts = Arc::clone(node);
    let host = tokio::task::spawn_blocking(move || read_host(&facts, &wanted));
    let (leftovers, attempt_floor) = match host.await {
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
    Ok(plan::Observed { snapshot, leftovers, attempt_floor })
}

type Host = (BTreeMap<PodUid, PodIdentity>, BTreeMap<(PodUid, String), u32>);

fn read_host(node: &NodeFacts, wanted: &[(PodIdentity, Vec<String>)]) -> std::io::Result<Host> {
    let leftovers = files::remains(node)?
        .into_iter()
        .map(|(uid, remains)| {
            let unknown = || PodIdentity { uid: uid.clone(), ..PodIdentity::default() };
            let pod = remains.map_or_else(unknown, |r| r.pod);
            (uid, pod)
        })
        .collect();
    let mut floor = BTreeMap::new();
    for (pod, containers) in wanted {
        for container in containers {
            if let Some(last) = files::last_logged_attempt(node, pod, container) {
                floor.insert((pod.uid.clone(), container.clone()), last + 1);
            }
        }
    }
    Ok((leftovers, floor))
}
