//! The world behind the contract's trait.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use podstead_runtime::{
    Auth, ContainerId, ContainerSpec, ContainerStats, Error, ExecOutput, ExecSpec, ExecStreams, Hint, Image,
    ImageFs, ImageSpec, LinuxResources, PullProgress, Result, Runtime, RuntimeInfo, RuntimeStatus, SandboxId,
    SandboxSpec, SandboxStats, Snapshot, Time, labels,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::fault::{Fault, Verb};
use crate::world::{End, World};

/// A runtime in memory. Clones share one world.
#[derive(Clone)]
pub struct Fake {
    shared: Arc<Shared>,
    owner: String,
}

struct Shared {
    world: Mutex<World>,
    script: Mutex<Script>,
    hints: broadcast::Sender<Hint>,
    clock: Box<dyn Fn() -> Time + Send + Sync>,
}

#[derive(Default)]
struct Script {
    faults: BTreeMap<Verb, VecDeque<Fault>>,
    unreachable: bool,
    status: RuntimeStatus,
    term: BTreeMap<String, Duration>,
    exec: ExecOutput,
    calls: Vec<String>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::with_clock(Time::now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// An empty world on the wall clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty world with a clock of the caller's.
    pub fn with_clock(clock: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        let shared = Shared {
            world: Mutex::default(),
            script: Mutex::default(),
            hints: broadcast::channel(64).0,
            clock: Box::new(clock),
        };
        Self { shared: Arc::new(shared), owner: labels::DEFAULT_OWNER.to_owned() }
    }

    /// The same world with the eyes of another owner.
    #[must_use]
    pub fn stranger(&self, owner: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), owner: owner.to_owned() }
    }

    /// The world, to look at or to change by hand. Its clock is moved first; nobody is told of changes
    /// ([`hint`](Self::hint) does that).
    pub fn world<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        let mut world = lock(&self.shared.world);
        world.now = (self.shared.clock)();
        with(&mut world)
    }

    /// A container ends by itself, and hints are given.
    pub fn exit(&self, id: &ContainerId, code: i32) {
        if let Some(uid) = self.world(|w| w.exit(id, code)) {
            self.hint(Hint::Pod(uid));
        }
    }

    /// A sandbox dies, and hints are given.
    pub fn kill_sandbox(&self, id: &SandboxId) {
        self.world(|w| w.kill_sandbox(id));
        self.hint(Hint::Everything);
    }

    /// Wakes whoever listens.
    pub fn hint(&self, hint: Hint) {
        // No listener is no error.
        let _ = self.shared.hints.send(hint);
    }

    /// The next call of `verb` meets this fault; several queue up.
    pub fn fault(&self, verb: Verb, fault: Fault) {
        lock(&self.shared.script).faults.entry(verb).or_default().push_back(fault);
    }

    /// Makes every verb fail as if the runtime's socket were gone, or ends that.
    pub fn set_unreachable(&self, unreachable: bool) {
        lock(&self.shared.script).unreachable = unreachable;
    }

    /// What [`Runtime::status`] answers from now on.
    pub fn set_status(&self, status: RuntimeStatus) {
        lock(&self.shared.script).status = status;
    }

    /// How long containers of this name take to end after their stop signal; none by default.
    pub fn set_term(&self, container: &str, takes: Duration) {
        lock(&self.shared.script).term.insert(container.to_owned(), takes);
    }

    /// What every command that is run in a container answers from now on; nothing and code 0 by default.
    pub fn set_exec(&self, code: i32, stdout: &str) {
        let output = ExecOutput { code, stdout: stdout.as_bytes().to_vec(), stderr: Vec::new() };
        lock(&self.shared.script).exec = output;
    }

    /// Which changing verbs were called, in order, each with its object; taken away.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.script).calls)
    }

    /// Notes the call and meets its fault: an error, a delay, or the error to answer with after the effect.
    async fn meet(&self, verb: Verb, object: &str) -> Result<Option<Error>> {
        let fault = {
            let mut script = lock(&self.shared.script);
            if !matches!(verb, Verb::Status | Verb::Observe | Verb::Image) {
                script.calls.push(format!("{verb:?} {object}"));
            }
            if script.unreachable {
                let cause = "connection refused".to_owned();
                return Err(Error::Unavailable { doing: format!("{verb:?} {object}"), cause });
            }
            script.faults.get_mut(&verb).and_then(VecDeque::pop_front)
        };
        match fault {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After(error)) => Ok(Some(error)),
            Some(Fault::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(None)
            }
            Some(Fault::Panic) => panic!("{verb:?} {object} panics as it was told"),
            None => Ok(None),
        }
    }

    async fn call<T>(
        &self,
        verb: Verb,
        object: &str,
        effect: impl FnOnce(&mut World) -> Result<T>,
    ) -> Result<T> {
        let lost = self.meet(verb, object).await?;
        let answer = self.world(effect);
        lost.map_or(answer, Err)
    }

    fn hint_container(&self, id: &ContainerId) {
        let snapshot = self.world(|w| w.snapshot(&self.owner));
        let found = snapshot.containers.iter().find(|c| c.id == *id);
        self.hint(found.map_or(Hint::Everything, |c| Hint::Pod(c.pod_uid())));
    }
}

