//! Network configurations of the node: which file of the directory counts, and what it says. Reads files only.

use std::{
    cmp::Ordering,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;

/// The versions of the CNI specification this client speaks, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// No configuration comes near this many bytes.
const FILE_MAX: u64 = 1 << 20;

/// A network: plugins that are run one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfList {
    /// The network's name.
    pub name: String,
    /// The version of the specification that the plugins are spoken to in.
    pub version: String,
    /// The node's operator does not want CHECK.
    pub disable_check: bool,
    /// The plugins' configurations; each has a sound `type`.
    pub plugins: Vec<Map<String, Value>>,
}

/// What was found in the directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// The first valid configuration by file name, and its file.
    pub chosen: Option<(PathBuf, ConfList)>,
    /// The files before it that are not valid, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

impl ConfList {
    /// Reads a list, or a single plugin's configuration, which stands for a list of one. The error is for people.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut top: Map<String, Value> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let name = top.get("name").and_then(Value::as_str).ok_or("it has no name")?.to_owned();
        if !is_identifier(&name) {
            return Err(format!("{name:?} is not a network name"));
        }
        let version = version(&top)?;
        let disable_check = flag(&top, "disableCheck")?;
        let plugins = match top.remove("plugins") {
            Some(Value::Array(plugins)) => plugins.into_iter().map(object).collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err("plugins is not a list".to_owned()),
            None => vec![top],
        };
        if plugins.is_empty() {
            return Err("it has no plugins".to_owned());
        }
        for plugin in &plugins {
            let kind = plugin.get("type").and_then(Value::as_str).ok_or("a plugin has no type")?;
            if !is_identifier(kind) {
                return Err(format!("{kind:?} is not a plugin type"));
            }
        }
        Ok(Self { name, version, disable_check, plugins })
    }

    /// The `type` of a plugin, which is its program's name.
    pub fn plugin_type(plugin: &Map<String, Value>) -> &str {
        plugin.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the list's version of the specification is `wanted` or later.
    pub fn at_least(&self, wanted: &str) -> bool {
        compare(&self.version, wanted) != Ordering::Less
    }
}

/// Looks through `dir` by file name, for `*.conflist`, `*.conf` and `*.json`. A missing directory is an empty one.
pub fn select(dir: &Path) -> Result<Selection, Error> {
    let mut selection = Selection::default();
    for path in candidates(dir)? {
        match read(&path).and_then(|text| ConfList::parse(&text)) {
            Ok(list) => {
                selection.chosen = Some((path, list));
                break;
            }
            Err(reason) => selection.skipped.push((path, reason)),
        }
    }
    Ok(selection)
}

fn candidates(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed =
        |source| Error::File { doing: "listing network configurations in", path: dir.to_owned(), source };
    let entries = match dir.read_dir() {
        Ok(entries) => entries,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "conflist" || e == "conf" || e == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let not_regular = || "it is not a regular file".to_owned();
    // Looked at before it is opened: opening a pipe would wait.
    if !path.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err(not_regular());
    }
    let mut text = Vec::new();
    File::open(path).and_then(|f| f.take(FILE_MAX + 1).read_to_end(&mut text)).map_err(|e| e.to_string())?;
    if text.len() as u64 > FILE_MAX {
        return Err(format!("it has more than {FILE_MAX} bytes"));
    }
    Ok(text)
}

/// The latest version of `cniVersion` and `cniVersions` (since 1.1) that this client speaks.
fn version(top: &Map<String, Value>) -> Result<String, String> {
    let many = match top.get("cniVersions") {
        None => Vec::new(),
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        Some(_) => return Err("cniVersions is not a list".to_owned()),
    };
    let offered: Vec<&str> = top.get("cniVersion").and_then(Value::as_str).into_iter().chain(many).collect();
    if offered.is_empty() {
        return Err("it has no cniVersion".to_owned());
    }
    let known = VERSIONS.into_iter().rev().find(|version| offered.contains(version));
    known.map(str::to_owned).ok_or_else(|| {
        format!("cniVersion {} is not supported; supported are {}", offered.join(", "), VERSIONS.join(", "))
    })
}

