//! One maker per key, which goes on when its caller goes away. Pure coordination in memory; between processes the files
//! decide.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use podstead_runtime::{Error, Result};

/// Locks by key, kept only while somebody wants them.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Flights {
    fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = all.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        all.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Runs `work` in a task of its own, after any other with this key. Dropping the future does not stop it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        key: &str,
        doing: &str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let lock = self.lock(key);
        let task = tokio::spawn(async move {
            let _turn = lock.lock_owned().await;
            work.await
        });
        task.await.unwrap_or_else(|error| Err(Error::failed(doing, error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn a_dropped_call_goes_on_and_the_next_waits_for_it() {
        let flights = Flights::default();
        let count = Arc::new(AtomicU32::new(0));
        let step = |count: Arc<AtomicU32>| async move {
            let seen = count.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            count.store(seen + 1, Ordering::SeqCst);
            Ok(())
        };
        for _ in 0..3 {
            let call = flights.run("key", "count", step(Arc::clone(&count)));
            let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
        }
        flights.run("key", "count", step(Arc::clone(&count))).await.expect("counted");
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }
}
