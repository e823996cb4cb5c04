//! What a manifest may say in this version, seen from inside the container, on both backends.

use std::time::Duration;

use podstead_runtime::{ContainerState, Runtime};

use crate::support::{Host, busybox, get, on_both};

on_both!(
    everything_said_reaches_the_container,
    containers_of_a_pod_share_network_and_volumes,
    policies_decide_about_restarts,
    a_changed_manifest_replaces_the_pod_only_when_the_old_one_is_gone,
    a_broken_edit_keeps_the_running_pod,
    foreign_objects_are_left_alone,
    an_image_that_is_not_there_is_said_so,
);

async fn everything_said_reaches_the_container(host: &Host) {
    let node = host.node().await;
    let data = node.dir().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("file"), "from the host").expect("write");
    let manifest = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: full, labels: {{role: test}}, annotations: {{note: hello}}}}
spec:
  hostNetwork: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  volumes:
  - {{name: data, hostPath: {{path: {}, type: Directory}}}}
  - {{name: scratch, emptyDir: {{}}}}
  containers:
  - name: c
    image: localhost/podstead/busybox:1
    imagePullPolicy: IfNotPresent
    command: [/bin/sh, -c]
    args:
    - |
      echo "args $0 $GREETING in $(pwd)"
      cat /data/file; echo
      touch /data/x 2>/dev/null || echo "data is read-only"
      touch /scratch/x && echo "scratch is writable"
      cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
      hostname
      tail -n +1 /etc/hosts | head -1
      exit 7
    - zero
    env:
    - {{name: NAME, value: world}}
    - {{name: GREETING, value: "hello $(NAME)"}}
    workingDir: /tmp
    volumeMounts:
    - {{name: data, mountPath: /data, readOnly: true}}
    - {{name: scratch, mountPath: /scratch}}
    resources: {{limits: {{cpu: 500m, memory: 64Mi}}, requests: {{cpu: 100m}}}}
"#,
        data.display()
    );
    let pod = node.apply("full", &manifest).expect("apply");
    assert_eq!(pod.exited("c").await.expect("it ends"), 7);
    let log = pod.logged("c", |log| log.contains("host network")).await.expect("its log");
    for wanted in [
        "args zero hello world in /tmp",
        "from the host",
        "data is read-only",
        "scratch is writable",
        "67108864",
        "# Kubernetes-managed hosts file (host network).",
    ] {
        assert!(log.contains(wanted), "{wanted:?} in\n{log}");
    }
    let (sandbox, _) = pod.see().await.expect("see").expect("there");
    assert_eq!(sandbox.labels.get("role").map(String::as_str), Some("test"));
    assert_eq!(sandbox.annotations.get("note").map(String::as_str), Some("hello"));
    assert_eq!(sandbox.annotations.get("kubernetes.io/config.source").map(String::as_str), Some("file"));
    let hash = sandbox.annotations.get("kubernetes.io/config.hash");
    assert_eq!(hash, Some(&sandbox.pod.uid.0), "the uid is the manifest's hash");
}

