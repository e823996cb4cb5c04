//! What the machine has, what of it is kept back, and what is left for pods (`kubelet-static-pods.md 5.4, 6`). Reads
//! `/proc`, `/sys/kernel/mm/hugepages` and the size of the root directory's file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::facts;
use crate::pod::requests::HUGE_PAGES;
use crate::quantity::{BINARY, whole_in};

/// Amounts by resource: `cpu` in thousandths, `memory`, `ephemeral-storage` and `hugepages-<size>` in bytes, `pods`.
pub type Amounts = BTreeMap<String, i64>;

/// Where the kernel tells of them.
pub(super) const PAGES_DIR: &str = "/sys/kernel/mm/hugepages";

/// How much must stay free, or else a kubelet would evict pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// Bytes.
    Bytes(i64),
    /// Thousandths of the capacity.
    Share(i64),
}

impl Threshold {
    /// In bytes.
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => {
                let bytes = i128::from(capacity) * i128::from(share) / 1000;
                i64::try_from(bytes).unwrap_or(i64::MAX)
            }
        }
    }
}

/// What of the machine is not for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservations {
    /// As many pods are taken (`--max-pods`).
    pub max_pods: i64,
    /// For the agent and the runtime (`--kube-reserved`).
    pub kube: Amounts,
    /// For everything else on the node (`--system-reserved`).
    pub system: Amounts,
    /// Memory that stays free (`--eviction-hard memory.available`).
    pub memory: Threshold,
    /// Storage that stays free (`--eviction-hard nodefs.available`).
    pub storage: Threshold,
}

impl Default for Reservations {
    /// The kubelet's.
    fn default() -> Self {
        Self {
            max_pods: 110,
            kube: Amounts::new(),
            system: Amounts::new(),
            memory: Threshold::Bytes(100 << 20),
            storage: Threshold::Share(100),
        }
    }
}

impl Reservations {
    /// What is left for pods.
    pub fn allocatable(&self, capacity: &Amounts) -> Amounts {
        let pools: i64 =
            capacity.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES)).map(|(_, n)| *n).sum();
        let left = |(name, amount): (&String, &i64)| {
            let free = match name.as_str() {
                // Pages of the pools are no ordinary memory any more.
                "memory" => self.memory.of(*amount).saturating_add(pools),
                "ephemeral-storage" => self.storage.of(*amount),
                _ => 0,
            };
            let kept = self.kept(name).saturating_add(free);
            (name.clone(), amount.saturating_sub(kept).max(0))
        };
        capacity.iter().map(left).collect()
    }

    /// What is kept back of a resource; thresholds are no part of it.
    pub fn kept(&self, resource: &str) -> i64 {
        let of = |table: &Amounts| table.get(resource).copied().unwrap_or(0);
        of(&self.kube).saturating_add(of(&self.system))
    }

    /// What the machine has now: pools of large pages, processors and file systems change while the agent runs.
    pub fn capacity(&self, root_dir: &Path) -> Amounts {
        let mut all = hugepages(Path::new(PAGES_DIR));
        all.insert("cpu".to_owned(), facts::cpu_capacity());
        all.insert("memory".to_owned(), facts::memory_capacity());
        all.insert("ephemeral-storage".to_owned(), facts::storage_capacity(root_dir));
        all.insert("pods".to_owned(), self.max_pods);
        all
    }
}

/// Sizes in bytes of the node's huge pages, and where the kernel says how many there are.
pub(super) fn page_sizes(dir: &Path) -> impl Iterator<Item = (i64, PathBuf)> {
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let kib: i64 = name.to_str()?.strip_prefix(HUGE_PAGES)?.strip_suffix("kB")?.parse().ok()?;
        Some((kib.checked_mul(1024)?, entry.path()))
    };
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(one)
}

/// The pools of large pages, bytes by resource.
fn hugepages(dir: &Path) -> Amounts {
    let pool = |(size, path): (i64, PathBuf)| {
        let pages: i64 = fs::read_to_string(path.join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some((format!("{HUGE_PAGES}{}", whole_in(size, BINARY)), pages.saturating_mul(size)))
    };
    page_sizes(dir).filter_map(pool).collect()
}

/// An amount as Kubernetes writes it: `1500m`, `64Mi`, `110`.
pub fn quantity(resource: &str, amount: i64) -> String {
    match resource {
        "cpu" if amount % 1000 == 0 => (amount / 1000).to_string(),
        "cpu" => format!("{amount}m"),
        "pods" => amount.to_string(),
        _ => whole_in(amount, BINARY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(all: &[(&str, i64)]) -> Amounts {
        all.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    #[test]
    fn what_is_left_is_the_capacity_without_reservations_thresholds_and_large_pages() {
        let capacity = amounts(&[
            ("cpu", 4000),
            ("memory", 8 << 30),
            ("ephemeral-storage", 1000),
            ("hugepages-2Mi", 1 << 30),
            ("pods", 110),
        ]);
        let plain = Reservations::default().allocatable(&capacity);
        let expected = amounts(&[
            ("cpu", 4000),
            ("memory", (7 << 30) - (100 << 20)),
            ("ephemeral-storage", 900),
            ("hugepages-2Mi", 1 << 30),
            ("pods", 110),
        ]);
        assert_eq!(plain, expected);
        let kept = Reservations {
            kube: amounts(&[("cpu", 500), ("memory", 1 << 30)]),
            system: amounts(&[("cpu", 100), ("ephemeral-storage", 950)]),
            memory: Threshold::Share(250),
            storage: Threshold::Bytes(100),
            ..Reservations::default()
        };
        let left = kept.allocatable(&capacity);
        assert_eq!((left["cpu"], left["memory"], left["ephemeral-storage"]), (3400, 4 << 30, 0));
    }

    #[test]
    fn pools_of_large_pages_are_found_by_their_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, pages) in [("hugepages-2048kB", "8\n"), ("hugepages-1048576kB", "0\n"), ("other", "1")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("nr_hugepages"), pages).unwrap();
        }
        assert_eq!(hugepages(dir.path()), amounts(&[("hugepages-2Mi", 16 << 20), ("hugepages-1Gi", 0)]));
        assert_eq!(hugepages(Path::new("/no/such/path")), Amounts::new());
    }

    #[test]
    fn the_machine_has_something_of_everything() {
        let all = Reservations::default().capacity(Path::new("/"));
        assert_eq!(all["pods"], 110);
        assert!(["cpu", "memory", "ephemeral-storage"].iter().all(|name| all[*name] > 0), "{all:?}");
    }

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        for (resource, amount, text) in [
            ("cpu", 2000, "2"),
            ("cpu", 1500, "1500m"),
            ("memory", 64 << 20, "64Mi"),
            ("memory", 0, "0"),
            ("memory", 1000, "1000"),
            ("memory", 5 << 60, "5Ei"),
            ("pods", 1024, "1024"),
        ] {
            assert_eq!(quantity(resource, amount), text);
        }
    }
}
