//! Namespaces that belong to a user namespace of the pod's own. A threaded process can make none, so a process that is
//! thrown away makes all of them at once ([`unshare_all`]) and its parent, which keeps the node's rights, maps the ids,
//! sets the namespaces up and pins them ([`pin_of`]). Touches the pins' directory, and `/proc/<pid>` of that process.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid, setegid, seteuid};
use podstead_runtime::security::{IdMapping, UserNamespace};
use rustix::fs::{Mode, OFlags, open};

use super::pins::{Dir, USER, file_error};
use super::{Error, Spec, call_error, flags, kinds, set_up, sysctl};

/// Makes the namespaces around the calling process, which must have one thread.
pub fn unshare_all(spec: &Spec) -> Result<(), Error> {
    // The kernel makes the user namespace first: the others belong to it.
    unshare(CloneFlags::CLONE_NEWUSER | flags(spec))
        .map_err(|errno| call_error("making the pod's user namespace", errno.into()))
}

/// Maps the ids of a process that did [`unshare_all`], sets its namespaces up and pins them in `dir`. The calling process
/// must have one thread and ends up in these namespaces, but for the user namespace.
pub fn pin_of(dir: &Path, spec: &Spec, users: &UserNamespace, pid: u32) -> Result<(), Error> {
    super::validate(spec)?;
    // Who gave the order made it. Where it is gone by now, the order is none any more.
    let pins = Dir::open(dir)?.ok_or_else(|| file_error("opening", dir, rustix::io::Errno::NOENT))?;
    pins.remove_all()?;
    for (file, ids) in [("uid_map", &users.uids), ("gid_map", &users.gids)] {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        fs::write(&path, map(ids)).map_err(|source| Error::File {
            doing: "writing the pod's ids to",
            path: path.clone(),
            source,
        })?;
    }
    let set_up = || enter(spec, pid).and_then(|()| set_up(spec)).and_then(|()| parameters(spec, users));
    let made = set_up().and_then(|()| {
        // What is pinned is also set up.
        kinds(spec).chain([USER]).try_for_each(|kind| pins.bind(kind, &format!("/proc/{pid}/ns/{kind}")))
    });
    if made.is_err() {
        // What failed first is what the caller must see; a leftover is undone by the next call.
        let _ = pins.remove_all();
    }
    made
}

/// As `/proc/<pid>/uid_map` wants it: inside, outside, how many.
fn map(ids: &[IdMapping]) -> String {
    let line = |id: &IdMapping| format!("{} {} {}\n", id.container_id, id.host_id, id.length);
    ids.iter().map(line).collect()
}

/// Enters the namespaces of a process, keeping the node's rights over them.
fn enter(spec: &Spec, pid: u32) -> Result<(), Error> {
    for kind in kinds(spec) {
        let path = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        let fd: OwnedFd = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| file_error("opening", &path, errno))?;
        setns(&fd, CloneFlags::empty()).map_err(|errno| Error::File {
            doing: "entering",
            path,
            source: errno.into(),
        })?;
    }
    Ok(())
}

/// Sets the sysctls. Those of an ipc namespace are the pod's root's alone on newer kernels, and the node's root's
/// alone before.
fn parameters(spec: &Spec, users: &UserNamespace) -> Result<(), Error> {
    spec.sysctls.iter().try_for_each(|one| {
        let one = Spec { sysctls: vec![one.clone()], ..spec.clone() };
        sysctl::apply(&one).or_else(|first| {
            let root = |ids: &Vec<IdMapping>| ids.iter().find(|m| m.container_id == 0).map(|m| m.host_id);
            let (Some(uid), Some(gid)) = (root(&users.uids), root(&users.gids)) else { return Err(first) };
            let (node, group) = (geteuid(), getegid());
            let became = setegid(Gid::from_raw(gid)).and_then(|()| seteuid(Uid::from_raw(uid)));
            let outcome = if became.is_ok() { sysctl::apply(&one) } else { Err(first) };
            let back = seteuid(node).and_then(|()| setegid(group));
            back.map_err(|errno| call_error("becoming the node's root again", errno.into()))?;
            outcome
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_the_kernel_reads_them() {
        let ids = [
            IdMapping { container_id: 0, host_id: 131_072, length: 65_536 },
            IdMapping { container_id: 65_536, host_id: 7, length: 1 },
        ];
        assert_eq!(map(&ids), "0 131072 65536\n65536 7 1\n");
    }
}
