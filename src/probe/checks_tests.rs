//! The checks against real servers on loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use podstead_fake::Fake;
use podstead_runtime::Time;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::check::{Answer, check};
use super::target::Target;

const LOOPBACK: &str = "127.0.0.1";

fn target(host: &[&str]) -> Target {
    Target {
        pod: "uid".into(),
        pod_name: "default/web".into(),
        container: "web".into(),
        id: "c1".into(),
        started_at: Time::now(),
        probes: Arc::default(),
        ports: BTreeMap::new(),
        host: host.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
    }
}

async fn probed(yaml: &str) -> Answer {
    let probe: Probe = serde_yaml::from_str(yaml).unwrap();
    check(&Fake::new(), &target(&["127.0.0.1"]), &probe).await
}

fn failure(answer: Answer) -> String {
    match answer {
        Answer::Failure(text) => text,
        other => panic!("no failure: {other:?}"),
    }
}

/// A server that answers by the path asked for and keeps what it was asked.
#[derive(Clone)]
struct Web {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    async fn start(tls: bool) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let web = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let served = web.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let web = served.clone();
                tokio::spawn(async move {
                    if tls {
                        let Ok(stream) = acceptor().accept(stream).await else { return };
                        web.answer(stream).await;
                    } else {
                        web.answer(stream).await;
                    }
                });
            }
        });
        web
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let mut some = [0; 1024];
            let Ok(n @ 1..) = stream.read(&mut some).await else { return };
            text.push_str(&String::from_utf8_lossy(&some[..n]));
        }
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(text);
        let port = self.address.port();
        let plain = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi");
        let moved =
            |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 4\r\n\r\nover");
        let text = match path.as_str() {
            "/slow" => return tokio::time::sleep(Duration::from_secs(30)).await,
            "/gone" => return,
            "/huge" => {
                // More than is read; the last bytes never come.
                let body = "x".repeat(64 * 1024);
                format!("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n{body}")
            }
            "/stuck" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx".to_owned(),
            "/here" => moved("/ok"),
            "/absolute" => moved(&format!("http://127.0.0.1:{port}/ok")),
            "/away" => moved("http://elsewhere.example/"),
            "/around" => moved("/around"),
            "/missing" => plain("404 Not Found"),
            "/broken" => plain("500 Internal Server Error"),
            "/kept" => plain("304 Not Modified"),
            "/last" => plain("399 Last"),
            "/first" => plain("199 No").replace("199", "400"),
            _ => plain("200 OK"),
        };
        let _ = stream.write_all(text.as_bytes()).await;
        if path == "/huge" || path == "/stuck" {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let _ = stream.shutdown().await;
    }

    async fn get(&self, path: &str, more: &str) -> Answer {
        probed(&format!("{{httpGet: {{port: {}, path: {path}{more}}}}}", self.address.port())).await
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().pop().unwrap_or_default()
    }
}