async fn containers_of_a_pod_share_network_and_volumes(host: &Host) {
    let node = host.node().await;
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 2
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: server
    image: localhost/podstead/busybox:1
    command: [/bin/sh, -c, "mkdir -p /www; echo page of $(hostname) > /www/index.html; echo x > /shared/ready; exec httpd -f -p 8080 -h /www"]
    ports: [{containerPort: 8080, name: http}]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: client
    image: localhost/podstead/busybox:1
    command: [/bin/sh, -c, "while ! [ -f /shared/ready ]; do sleep 0.1; done; until wget -qO- http://127.0.0.1:8080/; do sleep 0.1; done; cat /etc/hosts; exec sleep 1000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
"#;
    let pod = node.apply("pair", manifest).expect("apply");
    pod.running().await.expect("both run");
    let ip = pod.ip().await.expect("an address");
    // The page ends with the name as well; the hosts file comes after it.
    let log = pod.logged("client", |log| log.contains("\tpair-node\n")).await.expect("the client's log");
    assert!(log.contains("page of pair-node"), "over the shared loopback: {log}");
    assert!(log.contains(&format!("{ip}\tpair-node")), "the pod's address in its hosts file: {log}");
    assert!(get(ip, 8080).expect("from the node").contains("page of pair-node"));
}

async fn policies_decide_about_restarts(host: &Host) {
    let node = host.node().await;
    let with = |name: &str, policy: &str, script: &str| {
        busybox(name, script).replace("  hostNetwork", &format!("  restartPolicy: {policy}\n  hostNetwork"))
    };
    let never = node.apply("never", &with("never", "Never", "exit 3")).expect("apply");
    let done = node.apply("done", &with("done", "OnFailure", "exit 0")).expect("apply");
    let failing = node.apply("failing", &with("failing", "OnFailure", "exit 1")).expect("apply");
    let always = node.apply("always", &with("always", "Always", "exit 0")).expect("apply");
    let attempts = async |pod: &podstead::testing::PodHandle<'_>, n: u32| {
        pod.until("a restart", |_, all| all.iter().any(|c| c.attempt >= n).then_some(())).await
    };
    attempts(&failing, 1).await.expect("a failed one is restarted");
    attempts(&always, 1).await.expect("one that always runs is restarted after success, too");
    assert_eq!(never.exited("c").await.expect("never"), 3);
    assert_eq!(done.exited("c").await.expect("done"), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for pod in [never, done] {
        assert_eq!(
            pod.container("c").await.expect("kept to be read").attempt,
            0,
            "{} stays over",
            pod.name()
        );
    }
}

async fn a_changed_manifest_replaces_the_pod_only_when_the_old_one_is_gone(host: &Host) {
    let node = host.node().await;
    let slow = "trap 'sleep 1; exit 0' TERM; echo first; while :; do sleep 0.1; done";
    let pod = node.apply("edit", &busybox("edit", slow)).expect("apply");
    pod.logged("c", |log| log.contains("first")).await.expect("the first runs");
    let old = pod.container("c").await.expect("seen");
    node.apply("edit", &busybox("edit", "echo second; exec sleep 1000")).expect("edit");
    loop {
        let snapshot = node.runtime().observe().await.expect("observe");
        let running: Vec<_> = snapshot.containers.iter().filter(|c| c.is_running()).collect();
        assert!(running.len() <= 1, "never two of one name: {running:#?}");
        if running.iter().any(|c| c.pod_uid() != old.pod_uid()) {
            assert!(snapshot.containers.iter().all(|c| c.id != old.id), "the old one is fully gone");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pod.logged("c", |log| log.contains("second")).await.expect("the second runs");
}

async fn a_broken_edit_keeps_the_running_pod(host: &Host) {
    let node = host.node().await;
    let pod = node.apply("kept", &busybox("kept", "exec sleep 1000")).expect("apply");
    let before = pod.running().await.expect("runs");
    let mut manifests = node.manifests().expect("an agent");
    let broken = busybox("kept", "exec sleep 1000").replace("image:", "imagee:");
    node.apply("kept", &broken).expect("a bad edit");
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let text = format!("{:?}", manifests.borrow_and_update().files);
            if text.contains("imagee") {
                return text;
            }
            manifests.changed().await.expect("the source lives");
        }
    });
    let told = told.await.expect("the agent says what is wrong");
    assert!(told.contains("KeptLastGood") && told.contains("did you mean"), "{told}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pod.container("c").await.expect("still there").id, before[0].id);
}

async fn foreign_objects_are_left_alone(host: &Host) {
    let other = host.node().await;
    let pod = other.apply("other", &busybox("other", "exec sleep 1000")).expect("apply");
    let before = pod.running().await.expect("runs");
    let node = host.node().await;
    let own = node.apply("own", &busybox("own", "exec sleep 1000")).expect("apply");
    own.running().await.expect("runs");
    node.remove("own").expect("remove");
    node.empty().await.expect("ours is gone");
    let after = pod.container("c").await.expect("the other's is there");
    assert_eq!((after.id, after.attempt), (before[0].id.clone(), 0));
    assert!(matches!(after.state, ContainerState::Running { .. }));
}

async fn an_image_that_is_not_there_is_said_so(host: &Host) {
    let node = host.node().await;
    let manifest = busybox("noimage", "true")
        .replace("localhost/podstead/busybox:1", "localhost/podstead/none:1\n    imagePullPolicy: Never");
    node.apply("noimage", &manifest).expect("apply");
    let mut view = node.view().expect("an agent");
    let told = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let failures = view.borrow_and_update().known.failures.clone();
            if let Some(failure) = failures.into_values().find(|f| f.reason == "ErrImageNeverPull") {
                return failure.message;
            }
            view.changed().await.expect("the agent lives");
        }
    });
    let told = told.await.expect("the agent says so");
    assert!(told.contains("localhost/podstead/none:1") && told.contains("images import"), "{told}");
}
