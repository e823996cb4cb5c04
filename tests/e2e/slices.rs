//! Where systemd keeps the cgroups: a pod's slice has the pod's limits and goes with it. Needs systemd and cgroup v2.

use std::path::{Path, PathBuf};
use std::process::Command;

use podstead_runtime::CgroupDriver;

use crate::support::{Host, busybox, skipped};

/// The slice's directory, wherever systemd puts it.
fn directory(uid: &str) -> Option<PathBuf> {
    let end = format!("-pod{uid}.slice");
    let find =
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{end}")]).output();
    let found = String::from_utf8(find.expect("find").stdout).expect("UTF-8");
    found.lines().next().map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_slice_has_its_limits_and_goes_with_it() {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !Path::new("/run/systemd/system").exists() || !unified {
        return skipped("slices need systemd and cgroup v2, which this machine has not");
    }
    let host = Host::containerd_with_systemd();
    let node = host.builder().cgroup_driver(CgroupDriver::Systemd).start().await.expect("start the node");
    let limits = "localhost/podstead/busybox:1\n    resources:\n      limits: {cpu: 500m, memory: 64Mi}";
    let manifest = busybox("slice", "exec sleep 100000").replace("localhost/podstead/busybox:1", limits);
    let pod = node.apply("slice", &manifest).expect("apply");
    let containers = pod.running().await.expect("runs");
    let uid = containers[0].pod_uid().as_str().to_owned();
    let slice = directory(&uid).expect("the pod's slice");
    let read = |file: &str| std::fs::read_to_string(slice.join(file)).expect("read");
    assert_eq!((&*read("memory.max"), &*read("cpu.max")), ("67108864\n", "50000 100000\n"));
    assert_eq!(read("cpu.weight"), "20\n");
    let inside = std::fs::read_dir(&slice).expect("list").flatten();
    assert!(inside.filter(|e| e.path().is_dir()).count() >= 2, "sandbox and container are in it");

    node.remove("slice").expect("remove");
    pod.gone().await.expect("gone");
    node.empty().await.expect("nothing is left");
    assert_eq!(directory(&uid), None, "its slice is gone");
    let units = Command::new("systemctl").args(["list-units", "--all", "--plain", "--no-legend"]).output();
    let units = String::from_utf8(units.expect("systemctl").stdout).expect("UTF-8");
    assert!(!units.contains(&uid), "{units}");
}
