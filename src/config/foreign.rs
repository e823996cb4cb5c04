//! The kubelet's flags that mean nothing here. Pure.
//!
//! They are taken from a kubelet's command line and named once in the log; what is in neither table is a mistake.

/// A flag of the kubelet's that does nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Whether it takes a value in the next word.
    pub value: bool,
    /// Why it does nothing.
    pub why: &'static str,
}

const fn value(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, value: true, why }
}

const fn switch(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, value: false, why }
}

const NO_SERVER: &str = "there is no API server to talk to";
const NO_HTTP: &str = "the kubelet's HTTP endpoints are not there yet";
const NO_EVICTION: &str = "nothing is evicted yet";
const NO_MANAGER: &str = "there are no CPU, memory and topology managers";
const NO_RESERVE: &str = "nothing is enforced on the node's other processes";
const LOGS: &str = "lines go to standard error, one form of them";
const UNIT: &str = "the service's unit says it";
const GONE: &str = "newer kubelets do not know it either";
const NETWORK: &str = "the network's configuration says it";
const SUPERSEDED: &str = "dead containers go when they are superseded";
const NOT_YET: &str = "not there yet";

/// The flags, and those of older kubelets that still stand in files.
pub const TABLE: &[Foreign] = &[
    value("kubeconfig", NO_SERVER),
    value("bootstrap-kubeconfig", NO_SERVER),
    value("experimental-bootstrap-kubeconfig", NO_SERVER),
    value("api-servers", GONE),
    switch("require-kubeconfig", GONE),
    value("auth-path", GONE),
    value("cert-dir", NO_SERVER),
    switch("rotate-certificates", NO_SERVER),
    switch("rotate-server-certificates", NO_SERVER),
    switch("register-node", NO_SERVER),
    switch("register-schedulable", GONE),
    value("register-with-taints", NO_SERVER),
    value("node-status-update-frequency", NO_SERVER),
    value("node-status-max-images", NO_SERVER),
    value("provider-id", NO_SERVER),
    value("cloud-provider", NO_SERVER),
    value("cloud-config", GONE),
    value("event-qps", NO_SERVER),
    value("event-burst", NO_SERVER),
    value("kube-api-qps", NO_SERVER),
    value("kube-api-burst", NO_SERVER),
    value("kube-api-content-type", NO_SERVER),
    switch("enable-controller-attach-detach", NO_SERVER),
    value("master-service-namespace", GONE),
    value("lock-file", "one agent holds the lock of its --state-dir and --root-dir"),
    switch("exit-on-lock-contention", "one agent holds the lock of its --state-dir and --root-dir"),
    switch("enable-server", NO_HTTP),
    value("address", NO_HTTP),
    value("port", NO_HTTP),
    value("read-only-port", NO_HTTP),
    value("healthz-port", NO_HTTP),
    value("healthz-bind-address", NO_HTTP),
    value("tls-cert-file", NO_HTTP),
    value("tls-private-key-file", NO_HTTP),
    value("tls-cipher-suites", NO_HTTP),
    value("tls-min-version", NO_HTTP),
    value("client-ca-file", NO_HTTP),
    switch("anonymous-auth", NO_HTTP),
    switch("authentication-token-webhook", NO_HTTP),
    value("authentication-token-webhook-cache-ttl", NO_HTTP),
    value("authorization-mode", NO_HTTP),
    value("authorization-webhook-cache-authorized-ttl", NO_HTTP),
    value("authorization-webhook-cache-unauthorized-ttl", NO_HTTP),
    switch("enable-debugging-handlers", NO_HTTP),
    switch("contention-profiling", NO_HTTP),
    value("streaming-connection-idle-timeout", NO_HTTP),
    value("cadvisor-port", GONE),
    value("metrics-port", NO_HTTP),
    switch("redirect-container-streaming", GONE),
    value("sync-frequency", "the runtime's events are followed; all is read again each minute"),
    value("container-runtime", "--runtime says it"),
    value("docker-endpoint", GONE),
    value("image-pull-progress-deadline", GONE),
    value("pod-infra-container-image", "the runtime's configuration says it"),
    value("pods-per-core", NOT_YET),
    value("kube-reserved-cgroup", NO_RESERVE),
    value("system-reserved-cgroup", NO_RESERVE),
    value("enforce-node-allocatable", NO_RESERVE),
    value("qos-reserved", NO_RESERVE),
    value("reserved-cpus", NO_MANAGER),
    value("reserved-memory", NO_MANAGER),
    value("cpu-manager-policy", NO_MANAGER),
    value("cpu-manager-policy-options", NO_MANAGER),
    value("cpu-manager-reconcile-period", NO_MANAGER),
    value("memory-manager-policy", NO_MANAGER),
    value("topology-manager-policy", NO_MANAGER),
    value("topology-manager-policy-options", NO_MANAGER),
    value("topology-manager-scope", NO_MANAGER),
    switch("cpu-cfs-quota", NOT_YET),
    value("cpu-cfs-quota-period", NOT_YET),
    switch("cgroups-per-qos", "pods are always below the cgroup of their class"),
    switch("fail-swap-on", "swap is the runtime's and the node's affair"),
    switch("fail-cgroupv1", "cgroup v1 and v2 are both served"),
    switch("protect-kernel-defaults", "the kernel's parameters are left as they are"),
    switch("local-storage-capacity-isolation", "it is always on"),
    value("eviction-soft", NO_EVICTION),
    value("eviction-soft-grace-period", NO_EVICTION),
    value("eviction-max-pod-grace-period", NO_EVICTION),
    value("eviction-minimum-reclaim", NO_EVICTION),
    value("eviction-pressure-transition-period", NO_EVICTION),
    switch("experimental-allocatable-ignore-eviction", NO_EVICTION),
    switch("kernel-memcg-notification", NO_EVICTION),
    switch("experimental-kernel-memcg-notification", NO_EVICTION),
    value("low-diskspace-threshold-mb", GONE),
    value("maximum-dead-containers", SUPERSEDED),
    value("maximum-dead-containers-per-container", SUPERSEDED),
    value("minimum-container-ttl-duration", SUPERSEDED),
    switch("keep-terminated-pod-volumes", GONE),
    value("hairpin-mode", NETWORK),
    value("network-plugin", NETWORK),
    value("network-plugin-mtu", NETWORK),
    value("cni-cache-dir", NETWORK),
    value("non-masquerade-cidr", GONE),
    value("pod-cidr", NETWORK),
    switch("make-iptables-util-chains", "no firewall rules are made"),
    value("iptables-drop-bit", "no firewall rules are made"),
    value("iptables-masquerade-bit", "no firewall rules are made"),
    switch("allow-privileged", GONE),
    value("host-network-sources", GONE),
    value("host-pid-sources", GONE),
    value("host-ipc-sources", GONE),
    value("seccomp-profile-root", GONE),
    value("experimental-allowed-unsafe-sysctls", "--allowed-unsafe-sysctls says it"),
    value("feature-gates", "what podstead can do is always on"),
    value("kubelet-cgroups", UNIT),
    value("resource-container", UNIT),
    value("runtime-cgroups", UNIT),
    value("system-cgroups", "the node's init keeps them"),
    value("system-container", "the node's init keeps them"),
    value("oom-score-adj", UNIT),
    value("max-open-files", UNIT),
    switch("containerized", GONE),
    value("chaos-chance", GONE),
    switch("really-crash-for-testing", GONE),
    switch("runonce", GONE),
    value("volume-plugin-dir", "there are no volume plugins"),
    value("volume-stats-agg-period", "volumes are not measured"),
    value("dynamic-config-dir", GONE),
    switch("experimental-check-node-capabilities-before-mount", GONE),
    value("experimental-mounter-path", GONE),
    switch("configure-cbr0", GONE),
    value("logging-format", LOGS),
    value("log-dir", LOGS),
    value("log-file", LOGS),
    value("log-file-max-size", LOGS),
    value("log-flush-frequency", LOGS),
    value("log-backtrace-at", LOGS),
    value("log-json-info-buffer-size", LOGS),
    switch("log-json-split-stream", LOGS),
    value("log-text-info-buffer-size", LOGS),
    switch("log-text-split-stream", LOGS),
    switch("logtostderr", LOGS),
    switch("alsologtostderr", LOGS),
    value("stderrthreshold", LOGS),
    switch("add-dir-header", LOGS),
    switch("skip-headers", LOGS),
    switch("skip-log-headers", LOGS),
    switch("one-output", LOGS),
    value("vmodule", "PODSTEAD_LOG has filters by module"),
    value("application-metrics-count-limit", GONE),
    value("boot-id-file", GONE),
    value("container-hints", GONE),
    value("global-housekeeping-interval", GONE),
    value("housekeeping-interval", GONE),
    value("machine-id-file", GONE),
    value("docker-root", GONE),
    value("event-storage-age-limit", GONE),
    value("event-storage-event-limit", GONE),
    value("storage-driver-buffer-duration", GONE),
];

/// The flag of this name.
pub fn find(name: &str) -> Option<&'static Foreign> {
    TABLE.iter().find(|flag| flag.name == name)
}

/// The table as `docs/configuration.md` shows it: flags by the reason, in the table's order.
pub fn markdown() -> String {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for flag in TABLE {
        let name = format!("`--{}`", flag.name);
        match reasons.iter_mut().find(|(why, _)| *why == flag.why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((flag.why, vec![name])),
        }
    }
    let rows = reasons.iter().map(|(why, names)| format!("| {why} | {} |\n", names.join(", ")));
    format!("| Why | Flags |\n|---|---|\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_flag_stands_twice_and_none_is_ours() {
        let command = <crate::cli::Cli as clap::CommandFactory>::command();
        let run = command.find_subcommand("run").expect("run");
        let ours: BTreeSet<&str> =
            command.get_arguments().chain(run.get_arguments()).filter_map(clap::Arg::get_long).collect();
        let mut seen = BTreeSet::new();
        for flag in TABLE {
            assert!(seen.insert(flag.name), "--{} stands twice", flag.name);
            assert!(!ours.contains(flag.name), "--{} has an effect", flag.name);
        }
    }
}
