//! Running a command in a container, with its streams.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// What a short command printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutput {
    /// Exit code; 128 + n for signal n.
    pub code: i32,
    /// Standard output; at most 16 MiB are kept.
    pub stdout: Vec<u8>,
    /// Standard error, likewise.
    pub stderr: Vec<u8>,
}

/// A command with connected streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The command.
    pub command: Vec<String>,
    /// Give it a terminal; standard error then arrives on standard output.
    pub tty: bool,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The other ends of a command's streams. An absent one is not connected.
#[derive(Default)]
pub struct ExecStreams {
    /// Read and given to the command.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Gets its standard output.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Gets its standard error.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Sizes of the terminal, as they change. One that is there already is the command's from its beginning, where the runtime
    /// can do that.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

impl fmt::Debug for ExecStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExecStreams")
    }
}
