//! What the file source knows: every file's last good pods and its state, in all configured places.
//! Reads the directories through `place` and `read`; has no thread, no watch and no clock of its own.
//!
//! One rule throughout: only what was read whole and found good changes a pod, and only a file that is really
//! gone removes one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::desired::{FileReport, FileState, texts};
use super::events::Hint;
use super::identity;
use super::last_good::LastGood;
use super::merge::Part;
use super::parse::{ManifestPod, validate};
use super::place::{Listing, Place, Shape, Spot};
use super::read::{self, Content, ReadError};
use super::seen::Seen;
use super::tracked::{GONE, Hash, Now, Outcome, Tracked};
use super::trust::{Trust, Waivers};

/// A write to, or (`None`) removal of, a record of a last good version.
pub(crate) type Unsaved = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What events said of a file.
pub(crate) type Hints<'h> = &'h dyn Fn(&Path) -> Option<Hint>;

/// How a reading is done.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'h> {
    pub(crate) now: Now,
    pub(crate) hints: Hints<'h>,
    /// Every file is read, whatever its times say.
    pub(crate) full: bool,
}

/// The state of the file source.
#[derive(Debug)]
pub(crate) struct Source {
    /// In the order of their precedence, the highest last.
    places: Vec<Place>,
    node: String,
    waived: Waivers,
    /// There are other sources beside the one path.
    others: bool,
    files: BTreeMap<PathBuf, Tracked>,
    ignored: BTreeMap<PathBuf, &'static str>,
    seen: Seen,
    ready: bool,
    /// Files whose last good version is not accepted any more: what runs of them is not known, so nothing is removed until
    /// they are good, gone or disabled.
    doubtful: BTreeSet<PathBuf>,
    unsaved: Unsaved,
}

impl Source {
    /// `paths` absolute, the highest precedence last. Last good versions of their files are taken from `records`;
    /// `others`: there is a source beside these.
    pub(crate) fn new(
        paths: &[PathBuf],
        others: bool,
        node: &str,
        waived: Waivers,
        store: &LastGood,
        now: Now,
    ) -> Self {
        let mut source = Self {
            places: paths.iter().cloned().map(Place::new).collect(),
            node: identity::node_name(node),
            waived,
            others: others || paths.len() > 1,
            files: BTreeMap::new(),
            ignored: BTreeMap::new(),
            seen: Seen::default(),
            ready: false,
            doubtful: BTreeSet::new(),
            unsaved: Unsaved::new(),
        };
        match store.load() {
            Ok(records) => source.restore(records, now),
            Err(error) => tracing::warn!(%error, "files that are broken now have no last good version"),
        }
        source
    }

    fn restore(&mut self, records: Vec<(PathBuf, Vec<u8>)>, now: Now) {
        for (file, bytes) in records {
            let mut owned = false;
            for place in &mut self.places {
                if file == place.path {
                    place.remembered = Some(Shape::SingleFile);
                } else if file.parent() == Some(&place.path) {
                    place.remembered = Some(Shape::Directory);
                }
                owned |= place.owns(&file);
            }
            if !owned {
                // Of a path configured before; its pods are no longer wanted.
                self.unsaved.insert(file, None);
                continue;
            }
            match validate(&bytes, &file, &self.node) {
                Ok(pods) => {
                    let pods = self.seen.date(pods, now.stamp);
                    let tracked = Tracked { good: Some((hash(&bytes), pods)), ..Tracked::default() };
                    self.files.insert(file, tracked);
                }
                Err(errors) => {
                    let error = errors.first().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(file = %file.display(), error, "its last good version is not accepted any more; nothing is removed until the file is good or gone");
                    self.doubtful.insert(file);
                }
            }
        }
    }

    /// The pods of all good files, masked ones too.
    pub(crate) fn good(&self) -> impl Iterator<Item = (&Path, &[Arc<ManifestPod>])> {
        self.files.iter().filter_map(|(path, t)| Some((path.as_path(), &t.good.as_ref()?.1[..])))
    }

    /// Where changes must be noticed.
    pub(crate) fn spots(&mut self) -> Vec<Spot> {
        self.places.iter_mut().flat_map(Place::spots).collect()
    }

    /// Reads everything and tells what it knows, and when to look again if something is unsettled.
    pub(crate) fn scan(&mut self, reading: Reading<'_>) -> (Part, Option<Duration>) {
        let mut lists = Vec::new();
        for place in &mut self.places {
            let known = self.files.iter().any(|(path, t)| t.good.is_some() && place.owns(path));
            lists.push(place.list(known, self.others, reading.now));
        }
        let again = self.read_all(&lists, reading);
        let waiting = self.files.values().any(|t| t.candidate.is_some() && t.good.is_none());
        self.ready |= !waiting && self.doubtful.is_empty() && self.places.iter().all(|place| place.read);
        (self.part(), again)
    }

