//! Several directories on real file systems: precedence, generations, mounts, files that are not to be believed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use podstead::manifest::{Desired, FileState, SourceKind};
use rustix::fs::{CWD, RenameFlags};

use crate::watcher::{Bench, NEVER, SOON, images, kept, pod, sh};

/// The three levels of a system: what it came with, what its administrator wrote, what is so until it boots again.
struct Levels {
    bench: Bench,
    usr: PathBuf,
    etc: PathBuf,
    run: PathBuf,
}

impl Levels {
    fn started() -> Self {
        let mut bench = Bench::new(NEVER);
        let [usr, etc, run] = ["usr", "etc", "run"].map(|name| bench.base.path().join(name));
        fs::create_dir(&usr).unwrap();
        fs::create_dir(&etc).unwrap();
        bench.paths = vec![usr.clone(), etc.clone(), run.clone()];
        bench.start();
        Self { bench, usr, etc, run }
    }
}

fn put(directory: &Path, name: &str, text: &str) {
    let temporary = directory.join(format!(".{name}.new"));
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, directory.join(name)).unwrap();
}

fn state<'t>(table: &'t Desired, path: &Path) -> Option<&'t FileState> {
    table.files.iter().find(|f| f.path == path).map(|f| &f.state)
}

fn refused(table: &Desired, path: &Path, why: &str) -> bool {
    match state(table, path) {
        Some(FileState::Refused { errors } | FileState::KeptLastGood { errors, .. }) => {
            errors[0].contains(why)
        }
        _ => false,
    }
}

#[tokio::test]
async fn a_later_directory_masks_the_names_of_earlier_ones() {
    let Levels { mut bench, usr, etc, run } = Levels::started();
    put(&usr, "a.yaml", &pod("a", "usr"));
    put(&usr, "b.yaml", &pod("b", "b"));
    bench.images(&["usr", "b"]).await;
    put(&etc, "a.yaml", &pod("a", "etc"));
    let table = bench.images(&["etc", "b"]).await;
    let Some(FileState::Masked { by }) = state(&table, &usr.join("a.yaml")) else { panic!("{table:#?}") };
    assert_eq!(*by, etc.join("a.yaml"));
    // The last directory is made only now, and is seen without a reading by the clock.
    assert_eq!(table.sources[2].kind, SourceKind::Missing);
    assert!(table.source_error().is_none(), "{table:#?}");
    fs::create_dir(&run).unwrap();
    put(&run, "a.yaml", &pod("a", "run"));
    bench.images(&["run", "b"]).await;
    // The other way round each comes back.
    fs::remove_file(run.join("a.yaml")).unwrap();
    bench.images(&["etc", "b"]).await;
    fs::remove_file(etc.join("a.yaml")).unwrap();
    bench.images(&["usr", "b"]).await;
}

#[tokio::test]
async fn a_broken_file_masks_nothing() {
    let Levels { mut bench, usr, etc, .. } = Levels::started();
    put(&usr, "a.yaml", &pod("a", "usr"));
    bench.images(&["usr"]).await;
    put(&etc, "a.yaml", "kind: Nothing\n");
    let told = |t: &Desired| matches!(state(t, &etc.join("a.yaml")), Some(FileState::Refused { .. }));
    let table = bench.wait("refused", told).await;
    assert_eq!(images(&table), ["usr"]);
    put(&etc, "a.yaml", &pod("a", "etc"));
    bench.images(&["etc"]).await;
    // Now its own last good version counts.
    put(&etc, "a.yaml", "kind: Nothing\n");
    let table = bench.wait("kept", |t| kept(t, "a.yaml")).await;
    assert_eq!(images(&table), ["etc"]);
}

