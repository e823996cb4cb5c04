//! The life of a pod's containers on both backends: init containers, sidecars, hooks, probes, policies, deadlines,
//! termination messages.

use std::time::Duration;

use podstead_runtime::{Container, ContainerState, Runtime};

use crate::support::{Host, get, on_both, podstead};

on_both!(
    init_containers_run_in_order_before_the_others_and_sidecars_stay,
    a_failed_init_container_is_tried_again_or_ends_the_pod,
    sidecars_end_after_the_containers_they_serve,
    hooks_are_part_of_starts_and_stops,
    a_container_that_fails_its_liveness_probe_is_started_anew,
    readiness_follows_the_probe_and_survives_the_agent,
    containers_have_policies_of_their_own,
    one_exit_starts_all_containers_anew_by_rule,
    a_pod_ends_at_its_deadline,
    what_a_container_leaves_as_its_message_is_told,
);

/// A pod of busybox containers on the node's network; `spec` is the rest of its specification.
fn pod(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 4\n  volumes: [{{name: shared, emptyDir: {{}}}}]\n{spec}"
    )
}

/// A container that writes to and reads from the shared volume.
fn container(name: &str, script: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    image: localhost/podstead/busybox:1\n    command: [/bin/sh, -c]\n    \
         volumeMounts: [{{name: shared, mountPath: /shared}}]\n{more}    args:\n    - |\n      {}\n",
        script.replace('\n', "\n      ")
    )
}

/// The pod as `podstead pods -o json` shows it.
fn shown(node: &podstead::testing::Node, name: &str) -> serde_json::Value {
    let list: serde_json::Value =
        serde_json::from_str(&podstead(node, &["pods", "-o", "json"])).expect("a list of pods");
    let items = list["items"].as_array().expect("items").clone();
    items.into_iter().find(|pod| pod["metadata"]["name"] == name).unwrap_or_default()
}

