//! What every end-to-end test needs: the images, a node on either backend, one page over HTTP.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use podstead::testing::{Builder, Node};
use podstead_runtime::{ImageSpec, Runtime};

/// Makes one test of each case on each backend: `on_both!(case, case)`, a case being `async fn(&Host)`.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod direct {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::Host::direct()).await;
            })*
        }
        mod containerd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&crate::support::Host::containerd()).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// The podstead binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_podstead");

/// A host with one backend: nodes are made on it.
pub struct Host {
    containerd: Option<Containerd>,
}

impl Host {
    pub fn direct() -> Self {
        Self { containerd: None }
    }

    pub fn containerd() -> Self {
        Self { containerd: Some(Containerd::start(&[])) }
    }

    /// With the images of this directory besides the test images.
    pub fn containerd_with_images(dir: &Path) -> Self {
        Self { containerd: Some(Containerd::start(&[("MORE_IMAGES", dir.as_os_str())])) }
    }

    /// Its containers' cgroups are systemd's.
    pub fn containerd_with_systemd() -> Self {
        Self { containerd: Some(Containerd::start(&[("SYSTEMD_CGROUP", "1".as_ref())])) }
    }

    /// Where the CRI server listens, if there is one.
    pub fn endpoint(&self) -> Option<&str> {
        self.containerd.as_ref().map(|server| server.endpoint.as_str())
    }

    /// Brings an archive with an image of this name into the node's runtime, and waits until that knows it.
    pub async fn import(&self, node: &Node, archive: &Path, name: &str) {
        let Some(endpoint) = self.endpoint() else {
            node.import(archive).await.expect("import an image");
            return;
        };
        let socket = endpoint.trim_start_matches("unix://");
        let args = ["--address", socket, "--namespace", "k8s.io", "images", "import"];
        let done = Command::new("ctr").args(args).arg(archive).output().expect("run ctr");
        assert!(done.status.success(), "ctr images import: {done:?}");
        let image = ImageSpec::from(name);
        for _ in 0..200 {
            if node.runtime().image(&image).await.is_ok_and(|found| found.is_some()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} does not arrive");
    }

    /// Has a CRI server take this configuration before its own; the direct runtime is given it by [`Builder::cni_conf_dir`].
    pub fn take_network(&self, list: &str) {
        let Some(server) = &self.containerd else { return };
        let dir = server.dir.path().join("cni/net.d");
        std::fs::write(dir.join("new"), list).expect("write");
        std::fs::rename(dir.join("new"), dir.join("00-first.conflist")).expect("rename");
        // It watches the directory and does not say when it has read it.
        std::thread::sleep(Duration::from_secs(1));
    }

    pub fn builder(&self) -> Builder {
        match &self.containerd {
            Some(server) => Node::cri(&server.endpoint),
            None => Node::direct().binary(BINARY),
        }
    }

    /// A node with an agent and the test images.
    pub async fn node(&self) -> Node {
        self.started(self.builder()).await
    }

    /// A node made by this builder, with an agent and the test images.
    pub async fn started(&self, builder: Builder) -> Node {
        with_images(builder.start().await.expect("start the node")).await
    }

    /// A node without an agent.
    pub async fn bare_node(&self) -> Node {
        with_images(self.builder().prepare().await.expect("prepare the node")).await
    }
}

/// Imports the test images.
pub async fn with_images(node: Node) -> Node {
    for name in ["busybox", "nginx"] {
        node.import(images().join(format!("{name}.tar"))).await.expect("import an image");
    }
    node
}

/// The directory of the test images, which are built when they are missing.
pub fn images() -> &'static Path {
    static IMAGES: OnceLock<PathBuf> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = root.join("fixtures/images/out");
        let mut build = Command::new(root.join("fixtures/images/build.sh"));
        build.arg(&out).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let built = build.status().is_ok_and(|status| status.success());
        // In a read-only checkout they must be there already.
        assert!(built || out.join("busybox.tar").exists(), "build the test images");
        out
    })
}

/// One of the scripts in `tests/support`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name)
}

/// A private containerd with the test images; ended when dropped.
pub struct Containerd {
    dir: tempfile::TempDir,
    endpoint: String,
}

impl Containerd {
    fn script(command: &str, dir: &Path, settings: &[(&str, &OsStr)]) -> std::process::Output {
        let mut run = Command::new(script("containerd.sh"));
        run.arg(command).arg(dir).env("IMAGES", images()).envs(settings.iter().copied());
        run.output().expect("run containerd.sh")
    }

    fn start(settings: &[(&str, &OsStr)]) -> Self {
        let dir = tempfile::Builder::new().prefix("ctrd").tempdir().expect("a directory");
        let output = Self::script("start", dir.path(), settings);
        let endpoint =
            String::from_utf8_lossy(&output.stdout).trim().lines().last().unwrap_or_default().to_owned();
        assert!(
            output.status.success() && endpoint.starts_with("unix://"),
            "containerd.sh start: {output:?}"
        );
        Self { dir, endpoint }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let output = Self::script("stop", self.dir.path(), &[]);
        if !output.status.success() {
            eprintln!("containerd.sh stop: {output:?}");
        }
    }
}

/// A registry on loopback with the test images; ended when dropped.
pub struct Registry {
    dir: tempfile::TempDir,
    /// `host:port`.
    pub host: String,
}

impl Registry {
    fn script(command: &str, dir: &Path, password: bool) -> std::process::Output {
        let mut run = Command::new(script("registry.sh"));
        run.arg(command).arg(dir).env("IMAGES", images());
        if password {
            run.env("PASSWORD", "1");
        }
        run.output().expect("run registry.sh")
    }

    /// Open to all, or to user `web` with password `secret` only. `None`, and a word about it, where there is no
    /// registry to be had.
    pub fn start(password: bool) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("reg").tempdir().expect("a directory");
        let output = Self::script("start", dir.path(), password);
        if output.status.code() == Some(77) {
            skipped("it needs a registry (docker-registry, registry), which this machine has not");
            return None;
        }
        assert!(output.status.success(), "registry.sh start: {output:?}");
        let port = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Some(Self { dir, host: format!("127.0.0.1:{port}") })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        Self::script("stop", self.dir.path(), false);
    }
}

/// One page over plain HTTP, or why not.
pub fn get(ip: IpAddr, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(ip, port).into(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Runs the binary with the node's runtime flags and answers what it printed.
pub fn podstead(node: &Node, args: &[&str]) -> String {
    let output = Command::new(BINARY).args(args).args(node.runtime_flags()).output().expect("run podstead");
    assert!(output.status.success(), "podstead {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A pod's manifest on the node's network with one busybox container.
pub fn busybox(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  hostNetwork: true\n  \
         terminationGracePeriodSeconds: 2\n  containers:\n  - name: c\n    image: localhost/podstead/busybox:1\n    \
         command: [/bin/sh, -c]\n    args:\n    - |\n      {}\n",
        script.replace('\n', "\n      ")
    )
}

/// Says why the calling test proves nothing here, also where the output of tests is kept back.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
