//! What every flag has in the end, and who said it. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use clap::Command;
use reqwest::Url;
use serde::Serialize;

use super::fields;
use super::known::Known;
use super::layers::{Layers, innermost};
use super::origin::Origin;

/// One flag in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The flag, without dashes.
    pub flag: String,
    /// The field of a configuration file that stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
    /// Its values; none if it has none. What is secret in them is masked.
    pub values: Vec<String>,
    /// Who said it.
    pub from: Origin,
    /// Tells whether it is another value, also where it is masked; stands nowhere.
    #[serde(skip)]
    pub mark: u64,
}

/// Flags whose values hold secrets behind a `:`.
const HEADERS: &[&str] = &["manifest-url-header"];
/// Flags that are addresses, which may hold a password.
const URLS: &[&str] = &["manifest-url"];

/// All flags of the agent, in the order of the help text.
pub fn effective(command: &Command, layers: &Layers) -> Vec<Effective> {
    let matches = innermost(&layers.matches);
    let known = Known::of(command);
    let shown = known.args().filter(|arg| !arg.is_hide_set());
    let one = |arg: &clap::Arg| {
        let flag = arg.get_long()?.to_owned();
        let raw = matches.try_get_raw(arg.get_id().as_str()).ok()?;
        let raw: Vec<_> = raw.into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        let mut hasher = DefaultHasher::new();
        raw.hash(&mut hasher);
        let values = raw.iter().map(|value| masked(&flag, value));
        let from = layers.origins.get(&flag).cloned().unwrap_or(Origin::Default);
        let field = fields::of_flag(&flag).map(|field| field.path);
        Some(Effective { values: values.collect(), field, from, mark: hasher.finish(), flag })
    };
    shown.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).filter_map(one).collect()
}

/// The value as it may be shown.
fn masked(flag: &str, value: &str) -> String {
    if HEADERS.contains(&flag) {
        let name = value.split_once(':').map_or("", |(name, _)| name);
        return format!("{name}:***");
    }
    if !URLS.contains(&flag) || value.is_empty() {
        return value.to_owned();
    }
    // What cannot be parted is not shown at all.
    let Ok(mut url) = Url::parse(value) else { return "***".to_owned() };
    if url.username().is_empty() && url.password().is_none() {
        return value.to_owned();
    }
    let masked = url.set_username("***").and_then(|()| url.set_password(None));
    masked.map_or_else(|()| "***".to_owned(), |()| url.to_string())
}

/// Who said what the flags in an error's text have, the command line left out: `FILE:LINE (field)`.
pub fn blamed(text: &str, origins: &BTreeMap<String, Origin>) -> Option<String> {
    let mut places: Vec<String> = Vec::new();
    for part in text.split("--").skip(1) {
        let end = part.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(part.len());
        let flag = part[..end].trim_end_matches('-');
        let Some(origin) = origins.get(flag).filter(|origin| **origin != Origin::Flag) else { continue };
        let place = match (origin, fields::of_flag(flag)) {
            (Origin::File { .. } | Origin::DropIn { .. }, Some(field)) => {
                format!("{origin} ({})", field.path)
            }
            _ => origin.to_string(),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    (!places.is_empty()).then(|| places.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        assert_eq!(masked("manifest-url-header", "Authorization: Bearer x:y"), "Authorization:***");
        assert_eq!(masked("manifest-url-header", "nonsense"), ":***");
        assert_eq!(masked("manifest-url", "https://u:p@h:1/a@b?c"), "https://***@h:1/a@b?c");
        assert_eq!(masked("manifest-url", "https://h/a@b"), "https://h/a@b");
        assert_eq!(masked("cluster-dns", "a:b"), "a:b");
    }

    #[test]
    fn an_error_names_who_said_what_its_flags_have() {
        let file = |line| Origin::File { file: "/c.yaml".into(), line };
        let variable = Origin::Environment { variable: "KUBELET_ARGS".into() };
        let origins = BTreeMap::from([
            ("image-gc-low-threshold".to_owned(), file(3)),
            ("image-gc-high-threshold".to_owned(), Origin::Flag),
            ("root-dir".to_owned(), variable),
        ]);
        let text = "--image-gc-low-threshold must be less than --image-gc-high-threshold";
        assert_eq!(blamed(text, &origins).unwrap(), "/c.yaml:3 (imageGCLowThresholdPercent)");
        assert_eq!(blamed("--root-dir a: x", &origins).unwrap(), "environment KUBELET_ARGS");
        assert_eq!(blamed("--state-dir a: x", &origins), None);
    }
}
