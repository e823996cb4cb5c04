//! One file: its last good pods, what was found in it last, and whether a change has settled. Pure.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::desired::FileState;
use super::events::Hint;
use super::parse::ManifestPod;
use super::read::{self, ReadError, Stamp};

/// How long a file without a close event must be unchanged before it is taken.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);
/// How long a file that was written to but never closed must be unchanged before it is taken all the same.
pub(crate) const ABANDONED: Duration = Duration::from_secs(60);
/// How long a file must be gone before its pods are: editors rename a file away and write it anew.
pub(crate) const GONE: Duration = Duration::from_millis(300);

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
    /// Since when the outcome is of its kind, or the accepted version this one.
    pub(crate) since: Option<Timestamp>,
    /// The stamp of what was judged last, if a change of the file must change the stamp.
    pub(crate) stamp: Option<Stamp>,
    /// A changed version that has not settled: its stamp and when that was first seen.
    pub(crate) candidate: Option<(Option<Stamp>, Instant)>,
    pub(crate) missing_since: Option<Instant>,
    /// Accepted bytes that are not yet on their way to the disk.
    pub(crate) fresh: Option<Vec<u8>>,
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
    },
    NotManifest(String),
    /// A link to /dev/null.
    Disabled,
}

impl Tracked {
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

    /// Notes what came out, and since when.
    pub(crate) fn set(&mut self, outcome: Outcome, now: Now) {
        if std::mem::discriminant(&self.outcome) != std::mem::discriminant(&outcome) {
            self.since = Some(now.stamp);
        }
        self.outcome = outcome;
        self.candidate = None;
    }

    /// Takes a version that is good.
    pub(crate) fn accept(&mut self, hash: Hash, pods: Vec<Arc<ManifestPod>>, bytes: Vec<u8>, now: Now) {
        self.since = Some(now.stamp);
        self.good = Some((hash, pods));
        self.fresh = Some(bytes);
        self.outcome = Outcome::Accepted;
        self.candidate = None;
    }

    /// Notes that the file cannot be read, or is none.
    pub(crate) fn unreadable(&mut self, path: &Path, error: &ReadError, now: Now) {
        self.stamp = None;
        let outcome = match error {
            ReadError::Disabled => {
                self.good = None;
                self.fresh = None;
                Outcome::Disabled
            }
            ReadError::NotRegular(read::DIRECTORY) if self.good.is_none() => {
                Outcome::NotManifest(error.to_string())
            }
            _ => Outcome::Broken { hash: None, errors: vec![error.at(path)] },
        };
        self.set(outcome, now);
    }

    /// Why it cannot be read.
    pub(crate) fn complaint(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Broken { hash: None, errors, .. } => errors.first().cloned(),
            _ => None,
        }
    }

    pub(crate) fn is_disabled(&self) -> bool {
        matches!(self.outcome, Outcome::Disabled)
    }

    /// The version whose pods should run, in short.
    pub(crate) fn revision(&self) -> Option<String> {
        self.good.as_ref().map(|(hash, _)| revision(hash))
    }

    pub(crate) fn state(&self) -> FileState {
        if self.candidate.is_some() {
            return FileState::Settling;
        }
        let since = self.since.unwrap_or_default();
        match (&self.outcome, &self.good) {
            (Outcome::Broken { errors, .. }, Some(_)) => {
                FileState::KeptLastGood { errors: errors.clone(), since }
            }
            (Outcome::Broken { errors, .. }, None) => FileState::Refused { errors: errors.clone() },
            (Outcome::NotManifest(reason), _) => FileState::Ignored { reason: reason.clone() },
            (Outcome::Disabled, _) => FileState::Disabled,
            (_, Some((_, pods))) => FileState::Accepted { pods: pods.iter().map(|p| p.key()).collect() },
            (_, None) => FileState::Settling,
        }
    }
}

/// The first digits of a version's SHA-256, as `sha256sum` prints them.
pub(crate) fn revision(hash: &Hash) -> String {
    hex::encode(&hash[..6])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::trust::{Trust, Waivers};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A stamp of a file changed just now, and that moment.
    fn stamp() -> (Stamp, Now) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = read::file(file.path(), &Trust::anywhere(Waivers::ALL)).unwrap().stamp.unwrap();
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
    fn a_clock_that_is_ahead_does_not_keep_a_file_out() {
        let (stamp, now) = stamp();
        let mut file = Tracked::default();
        let behind = Now { wall: now.wall - MS(3_600_000), ..now };
        assert!(file.settled(Some(stamp), None, behind).is_err());
        assert!(file.settled(Some(stamp), None, later(behind, SETTLE)).is_ok());
    }
}
