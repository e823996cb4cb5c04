//! The supervisor with its workers, on a runtime in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podstead_fake::{Fake, Fault, Verb};
use podstead_runtime::{ContainerId, ContainerSpec, ImageSpec, PodIdentity, Runtime, SandboxSpec, Time};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// A world with one running container.
pub(super) async fn running() -> (Fake, ContainerId) {
    let fake = Fake::new();
    let pod = PodIdentity { name: "web".into(), namespace: "default".into(), uid: "uid".into() };
    let sandbox_spec = SandboxSpec { pod, ..SandboxSpec::default() };
    let sandbox = fake.run_sandbox(&sandbox_spec).await.unwrap();
    fake.pull_image(&image(), &podstead_runtime::Auth::default(), podstead_runtime::PullProgress::none())
        .await
        .unwrap();
    let spec = ContainerSpec { name: "web".into(), image: image(), ..ContainerSpec::default() };
    let id = fake.create_container(&sandbox, &spec, &sandbox_spec).await.unwrap();
    fake.start_container(&id).await.unwrap();
    fake.take_calls();
    (fake, id)
}

fn image() -> ImageSpec {
    ImageSpec { image: "img:1".into(), ..ImageSpec::default() }
}

/// An agent's probes: what it is fed, and what comes out.
struct Probing {
    input: watch::Sender<Input>,
    verdicts: watch::Receiver<Arc<Verdicts>>,
    notes: Arc<Mutex<Vec<Note>>>,
    task: JoinHandle<()>,
}

impl Probing {
    fn start(fake: &Fake, state: &Path) -> Self {
        std::fs::create_dir_all(state.join("agent")).unwrap();
        let (mut supervisor, verdicts) = Supervisor::open(state);
        // As if this agent ran long since, so that nothing is scattered.
        supervisor.agent_started = Time(1);
        let (input, fed) = watch::channel(Input::default());
        let notes: Arc<Mutex<Vec<Note>>> = Arc::default();
        let kept = Arc::clone(&notes);
        let take: Notes = Arc::new(move |note: &Note| kept.lock().unwrap().push(note.clone()));
        let task = tokio::spawn(supervisor.run(Arc::new(fake.clone()), fed, take));
        Self { input, verdicts, notes, task }
    }

    fn feed(&self, targets: &[Target], keep: &[&ContainerId]) {
        let keep = keep.iter().map(|id| (*id).clone()).collect();
        self.input.send_replace(Input { targets: targets.to_vec(), keep });
    }

    async fn until(&mut self, what: &str, mut so: impl FnMut(&Verdicts) -> bool) -> Verdicts {
        let seen = self.verdicts.wait_for(|all| so(all));
        let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
        Verdicts::clone(&seen.unwrap_or_else(|_| panic!("not in time: {what}")).unwrap())
    }

    async fn one(&mut self, id: &ContainerId, what: &str, mut so: impl FnMut(&Verdict) -> bool) -> Verdict {
        let all = self.until(what, |all| all.get(id).is_some_and(&mut so)).await;
        all[id].clone()
    }

    fn said(&self) -> Vec<String> {
        self.notes.lock().unwrap().iter().map(|note| note.message.clone()).collect()
    }

    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn target(id: &ContainerId, probes: &str) -> Target {
    let text = format!("{{name: web, {probes}}}");
    let container: k8s_openapi::api::core::v1::Container = serde_yaml::from_str(&text).unwrap();
    Target {
        pod: "uid".into(),
        pod_name: "default/web".into(),
        container: "web".into(),
        id: id.clone(),
        started_at: Time::now(),
        probes: Arc::new(target::probes(&container)),
        ports: BTreeMap::new(),
        host: Vec::new(),
    }
}

fn exec(kind: &str, more: &str) -> String {
    format!("{kind}: {{periodSeconds: 1, exec: {{command: [x]}}{more}}}, ")
}

fn execs(fake: &Fake) -> usize {
    fake.take_calls().iter().filter(|call| call.starts_with("Exec")).count()
}

async fn seconds(count: f64) {
    tokio::time::sleep(Duration::from_secs_f64(count)).await;
}

#[tokio::test]
async fn a_container_without_probes_is_ready_and_nobody_asks_it_anything() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    let mut probing = Probing::start(&fake, dir.path());
    probing.feed(&[target(&id, "")], &[&id]);
    let verdict = probing.one(&id, "a verdict", |_| true).await;
    assert!(verdict.started && verdict.alive && verdict.ready);
    assert_eq!(execs(&fake), 0);
    probing.feed(&[], &[]);
    probing.until("gone", Verdicts::is_empty).await;
    probing.end().await;
}

