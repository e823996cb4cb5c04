//! Answers to the snapshot and the other things the contract reports.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use podstead_runtime::{
    Container, ContainerState, ContainerStats, Image, ImageFs, PodIdentity, START_BROKEN_OFF, Sandbox,
    SandboxState, SandboxStats, Time,
};

use super::IMAGE_AS_WRITTEN;
use crate::proto;

/// What a sandbox's state means: anything but ready takes no containers.
pub fn state_of_sandbox(state: i32) -> SandboxState {
    if state == i32::from(proto::PodSandboxState::SandboxReady) {
        SandboxState::Ready
    } else {
        SandboxState::NotReady
    }
}

/// Of a sandbox's status, what a listing lacks: whether it has the node's network, and its addresses.
/// `None` for addresses when the server gave no network part, as for one that is not ready.
pub fn attributes(status: &proto::PodSandboxStatus) -> (bool, Option<Vec<IpAddr>>) {
    let host_network = status
        .linux
        .as_ref()
        .and_then(|linux| linux.namespaces.as_ref())
        .and_then(|namespaces| namespaces.options.as_ref())
        .is_some_and(|options| options.network == i32::from(proto::NamespaceMode::Node));
    let ips = status.network.as_ref().map(|network| {
        std::iter::once(&network.ip)
            .chain(network.additional_ips.iter().map(|additional| &additional.ip))
            .filter_map(|ip| ip.parse().ok())
            .collect()
    });
    (host_network, ips)
}

/// A sandbox from its listing and [`attributes`].
pub fn sandbox(listed: proto::PodSandbox, host_network: bool, ips: Option<Vec<IpAddr>>) -> Sandbox {
    let metadata = listed.metadata.unwrap_or_default();
    Sandbox {
        id: listed.id.into(),
        pod: PodIdentity { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid.into() },
        attempt: metadata.attempt,
        state: state_of_sandbox(listed.state),
        created_at: Time(listed.created_at),
        host_network,
        ips,
        labels: tree(listed.labels),
        annotations: tree(listed.annotations),
        runtime_handler: listed.runtime_handler,
    }
}

/// A container from its listing and, when there is one, its status. `pid` is the server's word, 0 for none.
pub fn container(listed: proto::Container, status: Option<&proto::ContainerStatus>, pid: u32) -> Container {
    let metadata = listed.metadata.unwrap_or_default();
    let mut annotations = tree(listed.annotations);
    let image = annotations
        .remove(IMAGE_AS_WRITTEN)
        .or_else(|| listed.image.map(|image| image.image))
        .unwrap_or_default();
    let state = status.map_or(ContainerState::Unknown, state_of_container);
    Container {
        id: listed.id.into(),
        sandbox: listed.pod_sandbox_id.into(),
        name: metadata.name,
        attempt: metadata.attempt,
        image,
        image_id: if listed.image_id.is_empty() { listed.image_ref } else { listed.image_id },
        pid: if matches!(state, ContainerState::Running { .. }) { pid } else { 0 },
        state,
        created_at: Time(listed.created_at),
        labels: tree(listed.labels),
        annotations,
        log_path: status.map(|status| PathBuf::from(&status.log_path)).unwrap_or_default(),
    }
}

