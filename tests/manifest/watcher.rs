//! The file source on real directories, edited the way people and programs edit.
//!
//! Nothing here measures time: a test waits for a table, with a generous limit. Where a test must show that
//! something does not happen, it does a second thing afterwards and looks at every table up to its effect.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use podstead::manifest::{Desired, FileState, Sources, SourcesConfig, Waivers, spawn};
use rustix::fs::{CWD, RenameFlags};
use tempfile::TempDir;
use tokio::sync::watch::Receiver;

/// So long that only an event can be the reason of a change.
pub const NEVER: Duration = Duration::from_secs(3600);
pub const SOON: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(20);

pub fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: c\n    image: {image}\n"
    )
}

/// A directory of manifests and an agent's root, and the source that runs on them.
pub struct Bench {
    pub base: TempDir,
    pub path: PathBuf,
    /// Instead of `path`, if there are any.
    pub paths: Vec<PathBuf>,
    frequency: Duration,
    pub waived: Waivers,
    running: Option<(Receiver<Arc<Desired>>, Sources)>,
}

impl Bench {
    pub fn new(frequency: Duration) -> Self {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("manifests");
        fs::create_dir(&path).unwrap();
        Self { base, path, paths: Vec::new(), frequency, waived: Waivers::default(), running: None }
    }

    pub fn start(&mut self) {
        let config = SourcesConfig {
            paths: if self.paths.is_empty() { vec![self.path.clone()] } else { self.paths.clone() },
            url: None,
            waived: self.waived,
            node: "Node".into(),
            file_check_frequency: self.frequency,
            root_dir: self.base.path().join("root"),
        };
        self.running = Some(spawn(config).unwrap());
    }

    pub fn started(frequency: Duration) -> Self {
        let mut bench = Self::new(frequency);
        bench.start();
        bench
    }

    pub fn stop(&mut self) {
        self.running = None;
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A complete write: temporary file beside it, renamed over.
    pub fn put(&self, name: &str, text: &str) {
        let temporary = self.path.join(format!(".{name}.new"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.file(name)).unwrap();
    }

    /// Waits for a table; `each` sees all tables on the way there.
    pub async fn until(
        &mut self,
        what: &str,
        each: impl Fn(&Desired),
        wanted: impl Fn(&Desired) -> bool,
    ) -> Arc<Desired> {
        let (receiver, _) = self.running.as_mut().unwrap();
        let waiting = async {
            loop {
                let table = Arc::clone(&receiver.borrow_and_update());
                each(&table);
                if wanted(&table) {
                    return table;
                }
                receiver.changed().await.unwrap();
            }
        };
        let outcome = tokio::time::timeout(LIMIT, waiting).await;
        outcome.unwrap_or_else(|_| panic!("not seen: {what}; last table: {:#?}", self.now()))
    }

    pub async fn wait(&mut self, what: &str, wanted: impl Fn(&Desired) -> bool) -> Arc<Desired> {
        self.until(what, |_| {}, wanted).await
    }

    /// Waits until exactly these images should run.
    pub async fn images(&mut self, want: &[&str]) -> Arc<Desired> {
        self.wait(&format!("{want:?}"), |table| table.sources_ready && images(table) == want).await
    }

    pub fn now(&self) -> Arc<Desired> {
        Arc::clone(&self.running.as_ref().unwrap().0.borrow())
    }
}

pub fn images(table: &Desired) -> Vec<&str> {
    table.pods.iter().map(|p| p.pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()).collect()
}

fn state<'t>(table: &'t Desired, name: &str) -> Option<&'t FileState> {
    table.files.iter().find(|f| f.path.file_name().unwrap() == name).map(|f| &f.state)
}

pub fn kept(table: &Desired, name: &str) -> bool {
    matches!(state(table, name), Some(FileState::KeptLastGood { .. }))
}

pub fn sh(directory: &Path, script: &str) {
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(directory).status().unwrap();
    assert!(status.success(), "{script}");
}

