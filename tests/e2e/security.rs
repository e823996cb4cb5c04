//! Security contexts, namespaces and terminals, seen from inside the container, on both backends.

use std::fmt::Write as _;

use podstead::pod::sysctl::Allowed;
use podstead::testing::{Node, PodHandle};
use podstead_runtime::Runtime;

use crate::support::{Host, on_both};

on_both!(
    users_and_groups_are_the_pods_overlaid_by_the_containers,
    an_init_container_has_settings_of_its_own,
    a_container_that_must_not_be_root_is_not_made,
    strict_groups_leave_the_images_out_or_are_refused,
    capabilities_are_added_and_dropped,
    privileges_cannot_grow_where_that_is_forbidden,
    a_privileged_container_is_the_nodes_root,
    the_root_file_system_is_read_only_where_asked,
    proc_is_masked,
    seccomp_profiles_confine,
    the_default_profile_is_for_all_that_say_nothing,
    an_apparmor_profile_needs_apparmor,
    selinux_options_do_no_harm,
    safe_kernel_parameters_are_the_pods_own,
    unsafe_kernel_parameters_need_the_nodes_leave,
    the_nodes_processes_and_ipc_are_seen_where_asked,
    containers_of_a_pod_see_each_others_processes_where_asked,
    standard_input_and_terminal_are_there_when_asked,
);

/// A pod with these settings and containers, `name: settings` each; all run the same script.
fn manifest(name: &str, pod: &str, containers: &[(&str, &str)], script: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 2\n  {pod}\n  containers:\n"
    );
    for (container, settings) in containers {
        let script = script.replace('\n', "\n      ");
        let _ = write!(
            text,
            "  - name: {container}\n    image: localhost/podstead/busybox:1\n    {settings}\n    command: [/bin/sh, -c]\n    \
             args:\n    - |\n      {script}\n"
        );
    }
    text
}

/// Runs the pod on the node's network to the end of all its containers and answers what each printed.
async fn said(node: &Node, name: &str, pod: &str, containers: &[(&str, &str)], script: &str) -> Vec<String> {
    let pod = format!("hostNetwork: true\n  {pod}");
    let handle = node.apply(name, &manifest(name, &pod, containers, script)).expect("apply");
    let mut all = Vec::new();
    for (container, _) in containers {
        handle.exited(container).await.expect("it ends");
        all.push(handle.logs(container).await.expect("its log"));
    }
    all
}

/// What one container with these settings printed.
async fn alone(node: &Node, name: &str, settings: &str, script: &str) -> String {
    let own = format!("securityContext: {{{settings}}}");
    said(node, name, "", &[("c", &own)], script).await.remove(0)
}

/// Waits until a container waits, and answers why: reason and message.
pub(crate) async fn waits(node: &Node, pod: &PodHandle<'_>) -> (String, String) {
    let mut view = node.view().expect("an agent");
    let shown = podstead::report::Node::default();
    let find = async {
        loop {
            let pods = podstead::report::pods(&view.borrow_and_update().clone(), &shown);
            let own = pods.into_iter().find(|p| p.metadata.name.as_deref() == Some(pod.name()));
            let statuses = own.and_then(|p| p.status?.container_statuses).unwrap_or_default();
            let waiting = statuses.into_iter().find_map(|c| c.state?.waiting);
            if let Some(waiting) = waiting.filter(|w| w.message.is_some()) {
                return (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default());
            }
            view.changed().await.expect("the agent lives");
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), find).await.expect("a reason within a minute")
}

/// Waits until the pod itself is refused, and answers the message.
pub(crate) async fn rejected(node: &Node, pod: &PodHandle<'_>) -> String {
    let mut view = node.view().expect("an agent");
    let shown = podstead::report::Node::default();
    let find = async {
        loop {
            let pods = podstead::report::pods(&view.borrow_and_update().clone(), &shown);
            let own = pods.into_iter().find(|p| p.metadata.name.as_deref() == Some(pod.name()));
            if let Some(message) = own.and_then(|p| p.status?.message) {
                return message;
            }
            view.changed().await.expect("the agent lives");
        }
    };
    let message = tokio::time::timeout(std::time::Duration::from_secs(60), find).await;
    let message = message.expect("a message within a minute");
    assert!(pod.see().await.expect("see").is_none(), "nothing of a refused pod is made");
    message
}

