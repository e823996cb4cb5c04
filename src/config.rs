//! Flags, variables and files -> one checked [`Config`]; nobody re-checks after it. Reads the node's facts once.

mod credentials;
mod dns;
mod document;
mod duration;
mod effective;
pub mod fields;
pub mod foreign;
mod images;
mod known;
mod layers;
mod limits;
mod live;
mod logs;
mod node;
mod origin;
mod sources;
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use podstead_runtime::CgroupDriver;
use thiserror::Error;

use crate::images::Settings as ImageSettings;
use crate::node::capacity::Reservations;
use crate::node::image_gc::Policy as ImagePolicy;
use crate::node::log_rotation::Policy as LogPolicy;
use crate::node::{facts, userns};
use crate::plan::backoff::MAX as LONGEST_BACKOFF;
use crate::pod::dns::Settings as DnsSettings;
use crate::pod::sysctl::{Allowed, BadPattern};

pub use credentials::CredentialFlags;
pub use dns::DnsFlags;
pub use duration::duration;
pub use effective::{Effective, blamed, effective};
pub use images::ImageFlags;
pub use known::Idle;
pub use layers::{Environment, LayerError, Layers, VARIABLES};
pub use limits::{LimitFlags, Limits};
pub use live::{Change, LIVE, Live, changes};
pub use logs::LogFlags;
pub use node::{NodeFlags, own_labels};
pub use origin::Origin;
pub use sources::{Secret, SourceFlags, Sources, Waiver, waived};

/// Where CRI-O listens.
pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/crio/crio.sock";

/// Which runtime keeps the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// A CRI v1 server: CRI-O, containerd.
    Cri,
    /// Directly on libcontainer, without a daemon.
    Direct,
}

/// How cgroup parents are named, as the kubelet spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriverChoice {
    /// Paths below the hierarchy's root.
    Cgroupfs,
    /// systemd's slices.
    Systemd,
}

impl From<DriverChoice> for CgroupDriver {
    fn from(choice: DriverChoice) -> Self {
        match choice {
            DriverChoice::Cgroupfs => Self::Cgroupfs,
            DriverChoice::Systemd => Self::Systemd,
        }
    }
}

/// Flags that say which runtime is meant and where its things are; every command takes them.
#[derive(Args, Clone, Debug)]
pub struct RuntimeFlags {
    /// Which runtime keeps the containers
    #[arg(long, value_enum, default_value = "cri", env = "PODSTEAD_RUNTIME", global = true)]
    pub runtime: RuntimeChoice,
    /// Endpoint of the CRI server
    #[arg(long, default_value = DEFAULT_ENDPOINT, env = "CONTAINER_RUNTIME_ENDPOINT", global = true)]
    pub container_runtime_endpoint: String,
    /// Endpoint of the CRI server that keeps the images [default: that of the runtime]
    #[arg(long, value_name = "ENDPOINT", env = "IMAGE_SERVICE_ENDPOINT", global = true)]
    pub image_service_endpoint: Option<String>,
    /// How long a call of the CRI server may take; pulls and commands take as long as they do
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = request_timeout, global = true)]
    pub runtime_request_timeout: Duration,
    /// Directory for what must survive a reboot: pods' volumes, images
    #[arg(long, default_value = "/var/lib/podstead", env = "PODSTEAD_ROOT_DIR", global = true)]
    pub root_dir: PathBuf,
    /// Directory for what must not: sandboxes and containers of the direct runtime, the agent's status
    #[arg(long, default_value = "/run/podstead", env = "PODSTEAD_STATE_DIR", global = true)]
    pub state_dir: PathBuf,
    /// Only objects with this mark are touched; agents with different marks can share a runtime
    #[arg(long, default_value = podstead_runtime::labels::DEFAULT_OWNER, env = "PODSTEAD_OWNER", global = true)]
    pub owner: String,
    /// Directory of CNI network configurations (direct)
    #[arg(long, default_value = "/etc/cni/net.d", env = "PODSTEAD_CNI_CONF_DIR", global = true)]
    pub cni_conf_dir: PathBuf,
    /// Directories of CNI plugins, colon-separated (direct)
    #[arg(
        long,
        default_value = "/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni",
        value_delimiter = ':',
        env = "PODSTEAD_CNI_BIN_DIR",
        global = true
    )]
    pub cni_bin_dir: Vec<PathBuf>,
    /// Registries reached over plain http, `host` or `host:port`, comma-separated (direct)
    #[arg(long, value_delimiter = ',', env = "PODSTEAD_INSECURE_REGISTRIES", global = true)]
    pub insecure_registry: Vec<String>,
    /// The podstead binary from which container shims are started (direct) [default: this one]
    #[arg(long, env = "PODSTEAD_SHIM", global = true, hide = true)]
    pub shim: Option<PathBuf>,
}

