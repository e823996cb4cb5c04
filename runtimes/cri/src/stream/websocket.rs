//! The streams over a WebSocket: each message is a channel's number and its bytes
//! (subprotocols `v5.channel.k8s.io` and `v4.channel.k8s.io`).

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message};

use super::StreamError;
use super::pipes::{Input, Pipes, Sink, Source, size_json};
use super::status::Ended;
use super::url::StreamUrl;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const RESULT: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the channel named in the next byte has ended.
const END: u8 = 255;

type Socket = WebSocketStream<TcpStream>;

/// Connects and agrees on a version. With stdin only version 5 will do: in 4 stdin cannot end.
pub(super) async fn open(url: &StreamUrl, stdin: bool) -> Result<Socket, StreamError> {
    let broken = |error: WsError| StreamError::Broken(error.to_string());
    let stream = url.connect().await?;
    let mut request = format!("ws://{}{}", url.authority, url.path).into_client_request().map_err(broken)?;
    let versions = if stdin { V5.to_owned() } else { format!("{V5}, {V4}") };
    let versions =
        HeaderValue::from_str(&versions).map_err(|error| StreamError::Broken(error.to_string()))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", versions);
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(error @ (WsError::Http(_) | WsError::Protocol(_))) => {
            Err(StreamError::Refused(error.to_string()))
        }
        Err(error) => Err(broken(error)),
    }
}

/// Carries both directions at once until the result comes.
pub(super) async fn run(socket: Socket, pipes: &mut Pipes) -> Result<Ended, StreamError> {
    let (mut to, mut from) = socket.split();
    let ended = tokio::select! {
        ended = receive(&mut from, &mut pipes.sink) => ended,
        error = send(&mut to, &mut pipes.source) => Err(error),
    };
    let _ = to.send(Message::Close(None)).await;
    ended
}

async fn receive(
    from: &mut (impl futures_core::Stream<Item = Result<Message, WsError>> + Unpin),
    sink: &mut Sink,
) -> Result<Ended, StreamError> {
    while let Some(message) = from.next().await {
        let bytes = match message.map_err(|error| StreamError::Broken(error.to_string()))? {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            _ => continue,
        };
        match bytes.split_first() {
            Some((&STDOUT, bytes)) => sink.stdout(bytes).await?,
            Some((&STDERR, bytes)) => sink.stderr(bytes).await?,
            Some((&RESULT, bytes)) => {
                if let Some(ended) = sink.result(bytes) {
                    return Ok(ended);
                }
            }
            _ => {}
        }
    }
    Err(StreamError::NoResult)
}

/// Sends until it cannot; an end of the input is no end of the command.
async fn send(
    to: &mut (impl futures_util::Sink<Message, Error = WsError> + Unpin),
    source: &mut Source,
) -> StreamError {
    loop {
        let message = match source.next().await {
            Input::Stdin(bytes) => framed(STDIN, bytes),
            Input::StdinEnd => framed(END, &[STDIN]),
            Input::Resize(size) => framed(RESIZE, size_json(size).as_bytes()),
        };
        match to.send(message).await {
            Ok(()) => {}
            // The command is over before its input: the result is on its way.
            Err(WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Io(_)) => {
                std::future::pending::<()>().await;
            }
            Err(error) => return StreamError::Broken(error.to_string()),
        }
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(Bytes::from(message))
}
