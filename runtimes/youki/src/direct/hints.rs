//! Wake-ups: a container that ends leaves a file in one directory, which is watched. Takes those files away.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_core::Stream;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use podstead_runtime::{Hint, PodUid, labels};
use tokio::sync::mpsc;

use super::Inner;

/// Many ends at once need no more than one look each.
const WAITING: usize = 1024;

struct Hints {
    receiver: mpsc::Receiver<Hint>,
    /// Kept, because nothing is watched without it.
    _watcher: Option<RecommendedWatcher>,
    /// Kept, so that the stream does not end where nothing can be watched.
    _sender: mpsc::Sender<Hint>,
}

impl Stream for Hints {
    type Item = Hint;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Hint>> {
        self.receiver.poll_recv(context)
    }
}

pub(super) fn hints(inner: &Arc<Inner>) -> impl Stream<Item = Hint> + Send + Unpin + 'static + use<> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let dir = inner.layout.hints();
    let watcher = watch(&dir, sender.clone(), Arc::downgrade(inner));
    let watcher = watcher
        .inspect_err(
            |error| tracing::error!(%error, dir = %dir.display(), "ends of containers are seen late"),
        )
        .ok();
    // What ended before the watch began is found by the first look.
    let _ = sender.try_send(Hint::Everything);
    Hints { receiver, _watcher: watcher, _sender: sender }
}

fn watch(dir: &Path, sender: mpsc::Sender<Hint>, inner: Weak<Inner>) -> notify::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else {
            let _ = sender.try_send(Hint::Everything);
            return;
        };
        if event.need_rescan() {
            let _ = sender.try_send(Hint::Everything);
        }
        if !event.kind.is_create() {
            return;
        }
        for path in &event.paths {
            // A full channel already says "look".
            let _ = sender.try_send(hint(&inner, path));
            let _ = std::fs::remove_file(path);
        }
    };
    let mut watcher = notify::recommended_watcher(tell)?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn hint(inner: &Weak<Inner>, path: &Path) -> Hint {
    let id = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let record = inner.upgrade().and_then(|inner| inner.container(id).ok().flatten());
    let uid = record.and_then(|r| r.labels.get(labels::POD_UID).cloned());
    uid.map_or(Hint::Everything, |uid| Hint::Pod(PodUid(uid)))
}
