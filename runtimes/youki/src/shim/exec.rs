//! The throw-away process behind an exec: joins a running container, runs one command, tells its end. It ends with the
//! command, and takes the command with it when whoever asked goes away. Its standard input is a socket to the asker.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec, User};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::error::{Doing as _, Error, Result};
use super::executor::{Become, Program};
use super::files::{read_json, write_json};
use super::protocol::{ExecEvent, ExecRequest, ShimSpec, run};
use super::users::mapped;
use super::{make, trace, wait};
use crate::bundle;

/// A request is no longer than a command line may be.
const LONGEST: usize = 4 << 20;

/// Serves one request.
pub(super) fn main() -> ExitCode {
    // Own session: whoever presses Ctrl-C at the asker's terminal ends the asker. We must live to end the command.
    let _ = rustix::process::setsid();
    let Ok(stdin) = rustix::io::dup(rustix::stdio::stdin()) else { return ExitCode::FAILURE };
    let socket = UnixStream::from(stdin);
    match serve(&socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = tell(&socket, &ExecEvent::Failed(error.to_string()), None);
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: &UnixStream) -> Result<()> {
    let (request, streams) = receive(socket)?;
    let log = request.run.join(format!("exec-{}.log", std::process::id()));
    let files = Leftovers { run: &request.run, id: &request.id };
    trace::to_file(&log).doing(|| "open the log".into())?;
    let console = if request.tty {
        let path = files.console();
        Some((
            UnixListener::bind(short(&request.run, &path)?).doing(|| "listen for the terminal".into())?,
            path,
        ))
    } else {
        None
    };
    let (pid, owner) =
        start(&request, streams, console.as_ref().map(|(_, path)| path.as_path()), &files, &log)?;
    // From here on there is a command: it never outlives this process, whatever fails.
    let ended = announce(socket, console, owner).and_then(|()| outcome(socket, pid));
    if ended.is_err() {
        // Not waited for yet, so that its number is still its own.
        let _ = kill(pid, Signal::SIGKILL);
    }
    let told = ended.and_then(|code| tell(socket, &ExecEvent::Exited(code), None));
    drop(files);
    told
}

/// Tells that the command runs, and hands over its terminal, which is the command's user's.
fn announce(
    socket: &UnixStream,
    console: Option<(UnixListener, std::path::PathBuf)>,
    owner: make::Owner,
) -> Result<()> {
    let master = console.map(|(listener, _)| terminal(&listener)).transpose()?;
    master.iter().try_for_each(|master| make::give_terminal(master, owner))?;
    tell(socket, &ExecEvent::Started, master.as_ref().map(OwnedFd::as_fd))
}

/// Files that an exec leaves in the container's run directory, removed when this is dropped: there is one for each exec.
struct Leftovers<'a> {
    run: &'a Path,
    id: &'a str,
}

impl Leftovers<'_> {
    fn console(&self) -> std::path::PathBuf {
        self.run.join(format!("exec-{}.sock", std::process::id()))
    }

    fn process(&self) -> std::path::PathBuf {
        self.run.join(format!("exec-{}.json", std::process::id()))
    }
}

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        // What a failed start leaves is about to end, and holds its socket until then.
        for _ in 0..100 {
            match wait::any_ended() {
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Ok(Some(_)) => {}
                Err(_) => break,
            }
        }
        let _ = std::fs::remove_file(self.console());
        let _ = std::fs::remove_file(self.process());
        let _ = std::fs::remove_file(self.run.join(format!("exec-{}.log", std::process::id())));
        // libcontainer leaves a socket behind, an exec that was killed its files. What is listed first and has nobody
        // behind it afterwards is nobody's: names are never used again.
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter_map(|e| e.file_name().into_string().ok()).collect()
        };
        let oci = self.run.join(run::OCI).join(self.id);
        let sockets = names(&oci);
        let bound = std::fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
        for name in sockets.iter().filter(|n| n.starts_with("tenant-") && !bound.contains(n.as_str())) {
            // A terminal's is a link to the socket of its own exec.
            let path = oci.join(name);
            let owner =
                std::fs::read_link(&path).ok().and_then(|to| to.file_name().map(std::ffi::OsStr::to_owned));
            if owner.is_none_or(|owner| is_over(&owner.to_string_lossy())) {
                let _ = std::fs::remove_file(path);
            }
        }
        for name in names(self.run).iter().filter(|name| is_over(name)) {
            let _ = std::fs::remove_file(self.run.join(name));
        }
    }
}

/// Whether a file is one of this exec or of one that is over: `exec-<pid>.<kind>`.
fn is_over(name: &str) -> bool {
    let pid =
        name.strip_prefix("exec-").and_then(|rest| rest.split('.').next()).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid: u32| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists())
}

/// Socket paths end at 107 bytes: through a descriptor of the directory any path fits.
fn short(dir: &Path, path: &Path) -> Result<std::path::PathBuf> {
    std::env::set_current_dir(dir).doing(|| format!("enter {}", dir.display()))?;
    Ok(path.file_name().map(Into::into).unwrap_or_default())
}