#[tokio::test]
async fn a_link_to_dev_null_disables_a_name() {
    let Levels { mut bench, usr, etc, .. } = Levels::started();
    put(&usr, "a.yaml", &pod("a", "usr"));
    put(&etc, "b.yaml", &pod("b", "b"));
    bench.images(&["b", "usr"]).await;
    symlink("/dev/null", etc.join("a.yaml")).unwrap();
    let table = bench.images(&["b"]).await;
    assert_eq!(state(&table, &etc.join("a.yaml")), Some(&FileState::Disabled));
    // Also where it takes the place of the file itself, and after a restart.
    symlink("/dev/null", etc.join(".b")).unwrap();
    fs::rename(etc.join(".b"), etc.join("b.yaml")).unwrap();
    bench.images(&[]).await;
    bench.stop();
    bench.start();
    bench.images(&[]).await;
    fs::remove_file(etc.join("a.yaml")).unwrap();
    bench.images(&["usr"]).await;
}

#[tokio::test]
async fn masks_hold_from_the_first_table_of_a_new_agent_on() {
    let Levels { mut bench, usr, etc, .. } = Levels::started();
    bench.stop();
    fs::write(usr.join("a.yaml"), pod("a", "usr")).unwrap();
    sh(&usr, "touch -d '1 hour ago' a.yaml");
    // Young: it has to settle first.
    fs::write(etc.join("a.yaml"), pod("a", "etc")).unwrap();
    bench.start();
    let never = |t: &Desired| assert!(!images(t).contains(&"usr"), "{t:#?}");
    bench.until("the mask", never, |t| images(t) == ["etc"]).await;
}

#[tokio::test]
async fn a_directory_that_goes_keeps_its_pods_and_its_masks() {
    let Levels { mut bench, usr, etc, .. } = Levels::started();
    put(&usr, "a.yaml", &pod("a", "usr"));
    put(&etc, "a.yaml", &pod("a", "etc"));
    bench.images(&["etc"]).await;
    let aside = bench.base.path().join("aside");
    // Longer than a file must be away to be gone.
    let long = Duration::from_millis(600);
    fs::rename(&etc, &aside).unwrap();
    bench.wait("the error", |t| t.source_error().is_some()).await;
    tokio::time::sleep(long).await;
    let table = bench.now();
    assert_eq!((images(&table), table.sources_ready), (vec!["etc"], true));
    // A new agent knows it too, and removes nothing.
    bench.stop();
    bench.start();
    bench.wait("the error", |t| t.source_error().is_some()).await;
    tokio::time::sleep(long).await;
    let table = bench.now();
    assert_eq!((images(&table), table.sources_ready), (vec!["etc"], false));
    fs::rename(&aside, &etc).unwrap();
    bench.images(&["etc"]).await;
    // Replaced in one step by another.
    fs::create_dir(&aside).unwrap();
    put(&aside, "a.yaml", &pod("a", "new"));
    rustix::fs::renameat_with(CWD, &aside, CWD, &etc, RenameFlags::EXCHANGE).unwrap();
    let never_without = |t: &Desired| assert_eq!(t.pods.len(), 1, "{t:#?}");
    bench.until("the new one", never_without, |t| images(t) == ["new"]).await;
    put(&etc, "a.yaml", &pod("a", "newer"));
    bench.images(&["newer"]).await;
}

