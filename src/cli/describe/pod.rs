//! A pod in kubectl's words: the head, conditions, events. Pure; cells are parted by tabs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, Toleration};
use podstead_runtime::Time;

use super::{containers, volumes};
use crate::cli::output;
use crate::events::{Page, Record, Type};

/// All of it.
pub fn text(pod: &Pod, page: &Page, now: Time) -> String {
    let mut out = String::new();
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    head(&mut out, pod, &spec, &status);
    addresses(&mut out, &status);
    let of = |all: &Option<Vec<_>>| all.clone().unwrap_or_default();
    if let Some(init) = spec.init_containers.as_deref().filter(|all| !all.is_empty()) {
        containers::text(&mut out, "Init Containers", init, &of(&status.init_container_statuses));
    }
    containers::text(&mut out, "Containers", &spec.containers, &of(&status.container_statuses));
    conditions(&mut out, &status);
    volumes::text(&mut out, spec.volumes.as_deref().unwrap_or_default());
    let qos = status.qos_class.as_deref().unwrap_or("<unknown>");
    let _ = writeln!(out, "QoS Class:\t{qos}");
    list(&mut out, "Node-Selectors", &selectors(&spec));
    list(&mut out, "Tolerations", &spec.tolerations.iter().flatten().map(toleration).collect::<Vec<_>>());
    events(&mut out, page, now);
    out
}

fn head(out: &mut String, pod: &Pod, spec: &PodSpec, status: &PodStatus) {
    let meta = &pod.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let _ = writeln!(out, "Name:\t{}", text(&meta.name));
    let _ = writeln!(out, "Namespace:\t{}", text(&meta.namespace));
    let _ = writeln!(out, "Priority:\t{}", spec.priority.unwrap_or(0));
    if let Some(class) = &spec.priority_class_name {
        let _ = writeln!(out, "Priority Class Name:\t{class}");
    }
    let node = spec.node_name.as_deref().unwrap_or("<none>");
    let _ = writeln!(out, "Node:\t{node}/{}", text(&status.host_ip));
    if let Some(started) = &status.start_time {
        let _ = writeln!(out, "Start Time:\t{}", containers::moment(started));
    }
    list(out, "Labels", &pairs(meta.labels.as_ref(), "="));
    list(out, "Annotations", &pairs(meta.annotations.as_ref(), ": "));
    match &meta.deletion_timestamp {
        Some(_) => {
            let _ = writeln!(out, "Status:\tTerminating");
            let grace = spec.termination_grace_period_seconds.unwrap_or(30);
            let _ = writeln!(out, "Termination Grace Period:\t{grace}s");
        }
        None => {
            let _ = writeln!(out, "Status:\t{}", status.phase.as_deref().unwrap_or("Unknown"));
        }
    }
    for (name, value) in [("Reason", &status.reason), ("Message", &status.message)] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            let _ = writeln!(out, "{name}:\t{value}");
        }
    }
}

fn addresses(out: &mut String, status: &PodStatus) {
    let _ = writeln!(out, "IP:\t{}", status.pod_ip.as_deref().unwrap_or_default());
    let ips = status.pod_ips.as_deref().unwrap_or_default();
    if ips.is_empty() {
        let _ = writeln!(out, "IPs:\t<none>");
        return;
    }
    let _ = writeln!(out, "IPs:");
    for ip in ips {
        let _ = writeln!(out, "  IP:\t{}", ip.ip);
    }
}

fn pairs(map: Option<&BTreeMap<String, String>>, between: &str) -> Vec<String> {
    map.into_iter().flatten().map(|(key, value)| format!("{key}{between}{value}")).collect()
}

/// One line per item, the first beside the name.
fn list(out: &mut String, name: &str, items: &[String]) {
    let mut items = items.iter().map(|text| one_line(text));
    let _ = writeln!(out, "{name}:\t{}", items.next().unwrap_or_else(|| "<none>".to_owned()));
    items.for_each(|item| {
        let _ = writeln!(out, "\t{item}");
    });
}