/// Hints of one listener: "everything" first, and again when some were lost.
struct Hints {
    begun: bool,
    rest: BroadcastStream<Hint>,
    // Keeps the channel open: the stream never ends.
    _shared: Arc<Shared>,
}

impl Stream for Hints {
    type Item = Hint;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Hint>> {
        if !self.begun {
            self.begun = true;
            return Poll::Ready(Some(Hint::Everything));
        }
        Pin::new(&mut self.rest).poll_next(cx).map(|next| next.map(|hint| hint.unwrap_or(Hint::Everything)))
    }
}

fn well_formed(image: &str) -> bool {
    !image.is_empty()
        && image.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:@".contains(c))
}

impl Runtime for Fake {
    async fn version(&self) -> Result<RuntimeInfo> {
        let (name, version, api_version) = ("fake".to_owned(), "1".to_owned(), "1".to_owned());
        self.call(Verb::Status, "version", |_| Ok(RuntimeInfo { name, version, api_version })).await
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let status = lock(&self.shared.script).status.clone();
        self.call(Verb::Status, "status", |_| Ok(status)).await
    }

    async fn observe(&self) -> Result<Snapshot> {
        self.call(Verb::Observe, "", |w| Ok(w.snapshot(&self.owner))).await
    }

    fn hints(&self) -> impl Stream<Item = Hint> + Send + Unpin + 'static + use<> {
        let rest = BroadcastStream::new(self.shared.hints.subscribe());
        Hints { begun: false, rest, _shared: Arc::clone(&self.shared) }
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxId> {
        let object = format!("{}#{}", spec.pod.uid, spec.attempt);
        let id = self.call(Verb::RunSandbox, &object, |w| Ok(w.run_sandbox(&self.owner, spec))).await?;
        self.hint(Hint::Pod(spec.pod.uid.clone()));
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.call(Verb::StopSandbox, id.as_str(), |w| w.stop_sandbox(&self.owner, id)).await?;
        self.hint(Hint::Everything);
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.call(Verb::RemoveSandbox, id.as_str(), |w| w.remove_sandbox(&self.owner, id)).await?;
        self.hint(Hint::Everything);
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        spec: &ContainerSpec,
        sandbox_spec: &SandboxSpec,
    ) -> Result<ContainerId> {
        let object = format!("{}#{}", spec.name, spec.attempt);
        let create = |w: &mut World| w.create_container(&self.owner, sandbox, spec, sandbox_spec);
        let id = self.call(Verb::CreateContainer, &object, create).await?;
        self.hint_container(&id);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.call(Verb::StartContainer, id.as_str(), |w| w.start_container(&self.owner, id)).await?;
        self.hint_container(id);
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let lost = self.meet(Verb::StopContainer, id.as_str()).await?;
        let name = self.world(|w| {
            // Whose it is decides before anything is sent.
            w.update_resources(&self.owner, id, &LinuxResources::default()).or_else(absent_is_fine)?;
            let seen = w.snapshot(&self.owner).containers;
            Ok(seen.into_iter().find(|c| c.id == *id && c.is_running()).map(|c| c.name))
        })?;
        let takes =
            name.and_then(|name| lock(&self.shared.script).term.get(&name).copied()).unwrap_or_default();
        if !takes.is_zero() {
            tokio::time::sleep(takes.min(grace)).await;
        }
        self.world(|w| w.end(id, if takes > grace { 137 } else { 143 }, End::Stopped(grace)));
        self.hint_container(id);
        lost.map_or(Ok(()), Err)
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.call(Verb::RemoveContainer, id.as_str(), |w| w.remove_container(&self.owner, id)).await?;
        self.hint(Hint::Everything);
        Ok(())
    }

