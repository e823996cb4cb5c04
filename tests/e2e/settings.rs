//! Resources as the kernel has them, what an image says where the manifest is silent, paths of the host, probes over gRPC, and the rest of
//! what has no room of its own, on both backends.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use podstead::node::facts;
use podstead::testing::{Node, PodHandle};

use crate::support::{Host, on_both};

on_both!(
    requests_and_limits_are_the_kernels,
    what_is_kept_back_limits_all_pods_together,
    what_an_image_says_holds_where_the_manifest_is_silent,
    host_paths_are_made_or_must_be_what_is_said,
    the_end_of_a_pod_follows_no_link_out,
    grpc_probes_ask_for_a_services_health,
);

/// A pod of these containers, `name: settings` each, which run the same script.
fn manifest(name: &str, pod: &str, containers: &[(&str, &str)], script: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 2\n  {pod}\n  containers:\n"
    );
    for (container, settings) in containers {
        let _ = write!(
            text,
            "  - name: {container}\n    image: localhost/podstead/busybox:1\n    {settings}\n    command: [/bin/sh, -c]\n    \
             args:\n    - |\n      {}\n",
            script.replace('\n', "\n      ")
        );
    }
    text
}

/// A file of the container's cgroup: the first of these controllers' that is there, or the unified hierarchy's.
fn cgroup_file(pid: u32, controller: &str, legacy: &str, unified: &str) -> (PathBuf, String) {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let path = |line: &str| line.splitn(3, ':').nth(2).unwrap_or_default().to_owned();
    let has = |line: &&str| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|c| c == controller));
    let (dir, path, file) = match own.lines().find(has) {
        Some(line) => (format!("/sys/fs/cgroup/{controller}"), path(line), legacy),
        None => ("/sys/fs/cgroup".to_owned(), path(own.lines().next().unwrap_or_default()), unified),
    };
    let path = Path::new(&dir).join(path.trim_start_matches('/'));
    let value =
        std::fs::read_to_string(path.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", path.display()));
    (path, value.trim().to_owned())
}

async fn requests_and_limits_are_the_kernels(host: &Host) {
    let node = host.node().await;
    let script = "echo ready; exec sleep 1000";
    let with = |requests: &str, limits: &str| {
        format!("resources: {{requests: {{{requests}}}, limits: {{{limits}}}}}")
    };
    let same = "cpu: 100m, memory: 32Mi";
    for (name, class, settings) in [
        ("sure", "", with(same, same)),
        ("some", "/burstable", with("cpu: 250m, memory: 16Mi", "cpu: 500m, memory: 64Mi")),
        ("none", "/besteffort", with("", "")),
    ] {
        let pod = node.apply(name, &manifest(name, "", &[("c", &settings)], script)).expect("apply");
        pod.logged("c", |log| log == "ready\n").await.expect("runs");
        let pid = first_process(&pod).await;
        let (dir, memory) = cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max");
        let uid = pod.container("c").await.expect("there").pod_uid();
        let parent = format!("{}/kubepods{class}/pod{uid}/", node.config().cgroup_root, uid = uid.as_str());
        assert!(dir.to_string_lossy().contains(&parent), "{parent} in {}", dir.display());
        let unified = dir.join("memory.max").exists();
        let (_, shares) = cgroup_file(pid, "cpu", "cpu.shares", "cpu.weight");
        let (_, quota) = cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max");
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("its score");
        let score: i32 = score.trim().parse().expect("a number");
        let unlimited = |value: &str| value == "max" || value.len() > 15;
        match name {
            "sure" => {
                assert_eq!((&*memory, quota.split(' ').next()), ("33554432", Some("10000")));
                assert_eq!(shares, if unified { "4" } else { "102" });
                // -997 needs a capability that not every machine gives away.
                assert!(score < 3, "{score}");
            }
            "some" => {
                assert_eq!((&*memory, quota.split(' ').next()), ("67108864", Some("50000")));
                assert_eq!(shares, if unified { "10" } else { "256" });
                assert!((900..1000).contains(&score), "{score}");
            }
            _ => {
                assert!(unlimited(&memory), "{memory}");
                assert_eq!(shares, if unified { "1" } else { "2" });
                assert!(quota.starts_with("max") || quota == "-1", "{quota}");
                assert_eq!(score, 1000);
            }
        }
    }
    node.remove("sure").expect("remove");
    node.remove("some").expect("remove");
    node.remove("none").expect("remove");
    node.empty().await.expect("nothing is left, cgroups neither");
}

