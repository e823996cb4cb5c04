//! The `tcpSocket` probe: a connection that opens is a success. Touches the network.

use std::time::Duration;

use super::check::Answer;
use super::dial::{self, Peer};

/// Connects and closes.
pub(super) async fn check(peer: &Peer, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, dial::connect(peer)).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(refusal)) => Answer::Failure(refusal),
        Err(_) => Answer::Failure(format!("dial tcp {}: i/o timeout", peer.authority())),
    }
}
