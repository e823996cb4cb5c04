//! Images made with umoci, moved with skopeo, served by a registry (Debian: docker-registry; elsewhere: registry).
#![allow(dead_code, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An OCI layout with two images: `app:1` for this machine, `app:arm` for another.
pub struct Layout {
    pub dir: tempfile::TempDir,
}

impl Layout {
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("layout")
    }

    pub fn spec(&self, tag: &str) -> String {
        format!("{}:{tag}", self.path().display())
    }

    /// Adds a layer with this file, or with `None` a whiteout.
    pub fn insert(&self, tag: &str, target: &str, content: Option<&[u8]>) {
        let spec = self.spec(tag);
        match content {
            Some(bytes) => {
                let file = self.dir.path().join("content");
                std::fs::write(&file, bytes).unwrap();
                run("umoci", &["insert", "--rootless", "--image", &spec, file.to_str().unwrap(), target]);
            }
            None => run("umoci", &["insert", "--rootless", "--image", &spec, "--whiteout", target]),
        }
    }

    pub fn new_image(&self, tag: &str) {
        run("umoci", &["new", "--image", &self.spec(tag)]);
    }

    pub fn config(&self, tag: &str, args: &[&str]) {
        let spec = self.spec(tag);
        let args = [&["config", "--image", &spec], args].concat();
        run("umoci", &args);
    }

    pub fn build() -> Self {
        let layout = Self { dir: tempfile::tempdir().unwrap() };
        run("umoci", &["init", "--layout", layout.path().to_str().unwrap()]);
        layout.new_image("1");
        layout.insert("1", "/etc/motd", Some(b"hello"));
        layout.insert("1", "/usr/share/old", Some(b"old"));
        layout.insert("1", "/usr/share/old", None);
        layout.config(
            "1",
            &[
                "--config.user=web:log",
                "--config.env=A=1",
                "--config.entrypoint=/bin/app",
                "--config.cmd=serve",
                "--config.workingdir=/srv",
                "--config.stopsignal=SIGQUIT",
                "--config.volume=/data",
                "--config.exposedports=80/tcp",
                "--config.label=org.example=yes",
                "--architecture",
                go_arch(),
            ],
        );
        layout.new_image("arm");
        layout.insert("arm", "/etc/motd", Some(b"other machine"));
        layout.config("arm", &["--architecture", "riscv64"]);
        layout
    }
}

pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A running registry.
pub struct Registry {
    child: Child,
    pub dir: tempfile::TempDir,
    pub host: String,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    /// User `web`, password `secret`.
    Password,
    Tls,
}

impl Registry {
    /// `None`, and a word about it, where there is no registry to be had.
    pub fn start(kind: Kind) -> Option<Self> {
        let Some(program) = program() else {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            // Past the capture of tests' output.
            let why = "it needs a registry (docker-registry, registry), which this machine has not";
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
            return None;
        };
        // Between the choice of a port and its use another may take it: ours ends then, and the next is tried.
        let started = (0..10).find_map(|_| Self::try_start(&program, kind));
        Some(started.expect("the registry starts"))
    }

    fn try_start(program: &Path, kind: Kind) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
            at("data")
        );
        if kind == Kind::Password {
            // bcrypt of "secret".
            let line = "web:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
            std::fs::write(at("htpasswd"), line).unwrap();
            writeln!(config, "auth: {{htpasswd: {{realm: test, path: {}}}}}", at("htpasswd")).unwrap();
        }
        writeln!(config, "http:\n  addr: 127.0.0.1:{port}").unwrap();
        if kind == Kind::Tls {
            let (cert, key) = (at("cert.pem"), at("key.pem"));
            let args = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext \
                        subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
                        -keyout";
            let mut args: Vec<&str> = args.split_whitespace().collect();
            args.extend([key.as_str(), "-out", &cert]);
            run("openssl", &args);
            writeln!(config, "  tls: {{certificate: {cert}, key: {key}}}").unwrap();
        }
        std::fs::write(at("config.yml"), config).unwrap();
        let child = Command::new(program)
            .args(["serve", &at("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, host: format!("127.0.0.1:{port}"), dir };
        let start = Instant::now();
        while !listens(registry.child.id(), port) {
            if registry.child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub fn push(&self, layout: &Layout, tag: &str, name: &str) {
        let (from, to) = (format!("oci:{}", layout.spec(tag)), format!("docker://{}/{name}", self.host));
        run("skopeo", &["copy", "-q", "--dest-creds=web:secret", "--dest-tls-verify=false", &from, &to]);
    }

    /// Where the registry keeps a blob.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The registry's executable, by either of its names.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let named = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    named("docker-registry").or_else(|| named("registry"))
}

/// Whether this very process listens on the port: another's server would answer as well.
fn listens(pid: u32, port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let listening = format!(":{port:04X} 00000000:0000 0A");
    let socket = table.lines().find(|l| l.contains(&listening)).and_then(|l| l.split_whitespace().nth(9));
    let Some(socket) = socket.map(|inode| format!("socket:[{inode}]")) else { return false };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == socket.as_str())
}

/// A registry that answers as it is told: path to status line, headers and body.
pub struct Liar {
    pub host: String,
}

pub type Answer = (&'static str, Vec<String>, Vec<u8>);

impl Liar {
    /// With `endless`, a body is followed by zeros until the client hangs up.
    pub fn start(endless: bool, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, endless, &answer);
            }
        });
        Self { host }
    }
}

fn serve(mut stream: TcpStream, endless: bool, answer: &dyn Fn(&str) -> Answer) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    for line in lines {
        if line.is_ok_and(|l| l.is_empty()) {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, headers, body) = answer(path);
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for header in headers {
        write!(head, "{header}\r\n").unwrap();
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(&body);
    while endless && status.starts_with("200") && stream.write_all(&vec![0; 65536]).is_ok() {}
}

/// What overlayfs would show: the topmost layer that says something about the path.
pub fn merged(layers: &[PathBuf], path: &str) -> Option<Vec<u8>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    for layer in layers {
        let file = layer.join(path);
        if let Ok(meta) = std::fs::symlink_metadata(&file) {
            let gone = meta.file_type().is_char_device() && meta.rdev() == 0;
            return if gone { None } else { Some(std::fs::read(file).unwrap()) };
        }
    }
    None
}

/// Names below a directory, one level.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
