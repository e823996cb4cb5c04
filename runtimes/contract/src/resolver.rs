//! One rule about resolvers that the agent and runtimes share. Pure.

use std::net::IpAddr;

/// Where systemd-resolved keeps the servers that it asks itself.
pub const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Whether all of a node's name servers listen on its loopback, out of reach of a pod with a network of its own: that gets
/// the servers [behind](BEHIND_THE_STUB) them, unless those are out of reach, too. Without any server nobody wanted one.
pub fn is_out_of_reach<S: AsRef<str>>(servers: &[S]) -> bool {
    let is_loopback = |server: &S| server.as_ref().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !servers.is_empty() && servers.iter().all(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_all_are_on_the_loopback_are_out_of_reach() {
        assert!(is_out_of_reach(&["127.0.0.53", "::1"]));
        for servers in [&[][..], &["127.0.0.53", "192.0.2.1"], &["fe80::1%eth0"], &["localhost"]] {
            assert!(!is_out_of_reach(servers), "{servers:?}");
        }
    }
}
