//! From a manifest's rename, and from a crash, to the first output; and the floors under both.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use podstead::testing::Node;

use crate::floor::{self, Bare};
use crate::host::{self, Bench};
use crate::sample::{Sample, table};
use crate::support::Host;

/// A pod has been up for this long when it crashes.
const SETTLED: Duration = Duration::from_millis(300);

/// Things measured in each round, three floors and four ways: a prime number, so that every stride meets all.
const TURNS: usize = 7;

/// One way of running a pod, and what it took.
struct Way {
    name: &'static str,
    host_network: bool,
    start: Sample,
    restart: Sample,
}

impl Way {
    fn new(name: &'static str, host_network: bool, start: &'static str, restart: &'static str) -> Self {
        Self { name, host_network, start: Sample::new(start), restart: Sample::new(restart) }
    }

    /// Starts a pod, lets it crash, takes it away.
    async fn round(&mut self, bench: &Bench) -> anyhow::Result<()> {
        let name = self.name;
        let before = bench.apply(name, &host::manifest(name, self.host_network))?;
        self.start.add(bench.first_line(name, 0).await?.duration_since(before)?);
        tokio::time::sleep(SETTLED).await;
        let pid = host::first_process(name).context("the container's first process")?;
        let before = SystemTime::now();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        self.restart.add(bench.first_line(name, 1).await?.duration_since(before)?);
        bench.remove(name).await
    }
}

pub async fn run(rounds: usize) -> anyhow::Result<()> {
    let containerd = Host::containerd();
    let raw = containerd.builder().prepare().await?;
    let cri = Bench::start(containerd.builder()).await?;
    let flags = raw.runtime_flags();
    // Both backends get the same network: the configuration lies beside containerd's socket.
    let socket = flags.iter().find_map(|f| f.strip_prefix("unix://")).context("containerd's socket")?;
    let net_d = std::path::Path::new(socket).with_file_name("cni").join("net.d");
    let network = || Node::direct().binary(host::binary()).cni_conf_dir(&net_d);
    let (direct, model) = (Bench::start(network()).await?, Bench::start(network()).await?);
    model.apply("model", &host::manifest("model", true))?;
    model.first_line("model", 0).await?;
    let mut bare = Bare::like(&model, "model").await?;

    let (mut whole, mut library) =
        (Sample::new("floor: process and libcontainer"), Sample::new("libcontainer alone"));
    let mut calls = [Sample::new("floor: CRI calls, host network"), Sample::new("floor: CRI calls, CNI")];
    let mut on_direct = [
        Way::new(
            "dh",
            true,
            "direct, host network: manifest to first line",
            "direct, host network: crash to first line",
        ),
        Way::new("dn", false, "direct, CNI: manifest to first line", "direct, CNI: crash to first line"),
    ];
    let mut on_cri = [
        Way::new(
            "ch",
            true,
            "containerd, host network: manifest to first line",
            "containerd, host network: crash to first line",
        ),
        Way::new(
            "cn",
            false,
            "containerd, CNI: manifest to first line",
            "containerd, CNI: crash to first line",
        ),
    ];
    for round in 0..=rounds {
        for turn in 0..TURNS {
            // Every thing comes after every other one in some rounds: what one leaves to do meets all alike.
            match (turn * (1 + round % (TURNS - 1)) + round) % TURNS {
                0 => {
                    let took = bare.start()?;
                    whole.add(took.whole);
                    library.add(took.library);
                }
                n @ (1 | 2) => calls[n - 1].add(floor::cri(&raw, &format!("raw{round}"), n == 1).await?),
                n @ (3 | 4) => on_direct[n - 3].round(&direct).await?,
                n => on_cri[n - 5].round(&cri).await?,
            }
        }
        // The first round fills caches: it is not counted.
        if round == 0 {
            let ways =
                on_direct.iter_mut().chain(&mut on_cri).flat_map(|way| [&mut way.start, &mut way.restart]);
            ways.chain(&mut calls).chain([&mut whole, &mut library]).for_each(Sample::forget);
        }
    }
    let mut all = vec![&library, &whole];
    all.extend(on_direct.iter().flat_map(|way| [&way.start, &way.restart]));
    all.extend(&calls);
    all.extend(on_cri.iter().flat_map(|way| [&way.start, &way.restart]));
    println!("{}", table(&all));
    println!("direct / floor, host network: {:.1}", on_direct[0].start.p50() / whole.p50());
    for (way, calls) in on_cri.iter().zip(&calls) {
        println!("{}: {:+.1} ms over the CRI calls", way.start.name, way.start.p50() - calls.p50());
    }
    Ok(())
}
