//! What libcontainer leaves out at the last moment before the container's program: an honest check of the program, the
//! SELinux label, the terminal's size and seccomp for exec. Runs inside the container, in the process that becomes the program.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::capabilities::{drop_privileges, reset_effective};
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setgroups};
use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Process, Spec};
use rustix::fs::{Access, access};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::signals;

/// The marker of lines in the shim's log that say what a person wants to know.
pub(crate) const TARGET: &str = "podstead::program";

/// The label of the next program this thread executes; libcontainer takes one and does nothing with it.
const NEXT_LABEL: &str = "/proc/thread-self/attr/exec";

/// Starts the program.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    /// Seccomp for exec, which libcontainer gives to the first process only.
    pub seccomp: Option<LinuxSeccomp>,
    /// Capabilities that were lent for loading it and are given back.
    pub lent: bool,
    /// Rows and columns of the terminal: a program that asks at once must not be told none.
    pub size: Option<(u16, u16)>,
    /// Who a program becomes that is executed beside one in a user namespace: libcontainer joins all namespaces but that.
    pub become_user: Option<Arc<Become>>,
}

/// A user in a user namespace.
#[derive(Debug)]
pub(crate) struct Become {
    /// The user namespace.
    pub namespace: OwnedFd,
    /// The user's ids and capabilities inside, and whether privileges may be gained.
    pub process: Process,
    /// The user's id on the node.
    pub outside: u32,
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = process(spec).ok_or(ExecutorError::InvalidArg)?;
        let (program, args) = command(process).map_err(ExecutorError::Other)?;
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            tracing::error!(target: TARGET, "{what}: {e}");
            ExecutorError::Other(format!("{what}: {e}"))
        };
        if let Some(label) = process.selinux_label().as_ref().filter(|l| !l.is_empty()) {
            set_label(Path::new(NEXT_LABEL), label)
                .map_err(|e| failed(&format!("set the SELinux label {label}"), &e))?;
        }
        if let Some((ws_row, ws_col)) = self.size {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(rustix::stdio::stdin(), size).map_err(|e| failed("set the terminal's size", &e))?;
        }
        if let Some(user) = &self.become_user {
            become_user(user).map_err(|e| failed("become the container's user", &e))?;
        }
        signals::reset().map_err(|e| failed("give signals their usual effect", &e))?;
        if let Some(seccomp) = &self.seccomp {
            libcontainer::seccomp::initialize_seccomp(seccomp)
                .map_err(|e| failed("load the seccomp profile", &e))?;
        }
        if self.lent {
            give_back().map_err(|e| failed("give lent capabilities back", &e))?;
        }
        let Err(errno) = nix::unistd::execv(&program, &args);
        Err(failed(&format!("execute {}", program.to_string_lossy()), &errno))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let found = process(spec).ok_or_else(|| "there is no process".to_owned()).and_then(command);
        found.map(drop).map_err(|cause| {
            tracing::error!(target: TARGET, "{cause}");
            ExecutorValidationError::ArgValidationError(cause)
        })
    }
}

/// Enters the user namespace, which gives all rights inside and takes all outside, and keeps what the process is to have.
fn become_user(user: &Become) -> io::Result<()> {
    // While it is still allowed: who is inside is to find the own terminal.
    if rustix::termios::isatty(rustix::stdio::stdin()) {
        let uid = rustix::fs::Uid::from_raw(user.outside);
        rustix::fs::fchown(rustix::stdio::stdin(), Some(uid), None)?;
    }
    setns(&user.namespace, CloneFlags::CLONE_NEWUSER)?;
    let process = &user.process;
    let groups = process.user().additional_gids().iter().flatten();
    setgroups(&groups.map(|gid| Gid::from_raw(*gid)).collect::<Vec<_>>())?;
    let syscall = create_syscall();
    let (uid, gid) = (Uid::from_raw(process.user().uid()), Gid::from_raw(process.user().gid()));
    syscall.set_id(uid, gid).map_err(io::Error::other)?;
    if process.no_new_privileges() == Some(true) {
        rustix::thread::set_no_new_privs(true)?;
    }
    reset_effective(&*syscall).map_err(io::Error::other)?;
    let none = LinuxCapabilities::default();
    drop_privileges(process.capabilities().as_ref().unwrap_or(&none), &*syscall).map_err(io::Error::other)
}

/// A label that cannot be set stops the container: it would run as whatever the runtime is.
fn set_label(file: &Path, label: &str) -> io::Result<()> {
    // One write, never creating: the kernel takes a label whole or not at all.
    std::fs::OpenOptions::new().write(true).open(file)?.write_all(label.as_bytes())
}

/// Without CAP_SYS_ADMIN again.
fn give_back() -> rustix::io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    sets.permitted.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets)
}

fn process(spec: &Spec) -> Option<&Process> {
    spec.process().as_ref()
}

/// The program's path and its arguments, or why there is none.
fn command(process: &Process) -> Result<(CString, Vec<CString>), String> {
    let args = process.args().as_deref().unwrap_or_default();
    let name = args.first().filter(|name| !name.is_empty()).ok_or("there is no command")?;
    let path =
        process.env().iter().flatten().find_map(|v| v.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let program = find(name, path)?;
    let text =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| format!("{name:?}: an argument holds a zero byte"));
    let args = args.iter().map(|a| text(a.as_bytes())).collect::<Result<_, _>>()?;
    Ok((text(program.as_os_str().as_bytes())?, args))
}

fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    let usable = |candidate: &Path| -> io::Result<()> {
        let is_file = std::fs::metadata(candidate)?.is_file();
        if !is_file {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(access(candidate, Access::EXEC_OK)?)
    };
    if name.contains('/') {
        let candidate = PathBuf::from(name);
        return usable(&candidate).map(|()| candidate).map_err(|e| format!("cannot execute {name:?}: {e}"));
    }
    let mut denied = false;
    for dir in path.split(':').filter(|d| !d.is_empty()) {
        let candidate = Path::new(dir).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    let why = if denied { "permission denied" } else { "no such file" };
    Err(format!("cannot execute {name:?}: {why} in $PATH ({path})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_written_whole_or_the_program_does_not_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("exec");
        assert!(set_label(&file, "a:b:c:s0").is_err(), "a node without the file");
        assert!(!file.exists(), "nothing is made");
        std::fs::write(&file, "").expect("write");
        set_label(&file, "system_u:system_r:container_t:s0").expect("set");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "system_u:system_r:container_t:s0");
    }

    #[test]
    fn programs_are_found_in_path_or_named_with_the_reason() {
        assert!(find("sh", "/nowhere:/usr/bin:/bin").is_ok());
        assert_eq!(find("/bin/sh", ""), Ok(PathBuf::from("/bin/sh")));
        let none = find("no-such-program", "/usr/bin").expect_err("nothing there");
        assert!(none.contains("no-such-program") && none.contains("no such file"), "{none}");
        let none = find("/no/such/command", "").expect_err("nothing there");
        assert!(none.contains("/no/such/command") && none.contains("No such file"), "{none}");
        assert!(find("/etc", "").expect_err("a directory").contains("ermission denied"));
    }
}