async fn what_is_kept_back_limits_all_pods_together(host: &Host) {
    let keep = 1 << 30;
    let builder = host.builder().config(move |config| {
        config.reserved.kube.insert("memory".to_owned(), keep);
    });
    let node = host.started(builder).await;
    let pod = node
        .apply("kept", &manifest("kept", "", &[("c", "")], "echo ready; exec sleep 1000"))
        .expect("apply");
    pod.logged("c", |log| log == "ready\n").await.expect("runs");
    let (dir, _) = cgroup_file(first_process(&pod).await, "memory", "memory.limit_in_bytes", "memory.max");
    let all = dir.ancestors().find(|dir| dir.ends_with("kubepods")).expect("kubepods above it");
    let limit = || {
        let read = |file: &str| std::fs::read_to_string(all.join(file)).ok();
        read("memory.max").or_else(|| read("memory.limit_in_bytes")).unwrap_or_default().trim().to_owned()
    };
    // The kernel counts whole pages.
    let wanted = (facts::memory_capacity() - keep) / 4096 * 4096;
    for _ in 0..100 {
        if limit() == wanted.to_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(limit(), wanted.to_string(), "{}", all.display());
    node.remove("kept").expect("remove");
    node.empty().await.expect("nothing is left");
}

/// The number of the container's first process on the node.
async fn first_process(pod: &PodHandle<'_>) -> u32 {
    let container = pod.container("c").await.expect("there");
    if container.pid != 0 {
        return container.pid;
    }
    // A server that does not tell: whoever has the pod's uid in the name of its cgroup and runs what was said.
    let uid = container.pod_uid().as_str().to_owned();
    let all = std::fs::read_dir("/proc").expect("list").flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let read =
        |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    pids.find(|pid| read(*pid, "cgroup").contains(&uid) && read(*pid, "comm").trim() == "sleep")
        .expect("its process")
}

/// A busybox whose image says everything that an image can.
fn talkative(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect("run a program");
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
    };
    let from = format!("oci-archive:{}", crate::support::images().join("busybox.tar").display());
    run("skopeo", &["copy", "-q", "--insecure-policy", &from, &format!("oci:{}:1", layout.display())]);
    let image = format!("{}:1", layout.display());
    let script = "trap 'echo user signal; exit 0' USR1; trap 'echo hangup; exit 0' HUP; trap 'echo term; exit 0' TERM\n\
                  echo \"$0 $* as $(id -u) in $(pwd) says $WORD $MORE\"; while :; do sleep 0.1; done";
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.user=1000",
            "--config.workingdir=/var/tmp",
            "--config.env=WORD=image",
            "--config.env=MORE=more",
            "--config.stopsignal=SIGUSR1",
            "--config.entrypoint=/bin/sh",
            "--config.entrypoint=-c",
            "--config.entrypoint",
            script,
            "--config.cmd=zero",
            "--config.cmd=one",
        ],
    );
    let archive = dir.join("talkative.tar");
    let to = format!("oci-archive:{}:localhost/podstead/talkative:1", archive.display());
    run("skopeo", &["copy", "-q", "--insecure-policy", &format!("oci:{image}"), &to]);
    archive
}

async fn what_an_image_says_holds_where_the_manifest_is_silent(host: &Host) {
    let node = host.node().await;
    let dir = tempfile::tempdir().expect("a directory");
    host.import(&node, &talkative(dir.path()), "localhost/podstead/talkative:1").await;
    let pod = |name: &str, settings: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n  os: {{name: linux}}\n  \
             terminationGracePeriodSeconds: 5\n  containers:\n  - name: c\n    image: localhost/podstead/talkative:1\n{settings}"
        )
    };
    let whole = "    args: [first, second]\n    workingDir: /tmp\n    securityContext: {runAsUser: 7}\n    \
                 env: [{name: WORD, value: manifest}]\n    lifecycle: {stopSignal: SIGHUP}\n";
    let command = "    command: [/bin/sh, -c, 'echo only $0 \"$*\" in $(pwd); exec sleep 1000']\n";
    for (name, settings, said, last) in [
        ("silent", "", "zero one as 1000 in /var/tmp says image more\n", "user signal\n"),
        ("loud", whole, "first second as 7 in /tmp says manifest more\n", "hangup\n"),
        // A command of its own takes the image's arguments away as well.
        ("other", command, "only /bin/sh  in /var/tmp\n", ""),
    ] {
        let handle = node.apply(name, &pod(name, settings)).expect("apply");
        let log = handle.logged("c", |log| log.ends_with('\n')).await.expect("its log");
        assert_eq!(log, said, "{name}");
        let path = handle.container("c").await.expect("there").log_path;
        let kept = node.dir().join(name);
        std::fs::hard_link(&path, &kept).expect("keep its log");
        node.remove(name).expect("remove");
        handle.gone().await.expect("gone");
        let log = std::fs::read_to_string(kept).expect("read");
        // The protocol has the manifest's signal since Kubernetes 1.33: containerd before 2.1 knows the image's only.
        let older = host.endpoint().is_some() && name == "loud" && log.ends_with("user signal\n");
        assert!(log.ends_with(last) || older, "{name}: {log}");
    }
    node.empty().await.expect("nothing is left");
}

