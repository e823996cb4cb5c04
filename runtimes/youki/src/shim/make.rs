//! Makes the container: root file system, user, streams, libcontainer. Runs in the shim's own mount namespace.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use oci_spec::runtime::{Process, Spec};
use rustix::fs::{FileType, fchown, fstat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use super::error::{Doing as _, Error, Result};
use super::executor::Program;
use super::files::{read_json, write_json};
use super::protocol::{ShimSpec, run};
use super::users::mapped;
use super::{exec, rootfs, trace};
use crate::cgroup::Cgroup;
use crate::{bundle, image::user};

/// As the kubelet has it for runtimes.
const PROTECTED: &str = "-998";

/// A made container and where its output comes from.
pub(super) struct Making {
    pub container: Container,
    pub output: Output,
    /// The other end of a standard input that stays open.
    pub input: Option<OwnedFd>,
}

pub(super) enum Output {
    Pipes(OwnedFd, OwnedFd),
    Terminal(OwnedFd),
}

/// The container's first process waits in it for its start.
pub(super) fn container(spec: &ShimSpec, run_dir: &Path) -> Result<Making> {
    rootfs::mount_overlay(spec)?;
    let config = resolve(spec)?;
    let process = config.process().as_ref().ok_or_else(|| Error::Asked("there is no process".into()))?;
    let owner = owner(spec, process)?;
    as_root(spec, || rootfs::make_working_dir(&spec.rootfs, process.cwd()))?;
    let tty = process.terminal().unwrap_or(false);
    write_json(Path::new(run::CONFIG), &config).doing(|| format!("write {}", run::CONFIG))?;
    fs::create_dir_all(run::OCI).doing(|| format!("make {}", run::OCI))?;
    let builder = ContainerBuilder::new(spec.id.clone(), SyscallType::default())
        .with_executor(Program::default())
        .with_root_path(run_dir.join(run::OCI))
        .map_err(|error| failed(&error, run_dir))?;
    let made = if tty {
        with_terminal(builder, owner, run_dir)
    } else {
        with_pipes(builder, spec.stdin, owner, run_dir)
    };
    let made = made.map_err(|error| match error {
        Error::Container { doing, cause } if cause.contains("chdir") => Error::Container {
            doing,
            cause: format!("working directory {}: {cause}", process.cwd().display()),
        },
        other => other,
    });
    if made.is_err() {
        // libcontainer takes its own part away, except cgroups that others' failures made busy.
        let _ = Cgroup::at(&spec.cgroup).and_then(|c| c.kill().and_then(|()| c.remove()));
    }
    made
}

fn resolve(spec: &ShimSpec) -> Result<Spec> {
    let request = &spec.bundle.user;
    let user = user::lookup_user(&spec.rootfs, &request.user)?;
    let mut config = spec.bundle.spec.clone();
    if let Some(process) = config.process_mut() {
        bundle::apply_user(process, &user, request);
    }
    Ok(config)
}

fn build(builder: ContainerBuilder, run_dir: &Path) -> Result<Container> {
    let built = builder.as_init(run_dir).with_systemd(false).with_detach(true).build();
    built.map_err(|error| failed(&error, run_dir))
}

fn failed(error: &libcontainer::error::LibcontainerError, run_dir: &Path) -> Error {
    Error::Container { doing: "make the container", cause: trace::explain(error, &run_dir.join(run::LOG)) }
}

/// The ids on the node of the container's user, who must be in its user namespace, with all groups.
fn owner(spec: &ShimSpec, process: &Process) -> Result<Owner> {
    let user = process.user();
    let Some(users) = &spec.users else { return Ok((user.uid(), user.gid())) };
    for group in user.additional_gids().iter().flatten() {
        mapped(&users.ids.gids, "group", *group)?;
    }
    Ok((mapped(&users.ids.uids, "user", user.uid())?, mapped(&users.ids.gids, "group", user.gid())?))
}

/// Makes files as the container's root would.
fn as_root<T>(spec: &ShimSpec, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(users) = &spec.users else { return work() };
    let (uid, gid) = (mapped(&users.ids.uids, "user", 0)?, mapped(&users.ids.gids, "group", 0)?);
    let (own_uid, own_gid) = (setfsuid(Uid::from_raw(uid)), setfsgid(Gid::from_raw(gid)));
    let outcome = work();
    setfsgid(own_gid);
    setfsuid(own_uid);
    outcome
}

/// Writes down where the container's root file system seems to be for those who join it: the place that it was made in
/// is gone by then.
pub(super) fn name_root(run_dir: &Path, rootfs: &Path) -> Result<()> {
    let file = run_dir.join(run::CONFIG);
    let config: Option<Spec> = read_json(&file).doing(|| format!("read {}", run::CONFIG))?;
    let mut config = config.ok_or_else(|| Error::Asked(format!("{} is damaged", run::CONFIG)))?;
    if let Some(root) = config.root_mut() {
        root.set_path(rootfs.to_owned());
    }
    write_json(&file, &config).doing(|| format!("write {}", run::CONFIG))
}

/// `owner`: who may open the output anew, as programs do that write to `/dev/stdout`.
fn with_pipes(builder: ContainerBuilder, stdin: bool, owner: Owner, run_dir: &Path) -> Result<Making> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe".into());
    let (stdin, input) = if stdin {
        let (stdin, input) = pipe()?;
        (stdin, Some(input))
    } else {
        let null = fs::File::open("/dev/null").doing(|| "open /dev/null".into())?;
        (null.into(), None)
    };
    let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
    give([&stdin, &out_end, &err_end], owner)?;
    let builder = builder.with_stdin(stdin).with_stdout(out_end).with_stderr(err_end);
    Ok(Making { container: build(builder, run_dir)?, output: Output::Pipes(out, err), input })
}

