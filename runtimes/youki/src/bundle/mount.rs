//! What is mounted where in a container. Pure: no path is looked at.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount as OciMount};
use podstead_runtime::security::{IdMapping, UserNamespace};
use podstead_runtime::{ContainerSpec, Mount, NamespaceMode, Propagation};

use super::Input;
use super::error::{Blame, Error};

const PROC_OPTIONS: &[&str] = &["nosuid", "noexec", "nodev"];
const DEV_OPTIONS: &[&str] = &["nosuid", "strictatime", "mode=755", "size=65536k"];
const PTS_OPTIONS: &[&str] = &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
const SYS_OPTIONS: &[&str] = &["nosuid", "noexec", "nodev"];
const CGROUP_OPTIONS: &[&str] = &["nosuid", "noexec", "nodev", "relatime"];

/// Files of the container's /proc that may be covered by a mount, as lxcfs does.
const MOUNTABLE_IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// All mounts, shallow destinations first, so that none hides another that was asked for.
pub(super) fn mounts(input: &Input<'_>) -> Result<Vec<OciMount>, Error> {
    let own = destinations(input.container)?;
    let given = |path: &str| own.iter().any(|destination| destination == Path::new(path));
    let mut all: Vec<OciMount> = kernel(input.container.security.privileged);
    all.extend(files(input));
    // What the pod mounts itself is not mounted twice; below its own /proc or /sys nothing is ours.
    all.retain(|mount| {
        let at = mount.destination();
        !own.contains(at) && !["/proc", "/sys"].into_iter().any(|top| given(top) && at.starts_with(top))
    });
    for (mount, destination) in input.container.mounts.iter().zip(&own) {
        all.push(bind(input.container, input.sandbox.security.namespaces.user.as_ref(), mount, destination)?);
    }
    all.sort_by_key(|mount| mount.destination().components().count());
    Ok(all)
}

/// The propagation of the container's root. libcontainer gives a bind mount the propagation that its source has
/// in the container's mount namespace, whatever its options say, so the strongest one asked for decides.
pub(super) fn root_propagation(container: &ContainerSpec) -> &'static str {
    let asked = |kind| container.mounts.iter().any(|mount| mount.propagation == kind);
    if asked(Propagation::Bidirectional) {
        "shared"
    } else if asked(Propagation::HostToContainer) {
        "slave"
    } else {
        "private"
    }
}

/// Whether the pod mounts something over the cgroup file system or a part of it.
pub(super) fn covers_cgroup(container: &ContainerSpec) -> bool {
    let cgroup = Path::new("/sys/fs/cgroup");
    container.mounts.iter().any(|m| m.destination.starts_with(cgroup) || cgroup.starts_with(&m.destination))
}

fn kernel(privileged: bool) -> Vec<OciMount> {
    let access = if privileged { "rw" } else { "ro" };
    let with = |options: &[&'static str]| [options, &[access]].concat();
    vec![
        mount("/proc", "proc", "proc", PROC_OPTIONS),
        mount("/dev", "tmpfs", "tmpfs", DEV_OPTIONS),
        mount("/dev/pts", "devpts", "devpts", PTS_OPTIONS),
        mount("/dev/mqueue", "mqueue", "mqueue", PROC_OPTIONS),
        mount("/sys", "sysfs", "sysfs", &with(SYS_OPTIONS)),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &with(CGROUP_OPTIONS)),
    ]
}

fn files(input: &Input<'_>) -> Vec<OciMount> {
    let access = if input.container.security.readonly_rootfs { "ro" } else { "rw" };
    let files = input.files;
    let text = [
        ("/etc/hosts", &files.hosts),
        ("/etc/hostname", &files.hostname),
        ("/etc/resolv.conf", &files.resolv_conf),
    ];
    let users = input.sandbox.security.namespaces.user.as_ref();
    let text = text.into_iter().filter_map(|(at, file)| {
        let mut mount = mount(at, "bind", file.as_deref()?, &["rbind", "rprivate", access]);
        map(&mut mount, users);
        Some(mount)
    });
    let options = &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"];
    text.chain(files.shm.as_deref().map(|source| mount("/dev/shm", "bind", source, options))).collect()
}

