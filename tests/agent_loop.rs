//! The loop with its real executor on a runtime in memory: manifests in, objects, files and statuses out.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use podstead::events::Events;
use podstead::execute::Executor;
use podstead::images::{self, Images};
use podstead::node::cgroup::Cgroups;
use podstead::pod::{NodeFacts, dns};
use podstead::reconcile::{self, View, Wanted};
use podstead::report;
use podstead_fake::{End, Event, Fake, Fault, Verb};
use podstead_runtime::{
    Container, ContainerSpec, ContainerState, Error, PodIdentity, RuntimeStatus, SandboxSpec, SandboxState,
    labels,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An agent's loop, with what it is fed.
struct Loop {
    fake: Fake,
    wanted: watch::Sender<Arc<Wanted>>,
    view: watch::Receiver<View>,
    stop: watch::Sender<bool>,
    events: Events,
    task: JoinHandle<()>,
    executor: std::sync::Weak<Executor<Fake>>,
    _status: watch::Sender<RuntimeStatus>,
    _verdicts: watch::Sender<Arc<podstead::probe::Verdicts>>,
}

impl Loop {
    fn start(fake: &Fake, root: &Path, pods: &[Pod]) -> Self {
        let node = NodeFacts {
            root_dir: root.join("root"),
            pod_logs_dir: root.join("logs"),
            node_name: "node".into(),
            dns: dns::Settings { servers: vec![IpAddr::from([192, 0, 2, 10])], ..dns::Settings::default() },
            ..NodeFacts::default()
        };
        let events = Events::default();
        let executor = Arc::new(Executor {
            runtime: Arc::new(fake.clone()),
            node: Arc::new(node),
            cgroups: Arc::new(Cgroups::Legacy(vec![])),
            images: Arc::new(Images::open(&images::Settings {
                root_dir: root.join("root"),
                ..Default::default()
            })),
            events: events.clone(),
        });
        let weak = Arc::downgrade(&executor);
        let (wanted, wanted_there) = watch::channel(want(pods));
        let (status, status_there) = watch::channel(RuntimeStatus::default());
        let (view_here, view) = watch::channel(View::default());
        let (stop, stopped) = watch::channel(false);
        let (verdicts, verdicts_there) = watch::channel(Arc::default());
        let task = tokio::spawn(reconcile::run(
            executor,
            wanted_there,
            status_there,
            verdicts_there,
            view_here,
            stopped,
        ));
        Self {
            fake: fake.clone(),
            wanted,
            view,
            stop,
            events,
            task,
            executor: weak,
            _status: status,
            _verdicts: verdicts,
        }
    }

    /// Waits until what the loop sees is so.
    async fn until(&mut self, what: &str, so: impl FnMut(&View) -> bool) -> View {
        let seen = tokio::time::timeout(Duration::from_secs(60), self.view.wait_for(so)).await;
        seen.unwrap_or_else(|_| panic!("not within a minute: {what}")).unwrap().clone()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

fn want(pods: &[Pod]) -> Arc<Wanted> {
    Arc::new(Wanted { pods: pods.iter().cloned().map(Arc::new).collect(), complete: true })
}

fn pod(uid: &str, more: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-node, namespace: default, uid: {uid}}}\n\
         spec: {{containers: [{{name: c, image: img:1, {more}}}]}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn running(view: &View) -> Vec<&Container> {
    view.observed.snapshot.containers.iter().filter(|c| c.is_running()).collect()
}

fn quiet(view: &View) -> bool {
    view.plan.is_quiet()
}

#[tokio::test]
async fn a_pod_runs_and_all_of_it_goes_with_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Loop::start(&Fake::new(), dir.path(), &[pod("u1", "")]);
    let view = agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    let container = running(&view)[0];
    assert_eq!(container.labels[labels::POD_NAME], "web-node");
    assert_eq!(container.log_path, dir.path().join("logs/default_web-node_u1/c/0.log"));
    let hosts = std::fs::read_to_string(dir.path().join("root/pods/u1/etc-hosts")).unwrap();
    assert!(hosts.ends_with("\tweb-node\n"), "{hosts}");
    agent.wanted.send_replace(want(&[]));
    let gone = |v: &View| v.observed.snapshot.sandboxes.is_empty() && v.observed.leftovers.is_empty();
    agent.until("it is gone", |v| gone(v) && quiet(v) && v.wanted.pods.is_empty()).await;
    assert!(!dir.path().join("root/pods/u1").exists());
    assert!(!dir.path().join("logs/default_web-node_u1").exists());
    agent.end().await;
}

#[tokio::test]
async fn another_agent_takes_over_without_a_restart_and_with_all_counts() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let pods = [pod("u1", "")];
    let mut agent = Loop::start(&fake, dir.path(), &pods);
    let view = agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    fake.exit(&running(&view)[0].id, 1);
    let view = agent.until("it runs again", |v| running(v).iter().any(|c| c.attempt == 1) && quiet(v)).await;
    let before = running(&view)[0].clone();
    agent.task.abort();
    let mut agent = Loop::start(&fake, dir.path(), &pods);
    let view = agent.until("it is seen", |v| running(v).len() == 1 && quiet(v)).await;
    assert_eq!(running(&view), [&before]);
    // The second end in a row: the pause is the one that the first agent wrote down.
    fake.exit(&before.id, 1);
    let view = agent.until("it waits", |v| running(v).is_empty() && v.plan.wake_at.is_some()).await;
    let node = report::Node { runtime: "fake".into(), ..report::Node::default() };
    let status = report::pods(&view, &node).remove(0).status.unwrap();
    let shown = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = shown.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let message = "back-off 10s restarting failed container=c pod=web-node_default(u1)";
    assert_eq!(waiting.message.as_deref(), Some(message));
    assert_eq!((status.phase.as_deref(), shown.restart_count), (Some("Running"), 1));
    let last = shown.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    assert_eq!(last.container_id.as_deref(), Some(format!("fake://{}", before.id).as_str()));
    agent.end().await;
}

#[tokio::test]
async fn what_happens_to_a_pod_is_told_as_events() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let view = agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    fake.exit(&running(&view)[0].id, 1);
    let view = agent.until("it runs again", |v| running(v).iter().any(|c| c.attempt == 1) && quiet(v)).await;
    fake.exit(&running(&view)[0].id, 1);
    agent.until("it waits", |v| running(v).is_empty() && v.plan.wake_at.is_some()).await;
    agent.wanted.send_replace(want(&[]));
    agent
        .until("it is gone", |v| v.observed.leftovers.is_empty() && quiet(v) && v.wanted.pods.is_empty())
        .await;
    let book = agent.events.book();
    let page = &book.pages[&"u1".into()];
    assert_eq!(page.name, "default/web-node");
    let told: Vec<String> = page.records.iter().map(|r| format!("{} x{}", r.reason, r.count)).collect();
    let expected = ["Pulling x1", "Pulled x1", "Pulled x1", "Created x2", "Started x2", "BackOff x1"];
    assert_eq!(told, expected);
    agent.end().await;
}

