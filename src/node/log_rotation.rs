//! Rotation of the containers' logs (`kubelet-static-pods.md 2.9`): a log that has grown too large is renamed, the runtime
//! goes on in a new one, older ones are compressed, the oldest go. Looks every ten seconds while a log grows, every minute
//! while none does, and not at all while nothing runs. Touches files below the pods' log directory only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use podstead_runtime::{Container, ContainerId, Runtime, Snapshot, Time};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::reconcile::View;

/// The longest pause between two looks, a little less than that between two rounds of the loop.
const QUIET: Duration = Duration::from_secs(50);
const TMP: &str = ".tmp";
/// How the names of compressed logs end.
pub const COMPRESSED: &str = ".gz";

/// When logs are rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes from which a log is.
    pub max_size: u64,
    /// Files of one log, the present one included; at least 2.
    pub max_files: usize,
    /// How often it is looked while a log grows.
    pub period: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5, period: Duration::from_secs(10) }
    }
}

/// Rotates logs.
#[derive(Debug)]
pub struct Rotator<R> {
    runtime: Arc<R>,
    logs_dir: PathBuf,
    /// `None`: nothing is rotated; logs of instances that are gone go nevertheless.
    policy: Option<Policy>,
    sizes: HashMap<ContainerId, u64>,
    /// The instances that had logs when those of others were taken away.
    swept: Attempts,
    /// What was complained of at the last look.
    said: BTreeSet<String>,
}

impl<R: Runtime> Rotator<R> {
    /// Of the logs in this directory.
    pub fn new(runtime: Arc<R>, logs_dir: PathBuf, policy: Option<Policy>) -> Self {
        Self {
            runtime,
            logs_dir,
            policy,
            sizes: HashMap::new(),
            swept: Attempts::new(),
            said: BTreeSet::new(),
        }
    }

    /// Rotates until the loop is gone.
    pub async fn run(mut self, mut view: watch::Receiver<View>) {
        let period = self.policy.as_ref().map_or(QUIET, |policy| policy.period);
        let mut pause = period;
        loop {
            let observed = Arc::clone(&view.borrow_and_update().observed);
            let running = running(&observed.snapshot);
            let grown = self.look(&observed.snapshot).await;
            if running.is_empty() {
                if view.changed().await.is_err() {
                    return;
                }
                pause = period;
                continue;
            }
            pause = if grown { period } else { (pause * 2).min(QUIET.max(period)) };
            match rest(pause, pause == period, &running, &mut view).await {
                Rested::Time => {}
                Rested::Others => pause = period,
                Rested::Gone => return,
            }
        }
    }

    /// Looks at all logs once; whether any has grown.
    pub async fn look(&mut self, snapshot: &Snapshot) -> bool {
        let logs: Vec<&Container> =
            snapshot.containers.iter().filter(|c| self.is_ours(&c.log_path)).collect();
        let mut complaints = Vec::new();
        let mut sizes = HashMap::new();
        let running: Vec<&Container> = logs.iter().copied().filter(|c| c.is_running()).collect();
        let paths: Vec<PathBuf> = running.iter().map(|c| c.log_path.clone()).collect();
        let kept = attempts(&logs);
        let sweeping = (kept != self.swept).then(|| kept.clone());
        // All at once: at rest this is all that is done, and it wakes one thread.
        let read = move || {
            let swept = sweeping.as_ref().map_or(Ok(()), sweep);
            (paths.iter().map(fs::symlink_metadata).collect::<Vec<_>>(), swept)
        };
        let (found, swept) = tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| (Vec::new(), Ok(())));
        match swept {
            Ok(()) => self.swept = kept,
            Err(error) => complaints.push(error.to_string()),
        }
        for (container, found) in running.into_iter().zip(found) {
            let Some(policy) = &self.policy else { break };
            match rotate(&*self.runtime, &container.id, &container.log_path, found, policy).await {
                Ok(size) => drop(sizes.insert(container.id.clone(), size)),
                Err(why) => complaints.push(format!("{}: {why}", container.log_path.display())),
            }
        }
        let new = complaints.iter().filter(|complaint| !self.said.contains(*complaint));
        new.for_each(|complaint| tracing::warn!("log rotation: {complaint}"));
        self.said = complaints.into_iter().collect();
        let grown = sizes.iter().any(|(id, size)| self.sizes.get(id) != Some(size));
        self.sizes = sizes;
        grown
    }

    fn is_ours(&self, log: &Path) -> bool {
        log.starts_with(&self.logs_dir) && !log.components().any(|part| part == Component::ParentDir)
    }
}

fn running(snapshot: &Snapshot) -> BTreeSet<ContainerId> {
    snapshot.containers.iter().filter(|c| c.is_running()).map(|c| c.id.clone()).collect()
}

/// What ended a pause.
enum Rested {
    /// Its time.
    Time,
    /// Other containers run now.
    Others,
    /// The loop is gone.
    Gone,
}

