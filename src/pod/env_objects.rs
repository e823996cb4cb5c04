//! Variables out of ConfigMaps and Secrets (`kubelet-static-pods.md 4.3`), as far as local objects hold them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMapKeySelector, EnvFromSource, SecretKeySelector};

use super::objects::{Keys, LocalObjects};

type Objects = BTreeMap<(String, String), Keys>;

/// All variables of `envFrom`, in the order of its sources and of the keys of each; of the same name the last counts.
/// Values are taken as they are. Without an object that is not optional: why not.
pub(super) fn all(
    sources: &[EnvFromSource],
    namespace: &str,
    objects: &LocalObjects,
) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for source in sources {
        let (kind, all, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => ("configmap", &objects.config_maps, &map.name, map.optional),
            (None, Some(secret)) => ("secret", &objects.secrets, &secret.name, secret.optional),
            (None, None) => return Err("it names no source that podstead supports".to_owned()),
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        match all.get(&(namespace.to_owned(), name.clone())) {
            // What is no text is of `binaryData`, which is no source of variables.
            Some(keys) => found.extend(
                keys.iter().filter_map(|(key, value)| Some((format!("{prefix}{key}"), text(value)?))),
            ),
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} {name:?} not found")),
        }
    }
    Ok(found)
}

/// One key of a ConfigMap; `None` for an optional one that is not there.
pub(super) fn of_config_map(
    selector: &ConfigMapKeySelector,
    namespace: &str,
    objects: &LocalObjects,
) -> Result<Option<String>, String> {
    let ConfigMapKeySelector { name, key, optional } = selector;
    one("configmap", &objects.config_maps, (namespace, name, key), *optional)
}

/// One key of a Secret; `None` for an optional one that is not there.
pub(super) fn of_secret(
    selector: &SecretKeySelector,
    namespace: &str,
    objects: &LocalObjects,
) -> Result<Option<String>, String> {
    let SecretKeySelector { name, key, optional } = selector;
    one("secret", &objects.secrets, (namespace, name, key), *optional)
}

fn one(
    kind: &str,
    objects: &Objects,
    (namespace, name, key): (&str, &str, &str),
    optional: Option<bool>,
) -> Result<Option<String>, String> {
    let object = objects.get(&(namespace.to_owned(), name.to_owned()));
    let value = object.and_then(|keys| keys.get(key)).and_then(|value| text(value));
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if object.is_none() => Err(format!("{kind} {name:?} not found")),
        None => Err(format!("couldn't find key {key} in {kind} {namespace}/{name}")),
    }
}

fn text(value: &[u8]) -> Option<String> {
    String::from_utf8(value.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> LocalObjects {
        let object = |name: &str, keys: &[(&str, &[u8])]| {
            let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
            (("default".to_owned(), name.to_owned()), keys)
        };
        LocalObjects {
            config_maps: [object("m", &[("a", b"1"), ("b", b"$(a)"), ("binary", b"\xff")])].into(),
            secrets: [object("s", &[("a", b"2")])].into(),
        }
    }

    fn found(text: &str) -> Result<String, String> {
        let sources: Vec<EnvFromSource> = serde_yaml::from_str(text).unwrap();
        let all = all(&sources, "default", &objects())?;
        Ok(all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn all_keys_become_variables_with_the_prefix_before_them() {
        let text = "[{configMapRef: {name: m}}, {prefix: P_, secretRef: {name: s}}, {secretRef: {name: s}}]";
        assert_eq!(found(text).unwrap(), "a=1 b=$(a) P_a=2 a=2");
        assert_eq!(
            found("[{configMapRef: {name: n, optional: true}}, {secretRef: {name: s}}]").unwrap(),
            "a=2"
        );
    }

    #[test]
    fn an_object_or_key_that_is_missing_is_named_unless_it_is_optional() {
        assert_eq!(found("[{configMapRef: {name: s}}]").unwrap_err(), "configmap \"s\" not found");
        assert_eq!(found("[{secretRef: {name: m, optional: false}}]").unwrap_err(), "secret \"m\" not found");
        assert!(found("[{prefix: x}]").unwrap_err().contains("names no source"));
        let map = |key: &str, optional| {
            let selector = ConfigMapKeySelector { name: "m".into(), key: key.into(), optional };
            of_config_map(&selector, "default", &objects())
        };
        assert_eq!(map("a", None).unwrap().as_deref(), Some("1"));
        assert_eq!(map("c", None).unwrap_err(), "couldn't find key c in configmap default/m");
        assert_eq!(map("c", Some(true)), Ok(None));
        let secret = |name: &str, optional| {
            let selector = SecretKeySelector { name: name.into(), key: "a".into(), optional };
            of_secret(&selector, "default", &objects())
        };
        assert_eq!(secret("s", None).unwrap().as_deref(), Some("2"));
        assert_eq!(secret("t", None).unwrap_err(), "secret \"t\" not found");
        assert_eq!(secret("t", Some(true)), Ok(None));
    }
}
