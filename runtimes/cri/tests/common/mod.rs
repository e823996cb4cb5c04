//! A private containerd for the tests of one test binary: started at the first use, ended after the binary has,
//! however it ended.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What `fixtures/images/build.sh` names the busybox image.
pub const BUSYBOX: &str = "localhost/podstead/busybox:1";

/// Where this binary's containerd and its logs are.
pub fn directory() -> PathBuf {
    // Short: socket paths end at 107 bytes.
    PathBuf::from(format!("/tmp/pcri{}", std::process::id()))
}

/// The cgroup below which the tests' pods are.
pub fn cgroup() -> String {
    format!("/podstead-cri-test-{}", std::process::id())
}

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/support/containerd.sh")
}

/// The endpoint of a running containerd.
pub fn containerd() -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        clean_up_afterwards();
        start(&directory())
    })
}

/// Starts a containerd in a directory.
pub fn start(directory: &Path) -> String {
    let output = Command::new(script())
        .arg("start")
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .expect("run tests/support/containerd.sh");
    assert!(
        output.status.success(),
        "no containerd (these tests need root and the packages of `make deps`): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("an endpoint").trim().to_owned()
}

/// Leaves a process behind that waits for this one's end and then takes everything away.
#[allow(clippy::zombie_processes)] // it outlives us
fn clean_up_afterwards() {
    let watch = r#"while kill -0 "$1" 2>/dev/null; do sleep 0.2; done
        "$2" stop "$3"; rm -rf "$3"
        find /sys/fs/cgroup -depth -type d -path "*$4*" -exec rmdir {} + 2>/dev/null"#;
    Command::new("sh")
        .args(["-c", watch, "sh", &std::process::id().to_string()])
        .arg(script())
        .arg(directory())
        .arg(cgroup())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start the process that cleans up");
}