#[tokio::test]
async fn a_successor_of_the_same_name_starts_after_its_forerunner_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Loop::start(&Fake::new(), dir.path(), &[pod("u1", "")]);
    agent.until("the first runs", |v| running(v).len() == 1 && quiet(v)).await;
    agent.wanted.send_replace(want(&[pod("u2", "")]));
    let mut both = false;
    let second = |v: &View| running(v).iter().any(|c| c.pod_uid().as_str() == "u2");
    agent
        .until("the second runs", |v| {
            let uids = v.observed.snapshot.sandboxes.iter().map(|s| &s.pod.uid);
            both |= uids.collect::<std::collections::BTreeSet<_>>().len() > 1;
            second(v) && quiet(v)
        })
        .await;
    assert!(!both, "both had a sandbox at once");
    agent.end().await;
}

#[tokio::test]
async fn an_image_that_may_not_be_pulled_is_named_in_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Loop::start(&Fake::new(), dir.path(), &[pod("u1", "imagePullPolicy: Never")]);
    let view = agent.until("it failed", |v| !v.known.failures.is_empty() && v.plan.wake_at.is_some()).await;
    let ips: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
    let node = report::Node { name: "node".into(), ips, runtime: "fake".into() };
    let status = report::pods(&view, &node).remove(0).status.unwrap();
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(state.reason.as_deref(), Some("ErrImageNeverPull"));
    assert!(state.message.unwrap().contains("img:1"));
    assert_eq!((status.phase.as_deref(), status.host_ip.as_deref()), (Some("Pending"), Some("192.0.2.1")));
    assert_eq!(status.pod_ips.unwrap().len(), 1);
    agent.end().await;
}