#[tokio::test]
async fn readiness_comes_at_once_and_goes_after_its_threshold() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    let mut probing = Probing::start(&fake, dir.path());
    let begun = std::time::Instant::now();
    probing.feed(&[target(&id, &exec("readinessProbe", ", failureThreshold: 2"))], &[&id]);
    probing.one(&id, "ready", |v| v.ready).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "the first probe waits for nothing");
    fake.set_exec(1, "no");
    let verdict = probing.one(&id, "not ready", |v| !v.ready).await;
    assert_eq!(verdict.message, "Readiness probe failed: no");
    assert_eq!((verdict.alive, verdict.which), (true, Some(Kind::Readiness)));
    assert_eq!(probing.said(), ["Readiness probe failed: no"; 2]);
    fake.set_exec(0, "");
    let verdict = probing.one(&id, "ready again", |v| v.ready).await;
    assert_eq!(verdict.message, "");
    probing.end().await;
}

#[tokio::test]
async fn nothing_else_is_probed_before_startup_has_passed_nor_startup_after() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    fake.set_exec(1, "not yet");
    let mut probing = Probing::start(&fake, dir.path());
    let slow = "{periodSeconds: 60, exec: {command: [x]}}";
    let probes = format!(
        "{}livenessProbe: {slow}, readinessProbe: {slow}",
        exec("startupProbe", ", failureThreshold: 30")
    );
    probing.feed(&[target(&id, &probes)], &[&id]);
    seconds(2.5).await;
    let verdict = probing.one(&id, "known", |_| true).await;
    assert_eq!((verdict.started, verdict.alive, verdict.ready), (false, true, false));
    assert!(
        probing.said().iter().all(|text| text == "Startup probe failed: not yet"),
        "{:?}",
        probing.said()
    );
    assert!(probing.said().len() >= 2);
    fake.set_exec(0, "");
    fake.take_calls();
    let verdict = probing.one(&id, "ready", |v| v.ready).await;
    assert!(verdict.started);
    seconds(2.5).await;
    assert_eq!(execs(&fake), 3, "startup once, liveness and readiness once each at once");
    probing.end().await;
}

#[tokio::test]
async fn after_a_failed_liveness_probe_the_instance_is_left_alone_and_the_next_one_is_not() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    fake.set_exec(1, "dead");
    let mut probing = Probing::start(&fake, dir.path());
    let liveness = exec("livenessProbe", ", failureThreshold: 1");
    probing.feed(&[target(&id, &liveness)], &[&id]);
    let verdict = probing.one(&id, "failed", |v| !v.alive).await;
    assert_eq!(verdict.message, "Liveness probe failed: dead");
    assert_eq!((verdict.started, verdict.ready, verdict.which), (true, true, Some(Kind::Liveness)));
    fake.take_calls();
    seconds(2.2).await;
    assert_eq!(execs(&fake), 0, "held");
    // It ended, and there is another.
    let next = ContainerId::from("next");
    probing.feed(&[target(&next, &liveness)], &[&id, &next]);
    let all = probing.until("both known", |all| all.len() == 2).await;
    assert!(!all[&id].alive && all[&next].alive, "{all:?}");
    probing.feed(&[target(&next, &liveness)], &[&next]);
    probing.until("the old one gone", |all| !all.contains_key(&id)).await;
    probing.end().await;
}