/// Flags that say where settings are besides the command line; every command takes them.
#[derive(Args, Clone, Debug)]
pub struct SettingFlags {
    /// File of settings: a KubeletConfiguration
    #[arg(long, value_name = "FILE", env = "PODSTEAD_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Directory of files *.conf laid over it in the order of their names
    #[arg(long, value_name = "DIR", env = "PODSTEAD_CONFIG_DIR", global = true)]
    pub config_dir: Option<PathBuf>,
    /// File of variables such as KUBELET_ARGS="--flag=value ..."
    #[arg(long, value_name = "FILE", env = "PODSTEAD_ENV_FILE", global = true)]
    pub env_file: Vec<PathBuf>,
}

/// Flags of `podstead run`, spelled as the kubelet spells them where it has them.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  podstead run --pod-manifest-path /etc/kubernetes/manifests\n  podstead run \
                        --runtime direct --pod-manifest-path ./manifests --hostname-override node1"
)]
pub struct RunFlags {
    /// Manifests.
    #[command(flatten)]
    pub sources: SourceFlags,
    /// Name of this node instead of the host name
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Addresses of this node, comma-separated [default: found]
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Directory of the pods' logs
    #[arg(long, default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Directory of links to the containers' logs
    #[arg(long, default_value = "/var/log/containers")]
    pub container_logs_dir: PathBuf,
    /// Cgroup under which `kubepods` is made
    #[arg(long, default_value = "")]
    pub cgroup_root: String,
    /// Who keeps the cgroups, for runtimes that do not tell: containerd before 2.0 [default: cgroupfs]
    #[arg(long, value_enum)]
    pub cgroup_driver: Option<DriverChoice>,
    /// Give containers the runtime's default seccomp profile
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = false,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub seccomp_default: bool,
    /// The longest pause between two instances of a container in a crash loop, 1s to 300s
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration)]
    pub max_container_restart_period: Duration,
    /// Kernel parameters that pods may set besides the safe ones: names, or beginnings of names with * at the end
    #[arg(long, value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The node as pods see it.
    #[command(flatten)]
    pub node: NodeFlags,
    /// Ids of each pod with a user namespace of its own, a multiple of 65536
    #[arg(long, value_name = "N", default_value_t = userns::IDS)]
    pub userns_ids_per_pod: u32,
    /// Names.
    #[command(flatten)]
    pub dns: DnsFlags,
    /// Images.
    #[command(flatten)]
    pub images: ImageFlags,
    /// Logs.
    #[command(flatten)]
    pub logs: LogFlags,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitFlags,
}

/// The checked configuration of the agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where manifests come from.
    pub sources: Sources,
    /// Node name, trimmed and lower case.
    pub node_name: String,
    /// The node's addresses, the primary first.
    pub node_ips: Vec<IpAddr>,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// What of the node is not for pods.
    pub reserved: Reservations,
    /// What must survive a reboot.
    pub root_dir: PathBuf,
    /// What must not.
    pub state_dir: PathBuf,
    /// Pods' logs.
    pub pod_logs_dir: PathBuf,
    /// Links to containers' logs.
    pub container_logs_dir: PathBuf,
    /// Cgroup under which `kubepods` is made.
    pub cgroup_root: String,
    /// The cgroup driver of a runtime that does not tell its own.
    pub cgroup_driver: Option<CgroupDriver>,
    /// Default seccomp profile for containers.
    pub seccomp_default: bool,
    /// The longest pause between two instances of a container in a crash loop.
    pub max_restart_period: Duration,
    /// Kernel parameters that pods may set besides the safe ones.
    pub allowed_unsafe_sysctls: Allowed,
    /// Ids of each pod with a user namespace of its own.
    pub ids_per_pod: u32,
    /// Names.
    pub dns: DnsSettings,
    /// How images are pulled.
    pub images: ImageSettings,
    /// When images are collected.
    pub image_gc: ImagePolicy,
    /// When logs are rotated; `None` for never.
    pub log_rotation: Option<LogPolicy>,
    /// What pods may use at most.
    pub limits: Limits,
}

