//! Documents as lines that a person can read, and the lines in which two of them differ.
//!
//! `a.b = x` is a value, `a.b += [x]` and `a.b -= [x]` are what a list has more and less, `- a.b` is gone. Lists of
//! named things are keyed by name: `mounts[/data] = {...}`, with `(after /dev)` where it does not stand at the end, and a
//! line with all names where those that were there stand in another order.

use serde_json::Value as Json;

/// What stands behind a path.
#[derive(Clone, Debug, PartialEq)]
enum Leaf {
    Text(String),
    List(Vec<String>),
    /// The names of a keyed list; its members have lines of their own.
    Names(Vec<String>),
}

/// A document, flat, in its own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flat(Vec<(String, Leaf)>);

/// By which of its fields each of these lists is keyed.
const KEYS: [(&str, &[&str]); 8] = [
    ("mounts", &["destination", "container_path"]),
    ("namespaces", &["type"]),
    ("envs", &["key"]),
    ("port_mappings", &["container_port", "protocol", "host_ip"]),
    ("hugepage_limits", &["page_size"]),
    ("hugepageLimits", &["pageSize"]),
    ("devices", &["path", "container_path"]),
    ("rlimits", &["type"]),
];

/// A longer list of things without names is told by its length and a sum.
const MOST: usize = 12;

impl Flat {
    pub fn of(document: &Json) -> Self {
        let mut flat = Self::default();
        flat.add("", document);
        flat
    }

    fn put(&mut self, path: &str, leaf: Leaf) {
        self.0.push((path.to_owned(), leaf));
    }

    fn add(&mut self, path: &str, value: &Json) {
        match value {
            Json::Null => {}
            Json::Object(fields) if fields.is_empty() => self.put(path, Leaf::Text("{}".into())),
            Json::Object(fields) => {
                for (name, value) in fields {
                    self.add(&join(path, name), value);
                }
            }
            Json::Array(items) => self.list(path, items),
            scalar => self.put(path, Leaf::Text(short(scalar))),
        }
    }

    fn list(&mut self, path: &str, items: &[Json]) {
        let field = path.rsplit('.').next().unwrap_or(path);
        if field == "env" {
            let named: Vec<_> =
                items.iter().map(|item| short_pair(item.as_str().unwrap_or_default())).collect();
            return self.named(path, &named);
        }
        if items.iter().all(|item| !item.is_object()) {
            return self.put(path, Leaf::List(items.iter().map(short).collect()));
        }
        let keys = KEYS.iter().find(|(list, _)| *list == field).map(|(_, keys)| *keys);
        let key = |item: &Json| {
            let all = keys.unwrap_or_default().iter().filter_map(|key| item.get(*key));
            all.map(short).collect::<Vec<_>>().join(" ")
        };
        if keys.is_none() || items.iter().any(|item| key(item).is_empty()) {
            if items.len() > MOST {
                let text = serde_json::to_string(items).unwrap();
                return self.put(path, Leaf::Text(format!("{} of them, sum {}", items.len(), sum(&text))));
            }
            return self.put(path, Leaf::List(items.iter().map(short).collect()));
        }
        let bare = |item: &Json| {
            let mut rest = item.clone();
            if let (Some(fields), Some(keys)) = (rest.as_object_mut(), keys) {
                fields.retain(|name, _| !keys.contains(&name.as_str()));
            }
            match rest.as_object() {
                // Variables.
                Some(fields) if field == "envs" => fields.get("value").cloned().unwrap_or_else(|| "".into()),
                _ => rest,
            }
        };
        let named: Vec<(String, String)> = items.iter().map(|item| (key(item), short(&bare(item)))).collect();
        self.named(path, &named);
    }

    fn named(&mut self, path: &str, items: &[(String, String)]) {
        self.put(path, Leaf::Names(items.iter().map(|(name, _)| name.clone()).collect()));
        for (number, (name, text)) in items.iter().enumerate() {
            let before = items[..number].iter().filter(|(other, _)| other == name).count();
            let again = if before == 0 { String::new() } else { format!(" #{}", before + 1) };
            self.put(&format!("{path}[{name}{again}]"), Leaf::Text(text.clone()));
        }
    }

    fn get(&self, path: &str) -> Option<&Leaf> {
        self.0.iter().find(|(own, _)| own == path).map(|(_, leaf)| leaf)
    }

    /// The lines that are not in `base`.
    pub fn against(&self, base: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut places: Vec<(String, String)> = Vec::new();
        for (path, leaf) in &self.0 {
            let old = base.get(path);
            match (old, leaf) {
                (old, leaf) if old == Some(leaf) => {}
                (None | Some(Leaf::List(_)), Leaf::Names(_)) => {}
                (Some(Leaf::Names(old)), Leaf::Names(new)) if edit(old, new).is_some() => {}
                (Some(Leaf::Names(old)), Leaf::Names(new)) if in_order(old, new) => {
                    let place = |pair: &[String]| (format!("{path}[{}]", pair[1]), pair[0].clone());
                    places.extend(new.windows(2).map(place));
                }
                (_, Leaf::Names(new)) => lines.push(format!("{path} in this order: {}", new.join(" "))),
                (Some(Leaf::List(old)), Leaf::List(new)) => lines.extend(list(path, old, new)),
                (_, Leaf::List(new)) => lines.push(format!("{path} = [{}]", new.join(", "))),
                (old, Leaf::Text(new)) => {
                    let place = places.iter().find(|(own, _)| own == path && old.is_none());
                    let place = place.map(|(_, before)| format!(" (after {before})")).unwrap_or_default();
                    lines.push(format!("{path}{place} = {new}"));
                }
            }
        }
        let within = |path: &str| {
            self.0
                .iter()
                .any(|(own, _)| own.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '['])))
        };
        let gone = base.0.iter().filter(|(path, leaf)| {
            self.get(path).is_none() && !matches!(leaf, Leaf::Names(_)) && !within(path)
        });
        lines.extend(gone.map(|(path, _)| format!("- {path}")));
        lines
    }
}

