//! Memory of the agent and of the containers' shims, direct backend; and a start among many pods.

use std::fs;
use std::time::Duration;

use podstead::testing::Node;

use crate::host::{self, Bench};
use crate::sample::{Sample, table};

/// Until what a start needed is given back.
const SETTLED: Duration = Duration::from_secs(5);
/// Starts among many pods.
const MORE: usize = 10;

pub async fn run() -> anyhow::Result<()> {
    println!(
        "| pods | agent RSS KiB | agent private | shim private, median | max | shim PSS, median |\n|---|---|---|---|---|---|"
    );
    let bench = Bench::start(Node::direct().binary(host::binary())).await?;
    let mut there = 0;
    for pods in [1, 10, 50] {
        while there < pods {
            there += 1;
            let name = format!("m{there}");
            bench.apply(&name, &host::manifest(&name, true))?;
        }
        for pod in 1..=pods {
            bench.first_line(&format!("m{pod}"), 0).await?;
        }
        tokio::time::sleep(SETTLED).await;
        let agent = memory(bench.pid());
        let shims: Vec<Memory> = shims(&bench).into_iter().map(memory).collect();
        anyhow::ensure!(shims.len() == pods, "{} shims for {pods} pods", shims.len());
        let sorted = |of: fn(&Memory) -> u64| {
            let mut all: Vec<u64> = shims.iter().map(of).collect();
            all.sort_unstable();
            all
        };
        let (private, pss) = (sorted(|m| m.private), sorted(|m| m.pss));
        println!(
            "| {pods} | {} | {} | {} | {} | {} |",
            agent.rss,
            agent.private,
            private[pods / 2],
            private[pods - 1],
            pss[pods / 2]
        );
    }
    println!();
    let mut among = Sample::new("direct, host network, among 50 pods: manifest to first line");
    for _ in 0..MORE {
        let before = bench.apply("more", &host::manifest("more", true))?;
        among.add(bench.first_line("more", 0).await?.duration_since(before)?);
        bench.node.remove("more")?;
        host::wait("the end of one pod", || gone_of(&bench, there)).await?;
    }
    println!("{}", table(&[&among]));
    Ok(())
}

/// Whether only so many pods have logs.
fn gone_of(bench: &Bench, pods: usize) -> Option<()> {
    let entries = fs::read_dir(&bench.node.config().pod_logs_dir).ok()?;
    (entries.count() == pods).then_some(())
}

/// In KiB.
struct Memory {
    rss: u64,
    private: u64,
    pss: u64,
}

fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let sum = |names: &[&str]| {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let wanted = fields.filter(|(name, _)| names.contains(name));
        wanted.filter_map(|(_, value)| value.trim().strip_suffix(" kB")?.parse::<u64>().ok()).sum()
    };
    Memory { rss: sum(&["Rss"]), private: sum(&["Private_Clean", "Private_Dirty"]), pss: sum(&["Pss"]) }
}

/// The shims of a node's containers.
pub fn shims(bench: &Bench) -> Vec<u32> {
    let state = bench.node.config().state_dir.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let args = String::from_utf8_lossy(&args);
        let mut args = args.split('\0');
        args.next() == Some("podstead-shim")
            && args.next() == Some("container-shim")
            && args.any(|a| a.starts_with(&state))
    })
    .collect()
}
