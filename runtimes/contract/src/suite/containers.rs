//! Promises about containers' lives.

use super::*;
use crate::{Error, Hint, Time};

fn exit(container: &Container) -> (i32, &str) {
    match &container.state {
        ContainerState::Exited { code, reason, .. } => (*code, reason),
        other => panic!("not exited: {other:?}"),
    }
}

/// Name and attempt are a container's key.
pub async fn creating_twice_gives_one_that_does_not_run<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let spec = container_spec(w, &pod.spec, "c", "sleep 1000");
    let id = w.runtime().create_container(&pod.id, &spec, &pod.spec).await.expect("create");
    let again = w.runtime().create_container(&pod.id, &spec, &pod.spec).await.expect("create again");
    assert_eq!(id, again);
    let seen = see(w, &id).await.expect("the container is seen");
    assert_eq!(seen.state, ContainerState::Created);
    assert_eq!((seen.name.as_str(), seen.attempt, &seen.sandbox), ("c", 0, &pod.id));
    assert_eq!(seen.image, w.image());
    for (key, value) in &spec.labels {
        assert_eq!(seen.labels.get(key), Some(value), "label {key}");
    }
    assert_eq!(seen.annotations.get(labels::RESTART_COUNT).map(String::as_str), Some("0"));
    pod.end(w).await;
}

/// Starting what runs, or has run, is a success.
pub async fn starting_twice_starts_once<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let before = Time::now() - Duration::from_secs(5);
    let id = pod.start(w, "c", "sleep 1000").await;
    w.runtime().start_container(&id).await.expect("start again");
    let seen = until(w, &id, |s| matches!(s, ContainerState::Running { .. })).await;
    let ContainerState::Running { started_at } = seen.state else { unreachable!() };
    assert!(started_at > before, "{started_at} is after {before}");
    w.runtime().stop_container(&id, Duration::ZERO).await.expect("stop");
    w.runtime().start_container(&id).await.expect("start after the end is a success without effect");
    assert!(!see(w, &id).await.expect("still seen").is_running());
    pod.end(w).await;
}

/// Exit codes and times are kept.
pub async fn an_exit_is_seen_with_code_and_times<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "exit 3").await;
    let seen = until_exited(w, &id).await;
    assert_eq!(exit(&seen), (3, "Error"));
    let ContainerState::Exited { started_at, finished_at, .. } = seen.state else { unreachable!() };
    assert!(started_at.known().is_some() && finished_at >= started_at);
    pod.end(w).await;
}

/// Exit code 0 is `Completed`.
pub async fn success_is_called_completed<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "exit 0").await;
    assert_eq!(exit(&until_exited(w, &id).await), (0, "Completed"));
    pod.end(w).await;
}

/// A crash wakes the agent.
pub async fn an_exit_gives_a_hint<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let mut hints = w.runtime().hints();
    assert_eq!(next(&mut hints).await, Some(Hint::Everything));
    let id = pod.start(w, "c", "sleep 1; exit 3").await;
    loop {
        let hint = next(&mut hints).await.expect("hints never end");
        assert!(matches!(&hint, Hint::Everything) || matches!(&hint, Hint::Pod(_)));
        if see(w, &id).await.is_some_and(|c| matches!(c.state, ContainerState::Exited { .. })) {
            break;
        }
    }
    pod.end(w).await;
}

/// TERM first, so that a program can end in order.
pub async fn stop_sends_the_signal_first<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done").await;
    until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("ready")).await;
    w.runtime().stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    assert_eq!(exit(&see(w, &id).await.expect("seen")).0, 7);
    w.runtime().stop_container(&id, Duration::from_secs(30)).await.expect("stop again");
    pod.end(w).await;
}

/// KILL when the grace is over.
pub async fn stop_kills_after_the_grace<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "trap '' TERM; echo ready; while :; do sleep 0.1; done").await;
    until_file(&pod.spec.log_directory.join("c/0.log"), |log| log.contains("ready")).await;
    let begun = Time::now();
    w.runtime().stop_container(&id, Duration::from_secs(1)).await.expect("stop");
    assert!(Time::now().since(begun) >= Duration::from_millis(900), "the grace was waited for");
    assert_eq!(exit(&see(w, &id).await.expect("seen")).0, 137);
    pod.end(w).await;
}

/// Removal does not need a stop.
pub async fn removing_a_running_container_kills_it<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let id = pod.start(w, "c", "sleep 1000").await;
    w.runtime().remove_container(&id).await.expect("remove");
    assert!(see(w, &id).await.is_none());
    w.runtime().remove_container(&id).await.expect("remove again");
    pod.end(w).await;
}

/// A restart is a new container, the old one stays to be read.
pub async fn a_second_attempt_runs_in_the_same_sandbox<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let first = pod.start(w, "c", "sleep 1000").await;
    w.runtime().stop_container(&first, Duration::ZERO).await.expect("stop");
    let mut spec = container_spec(w, &pod.spec, "c", "sleep 1000");
    spec.attempt = 1;
    spec.log_path = PathBuf::from("c/1.log");
    let second = pod.start_spec(w, &spec).await;
    assert_ne!(first, second);
    let (_, containers) = pod.left(w).await;
    let mut attempts: Vec<u32> = containers.iter().map(|c| c.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [0, 1]);
    pod.end(w).await;
}

/// A container of an absent image cannot be made, and says why.
pub async fn a_missing_image_is_not_found<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let mut spec = container_spec(w, &pod.spec, "c", "true");
    spec.image = ImageSpec::from("localhost/no/such/image:1");
    let error = w.runtime().create_container(&pod.id, &spec, &pod.spec).await.expect_err("no image");
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("localhost/no/such/image:1"), "{error}");
    pod.end(w).await;
}

/// A command that is not there is told by its name, and leaves something that can be removed.
pub async fn a_command_that_does_not_exist_is_a_start_error<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let mut spec = container_spec(w, &pod.spec, "c", "");
    spec.command = vec!["/no/such/command".into()];
    let outcome = match w.runtime().create_container(&pod.id, &spec, &pod.spec).await {
        Ok(id) => w.runtime().start_container(&id).await,
        Err(error) => Err(error),
    };
    let error = outcome.expect_err("it cannot start");
    assert!(error.to_string().contains("/no/such/command"), "{error}");
    pod.end(w).await;
}

/// A dropped future leaves nothing that a later call would believe.
pub async fn a_dropped_create_can_be_repeated<W: World>(w: &W) {
    let pod = Pod::run(w).await;
    let spec = container_spec(w, &pod.spec, "c", "sleep 1000");
    for millis in [0, 1, 3, 8, 20] {
        dropped_early(w.runtime().create_container(&pod.id, &spec, &pod.spec), Duration::from_millis(millis))
            .await;
    }
    let id = pod.start_spec(w, &spec).await;
    until(w, &id, |s| matches!(s, ContainerState::Running { .. })).await;
    let (_, containers) = pod.left(w).await;
    assert_eq!(containers.len(), 1, "{containers:?}");
    pod.end(w).await;
}

/// The kernel's kill for memory is told apart from other kills.
pub async fn running_out_of_memory_is_called_so<W: World>(w: &W) {
    if !w.real() {
        return;
    }
    let pod = Pod::run(w).await;
    let mut spec = container_spec(w, &pod.spec, "c", "x=a; while :; do x=$x$x; done");
    spec.resources.memory_limit = 24 << 20;
    spec.resources.memory_swap_limit = 24 << 20;
    let id = pod.start_spec(w, &spec).await;
    let seen = until_exited(w, &id).await;
    assert_eq!(exit(&seen), (137, "OOMKilled"));
    pod.end(w).await;
}
