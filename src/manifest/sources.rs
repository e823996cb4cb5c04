//! Starts the sources that are configured. Touches nothing itself but the records of a URL that is no longer configured.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::desired::Desired;
use super::events::{Hint, Mailbox};
use super::last_good::LastGood;
use super::merge::{Merger, Slot};
use super::source::{Reading, Source};
use super::tracked::{GONE, Now};
use super::trust::Waivers;
use super::url::{self, UrlConfig};
use super::watch::{Period, Worker};

/// Where manifests come from.
#[derive(Debug, Clone)]
pub struct SourcesConfig {
    /// Directories, or single files, in the order of their precedence, the highest last (`--pod-manifest-path`).
    pub paths: Vec<PathBuf>,
    /// A document behind a URL (`--manifest-url`).
    pub url: Option<UrlConfig>,
    /// The node's name; trimmed and lower-cased here.
    pub node: String,
    /// How often everything is read without an event (`--file-check-frequency`); the kubelet's default is 20 s.
    pub file_check_frequency: Duration,
    /// Which doubts about files are waived.
    pub waived: Waivers,
    /// The agent's root directory; last good versions are kept in `manifests` below it.
    pub root_dir: PathBuf,
}

/// A source could not be started.
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

/// The running sources; dropped, they end, and the thread of the files is joined.
#[derive(Debug)]
pub struct Sources {
    mailbox: Arc<Mailbox>,
    /// `None` without a path: nothing is to be read again.
    period: Option<Arc<Period>>,
    kick: Arc<Notify>,
    url: Option<AbortHandle>,
    thread: Option<JoinHandle<()>>,
}

impl Sources {
    /// Reads everything now, without waiting for an event or the tick.
    pub fn rescan(&self) {
        self.mailbox.wake();
        self.kick.notify_one();
    }

    /// Changes how often files are looked at without an event, from now on.
    pub fn set_file_check_frequency(&self, period: Duration) {
        if let Some(known) = &self.period {
            known.set(period);
            self.mailbox.wake();
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        if let Some(url) = self.url.take() {
            url.abort();
        }
        self.mailbox.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads manifests panicked");
        }
    }
}

/// Without a path nothing is to be read again.
const NEVER: Duration = Duration::from_secs(86_400);

/// Starts the sources; within a tokio runtime if one of them is a URL. The receiver holds an empty table that is not
/// ready until each source has said what it knows; what cannot be read is no error here but one in the table.
pub fn spawn(config: SourcesConfig) -> Result<(watch::Receiver<Arc<Desired>>, Sources), SpawnError> {
    let paths = absolute(&config.paths)?;
    let (sender, receiver) = watch::channel(Arc::new(Desired::default()));
    let slots = if config.url.is_some() { &[Slot::Files, Slot::Url][..] } else { &[Slot::Files] };
    let merger = Arc::new(Merger::new(slots, sender));
    let mailbox = Arc::new(Mailbox::default());
    let period = if paths.is_empty() { NEVER } else { config.file_check_frequency };
    let period = Arc::new(Period::new(period));
    let changeable = (!paths.is_empty()).then(|| Arc::clone(&period));
    let worker = Worker {
        others: config.url.is_some(),
        node: config.node.clone(),
        waived: config.waived,
        period,
        store: LastGood::new(&config.root_dir),
        merger: Arc::clone(&merger),
        mailbox: Arc::clone(&mailbox),
        paths,
    };
    let thread = std::thread::Builder::new()
        .name("manifests".into())
        .spawn(move || worker.run())
        .map_err(SpawnError::Thread)?;
    let kick = Arc::new(Notify::new());
    let store = url::Store::new(&config.root_dir);
    let url = if let Some(url) = config.url {
        Some(tokio::spawn(url::run(url, config.node, store, merger, Arc::clone(&kick))).abort_handle())
    } else {
        if let Err(error) = store.forget_others(None) {
            tracing::warn!("{error}");
        }
        None
    };
    Ok((receiver, Sources { mailbox, period: changeable, kick, url, thread: Some(thread) }))
}

/// Reads what an agent with this configuration would read and tells what it would think, without one: nothing is written,
/// no URL is asked, and nobody is waited for who is just writing.
pub fn look(config: &SourcesConfig) -> Result<Desired, SpawnError> {
    let paths = absolute(&config.paths)?;
    let others = config.url.is_some();
    let (sender, receiver) = watch::channel(Arc::default());
    let slots = if others { &[Slot::Files, Slot::Url][..] } else { &[Slot::Files] };
    let merger = Merger::new(slots, sender);
    let now = Now::read();
    let store = LastGood::to_look_at(&config.root_dir);
    let mut source = Source::new(&paths, others, &config.node, config.waived, &store, now);
    merger.restored(source.good());
    if let Some(url) = &config.url {
        let store = url::Store::new(&config.root_dir);
        merger.update(Slot::Url, url::look(&url.shown(), &config.node, &store, "not asked: no agent runs"));
    }
    // Twice: what is missing must stay away for a moment, which is now said to be over.
    let later = Now { steady: now.steady + GONE, ..now };
    for now in [now, later] {
        let hints = |_: &Path| Some(Hint::Complete(now.wall));
        let (part, _) = source.scan(Reading { now, hints: &hints, full: true });
        merger.update(Slot::Files, part);
    }
    let table = receiver.borrow().as_ref().clone();
    Ok(table)
}

/// The paths, absolute, each once.
pub(crate) fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, SpawnError> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in paths {
        let found = std::path::absolute(path)
            .map(|path| path.components().collect::<PathBuf>())
            .map_err(|source| SpawnError::Path { path: path.clone(), source })?;
        // Named again, it has the precedence of the last place.
        all.retain(|known| *known != found);
        all.push(found);
    }
    Ok(all)
}
