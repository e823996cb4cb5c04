//! Environment and `$(NAME)` expansion (`kubelet-static-pods.md 4.3`). Pure: files of variables are read before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, FileKeySelector, Pod, PodSpec};
use podstead_runtime::EnvVar;
use thiserror::Error;

use super::NodeFacts;
use super::downward::{self, Addresses};
use super::env_objects;
use super::objects::LocalObjects;

/// A variable cannot be resolved, in the kubelet's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("container {container}: variable {variable}: {problem}")]
pub struct VariableError {
    /// The container.
    pub container: String,
    /// The variable.
    pub variable: String,
    /// Why not.
    pub problem: String,
}

/// A file of variables, by its volume and path: what it says, `None` when there is none, or why it cannot be used.
pub type EnvFiles = BTreeMap<(String, String), Result<Option<BTreeMap<String, String>>, String>>;

/// Where values come from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The node.
    pub node: &'a NodeFacts,
    /// The pod.
    pub pod: &'a Pod,
    /// Its sandbox's addresses.
    pub ips: &'a [IpAddr],
    /// The [`files_needed`], as they are now.
    pub files: &'a EnvFiles,
    /// ConfigMaps and Secrets.
    pub objects: &'a LocalObjects,
}

/// The files of variables that a container refers to, by volume and path.
pub fn files_needed(container: &Container) -> BTreeSet<(String, String)> {
    let refs = container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref());
    refs.map(|r| (r.volume_name.clone(), r.path.clone())).collect()
}

/// The container's environment, `envFrom` before `env`, each in the order of the manifest; of duplicate names the last
/// wins, in its place.
pub fn environment(container: &Container, sources: &Sources<'_>) -> Result<Vec<EnvVar>, VariableError> {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut list: Vec<EnvVar> = Vec::new();
    let failed = |variable: &str, problem| {
        let (container, variable) = (container.name.clone(), variable.to_owned());
        VariableError { container, variable, problem }
    };
    let mut add = |seen: &mut BTreeMap<String, String>, name: &str, value: String| {
        seen.insert(name.to_owned(), value.clone());
        list.retain(|earlier| earlier.name != name);
        list.push(EnvVar { name: name.to_owned(), value });
    };
    let sets = container.env_from.as_deref().unwrap_or_default();
    let from = env_objects::all(sets, &namespace(sources.pod), sources.objects);
    for (name, value) in from.map_err(|problem| failed("of envFrom", problem))? {
        add(&mut seen, &name, value);
    }
    for var in container.env.iter().flatten() {
        let value = match (var.value.as_deref().unwrap_or_default(), &var.value_from) {
            ("", Some(from)) => match resolve(container, from, sources) {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(problem) => return Err(failed(&var.name, problem)),
            },
            (value, _) => expand(value, &seen),
        };
        add(&mut seen, &var.name, value);
    }
    Ok(list)
}

/// `None` for an optional one that is not there.
fn resolve(
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources<'_>,
) -> Result<Option<String>, String> {
    let addresses = Addresses { pod: sources.ips, node: &sources.node.node_ips };
    if let Some(selector) = &from.field_ref {
        let value = downward::field(sources.pod, &selector.field_path, addresses);
        return value.map(Some).map_err(|e| e.to_string());
    }
    if let Some(selector) = &from.resource_field_ref {
        let none = PodSpec::default();
        let spec = sources.pod.spec.as_ref().unwrap_or(&none);
        let amount = downward::resource(sources.node, spec, Some(container), selector);
        return amount.map(Some).map_err(|e| e.to_string());
    }
    if let Some(selector) = &from.config_map_key_ref {
        return env_objects::of_config_map(selector, &namespace(sources.pod), sources.objects);
    }
    if let Some(selector) = &from.secret_key_ref {
        return env_objects::of_secret(selector, &namespace(sources.pod), sources.objects);
    }
    match &from.file_key_ref {
        Some(selector) => from_file(selector, sources.files),
        None => Err("it names no source that podstead supports".to_owned()),
    }
}

fn namespace(pod: &Pod) -> String {
    pod.metadata.namespace.clone().unwrap_or_default()
}

/// An empty value counts as a missing one.
fn from_file(selector: &FileKeySelector, files: &EnvFiles) -> Result<Option<String>, String> {
    let file = files.get(&(selector.volume_name.clone(), selector.path.clone()));
    let (key, path, volume) = (&selector.key, &selector.path, &selector.volume_name);
    let variables = match file {
        None => return Err(format!("cannot find the volume {volume:?} referenced by FileKeyRef")),
        Some(Err(problem)) => {
            return Err(format!("couldn't parse env file {path:?} in volume {volume:?}: {problem}"));
        }
        Some(Ok(variables)) => variables.as_ref(),
    };
    let value = variables.and_then(|all| all.get(key)).filter(|value| !value.is_empty());
    match value {
        Some(value) => Ok(Some(value.clone())),
        None if selector.optional.unwrap_or(false) => Ok(None),
        None => {
            Err(format!("environment variable key {key:?} not found in file {path:?} of volume {volume:?}"))
        }
    }
}

/// Expands each word with the final environment.
pub fn expand_all(words: Option<&Vec<String>>, env: &[EnvVar]) -> Vec<String> {
    let table: BTreeMap<String, String> = env.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
    words.into_iter().flatten().map(|word| expand(word, &table)).collect()
}

/// `$(NAME)` becomes its value, `$$` a dollar sign; what is unknown stays as it stands.
pub fn expand(text: &str, table: &BTreeMap<String, String>) -> String {
    expand_with(text, |name| table.get(name).cloned())
}

