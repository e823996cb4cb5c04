//! What storms bring about too seldom, brought about on purpose: rounds one after the other, and agents that die while they
//! resize.

use podstead_runtime::{Container, PodUid};

use crate::driver::{OURS, Sim, Weather};
use crate::laws::{Broken, Who};
use crate::storm::{add_version, calm, everything_wanted_runs};

/// All of them, on a node with nothing on it.
pub fn all(sim: &mut Sim) -> Result<(), Broken> {
    sim.manifests.clear();
    calm(sim)?;
    rounds(sim)?;
    resizes(sim)
}

/// Containers whose rule has all started anew end, again and again: while others run, and within their back-off.
fn rounds(sim: &mut Sim) -> Result<(), Broken> {
    add_version(sim, 1, 2);
    add_version(sim, 2, 3);
    calm(sim)?;
    for n in 0..4 {
        let asks = |sim: &Sim, c: &Container| {
            let plan =
                sim.manifests.get(&c.pod_uid()).and_then(|pod| pod.all().find(|plan| plan.name == c.name));
            c.is_running() && plan.is_some_and(|plan| plan.restart_rules.iter().any(|rule| rule.all))
        };
        let all = sim.world.snapshot(OURS).containers;
        let asking: Vec<&Container> = all.iter().filter(|c| asks(sim, c)).collect();
        for container in asking {
            sim.note(|| format!("{} asks for all", container.name));
            sim.world.exit(&container.id, 1);
        }
        sim.laws.check(&mut sim.world, &sim.host, &sim.desired, Who::Outside)?;
        // What is asked for arrives in any order: not all that runs is stopped at once.
        for _ in 0..20 {
            sim.begin_reading();
            sim.take_reading();
            sim.decide()?;
            if sim.in_flight() > 0 {
                let index = sim.rng.index(sim.in_flight());
                sim.land(index, Weather { fail: 0, lose: 0 })?;
            }
        }
        if n % 2 == 1 {
            sim.restart_agent();
        }
        calm(sim)?;
        everything_wanted_runs(sim)?;
    }
    sim.manifests.clear();
    calm(sim)
}

/// Sizes change under a fixed uid, and the agent dies with each change at some point of it.
fn resizes(sim: &mut Sim) -> Result<(), Broken> {
    for _ in 0..8 {
        sim.manifests.remove(&PodUid::from("p1-v0"));
        add_version(sim, 1, 0);
        sim.read_manifests();
        for _ in 0..3 {
            sim.begin_reading();
            sim.take_reading();
            sim.decide()?;
            sim.restart_agent();
            sim.read_manifests();
        }
        calm(sim)?;
        everything_wanted_runs(sim)?;
    }
    Ok(())
}
