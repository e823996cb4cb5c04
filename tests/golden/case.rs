//! A case of fixtures/plans: the decision's four inputs in a short form, and its answer as text. Times are seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use podstead::plan::backoff::BACKOFF;
use podstead::plan::{
    Action, CLAIM, Claim, ContainerPlan, Desired, FRAME, Failure, FailureKey, Known, Observed, Plan, Pod,
    Probed, Probes, Qos, Rank, Refusal, RestartPolicy, RestartRule, Role, Room, SIZE, Size, Sizes, Verb,
};
use podstead_runtime::{
    Container, ContainerState, PodIdentity, PodUid, Retry, Sandbox, SandboxState, Snapshot, Time, labels,
};
use serde::Deserialize;

/// One file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Case {
    /// What it shows, a sentence.
    pub shows: String,
    #[serde(default = "hundred")]
    now: i64,
    #[serde(default)]
    sources_unread: bool,
    /// What the node has; as much as anybody likes, when not given.
    #[serde(default)]
    room: Option<BTreeMap<String, i64>>,
    #[serde(default)]
    pods: Vec<PodIn>,
    #[serde(default)]
    sandboxes: Vec<SandboxIn>,
    #[serde(default)]
    containers: Vec<ContainerIn>,
    /// Pods of which the host has something, with their names.
    #[serde(default)]
    leftovers: BTreeMap<String, String>,
    /// `uid/container` and the number after its last log.
    #[serde(default)]
    floors: BTreeMap<String, u32>,
    /// When pods were first seen.
    #[serde(default)]
    since: BTreeMap<String, i64>,
    /// Instances whose postStart hook is over.
    #[serde(default)]
    hooked: Vec<String>,
    /// What probes say of instances: `starting`, `started`, `ready`, `failed`.
    #[serde(default)]
    probed: BTreeMap<String, String>,
    /// What was noted of the sizes of pod `u1`: its own under `pod`, those of instances under their ids.
    #[serde(default)]
    sizes: BTreeMap<String, Vec<String>>,
    /// The quality of service that pods' host sides were made for.
    #[serde(default)]
    classes: BTreeMap<String, String>,
    #[serde(default)]
    known: KnownIn,
}

fn hundred() -> i64 {
    100
}

fn web() -> String {
    "web".to_owned()
}

fn u1() -> String {
    "u1".to_owned()
}

