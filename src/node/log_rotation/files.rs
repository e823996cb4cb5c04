//! The files of one log: which there are, how one is set aside and older ones compressed, and which go. Touches the
//! directories of logs that it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use podstead_runtime::{Container, Time};

const TMP: &str = ".tmp";
/// How the names of compressed logs end.
pub const COMPRESSED: &str = ".gz";

/// Rotated files of a log, by name, which is by age.
pub fn rotated(log: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(BTreeMap::new());
    };
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(file) = entry.file_name().into_string() else { continue };
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        if rest.is_some_and(|rest| !rest.is_empty()) && entry.file_type()?.is_file() {
            found.insert(file, entry.path());
        }
    }
    Ok(found)
}

/// Makes room for one more file, and compresses those that are not yet. A file that cannot be compressed stays as it is:
/// a full disk must not stop rotation.
pub(super) fn tidy(log: &Path, max_files: usize) -> io::Result<()> {
    let mut files = rotated(log)?;
    let compressed: Vec<String> =
        files.keys().filter_map(|name| name.strip_suffix(COMPRESSED).map(str::to_owned)).collect();
    // Left by a compression that was broken off, or done already.
    let useless = |name: &String| name.ends_with(TMP) || compressed.contains(name);
    let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(&mut files).into_iter().partition(|(name, _)| useless(name));
    gone.values().try_for_each(fs::remove_file)?;
    // The log itself and what it is renamed to are two more.
    let excess = kept.len().saturating_sub(max_files.saturating_sub(2));
    for (index, (name, path)) in kept.iter().enumerate() {
        if index < excess {
            fs::remove_file(path)?;
        } else if !name.ends_with(COMPRESSED)
            && let Err(error) = compress(path)
        {
            tracing::debug!(file = %path.display(), "not compressed: {error}");
        }
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let tmp = with(TMP);
    let written = write_compressed(path, &tmp).and_then(|()| fs::rename(&tmp, with(COMPRESSED)));
    if written.is_err() {
        let _ = fs::remove_file(&tmp);
    }
    written.and_then(|()| fs::remove_file(path))
}

fn write_compressed(from: &Path, to: &Path) -> io::Result<()> {
    // Whoever can write the directory may have put a link there.
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut source = OpenOptions::new().read(true).custom_flags(nofollow).open(from)?;
    let mode = source.metadata()?.permissions().mode();
    let target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut source, &mut encoder)?;
    let file: File = encoder.finish()?;
    file.sync_data()
}

/// Renames the log by the time; `None` when there is one of this time already.
pub(super) fn set_aside(log: &Path, now: Time) -> io::Result<Option<PathBuf>> {
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(now.0)).map_err(io::Error::other)?;
    let mut name = log.as_os_str().to_owned();
    name.push(stamp.strftime(".%Y%m%d-%H%M%S").to_string());
    let aside = PathBuf::from(name);
    match rename_new(log, &aside) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        renamed => renamed.map(|()| Some(aside)),
    }
}