async fn users_and_groups_are_the_pods_overlaid_by_the_containers(host: &Host) {
    let node = host.node().await;
    let pod = "securityContext: {runAsUser: 1234, runAsGroup: 2345, supplementalGroups: [33, 44]}";
    let containers = [("pods", "tty: false"), ("own", "securityContext: {runAsUser: 0, runAsGroup: 7}")];
    let script = "echo uid=$(id -u) gid=$(id -g) groups=$(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' ')\n\
                  touch /new 2>/dev/null && echo root can write";
    let all = said(&node, "users", pod, &containers, script).await;
    assert_eq!(all[0], "uid=1234 gid=2345 groups=33 44 2345\n");
    assert!(all[1].starts_with("uid=0 gid=7 groups=") && all[1].contains("root can write"), "{}", all[1]);
    for group in ["33", "44", "7"] {
        assert!(all[1].split(['=', ' ', '\n']).any(|word| word == group), "{group} in {}", all[1]);
    }
}

async fn an_init_container_has_settings_of_its_own(host: &Host) {
    let node = host.node().await;
    let pod = "hostNetwork: true\n  securityContext: {runAsUser: 1000, runAsNonRoot: true}\n  \
               volumes: [{name: v, emptyDir: {}}]\n  initContainers:\n  - name: first\n    \
               image: localhost/podstead/busybox:1\n    \
               command: [/bin/sh, -c, \"id -u > /v/made; chmod 600 /v/made\"]\n    \
               securityContext: {runAsUser: 0, runAsNonRoot: false}\n    \
               volumeMounts: [{name: v, mountPath: /v}]";
    let own = "volumeMounts: [{name: v, mountPath: /v}]";
    let text = manifest("init", pod, &[("c", own)], "id -u; cat /v/made 2>/dev/null || ls -n /v/made");
    let pod = node.apply("init", &text).expect("apply");
    assert_eq!(pod.exited("c").await.expect("it ends"), 0);
    let said = pod.logs("c").await.expect("its log");
    assert!(said.starts_with("1000\n-rw-------") && said.contains(" 0 "), "root's file: {said}");
}

async fn a_container_that_must_not_be_root_is_not_made(host: &Host) {
    let node = host.node().await;
    let with = |name: &str, user: &str| {
        let pod = format!("hostNetwork: true\n  securityContext: {{runAsNonRoot: true{user}}}");
        manifest(name, &pod, &[("c", "tty: false")], "id -u; exec sleep 1000")
    };
    let root = node.apply("root", &with("root", "")).expect("apply");
    let (reason, message) = waits(&node, &root).await;
    assert_eq!(reason, "CreateContainerConfigError");
    let wanted = "container has runAsNonRoot and image will run as root (pod: \"root-node_default(";
    assert!(message.starts_with(wanted) && message.ends_with(")\", container: c)"), "{message}");
    let zero = node.apply("zero", &with("zero", ", runAsUser: 0")).expect("apply");
    let (_, message) = waits(&node, &zero).await;
    assert!(message.starts_with("container's runAsUser breaks non-root policy (pod: "), "{message}");
    let user = node.apply("user", &with("user", ", runAsUser: 1000")).expect("apply");
    user.logged("c", |log| log == "1000\n").await.expect("another user may");
    assert!(root.container("c").await.is_err(), "none was made");
}

async fn strict_groups_leave_the_images_out_or_are_refused(host: &Host) {
    let node = host.node().await;
    // By the image's group file its user 1000 is also in 2000 and 2001.
    let with = |policy: &str| {
        format!(
            "securityContext: {{runAsUser: 1000, supplementalGroups: [4], supplementalGroupsPolicy: {policy}}}"
        )
    };
    let script = "id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '";
    let merged = said(&node, "merge", &with("Merge"), &[("c", "tty: false")], script).await.remove(0);
    assert_eq!(merged.trim(), "4 1000 2000 2001");
    if node.runtime().status().await.expect("status").strict_groups {
        let strict = said(&node, "strict", &with("Strict"), &[("c", "tty: false")], script).await.remove(0);
        assert_eq!(strict.trim(), "4 1000");
    } else {
        let text = manifest("strict", &with("Strict"), &[("c", "tty: false")], script);
        let strict = node.apply("strict", &text).expect("apply");
        let message = rejected(&node, &strict).await;
        assert_eq!(
            message,
            "Pod was rejected: SupplementalGroupsPolicy=Strict is not supported in this node"
        );
    }
}

