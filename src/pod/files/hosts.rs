//! The hosts file that all containers of a pod have mounted (`kubelet-static-pods.md 4.2`). Touches only that file.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use super::{FilesError, failed};
use crate::pod::{NodeFacts, hosts, identity};

/// Writes the pod's hosts file and returns its path; `None` for a pod with its own network and no address yet.
pub fn write_hosts(node: &NodeFacts, pod: &Pod, ips: &[IpAddr]) -> Result<Option<PathBuf>, FilesError> {
    let id = identity::identity(pod);
    let path = identity::pod_dir(node, &id.uid).join("etc-hosts");
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
    if !host_network && ips.is_empty() {
        return Ok(None);
    }
    let text = if host_network {
        hosts::host_network(pod, &fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        hosts::own(pod, &node.dns.domain, ips)
    };
    // In place, not by rename: running containers have this very inode mounted.
    // No more of it than what it should be: containers may write to it.
    let mut current = String::new();
    let room = u64::try_from(text.len()).unwrap_or(u64::MAX).saturating_add(1);
    if let Ok(file) = fs::File::open(&path) {
        let _ = file.take(room).read_to_string(&mut current);
    }
    if current != text {
        fs::write(&path, text).map_err(failed(&id.uid, "write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(failed(&id.uid, "chmod", &path))?;
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::prepare;
    use super::super::tests::{place, pod};
    use super::*;

    #[test]
    fn the_hosts_file_keeps_its_inode_and_waits_for_an_address() {
        let (_dir, node) = place();
        let pod = pod(vec![]);
        prepare(&node, &pod).unwrap();
        assert_eq!(write_hosts(&node, &pod, &[]).unwrap(), None);
        let path = write_hosts(&node, &pod, &["10.0.0.1".parse().unwrap()]).unwrap().unwrap();
        let first = fs::metadata(&path).unwrap();
        write_hosts(&node, &pod, &["10.0.0.2".parse().unwrap()]).unwrap();
        let second = fs::metadata(&path).unwrap();
        assert_eq!((first.ino(), second.mode() & 0o777), (second.ino(), 0o644));
        assert!(fs::read_to_string(&path).unwrap().ends_with("10.0.0.2\tweb-node\n"));
    }
}
