//! One action -> one effect: a verb of the runtime, or the host's side of a pod. Decides nothing, retries nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use podstead_runtime::security::UserNamespace;
use podstead_runtime::{
    CgroupDriver, ContainerId, ContainerSpec, Error, ImageSpec, PodUid, Retry, Runtime, SandboxId,
    SandboxSpec, labels,
};

use crate::desired;
use crate::events::{Events, from_steps};
use crate::hooks;
use crate::images::{ImageProblem, Images};
use crate::node::cgroup::Cgroups;
use crate::node::{resolver, systemd, userns};
use crate::plan::{self, Action};
use crate::pod::dns::Complaint;
use crate::pod::{NodeFacts, container, files, identity, sandbox, security, volumes};
use crate::{probe, resize};

/// What actions are carried out with.
#[derive(Debug)]
pub struct Executor<R> {
    /// The runtime.
    pub runtime: Arc<R>,
    /// Facts of the node.
    pub node: Arc<NodeFacts>,
    /// Its cgroups.
    pub cgroups: Arc<Cgroups>,
    /// Its images.
    pub images: Arc<Images>,
    /// Where it is told what happens to pods.
    pub events: Events,
}

/// What of the present reading an action needs.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The pod's manifest; `None` once it is gone.
    pub pod: Option<Arc<Pod>>,
    /// The sandbox's attempt.
    pub sandbox_attempt: u32,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// The instance the action is about, if it is about one.
    pub container: Option<podstead_runtime::Container>,
}

/// An action failed.
#[derive(Debug)]
pub struct Failed {
    /// When to try again.
    pub retry: Retry,
    /// A reason as the kubelet spells it; empty for the verb's usual one.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { retry: error.retry(), reason: "", message: error.to_string() }
    }
}

impl Failed {
    /// A bug: what carried the action out panicked with this.
    pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words");
        host(format!("podstead has a bug, it panicked: {text}"))
    }
}

impl From<ImageProblem> for Failed {
    fn from(problem: ImageProblem) -> Self {
        Self { retry: problem.retry, reason: problem.reason, message: problem.message }
    }
}

/// The manifest asks for what cannot be on this node or with this image.
fn config(error: impl std::fmt::Display) -> Failed {
    Failed { retry: Retry::Backoff, reason: "CreateContainerConfigError", message: error.to_string() }
}

pub(crate) fn host(error: impl std::fmt::Display) -> Failed {
    Failed { retry: Retry::Backoff, reason: "", message: error.to_string() }
}

impl<R: Runtime> Executor<R> {
    /// Carries out one action. The answer is the image's id for [`Action::EnsureImage`].
    pub async fn execute(&self, action: &Action, context: &Context) -> Result<Option<String>, Failed> {
        let runtime = &*self.runtime;
        match action {
            Action::PreparePod { .. } => self.prepare(context.manifest()?).await?,
            Action::EnsureImage { uid, container, .. } => {
                let pod = context.manifest()?;
                let spec = find(&pod, container)?;
                let policy = spec.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
                let image = container::image_spec(&pod, spec);
                let tell = from_steps::image(&self.events, uid, container, &image.image);
                let id = self.images.ensure(runtime, &image, policy, &tell).await?;
                // Here, because this step alone may be dropped halfway.
                for (image, policy) in volumes::images(&pod, spec) {
                    let tell = from_steps::image(&self.events, uid, container, &image.image);
                    self.images.ensure(runtime, &image, &policy, &tell).await?;
                }
                return Ok(Some(id));
            }
            Action::RunSandbox { attempt, .. } => {
                let (spec, complaints) = self.sandbox_spec(&*context.manifest()?, *attempt).await?;
                from_steps::names(&self.events, &spec.pod.uid, complaints);
                runtime.run_sandbox(&spec).await?;
            }
            Action::CreateContainer { sandbox, container, attempt, image_id, annotations, .. } => {
                let instance = container::Instance {
                    attempt: *attempt,
                    image_id: image_id.clone(),
                    image_user: self.image_user(container, image_id).await?,
                    annotations: plan::backoff::capped(annotations, self.node.max_restart_period),
                    ips: context.ips.clone(),
                    ..container::Instance::default()
                };
                self.create(context, sandbox, container, instance).await?;
            }
            Action::StartContainer { id, .. } => runtime.start_container(id).await?,
            Action::PostStart { uid, container, id } => {
                self.post_start(context, uid, container, id).await?;
            }
            Action::PreStop { grace, .. } => self.pre_stop(context, *grace).await,
            Action::StopContainer { id, grace, hook, .. } => {
                let begun = Instant::now();
                if *hook {
                    self.pre_stop(context, *grace).await;
                }
                let left = grace.saturating_sub(begun.elapsed()).max(plan::LEAST_GRACE);
                runtime.stop_container(id, if *hook { left } else { *grace }).await?;
            }
            Action::UpdateResources { container, id, size, .. } => {
                let made = context.container.as_ref();
                self.resize_container(&context.manifest()?, container, id, *size, made).await?;
            }
            Action::ResizePod { size, .. } => self.resize_pod(context.manifest()?, *size).await?,
            Action::RemoveContainer { id, .. } => runtime.remove_container(id).await?,
            Action::StopSandbox { id, .. } => runtime.stop_sandbox(id).await?,
            Action::RemoveSandbox { id, .. } => runtime.remove_sandbox(id).await?,
            Action::CleanPod { uid } => self.clean(uid.clone()).await?,
        }
        Ok(None)
    }

