//! What pods and containers may use, and changes of it while they run: real cgroups on both backends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use podstead::testing::{Node, PodHandle};
use podstead_runtime::Container;
use serde_json::Value;

use crate::support::{Host, on_both, podstead, skipped};

on_both!(
    a_changed_size_is_carried_out_in_place,
    a_resize_goes_on_where_a_killed_agent_left_it,
    a_resize_policy_of_restart_makes_another_instance,
    a_limit_below_what_is_used_waits_until_it_fits,
    another_class_replaces_the_pod_and_leaves_no_cgroup,
    a_pods_own_resources_limit_it_and_its_containers,
    a_pod_has_no_more_processes_than_the_node_allows,
    memory_that_runs_out_ends_the_whole_container_and_nothing_swaps,
    ephemeral_storage_is_taken_and_told,
);

/// A pod with a uid of its own; `container` is the rest of its only container.
fn pod(name: &str, container: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: {name}-1}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 2\n  containers:\n  - name: c\n    image: localhost/podstead/busybox:1\n    \
         command: [/bin/sh, -c]\n{container}    args:\n    - |\n      {}\n",
        script.replace('\n', "\n      ")
    )
}

fn resources(cpu: &str, memory: &str) -> String {
    format!(
        "    resources: {{requests: {{cpu: 50m, memory: 8Mi}}, limits: {{cpu: {cpu}, memory: {memory}}}}}\n"
    )
}

const SLEEP: &str = "trap 'exit 0' TERM; while :; do sleep 0.2; done";

/// The process's cgroup in the hierarchy of this controller.
fn cgroup(pid: u32, controller: &str) -> PathBuf {
    // One that ended a moment ago has none: nothing is read of it then.
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if table.is_empty() {
        return PathBuf::from("/nonexistent/pod/container");
    }
    for line in table.lines() {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { continue };
        let path = path.trim_start_matches('/');
        if unified() && controllers.is_empty() {
            return Path::new("/sys/fs/cgroup").join(path);
        }
        if controllers.split(',').any(|c| c == controller) {
            return Path::new("/sys/fs/cgroup").join(controller).join(path);
        }
    }
    panic!("no cgroup of {controller} in {table}")
}

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default().trim().to_owned()
}

/// Limits of memory in bytes and of cpu in microseconds of 100 ms: of the container, and of its pod.
fn limits(container: &Container) -> [(String, String); 2] {
    let of = |level: usize| {
        let dir = |controller| {
            cgroup(container.pid, controller).ancestors().nth(level).expect("a parent").to_owned()
        };
        if unified() {
            let quota = read(&dir("cpu"), "cpu.max");
            (read(&dir("memory"), "memory.max"), quota.split(' ').next().unwrap_or_default().to_owned())
        } else {
            (read(&dir("memory"), "memory.limit_in_bytes"), read(&dir("cpu"), "cpu.cfs_quota_us"))
        }
    };
    [of(0), of(1)]
}

fn both(memory: u64, quota: u64) -> [(String, String); 2] {
    let one = || (memory.to_string(), quota.to_string());
    [one(), one()]
}

