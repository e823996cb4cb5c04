//! The agent's loop without clock, threads or runtime: readings, plans, jobs in flight, and deaths of the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use podstead::plan::{
    self, Action, CLAIM, Desired, JobId, Jobs, Known, Observed, Plan, Pod, Probed, Reading, Refusal, Room,
    Sizes, Verb,
};
use podstead_fake::World;
use podstead_runtime::{
    ContainerId, ContainerSpec, Error, ImageSpec, NamespaceMode, PodIdentity, PodUid, Retry, SandboxSpec,
    Time, labels,
};

use crate::laws::{Broken, Laws, Who};
use crate::resize::{self, Cgroup};
use crate::rng::Rng;

/// The owner under test.
pub const OURS: &str = labels::DEFAULT_OWNER;

/// What the agent keeps on the host.
#[derive(Default)]
pub struct Host {
    /// Directories, volumes and cgroups of pods.
    pub dirs: BTreeMap<PodUid, PodIdentity>,
    /// Highest log number plus one.
    pub logs: BTreeMap<(PodUid, String), u32>,
    /// When pods were first seen.
    pub since: BTreeMap<PodUid, Time>,
    /// Instances whose postStart hook is over.
    pub hooked: BTreeSet<ContainerId>,
    /// What was noted about sizes.
    pub sizes: BTreeMap<PodUid, Sizes>,
    /// Pods' cgroups.
    pub cgroups: BTreeMap<PodUid, Cgroup>,
    /// What probes say; the agent keeps it over its deaths.
    pub probed: BTreeMap<ContainerId, Probed>,
}

/// A verb that was sent and has not answered.
struct Flight {
    /// The job of the living agent; `None` for a verb of a dead one.
    job: Option<JobId>,
    action: Action,
    /// The pod as it was when the verb was sent.
    pod: Option<Pod>,
}

/// Which faults blow.
#[derive(Clone, Copy)]
pub struct Weather {
    /// Per cent of verbs that fail before their effect.
    pub fail: u64,
    /// Per cent of verbs whose answer is lost.
    pub lose: u64,
}