    async fn update_resources(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        self.call(Verb::UpdateResources, id.as_str(), |w| w.update_resources(&self.owner, id, resources))
            .await
    }

    async fn reopen_log(&self, id: &ContainerId) -> Result<()> {
        let doing = format!("reopening the log of container {id}");
        self.call(Verb::Exec, id.as_str(), |w| w.running(&self.owner, id, &doing)).await
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], _: Duration) -> Result<ExecOutput> {
        let doing = format!("running {} in container {id}", command.join(" "));
        let output = lock(&self.shared.script).exec.clone();
        let effect = |w: &mut World| w.running(&self.owner, id, &doing).map(|()| output);
        self.call(Verb::Exec, id.as_str(), effect).await
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, _: ExecStreams) -> Result<i32> {
        self.exec_sync(id, &spec.command, Duration::ZERO).await.map(|output| output.code)
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>> {
        let stats = |w: &mut World| {
            let (now, seen) = (w.now, w.snapshot(&self.owner).containers);
            let running = seen.into_iter().filter(podstead_runtime::Container::is_running);
            let one = |c: podstead_runtime::Container| ContainerStats {
                id: c.id,
                name: c.name,
                read_at: now,
                pids: 1,
                ..ContainerStats::default()
            };
            Ok(running.map(one).collect())
        };
        self.call(Verb::Observe, "stats", stats).await
    }

    async fn sandbox_stats(&self) -> Result<Vec<SandboxStats>> {
        self.call(Verb::Observe, "stats", |_| Ok(Vec::new())).await
    }

    async fn pull_image(&self, image: &ImageSpec, _: &Auth, _: PullProgress) -> Result<String> {
        if !well_formed(&image.image) {
            let doing = format!("pulling image {}", image.image);
            return Err(Error::invalid(doing, "this is no image reference"));
        }
        self.call(Verb::PullImage, &image.image, |w| Ok(w.add_image(&image.image))).await
    }

    async fn image(&self, image: &ImageSpec) -> Result<Option<Image>> {
        self.call(Verb::Image, &image.image, |w| Ok(w.image(&image.image).cloned())).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.call(Verb::Image, "", |w| Ok(w.images())).await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let remove = |w: &mut World| {
            w.remove_image(image);
            Ok(())
        };
        self.call(Verb::Image, &image.image, remove).await
    }

    async fn image_fs(&self) -> Result<Vec<ImageFs>> {
        self.call(Verb::Image, "", |_| Ok(vec![ImageFs { path: "/".into(), ..ImageFs::default() }])).await
    }
}

fn absent_is_fine(error: Error) -> Result<()> {
    if matches!(error, Error::NotFound { .. }) { Ok(()) } else { Err(error) }
}
