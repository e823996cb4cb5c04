//! TCP connections for probes and hooks, with errors in the kubelet's words. Touches the network.
//!
//! The kubelet also sets `SO_LINGER` to one second. Linux sends the same packets without it, and closing would hold up
//! the thread, so it is left alone here.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address or name, as the manifest or a redirect has it.
    pub host: String,
    /// Addresses to try instead of what `host` means, in order; empty for none.
    pub ips: Vec<IpAddr>,
    /// Port.
    pub port: u16,
}

impl Peer {
    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        if !self.ips.is_empty() {
            return Ok(self.ips.iter().map(|ip| (*ip, self.port).into()).collect());
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found
            .map(Iterator::collect)
            .map_err(|error| format!("dial tcp: lookup {}: {}", self.host, words(&error)))
    }
}

/// Connects to the first address that takes the connection; else answers the first one's refusal
/// (`dial tcp 10.0.0.1:80: connect: connection refused`).
pub async fn connect(peer: &Peer) -> Result<TcpStream, String> {
    let mut refusal = None;
    for address in peer.addresses().await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                refusal.get_or_insert_with(|| format!("dial tcp {address}: connect: {}", words(&error)));
            }
        }
    }
    Err(refusal.unwrap_or_else(|| format!("dial tcp: lookup {}: no such host", peer.host)))
}

/// The system's words for an error, in small letters and without its number.
pub(super) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = nix::errno::Errno::from_raw(number).desc();
            let mut letters = text.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        }
        None => error.to_string(),
    }
}
