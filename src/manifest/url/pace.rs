//! When a URL is asked again. Pure, but for chance.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// After the first failure; doubles from there on.
const FIRST: Duration = Duration::from_secs(1);
/// A server may ask to be left alone for as long as this.
const LONGEST: Duration = Duration::from_secs(600);

/// Counts failures.
#[derive(Debug)]
pub(super) struct Pace {
    frequency: Duration,
    failures: u32,
    chance: RandomState,
}

impl Pace {
    pub(super) fn new(frequency: Duration) -> Self {
        Self { frequency, failures: 0, chance: RandomState::new() }
    }

    /// The pause until the next request: the frequency and up to a tenth more, so that nodes that began together part;
    /// after failures from 1 s on, doubling up to the frequency, each a quarter more or less.
    pub(super) fn next(&mut self, failing: bool, retry_after: Option<Duration>) -> Duration {
        if !failing {
            self.failures = 0;
            return self.frequency.mul_f64(1.0 + self.chance() / 10.0);
        }
        self.failures = self.failures.saturating_add(1);
        let grown = FIRST.saturating_mul(1 << (self.failures - 1).min(16));
        let pause = grown.min(self.frequency).mul_f64(0.75 + self.chance() / 2.0);
        pause.max(retry_after.unwrap_or_default().min(LONGEST))
    }

    /// From 0 to 1.
    fn chance(&self) -> f64 {
        let mut hasher = self.chance.build_hasher();
        hasher.write_u128(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
        hasher.write_u32(self.failures);
        f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_and_part_from_each_other() {
        let frequency = Duration::from_secs(20);
        let mut pace = Pace::new(frequency);
        for base in [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0] {
            let pause = pace.next(true, None).as_secs_f64();
            assert!(pause >= base * 0.75 && pause <= base * 1.25, "{base}: {pause}");
        }
        let asked = pace.next(true, Some(Duration::from_secs(120)));
        assert_eq!(asked, Duration::from_secs(120));
        assert_eq!(pace.next(true, Some(Duration::MAX)), LONGEST);
        let calm: Vec<Duration> = (0..20).map(|_| pace.next(false, None)).collect();
        assert!(calm.iter().all(|p| *p >= frequency && *p <= frequency.mul_f64(1.1)), "{calm:?}");
        assert!(calm.iter().any(|p| *p != calm[0]), "{calm:?}");
        assert!(pace.next(true, None) <= FIRST.mul_f64(1.25), "it begins anew");
    }
}
