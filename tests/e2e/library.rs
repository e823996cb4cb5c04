//! What `podstead::testing` promises strangers: the example works, and nothing stays behind, also after a panic.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use podstead::testing::Node;

use crate::support::{BINARY, Host, busybox, images, on_both};

#[path = "../../examples/first-test/tests/first_test.rs"]
mod first_test;

on_both!(a_panic_leaves_nothing);

/// Runs tests of this very executable that are ignored otherwise, in a process of their own.
fn ignored(filter: &str) -> Command {
    let mut tests = Command::new(std::env::current_exe().expect("own path"));
    tests.args(["--ignored", "--nocapture", filter]).env("PODSTEAD_SHIM", BINARY).env("RUST_BACKTRACE", "0");
    tests
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_example_works_for_a_stranger() {
    let output = ignored("first_test::").env("BUSYBOX", images().join("busybox.tar")).output().expect("run");
    let said = text(&output);
    assert!(output.status.success() && said.contains("2 passed"), "{said}");
}

#[test]
fn the_examples_crate_stands_alone() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/first-test/Cargo.toml");
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"]);
    let output = metadata.arg(&manifest).output().expect("cargo metadata");
    assert!(output.status.success(), "{}", text(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let package = &found["packages"][0];
    let needs: Vec<_> =
        package["dependencies"].as_array().expect("a list").iter().map(|d| d["name"].as_str()).collect();
    assert_eq!(needs, [Some("podstead"), Some("tokio")], "all that the example's test uses");
    let targets = package["targets"].to_string();
    assert!(targets.contains("first_test.rs"), "{targets}");
}

/// Not a test: what [`a_panic_leaves_nothing`] starts.
#[tokio::test]
#[ignore = "the child of another test"]
async fn panicking_child_on_one_thread() {
    panicking_child().await;
}

/// Not a test, either: the same where the agent's tasks go on while the node is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of another test"]
async fn panicking_child_on_two_threads() {
    panicking_child().await;
}

async fn panicking_child() {
    let Ok(after) = std::env::var("PANIC_AFTER") else { return };
    let builder = match std::env::var("PANIC_ENDPOINT") {
        Ok(endpoint) => Node::cri(&endpoint),
        Err(_) => Node::direct(),
    };
    let node = builder.start().await.expect("start");
    println!("DIR {}", node.dir().display());
    let network =
        fs::read(node.dir().join("cni/net.d/10-test.conflist")).expect("the network's configuration");
    let network: serde_json::Value = serde_json::from_slice(&network).expect("JSON");
    println!("BRIDGE {}", network["name"].as_str().expect("a name"));
    node.import(images().join("busybox.tar")).await.expect("import");
    let networked = busybox("net", "exec sleep 100000").replace("  hostNetwork: true\n", "");
    let net = node.apply("net", &networked).expect("apply");
    let host =
        node.apply("host", &busybox("host", "trap '' TERM; while :; do sleep 1; done")).expect("apply");
    if let Ok(milliseconds) = after.parse() {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    } else {
        net.running().await.expect("runs");
        host.running().await.expect("runs");
    }
    panic!("as planned");
}

async fn a_panic_leaves_nothing(host: &Host) {
    let moments = ["running", "0", "30", "60", "90", "120", "150", "200", "250", "300"];
    for (n, after) in moments.into_iter().enumerate() {
        let threads = if n % 2 == 0 { "one_thread" } else { "two_threads" };
        let mut child = ignored(&format!("library::panicking_child_on_{threads}"));
        child.env("PANIC_AFTER", after);
        if let Some(endpoint) = host.endpoint() {
            child.env("PANIC_ENDPOINT", endpoint);
        }
        let child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let child = child.expect("start");
        let name = format!("pst{}-0", child.id());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output())
            .await
            .expect("joined")
            .expect("wait");
        let said = text(&output);
        assert!(!output.status.success() && said.contains("as planned"), "{said}");
        let told = |what: &str| said.lines().find_map(|l| l.strip_prefix(what)).expect("told");
        let left = left(&name, told("DIR "), told("BRIDGE "));
        assert!(left.is_empty(), "after {after}: {left:#?}\n{said}");
    }
}

/// Processes, mounts, cgroups, files and network devices of a node that is no more.
fn left(name: &str, dir: &str, bridge: &str) -> Vec<String> {
    let mut left = Vec::new();
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).replace('\0', " ");
    for process in fs::read_dir("/proc").expect("proc").flatten().map(|e| e.path()) {
        let (line, cgroup) = (read(&process.join("cmdline")), read(&process.join("cgroup")));
        let mounts = read(&process.join("mounts"));
        for (what, found) in [
            ("process", line.contains(dir)),
            ("cgroup of", cgroup.contains(name)),
            ("mount in", mounts.contains(dir)),
        ] {
            if found {
                left.push(format!("{what} {} {line}", process.display()));
            }
        }
    }
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|e| e.path().join(name));
    left.extend(hierarchies.filter(|path| path.exists()).map(|path| path.display().to_string()));
    if Path::new(dir).exists() {
        left.push(dir.to_owned());
    }
    if Path::new("/sys/class/net").join(bridge).exists() {
        left.push(format!("bridge {bridge}"));
    }
    left
}

#[tokio::test]
async fn nodes_live_side_by_side() {
    let node = async || {
        let node = Node::direct().binary(BINARY).start().await.expect("start");
        node.import(images().join("busybox.tar")).await.expect("import");
        node
    };
    let (one, two) = tokio::join!(node(), node());
    // The same name on both.
    let manifest = busybox("same", "exec sleep 100000");
    let (first, second) =
        (one.apply("same", &manifest).expect("apply"), two.apply("same", &manifest).expect("apply"));
    let (a, b) = tokio::join!(first.running(), second.running());
    let (a, b) = (a.expect("runs"), b.expect("runs"));
    assert_ne!(a[0].id, b[0].id);
    drop(one);
    assert_eq!(second.running().await.expect("still runs")[0].id, b[0].id);
}

#[tokio::test]
async fn a_missing_binary_is_said_so() {
    let error = Node::direct().binary("/no/such/podstead").start().await.expect_err("there is none");
    assert!(error.to_string().contains("/no/such/podstead"), "{error}");
}
