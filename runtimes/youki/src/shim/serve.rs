//! The life of a shim: make the container, tell the agent, let it go when asked, carry its output to the log, keep how it
//! ended, take away what it leaves. Outlives the agent; serves any agent that comes later.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libcontainer::container::Container;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podstead_runtime::Time;

use super::error::{Doing as _, Error, Result};
use super::files::{read_json, write_json};
use super::log::{Lines, LogFile, Stream};
use super::make::{self, Output};
use super::protocol::{Exit, Made, Reply, Request, ShimSpec, State, kept, run};
use super::{rootfs, stage, trace, volumes, wait};
use crate::cgroup::Cgroup;

/// How long output may still come after the container's last process is gone: only from one that moved itself elsewhere.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// An agent that connects and says nothing does not hold the log up for longer.
const ASKING: Duration = Duration::from_secs(2);

/// Serves one container until it has ended.
pub(super) fn main(run_dir: &Path) -> ExitCode {
    match make(run_dir) {
        Ok(mut shim) => {
            tell(&Made::Created);
            shim.serve();
            shim.finish();
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&Made::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// The agent reads one line from our standard output, if it is still there.
pub(super) fn tell(made: &Made) {
    if let Ok(mut line) = serde_json::to_vec(made) {
        line.push(b'\n');
        let _ = io::stdout().write_all(&line);
        let _ = io::stdout().flush();
    }
    // Nothing else is ever said there: the agent sees the end.
    if let Ok(null) = fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Tells how the making went, and answers the exit code for it.
pub(super) fn tell_outcome(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => {
            tell(&Made::Created);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&Made::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

struct Shim {
    spec: ShimSpec,
    run_dir: PathBuf,
    container: Container,
    state: State,
    end: OwnedFd,
    listener: UnixListener,
    outputs: Vec<(OwnedFd, Lines)>,
    log: Option<LogFile>,
    /// Held so that the container's standard input does not end.
    _input: Option<OwnedFd>,
    /// Locked as long as this process lives.
    _lock: fs::File,
}

fn make(run_dir: &Path) -> Result<Shim> {
    // Own session: no signal meant for the agent's terminal or service reaches us.
    let _ = rustix::process::setsid();
    // Not the agent's, which may be stricter: the container has it from us, as do the mount points made in it.
    let _ = rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    let _ = rustix::thread::set_name(c"podstead-shim");
    let lock = lock(run_dir)?;
    std::env::set_current_dir(run_dir).doing(|| format!("enter {}", run_dir.display()))?;
    let mut spec: ShimSpec = read_json(Path::new(run::SPEC))
        .doing(|| format!("read {}", run::SPEC))?
        .ok_or_else(|| Error::Asked(format!("{}/{} is missing or damaged", run_dir.display(), run::SPEC)))?;
    let log_path = run_dir.join(run::LOG);
    trace::to_file(&log_path).doing(|| format!("open {}", log_path.display()))?;
    let listener = UnixListener::bind(run::SOCKET).doing(|| "listen for the agent".into())?;
    let score = make::protect();
    let home = rootfs::leave_home(&mut spec, run_dir)?;
    let lasting_root = spec.rootfs.clone();
    stage::map_layers(&mut spec, run_dir)?;
    volumes::images(&spec)?;
    volumes::seclude(&mut spec, run_dir)?;
    stage::set(&mut spec)?;
    let made = make::container(&spec, run_dir)?;
    rootfs::go_home(&home)?;
    if spec.rootfs != lasting_root {
        make::name_root(run_dir, &lasting_root)?;
        spec.rootfs = lasting_root;
    }
    make::protect_again(&score);
    let pid = made.container.pid().ok_or_else(|| Error::Asked("the container has no process".into()))?;
    let state = State { pid: pid.as_raw(), start_ticks: start_ticks(pid)?, started_at: None };
    let end = wait::pidfd(pid)?;
    let outputs = match made.output {
        Output::Pipes(out, err) => vec![(out, Lines::new(Stream::Stdout)), (err, Lines::new(Stream::Stderr))],
        Output::Terminal(master) => vec![(master, Lines::new(Stream::Stdout))],
    };
    for (fd, _) in &outputs {
        rustix::io::ioctl_fionbio(fd, true).doing(|| "set up the container's output".into())?;
    }
    let mut shim = Shim {
        run_dir: run_dir.to_owned(),
        container: made.container,
        state,
        end,
        listener,
        outputs,
        log: None,
        _input: made.input,
        _lock: lock,
        spec,
    };
    // The log is opened last: where it stands, the agent takes the attempt for one that was made.
    match shim.commit().and_then(|()| shim.open_log()) {
        Ok(()) => Ok(shim),
        Err(error) => {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = fs::rename(shim.spec.kept.join(kept::RECORD), shim.spec.kept.join(kept::MAKING));
            shim.clean();
            Err(error)
        }
    }
}

/// The lock tells everyone that, and in which process, this container's shim lives. Not inherited by forks.
pub(super) fn lock(run_dir: &Path) -> Result<fs::File> {
    let path = run_dir.join(run::LOCK);
    let file = fs::OpenOptions::new().write(true).open(&path).doing(|| format!("open {}", path.display()))?;
    let whole = whole_file(libc::F_WRLCK);
    fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), FcntlArg::F_SETLK(&whole))
        .doing(|| format!("lock {}: another shim or a removal has it", path.display()))?;
    Ok(file)
}

pub(crate) fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// When a process was started, field 22 of `/proc/<pid>/stat`.
pub(crate) fn start_ticks(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| Error::Asked(format!("{path} has no start time")))
}

impl Shim {
    /// From here on the container exists for everyone.
    fn commit(&self) -> Result<()> {
        self.save()?;
        let (making, record) = (self.spec.kept.join(kept::MAKING), self.spec.kept.join(kept::RECORD));
        fs::rename(&making, &record).doing(|| format!("enter {}", record.display()))
    }

    fn open_log(&mut self) -> Result<()> {
        let Some(path) = self.spec.log.as_deref() else { return Ok(()) };
        self.log =
            Some(LogFile::open(path).doing(|| format!("open the container's log {}", path.display()))?);
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let path = self.run_dir.join(run::STATE);
        write_json(&path, &self.state).doing(|| format!("write {}", path.display()))
    }

    /// Until the container's first process has ended.
    fn serve(&mut self) {
        loop {
            let mut fds = vec![self.end.as_fd(), self.listener.as_fd()];
            fds.extend(self.outputs.iter().map(|(fd, _)| fd.as_fd()));
            let ready = match wait::readable(&fds, None) {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the shim cannot wait; the container is killed");
                    let _ = kill(Pid::from_raw(self.state.pid), Signal::SIGKILL);
                    return;
                }
            };
            self.carry(&ready[2..]);
            if ready[1] {
                self.answer();
            }
            if ready[0] {
                return;
            }
        }
    }

    /// Carries what there is to read to the log, and forgets streams that are over.
    fn carry(&mut self, ready: &[bool]) {
        let mut buffer = [0; 16 << 10];
        let mut entries = Vec::new();
        let mut ready = ready.iter().copied();
        let log = &mut self.log;
        self.outputs.retain_mut(|(fd, lines)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match rustix::io::read(&*fd, &mut buffer) {
                Ok(count) if count > 0 => {
                    lines.feed(&buffer[..count], Time::now(), &mut entries);
                    true
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
                // A terminal whose last process is gone answers EIO.
                _ => {
                    lines.finish(Time::now(), &mut entries);
                    false
                }
            }
        });
        if let (Some(log), false) = (log, entries.is_empty()) {
            log.append(&entries);
        }
    }

    fn answer(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let _ = stream.set_read_timeout(Some(ASKING));
        let _ = stream.set_write_timeout(Some(ASKING));
        let mut line = String::new();
        if BufReader::new((&stream).take(4096)).read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let reply: Reply = match serde_json::from_str(&line) {
            Ok(Request::Start) => self.start().map_err(|e| e.to_string()),
            Ok(Request::ReopenLog) => self
                .log
                .as_mut()
                .map_or(Ok(()), LogFile::reopen)
                .map_err(|e| format!("open the log anew: {e}")),
            Err(error) => Err(format!("not understood: {error}")),
        };
        reply_to(&stream, &reply);
    }

    fn start(&mut self) -> Result<()> {
        if self.state.started_at.is_some() {
            return Ok(());
        }
        // Written first: killed in between, we leave a container that is said to run and is then found dead.
        self.state.started_at = Some(Time::now());
        if let Err(error) = self.save() {
            self.state.started_at = None;
            return Err(error);
        }
        self.container.start().map_err(|error| {
            // It may or may not run now: what is said to run and does not must not stay.
            let _ = kill(Pid::from_raw(self.state.pid), Signal::SIGKILL);
            let cause = trace::explain(&error, &self.run_dir.join(run::LOG));
            Error::Container { doing: "start the container", cause }
        })
    }

    /// The container has ended: keeps how, tells the agent, takes everything away.
    fn finish(&mut self) {
        let code = wait::end_of(Pid::from_raw(self.state.pid)).unwrap_or(wait::UNKNOWN);
        let finished_at = Time::now();
        let cgroup = Cgroup::at(&self.spec.cgroup);
        let oom = cgroup.as_ref().is_ok_and(Cgroup::ran_out_of_memory);
        // Whoever is left was its child, perhaps in the node's pid namespace.
        if let Ok(cgroup) = &cgroup
            && let Err(error) = cgroup.kill()
        {
            tracing::error!(%error, cgroup = self.spec.cgroup, "something of the container is left");
        }
        self.drain();
        let exit = Exit {
            code,
            started_at: self.state.started_at.unwrap_or_default(),
            finished_at,
            oom,
            unseen: false,
        };
        if let Err(error) = write_json(&self.spec.kept.join(kept::EXIT), &exit) {
            tracing::error!(%error, "the exit code is lost");
        }
        self.clean();
        // A file that appears wakes the agent; it takes it away.
        let _ = fs::File::create(self.spec.hints.join(&self.spec.id));
    }

    fn drain(&mut self) {
        let until = Instant::now() + LAST_WORDS;
        while !self.outputs.is_empty() {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            if left == 0 {
                // Whoever still writes will do so for ever.
                break;
            }
            let fds: Vec<_> = self.outputs.iter().map(|(fd, _)| fd.as_fd()).collect();
            let Ok(ready) = wait::readable(&fds, u64::try_from(left).ok()) else { break };
            if !ready.contains(&true) {
                break;
            }
            self.carry(&ready);
        }
        let mut entries = Vec::new();
        for (_, lines) in &mut self.outputs {
            lines.finish(Time::now(), &mut entries);
        }
        if let (Some(log), false) = (&mut self.log, entries.is_empty()) {
            log.append(&entries);
        }
    }

    fn clean(&self) {
        let removed = Cgroup::at(&self.spec.cgroup).and_then(|cgroup| {
            cgroup.kill()?;
            cgroup.remove()
        });
        if let Err(error) = removed {
            tracing::error!(%error, cgroup = self.spec.cgroup, "the container's cgroup stays");
        }
        let _ = fs::remove_file(self.run_dir.join(run::SOCKET));
        let _ = fs::remove_dir_all(self.run_dir.join(run::OCI));
    }
}

fn reply_to(mut stream: &UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let _ = stream.write_all(&line);
    }
}