#[tokio::test]
async fn a_pull_that_nobody_wants_any_more_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    fake.fault(Verb::PullImage, Fault::Slow(Duration::from_secs(3600)));
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let pulls = |fake: &Fake| fake.take_calls().iter().any(|call| call.starts_with("PullImage"));
    let sandbox = |v: &View| v.observed.snapshot.sandboxes.iter().any(|s| s.state == SandboxState::Ready);
    agent.until("only the image is missing", sandbox).await;
    // The loop does not hear of it: a pull that has begun changes nothing that it sees.
    while !pulls(&fake) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut other = pod("u1", "");
    other.spec.as_mut().unwrap().containers[0].image = Some("img:2".into());
    agent.wanted.send_replace(want(&[other]));
    // Far below the slow tick of a minute.
    let soon = Duration::from_secs(20);
    let runs = agent.until("the other image runs", |v| running(v).len() == 1 && quiet(v));
    tokio::time::timeout(soon, runs).await.unwrap();
    agent.end().await;
}

#[tokio::test]
async fn an_edit_under_a_fixed_uid_makes_the_hosts_side_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Loop::start(&Fake::new(), dir.path(), &[pod("u1", "")]);
    agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    let mut edited = pod("u1", "volumeMounts: [{name: data, mountPath: /data}]");
    edited.spec.as_mut().unwrap().volumes = serde_yaml::from_str("[{name: data, emptyDir: {}}]").unwrap();
    agent.wanted.send_replace(want(&[edited]));
    agent.until("it runs anew", |v| running(v).iter().any(|c| c.attempt == 1) && quiet(v)).await;
    assert!(dir.path().join("root/pods/u1/volumes/kubernetes.io~empty-dir/data").is_dir());
    agent.end().await;
}

#[tokio::test]
async fn a_panic_is_a_failure_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    fake.fault(Verb::CreateContainer, Fault::Panic);
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let view = agent.until("it is told", |v| !v.known.failures.is_empty()).await;
    let failure = view.known.failures.values().next().unwrap();
    assert!(failure.message.contains("bug") && failure.message.contains("as it was told"), "{failure:?}");
    agent.until("it is tried again", |v| running(v).len() == 1 && quiet(v)).await;
    agent.end().await;
}

#[tokio::test]
async fn no_job_goes_on_without_its_agent() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    fake.fault(Verb::PullImage, Fault::Slow(Duration::from_secs(3600)));
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let sandbox = |v: &View| v.observed.snapshot.sandboxes.iter().any(|s| s.state == SandboxState::Ready);
    agent.until("only the image is missing", |v| sandbox(v)).await;
    agent.task.abort();
    assert!(agent.task.await.unwrap_err().is_cancelled());
    for _ in 0..100 {
        if agent.executor.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a job holds the executor still");
}