fn compare(left: &str, right: &str) -> Ordering {
    let place = |version| VERSIONS.iter().position(|known| *known == version);
    place(left).cmp(&place(right))
}

/// Some configurations in the field have their flags as text.
fn flag(top: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match top.get(key) {
        None => Ok(false),
        Some(Value::Bool(set)) => Ok(*set),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(format!("{key} is neither true nor false")),
    }
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err("a plugin is not an object".to_owned()),
    }
}

/// What the specification allows for network names and container IDs; no path can be built from it.
pub(super) fn is_identifier(text: &str) -> bool {
    text.len() <= 255
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<ConfList, String> {
        ConfList::parse(text.as_bytes())
    }

    #[test]
    fn lists_and_single_plugins_are_read() {
        let list = parse(
            r#"{"cniVersion":"1.0.0","name":"pods","disableCheck":true,
                "plugins":[{"type":"bridge","mtu":1400},{"type":"portmap"}]}"#,
        )
        .unwrap();
        assert_eq!((list.name.as_str(), list.version.as_str(), list.disable_check), ("pods", "1.0.0", true));
        assert_eq!(list.plugins.iter().map(ConfList::plugin_type).collect::<Vec<_>>(), ["bridge", "portmap"]);
        let single = parse(r#"{"cniVersion":"0.3.1","name":"one","type":"ptp"}"#).unwrap();
        assert_eq!(ConfList::plugin_type(&single.plugins[0]), "ptp");
        assert!(!single.at_least("0.4.0") && single.at_least("0.3.1"));
    }

    #[test]
    fn the_latest_common_version_is_spoken() {
        let of =
            |versions: &str| parse(&format!(r#"{{{versions},"name":"a","type":"b"}}"#)).map(|l| l.version);
        assert_eq!(of(r#""cniVersion":"0.4.0","cniVersions":["0.4.0","1.1.0","9.0.0"]"#).unwrap(), "1.1.0");
        assert_eq!(of(r#""cniVersions":["1.0.0"]"#).unwrap(), "1.0.0");
        assert!(of(r#""cniVersion":"9.0.0""#).unwrap_err().contains("9.0.0"));
        assert!(of(r#""x":1"#).unwrap_err().contains("no cniVersion"));
    }

    #[test]
    fn bad_configurations_say_why() {
        for (text, why) in [
            ("{", "EOF"),
            ("[]", "map"),
            (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "no name"),
            (r#"{"cniVersion":"1.0.0","name":"../x","type":"a"}"#, "network name"),
            (r#"{"cniVersion":"1.0.0","name":"x","plugins":[]}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","name":"x","plugins":{}}"#, "not a list"),
            (r#"{"cniVersion":"1.0.0","name":"x","plugins":[1]}"#, "not an object"),
            (r#"{"cniVersion":"1.0.0","name":"x","plugins":[{}]}"#, "no type"),
            (r#"{"cniVersion":"1.0.0","name":"x","type":"../../bin/sh"}"#, "plugin type"),
            (r#"{"cniVersion":"1.0.0","name":"x","type":"a","disableCheck":3}"#, "disableCheck"),
        ] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(why), "{text}: {reason}");
        }
    }

    #[test]
    fn the_first_valid_file_wins_and_the_others_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        assert_eq!(select(&dir.join("none")).unwrap(), Selection::default());
        let good = |name: &str| format!(r#"{{"cniVersion":"1.0.0","name":"{name}","type":"bridge"}}"#);
        fs::write(dir.join("00-readme.txt"), "no").unwrap();
        fs::write(dir.join("05-broken.conflist"), "{").unwrap();
        fs::create_dir(dir.join("06-dir.conf")).unwrap();
        fs::write(dir.join("20-later.conflist"), good("later")).unwrap();
        fs::write(dir.join("10-first.json"), good("first")).unwrap();
        let selection = select(dir).unwrap();
        let (path, list) = selection.chosen.unwrap();
        assert_eq!((path, list.name.as_str()), (dir.join("10-first.json"), "first"));
        let skipped: Vec<_> = selection.skipped.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(skipped, [dir.join("05-broken.conflist"), dir.join("06-dir.conf")]);
        assert!(selection.skipped[1].1.contains("regular file"));
    }
}
