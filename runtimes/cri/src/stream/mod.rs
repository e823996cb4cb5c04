//! Commands with connected streams: the server answers Exec and Attach with a URL, and the bytes go over a
//! connection of their own to it.
//!
//! WebSockets are asked for first. Only their version 5 can say that stdin has ended, and servers that vendor
//! older streaming code (containerd 1.6, 1.7) stop at version 4; with stdin wanted, those get SPDY/3.1, which
//! every CRI server still speaks.

mod pipes;
mod spdy;
mod status;
mod url;
mod websocket;

use podstead_runtime::{ContainerId, Error, ExecSpec, ExecStreams, Result};
use thiserror::Error as ThisError;

use crate::client::Inner;
use crate::{call, proto};
use pipes::Pipes;
use status::Ended;
use url::StreamUrl;

/// What went wrong between us and the streaming server.
#[derive(Debug, ThisError)]
pub(crate) enum StreamError {
    #[error(
        "streaming URL {0:?}: only http://HOST[:PORT]/PATH is understood; turn TLS streaming off in the CRI server"
    )]
    Url(String),
    #[error("connect to the streaming server at {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    /// The server does not speak the protocol that was asked for.
    #[error("the streaming server refused: {0}")]
    Refused(String),
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error("the stream ended before the command's result came")]
    NoResult,
    #[error("write the command's output: {0}")]
    Output(std::io::Error),
}

/// Which streams are connected; at least one must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn of(streams: &ExecStreams, tty: bool) -> Self {
        let stdin = streams.stdin.is_some();
        let stderr = streams.stderr.is_some() && !tty;
        // The CRI wants at least one; output that nobody wants is dropped.
        let stdout = streams.stdout.is_some() || !(stdin || stderr);
        Self { stdin, stdout, stderr, tty }
    }
}

/// What the streams are to be connected to.
enum Target {
    Exec(proto::ExecRequest),
    Attach(proto::AttachRequest),
}

struct Session<'a> {
    inner: &'a Inner,
    id: &'a ContainerId,
    doing: String,
    target: Target,
}

/// The contract's exec.
pub(crate) async fn exec(
    inner: &Inner,
    id: &ContainerId,
    spec: &ExecSpec,
    streams: ExecStreams,
) -> Result<i32> {
    let wanted = Wanted::of(&streams, spec.tty);
    let target = Target::Exec(proto::ExecRequest {
        container_id: id.0.clone(),
        cmd: spec.command.clone(),
        tty: spec.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    let doing = format!("run {:?} in container {id}", spec.command.first().map_or("", String::as_str));
    Session { inner, id, doing, target }.run(wanted, streams).await
}

/// Like exec, to the container's own process.
pub(crate) async fn attach(inner: &Inner, id: &ContainerId, tty: bool, streams: ExecStreams) -> Result<()> {
    let wanted = Wanted::of(&streams, tty);
    let target = Target::Attach(proto::AttachRequest {
        container_id: id.0.clone(),
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    Session { inner, id, doing: format!("attach to container {id}"), target }.run(wanted, streams).await?;
    Ok(())
}

impl Session<'_> {
    /// Carries the streams over the first protocol that the server speaks, until the command is over.
    async fn run(&self, wanted: Wanted, streams: ExecStreams) -> Result<i32> {
        self.inner.must_own(self.id, || self.doing.clone()).await?;
        let mut pipes = Pipes::new(streams);
        let ended = match websocket::open(&self.url().await?, wanted.stdin).await {
            Ok(socket) => websocket::run(socket, &mut pipes).await,
            Err(StreamError::Refused(reason)) => {
                tracing::debug!(reason, "no WebSocket of a version that will do; using SPDY");
                // The refused URL is used up.
                spdy::run(&self.url().await?, wanted, &mut pipes).await
            }
            Err(error) => Err(error),
        };
        pipes.sink.end().await;
        match ended.map_err(|error| Error::failed(self.doing.clone(), error))? {
            Ended::Exit(code) => Ok(code),
            Ended::Failed(message) => {
                Err(self.inner.explain(self.id, Error::failed(self.doing.clone(), message)).await)
            }
        }
    }

    /// A new URL; each is good for one connection.
    async fn url(&self) -> Result<StreamUrl> {
        let limit = Some(self.inner.limit());
        let doing = || self.doing.clone();
        let mut client = self.inner.runtime();
        let url = match &self.target {
            Target::Exec(request) => {
                let call = client.exec(call::request(request.clone(), limit));
                call::within(doing, limit, call).await.map(|answer| answer.url)
            }
            Target::Attach(request) => {
                let call = client.attach(call::request(request.clone(), limit));
                call::within(doing, limit, call).await.map(|answer| answer.url)
            }
        };
        match url {
            Ok(url) => StreamUrl::parse(&url).map_err(|error| Error::failed(doing(), error)),
            Err(error) => Err(self.inner.explain(self.id, error).await),
        }
    }
}
