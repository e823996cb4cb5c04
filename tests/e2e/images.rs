//! Images by the command line: real pulls from a real registry, imports of what other tools made, kills on the way.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use podstead::testing::Node;

use crate::cli::{command, fails, ok, run, told};
use crate::support::{Host, Registry, busybox, images, on_both};

on_both!(
    an_image_is_pulled_listed_run_and_removed,
    a_refused_login_and_a_wrong_tag_are_told_apart,
    a_terminal_gets_bars,
);

/// A node whose runtime may speak plain http to the registry, as containerd does to loopback by itself.
async fn node(host: &Host, registry: &Registry) -> Node {
    host.builder().insecure_registry(&registry.host).prepare().await.expect("prepare the node")
}

fn digest(registry: &Registry) -> String {
    let image = format!("docker://{}/podstead/busybox:1", registry.host);
    let args = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &image];
    let output = Command::new("skopeo").args(args).output().expect("skopeo");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn an_image_is_pulled_listed_run_and_removed(host: &Host) {
    let Some(registry) = Registry::start(false) else { return };
    let mut node = node(host, &registry).await;
    let repository = format!("{}/podstead/busybox", registry.host);
    let tagged = format!("{repository}:1");
    let (code, out, err) = run(&node, &["images", "pull", &tagged]);
    assert_eq!(code, 0, "{err}");
    let id = out.trim().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "only the id on standard output: {out}");
    // What goes on is said in lines, without escapes, to standard error.
    assert!(err.lines().count() >= 2 && !err.contains('\x1b') && !err.contains('\r'), "{err:?}");
    assert!(
        err.lines().any(|l| l.contains(": downloading")) && err.lines().any(|l| l.contains(": done")),
        "{err}"
    );

    let table = ok(&node, &["images", "ls"]);
    assert!(table.starts_with("IMAGE"), "{table}");
    let row = table.lines().find(|l| l.starts_with(&format!("{repository} "))).expect("listed");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[2]), ("1", &id["sha256:".len()..][..13]), "{row}");
    assert!(cells[3].ends_with("MB"), "{row}");

    let by_digest = format!("{repository}@{}", digest(&registry));
    assert_eq!(ok(&node, &["images", "pull", &by_digest]).trim(), id, "by digest it is the same image");
    let wrong = format!("{repository}@sha256:{}", "0".repeat(64));
    fails_after_lines(&node, 3, &wrong);
    // Several at once, and what is there already.
    let nginx = format!("{}/podstead/nginx:1", registry.host);
    assert_eq!(ok(&node, &["images", "pull", &tagged, &nginx]).lines().count(), 2);
    let list: serde_json::Value =
        serde_json::from_str(&ok(&node, &["images", "ls", "-o", "json"])).expect("JSON");
    let listed =
        list["images"].as_array().expect("a list").iter().find(|i| i["id"] == id.as_str()).expect("listed");
    assert!(listed["repo_tags"].as_array().expect("tags").contains(&tagged.as_str().into()), "{listed}");

    // The agent takes the image that is there; and pulls one that is not, the first time.
    node.restart_agent().await.expect("start an agent");
    let from =
        |image: &str| busybox("pulled", "exec sleep 1000").replace("localhost/podstead/busybox:1", image);
    let pod = node.apply("pulled", &from(&tagged)).expect("apply");
    pod.running().await.expect("runs");
    let used = run(&node, &["images", "rm", &tagged]);
    node.remove("pulled").expect("remove");
    pod.gone().await.expect("gone");
    if used.0 != 0 {
        assert!(used.2.contains("in use"), "{used:?}");
    }
    for name in [&tagged, &by_digest, &nginx] {
        let (code, _, err) = run(&node, &["images", "rm", name]);
        assert!(code == 0 || (code == 3 && err.contains("no image")), "{name}: {err}");
    }
    assert!(!ok(&node, &["images", "ls"]).contains(&repository));
    let pod = node.apply("pulled", &from(&tagged)).expect("apply");
    pod.running().await.expect("the agent pulls by itself");
}

