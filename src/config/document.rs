//! One `KubeletConfiguration` file to what its fields say, and one laid over another. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::fields::{self, Effect, Field, Kind};
use super::origin::Origin;
use crate::manifest::{Node, Position, Refusal, Refusals, Scalar, Value, documents, nearest};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// What a field is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// One value.
    One(String),
    /// A list.
    Many(Vec<String>),
    /// A mapping.
    Keyed(BTreeMap<String, Vec<String>>),
}

/// What a file, or several laid over each other, say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// By the field's path. The origin of a mapping is where it was last touched.
    pub fields: BTreeMap<&'static str, (Given, Origin)>,
}

impl Document {
    /// Reads a file's text; paths in it are relative to `dir`. Every error is in the answer, with its place.
    pub fn read(
        text: &str,
        file: &Path,
        dir: &Path,
        origin: impl Fn(usize) -> Origin,
    ) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Refusals::new(file);
        let mut reader = Reader { refusals: &mut refusals, dir, origin: &origin, found: Self::default() };
        reader.document(text);
        let found = reader.found;
        if refusals.is_empty() { Ok(found) } else { Err(refusals.into_sorted()) }
    }

    /// Lays another over this one, as the kubelet does with its drop-ins: mappings merge, all else is replaced.
    pub fn patch(&mut self, over: Self) {
        for (path, (mut given, origin)) in over.fields {
            if let (Given::Keyed(new), Some((Given::Keyed(old), _))) = (&mut given, self.fields.get(path)) {
                for (key, values) in old {
                    new.entry(key.clone()).or_insert_with(|| values.clone());
                }
            }
            self.fields.insert(path, (given, origin));
        }
    }
}

impl Given {
    /// As values of the field's flag, each for `--flag=value`.
    pub fn words(&self, kind: Kind) -> Vec<String> {
        let sign = if kind == Kind::Thresholds { '<' } else { '=' };
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Many(texts) => texts.clone(),
            Self::Keyed(pairs) if kind == Kind::Headers => {
                let each = |(key, values): (&String, &Vec<String>)| {
                    // The flag parts its values at commas, the field does not.
                    let whole = |value: &String| value.replace(',', COMMA);
                    values.iter().map(|value| format!("{key}:{}", whole(value))).collect::<Vec<_>>()
                };
                pairs.iter().flat_map(each).collect()
            }
            Self::Keyed(pairs) => {
                let pair = |(key, values): (&String, &Vec<String>)| format!("{key}{sign}{}", values.concat());
                vec![pairs.iter().map(pair).collect::<Vec<_>>().join(",")]
            }
        }
    }
}

/// Stands for a comma in a header's value on its way from a file; no header can have it.
pub(super) const COMMA: &str = "\u{1f}";

struct Reader<'r, O> {
    refusals: &'r mut Refusals,
    dir: &'r Path,
    origin: &'r O,
    found: Document,
}

