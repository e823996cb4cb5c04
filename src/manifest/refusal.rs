//! What is wrong with a manifest, and where: file, line, column, field. Pure data.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A place in a manifest's text. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Position {
    /// The first character of the file; used for errors that concern the file as a whole.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One reason why a manifest is not taken.
///
/// Its text form is `file:line:column: field: message, did you mean "x"?`; the field is absent when the
/// error concerns the text (YAML syntax) or the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub struct Refusal {
    /// The manifest's path as it was given.
    pub file: PathBuf,
    /// Where in the file.
    pub at: Position,
    /// Field path such as `spec.containers[0].image`; empty for the document as a whole.
    pub field: String,
    /// What is wrong and, where it is not obvious, what to do.
    pub message: String,
    /// The name which was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.at)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, ", did you mean \"{suggestion}\"?")?;
        }
        Ok(())
    }
}

/// Collects the errors of one file, so that a user sees all of them at once.
#[derive(Debug)]
pub(crate) struct Refusals {
    file: PathBuf,
    list: Vec<Refusal>,
}

/// More errors than this say nothing new; a hostile file must not fill the memory with messages.
const MOST: usize = 100;

impl Refusals {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), list: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: Position, field: impl Into<String>, message: impl Into<String>) {
        self.add_with(at, field, message, None);
    }

    pub(crate) fn add_with(
        &mut self,
        at: Position,
        field: impl Into<String>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.list.len() < MOST {
            let (file, field, message) = (self.file.clone(), field.into(), message.into());
            self.list.push(Refusal { file, at, field, message, suggestion });
        }
    }

    /// Takes over the errors of another check of the same document. With `unrelated_only`, those are left out
    /// that only follow from an error already known: the same field, one within the other, or the field that
    /// was meant by a misspelt one.
    pub(crate) fn absorb(&mut self, other: Self, unrelated_only: bool) {
        let known = if unrelated_only { self.list.clone() } else { Vec::new() };
        for refusal in other.list {
            if self.list.len() < MOST && !known.iter().any(|k| related(k, &refusal)) {
                self.list.push(refusal);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order of the text, each once.
    pub(crate) fn into_sorted(mut self) -> Vec<Refusal> {
        self.list.sort_by_key(|refusal| refusal.at);
        self.list.dedup();
        self.list
    }
}

fn related(known: &Refusal, later: &Refusal) -> bool {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let meant = known.suggestion.as_ref().map(|name| match known.field.rsplit_once('.') {
        Some((parent, _)) => format!("{parent}.{name}"),
        None => name.clone(),
    });
    within(&known.field, &later.field)
        || within(&later.field, &known.field)
        || meant.is_some_and(|meant| within(&meant, &later.field))
}
