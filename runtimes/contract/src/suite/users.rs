//! Promises about pods with a user namespace of their own, kept by runtimes that say they have them.

use super::*;
use crate::security::{IdMapping, UserNamespace};
use crate::{ExecOutput, ExecSpec, ExecStreams, Mount};

const LENGTH: u32 = 65_536;

fn ids(host_id: u32) -> Vec<IdMapping> {
    vec![IdMapping { container_id: 0, host_id, length: LENGTH }]
}

/// A sandbox with a user namespace; `None` where the runtime has none, or no network for it.
async fn run<W: World>(w: &W, host_id: u32, change: impl FnOnce(&mut SandboxSpec)) -> Option<Pod> {
    let status = w.runtime().status().await.expect("status");
    if !w.real() || !status.user_namespaces || status.network_problem.is_some() {
        return None;
    }
    let mut spec = sandbox_spec(w);
    // The network's namespace belongs to the user namespace: the node's cannot.
    spec.security.namespaces.network = NamespaceMode::Pod;
    spec.security.namespaces.user = Some(UserNamespace { uids: ids(host_id), gids: ids(host_id) });
    change(&mut spec);
    let id = w.runtime().run_sandbox(&spec).await.expect("run_sandbox");
    Some(Pod { spec, id })
}

fn mapped(pod: &Pod, source: PathBuf, destination: &str) -> Mount {
    let users = pod.spec.security.namespaces.user.clone().unwrap_or_default();
    Mount {
        source,
        destination: destination.into(),
        uid_mappings: users.uids,
        gid_mappings: users.gids,
        ..Mount::default()
    }
}

async fn exec<W: World>(w: &W, id: &ContainerId, script: &str) -> String {
    let command = words(&["/bin/sh", "-c", script]);
    let ran = w.runtime().exec_sync(id, &command, Duration::from_secs(30)).await.expect("exec_sync");
    let ExecOutput { code, stdout, stderr } = ran;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(code, 0, "{script}: {}{}", text(&stdout), text(&stderr));
    text(&stdout)
}

/// What a command says to a terminal, and its exit code.
async fn terminal<W: World>(w: &W, id: &ContainerId, script: &str) -> (i32, String) {
    use tokio::io::AsyncReadExt as _;
    // Both ends close when they are dropped.
    let (mut said, stdout) = tokio::io::duplex(4096);
    let streams = ExecStreams { stdin: None, stdout: Some(Box::new(stdout)), stderr: None, resize: None };
    let spec = ExecSpec { command: words(&["/bin/sh", "-c", script]), tty: true };
    let hear = async {
        let mut text = String::new();
        said.read_to_string(&mut text).await.expect("read");
        text
    };
    let both = async { tokio::join!(w.runtime().exec(id, &spec, streams), hear) };
    let (code, text) = tokio::time::timeout(PATIENCE, both).await.expect("exec ends");
    (code.expect("exec"), text)
}

