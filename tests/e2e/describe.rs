//! `podstead describe` and the events behind it, on both backends.

use std::time::Duration;

use podstead::testing::Node;
use serde_json::Value;

use crate::cli::{fails, ok};
use crate::support::{Host, on_both};

on_both!(a_pod_is_described_with_what_happened_to_it);

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: both, labels: {app: both}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 2
  volumes: [{name: tmp, emptyDir: {}}]
  containers:
  - name: crash
    image: "localhost/podstead/busybox:1"
    command: [sh, -c, "exit 3"]
  - name: up
    image: "localhost/podstead/busybox:1"
    command: [sleep, "100000"]
    env: [{name: MODE, value: fast}]
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: tmp, mountPath: /tmp/x}]
"#;

/// Asks until the answer is as wanted; the agent publishes a few times a second.
async fn until(node: &Node, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let text = ok(node, args);
        if wanted(&text) {
            return text;
        }
        assert!(std::time::Instant::now() < deadline, "not in time: {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a line has these words beside each other, however far apart.
fn has(text: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let wanted = words(line);
    text.lines().any(|l| words(l).starts_with(&wanted))
}

/// How often something happened to the pod's container.
fn count(list: &Value, reason: &str, container: &str) -> u64 {
    let field = format!("spec.containers{{{container}}}");
    let events = list["items"].as_array().expect("items").iter();
    events
        .filter(|e| {
            e["kind"] == "Event" && e["reason"] == reason && e["involvedObject"]["fieldPath"] == field
        })
        .map(|e| e["count"].as_u64().expect("a count"))
        .sum()
}

async fn a_pod_is_described_with_what_happened_to_it(host: &Host) {
    let mut node = host.node().await;
    let pod = node.apply("both", POD).expect("apply");
    pod.until("the second end", |_, all| {
        let over = |c: &&podstead_runtime::Container| c.name == "crash" && c.attempt == 1 && !c.is_running();
        all.iter().find(over).filter(|c| c.state.exit_code() == Some(3)).cloned()
    })
    .await
    .expect("it crashes twice");
    let waits = |text: &str| text.contains("CrashLoopBackOff") && text.contains("  BackOff");
    let text = until(&node, &["describe", "both-node"], waits).await;
    for line in [
        "Name: both-node",
        "Namespace: default",
        "Labels: app=both",
        "Status: Running",
        "crash:",
        "State: Waiting",
        "Reason: CrashLoopBackOff",
        "Last State: Terminated",
        "Exit Code: 3",
        "Restart Count: 1",
        "State: Running",
        "Ready: True",
        "memory: 64Mi",
        "MODE: fast",
        "/tmp/x from tmp (rw)",
        "Type: EmptyDir",
        "QoS Class: Burstable",
    ] {
        assert!(has(&text, line), "{line} in {text}");
    }
    let tail = text.split_once("\nEvents:\n").expect("events").1;
    for (reason, more) in [
        ("Normal Pulled", "already present on machine"),
        ("Normal Created", "spec.containers{crash}: Container created"),
        ("Normal Started", "spec.containers{up}: Container started"),
        ("Warning BackOff", "Back-off restarting failed container crash in pod both-node_default("),
    ] {
        assert!(tail.lines().any(|l| has(l, reason) && l.contains(more)), "{reason} in {text}");
    }

    let list = |node: &Node| -> Value {
        let json: Value = serde_json::from_str(&ok(node, &["describe", "both", "-o", "json"])).expect("JSON");
        let yaml: Value = serde_yaml::from_str(&ok(node, &["describe", "both", "-o", "yaml"])).expect("YAML");
        assert_eq!(json, yaml);
        json
    };
    let all = list(&node);
    assert_eq!((&all["kind"], &all["items"][0]["kind"]), (&"List".into(), &"Pod".into()));
    assert_eq!((count(&all, "Started", "crash"), count(&all, "Started", "up")), (2, 1), "{all}");
    assert!(fails(&node, 3, &["describe", "nothing"]).contains("podstead pods"));

    // Without an agent: what the runtime has, and what is remembered.
    node.stop_agent().await;
    let text = ok(&node, &["describe", "both-node"]);
    for line in ["Name: both-node", "up:", "State: Running", "Exit Code: 3", "Warning BackOff"] {
        assert!(has(&text, line), "{line} in {text}");
    }
    node.restart_agent().await.expect("restart the agent");
    node.pod("both").kill("up").await.expect("kill");
    node.pod("both").running_again("up", 1).await.expect("again");
    let again = |text: &str| {
        let all: Value = serde_json::from_str(text).expect("JSON");
        count(&all, "Started", "up") == 2
    };
    let all = until(&node, &["describe", "both", "-o", "json"], again).await;
    let all: Value = serde_json::from_str(&all).expect("JSON");
    assert!(count(&all, "BackOff", "crash") >= 1 && count(&all, "Created", "crash") >= 2, "{all}");
}
