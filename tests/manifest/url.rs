//! The URL source against a real server that behaves well or badly.
//!
//! As in `watcher`, nothing measures time: a test waits for a table.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use podstead::manifest::{
    Desired, FileState, SourceReport, Sources, SourcesConfig, UrlConfig, Waivers, spawn,
};
use reqwest::header::HeaderValue;
use tempfile::TempDir;
use tokio::sync::watch::Receiver;

use crate::web::{Reply, Tls, Web, authority, header};

const OFTEN: Duration = Duration::from_millis(30);
const NEVER: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(30);

fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: c\n    image: {image}\n"
    )
}

struct Bench {
    base: TempDir,
    config: UrlConfig,
    paths: Vec<PathBuf>,
    running: Option<(Receiver<Arc<Desired>>, Sources)>,
}

impl Bench {
    fn new(url: &str) -> Self {
        let config = UrlConfig { frequency: OFTEN, ..UrlConfig::plain(url).unwrap() };
        Self { base: tempfile::tempdir().unwrap(), config, paths: Vec::new(), running: None }
    }

    /// With a server's `/pods` as the document.
    fn of(web: &Web) -> Self {
        Self::new(&web.url("/pods"))
    }

    fn started(web: &Web) -> Self {
        let mut bench = Self::of(web);
        bench.start();
        bench
    }

    fn start(&mut self) {
        let config = SourcesConfig {
            paths: self.paths.clone(),
            url: Some(self.config.clone()),
            node: "Node".into(),
            file_check_frequency: OFTEN,
            waived: Waivers::default(),
            root_dir: self.base.path().join("root"),
        };
        self.running = Some(spawn(config).unwrap());
    }

    fn stop(&mut self) {
        self.running = None;
    }

    async fn wait(&mut self, what: &str, wanted: impl Fn(&Desired) -> bool) -> Arc<Desired> {
        let (receiver, _) = self.running.as_mut().unwrap();
        let outcome = tokio::time::timeout(LIMIT, receiver.wait_for(|table| wanted(table))).await;
        let found = outcome.ok().map(|table| Arc::clone(&table.unwrap()));
        found.unwrap_or_else(|| panic!("not seen: {what}; last table: {:#?}", self.now()))
    }

    /// Waits until exactly these images should run, as the URL says now.
    async fn images(&mut self, want: &[&str]) -> Arc<Desired> {
        let right = |t: &Desired| t.sources_ready && images(t) == want && source(t).error.is_none();
        self.wait(&format!("{want:?}"), right).await
    }

    /// Waits until the URL's error says this.
    async fn error(&mut self, text: &str) -> Arc<Desired> {
        let says = |t: &Desired| source(t).error.as_ref().is_some_and(|e| e.message.contains(text));
        self.wait(&format!("the error {text:?}"), says).await
    }

    fn now(&self) -> Arc<Desired> {
        Arc::clone(&self.running.as_ref().unwrap().0.borrow())
    }