/// With a certificate that names somebody else, is signed by nobody and ended years ago.
fn acceptor() -> TlsAcceptor {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let certificate = CertificateDer::from_pem_file(dir.join("expired.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("expired.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
}

#[tokio::test]
async fn http_succeeds_from_200_to_399() {
    let web = Web::start(false).await;
    for path in ["/ok", "/here", "/absolute"] {
        assert_eq!(web.get(path, "").await, Answer::Success, "{path}");
    }
    for (path, code) in [("/missing", 404), ("/broken", 500), ("/first", 400)] {
        let text = failure(web.get(path, "").await);
        assert_eq!(text, format!("HTTP probe failed with statuscode: {code}"));
    }
    for (path, body) in [("/kept", ""), ("/last", "hi"), ("/away", "over")] {
        let text = format!("Probe terminated redirects, Response body: {body}");
        assert_eq!(web.get(path, "").await, Answer::Warning(text), "{path}");
    }
}

#[tokio::test]
async fn http_ends_going_around_in_circles() {
    let web = Web::start(false).await;
    let text = failure(web.get("/around", "").await);
    assert!(text.ends_with("/around\": stopped after 10 redirects"), "{text}");
    assert_eq!(web.asked.lock().unwrap().len(), 11);
}

#[tokio::test]
async fn http_waits_no_longer_than_its_timeout_and_reads_no_more_than_10_kib() {
    let web = Web::start(false).await;
    let begun = std::time::Instant::now();
    assert_eq!(web.get("/huge", "").await, Answer::Success);
    let text = failure(web.get("/slow", "").await);
    assert!(text.contains("(Client.Timeout exceeded while awaiting headers)"), "{text}");
    assert!(text.starts_with(&format!("Get \"http://127.0.0.1:{}/slow\": ", web.address.port())), "{text}");
    // A body that does not come says nothing about the container: the kubelet throws such a probe away.
    let Answer::Error(text) = web.get("/stuck", "").await else { panic!("an error") };
    assert!(text.contains("while reading body"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn http_says_who_asks_and_sends_the_manifests_headers() {
    let web = Web::start(false).await;
    web.get("\"healthz?full=1#x\"", "").await;
    let asked = web.asked();
    assert!(asked.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"), "{asked}");
    let host = format!("Host: {}", web.address);
    for line in [host.as_str(), "User-Agent: kube-probe/1.36", "Accept: */*", "Connection: close"] {
        assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line} in {asked}");
    }
    let headers = ", httpHeaders: [{name: Host, value: web.example}, {name: X-A, value: \"1\"}, {name: x-a, value: \
                   \"2\"}, {name: user-agent, value: me}, {name: Accept, value: \"\"}]";
    web.get("/here", headers).await;
    let asked = web.asked();
    for line in ["Host: web.example", "X-A: 1", "X-A: 2", "User-Agent: me"] {
        assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line} in {asked}");
    }
    assert!(!asked.to_lowercase().contains("\r\naccept:"), "{asked}");
    assert_eq!(web.asked().matches("Host:").count(), 1, "the request before the redirect");
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let web = Web::start(true).await;
    assert_eq!(web.get("/ok", ", scheme: HTTPS").await, Answer::Success);
    assert_eq!(
        failure(web.get("/broken", ", scheme: HTTPS").await),
        "HTTP probe failed with statuscode: 500"
    );
    let plain = Web::start(false).await;
    let text = failure(plain.get("/ok", ", scheme: HTTPS").await);
    assert!(text.contains("Get \"https://127.0.0.1:"), "{text}");
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_kubelets_words() {
    let free = TcpListener::bind((LOOPBACK, 0)).await.unwrap().local_addr().unwrap();
    let refused = format!("dial tcp {free}: connect: connection refused");
    let port = free.port();
    assert_eq!(failure(probed(&format!("{{tcpSocket: {{port: {port}}}}}")).await), refused);
    let text = failure(probed(&format!("{{httpGet: {{port: {port}}}}}")).await);
    assert_eq!(text, format!("Get \"http://{free}/\": {refused}"));
    let web = Web::start(false).await;
    let text = failure(web.get("/gone", "").await);
    assert!(text.ends_with(": EOF") || text.contains("connection reset"), "{text}");
}

#[tokio::test]
async fn tcp_succeeds_when_the_connection_opens() {
    let web = Web::start(false).await;
    let port = web.address.port();
    assert_eq!(probed(&format!("{{tcpSocket: {{port: {port}}}}}")).await, Answer::Success);
    let named = format!("{{tcpSocket: {{port: {port}, host: localhost}}}}");
    assert_eq!(probed(&named).await, Answer::Success);
    let probe: Probe = serde_yaml::from_str(&format!("{{tcpSocket: {{port: {port}}}}}")).unwrap();
    // On the node's network: the node's address does not answer, loopback does.
    let both = target(&["127.0.0.9", "127.0.0.1"]);
    assert_eq!(check(&Fake::new(), &both, &probe).await, Answer::Success);
    let Answer::Error(text) = check(&Fake::new(), &target(&[]), &probe).await else { panic!("an error") };
    assert!(text.contains("no address"), "{text}");
    let Answer::Error(text) = probed("{tcpSocket: {port: web}}").await else { panic!("an error") };
    assert!(text.contains("no port named \"web\""), "{text}");
}

/// A gRPC server with health: nothing in particular serves, `sick` does not.
async fn health() -> SocketAddr {
    use tonic_health::ServingStatus;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("sick", ServingStatus::NotServing).await;
    reporter.set_service_status("fit", ServingStatus::Serving).await;
    serve(tonic::transport::Server::builder().add_service(service)).await
}

async fn serve(router: tonic::transport::server::Router) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move { router.serve_with_incoming(incoming).await });
    address
}

/// Takes the encryption off and passes on.
async fn decrypting(behind: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor().accept(stream).await.unwrap();
            let mut inner = TcpStream::connect(behind).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
        }
    });
    address
}

