//! The file of `--image-credential-provider-config`: which programs are asked for credentials, and for which images
//! (`kubelet-static-pods.md 2.7`; the kubelet's `CredentialProviderConfig`, versions v1, v1beta1 and v1alpha1). Reads that
//! file, or the files of that directory, and looks for the programs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

const CONFIG_GROUP: &str = "kubelet.config.k8s.io";
/// Versions of the request and of the answer.
const PROTOCOLS: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
];

/// A program that knows credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// `apiVersion` of what it is asked and of what it must answer.
    pub api_version: String,
    /// Images it is asked for: `host[:port][/path]`, `*`, `?` and `[...]` within the parts of the host's name.
    pub match_images: Vec<String>,
    /// How long an answer counts that does not say so itself.
    pub default_cache: Duration,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables besides the agent's own.
    pub env: Vec<(String, String)>,
}

/// The configuration of the programs cannot be used.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A directory without a configuration.
    #[error("{path} has no file that ends in .json, .yaml or .yml")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A program is missing.
    #[error(
        "credential provider {name}: {program} is no executable file: install it, or change --image-credential-provider-bin-dir"
    )]
    NoProgram {
        /// The provider.
        name: String,
        /// The program.
        program: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    token_attributes: Option<TokenAttributes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokenAttributes {
    #[serde(default)]
    service_account_token_audience: String,
    cache_type: Option<String>,
    require_service_account: Option<bool>,
    #[serde(default)]
    required_service_account_annotation_keys: Vec<String>,
    #[serde(default, rename = "optionalServiceAccountAnnotationKeys")]
    _optional: Vec<String>,
}

/// The providers of a file, or of a directory's `*.json`, `*.yaml` and `*.yml` in the order of their names. Blocking.
pub fn load(config: &Path, bin_dir: &Path) -> Result<Vec<Provider>, ProviderError> {
    let mut all: Vec<Provider> = Vec::new();
    let mut names = BTreeSet::new();
    for path in files(config)? {
        let text = fs::read(&path).map_err(|source| ProviderError::Io { path: path.clone(), source })?;
        let wrong = |why: String| ProviderError::Wrong { path: path.clone(), why };
        for (entry, version) in entries(&text).map_err(wrong)? {
            let name = entry.name.clone();
            if !names.insert(name.clone()) {
                return Err(wrong(format!("two providers are called {name:?}")));
            }
            let asked = check(&entry, &version).map_err(|why| wrong(format!("provider {name:?}: {why}")))?;
            let provider =
                provider(entry, bin_dir).map_err(|why| wrong(format!("provider {name:?}: {why}")))?;
            if !executable(&provider.program) {
                return Err(ProviderError::NoProgram { name, program: provider.program });
            }
            if asked {
                all.push(provider);
            } else {
                tracing::warn!(
                    provider = name,
                    "it wants a service account, static pods have none: it is never asked"
                );
            }
        }
    }
    Ok(all)
}

fn files(config: &Path) -> Result<Vec<PathBuf>, ProviderError> {
    let io = |source| ProviderError::Io { path: config.to_owned(), source };
    if !fs::metadata(config).map_err(io)?.is_dir() {
        return Ok(vec![config.to_owned()]);
    }
    let entries = fs::read_dir(config).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(io)?;
    let fits = |path: &PathBuf| {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        ["json", "yaml", "yml"].contains(&ending) && !path.is_dir()
    };
    let mut found: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(fits).collect();
    found.sort();
    if found.is_empty() { Err(ProviderError::Empty { path: config.to_owned() }) } else { Ok(found) }
}

/// The entries of a file with the file's version.
fn entries(text: &[u8]) -> Result<Vec<(Entry, String)>, String> {
    let config: Config = serde_yaml::from_slice(text).map_err(|error| error.to_string())?;
    let version = config.api_version.strip_prefix(CONFIG_GROUP).and_then(|rest| rest.strip_prefix('/'));
    let version = version.filter(|version| ["v1", "v1beta1", "v1alpha1"].contains(version));
    let Some(version) = version.filter(|_| config.kind == "CredentialProviderConfig") else {
        return Err(format!(
            "{} {} is no CredentialProviderConfig of {CONFIG_GROUP}/v1, v1beta1 or v1alpha1",
            config.api_version, config.kind
        ));
    };
    if config.providers.is_empty() {
        return Err("providers: at least one is required".into());
    }
    Ok(config.providers.into_iter().map(|entry| (entry, version.to_owned())).collect())
}

/// The kubelet's rules; whether the provider can ever be asked here.
fn check(entry: &Entry, version: &str) -> Result<bool, String> {
    let name = entry.name.as_str();
    if name.is_empty() || name.contains(['/', ' ']) || name == "." || name == ".." {
        return Err("its name must be that of a program, without / and spaces".into());
    }
    if !PROTOCOLS.contains(&entry.api_version.as_str()) {
        return Err(format!("apiVersion {:?} is none of {}", entry.api_version, PROTOCOLS.join(", ")));
    }
    if entry.match_images.is_empty() {
        return Err("matchImages: at least one is required".into());
    }
    for image in &entry.match_images {
        if image.is_empty()
            || image.contains("://")
            || image.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(format!("matchImages: {image:?} is no host[:port][/path], which has no scheme"));
        }
    }
    let Some(token) = &entry.token_attributes else { return Ok(true) };
    if version != "v1" || entry.api_version != PROTOCOLS[0] {
        return Err("tokenAttributes are of v1 only".into());
    }
    if token.service_account_token_audience.is_empty() {
        return Err("tokenAttributes.serviceAccountTokenAudience is required".into());
    }
    if !matches!(token.cache_type.as_deref(), Some("ServiceAccount" | "Token")) {
        return Err("tokenAttributes.cacheType must be ServiceAccount or Token".into());
    }
    match token.require_service_account {
        None => Err("tokenAttributes.requireServiceAccount is required".into()),
        Some(false) if !token.required_service_account_annotation_keys.is_empty() => Err(
            "tokenAttributes.requireServiceAccount cannot be false with requiredServiceAccountAnnotationKeys"
                .into(),
        ),
        Some(required) => Ok(!required),
    }
}

