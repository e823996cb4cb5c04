//! What the client does when plugins misbehave. The plugins are small scripts.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podstead_youki::network::{Attachment, Error, Fault, Network, Settings, Status};
use serde_json::{Value, json};
use tempfile::TempDir;

const RESULT: &str = r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.9/24"}]}'"#;

struct Rig {
    temp: TempDir,
    network: Network,
}

impl Rig {
    /// Plugins named `a`, `b`, ... with these scripts; each first notes what it is called for in the file `calls`.
    fn new(scripts: &[&str]) -> Self {
        Self::with("1.0.0", Duration::from_secs(20), scripts)
    }

    fn with(version: &str, deadline: Duration, scripts: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        for sub in ["bin", "net.d"] {
            fs::create_dir(dir.join(sub)).unwrap();
        }
        let names: Vec<String> = ('a'..).take(scripts.len()).map(String::from).collect();
        let plugins: Vec<Value> = names.iter().map(|name| json!({"type": name})).collect();
        let list = json!({"cniVersion": version, "name": "scripts", "plugins": plugins});
        fs::write(dir.join("net.d/10.conflist"), list.to_string()).unwrap();
        let rig = Self { network: Network::new(settings(dir, deadline)), temp };
        names.iter().zip(scripts).for_each(|(name, script)| rig.install(name, script));
        rig
    }

