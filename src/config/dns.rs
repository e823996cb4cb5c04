//! Flags about names: cluster DNS and the node's resolver, spelled as the kubelet spells them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::{ConfigError, absolute};
use crate::pod::dns::Settings;

/// Flags about names.
#[derive(Args, Clone, Debug)]
pub struct DnsFlags {
    /// Addresses of the cluster's DNS servers, comma-separated or repeated
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster, searched in by pods that use its DNS
    #[arg(long, value_name = "DOMAIN", default_value = "")]
    pub cluster_domain: String,
    /// The node's resolver settings for pods; empty for none
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: String,
}

impl DnsFlags {
    /// Checks them.
    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        let domain = self.cluster_domain.clone();
        if domain.len() > 253 || domain.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(ConfigError::ClusterDomain { domain });
        }
        let resolv_conf = match self.resolv_conf.as_str() {
            "" => None,
            path => Some(absolute("resolv-conf", &PathBuf::from(path))?),
        };
        Ok(Settings { servers: self.cluster_dns.clone(), domain, resolv_conf })
    }
}
