//! What inotify said about the directory: hints which file is being written and which is complete.
//! Touches inotify through the `notify` crate; reads no file.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

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
    hints: HashMap<OsString, Hint>,
    woken: bool,
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
    /// The watched directory went away or events were lost: watch anew.
    pub(crate) rearm: bool,
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
        Wake { rearm: std::mem::take(&mut state.rearm), stop: state.stop }
    }

    /// Whether something waits to be done.
    pub(crate) fn is_woken(&self) -> bool {
        let state = self.lock();
        state.woken || state.stop
    }

    /// Wakes the source's thread for a full reading.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.signal.notify_all();
    }

    /// Ends the source's thread.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.signal.notify_all();
    }

    /// What the events say of a file of this name.
    pub(crate) fn hint(&self, name: &OsStr) -> Option<Hint> {
        self.lock().hints.get(name).copied()
    }

    /// Forgets hints; after events may have been lost they are worth nothing.
    pub(crate) fn forget(&self) {
        self.lock().hints.clear();
    }

    fn lost(&self) {
        let mut state = self.lock();
        state.hints.clear();
        (state.rearm, state.woken) = (true, true);
        self.signal.notify_all();
    }

    /// Notes one event; wakes the thread unless it is one of the many of a running write.
    fn note(&self, directory: &Path, only: Option<&OsStr>, event: &Event) {
        if event.need_rescan() || event.paths.is_empty() {
            return self.lost();
        }
        for path in &event.paths {
            if path == directory {
                if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
                    self.lost();
                }
                continue;
            }
            let Some(name) = path.file_name() else { continue };
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let mut state = self.lock();
            let wakes = match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    state.hints.insert(name.to_owned(), Hint::Writing);
                    false
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                    state.hints.insert(name.to_owned(), Hint::Complete(SystemTime::now()));
                    true
                }
                EventKind::Modify(ModifyKind::Name(RenameMode::Both)) | EventKind::Access(_) => false,
                // A new name, a link perhaps, says nothing of the content behind it.
                EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    state.hints.remove(name);
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
}

/// A live watch of one directory; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches `directory`; with `only`, just the file of that name within it.
    pub(crate) fn new(
        mailbox: &Arc<Mailbox>,
        directory: &Path,
        only: Option<OsString>,
    ) -> Result<Self, notify::Error> {
        let (mailbox, root): (Arc<Mailbox>, PathBuf) = (Arc::clone(mailbox), directory.to_path_buf());
        mailbox.forget();
        let mut watcher = notify::recommended_watcher(
            move |event: Result<Event, notify::Error>| match event {
                Ok(event) => mailbox.note(&root, only.as_deref(), &event),
                Err(error) => {
                    tracing::warn!(directory = %root.display(), %error, "watching the manifests failed, watching anew");
                    mailbox.lost();
                }
            },
        )?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(Self { _watcher: watcher })
    }
}
