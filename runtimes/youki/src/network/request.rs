//! What plugins are told about a pod: the environment, and each plugin's configuration for one run. Pure.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Error,
    config::{ConfList, is_identifier},
    result::Dns,
};

/// The interface inside every pod.
pub const INTERFACE: &str = "eth0";

/// A pod that is to be attached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The sandbox's ID; letters, digits, `_`, `.` and `-`.
    pub sandbox: String,
    /// The pinned network namespace.
    pub netns: PathBuf,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The pod's ports; those without a host port are ignored.
    pub ports: Vec<PortMapping>,
    /// Name service settings for plugins that have the capability `dns`.
    pub dns: Option<Dns>,
    /// Limits for plugins that have the capability `bandwidth`.
    pub bandwidth: Option<Bandwidth>,
}

/// A port of the node that leads to one of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The node's port; 0 means none.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The node's address; without it, all.
    pub host_ip: Option<IpAddr>,
}

/// A transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Limits of a pod's traffic, in bits per second and bits; 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Towards the pod, bits per second.
    pub ingress_rate: u64,
    /// Towards the pod at once, bits.
    pub ingress_burst: u64,
    /// From the pod, bits per second.
    pub egress_rate: u64,
    /// From the pod at once, bits.
    pub egress_burst: u64,
}

impl Attachment {
    /// Refuses what could not be told from the client's own syntax, in file names or in `CNI_ARGS`.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Request { sandbox: self.sandbox.clone(), reason });
        if !is_identifier(&self.sandbox) || self.sandbox.len() > 128 {
            return refuse("its ID is not one".to_owned());
        }
        for (what, text) in
            [("namespace", &self.pod_namespace), ("name", &self.pod_name), ("UID", &self.pod_uid)]
        {
            if !text.is_empty() && !is_identifier(text) {
                return refuse(format!(
                    "the pod's {what} {text:?} has characters that CNI_ARGS cannot carry"
                ));
            }
        }
        Ok(())
    }

    /// The value of `CNI_ARGS`.
    pub(super) fn args(&self) -> String {
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.pod_namespace, self.pod_name, self.sandbox, self.pod_uid
        )
    }

    /// The capability arguments this pod has, by capability.
    fn capabilities(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let ports: Vec<Value> = self.ports.iter().filter(|port| port.host_port != 0).map(port).collect();
        if !ports.is_empty() {
            all.insert("portMappings".to_owned(), ports.into());
        }
        if let Some(dns) = &self.dns {
            let value = json!({"servers": dns.nameservers, "searches": dns.search, "options": dns.options});
            all.insert("dns".to_owned(), value);
        }
        if let Some(bandwidth) = &self.bandwidth {
            all.insert("bandwidth".to_owned(), json!(bandwidth));
        }
        all
    }
}

fn port(mapping: &PortMapping) -> Value {
    let mut value = json!({
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": mapping.protocol,
    });
    if let Some(ip) = mapping.host_ip {
        value["hostIP"] = ip.to_string().into();
    }
    value
}

/// The configuration a plugin gets on stdin: its own, with the list's name and version, the capability arguments
/// it asked for, and the result so far (CNI 1.0, section 3, deriving the execution configuration).
pub(super) fn plugin_config(
    list: &ConfList,
    plugin: &Map<String, Value>,
    attachment: Option<&Attachment>,
    previous: Option<&Value>,
) -> Value {
    let mut config = plugin.clone();
    for own in ["capabilities", "runtimeConfig", "prevResult"] {
        config.remove(own);
    }
    config.insert("name".to_owned(), list.name.clone().into());
    config.insert("cniVersion".to_owned(), list.version.clone().into());
    let wanted = plugin.get("capabilities").and_then(Value::as_object);
    if let (Some(wanted), Some(attachment)) = (wanted, attachment) {
        let mut args = attachment.capabilities();
        args.retain(|capability, _| wanted.get(capability) == Some(&Value::Bool(true)));
        if !args.is_empty() {
            config.insert("runtimeConfig".to_owned(), args.into());
        }
    }
    if let Some(previous) = previous {
        config.insert("prevResult".to_owned(), previous.clone());
    }
    config.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        let mapping = |host_port, host_ip: Option<&str>| PortMapping {
            host_port,
            container_port: 80,
            protocol: Protocol::Udp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        Attachment {
            sandbox: "s1".into(),
            pod_namespace: "default".into(),
            pod_name: "web".into(),
            pod_uid: "u-1".into(),
            ports: vec![mapping(8080, None), mapping(0, None), mapping(81, Some("::1"))],
            dns: Some(Dns { nameservers: vec!["10.0.0.1".into()], ..Dns::default() }),
            bandwidth: Some(Bandwidth { ingress_rate: 1000, ..Bandwidth::default() }),
            ..Attachment::default()
        }
    }

    fn list(plugin: &Value) -> ConfList {
        let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]});
        ConfList::parse(list.to_string().as_bytes()).unwrap()
    }

    fn config(plugin: &Value, previous: Option<&Value>) -> Value {
        let list = list(plugin);
        plugin_config(&list, &list.plugins[0], Some(&attachment()), previous)
    }

    #[test]
    fn only_capabilities_that_are_asked_for_are_told() {
        let plugin =
            json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true, "dns": false}});
        assert_eq!(
            config(&plugin, None),
            json!({"cniVersion": "1.0.0", "name": "pods", "type": "portmap", "snat": true, "runtimeConfig": {
                "portMappings": [
                    {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
                    {"hostPort": 81, "containerPort": 80, "protocol": "udp", "hostIP": "::1"},
                ]
            }})
        );
        let both = config(&json!({"type": "x", "capabilities": {"dns": true, "bandwidth": true}}), None);
        assert_eq!(
            both["runtimeConfig"],
            json!({
                "dns": {"servers": ["10.0.0.1"], "searches": [], "options": []},
                "bandwidth": {"ingressRate": 1000, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
            })
        );
    }

    #[test]
    fn what_the_file_says_of_the_run_is_replaced() {
        let plugin =
            json!({"type": "x", "name": "other", "cniVersion": "0.3.1", "prevResult": 1, "runtimeConfig": 2});
        assert_eq!(config(&plugin, None), json!({"type": "x", "name": "pods", "cniVersion": "1.0.0"}));
        let previous = json!({"ips": []});
        assert_eq!(config(&plugin, Some(&previous))["prevResult"], previous);
    }

    #[test]
    fn args_name_the_pod_and_cannot_be_forged() {
        let mut attachment = attachment();
        attachment.validate().unwrap();
        assert_eq!(
            attachment.args(),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u-1"
        );
        attachment.pod_name = "web;K8S_POD_NAMESPACE=kube-system".into();
        assert!(!attachment.validate().unwrap_err().retryable());
        attachment.pod_name = "web".into();
        attachment.sandbox = "../s1".into();
        assert!(attachment.validate().is_err());
    }
}
