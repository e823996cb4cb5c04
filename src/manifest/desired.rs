//! The table of what should run, and what became of every file. Pure data.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::parse::ManifestPod;
use super::refusal::Refusal;

/// The complete table of a file source; each one replaces the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Every pod that should run, in the order of files and of documents within them.
    pub pods: Vec<Arc<ManifestPod>>,
    /// What became of every file, in the order of their names. Hidden files are not listed.
    pub files: Vec<FileReport>,
    /// Whether the source has been read as a whole at least once. Before that, a pod that is not in the table
    /// may still be wanted, so nothing may be removed.
    pub sources_ready: bool,
    /// Why the directory (or the single file's directory) cannot be read now. The table is then the last known.
    pub source_error: Option<SourceError>,
}

/// A file source that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("cannot read the manifests at {}: {message}; the pods known so far are kept", path.display())]
pub struct SourceError {
    /// The configured path.
    pub path: PathBuf,
    /// What failed.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The file, absolute.
    pub path: PathBuf,
    /// Its state.
    pub state: FileState,
}

impl FileReport {
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
            FileState::Settling => write!(f, "{path}: somebody is writing it"),
        }
    }
}

/// The state of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// Somebody is writing the file, or it changed a moment ago; the last good version (if any) stays.
    Settling,
}

/// Texts of refusals for a report.
pub(crate) fn texts(refusals: &[Refusal]) -> Vec<String> {
    refusals.iter().map(ToString::to_string).collect()
}
