//! One file: its last good pods, what was found in it last, and whether a change has settled. Pure.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::desired::FileState;
use super::events::Hint;
use super::parse::ManifestPod;
use super::read::{ReadError, Stamp};

/// How long a file without a close event must be unchanged before it is taken.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);
/// How long a file that was written to but never closed must be unchanged before it is taken all the same.
pub(crate) const ABANDONED: Duration = Duration::from_secs(60);
/// How long a file must be gone before its pods are: editors rename a file away and write it anew.
pub(crate) const GONE: Duration = Duration::from_millis(300);

/// How long a file that looks as it did is not read again. Not for ever: where files are served over a network, or mapped
/// by who writes them, what they look like may lag behind.
pub(crate) const TRUSTED: Duration = Duration::from_secs(50);
/// How old a change must be for its time to tell it from the next one: clocks of file systems are coarse.
const COARSE: Duration = Duration::from_secs(2);

/// The moment of a reading, in the three clocks it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) steady: Instant,
    pub(crate) wall: SystemTime,
    pub(crate) stamp: Timestamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now(), stamp: Timestamp::now() }
    }
}

/// SHA-256 of a file's content.
pub(crate) type Hash = [u8; 32];

#[derive(Debug, Default)]
pub(crate) struct Tracked {
    /// The pods of the last good version, and the hash of its bytes.
    pub(crate) good: Option<(Hash, Vec<Arc<ManifestPod>>)>,
    pub(crate) outcome: Outcome,
    /// A changed version that has not settled: its stamp and when that was first seen.
    pub(crate) candidate: Option<(Option<Stamp>, Instant)>,
    pub(crate) missing_since: Option<Instant>,
    /// Accepted bytes that are not yet on their way to the disk.
    pub(crate) fresh: Option<Vec<u8>>,
    /// What the good version looked like when it was last read, and when that was.
    pub(crate) seen: Option<(Stamp, Instant)>,
}

#[derive(Debug, Default)]
pub(crate) enum Outcome {
    /// Not judged yet in this life; what is good comes from the disk.
    #[default]
    Unread,
    Accepted,
    /// Present content judged bad (by hash), or unreadable (no hash).
    Broken {
        hash: Option<Hash>,
        errors: Vec<String>,
        since: Timestamp,
    },
    NotManifest(String),
}

impl Tracked {
    /// Whether a file that looks so must hold its good version, so that it need not be opened: that wakes whoever watches
    /// the directory, this agent among them.
    pub(crate) fn is_known(&self, stamp: Option<Stamp>, now: Now) -> bool {
        let trusted = |seen: Instant| now.steady.saturating_duration_since(seen) < TRUSTED;
        stamp.is_some() && self.seen.is_some_and(|(known, seen)| Some(known) == stamp && trusted(seen))
    }

    /// Takes note that the good version was read, which looked so.
    pub(crate) fn note(&mut self, stamp: Option<Stamp>, now: Now) {
        let old = |stamp: &Stamp| now.wall.duration_since(stamp.changed()).is_ok_and(|age| age >= COARSE);
        self.seen = stamp.filter(old).map(|stamp| (stamp, now.steady));
    }

    /// Whether a changed version may be read as a whole; if not, how long to wait before looking again.
    pub(crate) fn settled(
        &mut self,
        stamp: Option<Stamp>,
        hint: Option<Hint>,
        now: Now,
    ) -> Result<(), Duration> {
        let since = match self.candidate {
            Some((known, since)) if known == stamp && stamp.is_some() => since,
            _ => now.steady,
        };
        self.candidate = Some((stamp, since));
        let Some(stamp) = stamp else { return Err(SETTLE) };
        let stable = now.steady.saturating_duration_since(since);
        match hint {
            Some(Hint::Writing) => {
                return if stable >= ABANDONED { Ok(()) } else { Err(ABANDONED.saturating_sub(stable)) };
            }
            // A later change has its own event, which may still be on its way.
            Some(Hint::Complete(at)) if stamp.modified() <= at => return Ok(()),
            _ => {}
        }
        let age = now.wall.duration_since(stamp.modified()).unwrap_or_default();
        let quiet = stable.max(age);
        if quiet >= SETTLE { Ok(()) } else { Err(SETTLE.saturating_sub(quiet) + Duration::from_millis(5)) }
    }

