//! The one table of a `KubeletConfiguration`'s fields (`kubelet.config.k8s.io/v1beta1`) and the flags they stand for. Pure.
//!
//! The reader, `podstead config` and `docs/configuration.md` follow this table (`kubelet-static-pods.md 6`).

use std::fmt::Write as _;

/// What the value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A path; relative to its file.
    Path,
    /// A quantity: a string or a whole number.
    Quantity,
    /// A whole number.
    Whole,
    /// Any number.
    Number,
    /// A boolean.
    Switch,
    /// A duration such as `1m30s`.
    Span,
    /// A list of strings.
    Texts,
    /// A mapping to strings; its flag takes `KEY=VALUE`.
    Pairs,
    /// A mapping to quantities; its flag takes `KEY<VALUE`.
    Thresholds,
    /// A mapping to lists of strings; its flag takes `KEY:VALUE`.
    Headers,
    /// A mapping to booleans.
    Gates,
    /// Whatever it is; nobody looks.
    Any,
}

/// What a field does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What this flag does.
    Flag(&'static str),
    /// What this flag does, unless it is zero or empty, which the kubelet cannot tell from absent.
    NonZero(&'static str),
    /// Nothing; the text says why.
    NoEffect(&'static str),
    /// Nothing yet: what it does will be this flag.
    Awaits(&'static str),
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its path.
    pub path: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What it does.
    pub effect: Effect,
}

use Effect::{Awaits, Flag, NoEffect, NonZero};
use Kind::{
    Any, Gates, Headers, Number, Pairs, Path, Quantity, Span, Switch, Text, Texts, Thresholds, Whole,
};

/// Why a field does nothing that will do something.
pub const NOT_YET: &str = "not there yet";
const NO_SERVER: &str = "there is no API server to talk to";
const NO_HTTP: &str = "the kubelet's HTTP endpoints are not there yet";
const NO_EVICTION: &str = "nothing is evicted yet";
const NO_MANAGER: &str = "there are no CPU, memory and topology managers";
const NO_SHUTDOWN: &str = "the node's shutdown is not waited for yet";
const NO_RESERVE: &str = "nothing is enforced on the node's other processes";
const NO_SWAP: &str = "swap is the runtime's and the node's affair";
const IPTABLES: &str = "no firewall rules are made";
const GONE: &str = "the kubelet does nothing with it any more either";

const fn row(path: &'static str, kind: Kind, effect: Effect) -> Field {
    Field { path, kind, effect }
}

/// All fields, by what they are about.
pub const TABLE: &[Field] = &[
    // Manifests.
    row("staticPodPath", Path, NonZero("pod-manifest-path")),
    row("staticPodURL", Text, NonZero("manifest-url")),
    row("staticPodURLHeader", Headers, Flag("manifest-url-header")),
    row("fileCheckFrequency", Span, NonZero("file-check-frequency")),
    row("httpCheckFrequency", Span, NonZero("http-check-frequency")),
    row("syncFrequency", Span, NoEffect("the runtime's events are followed; all is read again each minute")),
    // The runtime.
    row("containerRuntimeEndpoint", Text, NonZero("container-runtime-endpoint")),
    row("imageServiceEndpoint", Text, NonZero("image-service-endpoint")),
    row("runtimeRequestTimeout", Span, NonZero("runtime-request-timeout")),
    // Names.
    row("clusterDNS", Texts, NonZero("cluster-dns")),
    row("clusterDomain", Text, NonZero("cluster-domain")),
    row("resolvConf", Path, Flag("resolv-conf")),
    // Images.
    row("registryPullQPS", Whole, Flag("registry-qps")),
    row("registryBurst", Whole, NonZero("registry-burst")),
    row("serializeImagePulls", Switch, Flag("serialize-image-pulls")),
    row("maxParallelImagePulls", Whole, Flag("max-parallel-image-pulls")),
    row("imageMinimumGCAge", Span, NonZero("minimum-image-ttl-duration")),
    row("imageMaximumGCAge", Span, NonZero("image-maximum-gc-age")),
    row("imageGCHighThresholdPercent", Whole, Flag("image-gc-high-threshold")),
    row("imageGCLowThresholdPercent", Whole, Flag("image-gc-low-threshold")),
    row("imagePullCredentialsVerificationPolicy", Text, NoEffect("images that are present are anybody's")),
    row("preloadedImagesVerificationAllowlist", Texts, NoEffect("images that are present are anybody's")),
    // Logs.
    row("podLogsDir", Path, NonZero("pod-logs-dir")),
    row("containerLogMaxSize", Quantity, NonZero("container-log-max-size")),
    row("containerLogMaxFiles", Whole, Flag("container-log-max-files")),
    row("containerLogMaxWorkers", Whole, NoEffect("one log after the other is rotated")),
    row("containerLogMonitorInterval", Span, Flag("container-log-monitor-interval")),
    row("logging.verbosity", Whole, NonZero("v")),
    row("logging.format", Text, NoEffect("there is one form of lines")),
    row("logging.flushFrequency", Any, NoEffect("lines are written at once")),
    row("logging.vmodule", Any, NoEffect("PODSTEAD_LOG has filters by module")),
    row("logging.options", Any, NoEffect("there is one form of lines")),
    // Cgroups and limits.
    row("cgroupDriver", Text, NonZero("cgroup-driver")),
    row("cgroupRoot", Text, NonZero("cgroup-root")),
    row("cgroupsPerQOS", Switch, NoEffect("pods are always below the cgroup of their class")),
    row("podPidsLimit", Whole, Flag("pod-max-pids")),
    row("maxPods", Whole, NonZero("max-pods")),
    row("podsPerCore", Whole, Awaits("pods-per-core")),
    row("kubeReserved", Pairs, Flag("kube-reserved")),
    row("systemReserved", Pairs, Flag("system-reserved")),
    row("evictionHard", Thresholds, Flag("eviction-hard")),
    row("reservedSystemCPUs", Text, NoEffect(NO_MANAGER)),
    row("enforceNodeAllocatable", Texts, NoEffect(NO_RESERVE)),
    row("systemReservedCgroup", Text, NoEffect(NO_RESERVE)),
    row("kubeReservedCgroup", Text, NoEffect(NO_RESERVE)),
    row("qosReserved", Pairs, NoEffect(NO_RESERVE)),
    row("cpuCFSQuota", Switch, Awaits("cpu-cfs-quota")),
    row("cpuCFSQuotaPeriod", Span, Awaits("cpu-cfs-quota-period")),
    row("singleProcessOOMKill", Switch, Flag("single-process-oom-kill")),
    row("failSwapOn", Switch, NoEffect(NO_SWAP)),
    row("memorySwap.swapBehavior", Text, NoEffect(NO_SWAP)),
    row("failCgroupV1", Switch, NoEffect("cgroup v1 and v2 are both served")),
    row("memoryThrottlingFactor", Number, NoEffect("memory.high is not set")),
    row("memoryReservationPolicy", Text, NoEffect("memory.min is not set")),
    row("localStorageCapacityIsolation", Switch, NoEffect("it is always on")),
    // What pods may.
    row("seccompDefault", Switch, Flag("seccomp-default")),
    row("allowedUnsafeSysctls", Texts, NonZero("allowed-unsafe-sysctls")),
    row("userNamespaces.idsPerPod", Whole, NonZero("userns-ids-per-pod")),
    row("crashLoopBackOff.maxContainerRestartPeriod", Span, Flag("max-container-restart-period")),
    row("featureGates", Gates, NoEffect("what podstead can do is always on")),
    // Without effect.
    row("evictionSoft", Pairs, NoEffect(NO_EVICTION)),
    row("evictionSoftGracePeriod", Pairs, NoEffect(NO_EVICTION)),
    row("evictionPressureTransitionPeriod", Span, NoEffect(NO_EVICTION)),
    row("evictionMaxPodGracePeriod", Whole, NoEffect(NO_EVICTION)),
    row("evictionMinimumReclaim", Pairs, NoEffect(NO_EVICTION)),
    row("mergeDefaultEvictionSettings", Switch, NoEffect(NO_EVICTION)),
    row("kernelMemcgNotification", Switch, NoEffect(NO_EVICTION)),
    row("shutdownGracePeriod", Span, NoEffect(NO_SHUTDOWN)),
    row("shutdownGracePeriodCriticalPods", Span, NoEffect(NO_SHUTDOWN)),
    row("shutdownGracePeriodByPodPriority", Any, NoEffect(NO_SHUTDOWN)),
    row("cpuManagerPolicy", Text, NoEffect(NO_MANAGER)),
    row("cpuManagerPolicyOptions", Pairs, NoEffect(NO_MANAGER)),
    row("cpuManagerReconcilePeriod", Span, NoEffect(NO_MANAGER)),
    row("draManagerReconcilePeriod", Span, NoEffect("static pods have no resource claims")),
    row("memoryManagerPolicy", Text, NoEffect(NO_MANAGER)),
    row("reservedMemory", Any, NoEffect(NO_MANAGER)),
    row("topologyManagerPolicy", Text, NoEffect(NO_MANAGER)),
    row("topologyManagerScope", Text, NoEffect(NO_MANAGER)),
    row("topologyManagerPolicyOptions", Pairs, NoEffect(NO_MANAGER)),
    row("enableServer", Switch, NoEffect(NO_HTTP)),
    row("address", Text, NoEffect(NO_HTTP)),
    row("port", Whole, NoEffect(NO_HTTP)),
    row("readOnlyPort", Whole, NoEffect(NO_HTTP)),
    row("healthzPort", Whole, NoEffect(NO_HTTP)),
    row("healthzBindAddress", Text, NoEffect(NO_HTTP)),
    row("tlsCertFile", Path, NoEffect(NO_HTTP)),
    row("tlsPrivateKeyFile", Path, NoEffect(NO_HTTP)),
    row("tlsCipherSuites", Texts, NoEffect(NO_HTTP)),
    row("tlsCurvePreferences", Any, NoEffect(NO_HTTP)),
    row("tlsMinVersion", Text, NoEffect(NO_HTTP)),
    row("rotateCertificates", Switch, NoEffect(NO_SERVER)),
    row("serverTLSBootstrap", Switch, NoEffect(NO_SERVER)),
    row("authentication.x509.clientCAFile", Path, NoEffect(NO_HTTP)),
    row("authentication.webhook.enabled", Switch, NoEffect(NO_HTTP)),
    row("authentication.webhook.cacheTTL", Span, NoEffect(NO_HTTP)),
    row("authentication.anonymous.enabled", Switch, NoEffect(NO_HTTP)),
    row("authorization.mode", Text, NoEffect(NO_HTTP)),
    row("authorization.webhook.cacheAuthorizedTTL", Span, NoEffect(NO_HTTP)),
    row("authorization.webhook.cacheUnauthorizedTTL", Span, NoEffect(NO_HTTP)),
    row("enableDebuggingHandlers", Switch, NoEffect(NO_HTTP)),
    row("enableContentionProfiling", Switch, NoEffect(NO_HTTP)),
    row("enableProfilingHandler", Switch, NoEffect(NO_HTTP)),
    row("enableDebugFlagsHandler", Switch, NoEffect(NO_HTTP)),
    row("enableSystemLogHandler", Switch, NoEffect(NO_HTTP)),
    row("enableSystemLogQuery", Switch, NoEffect(NO_HTTP)),
    row("streamingConnectionIdleTimeout", Span, NoEffect(GONE)),
    row("showHiddenMetricsForVersion", Text, NoEffect(NO_HTTP)),
    row("nodeStatusUpdateFrequency", Span, NoEffect(NO_SERVER)),
    row("nodeStatusReportFrequency", Span, NoEffect(NO_SERVER)),
    row("nodeStatusMaxImages", Whole, NoEffect(NO_SERVER)),
    row("nodeLeaseDurationSeconds", Whole, NoEffect(NO_SERVER)),
    row("registerNode", Switch, NoEffect(NO_SERVER)),
    row("registerWithTaints", Any, NoEffect(NO_SERVER)),
    row("providerID", Text, NoEffect(NO_SERVER)),
    row("eventRecordQPS", Whole, NoEffect(NO_SERVER)),
    row("eventBurst", Whole, NoEffect(NO_SERVER)),
    row("contentType", Text, NoEffect(NO_SERVER)),
    row("kubeAPIQPS", Whole, NoEffect(NO_SERVER)),
    row("kubeAPIBurst", Whole, NoEffect(NO_SERVER)),
    row("configMapAndSecretChangeDetectionStrategy", Text, NoEffect(NO_SERVER)),
    row("enableControllerAttachDetach", Switch, NoEffect(NO_SERVER)),
    row("podCIDR", Text, NoEffect("the network's configuration gives pods their addresses")),
    row("hairpinMode", Text, NoEffect("the network's configuration says it")),
    row("makeIPTablesUtilChains", Switch, NoEffect(IPTABLES)),
    row("iptablesMasqueradeBit", Whole, NoEffect(IPTABLES)),
    row("iptablesDropBit", Whole, NoEffect(IPTABLES)),
    row("protectKernelDefaults", Switch, NoEffect("the kernel's parameters are left as they are")),
    row("oomScoreAdj", Whole, NoEffect("the service's unit says it (OOMScoreAdjust=)")),
    row("maxOpenFiles", Whole, NoEffect("the service's unit says it (LimitNOFILE=)")),
    row("kubeletCgroups", Text, NoEffect("the service's unit says it (Slice=)")),
    row("systemCgroups", Text, NoEffect("the node's init keeps them")),
    row("volumePluginDir", Path, NoEffect("there are no volume plugins")),
    row("volumeStatsAggPeriod", Span, NoEffect("volumes are not measured")),
    row("tracing.endpoint", Text, NoEffect("no traces are sent")),
    row("tracing.samplingRatePerMillion", Whole, NoEffect("no traces are sent")),
    row("runOnce", Switch, NoEffect(GONE)),
    row("dynamicKubeletConfigDir", Text, NoEffect(GONE)),
];

/// The row of a field.
pub fn field(path: &str) -> Option<&'static Field> {
    TABLE.iter().find(|field| field.path == path)
}

/// The field that stands for a flag.
pub fn of_flag(flag: &str) -> Option<&'static Field> {
    TABLE.iter().find(|field| field.flag() == Some(flag))
}

impl Field {
    /// The flag it stands for.
    pub fn flag(&self) -> Option<&'static str> {
        match self.effect {
            Flag(flag) | NonZero(flag) => Some(flag),
            NoEffect(_) | Awaits(_) => None,
        }
    }

    /// Why it does nothing.
    pub fn idle(&self) -> Option<&'static str> {
        match self.effect {
            Flag(_) | NonZero(_) => None,
            NoEffect(why) => Some(why),
            Awaits(_) => Some(NOT_YET),
        }
    }
}