fn list(path: &str, old: &[String], new: &[String]) -> Vec<String> {
    let as_sets = (old.is_sorted() && new.is_sorted()).then(|| taken_and_put(old, new));
    let Some((gone, more)) = edit(old, new).or(as_sets).filter(|_| !new.is_empty()) else {
        return vec![format!("{path} = [{}]", new.join(", "))];
    };
    let said = [("-=", gone), ("+=", more)];
    let said = said.iter().filter(|(_, which)| !which.is_empty());
    said.map(|(how, which)| format!("{path} {how} [{}]", which.join(", "))).collect()
}

/// Whether what is in both stands in the same order.
fn in_order(old: &[String], new: &[String]) -> bool {
    let common: Vec<&String> = old.iter().filter(|name| new.contains(name)).collect();
    new.iter().filter(|name| old.contains(name)).eq(common)
}

/// What is taken from a list and what put at its end, when that makes the one of the other.
fn edit(old: &[String], new: &[String]) -> Option<(Vec<String>, Vec<String>)> {
    let (gone, more) = taken_and_put(old, new);
    let rest = old.iter().filter(|item| !gone.contains(item));
    rest.chain(&more).eq(new).then_some((gone, more))
}

fn taken_and_put(old: &[String], new: &[String]) -> (Vec<String>, Vec<String>) {
    let without = |list: &[String], other: &[String]| {
        list.iter().filter(|item| !other.contains(item)).cloned().collect::<Vec<_>>()
    };
    (without(old, new), without(new, old))
}

fn join(path: &str, name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match (path.is_empty(), plain) {
        (true, true) => name.to_owned(),
        (_, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{name}]"),
    }
}

fn short_pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), short(&Json::from(value)))
}

/// On one line; text without quotes where it can be mistaken for nothing else.
fn short(value: &Json) -> String {
    match value {
        Json::String(text) => {
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && !",[]{}\"".contains(c);
            if !text.is_empty() && text.chars().all(plain) { text.clone() } else { value.to_string() }
        }
        Json::Array(items) => format!("[{}]", items.iter().map(short).collect::<Vec<_>>().join(", ")),
        Json::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let all: Vec<String> = fields.map(|(name, value)| format!("{name}: {}", short(value))).collect();
            format!("{{{}}}", all.join(", "))
        }
        other => other.to_string(),
    }
}

/// FNV-1a: enough to see that a long text is another.
fn sum(text: &str) -> String {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "literals")]
    fn difference(base: Json, this: Json) -> Vec<String> {
        Flat::of(&this).against(&Flat::of(&base))
    }

    #[test]
    fn values_that_come_change_and_go_have_a_line_each() {
        let base = json!({"a": {"b": 1, "c": "x"}, "labels": {"io.x/y": "1"}});
        let this = json!({"a": {"b": 2, "d": ""}, "labels": {"io.x/y": "1", "app": "two words"}});
        let lines = ["a.b = 2", "a.d = \"\"", "labels.app = \"two words\"", "- a.c"];
        assert_eq!(difference(base.clone(), this), lines);
        assert!(difference(base.clone(), base).is_empty());
    }

    #[test]
    fn lists_say_what_they_have_more_and_less_where_that_is_all() {
        let of = |old: Json, new: Json| difference(json!({ "l": old }), json!({ "l": new }));
        assert_eq!(of(json!(["a", "b"]), json!(["b", "c"])), ["l -= [a]", "l += [c]"]);
        assert_eq!(of(json!(["a", "b"]), json!(["b", "a"])), ["l = [b, a]"]);
        assert_eq!(of(json!(["b", "a"]), json!(["b", "x", "a"])), ["l = [b, x, a]"]);
        assert_eq!(of(json!(["a"]), json!([])), ["l = []"]);
    }

    #[test]
    fn named_things_have_a_line_each_and_their_order_one_where_it_is_another() {
        let mount = |at: &str, from: &str| json!({"destination": at, "source": from});
        let base = json!({"mounts": [mount("/a", "x"), mount("/b", "y")]});
        let more = json!({"mounts": [mount("/a", "z"), mount("/b", "y"), mount("/c", "y")]});
        assert_eq!(difference(base.clone(), more), ["mounts[/a] = {source: z}", "mounts[/c] = {source: y}"]);
        let inside = json!({"mounts": [mount("/a", "x"), mount("/a/x", "z"), mount("/b", "y")]});
        assert_eq!(difference(base.clone(), inside), ["mounts[/a/x] (after /a) = {source: z}"]);
        let turned = json!({"mounts": [mount("/b", "y"), mount("/a", "x")]});
        assert_eq!(difference(base, turned), ["mounts in this order: /b /a"]);
        let env = difference(json!({"env": ["A=1"]}), json!({"env": ["A=1", "B="]}));
        assert_eq!(env, ["env[B] = \"\""]);
        let envs =
            difference(json!({"envs": []}), json!({"envs": [{"key": "A", "value": "x"}, {"key": "B"}]}));
        assert_eq!(envs, ["envs[A] = x", "envs[B] = \"\""]);
    }
}