/// A flag's value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// There is nowhere to read manifests from.
    #[error(
        "--pod-manifest-path is not set, nor --manifest-url: name the directory with the pods' manifests"
    )]
    NoManifestPath,
    /// Flags about sources are out of range or do not fit each other.
    #[error("{0}")]
    Sources(String),
    /// A path must be absolute.
    #[error("--{flag} {path}: the path must be absolute")]
    Relative {
        /// The flag.
        flag: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The node's name cannot be part of a pod's name.
    #[error(
        "node name {name:?} is no DNS-1123 subdomain (lower case letters, digits, '-' and '.'): use --hostname-override"
    )]
    NodeName {
        /// The name.
        name: String,
    },
    /// The endpoint is of a kind that is not spoken.
    #[error("--container-runtime-endpoint: {0}")]
    Endpoint(String),
    /// The cluster's domain cannot stand in a resolv.conf.
    #[error("--cluster-domain {domain:?} is no domain name")]
    ClusterDomain {
        /// Its value.
        domain: String,
    },
    /// Flags about images are out of range or do not fit each other.
    #[error("{0}")]
    Images(String),
    /// Flags about the node are no labels, amounts or thresholds.
    #[error("{0}")]
    Node(String),
    /// Flags about logs are out of range.
    #[error("{0}")]
    Logs(String),
    /// The limit of a pod's processes is none.
    #[error("--pod-max-pids {0}: a number of processes, or -1 for any number")]
    PodMaxPids(i64),
    /// The rescan period is out of range.
    #[error("--file-check-frequency must be at least 10ms")]
    Frequency,
    /// Ids of pods come in whole ranges.
    #[error("--userns-ids-per-pod must be a multiple of 65536")]
    IdsPerPod,
    /// The longest pause of a crash loop is out of range.
    #[error("--max-container-restart-period must be between 1s and 300s")]
    RestartPeriod,
    /// A pattern of kernel parameters is none.
    #[error("--allowed-unsafe-sysctls: {0}")]
    Sysctls(#[from] BadPattern),
}

impl Config {
    /// Checks the flags and reads the node's facts.
    pub fn new(run: &RunFlags, runtime: &RuntimeFlags) -> Result<Self, ConfigError> {
        let node_name = facts::node_name(run.hostname_override.as_deref());
        if !is_subdomain(&node_name) {
            return Err(ConfigError::NodeName { name: node_name });
        }
        let sources = run.sources.sources()?;
        let max_restart_period = run.max_container_restart_period;
        if !(Duration::from_secs(1)..=LONGEST_BACKOFF).contains(&max_restart_period) {
            return Err(ConfigError::RestartPeriod);
        }
        let found = || facts::addresses();
        Ok(Self {
            sources,
            labels: run.node.labels(&node_name)?,
            reserved: run.node.reservations()?,
            node_name,
            node_ips: if run.node_ip.is_empty() { found() } else { run.node_ip.clone() },
            root_dir: absolute("root-dir", &runtime.root_dir)?,
            state_dir: absolute("state-dir", &runtime.state_dir)?,
            pod_logs_dir: absolute("pod-logs-dir", &run.pod_logs_dir)?,
            container_logs_dir: absolute("container-logs-dir", &run.container_logs_dir)?,
            cgroup_root: run.cgroup_root.clone(),
            cgroup_driver: run.cgroup_driver.map(CgroupDriver::from),
            seccomp_default: run.seccomp_default,
            max_restart_period,
            allowed_unsafe_sysctls: Allowed::parse(run.allowed_unsafe_sysctls.iter().map(String::as_str))?,
            ids_per_pod: Some(run.userns_ids_per_pod)
                .filter(|ids| *ids > 0 && ids.is_multiple_of(userns::IDS))
                .ok_or(ConfigError::IdsPerPod)?,
            dns: run.dns.settings()?,
            images: run.images.settings(&runtime.root_dir)?,
            image_gc: run.images.policy()?,
            log_rotation: run.logs.policy()?,
            limits: run.limits.limits()?,
        })
    }
}

