//! The text of a pod's `/etc/hosts` (`kubelet-static-pods.md 4.2`). Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::hostname;

const HEADER: &str = "# Kubernetes-managed hosts file.\n\
                      127.0.0.1\tlocalhost\n\
                      ::1\tlocalhost ip6-localhost ip6-loopback\n\
                      fe00::0\tip6-localnet\n\
                      fe00::0\tip6-mcastprefix\n\
                      fe00::1\tip6-allnodes\n\
                      fe00::2\tip6-allrouters\n";
const HOST_NETWORK_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";

/// For a pod with a network of its own: one line for each of its addresses, then its `hostAliases`.
pub fn own(pod: &Pod, cluster_domain: &str, ips: &[IpAddr]) -> String {
    let mut text = String::from(HEADER);
    let (name, domain) = (hostname::short(pod), hostname::domain(pod, cluster_domain));
    for ip in ips {
        // Writing to memory does not fail.
        let _ = match domain.as_str() {
            "" => writeln!(text, "{ip}\t{name}"),
            domain => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
        };
    }
    text + &aliases(pod)
}

/// For a pod on the node's network: the node's own file, then the pod's `hostAliases`.
pub fn host_network(pod: &Pod, nodes_own: &str) -> String {
    format!("{HOST_NETWORK_HEADER}{nodes_own}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let all: &[HostAlias] = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if all.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in all {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        let _ = writeln!(text, "{}\t{}", alias.ip, names.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let mut pod: Pod = serde_yaml::from_str(&format!("spec: {{containers: [], {spec}}}")).unwrap();
        pod.metadata.name = Some("web-node".into());
        pod.metadata.namespace = Some("ns".into());
        pod
    }

    const TOP: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                       fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

    #[test]
    fn the_hosts_file_is_the_kubelets() {
        let ips = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(
            own(&pod(""), "kube.local", &ips),
            format!("{TOP}10.0.0.7\tweb-node\nfd00::7\tweb-node\n")
        );
        let with = pod("hostname: db, subdomain: sub, setHostnameAsFQDN: true");
        let whole = "10.0.0.7\tdb.sub.ns.svc.kube.local\tdb\nfd00::7\tdb.sub.ns.svc.kube.local\tdb\n";
        assert_eq!(own(&with, "kube.local", &ips), format!("{TOP}{whole}"));
    }

    #[test]
    fn aliases_come_last_one_line_for_each_address() {
        let spec = "hostAliases: [{ip: 192.0.2.1, hostnames: [a.example, a]}, {ip: \"::2\"}, {ip: 192.0.2.1, hostnames: [b]}]";
        let lines = "\n# Entries added by HostAliases.\n192.0.2.1\ta.example\ta\n::2\t\n192.0.2.1\tb\n";
        let ips = ["10.0.0.7".parse().unwrap()];
        assert_eq!(own(&pod(spec), "", &ips), format!("{TOP}10.0.0.7\tweb-node\n{lines}"));
        let nodes_own = "127.0.0.1 localhost\n";
        let header = "# Kubernetes-managed hosts file (host network).\n";
        assert_eq!(host_network(&pod(spec), nodes_own), format!("{header}{nodes_own}{lines}"));
        assert_eq!(host_network(&pod(""), nodes_own), format!("{header}{nodes_own}"));
    }
}