    /// The sandbox's spec; the node's resolver is read anew each time.
    async fn sandbox_spec(&self, pod: &Pod, attempt: u32) -> Result<(SandboxSpec, Vec<Complaint>), Failed> {
        let path = self.node.dns.resolv_conf.clone();
        let own_network = !pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
        let nodes_resolver =
            blocking(move || resolver::read(path.as_deref(), own_network).map_err(host)).await?;
        let mut spec = sandbox::sandbox_spec(&self.node, pod, attempt);
        // The decision's memory of what the pod takes, for when its manifest is gone.
        spec.annotations.insert(plan::CLAIM.to_owned(), desired::claim(pod).to_string());
        spec.security.namespaces.user = self.users(pod).await?;
        sandbox::named(spec, &self.node, pod, &nodes_resolver).map_err(|error| Failed {
            retry: Retry::Never,
            reason: "",
            message: error.to_string(),
        })
    }

    /// The ids of a pod with a user namespace of its own: kept, else given now.
    async fn users(&self, pod: &Pod) -> Result<Option<UserNamespace>, Failed> {
        if !pod.spec.as_ref().is_some_and(security::has_users) {
            return Ok(None);
        }
        if !self.node.security.user_namespaces {
            return Err(config("the runtime does not support user namespaces (`hostUsers: false`)"));
        }
        let (node, uid) = (Arc::clone(&self.node), identity::identity(pod).uid);
        blocking(move || userns::of_pod(&node, &uid).map(Some).map_err(host)).await
    }

    async fn prepare(&self, pod: Arc<Pod>) -> Result<(), Failed> {
        let (node, cgroups) = (Arc::clone(&self.node), Arc::clone(&self.cgroups));
        blocking(move || {
            files::prepare(&node, &pod).map_err(host)?;
            resize::prepare(&node, &cgroups, &pod)
        })
        .await
    }

    async fn create(
        &self,
        context: &Context,
        sandbox: &SandboxId,
        name: &str,
        mut instance: container::Instance,
    ) -> Result<(), Failed> {
        let (node, pod) = (Arc::clone(&self.node), context.manifest()?);
        security::verify_non_root(&pod, find(&pod, name)?, &instance.image_user).map_err(config)?;
        let (sandbox_spec, _) = self.sandbox_spec(&pod, context.sandbox_attempt).await?;
        instance.users.clone_from(&sandbox_spec.security.namespaces.user);
        let (owned, wanted) = (Arc::clone(&pod), name.to_owned());
        let spec = blocking(move || {
            let container = find(&owned, &wanted)?;
            let id = identity::identity(&owned);
            files::make_log_dir(&node, &id, &wanted).map_err(host)?;
            let message = files::make_message(&node, &id.uid, &wanted, instance.attempt).map_err(host)?;
            instance.message_file = Some(message);
            instance.hosts_file = files::write_hosts(&node, &owned, &instance.ips).map_err(host)?;
            prepared(&node, &owned, container, instance)
        })
        .await?;
        self.runtime.create_container(sandbox, &spec, &sandbox_spec).await?;
        Ok(())
    }

    /// Who a container runs as when its pod does not say: the image knows.
    async fn image_user(&self, container: &str, image: &str) -> Result<security::ImageUser, Failed> {
        let found = self.runtime.image(&ImageSpec::from(image)).await?;
        let missing = || {
            Failed::from(Error::not_found(format!("create container {container}"), format!("image {image}")))
        };
        found.as_ref().map(security::ImageUser::from).ok_or_else(missing)
    }

