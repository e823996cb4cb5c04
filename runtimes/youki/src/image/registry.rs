//! Talks to one registry for one pull: authentication by oci-client, bounded and verified GETs by reqwest.
//!
//! oci-client reads manifests and error pages whole into memory, whatever their size, and follows a redirect from
//! https to http; therefore only the token exchange is left to it.

use std::fmt;
use std::sync::Once;
use std::time::Duration;

use oci_client::RegistryOperation;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use reqwest::header::ACCEPT;
use reqwest::{Response, StatusCode, Url, redirect};

use super::digest::Digest;
use super::error::{Error, Result};
use super::manifest;
use super::reference::Reference;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A registry that sends nothing for this long is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
/// As much of an error page as is worth showing.
const ERROR_BYTES: u64 = 2048;

/// How to log in to a registry. Its `Debug` form shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// As nobody.
    #[default]
    Anonymous,
    /// User and password, or access token in the password's place.
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        password: String,
    },
    /// A registry token that is sent as it is.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(secret)",
            Self::Bearer(_) => "Bearer(secret)",
        })
    }
}

impl Credentials {
    fn as_client(&self) -> RegistryAuth {
        match self {
            Self::Anonymous => RegistryAuth::Anonymous,
            Self::Basic { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
            Self::Bearer(token) => RegistryAuth::Bearer(token.clone()),
        }
    }
}

/// The registry's token, if it gives tokens.
struct Login(Option<String>);

/// A connection to the registry of one reference.
pub(crate) struct Registry {
    reference: Reference,
    credentials: Credentials,
    base: String,
    http: reqwest::Client,
    oci: oci_client::Client,
    /// What the last login gave, once there was one.
    login: tokio::sync::RwLock<Option<Login>>,
}

/// rustls wants one provider of cryptography per process; whoever embeds this may have chosen another before.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

impl Registry {
    /// `insecure` names the hosts (`host` or `host:port`) that are spoken to in plain http. `roots` are extra
    /// certificates to trust, PEM; the system's are always trusted.
    pub(crate) fn new(
        reference: &Reference,
        credentials: Credentials,
        insecure: &[String],
        roots: &[Vec<u8>],
    ) -> Result<Self> {
        install_crypto();
        let host = reference.as_client().resolve_registry().to_owned();
        let plain = insecure.iter().any(|h| *h == host || h == reference.registry());
        let scheme = if plain { "http" } else { "https" };
        let unusable = |e: &dyn fmt::Display| Error::Unavailable {
            registry: host.clone(),
            what: reference.to_string(),
            reason: format!("no http client could be made: {e}"),
        };
        let allowed: Vec<String> = insecure.to_vec();
        let policy = redirect::Policy::custom(move |attempt| judge_redirect(attempt, &allowed));
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("podstead/", env!("CARGO_PKG_VERSION")))
            .redirect(policy);
        for pem in roots {
            builder =
                builder.add_root_certificate(reqwest::Certificate::from_pem(pem).map_err(|e| unusable(&e))?);
        }
        let http = builder.build().map_err(|e| unusable(&e))?;
        let certificates =
            roots.iter().map(|pem| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() });
        let oci = oci_client::Client::try_from(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates.collect(),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("podstead/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
        .map_err(|e| unusable(&e))?;
        let base = format!("{scheme}://{host}/v2/{}", reference.repository());
        Ok(Self { reference: reference.clone(), credentials, base, http, oci, login: None.into() })
    }

    /// A manifest or index by digest, or by the reference's own tag or digest. Returns its bytes and digest.
    pub(crate) async fn manifest(&self, digest: Option<&Digest>, limit: u64) -> Result<(Vec<u8>, Digest)> {
        let wanted = digest.cloned().or_else(|| self.reference.digest());
        let name = match &wanted {
            Some(digest) => digest.as_str(),
            None => self.reference.tag().unwrap_or("latest"),
        };
        let what = format!("manifest {name} of {}", self.reference.name());
        let response =
            self.get(&what, &format!("{}/manifests/{name}", self.base), Some(manifest::ACCEPT)).await?;
        let told =
            response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = self.body(&what, response, limit).await?;
        let actual = Digest::of(&body);
        let expected =
            wanted.as_ref().map(Digest::as_str).or(told.as_deref().filter(|d| d.starts_with("sha256:")));
        match expected {
            Some(expected) if expected != actual.as_str() => Err(Error::corrupt(
                what,
                format!("the registry sent one with digest {actual}, not {expected}"),
            )),
            _ => Ok((body, actual)),
        }
    }

    /// A small blob, verified.
    pub(crate) async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let what = format!("blob {digest} of {}", self.reference.name());
        let response = self.blob(digest).await?;
        let body = self.body(&what, response, limit).await?;
        let actual = Digest::of(&body);
        if actual == *digest {
            Ok(body)
        } else {
            Err(Error::corrupt(what, format!("the registry sent one with digest {actual}")))
        }
    }

