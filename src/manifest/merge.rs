//! Several sources, one table: each source tells all it knows, and who claims which pod is decided over all of them.
//! Touches no files and no clock.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::claims::{self, Owners};
use super::desired::{Desired, FileReport, FileState, SourceReport};
use super::parse::ManifestPod;

/// The pods of one file or document.
pub(crate) type Good = (PathBuf, Vec<Arc<ManifestPod>>);

/// All that one source knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    /// Files whose pods are wanted, in their order.
    pub(crate) good: Vec<Good>,
    pub(crate) files: Vec<FileReport>,
    pub(crate) sources: Vec<SourceReport>,
    pub(crate) ready: bool,
}

/// Which source; also the order of their pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Files,
    Url,
}

#[derive(Debug)]
struct State {
    /// What each source said last; `None` until it has said something, and where there is no such source.
    parts: [Option<Part>; 2],
    expected: [bool; 2],
    owners: Owners,
}

/// Puts the sources' knowledge together.
#[derive(Debug)]
pub(crate) struct Merger {
    state: Mutex<State>,
    sender: watch::Sender<Arc<Desired>>,
}

impl Merger {
    /// For these sources. Nothing is published before each of them has said what it knows, which none of them needs a
    /// network for.
    pub(crate) fn new(slots: &[Slot], sender: watch::Sender<Arc<Desired>>) -> Self {
        let expected = [slots.contains(&Slot::Files), slots.contains(&Slot::Url)];
        let state = State { parts: [None, None], expected, owners: Owners::new() };
        Self { state: Mutex::new(state), sender }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who ran which pod when the last agent ended. Comes before the source's first update.
    pub(crate) fn restored<'f>(&self, good: impl Iterator<Item = (&'f Path, &'f [Arc<ManifestPod>])>) {
        let mut state = self.lock();
        for (claim, path) in claims::first_owners(good) {
            state.owners.entry(claim).or_insert(path);
        }
    }

    /// Takes what a source knows now, publishes the table if that changed, and answers the files that lost a pod to
    /// another file; `None` while that is not known, because another source has said nothing yet.
    pub(crate) fn update(&self, slot: Slot, part: Part) -> Option<BTreeSet<PathBuf>> {
        let mut state = self.lock();
        state.parts[slot as usize] = Some(part);
        if (0..2).any(|n| state.expected[n] && state.parts[n].is_none()) {
            return None;
        }
        let (table, owners, lost) = settle(&state);
        state.owners = owners;
        self.sender.send_if_modified(|current| {
            let changed = **current != table;
            if changed {
                *current = Arc::new(table);
            }
            changed
        });
        Some(lost)
    }
}

fn settle(state: &State) -> (Desired, Owners, BTreeSet<PathBuf>) {
    let parts = || state.parts.iter().flatten();
    let good = parts().flat_map(|part| &part.good).map(|(path, pods)| (path.as_path(), &pods[..]));
    let claims::Verdict { pods, owners, duplicates } = claims::settle(good, &state.owners);
    let mut files: Vec<FileReport> = parts().flat_map(|part| part.files.clone()).collect();
    for report in &mut files {
        if let FileState::Accepted { .. } = report.state
            && let Some(found) = duplicates.get(&report.path)
        {
            let (claim, with, kept) = (found.claim.clone(), found.with.clone(), found.kept);
            report.state = FileState::Duplicate { claim, with, kept };
        }
    }
    let lost = duplicates.into_iter().filter(|(_, found)| !found.kept).map(|(path, _)| path).collect();
    let table = Desired {
        pods,
        files,
        sources: parts().flat_map(|part| part.sources.clone()).collect(),
        sources_ready: parts().all(|part| part.ready),
    };
    (table, owners, lost)
}
