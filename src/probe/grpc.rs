//! The `grpc` probe: `grpc.health.v1.Health/Check` over HTTP/2, plaintext or, by `mode: TLS`, encrypted and
//! unverified (`kubelet-static-pods.md 3`). Touches the
//! network.
//!
//! One call with one text in and one number out does not need a gRPC library; the few bytes are written and read here.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;

use super::check::{Answer, MAX_TEXT};
use super::dial::{self, Peer};
use super::http::PROBE_AGENT;
use super::tls;

/// Until the time is up, a refused connection is tried again after this long.
const REDIAL: Duration = Duration::from_secs(1);

const SERVING: u64 = 1;
const DEADLINE_EXCEEDED: &str = "4";
const UNIMPLEMENTED: &str = "12";

/// Asks for the health of `service`; empty for the server as a whole.
pub(super) async fn check(peer: &Peer, service: &str, encrypted: bool, timeout: Duration) -> Answer {
    let deadline = Instant::now() + timeout;
    let seconds = timeout.as_secs();
    let Ok(stream) = tokio::time::timeout_at(deadline, connected(peer)).await else {
        return Answer::Failure(format!(
            "timeout: failed to connect service {:?} within {seconds}s: context deadline exceeded",
            peer.authority()
        ));
    };
    let outcome = match stream {
        Ok(stream) => {
            let call = ask(stream, peer, service, encrypted, timeout);
            tokio::time::timeout_at(deadline, call).await
        }
        Err(refusal) => return Answer::Failure(refusal),
    };
    match outcome {
        Ok(Ok(SERVING)) => Answer::Success,
        Ok(Ok(status)) => Answer::Failure(format!("service unhealthy (responded with {:?})", name(status))),
        Ok(Err(Refused::Status { code, .. })) if code == DEADLINE_EXCEEDED => late(seconds),
        Ok(Err(Refused::Status { code, message })) if code == UNIMPLEMENTED => Answer::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Err(Refused::Status { code, message })) => Answer::Failure(format!(
            "error: health rpc probe failed: rpc error: code = {} desc = {message}",
            code_name(&code)
        )),
        Ok(Err(Refused::Transport(cause))) => {
            Answer::Failure(format!("error: health rpc probe failed: {cause}"))
        }
        Err(_) => late(seconds),
    }
}

fn late(seconds: u64) -> Answer {
    Answer::Failure(format!("timeout: health rpc did not complete within {seconds}s"))
}

/// Connects; a server that is not up yet is waited for as long as the caller waits.
async fn connected(peer: &Peer) -> Result<TcpStream, String> {
    loop {
        match dial::connect(peer).await {
            Ok(stream) => return Ok(stream),
            Err(refusal) if refusal.contains("lookup") => {
                return Err(format!("error: failed to connect service at {:?}: {refusal}", peer.authority()));
            }
            Err(_) => tokio::time::sleep(REDIAL).await,
        }
    }
}

/// The server said no, or did not speak gRPC.
enum Refused {
    Status { code: String, message: String },
    Transport(String),
}

fn transport(error: impl std::fmt::Display) -> Refused {
    Refused::Transport(error.to_string())
}

async fn ask(
    stream: TcpStream,
    peer: &Peer,
    service: &str,
    encrypted: bool,
    timeout: Duration,
) -> Result<u64, Refused> {
    if !encrypted {
        return call(stream, "http", peer, service, timeout).await;
    }
    let name = ServerName::try_from(peer.host.clone()).map_err(transport)?;
    let stream = tls::connector().connect(name, stream).await.map_err(transport)?;
    call(stream, "https", peer, service, timeout).await
}

/// One call; answers the number of the status.
async fn call<S>(
    stream: S,
    scheme: &str,
    peer: &Peer,
    service: &str,
    timeout: Duration,
) -> Result<u64, Refused>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(transport)?;
    let mut connection = JoinSet::new();
    connection.spawn(async move { drop(driver.await) });
    let request =
        hyper::Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", peer.authority()))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, PROBE_AGENT)
            .header("grpc-timeout", format!("{}m", timeout.as_millis()))
            .body(Full::new(Bytes::from(framed(&encode(service)))))
            .map_err(transport)?;
    let response = sender.send_request(request).await.map_err(transport)?;
    if !response.status().is_success() {
        return Err(Refused::Transport(format!("unexpected HTTP status code {}", response.status())));
    }
    read(response).await
}

async fn read(response: hyper::Response<Incoming>) -> Result<u64, Refused> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_TEXT).collect().await.map_err(transport)?;
    // A refusal at once has its status among the headers.
    let trailers = body.trailers().unwrap_or(&head.headers);
    match text(trailers, "grpc-status").as_str() {
        "0" => {}
        "" => return Err(Refused::Transport("the answer has no grpc-status".to_owned())),
        code => {
            return Err(Refused::Status {
                code: code.to_owned(),
                message: unescaped(&text(trailers, "grpc-message")),
            });
        }
    }
    decode(&body.to_bytes()).ok_or_else(|| Refused::Transport("the answer is malformed".to_owned()))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// A message as it was before its bytes became `%20` and the like; what is no such escape stays as it stands.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| *first == b'%').and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = escaped.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// gRPC's frame: not compressed, length, message.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// `HealthCheckRequest { service = 1 }`.
fn encode(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return Vec::new();
    }
    let mut message = vec![0x0a];
    let mut length = service.len();
    while length >= 0x80 {
        message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).unwrap_or(0));
    message.extend(service.as_bytes());
    message
}

/// `HealthCheckResponse { status = 1 }` in its frame; `None` when it is cut short or no such thing.
fn decode(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// gRPC's status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn code_name(code: &str) -> &str {
    code.parse().ok().and_then(|number: usize| CODES.get(number)).copied().unwrap_or(code)
}

fn name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_frame_around_the_services_name() {
        assert_eq!(framed(&encode("")), [0, 0, 0, 0, 0]);
        assert_eq!(framed(&encode("ab")), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = encode(&"x".repeat(300));
        assert_eq!((&long[..3], long.len()), (&[0x0a, 0xac, 0x02][..], 303));
    }

    #[test]
    fn a_message_is_read_without_its_escapes() {
        for (sent, read) in [("no%20such%C3%A9", "no such\u{e9}"), ("50% of%2", "50% of%2"), ("%zz", "%zz")] {
            assert_eq!(unescaped(sent), read);
        }
    }

    #[test]
    fn an_answer_is_read_with_what_others_may_add_and_refused_when_cut_short() {
        for (bytes, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            // The default value is left out.
            (&[0, 0, 0, 0, 0], Some(0)),
            // Unknown fields of every kind before it.
            (&[0, 0, 0, 0, 9, 0x12, 1, b'x', 0x18, 0x80, 1, 8, 2, 0x20][..13], None),
            (&[0, 0, 0, 0, 8, 0x12, 1, b'x', 0x18, 0x80, 1, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 7, 0x25, 1, 2, 3, 4, 8, 3], Some(3)),
            (&[0, 0, 0, 0, 2, 8], None),
            (&[0, 0, 0, 0, 1, 8], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0], None),
            (&[0, 0, 0, 0, 3, 0x12, 9, 1], None),
        ] {
            assert_eq!(decode(bytes), status, "{bytes:?}");
        }
    }
}