#[tokio::test]
async fn a_generation_is_taken_as_a_whole_as_soon_as_the_link_is_swapped() {
    let mut bench = Bench::new(NEVER);
    let base = bench.base.path().to_path_buf();
    for generation in ["gen-1", "gen-2", "gen-3"] {
        fs::create_dir_all(base.join(generation).join("manifests")).unwrap();
        for name in ["a", "b"] {
            let text = pod(name, &format!("{generation}-{name}"));
            fs::write(base.join(generation).join("manifests").join(name), text).unwrap();
        }
    }
    let swap = |to: &str| {
        symlink(to, base.join("new")).unwrap();
        fs::rename(base.join("new"), base.join("current")).unwrap();
    };
    swap("gen-1");
    // The link is in the middle of the path.
    bench.paths = vec![base.join("current/manifests")];
    bench.start();
    bench.images(&["gen-1-a", "gen-1-b"]).await;
    for generation in ["gen-2", "gen-3", "gen-1"] {
        swap(generation);
        let want = [format!("{generation}-a"), format!("{generation}-b")];
        let never_without = |t: &Desired| assert_eq!(t.pods.len(), 2, "{t:#?}");
        bench.until(generation, never_without, |t| images(t) == want).await;
    }
    // And the one that is current now is watched.
    put(&base.join("gen-1/manifests"), "a", &pod("a", "edited"));
    bench.images(&["edited", "gen-1-b"]).await;
    // A link at the path itself; its files are taken without waiting for them to rest.
    bench.stop();
    bench.paths = vec![base.join("link")];
    symlink("gen-2/manifests", base.join("link")).unwrap();
    bench.start();
    bench.images(&["gen-2-a", "gen-2-b"]).await;
    symlink("gen-3/manifests", base.join("new")).unwrap();
    fs::rename(base.join("new"), base.join("link")).unwrap();
    bench.images(&["gen-3-a", "gen-3-b"]).await;
}

/// A file system in memory, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "podstead-test"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_directory_that_is_unmounted_or_mounted_over_keeps_its_pods() {
    let mut bench = Bench::new(SOON);
    let path = bench.base.path().join("manifests");
    let Some(mount) = Mount::new(&path) else { return eprintln!("SKIPPED: mounts need root") };
    put(&path, "a.yaml", &pod("a", "one"));
    bench.start();
    bench.images(&["one"]).await;
    drop(mount);
    let another = |t: &Desired| t.source_error().is_some_and(|e| e.message.contains("another file system"));
    let table = bench.wait("unmounted", another).await;
    assert_eq!(images(&table), ["one"]);
    let mount = Mount::new(&path).unwrap();
    // It comes empty, and only then with its files.
    tokio::time::sleep(SOON * 3).await;
    assert_eq!(images(&bench.now()), ["one"]);
    put(&path, "a.yaml", &pod("a", "two"));
    bench.images(&["two"]).await;
    let over = Mount::new(&path).unwrap();
    let table = bench.wait("mounted over", another).await;
    assert_eq!(images(&table), ["two"]);
    // Empty on purpose.
    fs::write(path.join(".empty"), "").unwrap();
    bench.images(&[]).await;
    drop(over);
    bench.images(&["two"]).await;
    put(&path, "a.yaml", &pod("a", "three"));
    bench.images(&["three"]).await;
    drop(mount);
}

