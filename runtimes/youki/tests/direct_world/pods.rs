//! Short ways to run containers of the direct runtime and to look at them from inside and outside.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podstead_runtime::suite::{Pod, World as _, container_spec, until_exited, until_file};
use podstead_runtime::{Container, ContainerId, ContainerSpec, ContainerState, Runtime as _};

use super::{Libcontainer, directory};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command's words.
pub fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|&word| word.to_owned()).collect()
}

/// A container's spec that runs a shell script.
pub fn spec(w: &Libcontainer, pod: &Pod, script: &str) -> ContainerSpec {
    container_spec(w, &pod.spec, "c", script)
}

/// What a script says inside a running container; it must succeed.
pub async fn sh(w: &Libcontainer, id: &ContainerId, script: &str) -> String {
    let output =
        w.runtime().exec_sync(id, &words(&["/bin/sh", "-c", script]), PATIENCE).await.expect("exec_sync");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.code, 0, "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Starts a container and waits until it has said "ready".
pub async fn start(w: &Libcontainer, pod: &Pod, spec: &ContainerSpec) -> ContainerId {
    let id = pod.start_spec(w, spec).await;
    let log = pod.spec.log_directory.join(&spec.log_path);
    until_file(&log, |log| log.contains("ready")).await;
    id
}

/// Runs a container to its end; returns it and what it said.
pub async fn run(w: &Libcontainer, pod: &Pod, spec: &ContainerSpec) -> (Container, String) {
    let id = pod.start_spec(w, spec).await;
    let ended = until_exited(w, &id).await;
    (ended, said(pod, spec))
}

/// A container's output without the log's times and tags.
pub fn said(pod: &Pod, spec: &ContainerSpec) -> String {
    let log = fs::read(pod.spec.log_directory.join(&spec.log_path)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
}

/// The exit code of an ended container.
pub fn code(container: &Container) -> i32 {
    match container.state {
        ContainerState::Exited { code, .. } => code,
        ref other => panic!("it has not ended: {other:?}"),
    }
}

/// The container's run directory.
pub fn run_dir(id: &ContainerId) -> PathBuf {
    directory().join("state/containers").join(&id.0)
}

/// The container's shim: the process that holds its run directory as its second argument and is no container's.
pub fn shim(id: &ContainerId) -> Option<u32> {
    let wanted = run_dir(id).display().to_string();
    processes().into_iter().find(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|b| *b == 0).collect();
        words.get(1) == Some(&&b"container-shim"[..])
            && words.get(2).is_some_and(|dir| *dir == wanted.as_bytes())
            && fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == fs::read_link("/proc/self/ns/mnt").ok()
    })
}

/// All processes of the node.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Processes whose command line holds the text.
pub fn running(text: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text) && *pid != std::process::id()
    };
    processes().into_iter().filter(has).collect()
}

/// A line of `/proc/<pid>/status`, without its name.
pub fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
}

/// Kills a process as the kernel would, and waits until it is gone.
pub async fn kill(pid: u32) {
    let pid = i32::try_from(pid).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kill");
    until(|| {
        !Path::new(&format!("/proc/{pid}")).exists()
            || status(pid.cast_unsigned(), "State").is_some_and(|s| s.starts_with('Z'))
    })
    .await;
}

/// Waits for something that comes soon.
pub async fn until(done: impl Fn() -> bool) {
    for _ in 0..1500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came");
}

/// Whether the node has cgroup v2 only.
pub fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A file of the container's cgroup: controller and file of v1, or file of v2.
pub fn cgroup_file(pod: &Pod, id: &ContainerId, v1: (&str, &str), v2: &str) -> String {
    let below = format!("{}/{id}", pod.spec.cgroup_parent);
    let path = if unified() {
        format!("/sys/fs/cgroup{below}/{v2}")
    } else {
        format!("/sys/fs/cgroup/{}{below}/{}", v1.0, v1.1)
    };
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}