/// The capabilities of a status line, as a number.
fn capabilities(said: &str, set: &str) -> u64 {
    let line = said.lines().find_map(|l| l.strip_prefix(set)).unwrap_or_else(|| panic!("{set} in {said}"));
    u64::from_str_radix(line.trim(), 16).expect("a hexadecimal number")
}

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;

async fn capabilities_are_added_and_dropped(host: &Host) {
    let node = host.node().await;
    let containers = [
        ("plain", "tty: false"),
        ("more", "securityContext: {capabilities: {add: [CAP_NET_ADMIN], drop: [net_raw]}}"),
        ("one", "securityContext: {capabilities: {add: [NET_BIND_SERVICE], drop: [ALL]}}"),
        ("user", "securityContext: {runAsUser: 5, capabilities: {add: [NET_ADMIN]}}"),
    ];
    let all = said(&node, "caps", "", &containers, "cat /proc/self/status").await;
    let effective: Vec<u64> = all.iter().map(|said| capabilities(said, "CapEff:")).collect();
    assert_eq!(effective[0] & (NET_ADMIN | NET_RAW | SYS_ADMIN), NET_RAW);
    assert_eq!(effective[1] ^ effective[0], NET_ADMIN | NET_RAW);
    assert_eq!(effective[2], NET_BIND_SERVICE);
    assert_eq!(effective[3], 0, "only root has them by itself");
    assert_eq!(capabilities(&all[3], "CapBnd:") & NET_ADMIN, NET_ADMIN);
}

async fn privileges_cannot_grow_where_that_is_forbidden(host: &Host) {
    let node = host.node().await;
    let containers =
        [("plain", "tty: false"), ("held", "securityContext: {allowPrivilegeEscalation: false}")];
    let all = said(&node, "escalate", "", &containers, "grep NoNewPrivs /proc/self/status").await;
    assert_eq!(all, ["NoNewPrivs:\t0\n", "NoNewPrivs:\t1\n"]);
}

async fn a_privileged_container_is_the_nodes_root(host: &Host) {
    let node = host.node().await;
    let script = "cat /proc/self/status; ls /dev | wc -l; grep -c ' /proc/[a-z]' /proc/self/mounts\n\
                  grep ' /sys ' /proc/self/mounts";
    let containers = [("plain", "tty: false"), ("root", "securityContext: {privileged: true}")];
    let all = said(&node, "privileged", "", &containers, script).await;
    let own = std::fs::read_to_string("/proc/self/status").expect("our own status");
    assert_eq!(capabilities(&all[1], "CapEff:"), capabilities(&own, "CapEff:"));
    assert_ne!(capabilities(&all[0], "CapEff:"), capabilities(&own, "CapEff:"));
    let numbers = |said: &str| -> Vec<usize> { said.lines().filter_map(|l| l.parse().ok()).collect() };
    let (plain, root) = (numbers(&all[0]), numbers(&all[1]));
    assert!(root[0] > plain[0], "the node's devices: {root:?} {plain:?}");
    assert!(plain[1] > 0 && root[1] == 0, "nothing covers /proc: {root:?} {plain:?}");
    assert!(all[0].contains(" /sys sysfs ro,") && all[1].contains(" /sys sysfs rw,"), "{all:?}");
}

async fn the_root_file_system_is_read_only_where_asked(host: &Host) {
    let node = host.node().await;
    let script = "touch /new 2>/dev/null && echo written; echo end";
    assert_eq!(alone(&node, "ro", "readOnlyRootFilesystem: true", script).await, "end\n");
    assert_eq!(alone(&node, "rw", "readOnlyRootFilesystem: false", script).await, "written\nend\n");
}

async fn proc_is_masked(host: &Host) {
    let node = host.node().await;
    let script = "wc -c < /proc/timer_list; ls /sys/firmware | wc -l\n\
                  (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo refused\n\
                  grep -q ' /proc/sys proc ro,' /proc/self/mounts && echo read-only\n\
                  grep -qE ' /proc/(kcore|keys|timer_list) ' /proc/self/mounts && echo covered";
    let said = alone(&node, "proc", "procMount: Default", script).await;
    assert_eq!(said, "0\n0\nrefused\nread-only\ncovered\n");
}

