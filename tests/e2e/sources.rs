//! Manifests that are written, broken, moved, masked and fetched, under a real agent on libcontainer: a healthy container
//! keeps its process, or is replaced exactly once. Where manifests come from is the same for every runtime.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use podstead::manifest::{FileReport, FileState, UrlConfig};
use podstead::testing::Node;
use podstead_runtime::{Container, ContainerId, Runtime};
use serde_json::Value;

use crate::cli::{fails, ok};
use crate::support::{Host, busybox};
use crate::web::{Reply, Tls, Web};

/// A pod in this version, every instance of which leaves a mark beside the manifests.
fn marked(node: &Node, name: &str, version: u32) -> String {
    let marks = node.dir().join("marks");
    fs::create_dir_all(&marks).expect("mkdir");
    let script = format!("mktemp /marks/{name}.XXXXXX\nexec sleep {}", 100_000 + version);
    let volume =
        format!("  volumes: [{{name: marks, hostPath: {{path: {}}}}}]\n  containers:", marks.display());
    let mount = "    volumeMounts: [{name: marks, mountPath: /marks}]\n    command:";
    busybox(name, &script).replace("  containers:", &volume).replace("    command:", mount)
}

/// How many instances of it there ever were.
fn instances(node: &Node, name: &str) -> usize {
    let marks = fs::read_dir(node.dir().join("marks")).expect("marks").flatten();
    marks.filter(|mark| mark.file_name().to_string_lossy().starts_with(&format!("{name}."))).count()
}

fn is_version(container: &Container, version: u32) -> bool {
    let path = format!("/proc/{}/cmdline", container.pid);
    let words = fs::read(path).unwrap_or_default();
    container.is_running() && words.ends_with(format!("\0{}\0", 100_000 + version).as_bytes())
}

/// Waits until the agent has done all that its sources say now.
async fn settled(node: &Node) {
    // Longer than a file must rest, and than one must be gone.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut view = node.view().expect("an agent");
    let calm = view.wait_for(|view| view.plan.is_quiet());
    tokio::time::timeout(Duration::from_secs(30), calm).await.expect("calm").expect("a loop");
}

/// A pod under test: its process, and how often one was started.
struct Watched<'n> {
    node: &'n Node,
    name: &'static str,
    now: Container,
    starts: usize,
}

impl<'n> Watched<'n> {
    async fn new(node: &'n Node, name: &'static str, version: u32) -> Self {
        let now = Self::running(node, name, version, None, "the first").await;
        Self { node, name, now, starts: 1 }
    }

    /// Waits until the pod runs in this version, in another container than this one.
    async fn running(
        node: &Node,
        name: &str,
        version: u32,
        not: Option<&ContainerId>,
        what: &str,
    ) -> Container {
        let (pod, what) = (node.pod(name), format!("{what}: version {version}"));
        let fits = |c: &&Container| is_version(c, version) && Some(&c.id) != not;
        let found = pod.until(&what, |_, containers| containers.iter().find(fits).cloned());
        found.await.expect("the pod in this version")
    }

    /// It is the very same process.
    async fn kept(&self, what: &str) {
        settled(self.node).await;
        let now = self.node.pod(self.name).running().await.expect("running").remove(0);
        let seen = (&now.id, now.pid, instances(self.node, self.name));
        assert_eq!(seen, (&self.now.id, self.now.pid, self.starts), "{what}");
    }

    /// It is replaced by this version, with one start and no more.
    async fn replaced(&mut self, version: u32, what: &str) {
        self.now = Self::running(self.node, self.name, version, Some(&self.now.id), what).await;
        self.starts += 1;
        self.kept(what).await;
    }
}

fn sh(directory: &Path, script: &str) {
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(directory).status().expect("sh");
    assert!(status.success(), "{script}");
}