/// The same with a lookup.
pub fn expand_with(text: &str, mut lookup: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..rest.len() - tail.len()]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar as Var;

    use super::*;

    fn resolved(container: &Container, files: &EnvFiles) -> Result<Vec<EnvVar>, VariableError> {
        let text = "metadata: {name: web-node, labels: {role: db}}\nspec: {containers: []}";
        let (node, pod) = (NodeFacts::default(), serde_yaml::from_str(text).unwrap());
        let objects = LocalObjects {
            config_maps: [((String::new(), "m".into()), [("A".into(), b"1".to_vec())].into())].into(),
            ..LocalObjects::default()
        };
        environment(container, &Sources { node: &node, pod: &pod, ips: &[], files, objects: &objects })
    }

    fn env(vars: &[(&str, &str)]) -> Vec<EnvVar> {
        let var = |(name, value): &(&str, &str)| Var {
            name: (*name).into(),
            value: Some((*value).into()),
            ..Var::default()
        };
        let container = Container { env: Some(vars.iter().map(var).collect()), ..Container::default() };
        resolved(&container, &EnvFiles::new()).unwrap()
    }

    fn container(env: &str) -> Container {
        serde_yaml::from_str(&format!("{{name: c, env: {env}}}")).unwrap()
    }

    #[test]
    fn values_of_the_pod_are_taken_as_they_are_and_can_be_referred_to() {
        let c = container(
            "[{name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: R, value: \"<$(N)>\"}, \
             {name: L, value: '', valueFrom: {fieldRef: {fieldPath: \"metadata.labels['role']\"}}}, \
             {name: C, valueFrom: {resourceFieldRef: {resource: requests.cpu}}}]",
        );
        let all = resolved(&c, &EnvFiles::new()).unwrap();
        let values: Vec<&str> = all.iter().map(|v| v.value.as_str()).collect();
        assert_eq!(values, ["web-node", "<web-node>", "db", "0"]);
    }

    #[test]
    fn what_cannot_be_resolved_names_container_and_variable() {
        let error = |env: &str| resolved(&container(env), &EnvFiles::new()).unwrap_err().to_string();
        assert_eq!(
            error("[{name: P, valueFrom: {fieldRef: {fieldPath: status.phase}}}]"),
            "container c: variable P: unsupported fieldPath: status.phase"
        );
        assert!(error("[{name: P, valueFrom: {}}]").contains("names no source"));
    }

    #[test]
    fn a_key_of_a_file_is_found_or_optional_or_an_error() {
        let read = BTreeMap::from([("K".to_owned(), "v$(N)".to_owned()), ("E".to_owned(), String::new())]);
        let files = EnvFiles::from([
            (("v".to_owned(), "good".to_owned()), Ok(Some(read))),
            (("v".to_owned(), "none".to_owned()), Ok(None)),
            (("v".to_owned(), "bad".to_owned()), Err("line 1: no".to_owned())),
        ]);
        let get = |path: &str, key: &str, optional: bool| {
            let c = container(&format!(
                "[{{name: X, valueFrom: {{fileKeyRef: {{volumeName: v, path: {path}, key: {key}, optional: {optional}}}}}}}]"
            ));
            assert_eq!(files_needed(&c), BTreeSet::from([("v".to_owned(), path.to_owned())]));
            resolved(&c, &files).map(|all| all.first().map(|v| v.value.clone())).map_err(|e| e.problem)
        };
        assert_eq!(get("good", "K", false).unwrap().as_deref(), Some("v$(N)"));
        for (path, key) in [("good", "E"), ("good", "none"), ("none", "K")] {
            assert!(get(path, key, false).unwrap_err().contains("not found in file"), "{path} {key}");
            assert_eq!(get(path, key, true), Ok(None), "{path} {key}");
        }
        assert!(get("bad", "K", true).unwrap_err().starts_with("couldn't parse env file"));
        assert!(get("other", "K", true).unwrap_err().contains("cannot find the volume"));
    }

    #[test]
    fn earlier_names_expand_and_unknown_ones_stay() {
        let got = env(&[("A", "1"), ("B", "$(A)-$(C)-$$(A)-$A-$(A"), ("C", "3")]);
        assert_eq!(got[1].value, "1-$(C)-$(A)-$A-$(A");
    }

    #[test]
    fn the_last_of_two_wins_and_sees_the_first() {
        let got = env(&[("A", "1"), ("A", "$(A)2")]);
        assert_eq!(got, [EnvVar { name: "A".into(), value: "12".into() }]);
    }

    #[test]
    fn variables_of_objects_come_first_and_are_seen_by_the_others() {
        let text = "{name: c, envFrom: [{configMapRef: {name: m}}, {prefix: P, configMapRef: {name: m}}], env: [\
                    {name: B, value: $(A)$(PA)}, {name: A, value: $(A)2}, \
                    {name: C, valueFrom: {configMapKeyRef: {name: m, key: A}}}]}";
        let all = resolved(&serde_yaml::from_str(text).unwrap(), &EnvFiles::new()).unwrap();
        let all: Vec<String> = all.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
        assert_eq!(all, ["PA=1", "B=11", "A=12", "C=1"]);
        let missing = "{name: c, envFrom: [{secretRef: {name: s}}]}";
        let error = resolved(&serde_yaml::from_str(missing).unwrap(), &EnvFiles::new()).unwrap_err();
        assert_eq!(error.to_string(), "container c: variable of envFrom: secret \"s\" not found");
    }

    #[test]
    fn words_expand_with_the_final_environment() {
        let table = [EnvVar { name: "X".into(), value: "é".into() }];
        assert_eq!(expand_all(Some(&vec!["-$(X)-".into(), "$".into()]), &table), ["-é-", "$"]);
    }
}