/// Waits for a time, or until other containers run, or nobody tells any more. Unless it must be `exact`, the first round of
/// the loop after that time ends it: the processor is awake then, and a round comes within a minute.
async fn rest(
    pause: Duration,
    exact: bool,
    before: &BTreeSet<ContainerId>,
    view: &mut watch::Receiver<View>,
) -> Rested {
    let begun = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(begun + pause), if exact => return Rested::Time,
            changed = view.changed() => match changed {
                Err(_) => return Rested::Gone,
                Ok(()) if running(&view.borrow_and_update().observed.snapshot) != *before => {
                    return Rested::Others;
                }
                Ok(()) if begun.elapsed() >= pause => return Rested::Time,
                Ok(()) => {}
            }
        }
    }
}

/// Rotates one log if it is too large; answers its size as it was. The error is for people.
async fn rotate<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    log: &Path,
    found: io::Result<Metadata>,
    policy: &Policy,
) -> Result<u64, String> {
    let size = match found {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return Err("it is not a regular file".into()),
        // Lost in an earlier rotation: the runtime makes it anew.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return runtime.reopen_log(id).await.map(|()| 0).map_err(|error| error.to_string());
        }
        Err(error) => return Err(error.to_string()),
    };
    if size < policy.max_size {
        return Ok(size);
    }
    let (path, max_files) = (log.to_owned(), policy.max_files);
    let aside = tokio::task::spawn_blocking(move || {
        tidy(&path, max_files)?;
        set_aside(&path, Time::now())
    });
    let aside = match aside.await {
        Ok(Ok(Some(aside))) => aside,
        // Another in the same second: at the next look.
        Ok(Ok(None)) => return Ok(size),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    let reopened = runtime.reopen_log(id).await;
    // Also after a success: one that has just ended has no new log.
    let (from, to) = (aside.clone(), log.to_owned());
    let back = tokio::task::spawn_blocking(move || put_back(&from, &to)).await;
    match (reopened, back) {
        (Ok(()), _) => Ok(0),
        (Err(error), Ok(Err(lost))) => Err(format!("{error}; it stays {}: {lost}", aside.display())),
        (Err(error), _) => Err(error.to_string()),
    }
}

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
fn tidy(log: &Path, max_files: usize) -> io::Result<()> {
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
fn set_aside(log: &Path, now: Time) -> io::Result<Option<PathBuf>> {
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
fn put_back(aside: &Path, log: &Path) -> io::Result<()> {
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
type Attempts = BTreeMap<PathBuf, BTreeSet<u32>>;

fn attempts(containers: &[&Container]) -> Attempts {
    let mut all = Attempts::new();
    for container in containers {
        if let Some(dir) = container.log_path.parent() {
            all.entry(dir.to_owned()).or_default().insert(container.attempt);
        }
    }
    all
}

/// Removes the logs of instances that are gone. The last one's stays in any case: it says which number is next.
fn sweep(kept: &Attempts) -> io::Result<()> {
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
mod tests {
    use std::io::Read as _;

    use podstead_fake::{Fake, Fault, Verb};
    use podstead_runtime::{ContainerState, Error};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
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

    fn policy(max_size: u64) -> Policy {
        Policy { max_size, ..Policy::default() }
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_reopened_gets_its_name_back_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "12345").unwrap();
        let (fake, id) = (Fake::new(), ContainerId::from("c"));
        assert_eq!(rotate(&fake, &id, &log, fs::symlink_metadata(&log), &policy(6)).await, Ok(5));
        assert_eq!(fake.take_calls(), [""; 0], "small enough");
        fake.fault(Verb::Exec, Fault::Before(Error::failed("reopen the log", "no")));
        assert_eq!(
            rotate(&fake, &id, &log, fs::symlink_metadata(&log), &policy(5)).await,
            Err("reopen the log: no".into())
        );
        assert_eq!(names(dir.path()), ["0.log"]);
        assert_eq!(fs::read_to_string(&log).unwrap(), "12345");
        fs::remove_file(&log).unwrap();
        fake.fault(Verb::Exec, Fault::Before(Error::failed("reopen the log", "asked for a lost one")));
        let lost = rotate(&fake, &id, &log, fs::symlink_metadata(&log), &policy(5)).await;
        assert_eq!(lost, Err("reopen the log: asked for a lost one".into()));
    }

    #[tokio::test]
    async fn only_logs_of_running_containers_below_the_logs_directory_are_touched() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let put = |path: &str, id: &str, state: ContainerState| {
            let log_path = dir.path().join(path);
            fs::create_dir_all(log_path.parent().unwrap()).unwrap();
            fs::write(&log_path, "12345").unwrap();
            Container { id: ContainerId::from(id), log_path, state, ..Container::default() }
        };
        let running = || ContainerState::Running { started_at: Time(1) };
        let containers = vec![
            put("logs/p/outside/../../../elsewhere.log", "up", running()),
            put("other/0.log", "other", running()),
            put("logs/p/over/0.log", "over", ContainerState::Created),
            put("logs/p/c/0.log", "ours", running()),
        ];
        let snapshot = Snapshot { sandboxes: vec![], containers };
        let fake = Fake::new();
        let mut rotator = Rotator::new(Arc::new(fake.clone()), logs, Some(policy(1)));
        rotator.look(&snapshot).await;
        let calls = fake.take_calls();
        assert!(calls.len() == 1 && calls[0].contains("ours"), "{calls:?}");
        let mut off = Rotator::new(Arc::new(fake.clone()), dir.path().join("logs"), None);
        assert!(!off.look(&snapshot).await);
        assert_eq!(fake.take_calls(), [""; 0]);
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
