//! How fast pods start and come back, and what podstead costs: the numbers of `docs/performance.md`. Everything is
//! measured in one run and in turns, so that whatever else the machine does meets all alike. Root.
//!
//! usage: `cargo bench --bench speed -- [latency|memory|idle]... [--rounds N]`. Without a word: everything.
//! `PODSTEAD_BIN` names another binary than the one that cargo built.

// Milliseconds and MiB for tables: what f64 loses is far behind the comma. The futures live once.
#![allow(clippy::cast_precision_loss, clippy::large_futures)]

mod floor;
mod host;
mod idle;
mod latency;
mod memory;
mod sample;
// The tests use all of it.
#[allow(dead_code, unused_macros, unused_imports)]
#[path = "../../tests/e2e/support.rs"]
mod support;

/// Rounds of the latencies unless told otherwise.
const ROUNDS: usize = 30;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too, without the flag; tests are not timed.
    if !args.iter().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let rounds = args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok());
    let known = ["latency", "memory", "idle"];
    let asked = |what: &str| args.iter().any(|a| a == what) || !args.iter().any(|a| known.contains(&&**a));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        println!("{}", host::machine());
        if asked("latency") {
            latency::run(rounds.unwrap_or(ROUNDS)).await?;
        }
        if asked("memory") {
            memory::run().await?;
        }
        if asked("idle") {
            idle::run().await?;
        }
        Ok(())
    })
}
