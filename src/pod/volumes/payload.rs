//! What the files of a downwardAPI, projected, configMap or secret volume hold (`kubelet-static-pods.md 4.1`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, SecretProjection, Volume,
};
use thiserror::Error;

use crate::pod::NodeFacts;
use crate::pod::downward::{self, Addresses, DownwardError};
use crate::pod::objects::{Keys, LocalObjects};

const DEFAULT_MODE: i32 = 0o644;

/// The files of a volume by their path in it.
pub type Payload = BTreeMap<String, FileContent>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// A volume's files cannot be said.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Something of the pod that is not told.
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// There is no such object.
    #[error("{kind} {namespace:?}/{name:?} not registered")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("{kind} references non-existent key: {key}")]
    NoKey {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
}

/// The files of a volume; `None` for a volume of another kind.
pub fn payload(
    node: &NodeFacts,
    pod: &Pod,
    volume: &Volume,
    objects: &LocalObjects,
) -> Option<Result<Payload, PayloadError>> {
    let maker = Maker { node, pod, objects };
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return Some(maker.downward(source.items.as_deref(), mode));
    }
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let part = ConfigMapProjection {
            items: source.items.clone(),
            name: source.name.clone(),
            optional: source.optional,
        };
        return Some(maker.config_map(&part, mode));
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let part = SecretProjection {
            items: source.items.clone(),
            name: source.secret_name.clone().unwrap_or_default(),
            optional: source.optional,
        };
        return Some(maker.secret(&part, mode));
    }
    let source = volume.projected.as_ref()?;
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut all = Payload::new();
    for part in source.sources.iter().flatten() {
        let made = if let Some(part) = &part.downward_api {
            maker.downward(part.items.as_deref(), mode)
        } else if let Some(part) = &part.config_map {
            maker.config_map(part, mode)
        } else if let Some(part) = &part.secret {
            maker.secret(part, mode)
        } else {
            continue;
        };
        match made {
            Ok(part) => all.extend(part),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(all))
}

struct Maker<'a> {
    node: &'a NodeFacts,
    pod: &'a Pod,
    objects: &'a LocalObjects,
}

fn mode(given: Option<i32>, default: i32) -> u32 {
    u32::try_from(given.unwrap_or(default)).unwrap_or(0o644) & 0o777
}

/// A path without `//` and `/./`.
fn clean(path: &str) -> String {
    path.split('/').filter(|p| !p.is_empty() && *p != ".").collect::<Vec<_>>().join("/")
}

