//! What the contract's suite does not say, on a real containerd: terminals, restarts of the server, calls whose caller
//! went away, events.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use podstead_cri::proto::runtime_service_client::RuntimeServiceClient;
use podstead_cri::{Cri, Options, proto};
use podstead_runtime::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::{Channel, Endpoint};

/// One pod on a containerd.
struct Pod {
    cri: Cri,
    spec: SandboxSpec,
}

impl Pod {
    fn new(endpoint: &str, directory: &Path, name: &str) -> Self {
        let options = Options { owner: format!("own-{name}"), ..Options::default() };
        let cri = Cri::connect(endpoint, options).expect("an endpoint");
        let uid = format!("{}-{name}", std::process::id());
        let mut spec = SandboxSpec {
            pod: PodIdentity {
                name: format!("{name}-n1"),
                namespace: "default".into(),
                uid: uid.as_str().into(),
            },
            log_directory: directory.join("logs").join(&uid),
            cgroup_parent: format!("{}/pod{uid}", common::cgroup()),
            ..SandboxSpec::default()
        };
        spec.security.namespaces.network = NamespaceMode::Node;
        spec.security.namespaces.pid = NamespaceMode::Container;
        Self { cri, spec }
    }

    /// On the containerd that the tests of this binary share.
    async fn shared(name: &str) -> Self {
        let endpoint = tokio::task::spawn_blocking(common::containerd).await.expect("containerd");
        Self::new(endpoint, &common::directory(), name)
    }

    fn container(&self, attempt: u32) -> ContainerSpec {
        let mut spec = ContainerSpec {
            name: "c".into(),
            attempt,
            image: common::BUSYBOX.into(),
            command: ["/bin/sh", "-c", "sleep 1000"].map(str::to_owned).to_vec(),
            log_path: format!("c/{attempt}.log").into(),
            ..ContainerSpec::default()
        };
        spec.resources.oom_score_adj = 1000;
        spec.security.namespaces = self.spec.security.namespaces.clone();
        spec
    }

    async fn create(&self, sandbox: &SandboxId, attempt: u32) -> ContainerId {
        let spec = self.container(attempt);
        self.cri.create_container(sandbox, &spec, &self.spec).await.expect("create_container")
    }

    async fn running(&self) -> (SandboxId, ContainerId) {
        let sandbox = self.cri.run_sandbox(&self.spec).await.expect("run_sandbox");
        let id = self.create(&sandbox, 0).await;
        self.cri.start_container(&id).await.expect("start_container");
        (sandbox, id)
    }

    async fn see(&self, id: &ContainerId) -> Container {
        let snapshot = self.cri.observe().await.expect("observe");
        snapshot.containers.into_iter().find(|container| container.id == *id).expect("seen")
    }

    async fn end(&self, sandbox: &SandboxId) {
        self.cri.stop_sandbox(sandbox).await.expect("stop_sandbox");
        self.cri.remove_sandbox(sandbox).await.expect("remove_sandbox");
    }
}

/// A client that looks before nothing and waits for nobody.
async fn raw(endpoint: &str) -> RuntimeServiceClient<Channel> {
    let path = endpoint.strip_prefix("unix://").expect("a socket").to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await;
    RuntimeServiceClient::new(channel.expect("connect"))
}

async fn next(hints: &mut (impl Stream<Item = Hint> + Unpin), patience: Duration) -> Option<Hint> {
    tokio::time::timeout(patience, hints.next()).await.ok().flatten()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_on_a_terminal_sees_its_size_and_the_changes_of_it() {
    let pod = Pod::shared("tty").await;
    let (sandbox, id) = pod.running().await;
    let (stdin, mut keys) = tokio::io::simplex(4096);
    let (mut screen, stdout) = tokio::io::simplex(64 << 10);
    let (resize, sizes) = tokio::sync::mpsc::channel(4);
    let streams = ExecStreams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize: Some(sizes),
    };
    let spec = ExecSpec { command: vec!["/bin/sh".into()], tty: true };
    let exec = pod.cri.exec(&id, &spec, streams);
    let talk = async {
        let mut shown = String::new();
        for (width, height) in [(101, 31), (77, 19)] {
            resize.send(TerminalSize { width, height }).await.expect("resize");
            let wanted = format!("{height} {width}");
            // The size goes another way than the keys, and may arrive later than they.
            while !shown.contains(&wanted) {
                keys.write_all(b"stty size\n").await.expect("type");
                let mut piece = [0; 4096];
                let count = tokio::time::timeout(Duration::from_millis(300), screen.read(&mut piece)).await;
                if let Ok(count) = count {
                    shown += &String::from_utf8_lossy(&piece[..count.expect("read")]);
                }
            }
        }
        keys.write_all(b"exit 9\n").await.expect("type");
        let mut rest = Vec::new();
        screen.read_to_end(&mut rest).await.expect("read");
        shown
    };
    let both = async { tokio::join!(exec, talk) };
    let (code, shown) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("it ends");
    assert_eq!(code, Ok(9), "{shown}");
    assert!(shown.contains("stty size\r\n"), "a terminal echoes: {shown:?}");
    pod.end(&sandbox).await;
}