/// The command, and its user and group on the node.
fn start(
    request: &ExecRequest,
    streams: Vec<OwnedFd>,
    console: Option<&Path>,
    files: &Leftovers<'_>,
    log: &Path,
) -> Result<(Pid, make::Owner)> {
    let config = request.run.join(run::CONFIG);
    let spec: Spec = read_json(&config)
        .doing(|| format!("read {}", config.display()))?
        .ok_or_else(|| Error::Asked(format!("{} is missing or damaged", config.display())))?;
    let own = spec.process().as_ref().ok_or_else(|| Error::Asked("the container has no process".into()))?;
    let mut process = bundle::exec_process(own, &request.command, request.tty);
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().clone());
    let lent = seccomp.is_some() && lend(&mut process);
    let (become_user, owner) = user_inside(&request.run, &mut process)?;
    let become_user = become_user.map(Arc::new);
    let program = Program { seccomp, lent, become_user, size: request.size.filter(|_| request.tty) };
    let file = files.process();
    write_json(&file, &process).doing(|| format!("write {}", file.display()))?;
    let failed = |error: libcontainer::error::LibcontainerError| Error::Container {
        doing: "join the container",
        cause: trace::explain(&error, log),
    };
    let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_executor(program)
        .with_root_path(request.run.join(run::OCI))
        .map_err(failed)?
        .with_console_socket(console);
    make::give(&streams, owner)?;
    let mut streams = streams.into_iter();
    if let (Some(stdin), Some(stdout), Some(stderr)) = (streams.next(), streams.next(), streams.next()) {
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    } else if console.is_none() {
        return Err(Error::Asked("three streams or a terminal are needed".into()));
    }
    let score = make::own_score();
    let built = builder.as_tenant().with_detach(true).with_process(Some(file)).build();
    make::protect_again(&score);
    built.map(|pid| (pid, owner)).map_err(failed)
}

/// The command's user and group on the node; and, of a container in a user namespace, who it is to be there: libcontainer
/// joins all other namespaces and is told to leave the process as it is.
fn user_inside(run_dir: &Path, process: &mut Process) -> Result<(Option<Become>, make::Owner)> {
    let file = run_dir.join(run::SPEC);
    let spec: ShimSpec = read_json(&file)
        .doing(|| format!("read {}", file.display()))?
        .ok_or_else(|| Error::Asked(format!("{} is missing or damaged", file.display())))?;
    let Some(users) = spec.users else { return Ok((None, (process.user().uid(), process.user().gid()))) };
    let namespace = std::fs::File::open(&users.namespace).doing(|| "open the pod's user namespace".into())?;
    let user = process.user();
    let outside =
        (mapped(&users.ids.uids, "user", user.uid())?, mapped(&users.ids.gids, "group", user.gid())?);
    let inside = process.clone();
    process.set_user(User::default()).set_capabilities(None).set_no_new_privileges(None);
    Ok((Some(Become { namespace: namespace.into(), process: inside, outside: outside.0 }), outside))
}

/// Loading a filter needs CAP_SYS_ADMIN where privileges may still be gained; the program gives it back. True if lent.
fn lend(process: &mut Process) -> bool {
    if process.no_new_privileges() == Some(true) {
        return false;
    }
    let mut sets: LinuxCapabilities = process.capabilities().clone().unwrap_or_default();
    let has = sets.permitted().as_ref().is_some_and(|s| s.contains(&Capability::SysAdmin));
    if has {
        return false;
    }
    let with = |set: &Option<std::collections::HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(Capability::SysAdmin);
        Some(set)
    };
    let (effective, permitted) = (with(sets.effective()), with(sets.permitted()));
    sets.set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    true
}

/// The command's exit code; kills the command when the asker is gone.
fn outcome(socket: &UnixStream, pid: Pid) -> Result<i32> {
    let end = wait::pidfd(pid)?;
    wait::for_any(&[end.as_fd(), socket.as_fd()])?;
    if !wait::is_ready(end.as_fd())? {
        // Nothing is ever sent to us after the request: a readable socket is a closed one.
        let _ = kill(pid, Signal::SIGKILL);
        wait::for_any(&[end.as_fd()])?;
    }
    let mut code = wait::UNKNOWN;
    // A failed start leaves children of libcontainer's beside the command.
    while let Ok(Some((ended, with))) = wait::any_ended() {
        if ended == pid {
            code = with;
        }
    }
    Ok(code)
}

fn receive(socket: &UnixStream) -> Result<(ExecRequest, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 64 << 10];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(socket, &mut first, &mut control, RecvFlags::CMSG_CLOEXEC)
        .doing(|| "read the request".into())?;
    let mut streams = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            streams.extend(fds);
        }
    }
    bytes.truncate(got.bytes);
    let mut reader = socket;
    while bytes.last() != Some(&b'\n') {
        let mut more = [0; 16 << 10];
        let count = reader.read(&mut more).doing(|| "read the request".into())?;
        if count == 0 || bytes.len() > LONGEST {
            return Err(Error::Asked("the request is cut short or too long".into()));
        }
        bytes.extend_from_slice(&more[..count]);
    }
    let request = serde_json::from_slice(&bytes).map_err(|e| Error::Asked(format!("no request: {e}")))?;
    Ok((request, streams))
}

fn tell(socket: &UnixStream, event: &ExecEvent, descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut line = serde_json::to_vec(event).map_err(|e| Error::Asked(e.to_string()))?;
    line.push(b'\n');
    let Some(descriptor) = descriptor else {
        let mut writer = socket;
        return writer.write_all(&line).doing(|| "tell the asker".into());
    };
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)
        .doing(|| "tell the asker".into())?;
    Ok(())
}

/// The terminal's master side, which libcontainer sends.
pub(super) fn terminal(listener: &UnixListener) -> Result<OwnedFd> {
    let (stream, _) = listener.accept().doing(|| "accept the terminal".into())?;
    let mut name = [0; 128];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .doing(|| "receive the terminal".into())?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(Error::Asked(format!("no terminal came over descriptor {}", stream.as_raw_fd())))
}