impl Maker<'_> {
    fn downward(
        &self,
        items: Option<&[DownwardAPIVolumeFile]>,
        default: i32,
    ) -> Result<Payload, PayloadError> {
        let none = PodSpec::default();
        let spec = self.pod.spec.as_ref().unwrap_or(&none);
        let addresses = Addresses { pod: &[], node: &self.node.node_ips };
        let mut files = Payload::new();
        for item in items.into_iter().flatten() {
            let text = if let Some(selector) = &item.field_ref {
                downward::field(self.pod, &selector.field_path, addresses)?
            } else if let Some(selector) = &item.resource_field_ref {
                downward::resource(self.node, spec, None, selector)?
            } else {
                continue;
            };
            let content = FileContent { bytes: text.into_bytes(), mode: mode(item.mode, default) };
            files.insert(clean(&item.path), content);
        }
        Ok(files)
    }

    fn config_map(&self, part: &ConfigMapProjection, default: i32) -> Result<Payload, PayloadError> {
        self.keys(
            "configmap",
            &self.objects.config_maps,
            &part.name,
            part.items.as_deref(),
            part.optional,
            default,
        )
    }

    fn secret(&self, part: &SecretProjection, default: i32) -> Result<Payload, PayloadError> {
        self.keys("secret", &self.objects.secrets, &part.name, part.items.as_deref(), part.optional, default)
    }

    fn keys(
        &self,
        kind: &'static str,
        all: &BTreeMap<(String, String), Keys>,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        default: i32,
    ) -> Result<Payload, PayloadError> {
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let optional = optional.unwrap_or(false);
        let Some(keys) = all.get(&(namespace.clone(), name.to_owned())) else {
            let name = name.to_owned();
            return if optional {
                Ok(Payload::new())
            } else {
                Err(PayloadError::NoObject { kind, namespace, name })
            };
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let file = |bytes: &Vec<u8>| FileContent { bytes: bytes.clone(), mode: mode(None, default) };
            return Ok(keys.iter().map(|(key, bytes)| (key.clone(), file(bytes))).collect());
        };
        let mut files = Payload::new();
        for item in items {
            match keys.get(&item.key) {
                Some(bytes) => {
                    let content = FileContent { bytes: bytes.clone(), mode: mode(item.mode, default) };
                    files.insert(clean(&item.path), content);
                }
                None if optional => {}
                None => return Err(PayloadError::NoKey { kind, key: item.key.clone() }),
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(volume: &str, objects: &LocalObjects) -> Option<Result<Payload, PayloadError>> {
        let text = "metadata: {name: web-node, namespace: ns, labels: {role: db}}\n\
                    spec: {containers: [{name: c, resources: {limits: {memory: 64Mi}}}]}";
        let pod: Pod = serde_yaml::from_str(text).unwrap();
        let volume: Volume = serde_yaml::from_str(volume).unwrap();
        payload(&NodeFacts::default(), &pod, &volume, objects)
    }

    fn files(volume: &str, objects: &LocalObjects) -> Vec<(String, String, u32)> {
        let files = made(volume, objects).unwrap().unwrap();
        let file = |(path, f): (String, FileContent)| (path, String::from_utf8(f.bytes).unwrap(), f.mode);
        files.into_iter().map(file).collect()
    }

    fn row(path: &str, text: &str, mode: u32) -> (String, String, u32) {
        (path.to_owned(), text.to_owned(), mode)
    }

    const ITEMS: &str = "items: [{path: a//b, fieldRef: {fieldPath: metadata.labels}}, {path: m, mode: 256, \
                         resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}]";

    #[test]
    fn files_of_the_downward_api_have_their_own_mode_or_the_volumes() {
        let none = LocalObjects::default();
        let volume = format!("{{name: v, downwardAPI: {{defaultMode: 416, {ITEMS}}}}}");
        assert_eq!(files(&volume, &none), [row("a/b", "role=\"db\"", 0o640), row("m", "64", 0o400)]);
        let volume = format!("{{name: v, projected: {{sources: [{{downwardAPI: {{{ITEMS}}}}}]}}}}");
        assert_eq!(files(&volume, &none), [row("a/b", "role=\"db\"", 0o644), row("m", "64", 0o400)]);
        assert!(made("{name: v, emptyDir: {}}", &none).is_none());
    }

    #[test]
    fn objects_that_are_here_become_files_and_others_are_named_unless_optional() {
        let keys = Keys::from([("k".to_owned(), b"1".to_vec()), ("l".to_owned(), b"2".to_vec())]);
        let name = ("ns".to_owned(), "o".to_owned());
        let objects = LocalObjects {
            config_maps: BTreeMap::from([(name.clone(), keys.clone())]),
            secrets: BTreeMap::from([(name, keys)]),
        };
        assert_eq!(
            files("{name: v, configMap: {name: o}}", &objects),
            [row("k", "1", 0o644), row("l", "2", 0o644)]
        );
        let some = "{name: v, secret: {secretName: o, defaultMode: 256, items: [{key: l, path: x/l}]}}";
        assert_eq!(files(some, &objects), [row("x/l", "2", 0o400)]);
        let both = "{name: v, projected: {sources: [{configMap: {name: o, items: [{key: k, path: a}]}}, \
                    {secret: {name: o, items: [{key: k, path: b}]}}]}}";
        assert_eq!(files(both, &objects), [row("a", "1", 0o644), row("b", "1", 0o644)]);
        let gone = |volume: &str| made(volume, &objects).unwrap().unwrap_err().to_string();
        assert_eq!(gone("{name: v, configMap: {name: p}}"), "configmap \"ns\"/\"p\" not registered");
        assert!(gone("{name: v, secret: {secretName: o, items: [{key: z, path: z}]}}").ends_with("key: z"));
        assert_eq!(files("{name: v, configMap: {name: p, optional: true}}", &objects), []);
        let absent = "{name: v, secret: {secretName: o, optional: true, items: [{key: z, path: z}]}}";
        assert_eq!(files(absent, &objects), []);
    }
}
