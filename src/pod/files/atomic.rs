//! Files of a volume that change all at once, as the kubelet writes them (`kubelet-static-pods.md 4.1`): they lie in a
//! directory with a time for its name, `..data` links to it, and what containers open are links through `..data`.
//! Touches only the volume's directory.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::ownership::{self, Access};
use crate::pod::volumes::Payload;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the files of the volume what they should be; whether that changed anything. The directory must exist.
pub(super) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let current = current(dir)?;
    let fresh = match &current {
        Some(name) => !holds(&dir.join(name), payload, group)?,
        None => true,
    };
    if fresh {
        let name = new_version(dir, payload, group)?;
        let link = dir.join(NEW_DATA);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(&name, &link)?;
        fs::rename(&link, dir.join(DATA))?;
    }
    let tops: BTreeSet<&str> = payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    let linked = links(dir, &tops)?;
    let removed = tidy(dir, &tops)?;
    Ok(fresh || linked || removed)
}

/// The name of the version that counts.
fn current(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_link(dir.join(DATA)) {
        Ok(target) => {
            let name = target.to_str().filter(|name| is_version(name) && !name.contains('/'));
            Ok(name.map(str::to_owned))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_version(name: &str) -> bool {
    name.starts_with("..") && name.len() > 2 && name != DATA && name != NEW_DATA
}

/// Whether a version is this very one, permissions included.
fn holds(version: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let entries = match fs::read_dir(version.join(&below)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                todo.push(path);
                continue;
            }
            let Some(wanted) = path.to_str().and_then(|path| payload.get(path)) else { return Ok(false) };
            let full = version.join(&path);
            let as_wanted = ownership::is(&full, wanted.mode, group, Access::Read)?;
            if !as_wanted || fs::read(&full)? != wanted.bytes {
                return Ok(false);
            }
            found.insert(path);
        }
    }
    Ok(found.len() == payload.len())
}

/// Writes all files into a new directory and returns its name.
fn new_version(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<String> {
    let (name, version) = loop {
        let now = jiff::Timestamp::now();
        let name = format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
        let version = dir.join(&name);
        match fs::create_dir(&version) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => break made.map(|()| (name, version))?,
        }
    };
    directory(&version, group)?;
    for (path, content) in payload {
        let file = version.join(path);
        let parents = Path::new(path).ancestors().skip(1).collect::<Vec<_>>();
        for parent in parents.into_iter().rev().filter(|p| !p.as_os_str().is_empty()) {
            match fs::create_dir(version.join(parent)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.and_then(|()| directory(&version.join(parent), group))?,
            }
        }
        let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        open.write_all(&content.bytes)?;
        ownership::set(&file, content.mode, group, Access::Read)?;
    }
    Ok(name)
}

fn directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    ownership::set(path, 0o755, group, Access::Read)
}

/// Makes the links that containers see; whether one was missing.
fn links(dir: &Path, tops: &BTreeSet<&str>) -> io::Result<bool> {
    let mut changed = false;
    for top in tops {
        match symlink(Path::new(DATA).join(top), dir.join(top)) {
            Ok(()) => changed = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

/// Removes links to what is not there any more, and all versions but the one that counts.
fn tidy(dir: &Path, tops: &BTreeSet<&str>) -> io::Result<bool> {
    let current = current(dir)?;
    let mut changed = false;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let known = name
            .to_str()
            .is_some_and(|name| name == DATA || tops.contains(name) || current.as_deref() == Some(name));
        if known {
            continue;
        }
        changed = true;
        if entry.file_type()?.is_dir() {
            podstead_trees::remove(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::tests::is_root;
    use super::*;
    use crate::pod::volumes::FileContent;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |(path, text, mode): &(&str, &str, u32)| {
            ((*path).to_owned(), FileContent { bytes: text.as_bytes().to_vec(), mode: *mode })
        };
        files.iter().map(file).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !is_version(name))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn files_are_read_through_links_and_have_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = payload(&[("labels", "a=\"b\"", 0o400), ("x/y/z", "1", 0o640)]);
        assert!(write(dir.path(), &files, None).unwrap());
        assert_eq!(names(dir.path()), ["..data", "labels", "x"]);
        assert_eq!(fs::read_link(at("x")).unwrap(), Path::new("..data/x"));
        assert_eq!(fs::read_to_string(at("labels")).unwrap(), "a=\"b\"");
        let mode = |name: &str| fs::metadata(at(name)).unwrap().mode() & 0o7777;
        assert_eq!(
            (mode("labels"), mode("x/y/z"), mode("x/y"), mode("..data")),
            (0o400, 0o640, 0o755, 0o755)
        );
        let version = current(dir.path()).unwrap().unwrap();
        assert!(version.starts_with("..20") && version.len() > 24, "{version}");
        assert!(!write(dir.path(), &files, None).unwrap(), "nothing to do");
        assert_eq!(current(dir.path()).unwrap().unwrap(), version);
    }

    #[test]
    fn a_change_of_anything_makes_a_new_version_and_takes_the_old_one_away() {
        let dir = tempfile::tempdir().unwrap();
        let first = payload(&[("a", "1", 0o644), ("b/c", "2", 0o644)]);
        write(dir.path(), &first, None).unwrap();
        let mut last = current(dir.path()).unwrap();
        for next in [
            payload(&[("a", "2", 0o644), ("b/c", "2", 0o644)]),
            payload(&[("a", "2", 0o600), ("b/c", "2", 0o644)]),
            payload(&[("a", "2", 0o600)]),
            payload(&[("a", "2", 0o600), ("d", "", 0o644)]),
            payload(&[]),
        ] {
            assert!(write(dir.path(), &next, None).unwrap(), "{next:?}");
            let now = current(dir.path()).unwrap();
            assert_ne!(now, last);
            last = now;
            let tops: Vec<&str> = next.keys().map(|k| k.split('/').next().unwrap()).collect();
            assert_eq!(names(dir.path()), [&["..data"], &tops[..]].concat());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), tops.len() + 2, "one version only");
        }
    }

    #[test]
    fn what_a_killed_writer_left_is_taken_away_and_completed() {
        let dir = tempfile::tempdir().unwrap();
        let files = payload(&[("a", "1", 0o644)]);
        write(dir.path(), &files, None).unwrap();
        fs::create_dir_all(dir.path().join("..2020_01_01_00_00_00.1/sub")).unwrap();
        symlink("..2020", dir.path().join(NEW_DATA)).unwrap();
        fs::remove_file(dir.path().join("a")).unwrap();
        assert!(write(dir.path(), &files, None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert!(write(dir.path(), &payload(&[("a", "2", 0o644)]), None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "2");
    }

    #[test]
    fn a_group_may_read_but_not_write() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let files = payload(&[("a", "1", 0o400), ("b/c", "1", 0o644)]);
        write(dir.path(), &files, Some(4711)).unwrap();
        assert!(!write(dir.path(), &files, Some(4711)).unwrap());
        let of = |name: &str| {
            let found = fs::metadata(dir.path().join(name)).unwrap();
            (found.gid(), found.mode() & 0o7777)
        };
        assert_eq!(of("a"), (4711, 0o440));
        assert_eq!(of("b/c"), (4711, 0o644));
        assert_eq!(of("b"), (4711, 0o2755));
        assert!(write(dir.path(), &files, Some(4712)).unwrap());
    }
}