    /// Waits until the document on disk is this one, and nobody contradicted it.
    async fn saved(&self, document: &str) {
        let directory = self.base.path().join("root/manifests/last-good-url");
        let is = || {
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let mut records = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
            records.any(|text| text.ends_with(document) && text.contains("\"second\":false"))
        };
        let waiting = async {
            while !is() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the document on disk");
    }
}

fn images(table: &Desired) -> Vec<&str> {
    table.pods.iter().map(|p| p.pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()).collect()
}

fn source(table: &Desired) -> SourceReport {
    let nothing = SourceReport {
        name: PathBuf::new(),
        kind: podstead::manifest::SourceKind::Unknown,
        error: None,
        document: None,
    };
    table.sources.last().cloned().unwrap_or(nothing)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_document_of_every_form_is_taken() {
    let web = Web::start(Tls::No).await;
    web.say("/pods", Reply::ok(pod("a", "yaml")));
    let mut bench = Bench::started(&web);
    let table = bench.images(&["yaml"]).await;
    let annotations = table.pods[0].pod.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["kubernetes.io/config.source"], "http");
    assert_eq!(table.pods[0].name(), "a-node");
    assert_eq!(table.pods[0].file, Path::new(&web.url("/pods")));
    assert!(table.pods[0].pod.spec.as_ref().unwrap().tolerations.is_none(), "the kubelet adds none either");
    let json = |name: &str| {
        format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\"}}, \"spec\": {{\"containers\": [{{\"name\": \"c\", \"image\": \"json-{name}\"}}]}}}}"
        )
    };
    web.say("/pods", Reply::ok(json("a")));
    bench.images(&["json-a"]).await;
    for kind in ["PodList", "List"] {
        let list =
            |items: &str| format!("{{\"apiVersion\": \"v1\", \"kind\": \"{kind}\", \"items\": [{items}]}}");
        web.say("/pods", Reply::ok(list(&format!("{}, {}", json("x"), json("y")))));
        bench.images(&["json-x", "json-y"]).await;
        web.say("/pods", Reply::ok(list("")));
        bench.images(&[]).await;
    }
    web.say("/pods", Reply::ok(format!("{}---\n{}", pod("a", "one"), pod("b", "two"))));
    bench.images(&["one", "two"]).await;
    // Of one bad pod in it none is taken.
    web.say(
        "/pods",
        Reply::ok(format!("{}---\n{}", pod("a", "new"), pod("b", "two").replace("image", "imagee"))),
    );
    let kept = |t: &Desired| matches!(&t.files[..], [f] if matches!(f.state, FileState::KeptLastGood { .. }));
    let table = bench.wait("kept", kept).await;
    assert_eq!(images(&table), ["one", "two"]);
    let FileState::KeptLastGood { errors, .. } = &table.files[0].state else { panic!() };
    assert_eq!(
        errors[0],
        format!(
            "{}:17:5: spec.containers[0].imagee: unknown field, did you mean \"image\"?",
            web.url("/pods")
        )
    );
}

#[tokio::test]
async fn the_uid_is_the_same_on_all_nodes_and_whoever_asks() {
    let web = Web::start(Tls::No).await;
    web.say("/pods", Reply::ok(pod("a", "one")));
    let mut bench = Bench::started(&web);
    let first = bench.images(&["one"]).await.pods[0].uid.clone();
    bench.stop();
    bench.config.url.set_username("somebody").unwrap();
    bench.config.url.set_password(Some("hunter2")).unwrap();
    bench.start();
    let second = bench.wait("asked", |t| source(t).document.is_some_and(|d| !d.from_disk)).await;
    assert_eq!(second.pods[0].uid, first);
    let basic = ["Basic c29tZWJvZHk6aHVudGVyMg=="];
    assert!(web.asked().iter().any(|r| header(r, "authorization") == basic), "{:?}", web.asked());
    assert!(!format!("{second:?} {:?}", bench.config).contains("hunter2"));
}