    fn install(&self, name: &str, script: &str) {
        let dir = self.temp.path();
        let path = dir.join("bin").join(name);
        let text = format!("#!/bin/sh\ncd {}\necho {name} $CNI_COMMAND >>calls\n{script}\n", dir.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    async fn add(&self) -> Result<podstead_youki::network::Outcome, Error> {
        self.network.add(&pod()).await
    }

    async fn fault(&self) -> (Fault, bool) {
        let error = self.add().await.unwrap_err();
        println!("{error}");
        assert!(error.to_string().contains("CNI plugin a, ADD of sandbox s1"), "{error}");
        let retryable = error.retryable();
        let Error::Plugin(error) = error else { panic!("{error:?}") };
        (error.fault, retryable)
    }
}

fn settings(dir: &Path, deadline: Duration) -> Settings {
    Settings {
        conf_dir: dir.join("net.d"),
        bin_dirs: vec![dir.join("none"), dir.join("bin")],
        record_dir: dir.join("records"),
        deadline,
    }
}

fn pod() -> Attachment {
    Attachment {
        sandbox: "s1".into(),
        netns: "/run/no-such-netns".into(),
        pod_namespace: "kube-system".into(),
        pod_name: "web-0".into(),
        pod_uid: "uid-1".into(),
        ..Attachment::default()
    }
}

fn is_running(pid: &str) -> bool {
    // One that was killed may wait for its parent.
    fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).is_ok_and(|s| !s.contains(") Z"))
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn plugins_are_told_what_the_specification_says() {
    let tell = format!("env | sort >env-$CNI_COMMAND; cat >stdin-$CNI_COMMAND; {RESULT}");
    let rig = Rig::new(&[RESULT, &tell]);
    let outcome = rig.add().await.unwrap();
    assert_eq!(outcome.pod_ips(), ["10.0.0.9".parse::<std::net::IpAddr>().unwrap()]);
    let env = fs::read_to_string(rig.path("env-ADD")).unwrap();
    for line in [
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=s1",
        "CNI_NETNS=/run/no-such-netns",
        "CNI_IFNAME=eth0",
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=s1;\
         K8S_POD_UID=uid-1",
        &format!("CNI_PATH={}:{}", rig.path("none").display(), rig.path("bin").display()),
    ] {
        assert!(env.lines().any(|have| have == line), "{line} is not in {env}");
    }
    assert!(!env.contains("CARGO"), "the caller's environment was passed on: {env}");
    let result = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.9/24"}]});
    let config = json!({"type": "b", "name": "scripts", "cniVersion": "1.0.0", "prevResult": result});
    let stdin = |name: &str| serde_json::from_slice::<Value>(&fs::read(rig.path(name)).unwrap()).unwrap();
    assert_eq!(stdin("stdin-ADD"), config);
    rig.network.del("s1").await.unwrap();
    assert_eq!(stdin("stdin-DEL"), config);
    assert!(fs::read_to_string(rig.path("env-DEL")).unwrap().lines().any(|line| line == "CNI_NETNS="));
    assert_eq!(rig.calls(), ["a ADD", "b ADD", "b DEL", "a DEL"]);
}

#[tokio::test]
async fn errors_of_plugins_are_shown_and_undone() {
    let say = |code: u32| {
        format!(
            r#"[ $CNI_COMMAND = DEL ] && exit 0
               echo to stderr >&2
               echo '{{"cniVersion":"1.0.0","code":{code},"msg":"no address left","details":"10.0.0.0/24"}}'; exit 1"#
        )
    };
    for (code, passes) in [(7, false), (11, true), (2, false), (999, true)] {
        let rig = Rig::new(&[&say(code), RESULT]);
        let (fault, retryable) = rig.fault().await;
        assert_eq!(fault.to_string(), format!("no address left (code {code}): 10.0.0.0/24: to stderr"));
        assert_eq!(retryable, passes, "{code}");
        assert_eq!(rig.calls(), ["a ADD", "a DEL"], "only what was started is undone");
        assert!(rig.network.attached().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn output_that_is_no_result_is_refused() {
    for (script, why) in [
        ("echo garbage", "not JSON"),
        ("true", "not JSON"),
        ("echo []", "not a JSON object"),
        (r#"echo '{"cniVersion":"7.0.0"}'"#, "7.0.0"),
    ] {
        let rig = Rig::new(&[script]);
        let (fault, retryable) = rig.fault().await;
        assert!(matches!(&fault, Fault::Result(reason) if reason.contains(why)), "{fault}");
        assert!(!retryable);
        assert_eq!(rig.calls(), ["a ADD", "a DEL"]);
    }
    let rig =
        Rig::new(&["[ $CNI_COMMAND = DEL ] && exit 0; echo garbage; printf 'went\\nwrong' >&2; exit 3"]);
    let (fault, _) = rig.fault().await;
    assert_eq!(fault.to_string(), "it ended with exit status: 3: garbage: went wrong");
}

#[tokio::test]
async fn a_flood_is_stopped() {
    let start = Instant::now();
    let flood = "[ $CNI_COMMAND = DEL ] && exit 0; head -c 100000000 /dev/zero; sleep 1000";
    let rig = Rig::new(&[flood]);
    let (fault, retryable) = rig.fault().await;
    assert!(matches!(fault, Fault::TooMuchOutput { limit: 1_048_576 }), "{fault}");
    assert!(!retryable);
    let rig = Rig::new(&[
        "[ $CNI_COMMAND = DEL ] && exit 0; head -c 100000000 /dev/zero >&2; echo end >&2; exit 1",
    ]);
    let (fault, _) = rig.fault().await;
    assert!(matches!(&fault, Fault::Ended { stderr, .. } if stderr.ends_with("end")), "{fault}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let hang = "[ $CNI_COMMAND = DEL ] && exit 0; sleep 1000 & echo $! >child; echo waiting >&2; wait";
    let rig = Rig::with("1.0.0", Duration::from_millis(700), &[hang]);
    let start = Instant::now();
    let (fault, retryable) = rig.fault().await;
    assert!(matches!(&fault, Fault::Deadline { stderr, .. } if stderr == "waiting"), "{fault}");
    assert!(retryable && start.elapsed() < Duration::from_secs(5));
    let child = fs::read_to_string(rig.path("child")).unwrap();
    until("the plugin's child ends", || !is_running(&child)).await;
    assert_eq!(rig.calls(), ["a ADD", "a DEL"]);
}

#[tokio::test]
async fn an_attachment_nobody_waits_for_is_killed_and_can_be_undone() {
    let hang = "[ $CNI_COMMAND = DEL ] && exit 0; sleep 1000 & echo $! >child; wait";
    let rig = Rig::new(&[RESULT, hang]);
    let cut = tokio::time::timeout(Duration::from_millis(700), rig.add()).await;
    assert!(cut.is_err());
    let child = fs::read_to_string(rig.path("child")).unwrap();
    until("the plugin's child ends", || !is_running(&child)).await;
    assert_eq!(rig.network.attached().await.unwrap(), ["s1"]);
    assert!(rig.network.outcome("s1").await.unwrap().is_none());
    assert!(matches!(rig.network.check("s1").await, Err(Error::NotAttached(_))));
    rig.network.del("s1").await.unwrap();
    assert_eq!(rig.calls(), ["a ADD", "b ADD", "b DEL", "a DEL"]);
    assert!(rig.network.attached().await.unwrap().is_empty());
}

/// Set for [`the_process_that_is_killed`]: the directory of the rig.
const DIRECTORY: &str = "PODSTEAD_NETWORK_TEST_DIRECTORY";

#[tokio::test]
async fn plugins_of_a_killed_process_are_ended_before_the_sandbox_is_detached() {
    let slow = "[ $CNI_COMMAND = DEL ] && { rm -f address; exit 0; }
        setsid sh -c 'echo $$ >daemon; exec sleep 1000' &
        (sleep 2; echo 10.0.0.9 >address) & echo $! >child; wait $!; cat address";
    let rig = Rig::new(&[slow]);
    let mut first = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--ignored", "--test-threads=1"])
        .env(DIRECTORY, rig.temp.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let written = |name| fs::read_to_string(rig.path(name)).unwrap_or_default().ends_with('\n');
    until("the plugin works", || written("child") && written("daemon")).await;
    first.kill().unwrap();
    first.wait().unwrap();
    let [child, daemon] = ["child", "daemon"].map(|name| fs::read_to_string(rig.path(name)).unwrap());
    assert!(is_running(&child), "a killed process takes no plugin with it");
    let attached = rig.network.attached().await.unwrap();
    rig.network.del("s1").await.unwrap();
    let (runs_on, spared) = (is_running(&child), is_running(&daemon));
    std::process::Command::new("kill").arg(daemon.trim()).status().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!rig.path("address").exists(), "an address is held that nobody knows of");
    assert_eq!((runs_on, spared, attached), (false, true, vec!["s1".to_owned()]));
    assert_eq!(rig.calls(), ["a ADD", "a DEL"]);
}

#[tokio::test]
#[ignore = "a part of another test, run by it as a process of its own"]
async fn the_process_that_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let _ = Network::new(settings(&dir, Duration::from_secs(20))).add(&pod()).await;
}

#[tokio::test]
async fn operations_on_one_sandbox_take_turns() {
    let slow = format!("echo begins >>calls; sleep 0.5; echo ends >>calls; {RESULT}");
    let rig = Rig::new(&[&slow]);
    let other = Network::new(settings(rig.temp.path(), Duration::from_secs(20)));
    let add = rig.add();
    let del = async {
        until("the plugin works", || rig.calls().len() == 2).await;
        other.del("s1").await
    };
    let (added, deleted) = tokio::join!(add, del);
    added.unwrap();
    deleted.unwrap();
    assert_eq!(rig.calls(), ["a ADD", "begins", "ends", "a DEL", "begins", "ends"]);
}

/// A program that ends may have to clean up while its own tasks stand still.
#[tokio::test]
async fn an_operation_that_stands_still_is_not_waited_for() {
    let slow = format!("sleep 0.3; {RESULT}");
    let rig = Rig::new(&[&slow, &slow]);
    let mut add = std::pin::pin!(rig.add());
    // Up to its first plugin, and never polled again until the end.
    let begun = until("a plugin ran", || !rig.calls().is_empty());
    tokio::select! { biased; _ = &mut add => panic!("it has ended"), () = begun => {} }
    let other = Network::new(settings(rig.temp.path(), Duration::from_secs(20)));
    let start = Instant::now();
    other.del("s1").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(other.attached().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_plugins_failure_does_not_keep_others_from_detaching() {
    let rig = Rig::new(&[RESULT, RESULT, RESULT]);
    rig.add().await.unwrap();
    rig.install("b", "exit 1");
    fs::remove_file(rig.path("bin/c")).unwrap();
    let error = rig.network.del("s1").await.unwrap_err();
    assert!(matches!(&error, Error::PluginMissing { plugin, .. } if plugin == "c"), "{error}");
    assert_eq!(rig.calls()[3..], ["b DEL", "a DEL"]);
    assert_eq!(rig.network.attached().await.unwrap(), ["s1"], "it must be possible to try again");
    rig.install("b", "true");
    rig.install("c", "true");
    rig.network.del("s1").await.unwrap();
    assert_eq!(rig.calls()[5..], ["c DEL", "b DEL", "a DEL"]);
    rig.network.del("s1").await.unwrap();
    assert_eq!(rig.calls().len(), 8);
}

#[tokio::test]
async fn a_missing_plugin_is_noticed_before_any_runs() {
    let rig = Rig::new(&[RESULT, RESULT]);
    fs::set_permissions(rig.path("bin/b"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = rig.add().await.unwrap_err();
    assert!(matches!(&error, Error::PluginMissing { plugin, .. } if plugin == "b"), "{error}");
    assert!(error.to_string().contains(rig.path("bin").to_str().unwrap()), "{error}");
    assert!(rig.calls().is_empty());
    assert_eq!(rig.network.status().await, Status::NotReady(error.to_string()));
    fs::remove_file(rig.path("net.d/10.conflist")).unwrap();
    fs::write(rig.path("net.d/05.conf"), "{}").unwrap();
    let Status::NotReady(reason) = rig.network.status().await else { panic!() };
    assert!(reason.contains("05.conf: it has no name"), "{reason}");
}

#[tokio::test]
async fn plugins_of_1_1_are_asked_for_their_status() {
    let limited = r#"echo '{"cniVersion":"1.1.0","code":50,"msg":"no route yet"}'; exit 1"#;
    let rig = Rig::with("1.1.0", Duration::from_secs(20), &["true", limited]);
    let reason = "CNI plugin b, STATUS: no route yet (code 50)";
    assert_eq!(rig.network.status().await, Status::NotReady(reason.to_owned()));
    assert_eq!(rig.calls(), ["a STATUS", "b STATUS"]);
    rig.install("b", "true");
    assert!(matches!(rig.network.status().await, Status::Ready { .. }));
}