async fn seccomp_profiles_confine(host: &Host) {
    let node = host.node().await;
    let profiles = node.config().root_dir.join("seccomp/web");
    std::fs::create_dir_all(&profiles).expect("mkdir");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
    std::fs::write(profiles.join("no-mkdir.json"), profile).expect("write");
    let pod = "securityContext: {seccompProfile: {type: RuntimeDefault}}";
    let containers = [
        ("pods", "tty: false"),
        ("own", "securityContext: {seccompProfile: {type: Unconfined}}"),
        ("file", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: web/no-mkdir.json}}"),
    ];
    let script = "grep Seccomp: /proc/self/status; mkdir /tmp/new 2>/dev/null && echo made";
    let all = said(&node, "seccomp", pod, &containers, script).await;
    assert_eq!(all, ["Seccomp:\t2\nmade\n", "Seccomp:\t0\nmade\n", "Seccomp:\t2\n"]);
    let missing = "securityContext: {seccompProfile: {type: Localhost, localhostProfile: none.json}}";
    let text = manifest("missing", "hostNetwork: true", &[("c", missing)], "true");
    let missing = node.apply("missing", &text).expect("apply");
    let (reason, message) = waits(&node, &missing).await;
    assert!(message.contains("seccomp/none.json"), "{reason}: {message}");
}

async fn the_default_profile_is_for_all_that_say_nothing(host: &Host) {
    let node = host.builder().seccomp_default();
    let node = host.started(node).await;
    let containers = [
        ("plain", "tty: false"),
        ("none", "securityContext: {seccompProfile: {type: Unconfined}}"),
        ("root", "securityContext: {privileged: true}"),
    ];
    let all = said(&node, "default", "", &containers, "grep Seccomp: /proc/self/status").await;
    assert_eq!(all, ["Seccomp:\t2\n", "Seccomp:\t0\n", "Seccomp:\t0\n"]);
}

async fn an_apparmor_profile_needs_apparmor(host: &Host) {
    let node = host.node().await;
    let script = "cat /proc/self/attr/current 2>/dev/null; echo end";
    let none = alone(&node, "none", "appArmorProfile: {type: Unconfined}", script).await;
    assert!(none.ends_with("end\n"), "{none}");
    if podstead::node::facts::apparmor() {
        return;
    }
    let asks = "securityContext: {appArmorProfile: {type: Localhost, localhostProfile: web}}";
    let text = manifest("asks", "hostNetwork: true", &[("c", asks)], script);
    let pod = node.apply("asks", &text).expect("apply");
    let message = rejected(&node, &pod).await;
    assert_eq!(message, "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host");
}

async fn selinux_options_do_no_harm(host: &Host) {
    let node = host.node().await;
    let options = "seLinuxOptions: {type: container_t, level: \"s0:c1,c2\"}";
    assert_eq!(alone(&node, "labels", options, "echo runs").await, "runs\n");
}

async fn safe_kernel_parameters_are_the_pods_own(host: &Host) {
    let node = host.node().await;
    let pod = "securityContext: {sysctls: [{name: net/ipv4/ip_local_port_range, value: \"20000 30000\"}, \
               {name: kernel.shm_rmid_forced, value: \"1\"}]}";
    let script = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced";
    let text = manifest("sysctls", pod, &[("c", "tty: false")], script);
    let pod = node.apply("sysctls", &text).expect("apply");
    pod.exited("c").await.expect("it ends");
    assert_eq!(pod.logs("c").await.expect("its log"), "20000\t30000\n1\n");
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("the node's");
    assert_ne!(own, "20000\t30000\n");
}

