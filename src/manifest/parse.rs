//! Bytes of one manifest to pods with an identity, or to every reason why not. Pure.
//!
//! YAML (several documents too), JSON, `Pod`, `PodList` and `List` of API version v1.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::admit::{self, Report};
use super::advice;
use super::check;
use super::defaults;
use super::identity;
use super::origin::Origin;
use super::refusal::{Position, Refusal, Refusals};
use super::schema;
use super::tree::{self, Node, Value};

/// A pod that came out of a manifest: defaulted, checked, with its identity.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestPod {
    /// The pod as it will run: name with the node's suffix, namespace, uid, nodeName and annotations set.
    pub pod: Pod,
    /// The uid, also in `pod.metadata.uid` and the annotation `kubernetes.io/config.hash`.
    pub uid: String,
    /// The manifest: a file, absolute, or a URL.
    pub file: PathBuf,
    /// Where the pod begins in the file.
    pub at: Position,
}

impl ManifestPod {
    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// The name, with the node's suffix.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// `namespace/name`, unique on a node.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }
}

/// Largest manifest, as the kubelet's.
pub const MAX_BYTES: u64 = 10 << 20;

/// What became of one manifest.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its pods, or every reason why there are none; in the order of the text.
    pub verdict: Result<Vec<ManifestPod>, Vec<Refusal>>,
    /// What is allowed and hardly meant, of pods that were found right; in the order of the text.
    pub warnings: Vec<Refusal>,
}

/// Reads one manifest: the way of the agent's file source and of `podstead validate` alike.
///
/// `path` stands in errors and, made absolute, in the uid; the file itself is not read. `node` is the node's
/// name in any case. Errors are complete and in the order of the text.
pub fn validate(bytes: &[u8], path: &Path, node: &str) -> Result<Vec<ManifestPod>, Vec<Refusal>> {
    judge(bytes, path, node).verdict
}

/// The same, with what a friend would say of it.
pub fn judge(bytes: &[u8], path: &Path, node: &str) -> Judged {
    let file = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut judged = judge_from(bytes, Origin::File(&file), node);
    // Wherever it was found, in the reader's own words.
    for one in judged.verdict.as_mut().err().into_iter().flatten().chain(&mut judged.warnings) {
        path.clone_into(&mut one.file);
    }
    judged
}

/// A document of any origin; errors name that.
pub(crate) fn judge_from(bytes: &[u8], origin: Origin<'_>, node: &str) -> Judged {
    let name = origin.name();
    let (mut refusals, mut warnings) = (Refusals::new(&name), Refusals::new(&name));
    let pods = read(bytes, origin, &identity::node_name(node), &mut refusals, &mut warnings);
    let sorted = |found: Refusals| {
        let mut all = found.into_sorted();
        for one in &mut all {
            name.clone_into(&mut one.file);
        }
        all
    };
    let verdict = if refusals.is_empty() { Ok(pods) } else { Err(sorted(refusals)) };
    Judged { verdict, warnings: sorted(warnings) }
}

fn read(
    bytes: &[u8],
    origin: Origin<'_>,
    node: &str,
    refusals: &mut Refusals,
    warnings: &mut Refusals,
) -> Vec<ManifestPod> {
    if bytes.len() as u64 >= MAX_BYTES {
        refusals.add(
            Position::START,
            "",
            format!("too large: a manifest must be smaller than {MAX_BYTES} bytes"),
        );
        return Vec::new();
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].split(|b| *b == b'\n').count();
            let message = "not UTF-8 text; save the manifest as UTF-8";
            refusals.add(Position { line, column: 1 }, "", message);
            return Vec::new();
        }
    };
    let documents = tree::documents(text, refusals);
    if documents.is_empty() && refusals.is_empty() {
        refusals.add(Position::START, "", "the file holds no document; a manifest holds at least one Pod");
    }
    let mut reader = Reader { node, origin, file: origin.name(), refusals, warnings, pods: Vec::new() };
    for document in &documents {
        reader.document(document);
    }
    let pods = reader.pods;
    twice(&pods, refusals);
    pods
}

/// One file may hold each pod once.
fn twice(pods: &[ManifestPod], refusals: &mut Refusals) {
    let mut names: HashMap<String, Position> = HashMap::new();
    let mut uids: HashMap<&str, Position> = HashMap::new();
    for pod in pods {
        if let Some(first) = names.insert(pod.key(), pod.at) {
            let message =
                format!("the pod {} stands twice in this file, first at line {}", pod.key(), first.line);
            refusals.add(pod.at, "metadata.name", message);
        } else if let Some(first) = uids.insert(&pod.uid, pod.at) {
            let message =
                format!("the uid {} stands twice in this file, first at line {}", pod.uid, first.line);
            refusals.add(pod.at, "metadata.uid", message);
        }
    }
}

