//! The client against a server that behaves as CRI-O does.

mod server;

use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::{SinkExt, StreamExt};
use podstead_cri::proto::{ContainerState, PodSandboxConfig, PodSandboxMetadata, PodSandboxState};
use podstead_cri::{Cri, Options};
use podstead_runtime::*;
use server::{Crio, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

/// A server, and a client of it.
struct Pair {
    server: Crio,
    cri: Cri,
    running: Option<Running>,
    directory: tempfile::TempDir,
}

impl Pair {
    fn new(events: bool) -> Self {
        Self::with(events, Options::default())
    }

    fn with(events: bool, options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("crio.sock");
        let server = Crio::new(events);
        let running = Some(server.serve(&socket));
        let cri = Cri::connect(&format!("unix://{}", socket.display()), options).expect("an endpoint");
        Self { server, cri, running, directory }
    }

    fn pod(&self) -> SandboxSpec {
        SandboxSpec {
            pod: PodIdentity { name: "web-n1".into(), namespace: "default".into(), uid: "u1".into() },
            log_directory: self.directory.path().join("logs/default_web-n1_u1"),
            security: SandboxSecurity {
                namespaces: Namespaces { pid: NamespaceMode::Container, ..Namespaces::default() },
                ..SandboxSecurity::default()
            },
            ..SandboxSpec::default()
        }
    }

    async fn running_container(&self) -> ContainerId {
        let pod = self.pod();
        let sandbox = self.cri.run_sandbox(&pod).await.expect("run_sandbox");
        let id = self.cri.create_container(&sandbox, &container(), &pod).await.expect("create_container");
        self.cri.start_container(&id).await.expect("start_container");
        id
    }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        name: "web".into(),
        image: "nginx:1".into(),
        image_id: "sha256:abc".into(),
        log_path: "web/0.log".into(),
        ..ContainerSpec::default()
    }
}

/// Generous, and less than the pause of an idle watcher.
const PATIENCE: Duration = Duration::from_secs(8);

async fn next(hints: &mut (impl Stream<Item = Hint> + Unpin)) -> Hint {
    tokio::time::timeout(Duration::from_secs(15), hints.next())
        .await
        .expect("a hint in time")
        .expect("no end")
}

async fn soon(hints: &mut (impl Stream<Item = Hint> + Unpin), within: Duration) -> Option<Hint> {
    tokio::time::timeout(within, hints.next()).await.ok().flatten()
}

#[tokio::test]
async fn a_container_is_made_although_the_server_makes_no_log_directories_and_wants_both_images() {
    let pair = Pair::new(false);
    let id = pair.running_container().await;
    let world = pair.server.world();
    let (_, config, _) = &world.containers[id.as_str()];
    let image = config.image.as_ref().expect("an image");
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:abc", "nginx:1"));
    assert!(pair.pod().log_directory.join("web").is_dir());
}

#[tokio::test]
async fn a_sandbox_without_a_cgroup_parent_gets_a_slice_from_a_systemd_server() {
    let pair = Pair::new(false);
    let id = pair.cri.run_sandbox(&pair.pod()).await.expect("run_sandbox");
    let world = pair.server.world();
    let linux = world.sandboxes[id.as_str()].0.linux.as_ref().expect("linux");
    assert_eq!(linux.cgroup_parent, "podstead.slice");
}

#[tokio::test]
async fn a_user_namespace_is_asked_for_as_the_kubelet_does_where_the_default_handler_knows_it() {
    use podstead_runtime::security::{IdMapping, UserNamespace};
    let pair = Pair::new(false);
    assert!(!pair.cri.status().await.expect("status").user_namespaces);
    pair.server.world().users = true;
    assert!(pair.cri.status().await.expect("status").user_namespaces);
    let ids = vec![IdMapping { container_id: 0, host_id: 131_072, length: 65_536 }];
    let mut pod = pair.pod();
    pod.security.namespaces.user = Some(UserNamespace { uids: ids.clone(), gids: ids.clone() });
    let sandbox = pair.cri.run_sandbox(&pod).await.expect("run_sandbox");
    let mut spec = container();
    spec.security.namespaces = pod.security.namespaces.clone();
    spec.mounts = vec![Mount {
        source: pair.directory.path().into(),
        destination: "/data".into(),
        uid_mappings: ids.clone(),
        gid_mappings: ids,
        ..Mount::default()
    }];
    let id = pair.cri.create_container(&sandbox, &spec, &pod).await.expect("create_container");
    let world = pair.server.world();
    let mapping = podstead_cri::proto::IdMapping { host_id: 131_072, container_id: 0, length: 65_536 };
    let wanted = podstead_cri::proto::UserNamespace {
        mode: podstead_cri::proto::NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    };
    let of_pod = world.sandboxes[sandbox.as_str()].0.linux.clone().and_then(|linux| linux.security_context);
    let of_pod = of_pod.and_then(|context| context.namespace_options);
    assert_eq!(of_pod.and_then(|options| options.userns_options), Some(wanted.clone()));
    let config = &world.containers[id.as_str()].1;
    let own = config.linux.clone().and_then(|linux| linux.security_context?.namespace_options);
    assert_eq!(own.and_then(|options| options.userns_options), Some(wanted));
    let mount = &config.mounts[0];
    assert_eq!((&mount.uid_mappings, &mount.gid_mappings), (&vec![mapping], &vec![mapping]));
}

