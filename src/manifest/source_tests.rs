//! The file source without its thread: readings at chosen moments.

use super::*;

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";

fn source(base: &Path, paths: &[PathBuf], now: Now) -> Source {
    Source::new(paths, false, "n", Waivers::default(), &LastGood::new(base), now)
}

fn at(now: Now) -> Reading<'static> {
    Reading { now, hints: &|_| None, full: true }
}

fn later(now: Now, seconds: u64) -> Now {
    let by = Duration::from_secs(seconds);
    Now { steady: now.steady + by, wall: now.wall + by, ..now }
}

fn pods(part: &Part) -> usize {
    part.good.iter().map(|(_, pods)| pods.len()).sum()
}

#[test]
fn the_source_is_not_ready_while_an_unknown_file_has_not_settled() {
    let base = tempfile::tempdir().unwrap();
    let manifests = base.path().join("m");
    std::fs::create_dir(&manifests).unwrap();
    std::fs::write(manifests.join("a.yaml"), POD).unwrap();
    let modified = std::fs::metadata(manifests.join("a.yaml")).unwrap().modified().unwrap();
    let now = Now { wall: modified, ..Now::read() };
    let mut source = source(base.path(), &[manifests], now);
    let (part, again) = source.scan(at(now));
    assert!(!part.ready && pods(&part) == 0 && again.is_some());
    let (part, again) = source.scan(at(later(now, 1)));
    assert!(part.ready && pods(&part) == 1 && again.is_none());
}

#[test]
fn a_file_that_rests_is_not_read_again_until_it_changes_or_everything_is_read() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("m/a.yaml");
    std::fs::create_dir(base.path().join("m")).unwrap();
    std::fs::write(&path, POD).unwrap();
    let now = later(Now::read(), 10);
    let mut source = source(base.path(), &[base.path().join("m")], now);
    source.scan(at(now));
    let judged = |source: &Source| source.files[&path].stamp;
    assert!(judged(&source).is_some(), "its times are of the past");
    // A mark that only a reading takes away.
    source.files.get_mut(&path).unwrap().good.as_mut().unwrap().0 = [0; 32];
    let quick = Reading { full: false, ..at(now) };
    source.scan(quick);
    assert_eq!(source.files[&path].good.as_ref().unwrap().0, [0; 32], "not read");
    std::fs::write(&path, format!("{POD}\n")).unwrap();
    source.scan(Reading { now: later(now, 20), ..quick });
    assert_eq!(source.files[&path].good.as_ref().unwrap().0, hash(format!("{POD}\n").as_bytes()));
    source.files.get_mut(&path).unwrap().good.as_mut().unwrap().0 = [0; 32];
    source.scan(at(later(now, 30)));
    assert_ne!(source.files[&path].good.as_ref().unwrap().0, [0; 32], "a full reading reads everything");
    // Changed in the very moment it was read: its stamp tells nothing.
    let young = Now { wall: std::fs::metadata(&path).unwrap().modified().unwrap(), ..now };
    source.scan(at(young));
    assert!(judged(&source).is_none());
}

#[test]
fn an_empty_directory_of_another_file_system_takes_no_pods_away() {
    let base = tempfile::tempdir().unwrap();
    let full = base.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("a.yaml"), POD).unwrap();
    let now = later(Now::read(), 10);
    let mut source = source(base.path(), std::slice::from_ref(&full), now);
    let (part, _) = source.scan(at(now));
    assert_eq!(pods(&part), 1);
    // As if it were mounted anew with nothing on it: the device is another one.
    source.places[0].on_another_device();
    std::fs::remove_file(full.join("a.yaml")).unwrap();
    for second in 1..4 {
        let (part, _) = source.scan(at(later(now, second)));
        assert_eq!(pods(&part), 1);
        let error = part.sources[0].error.as_ref().unwrap().message.clone();
        assert!(error.contains("another file system"), "{error}");
    }
    std::fs::write(full.join(".meant"), "").unwrap();
    source.scan(at(later(now, 5)));
    let (part, _) = source.scan(at(later(now, 6)));
    assert_eq!((pods(&part), part.sources[0].error.as_ref()), (0, None));
}
