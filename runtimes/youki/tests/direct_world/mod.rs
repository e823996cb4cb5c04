//! A direct runtime for the tests of one test binary, in directories of its own; everything of it is taken away after
//! the binary has ended, however it ended.
#![allow(dead_code)]

pub mod pods;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podstead_runtime::suite::World;
use podstead_runtime::{PodUid, PullProgress, Runtime as _};
use podstead_youki::{Direct, DirectOptions};
use tokio::sync::OnceCell;

/// What `fixtures/images/build.sh` names the busybox image.
pub const BUSYBOX: &str = "localhost/podstead/busybox:1";

/// Makes this process use another test process's directory.
pub const DIRECTORY: &str = "PODSTEAD_YOUKI_TEST_DIRECTORY";

/// Where everything of this binary is.
pub fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY)
        .map_or_else(|| PathBuf::from(format!("/tmp/podstead-youki-{}", std::process::id())), PathBuf::from)
}

/// The cgroup below which its pods are.
pub fn cgroup() -> String {
    format!("/podstead-youki-test-{}", std::process::id())
}

/// Options of a runtime here, with a mark.
pub fn options(owner: &str) -> DirectOptions {
    DirectOptions {
        make: true,
        root: directory().join("root"),
        state_dir: directory().join("state"),
        cni_conf_dir: directory().join("net.d"),
        cni_bin_dirs: ["/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"].map(PathBuf::from).to_vec(),
        owner: owner.to_owned(),
        insecure_registries: Vec::new(),
        shim_exe: env!("CARGO_BIN_EXE_podstead-shim").into(),
    }
}

/// The runtime under test and a second one with another mark.
pub struct Libcontainer {
    pub ours: Direct,
    pub stranger: Direct,
}

impl World for Libcontainer {
    type Runtime = Direct;

    fn runtime(&self) -> &Direct {
        &self.ours
    }

    fn stranger(&self) -> Option<&Direct> {
        Some(&self.stranger)
    }

    fn image(&self) -> &str {
        BUSYBOX
    }

    fn logs(&self) -> PathBuf {
        let logs = directory().join("logs");
        std::fs::create_dir_all(&logs).expect("make the logs' directory");
        logs
    }

    fn cgroup_parent(&self, uid: &PodUid) -> String {
        format!("{}/pod{uid}", cgroup())
    }

    fn real(&self) -> bool {
        true
    }
}

impl Libcontainer {
    /// On directories that another process made and takes away.
    pub async fn existing() -> Self {
        let open = async |owner| Direct::open(options(owner)).await.expect("open the runtime");
        Self { ours: open("podstead").await, stranger: open("somebody-else").await }
    }
}

/// A runtime with the busybox image.
pub async fn world() -> Libcontainer {
    static READY: OnceCell<()> = OnceCell::const_new();
    let open =
        |owner: &'static str| async move { Direct::open(options(owner)).await.expect("open the runtime") };
    READY
        .get_or_init(|| async {
            clean_up_afterwards();
            let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/images/out/busybox.tar");
            network();
            let runtime = open("podstead").await;
            let imported = runtime.import_image(&archive, None, PullProgress::none()).await;
            imported.expect("the busybox image; these tests need root and `make images`");
        })
        .await;
    Libcontainer { ours: open("podstead").await, stranger: open("somebody-else").await }
}

/// A network for pods that want one of their own.
fn network() {
    let conf = directory().join("net.d");
    let leases = directory().join("leases");
    let leases = leases.display();
    let (second, third) = (std::process::id() % 64 + 192, std::process::id() / 64 % 256);
    let list = format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [{{"type": "ptp", "ipam": {{"type": "host-local",
            "dataDir": "{leases}", "ranges": [[{{"subnet": "10.{second}.{third}.0/24"}}]]}}}}]}}"#
    );
    std::fs::create_dir_all(&conf).expect("make the networks' directory");
    std::fs::write(conf.join("90-pods.conflist"), list).expect("write the network");
}

/// Leaves a process behind that waits for this one's end and then takes everything away.
#[allow(clippy::zombie_processes)] // it outlives us
fn clean_up_afterwards() {
    let watch = r#"while kill -0 "$1" 2>/dev/null; do sleep 0.2; done
        for i in 1 2 3 4 5; do
            find /sys/fs/cgroup -path "*$3/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -9
            pids=$(grep -la "container-shim.$2" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3)
            [ -n "$pids" ] || break; sleep 0.3; [ $i -lt 4 ] || kill -9 $pids
        done
        awk '{print $2}' /proc/self/mounts | grep "^$2/" | sort -r | xargs -r -n1 umount -l
        find /sys/fs/cgroup -depth -type d -path "*$3*" -exec rmdir {} + 2>/dev/null
        rm -rf "$2""#;
    let (directory, cgroup) = (directory(), cgroup());
    Command::new("sh")
        .args(["-c", watch, "sh", &std::process::id().to_string()])
        .arg(directory)
        .arg(cgroup)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start the process that cleans up");
}
