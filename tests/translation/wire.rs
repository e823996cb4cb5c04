//! Messages of the CRI as JSON, by the names of the protocol's own text.

use std::path::PathBuf;
use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage as _, Value};
use serde_json::{Map, Value as Json};

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto");
        let set =
            protox::compile([root.join("runtime/v1/api.proto")], [root]).expect("the protocol compiles");
        DescriptorPool::from_file_descriptor_set(set).expect("a sound descriptor set")
    })
}

/// A message as JSON: what is set, in the order of the field numbers.
pub fn json(name: &str, message: &impl prost_reflect::prost::Message) -> Json {
    let kind = pool().get_message_by_name(&format!("runtime.v1.{name}")).expect("a message of the CRI");
    let mut dynamic = DynamicMessage::new(kind);
    dynamic.transcode_from(message).expect("the same message");
    of_message(&dynamic)
}

fn of_message(message: &DynamicMessage) -> Json {
    // A wrapped number is there even when it is 0.
    if message.descriptor().name() == "Int64Value" {
        return message.get_field_by_name("value").and_then(|v| v.as_i64()).into();
    }
    let fields = message.fields().map(|(field, value)| (field.name().to_owned(), of(&field.kind(), value)));
    Json::Object(fields.collect())
}

fn of(kind: &Kind, value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::from(*value),
        Value::I32(value) => Json::from(*value),
        Value::I64(value) => Json::from(*value),
        Value::U32(value) => Json::from(*value),
        Value::U64(value) => Json::from(*value),
        Value::F32(value) => Json::from(*value),
        Value::F64(value) => Json::from(*value),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(String::from_utf8_lossy(bytes).into_owned()),
        Value::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|kind| Some(kind.get_value(*number)?.name().to_owned()));
            name.map_or_else(|| Json::from(*number), Json::from)
        }
        Value::Message(message) => of_message(message),
        Value::List(all) => all.iter().map(|one| of(kind, one)).collect(),
        Value::Map(all) => {
            let value_kind = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let value_kind = value_kind.as_ref().unwrap_or(kind);
            let mut map = Map::new();
            for (key, value) in all {
                map.insert(key.as_str().unwrap_or_default().to_owned(), of(value_kind, value));
            }
            Json::Object(map)
        }
    }
}