#[tokio::test]
async fn limits_for_huge_pages_that_the_node_has_not_are_not_sent() {
    let pair = Pair::new(false);
    let pod = pair.pod();
    let sandbox = pair.cri.run_sandbox(&pod).await.expect("run_sandbox");
    let mut spec = container();
    spec.resources.hugepages.insert("512TB".into(), 0);
    pair.cri.create_container(&sandbox, &spec, &pod).await.expect("create_container");
    spec.attempt = 1;
    spec.resources.hugepages.insert("512TB".into(), 1 << 40);
    let error = pair.cri.create_container(&sandbox, &spec, &pod).await.expect_err("no such pages");
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("512TB"), "{error}");
}

#[tokio::test]
async fn verbs_repeated_make_nothing_twice() {
    let pair = Pair::new(false);
    let pod = pair.pod();
    let id = pair.running_container().await;
    let sandbox = pair.cri.run_sandbox(&pod).await.expect("again");
    assert_eq!(pair.cri.create_container(&sandbox, &container(), &pod).await.expect("again"), id);
    pair.cri.start_container(&id).await.expect("again");
    assert_eq!((pair.server.calls("RunPodSandbox"), pair.server.calls("CreateContainer")), (1, 1));
    let next = SandboxSpec { attempt: 1, ..pod };
    assert_ne!(pair.cri.run_sandbox(&next).await.expect("attempt 1"), sandbox);
}

#[tokio::test]
async fn a_name_that_is_reserved_is_waited_for() {
    let pair = Pair::new(false);
    let pod = pair.pod();
    pair.server.world().reserved = 3;
    let sandbox = pair.cri.run_sandbox(&pod).await.expect("run_sandbox");
    assert_eq!(pair.server.calls("RunPodSandbox"), 4);
    pair.server.world().reserved = 2;
    pair.cri.create_container(&sandbox, &container(), &pod).await.expect("create_container");
    assert_eq!(pair.server.calls("CreateContainer"), 3);
}

#[tokio::test]
async fn a_name_that_stays_reserved_is_given_up_at_the_deadline() {
    let options = Options { request_timeout: Duration::from_millis(300), ..Options::default() };
    let pair = Pair::with(false, options);
    pair.server.world().reserved = u32::MAX;
    let begun = Instant::now();
    let error = pair.cri.run_sandbox(&pair.pod()).await.expect_err("never free");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(error.retry() == Retry::Backoff && error.to_string().contains("is reserved"), "{error}");
    assert!(pair.server.calls("RunPodSandbox") < 10, "not hammered");
}

#[tokio::test]
async fn a_dropped_run_is_carried_on_and_asked_for_once() {
    let pair = Pair::new(false);
    let pod = pair.pod();
    pair.server.world().slow = Duration::from_millis(300);
    for _ in 0..3 {
        let dropped = tokio::time::timeout(Duration::from_millis(20), pair.cri.run_sandbox(&pod)).await;
        assert!(dropped.is_err());
    }
    let (one, two) = tokio::join!(pair.cri.run_sandbox(&pod), pair.cri.run_sandbox(&pod));
    assert_eq!(one.expect("run_sandbox"), two.expect("run_sandbox"));
    assert_eq!((pair.server.calls("RunPodSandbox"), pair.server.world().sandboxes.len()), (1, 1));
}

#[tokio::test]
async fn a_backlog_of_events_is_taken_without_a_call_for_each() {
    let pair = Pair::new(true);
    for n in 0..1000 {
        // As many as CRI-O keeps for its first listener; most are others'.
        let labels: &[(&str, &str)] =
            if n % 100 == 0 { &[(labels::OWNER, labels::DEFAULT_OWNER)] } else { &[] };
        pair.server.event(&format!("s{n}"), labels, &format!("u{n}"));
    }
    let mut hints = pair.cri.hints();
    let mut pods = Vec::new();
    while let Some(hint) = soon(&mut hints, Duration::from_millis(1500)).await {
        if let Hint::Pod(uid) = hint {
            pods.push(uid.0);
        }
    }
    assert_eq!(pods, (0..10).map(|n| format!("u{}", n * 100)).collect::<Vec<_>>());
    assert_eq!(pair.server.all_calls(), 2, "the version and the events were asked for, nothing else");
}

