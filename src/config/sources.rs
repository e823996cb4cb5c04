//! Flags that say where manifests come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use minisign_verify::PublicKey;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::document::COMMA;
use super::{ConfigError, absolute, duration};
use crate::manifest::{UrlConfig, Waivers};

/// Text that stands in no log and no message.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A rule about files that can be waived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Waiver {
    /// Links that lead out of the manifest directories.
    OutsideLinks,
    /// Files that their group may write.
    GroupWritable,
    /// Files that everybody may write.
    OtherWritable,
    /// Files of other users than root and the agent's own.
    ForeignOwner,
}

/// Where manifests come from, spelled as the kubelet spells it where it has it.
#[derive(Args, Clone, Debug)]
pub struct SourceFlags {
    /// Directory with manifests, or one manifest file; repeated: a file of a later directory masks one of the same name
    #[arg(long)]
    pub pod_manifest_path: Vec<PathBuf>,
    /// How often the manifests are read again without a notification
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub file_check_frequency: Duration,
    /// Doubtful manifest files to take all the same
    #[arg(long, value_enum, value_delimiter = ',')]
    pub allow_manifests: Vec<Waiver>,
    /// URL of a document with manifests
    #[arg(long, env = "PODSTEAD_MANIFEST_URL", hide_env_values = true)]
    pub manifest_url: Option<Secret>,
    /// Headers for the URL, `name:value`, comma-separated or repeated
    #[arg(long, env = "PODSTEAD_MANIFEST_URL_HEADER", hide_env_values = true)]
    pub manifest_url_header: Vec<Secret>,
    /// How often the URL is asked
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub http_check_frequency: Duration,
    /// Certificates (PEM) that the URL's server is trusted by, instead of the system's
    #[arg(long)]
    pub manifest_url_ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to the URL's server
    #[arg(long)]
    pub manifest_url_client_certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long)]
    pub manifest_url_client_key: Option<PathBuf>,
    /// File with a bearer token for the URL, read for each request
    #[arg(long)]
    pub manifest_url_token_file: Option<PathBuf>,
    /// SHA-256, in hex, of the only document that is taken from the URL
    #[arg(long)]
    pub manifest_url_sha256: Option<String>,
    /// Public key of minisign; the document must be signed with it, at the URL's path with .minisig added
    #[arg(long)]
    pub manifest_url_minisign_key: Option<PathBuf>,
}

/// Where manifests come from, checked.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Directories and single files, the highest precedence last.
    pub paths: Vec<PathBuf>,
    /// How often they are read again without a notification.
    pub file_check_frequency: Duration,
    /// Which doubts about files are waived.
    pub waived: Waivers,
    /// A document behind a URL.
    pub url: Option<UrlConfig>,
}

impl SourceFlags {
    pub(super) fn sources(&self) -> Result<Sources, ConfigError> {
        if self.file_check_frequency < Duration::from_millis(10) {
            return Err(ConfigError::Frequency);
        }
        if self.http_check_frequency < Duration::from_millis(10) {
            return Err(wrong("http-check-frequency", "must be at least 10ms"));
        }
        let url = self.url()?;
        if self.pod_manifest_path.is_empty() && url.is_none() {
            return Err(ConfigError::NoManifestPath);
        }
        let paths = self.pod_manifest_path.iter().map(|path| absolute("pod-manifest-path", path));
        Ok(Sources {
            paths: paths.collect::<Result<_, _>>()?,
            file_check_frequency: self.file_check_frequency,
            waived: self.waived(),
            url,
        })
    }

    /// Which doubts about files are waived.
    pub fn waived(&self) -> Waivers {
        waived(&self.allow_manifests)
    }