/// Waits until what is shown of the pod is so.
async fn until_shown(
    node: &podstead::testing::Node,
    name: &str,
    what: &str,
    so: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    for _ in 0..600 {
        let pod = shown(node, name);
        if so(&pod["status"]) {
            return pod["status"].clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name}: {what}: {:#}", shown(node, name)["status"]);
}

fn condition(status: &serde_json::Value, kind: &str) -> String {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    found["status"].as_str().unwrap_or_default().to_owned()
}

async fn init_containers_run_in_order_before_the_others_and_sidecars_stay(host: &Host) {
    let node = host.node().await;
    let spec = String::from("  initContainers:\n")
        + &container("first", "sleep 0.3; echo first >> /shared/order", "")
        + &container("side", "echo side >> /shared/order; exec sleep 1000", "    restartPolicy: Always\n")
        + &container("second", "echo second >> /shared/order", "")
        + "  containers:\n"
        + &container("app", "echo app >> /shared/order; cat /shared/order; exec sleep 1000", "");
    let handle = node.apply("inits", &pod("inits", &spec)).expect("apply");
    let log = handle.logged("app", |log| log.contains("app")).await.expect("the app's log");
    assert_eq!(log, "first\nside\nsecond\napp\n");
    let status = until_shown(&node, "inits-node", "ready", |s| condition(s, "Ready") == "True").await;
    assert_eq!(condition(&status, "Initialized"), "True");
    let init = status["initContainerStatuses"].as_array().expect("their statuses");
    assert_eq!(init.len(), 3);
    assert_eq!(init[0]["state"]["terminated"]["reason"], "Completed");
    assert!(init[1]["state"]["running"].is_object() && init[1]["ready"] == true, "{:#}", init[1]);
    // A crash of the app repeats no init container; one of the sidecar brings it back.
    handle.kill("app").await.expect("kill");
    handle.running_again("app", 1).await.expect("the app is back");
    handle.kill("side").await.expect("kill");
    handle.running_again("side", 1).await.expect("the sidecar is back");
    for name in ["first", "second"] {
        assert_eq!(handle.container(name).await.expect("kept").attempt, 0, "{name}");
    }
}

async fn a_failed_init_container_is_tried_again_or_ends_the_pod(host: &Host) {
    let node = host.node().await;
    let spec = |policy: &str| {
        format!("  restartPolicy: {policy}\n  initContainers:\n")
            + &container("setup", "[ -e /shared/second ] || { touch /shared/second; exit 7; }", "")
            + "  containers:\n"
            + &container("app", "exec sleep 1000", "")
    };
    let again = node.apply("again", &pod("again", &spec("Always"))).expect("apply");
    let never = node.apply("never", &pod("never", &spec("Never"))).expect("apply");
    again.running_again("app", 0).await.expect("it runs after the second try");
    assert_eq!(again.container("setup").await.expect("kept").attempt, 1);
    assert_eq!(never.exited("setup").await.expect("it ends"), 7);
    let status = until_shown(&node, "never-node", "failed", |s| s["phase"] == "Failed").await;
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 7);
    assert!(never.container("app").await.is_err(), "its app never starts");
}

async fn sidecars_end_after_the_containers_they_serve(host: &Host) {
    let node = host.node().await;
    let slow = "trap 'sleep 1; echo app ended; exit 0' TERM\necho up\nwhile :; do sleep 0.1; done";
    let side = "trap 'echo side ended; exit 0' TERM\necho up\nwhile :; do sleep 0.1; done";
    let spec = String::from("  initContainers:\n")
        + &container("side", side, "    restartPolicy: Always\n")
        + "  containers:\n"
        + &container("app", slow, "");
    let handle = node.apply("order", &pod("order", &spec)).expect("apply");
    handle.logged("app", |log| log.contains("up")).await.expect("it runs");
    handle.logged("side", |log| log.contains("up")).await.expect("it runs");
    node.remove("order").expect("remove");
    let runs = |all: &[Container], name: &str| all.iter().any(|c| c.name == name && c.is_running());
    let mut lonely = false;
    for _ in 0..2000 {
        let all = node.runtime().observe().await.expect("observe").containers;
        assert!(runs(&all, "side") || !runs(&all, "app"), "the sidecar is gone before the app");
        lonely |= runs(&all, "side") && !runs(&all, "app");
        if !runs(&all, "side") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(lonely, "the sidecar was never seen alone");
    node.empty().await.expect("all is gone");
}

async fn hooks_are_part_of_starts_and_stops(host: &Host) {
    let node = host.node().await;
    let dir = node.dir().join("told");
    std::fs::create_dir(&dir).expect("mkdir");
    let hooks = "    lifecycle:\n      postStart: {exec: {command: [/bin/sh, -c, 'sleep 0.5; echo started >> /told/log']}}\n      \
                 preStop: {exec: {command: [/bin/sh, -c, 'echo stopping >> /told/log']}}\n";
    let app = "trap 'echo term >> /told/log; exit 0' TERM\nwhile :; do sleep 0.1; done";
    let spec = String::from("  containers:\n")
        + &container("app", app, hooks)
        + &container("next", "echo next >> /told/log; exec sleep 1000", "")
        + &container(
            "bad",
            "exec sleep 1000",
            "    lifecycle: {postStart: {exec: {command: [/bin/sh, -c, 'echo it broke >&2; exit 3']}}}\n",
        );
    let spec = spec.replace(
        "volumeMounts: [{name: shared, mountPath: /shared}]",
        "volumeMounts: [{name: told, mountPath: /told}]",
    );
    let manifest = pod("hooks", &spec).replace(
        "{name: shared, emptyDir: {}}",
        &format!("{{name: told, hostPath: {{path: {}}}}}", dir.display()),
    );
    let handle = node.apply("hooks", &manifest).expect("apply");
    handle.running_again("next", 0).await.expect("the next runs");
    handle.running_again("bad", 1).await.expect("one whose hook fails is started anew");
    let told = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    assert!(told().starts_with("started\nnext\n"), "{}", told());
    node.remove("hooks").expect("remove");
    node.empty().await.expect("all is gone");
    assert_eq!(told(), "started\nnext\nstopping\nterm\n");
}

async fn a_container_that_fails_its_liveness_probe_is_started_anew(host: &Host) {
    let node = host.node().await;
    let probes = "    startupProbe: {exec: {command: [test, -e, /shared/up]}, periodSeconds: 1, failureThreshold: 30}\n    \
                  livenessProbe: {exec: {command: [test, -e, /shared/well]}, periodSeconds: 1, failureThreshold: 1, \
                  terminationGracePeriodSeconds: 2}\n";
    let app = "touch /shared/well; sleep 1; touch /shared/up; exec sleep 1000";
    let spec = String::from("  containers:\n") + &container("app", app, probes);
    let handle = node.apply("alive", &pod("alive", &spec)).expect("apply");
    until_shown(&node, "alive-node", "started", |s| s["containerStatuses"][0]["started"] == true).await;
    assert_eq!(handle.container("app").await.expect("there").attempt, 0);
    handle.exec("app", &["rm", "/shared/well"]).await.expect("exec");
    handle.running_again("app", 1).await.expect("it is started anew");
    let told = podstead(&node, &["describe", "alive-node"]);
    assert!(told.contains("Liveness probe failed") && told.contains("failed liveness probe"), "{told}");
}

async fn readiness_follows_the_probe_and_survives_the_agent(host: &Host) {
    let mut node = host.node().await;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: serve}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: web
    image: localhost/podstead/busybox:1
    command: [/bin/sh, -c, "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www"]
    ports: [{containerPort: 8080, name: http}]
    readinessProbe: {httpGet: {port: http, path: /ready}, periodSeconds: 1, failureThreshold: 1}
"#;
    let handle = node.apply("serve", manifest).expect("apply");
    handle.running().await.expect("it runs");
    let ip = handle.ip().await.expect("an address");
    until_shown(&node, "serve-node", "served", |_| get(ip, 8080).is_ok_and(|p| p.contains("page"))).await;
    assert_eq!(condition(&shown(&node, "serve-node")["status"], "Ready"), "False");
    handle.exec("web", &["touch", "/www/ready"]).await.expect("exec");
    until_shown(&node, "serve-node", "ready", |s| condition(s, "Ready") == "True").await;
    // A new agent does not take readiness away: it was told by the first, and is the first thing seen.
    node.restart_agent().await.expect("another agent");
    let handle = node.pod("serve");
    let mut view = node.view().expect("its view");
    let seen = view.wait_for(|v| !v.observed.snapshot.containers.is_empty()).await.expect("a round").clone();
    assert!(seen.observed.probed.values().all(|p| p.ready) && !seen.observed.probed.is_empty());
    handle.exec("web", &["rm", "/www/ready"]).await.expect("exec");
    until_shown(&node, "serve-node", "not ready", |s| condition(s, "Ready") == "False").await;
    assert_eq!(handle.container("web").await.expect("there").attempt, 0, "readiness restarts nothing");
}

async fn containers_have_policies_of_their_own(host: &Host) {
    let node = host.node().await;
    let rule = "    restartPolicy: Never\n    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]\n";
    let spec = String::from("  containers:\n")
        + &container("once", "exit 1", "    restartPolicy: Never\n")
        + &container("ruled", "[ -e /shared/x ] && exit 0; touch /shared/x; exit 42", rule)
        + &container("app", "exec sleep 1000", "");
    let handle = node.apply("own", &pod("own", &spec)).expect("apply");
    handle.running_again("app", 0).await.expect("it runs");
    handle
        .until("the rule's second instance", |_, all| {
            let newest = all.iter().find(|c| c.name == "ruled")?;
            matches!(newest.state, ContainerState::Exited { code: 0, .. }).then_some(newest.attempt)
        })
        .await
        .map(|attempt| assert_eq!(attempt, 1))
        .expect("it ends");
    assert_eq!(handle.container("once").await.expect("kept").attempt, 0);
}

async fn one_exit_starts_all_containers_anew_by_rule(host: &Host) {
    let mut node = host.node().await;
    let rule = "    restartPolicy: Never\n    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [88]}}]\n";
    let spec = String::from("  restartPolicy: Never\n  initContainers:\n")
        + &container("setup", "echo made >> /shared/log", "")
        + &container("helper", "exec sleep 1000", "    restartPolicy: Always\n")
        + "  containers:\n"
        + &container("once", "exit 0", "")
        + &container("main", "[ -e /shared/x ] && exec sleep 1000; touch /shared/x; sleep 1; exit 88", rule);
    let handle = node.apply("anew", &pod("anew", &spec)).expect("apply");
    let sandbox = handle.running_again("main", 0).await.expect("it runs").sandbox;
    let main = handle.running_again("main", 1).await.expect("it runs again");
    assert_eq!(main.sandbox, sandbox, "the sandbox stays");
    let helper = handle.running_again("helper", 1).await.expect("the sidecar too");
    assert!(helper.annotations.get("podstead.dev/round").is_some_and(|round| round == "1"));
    let log = handle.exec("main", &["cat", "/shared/log"]).await.expect("exec");
    assert_eq!(
        String::from_utf8_lossy(&log.stdout),
        "made\nmade\n",
        "init containers run again, volumes stay"
    );
    let ended = |all: &[Container]| {
        let newest = all.iter().filter(|c| c.name == "once").max_by_key(|c| c.attempt)?;
        matches!(newest.state, ContainerState::Exited { .. }).then_some(newest.attempt)
    };
    let attempt =
        handle.until("the end of once", |_, all| ended(all).filter(|n| *n > 0)).await.expect("again");
    assert_eq!(attempt, 1, "what was over runs once more");
    let status = until_shown(&node, "anew-node", "running", |s| s["phase"] == "Running").await;
    assert_eq!(condition(&status, "AllContainersRestarting"), "False");
    // The next agent takes nothing of it for a reason to start anything.
    node.restart_agent().await.expect("another agent");
    let handle = node.pod("anew");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.container("main").await.expect("there").attempt, 1);
}

