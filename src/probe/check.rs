//! One probe of one instance: which check its manifest names, and what came of it. Effects are in the rooms beside it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use podstead_runtime::Runtime;

use super::dial::Peer;
use super::http::{self, Failed, PROBE_AGENT, Request};
use super::target::Target;
use super::{exec, grpc, tcp, thresholds};

/// As much as is kept of what a container says.
pub(super) const MAX_TEXT: usize = 10 * 1024;
/// How often a probe that could not be made is tried, all at once.
const TRIES: u32 = 3;

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It passed.
    Success,
    /// It passed, but somebody should know.
    Warning(String),
    /// It failed.
    Failure(String),
    /// It could not be made; says nothing about the container.
    Error(String),
}

/// Makes the probe, and again at once when it could not be made.
pub(super) async fn check<R: Runtime>(runtime: &R, target: &Target, probe: &Probe) -> Answer {
    let mut answer = once(runtime, target, probe).await;
    for _ in 1..TRIES {
        if !matches!(answer, Answer::Error(_)) {
            break;
        }
        answer = once(runtime, target, probe).await;
    }
    answer
}

async fn once<R: Runtime>(runtime: &R, target: &Target, probe: &Probe) -> Answer {
    let timeout = thresholds::timeout(probe);
    let outcome = match probe {
        Probe { exec: Some(ExecAction { command }), .. } => {
            let command = command.as_deref().unwrap_or_default();
            Ok(exec::check(runtime, &target.id, command, timeout).await)
        }
        Probe { http_get: Some(get), .. } => http_get(target, get, timeout).await,
        Probe { tcp_socket: Some(TCPSocketAction { host, port }), .. } => {
            match peer(target, host.as_deref(), port) {
                Ok(peer) => Ok(tcp::check(&peer, timeout).await),
                Err(error) => Err(error),
            }
        }
        Probe { grpc: Some(GRPCAction { port, service, mode }), .. } => {
            let encrypted = mode.as_deref() == Some("TLS");
            match peer(target, None, &IntOrString::Int(*port)) {
                Ok(peer) => {
                    Ok(grpc::check(&peer, service.as_deref().unwrap_or_default(), encrypted, timeout).await)
                }
                Err(error) => Err(error),
            }
        }
        _ => Err("missing probe handler".to_owned()),
    };
    outcome.unwrap_or_else(Answer::Error)
}

async fn http_get(target: &Target, get: &HTTPGetAction, timeout: Duration) -> Result<Answer, String> {
    let peer = peer(target, get.host.as_deref(), &get.port)?;
    let (scheme, path) = (get.scheme.as_deref().unwrap_or("HTTP"), get.path.as_deref().unwrap_or("/"));
    let headers = get.http_headers.as_deref().unwrap_or_default();
    let request =
        Request::new(scheme, &peer, path, headers, PROBE_AGENT).map_err(|error| error.to_string())?;
    Ok(match http::get(request, timeout).await {
        Ok(answer) if (200..300).contains(&answer.status) => Answer::Success,
        Ok(answer) if (300..400).contains(&answer.status) => {
            Answer::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) => Answer::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
        Err(error @ Failed::NoResponse { .. }) => Answer::Failure(error.to_string()),
        Err(error) => Answer::Error(error.to_string()),
    })
}

/// Where a probe goes: the host that the manifest names, else the pod.
fn peer(target: &Target, host: Option<&str>, port: &IntOrString) -> Result<Peer, String> {
    let port = target.port(port)?;
    if let Some(host) = host.filter(|h| !h.is_empty()) {
        return Ok(Peer { host: host.to_owned(), ips: Vec::new(), port });
    }
    let first = target.host.first().ok_or("the pod has no address yet")?;
    Ok(Peer { host: first.to_string(), ips: target.host.clone(), port })
}
