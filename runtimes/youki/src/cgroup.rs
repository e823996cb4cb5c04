//! A container's cgroup in every hierarchy of the node: who is in it, what it uses, whether memory ran out, and its end.
//! Reads, signals and removes below one path; never touches the hierarchies themselves.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that has been killed leaves its cgroup within this time, unless the kernel holds it.
const DYING: Duration = Duration::from_secs(5);

/// One cgroup, in all hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    /// Its directory in each hierarchy.
    dirs: Vec<PathBuf>,
}

/// What a cgroup uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub cpu_nanos: u64,
    pub memory: u64,
    pub working_set: u64,
    pub pids: u64,
}

/// Whether the node has one hierarchy (cgroup v2) only.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

impl Cgroup {
    /// The cgroup at this path, which need not exist.
    pub(crate) fn at(path: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let below: PathBuf = path.split('/').filter(|p| !matches!(*p, "" | "." | "..")).collect();
        if below.as_os_str().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root cgroup is nobody's container"));
        }
        Ok(Self { dirs: roots(&mounts).into_iter().map(|root| root.join(&below)).collect() })
    }

    /// Kills everything in it and in its children, again and again until nothing is left. Blocks.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let deadline = std::time::Instant::now() + DYING;
        // Nothing may be forked any more: processes that are killed one by one could else make new ones for ever.
        for dir in &self.dirs {
            let _ = fs::OpenOptions::new()
                .write(true)
                .open(dir.join("pids.max"))
                .and_then(|mut f| f.write_all(b"0"));
        }
        loop {
            let mut left = false;
            for dir in &self.dirs {
                // One write kills all, also what is being forked (Linux 5.14, v2).
                let file = fs::OpenOptions::new().write(true).open(dir.join("cgroup.kill"));
                let killed = file.and_then(|mut f| f.write_all(b"1")).is_ok();
                for pid in processes(dir) {
                    left = true;
                    if !killed {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
            }
            if !left {
                return Ok(());
            }
            if std::time::Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes do not die"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes it, children first. Absent is a success. Processes in it are an error.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| remove_tree(dir))
    }

    /// Whether the kernel killed something in it because its memory was used up.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let killed = |dir: &PathBuf| {
            let local = fs::read_to_string(dir.join("memory.events")).ok();
            let text = local.or_else(|| fs::read_to_string(dir.join("memory.oom_control")).ok())?;
            keyed(&text, "oom_kill")
        };
        self.dirs.iter().filter_map(killed).any(|count| count > 0)
    }

    /// What it uses now; zero where the node does not count.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for dir in &self.dirs {
            let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
            let stat = |file: &str, key: &str| keyed(&fs::read_to_string(dir.join(file)).ok()?, key);
            if let Some(nanos) = number("cpuacct.usage") {
                usage.cpu_nanos = nanos;
            } else if let Some(micros) = stat("cpu.stat", "usage_usec") {
                usage.cpu_nanos = micros * 1000;
            }
            if let Some(bytes) = number("memory.current").or_else(|| number("memory.usage_in_bytes")) {
                let idle = stat("memory.stat", "total_inactive_file")
                    .or_else(|| stat("memory.stat", "inactive_file"));
                usage.memory = bytes;
                usage.working_set = bytes.saturating_sub(idle.unwrap_or(0));
            }
            if let Some(count) = number("pids.current") {
                usage.pids = count;
            }
        }
        usage
    }
}

fn roots(mounts: &str) -> Vec<PathBuf> {
    let cgroups = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
    });
    // The same hierarchy may be mounted twice, or once over another.
    cgroups.collect::<BTreeSet<_>>().into_iter().collect()
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path())
}

fn processes(dir: &Path) -> Vec<i32> {
    let own = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> = own.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0).collect();
    for child in children(dir) {
        all.extend(processes(&child));
    }
    all
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The last process is gone for its parent, but not yet for the kernel.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < 50 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mount_table() {
        let table = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(roots(table), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "oom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(
            (keyed(text, "oom_kill"), keyed(text, "oom"), keyed(text, "kill")),
            (Some(2), Some(4), None)
        );
    }

    #[test]
    fn the_root_is_never_a_containers() {
        assert!(Cgroup::at("/").is_err() && Cgroup::at("/../..").is_err());
    }
}
