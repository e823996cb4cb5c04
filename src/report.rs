//! Pods as v1 Pods with their status, for people, files and later the API server (`kubelet-static-pods.md 2.5, 2.16`).
//! Pure.

mod shown;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time as ApiTime};
use podstead_runtime::{PodIdentity, PodUid, Snapshot, Time, labels};

use crate::conditions;
use crate::plan::status::{ContainerStatus, PodPhase, PodStatus, State, Terminated, pod_status};
use crate::plan::{self, Known, Observed};
use crate::pod::downward::one_of_each_family;
use crate::pod::resources::qos_class;
use crate::reconcile::View;

/// What must be known to write statuses.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Addresses, the primary first.
    pub ips: Vec<IpAddr>,
    /// Name of the runtime, the prefix of container ids.
    pub runtime: String,
}

/// All pods of a view, the wanted ones and those on their way out, in order of their names.
pub fn pods(view: &View, node: &Node) -> Vec<api::Pod> {
    let mut all = Vec::new();
    for pod in &view.wanted.pods {
        let planned = crate::desired::planned(pod);
        let status = pod_status(&planned, &view.observed, &view.known, view.at);
        let mut shown = (**pod).clone();
        shown.status = Some(api_status(&status, &planned, node, Some(pod)));
        all.push(shown);
    }
    let wanted = |uid: &PodUid| view.desired.pods.contains_key(uid);
    for (uid, mut pod) in found(&view.observed.snapshot, node).into_iter().filter(|(uid, _)| !wanted(uid)) {
        if view.plan.leaving.contains(&uid) {
            pod.metadata.deletion_timestamp = api_time(view.at);
        }
        all.push(pod);
    }
    all.extend(left_on_the_host(view));
    all.sort_by_key(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
    all
}

/// Pods of which only the host still has something, and why, where removing it fails.
fn left_on_the_host(view: &View) -> Vec<api::Pod> {
    let observed = &view.observed;
    let elsewhere = |uid: &PodUid| {
        view.desired.pods.contains_key(uid) || observed.snapshot.sandboxes.iter().any(|s| s.pod.uid == *uid)
    };
    let pod = |(uid, id): (&PodUid, &PodIdentity)| {
        let failures = view.known.failures.iter().filter(|(key, _)| key.uid == *uid);
        let problem = failures.map(|(_, failure)| failure.message.clone()).next();
        let metadata = ObjectMeta {
            name: Some(if id.name.is_empty() { uid.0.clone() } else { id.name.clone() }),
            namespace: Some(id.namespace.clone()),
            uid: Some(uid.0.clone()),
            deletion_timestamp: api_time(view.at),
            ..ObjectMeta::default()
        };
        let status = api::PodStatus { message: problem, ..api::PodStatus::default() };
        api::Pod { metadata, spec: None, status: Some(status) }
    };
    observed.leftovers.iter().filter(|(uid, _)| !elsewhere(uid)).map(pod).collect()
}

/// The pods that a runtime has of ours, known from nothing else.
pub fn found(snapshot: &Snapshot, node: &Node) -> BTreeMap<PodUid, api::Pod> {
    let observed = Observed { snapshot: snapshot.clone(), ..Observed::default() };
    let mut all = BTreeMap::new();
    for sandbox in &snapshot.sandboxes {
        if all.contains_key(&sandbox.pod.uid) {
            continue;
        }
        let mut seen: BTreeMap<&str, plan::ContainerPlan> = BTreeMap::new();
        for container in snapshot.containers.iter().filter(|c| c.pod_uid() == sandbox.pod.uid) {
            seen.entry(&container.name).or_insert_with(|| plan::ContainerPlan {
                name: container.name.clone(),
                image: container.image.clone(),
                role: plan::written_role(container),
                ..plan::ContainerPlan::default()
            });
        }
        let (containers, init): (Vec<_>, Vec<_>) =
            seen.into_values().partition(|c| c.role == plan::Role::Regular);
        let planned = plan::Pod {
            identity: sandbox.pod.clone(),
            host_network: sandbox.host_network,
            containers,
            init,
            ..plan::Pod::default()
        };
        let status = pod_status(&planned, &observed, &Known::default(), Time::now());
        all.insert(
            sandbox.pod.uid.clone(),
            pod_of(sandbox, &planned, api_status(&status, &planned, node, None)),
        );
    }
    all
}

fn pod_of(sandbox: &podstead_runtime::Sandbox, planned: &plan::Pod, status: api::PodStatus) -> api::Pod {
    let ours = |key: &String| key == labels::OWNER || key.starts_with("io.kubernetes.pod.");
    let mut own = sandbox.labels.clone();
    own.retain(|key, _| !ours(key));
    let container = |plan: &plan::ContainerPlan| api::Container {
        name: plan.name.clone(),
        image: Some(plan.image.clone()),
        restart_policy: (plan.role == plan::Role::Sidecar).then(|| "Always".to_owned()),
        ..api::Container::default()
    };
    let metadata = ObjectMeta {
        name: Some(sandbox.pod.name.clone()),
        namespace: Some(sandbox.pod.namespace.clone()),
        uid: Some(sandbox.pod.uid.0.clone()),
        labels: Some(own).filter(|l| !l.is_empty()),
        annotations: Some(sandbox.annotations.clone()).filter(|a| !a.is_empty()),
        ..ObjectMeta::default()
    };
    let spec = api::PodSpec {
        containers: planned.containers.iter().map(container).collect(),
        init_containers: Some(planned.init.iter().map(container).collect())
            .filter(|all: &Vec<_>| !all.is_empty()),
        host_network: Some(sandbox.host_network).filter(|h| *h),
        ..api::PodSpec::default()
    };
    api::Pod { metadata, spec: Some(spec), status: Some(status) }
}

fn api_status(
    status: &PodStatus,
    planned: &plan::Pod,
    node: &Node,
    pod: Option<&api::Pod>,
) -> api::PodStatus {
    let host_ips = one_of_each_family(&node.ips);
    let ips = if planned.host_network { &host_ips } else { &status.ips };
    let phase = match status.phase {
        PodPhase::Pending => "Pending",
        PodPhase::Running => "Running",
        PodPhase::Succeeded => "Succeeded",
        PodPhase::Failed => "Failed",
    };
    let spec = pod.and_then(|p| p.spec.as_ref());
    let gates = spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let gates: Vec<&str> = gates.map(|gate| gate.condition_type.as_str()).collect();
    api::PodStatus {
        phase: Some(phase.to_owned()),
        reason: Some(status.reason.clone()).filter(|r| !r.is_empty()),
        message: Some(status.message.clone()).filter(|m| !m.is_empty()),
        host_ips: Some(host_ips.iter().map(|ip| api::HostIP { ip: ip.to_string() }).collect::<Vec<_>>())
            .filter(|all| !all.is_empty()),
        host_ip: host_ips.first().map(ToString::to_string),
        pod_ip: ips.first().map(ToString::to_string),
        pod_ips: Some(ips.iter().map(|ip| api::PodIP { ip: ip.to_string() }).collect::<Vec<_>>())
            .filter(|all| !all.is_empty()),
        qos_class: spec.map(|s| qos_class(s).as_str().to_owned()),
        start_time: api_time(status.since)
            .or_else(|| seen(pod))
            .or_else(|| api_time(status.sandbox_created_at)),
        conditions: Some(conditions::of(status, &gates, |name| {
            planned.init.iter().any(|c| c.name == name && c.role == plan::Role::Sidecar)
        })),
        init_container_statuses: Some(status.init.iter().map(|c| container_status(c, node, pod)).collect())
            .filter(|all: &Vec<_>| !all.is_empty()),
        container_statuses: Some(sorted(&status.containers, node, pod)),
        ..api::PodStatus::default()
    }
}

fn seen(pod: Option<&api::Pod>) -> Option<ApiTime> {
    let text = pod?.metadata.annotations.as_ref()?.get(labels::CONFIG_SEEN)?;
    Some(ApiTime(text.parse::<Timestamp>().ok()?))
}

fn sorted(containers: &[ContainerStatus], node: &Node, pod: Option<&api::Pod>) -> Vec<api::ContainerStatus> {
    let mut all: Vec<_> = containers.iter().map(|c| container_status(c, node, pod)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn container_status(c: &ContainerStatus, node: &Node, pod: Option<&api::Pod>) -> api::ContainerStatus {
    let resources = pod.and_then(|pod| shown::resources(pod, c));
    let full_id = |id: &podstead_runtime::ContainerId| format!("{}://{id}", node.runtime);
    let terminated = |end: &Terminated| api::ContainerStateTerminated {
        exit_code: end.code,
        reason: Some(end.reason.clone()),
        message: Some(end.message.clone()).filter(|m| !m.is_empty()),
        started_at: api_time(end.started_at),
        finished_at: api_time(end.finished_at),
        container_id: Some(full_id(&end.id)),
        ..api::ContainerStateTerminated::default()
    };
    let state = match &c.state {
        State::Waiting { reason, message } => api::ContainerState {
            waiting: Some(api::ContainerStateWaiting {
                reason: Some(reason.clone()),
                message: Some(message.clone()).filter(|m| !m.is_empty()),
            }),
            ..api::ContainerState::default()
        },
        State::Running { started_at } => api::ContainerState {
            running: Some(api::ContainerStateRunning { started_at: api_time(*started_at) }),
            ..api::ContainerState::default()
        },
        State::Terminated(end) => {
            api::ContainerState { terminated: Some(terminated(end)), ..api::ContainerState::default() }
        }
    };
    let last = c.last.as_ref().map(|end| api::ContainerState {
        terminated: Some(terminated(end)),
        ..api::ContainerState::default()
    });
    api::ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone(),
        image_id: c.image_id.clone(),
        container_id: Some(full_id(&c.id)).filter(|_| !c.id.as_str().is_empty()),
        ready: c.ready,
        started: Some(c.started),
        restart_count: i32::try_from(c.restart_count).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: last,
        allocated_resources: resources.as_ref().and_then(|r| r.requests.clone()),
        resources: resources.map(|of| shown::actual(of, c.size)),
        ..api::ContainerStatus::default()
    }
}

fn api_time(time: Time) -> Option<ApiTime> {
    let known = time.known()?;
    Timestamp::from_nanosecond(i128::from(known.0)).ok().map(ApiTime)
}
