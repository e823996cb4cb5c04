//! How often podstead wakes the processor while nothing happens, with ten pods on the direct backend.

use std::fs;
use std::time::Duration;

use podstead::testing::Node;

use crate::host::{self, Bench};
use crate::memory::shims;

const PODS: usize = 10;
const SETTLED: Duration = Duration::from_secs(5);
const WATCHED: u32 = 60;

pub async fn run() -> anyhow::Result<()> {
    let bench = Bench::start(Node::direct().binary(host::binary())).await?;
    for pod in 0..PODS {
        let name = format!("i{pod}");
        bench.apply(&name, &host::manifest(&name, true))?;
        bench.first_line(&name, 0).await?;
    }
    tokio::time::sleep(SETTLED).await;
    let shims = shims(&bench);
    let count = |pids: &[u32]| pids.iter().map(|pid| wakes(*pid)).sum::<u64>();
    let (agent, all) = (count(&[bench.pid()]), count(&shims));
    tokio::time::sleep(Duration::from_secs(WATCHED.into())).await;
    let per_second = |from: u64, to: u64| (to.saturating_sub(from)) as f64 / f64::from(WATCHED);
    println!(
        "idle, {PODS} pods: the agent wakes {:.1} times a second, its {} shims together {:.1} times\n",
        per_second(agent, count(&[bench.pid()])),
        shims.len(),
        per_second(all, count(&shims)),
    );
    Ok(())
}

/// How often the threads of a process gave the processor back of their own will: once per time that they were woken.
fn wakes(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
        line.unwrap_or(0)
    };
    tasks.map(|entry| of_task(entry.path())).sum::<u64>()
}
