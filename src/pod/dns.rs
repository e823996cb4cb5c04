//! A pod's resolver settings, by its `dnsPolicy` and `dnsConfig` (`kubelet-static-pods.md 4.2`). Pure.

use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};
use podstead_runtime::DnsConfig;

/// Limits of the C library's resolver; the API has the same.
pub const MAX_SERVERS: usize = 3;
/// Search domains.
pub const MAX_SEARCHES: usize = 32;
/// Characters of all search domains together, with a space between two.
pub const MAX_SEARCH_CHARS: usize = 2048;
/// Characters of one search domain; some resolvers abort on longer ones.
const MAX_DOMAIN: usize = 253;

/// What the node's flags say about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Servers of the cluster (`--cluster-dns`).
    pub servers: Vec<IpAddr>,
    /// Domain of the cluster (`--cluster-domain`); may be empty.
    pub domain: String,
    /// The node's resolver settings (`--resolv-conf`); `None`: pods get none of them.
    pub resolv_conf: Option<PathBuf>,
}

/// Something that is not as the manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// As the kubelet names its event: `MissingClusterDNS`, `DNSConfigForming`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// A pod's settings, and what had to be left out of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formed {
    /// The settings.
    pub config: DnsConfig,
    /// What is not as asked for.
    pub complaints: Vec<Complaint>,
}

/// Reads the node's settings. Servers add up, the last search line counts, later options replace earlier ones of their
/// name.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                // With and without a dot at the end is the same domain, but the root is only a dot.
                let bare = |word: &str| match word {
                    "." => word.to_owned(),
                    word => word.strip_suffix('.').unwrap_or(word).to_owned(),
                };
                config.searches = words.map(bare).collect();
            }
            Some("options") => words.for_each(|word| set_option(&mut config.options, word)),
            _ => {}
        }
    }
    config
}

/// The pod's settings; `node` are the node's own, as they are now.
pub fn form(settings: &Settings, node_ips: &[IpAddr], node: &DnsConfig, pod: &Pod) -> Formed {
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let mut complaints = Vec::new();
    let mut config = base(settings, node_ips, node, pod, spec, &mut complaints);
    if let Some(own) = &spec.dns_config {
        merge(&mut config, own);
    }
    limit(&mut config, &mut complaints);
    Formed { config, complaints }
}

/// What the policy alone says.
fn base(
    settings: &Settings,
    node_ips: &[IpAddr],
    node: &DnsConfig,
    pod: &Pod,
    spec: &PodSpec,
    complaints: &mut Vec<Complaint>,
) -> DnsConfig {
    let cluster = match spec.dns_policy.as_deref() {
        Some("None") => return DnsConfig::default(),
        Some("Default") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => spec.host_network != Some(true),
    };
    if cluster && !settings.servers.is_empty() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        return of_cluster(settings, namespace, &node.searches);
    }
    if cluster {
        let message =
            "without --cluster-dns, dnsPolicy ClusterFirst means the node's resolver, as Default does";
        complaints.push(Complaint { reason: "MissingClusterDNS", message: message.into() });
    }
    if settings.resolv_conf.is_some() { node.clone() } else { nothing(node_ips) }
}

fn of_cluster(settings: &Settings, namespace: &str, nodes_searches: &[String]) -> DnsConfig {
    let mut searches = Vec::new();
    let domain = settings.domain.as_str();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    }
    searches.extend(nodes_searches.iter().cloned());
    DnsConfig {
        servers: settings.servers.iter().map(ToString::to_string).collect(),
        searches: if domain.is_empty() { searches } else { without_twins(searches) },
        options: vec!["ndots:5".into()],
    }
}

