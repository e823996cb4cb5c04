//! One run of a plugin's program: settings by environment and stdin, result from stdout; bounded in time and
//! output, and killed with everything it started when it exceeds them or nobody waits for it any more.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Error, Fault, PluginError, orphans, request::INTERFACE};

/// What a plugin may print as its result, in bytes.
const OUTPUT_MAX: u64 = 1 << 20;
/// The end of stderr that is kept for messages, in bytes.
const STDERR_KEPT: usize = 4096;
/// Where plugins find iptables and the like when the agent's own PATH does not say.
const STANDARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What one run is about.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// The program.
    pub program: &'a Path,
    /// The plugin's `type`, for messages.
    pub plugin: &'a str,
    /// The CNI operation.
    pub command: &'static str,
    /// Which attachment; none for operations that are about the network.
    pub target: Option<Target<'a>>,
    /// `CNI_PATH`.
    pub search: &'a OsStr,
    /// Where the client's records are: its mark on what it starts.
    pub records: &'a Path,
    /// How long it may take.
    pub deadline: Duration,
}

/// The attachment parameters of the specification, section 2.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// `CNI_CONTAINERID`.
    pub sandbox: &'a str,
    /// `CNI_NETNS`; empty when it is gone.
    pub netns: &'a Path,
    /// `CNI_ARGS`.
    pub args: &'a str,
}

/// The error result of the specification, section 5.
#[derive(Deserialize)]
struct Failure {
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

enum Stop {
    TooMuch,
    Io(io::Error),
}

impl Run<'_> {
    /// Runs the program with `config` on stdin and returns what it printed.
    pub(super) async fn run(&self, config: &Value) -> Result<Vec<u8>, Error> {
        let mut process = Process(self.spawn().await.map_err(|source| self.spawn_error(source))?);
        let mut stderr = Vec::new();
        let talk = process.talk(config.to_string().into_bytes(), &mut stderr);
        let ended = timeout(self.deadline, talk).await;
        let (status, output) = match ended {
            Ok(Ok(done)) => done,
            Ok(Err(stop)) => {
                process.end().await;
                return Err(match stop {
                    Stop::TooMuch => self.fault(Fault::TooMuchOutput { limit: OUTPUT_MAX }),
                    Stop::Io(source) => self.spawn_error(source),
                });
            }
            Err(_) => {
                process.end().await;
                return Err(self.fault(Fault::Deadline { after: self.deadline, stderr: excerpt(&stderr) }));
            }
        };
        if status.success() { Ok(output) } else { Err(self.fault(failure(status, &output, &stderr))) }
    }

    async fn spawn(&self) -> io::Result<Child> {
        let mut attempts = 0;
        loop {
            match self.command().spawn() {
                // The program is being installed right now.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && attempts < 10 => {
                    attempts += 1;
                    sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        // Not the agent's environment: it is no part of the interface and may hold what plugins need not know.
        command.env_clear();
        let mut path = std::env::var_os("PATH").map_or_else(OsString::new, |path| {
            let mut path = path;
            path.push(":");
            path
        });
        path.push(STANDARD_PATH);
        command.env("PATH", path).env("CNI_COMMAND", self.command).env("CNI_PATH", self.search);
        if let Some(target) = &self.target {
            command
                .env(orphans::MARK, orphans::mark(self.records, target.sandbox))
                .env("CNI_CONTAINERID", target.sandbox)
                .env("CNI_NETNS", target.netns)
                .env("CNI_IFNAME", INTERFACE)
                .env("CNI_ARGS", target.args);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command
    }

    fn spawn_error(&self, source: io::Error) -> Error {
        Error::Spawn { path: self.program.to_owned(), command: self.command, source }
    }

    /// An error of this run.
    fn fault(&self, fault: Fault) -> Error {
        Error::from(Box::new(PluginError {
            plugin: self.plugin.to_owned(),
            command: self.command,
            sandbox: self.target.map_or("", |target| target.sandbox).to_owned(),
            fault,
        }))
    }
}

/// What the end of a plugin that failed tells.
fn failure(status: ExitStatus, output: &[u8], stderr: &[u8]) -> Fault {
    let stderr = excerpt(stderr);
    match serde_json::from_slice::<Failure>(output) {
        Ok(Failure { code, msg, details }) => {
            let (message, details) = (excerpt(msg.as_bytes()), excerpt(details.as_bytes()));
            Fault::Reported { code, message, details, stderr }
        }
        Err(_) => Fault::Ended {
            status: status.to_string(),
            signalled: status.code().is_none(),
            output: excerpt(output),
            stderr,
        },
    }
}

/// A running program, the leader of its process group.
struct Process(Child);

impl Process {
    async fn talk(&mut self, input: Vec<u8>, errors: &mut Vec<u8>) -> Result<(ExitStatus, Vec<u8>), Stop> {
        let (stdin, stdout, stderr) = (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A plugin need not read what it is told; whether it worked is told by its end.
                let _ = stdin.write_all(&input).await;
            }
            Ok(())
        };
        let read = async {
            let mut output = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(OUTPUT_MAX + 1).read_to_end(&mut output).await.map_err(Stop::Io)?;
            }
            if output.len() as u64 > OUTPUT_MAX { Err(Stop::TooMuch) } else { Ok(output) }
        };
        let listen = async {
            let Some(mut stderr) = stderr else { return Ok(()) };
            let mut chunk = [0; STDERR_KEPT];
            loop {
                let length = stderr.read(&mut chunk).await.map_err(Stop::Io)?;
                if length == 0 {
                    return Ok(());
                }
                errors.extend_from_slice(&chunk[..length]);
                errors.drain(..errors.len().saturating_sub(STDERR_KEPT));
            }
        };
        let ((), output, ()) = tokio::try_join!(write, read, listen)?;
        let status = self.0.wait().await.map_err(Stop::Io)?;
        Ok((status, output))
    }

    fn kill(&self) {
        // Until it is waited for, its ID cannot belong to anyone else.
        let group = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Kills the group and waits a moment for its leader, which may be held by the kernel.
    async fn end(&mut self) {
        self.kill();
        let _ = timeout(Duration::from_secs(5), self.0.wait()).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Text of a plugin for a message: one line, not long.
fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 1000;
    let text = String::from_utf8_lossy(text);
    let mut line: String =
        text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line.trim().to_owned()
}
