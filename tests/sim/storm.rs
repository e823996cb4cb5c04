//! What happens to the agent: manifests, crashes, faults, deaths, time. And the calm after it.

use std::time::Duration;

use podstead::plan::{ContainerPlan, Desired, Pod, Probed, Probes, RestartPolicy, RestartRule, Role};
use podstead_runtime::{ContainerState, PodIdentity, PodUid, SandboxState};

use crate::driver::{OURS, Sim, Weather};
use crate::laws::{Broken, Counts, Who};
use crate::order::PROBE_GRACE;
use crate::satisfied::satisfied;

const ROUNDS: u32 = 400;

/// One whole life; what happened, or the broken law with the last pages of the diary.
pub fn run(seed: u64) -> Result<Counts, String> {
    let mut sim = Sim::new(seed);
    let foreign = sim.world.snapshot("kubelet");
    live(&mut sim, &foreign).map_err(|broken| {
        let from = sim.diary.len().saturating_sub(60);
        format!("seed {seed}: {broken}\n{}", sim.diary[from..].join("\n"))
    })?;
    Ok(sim.laws.seen)
}

fn live(sim: &mut Sim, foreign: &podstead_runtime::Snapshot) -> Result<(), Broken> {
    for part in 0..3 {
        for _ in 0..ROUNDS {
            round(sim)?;
        }
        calm(sim)?;
        everything_wanted_runs(sim)?;
        if part == 1 {
            crash_loop(sim)?;
        }
    }
    sim.manifests.clear();
    calm(sim)?;
    let left = sim.world.snapshot(OURS);
    if !left.sandboxes.is_empty() || !left.containers.is_empty() || !sim.host.dirs.is_empty() {
        return Err(format!("left behind: {left:?}, {:?}", sim.host.dirs));
    }
    if sim.world.snapshot("kubelet") != *foreign {
        return Err("somebody else's pod was touched".to_owned());
    }
    Ok(())
}

/// One thing happens.
fn round(sim: &mut Sim) -> Result<(), Broken> {
    let weather = Weather { fail: 8, lose: 6 };
    match sim.rng.below(100) {
        0..20 => sim.begin_reading(),
        20..42 => sim.take_reading(),
        42..64 => {
            sim.decide()?;
        }
        64..84 if sim.in_flight() > 0 => {
            let index = sim.rng.index(sim.in_flight());
            sim.land(index, weather)?;
        }
        84..87 => happen_outside(sim)?,
        87 => probe(sim),
        88..91 => manifests(sim),
        91 if sim.rng.chance(50) => sim.restart_agent(),
        92 => {
            sim.network_down = sim.rng.chance(20);
            sim.runtime_down = sim.rng.chance(10);
        }
        93 => sim.read_manifests(),
        94..99 => {
            let seconds = sim.rng.below(15);
            sim.advance(Duration::from_millis(seconds * 700));
        }
        99 if sim.rng.chance(20) => sim.advance(Duration::from_secs(700)),
        _ => sim.advance(Duration::from_millis(50)),
    }
    Ok(())
}

/// Crashes, ends, losses: what nobody asked for.
fn happen_outside(sim: &mut Sim) -> Result<(), Broken> {
    let seen = sim.world.snapshot(OURS);
    let container = sim.rng.pick(&seen.containers);
    let sandbox = sim.rng.pick(&seen.sandboxes);
    let what = sim.rng.below(20);
    match (what, container, sandbox) {
        (0..10, Some(c), _) => {
            let code = i32::from(sim.rng.chance(60));
            sim.note(|| format!("{} exits with {code}", c.id));
            sim.world.exit(&c.id, code);
        }
        (10..12, Some(c), _) if c.is_running() => {
            let hidden = sim.rng.chance(50);
            sim.note(|| format!("the state of {} is lost, its process goes on: {hidden}", c.id));
            if hidden { sim.world.hide_state(&c.id) } else { sim.world.forget_state(&c.id) }
        }
        (12..15, _, Some(s)) => {
            sim.note(|| format!("{} dies", s.id));
            sim.world.kill_sandbox(&s.id);
        }
        (15, _, Some(s)) if s.state == SandboxState::Ready => {
            sim.note(|| format!("{} loses its address", s.id));
            sim.world.lose_address(&s.id);
        }
        (16, _, Some(s)) if s.state == SandboxState::NotReady => {
            sim.note(|| format!("{} is ready again", s.id));
            sim.world.revive_sandbox(&s.id);
            // From here on several may be ready, and it is nobody's fault.
            sim.laws.revived(&s.id);
        }
        (17, Some(c), _) if matches!(c.state, ContainerState::Exited { .. }) => {
            sim.note(|| format!("{} is removed by hand", c.id));
            sim.world.remove_container(OURS, &c.id).map_err(|e| e.to_string())?;
        }
        (18, _, _) => {
            sim.note(|| "the machine restarts".to_owned());
            for sandbox in &seen.sandboxes {
                sim.world.kill_sandbox(&sandbox.id);
            }
            sim.restart_agent();
        }
        (19, _, _) => {
            let image = podstead_runtime::ImageSpec::from("img");
            sim.world.remove_image(&image);
        }
        _ => {}
    }
    sim.laws.check(&mut sim.world, &sim.host, &sim.desired, Who::Outside)
}