    fn url(&self) -> Result<Option<UrlConfig>, ConfigError> {
        let Some(url) = self.manifest_url.as_ref().filter(|url| !url.0.is_empty()) else {
            return match self.alone() {
                Some(flag) => Err(wrong(flag, "says something about --manifest-url, which is not set")),
                None => Ok(None),
            };
        };
        let url = Url::parse(&url.0).map_err(|error| wrong("manifest-url", &error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("manifest-url", "must begin with https:// or http://"));
        }
        let client = match (&self.manifest_url_client_certificate, &self.manifest_url_client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (Some(_), None) => {
                return Err(wrong("manifest-url-client-certificate", "needs --manifest-url-client-key"));
            }
            (None, Some(_)) => {
                return Err(wrong("manifest-url-client-key", "needs --manifest-url-client-certificate"));
            }
        };
        let tls = [
            ("manifest-url-ca-file", self.manifest_url_ca_file.is_some()),
            ("manifest-url-client-certificate", client.is_some()),
            ("manifest-url-token-file", self.manifest_url_token_file.is_some()),
        ];
        if let Some((flag, _)) = tls.iter().find(|(_, given)| *given && url.scheme() == "http") {
            return Err(wrong(flag, "needs an https URL"));
        }
        let headers = self.headers()?;
        if headers.contains_key(AUTHORIZATION) && self.manifest_url_token_file.is_some() {
            return Err(wrong("manifest-url-token-file", "and a header Authorization exclude each other"));
        }
        Ok(Some(UrlConfig {
            url,
            headers,
            frequency: self.http_check_frequency,
            ca_file: self.manifest_url_ca_file.clone(),
            client,
            token_file: self.manifest_url_token_file.clone(),
            sha256: self.sha256()?,
            minisign: self.manifest_url_minisign_key.as_deref().map(minisign).transpose()?,
        }))
    }