/// User and group on the node.
pub(super) type Owner = (u32, u32);

/// Makes pipes this user's: a program that is not root may open its streams once more by their names, `/dev/stderr`. What
/// is no pipe keeps its owner.
pub(super) fn give<'a>(streams: impl IntoIterator<Item = &'a OwnedFd>, owner: Owner) -> Result<()> {
    for stream in streams {
        let kind = fstat(stream).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind.doing(|| "look at a stream".into())? == FileType::Fifo {
            change_owner(stream, owner.0, Some(owner.1))?;
        }
    }
    Ok(())
}

/// The same for a terminal, whose other side this is. By its descriptor: paths below the container's root are not ours.
pub(super) fn give_terminal(master: &OwnedFd, owner: Owner) -> Result<()> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(master, flags).doing(|| "open the terminal".into())?;
    // Its group is that of all terminals.
    change_owner(&terminal, owner.0, None)
}

fn change_owner(stream: &OwnedFd, user: u32, group: Option<u32>) -> Result<()> {
    let group = group.map(rustix::fs::Gid::from_raw);
    fchown(stream, Some(rustix::fs::Uid::from_raw(user)), group)
        .doing(|| "give a stream to the container's user".into())
}

fn with_terminal(builder: ContainerBuilder, owner: Owner, run_dir: &Path) -> Result<Making> {
    let path = run_dir.join("console");
    let listener = UnixListener::bind("console").doing(|| "listen for the terminal".into())?;
    let container = build(builder.with_console_socket(Some(&path)), run_dir)?;
    let master = exec::terminal(&listener)?;
    give_terminal(&master, owner)?;
    let _ = fs::remove_file(&path);
    Ok(Making { container, output: Output::Terminal(master), input: None })
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Keeps the kernel from choosing the shim when memory runs out: its container would lose log and exit code. Hosts may
/// deny it (no CAP_SYS_RESOURCE); the agent warns once. The score to go back to is what could be had.
pub(super) fn protect() -> String {
    let own = own_score();
    if fs::write(OOM_SCORE, PROTECTED).is_ok() { PROTECTED.to_owned() } else { own }
}

/// The score this process has.
pub(super) fn own_score() -> String {
    fs::read_to_string(OOM_SCORE).unwrap_or_default().trim().to_owned()
}

/// libcontainer gives the caller the container's score: back to our own. Allowed everywhere, since we had it before.
pub(super) fn protect_again(own: &str) {
    let _ = fs::write(OOM_SCORE, own);
}
