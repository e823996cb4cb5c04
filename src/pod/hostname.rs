//! A pod's host name and domain (`kubelet-static-pods.md 4.2`). Pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use thiserror::Error;

/// What the kernel keeps of a host name.
const KERNEL_MAX: usize = 64;

/// The pod's fully qualified name does not fit the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "setHostnameAsFQDN: {fqdn} has {} characters and a host name at most {KERNEL_MAX}: shorten the pod's hostname or \
     subdomain, or --cluster-domain",
    .fqdn.len()
)]
pub struct FqdnTooLong {
    /// The name.
    pub fqdn: String,
}

/// The pod's host name: `hostnameOverride`, else `hostname`, else the pod's name, the last two at most 63 characters;
/// empty on the node's network.
pub fn short(pod: &Pod) -> String {
    let Some(spec) = own_network(pod) else { return String::new() };
    if let Some(name) = override_of(spec) {
        return name.to_owned();
    }
    let given = spec.hostname.clone().filter(|h| !h.is_empty());
    let mut name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The domain of that name, `<subdomain>.<namespace>.svc.<cluster domain>`; empty without a subdomain.
pub fn domain(pod: &Pod, cluster_domain: &str) -> String {
    let spec = own_network(pod).filter(|spec| override_of(spec).is_none());
    match spec.and_then(|s| s.subdomain.as_deref()).filter(|sub| !sub.is_empty()) {
        None => String::new(),
        Some(sub) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{sub}.{namespace}.svc.{cluster_domain}").trim_end_matches('.').to_owned()
        }
    }
}

/// What the kernel is told: the host name, with its domain if the pod has one and says `setHostnameAsFQDN`.
pub fn kernel(pod: &Pod, cluster_domain: &str) -> Result<String, FqdnTooLong> {
    let (name, domain) = (short(pod), domain(pod, cluster_domain));
    let whole = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    if domain.is_empty() || !whole {
        return Ok(name);
    }
    let fqdn = format!("{name}.{domain}");
    if fqdn.len() > KERNEL_MAX { Err(FqdnTooLong { fqdn }) } else { Ok(fqdn) }
}

/// The spec of a pod that has a network, and so a host name, of its own.
fn own_network(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref().filter(|spec| spec.host_network != Some(true))
}

fn override_of(spec: &PodSpec) -> Option<&str> {
    spec.hostname_override.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, spec: &str) -> Pod {
        let mut pod: Pod = serde_yaml::from_str(&format!("spec: {{containers: [], {spec}}}")).unwrap();
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some("ns".into());
        pod
    }

    #[test]
    fn host_names_are_cut_to_63_and_end_well() {
        let long = "a".repeat(62) + "-bc";
        assert_eq!(short(&pod(&long, "")), "a".repeat(62));
        assert_eq!(short(&pod("web-node", "")), "web-node");
        assert_eq!(short(&pod("web-node", "hostname: db")), "db");
        assert_eq!(short(&pod("web-node", "hostname: \"\"")), "web-node");
    }

    #[test]
    fn on_the_nodes_network_there_is_neither_name_nor_domain() {
        let pod = pod("web-node", "hostNetwork: true, hostname: db, subdomain: sub, setHostnameAsFQDN: true");
        assert_eq!((short(&pod), domain(&pod, "kube.local")), (String::new(), String::new()));
        assert_eq!(kernel(&pod, "kube.local").unwrap(), "");
    }

    #[test]
    fn a_subdomain_makes_a_domain_and_the_kernel_hears_of_it_only_when_told_to() {
        let with = pod("web-node", "subdomain: sub");
        assert_eq!(domain(&with, "kube.local"), "sub.ns.svc.kube.local");
        assert_eq!(domain(&with, ""), "sub.ns.svc");
        assert_eq!(kernel(&with, "kube.local").unwrap(), "web-node");
        let whole = pod("web-node", "hostname: db, subdomain: sub, setHostnameAsFQDN: true");
        assert_eq!(kernel(&whole, "kube.local").unwrap(), "db.sub.ns.svc.kube.local");
        let alone = pod("web-node", "setHostnameAsFQDN: true");
        assert_eq!(kernel(&alone, "kube.local").unwrap(), "web-node");
    }

    #[test]
    fn a_whole_name_of_64_fits_and_a_longer_one_is_an_error() {
        // With ".sub.ns.svc.kube.local", 22 characters.
        let with = |n| pod(&"a".repeat(n), "subdomain: sub, setHostnameAsFQDN: true");
        assert_eq!(kernel(&with(42), "kube.local").unwrap().len(), 64);
        let error = kernel(&with(43), "kube.local").unwrap_err().to_string();
        assert!(error.contains("65 characters") && error.contains("--cluster-domain"), "{error}");
    }

    #[test]
    fn an_override_stands_for_all_of_it() {
        let spec = "hostname: db, subdomain: sub, hostnameOverride: a.b.example";
        let pod = pod("web-node", spec);
        assert_eq!((short(&pod).as_str(), domain(&pod, "kube.local").as_str()), ("a.b.example", ""));
    }
}