#[tokio::test]
async fn a_file_appears_changes_and_goes_by_events_alone() {
    let mut bench = Bench::started(NEVER);
    bench.images(&[]).await;
    bench.put("a.yaml", &pod("a", "one"));
    let table = bench.images(&["one"]).await;
    let first = &table.pods[0];
    assert_eq!((first.name(), first.namespace(), &first.file), ("a-node", "default", &bench.file("a.yaml")));
    let annotations = first.pod.metadata.annotations.as_ref().unwrap();
    let seen = &annotations["kubernetes.io/config.seen"];
    assert!(seen.len() == "2026-01-01T00:00:00.000000000Z".len() && seen.ends_with('Z'), "{seen}");

    fs::write(bench.file("b.yaml"), pod("b", "two")).unwrap();
    bench.images(&["one", "two"]).await;
    bench.put("a.yaml", &pod("a", "three"));
    let table = bench.images(&["three", "two"]).await;
    assert_ne!(table.pods[0].uid, first.uid);
    fs::remove_file(bench.file("a.yaml")).unwrap();
    bench.images(&["two"]).await;
    fs::rename(bench.file("b.yaml"), bench.base.path().join("b.yaml")).unwrap();
    bench.images(&[]).await;
    fs::rename(bench.base.path().join("b.yaml"), bench.file("b.yaml")).unwrap();
    bench.images(&["two"]).await;
}

