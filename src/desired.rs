//! Manifests -> the table the decision reads ([`plan::Desired`]). Pure.

mod claim;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, PodSpec, Probe};
use sha2::{Digest, Sha256};

use crate::manifest::{canonical_container, canonical_security_context};
use crate::plan;
use crate::pod::container::{is_sidecar, with_tag};
use crate::pod::{NodeFacts, admission, identity, resources};

pub use claim::{claim, rank};

/// The table of what should be on this node, which has `room`.
pub fn table<'a>(
    node: &NodeFacts,
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    complete: bool,
    room: plan::Room,
) -> plan::Desired {
    let one = |pod: &Arc<Pod>| {
        let refused = admission::admit(node, pod).err();
        let refused = refused.map(|r| plan::Refusal { reason: r.reason.to_owned(), message: r.message });
        let planned = plan::Pod { refused, ..planned(pod) };
        (planned.identity.uid.clone(), planned)
    };
    plan::Desired { pods: pods.into_iter().map(one).collect(), complete, room: Some(room) }
}

/// As much of a pod as the decision needs, but for what this node says to it.
pub fn planned(pod: &Pod) -> plan::Pod {
    let none = PodSpec::default();
    let whole = pod.spec.as_ref().unwrap_or(&none);
    let spec = pod.spec.as_ref();
    let seconds = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let init = spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    plan::Pod {
        identity: identity::identity(pod),
        host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
        restart_policy: spec.and_then(|s| policy(s.restart_policy.as_deref()?)).unwrap_or_default(),
        grace: whole_seconds(seconds),
        deadline: spec.and_then(|s| s.active_deadline_seconds).map(whole_seconds),
        size: resources::pod_size(whole),
        class: resources::qos_class(whole).as_str().to_owned(),
        claim: claim(pod),
        rank: rank(pod),
        refused: None,
        init: init.map(|c| with_context(init_container(whole, c), whole)).collect(),
        containers: whole.containers.iter().map(|c| with_context(container(whole, c), whole)).collect(),
    }
}

fn whole_seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn policy(text: &str) -> Option<plan::RestartPolicy> {
    match text {
        "Always" => Some(plan::RestartPolicy::Always),
        "OnFailure" => Some(plan::RestartPolicy::OnFailure),
        "Never" => Some(plan::RestartPolicy::Never),
        _ => None,
    }
}

fn init_container(spec: &PodSpec, one: &Container) -> plan::ContainerPlan {
    let role = if is_sidecar(one) { plan::Role::Sidecar } else { plan::Role::Init };
    plan::ContainerPlan { role, ..container(spec, one) }
}

fn container(spec: &PodSpec, container: &Container) -> plan::ContainerPlan {
    let restarts = |name: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies.into_iter().any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    let rules = container.restart_policy_rules.iter().flatten().filter_map(|rule| {
        let codes = rule.exit_codes.as_ref()?;
        let values = codes.values.clone().unwrap_or_default();
        Some(plan::RestartRule {
            within: codes.operator == "In",
            codes: values,
            all: rule.action == "RestartAllContainers",
        })
    });
    let grace = |probe: Option<&Probe>| probe?.termination_grace_period_seconds.map(whole_seconds);
    plan::ContainerPlan {
        name: container.name.clone(),
        image: with_tag(container.image.as_deref().unwrap_or_default()),
        hash: hash(container),
        frame: hash(&frame(container)),
        context: String::new(),
        size: resources::size(spec, container),
        restarts_for_cpu: restarts("cpu"),
        restarts_for_memory: restarts("memory"),
        role: plan::Role::Regular,
        restart_policy: container.restart_policy.as_deref().and_then(policy),
        restart_rules: rules.collect(),
        post_start: container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()),
        probes: plan::Probes {
            startup: container.startup_probe.is_some(),
            liveness: container.liveness_probe.is_some(),
            readiness: container.readiness_probe.is_some(),
            startup_grace: grace(container.startup_probe.as_ref()),
            liveness_grace: grace(container.liveness_probe.as_ref()),
        },
    }
}

/// What the pod's security context says of its containers is part of each: an edit of it under a fixed `metadata.uid`
/// restarts them, too. A context that says nothing leaves the hash as it is. Sysctls are the sandbox's.
fn with_context(plan: plan::ContainerPlan, spec: &PodSpec) -> plan::ContainerPlan {
    let context = spec.security_context.clone().unwrap_or_default();
    let context = PodSecurityContext { sysctls: None, ..context };
    let text = canonical_security_context(&context);
    if text == "{}" {
        return plan;
    }
    plan::ContainerPlan { context: hex::encode(&Sha256::digest(text)[..4]), ..plan }
}

/// Changes with anything meant by the container, so that an edit under a fixed `metadata.uid` takes effect; the kubelet
/// looks at name and image only. Of the same canonical form as the uid, so that another spelling restarts nothing.
fn hash(container: &Container) -> String {
    hex::encode(&Sha256::digest(canonical_container(container))[..4])
}

/// A container without what can be changed while it runs.
fn frame(container: &Container) -> Container {
    let mut frame = container.clone();
    frame.resize_policy = None;
    let tables = frame.resources.iter_mut().flat_map(|r| [&mut r.limits, &mut r.requests]);
    for table in tables.flatten() {
        table.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_every_field() {
        let plain = Container { name: "c".into(), image: Some("i".into()), ..Container::default() };
        let other = Container { command: Some(vec!["x".into()]), ..plain.clone() };
        assert_eq!(hash(&plain), hash(&plain.clone()));
        assert_ne!(hash(&plain), hash(&other));
    }

    #[test]
    fn the_hash_follows_the_meaning_and_not_the_spelling() {
        let of = |more: &str| {
            let text = format!("{{name: c, image: i, {more}}}");
            hash(&serde_yaml::from_str::<Container>(&text).unwrap())
        };
        let limits =
            |cpu: &str| of(&format!("resources: {{limits: {{cpu: {cpu}}}, requests: {{cpu: {cpu}}}}}"));
        assert_eq!(limits("500m"), limits("\"0.5\""));
        assert_ne!(limits("500m"), limits("501m"));
        assert_eq!(of(""), of("args: [], resources: {}"));
        assert_ne!(of("args: [500m]"), of("args: [\"0.5\"]"), "only quantities are numbers");
        // Frozen: another value would restart every container whose pod has a uid of its own.
        assert_eq!(limits("500m"), "381b9554");
    }

    #[test]
    fn the_context_follows_the_pods_security_context_and_not_its_sysctls() {
        let of = |context: &str| {
            let text = format!(
                "metadata: {{name: p}}\nspec: {{securityContext: {context}, containers: [{{name: c, image: i}}], \
                 initContainers: [{{name: i, image: i}}]}}"
            );
            let pod = planned(&serde_yaml::from_str(&text).unwrap());
            let plain = hash(&serde_yaml::from_str("{name: c, image: i}").unwrap());
            assert_eq!(pod.containers[0].hash, plain, "an upgrade restarts nothing");
            (pod.containers[0].context.clone(), pod.init[0].context.clone())
        };
        assert_eq!((of("{}").0, of("{supplementalGroups: []}").0), (String::new(), String::new()));
        let (user, init) = of("{runAsUser: 7}");
        assert!(!user.is_empty() && user != of("{runAsUser: 8}").0 && !init.is_empty());
        assert_eq!(of("{sysctls: [{name: net.core.somaxconn, value: \"1\"}]}").0, "");
        assert_eq!(of("{runAsUser: 7, supplementalGroups: []}").0, user);
    }
}
