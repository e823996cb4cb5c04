//! One call: its deadline, and what a gRPC status means to the agent.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use futures_core::future::BoxFuture;
use podstead_runtime::{Error, Result};
use tonic::{Code, Request, Response, Status};

/// What containerd answers, with code Unknown, until its plugin has started.
const NOT_YET: &str = "server is not initialized yet";

/// What a deadline can be at most: a grace may be any number, and a gRPC deadline has eight digits.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A request that tells the server its deadline, so that the server gives up as well.
pub(crate) fn request<T>(message: T, limit: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(limit) = limit {
        request.set_timeout(limit.min(LONGEST));
    }
    request
}

/// Awaits a call for at most `limit`, and names what was being done when it fails.
/// Boxed, because a gRPC call's future is large and every verb has some.
pub(crate) fn within<'a, T>(
    doing: impl Fn() -> String + Send + 'a,
    limit: Option<Duration>,
    call: impl Future<Output = Result<Response<T>, Status>> + Send + 'a,
) -> BoxFuture<'a, Result<T>> {
    Box::pin(async move {
        let answer = match limit {
            Some(limit) => match tokio::time::timeout(limit, call).await {
                Ok(answer) => answer,
                Err(_) => return Err(Error::Deadline { doing: doing(), seconds: limit.as_secs() }),
            },
            None => call.await,
        };
        answer.map(Response::into_inner).map_err(|status| error(doing(), &status, limit))
    })
}

/// The error that a status means.
pub(crate) fn error(doing: String, status: &Status, limit: Option<Duration>) -> Error {
    let cause = cause(status);
    if timed_out_here(status) || status.code() == Code::DeadlineExceeded {
        return Error::Deadline { doing, seconds: limit.unwrap_or_default().as_secs() };
    }
    // A status with a source was made on this side of the socket: the transport broke.
    if status.source().is_some() || status.message().contains(NOT_YET) {
        return Error::Unavailable { doing, cause };
    }
    match status.code() {
        Code::Unavailable => Error::Unavailable { doing, cause },
        Code::NotFound => Error::NotFound { doing, what: cause },
        Code::InvalidArgument | Code::OutOfRange => Error::Invalid { doing, cause },
        Code::Unimplemented => Error::Unsupported { doing, what: cause },
        Code::FailedPrecondition => Error::State { doing, cause },
        Code::Unauthenticated | Code::PermissionDenied => Error::Denied { doing, cause },
        _ => Error::Failed { doing, cause },
    }
}

/// Whether tonic's own clock ended the call.
fn timed_out_here(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The server's words; for a broken transport the innermost reason, which is the one that says something.
fn cause(status: &Status) -> String {
    let mut innermost = None;
    let mut source = status.source();
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match (innermost, status.message()) {
        (Some(reason), _) => reason,
        (None, "") => format!("gRPC status {:?}", status.code()),
        (None, message) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use podstead_runtime::Retry;

    use super::*;

    #[test]
    fn a_status_says_what_was_being_done_and_when_to_try_again() {
        for (code, retry) in [
            (Code::Unavailable, Retry::Soon),
            (Code::NotFound, Retry::Backoff),
            (Code::InvalidArgument, Retry::Never),
            (Code::Unimplemented, Retry::Never),
            (Code::FailedPrecondition, Retry::Backoff),
            (Code::DeadlineExceeded, Retry::Backoff),
            (Code::Unknown, Retry::Backoff),
            (Code::PermissionDenied, Retry::Backoff),
        ] {
            let error = error("stop container c1".into(), &Status::new(code, "words"), None);
            assert_eq!(error.retry(), retry, "{code:?}");
            assert!(error.to_string().starts_with("stop container c1: "), "{error}");
        }
    }

    #[test]
    fn a_server_that_still_starts_is_away_not_broken() {
        let status = Status::new(Code::Unknown, "server is not initialized yet");
        assert_eq!(error("x".into(), &status, None).retry(), Retry::Soon);
    }

    #[tokio::test]
    async fn an_absurd_grace_is_no_panic() {
        let limit = Some(Duration::from_secs(u64::MAX));
        request((), limit);
        let answer = within(|| "stop".into(), limit, async { Ok(Response::new(7)) }).await;
        assert_eq!(answer, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_at_its_deadline() {
        let hang = std::future::pending::<Result<Response<()>, Status>>();
        let error = within(|| "list".into(), Some(Duration::from_secs(7)), hang).await.unwrap_err();
        assert_eq!(error, Error::Deadline { doing: "list".into(), seconds: 7 });
    }
}
