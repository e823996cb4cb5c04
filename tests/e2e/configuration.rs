//! Settings from files and variables: what `podstead config` shows of them, and that a real agent goes by them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use podstead::testing::Node;

use crate::cli::told;
use crate::support::{BINARY, Host, busybox, on_both};

on_both!(an_agent_goes_by_its_files_and_variables_and_a_reload_restarts_nothing);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config")
}

/// The binary in that directory, with these variables only.
fn podstead(dir: &Path, args: &[&str], variables: &str) -> (i32, String, String) {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(dir).env_clear().stdin(Stdio::null());
    command.envs(variables.lines().filter_map(|line| line.split_once('=')));
    told(command.output().expect("run podstead"))
}

#[test]
fn every_case_is_shown_exactly_so() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for dir in std::fs::read_dir(fixtures()).expect("list").map(|entry| entry.expect("an entry").path()) {
        cases += 1;
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let (args, variables) = (read("args"), read("variables"));
        let args: Vec<&str> = ["config"].into_iter().chain(args.split_whitespace()).collect();
        let (code, out, err) = podstead(&dir, &args, &variables);
        let got = format!("{out}{err}exit code {code}\n");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(dir.join("expected"), got).expect("write");
        } else if got != read("expected") {
            wrong.push(format!("{}\n--- expected\n{}--- got\n{got}", dir.display(), read("expected")));
        }
    }
    assert!(cases >= 4);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_agent_does_not_start_with_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    std::fs::write(dir.path().join("c.yaml"), format!("{head}staticPodPaht: /m\n")).expect("write");
    let (code, out, err) = podstead(dir.path(), &["run", "--config", "c.yaml"], "");
    let want = "podstead: c.yaml:3:1: staticPodPaht: unknown field, did you mean \"staticPodPath\"?\n";
    assert_eq!((code, &*out, &*err), (2, "", want));
    std::fs::write(dir.path().join("c.yaml"), format!("{head}imageGCHighThresholdPercent: 70\n"))
        .expect("write");
    let args = ["run", "--config", "c.yaml", "--pod-manifest-path", "/m", "--hostname-override", "n"];
    let (code, _, err) = podstead(dir.path(), &args, "");
    assert_eq!(code, 2);
    assert!(
        err.starts_with("podstead: c.yaml:3 (imageGCHighThresholdPercent): --image-gc-low-threshold"),
        "{err}"
    );
    let (code, _, err) = podstead(dir.path(), &["run"], "KUBELET_ARGS=--cluster-dsn=1");
    let want =
        "podstead: environment KUBELET_ARGS: unknown flag --cluster-dsn, did you mean --cluster-dns?\n";
    assert_eq!((code, &*err), (2, want));
}

/// An agent; killed when it is dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn hup(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("HUP");
    }
}

/// A node whose agent is told everything by files and variables.
struct Told<'n> {
    node: &'n Node,
}

impl Told<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.node.dir().join("settings").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        let head = if name == "kubelet" { "" } else { head };
        std::fs::write(path, format!("{head}{text}")).expect("write");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    async fn said(&self, what: &str, times: usize) {
        for _ in 0..600 {
            if self.log().matches(what).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not said {times} times: {what}\n{}", self.log());
    }

    fn start(&self) -> Agent {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new(BINARY);
        command.arg("run").args(self.node.runtime_flags());
        command.arg("--config-dir").arg(self.path("d")).arg("--env-file").arg(self.path("kubelet"));
        command.args(["--register-node=false", "--kubeconfig", "/etc/kubernetes/kubelet.conf"]);
        command.env("KUBELET_EXTRA_ARGS", "--hostname-override=node");
        command.env_remove("PODSTEAD_LOG").stdout(Stdio::null()).stderr(log);
        Agent(command.spawn().expect("start the agent"))
    }
}

