//! Holds a parsed document against the Pod's shape and the table of supported fields. Pure.
//!
//! Strict: an unknown, misplaced, wrongly typed or unsupported field is an error with its place. The kubelet
//! drops unknown fields silently.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::refusal::{Position, Refusals};
use super::scalar::Scalar;
use super::schema::Shape;
use super::support::{self, Support};
use super::tree::{Entry, Node, Value};

/// Where every field stands, by its path (`spec.containers[0].image`).
pub(crate) type Places = BTreeMap<String, Position>;

/// A checked document: JSON that the Pod type takes, and the place of every field.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) json: Json,
    pub(crate) places: Places,
}

/// Checks one Pod. `prefix` is the path of the Pod within its document (`items[0].` in a list).
pub(crate) fn pod(node: &Node, shape: &Shape, prefix: &str, refusals: &mut Refusals) -> Checked {
    let mut checker = Checker { refusals, places: Places::new(), prefix: prefix.to_owned(), root: shape };
    let json = checker.value(node, shape, "", "").unwrap_or(Json::Null);
    Checked { json, places: checker.places }
}

struct Checker<'a> {
    refusals: &'a mut Refusals,
    places: Places,
    prefix: String,
    root: &'a Shape,
}

impl Checker<'_> {
    fn refuse(&mut self, at: Position, path: &str, message: impl Into<String>) {
        let field = format!("{}{path}", self.prefix);
        self.refusals.add(at, field.trim_end_matches('.'), message);
    }

    /// `path` names this very place, `row` the table's row for it (without indexes).
    fn value(&mut self, node: &Node, shape: &Shape, path: &str, row: &str) -> Option<Json> {
        self.places.entry(path.to_owned()).or_insert(node.at);
        match (shape, &node.value) {
            (_, Value::Scalar(Scalar::Null)) => None,
            (Shape::Struct(fields), Value::Map(entries)) => Some(self.fields(entries, fields, path, row)),
            (Shape::Map(item), Value::Map(entries)) => {
                let mut map = Map::new();
                for Entry { key, at, value } in entries {
                    let below = format!("{path}[{key}]");
                    self.places.insert(below.clone(), *at);
                    let null_text = || (**item == Shape::Str).then(|| Json::String(String::new()));
                    if let Some(json) = self.value(value, item, &below, row).or_else(null_text) {
                        map.insert(key.clone(), json);
                    }
                }
                Some(Json::Object(map))
            }
            (Shape::List(item), Value::Seq(nodes)) => {
                let below_row = format!("{row}[]");
                let mut list = Vec::new();
                for (index, node) in nodes.iter().enumerate() {
                    let below = format!("{path}[{index}]");
                    if node.is_null() {
                        self.refuse(node.at, &below, "an item of a list may not be empty");
                    }
                    list.extend(self.value(node, item, &below, &below_row));
                }
                Some(Json::Array(list))
            }
            (_, Value::Scalar(scalar)) => self.scalar(node, scalar, shape, path),
            _ => {
                self.wrong_type(node, shape, path);
                None
            }
        }
    }

    fn scalar(&mut self, node: &Node, scalar: &Scalar, shape: &Shape, path: &str) -> Option<Json> {
        match (shape, scalar) {
            (_, Scalar::Str(text)) if text.contains('\0') => {
                self.refuse(node.at, path, "may not contain a NUL character");
                None
            }
            (Shape::Bool, Scalar::Bool(value)) => Some(Json::Bool(*value)),
            (Shape::Int(min, max), Scalar::Int(value)) if (min..=max).contains(&value) => {
                Some((*value).into())
            }
            (Shape::Int(min, max), Scalar::Int(_)) => {
                self.refuse(node.at, path, format!("must be between {min} and {max}"));
                None
            }
            (Shape::Str | Shape::Time | Shape::Quantity | Shape::IntOrString, Scalar::Str(text)) => {
                Some(Json::String(text.clone()))
            }
            (Shape::Quantity, Scalar::Int(value)) => Some(Json::String(value.to_string())),
            (Shape::Quantity, Scalar::Float(text)) => Some(Json::String(text.clone())),
            (Shape::IntOrString, Scalar::Int(value)) if i32::try_from(*value).is_ok() => {
                Some((*value).into())
            }
            _ => {
                self.wrong_type(node, shape, path);
                None
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, shape: &Shape, path: &str) {
        let hint = match (&node.value, shape) {
            (Value::Scalar(Scalar::Int(value)), Shape::Str) => format!("; write it in quotes: \"{value}\""),
            (Value::Scalar(Scalar::Float(value)), Shape::Str) => format!("; write it in quotes: \"{value}\""),
            (Value::Scalar(Scalar::Bool(_)), Shape::Str) => {
                "; write it in quotes (YAML 1.1 also reads y, n, yes, no, on and off as booleans)".to_owned()
            }
            _ => String::new(),
        };
        let message = format!("expected {}, got {}{hint}", shape.wanted(), node.kind());
        self.refuse(node.at, path, message);
    }

    fn fields(&mut self, entries: &[Entry], fields: &BTreeMap<&str, Shape>, path: &str, row: &str) -> Json {
        let mut map = Map::new();
        for Entry { key, at, value } in entries {
            let (below, below_row) = (join(path, key), join(row, key));
            self.places.insert(below.clone(), *at);
            let Some(shape) = fields.get(key.as_str()) else {
                self.unknown(*at, &below, key, fields, row);
                continue;
            };
            match support::of(&below_row) {
                Some(Support::Dropped(_)) => {}
                Some(support) if refuses(support, value) => {
                    self.refuse(*at, &below, support.refusal().unwrap_or_default());
                }
                _ => {
                    if let Some(json) = self.value(value, shape, &below, &below_row) {
                        map.insert(key.clone(), json);
                    }
                }
            }
        }
        Json::Object(map)
    }

    fn unknown(&mut self, at: Position, path: &str, key: &str, fields: &BTreeMap<&str, Shape>, row: &str) {
        let field = format!("{}{path}", self.prefix);
        if let Some(near) = nearest(key, fields.keys().copied()) {
            return self.refusals.add_with(at, field, "unknown field", Some(near));
        }
        match elsewhere(key, row, self.root) {
            Some(home) => self.refusals.add(at, field, format!("unknown field here, it belongs at {home}")),
            None => self.refusals.add(at, field, "unknown field"),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a row refuses this value. What says nothing (null, "", []) is never refused.
fn refuses(support: Support, node: &Node) -> bool {
    let accepted: &[&str] = match support {
        Support::Supported | Support::Parts | Support::NoEffect(_) | Support::Dropped(_) => return false,
        Support::NotYetUnless(values, _) => values,
        Support::NotYet(_) | Support::MayNotReference(_) | Support::Never(_) => &[],
    };
    match &node.value {
        Value::Scalar(Scalar::Null) => false,
        Value::Scalar(Scalar::Bool(value)) => !accepted.contains(&if *value { "true" } else { "false" }),
        Value::Scalar(Scalar::Str(text)) => !text.is_empty() && !accepted.contains(&text.as_str()),
        Value::Scalar(Scalar::Int(_) | Scalar::Float(_)) => true,
        Value::Seq(items) => !items.is_empty(),
        Value::Map(entries) => !(entries.is_empty() && accepted.contains(&"{}")),
    }
}

/// The known name that was probably meant.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<String> {
    // Bounded: comparing costs the product of the lengths.
    if name.len() > 64 {
        return None;
    }
    let lower = name.to_lowercase();
    known
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= (k.len().min(name.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k.to_owned())
}

/// Where a field of this name would be right: the place nearest to `from` that podstead supports.
fn elsewhere(key: &str, from: &str, root: &Shape) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    root.walk("", &mut |path, _| {
        let support = support::of(path);
        if path.rsplit('.').next() == Some(key) && support.is_some() {
            let shared = from.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
            if best.as_ref().is_none_or(|(score, _)| shared > *score) {
                best = Some((shared, path.to_owned()));
            }
        }
        matches!(support, Some(Support::Supported | Support::Parts))
    });
    best.map(|(_, path)| path)
}