/// A time in which a runtime can answer.
fn request_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_secs(1) => Err("must be at least 1s".to_owned()),
        long => Ok(long),
    }
}

/// A DNS-1123 subdomain: what names of nodes and pods must be.
pub fn is_subdomain(name: &str) -> bool {
    let label = |l: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !l.is_empty() && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn absolute(flag: &'static str, path: &Path) -> Result<PathBuf, ConfigError> {
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(ConfigError::Relative { flag, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        runtime: RuntimeFlags,
        #[command(flatten)]
        run: RunFlags,
    }

    fn config(flags: &str) -> Result<Config, ConfigError> {
        let words = std::iter::once("podstead").chain(flags.split_whitespace());
        let flags = <Flags as clap::Parser>::try_parse_from(words).unwrap();
        Config::new(&flags.run, &flags.runtime)
    }

    #[test]
    fn the_nodes_name_is_trimmed_and_in_lower_case_and_given_addresses_are_taken() {
        let config =
            config("--pod-manifest-path /m --hostname-override Node-1 --node-ip 10.0.0.1,fd00::1").unwrap();
        assert_eq!(config.node_name, "node-1");
        assert_eq!(config.node_ips.len(), 2);
        assert_eq!(config.sources.file_check_frequency, Duration::from_secs(20));
        assert_eq!(config.root_dir, Path::new("/var/lib/podstead"));
        assert_eq!(config.cgroup_driver, None);
        let systemd = self::config("--pod-manifest-path /m --hostname-override n --cgroup-driver systemd");
        assert_eq!(systemd.unwrap().cgroup_driver, Some(CgroupDriver::Systemd));
    }

    #[test]
    fn the_classic_line_of_fedoras_kubelet_works_as_it_stands() {
        let line =
            "--cluster-dns=10.254.0.10 --cluster-domain=kube.local --pod-manifest-path=/etc/kubelet.d/";
        let config = config(&format!("{line} --hostname-override n")).unwrap();
        assert_eq!(config.sources.paths, [Path::new("/etc/kubelet.d/")]);
        assert_eq!(config.dns.servers, ["10.254.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.dns.domain, "kube.local");
        assert_eq!(config.dns.resolv_conf.as_deref(), Some(Path::new("/etc/resolv.conf")));
    }

    #[test]
    fn dns_servers_are_comma_separated_and_repeated_and_no_resolver_is_one_too() {
        let line = "--pod-manifest-path /m --hostname-override n --cluster-dns 10.0.0.1,fd00::1 --cluster-dns 10.0.0.2";
        let config = config(&format!("{line} --resolv-conf=")).unwrap();
        let servers: Vec<String> = config.dns.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1", "fd00::1", "10.0.0.2"]);
        assert_eq!(config.dns.resolv_conf, None);
    }

    #[test]
    fn pulls_and_collections_are_as_the_kubelets_flags_say() {
        let plain = config("--pod-manifest-path /m --hostname-override n").unwrap();
        assert_eq!(plain.images.rates, crate::images::limits::Rates::default());
        assert_eq!(plain.image_gc, ImagePolicy::default());
        let with = |flags: &str| config(&format!("--pod-manifest-path /m --hostname-override n {flags}"));
        let parallel = |flags: &str| with(flags).unwrap().images.rates.parallel;
        assert_eq!(parallel("--serialize-image-pulls"), Some(1));
        assert_eq!(parallel("--serialize-image-pulls=false"), None);
        assert_eq!(parallel("--max-parallel-image-pulls 4"), Some(4));
        assert_eq!(parallel("--max-parallel-image-pulls 1"), Some(1));
        assert_eq!(parallel("--serialize-image-pulls=false --max-parallel-image-pulls 4"), Some(4));
        let rates = with("--registry-qps=0 --registry-burst 3").unwrap().images.rates;
        assert_eq!((rates.per_second, rates.burst), (0, 3));
        let gc = "--image-gc-high-threshold=50 --image-gc-low-threshold=40 --minimum-image-ttl-duration=1m";
        let gc = with(gc).unwrap().image_gc;
        assert_eq!((gc.high, gc.low, gc.min_age), (50, 40, Duration::from_secs(60)));
        assert_eq!(with("--image-maximum-gc-age=3m").unwrap().image_gc.max_age, Duration::from_secs(180));
        for (flags, why) in [
            ("--serialize-image-pulls --max-parallel-image-pulls 2", "--serialize-image-pulls=false"),
            ("--serialize-image-pulls=false --max-parallel-image-pulls 0", "at least 1"),
            ("--image-gc-high-threshold 101", "between 0 and 100"),
            ("--image-gc-low-threshold 85", "less than"),
            ("--image-maximum-gc-age 2m", "more than"),
        ] {
            let error = with(flags).unwrap_err().to_string();
            assert!(error.contains(why), "{flags}: {error}");
        }
    }

    #[test]
    fn logs_are_rotated_by_size_and_number() {
        let with = |flags: &str| config(&format!("--pod-manifest-path /m --hostname-override n {flags}"));
        assert_eq!(with("").unwrap().log_rotation, Some(LogPolicy::default()));
        let given = with("--container-log-max-size=100k --container-log-max-files 2").unwrap().log_rotation;
        let given = given.unwrap();
        assert_eq!((given.max_size, given.max_files), (100_000, 2));
        let often = with("--container-log-monitor-interval 1s").unwrap().log_rotation.unwrap();
        assert_eq!(often.period, Duration::from_secs(1));
        assert_eq!(with("--container-log-max-size=-1").unwrap().log_rotation, None);
        for flags in [
            "--container-log-max-size x",
            "--container-log-max-size 0",
            "--container-log-max-files 1",
            "--container-log-monitor-interval 99ms",
        ] {
            let error = with(flags).unwrap_err().to_string();
            assert!(error.contains(flags.split(' ').next().unwrap_or_default()), "{flags}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |flags: &str| config(flags).unwrap_err();
        assert_eq!(refused("--hostname-override n"), ConfigError::NoManifestPath);
        for (flag, more) in [
            ("pod-manifest-path", ""),
            ("root-dir", "--pod-manifest-path /m"),
            ("pod-logs-dir", "--pod-manifest-path /m"),
        ] {
            let error = refused(&format!("--hostname-override n --{flag} a/b {more}"));
            assert_eq!(error, ConfigError::Relative { flag, path: "a/b".into() });
        }
        let relative = refused("--pod-manifest-path /m --hostname-override n --resolv-conf a");
        assert_eq!(relative, ConfigError::Relative { flag: "resolv-conf", path: "a".into() });
        let domain = refused("--pod-manifest-path /m --hostname-override n --cluster-domain a\u{7}");
        assert!(domain.to_string().contains("--cluster-domain"), "{domain}");
        let named = refused("--pod-manifest-path /m --hostname-override a_b");
        assert_eq!(named, ConfigError::NodeName { name: "a_b".into() });
        let often = refused("--pod-manifest-path /m --hostname-override n --file-check-frequency 9ms");
        assert_eq!(often, ConfigError::Frequency);
        for period in ["999ms", "301s"] {
            let flags = format!(
                "--pod-manifest-path /m --hostname-override n --max-container-restart-period {period}"
            );
            assert_eq!(refused(&flags), ConfigError::RestartPeriod);
        }
        let sysctls = refused(
            "--pod-manifest-path /m --hostname-override n --allowed-unsafe-sysctls net.*,vm.swappiness",
        );
        assert_eq!(sysctls, ConfigError::Sysctls(BadPattern::NotNamespaced("vm.swappiness".into())));
    }

    #[test]
    fn a_runtime_has_a_second_to_answer_at_least() {
        assert_eq!(request_timeout("1s"), Ok(Duration::from_secs(1)));
        assert!(request_timeout("999ms").is_err());
    }

    #[test]
    fn node_names_are_dns_names() {
        assert!(is_subdomain("node-1.example.com"));
        for bad in ["", "Node", "a_b", "-a", "a-", "a..b", "a b"] {
            assert!(!is_subdomain(bad), "{bad}");
        }
    }
}
