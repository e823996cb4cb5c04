//! What the agent knows of its manifests, in a file of its own for the command line: `<state-dir>/agent/manifests.json`.
//! Touches that file only.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::manifest::{Desired, FileReport, SourceReport, Waivers};
use crate::pod::files;

/// People read it: a storm of changes is written a few times a second only.
const PAUSE: Duration = Duration::from_millis(100);

/// Sources and files, each with what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifests {
    /// The node's name.
    pub node: String,
    /// Doubts about files that are waived.
    #[serde(default)]
    pub waived: Waivers,
    /// In the order of the command line.
    pub sources: Vec<SourceReport>,
    /// In the order of their names; last the URL's document.
    pub files: Vec<FileReport>,
}

impl Manifests {
    /// Of a table.
    pub fn of(node: &str, waived: Waivers, table: &Desired) -> Self {
        Self { node: node.to_owned(), waived, sources: table.sources.clone(), files: table.files.clone() }
    }
}

/// Where a running agent says it, and where the last one said it.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("agent").join("manifests.json")
}

/// What was said there; `None` when nothing was.
pub fn read(path: &Path) -> Option<Manifests> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Takes back what an earlier agent said.
pub fn take_back(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the file after every change, until the sources are gone.
pub async fn keep(
    mut manifests: watch::Receiver<Arc<Desired>>,
    node: String,
    waived: Waivers,
    path: PathBuf,
) {
    let mut last = None;
    while manifests.changed().await.is_ok() {
        let now = Manifests::of(&node, waived, &manifests.borrow_and_update());
        if last.as_ref() != Some(&now) {
            let (path, bytes) = (path.clone(), serde_json::to_vec(&now).unwrap_or_default());
            let write = tokio::task::spawn_blocking(move || files::write_atomically(&path, &bytes, 0o600));
            if let Ok(Err(error)) = write.await {
                tracing::warn!("cannot publish what became of the manifests: {error}");
            }
            last = Some(now);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
