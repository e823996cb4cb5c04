//! Manifests -> the table the decision reads ([`plan::Desired`]). Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use sha2::{Digest, Sha256};

use crate::manifest::canonical_container;
use crate::plan;
use crate::pod::container::{is_sidecar, with_tag};
use crate::pod::identity;

/// As much of a pod as the decision needs.
pub fn planned(pod: &Pod) -> plan::Pod {
    let spec = pod.spec.as_ref();
    let seconds = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let init = spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    plan::Pod {
        identity: identity::identity(pod),
        host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
        restart_policy: spec.and_then(|s| policy(s.restart_policy.as_deref()?)).unwrap_or_default(),
        grace: whole_seconds(seconds),
        deadline: spec.and_then(|s| s.active_deadline_seconds).map(whole_seconds),
        init: init.map(init_container).collect(),
        containers: spec.iter().flat_map(|s| &s.containers).map(container).collect(),
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

fn init_container(one: &Container) -> plan::ContainerPlan {
    let role = if is_sidecar(one) { plan::Role::Sidecar } else { plan::Role::Init };
    plan::ContainerPlan { role, ..container(one) }
}

fn container(container: &Container) -> plan::ContainerPlan {
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

/// Changes with anything meant by the container, so that an edit under a fixed `metadata.uid` takes effect; the kubelet
/// looks at name and image only. Of the same canonical form as the uid, so that another spelling restarts nothing.
fn hash(container: &Container) -> String {
    hex::encode(&Sha256::digest(canonical_container(container))[..4])
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
}