#[tokio::test]
async fn a_mount_of_no_volume_is_a_config_error() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "volumeMounts: [{name: data, mountPath: /data}]";
    let mut agent = Loop::start(&Fake::new(), dir.path(), &[pod("u1", mount)]);
    let view = agent.until("it failed", |v| !v.known.failures.is_empty()).await;
    let failure = view.known.failures.values().next().unwrap();
    assert_eq!(failure.reason, "CreateContainerConfigError");
    assert_eq!(failure.message, "cannot find volume \"data\" to mount into container \"c\"");
    agent.end().await;
}

/// The reason and message of the first failure.
async fn failure(agent: &mut Loop) -> (String, String) {
    let view = agent.until("it failed", |v| !v.known.failures.is_empty()).await;
    let failure = view.known.failures.values().next().unwrap();
    (failure.reason.clone(), failure.message.clone())
}

#[tokio::test]
async fn an_image_whose_user_is_a_name_may_mean_root() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    fake.world(|w| {
        w.add_image("img:1");
        w.set_image_user("img:1", "web");
    });
    let non_root = "imagePullPolicy: IfNotPresent, securityContext: {runAsNonRoot: true}";
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", non_root)]);
    let (reason, message) = failure(&mut agent).await;
    assert_eq!(reason, "CreateContainerConfigError");
    assert_eq!(
        message,
        "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root (pod: \
         \"web-node_default(u1)\", container: c)"
    );
    fake.world(|w| w.set_image_user("img:1", "33"));
    agent.until("it runs as soon as the image is another", |v| running(v).len() == 1 && quiet(v)).await;
    agent.end().await;
}

#[tokio::test]
async fn of_a_pod_that_the_node_refuses_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let mut refused = pod("u1", "");
    let sysctls = "{sysctls: [{name: kernel.msgmax, value: \"1\"}]}";
    refused.spec.as_mut().unwrap().security_context = Some(serde_yaml::from_str(sysctls).unwrap());
    let mut agent = Loop::start(&fake, dir.path(), &[refused]);
    let words = "Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted";
    let view = agent.until("it is refused", |v| !v.plan.refused.is_empty()).await;
    assert!(view.observed.snapshot.sandboxes.is_empty() && !dir.path().join("root/pods/u1").exists());
    let status = report::pods(&view, &report::Node::default()).remove(0).status.unwrap();
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("SysctlForbidden"), Some(words)));
    agent.end().await;
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_container() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let lost = || Error::Deadline { doing: "create container c".into(), seconds: 1 };
    fake.fault(Verb::CreateContainer, Fault::After(lost()));
    fake.fault(Verb::RunSandbox, Fault::After(lost()));
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let view = agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    assert_eq!((view.observed.snapshot.sandboxes.len(), view.observed.snapshot.containers.len()), (1, 1));
    assert!(matches!(view.observed.snapshot.containers[0].state, ContainerState::Running { .. }));
    assert_eq!(view.observed.snapshot.containers[0].attempt, 0);
    agent.end().await;
}

#[tokio::test]
async fn while_nobody_knows_whether_a_container_was_resized_both_sizes_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let sized = |memory: &str| {
        let limits = format!("{{cpu: 100m, memory: {memory}Mi}}");
        pod("u1", &format!("resources: {{limits: {limits}, requests: {{cpu: 50m, memory: 8Mi}}}}"))
    };
    let fake = Fake::new();
    fake.fault(Verb::UpdateResources, Fault::Before(Error::failed("update resources", "no")));
    let mut agent = Loop::start(&fake, dir.path(), &[sized("64")]);
    let view = agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    let id = running(&view)[0].id.clone();
    let noted =
        |name: &str| std::fs::read_to_string(dir.path().join("root/pods/u1/sizes").join(name)).unwrap();
    agent.wanted.send_replace(want(&[sized("128")]));
    agent.until("it failed", |v| !v.known.failures.is_empty()).await;
    let (was, is) = ("cpu=50/100 memory=8388608/67108864", "cpu=50/100 memory=8388608/134217728");
    assert_eq!(noted("c"), format!("{id}\n{was}\n{is}\n"));
    assert_eq!(noted(".pod"), format!("\n{is}\n"), "the pod's limit is there before");
    let of = |v: &View| running(v).first().map(|c| c.id.clone());
    agent
        .until("it is tried again", |v| v.known.failures.is_empty() && quiet(v) && of(v) == Some(id.clone()))
        .await;
    assert_eq!(noted("c"), format!("{id}\n{is}\n"));
    agent.end().await;
}

