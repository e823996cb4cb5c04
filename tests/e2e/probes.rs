//! Probes against real containers, and what follows from them, on both backends.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use podstead::testing::{Node, PodHandle};
use serde_json::Value;

use crate::cli::ok;
use crate::support::{Host, on_both};

on_both!(
    readiness_follows_the_container_and_not_the_agent,
    a_container_that_fails_its_liveness_probe_is_started_anew,
    nothing_is_asked_before_a_container_has_started,
);

/// What the agent says of the pod's container.
fn status(node: &Node, container: &str) -> Value {
    let all: Value = serde_json::from_str(&ok(node, &["pods", "-o", "json"])).expect("JSON");
    let pods = all["items"].as_array().expect("items").iter();
    let mut statuses =
        pods.flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
    statuses.find(|status| status["name"] == container).cloned().unwrap_or_default()
}

async fn until(node: &Node, container: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = status(node, container);
        if wanted(&seen) {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {what}: {seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for an event of the pod with these words.
async fn told(node: &Node, pod: &str, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = ok(node, &["describe", pod]);
        if text.split_once("\nEvents:").is_some_and(|(_, events)| events.contains(words)) {
            return;
        }
        assert!(Instant::now() < deadline, "not told: {words} in {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run(pod: &PodHandle<'_>, container: &str, script: &str) {
    let output = pod.exec(container, &["sh", "-c", script]).await.expect("exec");
    assert_eq!(output.code, 0, "{script}: {output:?}");
}

async fn readiness_follows_the_container_and_not_the_agent(host: &Host) {
    let mut node = host.node().await;
    // Taken and given back: free enough for the moment in which the pod's server takes it.
    let port = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address").port();
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: page}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: web
    image: localhost/podstead/busybox:1
    command: [sh, -c, "mkdir /www; exec httpd -f -p 8080 -h /www"]
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {periodSeconds: 1, failureThreshold: 1, httpGet: {path: /ready, port: http}}
"#;
    let looped = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: loop}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 2\n  containers:\n  - name: looped\n    image: localhost/podstead/busybox:1\n    \
         command: [httpd, -f, -p, \"127.0.0.1:{port}\"]\n    readinessProbe: {{periodSeconds: 1, tcpSocket: {{port: {port}}}}}\n"
    );
    node.apply("loop", &looped).expect("apply");
    let pod = node.apply("page", manifest).expect("apply");
    pod.running().await.expect("runs");
    told(&node, "page", "Readiness probe failed: HTTP probe failed with statuscode: 404").await;
    assert_eq!(
        (&status(&node, "web")["ready"], &status(&node, "web")["started"]),
        (&false.into(), &true.into())
    );
    run(&pod, "web", "touch /www/ready").await;
    pod.ready().await.expect("ready");
    until(&node, "web", "ready", |s| s["ready"] == true).await;
    until(&node, "looped", "reached over loopback", |s| s["ready"] == true).await;

    node.stop_agent().await;
    node.restart_agent().await.expect("restart the agent");
    let mut view = node.view().expect("an agent");
    let both = view.wait_for(|view| {
        let wanted = view.desired.pods.values().any(|p| p.identity.name == "page-node");
        wanted && view.observed.snapshot.containers.iter().any(|c| c.name == "web")
    });
    let first = both.await.expect("a round").clone();
    let desired = first.desired.pods.values().find(|p| p.identity.name == "page-node").expect("wanted");
    let status = podstead::plan::status::pod_status(desired, &first.observed, &first.known, first.at);
    assert!(status.ready, "in the first round of the new agent: {status:?}");

    let pod = node.pod("page");
    run(&pod, "web", "rm /www/ready").await;
    until(&node, "web", "not ready", |s| s["ready"] == false).await;
    assert_eq!(pod.container("web").await.expect("there").attempt, 0, "readiness restarts nothing");
}

async fn a_container_that_fails_its_liveness_probe_is_started_anew(host: &Host) {
    let node = host.node().await;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: live}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 120
  containers:
  - name: c
    image: localhost/podstead/busybox:1
    command: [sh, -c, "trap '' TERM; touch /tmp/alive; while :; do sleep 1; done"]
    env: [{name: FILE, value: /tmp/alive}]
    livenessProbe:
      exec: {command: [test, -f, $(FILE)]}
      periodSeconds: 1
      initialDelaySeconds: 1
      failureThreshold: 2
      terminationGracePeriodSeconds: 2
"#;
    let pod = node.apply("live", manifest).expect("apply");
    pod.running().await.expect("runs");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(pod.container("c").await.expect("there").attempt, 0, "it lives");
    let begun = Instant::now();
    run(&pod, "c", "rm /tmp/alive").await;
    pod.running_again("c", 1).await.expect("again");
    // The pod's own grace would have been two minutes.
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    told(&node, "live", "Liveness probe failed:").await;
    told(&node, "live", "Container c failed liveness probe, will be restarted").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pod.container("c").await.expect("there").attempt, 1, "the new instance lives");
}

async fn nothing_is_asked_before_a_container_has_started(host: &Host) {
    let node = host.node().await;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: late
    image: localhost/podstead/busybox:1
    command: [sh, -c, "sleep 4; exec httpd -f -p 8080"]
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 60}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
  - name: never
    image: localhost/podstead/busybox:1
    command: [sleep, "100000"]
    startupProbe: {exec: {command: ["false"]}, periodSeconds: 1, failureThreshold: 2}
"#;
    let pod = node.apply("slow", manifest).expect("apply");
    pod.running().await.expect("runs");
    until(&node, "late", "it runs and has not started", |s| {
        s["started"] == false && s["ready"] == false && s["state"]["running"].is_object()
    })
    .await;
    until(&node, "late", "it has started", |s| s["started"] == true && s["ready"] == true).await;
    assert_eq!(
        pod.container("late").await.expect("there").attempt,
        0,
        "its liveness was not asked for too early"
    );
    pod.running_again("never", 1).await.expect("killed and again");
    told(&node, "slow", "Container never failed startup probe").await;
    told(&node, "slow", "Startup probe failed: dial tcp ").await;
}