fn mount(at: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(at.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.as_ref().to_owned()))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// `users`: the pod's user namespace.
fn bind(
    container: &ContainerSpec,
    users: Option<&UserNamespace>,
    asked: &Mount,
    destination: &Path,
) -> Result<OciMount, Error> {
    let blame = Blame(&container.name);
    let at = destination.display();
    if let Some(image) = &asked.image {
        return Err(blame.unsupported(format!("the image volume {} at {at}", image.image.image)));
    }
    let mapped = !asked.uid_mappings.is_empty() || !asked.gid_mappings.is_empty();
    if mapped && users.is_none_or(|u| (&u.uids, &u.gids) != (&asked.uid_mappings, &asked.gid_mappings)) {
        let reason = "only the ids of the pod's user namespace can be mapped";
        return Err(blame.unsupported_because(format!("an id-mapped mount at {at}"), reason));
    }
    if users.is_some() && asked.propagation == Propagation::Bidirectional {
        let reason = "the kernel lets no mount out of a user namespace";
        return Err(blame.unsupported_because(format!("a bidirectional mount at {at}"), reason));
    }
    if !asked.source.is_absolute() {
        let source = asked.source.display();
        return Err(blame.invalid(format!("source \"{source}\" of the mount at {at}"), "it is not absolute"));
    }
    if destination == Path::new("/dev") {
        let reason = "devices are made in the container's /dev, which would change the node's; mount single \
                      devices or directories below /dev";
        return Err(blame.unsupported_because("a mount over /dev", reason));
    }
    in_proc(container, asked, destination)?;
    let propagation = match asked.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let mut options = vec!["rbind", propagation];
    match (asked.recursive_read_only, asked.read_only) {
        (true, _) => options.extend(["ro", "rro"]),
        (false, true) => options.push("ro"),
        (false, false) => options.push("rw"),
    }
    let mut mount = mount("/", "bind", &asked.source, &options);
    mount.set_destination(destination.to_owned());
    if mapped {
        map(&mut mount, users);
    }
    Ok(mount)
}

/// Has a mount's owners shown as the pod's user namespace counts them. libcontainer cannot: the shim does it and takes
/// the mark away.
fn map(mount: &mut OciMount, users: Option<&UserNamespace>) {
    let oci = |ids: &Vec<IdMapping>| {
        let one = |id: &IdMapping| {
            let mapping = LinuxIdMappingBuilder::default().container_id(id.container_id).host_id(id.host_id);
            mapping.size(id.length).build().expect("all of it is said")
        };
        ids.iter().map(one).collect::<Vec<LinuxIdMapping>>()
    };
    mount.set_uid_mappings(users.map(|u| oci(&u.uids))).set_gid_mappings(users.map(|u| oci(&u.gids)));
}

/// libcontainer checks only proc and sysfs mounts; a bind over /proc would defeat what reads labels and limits there.
fn in_proc(container: &ContainerSpec, asked: &Mount, destination: &Path) -> Result<(), Error> {
    let nodes_own = destination == Path::new("/proc")
        && asked.source == Path::new("/proc")
        && container.security.namespaces.pid == NamespaceMode::Node;
    let file = MOUNTABLE_IN_PROC.iter().any(|allowed| destination == Path::new(allowed));
    if destination.starts_with("/proc") && !nodes_own && !file {
        let what = format!("mount at {}", destination.display());
        return Err(Blame(&container.name).invalid(what, "the container's /proc cannot be covered"));
    }
    Ok(())
}

/// The destinations of the pod's mounts without `//` and `/./`.
fn destinations(container: &ContainerSpec) -> Result<Vec<PathBuf>, Error> {
    container
        .mounts
        .iter()
        .map(|mount| {
            clean(&mount.destination).ok_or_else(|| {
                let what = format!("mount at \"{}\"", mount.destination.display());
                Blame(&container.name)
                    .invalid(what, "a destination is absolute, not the root, and has no `..`")
            })
        })
        .collect()
}