async fn host_paths_are_made_or_must_be_what_is_said(host: &Host) {
    let node = host.node().await;
    let data = node.dir().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("file"), "x").expect("write");
    let _socket = std::os::unix::net::UnixListener::bind(data.join("socket")).expect("bind");
    let at = |name: &str| data.join(name).display().to_string();
    let volumes = [
        ("dir", at("new/dir"), "DirectoryOrCreate"),
        ("made", at("made"), "FileOrCreate"),
        ("file", at("file"), "File"),
        ("socket", at("socket"), "Socket"),
        ("char", "/dev/null".to_owned(), "CharDevice"),
        ("any", at("file"), ""),
    ];
    let mut spec = "volumes:".to_owned();
    let mut mounts = "volumeMounts:".to_owned();
    for (name, path, kind) in &volumes {
        let _ = write!(spec, "\n  - {{name: {name}, hostPath: {{path: {path}, type: \"{kind}\"}}}}");
        let _ = write!(mounts, "\n    - {{name: {name}, mountPath: /v/{name}}}");
    }
    let script = "test -d /v/dir && test -f /v/made && test -f /v/file && test -S /v/socket && test -c /v/char && test -f /v/any \
                  && echo all\nexec sleep 1000";
    let pod = node.apply("all", &manifest("all", &spec, &[("c", &mounts)], script)).expect("apply");
    pod.logged("c", |log| log == "all\n").await.expect("all are there");
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(data.join(name)).expect("made").permissions(),
        )
    };
    assert_eq!((mode("new/dir") & 0o7777, mode("made") & 0o7777), (0o755, 0o644));
    for (name, path, kind, told) in [
        ("nodir", at("file"), "Directory", "it is not a Directory"),
        ("nofile", at("none"), "File", "it does not exist"),
        ("noblock", "/dev/null".to_owned(), "BlockDevice", "it is not a BlockDevice"),
    ] {
        let spec = format!("volumes: [{{name: h, hostPath: {{path: {path}, type: {kind}}}}}]");
        node.apply(
            name,
            &manifest(name, &spec, &[("c", "volumeMounts: [{name: h, mountPath: /h}]")], script),
        )
        .expect("apply");
        let failure = failure(&node, told).await;
        assert!(failure.contains(&path), "{failure}");
    }
}

/// Waits until a failure says this, and answers it.
async fn failure(node: &Node, wanted: &str) -> String {
    let mut view = node.view().expect("an agent");
    let mut all: Vec<String> = Vec::new();
    let waiting = async {
        loop {
            all = view.borrow_and_update().known.failures.values().map(|f| f.message.clone()).collect();
            if let Some(told) = all.iter().find(|told| told.contains(wanted)) {
                return told.clone();
            }
            view.changed().await.expect("the agent lives");
        }
    };
    let told = tokio::time::timeout(podstead::testing::PATIENCE, waiting).await;
    told.unwrap_or_else(|_| panic!("{wanted:?} is not told, but {all:?}"))
}

async fn the_end_of_a_pod_follows_no_link_out(host: &Host) {
    let node = host.node().await;
    let data = node.dir().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("precious"), "x").expect("write");
    let spec = "volumes: [{name: e, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]";
    let mounts = "volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /e/m}]";
    let script = format!(
        "ln -s {0} /e/out; ln -s {0} /e/m/out; ln -s {0}/precious /e/file; mkdir /e/dir; ln -s ../../../../../../../../../.. /e/dir/up\n\
         chmod 0 /e/dir; echo done; exec sleep 1000",
        data.display()
    );
    let pod = node.apply("links", &manifest("links", spec, &[("c", mounts)], &script)).expect("apply");
    pod.logged("c", |log| log == "done\n").await.expect("runs");
    node.remove("links").expect("remove");
    node.empty().await.expect("nothing is left");
    assert_eq!(std::fs::read_to_string(data.join("precious")).expect("still there"), "x");
}

async fn grpc_probes_ask_for_a_services_health(host: &Host) {
    let Some(images) = crate::field::field_images() else { return };
    let node = host.node().await;
    host.import(&node, &images.join("etcd.tar"), "registry.k8s.io/etcd:3.5.21-0").await;
    let pod = |name: &str, service: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n  - name: c\n    \
             image: registry.k8s.io/etcd:3.5.21-0\n    command: [etcd, --data-dir=/tmp/etcd, \
             --listen-client-urls=http://0.0.0.0:2379, --advertise-client-urls=http://127.0.0.1:2379]\n    \
             ports: [{{containerPort: 2379}}]\n    readinessProbe: {{grpc: {{port: 2379{service}}}, periodSeconds: 1}}\n"
        )
    };
    let well = node.apply("well", &pod("well", "")).expect("apply");
    let unknown = node.apply("unknown", &pod("unknown", ", service: nobody")).expect("apply");
    well.ready().await.expect("ready");
    unknown.running().await.expect("runs");
    let deadline = std::time::Instant::now() + podstead::testing::PATIENCE;
    loop {
        let told = crate::cli::ok(&node, &["describe", "unknown-node"]);
        if told.contains("Readiness probe failed: service unhealthy")
            || told.contains("Readiness probe failed: error:")
        {
            assert!(
                told.contains("nobody") || told.contains("unknown service") || told.contains("health rpc"),
                "{told}"
            );
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ready = |name: &str| crate::life::condition(&crate::life::shown(&node, name)["status"], "Ready");
    assert_eq!((&*ready("well-node"), &*ready("unknown-node")), ("True", "False"));
}
