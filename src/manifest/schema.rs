//! The shape of a v1 Pod, taken from the Rust type itself. Pure.
//!
//! A deserializer that has no data walks `k8s_openapi`'s Pod and notes every field it asks for, so the shape can
//! never differ from the type that is later filled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// What may stand at a place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Named fields.
    Struct(BTreeMap<&'static str, Shape>),
    List(Box<Shape>),
    /// Free keys.
    Map(Box<Shape>),
    Bool,
    /// A whole number between the bounds.
    Int(i64, i64),
    Str,
    /// A point in time, RFC 3339.
    Time,
    /// A Kubernetes quantity: text or number.
    Quantity,
    IntOrString,
    /// No shape of its own (`fieldsV1` of managed fields).
    Any,
}

/// The shape of a v1 Pod.
pub(crate) fn pod() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| {
        let mut shape = Shape::Any;
        // Only a type that refuses the probe's placeholder values could fail; the tests walk the whole type.
        if let Err(error) = Pod::deserialize(Probe { out: &mut shape }) {
            debug_assert!(false, "the Pod type refused the probe: {error}");
        }
        shape
    })
}

impl Shape {
    /// Calls `visit` with the table path (`spec.containers[].name`) and shape of every field below this one.
    /// `visit` says whether to go further down.
    pub(crate) fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, &Shape) -> bool) {
        match self {
            Shape::Struct(fields) => {
                for (name, shape) in fields {
                    let below = if path.is_empty() { (*name).to_owned() } else { format!("{path}.{name}") };
                    if visit(&below, shape) {
                        shape.walk(&below, visit);
                    }
                }
            }
            Shape::List(item) => item.walk(&format!("{path}[]"), visit),
            Shape::Map(item) => item.walk(&format!("{path}{{}}"), visit),
            _ => {}
        }
    }

    /// What is expected here, for messages.
    pub(crate) fn wanted(&self) -> &'static str {
        match self {
            Shape::Struct(_) | Shape::Map(_) => "a mapping",
            Shape::List(_) => "a list",
            Shape::Bool => "true or false",
            Shape::Int(..) => "a whole number",
            Shape::Str => "a string",
            Shape::Time => "a time (RFC 3339)",
            Shape::Quantity => "a quantity such as 500m or 64Mi",
            Shape::IntOrString => "a whole number or a string",
            Shape::Any => "a value",
        }
    }
}

type ProbeError = serde::de::value::Error;

/// Pretends to hold one of everything, and writes down what it was asked for.
struct Probe<'s> {
    out: &'s mut Shape,
}

macro_rules! int {
    ($name:ident, $type:ty, $visit:ident) => {
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
            *self.out = Shape::Int(i64::from(<$type>::MIN), i64::from(<$type>::MAX));
            visitor.$visit(0)
        }
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    int!(deserialize_i8, i8, visit_i8);
    int!(deserialize_i16, i16, visit_i16);
    int!(deserialize_i32, i32, visit_i32);
    int!(deserialize_i64, i64, visit_i64);
    int!(deserialize_u8, u8, visit_u8);
    int!(deserialize_u16, u16, visit_u16);
    int!(deserialize_u32, u32, visit_u32);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let named = Expected(&visitor).to_string();
        *self.out = if named == "IntOrString" { Shape::IntOrString } else { Shape::Any };
        visitor.visit_str("")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.out = Shape::Bool;
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.out = Shape::Str;
        // Only the checks of apiVersion and kind read the text.
        let named = Expected(&visitor).to_string();
        visitor.visit_str(if named.contains("timestamp") || named.contains("time") { EPOCH } else { "" })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        match name {
            "Quantity" => {
                *self.out = Shape::Quantity;
                visitor.visit_newtype_struct(StrDeserializer::new("0"))
            }
            "Time" | "MicroTime" => {
                *self.out = Shape::Time;
                visitor.visit_newtype_struct(StrDeserializer::new(EPOCH))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let mut item = Shape::Any;
        let value = visitor.visit_seq(One { out: &mut item, given: false })?;
        *self.out = Shape::List(Box::new(item));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let mut item = Shape::Any;
        let value = visitor.visit_map(One { out: &mut item, given: false })?;
        *self.out = Shape::Map(Box::new(item));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        let mut shapes = BTreeMap::new();
        let value = visitor.visit_map(Fields { name, left: fields, shapes: &mut shapes, current: "" })?;
        *self.out = Shape::Struct(shapes);
        Ok(value)
    }

    serde::forward_to_deserialize_any! {
        i128 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

/// Renders what a visitor says it expects; the only name an untyped field gives away.
struct Expected<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

/// A list with one item, or a map with one key.
struct One<'s> {
    out: &'s mut Shape,
    given: bool,
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = ProbeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ProbeError> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(None);
        }
        seed.deserialize(Probe { out: self.out }).map(Some)
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        if std::mem::replace(&mut self.given, true) {
            return Ok(None);
        }
        seed.deserialize(StringDeserializer::new("key".to_owned())).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        seed.deserialize(Probe { out: self.out })
    }
}

/// Offers every field a struct names.
struct Fields<'s> {
    name: &'static str,
    left: &'static [&'static str],
    shapes: &'s mut BTreeMap<&'static str, Shape>,
    current: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        let Some((first, rest)) = self.left.split_first() else { return Ok(None) };
        (self.current, self.left) = (first, rest);
        seed.deserialize(StrDeserializer::new(first)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        // The type checks these two itself while it is read.
        let fixed = match (self.name, self.current) {
            ("Pod", "apiVersion") => Some("v1"),
            ("Pod", "kind") => Some("Pod"),
            _ => None,
        };
        if let Some(text) = fixed {
            self.shapes.insert(self.current, Shape::Str);
            return seed.deserialize(StrDeserializer::new(text));
        }
        let mut shape = Shape::Any;
        let value = seed
            .deserialize(Probe { out: &mut shape })
            .map_err(|e| ProbeError::custom(format!("{}.{}: {e}", self.name, self.current)))?;
        self.shapes.insert(self.current, shape);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_pod_type_is_seen() {
        let mut seen = BTreeMap::new();
        pod().walk("", &mut |path, shape| {
            seen.insert(path.to_owned(), shape.clone());
            true
        });
        assert!(seen.len() > 1000, "{}", seen.len());
        assert_eq!(seen["spec.containers[].image"], Shape::Str);
        assert_eq!(
            seen["spec.containers[].ports[].containerPort"],
            Shape::Int(i32::MIN.into(), i32::MAX.into())
        );
        assert_eq!(seen["spec.hostNetwork"], Shape::Bool);
        assert_eq!(seen["spec.containers[].resources.limits"], Shape::Map(Box::new(Shape::Quantity)));
        assert_eq!(seen["spec.containers[].livenessProbe.httpGet.port"], Shape::IntOrString);
        assert_eq!(seen["metadata.creationTimestamp"], Shape::Time);
        assert_eq!(seen["metadata.labels"], Shape::Map(Box::new(Shape::Str)));
        assert_eq!(seen["status.conditions[].type"], Shape::Str);
    }
}
