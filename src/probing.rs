//! Between the loop and the probes: which instances are probed. Pure but for the channels.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use podstead_runtime::{ContainerState, PodUid, SandboxState, Snapshot};
use tokio::sync::watch;

use crate::pod::NodeFacts;
use crate::probe::{Input, Target, target};
use crate::reconcile::View;

/// Tells the probes what runs after each round of the loop, until the loop is gone.
pub async fn feed(node: Arc<NodeFacts>, mut view: watch::Receiver<View>, input: watch::Sender<Input>) {
    while view.changed().await.is_ok() {
        let next = inputs(&node, &view.borrow_and_update());
        input.send_if_modified(|last| {
            let differs = *last != next;
            *last = next;
            differs
        });
    }
}

/// What is to be probed.
fn inputs(node: &NodeFacts, view: &View) -> Input {
    let snapshot = &view.observed.snapshot;
    let mut input =
        Input { keep: snapshot.containers.iter().map(|c| c.id.clone()).collect(), ..Input::default() };
    for pod in &view.wanted.pods {
        let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
        let ending = view.plan.ending.contains(&uid);
        for container in probed_containers(pod) {
            let Some(target) = running(node, pod, &uid, container, snapshot) else { continue };
            input.targets.push(if ending { target.ending() } else { target });
        }
    }
    input
}

/// Regular containers and sidecars that have probes.
fn probed_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    all.filter(|c| c.startup_probe.is_some() || c.liveness_probe.is_some() || c.readiness_probe.is_some())
}

fn running(
    node: &NodeFacts,
    pod: &Pod,
    uid: &PodUid,
    container: &Container,
    snapshot: &Snapshot,
) -> Option<Target> {
    let mine = snapshot.containers.iter().filter(|c| c.name == container.name && c.pod_uid() == *uid);
    let newest = mine.max_by_key(|c| c.attempt)?;
    let ContainerState::Running { started_at } = newest.state else { return None };
    let sandbox =
        snapshot.sandboxes.iter().find(|s| s.id == newest.sandbox && s.state == SandboxState::Ready)?;
    let meta = &pod.metadata;
    Some(Target {
        pod: uid.clone(),
        pod_name: format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        ),
        container: container.name.clone(),
        id: newest.id.clone(),
        started_at,
        probes: Arc::new(target::probes(container)),
        ports: target::ports(container),
        host: target::host(sandbox.host_network, sandbox.ips.as_deref().unwrap_or_default(), &node.node_ips),
    })
}

#[cfg(test)]
mod tests {
    use podstead_runtime::{Sandbox, Time, labels};

    use super::*;
    use crate::reconcile::Wanted;

    fn view(state: &ContainerState) -> View {
        let pod: Pod = serde_yaml::from_str(
            "{metadata: {name: web-n, namespace: default, uid: u1}, spec: {containers: [{name: c, \
             ports: [{name: http, containerPort: 80}], readinessProbe: {httpGet: {port: http}}}, {name: other}]}}",
        )
        .unwrap();
        let container = |name: &str, id: &str| podstead_runtime::Container {
            id: id.into(),
            sandbox: "s".into(),
            name: name.into(),
            state: state.clone(),
            labels: [(labels::POD_UID.to_owned(), "u1".to_owned())].into(),
            ..podstead_runtime::Container::default()
        };
        let sandbox = Sandbox {
            id: "s".into(),
            state: SandboxState::Ready,
            ips: Some(vec![[10, 0, 0, 2].into()]),
            ..Sandbox::default()
        };
        let snapshot = Snapshot {
            sandboxes: vec![sandbox],
            containers: vec![container("c", "one"), container("other", "two")],
        };
        View {
            wanted: Arc::new(Wanted { pods: vec![Arc::new(pod)], complete: true }),
            observed: Arc::new(crate::plan::Observed { snapshot, ..crate::plan::Observed::default() }),
            ..View::default()
        }
    }

    #[test]
    fn what_runs_and_has_probes_is_probed_at_the_pods_address() {
        let seen = inputs(&NodeFacts::default(), &view(&ContainerState::Running { started_at: Time(7) }));
        assert_eq!(seen.targets.len(), 1, "{seen:?}");
        let target = &seen.targets[0];
        assert_eq!((target.id.as_str(), target.pod_name.as_str()), ("one", "default/web-n"));
        assert_eq!((target.host.clone(), target.ports["http"]), (vec![[10, 0, 0, 2].into()], 80));
        assert_eq!(seen.keep.len(), 2);
    }

    #[test]
    fn what_does_not_run_is_remembered_and_not_probed() {
        let seen = inputs(&NodeFacts::default(), &view(&ContainerState::Created));
        assert!(seen.targets.is_empty() && seen.keep.len() == 2, "{seen:?}");
    }
}
