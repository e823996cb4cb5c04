//! Flags about the node as pods see it: its labels and its room, spelled as the kubelet spells them.

use std::collections::BTreeMap;

use clap::Args;

use super::ConfigError;
use crate::manifest::names;
use crate::node::capacity::{Amounts, Reservations, Threshold};
use crate::quantity::Amount;

/// Signals of `--eviction-hard`; two of them count in what is left for pods.
const SIGNALS: [&str; 9] = [
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "allocatableMemory.available",
    "pid.available",
];

/// Labels of Kubernetes' own that may be given besides those below [`PREFIXES`].
const OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
const PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Flags about the node.
#[derive(Args, Clone, Debug)]
pub struct NodeFlags {
    /// As many pods are taken at most
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub max_pods: i64,
    /// Kept back for the agent and the runtime: cpu=200m,memory=500Mi,ephemeral-storage=1Gi
    #[arg(long, value_name = "AMOUNTS", value_delimiter = ',')]
    pub kube_reserved: Vec<String>,
    /// Kept back for everything else on the node, likewise
    #[arg(long, value_name = "AMOUNTS", value_delimiter = ',')]
    pub system_reserved: Vec<String>,
    /// What must stay free is not for pods: memory.available<100Mi,nodefs.available<10%
    #[arg(
        long,
        value_name = "THRESHOLDS",
        value_delimiter = ',',
        default_value = "memory.available<100Mi,nodefs.available<10%"
    )]
    pub eviction_hard: Vec<String>,
    /// Labels of this node besides its own, for nodeSelector and nodeAffinity: key=value,...
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub node_labels: Vec<String>,
}

impl NodeFlags {
    /// Checks what is said about room.
    pub(super) fn reservations(&self) -> Result<Reservations, ConfigError> {
        if self.max_pods < 0 {
            return Err(bad("max-pods", "must not be negative"));
        }
        let (memory, storage) = self.thresholds()?;
        Ok(Reservations {
            max_pods: self.max_pods,
            kube: reserved("kube-reserved", &self.kube_reserved)?,
            system: reserved("system-reserved", &self.system_reserved)?,
            memory,
            storage,
        })
    }

    /// What stays free of memory and storage. What is not named is 0, as the kubelet has it.
    fn thresholds(&self) -> Result<(Threshold, Threshold), ConfigError> {
        let flag = "eviction-hard";
        let mut all = BTreeMap::new();
        for text in self.eviction_hard.iter().filter(|text| !text.is_empty()) {
            let Some((signal, value)) = text.split_once('<') else {
                return Err(bad(flag, &format!("{text:?} is not of the form memory.available<100Mi")));
            };
            if !SIGNALS.contains(&signal) {
                return Err(bad(flag, &format!("{signal:?} is none of {}", SIGNALS.join(", "))));
            }
            if all.insert(signal, threshold(value)?).is_some() {
                return Err(bad(flag, &format!("{signal} stands twice")));
            }
        }
        let of = |signal| all.get(signal).copied().unwrap_or(Threshold::Bytes(0));
        Ok((of("memory.available"), of("nodefs.available")))
    }

    /// The labels of a node of this name: the kubelet's own, and over them those that are given.
    pub(super) fn labels(&self, node: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut all = own_labels(node);
        for text in self.node_labels.iter().filter(|text| !text.is_empty()) {
            let Some((key, value)) = text.split_once('=') else {
                return Err(bad("node-labels", &format!("{text:?} is not of the form key=value")));
            };
            let verdict = names::qualified(key).and_then(|()| names::label_value(value));
            verdict.map_err(|why| bad("node-labels", &format!("{text:?}: {why}")))?;
            if foreign(key) {
                let why = format!(
                    "{key:?} is a label of Kubernetes' own; those may begin with {} or be one of {}",
                    PREFIXES.join("/, ") + "/",
                    OWN.join(", ")
                );
                return Err(bad("node-labels", &why));
            }
            all.insert(key.to_owned(), value.to_owned());
        }
        Ok(all)
    }
}

/// The labels that a node of this name has without being given any.
pub fn own_labels(node: &str) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let own = [
        ("kubernetes.io/hostname", node),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Whether a label belongs to Kubernetes and is not a kubelet's to give.
fn foreign(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    let below = |prefix: &str, domain: &str| {
        prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    };
    let kubernetes = below(prefix, "kubernetes.io") || below(prefix, "k8s.io");
    kubernetes && !OWN.contains(&key) && !PREFIXES.iter().any(|allowed| below(prefix, allowed))
}

fn bad(flag: &str, why: &str) -> ConfigError {
    ConfigError::Node(format!("--{flag}: {why}"))
}

fn reserved(flag: &str, texts: &[String]) -> Result<Amounts, ConfigError> {
    let mut all = Amounts::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let Some((resource, value)) = text.split_once('=') else {
            return Err(bad(flag, &format!("{text:?} is not of the form cpu=200m")));
        };
        if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&resource) {
            return Err(bad(
                flag,
                &format!("cannot reserve {resource:?}; cpu, memory, ephemeral-storage and pid can be"),
            ));
        }
        let amount: Amount = value.parse().map_err(|error| bad(flag, &format!("{resource}: {error}")))?;
        if amount.nano() < 0 {
            return Err(bad(
                flag,
                &format!("resource quantity for {resource:?} cannot be negative: {value}"),
            ));
        }
        let amount = if resource == "cpu" { amount.thousandths() } else { amount.whole() };
        if all.insert(resource.to_owned(), amount).is_some() {
            return Err(bad(flag, &format!("{resource} stands twice")));
        }
    }
    Ok(all)
}

