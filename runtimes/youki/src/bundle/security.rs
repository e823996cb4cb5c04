//! Masked and read-only paths, AppArmor and SELinux of a container. Pure.

use podstead_runtime::security::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};
use podstead_runtime::{ContainerSecurity, ContainerSpec, Profile};

use super::error::{Blame, Error};
use super::{NodeFacts, mount};

/// Where the hierarchies of cgroup v1 are mounted, when the node does not say. Missing ones are passed over.
const V1_HIERARCHIES: [&str; 18] = [
    "blkio",
    "cpu",
    "cpu,cpuacct",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_cls,net_prio",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
    "systemd",
    "unified",
];

/// Masked paths, then read-only ones. `users`: the pod has a user namespace of its own, where `/proc` may be open.
pub(super) fn paths(container: &ContainerSpec, node: &NodeFacts, users: bool) -> (Vec<String>, Vec<String>) {
    let security = &container.security;
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    let (masked, mut readonly) = if !users
        && security.masked_paths.is_empty()
        && security.readonly_paths.is_empty()
    {
        (DEFAULT_MASKED_PATHS.map(str::to_owned).to_vec(), DEFAULT_READONLY_PATHS.map(str::to_owned).to_vec())
    } else {
        (security.masked_paths.clone(), security.readonly_paths.clone())
    };
    // libcontainer binds the hierarchies of v1 in writable, whatever the mount says: a container's root could
    // lift its own limits.
    if !node.cgroup_v2 && !mount::covers_cgroup(container) {
        readonly.push("/sys/fs/cgroup".to_owned());
        let below = |name: &str| format!("/sys/fs/cgroup/{name}");
        match node.cgroup_v1_hierarchies.as_slice() {
            [] => readonly.extend(V1_HIERARCHIES.map(below)),
            known => readonly.extend(known.iter().map(|name| below(name))),
        }
    }
    (masked, readonly)
}

/// The AppArmor profile to set. The runtime has no profile of its own yet, so its default is none.
pub(super) fn apparmor(container: &ContainerSpec, node: &NodeFacts) -> Result<Option<String>, Error> {
    match &container.security.apparmor {
        Some(Profile::Localhost(name)) if !container.security.privileged => {
            let name = name.strip_prefix("localhost/").unwrap_or(name);
            if !node.apparmor {
                return Err(Blame(&container.name).not_on_node(format!("AppArmor profile \"{name}\"")));
            }
            Ok(Some(name.to_owned()))
        }
        _ => Ok(None),
    }
}

/// The SELinux labels of the processes and of the file systems made for the container.
pub(super) fn selinux(security: &ContainerSecurity, node: &NodeFacts) -> Option<(String, String)> {
    let options = security.selinux.as_ref().filter(|_| node.selinux)?;
    let or = |given: &str, default: &str| if given.is_empty() { default } else { given }.to_owned();
    let default_type = if security.privileged { "spc_t" } else { "container_t" };
    let (user, level) = (or(&options.user, "system_u"), or(&options.level, "s0"));
    let (role, kind) = (or(&options.role, "system_r"), or(&options.kind, default_type));
    Some((format!("{user}:{role}:{kind}:{level}"), format!("{user}:object_r:container_file_t:{level}")))
}

#[cfg(test)]
mod tests {
    use podstead_runtime::SelinuxOptions;

    use super::*;

    fn container(change: impl FnOnce(&mut ContainerSecurity)) -> ContainerSpec {
        let mut container = ContainerSpec { name: "c".into(), ..ContainerSpec::default() };
        change(&mut container.security);
        container
    }

    fn v2() -> NodeFacts {
        NodeFacts { cgroup_v2: true, ..NodeFacts::default() }
    }

    #[test]
    fn lists_are_taken_as_given_and_defaulted_only_when_both_are_missing() {
        let (masked, readonly) = paths(&container(|_| {}), &v2(), false);
        assert_eq!((masked.len(), readonly.len()), (12, 5));
        let (masked, readonly) = paths(&container(|s| s.masked_paths = vec!["/a".into()]), &v2(), false);
        assert_eq!((masked, readonly), (vec!["/a".to_owned()], vec![]));
        assert_eq!(paths(&container(|s| s.privileged = true), &v2(), false), (vec![], vec![]));
        assert_eq!(paths(&container(|_| {}), &v2(), true), (vec![], vec![]), "procMount: Unmasked");
    }

    #[test]
    fn hierarchies_of_v1_are_read_only_unless_the_pod_mounts_them() {
        let has = |container: &ContainerSpec, node: &NodeFacts| {
            paths(container, node, false).1.contains(&"/sys/fs/cgroup/memory".to_owned())
        };
        let v1 = NodeFacts::default();
        let mut own = container(|_| {});
        own.mounts.push(podstead_runtime::Mount {
            destination: "/sys/fs/cgroup".into(),
            ..podstead_runtime::Mount::default()
        });
        assert!(has(&container(|_| {}), &v1) && !has(&own, &v1) && !has(&container(|_| {}), &v2()));
        let one = NodeFacts { cgroup_v1_hierarchies: vec!["cpu".into()], ..v1 };
        assert!(!has(&container(|_| {}), &one));
    }

    #[test]
    fn a_profile_the_node_cannot_load_is_an_error() {
        let with = container(|s| s.apparmor = Some(Profile::Localhost("localhost/web".into())));
        assert!(apparmor(&with, &v2()).is_err());
        let node = NodeFacts { apparmor: true, ..v2() };
        assert_eq!(apparmor(&with, &node).unwrap().as_deref(), Some("web"));
        assert_eq!(
            apparmor(&container(|s| s.apparmor = Some(Profile::RuntimeDefault)), &node).unwrap(),
            None
        );
    }

    #[test]
    fn labels_are_completed_and_only_where_selinux_is() {
        let options = SelinuxOptions { level: "s0:c1,c2".into(), ..SelinuxOptions::default() };
        let with = container(|s| s.selinux = Some(options)).security;
        assert_eq!(selinux(&with, &v2()), None);
        let (process, files) = selinux(&with, &NodeFacts { selinux: true, ..v2() }).unwrap();
        assert_eq!(process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(files, "system_u:object_r:container_file_t:s0:c1,c2");
    }
}
