//! The same manifests show the same status whatever runs them: `podstead pods -o yaml` of both backends, byte for byte,
//! but for ids, times and addresses.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use podstead::testing::Node;
use serde_json::Value as Json;

use crate::support::{Host, podstead};

/// Name, what is shown once it is settled, the rest of `spec`. `sh` runs in busybox.
const STEADY: &[(&str, &str, &str)] = &[
    ("plain", "Running c=running", "containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]"),
    (
        "host",
        "Running c=running",
        "hostNetwork: true\n  containers: [{name: c, image: IMAGE, command: [sleep, '100000'], \
         ports: [{containerPort: 30501}]}]",
    ),
    (
        "ports",
        "Running c=running",
        "containers: [{name: c, image: IMAGE, command: [sleep, '100000'], \
         ports: [{name: http, containerPort: 80, hostPort: 30502}, {containerPort: 53, protocol: UDP}]}]",
    ),
    (
        "limits",
        "Running c=running d=running",
        "containers:\n  - {name: d, image: IMAGE, command: [sleep, '100000'], resources: {limits: {cpu: 100m, memory: 32Mi}}}\n  \
         - {name: c, image: IMAGE, command: [sleep, '100000'], resources: {limits: {cpu: 100m, memory: 32Mi}}}",
    ),
    (
        "completed",
        "Succeeded c=terminated:Completed",
        "restartPolicy: Never\n  containers: [{name: c, image: IMAGE, command: [sh, -c, 'exit 0']}]",
    ),
    (
        "failed",
        "Failed c=terminated:Error",
        "restartPolicy: Never\n  containers: [{name: c, image: IMAGE, command: [sh, -c, 'exit 3']}]",
    ),
    (
        "killed",
        "Failed c=terminated:Error",
        "restartPolicy: Never\n  hostPID: true\n  containers: [{name: c, image: IMAGE, command: [sh, -c, 'kill -9 $$$$']}]",
    ),
    (
        "partly",
        "Running c=running d=terminated:Completed",
        "restartPolicy: OnFailure\n  containers:\n  - {name: d, image: IMAGE, command: ['true']}\n  \
         - {name: c, image: IMAGE, command: [sleep, '100000']}",
    ),
    (
        "message",
        "Failed c=terminated:Error d=terminated:Error",
        "restartPolicy: Never\n  containers:\n  \
         - {name: c, image: IMAGE, command: [sh, -c, 'echo why > /dev/termination-log; exit 1']}\n  \
         - {name: d, image: IMAGE, command: [sh, -c, 'echo first; echo last; exit 2'], terminationMessagePolicy: FallbackToLogsOnError}",
    ),
    (
        "init",
        "Running i=terminated:Completed s=running c=running",
        "initContainers:\n  - {name: i, image: IMAGE, command: ['true']}\n  \
         - {name: s, image: IMAGE, restartPolicy: Always, command: [sleep, '100000']}\n  \
         containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]",
    ),
    (
        "init-failed",
        "Failed i=terminated:Error c=waiting:PodInitializing",
        "restartPolicy: Never\n  initContainers: [{name: i, image: IMAGE, command: [sh, -c, 'exit 4']}]\n  \
         containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]",
    ),
    (
        "init-runs",
        "Pending i=running:unready c=waiting:PodInitializing",
        "initContainers: [{name: i, image: IMAGE, command: [sleep, '100000']}]\n  \
         containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]",
    ),
    (
        "ready",
        "Running c=running d=running:unready",
        "containers:\n  - name: c\n    image: IMAGE\n    command: [sleep, '100000']\n    \
         startupProbe: {exec: {command: ['true']}, periodSeconds: 1}\n    readinessProbe: {exec: {command: ['true']}, periodSeconds: 1}\n  \
         - name: d\n    image: IMAGE\n    command: [sleep, '100000']\n    readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}",
    ),
    (
        "oom",
        "Failed c=terminated:OOMKilled",
        "restartPolicy: Never\n  \
         containers: [{name: c, image: IMAGE, command: [tail, /dev/zero], resources: {limits: {memory: 16Mi}}}]",
    ),
    (
        "never-pulled",
        "Pending c=waiting:ErrImageNeverPull",
        "containers: [{name: c, image: 'localhost/podstead/nowhere:1', imagePullPolicy: Never}]",
    ),
    ("badly-named", "Pending c=waiting:InvalidImageName", "containers: [{name: c, image: 'UPPER/Case'}]"),
    (
        "root",
        "Pending c=waiting:CreateContainerConfigError",
        "securityContext: {runAsNonRoot: true}\n  containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]",
    ),
    (
        "rejected",
        "Pending(SysctlForbidden) c=waiting:ContainerCreating",
        "securityContext: {sysctls: [{name: kernel.msgmax, value: '65536'}]}\n  \
         containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]",
    ),
];

