//! The processes that call libcontainer: one shim per container, one throw-away process per exec. Single-threaded from
//! their first instruction, because libcontainer forks (it hangs in threaded programs); the same binary as the agent's
//! or `podstead-shim`, entered through [`dispatch`] before anything else.
//!
//! One shim per container, not per pod: a shim's crash or kill costs one container, waiting and logging need no
//! bookkeeping about others, and the memory is nearly all shared (docs/performance.md).

mod error;
mod exec;
mod executor;
pub(crate) mod files;
mod log;
mod make;
pub(crate) mod pause;
pub(crate) mod protocol;
mod rootfs;
mod serve;
mod signals;
mod stage;
mod trace;
pub(crate) mod users;
pub(crate) mod volumes;
mod wait;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use self::serve::{start_ticks, whole_file};

/// First argument of a shim; the second is the container's run directory.
pub(crate) const SHIM: &str = "container-shim";
/// First argument of what makes a shared pid namespace; the second is a directory for its state.
pub(crate) const PAUSE: &str = "sandbox-pause";
/// First argument of what makes the namespaces of a pod with a user namespace of its own; the second is the directory
/// of its order.
pub(crate) const USERS: &str = "sandbox-users";
/// First argument of an exec's process; its standard input is a socket.
pub(crate) const EXEC: &str = "container-exec";

/// Becomes a shim or an exec's process if the command line says so. Call it first in `main`, before any thread
/// exists; `None` means that the program is to go on as itself.
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let entry = args.next()?;
    if entry == OsStr::new(SHIM) {
        return Some(serve::main(&PathBuf::from(args.next()?)));
    }
    if entry == OsStr::new(PAUSE) {
        return Some(pause::main(&PathBuf::from(args.next()?)));
    }
    if entry == OsStr::new(pause::INSIDE) {
        return Some(pause::inside(&PathBuf::from(args.next()?)));
    }
    if entry == OsStr::new(pause::AMID) {
        return Some(pause::amid(&PathBuf::from(args.next()?)));
    }
    if entry == OsStr::new(USERS) {
        return Some(users::main(&PathBuf::from(args.next()?)));
    }
    if entry == OsStr::new(users::INSIDE) {
        return Some(users::inside(&PathBuf::from(args.next()?)));
    }
    (entry == OsStr::new(EXEC)).then(exec::main)
}