struct Reader<'a> {
    node: &'a str,
    origin: Origin<'a>,
    file: PathBuf,
    refusals: &'a mut Refusals,
    warnings: &'a mut Refusals,
    pods: Vec<ManifestPod>,
}

impl Reader<'_> {
    fn document(&mut self, document: &Node) {
        if !matches!(document.value, Value::Map(_)) {
            let message = format!("expected a Pod, got {}", document.kind());
            return self.refusals.add(document.at, "", message);
        }
        match document.get("kind").and_then(Node::as_str) {
            Some("PodList" | "List") => self.list(document),
            _ => self.pod(document, ""),
        }
    }

    fn list(&mut self, list: &Node) {
        self.version(list, "");
        let Value::Map(entries) = &list.value else { return };
        for entry in entries {
            match entry.key.as_str() {
                "apiVersion" | "kind" | "metadata" => {}
                "items" => match &entry.value.value {
                    Value::Seq(items) => {
                        for (index, item) in items.iter().enumerate() {
                            self.pod(item, &format!("items[{index}]."));
                        }
                    }
                    _ if entry.value.is_null() => {}
                    _ => {
                        let message = format!("expected a list, got {}", entry.value.kind());
                        self.refusals.add(entry.value.at, "items", message);
                    }
                },
                key => self.refusals.add(entry.at, key, "unknown field"),
            }
        }
    }

    /// False, with an error, unless the document says `apiVersion: v1`.
    fn version(&mut self, node: &Node, prefix: &str) -> bool {
        let field = format!("{prefix}apiVersion");
        match node.get("apiVersion") {
            Some(version) if version.as_str() == Some("v1") => return true,
            Some(version) => {
                let message = format!("expected v1, got {}", version.as_str().unwrap_or(version.kind()));
                self.refusals.add(version.at, field, message);
            }
            None => self.refusals.add(node.at, field, "is missing; write apiVersion: v1"),
        }
        false
    }

    fn kind(&mut self, node: &Node, prefix: &str) -> bool {
        let field = format!("{prefix}kind");
        match node.get("kind") {
            Some(kind) if kind.as_str() == Some("Pod") => return true,
            Some(kind) => {
                let got = kind.as_str().unwrap_or(kind.kind());
                let message = format!("podstead runs Pods and lists of them, not {got}");
                self.refusals.add(kind.at, field, message);
            }
            None => self.refusals.add(node.at, field, "is missing; write kind: Pod"),
        }
        false
    }

    fn pod(&mut self, node: &Node, prefix: &str) {
        if !matches!(node.value, Value::Map(_)) {
            let message = format!("expected a Pod, got {}", node.kind());
            return self.refusals.add(node.at, prefix.trim_end_matches('.'), message);
        }
        // The items of a PodList need not repeat version and kind.
        let bare = !prefix.is_empty() && node.get("kind").is_none() && node.get("apiVersion").is_none();
        let right = bare || (self.kind(node, prefix) && self.version(node, prefix));
        if !right {
            return;
        }
        let before = self.refusals.len();
        let checked = check::pod(node, schema::pod(), prefix, self.refusals);
        let mut pod = match Pod::deserialize(&checked.json) {
            Ok(pod) => pod,
            Err(error) => {
                if self.refusals.len() == before {
                    self.refusals.add(node.at, prefix.trim_end_matches('.'), error.to_string());
                }
                return;
            }
        };
        defaults::apply(&mut pod);
        // The rules run even after errors of form, to show everything at once; what was left out for such an
        // error must not be called missing.
        let mut found = Refusals::new(&self.file);
        let (places, start) = (&checked.places, node.at);
        admit::pod(&pod, self.node, &mut Report { places, prefix, start, refusals: &mut found });
        let clean = self.refusals.len() == before;
        self.refusals.absorb(found, !clean);
        if self.refusals.len() > before {
            return;
        }
        advice::pod(&pod, &mut Report { places, prefix, start, refusals: self.warnings });
        let uid = identity::apply(&mut pod, self.node, self.origin);
        self.pods.push(ManifestPod { pod, uid, file: self.file.clone(), at: node.at });
    }
}
