//! The file source's own thread: watches, reads, and tells the merger what it knows.
//! Touches the manifests' directories (reading) and `<root>/manifests/last-good/` (writing).
//!
//! Events are hints: each one leads to a look at every file, like the tick every `file_check_frequency`; what looks as it
//! did is opened no more often than every 50 s, because that wakes whoever watches the directory, this agent among them.
//! A thread and not a task, because reading files may block.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::events::{Mailbox, Watch};
use super::last_good::LastGood;
use super::merge::{Merger, Slot};
use super::place::Spot;
use super::source::{Reading, Source};
use super::tracked::Now;
use super::trust::Waivers;

/// How long a file that looks as it did is not read again. Not for ever: where files are served over a network, or mapped
/// by who writes them, what they look like may lag behind.
const TRUSTED: Duration = Duration::from_secs(50);
/// First and longest pause between two attempts to watch.
const REARM_MIN: Duration = Duration::from_millis(20);
const REARM_MAX: Duration = Duration::from_secs(1);
/// How long events gather at most after a reading, so that a storm of them does not keep the thread reading.
const REST: Duration = Duration::from_millis(200);

/// The watch and how it stands.
struct Armed {
    watch: Option<(Watch, Vec<Spot>)>,
    pause: Duration,
    tried: Option<Instant>,
}

/// How often everything is looked at without an event; never less than a millisecond.
#[derive(Debug)]
pub(crate) struct Period(AtomicU64);

impl Period {
    pub(crate) fn new(period: Duration) -> Self {
        let this = Self(AtomicU64::new(1));
        this.set(period);
        this
    }

    pub(crate) fn set(&self, period: Duration) {
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis.max(1), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

pub(crate) struct Worker {
    pub(crate) paths: Vec<PathBuf>,
    /// There is a source beside these.
    pub(crate) others: bool,
    pub(crate) node: String,
    pub(crate) waived: Waivers,
    pub(crate) period: Arc<Period>,
    pub(crate) store: LastGood,
    pub(crate) merger: Arc<Merger>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Worker {
    /// Runs until the mailbox says stop.
    pub(crate) fn run(self) {
        let mut source =
            Source::new(&self.paths, self.others, &self.node, self.waived, &self.store, Now::read());
        self.merger.restored(source.good());
        let mut armed = Armed { watch: None, pause: REARM_MIN, tried: None };
        let (mut full, mut complete) = (true, Instant::now());
        loop {
            let begun = Instant::now();
            full |= begun.saturating_duration_since(complete) >= TRUSTED.max(self.period.get());
            if full {
                complete = begun;
            }
            // First the watch, then the reading: what changes in between is seen at least once.
            self.arm(&mut source, &mut armed);
            let hints = |path: &std::path::Path| self.mailbox.hint(path);
            let (part, again) = source.scan(Reading { now: Now::read(), hints: &hints, full });
            let lost = self.merger.update(Slot::Files, part);
            if let Some(lost) = lost {
                source.take_fresh(&lost);
            }
            let took = begun.elapsed();
            self.save(&mut source, false);
            let mut timeout = (begun + self.period.get()).saturating_duration_since(Instant::now());
            timeout = again.map_or(timeout, |again| timeout.min(again));
            if armed.watch.is_none() {
                timeout = timeout.min(armed.pause);
            }
            if self.mailbox.is_woken() {
                self.mailbox.rest(took.min(REST));
            }
            let wake = self.mailbox.wait(timeout);
            if wake.stop {
                self.save(&mut source, true);
                return;
            }
            full = wake.full;
            if wake.rearm {
                armed.watch = None;
            }
        }
    }

    /// Watches what stands at the paths now.
    fn arm(&self, source: &mut Source, armed: &mut Armed) {
        for _ in 0..3 {
            let spots = source.spots();
            if armed.watch.as_ref().is_some_and(|(_, known)| *known == spots) {
                armed.pause = REARM_MIN;
                return;
            }
            if armed.tried.is_some_and(|tried| tried.elapsed() < armed.pause) && armed.watch.is_none() {
                return;
            }
            armed.tried = Some(Instant::now());
            armed.watch = None;
            match Watch::new(&self.mailbox, &spots) {
                // Once more: the way may have changed before it was watched.
                Ok(watch) => armed.watch = Some((watch, spots)),
                Err(error) => {
                    if armed.pause == REARM_MIN {
                        tracing::warn!(%error, "cannot watch the manifests; until it works they are read every second");
                    }
                    armed.pause = (armed.pause * 2).min(REARM_MAX);
                    return;
                }
            }
        }
    }

    /// Writes last good versions, after the table was published and, but for the `last` time, only while nothing
    /// else is to do: a sync must not delay a pod.
    fn save(&self, source: &mut Source, last: bool) {
        while (last || !self.mailbox.is_woken())
            && let Some((path, bytes)) = source.next_unsaved()
        {
            let saved = match &bytes {
                Some(bytes) => self.store.save(&path, bytes),
                None => self.store.remove(&path),
            };
            if let Err(error) = saved {
                tracing::warn!(manifest = %path.display(), %error, "tried again at the next reading");
                source.put_back(path, bytes);
                return;
            }
        }
    }
}
