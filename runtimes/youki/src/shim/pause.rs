//! The first process of a pod's shared pid namespace: without one such a namespace cannot live. Collects orphans, does
//! nothing else. Only pods that share the namespace have it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Pid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

use super::error::{Doing as _, Error, Result};
use super::files::write_json;
use super::protocol::{Made, State, run};
use super::serve::{lock, start_ticks, tell, tell_outcome, whole_file};
use super::wait;
use crate::launch::{Shim, shim_of};

/// A link to the pod's user namespace, in the directory, for pods that have one of their own.
pub(crate) const USERS: &str = "users";

/// First argument of the process inside the new namespace.
pub(super) const INSIDE: &str = "sandbox-pause-inside";

/// First argument of the process that makes the namespace of a pod with a user namespace of its own.
pub(super) const AMID: &str = "sandbox-pause-amid";

/// Makes the namespace and its first process, which goes on alone.
pub(super) fn main(dir: &Path) -> ExitCode {
    let users = dir.join(USERS);
    if users.is_symlink() {
        return tell_outcome(of_users(dir, &users));
    }
    let started = unshare(CloneFlags::CLONE_NEWPID).doing(|| "make a pid namespace".into()).and_then(|()| {
        let mut inside = Command::new("/proc/self/exe");
        inside.arg0("podstead-pause").arg(INSIDE).arg(dir).stdin(Stdio::null());
        inside.spawn().doing(|| "start the pod's first process".into())
    });
    match started {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&Made::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// The same for a pod with a user namespace: who makes the namespace must be inside, and is then nobody on the node. So it
/// is given the open lock, and what it made is written down here.
fn of_users(dir: &Path, users: &Path) -> Result<()> {
    let lock = fs::OpenOptions::new().write(true).open(dir.join(run::LOCK));
    let lock = lock.doing(|| format!("open the lock in {}", dir.display()))?;
    let mut amid = Command::new("/proc/self/exe");
    amid.arg0("podstead-pause")
        .arg(AMID)
        .arg(users)
        .stdin(lock)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let said = amid.output().doing(|| "start the maker of the pod's pid namespace".into())?.stdout;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let pid: i32 = said.parse().map_err(|_| Error::Asked(said))?;
    let state = State { pid, start_ticks: start_ticks(Pid::from_raw(pid))?, started_at: None };
    write_json(&dir.join(run::STATE), &state).doing(|| format!("write {}", dir.display()))?;
    // Once it has the lock, whoever looks finds it alive.
    for _ in 0..1000 {
        match shim_of(dir) {
            Ok(Shim::Alive(_)) => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    Err(Error::Asked("the pod's first process did not begin".into()))
}

/// Makes the namespace inside the user namespace; tells the number of its first process.
pub(super) fn amid(users: &Path) -> ExitCode {
    let started = (|| {
        let namespace = fs::File::open(users).doing(|| "open the pod's user namespace".into())?;
        setns(&namespace, CloneFlags::CLONE_NEWUSER).doing(|| "enter the pod's user namespace".into())?;
        setgroups(&[]).doing(|| "leave the node's groups".into())?;
        let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(group, group, group).doing(|| "become the pod's root".into())?;
        setresuid(root, root, root).doing(|| "become the pod's root".into())?;
        unshare(CloneFlags::CLONE_NEWPID).doing(|| "make a pid namespace".into())?;
        let mut inside = Command::new("/proc/self/exe");
        inside.arg0("podstead-pause").arg(INSIDE).arg("-").stdout(Stdio::null());
        inside.spawn().doing(|| "start the pod's first process".into())
    })();
    match started {
        Ok(inside) => println!("{}", inside.id()),
        Err(error) => println!("{error}"),
    }
    ExitCode::SUCCESS
}

/// As [`inside`], with the lock as its standard input.
fn inside_users() -> ExitCode {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"podstead-pause");
    let secluded = seclude().is_ok();
    if !secluded || fcntl(0, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))).is_err() {
        return ExitCode::FAILURE;
    }
    collect();
    ExitCode::SUCCESS
}

/// The first process.
pub(super) fn inside(dir: &Path) -> ExitCode {
    if dir == Path::new("-") {
        return inside_users();
    }
    match settle(dir).and_then(|lock| seclude().map(|()| lock)) {
        Ok(_lock) => {
            tell(&Made::Created);
            collect();
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&Made::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn settle(dir: &Path) -> Result<fs::File> {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"podstead-pause");
    let lock = lock(dir)?;
    // The node's /proc tells the number the node knows us by.
    let own = fs::read_link("/proc/self").doing(|| "read /proc/self".into())?;
    let pid: i32 = own
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Asked("/proc does not know this process".into()))?;
    let state = State { pid, start_ticks: start_ticks(Pid::from_raw(pid))?, started_at: None };
    write_json(&dir.join(run::STATE), &state).doing(|| format!("write {}", dir.display()))?;
    Ok(lock)
}

/// Who the process becomes: nobody.
const NOBODY: u32 = 65534;

/// Leaves the node behind. Who of the pod may look into this process, or trace it, finds an empty root, no network and
/// nobody's rights.
fn seclude() -> Result<()> {
    let place = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(place).doing(|| "leave the node's namespaces".into())?;
    let none = None::<&str>;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        // Covered in this namespace alone; a directory that every node has.
        .and_then(|()| mount(Some("tmpfs"), "/proc", Some("tmpfs"), plain, Some("size=4k,mode=0555")))
        .and_then(|()| chdir("/proc"))
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .and_then(|()| {
            mount(none, "/", none, plain | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none)
        })
        .doing(|| "leave the node's file systems".into())?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user))
        .doing(|| "become nobody".into())?;
    set_no_new_privs(true).doing(|| "give up gaining privileges".into())?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "close this process to others".into())
}

/// Ends with TERM; the kernel then ends all of the namespace.
fn collect() {
    let wanted: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    if wanted.thread_block().is_err() {
        return;
    }
    loop {
        match wanted.wait() {
            Ok(Signal::SIGCHLD) => while matches!(wait::any_ended(), Ok(Some(_))) {},
            Ok(_) => return,
            Err(_) => {}
        }
    }
}