#[tokio::test]
async fn a_runtime_that_cannot_be_read_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    agent.until("it runs", |v| running(v).len() == 1 && quiet(v)).await;
    agent.fake.set_unreachable(true);
    agent.wanted.send_replace(want(&[]));
    agent.until("it is told", |v| v.error.is_some()).await;
    assert_eq!(fake.world(|w| w.snapshot(labels::DEFAULT_OWNER)).containers.len(), 1);
    agent.fake.set_unreachable(false);
    agent.until("it goes on", |v| v.error.is_none() && v.observed.snapshot.sandboxes.is_empty()).await;
    agent.end().await;
}

/// A sandbox of pod u1 with running instances of its container, as some other hand left them.
fn inherited(fake: &Fake, sandbox_attempt: u32, instances: &[u32]) {
    let pod = PodIdentity { name: "web-node".into(), namespace: "default".into(), uid: "u1".into() };
    let sandbox_spec = SandboxSpec { pod: pod.clone(), attempt: sandbox_attempt, ..SandboxSpec::default() };
    fake.world(|world| {
        world.add_image("img:1");
        let sandbox = world.run_sandbox(labels::DEFAULT_OWNER, &sandbox_spec);
        for attempt in instances {
            let mut spec = ContainerSpec {
                name: "c".into(),
                attempt: *attempt,
                image: "img:1".into(),
                ..ContainerSpec::default()
            };
            spec.labels.insert(labels::POD_UID.into(), pod.uid.0.clone());
            spec.labels.insert(labels::POD_NAME.into(), pod.name.clone());
            spec.labels.insert(labels::POD_NAMESPACE.into(), pod.namespace.clone());
            let id = world.create_container(labels::DEFAULT_OWNER, &sandbox, &spec, &sandbox_spec).unwrap();
            world.start_container(labels::DEFAULT_OWNER, &id).unwrap();
        }
        world.events.clear();
    });
}

/// Whether something that ran was killed without having been stopped first.
fn forced(fake: &Fake) -> bool {
    fake.world(|w| w.events.iter().any(|e| matches!(e, Event::Ended { end: End::Forced, .. })))
}

#[tokio::test]
async fn of_two_running_instances_of_one_container_the_newest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    inherited(&fake, 0, &[0, 1]);
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let view = agent.until("one runs", |v| running(v).len() == 1 && quiet(v)).await;
    assert_eq!(running(&view)[0].attempt, 1);
    assert!(!forced(&fake));
    agent.end().await;
}

#[tokio::test]
async fn two_ready_sandboxes_of_one_pod_are_replaced_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    inherited(&fake, 0, &[0]);
    inherited(&fake, 1, &[1]);
    let mut agent = Loop::start(&fake, dir.path(), &[pod("u1", "")]);
    let view = agent.until("one runs", |v| running(v).len() == 1 && quiet(v)).await;
    let ready: Vec<_> =
        view.observed.snapshot.sandboxes.iter().filter(|s| s.state == SandboxState::Ready).collect();
    assert_eq!(ready.iter().map(|s| s.attempt).collect::<Vec<_>>(), [2]);
    assert_eq!((running(&view)[0].attempt, &running(&view)[0].sandbox), (2, &ready[0].id));
    assert!(!forced(&fake));
    agent.end().await;
}
