//! What pods claim of the node and what the node has, as plain data (`kubelet-static-pods.md 5.5`). Nothing here decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use podstead_runtime::Time;
use serde::{Deserialize, Serialize};

/// Annotation of sandboxes: the pod's [`Claim`], for when its manifest is gone.
pub const CLAIM: &str = "podstead.dev/claim";
/// The resource that every pod claims one of.
pub const PODS: &str = "pods";

/// What pods may use together: `cpu` in thousandths, `memory`, `ephemeral-storage` and `hugepages-<size>` in bytes, `pods`.
/// Of what is not listed there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room(pub BTreeMap<String, i64>);

impl Room {
    /// How much there is of a resource.
    pub fn of(&self, resource: &str) -> i64 {
        self.0.get(resource).copied().unwrap_or(0)
    }
}

/// What a pod takes of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Requests, in the units of [`Room`]; one of [`PODS`] goes without saying.
    pub requests: BTreeMap<String, i64>,
    /// Ports of the node.
    pub ports: BTreeSet<HostPort>,
}

impl Claim {
    /// How much it takes of a resource.
    pub fn of(&self, resource: &str) -> i64 {
        if resource == PODS { 1 } else { self.requests.get(resource).copied().unwrap_or(0) }
    }

    /// Whether the two want one port.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.ports.iter().any(|port| other.ports.iter().any(|taken| port.conflicts(taken)))
    }
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address it is open at; `None` for all.
    pub ip: Option<IpAddr>,
    /// Its number.
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be had: the same protocol and number, at one address or at all.
    pub fn conflicts(&self, other: &Self) -> bool {
        let meet = match (self.ip, other.ip) {
            (Some(a), Some(b)) => a == b || (a.is_ipv6() == b.is_ipv6() && (all(a) || all(b))),
            _ => true,
        };
        self.protocol == other.protocol && self.port == other.port && meet
    }
}

fn all(ip: IpAddr) -> bool {
    ip.is_unspecified()
}

/// As it is written on a sandbox: `cpu=500 memory=67108864 port=TCP/8080 port=UDP/10.0.0.1/53`.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (resource, amount) in &self.requests {
            write!(f, "{space}{resource}={amount}")?;
            space = " ";
        }
        for HostPort { protocol, ip, port } in &self.ports {
            write!(f, "{space}port={protocol}/")?;
            if let Some(ip) = ip {
                write!(f, "{ip}/")?;
            }
            write!(f, "{port}")?;
            space = " ";
        }
        Ok(())
    }
}

impl std::str::FromStr for Claim {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut claim = Self::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or(())?;
            if key == "port" {
                let (protocol, rest) = value.split_once('/').ok_or(())?;
                let (ip, port) = rest.rsplit_once('/').map_or((None, rest), |(ip, port)| (Some(ip), port));
                let ip = ip.map(str::parse).transpose().map_err(|_| ())?;
                let port = port.parse().map_err(|_| ())?;
                claim.ports.insert(HostPort { protocol: protocol.to_owned(), ip, port });
            } else {
                claim.requests.insert(key.to_owned(), value.parse().map_err(|_| ())?);
            }
        }
        Ok(claim)
    }
}

/// A pod's quality of service, the one that is preempted first first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Qos {
    /// Nothing is requested or limited.
    #[default]
    BestEffort,
    /// Something is.
    Burstable,
    /// Every container has limits, and no smaller requests.
    Guaranteed,
}

/// Who goes first when there is not room for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// It takes the place of pods that are not critical.
    pub critical: bool,
    /// Its quality of service.
    pub qos: Qos,
    /// When it came.
    pub arrived: Time,
}

/// Why the node does not take a pod, in the kubelet's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// `OutOfcpu`, `NodePorts`, `NodeAffinity`, ...
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// Whether it keeps the node from what a container must not do there, and not only a pod from a place.
    pub fn protects(&self) -> bool {
        const PROTECTING: &[&str] = &[
            "SysctlForbidden",
            "AppArmor",
            "SupplementalGroupsPolicyNotSupported",
            "UserNamespacesNotSupported",
        ];
        PROTECTING.contains(&self.reason.as_str())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pod was rejected: {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: &str, ip: &str, port: u16) -> HostPort {
        HostPort { protocol: protocol.to_owned(), ip: ip.parse().ok(), port }
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        for text in [
            "",
            "cpu=500 memory=67108864 port=TCP/8080 port=UDP/10.0.0.1/53 port=UDP/fd00::1/53",
            "port=TCP/1",
        ] {
            assert_eq!(text.parse::<Claim>().unwrap().to_string(), text);
        }
        for bad in ["cpu", "cpu=x", "port=80", "port=TCP/x", "port=TCP/a/80", "port=TCP/70000"] {
            assert_eq!(bad.parse::<Claim>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn ports_conflict_at_one_address_or_at_all() {
        for (a, b, conflict) in [
            (port("TCP", "", 80), port("TCP", "10.0.0.1", 80), true),
            (port("TCP", "", 80), port("TCP", "fd00::1", 80), true),
            (port("TCP", "10.0.0.1", 80), port("TCP", "10.0.0.1", 80), true),
            (port("TCP", "10.0.0.1", 80), port("TCP", "10.0.0.2", 80), false),
            (port("TCP", "::", 80), port("TCP", "fd00::1", 80), true),
            (port("TCP", "::", 80), port("TCP", "10.0.0.1", 80), false),
            (port("TCP", "", 80), port("UDP", "", 80), false),
            (port("TCP", "", 80), port("TCP", "", 81), false),
        ] {
            assert_eq!((a.conflicts(&b), b.conflicts(&a)), (conflict, conflict), "{a:?} {b:?}");
        }
    }
}
