//! The agent's side of shims: starts them from a sealed copy of the binary, asks them, waits for their end, and knows
//! which are alive. Holds no state of its own beyond that copy: everything is in files, so any agent can take over.

mod exec;
mod image;
mod liveness;
mod system;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error as ThisError;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::OnceCell;

pub(crate) use self::exec::Streams;
use self::image::Sealed;
pub(crate) use self::liveness::{Process, Shim, claim, orphans, shim_of, shim_process};
use crate::shim::protocol::{Made, Reply, Request, run};
use crate::shim::{EXEC, PAUSE, SHIM, USERS};

/// Making a container takes milliseconds; one that takes this long hangs.
const MAKING: Duration = Duration::from_secs(120);
/// A shim answers at once unless the disk under its log does not.
const ASKING: Duration = Duration::from_secs(30);

/// A shim could not be started or asked.
#[derive(Debug, ThisError)]
pub(crate) enum LaunchError {
    /// The binary cannot be copied or started.
    #[error("start a shim from {}: {source}", exe.display())]
    Start {
        /// The binary.
        exe: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The container could not be made or joined.
    #[error("{0}")]
    Refused(String),
    /// The shim is not there (any more).
    #[error("its shim is gone")]
    Gone,
    /// It does not answer.
    #[error("its shim does not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// Talking to it failed.
    #[error("{doing}: {source}")]
    Talk {
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

pub(crate) type Result<T> = std::result::Result<T, LaunchError>;

pub(crate) fn talk(doing: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::Talk { doing, source }
}

/// Starts shims.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    exe: PathBuf,
    sealed: Arc<OnceCell<Sealed>>,
}

impl Launcher {
    /// Shims are started from this binary; it is copied at the first.
    pub(crate) fn new(exe: PathBuf) -> Self {
        Self { exe, sealed: Arc::default() }
    }

    /// Copies the binary now, in the background, unless that is done: the first container need not wait for it.
    pub(crate) fn warm(&self) {
        if !self.sealed.initialized() {
            let launcher = self.clone();
            // Whoever needs the copy tries again and reports.
            tokio::spawn(async move { launcher.sealed().await.map(drop) });
        }
    }

    async fn sealed(&self) -> Result<&Sealed> {
        let exe = self.exe.clone();
        let copy = || async move {
            tokio::task::spawn_blocking(move || Sealed::copy(&exe))
                .await
                .unwrap_or_else(|e| Err(io::Error::other(e)))
        };
        self.sealed.get_or_try_init(copy).await.map_err(|source| self.failed(source))
    }

    async fn command(&self, entry: &str) -> Result<Command> {
        let sealed = self.sealed().await?;
        let mut command = Command::new(sealed.path());
        command.arg0("podstead-shim").arg(entry).env_clear();
        Ok(command)
    }

    fn failed(&self, source: io::Error) -> LaunchError {
        LaunchError::Start { exe: self.exe.clone(), source }
    }

    /// Starts the shim of a container and returns once the container is made. The shim's directory holds its spec and
    /// an empty lock file. Nothing is left when it fails.
    pub(crate) async fn make(&self, run_dir: &Path) -> Result<()> {
        self.launch(SHIM, run_dir).await
    }

    /// Starts the first process of a shared pid namespace; its directory holds an empty lock file.
    pub(crate) async fn pause(&self, dir: &Path) -> Result<()> {
        self.launch(PAUSE, dir).await
    }

    /// Makes the namespaces of a pod with a user namespace of its own; the directory holds the order.
    pub(crate) async fn users(&self, dir: &Path) -> Result<()> {
        self.launch(USERS, dir).await
    }

    async fn launch(&self, entry: &str, run_dir: &Path) -> Result<()> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(run_dir.join(run::LOG));
        let log = log.map_err(talk("open the shim's log"))?;
        let mut command = self.command(entry).await?;
        command.arg(run_dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|source| self.failed(source))?;
        let stdout = child.stdout.take();
        let mut line = String::new();
        if let Some(stdout) = stdout {
            let mut reader = BufReader::new(stdout.take(64 << 10));
            let Ok(read) = tokio::time::timeout(MAKING, reader.read_line(&mut line)).await else {
                let _ = child.start_kill();
                return Err(LaunchError::Silent(MAKING));
            };
            read.map_err(talk("hear from the shim"))?;
        }
        match serde_json::from_str(&line) {
            Ok(Made::Created) => Ok(()),
            Ok(Made::Failed(cause)) => Err(LaunchError::Refused(cause)),
            Err(_) => {
                let status = child.wait().await.map(|s| s.to_string()).unwrap_or_default();
                let log = tokio::fs::read_to_string(run_dir.join(run::LOG)).await.unwrap_or_default();
                let last = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
                Err(LaunchError::Refused(format!("the shim died before it was done ({status}) {last}")))
            }
        }
    }

    /// A process that joins containers, with the socket it is spoken to by.
    pub(crate) async fn joiner(&self) -> Result<(tokio::process::Child, std::os::unix::net::UnixStream)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(talk("make a socket"))?;
        let mut command = self.command(EXEC).await?;
        command
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(|source| self.failed(source))?;
        Ok((child, ours))
    }
}

/// Asks the shim of a container; `Gone` when there is none.
pub(crate) async fn ask(run_dir: &Path, request: Request) -> Result<()> {
    let asked = tokio::time::timeout(ASKING, ask_patiently(run_dir, request)).await;
    asked.unwrap_or(Err(LaunchError::Silent(ASKING)))
}

async fn ask_patiently(run_dir: &Path, request: Request) -> Result<()> {
    // A container that waits for its start still holds a dead shim's socket open: nobody would ever answer.
    if !matches!(shim_of(run_dir).map_err(talk("look for the shim"))?, Shim::Alive(_)) {
        return Err(LaunchError::Gone);
    }
    // Socket paths end at 107 bytes: through a descriptor of the directory any path fits.
    let dir = match std::fs::File::open(run_dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LaunchError::Gone),
        Err(error) => return Err(talk("open the shim's directory")(error)),
    };
    let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), run::SOCKET);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(LaunchError::Gone);
        }
        Err(error) => return Err(talk("reach the shim")(error)),
    };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(&request).map_err(|e| talk("ask the shim")(e.into()))?;
    line.push(b'\n');
    // It may end while we ask.
    write.write_all(&line).await.map_err(|_| LaunchError::Gone)?;
    let mut answer = String::new();
    let read = BufReader::new(read.take(64 << 10)).read_line(&mut answer).await;
    if read.is_err() || answer.is_empty() {
        return Err(LaunchError::Gone);
    }
    let reply: Reply = serde_json::from_str(&answer).map_err(|e| talk("understand the shim")(e.into()))?;
    reply.map_err(LaunchError::Refused)
}