#[tokio::test]
async fn grpc_asks_for_health() {
    let port = health().await.port();
    let ask = |more: &str| {
        let text = format!("{{timeoutSeconds: 5, grpc: {{port: {port}{more}}}}}");
        async move { probed(&text).await }
    };
    assert_eq!(ask("").await, Answer::Success);
    assert_eq!(ask(", service: fit").await, Answer::Success);
    assert_eq!(failure(ask(", service: sick").await), "service unhealthy (responded with \"NOT_SERVING\")");
    let text = failure(ask(", service: unknown").await);
    assert!(text.starts_with("error: health rpc probe failed: rpc error: code = NotFound desc = "), "{text}");
}

#[tokio::test]
async fn grpc_speaks_tls_when_told() {
    let port = decrypting(health().await).await.port();
    let yaml = |mode: &str| format!("{{grpc: {{port: {port}, service: fit{mode}}}}}");
    assert_eq!(probed(&yaml(", mode: TLS")).await, Answer::Success);
}

#[tokio::test]
async fn grpc_tells_other_servers_from_slow_ones() {
    let (_, service) = tonic_health::server::health_reporter();
    // A service of another name answers "unimplemented".
    let other = tonic::service::interceptor::InterceptedService::new(service, |_| {
        Err(tonic::Status::unimplemented("no such thing"))
    });
    let port = serve(tonic::transport::Server::builder().add_service(other)).await.port();
    assert_eq!(
        failure(probed(&format!("{{grpc: {{port: {port}}}}}")).await),
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no such thing"
    );
    // Takes the connection and says nothing.
    let silent = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let text = failure(probed(&format!("{{grpc: {{port: {port}}}}}")).await);
    assert_eq!(text, "timeout: health rpc did not complete within 1s");
    drop(silent);
    let text = failure(probed(&format!("{{grpc: {{port: {port}}}}}")).await);
    assert!(text.starts_with("timeout: failed to connect service"), "{text}");
    // Speaks something else.
    let web = Web::start(false).await.address.port();
    let text = failure(probed(&format!("{{grpc: {{port: {web}}}}}")).await);
    assert!(text.contains("health rpc"), "{text}");
}

#[tokio::test]
async fn exec_follows_the_exit_code() {
    let (fake, id) = super::supervisor_tests::running().await;
    let probe: Probe = serde_yaml::from_str("{timeoutSeconds: 1, exec: {command: [test, -f, /x]}}").unwrap();
    let target = Target { id, ..target(&[]) };
    assert_eq!(check(&fake, &target, &probe).await, Answer::Success);
    fake.set_exec(1, "not there\n");
    assert_eq!(failure(check(&fake, &target, &probe).await), "not there\n");
    fake.set_exec(1, &"x".repeat(20_000));
    assert_eq!(failure(check(&fake, &target, &probe).await).len(), 10 * 1024);
    fake.set_exec(0, "");
    let late = podstead_runtime::Error::Deadline { doing: "exec".into(), seconds: 1 };
    fake.fault(podstead_fake::Verb::Exec, podstead_fake::Fault::Before(late));
    let text = failure(check(&fake, &target, &probe).await);
    assert_eq!(text, "command timed out: \"test -f /x\" timed out after 1s");
}

#[tokio::test]
async fn a_probe_that_cannot_be_made_is_tried_three_times() {
    let (fake, id) = super::supervisor_tests::running().await;
    let probe: Probe = serde_yaml::from_str("{exec: {command: [x]}}").unwrap();
    let target = Target { id, ..target(&[]) };
    let fail = |times| {
        for _ in 0..times {
            let error = podstead_runtime::Error::failed("exec", "no such file");
            fake.fault(podstead_fake::Verb::Exec, podstead_fake::Fault::Before(error));
        }
    };
    fail(2);
    assert_eq!(check(&fake, &target, &probe).await, Answer::Success);
    fail(3);
    assert!(matches!(check(&fake, &target, &probe).await, Answer::Error(_)));
    assert_eq!(check(&fake, &target, &probe).await, Answer::Success, "three and no more");
}
