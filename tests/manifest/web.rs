//! A small HTTP server on loopback that says what a test wants it to say, well or badly, with and without TLS.

#![allow(dead_code, clippy::unwrap_used, reason = "several tests, each with its own part")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What the server answers.
#[derive(Clone, Default)]
pub struct Reply {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    etag: Option<String>,
    /// Sent as it is instead of all that.
    raw: Option<Vec<u8>>,
    /// Before the connection is closed.
    hang: bool,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK".into(), body: body.into(), ..Self::default() }
    }

    pub fn status(status: &str) -> Self {
        Self { status: status.into(), body: b"what is this".to_vec(), ..Self::default() }
    }

    /// These bytes and no more; then the end.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::default() }
    }

    /// These bytes, and then nothing, not even an end.
    pub fn stuck(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), hang: true, ..Self::default() }
    }

    pub fn moved(to: &str) -> Self {
        Self::status("302 Found").header("Location", to)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Answers 304 to who knows this version.
    #[must_use]
    pub fn etag(mut self, etag: &str) -> Self {
        self.etag = Some(etag.into());
        self.header("ETag", etag)
    }

    fn bytes(&self, request: &str) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let known = self.etag.as_ref().is_some_and(|tag| header(request, "if-none-match") == [tag]);
        let (status, body) =
            if known { ("304 Not Modified", &[][..]) } else { (&*self.status, &self.body[..]) };
        let mut lines = vec![format!("HTTP/1.1 {status}"), "Connection: close".to_owned()];
        if !known {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        [lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
    }
}

/// The values of a header in a request's text.
pub fn header<'r>(request: &'r str, name: &str) -> Vec<&'r str> {
    let lines = request.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

/// How a server is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    No,
    /// With the certificate of this name in `fixtures/tls/authority`.
    Server(&'static str),
    /// It wants a certificate of its clients.
    Mutual,
}

pub fn authority(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls/authority").join(name)
}

fn acceptor(tls: Tls) -> Option<TlsAcceptor> {
    let name = match tls {
        Tls::No => return None,
        Tls::Server(name) => name,
        Tls::Mutual => "server",
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let certificate = |name: String| CertificateDer::from_pem_file(authority(&name)).unwrap();
    let builder = if tls == Tls::Mutual {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.crt".into())).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(authority(&format!("{name}.key"))).unwrap();
    let config = builder.with_single_cert(vec![certificate(format!("{name}.crt"))], key).unwrap();
    Some(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Default)]
struct State {
    replies: HashMap<String, Reply>,
    asked: Vec<String>,
}

/// The server; gone when dropped.
pub struct Web {
    address: SocketAddr,
    tls: Tls,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Web {
    pub async fn start(tls: Tls) -> Self {
        Self::at(tls, 0).await
    }

    /// On this port.
    pub async fn at(tls: Tls, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, acceptor) = (Arc::<Mutex<State>>::default(), acceptor(tls));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => answer(stream, &state).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            answer(stream, &state).await;
                        }
                    }
                });
            }
        });
        Self { address, tls, state, task: task.abort_handle() }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls == Tls::No { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}{path}", self.address.port())
    }

    /// From now on this is the answer to this path, query included.
    pub fn say(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.insert(path.to_owned(), reply);
    }

    /// What was asked so far: the heads of the requests.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) {
    let mut text = String::new();
    while !text.contains("\r\n\r\n") {
        let mut some = [0; 1024];
        let Ok(n @ 1..) = stream.read(&mut some).await else { return };
        text.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = {
        let mut state = state.lock().unwrap();
        state.asked.push(text.clone());
        state.replies.get(&path).cloned().unwrap_or_else(|| Reply::status("404 Not Found"))
    };
    let _ = stream.write_all(&reply.bytes(&text)).await;
    if reply.hang {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    let _ = stream.shutdown().await;
}
