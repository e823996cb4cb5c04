//! Room on the node: pods that do not fit, ports that are taken, nodes that are not wanted, critical pods; on both backends.

use std::process::Command;
use std::time::Duration;

use podstead::node::facts;
use podstead::testing::{Node, PodHandle};
use podstead_runtime::Container;

use crate::support::{BINARY, Host, on_both};

on_both!(
    a_pod_that_does_not_fit_starts_when_another_ends,
    a_port_of_the_node_is_one_pods_at_a_time,
    a_pod_for_another_node_is_refused_and_one_for_this_node_runs,
    a_critical_pod_takes_the_place_of_another_which_comes_back,
);

/// A node of which 1000m cpu and four pods' places are left.
async fn node(host: &Host) -> Node {
    let builder = host.builder().config(|config| {
        config.reserved.max_pods = 4;
        config.reserved.kube.insert("cpu".to_owned(), facts::cpu_capacity() - 1000);
        config.labels.insert("disk".to_owned(), "ssd".to_owned());
    });
    host.started(builder).await
}

/// A pod that sleeps, with this in its spec and its container.
fn manifest(name: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 2\n  {spec}\n  containers:\n  - name: c\n    \
         image: localhost/podstead/busybox:1\n    command: [/bin/sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; \
         done\"]\n    {container}\n"
    )
}

/// A pod that does not end before its grace is over.
fn stubborn(manifest: &str) -> String {
    manifest
        .replace("trap 'exit 0' TERM", "trap '' TERM")
        .replace("terminationGracePeriodSeconds: 2", "terminationGracePeriodSeconds: 5")
}

/// Waits until the second pod runs: only after the first has ended may it have what that had.
async fn takes_over(second: &PodHandle<'_>, first: &PodHandle<'_>) {
    let runs = second.until("it runs", |_, all| all.iter().any(Container::is_running).then_some(()));
    runs.await.expect("it starts by itself");
    let left = first.see().await.expect("see").map(|(_, all)| all).unwrap_or_default();
    assert!(!left.iter().any(Container::is_running), "before the other has ended: {left:?}");
}

fn asking(name: &str, spec: &str, cpu: &str) -> String {
    manifest(name, spec, &format!("resources: {{requests: {{cpu: {cpu}}}}}"))
}

/// Waits until the pod is shown with this reason, and answers phase and message.
async fn shown(node: &Node, pod: &PodHandle<'_>, reason: &str) -> (String, String) {
    let mut view = node.view().expect("an agent");
    let about = podstead::report::Node::default();
    let find = async {
        loop {
            let pods = podstead::report::pods(&view.borrow_and_update().clone(), &about);
            let own = pods.into_iter().find(|p| p.metadata.name.as_deref() == Some(pod.name()));
            let status = own.and_then(|p| p.status).unwrap_or_default();
            if status.reason.as_deref() == Some(reason) {
                return (status.phase.unwrap_or_default(), status.message.unwrap_or_default());
            }
            view.changed().await.expect("the agent lives");
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), find).await;
    told.unwrap_or_else(|_| panic!("{} is not shown with {reason}", pod.name()))
}

