//! A pod's log directories (`kubelet-static-pods.md 2.9`). Makes them and reads names; what is written into them is the
//! runtime's.

use std::fs;

use podstead_runtime::PodIdentity;

use super::{FilesError, make_dir};
use crate::pod::{NodeFacts, identity};

/// Makes the directory of a container's logs; some runtimes want it to exist (`cri-servers.md`).
pub fn make_log_dir(node: &NodeFacts, pod: &PodIdentity, container: &str) -> Result<(), FilesError> {
    make_dir(&pod.uid, &identity::log_dir(node, pod).join(container), 0o755)
}

/// The highest attempt that a log file of the container tells of (`kubelet-static-pods.md 2.8`).
pub fn last_logged_attempt(node: &NodeFacts, pod: &PodIdentity, container: &str) -> Option<u32> {
    let entries = fs::read_dir(identity::log_dir(node, pod).join(container)).ok()?;
    let number = |name: &str| name.split_once(".log").and_then(|(n, _)| n.parse().ok());
    entries.flatten().filter_map(|e| number(e.file_name().to_str()?)).max()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{place, pod};
    use super::*;

    #[test]
    fn the_last_attempt_is_read_from_logs_rotated_ones_included() {
        let (_dir, node) = place();
        let id = identity::identity(&pod(vec![]));
        assert_eq!(last_logged_attempt(&node, &id, "c"), None);
        make_log_dir(&node, &id, "c").unwrap();
        let logs = identity::log_dir(&node, &id).join("c");
        for name in ["0.log", "2.log", "10.log.20260101-000000.gz", "x.log", "11.txt"] {
            fs::write(logs.join(name), "").unwrap();
        }
        assert_eq!(last_logged_attempt(&node, &id, "c"), Some(10));
    }
}
