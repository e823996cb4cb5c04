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
        let took = bare.start()?;
        let mut floors = Vec::new();
        for host_network in [true, false] {
            floors.push(floor::cri(&raw, &format!("raw{round}"), host_network).await?);
        }
        for way in &mut on_direct {
            way.round(&direct).await?;
        }
        for way in &mut on_cri {
            way.round(&cri).await?;
        }
        // The first round fills caches: it is not counted.
        if round == 0 {
            for way in on_direct.iter_mut().chain(&mut on_cri) {
                *way = Way::new(way.name, way.host_network, way.start.name, way.restart.name);
            }
            continue;
        }
        whole.add(took.whole);
        library.add(took.library);
        for (sample, took) in calls.iter_mut().zip(floors) {
            sample.add(took);
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
