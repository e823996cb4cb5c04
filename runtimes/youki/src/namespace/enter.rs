//! Work inside a pinned network namespace, on a thread of its own. Changes nothing by itself.

use std::{net::IpAddr, path::Path};

use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
    sys::socket::SockaddrStorage,
};
use rustix::fs::{Mode, OFlags, open};

use super::{
    Error, call_error, on_thread,
    pins::{file_error, is_namespace},
};

/// An IP address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's name inside the namespace.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
}

impl Address {
    /// Whether other hosts can use it: neither loopback nor link-local.
    pub fn is_global(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        }
    }
}

/// Runs `work` inside the network namespace bound to `netns` and waits for it.
///
/// Sockets that `work` makes and returns stay in that namespace.
pub fn enter_net<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let fd = open(netns, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| file_error("opening network namespace", netns, errno))?;
    if !is_namespace(&fd).map_err(|errno| file_error("reading", netns, errno))? {
        return Err(Error::NotNamespace(netns.to_owned()));
    }
    on_thread(netns, || {
        setns(&fd, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::File {
            doing: "entering",
            path: netns.to_owned(),
            source: errno.into(),
        })?;
        Ok(work())
    })
}

/// Whether `path` is bound to a namespace now; after a reboot, or when it was let go, it is not.
pub fn is_pinned(path: &Path) -> bool {
    let fd = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    fd.is_ok_and(|fd| is_namespace(&fd).unwrap_or(false))
}

/// The addresses of all interfaces that are inside the network namespace, loopback among them, in the kernel's
/// order.
pub fn addresses(netns: &Path) -> Result<Vec<Address>, Error> {
    let found = enter_net(netns, || getifaddrs().map(|all| all.filter_map(read).collect()))?;
    found.map_err(|errno| call_error("reading the addresses of the pod's interfaces", errno.into()))
}

fn read(entry: nix::ifaddrs::InterfaceAddress) -> Option<Address> {
    let ip = ip(&entry.address?)?;
    let prefix = match ip_of_mask(entry.netmask.as_ref(), ip) {
        Some(IpAddr::V4(mask)) => mask.to_bits().count_ones(),
        Some(IpAddr::V6(mask)) => mask.to_bits().count_ones(),
        None => 0,
    };
    Some(Address { interface: entry.interface_name, ip, prefix: u8::try_from(prefix).unwrap_or(0) })
}

fn ip_of_mask(mask: Option<&SockaddrStorage>, of: IpAddr) -> Option<IpAddr> {
    mask.and_then(ip).filter(|mask| mask.is_ipv4() == of.is_ipv4())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}
