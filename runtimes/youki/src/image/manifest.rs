//! Image manifests, indexes and configurations: bounded, checked, and no more of them than the store needs. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{Error, Result};

/// Media types of everything that can stand behind an image reference, for the `Accept` header.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to content.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The machine an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default)]
    pub variant: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Debug)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// More layers than this are refused; docker's own limit is 127.
const MAX_LAYERS: usize = 500;

/// Reads a manifest or an index. A document that could be read as both is refused, since two readers could then
/// see two images behind one digest.
pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Document> {
    let raw: RawDocument = serde_json::from_slice(bytes)
        .map_err(|e| Error::corrupt(what, format!("it is not an image manifest: {e}")))?;
    if raw.schema_version != 2 {
        return Err(Error::corrupt(what, format!("schema version {} is not supported", raw.schema_version)));
    }
    let says_index = raw.media_type.as_deref().map(|t| t.contains("index") || t.contains("manifest.list"));
    match (raw.config, raw.layers, raw.manifests) {
        (Some(config), Some(layers), None) if says_index != Some(true) => {
            check_types(what, &config, &layers)?;
            Ok(Document::Image(Manifest { config, layers }))
        }
        (None, None, Some(manifests)) if says_index != Some(false) => Ok(Document::Index(manifests)),
        _ => Err(Error::corrupt(what, "it is neither clearly an image manifest nor clearly an index")),
    }
}

fn check_types(what: &str, config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
    let known =
        ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    if !known.contains(&config.media_type.as_str()) {
        let reason =
            format!("config type \"{}\" is not a container image's", config.media_type.escape_debug());
        return Err(Error::corrupt(what, reason));
    }
    if layers.len() > MAX_LAYERS {
        return Err(Error::corrupt(what, format!("{} layers are more than {MAX_LAYERS}", layers.len())));
    }
    for layer in layers {
        let kind = layer.media_type.as_str();
        let tar = kind.starts_with("application/vnd.oci.image.layer.")
            || kind.starts_with("application/vnd.docker.image.rootfs.");
        if !tar || kind.contains("encrypted") {
            let reason = format!("layer type \"{}\" is not supported", kind.escape_debug());
            return Err(Error::corrupt(what, reason));
        }
    }
    Ok(())
}

/// The entry of an index for this machine.
pub(crate) fn pick<'a>(what: &str, entries: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let usable = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| fits(p, wanted));
    let exact = entries.iter().filter(usable).find(|d| {
        let variant = d.platform.as_ref().and_then(|p| p.variant.as_deref());
        variant == wanted.variant.as_deref()
    });
    // A single entry without a platform is how builders for one machine write it; its config is checked later.
    let only = if let [one] = entries { Some(one).filter(|d| d.platform.is_none()) } else { None };
    exact.or_else(|| entries.iter().find(usable)).or(only).ok_or_else(|| Error::NotFound {
        what: format!("an image for {}/{}", wanted.os, wanted.architecture),
        place: format!("in {what}"),
    })
}

fn fits(have: &Platform, wanted: &Platform) -> bool {
    let newer_cpu =
        wanted.architecture == "amd64" && matches!(have.variant.as_deref(), Some("v2" | "v3" | "v4"));
    have.os == wanted.os && have.architecture == wanted.architecture && !newer_cpu
}

impl Platform {
    /// The platform of this node, in the names images use (Go's GOOS and GOARCH).
    pub(crate) fn node() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self { architecture: architecture.into(), os: "linux".into(), variant: variant.map(Into::into) }
    }
}

/// What an image says about the containers made of it (OCI image-spec, config.md). Empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// Where the program starts; empty means `/`.
    pub working_dir: Option<String>,
    /// Name or number of the signal that asks the program to stop.
    pub stop_signal: Option<String>,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
    /// `80/tcp` each.
    pub exposed_ports: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// The parts of a configuration blob the store works with.
#[derive(Debug)]
pub(crate) struct ConfigBlob {
    pub platform: Platform,
    pub created: Option<String>,
    pub diff_ids: Vec<Digest>,
    pub config: ImageConfig,
}

#[derive(Deserialize)]
struct RawConfigBlob {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    created: Option<String>,
    rootfs: RawRootfs,
    config: Option<RawConfig>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<Digest>>,
}

