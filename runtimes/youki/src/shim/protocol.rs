//! What agent and shim say to each other: the files in a container's directories and the messages on its socket. Plain
//! data and names; touches nothing.

use std::path::PathBuf;

use podstead_runtime::Time;
use podstead_runtime::security::UserNamespace;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;

/// Files of a container's run directory, which does not survive a reboot.
pub mod run {
    /// What the shim is to make: a [`ShimSpec`](super::ShimSpec), written by the agent.
    pub const SPEC: &str = "shim.json";
    /// Locked (POSIX, whole file) by the shim while it lives.
    pub const LOCK: &str = "lock";
    /// The shim's socket.
    pub const SOCKET: &str = "sock";
    /// A [`State`](super::State), written by the shim.
    pub const STATE: &str = "state.json";
    /// What libcontainer and the shim have to say.
    pub const LOG: &str = "shim.log";
    /// The bundle's configuration with the user resolved.
    pub const CONFIG: &str = "config.json";
    /// libcontainer's own directory.
    pub const OCI: &str = "oci";
}

/// Files of a container's own directory, which survives.
pub mod kept {
    /// What is to be made; renamed by the shim to [`RECORD`] once it is.
    pub const MAKING: &str = "making.json";
    /// The container's record: it exists when this file does.
    pub const RECORD: &str = "container.json";
    /// An [`Exit`](super::Exit), written by the shim.
    pub const EXIT: &str = "exit.json";
}

/// What a shim makes and keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShimSpec {
    /// The container's id.
    pub id: String,
    /// Its own directory, which survives a reboot.
    pub kept: PathBuf,
    /// Where an empty file named by the id is put when the container has ended: the agent watches it.
    pub hints: PathBuf,
    /// The log file; `None` for none.
    pub log: Option<PathBuf>,
    /// Where the root file system is mounted, in the shim's own mount namespace.
    pub rootfs: PathBuf,
    /// Image layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// Takes what the container writes.
    pub upper: PathBuf,
    /// Overlayfs's work directory.
    pub work: PathBuf,
    /// Whether standard input stays open: the shim holds its other end.
    #[serde(default)]
    pub stdin: bool,
    /// Whether device nodes of the image, or made later, are dead: where no cgroup rules their use.
    #[serde(default)]
    pub no_devices: bool,
    /// Images that are mounted into the container.
    #[serde(default)]
    pub images: Vec<ImageMount>,
    /// The pod's user namespace, if it has one of its own.
    #[serde(default)]
    pub users: Option<Users>,
    /// The OCI configuration, its user not resolved yet.
    pub bundle: Bundle,
    /// The container's cgroup, absolute below each hierarchy's root.
    pub cgroup: String,
}

/// The user namespace that a container is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Where it is pinned.
    pub namespace: PathBuf,
    /// Its ids.
    pub ids: UserNamespace,
}

/// An image as the source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Its name, for messages.
    pub name: String,
    /// Where it is mounted, in the shim's own mount namespace.
    pub at: PathBuf,
    /// Its layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The part that is wanted; empty for all of it.
    pub sub_path: String,
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its first process, as the node numbers it.
    pub pid: i32,
    /// When that process was started, in clock ticks since boot: tells it from a later one with the same number.
    pub start_ticks: u64,
    /// When it was let go; `None` while it waits.
    pub started_at: Option<Time>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + n for signal n.
    pub code: i32,
    /// When it was let go; "never" if it was not.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// Whether the kernel killed something in it for want of memory.
    pub oom: bool,
    /// Nobody saw the end: the shim was killed before it. Code and time are the finder's.
    #[serde(default)]
    pub unseen: bool,
}

/// A shim's first and only line on standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Made {
    /// The container is there and waits.
    Created,
    /// It is not, and nothing of it is left.
    Failed(String),
}

/// What the agent asks of a shim; one line of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Let the container go. Success when it was let go before.
    Start,
    /// Open the log file anew.
    ReopenLog,
}

/// The answer, one line.
pub type Reply = Result<(), String>;

/// What a throw-away process runs in a container; one line, sent with the descriptors of its streams (input, output,
/// error) unless it has a terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// Its run directory.
    pub run: PathBuf,
    /// The command.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's rows and columns, if they are known before the command begins.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
}

/// What that process tells, one line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEvent {
    /// The command runs. Comes with the terminal's descriptor if it has one.
    Started,
    /// It ended with this code; 128 + n for signal n.
    Exited(i32),
    /// It could not be run.
    Failed(String),
}