    /// The response that carries a blob. The caller verifies.
    pub(crate) async fn blob(&self, digest: &Digest) -> Result<Response> {
        let what = format!("blob {digest} of {}", self.reference.name());
        self.get(&what, &format!("{}/blobs/{digest}", self.base), None).await
    }

    /// The next piece of a response.
    pub(crate) async fn chunk(
        &self,
        what: &str,
        response: &mut Response,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>> {
        response.chunk().await.map_err(|e| self.unavailable(what, &e))
    }

    async fn body(&self, what: &str, mut response: Response, limit: u64) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(what, &mut response).await? {
            body.extend_from_slice(chunk.as_ref());
            if body.len() as u64 > limit {
                return Err(Error::corrupt(what, format!("it is larger than {limit} bytes")));
            }
        }
        Ok(body)
    }

    async fn get(&self, what: &str, url: &str, accept: Option<&'static str>) -> Result<Response> {
        let mut fresh = false;
        if self.login.read().await.is_none() {
            self.log_in(what).await?;
            fresh = true;
        }
        loop {
            let mut request = self.http.get(url);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            request = match (&*self.login.read().await, &self.credentials) {
                (Some(Login(Some(token))), _) => request.bearer_auth(token),
                (_, Credentials::Basic { username, password }) => {
                    request.basic_auth(username, Some(password))
                }
                _ => request,
            };
            let response = request.send().await.map_err(|e| self.unavailable(what, &e))?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                // Tokens of some registries live shorter than a large pull.
                StatusCode::UNAUTHORIZED if !fresh => {
                    self.log_in(what).await?;
                    fresh = true;
                }
                _ => return Err(self.refused(what, response).await),
            }
        }
    }

    async fn log_in(&self, what: &str) -> Result<()> {
        let auth = self.credentials.as_client();
        let token = self.oci.auth(self.reference.as_client(), &auth, RegistryOperation::Pull).await;
        let token = token.map_err(|e| self.login_failed(what, &e))?;
        *self.login.write().await = Some(Login(token));
        Ok(())
    }

    fn login_failed(&self, what: &str, error: &OciDistributionError) -> Error {
        let registry = self.reference.registry().to_owned();
        match error {
            OciDistributionError::RequestError(e) => self.unavailable(what, e),
            OciDistributionError::AuthenticationFailure(reason) => {
                Error::Denied { registry, what: what.to_owned(), reason: printable(reason.as_bytes()) }
            }
            other => Error::Unavailable {
                registry,
                what: what.to_owned(),
                reason: printable(other.to_string().as_bytes()),
            },
        }
    }

    fn unavailable(&self, what: &str, error: &reqwest::Error) -> Error {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Error::Unavailable { registry: self.reference.registry().to_owned(), what: what.to_owned(), reason }
    }

    async fn refused(&self, what: &str, response: Response) -> Error {
        let status = response.status();
        let registry = self.reference.registry().to_owned();
        let place = format!("at registry {registry}");
        let mut page = Vec::new();
        let mut response = response;
        while let Ok(Some(chunk)) = response.chunk().await {
            page.extend_from_slice(&chunk);
            if page.len() as u64 > ERROR_BYTES {
                page.truncate(usize::try_from(ERROR_BYTES).unwrap_or(0));
                break;
            }
        }
        let what = what.to_owned();
        let reason = format!("{status} {}", printable(&page));
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { what, place },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { registry, what, reason },
            _ => Error::Unavailable { registry, what, reason },
        }
    }
}

fn judge_redirect(attempt: redirect::Attempt<'_>, insecure: &[String]) -> redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    let named = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        let with_port = url.port().map(|port| format!("{host}:{port}"));
        insecure.iter().any(|i| i == host || Some(i) == with_port.as_ref())
    };
    if attempt.url().scheme() == "https" || named(attempt.url()) {
        attempt.follow()
    } else {
        attempt.error("a redirect to plain http, to a host that is not named insecure")
    }
}

/// What a registry wrote, fit for a terminal and a log line.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let basic = Credentials::Basic { username: "u".into(), password: "hunter2".into() };
        assert!(!format!("{basic:?} {:?}", Credentials::Bearer("hunter2".into())).contains("hunter2"));
    }
}