/// Root inside is nobody on the node, in the container and in what is executed beside it, and may do inside what root may.
pub async fn root_inside_is_nobody_on_the_node<W: World>(w: &W) {
    use std::os::unix::fs::MetadataExt as _;
    let Some(pod) = run(w, 10 * LENGTH, |_| {}).await else { return };
    let data = pod.spec.log_directory.with_extension("users");
    std::fs::create_dir_all(&data).expect("mkdir");
    std::fs::write(data.join("roots"), "x").expect("write");
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u:%g /data/roots /etc /etc/hosts /bin/sh; \
                  echo y > /data/made; chown 7:8 /data/made; echo z > /dev/stdout; mkdir /new /etc/new; touch /etc/hosts; \
                  hostname inside && echo named; echo ready; sleep 1000";
    let mut spec = container_spec(w, &pod.spec, "c", script);
    spec.security.add_capabilities = vec!["SYS_ADMIN".into()];
    spec.mounts = vec![mapped(&pod, data.clone(), "/data")];
    let id = pod.start_spec(w, &spec).await;
    let log = until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("ready")).await;
    let said: Vec<String> =
        log.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default().trim().to_owned()).collect();
    let map = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!([map(&said[0]), map(&said[1])], ["0 655360 65536", "0 655360 65536"], "{log}");
    assert_eq!(said[2..], ["0", "0:0", "0:0", "0:0", "0:0", "z", "named", "ready"], "{log}");
    let made = std::fs::metadata(data.join("made")).expect("made");
    assert_eq!((made.uid(), made.gid()), (7, 8), "on the disk as the container counts");
    let inside =
        exec(w, &id, "cat /proc/self/uid_map; id -u; grep CapBnd /proc/self/status /proc/1/status").await;
    let lines: Vec<String> = inside.lines().map(map).collect();
    assert_eq!(lines[..2], ["0 655360 65536", "0"], "{inside}");
    let bound = |line: &String| line.rsplit(' ').next().unwrap_or_default().to_owned();
    assert_eq!(bound(&lines[2]), bound(&lines[3]), "no more rights than its first process: {inside}");
    pod.end(w).await;
    assert!(data.join("made").exists());
}

/// Users other than root are counted too, and two pods do not share theirs.
pub async fn users_inside_are_apart_from_those_of_other_pods<W: World>(w: &W) {
    let Some(one) = run(w, 20 * LENGTH, |_| {}).await else { return };
    let Some(two) = run(w, 21 * LENGTH, |_| {}).await else { return };
    let script = "id -u; id -G; cat /proc/self/uid_map; echo x > /dev/shm/x; stat -c %u /dev/shm/x; \
                  echo y > /dev/stdout; echo ready; sleep 1000";
    for (pod, first) in [(&one, "1310720"), (&two, "1376256")] {
        let mut spec = container_spec(w, &pod.spec, "c", script);
        spec.security.run_as_user = Some(4711);
        spec.security.run_as_group = Some(2000);
        spec.security.supplemental_groups = vec![3000];
        let id = pod.start_spec(w, &spec).await;
        let log = until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("ready")).await;
        assert!(log.contains(first) && log.contains("F 4711") && log.contains("F 2000 3000"), "{log}");
        assert!(log.contains("F y"), "{log}");
        assert_eq!(
            exec(w, &id, "id -u; id -g; id -G; echo y > /dev/stdout").await,
            "4711\n2000\n2000 3000\ny\n"
        );
    }
    one.end(w).await;
    two.end(w).await;
}

/// A pod may share its pid namespace, set kernel parameters and hide nothing of /proc at the same time.
pub async fn a_pod_with_users_of_its_own_shares_processes_and_sets_parameters<W: World>(w: &W) {
    let change = |spec: &mut SandboxSpec| {
        spec.security.namespaces.pid = NamespaceMode::Pod;
        spec.hostname = "inside".into();
        spec.sysctls = BTreeMap::from([
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned()),
            ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
        ]);
    };
    let Some(pod) = run(w, 30 * LENGTH, change).await else { return };
    let first = pod.start(w, "first", "sleep 1000").await;
    let mut spec = container_spec(w, &pod.spec, "second", "echo ready; sleep 1000");
    spec.tty = true;
    spec.security.run_as_user = Some(4711);
    let id = pod.start_spec(w, &spec).await;
    until_file(&pod.spec.log_directory.join("second/0.log"), |log| log.contains("ready")).await;
    let seen = exec(
        w,
        &id,
        "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start \
                             /proc/sys/kernel/shm_rmid_forced; ps | grep -c '[s]leep 1000'",
    )
    .await;
    assert_eq!(seen, "inside\n77\n1\n2\n");
    let own = "stat -c %u:%g $(tty); echo written > $(tty); exit 3";
    assert_eq!(terminal(w, &id, own).await, (3, "4711:5\r\nwritten\r\n".to_owned()), "its own terminal");
    w.runtime().stop_container(&first, Duration::from_secs(1)).await.expect("stop");
    pod.end(w).await;
}
