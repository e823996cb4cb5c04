//! Events of pods, with the kubelet's reasons (`kubelet-static-pods.md 2.16`), kept across restarts and reboots.
//!
//! `book` is the data, pure. [`Events`] is the handle that everybody records with, at once and without waiting. `store`
//! keeps the file `<root-dir>/events.json`; `from_steps` and `from_probes` say what the agent's doings are called; `api`
//! shows them as v1 Events.

pub mod api;
mod book;
pub mod from_probes;
pub mod from_steps;
mod store;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use podstead_runtime::{PodUid, Time};
use tokio::sync::Notify;

pub use book::{Book, Happening, Page, Record, Type};
pub use store::read;

/// All events, shared. The default one is kept nowhere.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    path: Option<PathBuf>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    /// What was waited for in the last round, and until when: each wait is told once.
    waits: Waits,
    dirty: bool,
    /// Whether there is more to write than how often something happened.
    fresh: bool,
}

type Waits = BTreeMap<(PodUid, Option<String>, Cow<'static, str>), Option<Time>>;

impl Events {
    /// Those that an earlier agent kept below this directory.
    pub fn open(root_dir: &Path) -> Self {
        let path = store::path(root_dir);
        let state = State { book: store::load(&path), ..State::default() };
        Self(Arc::new(Shared { path: Some(path), state: Mutex::new(state), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, with: impl FnOnce(&mut State) -> bool) {
        let mut state = self.state();
        if with(&mut state) {
            state.dirty = true;
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Writes down what happened just now.
    pub fn record(&self, what: Happening) {
        let now = Time::now();
        self.change(|state| {
            let new = state.book.add(what, now);
            state.fresh |= new;
            true
        });
    }

    /// Says who a pod is: `namespace/name`, and which of its containers are init containers.
    pub fn introduce(&self, uid: &PodUid, name: &str, init: BTreeSet<String>) {
        self.change(|state| {
            let known = state.book.pages.get(uid).is_some_and(|page| page.name == name && page.init == init);
            if !known {
                state.book.introduce(uid, name, init);
            }
            // On its own not worth a write.
            false
        });
    }

    /// Drops what is about pods that are long gone.
    pub fn forget(&self, there: impl Fn(&PodUid) -> bool) {
        let now = Time::now();
        self.change(|state| state.book.forget(there, now));
    }

    /// A copy of all.
    pub fn book(&self) -> Book {
        self.state().book.clone()
    }

    /// Those of `waits` that the last round did not have, which this one replaces.
    fn new_waits(&self, waits: Waits) -> Vec<(PodUid, Option<String>, Cow<'static, str>)> {
        let mut state = self.state();
        let new = waits.iter().filter(|(key, until)| state.waits.get(key) != Some(until));
        let new = new.map(|(key, _)| key.clone()).collect();
        state.waits = waits;
        new
    }
}
