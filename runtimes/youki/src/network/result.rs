//! Results of plugins, of every version of the specification from 0.3.0 to 1.1, as types. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{config::VERSIONS, request::INTERFACE};

/// What an attachment gave the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Interfaces, on the node and in the pod.
    #[serde(deserialize_with = "or_default")]
    pub interfaces: Vec<Interface>,
    /// Addresses, in the plugins' order.
    #[serde(deserialize_with = "or_default")]
    pub ips: Vec<Ip>,
    /// Routes in the pod.
    #[serde(deserialize_with = "or_default")]
    pub routes: Vec<Route>,
    /// Name service settings.
    #[serde(deserialize_with = "or_default")]
    pub dns: Dns,
}

/// An interface that a plugin made or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address; may be empty.
    pub mac: String,
    /// Its MTU in bytes, since 1.1.
    pub mtu: Option<u32>,
    /// The network namespace it is in; empty on the node.
    pub sandbox: String,
}

/// An address with its network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ip {
    /// The address and the length of its network's prefix.
    pub address: Cidr,
    /// The gateway for this network.
    #[serde(default, deserialize_with = "optional_ip")]
    pub gateway: Option<IpAddr>,
    /// Its interface, as a place in [`Outcome::interfaces`].
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// Where to.
    #[serde(rename = "dst")]
    pub destination: Cidr,
    /// By which gateway; without it, that of the address.
    #[serde(default, rename = "gw", deserialize_with = "optional_ip")]
    pub gateway: Option<IpAddr>,
}

/// Name service settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers' addresses, most important first.
    #[serde(deserialize_with = "or_default")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(deserialize_with = "or_default")]
    pub domain: String,
    /// Domains that short names are looked up in.
    #[serde(deserialize_with = "or_default")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(deserialize_with = "or_default")]
    pub options: Vec<String>,
}

/// An address and the length of a network prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// The prefix's length, at most 32 or 128.
    pub prefix: u8,
}

impl Outcome {
    /// Reads a result. The error is for people.
    pub fn parse(result: &Value) -> Result<Self, String> {
        match result.get("cniVersion").and_then(Value::as_str) {
            Some(version) if !VERSIONS.contains(&version) => {
                return Err(format!("its cniVersion is {version:?}; supported are {}", VERSIONS.join(", ")));
            }
            _ => {}
        }
        if !result.is_object() {
            return Err("it is not a JSON object".to_owned());
        }
        let outcome = Self::deserialize(result).map_err(|e| e.to_string())?;
        match outcome.ips.iter().filter_map(|ip| ip.interface).find(|at| *at >= outcome.interfaces.len()) {
            Some(at) => Err(format!("an address is of interface {at}, which is not in it")),
            None => Ok(outcome),
        }
    }

    /// The addresses by which the pod is reached, in the plugins' order: those of its `eth0`, and those of which
    /// the plugins do not tell the interface.
    pub fn pod_ips(&self) -> Vec<IpAddr> {
        let of_pod = |ip: &&Ip| {
            let interface = ip.interface.and_then(|at| self.interfaces.get(at));
            interface.is_none_or(|interface| interface.name == INTERFACE && !interface.sandbox.is_empty())
        };
        self.ips.iter().filter(of_pod).map(|ip| ip.address.ip).collect()
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || serde::de::Error::custom(format!("{text:?} is not an address with a prefix length"));
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (ip, prefix): (IpAddr, u8) =
            (ip.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        if prefix > if ip.is_ipv4() { 32 } else { 128 } {
            return Err(wrong());
        }
        Ok(Self { ip, prefix })
    }
}

/// Plugins print null, or an empty text, for what they do not have.
fn optional_ip<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(from)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_of_all_versions_are_read() {
        for version in VERSIONS {
            let outcome = Outcome::parse(&json!({
                "cniVersion": version,
                "interfaces": [
                    {"name": "cni0", "mac": "aa:bb:cc:dd:ee:ff"},
                    {"name": "veth1", "mac": "aa:bb:cc:dd:ee:f0"},
                    {"name": "eth0", "mac": "aa:bb:cc:dd:ee:f1", "sandbox": "/run/ns", "mtu": 1400, "socketPath": "x"},
                ],
                "ips": [
                    {"version": "6", "address": "fd00::5/64", "gateway": "fd00::1", "interface": 2},
                    {"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
                    {"version": "4", "address": "10.9.0.5/16", "interface": 0},
                ],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1", "mtu": 1300, "scope": 0}],
                "dns": {"nameservers": ["10.1.0.1"], "domain": "local"},
            }))
            .unwrap();
            let ips: Vec<String> = outcome.pod_ips().iter().map(ToString::to_string).collect();
            assert_eq!(ips, ["fd00::5", "10.1.0.5"], "{version}");
            assert_eq!(outcome.interfaces[2].mtu, Some(1400));
            assert_eq!(outcome.ips[1].address.prefix, 16);
            assert_eq!(outcome.ips[2].gateway, None);
            assert_eq!(outcome.routes[1].gateway, Some("fd00::1".parse().unwrap()));
            assert_eq!(outcome.dns.nameservers, ["10.1.0.1"]);
        }
    }

    #[test]
    fn what_is_missing_or_null_is_empty() {
        let empty = Outcome::parse(&json!({"ips": null, "dns": {"search": null}, "routes": null})).unwrap();
        assert_eq!(empty, Outcome::default());
        let loose = Outcome::parse(&json!({"ips": [{"address": "10.0.0.2/24", "gateway": null}]})).unwrap();
        assert_eq!(loose.pod_ips().len(), 1);
    }

    #[test]
    fn wrong_results_say_why() {
        for (result, why) in [
            (json!([]), "object"),
            (json!({"cniVersion": "0.2.0", "ip4": {}}), "0.2.0"),
            (json!({"ips": [{"address": "10.0.0.2"}]}), "prefix"),
            (json!({"ips": [{"address": "10.0.0.2/33"}]}), "prefix"),
            (json!({"ips": [{"address": "10.0.0.2/24", "interface": 0}]}), "interface 0"),
            (json!({"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}), "invalid IP"),
        ] {
            let reason = Outcome::parse(&result).unwrap_err();
            assert!(reason.contains(why), "{result}: {reason}");
        }
    }
}
