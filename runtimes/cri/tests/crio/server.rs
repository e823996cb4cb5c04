//! A CRI server in memory that behaves as `cri-servers.md` describes CRI-O: it refuses what CRI-O refuses, and
//! its events are off, or on without headers before the first. Counts every call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use podstead_cri::proto::image_service_server::{ImageService, ImageServiceServer};
use podstead_cri::proto::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use podstead_cri::proto::*;
use tokio::net::UnixListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// What is in the server, and what was asked of it.
#[derive(Default)]
pub struct World {
    pub sandboxes: BTreeMap<String, (PodSandboxConfig, PodSandboxState)>,
    pub containers: BTreeMap<String, (String, ContainerConfig, ContainerStatus)>,
    pub calls: BTreeMap<&'static str, u32>,
    pub pulled: Vec<PullImageRequest>,
    /// Huge page sizes the node can limit.
    pub hugepages: Vec<String>,
    pub exec_url: String,
    /// The default handler knows user namespaces.
    pub users: bool,
    /// RunPodSandbox never answers.
    pub hang: bool,
    /// How long RunPodSandbox takes.
    pub slow: Duration,
    /// How often RunPodSandbox and CreateContainer say that the name is reserved before it is free or made.
    pub reserved: u32,
    next: u32,
}

#[derive(Clone)]
pub struct Crio {
    pub world: Arc<Mutex<World>>,
    /// `enable_pod_events`.
    events: bool,
    queued: Arc<Mutex<Vec<ContainerEventResponse>>>,
    came: Arc<Notify>,
}

/// A running server; dropping it ends it at once, with every connection.
pub struct Running {
    stop: Option<tokio::runtime::Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.stop.take() {
            runtime.shutdown_background();
        }
    }
}

impl Crio {
    pub fn new(events: bool) -> Self {
        Self { world: Arc::default(), events, queued: Arc::default(), came: Arc::default() }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }

    fn called(&self, name: &'static str) -> MutexGuard<'_, World> {
        let mut world = self.world();
        *world.calls.entry(name).or_default() += 1;
        world
    }

    pub fn calls(&self, name: &str) -> u32 {
        self.world().calls.get(name).copied().unwrap_or_default()
    }

    pub fn all_calls(&self) -> u32 {
        self.world().calls.values().sum()
    }

    /// An event as CRI-O sends it.
    pub fn event(&self, sandbox: &str, labels: &[(&str, &str)], uid: &str) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.queued.lock().expect("not poisoned").push(ContainerEventResponse {
            container_id: sandbox.to_owned(),
            container_event_type: ContainerEventType::ContainerStoppedEvent.into(),
            pod_sandbox_status: Some(PodSandboxStatus {
                id: sandbox.to_owned(),
                metadata: Some(PodSandboxMetadata { uid: uid.to_owned(), ..Default::default() }),
                labels,
                ..Default::default()
            }),
            ..Default::default()
        });
        self.came.notify_one();
    }

    /// Serves on a new socket at this path, in threads of its own so that it can be killed.
    pub fn serve(&self, socket: &Path) -> Running {
        let _ = std::fs::remove_file(socket);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket).expect("bind")
        };
        let serving = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(serving);
        Running { stop: Some(runtime) }
    }
}

