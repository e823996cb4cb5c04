//! What a sandbox is made of on the node: namespaces, `/dev/shm`, files for `/etc`. Blocking; each piece can be made and
//! unmade twice.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use podstead_runtime::resolver::{BEHIND_THE_STUB, is_out_of_reach};
use podstead_runtime::security::UserNamespace;
use podstead_runtime::{DnsConfig, NamespaceMode, SandboxSpec};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::layout::{Layout, make_dir};
use crate::bundle::{NamespacePaths, PodFiles};
use crate::launch::{Process, Shim, shim_of};
use crate::namespace::{self, Spec};
use crate::shim::files::{read_json, write_json};
use crate::shim::pause;
use crate::shim::protocol::{State, run};
use crate::shim::users::{ORDER, Order, outside};

/// Size of a pod's `/dev/shm`, as CRI servers have it.
const SHM: &core::ffi::CStr = c"mode=1777,size=67108864";

pub(crate) fn is_host_network(spec: &SandboxSpec) -> bool {
    spec.security.namespaces.network == NamespaceMode::Node
}

fn is_host_ipc(spec: &SandboxSpec) -> bool {
    spec.security.namespaces.ipc == NamespaceMode::Node
}

/// Whether containers of the pod see each other's processes.
pub(crate) fn shares_pids(spec: &SandboxSpec) -> bool {
    spec.security.namespaces.pid == NamespaceMode::Pod
}

/// Makes what the first process of a shared pid namespace needs.
pub(crate) fn make_pause_dir(layout: &Layout, id: &str, users: bool) -> io::Result<()> {
    let dir = layout.pause(id);
    make_dir(&dir)?;
    if users {
        std::os::unix::fs::symlink(namespace::user_pin(&layout.namespaces(id)), dir.join(pause::USERS))?;
    }
    write_json(&dir.join(run::LOCK), &())
}

/// Pins the namespace of that process.
pub(crate) fn pin_pause(layout: &Layout, id: &str) -> io::Result<()> {
    let state: Option<State> = read_json(&layout.pause(id).join(run::STATE))?;
    let state = state.ok_or_else(|| io::Error::other("the pod's first process left no state"))?;
    // Held, so that its number cannot come to mean another meanwhile.
    let Some(_held) = Process::of(&state)? else {
        return Err(io::Error::other("the pod's first process is gone"));
    };
    namespace::pin_pid(&layout.namespaces(id), state.pid).map(drop).map_err(io::Error::other)
}

/// Ends the first process of a shared pid namespace and with it all others in there.
fn end_pause(layout: &Layout, id: &str) -> io::Result<()> {
    if let Some(state) = read_json::<State>(&layout.pause(id).join(run::STATE))?
        && let Some(process) = Process::of(&state)?
    {
        process.signal(libc::SIGKILL)?;
    }
    Ok(())
}

/// Makes all but the network, a shared pid namespace, and the namespaces of a pod with a user namespace of its own: those
/// are written down for who makes them.
pub(crate) fn make(layout: &Layout, id: &str, spec: &SandboxSpec) -> io::Result<()> {
    let (net, ipc) = (!is_host_network(spec), !is_host_ipc(spec));
    let wanted = Spec {
        net,
        ipc,
        uts: net,
        hostname: (net && !spec.hostname.is_empty()).then(|| spec.hostname.clone()),
        sysctls: spec.sysctls.clone().into_iter().collect(),
    };
    make_dir(&layout.sandbox_state(id))?;
    let users = spec.security.namespaces.user.as_ref();
    match users {
        Some(users) => {
            let order = Order { pins: layout.namespaces(id), spec: wanted, users: users.clone() };
            make_dir(&order.pins)?;
            write_json(&layout.sandbox_state(id).join(ORDER), &order)?;
        }
        None => drop(namespace::pin(&layout.namespaces(id), &wanted).map_err(io::Error::other)?),
    }
    if ipc {
        let shm = layout.shm(id);
        make_dir(&shm)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", &shm, "tmpfs", flags, Some(SHM))?;
        if let Some((uid, gid)) = users.and_then(root_of) {
            std::os::unix::fs::chown(&shm, Some(uid), Some(gid))?;
        }
    }
    write_files(&layout.sandbox(id), spec)
}

/// The ids on the node of a user namespace's root.
fn root_of(users: &UserNamespace) -> Option<(u32, u32)> {
    Some((outside(&users.uids, 0)?, outside(&users.gids, 0)?))
}

/// Lets go of all but the network, which must have been given back before.
pub(crate) fn unmake(layout: &Layout, id: &str) -> io::Result<()> {
    end_pause(layout, id)?;
    namespace::unpin(&layout.namespaces(id)).map_err(io::Error::other)?;
    loop {
        match unmount(layout.shm(id), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be two of them after a retry.
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    gone(fs::remove_dir_all(layout.sandbox_state(id)))
}

/// "Not there" is what was wanted.
pub(crate) fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A disk without room for a note keeps nothing from being stopped: the note is left out.
pub(crate) fn unless_full(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            tracing::warn!(%error, "the disk is full; what is stopped is not written down");
            Ok(())
        }
        other => other,
    }
}