#[tokio::test]
async fn a_comment_changes_neither_uid_nor_time_of_first_sight() {
    let mut bench = Bench::started(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    let before = bench.images(&["one"]).await;
    bench.put("a.yaml", &format!("# new\n{}", pod("a", "one")));
    let after = bench.wait("the new position", |t| t.pods.first().is_some_and(|p| p.at.line == 2)).await;
    assert_eq!(before.pods[0].pod, after.pods[0].pod);
}

#[tokio::test]
async fn editors_never_make_the_pod_go_away() {
    let mut bench = Bench::started(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    bench.images(&["one"]).await;
    let never_without = |table: &Desired| assert_eq!(table.pods.len(), 1, "{table:#?}");

    // vim: rename to a backup, write the name anew, remove the backup.
    for round in 0..20 {
        let image = format!("vim-{round}");
        fs::write(bench.file("4913"), "").unwrap();
        fs::remove_file(bench.file("4913")).unwrap();
        fs::rename(bench.file("a.yaml"), bench.file("a.yaml~")).unwrap();
        let mut file = File::create(bench.file("a.yaml")).unwrap();
        for chunk in pod("a", &image).as_bytes().chunks(20) {
            file.write_all(chunk).unwrap();
        }
        file.sync_all().unwrap();
        drop(file);
        fs::remove_file(bench.file("a.yaml~")).unwrap();
        bench.until("vim's version", never_without, |t| images(t) == [image.as_str()]).await;
    }
    bench.put("a.yaml", &pod("a", "two"));

    sh(&bench.path, "sed -i s/two/three/ a.yaml");
    bench.until("sed's version", never_without, |t| images(t) == ["three"]).await;

    fs::write(bench.base.path().join("new.yaml"), pod("a", "four")).unwrap();
    sh(&bench.path, "cp ../new.yaml a.yaml");
    bench.until("cp's version", never_without, |t| images(t) == ["four"]).await;

    // A backup copy carries the same pod and goes away again.
    sh(&bench.path, "cp a.yaml a.yaml.bak; cp a.yaml a.yaml.orig; rm a.yaml.bak");
    let ignored = |t: &Desired| matches!(state(t, "a.yaml.orig"), Some(FileState::Ignored { .. }));
    bench
        .until("the copies ignored", never_without, |t| ignored(t) && state(t, "a.yaml.bak").is_none())
        .await;
    assert_eq!(images(&bench.now()), ["four"]);
}

#[tokio::test]
async fn a_half_written_file_is_never_acted_on() {
    // The tick reads in the middle of the write, again and again.
    let mut bench = Bench::started(Duration::from_millis(5));
    bench.put("a.yaml", &pod("a", "whole-old"));
    bench.images(&["whole-old"]).await;

    // After "image: whole-new" every prefix is valid YAML with another meaning.
    let text = pod("a", "whole-new-image-with-a-long-name");
    let path = bench.file("a.yaml");
    let writer = std::thread::spawn(move || {
        let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
        for (index, byte) in text.bytes().enumerate() {
            file.write_all(&[byte]).unwrap();
            // Once for longer than an unchanged file takes to settle: open for writing is known, not guessed.
            let pause = if text[..index].ends_with("image: whole-new") { 1200 } else { 5 };
            std::thread::sleep(Duration::from_millis(pause));
        }
    });
    let whole = |table: &Desired| {
        let images = images(table);
        assert!(
            images == ["whole-old"] || images == ["whole-new-image-with-a-long-name"],
            "acted on a part: {images:?}"
        );
        assert!(!kept(table, "a.yaml"), "judged a part: {table:#?}");
    };
    bench.until("the whole text", whole, |t| images(t) == ["whole-new-image-with-a-long-name"]).await;
    assert!(writer.is_finished() || writer.join().is_ok());
}

#[tokio::test]
async fn a_broken_edit_keeps_the_pod_and_says_where() {
    let mut bench = Bench::started(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    bench.images(&["one"]).await;
    bench.put("a.yaml", &pod("a", "one").replace("image:", "imagee:"));
    let table = bench.wait("kept", |t| kept(t, "a.yaml")).await;
    assert_eq!(images(&table), ["one"]);
    let Some(FileState::KeptLastGood { errors, .. }) = state(&table, "a.yaml") else { panic!() };
    assert!(
        errors[0].contains("a.yaml:8:5: spec.containers[0].imagee: unknown field, did you mean \"image\"?")
    );

    bench.put("a.yaml", "");
    bench.wait("empty is broken too", |t| {
        matches!(state(t, "a.yaml"), Some(FileState::KeptLastGood { errors, .. }) if errors[0].contains("no document"))
    })
    .await;
    bench.put("b.yaml", "kind: Nothing\n");
    bench.wait("refused", |t| matches!(state(t, "b.yaml"), Some(FileState::Refused { .. }))).await;
    bench.put("a.yaml", &pod("a", "two"));
    bench.images(&["two"]).await;
    // Broken again, then taken away: only that removes the pod.
    bench.put("a.yaml", "[");
    bench.wait("kept", |t| kept(t, "a.yaml") && images(t) == ["two"]).await;
    fs::remove_file(bench.file("a.yaml")).unwrap();
    bench.images(&[]).await;
}

#[tokio::test]
async fn an_unreadable_file_keeps_its_pod() {
    let mut bench = Bench::started(SOON);
    for name in ["a", "b", "c"] {
        bench.put(&format!("{name}.yaml"), &pod(name, name));
    }
    bench.images(&["a", "b", "c"]).await;
    // A directory, a link to itself and a pipe take the place of the files, without a moment in between.
    fs::create_dir(bench.file(".a")).unwrap();
    let (old, new) = (bench.file(".a"), bench.file("a.yaml"));
    rustix::fs::renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE).unwrap();
    symlink("b.yaml", bench.file(".b")).unwrap();
    // Not mv: it finds that both are the same file.
    fs::rename(bench.file(".b"), bench.file("b.yaml")).unwrap();
    sh(&bench.path, "mkfifo .c; mv .c c.yaml");
    let all_kept = |t: &Desired| ["a.yaml", "b.yaml", "c.yaml"].iter().all(|n| kept(t, n));
    let table = bench.wait("all kept", all_kept).await;
    assert_eq!(images(&table), ["a", "b", "c"]);

    // Without a good version, such things are told apart from manifests; none of them blocks the reading.
    sh(&bench.path, "mkfifo pipe.yaml; mkdir sub; ln -s nowhere dangling.yaml; ln -s /dev/zero zero.yaml");
    fs::write(bench.path.join("sub/inner.yaml"), pod("inner", "inner")).unwrap();
    let told = |t: &Desired| {
        matches!(state(t, "sub"), Some(FileState::Ignored { .. }))
            && ["pipe.yaml", "zero.yaml", "dangling.yaml"]
                .iter()
                .all(|n| matches!(state(t, n), Some(FileState::Refused { .. })))
    };
    let table = bench.wait("all told", told).await;
    assert_eq!(images(&table), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_unreadable_directory_keeps_all_pods() {
    let mut bench = Bench::started(SOON);
    bench.put("a.yaml", &pod("a", "one"));
    bench.images(&["one"]).await;
    let aside = bench.base.path().join("aside");
    let path = bench.path.clone();

    fs::rename(&path, &aside).unwrap();
    let error = |t: &Desired| t.source_error().is_some();
    let table = bench.wait("missing", error).await;
    assert_eq!((images(&table), table.sources_ready), (vec!["one"], true));
    assert!(state(&table, "a.yaml").is_some());

    symlink(&path, &path).unwrap();
    let table =
        bench.wait("a loop", |t| t.source_error().is_some_and(|e| e.message.contains("symbolic"))).await;
    assert_eq!(images(&table), ["one"]);
    fs::remove_file(&path).unwrap();

    fs::write(&path, pod("other", "other")).unwrap();
    let not_a_directory = |t: &Desired| t.source_error().is_some_and(|e| e.message.contains("directory"));
    let table = bench.wait("a file in its place", not_a_directory).await;
    assert_eq!(images(&table), ["one"]);
    fs::remove_file(&path).unwrap();

    fs::rename(&aside, &path).unwrap();
    bench.wait("back", |t| t.source_error().is_none() && images(t) == ["one"]).await;
}

#[tokio::test]
async fn a_replaced_directory_is_watched_again() {
    let mut bench = Bench::started(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    bench.images(&["one"]).await;

    fs::rename(&bench.path, bench.base.path().join("old")).unwrap();
    fs::create_dir(&bench.path).unwrap();
    bench.put("b.yaml", &pod("b", "two"));
    bench.images(&["two"]).await;
    // Events of the new directory, and no tick: the watch is on it.
    bench.put("c.yaml", &pod("c", "three"));
    bench.images(&["two", "three"]).await;

    fs::remove_dir_all(&bench.path).unwrap();
    bench.wait("missing", |t| t.source_error().is_some()).await;
    fs::create_dir(&bench.path).unwrap();
    bench.put("d.yaml", &pod("d", "four"));
    bench.images(&["four"]).await;
    bench.put("d.yaml", &pod("d", "five"));
    bench.images(&["five"]).await;
}

#[tokio::test]
async fn a_directory_behind_a_changed_link_is_watched_after_the_next_reading() {
    let mut bench = Bench::new(NEVER);
    let (one, two, link) =
        (bench.path.clone(), bench.base.path().join("two"), bench.base.path().join("link"));
    bench.put("a.yaml", &pod("a", "one"));
    fs::create_dir(&two).unwrap();
    symlink(&one, &link).unwrap();
    bench.path.clone_from(&link);
    bench.start();
    bench.images(&["one"]).await;
    fs::remove_file(&link).unwrap();
    symlink(&two, &link).unwrap();
    bench.put("b.yaml", &pod("b", "two"));
    bench.running.as_ref().unwrap().1.rescan();
    bench.images(&["two"]).await;
    bench.put("c.yaml", &pod("c", "three"));
    bench.images(&["two", "three"]).await;
}

#[tokio::test]
async fn two_files_with_one_pod_are_an_error_on_both_and_the_first_stays() {
    let mut bench = Bench::started(NEVER);
    bench.put("b.yaml", &pod("x", "first"));
    bench.images(&["first"]).await;
    bench.put("a.yaml", &format!("{}---\n{}", pod("x", "second"), pod("z", "alone")));
    let both = |t: &Desired| {
        matches!(state(t, "a.yaml"), Some(FileState::Duplicate { kept: false, .. }))
            && matches!(state(t, "b.yaml"), Some(FileState::Duplicate { kept: true, .. }))
    };
    let table = bench.wait("both named", both).await;
    assert_eq!(images(&table), ["alone", "first"]);

    // A new agent knows who was first.
    bench.stop();
    bench.start();
    let table = bench.wait("both named again", |t| t.sources_ready && both(t)).await;
    assert_eq!(images(&table), ["alone", "first"]);

    fs::remove_file(bench.file("b.yaml")).unwrap();
    bench.images(&["second", "alone"]).await;

    // Neither was first: neither is guessed.
    bench.stop();
    fs::remove_dir_all(bench.base.path().join("root")).unwrap();
    bench.put("b.yaml", &pod("x", "first"));
    // Both have rested, so both are taken in the first reading.
    let old = SystemTime::now() - Duration::from_secs(60);
    for name in ["a.yaml", "b.yaml"] {
        File::open(bench.file(name)).unwrap().set_modified(old).unwrap();
    }
    bench.start();
    bench.images(&["alone"]).await;
}

#[tokio::test]
async fn the_last_good_version_outlives_the_agent() {
    let mut bench = Bench::started(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    bench.put("b.yaml", &pod("b", "two"));
    let before = bench.images(&["one", "two"]).await;
    saved(&bench, 2).await;

    // Broken while no agent runs; another is taken away.
    bench.stop();
    bench.put("a.yaml", "broken: [");
    fs::remove_file(bench.file("b.yaml")).unwrap();
    bench.start();
    let table = bench.wait("kept", |t| t.sources_ready && kept(t, "a.yaml") && t.pods.len() == 1).await;
    assert_eq!((images(&table), &table.pods[0].uid), (vec!["one"], &before.pods[0].uid));
    saved(&bench, 1).await;

    // The whole directory is away when the agent starts: its pods are known, and nothing may be removed.
    bench.stop();
    let aside = bench.base.path().join("aside");
    fs::rename(&bench.path, &aside).unwrap();
    bench.start();
    let table = bench.wait("missing", |t| t.source_error().is_some()).await;
    assert_eq!((images(&table), table.sources_ready), (vec!["one"], false));
    fs::rename(&aside, &bench.path).unwrap();
    bench.wait("back", |t| t.sources_ready && kept(t, "a.yaml")).await;
    fs::remove_file(bench.file("a.yaml")).unwrap();
    bench.images(&[]).await;
    saved(&bench, 0).await;
}

/// Waits until so many last good versions are on disk; they are written after the table is published.
async fn saved(bench: &Bench, want: usize) {
    let directory = bench.base.path().join("root/manifests/last-good");
    let count = || fs::read_dir(&directory).map_or(0, Iterator::count);
    let waiting = async {
        while count() != want {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting)
        .await
        .unwrap_or_else(|_| panic!("{want} records, there are {}", count()));
}

#[tokio::test]
async fn a_single_file_survives_atomic_rename_and_goes_when_removed() {
    let mut bench = Bench::new(NEVER);
    let directory = bench.path.clone();
    bench.put("pod.yaml", &pod("a", "one"));
    bench.put("other.yaml", &pod("b", "other"));
    bench.path = directory.join("pod.yaml");
    bench.start();
    bench.images(&["one"]).await;
    fs::write(directory.join(".new"), pod("a", "two")).unwrap();
    fs::rename(directory.join(".new"), directory.join("pod.yaml")).unwrap();
    let never_without = |t: &Desired| assert_eq!(t.pods.len(), 1);
    bench.until("the new one", never_without, |t| images(t) == ["two"]).await;
    fs::remove_file(directory.join("pod.yaml")).unwrap();
    bench.images(&[]).await;
    fs::write(directory.join("pod.yaml"), pod("a", "three")).unwrap();
    bench.images(&["three"]).await;
    // Its directory gone is not the file gone.
    fs::rename(&directory, bench.base.path().join("aside")).unwrap();
    let table = bench.wait("missing", |t| t.source_error().is_some()).await;
    assert_eq!(images(&table), ["three"]);
}

#[tokio::test]
async fn a_mounted_volume_swap_is_seen() {
    let mut bench = Bench::new(NEVER);
    for (version, image) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(bench.file(version)).unwrap();
        fs::write(bench.file(version).join("a.yaml"), pod("a", image)).unwrap();
    }
    symlink("..1", bench.file("..data")).unwrap();
    symlink("..data/a.yaml", bench.file("a.yaml")).unwrap();
    bench.start();
    bench.images(&["one"]).await;
    symlink("..2", bench.file("..data_tmp")).unwrap();
    fs::rename(bench.file("..data_tmp"), bench.file("..data")).unwrap();
    bench.images(&["two"]).await;
}

#[tokio::test]
async fn a_file_without_events_is_taken_once_it_rests() {
    // The target of a link lies in an unwatched directory.
    let mut bench = Bench::new(SOON);
    bench.waived.outside_links = true;
    bench.start();
    let target = bench.base.path().join("target.yaml");
    fs::write(&target, pod("a", "one")).unwrap();
    symlink(&target, bench.file("a.yaml")).unwrap();
    bench.images(&["one"]).await;
    fs::write(&target, pod("a", "two")).unwrap();
    bench.images(&["two"]).await;
    // A time in the future (another machine's clock) must not keep a file out for ever.
    let file = File::create(&target).unwrap();
    (&file).write_all(pod("a", "three").as_bytes()).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
    drop(file);
    bench.images(&["three"]).await;
}

#[tokio::test]
async fn fifty_files_at_once_all_arrive() {
    let mut bench = Bench::started(NEVER);
    for i in 0..50 {
        bench.put(&format!("p{i:02}.yaml"), &pod(&format!("p{i}"), "image"));
    }
    bench.wait("all fifty", |t| t.pods.len() == 50).await;
    saved(&bench, 50).await;
}
