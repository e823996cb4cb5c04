//! Volumes and variables, seen from inside the container, on both backends.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use podstead::testing::{Node, PodHandle};

use crate::support::{Host, on_both};

on_both!(
    a_container_is_told_of_its_pod_by_variables_and_files,
    on_the_nodes_network_a_pod_has_the_nodes_addresses,
    files_of_a_running_pod_follow_its_manifest,
    variables_come_from_a_file_that_the_pod_wrote,
    what_cannot_be_resolved_is_said_and_tried_again,
    memory_is_limited_and_outlives_containers_and_the_agent,
    mounts_lie_in_each_other_whatever_their_order,
    a_part_of_a_volume_is_mounted_and_cannot_be_led_astray,
    a_group_owns_the_pods_volumes,
    mounts_of_the_node_arrive_when_asked_for,
    mounts_of_a_privileged_container_reach_the_node_when_asked_for,
    a_busy_volume_delays_the_end_and_does_not_prevent_it,
    an_image_is_mounted_or_said_to_be_too_much_for_the_runtime,
);

/// A pod of one busybox container: what else its spec says, what else its container says, and its script.
fn manifest(name: &str, spec: &str, container: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{role: db}}\n  annotations: {{note: \"a \\\"b\\\"\"}}\n\
         spec:\n  hostNetwork: true\n  terminationGracePeriodSeconds: 2\n{}\n  containers:\n  - name: c\n    \
         image: localhost/podstead/busybox:1\n    command: [/bin/sh, -c]\n    args:\n    - |\n{}\n{}\n",
        indent(spec, 2),
        indent(script, 6),
        indent(container, 4),
    )
}

