//! What inotify said about the directories: hints which file is being written and which is complete.
//! Touches inotify through the `notify` crate; reads no file.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::place::Spot;

/// What is known of a file from events alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Written to, and not closed since.
    Writing,
    /// Closed after writing, or moved here, at this time.
    Complete(SystemTime),
}

#[derive(Debug, Default)]
struct State {
    hints: HashMap<PathBuf, Hint>,
    woken: bool,
    /// Everything is to be read, whatever the events said.
    full: bool,
    rearm: bool,
    stop: bool,
}

/// The mailbox between inotify's thread and the source's thread.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    signal: Condvar,
}

/// Why the source's thread continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wake {
    /// A watched directory went away, or the way to it changed, or events were lost: watch anew.
    pub(crate) rearm: bool,
    /// Read everything.
    pub(crate) full: bool,
    pub(crate) stop: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data and whole after every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Wake {
        let state = self.lock();
        let (mut state, _) = self
            .signal
            .wait_timeout_while(state, timeout, |s| !s.woken && !s.stop)
            .unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
        let (rearm, full) = (std::mem::take(&mut state.rearm), std::mem::take(&mut state.full));
        Wake { rearm, full, stop: state.stop }
    }

    /// Lets events gather for a moment; ends early only with the thread.
    pub(crate) fn rest(&self, pause: Duration) {
        let state = self.lock();
        drop(self.signal.wait_timeout_while(state, pause, |s| !s.stop));
    }

    /// Whether something waits to be done.
    pub(crate) fn is_woken(&self) -> bool {
        let state = self.lock();
        state.woken || state.stop
    }

    /// Wakes the source's thread for a full reading.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        (state.woken, state.full) = (true, true);
        self.signal.notify_all();
    }

    /// Ends the source's thread.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.signal.notify_all();
    }

    /// What the events say of a path.
    pub(crate) fn hint(&self, path: &Path) -> Option<Hint> {
        self.lock().hints.get(path).copied()
    }

    /// Forgets who is writing: between two watches the end of it may be missed.
    fn forget(&self) {
        self.lock().hints.retain(|_, hint| *hint != Hint::Writing);
    }

    /// Has everything watched and read anew. `moved`: the way to the manifests that was put in place just now.
    fn lost(&self, moved: Option<&Path>) {
        let mut state = self.lock();
        state.hints.clear();
        if let Some(path) = moved {
            state.hints.insert(path.to_path_buf(), Hint::Complete(SystemTime::now()));
        }
        (state.rearm, state.full, state.woken) = (true, true, true);
        self.signal.notify_all();
    }

    /// Notes one event; wakes the thread unless it is one of the many of a running write.
    fn note(&self, spots: &[Spot], event: &Event) {
        if event.need_rescan() || event.paths.is_empty() {
            return self.lost(None);
        }
        for path in &event.paths {
            let goes = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
            if goes && spots.iter().any(|spot| !spot.way && spot.directory == *path) {
                return self.lost(None);
            }
            let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let within = |way: bool| {
                let of = |spot: &&Spot| spot.way == way && spot.directory == directory;
                spots.iter().filter(of).any(|spot| spot.only.as_ref().is_none_or(|only| only == name))
            };
            let moves = goes || matches!(event.kind, EventKind::Create(_));
            if moves && within(true) {
                let arrived = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To)));
                return self.lost(arrived.then_some(path.as_path()));
            }
            if within(false) {
                self.note_file(path, name, event.kind);
            }
        }
    }

    fn note_file(&self, path: &Path, name: &OsStr, kind: EventKind) {
        let mut state = self.lock();
        let wakes = match kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                state.hints.insert(path.to_owned(), Hint::Writing);
                false
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                state.hints.insert(path.to_owned(), Hint::Complete(SystemTime::now()));
                true
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) | EventKind::Access(_) => false,
            // A new name, a link perhaps, says nothing of the content behind it.
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                state.hints.remove(path);
                true
            }
            _ => true,
        };
        // Hidden names are not read, except that `..data` is how a mounted volume swaps all its files.
        let bytes = name.as_bytes();
        if wakes && (!bytes.starts_with(b".") || bytes.starts_with(b"..")) {
            state.woken = true;
            self.signal.notify_all();
        }
    }
}

/// A live watch of some directories; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches all these places, with one instance of inotify.
    pub(crate) fn new(mailbox: &Arc<Mailbox>, spots: &[Spot]) -> Result<Self, notify::Error> {
        let (mailbox, known) = (Arc::clone(mailbox), spots.to_vec());
        mailbox.forget();
        let mut watcher =
            notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
                Ok(event) => mailbox.note(&known, &event),
                Err(error) => {
                    tracing::warn!(%error, "watching the manifests failed, watching anew");
                    mailbox.lost(None);
                }
            })?;
        let directories: BTreeSet<&Path> = spots.iter().map(|spot| spot.directory.as_path()).collect();
        for directory in directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher })
    }
}

#[cfg(test)]
mod tests {
    use notify::event::Flag;

    use super::*;

    #[test]
    fn after_events_were_lost_everything_is_watched_and_read_anew() {
        let mailbox = Mailbox::default();
        mailbox.note_file(
            Path::new("/m/a.yaml"),
            OsStr::new("a.yaml"),
            EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any)),
        );
        assert_eq!(mailbox.hint(Path::new("/m/a.yaml")), Some(Hint::Writing));
        mailbox.note(&[], &Event::new(EventKind::Other).set_flag(Flag::Rescan));
        assert_eq!(mailbox.wait(Duration::ZERO), Wake { rearm: true, full: true, stop: false });
        assert_eq!(mailbox.hint(Path::new("/m/a.yaml")), None, "its end may be among them");
    }
}
