//! Single values: modes, profiles, signals, ids.

use std::path::Path;

use podstead_runtime::security::{GroupsPolicy, IdMapping};
use podstead_runtime::{NamespaceMode, Namespaces, Profile, Propagation, Protocol, SelinuxOptions};

use super::ConvertError;
use crate::proto;

pub(super) fn path(what: &'static str, path: &Path) -> Result<String, ConvertError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ConvertError::NotUtf8 { what, path: path.to_owned() })
}

pub(super) fn signal(name: &str) -> Result<proto::Signal, ConvertError> {
    if name.is_empty() {
        return Ok(proto::Signal::RuntimeDefault);
    }
    let upper = name.to_ascii_uppercase().replace('+', "PLUS").replace('-', "MINUS");
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    proto::Signal::from_str_name(&full).ok_or_else(|| ConvertError::Signal(name.to_owned()))
}

pub(super) fn protocol(protocol: Protocol) -> proto::Protocol {
    match protocol {
        Protocol::Tcp => proto::Protocol::Tcp,
        Protocol::Udp => proto::Protocol::Udp,
        Protocol::Sctp => proto::Protocol::Sctp,
    }
}

pub(super) fn propagation(propagation: Propagation) -> proto::MountPropagation {
    match propagation {
        Propagation::Private => proto::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => proto::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => proto::MountPropagation::PropagationBidirectional,
    }
}

pub(super) fn groups_policy(policy: GroupsPolicy) -> proto::SupplementalGroupsPolicy {
    match policy {
        GroupsPolicy::Merge => proto::SupplementalGroupsPolicy::Merge,
        GroupsPolicy::Strict => proto::SupplementalGroupsPolicy::Strict,
    }
}

pub(super) fn profile(profile: &Profile) -> proto::SecurityProfile {
    use proto::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile {
        Profile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        Profile::Unconfined => (ProfileType::Unconfined, String::new()),
        Profile::Localhost(reference) => (ProfileType::Localhost, reference.clone()),
    };
    proto::SecurityProfile { profile_type: kind.into(), localhost_ref }
}

pub(super) fn selinux(options: &SelinuxOptions) -> proto::SeLinuxOption {
    proto::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.kind.clone(),
        level: options.level.clone(),
    }
}

pub(super) fn mapping(mapping: &IdMapping) -> proto::IdMapping {
    proto::IdMapping { host_id: mapping.host_id, container_id: mapping.container_id, length: mapping.length }
}

fn mode(mode: &NamespaceMode) -> proto::NamespaceMode {
    match mode {
        NamespaceMode::Pod => proto::NamespaceMode::Pod,
        NamespaceMode::Container => proto::NamespaceMode::Container,
        NamespaceMode::Node => proto::NamespaceMode::Node,
        NamespaceMode::Target(_) => proto::NamespaceMode::Target,
    }
}

/// The namespaces of a sandbox.
pub(super) fn namespaces(namespaces: &Namespaces) -> proto::NamespaceOption {
    let userns_options = namespaces.user.as_ref().map(|user| proto::UserNamespace {
        mode: proto::NamespaceMode::Pod.into(),
        uids: user.uids.iter().map(mapping).collect(),
        gids: user.gids.iter().map(mapping).collect(),
    });
    proto::NamespaceOption {
        network: mode(&namespaces.network).into(),
        pid: mode(&namespaces.pid).into(),
        ipc: mode(&namespaces.ipc).into(),
        target_id: match &namespaces.pid {
            NamespaceMode::Target(id) => id.0.clone(),
            _ => String::new(),
        },
        userns_options,
    }
}

/// The namespaces of a container. "The pod's" means whatever its sandbox has: CRI-O refuses a container whose
/// pid mode says POD in a sandbox that says CONTAINER (`cri-servers.md`).
pub(super) fn namespaces_within(own: &Namespaces, sandbox: &Namespaces) -> proto::NamespaceOption {
    let resolve = |own: &NamespaceMode, sandbox: &NamespaceMode| match own {
        NamespaceMode::Pod => sandbox.clone(),
        other => other.clone(),
    };
    namespaces(&Namespaces {
        network: resolve(&own.network, &sandbox.network),
        pid: resolve(&own.pid, &sandbox.pid),
        ipc: resolve(&own.ipc, &sandbox.ipc),
        user: own.user.clone().or_else(|| sandbox.user.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_understood_as_people_write_them() {
        assert_eq!(signal(""), Ok(proto::Signal::RuntimeDefault));
        assert_eq!(signal("SIGTERM"), Ok(proto::Signal::Sigterm));
        assert_eq!(signal("quit"), Ok(proto::Signal::Sigquit));
        assert_eq!(signal("SIGRTMIN+3"), Ok(proto::Signal::Sigrtminplus3));
        assert_eq!(signal("SIGRTMAX-14"), Ok(proto::Signal::Sigrtmaxminus14));
        assert_eq!(signal("SIGNOPE"), Err(ConvertError::Signal("SIGNOPE".into())));
        assert_eq!(signal("RUNTIME_DEFAULT"), Err(ConvertError::Signal("RUNTIME_DEFAULT".into())));
    }

    #[test]
    fn a_container_that_says_pod_gets_what_its_sandbox_has() {
        let sandbox = Namespaces { pid: NamespaceMode::Container, ..Namespaces::default() };
        let wire = namespaces_within(&Namespaces::default(), &sandbox);
        assert_eq!(wire.pid, i32::from(proto::NamespaceMode::Container));
        let target = Namespaces { pid: NamespaceMode::Target("c1".into()), ..Namespaces::default() };
        let wire = namespaces_within(&target, &sandbox);
        assert_eq!((wire.pid, wire.target_id.as_str()), (proto::NamespaceMode::Target.into(), "c1"));
    }
}