type Set = Option<BTreeMap<String, serde_json::Value>>;

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Set,
    exposed_ports: Set,
    labels: Option<BTreeMap<String, String>>,
}

/// Reads a configuration blob and refuses one for another machine.
pub(crate) fn parse_config(what: &str, bytes: &[u8], node: &Platform) -> Result<ConfigBlob> {
    let raw: RawConfigBlob = serde_json::from_slice(bytes)
        .map_err(|e| Error::corrupt(what, format!("it is not an image configuration: {e}")))?;
    let platform = Platform {
        architecture: raw.architecture.filter(|a| !a.is_empty()).unwrap_or_else(|| node.architecture.clone()),
        os: raw.os.filter(|o| !o.is_empty()).unwrap_or_else(|| node.os.clone()),
        variant: raw.variant,
    };
    if platform.os != node.os || platform.architecture != node.architecture {
        let reason = format!(
            "it is for {}/{}, this node is {}/{}",
            platform.os, platform.architecture, node.os, node.architecture
        );
        return Err(Error::corrupt(what, reason));
    }
    let c = raw.config.unwrap_or_default();
    let keys = |set: Set| set.unwrap_or_default().into_keys().collect();
    let text = |value: Option<String>| value.filter(|v| !v.is_empty());
    let config = ImageConfig {
        user: text(c.user),
        env: c.env.unwrap_or_default(),
        entrypoint: c.entrypoint.unwrap_or_default(),
        cmd: c.cmd.unwrap_or_default(),
        working_dir: text(c.working_dir),
        stop_signal: text(c.stop_signal),
        volumes: keys(c.volumes),
        exposed_ports: keys(c.exposed_ports),
        labels: c.labels.unwrap_or_default(),
    };
    let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
    Ok(ConfigBlob { platform, created: raw.created, diff_ids, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(os: &str, arch: &str, variant: Option<&str>, seed: u8) -> Descriptor {
        let platform =
            Platform { architecture: arch.into(), os: os.into(), variant: variant.map(Into::into) };
        Descriptor {
            media_type: String::new(),
            digest: Digest::of(&[seed]),
            size: 1,
            platform: Some(platform),
            annotations: None,
        }
    }

    #[test]
    fn the_entry_for_this_machine_is_picked() {
        let node = Platform { architecture: "amd64".into(), os: "linux".into(), variant: None };
        let entries = [
            descriptor("windows", "amd64", None, 0),
            descriptor("linux", "arm64", Some("v8"), 1),
            descriptor("linux", "amd64", Some("v3"), 2),
            descriptor("linux", "amd64", None, 3),
            descriptor("unknown", "unknown", None, 4),
        ];
        assert_eq!(pick("x", &entries, &node).unwrap().digest, Digest::of(&[3]));
        assert!(pick("x", &entries[..3], &node).is_err(), "v3 may not run here");
    }

    #[test]
    fn a_document_that_is_both_manifest_and_index_is_refused() {
        let d = Digest::of(b"");
        let config =
            format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{d}","size":2}}"#);
        let good = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        assert!(matches!(parse("x", good.as_bytes()), Ok(Document::Image(_))));
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        assert!(parse("x", both.as_bytes()).is_err());
        let lies = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":{config},"layers":[]}}"#
        );
        assert!(parse("x", lies.as_bytes()).is_err());
        assert!(parse("x", br#"{"schemaVersion":1}"#).is_err());
    }

    #[test]
    fn docker_writes_null_where_oci_writes_nothing() {
        let node = Platform::node();
        let text = r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":null},
            "config":{"User":"","Env":null,"Volumes":{"/data":{}},"Labels":null,"Cmd":["sh"]}}"#;
        let blob = parse_config("x", text.as_bytes(), &node).unwrap();
        assert_eq!((blob.config.user, blob.config.volumes), (None, vec!["/data".to_owned()]));
        assert_eq!(blob.config.cmd, ["sh"]);
        let other = r#"{"os":"linux","architecture":"s390x-not","rootfs":{"diff_ids":[]}}"#;
        assert!(parse_config("x", other.as_bytes(), &node).is_err());
    }
}
