//! The one table of a v1 Pod's fields and what podstead does with each. Pure.
//!
//! The checker, the documentation and the tests read this table; a test holds it against the Pod type, so that
//! no field can be forgotten when Kubernetes grows one.

mod backends;
mod containers;
mod metadata;
mod pod;
mod volumes;

use std::fmt::Write as _;

pub use backends::{Backend, DIFFERENCES};

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Taken and acted upon.
    Supported,
    /// A group; its fields have rows of their own.
    Parts,
    /// Taken, kept in the pod and shown, but nothing follows from it; the text says why.
    NoEffect(&'static str),
    /// Left out of the pod: only an API server gives it a meaning; the text says why.
    Dropped(&'static str),
    /// Refused for now; the text names the missing feature.
    NotYet(&'static str),
    /// Refused for now unless it has one of these values, which are what happens anyway.
    NotYetUnless(&'static [&'static str], &'static str),
    /// Refused as the kubelet refuses it: a static pod has no access to this kind of API object
    /// (`kubelet-static-pods.md 1.3`).
    MayNotReference(&'static str),
    /// Refused for good; the text says why.
    Never(&'static str),
}

use Support::{Dropped, MayNotReference, Never, NoEffect, NotYet, NotYetUnless, Parts, Supported};

/// Field path (`[]` after lists) and what happens to it; in the order of the documentation.
/// A row that is neither `Supported` nor `Parts` covers everything below it.
const GROUPS: [&[(&str, Support)]; 4] =
    [metadata::METADATA, containers::CONTAINERS, volumes::VOLUMES, pod::POD];

/// All rows, in the order of the documentation.
pub fn table() -> impl Iterator<Item = (&'static str, Support)> {
    GROUPS.into_iter().flatten().copied()
}

/// The row of a path; `None` when an ancestor's row speaks for it or the field is unknown.
///
/// An init container has the fields of a regular one, with the same support.
pub fn of(path: &str) -> Option<Support> {
    if let Some(field) = path.strip_prefix("spec.initContainers[]") {
        return of(&format!("spec.containers[]{field}"));
    }
    // Some 370 rows, read once per field of a manifest.
    table().find(|(row, _)| *row == path).map(|(_, support)| support)
}

impl Support {
    /// The message of a refusal; `None` where the field is taken.
    pub fn refusal(self) -> Option<String> {
        let version = env!("CARGO_PKG_VERSION");
        Some(match self {
            Supported | Parts | NoEffect(_) | Dropped(_) => return None,
            NotYet(what) => format!("not supported yet by podstead {version}: {what}"),
            NotYetUnless(values, what) => {
                let values = values.join(" or ");
                format!("not supported yet by podstead {version}: {what} (only {values} is accepted)")
            }
            MayNotReference(what) => format!("static pods may not reference {what}"),
            Never(why) => format!("not accepted: {why}"),
        })
    }
}

/// What one backend does otherwise than the other with a field that is supported.
fn notes(path: &str) -> String {
    let own = DIFFERENCES.iter().filter(|(field, _, _)| *field == path);
    let each = own.map(|(_, backend, what)| format!("; {}: {what}", backend.name()));
    each.collect::<Vec<_>>().concat()
}

/// The table as Markdown, for `docs/manifests.md`.
pub fn markdown() -> String {
    let mut out = String::from("| Field | What podstead does |\n|---|---|\n");
    for (path, support) in table() {
        let text = match support {
            Parts => continue,
            Supported => format!("supported{}", notes(path)),
            NoEffect(why) => format!("accepted, no effect: {why}"),
            Dropped(why) => format!("accepted and left out: {why}"),
            NotYet(what) => format!("refused, not supported yet: {what}"),
            NotYetUnless(values, what) => {
                let values: Vec<String> = values.iter().map(|v| format!("`{v}`")).collect();
                format!("only {}; otherwise refused, not supported yet: {what}", values.join(", "))
            }
            MayNotReference(what) => format!("refused: static pods may not reference {what}"),
            Never(why) => format!("refused: {why}"),
        };
        let _ = writeln!(out, "| `{path}` | {text} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::schema;
    use super::*;

    /// Paths of the Pod type that need a row: all that no refusing or dropping row covers.
    fn needed() -> BTreeSet<String> {
        let mut needed = BTreeSet::new();
        schema::pod().walk("", &mut |path, _| {
            if !path.starts_with("spec.initContainers[]") {
                needed.insert(path.to_owned());
            }
            matches!(of(path), Some(Supported | Parts))
        });
        needed
    }

    #[test]
    fn a_backend_differs_only_in_what_is_supported() {
        let mut seen = BTreeSet::new();
        for (path, backend, what) in DIFFERENCES {
            assert_eq!(of(path), Some(Supported), "{path}");
            assert!(seen.insert((path, backend.name(), what)), "{path} twice");
            assert!(markdown().contains(&format!("| `{path}` | supported")), "{path}");
            assert!(notes(path).contains(&format!("; {}: {what}", backend.name())), "{path}");
        }
    }

    #[test]
    fn every_field_of_the_pod_type_has_a_row_and_every_row_a_field() {
        let rows: BTreeSet<String> = table().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(rows.len(), table().count(), "a path has two rows");
        let needed = needed();
        let missing: Vec<_> = needed.difference(&rows).collect();
        let stale: Vec<_> = rows.difference(&needed).collect();
        assert!(missing.is_empty(), "fields of the Pod type without a row: {missing:?}");
        assert!(stale.is_empty(), "rows without a field, or below a row that covers them: {stale:?}");
    }
}