/// Waits until the command prints all of these words; the agent says what it knows a few times a second.
async fn prints(node: &Node, args: &[&str], words: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..200 {
        let output =
            Command::new(BINARY).args(args).args(node.runtime_flags()).output().expect("run podstead");
        text = String::from_utf8_lossy(&output.stdout).into_owned();
        if words.iter().all(|word| text.contains(word)) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("podstead {args:?} does not print {words:?}: {text}");
}

async fn a_pod_that_does_not_fit_starts_when_another_ends(host: &Host) {
    let mut node = node(host).await;
    let first = stubborn(&asking("first", "", "700m"));
    node.apply("first", &first).expect("apply").running().await.expect("it runs");
    let first = node.pod("first");
    let second = node.apply("second", &asking("second", "", "500m")).expect("apply");
    let (phase, message) = shown(&node, &second, "OutOfcpu").await;
    let numbers = "requested: 500, used: 700, capacity: 1000";
    assert_eq!(message, format!("Pod was rejected: Node didn't have enough resource: cpu, {numbers}"));
    assert_eq!(phase, "Pending");
    assert!(second.see().await.expect("see").is_none(), "nothing of it is made");
    let small = node.apply("small", &asking("small", "", "300m")).expect("apply");
    small.running().await.expect("what fits is not held up");
    prints(&node, &["describe", second.name()], &["Warning  OutOfcpu", "Node didn't have enough resource"])
        .await;
    let listed = prints(&node, &["pods"], &["OutOfcpu"]).await;
    assert!(listed.lines().any(|l| l.contains(second.name()) && l.contains("OutOfcpu")), "{listed}");
    let room = prints(&node, &["node"], &["disk=ssd", "kubernetes.io/os=linux"]).await;
    let cpu = room.lines().find(|l| l.starts_with("cpu")).expect("a row");
    assert_eq!(cpu.split_whitespace().skip(2).collect::<Vec<_>>(), ["1", "1"], "{room}");
    let before = first.container("c").await.expect("it").id;
    node.restart_agent().await.expect("restart");
    let second = node.pod("second");
    shown(&node, &second, "OutOfcpu").await;
    assert_eq!(node.pod("first").container("c").await.expect("it").id, before, "what runs keeps its place");
    // While it ends, there comes an agent that never heard of its manifest: it counts it as well.
    node.remove("first").expect("remove");
    let mut view = node.view().expect("an agent");
    let leaves = view.wait_for(|view| !view.plan.leaving.is_empty());
    drop(tokio::time::timeout(Duration::from_secs(30), leaves).await.expect("it ends").expect("a loop"));
    node.restart_agent().await.expect("restart");
    takes_over(&node.pod("second"), &node.pod("first")).await;
}

async fn a_port_of_the_node_is_one_pods_at_a_time(host: &Host) {
    let node = node(host).await;
    let ports = "ports: [{containerPort: 48231}]";
    let first = node.apply("first", &stubborn(&manifest("first", "", ports))).expect("apply");
    first.running().await.expect("it runs");
    let second = node.apply("second", &manifest("second", "", ports)).expect("apply");
    let (_, message) = shown(&node, &second, "NodePorts").await;
    let words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    assert_eq!(message, format!("Pod was rejected: {words}"));
    assert!(second.see().await.expect("see").is_none(), "nothing of it is made");
    node.remove("first").expect("remove");
    takes_over(&second, &first).await;
}

async fn a_pod_for_another_node_is_refused_and_one_for_this_node_runs(host: &Host) {
    let node = node(host).await;
    let here = "nodeSelector: {kubernetes.io/os: linux, disk: ssd}";
    node.apply("here", &manifest("here", here, "")).expect("apply").running().await.expect("it runs");
    let there = "nodeSelector: {disk: hdd}";
    let there = node.apply("there", &manifest("there", there, "")).expect("apply");
    let (_, message) = shown(&node, &there, "NodeAffinity").await;
    let words = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    assert_eq!(message, format!("Pod was rejected: {words}"));
    let windows = node.apply("windows", &manifest("windows", "os: {name: windows}", "")).expect("apply");
    let (_, message) = shown(&node, &windows, "PodOSNotSupported").await;
    assert_eq!(message, "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS");
    for pod in [there, windows] {
        assert!(pod.see().await.expect("see").is_none(), "nothing of {} is made", pod.name());
        prints(&node, &["describe", pod.name()], &["Warning", "Pod was rejected"]).await;
    }
}

async fn a_critical_pod_takes_the_place_of_another_which_comes_back(host: &Host) {
    let node = node(host).await;
    let guest = node.apply("guest", &asking("guest", "", "600m")).expect("apply");
    let other = node.apply("other", &asking("other", "", "200m")).expect("apply");
    guest.running().await.expect("it runs");
    let before = other.running().await.expect("it runs").remove(0);
    let critical = asking("vital", "priorityClassName: system-node-critical", "700m");
    let vital = node.apply("vital", &critical).expect("apply");
    vital.running().await.expect("it runs");
    assert!(guest.see().await.expect("see").is_none(), "the guest went first");
    let (phase, _) = shown(&node, &guest, "OutOfcpu").await;
    assert_eq!(phase, "Pending");
    assert_eq!(other.container("c").await.expect("it").id, before.id, "no more than needed goes");
    let words = ["Preempting", "Preempted in order to admit critical pod"];
    prints(&node, &["describe", guest.name()], &words).await;
    node.remove("vital").expect("remove");
    guest.running().await.expect("the guest is back");
}
