//! The manifest reader against the files in `fixtures/manifests/`, and its documentation.
//!
//! `BLESS=1 cargo test -p podstead --test manifest` writes the expected texts anew; read the difference then.

#![allow(clippy::unwrap_used)]

#[path = "manifest/directories.rs"]
mod directories;
#[path = "support/expected.rs"]
mod expected;
#[path = "manifest/refusals.rs"]
mod refusals;
#[path = "manifest/url.rs"]
mod url;
#[path = "manifest/watcher.rs"]
mod watcher;
#[path = "manifest/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use podstead::manifest::{ManifestPod, judge, support, validate};

use expected::expect;

const NODE: &str = "Node-1";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    expected::files(&format!("fixtures/manifests/{kind}"), &["yaml", "json"])
}

/// The file's name alone stands in errors and in the uid, so that the texts are the same on every machine.
fn read(file: &Path) -> Result<Vec<ManifestPod>, String> {
    let name = Path::new("/etc/kubernetes/manifests").join(file.file_name().unwrap());
    validate(&fs::read(file).unwrap(), &name, NODE).map_err(|refusals| {
        let lines: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        let text = lines.join("\n") + "\n";
        let version = concat!("podstead ", env!("CARGO_PKG_VERSION"));
        text.replace("/etc/kubernetes/manifests/", "").replace(version, "podstead VERSION")
    })
}

/// What is allowed and hardly meant, with the words for it; a file without any says so.
#[test]
fn what_is_hardly_meant_is_warned_of() {
    let mut wrong = Vec::new();
    for file in fixtures("warned") {
        let name = Path::new(file.file_name().unwrap());
        let judged = judge(&fs::read(&file).unwrap(), name, NODE);
        assert!(judged.verdict.is_ok(), "{}: {:?}", file.display(), judged.verdict);
        let lines: Vec<String> = judged.warnings.iter().map(|w| format!("{w}\n")).collect();
        let text = if lines.is_empty() { "no warning\n".to_owned() } else { lines.concat() };
        expect(&file.with_extension("expected"), &text, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What installers and projects write, unchanged: what is refused has its reason beside it.
#[test]
fn manifests_of_the_field_are_taken_or_refused_by_name() {
    let files = fixtures("field");
    assert!(files.len() >= 9);
    let mut wrong = Vec::new();
    for file in files {
        let refused = file.with_extension("refused");
        match read(&file) {
            Ok(pods) => {
                assert_eq!(pods.len(), 1, "{}", file.display());
                assert!(!refused.exists(), "{} is no longer refused", file.display());
            }
            Err(why) => expect(&refused, &why, &mut wrong),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_error_names_the_file_as_it_was_given() {
    let text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i, imagee: x, ports: [{containerPort: 0}]}]}}";
    let refusals = validate(text.as_bytes(), Path::new("some/pod.yaml"), NODE).unwrap_err();
    assert_eq!(refusals.len(), 2);
    assert!(refusals.iter().all(|r| r.file == Path::new("some/pod.yaml")), "{refusals:?}");
}

#[test]
fn every_refused_manifest_says_exactly_why() {
    let mut wrong = Vec::new();
    let files = fixtures("refused");
    assert!(files.len() >= 25);
    for file in files {
        match read(&file) {
            Ok(_) => wrong.push(format!("{} was taken", file.display())),
            Err(text) => expect(&file.with_extension("expected"), &text, &mut wrong),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_good_manifest_becomes_exactly_this_pod() {
    let mut wrong = Vec::new();
    let files = fixtures("good");
    assert!(files.len() >= 12);
    for file in files {
        match read(&file) {
            Err(text) => wrong.push(text),
            Ok(pods) => {
                let pods: Vec<_> = pods.iter().map(|p| &p.pod).collect();
                let text = serde_yaml::to_string(&pods).unwrap();
                expect(&file.with_extension("expected"), &text, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// These uids name running pods on users' nodes: a change of any of them restarts pods on upgrade.
#[test]
fn the_uid_of_a_manifest_never_changes() {
    let pinned = BTreeMap::from([
        ("static-web.yaml", "272d15fb226cfae5380b5072d3cf9345"),
        ("resources.yaml", "ee3a246d9eb124f4a710e9b903ce60aa"),
        ("volumes.yaml", "0781ffdef112bd6f76afb705e5faa489"),
    ]);
    for (name, uid) in pinned {
        let pods = read(&root().join("fixtures/manifests/good").join(name)).unwrap();
        assert_eq!(pods[0].uid, uid, "{name}");
    }
}

fn uid(text: &str, path: &str, node: &str) -> String {
    validate(text.as_bytes(), Path::new(path), node).unwrap()[0].uid.clone()
}

#[test]
fn the_uid_follows_meaning_and_place_not_form() {
    let yaml = "# comment\napiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {}}\nspec:\n  containers:\n  - \
                {name: c, image: busybox, resources: {limits: {cpu: 500m}}}\n";
    let json = r#"{"spec":{"restartPolicy":"Always","containers":[{"image":"busybox","name":"c",
        "resources":{"limits":{"cpu":"0.5"}}}]},"metadata":{"namespace":"default","name":"a"},
        "kind":"Pod","apiVersion":"v1"}"#;
    let one = uid(yaml, "/m/a.yaml", "node");
    assert_eq!(one.len(), 32);
    assert_eq!(one, uid(json, "/m/a.yaml", " NODE "), "form, defaults written out, case of the node");
    assert_ne!(one, uid(yaml, "/m/b.yaml", "node"), "the file");
    assert_ne!(one, uid(yaml, "/m/a.yaml", "other"), "the node");
    assert_ne!(one, uid(&yaml.replace("busybox", "busybox:1"), "/m/a.yaml", "node"), "the content");
}

#[test]
fn the_documents_of_a_file_keep_their_uids_in_any_order() {
    let file = root().join("fixtures/manifests/good/two-documents.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let mut parts: Vec<&str> = text.split("---\n").collect();
    parts.reverse();
    let uids = |text: &str| {
        let mut pods = validate(text.as_bytes(), Path::new("/m/two.yaml"), NODE).unwrap();
        pods.sort_by_key(ManifestPod::key);
        pods.into_iter().map(|p| p.uid).collect::<Vec<_>>()
    };
    assert_eq!(uids(&text), uids(&parts.join("---\n")));
}

#[test]
fn the_documentation_shows_the_table() {
    let file = root().join("docs/manifests.md");
    let text = fs::read_to_string(&file).unwrap();
    let (begin, end) = ("<!-- fields: begin -->\n", "<!-- fields: end -->");
    let from = text.find(begin).unwrap() + begin.len();
    let to = text.find(end).unwrap();
    let table = support::markdown();
    if std::env::var_os("BLESS").is_some() {
        return fs::write(&file, format!("{}{table}{}", &text[..from], &text[to..])).unwrap();
    }
    assert!(text[from..to] == table, "docs/manifests.md is out of date; run this test with BLESS=1");
}
