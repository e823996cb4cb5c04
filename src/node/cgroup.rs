//! Cgroup parents of pods: `kubepods[/burstable|/besteffort]/pod<uid>` (`kubelet-static-pods.md 4.5`). Blocking; makes,
//! limits and removes cgroups below `kubepods` in hierarchies that exist, and never touches the hierarchies themselves.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use podstead_runtime::LinuxResources;
use thiserror::Error;

/// A cgroup could not be made, limited or removed.
#[derive(Debug, Error)]
#[error("cgroup {path}: cannot {what}: {source}")]
pub struct CgroupError {
    /// What was being done.
    pub what: String,
    /// The directory.
    pub path: PathBuf,
    /// The system's words.
    pub source: io::Error,
}

/// The node's cgroup hierarchies.
#[derive(Clone, Debug)]
pub enum Cgroups {
    /// One hierarchy (cgroup v2).
    Unified(PathBuf),
    /// One per controller (cgroup v1, also on hybrid hosts): their mount points and controllers. Hierarchies without
    /// any (systemd's, a hybrid host's v2) are listed as well: runtimes make cgroups there too.
    Legacy(Vec<(PathBuf, Vec<String>)>),
}

const V1_CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];
const V2_CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

impl Cgroups {
    /// Reads the hierarchies from the mount table.
    pub fn discover() -> io::Result<Self> {
        Ok(Self::from_mounts(&fs::read_to_string("/proc/self/mounts")?))
    }

    fn from_mounts(table: &str) -> Self {
        let mut legacy = Vec::new();
        for line in table.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, point, kind, options, ..] = fields[..] else { continue };
            if kind == "cgroup2" && point == "/sys/fs/cgroup" {
                return Self::Unified(PathBuf::from(point));
            }
            if kind == "cgroup" || kind == "cgroup2" {
                let has = options.split(',').filter(|o| V1_CONTROLLERS.contains(o)).map(str::to_owned);
                legacy.push((PathBuf::from(point), has.collect()));
            }
        }
        Self::Legacy(legacy)
    }

    fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let below: PathBuf = steps(path).collect();
        match self {
            Self::Unified(root) => vec![root.join(below)],
            Self::Legacy(all) => all.iter().map(|(root, _)| root.join(&below)).collect(),
        }
    }

    /// Makes the cgroup with its parents and sets the limits given: negative ones are lifted, 0 leaves what is there.
    pub fn ensure(&self, path: &str, limits: &LinuxResources) -> Result<(), CgroupError> {
        match self {
            Self::Unified(root) => ensure_unified(root, path, limits),
            Self::Legacy(all) => {
                for (root, controllers) in all.iter().filter(|(_, controllers)| !controllers.is_empty()) {
                    let dir = make_legacy(root, path, controllers)?;
                    limit_legacy(&dir, controllers, limits)?;
                }
                Ok(())
            }
        }
    }

    /// Memory that everything in the cgroup uses, without what can be reclaimed, in bytes; `None` where the node does not
    /// count.
    pub fn memory_usage(&self, path: &str) -> Option<i64> {
        let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).ok();
        self.dirs(path).iter().find_map(|dir| {
            let usage = read(dir, "memory.current").or_else(|| read(dir, "memory.usage_in_bytes"))?;
            let stat = read(dir, "memory.stat").unwrap_or_default();
            let of = |key: &str| stat.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<i64>().ok());
            let idle = of("total_inactive_file ").or_else(|| of("inactive_file ")).unwrap_or(0);
            Some(usage.trim().parse::<i64>().ok()?.saturating_sub(idle).max(0))
        })
    }

    /// Removes the cgroup with everything below it, deepest first. Absent is a success; processes in it are an error.
    pub fn remove(&self, path: &str) -> Result<(), CgroupError> {
        self.dirs(path).iter().try_for_each(|dir| remove_tree(dir))
    }

    /// The directories directly below the cgroup, in all hierarchies.
    pub fn children(&self, path: &str) -> Vec<String> {
        let entries =
            self.dirs(path).into_iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
        let dirs = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.map(|e| e.path().display().to_string()).collect()
    }

    /// Whether the cgroup exists in any hierarchy.
    pub fn exists(&self, path: &str) -> bool {
        self.dirs(path).iter().any(|dir| dir.exists())
    }
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> CgroupError + use<'a> {
    move |source| CgroupError { what: what.to_owned(), path: path.to_owned(), source }
}

fn set(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    // Not to be made: these file systems refuse that in other words than that it is not there.
    let written =
        fs::OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(value.as_bytes()));
    match written {
        // A controller that this node does not offer is no reason not to run the pod.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(failed(&format!("write {value:?}"), &path)),
    }
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..")
}

fn make_one(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome.map_err(failed("make it", dir)),
    }
}