/// The container, running, when its limits and its pod's are these.
async fn of_limits(pod: &PodHandle<'_>, wanted: [(String, String); 2]) -> Container {
    let mut last = None;
    for _ in 0..300 {
        if let Ok(container) = pod.container("c").await
            && container.is_running()
        {
            let has = limits(&container);
            if has == wanted {
                return container;
            }
            last = Some(has);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{}: {last:?} instead of {wanted:?}", pod.name())
}

fn shown(node: &Node, name: &str) -> Value {
    let list: Value = serde_json::from_str(&podstead(node, &["pods", "-o", "json"])).expect("a list of pods");
    let items = list["items"].as_array().expect("items").clone();
    items.into_iter().find(|pod| pod["metadata"]["name"] == name).unwrap_or_default()
}

async fn until_shown(node: &Node, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..300 {
        let pod = shown(node, name);
        if so(&pod["status"]) {
            return pod["status"].clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name}: {what}: {:#}", shown(node, name)["status"]);
}

fn resizing(status: &Value) -> Option<Value> {
    let all = status["conditions"].as_array()?;
    all.iter().find(|c| c["type"] == "PodResizeInProgress").cloned()
}

async fn a_changed_size_is_carried_out_in_place(host: &Host) {
    let mut node = host.node().await;
    let apply = |node: &Node, cpu: &str, memory: &str| {
        node.apply("size", &pod("size", &resources(cpu, memory), SLEEP)).expect("apply").name().to_owned()
    };
    let name = apply(&node, "200m", "64Mi");
    let first = of_limits(&node.pod("size"), both(64 << 20, 20_000)).await;
    apply(&node, "400m", "128Mi");
    let grown = of_limits(&node.pod("size"), both(128 << 20, 40_000)).await;
    assert_eq!((&grown.id, grown.attempt), (&first.id, 0), "the same instance");
    let status = until_shown(&node, &name, "resized", |s| {
        let now = &s["containerStatuses"][0]["resources"]["limits"]["memory"];
        now == "128Mi" && resizing(s).is_none()
    })
    .await;
    let told = &status["containerStatuses"][0];
    assert_eq!(told["resources"]["limits"]["memory"], "128Mi", "{told:#}");
    assert_eq!(told["allocatedResources"]["memory"], "8Mi", "{told:#}");

    node.restart_agent().await.expect("restart the agent");
    apply(&node, "100m", "32Mi");
    let shrunk = of_limits(&node.pod("size"), both(32 << 20, 10_000)).await;
    assert_eq!(shrunk.id, first.id, "the same instance");
    // A limit that goes is lifted.
    let without = "    resources: {requests: {cpu: 50m, memory: 8Mi}}\n";
    node.apply("size", &pod("size", without, SLEEP)).expect("apply");
    for _ in 0..300 {
        let [(memory, quota), (pods, _)] = limits(&shrunk);
        let free = |text: &str| text == "max" || text.parse::<u64>().is_ok_and(|n| n > 1 << 50);
        if free(&memory) && free(&pods) && matches!(&*quota, "max" | "-1") {
            let now = node.pod("size").container("c").await.expect("the container");
            assert!(now.id == first.id && now.is_running());
            node.remove("size").expect("remove");
            return node.empty().await.expect("nothing is left");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("limits are kept: {:?}", limits(&shrunk));
}

async fn a_resize_goes_on_where_a_killed_agent_left_it(host: &Host) {
    let mut node = host.node().await;
    let manifest = |memory: &str| pod("left", &resources("200m", memory), SLEEP);
    node.apply("left", &manifest("64Mi")).expect("apply");
    let first = of_limits(&node.pod("left"), both(64 << 20, 20_000)).await;
    node.stop_agent().await;
    // As an agent leaves it that dies between the change and its note.
    let sizes = node.config().root_dir.join("pods/left-1/sizes");
    let (was, doubt) = ("cpu=50/200 memory=8388608/67108864", "cpu=50/200 memory=8388608/134217728");
    std::fs::write(sizes.join("c"), format!("{}\n{was}\n{doubt}\n", first.id)).expect("the container's note");
    std::fs::write(sizes.join(".pod"), format!("\n{was}\n{doubt}\n")).expect("the pod's note");
    node.apply("left", &manifest("128Mi")).expect("apply");
    // Until the file rests, the next agent would go by the last good one, and back to its size.
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.restart_agent().await.expect("restart the agent");
    let grown = of_limits(&node.pod("left"), both(128 << 20, 20_000)).await;
    assert_eq!(grown.id, first.id);
    node.remove("left").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn a_resize_policy_of_restart_makes_another_instance(host: &Host) {
    let node = host.node().await;
    let policy = "    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]\n";
    let apply = |cpu: &str, memory: &str| {
        let container = resources(cpu, memory) + policy;
        node.apply("policy", &pod("policy", &container, SLEEP)).expect("apply")
    };
    let handle = apply("200m", "64Mi");
    let first = of_limits(&handle, both(64 << 20, 20_000)).await;
    let handle = apply("300m", "64Mi");
    let same = of_limits(&handle, both(64 << 20, 30_000)).await;
    assert_eq!(same.id, first.id, "cpu may change in place");
    let handle = apply("300m", "96Mi");
    let next = of_limits(&handle, both(96 << 20, 30_000)).await;
    assert_eq!((next.attempt, next.id == first.id), (1, false));
    node.remove("policy").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn a_limit_below_what_is_used_waits_until_it_fits(host: &Host) {
    let node = host.node().await;
    let script = format!("dd if=/dev/zero of=/dev/shm/full bs=1M count=40 2>/dev/null; echo full\n{SLEEP}");
    let apply =
        |memory: &str| node.apply("full", &pod("full", &resources("500m", memory), &script)).expect("apply");
    let handle = apply("96Mi");
    handle.logged("c", |log| log.contains("full")).await.expect("memory in use");
    let first = of_limits(&handle, both(96 << 20, 50_000)).await;
    let handle = apply("24Mi");
    let name = handle.name().to_owned();
    let status =
        until_shown(&node, &name, "in progress", |s| resizing(s).is_some_and(|c| c["reason"] == "Error"))
            .await;
    let told = resizing(&status).expect("the condition");
    let words = "attempting to set container \"c\" memory limit (25165824) below current usage (";
    assert!(told["message"].as_str().is_some_and(|m| m.contains(words)), "{told:#}");
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["memory"], "96Mi");
    assert_eq!(limits(&first), both(96 << 20, 50_000), "nothing was changed");
    handle.exec("c", &["rm", "/dev/shm/full"]).await.expect("make room");
    let fits = of_limits(&handle, both(24 << 20, 50_000)).await;
    assert_eq!((fits.id, fits.attempt), (first.id, 0));
    until_shown(&node, &name, "over", |s| resizing(s).is_none()).await;
    node.remove("full").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn another_class_replaces_the_pod_and_leaves_no_cgroup(host: &Host) {
    let node = host.node().await;
    let handle = node.apply("class", &pod("class", "", SLEEP)).expect("apply");
    let first = handle.running().await.expect("runs").remove(0);
    let before = cgroup(first.pid, "memory").parent().expect("the pod's").to_owned();
    assert!(before.ends_with("besteffort/podclass-1"), "{}", before.display());
    let handle = node.apply("class", &pod("class", &resources("200m", "64Mi"), SLEEP)).expect("apply");
    let next = of_limits(&handle, both(64 << 20, 20_000)).await;
    assert_ne!(next.id, first.id);
    let after = cgroup(next.pid, "memory").parent().expect("the pod's").to_owned();
    assert!(after.ends_with("burstable/podclass-1"), "{}", after.display());
    assert!(!before.exists(), "the old one is gone");
    node.remove("class").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn a_pods_own_resources_limit_it_and_its_containers(host: &Host) {
    let node = host.node().await;
    let own = "spec:\n  resources: {limits: {cpu: 300m, memory: 80Mi}}\n";
    let manifest = pod("own", "", SLEEP).replace("spec:\n", own);
    let handle = node.apply("own", &manifest).expect("apply");
    of_limits(&handle, both(80 << 20, 30_000)).await;
    let status = until_shown(&node, handle.name(), "runs", |s| s["phase"] == "Running").await;
    assert_eq!(status["qosClass"], "Guaranteed");
    node.remove("own").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn a_pod_has_no_more_processes_than_the_node_allows(host: &Host) {
    let node = host.started(host.builder().config(|config| config.limits.pod_max_pids = Some(25))).await;
    let script = format!("for i in $(seq 60); do sleep 1000 & done; echo forked\n{SLEEP}");
    let handle = node.apply("pids", &pod("pids", "", &script)).expect("apply");
    let log = handle.logged("c", |log| log.contains("fork")).await.expect("it forks");
    assert!(log.contains("can't fork") && !log.contains("forked"), "{log}");
    let of_pod = node.config().cgroup_root.clone() + "/kubepods/besteffort/podpids-1/pids.max";
    let root = if unified() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    assert_eq!(read(Path::new(root), of_pod.trim_start_matches('/')), "25");
    node.remove("pids").expect("remove");
    node.empty().await.expect("nothing is left");
}

async fn memory_that_runs_out_ends_the_whole_container_and_nothing_swaps(host: &Host) {
    if !unified() {
        return skipped(
            "whole containers end, and swap is kept from them, with cgroup v2, which this machine has not",
        );
    }
    let node = host.node().await;
    let handle = node.apply("group", &pod("group", &resources("500m", "64Mi"), SLEEP)).expect("apply");
    let container = of_limits(&handle, both(64 << 20, 50_000)).await;
    let dir = cgroup(container.pid, "memory");
    assert_eq!(read(&dir, "memory.oom.group"), "1");
    if dir.join("memory.swap.max").exists() {
        assert_eq!(read(&dir, "memory.swap.max"), "0");
    }
    let single =
        host.started(host.builder().config(|config| config.limits.single_process_oom_kill = true)).await;
    let handle = single.apply("single", &pod("single", &resources("500m", "64Mi"), SLEEP)).expect("apply");
    let container = of_limits(&handle, both(64 << 20, 50_000)).await;
    assert_eq!(read(&cgroup(container.pid, "memory"), "memory.oom.group"), "0");
}

async fn ephemeral_storage_is_taken_and_told(host: &Host) {
    let node = host.node().await;
    let container = "    resources: {limits: {ephemeral-storage: 10Mi}}\n    env:\n    - {name: MOST, valueFrom: \
                     {resourceFieldRef: {resource: limits.ephemeral-storage, divisor: 1Mi}}}\n";
    let handle =
        node.apply("disk", &pod("disk", container, &format!("echo $MOST MiB\n{SLEEP}"))).expect("apply");
    handle.logged("c", |log| log == "10 MiB\n").await.expect("it is told");
    let status = until_shown(&node, handle.name(), "runs", |s| s["phase"] == "Running").await;
    let told = &status["containerStatuses"][0]["resources"];
    assert_eq!(
        (&told["limits"]["ephemeral-storage"], &told["requests"]["ephemeral-storage"]),
        (&"10Mi".into(), &"10Mi".into())
    );
    assert_eq!(status["qosClass"], "BestEffort");
    node.remove("disk").expect("remove");
    node.empty().await.expect("nothing is left");
}
