//! Facts of the machine: its name, addresses, memory, processors, storage, and what guards it. Reads `/proc`, `/sys`, the
//! interfaces and sizes of file systems.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::capacity::{PAGES_DIR, page_sizes};
use crate::config::Limits;
use crate::pod::resources;

/// The node's name: `override_`, else the host name; trimmed and lower case (`kubelet-static-pods.md 6`).
pub fn node_name(override_: Option<&str>) -> String {
    let own = || fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    override_.map_or_else(own, str::to_owned).trim().to_lowercase()
}

/// Memory in bytes.
pub fn memory_capacity() -> i64 {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = table
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Whether AppArmor guards the node.
pub fn apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Where each processor counts that it was too hot; containers must not learn of their neighbours from it.
pub fn thermal_throttles() -> Vec<String> {
    let cpus = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let paths = cpus.map(|cpu| cpu.path().join("thermal_throttle")).filter(|path| path.is_dir());
    let mut all: Vec<String> = paths.filter_map(|path| path.to_str().map(str::to_owned)).collect();
    all.sort();
    all
}

/// Processors in thousandths.
pub fn cpu_capacity() -> i64 {
    let table = fs::read_to_string("/proc/stat").unwrap_or_default();
    let is_one =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|l| l.starts_with(|c: char| c.is_ascii_digit()));
    i64::try_from(table.lines().filter(is_one).count()).unwrap_or(0).saturating_mul(1000)
}

/// Processes and threads that the node can have at once; 0 where it cannot be told.
pub fn process_capacity() -> i64 {
    let read = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let all = [read("/proc/sys/kernel/pid_max"), read("/proc/sys/kernel/threads-max")];
    all.into_iter().flatten().min().unwrap_or(0)
}

/// Size in bytes of the file system that holds a path; 0 where it cannot be told.
pub fn storage_capacity(path: &Path) -> i64 {
    let found = rustix::fs::statvfs(path);
    found.map_or(0, |f| i64::try_from(f.f_blocks.saturating_mul(f.f_frsize)).unwrap_or(i64::MAX))
}

/// What decides about the limits of pods.
pub fn resources(limits: &Limits) -> resources::Facts {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    resources::Facts {
        huge_pages: huge_pages(),
        pids_limit: limits.pod_max_pids,
        oom_group: unified && !limits.single_process_oom_kill,
        swap: unified && swap_controller(),
    }
}

/// Sizes in bytes of the node's huge pages.
fn huge_pages() -> Vec<u64> {
    let sizes = page_sizes(Path::new(PAGES_DIR)).filter_map(|(size, _)| u64::try_from(size).ok());
    let mut all: Vec<u64> = sizes.collect();
    all.sort_unstable();
    all
}

/// Whether cgroups have a limit of swap; the root never has.
fn swap_controller() -> bool {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let children = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    children.chain([root.join(own)]).any(|dir| dir.join("memory.swap.max").exists())
}

/// The node's addresses, that of the default route's interface first.
pub fn addresses() -> Vec<IpAddr> {
    let default = default_interface();
    let mut found: Vec<(bool, IpAddr)> = Vec::new();
    for address in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(storage) = address.address else { continue };
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        let usable = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        if let Some(ip) = v4.or(v6).filter(usable) {
            found.push((default.as_deref() == Some(address.interface_name.as_str()), ip));
        }
    }
    found.sort_by_key(|(first, ip)| (!first, ip.is_ipv6()));
    found.into_iter().map(|(_, ip)| ip).collect()
}

fn default_interface() -> Option<String> {
    let table = fs::read_to_string("/proc/net/route").ok()?;
    let routes = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = routes.into_iter().find(|f| f.get(1) == Some(&"00000000"));
    default.and_then(|f| f.first().map(|name| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_name_is_trimmed_and_lower_case() {
        assert_eq!(node_name(Some(" Node-A\n")), "node-a");
        assert!(!node_name(None).is_empty());
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert!(memory_capacity() > 64 << 20);
    }

    #[test]
    fn processors_and_storage_are_told() {
        assert!(cpu_capacity() >= 1000 && cpu_capacity() % 1000 == 0);
        assert!(storage_capacity(Path::new("/")) > 1 << 20);
        assert_eq!(storage_capacity(Path::new("/no/such/path")), 0);
    }
}