/// A resolver that finds nothing: where a file names no server, the pod's own loopback is asked.
fn nothing(node_ips: &[IpAddr]) -> DnsConfig {
    let loopback = |ip: &IpAddr| if ip.is_ipv6() { "::1" } else { "127.0.0.1" }.to_owned();
    let mut servers = without_twins(node_ips.iter().map(loopback).collect());
    if servers.is_empty() {
        servers.push("127.0.0.1".into());
    }
    DnsConfig { servers, searches: vec![".".into()], options: vec![] }
}

fn merge(config: &mut DnsConfig, own: &PodDNSConfig) {
    let joined = |have: &mut Vec<String>, more: Option<&Vec<String>>| {
        have.extend(more.into_iter().flatten().cloned());
        *have = without_twins(std::mem::take(have));
    };
    joined(&mut config.servers, own.nameservers.as_ref());
    joined(&mut config.searches, own.searches.as_ref());
    for option in own.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        match option.value.as_deref().unwrap_or_default() {
            "" => set_option(&mut config.options, name),
            value => set_option(&mut config.options, &format!("{name}:{value}")),
        }
    }
}

/// Sets an option, in the place of an earlier one of its name. The kubelet leaves the order to chance.
fn set_option(options: &mut Vec<String>, option: &str) {
    let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|have| name(have) == name(option)) {
        Some(have) => option.clone_into(have),
        None => options.push(option.to_owned()),
    }
}

fn without_twins(mut texts: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    texts.retain(|text| seen.insert(text.clone()));
    texts
}