#[tokio::test]
async fn a_quiet_node_costs_two_calls_a_reading() {
    let pair = Pair::new(false);
    let id = pair.running_container().await;
    let first = pair.cri.observe().await.expect("observe");
    assert_eq!(first.sandboxes[0].ips, Some(vec!["10.88.0.7".parse().expect("an address")]));
    assert_eq!(first.containers[0].image, "nginx:1");
    let before = pair.server.all_calls();
    assert_eq!(pair.cri.observe().await.expect("observe"), first);
    assert_eq!(pair.server.all_calls() - before, 2);
    // A change is read in one more call.
    {
        let mut world = pair.server.world();
        let status = &mut world.containers.get_mut(id.as_str()).expect("there").2;
        status.set_state(ContainerState::ContainerExited);
        status.exit_code = 3;
    }
    let seen = pair.cri.observe().await.expect("observe").containers.remove(0);
    assert!(
        matches!(&seen.state, podstead_runtime::ContainerState::Exited { code: 3, reason, .. } if reason == "Error")
    );
    assert_eq!(pair.server.all_calls() - before, 5);
}

#[tokio::test]
async fn what_does_not_bear_our_mark_is_neither_shown_nor_touched() {
    let pair = Pair::new(false);
    let metadata = PodSandboxMetadata { name: "other".into(), uid: "u9".into(), ..Default::default() };
    let other = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    pair.server.world().sandboxes.insert("sandbox9".into(), (other, PodSandboxState::SandboxReady));
    assert_eq!(pair.cri.observe().await.expect("observe"), Snapshot::default());
    let refused = pair.cri.stop_sandbox(&"sandbox9".into()).await;
    assert!(matches!(refused, Err(Error::NotOurs { .. })), "{refused:?}");
    // Part of an id is not an id.
    pair.cri.stop_sandbox(&"sandbox".into()).await.expect("absent");
    pair.cri.stop_sandbox(&"".into()).await.expect("absent");
    assert_eq!(pair.server.calls("StopPodSandbox"), 0);
}

#[tokio::test]
async fn events_that_end_at_once_lead_to_listing_and_hints_only_of_changes() {
    let pair = Pair::new(false);
    let id = pair.running_container().await;
    let mut hints = pair.cri.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything);
    assert_eq!(next(&mut hints).await, Hint::Everything, "subscribed: the picture was taken");
    assert_eq!(next(&mut hints).await, Hint::Everything, "listing: the picture was taken");
    let (before, begun) = (pair.server.calls("ListContainers"), Instant::now());
    while pair.server.calls("ListContainers") < before + 2 {
        assert!(begun.elapsed() < PATIENCE, "it lists");
        assert_eq!(soon(&mut hints, Duration::from_millis(50)).await, None, "nothing changed");
    }
    assert!(begun.elapsed() > Duration::from_millis(900), "not without a pause: {:?}", begun.elapsed());
    pair.server
        .world()
        .containers
        .get_mut(id.as_str())
        .expect("there")
        .2
        .set_state(ContainerState::ContainerExited);
    let changed = Instant::now();
    assert_eq!(next(&mut hints).await, Hint::Pod("u1".into()));
    assert!(changed.elapsed() < PATIENCE, "{:?}", changed.elapsed());
    assert_eq!(pair.server.calls("GetContainerEvents"), 1, "not asked again");
}