/// Without input every server speaks WebSocket; with it the older ones need SPDY.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_without_input_has_its_two_outputs_apart_and_nothing_of_them_is_lost() {
    let pod = Pod::shared("output").await;
    let (sandbox, id) = pod.running().await;
    let (mut out, stdout) = tokio::io::simplex(64 << 10);
    let (mut err, stderr) = tokio::io::simplex(64 << 10);
    let streams = ExecStreams {
        stdout: Some(Box::new(stdout)),
        stderr: Some(Box::new(stderr)),
        ..ExecStreams::default()
    };
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo problem >&2; exit 6";
    let spec = ExecSpec { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), tty: false };
    let (mut printed, mut complained) = (Vec::new(), String::new());
    let all = async {
        tokio::join!(
            pod.cri.exec(&id, &spec, streams),
            out.read_to_end(&mut printed),
            err.read_to_string(&mut complained)
        )
    };
    let (code, ..) = tokio::time::timeout(Duration::from_secs(30), all).await.expect("it ends");
    assert_eq!((code, printed.len(), complained.as_str()), (Ok(6), 3_000_000, "problem\n"));
    pod.end(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_again_is_away_meanwhile_and_then_everything_works() {
    let directory = PathBuf::from(format!("/tmp/pcrik{}", std::process::id()));
    let server = tokio::task::spawn_blocking({
        let directory = directory.clone();
        move || common::Server::start(directory)
    });
    let server = server.await.expect("containerd");
    let pod = Pod::new(&server.endpoint, &directory, "restart");
    let (sandbox, id) = pod.running().await;
    let (heard, hints) = tokio::sync::mpsc::unbounded_channel();
    let mut source = pod.cri.hints();
    tokio::spawn(async move {
        while let Some(hint) = source.next().await {
            let _ = heard.send(hint);
        }
    });
    let mut hints = tokio_stream::wrappers::UnboundedReceiverStream::new(hints);
    while next(&mut hints, Duration::from_millis(1500)).await.is_some() {}
    server.kill();
    let error = pod.cri.observe().await.expect_err("away");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let error = pod.cri.stop_container(&id, Duration::ZERO).await.expect_err("away");
    assert_eq!(error.retry(), Retry::Soon, "{error:?}");
    // Long enough for a listing to fail.
    assert_eq!(next(&mut hints, Duration::from_millis(1200)).await, None);
    server.start_again();
    // The socket is there before the CRI service is.
    let back = async {
        while let Err(error) = pod.cri.observe().await {
            assert_eq!(error.retry(), Retry::Soon, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back).await.expect("it comes back");
    assert_eq!(next(&mut hints, Duration::from_secs(15)).await, Some(Hint::Everything));
    assert!(pod.see(&id).await.is_running(), "it ran on");
    let yes = pod.cri.exec_sync(&id, &["true".to_owned()], Duration::from_secs(10)).await.expect("exec");
    assert_eq!(yes.code, 0);
    pod.end(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_at_once_make_one_sandbox_and_one_container() {
    let first = Pod::shared("twice").await;
    let second = Pod::shared("twice").await;
    let (one, two) = tokio::join!(first.cri.run_sandbox(&first.spec), second.cri.run_sandbox(&second.spec));
    let sandbox = one.expect("run_sandbox");
    assert_eq!(two, Ok(sandbox.clone()));
    let (one, two) = tokio::join!(first.create(&sandbox, 0), second.create(&sandbox, 0));
    assert_eq!(one, two);
    let (started, again) = tokio::join!(first.cri.start_container(&one), second.cri.start_container(&one));
    assert_eq!((started, again), (Ok(()), Ok(())));
    let snapshot = first.cri.observe().await.expect("observe");
    assert_eq!((snapshot.sandboxes.len(), snapshot.containers.len()), (1, 1));
    first.end(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_run_goes_on_and_the_next_one_answers_what_it_made() {
    let pod = Pod::shared("dropped").await;
    for millis in [0, 2, 10, 30] {
        let _ = tokio::time::timeout(Duration::from_millis(millis), pod.cri.run_sandbox(&pod.spec)).await;
    }
    let sandbox = pod.cri.run_sandbox(&pod.spec).await.expect("run_sandbox");
    let id = pod.create(&sandbox, 0).await;
    for millis in [0, 5, 20] {
        let _ = tokio::time::timeout(Duration::from_millis(millis), pod.cri.start_container(&id)).await;
    }
    pod.cri.start_container(&id).await.expect("start_container");
    assert!(pod.see(&id).await.is_running(), "a dropped start is not broken off");
    let snapshot = pod.cri.observe().await.expect("observe");
    assert_eq!((snapshot.sandboxes.len(), snapshot.containers.len()), (1, 1));
    pod.end(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_caller_died_is_made_anew_under_its_key() {
    let pod = Pod::shared("broken").await;
    let sandbox = pod.cri.run_sandbox(&pod.spec).await.expect("run_sandbox");
    let mut caller = raw(common::containerd()).await;
    // Until one is caught before its process runs; the others count as instances or came too late.
    let mut attempt = 0;
    let broken = loop {
        assert!(attempt < 100, "no start was broken off");
        let id = pod.create(&sandbox, attempt).await;
        let request = proto::StartContainerRequest { container_id: id.0.clone() };
        let start = caller.start_container(request);
        let _ = tokio::time::timeout(Duration::from_millis(5 + u64::from(attempt) % 40), start).await;
        let seen = loop {
            // As an agent does that comes next: waits for the start that is still under way, if it is.
            let _ = pod.cri.start_container(&id).await;
            let seen = pod.see(&id).await;
            if seen.state != ContainerState::Created {
                break seen;
            }
        };
        if seen.state.start_was_broken_off() && seen.state.never_ran() {
            break seen;
        }
        pod.cri.remove_container(&id).await.expect("remove_container");
        attempt += 1;
    };
    let log = pod.spec.log_directory.join(format!("c/{attempt}.log"));
    let anew = pod.create(&sandbox, attempt).await;
    assert_ne!(anew, broken.id);
    assert!(!log.exists(), "its empty log went with it");
    pod.cri.start_container(&anew).await.expect("start_container");
    assert!(pod.see(&anew).await.is_running());
    assert_eq!(pod.cri.observe().await.expect("observe").containers.len(), 1, "the other is gone");
    pod.end(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_servers_tell_their_cgroup_driver_and_send_events_and_older_ones_are_listed() {
    let pod = Pod::shared("events").await;
    let version = pod.cri.version().await.expect("version").version;
    let number = version.trim_start_matches('v');
    let mut parts = number.split(['.', '~', '+', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let release = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let driver = pod.cri.cgroup_driver().await.expect("cgroup_driver");
    assert_eq!(driver, (release >= (2, 0)).then_some(CgroupDriver::Cgroupfs), "{version}");
    let mut caller = raw(common::containerd()).await;
    let events = caller.get_container_events(proto::GetEventsRequest {});
    let answer = tokio::time::timeout(Duration::from_secs(2), events).await;
    let refused = matches!(&answer, Ok(Err(status)) if status.code() == tonic::Code::Unimplemented);
    assert_eq!(refused, release < (1, 7), "{version}: {answer:?}");
    // Both listeners hear of it, beside the one above, which is gone and may not be known to be.
    let other = Pod::shared("events").await;
    let (sandbox, id) = pod.running().await;
    let (mut hints, mut others) = (pod.cri.hints(), other.cri.hints());
    for hints in [&mut hints, &mut others] {
        while next(hints, Duration::from_millis(1500)).await.is_some() {}
    }
    pod.cri.stop_container(&id, Duration::ZERO).await.expect("stop_container");
    for hints in [&mut hints, &mut others] {
        // The first event may bring the stream's headers along.
        let mut hint = next(hints, Duration::from_secs(8)).await;
        if hint == Some(Hint::Everything) {
            hint = next(hints, Duration::from_secs(8)).await;
        }
        assert_eq!(hint, Some(Hint::Pod(pod.spec.pod.uid.clone())), "{version}");
    }
    pod.end(&sandbox).await;
}
