//! Validation of probes and of the actions that hooks share with them. Pure; the messages are the API server's.

use k8s_openapi::api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::admit::Report;
use super::names;

/// The three probes of a container.
pub(super) fn probes(container: &Container, field: &str, report: &mut Report<'_>) {
    for (name, probe, readiness) in [
        ("livenessProbe", &container.liveness_probe, false),
        ("readinessProbe", &container.readiness_probe, true),
        ("startupProbe", &container.startup_probe, false),
    ] {
        let Some(probe) = probe else { continue };
        let field = format!("{field}.{name}");
        self::probe(probe, &field, report);
        if readiness && probe.termination_grace_period_seconds.is_some() {
            report.add(
                &format!("{field}.terminationGracePeriodSeconds"),
                "must not be set for readinessProbes",
            );
        }
        // A negative one is told above.
        if !readiness && probe.success_threshold.is_some_and(|n| n > 1) {
            report.add(&format!("{field}.successThreshold"), "must be 1");
        }
    }
}

fn probe(probe: &Probe, field: &str, report: &mut Report<'_>) {
    let action = Action {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        others: 0,
    };
    action.check(field, report);
    for (name, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if number.is_some_and(|n| n < 0) {
            report.add(&format!("{field}.{name}"), "must be greater than or equal to 0");
        }
    }
    if probe.termination_grace_period_seconds.is_some_and(|n| n <= 0) {
        report.add(&format!("{field}.terminationGracePeriodSeconds"), "must be greater than 0");
    }
}

/// What a probe or hook does: exactly one of these.
#[derive(Clone, Copy, Default)]
pub(super) struct Action<'a> {
    pub(super) exec: Option<&'a ExecAction>,
    pub(super) http_get: Option<&'a HTTPGetAction>,
    pub(super) tcp_socket: Option<&'a TCPSocketAction>,
    pub(super) grpc: Option<&'a GRPCAction>,
    /// How many more it has that are checked elsewhere.
    pub(super) others: usize,
}

impl Action<'_> {
    /// Exactly one, and that one in order.
    pub(super) fn check(&self, field: &str, report: &mut Report<'_>) {
        let mut found = self.others;
        let mut first = |name: &str, report: &mut Report<'_>| {
            found += 1;
            if found > 1 {
                report.add(&format!("{field}.{name}"), "may not specify more than 1 handler type");
            }
            found == 1
        };
        if let Some(action) = self.exec
            && first("exec", report)
            && action.command.as_deref().unwrap_or_default().is_empty()
        {
            report.add(&format!("{field}.exec.command"), "is missing");
        }
        if let Some(action) = self.http_get
            && first("httpGet", report)
        {
            http_get(action, &format!("{field}.httpGet"), report);
        }
        if let Some(action) = self.tcp_socket
            && first("tcpSocket", report)
        {
            port(&action.port, &format!("{field}.tcpSocket.port"), report);
        }
        if let Some(action) = self.grpc
            && first("grpc", report)
        {
            grpc(action, &format!("{field}.grpc"), report);
        }
        if found == 0 {
            report.add(field, "must specify a handler type");
        }
    }
}