fn matches(
    selector: &std::collections::HashMap<String, String>,
    labels: &std::collections::HashMap<String, String>,
) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for Crio {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        drop(self.called("Version"));
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "cri-o".into(),
            runtime_version: "1.37.0".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let users = self.called("Status").users;
        let condition =
            |name: &str| RuntimeCondition { r#type: name.into(), status: true, ..Default::default() };
        let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
        let handler = |name: &str, user_namespaces| RuntimeHandler {
            name: name.into(),
            features: Some(RuntimeHandlerFeatures { user_namespaces, ..Default::default() }),
        };
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            // The one without a name is the default.
            runtime_handlers: vec![handler("other", !users), handler("", users)],
            ..Default::default()
        }))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        drop(self.called("RuntimeConfig"));
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Systemd.into() };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let (hang, slow) = {
            let world = self.called("RunPodSandbox");
            (world.hang, world.slow)
        };
        if hang {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(slow).await;
        self.refuse_reserved()?;
        let config = request.into_inner().config.unwrap_or_default();
        if config.linux.as_ref().is_none_or(|linux| linux.cgroup_parent.is_empty()) {
            return Err(Status::unknown("no cgroup parent: 2 CPU shares for the infra container"));
        }
        let mut world = self.world();
        // Asked again for the same name and attempt, CRI-O answers what it made.
        let key = |config: &PodSandboxConfig| config.metadata.clone();
        if let Some((id, _)) = world.sandboxes.iter().find(|(_, (made, _))| key(made) == key(&config)) {
            return Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id.clone() }));
        }
        world.next += 1;
        let id = format!("sandbox{}", world.next);
        world.sandboxes.insert(id.clone(), (config, PodSandboxState::SandboxReady));
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let mut world = self.called("StopPodSandbox");
        if let Some(sandbox) = world.sandboxes.get_mut(&request.into_inner().pod_sandbox_id) {
            sandbox.1 = PodSandboxState::SandboxNotready;
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let world = self.called("PodSandboxStatus");
        let id = request.into_inner().pod_sandbox_id;
        if !world.sandboxes.contains_key(&id) {
            return Err(Status::not_found("no such sandbox"));
        }
        let network = Some(PodSandboxNetworkStatus { ip: "10.88.0.7".into(), additional_ips: vec![] });
        let status = PodSandboxStatus { id, network, ..Default::default() };
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let world = self.called("ListPodSandbox");
        let filter = request.into_inner().filter.unwrap_or_default();
        let items = world
            .sandboxes
            .iter()
            .filter(|(id, (config, _))| {
                id.starts_with(&filter.id) && matches(&filter.label_selector, &config.labels)
            })
            .map(|(id, (config, state))| PodSandbox {
                id: id.clone(),
                metadata: config.metadata.clone(),
                state: (*state).into(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                ..Default::default()
            })
            .collect();
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        drop(self.called("CreateContainer"));
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let sandbox = request.sandbox_config.unwrap_or_default();
        self.refuse_reserved()?;
        self.check(&config, &sandbox)?;
        let mut world = self.world();
        world.next += 1;
        let id = format!("container{}", world.next);
        let status = ContainerStatus {
            id: id.clone(),
            log_path: Path::new(&sandbox.log_directory).join(&config.log_path).display().to_string(),
            ..Default::default()
        };
        world.containers.insert(id.clone(), (request.pod_sandbox_id, config, status));
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let mut world = self.called("StartContainer");
        let id = request.into_inner().container_id;
        let Some((_, _, status)) = world.containers.get_mut(&id) else {
            return Err(Status::not_found("no such container"));
        };
        if status.state() != ContainerState::ContainerCreated {
            return Err(Status::unknown("container is not in created state"));
        }
        status.set_state(ContainerState::ContainerRunning);
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let world = self.called("ListContainers");
        let filter = request.into_inner().filter.unwrap_or_default();
        let containers = world
            .containers
            .iter()
            .filter(|(id, (sandbox, config, _))| {
                id.starts_with(&filter.id)
                    && sandbox.starts_with(&filter.pod_sandbox_id)
                    && matches(&filter.label_selector, &config.labels)
            })
            .map(|(id, (sandbox, config, status))| Container {
                id: id.clone(),
                pod_sandbox_id: sandbox.clone(),
                metadata: config.metadata.clone(),
                image: config.image.clone(),
                state: status.state,
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
                ..Default::default()
            })
            .collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let world = self.called("ContainerStatus");
        match world.containers.get(&request.into_inner().container_id) {
            Some((_, _, status)) => Ok(Response::new(ContainerStatusResponse {
                status: Some(status.clone()),
                ..Default::default()
            })),
            None => Err(Status::not_found("no such container")),
        }
    }

    async fn exec(&self, _: Request<ExecRequest>) -> Answer<ExecResponse> {
        Ok(Response::new(ExecResponse { url: self.called("Exec").exec_url.clone() }))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<BoxStream<ContainerEventResponse>> {
        drop(self.called("GetContainerEvents"));
        let (to, from) = mpsc::channel(16);
        if self.events {
            // No headers before the first event: they are sent when this function returns.
            self.came.notified().await;
            let server = self.clone();
            tokio::spawn(async move {
                loop {
                    let queued = std::mem::take(&mut *server.queued.lock().expect("not poisoned"));
                    for event in queued {
                        if to.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                    server.came.notified().await;
                }
            });
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(from))))
    }
}

impl Crio {
    fn refuse_reserved(&self) -> Result<(), Status> {
        let mut world = self.world();
        let Some(left) = world.reserved.checked_sub(1) else { return Ok(()) };
        world.reserved = left;
        Err(Status::unknown("currently at stage: container storage creation: name is reserved"))
    }

    /// What CRI-O refuses.
    fn check(&self, config: &ContainerConfig, sandbox: &PodSandboxConfig) -> Result<(), Status> {
        let pid = |options: Option<&NamespaceOption>| options.map(|options| options.pid);
        let pod = sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let own = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let pod_pid = pid(pod.and_then(|context| context.namespace_options.as_ref()));
        let own_pid = pid(own.and_then(|context| context.namespace_options.as_ref()));
        let per_pod = i32::from(NamespaceMode::Pod);
        if own_pid == Some(per_pod) && pod_pid != Some(per_pod) {
            return Err(Status::unknown("pod level PID namespace requested for a sandbox without one"));
        }
        if config.image.as_ref().is_none_or(|image| image.user_specified_image.is_empty()) {
            return Err(Status::unknown("user specified image not specified, cannot verify image signature"));
        }
        let hugepages = &self.world().hugepages;
        let limits = config.linux.iter().filter_map(|linux| linux.resources.as_ref());
        for limit in limits.flat_map(|resources| &resources.hugepage_limits) {
            if !hugepages.contains(&limit.page_size) {
                return Err(Status::unknown("hugetlb: no such controller"));
            }
        }
        let log: PathBuf = Path::new(&sandbox.log_directory).join(&config.log_path);
        if !config.log_path.is_empty() && !log.parent().is_some_and(Path::is_dir) {
            return Err(Status::unknown("exit status 1"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl ImageService for Crio {
    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        self.called("PullImage").pulled.push(request.into_inner());
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Response::new(PullImageResponse { image_ref: "registry.test/app@sha256:0123".into() }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        drop(self.called("ImageStatus"));
        let name = request.into_inner().image.unwrap_or_default().image;
        let image = (name == "registry.test/app@sha256:0123")
            .then(|| Image { id: "9d2c0f".into(), ..Default::default() });
        Ok(Response::new(ImageStatusResponse { image, ..Default::default() }))
    }
}