    pub(crate) fn unreadable(&mut self, path: &Path, error: &ReadError, now: Now) {
        if let (ReadError::NotRegular(_), None) = (error, &self.good) {
            self.outcome = Outcome::NotManifest(error.to_string());
            return;
        }
        let since = self.broken_since(now);
        let errors = vec![error.at(path)];
        self.outcome = Outcome::Broken { hash: None, errors, since };
    }

    pub(crate) fn broken_since(&self, now: Now) -> Timestamp {
        match &self.outcome {
            Outcome::Broken { since, .. } => *since,
            _ => now.stamp,
        }
    }

    pub(crate) fn state(&self) -> FileState {
        if self.candidate.is_some() {
            return FileState::Settling;
        }
        match (&self.outcome, &self.good) {
            (Outcome::Broken { errors, since, .. }, Some(_)) => {
                FileState::KeptLastGood { errors: errors.clone(), since: *since }
            }
            (Outcome::Broken { errors, .. }, None) => FileState::Refused { errors: errors.clone() },
            (Outcome::NotManifest(reason), _) => FileState::Ignored { reason: reason.clone() },
            (_, Some((_, pods))) => FileState::Accepted { pods: pods.iter().map(|p| p.key()).collect() },
            (_, None) => FileState::Settling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A stamp of a file changed just now, and that moment.
    fn stamp() -> (Stamp, Now) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = read::file(file.path()).unwrap().stamp.unwrap();
        (stamp, Now { wall: stamp.modified(), ..Now::read() })
    }

    fn later(now: Now, by: Duration) -> Now {
        Now { steady: now.steady + by, wall: now.wall + by, ..now }
    }

    #[test]
    fn without_events_a_change_rests_before_it_is_taken() {
        let (stamp, now) = stamp();
        let mut file = Tracked::default();
        assert!(file.settled(Some(stamp), None, now).is_err_and(|wait| wait >= SETTLE));
        assert!(
            file.settled(Some(stamp), None, later(now, SETTLE.saturating_sub(MS(100))))
                .is_err_and(|w| w <= MS(110))
        );
        assert!(file.settled(Some(stamp), None, later(now, SETTLE)).is_ok());
        // Changed while it was read.
        assert!(file.settled(None, None, later(now, SETTLE)).is_err());
    }

    #[test]
    fn a_closed_file_is_taken_at_once_unless_it_changed_after_that() {
        let (stamp, now) = stamp();
        let complete = |at| Some(Hint::Complete(at));
        assert!(Tracked::default().settled(Some(stamp), complete(stamp.modified()), now).is_ok());
        assert!(Tracked::default().settled(Some(stamp), complete(stamp.modified() - MS(1)), now).is_err());
    }

    #[test]
    fn an_open_file_is_waited_for_but_not_for_ever() {
        let (stamp, now) = stamp();
        let mut file = Tracked::default();
        let writing = Some(Hint::Writing);
        assert!(file.settled(Some(stamp), writing, now).is_err());
        assert!(file.settled(Some(stamp), writing, later(now, ABANDONED.saturating_sub(MS(1)))).is_err());
        assert!(file.settled(Some(stamp), writing, later(now, ABANDONED)).is_ok());
    }

    #[test]
    fn what_looks_as_it_did_is_not_read_again_for_a_while() {
        let ((stamp, now), (other, _)) = (stamp(), stamp());
        let mut file = Tracked::default();
        assert!(!file.is_known(Some(stamp), now), "never read");
        file.note(Some(stamp), later(now, MS(100)));
        assert!(
            !file.is_known(Some(stamp), later(now, MS(200))),
            "it may have changed within one tick of its clock"
        );
        let read = later(now, COARSE);
        file.note(Some(stamp), read);
        assert!(file.is_known(Some(stamp), later(read, TRUSTED.saturating_sub(MS(1)))));
        assert!(!file.is_known(Some(stamp), later(read, TRUSTED)), "not for ever");
        assert!(!file.is_known(None, read));
        assert!(!file.is_known(Some(other), read));
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_keep_a_file_out() {
        let (stamp, now) = stamp();
        let mut file = Tracked::default();
        let behind = Now { wall: now.wall - MS(3_600_000), ..now };
        assert!(file.settled(Some(stamp), None, behind).is_err());
        assert!(file.settled(Some(stamp), None, later(behind, SETTLE)).is_ok());
    }
}
