//! Who a static pod is: uid, name on the node, and the annotations that say where it came from. Pure.
//!
//! Rules and their order: `kubelet-static-pods.md 1.3`. The uid hashes our own canonical form, never the layout of
//! our types, so an upgrade restarts no pod. The form is frozen: the tests pin it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, Toleration};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::origin::Origin;
use crate::quantity::Amount;

/// Annotation: the pod's uid, which is the hash of its manifest unless the manifest gives one.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation: where the pod came from: `file`, or `http` for a URL.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: when this agent first saw the pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// Annotation of the image of a static pod in the API; such an object is no manifest.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Gives a defaulted pod its identity and returns its uid.
///
/// `node` must be in the form of [`node_name`].
pub(crate) fn apply(pod: &mut Pod, node: &str, origin: Origin<'_>) -> String {
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    let uid = match pod.metadata.uid.as_deref() {
        Some(uid) if !uid.is_empty() => uid.to_owned(),
        _ => hash(pod, node, origin),
    };
    pod.metadata.uid = Some(uid.clone());
    let name = pod.metadata.name.take().unwrap_or_default();
    pod.metadata.name = Some(format!("{name}-{node}"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH.into(), uid.clone());
    annotations.insert(CONFIG_SOURCE.into(), origin.source().into());
    annotations.remove(CONFIG_SEEN);
    if let Some(spec) = pod.spec.as_mut() {
        spec.node_name = Some(node.to_owned());
        if matches!(origin, Origin::File(_)) {
            tolerate(spec.tolerations.get_or_insert_default());
        }
    }
    uid
}

/// Writes the time of first sight, as RFC 3339 with nine digits of nanoseconds.
pub(crate) fn set_seen(pod: &mut Pod, seen: Timestamp) {
    pod.metadata.annotations.get_or_insert_default().insert(CONFIG_SEEN.into(), format!("{seen:.9}"));
}

/// A node's name as it is used everywhere: trimmed and in lower case.
pub fn node_name(raw: &str) -> String {
    raw.trim().to_lowercase()
}

/// A pod of a file stays on its node whatever taints it: it tolerates `NoExecute` in general. The kubelet adds nothing to
/// pods of a URL (`kubelet-static-pods.md 1.2`).
fn tolerate(tolerations: &mut Vec<Toleration>) {
    let all = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    };
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
}

/// 32 hex digits over the canonical manifest and where it comes from: the node and the file, or the URL alone, so that a
/// URL's pods have the same uid on all nodes, as the kubelet's have. The name and namespace are part of the manifest, so
/// the documents of one file differ whatever their order.
fn hash(pod: &Pod, node: &str, origin: Origin<'_>) -> String {
    let mut text = String::from("podstead pod 1\n");
    let json = serde_json::to_value(pod).unwrap_or(Json::Null);
    write_canonical(&mut text, &json, "");
    let mut hasher = Sha256::new();
    hasher.update(text.as_bytes());
    match origin {
        Origin::File(file) => {
            hasher.update(b"\nhost:");
            hasher.update(node.as_bytes());
            hasher.update(b"\nfile:");
            hasher.update(file.as_os_str().as_bytes());
        }
        Origin::Url(url) => {
            hasher.update(b"\nurl:");
            hasher.update(url.as_bytes());
        }
    }
    hex::encode(&hasher.finalize()[..16])
}

/// The canonical form of one container, as within its pod's.
pub(crate) fn canonical_container(container: &Container) -> String {
    let mut text = String::from("podstead container 1\n");
    let json = serde_json::to_value(container).unwrap_or(Json::Null);
    write_canonical(&mut text, &json, ".spec.containers[]");
    text
}

/// The canonical form of a pod's security context.
pub(crate) fn canonical_security_context(context: &PodSecurityContext) -> String {
    let mut text = String::new();
    let json = serde_json::to_value(context).unwrap_or(Json::Null);
    write_canonical(&mut text, &json, ".spec.securityContext");
    text
}

/// Canonical JSON: sorted keys, no spaces, nothing empty, quantities as exact numbers, our annotations left out.
fn write_canonical(out: &mut String, value: &Json, path: &str) {
    match value {
        Json::Object(map) => {
            let sorted: BTreeMap<&String, &Json> =
                map.iter().filter(|(key, value)| !is_empty(value) && !is_ours(path, key)).collect();
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Json::String(key.clone()));
                write_canonical(out, value, &format!("{path}.{key}"));
            }
            out.push('}');
        }
        Json::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(out, value, &format!("{path}[]"));
            }
            out.push(']');
        }
        Json::String(text) => match quantity(path, text) {
            Some(nano) => {
                let _ = write!(out, "{nano}");
            }
            None => {
                let _ = write!(out, "{value}");
            }
        },
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

fn is_ours(path: &str, key: &str) -> bool {
    path == ".metadata.annotations" && matches!(key, CONFIG_HASH | CONFIG_SOURCE | CONFIG_SEEN)
}

fn quantity(path: &str, text: &str) -> Option<i128> {
    let owners = [".spec.containers[]", ".spec.initContainers[]", ".spec"];
    let rest = owners.iter().find_map(|owner| path.strip_prefix(owner)?.strip_prefix(".resources."))?;
    (rest.starts_with("limits.") || rest.starts_with("requests.")).then_some(())?;
    text.parse::<Amount>().ok().map(Amount::nano)
}