async fn an_agent_goes_by_its_files_and_variables_and_a_reload_restarts_nothing(host: &Host) {
    let node = host.bare_node().await;
    let told = Told { node: &node };
    let config = node.config();
    let show = |path: &Path| path.display().to_string();
    told.write(
        "config.yaml",
        &format!(
            "staticPodPath: ../manifests\npodLogsDir: {}\ncgroupRoot: {}\nclusterDNS: [192.0.2.9]\nclusterDomain: file.local\n\
             containerLogMonitorInterval: 100ms\nregisterNode: false\nfileCheckFrequency: 0s\n",
            show(&config.pod_logs_dir),
            config.cgroup_root
        ),
    );
    told.write("d/10-names.conf", "clusterDNS: [10.254.0.10]\n");
    let args = format!(
        "--config={} --container-logs-dir={} --cluster-domain=kube.local",
        show(&told.path("config.yaml")),
        show(&config.container_logs_dir)
    );
    told.write("kubelet", &format!("# as Fedora has it\nKUBELET_ARGS=\"{args}\"\n"));
    let agent = told.start();
    let line = "echo this is a line of a log that grows until somebody rotates it";
    let talk = format!("while :; do for n in 1 2 3 4 5 6 7 8 9 10; do {line}; done; sleep 0.05; done");
    let manifest = busybox("told", &talk)
        .replace("  hostNetwork: true\n", "  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet\n");
    let pod = node.apply("told", &manifest).expect("apply");
    let before = pod.running().await.unwrap_or_else(|error| panic!("{error}\n{}", told.log()));
    let resolver = pod.exec("c", &["cat", "/etc/resolv.conf"]).await.expect("cat");
    let resolver = String::from_utf8_lossy(&resolver.stdout).into_owned();
    assert!(resolver.contains("nameserver 10.254.0.10\n"), "the drop-in's: {resolver}");
    assert!(resolver.contains(" kube.local"), "the variable's: {resolver}");
    told.said("no effect here: --register-node, --kubeconfig, registerNode;", 1).await;
    let log = pod.container("c").await.expect("seen").log_path;
    assert!(log.starts_with(&config.pod_logs_dir), "{}", log.display());
    let rotated = || {
        let files = std::fs::read_dir(log.parent().expect("a directory")).expect("list");
        files.filter(|file| file.as_ref().is_ok_and(|f| f.file_name() != "0.log")).count()
    };
    assert_eq!(rotated(), 0, "10 MiB are not written yet");

    // A broken file changes nothing.
    told.write("d/20-logs.conf", "containerLogMaxSize: 10k\nclusterDomian: x\n");
    agent.hup();
    told.said("were not read again, those from before stay: ", 1).await;
    assert!(
        told.log().contains("20-logs.conf:4:1: clusterDomian: unknown field, did you mean"),
        "{}",
        told.log()
    );
    // A good one changes what can change, and the rest is said.
    told.write("d/20-logs.conf", "containerLogMaxSize: 10k\nclusterDomain: x\nclusterDNS: [192.0.2.1]\n");
    agent.hup();
    told.said("--container-log-max-size is \"10k\" now, it was \"10Mi\"", 1).await;
    told.said(
        "--cluster-dns stays \"10.254.0.10\" until the agent is started again, then it will be \"192.0.2.1\"",
        1,
    )
    .await;
    assert!(!told.log().contains("--cluster-domain"), "a variable is stronger: {}", told.log());
    for _ in 0..200 {
        if rotated() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(rotated() >= 2, "logs of 10 kB now: {}", told.log());
    // Once more: what waits for a new agent is said again, what was taken over is not; and only warnings are from now on.
    told.write("kubelet", &format!("KUBELET_ARGS=\"{args} --v=0\"\n"));
    agent.hup();
    told.said("--cluster-dns stays", 2).await;
    assert_eq!(told.log().matches("--container-log-max-size is").count(), 1);
    assert!(!told.log().contains("--v is"), "{}", told.log());
    let after = pod.running().await.expect("runs");
    let ids = |all: &[podstead_runtime::Container]| {
        all.iter().map(|c| (c.id.clone(), c.attempt)).collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after), "nothing was restarted");
    node.remove("told").expect("remove");
    node.empty().await.expect("nothing is left");
    drop(agent);
}
