//! What the file source knows: every file's last good pods, its state, and who owns which name.
//! Reads the directory through `read`; has no thread, no watch and no clock of its own.
//!
//! One rule throughout: only what was read whole and found good changes a pod, and only a file that is really
//! gone removes one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::FileType;
use sha2::{Digest, Sha256};

use super::claims::{self, Verdict};
use super::desired::{Desired, FileReport, FileState, SourceError, texts};
use super::events::Hint;
use super::identity;
use super::last_good::LastGood;
use super::parse::{ManifestPod, validate};
use super::read::{self, Content, ReadError};
use super::tracked::{GONE, Hash, Now, Outcome, Tracked};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    SingleFile,
}

/// A write to, or (`None`) removal of, a record of a last good version.
pub(crate) type Unsaved = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// The state of the file source.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    node: String,
    shape: Option<Shape>,
    /// What the path was in an earlier life; used only while it cannot be looked at.
    remembered: Option<Shape>,
    files: BTreeMap<PathBuf, Tracked>,
    ignored: BTreeMap<PathBuf, &'static str>,
    owners: HashMap<String, PathBuf>,
    seen: HashMap<String, Timestamp>,
    ready: bool,
    error: Option<SourceError>,
    unsaved: Unsaved,
}

impl Source {
    /// `path` absolute. Last good versions of its files are taken from `records`.
    pub(crate) fn new(path: PathBuf, node: &str, store: &LastGood, now: Now) -> Self {
        let node = identity::node_name(node);
        let mut source = Self {
            path,
            node,
            shape: None,
            remembered: None,
            files: BTreeMap::new(),
            ignored: BTreeMap::new(),
            owners: HashMap::new(),
            seen: HashMap::new(),
            ready: false,
            error: None,
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
            if file == self.path {
                self.remembered = Some(Shape::SingleFile);
            } else if file.parent() == Some(&self.path) {
                self.remembered = Some(Shape::Directory);
            } else {
                // Of a path configured before; its pods are no longer wanted.
                self.unsaved.insert(file, None);
                continue;
            }
            match validate(&bytes, &file, &self.node) {
                Ok(pods) => {
                    let pods = self.with_seen(pods, now);
                    let tracked = Tracked { good: Some((hash(&bytes), pods)), ..Tracked::default() };
                    self.files.insert(file, tracked);
                }
                Err(errors) => {
                    let error = errors.first().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(file = %file.display(), error, "its last good version is not accepted any more");
                }
            }
        }
        let good = self.files.iter().filter_map(|(path, t)| Some((path.as_path(), &t.good.as_ref()?.1[..])));
        self.owners = claims::first_owners(good);
    }

    fn with_seen(&mut self, pods: Vec<ManifestPod>, now: Now) -> Vec<Arc<ManifestPod>> {
        pods.into_iter()
            .map(|mut pod| {
                let seen = *self.seen.entry(pod.uid.clone()).or_insert(now.stamp);
                identity::set_seen(&mut pod.pod, seen);
                Arc::new(pod)
            })
            .collect()
    }

    /// The directory to watch, and the one name in it if the source is a single file.
    pub(crate) fn watched(&mut self) -> io::Result<(PathBuf, Option<std::ffi::OsString>)> {
        match self.shape()? {
            Shape::Directory => Ok((self.path.clone(), None)),
            Shape::SingleFile => {
                let parent = self.path.parent().unwrap_or(Path::new("/")).to_path_buf();
                Ok((parent, self.path.file_name().map(ToOwned::to_owned)))
            }
        }
    }

    /// What the path is; once known it stays, so that a directory that turns into something else is an error.
    fn shape(&mut self) -> io::Result<Shape> {
        if let Some(shape) = self.shape {
            return Ok(shape);
        }
        let shape = match (read::kind(&self.path)?, self.remembered) {
            (Some(FileType::Directory), _) => Shape::Directory,
            (Some(FileType::RegularFile), _) => Shape::SingleFile,
            (Some(_), _) => return Err(io::Error::other("neither a directory nor a regular file")),
            // A single file may have been removed while no agent ran.
            (None, Some(Shape::SingleFile)) => return Ok(Shape::SingleFile),
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        self.shape = Some(shape);
        Ok(shape)
    }

    /// Reads everything and tells what should run now, and when to look again if something is unsettled.
    pub(crate) fn scan(
        &mut self,
        now: Now,
        hint: &dyn Fn(&OsStr) -> Option<Hint>,
    ) -> (Desired, Option<Duration>) {
        let mut again = None;
        match self.list() {
            Ok(present) => {
                self.error = None;
                again = self.read_all(&present, now, hint);
                let waiting = self.files.values().any(|t| t.candidate.is_some() && t.good.is_none());
                self.ready |= !waiting;
            }
            Err(error) => {
                let since = self.error.as_ref().map_or(now.stamp, |e| e.since);
                self.error = Some(SourceError { path: self.path.clone(), message: error.to_string(), since });
            }
        }
        (self.table(), again)
    }

    fn list(&mut self) -> io::Result<Vec<PathBuf>> {
        match self.shape()? {
            Shape::Directory => read::list(&self.path),
            Shape::SingleFile => {
                // Only if its directory can be read is an absent file really gone.
                let parent = self.path.parent().unwrap_or(Path::new("/"));
                let present = read::list(parent)?.contains(&self.path);
                Ok(if present { vec![self.path.clone()] } else { Vec::new() })
            }
        }
    }

    fn read_all(
        &mut self,
        present: &[PathBuf],
        now: Now,
        hint: &dyn Fn(&OsStr) -> Option<Hint>,
    ) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        let mut sooner = |wait: Option<Duration>| {
            if let Some(wait) = wait {
                again = Some(again.map_or(wait, |a| a.min(wait)));
            }
        };
        self.ignored.clear();
        let directory = self.shape == Some(Shape::Directory);
        let mut names = BTreeSet::new();
        for path in present {
            if directory && read::is_hidden(path) {
                continue;
            }
            if let Some(reason) = read::ignored(path).filter(|_| directory) {
                self.ignored.insert(path.clone(), reason);
                continue;
            }
            if self.is_known(path, now) {
                names.insert(path.clone());
                continue;
            }
            match read::file(path) {
                Err(ReadError::Gone) => {}
                read => {
                    names.insert(path.clone());
                    sooner(self.one(path, read, now, hint(path.file_name().unwrap_or_default())));
                }
            }
        }
        let missing: Vec<PathBuf> =
            self.files.keys().filter(|path| !names.contains(*path)).cloned().collect();
        for path in missing {
            sooner(self.missing(&path, now));
        }
        again
    }

