//! The API's rules about the life of containers: deadlines, init containers and sidecars, restart policies, hooks,
//! termination messages. Pure.

use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, PodSpec};

use super::admit::Report;
use super::admit_probes::Action;
use crate::pod::container::is_sidecar;

const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;

/// Rules about the pod as a whole.
pub(super) fn pod(spec: &PodSpec, report: &mut Report<'_>) {
    if spec.active_deadline_seconds.is_some_and(|s| !(1..=i64::from(i32::MAX)).contains(&s)) {
        report.add("spec.activeDeadlineSeconds", "must be between 1 and 2147483647, inclusive");
    }
}

/// Rules about one container, `init` if it is one of `initContainers`.
pub(super) fn container(
    spec: &PodSpec,
    container: &Container,
    init: bool,
    field: &str,
    report: &mut Report<'_>,
) {
    restarts(container, init, field, report);
    termination_message(container, field, report);
    if init && !is_sidecar(container) {
        for (name, there) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if there {
                let text = "may not be set for init containers without restartPolicy=Always";
                report.add(&format!("{field}.{name}"), text);
            }
        }
        return;
    }
    if let Some(lifecycle) = &container.lifecycle {
        self::lifecycle(spec, lifecycle, &format!("{field}.lifecycle"), report);
    }
}

fn restarts(container: &Container, init: bool, field: &str, report: &mut Report<'_>) {
    if let Some(policy) = &container.restart_policy {
        report.one_of(&format!("{field}.restartPolicy"), policy, &["Always", "OnFailure", "Never"]);
    }
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let field = format!("{field}.restartPolicyRules");
    if rules.is_empty() {
        return;
    }
    if container.restart_policy.is_none() {
        report.add(&field, "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > MAX_RULES {
        report.add(&field, format!("must have at most {MAX_RULES} items"));
    }
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match rule.action.as_str() {
            "RestartAllContainers" => {}
            "Restart" if init && is_sidecar(container) => {
                let text = "a sidecar is restarted always: only RestartAllContainers may be said here";
                report.add(&format!("{field}.action"), text);
            }
            action => report.one_of(&format!("{field}.action"), action, &["Restart", "RestartAllContainers"]),
        }
        let Some(codes) = &rule.exit_codes else {
            report.add(&format!("{field}.exitCodes"), "must be specified");
            continue;
        };
        report.one_of(&format!("{field}.exitCodes.operator"), &codes.operator, &["In", "NotIn"]);
        let count = codes.values.as_deref().unwrap_or_default().len();
        if count == 0 {
            report.add(&format!("{field}.exitCodes.values"), "must specify at least one value");
        } else if count > MAX_CODES {
            let text = format!("must have at most {MAX_CODES} items");
            report.add(&format!("{field}.exitCodes.values"), text);
        }
    }
}

fn termination_message(container: &Container, field: &str, report: &mut Report<'_>) {
    if let Some(policy) = &container.termination_message_policy {
        let known = ["File", "FallbackToLogsOnError"];
        report.one_of(&format!("{field}.terminationMessagePolicy"), policy, &known);
    }
    let path = container.termination_message_path.as_deref().unwrap_or("/");
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        let text = "must be an absolute path without \"..\"";
        report.add(&format!("{field}.terminationMessagePath"), text);
    }
}

fn lifecycle(spec: &PodSpec, lifecycle: &Lifecycle, field: &str, report: &mut Report<'_>) {
    for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            handler(spec, hook, &format!("{field}.{name}"), report);
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let field = format!("{field}.stopSignal");
        if spec.os.is_none() {
            report.add(&field, "may not be set for containers with empty `spec.os.name`");
        }
        if !is_signal(signal) {
            report.add(&field, format!("\"{signal}\" is not the name of a signal, such as SIGTERM"));
        }
    }
}

fn handler(spec: &PodSpec, hook: &LifecycleHandler, field: &str, report: &mut Report<'_>) {
    let action = Action {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        others: usize::from(hook.sleep.is_some()),
        ..Action::default()
    };
    action.check(field, report);
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    if let Some(sleep) = &hook.sleep
        && !(0..=grace).contains(&sleep.seconds)
    {
        let text = format!(
            "must be greater than or equal to 0 and less than terminationGracePeriodSeconds ({grace})"
        );
        report.add(&format!("{field}.sleep.seconds"), text);
    }
}

/// `SIGTERM`, `SIGRTMIN`, `SIGRTMIN+3`, `SIGRTMAX-2`: names as the API has them, for Linux.
fn is_signal(name: &str) -> bool {
    const NAMES: [&str; 34] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "IOT", "POLL", "PWR", "SYS",
    ];
    let Some(name) = name.strip_prefix("SIG") else { return false };
    let offset = |rest: &str, sign: char, max: u32| {
        rest.is_empty() || rest.strip_prefix(sign).and_then(|n| n.parse().ok()).is_some_and(|n: u32| n <= max)
    };
    NAMES.contains(&name)
        || name.strip_prefix("RTMIN").is_some_and(|rest| offset(rest, '+', 15))
        || name.strip_prefix("RTMAX").is_some_and(|rest| offset(rest, '-', 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_of_linux() {
        for name in ["SIGTERM", "SIGRTMIN", "SIGRTMIN+3", "SIGRTMAX-14"] {
            assert!(is_signal(name), "{name}");
        }
        for name in ["TERM", "15", "SIGRTMIN+16", "SIGRTMIN-1", "SIGNONE", ""] {
            assert!(!is_signal(name), "{name}");
        }
    }
}
