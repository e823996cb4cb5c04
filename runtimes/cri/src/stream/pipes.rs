//! Our ends of a command's streams, whatever protocol carries them.

use podstead_runtime::{ExecStreams, TerminalSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::StreamError;
use super::status::{self, Ended};

/// Bytes of stdin sent at a time.
const CHUNK: usize = 32 << 10;

/// What is to be sent.
pub(super) enum Input<'a> {
    Stdin(&'a [u8]),
    StdinEnd,
    Resize(TerminalSize),
}

/// The two directions, borrowed apart so that neither waits for the other.
pub(super) struct Pipes {
    pub(super) source: Source,
    pub(super) sink: Sink,
}

/// Where input comes from.
pub(super) struct Source {
    stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    resize: Option<mpsc::Receiver<TerminalSize>>,
    buffer: Vec<u8>,
}

/// Where output goes, and what has come of the result.
pub(super) struct Sink {
    stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    status: Vec<u8>,
}

impl Pipes {
    pub(super) fn new(streams: ExecStreams) -> Self {
        Self {
            source: Source { stdin: streams.stdin, resize: streams.resize, buffer: vec![0; CHUNK] },
            sink: Sink { stdout: streams.stdout, stderr: streams.stderr, status: Vec::new() },
        }
    }
}

impl Source {
    /// The next thing to send; pending for ever when there will be none. An unreadable stdin has ended.
    pub(super) async fn next(&mut self) -> Input<'_> {
        loop {
            let Self { stdin, resize, buffer } = self;
            let read = async {
                match stdin {
                    Some(stdin) => stdin.read(buffer).await,
                    None => std::future::pending().await,
                }
            };
            let size = async {
                match resize {
                    Some(resize) => resize.recv().await,
                    None => std::future::pending().await,
                }
            };
            let read = tokio::select! {
                read = read => read,
                size = size => {
                    if let Some(size) = size {
                        return Input::Resize(size);
                    }
                    self.resize = None;
                    continue;
                }
            };
            return match read {
                Ok(count) if count > 0 => Input::Stdin(&self.buffer[..count]),
                _ => {
                    self.stdin = None;
                    Input::StdinEnd
                }
            };
        }
    }
}

/// A terminal's size as the streaming servers read it.
pub(super) fn size_json(size: TerminalSize) -> String {
    format!(r#"{{"Width":{},"Height":{}}}"#, size.width, size.height)
}

impl Sink {
    pub(super) async fn stdout(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        write(&mut self.stdout, bytes).await
    }

    pub(super) async fn stderr(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        write(&mut self.stderr, bytes).await
    }

    /// Passes the end of the output on, for readers that wait for it.
    pub(super) async fn end(&mut self) {
        for to in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            let _ = to.shutdown().await;
        }
    }

    /// Takes a piece of the result; answers when it is whole.
    pub(super) fn result(&mut self, bytes: &[u8]) -> Option<Ended> {
        let room = status::MAX_STATUS.saturating_sub(self.status.len());
        self.status.extend_from_slice(&bytes[..bytes.len().min(room)]);
        status::parse(&self.status)
    }
}

/// Writes at once what came: on a terminal, a prompt ends without a line break.
async fn write(to: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>, bytes: &[u8]) -> Result<(), StreamError> {
    let Some(to) = to else { return Ok(()) };
    to.write_all(bytes).await.map_err(StreamError::Output)?;
    to.flush().await.map_err(StreamError::Output)
}
