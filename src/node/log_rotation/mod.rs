//! Rotation of the containers' logs (`kubelet-static-pods.md 2.9`): a log that has grown too large is renamed, the runtime
//! goes on in a new one, older ones are compressed, the oldest go. Looks every ten seconds while a log grows, every minute
//! while none does, and not at all while nothing runs. Touches files below the pods' log directory only.

mod files;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use podstead_runtime::{Container, ContainerId, Runtime, Snapshot, Time};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::reconcile::View;
use files::{Attempts, attempts, put_back, set_aside, sweep, tidy};
pub use files::{COMPRESSED, rotated};

/// The longest pause between two looks, a little less than that between two rounds of the loop.
const QUIET: Duration = Duration::from_secs(50);

/// Pauses shorter than this are kept to the moment: who asks for such is not after a quiet processor.
const BRISK: Duration = Duration::from_secs(5);

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
    policy: watch::Receiver<Option<Policy>>,
    sizes: HashMap<ContainerId, u64>,
    /// The instances that had logs when those of others were taken away.
    swept: Attempts,
    /// What was complained of at the last look.
    said: BTreeSet<String>,
}

impl<R: Runtime> Rotator<R> {
    /// Of the logs in this directory.
    pub fn new(runtime: Arc<R>, logs_dir: PathBuf, policy: Option<Policy>) -> Self {
        Self::following(runtime, logs_dir, watch::channel(policy).1)
    }

    /// The same by a policy that may change.
    pub fn following(runtime: Arc<R>, logs_dir: PathBuf, policy: watch::Receiver<Option<Policy>>) -> Self {
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
        let mut policies = self.policy.clone();
        let mut pause = Duration::ZERO;
        loop {
            let period = policies.borrow_and_update().as_ref().map_or(QUIET, |policy| policy.period);
            let observed = Arc::clone(&view.borrow_and_update().observed);
            let running = running(&observed.snapshot);
            let grown = self.look(&observed.snapshot).await;
            if running.is_empty() {
                if view.changed().await.is_err() {
                    return;
                }
                pause = Duration::ZERO;
                continue;
            }
            pause = if grown { period } else { (pause.max(period) * 2).min(QUIET.max(period)) };
            let exact = grown || pause < BRISK;
            let rested = tokio::select! {
                rested = rest(pause, exact, &running, &mut view) => rested,
                () = changed(&mut policies) => Rested::Others,
            };
            match rested {
                Rested::Time => {}
                Rested::Others => pause = Duration::ZERO,
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
        let policy = self.policy.borrow().clone();
        for (container, found) in running.into_iter().zip(found) {
            let Some(policy) = &policy else { break };
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
    /// Other containers run now, or the rules are others.
    Others,
    /// The loop is gone.
    Gone,
}

/// Waits for another policy.
async fn changed(policies: &mut watch::Receiver<Option<Policy>>) {
    if policies.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
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

#[cfg(test)]
mod tests {
    use podstead_fake::{Fake, Fault, Verb};
    use podstead_runtime::{ContainerState, Error};

    use super::files::tests::names;
    use super::*;

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
}
