//! The published schema of OCI runtime configurations, from the system's package of it (`tests/support/deps.sh`).

use std::path::Path;

use jsonschema::{Draft, Registry, Validator};
use serde_json::Value as Json;

const DIR: &str = "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema";
const BASE: &str = "https://opencontainers.example/schema/";

/// The schema; `None` where it is not installed.
pub fn published() -> Option<Validator> {
    let entries = std::fs::read_dir(Path::new(DIR)).ok()?;
    let mut registry = Registry::new();
    for entry in entries {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        let text = std::fs::read(&path).expect("a file of the schema");
        let document: Json = serde_json::from_slice(&text).expect("JSON");
        // Its files refer to each other by name and say no draft but in the first.
        let resource = Draft::Draft4.create_resource(document);
        registry = registry.add(format!("{BASE}{name}"), resource).expect("a part of the schema");
    }
    let registry = registry.prepare().expect("a whole schema");
    let entry = serde_json::json!({"$ref": format!("{BASE}config-schema.json")});
    let options = jsonschema::options().with_draft(Draft::Draft4);
    Some(options.with_registry(&registry).build(&entry).expect("the schema is sound"))
}

/// What is wrong with a configuration, with the place.
pub fn wrong(schema: &Validator, config: &Json) -> Vec<String> {
    schema.iter_errors(config).map(|error| format!("{}: {error}", error.instance_path())).collect()
}
