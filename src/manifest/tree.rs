//! YAML or JSON text to a tree whose every node knows its place. Pure.
//!
//! The text is hostile: depth and node count are bounded, and an alias costs as many nodes as it repeats, so a
//! small file cannot grow without bound. Duplicate keys are refused; the kubelet lets the last one win silently.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};

use super::refusal::{Position, Refusals};
use super::scalar::{Scalar, resolve};

/// Nesting beyond this is no pod: the deepest field of a v1 Pod stands at about 15.
const MAX_DEPTH: usize = 64;
/// Nodes of all documents of a file together, aliases expanded; keeps the memory for one file under 64 MiB.
const MAX_NODES: usize = 200_000;
/// Bytes of scalars that aliases may repeat.
const MAX_ALIAS_BYTES: usize = 4 << 20;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    Seq(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Rc<Node>,
}

impl Node {
    /// The value of a mapping's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &*e.value),
            _ => None,
        }
    }

    /// The text of a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Scalar::Str(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Scalar::Null))
    }

    /// What the user wrote, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Scalar::Null) => "null",
            Value::Scalar(Scalar::Bool(_)) => "a boolean",
            Value::Scalar(Scalar::Int(_) | Scalar::Float(_)) => "a number",
            Value::Scalar(Scalar::Str(_)) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// All documents of a text. Documents that hold nothing but comments are left out.
/// Errors go to `refusals`; what was read up to the first syntax error is not returned.
pub(crate) fn documents(text: &str, refusals: &mut Refusals) -> Vec<Rc<Node>> {
    let before = refusals.len();
    let mut builder = Builder::new(refusals);
    let mut parser = Parser::new_from_str(text);
    while !builder.stopped {
        match next(&mut parser) {
            None => break,
            Some(Ok((event, at))) => builder.event(event, at),
            Some(Err((at, info))) => {
                builder.refusals.add(at, "", format!("not valid YAML: {info}"));
                builder.stopped = true;
            }
        }
    }
    let documents = std::mem::take(&mut builder.documents);
    if refusals.len() > before { Vec::new() } else { documents }
}

type Pulled<'a> = Result<(Event<'a>, Position), (Position, String)>;

fn next<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> Option<Pulled<'a>> {
    Some(match parser.next_event()? {
        Ok((event, span)) => Ok((event, position(&span.start))),
        Err(error) => Err((position(error.marker()), error.info().to_owned())),
    })
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

enum Frame {
    Seq {
        at: Position,
        anchor: usize,
        items: Vec<Rc<Node>>,
    },
    Map {
        at: Position,
        anchor: usize,
        entries: Vec<Entry>,
        merges: Vec<Rc<Node>>,
        key: Option<Key>,
        seen: Seen,
    },
}

/// The keys of a mapping and where each was first; a list would make duplicates quadratic.
type Seen = HashMap<String, Position>;

enum Key {
    Named(String, Position),
    Merge,
    /// Already refused; its value is read and dropped.
    Bad,
}

/// How much a node costs when an alias repeats it.
#[derive(Clone, Copy)]
struct Cost {
    nodes: usize,
    bytes: usize,
}

struct Builder<'r> {
    refusals: &'r mut Refusals,
    documents: Vec<Rc<Node>>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Rc<Node>, Cost)>,
    /// Cost counted when each open frame began, to know what one anchor's node costs.
    opened: Vec<Cost>,
    nodes: usize,
    bytes: usize,
    alias_bytes: usize,
    stopped: bool,
}