async fn a_pod_ends_at_its_deadline(host: &Host) {
    let node = host.node().await;
    let spec = String::from("  activeDeadlineSeconds: 3\n  containers:\n")
        + &container("app", "exec sleep 1000", "");
    let handle = node.apply("late", &pod("late", &spec)).expect("apply");
    handle.running().await.expect("it runs");
    let status = until_shown(&node, "late-node", "over", |s| {
        s["phase"] == "Failed" && s["containerStatuses"][0]["state"]["terminated"].is_object()
    })
    .await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.container("app").await.expect("kept").attempt, 0, "and is not started again");
}

async fn what_a_container_leaves_as_its_message_is_told(host: &Host) {
    let node = host.node().await;
    let spec = String::from("  restartPolicy: Never\n  containers:\n")
        + &container(
            "file",
            "echo a last word > /my/message; exit 1",
            "    terminationMessagePath: /my/message\n",
        )
        + &container(
            "log",
            "echo from the log; exit 1",
            "    terminationMessagePolicy: FallbackToLogsOnError\n",
        );
    node.apply("words", &pod("words", &spec)).expect("apply");
    let status = until_shown(&node, "words-node", "over", |s| s["phase"] == "Failed").await;
    let message = |n: usize| status["containerStatuses"][n]["state"]["terminated"]["message"].clone();
    assert_eq!((message(0), message(1)), ("a last word\n".into(), "from the log".into()));
}