/// Everything: the world, the host, the manifests, the agent, the laws.
pub struct Sim {
    pub rng: Rng,
    pub world: World,
    pub host: Host,
    /// What the manifests say.
    pub manifests: BTreeMap<PodUid, Pod>,
    /// What the agent has read of them.
    pub desired: Desired,
    pub known: Known,
    /// What the node has.
    pub room: Room,
    /// Whether the node has the label that some pods want.
    pub labelled: bool,
    jobs: Jobs,
    begun: Option<(Reading, Observed)>,
    taken: Option<(Reading, Observed)>,
    flights: Vec<Flight>,
    pub laws: Laws,
    pub network_down: bool,
    pub runtime_down: bool,
    /// What happened, for people who look at a broken law.
    pub diary: Vec<String>,
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let mut world = World::default();
        world.now = Time::from_secs(1_000_000);
        let foreign =
            PodIdentity { name: "p0-node".into(), namespace: "default".into(), uid: "foreign".into() };
        let spec = SandboxSpec { pod: foreign, ..SandboxSpec::default() };
        let sandbox = world.run_sandbox("kubelet", &spec);
        world.add_image("img");
        let container = ContainerSpec { name: "c0".into(), image: "img".into(), ..ContainerSpec::default() };
        let id = world.create_container("kubelet", &sandbox, &container, &spec).expect("a foreign container");
        world.start_container("kubelet", &id).expect("it starts");
        world.events.clear();
        let mut rng = Rng::new(seed);
        world.unknown_stays = rng.chance(50);
        Self {
            rng,
            world,
            host: Host::default(),
            manifests: BTreeMap::new(),
            desired: Desired { complete: true, ..Desired::default() },
            known: Known::default(),
            room: Room([("pods", 4), ("cpu", 2000), ("memory", 200)].map(|(r, n)| (r.to_owned(), n)).into()),
            labelled: true,
            jobs: Jobs::default(),
            begun: None,
            taken: None,
            flights: Vec::new(),
            laws: Laws::default(),
            network_down: false,
            runtime_down: false,
            diary: Vec::new(),
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.world.now.0 / 1_000_000_000 - 1_000_000;
        self.diary.push(format!("{at:>6} {}", line()));
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Begins a reading: what the host has. The runtime is asked later.
    pub fn begin_reading(&mut self) {
        let reading = self.jobs.observing();
        self.desired.room = Some(self.room.clone());
        let observed = Observed {
            leftovers: self.host.dirs.clone(),
            attempt_floor: self.host.logs.clone(),
            since: self.host.since.clone(),
            hooked: self.host.hooked.clone(),
            sizes: self.host.sizes.clone(),
            classes: self.host.cgroups.iter().map(|(uid, c)| (uid.clone(), c.class.clone())).collect(),
            probed: self.host.probed.clone(),
            ..Observed::default()
        };
        self.begun = Some((reading, observed));
        self.taken = None;
    }

    /// The runtime answers.
    pub fn take_reading(&mut self) {
        if let Some((reading, mut observed)) = self.begun.take() {
            observed.snapshot = self.world.snapshot(OURS);
            self.taken = Some((reading, observed));
        }
    }

    /// Decides on the reading there is, however old, and sends what may be sent.
    pub fn decide(&mut self) -> Result<Option<Plan>, Broken> {
        let Some((reading, observed)) = self.taken.take() else { return Ok(None) };
        self.known.network_problem = self.network_down.then(|| "no CNI configuration".to_owned());
        self.known.runtime_problem = self.runtime_down.then(|| "starting".to_owned());
        self.known.forget(&self.desired, &observed);
        self.laws.looked(&self.desired, &observed);
        let plan = plan::plan(&self.desired, &observed, &self.known, self.world.now);
        let victims = std::mem::take(&mut self.known.preempted);
        if !plan.refused.is_empty() || !plan.preempted.is_empty() {
            self.note(|| format!("refused {:?}, preempted {:?}", plan.refused, plan.preempted));
        }
        self.laws.rooms.decided(&plan, &victims, &self.desired, &observed)?;
        self.known.planned(&plan);
        for id in self.jobs.obsolete(&plan) {
            self.jobs.finish(id);
            self.flights.retain(|f| f.job != Some(id));
        }
        for step in plan.steps.values().flatten() {
            let Some(id) = self.jobs.admit(step, reading) else { continue };
            let others: Vec<_> =
                self.flights.iter().filter(|f| f.job.is_some()).map(|f| f.action.clone()).collect();
            self.note(|| format!("begin {} {step}", step.action.uid()));
            self.laws.begins(step, &others, &self.desired, &self.host, &self.world, &observed)?;
            self.known.begun(&step.action, &plan, self.world.now);
            let pod = self.desired.pods.get(step.action.uid()).cloned();
            self.flights.push(Flight { job: Some(id), action: step.action.clone(), pod });
        }
        Ok(Some(plan))
    }

    /// One verb in flight comes to its end.
    pub fn land(&mut self, index: usize, weather: Weather) -> Result<(), Broken> {
        let flight = self.flights.remove(index);
        let retry = match self.rng.below(20) {
            0 => Retry::Never,
            1..8 => Retry::Soon,
            _ => Retry::Backoff,
        };
        let roll = self.rng.below(100);
        let who = if flight.job.is_some() { Who::Agent } else { Who::Ghost };
        let outcome = if roll < weather.fail {
            if self.rng.chance(50) {
                resize::part(&mut self.host, &mut self.world, &flight.action, 1);
            }
            Err(format!("it failed ({retry:?})"))
        } else {
            let done = self.effect(&flight).map_err(|e| e.to_string());
            if roll < weather.fail + weather.lose {
                done.and(Err("the answer was lost".to_owned()))
            } else {
                done
            }
        };
        let (action, uid) = (&flight.action, flight.action.uid());
        self.note(|| {
            format!("{} {uid} {action}: {outcome:?}", if who == Who::Agent { "end" } else { "ghost" })
        });
        self.laws.check(&mut self.world, &self.host, &self.desired, who)?;
        let Some(id) = flight.job else { return Ok(()) };
        self.jobs.finish(id);
        match outcome {
            Ok(image) => {
                self.known.succeeded(action, image);
                self.laws.succeeded(action);
            }
            Err(message) => {
                self.known.failed(action, retry, "", &message, self.world.now);
                self.laws.failed(action, retry, self.world.now);
            }
        }
        Ok(())
    }

    /// What the verb does to the world.
    fn effect(&mut self, flight: &Flight) -> Result<Option<String>, Error> {
        let world = &mut self.world;
        let gone = || Error::failed("simulating", "the pod is not wanted any more");
        let pod = flight.pod.as_ref();
        match &flight.action {
            Action::PreparePod { uid } => {
                let pod = pod.ok_or_else(gone)?;
                self.host.dirs.insert(uid.clone(), pod.identity.clone());
                self.host.since.entry(uid.clone()).or_insert(world.now);
                resize::prepare(&mut self.host, pod);
            }
            Action::EnsureImage { image, .. } => return Ok(Some(world.add_image(image))),
            Action::RunSandbox { attempt, .. } => {
                world.run_sandbox(OURS, &sandbox_spec(pod.ok_or_else(gone)?, *attempt));
            }
            Action::CreateContainer { uid, sandbox, container, attempt, image_id, annotations } => {
                let pod = pod.ok_or_else(gone)?;
                let mut spec = ContainerSpec {
                    name: container.clone(),
                    attempt: *attempt,
                    image: ImageSpec::from("img"),
                    image_id: image_id.clone(),
                    annotations: annotations.clone(),
                    ..ContainerSpec::default()
                };
                if let Some(plan) = pod.all().find(|c| c.name == *container) {
                    spec.resources = resize::limits(plan.size);
                }
                if container.ends_with("-hook") {
                    spec.annotations.insert(labels::PRE_STOP.to_owned(), "{}".to_owned());
                }
                spec.labels.insert(labels::POD_UID.to_owned(), uid.0.clone());
                spec.labels.insert(labels::POD_NAME.to_owned(), pod.identity.name.clone());
                spec.labels.insert(labels::POD_NAMESPACE.to_owned(), pod.identity.namespace.clone());
                spec.labels.insert(labels::CONTAINER_NAME.to_owned(), container.clone());
                world.create_container(OURS, sandbox, &spec, &sandbox_spec(pod, 0))?;
                let log = self.host.logs.entry((uid.clone(), container.clone())).or_default();
                *log = (*log).max(attempt + 1);
            }
            Action::StartContainer { id, .. } => world.start_container(OURS, id)?,
            Action::PostStart { id, .. } => {
                world.running(OURS, id, "carrying out a hook")?;
                self.host.hooked.insert(id.clone());
            }
            Action::PreStop { .. } => {}
            Action::StopContainer { id, grace, .. } => world.stop_container(OURS, id, *grace)?,
            Action::UpdateResources { id, .. } => {
                // One that is not there is refused, after the doubt was noted.
                let there = world.running(OURS, id, "resizing");
                resize::part(&mut self.host, world, &flight.action, if there.is_ok() { 3 } else { 1 });
                there?;
            }
            Action::ResizePod { .. } => resize::part(&mut self.host, world, &flight.action, 3),
            Action::RemoveContainer { id, .. } => world.remove_container(OURS, id)?,
            Action::StopSandbox { id, .. } => world.stop_sandbox(OURS, id)?,
            Action::RemoveSandbox { id, .. } => world.remove_sandbox(OURS, id)?,
            Action::CleanPod { uid } => {
                self.host.dirs.remove(uid);
                self.host.logs.retain(|key, _| key.0 != *uid);
                self.host.since.remove(uid);
                self.host.sizes.remove(uid);
                self.host.cgroups.remove(uid);
                self.laws.cleaned(uid);
            }
        }
        Ok(None)
    }

    /// SIGKILL and a fresh start: nothing is known, nothing is read. Verbs already sent may still arrive.
    pub fn restart_agent(&mut self) {
        self.note(|| "the agent dies and starts anew".to_owned());
        self.readiness_stays();
        self.known = Known::default();
        self.jobs = Jobs::default();
        (self.begun, self.taken) = (None, None);
        // A resize that was under way got as far as it did.
        for flight in &self.flights {
            let stage = self.rng.below(3);
            resize::part(&mut self.host, &mut self.world, &flight.action, stage);
        }
        let rng = &mut self.rng;
        self.flights.retain(|_| rng.chance(60));
        for flight in &mut self.flights {
            flight.job = None;
        }
        // The agent's own work dies with it; only what was sent to the runtime can still arrive.
        let own = |verb| {
            use Verb::{Clean, EnsureImage, PostStart, PreStop, Prepare, ResizePod, Update};
            matches!(verb, Prepare | Clean | EnsureImage | PostStart | PreStop | ResizePod | Update)
        };
        self.flights.retain(|f| !own(f.action.verb()));
        self.desired = Desired { room: Some(self.room.clone()), ..Desired::default() };
        self.labelled = self.rng.chance(70);
        self.laws.agent_died();
    }

    /// What people are told of readiness does not hang on the agent's own memory.
    fn readiness_stays(&self) {
        let observed = Observed {
            snapshot: self.world.snapshot(OURS),
            probed: self.host.probed.clone(),
            ..Observed::default()
        };
        for pod in self.manifests.values() {
            let ready = |known| plan::status::pod_status(pod, &observed, known, self.world.now).ready;
            assert_eq!(ready(&self.known), ready(&Known::default()), "{}", pod.identity.uid);
        }
    }

    /// Some or all manifests are read.
    pub fn read_manifests(&mut self) {
        let (manifests, rng) = (&self.manifests, &mut self.rng);
        if self.desired.complete || rng.chance(60) {
            self.desired = Desired { pods: manifests.clone(), complete: true, ..self.desired.clone() };
        } else {
            let some: BTreeSet<_> = manifests.keys().filter(|_| rng.chance(50)).cloned().collect();
            self.desired.pods = manifests.iter().filter(|(uid, _)| some.contains(uid)).map(clone).collect();
        }
        self.judge();
        let (count, complete) = (self.desired.pods.len(), self.desired.complete);
        self.note(|| format!("{count} manifests read, complete: {complete}"));
    }

    /// What the node says to pods that want its label.
    pub fn judge(&mut self) {
        let refusal = || Refusal { reason: "NodeAffinity".to_owned(), message: "no such label".to_owned() };
        let labelled = self.labelled;
        for pod in self.desired.pods.values_mut().chain(self.manifests.values_mut()) {
            let wants = pod.identity.uid.as_str() == "p0-v1";
            pod.refused = (wants && !labelled).then(refusal);
        }
    }

    pub fn advance(&mut self, by: Duration) {
        self.world.now = self.world.now + by;
    }
}

fn clone((uid, pod): (&PodUid, &Pod)) -> (PodUid, Pod) {
    (uid.clone(), pod.clone())
}

fn sandbox_spec(pod: &Pod, attempt: u32) -> SandboxSpec {
    let mut spec = SandboxSpec { pod: pod.identity.clone(), attempt, ..SandboxSpec::default() };
    spec.annotations.insert(CLAIM.to_owned(), pod.claim.to_string());
    if pod.host_network {
        spec.security.namespaces.network = NamespaceMode::Node;
    }
    spec
}