/// Gives the log its name back, unless there is a new one.
pub(super) fn put_back(aside: &Path, log: &Path) -> io::Result<()> {
    match rename_new(aside, log) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        renamed => renamed,
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// The instances of each container that the runtime still has, by the directory of their logs.
pub(super) type Attempts = BTreeMap<PathBuf, BTreeSet<u32>>;

pub(super) fn attempts(containers: &[&Container]) -> Attempts {
    let mut all = Attempts::new();
    for container in containers {
        if let Some(dir) = container.log_path.parent() {
            all.entry(dir.to_owned()).or_default().insert(container.attempt);
        }
    }
    all
}

/// Removes the logs of instances that are gone. The last one's stays in any case: it says which number is next.
pub(super) fn sweep(kept: &Attempts) -> io::Result<()> {
    for (dir, attempts) in kept {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        let number = |name: &str| name.split_once(".log").and_then(|(n, _)| n.parse::<u32>().ok());
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let Some(attempt) = entry.file_name().to_str().and_then(number) {
                files.push((attempt, entry.path()));
            }
        }
        let last = files.iter().map(|(attempt, _)| *attempt).max();
        for (attempt, path) in files {
            if Some(attempt) != last && !attempts.contains(&attempt) {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read as _;

    use super::*;

    pub(in crate::node::log_rotation) fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    fn unzipped(path: &Path) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    /// One rotation, as with a runtime that makes the new log at once.
    fn once(log: &Path, max_files: usize, second: i64) {
        tidy(log, max_files).unwrap();
        set_aside(log, Time::from_secs(1_767_225_600 + second)).unwrap().unwrap();
        fs::write(log, format!("after {second}")).unwrap();
    }

    #[test]
    fn older_ones_are_compressed_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(dir.path().join("1.log"), "another").unwrap();
        fs::write(&log, "first").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o640)).unwrap();
        once(&log, 3, 0);
        assert_eq!(names(dir.path()), ["0.log", "0.log.20260101-000000", "1.log"]);
        once(&log, 3, 1);
        let zipped = dir.path().join("0.log.20260101-000000.gz");
        assert_eq!(unzipped(&zipped), "first");
        assert_eq!(fs::metadata(&zipped).unwrap().permissions().mode() & 0o777, 0o640);
        for second in 2..9 {
            once(&log, 3, second);
            let own: Vec<_> = names(dir.path()).into_iter().filter(|n| n.starts_with("0.log")).collect();
            assert_eq!(own.len(), 3, "{own:?}");
        }
        assert_eq!(unzipped(&dir.path().join("0.log.20260101-000007.gz")), "after 6");
        once(&log, 2, 9);
        assert_eq!(names(dir.path()), ["0.log", "0.log.20260101-000009", "1.log"]);
    }

    #[test]
    fn what_a_broken_compression_left_goes_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("0.log.20260101-000000"), "done").unwrap();
        fs::write(at("0.log.20260101-000000.gz"), "gz").unwrap();
        fs::write(at("0.log.20260101-000001"), "todo").unwrap();
        fs::write(at("0.log.20260101-000001.tmp"), "half").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("0.log.20260101-000002")).unwrap();
        fs::write(at("0.log.20260101-000003"), "no room").unwrap();
        fs::create_dir(at("0.log.20260101-000003.gz")).unwrap();
        tidy(&at("0.log"), 9).unwrap();
        assert_eq!(
            names(dir.path()),
            [
                "0.log.20260101-000000.gz",
                "0.log.20260101-000001.gz",
                "0.log.20260101-000002",
                "0.log.20260101-000003",
                "0.log.20260101-000003.gz"
            ]
        );
        assert_eq!(unzipped(&at("0.log.20260101-000001.gz")), "todo");
        assert_eq!(fs::read_to_string(at("0.log.20260101-000003")).unwrap(), "no room");
    }

    #[test]
    fn nothing_takes_the_place_of_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let (log, aside) = (dir.path().join("0.log"), dir.path().join("0.log.19700101-000005"));
        fs::write(&log, "new").unwrap();
        fs::write(&aside, "old").unwrap();
        assert_eq!(set_aside(&log, Time::from_secs(5)).unwrap(), None);
        put_back(&aside, &log).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "new");
        fs::remove_file(&log).unwrap();
        put_back(&aside, &log).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "old");
    }

    #[test]
    fn logs_of_instances_that_are_gone_go_but_the_last() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.log", "0.log.20260101-000000.gz", "2.log", "3.log", "4.log", "other", "x.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let kept =
            |attempts: &[u32]| BTreeMap::from([(dir.path().to_owned(), attempts.iter().copied().collect())]);
        sweep(&kept(&[2, 3])).unwrap();
        assert_eq!(names(dir.path()), ["2.log", "3.log", "4.log", "other", "x.log"]);
        sweep(&kept(&[])).unwrap();
        assert_eq!(names(dir.path()), ["4.log", "other", "x.log"]);
        sweep(&BTreeMap::from([(dir.path().join("none"), BTreeSet::new())])).unwrap();
    }
}