/// Whether the pod's namespaces are still there; after a reboot they are not.
pub(crate) fn is_up(layout: &Layout, id: &str, spec: &SandboxSpec) -> bool {
    let at = |kind: &str| namespace::is_pinned(&layout.namespaces(id).join(kind));
    (is_host_network(spec) || at("net"))
        && (is_host_ipc(spec) || at("ipc"))
        && (spec.security.namespaces.user.is_none()
            || namespace::is_pinned(&namespace::user_pin(&layout.namespaces(id))))
        && (!shares_pids(spec) || matches!(shim_of(&layout.pause(id)), Ok(Shim::Alive(_))))
        // A pod with nothing of its own still has a directory that no reboot leaves.
        && layout.sandbox_state(id).is_dir()
}

/// What containers of the pod join.
pub(crate) fn namespaces(layout: &Layout, id: &str, spec: &SandboxSpec) -> NamespacePaths {
    let at = |own: bool, kind: &str| own.then(|| layout.namespaces(id).join(kind));
    let (net, ipc) = (!is_host_network(spec), !is_host_ipc(spec));
    NamespacePaths {
        net: at(net, "net"),
        ipc: at(ipc, "ipc"),
        uts: at(net, "uts"),
        pid: at(shares_pids(spec), "pid"),
        user: spec.security.namespaces.user.as_ref().map(|_| namespace::user_pin(&layout.namespaces(id))),
    }
}

/// What containers of the pod get in `/etc` and `/dev`.
pub(crate) fn files(layout: &Layout, id: &str, spec: &SandboxSpec) -> PodFiles {
    let dir = layout.sandbox(id);
    let shm = if is_host_ipc(spec) { "/dev/shm".into() } else { layout.shm(id) };
    PodFiles {
        hosts: Some(dir.join("hosts")),
        hostname: Some(dir.join("hostname")),
        resolv_conf: Some(dir.join("resolv.conf")),
        shm: Some(shm),
    }
}

fn write_files(dir: &Path, spec: &SandboxSpec) -> io::Result<()> {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hostname = if spec.hostname.is_empty() { node } else { spec.hostname.clone() };
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1\tlocalhost\n".into());
    let resolv = match &spec.dns {
        Some(dns) => resolv_conf(dns),
        None => node_resolv_conf(is_host_network(spec), |path| fs::read_to_string(path).ok()),
    };
    for (name, text) in [("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolv)] {
        let path = dir.join(name);
        fs::write(&path, text)?;
        // Containers' users read them.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The node's own settings; for a pod with a network of its own those that it can reach.
fn node_resolv_conf(host_network: bool, read: impl Fn(&str) -> Option<String>) -> String {
    let node = read("/etc/resolv.conf").unwrap_or_default();
    let servers = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::split_ascii_whitespace);
        lines
            .filter_map(|mut words| {
                (words.next() == Some("nameserver")).then(|| words.next())?.map(str::to_owned)
            })
            .collect()
    };
    if host_network || !is_out_of_reach(&servers(&node)) {
        return node;
    }
    let usable = |text: &String| !servers(text).is_empty() && !is_out_of_reach(&servers(text));
    read(BEHIND_THE_STUB).filter(usable).unwrap_or(node)
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_the_nodes_loopback_is_not_given_to_pods_with_a_network_of_their_own() {
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0\n";
        let real = "nameserver 192.0.2.1\nsearch example.org\n";
        let on = |etc: &'static str, systemd: Option<&'static str>, host_network| {
            node_resolv_conf(host_network, |path| {
                if path.starts_with("/etc/") { Some(etc.into()) } else { systemd.map(Into::into) }
            })
        };
        assert_eq!(on(stub, Some(real), false), real);
        assert_eq!(on("nameserver ::1\n", Some(real), false), real);
        assert_eq!(on(stub, Some(real), true), stub);
        assert_eq!(on(stub, None, false), stub);
        assert_eq!(on(stub, Some("nameserver 127.0.0.1\n"), false), stub);
        let both = "nameserver 127.0.0.53\nnameserver fe80::1%eth0\n";
        assert_eq!(on(both, Some(real), false), both);
        assert_eq!(on("search a\n", Some(real), false), "search a\n");
    }

    #[test]
    fn resolver_settings_are_written_as_resolv_conf_wants_them() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "::1".into()],
            searches: vec!["a.local".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        let text = resolv_conf(&dns);
        assert_eq!(text, "search a.local b\nnameserver 10.0.0.10\nnameserver ::1\noptions ndots:5\n");
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
