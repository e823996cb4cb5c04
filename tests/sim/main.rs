//! Seeded storms over the planner: manifests replaced and deleted, verbs failing, replies lost, containers and sandboxes
//! dying, the agent dying at any step, readings that are old when they are used. The laws of `laws.rs` hold after every
//! step. `PODSTEAD_SIM_SEEDS=<count>` or `<from>..<to>` chooses the seeds.

mod driver;
mod laws;
mod order;
mod rng;
mod rounds;
mod satisfied;
mod storm;

#[cfg(feature = "mutants")]
mod mutants;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let Ok(given) = std::env::var("PODSTEAD_SIM_SEEDS") else { return 0..default };
    let number = |s: &str| s.parse().expect("PODSTEAD_SIM_SEEDS is a count or from..to");
    match given.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&given),
    }
}

#[test]
fn the_laws_hold_in_every_storm() {
    let mut seen = laws::Counts::default();
    for seed in seeds(300) {
        match storm::run(seed) {
            Ok(counts) => {
                seen.sandboxes += counts.sandboxes;
                seen.containers += counts.containers;
                seen.restarts += counts.restarts;
                seen.stops += counts.stops;
                seen.forced += counts.forced;
            }
            Err(broken) => panic!("{broken}"),
        }
    }
    println!("{seen:?}");
    assert!(seen.restarts > 0 && seen.stops > 0 && seen.sandboxes > 0, "the storm does not blow: {seen:?}");
}