#[tokio::test]
async fn a_new_agent_goes_on_with_what_the_old_one_knew() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    let mut probing = Probing::start(&fake, dir.path());
    let probes = exec("startupProbe", "") + &exec("readinessProbe", ", failureThreshold: 2");
    probing.feed(&[target(&id, &probes)], &[&id]);
    probing.one(&id, "ready", |v| v.ready).await;
    probing.end().await;
    fake.set_exec(1, "no");
    fake.take_calls();
    let mut probing = Probing::start(&fake, dir.path());
    let first = Arc::clone(&probing.verdicts.borrow());
    assert!(first[&id].ready, "before anything was fed");
    probing.feed(&[target(&id, &probes)], &[&id]);
    seconds(0.5).await;
    assert!(probing.verdicts.borrow()[&id].ready, "one failure of two");
    let verdict = probing.one(&id, "not ready", |v| !v.ready).await;
    assert!(verdict.started && verdict.alive, "startup is not probed again: {verdict:?}");
    // What it knows is on disk before anybody sees it.
    let again = Supervisor::open(dir.path()).1;
    assert_eq!(again.borrow()[&id], verdict);
    probing.end().await;
}

#[tokio::test]
async fn a_probe_that_cannot_be_made_changes_nothing_and_is_noted() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..6 {
        fake.fault(Verb::Exec, Fault::Before(podstead_runtime::Error::failed("exec", "no such file")));
    }
    let mut probing = Probing::start(&fake, dir.path());
    probing.feed(&[target(&id, &exec("livenessProbe", ", failureThreshold: 1"))], &[&id]);
    seconds(1.5).await;
    assert!(probing.one(&id, "alive", |_| true).await.alive);
    let expected = "Liveness probe errored and resulted in unknown state: exec: no such file";
    assert_eq!(probing.said(), [expected; 2]);
    assert_eq!(probing.notes.lock().unwrap()[0].trouble, Trouble::Errored);
    probing.end().await;
}

#[tokio::test]
async fn of_an_ending_pod_only_readiness_is_probed() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    let mut probing = Probing::start(&fake, dir.path());
    let probes =
        exec("livenessProbe", ", failureThreshold: 1") + &exec("readinessProbe", ", failureThreshold: 1");
    probing.feed(&[target(&id, &probes)], &[&id]);
    probing.one(&id, "ready", |v| v.ready).await;
    probing.feed(&[target(&id, &probes).ending()], &[&id]);
    // The supervisor has surely heard of it.
    seconds(0.2).await;
    fake.set_exec(1, "no");
    let verdict = probing.one(&id, "not ready", |v| !v.ready).await;
    seconds(1.5).await;
    assert!(verdict.alive && probing.one(&id, "alive", |_| true).await.alive);
    probing.end().await;
}

#[tokio::test]
async fn feeding_the_same_again_makes_no_probe() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    let mut probing = Probing::start(&fake, dir.path());
    let target = target(&id, "readinessProbe: {periodSeconds: 60, exec: {command: [x]}}");
    for _ in 0..5 {
        probing.feed(std::slice::from_ref(&target), &[&id]);
        probing.one(&id, "ready", |v| v.ready).await;
        seconds(0.05).await;
    }
    assert_eq!(execs(&fake), 1);
    probing.end().await;
}

#[tokio::test]
async fn the_initial_delay_is_waited_for() {
    let (fake, id) = running().await;
    let dir = tempfile::tempdir().unwrap();
    let mut probing = Probing::start(&fake, dir.path());
    probing.feed(&[target(&id, &exec("readinessProbe", ", initialDelaySeconds: 1"))], &[&id]);
    seconds(0.6).await;
    assert_eq!(execs(&fake), 0);
    probing.one(&id, "ready", |v| v.ready).await;
    probing.end().await;
}