fn h1() -> String {
    "h1".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PodIn {
    #[serde(default = "u1")]
    uid: String,
    #[serde(default = "web")]
    name: String,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    restart_policy: RestartPolicy,
    #[serde(default = "thirty")]
    grace: u64,
    #[serde(default)]
    deadline: Option<u64>,
    /// As it stands on sandboxes: `cpu=500 port=TCP/80`.
    #[serde(default)]
    claim: String,
    #[serde(default)]
    critical: bool,
    #[serde(default)]
    qos: Qos,
    #[serde(default)]
    arrived: i64,
    /// The reason of the node's refusal.
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    init: Vec<PlanIn>,
    /// Name and hash.
    #[serde(default = "one_container")]
    containers: BTreeMap<String, String>,
    /// Instead of `containers`, with more to say.
    #[serde(default)]
    regular: Vec<PlanIn>,
    /// Of its cgroup, as it is written down.
    #[serde(default)]
    size: String,
    #[serde(default)]
    class: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PlanIn {
    #[serde(default = "web")]
    name: String,
    #[serde(default = "h1")]
    hash: String,
    #[serde(default)]
    frame: String,
    /// What the pod as a whole says of it.
    #[serde(default)]
    context: String,
    #[serde(default)]
    size: String,
    /// `cpu`, `memory`: whose change restarts it.
    #[serde(default)]
    restarts_for: Vec<String>,
    #[serde(default)]
    sidecar: bool,
    #[serde(default)]
    restart_policy: Option<RestartPolicy>,
    /// Exit codes that restart it whatever the policy.
    #[serde(default)]
    restart_on: Vec<i32>,
    /// Exit codes that start all containers anew.
    #[serde(default)]
    restart_all_on: Vec<i32>,
    #[serde(default)]
    post_start: bool,
    /// `startup`, `liveness`, `readiness`.
    #[serde(default)]
    probes: Vec<String>,
    /// Of its startup and liveness probes, seconds.
    #[serde(default)]
    probe_grace: Option<u64>,
}

impl PlanIn {
    fn planned(&self, role: Role) -> ContainerPlan {
        let has = |kind: &str| self.probes.iter().any(|p| p == kind);
        let grace = self.probe_grace.map(Duration::from_secs);
        let all = (true, &self.restart_all_on);
        let rules = [(false, &self.restart_on), all].into_iter().filter(|(_, codes)| !codes.is_empty());
        let rule = |(all, codes): (bool, &Vec<i32>)| RestartRule { within: true, codes: codes.clone(), all };
        ContainerPlan {
            name: self.name.clone(),
            image: format!("{}:1", self.name),
            hash: self.hash.clone(),
            frame: self.frame.clone(),
            context: self.context.clone(),
            size: size(&self.size),
            restarts_for_cpu: self.restarts_for.iter().any(|r| r == "cpu"),
            restarts_for_memory: self.restarts_for.iter().any(|r| r == "memory"),
            role: if self.sidecar { Role::Sidecar } else { role },
            restart_policy: self.restart_policy,
            restart_rules: rules.map(rule).collect(),
            post_start: self.post_start,
            probes: Probes {
                startup: has("startup"),
                liveness: has("liveness"),
                readiness: has("readiness"),
                startup_grace: grace,
                liveness_grace: grace,
            },
        }
    }
}

fn size(text: &str) -> Size {
    if text.is_empty() { Size::default() } else { text.parse().expect("a size") }
}

fn thirty() -> u64 {
    30
}

fn one_container() -> BTreeMap<String, String> {
    BTreeMap::from([(web(), h1())])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SandboxIn {
    id: String,
    #[serde(default = "u1")]
    uid: String,
    #[serde(default = "web")]
    pod: String,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    dead: bool,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    no_address: bool,
    /// What the pod took when the sandbox was made.
    #[serde(default)]
    claim: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ContainerIn {
    id: String,
    #[serde(default = "s0")]
    sandbox: String,
    #[serde(default = "u1")]
    uid: String,
    #[serde(default = "web")]
    pod: String,
    #[serde(default = "web")]
    name: String,
    #[serde(default)]
    attempt: u32,
    #[serde(default = "h1")]
    hash: String,
    /// Empty in instances of versions that wrote none.
    #[serde(default)]
    frame: String,
    #[serde(default)]
    size: String,
    /// The pause after it, seconds.
    #[serde(default)]
    backoff: u64,
    #[serde(default = "thirty")]
    grace: u64,
    #[serde(default)]
    created: i64,
    /// Its place among the init containers, of a sidecar.
    #[serde(default)]
    sidecar: Option<usize>,
    #[serde(default)]
    round: Option<u32>,
    #[serde(default)]
    pre_stop: bool,
    /// `created`, `running`, `unknown`, or `exited <code> at <second>`.
    state: String,
}

fn s0() -> String {
    "s0".to_owned()
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct KnownIn {
    prepared: Vec<String>,
    /// `uid/container/attempt` and the image's id.
    resolved: BTreeMap<String, String>,
    released: Vec<String>,
    stopped: Vec<String>,
    pre_stopped: Vec<String>,
    ending: BTreeMap<String, i64>,
    leaving: Vec<String>,
    preempted: Vec<String>,
    /// Pods with a place, and what they take.
    placed: BTreeMap<String, String>,
    failures: Vec<FailureIn>,
    runtime_problem: Option<String>,
    network_problem: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FailureIn {
    /// As the plan words it: `get the image`.
    verb: String,
    #[serde(default)]
    target: String,
    count: u32,
    at: i64,
    /// `soon`, `backoff`, `never`.
    retry: String,
}

impl Case {
    /// What the decision says.
    pub fn decide(&self) -> Plan {
        podstead::plan::plan(&self.desired(), &self.observed(), &self.known(), at(self.now))
    }

    pub fn desired(&self) -> Desired {
        let pods = self.pods.iter().map(|pod| (PodUid(pod.uid.clone()), pod.planned())).collect();
        Desired { pods, complete: !self.sources_unread, room: self.room.clone().map(Room) }
    }

    pub fn observed(&self) -> Observed {
        let leftovers = self.leftovers.iter().map(|(uid, name)| (uid.as_str().into(), identity(uid, name)));
        let floors = self.floors.iter().map(|(key, floor)| {
            let (uid, name) = key.split_once('/').expect("uid/container");
            ((uid.into(), name.to_owned()), *floor)
        });
        Observed {
            snapshot: Snapshot {
                sandboxes: self.sandboxes.iter().map(SandboxIn::seen).collect(),
                containers: self.containers.iter().map(ContainerIn::seen).collect(),
            },
            leftovers: leftovers.collect(),
            attempt_floor: floors.collect(),
            since: self.since.iter().map(|(uid, second)| (uid.as_str().into(), at(*second))).collect(),
            hooked: self.hooked.iter().map(|id| id.as_str().into()).collect(),
            messages: BTreeMap::new(),
            sizes: self.sizes(),
            classes: self.classes.iter().map(|(uid, class)| (uid.as_str().into(), class.clone())).collect(),
            probed: self.probed.iter().map(|(id, said)| (id.as_str().into(), probed(said))).collect(),
        }
    }

    fn sizes(&self) -> BTreeMap<PodUid, Sizes> {
        let mut sizes = Sizes::default();
        for (owner, all) in &self.sizes {
            let all = all.iter().map(|text| size(text)).collect();
            match owner.as_str() {
                "pod" => sizes.pod = all,
                id => drop(sizes.containers.insert(id.into(), all)),
            }
        }
        if self.sizes.is_empty() { BTreeMap::new() } else { BTreeMap::from([("u1".into(), sizes)]) }
    }

    pub fn known(&self) -> Known {
        let known = &self.known;
        let resolved = known.resolved.iter().map(|(key, id)| {
            let parts: Vec<&str> = key.split('/').collect();
            let [uid, name, attempt] = parts[..] else { panic!("{key} is not uid/container/attempt") };
            ((uid.into(), name.to_owned(), attempt.parse().expect("an attempt")), id.clone())
        });
        let failures = known.failures.iter().map(FailureIn::known);
        Known {
            prepared: known.prepared.iter().map(|uid| uid.as_str().into()).collect(),
            resolved: resolved.collect(),
            released: known.released.iter().map(|id| id.as_str().into()).collect(),
            stopped: known.stopped.iter().map(|id| id.as_str().into()).collect(),
            pre_stopped: known.pre_stopped.iter().map(|id| id.as_str().into()).collect(),
            ending: known.ending.iter().map(|(uid, second)| (uid.as_str().into(), at(*second))).collect(),
            leaving: known.leaving.iter().map(|uid| uid.as_str().into()).collect(),
            preempted: known.preempted.iter().map(|uid| uid.as_str().into()).collect(),
            placed: known.placed.iter().map(|(uid, text)| (uid.as_str().into(), claim(text))).collect(),
            refused: BTreeMap::new(),
            failures: failures.collect(),
            runtime_problem: known.runtime_problem.clone(),
            network_problem: known.network_problem.clone(),
        }
    }
}

/// Zero is "never" in the contract, so seconds begin a day later.
fn at(seconds: i64) -> Time {
    Time::from_secs(86_400 + seconds)
}

fn probed(said: &str) -> Probed {
    match said {
        "starting" => Probed { started: false, alive: true, ready: false },
        "started" => Probed { started: true, alive: true, ready: false },
        "ready" => Probed { started: true, alive: true, ready: true },
        "failed" => Probed { started: true, alive: false, ready: false },
        other => panic!("{other:?} is not starting, started, ready or failed"),
    }
}

fn claim(text: &str) -> Claim {
    text.parse().unwrap_or_else(|()| panic!("{text:?} is no claim"))
}

fn identity(uid: &str, name: &str) -> PodIdentity {
    if name.is_empty() {
        return PodIdentity { uid: uid.into(), ..PodIdentity::default() };
    }
    PodIdentity { name: format!("{name}-node"), namespace: "default".into(), uid: uid.into() }
}

impl PodIn {
    fn planned(&self) -> Pod {
        let container = |(name, hash): (&String, &String)| ContainerPlan {
            name: name.clone(),
            image: format!("{name}:1"),
            hash: hash.clone(),
            ..ContainerPlan::default()
        };
        let more = self.regular.iter().map(|c| c.planned(Role::Regular));
        Pod {
            identity: identity(&self.uid, &self.name),
            host_network: self.host_network,
            restart_policy: self.restart_policy,
            grace: Duration::from_secs(self.grace),
            size: size(&self.size),
            class: self.class.clone(),
            deadline: self.deadline.map(Duration::from_secs),
            claim: claim(&self.claim),
            rank: Rank { critical: self.critical, qos: self.qos, arrived: at(self.arrived) },
            refused: self.refused.clone().map(|reason| Refusal { reason, message: "as it says".into() }),
            init: self.init.iter().map(|c| c.planned(Role::Init)).collect(),
            containers: if self.regular.is_empty() {
                self.containers.iter().map(container).collect()
            } else {
                more.collect()
            },
        }
    }
}

impl SandboxIn {
    fn seen(&self) -> Sandbox {
        let ips = if self.no_address { vec![] } else { vec![[10, 0, 0, 1].into()] };
        Sandbox {
            id: self.id.as_str().into(),
            pod: identity(&self.uid, &self.pod),
            attempt: self.attempt,
            state: if self.dead { SandboxState::NotReady } else { SandboxState::Ready },
            created_at: at(self.created),
            host_network: self.host_network,
            ips: (!self.host_network).then_some(ips),
            annotations: BTreeMap::from([(CLAIM.to_owned(), self.claim.clone())]),
            ..Sandbox::default()
        }
    }
}

impl ContainerIn {
    fn seen(&self) -> Container {
        let pod = identity(&self.uid, &self.pod);
        let started_at = at(self.created);
        let words: Vec<&str> = self.state.split(' ').collect();
        let state = match words[..] {
            ["created"] => ContainerState::Created,
            ["running"] => ContainerState::Running { started_at },
            ["unknown"] => ContainerState::Unknown,
            ["exited", code, "at", second] => ContainerState::Exited {
                code: code.parse().expect("a code"),
                started_at,
                finished_at: at(second.parse().expect("a second")),
                reason: "Error".into(),
                message: String::new(),
            },
            _ => panic!("{:?} is no state", self.state),
        };
        let mut annotations = BTreeMap::from([
            (labels::CONTAINER_HASH.to_owned(), self.hash.clone()),
            (labels::TERMINATION_GRACE.to_owned(), self.grace.to_string()),
            (BACKOFF.to_owned(), self.backoff.to_string()),
        ]);
        if !self.frame.is_empty() {
            annotations.insert(FRAME.to_owned(), self.frame.clone());
            annotations.insert(SIZE.to_owned(), size(&self.size).to_string());
        }
        if self.pre_stop {
            annotations.insert(labels::PRE_STOP.to_owned(), "{}".to_owned());
        }
        if let Some(round) = self.round {
            annotations.insert("podstead.dev/round".to_owned(), round.to_string());
        }
        if let Some(index) = self.sidecar {
            annotations.insert("podstead.dev/sidecar".to_owned(), index.to_string());
        }
        Container {
            id: self.id.as_str().into(),
            sandbox: self.sandbox.as_str().into(),
            name: self.name.clone(),
            attempt: self.attempt,
            image: format!("{}:1", self.name),
            state,
            created_at: started_at,
            labels: BTreeMap::from([
                (labels::POD_NAME.to_owned(), pod.name),
                (labels::POD_NAMESPACE.to_owned(), pod.namespace),
                (labels::POD_UID.to_owned(), pod.uid.0),
            ]),
            annotations,
            ..Container::default()
        }
    }
}

impl FailureIn {
    fn known(&self) -> (FailureKey, Failure) {
        const ALL: [Verb; 14] = [
            Verb::Prepare,
            Verb::EnsureImage,
            Verb::RunSandbox,
            Verb::Create,
            Verb::Start,
            Verb::PostStart,
            Verb::PreStop,
            Verb::Stop,
            Verb::Remove,
            Verb::StopSandbox,
            Verb::RemoveSandbox,
            Verb::Clean,
            Verb::Update,
            Verb::ResizePod,
        ];
        let verb = ALL.into_iter().find(|v| v.to_string() == self.verb).expect("a verb as the plan words it");
        let retry = match self.retry.as_str() {
            "soon" => Retry::Soon,
            "backoff" => Retry::Backoff,
            "never" => Retry::Never,
            other => panic!("{other:?} is not soon, backoff or never"),
        };
        let key = FailureKey { uid: "u1".into(), verb, target: self.target.clone() };
        let failure = Failure {
            count: self.count,
            at: at(self.at),
            retry,
            message: "it broke".into(),
            reason: String::new(),
        };
        (key, failure)
    }
}

/// The plan for people: per pod what is done and why, what waits and until when.
pub fn print(plan: &Plan) -> String {
    let mut text = String::new();
    let second = |time: Time| time.since(at(0)).as_secs_f64();
    let uids: std::collections::BTreeSet<_> = plan.steps.keys().chain(plan.waits.keys()).collect();
    for uid in uids {
        let leaving = if plan.leaving.contains(uid) { " (leaving)" } else { "" };
        writeln!(text, "pod {uid}{leaving}").unwrap();
        for step in plan.steps.get(uid).into_iter().flatten() {
            writeln!(text, "  do   {step}").unwrap();
            if let Action::CreateContainer { image_id, annotations, .. } = &step.action {
                writeln!(text, "       image {image_id}").unwrap();
                for (key, value) in annotations {
                    writeln!(text, "       {key}: {value}").unwrap();
                }
            }
        }
        for wait in plan.waits.get(uid).into_iter().flatten() {
            let until = wait.until.map_or("something else".to_owned(), |t| format!("{}", second(t)));
            writeln!(text, "  wait {wait}; until {until}").unwrap();
        }
    }
    match plan.wake_at {
        Some(time) => writeln!(text, "wake at {}", second(time)).unwrap(),
        None => text.push_str("no wake-up\n"),
    }
    text
}