#[tokio::test]
async fn with_nothing_running_the_server_is_left_alone() {
    let pair = Pair::new(false);
    let mut hints = pair.cri.hints();
    for _ in 0..3 {
        assert_eq!(next(&mut hints).await, Hint::Everything);
    }
    let before = pair.server.all_calls();
    assert_eq!(soon(&mut hints, Duration::from_secs(4)).await, None);
    assert_eq!(pair.server.all_calls(), before, "idle");
    // A verb that makes something run ends the pause.
    let begun = Instant::now();
    pair.cri.run_sandbox(&pair.pod()).await.expect("run_sandbox");
    assert_eq!(next(&mut hints).await, Hint::Pod("u1".into()));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn events_without_headers_before_the_first_block_nothing_and_replace_listing() {
    let pair = Pair::new(true);
    let mut hints = pair.cri.hints();
    assert_eq!(next(&mut hints).await, Hint::Everything, "it waits for nobody");
    assert_eq!(next(&mut hints).await, Hint::Everything, "subscribed");
    pair.server.event("s9", &[], "u9");
    pair.server.event("s1", &[(labels::OWNER, labels::DEFAULT_OWNER)], "u1");
    assert_eq!(next(&mut hints).await, Hint::Everything, "headers");
    assert_eq!(next(&mut hints).await, Hint::Pod("u1".into()), "another's event is no hint");
    assert_eq!(pair.server.calls("ListContainers"), 0);
}

#[tokio::test]
async fn a_server_that_restarts_is_away_for_a_while_and_then_everything_is_looked_at() {
    for events in [false, true] {
        let mut pair = Pair::new(events);
        pair.running_container().await;
        let mut hints = pair.cri.hints();
        while soon(&mut hints, Duration::from_millis(1300)).await.is_some() {}
        drop(pair.running.take());
        let socket = pair.directory.path().join("crio.sock");
        std::fs::remove_file(&socket).expect("remove the socket");
        assert_eq!(soon(&mut hints, Duration::from_millis(1500)).await, None);
        let error = pair.cri.observe().await.expect_err("away");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(error.retry(), Retry::Soon);
        assert!(error.to_string().contains("crio.sock"), "{error}");
        pair.running = Some(pair.server.serve(&socket));
        pair.cri.observe().await.expect("back");
        assert_eq!(next(&mut hints).await, Hint::Everything);
    }
}

#[tokio::test]
async fn a_verb_that_hangs_ends_at_its_deadline_and_a_sandbox_has_twice_the_time() {
    let options = Options { request_timeout: Duration::from_millis(300), ..Options::default() };
    let pair = Pair::with(false, options);
    pair.server.world().hang = true;
    let begun = Instant::now();
    let error = pair.cri.run_sandbox(&pair.pod()).await.expect_err("it hangs");
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_pull_takes_credentials_along_and_answers_the_image_id() {
    let pair = Pair::new(false);
    let auth = Auth::Basic { username: "u".into(), password: "p".into() };
    let id =
        pair.cri.pull_image(&"registry.test/app:1".into(), &auth, PullProgress::none()).await.expect("pull");
    assert_eq!(id, "9d2c0f", "the id of what the answer's digest names");
    let world = pair.server.world();
    let sent = world.pulled[0].auth.as_ref().expect("credentials");
    assert_eq!((sent.username.as_str(), sent.password.as_str()), ("u", "p"));
}

/// A streaming server for one connection: version 5, echoes stdin until its end, then exits with 3.
async fn echo_server(listener: tokio::net::TcpListener) {
    let (stream, _) = listener.accept().await.expect("accept");
    #[allow(clippy::result_large_err)] // the library's signature
    let choose =
        |request: &tokio_tungstenite::tungstenite::handshake::server::Request,
         mut response: tokio_tungstenite::tungstenite::handshake::server::Response| {
            assert_eq!(request.headers()["Sec-WebSocket-Protocol"], "v5.channel.k8s.io");
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", "v5.channel.k8s.io".parse().expect("a header"));
            Ok(response)
        };
    let socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.expect("handshake");
    let (mut to, mut from) = socket.split();
    while let Some(Ok(message)) = from.next().await {
        match message.into_data().split_first() {
            Some((0, bytes)) => {
                let echoed = [&[1], bytes].concat();
                to.send(Message::Binary(echoed.into())).await.expect("send");
            }
            Some((255, [0])) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    let status = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"exit 3",
        "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    to.send(Message::Binary([&[3], &status[..]].concat().into())).await.expect("send");
}

#[tokio::test]
async fn exec_over_a_version_5_websocket_ends_stdin_and_moves_both_directions_at_once() {
    let pair = Pair::new(false);
    let id = pair.running_container().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    pair.server.world().exec_url = format!("http://{address}/exec/token");
    tokio::spawn(echo_server(listener));
    let (stdin, mut feed) = tokio::io::simplex(64 << 10);
    let (mut output, stdout) = tokio::io::simplex(64 << 10);
    let streams = ExecStreams {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        ..ExecStreams::default()
    };
    let spec = ExecSpec { command: vec!["cat".into()], tty: false };
    let sent = vec![b'x'; 8 << 20];
    let write = async {
        feed.write_all(&sent).await.expect("feed");
        feed.shutdown().await.expect("end");
    };
    let mut got = Vec::new();
    let both =
        async { tokio::join!(pair.cri.exec(&id, &spec, streams), write, output.read_to_end(&mut got)) };
    let (code, (), _) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("no deadlock");
    assert_eq!(code, Ok(3));
    assert_eq!(got.len(), sent.len());
}
