//! Where a manifest comes from, as far as it is part of who its pods are. Pure.

use std::path::{Path, PathBuf};

/// A file, or a document behind a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A file, absolute.
    File(&'a Path),
    /// A URL as it is shown: without user name and password.
    Url(&'a str),
}

impl Origin<'_> {
    /// The value of the annotation `kubernetes.io/config.source`, in the kubelet's words.
    pub(crate) fn source(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Url(_) => "http",
        }
    }

    /// How reports and pods name it.
    pub(crate) fn name(self) -> PathBuf {
        match self {
            Self::File(path) => path.to_path_buf(),
            Self::Url(url) => PathBuf::from(url),
        }
    }
}