    /// Whether the file is as it was when its good version was read.
    fn is_known(&mut self, path: &Path, now: Now) -> bool {
        let Some(tracked) = self.files.get_mut(path) else { return false };
        let settled = tracked.candidate.is_none() && matches!(tracked.outcome, Outcome::Accepted);
        let known = settled && tracked.seen.is_some() && tracked.is_known(read::stamp(path), now);
        if known {
            tracked.missing_since = None;
        }
        known
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
                tracked.candidate = None;
                tracked.unreadable(path, &error, now);
                return None;
            }
        };
        let hash = hash(&content.bytes);
        tracked.seen = None;
        if tracked.good.as_ref().is_some_and(|(good, _)| *good == hash) {
            (tracked.candidate, tracked.outcome) = (None, Outcome::Accepted);
            tracked.note(content.stamp, now);
            return None;
        }
        if matches!(&tracked.outcome, Outcome::Broken { hash: Some(bad), .. } if *bad == hash) {
            tracked.candidate = None;
            return None;
        }
        if let Err(wait) = tracked.settled(content.stamp, hint, now) {
            return Some(wait);
        }
        tracked.candidate = None;
        self.judge(path, content.bytes, hash, now);
        None
    }

    fn judge(&mut self, path: &Path, bytes: Vec<u8>, hash: Hash, now: Now) {
        let judged = validate(&bytes, path, &self.node).map(|pods| self.with_seen(pods, now));
        let tracked = self.files.entry(path.to_path_buf()).or_default();
        match judged {
            Ok(pods) => {
                tracing::info!(file = %path.display(), pods = pods.len(), "manifest accepted");
                tracked.good = Some((hash, pods));
                tracked.outcome = Outcome::Accepted;
                tracked.fresh = Some(bytes);
            }
            Err(refusals) => {
                let errors = texts(&refusals);
                let kept = tracked.good.is_some();
                tracing::warn!(file = %path.display(), kept, error = errors.first(), "manifest refused");
                let since = tracked.broken_since(now);
                tracked.outcome = Outcome::Broken { hash: Some(hash), errors, since };
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

    fn table(&mut self) -> Desired {
        let good = self.files.iter().filter_map(|(path, t)| Some((path.as_path(), &t.good.as_ref()?.1[..])));
        let Verdict { pods, owners, duplicates } = claims::settle(good, &self.owners);
        self.owners = owners;
        let wanted: BTreeSet<&str> = self
            .files
            .values()
            .filter_map(|t| t.good.as_ref())
            .flat_map(|(_, p)| p)
            .map(|p| &*p.uid)
            .collect();
        self.seen.retain(|uid, _| wanted.contains(uid.as_str()));

        let mut reports = BTreeMap::new();
        for (path, reason) in &self.ignored {
            reports.insert(path.clone(), FileState::Ignored { reason: (*reason).to_owned() });
        }
        for (path, tracked) in &mut self.files {
            let duplicate = duplicates.get(path);
            let lost = duplicate.is_some_and(|d| !d.kept);
            if !lost && let Some(bytes) = tracked.fresh.take() {
                self.unsaved.insert(path.clone(), Some(bytes));
            }
            reports.insert(
                path.clone(),
                match (&tracked.outcome, duplicate) {
                    (Outcome::Accepted, Some(d)) => {
                        FileState::Duplicate { claim: d.claim.clone(), with: d.with.clone(), kept: d.kept }
                    }
                    _ => tracked.state(),
                },
            );
        }
        let files = reports.into_iter().map(|(path, state)| FileReport { path, state }).collect();
        Desired { pods, files, sources_ready: self.ready, source_error: self.error.clone() }
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

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_not_ready_while_an_unknown_file_has_not_settled() {
        let base = tempfile::tempdir().unwrap();
        let manifests = base.path().join("m");
        std::fs::create_dir(&manifests).unwrap();
        let text =
            "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";
        std::fs::write(manifests.join("a.yaml"), text).unwrap();
        let modified = std::fs::metadata(manifests.join("a.yaml")).unwrap().modified().unwrap();
        let now = Now { wall: modified, ..Now::read() };
        let mut source = Source::new(manifests, "n", &LastGood::new(base.path()), now);
        let (table, again) = source.scan(now, &|_| None);
        assert!(!table.sources_ready && table.pods.is_empty() && again.is_some());
        let second = Duration::from_secs(1);
        let now = Now { steady: now.steady + second, wall: now.wall + second, ..now };
        let (table, again) = source.scan(now, &|_| None);
        assert!(table.sources_ready && table.pods.len() == 1 && again.is_none());
    }
}
