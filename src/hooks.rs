//! Lifecycle hooks of containers (`kubelet-static-pods.md 2.11`): a command in the container, an HTTP request to it, or a
//! pause. Effects only; when a hook is due is decided elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use podstead_runtime::{ContainerId, Runtime};

use crate::probe::dial::Peer;
use crate::probe::http::{self, Request};

/// How hooks name themselves in HTTP requests.
const AGENT: &str = "kube-lifecycle/1.36";
/// Longest wait for the answer to an HTTP hook; whoever carries the hook out may give it up earlier.
const ANSWER: Duration = Duration::from_secs(600);

/// What a hook is carried out on.
#[derive(Clone, Debug)]
pub struct Target {
    /// The instance.
    pub id: ContainerId,
    /// The container's ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Where its pod is reached, in order of preference.
    pub ips: Vec<IpAddr>,
}

/// Carries out a hook; the error says what it was and what happened. Commands have no time-out of their own: whoever
/// waits gives up.
pub async fn run<R: Runtime>(runtime: &R, hook: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return command(runtime, &target.id, exec.command.as_deref().unwrap_or_default()).await;
    }
    if let Some(get) = &hook.http_get {
        return request(get, target).await;
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("it says neither exec nor httpGet nor sleep".to_owned())
}

async fn command<R: Runtime>(runtime: &R, id: &ContainerId, command: &[String]) -> Result<(), String> {
    let shown = command.join(" ");
    match runtime.exec_sync(id, command, Duration::ZERO).await {
        Ok(output) if output.code == 0 => Ok(()),
        Ok(output) => {
            let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            let text: String = String::from_utf8_lossy(text).trim().chars().take(1024).collect();
            Err(format!("command '{shown}' exited with {}: {text}", output.code))
        }
        Err(error) => Err(format!("command '{shown}': {error}")),
    }
}

/// Any answer is a success.
async fn request(get: &HTTPGetAction, target: &Target) -> Result<(), String> {
    let port = match &get.port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => target.ports.get(name).copied().or_else(|| name.parse().ok()),
    };
    let port = port.ok_or_else(|| format!("the container has no port {:?}", get.port))?;
    let given = get.host.clone().filter(|host| !host.is_empty());
    let first = target.ips.first().map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string);
    let ips = if given.is_some() { Vec::new() } else { target.ips.clone() };
    let peer = Peer { host: given.unwrap_or(first), ips, port };
    let headers = get.http_headers.as_deref().unwrap_or_default();
    let path = get.path.as_deref().unwrap_or("/");
    let ask = async |scheme: &str| {
        let request = Request::new(scheme, &peer, path, headers, AGENT).map_err(|e| e.to_string())?;
        http::get(request, ANSWER).await.map(|_| ()).map_err(|e| e.to_string())
    };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP");
    match ask(scheme).await {
        // The kubelet's concession to servers that never spoke TLS.
        Err(error) if scheme == "HTTPS" && error.contains(http::PLAIN_ANSWER) => ask("HTTP").await,
        outcome => outcome,
    }
}
