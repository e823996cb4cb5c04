//! What no packaged reference and no server at hand has of CRI 0.36, against bytes that another program encoded: each
//! message of `wire/beyond.hex` is read as what it says, and written as the same bytes.

use std::fmt::Debug;

use podstead_cri::proto::*;
use prost::Message;

const BYTES: &str = include_str!("wire/beyond.hex");

fn bytes(name: &str) -> Vec<u8> {
    let line = BYTES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("{name} is in beyond.hex"));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn is<M: Message + Default + PartialEq + Debug>(name: &str, wanted: &M) {
    let bytes = bytes(name);
    assert_eq!(&M::decode(&bytes[..]).expect(name), wanted, "{name}");
    assert_eq!(wanted.encode_to_vec(), bytes, "{name}");
}

/// Totals of `total` for all and one more for some, and the same averages everywhere.
fn pressure(total: u64) -> PsiStats {
    let data = |total| Some(PsiData { total, avg10: 1.5, avg60: 2.5, avg300: 3.5 });
    PsiStats { full: data(total), some: data(total + 1) }
}

fn io(total: u64) -> IoUsage {
    IoUsage { timestamp: 99, psi: Some(pressure(total)) }
}

#[test]
fn single_fields_are_where_the_definition_has_them() {
    let mount = Mount { image_sub_path: "sub/path".into(), ..Default::default() };
    let stop_signal = Signal::Sigrtminplus3.into();
    is("ContainerConfig", &ContainerConfig { stop_signal, mounts: vec![mount], ..Default::default() });
    let stop_signal = Signal::Sigrtmaxminus14.into();
    is("ContainerStatus", &ContainerStatus { id: "c1".into(), stop_signal, ..Default::default() });
    let image = ImageSpec { image: "a".into(), image_ref: "b@sha256:1".into(), ..Default::default() };
    is("ImageSpec", &image);
    let features = RuntimeFeatures { user_namespaces_host_network: true, ..Default::default() };
    is("RuntimeFeatures", &features);
}

#[test]
fn pressure_is_read_where_it_is_told() {
    let stats = ContainerStats {
        attributes: Some(ContainerAttributes { id: "c1".into(), ..Default::default() }),
        cpu: Some(CpuUsage { timestamp: 7, psi: Some(pressure(10)), ..Default::default() }),
        memory: Some(MemoryUsage { timestamp: 8, psi: Some(pressure(20)), ..Default::default() }),
        io: Some(io(30)),
        ..Default::default()
    };
    is("StreamContainerStatsResponse", &StreamContainerStatsResponse { container_stats: vec![stats] });
    let linux = Some(LinuxPodSandboxStats { io: Some(io(40)), ..Default::default() });
    let stats = PodSandboxStats { linux, ..Default::default() };
    is("StreamPodSandboxStatsResponse", &StreamPodSandboxStatsResponse { pod_sandbox_stats: vec![stats] });
}

#[test]
fn streamed_lists_carry_their_objects() {
    let container = Container { id: "c1".into(), ..Default::default() };
    is("StreamContainersResponse", &StreamContainersResponse { containers: vec![container] });
    let sandbox = PodSandbox { id: "s1".into(), ..Default::default() };
    is("StreamPodSandboxesResponse", &StreamPodSandboxesResponse { pod_sandboxes: vec![sandbox] });
    let image = Image { id: "i1".into(), ..Default::default() };
    is("StreamImagesResponse", &StreamImagesResponse { images: vec![image] });
    let metrics = PodSandboxMetrics { pod_sandbox_id: "s1".into(), ..Default::default() };
    is(
        "StreamPodSandboxMetricsResponse",
        &StreamPodSandboxMetricsResponse { pod_sandbox_metrics: vec![metrics] },
    );
}

#[test]
fn a_change_of_a_sandboxs_resources_says_which_are_overhead() {
    let resources = |cpu_shares| Some(LinuxContainerResources { cpu_shares, ..Default::default() });
    let request = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: "s1".into(),
        overhead: resources(3),
        resources: resources(4),
    };
    is("UpdatePodSandboxResourcesRequest", &request);
}