fn clean(path: &Path) -> Option<PathBuf> {
    let normal = |c: &Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    let usable = path.is_absolute()
        && path.components().count() > 1
        && path.components().all(|c| normal(&c))
        && !path.as_os_str().as_encoded_bytes().contains(&0);
    usable.then(|| path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(host_id: u32) -> Vec<IdMapping> {
        vec![IdMapping { container_id: 0, host_id, length: 65_536 }]
    }

    fn users() -> UserNamespace {
        UserNamespace { uids: ids(131_072), gids: ids(131_072) }
    }

    fn one(change: impl FnOnce(&mut Mount)) -> Result<OciMount, Error> {
        in_pod("without", change)
    }

    /// `name`: of the container; all but one are in a pod with a user namespace.
    fn in_pod(name: &str, change: impl FnOnce(&mut Mount)) -> Result<OciMount, Error> {
        let mut asked = Mount { destination: "/data".into(), source: "/srv".into(), ..Mount::default() };
        change(&mut asked);
        let container = ContainerSpec { name: name.into(), mounts: vec![asked], ..ContainerSpec::default() };
        let destination = destinations(&container)?.remove(0);
        let users = users();
        let pods = (container.name != "without").then_some(&users);
        bind(&container, pods, &container.mounts[0], &destination)
    }

    #[test]
    fn propagation_and_access_become_options() {
        let options = |change: fn(&mut Mount)| one(change).unwrap().options().clone().unwrap().join(",");
        assert_eq!(options(|_| {}), "rbind,rprivate,rw");
        assert_eq!(options(|m| m.read_only = true), "rbind,rprivate,ro");
        assert_eq!(options(|m| m.recursive_read_only = true), "rbind,rprivate,ro,rro");
        assert_eq!(options(|m| m.propagation = Propagation::HostToContainer), "rbind,rslave,rw");
        assert_eq!(options(|m| m.propagation = Propagation::Bidirectional), "rbind,rshared,rw");
    }

    #[test]
    fn only_the_ids_of_the_pods_user_namespace_are_mapped_and_nothing_gets_out_of_it() {
        let with = |name: &str, host: u32| {
            in_pod(name, |m| (m.uid_mappings, m.gid_mappings) = (ids(host), ids(host)))
        };
        let mapped = with("in users", 131_072).unwrap();
        assert_eq!(mapped.uid_mappings().as_ref().unwrap()[0].host_id(), 131_072);
        assert_eq!(mapped.gid_mappings().as_ref().unwrap()[0].size(), 65_536);
        for wrong in [with("in users", 65_536), with("without", 131_072)] {
            assert!(wrong.unwrap_err().to_string().contains("id-mapped"));
        }
        let both = in_pod("in users", |m| m.propagation = Propagation::Bidirectional);
        assert!(both.unwrap_err().to_string().contains("out of a user namespace"));
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_by_name() {
        let refused = |change: fn(&mut Mount)| one(change).unwrap_err().to_string();
        assert!(
            refused(|m| m.image = Some(podstead_runtime::ImageVolume::default())).contains("image volume")
        );
        assert!(refused(|m| m.uid_mappings = vec![IdMapping::default()]).contains("id-mapped"));
        assert!(refused(|m| m.source = "srv".into()).contains("not absolute"));
        for destination in
            ["", "/", "data", "/a/../b", "/dev", "/dev/", "/proc", "/proc/1", "/proc/sys/kernel"]
        {
            assert!(one(|m| m.destination = destination.into()).is_err(), "{destination}");
        }
        assert!(one(|m| m.destination = "/proc/cpuinfo".into()).is_ok());
        assert!(one(|m| m.destination = "/processes".into()).is_ok());
    }

    #[test]
    fn destinations_are_cleaned() {
        assert_eq!(one(|m| m.destination = "//a/./b/".into()).unwrap().destination(), Path::new("/a/b"));
    }
}
