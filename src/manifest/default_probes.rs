//! The API's defaults for probes and for the actions that hooks share with them. Pure.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};

/// Fills in the defaults of a container's probes.
pub(super) fn probes(container: &mut Container) {
    let all = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    all.into_iter().flatten().for_each(probe);
}

fn probe(probe: &mut Probe) {
    for (number, default) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        // A written 0 is the same as nothing, as in the API.
        *number = number.filter(|n| *n != 0).or(Some(default));
    }
    if let Some(action) = probe.http_get.as_mut() {
        http_get(action);
    }
    if let Some(action) = probe.grpc.as_mut() {
        action.service.get_or_insert_default();
    }
}

/// Path and scheme of a request.
pub(super) fn http_get(action: &mut HTTPGetAction) {
    for (text, default) in [(&mut action.path, "/"), (&mut action.scheme, "HTTP")] {
        if text.as_deref().unwrap_or_default().is_empty() {
            *text = Some(default.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_defaulted_and_what_is_said_stays() {
        let defaulted = |yaml: &str| {
            let mut one: Probe = serde_yaml::from_str(yaml).unwrap();
            probe(&mut one);
            serde_json::to_string(&one).unwrap()
        };
        assert_eq!(
            defaulted("{httpGet: {port: 1}, periodSeconds: 0}"),
            r#"{"failureThreshold":3,"httpGet":{"path":"/","port":1,"scheme":"HTTP"},"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1}"#
        );
        assert_eq!(
            defaulted("{grpc: {port: 1}, timeoutSeconds: 2, failureThreshold: 7, initialDelaySeconds: 0}"),
            r#"{"failureThreshold":7,"grpc":{"port":1,"service":""},"initialDelaySeconds":0,"periodSeconds":10,"successThreshold":1,"timeoutSeconds":2}"#
        );
    }
}