/// Waits until a file's condition is as wanted.
async fn condition(node: &Node, file: &Path, what: &str, wanted: impl Fn(&FileReport) -> bool) {
    let mut manifests = node.manifests().expect("an agent");
    let seen = manifests.wait_for(|table| table.files.iter().any(|f| f.path == *file && wanted(f)));
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await.is_ok();
    assert!(seen, "not seen: {what}: {:#?}", node.files());
}

fn is_kept(file: &FileReport) -> bool {
    matches!(file.state, FileState::KeptLastGood { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_to_its_file_a_healthy_pod_stays_or_is_replaced_once() {
    // Looked at all the time, so that every half-way state is seen.
    let often = Duration::from_millis(100);
    let builder = Host::direct().builder().config(move |config| config.sources.file_check_frequency = often);
    let node = Host::direct().started(builder).await;
    let dir = node.manifest("x").parent().expect("a directory").to_path_buf();
    let file = node.manifest("a");
    let version = |version| marked(&node, "a", version);
    node.apply("a", &version(0)).expect("apply");
    let mut pod = Watched::new(&node, "a", 0).await;

    // Written byte by byte: after the first digits every part is a whole manifest with another meaning.
    let text = version(1);
    let mut writer = File::options().write(true).truncate(true).open(&file).expect("open");
    let (most, end) = text.split_at(text.len() - 6);
    writer.write_all(most.as_bytes()).expect("write");
    for byte in end.bytes() {
        tokio::time::sleep(Duration::from_millis(400)).await;
        writer.write_all(&[byte]).expect("write");
        assert_eq!(instances(&node, "a"), 1, "acted on a part");
    }
    drop(writer);
    pod.replaced(1, "byte by byte").await;

    // vim with a backup, sed, cp, and what rsync and rpm do: a hidden or named temporary file renamed over it.
    fs::write(dir.join("4913"), "").expect("write");
    fs::remove_file(dir.join("4913")).expect("remove");
    fs::rename(&file, dir.join("a.yaml~")).expect("rename");
    tokio::time::sleep(Duration::from_millis(50)).await;
    fs::write(&file, version(2)).expect("write");
    pod.replaced(2, "vim").await;
    fs::remove_file(dir.join("a.yaml~")).expect("remove");
    pod.kept("the backup goes").await;
    sh(&dir, "sed -i s/100002/100003/ a.yaml");
    pod.replaced(3, "sed -i").await;
    let new = node.dir().join("new.yaml");
    fs::write(&new, version(4)).expect("write");
    sh(&dir, "cp ../new.yaml a.yaml");
    pod.replaced(4, "cp").await;
    sh(
        &dir,
        "cp ../new.yaml a.yaml; touch a.yaml; chmod 600 a.yaml; cp -p a.yaml a.yaml.bak; mv a.yaml.bak a.yaml",
    );
    pod.kept("the same again, in every way").await;
    fs::write(&new, version(5)).expect("write");
    sh(&dir, "cp ../new.yaml .a.yaml.Xk3d9Q; mv .a.yaml.Xk3d9Q a.yaml");
    pod.replaced(5, "rsync").await;
    fs::write(&new, version(6)).expect("write");
    sh(&dir, "cp ../new.yaml 'a.yaml;5f1c2a77'; mv 'a.yaml;5f1c2a77' a.yaml");
    pod.replaced(6, "rpm").await;
    sh(&dir, "cp a.yaml a.yaml.rpmsave; cp a.yaml a.yaml.orig; rm a.yaml.rpmsave");
    pod.kept("copies").await;
    // Taken away and put there again with the same inode, or another.
    sh(&dir, "mv a.yaml ../aside; sleep 0.1; mv ../aside a.yaml");
    pod.kept("away for a moment").await;
    fs::write(&new, version(7)).expect("write");
    sh(&dir, "rm a.yaml; cp ../new.yaml a.yaml");
    pod.replaced(7, "removed and written").await;

    // Broken in every way, with a word about it.
    for (script, back, what) in [
        ("echo 'kind: Nothing' > a.yaml", "cp ../new.yaml a.yaml", "another kind"),
        (": > a.yaml", "cp ../new.yaml a.yaml", "emptied"),
        ("chmod g+w a.yaml", "chmod g-w a.yaml", "writable by others"),
        ("chown 4711 a.yaml", "chown root a.yaml", "of somebody else"),
        ("mv a.yaml ../real; ln -s ../real a.yaml", "mv ../real a.yaml", "a link out"),
        ("mkdir .d; mv a.yaml ../real; mv .d a.yaml", "rmdir a.yaml; mv ../real a.yaml", "a directory"),
        ("mkfifo .p; mv .p a.yaml", "cp ../new.yaml .a; mv .a a.yaml", "a pipe"),
        ("ln -s nowhere .l; mv .l a.yaml", "cp ../new.yaml .a; mv .a a.yaml", "a dangling link"),
    ] {
        sh(&dir, script);
        condition(&node, &file, what, is_kept).await;
        pod.kept(what).await;
        sh(&dir, back);
        condition(&node, &file, "good again", |f| matches!(f.state, FileState::Accepted { .. })).await;
        pod.kept(&format!("{what}, and back")).await;
    }

    // A second file with the same pod, and away with it.
    sh(&dir, "cp a.yaml b.yaml");
    condition(&node, &file, "a duplicate", |f| matches!(f.state, FileState::Duplicate { kept: true, .. }))
        .await;
    pod.kept("twice").await;
    fs::remove_file(dir.join("b.yaml")).expect("remove");
    pod.kept("once again").await;

    // The directory goes, is replaced, and comes back.
    sh(node.dir(), "mv manifests away");
    pod.kept("no directory").await;
    sh(node.dir(), "mv away manifests; cp -a manifests other; mv manifests away; mv other manifests");
    pod.kept("another directory").await;
    fs::write(&new, version(8)).expect("write");
    sh(&dir, "cp ../new.yaml a.yaml");
    pod.replaced(8, "in the other directory").await;
    // Mounted over with nothing, and unmounted.
    let mounted = Mount::new(&dir);
    pod.kept("mounted over").await;
    drop(mounted);
    pod.kept("unmounted").await;

    // The file's name is a part of who the pod is.
    sh(&dir, "mv a.yaml c.yaml");
    pod.replaced(8, "renamed").await;
    fs::remove_file(dir.join("c.yaml")).expect("remove");
    node.pod("a").gone().await.expect("gone");
    assert_eq!(instances(&node, "a"), pod.starts);
}

/// A file system in memory, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Self {
        let status = Command::new("mount").args(["-t", "tmpfs", "podstead-test"]).arg(at).status();
        assert!(status.expect("mount").success());
        Self(at.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_mask_each_other_and_generations_change_at_once() {
    let dirs = tempfile::tempdir().expect("a directory");
    let (usr, etc) = (dirs.path().join("usr"), dirs.path().join("etc"));
    for generation in ["1", "2"] {
        fs::create_dir(dirs.path().join(generation)).expect("mkdir");
    }
    symlink("1", &usr).expect("link");
    fs::create_dir(&etc).expect("mkdir");
    let paths = vec![usr.clone(), etc.clone()];
    let builder = Host::direct().builder().config(move |config| config.sources.paths.clone_from(&paths));
    let node = Host::direct().started(builder).await;
    let put = |path: &Path, version| {
        let hidden = path.with_file_name(".new");
        fs::write(&hidden, marked(&node, "a", version)).expect("write");
        fs::rename(hidden, path).expect("rename");
    };
    put(&dirs.path().join("2/a.yaml"), 2);
    put(&usr.join("a.yaml"), 1);
    let mut pod = Watched::new(&node, "a", 1).await;
    symlink("2", dirs.path().join("new")).expect("link");
    fs::rename(dirs.path().join("new"), &usr).expect("swap");
    pod.replaced(2, "a generation").await;
    fs::write(etc.join("a.yaml"), "kind: Nothing").expect("write");
    pod.kept("a broken mask").await;
    put(&etc.join("a.yaml"), 3);
    pod.replaced(3, "a mask").await;
    let shown = ok(&node, &["manifests"]);
    let row = |path: &Path| {
        let path = path.display().to_string();
        shown.lines().find(|line| line.starts_with(&format!("{path} "))).unwrap_or_default().to_owned()
    };
    assert!(row(&etc.join("a.yaml")).contains(" Accepted "), "{shown}");
    assert!(row(&usr.join("a.yaml")).contains(" Masked "), "{shown}");
    assert!(row(&usr).contains(" directory "), "{shown}");
    fs::remove_file(etc.join("a.yaml")).expect("remove");
    pod.replaced(2, "no mask").await;
    symlink("/dev/null", etc.join("a.yaml")).expect("link");
    node.pod("a").gone().await.expect("disabled");
    assert_eq!(instances(&node, "a"), pod.starts);
}

/// What `podstead manifests` says.
fn manifests(node: &Node) -> Value {
    serde_json::from_str(&ok(node, &["manifests", "-o", "json"])).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_url_outlive_every_failure_of_its_server_and_a_boot_without_it() {
    let web = Web::start(Tls::No).await;
    let url = UrlConfig::plain(&web.url("/pods")).expect("a URL");
    let often = UrlConfig { frequency: Duration::from_millis(50), ..url };
    let builder = Host::direct().builder().config(move |config| config.sources.url = Some(often.clone()));
    let mut node = Host::direct().started(builder).await;
    web.say("/pods", Reply::ok(marked(&node, "a", 1)));
    let mut pod = Watched::new(&node, "a", 1).await;
    for (reply, what) in [
        (Reply::ok(""), "empty"),
        (Reply::ok("kind: Nothing"), "no pod"),
        (Reply::ok(marked(&node, "a", 9).replace("image:", "imagee:")), "refused"),
        (Reply::status("404 Not Found"), "404"),
        (Reply::status("500 Broken"), "500"),
        (Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\napiVersion: v1\n"), "cut"),
        (Reply::moved("http://127.0.0.1:1/"), "sent away"),
    ] {
        web.say("/pods", reply);
        pod.kept(what).await;
    }
    web.say("/pods", Reply::ok(marked(&node, "a", 2)));
    pod.replaced(2, "changed").await;
    let file = &manifests(&node)["files"][0];
    assert_eq!((&file["condition"], &file["path"]), (&"Accepted".into(), &web.url("/pods").into()));
    assert_eq!(file["pods"][0], "default/a-node");

    // The server goes, and later the agent, and with the machine's next boot everything that ran.
    drop(web);
    pod.kept("no server").await;
    let Watched { name, now, starts, .. } = pod;
    node.restart_agent().await.expect("restart");
    Watched { node: &node, name, now, starts }.kept("no server, another agent").await;
    node.stop_agent().await;
    let snapshot = node.runtime().observe().await.expect("observe");
    for container in &snapshot.containers {
        node.runtime().remove_container(&container.id).await.expect("remove");
    }
    for sandbox in &snapshot.sandboxes {
        node.runtime().stop_sandbox(&sandbox.id).await.expect("stop");
        node.runtime().remove_sandbox(&sandbox.id).await.expect("remove");
    }
    node.restart_agent().await.expect("restart");
    let now = Watched::running(&node, name, 2, None, "after the boot").await;
    Watched { node: &node, name, now, starts: starts + 1 }.kept("after the boot").await;
    let source = &manifests(&node)["sources"][1];
    assert_eq!((&source["kind"], &source["document"]["fromDisk"]), (&"url".into(), &true.into()));
    assert!(source["error"]["message"].as_str().is_some_and(|text| text.contains("refused")), "{source}");
    let shown = ok(&node, &["manifests"]);
    assert!(shown.contains("old, from disk") && shown.contains("the pods known so far are kept"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_is_listed_with_its_condition_with_an_agent_and_without() {
    let mut node = Host::direct().node().await;
    let dir = node.manifest("x").parent().expect("a directory").to_path_buf();
    node.apply("good", &marked(&node, "good", 1)).expect("apply");
    node.apply("kept", &marked(&node, "kept", 1)).expect("apply");
    node.pod("good").running().await.expect("running");
    node.pod("kept").running().await.expect("running");
    let broken = marked(&node, "kept", 1).replace("image:", "imagee:").replace("hostNetwork:", "hostNetwrk:");
    node.apply("kept", &broken).expect("apply");
    fs::write(dir.join("refused.yaml"), broken.replace("name: kept", "name: refused")).expect("write");
    fs::write(dir.join("good.yaml~"), "x").expect("write");
    fs::write(dir.join("loose.yaml"), marked(&node, "loose", 1)).expect("write");
    fs::set_permissions(dir.join("loose.yaml"), Permissions::from_mode(0o666)).expect("chmod");
    symlink("/dev/null", dir.join("off.yaml")).expect("link");
    let refused = |f: &FileReport| matches!(f.state, FileState::Refused { .. });
    condition(&node, &node.manifest("kept"), "kept", is_kept).await;
    condition(&node, &node.manifest("refused"), "refused", refused).await;
    condition(&node, &node.manifest("loose"), "loose", refused).await;
    // A moment for what is published for the command line.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let listed = |all: &Value| -> Vec<(String, String)> {
        let files = all["files"].as_array().expect("files");
        let name =
            |f: &Value| Path::new(f["path"].as_str().unwrap_or_default()).file_name().map(ToOwned::to_owned);
        let text = |f: &Value| name(f).unwrap_or_default().to_string_lossy().into_owned();
        files.iter().map(|f| (text(f), f["condition"].as_str().unwrap_or_default().to_owned())).collect()
    };
    let all = manifests(&node);
    let want = [
        ("good.yaml", "Accepted"),
        ("good.yaml~", "Ignored"),
        ("kept.yaml", "KeptLastGood"),
        ("loose.yaml", "Refused"),
        ("off.yaml", "Disabled"),
        ("refused.yaml", "Refused"),
    ]
    .map(|(name, condition)| (name.to_owned(), condition.to_owned()));
    assert_eq!(listed(&all), want);
    // The version that runs, not the one that lies there.
    let files = all["files"].as_array().expect("files");
    let sum = Command::new("sha256sum").arg(node.manifest("good")).output().expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    assert!(sum.starts_with(files[0]["revision"].as_str().expect("a revision")), "{sum} {all}");
    assert!(files[2]["revision"].is_string() && files[2]["since"].is_string(), "{all}");
    assert!(files[5]["revision"].is_null());
    let errors = files[5]["errors"].as_array().expect("errors");
    assert!(errors.len() >= 2, "all of them: {errors:?}");
    assert!(errors.iter().all(|e| e.as_str().is_some_and(|e| e.contains("refused.yaml:"))), "{errors:?}");
    let table = ok(&node, &["manifests"]);
    for error in errors.iter().filter_map(Value::as_str) {
        assert!(table.contains(error), "{table}");
    }
    let yaml: Value = serde_yaml::from_str(&ok(&node, &["manifests", "-o", "yaml"])).expect("YAML");
    assert_eq!(yaml, all);

    node.stop_agent().await;
    let without = manifests(&node);
    assert_eq!(listed(&without), want, "read again");
    assert_eq!(without["files"][2]["revision"], files[2]["revision"]);
    let path = dir.display().to_string();
    let only = ["manifests", "-o", "json", "--hostname-override", "other", "--pod-manifest-path", &path];
    let read: Value = serde_json::from_str(&ok(&node, &only)).expect("JSON");
    assert_eq!(read["files"][0]["pods"][0], "default/good-other");
    fs::remove_file(node.config().state_dir.join("agent/manifests.json")).expect("remove");
    assert!(fails(&node, 1, &["manifests"]).contains("--pod-manifest-path"));
}