/// A probe says something new of something that runs.
fn probe(sim: &mut Sim) {
    let all = sim.world.snapshot(OURS).containers;
    let runs: Vec<_> = all.into_iter().filter(podstead_runtime::Container::is_running).collect();
    let Some(container) = sim.rng.pick(&runs) else { return };
    let before = sim.host.probed.get(&container.id).copied();
    if !has_probes(sim, &container) || before.is_some_and(|p| !p.alive) {
        return;
    }
    let started = before.is_some_and(|p| p.started) || sim.rng.chance(70);
    let said = Probed { started, alive: sim.rng.chance(85), ready: started && sim.rng.chance(70) };
    sim.note(|| format!("probes of {} {}: {said:?}", container.name, container.id));
    sim.host.probed.insert(container.id, said);
}

fn has_probes(sim: &Sim, container: &podstead_runtime::Container) -> bool {
    let pod = sim.manifests.get(&container.pod_uid());
    let plan = pod.and_then(|pod| pod.all().find(|c| c.name == container.name));
    plan.is_some_and(|c| c.probes.startup || c.probes.liveness || c.probes.readiness)
}

/// What containers do by themselves when nothing is wrong: init containers end well, probes pass.
fn containers_do_their_part(sim: &mut Sim) -> bool {
    let mut any = false;
    for container in sim.world.snapshot(OURS).containers.iter().filter(|c| c.is_running()) {
        let pod = sim.manifests.get(&container.pod_uid());
        let plan = pod.and_then(|pod| pod.all().find(|c| c.name == container.name));
        if plan.is_some_and(|c| c.role == Role::Init) {
            sim.note(|| format!("{} is done", container.name));
            sim.world.exit(&container.id, 0);
            any = true;
        } else if has_probes(sim, container) {
            let pass = Probed { started: true, alive: true, ready: true };
            let said = sim.host.probed.get(&container.id).copied();
            if said.is_none_or(|said| said.alive && said != pass) {
                sim.host.probed.insert(container.id.clone(), pass);
                any = true;
            }
        }
    }
    any
}

/// Manifests appear, change, go, and come back.
fn manifests(sim: &mut Sim) {
    let name = sim.rng.below(3);
    let full = format!("p{name}-node");
    let there: Vec<PodUid> =
        sim.manifests.values().filter(|p| p.identity.name == full).map(|p| p.identity.uid.clone()).collect();
    match sim.rng.below(10) {
        0..3 => {
            for uid in there {
                sim.manifests.remove(&uid);
            }
        }
        3 if !there.is_empty() => add(sim, name),
        _ => {
            for uid in there {
                sim.manifests.remove(&uid);
            }
            add(sim, name);
        }
    }
    if sim.rng.chance(80) {
        sim.read_manifests();
    }
}

/// A few versions with uids of their own, so that old ones come back; version 0 keeps its uid and changes inside.
fn add(sim: &mut Sim, name: u64) {
    let rng = &mut sim.rng;
    let version = rng.below(4);
    let uid = PodUid(format!("p{name}-v{version}"));
    let fixed = version == 0;
    let edition = if fixed { rng.below(3) } else { 0 };
    let count = if fixed { 1 + rng.below(2) } else { 1 + version % 3 };
    let mut pod = Pod {
        identity: PodIdentity {
            name: format!("p{name}-node"),
            namespace: "default".into(),
            uid: uid.clone(),
        },
        host_network: if fixed { rng.chance(50) } else { name == 1 },
        restart_policy: match (name + version) % 4 {
            0 | 1 => RestartPolicy::Always,
            2 => RestartPolicy::OnFailure,
            _ => RestartPolicy::Never,
        },
        grace: Duration::from_secs([0, 1, 5, 30][usize::try_from(version).unwrap_or(0)]),
        containers: (0..count).map(|n| container(&format!("c{n}"), edition)).collect(),
        ..Pod::default()
    };
    more(&mut pod, name, version, edition);
    sim.note(|| format!("manifest {uid} edition {edition} with {count} containers"));
    sim.manifests.insert(uid, pod);
}

fn container(name: &str, edition: u64) -> ContainerPlan {
    ContainerPlan {
        name: name.to_owned(),
        image: "img".to_owned(),
        hash: format!("h{edition}"),
        ..ContainerPlan::default()
    }
}

