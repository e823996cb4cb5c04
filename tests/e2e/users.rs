//! Pods with a user namespace of their own, seen from inside and from the node: on libcontainer; and refused where the
//! runtime has none.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use podstead::testing::{Node, PodHandle};
use podstead_runtime::{Container, Runtime as _};

use crate::security::rejected;
use crate::storm::agent;
use crate::support::{Host, get, on_both, skipped};

on_both!(
    root_of_a_pod_is_nobody_on_the_node,
    ids_are_kept_over_killed_agents_and_restarts_and_freed_with_the_pod,
    what_a_pod_is_told_and_given_is_its_own_inside,
    proc_is_open_where_asked,
    a_privileged_container_is_root_of_its_pod_only,
    a_file_system_that_cannot_map_ids_is_said,
);

/// A pod of one busybox container: what else its spec says, what else its container says, and its script.
fn manifest(name: &str, spec: &str, container: &str, script: &str) -> String {
    let script = script.replace('\n', "\n      ");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{role: db}}}}\nspec:\n  hostUsers: false\n  \
         terminationGracePeriodSeconds: 2\n  {spec}\n  containers:\n  - name: c\n    image: localhost/podstead/busybox:1\n    \
         {container}\n    command: [/bin/sh, -c]\n    args:\n    - |\n      {script}\n"
    )
}

/// Whether such pods run here; if not, that one is refused with the kubelet's words.
async fn can(host: &Host, node: &Node) -> bool {
    if node.runtime().status().await.expect("status").user_namespaces {
        return true;
    }
    assert!(host.endpoint().is_some(), "libcontainer has them on every kernel that these tests are for");
    let pod = node.apply("refused", &manifest("refused", "", "tty: false", "id")).expect("apply");
    if node.view().is_some() {
        let words =
            "Pod was rejected: can't set `spec.hostUsers: false`, runtime does not support user namespaces";
        assert_eq!(rejected(node, &pod).await, words);
    }
    skipped("this runtime has no user namespaces; the pod was refused");
    false
}

/// The first id on the node of a running container, by its process.
fn first_id(container: &Container) -> u32 {
    let pid = container.pid;
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("its ids");
    let fields: Vec<u32> = map.split_whitespace().map(|field| field.parse().expect("a number")).collect();
    assert_eq!((fields.len(), fields[0], fields[2]), (3, 0, 65_536), "{map}");
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/gid_map")).expect("its groups"), map);
    let owner = std::fs::metadata(format!("/proc/{pid}")).expect("its process").uid();
    assert_eq!(owner, fields[1], "root inside");
    fields[1]
}

async fn one(pod: &PodHandle<'_>) -> Container {
    pod.running().await.expect("it runs").remove(0)
}