/// What would break the layout, or say things to a terminal, is shown as it is written in a source.
pub fn one_line(text: &str) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

fn selectors(spec: &PodSpec) -> Vec<String> {
    pairs(spec.node_selector.as_ref(), "=")
}

/// `key=value:effect op=Exists for 300s`.
fn toleration(toleration: &Toleration) -> String {
    let mut text = toleration.key.clone().unwrap_or_default();
    if let Some(value) = toleration.value.as_deref().filter(|v| !v.is_empty()) {
        let _ = write!(text, "={value}");
    }
    if let Some(effect) = toleration.effect.as_deref().filter(|e| !e.is_empty()) {
        let _ = write!(text, ":{effect}");
    }
    if toleration.operator.as_deref() == Some("Exists")
        && toleration.value.as_deref().unwrap_or_default().is_empty()
    {
        text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration.toleration_seconds {
        let _ = write!(text, " for {seconds}s");
    }
    text
}

fn conditions(out: &mut String, status: &PodStatus) {
    let all = status.conditions.as_deref().unwrap_or_default();
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "Conditions:\n  Type\tStatus");
    for condition in all {
        let _ = writeln!(out, "  {}\t{}", condition.type_, condition.status);
    }
}

fn events(out: &mut String, page: &Page, now: Time) {
    if page.records.is_empty() {
        let _ = writeln!(out, "Events:\t<none>");
        return;
    }
    let _ = writeln!(out, "Events:\n  Type\tReason\tAge\tFrom\tMessage\n  ----\t------\t----\t----\t-------");
    for record in &page.records {
        let kind = match record.kind {
            Type::Normal => "Normal",
            Type::Warning => "Warning",
        };
        let about = record.container.as_ref().map(|container| {
            let list = if page.init.contains(container) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{container}}}: ")
        });
        let message = one_line(record.message.trim());
        let _ = writeln!(
            out,
            "  {kind}\t{}\t{}\tpodstead\t{}{message}",
            record.reason,
            age(record, now),
            about.unwrap_or_default()
        );
    }
}

/// `5s`, or `5s (x3 over 2m)`.
fn age(record: &Record, now: Time) -> String {
    let last = output::age(record.last, now);
    if record.count > 1 {
        format!("{last} (x{} over {})", record.count, output::age(record.first, now))
    } else {
        last
    }
}

#[cfg(test)]
mod tests {
    use super::super::tabs;
    use super::*;

    #[test]
    fn a_pod_reads_as_kubectl_describes_it() {
        let pod: Pod = serde_yaml::from_str(include_str!("../../../fixtures/describe/pod.yaml")).unwrap();
        let record = |reason: &str, container: Option<&str>, kind, count| Record {
            container: container.map(str::to_owned),
            kind,
            reason: reason.to_owned(),
            message: format!("{reason} it\n"),
            count,
            first: Time::from_secs(1_000),
            last: Time::from_secs(1_060),
        };
        let page = Page {
            name: "default/web-node1".into(),
            init: ["setup".to_owned()].into(),
            records: [
                record("Pulled", Some("setup"), Type::Normal, 1),
                record("BackOff", Some("web"), Type::Warning, 7),
                record("SandboxChanged", None, Type::Normal, 1),
            ]
            .into(),
        };
        let got = tabs::align(&text(&pod, &page, Time::from_secs(1_065)));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/describe/pod.expected");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn what_is_not_known_is_said_to_be_none() {
        let got = tabs::align(&text(&Pod::default(), &Page::default(), Time(1)));
        let none = ["Labels:", "Annotations:", "IPs:", "Events:"];
        for name in none {
            let line = got.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            assert!(line.ends_with("<none>"), "{name} in {got}");
        }
        assert!(got.contains("QoS Class:") && got.contains("Node:         <none>/"), "{got}");
    }

    #[test]
    fn text_from_elsewhere_says_nothing_to_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(one_line("caf\u{e9} \"x\""), "caf\u{e9} \"x\"");
    }
}