/// These change every ten seconds, and so come last.
const RESTLESS: &[(&str, &str, &str)] = &[
    (
        "crash",
        "Running c=waiting:CrashLoopBackOff*1",
        "containers: [{name: c, image: IMAGE, command: [sh, -c, 'exit 1']}]",
    ),
    (
        "init-crash",
        "Pending i=waiting:CrashLoopBackOff*1 c=waiting:PodInitializing",
        "initContainers: [{name: i, image: IMAGE, command: [sh, -c, 'exit 1']}]\n  \
         containers: [{name: c, image: IMAGE, command: [sleep, '100000']}]",
    ),
    (
        "unpulled",
        "Pending c=waiting:ImagePullBackOff",
        "containers: [{name: c, image: '127.0.0.1:1/podstead/nowhere:1'}]",
    ),
];

fn manifest(name: &str, spec: &str) -> String {
    let spec = spec.replace("IMAGE", "'localhost/podstead/busybox:1'");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}, annotations: {{note: hi}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 2\n  {spec}\n"
    )
}

/// A pod in a few words: `Running c=running d=waiting:CrashLoopBackOff*1`.
fn summary(pod: &Json) -> String {
    let status = &pod["status"];
    let mut text = status["phase"].as_str().unwrap_or_default().to_owned();
    if let Some(reason) = status["reason"].as_str() {
        let _ = write!(text, "({reason})");
    }
    let all = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array());
    for c in all.into_iter().flatten().flatten() {
        let (state, about) = c["state"].as_object().and_then(|s| s.iter().next()).expect("a state");
        let _ = write!(text, " {}={state}", c["name"].as_str().unwrap_or_default());
        if let Some(reason) = about["reason"].as_str() {
            let _ = write!(text, ":{reason}");
        } else if state == "running" && c["ready"] == false {
            text += ":unready";
        }
        if let Some(count) = c["restartCount"].as_i64().filter(|n| *n > 0) {
            let _ = write!(text, "*{count}");
        }
    }
    text
}

