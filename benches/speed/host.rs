//! The machine, nodes with a real agent each, and how a pod's first output is found.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use podstead::testing::{Builder, Node};

use crate::support::{BINARY, images};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a log.
const LOOK: Duration = Duration::from_millis(2);

/// The podstead binary that is measured.
pub fn binary() -> PathBuf {
    std::env::var_os("PODSTEAD_BIN").map_or_else(|| BINARY.into(), PathBuf::from)
}

/// The build directory's part for this profile.
pub fn target() -> anyhow::Result<PathBuf> {
    let binary = fs::canonicalize(binary()).context("the podstead binary")?;
    Ok(binary.parent().context("a build directory")?.to_owned())
}

/// What the numbers were measured on.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let cgroups = if unified { "v2" } else { "v1" };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let size = fs::metadata(binary()).map_or(0, |m| m.len());
    format!(
        "{cores} cores ({}), Linux {}, cgroup {cgroups}, load {}; podstead is {:.1} MiB\n",
        field("model name"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        size as f64 / f64::from(1 << 20),
    )
}

/// A node with the agent as users run it, in a process of its own.
pub struct Bench {
    pub node: Node,
    agent: Child,
}

impl Bench {
    pub async fn start(builder: Builder) -> anyhow::Result<Self> {
        let node = builder.prepare().await?;
        for name in ["busybox", "nginx"] {
            node.import(images().join(format!("{name}.tar"))).await?;
        }
        let log = File::create(node.dir().join("agent.log"))?;
        let mut command = Command::new(binary());
        command.arg("run").args(node.run_flags()).args(node.runtime_flags());
        if std::env::var_os("PODSTEAD_LOG").is_some() {
            command.arg("-v");
        }
        let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let bench = Self { node, agent };
        // It has read the empty directory when it says so; a pod put there before is another measurement.
        let published = bench.node.config().state_dir.join("agent/pods.json");
        wait("the agent's first reading", || published.exists().then_some(())).await?;
        Ok(bench)
    }

    pub fn pid(&self) -> u32 {
        self.agent.id()
    }

    /// Puts a manifest in place; answers the moment before its rename.
    pub fn apply(&self, name: &str, manifest: &str) -> anyhow::Result<SystemTime> {
        let path = self.node.manifest(name);
        let hidden = path.with_file_name(format!(".{name}.new"));
        fs::write(&hidden, manifest)?;
        let before = SystemTime::now();
        fs::rename(&hidden, &path)?;
        Ok(before)
    }

    /// When the pod's container printed its first line in its life number `attempt`, as its log has it.
    pub async fn first_line(&self, name: &str, attempt: u32) -> anyhow::Result<SystemTime> {
        let logs = self.node.config().pod_logs_dir.clone();
        first_line(&logs, &format!("default_{name}-node_"), attempt).await
    }

    /// Takes the pod away and waits until nothing is left of it.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.node.remove(name)?;
        Ok(self.node.empty().await?)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        let log = fs::read_to_string(self.node.dir().join("agent.log")).unwrap_or_default();
        if std::thread::panicking() || std::env::var_os("PODSTEAD_LOG").is_some() {
            eprintln!("{log}");
        }
    }
}

/// When a container of the pod whose log directory begins so printed its first line.
pub async fn first_line(logs: &Path, pod: &str, attempt: u32) -> anyhow::Result<SystemTime> {
    let find = || {
        let dirs = fs::read_dir(logs).ok()?.flatten();
        let dir = dirs
            .map(|e| e.path())
            .find(|p| p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(pod.as_bytes())))?;
        let text = fs::read_to_string(dir.join(format!("c/{attempt}.log"))).ok()?;
        let (line, _) = text.split_once('\n')?;
        line.split(' ').next()?.parse::<jiff::Timestamp>().ok()
    };
    let at = wait(&format!("the first line of {pod} {attempt}"), find).await?;
    Ok(SystemTime::from(at))
}

/// Looks until there is something.
pub async fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(LOOK).await;
    }
}

/// A pod that says "up", goes on until it is told to end, and is found among all processes by its mark.
pub fn manifest(name: &str, host_network: bool) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: {host_network}\n  \
         terminationGracePeriodSeconds: 2\n  containers:\n  - name: c\n    image: localhost/podstead/busybox:1\n    \
         command: [/bin/sh, -c, \"echo up; trap 'exit 0' TERM; sleep 100000 & wait\", {}]\n",
        mark(name)
    )
}

fn mark(name: &str) -> String {
    format!("podstead-bench-{}-{name}", std::process::id())
}

/// The first process of the pod's container.
pub fn first_process(name: &str) -> Option<i32> {
    let mark = mark(name);
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let args = fs::read(entry.path().join("cmdline")).ok()?;
        let mut args = args.split(|b| *b == 0);
        (args.next()? == b"/bin/sh" && args.any(|arg| arg == mark.as_bytes())).then_some(pid)
    })
}
