//! Namespaces of a pod without a process that holds them: makes net, ipc and uts namespaces on a thread that
//! then ends, and keeps them by bind mounts on files (`net`, `ipc`, `uts`) in one directory per pod.
//! Touches: that directory, its mounts, and `/proc/sys` inside the new namespaces.
//!
//! Every function blocks; call it from a blocking thread. Calls for one directory must not overlap.

mod enter;
mod error;
mod loopback;
mod pins;
mod sysctl;
pub mod users;

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::sethostname,
};
use serde::{Deserialize, Serialize};

use self::pins::{Dir, KINDS, PID, USER};
pub use self::{
    enter::{Address, addresses, enter_net, is_pinned},
    error::Error,
};

/// `HOST_NAME_MAX` of Linux.
const HOSTNAME_MAX: usize = 64;

/// Which namespaces a pod gets of its own and how they are set up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// A network namespace, with only loopback, which is up.
    pub net: bool,
    /// A namespace for System V IPC and POSIX message queues.
    pub ipc: bool,
    /// A namespace for the hostname.
    pub uts: bool,
    /// At most 64 bytes; only with `uts`. Without it the node's hostname stays.
    pub hostname: Option<String>,
    /// Names and values, set in this order. `net.*` only with `net`; `kernel.shm*`, `kernel.msg*`, `kernel.sem`
    /// and `fs.mqueue.*` only with `ipc`; no other (kubelet-static-pods.md, sysctls).
    pub sysctls: Vec<(String, String)>,
}

/// The files that hold a pod's namespaces. One that was not asked for is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pinned {
    /// The network namespace.
    pub net: Option<PathBuf>,
    /// The ipc namespace.
    pub ipc: Option<PathBuf>,
    /// The uts namespace.
    pub uts: Option<PathBuf>,
    /// Whether this call made them. `false` when they were found; then nothing of the spec was applied again.
    pub fresh: bool,
}

/// Gives the pod its namespaces, pinned in `dir` (made 0700 when missing).
///
/// Namespaces that are all pinned already are kept as they are. If only some are, or files are left from before
/// a reboot, all are undone and made anew.
pub fn pin(dir: &Path, spec: &Spec) -> Result<Pinned, Error> {
    validate(spec)?;
    let wanted: Vec<&'static str> = kinds(spec).collect();
    if wanted.is_empty() {
        return Ok(Pinned::default());
    }
    let pins = Dir::create(dir)?;
    let mut found = true;
    for kind in &wanted {
        found = found && pins.is_pinned(kind)?;
    }
    if !found {
        pins.remove_all()?;
        let made = on_thread(dir, || make(&pins, &wanted, spec));
        if let Err(error) = made {
            // What failed first is what the caller must see; a leftover is undone by the next call.
            let _ = pins.remove_all();
            return Err(error);
        }
    }
    let at = |asked: bool, kind: &str| asked.then(|| dir.join(kind));
    Ok(Pinned { net: at(spec.net, "net"), ipc: at(spec.ipc, "ipc"), uts: at(spec.uts, "uts"), fresh: !found })
}

/// Pins the pid namespace of a process beside the others, in place of one pinned before. It lives as long as its first
/// process does.
pub fn pin_pid(dir: &Path, pid: i32) -> Result<PathBuf, Error> {
    let pins = Dir::create(dir)?;
    pins.remove(PID)?;
    pins.bind(PID, &format!("/proc/{pid}/ns/pid"))?;
    Ok(dir.join(PID))
}

/// Lets go of the namespaces pinned in `dir`; they end with their last process. The directory itself stays.
/// Success when there is nothing (left) to do.
pub fn unpin(dir: &Path) -> Result<(), Error> {
    Dir::open(dir)?.map_or(Ok(()), |pins| pins.remove_all())
}

fn validate(spec: &Spec) -> Result<(), Error> {
    if let Some(name) = &spec.hostname {
        if !spec.uts {
            return Err(Error::Spec("a hostname needs a uts namespace of its own".to_owned()));
        }
        if name.is_empty() || name.len() > HOSTNAME_MAX || name.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(Error::Spec(format!("{name:?} is not a hostname of at most {HOSTNAME_MAX} bytes")));
        }
    }
    sysctl::validate(spec)
}

/// The names of the files of what the spec asks for.
fn kinds(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let asked = [spec.net, spec.ipc, spec.uts];
    KINDS.into_iter().zip(asked).filter_map(|(kind, asked)| asked.then_some(kind))
}

fn flags(spec: &Spec) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, spec.net);
    flags.set(CloneFlags::CLONE_NEWIPC, spec.ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, spec.uts);
    flags
}

/// Runs on a thread that is thrown away, because it never leaves the new namespaces again.
fn make(pins: &Dir, wanted: &[&'static str], spec: &Spec) -> Result<(), Error> {
    unshare(flags(spec)).map_err(|errno| call_error("making the pod's namespaces", errno.into()))?;
    set_up(spec)?;
    sysctl::apply(spec)?;
    // Last, so that what is pinned is also set up.
    wanted.iter().try_for_each(|kind| pins.bind_own(kind))
}

/// Sets up the namespaces that the calling thread is in, but for their sysctls.
fn set_up(spec: &Spec) -> Result<(), Error> {
    if let Some(name) = &spec.hostname {
        sethostname(name).map_err(|errno| call_error("setting the pod's hostname", errno.into()))?;
    }
    if spec.net {
        loopback::up().map_err(|source| call_error("bringing up the pod's loopback interface", source))?;
    }
    Ok(())
}

/// The file of the pod's user namespace in the directory of its pins.
pub fn user_pin(dir: &Path) -> PathBuf {
    dir.join(USER)
}

/// Runs `work` on a thread of its own and waits for it. `about` is for the message only.
fn on_thread<T: Send>(about: &Path, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| call_error("starting a thread for the pod's namespaces", source))?
            .join()
            .unwrap_or_else(|_| Err(Error::Panicked(about.to_owned())))
    })
}

fn call_error(doing: &'static str, source: io::Error) -> Error {
    Error::Call { doing, source }
}