async fn settled(node: &Node, wanted: &[(&str, &str, &str)]) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let list: Json = serde_json::from_str(&podstead(node, &["pods", "-o", "json"])).expect("JSON");
        let pods = list["items"].as_array().expect("items");
        let name = |pod: &Json| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let seen: BTreeMap<String, String> = pods.iter().map(|p| (name(p), summary(p))).collect();
        let other = wanted
            .iter()
            .filter(|(name, word, _)| seen.get(&format!("{name}-node")).is_none_or(|seen| seen != word));
        let other: Vec<_> =
            other.map(|(name, word, _)| (name, word, seen.get(&format!("{name}-node")))).collect();
        if other.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {other:#?} {:?}", node.files());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Takes out what cannot be the same, and only where it has the form that it should have.
fn masked(text: &str) -> String {
    let is_time = |value: &str| value.parse::<Timestamp>().is_ok();
    let is_ip = |value: &str| value.parse::<IpAddr>().is_ok();
    let is_id = |value: &str| {
        let hex = |s: &str| s.len() == 64 && s.chars().all(|c| c.is_ascii_hexdigit());
        value.split_once("://").is_some_and(|(runtime, id)| !runtime.is_empty() && hex(id))
    };
    let uids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    uid: ")).collect();
    let mut out = String::new();
    for line in text.lines() {
        let (key, value) = line.split_once(": ").unwrap_or((line, ""));
        let bare = value.trim_matches(['\'', '"']);
        let word = match key.trim_start_matches([' ', '-']) {
            "containerID" if is_id(bare) => "ID",
            "startedAt" | "finishedAt" | "startTime" | "lastTransitionTime" | "kubernetes.io/config.seen"
                if is_time(bare) =>
            {
                "TIME"
            }
            "podIP" | "hostIP" | "ip" if is_ip(bare) => "ADDRESS",
            _ => value,
        };
        let mut line = if line.contains(": ") { format!("{key}: {word}") } else { line.to_owned() };
        for uid in &uids {
            line = line.replace(uid, "UID");
        }
        out += &line;
        out += "\n";
    }
    out
}

/// Why a registry cannot be had is told in the runtime's own words: only that much of a message is left out.
fn without_the_registry(text: &str) -> String {
    let cut = |line: &str| match line.split_once("Back-off pulling image \"") {
        Some((key, rest)) => {
            let image = rest.split('"').next().unwrap_or_default();
            format!("{}Back-off pulling image \"{image}\": ...\n", key.trim_end_matches(['\'', '"']))
        }
        None => format!("{line}\n"),
    };
    text.lines().map(cut).collect()
}

async fn shown(host: &Host) -> String {
    let node = host.node().await;
    for (name, _, spec) in STEADY {
        node.apply(name, &manifest(name, spec)).expect("apply");
    }
    settled(&node, STEADY).await;
    for (name, _, spec) in RESTLESS {
        node.apply(name, &manifest(name, spec)).expect("apply");
    }
    settled(&node, RESTLESS).await;
    without_the_registry(&masked(&podstead(&node, &["pods", "-o", "yaml"])))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_backends_show_the_same_status_byte_for_byte() {
    let direct = shown(&Host::direct()).await;
    let containerd = shown(&Host::containerd()).await;
    let mut pod = "";
    let mut wrong = Vec::new();
    for (ours, theirs) in direct.lines().zip(containerd.lines()) {
        pod = ours.strip_prefix("    name: ").unwrap_or(pod);
        if ours != theirs {
            wrong.push(format!("{pod}\n  direct:     {ours}\n  containerd: {theirs}"));
        }
    }
    if direct != containerd {
        let dir = std::env::temp_dir();
        for (name, text) in [("direct", &direct), ("containerd", &containerd)] {
            let _ = std::fs::write(dir.join(format!("podstead-equal.{name}.yaml")), text);
        }
    }
    assert!(
        direct == containerd,
        "{} lines, {}:\n{}",
        direct.lines().count(),
        containerd.lines().count(),
        wrong.join("\n")
    );
}

#[test]
fn the_mask_hides_nothing_but_ids_times_and_addresses() {
    let text = format!(
        "    uid: abc\n  containerID: podstead://{}\n  containerID: none\n  startedAt: 2026-01-01T00:00:00Z\n  startedAt: soon\n  \
         podIP: 10.0.0.1\n  - ip: ::1\n  ip: here\n  message: of abc\n  image: a:1\n",
        "0".repeat(64)
    );
    let expected = "    uid: UID\n  containerID: ID\n  containerID: none\n  startedAt: TIME\n  startedAt: soon\n  \
                    podIP: ADDRESS\n  - ip: ADDRESS\n  ip: here\n  message: of UID\n  image: a:1\n";
    assert_eq!(masked(&text), expected);
}