    /// A flag that is about the URL, without one.
    fn alone(&self) -> Option<&'static str> {
        [
            ("manifest-url-header", !self.manifest_url_header.is_empty()),
            ("manifest-url-ca-file", self.manifest_url_ca_file.is_some()),
            ("manifest-url-client-certificate", self.manifest_url_client_certificate.is_some()),
            ("manifest-url-client-key", self.manifest_url_client_key.is_some()),
            ("manifest-url-token-file", self.manifest_url_token_file.is_some()),
            ("manifest-url-sha256", self.manifest_url_sha256.is_some()),
            ("manifest-url-minisign-key", self.manifest_url_minisign_key.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// As the kubelet's flag: pairs parted by commas. What follows a comma and is no pair belongs to the value before.
    fn headers(&self) -> Result<HeaderMap, ConfigError> {
        let bad = |what: &str| wrong("manifest-url-header", what);
        let mut headers = HeaderMap::new();
        for flag in &self.manifest_url_header {
            let mut pairs: Vec<(String, String)> = Vec::new();
            for part in flag.0.split(',') {
                match (part.split_once(':'), pairs.last_mut()) {
                    (Some((name, value)), _) => {
                        pairs.push((name.trim().to_owned(), value.trim().to_owned()));
                    }
                    (None, Some((_, value))) => *value = format!("{value},{part}"),
                    (None, None) => return Err(bad("must be name:value")),
                }
            }
            for (name, value) in pairs {
                let parsed: HeaderName =
                    name.parse().map_err(|_| bad("has a name that is no header's; it must be name:value"))?;
                let mut value = HeaderValue::from_str(&value.replace(COMMA, ","))
                    .map_err(|_| bad(&format!("{parsed}: the value cannot be sent")))?;
                value.set_sensitive(true);
                headers.append(parsed, value);
            }
        }
        Ok(headers)
    }

    fn sha256(&self) -> Result<Option<[u8; 32]>, ConfigError> {
        let Some(text) = &self.manifest_url_sha256 else { return Ok(None) };
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash)
            .map_err(|_| wrong("manifest-url-sha256", "must be 64 hexadecimal digits"))?;
        Ok(Some(hash))
    }
}

/// The rules that these values waive.
pub fn waived(waivers: &[Waiver]) -> Waivers {
    let has = |waiver| waivers.contains(&waiver);
    Waivers {
        outside_links: has(Waiver::OutsideLinks),
        group_writable: has(Waiver::GroupWritable),
        other_writable: has(Waiver::OtherWritable),
        foreign_owner: has(Waiver::ForeignOwner),
    }
}

/// A file as `minisign -G` writes it, or its second line alone.
fn minisign(path: &Path) -> Result<PublicKey, ConfigError> {
    let bad = |what: &str| wrong("manifest-url-minisign-key", &format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(&error.to_string()))?;
    PublicKey::decode(&text)
        .or_else(|_| PublicKey::from_base64(text.trim()))
        .map_err(|_| bad("it holds no public key of minisign"))
}

fn wrong(flag: &str, what: &str) -> ConfigError {
    ConfigError::Sources(format!("--{flag} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        sources: SourceFlags,
    }

    fn sources(flags: &[&str]) -> Result<Sources, ConfigError> {
        let words = std::iter::once("podstead").chain(flags.iter().copied());
        <Flags as clap::Parser>::try_parse_from(words).unwrap().sources.sources()
    }

    #[test]
    fn headers_are_the_kubelets_and_stand_in_no_text() {
        let flags = ["--manifest-url", "https://u:secret1@h/x", "--manifest-url-header"];
        let more = ["a:secret2,b:again", "--manifest-url-header", "b:one, two,c: x:y"];
        let url = sources(&[&flags[..], &more].concat()).unwrap().url.unwrap();
        let all = |name: &str| -> Vec<&str> {
            url.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!((all("a"), all("b"), all("c")), (vec!["secret2"], vec!["again", "one, two"], vec!["x:y"]));
        assert_eq!(url.shown(), "https://h/x");
        let debug = format!("{url:?} {:?}", url.headers);
        assert!(!debug.contains("secret"), "{debug}");
        let flags = <Flags as clap::Parser>::try_parse_from([&["podstead"], &flags[..], &more].concat());
        let debug = format!("{:?}", flags.unwrap().sources);
        assert!(!debug.contains("secret"), "{debug}");
        for bad in ["secret", "se cret:x", "a:se\u{7}cret"] {
            let error =
                sources(&["--manifest-url=http://h", "--manifest-url-header", bad]).unwrap_err().to_string();
            assert!(error.contains("--manifest-url-header") && !error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        assert_eq!(sources(&[]).unwrap_err(), ConfigError::NoManifestPath);
        assert_eq!(sources(&["--manifest-url="]).unwrap_err(), ConfigError::NoManifestPath);
        for (flags, why) in [
            (&["--manifest-url=ftp://h/"][..], "https://"),
            (&["--manifest-url=nothing"], "--manifest-url"),
            (&["--pod-manifest-path=/m", "--manifest-url-header=a:b"], "--manifest-url, which is not set"),
            (&["--manifest-url=http://h", "--manifest-url-token-file=/t"], "needs an https URL"),
            (&["--manifest-url=http://h", "--manifest-url-ca-file=/t"], "needs an https URL"),
            (&["--manifest-url=https://h", "--manifest-url-client-key=/t"], "client-certificate"),
            (&["--manifest-url=https://h", "--manifest-url-client-certificate=/t"], "client-key"),
            (&["--manifest-url=https://h", "--manifest-url-sha256=ab"], "64 hexadecimal"),
            (&["--manifest-url=https://h", "--manifest-url-minisign-key=/nonexistent"], "/nonexistent"),
            (&["--manifest-url=https://h", "--manifest-url-minisign-key=/dev/null"], "no public key"),
            (&["--manifest-url=https://h", "--http-check-frequency=1ms"], "--http-check-frequency"),
            (
                &[
                    "--manifest-url=https://h",
                    "--manifest-url-token-file=/t",
                    "--manifest-url-header=Authorization:x",
                ],
                "exclude each other",
            ),
        ] {
            let error = sources(flags).unwrap_err().to_string();
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }

    #[test]
    fn paths_are_repeated_and_waivers_parted_by_commas() {
        let all = sources(&[
            "--pod-manifest-path=/usr/lib/m",
            "--pod-manifest-path=/etc/m",
            "--allow-manifests=outside-links,group-writable",
        ]);
        let all = all.unwrap();
        assert_eq!(all.paths, [Path::new("/usr/lib/m"), Path::new("/etc/m")]);
        assert!(all.waived.outside_links && all.waived.group_writable && !all.waived.foreign_owner);
        assert!(all.url.is_none());
    }
}
