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

/// A containerd of one test, which may kill it; ended when dropped.
#[allow(dead_code)] // not every test binary has one
pub struct Server {
    /// Where everything of it is.
    pub directory: PathBuf,
    /// Its endpoint.
    pub endpoint: String,
}

#[allow(dead_code)] // not every test binary has one
impl Server {
    /// Starts it.
    pub fn start(directory: PathBuf) -> Self {
        let endpoint = start(&directory);
        Self { directory, endpoint }
    }

    /// SIGKILL; containers and their shims go on.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.directory.join("pid")).expect("its pid").trim().to_owned();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
        // Gone, or a zombie where nobody reaps.
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Starts it again in the same place after it was killed.
    pub fn start_again(&self) {
        let log = std::fs::File::options().append(true).open(self.directory.join("containerd.log"));
        let log = log.expect("its log");
        let config = self.directory.join("config.toml");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.process_group(0).spawn().expect("start containerd");
        std::fs::write(self.directory.join("pid"), child.id().to_string()).expect("write its pid");
        std::thread::spawn(move || child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(&self.directory).status();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
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