    /// The hook of a container that runs, noted when it is over, so that no other agent repeats it.
    async fn post_start(
        &self,
        context: &Context,
        uid: &PodUid,
        name: &str,
        id: &ContainerId,
    ) -> Result<(), Failed> {
        let pod = context.manifest()?;
        let container = find(&pod, name)?;
        if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.clone()) {
            let shared = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
            let ips = probe::target::host(shared, &context.ips, &self.node.node_ips);
            let target = hooks::Target { id: id.clone(), ports: probe::target::ports(container), ips };
            hooks::run(&*self.runtime, &hook, &target).await.map_err(|message| Failed {
                retry: Retry::Backoff,
                reason: "PostStartHookError",
                message: format!("postStart hook of {name}: {message}"),
            })?;
        }
        let (node, uid, name, id) = (Arc::clone(&self.node), uid.clone(), name.to_owned(), id.clone());
        blocking(move || files::note_hook(&node, &uid, &name, &id).map_err(host)).await
    }

    /// The hook that was written on the container; how it went is told and changes nothing.
    async fn pre_stop(&self, context: &Context, grace: Duration) {
        let Some(container) = &context.container else { return };
        let Some(text) = container.annotations.get(labels::PRE_STOP) else { return };
        let ports = container.annotations.get(labels::CONTAINER_PORTS);
        let ports = ports.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let written = Container { ports, ..Container::default() };
        let ips = probe::target::host(context.ips.is_empty(), &context.ips, &self.node.node_ips);
        let target = hooks::Target { id: container.id.clone(), ports: probe::target::ports(&written), ips };
        let outcome = match serde_json::from_str(text) {
            Err(error) => Err(format!("annotation {}: {error}", labels::PRE_STOP)),
            Ok(hook) => tokio::time::timeout(grace, hooks::run(&*self.runtime, &hook, &target))
                .await
                .unwrap_or_else(|_| Err(format!("not over after {} s", grace.as_secs()))),
        };
        if let Err(message) = outcome {
            tracing::warn!(container = container.name, "preStop hook failed, going on: {message}");
            from_steps::pre_stop_failed(&self.events, &container.pod_uid(), &container.name, &message);
        }
    }

    async fn clean(&self, uid: PodUid) -> Result<(), Failed> {
        let (node, cgroups) = (Arc::clone(&self.node), Arc::clone(&self.cgroups));
        blocking(move || clean(&node, &cgroups, &uid)).await
    }
}

/// The container's spec, with everything on the host that it speaks of.
fn prepared(
    node: &NodeFacts,
    pod: &Pod,
    container: &Container,
    mut instance: container::Instance,
) -> Result<ContainerSpec, Failed> {
    instance.env_files = files::read_env_files(node, pod, container);
    let spec = container::container_spec(node, pod, container, &instance).map_err(config)?;
    let parts = volumes::sub_paths(node, pod, container, &spec.env).map_err(config)?;
    files::bind_sub_paths(&identity::identity(pod).uid, &parts).map_err(config)?;
    Ok(spec)
}

/// Takes the host's side of a pod away; its directory, which holds the note of what there is, goes last.
fn clean(node: &NodeFacts, cgroups: &Cgroups, uid: &PodUid) -> Result<(), Failed> {
    let all = files::remains(node).map_err(host)?;
    let Some((_, remains)) = all.into_iter().find(|(found, _)| found == uid) else { return Ok(()) };
    let Some(remains) = remains else {
        // Not surely ours, or its note is damaged: what it says is needed to take all of it away.
        return files::remove_empty(node, uid).map_err(host);
    };
    // Only what is surely the pod's: the note is a file and files can be edited.
    if remains.cgroup.ends_with(&format!("/pod{uid}")) {
        match node.cgroup_driver {
            CgroupDriver::Cgroupfs => cgroups.remove(&remains.cgroup).map_err(host)?,
            CgroupDriver::Systemd => systemd::stop(&identity::slice(&remains.cgroup)).map_err(host)?,
        }
    }
    if remains.log_dir.parent() == Some(&node.pod_logs_dir)
        && remains.log_dir == identity::log_dir(node, &remains.pod)
    {
        match std::fs::remove_dir_all(&remains.log_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(host(format!("remove the logs {}: {error}", remains.log_dir.display())));
            }
            _ => {}
        }
    }
    files::remove(node, uid).map_err(host)
}

impl Context {
    fn manifest(&self) -> Result<Arc<Pod>, Failed> {
        self.pod.clone().ok_or_else(|| host("the pod's manifest is gone"))
    }
}

pub(crate) fn find<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, Failed> {
    let mut all = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let found = all.find(|c| c.name == name);
    found.ok_or_else(|| host(format!("the pod has no container {name}")))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(host(error)))
}
