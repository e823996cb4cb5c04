//! Keeps events on disk. Touches `<root-dir>/events.json`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Book, Events};
use crate::pod::files;

/// What happens within this time is written at once.
const GATHER: Duration = Duration::from_millis(500);
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    pods: Book,
}

pub(super) fn path(root_dir: &Path) -> PathBuf {
    root_dir.join("events.json")
}

/// The events that an agent has kept below this directory; none when there is no such file.
pub fn read(root_dir: &Path) -> io::Result<Book> {
    match std::fs::read(path(root_dir)) {
        Ok(bytes) => match serde_json::from_slice(&bytes)? {
            File { version: VERSION, pods } => Ok(pods),
            File { version, .. } => Err(io::Error::other(format!("version {version} is not known"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
        Err(error) => Err(error),
    }
}

pub(super) fn load(path: &Path) -> Book {
    read(path.parent().unwrap_or(Path::new("/"))).unwrap_or_else(|error| {
        tracing::warn!("cannot read {}, events begin anew: {error}", path.display());
        Book::default()
    })
}

impl Events {
    /// Writes the file whenever something has changed. Never ends; drop it, and call [`flush`](Self::flush).
    pub async fn keep(&self) {
        let mut complained = false;
        loop {
            self.0.changed.notified().await;
            tokio::time::sleep(GATHER).await;
            if let Err(error) = self.flush().await
                && !std::mem::replace(&mut complained, true)
            {
                tracing::warn!("cannot keep the pods' events: {error}");
            }
        }
    }

    /// Writes the file now, if there is anything new and anywhere to keep it.
    pub async fn flush(&self) -> io::Result<()> {
        let Some(path) = self.0.path.clone() else { return Ok(()) };
        let book = {
            let mut state = self.state();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            state.book.clone()
        };
        let write = move || {
            let bytes = serde_json::to_vec(&File { version: VERSION, pods: book })?;
            files::write_atomically(&path, &bytes, 0o600)
        };
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        if written.is_err() {
            self.state().dirty = true;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Happening, Type};
    use super::*;

    fn happening(message: &str) -> Happening {
        Happening {
            pod: "p".into(),
            container: Some("c".into()),
            kind: Type::Warning,
            reason: "BackOff".into(),
            message: message.to_owned(),
        }
    }

    #[tokio::test]
    async fn events_outlive_their_agent_and_a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::open(dir.path());
        events.introduce(&"p".into(), "default/web", ["i".to_owned()].into());
        events.record(happening("a"));
        events.record(happening("a"));
        events.flush().await.unwrap();
        let path = dir.path().join("events.json");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Events::open(dir.path());
        assert_eq!(again.book(), events.book());
        again.record(happening("a"));
        assert_eq!(again.book().pages[&"p".into()].records[0].count, 3);
        std::fs::write(&path, "{\"version\":1,\"pods\":{\"p\"").unwrap();
        assert_eq!(Events::open(dir.path()).book(), Book::default());
        assert!(read(dir.path()).is_err());
    }

    #[tokio::test]
    async fn a_burst_is_written_once_by_itself_and_nothing_is_written_at_rest() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::open(dir.path());
        let keeper = events.clone();
        let task = tokio::spawn(async move { keeper.keep().await });
        for n in 0..20 {
            events.record(happening(&n.to_string()));
        }
        let path = dir.path().join("events.json");
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let (first, book) = (written(), read(dir.path()).unwrap());
        assert_eq!(book.pages[&"p".into()].records.len(), 20);
        tokio::time::sleep(GATHER * 2).await;
        assert_eq!(written(), first);
        task.abort();
    }
}