impl<O: Fn(usize) -> Origin> Reader<'_, O> {
    fn document(&mut self, text: &str) {
        let all = documents(text, self.refusals);
        if !self.refusals.is_empty() {
            return;
        }
        let [document] = &all[..] else {
            let message = format!("{} documents; one {KIND} is wanted", all.len());
            return self.refusals.add(Position::START, "", message);
        };
        for (key, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            match document.get(key) {
                Some(node) if node.as_str() == Some(wanted) => {}
                Some(node) => self.refusals.add(node.at, key, format!("must be {wanted}")),
                None => self.refusals.add(document.at, key, format!("is missing: must be {wanted}")),
            }
        }
        self.group(document, "");
    }

    fn group(&mut self, node: &Node, path: &str) {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Scalar(Scalar::Null) => return,
            _ => return self.refusals.add(node.at, path, format!("must be a mapping, not {}", node.kind())),
        };
        for entry in entries {
            if path.is_empty() && matches!(entry.key.as_str(), "apiVersion" | "kind") {
                continue;
            }
            let inner = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            match fields::field(&inner) {
                Some(field) => self.field(field, &entry.value, entry.at),
                None if fields::below(&inner).next().is_some() => self.group(&entry.value, &inner),
                None => self.unknown(entry.at, path, &entry.key, &inner),
            }
        }
    }

    fn unknown(&mut self, at: Position, path: &str, key: &str, inner: &str) {
        let elsewhere = || fields::TABLE.iter().find(|field| field.path.rsplit('.').next() == Some(key));
        let as_flag = || fields::of_flag(&kebab(key));
        if let Some(near) = nearest(key, fields::below(path)) {
            self.refusals.add_with(at, inner, "unknown field", Some(near));
        } else if let Some(field) = elsewhere() {
            self.refusals.add(at, inner, format!("unknown field here, it belongs at {}", field.path));
        } else {
            let meant = as_flag().map(|field| field.path.to_owned());
            self.refusals.add_with(at, inner, "unknown field", meant);
        }
    }

    fn field(&mut self, field: &'static Field, node: &Node, at: Position) {
        let Some(given) = self.given(field, node) else { return };
        let zero = is_zero(&given);
        let unsaid = match field.effect {
            Effect::Flag(_) => false,
            Effect::NonZero(_) => zero,
            // Who turns something off is to hear that nothing came of it.
            Effect::NoEffect(_) | Effect::Awaits(_) => zero && field.kind != Kind::Switch,
        };
        if !unsaid {
            self.found.fields.insert(field.path, (given, (self.origin)(at.line)));
        }
    }

    /// The value in its field's form; `None` when there is none, or when it has been refused.
    fn given(&mut self, field: &Field, node: &Node) -> Option<Given> {
        if node.is_null() {
            return None;
        }
        let one = |text: String| Some(Given::One(text));
        match (field.kind, &node.value) {
            (Kind::Any, value) => one(match value {
                Value::Seq(items) if items.is_empty() => String::new(),
                Value::Map(entries) if entries.is_empty() => String::new(),
                Value::Scalar(scalar) => text(scalar),
                Value::Seq(_) | Value::Map(_) => "...".to_owned(),
            }),
            (Kind::Path, Value::Scalar(Scalar::Str(path))) => one(self.absolute(path)),
            (Kind::Text | Kind::Span | Kind::Quantity, Value::Scalar(Scalar::Str(text))) => one(text.clone()),
            (Kind::Span, Value::Scalar(Scalar::Int(0))) => one("0s".to_owned()),
            (Kind::Quantity | Kind::Whole | Kind::Number, Value::Scalar(Scalar::Int(number))) => {
                one(number.to_string())
            }
            (Kind::Number, Value::Scalar(Scalar::Float(number))) => one(number.clone()),
            (Kind::Switch, Value::Scalar(Scalar::Bool(switch))) => one(switch.to_string()),
            (Kind::Texts, Value::Seq(items)) => {
                let texts = items.iter().map(|item| self.text(field, item));
                texts.collect::<Option<_>>().map(Given::Many)
            }
            (Kind::Pairs | Kind::Thresholds | Kind::Gates | Kind::Headers, Value::Map(entries)) => {
                let mut pairs = BTreeMap::new();
                for entry in entries {
                    pairs.insert(entry.key.clone(), self.texts(field, &entry.value)?);
                }
                Some(Given::Keyed(pairs))
            }
            (kind, _) => {
                let message = format!("must be {}, this is {}", wanted(kind), node.kind());
                self.refusals.add(node.at, field.path, message);
                None
            }
        }
    }

    fn text(&mut self, field: &Field, node: &Node) -> Option<String> {
        let quantity = matches!(field.kind, Kind::Pairs | Kind::Thresholds);
        match &node.value {
            Value::Scalar(Scalar::Str(text)) if field.kind != Kind::Gates => Some(text.clone()),
            Value::Scalar(number @ (Scalar::Int(_) | Scalar::Float(_))) if quantity => Some(text(number)),
            Value::Scalar(Scalar::Bool(switch)) if field.kind == Kind::Gates => Some(switch.to_string()),
            _ => {
                let wanted = if field.kind == Kind::Gates { "a boolean" } else { "a string" };
                let message = format!("must be {wanted}, this is {}", node.kind());
                self.refusals.add(node.at, field.path, message);
                None
            }
        }
    }

    fn texts(&mut self, field: &Field, node: &Node) -> Option<Vec<String>> {
        match &node.value {
            Value::Seq(items) if field.kind == Kind::Headers => {
                items.iter().map(|item| self.text(field, item)).collect()
            }
            _ if field.kind == Kind::Headers => {
                let message = format!("must be a list of strings, this is {}", node.kind());
                self.refusals.add(node.at, field.path, message);
                None
            }
            _ => self.text(field, node).map(|text| vec![text]),
        }
    }

    /// Paths in a file are relative to its directory; an empty one is none. Without `..`, since manifests' paths are part
    /// of their pods' identities.
    fn absolute(&self, path: &str) -> String {
        if path.is_empty() {
            return String::new();
        }
        let mut whole = PathBuf::new();
        for part in self.dir.join(path).components() {
            match part {
                Component::ParentDir => drop(whole.pop()),
                Component::CurDir => {}
                part => whole.push(part),
            }
        }
        whole.display().to_string()
    }
}

