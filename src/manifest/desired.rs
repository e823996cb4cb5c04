//! The table of what should run, and what became of every file. Pure data.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::parse::ManifestPod;
use super::refusal::Refusal;

/// The complete table of all sources; each one replaces the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Every pod that should run: those of files in the order of the files and of the documents within them, then those
    /// of the URL.
    pub pods: Vec<Arc<ManifestPod>>,
    /// What became of every file and document, in the order of their names. Hidden files are not listed.
    pub files: Vec<FileReport>,
    /// The sources, in the order of the command line.
    pub sources: Vec<SourceReport>,
    /// Whether every source has been read as a whole at least once. Before that, a pod that is not in the table
    /// may still be wanted, so nothing may be removed.
    pub sources_ready: bool,
}

impl Desired {
    /// Why a source cannot be read now, the first such. Of that source the table is then the last known.
    pub fn source_error(&self) -> Option<&SourceError> {
        self.sources.iter().find_map(|source| source.error.as_ref())
    }
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A directory with manifests.
    Directory,
    /// A single manifest.
    File,
    /// A document behind a URL.
    Url,
    /// A path where nothing is.
    Missing,
    /// A path that could not be looked at.
    Unknown,
}

/// One source and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceReport {
    /// The path as configured, or the URL without user and password.
    pub name: PathBuf,
    /// What it is.
    pub kind: SourceKind,
    /// Why it cannot be read now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SourceError>,
    /// Of a URL: the document whose pods should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<DocumentReport>,
}

/// The last good document of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentReport {
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// When it was first fetched.
    pub fetched: Timestamp,
    /// Whether this agent has not seen it at its URL yet and goes by what is on disk.
    pub from_disk: bool,
}

/// A source that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("cannot read the manifests at {}: {message}; the pods known so far are kept", path.display())]
pub struct SourceError {
    /// The configured path, or the URL without user and password.
    #[serde(skip)]
    pub path: PathBuf,
    /// What failed.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What became of one file or document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReport {
    /// The file, absolute; or the URL without user and password.
    pub path: PathBuf,
    /// Its state.
    #[serde(flatten)]
    pub state: FileState,
    /// The version whose pods should run: the first 12 digits of its SHA-256, as `sha256sum` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Since when the file is in this state, as far as this agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl FileReport {
    /// A state without version and time.
    pub(crate) fn bare(path: PathBuf, state: FileState) -> Self {
        Self { path, state, revision: None, since: None }
    }

    /// Whether something is wrong with the file as it is now.
    pub fn is_bad(&self) -> bool {
        matches!(
            self.state,
            FileState::Refused { .. } | FileState::KeptLastGood { .. } | FileState::Duplicate { .. }
        )
    }
}

/// One line for each thing to say, each beginning with the path.
impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.state {
            FileState::Accepted { pods } => write!(f, "{path}: ok: {}", pods.join(", ")),
            FileState::Refused { errors } => f.write_str(&errors.join("\n")),
            FileState::KeptLastGood { errors, .. } => {
                write!(f, "{}\n{path}: its last good version is kept", errors.join("\n"))
            }
            FileState::Ignored { reason } => write!(f, "{path}: ignored: {reason}"),
            FileState::Duplicate { claim, with, kept } => {
                let with = with.display();
                let end =
                    if *kept { "the one of this file stays" } else { "the one of this file is not run" };
                write!(f, "{path}: the pod {claim} is also claimed by {with}; {end}")
            }
            FileState::Masked { by } => write!(f, "{path}: masked by {}", by.display()),
            FileState::Disabled => write!(f, "{path}: disabled by a link to /dev/null"),
            FileState::Settling => write!(f, "{path}: somebody is writing it"),
        }
    }
}

/// The state of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "condition")]
pub enum FileState {
    /// Read; these pods (`namespace/name`) are in the table.
    Accepted {
        /// `namespace/name` of each.
        pods: Vec<String>,
    },
    /// The file is broken or unreadable now; the pods of its last good version stay in the table.
    KeptLastGood {
        /// Why the present version is not taken.
        errors: Vec<String>,
        /// Since when.
        #[serde(skip)]
        since: Timestamp,
    },
    /// Broken or unreadable, and no good version is known.
    Refused {
        /// All reasons.
        errors: Vec<String>,
    },
    /// Not a manifest; the reason says why.
    Ignored {
        /// Why.
        reason: String,
    },
    /// A pod of this file is also claimed by another file. The one that was there first stays.
    Duplicate {
        /// `namespace/name`, or the uid where that is what they share.
        claim: String,
        /// The other file.
        with: PathBuf,
        /// Whether this file's pod is the one that stays.
        kept: bool,
    },
    /// A directory of higher precedence has a file of the same name, whose pods count instead.
    Masked {
        /// That file.
        by: PathBuf,
    },
    /// A link to /dev/null: neither it nor what it masks gives pods.
    Disabled,
    /// Somebody is writing the file, or it changed a moment ago; the last good version (if any) stays.
    Settling,
}

/// Texts of refusals for a report.
pub(crate) fn texts(refusals: &[Refusal]) -> Vec<String> {
    refusals.iter().map(ToString::to_string).collect()
}