fn provider(entry: Entry, bin_dir: &Path) -> Result<Provider, String> {
    let cache = entry.default_cache_duration.ok_or("defaultCacheDuration is required")?;
    let default_cache = duration(&cache).map_err(|why| format!("defaultCacheDuration: {why}"))?;
    Ok(Provider {
        program: bin_dir.join(&entry.name),
        name: entry.name,
        api_version: entry.api_version,
        match_images: entry.match_images,
        default_cache,
        args: entry.args.unwrap_or_default(),
        env: entry.env.unwrap_or_default().into_iter().map(|v| (v.name, v.value)).collect(),
    })
}

/// A duration as Go writes it; `0` needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { crate::config::duration(text) }
}

fn executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const GOOD: &str = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: helper
  matchImages: ["*.example", "registry.example:5000/team"]
  defaultCacheDuration: 12h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [get, credentials]
  env: [{name: PROFILE, value: node}]
"#;

    /// A directory with a program of this name that does what the script says.
    pub(crate) fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn loaded(text: &str) -> Result<Vec<Provider>, String> {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "helper", "");
        program(dir.path(), "other", "");
        let file = dir.path().join("config.yaml");
        fs::write(&file, text).unwrap();
        load(&file, dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_is_read_in_all_its_versions_as_yaml_and_as_json() {
        for version in ["v1", "v1beta1", "v1alpha1"] {
            let text = GOOD.replace("io/v1\n", &format!("io/{version}\n"));
            let [one] = &loaded(&text).unwrap()[..] else { panic!("one") };
            assert_eq!((one.name.as_str(), one.match_images.len()), ("helper", 2));
            assert_eq!(one.api_version, format!("credentialprovider.kubelet.k8s.io/{version}"));
            assert_eq!(one.default_cache, Duration::from_secs(12 * 3600));
            assert_eq!(one.env, [("PROFILE".to_owned(), "node".to_owned())]);
            assert_eq!(one.args, ["get", "credentials"]);
        }
        let value: serde_json::Value = serde_yaml::from_str(GOOD).unwrap();
        assert_eq!(loaded(&value.to_string()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_told() {
        for (from, to, told) in [
            (
                "kind: CredentialProviderConfig",
                "kind: KubeletConfiguration",
                "is no CredentialProviderConfig",
            ),
            ("kubelet.config.k8s.io/v1\n", "kubelet.config.k8s.io/v2\n", "is no CredentialProviderConfig"),
            ("args:", "arguments:", "unknown field `arguments`"),
            ("name: helper", "name: a/b", "without / and spaces"),
            ("name: helper", "name: missing", "is no executable file"),
            ("credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v3", "is none of"),
            ("[\"*.example\", \"registry.example:5000/team\"]", "[]", "matchImages: at least one"),
            ("*.example", "https://a.example", "has no scheme"),
            ("defaultCacheDuration: 12h\n", "\n", "defaultCacheDuration is required"),
            ("12h", "-1s", "is not a duration"),
            ("12h", "soon", "is not a duration"),
            ("args:", "tokenAttributes: {}\n  args:", "serviceAccountTokenAudience is required"),
            (
                "args:",
                "tokenAttributes: {serviceAccountTokenAudience: a, requireServiceAccount: true}\n  args:",
                "cacheType",
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = loaded(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
        }
        let twice = format!("{GOOD}{}", &GOOD[GOOD.find("- name").unwrap()..]);
        assert!(loaded(&twice).unwrap_err().contains("two providers are called \"helper\""));
        assert!(
            loaded(&GOOD[..GOOD.find("- name").unwrap()].replace("providers:", "providers: []")).is_err()
        );
    }

    #[test]
    fn who_wants_a_service_account_is_never_asked_and_who_can_do_without_is() {
        let with = |required: bool| {
            let token = format!(
                "tokenAttributes: {{serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: {required}}}\n  args:"
            );
            loaded(&GOOD.replace("args:", &token)).unwrap().len()
        };
        assert_eq!((with(true), with(false)), (0, 1));
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let bin = tempfile::tempdir().unwrap();
        assert!(load(dir.path(), bin.path()).unwrap_err().to_string().contains("has no file"));
        for (file, name) in [("b.yaml", "helper"), ("a.json", "other"), ("notes.txt", "none")] {
            program(bin.path(), name, "");
            fs::write(dir.path().join(file), GOOD.replace("helper", name)).unwrap();
        }
        let names: Vec<String> = load(dir.path(), bin.path()).unwrap().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["other", "helper"]);
    }
}
