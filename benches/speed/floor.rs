//! What a start costs without podstead: libcontainer alone, and the CRI's calls alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use podstead::manifest;
use podstead::pod::{NodeFacts, container, files, identity, sandbox};
use podstead::testing::Node;
use podstead_runtime::{ImageSpec, Runtime as _};
use serde_json::Value;

use crate::host::{self, Bench};

/// libcontainer with the image and the configuration of a pod that runs all the while.
pub struct Bare {
    program: PathBuf,
    dir: tempfile::TempDir,
    config: Value,
    layers: String,
    count: u32,
}

/// What one start took.
pub struct Took {
    /// From the start of the process that calls libcontainer to the container's first byte.
    pub whole: Duration,
    /// The same from libcontainer's first call.
    pub library: Duration,
}

impl Bare {
    /// After the model of a pod of this node.
    pub async fn like(bench: &Bench, pod: &str) -> anyhow::Result<Self> {
        let id = bench.node.pod(pod).container("c").await?.id;
        let run = bench.node.config().state_dir.join("direct/containers").join(id.as_str());
        let read = |name: &str| -> anyhow::Result<Value> {
            let text = fs::read(run.join(name)).with_context(|| format!("read the model's {name}"))?;
            Ok(serde_json::from_slice(&text)?)
        };
        let (config, orders) = (read("config.json")?, read("shim.json")?);
        let layers = orders["lower"].as_array().context("layers")?.iter().filter_map(Value::as_str);
        let layers = layers.collect::<Vec<_>>().join(
            "
",
        );
        Ok(Self { program: program()?, dir: tempfile::tempdir()?, config, layers, count: 0 })
    }

    pub fn start(&mut self) -> anyhow::Result<Took> {
        self.count += 1;
        let id = format!("bare-{}-{}", std::process::id(), self.count);
        let dir = self.dir.path().join(&id);
        for sub in ["rootfs", "upper", "work", "oci"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let mut config = self.config.clone();
        config["root"]["path"] = dir.join("rootfs").display().to_string().into();
        let cgroup = Path::new(config["linux"]["cgroupsPath"].as_str().context("a cgroup")?);
        config["linux"]["cgroupsPath"] = cgroup.with_file_name(&id).display().to_string().into();
        fs::write(dir.join("config.json"), config.to_string())?;
        fs::write(dir.join("layers"), &self.layers)?;
        let before = SystemTime::now();
        let output = Command::new(&self.program).arg(&dir).arg(&id).output()?;
        ensure!(output.status.success(), "bare-container: {output:?}");
        let text = String::from_utf8(output.stdout)?;
        let mut nanos = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next =
            || -> anyhow::Result<Duration> { Ok(Duration::from_nanos(nanos.next().context("a time")??)) };
        let (at, library) = (next()?, next()?);
        fs::remove_dir_all(&dir)?;
        Ok(Took { whole: (SystemTime::UNIX_EPOCH + at).duration_since(before)?, library })
    }
}

/// Builds the small program beside the measured binary.
fn program() -> anyhow::Result<PathBuf> {
    let target = host::target()?;
    let program = target.join("examples/bare-container");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--release", "--package", "podstead-youki"]);
    cargo
        .args(["--example", "bare-container", "--target-dir"])
        .arg(target.parent().context("a build directory")?);
    ensure!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success(), "cargo build bare-container");
    ensure!(program.is_file(), "{} is missing: measure a release build", program.display());
    Ok(program)
}

/// RunPodSandbox, CreateContainer and StartContainer as the agent would call them, and nothing else.
pub async fn cri(node: &Node, name: &str, host_network: bool) -> anyhow::Result<Duration> {
    let text = host::manifest(name, host_network);
    let read = manifest::validate(text.as_bytes(), Path::new("pod.yaml"), "node");
    let pod = read.ok().and_then(|pods| pods.into_iter().next()).context("the manifest is good")?.pod;
    let (config, runtime) = (node.config(), node.runtime());
    let facts = NodeFacts {
        root_dir: config.root_dir.clone(),
        pod_logs_dir: config.pod_logs_dir.clone(),
        cgroup_root: config.cgroup_root.clone(),
        node_name: config.node_name.clone(),
        node_ips: config.node_ips.clone(),
        ..NodeFacts::default()
    };
    let wanted = ImageSpec { image: "localhost/podstead/busybox:1".into(), ..ImageSpec::default() };
    let image_id = runtime.image(&wanted).await?.context("the image is there")?.id;
    files::make_log_dir(&facts, &identity::identity(&pod), "c")?;
    let sandbox_spec = sandbox::sandbox_spec(&facts, &pod, 0);
    let of_pod = &pod.spec.as_ref().context("a spec")?.containers[0];
    let instance = container::Instance { image_id, ..container::Instance::default() };
    let spec = container::container_spec(&facts, &pod, of_pod, &instance)?;

    let before = SystemTime::now();
    let sandbox = runtime.run_sandbox(&sandbox_spec).await?;
    let id = runtime.create_container(&sandbox, &spec, &sandbox_spec).await?;
    runtime.start_container(&id).await?;
    let at = host::first_line(&facts.pod_logs_dir, &format!("default_{name}-node_"), 0).await?;

    runtime.stop_container(&id, Duration::ZERO).await?;
    runtime.stop_sandbox(&sandbox).await?;
    runtime.remove_sandbox(&sandbox).await?;
    fs::remove_dir_all(&facts.pod_logs_dir)?;
    Ok(at.duration_since(before)?)
}
