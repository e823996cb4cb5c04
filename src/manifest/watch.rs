//! The file source's own thread: watches, reads, and publishes the table when it changed.
//! Touches the manifests' directory (reading) and `<root>/manifests/last-good/` (writing).
//!
//! Events are hints: each one leads to a full reading, as does a tick every `file_check_frequency`. A thread and
//! not a task, because reading files may block.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::desired::Desired;
use super::events::{Mailbox, Watch};
use super::last_good::LastGood;
use super::read;
use super::source::Source;
use super::tracked::Now;

/// Where manifests come from.
#[derive(Debug, Clone)]
pub struct FileSourceConfig {
    /// A directory, or a single file (`--pod-manifest-path`).
    pub path: PathBuf,
    /// The node's name; trimmed and lower-cased here.
    pub node: String,
    /// How often everything is read without an event (`--file-check-frequency`); the kubelet's default is 20 s.
    pub file_check_frequency: Duration,
    /// The agent's root directory; last good versions are kept in `manifests/last-good` below it.
    pub root_dir: PathBuf,
}

/// A file source could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The path cannot be made absolute.
    #[error("the manifest path {} is not usable: {source}; give an absolute path", path.display())]
    Path {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start the thread that reads manifests: {0}")]
    Thread(io::Error),
}

/// A running file source; dropped, it ends and its thread is joined.
#[derive(Debug)]
pub struct FileSource {
    mailbox: Arc<Mailbox>,
    period: Arc<Period>,
    thread: Option<JoinHandle<()>>,
}

impl FileSource {
    /// Reads everything now, without waiting for an event or the tick.
    pub fn rescan(&self) {
        self.mailbox.wake();
    }

    /// Changes how often everything is read without an event, from now on.
    pub fn set_file_check_frequency(&self, period: Duration) {
        self.period.set(period);
        self.mailbox.wake();
    }
}

/// How often everything is read without an event; never less than a millisecond.
#[derive(Debug)]
struct Period(AtomicU64);

impl Period {
    fn new(period: Duration) -> Self {
        let this = Self(AtomicU64::new(1));
        this.set(period);
        this
    }

    fn set(&self, period: Duration) {
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis.max(1), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        self.mailbox.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads manifests panicked");
        }
    }
}

/// Starts the file source. The receiver holds an empty table that is not ready until the first reading is done;
/// a path that cannot be read is no error here but one in the table.
pub fn spawn(config: FileSourceConfig) -> Result<(watch::Receiver<Arc<Desired>>, FileSource), SpawnError> {
    let path = std::path::absolute(&config.path)
        .map(|path| path.components().collect::<PathBuf>())
        .map_err(|source| SpawnError::Path { path: config.path.clone(), source })?;
    let (sender, receiver) = watch::channel(Arc::new(Desired::default()));
    let mailbox = Arc::new(Mailbox::default());
    let period = Arc::new(Period::new(config.file_check_frequency));
    let worker = Worker {
        config: FileSourceConfig { path, ..config },
        sender,
        mailbox: Arc::clone(&mailbox),
        period: Arc::clone(&period),
    };
    let thread = std::thread::Builder::new()
        .name("manifests".into())
        .spawn(move || worker.run())
        .map_err(SpawnError::Thread)?;
    Ok((receiver, FileSource { mailbox, period, thread: Some(thread) }))
}

/// First and longest pause between two attempts to watch.
const REARM_MIN: Duration = Duration::from_millis(20);
const REARM_MAX: Duration = Duration::from_secs(1);

/// The watch and how it stands.
struct Armed {
    watch: Option<(Watch, PathBuf, (u64, u64))>,
    pause: Duration,
    tried: Option<Instant>,
}

struct Worker {
    config: FileSourceConfig,
    sender: watch::Sender<Arc<Desired>>,
    mailbox: Arc<Mailbox>,
    period: Arc<Period>,
}

impl Worker {
    fn run(self) {
        let store = LastGood::new(&self.config.root_dir);
        let mut source = Source::new(self.config.path.clone(), &self.config.node, &store, Now::read());
        let mut armed = Armed { watch: None, pause: REARM_MIN, tried: None };
        loop {
            // First the watch, then the reading: what changes in between is seen at least once.
            self.arm(&mut source, &mut armed);
            let (desired, again) = source.scan(Now::read(), &|name| self.mailbox.hint(name));
            self.publish(desired);
            self.save(&store, &mut source, false);
            let mut timeout = self.period.get();
            timeout = again.map_or(timeout, |again| timeout.min(again));
            if armed.watch.is_none() {
                timeout = timeout.min(armed.pause);
            }
            let wake = self.mailbox.wait(timeout);
            if wake.stop {
                self.save(&store, &mut source, true);
                return;
            }
            if wake.rearm {
                armed.watch = None;
            }
        }
    }

    /// Watches the directory that stands at the path now.
    fn arm(&self, source: &mut Source, armed: &mut Armed) {
        let place = source.watched().and_then(|(directory, only)| {
            let identity = read::identity(&directory)?;
            Ok((directory, only, identity))
        });
        let Ok((directory, only, identity)) = place else {
            armed.watch = None;
            armed.pause = (armed.pause * 2).min(REARM_MAX);
            return;
        };
        if armed.watch.as_ref().is_some_and(|(_, path, known)| *path == directory && *known == identity) {
            armed.pause = REARM_MIN;
            return;
        }
        if armed.tried.is_some_and(|tried| tried.elapsed() < armed.pause) {
            return;
        }
        armed.tried = Some(Instant::now());
        armed.watch = None;
        match Watch::new(&self.mailbox, &directory, only) {
            Ok(watch) => {
                armed.watch = Some((watch, directory, identity));
                armed.pause = REARM_MIN;
            }
            Err(error) => {
                warn_once(armed.pause, &directory, &error);
                armed.pause = (armed.pause * 2).min(REARM_MAX);
            }
        }
    }

    fn publish(&self, desired: Desired) {
        self.sender.send_if_modified(|current| {
            let changed = **current != desired;
            if changed {
                *current = Arc::new(desired);
            }
            changed
        });
    }

    /// Writes last good versions, after the table was published and, but for the `last` time, only while nothing
    /// else is to do: a sync must not delay a pod.
    fn save(&self, store: &LastGood, source: &mut Source, last: bool) {
        while (last || !self.mailbox.is_woken())
            && let Some((path, bytes)) = source.next_unsaved()
        {
            let saved = match &bytes {
                Some(bytes) => store.save(&path, bytes),
                None => store.remove(&path),
            };
            if let Err(error) = saved {
                tracing::warn!(manifest = %path.display(), %error, "tried again at the next reading");
                source.put_back(path, bytes);
                return;
            }
        }
    }
}

fn warn_once(pause: Duration, directory: &Path, error: &notify::Error) {
    if pause == REARM_MIN {
        tracing::warn!(
            directory = %directory.display(), %error,
            "cannot watch the manifests; until it works they are read every second"
        );
    }
}