fn threshold(value: &str) -> Result<Threshold, ConfigError> {
    let flag = "eviction-hard";
    let Some(percent) = value.strip_suffix('%') else {
        let amount: Amount = value.parse().map_err(|error| bad(flag, &format!("{error}")))?;
        return match amount.whole() {
            bytes @ 0.. => Ok(Threshold::Bytes(bytes)),
            _ => Err(bad(flag, &format!("{value} is negative"))),
        };
    };
    let share: Amount = percent.parse().map_err(|_| bad(flag, &format!("{value:?} is no percentage")))?;
    match share.thousandths() {
        share @ 0..=100_000 => Ok(Threshold::Share(share / 100)),
        _ => Err(bad(flag, &format!("{value} is not between 0% and 100%"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        node: NodeFlags,
    }

    fn flags(line: &str) -> NodeFlags {
        let words = std::iter::once("podstead").chain(line.split_whitespace());
        <Flags as clap::Parser>::try_parse_from(words).unwrap().node
    }

    #[test]
    fn without_flags_a_node_keeps_back_what_a_kubelet_does() {
        assert_eq!(flags("").reservations().unwrap(), Reservations::default());
        let labels = flags("").labels("n1").unwrap();
        assert_eq!(
            (labels["kubernetes.io/hostname"].as_str(), labels["kubernetes.io/os"].as_str()),
            ("n1", "linux")
        );
        assert_eq!(labels["kubernetes.io/arch"], labels["beta.kubernetes.io/arch"]);
        assert_eq!(labels.len(), 5);
    }

    #[test]
    fn amounts_and_thresholds_are_read_as_a_kubelet_reads_them() {
        let line = "--max-pods 7 --kube-reserved=cpu=200m,memory=1Gi,pid=100 --system-reserved cpu=1 \
                    --eviction-hard nodefs.available<5.5%,imagefs.available<1Gi";
        let read = flags(line).reservations().unwrap();
        assert_eq!((read.max_pods, read.kube["cpu"], read.kube["memory"]), (7, 200, 1 << 30));
        assert_eq!(read.system["cpu"], 1000);
        assert_eq!((read.memory, read.storage), (Threshold::Bytes(0), Threshold::Share(55)));
        let none = flags("--eviction-hard=").reservations().unwrap();
        assert_eq!((none.memory, none.storage), (Threshold::Bytes(0), Threshold::Bytes(0)));
    }

    #[test]
    fn labels_are_added_and_those_of_kubernetes_are_its_own() {
        let given =
            "--node-labels disk=ssd,node.kubernetes.io/zone=a --node-labels kubernetes.io/hostname=other";
        let labels = flags(given).labels("n1").unwrap();
        assert_eq!((labels["disk"].as_str(), labels["node.kubernetes.io/zone"].as_str()), ("ssd", "a"));
        assert_eq!(labels["kubernetes.io/hostname"], "other");
        for (bad, why) in [
            ("node-role.kubernetes.io/master=", "Kubernetes' own"),
            ("x.k8s.io/a=b", "Kubernetes' own"),
            ("a", "key=value"),
            ("-a=b", "-a"),
            ("a=b_", "b_"),
        ] {
            let error = flags(&format!("--node-labels={bad}")).labels("n").unwrap_err().to_string();
            assert!(error.starts_with("--node-labels: ") && error.contains(why), "{bad}: {error}");
        }
        assert!(flags("--node-labels=notkubernetes.io/a=b").labels("n").is_ok());
    }

    #[test]
    fn what_cannot_be_kept_back_is_named() {
        for (line, why) in [
            ("--max-pods=-1", "negative"),
            ("--kube-reserved=gpu=1", "cannot reserve \"gpu\""),
            ("--kube-reserved=cpu", "cpu=200m"),
            ("--kube-reserved=cpu=x", "not a quantity"),
            ("--system-reserved=cpu=-1", "cannot be negative"),
            ("--system-reserved=cpu=1,cpu=2", "twice"),
            ("--eviction-hard=memory.available>1", "form"),
            ("--eviction-hard=memory.free<1", "memory.free"),
            ("--eviction-hard=memory.available<x", "not a quantity"),
            ("--eviction-hard=memory.available<-1", "negative"),
            ("--eviction-hard=memory.available<101%", "100%"),
            ("--eviction-hard=memory.available<a%", "percentage"),
            ("--eviction-hard=memory.available<1,memory.available<2", "twice"),
        ] {
            let error = flags(line).reservations().unwrap_err().to_string();
            let flag = line.split('=').next().unwrap();
            assert!(error.starts_with(flag) && error.contains(why), "{line}: {error}");
        }
    }
}