impl<'r> Builder<'r> {
    fn new(refusals: &'r mut Refusals) -> Self {
        Self {
            refusals,
            documents: Vec::new(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            opened: Vec::new(),
            nodes: 0,
            bytes: 0,
            alias_bytes: 0,
            stopped: false,
        }
    }

    fn event(&mut self, event: Event<'_>, at: Position) {
        match event {
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::StreamEnd => self.stopped = true,
            Event::Alias(id) => self.alias(id, at),
            Event::Scalar(text, style, anchor, tag) => {
                let cost = Cost { nodes: 1, bytes: text.len() };
                if self.charge(cost, at) {
                    let scalar = self.scalar(&text, style, tag.as_deref(), at);
                    self.finish(Rc::new(Node { at, value: Value::Scalar(scalar) }), anchor, cost, style);
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), "seq", at);
                self.open(Frame::Seq { at, anchor, items: Vec::new() }, at);
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), "map", at);
                let (entries, merges, seen) = (Vec::new(), Vec::new(), Seen::new());
                self.open(Frame::Map { at, anchor, entries, merges, key: None, seen }, at);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn stop(&mut self, at: Position, message: String) {
        self.refusals.add(at, "", message);
        self.stopped = true;
    }

    fn charge(&mut self, cost: Cost, at: Position) -> bool {
        self.nodes += cost.nodes;
        self.bytes += cost.bytes;
        if self.nodes > MAX_NODES {
            self.stop(at, format!("too large: more than {MAX_NODES} values in one file, aliases counted"));
        }
        !self.stopped
    }

    fn open(&mut self, frame: Frame, at: Position) {
        if self.stack.len() >= MAX_DEPTH {
            return self.stop(at, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.opened.push(Cost { nodes: self.nodes, bytes: self.bytes });
        if self.charge(Cost { nodes: 1, bytes: 0 }, at) {
            self.stack.push(frame);
        }
    }

    fn close(&mut self) {
        let (Some(frame), Some(opened)) = (self.stack.pop(), self.opened.pop()) else { return };
        let cost = Cost { nodes: self.nodes - opened.nodes, bytes: self.bytes - opened.bytes };
        let (node, anchor) = match frame {
            Frame::Seq { at, anchor, items } => (Node { at, value: Value::Seq(items) }, anchor),
            Frame::Map { at, anchor, mut entries, merges, mut seen, .. } => {
                for source in merges {
                    self.merge(&mut entries, &mut seen, &source);
                }
                (Node { at, value: Value::Map(entries) }, anchor)
            }
        };
        self.finish(Rc::new(node), anchor, cost, ScalarStyle::DoubleQuoted);
    }

    fn alias(&mut self, id: usize, at: Position) {
        let Some((node, cost)) = self.anchors.get(&id).cloned() else {
            return self.stop(at, "an alias to a value that is not complete (it contains itself)".into());
        };
        self.alias_bytes += cost.bytes;
        if self.alias_bytes > MAX_ALIAS_BYTES {
            return self.stop(at, format!("too large: aliases repeat more than {MAX_ALIAS_BYTES} bytes"));
        }
        if self.charge(cost, at) {
            self.place(node, false, at);
        }
    }

    fn finish(&mut self, node: Rc<Node>, anchor: usize, cost: Cost, style: ScalarStyle) {
        if anchor != 0 {
            self.anchors.insert(anchor, (Rc::clone(&node), cost));
        }
        let at = node.at;
        self.place(node, style == ScalarStyle::Plain, at);
    }

    /// Puts a finished node where it belongs: document, list item, key or value.
    fn place(&mut self, node: Rc<Node>, plain: bool, at: Position) {
        match self.stack.last_mut() {
            None => {
                self.anchors.clear();
                if !(node.is_null() && plain) {
                    self.documents.push(node);
                }
            }
            Some(Frame::Seq { items, .. }) => items.push(node),
            Some(Frame::Map { key: slot @ Some(_), entries, merges, .. }) => match slot.take() {
                Some(Key::Named(key, at)) => entries.push(Entry { key, at, value: node }),
                Some(Key::Merge) => merges.push(node),
                Some(Key::Bad) | None => {}
            },
            Some(Frame::Map { key: None, .. }) => {
                let key = self.key(&node, plain, at);
                if let Some(Frame::Map { key: slot, .. }) = self.stack.last_mut() {
                    *slot = Some(key);
                }
            }
        }
    }

    fn key(&mut self, node: &Node, plain: bool, at: Position) -> Key {
        let name = match &node.value {
            Value::Scalar(Scalar::Str(text)) if plain && text == "<<" => return Key::Merge,
            Value::Scalar(Scalar::Str(text)) => text.clone(),
            Value::Scalar(Scalar::Int(number)) => number.to_string(),
            _ => {
                let message =
                    format!("a key must be a string, this one is {}; put it in quotes", node.kind());
                self.refusals.add(at, "", message);
                return Key::Bad;
            }
        };
        if let Some(Frame::Map { seen, .. }) = self.stack.last_mut()
            && let Some(first) = seen.insert(name.clone(), at)
        {
            let message =
                format!("the key \"{name}\" stands twice in this mapping, first at line {}", first.line);
            self.refusals.add(at, "", message);
            return Key::Bad;
        }
        Key::Named(name, at)
    }

    /// YAML 1.1's `<<`: the keys of another mapping (or of a list of them), where they are not given here.
    fn merge(&mut self, entries: &mut Vec<Entry>, seen: &mut Seen, source: &Node) {
        match &source.value {
            Value::Map(others) => {
                for other in others {
                    if seen.insert(other.key.clone(), other.at).is_none() {
                        entries.push(other.clone());
                    }
                }
            }
            Value::Seq(list) if list.iter().all(|n| matches!(n.value, Value::Map(_))) => {
                for one in list {
                    self.merge(entries, seen, one);
                }
            }
            _ => self.refusals.add(source.at, "", "\"<<\" merges mappings only"),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Scalar {
        match tag {
            None if style == ScalarStyle::Plain => resolve(text),
            None => Scalar::Str(text.to_owned()),
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Scalar::Str(text.to_owned()),
            Some(tag) => {
                let resolved = resolve(text);
                let fits = match &resolved {
                    Scalar::Null => "null",
                    Scalar::Bool(_) => "bool",
                    Scalar::Int(_) => "int",
                    Scalar::Float(_) => "float",
                    Scalar::Str(_) => "str",
                };
                self.tag(Some(tag), fits, at);
                resolved
            }
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, fits: &str, at: Position) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == fits)
        {
            self.refusals.add(at, "", format!("the YAML tag {tag} is not accepted here"));
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