#[tokio::test]
async fn files_that_others_may_write_are_refused_with_a_reason() {
    let mut bench = Bench::new(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    bench.start();
    bench.images(&["one"]).await;
    let path = bench.file("a.yaml");
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    for (bits, why) in [(0o664, "by its group (mode 0664)"), (0o646, "by everybody (mode 0646)")] {
        mode(bits);
        let table = bench.wait(why, |t| refused(t, &path, why) && kept(t, "a.yaml")).await;
        assert_eq!(images(&table), ["one"], "what was good stays");
        mode(0o644);
        bench.wait("good again", |t| !kept(t, "a.yaml")).await;
    }
    // One that was never good is not run, until its mode is.
    let other = bench.file("b.yaml");
    fs::write(bench.file(".b"), pod("b", "two")).unwrap();
    fs::set_permissions(bench.file(".b"), Permissions::from_mode(0o666)).unwrap();
    fs::rename(bench.file(".b"), &other).unwrap();
    let table = bench.wait("refused", |t| refused(t, &other, "chmod go-w")).await;
    assert_eq!(images(&table), ["one"]);
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    bench.images(&["one", "two"]).await;
    // Waived.
    bench.stop();
    fs::set_permissions(&other, Permissions::from_mode(0o666)).unwrap();
    bench.waived.group_writable = true;
    bench.waived.other_writable = true;
    bench.start();
    bench.wait("both", |t| t.sources_ready && images(t) == ["one", "two"] && !kept(t, "b.yaml")).await;
}

#[tokio::test]
async fn links_may_not_lead_out_of_the_directories() {
    let Levels { mut bench, usr, etc, .. } = Levels::started();
    let outside = bench.base.path().join("outside.yaml");
    fs::write(&outside, pod("a", "outside")).unwrap();
    symlink(&outside, etc.join("a.yaml")).unwrap();
    let why = "leads out of the manifest directories, to /";
    let table = bench.wait("refused", |t| refused(t, &etc.join("a.yaml"), why)).await;
    assert!(images(&table).is_empty());
    // From one directory into another is within.
    put(&usr, "library.yaml", &pod("b", "within"));
    symlink(usr.join("library.yaml"), etc.join("library.yaml")).unwrap();
    bench.wait("within", |t| images(t) == ["within"] && state(t, &usr.join("library.yaml")).is_some()).await;
    bench.stop();
    bench.waived.outside_links = true;
    bench.start();
    bench.images(&["outside", "within"]).await;
}

#[tokio::test]
async fn a_single_file_works_beside_directories_and_as_a_link() {
    let mut bench = Bench::new(NEVER);
    let base = bench.base.path().to_path_buf();
    put(&bench.path, "a.yaml", &pod("a", "one"));
    // The same name as in the directory: named by itself, it is masked by nothing and masks nothing.
    fs::create_dir(base.join("other")).unwrap();
    fs::write(base.join("real.yaml"), pod("b", "two")).unwrap();
    symlink("../real.yaml", base.join("other/a.yaml")).unwrap();
    bench.paths = vec![bench.path.clone(), base.join("other/a.yaml")];
    bench.start();
    bench.images(&["one", "two"]).await;
    // Its link is swapped.
    fs::write(base.join("newer.yaml"), pod("b", "three")).unwrap();
    symlink("../newer.yaml", base.join("other/.new")).unwrap();
    fs::rename(base.join("other/.new"), base.join("other/a.yaml")).unwrap();
    bench.images(&["one", "three"]).await;
    fs::remove_file(base.join("other/a.yaml")).unwrap();
    bench.images(&["one"]).await;
}

#[tokio::test]
async fn among_ten_thousand_files_one_edit_is_seen() {
    let mut bench = Bench::new(NEVER);
    for n in 0..10_000 {
        // Refused, so that nobody has to sync as many records.
        fs::write(bench.file(&format!("f{n:05}.yaml")), "kind: Nothing\n").unwrap();
    }
    sh(&bench.path, "find . -name 'f*' | xargs touch -d '1 hour ago'");
    bench.put("f05000.yaml", &pod("a", "one"));
    bench.start();
    bench.wait("the one", |t| images(t) == ["one"] && t.files.len() == 10_000).await;
    for image in ["two", "three", "four"] {
        let begun = std::time::Instant::now();
        bench.put("f05000.yaml", &pod("a", image));
        bench.images(&[image]).await;
        eprintln!("seen after {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_storm_of_events_hides_no_edit() {
    let mut bench = Bench::new(NEVER);
    bench.put("a.yaml", &pod("a", "one"));
    bench.start();
    bench.images(&["one"]).await;
    let path = bench.path.clone();
    let storm = std::thread::spawn(move || {
        for n in 0..10_000 {
            // More than the queue of inotify holds; the name comes and goes.
            fs::write(path.join("storm.yaml~"), format!("{n}")).unwrap();
            fs::rename(path.join("storm.yaml~"), path.join("storm.bak")).unwrap();
        }
    });
    let never_without = |t: &Desired| assert_eq!(t.pods.iter().filter(|p| p.name() == "a-node").count(), 1);
    for round in 0..5 {
        let image = format!("edit-{round}");
        bench.put("a.yaml", &pod("a", &image));
        bench.until(&image, never_without, |t| images(t) == [image.as_str()]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    storm.join().unwrap();
    bench.put("b.yaml", &pod("b", "after"));
    bench.until("after it", never_without, |t| images(t) == ["edit-4", "after"]).await;
}