/// The complaint comes last, after what was going on.
fn fails_after_lines(node: &Node, code: i32, image: &str) -> String {
    pull_fails(command(node, &["images", "pull", image]), code)
}

fn pull_fails(mut command: Command, code: i32) -> String {
    let (got, out, err) = told(command.output().expect("run podstead"));
    assert_eq!((got, &*out), (code, ""), "{err}");
    let last = err.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("podstead: pull image "), "{err}");
    last
}

async fn a_refused_login_and_a_wrong_tag_are_told_apart(host: &Host) {
    let Some(registry) = Registry::start(true) else { return };
    let node = node(host, &registry).await;
    let tagged = format!("{}/podstead/busybox:1", registry.host);
    let with = |image: &str, creds: &str| command(&node, &["images", "pull", "--creds", creds, image]);
    for refused in [fails_after_lines(&node, 6, &tagged), pull_fails(with(&tagged, "web:hunter2"), 6)] {
        assert!(refused.contains(&tagged) && refused.contains("denied"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    let wrong = pull_fails(with(&tagged.replace("busybox:1", "busybox:2"), "web:secret"), 3);
    assert!(wrong.contains("not found") || wrong.contains("does not exist"), "{wrong}");
    let mut login = command(&node, &["images", "pull", &tagged]);
    let output = login.env("PODSTEAD_CREDS", "web:secret").output().expect("run podstead");
    assert_eq!(told(output).0, 0, "the credentials of the environment are taken");
    let nobody = format!("127.0.0.1:1{}", &tagged[tagged.find("/podstead").expect("a path")..]);
    let away = fails_after_lines(&node, 1, &nobody);
    assert!(away.contains("127.0.0.1:1"), "{away}");
    fails_after_lines(&node, 2, "localhost/UPPER CASE");
}

async fn a_terminal_gets_bars(host: &Host) {
    let Some(registry) = Registry::start(false) else { return };
    let node = node(host, &registry).await;
    let nginx = format!("{}/podstead/nginx:1", registry.host);
    let shown = |variable: &str, value: &str, args: &str| {
        let flags = node.runtime_flags().join(" ");
        let line = format!("{} {flags} {args}", crate::support::BINARY);
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .env(variable, value);
        let output = script.stdin(Stdio::null()).output().expect("script");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, plain) = shown("NO_COLOR", "1", &format!("images pull {nginx}"));
    assert!(code == Some(0) && !plain.contains('\x1b') && plain.contains(": downloading"), "{plain:?}");
    run(&node, &["images", "rm", &nginx]);
    let (code, bars) = shown("X", "", &format!("images pull {nginx}"));
    assert!(code == Some(0) && bars.contains('\x1b') && bars.contains("sha256:"), "{bars:?}");
    assert!(shown("X", "", "images ls").1.contains("\x1b[1m"), "the heading is bold");
    assert!(!shown("NO_COLOR", "1", "images ls").1.contains('\x1b'));
}

fn skopeo(from: &str, to: &str) {
    let args = ["copy", "-q", "--insecure-policy", from, to];
    let output = Command::new("skopeo").args(args).output().expect("skopeo");
    assert!(output.status.success(), "{output:?}");
}

fn archive() -> String {
    format!("oci-archive:{}", images().join("nginx.tar").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_other_tools_write_is_imported() {
    let node = Host::direct().builder().prepare().await.expect("prepare the node");
    let dir = node.dir().join("made");
    std::fs::create_dir(&dir).expect("mkdir");
    let at = |name: &str| dir.join(name).display().to_string();
    skopeo(&archive(), &format!("oci:{}:localhost/form/layout:1", at("layout")));
    skopeo(&archive(), &format!("oci-archive:{}:localhost/form/oci:1", at("oci.tar")));
    // A docker archive holds no zstd layers.
    let busybox = archive().replace("nginx", "busybox");
    skopeo(&busybox, &format!("docker-archive:{}:localhost/form/docker:1", at("docker.tar")));
    let printed = ok(&node, &["images", "import", &at("layout"), &at("oci.tar"), &at("docker.tar")]);
    assert_eq!(printed, "localhost/form/layout:1\nlocalhost/form/oci:1\nlocalhost/form/docker:1\n");
    assert_eq!(
        ok(&node, &["images", "import", "--name", "localhost/form/named:7", &at("oci.tar")]),
        "localhost/form/named:7\n"
    );
    let table = ok(&node, &["images", "ls"]);
    for name in ["layout", "oci", "docker", "named"] {
        assert!(table.contains(&format!("localhost/form/{name} ")), "{name} in\n{table}");
    }
    assert!(fails(&node, 3, &["images", "import", &at("none.tar")]).contains("none.tar"));
    std::fs::write(dir.join("text"), "no archive").expect("write");
    assert!(fails(&node, 1, &["images", "import", &at("text")]).contains("text"));
    // A whole image cut short is refused, and nothing of it stays.
    let bytes = std::fs::read(dir.join("oci.tar")).expect("read");
    std::fs::write(dir.join("cut.tar"), &bytes[..bytes.len() / 2]).expect("write");
    fails_last(&node, &["images", "import", "--name", "localhost/form/cut:1", &at("cut.tar")]);
    assert!(!ok(&node, &["images", "ls"]).contains("form/cut"));
}

fn fails_last(node: &Node, args: &[&str]) {
    let (code, _, err) = run(node, args);
    assert!(code == 1 && err.lines().last().is_some_and(|l| l.starts_with("podstead: ")), "{code}: {err}");
}

/// Everything under a directory, as paths.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries
        .flat_map(|p| if p.is_dir() && !p.is_symlink() { [below(&p), vec![p]].concat() } else { vec![p] })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_imports_and_pulls_leave_nothing() {
    let Some(registry) = Registry::start(false) else { return };
    let node = node(&Host::direct(), &registry).await;
    let big = node.dir().join("big");
    std::fs::create_dir(&big).expect("mkdir");
    // Large enough that a kill finds work going on.
    skopeo(&archive(), &format!("oci:{}:1", big.display()));
    let noise = node.dir().join("noise");
    std::fs::write(&noise, pseudo_random(24 << 20)).expect("write");
    let image = format!("{}:1", big.display());
    let umoci = Command::new("umoci").args(["insert", "--image", &image]).arg(&noise).arg("/noise").output();
    assert!(umoci.expect("umoci").status.success());
    let name = format!("{}/podstead/big:1", registry.host);
    let push = ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", &format!("oci:{image}")];
    let pushed = Command::new("skopeo").args(push).arg(format!("docker://{name}")).output().expect("skopeo");
    assert!(pushed.status.success(), "{pushed:?}");

    let import = ["images", "import", "--name", "localhost/big:1", big.to_str().expect("UTF-8")];
    let pull = ["images", "pull", &name];
    let work = node.dir().join("root/direct/images/tmp");
    let mut torn = 0;
    for n in 0..20_u64 {
        let args = if n % 2 == 0 { &import[..] } else { &pull[..] };
        let child = command(&node, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("start");
        // Once it works on something, and a moment that is another one each time.
        while below(&work).len() <= 1 && child.try_wait().expect("wait").is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let salt = u64::from(std::process::id()).wrapping_mul(n * 2_654_435_761 + 1) % 350;
        tokio::time::sleep(Duration::from_millis(if n < 4 { 0 } else { salt })).await;
        child.kill().expect("SIGKILL");
        child.wait().expect("wait");
        torn += usize::from(below(&work).len() > 1);
        for image in ["localhost/big:1", &name] {
            run(&node, &["images", "rm", image]);
        }
    }
    assert!(torn > 0, "the kills came while something was going on: {torn} of 20");
    ok(&node, &import);
    ok(&node, &pull);
    // The node's own store is open in this process: one empty directory is its.
    let left = below(&work);
    assert!(left.len() <= 1, "{left:?}");
    assert!(ok(&node, &["images", "ls"]).contains("localhost/big "));
}

fn pseudo_random(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all
}

/// An attribute for people, and the capability to open raw sockets as the kernel keeps it.
const ATTRIBUTES: [(&str, &[u8]); 2] = [
    ("user.podstead", b"yes"),
    ("security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
];

/// Two layouts of one image, gzip and zstd: busybox with everything a layer may hold, and a layer that takes away.
fn rich(dir: &Path) -> String {
    let sh = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().expect("sh");
        assert!(output.status.success(), "{script}: {output:?}");
    };
    let busybox = archive().replace("nginx", "busybox");
    skopeo(&busybox, &format!("oci:{}:1", dir.join("rich").display()));
    sh("umoci unpack --image rich:1 one
        cd one/rootfs
        mkdir -p rich/gone rich/opaque rich/kept
        echo first > rich/file; ln rich/file rich/hard; ln -s ../rich/file rich/soft
        echo x > rich/gone/inner; echo x > rich/opaque/old; echo x > rich/removed
        chown 1000:2001 rich/file; chmod 4751 rich/file
        mknod rich/null c 1 3; chmod 666 rich/null; mkfifo rich/pipe
        echo attr > rich/attr
        touch -d '2001-02-03 04:05:06 UTC' rich/kept");
    let attr = dir.join("one/rootfs/rich/attr");
    for (name, value) in ATTRIBUTES {
        rustix::fs::setxattr(&attr, name, value, rustix::fs::XattrFlags::empty()).expect("set an attribute");
    }
    sh("umoci repack --image rich:1 one");
    sh("umoci unpack --image rich:1 two
        cd two/rootfs
        rm -r rich/gone rich/removed rich/opaque; mkdir rich/opaque; echo new > rich/opaque/new
        cd ../..; umoci repack --image rich:1 two; rm -rf one two");
    // Again with zstd, which umoci does not write. Only layers that are not compressed are compressed by skopeo.
    let at = |kind: &str, name: &str| format!("{kind}:{}", dir.join(name).display());
    let copy = |args: &[&str]| {
        let output = Command::new("skopeo").args(["copy", "-q", "--insecure-policy"]).args(args).output();
        assert!(output.as_ref().is_ok_and(|o| o.status.success()), "{output:?}");
    };
    copy(&["--dest-decompress", &at("oci", "rich:1"), &at("dir", "plain")]);
    copy(&["--dest-compress-format", "zstd", &at("dir", "plain"), &format!("{}:1", at("oci", "zstd"))]);
    let blobs = std::fs::read_dir(dir.join("zstd/blobs/sha256")).expect("list").flatten();
    let zstd =
        |path: PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    assert!(blobs.filter(|blob| zstd(blob.path())).count() >= 3, "its layers are zstd");
    dir.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_all_that_the_layers_hold() {
    let node = Host::direct().builder().start().await.expect("start the node");
    let made = tempfile::tempdir().expect("a directory");
    let dir = rich(made.path());
    for kind in ["rich", "zstd"] {
        let name = format!("localhost/rich/{kind}:1");
        ok(&node, &["images", "import", "--name", &name, &format!("{dir}/{kind}")]);
        let look = "cd /rich; stat -c '%n %u:%g %a %h %F' file hard null pipe; readlink soft; cat soft\n\
                    ls -d gone removed opaque/* 2>/dev/null; stat -c '%Y' kept; stat -c '%t:%T' null; exec sleep 1000";
        let manifest = busybox(kind, look).replace("localhost/podstead/busybox:1", &name);
        let pod = node.apply(kind, &manifest).expect("apply");
        let log = pod.logged("c", |log| log.contains("1:3")).await.expect("it looks");
        let wanted = "file 1000:2001 4751 2 regular file\nhard 1000:2001 4751 2 regular file\n\
                      null 0:0 666 1 character special file\npipe 0:0 644 1 fifo\n../rich/file\nfirst\nopaque/new\n981173106\n1:3\n";
        assert_eq!(log, wanted, "{kind}");
        // busybox shows no extended attributes; the mount that the container's processes see does.
        let pid = pod.container("c").await.expect("seen").pid;
        for (name, value) in ATTRIBUTES {
            let mut bytes = [0; 64];
            let got = rustix::fs::getxattr(format!("/proc/{pid}/root/rich/attr"), name, &mut bytes);
            assert_eq!(&bytes[..got.expect(name)], value, "{name}");
        }
    }
}
