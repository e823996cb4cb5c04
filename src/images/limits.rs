//! How many images are pulled at once and how many in a time (`kubelet-static-pods.md 2.7`). Waits; reads the clock.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What the flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Pulls at once; `None` for any number.
    pub parallel: Option<usize>,
    /// Pulls begun a second, on average; 0 for any number.
    pub per_second: u32,
    /// Pulls that may begin together after a quiet time.
    pub burst: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { parallel: Some(1), per_second: 5, burst: 10 }
    }
}

/// The queue of those who want to pull: first come, first served.
#[derive(Debug)]
pub(super) struct Limits(RwLock<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    rates: Rates,
    slots: Option<Arc<Semaphore>>,
    bucket: Option<Mutex<Bucket>>,
}

/// Leave to pull, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "held for its end")] Option<OwnedSemaphorePermit>);

impl Queue {
    fn new(rates: Rates) -> Self {
        let slots = rates.parallel.map(|n| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS))));
        Self { rates, slots, bucket: (rates.per_second > 0).then(|| Mutex::new(Bucket::new(rates))) }
    }
}

impl Limits {
    pub(super) fn new(rates: Rates) -> Self {
        Self(RwLock::new(Arc::new(Queue::new(rates))))
    }

    /// Has those who come from now on wait by other rules. Who waits already has the turn that was promised.
    pub(super) fn set(&self, rates: Rates) {
        let mut queue = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if queue.rates != rates {
            *queue = Arc::new(Queue::new(rates));
        }
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> Turn {
        let queue = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let slot = match &queue.slots {
            // Invariant: nobody closes it.
            Some(slots) => Arc::clone(slots).acquire_owned().await.ok(),
            None => None,
        };
        if let Some(bucket) = &queue.bucket {
            let pause = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
            tokio::time::sleep(pause).await;
        }
        Turn(slot)
    }
}

/// Tokens that come at a steady rate; one is taken for each pull, also before it is there.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rates: Rates) -> Self {
        let burst = f64::from(rates.burst.max(1));
        Self { rate: f64::from(rates.per_second), burst, tokens: burst, at: Instant::now() }
    }

    /// Takes a token and answers how long to wait for it.
    fn take(&mut self, now: Instant) -> Duration {
        let come = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + come).min(self.burst) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.tokens / self.rate).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const UNLIMITED: Rates = Rates { parallel: None, per_second: 0, burst: 0 };

    #[tokio::test]
    async fn so_many_may_pull_at_once_and_one_that_is_done_lets_the_next_in() {
        for n in [1, 3] {
            let limits = Limits::new(Rates { parallel: Some(n), ..UNLIMITED });
            let mut turns: Vec<_> = (0..n).map(|_| limits.turn().now_or_never().unwrap()).collect();
            let mut next = Box::pin(limits.turn());
            assert!(next.as_mut().now_or_never().is_none(), "{n} pull");
            // One who gives up waiting takes no place.
            drop(limits.turn().now_or_never());
            turns.pop();
            assert!(next.now_or_never().is_some(), "one of {n} is done");
        }
        let limits = Limits::new(UNLIMITED);
        let all: Vec<_> = (0..50).map(|_| limits.turn().now_or_never()).collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn other_limits_are_for_those_who_come_later() {
        let one = Rates { parallel: Some(1), ..UNLIMITED };
        let limits = Limits::new(one);
        let first = limits.turn().now_or_never().unwrap();
        let mut waits = Box::pin(limits.turn());
        assert!(waits.as_mut().now_or_never().is_none());
        limits.set(one);
        assert!(limits.turn().now_or_never().is_none(), "the same limits are the same queue");
        limits.set(UNLIMITED);
        assert!(limits.turn().now_or_never().is_some());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waits.now_or_never().is_some());
    }

    #[test]
    fn pulls_begin_at_a_rate_after_a_burst() {
        let mut bucket = Bucket::new(Rates { per_second: 2, burst: 2, ..UNLIMITED });
        let begun = bucket.at;
        let at = |millis| begun + Duration::from_millis(millis);
        let pauses: Vec<u128> = (0..4).map(|_| bucket.take(at(0)).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 500, 1000]);
        assert_eq!(bucket.take(at(1500)).as_millis(), 0, "those who waited had their turns");
        assert_eq!(bucket.take(at(1500)).as_millis(), 500);
        let pauses: Vec<u128> = (0..3).map(|_| bucket.take(at(60_000)).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 500], "quiet minutes save up a burst and no more");
    }
}