async fn unsafe_kernel_parameters_need_the_nodes_leave(host: &Host) {
    let pod = "securityContext: {sysctls: [{name: kernel.msgmax, value: \"16384\"}]}";
    let text = manifest("unsafe", pod, &[("c", "tty: false")], "cat /proc/sys/kernel/msgmax");
    let node = host.node().await;
    let refused = node.apply("unsafe", &text).expect("apply");
    let message = rejected(&node, &refused).await;
    assert_eq!(message, "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    drop(node);
    let allowed = Allowed::parse(["kernel.msg*"]).expect("a pattern");
    let node = host.started(host.builder().allowed_unsafe_sysctls(allowed)).await;
    let pod = node.apply("unsafe", &text).expect("apply");
    pod.exited("c").await.expect("it ends");
    assert_eq!(pod.logs("c").await.expect("its log"), "16384\n");
}

async fn the_nodes_processes_and_ipc_are_seen_where_asked(host: &Host) {
    let node = host.node().await;
    let script = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc";
    let own = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("our namespace");
        link.display().to_string()
    };
    let both = said(&node, "host", "hostPID: true\n  hostIPC: true", &[("c", "tty: false")], script).await;
    assert_eq!(both[0], format!("{}\n{}\n", own("pid"), own("ipc")));
    let none = said(&node, "own", "hostPID: false", &[("c", "tty: false")], script).await;
    assert!(!none[0].contains(&own("pid")) && !none[0].contains(&own("ipc")), "{none:?}");
    let shm = said(&node, "shm", "hostIPC: true", &[("c", "tty: false")], "stat -c %d /dev/shm").await;
    let nodes = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata("/dev/shm").expect("/dev/shm"));
    assert_eq!(shm[0].trim(), nodes.to_string(), "the node's /dev/shm");
}

/// Settings of a container that may trace others.
const TRACER: &str = "securityContext: {capabilities: {add: [SYS_PTRACE]}}";

async fn containers_of_a_pod_see_each_others_processes_where_asked(host: &Host) {
    let node = host.node().await;
    let script = "echo ready; exec sleep 1000";
    for (name, share) in [("shared", true), ("apart", false)] {
        let pod = format!("hostNetwork: true\n  shareProcessNamespace: {share}");
        let text = manifest(name, &pod, &[("one", "tty: false"), ("two", TRACER)], script);
        let pod = node.apply(name, &text).expect("apply");
        pod.running().await.expect("both run");
        for container in ["one", "two"] {
            pod.logged(container, |log| log == "ready\n").await.expect("it is ready");
        }
        let count = pod.exec("one", &["/bin/sh", "-c", "ps -o args | grep -c '^sleep 1000'"]).await;
        let count = String::from_utf8_lossy(&count.expect("ps").stdout).trim().to_owned();
        assert_eq!(count, if share { "2" } else { "1" }, "{name}");
        if share {
            // Whoever may trace finds nothing of the node behind the namespace's first process.
            let look =
                "readlink /proc/1/root && ls -a /proc/1/root/ && ! ls -d /proc/1/root/usr /proc/1/root/root";
            let seen = pod.exec("two", &["/bin/sh", "-c", look]).await.expect("look");
            let said = String::from_utf8_lossy(&seen.stdout).into_owned();
            assert_eq!(seen.code, 0, "{said}{}", String::from_utf8_lossy(&seen.stderr));
        }
        pod.kill("one").await.expect("kill one");
        pod.exited("one").await.expect("it ends");
        assert!(pod.container("two").await.expect("the other").is_running(), "{name}: the other goes on");
    }
}

async fn standard_input_and_terminal_are_there_when_asked(host: &Host) {
    let node = host.node().await;
    let script = "test -t 0 && echo terminal; echo begun; cat; echo over";
    let containers = [
        ("closed", "stdin: false"),
        ("open", "stdin: true\n    stdinOnce: true"),
        ("terminal", "stdin: true\n    tty: true"),
    ];
    let text = manifest("streams", "hostNetwork: true", &containers, script);
    let pod = node.apply("streams", &text).expect("apply");
    assert_eq!(pod.exited("closed").await.expect("its input ends at once"), 0);
    assert_eq!(pod.logs("closed").await.expect("its log"), "begun\nover\n");
    pod.logged("terminal", |log| log.starts_with("terminal")).await.expect("it has a terminal");
    for container in ["open", "terminal"] {
        pod.logged(container, |log| log.contains("begun")).await.expect("it begins");
        pod.exec(container, &["true"]).await.expect("time for it to end");
        assert!(pod.container(container).await.expect("made").is_running(), "{container} waits for input");
    }
}
