//! One request for the document, with everything that must hold of the answer before it is looked into. Touches the
//! network and the token's file.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use minisign_verify::Signature;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, RETRY_AFTER,
};
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::super::parse::MAX_BYTES;
use super::super::tracked::Hash;
use super::UrlConfig;
use super::body;
use super::client::{self, Made};

/// For everything that belongs to one document, as the kubelet's.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Signatures are a few hundred bytes.
const MAX_SIGNATURE: u64 = 16 << 10;

/// What a server says about a document, to be asked with whether it is still the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Validators {
    etag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

/// A document that may be looked into.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) hash: Hash,
    pub(super) validators: Validators,
}

#[derive(Debug)]
pub(super) enum Answer {
    Unchanged,
    Document(Document),
}

/// Why there is no document. The texts hold no header, token or password.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("--{flag} {}: {cause}", path.display())]
    File { flag: &'static str, path: PathBuf, cause: String },
    #[error("no HTTP client could be made: {0}")]
    Client(String),
    #[error("{0}")]
    Send(String),
    #[error("there was no whole answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("{what}HTTP status {status}")]
    Status { what: &'static str, status: StatusCode, retry_after: Option<Duration> },
    #[error("the answer is empty; an empty PodList says that there are no pods")]
    Empty,
    #[error("the answer is too large: it must be smaller than {0} bytes, unpacked too")]
    TooLarge(u64),
    #[error("the answer broke off: {0}")]
    Cut(String),
    #[error(
        "the answer does not tell where it ends (no Content-Length, not chunked), so that it cannot be known whether \
         it is whole"
    )]
    NoEnd,
    #[error("the answer is encoded as {0:?}; only gzip is understood")]
    Encoding(String),
    #[error("the document's SHA-256 is {0}, which is not that of --manifest-url-sha256")]
    Digest(String),
    #[error("the document's signature {0}")]
    Signature(String),
}

impl FetchError {
    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// An error's own words and its causes', without the URL, which may hold a password.
pub(super) fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = String::new();
    let mut source = error.source();
    if source.is_none() {
        return error.to_string();
    }
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = if text.is_empty() { words } else { format!("{text}: {words}") };
        }
        source = cause.source();
    }
    text
}

/// Asks for the document of one URL.
#[derive(Debug)]
pub(super) struct Fetcher {
    config: UrlConfig,
    made: Option<Made>,
}

impl Fetcher {
    pub(super) fn new(config: UrlConfig) -> Self {
        Self { config, made: None }
    }

    /// Asks once. `known`: what the server said about the document that is known.
    pub(super) async fn fetch(&mut self, known: &Validators) -> Result<Answer, FetchError> {
        let answer = tokio::time::timeout(TIMEOUT, self.document(known)).await;
        let answer = answer.unwrap_or(Err(FetchError::Late));
        if matches!(answer, Err(FetchError::Send(_) | FetchError::Late)) {
            // The system's certificates, its resolver or the way there may have changed.
            self.made = None;
        }
        answer
    }

    async fn document(&mut self, known: &Validators) -> Result<Answer, FetchError> {
        let mut headers = self.headers().await?;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let mut asking = headers.clone();
        asking.extend(known.etag.clone().map(|value| (IF_NONE_MATCH, value)));
        asking.extend(known.modified.clone().map(|value| (IF_MODIFIED_SINCE, value)));
        let response = self.get(self.config.url.clone(), asking).await?;
        let knows = *known != Validators::default();
        if response.status() == StatusCode::NOT_MODIFIED && knows {
            return Ok(Answer::Unchanged);
        }
        let response = good(response, "")?;
        let header = |name| response.headers().get(name).cloned();
        let validators = Validators { etag: header(ETAG), modified: header(LAST_MODIFIED) };
        let body = body::read(response, MAX_BYTES).await?;
        if body.bytes.is_empty() {
            return Err(FetchError::Empty);
        }
        if !body.whole && self.config.sha256.is_none() && self.config.minisign.is_none() {
            return Err(FetchError::NoEnd);
        }
        let hash = digest(&body.bytes);
        if self.config.sha256.is_some_and(|wanted| wanted != hash) {
            return Err(FetchError::Digest(hex::encode(hash)));
        }
        if self.config.minisign.is_some() {
            self.verify(&body.bytes, headers).await?;
        }
        Ok(Answer::Document(Document { bytes: Arc::new(body.bytes), hash, validators }))
    }

    /// The configured headers, and the token as it is now.
    async fn headers(&self) -> Result<HeaderMap, FetchError> {
        let mut headers = self.config.headers.clone();
        if let Some(path) = &self.config.token_file {
            let flag = "manifest-url-token-file";
            let token = client::read(flag, path).await?;
            let wrong = || FetchError::File {
                flag,
                path: path.clone(),
                cause: "it holds no token of one line".into(),
            };
            let token = std::str::from_utf8(&token).map_err(|_| wrong())?.trim();
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
            if token.is_empty() {
                return Err(wrong());
            }
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    async fn get(&mut self, url: Url, headers: HeaderMap) -> Result<Response, FetchError> {
        let made = client::current(&self.config, self.made.take()).await?;
        let sent = made.client.get(url).headers(headers).send().await;
        self.made = Some(made);
        sent.map_err(|error| FetchError::Send(words(error)))
    }

    async fn verify(&mut self, document: &[u8], headers: HeaderMap) -> Result<(), FetchError> {
        let mut url = self.config.url.clone();
        url.set_path(&format!("{}.minisig", url.path()));
        let response = good(self.get(url, headers).await?, "the document's signature: ")?;
        let body = body::read(response, MAX_SIGNATURE).await?;
        let text = String::from_utf8_lossy(&body.bytes);
        let signature = Signature::decode(&text)
            .map_err(|error| FetchError::Signature(format!("cannot be read: {error}")))?;
        // Invariant: the caller saw that there is a key.
        let Some(key) = &self.config.minisign else { return Ok(()) };
        key.verify(document, &signature, false)
            .map_err(|error| FetchError::Signature(format!("is not right: {error}")))
    }
}

fn good(response: Response, what: &'static str) -> Result<Response, FetchError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(FetchError::Status { what, status, retry_after: seconds.map(Duration::from_secs) })
}
