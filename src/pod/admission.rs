//! What this node refuses although the manifest is right (`kubelet-static-pods.md 5.5`), in the kubelet's words. Pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use podstead_runtime::Profile;
use thiserror::Error;

use super::{NodeFacts, security, selector};

/// What is said to a pod that wants a node with other labels.
pub const ANOTHER_NODE: &str =
    "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";

/// A pod that this node does not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Rejected {
    /// As the kubelet names it: `SysctlForbidden`, `NodeAffinity`, `AppArmor`, ...; and `UserNamespacesNotSupported`,
    /// which the kubelet finds out when it makes the sandbox.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Whether the node takes the pod, however much room it has.
pub fn admit(node: &NodeFacts, pod: &Pod) -> Result<(), Rejected> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    sysctls(node, spec)?;
    system(pod, spec)?;
    groups(node, spec)?;
    affinity(node, spec)?;
    apparmor(node, pod, spec)?;
    users(node, spec)
}

/// The operating system, as a label of the pod and as a field.
fn system(pod: &Pod, spec: &PodSpec) -> Result<(), Rejected> {
    let label = pod.metadata.labels.as_ref().and_then(|all| all.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let message =
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label".to_owned();
        return Err(Rejected { reason: "PodOSSelectorNodeLabelDoesNotMatch", message });
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS".to_owned();
        return Err(Rejected { reason: "PodOSNotSupported", message });
    }
    Ok(())
}

fn affinity(node: &NodeFacts, spec: &PodSpec) -> Result<(), Rejected> {
    if selector::wants(spec, &node.node_name, &node.labels) {
        return Ok(());
    }
    Err(Rejected { reason: "NodeAffinity", message: ANOTHER_NODE.to_owned() })
}

/// A runtime that does not know user namespaces passes the wish over: the pod would be root on the node.
fn users(node: &NodeFacts, spec: &PodSpec) -> Result<(), Rejected> {
    if security::has_users(spec) && !node.security.user_namespaces {
        let message =
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned();
        return Err(Rejected { reason: "UserNamespacesNotSupported", message });
    }
    Ok(())
}

fn sysctls(node: &NodeFacts, spec: &PodSpec) -> Result<(), Rejected> {
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    for sysctl in spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        let verdict = node.security.sysctls.check(&sysctl.name, on(spec.host_network), on(spec.host_ipc));
        verdict.map_err(|why| Rejected {
            reason: "SysctlForbidden",
            message: format!("forbidden sysctl: {why}"),
        })?;
    }
    Ok(())
}

fn apparmor(node: &NodeFacts, pod: &Pod, spec: &PodSpec) -> Result<(), Rejected> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let asked = of_pod.is_some_and(|profile| profile.type_ != "Unconfined")
        || security::containers(spec).any(|container| {
            security::apparmor(pod, container).is_some_and(|profile| profile != Profile::Unconfined)
        });
    if asked && !node.security.apparmor {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned();
        return Err(Rejected { reason: "AppArmor", message });
    }
    Ok(())
}

fn groups(node: &NodeFacts, spec: &PodSpec) -> Result<(), Rejected> {
    let policy = spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !node.security.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node".to_owned();
        return Err(Rejected { reason: "SupplementalGroupsPolicyNotSupported", message });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sysctl::Allowed;
    use super::*;

    fn admitted(node: &NodeFacts, spec: &str) -> Result<(), (&'static str, String)> {
        let text = format!("spec: {{{spec}, containers: [{{name: c}}]}}");
        let pod: Pod = serde_yaml::from_str(&text).unwrap();
        admit(node, &pod).map_err(|e| (e.reason, e.to_string()))
    }

    #[test]
    fn unsafe_sysctls_need_the_nodes_leave() {
        let asks = "securityContext: {sysctls: [{name: kernel/msgmax, value: \"1\"}]}";
        let node = NodeFacts::default();
        let words = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        assert_eq!(admitted(&node, asks), Err(("SysctlForbidden", words.to_owned())));
        let mut given = NodeFacts::default();
        given.security.sysctls = Allowed::parse(["kernel.msg*"]).unwrap();
        assert_eq!(admitted(&given, asks), Ok(()));
        let words = "forbidden sysctl: \"kernel.msgmax\" not allowed with host ipc enabled";
        let refused = admitted(&given, &format!("hostIPC: true, {asks}"));
        assert_eq!(refused, Err(("SysctlForbidden", words.to_owned())));
        let safe = "securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: \"1\"}]}";
        assert_eq!(admitted(&node, safe), Ok(()));
    }

    #[test]
    fn an_apparmor_profile_needs_apparmor() {
        let mut node = NodeFacts::default();
        let of_pod = "securityContext: {appArmorProfile: {type: RuntimeDefault}}";
        let init = "initContainers: [{name: i, securityContext: {appArmorProfile: {type: Localhost, localhostProfile: p}}}]";
        let words = "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned();
        for asks in [of_pod, init] {
            assert_eq!(admitted(&node, asks), Err(("AppArmor", words.clone())), "{asks}");
        }
        let none = "securityContext: {appArmorProfile: {type: Unconfined}}";
        assert_eq!(admitted(&node, none), Ok(()));
        node.security.apparmor = true;
        assert_eq!(admitted(&node, of_pod), Ok(()));
    }

    #[test]
    fn strict_groups_need_a_runtime_that_can() {
        let mut node = NodeFacts::default();
        let asks = "securityContext: {supplementalGroupsPolicy: Strict}";
        let words = "SupplementalGroupsPolicy=Strict is not supported in this node";
        let refused = Err(("SupplementalGroupsPolicyNotSupported", words.to_owned()));
        assert_eq!(admitted(&node, asks), refused);
        node.security.strict_groups = true;
        assert_eq!(admitted(&node, asks), Ok(()));
    }

    #[test]
    fn a_pod_for_another_system_or_another_node_is_not_taken() {
        let mut node = NodeFacts::default();
        let label: Pod = serde_yaml::from_str(
            "{metadata: {labels: {kubernetes.io/os: windows}}, spec: {containers: [{name: c}]}}",
        )
        .unwrap();
        let refused = admit(&node, &label).unwrap_err();
        assert_eq!(refused.reason, "PodOSSelectorNodeLabelDoesNotMatch");
        assert_eq!(
            refused.message,
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
        );
        let words = "Failed to admit pod as the OS field doesn't match node OS".to_owned();
        assert_eq!(admitted(&node, "os: {name: windows}"), Err(("PodOSNotSupported", words)));
        assert_eq!(admitted(&node, "os: {name: linux}"), Ok(()));
        let words =
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".to_owned();
        assert_eq!(admitted(&node, "nodeSelector: {disk: ssd}"), Err(("NodeAffinity", words)));
        node.labels.insert("disk".to_owned(), "ssd".to_owned());
        assert_eq!(admitted(&node, "nodeSelector: {disk: ssd}"), Ok(()));
    }

    #[test]
    fn user_namespaces_need_a_runtime_that_can() {
        let mut node = NodeFacts::default();
        let words = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
        let refused = Err(("UserNamespacesNotSupported", words.to_owned()));
        assert_eq!(admitted(&node, "hostUsers: false"), refused);
        assert_eq!(admitted(&node, "hostUsers: true"), Ok(()));
        node.security.user_namespaces = true;
        assert_eq!(admitted(&node, "hostUsers: false"), Ok(()));
    }
}
