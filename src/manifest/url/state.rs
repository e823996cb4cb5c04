//! What is known of a URL's document: the last good one, what became of the present one, and whether it can be had. Pure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::super::desired::{
    DocumentReport, FileReport, FileState, SourceError, SourceKind, SourceReport, texts,
};
use super::super::merge::Part;
use super::super::origin::Origin;
use super::super::parse::{ManifestPod, judge_from};
use super::super::refusal::Refusal;
use super::super::seen::Seen;
use super::super::tracked::{Hash, revision};
use super::fetch::{Document, Validators, digest};
use super::store::{Loaded, Record};

#[derive(Debug)]
struct Good {
    hash: Hash,
    pods: Vec<Arc<ManifestPod>>,
    fetched: Timestamp,
    from_disk: bool,
    /// Bytes that are not yet on disk.
    fresh: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Refused {
    hash: Hash,
    errors: Vec<String>,
    since: Timestamp,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) node: String,
    seen: Seen,
    good: Option<Good>,
    refused: Option<Refused>,
    error: Option<SourceError>,
    validators: Validators,
    ready: bool,
}

impl State {
    /// `node` in the form of `identity::node_name`.
    pub(super) fn new(name: &str, node: &str, loaded: Loaded, now: Timestamp) -> Self {
        let mut state = Self {
            name: name.to_owned(),
            node: node.to_owned(),
            seen: Seen::default(),
            good: None,
            refused: None,
            error: None,
            validators: Validators::default(),
            // With no record at all, nothing of a URL can be running. With this one's, it is known what.
            ready: loaded.record.is_some() || !loaded.others,
        };
        if let Some(record) = loaded.record {
            state.restore(&record, now);
        }
        state
    }

    fn restore(&mut self, record: &Record, now: Timestamp) {
        match judge_from(&record.bytes, Origin::Url(&self.name), &self.node).verdict {
            Ok(pods) => {
                let pods = self.seen.date(pods, now);
                let (hash, fetched) = (digest(&record.bytes), record.fetched);
                self.good = Some(Good { hash, pods, fetched, from_disk: true, fresh: None });
            }
            Err(errors) => {
                self.ready = false;
                let error = errors.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(url = self.name, error, "its last good document is not accepted any more");
            }
        }
    }

    /// The pods that are wanted.
    pub(super) fn good(&self) -> impl Iterator<Item = (&Path, &[Arc<ManifestPod>])> {
        self.good.iter().map(|good| (Path::new(&self.name), &good.pods[..]))
    }

    /// What tells the server which document is known.
    pub(super) fn validators(&self) -> &Validators {
        &self.validators
    }

    /// Whether the document could not be had at the last try.
    pub(super) fn is_failing(&self) -> bool {
        self.error.is_some()
    }

    fn answered(&mut self) {
        if self.error.take().is_some() {
            tracing::info!(url = self.name, "the manifests can be read again");
        }
    }

    /// The server says that the document is the one it gave last.
    pub(super) fn unchanged(&mut self) {
        self.answered();
    }

    /// Whether the document was judged before; then that counts again.
    pub(super) fn knows(&mut self, document: &Document) -> bool {
        let same = self.good.as_mut().filter(|good| good.hash == document.hash);
        let known = if let Some(good) = same {
            good.from_disk = false;
            self.refused = None;
            self.ready = true;
            true
        } else {
            self.refused.as_ref().is_some_and(|refused| refused.hash == document.hash)
        };
        if known {
            self.answered();
            self.validators = document.validators.clone();
        }
        known
    }

    /// Takes the verdict on a new document.
    pub(super) fn judged(
        &mut self,
        document: Document,
        judged: Result<Vec<ManifestPod>, Vec<Refusal>>,
        now: Timestamp,
    ) {
        self.answered();
        self.validators = document.validators;
        match judged {
            Ok(pods) => {
                tracing::info!(url = self.name, pods = pods.len(), "manifest accepted");
                let pods = self.seen.date(pods, now);
                self.seen.keep(pods.iter());
                let fresh = Some(document.bytes);
                self.good = Some(Good { hash: document.hash, pods, fetched: now, from_disk: false, fresh });
                self.refused = None;
                self.ready = true;
            }
            Err(refusals) => {
                let errors = texts(&refusals);
                let kept = self.good.is_some();
                tracing::warn!(url = self.name, kept, error = errors.first(), "manifest refused");
                let since = self.refused.as_ref().map_or(now, |refused| refused.since);
                self.refused = Some(Refused { hash: document.hash, errors, since });
            }
        }
    }

    /// Notes that the document could not be had.
    pub(super) fn failed(&mut self, message: &str, now: Timestamp) {
        if self.error.as_ref().is_none_or(|error| error.message != message) {
            tracing::warn!(
                url = self.name,
                kept = self.good.is_some(),
                "cannot read the manifests: {message}"
            );
        }
        let since = self.error.as_ref().map_or(now, |error| error.since);
        let path = PathBuf::from(&self.name);
        self.error = Some(SourceError { path, message: message.to_owned(), since });
    }

    /// The good document if it is not on disk yet.
    pub(super) fn unsaved(&self) -> Option<Record> {
        let good = self.good.as_ref()?;
        let bytes = good.fresh.as_ref()?.to_vec();
        Some(Record { url: self.name.clone(), fetched: good.fetched, second: false, bytes })
    }

    /// It is on disk.
    pub(super) fn saved(&mut self) {
        if let Some(good) = &mut self.good {
            good.fresh = None;
        }
    }

    /// All that is known.
    pub(super) fn part(&self) -> Part {
        let path = PathBuf::from(&self.name);
        let good = self.good.as_ref();
        let state = match (good, &self.refused) {
            (Some(_), Some(refused)) => Some((
                FileState::KeptLastGood { errors: refused.errors.clone(), since: refused.since },
                refused.since,
            )),
            (None, Some(refused)) => {
                Some((FileState::Refused { errors: refused.errors.clone() }, refused.since))
            }
            (Some(good), None) => {
                let pods = good.pods.iter().map(|pod| pod.key()).collect();
                Some((FileState::Accepted { pods }, good.fetched))
            }
            (None, None) => None,
        };
        let file = state.map(|(state, since)| FileReport {
            path: path.clone(),
            state,
            revision: good.map(|good| revision(&good.hash)),
            since: Some(since),
        });
        let document = good.map(|good| DocumentReport {
            sha256: hex::encode(good.hash),
            fetched: good.fetched,
            from_disk: good.from_disk,
        });
        let error = self.error.clone();
        Part {
            good: good.map(|good| (path.clone(), good.pods.clone())).into_iter().collect(),
            files: file.into_iter().collect(),
            sources: vec![SourceReport { name: path, kind: SourceKind::Url, error, document }],
            ready: self.ready,
        }
    }
}
