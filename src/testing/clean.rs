//! Takes everything of a test's node away, also after a panic, and names what is left. Touches only that node's things.

use std::fs;
use std::path::Path;
use std::time::Duration;

use podstead_runtime::{CgroupDriver, Error, Runtime};

use crate::backend::Backend;
use crate::config::{Config, RuntimeFlags};
use crate::node::cgroup::Cgroups;
use crate::node::systemd;
use crate::pod::{files, identity};

/// What the agent had begun may come to its end after the agent: the node must be seen empty this often in a row.
const QUIET: u32 = 4;
const PAUSE: Duration = Duration::from_millis(30);
/// Longer than any grace of a test: what hangs must not hang the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops and removes all of the node's pods. Runs on a thread with a runtime of its own: the test's may be the very one
/// that is being torn down.
pub fn all(flags: &RuntimeFlags, config: &Config) {
    let (flags, cgroup) = (flags.clone(), config.cgroup_root.clone());
    let slices = config.cgroup_driver == Some(CgroupDriver::Systemd);
    let pods = config.root_dir.join("pods");
    let worker = std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let _ =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, until_quiet(&flags, &cgroup)).await });
        if slices {
            let _ = systemd::stop(&identity::slice(&cgroup));
        }
        // Its volumes on tmpfs and the parts of volumes that containers had mounted.
        let _ = files::unmount_all(&pods);
    });
    let _ = worker.join();
}

async fn until_quiet(flags: &RuntimeFlags, cgroup: &str) {
    let (Ok(backend), Ok(cgroups)) = (Backend::open(flags).await, Cgroups::discover()) else { return };
    let mut quiet = 0;
    while quiet < QUIET {
        let pods = remove_pods(&backend).await;
        // Processes killed a moment ago may still be leaving their cgroups.
        let cgroup = cgroups.exists(cgroup) && (cgroups.remove(cgroup).is_err() || cgroups.exists(cgroup));
        quiet = if pods || cgroup { 0 } else { quiet + 1 };
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether there was anything, or may be.
async fn remove_pods(backend: &Backend) -> bool {
    let snapshot = match backend.observe().await {
        Ok(snapshot) => snapshot,
        // A server that is gone has nothing to clean and nothing to say.
        Err(Error::Unavailable { .. }) => return false,
        Err(_) => return true,
    };
    for container in &snapshot.containers {
        let _ = backend.remove_container(&container.id).await;
    }
    for sandbox in &snapshot.sandboxes {
        let _ = backend.stop_sandbox(&sandbox.id).await;
        let _ = backend.remove_sandbox(&sandbox.id).await;
    }
    !(snapshot.sandboxes.is_empty() && snapshot.containers.is_empty())
}

/// Pods' directories, log links, mounts, pinned namespaces and cgroups that are left.
pub fn on_disk(config: &Config) -> Vec<String> {
    let mut left = Vec::new();
    for dir in [config.root_dir.join("pods"), config.pod_logs_dir.clone(), config.container_logs_dir.clone()]
    {
        left.extend(names(&dir).map(|name| format!("{}/{name}", dir.display())));
    }
    let own = config.root_dir.parent().unwrap_or(Path::new("/nonexistent")).display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    left.extend(points.filter(|point| point.starts_with(&own)).map(|point| format!("mount {point}")));
    if let Ok(cgroups) = Cgroups::discover() {
        for level in ["", "/burstable", "/besteffort"] {
            let parent = format!("{}/kubepods{level}", config.cgroup_root);
            left.extend(cgroups.children(&parent).into_iter().filter(|c| c.contains("/pod")));
        }
    }
    left
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned())
}