fn limit(config: &mut DnsConfig, complaints: &mut Vec<Complaint>) {
    let mut complain = |what: &str, applied: &[String]| {
        let line = applied.join(" ");
        let message = match what {
            "Nameserver" => format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                 {line}"
            ),
            _ => format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: \
                 {line}"
            ),
        };
        complaints.push(Complaint { reason: "DNSConfigForming", message });
    };
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        complain("Nameserver", &config.servers);
    }
    let asked = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    config.searches.retain(|domain| domain.len() <= MAX_DOMAIN);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < asked {
        complain("Search", &config.searches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let mut pod: Pod = serde_yaml::from_str(&format!("spec: {{containers: [], {spec}}}")).unwrap();
        pod.metadata.namespace = Some("ns".into());
        pod
    }

    fn settings() -> Settings {
        Settings {
            servers: vec!["10.254.0.10".parse().unwrap()],
            domain: "kube.local".into(),
            resolv_conf: Some("/etc/resolv.conf".into()),
        }
    }

    fn config(servers: &[&str], searches: &[&str], options: &[&str]) -> DnsConfig {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
        DnsConfig { servers: owned(servers), searches: owned(searches), options: owned(options) }
    }

    fn node() -> DnsConfig {
        config(&["192.0.2.53"], &["example.com", "kube.local"], &["timeout:1"])
    }

    fn formed(settings: &Settings, spec: &str) -> DnsConfig {
        form(settings, &["192.0.2.7".parse().unwrap()], &node(), &pod(spec)).config
    }

    #[test]
    fn a_resolv_conf_is_read_as_the_kubelet_reads_it() {
        let text = "# comment\n  ; another\nnameserver 192.0.2.1\n nameserver\t::1 more\nnameserver\nsearch lost.example\n\
                    search a.example. . b.example\noptions ndots:2 rotate\noptions ndots:3 edns0\ndomain d\n#nameserver 9.9.9.9";
        let want =
            config(&["192.0.2.1", "::1"], &["a.example", ".", "b.example"], &["ndots:3", "rotate", "edns0"]);
        assert_eq!(parse(text), want);
        assert_eq!(parse(""), DnsConfig::default());
    }

    #[test]
    fn cluster_first_asks_the_cluster_and_searches_it_before_the_nodes_domains() {
        let cluster = config(
            &["10.254.0.10"],
            &["ns.svc.kube.local", "svc.kube.local", "kube.local", "example.com"],
            &["ndots:5"],
        );
        assert_eq!(formed(&settings(), ""), cluster);
        assert_eq!(formed(&settings(), "dnsPolicy: ClusterFirst"), cluster);
        assert_eq!(formed(&settings(), "dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true"), cluster);
        let nameless = Settings { domain: String::new(), ..settings() };
        let expected = config(&["10.254.0.10"], &["example.com", "kube.local"], &["ndots:5"]);
        assert_eq!(formed(&nameless, ""), expected);
    }

    #[test]
    fn the_nodes_resolver_is_for_default_and_for_the_nodes_network() {
        for spec in ["dnsPolicy: Default", "hostNetwork: true", "dnsPolicy: ClusterFirst, hostNetwork: true"]
        {
            assert_eq!(formed(&settings(), spec), node(), "{spec}");
        }
    }

    #[test]
    fn without_a_cluster_dns_it_is_the_nodes_resolver_and_that_is_said() {
        let none = Settings { servers: vec![], ..settings() };
        let got = form(&none, &[], &node(), &pod(""));
        assert_eq!(got.config, node());
        assert_eq!(got.complaints[0].reason, "MissingClusterDNS");
        assert_eq!(form(&none, &[], &node(), &pod("dnsPolicy: Default")).complaints, []);
    }

    #[test]
    fn without_a_resolv_conf_nothing_is_found() {
        let none = Settings { resolv_conf: None, ..settings() };
        let got = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            form(&none, &ips, &DnsConfig::default(), &pod("dnsPolicy: Default")).config
        };
        assert_eq!(got(&[]), config(&["127.0.0.1"], &["."], &[]));
        assert_eq!(got(&["fd00::1", "fd00::2", "10.0.0.1"]), config(&["::1", "127.0.0.1"], &["."], &[]));
    }

    #[test]
    fn the_pods_own_settings_are_added_and_its_options_replace() {
        let own = "dnsConfig: {nameservers: [192.0.2.53, 192.0.2.54], searches: [kube.local, more.example], \
                   options: [{name: timeout, value: \"3\"}, {name: rotate}, {name: edns0, value: \"\"}]}";
        let want = config(
            &["192.0.2.53", "192.0.2.54"],
            &["example.com", "kube.local", "more.example"],
            &["timeout:3", "rotate", "edns0"],
        );
        assert_eq!(formed(&settings(), &format!("dnsPolicy: Default, {own}")), want);
        let alone = config(
            &["192.0.2.53", "192.0.2.54"],
            &["kube.local", "more.example"],
            &["timeout:3", "rotate", "edns0"],
        );
        assert_eq!(formed(&settings(), &format!("dnsPolicy: None, {own}")), alone);
    }

    #[test]
    fn what_no_resolver_takes_is_left_out_and_said() {
        let own = "dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]}";
        let got = form(&settings(), &[], &node(), &pod(own));
        assert_eq!(got.config.servers, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let said = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                    192.0.2.1 192.0.2.2 192.0.2.3";
        assert_eq!(got.complaints, [Complaint { reason: "DNSConfigForming", message: said.into() }]);
    }

    #[test]
    fn search_domains_are_limited_in_number_in_length_and_together() {
        let limited = |searches: Vec<String>| {
            let node = DnsConfig { searches, ..node() };
            form(&settings(), &[], &node, &pod("dnsPolicy: Default"))
        };
        let many = (0..40).map(|n| format!("d{n}.example")).collect();
        assert_eq!(limited(many).config.searches.len(), 32);
        let got = limited(vec!["a".repeat(254), "b".repeat(253)]);
        assert_eq!(got.config.searches, ["b".repeat(253)]);
        assert!(got.complaints[0].message.starts_with("Search Line limits were exceeded"), "{got:?}");
        // Eight of 253 and the seven spaces between them fit 2048, a ninth does not.
        let long: Vec<String> = ('a'..='i').map(|c| c.to_string().repeat(253)).collect();
        let got = limited(long.clone());
        assert_eq!(got.config.searches, long[..8]);
        assert_eq!(limited(long[..8].to_vec()).complaints, []);
    }
}