fn state_of_container(status: &proto::ContainerStatus) -> ContainerState {
    match proto::ContainerState::try_from(status.state) {
        Ok(proto::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(proto::ContainerState::ContainerRunning) => {
            ContainerState::Running { started_at: Time(status.started_at) }
        }
        Ok(proto::ContainerState::ContainerExited) => ContainerState::Exited {
            code: status.exit_code,
            started_at: match start_broken_off(status) {
                Some(BrokenOff::MayHaveRun) => Time(status.finished_at),
                // containerd notes the start when its call is over; a short command has ended by then.
                _ if status.finished_at > 0 => Time(status.started_at.clamp(0, status.finished_at)),
                _ => Time(status.started_at.max(0)),
            },
            finished_at: Time(status.finished_at),
            reason: exit_reason(status),
            message: status.message.clone(),
        },
        Ok(proto::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

/// How far a start had come that was given up because its call ended early: its caller was killed, or its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenOff {
    /// Not to the container's own process.
    NeverRan,
    /// The process was being let go, and was killed.
    MayHaveRun,
}

/// Whether the container is over for that reason. containerd shows such a one as exited with `StartError`, in the words
/// below, and never as started.
pub fn start_broken_off(status: &proto::ContainerStatus) -> Option<BrokenOff> {
    let words = &status.message;
    let given_up = words.contains("context canceled")
        || words.contains("context deadline exceeded")
        || (words.contains("failed to start shim") && words.contains("signal: killed"));
    let start_error = status.state() == proto::ContainerState::ContainerExited
        && status.reason == "StartError"
        && status.started_at <= 0;
    let how_far = if words.contains("failed to start containerd task") {
        BrokenOff::MayHaveRun
    } else {
        BrokenOff::NeverRan
    };
    (start_error && given_up).then_some(how_far)
}

/// The server's reason, or the one its exit code means.
fn exit_reason(status: &proto::ContainerStatus) -> String {
    if start_broken_off(status).is_some() {
        return START_BROKEN_OFF.to_owned();
    }
    match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed".to_owned(),
        ("", _) => "Error".to_owned(),
        (reason, _) => reason.to_owned(),
    }
}

/// An image.
pub fn image(image: proto::Image) -> Image {
    Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        pinned: image.pinned,
    }
}

/// A file system of images.
pub fn image_fs(usage: proto::FilesystemUsage) -> ImageFs {
    ImageFs {
        path: usage.fs_id.map(|id| id.mountpoint.into()).unwrap_or_default(),
        used_bytes: value(usage.used_bytes),
        used_inodes: value(usage.inodes_used),
    }
}

/// A container's sample. The CRI counts no processes per container.
pub fn container_stats(stats: proto::ContainerStats) -> ContainerStats {
    let attributes = stats.attributes.unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    let layer = stats.writable_layer.unwrap_or_default();
    ContainerStats {
        id: attributes.id.into(),
        name: attributes.metadata.map(|metadata| metadata.name).unwrap_or_default(),
        read_at: Time(cpu.timestamp.max(memory.timestamp)),
        cpu_nanos: value(cpu.usage_core_nano_seconds),
        memory_working_set: value(memory.working_set_bytes),
        memory_usage: value(memory.usage_bytes),
        pids: 0,
        writable_bytes: value(layer.used_bytes),
        writable_inodes: value(layer.inodes_used),
    }
}

/// A sandbox's sample.
pub fn sandbox_stats(stats: proto::PodSandboxStats) -> SandboxStats {
    let attributes = stats.attributes.unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    let linux = stats.linux.unwrap_or_default();
    let cpu = linux.cpu.unwrap_or_default();
    let memory = linux.memory.unwrap_or_default();
    let interface = linux.network.and_then(|network| network.default_interface).unwrap_or_default();
    SandboxStats {
        id: attributes.id.into(),
        pod: PodIdentity { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid.into() },
        read_at: Time(cpu.timestamp.max(memory.timestamp)),
        cpu_nanos: value(cpu.usage_core_nano_seconds),
        memory_working_set: value(memory.working_set_bytes),
        network_rx_bytes: value(interface.rx_bytes),
        network_tx_bytes: value(interface.tx_bytes),
    }
}

fn value(number: Option<proto::UInt64Value>) -> u64 {
    number.map_or(0, |number| number.value)
}

fn tree(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_without_a_reason_gets_the_one_its_code_means() {
        let exited = |code, reason: &str| proto::ContainerStatus {
            state: proto::ContainerState::ContainerExited.into(),
            exit_code: code,
            reason: reason.into(),
            ..Default::default()
        };
        let reason = |status: &proto::ContainerStatus| match state_of_container(status) {
            ContainerState::Exited { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&exited(0, "")), "Completed");
        assert_eq!(reason(&exited(137, "")), "Error");
        assert_eq!(reason(&exited(137, "OOMKilled")), "OOMKilled");
    }

    #[test]
    fn nothing_ends_before_it_started() {
        for (started_at, finished_at, started) in [(9, 7, 7), (5, 7, 5), (0, 7, 0), (-1, 7, 0), (5, 0, 5)] {
            let status = proto::ContainerStatus {
                state: proto::ContainerState::ContainerExited.into(),
                started_at,
                finished_at,
                ..Default::default()
            };
            let ContainerState::Exited { started_at, .. } = state_of_container(&status) else {
                panic!("exited")
            };
            assert_eq!(started_at, Time(started));
        }
    }

    #[test]
    fn a_start_whose_caller_went_away_is_told_apart_from_one_that_failed() {
        let exited = |message: &str, started_at| proto::ContainerStatus {
            state: proto::ContainerState::ContainerExited.into(),
            exit_code: 128,
            reason: "StartError".into(),
            message: message.into(),
            started_at,
            finished_at: 7,
            ..Default::default()
        };
        let canceled =
            "failed to create containerd task: failed to create shim task: context canceled: unknown";
        let killed =
            "failed to create containerd task: failed to start shim: start failed: : signal: killed: unknown";
        for words in [canceled, killed] {
            let state = state_of_container(&exited(words, 0));
            assert!(state.start_was_broken_off() && state.never_ran(), "{words}");
            assert_eq!(start_broken_off(&exited(words, 5)), None, "it was started");
        }
        let let_go = r#"failed to start containerd task "0f": context canceled: unknown"#;
        let state = state_of_container(&exited(let_go, 0));
        assert!(state.start_was_broken_off() && !state.never_ran(), "{state:?}");
        let missing = "failed to create containerd task: exec: \"/no\": no such file or directory: unknown";
        assert_eq!(start_broken_off(&exited(missing, 0)), None);
        let running = proto::ContainerStatus {
            state: proto::ContainerState::ContainerRunning.into(),
            ..exited(killed, 0)
        };
        assert_eq!(start_broken_off(&running), None);
    }

    #[test]
    fn the_image_is_shown_as_written_and_our_annotation_is_not() {
        let listed = proto::Container {
            image: Some(proto::ImageSpec { image: "docker.io/library/nginx:1".into(), ..Default::default() }),
            image_ref: "sha256:abc".into(),
            annotations: HashMap::from([
                (IMAGE_AS_WRITTEN.to_owned(), "nginx:1".to_owned()),
                ("a".to_owned(), "b".to_owned()),
            ]),
            ..Default::default()
        };
        let shown = container(listed, None, 7);
        assert_eq!((shown.image.as_str(), shown.image_id.as_str()), ("nginx:1", "sha256:abc"));
        assert_eq!(shown.annotations.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!((shown.state, shown.pid), (ContainerState::Unknown, 0));
    }

    #[test]
    fn addresses_are_the_primary_then_the_others_and_none_without_a_network_part() {
        let network = proto::PodSandboxNetworkStatus {
            ip: "10.0.0.2".into(),
            additional_ips: vec![proto::PodIp { ip: "fd00::2".into() }],
        };
        let status = proto::PodSandboxStatus { network: Some(network), ..Default::default() };
        let (host, ips) = attributes(&status);
        assert!(!host);
        assert_eq!(ips.unwrap(), ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(attributes(&proto::PodSandboxStatus::default()).1, None);
    }
}