/// Init containers, sidecars, hooks, probes, policies of containers, deadlines. A name that ends with `-hook` has a
/// preStop hook.
fn more(pod: &mut Pod, name: u64, version: u64, edition: u64) {
    let init = |name: &str| ContainerPlan { role: Role::Init, ..container(name, edition) };
    let sidecar = |name: &str| ContainerPlan { role: Role::Sidecar, ..container(name, edition) };
    let probes = Probes {
        startup: true,
        liveness: true,
        readiness: true,
        startup_grace: None,
        liveness_grace: (name == 1).then_some(PROBE_GRACE),
    };
    match version {
        1 => {
            pod.init = vec![init("i0"), sidecar("s0-hook")];
            pod.containers[0].post_start = true;
        }
        2 => {
            let all = RestartRule { within: true, codes: vec![1], all: true };
            let waits = ContainerPlan { probes, post_start: true, restart_rules: vec![all], ..sidecar("s1") };
            pod.init = vec![init("i0"), waits, init("i1"), sidecar("s2-hook")];
            pod.containers[0].probes = probes;
            pod.containers.push(container("c9-hook", edition));
        }
        3 => {
            pod.deadline = (name == 2).then_some(Duration::from_secs(900));
            pod.containers[0].restart_policy = (name == 1).then_some(RestartPolicy::Never);
            pod.containers[0].restart_rules =
                vec![RestartRule { within: true, codes: vec![1], all: name == 2 }];
            pod.containers.push(container("c8-hook", edition));
            pod.containers[0].probes = Probes { startup: false, ..probes };
        }
        _ if edition == 2 => pod.init = vec![sidecar("s0-hook")],
        _ => {}
    }
}

/// No more faults: goes on until there is nothing to do and nothing to wait for.
fn calm(sim: &mut Sim) -> Result<(), Broken> {
    (sim.network_down, sim.runtime_down) = (false, false);
    sim.note(|| "calm".to_owned());
    while sim.in_flight() > 0 {
        sim.land(0, Weather { fail: 0, lose: 0 })?;
    }
    sim.desired = Desired { pods: sim.manifests.clone(), complete: true };
    for _ in 0..400 {
        sim.begin_reading();
        sim.take_reading();
        let plan = sim.decide()?.ok_or("no reading")?;
        if sim.in_flight() == 0 && containers_do_their_part(sim) {
            sim.laws.check(&mut sim.world, &sim.host, &sim.desired, Who::Outside)?;
            continue;
        }
        if plan.is_quiet() {
            return Ok(());
        }
        if sim.in_flight() > 0 {
            while sim.in_flight() > 0 {
                sim.land(0, Weather { fail: 0, lose: 0 })?;
                sim.advance(Duration::from_millis(10));
            }
        } else {
            let wake = plan.wake_at.ok_or_else(|| format!("steps that nobody may take: {:?}", plan.steps))?;
            if wake <= sim.world.now {
                return Err("a wake-up in the past".to_owned());
            }
            sim.world.now = wake;
        }
    }
    Err("never quiet".to_owned())
}

/// Of the pods that ask for one name, one has it.
fn everything_wanted_runs(sim: &Sim) -> Result<(), Broken> {
    let names: std::collections::BTreeSet<_> = sim.manifests.values().map(|p| &p.identity.name).collect();
    for name in names {
        let mut why = String::new();
        let mut asking = sim.manifests.values().filter(|p| p.identity.name == *name);
        let fits = asking.any(|pod| satisfied(&sim.world, &sim.host, pod).map_err(|w| why = w).is_ok());
        if !fits {
            return Err(format!("not as wanted: {why}"));
        }
    }
    let wanted = |uid: &PodUid| sim.manifests.contains_key(uid);
    match sim.world.snapshot(OURS).sandboxes.iter().find(|s| !wanted(&s.pod.uid)) {
        Some(left) => Err(format!("left behind: {}", left.id)),
        None => Ok(()),
    }
}

/// Whatever runs crashes at once, again and again, with the agent dying in between: the back-off grows, ends at its
/// longest, begins anew after a long life, and everything runs after it.
fn crash_loop(sim: &mut Sim) -> Result<(), Broken> {
    for n in 0..8 {
        if n == 6 {
            sim.advance(Duration::from_secs(700));
        }
        for container in sim.world.snapshot(OURS).containers.iter().filter(|c| c.is_running()) {
            sim.world.exit(&container.id, 0);
        }
        sim.laws.check(&mut sim.world, &sim.host, &sim.desired, Who::Outside)?;
        if n % 3 == 1 {
            sim.restart_agent();
        }
        calm(sim)?;
    }
    everything_wanted_runs(sim)
}
