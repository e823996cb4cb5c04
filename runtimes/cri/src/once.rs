//! Making things once, although callers go away and servers are still at it.
//!
//! A server gives up a call whose caller is gone, and what it leaves then is not always what it was asked for. So verbs
//! that make something run in a task of their own, which a dropped future does not end, and a second call for the same
//! thing waits for the first. What another process began (an agent that was killed) is known by the server's words.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use futures_util::future::Shared;
use podstead_runtime::{Error, Result};
use tokio::time::Instant;

type Flight = Shared<BoxFuture<'static, Result<String>>>;
type Table = Arc<Mutex<HashMap<String, Flight>>>;

/// What is being made now, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Table);

impl Flights {
    /// Awaits the flight of this key; begins it with `make` when there is none. It goes on when this is dropped.
    pub(crate) async fn join(
        &self,
        key: String,
        make: impl Future<Output = Result<String>> + Send + 'static,
    ) -> Result<String> {
        let flight = {
            let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = table.get(&key) {
                flight.clone()
            } else {
                let landed = Landed { table: Arc::clone(&self.0), key: key.clone() };
                let task = tokio::spawn(async move {
                    let _landed = landed;
                    make.await
                });
                let doing = key.clone();
                let end = task.map(|end| end.unwrap_or_else(|died| Err(Error::failed(doing, died))));
                let flight = end.boxed().shared();
                table.insert(key, flight.clone());
                flight
            }
        };
        flight.await
    }
}

/// Takes the flight out of the table, however it ends.
struct Landed {
    table: Table,
    key: String,
}

impl Drop for Landed {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The server holds the name for a thing that is being made or taken away: containerd's
/// `name "..." is reserved for "ID"`, CRI-O's `name is reserved`.
pub(crate) fn is_reserved(error: &Error) -> bool {
    words(error).contains("is reserved")
}

/// The id that a name is reserved for, where the server says it.
pub(crate) fn holder(error: &Error) -> Option<&str> {
    let (_, rest) = words(error).split_once("is reserved for \"")?;
    rest.split_once('"').map(|(id, _)| id).filter(|id| !id.is_empty())
}

/// Another call for the same container is being carried out (containerd's words).
pub(crate) fn is_under_way(error: &Error) -> bool {
    const WORDS: [&str; 3] =
        ["already in starting state", "still in starting state", "already in removing state"];
    WORDS.iter().any(|known| words(error).contains(known))
}

/// The server's words; containerd 2 gives the same ones another code than 1 does.
fn words(error: &Error) -> &str {
    match error {
        Error::Failed { cause, .. } | Error::State { cause, .. } => cause,
        _ => "",
    }
}

/// Waits between looks at what somebody else is doing: short at first, up to half a second, until a deadline.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, pause: Duration::from_millis(20) }
    }

    /// Waits a little; `false` when the time is up.
    pub(crate) async fn wait(&mut self) -> bool {
        if Instant::now() + self.pause > self.until {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(500));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dropped_caller_does_not_end_the_making_and_the_next_waits_for_it() {
        let flights = Flights::default();
        let begun = Arc::new(AtomicU32::new(0));
        let make = || {
            let begun = Arc::clone(&begun);
            async move {
                let n = begun.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok(format!("id{n}"))
            }
        };
        let dropped = flights.join("pod".into(), make());
        assert!(tokio::time::timeout(Duration::from_secs(1), dropped).await.is_err());
        assert_eq!(flights.join("pod".into(), make()).await.as_deref(), Ok("id0"));
        assert_eq!(flights.join("pod".into(), make()).await.as_deref(), Ok("id1"), "it had landed");
    }

    #[tokio::test]
    async fn a_making_that_dies_is_an_error_and_the_next_one_begins_anew() {
        let flights = Flights::default();
        let dies = async { panic!("a bug") };
        assert!(flights.join("pod".into(), dies).await.is_err());
        assert_eq!(flights.join("pod".into(), async { Ok("id".into()) }).await.as_deref(), Ok("id"));
    }

    #[test]
    fn what_servers_say_of_things_being_made_is_understood() {
        let containerd =
            Error::failed("x", r#"failed to reserve sandbox name "a": name "a" is reserved for "0f""#);
        assert!(is_reserved(&containerd));
        assert_eq!(holder(&containerd), Some("0f"));
        let Error::Failed { doing, cause } = containerd else { panic!("it failed") };
        let containerd2 = Error::State { doing, cause };
        assert_eq!((is_reserved(&containerd2), holder(&containerd2)), (true, Some("0f")));
        let crio = Error::failed("x", "stage: container storage creation: name is reserved");
        assert!(is_reserved(&crio) && holder(&crio).is_none());
        assert!(!is_reserved(&Error::failed("x", "no such image")));
        let starting =
            "failed to set starting state for container \"a\": container is already in starting state";
        assert!(is_under_way(&Error::failed("x", starting)));
    }
}
