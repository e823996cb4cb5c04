//! Validation of a pod's names: host name, host aliases, DNS. Pure; the rest of the rules stand in `admit`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

use super::admit::Report;
use super::names;
use crate::pod::dns::{MAX_SEARCH_CHARS, MAX_SEARCHES, MAX_SERVERS};

const POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

/// All of a pod's names.
pub(super) fn names(spec: &PodSpec, report: &mut Report<'_>) {
    hostname(spec, report);
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let field = format!("spec.hostAliases[{index}]");
        address(&alias.ip, &format!("{field}.ip"), report);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            report.verdict(&format!("{field}.hostnames[{index}]"), names::subdomain(name));
        }
    }
    if let Some(policy) = &spec.dns_policy {
        report.one_of("spec.dnsPolicy", policy, POLICIES);
    }
    dns(spec, report);
}

fn hostname(spec: &PodSpec, report: &mut Report<'_>) {
    for (field, name) in [("spec.hostname", &spec.hostname), ("spec.subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            report.verdict(field, names::label(name));
        }
    }
    let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) else { return };
    let field = "spec.hostnameOverride";
    if name.len() > 64 {
        report.add(field, "may not be longer than 64 characters");
    } else {
        report.verdict(field, names::subdomain(name));
    }
    if spec.set_hostname_as_fqdn == Some(true) {
        report.add(field, "may not be set together with setHostnameAsFQDN");
    }
    if spec.host_network == Some(true) {
        report.add(field, "may not be set on the host's network");
    }
}

fn dns(spec: &PodSpec, report: &mut Report<'_>) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let field = "spec.dnsConfig";
    let Some(config) = &spec.dns_config else {
        if none {
            report.add(field, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if none && servers.is_empty() {
        let field = format!("{field}.nameservers");
        report.add(&field, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if servers.len() > MAX_SERVERS {
        report.add(
            &format!("{field}.nameservers"),
            format!("must not have more than {MAX_SERVERS} nameservers"),
        );
    }
    for (index, server) in servers.iter().enumerate() {
        address(server, &format!("{field}.nameservers[{index}]"), report);
    }
    searches(config, &format!("{field}.searches"), report);
    for (index, option) in config.options.iter().flatten().enumerate() {
        let field = format!("{field}.options[{index}]");
        let name = option.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            report.add(&field, "must not be empty");
        }
        // The API takes it; a line break in it would be another line of resolv.conf.
        for text in [name, option.value.as_deref().unwrap_or_default()] {
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                report.add(&field, "may not contain spaces or control characters");
            }
        }
    }
}

fn searches(config: &PodDNSConfig, field: &str, report: &mut Report<'_>) {
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > MAX_SEARCHES {
        report.add(field, format!("must not have more than {MAX_SEARCHES} search paths"));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARS {
        let message = "characters (including spaces) in the search list";
        report.add(field, format!("must not have more than {MAX_SEARCH_CHARS} {message}"));
    }
    for (index, search) in searches.iter().enumerate() {
        if search != "." {
            // Underscores are letters here, as in names of services.
            let name = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
            let verdict = names::subdomain(&name).map_err(|_| {
                format!("\"{search}\" must be a domain name of lower case letters, digits, '-', '_' and '.'")
            });
            report.verdict(&format!("{field}[{index}]"), verdict);
        }
    }
}

fn address(text: &str, field: &str, report: &mut Report<'_>) {
    if text.parse::<IpAddr>().is_err() {
        report
            .add(field, format!("\"{text}\" must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}
