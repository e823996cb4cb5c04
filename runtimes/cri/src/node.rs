//! The two facts about the node that a request depends on. Reads /proc and /sys only.

use std::collections::BTreeSet;
use std::fs;

/// Huge page sizes (as the CRI spells them, `2MB`) that the node's cgroup hierarchy can limit; empty without the
/// hugetlb controller. A limit for any other size makes create fail (`cri-servers.md`).
pub(crate) fn hugepage_sizes() -> BTreeSet<String> {
    let has_controller = match fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(list) => list.split_whitespace().any(|name| name == "hugetlb"),
        Err(_) => fs::read_to_string("/proc/cgroups").is_ok_and(|table| has_v1_hugetlb(&table)),
    };
    if !has_controller {
        return BTreeSet::new();
    }
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| page_size(entry.file_name().to_str()?)).collect()
}

/// Whether /proc/cgroups shows hugetlb enabled and mounted (hierarchy not 0).
fn has_v1_hugetlb(table: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], ["hugetlb", hierarchy, _, "1"] if hierarchy != "0")
    })
}

/// `hugepages-2048kB` -> `2MB`.
fn page_size(directory: &str) -> Option<String> {
    let mut size: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let mut units = ["KB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next()?;
    while size >= 1024 && size.is_multiple_of(1024) {
        let Some(next) = units.next() else { break };
        size /= 1024;
        unit = next;
    }
    Some(format!("{size}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_spelled_as_the_cri_does() {
        assert_eq!(page_size("hugepages-2048kB").as_deref(), Some("2MB"));
        assert_eq!(page_size("hugepages-1048576kB").as_deref(), Some("1GB"));
        assert_eq!(page_size("hugepages-64kB").as_deref(), Some("64KB"));
        assert_eq!(page_size("something"), None);
    }

    #[test]
    fn a_hugetlb_controller_that_is_not_mounted_does_not_count() {
        assert!(has_v1_hugetlb("hugetlb\t5\t3\t1\n"));
        assert!(!has_v1_hugetlb("hugetlb\t0\t3\t1\n"));
        assert!(!has_v1_hugetlb("hugetlb\t5\t3\t0\nmemory\t4\t1\t1\n"));
    }
}
