//! Our CRI proto against an independent copy: the one packaged in crates.io's `k8s-cri` (of an earlier
//! CRI release), which cargo brings but which is not built. Everything it has, ours must have unchanged;
//! what ours has beyond it is listed here by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

/// What CRI 0.36 has beyond the reference, one name per line.
const BEYOND: &str = include_str!("wire/beyond.txt");

/// What CRI 0.36 spells otherwise, with the same bytes on the wire: name, reference, ours.
const RESPELLED: &[(&str, &str, &str)] =
    &[("runtime.v1.KeyValue.value", "field 2 Optional string", "field 2 Optional bytes")];

fn reference_proto() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .arg("--manifest-path")
        .arg(&manifest)
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let package = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .find(|package| package["name"] == "k8s-cri")
        .expect("k8s-cri is a dependency");
    let manifest = Path::new(package["manifest_path"].as_str().expect("manifest_path"));
    manifest.with_file_name("proto/v1.proto")
}

fn compile(file: &Path) -> DescriptorPool {
    let root = file.parent().expect("a directory");
    let set = protox::compile([file], [root]).unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
    DescriptorPool::from_file_descriptor_set(set).expect("a sound descriptor set")
}

/// A flat picture: one line per rpc, field and enum value, keyed by its full name.
fn picture(pool: &DescriptorPool) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for service in pool.services() {
        for method in service.methods() {
            let stream = |yes: bool| if yes { "stream " } else { "" };
            lines.insert(
                method.full_name().to_owned(),
                format!(
                    "rpc {}{} -> {}{}",
                    stream(method.is_client_streaming()),
                    method.input().full_name(),
                    stream(method.is_server_streaming()),
                    method.output().full_name()
                ),
            );
        }
    }
    for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
        lines.insert(message.full_name().to_owned(), "message".to_owned());
        picture_message(&message, &mut lines);
    }
    for value in pool.all_enums() {
        picture_enum(&value, &mut lines);
    }
    lines
}

fn picture_message(message: &MessageDescriptor, lines: &mut BTreeMap<String, String>) {
    for field in message.fields() {
        let oneof = field.containing_oneof().map_or(String::new(), |oneof| format!(" of {}", oneof.name()));
        lines.insert(
            field.full_name().to_owned(),
            format!("field {} {:?} {}{oneof}", field.number(), field.cardinality(), type_name(&field)),
        );
    }
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if entry.is_map_entry() => format!(
            "map<{}, {}>",
            type_name(&entry.map_entry_key_field()),
            type_name(&entry.map_entry_value_field())
        ),
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(value) => value.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    }
}

fn picture_enum(descriptor: &EnumDescriptor, lines: &mut BTreeMap<String, String>) {
    lines.insert(descriptor.full_name().to_owned(), "enum".to_owned());
    for value in descriptor.values() {
        let name = format!("{}.{}", descriptor.full_name(), value.name());
        lines.insert(name, format!("value {}", value.number()));
    }
}

fn ours() -> BTreeMap<String, String> {
    picture(&compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/runtime/v1/api.proto")))
}

#[test]
fn everything_the_reference_has_ours_has_unchanged() {
    let reference = picture(&compile(&reference_proto()));
    assert!(reference.len() > 500, "the reference has only {} names", reference.len());
    let ours = ours();
    let different: Vec<String> = reference
        .iter()
        .filter(|(name, line)| {
            let respelled = RESPELLED.iter().find(|known| known.0 == *name && known.1 == *line);
            ours.get(*name).map(String::as_str) != Some(respelled.map_or(line.as_str(), |known| known.2))
        })
        .map(|(name, line)| format!("{name}: reference {line}; ours {:?}", ours.get(name)))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn what_ours_has_beyond_the_reference_is_listed() {
    let reference = picture(&compile(&reference_proto()));
    let ours = ours();
    let beyond: Vec<String> = ours
        .iter()
        .filter(|(name, _)| !reference.contains_key(*name))
        .map(|(name, line)| format!("{name}: {line}"))
        .collect();
    if beyond != BEYOND.lines().collect::<Vec<_>>() {
        let path = std::env::temp_dir().join(format!("beyond-{}.txt", std::process::id()));
        std::fs::write(&path, beyond.join("\n") + "\n").expect("write the new list");
        panic!(
            "tests/wire/beyond.txt is not what ours has beyond the reference; the list is in {}",
            path.display()
        );
    }
}