fn indent(text: &str, by: usize) -> String {
    text.trim_matches('\n')
        .lines()
        .map(|line| format!("{}{line}", " ".repeat(by)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Waits for the container's last word and answers all it printed.
async fn said(pod: &PodHandle<'_>) -> String {
    pod.logged("c", |log| log.ends_with("done\n")).await.expect("its log")
}

fn has(log: &str, lines: &[&str]) {
    for line in lines {
        assert!(log.lines().any(|l| l == *line), "{line:?} in\n{log}");
    }
}

async fn a_container_is_told_of_its_pod_by_variables_and_files(host: &Host) {
    let node = host.node().await;
    let spec = "
volumes:
- name: down
  downwardAPI:
    defaultMode: 0440
    items:
    - {path: labels, fieldRef: {fieldPath: metadata.labels}}
    - {path: annotations, fieldRef: {fieldPath: metadata.annotations}}
    - {path: deep/memory, mode: 0400, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}
- name: all
  projected:
    sources:
    - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
    - downwardAPI: {items: [{path: uid, fieldRef: {fieldPath: metadata.uid}}]}";
    let container = "
env:
- {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: WHOLE, value: \"$(NAMESPACE)/$(NAME)\"}
- {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: FULL, value: \"$(NAMESPACE)/$(NAME)\"}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: ROLE, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['role']\"}}}
- {name: NOTE, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['note']\"}}}
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
- {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
- {name: REQUEST, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}
- {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
resources: {limits: {memory: 64Mi}, requests: {cpu: 250m}}
volumeMounts:
- {name: down, mountPath: /down}
- {name: all, mountPath: /all}";
    let script = "
echo \"NAME=$NAME\"; echo \"WHOLE=$WHOLE\"; echo \"FULL=$FULL\"; echo \"NODE=$NODE\"; echo \"ROLE=$ROLE\"; echo \"NOTE=$NOTE\"; echo \"IP=$IP\"; echo \"IPS=$IPS\"; echo \"HOST_IP=$HOST_IP\"; echo \"CPU=$CPU\"; echo \"REQUEST=$REQUEST\"; echo \"MEMORY=$MEMORY\";
cat /down/labels; echo; grep note /down/annotations; cat /down/deep/memory; echo
cat /all/name; echo; test \"$(cat /all/uid)\" = \"$(sed -n 's/.*config.hash=\"\\(.*\\)\"/\\1/p' /down/annotations)\" && echo same uid
stat -Lc %a /down/labels; stat -Lc %a /down/deep/memory; readlink /down/labels
touch /down/x 2>/dev/null || echo read-only
echo done; sleep 1000";
    let text = manifest("told", spec, container, script).replace("  hostNetwork: true\n", "");
    let pod = node.apply("told", &text).expect("apply");
    let log = said(&pod).await;
    let ip = pod.ip().await.expect("an address");
    let cpus = std::thread::available_parallelism().expect("processors");
    has(
        &log,
        &[
            "NAME=told-node",
            "WHOLE=$(NAMESPACE)/told-node",
            "FULL=default/told-node",
            "NODE=node",
            "ROLE=db",
            "NOTE=a \"b\"",
            &format!("IP={ip}"),
            &format!("CPU={cpus}"),
            "REQUEST=250",
            "MEMORY=67108864",
            "role=\"db\"",
            "note=\"a \\\"b\\\"\"",
            "64",
            "told-node",
            "same uid",
            "440",
            "400",
            "..data/labels",
            "read-only",
        ],
    );
    assert!(log.contains(&format!("IPS={ip}")) && !log.contains("HOST_IP=\n"), "{log}");
}

async fn on_the_nodes_network_a_pod_has_the_nodes_addresses(host: &Host) {
    let node = host.node().await;
    let container = "
env:
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
- {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: HOST_IPS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}";
    let script = "test \"$IP\" = \"$HOST_IP\" && test \"$IPS\" = \"$HOST_IPS\" && echo the same
ip -o addr | grep -qwF \"$IP\" && echo mine\necho done; sleep 1000";
    let pod = node.apply("there", &manifest("there", "", container, script)).expect("apply");
    has(&said(&pod).await, &["the same", "mine"]);
}

async fn files_of_a_running_pod_follow_its_manifest(host: &Host) {
    let node = host.node().await;
    let spec = "volumes: [{name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]";
    let script = "last=; while :; do now=$(cat /d/labels); [ \"$now\" = \"$last\" ] || echo \"$now\"; last=$now; sleep 0.1; done";
    let text = manifest("live", spec, "volumeMounts: [{name: d, mountPath: /d}]", script)
        .replace("  name: live\n", "  name: live\n  uid: live-1\n");
    let pod = node.apply("live", &text).expect("apply");
    pod.logged("c", |log| log.contains("role=\"db\"")).await.expect("the first");
    let before = pod.container("c").await.expect("it").id;
    node.apply("live", &text.replace("role: db", "role: cache")).expect("edit");
    pod.logged("c", |log| log.contains("role=\"cache\"")).await.expect("the second");
    assert_eq!(pod.container("c").await.expect("it").id, before, "the same container");
}

async fn variables_come_from_a_file_that_the_pod_wrote(host: &Host) {
    let node = host.node().await;
    let spec = "restartPolicy: Always\nvolumes: [{name: e, emptyDir: {}}]";
    let container = "
env:
- {name: KEY, valueFrom: {fileKeyRef: {volumeName: e, path: dir/env, key: KEY, optional: true}}}
volumeMounts: [{name: e, mountPath: /e}]";
    let script = "echo \"key=$KEY\"; [ -n \"$KEY\" ] && sleep 1000\n\
                  mkdir -p /e/dir; printf \"# x\\nKEY='two words'\\n\" > /e/dir/env; exit 1";
    let pod = node.apply("env", &manifest("env", spec, container, script)).expect("apply");
    pod.running_again("c", 1).await.expect("a second instance");
    pod.logged("c", |log| log == "key=two words\n").await.expect("the variable");

    let init = "
volumes: [{name: e, emptyDir: {medium: Memory}}]
initContainers:
- name: first
  image: localhost/podstead/busybox:1
  command: [/bin/sh, -c, \"echo \\\"KEY='from $ME'\\\" > /e/env\"]
  env: [{name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumeMounts: [{name: e, mountPath: /e, subPath: part}]";
    let container = "
env: [{name: KEY, valueFrom: {fileKeyRef: {volumeName: e, path: part/env, key: KEY}}}]";
    let pod = node.apply("init", &manifest("init", init, container, "echo $KEY; sleep 1000")).expect("apply");
    pod.logged("c", |log| log == "from init-node\n").await.expect("what the init container wrote");
}

async fn what_cannot_be_resolved_is_said_and_tried_again(host: &Host) {
    let node = host.node().await;
    let spec =
        "volumes: [{name: e, emptyDir: {}}, {name: h, hostPath: {path: HOST, type: DirectoryOrCreate}}]";
    let data = node.dir().join("data");
    let spec = spec.replace("HOST", &data.display().to_string());
    let container = "
env:
- {name: KEY, valueFrom: {fileKeyRef: {volumeName: e, path: env, key: KEY}}}
volumeMounts: [{name: e, mountPath: /e}]";
    let pod =
        node.apply("none", &manifest("none", &spec, container, "echo $KEY; sleep 1000")).expect("apply");
    let told = until_told(&node, "CreateContainerConfigError").await;
    assert!(told.contains("environment variable key \"KEY\" not found in file \"env\""), "{told}");
    let (sandbox, _) = pod.see().await.expect("see").expect("its sandbox");
    let root = node.dir().join("root/pods").join(&sandbox.pod.uid.0);
    std::fs::write(root.join("volumes/kubernetes.io~empty-dir/e/env"), "KEY='there'\n").expect("write");
    pod.logged("c", |log| log == "there\n").await.expect("by itself");

    std::fs::create_dir_all(&data).expect("mkdir");
    std::os::unix::fs::symlink("/etc", data.join("out")).expect("link");
    let mount = "volumeMounts: [{name: h, mountPath: /h, subPath: out}]";
    node.apply("out", &manifest("out", &spec, mount, "sleep 1000")).expect("apply");
    let told = until_told(&node, "leads out of the volume").await;
    assert!(told.contains("failed to prepare subPath"), "{told}");
}

/// Waits until a failure says this, and answers it.
async fn until_told(node: &Node, wanted: &str) -> String {
    let mut view = node.view().expect("an agent");
    let mut all: Vec<String> = Vec::new();
    let waiting = async {
        loop {
            let failures = view.borrow_and_update().known.failures.clone();
            all = failures.values().map(|f| format!("{}: {}", f.reason, f.message)).collect();
            if let Some(told) = all.iter().find(|told| told.contains(wanted)) {
                return told.clone();
            }
            view.changed().await.expect("the agent lives");
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    told.unwrap_or_else(|_| panic!("{wanted:?} is not told, but {all:?}"))
}

async fn memory_is_limited_and_outlives_containers_and_the_agent(host: &Host) {
    let mut node = host.node().await;
    let spec = "volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]";
    let script = "
if [ -f /m/kept ]; then echo kept; else
  grep ' /m ' /proc/mounts | cut -d' ' -f3; stat -c %a /m
  dd if=/dev/zero of=/m/big bs=64k count=32 2>/dev/null || echo full; rm /m/big
  echo x > /m/kept
fi
echo done; sleep 1000";
    let mount = "volumeMounts: [{name: m, mountPath: /m}]";
    let name =
        node.apply("memory", &manifest("memory", spec, mount, script)).expect("apply").name().to_owned();
    has(&said(&node.pod("memory")).await, &["tmpfs", "1777", "full"]);
    node.restart_agent().await.expect("another agent");
    let pod = node.pod("memory");
    assert_eq!(pod.name(), name);
    pod.kill("c").await.expect("kill");
    pod.running_again("c", 1).await.expect("again");
    has(&said(&pod).await, &["kept"]);
    node.remove("memory").expect("remove");
    node.empty().await.expect("nothing is left, mounts neither");
}

async fn mounts_lie_in_each_other_whatever_their_order(host: &Host) {
    let node = host.node().await;
    let spec = "volumes: [{name: outer, emptyDir: {}}, {name: inner, emptyDir: {medium: Memory}}, {name: deep, emptyDir: {}}]";
    let mounts = "
volumeMounts:
- {name: deep, mountPath: /a/b/c}
- {name: inner, mountPath: /a/b}
- {name: outer, mountPath: /a}";
    let script = "touch /a/outer /a/b/inner /a/b/c/deep; cd /a; find . -type f | sort; echo done; sleep 1000";
    let pod = node.apply("nested", &manifest("nested", spec, mounts, script)).expect("apply");
    assert_eq!(said(&pod).await, "./b/c/deep\n./b/inner\n./outer\ndone\n");
    let (sandbox, _) = pod.see().await.expect("see").expect("there");
    let own = node.dir().join("root/pods").join(&sandbox.pod.uid.0).join("volumes/kubernetes.io~empty-dir");
    for file in ["outer/outer", "inner/inner", "deep/deep"] {
        assert!(own.join(file).exists(), "{file}");
    }
}

async fn a_part_of_a_volume_is_mounted_and_cannot_be_led_astray(host: &Host) {
    let node = host.node().await;
    let data = node.dir().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("file"), "a file\n").expect("write");
    let spec = format!(
        "volumes: [{{name: e, emptyDir: {{}}}}, {{name: h, hostPath: {{path: {}, type: Directory}}}}]",
        data.display()
    );
    let container = "
env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
volumeMounts:
- {name: e, mountPath: /all}
- {name: e, mountPath: /part, subPath: a/b}
- {name: e, mountPath: /own, subPathExpr: \"pods/$(NAME)\"}
- {name: h, mountPath: /file, subPath: file, readOnly: true}";
    let script = "
cat /file; touch /part/x /own/y; find /all -type f | sort; stat -c %a /part
(echo x > /file) 2>/dev/null || echo read-only
mv /all/a /all/gone; ln -s /etc /all/a; touch /part/z; ls /all/gone/b
echo done; sleep 1000";
    let pod = node.apply("parts", &manifest("parts", &spec, container, script)).expect("apply");
    let expected = "a file\n/all/a/b/x\n/all/pods/parts-node/y\n777\nread-only\nx\nz\n";
    let log = said(&pod).await;
    assert!(log.starts_with(expected), "{log}");
    // The next instance finds a link where its part was.
    pod.kill("c").await.expect("kill");
    let told = until_told(&node, "leads out of the volume").await;
    assert!(told.contains("CreateContainerConfigError"), "{told}");
    node.remove("parts").expect("remove");
    node.empty().await.expect("nothing is left");
    assert!(data.join("file").exists());
}

async fn a_group_owns_the_pods_volumes(host: &Host) {
    let node = host.node().await;
    let data = node.dir().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    let spec = format!(
        "securityContext: {{fsGroup: 4711}}\nvolumes: [{{name: e, emptyDir: {{}}}}, {{name: m, emptyDir: {{medium: Memory}}}}, \
         {{name: h, hostPath: {{path: {}}}}}, {{name: d, downwardAPI: {{defaultMode: 0400, items: [{{path: f, fieldRef: {{fieldPath: \
         metadata.name}}}}]}}}}]",
        data.display()
    );
    let mounts = "
volumeMounts:
- {name: e, mountPath: /e}
- {name: m, mountPath: /m}
- {name: h, mountPath: /h}
- {name: d, mountPath: /d}";
    let script = "
touch /e/f; mkdir /m/d; stat -c '%g %a' /e /m /e/f; stat -c '%g' /m/d; stat -Lc '%g %a' /d/f; id -G
echo done; sleep 1000";
    let pod = node.apply("group", &manifest("group", &spec, mounts, script)).expect("apply");
    let log = said(&pod).await;
    let expected = "4711 2777\n4711 3777\n4711 644\n4711\n4711 440\n";
    assert!(log.starts_with(expected), "{log}");
    assert!(log.lines().any(|l| l.split(' ').any(|g| g == "4711") && l.starts_with('0')), "{log}");
    assert_eq!(std::fs::metadata(&data).expect("there").gid(), 0, "host paths are not touched");
    // Volumes that are new are the group's by either policy.
    for policy in ["Always", "OnRootMismatch"] {
        let spec = format!(
            "securityContext: {{fsGroup: 4711, fsGroupChangePolicy: {policy}}}\nvolumes: [{{name: e, emptyDir: {{}}}}]"
        );
        let name = policy.to_lowercase();
        let script = "touch /e/f; stat -c '%g %a' /e /e/f\necho done; sleep 1000";
        let mounts = "\nvolumeMounts: [{name: e, mountPath: /e}]";
        let pod = node.apply(&name, &manifest(&name, &spec, mounts, script)).expect("apply");
        has(&said(&pod).await, &["4711 2777", "4711 644"]);
    }
}

/// A tmpfs of the test's own on the node.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn shared(path: std::path::PathBuf) -> Self {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        std::fs::create_dir_all(&path).expect("mkdir");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), None).expect("mount");
        mount_change(&path, MountPropagationFlags::SHARED).expect("share");
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

async fn mounts_of_the_node_arrive_when_asked_for(host: &Host) {
    let node = host.node().await;
    let top = Tmpfs::shared(node.dir().join("top"));
    for dir in ["a/later", "b/later"] {
        std::fs::create_dir_all(top.0.join(dir)).expect("mkdir");
    }
    let spec = format!("volumes: [{{name: h, hostPath: {{path: {}}}}}]", top.0.display());
    let mounts = "
volumeMounts:
- {name: h, mountPath: /none}
- {name: h, mountPath: /slave, mountPropagation: HostToContainer}
- {name: h, mountPath: /part, subPath: a, mountPropagation: HostToContainer}
- {name: h, mountPath: /ro, readOnly: true, recursiveReadOnly: IfPossible}";
    let script = "echo begun; until [ -f /slave/a/later/f ]; do sleep 0.1; done
[ -f /part/later/f ] && echo part; [ -f /none/a/later/f ] || echo not there
touch /ro/b/later/x 2>/dev/null || echo read-only\necho done; sleep 1000";
    // Mounted before: whether it is read-only as well is the runtime's to support.
    let before = Tmpfs::shared(top.0.join("b/later"));
    let pod = node.apply("slave", &manifest("slave", &spec, mounts, script)).expect("apply");
    pod.logged("c", |log| log.contains("begun")).await.expect("it runs");
    let later = Tmpfs::shared(top.0.join("a/later"));
    std::fs::write(later.0.join("f"), "x").expect("write");
    let log = said(&pod).await;
    has(&log, &["part", "not there"]);
    let recursive = host.endpoint().is_none();
    assert_eq!(log.contains("read-only"), recursive, "{log}");
    node.remove("slave").expect("remove");
    node.pod("slave").gone().await.expect("gone");
    drop((later, before, top));
    node.empty().await.expect("nothing is left");
}

async fn mounts_of_a_privileged_container_reach_the_node_when_asked_for(host: &Host) {
    let node = host.node().await;
    let top = Tmpfs::shared(node.dir().join("top"));
    std::fs::create_dir_all(top.0.join("part/made")).expect("mkdir");
    let spec = format!("volumes: [{{name: h, hostPath: {{path: {}}}}}]", top.0.display());
    let container = "
securityContext: {privileged: true}
volumeMounts:
- {name: h, mountPath: /h, subPath: part, mountPropagation: Bidirectional}";
    let script = "mount -t tmpfs none /h/made && touch /h/made/f; echo done; sleep 1000";
    let pod = node.apply("both", &manifest("both", &spec, container, script)).expect("apply");
    said(&pod).await;
    assert!(top.0.join("part/made/f").exists(), "on the node as well");
    node.remove("both").expect("remove");
    pod.gone().await.expect("gone");
    assert!(top.0.join("part/made/f").exists(), "it is the node's by now");
    let made = rustix::mount::unmount(top.0.join("part/made"), rustix::mount::UnmountFlags::DETACH);
    assert!(made.is_ok());
    drop(top);
    node.empty().await.expect("nothing is left");
}

async fn a_busy_volume_delays_the_end_and_does_not_prevent_it(host: &Host) {
    let node = host.node().await;
    let spec = "volumes: [{name: m, emptyDir: {medium: Memory}}]";
    let text = manifest("busy", spec, "volumeMounts: [{name: m, mountPath: /m}]", "echo done; sleep 1000");
    let pod = node.apply("busy", &text).expect("apply");
    said(&pod).await;
    let (sandbox, _) = pod.see().await.expect("see").expect("there");
    let volume =
        node.dir().join("root/pods").join(&sandbox.pod.uid.0).join("volumes/kubernetes.io~empty-dir/m");
    let user = std::fs::File::create(volume.join("open")).expect("open");
    node.apply("busy", &text.replace("echo done", "echo next; echo done")).expect("edit");
    let told = until_told(&node, "is still mounted").await;
    assert!(told.contains(&volume.display().to_string()), "{told}");
    let view = node.view().expect("an agent").borrow().clone();
    let shown = podstead::report::pods(&view, &podstead::report::Node::default());
    let messages: Vec<String> = shown
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.message.clone())
        .filter(|m| m.contains(&told[2..]))
        .collect();
    let leaving = shown.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
    assert_eq!(
        (shown.len(), messages.len(), leaving),
        (2, 2, 1),
        "the old one and the one that waits: {shown:?}"
    );
    drop(user);
    pod.logged("c", |log| log.contains("next")).await.expect("the successor, by itself");
    node.remove("busy").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn an_image_is_mounted_or_said_to_be_too_much_for_the_runtime(host: &Host) {
    let node = host.node().await;
    let spec = "volumes: [{name: i, image: {reference: \"localhost/podstead/nginx:1\"}}]";
    let mounts = "
volumeMounts:
- {name: i, mountPath: /image}
- {name: i, mountPath: /conf, subPath: etc/nginx}
- {name: i, mountPath: /passwd, subPath: etc/passwd}";
    let script = "
[ -f /image/etc/nginx/nginx.conf ] && [ -f /conf/nginx.conf ] && echo there
cmp /passwd /image/etc/passwd && echo same
touch /image/x 2>/dev/null || echo read-only; touch /conf/x 2>/dev/null || echo read-only, too
echo done; sleep 1000";
    let pod = node.apply("image", &manifest("image", spec, mounts, script)).expect("apply");
    if host.endpoint().is_some() {
        // containerd before 2.1.
        let told = until_told(&node, "image volume").await;
        assert!(told.contains("localhost/podstead/nginx:1"), "{told}");
        return;
    }
    has(&said(&pod).await, &["there", "same", "read-only", "read-only, too"]);
    let image = podstead_runtime::ImageSpec::from("localhost/podstead/nginx:1");
    let error =
        podstead_runtime::Runtime::remove_image(node.runtime(), &image).await.expect_err("it is in use");
    assert!(error.to_string().contains("use"), "{error}");
    let absent = spec
        .replace("nginx:1", "none:1, pullPolicy: Never")
        .replace("\"localhost", "localhost")
        .replace("\"}}", "}}");
    node.apply("absent", &manifest("absent", &absent, mounts, script)).expect("apply");
    until_told(&node, "ErrImageNeverPull").await;
}
