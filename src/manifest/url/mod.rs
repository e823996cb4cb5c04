//! The URL source: a document is asked for again and again, and what was good last counts until a better one comes.
//! Touches the network, the files of its credentials, and `<root>/manifests/last-good-url/`.
//!
//! An answer that is empty, broken, refused or missing never takes a pod away (`kubelet-static-pods.md 1.2` tells what
//! the kubelet does). Only a good document does that.

mod body;
mod client;
mod fetch;
mod pace;
mod state;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::url::Host;
use jiff::Timestamp;
use minisign_verify::PublicKey;
use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio::sync::Notify;

use self::fetch::{Answer, Fetcher};
use self::state::State;
use self::store::Record;
pub(crate) use self::store::Store;
use super::identity;
use super::merge::{Merger, Part, Slot};
use super::origin::Origin;
use super::parse::judge_from;

/// Where the document is and what it takes to be given it. Its text form shows no secrets.
#[derive(Clone)]
pub struct UrlConfig {
    /// `http` or `https`; user and password in it are sent, and shown nowhere.
    pub url: Url,
    /// Headers to send.
    pub headers: HeaderMap,
    /// How often the document is asked for; the kubelet's default is 20 s.
    pub frequency: Duration,
    /// Certificates, PEM, to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Own certificate chain and its key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
    /// A file with a token, read for each request and sent as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// The only document that is taken, by the SHA-256 of its bytes.
    pub sha256: Option<[u8; 32]>,
    /// Whose signature the document must bear, at its URL with `.minisig` added to the path.
    pub minisign: Option<PublicKey>,
}

impl UrlConfig {
    /// A URL and nothing else; `None` when it is none.
    pub fn plain(url: &str) -> Option<Self> {
        Some(Self {
            url: Url::parse(url).ok()?,
            headers: HeaderMap::new(),
            frequency: Duration::from_secs(20),
            ca_file: None,
            client: None,
            token_file: None,
            sha256: None,
            minisign: None,
        })
    }

    /// Whether nothing tells that the document is what its author wrote.
    fn is_open(&self) -> bool {
        let loopback = match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        self.url.scheme() == "http" && !loopback && self.sha256.is_none() && self.minisign.is_none()
    }

    /// The URL without user and password: its name in reports and in the pods' uid.
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        // Fails for URLs that cannot have them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.to_string()
    }
}

impl fmt::Debug for UrlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlConfig({}, {} headers)", self.shown(), self.headers.len())
    }
}

/// What is known without asking: the part of a source that is only looked at.
pub(crate) fn look(name: &str, node: &str, store: &Store, error: &str) -> Part {
    let mut state = State::new(name, &identity::node_name(node), store.load(name), Timestamp::now());
    state.failed(error, Timestamp::now());
    state.part()
}

/// Asks for the document until it is aborted. `kick`: ask now.
pub(crate) async fn run(
    config: UrlConfig,
    node: String,
    store: Store,
    merger: Arc<Merger>,
    kick: Arc<Notify>,
) {
    let name = config.shown();
    if config.is_open() {
        tracing::warn!(
            url = name,
            "manifests come over plain http, where anybody on the way can change them; use https or \
             --manifest-url-minisign-key"
        );
    }
    let store = Arc::new(store);
    let loaded = {
        let (store, name) = (Arc::clone(&store), name.clone());
        tokio::task::spawn_blocking(move || store.load(&name)).await.unwrap_or_default()
    };
    let second = loaded.record.as_ref().is_some_and(|record| record.second);
    let state = State::new(&name, &identity::node_name(&node), loaded, Timestamp::now());
    if !second {
        merger.restored(state.good());
    }
    merger.update(Slot::Url, state.part());
    let mut pace = pace::Pace::new(config.frequency);
    let mut source = Source { fetcher: Fetcher::new(config), state, store, merger };
    loop {
        let retry_after = source.ask().await;
        let pause = pace.next(source.state.is_failing(), retry_after);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = kick.notified() => {}
        }
    }
}

struct Source {
    fetcher: Fetcher,
    state: State,
    store: Arc<Store>,
    merger: Arc<Merger>,
}

impl Source {
    /// Asks once, and makes known what came out. Answers how long the server wants to be left alone.
    async fn ask(&mut self) -> Option<Duration> {
        let answer = self.fetcher.fetch(self.state.validators()).await;
        let now = Timestamp::now();
        let mut retry_after = None;
        match answer {
            Ok(Answer::Unchanged) => self.state.unchanged(),
            Ok(Answer::Document(document)) => {
                if !self.state.knows(&document) {
                    let (name, node) = (self.state.name.clone(), self.state.node.clone());
                    let bytes = Arc::clone(&document.bytes);
                    let judge = move || judge_from(&bytes, Origin::Url(&name), &node).verdict;
                    // A document may be large.
                    match tokio::task::spawn_blocking(judge).await {
                        Ok(judged) => self.state.judged(document, judged, now),
                        Err(error) => self.state.failed(&format!("cannot judge the document: {error}"), now),
                    }
                }
            }
            Err(error) => {
                retry_after = error.retry_after();
                self.state.failed(&error.to_string(), now);
            }
        }
        self.tell().await;
        retry_after
    }

    /// First the record, then the table: what may run is on disk. Until nobody contradicts, the record claims nothing.
    async fn tell(&mut self) {
        let fresh = self.state.unsaved();
        if let Some(record) = &fresh {
            self.save(Record { second: true, ..record.clone() }).await;
        }
        let lost = self.merger.update(Slot::Url, self.state.part());
        // While the other source has said nothing, the record claims nothing; the next answer is asked again.
        if let Some((record, lost)) = fresh.zip(lost) {
            let second = lost.contains(std::path::Path::new(&self.state.name));
            if self.save(Record { second, ..record }).await {
                self.state.saved();
            }
        }
    }

    /// Whether it is on disk.
    async fn save(&self, record: Record) -> bool {
        let store = Arc::clone(&self.store);
        let saved = tokio::task::spawn_blocking(move || {
            store.save(&record)?;
            store.forget_others(Some(&record.url))
        });
        match saved.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "tried again with the next answer");
                false
            }
            Err(_) => false,
        }
    }
}
