//! What the agent knows, in a file of its own for the command line: `<state-dir>/agent/pods.json`. Touches that file only.

mod room;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use podstead_runtime::Runtime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::pod::files;
use crate::reconcile::View;
use crate::{conditions, report};

pub use room::{NodeRoom, Source};

/// People read it: a storm of changes is written a few times a second only.
const PAUSE: Duration = Duration::from_millis(100);

/// What a running agent tells the command line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Published {
    /// The node's name.
    pub node: String,
    /// What it is and has.
    #[serde(default)]
    pub room: NodeRoom,
    /// Pods with their status.
    pub pods: Vec<Pod>,
    /// Why the runtime could not be read at the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where a running agent says what it knows.
pub fn published_path(state_dir: &Path) -> PathBuf {
    state_dir.join("agent").join("pods.json")
}

/// The conditions of pods by uid, with their times.
pub type Conditions = BTreeMap<String, Vec<PodCondition>>;

/// Takes back what an earlier agent published, which is no longer so; of it only the conditions' times go on.
pub fn take_back(state_dir: &Path) -> io::Result<Conditions> {
    let path = published_path(state_dir);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Conditions::new()),
        text => text?,
    };
    std::fs::remove_file(&path)?;
    let before: Published = serde_json::from_slice(&text).unwrap_or_default();
    Ok(all_conditions(&before.pods))
}

fn all_conditions(pods: &[Pod]) -> Conditions {
    let of = |pod: &Pod| Some((pod.metadata.uid.clone()?, pod.status.as_ref()?.conditions.clone()?));
    pods.iter().filter_map(of).collect()
}

fn dated(pods: &mut [Pod], before: &Conditions) {
    let now = ApiTime(Timestamp::now());
    for pod in pods {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let conditions = pod.status.as_mut().and_then(|status| status.conditions.as_mut());
        let before = before.get(&uid).map_or(&[][..], Vec::as_slice);
        conditions::date(conditions.map_or(&mut [][..], Vec::as_mut_slice), before, &now);
    }
}

/// Writes the file after every change, until the loop is gone.
pub async fn keep<R: Runtime>(
    runtime: Arc<R>,
    mut node: report::Node,
    source: Source,
    path: PathBuf,
    mut view: watch::Receiver<View>,
    mut conditions: Conditions,
) {
    let mut last = Vec::new();
    while view.changed().await.is_ok() {
        if node.runtime.is_empty() {
            node.runtime = runtime.version().await.map(|v| v.name).unwrap_or_default();
        }
        let now = view.borrow_and_update().clone();
        let mut pods = report::pods(&now, &node);
        dated(&mut pods, &conditions);
        conditions = all_conditions(&pods);
        let room = source.look(&now.capacity, &now.plan);
        let published = Published { node: node.name.clone(), room, pods, error: now.error };
        let bytes = serde_json::to_vec(&published).unwrap_or_default();
        if bytes != last {
            let (path, copy) = (path.clone(), bytes.clone());
            let write = tokio::task::spawn_blocking(move || files::write_atomically(&path, &copy, 0o600));
            if let Ok(Err(error)) = write.await {
                tracing::warn!("cannot publish the pods' status: {error}");
            }
            last = bytes;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