/// Names that may stand directly below a path, which is empty for the document.
pub fn below(path: &str) -> impl Iterator<Item = &'static str> + Clone {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    let names = TABLE.iter().filter_map(move |field| field.path.strip_prefix(prefix.as_str()));
    names.map(|rest| rest.split('.').next().unwrap_or(rest))
}

/// The table as `docs/configuration.md` shows it.
pub fn markdown() -> String {
    let mut text = String::from("| Field | Flag | |\n|---|---|---|\n");
    let (with, without): (Vec<&Field>, Vec<&Field>) = TABLE.iter().partition(|field| field.flag().is_some());
    for field in with {
        let flag = field.flag().unwrap_or_default();
        let _ = writeln!(text, "| `{}` | `--{flag}` | |", field.path);
    }
    for field in without {
        let _ = writeln!(text, "| `{}` | | no effect: {} |", field.path, field.idle().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_field_and_every_flag_stands_once() {
        let mut paths = BTreeSet::new();
        let mut flags = BTreeSet::new();
        for field in TABLE {
            assert!(paths.insert(field.path), "{} stands twice", field.path);
            assert!(field.flag().is_none_or(|flag| flags.insert(flag)), "two fields for {:?}", field.effect);
            let inner = format!("{}.", field.path);
            assert!(!TABLE.iter().any(|other| other.path.starts_with(&inner)), "{} is a group", field.path);
        }
    }

    #[test]
    fn every_field_of_a_flag_has_a_flag() {
        let command = <crate::cli::Cli as clap::CommandFactory>::command();
        let run = command.find_subcommand("run").expect("run");
        let known: BTreeSet<&str> =
            command.get_arguments().chain(run.get_arguments()).filter_map(clap::Arg::get_long).collect();
        for flag in TABLE.iter().filter_map(Field::flag) {
            assert!(known.contains(flag), "--{flag}");
        }
        for field in TABLE {
            if let Awaits(flag) = field.effect {
                assert!(!known.contains(flag), "{}: --{flag} is there now", field.path);
            }
        }
    }

    #[test]
    fn the_documentation_shows_the_tables() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let mut text = std::fs::read_to_string(file).unwrap_or_default();
        let old = text.clone();
        for (name, table) in [("fields", markdown()), ("flags", super::super::foreign::markdown())] {
            let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
            let from = text.find(&begin).expect("a place for the table") + begin.len();
            let to = text.find(&end).expect("an end");
            text.replace_range(from..to, &table);
        }
        if std::env::var_os("BLESS").is_some() {
            return std::fs::write(file, text).expect("write");
        }
        assert!(text == old, "docs/configuration.md is out of date; run this test with BLESS=1");
    }
}
