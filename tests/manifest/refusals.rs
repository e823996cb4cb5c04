//! Every row of the table of fields that refuses: its whole message, and nothing but it. The expected ones are in
//! `fixtures/manifests/refused-fields.expected`.

use std::path::Path;

use podstead::manifest::support::{self, Support};
use podstead::manifest::validate;
use serde_json::{Value as Json, json};

use super::{NODE, root};

/// What must stand beside a refused field for the rest of the manifest to be right, by the end of the path above it.
const BESIDE: [(&str, &str); 10] = [
    ("containers[]", r#"{"name": "c", "image": "app"}"#),
    ("initContainers[]", r#"{"name": "i", "image": "app", "restartPolicy": "Always"}"#),
    ("env[]", r#"{"name": "A"}"#),
    ("volumes[]", r#"{"name": "v"}"#),
    ("volumeMounts[]", r#"{"name": "v", "mountPath": "/v"}"#),
    ("httpGet", r#"{"port": 80}"#),
    ("emptyDir", "{}"),
    ("downwardAPI", "{}"),
    ("items[]", r#"{"path": "f", "fieldRef": {"fieldPath": "metadata.name"}}"#),
    ("readinessProbe", r#"{"exec": {"command": ["true"]}}"#),
];

/// Puts the value at the path, and beside it what must be there.
fn put(into: &mut Json, path: &str, value: &Json) {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = step.trim_end_matches("[]");
    let fields = into.as_object_mut().unwrap();
    if rest.is_empty() {
        fields.insert(name.to_owned(), value.clone());
        return;
    }
    let beside = BESIDE.iter().find(|(end, _)| *end == step);
    let fresh: Json = beside.map_or_else(|| json!({}), |(_, text)| serde_json::from_str(text).unwrap());
    let slot = fields.entry(name.to_owned());
    let slot = slot.or_insert_with(|| if step.ends_with("[]") { json!([fresh]) } else { fresh });
    put(if slot.is_array() { &mut slot[0] } else { slot }, rest, value);
}

/// A manifest that is right but for this field.
fn with(path: &str, value: &Json) -> String {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "app"}]}});
    if path.contains("volumeMounts") {
        pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    }
    put(&mut pod, path, value);
    serde_yaml::to_string(&pod).unwrap()
}

/// The table's refusing rows; those of containers also for init containers.
fn rows() -> Vec<(String, Support)> {
    let mut all = Vec::new();
    for (path, support) in support::table() {
        if support.refusal().is_none() {
            continue;
        }
        all.push((path.to_owned(), support));
        if let Some(field) = path.strip_prefix("spec.containers[]") {
            all.push((format!("spec.initContainers[]{field}"), support));
        }
    }
    all
}

#[test]
fn every_refused_field_is_refused_in_its_own_words_and_nothing_else_is() {
    let mut lines = String::new();
    for (path, support) in rows() {
        let own = support.refusal().unwrap();
        // Text says something whatever the field's type is; a row refuses before types are looked at.
        let text = with(&path, &json!("x"));
        let Err(refusals) = validate(text.as_bytes(), Path::new("web.yaml"), NODE) else {
            panic!("{path} was taken: {text}");
        };
        let [refusal] = &refusals[..] else { panic!("{path}: {refusals:#?}\n{text}") };
        assert_eq!(refusal.field, path.replace("[]", "[0]"));
        assert_eq!(refusal.message, own, "{path}");
        lines += &refusal.to_string();
        lines += "\n";
    }
    let version = concat!("podstead ", env!("CARGO_PKG_VERSION"));
    let lines = lines.replace(version, "podstead VERSION");
    let mut wrong = Vec::new();
    super::expect(&root().join("fixtures/manifests/refused-fields.expected"), &lines, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_refused_field_that_says_nothing_is_taken() {
    for (path, _) in rows() {
        for nothing in [Json::Null, json!(""), json!([])] {
            let text = with(&path, &nothing);
            let refusals = validate(text.as_bytes(), Path::new("web.yaml"), NODE).err().unwrap_or_default();
            let own = path.replace("[]", "[0]");
            // Whether it is enough is another question: a volume needs a source.
            let words: Vec<_> = refusals.iter().filter(|r| r.field == own).collect();
            let wrong_type = |r: &&podstead::manifest::Refusal| r.message.starts_with("expected ");
            assert!(words.iter().all(wrong_type), "{path}: {nothing}: {words:?}");
        }
    }
}
