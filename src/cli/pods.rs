//! `podstead pods`: the pods as a running agent knows them, or, without one, as the runtime has them.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use podstead_runtime::{Runtime, Time};

use super::output::{self, Format};
use crate::agent::{self, Published};
use crate::backend::Backend;
use crate::config::RuntimeFlags;
use crate::node::facts;
use crate::pod::container::is_sidecar;
use crate::report;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  podstead pods                 the pods with status, restarts and address"
)]
pub struct Args {
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Lists the pods.
pub async fn run(flags: &RuntimeFlags, args: &Args) -> anyhow::Result<()> {
    let (_, pods) = known(flags).await?;
    if args.output != Format::Table {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "PodList", "items": pods });
        return output::data(args.output, &list);
    }
    let now = Time::now();
    let rows = pods.iter().map(|pod| row(pod, now)).collect();
    output::table(&["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"], rows)
}

/// The node's name and its pods, as a running agent knows them, or, without one, as the runtime has them.
pub(super) async fn known(flags: &RuntimeFlags) -> anyhow::Result<(String, Vec<Pod>)> {
    match published(flags) {
        Some(published) => {
            if let Some(error) = &published.error {
                eprintln!("podstead: the runtime cannot be read, these are the pods as last seen: {error}");
            }
            Ok((published.node, published.pods))
        }
        None => from_runtime(flags).await,
    }
}

/// What a running agent says; `None` without one.
pub(super) fn published(flags: &RuntimeFlags) -> Option<Published> {
    let text = std::fs::read(agent::published_path(&flags.state_dir)).ok()?;
    agent::is_running(&flags.state_dir).then(|| serde_json::from_slice(&text).ok())?
}

async fn from_runtime(flags: &RuntimeFlags) -> anyhow::Result<(String, Vec<Pod>)> {
    let runtime = Backend::look(flags).await?;
    let node = report::Node {
        name: facts::node_name(None),
        ips: facts::addresses(),
        runtime: runtime.version().await?.name,
    };
    let pods = report::found(&runtime.observe().await?, &node).into_values().collect();
    Ok((node.name, pods))
}

fn row(pod: &Pod, now: Time) -> Vec<String> {
    let meta = &pod.metadata;
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.clone().unwrap_or_default();
    let sidecars = sidecars(pod);
    let serving = || containers.iter().chain(&sidecars);
    let ready = serving().filter(|c| c.ready).count();
    let restarts: i32 = serving().map(|c| c.restart_count).sum();
    let started = status.start_time.as_ref().map(|t| t.0.as_nanosecond()).and_then(|n| i64::try_from(n).ok());
    vec![
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
        format!(
            "{ready}/{}",
            pod.spec.as_ref().map_or(containers.len(), |s| s.containers.len()) + sidecars.len()
        ),
        word(pod, &containers),
        restarts.to_string(),
        started.map_or_else(|| "<unknown>".to_owned(), |t| output::age(Time(t), now)),
        status.pod_ip.unwrap_or_else(|| "<none>".to_owned()),
    ]
}

/// The statuses of init containers that go on beside the others.
fn sidecars(pod: &Pod) -> Vec<ContainerStatus> {
    let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let names: Vec<&String> = init.filter(|c| is_sidecar(c)).map(|c| &c.name).collect();
    let statuses = pod.status.iter().flat_map(|s| s.init_container_statuses.iter().flatten());
    statuses.filter(|c| names.contains(&&c.name)).cloned().collect()
}

/// kubectl's STATUS column while init containers are not done: `Init:0/2`, `Init:CrashLoopBackOff`.
fn init_word(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    let sidecars = sidecars(pod);
    for (done, status) in statuses.iter().enumerate() {
        let state = status.state.clone().unwrap_or_default();
        let up = sidecars.iter().any(|c| c.name == status.name) && status.started == Some(true);
        if up || state.terminated.as_ref().is_some_and(|end| end.exit_code == 0) {
            continue;
        }
        let reason = state.terminated.and_then(|end| end.reason).or(state.waiting.and_then(|w| w.reason));
        return Some(match reason.filter(|r| !r.is_empty() && r != "PodInitializing") {
            Some(reason) => format!("Init:{reason}"),
            None => format!("Init:{done}/{}", statuses.len()),
        });
    }
    None
}

/// Whether the node does not take the pod, and nothing of it was made.
fn refused(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let none_made = all.into_iter().all(|c| c.container_id.is_none());
    none_made && status.reason.is_some_and(|reason| !reason.is_empty())
}

/// kubectl's STATUS column: a waiting or terminated container's reason before the phase.
fn word(pod: &Pod, containers: &[ContainerStatus]) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let of_pod = pod.status.as_ref().and_then(|s| s.reason.clone());
    if let Some(reason) = of_pod.filter(|_| refused(pod)) {
        return reason;
    }
    if let Some(word) = init_word(pod) {
        return word;
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    let reason = containers.iter().rev().find_map(|c| {
        let state = c.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|w| w.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|t| t.reason.clone()))
    });
    let any_runs = containers.iter().any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
    match reason {
        Some(reason) if !(any_runs && reason == "Completed") => reason,
        _ => phase,
    }
}
