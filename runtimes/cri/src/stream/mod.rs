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
    #[error("streaming URL {0:?}: only http://HOST[:PORT]/PATH is understood; turn TLS streaming off in the CRI server")]
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

/// The contract's exec.
pub(crate) async fn exec(
    inner: &Inner,
    id: &ContainerId,
    spec: &ExecSpec,
    streams: ExecStreams,
) -> Result<i32> {
    let doing = || format!("run {:?} in container {id}", spec.command.first().map_or("", String::as_str));
    inner.must_own(id, doing).await?;
    let wanted = Wanted::of(&streams, spec.tty);
    let request = proto::ExecRequest {
        container_id: id.0.clone(),
        cmd: spec.command.clone(),
        tty: spec.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let url = async || {
        let limit = Some(inner.limit());
        let mut client = inner.runtime();
        let answer = call::within(doing, limit, client.exec(call::request(request.clone(), limit))).await;
        match answer {
            Ok(answer) => Ok(answer.url),
            Err(error) => Err(inner.explain(id, error).await),
        }
    };
    match run(url, wanted, streams, doing).await? {
        Ended::Exit(code) => Ok(code),
        Ended::Failed(message) => Err(inner.explain(id, Error::failed(doing(), message)).await),
    }
}

/// Like exec, to the container's own process.
pub(crate) async fn attach(inner: &Inner, id: &ContainerId, tty: bool, streams: ExecStreams) -> Result<()> {
    let doing = || format!("attach to container {id}");
    inner.must_own(id, doing).await?;
    let wanted = Wanted::of(&streams, tty);
    let request = proto::AttachRequest {
        container_id: id.0.clone(),
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    let url = async || {
        let limit = Some(inner.limit());
        let mut client = inner.runtime();
        let answer = call::within(doing, limit, client.attach(call::request(request.clone(), limit))).await;
        match answer {
            Ok(answer) => Ok(answer.url),
            Err(error) => Err(inner.explain(id, error).await),
        }
    };
    match run(url, wanted, streams, doing).await? {
        Ended::Exit(_) => Ok(()),
        Ended::Failed(message) => Err(inner.explain(id, Error::failed(doing(), message)).await),
    }
}

/// Runs the streams over the first protocol that the server speaks. A URL is good for one attempt.
async fn run(
    url: impl AsyncFn() -> Result<String>,
    wanted: Wanted,
    streams: ExecStreams,
    doing: impl Fn() -> String,
) -> Result<Ended> {
    let failed = |error: StreamError| Error::failed(doing(), error);
    let mut pipes = Pipes::new(streams);
    let address = StreamUrl::parse(&url().await?).map_err(failed)?;
    match websocket::open(&address, wanted.stdin).await {
        Ok(socket) => websocket::run(socket, &mut pipes).await.map_err(failed),
        Err(StreamError::Refused(reason)) => {
            tracing::debug!(reason, "no WebSockets of the wanted version; trying SPDY");
            let address = StreamUrl::parse(&url().await?).map_err(failed)?;
            spdy::run(&address, wanted, &mut pipes).await.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