    fn read_all(&mut self, lists: &[Listing], reading: Reading<'_>) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        let mut sooner = |wait: Option<Duration>| {
            if let Some(wait) = wait {
                again = Some(again.map_or(wait, |a| a.min(wait)));
            }
        };
        self.ignored.clear();
        let trust = self.trust();
        let mut names = BTreeSet::new();
        for (index, list) in lists.iter().enumerate() {
            let Listing::Files(present) = list else { continue };
            let directory = self.places[index].is_directory();
            let trust = if directory { &trust } else { &Trust::anywhere(self.waived) };
            for path in present.iter().filter(|path| !directory || !read::is_hidden(path)) {
                if let Some(reason) = read::ignored(path).filter(|_| directory) {
                    self.ignored.insert(path.clone(), reason);
                } else if let Some(wait) = self.look(path, trust, reading) {
                    names.insert(path.clone());
                    sooner(wait);
                }
            }
        }
        let missing: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|path| !names.contains(*path) && self.can_be_missing(path, lists))
            .cloned()
            .collect();
        let gone = |path: &PathBuf| !names.contains(path) && self.can_be_missing(path, lists);
        let gone: Vec<PathBuf> = self.doubtful.iter().filter(|path| gone(path)).cloned().collect();
        for path in gone {
            self.doubtful.remove(&path);
            self.unsaved.insert(path, None);
        }
        for path in missing {
            sooner(self.missing(&path, reading.now));
        }
        again
    }

    /// Where links in directories may lead.
    fn trust(&self) -> Trust {
        let directories = self.places.iter().filter(|place| place.is_directory());
        let roots = directories.filter_map(|place| place.path.canonicalize().ok()).collect();
        Trust { roots: Some(roots), waived: self.waived }
    }

    /// Whether a file that was not found is gone: every place it may lie in was listed.
    fn can_be_missing(&self, path: &Path, lists: &[Listing]) -> bool {
        let unread = |list: &Listing| matches!(list, Listing::Unreadable);
        !self.places.iter().zip(lists).any(|(place, list)| unread(list) && place.owns(path))
    }

    /// Looks at one name. `None` when it is not there, else when to look again.
    #[allow(clippy::option_option, reason = "gone, settled, or to be looked at again")]
    fn look(&mut self, path: &Path, trust: &Trust, reading: Reading<'_>) -> Option<Option<Duration>> {
        let hint = hint(path, reading.hints);
        let unchanged = |tracked: &Tracked| {
            !reading.full
                && tracked.candidate.is_none()
                && tracked.missing_since.is_none()
                && hint != Some(Hint::Writing)
                && tracked.stamp.is_some()
                && tracked.stamp == read::stamp(path)
        };
        if self.files.get(path).is_some_and(unchanged) {
            return Some(None);
        }
        match read::file(path, trust) {
            Err(ReadError::Gone) => None,
            read => Some(self.one(path, read, reading.now, hint)),
        }
    }

    /// Takes note of one file that exists. Returns when to look again if it has not settled.
    fn one(
        &mut self,
        path: &Path,
        read: Result<Content, ReadError>,
        now: Now,
        hint: Option<Hint>,
    ) -> Option<Duration> {
        let tracked = self.files.entry(path.to_path_buf()).or_default();
        tracked.missing_since = None;
        let content = match read {
            Ok(content) => content,
            Err(error) => {
                let before = tracked.complaint();
                tracked.unreadable(path, &error, now);
                if let Some(complaint) = tracked.complaint().filter(|c| before.as_ref() != Some(c)) {
                    tracing::warn!(file = %path.display(), kept = tracked.good.is_some(), error = complaint, "manifest refused");
                }
                if tracked.is_disabled() {
                    self.doubtful.remove(path);
                    self.unsaved.insert(path.to_path_buf(), None);
                }
                return None;
            }
        };
        let hash = hash(&content.bytes);
        let same = tracked.good.as_ref().is_some_and(|(good, _)| *good == hash);
        if same || matches!(&tracked.outcome, Outcome::Broken { hash: Some(bad), .. } if *bad == hash) {
            if same {
                tracked.set(Outcome::Accepted, now);
            }
            tracked.candidate = None;
            tracked.stamp = content.stamp.filter(|stamp| stamp.rested(now.wall));
            return None;
        }
        if let Err(wait) = tracked.settled(content.stamp, hint, now) {
            return Some(wait);
        }
        tracked.stamp = content.stamp.filter(|stamp| stamp.rested(now.wall));
        self.judge(path, content.bytes, hash, now);
        None
    }

    fn judge(&mut self, path: &Path, bytes: Vec<u8>, hash: Hash, now: Now) {
        let judged = validate(&bytes, path, &self.node).map(|pods| self.seen.date(pods, now.stamp));
        let tracked = self.files.entry(path.to_path_buf()).or_default();
        match judged {
            Ok(pods) => {
                tracing::info!(file = %path.display(), pods = pods.len(), "manifest accepted");
                tracked.accept(hash, pods, bytes, now);
                self.doubtful.remove(path);
            }
            Err(refusals) => {
                let errors = texts(&refusals);
                let kept = tracked.good.is_some();
                tracing::warn!(file = %path.display(), kept, error = errors.first(), "manifest refused");
                tracked.set(Outcome::Broken { hash: Some(hash), errors }, now);
            }
        }
    }

    fn missing(&mut self, path: &Path, now: Now) -> Option<Duration> {
        let tracked = self.files.get_mut(path)?;
        let since = *tracked.missing_since.get_or_insert(now.steady);
        let absent = now.steady.saturating_duration_since(since);
        if absent < GONE && tracked.good.is_some() {
            return Some(GONE.saturating_sub(absent));
        }
        self.files.remove(path);
        self.unsaved.insert(path.to_path_buf(), None);
        None
    }

    /// The files whose pods do not count, each with the one whose pods do: the same name in a directory of higher
    /// precedence, once that is good or disabled. One that is broken masks nothing, as it would replace nothing.
    fn masks(&self) -> HashMap<PathBuf, PathBuf> {
        let mut by_name: HashMap<&OsStr, Vec<(usize, &PathBuf, &Tracked)>> = HashMap::new();
        for (path, tracked) in &self.files {
            let place = self.places.iter().rposition(|place| place.is_directory() && place.owns(path));
            if let (Some(place), Some(name)) = (place, path.file_name()) {
                by_name.entry(name).or_default().push((place, path, tracked));
            }
        }
        let mut masks = HashMap::new();
        for mut files in by_name.into_values().filter(|files| files.len() > 1) {
            files.sort_by_key(|(place, _, _)| std::cmp::Reverse(*place));
            let mut by: Option<&PathBuf> = None;
            for (_, path, tracked) in files {
                if let Some(by) = by {
                    masks.insert(path.clone(), by.clone());
                    continue;
                }
                // Before anything runs, what may mask is waited for, which takes moments.
                let unsettled = !self.ready && tracked.candidate.is_some();
                if tracked.good.is_some() || tracked.is_disabled() || unsettled {
                    by = Some(path);
                }
            }
        }
        masks
    }

    fn part(&mut self) -> Part {
        let files = &self.files;
        self.seen.keep(files.values().filter_map(|t| t.good.as_ref()).flat_map(|(_, pods)| pods));
        let masks = if self.places.len() > 1 { self.masks() } else { HashMap::new() };
        let mut reports = BTreeMap::new();
        for (path, reason) in &self.ignored {
            let state = FileState::Ignored { reason: (*reason).to_owned() };
            reports.insert(path.clone(), FileReport::bare(path.clone(), state));
        }
        let mut good = Vec::new();
        for (path, tracked) in &self.files {
            let masked = masks.get(path);
            if let (None, Some((_, pods))) = (masked, &tracked.good) {
                good.push((path.clone(), pods.clone()));
            }
            let state = match (masked, tracked.state()) {
                (Some(by), FileState::Accepted { .. } | FileState::KeptLastGood { .. }) => {
                    FileState::Masked { by: by.clone() }
                }
                (_, state) => state,
            };
            let revision = tracked.revision().filter(|_| masked.is_none());
            reports.insert(
                path.clone(),
                FileReport { path: path.clone(), state, revision, since: tracked.since },
            );
        }
        Part {
            good,
            files: reports.into_values().collect(),
            sources: self.places.iter().map(Place::report).collect(),
            ready: self.ready,
        }
    }

    /// Has accepted versions saved, but for those of files that lost a pod to another one: which of them was first must
    /// be known to the next agent.
    pub(crate) fn take_fresh(&mut self, lost: &BTreeSet<PathBuf>) {
        for (path, tracked) in &mut self.files {
            if !lost.contains(path)
                && let Some(bytes) = tracked.fresh.take()
            {
                self.unsaved.insert(path.clone(), Some(bytes));
            }
        }
    }

    /// The next record to write or remove.
    pub(crate) fn next_unsaved(&mut self) -> Option<(PathBuf, Option<Vec<u8>>)> {
        self.unsaved.pop_first()
    }

    /// Puts a record back that could not be written, unless a newer one waits.
    pub(crate) fn put_back(&mut self, path: PathBuf, bytes: Option<Vec<u8>>) {
        self.unsaved.entry(path).or_insert(bytes);
    }
}

/// What events said of the file, or of the link that all files of the directory lie behind: whoever swaps such a
/// link has completed them.
fn hint(path: &Path, hints: Hints<'_>) -> Option<Hint> {
    if let Some(hint) = hints(path) {
        return Some(hint);
    }
    let directory = path.parent()?;
    let data = directory.join("..data");
    if let Some(hint) = hints(&data)
        && std::fs::read_link(path).is_ok_and(|target| target.starts_with("..data"))
    {
        return Some(hint);
    }
    hints(directory)
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