async fn sh(pod: &PodHandle<'_>, script: &str) -> String {
    let output = pod.exec("c", &["/bin/sh", "-c", script]).await.expect("exec");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.code, 0, "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

async fn root_of_a_pod_is_nobody_on_the_node(host: &Host) {
    let node = host.node().await;
    if !can(host, &node).await {
        return;
    }
    let apply = |name: &str| node.apply(name, &manifest(name, "", "tty: false", "id -u; exec sleep 100000"));
    let (a, b) = (apply("a").expect("apply"), apply("b").expect("apply"));
    let (first, second) = (first_id(&one(&a).await), first_id(&one(&b).await));
    assert!(first >= 65_536 && second >= 65_536 && first.abs_diff(second) >= 65_536, "{first} {second}");
    a.logged("c", |log| log == "0\n").await.expect("root inside");
    let map = sh(&a, "id -u; cat /proc/self/uid_map").await;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", &first.to_string(), "65536"]);
}

async fn ids_are_kept_over_killed_agents_and_restarts_and_freed_with_the_pod(host: &Host) {
    let node = host.bare_node().await;
    if !can(host, &node).await {
        return;
    }
    let first_agent = agent(&node, &[]);
    let pod = node.apply("kept", &manifest("kept", "", "tty: false", "exec sleep 100000")).expect("apply");
    let before = one(&pod).await;
    let ids = first_id(&before);
    drop(first_agent);
    let _second_agent = agent(&node, &[]);
    let other =
        node.apply("other", &manifest("other", "", "tty: false", "exec sleep 100000")).expect("apply");
    assert!(first_id(&one(&other).await).abs_diff(ids) >= 65_536, "the other has ids of its own");
    let after = one(&pod).await;
    assert_eq!((after.id.clone(), first_id(&after)), (before.id, ids), "nothing was restarted");
    pod.kill("c").await.expect("a crash");
    assert_eq!(first_id(&pod.running_again("c", 1).await.expect("again")), ids);
    node.remove("kept").expect("remove");
    pod.gone().await.expect("gone");
    let next = node.apply("next", &manifest("next", "", "tty: false", "exec sleep 100000")).expect("apply");
    let freed = async {
        // The directory goes last.
        while std::fs::read_dir(node.config().root_dir.join("pods")).expect("pods").count() > 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), freed).await.expect("its directory goes");
    one(&next).await;
    let last = node.apply("last", &manifest("last", "", "tty: false", "exec sleep 100000")).expect("apply");
    let given = [first_id(&one(&next).await), first_id(&one(&last).await)];
    assert!(given.contains(&ids), "{ids} is free again: {given:?}");
    for name in ["other", "next", "last"] {
        node.remove(name).expect("remove");
    }
    node.empty().await.expect("nothing is left");
}

async fn what_a_pod_is_told_and_given_is_its_own_inside(host: &Host) {
    let node = host.node().await;
    if !can(host, &node).await {
        return;
    }
    let data = node.dir().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("roots"), "of the node\n").expect("write");
    std::fs::create_dir(data.join("part")).expect("mkdir");
    let spec = format!(
        "shareProcessNamespace: true\n  restartPolicy: Always\n  securityContext: {{fsGroup: 4000, sysctls: [{{name: \
         net.ipv4.ip_unprivileged_port_start, value: \"80\"}}]}}\n  volumes:\n  - {{name: e, emptyDir: {{}}}}\n  - {{name: m, \
         emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}\n  - {{name: h, hostPath: {{path: {}}}}}\n  - {{name: d, downwardAPI: \
         {{items: [{{path: role, fieldRef: {{fieldPath: \"metadata.labels['role']\"}}}}]}}}}\n  - {{name: i, image: \
         {{reference: localhost/podstead/busybox:1}}}}\n  initContainers:\n  - name: first\n    \
         image: localhost/podstead/busybox:1\n    command: [/bin/sh, -c, \"echo init > /e/init; echo $POD_IP > /e/ip\"]\n    \
         env: [{{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}]\n    \
         volumeMounts: [{{name: e, mountPath: /e}}]",
        data.display()
    );
    let container = "ports: [{containerPort: 80, hostPort: 30777}]\n    securityContext: {runAsUser: 4711, runAsGroup: 2000}\n    \
                     volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /m}, {name: h, mountPath: /h}, \
                     {name: h, mountPath: /part, subPath: part}, {name: d, mountPath: /d}, {name: i, mountPath: /i}]";
    let script = "cat /e/init; id -u; id -G; echo x > /e/file; stat -c %u:%g /e/file /e /m /h/roots /etc/passwd /i/bin/sh\n\
                  cat /d/role /h/roots /etc/resolv.conf > /dev/null && echo read; echo y > /m/file && echo memory\n\
                  echo last words > /dev/termination-log; cat /dev/termination-log; echo out > /dev/stdout; hostname\n\
                  mkdir /tmp/www; echo hello > /tmp/www/index.html; httpd -p 80 -h /tmp/www && echo done\nexec sleep 100000";
    let pod = node.apply("given", &manifest("given", &spec, container, script)).expect("apply");
    let said = pod.logged("c", |log| log.ends_with("done\n")).await.expect("its log");
    let expected = "init\n4711\n2000 4000\n4711:4000\n0:4000\n0:4000\n0:0\n0:0\n0:0\nread\nmemory\nlast words\nout\ngiven-node\ndone\n";
    assert_eq!(said, expected);
    let ip = pod.ip().await.expect("an address");
    assert!(get(ip, 80).expect("a page").contains("hello"));
    assert!(get("127.0.0.1".parse().expect("an address"), 30_777).expect("a page").contains("hello"));
    assert!(sh(&pod, "ps | grep -c '[s]leep 100000'; id -u; id -g").await.ends_with("1\n4711\n2000\n"));
    // What it wrote bears, on the disk, the ids that it counts.
    let uid = pod.container("c").await.expect("there").pod_uid();
    let volumes =
        node.config().root_dir.join("pods").join(uid.as_str()).join("volumes/kubernetes.io~empty-dir");
    let found = std::fs::metadata(volumes.join("e/file")).expect("the file");
    assert_eq!((found.uid(), found.gid()), (4711, 4000));
    node.remove("given").expect("remove");
    node.empty().await.expect("nothing is left");
    assert!(data.join("roots").exists());
}

