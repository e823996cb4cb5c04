//! Random pods that are accepted are really made, on both backends: the sandbox and every container, by the agent's own
//! executor, started, and taken away again. A refusal is a fault of the translation, or of the admission.
//!
//! `PODSTEAD_RANDOM_PODS=200` makes more than the usual number, `PODSTEAD_RANDOM_SEED=7` others.

#[path = "../translation/random.rs"]
mod manifests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podstead::backend::Backend;
use podstead::events::Events;
use podstead::execute::{Context, Executor, Failed};
use podstead::images::Images;
use podstead::manifest::validate;
use podstead::node::cgroup::Cgroups;
use podstead::plan::Action;
use podstead::pod::{NodeFacts, identity, security};
use podstead::testing::Node;
use podstead_runtime::{Container, ContainerId, ImageSpec, PodUid, Runtime, SandboxId};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::{Host, on_both};

on_both!(random_pods_are_made_and_taken_away);

const IMAGE: &str = "localhost/podstead/busybox:1";

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The executor that an agent on this node would have.
async fn executor(node: &Node) -> Executor<Backend> {
    let (config, runtime) = (node.config(), Arc::clone(node.runtime_arc()));
    let status = runtime.status().await.expect("the runtime's status");
    let facts = NodeFacts {
        root_dir: config.root_dir.clone(),
        pod_logs_dir: config.pod_logs_dir.clone(),
        cgroup_root: config.cgroup_root.clone(),
        cgroup_driver: status.cgroup_driver.or(config.cgroup_driver).unwrap_or_default(),
        node_name: config.node_name.clone(),
        node_ips: config.node_ips.clone(),
        memory_capacity: 8 << 30,
        cpu_capacity: 4000,
        storage_capacity: 100 << 30,
        recursive_read_only: status.recursive_read_only,
        dns: config.dns.clone(),
        security: security::Facts { strict_groups: status.strict_groups, ..security::Facts::default() },
        ..NodeFacts::default()
    };
    Executor {
        runtime,
        node: Arc::new(facts),
        cgroups: Arc::new(Cgroups::discover().expect("cgroups")),
        images: Arc::new(Images::open(&config.images)),
        events: Events::open(&config.root_dir),
    }
}

/// One pod on its way.
struct One<'a> {
    executor: &'a Executor<Backend>,
    uid: PodUid,
    context: Context,
}

impl One<'_> {
    async fn act(&self, action: Action) -> Result<(), Failed> {
        Box::pin(self.executor.execute(&action, &self.context)).await.map(drop)
    }

    /// Makes the sandbox, makes and starts every container. CRI servers leave much of the making to the start.
    async fn make(&mut self, image_id: &str) -> Result<(), Failed> {
        let uid = self.uid.clone();
        self.act(Action::PreparePod { uid: uid.clone() }).await?;
        self.act(Action::RunSandbox { uid: uid.clone(), attempt: 0 }).await?;
        let sandbox = self.sandbox().await;
        let pod = self.context.pod.clone().expect("a pod");
        let spec = pod.spec.as_ref().expect("a spec");
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            self.act(Action::CreateContainer {
                uid: uid.clone(),
                sandbox: sandbox.clone(),
                container: container.name.clone(),
                attempt: 0,
                image_id: image_id.to_owned(),
                annotations: BTreeMap::new(),
            })
            .await?;
            let id = self.container(&container.name).await;
            self.act(Action::StartContainer { uid: uid.clone(), container: container.name.clone(), id })
                .await?;
        }
        Ok(())
    }

    async fn container(&self, name: &str) -> ContainerId {
        let all = self.executor.runtime.observe().await.expect("observe").containers;
        let own = all.into_iter().find(|c| c.pod_uid() == self.uid && c.name == name);
        own.expect("a container").id
    }

    async fn sandbox(&mut self) -> SandboxId {
        let all = self.executor.runtime.observe().await.expect("observe").sandboxes;
        let own = all.into_iter().find(|s| s.pod.uid == self.uid).expect("a sandbox");
        self.context.ips = own.ips.unwrap_or_default();
        own.id
    }

    /// Takes away whatever there is of it.
    async fn end(&self) {
        let runtime = &self.executor.runtime;
        let own =
            |all: Vec<Container>| all.into_iter().filter(|c| c.pod_uid() == self.uid).collect::<Vec<_>>();
        // As the agent does it: again, until it is seen to be over. What ends by itself meanwhile confuses servers.
        let deadline = Instant::now() + Duration::from_secs(60);
        let (sandboxes, stopped) = loop {
            let seen = runtime.observe().await.expect("observe");
            let all = own(seen.containers);
            let mut outcomes = Vec::new();
            for container in all.iter().filter(|c| c.is_running()) {
                outcomes.push(runtime.stop_container(&container.id, Duration::ZERO).await);
            }
            if outcomes.is_empty() {
                break (seen.sandboxes, all);
            }
            assert!(Instant::now() < deadline, "cannot be stopped: {outcomes:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        for container in stopped {
            runtime.remove_container(&container.id).await.expect("remove a container");
        }
        for sandbox in sandboxes.iter().filter(|s| s.pod.uid == self.uid) {
            runtime.stop_sandbox(&sandbox.id).await.expect("stop the sandbox");
            runtime.remove_sandbox(&sandbox.id).await.expect("remove the sandbox");
        }
        self.act(Action::CleanPod { uid: self.uid.clone() }).await.expect("clean up");
    }
}

async fn random_pods_are_made_and_taken_away(host: &Host) {
    let node = host.bare_node().await;
    let executor = executor(&node).await;
    let image = executor.runtime.image(&ImageSpec::from(IMAGE)).await.expect("ask").expect("the image").id;
    let host_dir = node.dir().join("of-the-node");
    std::fs::create_dir(&host_dir).expect("a directory of the node");
    let scope =
        manifests::Scope { image: IMAGE.into(), host_dir: host_dir.display().to_string(), real: true };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&setting("PODSTEAD_RANDOM_SEED", 1).to_le_bytes());
    let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), chance);
    let pods = manifests::pod(&scope);
    let mut wrong = Vec::new();
    for number in 0..setting("PODSTEAD_RANDOM_PODS", 25) {
        let manifest = pods.new_tree(&mut runner).expect("a pod").current().to_string();
        let read = validate(manifest.as_bytes(), Path::new("/m/random.yaml"), "node");
        let pod = Arc::new(read.unwrap_or_else(|why| panic!("{why:?}: {manifest}")).remove(0).pod);
        let uid = identity::identity(&pod).uid;
        let context = Context { pod: Some(pod), ..Context::default() };
        let mut one = One { executor: &executor, uid, context };
        if let Err(failed) = one.make(&image).await {
            wrong.push(format!("{number}: {}\n{manifest}\n", failed.message));
        }
        one.end().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(node.left().await.expect("look"), [""; 0]);
}
