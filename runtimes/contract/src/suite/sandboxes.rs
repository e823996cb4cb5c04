//! Promises about sandboxes.

use super::*;
use crate::{Error, Hint, SandboxState};

/// Hints begin with "look at everything".
pub async fn the_first_hint_is_everything<W: World>(w: &W) {
    let mut hints = w.runtime().hints();
    assert_eq!(next(&mut hints).await, Some(Hint::Everything));
}

/// A runtime can say who it is and that it is ready.
pub async fn version_and_status_answer<W: World>(w: &W) {
    let info = w.runtime().version().await.expect("version");
    assert!(!info.name.is_empty() && !info.version.is_empty(), "{info:?}");
    let status = w.runtime().status().await.expect("status");
    assert_eq!(status.runtime_problem, None);
}

/// Uid and attempt are a sandbox's key.
pub async fn running_a_sandbox_twice_gives_one<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let again = w.runtime().run_sandbox(&pod.spec).await.expect("run_sandbox again");
    assert_eq!(again, pod.id);
    let (sandboxes, _) = pod.left(w).await;
    assert_eq!(sandboxes.len(), 1);
    w.runtime().stop_sandbox(&pod.id).await.expect("stop_sandbox");
    let next = SandboxSpec { attempt: 1, ..pod.spec.clone() };
    let second = w.runtime().run_sandbox(&next).await.expect("run_sandbox attempt 1");
    assert_ne!(second, pod.id);
    w.runtime().remove_sandbox(&pod.id).await.expect("remove the first");
    Pod { spec: next, id: second }.end(w).await;
}

/// What was asked for is what is observed.
pub async fn a_sandbox_is_seen_as_it_was_asked_for<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let (sandboxes, containers) = pod.left(w).await;
    let [seen] = &sandboxes[..] else { panic!("one sandbox, found {sandboxes:?}") };
    assert!(containers.is_empty());
    assert_eq!((&seen.pod, seen.attempt, seen.state), (&pod.spec.pod, 0, SandboxState::Ready));
    assert!(seen.host_network);
    assert!(seen.created_at.known().is_some());
    for (key, value) in &pod.spec.labels {
        assert_eq!(seen.labels.get(key), Some(value), "label {key}");
    }
    assert!(seen.labels.contains_key(labels::OWNER), "our mark");
    assert_eq!(seen.annotations.get(labels::CONFIG_SOURCE).map(String::as_str), Some("file"));
    w.runtime().stop_sandbox(&pod.id).await.expect("stop_sandbox");
    let (sandboxes, _) = pod.left(w).await;
    assert_eq!(sandboxes.first().map(|s| s.state), Some(SandboxState::NotReady));
    pod.end(w).await;
}

/// Stopping a sandbox leaves nothing running in it.
pub async fn stopping_a_sandbox_kills_what_runs_in_it<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "sleep 1000").await;
    w.runtime().stop_sandbox(&pod.id).await.expect("stop_sandbox");
    w.runtime().stop_sandbox(&pod.id).await.expect("stop_sandbox again");
    until_exited(w, &id).await;
    pod.end(w).await;
}

/// Removing a sandbox removes everything in it.
pub async fn removing_a_sandbox_removes_its_containers<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    pod.start(w, "c", "exit 0").await;
    w.runtime().stop_sandbox(&pod.id).await.expect("stop_sandbox");
    w.runtime().remove_sandbox(&pod.id).await.expect("remove_sandbox");
    let (sandboxes, containers) = pod.left(w).await;
    assert!(sandboxes.is_empty() && containers.is_empty(), "{sandboxes:?} {containers:?}");
    w.runtime().remove_sandbox(&pod.id).await.expect("remove_sandbox again");
}

/// "Not there any more" is a success.
pub async fn absent_objects_are_successes_to_stop_and_remove<W: World>(w: &W) {
    let hex = format!("{:064x}", 0xdead_beef_u32);
    let (sandbox, container) = (SandboxId(hex.clone()), ContainerId(hex));
    w.runtime().stop_container(&container, Duration::from_secs(1)).await.expect("stop_container");
    w.runtime().remove_container(&container).await.expect("remove_container");
    w.runtime().stop_sandbox(&sandbox).await.expect("stop_sandbox");
    w.runtime().remove_sandbox(&sandbox).await.expect("remove_sandbox");
}

/// The owner's mark keeps others' pods safe.
pub async fn anothers_objects_are_neither_seen_nor_touched<W: World>(w: &W) {
    let Some(stranger) = w.stranger() else { return };
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "sleep 1000").await;
    let seen = stranger.observe().await.expect("observe");
    assert!(seen.sandboxes.iter().all(|s| s.id != pod.id) && seen.containers.iter().all(|c| c.id != id));
    let refused = |what: &str, outcome: crate::Result<()>| {
        assert!(matches!(outcome, Err(Error::NotOurs { .. })), "{what}: {outcome:?}");
    };
    refused("stop_container", stranger.stop_container(&id, Duration::ZERO).await);
    refused("remove_container", stranger.remove_container(&id).await);
    refused("stop_sandbox", stranger.stop_sandbox(&pod.id).await);
    refused("remove_sandbox", stranger.remove_sandbox(&pod.id).await);
    assert!(see(w, &id).await.is_some_and(|c| c.is_running()));
    pod.end(w).await;
}

/// A pod may share its pid namespace; others see nothing of each other.
pub async fn processes_are_seen_across_a_shared_pid_namespace_only<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    for (mode, seen) in [(NamespaceMode::Pod, true), (NamespaceMode::Container, false)] {
        let mut spec = sandbox_spec(w);
        spec.security.namespaces.pid = mode;
        let id = w.runtime().run_sandbox(&spec).await.expect("run_sandbox");
        let pod = Pod { spec, id };
        let sleeper = pod.start(w, "sleeper", "exec sleep 4321").await;
        let watcher = pod.start(w, "watcher", "exec sleep 1000").await;
        let ps = words(&["ps", "-o", "args"]);
        let told = w.runtime().exec_sync(&watcher, &ps, Duration::from_secs(30)).await.expect("ps");
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert_eq!(told.contains("sleep 4321"), seen, "{told}");
        w.runtime().stop_container(&sleeper, Duration::ZERO).await.expect("stop one");
        assert!(see(w, &watcher).await.is_some_and(|c| c.is_running()), "the other goes on");
        pod.end(w).await;
    }
}