async fn proc_is_open_where_asked(host: &Host) {
    let node = host.node().await;
    if !can(host, &node).await {
        return;
    }
    let script = "grep -c ' /proc/' /proc/self/mountinfo; grep -c ' /sys/firmware' /proc/self/mountinfo\n\
                  (echo 5 > /proc/sys/net/ipv4/ip_default_ttl) 2>/dev/null && echo written; echo end";
    let with =
        |kind: &str| format!("securityContext: {{procMount: {kind}, capabilities: {{add: [NET_ADMIN]}}}}");
    let spec = "restartPolicy: Never";
    let masked = node.apply("masked", &manifest("masked", spec, &with("Default"), script)).expect("apply");
    let open = node.apply("open", &manifest("open", spec, &with("Unmasked"), script)).expect("apply");
    masked.exited("c").await.expect("it ends");
    open.exited("c").await.expect("it ends");
    assert_eq!(open.logs("c").await.expect("its log"), "0\n0\nwritten\nend\n", "the pod's own parameters");
    let said = masked.logs("c").await.expect("its log");
    assert!(!said.starts_with("0\n") && !said.contains("written"), "{said}");
}

async fn a_privileged_container_is_root_of_its_pod_only(host: &Host) {
    let node = host.node().await;
    if !can(host, &node).await {
        return;
    }
    let script = "id -u; mount -t tmpfs t /tmp && echo mounted; chroot / true && echo chroot\n\
                  (echo 1 > /proc/sys/kernel/panic_on_oops) 2>/dev/null || echo refused\n\
                  (echo 1 > /proc/sys/net/ipv4/ip_forward) && echo forwards; test -c /dev/null && echo device\n\
                  touch /new 2>/dev/null || echo read only; echo end";
    let settings = "securityContext: {privileged: true, readOnlyRootFilesystem: true}";
    let pod = node.apply("root", &manifest("root", "restartPolicy: Never", settings, script)).expect("apply");
    pod.exited("c").await.expect("it ends");
    let said = pod.logs("c").await.expect("its log");
    assert_eq!(said, "0\nmounted\nchroot\nrefused\nforwards\ndevice\nread only\nend\n");
}

async fn a_file_system_that_cannot_map_ids_is_said(host: &Host) {
    let node = host.node().await;
    if !can(host, &node).await {
        return;
    }
    let spec = "volumes: [{name: v, hostPath: {path: /proc/sys/kernel}}]";
    let mounts = "volumeMounts: [{name: v, mountPath: /v}]";
    assert!(Path::new("/proc/sys/kernel").is_dir());
    let pod = node.apply("proc", &manifest("proc", spec, mounts, "exec sleep 100000")).expect("apply");
    let (reason, message) = crate::security::waits(&node, &pod).await;
    assert!(message.contains("/proc/sys/kernel") && message.contains("map ids"), "{reason}: {message}");
}