fn ensure_unified(root: &Path, path: &str, limits: &LinuxResources) -> Result<(), CgroupError> {
    let mut dir = root.to_owned();
    for part in steps(path) {
        let offered = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        for controller in V2_CONTROLLERS.iter().filter(|c| offered.split_whitespace().any(|o| o == **c)) {
            // One at a time: a parent with processes of its own refuses some, which must not cost the others.
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(part);
        make_one(&dir)?;
    }
    set(&dir, "cpu.weight", &weight(limits.cpu_shares).to_string())?;
    match limits.cpu_quota {
        0 => {}
        ..0 => set(&dir, "cpu.max", "max")?,
        quota => set(&dir, "cpu.max", &format!("{quota} {}", limits.cpu_period.max(1)))?,
    }
    match limits.memory_limit {
        0 => {}
        ..0 => set(&dir, "memory.max", "max")?,
        bytes => set(&dir, "memory.max", &bytes.to_string())?,
    }
    more(&dir, "max", limits)
}

/// Limits whose files are the same in both versions, but for the ending of those of huge pages.
fn more(dir: &Path, ending: &str, limits: &LinuxResources) -> Result<(), CgroupError> {
    for (size, bytes) in &limits.hugepages {
        set(dir, &format!("hugetlb.{size}.{ending}"), &bytes.to_string())?;
    }
    match limits.pids_limit {
        Some(pids) if pids > 0 => set(dir, "pids.max", &pids.to_string()),
        Some(_) => set(dir, "pids.max", "max"),
        None => Ok(()),
    }
}

/// cgroup v2's weight (1 to 10000) of v1's shares (2 to 262144).
pub(super) fn weight(shares: i64) -> i64 {
    if shares <= 0 { 100 } else { 1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142 }
}

fn make_legacy(root: &Path, path: &str, controllers: &[String]) -> Result<PathBuf, CgroupError> {
    let mut dir = root.to_owned();
    for part in steps(path) {
        let parent = dir.clone();
        dir.push(part);
        make_one(&dir)?;
        if controllers.iter().any(|c| c == "cpuset") {
            inherit_cpuset(&parent, &dir)?;
        }
    }
    Ok(dir)
}

/// A new v1 cpuset is empty and takes no process until it has its parent's CPUs and memory nodes.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file)).unwrap_or_default();
        if own.trim().is_empty() {
            let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
            set(dir, file, value.trim())?;
        }
    }
    Ok(())
}

fn limit_legacy(dir: &Path, controllers: &[String], limits: &LinuxResources) -> Result<(), CgroupError> {
    let has = |name: &str| controllers.iter().any(|c| c == name);
    if has("cpu") && limits.cpu_shares > 0 {
        set(dir, "cpu.shares", &limits.cpu_shares.to_string())?;
    }
    if has("cpu") && limits.cpu_quota < 0 {
        set(dir, "cpu.cfs_quota_us", "-1")?;
    } else if has("cpu") && limits.cpu_quota > 0 {
        set(dir, "cpu.cfs_period_us", &limits.cpu_period.max(1000).to_string())?;
        set(dir, "cpu.cfs_quota_us", &limits.cpu_quota.to_string())?;
    }
    if has("memory") && limits.memory_limit != 0 {
        set(dir, "memory.limit_in_bytes", &limits.memory_limit.max(-1).to_string())?;
    }
    // Of a hierarchy without the controller the files are not there.
    more(dir, "limit_in_bytes", limits)
}

fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("list it", dir))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(failed("remove it", dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_is_legacy_and_a_pure_one_unified() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let Cgroups::Legacy(found) = Cgroups::from_mounts(hybrid) else { panic!("legacy") };
        let controllers: Vec<&[String]> = found.iter().map(|(_, c)| &c[..]).collect();
        assert_eq!(controllers, [&["cpu".to_owned(), "cpuacct".to_owned()][..], &[], &[]]);
        let pure = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert!(matches!(Cgroups::from_mounts(pure), Cgroups::Unified(_)));
    }

    #[test]
    fn weights_span_the_range_of_shares() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn a_pods_cgroup_is_made_limited_and_removed_with_its_children() {
        let all = Cgroups::discover().unwrap();
        let path = format!("/podstead-test-{}/kubepods/podx", std::process::id());
        let limits = LinuxResources {
            cpu_shares: 512,
            memory_limit: 64 << 20,
            // Of a size that no node has: what cannot be limited holds nothing up.
            hugepages: [("3MB".to_owned(), 0)].into(),
            ..LinuxResources::default()
        };
        all.ensure(&path, &limits).unwrap();
        all.ensure(&path, &limits).unwrap();
        all.ensure(&format!("{path}/child/grandchild"), &LinuxResources::default()).unwrap();
        let memory: Vec<String> = all
            .dirs(&path)
            .iter()
            .flat_map(|d| ["memory.limit_in_bytes", "memory.max"].map(|f| d.join(f)))
            .filter_map(|f| fs::read_to_string(f).ok())
            .collect();
        assert_eq!(memory, ["67108864\n"]);
        let top = path.split('/').nth(1).unwrap().to_owned();
        all.remove(&top).unwrap();
        assert!(!all.exists(&path) && !all.exists(&top));
        all.remove(&top).unwrap();
    }
}
