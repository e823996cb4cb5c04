//! The HTTP client for a URL: whom it trusts, as whom it comes, and where it lets itself be sent. Reads the files of
//! certificates.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::{fmt, io};

use reqwest::{Certificate, Client, Identity, Url, redirect};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::rustls::crypto::ring;

use super::UrlConfig;
use super::fetch::{FetchError, TIMEOUT, words};

/// More redirects than these are followed by nobody.
const MAX_REDIRECTS: usize = 10;

/// A client, and the files' content it was made of.
#[derive(Debug)]
pub(super) struct Made {
    from: Vec<Option<Vec<u8>>>,
    pub(super) client: Client,
}

/// The client that fits the files as they are now: `made`, or another one.
pub(super) async fn current(config: &UrlConfig, made: Option<Made>) -> Result<Made, FetchError> {
    let client = config.client.as_ref();
    let files = [
        ("manifest-url-ca-file", config.ca_file.as_ref()),
        ("manifest-url-client-certificate", client.map(|(certificate, _)| certificate)),
        ("manifest-url-client-key", client.map(|(_, key)| key)),
    ];
    let mut from = Vec::new();
    for (flag, path) in files {
        from.push(match path {
            Some(path) => Some(read(flag, path).await?),
            None => None,
        });
    }
    if let Some(made) = made.filter(|made| made.from == from) {
        return Ok(made);
    }
    let client = build(config, &from)?;
    Ok(Made { from, client })
}

/// The largest file of credentials, in bytes.
const LARGEST: u64 = 1 << 20;

/// Reads a small file of credentials; errors name the flag and never the content.
pub(super) async fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, FetchError> {
    let file = |cause: String| FetchError::File { flag, path: PathBuf::from(path), cause };
    let small = async {
        let mut options = tokio::fs::OpenOptions::new();
        let open = options
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .await?;
        if !open.metadata().await?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        open.take(LARGEST + 1).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 > LARGEST { Err(io::Error::other("larger than 1 MiB")) } else { Ok(bytes) }
    };
    let bytes = small.await.map_err(|error| file(error.to_string()))?;
    if bytes.is_empty() { Err(file("the file is empty".into())) } else { Ok(bytes) }
}

fn build(config: &UrlConfig, from: &[Option<Vec<u8>>]) -> Result<Client, FetchError> {
    // rustls wants one provider of cryptography per process; somebody may have chosen before.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(ring::default_provider().install_default()));
    let file = |flag, path: &Path, cause: &str| FetchError::File {
        flag,
        path: path.to_path_buf(),
        cause: cause.to_owned(),
    };
    let mut builder = Client::builder()
        .user_agent(concat!("podstead/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(TIMEOUT)
        .referer(false)
        .redirect(redirect::Policy::custom(follow));
    if let (Some(path), Some(pem)) = (&config.ca_file, &from[0]) {
        let found = Certificate::from_pem_bundle(pem).ok().filter(|all| !all.is_empty());
        let all = found.ok_or_else(|| file("manifest-url-ca-file", path, "it holds no PEM certificate"))?;
        builder = builder.tls_certs_only(all);
    } else if config.url.scheme() == "http" {
        // The system's certificates are not needed, nor need there be any.
        builder = builder.tls_certs_only([]);
    }
    if let (Some((certificate, _)), Some(chain), Some(key)) = (&config.client, &from[1], &from[2]) {
        let pem = [&chain[..], b"\n", &key[..]].concat();
        let wrong = "it and --manifest-url-client-key are no PEM certificate and key";
        let identity = Identity::from_pem(&pem)
            .map_err(|_| file("manifest-url-client-certificate", certificate, wrong))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| FetchError::Client(words(error)))
}

/// Only within the same scheme, host and port, so that no header and no credential ever reaches another server.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let first = attempt.previous().first().map(Url::origin);
    if first.is_none_or(|first| first != attempt.url().origin()) {
        let to = attempt.url().origin().ascii_serialization();
        return attempt.error(Away(to));
    }
    if attempt.previous().len() > MAX_REDIRECTS { attempt.error(Around) } else { attempt.follow() }
}

/// Redirected to another server.
#[derive(Debug)]
struct Away(String);

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it redirects to another server, {}; if that is meant, name it in --manifest-url", self.0)
    }
}

impl std::error::Error for Away {}

/// Too many redirects.
#[derive(Debug)]
struct Around;

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped after {MAX_REDIRECTS} redirects")
    }
}

impl std::error::Error for Around {}
