//! Keeps events on disk. Touches `<root-dir>/events.json`, which is written whole: soon when something new happened, but
//! seldom while the same happens over and over, or always something else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Book, Events};
use crate::pod::files;

/// What happens within this time is written at once.
const GATHER: Duration = Duration::from_millis(500);
/// How long it is gathered where nothing is new but how often it happened, or where new things never end.
const SELDOM: Duration = Duration::from_secs(10);
/// So many writes may follow each other; one more comes with each [`SELDOM`].
const BURST: u32 = 10;
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
        let mut pace = Pace { spare: BURST, at: Instant::now() };
        loop {
            self.0.changed.notified().await;
            self.gather(&mut pace).await;
            if let Err(error) = self.flush().await
                && !std::mem::replace(&mut complained, true)
            {
                tracing::warn!("cannot keep the pods' events: {error}");
            }
        }
    }

    /// Waits for more that can be written at once.
    async fn gather(&self, pace: &mut Pace) {
        let begun = Instant::now();
        while !self.state().fresh {
            let again = tokio::time::timeout_at(begun + SELDOM, self.0.changed.notified()).await;
            if again.is_err() {
                return;
            }
        }
        tokio::time::sleep(pace.next(Instant::now())).await;
    }

    /// Writes the file now, if there is anything new and anywhere to keep it.
    pub async fn flush(&self) -> io::Result<()> {
        let Some(path) = self.0.path.clone() else { return Ok(()) };
        let book = {
            let mut state = self.state();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            state.fresh = false;
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

/// How soon what is new is written.
#[derive(Debug)]
struct Pace {
    spare: u32,
    /// Since when nothing was added to the spare writes.
    at: Instant,
}

impl Pace {
    fn next(&mut self, now: Instant) -> Duration {
        let come = now.saturating_duration_since(self.at).as_secs() / SELDOM.as_secs();
        if come > 0 {
            self.spare = self.spare.saturating_add(u32::try_from(come).unwrap_or(BURST)).min(BURST);
            self.at = now;
        }
        match self.spare.checked_sub(1) {
            Some(left) => {
                self.spare = left;
                GATHER
            }
            None => SELDOM,
        }
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

    #[tokio::test]
    async fn the_same_over_and_over_is_written_seldom_and_something_new_among_it_soon() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::open(dir.path());
        let keeper = events.clone();
        let task = tokio::spawn(async move { keeper.keep().await });
        let counts = || {
            let book = read(dir.path()).unwrap();
            let page = book.pages.get(&"p".into()).cloned().unwrap_or_default();
            page.records.iter().map(|r| format!("{} {}", r.message, r.count)).collect::<Vec<_>>()
        };
        events.record(happening("a"));
        while counts().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..20 {
            events.record(happening("a"));
            tokio::time::sleep(GATHER / 5).await;
        }
        assert_eq!(counts(), ["a 1"], "nothing new for four times as long as new things wait");
        events.record(happening("b"));
        while counts().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(counts(), ["a 21", "b 1"]);
        task.abort();
    }

    #[test]
    fn always_something_new_is_written_seldom_after_a_burst() {
        let begun = Instant::now();
        let mut pace = Pace { spare: BURST, at: begun };
        let pauses = |pace: &mut Pace, at: u64| {
            (0..=BURST).map(|_| pace.next(begun + Duration::from_secs(at))).collect::<Vec<_>>()
        };
        let soon = |pauses: Vec<Duration>| pauses.iter().filter(|pause| **pause == GATHER).count();
        assert_eq!(soon(pauses(&mut pace, 5)), 10);
        assert_eq!(soon(pauses(&mut pace, 9)), 0);
        assert_eq!(soon(pauses(&mut pace, 25)), 2);
        assert_eq!(soon(pauses(&mut pace, 500)), 10);
    }
}
