//! One plugin's known false alarm. Pure.

use std::net::IpAddr;

use super::{Error, Fault};

/// Whether CHECK failed for no reason: many versions of portmap look for their rules in the tables of both IP families,
/// also when the pod has addresses of one only (containernetworking/plugins#819).
pub(super) fn is_false_alarm(error: &Error, mut ips: impl Iterator<Item = IpAddr>) -> bool {
    let Error::Plugin(error) = error else { return false };
    let Fault::Reported { message, .. } = &error.fault else { return false };
    let misses = |family: &str| message.starts_with(&format!("could not check {family} dnat: chain "));
    error.plugin == "portmap"
        && match (misses("ipv4"), misses("ipv6")) {
            (true, _) => !ips.any(|ip| ip.is_ipv4()),
            (_, true) => !ips.any(|ip| ip.is_ipv6()),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::super::PluginError;
    use super::*;

    fn is_false(plugin: &str, message: &str, ips: &[&str]) -> bool {
        let nothing = String::new;
        let fault =
            Fault::Reported { code: 999, message: message.into(), details: nothing(), stderr: nothing() };
        let error = PluginError { plugin: plugin.into(), command: "CHECK", sandbox: "s".into(), fault };
        let ips = ips.iter().map(|ip| ip.parse().expect("an address"));
        is_false_alarm(&Error::from(Box::new(error)), ips)
    }

    #[test]
    fn rules_are_not_missed_in_a_family_that_the_pod_has_no_address_of() {
        let missing = |family: &str| {
            format!("could not check {family} dnat: chain CNI-DN-0 not found in iptables table nat")
        };
        let (four, six) = (missing("ipv4"), missing("ipv6"));
        assert!(is_false("portmap", &six, &["10.0.0.1"]) && is_false("portmap", &four, &["fd00::1"]));
        assert!(!is_false("portmap", &four, &["10.0.0.1"]) && !is_false("portmap", &six, &["fd00::1"]));
        let both = ["10.0.0.1", "fd00::1"];
        assert!(!is_false("portmap", &four, &both) && !is_false("portmap", &six, &both));
        assert!(!is_false("bridge", &six, &["10.0.0.1"]) && !is_false("portmap", "no route", &["10.0.0.1"]));
    }
}