fn http_get(action: &HTTPGetAction, field: &str, report: &mut Report<'_>) {
    port(&action.port, &format!("{field}.port"), report);
    if let Some(scheme) = action.scheme.as_deref() {
        report.one_of(&format!("{field}.scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for (index, header) in action.http_headers.iter().flatten().enumerate() {
        let field = format!("{field}.httpHeaders[{index}]");
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if header.name.is_empty() || !header.name.chars().all(fits) {
            report.add(
                &format!("{field}.name"),
                format!(
                    "\"{}\": a valid HTTP header must consist of alphanumeric characters or '-'",
                    header.name.escape_debug()
                ),
            );
        }
        if header.value.chars().any(|c| c.is_control() && c != '\t') {
            // The API takes it, and then no request can be made.
            report.add(&format!("{field}.value"), "may not contain control characters");
        }
    }
}

fn grpc(action: &GRPCAction, field: &str, report: &mut Report<'_>) {
    port(&IntOrString::Int(action.port), &format!("{field}.port"), report);
    if let Some(mode) = action.mode.as_deref() {
        report.one_of(&format!("{field}.mode"), mode, &["Plaintext", "TLS"]);
    }
}

fn port(port: &IntOrString, field: &str, report: &mut Report<'_>) {
    match port {
        IntOrString::Int(number) if !(1..=65535).contains(number) => {
            report.add(field, "must be between 1 and 65535, inclusive");
        }
        IntOrString::Int(_) => {}
        IntOrString::String(name) => report.verdict(field, names::port(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Places;
    use super::super::refusal::{Position, Refusals};
    use super::*;

    fn refused(yaml: &str) -> Vec<String> {
        let container: Container = serde_yaml::from_str(&format!("{{name: c, {yaml}}}")).unwrap();
        let mut refusals = Refusals::new(std::path::Path::new("f"));
        let places = Places::new();
        let mut report =
            Report { places: &places, prefix: "", start: Position::START, refusals: &mut refusals };
        probes(&container, "c", &mut report);
        let text = |r: &super::super::refusal::Refusal| format!("{}: {}", r.field, r.message);
        refusals.into_sorted().iter().map(text).collect()
    }

    #[test]
    fn good_probes_are_taken() {
        for yaml in [
            "livenessProbe: {exec: {command: [x]}, terminationGracePeriodSeconds: 1, periodSeconds: 0}",
            "readinessProbe: {httpGet: {port: web, path: /x, scheme: HTTPS}, successThreshold: 3}",
            "startupProbe: {tcpSocket: {port: 65535}, failureThreshold: 30, successThreshold: 1}",
            "livenessProbe: {grpc: {port: 1, service: s, mode: TLS}}",
        ] {
            assert_eq!(refused(yaml), Vec::<String>::new(), "{yaml}");
        }
    }

    #[test]
    fn each_rule_has_its_message() {
        let missing = "must be between 1 and 65535, inclusive";
        for (yaml, field, message) in [
            ("livenessProbe: {}", "livenessProbe", "must specify a handler type"),
            ("startupProbe: {exec: {}}", "startupProbe.exec.command", "is missing"),
            (
                "startupProbe: {exec: {command: [x]}, grpc: {port: 1}}",
                "startupProbe.grpc",
                "may not specify more than 1 handler type",
            ),
            ("livenessProbe: {httpGet: {}}", "livenessProbe.httpGet.port", missing),
            ("livenessProbe: {tcpSocket: {port: 70000}}", "livenessProbe.tcpSocket.port", missing),
            ("livenessProbe: {grpc: {port: 0}}", "livenessProbe.grpc.port", missing),
            (
                "livenessProbe: {grpc: {port: 1, mode: tls}}",
                "livenessProbe.grpc.mode",
                "\"tls\" is not one of Plaintext, TLS",
            ),
            (
                "livenessProbe: {httpGet: {port: 1, scheme: https}}",
                "livenessProbe.httpGet.scheme",
                "\"https\" is not one of HTTP, HTTPS",
            ),
            (
                "livenessProbe: {httpGet: {port: 1, httpHeaders: [{name: a b, value: x}]}}",
                "livenessProbe.httpGet.httpHeaders[0].name",
                "\"a b\": a valid HTTP header must consist of alphanumeric characters or '-'",
            ),
            (
                "livenessProbe: {httpGet: {port: 1, httpHeaders: [{name: a, value: \"x\\ny\"}]}}",
                "livenessProbe.httpGet.httpHeaders[0].value",
                "may not contain control characters",
            ),
            (
                "livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}",
                "livenessProbe.successThreshold",
                "must be 1",
            ),
            (
                "startupProbe: {tcpSocket: {port: 1}, successThreshold: 2}",
                "startupProbe.successThreshold",
                "must be 1",
            ),
            (
                "readinessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 5}",
                "readinessProbe.terminationGracePeriodSeconds",
                "must not be set for readinessProbes",
            ),
            (
                "livenessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 0}",
                "livenessProbe.terminationGracePeriodSeconds",
                "must be greater than 0",
            ),
            (
                "readinessProbe: {tcpSocket: {port: 1}, initialDelaySeconds: -1}",
                "readinessProbe.initialDelaySeconds",
                "must be greater than or equal to 0",
            ),
        ] {
            assert_eq!(refused(yaml), [format!("c.{field}: {message}")], "{yaml}");
        }
        let negative = "{tcpSocket: {port: 1}, timeoutSeconds: -1, periodSeconds: -1, successThreshold: -1, \
                        failureThreshold: -1}";
        assert_eq!(refused(&format!("livenessProbe: {negative}")).len(), 4);
        assert!(refused("livenessProbe: {tcpSocket: {port: \"80\"}}")[0].contains("at least one letter"));
    }
}