fn text(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Null => String::new(),
        Scalar::Bool(switch) => switch.to_string(),
        Scalar::Int(number) => number.to_string(),
        Scalar::Float(text) | Scalar::Str(text) => text.clone(),
    }
}

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Path => "a string",
        Kind::Span => "a duration such as \"20s\" or \"1m30s\"",
        Kind::Quantity => "a quantity such as \"10Mi\"",
        Kind::Whole => "a whole number",
        Kind::Number => "a number",
        Kind::Switch => "true or false",
        Kind::Texts => "a list of strings",
        Kind::Pairs | Kind::Thresholds | Kind::Gates | Kind::Headers => "a mapping",
        Kind::Any => "anything",
    }
}

/// What the kubelet takes for absent where it cannot tell the two apart.
fn is_zero(given: &Given) -> bool {
    match given {
        Given::One(text) => {
            let duration = !text.is_empty() && super::duration(text).is_ok_and(|span| span.is_zero());
            duration || matches!(text.as_str(), "" | "0" | "false")
        }
        Given::Many(texts) => texts.is_empty(),
        Given::Keyed(pairs) => pairs.is_empty(),
    }
}

/// `fileCheckFrequency` as `file-check-frequency`.
fn kebab(key: &str) -> String {
    let mut text = String::new();
    for char in key.chars() {
        if char.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(char.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    fn read(body: &str) -> Result<Document, String> {
        let file = Path::new("/etc/kubelet/config.yaml");
        let origin = |line| Origin::File { file: file.to_owned(), line };
        Document::read(&format!("{HEAD}{body}"), file, Path::new("/etc/kubelet"), origin)
            .map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn words(document: &Document, path: &str) -> Vec<String> {
        let kind = fields::field(path).expect("a field").kind;
        document.fields.get(path).map(|(given, _)| given.words(kind)).unwrap_or_default()
    }

    #[test]
    fn fields_become_values_of_flags_with_their_lines() {
        let body = "staticPodPath: ./../kubelet/manifests\nfileCheckFrequency: 1m30s\nclusterDNS: [10.0.0.10, 'fd00::a']\n\
                    registryPullQPS: 0\nserializeImagePulls: false\ncontainerLogMaxSize: 100\n\
                    kubeReserved: {memory: 1Gi, cpu: 100m, pid: 1000}\nevictionHard:\n  memory.available: 5%\n\
                    staticPodURLHeader: {A: [one, two], B: [three]}\nresolvConf: ''\n";
        let document = read(body).unwrap();
        let words = |path| words(&document, path);
        assert_eq!(words("staticPodPath"), ["/etc/kubelet/manifests"], "relative to the file");
        assert_eq!(words("fileCheckFrequency"), ["1m30s"]);
        assert_eq!(words("clusterDNS"), ["10.0.0.10", "fd00::a"]);
        assert_eq!(words("registryPullQPS"), ["0"], "zero is a value here");
        assert_eq!(words("serializeImagePulls"), ["false"]);
        assert_eq!(words("containerLogMaxSize"), ["100"]);
        assert_eq!(words("kubeReserved"), ["cpu=100m,memory=1Gi,pid=1000"]);
        assert_eq!(words("evictionHard"), ["memory.available<5%"]);
        assert_eq!(words("staticPodURLHeader"), ["A:one", "A:two", "B:three"]);
        assert_eq!(words("resolvConf"), [""], "none at all");
        assert_eq!(document.fields["clusterDNS"].1.to_string(), "/etc/kubelet/config.yaml:5");
    }

    #[test]
    fn what_is_zero_where_the_kubelet_cannot_tell_is_not_said() {
        let body = "staticPodPath: ''\nfileCheckFrequency: 0s\nsyncFrequency: 0s\nlogging: {flushFrequency: 0, verbosity: 0, \
                    options: {json: {infoBufferSize: '0'}}}\nmemorySwap: {}\nclusterDomain: null\nauthentication:\n";
        let document = read(body).unwrap();
        assert_eq!(document.fields.keys().copied().collect::<Vec<_>>(), ["logging.options"]);
    }

    #[test]
    fn json_is_read_too() {
        let file = Path::new("c.json");
        let text = format!(
            "{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{KIND}\",\n\"clusterDomain\":\"kube.local\"}}"
        );
        let document =
            Document::read(&text, file, Path::new("/"), |line| Origin::File { file: file.into(), line })
                .unwrap();
        assert_eq!(document.fields["clusterDomain"].1.to_string(), "c.json:2");
    }

    #[test]
    fn what_is_wrong_has_its_place_and_a_suggestion() {
        let refused = |body: &str| read(body).unwrap_err();
        let at = "/etc/kubelet/config.yaml:3:1: ";
        for (body, why) in [
            ("staticPodPaht: /m\n", "staticPodPaht: unknown field, did you mean \"staticPodPath\"?"),
            ("podManifestPath: /m\n", "podManifestPath: unknown field, did you mean \"staticPodPath\"?"),
            (
                "maxContainerRestartPeriod: 1s\n",
                "maxContainerRestartPeriod: unknown field here, it belongs at crashLoopBackOff.maxContainerRestartPeriod",
            ),
            ("nonsense: 1\n", "nonsense: unknown field"),
        ] {
            assert_eq!(refused(body), format!("{at}{why}"));
        }
        for (body, why) in [
            (
                "authentication: {webhok: {enabled: false}}\n",
                "authentication.webhok: unknown field, did you mean \"webhook\"?",
            ),
            ("authentication: 1\n", "authentication: must be a mapping, not a number"),
            ("fileCheckFrequency: 20\n", "fileCheckFrequency: must be a duration such as"),
            ("serializeImagePulls: 1\n", "serializeImagePulls: must be true or false, this is a number"),
            ("clusterDNS: 10.0.0.1\n", "clusterDNS: must be a list of strings, this is a string"),
            ("clusterDNS: [1]\n", "clusterDNS: must be a string, this is a number"),
            ("featureGates: {A: 1}\n", "featureGates: must be a boolean, this is a number"),
            (
                "staticPodURLHeader: {A: b}\n",
                "staticPodURLHeader: must be a list of strings, this is a string",
            ),
            ("clusterDomain: a\nclusterDomain: b\n", "stands twice"),
            ("a: [\n", "not valid YAML"),
            ("---\nkind: x\n", "2 documents"),
        ] {
            let got = refused(body);
            assert!(got.starts_with("/etc/kubelet/config.yaml:") && got.contains(why), "{body}: {got}");
        }
        let both = refused("x1y2: 1\nclusterDNS: 1\n");
        assert_eq!(both.lines().count(), 2, "all at once: {both}");
        let file = Path::new("c");
        let none = Document::read("apiVersion: v1\n", file, Path::new("/"), |_| Origin::Default).unwrap_err();
        let none: Vec<String> = none.iter().map(ToString::to_string).collect();
        assert!(
            none.iter().any(|e| e.contains("kind: is missing: must be KubeletConfiguration")),
            "{none:?}"
        );
        assert!(
            none.iter().any(|e| e.contains("apiVersion: must be kubelet.config.k8s.io/v1beta1")),
            "{none:?}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC*", key in "[a-zA-Z.]{0,40}", value in "[-\\[\\]{}:,'\"a-z0-9 \n]{0,40}") {
            let _ = read(&text);
            let _ = read(&format!("{key}: {value}\n"));
        }
    }

    #[test]
    fn drop_ins_merge_mappings_and_replace_all_else() {
        let mut document =
            read("clusterDNS: [a, b]\nkubeReserved: {cpu: 1, memory: 1Gi}\nclusterDomain: x\nstaticPodURLHeader: {A: [one], B: [two]}\n").unwrap();
        document.patch(
            read("\nclusterDNS: [c]\nkubeReserved: {cpu: 2}\nclusterDomain: null\nstaticPodURLHeader: {A: [three]}\n")
                .unwrap(),
        );
        assert_eq!(words(&document, "clusterDNS"), ["c"]);
        assert_eq!(words(&document, "kubeReserved"), ["cpu=2,memory=1Gi"]);
        assert_eq!(words(&document, "clusterDomain"), ["x"]);
        assert_eq!(words(&document, "staticPodURLHeader"), ["A:three", "B:two"]);
        assert_eq!(document.fields["kubeReserved"].1.to_string(), "/etc/kubelet/config.yaml:5");
    }
}
