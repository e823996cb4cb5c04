//! What the node has that decides how containers are made. Reads /proc, /sys and /dev; changes nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};

use crate::bundle::{DeviceNode, NodeFacts};
use crate::cgroup;

/// The facts, without devices: those are read when a container wants some.
pub(super) fn read() -> NodeFacts {
    let v2 = cgroup::is_unified();
    let exists = |path: &str| Path::new(path).exists();
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let own_score = || fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok();
    NodeFacts {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        cgroup_v2: v2,
        cgroup_v1_hierarchies: if v2 { Vec::new() } else { v1_hierarchies() },
        swap_limits: exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
            || (v2 && fs::read_to_string("/proc/swaps").is_ok_and(|t| t.lines().count() > 1)),
        huge_page_sizes: huge_page_sizes(v2),
        devices: Vec::new(),
        capabilities: bounding_set(),
        min_oom_score_adj: if held.contains(CapabilitySet::SYS_RESOURCE) { None } else { own_score() },
        kernel: kernel(&rustix::system::uname().release().to_string_lossy()),
        apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|t| t.starts_with('Y')),
        selinux: exists("/sys/fs/selinux/enforce"),
    }
}

fn v1_hierarchies() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let names = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        let name = point.strip_prefix("/sys/fs/cgroup/")?;
        (kind == "cgroup" && !name.contains('/')).then(|| name.to_owned())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn bounding_set() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Page sizes as cgroup files spell them: `hugepages-2048kB` is `2MB`.
fn huge_page_sizes(v2: bool) -> Vec<String> {
    let limited = if v2 {
        fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|t| t.contains("hugetlb"))
    } else {
        Path::new("/sys/fs/cgroup/hugetlb").is_dir()
    };
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let size = |name: String| {
        let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kilobytes {
            k if k >= 1 << 20 => format!("{}GB", k >> 20),
            k if k >= 1 << 10 => format!("{}MB", k >> 10),
            k => format!("{k}KB"),
        })
    };
    let sizes = entries.filter_map(|e| size(e.file_name().into_string().ok()?));
    if limited { sizes.collect() } else { Vec::new() }
}

/// The node's devices.
pub(super) fn devices() -> Vec<DeviceNode> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), &mut found, 0);
    found
}

fn collect(dir: &Path, found: &mut Vec<DeviceNode>, depth: usize) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let kind = meta.file_type();
        if kind.is_dir() && depth < 4 {
            collect(&entry.path(), found, depth + 1);
        }
        if kind.is_char_device() || kind.is_block_device() {
            found.push(DeviceNode {
                path: entry.path(),
                block: kind.is_block_device(),
                major: rustix::fs::major(meta.rdev()),
                minor: rustix::fs::minor(meta.rdev()),
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_by_two_numbers() {
        assert_eq!(kernel("6.12.38+deb13-amd64"), Some((6, 12)));
        assert_eq!(kernel("odd"), None);
    }

    #[test]
    fn the_null_device_is_found() {
        let null = devices().into_iter().find(|d| d.path == Path::new("/dev/null")).expect("/dev/null");
        assert_eq!((null.major, null.minor, null.block), (1, 3, false));
    }
}