#[tokio::test]
async fn headers_and_the_token_of_this_moment_are_sent() {
    let web = Web::start(Tls::Server("server")).await;
    web.say("/pods", Reply::ok(pod("a", "one")));
    let mut bench = Bench::of(&web);
    let token = bench.base.path().join("token");
    fs::write(&token, "first\n").unwrap();
    bench.config.ca_file = Some(authority("ca.crt"));
    bench.config.token_file = Some(token.clone());
    bench.config.headers.append("x-one", HeaderValue::from_static("a"));
    bench.config.headers.append("x-one", HeaderValue::from_static("b"));
    bench.start();
    bench.images(&["one"]).await;
    let request = web.asked().remove(0);
    assert_eq!(header(&request, "x-one"), ["a", "b"]);
    assert_eq!(header(&request, "authorization"), ["Bearer first"]);
    assert!(header(&request, "user-agent")[0].starts_with("podstead/"));

    fs::write(&token, "second").unwrap();
    web.say("/pods", Reply::ok(pod("a", "two")));
    bench.images(&["two"]).await;
    let until = async {
        while !web.asked().iter().any(|r| header(r, "authorization") == ["Bearer second"]) {
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::time::timeout(LIMIT, until).await.unwrap();
    for (content, why) in [("", "empty"), ("  \n", "no token"), ("two\nlines", "no token")] {
        fs::write(&token, content).unwrap();
        let table = bench.error(why).await;
        let message = table.source_error().unwrap().message.clone();
        assert!(message.contains("--manifest-url-token-file") && !message.contains("lines"), "{message}");
        assert_eq!(images(&table), ["two"]);
    }
    fs::remove_file(&token).unwrap();
    bench.error("No such file").await;
}

#[tokio::test]
async fn servers_are_verified_and_clients_can_be() {
    let web = Web::start(Tls::Mutual).await;
    web.say("/pods", Reply::ok(pod("a", "one")));
    let mut bench = Bench::of(&web);
    let ca = bench.base.path().join("ca.crt");
    fs::copy(authority("server.crt"), &ca).unwrap();
    bench.config.ca_file = Some(ca.clone());
    bench.config.client = Some((authority("client.crt"), authority("client.key")));
    bench.start();
    bench.error("certificate").await;
    assert!(web.asked().is_empty(), "nothing was sent to a server that is not trusted");
    // The right authority is put there: no restart. And another, while the server can be reached.
    fs::copy(authority("ca.crt"), &ca).unwrap();
    bench.images(&["one"]).await;
    fs::copy(authority("server.crt"), &ca).unwrap();
    bench.error("certificate").await;
    fs::copy(authority("ca.crt"), &ca).unwrap();
    bench.images(&["one"]).await;
    bench.stop();
    bench.config.client = None;
    bench.start();
    bench.error("").await;
    assert_eq!(images(&bench.now()), ["one"], "from the disk");
    bench.stop();
    fs::write(&ca, "nothing").unwrap();
    bench.start();
    bench.error("--manifest-url-ca-file").await;
}

#[tokio::test]
async fn an_expired_certificate_and_one_of_an_unknown_authority_are_refused() {
    let web = Web::start(Tls::Server("expired")).await;
    let mut bench = Bench::of(&web);
    bench.config.ca_file = Some(authority("ca.crt"));
    bench.start();
    bench.error("expired").await;
    // The system's authorities know neither.
    let web = Web::start(Tls::Server("server")).await;
    let mut bench = Bench::started(&web);
    bench.wait("an error", |t| source(t).error.is_some()).await;
    assert!(web.asked().is_empty());
}

#[tokio::test]
async fn an_unchanged_document_is_not_sent_again() {
    let web = Web::start(Tls::No).await;
    let dated = |image: &str, tag: &str| {
        Reply::ok(pod("a", image)).etag(tag).header("Last-Modified", "Fri, 27 Nov 2026 10:00:00 GMT")
    };
    web.say("/pods", dated("one", "\"1\""));
    let mut bench = Bench::started(&web);
    bench.images(&["one"]).await;
    web.say("/pods", dated("two", "\"2\""));
    bench.images(&["two"]).await;
    // Broken: the version is known, and so are its errors, for as long as it is the same.
    web.say("/pods", Reply::ok("kind: Nothing").etag("\"3\""));
    let kept = |t: &Desired| t.files.iter().any(|f| matches!(f.state, FileState::KeptLastGood { .. }));
    bench.wait("kept", kept).await;
    let before = web.asked().len();
    let until = async {
        while web.asked().len() < before + 3 {
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::time::timeout(LIMIT, until).await.unwrap();
    assert!(kept(&bench.now()));
    let asked = web.asked();
    assert_eq!(header(&asked[0], "if-none-match"), Vec::<&str>::new());
    assert_eq!(header(&asked[1], "if-none-match"), ["\"1\""]);
    assert_eq!(header(&asked[1], "if-modified-since"), ["Fri, 27 Nov 2026 10:00:00 GMT"]);
    assert_eq!(header(asked.last().unwrap(), "if-none-match"), ["\"3\""]);
    web.say("/pods", dated("two", "\"2\""));
    bench.wait("good again", |t| !kept(t) && images(t) == ["two"]).await;
    // A server that says so of its own accord knows nothing.
    let other = Web::start(Tls::No).await;
    other.say("/pods", Reply::status("304 Not Modified"));
    Bench::started(&other).error("304").await;
}

#[tokio::test]
async fn redirects_stay_on_the_server() {
    let (web, other) = (Web::start(Tls::No).await, Web::start(Tls::No).await);
    other.say("/pods", Reply::ok(pod("a", "stolen")));
    web.say("/real?x=1", Reply::ok(pod("a", "one")));
    web.say("/pods", Reply::moved("/real?x=1"));
    let mut bench = Bench::of(&web);
    bench.config.headers.append("x-secret", HeaderValue::from_static("s"));
    bench.start();
    bench.images(&["one"]).await;
    let followed = web.asked().into_iter().find(|r| r.starts_with("GET /real?x=1")).unwrap();
    assert_eq!(header(&followed, "x-secret"), ["s"]);
    assert!(header(&followed, "referer").is_empty());

    for to in [other.url("/pods"), format!("//127.0.0.1:{}/pods", other.port()), "https://127.0.0.1/".into()]
    {
        web.say("/pods", Reply::moved(&to));
        let table = bench.error("redirects to another server").await;
        assert_eq!(images(&table), ["one"]);
        web.say("/pods", Reply::moved("/real?x=1"));
        bench.images(&["one"]).await;
    }
    assert!(other.asked().is_empty(), "{:?}", other.asked());
    web.say("/pods", Reply::moved("/pods"));
    bench.error("10 redirects").await;
}

#[tokio::test]
async fn nothing_larger_than_a_manifest_may_be_is_read() {
    const LIMIT_BYTES: usize = 10 << 20;
    let web = Web::start(Tls::No).await;
    web.say("/pods", Reply::ok(gzip(pod("a", "packed").as_bytes())).header("Content-Encoding", "gzip"));
    let mut bench = Bench::started(&web);
    bench.images(&["packed"]).await;
    assert_eq!(header(&web.asked()[0], "accept-encoding"), ["gzip"]);

    let comment = |size: usize| format!("{}#{}", pod("a", "large"), "x".repeat(size));
    let chunked = || {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA00000\r\n".to_vec();
        [head, vec![b'x'; LIMIT_BYTES], b"\r\n0\r\n\r\n".to_vec()].concat()
    };
    for reply in [
        Reply::ok(comment(LIMIT_BYTES)),
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n"),
        Reply::raw(chunked()),
        // Ten KiB on the wire.
        Reply::ok(gzip(comment(LIMIT_BYTES).as_bytes())).header("Content-Encoding", "gzip"),
    ] {
        web.say("/pods", reply);
        let table = bench.error("too large").await;
        assert_eq!(images(&table), ["packed"]);
        web.say("/pods", Reply::ok(pod("a", "packed")));
        bench.images(&["packed"]).await;
    }
}

#[tokio::test]
async fn whatever_a_server_says_amiss_takes_no_pod_away() {
    let web = Web::start(Tls::No).await;
    let document = pod("a", "one");
    web.say("/pods", Reply::ok(document.clone()));
    let mut bench = Bench::started(&web);
    let first = bench.images(&["one"]).await;
    let half = &document[..document.len() - 10];
    let length = document.len();
    for (reply, why) in [
        (Reply::ok(""), "empty"),
        (Reply::status("204 No Content"), "204"),
        (Reply::status("400 Bad Request"), "400 Bad Request"),
        (Reply::status("401 Unauthorized"), "401"),
        (Reply::status("404 Not Found"), "404"),
        (Reply::status("500 Internal Server Error"), "500"),
        (Reply::status("503 Service Unavailable"), "503"),
        (Reply::status("300 Multiple Choices"), "300"),
        (Reply::raw(""), "connection closed"),
        (Reply::raw("nonsense\r\n\r\n"), ""),
        (Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{half}")), "broke off"),
        (
            Reply::raw(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}",
                half.len()
            )),
            "broke off",
        ),
        (Reply::raw(format!("HTTP/1.1 200 OK\r\n\r\n{half}")), "where it ends"),
        (Reply::ok(&gzip(document.as_bytes())[..40]).header("Content-Encoding", "gzip"), "gzip"),
        (Reply::ok(document.clone()).header("Content-Encoding", "br"), "\"br\""),
    ] {
        web.say("/pods", reply);
        let table = bench.error(why).await;
        assert_eq!((&table.pods, table.sources_ready), (&first.pods, true), "{why}");
        assert!(source(&table).error.unwrap().to_string().contains("the pods known so far are kept"));
        web.say("/pods", Reply::ok(document.clone()));
        bench.images(&["one"]).await;
    }
    // Answers that are no manifests.
    for text in ["\n", "# nothing\n", "<html>log in first</html>", "kind: Nothing\n", "a: [", "\u{0}"] {
        web.say("/pods", Reply::ok(text));
        let kept =
            |t: &Desired| matches!(&t.files[..], [f] if matches!(f.state, FileState::KeptLastGood { .. }));
        let table = bench.wait(text, kept).await;
        assert_eq!(table.pods, first.pods, "{text:?}");
        web.say("/pods", Reply::ok(document.clone()));
        bench.wait("good again", |t| !kept(t)).await;
    }
    web.say("/pods", Reply::ok(pod("a", "two")));
    bench.images(&["two"]).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_ten_seconds() {
    let web = Web::start(Tls::No).await;
    web.say("/pods", Reply::ok(pod("a", "one")));
    let mut bench = Bench::started(&web);
    bench.images(&["one"]).await;
    web.say("/pods", Reply::stuck("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\napiVersion: v1\n"));
    let table = bench.error("no whole answer within 10 s").await;
    assert_eq!(images(&table), ["one"]);
}

#[tokio::test]
async fn the_last_good_document_outlives_agent_and_server() {
    let web = Web::start(Tls::No).await;
    let port = web.port();
    let document = pod("a", "one");
    web.say("/pods", Reply::ok(document.clone()));
    let mut bench = Bench::started(&web);
    let before = bench.images(&["one"]).await;
    let report = source(&before).document.unwrap();
    assert!(!report.from_disk);
    bench.saved(&document).await;
    let directory = bench.base.path().join("root/manifests/last-good-url");
    let record = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::metadata(record).unwrap().permissions().mode() & 0o777, 0o600);
    bench.stop();
    drop(web);
    bench.start();
    let table = bench.wait("the error", |t| source(t).error.is_some() && !t.pods.is_empty()).await;
    assert_eq!((&table.pods[0].uid, images(&table)), (&before.pods[0].uid, vec!["one"]));
    assert!(table.sources_ready, "what runs is known, so what does not belong to it may go");
    let old = source(&table).document.unwrap();
    assert_eq!((old.from_disk, old.fetched, old.sha256), (true, report.fetched, report.sha256));
    // Broken first when it comes back, then whole.
    let web = Web::at(Tls::No, port).await;
    web.say("/pods", Reply::ok("kind: Nothing"));
    bench.wait("refused", |t| source(t).error.is_none() && images(t) == ["one"]).await;
    web.say("/pods", Reply::ok(document));
    bench.wait("confirmed", |t| source(t).document.is_some_and(|d| !d.from_disk)).await;
    assert_eq!(bench.now().pods[0].uid, before.pods[0].uid);
}

#[tokio::test]
async fn what_another_urls_document_started_stays_until_the_new_one_is_read() {
    let web = Web::start(Tls::No).await;
    web.say("/pods", Reply::ok(pod("a", "one")));
    // Nothing was ever had of this URL: nothing of it can be running.
    let mut bench = Bench::new(&web.url("/new"));
    bench.start();
    let table = bench.error("404").await;
    assert!(table.sources_ready);
    bench.stop();
    bench.config.url = web.url("/pods").parse().unwrap();
    bench.start();
    bench.images(&["one"]).await;
    bench.saved(&pod("a", "one")).await;
    bench.stop();
    bench.config.url = web.url("/new").parse().unwrap();
    bench.start();
    let table = bench.error("404").await;
    assert!(!table.sources_ready && table.pods.is_empty());
    web.say("/new", Reply::ok(pod("a", "two")));
    bench.images(&["two"]).await;
    bench.saved(&pod("a", "two")).await;
    let directory = bench.base.path().join("root/manifests/last-good-url");
    // The other's record goes after the new one is there.
    let mut left = 0;
    for _ in 0..500 {
        left = fs::read_dir(&directory).unwrap().count();
        if left == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(left, 1, "of the other nothing is kept");
}

#[tokio::test]
async fn only_the_pinned_document_is_taken() {
    let web = Web::start(Tls::No).await;
    let document = pod("a", "one");
    web.say("/pods", Reply::ok(document.clone()));
    let mut bench = Bench::started(&web);
    let report = source(&*bench.images(&["one"]).await).document.unwrap();
    bench.saved(&document).await;
    bench.stop();
    let mut hash = [0; 32];
    hex::decode_to_slice(&report.sha256, &mut hash).unwrap();
    bench.config.sha256 = Some(hash);
    bench.start();
    bench.wait("confirmed", |t| source(t).document.is_some_and(|d| !d.from_disk)).await;
    web.say("/pods", Reply::ok(pod("a", "two")));
    let table = bench.error("--manifest-url-sha256").await;
    assert_eq!(images(&table), ["one"]);
    // Its end need not be told: the digest tells.
    web.say("/pods", Reply::raw(format!("HTTP/1.1 200 OK\r\n\r\n{document}")));
    bench.images(&["one"]).await;
}

#[tokio::test]
async fn only_a_signed_document_is_taken() {
    let fixture = |name: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/minisign").join(name))
            .unwrap()
    };
    let web = Web::start(Tls::No).await;
    web.say("/pods?node=1", Reply::ok(fixture("signed.yaml")));
    let mut bench = Bench::new(&web.url("/pods?node=1"));
    bench.config.minisign = Some(minisign_verify::PublicKey::decode(&fixture("key.pub")).unwrap());
    bench.config.headers.append("x-one", HeaderValue::from_static("a"));
    bench.start();
    bench.error("the document's signature: HTTP status 404").await;
    for (signature, why) in [
        (fixture("stranger.minisig"), "is not right"),
        ("nonsense".to_owned(), "cannot be read"),
        (fixture("signed.yaml.minisig").replace("1764300000", "1864300000"), "is not right"),
        ("x".repeat(20_000), "too large"),
    ] {
        web.say("/pods.minisig?node=1", Reply::ok(signature));
        let table = bench.error(why).await;
        assert!(table.pods.is_empty());
    }
    web.say("/pods.minisig?node=1", Reply::ok(fixture("signed.yaml.minisig")));
    bench.images(&["signed"]).await;
    let asked = web.asked();
    let for_it = asked.iter().find(|r| r.starts_with("GET /pods.minisig?node=1")).unwrap();
    assert_eq!(header(for_it, "x-one"), ["a"]);
    // Changed without a signature of its own.
    web.say("/pods?node=1", Reply::ok(fixture("signed.yaml").replace("image: signed", "image: evil")));
    let table = bench.error("is not right").await;
    assert_eq!(images(&table), ["signed"]);
}

#[tokio::test]
async fn a_file_and_a_url_with_one_pod_are_an_error_on_both_and_the_first_stays() {
    let web = Web::start(Tls::No).await;
    let mut bench = Bench::of(&web);
    let manifests = bench.base.path().join("manifests");
    fs::create_dir(&manifests).unwrap();
    fs::write(manifests.join("a.yaml"), pod("a", "file")).unwrap();
    bench.paths = vec![manifests.clone()];
    bench.start();
    bench.wait("the file's", |t| images(t) == ["file"]).await;
    let both = format!("{}---\n{}", pod("a", "url"), pod("b", "alone"));
    web.say("/pods", Reply::ok(both.clone()));
    let twice = |t: &Desired| {
        let kept = |f: &podstead::manifest::FileReport| match f.state {
            FileState::Duplicate { kept, .. } => Some(kept),
            _ => None,
        };
        t.files.iter().map(kept).collect::<Vec<_>>() == [Some(true), Some(false)]
    };
    let table = bench.wait("both named", twice).await;
    assert_eq!(images(&table), ["file", "alone"]);
    // Nor is it another's after a restart, with the URL or without.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let directory = bench.base.path().join("root/manifests/last-good-url");
    let record = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    let record = fs::read_to_string(record).unwrap();
    assert!(record.contains("\"second\":true"), "whichever is read first by the next agent: {record}");
    for away in [false, true] {
        bench.stop();
        if away {
            web.say("/pods", Reply::status("500 Away"));
        }
        bench.start();
        let table = bench.wait("both named again", |t| t.sources_ready && twice(t)).await;
        assert_eq!(images(&table), ["file", "alone"]);
    }
    fs::remove_file(manifests.join("a.yaml")).unwrap();
    bench.wait("the URL's", |t| images(t) == ["url", "alone"]).await;
}

#[tokio::test]
async fn nothing_is_asked_between_the_times_to_ask() {
    let web = Web::start(Tls::No).await;
    web.say("/pods", Reply::ok(pod("a", "one")));
    let mut bench = Bench::of(&web);
    bench.config.frequency = NEVER;
    bench.start();
    bench.images(&["one"]).await;
    web.say("/pods", Reply::ok(pod("a", "two")));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((web.asked().len(), images(&bench.now())), (1, vec!["one"]));
    bench.running.as_ref().unwrap().1.rescan();
    bench.images(&["two"]).await;
    assert_eq!(web.asked().len(), 2);
    // After a failure it is tried again much sooner than in an hour.
    web.say("/pods", Reply::status("500 Away"));
    bench.running.as_ref().unwrap().1.rescan();
    bench.error("500").await;
    web.say("/pods", Reply::ok(pod("a", "three")));
    bench.images(&["three"]).await;
}
