//! HTTP GET as the kubelet makes it for probes and hooks (`kubelet-static-pods.md 3`): straight to the address, no proxy,
//! no kept connection, certificates unverified, redirects only on the same host. Touches the network.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::HTTPHeader;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use super::check::MAX_TEXT;
use super::dial::{self, Peer};
use super::tls;

/// What a probe says it is, with the Kubernetes version whose kubelet is the model.
pub const PROBE_AGENT: &str = "kube-probe/1.36";
const MAX_REDIRECTS: usize = 10;

/// A GET request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to.
    pub url: Url,
    /// Addresses to connect to instead of the URL's host, in order; empty for none.
    pub ips: Vec<IpAddr>,
    /// Headers, `Host` included.
    pub headers: HeaderMap,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code, of the last answer when redirects were followed.
    pub status: u16,
    /// The first 10 KiB of the body.
    pub body: String,
}

/// There was no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failed {
    /// No connection, no response, too many redirects; in the kubelet's words.
    #[error("Get \"{url}\": {cause}")]
    NoResponse {
        /// Where to.
        url: String,
        /// What happened.
        cause: String,
    },
    /// The body broke off.
    #[error("{0}")]
    Body(String),
    /// The request cannot be made.
    #[error("{0}")]
    Request(String),
}

/// What the other side says when it speaks plain HTTP on a port that was asked for HTTPS.
pub const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

impl Request {
    /// A request to `peer` with the manifest's headers. `path` may bring a query; `agent` is the `User-Agent` unless the
    /// manifest has one.
    pub fn new(
        scheme: &str,
        peer: &Peer,
        path: &str,
        headers: &[HTTPHeader],
        agent: &'static str,
    ) -> Result<Self, Failed> {
        let slash = if path.starts_with('/') { "" } else { "/" };
        let scheme = if scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
        let text = format!("{scheme}://{}{slash}{path}", peer.authority());
        let url = Url::parse(&text).map_err(|error| Failed::Request(format!("parse \"{text}\": {error}")))?;
        let mut all = HeaderMap::new();
        for header in headers {
            let wrong = || Failed::Request(format!("invalid header \"{}\"", header.name));
            let name: HeaderName = header.name.parse().map_err(|_| wrong())?;
            let value = HeaderValue::from_bytes(header.value.trim().as_bytes()).map_err(|_| wrong())?;
            all.append(name, value);
        }
        all.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
        all.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // Said to be empty means not to be sent.
        for name in [USER_AGENT, ACCEPT] {
            if all.get(&name).is_some_and(HeaderValue::is_empty) {
                all.remove(name);
            }
        }
        Ok(Self { url, ips: peer.ips.clone(), headers: all })
    }

    /// The request that a redirect asks for; `None` when it is not to be followed: another host, or no such address.
    fn redirected(&self, location: &str) -> Option<Self> {
        let mut url = self.url.join(location).ok()?;
        url.set_fragment(None);
        if url.host() != self.url.host() || !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let mut headers = self.headers.clone();
        if Url::parse(location).is_ok() {
            headers.remove(HOST);
        }
        Some(Self { url, ips: self.ips.clone(), headers })
    }

    fn failed(&self, cause: impl Into<String>) -> Failed {
        Failed::NoResponse { url: self.url.to_string(), cause: cause.into() }
    }
}

/// Makes the request and follows redirects, all within `timeout`.
pub async fn get(mut request: Request, timeout: Duration) -> Result<Response, Failed> {
    let deadline = tokio::time::Instant::now() + timeout;
    for _ in 0..=MAX_REDIRECTS {
        let late =
            |_| request.failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
        let (response, connection) =
            tokio::time::timeout_at(deadline, send(&request)).await.map_err(late)??;
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let moved = matches!(status, 301 | 302 | 303 | 307 | 308);
        if let Some(next) = location.filter(|l| moved && !l.is_empty()).and_then(|l| request.redirected(l)) {
            request = next;
            continue;
        }
        let late = |_| {
            let text =
                "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
            Failed::Body(text.to_owned())
        };
        let body =
            tokio::time::timeout_at(deadline, beginning(response.into_body())).await.map_err(late)??;
        drop(connection);
        return Ok(Response { status, body });
    }
    Err(request.failed(format!("stopped after {MAX_REDIRECTS} redirects")))
}

/// The response's head, and the task that drives its connection as long as it is kept.
type Answered = (hyper::Response<Incoming>, JoinSet<()>);

async fn send(request: &Request) -> Result<Answered, Failed> {
    let url = &request.url;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let peer = Peer { host, ips: request.ips.clone(), port };
    let stream = dial::connect(&peer).await.map_err(|cause| request.failed(cause))?;
    if url.scheme() == "http" {
        return speak(request, &peer, stream, false).await;
    }
    let name = ServerName::try_from(peer.host.clone()).map_err(|error| request.failed(error.to_string()))?;
    let stream =
        tls::connector().connect(name, stream).await.map_err(|error| request.failed(tls_words(&error)))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    speak(request, &peer, stream, http2).await
}

fn tls_words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => PLAIN_ANSWER.to_owned(),
        Some(inner) => format!("tls: {inner}"),
        None => words(error),
    }
}

async fn speak<S>(request: &Request, peer: &Peer, stream: S, http2: bool) -> Result<Answered, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let wrong = |error: hyper::http::Error| request.failed(error.to_string());
    let broken = |error: hyper::Error| request.failed(words(&error));
    let mut headers = request.headers.clone();
    let host = headers.remove(HOST).unwrap_or_else(|| authority(peer));
    let (url, io) = (&request.url, TokioIo::new(stream));
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut connection = JoinSet::new();
    let response = if http2 {
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(broken)?;
        connection.spawn(async move { drop(driver.await) });
        let authority = host.to_str().unwrap_or_default();
        let mut asked = hyper::Request::get(format!("{}://{authority}{path}", url.scheme()))
            .body(Empty::<Bytes>::new())
            .map_err(wrong)?;
        *asked.headers_mut() = headers;
        sender.send_request(asked).await.map_err(broken)?
    } else {
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.title_case_headers(true);
        let (mut sender, driver) = builder.handshake(io).await.map_err(broken)?;
        connection.spawn(async move { drop(driver.await) });
        headers.insert(HOST, host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let mut asked = hyper::Request::get(path).body(Empty::<Bytes>::new()).map_err(wrong)?;
        *asked.headers_mut() = headers;
        sender.send_request(asked).await.map_err(broken)?
    };
    Ok((response, connection))
}

/// What stands for `Host` unless the manifest says: always with the port.
fn authority(peer: &Peer) -> HeaderValue {
    HeaderValue::from_str(&peer.authority()).unwrap_or(HeaderValue::from_static(""))
}

/// The first 10 KiB of a body; what comes after is not waited for.
async fn beginning(mut body: Incoming) -> Result<String, Failed> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_TEXT {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Failed::Body(words(&error)))?;
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
    }
    bytes.truncate(MAX_TEXT);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An error in the words of the system when it is the system's, else in its own.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(inner) = next {
        if let Some(io) = inner.downcast_ref::<std::io::Error>().filter(|io| io.raw_os_error().is_some()) {
            return format!("read: {}", dial::words(io));
        }
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "EOF".to_owned();
        }
        next = inner.source();
    }
    error.to_string()
}
